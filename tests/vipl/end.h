/* SPDX-License-Identifier: MIT */
/*
 * One end of a VIPL test: a NIC, a tag, a registered area, a VI, and the errors that were raised.
 * An end lives in a process of its own or in the test's (then end_of() shows it); orders run there.
 *
 *   struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);      two processes
 *   post_recv(e.b, 0, 100);
 *   post_send(e.a, 0, 100);
 *   expect_done(e.b, RECV, 0, VIP_STATUS_OP_RECEIVE, 100);
 *
 * The area has SLOTS slots: a descriptor, and SLOT_DATA bytes of data behind all descriptors.
 * VIPL_TEST_DEVICE names the device; via0 if it is not set.
 */
#ifndef TESTS_VIPL_END_H
#define TESTS_VIPL_END_H

#include "t.h"
#include "vipl.h"

#include <stdatomic.h>

enum {
    SLOTS = 32,
    DESCRIPTOR_ROOM = 1024, /* 62 segments */
    SLOT_DATA = 64 * 1024,
    SOON_MS = 20000, /* never waited for to the end, unless something is wrong */
    ERRORS_MAX = 64,
    NAME_BYTES = 16,
    ADDRESS_ROOM = 64,
    MTS = 32 * 1024,
};

/* Where the other end lives. ThreadSanitizer sees one process only. */
#ifdef __SANITIZE_THREAD__
#define ELSEWHERE T_THREAD
#else
#define ELSEWHERE T_PROCESS
#endif

enum which { SEND, RECV };

struct end {
    VIP_NIC_HANDLE nic;
    VIP_NIC_ATTRIBUTES limits;
    VIP_PROTECTION_HANDLE ptag;
    VIP_VI_HANDLE vi;
    VIP_CQ_HANDLE cq;
    VIP_CONN_HANDLE conn;
    char *area;
    VIP_MEM_HANDLE handle;
    _Atomic int error_count;
    VIP_ERROR_DESCRIPTOR errors[ERRORS_MAX];
};

/* What to do, and what came of it; 0 is the default everywhere. */
struct order {
    /* opening */
    VIP_RELIABILITY_LEVEL level;
    VIP_ULONG mts;
    bool send_cq, recv_cq, read, no_write; /* read, no_write: what the other end may do */
    /* connecting */
    char name[NAME_BYTES], other[NAME_BYTES];
    _Alignas(8) char host[ADDRESS_ROOM], remote[ADDRESS_ROOM];
    VIP_ULONG timeout;
    VIP_VI_ATTRIBUTES theirs;
    /* posting and taking */
    enum which which;
    int slot, segments;
    uint16_t control;
    uint32_t immediate, len;
    uint64_t there;
    VIP_MEM_HANDLE there_handle;
    uint64_t seed;
    /* what came of it */
    VIP_RETURN result;
    uint32_t status, length;
    int found; /* slot of the descriptor, -1: NULL */
    VIP_VI_STATE state;
    bool send_empty, recv_empty;
    uint64_t area;
    VIP_MEM_HANDLE handle;
    int count;
    VIP_ERROR_CODE code;
};

struct ends {
    struct t_peer *a, *b; /* a: in this process, the client; b: the server */
};

const char *test_device(void);
/* A discriminator nobody else has. */
void fresh_name(char name[NAME_BYTES]);

/* ---- in this process ---- */

void end_open(struct end *end);
void end_close(struct end *end);
VIP_VI_ATTRIBUTES end_attributes(const struct end *end, VIP_RELIABILITY_LEVEL level);
VIP_RETURN end_create_vi(struct end *end, VIP_RELIABILITY_LEVEL level, VIP_VI_HANDLE *vi_out);
/* This NIC with a discriminator; room: ADDRESS_ROOM. */
VIP_NET_ADDRESS *end_address(const struct end *end, const char *name, void *room);
VIP_NET_ADDRESS *host_address(const void *host, const char *name, void *room);
VIP_DESCRIPTOR *end_descriptor(const struct end *end, int slot);
char *end_data(const struct end *end, int slot);
/* One data segment of `len` bytes in the slot. */
VIP_DESCRIPTOR *end_prepare(const struct end *end, int slot, uint32_t len);
/* Waits for an error of this kind; NULL: none came. */
const VIP_ERROR_DESCRIPTOR *end_error(struct end *end, VIP_ERROR_CODE code);
int end_error_count(struct end *end, VIP_ERROR_CODE code);
/* Takes the next descriptor, waiting for it. */
VIP_RETURN end_take(VIP_VI_HANDLE vi, enum which which, VIP_DESCRIPTOR **out);
struct end *end_of(struct t_peer *peer);

/* ---- orders, for ends in any process ---- */

t_peer_fn do_open, do_serve, do_request, do_post, do_take, do_disconnect, do_query, do_error,
    do_close, do_fill, do_compare, do_quiet;

struct order order_run(struct t_peer *peer, t_peer_fn *fn, struct order order);

/* Two ends with a VI each, as the order says, the second one in a process of its own. */
struct ends ends_open(struct order order);
void ends_join(struct ends ends);
struct ends ends_connect_as(struct order order);
struct ends ends_connect(VIP_RELIABILITY_LEVEL level);
void ends_close(struct ends ends);

void post_recv(struct t_peer *end, int slot, uint32_t len);
void post_send(struct t_peer *end, int slot, uint32_t len);
/* The next descriptor of the queue is this slot's, with this status (VIP_STATUS_DONE added). */
void expect_done(struct t_peer *end, enum which which, int slot, uint32_t status, uint32_t length);
/* The queue has nothing left. */
void expect_empty(struct t_peer *end, enum which which);
void expect_state(struct t_peer *end, VIP_VI_STATE state);
/* Of the end's VI. */
void expect_error(struct t_peer *end, VIP_ERROR_CODE code);

/*
 * A test at each level: a function of the level, and a test for each of the three. (Processes are
 * forked before a device is opened, so a test can't begin afresh.)
 */
#define T_LEVEL(suite_, name_, level_, value_)                                                     \
    T_TEST(suite_, name_##_##level_)                                                               \
    {                                                                                              \
        name_##_at(value_);                                                                        \
    }
#define T_RELIABLE_LEVELS(suite_, name_)                                                           \
    T_LEVEL(suite_, name_, delivery, VIP_SERVICE_RELIABLE_DELIVERY)                                \
    T_LEVEL(suite_, name_, reception, VIP_SERVICE_RELIABLE_RECEPTION)
#define T_LEVELS(suite_, name_)                                                                    \
    T_LEVEL(suite_, name_, unreliable, VIP_SERVICE_UNRELIABLE)                                     \
    T_RELIABLE_LEVELS(suite_, name_)

#endif
