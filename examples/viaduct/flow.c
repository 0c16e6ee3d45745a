/* SPDX-License-Identifier: MIT */
/*
 * Bandwidth and message rate: every queue pair is kept full. Work is posted in chains; a
 * quarter of a queue shares one completion, whose wr_id says which queue pair it was and how
 * many messages are done. A single one posts, signals, polls and receives one at a time.
 */
#include "cmd.h"
#include "pass.h"
#include "wait.h"

#include <string.h>

#define POLL_MAX 16
#define RECV_CHAIN 16u
#define WR_ID_QUEUE_BITS 16

struct flow {
    struct pass *pass;
    struct ibv_sge sge;
    struct ibv_send_wr chain[MEASURE_BATCH_MAX];
    unsigned batch;
    unsigned signal_every;
    unsigned depth;
};

static void flow_init(struct flow *flow, struct pass *pass)
{
    const struct rig_config *config = &pass->rig->config;

    memset(flow, 0, sizeof(*flow));
    flow->pass = pass;
    flow->depth = config->depth;
    flow->batch = pass->which.batch;
    if (flow->batch > config->depth)
        flow->batch = config->depth;
    flow->signal_every = config->depth / 4 > 64 ? 64 : config->depth / 4 + 1;
    if (pass->which.single)
        flow->signal_every = 1;
    for (unsigned i = 0; i < flow->batch; i++) {
        pass_request(pass, &flow->sge, &flow->chain[i]);
        flow->chain[i].next = i + 1 < flow->batch ? &flow->chain[i + 1] : NULL;
    }
}

/* Share the messages of a pass among the queue pairs. */
static void share(struct pass *pass, uint64_t iters)
{
    unsigned qps = pass->rig->config.qps;

    for (unsigned i = 0; i < qps; i++) {
        pass->queues[i].posted = 0;
        pass->queues[i].done = 0;
        pass->queues[i].unsignalled = 0;
        pass->queues[i].quota = iters / qps + (i < iters % qps);
    }
}

/* Post the last n requests of the chain; a chain's end carries the completion, if it is time. */
static inline int post_chain(struct flow *flow, unsigned index, unsigned n)
{
    struct pass_queue *queue = &flow->pass->queues[index];
    struct ibv_send_wr *last = &flow->chain[flow->batch - 1];

    queue->posted += n;
    queue->unsignalled += n;
    if (queue->unsignalled >= flow->signal_every || queue->posted == queue->quota) {
        queue->unsignalled = 0;
        last->send_flags |= IBV_SEND_SIGNALED;
        last->wr_id = queue->posted << WR_ID_QUEUE_BITS | index;
    } else {
        last->send_flags &= ~(unsigned)IBV_SEND_SIGNALED;
    }
    return pass_post(flow->pass->rig->qps[index], &flow->chain[flow->batch - n]);
}

static int fill(struct flow *flow, unsigned index)
{
    struct pass_queue *queue = &flow->pass->queues[index];

    while (queue->posted < queue->quota) {
        uint64_t left = queue->quota - queue->posted;
        unsigned n = left < flow->batch ? (unsigned)left : flow->batch;

        if (queue->posted - queue->done + n > flow->depth)
            break;
        if (post_chain(flow, index, n) != CMD_OK)
            return CMD_FAILED;
    }
    return CMD_OK;
}

static int poll_max(const struct pass *pass)
{
    return pass->which.single ? 1 : POLL_MAX;
}

int pass_flow_client(struct pass *pass, uint64_t iters)
{
    struct flow flow;
    struct ibv_wc wc[POLL_MAX];
    int most = poll_max(pass);
    uint64_t done = 0;

    flow_init(&flow, pass);
    share(pass, iters);
    for (unsigned i = 0; i < pass->rig->config.qps; i++) {
        if (fill(&flow, i) != CMD_OK)
            return CMD_FAILED;
    }
    while (done < iters) {
        int n = wait_completions(pass->rig, pass->rig->send_cq, most, wc);

        if (n < 0)
            return CMD_FAILED;
        for (int i = 0; i < n; i++) {
            unsigned index = (unsigned)(wc[i].wr_id & ((1u << WR_ID_QUEUE_BITS) - 1));
            uint64_t now = wc[i].wr_id >> WR_ID_QUEUE_BITS;

            done += now - pass->queues[index].done;
            pass->queues[index].done = now;
            if (fill(&flow, index) != CMD_OK)
                return CMD_FAILED;
        }
    }
    return CMD_OK;
}

static int repay(struct pass *pass, unsigned index)
{
    unsigned owed = pass->queues[index].recvs_owed;

    pass->queues[index].recvs_owed = 0;
    return pass_post_recvs(pass, index, owed);
}

/*
 * The receiver of sends: take them, and give the receives back in chains. The client may go on
 * while the last ones are still to be polled here, so not one more is taken than the pass has.
 */
int pass_flow_server(struct pass *pass, uint64_t iters)
{
    struct ibv_wc wc[POLL_MAX];
    unsigned most = (unsigned)poll_max(pass), chain = pass->which.single ? 1 : RECV_CHAIN;

    for (uint64_t received = 0; received < iters;) {
        uint64_t left = iters - received;
        int n = wait_completions(pass->rig, pass->rig->recv_cq, left < most ? (int)left : (int)most,
                                 wc);

        if (n < 0)
            return CMD_FAILED;
        received += (uint64_t)n;
        for (int i = 0; i < n; i++) {
            unsigned index = (unsigned)wc[i].wr_id;

            if (++pass->queues[index].recvs_owed >= chain && repay(pass, index) != CMD_OK)
                return CMD_FAILED;
        }
    }
    for (unsigned i = 0; i < pass->rig->config.qps; i++) {
        if (repay(pass, i) != CMD_OK)
            return CMD_FAILED;
    }
    return CMD_OK;
}
