/* SPDX-License-Identifier: MIT */
/*
 * talk GID-INDEX - sends one request of each kind between two queue pairs of each transport, and
 * says of each, one a line, what a capture must show. Judge.py reads that.
 */
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUFFER = 65536,
    THERE = BUFFER / 2, /* where the target's half begins */
    SQ_PSN = 0xfffffa,  /* soon wraps */
    QKEY = 0x11223344,
    MTU = 1024,
    RECEIVES = 16,
};

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *send_cq, *recv_cq;
static struct ibv_mr *mr;
static struct ibv_xrcd *xrcd;
static struct ibv_srq *srq;
static struct ibv_ah *ah;
static union ibv_gid gid;
static int gid_index;
static uint8_t *buffer;

struct ends {
    const char *name;
    enum ibv_qp_type type;
    struct ibv_qp *from, *to;
    uint32_t srqn;
};

static void *need(void *pointer, const char *what)
{
    if (!pointer) {
        fprintf(stderr, "talk: %s: %s\n", what, strerror(errno));
        exit(1);
    }
    return pointer;
}

static void good(int error, const char *what)
{
    if (error) {
        fprintf(stderr, "talk: %s: %s\n", what, strerror(error));
        exit(1);
    }
}

/* ---- objects ---- */

static void open_device(void)
{
    struct ibv_device **list = ibv_get_device_list(NULL);

    context = need(ibv_open_device(need(list ? list[0] : NULL, "no device")), "open");
    ibv_free_device_list(list);
    pd = need(ibv_alloc_pd(context), "pd");
    buffer = need(aligned_alloc(4096, BUFFER), "memory");
    for (int i = 0; i < BUFFER; i++)
        buffer[i] = (uint8_t)(i * 7 + i / 256);
    mr = need(ibv_reg_mr(pd, buffer, BUFFER,
                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                             IBV_ACCESS_REMOTE_ATOMIC),
              "region");
    send_cq = need(ibv_create_cq(context, 64, NULL, NULL, 0), "cq");
    recv_cq = need(ibv_create_cq(context, 64, NULL, NULL, 0), "cq");
    good(ibv_query_gid(context, 1, gid_index, &gid), "gid");
}

static void open_xrc(void)
{
    struct ibv_xrcd_init_attr domain = {.comp_mask =
                                            IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS,
                                        .fd = -1,
                                        .oflags = O_CREAT};
    struct ibv_srq_init_attr_ex attr = {.attr = {.max_wr = RECEIVES, .max_sge = 1},
                                        .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD |
                                                     IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ,
                                        .srq_type = IBV_SRQT_XRC,
                                        .pd = pd,
                                        .cq = recv_cq};

    attr.xrcd = xrcd = need(ibv_open_xrcd(context, &domain), "xrcd");
    srq = need(ibv_create_srq_ex(context, &attr), "srq");
}

static struct ibv_qp *make_qp(enum ibv_qp_type type)
{
    struct ibv_qp_init_attr_ex attr = {.qp_type = type,
                                       .send_cq = send_cq,
                                       .recv_cq = recv_cq,
                                       .cap = {.max_send_wr = 32,
                                               .max_recv_wr = RECEIVES,
                                               .max_send_sge = 2,
                                               .max_recv_sge = 1,
                                               .max_inline_data = 64},
                                       .comp_mask = IBV_QP_INIT_ATTR_PD,
                                       .pd = pd};

    if (type == IBV_QPT_XRC_RECV)
        attr = (struct ibv_qp_init_attr_ex){
            .qp_type = type, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = xrcd};
    return need(ibv_create_qp_ex(context, &attr), "qp");
}

static void to_init(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = 1,
                               .qkey = QKEY,
                               .qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                                                  IBV_ACCESS_REMOTE_ATOMIC};
    bool ud = qp->qp_type == IBV_QPT_UD;

    good(ibv_modify_qp(qp, &attr,
                       IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
                           (ud ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS)),
         "init");
}

static void connect_qp(struct ibv_qp *qp, uint32_t to, uint32_t sq_psn, uint32_t rq_psn)
{
    bool ud = qp->qp_type == IBV_QPT_UD, uc = qp->qp_type == IBV_QPT_UC;
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = IBV_MTU_1024,
        .dest_qp_num = to,
        .rq_psn = rq_psn,
        .max_dest_rd_atomic = 4,
        .min_rnr_timer = 12,
        .ah_attr = {.is_global = 1,
                    .port_num = 1,
                    .grh = {.dgid = gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 64}}};
    int connected = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
    int reliable = IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;

    good(ibv_modify_qp(qp, &attr,
                       IBV_QP_STATE | (ud   ? 0
                                       : uc ? connected
                                            : connected | reliable)),
         "rtr");
    if (qp->qp_type == IBV_QPT_XRC_RECV)
        return;
    attr = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS,
                                .sq_psn = sq_psn,
                                .timeout = 14,
                                .retry_cnt = 7,
                                .rnr_retry = 7,
                                .max_rd_atomic = 4};
    reliable = IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
    good(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN | (ud || uc ? 0 : reliable)), "rts");
}

static struct ends make_ends(const char *name, enum ibv_qp_type from, enum ibv_qp_type to)
{
    struct ends ends = {.name = name, .type = from, .from = make_qp(from), .to = make_qp(to)};

    to_init(ends.from);
    to_init(ends.to);
    connect_qp(ends.to, ends.from->qp_num, 100, SQ_PSN);
    connect_qp(ends.from, ends.to->qp_num, SQ_PSN, 100);
    if (from == IBV_QPT_XRC_SEND)
        good(ibv_get_srq_num(srq, &ends.srqn), "srq number");
    return ends;
}

/* ---- requests ---- */

static void post_recv(const struct ends *ends)
{
    struct ibv_sge sge = {(uintptr_t)buffer + THERE + 16384, 8192, mr->lkey};
    struct ibv_recv_wr wr = {.sg_list = &sge, .num_sge = 1}, *bad;

    if (ends->type == IBV_QPT_XRC_SEND)
        good(ibv_post_srq_recv(srq, &wr, &bad), "post receive");
    else
        good(ibv_post_recv(ends->to, &wr, &bad), "post receive");
}

static enum ibv_wc_status wait_for(struct ibv_cq *cq)
{
    struct ibv_wc wc;
    int count;

    while ((count = ibv_poll_cq(cq, 1, &wc)) == 0)
        ;
    if (count < 0)
        good(EIO, "poll");
    return wc.status;
}

struct plan {
    const char *op;
    enum ibv_wr_opcode opcode;
    uint32_t length;
    unsigned flags;
    bool receives, refused;
};

static void say(const struct ends *ends, const struct ibv_send_wr *wr, const struct plan *plan,
                const uint8_t *data)
{
    bool atomic =
        wr->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || wr->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;

    printf("%s %s from=%u to=%u srqn=%u psn=%u mtu=%u length=%u va=%" PRIu64 " rkey=%u imm=%u "
           "solicited=%d refused=%d compare=%" PRIu64 " swap=%" PRIu64 " data=",
           ends->name, plan->op, ends->from->qp_num, ends->to->qp_num, ends->srqn, (unsigned)SQ_PSN,
           (unsigned)MTU, plan->length,
           atomic ? wr->wr.atomic.remote_addr : wr->wr.rdma.remote_addr,
           atomic ? wr->wr.atomic.rkey : wr->wr.rdma.rkey, be32toh(wr->imm_data),
           wr->send_flags & IBV_SEND_SOLICITED ? 1 : 0, plan->refused,
           atomic ? wr->wr.atomic.compare_add : 0, atomic ? wr->wr.atomic.swap : 0);
    for (uint32_t i = 0; i < plan->length; i++)
        printf("%02x", data[i]);
    putchar('\n');
}

static void carry_out(const struct ends *ends, const struct plan *plan)
{
    uint32_t first = plan->length / 3;
    struct ibv_sge sges[2] = {{(uintptr_t)buffer + 512, first, mr->lkey},
                              {(uintptr_t)buffer + 8192, plan->length - first, mr->lkey}};
    struct ibv_send_wr wr = {.sg_list = sges,
                             .num_sge = 2,
                             .opcode = plan->opcode,
                             .send_flags = plan->flags | IBV_SEND_SIGNALED,
                             .imm_data = htobe32(0x01020304)},
                       *bad;
    uint8_t *data = need(malloc(plan->length + 1), "memory");

    if (plan->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || plan->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = (uintptr_t)buffer + THERE;
        wr.wr.atomic.rkey = mr->rkey;
        wr.wr.atomic.compare_add = 5;
        wr.wr.atomic.swap = 77;
    } else if (ends->type == IBV_QPT_UD) {
        wr.wr.ud.ah = ah;
        wr.wr.ud.remote_qpn = ends->to->qp_num;
        wr.wr.ud.remote_qkey = QKEY;
    } else {
        wr.wr.rdma.remote_addr = (uintptr_t)buffer + THERE + 8;
        wr.wr.rdma.rkey = mr->rkey;
    }
    wr.qp_type.xrc.remote_srqn = ends->srqn;
    wr.wr.rdma.rkey += plan->refused;
    if (plan->receives)
        post_recv(ends);
    good(ibv_post_send(ends->from, &wr, &bad), plan->op);
    enum ibv_wc_status wanted = plan->refused ? IBV_WC_REM_ACCESS_ERR : IBV_WC_SUCCESS;
    if (wait_for(send_cq) != wanted || (plan->receives && wait_for(recv_cq)))
        good(EIO, plan->op);
    memcpy(data, buffer + 512, first);
    memcpy(data + first, buffer + 8192, plan->length - first);
    if (ends->type == IBV_QPT_UD)
        wr.wr.rdma.remote_addr = 0, wr.wr.rdma.rkey = QKEY;
    say(ends, &wr, plan, data);
    free(data);
}

static void talk(const char *name, enum ibv_qp_type from, enum ibv_qp_type to)
{
    static const struct plan plans[] = {
        {"SEND", IBV_WR_SEND, 0, 0, true, false},
        {"SEND", IBV_WR_SEND, 9, IBV_SEND_INLINE, true, false},
        {"SEND_IMM", IBV_WR_SEND_WITH_IMM, 1000, IBV_SEND_SOLICITED, true, false},
        {"SEND", IBV_WR_SEND, 1024, 0, true, false}, /* the last for datagrams */
        {"SEND", IBV_WR_SEND, 3001, IBV_SEND_SOLICITED, true, false},
        {"SEND_IMM", IBV_WR_SEND_WITH_IMM, 2048, 0, true, false},
        {"WRITE", IBV_WR_RDMA_WRITE, 0, 0, false, false},
        {"WRITE", IBV_WR_RDMA_WRITE, 700, 0, false, false},
        {"WRITE", IBV_WR_RDMA_WRITE, 4095, 0, false, false},
        {"WRITE_IMM", IBV_WR_RDMA_WRITE_WITH_IMM, 5, IBV_SEND_SOLICITED, true, false},
        {"WRITE_IMM", IBV_WR_RDMA_WRITE_WITH_IMM, 2000, 0, true, false}, /* the last for UC */
        {"READ", IBV_WR_RDMA_READ, 0, 0, false, false},
        {"READ", IBV_WR_RDMA_READ, 33, 0, false, false},
        {"READ", IBV_WR_RDMA_READ, 3500, 0, false, false},
        {"COMPARE_SWAP", IBV_WR_ATOMIC_CMP_AND_SWP, 8, 0, false, false},
        {"FETCH_ADD", IBV_WR_ATOMIC_FETCH_AND_ADD, 8, 0, false, false},
        {"WRITE", IBV_WR_RDMA_WRITE, 900, 0, false, true}, /* and no more */
    };
    size_t count = from == IBV_QPT_UD   ? 4
                   : from == IBV_QPT_UC ? 11
                                        : sizeof(plans) / sizeof(plans[0]);
    struct ends ends = make_ends(name, from, to);

    /* An empty datagram tshark calls malformed. */
    for (size_t i = from == IBV_QPT_UD; i < count; i++)
        carry_out(&ends, &plans[i]);
    good(ibv_destroy_qp(ends.from), "destroy");
    good(ibv_destroy_qp(ends.to), "destroy");
}

int main(int argc, char **argv)
{
    gid_index = argc > 1 ? atoi(argv[1]) : 0;
    open_device();
    open_xrc();
    struct ibv_ah_attr to = {
        .is_global = 1,
        .port_num = 1,
        .grh = {.dgid = gid, .sgid_index = (uint8_t)gid_index, .hop_limit = 64}};
    ah = need(ibv_create_ah(pd, &to), "address handle");
    talk("RC", IBV_QPT_RC, IBV_QPT_RC);
    talk("UC", IBV_QPT_UC, IBV_QPT_UC);
    talk("UD", IBV_QPT_UD, IBV_QPT_UD);
    talk("XRC", IBV_QPT_XRC_SEND, IBV_QPT_XRC_RECV);
    return 0;
}
