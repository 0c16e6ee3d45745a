/* SPDX-License-Identifier: MIT */
/*
 * What the stress programs need of verbs, in few words, and checks that end the process. Plain
 * mains, not harness tests: their processes are killed, forked and counted on purpose.
 */
#ifndef STRESS_RIG_H
#define STRESS_RIG_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rig {
    struct ibv_context *ctx;
    struct ibv_pd *pd;
    union ibv_gid gid;
};

/* What the other end must know of a queue pair and of some memory. */
struct rig_address {
    uint32_t qpn;
    union ibv_gid gid;
    uint64_t addr;
    uint32_t rkey;
};

struct rig_qp_options {
    enum ibv_qp_type type;
    struct ibv_cq *send_cq, *recv_cq;
    struct ibv_srq *srq;
    uint32_t sends, receives, inline_size;
};

enum { RIG_QKEY = 0x1234567 };

/* The seed's origin and this line are all it takes to run a failure again. */
#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        if (!(cond))                                                                               \
            check_failed(__FILE__, __LINE__, #cond, " " __VA_ARGS__);                              \
    } while (0)
_Noreturn void check_failed(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* Called once before the process ends by a failed check, to say where it was. */
extern void (*check_context)(void);

void rig_open(struct rig *rig);
void rig_close(struct rig *rig);
struct ibv_cq *rig_cq(struct rig *rig, int entries, struct ibv_comp_channel *channel);
struct ibv_mr *rig_memory(struct rig *rig, size_t size); /* zeroed, every right */
void rig_memory_free(struct ibv_mr *mr);
struct ibv_qp *rig_qp(struct rig *rig, const struct rig_qp_options *options);
struct rig_address rig_address(const struct rig *rig, const struct ibv_qp *qp,
                               const struct ibv_mr *mr);
/*
 * How long requests wait for a peer that does not answer: 4.096 us * 2^this, four times. At first
 * 17 s, because a busy machine may not let it run for a while.
 */
extern uint8_t rig_timeout;
/* Up to RTS. False: the other end died meanwhile, which has failed the queue pair. */
bool rig_connect(struct ibv_qp *qp, const struct rig_address *to);
struct ibv_ah *rig_ah(struct rig *rig, const union ibv_gid *gid);
void rig_to_error(struct ibv_qp *qp);

/* xorshift: one state a process. */
void rig_seed(uint64_t seed);
uint64_t rig_random(uint64_t below);

uint64_t rig_now_ns(void);
uint64_t rig_cpu_ns(void); /* that this process has used */
/* VIADUCT_TEST_SLOW: the factor by which limits are stretched on slow machines. */
uint64_t rig_slow(void);
unsigned rig_open_files(void);
/* 0 with AddressSanitizer, which keeps what was freed for a while. */
uint64_t rig_resident_bytes(void);
/* Bytes that the arena of this process takes. */
uint64_t rig_arena_bytes(void);
/* The value of --NAME or `otherwise`. */
uint64_t rig_option(int argc, char **argv, const char *name, uint64_t otherwise);

#endif
