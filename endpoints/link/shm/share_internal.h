/* SPDX-License-Identifier: MIT */
/* What the parts of share.h share among themselves: the owner's state and the reader of maps. */
#ifndef VIADUCT_LINK_SHM_SHARE_INTERNAL_H
#define VIADUCT_LINK_SHM_SHARE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "link/shm/share.h"

/*
 * One exchange: while it lasts (100 us) other threads that write to these pages wait. Blocks are
 * aligned, and neighbours are mapped through different open files of the memfd, so the kernel never
 * merges them into one mapping: mremap() by an allocator can't take hold of a big range of ours.
 */
#define SHARE_BLOCK (128ull << 10)
/* Mappings are a limited good of the program (65530 by default): we take a quarter at most. */
#define SHARE_BLOCKS_MAX 16384u

enum { SHARE_RUNS_MAX = 64 };

/* Pages [start, end) of the address space. */
struct share_run {
    uint64_t start, end;
};

/* Descriptors that exist only while share_range() or share_collect() runs. */
struct share_tools {
    int uffd;
    int odd_fd;     /* the memfd opened again, for the odd blocks */
    int head_fd;    /* and again, for pages that must be mappings of their own */
    int pagemap_fd; /* which pages were ever touched */
    int maps_fd;
};

struct share_owner {
    pthread_mutex_t lock; /* windows, tools, exchanges; not the bits */
    struct share_map *map;
    char *words;
    int mem_fd;
    dev_t dev; /* the memfd, as /proc/self/maps names it */
    ino_t ino;
    unsigned windows;        /* handed out */
    unsigned blocks;         /* mappings made since they were counted: a bound on those there are */
    _Atomic uint64_t pages;  /* owned ones */
    _Atomic bool odd_advice; /* the program used madvise() flags that an exchange must keep */
    struct share_tools tools;
    /* A set bit says: the memfd may hold this page's content. Private, one row a window. */
    _Atomic uint64_t (*owned)[SHARE_BITMAP_WORDS];
    /* Of these, the ones that become private again when they are forgotten. */
    _Atomic uint64_t (*heads)[SHARE_BITMAP_WORDS];
    _Atomic uint64_t head_pages;
};

extern struct share_owner share_owner;

#define SHARE_NO_TOOLS                                                                             \
    {                                                                                              \
        -1, -1, -1, -1, -1                                                                         \
    }

/* ---- share.c ---- */

/* Window number of an address, or -1 if it has none (yet). */
static inline int share_window(uint64_t addr)
{
    uint64_t index = addr >> SHARE_WINDOW_SHIFT;

    if (index >= SHARE_DIRECTORY)
        return -1;
    return atomic_load_explicit(&share_owner.map->directory[index], memory_order_acquire) - 1;
}

/* Where in the memfd a page of this window lies. */
static inline uint64_t share_offset(int window, uint64_t addr)
{
    return SHARE_WORDS_SIZE + ((uint64_t)window << SHARE_WINDOW_SHIFT) +
           (addr & (SHARE_WINDOW_SIZE - 1));
}

static inline bool share_bit(const _Atomic uint64_t *bits, uint64_t addr)
{
    uint64_t page = (addr & (SHARE_WINDOW_SIZE - 1)) / SHARE_PAGE;

    return atomic_load_explicit(&bits[page / 64], memory_order_relaxed) >> page % 64 & 1;
}

/* Set or clear the bits of pages [start, end), which lie in one window. Returns how many changed.
 */
uint64_t share_bits_change(_Atomic uint64_t *bits, uint64_t start, uint64_t end, bool set);
/* End of the run of pages from addr on, up to end (in one window), whose bits equal addr's. */
uint64_t share_bits_run(const _Atomic uint64_t *bits, uint64_t addr, uint64_t end);
/* The memfd's content of [start, end), in one window, becomes zeroes without memory. */
int share_punch(int window, uint64_t start, uint64_t end);
/* Is the number still our memfd? A program may close descriptors that it does not know. */
bool share_memfd_is_ours(void);
/* As it is before share_init(). */
void share_reset(void);
void share_tools_close(const struct share_tools *tools);

/* ---- share_collect.c ---- */

/* Give back what the program has unmapped, and count our mappings anew. Lock held. */
void share_count_blocks(void);

/* ---- share_exchange.c ---- */

/* Opens a userfaultfd that can write-protect, for faults from user mode. Negative errno or fd. */
int share_uffd_open(void);
/*
 * Exchange the first piece of [start, end), private memory in one window, for the memfd's pages: a
 * block, or more where nothing was ever touched. Lock held, signals blocked, and the caller's stack
 * is not in the range. `advice`: MAPS_ bits to give to the new mapping.
 * Returns the end of the piece, or negative errno, and then all is as it was.
 */
int64_t share_exchange(const struct share_tools *tools, int window, uint64_t start, uint64_t end,
                       int advice);

/*
 * The way back, for one page that is mapped at its place: private memory with the same content.
 * Lock held, signals blocked. On failure it is as it was.
 */
int share_give_back(int window, uint64_t page, int advice);

/* ---- share_maps.c ---- */

struct maps_vma {
    uint64_t start, end;
    uint64_t offset; /* in the file */
    dev_t dev;
    ino_t ino; /* 0: anonymous */
    int prot;
    bool shared;
    bool plain; /* anonymous memory that may be exchanged by its kind (also heap, not stack) */
};

static inline bool share_is_ours(const struct maps_vma *vma)
{
    return vma->shared && vma->ino == share_owner.ino && vma->dev == share_owner.dev;
}

/* Is the page at addr mapped to its own place in the memfd? */
static inline bool share_is_placed(const struct maps_vma *vma, int window, uint64_t addr)
{
    return share_is_ours(vma) && window >= 0 &&
           vma->offset + (addr - vma->start) == share_offset(window, addr);
}

/* Reads mappings in ascending order; each addr asked for must not be below the one before. */
struct maps_reader {
    int fd;
    bool text;  /* the kernel has no query ioctl */
    bool valid; /* vma holds the last mapping read */
    struct maps_vma vma;
    size_t used, filled;
    char buf[4096];
};

void maps_start(struct maps_reader *reader, int fd);
/* The first mapping that ends above addr. False: none, or it can't be read. */
bool maps_find(struct maps_reader *reader, uint64_t addr, struct maps_vma *out);

enum { MAPS_DONTFORK = 1, MAPS_DONTDUMP = 2, MAPS_WIPEONFORK = 4 };
/* Advice that the mapping at addr carries, as MAPS_ bits. Slow. Negative errno if unknown. */
int maps_advice(uint64_t addr);

/*
 * Pages of [start, end) that hold something: present or swapped, and not the zero page where the
 * kernel tells. Returns the number of runs, -E2BIG if there are more than max, or negative errno.
 */
int maps_touched(int pagemap_fd, uint64_t start, uint64_t end, struct share_run *runs, int max);
/* The first such page; end if there is none. */
uint64_t maps_first_touched(int pagemap_fd, uint64_t start, uint64_t end);

/* KiB that a line of /proc/self/status such as "VmPin:" says; 0 if there is none. */
uint64_t maps_status(const char *key);

/*
 * The first pages of this mapping that end above addr and must stay private, because fork() itself
 * touches them in the child before our handler could: stacks and control blocks of threads, heads
 * of the C library's arenas. False: none.
 */
bool maps_kept(const struct maps_vma *vma, uint64_t addr, struct share_run *out);

#endif
