/* SPDX-License-Identifier: MIT */
/* Ten thousand connected queue pairs in a pair of processes; sixteen processes, all with all. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "many.h"

enum { QPS = 10000, DEPTH = 4, ROUND_TRIPS = 5000 };

static struct rig_address ours[QPS], theirs[QPS];

struct field {
    struct rig rig;
    struct ibv_cq *cq;
    struct ibv_mr *mr;
    struct ibv_qp *qp[QPS];
};

static void open_field(struct field *field)
{
    rig_open(&field->rig);
    field->cq = rig_cq(&field->rig, 2 * QPS, NULL);
    field->mr = rig_memory(&field->rig, 65536);
}

static void create_qps(struct field *field)
{
    struct rig_qp_options options = {.type = IBV_QPT_RC,
                                     .send_cq = field->cq,
                                     .recv_cq = field->cq,
                                     .sends = DEPTH,
                                     .receives = DEPTH};

    for (int i = 0; i < QPS; i++) {
        field->qp[i] = rig_qp(&field->rig, &options);
        ours[i] = rig_address(&field->rig, field->qp[i], field->mr);
    }
}

/* Ping-pong over `count` queue pairs in turn, far apart; nanoseconds one way. */
static double one_way_ns(const struct duo *duo, struct field *field, int count)
{
    int step = count > 1 ? 7919 : 0; /* a prime: visits all */

    for (int i = 0; i < count; i++)
        rig_post_receive(field->qp[i], field->mr, 0, 8);
    duo_meet(duo);
    uint64_t begin = rig_now_ns();
    for (int i = 0, q = 0; i < ROUND_TRIPS; i++, q = (q + step) % count) {
        for (int turn = 0; turn < 2; turn++) {
            if (turn != duo->second) {
                rig_wait_good(field->cq, 1);
                rig_post_receive(field->qp[q], field->mr, 0, 8);
            } else {
                rig_post_send(field->qp[q], field->mr, 0, 8);
                rig_wait_good(field->cq, 1);
            }
        }
    }
    double took = (double)(rig_now_ns() - begin) / ROUND_TRIPS / 2;
    duo_meet(duo);
    return took;
}

static uint64_t memory_now(void)
{
    return rig_resident_bytes() + rig_arena_bytes();
}

void many_qps(void)
{
    static struct field field;
    struct duo duo;

    duo_start(&duo);
    open_field(&field);
    uint64_t before = memory_now(), begin = rig_now_ns();
    create_qps(&field);
    uint64_t created = rig_now_ns();
    uint64_t taken = memory_now() - before;
    duo_exchange(&duo, ours, theirs, sizeof(ours));
    uint64_t exchanged = rig_now_ns();
    for (int i = 0; i < QPS; i++)
        CHECK(rig_connect(field.qp[i], &theirs[i]));
    uint64_t connected = rig_now_ns();
    duo_meet(&duo);
    one_way_ns(&duo, &field, 1); /* attach, open the lane */
    double one = one_way_ns(&duo, &field, 1), all = one_way_ns(&duo, &field, QPS);
    uint64_t begin_destroy = rig_now_ns();
    for (int i = 0; i < QPS; i++)
        CHECK(ibv_destroy_qp(field.qp[i]) == 0);
    if (!duo.second)
        printf(
            "%d queue pairs: created in %.1f us each, connected in %.1f us, destroyed in %.1f us; "
            "%llu bytes each with rings of %d + %d; one way %.0f ns over one, %.0f ns over all\n",
            QPS, (double)(created - begin) / QPS / 1e3, (double)(connected - exchanged) / QPS / 1e3,
            (double)(rig_now_ns() - begin_destroy) / QPS / 1e3, (unsigned long long)taken / QPS,
            DEPTH, DEPTH, one, all);
    CHECK(taken / QPS < 65536, "%llu bytes each", (unsigned long long)taken / QPS);
    duo_end(&duo);
}

/* ---- sixteen processes ---- */

enum { PROCESSES = 16, MESSAGES = 100 };

struct meeting {
    struct rig_address address[PROCESSES][PROCESSES]; /* of one, for the other */
    _Atomic unsigned arrived[4];
};

static void meet(struct meeting *meeting, int phase)
{
    uint64_t limit = rig_now_ns() + 60000000000ull * rig_slow();

    atomic_fetch_add(&meeting->arrived[phase], 1);
    while (atomic_load(&meeting->arrived[phase]) < PROCESSES) {
        sched_yield();
        CHECK(rig_now_ns() < limit, "only %u came", atomic_load(&meeting->arrived[phase]));
    }
}

/* Each message carries who sent it and its number. */
static void receive_all(struct ibv_cq *cq, struct ibv_mr *mr, struct ibv_qp **qps)
{
    const uint32_t *memory = mr->addr;
    uint32_t expected[PROCESSES] = {0};
    int left = PROCESSES * MESSAGES * 2; /* sends complete, too */

    while (left) {
        struct ibv_wc wc = rig_wait(cq);

        CHECK(wc.status == IBV_WC_SUCCESS, "%s", ibv_wc_status_str(wc.status));
        left--;
        if (!(wc.opcode & IBV_WC_RECV))
            continue;
        uint32_t from = memory[wc.wr_id / 4], number = memory[wc.wr_id / 4 + 1];
        CHECK(from < PROCESSES && qps[from]->qp_num == wc.qp_num && number == expected[from]++,
              "message %u of %u", number, from);
    }
}

/* Receive i of the connection with `other` has a place of its own. */
static uint64_t place(int other, int i)
{
    return 4096 + (uint64_t)(other * MESSAGES + i) * 64;
}

static _Noreturn void one_process(struct meeting *meeting, int self)
{
    struct rig rig;
    struct ibv_qp *qp[PROCESSES];

    rig_open(&rig);
    struct ibv_cq *cq = rig_cq(&rig, PROCESSES * MESSAGES * 2, NULL);
    struct ibv_mr *mr = rig_memory(&rig, 1 << 20);
    uint32_t *message = mr->addr;
    struct rig_qp_options options = {
        .type = IBV_QPT_RC, .send_cq = cq, .recv_cq = cq, .sends = MESSAGES, .receives = MESSAGES};
    for (int i = 0; i < PROCESSES; i++) {
        qp[i] = rig_qp(&rig, &options);
        meeting->address[self][i] = rig_address(&rig, qp[i], mr);
    }
    meet(meeting, 0);
    for (int i = 0; i < PROCESSES; i++) {
        CHECK(rig_connect(qp[i], &meeting->address[i][self]));
        for (int k = 0; k < MESSAGES; k++)
            rig_post_receive(qp[i], mr, place(i, k), 64);
    }
    meet(meeting, 1);
    for (uint32_t k = 0; k < MESSAGES; k++) {
        message[2 * k] = (uint32_t)self;
        message[2 * k + 1] = k;
        for (int i = 0; i < PROCESSES; i++)
            rig_post_send(qp[i], mr, 8ull * k, 8);
    }
    receive_all(cq, mr, qp);
    meet(meeting, 2);
    _exit(0);
}

void many_processes(void)
{
    struct meeting *meeting =
        mmap(NULL, sizeof(*meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t begin = rig_now_ns();
    pid_t parent = getpid();
    int status;

    CHECK(meeting != MAP_FAILED);
    for (int i = 0; i < PROCESSES; i++) {
        if (fork())
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            one_process(meeting, i);
        _exit(1);
    }
    for (int i = 0; i < PROCESSES; i++)
        CHECK(wait(&status) > 0 && status == 0, "one ended with status %x", status);
    printf("%d processes, all with all, %d messages each way: %.2f s\n", PROCESSES, MESSAGES,
           (double)(rig_now_ns() - begin) / 1e9);
}
