/* SPDX-License-Identifier: MIT */
/*
 * via_rdma - write into, and read from, the memory of a process that does nothing
 *
 * What you learn: an RDMA descriptor begins with an address segment, which names memory at the
 * other side by its address there and its memory handle. The other side must have allowed it
 * twice: for the region and for the VI. Only a write with immediate data tells it that something
 * has come; and who aims wrong loses the connection.
 *
 *     examples/run via_rdma
 *     examples/run via_rdma server            or one side each
 *     examples/run via_rdma client HOST
 */
#include "vi.h"

#define LINES 4
#define LINE_BYTES 64

/* What the server says first: where its board is. */
struct where {
    VIP_UINT64 address;
    VIP_MEM_HANDLE handle;
};

/* Descriptors and what they carry, in one registered piece. */
struct desk {
    VIP_DESCRIPTOR send, receive;
    struct where where;
    char line[LINE_BYTES];
};

static void post_receive(struct vi *vi, struct desk *desk, VIP_MEM_HANDLE handle)
{
    vi_describe(&desk->receive, 0, &desk->where, sizeof(desk->where), handle);
    vi_well(VipPostRecv(vi->vi, &desk->receive, handle), "VipPostRecv");
}

static void serve(struct vi *vi, struct desk *desk, VIP_MEM_HANDLE handle)
{
    struct vi_memory board = vi_memory(vi, (VIP_ULONG)LINES * LINE_BYTES, true);
    VIP_DESCRIPTOR *d;

    desk->where = (struct where){(VIP_UINT64)(uintptr_t)board.at, board.handle};
    vi_describe(&desk->send, 0, &desk->where, sizeof(desk->where), handle);
    vi_well(VipPostSend(vi->vi, &desk->send, handle), "VipPostSend");
    vi_sent(vi->vi);
    d = vi_received(vi->vi); /* consumed by the last write, whose number comes along */
    printf("server: told of line %u, and found on the board:\n", (unsigned)d->CS.ImmediateData);
    post_receive(vi, desk, handle);
    for (int i = 0; i < LINES; i++)
        printf("server:   %s\n", board.at + (size_t)i * LINE_BYTES);
    fflush(stdout);
    VipRecvWait(vi->vi, VIP_INFINITE, &d); /* in vain, until the client has gone */
}

/* One RDMA transfer between our line and a place on the board; its status. */
static unsigned transfer(struct vi *vi, struct desk *desk, VIP_MEM_HANDLE handle,
                         VIP_UINT16 control, VIP_UINT32 line, VIP_UINT64 offset)
{
    VIP_DESCRIPTOR *d = NULL;

    vi_describe(&desk->send, control, desk->line, LINE_BYTES, handle);
    vi_aim(&desk->send, desk->where.address + offset, desk->where.handle);
    desk->send.CS.ImmediateData = line;
    vi_well(VipPostSend(vi->vi, &desk->send, handle), "VipPostSend");
    VipSendWait(vi->vi, VIP_INFINITE, &d);
    vi_need(d == &desk->send, "VipSendWait");
    return d->CS.Status & VIP_STATUS_ERROR_MASK;
}

static void ask(struct vi *vi, struct desk *desk, VIP_MEM_HANDLE handle)
{
    unsigned status = 0;

    vi_received(vi->vi);
    for (VIP_UINT32 i = 0; i < LINES; i++) {
        VIP_UINT16 last = i == LINES - 1 ? VIP_CONTROL_IMMEDIATE : 0;

        snprintf(desk->line, LINE_BYTES, "line %u, written from afar", (unsigned)i);
        status |= transfer(vi, desk, handle, VIP_CONTROL_OP_RDMAWRITE | last, i,
                           (VIP_UINT64)i * LINE_BYTES);
    }
    memset(desk->line, 0, LINE_BYTES);
    status |= transfer(vi, desk, handle, VIP_CONTROL_OP_RDMAREAD, 0, 2ul * LINE_BYTES);
    vi_need(status == 0, "a transfer");
    printf("client: read back: %s\n", desk->line);

    status = transfer(vi, desk, handle, VIP_CONTROL_OP_RDMAREAD, 0, 1 << 20);
    vi_need(status & VIP_STATUS_RDMA_PROT_ERROR, "being refused");
    printf("client: read beyond the region: refused, and the connection is gone\n");
}

int main(int argc, char **argv)
{
    struct vi_side side = vi_sides(argc, argv);
    struct vi vi;

    vi_open(&vi, VIP_SERVICE_RELIABLE_DELIVERY);
    struct vi_memory memory = vi_memory(&vi, sizeof(struct desk), false);
    struct desk *desk = (struct desk *)memory.at;
    post_receive(&vi, desk, memory.handle);
    vi_connect(&vi, &side);
    if (side.server)
        serve(&vi, desk, memory.handle);
    else
        ask(&vi, desk, memory.handle);
    return vi_close(&vi, &side);
}
