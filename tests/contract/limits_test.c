/* SPDX-License-Identifier: MIT */
/* Honest limits: what the device announces can be had, and one more gives a clear errno. */
#include "side.h"

#include <stdlib.h>

enum {
    CHEAP = 20000
}; /* a limit up to here is really reached; of more, a tenth of this is tried */

struct maker {
    void *(*make)(struct side *s);
    int (*unmake)(void *object);
};

/*
 * Makes objects until the limit. Some of the limit may be taken by others (the side itself has a
 * few of everything, and other programs may share the device), so the first refusal may come
 * a little early; it must come by then, with ENOMEM, ENOSPC or EAGAIN, and after one object is
 * freed there is room again.
 */
static void reach(int limit, struct maker maker)
{
    struct side *s = side_open(NULL, NULL);
    int want = limit <= CHEAP ? limit + 1 : CHEAP / 10;
    void **object = calloc((size_t)want, sizeof(*object));
    int made = 0;

    T_ASSERT(object != NULL);
    errno = 0;
    while (made < want && (object[made] = maker.make(s)) != NULL) {
        made++;
    }
    if (limit <= CHEAP) {
        T_ASSERT(made <= limit, "%d made, the limit is %d", made, limit);
        T_ASSERT(made >= limit - 16, "%d made, the limit is %d: %s", made, limit, strerror(errno));
        T_IN(errno, ENOMEM, ENOSPC, EAGAIN);
        T_EQ(maker.unmake(object[--made]), 0);
        object[made] = maker.make(s);
        T_ASSERT(object[made] != NULL, "no room after one was freed");
        made++;
    } else {
        T_ASSERT(made == want, "only %d of %d: %s", made, limit, strerror(errno));
    }
    while (made > 0) {
        T_EQ(maker.unmake(object[--made]), 0);
    }
    free(object);
    side_close(s, true);
    t_end();
}

static struct ibv_device_attr attributes(void)
{
    struct ibv_context *ctx = device_open();
    struct ibv_device_attr attr;

    T_EQ(ibv_query_device(ctx, &attr), 0);
    T_EQ(ibv_close_device(ctx), 0);
    return attr;
}

static void *make_pd(struct side *s)
{
    return ibv_alloc_pd(s->ctx);
}

static int unmake_pd(void *pd)
{
    return ibv_dealloc_pd(pd);
}

static void *make_mr(struct side *s)
{
    return ibv_reg_mr(s->pd, s->buf, 64, IBV_ACCESS_LOCAL_WRITE);
}

static int unmake_mr(void *mr)
{
    return ibv_dereg_mr(mr);
}

static void *make_mw(struct side *s)
{
    return ibv_alloc_mw(s->pd, IBV_MW_TYPE_2);
}

static int unmake_mw(void *mw)
{
    return ibv_dealloc_mw(mw);
}

static void *make_cq(struct side *s)
{
    return ibv_create_cq(s->ctx, 1, NULL, NULL, 0);
}

static int unmake_cq(void *cq)
{
    return ibv_destroy_cq(cq);
}

static void *make_srq(struct side *s)
{
    struct ibv_srq_init_attr attr = {.attr = {.max_wr = 1, .max_sge = 1}};

    return ibv_create_srq(s->pd, &attr);
}

static int unmake_srq(void *srq)
{
    return ibv_destroy_srq(srq);
}

static void *make_ah(struct side *s)
{
    struct ibv_ah_attr attr = side_ah_attr(&s->info);

    return ibv_create_ah(s->pd, &attr);
}

static int unmake_ah(void *ah)
{
    return ibv_destroy_ah(ah);
}

static void *make_qp(struct side *s)
{
    struct side_opt opt =
        side_options(&(struct side_opt){.send_wr = 1, .recv_wr = 1, .send_sge = 1, .recv_sge = 1});

    return side_create_qp(s, &opt);
}

static int unmake_qp(void *qp)
{
    return ibv_destroy_qp(qp);
}

T_TEST(limits, protection_domains)
{
    /* max_pd domains. */
    reach(attributes().max_pd, (struct maker){make_pd, unmake_pd});
}

T_TEST(limits, memory_regions)
{
    /* max_mr regions, all over the same memory. */
    reach(attributes().max_mr, (struct maker){make_mr, unmake_mr});
}

T_TEST(limits, memory_windows)
{
    /* max_mw windows. */
    reach(attributes().max_mw, (struct maker){make_mw, unmake_mw});
}

T_TEST(limits, completion_queues)
{
    /* max_cq completion queues. */
    reach(attributes().max_cq, (struct maker){make_cq, unmake_cq});
}

T_TEST(limits, shared_receive_queues)
{
    /* max_srq shared receive queues. */
    reach(attributes().max_srq, (struct maker){make_srq, unmake_srq});
}

T_TEST(limits, address_handles)
{
    /* max_ah address handles. */
    reach(attributes().max_ah, (struct maker){make_ah, unmake_ah});
}

T_TEST(limits, queue_pairs)
{
    /* max_qp queue pairs. */
    reach(attributes().max_qp, (struct maker){make_qp, unmake_qp});
}

T_TEST(limits, queue_pair_numbers_differ)
{
    /* Of many queue pairs no two have the same number, and none has that of QP 0 or 1. */
    enum { COUNT = 500 };
    struct side *s = side_open(NULL, NULL);
    struct ibv_qp *qp[COUNT];

    for (int i = 0; i < COUNT; i++) {
        qp[i] = make_qp(s);
        T_ASSERT(qp[i] != NULL && qp[i]->qp_num > 1 && qp[i]->qp_num < 1 << 24);
        for (int k = 0; k < i; k++) {
            T_ASSERT(qp[k]->qp_num != qp[i]->qp_num);
        }
    }
    for (int i = 0; i < COUNT; i++) {
        T_EQ(ibv_destroy_qp(qp[i]), 0);
    }
    side_close(s, true);
}

T_TEST(limits, completion_queue_size)
{
    /* A CQ of max_cqe entries is made; one more entry is EINVAL (or ENOMEM). */
    struct side *s = side_open(NULL, NULL);
    int max = attributes().max_cqe;
    struct ibv_cq *cq = ibv_create_cq(s->ctx, max, NULL, NULL, 0);

    T_ASSERT(cq != NULL, "max_cqe %d: %s", max, strerror(errno));
    T_ASSERT(cq->cqe >= max);
    T_EQ(ibv_destroy_cq(cq), 0);
    errno = 0;
    T_ASSERT(ibv_create_cq(s->ctx, max + 1, NULL, NULL, 0) == NULL);
    T_IN(errno, EINVAL, ENOMEM);
    side_close(s, true);
}

/* Makes a queue pair with these capacities; returns errno. What is given must be what was asked
 * for. */
static int try_cap(struct side *s, struct ibv_qp_cap cap)
{
    struct ibv_qp_init_attr attr = {
        .send_cq = s->send_cq,
        .recv_cq = s->recv_cq,
        .cap = cap,
        .qp_type = IBV_QPT_RC,
    };
    struct ibv_qp *qp;

    errno = 0;
    qp = ibv_create_qp(s->pd, &attr);
    if (!qp) {
        return errno;
    }
    T_ASSERT(attr.cap.max_send_wr >= cap.max_send_wr && attr.cap.max_recv_wr >= cap.max_recv_wr);
    T_ASSERT(attr.cap.max_send_sge >= cap.max_send_sge);
    T_ASSERT(attr.cap.max_recv_sge >= cap.max_recv_sge);
    T_ASSERT(attr.cap.max_inline_data >= cap.max_inline_data);
    T_EQ(ibv_destroy_qp(qp), 0);
    return 0;
}

T_TEST(limits, work_requests)
{
    /* max_qp_wr in either queue can be had; one more is refused. */
    struct side *s = side_open(NULL, NULL);
    uint32_t max = (uint32_t)attributes().max_qp_wr;

    T_CHECK_EQ(try_cap(s, (struct ibv_qp_cap){max, 1, 1, 1, 0}), 0);
    T_CHECK_EQ(try_cap(s, (struct ibv_qp_cap){1, max, 1, 1, 0}), 0);
    T_IN(try_cap(s, (struct ibv_qp_cap){max + 1, 1, 1, 1, 0}), EINVAL, ENOMEM);
    T_IN(try_cap(s, (struct ibv_qp_cap){1, max + 1, 1, 1, 0}), EINVAL, ENOMEM);
    side_close(s, true);
}

T_TEST(limits, scatter_gather_elements)
{
    /* max_sge in either queue can be had; one more is refused. */
    struct side *s = side_open(NULL, NULL);
    uint32_t max = (uint32_t)attributes().max_sge;

    T_CHECK_EQ(try_cap(s, (struct ibv_qp_cap){1, 1, max, max, 0}), 0);
    T_IN(try_cap(s, (struct ibv_qp_cap){1, 1, max + 1, 1, 0}), EINVAL, ENOMEM);
    T_IN(try_cap(s, (struct ibv_qp_cap){1, 1, 1, max + 1, 0}), EINVAL, ENOMEM);
    side_close(s, true);
}

T_TEST(limits, absurd_capacities)
{
    /* Numbers that would overflow a size computation are refused, not wrapped round. */
    struct side *s = side_open(NULL, NULL);

    T_IN(try_cap(s, (struct ibv_qp_cap){UINT32_MAX, 1, 1, 1, 0}), EINVAL, ENOMEM);
    T_IN(try_cap(s, (struct ibv_qp_cap){1, UINT32_MAX, 1, 1, 0}), EINVAL, ENOMEM);
    T_IN(try_cap(s, (struct ibv_qp_cap){1, 1, UINT32_MAX, 1, 0}), EINVAL, ENOMEM);
    T_IN(try_cap(s, (struct ibv_qp_cap){1, 1, 1, UINT32_MAX, 0}), EINVAL, ENOMEM);
    T_IN(try_cap(s, (struct ibv_qp_cap){1, 1, 1, 1, UINT32_MAX}), EINVAL, ENOMEM);
    side_close(s, true);
}

T_TEST(limits, shared_receive_queue_size)
{
    /* max_srq_wr and max_srq_sge can be had; one more of either is refused. */
    struct side *s = side_open(NULL, NULL);
    struct ibv_device_attr a = attributes();
    struct ibv_srq_init_attr wide = {.attr = {.max_wr = 1, .max_sge = (uint32_t)a.max_srq_sge}};
    struct ibv_srq_init_attr deep = {.attr = {.max_wr = (uint32_t)a.max_srq_wr, .max_sge = 1}};
    struct ibv_srq *srq = ibv_create_srq(s->pd, &wide);

    T_ASSERT(srq != NULL, "max_srq_sge: %s", strerror(errno));
    T_ASSERT(wide.attr.max_sge >= (uint32_t)a.max_srq_sge);
    T_EQ(ibv_destroy_srq(srq), 0);
    srq = ibv_create_srq(s->pd, &deep);
    T_ASSERT(srq != NULL, "max_srq_wr: %s", strerror(errno));
    T_ASSERT(deep.attr.max_wr >= (uint32_t)a.max_srq_wr);
    T_EQ(ibv_destroy_srq(srq), 0);
    wide.attr = (struct ibv_srq_attr){.max_wr = 1, .max_sge = (uint32_t)a.max_srq_sge + 1};
    errno = 0;
    T_ASSERT(ibv_create_srq(s->pd, &wide) == NULL);
    T_IN(errno, EINVAL, ENOMEM);
    deep.attr = (struct ibv_srq_attr){.max_wr = (uint32_t)a.max_srq_wr + 1, .max_sge = 1};
    errno = 0;
    T_ASSERT(ibv_create_srq(s->pd, &deep) == NULL);
    T_IN(errno, EINVAL, ENOMEM);
    side_close(s, true);
}

T_TEST(limits, read_and_atomic_depth)
{
    /* max_qp_init_rd_atom and max_qp_rd_atom can be set; one more is EINVAL and changes nothing. */
    struct side *s = side_open(&(struct side_opt){.qps = 2}, NULL);
    struct ibv_device_attr a = attributes();
    struct ibv_qp_attr attr;
    int mask = side_init_attr(s, &attr);

    T_EQ(ibv_modify_qp(s->qp[0], &attr, mask), 0);
    mask = side_rtr_attr(s, &s->info, 0, &attr);
    if (a.max_qp_rd_atom < UINT8_MAX) {
        attr.max_dest_rd_atomic = (uint8_t)(a.max_qp_rd_atom + 1);
        T_CHECK_EQ(ibv_modify_qp(s->qp[0], &attr, mask), EINVAL);
        T_EQ(qp_state(s->qp[0]), IBV_QPS_INIT);
    }
    attr.max_dest_rd_atomic = (uint8_t)a.max_qp_rd_atom;
    T_EQ(ibv_modify_qp(s->qp[0], &attr, mask), 0);
    mask = side_rts_attr(s, 0, &attr);
    if (a.max_qp_init_rd_atom < UINT8_MAX) {
        attr.max_rd_atomic = (uint8_t)(a.max_qp_init_rd_atom + 1);
        T_CHECK_EQ(ibv_modify_qp(s->qp[0], &attr, mask), EINVAL);
        T_EQ(qp_state(s->qp[0]), IBV_QPS_RTR);
    }
    attr.max_rd_atomic = (uint8_t)a.max_qp_init_rd_atom;
    T_EQ(ibv_modify_qp(s->qp[0], &attr, mask), 0);
    side_close(s, true);
}
