/* SPDX-License-Identifier: MIT */
/*
 * The exchange of private pages for pages of the memfd, under a running program:
 *
 *   write-protect by userfaultfd   writers wait in the fault; readers go on
 *   write the pages to the memfd   by the kernel, so running out of memory is an error, no signal
 *   mmap() the memfd over them     at once for everyone: old page or new one, both the same
 *   wake the writers               they fault again and write to the new page
 *
 * Between the first and the last step ("the window") nothing outside this thread's stack may be
 * written here, not even by the C library: the page could be one that we protected ourselves.
 * Pages never touched are registered as missing, so that they can't appear meanwhile either.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#include "core/sys.h"
#include "link/shm/share_internal.h"

/* What one exchange works on; lies on its stack. */
struct exchange {
    int uffd, mem_fd, map_fd, head_fd, pagemap_fd;
    uint64_t start, end, offset; /* offset: in the memfd */
    int run_count;
    struct share_run runs[SHARE_RUNS_MAX];
};

int share_uffd_open(void)
{
    /* The second one (Linux 5.19) is for the way back. */
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    };
    int fd = (int)syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return -errno;
    if (sys_ioctl(fd, UFFDIO_API, &api)) {
        int error = -errno;

        sys_close(fd);
        return error;
    }
    return fd;
}

static int protect(const struct exchange *ex, bool on)
{
    struct uffdio_writeprotect arg = {
        .range = {ex->start, ex->end - ex->start},
        .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
    };

    return sys_ioctl(ex->uffd, UFFDIO_WRITEPROTECT, &arg) ? -errno : 0;
}

static void wake(const struct exchange *ex)
{
    struct uffdio_range range = {ex->start, ex->end - ex->start};

    sys_ioctl(ex->uffd, UFFDIO_WAKE, &range);
}

static void unregister(const struct exchange *ex)
{
    struct uffdio_range range = {ex->start, ex->end - ex->start};

    sys_ioctl(ex->uffd, UFFDIO_UNREGISTER, &range);
}

/* Write every touched page of the range to its place in the memfd. */
static int copy(struct exchange *ex)
{
    uint64_t bytes = 0;

    ex->run_count = maps_touched(ex->pagemap_fd, ex->start, ex->end, ex->runs, SHARE_RUNS_MAX);
    if (ex->run_count < 0)
        return ex->run_count == -E2BIG ? -EAGAIN : ex->run_count;
    for (int i = 0; i < ex->run_count; i++)
        bytes += ex->runs[i].end - ex->runs[i].start;
    if (bytes > SHARE_BLOCK)
        return -EAGAIN; /* was thought untouched: in small pieces, then */
    for (int i = 0; i < ex->run_count; i++) {
        uint64_t at = ex->runs[i].start;

        while (at < ex->runs[i].end) {
            ssize_t put = sys_pwrite(ex->mem_fd, (const void *)(uintptr_t)at, ex->runs[i].end - at,
                                     (off_t)(ex->offset + at - ex->start));
            if (put <= 0)
                return put < 0 ? -errno : -ENOSPC;
            at += (uint64_t)put;
        }
    }
    return 0;
}

static int map_memfd(const struct exchange *ex)
{
    void *at = sys_mmap((void *)(uintptr_t)ex->start, ex->end - ex->start, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_FIXED, ex->map_fd, (off_t)ex->offset);

    return at == MAP_FAILED ? -errno : 0;
}

/*
 * The mmap() failed. The kernel checks all it can before it unmaps, so the old pages are still
 * there; should they not be (it ran out of memory for the mapping itself), the only copy is the
 * memfd's, and the program must get it back at any rate: shared if that works now, else private.
 */
static int map_again(const struct exchange *ex, int error)
{
    void *start = (void *)(uintptr_t)ex->start;
    size_t len = ex->end - ex->start;

    if (syscall(SYS_msync, start, len, MS_ASYNC) == 0 || errno != ENOMEM)
        return error;
    if (map_memfd(ex) == 0)
        return 0;
    if (sys_mmap(start, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                 0) == MAP_FAILED)
        return error;
    for (int i = 0; i < ex->run_count; i++) {
        uint64_t at = ex->runs[i].start;

        while (at < ex->runs[i].end) {
            ssize_t got = sys_pread(ex->mem_fd, (void *)(uintptr_t)at, ex->runs[i].end - at,
                                    (off_t)(ex->offset + at - ex->start));
            if (got <= 0)
                break;
            at += (uint64_t)got;
        }
    }
    return error;
}

/* The window. Whatever fails, the program has its data at its place and nobody waits any more. */
static int exchange(struct exchange *ex)
{
    struct uffdio_register arg = {
        .range = {ex->start, ex->end - ex->start},
        .mode = UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING,
    };

    if (sys_ioctl(ex->uffd, UFFDIO_REGISTER, &arg))
        return -errno;
    int error = protect(ex, true);
    if (!error)
        error = copy(ex);
    if (!error) {
        error = map_memfd(ex);
        if (error)
            error = map_again(ex, error);
    }
    if (error) {
        protect(ex, false);
        unregister(ex);
    }
    wake(ex);
    return error;
}

/*
 * The C library moves and grows big blocks by mremap(), in realloc(). On a mapping of ours that
 * would drag other addresses' pages of the memfd along. It refuses a range of several mappings,
 * though, and then realloc() copies. Such a block begins at a page with this head: size, a multiple
 * of pages, and the flag for "mapped". That page becomes a mapping of its own; and since a block
 * can be cut down to that page, it is private again when no region covers it (share_settle()).
 */
__attribute__((noinline, no_sanitize("thread"), no_sanitize("address"))) static bool
is_block_head(uint64_t page)
{
    const volatile uint64_t *word = (const volatile uint64_t *)(uintptr_t)page;

    return word[0] == 0 && (word[1] & (SHARE_PAGE - 1)) == 2 && word[1] >> 47 == 0;
}

/* Up to the first head that comes after start, or only start's page if that is one. */
static uint64_t cut_at_heads(struct exchange *ex, uint64_t end)
{
    int count = maps_touched(ex->pagemap_fd, ex->start, end, ex->runs, SHARE_RUNS_MAX);

    for (int i = 0; i < count; i++)
        for (uint64_t page = ex->runs[i].start; page < ex->runs[i].end; page += SHARE_PAGE)
            if (is_block_head(page)) {
                if (page > ex->start)
                    return page;
                ex->map_fd = ex->head_fd;
                return page + SHARE_PAGE;
            }
    return end;
}

/*
 * How far one exchange may go: at most to the end of the block, or, where it was never touched, of
 * all whole blocks that were not.
 */
static void find_end(struct exchange *ex, uint64_t end)
{
    uint64_t block_end = (ex->start | (SHARE_BLOCK - 1)) + 1;
    uint64_t touched = maps_first_touched(ex->pagemap_fd, ex->start, end);

    if (touched >= end)
        ex->end = end;
    else if (touched >= block_end)
        ex->end = touched & ~(SHARE_BLOCK - 1);
    else
        ex->end = cut_at_heads(ex, block_end < end ? block_end : end);
}

/* Spare the program the page faults: 1.4 us each, against 0.3 when we take them in one go. */
static void populate(const struct exchange *ex)
{
    for (int i = 0; i < ex->run_count; i++)
        sys_madvise((void *)(uintptr_t)ex->runs[i].start, ex->runs[i].end - ex->runs[i].start,
                    MADV_POPULATE_WRITE);
}

static void advise(const struct exchange *ex, int advice)
{
    void *start = (void *)(uintptr_t)ex->start;

    if (advice < 0)
        return;
    if (advice & MAPS_DONTFORK)
        sys_madvise(start, ex->end - ex->start, MADV_DONTFORK);
    if (advice & MAPS_DONTDUMP)
        sys_madvise(start, ex->end - ex->start, MADV_DONTDUMP);
}

int64_t share_exchange(const struct share_tools *tools, int window, uint64_t start, uint64_t end,
                       int advice)
{
    struct exchange ex = {
        .uffd = tools->uffd,
        .mem_fd = share_owner.mem_fd,
        .map_fd = start & SHARE_BLOCK ? tools->odd_fd : share_owner.mem_fd,
        .head_fd = tools->head_fd,
        .pagemap_fd = tools->pagemap_fd,
        .start = start,
        .offset = share_offset(window, start),
    };
    _Atomic uint64_t *owned = share_owner.owned[window];

    find_end(&ex, end);
    /* What the memfd holds of an earlier life of these addresses must not show in the holes. */
    if (share_bit(owned, start) || share_bits_run(owned, start, ex.end) < ex.end) {
        int error = share_punch(window, start, ex.end);

        if (error)
            return error;
    }
    int error = exchange(&ex);
    if (error == -EAGAIN && ex.end > (start | (SHARE_BLOCK - 1)) + 1) {
        ex.end = (start | (SHARE_BLOCK - 1)) + 1;
        error = exchange(&ex);
    }
    if (error) {
        share_punch(window, start, ex.end);
        return error;
    }
    atomic_fetch_add(&share_owner.pages, share_bits_change(owned, start, ex.end, true));
    bool head = ex.map_fd == ex.head_fd;
    uint64_t changed = share_bits_change(share_owner.heads[window], start, ex.end, head);
    atomic_fetch_add(&share_owner.head_pages, head ? changed : -changed);
    share_owner.blocks++;
    advise(&ex, advice);
    populate(&ex);
    return (int64_t)ex.end;
}

/* Its window: protect, read into a private page, move that over the shared one. */
static int give_back(struct exchange *ex, void *copy)
{
    struct uffdio_register arg = {
        .range = {ex->start, SHARE_PAGE},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };

    if (sys_ioctl(ex->uffd, UFFDIO_REGISTER, &arg))
        return -errno;
    int error = protect(ex, true);
    if (!error && sys_pread(ex->mem_fd, copy, SHARE_PAGE, (off_t)ex->offset) != SHARE_PAGE)
        error = -EIO;
    if (!error && sys_mremap(copy, SHARE_PAGE, SHARE_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                             (void *)(uintptr_t)ex->start) == MAP_FAILED)
        error = -errno;
    if (error) {
        protect(ex, false);
        unregister(ex);
    }
    wake(ex);
    return error;
}

int share_give_back(int window, uint64_t page, int advice)
{
    struct exchange ex = {
        .uffd = share_uffd_open(),
        .mem_fd = share_owner.mem_fd,
        .start = page,
        .end = page + SHARE_PAGE,
        .offset = share_offset(window, page),
    };

    if (ex.uffd < 0)
        return ex.uffd;
    void *copy = sys_mmap(NULL, SHARE_PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    int error = copy == MAP_FAILED ? -errno : give_back(&ex, copy);
    sys_close(ex.uffd);
    if (!error)
        advise(&ex, advice);
    else if (copy != MAP_FAILED)
        sys_munmap(copy, SHARE_PAGE);
    return error;
}
