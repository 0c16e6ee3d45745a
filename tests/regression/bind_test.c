/* SPDX-License-Identifier: MIT */
/* A bind that has to wait in the send queue, behind a send whose receiver is not ready. */
#include <stdlib.h>
#include <string.h>

#include "ends.h"

/* The program's own structures are gone, as far as the device may know, when the call returns. */
static void bind_and_spoil(struct side *s, void *arg)
{
    struct ibv_mw *mw = ibv_alloc_mw(s->pd, IBV_MW_TYPE_2);
    struct ibv_mw copy;
    struct ibv_mr region = *s->mr;
    struct ibv_send_wr *bad, wr = {.wr_id = 2, .opcode = IBV_WR_BIND_MW};

    (void)arg;
    T_ASSERT(mw);
    copy = *mw;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.bind_mw.mw = &copy;
    wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
    wr.bind_mw.bind_info = (struct ibv_mw_bind_info){.mr = &region,
                                                     .addr = s->info.addr,
                                                     .length = 64,
                                                     .mw_access_flags = IBV_ACCESS_REMOTE_READ};
    T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
    memset(&copy, 0xa5, sizeof(copy));
    memset(&region, 0xa5, sizeof(region));
    s->mw[0] = mw;
}

static void drop(struct side *s, void *arg)
{
    (void)arg;
    T_EQ(ibv_dealloc_mw(s->mw[0]), 0);
    s->mw[0] = NULL;
}

T_TEST(bind, waits_with_what_it_was_given)
{
    /* Shows that a stored bind does not look at the program's structures any more. */
    struct side_opt opt = {.mr_access = ACCESS_ALL | IBV_ACCESS_MW_BIND};
    struct pair *p = pair_open(TWO_PROCESSES, &opt);
    int nothing = 0;

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8});
    e_run(p->a, bind_and_spoil, &nothing, sizeof(nothing));
    e_quiet(p->a, SEND_CQ);
    e_recv(p->b, &(struct post){.id = 9, .off = p->rx, .len = 64});
    e_done(p->a, 1, IBV_WC_SEND);
    e_done(p->a, 2, IBV_WC_BIND_MW);
    e_got(p->b, 9, IBV_WC_RECV, 8);
    e_run(p->a, drop, &nothing, sizeof(nothing));
    pair_close(p);
}
