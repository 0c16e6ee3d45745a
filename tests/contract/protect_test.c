/* SPDX-License-Identifier: MIT */
/*
 * Protection at the target: every wrong access gives exactly the status and the states that the
 * specification says, at both ends, and moves not one byte.
 *
 * Keys, ranges and rights of a region: NAK "remote access error" (IBTA 9.7.5.2.4), at the requester
 * IBV_WC_REM_ACCESS_ERR. What the queue pair itself does not allow, or a misaligned atomic: NAK
 * "invalid request" (9.7.5.2.3), IBV_WC_REM_INV_REQ_ERR. Both queue pairs end in the error state
 * (9.9.2.4, 9.9.3). No receive request is at fault, so the target learns of it by an affiliated
 * asynchronous event (11.6.3.2).
 */
#include "ends.h"
#include "keys.h"

/* The target's event. The specification names two; which of them fits is read differently. */
static void expect_target_event(struct pair *p)
{
    bool access = e_has_event(p->b, IBV_EVENT_QP_ACCESS_ERR, 0, QUIET_MS);
    bool request = access ? false : e_has_event(p->b, IBV_EVENT_QP_REQ_ERR, 0, EVENT_MS);

    T_CHECK(access || request, "the target got neither QP_ACCESS_ERR nor QP_REQ_ERR");
}

/*
 * Posts `bad` and a harmless write behind it. The bad one gets `status`, the other is flushed, both
 * queue pairs are in error, the target's receives are flushed, and no memory has changed.
 */
static void refused_by_target(struct pair *p, struct post bad, enum ibv_wc_status status)
{
    e_recv_many(p->b, 0, 50, 2, p->rx, 64);
    bad.id = 1;
    e_send(p->a, &bad);
    e_send(p->a,
           &(struct post){.id = 2, .op = IBV_WR_RDMA_WRITE, .len = 8, .roff = (int64_t)p->rx});
    e_expect(p->a, SEND_CQ, 1, status);
    e_expect(p->a, SEND_CQ, 2, IBV_WC_WR_FLUSH_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    e_wait_state(p->b, 0, IBV_QPS_ERR);
    e_flushed(p->b, RECV_CQ, 50, 2);
    e_untouched_but(p->a, 0, 0);
    e_untouched_but(p->b, 0, 0);
    expect_target_event(p);
    pair_close(p);
}

/* The three kinds of access, with a place at the target. */
static struct post access_at(enum ibv_wr_opcode op, struct pair *p, int64_t roff, uint32_t len)
{
    return (struct post){.op = op,
                         .off = op == IBV_WR_RDMA_WRITE ? 0 : p->rx,
                         .len = len,
                         .roff = roff,
                         .compare_add = 1,
                         .swap = 2};
}

static const enum ibv_wr_opcode accesses[] = {
    IBV_WR_RDMA_WRITE,
    IBV_WR_RDMA_READ,
    IBV_WR_ATOMIC_FETCH_AND_ADD,
    IBV_WR_ATOMIC_CMP_AND_SWP,
};

enum { ACCESSES = 4 };

static void all_refused(enum topology topology, const struct side_opt *b, int64_t roff,
                        uint32_t rkey, enum ibv_wc_status status)
{
    for (int i = 0; i < ACCESSES && t_failures() == 0; i++) {
        struct pair *p = pair_open2(topology, NULL, b);
        struct post post = access_at(accesses[i], p, roff, 8);

        post.rkey = rkey;
        refused_by_target(p, post, status);
    }
}

T_CONTRACT(protect, wrong_key)
{
    /* A key that names nothing. */
    all_refused(topology, NULL, 0, 0x00dead00, IBV_WC_REM_ACCESS_ERR);
}

T_CONTRACT(protect, write_with_immediate_wrong_key)
{
    /*
     * A write with immediate and a wrong key. Whether the receive request was taken by then is left
     * open: it is flushed, or reports the access error itself (IBTA 11.6.2, "local access error").
     */
    struct pair *p = pair_open(topology, NULL);
    struct ibv_wc wc;

    e_recv_many(p->b, 0, 50, 2, p->rx, 64);
    e_send(p->a, &(struct post){
                     .id = 1, .op = IBV_WR_RDMA_WRITE_WITH_IMM, .len = 64, .rkey = 0x00dead00});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_REM_ACCESS_ERR);
    e_wait_state(p->b, 0, IBV_QPS_ERR);
    wc = e_wait(p->b, RECV_CQ);
    T_EQ(wc.wr_id, 50);
    T_IN(wc.status, IBV_WC_WR_FLUSH_ERR, IBV_WC_LOC_ACCESS_ERR, IBV_WC_REM_ACCESS_ERR);
    e_expect(p->b, RECV_CQ, 51, IBV_WC_WR_FLUSH_ERR);
    e_untouched_but(p->b, 0, 0);
    pair_close_loose(p);
}

static void key_of_neighbour(enum topology topology, uint32_t change)
{
    struct pair *p = pair_open(topology, NULL);
    struct post post = access_at(IBV_WR_RDMA_WRITE, p, 0, 64);

    post.rkey = p->b->info.rkey ^ change;
    refused_by_target(p, post, IBV_WC_REM_ACCESS_ERR);
}

T_CONTRACT(protect, key_wrong_in_one_bit)
{
    /* The low byte of a key is checked, and so are its high bits. */
    key_of_neighbour(topology, 1);
    key_of_neighbour(topology, 0x80);
    key_of_neighbour(topology, 0x80000000);
}

static void stale_key(enum topology topology, enum ibv_wr_opcode op)
{
    struct pair *p = pair_open(topology, NULL);
    struct reg reg = {.slot = 0, .len = 4096, .access = ACCESS_ALL}, again = reg;
    struct post post = access_at(op, p, 0, 8);

    e_reg(p->b, &reg);
    T_EQ(e_dereg(p->b, 0), 0);
    /* A new region in the same place must not take the old one's key over. */
    e_reg(p->b, &again);
    T_ASSERT(again.rkey != reg.rkey, "a key is reused at once");
    post.rkey = reg.rkey;
    refused_by_target(p, post, IBV_WC_REM_ACCESS_ERR);
}

T_CONTRACT(protect, stale_key)
{
    /* The key of a region that has been deregistered, though the memory is registered anew. */
    for (int i = 0; i < ACCESSES && t_failures() == 0; i++) {
        stale_key(topology, accesses[i]);
    }
}

static void other_pd(enum topology topology, enum ibv_wr_opcode op)
{
    struct pair *p = pair_open(topology, NULL);
    struct reg reg = {.slot = 0, .len = 4096, .access = ACCESS_ALL, .other_pd = true};
    struct post post = access_at(op, p, 0, 8);

    e_reg(p->b, &reg);
    post.rkey = reg.rkey;
    refused_by_target(p, post, IBV_WC_REM_ACCESS_ERR);
}

T_CONTRACT(protect, region_of_another_domain)
{
    /* A region whose protection domain is not the queue pair's. */
    for (int i = 0; i < ACCESSES && t_failures() == 0; i++) {
        other_pd(topology, accesses[i]);
    }
}

/* --- ranges
 * --------------------------------------------------------------------------------------- */

static void out_of_range(enum topology topology, int64_t roff, uint32_t len)
{
    const enum ibv_wr_opcode ops[] = {IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ};

    for (int i = 0; i < 2; i++) {
        struct pair *p = pair_open(topology, NULL);

        refused_by_target(p, access_at(ops[i], p, roff, len), IBV_WC_REM_ACCESS_ERR);
    }
}

T_CONTRACT(protect, one_byte_before_the_region)
{
    /* The first byte is one too low. */
    out_of_range(topology, -1, 64);
}

T_CONTRACT(protect, one_byte_beyond_the_region)
{
    /* The last byte is one too high. */
    out_of_range(topology, 65536 - 63, 64);
}

T_CONTRACT(protect, longer_than_the_region)
{
    /* It begins inside and ends far outside. */
    out_of_range(topology, 65536 - 4096, 16384);
}

T_CONTRACT(protect, just_behind_the_region)
{
    /* It begins where the region ends. */
    out_of_range(topology, 65536, 1);
}

T_CONTRACT(protect, address_wraps_round)
{
    /* Address plus length beyond 2^64 is not in any region. */
    struct pair *p = pair_open(topology, NULL);
    struct post post = access_at(IBV_WR_RDMA_WRITE, p, 0, 64);

    post.raddr = UINT64_MAX - 31;
    refused_by_target(p, post, IBV_WC_REM_ACCESS_ERR);
}

T_CONTRACT(protect, exactly_the_region)
{
    /* The counter-proof: the first and the last byte, and the whole, may be written. */
    struct pair *p = pair_open(topology, NULL);

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_RDMA_WRITE, .off = 10, .len = 1});
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    e_send(p->a,
           &(struct post){.id = 2, .op = IBV_WR_RDMA_WRITE, .off = 20, .len = 1, .roff = 65535});
    e_done(p->a, 2, IBV_WC_RDMA_WRITE);
    e_same(p->b, 0, 1, p->a, 10);
    e_same(p->b, 65535, 1, p->a, 20);
    e_untouched(p->b, 1, 65534);
    e_send(p->a, &(struct post){.id = 3, .op = IBV_WR_RDMA_WRITE, .len = 65536});
    e_done(p->a, 3, IBV_WC_RDMA_WRITE);
    e_same(p->b, 0, 65536, p->a, 0);
    pair_close(p);
}

/* --- rights of the region
 * ------------------------------------------------------------------------- */

static void region_without(enum topology topology, enum ibv_wr_opcode op, int right)
{
    struct side_opt b = {.mr_access = ACCESS_ALL & ~right};
    struct pair *p = pair_open2(topology, NULL, &b);

    refused_by_target(p, access_at(op, p, 0, 8), IBV_WC_REM_ACCESS_ERR);
}

T_CONTRACT(protect, region_without_remote_write)
{
    /* A region that others may read but not write. */
    region_without(topology, IBV_WR_RDMA_WRITE, IBV_ACCESS_REMOTE_WRITE);
}

T_CONTRACT(protect, region_without_remote_read)
{
    /* A region that others may write but not read. */
    region_without(topology, IBV_WR_RDMA_READ, IBV_ACCESS_REMOTE_READ);
}

T_CONTRACT(protect, region_without_remote_atomic)
{
    /* A region for reads and writes, but not for atomics. */
    region_without(topology, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_ACCESS_REMOTE_ATOMIC);
    region_without(topology, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_ACCESS_REMOTE_ATOMIC);
}

T_CONTRACT(protect, local_region)
{
    /* A region with no remote right at all: its key opens nothing. */
    struct side_opt b = {.mr_access = IBV_ACCESS_LOCAL_WRITE};

    all_refused(topology, &b, 0, 0, IBV_WC_REM_ACCESS_ERR);
}

/* --- rights of the queue pair
 * --------------------------------------------------------------------- */

static void qp_without(enum topology topology, enum ibv_wr_opcode op, int right)
{
    struct side_opt b = {.qp_access = ACCESS_REMOTE & ~right};
    struct pair *p = pair_open2(topology, NULL, &b);

    refused_by_target(p, access_at(op, p, 0, 8), IBV_WC_REM_INV_REQ_ERR);
}

T_CONTRACT(protect, queue_pair_without_remote_write)
{
    /* The region allows it, the queue pair does not: an invalid request (IBTA 9.7.4.1.5). */
    qp_without(topology, IBV_WR_RDMA_WRITE, IBV_ACCESS_REMOTE_WRITE);
}

T_CONTRACT(protect, queue_pair_without_remote_read)
{
    /* The same for reads. */
    qp_without(topology, IBV_WR_RDMA_READ, IBV_ACCESS_REMOTE_READ);
}

T_CONTRACT(protect, queue_pair_without_remote_atomic)
{
    /* The same for atomics. */
    qp_without(topology, IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_ACCESS_REMOTE_ATOMIC);
    qp_without(topology, IBV_WR_ATOMIC_CMP_AND_SWP, IBV_ACCESS_REMOTE_ATOMIC);
}

T_CONTRACT(protect, queue_pair_rights_can_be_taken)
{
    /* Rights taken by ibv_modify_qp in RTS hold for what comes after. */
    struct pair *p = pair_open(topology, NULL);
    struct ibv_qp_attr attr = {.qp_access_flags = IBV_ACCESS_REMOTE_READ};

    e_send(p->a, &(struct post){.id = 9, .op = IBV_WR_RDMA_READ, .off = p->rx, .len = 0});
    e_done(p->a, 9, IBV_WC_RDMA_READ);
    T_EQ(e_modify(p->b, 0, &attr, IBV_QP_ACCESS_FLAGS), 0);
    refused_by_target(p, access_at(IBV_WR_RDMA_WRITE, p, 0, 8), IBV_WC_REM_INV_REQ_ERR);
}

T_CONTRACT(protect, sends_need_no_right)
{
    /* A queue pair and region without any remote right still receive sends. */
    struct side_opt opt = {.qp_access = ZERO, .mr_access = IBV_ACCESS_LOCAL_WRITE};
    struct pair *p = pair_open(topology, &opt);

    pair_works(p, 0);
    pair_close(p);
}

T_CONTRACT(protect, target_has_no_read_resources)
{
    /* A read to a target that keeps none for it (max_dest_rd_atomic 0) is an invalid request. */
    struct side_opt b = {.dest_rd_atomic = ZERO};
    struct pair *p = pair_open2(topology, NULL, &b);

    refused_by_target(p, access_at(IBV_WR_RDMA_READ, p, 0, 8), IBV_WC_REM_INV_REQ_ERR);
}

static void misaligned(enum topology topology, enum ibv_wr_opcode op, int64_t shift)
{
    struct pair *p = pair_open(topology, NULL);
    struct post post = access_at(op, p, shift, 8);

    /* A device that looks at the address may refuse the request at once. */
    if (e_try_send(p->a, &post) == EINVAL) {
        e_untouched_but(p->b, 0, 0);
        pair_close(p);
        return;
    }
    e_expect(p->a, SEND_CQ, 0, IBV_WC_REM_INV_REQ_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    e_wait_state(p->b, 0, IBV_QPS_ERR);
    e_untouched_but(p->a, 0, 0);
    e_untouched_but(p->b, 0, 0);
    expect_target_event(p);
    pair_close(p);
}

T_CONTRACT(protect, misaligned_atomic)
{
    /* Atomics work on eight bytes at a multiple of eight; else an invalid request (IBTA 9.4.5). */
    for (int64_t shift = 1; shift < 8; shift += 3) {
        misaligned(topology, IBV_WR_ATOMIC_FETCH_AND_ADD, shift);
        misaligned(topology, IBV_WR_ATOMIC_CMP_AND_SWP, shift);
    }
}

/* --- receives that do not fit
 * --------------------------------------------------------------------- */

T_CONTRACT(protect, receive_too_short)
{
    /*
     * A message longer than its receive: LOC_LEN_ERR there, REM_INV_REQ_ERR here (IBTA 9.7.5.2.3,
     * 11.6.2); both queue pairs are in error, what follows is flushed.
     */
    struct pair *p = pair_open(topology, NULL);

    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 63});
    e_recv(p->b, &(struct post){.id = 11, .off = p->rx, .len = 64});
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 8});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_REM_INV_REQ_ERR);
    e_expect(p->a, SEND_CQ, 2, IBV_WC_WR_FLUSH_ERR);
    e_expect(p->b, RECV_CQ, 10, IBV_WC_LOC_LEN_ERR);
    e_expect(p->b, RECV_CQ, 11, IBV_WC_WR_FLUSH_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    e_wait_state(p->b, 0, IBV_QPS_ERR);
    e_untouched(p->b, 0, p->rx);
    e_untouched(p->b, p->rx + 63, p->rx - 63);
    pair_close(p);
}

static void bad_receive(enum topology topology, struct post recv)
{
    struct pair *p = pair_open(topology, &(struct side_opt){.mr_access = recv.rkey ? ZERO : 0});

    recv.id = 10;
    e_recv(p->b, &recv);
    e_recv(p->b, &(struct post){.id = 11, .off = p->rx, .len = 64});
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 8});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_REM_OP_ERR);
    e_expect(p->a, SEND_CQ, 2, IBV_WC_WR_FLUSH_ERR);
    e_expect(p->b, RECV_CQ, 10, IBV_WC_LOC_PROT_ERR);
    e_expect(p->b, RECV_CQ, 11, IBV_WC_WR_FLUSH_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    e_wait_state(p->b, 0, IBV_QPS_ERR);
    e_untouched_but(p->b, 0, 0);
    pair_close(p);
}

T_CONTRACT(protect, receive_with_a_bad_key)
{
    /* LOC_PROT_ERR there, REM_OP_ERR here (IBTA 9.7.5.2.5): the requester is not to blame. */
    bad_receive(topology, (struct post){.off = 32768, .len = 64, .lkey = 0x00dead00});
}

T_CONTRACT(protect, receive_beyond_the_region)
{
    /* The receive buffer's last byte is outside its region. */
    bad_receive(topology, (struct post){.off = 65536 - 63, .len = 64});
}

T_CONTRACT(protect, receive_into_a_read_only_region)
{
    /* The receive buffer's region does not allow local writes. */
    bad_receive(topology, (struct post){.off = 32768, .len = 64, .rkey = 1});
}

T_CONTRACT(protect, receive_in_another_domain)
{
    /* The receive buffer's region is of another protection domain. */
    struct pair *p = pair_open(topology, NULL);
    struct reg reg = {.slot = 0, .off = p->rx, .len = 4096, .access = ACCESS_ALL, .other_pd = true};

    e_reg(p->b, &reg);
    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 64, .lkey = reg.lkey});
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_REM_OP_ERR);
    e_expect(p->b, RECV_CQ, 10, IBV_WC_LOC_PROT_ERR);
    e_untouched_but(p->b, 0, 0);
    pair_close(p);
}

T_CONTRACT(protect, receive_key_gone_meanwhile)
{
    /* The region was right when the receive was posted, but is deregistered when the data comes. */
    struct pair *p = pair_open(topology, NULL);
    struct reg reg = {.slot = 0, .off = p->rx, .len = 4096, .access = ACCESS_ALL};

    e_reg(p->b, &reg);
    e_recv(p->b, &(struct post){.id = 10, .off = p->rx, .len = 64, .lkey = reg.lkey});
    T_EQ(e_dereg(p->b, 0), 0);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_REM_OP_ERR);
    e_expect(p->b, RECV_CQ, 10, IBV_WC_LOC_PROT_ERR);
    e_untouched_but(p->b, 0, 0);
    pair_close(p);
}
