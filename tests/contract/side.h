/* SPDX-License-Identifier: MIT */
/*
 * One side of a connection: a context and everything on it that a traffic test needs.
 *
 *      +-------------------------- side ---------------------------+
 *      |  ctx   pd   mr over buf [0, size), guards before and after |
 *      |  send_cq  recv_cq  (channel)  (srq)  qp[0..qps-1]  (ah)    |
 *      +------------------------------------------------------------+
 *
 * A side lives in one peer (see t.h): the test's own thread, another thread, or another process.
 * Tests move it through ends.h, or use it directly where one side is all they need.
 */
#ifndef CONTRACT_SIDE_H
#define CONTRACT_SIDE_H

#include "t.h"

#include <infiniband/verbs.h>

enum {
    SIDE_QPS = 64,
    SIDE_KEYS = 8,
    SIDE_GUARD = 4096,
    POST_SGE = 64,
    EVENTS_MAX = 64,
    WAIT_MS = 10000, /* for things that must happen: far more than they take */
    EVENT_MS = 1000, /* for asynchronous events */
    QUIET_MS = 20,   /* for things that must not: long against any device's latency */
};

/* In an option, 0 means "the default"; this means 0. */
enum { ZERO = -1 };

/* Every right a region or a queue pair can give to others. */
enum {
    ACCESS_REMOTE = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
    ACCESS_ALL = ACCESS_REMOTE | IBV_ACCESS_LOCAL_WRITE,
};

struct side_opt {
    enum ibv_qp_type type;       /* RC */
    int qps;                     /* 1; ZERO for none */
    int cqe;                     /* 256 */
    uint32_t send_wr, recv_wr;   /* 64 */
    uint32_t send_sge, recv_sge; /* 4 */
    uint32_t inline_size;        /* 0 */
    bool sig_all;
    bool events; /* the CQs get a completion channel */
    bool one_cq; /* one CQ for sends and receives */
    bool use_srq;
    uint32_t srq_wr, srq_sge; /* 64, 4 */
    uint64_t send_ops;        /* not 0: a QP for the ibv_wr_* calls */
    bool cq_ex;               /* extended CQs, with wc_flags */
    uint64_t wc_flags;
    size_t size;                   /* of the buffer: 64 KiB */
    int mr_access;                 /* ACCESS_ALL; ZERO for none */
    int qp_access;                 /* ACCESS_REMOTE; ZERO for none */
    int timeout;                   /* 14: 67 ms */
    int retry_cnt;                 /* 6 */
    int rnr_retry;                 /* 7: for ever */
    int min_rnr_timer;             /* 1: 10 us */
    int rd_atomic, dest_rd_atomic; /* 4 */
    enum ibv_mtu mtu;              /* 1024, or what the port can do */
    uint32_t qkey;
    bool unconnected; /* leave the QPs in RESET */
};

/* What the other side must know, and what the test wants to know. */
struct side_info {
    uint32_t qpn[SIDE_QPS];
    uint32_t psn[SIDE_QPS];
    union ibv_gid gid;
    uint16_t lid;
    uint64_t addr; /* of byte 0 of the buffer, as others address it */
    uint64_t seed; /* of the pattern in the buffer */
    uint32_t rkey, lkey;
    enum ibv_mtu mtu;
    struct ibv_qp_cap cap;
    int cqe;
    void *share; /* the side itself, for another side of the same thread */
};

struct async_queue {
    int count;
    struct ibv_async_event event[EVENTS_MAX];
};

struct side {
    struct side_opt opt;
    struct side_info info;
    struct ibv_context *ctx;
    bool shared_ctx; /* the context belongs to the other side */
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    struct ibv_cq *send_cq, *recv_cq;
    struct ibv_srq *srq;
    struct ibv_qp *qp[SIDE_QPS];
    struct ibv_mr *mr;
    struct ibv_mr *mrs[SIDE_KEYS]; /* further regions and windows: keys.h */
    struct ibv_mw *mw[SIDE_KEYS];
    struct ibv_pd *other_pd;
    uint8_t *raw, *buf; /* raw = guard, buf, guard */
    size_t raw_size;
    struct ibv_ah *ah;
    struct async_queue *async; /* of the context */
    void *extra[8];            /* what a test keeps here */
};

/* The device and GID index under test. */
const char *device_name(void);
int device_gid_index(void);

/* Leaves a mark for the summary test, if there is one (VIADUCT_TEST_RECORD names a folder). */
void record_run(const char *what);

/* Opens the device under test; fails the test if there is none of that name. */
struct ibv_context *device_open(void);

/* The options, with defaults filled in. */
struct side_opt side_options(const struct side_opt *opt);

/* Opens a side; with `share`, on that side's context. */
struct side *side_open(const struct side_opt *opt, struct side *share);
/* Destroys everything in order and checks each result, the guards, and what was left unread. */
void side_close(struct side *s, bool strict);

/* One more queue pair as the options say, not connected; NULL and errno on failure. */
struct ibv_qp *side_create_qp(struct side *s, const struct side_opt *opt);

/* The attributes (and their mask) of each step of a connection, as the options say. */
int side_init_attr(const struct side *s, struct ibv_qp_attr *attr_out);
int side_rtr_attr(const struct side *s, const struct side_info *to, int to_q,
                  struct ibv_qp_attr *attr_out);
int side_rts_attr(const struct side *s, int q, struct ibv_qp_attr *attr_out);
void side_connect(struct side *s, int q, const struct side_info *to, int to_q);
struct ibv_ah_attr side_ah_attr(const struct side_info *to);

enum ibv_qp_state qp_state(struct ibv_qp *qp);
int qp_to_state(struct ibv_qp *qp, enum ibv_qp_state state);

/* Waits for one completion. */
struct ibv_wc cq_wait(struct ibv_cq *cq);
/* Waits for an event of the type on the element (NULL: any), and acknowledges it. */
void side_wait_event(struct side *s, enum ibv_event_type type, const void *element);
/* True if such an event has come, within `ms`; it is taken and acknowledged. */
bool side_has_event(struct side *s, enum ibv_event_type type, const void *element, int ms);

#endif
