/* SPDX-License-Identifier: MIT */
/*
 * Two transports on a wire that loses, doubles, delays and spoils, in virtual time: nothing here
 * has a clock or sleeps, and a seed says everything.
 *
 *   node 0 --transport_next--> bytes --faults, delay--> parse --transport_receive--> node 1
 *
 * A node is what the NIC's core is to a transport: memory behind keys, a receive queue, a log of
 * completions.
 */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/transport.h"

enum {
    SIM_MEMORY = 1 << 20,
    SIM_LOG = 8192,
    SIM_RECVS = 256,
    SIM_XRC_SRQN = 0x4321,     /* the one shared receive queue of XRC nodes */
    SIM_KEY_LOCAL = 0x100,     /* all of the memory, to be written too */
    SIM_KEY_REMOTE = 0x200,    /* all of it, every right */
    SIM_KEY_READ_ONLY = 0x300, /* remotely read only */
    SIM_KEY_GONE = 0x400,      /* no such key */
    SIM_KEY_WINDOW = 0x500,    /* as REMOTE; a SEND may invalidate it */
};

/* Parts in a million. */
struct sim_faults {
    uint32_t loss, dup, reorder, corrupt, mark;
    uint32_t lose_each;                   /* each so-manieth packet, 0: none */
    uint32_t burst;                       /* a loss takes up to so many with it */
    uint64_t dark_from_ns, dark_until_ns; /* nothing gets through */
};

enum sim_log_kind { LOG_SEND, LOG_RECV, LOG_FAIL };

struct sim_entry {
    enum sim_log_kind kind;
    uint64_t cookie; /* LOG_RECV: the receive's */
    enum transport_op op;
    enum transport_status status;
    enum transport_failure failure;
    unsigned flags;
    uint32_t byte_len, imm, xrc_srqn;
};

struct sim_recv {
    uint64_t cookie;
    uint32_t sge_count;
    struct transport_sge sges[4];
};

struct sim;

struct sim_node {
    struct sim *sim;
    unsigned index;
    struct transport *transport;
    struct transport_config config;
    uint32_t psn;
    uint8_t *memory; /* a key's addresses are offsets in here */
    bool window_gone, key_gone;
    bool far; /* XRC: the last request is for memory that can only be moved to */
    uint8_t moved[WIRE_PAYLOAD_MAX];
    struct sim_recv recvs[SIM_RECVS];
    uint32_t recv_head, recv_tail; /* taken, posted */
    bool shared_receives;          /* grant no credits */
    struct sim_entry log[SIM_LOG];
    uint32_t logged;
    /* Called with each entry, if set. */
    void (*on_entry)(struct sim_node *node, const struct sim_entry *entry);
    void *user;
};

struct sim_frame {
    uint64_t at_ns, order;
    unsigned to;
    bool marked;
    uint32_t len;
    uint8_t bytes[WIRE_PACKET_MAX];
    struct sim_frame *next;
};

enum sim_fate { FATE_DELIVER, FATE_LOSE, FATE_TWICE };

struct sim {
    uint64_t now_ns, order, seed;
    uint64_t delay_ns;
    uint32_t ns_per_kib;       /* how fast the wire is; 0: at once */
    uint32_t queue_max;        /* frames that wait at a wire's end, 0: any number */
    uint64_t busy_until_ns[2]; /* by sending node */
    struct sim_faults faults;
    uint32_t unreached_ppm; /* XRC: how often an SRQ is out of reach; 0: and never far */
    uint64_t frames, lost, bursting;
    struct sim_node nodes[2];
    struct sim_frame *queue; /* by time */
    struct sim_frame *spare;
    /* What a test does to particular frames, if set. */
    enum sim_fate (*fate)(struct sim *sim, unsigned to, const struct wire_packet *packet);
    void *user;
};

uint64_t sim_random(struct sim *sim);
uint64_t sim_below(struct sim *sim, uint64_t bound);
bool sim_chance(struct sim *sim, uint32_t ppm);

/* A usual RC pair: MTU 1024, timeout 14, 7 retries of both kinds, 16 READs. Change, then start. */
struct sim *sim_new(uint64_t seed, enum transport_type type);
void sim_start(struct sim *sim);
void sim_free(struct sim *sim);

/* Post; true if there was room. */
bool sim_post(struct sim_node *node, const struct transport_wr *wr);
void sim_recv(struct sim_node *node, uint64_t cookie, uint32_t at, uint32_t length);
/* A request with one element, [at, at + length) of the node's memory, to `remote`. */
struct transport_wr sim_wr(enum transport_op op, uint64_t cookie, uint32_t at, uint32_t length,
                           uint32_t remote);

/* Send what is due, and let the next thing happen; false: nothing is left to happen. */
bool sim_step(struct sim *sim);
/* Until nothing happens any more, or the time is over. */
void sim_run(struct sim *sim, uint64_t for_ns);

/* The n-th entry of that kind in the log, or NULL. */
const struct sim_entry *sim_nth(const struct sim_node *node, enum sim_log_kind kind, unsigned n);
unsigned sim_count(const struct sim_node *node, enum sim_log_kind kind);

extern const struct transport_calls sim_calls;

#endif
