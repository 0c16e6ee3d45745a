/* SPDX-License-Identifier: MIT */
/*
 * Credits over VIs: two processes, the word in the immediate data of VipPostSend's descriptors. A
 * reliable VI breaks when a message finds no receive, so one too many would end each test.
 */
#include "credit.h"
#include "end.h"

enum { WINDOW = 4, RESERVE = 1, RECEIVES = WINDOW + RESERVE, TO_SEND = SLOTS - 1 };

/* Two threads in one process, and watched, take longer. */
#ifdef __SANITIZE_THREAD__
enum { MESSAGES = 300 };
#else
enum { MESSAGES = 3000 };
#endif

/* Each process has one end, and so one of these; where both are in one process, each thread. */
static _Thread_local struct credit credit;

struct plan {
    uint64_t count;
    unsigned updates;
    int result;
    uint32_t word;
};

static void post_receive(struct end *end, int slot)
{
    T_EQ(VipPostRecv(end->vi, end_prepare(end, slot, 8), end->handle), VIP_SUCCESS);
    credit_posted(&credit);
}

static void flow_open(void **state, void *arg)
{
    uint32_t hello;

    (void)arg;
    T_EQ(credit_init(&credit, RESERVE), 0);
    for (int i = 0; i < RECEIVES; i++) {
        post_receive(*state, i);
    }
    T_EQ(credit_hello(&credit, &hello), 0);
    T_EQ(credit_meet(&credit, hello), 0); /* both are alike */
}

static void send_word(struct end *end, uint64_t number, uint32_t len, uint32_t word)
{
    VIP_DESCRIPTOR *d = end_prepare(end, TO_SEND, len);

    memcpy(end_data(end, TO_SEND), &number, sizeof(number));
    d->CS.Control = VIP_CONTROL_IMMEDIATE;
    d->CS.ImmediateData = word;
    T_EQ(VipPostSend(end->vi, d, end->handle), VIP_SUCCESS);
    T_EQ(end_take(end->vi, SEND, &d), VIP_SUCCESS);
    credit_sent(&credit, word);
}

/* The next message's kind; its receive is posted again, and an update sent if one is due. */
static int receive(struct end *end, uint64_t *number_out, struct plan *plan)
{
    VIP_DESCRIPTOR *d;
    uint32_t word;
    int kind, slot;

    T_EQ(end_take(end->vi, RECV, &d), VIP_SUCCESS);
    T_ASSERT(d->CS.Status & VIP_STATUS_IMMEDIATE);
    kind = credit_arrived(&credit, d->CS.ImmediateData);
    if (kind < 0) {
        return kind;
    }
    slot = (int)(((char *)d - end->area) / DESCRIPTOR_ROOM);
    memcpy(number_out, end_data(end, slot), sizeof(*number_out));
    post_receive(end, slot);
    if (credit_update(&credit, &word) == 0) {
        plan->updates++;
        send_word(end, 0, 0, word);
    }
    return kind;
}

static void produce(void **state, void *arg)
{
    struct plan *plan = arg;
    uint64_t nothing;
    uint32_t word;

    for (uint64_t i = 0; i < plan->count; i++) {
        while (credit_take(&credit, &word) != 0) {
            T_EQ(receive(*state, &nothing, plan), CREDIT_UPDATE);
        }
        send_word(*state, i, 8, word);
    }
}

static void consume(void **state, void *arg)
{
    struct plan *plan = arg;
    uint64_t number = 0, next = 0;

    while (next < plan->count && plan->result >= 0) {
        plan->result = receive(*state, &number, plan);
        if (plan->result == CREDIT_DATA) {
            T_EQ(number, next++);
        }
    }
}

/* Without waiting for anything: how many go out before there is no credit. */
static void spend(void **state, void *arg)
{
    struct plan *plan = arg;
    uint32_t word;

    for (plan->count = 0; (plan->result = credit_take(&credit, &word)) == 0; plan->count++) {
        send_word(*state, plan->count, 8, word);
    }
}

/* Look at messages, and keep their receives: nothing more is granted. */
static void keep(void **state, void *arg)
{
    struct end *end = *state;
    struct plan *plan = arg;
    VIP_DESCRIPTOR *d;

    for (uint64_t i = 0; i < plan->count; i++) {
        T_EQ(end_take(end->vi, RECV, &d), VIP_SUCCESS);
        plan->result = credit_arrived(&credit, d->CS.ImmediateData);
    }
}

static void send_raw(void **state, void *arg)
{
    send_word(*state, 0, 8, ((struct plan *)arg)->word);
}

static struct ends open_flow(VIP_RELIABILITY_LEVEL level)
{
    struct ends e = ends_connect(level);
    struct plan plan = {0};

    t_peer_call(e.a, flow_open, &plan, sizeof(plan));
    t_peer_call(e.b, flow_open, &plan, sizeof(plan));
    return e;
}

static void one_way_at(VIP_RELIABILITY_LEVEL level)
{
    /* Thousands of messages through four receives, in order, and the VI is still connected. */
    struct ends e = open_flow(level);
    struct plan a = {.count = MESSAGES}, b = {.count = MESSAGES};

    t_peer_begin(e.b, consume, &b, sizeof(b));
    t_peer_call(e.a, produce, &a, sizeof(a));
    t_peer_finish(e.b);
    expect_state(e.a, VIP_STATE_CONNECTED);
    expect_state(e.b, VIP_STATE_CONNECTED);
    ends_close(e);
}
T_RELIABLE_LEVELS(credit_vi, one_way)

static void both_ways_at(VIP_RELIABILITY_LEVEL level)
{
    /* First the one side sends, then the other: credits are as they were. */
    struct ends e = open_flow(level);

    for (int round = 0; round < 4; round++) {
        struct plan a = {.count = 501}, b = {.count = 501};

        t_peer_begin(e.b, round % 2 ? produce : consume, &b, sizeof(b));
        t_peer_call(e.a, round % 2 ? consume : produce, &a, sizeof(a));
        t_peer_finish(e.b);
    }
    expect_state(e.a, VIP_STATE_CONNECTED);
    ends_close(e);
}
T_RELIABLE_LEVELS(credit_vi, both_ways)

T_TEST(credit_vi, spent)
{
    /* As many as the window has, then -EAGAIN; the VI lives. */
    struct ends e = open_flow(VIP_SERVICE_RELIABLE_DELIVERY);
    struct plan plan = {0};

    t_peer_call(e.a, spend, &plan, sizeof(plan));
    T_EQ(plan.result, -EAGAIN);
    T_EQ(plan.count, WINDOW);
    expect_state(e.a, VIP_STATE_CONNECTED);
    ends_close(e);
}

T_TEST(credit_vi, without_credits_it_breaks)
{
    /* What all this is for: one message more than there are receives. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct order taken;

    post_recv(e.b, 0, 8);
    post_send(e.a, 0, 8);
    expect_done(e.a, SEND, 0, VIP_STATUS_OP_SEND, 8);
    post_send(e.a, 1, 8);
    taken = order_run(e.a, do_take, (struct order){.which = SEND});
    T_EQ(taken.result, VIP_DESCRIPTOR_ERROR);
    T_ASSERT(taken.status & VIP_STATUS_ERROR_MASK);
    expect_state(e.a, VIP_STATE_ERROR);
    ends_close(e);
}

T_TEST(credit_vi, over_sending_is_caught)
{
    /* The message fits into the reserve, so the VI does not mind: but we do. */
    struct ends e = open_flow(VIP_SERVICE_RELIABLE_DELIVERY);
    struct plan a = {0}, b = {.count = WINDOW + 1};

    t_peer_call(e.a, spend, &a, sizeof(a));
    a.word = 0x04010004;
    t_peer_call(e.a, send_raw, &a, sizeof(a));
    t_peer_call(e.b, keep, &b, sizeof(b));
    T_EQ(b.result, -EOVERFLOW);
    expect_state(e.a, VIP_STATE_CONNECTED);
    ends_close(e);
}
