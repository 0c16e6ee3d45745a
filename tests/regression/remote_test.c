/* SPDX-License-Identifier: MIT */
/*
 * An initiator whom the kernel does not let reach others' memory: the target's engine moves the
 * data, while its pages are just being shared.
 */
#include "ends.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { REGION = 1 << 20, WRITES = 24, ROUNDS = 8 };

static void refuse_copies(struct side *s, void *arg)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

    (void)s;
    (void)arg;
    T_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    /* For every thread, the engine's too. */
    T_EQ(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program), 0);
}

struct region {
    uint64_t addr;
    uint32_t rkey;
};

/* Memory that was never shared before. */
static void new_region(struct side *s, void *arg)
{
    struct region *region = arg;
    void *memory = mmap(NULL, REGION, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    T_ASSERT(memory != MAP_FAILED);
    if (s->mrs[0]) {
        T_EQ(ibv_dereg_mr(s->mrs[0]), 0);
    }
    s->mrs[0] = ibv_reg_mr(s->pd, memory, REGION, ACCESS_ALL);
    T_ASSERT(s->mrs[0] != NULL);
    region->addr = (uintptr_t)memory;
    region->rkey = s->mrs[0]->rkey;
}

static void transfer(struct side *s, const struct region *to, enum ibv_wr_opcode op, uint64_t local,
                     uint64_t remote, uint32_t len)
{
    struct ibv_sge sge = {s->info.addr + local, len, s->info.lkey};
    struct ibv_send_wr *bad, wr = {.sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = op,
                                   .send_flags = IBV_SEND_SIGNALED,
                                   .wr.rdma = {to->addr + remote, to->rkey}};

    T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
}

/* Writes that overlap; then what is there must be what they leave, one after the other. */
static void write_and_compare(struct side *s, void *arg)
{
    const struct region *to = arg;
    uint8_t *model = calloc(1, REGION);

    T_ASSERT(model != NULL);
    for (int i = 0; i < WRITES; i++) {
        uint64_t at = t_rand_below(REGION - 8);
        uint64_t max = t_rand_below(2) ? REGION - at : 5000;
        uint64_t len = 1 + t_rand_below(max < REGION - at ? max : REGION - at);
        uint64_t from = t_rand_below(REGION - len + 1);

        transfer(s, to, IBV_WR_RDMA_WRITE, from, at, (uint32_t)len);
        memcpy(model + at, s->buf + from, len);
    }
    for (int i = 0; i < WRITES; i++) {
        T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
    }
    transfer(s, to, IBV_WR_RDMA_READ, REGION, 0, REGION);
    T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
    T_MEMEQ(s->buf + REGION, model, REGION);
    free(model);
}

T_TEST(remote, answers_are_for_what_was_asked)
{
    /* Pages that become shared between a request and its answer must not shift the answers. */
    struct side_opt opt = {.size = 2 * REGION};
    struct pair *p = pair_open(TWO_PROCESSES, &opt);
    struct region region;
    int nothing = 0;

    e_run(p->a, refuse_copies, &nothing, sizeof(nothing));
    for (int round = 0; round < ROUNDS; round++) {
        e_run(p->b, new_region, &region, sizeof(region));
        e_run(p->a, write_and_compare, &region, sizeof(region));
    }
    pair_close_loose(p);
}

/* How much of the region its owner has for mappings of the memory that it shares with peers. */
static void count_shared(struct side *s, void *arg)
{
    struct region *region = arg;
    uint64_t from = (uintptr_t)s->mrs[0]->addr, shared = 0;
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[512];

    T_ASSERT(maps != NULL);
    while (fgets(line, sizeof(line), maps)) {
        uint64_t start, end;

        if (strstr(line, "viaduct-mem") && sscanf(line, "%" SCNx64 "-%" SCNx64, &start, &end) == 2)
            for (uint64_t page = start; page < end; page += 4096)
                shared += page >= from && page < from + REGION ? 4096 : 0;
    }
    fclose(maps);
    region->addr = shared;
}

static void write_little(struct side *s, void *arg)
{
    transfer(s, arg, IBV_WR_RDMA_WRITE, 0, REGION / 2, 64);
    T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
}

T_TEST(remote, pages_are_shared_with_their_neighbours)
{
    /* A pool of small buffers was shared page by page, each a mapping, each asked for by itself. */
    struct side_opt opt = {.size = REGION};
    struct pair *p = pair_open(TWO_PROCESSES, &opt);
    struct region region, shared = {0};
    enum { PATIENCE = 20000 };

    e_run(p->b, new_region, &region, sizeof(region));
    e_run(p->a, write_little, &region, sizeof(region));
    /* Up to the region's ends, or those of the aligned piece around. */
    for (int i = 0; i < PATIENCE && shared.addr < REGION / 2; i++)
        e_run(p->b, count_shared, &shared, sizeof(shared));
    T_ASSERT(shared.addr >= REGION / 2);
    pair_close_loose(p);
}

/*
 * As a registration cache does: the memory goes and the addresses come again, with other memory,
 * which is registered before the old region is deregistered.
 */
static void replace_memory(struct side *s, void *arg)
{
    struct region *region = arg;
    struct ibv_mr *old = s->mrs[0];
    uint8_t *memory = old->addr;

    T_EQ(munmap(memory, REGION), 0);
    T_ASSERT(mmap(memory, REGION, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == memory);
    s->mrs[0] = ibv_reg_mr(s->pd, memory, REGION, ACCESS_ALL);
    T_ASSERT(s->mrs[0] != NULL);
    region->rkey = s->mrs[0]->rkey;
    s->mrs[1] = old;
}

static void write_all(struct side *s, void *arg)
{
    memset(s->buf, 0x5a, REGION);
    transfer(s, arg, IBV_WR_RDMA_WRITE, 0, 0, REGION);
    T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
}

static void check_all(struct side *s, void *arg)
{
    const uint8_t *memory = s->mrs[0]->addr;

    (void)arg;
    for (int i = 0; i < REGION; i++)
        T_EQ(memory[i], 0x5a);
    T_EQ(ibv_dereg_mr(s->mrs[1]), 0);
    s->mrs[1] = NULL;
}

T_TEST(remote, memory_anew_at_an_old_address)
{
    /* What was written went where the old memory had been: MPI over UCX waited for ever. */
    struct side_opt opt = {.size = REGION};
    struct pair *p = pair_open(TWO_PROCESSES, &opt);
    struct region region, shared;
    enum { PATIENCE = 20000 };

    e_run(p->b, new_region, &region, sizeof(region));
    for (int round = 0; round < 3; round++) {
        shared.addr = 0;
        for (int i = 0; i < PATIENCE && shared.addr < REGION; i++) {
            e_run(p->a, write_all, &region, sizeof(region));
            e_run(p->b, count_shared, &shared, sizeof(shared));
        }
        T_EQ(shared.addr, REGION);
        e_run(p->b, replace_memory, &region, sizeof(region));
        e_run(p->a, write_all, &region, sizeof(region));
        e_run(p->b, check_all, &region, sizeof(region));
    }
    pair_close_loose(p);
}

/* Messages longer than a completion carries, into memory that nobody else may write by itself. */
static void send_by_the_target(struct side_opt opt)
{
    opt.mr_access = IBV_ACCESS_LOCAL_WRITE;
    struct pair *p = pair_open(TWO_PROCESSES, &opt);
    uint32_t head = opt.type == IBV_QPT_UD ? 40 : 0, len = opt.type == IBV_QPT_UD ? 1000 : 10000;
    int nothing = 0;

    e_run(p->a, refuse_copies, &nothing, sizeof(nothing));
    for (uint64_t id = 0; id < ROUNDS; id++) {
        e_recv(p->b, &(struct post){.id = id, .off = p->rx + 100 * id, .len = 12000});
        e_send(p->a, &(struct post){.id = id, .op = IBV_WR_SEND, .off = 7 * id, .len = len});
        e_done(p->a, id, IBV_WC_SEND);
        e_got(p->b, id, IBV_WC_RECV, len + head);
        e_same(p->b, p->rx + 100 * id + head, len, p->a, 7 * id);
    }
    pair_close(p);
}

T_TEST(remote, receives_need_no_right_for_others)
{
    /* The target's engine knows what was posted to be written to: by each kind of queue. */
    send_by_the_target((struct side_opt){.type = IBV_QPT_RC});
    send_by_the_target((struct side_opt){.type = IBV_QPT_UC});
    send_by_the_target((struct side_opt){.type = IBV_QPT_UD});
    send_by_the_target((struct side_opt){.use_srq = true});
}
