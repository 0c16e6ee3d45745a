/* SPDX-License-Identifier: MIT */
/*
 * The Virtual Interface Provider Library (VIPL) 1.0, on any verbs device.
 *
 * A *virtual interface* (VI) is a pair of work queues between a process and a network adapter. The
 * program writes *descriptors* into memory it has registered, posts them, and finds each one
 * completed in place: the kernel has no part in it.
 *
 *        process                                         adapter (NIC)
 *   +---------------+    VipPostSend   +------------+
 *   | descriptors,  | ---------------> | send queue | ----> the connected VI
 *   | data: both in |    VipPostRecv   +------------+
 *   | registered    | ---------------> | recv queue | <---- the connected VI
 *   | memory        |                  +------------+
 *   |               | <-- Status, Length ---'  |
 *   +---------------+ <-- VipSendDone, VipRecvDone, or by way of a completion queue (CQ)
 *
 *   object            made by             ended by            belongs to
 *   NIC handle        VipOpenNic          VipCloseNic         the process; closing ends all below
 *   protection tag    VipCreatePtag       VipDestroyPtag      NIC handle
 *   memory handle     VipRegisterMem      VipDeregisterMem    NIC handle, and carries one tag
 *   completion queue  VipCreateCQ         VipDestroyCQ        NIC handle
 *   VI                VipCreateVi         VipDestroyVi        NIC handle; one tag, up to two CQs
 *   connection        VipConnectWait      Accept or Reject    NIC handle
 *
 * A complete use, the side that asks for the connection (errors aside):
 *
 *   VIP_NIC_HANDLE nic;  VIP_VI_HANDLE vi;  VIP_DESCRIPTOR *done;
 *   VIP_MEM_ATTRIBUTES mem = {0};  VIP_MEM_HANDLE handle;
 *   VIP_VI_ATTRIBUTES mine = {VIP_SERVICE_RELIABLE_DELIVERY, 4096}, theirs;
 *
 *   VipOpenNic("via0", &nic);
 *   VipCreatePtag(nic, &mem.Ptag);
 *   VipRegisterMem(nic, page, 4096, &mem, &handle);      descriptor at 0, data at 64
 *   mine.Ptag = mem.Ptag;
 *   VipCreateVi(nic, &mine, NULL, NULL, &vi);
 *   VipConnectRequest(vi, local, remote, VIP_INFINITE, &theirs);
 *   memset(page, 0, 64);
 *   page->CS.SegCount = 1;
 *   page->CS.Length = page->DS[0].Local.Length = 8;
 *   page->DS[0].Local.Data.Address = (char *)page + 64;
 *   page->DS[0].Local.Handle = handle;
 *   VipPostSend(vi, page, handle);
 *   VipSendWait(vi, VIP_INFINITE, &done);                done == page, VIP_STATUS_DONE is set
 *   VipDisconnect(vi);  VipDestroyVi(vi);  VipCloseNic(nic);
 *
 * Rules that hold for every call:
 *
 *   Threads   Everything may be called by several threads at once. The send queue, the receive
 *             queue and different VIs do not disturb one another; two threads on one queue take
 *             turns. Ending an object while another thread still uses it is the program's error.
 *             Handlers run in a thread of the NIC handle, one at a time, and may call everything
 *             but VipCloseNic.
 *   Blocking  Only VipConnectWait, VipConnectAccept, VipConnectRequest, VipConnectPeerWait,
 *             VipDisconnect, the calls named ...Wait, and the name service. Posting and ...Done
 *             calls never enter the kernel on a device whose verbs don't, and never allocate.
 *   Time      Milliseconds; VIP_INFINITE, and any value of at least 0xffffffff, is for ever.
 *   Output    Written on VIP_SUCCESS only, unless the call says otherwise.
 *   Handles   Those that don't exist (any more) are VIP_INVALID_PARAMETER, in every call.
 *   Return    A return code says whether a call was accepted; the status in the descriptor says
 *             what came of the transfer; errors that have no descriptor go to VipErrorCallback.
 *
 * Both published flavours of a descriptor work: CS and DS[], or Control and Data[].
 * Specification: Virtual Interface Architecture 1.0 (1997), Intel VI Architecture Developer's
 * Guide 1.0 (1998). What these leave open is decided here.
 */
#ifndef _VIPL_H
#define _VIPL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef IN
#define IN
#endif
#ifndef OUT
#define OUT
#endif

/* --- basic types ----------------------------------------------------------------------------- */

typedef void *VIP_PVOID;
typedef int VIP_BOOLEAN;
typedef char VIP_CHAR;
typedef unsigned char VIP_UCHAR;
typedef short VIP_SHORT;
typedef unsigned short VIP_USHORT;
typedef long VIP_LONG;
typedef unsigned long VIP_ULONG; /* of the platform's size: 64 bits on LP64 */
typedef uint64_t VIP_UINT64;
typedef uint32_t VIP_UINT32;
typedef uint16_t VIP_UINT16;
typedef uint8_t VIP_UINT8;

#define VIP_TRUE 1
#define VIP_FALSE 0
#define VIP_INFINITE (~(VIP_ULONG)0)

/* Opaque. */
typedef VIP_PVOID VIP_NIC_HANDLE;
typedef VIP_PVOID VIP_VI_HANDLE;
typedef VIP_PVOID VIP_CQ_HANDLE;
typedef VIP_PVOID VIP_PROTECTION_HANDLE;
typedef VIP_PVOID VIP_CONN_HANDLE;
typedef VIP_PVOID VIP_EVENT_HANDLE;
typedef VIP_PVOID VIP_QOS; /* no contents were ever defined: must be NULL */

/* Names a registered region, here and in the descriptors of a connected peer. Never 0. */
typedef VIP_UINT32 VIP_MEM_HANDLE;

/* --- return codes ---------------------------------------------------------------------------- */

typedef enum {
    VIP_SUCCESS,
    VIP_NOT_DONE,                  /* nothing complete yet */
    VIP_INVALID_PARAMETER,         /* a handle, pointer or value is bad */
    VIP_ERROR_RESOURCE,            /* a limit is reached, or the object is in use */
    VIP_TIMEOUT,                   /* the time is over */
    VIP_REJECT,                    /* the other side called VipConnectReject */
    VIP_INVALID_RELIABILITY_LEVEL, /* not one level, or not that of the other side */
    VIP_INVALID_MTU,               /* MaxTransferSize: bad, or not that of the other side */
    VIP_INVALID_QOS,               /* not NULL */
    VIP_INVALID_PTAG,              /* not a protection tag of this NIC handle */
    VIP_INVALID_RDMAREAD,          /* RDMA read is asked for where there is none */
    VIP_DESCRIPTOR_ERROR,          /* a descriptor completed in error, or the queue is empty */
    VIP_INVALID_STATE,             /* not in this state of the VI */
    VIP_ERROR_NAMESERVICE,         /* no such name, or no name service */
    VIP_NO_MATCH,                  /* nobody waits at this discriminator */
    VIP_NOT_REACHABLE,             /* there is no way to the host */
    VIP_ERROR_NOT_SUPPORTED,       /* an extension that is not there */
    VIP_ERROR
} VIP_RETURN;

/* Programs ask for these two with #ifdef. */
#define VIP_NOT_REACHABLE VIP_NOT_REACHABLE
#define VIP_ERROR_NOT_SUPPORTED VIP_ERROR_NOT_SUPPORTED

/* --- NICs ------------------------------------------------------------------------------------ */

/*
 * A network address: HostAddressLen bytes that name the NIC, then DiscriminatorLen bytes that name
 * an endpoint there. The structure is as long as the two lengths say; allocate
 * sizeof(VIP_NET_ADDRESS) + NicAddressLen + MaxDiscriminatorLen bytes for one that is filled in.
 * Host addresses are IP addresses in network order: 4 bytes, or 16 on a NIC that has IPv6 only.
 */
typedef struct _VIP_NET_ADDRESS {
    VIP_UINT16 HostAddressLen;
    VIP_UINT16 DiscriminatorLen;
    VIP_UINT8 HostAddress[1];
} VIP_NET_ADDRESS;

typedef VIP_USHORT VIP_RELIABILITY_LEVEL;

/*
 * A VI has exactly one level; NIC attributes carry a mask.
 *
 *                               UNRELIABLE          RELIABLE_DELIVERY   RELIABLE_RECEPTION
 *   a message arrives           at most once        exactly once        exactly once
 *   in order                    of those arriving   yes                 yes
 *   a send is complete when     it has left         the remote NIC      the data is in the
 *                                                   has it              remote memory
 *                                                                   (also if the other side
 *                                                                   disconnects right then)
 *   no receive is posted,       it is lost          the connection      the connection
 *   or one too short                                breaks              breaks
 *   an error in a send          completes it alone  breaks              breaks, and nothing
 *   descriptor                                      the connection      posted later was begun
 *   RDMA write                  yes                 yes                 yes
 *   RDMA read                   no                  yes                 yes
 */
#define VIP_SERVICE_UNRELIABLE 0x01
#define VIP_SERVICE_RELIABLE_DELIVERY 0x02
#define VIP_SERVICE_RELIABLE_RECEPTION 0x04
#define VIP_BASE_SERVICES 0x07 /* all three */

/* Vendors' additions to a level. No NIC here has them: VIP_INVALID_RELIABILITY_LEVEL. */
#define VIP_SERVICE_ACK 0x4000
#define VIP_SERVICE_DFC 0x8000

/* Limits are those of one NIC handle. They never change while it is open. */
typedef struct _VIP_NIC_ATTRIBUTES {
    VIP_CHAR Name[64];         /* of the verbs device: "via0", "mlx5_0" */
    VIP_ULONG HardwareVersion; /* of the verbs device */
    VIP_ULONG ProviderVersion; /* of this library: major << 16 | minor << 8 | patch */
    VIP_UINT16 NicAddressLen;
    const VIP_UINT8 *LocalNicAddress; /* valid while the NIC is open */
    VIP_BOOLEAN ThreadSafe;           /* VIP_TRUE */
    VIP_UINT16 MaxDiscriminatorLen;
    VIP_ULONG MaxRegisterBytes;
    VIP_ULONG MaxRegisterRegions;
    VIP_ULONG MaxRegisterBlockBytes;
    VIP_ULONG MaxVI;
    VIP_ULONG MaxDescriptorsPerQueue;
    VIP_ULONG MaxSegmentsPerDesc; /* data segments; an address segment comes on top */
    VIP_ULONG MaxCQ;
    VIP_ULONG MaxCQEntries;
    VIP_ULONG MaxTransferSize;
    VIP_ULONG NativeMTU;
    VIP_ULONG MaxPtags;
    VIP_RELIABILITY_LEVEL ReliabilityLevelSupport;
    VIP_RELIABILITY_LEVEL RDMAReadSupport;
} VIP_NIC_ATTRIBUTES;

/* --- descriptors ----------------------------------------------------------------------------- */

#define VIP_DESCRIPTOR_ALIGNMENT 64

typedef union {
    VIP_UINT64 AddressBits;
    VIP_PVOID Address;
    struct _VIP_DESCRIPTOR *Descriptor;
} VIP_PVOID64;

typedef struct {
    VIP_PVOID64 Next;          /* the provider's while posted: it sets this and NextHandle to 0 */
    VIP_MEM_HANDLE NextHandle; /* and reports VIP_ERROR_POST_DESC if they changed */
    VIP_UINT16 SegCount;       /* segments that follow, the address segment included */
    VIP_UINT16 Control;        /* VIP_CONTROL_...; receives: ignored */
    VIP_UINT32 Reserved;       /* 0; not looked at */
    VIP_UINT32 ImmediateData;  /* sent along, or what came along */
    VIP_UINT32 Length;         /* send: sum of the data segments; completed: bytes transferred */
    VIP_UINT32 Status;         /* VIP_STATUS_...; written by the Done, Wait and CQ calls */
} VIP_CONTROL_SEGMENT;

/* The remote end of an RDMA transfer; first of the segments. */
typedef struct {
    VIP_PVOID64 Data;
    VIP_MEM_HANDLE Handle;
    VIP_UINT32 Reserved;
} VIP_ADDRESS_SEGMENT;

typedef struct {
    VIP_PVOID64 Data;
    VIP_MEM_HANDLE Handle;
    VIP_UINT32 Length;
} VIP_DATA_SEGMENT;

typedef union {
    VIP_ADDRESS_SEGMENT Remote;
    VIP_DATA_SEGMENT Local;
} VIP_DESCRIPTOR_SEGMENT;

#ifdef __GNUC__
#define VIP_ANONYMOUS __extension__
#else
#define VIP_ANONYMOUS
#endif

/* As long as SegCount says: 32 bytes and 16 for each segment. */
VIP_ANONYMOUS typedef struct _VIP_DESCRIPTOR {
    union {
        VIP_CONTROL_SEGMENT CS;
        VIP_CONTROL_SEGMENT Control;
    };
    union {
        VIP_DESCRIPTOR_SEGMENT DS[2];
        VIP_DATA_SEGMENT Data[1];
    };
} VIP_DESCRIPTOR;

#define VIP_CONTROL_OP_SENDRECV 0x0000
#define VIP_CONTROL_OP_RDMAWRITE 0x0001
#define VIP_CONTROL_OP_RDMAREAD 0x0002
#define VIP_CONTROL_OP_RESERVED 0x0003
#define VIP_CONTROL_OP_MASK 0x0003
#define VIP_CONTROL_IMMEDIATE 0x0004 /* not with RDMA read; with RDMA write: takes a receive */
#define VIP_CONTROL_QFENCE 0x0008    /* starts when the RDMA reads before it are complete */
#define VIP_CONTROL_RESERVED 0xFFF0

#define VIP_STATUS_DONE 0x00000001
#define VIP_STATUS_FORMAT_ERROR 0x00000002     /* control bits, segment count, operation */
#define VIP_STATUS_PROTECTION_ERROR 0x00000004 /* a local segment: handle, range or tag */
#define VIP_STATUS_LENGTH_ERROR 0x00000008     /* over MaxTransferSize; not the sum; no room */
#define VIP_STATUS_PARTIAL_ERROR                                                                   \
    0x00000010                                   /* broke off after some data had moved: a device  \
                                                    that says so; via0 and soft-RoCE don't */
#define VIP_STATUS_DESC_FLUSHED_ERROR 0x00000020 /* never begun: the VI is not connected */
#define VIP_STATUS_TRANSPORT_ERROR 0x00000040    /* no answer, or no receive at the other side */
#define VIP_STATUS_RDMA_PROT_ERROR 0x00000080    /* the other side's memory: handle, range, right */
#define VIP_STATUS_REMOTE_DESC_ERROR 0x00000100  /* the receive there is too short or bad */
#define VIP_STATUS_ERROR_MASK 0x000001FE

#define VIP_STATUS_OP_SEND 0x00000000
#define VIP_STATUS_OP_RECEIVE 0x00010000
#define VIP_STATUS_OP_RDMA_WRITE 0x00020000
#define VIP_STATUS_OP_REMOTE_RDMA_WRITE 0x00030000 /* a receive that an RDMA write has taken */
#define VIP_STATUS_OP_RDMA_READ 0x00040000
#define VIP_STATUS_OP_MASK 0x00070000

#define VIP_STATUS_IMMEDIATE 0x00080000 /* ImmediateData is valid */
#define VIP_STATUS_RESERVED 0xFFF0FE00

/* --- VIs, memory, errors --------------------------------------------------------------------- */

/*
 *                 VipConnectRequest,            success
 *              VipConnectPeerRequest,        .----------> CONNECTED --------.
 *   .------.      VipConnectAccept    .--------------.        |             | connection lost,
 *   | IDLE | -----------------------> | CONNECT_     |        | VipDis-     | error on a
 *   |      | <----------------------- |      PENDING |        | connect     | reliable VI
 *   '------'  no success, VipDiscon.  '--------------'        |             v
 *      ^------------------------------------------------------'----------ERROR
 *                                                              VipDisconnect
 *
 *                     IDLE, PENDING            CONNECTED     ERROR
 *   VipPostRecv       kept, used later         used          completes flushed
 *   VipPostSend       completes flushed        sent          completes flushed
 */
typedef enum {
    VIP_STATE_IDLE,
    VIP_STATE_CONNECTED,
    VIP_STATE_CONNECT_PENDING,
    VIP_STATE_ERROR
} VIP_VI_STATE;

typedef struct _VIP_VI_ATTRIBUTES {
    VIP_RELIABILITY_LEVEL ReliabilityLevel;
    VIP_ULONG MaxTransferSize; /* of one descriptor; both ends must name the same */
    VIP_QOS QoS;
    VIP_PROTECTION_HANDLE Ptag;  /* descriptors and data must lie in regions with this tag */
    VIP_BOOLEAN EnableRdmaWrite; /* may the other side do so, to regions that allow it, too? */
    VIP_BOOLEAN EnableRdmaRead;
} VIP_VI_ATTRIBUTES;

typedef struct _VIP_MEM_ATTRIBUTES {
    VIP_PROTECTION_HANDLE Ptag;
    VIP_BOOLEAN EnableRdmaWrite;
    VIP_BOOLEAN EnableRdmaRead;
} VIP_MEM_ATTRIBUTES;

typedef enum _VIP_RESOURCE_CODE {
    VIP_RESOURCE_NIC,
    VIP_RESOURCE_VI,
    VIP_RESOURCE_CQ,
    VIP_RESOURCE_DESCRIPTOR
} VIP_RESOURCE_CODE;

/*
 * Verbs devices repeat what arrives damaged or in part, so RDMAW_DATA and RDMAW_ABORT are never
 * raised. What an unreliable VI drops it drops silently. RDMAW_PROT tells of a refused RDMA write
 * with immediate data, too: a device need not take a receive for that, but if it does,
 * VIP_STATUS_RDMA_PROT_ERROR completes the receive.
 */
typedef enum _VIP_ERROR_CODE {
    VIP_ERROR_POST_DESC,   /* a descriptor: not aligned, not in memory with the VI's tag, or
                              Next was written while it was posted. It is not queued */
    VIP_ERROR_CONN_LOST,   /* the VI has left CONNECTED for ERROR */
    VIP_ERROR_RECVQ_EMPTY, /* a message came to a reliable VI that had no receive posted */
    VIP_ERROR_VI_OVERRUN,  /* more than MaxDescriptorsPerQueue: this one is not queued */
    VIP_ERROR_RDMAW_PROT,  /* the other side's RDMA write was refused */
    VIP_ERROR_RDMAW_DATA,
    VIP_ERROR_RDMAW_ABORT,
    VIP_ERROR_RDMAR_PROT,     /* the other side's RDMA read was refused */
    VIP_ERROR_COMP_PROT,      /* a descriptor's memory was deregistered before it completed */
    VIP_ERROR_RDMA_TRANSPORT, /* the device says that a VI has failed */
    VIP_ERROR_CATASTROPHIC    /* the device, or a CQ that ran over, has failed */
} VIP_ERROR_CODE;

/* Handles that do not apply are NULL. OpCode is the descriptor's operation, VIP_STATUS_OP_... */
typedef struct _VIP_ERROR_DESCRIPTOR {
    VIP_NIC_HANDLE NicHandle;
    VIP_VI_HANDLE ViHandle;
    VIP_CQ_HANDLE CQHandle;
    VIP_DESCRIPTOR *DescriptorPtr;
    VIP_ULONG OpCode;
    VIP_RESOURCE_CODE ResourceCode;
    VIP_ERROR_CODE ErrorCode;
} VIP_ERROR_DESCRIPTOR;

typedef void (*VIP_ERROR_HANDLER)(VIP_PVOID Context, VIP_ERROR_DESCRIPTOR *ErrorDesc);
typedef void (*VIP_VI_CALLBACK)(VIP_PVOID Context, VIP_NIC_HANDLE NicHandle, VIP_VI_HANDLE ViHandle,
                                VIP_DESCRIPTOR *Descriptor);
typedef void (*VIP_CQ_CALLBACK)(VIP_PVOID Context, VIP_NIC_HANDLE NicHandle, VIP_VI_HANDLE ViHandle,
                                VIP_BOOLEAN RecvQueue);

/* --- NIC calls ------------------------------------------------------------------------------- */

/*
 * Open the NIC called DeviceName: a verbs device ("via0", "rxe0", "mlx5_0"), as it is or behind
 * "/dev/". NULL, "" and the historical names ("VINIC" or "nic" and a number, "/dev/clan...",
 * "/dev/via...") mean the first device with an active port. Each call gives a handle of its own,
 * also to the same NIC; objects of one can't be used with another.
 * VIP_ERROR_RESOURCE: no such device, no active port, too many handles.
 */
VIP_RETURN VipOpenNic(IN const VIP_CHAR *DeviceName, OUT VIP_NIC_HANDLE *NicHandle);

/*
 * End everything of this handle: connections break, VIs, CQs, regions and tags are gone.
 * VIP_ERROR_RESOURCE: called by a handler.
 */
VIP_RETURN VipCloseNic(IN VIP_NIC_HANDLE NicHandle);

/* What the NIC can do, and how much of it. */
VIP_RETURN VipQueryNic(IN VIP_NIC_HANDLE NicHandle, OUT VIP_NIC_ATTRIBUTES *NicAttribs);

/* --- memory ---------------------------------------------------------------------------------- */

/* A new protection tag. VIP_ERROR_RESOURCE: MaxPtags exist. */
VIP_RETURN VipCreatePtag(IN VIP_NIC_HANDLE NicHandle, OUT VIP_PROTECTION_HANDLE *ProtectionTag);

/* End a protection tag. VIP_ERROR_RESOURCE: a VI or a region has it. */
VIP_RETURN VipDestroyPtag(IN VIP_NIC_HANDLE NicHandle, IN VIP_PROTECTION_HANDLE ProtectionTag);

/*
 * Register memory: the NIC may access it from now on, under the handle and with the tag's VIs only.
 * Regions may overlap, and the same memory may be registered many times, each time with a handle
 * of its own. VIP_INVALID_PARAMETER: Length 0, memory that is not there. VIP_ERROR_RESOURCE:
 * a limit. VIP_INVALID_PTAG. VIP_INVALID_RDMAREAD: the NIC has none.
 */
VIP_RETURN VipRegisterMem(IN VIP_NIC_HANDLE NicHandle, IN VIP_PVOID VirtualAddress,
                          IN VIP_ULONG Length, IN VIP_MEM_ATTRIBUTES *MemAttribs,
                          OUT VIP_MEM_HANDLE *MemoryHandle);

/*
 * End a registration. VirtualAddress must be the one that was registered. Nothing touches the
 * memory afterwards.
 */
VIP_RETURN VipDeregisterMem(IN VIP_NIC_HANDLE NicHandle, IN VIP_PVOID VirtualAddress,
                            IN VIP_MEM_HANDLE MemoryHandle);

/* The attributes of a region, which handle and address name together. */
VIP_RETURN VipQueryMem(IN VIP_NIC_HANDLE NicHandle, IN VIP_PVOID VirtualAddress,
                       IN VIP_MEM_HANDLE MemoryHandle, OUT VIP_MEM_ATTRIBUTES *MemAttribs);

/*
 * Change tag or rights; the handle stays. No descriptor that uses the region may be posted.
 * VIP_INVALID_PTAG, VIP_INVALID_RDMAREAD as above. VIP_ERROR_RESOURCE: this device can't change
 * the region under the key that peers know.
 */
VIP_RETURN VipSetMemAttributes(IN VIP_NIC_HANDLE NicHandle, IN VIP_PVOID VirtualAddress,
                               IN VIP_MEM_HANDLE MemoryHandle, IN VIP_MEM_ATTRIBUTES *MemAttribs);

/* --- completion queues ----------------------------------------------------------------------- */

/*
 * A CQ tells of many work queues: an entry says that a descriptor at the head of this queue of
 * this VI is complete; VipSendDone or VipRecvDone then takes it. EntryCount must suffice for all
 * descriptors that may complete before they are taken.
 * VIP_INVALID_PARAMETER: 0 entries. VIP_ERROR_RESOURCE: over MaxCQ, MaxCQEntries.
 */
VIP_RETURN VipCreateCQ(IN VIP_NIC_HANDLE NicHandle, IN VIP_ULONG EntryCount,
                       OUT VIP_CQ_HANDLE *CQHandle);

/* End a CQ. VIP_ERROR_RESOURCE: a VI has it. Notifications that were asked for are cancelled. */
VIP_RETURN VipDestroyCQ(IN VIP_CQ_HANDLE CQHandle);

/*
 * Change the size of a CQ. VIP_INVALID_PARAMETER: 0 entries. VIP_ERROR_RESOURCE: over the limit, or
 * fewer than it holds now.
 */
VIP_RETURN VipResizeCQ(IN VIP_CQ_HANDLE CQHandle, IN VIP_ULONG EntryCount);

/*
 * Take the next entry: *ViHandle and *RecvQueue say which queue of which VI has a complete
 * descriptor. VIP_NOT_DONE: there is none. VipCQWait waits for one, and says VIP_TIMEOUT.
 */
VIP_RETURN VipCQDone(IN VIP_CQ_HANDLE CQHandle, OUT VIP_VI_HANDLE *ViHandle,
                     OUT VIP_BOOLEAN *RecvQueue);
VIP_RETURN VipCQWait(IN VIP_CQ_HANDLE CQHandle, IN VIP_ULONG Timeout, OUT VIP_VI_HANDLE *ViHandle,
                     OUT VIP_BOOLEAN *RecvQueue);

/*
 * Have Handler called for one entry, which is taken out of the CQ: one that is there, or the next.
 * Each registration serves one entry; several are served in the order in which they were made,
 * and the handler may register again. VIP_ERROR_RESOURCE: MaxDescriptorsPerQueue are waiting.
 */
VIP_RETURN VipCQNotify(IN VIP_CQ_HANDLE CQHandle, IN VIP_PVOID Context, IN VIP_CQ_CALLBACK Handler);

/* --- VIs ------------------------------------------------------------------------------------- */

/*
 * A new VI, idle. SendCQHandle and RecvCQHandle may be NULL, or the same.
 * VIP_INVALID_RELIABILITY_LEVEL: not exactly one that is supported. VIP_INVALID_MTU: 0 or over the
 * NIC's. VIP_INVALID_QOS: not NULL. VIP_INVALID_PTAG. VIP_INVALID_RDMAREAD: EnableRdmaRead on a
 * level without it. VIP_ERROR_RESOURCE: MaxVI exist.
 */
VIP_RETURN VipCreateVi(IN VIP_NIC_HANDLE NicHandle, IN VIP_VI_ATTRIBUTES *ViAttribs,
                       IN VIP_CQ_HANDLE SendCQHandle, IN VIP_CQ_HANDLE RecvCQHandle,
                       OUT VIP_VI_HANDLE *ViHandle);

/*
 * End a VI. VIP_INVALID_STATE: not idle. VIP_ERROR_RESOURCE: descriptors have not been taken from a
 * queue (VipDisconnect completes them, also on an idle VI). Notifications are cancelled.
 */
VIP_RETURN VipDestroyVi(IN VIP_VI_HANDLE ViHandle);

/* State and attributes of a VI. Each output may be NULL. A queue is empty when nothing is posted or
 * waiting to be taken. */
VIP_RETURN VipQueryVi(IN VIP_VI_HANDLE ViHandle, OUT VIP_VI_STATE *State,
                      OUT VIP_VI_ATTRIBUTES *ViAttribs, OUT VIP_BOOLEAN *SendQueueEmpty,
                      OUT VIP_BOOLEAN *RecvQueueEmpty);

/* Change the attributes of an idle VI (VIP_INVALID_STATE). Codes as VipCreateVi; after an error
 * nothing has changed. */
VIP_RETURN VipSetViAttributes(IN VIP_VI_HANDLE ViHandle, IN VIP_VI_ATTRIBUTES *ViAttribs);

/* --- connections: client and server ---------------------------------------------------------- */

/*
 * Wait for a request to LocalAddr. RemoteAddr, which needs room for the longest address, becomes
 * the LocalAddr of who asks; RemoteViAttribs those of its VI (QoS and Ptag NULL). Answer by
 * VipConnectAccept or VipConnectReject. Any number of threads may wait, also at one address.
 * VIP_TIMEOUT, also with Timeout 0 unless somebody asks. VIP_INVALID_PARAMETER: not an address of
 * this NIC. VIP_ERROR_RESOURCE: the address is taken by another process, or a limit.
 */
VIP_RETURN VipConnectWait(IN VIP_NIC_HANDLE NicHandle, IN VIP_NET_ADDRESS *LocalAddr,
                          IN VIP_ULONG Timeout, OUT VIP_NET_ADDRESS *RemoteAddr,
                          OUT VIP_VI_ATTRIBUTES *RemoteViAttribs, OUT VIP_CONN_HANDLE *ConnHandle);

/*
 * Connect the idle VI to who asked. ReliabilityLevel, MaxTransferSize and QoS must be the same at
 * both ends: if not, VIP_INVALID_RELIABILITY_LEVEL, VIP_INVALID_MTU, VIP_INVALID_QOS, and if the VI
 * is not idle, VIP_INVALID_STATE: the other side hears nothing, and the handle can be accepted with
 * another VI, or rejected. After VIP_SUCCESS, VIP_TIMEOUT (the other side does not wait any more)
 * and VIP_ERROR_RESOURCE the handle is gone.
 */
VIP_RETURN VipConnectAccept(IN VIP_CONN_HANDLE ConnHandle, IN VIP_VI_HANDLE ViHandle);

/* Refuse the request: the other side is told VIP_REJECT. The handle is gone. */
VIP_RETURN VipConnectReject(IN VIP_CONN_HANDLE ConnHandle);

/*
 * Ask for a connection to who waits at RemoteAddr. LocalAddr is what the other side is told;
 * NULL stands for this NIC without a discriminator.
 * VIP_NO_MATCH: nobody waits there now. VIP_REJECT. VIP_TIMEOUT: no answer, also from a server that
 * died. VIP_NOT_REACHABLE: no way to that host. VIP_INVALID_PARAMETER: an address, or Timeout 0.
 * VIP_INVALID_STATE: the VI is not idle, or VipDisconnect ended the attempt.
 */
VIP_RETURN VipConnectRequest(IN VIP_VI_HANDLE ViHandle, IN VIP_NET_ADDRESS *LocalAddr,
                             IN VIP_NET_ADDRESS *RemoteAddr, IN VIP_ULONG Timeout,
                             OUT VIP_VI_ATTRIBUTES *RemoteViAttribs);

/*
 * Give up the connection, or the attempt. Everything on both queues is complete afterwards, with
 * VIP_STATUS_DESC_FLUSHED_ERROR if it was not before, and waits to be taken; the VI is idle. The
 * other side sees VIP_ERROR_CONN_LOST. On an idle VI it just completes what is posted.
 */
VIP_RETURN VipDisconnect(IN VIP_VI_HANDLE ViHandle);

/* --- connections: peer to peer --------------------------------------------------------------- */

/*
 * Both sides ask: a connection is made when each one's LocalAddr is the other's RemoteAddr, in
 * whatever order they come. The call does not wait: VipConnectPeerDone or ...Wait tell.
 * VIP_INVALID_PARAMETER: an address, or Timeout 0. VIP_INVALID_STATE: the VI is not idle.
 */
VIP_RETURN VipConnectPeerRequest(IN VIP_VI_HANDLE ViHandle, IN VIP_NET_ADDRESS *LocalAddr,
                                 IN VIP_NET_ADDRESS *RemoteAddr, IN VIP_ULONG Timeout);

/*
 * What came of VipConnectPeerRequest; VipConnectPeerWait waits for it. VIP_NOT_DONE: still trying.
 * VIP_TIMEOUT: the time given with the request is over. VIP_NO_MATCH: who is at RemoteAddr wants
 * somebody else. VIP_INVALID_RELIABILITY_LEVEL, ..._MTU, ..._QOS: they differ (both sides are
 * told). VIP_NOT_REACHABLE. VIP_INVALID_STATE: there is no request, or its result was taken. After
 * any error the VI is idle.
 */
VIP_RETURN VipConnectPeerDone(IN VIP_VI_HANDLE ViHandle, OUT VIP_VI_ATTRIBUTES *RemoteViAttribs);
VIP_RETURN VipConnectPeerWait(IN VIP_VI_HANDLE ViHandle, OUT VIP_VI_ATTRIBUTES *RemoteViAttribs);

/* --- data transfer --------------------------------------------------------------------------- */

/*
 * Post a descriptor, whose memory has the handle MemoryHandle. Until it is complete, descriptor
 * and data belong to the NIC. VIP_INVALID_PARAMETER: NULL, or no such VI. VIP_ERROR_RESOURCE: the
 * queue is full, and VIP_ERROR_VI_OVERRUN is raised. A descriptor that can't be read (not aligned,
 * not in a region with the VI's tag) is VIP_SUCCESS, but raises VIP_ERROR_POST_DESC and is not
 * queued; on a connected reliable VI it breaks the connection. All else is told by its status.
 *
 *   operation     segments                            at the other side
 *   send          data: gathered                      takes a receive
 *   RDMA write    address (there), data: gathered     takes one if VIP_CONTROL_IMMEDIATE is set
 *   RDMA read     address (there), data: scattered    nothing
 *   receive       data: scattered
 */
VIP_RETURN VipPostSend(IN VIP_VI_HANDLE ViHandle, IN VIP_DESCRIPTOR *DescriptorPtr,
                       IN VIP_MEM_HANDLE MemoryHandle);
VIP_RETURN VipPostRecv(IN VIP_VI_HANDLE ViHandle, IN VIP_DESCRIPTOR *DescriptorPtr,
                       IN VIP_MEM_HANDLE MemoryHandle);

/*
 * Take the descriptor at the head of the queue, if it is complete: they complete in the order
 * posted. VIP_NOT_DONE: it is not. VIP_DESCRIPTOR_ERROR: it is, in error (see its Status); or, with
 * *DescriptorPtr NULL, the queue is empty. Never blocks, not even behind a Wait.
 */
VIP_RETURN VipSendDone(IN VIP_VI_HANDLE ViHandle, OUT VIP_DESCRIPTOR **DescriptorPtr);
VIP_RETURN VipRecvDone(IN VIP_VI_HANDLE ViHandle, OUT VIP_DESCRIPTOR **DescriptorPtr);

/*
 * Wait for the descriptor at the head of the queue, and take it, as VipSendDone and VipRecvDone do.
 * VIP_TIMEOUT. VIP_INVALID_PARAMETER also if the queue belongs to a CQ: wait for that.
 */
VIP_RETURN VipSendWait(IN VIP_VI_HANDLE ViHandle, IN VIP_ULONG Timeout,
                       OUT VIP_DESCRIPTOR **DescriptorPtr);
VIP_RETURN VipRecvWait(IN VIP_VI_HANDLE ViHandle, IN VIP_ULONG Timeout,
                       OUT VIP_DESCRIPTOR **DescriptorPtr);

/*
 * Have Handler called with one descriptor, taken from the head of the queue when it is complete:
 * it may be so already, and the queue may be empty yet. One registration serves one descriptor, as
 * with VipCQNotify. VIP_INVALID_PARAMETER: the queue belongs to a CQ. VIP_ERROR_RESOURCE:
 * MaxDescriptorsPerQueue registrations are waiting. Destroying the VI cancels.
 */
VIP_RETURN VipSendNotify(IN VIP_VI_HANDLE ViHandle, IN VIP_PVOID Context,
                         IN VIP_VI_CALLBACK Handler);
VIP_RETURN VipRecvNotify(IN VIP_VI_HANDLE ViHandle, IN VIP_PVOID Context,
                         IN VIP_VI_CALLBACK Handler);

/* --- management, errors ---------------------------------------------------------------------- */

/*
 * Have Handler called for errors that no descriptor tells of. NULL brings back the handler that is
 * there from the beginning: it writes a line to stderr.
 */
VIP_RETURN VipErrorCallback(IN VIP_NIC_HANDLE NicHandle, IN VIP_PVOID Context,
                            IN VIP_ERROR_HANDLER Handler);

#define VIP_SMI_AUTODISCOVERY ((VIP_ULONG)1)

/*
 * NICs that are known: with NumberOfHops 0 the addresses of this one, otherwise also those in the
 * hosts file. The list is the library's, valid until the next call and while the NIC is open.
 */
typedef struct {
    VIP_ULONG NumberOfHops; /* in */
    VIP_NET_ADDRESS **ADAddrArray;
    VIP_ULONG NumAdAddrs;
} VIP_AUTODISCOVERY_LIST;

/* InfoType must be VIP_SMI_AUTODISCOVERY, and SysManInfo a VIP_AUTODISCOVERY_LIST. */
VIP_RETURN VipQuerySystemManagementInfo(IN VIP_NIC_HANDLE NicHandle, IN VIP_ULONG InfoType,
                                        OUT VIP_PVOID SysManInfo);

/* --- name service ---------------------------------------------------------------------------- */

/*
 * Begin the name service. Names come from a hosts file, then from the system's resolver. A line of
 * the file is an IP address and names, or a name and an IP address; "#" begins a comment.
 * NSInitInfo is the file's path; NULL: that in the environment variable VIPL_HOSTS, or
 * /etc/vip_hosts if it is there. VIP_ERROR_NAMESERVICE: the file can't be read; in the other calls:
 * not initialized, no such name.
 */
VIP_RETURN VipNSInit(IN VIP_NIC_HANDLE NicHandle, IN VIP_PVOID NSInitInfo);

/* The address of a host. NameIndex 0, 1, ... are the addresses of a host that has several.
 * DiscriminatorLen becomes 0. Where the resolver answers with a loopback address, as for
 * "localhost" and often for the host's own name, it is the address of this NIC. */
VIP_RETURN VipNSGetHostByName(IN VIP_NIC_HANDLE NicHandle, IN VIP_CHAR *Name,
                              OUT VIP_NET_ADDRESS *Address, IN VIP_ULONG NameIndex);

/*
 * The name of a host. *NameLen is the room at Name, and becomes the length with the terminating 0.
 * If the room is too small: VIP_ERROR_RESOURCE, and *NameLen is what it takes.
 */
VIP_RETURN VipNSGetHostByAddr(IN VIP_NIC_HANDLE NicHandle, IN VIP_NET_ADDRESS *Address,
                              OUT VIP_CHAR *Name, IN OUT VIP_ULONG *NameLen);

/* End the name service. */
VIP_RETURN VipNSShutdown(IN VIP_NIC_HANDLE NicHandle);

/* --- extensions that vendors had ------------------------------------------------------------- */

/* Keep a pointer of the program's own in the VI. It is NULL at first. */
VIP_RETURN VipSetUserData(IN VIP_VI_HANDLE ViHandle, IN VIP_PVOID UserData);
VIP_PVOID VipGetUserData(IN VIP_VI_HANDLE ViHandle);

/* Send what was deferred. Nothing ever is: *SendsDeferred becomes VIP_FALSE. */
VIP_RETURN VipPostDeferredSends(IN VIP_VI_HANDLE ViHandle, IN VIP_BOOLEAN EnableInterrupt,
                                IN OUT VIP_BOOLEAN *SendsDeferred);

/* A verbs device can't sort completions by their immediate data: VIP_ERROR_NOT_SUPPORTED. */
VIP_RETURN VipAddTagCQ(IN VIP_CQ_HANDLE CQHandle, IN OUT VIP_EVENT_HANDLE *Event, IN VIP_ULONG Tag,
                       IN VIP_ULONG Priority);
VIP_RETURN VipRemoveTagCQ(IN VIP_CQ_HANDLE CQHandle, IN VIP_EVENT_HANDLE Event, IN VIP_ULONG Tag);

#ifdef __cplusplus
}
#endif

#endif
