/* SPDX-License-Identifier: MIT */
/* Memory regions and windows at an end. */
#include "keys.h"

static struct ibv_pd *pd_of(struct side *s, bool other)
{
    if (!other) {
        return s->pd;
    }
    if (!s->other_pd) {
        s->other_pd = ibv_alloc_pd(s->ctx);
        T_ASSERT(s->other_pd != NULL);
    }
    return s->other_pd;
}

static void do_reg(struct side *s, void *arg)
{
    struct reg *reg = arg;
    struct ibv_pd *pd = pd_of(s, reg->other_pd);
    void *addr = s->buf + reg->off;
    struct ibv_mr *mr;

    T_ASSERT(!s->mrs[reg->slot]);
    errno = 0;
    mr = reg->has_iova ? ibv_reg_mr_iova(pd, addr, reg->len, reg->iova, (unsigned)reg->access)
                       : ibv_reg_mr(pd, addr, reg->len, (unsigned)reg->access);
    reg->err = mr ? 0 : errno;
    s->mrs[reg->slot] = mr;
    if (mr) {
        reg->lkey = mr->lkey;
        reg->rkey = mr->rkey;
    }
}

int e_try_reg(struct end *e, struct reg *reg)
{
    e_run(e, do_reg, reg, sizeof(*reg));
    return reg->err;
}

void e_reg(struct end *e, struct reg *reg)
{
    int err = e_try_reg(e, reg);

    T_ASSERT(err == 0, "register %zu bytes: %s", reg->len, strerror(err));
}

struct slot_call {
    int slot, rc;
    enum ibv_mw_type type;
    uint32_t rkey;
};

static void do_dereg(struct side *s, void *arg)
{
    struct slot_call *call = arg;

    call->rc = ibv_dereg_mr(s->mrs[call->slot]);
    if (call->rc == 0) {
        s->mrs[call->slot] = NULL;
    }
}

int e_dereg(struct end *e, int slot)
{
    struct slot_call call = {.slot = slot};

    e_run(e, do_dereg, &call, sizeof(call));
    return call.rc;
}

static void do_mw(struct side *s, void *arg)
{
    struct slot_call *call = arg;
    struct ibv_mw *mw = ibv_alloc_mw(s->pd, call->type);

    T_ASSERT(mw != NULL, "ibv_alloc_mw: %s", strerror(errno));
    s->mw[call->slot] = mw;
    call->rkey = mw->rkey;
}

uint32_t e_mw(struct end *e, int slot, enum ibv_mw_type type)
{
    struct slot_call call = {.slot = slot, .type = type};

    e_run(e, do_mw, &call, sizeof(call));
    return call.rkey;
}

static void do_mw_dealloc(struct side *s, void *arg)
{
    struct slot_call *call = arg;

    call->rc = ibv_dealloc_mw(s->mw[call->slot]);
    if (call->rc == 0) {
        s->mw[call->slot] = NULL;
    }
}

int e_mw_dealloc(struct end *e, int slot)
{
    struct slot_call call = {.slot = slot};

    e_run(e, do_mw_dealloc, &call, sizeof(call));
    return call.rc;
}

static void do_bind(struct side *s, void *arg)
{
    struct bind *bind = arg;
    struct ibv_mw *mw = s->mw[bind->mw];
    struct ibv_mw_bind_info info = {
        .mr = bind->mr == MAIN_MR ? s->mr : s->mrs[bind->mr],
        .addr = s->info.addr + bind->off,
        .length = bind->len,
        .mw_access_flags = (unsigned)bind->access,
    };
    struct ibv_send_wr *bad, wr = {
                                 .wr_id = bind->id,
                                 .opcode = IBV_WR_BIND_MW,
                                 .send_flags = IBV_SEND_SIGNALED | bind->flags,
                                 .bind_mw = {.mw = mw, .rkey = bind->rkey, .bind_info = info},
                             };
    struct ibv_mw_bind type1 = {
        .wr_id = bind->id,
        .send_flags = IBV_SEND_SIGNALED | bind->flags,
        .bind_info = info,
    };

    bind->rc = mw->type == IBV_MW_TYPE_1 ? ibv_bind_mw(s->qp[bind->q], mw, &type1)
                                         : ibv_post_send(s->qp[bind->q], &wr, &bad);
    if (mw->type == IBV_MW_TYPE_1) {
        bind->rkey = mw->rkey;
    }
}

void e_try_bind(struct end *e, struct bind *bind)
{
    e_run(e, do_bind, bind, sizeof(*bind));
}

uint32_t e_bind(struct end *e, struct bind bind)
{
    e_try_bind(e, &bind);
    T_ASSERT(bind.rc == 0, "post bind: %s", strerror(bind.rc));
    e_done(e, bind.id, IBV_WC_BIND_MW);
    return bind.rkey;
}
