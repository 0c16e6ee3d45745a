/* SPDX-License-Identifier: MIT */
/*
 * via_file - a file goes from page cache to page cache, and this program copies nothing
 *
 * What you learn: registered memory may be anything, so also a mapped file. The client registers
 * the file it sends, the server the file it makes, and RDMA writes carry the bytes from the one
 * mapping into the other. There is no buffer, no read(), no write(): compare with the loop that
 * sends a file over a socket, which copies every byte into the kernel and out of it, twice.
 *
 *     examples/run via_file
 *     examples/run via_file server            or one side each
 *     examples/run via_file client HOST
 */
#include "vi.h"

#include <sys/mman.h>

#define FILE_BYTES 5000000
#define PIECE_BYTES VI_TRANSFER_BYTES

/* Client to server: how long the file is, then that it is there. Server to client: where to. */
struct note {
    VIP_UINT64 length, address, sum;
    VIP_MEM_HANDLE handle;
};

struct desk {
    VIP_DESCRIPTOR send, receive;
    struct note out, in;
};

struct mapping {
    char *at;
    size_t length;
};

/* A file that goes when the mapping goes. */
static struct mapping make_file(size_t length)
{
    char name[] = "/tmp/via_file.XXXXXX";
    struct mapping m = {.length = length};
    int fd = mkstemp(name);

    vi_need(fd >= 0 && unlink(name) == 0 && ftruncate(fd, (off_t)length) == 0, "making a file");
    m.at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    vi_need(m.at != MAP_FAILED, "mmap");
    close(fd);
    return m;
}

static VIP_UINT64 sum_of(const struct mapping *m)
{
    VIP_UINT64 sum = 0;

    for (size_t i = 0; i < m->length; i++)
        sum = sum * 31 + (unsigned char)m->at[i];
    return sum;
}

static void post_receive(struct vi *vi, struct desk *desk, VIP_MEM_HANDLE handle)
{
    vi_describe(&desk->receive, 0, &desk->in, sizeof(desk->in), handle);
    vi_well(VipPostRecv(vi->vi, &desk->receive, handle), "VipPostRecv");
}

static void say(struct vi *vi, struct desk *desk, VIP_MEM_HANDLE handle)
{
    vi_describe(&desk->send, 0, &desk->out, sizeof(desk->out), handle);
    vi_well(VipPostSend(vi->vi, &desk->send, handle), "VipPostSend");
    vi_sent(vi->vi);
}

static struct note hear(struct vi *vi, struct desk *desk, VIP_MEM_HANDLE handle)
{
    struct note note;

    vi_received(vi->vi);
    note = desk->in;
    post_receive(vi, desk, handle);
    return note;
}

static unsigned write_pieces(struct vi *vi, struct desk *desk, const struct mapping *file,
                             VIP_MEM_HANDLE from, VIP_MEM_HANDLE handle, const struct note *to)
{
    unsigned pieces = 0;

    for (size_t at = 0; at < file->length; at += PIECE_BYTES, pieces++) {
        size_t left = file->length - at;

        vi_describe(&desk->send, VIP_CONTROL_OP_RDMAWRITE, file->at + at,
                    (VIP_UINT32)(left < PIECE_BYTES ? left : PIECE_BYTES), from);
        vi_aim(&desk->send, to->address + at, to->handle);
        vi_well(VipPostSend(vi->vi, &desk->send, handle), "VipPostSend");
        vi_sent(vi->vi);
    }
    return pieces;
}

static void send_file(struct vi *vi, struct desk *desk, VIP_MEM_HANDLE handle)
{
    struct mapping file = make_file(FILE_BYTES);
    VIP_MEM_HANDLE from = vi_register(vi, file.at, file.length, false);
    struct note where;
    unsigned pieces;

    for (size_t i = 0; i < file.length; i++)
        file.at[i] = (char)(i * i >> 7);
    desk->out = (struct note){.length = file.length};
    say(vi, desk, handle);
    where = hear(vi, desk, handle);
    pieces = write_pieces(vi, desk, &file, from, handle, &where);
    desk->out.sum = sum_of(&file);
    say(vi, desk, handle);
    hear(vi, desk, handle); /* the server has looked at it */
    printf("client: %zu bytes in %u RDMA writes; copied by this program: 0\n", file.length, pieces);
}

static void receive_file(struct vi *vi, struct desk *desk, VIP_MEM_HANDLE handle)
{
    struct mapping file = make_file(hear(vi, desk, handle).length);
    VIP_MEM_HANDLE to = vi_register(vi, file.at, file.length, true);

    desk->out = (struct note){.address = (VIP_UINT64)(uintptr_t)file.at, .handle = to};
    say(vi, desk, handle);
    vi_need(hear(vi, desk, handle).sum == sum_of(&file), "getting the file as it was");
    printf("server: a file of %zu bytes, the same to the byte; copied by this program: 0\n",
           file.length);
    fflush(stdout);
    say(vi, desk, handle);
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
        receive_file(&vi, desk, memory.handle);
    else
        send_file(&vi, desk, memory.handle);
    return vi_close(&vi, &side);
}
