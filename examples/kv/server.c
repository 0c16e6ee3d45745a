/* SPDX-License-Identifier: MIT */
/* The server: it stores what clients put. Gets it never sees. */
#include "kv.h"

static void post_receive(struct rc *rc, struct ibv_mr *mr)
{
    struct kv_memory *memory = mr->addr;
    struct ibv_sge place = {
        .addr = (uintptr_t)&memory->put, .length = sizeof(memory->put), .lkey = mr->lkey};
    struct ibv_recv_wr wr = {.sg_list = &place, .num_sge = 1}, *bad;

    errno = ibv_post_recv(rc->qp, &wr, &bad);
    rc_need(errno == 0, "ibv_post_recv");
}

static void post_answer(struct rc *rc, struct ibv_mr *mr, bool stored)
{
    struct kv_memory *memory = mr->addr;
    struct ibv_sge piece = {
        .addr = (uintptr_t)&memory->answer, .length = sizeof(memory->answer), .lkey = mr->lkey};
    struct ibv_send_wr wr = {
        .sg_list = &piece, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad;

    memory->answer.stored = stored;
    errno = ibv_post_send(rc->qp, &wr, &bad);
    rc_need(errno == 0, "ibv_post_send");
}

/* The clock ticks whenever there is nothing else to do, so that gets meet changes. */
static void tick(struct kv_bucket *table)
{
    static unsigned long ticks;
    char value[KV_VALUE];

    snprintf(value, sizeof(value), "%lu %0*lu", ticks, KV_VALUE - 24, ticks);
    ticks++;
    rc_need(kv_store(table, KV_CLOCK_KEY, value), "storing the clock");
}

void kv_serve(struct rc *rc, int peer, struct ibv_mr *mr)
{
    struct kv_memory *memory = mr->addr;
    unsigned puts = 0, idle = 0;

    tick(memory->table);
    post_receive(rc, mr);
    rc_meet(peer);
    for (;;) {
        struct ibv_wc wc;
        int n = ibv_poll_cq(rc->cq, 1, &wc);

        rc_need(n >= 0 && (n == 0 || wc.status == IBV_WC_SUCCESS), "serving");
        if (n == 0) {
            tick(memory->table);
            rc_look(peer, ++idle);
        }
        if (n == 0 || wc.opcode != IBV_WC_RECV)
            continue;
        if (memory->put.key[0] == '\0')
            break;
        bool stored = kv_store(memory->table, memory->put.key, memory->put.value);
        post_receive(rc, mr);
        post_answer(rc, mr, stored);
        puts += stored;
    }
    printf("server: stored %u puts, saw no get\n", puts);
}
