/* SPDX-License-Identifier: MIT */
/*
 * The verbs objects of this process and what the control path does with them: contexts, protection
 * domains, regions, windows, completion queues and channels, shared receive queues, address
 * handles, multicast, events. Queue pairs have their own header (core/qp.h).
 *
 *   context --owns--> pd, channel, cq, ah ...   every object counts its users: destroying one that
 *                                               is in use answers -EBUSY
 *
 * Locks: every function here is called with core_lock() held, unless it says "data path". A handle
 * is the object's index in its table; indices are shared by all contexts of the process, so a
 * caller that takes a handle from a command must check object->context. Errors: negative errno.
 * Output arguments are written on success only.
 */
#ifndef VIADUCT_CORE_OBJECTS_H
#define VIADUCT_CORE_OBJECTS_H

#include <infiniband/verbs.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/config.h"

struct qp;
struct xrcd;

void core_lock(void);
bool core_try_lock(void);
void core_unlock(void);

/*
 * Take a slot, make the arena, start the engine thread: once, at the first context. Later calls
 * return at once. -EAGAIN: all slots are taken; -ENOMEM, -EACCES ...: the runtime directory.
 */
int process_open(void);
bool process_is_open(void);
uint32_t process_slot(void);

/* ---- contexts ---- */
struct context {
    const struct nic *nic;
    int async_fd;            /* the program's end (read) */
    int async_ours;          /* our descriptor of the pipe, non-blocking */
    struct ibv_context *ibv; /* once known, see uapi/fastpath.h */
    unsigned path_mtu;       /* bytes: what the NIC's interface carries */
    _Atomic bool removed;    /* its NIC was taken away (core/removal.h): commands fail with EIO */
    bool lives_again;        /* when the NIC comes again: librdmacm's, see uapi/symbols.c */
    struct context *next;    /* all of the process */
};

int context_open(const struct nic *nic, struct context **context_out);
/* Destroys everything the context still owns, in order, as the kernel does at the last close. */
void context_close(struct context *context);
/* The child of a fork: contexts are dead, nothing shared may be touched any more. */
void core_after_fork(void);

void device_query(const struct nic *nic, struct ibv_device_attr *attr_out);
int port_query(const struct nic *nic, unsigned port, struct ibv_port_attr *attr_out);

/* ---- asynchronous events and completion channels ---- */
struct event_counts {
    uint32_t reported; /* events written and not withdrawn: what the destroy response says */
};

struct channel {
    int fd, ours;
    unsigned users; /* CQs */
    struct context *context;
    struct channel *next;
};

int channel_create(struct context *context, struct channel **channel_out);
void channel_destroy(struct channel *channel); /* the program closed its fd */

/* element is the object's user_handle; counts may be NULL (port and device events) */
void event_async(struct context *context, enum ibv_event_type type, uint64_t element,
                 struct event_counts *counts);
/* Drop unread async events of element from the queue and from counts. */
void event_withdraw(struct context *context, uint64_t element, struct event_counts *counts);

/* ---- protection domains ---- */
struct pd {
    uint32_t handle; /* never 0; also the domain's number in the arena */
    struct context *context;
    unsigned users;
    struct pd *real; /* a parent domain: the protection domain that it stands for */
    struct td *td;   /* and its thread domain, or NULL */
};

/*
 * A thread domain: the program's word that one thread uses what is made with it. Nothing is made
 * simpler by that here, but programs and their accounts of it work.
 */
struct td {
    struct context *context;
    unsigned users;
};

int pd_alloc(struct context *context, struct pd **pd_out);
/* A parent domain (ibv_alloc_parent_domain(3)): another handle of pd, which must outlive it. */
int pd_alloc_parent(struct pd *pd, struct td *td, struct pd **pd_out);
int pd_dealloc(struct pd *pd); /* -EBUSY */
struct pd *pd_get(uint32_t handle);

/* ---- memory regions and windows ---- */
struct mr {
    uint32_t handle; /* key index */
    uint32_t key;    /* lkey and rkey */
    struct context *context;
    struct pd *pd;
    uint64_t addr, iova, length;
    unsigned access;
    _Atomic unsigned windows; /* bound to it */
};

/*
 * -EINVAL: remote write or atomic access without local write, length 0, range wraps, unknown flag;
 * -EFAULT: not mapped, or not writable though local write is asked; -EOPNOTSUPP: on-demand paging.
 * iova and addr must be equal modulo the page size; a zero based region has no iova of its own.
 */
int mr_reg(struct pd *pd, uint64_t addr, uint64_t length, uint64_t iova, unsigned access,
           struct mr **mr_out);
int mr_rereg(struct mr *mr, unsigned flags, struct pd *pd, uint64_t addr, uint64_t length,
             uint64_t iova, unsigned access);
int mr_dereg(struct mr *mr); /* -EBUSY: windows are bound. On return nobody touches the memory. */
struct mr *mr_get(uint32_t handle);

struct mw {
    uint32_t handle; /* key index */
    uint32_t key;    /* the current rkey */
    enum ibv_mw_type type;
    struct context *context;
    struct pd *pd;
    _Atomic(struct mr *) mr; /* bound to, or NULL */
    uint32_t qpn;            /* bound by */
};

int mw_alloc(struct pd *pd, enum ibv_mw_type type, struct mw **mw_out);
int mw_dealloc(struct mw *mw);
struct mw *mw_get(uint32_t handle);

/* ---- completion queues ---- */
struct cq;

int cq_create(struct context *context, uint32_t cqe, struct channel *channel, uint32_t comp_vector,
              bool wallclock, uint64_t user_handle, struct cq **cq_out);
int cq_resize(struct cq *cq, uint32_t cqe); /* -EINVAL: fewer than what waits in it; 0 */
uint32_t cq_capacity(struct cq *cq);
uint32_t cq_handle(struct cq *cq);
struct context *cq_context(struct cq *cq);
uint64_t cq_user_handle(struct cq *cq);
void cq_stamp(struct cq *cq); /* from now on completions carry the wall clock */
/* -EBUSY; withdraws unread events and says how many of each the program has been given. */
int cq_destroy(struct cq *cq, uint32_t *comp_events_out, uint32_t *async_events_out);
/*
 * A peer died in the middle of an event: one more than cq_destroy() counts may have been written.
 */
bool cq_is_in_doubt(struct cq *cq);
struct cq *cq_get(uint32_t handle); /* data path: one load; NULL if out of range or free */
/* data path, kernel allowed: the next completion (any, or solicited) writes an event */
int cq_arm(struct cq *cq, bool solicited_only);

/* data path: one polled completion, with what struct ibv_wc can't hold */
struct completion {
    struct ibv_wc wc;
    uint64_t timestamp_ns; /* wall clock, if the CQ stamps */
};
/* data path: up to n completions in wc[]; drives progress of this process's queue pairs */
int cq_poll(struct cq *cq, int n, struct ibv_wc *wc);
/*
 * data path, for extended polling: 1 and a completion, 0 if empty, negative errno on overrun.
 * cq_poll_lock()/unlock() bracket a start_poll ... end_poll sequence.
 */
void cq_poll_lock(struct cq *cq);
int cq_poll_one(struct cq *cq, struct completion *completion_out);
void cq_poll_unlock(struct cq *cq);
/*
 * While a session is open, and has not found the CQ empty, no event is written: the session is
 * about to poll what came, and programs take an event without a completion for an error. Its end
 * announces what it has left.
 */
void cq_session(struct cq *cq, bool open);

/* ---- shared receive queues ---- */
struct srq;
struct srq_attr {
    uint32_t max_wr, max_sge, limit;
};

int srq_create(struct pd *pd, const struct srq_attr *attr, uint64_t user_handle,
               struct srq **srq_out, struct srq_attr *granted_out);
int srq_modify(struct srq *srq, unsigned mask, const struct srq_attr *attr); /* ibv_srq_attr_mask */
void srq_query(struct srq *srq, struct srq_attr *attr_out);
int srq_destroy(struct srq *srq, uint32_t *events_out); /* -EBUSY */
struct srq *srq_get(uint32_t handle);
struct context *srq_context(struct srq *srq);
uint32_t srq_number(struct srq *srq); /* what XRC requests name */
uint32_t srq_handle(struct srq *srq);
/* data path: 0 or positive errno with *bad_wr, as ibv_post_srq_recv(3) */
int srq_post_recv(struct srq *srq, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad_wr);

/* ---- address handles ---- */
struct ah {
    uint32_t handle; /* never 0 */
    struct context *context;
    struct pd *pd;
    uint8_t dgid[16];
    uint8_t sgid_index, traffic_class, hop_limit, sl;
    uint32_t flow_label;
};

/* -EINVAL: port is not 1, no GRH (RoCE needs one), or sgid_index not in the table */
int ah_create(struct pd *pd, const struct ibv_ah_attr *attr, struct ah **ah_out);
int ah_destroy(struct ah *ah);
struct ah *ah_get(uint32_t handle);

/* ---- multicast ---- */
int mcast_attach(struct qp *qp,
                 const uint8_t mgid[16]); /* again: 0. -EINVAL: not UD or not a group */
int mcast_detach(struct qp *qp, const uint8_t mgid[16]); /* -EINVAL: not attached */
void mcast_detach_all(struct qp *qp);

#endif
