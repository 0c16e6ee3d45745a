/* SPDX-License-Identifier: MIT */
/*
 * What the extended objects promise beyond moving data: batches that go whole or not at all, poll
 * sessions in which a program may do what it likes, timestamps; and re-registration.
 */
#include <stdlib.h>
#include <time.h>

#include "loop.h"

enum { SIZE = 64, DEPTH = 8 };

static struct {
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_mr *mr;
    struct ibv_cq_ex *cq;
    struct ibv_qp *qps[2];
    struct ibv_qp_ex *ex[2];
    struct ibv_qp_init_attr_ex attr; /* as granted */
    char memory[4 * SIZE];
} rig;

static void rig_create_qp(int i)
{
    rig.attr = (struct ibv_qp_init_attr_ex){
        .send_cq = ibv_cq_ex_to_cq(rig.cq),
        .recv_cq = ibv_cq_ex_to_cq(rig.cq),
        .cap = {DEPTH, DEPTH, 1, 1, SIZE},
        .qp_type = IBV_QPT_RC,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .pd = rig.pd,
        .send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE,
    };
    rig.qps[i] = ibv_create_qp_ex(rig.context, &rig.attr);
    T_ASSERT(rig.qps[i], "%s", strerror(errno));
    rig.ex[i] = ibv_qp_to_qp_ex(rig.qps[i]);
    T_ASSERT(rig.ex[i]);
}

static void rig_open(uint32_t cqe)
{
    struct ibv_cq_init_attr_ex attr = {
        .cqe = cqe,
        .wc_flags = IBV_WC_EX_WITH_BYTE_LEN | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK,
    };

    lib = own_library_table;
    rig.context = open_via();
    rig.pd = ibv_alloc_pd(rig.context);
    rig.mr = ibv_reg_mr(rig.pd, rig.memory, sizeof(rig.memory),
                        IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    rig.cq = ibv_create_cq_ex(rig.context, &attr);
    T_ASSERT(rig.pd && rig.mr && rig.cq);
    rig_create_qp(0);
    rig_create_qp(1);
    connect_qp(rig.qps[0], rig.qps[1]->qp_num);
    connect_qp(rig.qps[1], rig.qps[0]->qp_num);
}

static void rig_close(void)
{
    T_EQ(ibv_destroy_qp(rig.qps[0]) | ibv_destroy_qp(rig.qps[1]), 0);
    T_EQ(ibv_destroy_cq(ibv_cq_ex_to_cq(rig.cq)), 0);
    T_EQ(ibv_dereg_mr(rig.mr) | ibv_dealloc_pd(rig.pd) | ibv_close_device(rig.context), 0);
}

static void post_receive(int i)
{
    struct ibv_sge sge = {(uintptr_t)rig.memory + (size_t)i * SIZE, SIZE, rig.mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = 10 + (unsigned)i, .sg_list = &sge, .num_sge = 1}, *bad;

    T_EQ(ibv_post_recv(rig.qps[i], &wr, &bad), 0);
}

static void add_write(int i, char byte)
{
    rig.ex[i]->wr_id = (unsigned)i;
    rig.ex[i]->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_rdma_write(rig.ex[i], rig.mr->rkey, (uintptr_t)rig.memory + 2 * SIZE);
    ibv_wr_set_inline_data(rig.ex[i], &byte, 1);
}

static int send_one(int i)
{
    ibv_wr_start(rig.ex[i]);
    rig.ex[i]->wr_id = (unsigned)i;
    rig.ex[i]->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(rig.ex[i]);
    ibv_wr_set_sge(rig.ex[i], rig.mr->lkey, (uintptr_t)rig.memory + (size_t)i * SIZE, SIZE);
    return ibv_wr_complete(rig.ex[i]);
}

/* Starts a session when there is a completion. */
static void start_session(void)
{
    struct ibv_poll_cq_attr attr = {0};

    T_UNTIL(ibv_start_poll(rig.cq, &attr) == 0, 10000);
    T_EQ(rig.cq->status, IBV_WC_SUCCESS);
}

T_TEST(extended, batch_goes_whole_or_not_at_all)
{
    /* Shows that two writes for one free place write nothing, and complete nothing. */
    struct ibv_poll_cq_attr attr = {0};

    rig_open(1024);
    unsigned places = rig.attr.cap.max_send_wr;
    ibv_wr_start(rig.ex[0]);
    for (unsigned i = 0; i < places - 1; i++)
        add_write(0, 'a');
    T_EQ(ibv_wr_complete(rig.ex[0]), 0);
    ibv_wr_start(rig.ex[0]);
    add_write(0, 'b');
    add_write(0, 'c');
    T_EQ(ibv_wr_complete(rig.ex[0]), ENOMEM);
    ibv_wr_start(rig.ex[0]);
    add_write(0, 'd');
    ibv_wr_abort(rig.ex[0]);
    for (unsigned i = 0; i < places - 1; i++) {
        start_session();
        T_EQ(ibv_wc_read_opcode(rig.cq), IBV_WC_RDMA_WRITE);
        ibv_end_poll(rig.cq);
    }
    T_EQ(ibv_start_poll(rig.cq, &attr), ENOENT);
    T_EQ(rig.memory[2 * SIZE], 'a');
    rig_close();
}

/* What a session allows: anything but another session. */
static void do_other_things(void)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;

    T_EQ(ibv_req_notify_cq(ibv_cq_ex_to_cq(rig.cq), 0), 0);
    T_EQ(ibv_query_qp(rig.qps[0], &attr, IBV_QP_STATE, &init), 0);
}

T_TEST(extended, posts_within_a_session)
{
    /* Shows ping-pong within sessions of three, on a CQ that has room for just what is going on. */
    int received = 0;

    rig_open(4);
    post_receive(0);
    post_receive(1);
    T_EQ(send_one(0), 0);
    while (received < 2000) {
        start_session();
        for (int i = 0, error = 0; i < 3 && !error; i++, error = ibv_next_poll(rig.cq)) {
            int at = (int)rig.cq->wr_id - 10; /* a receive of that side, or negative: a send */

            T_EQ(rig.cq->status, IBV_WC_SUCCESS);
            do_other_things();
            if (at < 0)
                continue;
            T_EQ(ibv_wc_read_byte_len(rig.cq), SIZE);
            received++;
            post_receive(at);
            T_EQ(send_one(at), 0);
        }
        ibv_end_poll(rig.cq);
    }
    rig_close();
}

static uint64_t wall_clock_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

T_TEST(extended, timestamps)
{
    /* Shows that completions carry the time between posting and polling. */
    rig_open(64);
    for (int i = 0; i < 10; i++) {
        uint64_t before = wall_clock_ns();

        ibv_wr_start(rig.ex[0]);
        add_write(0, 'a');
        T_EQ(ibv_wr_complete(rig.ex[0]), 0);
        start_session();
        uint64_t stamp = ibv_wc_read_completion_wallclock_ns(rig.cq);
        ibv_end_poll(rig.cq);
        T_ASSERT(before <= stamp && stamp <= wall_clock_ns());
    }
    rig_close();
}

T_TEST(extended, reregistration)
{
    /* Shows that a region can be moved, and what is wrong with a request. */
    static char other[2 * SIZE];

    rig_open(64);
    T_EQ(ibv_rereg_mr(rig.mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, NULL, SIZE, 0),
         IBV_REREG_MR_ERR_INPUT);
    T_EQ(ibv_rereg_mr(rig.mr, IBV_REREG_MR_CHANGE_TRANSLATION, NULL, other, sizeof(other), 0), 0);
    T_ASSERT(rig.mr->addr == other && rig.mr->length == sizeof(other));
    ibv_wr_start(rig.ex[0]);
    rig.ex[0]->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_rdma_write(rig.ex[0], rig.mr->rkey, (uintptr_t)other);
    ibv_wr_set_inline_data(rig.ex[0], &(char){'x'}, 1);
    T_EQ(ibv_wr_complete(rig.ex[0]), 0);
    start_session();
    ibv_end_poll(rig.cq);
    T_EQ(other[0], 'x');
    rig_close();
}
