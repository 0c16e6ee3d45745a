/* SPDX-License-Identifier: MIT */
/* Making and dropping things, over and over: connections, and regions while data moves. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "many.h"

enum { CYCLES = 3000, SETTLED = 500, SLACK = 4 << 20, REGIONS = 3000, SIZE = 1 << 20 };

/* ---- connections ---- */

static void one_connection(const struct duo *duo, struct rig *rig, struct ibv_mr *mr)
{
    struct rig_address mine, other;
    struct ibv_cq *cq = rig_cq(rig, 16, NULL);
    struct rig_qp_options options = {
        .type = IBV_QPT_RC, .send_cq = cq, .recv_cq = cq, .sends = 4, .receives = 4};
    struct ibv_qp *qp = rig_qp(rig, &options);

    mine = rig_address(rig, qp, mr);
    duo_exchange(duo, &mine, &other, sizeof(mine));
    CHECK(rig_connect(qp, &other));
    rig_post_receive(qp, mr, 4096, 100);
    duo_meet(duo);
    rig_post_send(qp, mr, 0, 100);
    rig_wait_good(cq, 2);
    duo_meet(duo);
    CHECK(ibv_destroy_qp(qp) == 0);
    CHECK(ibv_destroy_cq(cq) == 0);
}

void many_connections(void)
{
    struct duo duo;
    struct rig rig;
    uint64_t begin = 0, resident = 0, arena = 0;
    unsigned files = 0;

    duo_start(&duo);
    rig_open(&rig);
    struct ibv_mr *mr = rig_memory(&rig, 8192);
    for (int i = 0; i < CYCLES; i++) {
        if (i == SETTLED) {
            begin = rig_now_ns();
            files = rig_open_files();
            resident = rig_resident_bytes();
            arena = rig_arena_bytes();
        }
        one_connection(&duo, &rig, mr);
    }
    double us = (double)(rig_now_ns() - begin) / 1e3 / (CYCLES - SETTLED);
    printf(
        "%d connections: %.0f us each; resident %llu KiB, then %llu; arena %llu KiB, then %llu\n",
        CYCLES, us, (unsigned long long)resident / 1024,
        (unsigned long long)rig_resident_bytes() / 1024, (unsigned long long)arena / 1024,
        (unsigned long long)rig_arena_bytes() / 1024);
    CHECK(rig_open_files() == files, "%u files, %u before", rig_open_files(), files);
    CHECK(rig_resident_bytes() <= resident + SLACK);
    CHECK(rig_arena_bytes() < arena + SLACK);
    rig_memory_free(mr);
    duo_end(&duo);
}

/* ---- regions ---- */

/* Registers, writes to it through the key it got, drops it: each time other memory. */
static void use_region(struct rig *rig, int i)
{
    size_t size = 4096u << i % 8;
    struct ibv_mr *mr = rig_memory(rig, size);

    memset(mr->addr, i, size);
    rig_memory_free(mr);
}

struct churner {
    struct rig *rig;
    _Atomic bool stop;
    unsigned count;
};

static void *churn(void *arg)
{
    struct churner *churner = arg;

    while (!atomic_load(&churner->stop))
        use_region(churner->rig, (int)churner->count++);
    return NULL;
}

/* Each end writes to a region that the other replaces now and then, and sees what it wrote. */
static void write_and_replace(const struct duo *duo, struct rig *rig, struct ibv_qp *qp,
                              struct ibv_cq *cq)
{
    struct ibv_mr *source = rig_memory(rig, SIZE);

    for (int i = 0; i < REGIONS / 10; i++) {
        struct ibv_mr *mr = rig_memory(rig, SIZE);
        struct rig_address mine = rig_address(rig, qp, mr), other;

        memset(source->addr, i + 1, SIZE);
        duo_exchange(duo, &mine, &other, sizeof(mine));
        for (int k = 0; k < 10; k++)
            rig_post_write(qp, source, SIZE / 16, &other, (uint64_t)k * SIZE / 16);
        rig_wait_good(cq, 10);
        duo_meet(duo);
        const char *bytes = mr->addr;
        CHECK(bytes[0] == (char)(i + 1) && bytes[SIZE / 16 * 10 - 1] == (char)(i + 1) &&
                  bytes[SIZE / 16 * 10] == 0,
              "%d, %d, %d in turn %d", bytes[0], bytes[SIZE / 16 * 10 - 1], bytes[SIZE / 16 * 10],
              i);
        rig_memory_free(mr);
    }
    rig_memory_free(source);
}

static void register_large(struct rig *rig)
{
    size_t size = 1ull << 30;
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                    -1, 0);

    CHECK(at != MAP_FAILED);
    uint64_t begin = rig_now_ns();
    struct ibv_mr *mr = ibv_reg_mr(rig->pd, at, size, IBV_ACCESS_LOCAL_WRITE);
    uint64_t registered = rig_now_ns();
    CHECK(mr != NULL);
    CHECK(ibv_dereg_mr(mr) == 0);
    printf("1 GiB: registered in %.1f us, dropped in %.1f us\n", (double)(registered - begin) / 1e3,
           (double)(rig_now_ns() - registered) / 1e3);
    munmap(at, size);
}

void many_regions(void)
{
    struct rig_address mine, other;
    struct churner churner = {0};
    pthread_t thread;
    struct duo duo;
    struct rig rig;

    duo_start(&duo);
    rig_open(&rig);
    struct ibv_cq *cq = rig_cq(&rig, 64, NULL);
    struct rig_qp_options options = {
        .type = IBV_QPT_RC, .send_cq = cq, .recv_cq = cq, .sends = 16, .receives = 4};
    struct ibv_qp *qp = rig_qp(&rig, &options);
    mine = rig_address(&rig, qp, NULL);
    duo_exchange(&duo, &mine, &other, sizeof(mine));
    CHECK(rig_connect(qp, &other));
    churner.rig = &rig;
    CHECK(pthread_create(&thread, NULL, churn, &churner) == 0);
    uint64_t begin = rig_now_ns();
    write_and_replace(&duo, &rig, qp, cq);
    atomic_store(&churner.stop, true);
    pthread_join(thread, NULL);
    printf("%u regions made and dropped in %.2f s beside %d that were written to\n", churner.count,
           (double)(rig_now_ns() - begin) / 1e9, REGIONS / 10);
    if (!duo.second) {
        register_large(&rig);
        register_large(&rig);
    }
    CHECK(ibv_destroy_qp(qp) == 0);
    CHECK(ibv_destroy_cq(cq) == 0);
    duo_end(&duo);
}
