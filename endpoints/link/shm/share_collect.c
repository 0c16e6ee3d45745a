/* SPDX-License-Identifier: MIT */
/* The owner's side: what becomes of shared pages that nobody registers, or even maps, any more. */
#define _GNU_SOURCE
#include <signal.h>

#include "core/sys.h"
#include "link/shm/share_internal.h"

bool share_is_used(void)
{
    return atomic_load_explicit(&share_owner.pages, memory_order_relaxed) != 0;
}

/* The memfd's pages are no longer anyone's. */
static void forget_pages(int window, uint64_t start, uint64_t end)
{
    if (share_punch(window, start, end))
        return;
    atomic_fetch_sub(&share_owner.pages,
                     share_bits_change(share_owner.owned[window], start, end, false));
    atomic_fetch_sub(&share_owner.head_pages,
                     share_bits_change(share_owner.heads[window], start, end, false));
}

/* Lock held: the heads in [addr, end), of one window, that no region covers. */
static void settle_window(struct maps_reader *reader, int window, uint64_t addr, uint64_t end)
{
    const _Atomic uint64_t *heads = share_owner.heads[window];
    struct maps_vma vma;

    for (; addr < end; addr += SHARE_PAGE) {
        if (!share_bit(heads, addr))
            addr = share_bits_run(heads, addr, end);
        if (addr >= end)
            return;
        if (share_bit(share_owner.map->shared[window], addr) || !maps_find(reader, addr, &vma))
            continue;
        int advice = atomic_load(&share_owner.odd_advice) ? maps_advice(addr) : 0;
        if (vma.start > addr || !share_is_placed(&vma, window, addr) ||
            vma.prot != (PROT_READ | PROT_WRITE) || share_give_back(window, addr, advice) == 0)
            forget_pages(window, addr, addr + SHARE_PAGE);
    }
}

typedef void window_fn(struct maps_reader *reader, int window, uint64_t addr, uint64_t end);

/* The parts of a range that lie in windows, in order. */
static void each_window(struct maps_reader *reader, uint64_t addr, uint64_t end, window_fn *act)
{
    while (addr < end) {
        uint64_t stop = (addr | (SHARE_WINDOW_SIZE - 1)) + 1;
        int window = share_window(addr);

        if (stop > end)
            stop = end;
        if (window >= 0)
            act(reader, window, addr, stop);
        addr = stop;
    }
}

/* Lock held, signals blocked. */
static void settle(uint64_t addr, uint64_t end)
{
    struct maps_reader reader;
    int fd = sys_open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

    if (fd < 0)
        return;
    maps_start(&reader, fd);
    each_window(&reader, addr, end, settle_window);
    sys_close(fd);
}

/* Is any page's bit set in [addr, end)? Cheap: most regions have no head (or one), and no mark. */
static bool has_bits(_Atomic uint64_t (*bits)[SHARE_BITMAP_WORDS], uint64_t addr, uint64_t end)
{
    while (addr < end) {
        uint64_t stop = (addr | (SHARE_WINDOW_SIZE - 1)) + 1;
        int window = share_window(addr);

        if (stop > end)
            stop = end;
        if (window >= 0 &&
            (share_bit(bits[window], addr) || share_bits_run(bits[window], addr, stop) < stop))
            return true;
        addr = stop;
    }
    return false;
}

void share_settle(uint64_t addr, uint64_t len)
{
    uint64_t start = addr & ~(SHARE_PAGE - 1), end = ((addr + len - 1) | (SHARE_PAGE - 1)) + 1;
    sigset_t all, before;

    if (len == 0 || end <= start || (end - 1) >> SHARE_WINDOW_SHIFT >= SHARE_DIRECTORY ||
        !share_owner.map || atomic_load(&share_owner.head_pages) == 0 ||
        !has_bits(share_owner.heads, start, end))
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_mutex_lock(&share_owner.lock);
    if (share_memfd_is_ours())
        settle(start, end);
    pthread_mutex_unlock(&share_owner.lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Lock held: pages in [addr, end), of one window, that are marked but no longer the memfd's. */
static void unmark_window(struct maps_reader *reader, int window, uint64_t addr, uint64_t end)
{
    _Atomic uint64_t *shared = share_owner.map->shared[window];
    struct maps_vma vma;

    while (addr < end) {
        uint64_t stop = share_bits_run(shared, addr, end);

        if (!share_bit(shared, addr)) {
            addr = stop;
            continue;
        }
        bool known = maps_find(reader, addr, &vma);
        if (known && stop > (vma.start > addr ? vma.start : vma.end))
            stop = vma.start > addr ? vma.start : vma.end;
        if (!known || vma.start > addr || !share_is_placed(&vma, window, addr))
            share_bits_change(shared, addr, stop, false);
        addr = stop;
    }
}

/* Lock held, signals blocked. */
static void unmark(uint64_t addr, uint64_t end)
{
    struct maps_reader reader;
    int fd = sys_open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

    maps_start(&reader, fd); /* nothing can be read from -1, and all marks go */
    each_window(&reader, addr, end, unmark_window);
    if (fd >= 0)
        sys_close(fd);
}

void share_cover(uint64_t addr, uint64_t len)
{
    uint64_t start = addr & ~(SHARE_PAGE - 1), end = ((addr + len - 1) | (SHARE_PAGE - 1)) + 1;
    sigset_t all, before;

    if (len == 0 || end <= start || (end - 1) >> SHARE_WINDOW_SHIFT >= SHARE_DIRECTORY ||
        !share_is_used() || !has_bits(share_owner.map->shared, start, end))
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* The engine looks and marks with the lock held: it saw what is mapped now, or we see it. */
    pthread_mutex_lock(&share_owner.lock);
    unmark(start, end);
    pthread_mutex_unlock(&share_owner.lock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void collect_pages(int window, uint64_t start, uint64_t end)
{
    _Atomic uint64_t *owned = share_owner.owned[window];

    while (start < end) {
        uint64_t stop = share_bits_run(owned, start, end);

        /* A region that is still registered keeps its pages, mapped by the program or not. */
        for (uint64_t at = start; share_bit(owned, start) && at < stop;) {
            const _Atomic uint64_t *shared = share_owner.map->shared[window];
            uint64_t until = share_bits_run(shared, at, stop);

            if (!share_bit(shared, at))
                forget_pages(window, at, until);
            at = until;
        }
        start = stop;
    }
}

static void collect_window(struct maps_reader *reader, int window, uint64_t start)
{
    uint64_t end = start + SHARE_WINDOW_SIZE;
    struct maps_vma vma;

    while (start < end) {
        uint64_t stop = end;

        if (maps_find(reader, start, &vma) && vma.start < end) {
            if (vma.start <= start && share_is_placed(&vma, window, start)) {
                share_owner.blocks++;
                start = vma.end;
                continue;
            }
            stop = vma.start > start ? vma.start : vma.end;
            if (stop > end)
                stop = end;
        }
        collect_pages(window, start, stop);
        start = stop;
    }
}

void share_count_blocks(void)
{
    struct maps_reader reader;
    int fd = sys_open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

    if (fd < 0)
        return;
    maps_start(&reader, fd);
    share_owner.blocks = 0;
    for (uint64_t index = 0; index < SHARE_DIRECTORY; index++) {
        int window = share_window(index << SHARE_WINDOW_SHIFT);

        if (window >= 0)
            collect_window(&reader, window, index << SHARE_WINDOW_SHIFT);
    }
    sys_close(fd);
}

void share_collect(void)
{
    if (!share_owner.map || atomic_load(&share_owner.pages) == 0)
        return;
    pthread_mutex_lock(&share_owner.lock);
    if (share_memfd_is_ours())
        share_count_blocks();
    pthread_mutex_unlock(&share_owner.lock);
}
