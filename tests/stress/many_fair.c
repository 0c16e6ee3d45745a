/* SPDX-License-Identifier: MIT */
/* A thousand queue pairs that share one way, each with as much to send as it may: who gets what? */
#include <stdio.h>

#include "many.h"

/* Each could have so many of its requests done while the others have, too. */
enum { FAIR_QPS = 1000, FAIR_DEPTH = 4, FAIR_BYTES = 16384, FAIR_SHARE = 24 };

static struct rig_address ours[FAIR_QPS], theirs[FAIR_QPS];
static uint64_t done[FAIR_QPS];

struct shares {
    double index, least, most, all;
};

/* Jain's index: 1 if all have the same, 1/n if one has everything. */
static struct shares shares_of(void)
{
    struct shares shares = {.least = (double)done[0]};
    double squares = 0;

    for (int i = 0; i < FAIR_QPS; i++) {
        double share = (double)done[i];

        shares.all += share;
        squares += share * share;
        shares.least = share < shares.least ? share : shares.least;
        shares.most = share > shares.most ? share : shares.most;
    }
    shares.index = shares.all * shares.all / (FAIR_QPS * squares);
    return shares;
}

static void post_one(struct ibv_qp *qp, const struct ibv_mr *mr, int i)
{
    struct ibv_sge sge = {(uintptr_t)mr->addr, FAIR_BYTES, mr->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = (uint64_t)i,
                                   .sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = IBV_WR_RDMA_WRITE,
                                   .send_flags = IBV_SEND_SIGNALED};

    wr.wr.rdma.remote_addr = theirs[i].addr;
    wr.wr.rdma.rkey = theirs[i].rkey;
    CHECK(ibv_post_send(qp, &wr, &bad) == 0);
}

/*
 * Each completion is followed by another request until enough are done in all; then none is left.
 * The nanoseconds that it took.
 */
static uint64_t send_all(struct ibv_qp **qp, struct ibv_cq *cq, const struct ibv_mr *mr)
{
    uint64_t began = rig_now_ns(), ended = 0;
    unsigned flying = FAIR_QPS * FAIR_DEPTH, finished = 0;

    for (int i = 0; i < FAIR_QPS * FAIR_DEPTH; i++)
        post_one(qp[i % FAIR_QPS], mr, i % FAIR_QPS);
    while (flying) {
        struct ibv_wc wc = rig_wait(cq);

        CHECK(wc.status == IBV_WC_SUCCESS, "%s", ibv_wc_status_str(wc.status));
        if (finished == FAIR_QPS * FAIR_SHARE) {
            flying--;
            continue;
        }
        done[wc.wr_id]++;
        post_one(qp[wc.wr_id], mr, (int)wc.wr_id);
        if (++finished == FAIR_QPS * FAIR_SHARE)
            ended = rig_now_ns();
    }
    return ended - began;
}

void many_fair(void)
{
    static struct ibv_qp *qp[FAIR_QPS];
    struct duo duo;
    struct rig rig;

    duo_start(&duo);
    rig_open(&rig);
    struct ibv_cq *cq = rig_cq(&rig, 2 * FAIR_QPS * FAIR_DEPTH, NULL);
    struct ibv_mr *mr = rig_memory(&rig, FAIR_BYTES);
    struct rig_qp_options options = {
        .type = IBV_QPT_RC, .send_cq = cq, .recv_cq = cq, .sends = FAIR_DEPTH, .receives = 1};
    for (int i = 0; i < FAIR_QPS; i++) {
        qp[i] = rig_qp(&rig, &options);
        ours[i] = rig_address(&rig, qp[i], mr);
    }
    duo_exchange(&duo, ours, theirs, sizeof(ours));
    for (int i = 0; i < FAIR_QPS; i++)
        CHECK(rig_connect(qp[i], &theirs[i]));
    duo_meet(&duo);
    if (!duo.second) {
        uint64_t ns = send_all(qp, cq, mr);
        struct shares shares = shares_of();
        printf(
            "%d queue pairs, writes of %d bytes: Jain's index %.4f, %.0f to %.0f each, %.0f MB/s\n",
            FAIR_QPS, FAIR_BYTES, shares.index, shares.least, shares.most,
            shares.all * FAIR_BYTES * 1e3 / (double)ns);
        CHECK(shares.index > 0.9, "%.3f", shares.index);
        CHECK(shares.least > 0);
    }
    duo_meet(&duo);
    duo_end(&duo);
}
