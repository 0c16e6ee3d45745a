/* SPDX-License-Identifier: MIT */
/* NIC handles, memory and protection tags: attributes, limits, and what may be done with what. */
#include "end.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Some things that are not handles. */
static void *not_a_handle(int which)
{
    static char somewhere[64];
    void *const them[] = {NULL,
                          (void *)1,
                          somewhere,
                          (void *)4096,
                          (void *)(~0ul),
                          (void *)~7ul,
                          (void *)0x7fffffff0000};

    return which < 7 ? them[which] : NULL;
}

T_TEST(vipl_nic, names)
{
    /* Shows which names open the device, and which do not. */
    static const char *const historical[] = {
        "", "VINIC", "VINIC0", "nic0", "/dev/clanvi0", "/dev/via_lo", "/dev/via_eth0"};
    char path[80];
    VIP_NIC_HANDLE nic;
    VIP_NIC_ATTRIBUTES attributes;

    for (size_t i = 0; i < sizeof(historical) / sizeof(historical[0]); i++) {
        T_EQ(VipOpenNic(historical[i], &nic), VIP_SUCCESS);
        T_EQ(VipCloseNic(nic), VIP_SUCCESS);
    }
    T_EQ(VipOpenNic(NULL, &nic), VIP_SUCCESS);
    T_EQ(VipCloseNic(nic), VIP_SUCCESS);
    snprintf(path, sizeof(path), "/dev/%s", test_device());
    T_EQ(VipOpenNic(path, &nic), VIP_SUCCESS);
    T_EQ(VipQueryNic(nic, &attributes), VIP_SUCCESS);
    T_STREQ(attributes.Name, test_device());
    T_EQ(VipCloseNic(nic), VIP_SUCCESS);
    T_EQ(VipOpenNic("no_such_device", &nic), VIP_ERROR_RESOURCE);
    T_EQ(VipOpenNic("VINICx", &nic), VIP_ERROR_RESOURCE);
    T_EQ(VipOpenNic("", NULL), VIP_INVALID_PARAMETER);
    t_end();
}

T_TEST(vipl_nic, attributes)
{
    /* Shows that the attributes are those that the calls keep to, and never change. */
    struct end a;
    VIP_NIC_ATTRIBUTES again;

    end_open(&a);
    const VIP_NIC_ATTRIBUTES *n = &a.limits;
    T_STREQ(n->Name, test_device());
    T_ASSERT(n->ThreadSafe);
    T_IN(n->NicAddressLen, 4, 16);
    T_ASSERT(n->LocalNicAddress);
    T_ASSERT(n->MaxDiscriminatorLen >= 16);
    T_ASSERT(n->MaxRegisterBytes >= 1 << 30 && n->MaxRegisterBlockBytes >= 1 << 30);
    T_ASSERT(n->MaxRegisterRegions && n->MaxVI && n->MaxCQ && n->MaxCQEntries && n->MaxPtags);
    T_ASSERT(n->MaxDescriptorsPerQueue >= 64 && n->MaxSegmentsPerDesc >= 2);
    T_ASSERT(n->MaxTransferSize >= 32 * 1024);
    T_IN(n->NativeMTU, 256, 512, 1024, 2048, 4096);
    T_EQ(n->ReliabilityLevelSupport, 7);
    T_EQ(n->RDMAReadSupport, VIP_SERVICE_RELIABLE_DELIVERY | VIP_SERVICE_RELIABLE_RECEPTION);
    T_EQ(VipQueryNic(a.nic, &again), VIP_SUCCESS);
    T_MEMEQ(&again, n, sizeof(again));
    T_EQ(VipQueryNic(a.nic, NULL), VIP_INVALID_PARAMETER);
    end_close(&a);
    t_end();
}

T_TEST(vipl_nic, many_opens)
{
    /* Shows that each open gives another handle, and that nothing is left of any. */
    enum { OPENS = 16, ROUNDS = 4 };
    VIP_NIC_HANDLE nics[OPENS];
    int before = 0;

    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < OPENS; i++) {
            T_EQ(VipOpenNic(test_device(), &nics[i]), VIP_SUCCESS);
            for (int j = 0; j < i; j++)
                T_ASSERT(nics[i] != nics[j]);
        }
        for (int i = 0; i < OPENS; i++)
            T_EQ(VipCloseNic(nics[i]), VIP_SUCCESS);
        if (round == 0)
            before = t_fd_count();
    }
    T_EQ(t_fd_count(), before);
    t_end();
}

/* Calls on NICs and what is theirs but VIs. */
static void bad_nic(const struct end *a, void *no_nic)
{
    VIP_NIC_ATTRIBUTES attributes;
    VIP_PROTECTION_HANDLE ptag;
    VIP_MEM_ATTRIBUTES mem;
    VIP_MEM_HANDLE handle;
    VIP_CQ_HANDLE cq;
    VIP_VI_HANDLE vi;
    VIP_VI_ATTRIBUTES of_vi = end_attributes(a, VIP_SERVICE_UNRELIABLE);

    T_EQ(VipCloseNic(no_nic), VIP_INVALID_PARAMETER);
    T_EQ(VipQueryNic(no_nic, &attributes), VIP_INVALID_PARAMETER);
    T_EQ(VipErrorCallback(no_nic, NULL, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipCreatePtag(no_nic, &ptag), VIP_INVALID_PARAMETER);
    T_EQ(VipDestroyPtag(no_nic, a->ptag), VIP_INVALID_PARAMETER);
    T_EQ(VipRegisterMem(no_nic, a->area, 64, &mem, &handle), VIP_INVALID_PARAMETER);
    T_EQ(VipDeregisterMem(no_nic, a->area, a->handle), VIP_INVALID_PARAMETER);
    T_EQ(VipQueryMem(no_nic, a->area, a->handle, &mem), VIP_INVALID_PARAMETER);
    T_EQ(VipSetMemAttributes(no_nic, a->area, a->handle, &mem), VIP_INVALID_PARAMETER);
    T_EQ(VipCreateCQ(no_nic, 1, &cq), VIP_INVALID_PARAMETER);
    T_EQ(VipCreateVi(no_nic, &of_vi, NULL, NULL, &vi), VIP_INVALID_PARAMETER);
}

static void bad_nic_names(void *no_nic, VIP_NET_ADDRESS *address)
{
    VIP_AUTODISCOVERY_LIST list = {0, NULL, 0};
    char name[64] = "";
    VIP_ULONG len = sizeof(name);

    T_EQ(VipNSInit(no_nic, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipNSShutdown(no_nic), VIP_INVALID_PARAMETER);
    T_EQ(VipNSGetHostByName(no_nic, name, address, 0), VIP_INVALID_PARAMETER);
    T_EQ(VipNSGetHostByAddr(no_nic, address, name, &len), VIP_INVALID_PARAMETER);
    T_EQ(VipQuerySystemManagementInfo(no_nic, VIP_SMI_AUTODISCOVERY, &list), VIP_INVALID_PARAMETER);
}

static void bad_cq(void *no_cq)
{
    VIP_EVENT_HANDLE event = NULL;
    VIP_BOOLEAN recv;
    VIP_VI_HANDLE vi;

    T_EQ(VipDestroyCQ(no_cq), VIP_INVALID_PARAMETER);
    T_EQ(VipResizeCQ(no_cq, 2), VIP_INVALID_PARAMETER);
    T_EQ(VipCQDone(no_cq, &vi, &recv), VIP_INVALID_PARAMETER);
    T_EQ(VipCQWait(no_cq, 0, &vi, &recv), VIP_INVALID_PARAMETER);
    T_EQ(VipCQNotify(no_cq, NULL, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipAddTagCQ(no_cq, &event, 1, 1), VIP_INVALID_PARAMETER);
    T_EQ(VipRemoveTagCQ(no_cq, event, 1), VIP_INVALID_PARAMETER);
}

static void bad_connection(const struct end *a, void *bad, VIP_NET_ADDRESS *address)
{
    VIP_VI_ATTRIBUTES theirs = {0};
    VIP_CONN_HANDLE conn;

    T_EQ(VipConnectWait(bad, address, 1, address, &theirs, &conn), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectAccept(bad, a->vi), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectReject(bad), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectRequest(bad, NULL, address, 1, &theirs), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectPeerRequest(bad, address, address, 1), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectPeerDone(bad, &theirs), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectPeerWait(bad, &theirs), VIP_INVALID_PARAMETER);
    T_EQ(VipDisconnect(bad), VIP_INVALID_PARAMETER);
}

static void bad_vi(const struct end *a, void *no_vi)
{
    VIP_VI_ATTRIBUTES attributes = end_attributes(a, VIP_SERVICE_UNRELIABLE);
    VIP_DESCRIPTOR *descriptor = end_descriptor(a, 0);
    VIP_BOOLEAN deferred;

    T_EQ(VipDestroyVi(no_vi), VIP_INVALID_PARAMETER);
    T_EQ(VipQueryVi(no_vi, NULL, NULL, NULL, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipSetViAttributes(no_vi, &attributes), VIP_INVALID_PARAMETER);
    T_EQ(VipPostSend(no_vi, descriptor, a->handle), VIP_INVALID_PARAMETER);
    T_EQ(VipPostRecv(no_vi, descriptor, a->handle), VIP_INVALID_PARAMETER);
    T_EQ(VipSendDone(no_vi, &descriptor), VIP_INVALID_PARAMETER);
    T_EQ(VipRecvDone(no_vi, &descriptor), VIP_INVALID_PARAMETER);
    T_EQ(VipSendWait(no_vi, 0, &descriptor), VIP_INVALID_PARAMETER);
    T_EQ(VipRecvWait(no_vi, 0, &descriptor), VIP_INVALID_PARAMETER);
    T_EQ(VipSendNotify(no_vi, NULL, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipRecvNotify(no_vi, NULL, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipPostDeferredSends(no_vi, VIP_FALSE, &deferred), VIP_INVALID_PARAMETER);
    T_EQ(VipSetUserData(no_vi, &attributes), VIP_INVALID_PARAMETER);
    T_ASSERT(!VipGetUserData(no_vi));
}

T_TEST(vipl_nic, bad_handles)
{
    /* Shows that what is no handle, or not of this kind, or closed, is refused by every call. */
    struct end a;
    _Alignas(8) char room[ADDRESS_ROOM];
    VIP_NET_ADDRESS *address = (VIP_NET_ADDRESS *)room;

    end_open(&a);
    end_address(&a, "anybody", room);
    T_EQ(end_create_vi(&a, VIP_SERVICE_UNRELIABLE, &a.vi), VIP_SUCCESS);
    for (int i = 0; i < 9; i++) {
        void *bad = i == 8 ? a.ptag : not_a_handle(i);

        bad_nic(&a, i == 7 ? a.vi : bad);
        bad_nic_names(i == 7 ? a.vi : bad, address);
        bad_cq(i == 7 ? a.nic : bad);
        bad_connection(&a, bad, address);
        bad_vi(&a, i == 7 ? a.nic : bad);
    }
    T_EQ(VipPostSend(a.vi, NULL, a.handle), VIP_INVALID_PARAMETER);
    T_EQ(VipPostRecv(a.vi, NULL, a.handle), VIP_INVALID_PARAMETER);
    T_EQ(VipSendDone(a.vi, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipRecvDone(a.vi, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipSendWait(a.vi, 0, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipRecvWait(a.vi, 0, NULL), VIP_INVALID_PARAMETER);
    end_close(&a);
    T_EQ(VipCloseNic(a.nic), VIP_INVALID_PARAMETER);
    T_EQ(VipDestroyVi(a.vi), VIP_INVALID_PARAMETER);
    t_end();
}

T_TEST(vipl_nic, extensions)
{
    /* Shows the vendors' calls that mean something here, and the two that do not. */
    struct end a;
    VIP_BOOLEAN deferred = VIP_TRUE;
    VIP_EVENT_HANDLE event = NULL;

    end_open(&a);
    T_EQ(end_create_vi(&a, VIP_SERVICE_UNRELIABLE, &a.vi), VIP_SUCCESS);
    T_EQ(VipCreateCQ(a.nic, 4, &a.cq), VIP_SUCCESS);
    T_ASSERT(!VipGetUserData(a.vi));
    T_EQ(VipSetUserData(a.vi, &a), VIP_SUCCESS);
    T_ASSERT(VipGetUserData(a.vi) == &a);
    T_EQ(VipPostDeferredSends(a.vi, VIP_FALSE, &deferred), VIP_SUCCESS);
    T_EQ(deferred, VIP_FALSE);
    T_EQ(VipPostDeferredSends(a.vi, VIP_FALSE, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipAddTagCQ(a.cq, &event, 1, 1), VIP_ERROR_NOT_SUPPORTED);
    T_EQ(VipAddTagCQ(a.vi, &event, 1, 1), VIP_INVALID_PARAMETER);
    T_EQ(VipRemoveTagCQ(a.cq, event, 1), VIP_ERROR_NOT_SUPPORTED);
    T_EQ(VipRemoveTagCQ(NULL, event, 1), VIP_INVALID_PARAMETER);
    end_close(&a);
    t_end();
}

/* ---- protection tags ---- */

T_TEST(vipl_ptag, limit)
{
    /* Shows that exactly MaxPtags can be made, and one more when one is gone. */
    struct end a;

    end_open(&a);
    VIP_ULONG most = a.limits.MaxPtags - 1; /* one is there */
    VIP_PROTECTION_HANDLE *tags = calloc(most + 1, sizeof(*tags));
    for (VIP_ULONG i = 0; i < most; i++)
        T_EQ(VipCreatePtag(a.nic, &tags[i]), VIP_SUCCESS);
    T_EQ(VipCreatePtag(a.nic, &tags[most]), VIP_ERROR_RESOURCE);
    T_EQ(VipDestroyPtag(a.nic, tags[0]), VIP_SUCCESS);
    T_EQ(VipDestroyPtag(a.nic, tags[0]), VIP_INVALID_PARAMETER);
    T_EQ(VipCreatePtag(a.nic, &tags[0]), VIP_SUCCESS);
    T_EQ(VipCreatePtag(a.nic, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipDestroyPtag(a.nic, NULL), VIP_INVALID_PARAMETER);
    free(tags);
    end_close(&a);
    t_end();
}

T_TEST(vipl_ptag, in_use)
{
    /* Shows that a tag that a region or a VI has can't go, and can afterwards. */
    struct end a;
    VIP_MEM_ATTRIBUTES mem = {NULL, VIP_FALSE, VIP_FALSE};
    VIP_MEM_HANDLE handle;

    end_open(&a);
    T_EQ(VipCreatePtag(a.nic, &mem.Ptag), VIP_SUCCESS);
    T_EQ(VipRegisterMem(a.nic, a.area, 64, &mem, &handle), VIP_SUCCESS);
    T_EQ(VipDestroyPtag(a.nic, mem.Ptag), VIP_ERROR_RESOURCE);
    T_EQ(VipDeregisterMem(a.nic, a.area, handle), VIP_SUCCESS);
    VIP_VI_ATTRIBUTES attributes = end_attributes(&a, VIP_SERVICE_RELIABLE_RECEPTION);
    attributes.Ptag = mem.Ptag;
    T_EQ(VipCreateVi(a.nic, &attributes, NULL, NULL, &a.vi), VIP_SUCCESS);
    T_EQ(VipDestroyPtag(a.nic, mem.Ptag), VIP_ERROR_RESOURCE);
    T_EQ(VipDestroyVi(a.vi), VIP_SUCCESS);
    T_EQ(VipDestroyPtag(a.nic, mem.Ptag), VIP_SUCCESS);
    end_close(&a);
    t_end();
}

/* ---- memory ---- */

T_TEST(vipl_memory, attributes)
{
    /* Shows that a region's attributes are what was given, and change under the same handle. */
    struct end a;
    VIP_MEM_ATTRIBUTES mem = {NULL, VIP_TRUE, VIP_FALSE}, seen;
    VIP_MEM_HANDLE handle;

    end_open(&a);
    mem.Ptag = a.ptag;
    T_EQ(VipRegisterMem(a.nic, a.area, 4096, &mem, &handle), VIP_SUCCESS);
    T_ASSERT(handle && handle != a.handle);
    T_EQ(VipQueryMem(a.nic, a.area, handle, &seen), VIP_SUCCESS);
    T_ASSERT(seen.Ptag == a.ptag && seen.EnableRdmaWrite && !seen.EnableRdmaRead);
    T_EQ(VipCreatePtag(a.nic, &mem.Ptag), VIP_SUCCESS);
    mem.EnableRdmaWrite = VIP_FALSE;
    mem.EnableRdmaRead = VIP_TRUE;
    T_EQ(VipSetMemAttributes(a.nic, a.area, handle, &mem), VIP_SUCCESS);
    T_EQ(VipQueryMem(a.nic, a.area, handle, &seen), VIP_SUCCESS);
    T_ASSERT(seen.Ptag == mem.Ptag && !seen.EnableRdmaWrite && seen.EnableRdmaRead);
    T_EQ(VipDestroyPtag(a.nic, mem.Ptag), VIP_ERROR_RESOURCE);
    T_EQ(VipDeregisterMem(a.nic, a.area, handle), VIP_SUCCESS);
    T_EQ(VipDestroyPtag(a.nic, mem.Ptag), VIP_SUCCESS);
    end_close(&a);
    t_end();
}

T_TEST(vipl_memory, refused)
{
    /* Shows every error of the calls that take memory. */
    struct end a, b;
    VIP_MEM_ATTRIBUTES mem = {NULL, VIP_FALSE, VIP_FALSE}, seen;
    VIP_MEM_HANDLE handle;

    end_open(&a);
    end_open(&b);
    T_EQ(VipRegisterMem(a.nic, a.area, 64, &mem, &handle), VIP_INVALID_PTAG);
    mem.Ptag = b.ptag; /* of another handle */
    T_EQ(VipRegisterMem(a.nic, a.area, 64, &mem, &handle), VIP_INVALID_PTAG);
    T_EQ(VipSetMemAttributes(a.nic, a.area, a.handle, &mem), VIP_INVALID_PTAG);
    mem.Ptag = a.ptag;
    T_EQ(VipRegisterMem(a.nic, NULL, 64, &mem, &handle), VIP_INVALID_PARAMETER);
    T_EQ(VipRegisterMem(a.nic, a.area, 0, &mem, &handle), VIP_INVALID_PARAMETER);
    T_EQ(VipRegisterMem(a.nic, a.area, 64, NULL, &handle), VIP_INVALID_PARAMETER);
    T_EQ(VipRegisterMem(a.nic, a.area, 64, &mem, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipRegisterMem(a.nic, a.area, a.limits.MaxRegisterBlockBytes + 1, &mem, &handle),
         VIP_ERROR_RESOURCE);
    T_EQ(VipQueryMem(a.nic, a.area + 1, a.handle, &seen), VIP_INVALID_PARAMETER);
    T_EQ(VipQueryMem(a.nic, a.area, a.handle + 1, &seen), VIP_INVALID_PARAMETER);
    T_EQ(VipQueryMem(a.nic, a.area, a.handle, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipSetMemAttributes(a.nic, a.area, a.handle, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipSetMemAttributes(a.nic, a.area + 1, a.handle, &mem), VIP_INVALID_PARAMETER);
    T_EQ(VipDeregisterMem(a.nic, a.area + 1, a.handle), VIP_INVALID_PARAMETER);
    T_EQ(VipDeregisterMem(a.nic, a.area, 0), VIP_INVALID_PARAMETER);
    T_EQ(VipDeregisterMem(a.nic, a.area, a.handle), VIP_SUCCESS);
    T_EQ(VipDeregisterMem(a.nic, a.area, a.handle), VIP_INVALID_PARAMETER);
    end_close(&a);
    end_close(&b);
    t_end();
}

T_TEST(vipl_memory, not_mapped)
{
    /* Shows that memory that is not there can't be registered, in whole or in part. */
    struct end a;
    VIP_MEM_HANDLE handle;

    end_open(&a);
    VIP_MEM_ATTRIBUTES mem = {a.ptag, VIP_FALSE, VIP_FALSE};
    char *hole = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T_ASSERT(hole != MAP_FAILED);
    munmap(hole + 4096, 4096);
    T_EQ(VipRegisterMem(a.nic, hole, 4097, &mem, &handle), VIP_INVALID_PARAMETER);
    T_EQ(VipRegisterMem(a.nic, hole + 4096, 1, &mem, &handle), VIP_INVALID_PARAMETER);
    T_EQ(VipRegisterMem(a.nic, hole, 4096, &mem, &handle), VIP_SUCCESS);
    T_EQ(VipDeregisterMem(a.nic, hole, handle), VIP_SUCCESS);
    munmap(hole, 4096);
    end_close(&a);
    t_end();
}

T_TEST(vipl_memory, limit)
{
    /* Shows that exactly MaxRegisterRegions can be there, overlapping ones, each with its handle.
     */
    struct end a;

    end_open(&a);
    VIP_MEM_ATTRIBUTES mem = {a.ptag, VIP_FALSE, VIP_FALSE}, seen;
    VIP_ULONG most = a.limits.MaxRegisterRegions - 1;
    VIP_MEM_HANDLE *handles = calloc(most, sizeof(*handles)), none;
    for (VIP_ULONG i = 0; i < most; i++)
        T_EQ(VipRegisterMem(a.nic, a.area + i, 100, &mem, &handles[i]), VIP_SUCCESS);
    T_EQ(VipRegisterMem(a.nic, a.area, 100, &mem, &none), VIP_ERROR_RESOURCE);
    for (VIP_ULONG i = 0; i < most; i++)
        T_EQ(VipQueryMem(a.nic, a.area + i, handles[i], &seen), VIP_SUCCESS);
    T_EQ(VipDeregisterMem(a.nic, a.area, handles[0]), VIP_SUCCESS);
    T_EQ(VipRegisterMem(a.nic, a.area, 100, &mem, &handles[0]), VIP_SUCCESS);
    free(handles);
    end_close(&a);
    t_end();
}

T_TEST(vipl_memory, comes_and_goes)
{
    /* Shows that any order of registering and deregistering leaves the others as they were. */
    enum { REGIONS = 300, STEPS = 3000 };
    struct end a;
    VIP_MEM_HANDLE handles[REGIONS] = {0};

    end_open(&a);
    VIP_MEM_ATTRIBUTES mem = {a.ptag, VIP_FALSE, VIP_FALSE}, seen;
    for (int step = 0; step < STEPS; step++) {
        uint64_t i = t_rand_below(REGIONS);

        if (handles[i]) {
            T_EQ(VipDeregisterMem(a.nic, a.area + i, handles[i]), VIP_SUCCESS);
            T_EQ(VipQueryMem(a.nic, a.area + i, handles[i], &seen), VIP_INVALID_PARAMETER);
            handles[i] = 0;
        } else {
            T_EQ(VipRegisterMem(a.nic, a.area + i, 64, &mem, &handles[i]), VIP_SUCCESS);
        }
        i = t_rand_below(REGIONS);
        if (handles[i])
            T_EQ(VipQueryMem(a.nic, a.area + i, handles[i], &seen), VIP_SUCCESS);
    }
    end_close(&a);
    t_end();
}
