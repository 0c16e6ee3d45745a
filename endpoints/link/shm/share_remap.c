/* SPDX-License-Identifier: MIT */
/* What the program asks of exchanged memory by madvise() and mremap(), as if it were still private.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "core/sys.h"
#include "link/shm/share_internal.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/*
 * The run of pages from *addr on, up to end, that are all ours or all not. Returns the window if
 * they are ours, else -1; the end of the run goes to *stop_out.
 */
static int owned_run(uint64_t addr, uint64_t end, uint64_t *stop_out)
{
    uint64_t stop = (addr | (SHARE_WINDOW_SIZE - 1)) + 1;
    int window = share_window(addr);

    if (stop > end)
        stop = end;
    *stop_out = stop;
    if (window < 0)
        return -1;
    *stop_out = share_bits_run(share_owner.owned[window], addr, stop);
    return share_bit(share_owner.owned[window], addr) ? window : -1;
}

/* Whole pages below the directory's end, with at least one of ours among them? */
static bool concerns(uint64_t start, uint64_t len)
{
    uint64_t end = start + len;

    if (atomic_load_explicit(&share_owner.pages, memory_order_acquire) == 0 || len == 0 ||
        start % SHARE_PAGE || end <= start || (end - 1) >> SHARE_WINDOW_SHIFT >= SHARE_DIRECTORY)
        return false;
    for (uint64_t stop; start < end; start = stop)
        if (owned_run(start, end, &stop) >= 0)
            return true;
    return false;
}

static int call(uint64_t start, uint64_t end, int advice)
{
    return sys_madvise((void *)(uintptr_t)start, end - start, advice) ? -errno : 0;
}

/*
 * Drop the memfd's pages. The advice itself is for the kernel all the same, should the addresses
 * hold memory of the program's own again by now; only MADV_FREE is nothing that ours could take.
 */
static int drop(int window, uint64_t start, uint64_t end, int advice)
{
    int error = call(start, end, advice);

    if (error == -EINVAL && advice == MADV_FREE)
        error = 0;
    return error ? error : share_punch(window, start, end);
}

static uint64_t whole_pages(uint64_t len)
{
    return (len + SHARE_PAGE - 1) & ~(SHARE_PAGE - 1);
}

bool share_madvise(void *addr, size_t len, int advice, int *result_out)
{
    uint64_t start = (uintptr_t)addr, size = whole_pages(len);
    int saved = errno, result = 0;

    if (advice == MADV_DONTFORK || advice == MADV_DONTDUMP || advice == MADV_WIPEONFORK)
        atomic_store(&share_owner.odd_advice, true);
    if (advice != MADV_DONTNEED && advice != MADV_FREE && advice != MADV_REMOVE &&
        advice != MADV_DONTNEED_LOCKED)
        return false;
    if (!concerns(start, size))
        return false;
    for (uint64_t stop, end = start + size; start < end; start = stop) {
        int window = owned_run(start, end, &stop);
        int error = window >= 0 ? drop(window, start, stop, advice) : call(start, stop, advice);

        if (error && !result)
            result = error;
    }
    errno = saved;
    *result_out = result;
    return true;
}

/* ---- mremap ---- */

static void *map_private(void *at, size_t len, int flags)
{
    return sys_mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
}

/* More room right behind, if nothing is there. */
static bool grow_in_place(char *addr, size_t old_len, size_t new_len)
{
    char *end = addr + old_len;
    char *more = map_private(end, new_len - old_len, MAP_FIXED_NOREPLACE);

    if (more == end)
        return true;
    if (more != MAP_FAILED)
        sys_munmap(more, new_len - old_len); /* a kernel that takes the address as a hint */
    return false;
}

static void *move(char *addr, size_t old_len, size_t new_len, int flags, void *new_addr)
{
    bool fixed = flags & MREMAP_FIXED;
    char *to = map_private(fixed ? new_addr : NULL, new_len, fixed ? MAP_FIXED : 0);

    if (to == MAP_FAILED)
        return MAP_FAILED;
    memcpy(to, addr, old_len < new_len ? old_len : new_len);
    sys_munmap(addr, old_len);
    return to;
}

/* The bits only say that the memfd has these pages; what is mapped now the kernel knows. */
static bool is_mapped(uint64_t start, uint64_t end)
{
    struct maps_reader reader;
    struct maps_vma vma;
    bool is = false;
    int fd = sys_open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);

    if (fd < 0)
        return true;
    maps_start(&reader, fd);
    while (!is && start < end && maps_find(&reader, start, &vma) && vma.start < end) {
        is = share_is_ours(&vma);
        start = vma.end;
    }
    sys_close(fd);
    return is;
}

static bool is_valid(uint64_t addr, size_t old_len, size_t new_len, int flags, uint64_t to)
{
    bool fixed = flags & MREMAP_FIXED;

    if (new_len == 0 || flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED))
        return false;
    if (!fixed)
        return true;
    return flags & MREMAP_MAYMOVE && to % SHARE_PAGE == 0 &&
           (to + new_len <= addr || addr + old_len <= to);
}

bool share_mremap(void *addr, size_t old_len, size_t new_len, int flags, void *new_addr,
                  void **result_out)
{
    size_t old_size = whole_pages(old_len), new_size = whole_pages(new_len);

    if (!concerns((uintptr_t)addr, old_size) ||
        !is_mapped((uintptr_t)addr, (uintptr_t)addr + old_size))
        return false;
    *result_out = MAP_FAILED;
    if (!is_valid((uintptr_t)addr, old_size, new_size, flags, (uintptr_t)new_addr)) {
        errno = EINVAL;
        return true;
    }
    if (flags & MREMAP_FIXED) {
        *result_out = move(addr, old_size, new_size, flags, new_addr);
        return true;
    }
    if (new_size < old_size && sys_munmap((char *)addr + new_size, old_size - new_size))
        return true;
    if (new_size <= old_size || grow_in_place(addr, old_size, new_size))
        *result_out = addr;
    else if (flags & MREMAP_MAYMOVE)
        *result_out = move(addr, old_size, new_size, flags, NULL);
    else
        errno = ENOMEM;
    return true;
}
