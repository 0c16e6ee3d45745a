/* SPDX-License-Identifier: MIT */
/*
 * Sequences of uverbs commands, well-formed and broken, against the whole NIC in one process.
 *
 *   input = step*                step = operation, selectors, mutations
 *
 * An operation is a good command; each of its handles, keys and addresses is chosen by a selector
 * from what earlier responses gave (or is wrong on purpose); then some bytes of the command are
 * overwritten. So the fuzzer gets deep, and everything it sends may still be nonsense.
 */
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/config.h"
#include "uapi/cmd.h"
#include "uapi/uapi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FILES = 2, REMEMBERED = 6, STEPS_MAX = 48, MEMORY = 1 << 16, COMMAND_MAX = 512 };
enum { GUARD = 4096, RESPONSE_MAX = 1 << 20 };

/* What a field of a command names. */
enum kind { NOTHING, PD, MR, MW, CQ, SRQ, QP, AH, CHANNEL, ASYNC, KEY, QPN, ADDRESS, DGID, KINDS };

struct field {
    uint16_t at; /* in the request */
    uint8_t kind;
};

struct operation {
    uint32_t command;
    const void *request; /* behind the headers; the response's address is filled in */
    uint16_t request_len, response_len, driver_len;
    struct field fields[5];
    struct field gives[3]; /* in the response */
};

#define EX(command) ((uint32_t)(command) | IB_USER_VERBS_CMD_FLAG_EXTENDED)
#define AT(type, member, kind)                                                                     \
    {                                                                                              \
        (uint16_t) offsetof(struct type, member), kind                                             \
    }
#define REQUEST(type, ...)                                                                         \
    .request = &(const struct type){__VA_ARGS__}, .request_len = sizeof(struct type)
#define RESPONSE(type, driver) .response_len = sizeof(struct type), .driver_len = (driver)

/* A posting command with one request and two elements. */
struct post_send {
    uint64_t response;
    uint32_t qp, wr_count, sge_count, wqe_size;
    struct ib_uverbs_send_wr wr;
    struct ib_uverbs_sge sge[2];
};
struct post_recv {
    uint64_t response;
    uint32_t queue, wr_count, sge_count, wqe_size;
    struct ib_uverbs_recv_wr wr;
    struct ib_uverbs_sge sge[2];
};
#define SEND(opcode_)                                                                              \
    REQUEST(post_send, .wr_count = 1, .sge_count = 2,                                              \
            .wqe_size = sizeof(struct ib_uverbs_send_wr),                                          \
            .wr = {.num_sge = 1,                                                                   \
                   .opcode = opcode_,                                                              \
                   .send_flags = IBV_SEND_SIGNALED,                                                \
                   .wr.ud.remote_qkey = 17},                                                       \
            .sge = {{.length = 8}, {.length = 100}}),                                              \
        RESPONSE(ib_uverbs_post_send_resp, 0)
#define RECV                                                                                       \
    REQUEST(post_recv, .wr_count = 1, .sge_count = 2,                                              \
            .wqe_size = sizeof(struct ib_uverbs_recv_wr), .wr = {.num_sge = 2},                    \
            .sge = {{.length = 64}, {.length = 1000}}),                                            \
        RESPONSE(ib_uverbs_post_recv_resp, 0)

#define MODIFY(state, mask, ...)                                                                   \
    .command = IB_USER_VERBS_CMD_MODIFY_QP,                                                        \
    REQUEST(ib_uverbs_modify_qp, .qp_state = state, .attr_mask = IBV_QP_STATE | (mask),            \
            __VA_ARGS__)
#define PATH                                                                                       \
    {                                                                                              \
        .is_global = 1, .port_num = 1, .hop_limit = 1                                              \
    }
#define RTR_RC                                                                                     \
    IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |    \
        IBV_QP_MIN_RNR_TIMER
#define RTS_RC                                                                                     \
    IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC

enum {
    REG_ALL = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
              IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND
};

static const struct operation operations[] = {
    {.command = IB_USER_VERBS_CMD_GET_CONTEXT,
     REQUEST(ib_uverbs_get_context, 0),
     RESPONSE(ib_uverbs_get_context_resp, 0),
     .gives = {{0, ASYNC}}},
    {.command = IB_USER_VERBS_CMD_ALLOC_PD,
     REQUEST(ib_uverbs_alloc_pd, 0),
     RESPONSE(ib_uverbs_alloc_pd_resp, 0),
     .gives = {{0, PD}}},
    {.command = IB_USER_VERBS_CMD_DEALLOC_PD,
     REQUEST(ib_uverbs_dealloc_pd, 0),
     .fields = {{0, PD}}},
    {.command = IB_USER_VERBS_CMD_REG_MR,
     REQUEST(ib_uverbs_reg_mr, .length = MEMORY / 2, .access_flags = REG_ALL),
     RESPONSE(ib_uverbs_reg_mr_resp, 0),
     .fields = {AT(ib_uverbs_reg_mr, start, ADDRESS), AT(ib_uverbs_reg_mr, hca_va, ADDRESS),
                AT(ib_uverbs_reg_mr, pd_handle, PD)},
     .gives = {{0, MR}, {4, KEY}}},
    {.command = IB_USER_VERBS_CMD_REREG_MR,
     REQUEST(ib_uverbs_rereg_mr, .flags = IBV_REREG_MR_CHANGE_ACCESS, .length = 100),
     RESPONSE(ib_uverbs_rereg_mr_resp, 0),
     .fields = {AT(ib_uverbs_rereg_mr, mr_handle, MR), AT(ib_uverbs_rereg_mr, start, ADDRESS),
                AT(ib_uverbs_rereg_mr, hca_va, ADDRESS), AT(ib_uverbs_rereg_mr, pd_handle, PD)},
     .gives = {{0, KEY}}},
    {.command = IB_USER_VERBS_CMD_DEREG_MR, REQUEST(ib_uverbs_dereg_mr, 0), .fields = {{0, MR}}},
    {.command = IB_USER_VERBS_CMD_ALLOC_MW,
     REQUEST(ib_uverbs_alloc_mw, .mw_type = IBV_MW_TYPE_2),
     RESPONSE(ib_uverbs_alloc_mw_resp, 0),
     .fields = {AT(ib_uverbs_alloc_mw, pd_handle, PD)},
     .gives = {{0, MW}, {4, KEY}}},
    {.command = IB_USER_VERBS_CMD_DEALLOC_MW,
     REQUEST(ib_uverbs_dealloc_mw, 0),
     .fields = {{0, MW}}},
    {.command = IB_USER_VERBS_CMD_CREATE_COMP_CHANNEL,
     REQUEST(ib_uverbs_create_comp_channel, 0),
     RESPONSE(ib_uverbs_create_comp_channel_resp, 0),
     .gives = {{0, CHANNEL}}},
    {.command = IB_USER_VERBS_CMD_CREATE_CQ,
     REQUEST(ib_uverbs_create_cq, .cqe = 4, .comp_channel = -1),
     RESPONSE(ib_uverbs_create_cq_resp, 16),
     .gives = {{0, CQ}}},
    {.command = IB_USER_VERBS_CMD_CREATE_CQ,
     REQUEST(ib_uverbs_create_cq, .cqe = 100),
     RESPONSE(ib_uverbs_create_cq_resp, 16),
     .fields = {AT(ib_uverbs_create_cq, comp_channel, CHANNEL)},
     .gives = {{0, CQ}}},
    {.command = EX(IB_USER_VERBS_EX_CMD_CREATE_CQ),
     REQUEST(ib_uverbs_ex_create_cq, .cqe = 10, .comp_channel = -1, .flags = 1),
     RESPONSE(ib_uverbs_ex_create_cq_resp, 16),
     .gives = {{0, CQ}}},
    {.command = IB_USER_VERBS_CMD_RESIZE_CQ,
     REQUEST(ib_uverbs_resize_cq, .cqe = 50),
     RESPONSE(ib_uverbs_resize_cq_resp, 16),
     .fields = {AT(ib_uverbs_resize_cq, cq_handle, CQ)}},
    {.command = IB_USER_VERBS_CMD_DESTROY_CQ,
     REQUEST(ib_uverbs_destroy_cq, 0),
     RESPONSE(ib_uverbs_destroy_cq_resp, 0),
     .fields = {AT(ib_uverbs_destroy_cq, cq_handle, CQ)}},
    {.command = IB_USER_VERBS_CMD_POLL_CQ,
     REQUEST(ib_uverbs_poll_cq, .ne = 8),
     RESPONSE(ib_uverbs_poll_cq_resp, 8 * sizeof(struct ib_uverbs_wc)),
     .fields = {AT(ib_uverbs_poll_cq, cq_handle, CQ)}},
    {.command = IB_USER_VERBS_CMD_REQ_NOTIFY_CQ,
     REQUEST(ib_uverbs_req_notify_cq, 0),
     .fields = {{0, CQ}}},
    {.command = IB_USER_VERBS_CMD_CREATE_SRQ,
     REQUEST(ib_uverbs_create_srq, .max_wr = 8, .max_sge = 2),
     RESPONSE(ib_uverbs_create_srq_resp, 24),
     .fields = {AT(ib_uverbs_create_srq, pd_handle, PD)},
     .gives = {{0, SRQ}}},
    {.command = IB_USER_VERBS_CMD_MODIFY_SRQ,
     REQUEST(ib_uverbs_modify_srq, .attr_mask = IBV_SRQ_LIMIT, .srq_limit = 1, .max_wr = 16),
     .fields = {{0, SRQ}}},
    {.command = IB_USER_VERBS_CMD_QUERY_SRQ,
     REQUEST(ib_uverbs_query_srq, 0),
     RESPONSE(ib_uverbs_query_srq_resp, 0),
     .fields = {AT(ib_uverbs_query_srq, srq_handle, SRQ)}},
    {.command = IB_USER_VERBS_CMD_DESTROY_SRQ,
     REQUEST(ib_uverbs_destroy_srq, 0),
     RESPONSE(ib_uverbs_destroy_srq_resp, 0),
     .fields = {AT(ib_uverbs_destroy_srq, srq_handle, SRQ)}},
    {.command = IB_USER_VERBS_CMD_CREATE_QP,
     REQUEST(ib_uverbs_create_qp, .max_send_wr = 4, .max_recv_wr = 4, .max_send_sge = 2,
             .max_recv_sge = 2, .max_inline_data = 32, .sq_sig_all = 1, .qp_type = IBV_QPT_RC),
     RESPONSE(ib_uverbs_create_qp_resp, 32),
     .fields = {AT(ib_uverbs_create_qp, pd_handle, PD), AT(ib_uverbs_create_qp, send_cq_handle, CQ),
                AT(ib_uverbs_create_qp, recv_cq_handle, CQ)},
     .gives = {{0, QP}, {4, QPN}}},
    {.command = IB_USER_VERBS_CMD_CREATE_QP,
     REQUEST(ib_uverbs_create_qp, .max_send_wr = 4, .max_send_sge = 2, .qp_type = IBV_QPT_RC,
             .is_srq = 1),
     RESPONSE(ib_uverbs_create_qp_resp, 32),
     .fields = {AT(ib_uverbs_create_qp, pd_handle, PD), AT(ib_uverbs_create_qp, send_cq_handle, CQ),
                AT(ib_uverbs_create_qp, recv_cq_handle, CQ),
                AT(ib_uverbs_create_qp, srq_handle, SRQ)},
     .gives = {{0, QP}, {4, QPN}}},
    {.command = EX(IB_USER_VERBS_EX_CMD_CREATE_QP),
     REQUEST(ib_uverbs_ex_create_qp, .max_send_wr = 2, .max_recv_wr = 8, .max_send_sge = 1,
             .max_recv_sge = 2, .qp_type = IBV_QPT_UD),
     RESPONSE(ib_uverbs_ex_create_qp_resp, 32),
     .fields = {AT(ib_uverbs_ex_create_qp, pd_handle, PD),
                AT(ib_uverbs_ex_create_qp, send_cq_handle, CQ),
                AT(ib_uverbs_ex_create_qp, recv_cq_handle, CQ)},
     .gives = {{0, QP}, {4, QPN}}},
    {.command = IB_USER_VERBS_CMD_QUERY_QP,
     REQUEST(ib_uverbs_query_qp, 0),
     RESPONSE(ib_uverbs_query_qp_resp, 0),
     .fields = {AT(ib_uverbs_query_qp, qp_handle, QP)}},
    {MODIFY(IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS, .port_num = 1,
            .qp_access_flags = REG_ALL & ~IBV_ACCESS_MW_BIND),
     .fields = {AT(ib_uverbs_modify_qp, qp_handle, QP)}},
    {MODIFY(IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY, .port_num = 1, .qkey = 17),
     .fields = {AT(ib_uverbs_modify_qp, qp_handle, QP)}},
    {MODIFY(IBV_QPS_RTR, RTR_RC, .dest = PATH, .path_mtu = IBV_MTU_1024, .max_dest_rd_atomic = 4),
     .fields = {AT(ib_uverbs_modify_qp, qp_handle, QP), AT(ib_uverbs_modify_qp, dest_qp_num, QPN),
                AT(ib_uverbs_modify_qp, dest.dgid, DGID)}},
    {MODIFY(IBV_QPS_RTS, RTS_RC, .timeout = 1, .retry_cnt = 1, .rnr_retry = 1, .max_rd_atomic = 4),
     .fields = {AT(ib_uverbs_modify_qp, qp_handle, QP)}},
    {MODIFY(IBV_QPS_RTR, 0, 0), .fields = {AT(ib_uverbs_modify_qp, qp_handle, QP)}},
    {MODIFY(IBV_QPS_RTS, IBV_QP_SQ_PSN, 0), .fields = {AT(ib_uverbs_modify_qp, qp_handle, QP)}},
    {MODIFY(IBV_QPS_SQD, IBV_QP_EN_SQD_ASYNC_NOTIFY, .en_sqd_async_notify = 1),
     .fields = {AT(ib_uverbs_modify_qp, qp_handle, QP)}},
    {MODIFY(IBV_QPS_ERR, 0, 0), .fields = {AT(ib_uverbs_modify_qp, qp_handle, QP)}},
    {MODIFY(IBV_QPS_RESET, 0, 0), .fields = {AT(ib_uverbs_modify_qp, qp_handle, QP)}},
    {.command = EX(IB_USER_VERBS_EX_CMD_MODIFY_QP),
     REQUEST(ib_uverbs_ex_modify_qp, .base = {.attr_mask = IBV_QP_QKEY}),
     RESPONSE(ib_uverbs_ex_modify_qp_resp, 0),
     .fields = {AT(ib_uverbs_ex_modify_qp, base.qp_handle, QP)}},
    {.command = IB_USER_VERBS_CMD_DESTROY_QP,
     REQUEST(ib_uverbs_destroy_qp, 0),
     RESPONSE(ib_uverbs_destroy_qp_resp, 0),
     .fields = {AT(ib_uverbs_destroy_qp, qp_handle, QP)}},
    {.command = IB_USER_VERBS_CMD_CREATE_AH,
     REQUEST(ib_uverbs_create_ah, .attr = {.is_global = 1, .port_num = 1}),
     RESPONSE(ib_uverbs_create_ah_resp, 8),
     .fields = {AT(ib_uverbs_create_ah, pd_handle, PD),
                AT(ib_uverbs_create_ah, attr.grh.dgid, DGID)},
     .gives = {{0, AH}}},
    {.command = IB_USER_VERBS_CMD_DESTROY_AH,
     REQUEST(ib_uverbs_destroy_ah, 0),
     .fields = {{0, AH}}},
    {.command = IB_USER_VERBS_CMD_ATTACH_MCAST,
     REQUEST(ib_uverbs_attach_mcast, .gid = {0xff, 0x12, [15] = 3}),
     .fields = {AT(ib_uverbs_attach_mcast, qp_handle, QP)}},
    {.command = IB_USER_VERBS_CMD_DETACH_MCAST,
     REQUEST(ib_uverbs_detach_mcast, .gid = {0xff, 0x12, [15] = 3}),
     .fields = {AT(ib_uverbs_detach_mcast, qp_handle, QP)}},
    {.command = IB_USER_VERBS_CMD_POST_SEND,
     SEND(IBV_WR_SEND),
     .fields = {AT(post_send, qp, QP), AT(post_send, sge[0].lkey, KEY),
                AT(post_send, sge[0].addr, ADDRESS)}},
    {.command = IB_USER_VERBS_CMD_POST_SEND,
     SEND(IBV_WR_RDMA_WRITE_WITH_IMM),
     .fields = {AT(post_send, qp, QP), AT(post_send, sge[0].lkey, KEY),
                AT(post_send, sge[0].addr, ADDRESS), AT(post_send, wr.wr.rdma.rkey, KEY),
                AT(post_send, wr.wr.rdma.remote_addr, ADDRESS)}},
    {.command = IB_USER_VERBS_CMD_POST_SEND,
     SEND(IBV_WR_RDMA_READ),
     .fields = {AT(post_send, qp, QP), AT(post_send, sge[0].lkey, KEY),
                AT(post_send, sge[0].addr, ADDRESS), AT(post_send, wr.wr.rdma.rkey, KEY),
                AT(post_send, wr.wr.rdma.remote_addr, ADDRESS)}},
    {.command = IB_USER_VERBS_CMD_POST_SEND,
     SEND(IBV_WR_ATOMIC_FETCH_AND_ADD),
     .fields = {AT(post_send, qp, QP), AT(post_send, sge[0].lkey, KEY),
                AT(post_send, sge[0].addr, ADDRESS), AT(post_send, wr.wr.atomic.rkey, KEY),
                AT(post_send, wr.wr.atomic.remote_addr, ADDRESS)}},
    {.command = IB_USER_VERBS_CMD_POST_SEND,
     SEND(IBV_WR_SEND),
     .fields = {AT(post_send, qp, QP), AT(post_send, sge[0].lkey, KEY),
                AT(post_send, sge[0].addr, ADDRESS), AT(post_send, wr.wr.ud.ah, AH),
                AT(post_send, wr.wr.ud.remote_qpn, QPN)}},
    {.command = IB_USER_VERBS_CMD_POST_RECV,
     RECV,
     .fields = {AT(post_recv, queue, QP), AT(post_recv, sge[0].lkey, KEY),
                AT(post_recv, sge[0].addr, ADDRESS), AT(post_recv, sge[1].lkey, KEY),
                AT(post_recv, sge[1].addr, ADDRESS)}},
    {.command = IB_USER_VERBS_CMD_POST_SRQ_RECV,
     RECV,
     .fields = {AT(post_recv, queue, SRQ), AT(post_recv, sge[0].lkey, KEY),
                AT(post_recv, sge[0].addr, ADDRESS), AT(post_recv, sge[1].lkey, KEY),
                AT(post_recv, sge[1].addr, ADDRESS)}},
    {.command = IB_USER_VERBS_CMD_QUERY_DEVICE,
     REQUEST(ib_uverbs_query_device, 0),
     RESPONSE(ib_uverbs_query_device_resp, 0)},
    {.command = EX(IB_USER_VERBS_EX_CMD_QUERY_DEVICE),
     REQUEST(ib_uverbs_ex_query_device, 0),
     RESPONSE(ib_uverbs_ex_query_device_resp, 0)},
    {.command = IB_USER_VERBS_CMD_QUERY_PORT,
     REQUEST(ib_uverbs_query_port, .port_num = 1),
     RESPONSE(ib_uverbs_query_port_resp, 0)},
};

enum { OPERATIONS = sizeof(operations) / sizeof(operations[0]) };

/* ---- the machine ---- */

struct machine {
    const uint8_t *at, *end;
    int fd[FILES], async_fd[FILES];
    uint32_t known[KINDS][REMEMBERED];
    unsigned known_next[KINDS];
};

/*
 * Two areas, and a page behind each that can't be touched: what may be registered, and room for the
 * longest response that a command can claim to have.
 */
static uint8_t *memory, *response;
static const struct config *config;

static uint8_t next(struct machine *m)
{
    return m->at < m->end ? *m->at++ : 0;
}

static void fill_field(struct machine *m, const struct field *field, uint8_t *request)
{
    uint8_t selector = next(m);
    uint64_t address = (uintptr_t)memory + (selector & 7u) * 4096u;

    if (field->kind == ADDRESS)
        memcpy(request + field->at, &address, sizeof(address));
    else if (field->kind == DGID)
        memcpy(request + field->at, config->nics[0].gids[0].raw, 16);
    else if (selector < 192)
        memcpy(request + field->at, &m->known[field->kind][selector % REMEMBERED], 4);
    else
        request[field->at] = selector;
}

static void remember(struct machine *m, const struct operation *operation)
{
    for (const struct field *field = operation->gives; field->kind; field++) {
        unsigned place = m->known_next[field->kind]++ % REMEMBERED;
        uint32_t *slot = &m->known[field->kind][place];

        if (field->kind == CHANNEL && *slot) {
            fdtab_clear((int)*slot);
            close((int)*slot);
        }
        memcpy(slot, response + field->at, sizeof(*slot));
    }
}

/* Lay the command out; where its request begins. */
static uint8_t *compose(const struct operation *operation, uint8_t *command, size_t *len_out)
{
    uint64_t address = (uintptr_t)response;
    struct ib_uverbs_cmd_hdr *hdr = (void *)command;
    struct ib_uverbs_ex_cmd_hdr *ex = (void *)(command + sizeof(*hdr));
    bool extended = operation->command & IB_USER_VERBS_CMD_FLAG_EXTENDED;
    uint8_t *request = command + sizeof(*hdr) + (extended ? sizeof(*ex) : 0);
    unsigned out = operation->response_len + (extended ? 0u : operation->driver_len);
    unsigned unit = extended ? 8 : 4;

    memcpy(request, operation->request, operation->request_len);
    *len_out = (size_t)(request - command) + operation->request_len;
    hdr->command = operation->command;
    hdr->in_words = (uint16_t)((extended ? operation->request_len : *len_out) / unit);
    hdr->out_words = (uint16_t)(out / unit);
    if (extended) {
        ex->response = out ? address : 0;
        ex->provider_out_words = operation->driver_len / 8;
    } else if (operation->response_len) {
        memcpy(request, &address, sizeof(address));
    }
    return request;
}

static void mutate(struct machine *m, uint8_t *command, size_t *len)
{
    uint8_t count = next(m);

    for (unsigned i = 0; i < (count & 3u); i++) {
        uint8_t where = next(m), what = next(m);

        command[where % *len] = what;
    }
    if (count >= 250)
        *len = next(m) % (COMMAND_MAX + 1u);
}

/* A number that could be an address is `good`, unless it is in our own memory already. */
static void tame_address(uint8_t *at, const void *good)
{
    uint64_t address, base = (uintptr_t)memory;

    memcpy(&address, at, sizeof(address));
    if (address >= 65536 && (address < base || address > base + MEMORY)) {
        address = (uintptr_t)good;
        memcpy(at, &address, sizeof(address));
    }
}

/*
 * Commands that work may write to the program's memory, at addresses the program gives: here that
 * must not be the fuzzer's own. A bad address is still one: below 64 KiB, or the page after ours.
 */
static void tame(uint8_t *command)
{
    const struct ib_uverbs_cmd_hdr *hdr = (void *)command;
    uint8_t *request = command + sizeof(*hdr);
    const struct cmd_method *method;

    if (cmd_method_find(hdr->command, &method) != 0)
        return;
    if (method->flags & CMD_RESP || hdr->command & IB_USER_VERBS_CMD_FLAG_EXTENDED)
        tame_address(request, response);
    if (hdr->command == IB_USER_VERBS_CMD_REG_MR)
        tame_address(request + offsetof(struct ib_uverbs_reg_mr, start), memory);
    if (hdr->command == IB_USER_VERBS_CMD_REREG_MR)
        tame_address(request + offsetof(struct ib_uverbs_rereg_mr, start), memory);
    if (hdr->command == IB_USER_VERBS_CMD_MODIFY_SRQ)
        tame_address(request + sizeof(struct ib_uverbs_modify_srq), response);
}

static void run_operation(struct machine *m, const struct operation *operation, int fd)
{
    static alignas(8) uint8_t command[COMMAND_MAX];
    size_t len;
    uint8_t *request;
    struct uapi_file *file = fdtab_get(fd);

    memset(command, 0, sizeof(command));
    request = compose(operation, command, &len);
    for (const struct field *field = operation->fields;
         field < operation->fields + 5 && field->kind; field++)
        fill_field(m, field, request);
    mutate(m, command, &len);
    tame(command);
    if (file->ops->write(file, command, len) == (ssize_t)len &&
        operation->command == ((struct ib_uverbs_cmd_hdr *)(void *)command)->command)
        remember(m, operation);
}

static void shut(struct machine *m, int i)
{
    fdtab_clear(m->fd[i]);
    close(m->fd[i]);
    close(m->async_fd[i]);
}

/* With a context: most inputs should not have to find out that this comes first. */
static void reopen(struct machine *m, int i)
{
    struct machine opener = {0};

    if (uverbs_open(&config->nics[0], O_RDWR | O_CLOEXEC, &m->fd[i]) != 0)
        abort();
    run_operation(&opener, &operations[0], m->fd[i]);
    if (opener.known_next[ASYNC] != 1)
        abort();
    m->async_fd[i] = (int)opener.known[ASYNC][0];
}

static uint8_t *area_create(size_t size)
{
    uint8_t *area = mmap(NULL, size + GUARD, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (area == MAP_FAILED || mprotect(area + size, GUARD, PROT_NONE) != 0)
        abort();
    return area;
}

static void set_up(void)
{
    config = config_get();
    if (!config) {
        fprintf(stderr, "the configuration is bad\n");
        exit(1);
    }
    memory = area_create(MEMORY);
    response = area_create(RESPONSE_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct machine m = {.at = data, .end = data + size};

    if (!memory)
        set_up();
    for (int i = 0; i < FILES; i++)
        reopen(&m, i);
    for (int steps = 0; steps < STEPS_MAX && m.at < m.end; steps++) {
        uint8_t what = next(&m);

        if (what >= 252) {
            shut(&m, what & 1);
            reopen(&m, what & 1);
        } else {
            run_operation(&m, &operations[what % OPERATIONS], m.fd[what >= 4 * OPERATIONS]);
        }
    }
    for (int i = 0; i < FILES; i++)
        shut(&m, i);
    for (int i = 0; i < REMEMBERED; i++) {
        if (m.known[CHANNEL][i]) {
            fdtab_clear((int)m.known[CHANNEL][i]);
            close((int)m.known[CHANNEL][i]);
        }
    }
    return 0;
}
