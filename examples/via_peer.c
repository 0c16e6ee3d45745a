/* SPDX-License-Identifier: MIT */
/*
 * via_peer - a connection between equals: nobody waits, both ask
 *
 * What you learn: in the peer-to-peer model each side names its own address and the other's, and
 * whoever comes first is simply early. VipConnectPeerRequest only files the request, so a program
 * can ask many at once and go on; VipConnectPeerDone looks, VipConnectPeerWait waits.
 *
 *     examples/run via_peer
 *     examples/run via_peer left HOST         or one side each: HOST is the other one
 *     examples/run via_peer right HOST
 */
#include "vi.h"

#define WORDS_BYTES 64

struct desk {
    VIP_DESCRIPTOR send, receive;
    char out[WORDS_BYTES], in[WORDS_BYTES];
};

static void connect_as_peer(struct vi *vi, const char *host, const char *me, const char *other)
{
    union vi_address here, there;
    VIP_VI_ATTRIBUTES theirs;
    VIP_RETURN result;
    unsigned looked = 0;

    vi_address(vi, NULL, me, &here);
    vi_address(vi, host, other, &there);
    vi_well(VipConnectPeerRequest(vi->vi, &here.address, &there.address, VI_PATIENCE_MS),
            "VipConnectPeerRequest");
    while (looked++ < 3) {
        result = VipConnectPeerDone(vi->vi, &theirs);
        if (result != VIP_NOT_DONE) {
            vi_well(result, "VipConnectPeerDone");
            return;
        }
    }
    vi_well(VipConnectPeerWait(vi->vi, &theirs), "VipConnectPeerWait");
}

/* The same on both sides: that is the point. */
static void greet(struct vi *vi, struct desk *desk, VIP_MEM_HANDLE handle, const char *name)
{
    snprintf(desk->out, sizeof(desk->out), "hello from the %s", name);
    vi_describe(&desk->send, 0, desk->out, sizeof(desk->out), handle);
    vi_well(VipPostSend(vi->vi, &desk->send, handle), "VipPostSend");
    vi_sent(vi->vi);
    vi_received(vi->vi);
    printf("%s: %.*s\n", name, WORDS_BYTES, desk->in);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    bool two = argc == 3 && (strcmp(argv[1], "left") == 0 || strcmp(argv[1], "right") == 0);
    struct vi_side side =
        two ? (struct vi_side){.server = strcmp(argv[1], "right") == 0} : vi_sides(argc, argv);
    const char *name = side.server ? "right" : "left";
    char me[16], other[16];
    struct vi vi;

    snprintf(me, sizeof(me), "%c %s", side.server ? 'R' : 'L', side.meeting);
    snprintf(other, sizeof(other), "%c %s", side.server ? 'L' : 'R', side.meeting);
    vi_open(&vi, VIP_SERVICE_RELIABLE_DELIVERY);
    struct vi_memory memory = vi_memory(&vi, sizeof(struct desk), false);
    struct desk *desk = (struct desk *)memory.at;
    vi_describe(&desk->receive, 0, desk->in, sizeof(desk->in), memory.handle);
    vi_well(VipPostRecv(vi.vi, &desk->receive, memory.handle), "VipPostRecv");
    connect_as_peer(&vi, two ? argv[2] : NULL, me, other);
    greet(&vi, desk, memory.handle, name);
    return vi_close(&vi, &side);
}
