/* SPDX-License-Identifier: MIT */
/*
 * via_pingpong - a whole VIPL program in at most a hundred lines, with nothing hidden in a header.
 * What you learn: the life of a VI. Tag, memory, VI, receive, connection; then post and wait.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vipl.h>

#define ROUNDS 10000
#define NEED(call) ((call) == VIP_SUCCESS ? (void)0 : (perror(#call), exit(1)))

struct page { /* registered as one piece; descriptors must be aligned to 64 bytes */
    VIP_DESCRIPTOR send, receive;
    unsigned out, in;
};

static void describe(VIP_DESCRIPTOR *d, unsigned *data, VIP_MEM_HANDLE handle)
{
    *d = (VIP_DESCRIPTOR){.CS = {.SegCount = 1, .Length = sizeof(*data)}};
    d->DS[0].Local = (VIP_DATA_SEGMENT){{.Address = data}, handle, sizeof(*data)};
}

static void say(VIP_VI_HANDLE vi, struct page *page, VIP_MEM_HANDLE handle, unsigned value)
{
    VIP_DESCRIPTOR *done;

    page->out = value;
    describe(&page->send, &page->out, handle);
    NEED(VipPostSend(vi, &page->send, handle));
    NEED(VipSendWait(vi, VIP_INFINITE, &done));
}

static void hear(VIP_VI_HANDLE vi, struct page *page, VIP_MEM_HANDLE handle, unsigned value)
{
    VIP_DESCRIPTOR *done;

    NEED(VipRecvWait(vi, VIP_INFINITE, &done));
    NEED(page->in == value ? VIP_SUCCESS : VIP_ERROR);
    describe(&page->receive, &page->in, handle);
    NEED(VipPostRecv(vi, &page->receive, handle)); /* before the other side can send again */
}

/* At an address that both know: this NIC, and a number as the discriminator. */
static void meet(VIP_NIC_HANDLE nic, VIP_VI_HANDLE vi, int server, pid_t meeting)
{
    char room[2][512];
    VIP_NET_ADDRESS *at = (VIP_NET_ADDRESS *)room[0], *from = (VIP_NET_ADDRESS *)room[1];
    VIP_NIC_ATTRIBUTES limits;
    VIP_VI_ATTRIBUTES theirs;
    VIP_CONN_HANDLE asked;
    VIP_RETURN result = VIP_NO_MATCH; /* a client that comes early finds nobody, and tries again */

    NEED(VipQueryNic(nic, &limits));
    *at = (VIP_NET_ADDRESS){limits.NicAddressLen, sizeof(meeting), {0}};
    memcpy(at->HostAddress, limits.LocalNicAddress, limits.NicAddressLen);
    memcpy(at->HostAddress + limits.NicAddressLen, &meeting, sizeof(meeting));
    if (server) {
        NEED(VipConnectWait(nic, at, 30000, from, &theirs, &asked));
        NEED(VipConnectAccept(asked, vi));
    }
    for (int tries = 0; !server && result == VIP_NO_MATCH && tries < 30000; tries++, usleep(1000))
        result = VipConnectRequest(vi, NULL, at, 30000, &theirs);
    NEED(server ? VIP_SUCCESS : result);
}

static void ignore(void *context, VIP_ERROR_DESCRIPTOR *lost) /* as the other side was faster */
{
    (void)context, (void)lost;
}

int main(void)
{
    int server = fork() == 0, status = 0; /* before the NIC is opened */
    static _Alignas(64) struct page room, *page = &room;
    VIP_MEM_ATTRIBUTES memory = {0};
    VIP_VI_ATTRIBUTES mine = {VIP_SERVICE_RELIABLE_DELIVERY, 4096, NULL, NULL, 0, 0};
    VIP_NIC_HANDLE nic;
    VIP_VI_HANDLE vi;
    VIP_MEM_HANDLE handle;

    NEED(VipOpenNic("", &nic)); /* the first there is */
    NEED(VipErrorCallback(nic, NULL, ignore));
    NEED(VipCreatePtag(nic, &memory.Ptag));
    NEED(VipRegisterMem(nic, page, sizeof(*page), &memory, &handle));
    mine.Ptag = memory.Ptag;
    NEED(VipCreateVi(nic, &mine, NULL, NULL, &vi));
    describe(&page->receive, &page->in, handle);
    NEED(VipPostRecv(vi, &page->receive, handle));
    meet(nic, vi, server, server ? getppid() : getpid());
    for (unsigned round = 0; round < 2 * ROUNDS; round++)
        (server == (int)round % 2 ? say : hear)(vi, page, handle, round);
    NEED(VipCloseNic(nic)); /* and with it all that belongs to it */
    if (!server)
        printf("%d round trips, every answer checked\n", ROUNDS);
    return wait(&status) > 0 && status != 0;
}
