/* SPDX-License-Identifier: MIT */
/* Receiver not ready, and a peer that does not answer: counts, time-outs, and what is left. */
#include "ends.h"

T_CONTRACT(rnr, none_allowed)
{
    /* rnr_retry 0: the first "receiver not ready" ends it (IBTA 9.7.5.2.8): RNR_RETRY_EXC_ERR here.
     */
    struct pair *p = pair_open(topology, &(struct side_opt){.rnr_retry = ZERO});

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 64});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_RNR_RETRY_EXC_ERR);
    e_expect(p->a, SEND_CQ, 2, IBV_WC_WR_FLUSH_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    /* The target is not at fault: it stays as it is. */
    T_EQ(e_state(p->b, 0), IBV_QPS_RTS);
    e_none(p->b, RECV_CQ);
    e_untouched_but(p->b, 0, 0);
    pair_close(p);
}

T_CONTRACT(rnr, counted)
{
    /* rnr_retry 3: it is tried some times, and then ends the same way. */
    struct pair *p = pair_open(topology, &(struct side_opt){.rnr_retry = 3});

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_RDMA_WRITE_WITH_IMM, .len = 64, .imm = 1});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_RNR_RETRY_EXC_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    T_EQ(e_state(p->b, 0), IBV_QPS_RTS);
    pair_close(p);
}

T_CONTRACT(rnr, waits_for_ever)
{
    /* rnr_retry 7 waits until a receive is posted, however many timers have run out meanwhile. */
    struct pair *p = pair_open(topology, NULL);

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .off = 64, .len = 64});
    e_quiet(p->a, SEND_CQ);
    T_EQ(e_state(p->a, 0), IBV_QPS_RTS);
    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 64});
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 10, IBV_WC_RECV, 64);
    e_quiet(p->a, SEND_CQ);
    e_recv(p->b, &(struct post){.id = 11, .off = p->rx + 64, .len = 64});
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 11, IBV_WC_RECV, 64);
    e_same(p->b, p->rx, 128, p->a, 0);
    pair_close(p);
}

T_CONTRACT(rnr, writes_and_reads_need_no_receive)
{
    /* One-sided operations pass although rnr_retry is 0 and nothing is posted at the target. */
    struct pair *p = pair_open(topology, &(struct side_opt){.rnr_retry = ZERO});

    e_send(p->a,
           &(struct post){.id = 1, .op = IBV_WR_RDMA_WRITE, .len = 64, .roff = (int64_t)p->rx});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_RDMA_READ, .off = p->rx, .len = 64});
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    e_done(p->a, 2, IBV_WC_RDMA_READ);
    e_same(p->b, p->rx, 64, p->a, 0);
    pair_close(p);
}

T_CONTRACT(rnr, holds_what_is_behind)
{
    /* A write behind a send that waits for its receive is not carried out before it. */
    struct pair *p = pair_open(topology, NULL);

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_send(p->a, &(struct post){.id = 2,
                                .op = IBV_WR_RDMA_WRITE,
                                .off = 100,
                                .len = 64,
                                .roff = (int64_t)p->rx + 4096});
    e_quiet(p->a, SEND_CQ);
    e_untouched_but(p->b, 0, 0);
    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 64});
    e_done(p->a, 1, IBV_WC_SEND);
    e_done(p->a, 2, IBV_WC_RDMA_WRITE);
    e_got(p->b, 10, IBV_WC_RECV, 64);
    e_same(p->b, p->rx + 4096, 64, p->a, 100);
    pair_close(p);
}

T_CONTRACT(rnr, uc_drops)
{
    /* An unreliable connection drops what finds no receive; the sender is none the wiser. */
    struct pair *p = pair_open(topology, &(struct side_opt){.type = IBV_QPT_UC});

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_done(p->a, 1, IBV_WC_SEND);
    e_quiet(p->b, RECV_CQ); /* it has arrived, and found nothing */
    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 64});
    e_quiet(p->b, RECV_CQ);
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .off = 200, .len = 64});
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 10, IBV_WC_RECV, 64);
    e_same(p->b, p->rx, 64, p->a, 200);
    pair_close(p);
}

/* --- nobody answers
 * ---------------------------------------------------------------------------------- */

/* Short time-outs, so that the retries are soon over: 4.096 us * 2^8 is about 1 ms each. */
static const struct side_opt hasty = {.timeout = 8, .retry_cnt = 2};

static void gives_up(struct pair *p)
{
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_RDMA_WRITE, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 64});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_RETRY_EXC_ERR);
    e_expect(p->a, SEND_CQ, 2, IBV_WC_WR_FLUSH_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    e_untouched_but(p->b, 0, 0);
    pair_close(p);
}

static struct pair *open_unconnected(enum topology topology)
{
    struct side_opt opt = hasty;

    opt.unconnected = true;
    return pair_open(topology, &opt);
}

T_CONTRACT(retry, peer_in_reset)
{
    /* Packets to a queue pair in RESET are dropped; the transport gives up: RETRY_EXC_ERR. */
    struct pair *p = open_unconnected(topology);

    end_connect(p->a, 0, p->b, 0);
    gives_up(p);
}

static void to_init(struct side *s, void *arg)
{
    struct ibv_qp_attr attr;
    int mask = side_init_attr(s, &attr);

    (void)arg;
    T_EQ(ibv_modify_qp(s->qp[0], &attr, mask), 0);
}

T_CONTRACT(retry, peer_in_init)
{
    /* The same in INIT: receives may be posted, but nothing is processed. */
    struct pair *p = open_unconnected(topology);
    int nothing = 0;

    end_connect(p->a, 0, p->b, 0);
    e_run(p->b, to_init, &nothing, sizeof(nothing));
    gives_up(p);
}

T_CONTRACT(retry, peer_in_error)
{
    /* The same in the error state. */
    struct pair *p = pair_open(topology, &hasty);

    T_EQ(e_to_state(p->b, 0, IBV_QPS_ERR), 0);
    gives_up(p);
}

static void destroy_qp(struct side *s, void *arg)
{
    (void)arg;
    T_EQ(ibv_destroy_qp(s->qp[0]), 0);
    s->qp[0] = NULL;
}

T_CONTRACT(retry, peer_destroyed)
{
    /* The same when the other queue pair is gone. */
    struct pair *p = pair_open(topology, &hasty);
    int nothing = 0;

    e_run(p->b, destroy_qp, &nothing, sizeof(nothing));
    gives_up(p);
}

T_CONTRACT(retry, number_that_never_was)
{
    /* The same when the number never named a queue pair. */
    struct pair *p = open_unconnected(topology);

    p->b->info.qpn[0] ^= 0x2a55;
    end_connect(p->a, 0, p->b, 0);
    gives_up(p);
}

T_CONTRACT(retry, number_of_a_datagram_queue_pair)
{
    /* The same when the number names a queue pair of another service type. */
    struct side_opt a = hasty, b = {.type = IBV_QPT_UD, .unconnected = true};
    struct pair *p;

    a.unconnected = true;
    p = pair_open2(topology, &a, &b);
    end_connect(p->b, 0, p->a, 0);
    end_connect(p->a, 0, p->b, 0);
    gives_up(p);
}

T_CONTRACT(retry, wrong_packet_sequence)
{
    /* The target expects other sequence numbers: every packet is ahead, none is taken. */
    struct pair *p = open_unconnected(topology);

    end_connect(p->a, 0, p->b, 0);
    p->a->info.psn[0] = (p->a->info.psn[0] - 1000) & 0xffffff;
    end_connect(p->b, 0, p->a, 0);
    gives_up(p);
}

T_CONTRACT(retry, works_again_after_reset)
{
    /* After giving up, the queue pair can be reset, connected anew, and used. */
    struct pair *p = pair_open(topology, &hasty);

    T_EQ(e_to_state(p->b, 0, IBV_QPS_ERR), 0);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_RDMA_WRITE, .len = 64});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_RETRY_EXC_ERR);
    T_EQ(e_to_state(p->a, 0, IBV_QPS_RESET), 0);
    T_EQ(e_to_state(p->b, 0, IBV_QPS_RESET), 0);
    pair_connect(p);
    pair_works(p, 0);
    pair_close(p);
}

T_CONTRACT(retry, late_peer_is_met)
{
    /* With retries left, a peer that becomes ready in time gets the message. */
    struct pair *p =
        pair_open(topology, &(struct side_opt){.timeout = 17, .retry_cnt = 6, .unconnected = true});

    end_connect(p->a, 0, p->b, 0);
    e_send(p->a,
           &(struct post){.id = 1, .op = IBV_WR_RDMA_WRITE, .len = 64, .roff = (int64_t)p->rx});
    e_quiet(p->a, SEND_CQ);
    end_connect(p->b, 0, p->a, 0);
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    e_same(p->b, p->rx, 64, p->a, 0);
    pair_close(p);
}
