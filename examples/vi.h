/* SPDX-License-Identifier: MIT */
/*
 * vi.h - what every VIA example needs before its first message, on nothing but vipl.h
 *
 *   vi_sides()       two sides: two processes here, or two hosts
 *   vi_open()        NIC -> protection tag -> VI
 *   vi_memory()      registered memory, where descriptors and data must lie
 *   vi_connect()     the server waits at a discriminator, the client asks for it
 *   vi_describe()    a descriptor for one piece of data
 *   vi_sent(), vi_received()   wait for one, and insist that it is a good one
 *
 * An example that fails prints one line and exits: nothing here is worth recovering from.
 */
#ifndef EXAMPLES_VI_H
#define EXAMPLES_VI_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vipl.h>

#define VI_TRANSFER_BYTES 65536
#define VI_PATIENCE_MS 30000
#define VI_MEMORIES 4

/* Who we are, and where the other one is. */
struct vi_side {
    bool server;
    const char *host; /* of the server, by name; NULL: this one */
    char meeting[12]; /* the discriminator at which we meet */
    pid_t child;      /* the server, if it is a process of ours */
};

struct vi {
    VIP_NIC_HANDLE nic;
    VIP_NIC_ATTRIBUTES limits;
    VIP_PROTECTION_HANDLE tag; /* VIs and memory of one tag may be used together */
    VIP_VI_HANDLE vi;          /* a send queue and a receive queue, connected to another VI */
    void *memory[VI_MEMORIES]; /* to be freed when the NIC is closed */
    unsigned memories;
};

struct vi_memory {
    char *at;
    VIP_ULONG length;
    VIP_MEM_HANDLE handle;
};

/* A network address with room for the longest of any NIC, and of any discriminator here. */
union vi_address {
    VIP_NET_ADDRESS address;
    char room[sizeof(VIP_NET_ADDRESS) + 256];
};

static inline void vi_need(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "%s failed\n", what);
    exit(1);
}

static inline void vi_well(VIP_RETURN result, const char *what)
{
    if (result == VIP_SUCCESS)
        return;
    fprintf(stderr, "%s failed: return code %d\n", what, (int)result);
    exit(1);
}

/* --- two sides --- */

/*
 * No argument: fork a server. It must happen before the NIC is opened, because an open NIC does
 * not survive a fork. "server" and "client HOST": one side each, also on two hosts.
 */
static inline struct vi_side vi_sides(int argc, char **argv)
{
    struct vi_side side = {.host = argc == 3 ? argv[2] : NULL};

    snprintf(side.meeting, sizeof(side.meeting), "an example");
    side.server = argc == 2 && strcmp(argv[1], "server") == 0;
    if (side.server || (argc == 3 && strcmp(argv[1], "client") == 0))
        return side;
    if (argc != 1) {
        fprintf(stderr, "usage: %s [server | client HOST]\n", argv[0]);
        exit(2);
    }
    snprintf(side.meeting, sizeof(side.meeting), "%d", (int)getpid());
    side.child = fork();
    vi_need(side.child >= 0, "fork");
    side.server = side.child == 0;
    return side;
}

/* --- opening and closing --- */

static inline VIP_VI_HANDLE vi_create(struct vi *vi, VIP_RELIABILITY_LEVEL level, VIP_CQ_HANDLE cq)
{
    VIP_VI_ATTRIBUTES attributes = {.ReliabilityLevel = level,
                                    .MaxTransferSize = VI_TRANSFER_BYTES,
                                    .Ptag = vi->tag,
                                    .EnableRdmaWrite = VIP_TRUE,
                                    .EnableRdmaRead = level != VIP_SERVICE_UNRELIABLE};
    VIP_VI_HANDLE made;

    vi_well(VipCreateVi(vi->nic, &attributes, cq, cq, &made), "VipCreateVi");
    return made;
}

/* Whoever closes first, the other one hears that the connection is lost: no news here. */
static inline void vi_error(VIP_PVOID context, VIP_ERROR_DESCRIPTOR *error)
{
    (void)context;
    if (error->ErrorCode != VIP_ERROR_CONN_LOST)
        fprintf(stderr, "an error without a descriptor: code %d\n", (int)error->ErrorCode);
}

static inline void vi_open(struct vi *vi, VIP_RELIABILITY_LEVEL level)
{
    memset(vi, 0, sizeof(*vi));
    vi_well(VipOpenNic("", &vi->nic), "VipOpenNic");
    vi_well(VipErrorCallback(vi->nic, NULL, vi_error), "VipErrorCallback");
    vi_well(VipQueryNic(vi->nic, &vi->limits), "VipQueryNic");
    vi_well(VipCreatePtag(vi->nic, &vi->tag), "VipCreatePtag");
    vi->vi = vi_create(vi, level, NULL);
}

/* Registers memory that is there; with `remote`, the other side may write and read it. */
static inline VIP_MEM_HANDLE vi_register(struct vi *vi, void *at, VIP_ULONG length, bool remote)
{
    VIP_MEM_ATTRIBUTES attributes = {
        .Ptag = vi->tag, .EnableRdmaWrite = remote, .EnableRdmaRead = remote};
    VIP_MEM_HANDLE handle;

    vi_well(VipRegisterMem(vi->nic, at, length, &attributes, &handle), "VipRegisterMem");
    return handle;
}

/* Zeroed, and aligned so that descriptors may begin at each multiple of 64. */
static inline struct vi_memory vi_memory(struct vi *vi, VIP_ULONG length, bool remote)
{
    struct vi_memory memory = {.length = (length + 4095) / 4096 * 4096};

    memory.at = aligned_alloc(4096, memory.length);
    vi_need(memory.at != NULL && vi->memories < VI_MEMORIES, "aligned_alloc");
    vi->memory[vi->memories++] = memory.at;
    memset(memory.at, 0, memory.length);
    memory.handle = vi_register(vi, memory.at, memory.length, remote);
    return memory;
}

/* Descriptors that never were used have to be taken off before a VI may go. */
static inline void vi_destroy(VIP_VI_HANDLE vi)
{
    VIP_DESCRIPTOR *d;

    VipDisconnect(vi);
    do {
        VipSendDone(vi, &d);
    } while (d != NULL);
    do {
        VipRecvDone(vi, &d);
    } while (d != NULL);
    vi_well(VipDestroyVi(vi), "VipDestroyVi");
}

/* Closing the NIC also ends what belongs to it. The parent of vi_sides waits for its child. */
static inline int vi_close(struct vi *vi, const struct vi_side *side)
{
    int status = 0;

    vi_destroy(vi->vi);
    vi_well(VipCloseNic(vi->nic), "VipCloseNic");
    while (vi->memories > 0)
        free(vi->memory[--vi->memories]);
    if (side->child > 0)
        waitpid(side->child, &status, 0);
    return status != 0;
}

/* --- connecting --- */

/* The host address of this NIC, or of a named host; then the discriminator. */
static inline void vi_address(struct vi *vi, const char *host, const char *meeting,
                              union vi_address *address_out)
{
    VIP_NET_ADDRESS *a = &address_out->address;

    memset(address_out, 0, sizeof(*address_out));
    a->HostAddressLen = vi->limits.NicAddressLen;
    memcpy(a->HostAddress, vi->limits.LocalNicAddress, a->HostAddressLen);
    if (host != NULL) {
        vi_well(VipNSInit(vi->nic, NULL), "VipNSInit");
        vi_well(VipNSGetHostByName(vi->nic, (char *)host, a, 0), "looking up the server's host");
        vi_well(VipNSShutdown(vi->nic), "VipNSShutdown");
    }
    a->DiscriminatorLen = (VIP_UINT16)strlen(meeting);
    memcpy(a->HostAddress + a->HostAddressLen, meeting, a->DiscriminatorLen);
}

static inline void vi_accept(struct vi *vi, VIP_VI_HANDLE to, const char *meeting)
{
    union vi_address here, there;
    VIP_VI_ATTRIBUTES theirs;
    VIP_CONN_HANDLE asked;

    vi_address(vi, NULL, meeting, &here);
    vi_well(VipConnectWait(vi->nic, &here.address, VI_PATIENCE_MS, &there.address, &theirs, &asked),
            "VipConnectWait");
    vi_well(VipConnectAccept(asked, to), "VipConnectAccept");
}

/* The server may not be waiting yet: then nobody matches, and we ask again. */
static inline void vi_request(struct vi *vi, VIP_VI_HANDLE from, const struct vi_side *side,
                              const char *meeting)
{
    union vi_address there;
    VIP_VI_ATTRIBUTES theirs;
    VIP_RETURN result;
    int status;

    vi_address(vi, side->host, meeting, &there);
    while ((result = VipConnectRequest(from, NULL, &there.address, VI_PATIENCE_MS, &theirs)) ==
           VIP_NO_MATCH) {
        vi_need(side->child == 0 || waitpid(side->child, &status, WNOHANG) == 0, "the server");
        usleep(1000);
    }
    vi_well(result, "VipConnectRequest");
}

static inline void vi_connect(struct vi *vi, const struct vi_side *side)
{
    if (side->server)
        vi_accept(vi, vi->vi, side->meeting);
    else
        vi_request(vi, vi->vi, side, side->meeting);
}

/* --- descriptors --- */

/* One piece of data; for an RDMA transfer vi_aim() makes room for where it goes to. */
static inline void vi_describe(VIP_DESCRIPTOR *d, VIP_UINT16 control, void *data, VIP_UINT32 length,
                               VIP_MEM_HANDLE handle)
{
    memset(d, 0, sizeof(*d));
    d->CS.Control = control;
    d->CS.SegCount = 1;
    d->CS.Length = length;
    d->DS[0].Local.Data.Address = data;
    d->DS[0].Local.Handle = handle;
    d->DS[0].Local.Length = length;
}

/* The address segment comes first: memory of the other side. */
static inline void vi_aim(VIP_DESCRIPTOR *d, VIP_UINT64 address, VIP_MEM_HANDLE handle)
{
    d->DS[1] = d->DS[0];
    memset(&d->DS[0], 0, sizeof(d->DS[0]));
    d->DS[0].Remote.Data.AddressBits = address;
    d->DS[0].Remote.Handle = handle;
    d->CS.SegCount++;
}

static inline void vi_good(VIP_RETURN result, const VIP_DESCRIPTOR *d, const char *what)
{
    if (result == VIP_DESCRIPTOR_ERROR && d != NULL) {
        fprintf(stderr, "%s: a descriptor failed, status 0x%x\n", what, (unsigned)d->CS.Status);
        exit(1);
    }
    vi_well(result, what);
}

static inline VIP_DESCRIPTOR *vi_sent(VIP_VI_HANDLE vi)
{
    VIP_DESCRIPTOR *d = NULL;

    vi_good(VipSendWait(vi, VIP_INFINITE, &d), d, "VipSendWait");
    return d;
}

static inline VIP_DESCRIPTOR *vi_received(VIP_VI_HANDLE vi)
{
    VIP_DESCRIPTOR *d = NULL;

    vi_good(VipRecvWait(vi, VIP_INFINITE, &d), d, "VipRecvWait");
    return d;
}

#endif
