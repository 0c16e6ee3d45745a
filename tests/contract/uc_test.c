/* SPDX-License-Identifier: MIT */
/*
 * Unreliable connections, when something is wrong: what the target refuses is dropped in silence
 * (IBTA 9.8.2), the requester succeeds, both queue pairs live on.
 */
#include "ends.h"
#include "keys.h"

static const struct side_opt uc = {.type = IBV_QPT_UC};

/* The bad request succeeds for its poster and does nothing; good ones before and behind arrive. */
static void dropped(struct pair *p, struct post bad)
{
    bad.id = 2;
    e_recv_many(p->b, 0, 50, 2, p->rx, 64);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .off = 3, .len = 64});
    e_send(p->a, &bad);
    e_send(p->a, &(struct post){.id = 3, .op = IBV_WR_SEND, .off = 100, .len = 64});
    e_done(p->a, 1, IBV_WC_SEND);
    e_expect(p->a, SEND_CQ, 2, IBV_WC_SUCCESS);
    e_done(p->a, 3, IBV_WC_SEND);
    e_got(p->b, 50, IBV_WC_RECV, 64);
    e_got(p->b, 51, IBV_WC_RECV, 64);
    e_same(p->b, p->rx, 64, p->a, 3);
    e_same(p->b, p->rx + 64, 64, p->a, 100);
    e_untouched_but(p->b, p->rx, 128);
    T_EQ(e_state(p->a, 0), IBV_QPS_RTS);
    T_EQ(e_state(p->b, 0), IBV_QPS_RTS);
    pair_close(p);
}

T_CONTRACT(uc_drop, write_with_a_wrong_key)
{
    /* A key that names nothing. */
    dropped(pair_open(topology, &uc),
            (struct post){.op = IBV_WR_RDMA_WRITE, .len = 64, .rkey = 0x00dead00});
}

T_CONTRACT(uc_drop, write_out_of_range)
{
    /* One byte before the region, and one behind. */
    dropped(pair_open(topology, &uc),
            (struct post){.op = IBV_WR_RDMA_WRITE, .len = 64, .roff = -1});
    dropped(pair_open(topology, &uc),
            (struct post){.op = IBV_WR_RDMA_WRITE, .len = 64, .roff = 65536 - 63});
}

T_CONTRACT(uc_drop, write_into_another_domain)
{
    /* A region of another protection domain. */
    struct pair *p = pair_open(topology, &uc);
    struct reg reg = {.slot = 0, .len = 4096, .access = ACCESS_ALL, .other_pd = true};

    e_reg(p->b, &reg);
    dropped(p, (struct post){.op = IBV_WR_RDMA_WRITE, .len = 64, .rkey = reg.rkey});
}

T_CONTRACT(uc_drop, region_without_the_right)
{
    /* A region that others may not write. */
    struct side_opt b = uc;

    b.mr_access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ;
    dropped(pair_open2(topology, &uc, &b), (struct post){.op = IBV_WR_RDMA_WRITE, .len = 64});
}

T_CONTRACT(uc_drop, queue_pair_without_the_right)
{
    /* A queue pair that takes no writes. */
    struct side_opt b = uc;

    b.qp_access = ZERO;
    dropped(pair_open2(topology, &uc, &b), (struct post){.op = IBV_WR_RDMA_WRITE, .len = 64});
}

T_CONTRACT(uc_drop, large_write_with_a_wrong_key)
{
    /* All packets of a long message are dropped, not only its first. */
    dropped(pair_open(topology, &uc),
            (struct post){.op = IBV_WR_RDMA_WRITE, .len = 20000, .rkey = 0x00dead00});
}

T_CONTRACT(uc_drop, write_with_immediate_and_no_receive)
{
    /*
     * A write with immediate that finds no receive is dropped. Its data may or may not have been
     * placed by then (the receive is only looked for at its last packet): no completion is what
     * counts.
     */
    struct pair *p = pair_open(topology, &uc);

    e_send(p->a, &(struct post){.id = 1,
                                .op = IBV_WR_RDMA_WRITE_WITH_IMM,
                                .len = 64,
                                .roff = (int64_t)p->rx,
                                .imm = 5});
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    e_quiet(p->b, RECV_CQ); /* until it has arrived: "sent" does not say so */
    e_recv(p->b, &(struct post){.id = 10, .off = p->rx + 4096, .len = 64});
    e_quiet(p->b, RECV_CQ);
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 32});
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 10, IBV_WC_RECV, 32);
    pair_close(p);
}

T_CONTRACT(uc_drop, peer_is_gone)
{
    /* Nobody is there any more: the requester does not learn of it. */
    struct pair *p = pair_open(topology, &uc);

    T_EQ(e_to_state(p->b, 0, IBV_QPS_RESET), 0);
    for (uint64_t i = 0; i < 10; i++) {
        e_send(p->a, &(struct post){.id = i, .op = IBV_WR_SEND, .len = 64});
        e_done(p->a, i, IBV_WC_SEND);
    }
    T_EQ(e_state(p->a, 0), IBV_QPS_RTS);
    pair_close(p);
}

T_CONTRACT(uc_receive, too_short)
{
    /*
     * A receive that is too short: dropped, or the receive ends with LOC_LEN_ERR (IBTA 9.8.3.2.2
     * leaves what the responder's queue does to its error class). The requester succeeds, and not
     * one byte is written behind the buffer.
     */
    struct pair *p = pair_open(topology, &uc);
    struct ibv_wc wc[1];

    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 63});
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_done(p->a, 1, IBV_WC_SEND);
    e_has_event(p->b, IBV_EVENT_QP_FATAL, 0, QUIET_MS);
    if (e_poll(p->b, RECV_CQ, 1, wc) == 1) {
        T_EQ(wc[0].wr_id, 10);
        T_EQ(wc[0].status, IBV_WC_LOC_LEN_ERR);
    }
    T_EQ(e_state(p->a, 0), IBV_QPS_RTS);
    e_untouched(p->b, p->rx + 63, 1024);
    e_untouched(p->b, 0, p->rx);
    pair_close_loose(p);
}

T_CONTRACT(uc_receive, bad_key)
{
    /* A receive with a bad local key is an error of its owner: LOC_PROT_ERR there, success here. */
    struct pair *p = pair_open(topology, &uc);

    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 64, .lkey = 0x00dead00});
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_done(p->a, 1, IBV_WC_SEND);
    e_expect(p->b, RECV_CQ, 10, IBV_WC_LOC_PROT_ERR);
    e_wait_state(p->b, 0, IBV_QPS_ERR);
    T_EQ(e_state(p->a, 0), IBV_QPS_RTS);
    e_untouched_but(p->b, 0, 0);
    pair_close(p);
}
