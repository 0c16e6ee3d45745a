/* SPDX-License-Identifier: MIT */
/*
 * Peers that go away: killed at any moment, or leaving without a word. The survivor gets a
 * completion error within a second, its other connections go on, and the device can be used anew.
 */
#include "ends.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILL_MS = 1000 };

/* Time-outs far below the second that is allowed: 4.096 us * 2^12 is 17 ms. */
static const struct side_opt brisk = {.timeout = 12, .retry_cnt = 3};

/* Waits for an error on the send CQ; what succeeded before it is read over. */
static void error_within_a_second(struct end *e)
{
    int64_t deadline = t_deadline(KILL_MS);
    struct ibv_wc wc[1];

    for (;;) {
        int got = e_poll(e, SEND_CQ, 1, wc);

        if (got == 1 && wc[0].status != IBV_WC_SUCCESS) {
            T_IN(wc[0].status, IBV_WC_RETRY_EXC_ERR, IBV_WC_WR_FLUSH_ERR);
            break;
        }
        T_ASSERT(!t_expired(deadline), "no completion error within %d ms", KILL_MS);
        t_relax();
    }
    e_wait_state(e, 0, IBV_QPS_ERR);
}

T_TEST(crash, killed_while_idle)
{
    /* The peer dies between messages: the next request, of each kind, ends in an error. */
    static const enum ibv_wr_opcode ops[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ,
                                             IBV_WR_ATOMIC_FETCH_AND_ADD};

    for (int i = 0; i < 4; i++) {
        struct pair *p = pair_open(TWO_PROCESSES, &brisk);

        pair_works(p, 0);
        pair_kill_b(p);
        e_send(p->a, &(struct post){.id = 1, .op = ops[i], .off = p->rx, .len = 8});
        error_within_a_second(p->a);
        pair_close_loose(p);
    }
}

T_TEST(crash, killed_before_the_first_message)
{
    /* Who only waits for messages hears it too, though none ever went either way. */
    for (int i = 0; i < 10; i++) {
        struct pair *p = pair_open(TWO_PROCESSES, &brisk);

        e_recv_many(p->a, 0, 0, 3, p->rx, 64);
        pair_kill_b(p);
        e_event(p->a, IBV_EVENT_QP_FATAL, 0);
        e_flushed(p->a, RECV_CQ, 0, 3);
        T_EQ(e_state(p->a, 0), IBV_QPS_ERR);
        pair_close_loose(p);
    }
}

T_TEST(crash, killed_with_a_request_waiting)
{
    /* The request waits for a receive that is never posted; the peer's death ends the wait. */
    struct pair *p = pair_open(TWO_PROCESSES, &brisk);

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8});
    e_quiet(p->a, SEND_CQ);
    pair_kill_b(p);
    error_within_a_second(p->a);
    pair_close_loose(p);
}

/* The peer writes to us as fast as it can, for ever. */
static void write_for_ever(struct side *s, void *arg)
{
    struct side_info *to = arg;
    struct ibv_sge sge = {s->info.addr, 4096, s->info.lkey};
    struct ibv_send_wr *bad, wr = {.sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = IBV_WR_RDMA_WRITE,
                                   .send_flags = IBV_SEND_SIGNALED,
                                   .wr.rdma = {to->addr, to->rkey}};
    struct ibv_wc wc;

    for (;;) {
        ibv_post_send(s->qp[0], &wr, &bad);
        ibv_poll_cq(s->send_cq, 1, &wc);
    }
}

/* Kills the busy peer after a random number of looks at what it writes. */
static void kill_busy(void)
{
    struct pair *p = pair_open(TWO_PROCESSES, &brisk);
    struct side_info to = p->a->info;
    int64_t moment;

    e_begin(p->b, write_for_ever, &to, sizeof(to));
    moment = t_now_ns() + (int64_t)t_rand_below(3000000);
    T_UNTIL(t_now_ns() >= moment, WAIT_MS);
    pair_kill_b(p);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_RDMA_WRITE, .len = 64});
    error_within_a_second(p->a);
    pair_close_loose(p);
}

T_TEST(crash, killed_in_the_middle_of_its_writes)
{
    /* The peer dies inside a post, again and again at random moments: the survivor is not caught.
     */
    for (int i = 0; i < 10; i++) {
        kill_busy();
    }
}

T_TEST(crash, killed_in_the_middle_of_our_writes)
{
    /* The target dies while we write to it: large writes end in an error, memory stays ours. */
    for (int i = 0; i < 5; i++) {
        struct side_opt opt = brisk;
        struct pair *p;
        uint64_t n;

        opt.size = 8 << 20;
        p = pair_open(TWO_PROCESSES, &opt);
        for (n = 0; n < 20; n++) {
            e_send(p->a, &(struct post){.id = n, .op = IBV_WR_RDMA_WRITE, .len = 1 << 20});
            if (n == t_rand_below(20)) {
                break;
            }
        }
        pair_kill_b(p);
        e_send(p->a, &(struct post){.id = 99, .op = IBV_WR_RDMA_WRITE, .len = 1 << 20});
        error_within_a_second(p->a);
        e_untouched_but(p->a, 0, 0);
        pair_close_loose(p);
    }
}

T_TEST(crash, other_connections_go_on)
{
    /* A third side, connected to the survivor, notices nothing. */
    struct end a, victim, other;
    struct side_opt opt = side_options(&brisk), two = opt;
    struct pair rest = {.a = &other, .b = &a};

    two.qps = 2;
    end_start(&victim, T_PROCESS);
    end_start(&other, T_PROCESS);
    end_start(&a, T_INLINE);
    end_open(&a, &two, NULL);
    end_open(&victim, &opt, NULL);
    end_open(&other, &opt, NULL);
    end_connect(&a, 0, &victim, 0);
    end_connect(&victim, 0, &a, 0);
    end_connect(&a, 1, &other, 0);
    end_connect(&other, 0, &a, 1);
    t_peer_kill(victim.peer);
    victim.dead = true;
    for (uint64_t i = 0; i < 20; i++) {
        e_recv(&a, &(struct post){.q = 1, .id = i, .off = 32768, .len = 64});
        e_send(&other, &(struct post){.id = i, .op = IBV_WR_SEND, .len = 64});
        e_done(&other, i, IBV_WC_SEND);
        e_got(&a, i, IBV_WC_RECV, 64);
    }
    e_same(rest.b, 32768, 64, rest.a, 0);
    a.loose = true;
    end_close(&other);
    end_close(&a);
    t_end();
}

T_TEST(crash, device_is_usable_after)
{
    /* After a peer was killed new processes connect and talk, many times over. */
    for (int i = 0; i < 15; i++) {
        struct pair *p = pair_open(TWO_PROCESSES, &brisk);

        pair_works(p, 0);
        pair_kill_b(p);
        pair_close_loose(p);
    }
    struct pair *p = pair_open(TWO_PROCESSES, &brisk);

    pair_works(p, 0);
    pair_close(p);
}

static void vanish(struct side *s, void *arg)
{
    (void)s;
    (void)arg;
    _exit(0);
}

T_TEST(crash, left_without_closing)
{
    /* A peer that ends by _exit, closing nothing, is as dead as a killed one. */
    struct pair *p = pair_open(TWO_PROCESSES, &brisk);
    int nothing = 0;

    pair_works(p, 0);
    e_begin(p->b, vanish, &nothing, sizeof(nothing));
    /* Its end shows on the socket; the harness reaps it as if killed. */
    pair_kill_b(p);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_RDMA_WRITE, .len = 8});
    error_within_a_second(p->a);
    pair_close_loose(p);
}

T_TEST(crash, nothing_succeeds_after_its_end)
{
    /* Memory of the dead may still be within reach: what is written there now fails. */
    for (int i = 0; i < 10; i++) {
        struct pair *p = pair_open(TWO_PROCESSES, &brisk);

        for (uint64_t n = 0; n < 50; n++) {
            e_send(p->a, &(struct post){.id = n, .op = IBV_WR_RDMA_WRITE, .len = 64});
            e_done(p->a, n, IBV_WC_RDMA_WRITE);
        }
        pair_kill_b(p);
        e_send(p->a, &(struct post){.id = 99, .op = IBV_WR_RDMA_WRITE, .len = 64});
        T_IN(e_wait(p->a, SEND_CQ).status, IBV_WC_RETRY_EXC_ERR, IBV_WC_WR_FLUSH_ERR);
        pair_close_loose(p);
    }
}

T_TEST(crash, sleeping_survivor_is_woken)
{
    /* A survivor that sleeps in its completion channel is woken by the error. */
    struct side_opt opt = brisk;
    struct pair *p;
    struct side *s;
    struct ibv_cq *cq;
    void *context;

    opt.events = true;
    p = pair_open(TWO_PROCESSES, &opt);
    s = p->a->info.share;
    T_EQ(ibv_req_notify_cq(s->send_cq, 0), 0);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8});
    pair_kill_b(p);
    T_ASSERT(t_readable(s->channel->fd, KILL_MS), "not woken within %d ms", KILL_MS);
    T_EQ(ibv_get_cq_event(s->channel, &cq, &context), 0);
    T_ASSERT(cq == s->send_cq);
    ibv_ack_cq_events(cq, 1);
    T_IN(e_wait(p->a, SEND_CQ).status, IBV_WC_RETRY_EXC_ERR, IBV_WC_WR_FLUSH_ERR);
    pair_close_loose(p);
}

/* --- fork
 * --------------------------------------------------------------------------------------------- */

T_TEST(fork_rule, child_may_open_anew)
{
    /* A child of a process that has the device open may open it itself, and both work. */
    struct side *s = side_open(NULL, NULL);
    int status;
    pid_t child;

    side_connect(s, 0, &s->info, 0);
    child = fork();
    if (child == 0) {
        struct ibv_context *ctx = device_open();
        struct ibv_port_attr port;
        struct ibv_pd *pd = ibv_alloc_pd(ctx);

        _exit(ibv_query_port(ctx, 1, &port) == 0 && pd && ibv_dealloc_pd(pd) == 0 &&
                      ibv_close_device(ctx) == 0
                  ? 0
                  : 1);
    }
    T_EQ(waitpid(child, &status, 0), child);
    T_EQ(status, 0);
    T_EQ(qp_state(s->qp[0]), IBV_QPS_RTS);
    side_close(s, true);
}

T_TEST(fork_rule, child_that_exits_disturbs_nothing)
{
    /* A child's end, by _exit, does not touch the parent's connections. */
    struct pair *p = pair_open(TWO_PROCESSES, NULL);

    for (int i = 0; i < 5; i++) {
        int status;
        pid_t child = fork();

        if (child == 0) {
            _exit(0);
        }
        T_EQ(waitpid(child, &status, 0), child);
        pair_works(p, 0);
    }
    pair_close(p);
}

T_TEST(fork_rule, exec_starts_afresh)
{
    /* A program started from here runs on its own; the parent's connections go on. */
    struct pair *p = pair_open(TWO_PROCESSES, NULL);
    int status;
    pid_t child = fork();

    if (child == 0) {
        execl("/bin/true", "true", (char *)NULL);
        _exit(127);
    }
    T_EQ(waitpid(child, &status, 0), child);
    T_EQ(status, 0);
    pair_works(p, 0);
    pair_close(p);
}
