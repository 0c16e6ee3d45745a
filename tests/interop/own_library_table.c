/* SPDX-License-Identifier: MIT */
/* The table's functions by plain reference: in a program that has the library linked in (T_STATIC),
 * or in a module that brings the shared one along. */
#ifdef T_STATIC
#define RDMA_STATIC_PROVIDERS rxe
#endif
#include "own_library.h"

#undef ibv_reg_mr

static struct ibv_device **get_device_list(int *count)
{
    return ibv_get_device_list(count); /* may be a macro, which brings the provider in */
}

const struct own_library own_library_table = {
    .get_device_list = get_device_list,
    .free_device_list = ibv_free_device_list,
    .get_device_name = ibv_get_device_name,
    .open_device = ibv_open_device,
    .close_device = ibv_close_device,
    .query_gid = ibv_query_gid,
    .alloc_pd = ibv_alloc_pd,
    .dealloc_pd = ibv_dealloc_pd,
    .register_mr = ibv_reg_mr,
    .dereg_mr = ibv_dereg_mr,
    .create_cq = ibv_create_cq,
    .destroy_cq = ibv_destroy_cq,
    .create_qp = ibv_create_qp,
    .modify_qp = ibv_modify_qp,
    .destroy_qp = ibv_destroy_qp,
    .qp_to_qp_ex = ibv_qp_to_qp_ex,
};
