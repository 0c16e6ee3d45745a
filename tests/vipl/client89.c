/* SPDX-License-Identifier: MIT */
/*
 * A client as they were written in the nineties: -std=c89 -pedantic, or C++, with the member names
 * Control and Data. It connects two VIs of its own, peer to peer, and sends a message.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vipl.h"

#define AREA 65536
#define NAME "client of 89"

static VIP_NIC_HANDLE nic;
static VIP_PROTECTION_HANDLE tag;
static VIP_MEM_HANDLE handle;
static char *area;

static void check(VIP_RETURN result, const char *what)
{
    if (result == VIP_SUCCESS)
        return;
    fprintf(stderr, "%s: %d\n", what, (int)result);
    exit(1);
}

static VIP_VI_HANDLE make_vi(void)
{
    VIP_VI_ATTRIBUTES attributes;
    VIP_VI_HANDLE vi;

    memset(&attributes, 0, sizeof(attributes));
    attributes.ReliabilityLevel = VIP_SERVICE_RELIABLE_DELIVERY;
    attributes.MaxTransferSize = 1024;
    attributes.Ptag = tag;
    check(VipCreateVi(nic, &attributes, NULL, NULL, &vi), "VipCreateVi");
    return vi;
}

static void make_address(VIP_NET_ADDRESS *address, const char *name)
{
    VIP_NIC_ATTRIBUTES attributes;

    check(VipQueryNic(nic, &attributes), "VipQueryNic");
    address->HostAddressLen = attributes.NicAddressLen;
    address->DiscriminatorLen = (VIP_UINT16)strlen(name);
    memcpy(address->HostAddress, attributes.LocalNicAddress, attributes.NicAddressLen);
    memcpy(address->HostAddress + attributes.NicAddressLen, name, strlen(name));
}

static VIP_DESCRIPTOR *make_descriptor(int slot, const char *text)
{
    VIP_DESCRIPTOR *descriptor = (VIP_DESCRIPTOR *)(void *)(area + 64 * slot);
    char *data = area + 4096 + 64 * slot;

    memset(descriptor, 0, sizeof(*descriptor));
    strcpy(data, text);
    descriptor->Control.SegCount = 1;
    descriptor->Control.Length = 32;
    descriptor->Data[0].Data.Address = data;
    descriptor->Data[0].Handle = handle;
    descriptor->Data[0].Length = 32;
    return descriptor;
}

static void connect_them(VIP_VI_HANDLE a, VIP_VI_HANDLE b, const char *unique)
{
    VIP_VI_ATTRIBUTES theirs;
    char here[64], there[64], name[32];

    sprintf(name, "a%.12s", unique);
    make_address((VIP_NET_ADDRESS *)(void *)here, name);
    name[0] = 'b';
    make_address((VIP_NET_ADDRESS *)(void *)there, name);
    check(VipConnectPeerRequest(a, (VIP_NET_ADDRESS *)(void *)here,
                                (VIP_NET_ADDRESS *)(void *)there, 5000),
          "VipConnectPeerRequest");
    check(VipConnectPeerRequest(b, (VIP_NET_ADDRESS *)(void *)there,
                                (VIP_NET_ADDRESS *)(void *)here, 5000),
          "VipConnectPeerRequest");
    check(VipConnectPeerWait(a, &theirs), "VipConnectPeerWait");
    check(VipConnectPeerWait(b, &theirs), "VipConnectPeerWait");
}

int main(int argc, char **argv)
{
    VIP_MEM_ATTRIBUTES attributes;
    VIP_VI_HANDLE a, b;
    VIP_DESCRIPTOR *done;

    check(VipOpenNic(getenv("VIPL_TEST_DEVICE"), &nic), "VipOpenNic");
    check(VipCreatePtag(nic, &tag), "VipCreatePtag");
    area = (char *)malloc(AREA + 64);
    area += 64 - (size_t)area % 64;
    attributes.Ptag = tag;
    attributes.EnableRdmaWrite = VIP_FALSE;
    attributes.EnableRdmaRead = VIP_FALSE;
    check(VipRegisterMem(nic, area, AREA, &attributes, &handle), "VipRegisterMem");
    a = make_vi();
    b = make_vi();
    check(VipPostRecv(b, make_descriptor(0, ""), handle), "VipPostRecv");
    connect_them(a, b, argc > 1 ? argv[1] : NAME);
    check(VipPostSend(a, make_descriptor(1, "a message"), handle), "VipPostSend");
    check(VipSendWait(a, VIP_INFINITE, &done), "VipSendWait");
    check(VipRecvWait(b, VIP_INFINITE, &done), "VipRecvWait");
    if (strcmp((char *)done->Data[0].Data.Address, "a message") != 0 || done->Control.Length != 32)
        return 1;
    check(VipDisconnect(a), "VipDisconnect");
    check(VipDisconnect(b), "VipDisconnect");
    check(VipDestroyVi(a), "VipDestroyVi");
    check(VipDestroyVi(b), "VipDestroyVi");
    check(VipCloseNic(nic), "VipCloseNic");
    printf("it works\n");
    return 0;
}
