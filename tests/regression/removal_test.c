/* SPDX-License-Identifier: MIT */
/* A NIC that is taken away under running programs, and comes again: what they see of it. */
#include "ends.h"
#include "removal.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { POSTED = 3, LEN = 64 };

static int change(const char *function)
{
    return change_nic(function, device_name());
}

static bool is_listed(void)
{
    int count;
    struct ibv_device **list = ibv_get_device_list(&count);
    bool is = false;

    T_ASSERT(list);
    for (int i = 0; i < count; i++)
        is = is || strcmp(ibv_get_device_name(list[i]), device_name()) == 0;
    ibv_free_device_list(list);
    return is;
}

#define REFUSED(call) T_CHECK((errno = 0, (call)) && errno == EIO, #call ": %s", strerror(errno))

static void check_commands(struct side *s)
{
    struct ibv_device_attr device;
    struct ibv_port_attr port;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
    struct ibv_qp_init_attr init = {.send_cq = s->send_cq,
                                    .recv_cq = s->recv_cq,
                                    .qp_type = IBV_QPT_RC,
                                    .cap = {1, 1, 1, 1, 0}};

    T_CHECK_EQ(ibv_query_device(s->ctx, &device), EIO);
    T_CHECK_EQ(ibv_query_port(s->ctx, 1, &port), EIO);
    T_CHECK_EQ(ibv_modify_qp(s->qp[0], &attr, IBV_QP_STATE), EIO);
    T_CHECK_EQ(ibv_query_qp(s->qp[0], &attr, IBV_QP_STATE, &init), EIO);
    REFUSED(!ibv_alloc_pd(s->ctx));
    REFUSED(!ibv_reg_mr(s->pd, s->buf, 4096, IBV_ACCESS_LOCAL_WRITE));
    REFUSED(!ibv_create_cq(s->ctx, 4, NULL, NULL, 0));
    REFUSED(!ibv_create_qp(s->pd, &init));
    REFUSED(!ibv_create_comp_channel(s->ctx));
}

static void check_commands_of(struct side *s, void *arg)
{
    (void)arg;
    check_commands(s);
}

static void expect_flushed(struct ibv_cq *cq)
{
    T_EQ(cq_wait(cq).status, IBV_WC_WR_FLUSH_ERR);
}

/* In a program that had receives posted, and goes on posting. */
static void check_removed(struct side *s, void *arg)
{
    struct ibv_sge sge = {s->info.addr, LEN, s->info.lkey};
    struct ibv_send_wr *bad,
        send = {
            .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_recv_wr *bad_recv, recv = {.sg_list = &sge, .num_sge = 1};
    struct ibv_async_event event;

    (void)arg;
    T_EQ(ibv_get_async_event(s->ctx, &event), 0);
    T_EQ(event.event_type, IBV_EVENT_DEVICE_FATAL);
    ibv_ack_async_event(&event);
    for (int i = 0; i < POSTED; i++)
        expect_flushed(s->recv_cq);
    T_EQ(ibv_post_send(s->qp[0], &send, &bad), 0);
    T_EQ(ibv_post_recv(s->qp[0], &recv, &bad_recv), 0);
    expect_flushed(s->send_cq);
    expect_flushed(s->recv_cq);
    check_commands(s);
    T_CHECK(!is_listed());
}

static void try_to_open(struct side *s, void *arg)
{
    struct ibv_context *again = ibv_open_device(s->ctx->device);

    *(int *)arg = again != NULL;
    if (again)
        ibv_close_device(again);
}

static struct pair *open_posted(void)
{
    struct pair *p = pair_open(TWO_PROCESSES, NULL);

    pair_works(p, 0);
    for (uint64_t id = 0; id < POSTED; id++) {
        e_recv(p->a, &(struct post){.id = id, .off = p->rx, .len = LEN});
        e_recv(p->b, &(struct post){.id = id, .off = p->rx, .len = LEN});
    }
    return p;
}

T_TEST(removal, everybody_is_told)
{
    /* Everything fails as a device's that was unplugged, can be destroyed, and comes again. */
    int nothing = 0, opened = 0;

    be_alone();
    for (int round = 0; round < 2; round++) {
        struct pair *p = open_posted();

        T_CHECK(change("viaduct_remove") >= 1);
        T_EQ(change("viaduct_remove"), -ENODEV);
        e_run(p->a, check_removed, &nothing, sizeof(nothing));
        e_run(p->b, check_removed, &nothing, sizeof(nothing));
        e_run(p->b, try_to_open, &opened, sizeof(opened));
        T_CHECK(!opened);
        T_CHECK(!is_listed());
        T_CHECK(change("viaduct_add") >= 1);
        T_EQ(change("viaduct_add"), -EEXIST);
        T_CHECK(is_listed());
        /* By one who has held on to the device all the time. */
        e_run(p->b, try_to_open, &opened, sizeof(opened));
        T_CHECK(opened);
        /* What was open stays dead, and is given back without a complaint. */
        e_run(p->a, check_commands_of, &nothing, sizeof(nothing));
        pair_close(p);
    }
}

T_TEST(removal, waiters_wake)
{
    /* Who sleeps until something is received is woken by what is flushed. */
    struct side_opt opt = {.events = true};
    be_alone();
    struct side *s = side_open(&opt, NULL);
    struct ibv_sge sge = {s->info.addr, LEN, s->info.lkey};
    struct ibv_recv_wr *bad, recv = {.sg_list = &sge, .num_sge = 1};
    struct ibv_cq *cq;
    void *cq_context;

    side_connect(s, 0, &s->info, 0);
    T_EQ(ibv_post_recv(s->qp[0], &recv, &bad), 0);
    T_EQ(ibv_req_notify_cq(s->recv_cq, 0), 0);
    T_CHECK(change("viaduct_remove") >= 1);
    T_EQ(ibv_get_cq_event(s->recv_cq->channel, &cq, &cq_context), 0);
    T_EQ(cq, s->recv_cq);
    ibv_ack_cq_events(cq, 1);
    expect_flushed(s->recv_cq);
    T_CHECK(change("viaduct_add") >= 1);
    side_close(s, false);
}
