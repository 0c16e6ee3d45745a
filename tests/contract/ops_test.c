/* SPDX-License-Identifier: MIT */
/* Every operation of connected queue pairs, when all goes well: RC, and what UC has of it. */
#include "ends.h"

#include <arpa/inet.h>
#include <stdio.h>

static const struct side_opt rc = {.type = IBV_QPT_RC};
static const struct side_opt uc = {.type = IBV_QPT_UC};

static void sends(enum topology topology, const struct side_opt *opt)
{
    struct pair *p = pair_open(topology, opt);
    struct ibv_wc wc;

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = 300});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .off = 7, .len = 200});
    e_done(p->a, 2, IBV_WC_SEND);
    wc = e_got(p->b, 1, IBV_WC_RECV, 200);
    T_EQ(wc.qp_num, p->b->info.qpn[0]);
    T_EQ(wc.wc_flags & (IBV_WC_WITH_IMM | IBV_WC_WITH_INV), 0);
    e_same(p->b, p->rx, 200, p->a, 7);
    e_untouched_but(p->b, p->rx, 200);
    pair_close(p);
}

T_CONTRACT_SELF(rc, send)
{
    /* A send fills the receive buffer from its start, and not one byte more. */
    sends(topology, &rc);
}

T_CONTRACT_SELF(uc, send)
{
    /* The same on an unreliable connection. */
    sends(topology, &uc);
}

static void sends_imm(enum topology topology, const struct side_opt *opt)
{
    struct pair *p = pair_open(topology, opt);
    struct ibv_wc wc;

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND_WITH_IMM, .len = 64, .imm = 0x01020304});
    e_done(p->a, 2, IBV_WC_SEND);
    wc = e_got(p->b, 1, IBV_WC_RECV, 64);
    T_ASSERT(wc.wc_flags & IBV_WC_WITH_IMM);
    T_EQ(ntohl(wc.imm_data), 0x01020304);
    e_same(p->b, p->rx, 64, p->a, 0);
    pair_close(p);
}

T_CONTRACT_SELF(rc, send_with_immediate)
{
    /* Immediate data arrives in network order, with the flag that says it is there. */
    sends_imm(topology, &rc);
}

T_CONTRACT_SELF(uc, send_with_immediate)
{
    /* The same on an unreliable connection. */
    sends_imm(topology, &uc);
}

static void writes(enum topology topology, const struct side_opt *opt)
{
    struct pair *p = pair_open(topology, opt);

    /* UC has no acknowledge: a send behind the write tells that it has arrived. */
    e_recv(p->b, &(struct post){.id = 1, .off = 0, .len = 0});
    e_send(
        p->a,
        &(struct post){
            .id = 2, .op = IBV_WR_RDMA_WRITE, .off = 3, .len = 1000, .roff = (int64_t)p->rx + 5});
    e_send(p->a, &(struct post){.id = 3, .op = IBV_WR_SEND});
    e_done(p->a, 2, IBV_WC_RDMA_WRITE);
    e_done(p->a, 3, IBV_WC_SEND);
    e_got(p->b, 1, IBV_WC_RECV, 0);
    e_same(p->b, p->rx + 5, 1000, p->a, 3);
    e_untouched_but(p->b, p->rx + 5, 1000);
    pair_close(p);
}

T_CONTRACT_SELF(rc, write)
{
    /* An RDMA write puts its bytes where it says, and gives the target no completion. */
    writes(topology, &rc);
}

T_CONTRACT_SELF(uc, write)
{
    /* The same on an unreliable connection. */
    writes(topology, &uc);
}

static void writes_imm(enum topology topology, const struct side_opt *opt)
{
    struct pair *p = pair_open(topology, opt);
    struct ibv_wc wc;

    e_recv(p->b, &(struct post){.id = 1, .off = 0, .len = 64});
    e_send(p->a, &(struct post){.id = 2,
                                .op = IBV_WR_RDMA_WRITE_WITH_IMM,
                                .len = 500,
                                .roff = (int64_t)p->rx,
                                .imm = 0xcafe});
    e_done(p->a, 2, IBV_WC_RDMA_WRITE);
    wc = e_got(p->b, 1, IBV_WC_RECV_RDMA_WITH_IMM, 500);
    T_ASSERT(wc.wc_flags & IBV_WC_WITH_IMM);
    T_EQ(ntohl(wc.imm_data), 0xcafe);
    e_same(p->b, p->rx, 500, p->a, 0);
    e_untouched_but(p->b, p->rx, 500);
    pair_close(p);
}

T_CONTRACT_SELF(rc, write_with_immediate)
{
    /* Takes a receive request without touching its buffer; byte_len is what was written. */
    writes_imm(topology, &rc);
}

T_CONTRACT_SELF(uc, write_with_immediate)
{
    /* The same on an unreliable connection. */
    writes_imm(topology, &uc);
}

T_CONTRACT_SELF(rc, read)
{
    /* An RDMA read fetches the bytes asked for; the target notices nothing. */
    struct pair *p = pair_open(topology, &rc);

    e_send(p->a, &(struct post){
                     .id = 1, .op = IBV_WR_RDMA_READ, .off = p->rx + 9, .len = 777, .roff = 11});
    e_done(p->a, 1, IBV_WC_RDMA_READ);
    e_same(p->a, p->rx + 9, 777, p->b, 11);
    e_untouched_but(p->a, p->rx + 9, 777);
    if (p->b != p->a) {
        e_untouched_but(p->b, 0, 0);
    }
    pair_close(p);
}

T_CONTRACT_SELF(rc, zero_length)
{
    /* Every operation may carry nothing: it completes, and takes a receive request if it would. */
    struct pair *p = pair_open(topology, &rc);
    struct ibv_wc wc;

    e_recv_many(p->b, 0, 10, 4, p->rx, 16);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND_WITH_IMM, .imm = 5});
    e_send(p->a, &(struct post){.id = 3, .op = IBV_WR_RDMA_WRITE});
    e_send(p->a, &(struct post){.id = 4, .op = IBV_WR_RDMA_WRITE_WITH_IMM, .imm = 6});
    e_send(p->a, &(struct post){.id = 5, .op = IBV_WR_RDMA_READ});
    e_send(p->a, &(struct post){.id = 6, .op = IBV_WR_SEND, .len = 1});
    e_done(p->a, 1, IBV_WC_SEND);
    e_done(p->a, 2, IBV_WC_SEND);
    e_done(p->a, 3, IBV_WC_RDMA_WRITE);
    e_done(p->a, 4, IBV_WC_RDMA_WRITE);
    e_done(p->a, 5, IBV_WC_RDMA_READ);
    e_done(p->a, 6, IBV_WC_SEND);
    e_got(p->b, 10, IBV_WC_RECV, 0);
    wc = e_got(p->b, 11, IBV_WC_RECV, 0);
    T_EQ(ntohl(wc.imm_data), 5);
    wc = e_got(p->b, 12, IBV_WC_RECV_RDMA_WITH_IMM, 0);
    T_EQ(ntohl(wc.imm_data), 6);
    e_got(p->b, 13, IBV_WC_RECV, 1);
    e_untouched_but(p->b, p->rx + 48, 1);
    pair_close(p);
}

T_CONTRACT(rc, zero_length_needs_no_key)
{
    /* A remote operation of no bytes is not checked for address and key (IBTA 9.7.4.1.6, C9-88). */
    struct pair *p = pair_open(topology, &rc);

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_RDMA_WRITE, .raddr = 1, .rkey = 0xdead});
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_RDMA_READ, .raddr = 1, .rkey = 0xdead});
    e_done(p->a, 2, IBV_WC_RDMA_READ);
    pair_works(p, 0);
    pair_close(p);
}

T_CONTRACT(uc, zero_length)
{
    /* The same for what UC has. */
    struct pair *p = pair_open(topology, &uc);

    e_recv_many(p->b, 0, 10, 2, p->rx, 16);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_RDMA_WRITE});
    e_send(p->a, &(struct post){.id = 3, .op = IBV_WR_RDMA_WRITE_WITH_IMM, .imm = 6});
    e_done(p->a, 1, IBV_WC_SEND);
    e_done(p->a, 2, IBV_WC_RDMA_WRITE);
    e_done(p->a, 3, IBV_WC_RDMA_WRITE);
    e_got(p->b, 10, IBV_WC_RECV, 0);
    e_got(p->b, 11, IBV_WC_RECV_RDMA_WITH_IMM, 0);
    e_untouched_but(p->b, 0, 0);
    pair_close(p);
}

static void both_ways(enum topology topology, const struct side_opt *opt)
{
    struct pair *p = pair_open(topology, opt);

    e_recv(p->a, &(struct post){.id = 1, .off = p->rx, .len = 64});
    e_recv(p->b, &(struct post){.id = 2, .off = p->rx, .len = 64});
    e_send(p->a, &(struct post){.id = 3, .op = IBV_WR_SEND, .len = 64});
    e_send(p->b, &(struct post){.id = 4, .op = IBV_WR_SEND, .len = 64});
    e_done(p->a, 3, IBV_WC_SEND);
    e_done(p->b, 4, IBV_WC_SEND);
    e_got(p->a, 1, IBV_WC_RECV, 64);
    e_got(p->b, 2, IBV_WC_RECV, 64);
    e_same(p->a, p->rx, 64, p->b, 0);
    e_same(p->b, p->rx, 64, p->a, 0);
    pair_close(p);
}

T_CONTRACT(rc, both_ways)
{
    /* A connection carries both directions at once. */
    both_ways(topology, &rc);
}

T_CONTRACT(uc, both_ways)
{
    /* The same on an unreliable connection. */
    both_ways(topology, &uc);
}

/* --- scatter and gather
 * --------------------------------------------------------------------------- */

T_CONTRACT_SELF(rc, gather_and_scatter)
{
    /* A send gathers its elements in order, a receive scatters over its own, whatever the split. */
    struct pair *p = pair_open(topology, &rc);
    struct post send = {.id = 1,
                        .op = IBV_WR_SEND,
                        .nsge = 4,
                        .sge = {{.addr = 100, .length = 10},
                                {.addr = 0, .length = 1},
                                {.addr = 50, .length = 29},
                                {.addr = 200, .length = 60}}};
    struct post recv = {.id = 2,
                        .nsge = 3,
                        .sge = {{.addr = p->rx + 500, .length = 7},
                                {.addr = p->rx, .length = 40},
                                {.addr = p->rx + 900, .length = 60}}};

    e_recv(p->b, &recv);
    e_send(p->a, &send);
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 2, IBV_WC_RECV, 100);
    e_same(p->b, p->rx + 500, 7, p->a, 100);
    e_same(p->b, p->rx, 3, p->a, 107);
    e_same(p->b, p->rx + 3, 1, p->a, 0);
    e_same(p->b, p->rx + 4, 29, p->a, 50);
    e_same(p->b, p->rx + 33, 7, p->a, 200);
    e_same(p->b, p->rx + 900, 53, p->a, 207);
    e_untouched(p->b, p->rx + 953, 7);
    e_untouched(p->b, p->rx + 40, 460);
    pair_close(p);
}

T_CONTRACT_SELF(rc, gather_for_write_and_scatter_for_read)
{
    /* An RDMA write gathers into one remote place; an RDMA read scatters from one. */
    struct pair *p = pair_open(topology, &rc);
    struct ibv_sge list[3] = {
        {.addr = 64, .length = 33}, {.addr = 8, .length = 5}, {.addr = 1024, .length = 500}};
    struct post write = {.id = 1, .op = IBV_WR_RDMA_WRITE, .nsge = 3, .roff = (int64_t)p->rx};
    struct post read = {.id = 2, .op = IBV_WR_RDMA_READ, .nsge = 3, .roff = 2000};

    memcpy(write.sge, list, sizeof(list));
    memcpy(read.sge, list, sizeof(list));
    for (int i = 0; i < 3; i++) {
        read.sge[i].addr += p->rx + 4096;
    }
    e_send(p->a, &write);
    e_send(p->a, &read);
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    e_done(p->a, 2, IBV_WC_RDMA_READ);
    e_same(p->b, p->rx, 33, p->a, 64);
    e_same(p->b, p->rx + 33, 5, p->a, 8);
    e_same(p->b, p->rx + 38, 500, p->a, 1024);
    e_same(p->a, p->rx + 4096 + 64, 33, p->b, 2000);
    e_same(p->a, p->rx + 4096 + 8, 5, p->b, 2033);
    e_same(p->a, p->rx + 4096 + 1024, 500, p->b, 2038);
    pair_close(p);
}

T_CONTRACT(rc, empty_elements)
{
    /* Elements of length zero are skipped wherever they stand, and their key does not matter. */
    struct pair *p = pair_open(topology, &rc);
    struct post send = {.id = 1,
                        .op = IBV_WR_SEND,
                        .nsge = 4,
                        .sge = {{.addr = 0, .length = 0},
                                {.addr = 16, .length = 16},
                                {.addr = 0, .length = 0},
                                {.addr = 64, .length = 8}}};
    struct post recv = {.id = 2,
                        .nsge = 3,
                        .sge = {{.addr = p->rx, .length = 20},
                                {.addr = 0, .length = 0},
                                {.addr = p->rx + 100, .length = 20}}};

    e_recv(p->b, &recv);
    e_send(p->a, &send);
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 2, IBV_WC_RECV, 24);
    e_same(p->b, p->rx, 16, p->a, 16);
    e_same(p->b, p->rx + 16, 4, p->a, 64);
    e_same(p->b, p->rx + 100, 4, p->a, 68);
    pair_close(p);
}

static uint32_t device_max_sge(struct pair *p)
{
    struct side *s = p->a->info.share;
    struct ibv_device_attr attr;

    T_EQ(ibv_query_device(s->ctx, &attr), 0);
    return (uint32_t)attr.max_sge < POST_SGE - 1 ? (uint32_t)attr.max_sge : POST_SGE - 1;
}

T_CONTRACT(rc, most_elements)
{
    /* The largest scatter/gather lists the device announces, on both sides. */
    struct pair *probe = pair_open(topology, &rc);
    uint32_t n = device_max_sge(probe);
    struct pair *p;
    struct post send = {.id = 1, .op = IBV_WR_SEND, .nsge = (int)n};
    struct post recv = {.id = 2, .nsge = (int)n};

    pair_close(probe);
    p = pair_open(topology, &(struct side_opt){.send_sge = n, .recv_sge = n});
    for (uint32_t i = 0; i < n; i++) {
        send.sge[i] = (struct ibv_sge){.addr = i * 32, .length = i % 8 + 1};
        recv.sge[i] = (struct ibv_sge){.addr = p->rx + i * 32, .length = i % 8 + 1};
    }
    e_recv(p->b, &recv);
    e_send(p->a, &send);
    e_done(p->a, 1, IBV_WC_SEND);
    e_expect(p->b, RECV_CQ, 2, IBV_WC_SUCCESS);
    for (uint32_t i = 0; i < n; i++) {
        e_same(p->b, p->rx + i * 32, i % 8 + 1, p->a, i * 32);
    }
    pair_close(p);
}

T_CONTRACT(rc, too_many_elements)
{
    /* One element more than the queue pair has is refused at once, for both queues. */
    struct pair *p = pair_open(topology, &rc);
    struct post post = {.id = 1, .op = IBV_WR_SEND};

    T_ASSERT(p->a->info.cap.max_send_sge < POST_SGE && p->a->info.cap.max_recv_sge < POST_SGE);
    for (int i = 0; i < POST_SGE; i++) {
        post.sge[i] = (struct ibv_sge){.addr = (uint64_t)i, .length = 1};
    }
    post.nsge = (int)p->a->info.cap.max_send_sge + 1;
    T_IN(e_try_send(p->a, &post), EINVAL, ENOMEM);
    post.nsge = (int)p->a->info.cap.max_recv_sge + 1;
    T_IN(e_try_recv(p->a, &post), EINVAL, ENOMEM);
    pair_works(p, 0);
    pair_close(p);
}

/* --- inline
 * ---------------------------------------------------------------------------------------- */

struct inline_call {
    uint32_t len;
    uint64_t id;
    enum ibv_wr_opcode op;
    struct side_info to;
    uint64_t roff;
    int rc;
};

/* Posts from memory that is not registered, and destroys the source at once. */
static void post_inline(struct side *s, void *arg)
{
    struct inline_call *call = arg;
    uint8_t data[4096];
    struct ibv_sge sge = {(uintptr_t)data, call->len, 0xbad};
    struct ibv_send_wr *bad, wr = {
                                 .wr_id = call->id,
                                 .sg_list = &sge,
                                 .num_sge = 1,
                                 .opcode = call->op,
                                 .send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE,
                                 .wr.rdma = {call->to.addr + call->roff, call->to.rkey},
                             };

    T_ASSERT(call->len <= sizeof(data));
    t_fill(data, 0, call->len, 4711);
    call->rc = ibv_post_send(s->qp[0], &wr, &bad);
    memset(data, 0, sizeof(data));
}

T_CONTRACT_SELF(rc, inline_send_and_write)
{
    /* Inline data is taken during the call: no key is needed, and the source may change at once. */
    struct pair *p = pair_open(topology, &(struct side_opt){.inline_size = 128});
    uint32_t max = p->a->info.cap.max_inline_data;
    struct inline_call send = {.len = max, .id = 1, .op = IBV_WR_SEND};
    struct inline_call write = {
        .len = 5, .id = 2, .op = IBV_WR_RDMA_WRITE, .to = p->b->info, .roff = p->rx + 8000};
    uint8_t got[4096];

    T_ASSERT(max >= 128 && max <= sizeof(got));
    e_recv(p->b, &(struct post){.id = 3, .off = p->rx, .len = max});
    e_run(p->a, post_inline, &send, sizeof(send));
    T_EQ(send.rc, 0);
    e_run(p->a, post_inline, &write, sizeof(write));
    T_EQ(write.rc, 0);
    e_done(p->a, 1, IBV_WC_SEND);
    e_done(p->a, 2, IBV_WC_RDMA_WRITE);
    e_got(p->b, 3, IBV_WC_RECV, max);
    e_peek(p->b, p->rx, got, max);
    T_EQ(t_compare(got, 0, max, 4711), -1);
    e_peek(p->b, p->rx + 8000, got, 5);
    T_EQ(t_compare(got, 0, 5, 4711), -1);
    e_untouched(p->b, p->rx + max, 200);
    pair_close(p);
}

T_CONTRACT(rc, inline_beyond_the_limit)
{
    /* One byte more than max_inline_data is refused at once, and the queue pair lives on. */
    struct pair *p = pair_open(topology, &(struct side_opt){.inline_size = 64});
    struct inline_call send = {.len = p->a->info.cap.max_inline_data + 1, .op = IBV_WR_SEND};

    e_run(p->a, post_inline, &send, sizeof(send));
    T_IN(send.rc, EINVAL, ENOMEM);
    pair_works(p, 0);
    pair_close(p);
}

static void post_inline_list(struct side *s, void *arg)
{
    uint8_t one[10], two[20];
    struct ibv_sge sge[3] = {
        {(uintptr_t)one, sizeof(one), 0}, {0, 0, 0}, {(uintptr_t)two, sizeof(two), 0}};
    struct ibv_send_wr *bad, wr = {
                                 .wr_id = 1,
                                 .sg_list = sge,
                                 .num_sge = 3,
                                 .opcode = IBV_WR_SEND,
                                 .send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE,
                             };

    (void)arg;
    t_fill(one, 0, 10, 5);
    t_fill(two, 10, 20, 5);
    T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
    memset(one, 0, sizeof(one));
    memset(two, 0, sizeof(two));
}

T_CONTRACT(rc, inline_from_several_elements)
{
    /* Inline data may be gathered, too. */
    struct pair *p = pair_open(topology, &(struct side_opt){.inline_size = 64});
    uint8_t got[30];

    e_recv(p->b, &(struct post){.id = 2, .off = p->rx, .len = 64});
    e_run(p->a, post_inline_list, got, 1);
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 2, IBV_WC_RECV, 30);
    e_peek(p->b, p->rx, got, 30);
    T_EQ(t_compare(got, 0, 30, 5), -1);
    pair_close(p);
}

/* --- fences
 * ---------------------------------------------------------------------------------------- */

T_CONTRACT(rc, fence_waits_for_a_read)
{
    /*
     * A fenced send starts only after earlier reads are done (IBTA 10.8.3.3): sent from the buffer
     * that the read fills, it carries what was read, every time.
     */
    struct pair *p = pair_open(topology, &rc);

    for (uint64_t i = 0; i < 50; i++) {
        e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = 4096});
        e_send(p->a, &(struct post){.id = 2,
                                    .op = IBV_WR_RDMA_READ,
                                    .off = p->rx,
                                    .len = 4096,
                                    .roff = (int64_t)(i * 8),
                                    .quiet = true});
        e_send(p->a,
               &(struct post){
                   .id = 3, .op = IBV_WR_SEND, .off = p->rx, .len = 4096, .flags = IBV_SEND_FENCE});
        e_done(p->a, 3, IBV_WC_SEND);
        e_got(p->b, 1, IBV_WC_RECV, 4096);
        e_same(p->b, p->rx, 4096, p->b, i * 8);
    }
    pair_close(p);
}

/* --- several queue pairs
 * --------------------------------------------------------------------------- */

T_CONTRACT(rc, many_queue_pairs_share_queues)
{
    /* 64 connections over the same CQs: each message comes on its own queue pair. */
    struct pair *p = pair_open(topology, &(struct side_opt){.qps = SIDE_QPS, .cqe = 256});

    for (int q = 0; q < SIDE_QPS; q++) {
        e_recv(p->b, &(struct post){
                         .q = q, .id = (uint64_t)q, .off = p->rx + (uint64_t)q * 16, .len = 16});
    }
    for (int q = SIDE_QPS - 1; q >= 0; q--) {
        e_send(
            p->a,
            &(struct post){
                .q = q, .id = (uint64_t)q, .op = IBV_WR_SEND, .off = (uint64_t)q * 32, .len = 16});
    }
    for (int i = 0; i < SIDE_QPS; i++) {
        struct ibv_wc sent = e_wait(p->a, SEND_CQ), got = e_wait(p->b, RECV_CQ);

        T_EQ(sent.status, IBV_WC_SUCCESS);
        T_EQ(got.status, IBV_WC_SUCCESS);
        T_ASSERT(got.wr_id < SIDE_QPS);
        T_EQ(got.qp_num, p->b->info.qpn[got.wr_id]);
        e_same(p->b, p->rx + got.wr_id * 16, 16, p->a, got.wr_id * 32);
    }
    pair_close(p);
}
