/* SPDX-License-Identifier: MIT */
/*
 * What was once broken on the wire alone. The test's own network has two NICs: via0, with two
 * addresses, and via1, on another interface (the script `wire` beside this file).
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <string.h>

#include "ends.h"

/* ---- the path of a queue pair ---- */

static void second_gid(struct side *s, void *arg)
{
    static const union ibv_gid second = {.raw = {[10] = 0xff, 0xff, 127, 0, 0, 2}};
    struct ibv_global_route *grh = arg;

    do
        T_EQ(ibv_query_gid(s->ctx, 1, ++grh->sgid_index, &grh->dgid), 0);
    while (memcmp(&grh->dgid, &second, sizeof(second)));
}

/* From its second address to the other's second one. */
static int move(struct end *e)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;

    e_query(e, 0, &attr, &init);
    attr.qp_state = IBV_QPS_SQD;
    e_run(e, second_gid, &attr.ah_attr.grh, sizeof(attr.ah_attr.grh));
    return e_modify(e, 0, &attr, IBV_QP_STATE | IBV_QP_AV);
}

T_TEST(path, changes_in_sqd)
{
    /* Shows that a path given in SQD is the one in use: half a change cuts the connection. */
    struct side_opt opt = {.timeout = 8, .retry_cnt = 1};
    struct pair *p = pair_open(TWO_PROCESSES, NULL);

    pair_works(p, 0);
    for (int i = 0; i < 2; i++)
        T_EQ(e_to_state(&p->end[i], 0, IBV_QPS_SQD), 0);
    T_EQ(move(p->a), 0);
    T_EQ(move(p->b), 0);
    for (int i = 0; i < 2; i++)
        T_EQ(e_to_state(&p->end[i], 0, IBV_QPS_RTS), 0);
    pair_works(p, 0);
    pair_close(p);

    p = pair_open(TWO_PROCESSES, &opt);
    T_EQ(e_to_state(p->b, 0, IBV_QPS_SQD), 0);
    T_EQ(move(p->b), 0);
    e_recv(p->b, &(struct post){.id = 2, .off = p->rx, .len = 64});
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8});
    e_expect(p->a, SEND_CQ, 1, IBV_WC_RETRY_EXC_ERR);
    pair_close_loose(p);
}

/* ---- groups ---- */

enum { QKEY = 0x1234, GRH = 40, SIZE = 256 };

/* A UD queue pair of one NIC, ready, and in the group. */
struct member {
    struct ibv_context *ctx;
    struct ibv_pd *pd;
    struct ibv_cq *cq;
    struct ibv_mr *mr;
    struct ibv_qp *qp;
    uint8_t bytes[SIZE];
};

static union ibv_gid group_of(uint8_t high, uint8_t low)
{
    return (union ibv_gid){.raw = {[10] = 0xff, 0xff, 239, 9, high, low}};
}

static struct ibv_context *open_nic(const char *name)
{
    int count;
    struct ibv_device **list = ibv_get_device_list(&count);
    struct ibv_context *ctx = NULL;

    for (int i = 0; i < count; i++)
        if (!strcmp(ibv_get_device_name(list[i]), name))
            ctx = ibv_open_device(list[i]);
    ibv_free_device_list(list);
    T_ASSERT(ctx, "no %s", name);
    return ctx;
}

static void make_ready(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY};

    T_EQ(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), 0);
    attr.qp_state = IBV_QPS_RTR;
    T_EQ(ibv_modify_qp(qp, &attr, IBV_QP_STATE), 0);
    attr.qp_state = IBV_QPS_RTS;
    T_EQ(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN), 0);
}

static void member_open(struct member *m, const char *nic)
{
    m->ctx = open_nic(nic);
    m->pd = ibv_alloc_pd(m->ctx);
    m->cq = ibv_create_cq(m->ctx, 16, NULL, NULL, 0);
    m->mr = ibv_reg_mr(m->pd, m->bytes, SIZE, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_qp_init_attr init = {
        .send_cq = m->cq,
        .recv_cq = m->cq,
        .qp_type = IBV_QPT_UD,
        .cap = {.max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 1, .max_recv_sge = 1}};
    m->qp = ibv_create_qp(m->pd, &init);
    T_ASSERT(m->qp && m->mr);
    make_ready(m->qp);
}

static void member_close(struct member *m)
{
    T_EQ(ibv_destroy_qp(m->qp), 0);
    T_EQ(ibv_dereg_mr(m->mr), 0);
    T_EQ(ibv_destroy_cq(m->cq), 0);
    T_EQ(ibv_dealloc_pd(m->pd), 0);
    T_EQ(ibv_close_device(m->ctx), 0);
}

/* Its completion is the sender's, then the one that it hears itself. */
static void hears_itself(struct member *m, union ibv_gid group, uint32_t imm)
{
    struct ibv_ah_attr to = {.is_global = 1, .port_num = 1, .grh = {.dgid = group, .hop_limit = 1}};
    struct ibv_ah *ah = ibv_create_ah(m->pd, &to);
    struct ibv_sge sge = {(uintptr_t)m->bytes, SIZE, m->mr->lkey};
    struct ibv_recv_wr *bad_recv, recv = {.sg_list = &sge, .num_sge = 1};
    struct ibv_send_wr *bad, send = {.opcode = IBV_WR_SEND_WITH_IMM,
                                     .send_flags = IBV_SEND_SIGNALED,
                                     .imm_data = imm,
                                     .wr.ud = {ah, 0xffffff, QKEY}};

    T_ASSERT(ah);
    T_EQ(ibv_post_recv(m->qp, &recv, &bad_recv), 0);
    T_EQ(ibv_post_send(m->qp, &send, &bad), 0);
    T_EQ(cq_wait(m->cq).opcode, IBV_WC_SEND);
    struct ibv_wc wc = cq_wait(m->cq);
    T_EQ(wc.status, IBV_WC_SUCCESS);
    T_EQ(wc.imm_data, imm);
    T_EQ(wc.byte_len, GRH);
    ibv_destroy_ah(ah);
}

T_TEST(group, networks_are_separate)
{
    /*
     * Shows that members of one group on two networks hear their own network, and not the other
     * one: what each hears first is its own message, which was sent after the other one's.
     */
    struct member a, b;
    union ibv_gid group = group_of(1, 1);

    member_open(&a, "via0");
    member_open(&b, "via1");
    T_EQ(ibv_attach_mcast(a.qp, &group, 0), 0);
    T_EQ(ibv_attach_mcast(b.qp, &group, 0), 0);
    for (uint32_t i = 0; i < 10; i++) {
        hears_itself(&a, group, 2 * i);
        hears_itself(&b, group, 2 * i + 1);
    }
    T_EQ(ibv_detach_mcast(a.qp, &group, 0), 0);
    hears_itself(&b, group, 100);
    T_EQ(ibv_detach_mcast(b.qp, &group, 0), 0);
    member_close(&a);
    member_close(&b);
}

static int descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    T_ASSERT(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

T_TEST(group, left_is_left)
{
    /* Shows that groups that were left cost nothing, and can be joined again. */
    struct member m;
    union ibv_gid group = group_of(2, 0);

    member_open(&m, "via1");
    T_EQ(ibv_attach_mcast(m.qp, &group, 0), 0);
    hears_itself(&m, group, 6);
    T_EQ(ibv_detach_mcast(m.qp, &group, 0), 0);
    int before = descriptors();
    for (int i = 0; i < 200; i++) {
        group = group_of(2, (uint8_t)i);
        T_EQ(ibv_attach_mcast(m.qp, &group, 0), 0);
        if (i % 20 == 0)
            hears_itself(&m, group, 7);
        T_EQ(ibv_detach_mcast(m.qp, &group, 0), 0);
    }
    T_EQ(descriptors(), before);
    group = group_of(2, 0);
    T_EQ(ibv_attach_mcast(m.qp, &group, 0), 0);
    hears_itself(&m, group, 8);
    T_EQ(ibv_detach_mcast(m.qp, &group, 0), 0);
    member_close(&m);
}
