/* SPDX-License-Identifier: MIT */
/*
 * XRC (IBTA annex A14): end `a` has the sending queue pair, end `b` the receiving one. Each side
 * also has a domain, and an SRQ in it with a completion queue and keys of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ends.h"
#include "keys.h"

/* What a side made; pointers are good where they were made. */
struct xrc {
    char path[64]; /* of the domain's file; empty: a domain of its own */
    int oflags;
    struct ibv_xrcd *xrcd;
    struct ibv_srq *srq;
    struct ibv_qp *sender, *receiver;
    uint32_t srqn, sender_qpn, receiver_qpn;
    bool send_ops;
    int error;
};

/* Both sides, seen from the test. */
struct bed {
    struct pair *p;
    struct xrc a, b;
};

static const struct side_opt opt = {.qps = ZERO};

static void need_xrc(struct side *s, void *arg)
{
    struct ibv_device_attr attr;

    T_EQ(ibv_query_device(s->ctx, &attr), 0);
    *(bool *)arg = attr.device_cap_flags & IBV_DEVICE_XRC;
}

static void open_domain(struct side *s, void *arg)
{
    struct xrc *xrc = arg;
    struct ibv_xrcd_init_attr attr = {.comp_mask =
                                          IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                      .fd = -1,
                                      .oflags = xrc->oflags ? xrc->oflags : O_CREAT};

    if (*xrc->path) {
        attr.fd = open(xrc->path, O_RDONLY);
        T_ASSERT(attr.fd >= 0);
    }
    xrc->xrcd = ibv_open_xrcd(s->ctx, &attr);
    xrc->error = xrc->xrcd ? 0 : errno;
    if (attr.fd >= 0)
        close(attr.fd);
}

static void close_domain(struct side *s, void *arg)
{
    (void)s;
    T_EQ(ibv_close_xrcd(((struct xrc *)arg)->xrcd), 0);
}

static struct ibv_srq *make_srq(struct side *s, struct ibv_xrcd *xrcd)
{
    struct ibv_srq_init_attr_ex attr = {.attr = {.max_wr = 64, .max_sge = 4},
                                        .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD |
                                                     IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ,
                                        .srq_type = IBV_SRQT_XRC,
                                        .pd = s->pd,
                                        .xrcd = xrcd,
                                        .cq = s->recv_cq};
    struct ibv_srq *srq = ibv_create_srq_ex(s->ctx, &attr);

    T_ASSERT(srq, "ibv_create_srq_ex: %s", strerror(errno));
    return srq;
}

static struct ibv_qp *make_qp(struct side *s, const struct xrc *xrc, enum ibv_qp_type type)
{
    struct ibv_qp_init_attr_ex attr = {.send_cq = s->send_cq,
                                       .cap = {.max_send_wr = 64, .max_send_sge = 4},
                                       .qp_type = type,
                                       .comp_mask = IBV_QP_INIT_ATTR_PD,
                                       .pd = s->pd};

    if (type == IBV_QPT_XRC_RECV) {
        attr = (struct ibv_qp_init_attr_ex){
            .qp_type = type, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = xrc->xrcd};
    } else if (xrc->send_ops) {
        attr.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        attr.send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE;
    }
    struct ibv_qp *qp = ibv_create_qp_ex(s->ctx, &attr);
    T_ASSERT(qp, "ibv_create_qp_ex: %s", strerror(errno));
    T_EQ(qp->qp_type, type);
    return qp;
}

static void make(struct side *s, void *arg)
{
    struct xrc *xrc = arg;

    open_domain(s, xrc);
    T_EQ(xrc->error, 0);
    xrc->srq = make_srq(s, xrc->xrcd);
    T_EQ(ibv_get_srq_num(xrc->srq, &xrc->srqn), 0);
    xrc->sender = make_qp(s, xrc, IBV_QPT_XRC_SEND);
    xrc->receiver = make_qp(s, xrc, IBV_QPT_XRC_RECV);
    xrc->sender_qpn = xrc->sender->qp_num;
    xrc->receiver_qpn = xrc->receiver->qp_num;
}

/* ---- connecting ---- */

struct link {
    struct ibv_qp *qp;
    struct side_info to;
    uint32_t qpn;
    enum ibv_qp_type type;
};

static void modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, enum ibv_qp_state state, int mask)
{
    attr->qp_state = state;
    T_EQ(ibv_modify_qp(qp, attr, mask | IBV_QP_STATE), 0);
}

static void connect_qp(struct side *s, void *arg)
{
    struct link *link = arg;
    bool sends = link->type == IBV_QPT_XRC_SEND;
    struct ibv_qp_attr attr = {.port_num = 1,
                               .qp_access_flags = ACCESS_REMOTE,
                               .path_mtu = IBV_MTU_1024,
                               .dest_qp_num = link->qpn,
                               .max_dest_rd_atomic = 4,
                               .max_rd_atomic = 4,
                               .min_rnr_timer = 1,
                               .timeout = 14,
                               .retry_cnt = 6,
                               .rnr_retry = 7};

    modify(link->qp, &attr, IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    attr.ah_attr = side_ah_attr(&link->to);
    modify(link->qp, &attr, IBV_QPS_RTR,
           IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
               (sends ? 0 : IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER));
    modify(link->qp, &attr, IBV_QPS_RTS,
           IBV_QP_SQ_PSN | IBV_QP_TIMEOUT |
               (sends ? IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC : 0));
    (void)s;
}

static void join(struct bed *bed)
{
    struct link back = {bed->b.receiver, bed->p->a->info, bed->a.sender_qpn, IBV_QPT_XRC_RECV};
    struct link forth = {bed->a.sender, bed->p->b->info, bed->b.receiver_qpn, IBV_QPT_XRC_SEND};

    e_run(bed->p->b, connect_qp, &back, sizeof(back));
    e_run(bed->p->a, connect_qp, &forth, sizeof(forth));
}

static struct bed bed_open(enum topology topology, const char *path, bool send_ops)
{
    struct bed bed = {.p = pair_open(topology, &opt), .a = {.send_ops = send_ops}};
    bool has_xrc = false;

    e_run(bed.p->a, need_xrc, &has_xrc, sizeof(has_xrc));
    if (!has_xrc)
        T_SKIP("the device has no XRC");
    snprintf(bed.a.path, sizeof(bed.a.path), "%s", path);
    snprintf(bed.b.path, sizeof(bed.b.path), "%s", path);
    e_run(bed.p->a, make, &bed.a, sizeof(bed.a));
    e_run(bed.p->b, make, &bed.b, sizeof(bed.b));
    join(&bed);
    return bed;
}

static void unmake(struct side *s, void *arg)
{
    struct xrc *xrc = arg;

    (void)s;
    T_EQ(ibv_close_xrcd(xrc->xrcd), EBUSY);
    if (xrc->sender)
        T_EQ(ibv_destroy_qp(xrc->sender), 0);
    if (xrc->receiver)
        T_EQ(ibv_destroy_qp(xrc->receiver), 0);
    T_EQ(ibv_destroy_srq(xrc->srq), 0);
    T_EQ(ibv_close_xrcd(xrc->xrcd), 0);
}

static void bed_close(struct bed *bed)
{
    e_run(bed->p->a, unmake, &bed->a, sizeof(bed->a));
    e_run(bed->p->b, unmake, &bed->b, sizeof(bed->b));
    pair_close(bed->p);
}

/* ---- posting ---- */

struct request {
    struct ibv_qp *qp;
    struct ibv_srq *srq;
    struct ibv_send_wr wr;
    uint64_t off;
    uint32_t len;
    int result;
};

static void post_send(struct side *s, void *arg)
{
    struct request *request = arg;
    struct ibv_sge sge = {s->info.addr + request->off, request->len, s->info.lkey};
    struct ibv_send_wr *bad;

    request->wr.sg_list = &sge;
    request->wr.num_sge = request->len ? 1 : 0;
    request->wr.send_flags |= IBV_SEND_SIGNALED;
    request->result = ibv_post_send(request->qp, &request->wr, &bad);
}

static void send_by(struct bed *bed, struct ibv_send_wr wr, uint32_t srqn, uint64_t off,
                    uint32_t len)
{
    struct request request = {.qp = bed->a.sender, .wr = wr, .off = off, .len = len};

    request.wr.qp_type.xrc.remote_srqn = srqn;
    e_run(bed->p->a, post_send, &request, sizeof(request));
    T_EQ(request.result, 0);
}

static void post_recv(struct side *s, void *arg)
{
    struct request *request = arg;
    struct ibv_sge sge = {s->info.addr + request->off, request->len, s->info.lkey};
    struct ibv_recv_wr wr = {.wr_id = request->wr.wr_id, .sg_list = &sge, .num_sge = 1}, *bad;

    request->result = ibv_post_srq_recv(request->srq, &wr, &bad);
}

static void recv_by(struct end *e, const struct xrc *xrc, uint64_t id, uint64_t off, uint32_t len)
{
    struct request request = {.srq = xrc->srq, .wr = {.wr_id = id}, .off = off, .len = len};

    e_run(e, post_recv, &request, sizeof(request));
    T_EQ(request.result, 0);
}

/* ---- traffic ---- */

T_CONTRACT(xrc, send)
{
    /* A message goes to the SRQ that it names; its completion has the receiving queue pair's
     * number.
     */
    struct bed bed = bed_open(topology, "", false);
    struct pair *p = bed.p;
    static const uint32_t sizes[] = {0, 1, 32, 33, 1000, 20000};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        recv_by(p->b, &bed.b, 10 + i, p->rx, 20000);
        send_by(&bed,
                (struct ibv_send_wr){
                    .wr_id = i, .opcode = IBV_WR_SEND_WITH_IMM, .imm_data = htobe32(7)},
                bed.b.srqn, 100 * i, sizes[i]);
        e_done(p->a, i, IBV_WC_SEND);
        struct ibv_wc wc = e_got(p->b, 10 + i, IBV_WC_RECV, sizes[i]);
        T_EQ(wc.qp_num, bed.b.receiver_qpn);
        T_EQ(wc.wc_flags & IBV_WC_WITH_IMM, IBV_WC_WITH_IMM);
        T_EQ(be32toh(wc.imm_data), 7);
        e_same(p->b, p->rx, sizes[i], p->a, 100 * i);
    }
    bed_close(&bed);
}

T_CONTRACT(xrc, write_read_atomic)
{
    /* One-sided requests name an SRQ as well: its protection domain is what keys are checked for.
     */
    struct bed bed = bed_open(topology, "", false);
    struct pair *p = bed.p;
    struct ibv_send_wr wr = {.wr_id = 1, .opcode = IBV_WR_RDMA_WRITE};

    wr.wr.rdma.rkey = p->b->info.rkey;
    wr.wr.rdma.remote_addr = p->b->info.addr + p->rx;
    send_by(&bed, wr, bed.b.srqn, 64, 5000);
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    e_same(p->b, p->rx, 5000, p->a, 64);
    wr.opcode = IBV_WR_RDMA_READ;
    wr.wr.rdma.remote_addr = p->b->info.addr;
    send_by(&bed, wr, bed.b.srqn, p->rx, 3000);
    e_done(p->a, 1, IBV_WC_RDMA_READ);
    e_same(p->a, p->rx, 3000, p->b, 0);
    wr.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
    wr.wr.atomic.remote_addr = p->b->info.addr + p->rx + 8000;
    wr.wr.atomic.rkey = p->b->info.rkey;
    wr.wr.atomic.compare_add = 3;
    uint64_t before = 40, after;
    e_poke(p->b, p->rx + 8000, &before, 8);
    send_by(&bed, wr, bed.b.srqn, p->rx + 8000, 8);
    e_done(p->a, 1, IBV_WC_FETCH_ADD);
    e_peek(p->b, p->rx + 8000, &after, 8);
    T_EQ(after, 43);
    bed_close(&bed);
}

T_CONTRACT(xrc, write_with_immediate)
{
    /* The notice takes a receive of the SRQ. */
    struct bed bed = bed_open(topology, "", false);
    struct pair *p = bed.p;
    struct ibv_send_wr wr = {
        .wr_id = 1, .opcode = IBV_WR_RDMA_WRITE_WITH_IMM, .imm_data = htobe32(9)};

    wr.wr.rdma.rkey = p->b->info.rkey;
    wr.wr.rdma.remote_addr = p->b->info.addr + p->rx;
    recv_by(p->b, &bed.b, 20, p->rx + 8192, 64);
    send_by(&bed, wr, bed.b.srqn, 0, 100);
    e_done(p->a, 1, IBV_WC_RDMA_WRITE);
    T_EQ(e_got(p->b, 20, IBV_WC_RECV_RDMA_WITH_IMM, 100).qp_num, bed.b.receiver_qpn);
    e_same(p->b, p->rx, 100, p->a, 0);
    bed_close(&bed);
}

T_CONTRACT(xrc, empty_means_not_ready)
{
    /* An SRQ without a receive holds the sender up until there is one. */
    struct bed bed = bed_open(topology, "", false);
    struct pair *p = bed.p;

    send_by(&bed, (struct ibv_send_wr){.wr_id = 1, .opcode = IBV_WR_SEND}, bed.b.srqn, 0, 50);
    e_quiet(p->a, SEND_CQ);
    recv_by(p->b, &bed.b, 2, p->rx, 64);
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 2, IBV_WC_RECV, 50);
    bed_close(&bed);
}

static void batch(struct side *s, void *arg)
{
    struct request *request = arg;
    struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(request->qp);

    T_ASSERT(ex);
    ibv_wr_start(ex);
    for (uint64_t id = 1; id <= 2; id++) {
        ex->wr_id = id;
        ex->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_send(ex);
        ibv_wr_set_xrc_srqn(ex, request->wr.qp_type.xrc.remote_srqn);
        ibv_wr_set_sge(ex, s->info.lkey, s->info.addr + 64 * id, 40);
    }
    T_EQ(ibv_wr_complete(ex), 0);
}

T_CONTRACT(xrc, by_the_extended_calls)
{
    /* ibv_wr_set_xrc_srqn(3) */
    struct bed bed = bed_open(topology, "", true);
    struct request request = {.qp = bed.a.sender};
    struct pair *p = bed.p;

    request.wr.qp_type.xrc.remote_srqn = bed.b.srqn;
    recv_by(p->b, &bed.b, 1, p->rx, 64);
    recv_by(p->b, &bed.b, 2, p->rx + 64, 64);
    e_run(p->a, batch, &request, sizeof(request));
    for (uint64_t id = 1; id <= 2; id++) {
        e_done(p->a, id, IBV_WC_SEND);
        e_got(p->b, id, IBV_WC_RECV, 40);
        e_same(p->b, p->rx + 64 * (id - 1), 40, p->a, 64 * id);
    }
    bed_close(&bed);
}

/* ---- refusals ---- */

static struct ibv_wc refused(struct bed *bed, struct ibv_send_wr wr, uint32_t srqn)
{
    struct ibv_wc wc;

    send_by(bed, wr, srqn, 0, 100);
    wc = e_wait(bed->p->a, SEND_CQ);
    T_EQ(wc.wr_id, wr.wr_id);
    e_untouched_but(bed->p->b, 0, 0);
    e_run(bed->p->a, unmake, &bed->a, sizeof(bed->a));
    e_run(bed->p->b, unmake, &bed->b, sizeof(bed->b));
    pair_close_loose(bed->p);
    return wc;
}

T_CONTRACT(xrc_refuse, number_of_no_srq)
{
    /* The number of a queue pair, or of nothing, is no SRQ's: an invalid request. */
    struct bed bed = bed_open(topology, "", false);
    struct ibv_send_wr wr = {.wr_id = 5, .opcode = IBV_WR_SEND};

    T_EQ(refused(&bed, wr, bed.b.receiver_qpn).status, IBV_WC_REM_INV_REQ_ERR);
    bed = bed_open(topology, "", false);
    T_EQ(refused(&bed, wr, (bed.b.srqn + 500) & 0xffffff).status, IBV_WC_REM_INV_REQ_ERR);
}

T_CONTRACT(xrc_refuse, srq_of_another_domain)
{
    /* The sender's own SRQ is in another domain than the queue pair it is connected to. */
    struct bed bed = bed_open(topology, "", false);
    struct ibv_send_wr wr = {.wr_id = 5, .opcode = IBV_WR_SEND};

    recv_by(bed.p->a, &bed.a, 1, bed.p->rx, 128);
    T_EQ(refused(&bed, wr, bed.a.srqn).status, IBV_WC_REM_INV_REQ_ERR);
}

T_CONTRACT(xrc_refuse, key_of_another_protection_domain)
{
    struct bed bed = bed_open(topology, "", false);
    struct reg reg = {.slot = 0, .len = 4096, .access = ACCESS_ALL, .other_pd = true};
    struct ibv_send_wr wr = {.wr_id = 5, .opcode = IBV_WR_RDMA_WRITE};

    e_reg(bed.p->b, &reg);
    wr.wr.rdma.rkey = reg.rkey;
    wr.wr.rdma.remote_addr = bed.p->b->info.addr;
    T_EQ(refused(&bed, wr, bed.b.srqn).status, IBV_WC_REM_ACCESS_ERR);
}

static void no_queue(struct side *s, void *arg)
{
    struct xrc *xrc = arg;
    struct ibv_sge sge = {s->info.addr, 8, s->info.lkey};
    struct ibv_recv_wr recv = {.sg_list = &sge, .num_sge = 1}, *bad_recv;
    struct ibv_send_wr send = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND}, *bad_send;

    T_EQ(ibv_post_recv(xrc->sender, &recv, &bad_recv), EINVAL);
    T_EQ(ibv_post_recv(xrc->receiver, &recv, &bad_recv), EINVAL);
    T_EQ(ibv_post_send(xrc->receiver, &send, &bad_send), EINVAL);
}

T_CONTRACT(xrc_refuse, what_they_have_no_queue_for)
{
    /* Neither takes receives, and the receiving one no sends. */
    struct bed bed = bed_open(topology, "", false);

    e_run(bed.p->b, no_queue, &bed.b, sizeof(bed.b));
    bed_close(&bed);
}

/* ---- domains that belong to a file ---- */

static void temporary(char path[64])
{
    snprintf(path, 64, "%s", "/tmp/xrcd.XXXXXX");
    int fd = mkstemp(path);
    T_ASSERT(fd >= 0);
    close(fd);
}

T_CONTRACT(xrc_shared, srq_of_the_other_side)
{
    /*
     * Both sides open the domain of one file. What comes in by b's queue pair may be for an SRQ of
     * a's: there it is received, with a's keys, and completed.
     */
    char path[64];
    temporary(path);
    struct bed bed = bed_open(topology, path, false);
    struct pair *p = bed.p;

    recv_by(p->a, &bed.a, 30, p->rx, 20000);
    send_by(&bed, (struct ibv_send_wr){.wr_id = 1, .opcode = IBV_WR_SEND}, bed.a.srqn, 10, 9000);
    e_done(p->a, 1, IBV_WC_SEND);
    T_EQ(e_got(p->a, 30, IBV_WC_RECV, 9000).qp_num, bed.b.receiver_qpn);
    e_same(p->a, p->rx, 9000, p->a, 10);
    recv_by(p->b, &bed.b, 31, p->rx, 64);
    send_by(&bed, (struct ibv_send_wr){.wr_id = 2, .opcode = IBV_WR_SEND}, bed.b.srqn, 10, 20);
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 31, IBV_WC_RECV, 20);
    bed_close(&bed);
    unlink(path);
}

T_CONTRACT(xrc_shared, memory_of_the_other_side)
{
    /* One-sided requests that name a's SRQ, though they come in by b: it is a's memory, a's keys.
     */
    char path[64];
    temporary(path);
    struct bed bed = bed_open(topology, path, false);
    struct pair *p = bed.p;
    struct ibv_send_wr wr = {.wr_id = 1, .opcode = IBV_WR_RDMA_WRITE};
    uint64_t before = 40, after;

    wr.wr.rdma.rkey = p->a->info.rkey;
    wr.wr.rdma.remote_addr = p->a->info.addr + p->rx + 3;
    for (uint32_t length = 1; length <= 9000; length = length * 5 + 7) {
        send_by(&bed, wr, bed.a.srqn, 64, length);
        e_done(p->a, 1, IBV_WC_RDMA_WRITE);
        e_same(p->a, p->rx + 3, length, p->a, 64);
    }
    wr.opcode = IBV_WR_RDMA_READ;
    wr.wr.rdma.remote_addr = p->a->info.addr + 5;
    send_by(&bed, wr, bed.a.srqn, p->rx, 9000);
    e_done(p->a, 1, IBV_WC_RDMA_READ);
    e_same(p->a, p->rx, 9000, p->a, 5);
    wr.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
    wr.wr.atomic.remote_addr = p->a->info.addr + p->rx;
    wr.wr.atomic.rkey = p->a->info.rkey;
    wr.wr.atomic.compare_add = before;
    wr.wr.atomic.swap = 77;
    e_poke(p->a, p->rx, &before, 8);
    send_by(&bed, wr, bed.a.srqn, p->rx + 8, 8);
    e_done(p->a, 1, IBV_WC_COMP_SWAP);
    e_peek(p->a, p->rx, &after, 8);
    T_EQ(after, 77);
    e_peek(p->a, p->rx + 8, &after, 8);
    T_EQ(after, before);
    bed_close(&bed);
    unlink(path);
}

static int try_open(struct end *e, struct xrc *xrc, int oflags)
{
    xrc->oflags = oflags;
    e_run(e, open_domain, xrc, sizeof(*xrc));
    return xrc->error;
}

T_CONTRACT(xrc_shared, opening_rules)
{
    /* ibv_open_xrcd(3): O_CREAT makes it if it is not there, O_EXCL wants to be the first. */
    struct pair *p = pair_open(topology, &opt);
    struct xrc a = {.path = ""}, b, again;
    bool has_xrc = false;

    e_run(p->a, need_xrc, &has_xrc, sizeof(has_xrc));
    if (!has_xrc)
        T_SKIP("the device has no XRC");
    temporary(a.path);
    b = again = a;
    T_EQ(try_open(p->b, &b, O_RDWR), EAGAIN);
    T_EQ(try_open(p->a, &a, O_CREAT | O_EXCL), 0);
    T_EQ(try_open(p->b, &b, O_CREAT | O_EXCL), EINVAL);
    T_EQ(try_open(p->b, &b, O_RDWR), 0);
    e_run(p->a, close_domain, &a, sizeof(a));
    T_EQ(try_open(p->a, &again, O_RDWR), 0); /* b has it still */
    e_run(p->b, close_domain, &b, sizeof(b));
    e_run(p->a, close_domain, &again, sizeof(again));
    T_EQ(try_open(p->b, &b, O_RDWR), EAGAIN);
    unlink(a.path);
    pair_close(p);
}

/* ---- one side ---- */

static struct side *open_side(void)
{
    struct side *s = side_open(&opt, NULL);
    bool has_xrc = false;

    need_xrc(s, &has_xrc);
    if (!has_xrc)
        T_SKIP("the device has no XRC");
    return s;
}

T_TEST(xrc_domain, bad_descriptors)
{
    struct side *s = open_side();
    struct ibv_xrcd_init_attr attr = {.comp_mask =
                                          IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                      .fd = 1 << 20,
                                      .oflags = O_CREAT};

    T_ASSERT(!ibv_open_xrcd(s->ctx, &attr));
    T_EQ(errno, EBADF);
    attr.comp_mask = IBV_XRCD_INIT_ATTR_FD;
    T_ASSERT(!ibv_open_xrcd(s->ctx, &attr));
    T_EQ(errno, EINVAL);
    side_close(s, true);
}

static struct ibv_qp *open_again(struct side *s, const struct xrc *xrc, uint32_t qpn)
{
    struct ibv_qp_open_attr attr = {.comp_mask = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD |
                                                 IBV_QP_OPEN_ATTR_TYPE,
                                    .qp_num = qpn,
                                    .xrcd = xrc->xrcd,
                                    .qp_type = IBV_QPT_XRC_RECV};

    return ibv_open_qp(s->ctx, &attr);
}

T_TEST(xrc_domain, queue_pair_with_two_handles)
{
    /* ibv_open_qp(3): the queue pair lives until both are destroyed. */
    struct side *s = open_side();
    struct xrc xrc = {.oflags = O_CREAT};
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};

    make(s, &xrc);
    T_ASSERT(!open_again(s, &xrc, xrc.sender_qpn));
    T_EQ(errno, EINVAL);
    struct ibv_qp *second = open_again(s, &xrc, xrc.receiver_qpn);
    T_ASSERT(second, "ibv_open_qp: %s", strerror(errno));
    T_EQ(second->qp_num, xrc.receiver_qpn);
    T_EQ(ibv_modify_qp(second, &attr,
                       IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS),
         0);
    T_EQ(qp_state(xrc.receiver), IBV_QPS_INIT);
    T_EQ(ibv_destroy_qp(xrc.receiver), 0);
    xrc.receiver = NULL;
    T_EQ(qp_state(second), IBV_QPS_INIT);
    struct ibv_qp *third = open_again(s, &xrc, xrc.receiver_qpn);
    T_ASSERT(third);
    T_EQ(ibv_destroy_qp(second), 0);
    T_EQ(ibv_destroy_qp(third), 0);
    T_ASSERT(!open_again(s, &xrc, xrc.receiver_qpn));
    unmake(s, &xrc);
    side_close(s, true);
}

T_TEST(xrc_domain, srq_is_not_for_other_types)
{
    /* A queue pair of another type can't receive from an XRC SRQ. */
    struct side *s = open_side();
    struct xrc xrc = {.oflags = O_CREAT};
    struct ibv_qp_init_attr attr = {.send_cq = s->send_cq,
                                    .recv_cq = s->recv_cq,
                                    .cap = {.max_send_wr = 1, .max_send_sge = 1},
                                    .qp_type = IBV_QPT_RC};

    make(s, &xrc);
    attr.srq = xrc.srq;
    T_ASSERT(!ibv_create_qp(s->pd, &attr));
    T_EQ(errno, EINVAL);
    unmake(s, &xrc);
    side_close(s, true);
}
