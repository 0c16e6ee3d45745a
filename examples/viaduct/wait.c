/* SPDX-License-Identifier: MIT */
/* Waiting for completions politely. */
#include "wait.h"

#include "channel.h"
#include "clock.h"
#include "cmd.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <string.h>

#define PATIENCE_S 30

bool wait_yields;

static int gone(void)
{
    complain("the other side is gone");
    return CMD_FAILED;
}

static int given_up(void)
{
    complain("nothing has come for %d seconds: giving up", PATIENCE_S);
    return CMD_FAILED;
}

int wait_look(const struct rig *rig, uint64_t idle)
{
    static uint64_t began_ns; /* of the present wait */

    if (wait_yields) {
        sched_yield();
        if (idle % 4096 != 1)
            return 0;
    }
    if (!channel_alive(rig->channel))
        return gone();
    if (idle <= WAIT_LOOK_INTERVAL)
        began_ns = clock_ns();
    return clock_ns() - began_ns > PATIENCE_S * UINT64_C(1000000000) ? given_up() : 0;
}

int wait_arm(struct ibv_cq *cq)
{
    errno = ibv_req_notify_cq(cq, 0);
    if (errno == 0)
        return CMD_OK;
    complain("ibv_req_notify_cq failed: %s", strerror(errno));
    return CMD_FAILED;
}

/* Sleep until there is an event, looking after the other side once a second. */
static int wait_readable(const struct rig *rig)
{
    struct pollfd pfd = {.fd = rig->comp_channel->fd, .events = POLLIN};

    for (unsigned seconds = 0; poll(&pfd, 1, 1000) == 0; seconds++) {
        if (!channel_alive(rig->channel))
            return gone();
        if (seconds == PATIENCE_S)
            return given_up();
    }
    return CMD_OK;
}

int wait_event(const struct rig *rig)
{
    struct ibv_cq *cq;
    void *context;
    int code = wait_readable(rig);

    if (code != CMD_OK)
        return code;
    if (ibv_get_cq_event(rig->comp_channel, &cq, &context) != 0) {
        complain("ibv_get_cq_event failed: %s", strerror(errno));
        return CMD_FAILED;
    }
    ibv_ack_cq_events(cq, 1);
    return CMD_OK;
}

int wait_bad(const struct ibv_wc *wc)
{
    if (wc == NULL)
        complain("polling a completion queue failed");
    else
        complain("a work request failed: %s (vendor error %u, queue pair 0x%06x)",
                 ibv_wc_status_str(wc->status), wc->vendor_err, wc->qp_num);
    return CMD_FAILED;
}
