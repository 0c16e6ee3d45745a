/* SPDX-License-Identifier: MIT */
/* The victim: does what its mode says until its timer kills it, at whatever instruction that is. */
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kill.h"

enum { QUEUE = 32, PATTERN = 0x5a };

struct victim {
    struct kill_board *board;
    struct rig rig;
    struct ibv_cq *cq;
    struct ibv_mr *mr;     /* others write and read here */
    struct ibv_mr *source; /* what we send: all PATTERN */
    struct ibv_qp *conn[SURVIVORS][CONNS];
    struct ibv_qp *ud;
    struct ibv_ah *ah;
    unsigned under_way;
    bool broken; /* some request has failed */
};

/* From now to the end, in nanoseconds, without help of the scheduler: the timer itself kills. */
static void die_within(struct kill_board *board, uint64_t most_ns)
{
    struct sigevent kill = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    uint64_t left = 1 + rig_random(most_ns);
    struct itimerspec when = {.it_value = {.tv_sec = 0, .tv_nsec = (long)left}};
    timer_t timer;

    CHECK(timer_create(CLOCK_MONOTONIC, &kill, &timer) == 0);
    atomic_store(&board->kill_ns, rig_now_ns() + left);
    CHECK(timer_settime(timer, 0, &when, NULL) == 0);
}

static void open_all(struct victim *v)
{
    rig_open(&v->rig);
    v->cq = rig_cq(&v->rig, 4096, NULL);
    v->mr = rig_memory(&v->rig, BIG);
    v->source = rig_memory(&v->rig, BIG);
    memset(v->source->addr, PATTERN, BIG);
    struct rig_qp_options options = {
        .type = IBV_QPT_RC, .send_cq = v->cq, .recv_cq = v->cq, .sends = QUEUE, .receives = QUEUE};
    for (int k = 0; k < SURVIVORS; k++) {
        for (int c = 0; c < CONNS; c++)
            v->conn[k][c] = rig_qp(&v->rig, &options);
    }
    options.type = IBV_QPT_UD;
    v->ud = rig_qp(&v->rig, &options);
    CHECK(rig_connect(v->ud, NULL));
    v->ah = rig_ah(&v->rig, &v->rig.gid);
}

/* ---- what it does ---- */

static void drain(struct victim *v)
{
    struct ibv_wc wc[16];
    int got = ibv_poll_cq(v->cq, 16, wc);

    for (int i = 0; i < got; i++) {
        v->under_way -= wc[i].wr_id == 1;
        v->broken |= wc[i].status != IBV_WC_SUCCESS;
    }
}

static void send_to(struct victim *v, struct ibv_qp *qp, const struct rig_address *to,
                    enum ibv_wr_opcode opcode, uint32_t length)
{
    struct ibv_sge sge = {(uintptr_t)v->source->addr, length, v->source->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 1,
                                   .sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = opcode,
                                   .send_flags = IBV_SEND_SIGNALED};

    if (opcode == IBV_WR_RDMA_READ) {
        sge.addr = (uintptr_t)v->mr->addr;
        sge.lkey = v->mr->lkey;
    }
    wr.wr.rdma.remote_addr = to->addr;
    wr.wr.rdma.rkey = to->rkey;
    if (qp->qp_type == IBV_QPT_UD) {
        wr.wr.ud.ah = v->ah;
        wr.wr.ud.remote_qpn = to->qpn;
        wr.wr.ud.remote_qkey = RIG_QKEY;
    }
    v->under_way += ibv_post_send(qp, &wr, &bad) == 0;
}

static void connect_all(struct victim *v)
{
    struct kill_board *board = v->board;
    unsigned round = atomic_load(&board->round);

    for (int k = 0; k < SURVIVORS; k++) {
        for (int c = 0; c < CONNS; c++)
            board->victim[k].conn[c] = rig_address(&v->rig, v->conn[k][c], v->mr);
        board->victim[k].ud = rig_address(&v->rig, v->ud, NULL);
    }
    atomic_store(&board->victim_ready, round);
    for (int k = 0; k < SURVIVORS; k++) {
        while (atomic_load(&board->survivor_ready[k]) != round)
            sched_yield();
        for (int c = 0; c < CONNS; c++)
            CHECK(rig_connect(v->conn[k][c], &board->survivor[k].conn[c]));
    }
    /* A message over each: now a death must be noticed even by who sends nothing. */
    for (int k = 0; k < SURVIVORS; k++) {
        for (int c = 0; c < CONNS; c++)
            send_to(v, v->conn[k][c], &board->survivor[k].conn[c], IBV_WR_SEND, 8);
    }
    while (v->under_way)
        drain(v);
    if (!v->broken)
        atomic_store(&board->victim_connected, round);
}

static void receive(struct victim *v, unsigned k, unsigned c)
{
    struct ibv_sge sge = {(uintptr_t)v->mr->addr + c * CONN_AREA, MESSAGE_MAX, v->mr->lkey};
    struct ibv_recv_wr *bad, wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1};

    ibv_post_recv(v->conn[k][c], &wr, &bad);
}

static uint32_t some_length(void)
{
    static const uint32_t lengths[] = {1, 8, 32, 33, 200, 1024, MESSAGE_MAX};

    return lengths[rig_random(sizeof(lengths) / sizeof(lengths[0]))];
}

static void control(struct victim *v)
{
    struct ibv_mr *mr = rig_memory(&v->rig, 65536);
    struct ibv_cq *cq = rig_cq(&v->rig, 64, NULL);
    struct rig_qp_options options = {
        .type = IBV_QPT_RC, .send_cq = cq, .recv_cq = v->cq, .sends = 4, .receives = 4};
    struct ibv_qp *qp = rig_qp(&v->rig, &options);

    CHECK(ibv_destroy_qp(qp) == 0);
    CHECK(ibv_destroy_cq(cq) == 0);
    rig_memory_free(mr);
}

static void act(struct victim *v, unsigned mode)
{
    unsigned k = (unsigned)rig_random(SURVIVORS), c = (unsigned)rig_random(CONNS);
    const struct kill_end *to = &v->board->survivor[k];

    if (mode == KILL_CONTROL || (mode == KILL_MIXED && rig_random(50) == 0))
        control(v);
    if (mode == KILL_SRQ)
        send_to(v, v->conn[k][CONN_SRQ], &to->conn[CONN_SRQ], IBV_WR_SEND, some_length());
    if (mode == KILL_UD)
        send_to(v, v->ud, &to->ud, IBV_WR_SEND, some_length());
    if (mode != KILL_MIXED)
        return;
    static const enum ibv_wr_opcode opcodes[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ};
    receive(v, k, c);
    send_to(v, v->conn[k][c], &to->conn[c], opcodes[rig_random(3)], some_length());
    if (rig_random(4) == 0)
        send_to(v, v->ud, &to->ud, IBV_WR_SEND, 100);
    if (rig_random(20) == 0)
        send_to(v, v->conn[k][c], &to->conn[c], IBV_WR_RDMA_WRITE, BIG / 2);
}

/* How long it lives once it is connected, at most. */
static uint64_t life_ns(unsigned mode)
{
    switch (mode) {
    case KILL_SRQ:
    case KILL_UD:
        return rig_random(2) ? 300000 : 3000000;
    case KILL_CONTROL:
        return 5000000;
    default:
        return 3000000;
    }
}

void kill_victim(struct kill_board *board)
{
    struct victim v = {.board = board};
    unsigned mode = atomic_load(&board->mode);

    rig_seed(board->seed);
    alarm(20); /* should the timer not come */
    if (mode == KILL_STARTING)
        die_within(board, 12000000);
    open_all(&v);
    connect_all(&v);
    for (unsigned k = 0; k < SURVIVORS && mode != KILL_UD; k++) {
        for (unsigned i = 0; i < QUEUE / 2; i++)
            receive(&v, k, i % CONNS);
    }
    if (mode != KILL_STARTING)
        die_within(board, life_ns(mode));
    for (;;) {
        if (v.under_way < QUEUE / 2)
            act(&v, mode);
        drain(&v);
        if (mode == KILL_IDLE)
            sched_yield();
    }
}
