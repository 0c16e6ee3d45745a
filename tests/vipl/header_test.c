/* SPDX-License-Identifier: MIT */
/*
 * The numbers of the header, against those that were published (docs/vipl-conformance.md): programs
 * were compiled with them. The compiler does the checking.
 */
#include "t.h"
#include "vipl.h"

#define IS(name_, value_) _Static_assert((name_) == (value_), #name_)
#define AT(type_, member_, offset_) IS(offsetof(type_, member_), offset_)
/* A member stands behind another one. */
#define ORDER(type_, first_, second_)                                                              \
    _Static_assert(offsetof(type_, first_) < offsetof(type_, second_), #type_ "." #second_)
#define SAME_TYPE(a_, b_) _Static_assert(_Generic((a_)0, b_ : 1, default : 0), #a_)

/* ---- types ---- */

IS(VIP_TRUE, 1);
IS(VIP_FALSE, 0);
IS(sizeof(VIP_UINT8), 1);
IS(sizeof(VIP_UINT16), 2);
IS(sizeof(VIP_UINT32), 4);
IS(sizeof(VIP_UINT64), 8);
SAME_TYPE(VIP_BOOLEAN, int);
SAME_TYPE(VIP_CHAR, char);
SAME_TYPE(VIP_UCHAR, unsigned char);
SAME_TYPE(VIP_SHORT, short);
SAME_TYPE(VIP_USHORT, unsigned short);
SAME_TYPE(VIP_LONG, long);
SAME_TYPE(VIP_ULONG, unsigned long);
SAME_TYPE(VIP_MEM_HANDLE, uint32_t);
SAME_TYPE(VIP_RELIABILITY_LEVEL, unsigned short);
SAME_TYPE(VIP_PVOID, void *);
SAME_TYPE(VIP_QOS, void *);
SAME_TYPE(VIP_NIC_HANDLE, void *);
SAME_TYPE(VIP_VI_HANDLE, void *);
SAME_TYPE(VIP_CQ_HANDLE, void *);
SAME_TYPE(VIP_PROTECTION_HANDLE, void *);
SAME_TYPE(VIP_CONN_HANDLE, void *);
SAME_TYPE(VIP_EVENT_HANDLE, void *);
IS(VIP_INFINITE, ~0ul);
IS(sizeof(VIP_PVOID64), 8);
IS(VIP_DESCRIPTOR_ALIGNMENT, 64);

/* ---- reliability levels, management ---- */

IS(VIP_SERVICE_UNRELIABLE, 1);
IS(VIP_SERVICE_RELIABLE_DELIVERY, 2);
IS(VIP_SERVICE_RELIABLE_RECEPTION, 4);
IS(VIP_BASE_SERVICES, 7);
IS(VIP_SERVICE_ACK, 1 << 14);
IS(VIP_SERVICE_DFC, 1 << 15);
IS(VIP_SMI_AUTODISCOVERY, 1);

/* ---- return codes ---- */

IS(VIP_SUCCESS, 0);
IS(VIP_NOT_DONE, 1);
IS(VIP_INVALID_PARAMETER, 2);
IS(VIP_ERROR_RESOURCE, 3);
IS(VIP_TIMEOUT, 4);
IS(VIP_REJECT, 5);
IS(VIP_INVALID_RELIABILITY_LEVEL, 6);
IS(VIP_INVALID_MTU, 7);
IS(VIP_INVALID_QOS, 8);
IS(VIP_INVALID_PTAG, 9);
IS(VIP_INVALID_RDMAREAD, 10);
IS(VIP_DESCRIPTOR_ERROR, 11);
IS(VIP_INVALID_STATE, 12);
IS(VIP_ERROR_NAMESERVICE, 13);
IS(VIP_NO_MATCH, 14);
IS(VIP_NOT_REACHABLE, 15);
IS(VIP_ERROR_NOT_SUPPORTED, 16);
IS(VIP_ERROR, 17);

/* ---- descriptors ---- */

AT(VIP_CONTROL_SEGMENT, Next, 0);
AT(VIP_CONTROL_SEGMENT, NextHandle, 8);
AT(VIP_CONTROL_SEGMENT, SegCount, 12);
AT(VIP_CONTROL_SEGMENT, Control, 14);
AT(VIP_CONTROL_SEGMENT, Reserved, 16);
AT(VIP_CONTROL_SEGMENT, ImmediateData, 20);
AT(VIP_CONTROL_SEGMENT, Length, 24);
AT(VIP_CONTROL_SEGMENT, Status, 28);
IS(sizeof(VIP_CONTROL_SEGMENT), 32);
AT(VIP_ADDRESS_SEGMENT, Data, 0);
AT(VIP_ADDRESS_SEGMENT, Handle, 8);
AT(VIP_ADDRESS_SEGMENT, Reserved, 12);
IS(sizeof(VIP_ADDRESS_SEGMENT), 16);
AT(VIP_DATA_SEGMENT, Data, 0);
AT(VIP_DATA_SEGMENT, Handle, 8);
AT(VIP_DATA_SEGMENT, Length, 12);
IS(sizeof(VIP_DATA_SEGMENT), 16);
IS(sizeof(VIP_DESCRIPTOR), 64);
AT(VIP_DESCRIPTOR, CS, 0);
AT(VIP_DESCRIPTOR, Control, 0);
AT(VIP_DESCRIPTOR, DS[1], 48);
AT(VIP_DESCRIPTOR, Data[0].Handle, 40);

IS(VIP_CONTROL_OP_SENDRECV, 0);
IS(VIP_CONTROL_OP_RDMAWRITE, 1);
IS(VIP_CONTROL_OP_RDMAREAD, 2);
IS(VIP_CONTROL_OP_RESERVED, 3);
IS(VIP_CONTROL_OP_MASK, 3);
IS(VIP_CONTROL_IMMEDIATE, 4);
IS(VIP_CONTROL_QFENCE, 8);
IS(VIP_CONTROL_RESERVED, 0xfff0);

IS(VIP_STATUS_DONE, 0x1);
IS(VIP_STATUS_FORMAT_ERROR, 0x2);
IS(VIP_STATUS_PROTECTION_ERROR, 0x4);
IS(VIP_STATUS_LENGTH_ERROR, 0x8);
IS(VIP_STATUS_PARTIAL_ERROR, 0x10);
IS(VIP_STATUS_DESC_FLUSHED_ERROR, 0x20);
IS(VIP_STATUS_TRANSPORT_ERROR, 0x40);
IS(VIP_STATUS_RDMA_PROT_ERROR, 0x80);
IS(VIP_STATUS_REMOTE_DESC_ERROR, 0x100);
IS(VIP_STATUS_ERROR_MASK, 0x1fe);
IS(VIP_STATUS_OP_SEND, 0);
IS(VIP_STATUS_OP_RECEIVE, 0x10000);
IS(VIP_STATUS_OP_RDMA_WRITE, 0x20000);
IS(VIP_STATUS_OP_REMOTE_RDMA_WRITE, 0x30000);
IS(VIP_STATUS_OP_RDMA_READ, 0x40000);
IS(VIP_STATUS_OP_MASK, 0x70000);
IS(VIP_STATUS_IMMEDIATE, 0x80000);
IS(VIP_STATUS_RESERVED, 0xfff0fe00);

/* ---- attributes: names and their order ---- */

AT(VIP_NET_ADDRESS, HostAddressLen, 0);
AT(VIP_NET_ADDRESS, DiscriminatorLen, 2);
AT(VIP_NET_ADDRESS, HostAddress, 4);
AT(VIP_NIC_ATTRIBUTES, Name, 0);
AT(VIP_NIC_ATTRIBUTES, HardwareVersion, 64);
ORDER(VIP_NIC_ATTRIBUTES, HardwareVersion, ProviderVersion);
ORDER(VIP_NIC_ATTRIBUTES, ProviderVersion, NicAddressLen);
ORDER(VIP_NIC_ATTRIBUTES, NicAddressLen, LocalNicAddress);
ORDER(VIP_NIC_ATTRIBUTES, LocalNicAddress, ThreadSafe);
ORDER(VIP_NIC_ATTRIBUTES, ThreadSafe, MaxDiscriminatorLen);
ORDER(VIP_NIC_ATTRIBUTES, MaxDiscriminatorLen, MaxRegisterBytes);
ORDER(VIP_NIC_ATTRIBUTES, MaxRegisterBytes, MaxRegisterRegions);
ORDER(VIP_NIC_ATTRIBUTES, MaxRegisterRegions, MaxRegisterBlockBytes);
ORDER(VIP_NIC_ATTRIBUTES, MaxRegisterBlockBytes, MaxVI);
ORDER(VIP_NIC_ATTRIBUTES, MaxVI, MaxDescriptorsPerQueue);
ORDER(VIP_NIC_ATTRIBUTES, MaxDescriptorsPerQueue, MaxSegmentsPerDesc);
ORDER(VIP_NIC_ATTRIBUTES, MaxSegmentsPerDesc, MaxCQ);
ORDER(VIP_NIC_ATTRIBUTES, MaxCQ, MaxCQEntries);
ORDER(VIP_NIC_ATTRIBUTES, MaxCQEntries, MaxTransferSize);
ORDER(VIP_NIC_ATTRIBUTES, MaxTransferSize, NativeMTU);
ORDER(VIP_NIC_ATTRIBUTES, NativeMTU, MaxPtags);
ORDER(VIP_NIC_ATTRIBUTES, MaxPtags, ReliabilityLevelSupport);
ORDER(VIP_NIC_ATTRIBUTES, ReliabilityLevelSupport, RDMAReadSupport);
AT(VIP_VI_ATTRIBUTES, ReliabilityLevel, 0);
ORDER(VIP_VI_ATTRIBUTES, ReliabilityLevel, MaxTransferSize);
ORDER(VIP_VI_ATTRIBUTES, MaxTransferSize, QoS);
ORDER(VIP_VI_ATTRIBUTES, QoS, Ptag);
ORDER(VIP_VI_ATTRIBUTES, Ptag, EnableRdmaWrite);
ORDER(VIP_VI_ATTRIBUTES, EnableRdmaWrite, EnableRdmaRead);
AT(VIP_MEM_ATTRIBUTES, Ptag, 0);
ORDER(VIP_MEM_ATTRIBUTES, Ptag, EnableRdmaWrite);
ORDER(VIP_MEM_ATTRIBUTES, EnableRdmaWrite, EnableRdmaRead);
AT(VIP_ERROR_DESCRIPTOR, NicHandle, 0);
ORDER(VIP_ERROR_DESCRIPTOR, NicHandle, ViHandle);
ORDER(VIP_ERROR_DESCRIPTOR, ViHandle, CQHandle);
ORDER(VIP_ERROR_DESCRIPTOR, CQHandle, DescriptorPtr);
ORDER(VIP_ERROR_DESCRIPTOR, DescriptorPtr, OpCode);
ORDER(VIP_ERROR_DESCRIPTOR, OpCode, ResourceCode);
ORDER(VIP_ERROR_DESCRIPTOR, ResourceCode, ErrorCode);
AT(VIP_AUTODISCOVERY_LIST, NumberOfHops, 0);
ORDER(VIP_AUTODISCOVERY_LIST, NumberOfHops, ADAddrArray);
ORDER(VIP_AUTODISCOVERY_LIST, ADAddrArray, NumAdAddrs);

/* ---- states and errors ---- */

IS(VIP_STATE_IDLE, 0);
IS(VIP_STATE_CONNECTED, 1);
IS(VIP_STATE_CONNECT_PENDING, 2);
IS(VIP_STATE_ERROR, 3);
IS(VIP_RESOURCE_NIC, 0);
IS(VIP_RESOURCE_VI, 1);
IS(VIP_RESOURCE_CQ, 2);
IS(VIP_RESOURCE_DESCRIPTOR, 3);
IS(VIP_ERROR_POST_DESC, 0);
IS(VIP_ERROR_CONN_LOST, 1);
IS(VIP_ERROR_RECVQ_EMPTY, 2);
IS(VIP_ERROR_VI_OVERRUN, 3);
IS(VIP_ERROR_RDMAW_PROT, 4);
IS(VIP_ERROR_RDMAW_DATA, 5);
IS(VIP_ERROR_RDMAW_ABORT, 6);
IS(VIP_ERROR_RDMAR_PROT, 7);
IS(VIP_ERROR_COMP_PROT, 8);
IS(VIP_ERROR_RDMA_TRANSPORT, 9);
IS(VIP_ERROR_CATASTROPHIC, 10);

T_TEST(vipl_header, flavours)
{
    /* Shows that CS and Control, DS and Data are the same words. */
    VIP_DESCRIPTOR descriptor;

    memset(&descriptor, 0, sizeof(descriptor));
    descriptor.CS.SegCount = 7;
    descriptor.DS[0].Local.Length = 8;
    descriptor.CS.Next.Descriptor = &descriptor;
    T_EQ(descriptor.Control.SegCount, 7);
    T_EQ(descriptor.Data[0].Length, 8);
    T_ASSERT(descriptor.Control.Next.Address == &descriptor);
    T_EQ(descriptor.Control.Next.AddressBits, (uintptr_t)&descriptor);
}

T_TEST(vipl_header, asked_for)
{
    /* Shows the two codes that programs look for by #ifdef, since not every header had them. */
#if defined(VIP_NOT_REACHABLE) && defined(VIP_ERROR_NOT_SUPPORTED)
    bool both = true;
#else
    bool both = false;
#endif
    T_ASSERT(both);
}
