/* SPDX-License-Identifier: MIT */
/*
 * Memory regions and windows: the key table (IBTA 10.6). A key is index << 8 | variant; lkey and
 * rkey are the same number. The entry in the arena is what initiators check; clearing its key and
 * waiting for them (quiesce) makes a deregistration final.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/arena.h"
#include "core/mr_bind.h"
#include "core/state.h"
#include "core/sys.h"
#include "core/table.h"
#include "core/thread.h"
#include "link/link.h"
#include "link/shm/share.h"

enum {
    KEY_VARIANTS = 256,
    ACCESS_REMOTE = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC,
    ACCESS_KNOWN = IBV_ACCESS_LOCAL_WRITE | ACCESS_REMOTE | IBV_ACCESS_MW_BIND |
                   IBV_ACCESS_ZERO_BASED | IBV_ACCESS_HUGETLB | IBV_ACCESS_OPTIONAL_RANGE,
    /* which of the two an entry is */
    ENTRY_MR = 0,
    ENTRY_MW = 1,
};

/* What the table holds: a region or a window. */
struct entry {
    int kind;
    union {
        struct mr mr;
        struct mw mw;
    };
};

TABLE(keys, LIMIT_MR);
static uint8_t variants[LIMIT_MR];

static struct entry *entry_get(uint32_t index, int kind)
{
    struct entry *entry = table_get(&keys, index);

    return entry && entry->kind == kind ? entry : NULL;
}

struct mr *mr_get(uint32_t handle)
{
    struct entry *entry = entry_get(handle, ENTRY_MR);

    return entry ? &entry->mr : NULL;
}

struct mw *mw_get(uint32_t handle)
{
    struct entry *entry = entry_get(handle, ENTRY_MW);

    return entry ? &entry->mw : NULL;
}

static struct entry *entry_new(int kind, uint32_t *index_out, uint32_t *key_out)
{
    struct entry *entry = calloc(1, sizeof(*entry));

    if (!entry)
        return NULL;
    uint32_t index = table_take(&keys);
    if (!index) {
        free(entry);
        return NULL;
    }
    if (atomic_load(&arena_header()->mr_high) < keys.high)
        atomic_store(&arena_header()->mr_high, keys.high);
    entry->kind = kind;
    *index_out = index;
    *key_out = index << 8 | ++variants[index];
    return entry;
}

static void publish(const struct mr *mr)
{
    struct pub_mr *pub = arena_mr(mr->handle);

    pub->pd = mr->pd->handle;
    pub->iova = mr->iova;
    pub->length = mr->length;
    pub->addr = mr->addr;
    pub->access = mr->access;
    pub->qpn = 0;
    pub->window = 0;
    atomic_store_explicit(&pub->key, mr->key, memory_order_release);
}

/*
 * On return no initiator uses the region any more, nor its pages as shared ones, and no poller puts
 * data there. -EBUSY, and the region as it was: a window was being bound to it.
 */
static int retract(const struct mr *mr)
{
    if (mr->windows)
        return -EBUSY;
    atomic_store_explicit(&arena_mr(mr->handle)->key, 0, memory_order_seq_cst);
    share_forget(mr->addr, mr->length);
    shm_quiesce(NULL);
    cq_quiesce();
    if (mr->windows) {
        publish(mr);
        return -EBUSY;
    }
    share_settle(mr->addr, mr->length);
    return 0;
}

static int check_access(unsigned access)
{
    if (access & IBV_ACCESS_ON_DEMAND)
        return -EOPNOTSUPP;
    if (access & ~(unsigned)ACCESS_KNOWN)
        return -EINVAL;
    /* IBTA 10.6.3.1: the remote may not be allowed more than the owner */
    if ((access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) &&
        !(access & IBV_ACCESS_LOCAL_WRITE))
        return -EINVAL;
    return 0;
}

/* Kernels before 5.14 don't know the advice. */
static bool can_probe(void *page)
{
    return sys_madvise(page, 0, MADV_POPULATE_READ) == 0;
}

/* Touch the page's mapping without changing it: there, and writable? */
static int probe_page(uint64_t addr, bool write)
{
    void *page = (void *)(addr & ~(SHARE_PAGE - 1));

    if (sys_madvise(page, SHARE_PAGE, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0)
        return 0;
    if (errno == EINVAL) /* may not be written; or the kernel can't say: then no error */
        return can_probe(page) ? -EFAULT : 0;
    return errno == EFAULT || errno == ENOMEM ? -EFAULT : 0;
}

static int check_memory(uint64_t addr, uint64_t length, unsigned access)
{
    uint64_t first = addr & ~(SHARE_PAGE - 1);
    bool write = access & IBV_ACCESS_LOCAL_WRITE;

    if (length == 0 || addr + length < addr || length > LIMIT_MR_BYTES)
        return -EINVAL;
    if (syscall(SYS_msync, first, addr + length - first, MS_ASYNC))
        return -EFAULT;
    int error = probe_page(addr, write);
    return error ? error : probe_page(addr + length - 1, write);
}

static int check_iova(uint64_t addr, uint64_t iova, uint64_t length, unsigned access)
{
    if (access & IBV_ACCESS_ZERO_BASED)
        return 0;
    if ((addr ^ iova) & (SHARE_PAGE - 1))
        return -EINVAL;
    return iova + length < iova ? -EINVAL : 0;
}

static int check_all(const struct mr *want)
{
    int error = check_access(want->access);

    if (!error)
        error = check_memory(want->addr, want->length, want->access);
    return error ? error : check_iova(want->addr, want->iova, want->length, want->access);
}

/* The region's first address for its users; zero based ones count from 0 (ibv_reg_mr(3)). */
static uint64_t base_of(uint64_t iova, unsigned access)
{
    return access & IBV_ACCESS_ZERO_BASED ? 0 : iova;
}

int mr_reg(struct pd *pd, uint64_t addr, uint64_t length, uint64_t iova, unsigned access,
           struct mr **mr_out)
{
    struct mr want = {
        .context = pd->context,
        .pd = pd,
        .addr = addr,
        .iova = base_of(iova, access),
        .length = length,
        .access = access,
    };
    int error = check_all(&want);

    if (error)
        return error;
    struct entry *entry = entry_new(ENTRY_MR, &want.handle, &want.key);
    if (!entry)
        return -ENOMEM;
    entry->mr = want;
    pd->users++;
    share_cover(addr, length);
    publish(&entry->mr);
    table_set(&keys, want.handle, entry);
    *mr_out = &entry->mr;
    return 0;
}

static int rereg_check(unsigned flags, const struct mr *want)
{
    if (!flags || flags & ~(unsigned)(IBV_REREG_MR_CHANGE_TRANSLATION | IBV_REREG_MR_CHANGE_PD |
                                      IBV_REREG_MR_CHANGE_ACCESS))
        return -EINVAL;
    return check_all(want);
}

/*
 * A new translation gets new keys: whoever uses the old ones is refused from now on. Rights and
 * domain change under the keys there are (IBTA 11.2.8.4 allows both).
 */
int mr_rereg(struct mr *mr, unsigned flags, struct pd *pd, uint64_t addr, uint64_t length,
             uint64_t iova, unsigned access)
{
    struct mr want = *mr;

    if (flags & IBV_REREG_MR_CHANGE_TRANSLATION) {
        want.addr = addr;
        want.length = length;
        want.iova = iova;
    }
    if (flags & IBV_REREG_MR_CHANGE_PD)
        want.pd = pd;
    if (flags & IBV_REREG_MR_CHANGE_ACCESS)
        want.access = access;
    want.iova = base_of(want.iova, want.access);
    int error = rereg_check(flags, &want);
    if (!error)
        error = retract(mr);
    if (error)
        return error;
    mr->pd->users--;
    want.pd->users++;
    if (flags & IBV_REREG_MR_CHANGE_TRANSLATION)
        want.key = mr->handle << 8 | ++variants[mr->handle];
    *mr = want;
    share_cover(mr->addr, mr->length);
    publish(mr);
    return 0;
}

int mr_dereg(struct mr *mr)
{
    int error = retract(mr);

    if (error)
        return error;
    thread_collect_later();
    mr->pd->users--;
    table_release(&keys, mr->handle);
    free((char *)mr - offsetof(struct entry, mr));
    return 0;
}

int mw_alloc(struct pd *pd, enum ibv_mw_type type, struct mw **mw_out)
{
    uint32_t index, key;

    if (type != IBV_MW_TYPE_1 && type != IBV_MW_TYPE_2)
        return -EINVAL;
    struct entry *entry = entry_new(ENTRY_MW, &index, &key);
    if (!entry)
        return -ENOMEM;
    entry->mw =
        (struct mw){.handle = index, .key = key, .type = type, .context = pd->context, .pd = pd};
    pd->users++;
    table_set(&keys, index, entry);
    *mw_out = &entry->mw;
    return 0;
}

/* Data path. Whoever is using the window right now is waited for when its region goes. */
static bool mw_unbind(struct mw *mw)
{
    atomic_store(&arena_mr(mw->handle)->key, 0);
    struct mr *mr = atomic_exchange(&mw->mr, NULL);
    if (mr)
        atomic_fetch_sub(&mr->windows, 1);
    return mr;
}

int mw_dealloc(struct mw *mw)
{
    /* First no new bind, then nobody who uses the last one. */
    table_set(&keys, mw->handle, NULL);
    shm_quiesce(NULL);
    mw_unbind(mw);
    shm_quiesce(NULL);
    mw->pd->users--;
    table_release(&keys, mw->handle);
    free((char *)mw - offsetof(struct entry, mw));
    return 0;
}

void mr_close_all(struct context *context)
{
    for (int kind = ENTRY_MW; kind >= ENTRY_MR; kind--) {
        for (uint32_t i = 1; i < keys.high; i++) {
            struct entry *entry = entry_get(i, kind);

            if (!entry || (kind == ENTRY_MW ? entry->mw.context : entry->mr.context) != context)
                continue;
            if (kind == ENTRY_MW)
                mw_dealloc(&entry->mw);
            else
                mr_dereg(&entry->mr);
        }
    }
}

void mr_after_fork(void)
{
    table_clear(&keys);
}

void *mr_local(uint32_t pd, uint32_t lkey, uint64_t addr, uint64_t length, unsigned access)
{
    uint32_t index = lkey >> 8;

    if (index >= LIMIT_MR)
        return NULL;
    const struct pub_mr *pub = arena_mr(index);
    if (atomic_load_explicit(&pub->key, memory_order_acquire) != lkey || pub->pd != pd)
        return NULL;
    if ((pub->access & access) != access || pub->window)
        return NULL;
    if (addr < pub->iova || length > pub->length || addr - pub->iova > pub->length - length)
        return NULL;
    return (void *)(pub->addr + (addr - pub->iova));
}

/* ---- binding, from the send queue ---- */

/* Not on its way out: who sees this under a busy word is waited for in retract(). */
static bool is_live(const struct mr *mr)
{
    return atomic_load(&arena_mr(mr->handle)->key) == mr->key;
}

static bool bind_allowed(const struct mw *mw, const struct mr *mr,
                         const struct ibv_mw_bind_info *info)
{
    if (info->length > mr->length || info->addr < mr->iova ||
        info->addr - mr->iova > mr->length - info->length)
        return false;
    /* IBTA 10.6.7.2.2: a window that may be written needs a region with local write */
    if ((info->mw_access_flags & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) &&
        !(mr->access & IBV_ACCESS_LOCAL_WRITE))
        return false;
    return (mr->access & IBV_ACCESS_MW_BIND) && mr->pd == mw->pd;
}

static void window_publish(const struct mw *mw, const struct ibv_mw_bind_info *info)
{
    const struct mr *mr = atomic_load(&mw->mr);
    struct pub_mr *pub = arena_mr(mw->handle);
    bool zero_based = info->mw_access_flags & IBV_ACCESS_ZERO_BASED;

    /* Pairs with target_mr(): who reads any of these sees that the old key is gone. */
    fence(memory_order_release);
    pub->pd = mw->pd->handle;
    pub->iova = zero_based ? 0 : info->addr;
    pub->length = info->length;
    pub->addr = mr->addr + (info->addr - mr->iova);
    pub->access = info->mw_access_flags & ACCESS_REMOTE;
    pub->qpn = mw->type == IBV_MW_TYPE_2 ? mw->qpn : 0;
    pub->window = 1;
    atomic_store_explicit(&pub->key, mw->key, memory_order_release);
}

enum ibv_wc_status mw_bind(uint32_t qpn, uint32_t pd, uint32_t handle, uint32_t new_key,
                           uint32_t mr_handle, const struct ibv_mw_bind_info *info)
{
    struct mw *mw = mw_get(handle);
    struct mr *mr = mr_get(mr_handle);

    if (!mw || mw->pd->handle != pd || (new_key >> 8) != mw->handle)
        return IBV_WC_MW_BIND_ERR;
    /* a bound type 2 window must be invalidated first; a type 1 one may be bound again */
    if (mw->type == IBV_MW_TYPE_2 && mw->mr)
        return IBV_WC_MW_BIND_ERR;
    if (info->length && (!mr || !is_live(mr) || !bind_allowed(mw, mr, info)))
        return IBV_WC_MW_BIND_ERR;
    mw_unbind(mw);
    mw->key = new_key;
    variants[mw->handle] = (uint8_t)new_key;
    if (!info->length)
        return IBV_WC_SUCCESS; /* bound to nothing: type 1's way to unbind */
    mw->qpn = qpn;
    atomic_fetch_add(&mr->windows, 1);
    atomic_store(&mw->mr, mr);
    window_publish(mw, info);
    return IBV_WC_SUCCESS;
}

bool mw_invalidate(uint32_t qpn, uint32_t pd, uint32_t rkey)
{
    struct mw *mw = mw_get(rkey >> 8);

    if (!mw || mw->key != rkey || mw->type != IBV_MW_TYPE_2)
        return false;
    return mw->pd->handle == pd && mw->qpn == qpn && mw_unbind(mw);
}
