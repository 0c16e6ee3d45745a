/* SPDX-License-Identifier: MIT */
/*
 * Errors at home: a bad local buffer is found before anything leaves. The request completes with
 * LOC_PROT_ERR (IBTA 11.6.2), an RC queue pair goes to error, the other side notices nothing.
 */
#include "ends.h"
#include "keys.h"

static const enum ibv_wr_opcode reading_ops[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE};
static const enum ibv_wr_opcode writing_ops[] = {IBV_WR_RDMA_READ, IBV_WR_ATOMIC_FETCH_AND_ADD};

/* The request fails at home, the one behind it is flushed, and the target's side is as before. */
static void refused_at_home(struct pair *p, struct post bad, enum ibv_wc_status status)
{
    bad.id = 1;
    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 4096});
    e_send(p->a, &bad);
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 8});
    e_expect(p->a, SEND_CQ, 1, status);
    e_expect(p->a, SEND_CQ, 2, IBV_WC_WR_FLUSH_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    e_quiet(p->b, RECV_CQ);
    T_EQ(e_state(p->b, 0), IBV_QPS_RTS);
    e_untouched_but(p->b, 0, 0);
    e_untouched_but(p->a, 0, 0);
    pair_close(p);
}

T_CONTRACT(local, bad_key)
{
    /* A local key that names nothing. */
    for (int i = 0; i < 2; i++) {
        refused_at_home(pair_open(topology, NULL),
                        (struct post){.op = reading_ops[i], .len = 8, .lkey = 0x00dead00},
                        IBV_WC_LOC_PROT_ERR);
        refused_at_home(pair_open(topology, NULL),
                        (struct post){.op = writing_ops[i], .len = 8, .lkey = 0x00dead00},
                        IBV_WC_LOC_PROT_ERR);
    }
}

T_CONTRACT(local, before_and_beyond_the_region)
{
    /* One byte outside the local region, at its end and at its start. */
    for (int i = 0; i < 2; i++) {
        refused_at_home(pair_open(topology, NULL),
                        (struct post){.op = reading_ops[i], .off = 65536 - 7, .len = 8},
                        IBV_WC_LOC_PROT_ERR);
        refused_at_home(pair_open(topology, NULL),
                        (struct post){.op = reading_ops[i], .off = UINT64_MAX, .len = 8},
                        IBV_WC_LOC_PROT_ERR);
    }
}

T_CONTRACT(local, second_element_bad)
{
    /* A good first element does not save the request, and does not leave alone. */
    struct pair *p = pair_open(topology, NULL);
    struct post post = {
        .op = IBV_WR_SEND,
        .nsge = 2,
        .sge = {{.addr = 0, .length = 64}, {.addr = 64, .length = 64, .lkey = 0x00dead00}}};

    refused_at_home(p, post, IBV_WC_LOC_PROT_ERR);
}

T_CONTRACT(local, other_domain)
{
    /* A region of another protection domain than the queue pair's. */
    struct pair *p = pair_open(topology, NULL);
    struct reg reg = {.slot = 0, .len = 4096, .access = ACCESS_ALL, .other_pd = true};

    e_reg(p->a, &reg);
    refused_at_home(p, (struct post){.op = IBV_WR_SEND, .len = 8, .lkey = reg.lkey},
                    IBV_WC_LOC_PROT_ERR);
}

T_CONTRACT(local, deregistered)
{
    /* A region that is gone. */
    struct pair *p = pair_open(topology, NULL);
    struct reg reg = {.slot = 0, .len = 4096, .access = ACCESS_ALL};

    e_reg(p->a, &reg);
    T_EQ(e_dereg(p->a, 0), 0);
    refused_at_home(p, (struct post){.op = IBV_WR_SEND, .len = 8, .lkey = reg.lkey},
                    IBV_WC_LOC_PROT_ERR);
}

T_CONTRACT(local, read_into_a_read_only_region)
{
    /* What a read or an atomic brings home needs local write. Nothing is said about the target's
     * side of an atomic: a requester may find out before or after it was carried out. */
    struct side_opt a = {.mr_access = ZERO};
    struct pair *p = pair_open2(topology, &a, NULL);

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_RDMA_READ, .off = p->rx, .len = 64});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_LOC_PROT_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    e_untouched_but(p->a, 0, 0);
    pair_close(p);
    p = pair_open2(topology, &a, NULL);
    e_send(p->a,
           &(struct post){.id = 1, .op = IBV_WR_ATOMIC_FETCH_AND_ADD, .off = p->rx, .len = 8});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_LOC_PROT_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    e_untouched_but(p->a, 0, 0);
    pair_close(p);
}

T_CONTRACT(local, send_from_a_read_only_region)
{
    /* Local read is always allowed: a region registered with no right at all can be sent from. */
    struct side_opt a = {.mr_access = ZERO};
    struct pair *p = pair_open2(topology, &a, NULL);

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 64});
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 1, IBV_WC_RECV, 64);
    e_same(p->b, p->rx, 64, p->a, 0);
    pair_close(p);
}

T_CONTRACT(local, remote_key_is_no_local_key)
{
    /*
     * The key of a memory window, which is a remote key only, opens nothing at home. (A region's
     * two keys may be the same number: IBTA 10.6.3.1 leaves that to the device.)
     */
    struct pair *p =
        pair_open(topology, &(struct side_opt){.mr_access = ACCESS_ALL | IBV_ACCESS_MW_BIND});
    uint32_t key;

    e_mw(p->a, 0, IBV_MW_TYPE_1);
    key = e_bind(
        p->a, (struct bind){.id = 7, .mw = 0, .mr = MAIN_MR, .len = 4096, .access = ACCESS_REMOTE});
    refused_at_home(p, (struct post){.op = IBV_WR_SEND, .len = 8, .lkey = key},
                    IBV_WC_LOC_PROT_ERR);
}

T_CONTRACT(local, unsignalled_error_completes)
{
    /* A request without the signal flag that fails has a completion all the same (IBTA 10.8.5.1).
     */
    struct pair *p = pair_open(topology, NULL);

    e_send(p->a,
           &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8, .lkey = 0x00dead00, .quiet = true});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_LOC_PROT_ERR);
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 8, .quiet = true});
    e_expect(p->a, SEND_CQ, 2, IBV_WC_WR_FLUSH_ERR);
    pair_close(p);
}

T_CONTRACT(local, good_work_before_the_error_counts)
{
    /* What was posted before the bad request is carried out, and completes first. */
    struct pair *p = pair_open(topology, NULL);

    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 64});
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 8, .lkey = 0x00dead00});
    e_done(p->a, 1, IBV_WC_SEND);
    e_expect(p->a, SEND_CQ, 2, IBV_WC_LOC_PROT_ERR);
    e_got(p->b, 10, IBV_WC_RECV, 64);
    e_same(p->b, p->rx, 64, p->a, 0);
    pair_close(p);
}

T_CONTRACT(local, atomic_of_a_wrong_length)
{
    /* An atomic brings home eight bytes: fewer or more are refused at once or end in an error. */
    for (uint32_t len = 4; len <= 16; len += 12) {
        struct pair *p = pair_open(topology, NULL);
        int rc = e_try_send(p->a, &(struct post){.id = 1,
                                                 .op = IBV_WR_ATOMIC_FETCH_AND_ADD,
                                                 .off = p->rx,
                                                 .len = len,
                                                 .compare_add = 1});

        if (rc == 0) {
            T_IN(e_wait(p->a, SEND_CQ).status, IBV_WC_LOC_LEN_ERR, IBV_WC_LOC_QP_OP_ERR,
                 IBV_WC_LOC_PROT_ERR);
        }
        e_untouched_but(p->a, 0, 0);
        e_untouched_but(p->b, 0, 0);
        pair_close(p);
    }
}
