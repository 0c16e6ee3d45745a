/* SPDX-License-Identifier: MIT */
/*
 * Bandwidth and message rate over VIPL: every VI is kept full. RDMA is limited by the length of
 * the send queue; sends also by credits, because one that finds no receive breaks the connection.
 */
#include "cmd.h"
#include "vicase.h"
#include "wait.h"

enum { REAP_MAX = 16 };

struct viflow {
    struct pass *pass;
    struct virig *rig;
    VIP_UINT16 control;
    size_t size;
    bool credits;
    uint64_t left;     /* to be posted */
    uint64_t received; /* with data */
};

static void viflow_init(struct viflow *flow, struct pass *pass, uint64_t iters)
{
    const struct measure_case *which = &pass->virig->which.which;

    *flow = (struct viflow){.pass = pass, .rig = pass->virig, .size = which->size, .left = iters};
    flow->credits = which->op == OP_SEND;
    flow->control = which->op == OP_SEND    ? VIP_CONTROL_IMMEDIATE
                    : which->op == OP_WRITE ? VIP_CONTROL_OP_RDMAWRITE
                                            : VIP_CONTROL_OP_RDMAREAD;
}

static bool has_room(const struct viflow *flow, const struct virig_vi *vi)
{
    return vi->posted - vi->done < flow->rig->which.depth;
}

static int send_word(struct viflow *flow, struct virig_vi *vi, uint32_t word, size_t size)
{
    if (virig_post_send(flow->rig, vi, VIP_CONTROL_IMMEDIATE, word, size) != CMD_OK)
        return CMD_FAILED;
    credit_sent(&vi->credit, word);
    return CMD_OK;
}

static int fill(struct viflow *flow, struct virig_vi *vi)
{
    uint32_t word = 0;
    int code = CMD_OK;

    while (code == CMD_OK && flow->left > 0 && has_room(flow, vi)) {
        if (flow->credits && credit_take(&vi->credit, &word) != 0)
            return CMD_OK;
        code = flow->credits ? send_word(flow, vi, word, flow->size)
                             : virig_post_send(flow->rig, vi, flow->control, 0, flow->size);
        flow->left--;
    }
    return code;
}

/* A message has come: with data at the server, with credits at the client. */
static int arrived(struct viflow *flow, struct virig_vi *vi, VIP_DESCRIPTOR *d)
{
    int kind = credit_arrived(&vi->credit, d->CS.ImmediateData);

    if (kind < 0) {
        complain("the credits do not add up: a message was lost");
        return CMD_FAILED;
    }
    flow->received += kind == CREDIT_DATA;
    if (virig_post_receive(flow->rig, vi, d) != CMD_OK)
        return CMD_FAILED;
    credit_posted(&vi->credit);
    return CMD_OK;
}

static int return_credits(struct viflow *flow, struct virig_vi *vi)
{
    uint32_t word;

    if (!has_room(flow, vi) || credit_update(&vi->credit, &word) != 0)
        return CMD_OK;
    return send_word(flow, vi, word, 0);
}

/* Take completed sends, not so many that the receiver runs dry meanwhile: how many, or -CMD_FAILED.
 */
static int reap(struct viflow *flow, struct virig_vi *vi)
{
    VIP_DESCRIPTOR *d;
    int count = 0, took = 1;

    while (took > 0 && count < REAP_MAX && vi->posted != vi->done) {
        took = virig_try(flow->rig, vi, false, &d);
        count += took > 0;
    }
    return took < 0 ? took : count;
}

/* A server has messages to take. A client has credits to take, when it comes to be short of them.
 */
static bool must_receive(const struct viflow *flow, const struct virig_vi *vi, bool client)
{
    return flow->credits && (!client || credit_available(&vi->credit) <= flow->rig->which.depth);
}

/* Take what one VI has: 1 if there was something, 0, or -CMD_FAILED. */
static int poll_vi(struct viflow *flow, struct virig_vi *vi, bool client)
{
    VIP_DESCRIPTOR *d;
    int sent = reap(flow, vi), came = 0;

    if (sent >= 0 && must_receive(flow, vi, client))
        came = virig_try(flow->rig, vi, true, &d);
    if (sent < 0 || came < 0)
        return -CMD_FAILED;
    if (came > 0 && arrived(flow, vi, d) != CMD_OK)
        return -CMD_FAILED;
    if (sent + came > 0 && flow->credits && return_credits(flow, vi) != CMD_OK)
        return -CMD_FAILED;
    return sent + came > 0;
}

/* Nothing is there: sleep on the VI that must have something next. */
static int sleep_on(struct viflow *flow, struct virig_vi *vi, bool client)
{
    bool receive = !client || vi->posted == vi->done;
    VIP_DESCRIPTOR *d;

    if (virig_take(flow->rig, flow->pass->rig, vi, receive, &d) != CMD_OK)
        return CMD_FAILED;
    if (receive && arrived(flow, vi, d) != CMD_OK)
        return CMD_FAILED;
    return receive ? return_credits(flow, vi) : CMD_OK;
}

/* One look at all VIs. */
static int look(struct viflow *flow, bool client, uint64_t *idle)
{
    bool found = false;

    for (unsigned i = 0; i < flow->rig->which.vis; i++) {
        int n = poll_vi(flow, &flow->rig->vis[i], client);

        if (n < 0 || (client && fill(flow, &flow->rig->vis[i]) != CMD_OK))
            return CMD_FAILED;
        found |= n > 0;
    }
    *idle = found ? 0 : *idle + 1;
    if (found)
        return CMD_OK;
    if (flow->rig->which.how != VIHOW_POLL && flow->rig->which.vis == 1 &&
        (!client || flow->left > 0 || flow->rig->vis[0].posted != flow->rig->vis[0].done))
        return sleep_on(flow, &flow->rig->vis[0], client);
    return wait_idle(flow->pass->rig, *idle) == 0 ? CMD_OK : CMD_FAILED;
}

static bool all_done(const struct viflow *flow)
{
    for (unsigned i = 0; i < flow->rig->which.vis; i++) {
        if (flow->rig->vis[i].posted != flow->rig->vis[i].done)
            return false;
    }
    return flow->left == 0;
}

int viflow_client(struct pass *pass, uint64_t iters)
{
    struct viflow flow;
    uint64_t idle = 0;

    viflow_init(&flow, pass, iters);
    for (unsigned i = 0; i < flow.rig->which.vis; i++) {
        if (fill(&flow, &flow.rig->vis[i]) != CMD_OK)
            return CMD_FAILED;
    }
    while (!all_done(&flow)) {
        if (look(&flow, true, &idle) != CMD_OK)
            return CMD_FAILED;
    }
    return CMD_OK;
}

int viflow_server(struct pass *pass, uint64_t iters)
{
    struct viflow flow;
    uint64_t idle = 0;

    viflow_init(&flow, pass, 0);
    while (flow.received < iters) {
        if (look(&flow, false, &idle) != CMD_OK)
            return CMD_FAILED;
    }
    return CMD_OK;
}
