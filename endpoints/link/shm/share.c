/* SPDX-License-Identifier: MIT */
/* The owner's side: the memfd and its windows, which pages are shared, and when no longer. */
#define _GNU_SOURCE
#include "link/shm/share.h"

#include <errno.h>
#include <linux/falloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "core/sys.h"
#include "link/shm/share_internal.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

/* Bits "owned" and "head" of each page of each window; only what is used takes memory. */
#define BITS_SIZE (2 * SHARE_WINDOWS_MAX * SHARE_BITMAP_WORDS * sizeof(uint64_t))

struct share_owner share_owner = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .mem_fd = -1,
    .tools = SHARE_NO_TOOLS,
};

/* ---- bits ---- */

static uint64_t word_mask(uint64_t word, uint64_t first, uint64_t last)
{
    uint64_t mask = ~0ull;

    if (word == first / 64)
        mask &= ~0ull << (first % 64);
    if (word == last / 64)
        mask &= ~0ull >> (63 - last % 64);
    return mask;
}

uint64_t share_bits_change(_Atomic uint64_t *bits, uint64_t start, uint64_t end, bool set)
{
    uint64_t first = (start & (SHARE_WINDOW_SIZE - 1)) / SHARE_PAGE;
    uint64_t last = ((end - 1) & (SHARE_WINDOW_SIZE - 1)) / SHARE_PAGE;
    uint64_t changed = 0;

    for (uint64_t word = first / 64; word <= last / 64; word++) {
        uint64_t mask = word_mask(word, first, last);
        uint64_t is = atomic_load_explicit(&bits[word], memory_order_relaxed);

        if ((is & mask) == (set ? mask : 0))
            continue; /* most words of a big region that was never shared */
        is = set ? atomic_fetch_or_explicit(&bits[word], mask, memory_order_release)
                 : atomic_fetch_and_explicit(&bits[word], ~mask, memory_order_seq_cst);
        changed += (uint64_t)__builtin_popcountll((set ? ~is : is) & mask);
    }
    return changed;
}

uint64_t share_bits_run(const _Atomic uint64_t *bits, uint64_t addr, uint64_t end)
{
    uint64_t flip = share_bit(bits, addr) ? 0 : ~0ull;

    while (addr < end) {
        uint64_t page = (addr & (SHARE_WINDOW_SIZE - 1)) / SHARE_PAGE;
        uint64_t word = atomic_load_explicit(&bits[page / 64], memory_order_relaxed) ^ flip;
        uint64_t other = ~word >> page % 64; /* a bit for each page that differs */

        if (other) {
            addr += (unsigned)__builtin_ctzll(other) * SHARE_PAGE;
            return addr < end ? addr : end;
        }
        addr += (64 - page % 64) * SHARE_PAGE;
    }
    return end;
}

int share_punch(int window, uint64_t start, uint64_t end)
{
    int error = sys_fallocate(share_owner.mem_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              (off_t)share_offset(window, start), (off_t)(end - start));

    return error ? -errno : 0;
}

/* ---- set-up ---- */

static int memfd_open(void)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int fd = (int)syscall(SYS_memfd_create, "viaduct-mem", flags | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL)
        fd = (int)syscall(SYS_memfd_create, "viaduct-mem", flags);
    if (fd < 0)
        return -errno;
    /* Peers map it: it must never shrink under them. */
    if (ftruncate(fd, SHARE_WORDS_SIZE) || syscall(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_SHRINK)) {
        int error = -errno;

        sys_close(fd);
        return error;
    }
    return fd;
}

static int map_parts(int fd)
{
    char *words = sys_mmap(NULL, SHARE_WORDS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED)
        return -errno;
    void *bits = sys_mmap(NULL, BITS_SIZE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bits == MAP_FAILED) {
        int error = -errno;

        sys_munmap(words, SHARE_WORDS_SIZE);
        return error;
    }
    sys_madvise(words, SHARE_WORDS_SIZE, MADV_DONTFORK);
    share_owner.words = words;
    share_owner.owned = bits;
    share_owner.heads = share_owner.owned + SHARE_WINDOWS_MAX;
    return 0;
}

int share_init(struct share_map *map)
{
    struct stat st;
    int error = 0;

    if (share_owner.map)
        return -EBUSY;
    int fd = memfd_open();
    if (fd < 0)
        return fd;
    if (sys_fstat(fd, &st))
        error = -errno;
    if (!error)
        error = map_parts(fd);
    if (error) {
        sys_close(fd);
        return error;
    }
    share_owner.mem_fd = own_fd(fd);
    share_owner.dev = st.st_dev;
    share_owner.ino = st.st_ino;
    share_owner.map = map;
    return 0;
}

/* In the child of a fork: the memory is the parent's, and so is what the peers see. */
void share_reset(void)
{
    if (share_owner.map) {
        sys_close(share_owner.mem_fd);
        sys_munmap(share_owner.owned, BITS_SIZE);
    }
    /* Field by field: a mutex and atomics are not assigned as a whole. */
    pthread_mutex_init(&share_owner.lock, NULL);
    share_owner.map = NULL;
    share_owner.words = NULL;
    share_owner.owned = share_owner.heads = NULL;
    share_owner.mem_fd = -1;
    share_owner.windows = share_owner.blocks = 0;
    share_owner.tools = (struct share_tools)SHARE_NO_TOOLS;
    atomic_store(&share_owner.pages, 0);
    atomic_store(&share_owner.head_pages, 0);
    atomic_store(&share_owner.odd_advice, false);
}

void share_close(void)
{
    if (share_owner.words)
        sys_munmap(share_owner.words, SHARE_WORDS_SIZE);
    share_reset();
}

int share_mem_fd(void)
{
    return share_owner.mem_fd;
}

void *share_words(void)
{
    return share_owner.words;
}

bool share_is_possible(void)
{
    static _Atomic int known = -1;
    int is = atomic_load_explicit(&known, memory_order_relaxed);

    if (is >= 0)
        return is;
    int uffd = share_uffd_open();
    int pagemap = sys_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
    is = uffd >= 0 && pagemap >= 0;
    if (uffd >= 0)
        sys_close(uffd);
    if (pagemap >= 0)
        sys_close(pagemap);
    atomic_store_explicit(&known, is, memory_order_relaxed);
    return is;
}

/* ---- sharing a range ---- */

/* The way of one share_range() through the mappings. */
struct walk {
    uint64_t pos, end;
    uint64_t reached; /* all is shared up to here */
    struct maps_reader reader;
    struct maps_vma vma; /* the one that the rest is about */
    bool may_exchange;
    int advice;
    struct share_run kept; /* its next pages that must stay private */
};

void share_tools_close(const struct share_tools *tools)
{
    const int fds[] = {tools->uffd, tools->odd_fd, tools->head_fd, tools->pagemap_fd,
                       tools->maps_fd};

    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            sys_close(fds[i]);
}

static void tools_close(void)
{
    struct share_tools tools;

    pthread_mutex_lock(&share_owner.lock);
    tools = share_owner.tools;
    share_owner.tools = (struct share_tools)SHARE_NO_TOOLS;
    pthread_mutex_unlock(&share_owner.lock);
    share_tools_close(&tools);
}

bool share_memfd_is_ours(void)
{
    struct stat st;

    return sys_fstat(share_owner.mem_fd, &st) == 0 && st.st_dev == share_owner.dev &&
           st.st_ino == share_owner.ino;
}

/* For the life of one call only: fewer descriptors in the program's way. */
static int tools_open(void)
{
    struct share_tools *tools = &share_owner.tools;
    char path[32];
    int error = 0;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", share_owner.mem_fd);
    pthread_mutex_lock(&share_owner.lock);
    if (!share_memfd_is_ours())
        error = -EBADF;
    tools->maps_fd = sys_open("/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
    if (tools->maps_fd < 0)
        error = -errno;
    if (!error) {
        tools->odd_fd = sys_open(path, O_RDWR | O_CLOEXEC, 0);
        tools->head_fd = sys_open(path, O_RDWR | O_CLOEXEC, 0);
        tools->pagemap_fd = sys_open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC, 0);
        if (tools->odd_fd < 0 || tools->head_fd < 0 || tools->pagemap_fd < 0)
            error = -errno;
        tools->uffd = share_uffd_open();
        if (tools->uffd < 0)
            error = tools->uffd;
    }
    pthread_mutex_unlock(&share_owner.lock);
    if (error)
        tools_close();
    return error;
}

/* A window for this address: the next GiB of the memfd, which grows by it. */
static int window_take(uint64_t addr)
{
    int window = share_window(addr);
    uint64_t count = window >= 0 ? (unsigned)window + 1u : share_owner.windows + 1u;
    uint64_t size = SHARE_WORDS_SIZE + (count << SHARE_WINDOW_SHIFT);
    struct rlimit limit;

    /* Beyond the limit on file sizes the kernel would kill the program (SIGXFSZ). */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < size)
        return -EFBIG;
    if (window >= 0)
        return window;
    if (share_owner.windows == SHARE_WINDOWS_MAX)
        return -ENOSPC;
    if (ftruncate(share_owner.mem_fd, (off_t)size))
        return -errno;
    window = (int)share_owner.windows++;
    atomic_store_explicit(&share_owner.map->directory[addr >> SHARE_WINDOW_SHIFT],
                          (uint16_t)(window + 1), memory_order_release);
    return window;
}

/* May this mapping be exchanged at all? Once for each that the walk meets. */
static void check_vma(struct walk *walk, const struct maps_vma *vma)
{
    if (vma->start == walk->vma.start && vma->end == walk->vma.end)
        return;
    walk->vma = *vma;
    walk->may_exchange = vma->plain;
    walk->advice = 0;
    walk->kept = (struct share_run){0, 0};
    /* Locked memory stays locked; this is the one call that says so for a range. */
    if (vma->plain &&
        syscall(SYS_msync, vma->start, vma->end - vma->start, MS_ASYNC | MS_INVALIDATE) &&
        errno == EBUSY)
        walk->may_exchange = false;
    if (walk->may_exchange && atomic_load(&share_owner.odd_advice)) {
        walk->advice = maps_advice(vma->start);
        if (walk->advice < 0 || walk->advice & MAPS_WIPEONFORK)
            walk->may_exchange = false;
    }
}

/* Leave most of the mappings that a process may have to the program. */
static int blocks_check(void)
{
    if (share_owner.blocks >= SHARE_BLOCKS_MAX)
        share_count_blocks();
    return share_owner.blocks >= SHARE_BLOCKS_MAX ? -ENOSPC : 0;
}

/* Exchange a piece at the walk's position, or step over what must stay. */
static int step_exchange(struct walk *walk, uint64_t end)
{
    if (walk->kept.end <= walk->pos && !maps_kept(&walk->vma, walk->pos, &walk->kept))
        walk->kept = (struct share_run){walk->vma.end, walk->vma.end + 1};
    if (walk->kept.start <= walk->pos) {
        walk->pos = walk->kept.end < end ? walk->kept.end : end;
        return 0;
    }
    if (walk->kept.start < end)
        end = walk->kept.start;
    int window = window_take(walk->pos);
    int64_t done = window < 0 ? window : blocks_check();
    if (done == 0)
        done = share_exchange(&share_owner.tools, window, walk->pos, end, walk->advice);
    if (done == -EINVAL || done == -EBUSY || done == -EFAULT) {
        /* Not for a userfaultfd (or another one has it), or not readable: leave this block. */
        uint64_t next = (walk->pos | (SHARE_BLOCK - 1)) + 1;

        walk->pos = next < end ? next : end;
        return 0;
    }
    if (done < 0)
        return (int)done;
    share_bits_change(share_owner.map->shared[window], walk->pos, (uint64_t)done, true);
    if (walk->reached == walk->pos)
        walk->reached = (uint64_t)done;
    walk->pos = (uint64_t)done;
    return 0;
}

static int step(struct walk *walk)
{
    uint64_t end = (walk->pos | (SHARE_WINDOW_SIZE - 1)) + 1;
    int window = share_window(walk->pos);
    struct maps_vma vma;

    if (end > walk->end)
        end = walk->end;
    if (!maps_find(&walk->reader, walk->pos, &vma) || vma.start >= end) {
        walk->pos = end;
        return 0;
    }
    if (vma.start > walk->pos)
        walk->pos = vma.start;
    if (vma.end < end)
        end = vma.end;
    if (share_is_placed(&vma, window, walk->pos) && vma.prot == (PROT_READ | PROT_WRITE)) {
        share_bits_change(share_owner.map->shared[window], walk->pos, end, true);
        if (walk->reached == walk->pos)
            walk->reached = end;
    } else {
        check_vma(walk, &vma);
        if (walk->may_exchange)
            return step_exchange(walk, end);
    }
    walk->pos = end;
    return 0;
}

/* A signal's handler must not run between an exchange's steps: it would wait for itself. */
static int walk_all(struct walk *walk)
{
    sigset_t all, before;
    int error = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (!error && walk->pos < walk->end) {
        pthread_mutex_lock(&share_owner.lock); /* a fork may come in between */
        error = step(walk);
        pthread_mutex_unlock(&share_owner.lock);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

int64_t share_range(uint64_t addr, uint64_t len)
{
    uint64_t last = addr + len - 1;
    struct walk walk = {.pos = addr & ~(SHARE_PAGE - 1), .end = (last | (SHARE_PAGE - 1)) + 1};

    if (!share_owner.map)
        return -ENODEV;
    if (len == 0 || last < addr || last >> SHARE_WINDOW_SHIFT >= SHARE_DIRECTORY)
        return -EINVAL;
    /* Pinned pages are in use by other devices (or io_uring), which would keep the old ones. */
    if (maps_status("VmPin:"))
        return -EBUSY;
    int error = tools_open();
    if (error)
        return error;
    walk.reached = walk.pos;
    maps_start(&walk.reader, share_owner.tools.maps_fd);
    error = walk_all(&walk);
    tools_close();
    if (walk.reached > addr)
        return (int64_t)((walk.reached <= last ? walk.reached : last + 1) - addr);
    return error;
}

void share_forget(uint64_t addr, uint64_t len)
{
    uint64_t end = addr + len;

    if (len == 0 || end < addr || !share_owner.map || atomic_load(&share_owner.pages) == 0)
        return;
    while (addr < end) {
        uint64_t stop = (addr | (SHARE_WINDOW_SIZE - 1)) + 1;
        int window = share_window(addr);

        if (stop > end || stop == 0)
            stop = end;
        if (window >= 0)
            share_bits_change(share_owner.map->shared[window], addr, stop, false);
        addr = stop;
    }
}

void share_announce(bool moving)
{
    if (share_owner.map)
        atomic_store(&share_owner.map->moving, moving);
}
