/* SPDX-License-Identifier: MIT */
/*
 * rdma_read - fetch another process's memory while it sleeps
 *
 * What you learn: a read is served by the other side's NIC, not by its program. The server
 * fills a table, tells address and key, and then waits on a socket; it posts nothing and polls
 * nothing. The client fetches the table with reads of several sizes, and one that goes too far:
 * the key covers the table and not one byte more.
 *
 *     examples/run rdma_read [server | client HOST]
 */
#include "rc.h"

#define TABLE_BYTES (1u << 20)

static unsigned char table_byte(size_t i)
{
    return (unsigned char)(i * 2654435761u >> 11);
}

/* Post one read, and say how it ended. */
static enum ibv_wc_status fetch(struct rc *rc, struct ibv_mr *mr, const struct rc_memory *table,
                                uint64_t offset, uint32_t length)
{
    struct ibv_sge place = {.addr = (uintptr_t)mr->addr, .length = length, .lkey = mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &place,
                             .num_sge = 1,
                             .opcode = IBV_WR_RDMA_READ,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.rdma = {.remote_addr = table->addr + offset, .rkey = table->rkey}};
    struct ibv_send_wr *bad;
    struct ibv_wc wc;
    int n;

    errno = ibv_post_send(rc->qp, &wr, &bad);
    rc_need(errno == 0, "ibv_post_send");
    while ((n = ibv_poll_cq(rc->cq, 1, &wc)) == 0)
        sched_yield();
    rc_need(n == 1, "ibv_poll_cq");
    return wc.status;
}

static void compare(const unsigned char *got, uint64_t offset, uint32_t length)
{
    errno = EBADMSG;
    for (uint32_t i = 0; i < length; i++)
        rc_need(got[i] == table_byte(offset + i), "comparing what was read");
}

static void client(struct rc *rc, struct ibv_mr *mr, const struct rc_memory *table)
{
    enum ibv_wc_status status;

    for (uint32_t length = 1; length <= TABLE_BYTES; length *= 32) {
        uint64_t offset = (TABLE_BYTES - length) / 2;

        memset(mr->addr, 0, length);
        status = fetch(rc, mr, table, offset, length);
        errno = EIO;
        rc_need(status == IBV_WC_SUCCESS, "reading");
        compare(mr->addr, offset, length);
        printf("client: read %7u bytes at offset %7lu: right\n", length, (unsigned long)offset);
    }
    status = fetch(rc, mr, table, TABLE_BYTES - 8, 16);
    printf("client: read 8 bytes too far: %s\n", ibv_wc_status_str(status));
    errno = EIO;
    rc_need(status == IBV_WC_REM_ACCESS_ERR, "being refused");
}

int main(int argc, char **argv)
{
    struct rc rc;
    bool server;
    int peer = rc_sides(argc, argv, &server);
    unsigned char *memory = malloc(TABLE_BYTES);
    struct ibv_mr *mr;

    rc_need(memory != NULL, "malloc");
    for (size_t i = 0; i < TABLE_BYTES; i++)
        memory[i] = server ? table_byte(i) : 0;
    rc_open(&rc, 16);
    mr = ibv_reg_mr(rc.pd, memory, TABLE_BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
    rc_need(mr != NULL, "ibv_reg_mr");
    rc_connect(&rc, peer);
    struct rc_memory mine = {(uintptr_t)memory, mr->rkey, TABLE_BYTES}, theirs;
    rc_swap(peer, &mine, &theirs, sizeof(mine));
    if (!server)
        client(&rc, mr, &theirs);
    rc_meet(peer); /* the server has been here since, asleep in recv() */
    ibv_dereg_mr(mr);
    free(memory);
    return rc_close(&rc);
}
