/* SPDX-License-Identifier: MIT */
/*
 * Programs that call a verbs library we can't stand before as usual. They load it and take its
 * functions by name and version, as collective libraries do; or have it linked in (T_STATIC); or
 * load a module that brings it along (T_MODULE), whose symbols are not those of the program.
 */
#include <dlfcn.h>
#include <stdlib.h>

#include "loop.h"

#if defined(T_STATIC)

static void load_library(void)
{
    Dl_info info;

    lib = own_library_table;
    T_ASSERT(dladdr((void *)lib.open_device, &info) && !strstr(info.dli_fname, ".so"));
}

#elif defined(T_MODULE)

static void load_library(void)
{
    void *module = dlopen(T_MODULE, RTLD_NOW | RTLD_LOCAL);

    T_ASSERT(module, "%s", dlerror());
    const struct own_library *table = dlsym(module, "own_library_table");
    T_ASSERT(table && !dlsym(RTLD_NEXT, "ibv_alloc_pd"));
    lib = *table;
}

#else

static void load(void *library, const char *name, const char *version, void *function_out)
{
    void *function = dlvsym(library, name, version);
    Dl_info info;

    T_ASSERT(function, "%s", dlerror());
    T_ASSERT(dladdr(function, &info) && strstr(info.dli_fname, "libibverbs"));
    memcpy(function_out, &function, sizeof(function));
}

static void load_library(void)
{
    void *library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);

    T_ASSERT(library, "%s", dlerror());
    load(library, "ibv_get_device_list", "IBVERBS_1.1", &lib.get_device_list);
    load(library, "ibv_free_device_list", "IBVERBS_1.1", &lib.free_device_list);
    load(library, "ibv_get_device_name", "IBVERBS_1.1", &lib.get_device_name);
    load(library, "ibv_open_device", "IBVERBS_1.1", &lib.open_device);
    load(library, "ibv_close_device", "IBVERBS_1.1", &lib.close_device);
    load(library, "ibv_query_gid", "IBVERBS_1.1", &lib.query_gid);
    load(library, "ibv_alloc_pd", "IBVERBS_1.1", &lib.alloc_pd);
    load(library, "ibv_dealloc_pd", "IBVERBS_1.1", &lib.dealloc_pd);
    load(library, "ibv_reg_mr", "IBVERBS_1.1", &lib.register_mr);
    load(library, "ibv_dereg_mr", "IBVERBS_1.1", &lib.dereg_mr);
    load(library, "ibv_create_cq", "IBVERBS_1.1", &lib.create_cq);
    load(library, "ibv_destroy_cq", "IBVERBS_1.1", &lib.destroy_cq);
    load(library, "ibv_create_qp", "IBVERBS_1.1", &lib.create_qp);
    load(library, "ibv_modify_qp", "IBVERBS_1.1", &lib.modify_qp);
    load(library, "ibv_destroy_qp", "IBVERBS_1.1", &lib.destroy_qp);
    load(library, "ibv_qp_to_qp_ex", "IBVERBS_1.6", &lib.qp_to_qp_ex);
}

#endif

enum { MESSAGE = 4096 };

/* A message from the first queue pair to the second, whose completions come to one CQ. */
static void post_receive(struct ibv_qp *qp, struct ibv_mr *mr, char *buffer)
{
    struct ibv_sge sge = {.addr = (uintptr_t)buffer, .length = MESSAGE, .lkey = mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1}, *bad;

    T_EQ(ibv_post_recv(qp, &wr, &bad), 0);
}

static void expect_two(struct ibv_cq *cq)
{
    struct ibv_wc wc[2];
    int got = 0;
    int64_t deadline = t_deadline(10000);

    while (got < 2 && !t_expired(deadline)) {
        int count = ibv_poll_cq(cq, 2 - got, wc + got);

        T_ASSERT(count >= 0);
        got += count;
    }
    T_EQ(got, 2);
    for (int i = 0; i < 2; i++) {
        T_EQ(wc[i].status, IBV_WC_SUCCESS);
        T_EQ(wc[i].opcode, wc[i].wr_id == 2 ? IBV_WC_RECV : IBV_WC_SEND);
    }
}

T_TEST(own_library, send_and_receive)
{
    /* Shows that plain verbs work: a command tells where the program's tables are. */
    char *buffer = calloc(2, MESSAGE);
    struct ibv_qp *qps[2];

    load_library();
    struct ibv_context *context = open_via();
    struct ibv_pd *pd = lib.alloc_pd(context);
    struct ibv_mr *mr = lib.register_mr(pd, buffer, 2 * MESSAGE, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_cq *cq = lib.create_cq(context, 16, NULL, NULL, 0);
    T_ASSERT(pd && mr && cq);
    for (int i = 0; i < 2; i++) {
        qps[i] = lib.create_qp(pd, &(struct ibv_qp_init_attr){
                                       .send_cq = cq,
                                       .recv_cq = cq,
                                       .cap = {4, 4, 1, 1, 0},
                                       .qp_type = IBV_QPT_RC,
                                       .sq_sig_all = 1,
                                   });
        T_ASSERT(qps[i]);
    }
    connect_qp(qps[0], qps[1]->qp_num);
    connect_qp(qps[1], qps[0]->qp_num);
    t_fill(buffer, 0, MESSAGE, 7);
    post_receive(qps[1], mr, buffer + MESSAGE);
    struct ibv_sge sge = {.addr = (uintptr_t)buffer, .length = MESSAGE, .lkey = mr->lkey};
    struct ibv_send_wr wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    struct ibv_send_wr *bad;
    T_EQ(ibv_post_send(qps[0], &wr, &bad), 0);
    expect_two(cq);
    T_EQ(t_compare(buffer + MESSAGE, 0, MESSAGE, 7), -1);
    T_EQ(lib.destroy_qp(qps[0]) | lib.destroy_qp(qps[1]) | lib.destroy_cq(cq), 0);
    T_EQ(lib.dereg_mr(mr) | lib.dealloc_pd(pd) | lib.close_device(context), 0);
    free(buffer);
}

static struct ibv_qp *create_extended(struct ibv_context *context, struct ibv_pd *pd,
                                      struct ibv_cq *cq)
{
    struct ibv_qp_init_attr_ex attr = {
        .send_cq = cq,
        .recv_cq = cq,
        .cap = {4, 4, 2, 2, 0},
        .qp_type = IBV_QPT_RC,
        .sq_sig_all = 1,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .pd = pd,
        .send_ops_flags = IBV_QP_EX_WITH_SEND,
    };
    struct ibv_qp *qp = verbs_get_ctx_op(context, create_qp_ex)->create_qp_ex(context, &attr);

    T_ASSERT(qp, "%s", strerror(errno));
    return qp;
}

static void expect_two_extended(struct ibv_cq_ex *cq)
{
    struct ibv_poll_cq_attr attr = {0};
    int got = 0;

    for (int64_t deadline = t_deadline(10000); got < 2 && !t_expired(deadline);) {
        int error = ibv_start_poll(cq, &attr);

        if (error) {
            T_EQ(error, ENOENT);
            continue;
        }
        for (; !error; error = ibv_next_poll(cq), got++) {
            T_EQ(cq->status, IBV_WC_SUCCESS);
            T_EQ(ibv_wc_read_opcode(cq), cq->wr_id == 2 ? IBV_WC_RECV : IBV_WC_SEND);
            if (cq->wr_id == 2)
                T_EQ(ibv_wc_read_byte_len(cq), MESSAGE);
        }
        ibv_end_poll(cq);
    }
    T_EQ(got, 2);
}

T_TEST(own_library, extended)
{
    /*
     * Shows the same for extended objects, the CQ being the first object that the NIC hears of, and
     * a message in two pieces, whose length the stock provider adds up wrongly.
     */
    char *buffer = calloc(2, MESSAGE);
    struct ibv_qp *qps[2];

    load_library();
    struct ibv_context *context = open_via();
    struct ibv_pd *pd = lib.alloc_pd(context);
    struct ibv_mr *mr = lib.register_mr(pd, buffer, 2 * MESSAGE, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_cq_ex *cq = ibv_create_cq_ex(
        context, &(struct ibv_cq_init_attr_ex){.cqe = 16, .wc_flags = IBV_WC_EX_WITH_BYTE_LEN});
    T_ASSERT(pd && mr && cq);
    for (int i = 0; i < 2; i++)
        qps[i] = create_extended(context, pd, ibv_cq_ex_to_cq(cq));
    connect_qp(qps[0], qps[1]->qp_num);
    connect_qp(qps[1], qps[0]->qp_num);
    t_fill(buffer, 0, MESSAGE, 7);
    post_receive(qps[1], mr, buffer + MESSAGE);
    struct ibv_qp_ex *ex = lib.qp_to_qp_ex(qps[0]);
    struct ibv_sge pieces[] = {{(uintptr_t)buffer, 96, mr->lkey},
                               {(uintptr_t)buffer + 96, MESSAGE - 96, mr->lkey}};
    ibv_wr_start(ex);
    ex->wr_id = 1;
    ibv_wr_send(ex);
    ibv_wr_set_sge_list(ex, 2, pieces);
    T_EQ(ibv_wr_complete(ex), 0);
    expect_two_extended(cq);
    T_EQ(t_compare(buffer + MESSAGE, 0, MESSAGE, 7), -1);
    T_EQ(lib.destroy_qp(qps[0]) | lib.destroy_qp(qps[1]), 0);
    T_EQ(lib.destroy_cq(ibv_cq_ex_to_cq(cq)), 0);
    T_EQ(lib.dereg_mr(mr) | lib.dealloc_pd(pd) | lib.close_device(context), 0);
    free(buffer);
}
