/* SPDX-License-Identifier: MIT */
/*
 * Every command we answer, with the sizes its two structures have. A command that is not here is
 * -EOPNOTSUPP, which is what a kernel says whose driver is rxe: no flow steering, no work queues,
 * no CQ moderation.
 */
#include <errno.h>

#include "uapi/cmd.h"

#define END_OF(type, member) (offsetof(struct type, member) + sizeof(((struct type *)0)->member))

/* The program must send the whole request and have room for the whole response ... */
#define REQUEST(type) .req_size = sizeof(struct type), .req_min = sizeof(struct type)
#define RESPONSE(type) .resp_size = sizeof(struct type), .resp_min = sizeof(struct type)
/* ... or, where structures have grown over time, only what was there at first. */
#define REQUEST_EX(type, last) .req_size = sizeof(struct type), .req_min = END_OF(type, last)
#define RESPONSE_EX(type, last) .resp_size = sizeof(struct type), .resp_min = END_OF(type, last)

static const struct cmd_method methods[] = {
    [IB_USER_VERBS_CMD_GET_CONTEXT] = {cmd_get_context, REQUEST(ib_uverbs_get_context),
                                       RESPONSE(ib_uverbs_get_context_resp),
                                       CMD_RESP | CMD_DRIVER | CMD_FIRST},
    [IB_USER_VERBS_CMD_QUERY_DEVICE] = {cmd_query_device, REQUEST(ib_uverbs_query_device),
                                        RESPONSE(ib_uverbs_query_device_resp),
                                        CMD_RESP | CMD_QUERY},
    [IB_USER_VERBS_CMD_QUERY_PORT] = {cmd_query_port, REQUEST(ib_uverbs_query_port),
                                      RESPONSE(ib_uverbs_query_port_resp), CMD_RESP | CMD_QUERY},
    [IB_USER_VERBS_CMD_ALLOC_PD] = {cmd_alloc_pd, REQUEST(ib_uverbs_alloc_pd),
                                    RESPONSE(ib_uverbs_alloc_pd_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_DEALLOC_PD] = {cmd_dealloc_pd, REQUEST(ib_uverbs_dealloc_pd),
                                      .flags = CMD_DESTROY},
    [IB_USER_VERBS_CMD_CREATE_AH] = {cmd_create_ah, REQUEST(ib_uverbs_create_ah),
                                     RESPONSE(ib_uverbs_create_ah_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_DESTROY_AH] = {cmd_destroy_ah, REQUEST(ib_uverbs_destroy_ah),
                                      .flags = CMD_DESTROY},
    [IB_USER_VERBS_CMD_REG_MR] = {cmd_reg_mr, REQUEST(ib_uverbs_reg_mr),
                                  RESPONSE(ib_uverbs_reg_mr_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_REREG_MR] = {cmd_rereg_mr, REQUEST(ib_uverbs_rereg_mr),
                                    RESPONSE(ib_uverbs_rereg_mr_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_DEREG_MR] = {cmd_dereg_mr, REQUEST(ib_uverbs_dereg_mr),
                                    .flags = CMD_DESTROY},
    [IB_USER_VERBS_CMD_ALLOC_MW] = {cmd_alloc_mw, REQUEST(ib_uverbs_alloc_mw),
                                    RESPONSE(ib_uverbs_alloc_mw_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_DEALLOC_MW] = {cmd_dealloc_mw, REQUEST(ib_uverbs_dealloc_mw),
                                      .flags = CMD_DESTROY},
    [IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL] = {cmd_create_comp_channel,
                                               REQUEST(ib_uverbs_create_comp_channel),
                                               RESPONSE(ib_uverbs_create_comp_channel_resp),
                                               CMD_RESP},
    [IB_USER_VERBS_CMD_CREATE_CQ] = {cmd_create_cq, REQUEST(ib_uverbs_create_cq),
                                     RESPONSE(ib_uverbs_create_cq_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_RESIZE_CQ] = {cmd_resize_cq, REQUEST(ib_uverbs_resize_cq),
                                     RESPONSE(ib_uverbs_resize_cq_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_DESTROY_CQ] = {cmd_destroy_cq, REQUEST(ib_uverbs_destroy_cq),
                                      RESPONSE(ib_uverbs_destroy_cq_resp), CMD_RESP | CMD_DESTROY},
    [IB_USER_VERBS_CMD_POLL_CQ] = {cmd_poll_cq, REQUEST(ib_uverbs_poll_cq),
                                   RESPONSE(ib_uverbs_poll_cq_resp), CMD_RESP | CMD_DATA},
    [IB_USER_VERBS_CMD_REQ_NOTIFY_CQ] = {cmd_req_notify_cq, REQUEST(ib_uverbs_req_notify_cq),
                                         .flags = CMD_DATA},
    [IB_USER_VERBS_CMD_CREATE_QP] = {cmd_create_qp, REQUEST(ib_uverbs_create_qp),
                                     RESPONSE(ib_uverbs_create_qp_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_QUERY_QP] = {cmd_query_qp, REQUEST(ib_uverbs_query_qp),
                                    RESPONSE(ib_uverbs_query_qp_resp), CMD_RESP | CMD_QUERY},
    [IB_USER_VERBS_CMD_MODIFY_QP] = {cmd_modify_qp, REQUEST(ib_uverbs_modify_qp)},
    [IB_USER_VERBS_CMD_DESTROY_QP] = {cmd_destroy_qp, REQUEST(ib_uverbs_destroy_qp),
                                      RESPONSE(ib_uverbs_destroy_qp_resp), CMD_RESP | CMD_DESTROY},
    [IB_USER_VERBS_CMD_POST_SEND] = {cmd_post_send, REQUEST(ib_uverbs_post_send),
                                     RESPONSE(ib_uverbs_post_send_resp),
                                     CMD_RESP | CMD_VARIABLE | CMD_DATA},
    [IB_USER_VERBS_CMD_POST_RECV] = {cmd_post_recv, REQUEST(ib_uverbs_post_recv),
                                     RESPONSE(ib_uverbs_post_recv_resp),
                                     CMD_RESP | CMD_VARIABLE | CMD_DATA},
    [IB_USER_VERBS_CMD_ATTACH_MCAST] = {cmd_attach_mcast, REQUEST(ib_uverbs_attach_mcast)},
    [IB_USER_VERBS_CMD_DETACH_MCAST] = {cmd_detach_mcast, REQUEST(ib_uverbs_detach_mcast)},
    [IB_USER_VERBS_CMD_CREATE_SRQ] = {cmd_create_srq, REQUEST(ib_uverbs_create_srq),
                                      RESPONSE(ib_uverbs_create_srq_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_MODIFY_SRQ] = {cmd_modify_srq, REQUEST(ib_uverbs_modify_srq),
                                      .flags = CMD_DRIVER},
    [IB_USER_VERBS_CMD_QUERY_SRQ] = {cmd_query_srq, REQUEST(ib_uverbs_query_srq),
                                     RESPONSE(ib_uverbs_query_srq_resp), CMD_RESP | CMD_QUERY},
    [IB_USER_VERBS_CMD_DESTROY_SRQ] = {cmd_destroy_srq, REQUEST(ib_uverbs_destroy_srq),
                                       RESPONSE(ib_uverbs_destroy_srq_resp),
                                       CMD_RESP | CMD_DESTROY},
    [IB_USER_VERBS_CMD_POST_SRQ_RECV] = {cmd_post_srq_recv, REQUEST(ib_uverbs_post_srq_recv),
                                         RESPONSE(ib_uverbs_post_srq_recv_resp),
                                         CMD_RESP | CMD_VARIABLE | CMD_DATA},
    [IB_USER_VERBS_CMD_CREATE_XSRQ] = {cmd_create_xsrq, REQUEST(ib_uverbs_create_xsrq),
                                       RESPONSE(ib_uverbs_create_srq_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_OPEN_XRCD] = {cmd_open_xrcd, REQUEST(ib_uverbs_open_xrcd),
                                     RESPONSE(ib_uverbs_open_xrcd_resp), CMD_RESP | CMD_DRIVER},
    [IB_USER_VERBS_CMD_CLOSE_XRCD] = {cmd_close_xrcd, REQUEST(ib_uverbs_close_xrcd),
                                      .flags = CMD_DESTROY},
    [IB_USER_VERBS_CMD_OPEN_QP] = {cmd_open_qp, REQUEST(ib_uverbs_open_qp),
                                   RESPONSE(ib_uverbs_create_qp_resp), CMD_RESP | CMD_DRIVER},
};

static const struct cmd_method methods_ex[] = {
    [IB_USER_VERBS_EX_CMD_QUERY_DEVICE] =
        {cmd_query_device_ex, REQUEST_EX(ib_uverbs_ex_query_device, reserved),
         RESPONSE_EX(ib_uverbs_ex_query_device_resp, response_length), CMD_QUERY},
    [IB_USER_VERBS_EX_CMD_CREATE_CQ] = {cmd_create_cq_ex,
                                        REQUEST_EX(ib_uverbs_ex_create_cq, reserved),
                                        RESPONSE_EX(ib_uverbs_ex_create_cq_resp, response_length)},
    [IB_USER_VERBS_EX_CMD_CREATE_QP] = {cmd_create_qp_ex,
                                        REQUEST_EX(ib_uverbs_ex_create_qp, comp_mask),
                                        RESPONSE_EX(ib_uverbs_ex_create_qp_resp, response_length)},
    [IB_USER_VERBS_EX_CMD_MODIFY_QP] = {cmd_modify_qp_ex, REQUEST_EX(ib_uverbs_ex_modify_qp, base),
                                        RESPONSE_EX(ib_uverbs_ex_modify_qp_resp, response_length)},
};

_Static_assert(sizeof(struct ib_uverbs_ex_modify_qp) <= CMD_REQ_MAX, "room for every request");
_Static_assert(sizeof(struct ib_uverbs_ex_query_device_resp) <= CMD_RESP_MAX, "and response");

int cmd_method_find(uint32_t command, const struct cmd_method **method_out)
{
    bool extended = command & IB_USER_VERBS_CMD_FLAG_EXTENDED;
    uint32_t index = command & IB_USER_VERBS_CMD_COMMAND_MASK;
    const struct cmd_method *table = extended ? methods_ex : methods;
    size_t count = extended ? sizeof(methods_ex) / sizeof(methods_ex[0])
                            : sizeof(methods) / sizeof(methods[0]);

    if (command & ~(IB_USER_VERBS_CMD_FLAG_EXTENDED | IB_USER_VERBS_CMD_COMMAND_MASK))
        return -EINVAL;
    if (index >= count || table[index].run == NULL)
        return -EOPNOTSUPP;
    *method_out = &table[index];
    return 0;
}
