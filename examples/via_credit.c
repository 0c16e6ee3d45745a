/* SPDX-License-Identifier: MIT */
/*
 * via_credit - a fast sender, a slow receiver, and a connection that does not break
 *
 * What you learn: a message that finds no receive breaks a reliable VI. So a sender must know how
 * many receives the other side has posted: these are its credits. credit.h keeps the books; one
 * word of its travels with each message as immediate data. The receiver returns credits by
 * updates, messages without data, for which the sender keeps receives in reserve.
 *
 *     examples/run via_credit
 *     examples/run via_credit server          or one side each
 *     examples/run via_credit client HOST
 */
#include "credit.h"
#include "vi.h"

#ifndef MESSAGES
#define MESSAGES 20000
#endif
#define WINDOW 8
#define RESERVE 1
#define RECEIVES (WINDOW + RESERVE)

/* A descriptor and its message, side by side; the last of all is the one to send. */
struct parcel {
    _Alignas(VIP_DESCRIPTOR_ALIGNMENT) VIP_DESCRIPTOR descriptor;
    VIP_UINT64 number, spare[7];
};

struct flow {
    struct credit credit;
    VIP_VI_HANDLE vi;
    VIP_MEM_HANDLE handle;
    struct parcel *parcels;
    unsigned updates, waits;
};

static void post_receive(struct flow *flow, VIP_DESCRIPTOR *d)
{
    struct parcel *parcel = (struct parcel *)d;

    vi_describe(d, 0, &parcel->number, sizeof(parcel->number), flow->handle);
    vi_well(VipPostRecv(flow->vi, d, flow->handle), "VipPostRecv");
    credit_posted(&flow->credit);
}

/* Send the number, or nothing, with a word of credit. */
static void send_word(struct flow *flow, VIP_UINT32 length, uint32_t word)
{
    struct parcel *parcel = &flow->parcels[RECEIVES];
    VIP_DESCRIPTOR *d = &parcel->descriptor;

    vi_describe(d, VIP_CONTROL_IMMEDIATE, &parcel->number, length, flow->handle);
    d->CS.ImmediateData = word;
    vi_well(VipPostSend(flow->vi, d, flow->handle), "VipPostSend");
    credit_sent(&flow->credit, word);
    vi_sent(flow->vi);
}

static void send_update(struct flow *flow)
{
    uint32_t word;

    if (credit_update(&flow->credit, &word) != 0)
        return;
    flow->updates++;
    send_word(flow, 0, word);
}

/* Wait for one message. Its number, or, if it was only an update, none. */
static bool receive(struct flow *flow, VIP_UINT64 *number_out)
{
    VIP_DESCRIPTOR *d = vi_received(flow->vi);
    int kind = credit_arrived(&flow->credit, d->CS.ImmediateData);

    vi_need(kind >= 0, "keeping to the credits");
    *number_out = ((struct parcel *)d)->number;
    post_receive(flow, d);
    send_update(flow);
    return kind == CREDIT_DATA;
}

/* Send a number, as soon as there is a credit for it. */
static void send_number(struct flow *flow, VIP_UINT64 number)
{
    VIP_UINT64 nothing;
    uint32_t word;

    for (; credit_take(&flow->credit, &word) != 0; flow->waits++)
        receive(flow, &nothing);
    flow->parcels[RECEIVES].number = number;
    send_word(flow, sizeof(number), word);
}

static void produce(struct flow *flow)
{
    VIP_UINT64 count;

    for (VIP_UINT64 i = 0; i < MESSAGES; i++)
        send_number(flow, i);
    while (!receive(flow, &count))
        ; /* updates, until the server says how many it has */
    vi_need(count == MESSAGES, "getting all messages across");
    printf("client: %d messages sent, %u times out of credit\n", MESSAGES, flow->waits);
}

static void consume(struct flow *flow)
{
    VIP_UINT64 next = 0, number;

    while (next < MESSAGES) {
        for (volatile int work = 0; work < 1000; work++)
            ; /* slower than the sender */
        if (receive(flow, &number))
            vi_need(number == next++, "getting each message once, in order");
    }
    send_number(flow, next);
    printf("server: %d messages into %d receives, none lost, %u updates sent\n", MESSAGES, RECEIVES,
           flow->updates);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    struct vi_side side = vi_sides(argc, argv);
    struct flow flow = {0};
    struct vi vi;
    uint32_t hello;

    vi_open(&vi, VIP_SERVICE_RELIABLE_DELIVERY);
    struct vi_memory memory = vi_memory(&vi, (RECEIVES + 1) * sizeof(struct parcel), false);
    flow.vi = vi.vi;
    flow.handle = memory.handle;
    flow.parcels = (struct parcel *)memory.at;
    vi_need(credit_init(&flow.credit, RESERVE) == 0, "credit_init");
    for (int i = 0; i < RECEIVES; i++)
        post_receive(&flow, &flow.parcels[i].descriptor);
    /* Both sides are alike, so each knows the other's hello: it is its own. */
    vi_need(credit_hello(&flow.credit, &hello) == 0, "credit_hello");
    vi_need(credit_meet(&flow.credit, hello) == 0, "credit_meet");
    vi_connect(&vi, &side);
    if (side.server)
        consume(&flow);
    else
        produce(&flow);
    return vi_close(&vi, &side);
}
