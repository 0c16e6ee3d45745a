/* SPDX-License-Identifier: MIT */
/* Extended completion queues: start, next and end of a poll, and every field that can be asked for.
 */
#include "ends.h"

#include <arpa/inet.h>
#include <time.h>

static const struct side_opt extended = {
    .cq_ex = true,
    .wc_flags = IBV_WC_STANDARD_FLAGS,
};

/* One completion, with all standard fields read. */
struct seen {
    enum which which;
    int rc;
    uint64_t id;
    enum ibv_wc_status status;
    enum ibv_wc_opcode opcode;
    uint32_t byte_len, imm, qp_num, src_qp;
    unsigned flags;
};

static struct ibv_cq_ex *extended_cq(struct side *s, enum which which)
{
    /* ibv_cq and ibv_cq_ex begin alike (ibv_cq_ex_to_cq). */
    return (struct ibv_cq_ex *)(void *)(which == SEND_CQ ? s->send_cq : s->recv_cq);
}

static int start_waiting(struct ibv_cq_ex *cq)
{
    struct ibv_poll_cq_attr attr = {.comp_mask = 0};
    int64_t deadline = t_deadline(WAIT_MS);
    int rc;

    while ((rc = ibv_start_poll(cq, &attr)) == ENOENT && !t_expired(deadline)) {
        t_relax();
    }
    return rc;
}

static void read_fields(struct ibv_cq_ex *cq, struct seen *seen)
{
    seen->id = cq->wr_id;
    seen->status = cq->status;
    seen->opcode = ibv_wc_read_opcode(cq);
    seen->byte_len = ibv_wc_read_byte_len(cq);
    seen->imm = ibv_wc_read_imm_data(cq);
    seen->qp_num = ibv_wc_read_qp_num(cq);
    seen->src_qp = ibv_wc_read_src_qp(cq);
    seen->flags = ibv_wc_read_wc_flags(cq);
    (void)ibv_wc_read_slid(cq);
    (void)ibv_wc_read_sl(cq);
    (void)ibv_wc_read_dlid_path_bits(cq);
    (void)ibv_wc_read_vendor_err(cq);
}

static void see_one(struct side *s, void *arg)
{
    struct seen *seen = arg;
    struct ibv_cq_ex *cq = extended_cq(s, seen->which);

    seen->rc = start_waiting(cq);
    if (seen->rc == 0) {
        read_fields(cq, seen);
        ibv_end_poll(cq);
    }
}

static struct seen see(struct end *e, enum which which)
{
    struct seen seen = {.which = which};

    e_run(e, see_one, &seen, sizeof(seen));
    T_ASSERT(seen.rc == 0, "ibv_start_poll: %d", seen.rc);
    return seen;
}

T_CONTRACT_SELF(cqex, fields_of_a_message)
{
    /* All standard fields of a send and its receive. */
    struct pair *p = pair_open(topology, &extended);
    struct seen sent, got;

    e_recv(p->b, &(struct post){.id = 11, .off = p->rx, .len = 128});
    e_send(p->a, &(struct post){.id = 22, .op = IBV_WR_SEND_WITH_IMM, .len = 100, .imm = 7});
    sent = see(p->a, SEND_CQ);
    T_EQ(sent.id, 22);
    T_EQ(sent.status, IBV_WC_SUCCESS);
    T_EQ(sent.opcode, IBV_WC_SEND);
    T_EQ(sent.qp_num, p->a->info.qpn[0]);
    got = see(p->b, RECV_CQ);
    T_EQ(got.id, 11);
    T_EQ(got.status, IBV_WC_SUCCESS);
    T_EQ(got.opcode, IBV_WC_RECV);
    T_EQ(got.byte_len, 100);
    T_ASSERT(got.flags & IBV_WC_WITH_IMM);
    T_EQ(ntohl(got.imm), 7);
    T_EQ(got.qp_num, p->b->info.qpn[0]);
    e_same(p->b, p->rx, 100, p->a, 0);
    pair_close(p);
}

T_CONTRACT(cqex, fields_of_a_datagram)
{
    /* The sender's number and the GRH flag of a datagram. */
    struct pair *p = pair_open(
        topology,
        &(struct side_opt){.type = IBV_QPT_UD, .cq_ex = true, .wc_flags = IBV_WC_STANDARD_FLAGS});
    struct seen got;

    e_recv(p->b, &(struct post){.id = 11, .off = p->rx, .len = 128});
    e_send(p->a, &(struct post){.id = 22, .op = IBV_WR_SEND, .len = 50});
    T_EQ(see(p->a, SEND_CQ).status, IBV_WC_SUCCESS);
    got = see(p->b, RECV_CQ);
    T_EQ(got.byte_len, 90);
    T_EQ(got.src_qp, p->a->info.qpn[0]);
    T_ASSERT(got.flags & IBV_WC_GRH);
    pair_close(p);
}

T_CONTRACT(cqex, errors)
{
    /* Errors come with their status, id and queue pair. */
    struct pair *p = pair_open(topology, &extended);
    struct seen seen;

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8, .lkey = 0x00dead00});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 8});
    seen = see(p->a, SEND_CQ);
    T_EQ(seen.id, 1);
    T_EQ(seen.status, IBV_WC_LOC_PROT_ERR);
    T_EQ(seen.qp_num, p->a->info.qpn[0]);
    seen = see(p->a, SEND_CQ);
    T_EQ(seen.id, 2);
    T_EQ(seen.status, IBV_WC_WR_FLUSH_ERR);
    pair_close(p);
}

/* --- the iterator
 * ------------------------------------------------------------------------------------- */

static struct side *self_side(const struct side_opt *opt)
{
    struct side *s = side_open(opt, NULL);

    side_connect(s, 0, &s->info, 0);
    return s;
}

static void make_completions(struct side *s, uint64_t first_id, int count)
{
    for (int i = 0; i < count; i++) {
        struct ibv_send_wr *bad, wr = {.wr_id = first_id + (uint64_t)i,
                                       .opcode = IBV_WR_RDMA_WRITE,
                                       .send_flags = IBV_SEND_SIGNALED};

        T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
    }
}

T_TEST(cqex_poll, empty)
{
    /* An empty queue says ENOENT to start, again and again, and stays usable. */
    struct side *s = self_side(&extended);
    struct ibv_cq_ex *cq = extended_cq(s, SEND_CQ);
    struct ibv_poll_cq_attr attr = {.comp_mask = 0};

    for (int i = 0; i < 5; i++) {
        T_EQ(ibv_start_poll(cq, &attr), ENOENT);
    }
    make_completions(s, 1, 1);
    T_EQ(start_waiting(cq), 0);
    T_EQ(cq->wr_id, 1);
    ibv_end_poll(cq);
    T_EQ(ibv_start_poll(cq, &attr), ENOENT);
    side_close(s, true);
}

T_TEST(cqex_poll, batch)
{
    /* start, next, next ... ENOENT, end: every completion once, in order; then another batch. */
    struct side *s = self_side(&extended);
    struct ibv_cq_ex *cq = extended_cq(s, SEND_CQ);
    uint64_t next = 0;

    for (int round = 0; round < 30; round++) {
        int rc;

        make_completions(s, next, 20);
        uint64_t end = next + 20;
        while (next < end) {
            T_EQ(start_waiting(cq), 0);
            do {
                T_EQ(cq->wr_id, next++);
                T_EQ(cq->status, IBV_WC_SUCCESS);
                T_EQ(ibv_wc_read_opcode(cq), IBV_WC_RDMA_WRITE);
                rc = ibv_next_poll(cq);
            } while (rc == 0);
            T_EQ(rc, ENOENT);
            ibv_end_poll(cq);
        }
    }
    side_close(s, true);
}

T_TEST(cqex_poll, ended_early)
{
    /* Ending a batch before its end leaves the rest for the next one. */
    struct side *s = self_side(&extended);
    struct ibv_cq_ex *cq = extended_cq(s, SEND_CQ);

    make_completions(s, 0, 10);
    for (uint64_t i = 0; i < 10; i += 2) {
        T_EQ(start_waiting(cq), 0);
        T_EQ(cq->wr_id, i);
        T_UNTIL(ibv_next_poll(cq) == 0, WAIT_MS);
        T_EQ(cq->wr_id, i + 1);
        ibv_end_poll(cq);
    }
    side_close(s, true);
}

T_TEST(cqex_poll, next_sees_what_comes_meanwhile)
{
    /* A completion that arrives after ibv_next_poll said ENOENT is there for the next batch. */
    struct side *s = self_side(&extended);
    struct ibv_cq_ex *cq = extended_cq(s, SEND_CQ);

    make_completions(s, 0, 1);
    T_EQ(start_waiting(cq), 0);
    T_EQ(cq->wr_id, 0);
    T_EQ(ibv_next_poll(cq), ENOENT);
    ibv_end_poll(cq);
    make_completions(s, 1, 1);
    T_EQ(start_waiting(cq), 0);
    T_EQ(cq->wr_id, 1);
    ibv_end_poll(cq);
    side_close(s, true);
}

T_TEST(cqex_poll, mixed_with_poll_cq)
{
    /* ibv_poll_cq works on an extended queue, too (between batches). */
    struct side *s = self_side(&extended);
    struct ibv_cq_ex *cq = extended_cq(s, SEND_CQ);

    make_completions(s, 0, 4);
    T_EQ(start_waiting(cq), 0);
    T_EQ(cq->wr_id, 0);
    ibv_end_poll(cq);
    T_EQ(cq_wait(s->send_cq).wr_id, 1);
    T_EQ(start_waiting(cq), 0);
    T_EQ(cq->wr_id, 2);
    ibv_end_poll(cq);
    T_EQ(cq_wait(s->send_cq).wr_id, 3);
    side_close(s, true);
}

T_TEST(cqex_poll, bad_attribute)
{
    /* A comp_mask that means nothing is EINVAL; the queue stays usable. */
    struct side *s = self_side(&extended);
    struct ibv_cq_ex *cq = extended_cq(s, SEND_CQ);
    struct ibv_poll_cq_attr attr = {.comp_mask = 1u << 30};

    T_EQ(ibv_start_poll(cq, &attr), EINVAL);
    make_completions(s, 1, 1);
    T_EQ(start_waiting(cq), 0);
    ibv_end_poll(cq);
    side_close(s, true);
}

/* --- making
 * ------------------------------------------------------------------------------------------- */

static int try_flags(struct ibv_context *ctx, uint64_t wc_flags)
{
    struct ibv_cq_init_attr_ex attr = {.cqe = 10, .wc_flags = wc_flags};
    struct ibv_cq_ex *cq;

    errno = 0;
    cq = ibv_create_cq_ex(ctx, &attr);
    if (!cq) {
        return errno;
    }
    T_ASSERT(ibv_cq_ex_to_cq(cq)->cqe >= 10);
    T_EQ(ibv_destroy_cq(ibv_cq_ex_to_cq(cq)), 0);
    return 0;
}

T_TEST(cqex_create, each_standard_flag)
{
    /* Every standard field can be asked for, alone and with the others. */
    struct ibv_context *ctx = device_open();

    T_EQ(try_flags(ctx, 0), 0);
    for (uint64_t flag = 1; flag <= IBV_WC_EX_WITH_DLID_PATH_BITS; flag <<= 1) {
        T_EQ(try_flags(ctx, flag), 0);
    }
    T_EQ(try_flags(ctx, IBV_WC_STANDARD_FLAGS), 0);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(cqex_create, unknown_flag)
{
    /* A field that does not exist is refused. */
    struct ibv_context *ctx = device_open();

    T_IN(try_flags(ctx, UINT64_C(1) << 40), EOPNOTSUPP, EINVAL);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(cqex_create, bad_size_and_vector)
{
    /* The limits are those of ibv_create_cq. */
    struct ibv_context *ctx = device_open();
    struct ibv_device_attr device;
    struct ibv_cq_init_attr_ex attr = {.cqe = 10};

    T_EQ(ibv_query_device(ctx, &device), 0);
    attr.cqe = (uint32_t)device.max_cqe + 1;
    errno = 0;
    T_ASSERT(ibv_create_cq_ex(ctx, &attr) == NULL);
    T_IN(errno, EINVAL, ENOMEM);
    attr = (struct ibv_cq_init_attr_ex){.cqe = 10, .comp_vector = (uint32_t)ctx->num_comp_vectors};
    errno = 0;
    T_ASSERT(ibv_create_cq_ex(ctx, &attr) == NULL);
    T_EQ(errno, EINVAL);
    T_EQ(ibv_close_device(ctx), 0);
}

/* --- time
 * --------------------------------------------------------------------------------------------- */

static uint64_t realtime_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A side with such a queue; skips where the device does not have it and says so. */
static struct side *side_with_time(uint64_t flag)
{
    struct side_opt opt = {.cq_ex = true, .wc_flags = IBV_WC_STANDARD_FLAGS | flag};
    struct ibv_context *ctx = device_open();
    int rc = try_flags(ctx, opt.wc_flags);
    struct ibv_device_attr_ex ex;

    T_EQ(ibv_query_device_ex(ctx, NULL, &ex), 0);
    T_EQ(ibv_close_device(ctx), 0);
    if (rc != 0) {
        T_IN(rc, EOPNOTSUPP, EINVAL);
        T_ASSERT(flag != IBV_WC_EX_WITH_COMPLETION_TIMESTAMP || ex.completion_timestamp_mask == 0,
                 "timestamps are announced, but can't be had");
        T_SKIP("no such timestamps on this device");
    }
    return self_side(&opt);
}

T_TEST(cqex_time, wallclock)
{
    /*
     * The wall clock time of a completion lies between its post and its poll, give or take a
     * millisecond for clocks that are compared now and then, and never goes back.
     */
    struct side *s = side_with_time(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK);
    struct ibv_cq_ex *cq = extended_cq(s, SEND_CQ);
    uint64_t last = 0;

    for (uint64_t i = 0; i < 50; i++) {
        uint64_t before = realtime_ns(), when;

        make_completions(s, i, 1);
        T_EQ(start_waiting(cq), 0);
        when = ibv_wc_read_completion_wallclock_ns(cq);
        ibv_end_poll(cq);
        T_ASSERT(when + 1000000 >= before && when <= realtime_ns() + 1000000,
                 "%lld ns before the post", (long long)(before - when));
        T_ASSERT(when >= last);
        last = when;
    }
    side_close(s, true);
}

T_TEST(cqex_time, device_clock)
{
    /* The device's own time of completions never goes back. */
    struct side *s = side_with_time(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP);
    struct ibv_cq_ex *cq = extended_cq(s, SEND_CQ);
    uint64_t last = 0;

    for (uint64_t i = 0; i < 50; i++) {
        make_completions(s, i, 1);
        T_EQ(start_waiting(cq), 0);
        T_ASSERT(ibv_wc_read_completion_ts(cq) >= last);
        last = ibv_wc_read_completion_ts(cq);
        ibv_end_poll(cq);
    }
    T_ASSERT(last > 0);
    side_close(s, true);
}
