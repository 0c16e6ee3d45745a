/* SPDX-License-Identifier: MIT */
/* Protection domains, address handles, and the rule that nothing in use can be destroyed. */
#include "side.h"

static struct side *plain_side(void)
{
    return side_open(&(struct side_opt){.qps = ZERO}, NULL);
}

T_TEST(pd, many_at_once)
{
    /* Protection domains are cheap, distinct objects. */
    struct ibv_context *ctx = device_open();
    struct ibv_pd *pd[100];

    for (int i = 0; i < 100; i++) {
        pd[i] = ibv_alloc_pd(ctx);
        T_ASSERT(pd[i] != NULL);
        T_ASSERT(i == 0 || pd[i]->handle != pd[i - 1]->handle);
    }
    for (int i = 0; i < 100; i++) {
        T_EQ(ibv_dealloc_pd(pd[i]), 0);
    }
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(pd, busy_with_a_region)
{
    /* A domain with a memory region in it stays (IBTA 11.2.1.5), and goes when the region is gone.
     */
    struct side *s = plain_side();
    struct ibv_pd *pd = ibv_alloc_pd(s->ctx);
    struct ibv_mr *mr = ibv_reg_mr(pd, s->buf, 4096, IBV_ACCESS_LOCAL_WRITE);

    T_ASSERT(mr != NULL);
    T_EQ(ibv_dealloc_pd(pd), EBUSY);
    T_EQ(ibv_dereg_mr(mr), 0);
    T_EQ(ibv_dealloc_pd(pd), 0);
    side_close(s, true);
}

T_TEST(pd, busy_with_a_window)
{
    /* The same for a memory window. */
    struct side *s = plain_side();
    struct ibv_pd *pd = ibv_alloc_pd(s->ctx);
    struct ibv_mw *mw = ibv_alloc_mw(pd, IBV_MW_TYPE_1);

    T_ASSERT(mw != NULL);
    T_EQ(ibv_dealloc_pd(pd), EBUSY);
    T_EQ(ibv_dealloc_mw(mw), 0);
    T_EQ(ibv_dealloc_pd(pd), 0);
    side_close(s, true);
}

T_TEST(pd, busy_with_a_queue_pair)
{
    /* The same for a queue pair. */
    struct side *s = plain_side();
    struct ibv_pd *pd = ibv_alloc_pd(s->ctx);
    struct ibv_qp_init_attr attr = {
        .send_cq = s->send_cq,
        .recv_cq = s->recv_cq,
        .cap = {1, 1, 1, 1, 0},
        .qp_type = IBV_QPT_RC,
    };
    struct ibv_qp *qp = ibv_create_qp(pd, &attr);

    T_ASSERT(qp != NULL);
    T_EQ(ibv_dealloc_pd(pd), EBUSY);
    T_EQ(ibv_destroy_qp(qp), 0);
    T_EQ(ibv_dealloc_pd(pd), 0);
    side_close(s, true);
}

T_TEST(pd, busy_with_a_shared_receive_queue)
{
    /* The same for an SRQ. */
    struct side *s = plain_side();
    struct ibv_pd *pd = ibv_alloc_pd(s->ctx);
    struct ibv_srq_init_attr attr = {.attr = {.max_wr = 4, .max_sge = 1}};
    struct ibv_srq *srq = ibv_create_srq(pd, &attr);

    T_ASSERT(srq != NULL);
    T_EQ(ibv_dealloc_pd(pd), EBUSY);
    T_EQ(ibv_destroy_srq(srq), 0);
    T_EQ(ibv_dealloc_pd(pd), 0);
    side_close(s, true);
}

T_TEST(pd, busy_with_an_address_handle)
{
    /* The same for an address handle. */
    struct side *s = plain_side();
    struct ibv_pd *pd = ibv_alloc_pd(s->ctx);
    struct ibv_ah_attr attr = side_ah_attr(&s->info);
    struct ibv_ah *ah = ibv_create_ah(pd, &attr);

    T_ASSERT(ah != NULL);
    T_EQ(ibv_dealloc_pd(pd), EBUSY);
    T_EQ(ibv_destroy_ah(ah), 0);
    T_EQ(ibv_dealloc_pd(pd), 0);
    side_close(s, true);
}

T_TEST(busy, completion_queue_with_queue_pair)
{
    /* A CQ that a queue pair reports to is not destroyed (ibv_create_cq(3)), nor damaged by the
     * try. */
    struct side *s = side_open(NULL, NULL);

    T_EQ(ibv_destroy_cq(s->send_cq), EBUSY);
    T_EQ(ibv_destroy_cq(s->recv_cq), EBUSY);
    side_connect(s, 0, &s->info, 0);
    T_EQ(qp_state(s->qp[0]), IBV_QPS_RTS);
    side_close(s, true);
}

T_TEST(busy, shared_receive_queue_with_queue_pair)
{
    /* An SRQ that a queue pair draws from is not destroyed (ibv_create_srq(3)). */
    struct side *s = side_open(&(struct side_opt){.use_srq = true}, NULL);

    T_EQ(ibv_destroy_srq(s->srq), EBUSY);
    side_close(s, true);
}

T_TEST(busy, channel_with_completion_queue)
{
    /* A completion channel that a CQ uses is not destroyed (ibv_create_comp_channel(3)). */
    struct side *s = side_open(&(struct side_opt){.events = true}, NULL);

    T_EQ(ibv_destroy_comp_channel(s->channel), EBUSY);
    side_close(s, true);
}

/* --- address handles ----------------------------------------------------------------------------
 */

T_TEST(ah, many_to_one_address)
{
    /* Several handles may name one destination, and each is freed once. */
    struct side *s = plain_side();
    struct ibv_ah_attr attr = side_ah_attr(&s->info);
    struct ibv_ah *ah[50];

    for (int i = 0; i < 50; i++) {
        ah[i] = ibv_create_ah(s->pd, &attr);
        T_ASSERT(ah[i] != NULL, "%d: %s", i, strerror(errno));
        T_ASSERT(ah[i]->pd == s->pd && ah[i]->context == s->ctx);
    }
    for (int i = 0; i < 50; i++) {
        T_EQ(ibv_destroy_ah(ah[i]), 0);
    }
    side_close(s, true);
}

static void ah_refused(struct side *s, const struct ibv_ah_attr *attr, const char *why)
{
    struct ibv_ah_attr copy = *attr;
    struct ibv_ah *ah;

    errno = 0;
    ah = ibv_create_ah(s->pd, &copy);
    T_ASSERT(ah == NULL, "an address handle with %s", why);
    T_EQ(errno, EINVAL);
}

T_TEST(ah, needs_a_global_route)
{
    /* On RoCE the GRH is mandatory (IBTA annex A16, IBV_QPF_GRH_REQUIRED): without it EINVAL. */
    struct side *s = plain_side();
    struct ibv_ah_attr attr = side_ah_attr(&s->info);

    attr.is_global = 0;
    ah_refused(s, &attr, "no GRH");
    side_close(s, true);
}

T_TEST(ah, port_must_exist)
{
    /* Port 0 and a port beyond the last are refused. */
    struct side *s = plain_side();
    struct ibv_ah_attr attr = side_ah_attr(&s->info);

    attr.port_num = 0;
    ah_refused(s, &attr, "port 0");
    attr.port_num = 2;
    ah_refused(s, &attr, "port 2");
    side_close(s, true);
}

T_TEST(ah, source_gid_must_exist)
{
    /* A source GID index without an entry is refused. */
    struct side *s = plain_side();
    struct ibv_ah_attr attr = side_ah_attr(&s->info);

    attr.grh.sgid_index = 255;
    errno = 0;
    T_ASSERT(ibv_create_ah(s->pd, &attr) == NULL);
    T_IN(errno, EINVAL, ENODATA, ENOENT);
    side_close(s, true);
}
