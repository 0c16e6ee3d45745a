/* SPDX-License-Identifier: MIT */
/*
 * via_unreliable - what gets lost, and that nobody is told
 *
 * What you learn: on an unreliable VI a send is complete when it has left. If there is no receive
 * at the other side the message is dropped: the connection lives on, the sender sees success, and
 * only numbers in the messages show what is missing. A second, reliable VI carries what must
 * arrive: that the sender is done.
 *
 *     examples/run via_unreliable
 *     examples/run via_unreliable server          or one side each
 *     examples/run via_unreliable client HOST
 */
#include "vi.h"

#define ROUNDS 3
#define BURST 100
#define RECEIVES 16

struct parcel {
    _Alignas(VIP_DESCRIPTOR_ALIGNMENT) VIP_DESCRIPTOR descriptor;
    VIP_UINT64 number;
};

/* The receives for data; then one to send from, and one for the reliable VI. */
enum { TO_SEND = RECEIVES, FOR_CONTROL, PARCELS };

struct both {
    VIP_VI_HANDLE data, control;
    VIP_MEM_HANDLE handle;
    struct parcel *parcels;
};

static void post(struct both *b, VIP_VI_HANDLE vi, int which, bool receive)
{
    struct parcel *p = &b->parcels[which];

    vi_describe(&p->descriptor, 0, &p->number, sizeof(p->number), b->handle);
    vi_well((receive ? VipPostRecv : VipPostSend)(vi, &p->descriptor, b->handle), "posting");
}

static void say(struct both *b, VIP_VI_HANDLE vi, VIP_UINT64 number)
{
    b->parcels[TO_SEND].number = number;
    post(b, vi, TO_SEND, false);
    vi_sent(vi);
}

/* What the other side says on the reliable VI: that it has come as far. */
static void hear(struct both *b)
{
    vi_received(b->control);
    post(b, b->control, FOR_CONTROL, true);
}

static void send_all(struct both *b)
{
    for (int round = 0; round < ROUNDS; round++) {
        hear(b);
        for (int i = 0; i < BURST; i++)
            say(b, b->data, (VIP_UINT64)i);
        say(b, b->control, BURST);
    }
    printf("client: %d messages sent, and every send completed well\n", ROUNDS * BURST);
}

static int count_round(struct both *b)
{
    VIP_UINT64 last = 0;
    VIP_DESCRIPTOR *d;
    int arrived = 0;

    for (int i = 0; i < RECEIVES; i++)
        post(b, b->data, i, true);
    say(b, b->control, 0); /* go on */
    hear(b);               /* all is sent */
    while (VipRecvDone(b->data, &d) == VIP_SUCCESS) {
        VIP_UINT64 number = ((struct parcel *)d)->number;

        vi_need(arrived == 0 || number > last, "keeping the order");
        last = number;
        arrived++;
    }
    printf("server: %d of %d arrived, the last is number %lu\n", arrived, BURST,
           (unsigned long)last);
    return arrived;
}

static void receive_all(struct both *b)
{
    int arrived = 0;

    for (int round = 0; round < ROUNDS; round++)
        arrived += count_round(b);
    printf("server: %d lost, because there were %d receives for %d messages\n",
           ROUNDS * BURST - arrived, RECEIVES, BURST);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct vi_side side = vi_sides(argc, argv);
    struct vi vi;
    char second[16];

    vi_open(&vi, VIP_SERVICE_UNRELIABLE);
    struct vi_memory memory = vi_memory(&vi, PARCELS * sizeof(struct parcel), false);
    struct both b = {vi.vi, vi_create(&vi, VIP_SERVICE_RELIABLE_DELIVERY, NULL), memory.handle,
                     (struct parcel *)memory.at};
    post(&b, b.control, FOR_CONTROL, true);
    vi_connect(&vi, &side);
    snprintf(second, sizeof(second), "%s ctl", side.meeting);
    if (side.server)
        vi_accept(&vi, b.control, second);
    else
        vi_request(&vi, b.control, &side, second);
    if (side.server)
        receive_all(&b);
    else
        send_all(&b);
    vi_destroy(b.control);
    return vi_close(&vi, &side);
}
