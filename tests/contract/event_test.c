/* SPDX-License-Identifier: MIT */
/* Completion events: arming, any and solicited, channels, accounts. Waiting is by poll() on the fd.
 */
#include "ends.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <unistd.h>

static const struct side_opt with_events = {.events = true};

/* Operations at an end: arm a CQ; wait for its event (or see that none comes), and acknowledge it.
 */
struct arm {
    enum which which;
    int solicited;
};

static struct ibv_cq *pick(struct side *s, enum which which)
{
    return which == SEND_CQ ? s->send_cq : s->recv_cq;
}

static void do_arm(struct side *s, void *arg)
{
    struct arm *arm = arg;

    T_EQ(ibv_req_notify_cq(pick(s, arm->which), arm->solicited), 0);
}

static void arm(struct end *e, enum which which, int solicited)
{
    struct arm call = {which, solicited};

    e_run(e, do_arm, &call, sizeof(call));
}

static void take_event(struct side *s, enum which which)
{
    struct ibv_cq *cq = NULL;
    void *context = NULL;

    T_ASSERT(t_readable(s->channel->fd, WAIT_MS), "no completion event");
    T_EQ(ibv_get_cq_event(s->channel, &cq, &context), 0);
    T_ASSERT(cq == pick(s, which) && context == s);
    ibv_ack_cq_events(cq, 1);
}

static void do_event(struct side *s, void *arg)
{
    take_event(s, *(enum which *)arg);
}

static void event(struct end *e, enum which which)
{
    e_run(e, do_event, &which, sizeof(which));
}

static void do_no_event(struct side *s, void *arg)
{
    (void)arg;
    T_ASSERT(!t_readable(s->channel->fd, QUIET_MS), "an event that was not asked for");
}

static void no_event(struct end *e)
{
    int nothing = 0;

    e_run(e, do_no_event, &nothing, sizeof(nothing));
}

static void send_one(struct pair *p, unsigned flags)
{
    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 64, .flags = flags});
    e_done(p->a, 2, IBV_WC_SEND);
}

T_CONTRACT(event, not_armed)
{
    /* Without ibv_req_notify_cq a completion makes no event. */
    struct pair *p = pair_open(topology, &with_events);

    send_one(p, 0);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    no_event(p->a);
    no_event(p->b);
    pair_close(p);
}

T_CONTRACT(event, armed_for_any)
{
    /* Armed, the next completion makes one event, for a receive as for a send. */
    struct pair *p = pair_open(topology, &with_events);

    arm(p->a, SEND_CQ, 0);
    arm(p->b, RECV_CQ, 0);
    send_one(p, 0);
    event(p->a, SEND_CQ);
    event(p->b, RECV_CQ);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    pair_close(p);
}

T_CONTRACT(event, event_without_any_poll)
{
    /* The event comes though nobody polls the CQ: it wakes a side that sleeps. */
    struct pair *p = pair_open(topology, &with_events);

    arm(p->b, RECV_CQ, 0);
    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 64});
    event(p->b, RECV_CQ);
    /* The completion is there when the event is (IBTA 11.4.2.2). */
    e_got(p->b, 1, IBV_WC_RECV, 64);
    e_done(p->a, 2, IBV_WC_SEND);
    pair_close(p);
}

T_CONTRACT(event, comes_though_polled_first)
{
    /* A completion makes its event when it is added, however quickly it is polled. */
    struct pair *p = pair_open(topology, &with_events);

    for (int i = 0; i < 100; i++) {
        arm(p->a, SEND_CQ, 0);
        arm(p->b, RECV_CQ, 0);
        send_one(p, 0);
        e_got(p->b, 1, IBV_WC_RECV, 64);
        event(p->a, SEND_CQ);
        event(p->b, RECV_CQ);
    }
    pair_close(p);
}

T_CONTRACT(event, each_arming_has_its_own)
{
    /* Armed again before the first event is read: two armings, two completions, two events. */
    struct pair *p = pair_open(topology, &with_events);

    for (int i = 0; i < 20; i++) {
        for (int k = 0; k < 2; k++) {
            arm(p->b, RECV_CQ, 0);
            send_one(p, 0);
            e_got(p->b, 1, IBV_WC_RECV, 64);
        }
        event(p->b, RECV_CQ);
        event(p->b, RECV_CQ);
        no_event(p->b);
    }
    pair_close(p);
}

T_CONTRACT(event, is_one_shot)
{
    /* One arming, one event, however many completions follow; armed anew, there is another. */
    struct pair *p = pair_open(topology, &with_events);

    arm(p->b, RECV_CQ, 0);
    for (int i = 0; i < 3; i++) {
        send_one(p, 0);
    }
    event(p->b, RECV_CQ);
    for (int i = 0; i < 3; i++) {
        e_got(p->b, 1, IBV_WC_RECV, 64);
    }
    no_event(p->b);
    arm(p->b, RECV_CQ, 0);
    send_one(p, 0);
    event(p->b, RECV_CQ);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    no_event(p->b);
    pair_close(p);
}

T_CONTRACT(event, arming_twice_is_arming_once)
{
    /* Requests for notification do not add up. */
    struct pair *p = pair_open(topology, &with_events);

    arm(p->b, RECV_CQ, 0);
    arm(p->b, RECV_CQ, 0);
    send_one(p, 0);
    send_one(p, 0);
    event(p->b, RECV_CQ);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    no_event(p->b);
    pair_close(p);
}

T_CONTRACT(event, solicited_only)
{
    /* Armed for solicited ones, an ordinary message is silent, a solicited one is not. */
    struct pair *p = pair_open(topology, &with_events);

    arm(p->b, RECV_CQ, 1);
    send_one(p, 0);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    no_event(p->b);
    send_one(p, IBV_SEND_SOLICITED);
    event(p->b, RECV_CQ);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    pair_close(p);
}

T_CONTRACT(event, solicited_write_with_immediate)
{
    /* A write with immediate may be solicited, too. */
    struct pair *p = pair_open(topology, &with_events);

    arm(p->b, RECV_CQ, 1);
    e_recv(p->b, &(struct post){.id = 1});
    e_send(p->a, &(struct post){.id = 2,
                                .op = IBV_WR_RDMA_WRITE_WITH_IMM,
                                .len = 64,
                                .roff = (int64_t)p->rx,
                                .flags = IBV_SEND_SOLICITED});
    event(p->b, RECV_CQ);
    e_got(p->b, 1, IBV_WC_RECV_RDMA_WITH_IMM, 64);
    e_done(p->a, 2, IBV_WC_RDMA_WRITE);
    pair_close(p);
}

T_CONTRACT(event, send_completions_are_not_solicited)
{
    /* Armed for solicited ones, the sender's own successful completion is silent (man page). */
    struct pair *p = pair_open(topology, &with_events);

    arm(p->a, SEND_CQ, 1);
    send_one(p, IBV_SEND_SOLICITED);
    no_event(p->a);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    pair_close(p);
}

T_CONTRACT(event, errors_are_solicited)
{
    /* A completion with an error counts as solicited (ibv_req_notify_cq(3)). */
    struct pair *p = pair_open(topology, &with_events);

    arm(p->a, SEND_CQ, 1);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8, .lkey = 0x00dead00});
    event(p->a, SEND_CQ);
    T_ASSERT(e_wait(p->a, SEND_CQ).status != IBV_WC_SUCCESS);
    pair_close(p);
}

T_CONTRACT(event, flushed_receives_are_solicited)
{
    /* So do receives that are flushed. */
    struct pair *p = pair_open(topology, &with_events);

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = 8});
    arm(p->b, RECV_CQ, 1);
    T_EQ(e_to_state(p->b, 0, IBV_QPS_ERR), 0);
    event(p->b, RECV_CQ);
    e_flushed(p->b, RECV_CQ, 1, 1);
    pair_close(p);
}

T_CONTRACT(event, any_is_not_narrowed)
{
    /* Armed for any, a further request for solicited ones takes nothing away (IBTA 11.4.2.2). */
    struct pair *p = pair_open(topology, &with_events);

    arm(p->b, RECV_CQ, 0);
    arm(p->b, RECV_CQ, 1);
    send_one(p, 0);
    event(p->b, RECV_CQ);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    pair_close(p);
}

T_CONTRACT(event, solicited_is_widened)
{
    /* Armed for solicited ones, a further request for any widens it. */
    struct pair *p = pair_open(topology, &with_events);

    arm(p->b, RECV_CQ, 1);
    arm(p->b, RECV_CQ, 0);
    send_one(p, 0);
    event(p->b, RECV_CQ);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    pair_close(p);
}

/* --- a loop of events, as programs do it
 * ----------------------------------------------------------- */

enum { TURNS = 200 };

/* Arms, and then takes what is there: what comes later makes an event. Gives how many came. */
static int arm_and_drain(struct side *s)
{
    struct ibv_recv_wr *bad, recv = {.wr_id = 1};
    int received = 0;
    struct ibv_wc wc;

    T_EQ(ibv_req_notify_cq(s->recv_cq, 0), 0);
    while (ibv_poll_cq(s->recv_cq, 1, &wc) == 1) {
        T_EQ(wc.status, IBV_WC_SUCCESS);
        T_EQ(ibv_post_recv(s->qp[0], &recv, &bad), 0);
        received++;
    }
    while (ibv_poll_cq(s->send_cq, 1, &wc) == 1) {
        T_EQ(wc.status, IBV_WC_SUCCESS);
    }
    return received;
}

/* Sleeps in the channel for each message of a ping-pong; never spins. */
static void ping_pong(struct side *s, void *arg)
{
    bool first = *(bool *)arg;
    int received = arm_and_drain(s), sent = 0;

    while (received < TURNS || sent < TURNS) {
        struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_SEND};
        struct ibv_wc wc;

        if (sent < TURNS && (first ? sent == received : sent < received)) {
            wr.send_flags = sent % 16 == 15 ? IBV_SEND_SIGNALED : 0;
            T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
            sent++;
            continue;
        }
        T_ASSERT(t_readable(s->channel->fd, WAIT_MS),
                 "no event after %d sent and %d received; a poll would have found %d", sent,
                 received, ibv_poll_cq(s->recv_cq, 1, &wc));
        take_event(s, RECV_CQ);
        received += arm_and_drain(s);
    }
}

T_CONTRACT_CONCURRENT(event, ping_pong_asleep)
{
    /* Two sides that only ever wait for events play 200 turns: no wake-up is lost. */
    struct pair *p = pair_open(topology, &with_events);
    bool yes = true, no = false;

    e_recv_many(p->a, 0, 1, 8, 0, 0);
    e_recv_many(p->b, 0, 1, 8, 0, 0);
    e_begin(p->b, ping_pong, &no, sizeof(no));
    e_run(p->a, ping_pong, &yes, sizeof(yes));
    e_finish(p->b);
    pair_close_loose(p);
}

/* --- channels
 * -------------------------------------------------------------------------------------- */

static struct side *self_side(const struct side_opt *opt)
{
    struct side *s = side_open(opt, NULL);

    side_connect(s, 0, &s->info, 0);
    return s;
}

static void make_completion(struct side *s, uint64_t id)
{
    struct ibv_send_wr *bad,
        wr = {.wr_id = id, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};

    T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
}

T_TEST(channel, non_blocking)
{
    /* With O_NONBLOCK an empty channel says EAGAIN instead of waiting. */
    struct side *s = self_side(&with_events);
    struct ibv_cq *cq;
    void *context;

    T_EQ(fcntl(s->channel->fd, F_SETFL, fcntl(s->channel->fd, F_GETFL) | O_NONBLOCK), 0);
    errno = 0;
    T_EQ(ibv_get_cq_event(s->channel, &cq, &context), -1);
    T_EQ(errno, EAGAIN);
    T_EQ(ibv_req_notify_cq(s->send_cq, 0), 0);
    make_completion(s, 1);
    take_event(s, SEND_CQ);
    T_EQ(ibv_get_cq_event(s->channel, &cq, &context), -1);
    T_EQ(cq_wait(s->send_cq).wr_id, 1);
    side_close(s, true);
}

T_TEST(channel, works_with_epoll)
{
    /* The descriptor can be watched by epoll, level- and edge-triggered. */
    struct side *s = self_side(&with_events);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET};

    T_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, s->channel->fd, &ev), 0);
    T_EQ(epoll_wait(epoll, &ev, 1, 0), 0);
    for (uint64_t i = 0; i < 3; i++) {
        T_EQ(ibv_req_notify_cq(s->send_cq, 0), 0);
        make_completion(s, i);
        T_EQ(epoll_wait(epoll, &ev, 1, WAIT_MS), 1);
        take_event(s, SEND_CQ);
        T_EQ(cq_wait(s->send_cq).wr_id, i);
    }
    close(epoll);
    side_close(s, true);
}

T_TEST(channel, shared_by_several_queues)
{
    /* Events of many CQs come through one channel, each names its own CQ and context pointer. */
    struct side *s = self_side(&with_events);
    struct ibv_cq *cq[2] = {s->send_cq, s->recv_cq};
    struct ibv_recv_wr *bad, recv = {.wr_id = 1};
    struct ibv_send_wr *bad_send, send = {.opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    bool seen[2] = {false, false};

    T_EQ(ibv_post_recv(s->qp[0], &recv, &bad), 0);
    T_EQ(ibv_req_notify_cq(cq[0], 0), 0);
    T_EQ(ibv_req_notify_cq(cq[1], 0), 0);
    T_EQ(ibv_post_send(s->qp[0], &send, &bad_send), 0);
    for (int i = 0; i < 2; i++) {
        struct ibv_cq *from = NULL;
        void *context = NULL;

        T_ASSERT(t_readable(s->channel->fd, WAIT_MS));
        T_EQ(ibv_get_cq_event(s->channel, &from, &context), 0);
        T_ASSERT((from == cq[0] || from == cq[1]) && context == s);
        seen[from == cq[1]] = true;
        ibv_ack_cq_events(from, 1);
    }
    T_ASSERT(seen[0] && seen[1]);
    cq_wait(cq[0]);
    cq_wait(cq[1]);
    side_close(s, true);
}

T_TEST(channel, acknowledged_in_one_go)
{
    /* Several events may be acknowledged by one call (ibv_get_cq_event(3)); then destroying works.
     */
    struct side *s = self_side(&with_events);

    for (uint64_t i = 0; i < 5; i++) {
        struct ibv_cq *cq;
        void *context;

        T_EQ(ibv_req_notify_cq(s->send_cq, 0), 0);
        make_completion(s, i);
        T_ASSERT(t_readable(s->channel->fd, WAIT_MS));
        T_EQ(ibv_get_cq_event(s->channel, &cq, &context), 0);
        T_EQ(cq_wait(s->send_cq).wr_id, i);
    }
    ibv_ack_cq_events(s->send_cq, 5);
    side_close(s, true);
}

T_TEST(channel, queue_destroyed_with_an_event_unread)
{
    /*
     * An event that nobody has read goes with its CQ: destroying does not wait for it, and
     * afterwards the channel does not give an event of a queue that is gone.
     */
    struct side *s = self_side(&with_events);

    T_EQ(ibv_req_notify_cq(s->send_cq, 0), 0);
    make_completion(s, 1);
    T_ASSERT(t_readable(s->channel->fd, WAIT_MS));
    T_EQ(ibv_destroy_qp(s->qp[0]), 0);
    s->qp[0] = NULL;
    T_EQ(ibv_destroy_cq(s->send_cq), 0);
    T_ASSERT(!t_readable(s->channel->fd, QUIET_MS));
    s->send_cq = ibv_create_cq(s->ctx, 4, s, NULL, 0);
    side_close(s, true);
}

struct late_ack {
    struct ibv_cq *cq;
    int *destroyed;
};

static void *destroy_thread(void *arg)
{
    struct late_ack *late = arg;
    int rc = ibv_destroy_cq(late->cq);

    __atomic_store_n(late->destroyed, rc == 0 ? 1 : -1, __ATOMIC_SEQ_CST);
    return NULL;
}

T_TEST(channel, destroying_waits_for_the_acknowledge)
{
    /* An event that was read and not acknowledged holds ibv_destroy_cq until it is (man page). */
    struct side *s = self_side(&with_events);
    int destroyed = 0;
    struct late_ack late = {s->send_cq, &destroyed};
    int64_t quiet = t_deadline(QUIET_MS);
    pthread_t thread;
    struct ibv_cq *cq;
    void *context;

    T_EQ(ibv_req_notify_cq(s->send_cq, 0), 0);
    make_completion(s, 1);
    T_EQ(ibv_get_cq_event(s->channel, &cq, &context), 0);
    T_EQ(ibv_destroy_qp(s->qp[0]), 0);
    s->qp[0] = NULL;
    T_EQ(pthread_create(&thread, NULL, destroy_thread, &late), 0);
    T_UNTIL(t_expired(quiet), WAIT_MS);
    T_EQ(__atomic_load_n(&destroyed, __ATOMIC_SEQ_CST), 0);
    ibv_ack_cq_events(cq, 1);
    T_EQ(pthread_join(thread, NULL), 0);
    T_EQ(destroyed, 1);
    s->send_cq = ibv_create_cq(s->ctx, 4, s, NULL, 0);
    side_close(s, true);
}

T_TEST(channel, descriptors_are_returned)
{
    /* Making and destroying channels leaves no descriptor open. */
    struct ibv_context *ctx = device_open();
    int before;

    T_EQ(ibv_destroy_comp_channel(ibv_create_comp_channel(ctx)), 0);
    before = t_fd_count();
    for (int i = 0; i < 50; i++) {
        struct ibv_comp_channel *channel = ibv_create_comp_channel(ctx);

        T_ASSERT(channel != NULL && channel->fd >= 0 && channel->context == ctx);
        T_EQ(ibv_destroy_comp_channel(channel), 0);
    }
    T_EQ(t_fd_count(), before);
    T_EQ(ibv_close_device(ctx), 0);
}
