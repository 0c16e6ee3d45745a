/* SPDX-License-Identifier: MIT */
/*
 * write_imm - RDMA write with immediate data
 *
 * What you learn: a write puts data at an address of the writer's choice in the other side's
 * memory, and the other side notices nothing. With immediate data it does: the write takes a
 * posted receive and completes it there, with a 32-bit number. The receive needs no buffer,
 * because the data lies elsewhere already.
 *
 * Here the server offers a page of lines; the client writes each poem line to its place, in an
 * order of its own, and the number says which one came.
 *
 *     examples/run write_imm [server | client HOST]
 */
#include "rc.h"

#define LINES 4u
#define LINE_SIZE 64

static const char poem[LINES][LINE_SIZE] = {
    "A message needs a place to go,",
    "the place must be prepared to know;",
    "but write with care beyond the wall,",
    "and no one has to move at all.",
};

/* --- the server: offer memory, and hear which line was written --- */

static void post_empty_receives(struct rc *rc)
{
    struct ibv_recv_wr wr = {.num_sge = 0}, *bad;

    for (unsigned i = 0; i < LINES; i++) {
        errno = ibv_post_recv(rc->qp, &wr, &bad);
        rc_need(errno == 0, "ibv_post_recv");
    }
}

static void serve(struct rc *rc, int peer, const char (*page)[LINE_SIZE])
{
    for (unsigned i = 0; i < LINES; i++) {
        struct ibv_wc wc = rc_wait(rc, peer);
        unsigned line = ntohl(wc.imm_data); /* on the wire it is big-endian */

        errno = EBADMSG;
        rc_need(wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM && line < LINES, "reading the number");
        printf("server: line %u was written, %u bytes: %s\n", line, wc.byte_len, page[line]);
        rc_need(strcmp(page[line], poem[line]) == 0, "comparing the line");
    }
}

/* --- the client: write --- */

static void write_line(struct rc *rc, int peer, struct ibv_mr *mr, unsigned line,
                       const struct rc_memory *page)
{
    uint64_t offset = (uint64_t)line * LINE_SIZE;
    struct ibv_sge piece = {
        .addr = (uintptr_t)mr->addr + offset, .length = LINE_SIZE, .lkey = mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &piece,
                             .num_sge = 1,
                             .opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
                             .send_flags = IBV_SEND_SIGNALED,
                             .imm_data = htonl(line),
                             .wr.rdma = {.remote_addr = page->addr + offset, .rkey = page->rkey}};
    struct ibv_send_wr *bad;

    errno = ibv_post_send(rc->qp, &wr, &bad);
    rc_need(errno == 0, "ibv_post_send");
    rc_wait(rc, peer);
    printf("client: wrote line %u\n", line);
}

int main(int argc, char **argv)
{
    static const unsigned order[LINES] = {2, 0, 3, 1};
    struct rc rc;
    bool server;
    int peer = rc_sides(argc, argv, &server);
    char(*page)[LINE_SIZE] = calloc(LINES, LINE_SIZE);
    struct ibv_mr *mr;

    setvbuf(stdout, NULL, _IOLBF, 0);
    rc_open(&rc, LINES);
    /* The right to write is given twice: by the memory here, by the queue pair in rc.h. */
    mr = ibv_reg_mr(rc.pd, page, sizeof(poem), IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    rc_need(mr != NULL, "ibv_reg_mr");
    struct rc_memory mine = {(uintptr_t)page, mr->rkey, sizeof(poem)}, theirs;
    rc_connect(&rc, peer);
    if (server)
        post_empty_receives(&rc);
    else
        memcpy(page, poem, sizeof(poem));
    rc_swap(peer, &mine, &theirs, sizeof(mine));
    if (server)
        serve(&rc, peer, (const char(*)[LINE_SIZE])page);
    for (unsigned i = 0; !server && i < LINES; i++)
        write_line(&rc, peer, mr, order[i], &theirs);
    rc_meet(peer);
    ibv_dereg_mr(mr);
    free(page);
    return rc_close(&rc);
}
