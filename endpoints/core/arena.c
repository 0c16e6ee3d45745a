/* SPDX-License-Identifier: MIT */
/* The arena's memfd and its heap: free lists by power of two, fresh memory from the end. */
#define _GNU_SOURCE
#include "core/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/sys.h"
#include "link/shm/share.h"

_Static_assert(sizeof(struct share_map) <= (64ull << 20), "the share map's place in the arena");

enum {
    ORDER_MIN = 6,    /* a cache line */
    ORDER_PAGE = 12,  /* smaller pieces are cut from pages */
    ORDER_PUNCH = 16, /* from here on freed memory is given back to the kernel at once */
    ORDER_MAX = 33,
};

/* The free lists live in private memory: peers could read, and nobody may write, the arena. */
struct free_list {
    uint64_t *offsets;
    size_t count, room;
};

char *arena_base;
uint64_t arena_size;
static int memfd = -1, read_fd = -1;
static uint64_t fresh; /* heap beyond this was never used */
static struct free_list free_lists[ORDER_MAX + 1];

int arena_fd(void)
{
    return read_fd;
}

/* What a limit leaves us: peers' arenas and the program need address space, too. */
static uint64_t fitting_size(void)
{
    struct rlimit space, file;
    uint64_t size = PUB_ARENA_MAX;

    if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY) {
        while (size > PUB_ARENA_MIN && size > space.rlim_cur / 16)
            size /= 2;
    }
    /* Beyond this one the kernel would kill the program (SIGXFSZ). */
    while (getrlimit(RLIMIT_FSIZE, &file) == 0 && size > file.rlim_cur)
        size /= 2;
    return size;
}

static int map_arena(int fd)
{
    void *base = MAP_FAILED;
    uint64_t size = 2 * fitting_size();

    if (size < 2 * PUB_ARENA_MIN)
        return -EFBIG;
    while (base == MAP_FAILED && (size /= 2) >= PUB_ARENA_MIN) {
        if (ftruncate(fd, (off_t)size))
            return -errno;
        base = sys_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    }
    if (base == MAP_FAILED)
        return -ENOMEM;
    sys_madvise(base, size, MADV_DONTDUMP);
    sys_madvise(base, size, MADV_DONTFORK);
    arena_base = base;
    arena_size = size;
    fresh = PUB_HEAP_OFFSET;
    return 0;
}

/* Peers map it: it must never shrink under them. And they get no descriptor that could write. */
static int seal(int fd)
{
    char path[32];

    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))
        return -errno;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    read_fd = own_fd(sys_open(path, O_RDONLY | O_CLOEXEC, 0));
    return read_fd < 0 ? -errno : 0;
}

int arena_open(void)
{
    memfd = own_fd(memfd_create("viaduct-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (memfd < 0)
        return -errno;
    int error = map_arena(memfd);
    if (!error)
        error = seal(memfd);
    if (error)
        arena_close();
    return error;
}

static void forget(void)
{
    if (memfd >= 0)
        sys_close(memfd);
    if (read_fd >= 0)
        sys_close(read_fd);
    memfd = read_fd = -1;
    arena_base = NULL;
    for (unsigned order = 0; order <= ORDER_MAX; order++)
        free_lists[order].count = 0;
}

void arena_close(void)
{
    if (arena_base)
        sys_munmap(arena_base, arena_size);
    forget();
}

void arena_after_fork(void)
{
    if (arena_base)
        sys_mmap(arena_base, arena_size, PROT_READ,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    forget();
}

static unsigned order_of(size_t size)
{
    unsigned order = ORDER_MIN;

    while (((size_t)1 << order) < size)
        order++;
    return order;
}

static bool free_list_push(struct free_list *list, uint64_t offset)
{
    if (list->count == list->room) {
        size_t room = list->room ? 2 * list->room : 64;
        uint64_t *offsets = realloc(list->offsets, room * sizeof(*offsets));

        if (!offsets)
            return false;
        list->offsets = offsets;
        list->room = room;
    }
    list->offsets[list->count++] = offset;
    return true;
}

/* Cut a fresh page into pieces of the order; all but the first go to the free list. */
static uint64_t cut_page(unsigned order)
{
    uint64_t page = fresh;

    fresh += 1ull << ORDER_PAGE;
    for (uint64_t at = page + (1ull << order); at < fresh; at += 1ull << order)
        free_list_push(&free_lists[order], at);
    return page;
}

static uint64_t take_fresh(unsigned order)
{
    uint64_t size = 1ull << (order < ORDER_PAGE ? ORDER_PAGE : order);

    if (size > arena_size - fresh)
        return 0;
    if (order < ORDER_PAGE)
        return cut_page(order);
    fresh += size;
    return fresh - size;
}

void *arena_alloc(size_t size)
{
    unsigned order = order_of(size);

    if (order > ORDER_MAX)
        return NULL;
    struct free_list *list = &free_lists[order];
    uint64_t offset = list->count ? list->offsets[--list->count] : take_fresh(order);
    return offset ? arena_base + offset : NULL;
}

void arena_free(void *memory, size_t size)
{
    if (!memory)
        return;
    unsigned order = order_of(size);
    uint64_t offset = arena_offset(memory);

    if (order < ORDER_PUNCH || fallocate(memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                         (off_t)offset, (off_t)(1ull << order)))
        memset(memory, 0, (size_t)1 << order);
    free_list_push(&free_lists[order], offset);
}
