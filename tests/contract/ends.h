/* SPDX-License-Identifier: MIT */
/*
 * Two ends of a connection, moved by one straight script.
 *
 * An end is a side (side.h) somewhere: in this thread, in another one, or in another process.
 * Every e_...() call runs there. So one test text serves all topologies:
 *
 *      T_CONTRACT(rc, send)
 *      {
 *          struct pair *p = pair_open(topology, &(struct side_opt){ .type = IBV_QPT_RC });
 *
 *          e_recv(p->b, &(struct post){ .id = 1, .off = p->rx, .len = 64 });
 *          e_send(p->a, &(struct post){ .id = 2, .op = IBV_WR_SEND, .len = 64 });
 *          e_done(p->a, 2, IBV_WC_SEND);
 *          e_got(p->b, 1, IBV_WC_RECV, 64);
 *          e_same(p->b, p->rx, 64, p->a, 0);
 *          pair_close(p);
 *      }
 *
 * Buffers: the lower half, from 0, is for what is sent or read by others; the upper half, from
 * p->rx, for what is received. Both hold a pattern that differs from side to side, so a byte that
 * moved, or did not, is seen. With the topology `self` the two ends are one and the same.
 */
#ifndef CONTRACT_ENDS_H
#define CONTRACT_ENDS_H

#include "side.h"

enum topology { TWO_PROCESSES, TWO_THREADS, ONE_PROCESS, SELF };

/* The topologies that every traffic test runs in. A new one is a line here. */
#define TOPOLOGIES(X, suite, name)                                                                 \
    X(suite, name, two_processes, TWO_PROCESSES)                                                   \
    X(suite, name, two_threads, TWO_THREADS)                                                       \
    X(suite, name, one_process, ONE_PROCESS)

/* Those where both ends can be busy at the same time. */
#define CONCURRENT_TOPOLOGIES(X, suite, name)                                                      \
    X(suite, name, two_processes, TWO_PROCESSES)                                                   \
    X(suite, name, two_threads, TWO_THREADS)

#define STAMP(suite, name, label, value)                                                           \
    T_TEST(suite##_##label, name)                                                                  \
    {                                                                                              \
        suite##_##name(value);                                                                     \
    }

/* Notes for the summary that this program has tests for all topologies, whichever are run. */
void traffic_expected(void);

#define EXPECT_TRAFFIC(suite, name)                                                                \
    __attribute__((constructor)) static void suite##_##name##_expected(void)                       \
    {                                                                                              \
        traffic_expected();                                                                        \
    }

#define T_CONTRACT(suite, name)                                                                    \
    static void suite##_##name(enum topology topology);                                            \
    EXPECT_TRAFFIC(suite, name)                                                                    \
    TOPOLOGIES(STAMP, suite, name)                                                                 \
    static void suite##_##name(enum topology topology)

/* The same, and also a queue pair that is connected to itself. */
#define T_CONTRACT_SELF(suite, name)                                                               \
    static void suite##_##name(enum topology topology);                                            \
    EXPECT_TRAFFIC(suite, name)                                                                    \
    TOPOLOGIES(STAMP, suite, name)                                                                 \
    STAMP(suite, name, self, SELF)                                                                 \
    static void suite##_##name(enum topology topology)

/* For tests in which both ends run loops of their own. */
#define T_CONTRACT_CONCURRENT(suite, name)                                                         \
    static void suite##_##name(enum topology topology);                                            \
    CONCURRENT_TOPOLOGIES(STAMP, suite, name)                                                      \
    static void suite##_##name(enum topology topology)

struct end {
    struct t_peer *peer;
    struct end *to; /* the other end */
    struct side_info info;
    bool loose; /* what is left unread or unexpected at the end is no failure */
    bool dead;
};

struct pair {
    struct end *a, *b;
    struct end end[2];
    enum topology topology;
    uint64_t rx; /* offset of the receive half */
};

/* One work request. Addresses are offsets into the side's own buffer; keys of 0 are the right ones.
 */
struct post {
    int q; /* which queue pair of the side */
    uint64_t id;
    enum ibv_wr_opcode op;
    unsigned flags; /* SIGNALED is added, but for quiet ones */
    bool quiet;
    uint32_t imm; /* host order */
    uint32_t inv_rkey;
    /* The local data: one element, or none if len is 0, or nsge elements of the list. */
    uint64_t off;
    uint32_t len, lkey;
    int nsge;
    struct ibv_sge sge[POST_SGE];
    bool absolute; /* the list's addresses are addresses, its keys are keys */
    /* The remote end: roff counts from the start of the other side's buffer. */
    int64_t roff;
    uint64_t raddr; /* instead of roff, if not 0 */
    uint32_t rkey;
    uint64_t compare_add, swap;
    /* Datagrams: instead of the connected end's first queue pair. */
    uint32_t ud_qpn, ud_qkey;
};

/* --- pairs --------------------------------------------------------------------------------------
 */

/* Opens both ends and connects queue pair i of one with that of the other; NULL: all defaults. */
struct pair *pair_open(enum topology topology, const struct side_opt *opt);
struct pair *pair_open2(enum topology topology, const struct side_opt *a, const struct side_opt *b);
void pair_connect(struct pair *p);
/* Closes both, checks what was left, and ends the test's accounts. */
void pair_close(struct pair *p);
/* Like pair_close, after errors: what is left in queues is of no interest. */
void pair_close_loose(struct pair *p);
void pair_kill_b(struct pair *p);

/* A further end, for tests with more than two. `share` (or NULL): an inline end whose context it
 * uses. */
void end_start(struct end *e, enum t_peer_kind kind);
void end_open(struct end *e, const struct side_opt *opt, struct end *share);
void end_connect(struct end *e, int q, struct end *to, int to_q);
void end_close(struct end *e);

/* --- any code at an end
 * --------------------------------------------------------------------------- */

typedef void end_fn(struct side *s, void *arg);

/* Runs fn there; up to END_ARG bytes of arguments go and come back. */
enum { END_ARG = T_ARG_MAX - 64 };
void e_run(struct end *e, end_fn *fn, void *arg, size_t size);
void e_begin(struct end *e, end_fn *fn, void *arg, size_t size);
void e_finish(struct end *e);

/* --- posting
 * -------------------------------------------------------------------------------------- */

/* Post, and give the call's result; e_send and e_recv demand success. */
int e_try_send(struct end *e, const struct post *post);
int e_try_recv(struct end *e, const struct post *post);
void e_send(struct end *e, const struct post *post);
void e_recv(struct end *e, const struct post *post);
/* `count` receives of len bytes each, ids from first_id, buffers one behind the other from off. */
void e_recv_many(struct end *e, int q, uint64_t first_id, int count, uint64_t off, uint32_t len);

/* --- completions
 * ---------------------------------------------------------------------------------- */

enum which { SEND_CQ, RECV_CQ };

struct ibv_wc e_wait(struct end *e, enum which which);
/* The next completion must have this id and status. */
struct ibv_wc e_expect(struct end *e, enum which which, uint64_t id, enum ibv_wc_status status);
/* A successful send-side completion; a successful receive of so many bytes. */
void e_done(struct end *e, uint64_t id, enum ibv_wc_opcode opcode);
struct ibv_wc e_got(struct end *e, uint64_t id, enum ibv_wc_opcode opcode, uint32_t len);
/* `count` flushed requests, in order. */
void e_flushed(struct end *e, enum which which, uint64_t first_id, int count);
/* Nothing is there now; nothing comes for a while (QUIET_MS). */
void e_none(struct end *e, enum which which);
void e_quiet(struct end *e, enum which which);
/* One call of ibv_poll_cq, at most 64 at a time. */
int e_poll(struct end *e, enum which which, int n, struct ibv_wc *wc_out);

/* --- memory
 * --------------------------------------------------------------------------------------- */

/* Bytes at `off` of e equal what `from` had at from_off when it was opened. */
void e_same(struct end *e, uint64_t off, size_t len, struct end *from, uint64_t from_off);
/* These bytes are as they were when the side was opened; all but these are. */
void e_untouched(struct end *e, uint64_t off, size_t len);
void e_untouched_but(struct end *e, uint64_t off, size_t len);
void e_peek(struct end *e, uint64_t off, void *buf, size_t len);
void e_poke(struct end *e, uint64_t off, const void *buf, size_t len);

/* --- queue pairs and events
 * ------------------------------------------------------------------------- */

enum ibv_qp_state e_state(struct end *e, int q);
void e_wait_state(struct end *e, int q, enum ibv_qp_state state);
int e_modify(struct end *e, int q, const struct ibv_qp_attr *attr, int mask);
int e_to_state(struct end *e, int q, enum ibv_qp_state state);
void e_query(struct end *e, int q, struct ibv_qp_attr *attr_out, struct ibv_qp_init_attr *init_out);
void e_event(struct end *e, enum ibv_event_type type, int q);
bool e_has_event(struct end *e, enum ibv_event_type type, int q, int ms);

/* Proves that a connected pair works, by one send from a to b of queue pair q. */
void pair_works(struct pair *p, int q);

#endif
