/* SPDX-License-Identifier: MIT */
/* Many threads post to one queue pair and poll one completion queue. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "many.h"

enum { THREADS = 8, EACH = 20000, DEPTH = 256, TOTAL = THREADS * EACH };

struct crowd {
    struct rig rig;
    struct ibv_cq *send_cq, *recv_cq;
    struct ibv_qp *qp;
    struct ibv_mr *mr;
    _Atomic unsigned posted, sent, received;
    _Atomic unsigned char seen[TOTAL]; /* at the receiver, by number */
};

static void take_sends(struct crowd *crowd)
{
    struct ibv_wc wc[8];
    int got = ibv_poll_cq(crowd->send_cq, 8, wc);

    CHECK(got >= 0);
    for (int i = 0; i < got; i++)
        CHECK(wc[i].status == IBV_WC_SUCCESS, "%s", ibv_wc_status_str(wc[i].status));
    atomic_fetch_add(&crowd->sent, (unsigned)got);
    if (!got)
        sched_yield();
}

static void *sender(void *arg)
{
    struct crowd *crowd = arg;
    uint32_t number;

    while ((number = atomic_fetch_add(&crowd->posted, 1)) < TOTAL) {
        struct ibv_sge sge = {(uintptr_t)&number, sizeof(number), 0};
        struct ibv_send_wr *bad, wr = {.sg_list = &sge,
                                       .num_sge = 1,
                                       .opcode = IBV_WR_SEND,
                                       .send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE};
        int error;

        while ((error = ibv_post_send(crowd->qp, &wr, &bad)) == ENOMEM)
            take_sends(crowd);
        CHECK(error == 0, "%s", strerror(error));
    }
    while (atomic_load(&crowd->sent) < TOTAL)
        take_sends(crowd);
    return NULL;
}

static void *receiver(void *arg)
{
    struct crowd *crowd = arg;
    const uint32_t *memory = crowd->mr->addr;

    while (atomic_load(&crowd->received) < TOTAL) {
        struct ibv_wc wc[8];
        int got = ibv_poll_cq(crowd->recv_cq, 8, wc);

        CHECK(got >= 0);
        for (int i = 0; i < got; i++) {
            CHECK(wc[i].status == IBV_WC_SUCCESS, "%s", ibv_wc_status_str(wc[i].status));
            uint32_t number = memory[wc[i].wr_id / 4];

            CHECK(number < TOTAL && !atomic_exchange(&crowd->seen[number], 1),
                  "message %u came twice", number);
            rig_post_receive(crowd->qp, crowd->mr, wc[i].wr_id, 64);
        }
        atomic_fetch_add(&crowd->received, (unsigned)got);
        if (!got)
            sched_yield();
    }
    return NULL;
}

void many_threads(void)
{
    static struct crowd crowd;
    struct rig_address mine, other;
    pthread_t threads[THREADS];
    struct duo duo;

    duo_start(&duo);
    rig_open(&crowd.rig);
    crowd.send_cq = rig_cq(&crowd.rig, DEPTH, NULL);
    crowd.recv_cq = rig_cq(&crowd.rig, DEPTH, NULL);
    crowd.mr = rig_memory(&crowd.rig, DEPTH * 64);
    struct rig_qp_options options = {.type = IBV_QPT_RC,
                                     .send_cq = crowd.send_cq,
                                     .recv_cq = crowd.recv_cq,
                                     .sends = DEPTH / 2,
                                     .receives = DEPTH,
                                     .inline_size = 8};
    crowd.qp = rig_qp(&crowd.rig, &options);
    mine = rig_address(&crowd.rig, crowd.qp, NULL);
    duo_exchange(&duo, &mine, &other, sizeof(mine));
    CHECK(rig_connect(crowd.qp, &other));
    for (uint64_t i = 0; i < DEPTH && duo.second; i++)
        rig_post_receive(crowd.qp, crowd.mr, i * 64, 64);
    duo_meet(&duo);
    uint64_t begin = rig_now_ns();
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, duo.second ? receiver : sender, &crowd) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    if (!duo.second)
        printf("%d threads on one queue pair, to %d on another: %d messages in %.2f s\n", THREADS,
               THREADS, TOTAL, (double)(rig_now_ns() - begin) / 1e9);
    duo_end(&duo);
}
