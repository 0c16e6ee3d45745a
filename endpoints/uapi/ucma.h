/* SPDX-License-Identifier: MIT */
/*
 * /dev/infiniband/rdma_cm inside: an open file is an event channel, identifiers belong to a file.
 *
 *   write(fd, {cmd, in, out, request}) --ucma.c--> struct ucma_call --ucma_cmd*.c--> core/cma.h
 *   core/cma.h --handler--> ucma_event.c: queue --GET_EVENT--> program
 *
 * The descriptor is an eventfd that counts the events in the queue, so that poll() and O_NONBLOCK
 * are the kernel's own.
 */
#ifndef VIADUCT_UAPI_UCMA_H
#define VIADUCT_UAPI_UCMA_H

#include <rdma/rdma_user_cm.h>
#include <stdatomic.h>

#include "core/cma.h"
#include "uapi/uapi.h"

enum { UCMA_REQ_MAX = 384, UCMA_RESP_MAX = 640, UCMA_OTHER_MAX = 65535 };

struct ucma_event;

struct ucma_file {
    struct uapi_file file;
    int fd; /* our own duplicate of the eventfd */
    struct ucma_event *first, **last;
    atomic_uint queued; /* what GET_EVENT sleeps on */
    struct ucma_file *next_file;
};

struct ucma_id {
    uint32_t handle;
    struct ucma_file *file;
    struct cma_id *cma;
    uint64_t uid; /* 0: a request the program has not accepted yet */
    bool removed; /* its NIC was taken away: cma is gone, and the program is to destroy the rest */
    uint32_t events_reported;
    struct ucma_mcast *mcasts;
};

struct ucma_mcast {
    uint32_t handle;
    struct ucma_id *id;
    uint64_t uid;
    uint32_t events_reported;
    struct ucma_mcast *next;
};

struct ucma_event {
    struct ucma_event *next;
    struct ucma_id *id;
    struct ucma_mcast *mcast; /* or NULL */
    struct ucma_id *fresh;    /* a request's new identifier, or NULL */
    struct rdma_ucm_event_resp resp;
};

/* Younger than the headers of some systems: a program sends itself an event. */
struct ucma_write_event {
    uint32_t id, reserved;
    uint32_t event, status;
    union {
        struct rdma_ucm_conn_param conn;
        struct rdma_ucm_ud_param ud;
        uint32_t arg32[2];
    } param;
};

enum {
    UCMA_WRITE_EVENT = 24, /* RDMA_USER_CM_CMD_WRITE_CM_EVENT */
    UCMA_EVENT_USER = 18,  /* RDMA_CM_EVENT_USER */
    UCMA_EVENT_INTERNAL = 19,
};

/* One command: private copies only. `resp` is zeroed; what resp_len says reaches the program. */
struct ucma_call {
    struct ucma_file *file;
    uint64_t req[UCMA_REQ_MAX / 8];
    uint64_t resp[UCMA_RESP_MAX / 8];
    size_t resp_len;
    size_t out_len; /* what the program has room for */
};

/* ---- ucma_event.c ---- */
int ucma_channel_open(struct ucma_file *file, int flags, int *fd_out);
void ucma_channel_close(struct ucma_file *file);
/* 0 once there is an event, core_lock held; else not held. -EAGAIN, -EINTR. */
int ucma_channel_wait(struct ucma_file *file);
int ucma_write_event(struct ucma_call *call);
bool ucma_post(struct ucma_id *id, struct ucma_mcast *mcast, struct ucma_id *fresh,
               const struct cma_event *event);
struct ucma_event *ucma_take(struct ucma_file *file);
/* Drop what is queued about the identifier (or only about the group, if it is not NULL). */
void ucma_withdraw(struct ucma_id *id, const struct ucma_mcast *mcast);
void ucma_move_events(struct ucma_id *id, struct ucma_file *to);
cma_handler ucma_on_event;

/* ---- ucma_id.c ---- */
/* -ENOENT: no such handle; -EINVAL: of another file; -ENXIO: its NIC was taken away. */
int ucma_find(const struct ucma_file *file, uint32_t handle, struct ucma_id **id_out);
/* The same, but for -ENXIO: one whose NIC was taken away. */
int ucma_find_any(const struct ucma_file *file, uint32_t handle, struct ucma_id **id_out);
void ucma_nic_removed(const struct nic *nic);
struct ucma_id *ucma_id_new(struct ucma_file *file, uint64_t uid); /* NULL: no room */
void ucma_id_free(struct ucma_id *id);
void ucma_close_all(struct ucma_file *file);
void ucma_ids_after_fork(void);
struct ucma_mcast *ucma_mcast_new(struct ucma_id *id, uint64_t uid);
int ucma_mcast_find(const struct ucma_file *file, uint32_t handle, struct ucma_mcast **mcast_out);
void ucma_mcast_free(struct ucma_mcast *mcast);

/* ---- ucma_addr.c ---- */
/* -EINVAL: no address we know, or too short. `room` is how many bytes there are. */
int ucma_addr_in(const void *sockaddr, size_t room, struct cma_addr *addr_out);
size_t ucma_addr_out(const struct cma_id *id, const struct cma_addr *addr, void *sockaddr_out);
void ucma_path_out(const struct cma_id *id, struct ib_user_path_rec *path_out);
int ucma_query_route(struct ucma_call *call);
int ucma_query(struct ucma_call *call);

/* ---- the commands ---- */
int ucma_create_id(struct ucma_call *call);
int ucma_destroy_id(struct ucma_call *call);
int ucma_bind_ip(struct ucma_call *call);
int ucma_bind(struct ucma_call *call);
int ucma_resolve_ip(struct ucma_call *call);
int ucma_resolve_addr(struct ucma_call *call);
int ucma_resolve_route(struct ucma_call *call);
int ucma_connect(struct ucma_call *call);
int ucma_listen(struct ucma_call *call);
int ucma_accept(struct ucma_call *call);
int ucma_reject(struct ucma_call *call);
int ucma_disconnect(struct ucma_call *call);
int ucma_init_qp_attr(struct ucma_call *call);
int ucma_get_event(struct ucma_call *call);
int ucma_set_option(struct ucma_call *call);
int ucma_notify(struct ucma_call *call);
int ucma_join_ip_mcast(struct ucma_call *call);
int ucma_join_mcast(struct ucma_call *call);
int ucma_leave_mcast(struct ucma_call *call);
int ucma_migrate_id(struct ucma_call *call);

/* An open rdma_cm file of ours, or NULL; to be given back with fdtab_put(). */
struct ucma_file *ucma_file_hold(int fd);

#endif
