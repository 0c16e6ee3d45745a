/* SPDX-License-Identifier: MIT */
/* Message sizes around every boundary, large messages, and order among many. */
#include "ends.h"

#include <sys/mman.h>

/* Sizes round 1, 32 (small messages travel otherwise than large ones), cache lines, MTUs, pages. */
static const uint32_t sizes[] = {
    1,    2,    3,    4,    5,    7,    8,    9,    15,   16,   17,    31,    32,    33,
    63,   64,   65,   127,  128,  129,  255,  256,  257,  511,  512,   513,   1023,  1024,
    1025, 2047, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 8193, 12345, 16384, 30000,
};

enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static void all_sizes(enum topology topology, enum ibv_qp_type type, enum ibv_mtu mtu)
{
    struct pair *p = pair_open(topology, &(struct side_opt){.type = type, .mtu = mtu});

    for (int i = 0; i < SIZES; i++) {
        uint32_t len = sizes[i];

        e_recv(p->b, &(struct post){.id = 1, .off = p->rx + 1, .len = len});
        e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .off = (uint64_t)i, .len = len});
        e_done(p->a, 2, IBV_WC_SEND);
        e_got(p->b, 1, IBV_WC_RECV, len);
        e_same(p->b, p->rx + 1, len, p->a, (uint64_t)i);
        e_untouched(p->b, p->rx + 1 + len, 64);
        e_untouched(p->b, p->rx, 1);
    }
    pair_close(p);
}

T_CONTRACT(sizes, rc_send_mtu_1024)
{
    /* Sends of every size of the table arrive whole, at an odd address, and touch nothing else. */
    all_sizes(topology, IBV_QPT_RC, IBV_MTU_1024);
}

T_CONTRACT(sizes, rc_send_mtu_256)
{
    /* The same with the smallest path MTU. */
    all_sizes(topology, IBV_QPT_RC, IBV_MTU_256);
}

T_CONTRACT(sizes, rc_send_mtu_4096)
{
    /* The same with the largest path MTU the port has. */
    all_sizes(topology, IBV_QPT_RC, IBV_MTU_4096);
}

T_CONTRACT(sizes, uc_send)
{
    /* The same on an unreliable connection. */
    all_sizes(topology, IBV_QPT_UC, IBV_MTU_1024);
}

T_CONTRACT(sizes, write_and_read_back)
{
    /* Writes of every size, read back from where they went. */
    struct pair *p = pair_open(topology, NULL);

    for (int i = 0; i < SIZES; i++) {
        uint32_t len = sizes[i] < 15000 ? sizes[i] : 15000;

        e_send(p->a, &(struct post){.id = 1,
                                    .op = IBV_WR_RDMA_WRITE,
                                    .off = (uint64_t)i,
                                    .len = len,
                                    .roff = (int64_t)p->rx + 3});
        e_send(p->a, &(struct post){.id = 2,
                                    .op = IBV_WR_RDMA_READ,
                                    .off = p->rx + 16384 + 1,
                                    .len = len,
                                    .roff = (int64_t)p->rx + 3});
        e_done(p->a, 1, IBV_WC_RDMA_WRITE);
        e_done(p->a, 2, IBV_WC_RDMA_READ);
        e_same(p->b, p->rx + 3, len, p->a, (uint64_t)i);
        e_same(p->a, p->rx + 16384 + 1, len, p->a, (uint64_t)i);
        e_untouched(p->b, p->rx + 3 + len, 64);
        e_untouched(p->a, p->rx + 16384 + 1 + len, 64);
    }
    pair_close(p);
}

static void large(enum topology topology, uint32_t len)
{
    struct pair *p = pair_open(topology, &(struct side_opt){.size = 2 * (size_t)len + 64});

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = len});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = len});
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 1, IBV_WC_RECV, len);
    e_same(p->b, p->rx, len, p->a, 0);
    e_send(p->a, &(struct post){.id = 3, .op = IBV_WR_RDMA_READ, .off = p->rx, .len = len});
    e_done(p->a, 3, IBV_WC_RDMA_READ);
    e_same(p->a, p->rx, len, p->b, 0);
    e_send(p->b,
           &(struct post){.id = 4, .op = IBV_WR_RDMA_WRITE, .len = len, .roff = (int64_t)p->rx});
    e_done(p->b, 4, IBV_WC_RDMA_WRITE);
    e_same(p->a, p->rx, len, p->b, 0);
    pair_close(p);
}

T_CONTRACT(sizes, one_mebibyte)
{
    /* 1 MiB by send, read and write. */
    large(topology, 1 << 20);
}

T_CONTRACT(sizes, eight_mebibytes)
{
    /* 8 MiB, the largest message every soft-RoCE device has. */
    large(topology, 8 << 20);
}

struct beyond {
    int rc;
    struct side_info to;
};

/* Posts a write of just more than max_msg_sz: many elements name the same memory. */
static void post_beyond(struct side *s, void *arg)
{
    struct beyond *call = arg;
    struct ibv_port_attr port;
    struct ibv_sge sge[POST_SGE];
    struct ibv_send_wr *bad, wr = {.sg_list = sge,
                                   .opcode = IBV_WR_RDMA_WRITE,
                                   .send_flags = IBV_SEND_SIGNALED,
                                   .wr.rdma = {call->to.addr, call->to.rkey}};
    size_t len;
    void *memory;

    T_EQ(ibv_query_port(s->ctx, 1, &port), 0);
    len = port.max_msg_sz < 256 << 20 ? port.max_msg_sz : 256 << 20;
    memory = mmap(NULL, len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    T_ASSERT(memory != MAP_FAILED);
    s->mrs[0] = ibv_reg_mr(s->pd, memory, len, 0);
    T_ASSERT(s->mrs[0] != NULL, "register %zu bytes: %s", len, strerror(errno));
    wr.num_sge = (int)(port.max_msg_sz / len) + 1;
    T_ASSERT(wr.num_sge <= (int)s->info.cap.max_send_sge, "%d elements", wr.num_sge);
    for (int i = 0; i < wr.num_sge; i++) {
        sge[i] = (struct ibv_sge){(uintptr_t)memory, (uint32_t)len, s->mrs[0]->lkey};
    }
    call->rc = ibv_post_send(s->qp[0], &wr, &bad);
}

T_CONTRACT(sizes, beyond_the_largest_message)
{
    /*
     * More bytes than max_msg_sz are an error: refused at once, or LOC_LEN_ERR (IBTA 11.6.2), and
     * nothing moves.
     */
    struct pair *p = pair_open(topology, &(struct side_opt){.send_sge = 18});
    struct beyond call = {0, p->b->info};

    e_run(p->a, post_beyond, &call, sizeof(call));
    T_IN(call.rc, 0, EINVAL, EMSGSIZE);
    if (call.rc == 0) {
        T_EQ(e_wait(p->a, SEND_CQ).status, IBV_WC_LOC_LEN_ERR);
    }
    e_untouched_but(p->b, 0, 0);
    pair_close_loose(p);
}

/* --- order
 * ----------------------------------------------------------------------------------------- */

enum { MANY = 3000, BATCH = 32 };

struct stream {
    int posted, done;
    uint64_t off;
};

/* Keeps the receive queue full, and checks that message i comes i-th with its own bytes. */
static void receive_all(struct side *s, void *arg)
{
    struct stream *stream = arg;
    int64_t deadline = t_deadline(WAIT_MS);
    struct ibv_wc wc[BATCH];

    while (stream->done < MANY) {
        int got = ibv_poll_cq(s->recv_cq, BATCH, wc);

        T_ASSERT(got >= 0 && !t_expired(deadline), "%d of %d", stream->done, MANY);
        for (int i = 0; i < got; i++) {
            uint64_t slot = wc[i].wr_id % 64;

            T_EQ(wc[i].status, IBV_WC_SUCCESS);
            T_EQ(wc[i].wr_id, stream->done);
            T_EQ(wc[i].imm_data, stream->done);
            T_EQ(wc[i].byte_len, stream->done % 61);
            T_EQ(t_compare(s->buf + stream->off + slot * 64, 0, wc[i].byte_len,
                           (uint64_t)stream->done),
                 -1);
            stream->done++;
            if (stream->posted < MANY) {
                struct ibv_sge sge = {s->info.addr + stream->off + slot * 64, 64, s->info.lkey};
                struct ibv_recv_wr *bad,
                    wr = {.wr_id = (uint64_t)stream->posted++, .sg_list = &sge, .num_sge = 1};

                T_EQ(ibv_post_recv(s->qp[0], &wr, &bad), 0);
            }
        }
        if (got == 0) {
            t_relax();
        }
    }
}

static void send_all(struct side *s, void *arg)
{
    int64_t deadline = t_deadline(WAIT_MS);
    int posted = 0, done = 0;

    (void)arg;
    while (done < MANY) {
        struct ibv_wc wc;

        if (posted < MANY && posted - done < BATCH) {
            uint64_t slot = (uint64_t)posted % 64;
            struct ibv_sge sge = {s->info.addr + slot * 64, (uint32_t)posted % 61, s->info.lkey};
            struct ibv_send_wr *bad, wr = {.wr_id = (uint64_t)posted,
                                           .sg_list = &sge,
                                           .num_sge = 1,
                                           .opcode = IBV_WR_SEND_WITH_IMM,
                                           .send_flags = IBV_SEND_SIGNALED,
                                           .imm_data = (uint32_t)posted};

            t_fill(s->buf + slot * 64, 0, 64, (uint64_t)posted++);
            T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
            continue;
        }
        T_ASSERT(!t_expired(deadline), "%d of %d", done, MANY);
        if (ibv_poll_cq(s->send_cq, 1, &wc) == 1) {
            T_EQ(wc.status, IBV_WC_SUCCESS);
            T_EQ(wc.wr_id, done++);
        } else {
            t_relax();
        }
    }
}

T_CONTRACT_CONCURRENT(order, many_messages)
{
    /* 3000 small messages of changing length arrive in the order they were posted, each intact. */
    struct pair *p = pair_open(topology, NULL);
    struct stream stream = {.posted = 64, .off = p->rx};

    e_recv_many(p->b, 0, 0, 64, p->rx, 64);
    e_begin(p->b, receive_all, &stream, sizeof(stream));
    e_run(p->a, send_all, &stream, sizeof(stream));
    e_finish(p->b);
    T_EQ(stream.done, MANY);
    pair_close(p);
}

T_CONTRACT_SELF(order, in_turns)
{
    /* A full send queue of messages, then the receives in the same order; ten times. */
    struct pair *p = pair_open(topology, NULL);

    for (uint64_t round = 0; round < 10; round++) {
        e_recv_many(p->b, 0, 100, 60, p->rx, 8);
        for (uint64_t i = 0; i < 60; i++) {
            e_send(p->a,
                   &(struct post){.id = i, .op = IBV_WR_SEND, .off = i * 3 + round, .len = 8});
        }
        for (uint64_t i = 0; i < 60; i++) {
            e_done(p->a, i, IBV_WC_SEND);
            e_got(p->b, 100 + i, IBV_WC_RECV, 8);
            e_same(p->b, p->rx + i * 8, 8, p->a, i * 3 + round);
        }
    }
    pair_close(p);
}

T_CONTRACT_SELF(order, writes_before_send)
{
    /* What was written before a send is in memory when the send has been received (IBTA o9-20). */
    struct pair *p = pair_open(topology, &(struct side_opt){.size = 1 << 20});

    for (uint64_t i = 0; i < 20; i++) {
        e_recv(p->b, &(struct post){.id = 1});
        e_send(p->a, &(struct post){.id = 2,
                                    .op = IBV_WR_RDMA_WRITE,
                                    .off = i * 64,
                                    .len = 200000,
                                    .roff = (int64_t)p->rx,
                                    .quiet = true});
        e_send(p->a, &(struct post){.id = 3, .op = IBV_WR_SEND});
        e_got(p->b, 1, IBV_WC_RECV, 0);
        e_same(p->b, p->rx, 200000, p->a, i * 64);
        e_done(p->a, 3, IBV_WC_SEND);
    }
    pair_close(p);
}
