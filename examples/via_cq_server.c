/* SPDX-License-Identifier: MIT */
/*
 * via_cq_server - one server thread, many VIs, one completion queue
 *
 * What you learn: who has many VIs can't wait on each of them. Their queues are bound to one
 * completion queue when they are created; VipCQWait then says which queue of which VI has
 * something, and VipRecvDone or VipSendDone takes it from there.
 *
 *     examples/run via_cq_server
 *     examples/run via_cq_server server            or one side each
 *     examples/run via_cq_server client HOST
 */
#include "vi.h"

#define CLIENTS 16
#ifndef REQUESTS
#define REQUESTS 500
#endif

/* One VI, at either side: two descriptors and a number that goes there and back. */
struct line {
    _Alignas(VIP_DESCRIPTOR_ALIGNMENT) VIP_DESCRIPTOR send;
    VIP_DESCRIPTOR receive;
    VIP_UINT64 out, in;
    VIP_VI_HANDLE vi;
    unsigned count;
};

static void listen_on(struct line *line, VIP_MEM_HANDLE handle)
{
    vi_describe(&line->receive, 0, &line->in, sizeof(line->in), handle);
    vi_well(VipPostRecv(line->vi, &line->receive, handle), "VipPostRecv");
}

static void say(struct line *line, VIP_UINT64 value, VIP_MEM_HANDLE handle)
{
    line->out = value;
    vi_describe(&line->send, 0, &line->out, sizeof(line->out), handle);
    vi_well(VipPostSend(line->vi, &line->send, handle), "VipPostSend");
}

/* A request has come: its answer is the number plus one. */
static void answer(struct line *line, VIP_MEM_HANDLE handle)
{
    VIP_DESCRIPTOR *d = NULL;
    VIP_UINT64 asked;

    vi_good(VipRecvDone(line->vi, &d), d, "VipRecvDone");
    asked = line->in;
    line->count++;
    listen_on(line, handle); /* before the answer, which invites the next request */
    say(line, asked + 1, handle);
}

static struct line *line_of(struct line *lines, VIP_VI_HANDLE vi)
{
    for (int i = 0; i < CLIENTS; i++)
        if (lines[i].vi == vi)
            return &lines[i];
    vi_need(false, "finding the VI");
    return NULL;
}

static void serve(VIP_CQ_HANDLE cq, struct line *lines, VIP_MEM_HANDLE handle)
{
    unsigned sent = 0;

    while (sent < CLIENTS * REQUESTS) {
        VIP_VI_HANDLE vi;
        VIP_BOOLEAN receive;
        VIP_DESCRIPTOR *d = NULL;

        vi_well(VipCQWait(cq, VIP_INFINITE, &vi, &receive), "VipCQWait");
        if (receive) {
            answer(line_of(lines, vi), handle);
            continue;
        }
        vi_good(VipSendDone(vi, &d), d, "VipSendDone");
        sent++;
    }
    for (int i = 0; i < CLIENTS; i++)
        vi_need(lines[i].count == REQUESTS, "serving all alike");
    printf("server: %u requests over %d VIs, %d each, from one queue\n", sent, CLIENTS, REQUESTS);
}

/* The clients take turns, each on a VI of its own. */
static void ask(struct line *lines, VIP_MEM_HANDLE handle)
{
    for (unsigned i = 0; i < REQUESTS; i++) {
        for (unsigned c = 0; c < CLIENTS; c++)
            say(&lines[c], (VIP_UINT64)c << 32 | i, handle);
        for (unsigned c = 0; c < CLIENTS; c++) {
            vi_received(lines[c].vi);
            vi_need(lines[c].in == ((VIP_UINT64)c << 32 | i) + 1, "the right answer");
            listen_on(&lines[c], handle);
            vi_sent(lines[c].vi);
        }
    }
    /* The server leaves when it knows that its last answers are here: then the receives fail. */
    for (unsigned c = 0; c < CLIENTS; c++) {
        VIP_DESCRIPTOR *d;

        vi_need(VipRecvWait(lines[c].vi, VIP_INFINITE, &d) == VIP_DESCRIPTOR_ERROR, "the end");
    }
    printf("client: %d answers, each checked\n", CLIENTS * REQUESTS);
}

int main(int argc, char **argv)
{
    struct vi_side side = vi_sides(argc, argv);
    struct vi vi;
    VIP_CQ_HANDLE cq = NULL;

    vi_open(&vi, VIP_SERVICE_RELIABLE_DELIVERY);
    if (side.server)
        vi_well(VipCreateCQ(vi.nic, 4ul * CLIENTS, &cq), "VipCreateCQ");
    struct vi_memory memory = vi_memory(&vi, CLIENTS * sizeof(struct line), false);
    struct line *lines = (struct line *)memory.at;
    for (int i = 0; i < CLIENTS; i++) {
        lines[i].vi = vi_create(&vi, VIP_SERVICE_RELIABLE_DELIVERY, cq);
        listen_on(&lines[i], memory.handle);
        if (side.server)
            vi_accept(&vi, lines[i].vi, side.meeting);
        else
            vi_request(&vi, lines[i].vi, &side, side.meeting);
    }
    if (side.server)
        serve(cq, lines, memory.handle);
    else
        ask(lines, memory.handle);
    for (int i = 0; i < CLIENTS; i++)
        vi_destroy(lines[i].vi);
    return vi_close(&vi, &side);
}
