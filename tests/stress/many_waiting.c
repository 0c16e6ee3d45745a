/* SPDX-License-Identifier: MIT */
/* Who waits, and who does not: blocking ends on one core, idle ends, ends that do not poll. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "many.h"

enum { ROUND_TRIPS = 5000, UNPOLLED = 1000, IDLE_MS = 500, SMALL_CQ = 16, OVERRUN = 200 };

struct waiter {
    struct rig rig;
    struct ibv_comp_channel *channel;
    struct ibv_cq *send_cq, *recv_cq;
    struct ibv_mr *mr;
    struct ibv_qp *qp;
};

static void open_waiter(const struct duo *duo, struct waiter *w, uint32_t depth, int entries)
{
    struct rig_address mine, other;

    rig_open(&w->rig);
    w->channel = ibv_create_comp_channel(w->rig.ctx);
    CHECK(w->channel != NULL);
    w->send_cq = rig_cq(&w->rig, (int)depth, NULL);
    w->recv_cq = rig_cq(&w->rig, entries, w->channel);
    w->mr = rig_memory(&w->rig, 65536);
    struct rig_qp_options options = {.type = IBV_QPT_RC,
                                     .send_cq = w->send_cq,
                                     .recv_cq = w->recv_cq,
                                     .sends = depth,
                                     .receives = depth};
    w->qp = rig_qp(&w->rig, &options);
    mine = rig_address(&w->rig, w->qp, w->mr);
    duo_exchange(duo, &mine, &other, sizeof(mine));
    CHECK(rig_connect(w->qp, &other));
}

/* ---- blocking, both on one core ---- */

static void wait_event(struct waiter *w)
{
    struct ibv_wc wc;
    struct ibv_cq *cq;
    void *context;
    int got;

    while ((got = ibv_poll_cq(w->recv_cq, 1, &wc)) == 0) {
        CHECK(ibv_get_cq_event(w->channel, &cq, &context) == 0);
        ibv_ack_cq_events(cq, 1);
        CHECK(ibv_req_notify_cq(w->recv_cq, 0) == 0);
    }
    CHECK(got == 1 && wc.status == IBV_WC_SUCCESS);
}

static void stay_on_one_core(void)
{
    cpu_set_t all, one;

    CHECK(sched_getaffinity(0, sizeof(all), &all) == 0);
    CPU_ZERO(&one);
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &all)) {
            CPU_SET(cpu, &one);
            break;
        }
    }
    CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
}

void many_blocked(void)
{
    struct waiter w;
    struct duo duo;

    stay_on_one_core();
    duo_start(&duo);
    open_waiter(&duo, &w, 16, 16);
    for (uint64_t i = 0; i < 8; i++)
        rig_post_receive(w.qp, w.mr, 4096 + i * 64, 64);
    CHECK(ibv_req_notify_cq(w.recv_cq, 0) == 0);
    duo_meet(&duo);
    uint64_t begin = rig_now_ns();
    for (int i = 0; i < ROUND_TRIPS; i++) {
        for (int turn = 0; turn < 2; turn++) {
            if (turn != duo.second) {
                wait_event(&w);
                rig_post_receive(w.qp, w.mr, 4096, 64);
            } else {
                rig_post_send(w.qp, w.mr, 0, 64);
                rig_wait_good(w.send_cq, 1);
            }
        }
    }
    if (!duo.second)
        printf("blocking, both on one core: %.0f round trips a second\n",
               ROUND_TRIPS / ((double)(rig_now_ns() - begin) / 1e9));
    duo_end(&duo);
}

/* ---- idle ---- */

/* Connected, after traffic, with receives posted and a CQ armed: then nothing happens. */
void many_idle(void)
{
    struct waiter w;
    struct duo duo;

    duo_start(&duo);
    open_waiter(&duo, &w, 16, 16);
    for (uint64_t i = 0; i < 8; i++)
        rig_post_receive(w.qp, w.mr, 4096 + i * 64, 64);
    duo_meet(&duo);
    rig_post_send(w.qp, w.mr, 0, 64);
    rig_wait_good(w.send_cq, 1);
    rig_wait_good(w.recv_cq, 1);
    CHECK(ibv_req_notify_cq(w.recv_cq, 0) == 0);
    duo_meet(&duo);
    struct pollfd event = {.fd = w.channel->fd, .events = POLLIN};
    uint64_t before = rig_cpu_ns();
    CHECK(poll(&event, 1, IDLE_MS) == 0, "an event nobody caused");
    uint64_t burnt = rig_cpu_ns() - before;
    printf("idle: %.3f ms of processor time in %d ms\n", (double)burnt / 1e6, IDLE_MS);
    CHECK(burnt < IDLE_MS * 1000000ull / 50, "%llu ns", (unsigned long long)burnt);
    duo_end(&duo);
}

/* ---- ends that do not poll ---- */

/* The CQ is large enough: the sender completes it all though the receiver never polls. */
void many_unpolled(void)
{
    struct waiter w;
    struct duo duo;

    duo_start(&duo);
    open_waiter(&duo, &w, UNPOLLED, UNPOLLED);
    for (int i = 0; i < UNPOLLED; i++)
        rig_post_receive(w.qp, w.mr, 4096, 64);
    duo_meet(&duo);
    for (uint32_t i = 0; i < UNPOLLED; i++)
        rig_post_send(w.qp, w.mr, 0, i % 64);
    rig_wait_good(w.send_cq, UNPOLLED);
    duo_meet(&duo);
    for (uint32_t i = 0; i < UNPOLLED; i++) {
        struct ibv_wc wc = rig_wait(w.recv_cq);

        CHECK(wc.status == IBV_WC_SUCCESS && wc.byte_len == i % 64, "message %u has %u bytes", i,
              wc.byte_len);
    }
    duo_end(&duo);
}

/* Fill the send queue to the last place without polling; a full one refuses, and goes on later. */
static void fill_sends(struct waiter *w, const struct rig_address *to, unsigned depth)
{
    for (int round = 0; round < 200; round++) {
        struct ibv_sge sge = {(uintptr_t)w->mr->addr, 8, w->mr->lkey};
        struct ibv_send_wr *bad, wr = {.sg_list = &sge,
                                       .num_sge = 1,
                                       .opcode = IBV_WR_RDMA_WRITE,
                                       .send_flags = IBV_SEND_SIGNALED};

        wr.wr.rdma.remote_addr = to->addr;
        wr.wr.rdma.rkey = to->rkey;
        for (unsigned i = 0; i < depth; i++)
            CHECK(ibv_post_send(w->qp, &wr, &bad) == 0);
        CHECK(ibv_post_send(w->qp, &wr, &bad) == ENOMEM && bad == &wr);
        rig_wait_good(w->send_cq, depth);
    }
}

static bool has_event(struct rig *rig, enum ibv_event_type type)
{
    struct pollfd ready = {.fd = rig->ctx->async_fd, .events = POLLIN};
    struct ibv_async_event event;
    bool is_it = false;

    while (!is_it && poll(&ready, 1, 5000) > 0) {
        CHECK(ibv_get_async_event(rig->ctx, &event) == 0);
        is_it = event.event_type == type;
        ibv_ack_async_event(&event);
    }
    return is_it;
}

/* More messages than the receiver's CQ has room for: an event there, and no end hangs. */
static void overrun(const struct duo *duo)
{
    struct waiter w;

    open_waiter(duo, &w, OVERRUN, SMALL_CQ);
    CHECK(w.recv_cq->cqe < OVERRUN / 2);
    for (int i = 0; i < OVERRUN && duo->second; i++)
        rig_post_receive(w.qp, w.mr, 4096, 64);
    duo_meet(duo);
    if (duo->second) {
        CHECK(has_event(&w.rig, IBV_EVENT_CQ_ERR));
    } else {
        for (int i = 0; i < OVERRUN; i++)
            rig_post_send(w.qp, w.mr, 0, 8);
        for (int i = 0; i < OVERRUN; i++)
            rig_wait(w.send_cq); /* good at first, flushed later */
    }
    duo_meet(duo);
    CHECK(ibv_destroy_qp(w.qp) == 0);
    CHECK(ibv_destroy_cq(w.recv_cq) == 0);
    CHECK(ibv_destroy_cq(w.send_cq) == 0);
    CHECK(ibv_destroy_comp_channel(w.channel) == 0);
    rig_memory_free(w.mr);
    rig_close(&w.rig);
}

void many_overrun(void)
{
    struct rig_address mine, other;
    struct waiter w;
    struct duo duo;

    rig_timeout = 12; /* the sender finds out by its retries: some ten milliseconds */
    duo_start(&duo);
    open_waiter(&duo, &w, SMALL_CQ, SMALL_CQ);
    mine = rig_address(&w.rig, w.qp, w.mr);
    duo_exchange(&duo, &mine, &other, sizeof(mine));
    fill_sends(&w, &other, SMALL_CQ);
    duo_meet(&duo);
    for (int i = 0; i < 20; i++)
        overrun(&duo);
    printf("200 full send queues, 20 overrun completion queues\n");
    duo_end(&duo);
}
