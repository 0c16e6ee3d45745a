/* SPDX-License-Identifier: MIT */
/*
 * Protection tags and registered regions. A region's handle is the key its peers use, so that it
 * means the same at both ends; here it is looked up in a table that posting threads read without a
 * lock. A look-up that finds nothing while the table was being changed is made again.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vip.h"

enum { TABLE_BITS = 8, BLOCK_REGIONS = 64 };

/* ---- the table ---- */

static struct table *table_new(unsigned bits, struct table *older)
{
    struct table *table = calloc(1, sizeof(*table) + sizeof(table->slot[0]) * (1ul << bits));

    if (!table)
        return NULL;
    table->shift = 32 - bits;
    table->mask = (1u << bits) - 1;
    table->older = older;
    return table;
}

static void table_put(struct table *table, struct region *region)
{
    uint32_t at = table_place(table, region->handle);

    while (atomic_load_explicit(&table->slot[at], memory_order_relaxed))
        at = (at + 1) & table->mask;
    atomic_store_explicit(&table->slot[at], region, memory_order_release);
}

static const struct region *table_search(const struct table *table, VIP_MEM_HANDLE handle)
{
    for (uint32_t at = table_place(table, handle);; at = (at + 1) & table->mask) {
        const struct region *region = atomic_load_explicit(&table->slot[at], memory_order_acquire);

        if (!region || region->handle == handle)
            return region;
    }
}

const struct region *region_search(struct vip_nic *nic, VIP_MEM_HANDLE handle)
{
    for (;;) {
        uint32_t turn = atomic_load_explicit(&nic->table_turn, memory_order_acquire);
        const struct region *region =
            table_search(atomic_load_explicit(&nic->table, memory_order_acquire), handle);

        if (likely(region != NULL))
            return region;
        atomic_thread_fence(memory_order_acquire);
        if (turn % 2 == 0 && turn == atomic_load_explicit(&nic->table_turn, memory_order_relaxed))
            return NULL;
        sched_yield();
    }
}

/* Readers may still be in the old table: it stays until the NIC is closed. */
static int table_make_room(struct vip_nic *nic)
{
    struct table *old = atomic_load(&nic->table);

    if (nic->region_count < old->mask / 2)
        return 0;
    struct table *table = table_new(32 - old->shift + 1, old);
    if (!table)
        return -ENOMEM;
    for (uint32_t at = 0; at <= old->mask; at++) {
        if (atomic_load(&old->slot[at]))
            table_put(table, atomic_load(&old->slot[at]));
    }
    atomic_store_explicit(&nic->table, table, memory_order_release);
    return 0;
}

/* Closes the gap, so that a search may end at the first empty place. */
static void table_drop(struct vip_nic *nic, struct region *region)
{
    struct table *table = atomic_load(&nic->table);
    uint32_t gap = table_place(table, region->handle);

    atomic_fetch_add(&nic->table_turn, 1);
    while (atomic_load(&table->slot[gap]) != region)
        gap = (gap + 1) & table->mask;
    for (uint32_t at = (gap + 1) & table->mask; atomic_load(&table->slot[at]);
         at = (at + 1) & table->mask) {
        struct region *moved = atomic_load(&table->slot[at]);
        uint32_t home = table_place(table, moved->handle);

        if (((at - home) & table->mask) < ((at - gap) & table->mask))
            continue;
        atomic_store(&table->slot[gap], moved);
        gap = at;
    }
    atomic_store(&table->slot[gap], NULL);
    atomic_fetch_add(&nic->table_turn, 1);
}

/* ---- regions ---- */

/* Never given back while the NIC is open: a reader may look at one that has just gone. */
static struct region *region_new(struct vip_nic *nic)
{
    if (!nic->free_regions) {
        struct region **blocks =
            realloc(nic->region_blocks, sizeof(struct region *) * (nic->region_block_count + 1));
        struct region *block = calloc(BLOCK_REGIONS, sizeof(*block));

        if (blocks)
            nic->region_blocks = blocks;
        if (!blocks || !block) {
            free(block);
            return NULL;
        }
        blocks[nic->region_block_count++] = block;
        for (unsigned i = 0; i < BLOCK_REGIONS; i++) {
            block[i].next = nic->free_regions;
            nic->free_regions = &block[i];
        }
    }
    struct region *region = nic->free_regions;
    nic->free_regions = region->next;
    return region;
}

static void region_free(struct vip_nic *nic, struct region *region)
{
    region->next = nic->free_regions;
    nic->free_regions = region;
}

static int access_of(const VIP_MEM_ATTRIBUTES *attributes)
{
    int access = IBV_ACCESS_LOCAL_WRITE;

    if (attributes->EnableRdmaWrite)
        access |= IBV_ACCESS_REMOTE_WRITE;
    if (attributes->EnableRdmaRead)
        access |= IBV_ACCESS_REMOTE_READ;
    return access;
}

static VIP_MEM_HANDLE handle_for(const struct ibv_mr *mr)
{
    return mr->rkey ? mr->rkey : mr->lkey;
}

static VIP_RETURN check_attributes(struct vip_nic *nic, const VIP_MEM_ATTRIBUTES *attributes)
{
    if (!ptag_of(nic, attributes->Ptag))
        return VIP_INVALID_PTAG;
    if (attributes->EnableRdmaRead && !nic->attributes.RDMAReadSupport)
        return VIP_INVALID_RDMAREAD;
    return VIP_SUCCESS;
}

static void fill(struct region *region, struct ibv_mr *mr, const VIP_MEM_ATTRIBUTES *attributes)
{
    region->mr = mr;
    region->lkey = mr->lkey;
    region->ptag = attributes->Ptag;
    region->write = attributes->EnableRdmaWrite;
    region->read = attributes->EnableRdmaRead;
}

/* With nic->lock held. */
static int region_add(struct vip_nic *nic, struct ibv_mr *mr, VIP_PVOID address, VIP_ULONG length,
                      const VIP_MEM_ATTRIBUTES *attributes, VIP_MEM_HANDLE *handle_out)
{
    if (nic->region_count >= nic->attributes.MaxRegisterRegions ||
        length > nic->attributes.MaxRegisterBytes - nic->registered_bytes)
        return -ENOMEM;
    struct region *region = table_make_room(nic) ? NULL : region_new(nic);
    if (!region)
        return -ENOMEM;
    region->base = (uintptr_t)address;
    region->length = length;
    region->handle = handle_for(mr);
    fill(region, mr, attributes);
    table_put(atomic_load(&nic->table), region);
    region->ptag->users++;
    nic->region_count++;
    nic->registered_bytes += length;
    *handle_out = region->handle;
    return 0;
}

/* Whether all of it is there: a NIC may find out later only. */
static bool is_mapped(VIP_PVOID address, VIP_ULONG length)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)address & ~(page - 1);
    uintptr_t to = (uintptr_t)address + length;

    return to > (uintptr_t)address && !msync((void *)from, to - from, MS_ASYNC);
}

VIP_RETURN VipRegisterMem(VIP_NIC_HANDLE NicHandle, VIP_PVOID VirtualAddress, VIP_ULONG Length,
                          VIP_MEM_ATTRIBUTES *MemAttribs, VIP_MEM_HANDLE *MemoryHandle)
{
    struct vip_nic *nic = nic_of(NicHandle);

    if (!nic || !VirtualAddress || !Length || !MemAttribs || !MemoryHandle)
        return VIP_INVALID_PARAMETER;
    VIP_RETURN wrong = check_attributes(nic, MemAttribs);
    if (wrong)
        return wrong;
    if (Length > nic->attributes.MaxRegisterBlockBytes)
        return VIP_ERROR_RESOURCE;
    if (!is_mapped(VirtualAddress, Length))
        return VIP_INVALID_PARAMETER;
    struct ptag *ptag = ptag_of(nic, MemAttribs->Ptag);
    struct ibv_mr *mr =
        ibv_reg_mr(ptag->pd, VirtualAddress, Length, (unsigned)access_of(MemAttribs));
    if (!mr)
        return errno == EFAULT || errno == EINVAL ? VIP_INVALID_PARAMETER : VIP_ERROR_RESOURCE;
    pthread_mutex_lock(&nic->lock);
    int error = region_add(nic, mr, VirtualAddress, Length, MemAttribs, MemoryHandle);
    pthread_mutex_unlock(&nic->lock);
    if (error)
        ibv_dereg_mr(mr);
    return error ? VIP_ERROR_RESOURCE : VIP_SUCCESS;
}

/* The region that handle and address name together; with nic->lock held. */
static struct region *region_named(struct vip_nic *nic, VIP_PVOID address, VIP_MEM_HANDLE handle)
{
    struct region *region = (struct region *)(uintptr_t)region_find(nic, handle);

    return region && region->base == (uintptr_t)address ? region : NULL;
}

VIP_RETURN VipDeregisterMem(VIP_NIC_HANDLE NicHandle, VIP_PVOID VirtualAddress,
                            VIP_MEM_HANDLE MemoryHandle)
{
    struct vip_nic *nic = nic_of(NicHandle);
    struct ibv_mr *mr = NULL;

    if (!nic)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&nic->lock);
    struct region *region = region_named(nic, VirtualAddress, MemoryHandle);
    if (region) {
        mr = region->mr;
        table_drop(nic, region);
        atomic_fetch_add(&nic->removals, 1);
        region->ptag->users--;
        nic->region_count--;
        nic->registered_bytes -= region->length;
        region_free(nic, region);
    }
    pthread_mutex_unlock(&nic->lock);
    if (!mr)
        return VIP_INVALID_PARAMETER;
    return ibv_dereg_mr(mr) ? VIP_ERROR_RESOURCE : VIP_SUCCESS;
}

VIP_RETURN VipQueryMem(VIP_NIC_HANDLE NicHandle, VIP_PVOID VirtualAddress,
                       VIP_MEM_HANDLE MemoryHandle, VIP_MEM_ATTRIBUTES *MemAttribs)
{
    struct vip_nic *nic = nic_of(NicHandle);

    if (!nic || !MemAttribs)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&nic->lock);
    const struct region *region = region_named(nic, VirtualAddress, MemoryHandle);
    if (region)
        *MemAttribs = (VIP_MEM_ATTRIBUTES){region->ptag, region->write, region->read};
    pthread_mutex_unlock(&nic->lock);
    return region ? VIP_SUCCESS : VIP_INVALID_PARAMETER;
}

/*
 * In place where the device can. Where it can't, a second registration serves the local side, and
 * that is enough only if nobody else may come in by the key that was given out.
 */
static VIP_RETURN region_change(struct region *region, const VIP_MEM_ATTRIBUTES *to)
{
    struct ptag *ptag = to->Ptag;
    void *base = (void *)(uintptr_t)region->base;
    struct ibv_mr *mr = region->mr;

    if (ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_PD | IBV_REREG_MR_CHANGE_ACCESS, ptag->pd, base,
                     region->length, access_of(to)) == 0) {
        if ((to->EnableRdmaWrite || to->EnableRdmaRead) && mr->rkey != region->handle)
            return VIP_ERROR_RESOURCE;
    } else {
        if (to->EnableRdmaWrite || to->EnableRdmaRead)
            return VIP_ERROR_RESOURCE;
        mr = ibv_reg_mr(ptag->pd, base, region->length, (unsigned)access_of(to));
        if (!mr || ibv_dereg_mr(region->mr))
            return VIP_ERROR_RESOURCE;
    }
    region->ptag->users--;
    fill(region, mr, to);
    region->ptag->users++;
    return VIP_SUCCESS;
}

VIP_RETURN VipSetMemAttributes(VIP_NIC_HANDLE NicHandle, VIP_PVOID VirtualAddress,
                               VIP_MEM_HANDLE MemoryHandle, VIP_MEM_ATTRIBUTES *MemAttribs)
{
    struct vip_nic *nic = nic_of(NicHandle);

    if (!nic || !MemAttribs)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&nic->lock);
    struct region *region = region_named(nic, VirtualAddress, MemoryHandle);
    VIP_RETURN result = region ? check_attributes(nic, MemAttribs) : VIP_INVALID_PARAMETER;
    if (!result)
        result = region_change(region, MemAttribs);
    pthread_mutex_unlock(&nic->lock);
    return result;
}

/* ---- protection tags ---- */

struct ptag *ptag_of(struct vip_nic *nic, VIP_PROTECTION_HANDLE handle)
{
    struct ptag *ptag = handle_of(handle, KIND_PTAG);

    return ptag && ptag->head.nic == nic ? ptag : NULL;
}

void ptag_use(struct ptag *ptag, int change)
{
    pthread_mutex_lock(&ptag->head.nic->lock);
    ptag->users += (unsigned)change;
    pthread_mutex_unlock(&ptag->head.nic->lock);
}

bool ptag_confirms(struct ptag *ptag)
{
    struct vip_nic *nic = ptag->head.nic;

    pthread_mutex_lock(&nic->lock);
    if (!ptag->confirm)
        ptag->confirm = ibv_reg_mr(ptag->pd, nic->confirm_words, 2 * sizeof(uint64_t),
                                   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ);
    pthread_mutex_unlock(&nic->lock);
    return ptag->confirm;
}

/* False: in use. */
static bool ptag_free(struct ptag *ptag)
{
    if (ptag->confirm && ibv_dereg_mr(ptag->confirm))
        return false;
    ptag->confirm = NULL;
    if (ibv_dealloc_pd(ptag->pd))
        return false;
    pool_give(ptag);
    return true;
}

static struct ptag *ptag_new(struct vip_nic *nic)
{
    struct ptag *ptag = pool_take(KIND_PTAG, nic);

    if (!ptag)
        return NULL;
    ptag->pd = ibv_alloc_pd(nic->verbs);
    if (!ptag->pd) {
        pool_give(ptag);
        return NULL;
    }
    return ptag;
}

VIP_RETURN VipCreatePtag(VIP_NIC_HANDLE NicHandle, VIP_PROTECTION_HANDLE *ProtectionTag)
{
    struct vip_nic *nic = nic_of(NicHandle);
    struct ptag *ptag = NULL;

    if (!nic || !ProtectionTag)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&nic->lock);
    if (nic->ptag_count < nic->attributes.MaxPtags)
        ptag = ptag_new(nic);
    if (ptag) {
        nic->ptag_count++;
        list_add(&nic->ptags, &ptag->head);
    }
    pthread_mutex_unlock(&nic->lock);
    if (!ptag)
        return VIP_ERROR_RESOURCE;
    *ProtectionTag = ptag;
    return VIP_SUCCESS;
}

VIP_RETURN VipDestroyPtag(VIP_NIC_HANDLE NicHandle, VIP_PROTECTION_HANDLE ProtectionTag)
{
    struct vip_nic *nic = nic_of(NicHandle);
    struct ptag *ptag = nic ? ptag_of(nic, ProtectionTag) : NULL;

    if (!ptag)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&nic->lock);
    bool used = ptag->users;
    if (!used) {
        list_remove(&nic->ptags, &ptag->head);
        used = !ptag_free(ptag);
    }
    if (!used)
        nic->ptag_count--;
    pthread_mutex_unlock(&nic->lock);
    return used ? VIP_ERROR_RESOURCE : VIP_SUCCESS;
}

/* ---- with the NIC ---- */

int memory_init(struct vip_nic *nic)
{
    struct table *table = table_new(TABLE_BITS, NULL);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    atomic_init(&nic->table, table);
    nic->confirm_words = aligned_alloc(page, page);
    if (!table || !nic->confirm_words)
        return -ENOMEM;
    memset(nic->confirm_words, 0, page);
    return 0;
}

void memory_fini(struct vip_nic *nic)
{
    struct table *table = atomic_load(&nic->table);

    for (uint32_t at = 0; table && at <= table->mask; at++) {
        struct region *region = atomic_load(&table->slot[at]);

        if (region)
            ibv_dereg_mr(region->mr);
    }
    while (nic->ptags) {
        struct ptag *ptag = (struct ptag *)nic->ptags;

        nic->ptags = ptag->head.next;
        ptag_free(ptag);
    }
    for (unsigned i = 0; i < nic->region_block_count; i++)
        free(nic->region_blocks[i]);
    free(nic->region_blocks);
    free(nic->confirm_words);
    while (table) {
        struct table *older = table->older;

        free(table);
        table = older;
    }
}
