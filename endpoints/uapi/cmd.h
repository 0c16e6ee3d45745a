/* SPDX-License-Identifier: MIT */
/*
 * One command of the write() ABI, between the door (uverbs.c) and the handlers (cmd_*.c).
 *
 *   write(fd, {header, core request, driver data}) --uverbs.c--> struct cmd --cmd_table.c-->
 * handler user memory <-- {core response, driver response} <--uverbs.c-- struct cmd
 * <--------------'
 *
 * A handler sees private copies only: no pointer of the program is followed but by user_read() and
 * user_write(). It runs under core_lock(), except where the table says CMD_DATA. It fills cmd->resp
 * and cmd->driver_resp and returns 0, or returns a negative errno and nothing is written.
 */
#ifndef VIADUCT_UAPI_CMD_H
#define VIADUCT_UAPI_CMD_H

#include <linux/types.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_rxe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/objects.h"
#include "core/qp.h"
#include "uapi/uapi.h"

/* An open /dev/infiniband/uverbsN. */
struct uverbs_file {
    struct uapi_file file;
    const struct nic *nic;
    struct context *_Atomic context; /* NULL until GET_CONTEXT; then constant */
};

enum {
    CMD_REQ_MAX = 192, /* the largest request of fixed size */
    CMD_RESP_MAX = 512,
    CMD_DRIVER_RESP_MAX = 64,
};

struct cmd {
    struct uverbs_file *file;
    struct context *context;   /* NULL for GET_CONTEXT only */
    const void *req;           /* aligned; zero-padded to the method's request */
    size_t req_len;            /* bytes of it the program sent */
    const uint8_t *driver_req; /* unaligned */
    size_t driver_req_len;
    uint64_t out;   /* user address of the core response; 0: none wanted */
    size_t out_len; /* what fits there */
    uint64_t driver_out;
    size_t driver_out_len;
    bool respond_on_error; /* posting: the response names the bad request */
    uint64_t req_store[CMD_REQ_MAX / 8];
    uint64_t resp[CMD_RESP_MAX / 8];               /* zeroed; the method's response */
    uint64_t driver_resp[CMD_DRIVER_RESP_MAX / 8]; /* zeroed */
    size_t driver_resp_len;                        /* set by cmd_driver_resp() */
};

enum {
    CMD_RESP = 1,     /* the request begins with the response's address */
    CMD_DRIVER = 2,   /* what follows the core parts is the driver's */
    CMD_VARIABLE = 4, /* the request has a tail that the handler parses */
    CMD_DATA = 8,     /* data path: called without core_lock() */
    CMD_FIRST = 16,   /* allowed before GET_CONTEXT */
    CMD_QUERY = 32,   /* changes nothing: may fail as late as it likes */
    CMD_DESTROY = 64, /* also of a NIC that was taken away */
};

struct cmd_method {
    int (*run)(struct cmd *cmd); /* NULL: -EOPNOTSUPP */
    uint16_t req_size, req_min;  /* the request as we know it; what a caller must send */
    uint16_t resp_size, resp_min;
    unsigned flags;
};

/* ---- cmd_table.c ---- */
/* 0, -EINVAL (bits that mean nothing) or -EOPNOTSUPP (a command we don't have). */
int cmd_method_find(uint32_t command, const struct cmd_method **method_out);

/* ---- cmd_user.c: the program's memory. -EFAULT instead of a signal. ---- */
int user_read(void *to, uint64_t from, size_t len);
int user_write(uint64_t to, const void *from, size_t len);
int user_zero(uint64_t to, size_t len);
/* Would user_write() work? Leaves what is there; for responses that must not fail any more. */
int user_probe_write(uint64_t to, size_t len);

/* The same for a response's two parts, core and driver, in one call; either may be empty. */
struct user_part {
    uint64_t theirs;
    void *ours;
    size_t len;
};
int user_write_two(const struct user_part parts[2]);
int user_probe_two(const struct user_part parts[2]);

/* ---- uverbs.c ---- */
/* The driver's part of the response: NULL if the program left too little room for it. */
void *cmd_driver_resp(struct cmd *cmd, size_t size);
/* response_length of an extended command: what of `size` bytes will reach the program. */
uint32_t cmd_response_length(const struct cmd *cmd, size_t size);
/* Where the provider finds "its ring": the dummy page, whatever the object. */
struct mminfo cmd_ring_info(void);

/* ---- look-ups: NULL unless the object is this context's ---- */
struct pd *cmd_pd(const struct cmd *cmd, uint32_t handle);
struct cq *cmd_cq(const struct cmd *cmd, uint32_t handle);
struct srq *cmd_srq(const struct cmd *cmd, uint32_t handle);
struct qp *cmd_qp(const struct cmd *cmd, uint32_t handle);
struct xrcd *cmd_xrcd(const struct cmd *cmd, uint32_t handle);
struct ah *cmd_ah(const struct cmd *cmd, uint32_t handle);

/* ---- cmd_device.c ---- */
int cmd_get_context(struct cmd *cmd);
int cmd_query_device(struct cmd *cmd);
int cmd_query_device_ex(struct cmd *cmd);
int cmd_query_port(struct cmd *cmd);

/* ---- cmd_memory.c ---- */
int cmd_alloc_pd(struct cmd *cmd);
int cmd_dealloc_pd(struct cmd *cmd);
int cmd_reg_mr(struct cmd *cmd);
int cmd_rereg_mr(struct cmd *cmd);
int cmd_dereg_mr(struct cmd *cmd);
int cmd_alloc_mw(struct cmd *cmd);
int cmd_dealloc_mw(struct cmd *cmd);

/* ---- cmd_cq.c ---- */
int cmd_create_comp_channel(struct cmd *cmd);
int cmd_create_cq(struct cmd *cmd);
int cmd_create_cq_ex(struct cmd *cmd);
int cmd_resize_cq(struct cmd *cmd);
int cmd_destroy_cq(struct cmd *cmd);
int cmd_req_notify_cq(struct cmd *cmd);
int cmd_poll_cq(struct cmd *cmd);

/* ---- cmd_srq.c ---- */
int cmd_create_srq(struct cmd *cmd);
int cmd_create_xsrq(struct cmd *cmd);
int cmd_modify_srq(struct cmd *cmd);
int cmd_query_srq(struct cmd *cmd);
int cmd_destroy_srq(struct cmd *cmd);

/* ---- cmd_qp.c ---- */
int cmd_create_qp(struct cmd *cmd);
int cmd_create_qp_ex(struct cmd *cmd);
int cmd_destroy_qp(struct cmd *cmd);
int cmd_attach_mcast(struct cmd *cmd);
int cmd_detach_mcast(struct cmd *cmd);
int cmd_create_ah(struct cmd *cmd);
int cmd_destroy_ah(struct cmd *cmd);

/* ---- cmd_xrc.c ---- */
int cmd_open_xrcd(struct cmd *cmd);
int cmd_close_xrcd(struct cmd *cmd);
int cmd_open_qp(struct cmd *cmd);

/* ---- cmd_qp_attr.c ---- */
int cmd_modify_qp(struct cmd *cmd);
int cmd_modify_qp_ex(struct cmd *cmd);
int cmd_query_qp(struct cmd *cmd);

/* ---- cmd_post.c ---- */
int cmd_post_send(struct cmd *cmd);
int cmd_post_recv(struct cmd *cmd);
int cmd_post_srq_recv(struct cmd *cmd);

#endif
