/* SPDX-License-Identifier: MIT */
/*
 * pingpong - send and receive, the first thing to learn
 *
 * What you learn: a message goes into a buffer that the receiver has posted *before* it comes.
 * Posting a work request only accepts it; the completion says that it happened. So each side
 * keeps a receive posted, sends, and polls for two completions: its own send's, and that of the
 * message that arrived.
 *
 *     examples/run pingpong                  both sides, as two processes
 *     examples/run pingpong server           or one side each
 *     examples/run pingpong client HOST
 */
#include "rc.h"

#include <time.h>

#define ROUNDS 10000
#define WORDS 8

/* A message says in each of its words which round it belongs to. */
struct message {
    uint64_t words[WORDS];
};

/* One to send from and one to receive into, in one registered piece of memory. */
struct buffers {
    struct message out;
    struct message in;
};

static void post_receive(struct rc *rc, struct ibv_mr *mr, struct buffers *buffers)
{
    struct ibv_sge place = {
        .addr = (uintptr_t)&buffers->in, .length = sizeof(buffers->in), .lkey = mr->lkey};
    struct ibv_recv_wr wr = {.sg_list = &place, .num_sge = 1}, *bad;

    errno = ibv_post_recv(rc->qp, &wr, &bad);
    rc_need(errno == 0, "ibv_post_recv");
}

static void post_send(struct rc *rc, struct ibv_mr *mr, struct buffers *buffers, unsigned round)
{
    struct ibv_sge piece = {
        .addr = (uintptr_t)&buffers->out, .length = sizeof(buffers->out), .lkey = mr->lkey};
    struct ibv_send_wr wr = {
        .sg_list = &piece, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad;

    for (int i = 0; i < WORDS; i++)
        buffers->out.words[i] = round;
    errno = ibv_post_send(rc->qp, &wr, &bad);
    rc_need(errno == 0, "ibv_post_send");
}

static void check(const struct buffers *buffers, unsigned round)
{
    errno = EBADMSG;
    for (int i = 0; i < WORDS; i++)
        rc_need(buffers->in.words[i] == round, "comparing a message");
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void report(uint64_t *times)
{
    qsort(times, ROUNDS, sizeof(times[0]), by_time);
    printf("%d round trips of %zu bytes, every one checked\n", ROUNDS, sizeof(struct message));
    printf("%8s %8s %8s %8s\n%8lu %8lu %8lu %8lu\n", "min_ns", "p50_ns", "p99_ns", "max_ns",
           (unsigned long)times[0], (unsigned long)times[ROUNDS / 2],
           (unsigned long)times[(size_t)ROUNDS * 99 / 100], (unsigned long)times[ROUNDS - 1]);
}

/* The client: a round is over when its message has left and the answer is there. */
static void ask(struct rc *rc, int peer, struct ibv_mr *mr, struct buffers *buffers)
{
    static uint64_t times[ROUNDS];

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t began = now_ns();

        post_send(rc, mr, buffers, round);
        for (int completions = 0; completions < 2; completions++) {
            if (rc_wait(rc, peer).opcode != IBV_WC_RECV)
                continue;
            check(buffers, round);
            post_receive(rc, mr, buffers); /* for the next answer */
        }
        times[round] = now_ns() - began;
    }
    report(times);
}

/* The server. The next message may be there before the completion of the last answer is. */
static void answer(struct rc *rc, int peer, struct ibv_mr *mr, struct buffers *buffers)
{
    unsigned received = 0, sent = 0;

    while (received < ROUNDS || sent < ROUNDS) {
        if (rc_wait(rc, peer).opcode != IBV_WC_RECV) {
            sent++;
            continue;
        }
        check(buffers, received);
        post_receive(rc, mr, buffers); /* before the answer, which invites the next message */
        post_send(rc, mr, buffers, received++);
    }
}

int main(int argc, char **argv)
{
    struct rc rc;
    struct buffers *buffers = calloc(1, sizeof(*buffers));
    struct ibv_mr *mr;
    bool server;
    int peer = rc_sides(argc, argv, &server);

    rc_open(&rc, 16);
    rc_pin(server); /* who polls for each other's messages must not share a CPU */
    mr = ibv_reg_mr(rc.pd, buffers, sizeof(*buffers), IBV_ACCESS_LOCAL_WRITE);
    rc_need(mr != NULL, "ibv_reg_mr");
    post_receive(&rc, mr, buffers); /* nobody may send before this */
    rc_connect(&rc, peer);
    if (server)
        answer(&rc, peer, mr, buffers);
    else
        ask(&rc, peer, mr, buffers);
    rc_meet(peer);
    ibv_dereg_mr(mr);
    free(buffers);
    return rc_close(&rc);
}
