/* SPDX-License-Identifier: MIT */
/*
 * counter - several processes count in one memory word
 *
 * What you learn: fetch-and-add is one indivisible step at the memory's owner, whoever asks.
 * Each worker draws tickets from the server's word; no two get the same number, and at the end
 * the word holds exactly as many as were drawn. The server's program takes no part.
 *
 *     examples/run counter           a server and 4 workers, 10000 tickets each
 */
#include "rc.h"

#define WORKERS 4u
#define TICKETS 10000u
#define ALL_TICKETS ((uint64_t)WORKERS * TICKETS)

/* Draw one ticket: add 1 to the word far away, and get what it held before. */
static uint64_t draw(struct rc *rc, int peer, struct ibv_mr *mr, const struct rc_memory *word)
{
    struct ibv_sge place = {
        .addr = (uintptr_t)mr->addr, .length = sizeof(uint64_t), .lkey = mr->lkey};
    struct ibv_send_wr wr = {
        .sg_list = &place,
        .num_sge = 1,
        .opcode = IBV_WR_ATOMIC_FETCH_AND_ADD,
        .send_flags = IBV_SEND_SIGNALED,
        .wr.atomic = {.remote_addr = word->addr, .rkey = word->rkey, .compare_add = 1}};
    struct ibv_send_wr *bad;

    errno = ibv_post_send(rc->qp, &wr, &bad);
    rc_need(errno == 0, "ibv_post_send");
    rc_wait(rc, peer);
    return *(volatile uint64_t *)mr->addr;
}

static void work(struct rc *rc, int peer, struct ibv_mr *mr, const struct rc_memory *word)
{
    static uint64_t tickets[TICKETS];

    for (unsigned i = 0; i < TICKETS; i++)
        tickets[i] = draw(rc, peer, mr, word);
    rc_need(send(peer, tickets, sizeof(tickets), 0) == (ssize_t)sizeof(tickets), "showing tickets");
}

static void collect(int peer, unsigned worker, bool *seen)
{
    static uint64_t tickets[TICKETS];

    rc_need(recv(peer, tickets, sizeof(tickets), MSG_WAITALL) == (ssize_t)sizeof(tickets),
            "seeing a worker's tickets");
    errno = EBADMSG;
    for (unsigned i = 0; i < TICKETS; i++) {
        rc_need(tickets[i] < ALL_TICKETS && !seen[tickets[i]], "finding each ticket once");
        seen[tickets[i]] = true;
    }
    printf("worker %u drew %u tickets, first %lu, last %lu\n", worker, TICKETS,
           (unsigned long)tickets[0], (unsigned long)tickets[TICKETS - 1]);
}

/* One end of a connection: the server's word, or a worker's place for the answers. */
static struct ibv_mr *connect_word(struct rc *rc, int peer, uint64_t *word,
                                   struct rc_memory *theirs)
{
    struct ibv_mr *mr;
    struct rc_memory mine = {.addr = (uintptr_t)word, .length = sizeof(*word)};

    rc_open(rc, 16);
    mr = ibv_reg_mr(rc->pd, word, sizeof(*word), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_ATOMIC);
    rc_need(mr != NULL, "ibv_reg_mr");
    mine.rkey = mr->rkey;
    rc_connect(rc, peer);
    rc_swap(peer, &mine, theirs, sizeof(mine));
    return mr;
}

static int worker_main(int peer)
{
    struct rc rc;
    uint64_t answer = 0;
    struct rc_memory word;
    struct ibv_mr *mr = connect_word(&rc, peer, &answer, &word);

    rc_meet(peer); /* begin together */
    work(&rc, peer, mr, &word);
    rc_meet(peer); /* end together: before this the server closes nothing */
    ibv_dereg_mr(mr);
    return rc_close(&rc);
}

static int server_main(const int *peers)
{
    static bool seen[ALL_TICKETS];
    struct rc rc[WORKERS];
    struct ibv_mr *mrs[WORKERS];
    struct rc_memory unused;
    uint64_t word = 0;
    int status = 0;

    for (unsigned i = 0; i < WORKERS; i++)
        mrs[i] = connect_word(&rc[i], peers[i], &word, &unused);
    /* All are connected before any may begin, so that they really run at a time. */
    for (unsigned i = 0; i < WORKERS; i++)
        rc_meet(peers[i]);
    for (unsigned i = 0; i < WORKERS; i++)
        collect(peers[i], i, seen);
    for (unsigned i = 0; i < WORKERS; i++)
        rc_meet(peers[i]);
    printf("the word holds %lu; %lu tickets were drawn, each once\n", (unsigned long)word,
           (unsigned long)ALL_TICKETS);
    errno = EBADMSG;
    rc_need(word == ALL_TICKETS, "counting");
    for (unsigned i = 0; i < WORKERS; i++) {
        ibv_dereg_mr(mrs[i]);
        status |= rc_close(&rc[i]);
    }
    return status;
}

int main(void)
{
    int peers[WORKERS];

    /* Fork first: an open device does not survive it. */
    for (unsigned i = 0; i < WORKERS; i++) {
        int ends[2];

        rc_need(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
        pid_t child = fork();
        rc_need(child >= 0, "fork");
        if (child == 0)
            return worker_main(ends[1]);
        close(ends[1]);
        peers[i] = ends[0];
    }
    return server_main(peers);
}
