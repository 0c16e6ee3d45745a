/* SPDX-License-Identifier: MIT */
/*
 * Sharing registered memory in place: ordinary pages of this process (malloc'ed, private) become
 * pages of the "mem" memfd that peers map, without the program noticing (docs/architecture.md,
 * "Memory that peers can reach").
 *
 *   address space            mem memfd (one per process, sparse)
 *   ..........               [0, SHARE_WORDS_SIZE)  words that peers write: heads of shared
 *                                                   rings, then bells of CQs (core/pub.h)
 *   | 1 GiB window | ------> window w at SHARE_WORDS_SIZE + w GiB, same offset inside
 *   ..........               a bit per page says: peers may use it
 *
 * A window is 1 GiB of our address space, aligned; it gets the next free GiB of the memfd the first
 * time a page of it is shared. So an address translates by one table look-up and an addition, and
 * pages that are neighbours here are neighbours there.
 *
 * The directory and the bitmaps lie in the arena (this process writes, peers read); they are
 * struct share_map below. A bit may be set only while a memory region covers the page.
 */
#ifndef VIADUCT_LINK_SHM_SHARE_H
#define VIADUCT_LINK_SHM_SHARE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/pub.h"

#define SHARE_PAGE 4096ull
#define SHARE_WINDOW_SHIFT 30
#define SHARE_WINDOW_SIZE (1ull << SHARE_WINDOW_SHIFT)
#define SHARE_DIRECTORY (1u << 17) /* 47-bit addresses / 1 GiB */
#define SHARE_WINDOWS_MAX 1024u    /* of one process */
#define SHARE_HEADS_SIZE (1ull << 20)
#define SHARE_BELLS_SIZE (sizeof(struct bell) * LIMIT_CQ)
#define SHARE_WORDS_SIZE (SHARE_HEADS_SIZE + SHARE_BELLS_SIZE)
#define SHARE_BITMAP_WORDS (SHARE_WINDOW_SIZE / SHARE_PAGE / 64)

/* In the arena. Written by the owner only, read by its peers without locks. */
struct share_map {
    /* window number + 1 of each GiB of the address space, 0: none. Set once, never changed. */
    _Atomic uint16_t directory[SHARE_DIRECTORY];
    /* a set bit (release) says: this page's content is the memfd's, at its place */
    _Atomic uint64_t shared[SHARE_WINDOWS_MAX][SHARE_BITMAP_WORDS]; /* sparse */
    /* nonzero: pages are on the move, and peers keep off those that are not shared */
    _Atomic uint32_t moving;
};

/* The bells of CQs, by handle, in the words of a process. */
static inline struct bell *share_bells(void *words)
{
    return (struct bell *)(void *)((char *)words + SHARE_HEADS_SIZE);
}

/* ---- owner's side ---- */

/*
 * Set up: `map` is zeroed arena memory that stays. Creates the mem memfd (close-on-exec) and maps
 * its words read-write. Returns 0 or negative errno. Call once per process.
 */
int share_init(struct share_map *map);
void share_close(void);       /* as before share_init(): opening the process failed */
int share_mem_fd(void);       /* to hand to peers */
void *share_words(void);      /* our mapping of the first SHARE_WORDS_SIZE bytes */
bool share_is_possible(void); /* the kernel lets this process exchange pages (asked once) */

/*
 * Make the pages that hold [addr, addr + len) shared, in pieces of 128 KiB; runs on the engine
 * thread (one caller at a time) while the program runs on. Other threads that write to a piece
 * wait for about 100 us; a system call that writes to it meanwhile fails with EFAULT. Pages never
 * touched cost nothing. Pages already ours are only marked again.
 *
 * Left as they are: file mappings, huge TLB, already MAP_SHARED elsewhere, not writable or also
 * executable, locked, MADV_WIPEONFORK, under another userfaultfd, stacks and control blocks of
 * threads, heads of the C library's arenas. None at all while the process has pinned pages.
 *
 * The caller guarantees that a live memory region covers the range for the duration, and that
 * nobody reaches it by process_vm_writev() meanwhile: pages that the kernel holds for such a copy
 * would be exchanged under it, and what it writes be lost. So: share_announce(true), wait until
 * nobody is at it who may have begun before (quiesce), share_range(), share_announce(false).
 * Returns the number of bytes now shared from the start of the range on, or negative errno if it
 * stopped before any were (0: they must stay as they are).
 */
int64_t share_range(uint64_t addr, uint64_t len);
void share_announce(bool moving);

/*
 * A memory region is about to cover the range. Registration caches (UCX's, libfabric's) deregister
 * late: the program may have unmapped what an older region covers and got the addresses again, for
 * memory that has nothing to do with the memfd. Bits of such pages are cleared. That costs a look
 * at the bits, and a look at the mappings where some are set. Any thread.
 */
void share_cover(uint64_t addr, uint64_t len);

/*
 * The range is no longer covered by any memory region: clear the bits of all pages that hold a
 * byte of it (microseconds; the memory itself stays as it is for the program). No copy. Where
 * another region covers such a page it is only slower until it is shared again. Any thread.
 */
void share_forget(uint64_t addr, uint64_t len);

/*
 * After share_forget(), once no peer is at these pages any more (quiesce), and before the region's
 * owner learns that it is gone: pages that realloc() could move are made private again. Usually
 * none, or one a region (30 us). Any thread.
 */
void share_settle(uint64_t addr, uint64_t len);

/* Whether there is anything to collect: pages that were exchanged and not yet given back. */
bool share_is_used(void);

/* Give back memfd pages whose address range the program has unmapped since. Rare; any thread. */
void share_collect(void);

/*
 * fork: the child must get copies, not the shared pages. Prepare/parent/child handlers for
 * pthread_atfork; the parent waits (bounded) until the child has copied. To be the first that is
 * registered, so that the child copies before anything else runs in it. In the child, sharing is
 * as before share_init(), and the mappings of views and words are not there.
 */
void share_fork_prepare(void);
void share_fork_parent(void);
void share_fork_child(void);

/*
 * madvise() by the program, any advice, any thread: MADV_DONTNEED / MADV_FREE / MADV_REMOVE on
 * exchanged pages must still read back zeroes, and an exchange keeps MADV_DONTFORK and
 * MADV_DONTDUMP. True if the advice was handled here (0 or negative errno in *result_out).
 */
bool share_madvise(void *addr, size_t len, int advice, int *result_out);

/*
 * mremap() by the program: exchanged pages can't move, because their address says where in the
 * memfd they are; so the range becomes private memory again, at its new place. True if it was
 * handled here (*result_out: the new address; on failure MAP_FAILED and errno). The C library's own
 * calls in realloc() never get here and need not (see share_settle()).
 */
bool share_mremap(void *addr, size_t old_len, size_t new_len, int flags, void *new_addr,
                  void **result_out);

/* ---- peer's side: a view of another process's shared memory ---- */
struct share_view {
    const struct share_map *map; /* in the owner's arena, mapped read-only: hostile until checked */
    int mem_fd;
    _Atomic(char *) windows[SHARE_WINDOWS_MAX]; /* our mappings, made on demand */
    char *words;                                /* the owner's claim words, read-write */
};

/*
 * The caller keeps mem_fd open while the view is, and closes it. Refused (-EPERM) if the owner
 * could cut the memfd short under us.
 */
int share_view_open(struct share_view *view, const struct share_map *map, int mem_fd);
void share_view_close(struct share_view *view);

/*
 * Has the owner pages on the move? Asked by a peer that is about to use process_vm_writev/readv,
 * after it has made known that it is at work (seq_cst); if so it waits some microseconds instead.
 */
static inline bool share_is_moving(const struct share_map *map)
{
    return atomic_load(&map->moving);
}

/* Slow path of share_translate(): maps the window. NULL if it can't be. May enter the kernel. */
char *share_view_window(struct share_view *view, unsigned window);

/* Are all pages of [addr, addr+len) shared? len > 0; the range must not cross a window. */
static inline bool share_bits_set(const _Atomic uint64_t *bits, uint64_t addr, uint64_t len)
{
    uint64_t first = (addr & (SHARE_WINDOW_SIZE - 1)) / SHARE_PAGE;
    uint64_t last = ((addr + len - 1) & (SHARE_WINDOW_SIZE - 1)) / SHARE_PAGE;

    for (uint64_t word = first / 64; word <= last / 64; word++) {
        uint64_t want = ~0ull;

        if (word == first / 64)
            want &= ~0ull << (first % 64);
        if (word == last / 64)
            want &= ~0ull >> (63 - last % 64);
        if ((atomic_load_explicit(&bits[word], memory_order_acquire) & want) != want)
            return false;
    }
    return true;
}

/*
 * Where [addr, addr + len) of the owner is mapped in this process, or NULL if any page of it is not
 * shared (or the range crosses a window: the caller splits). No system call once the window is
 * mapped. The pointer is good while the region is registered (the caller's op word says so).
 */
static inline char *share_translate(struct share_view *view, uint64_t addr, uint64_t len)
{
    uint64_t index = addr >> SHARE_WINDOW_SHIFT;

    if (index >= SHARE_DIRECTORY || (addr + len - 1) >> SHARE_WINDOW_SHIFT != index)
        return NULL;
    unsigned window = atomic_load_explicit(&view->map->directory[index], memory_order_acquire);
    if (window == 0 || window > SHARE_WINDOWS_MAX)
        return NULL;
    window--;
    if (!share_bits_set(view->map->shared[window], addr, len))
        return NULL;
    char *base = atomic_load_explicit(&view->windows[window], memory_order_acquire);
    if (!base)
        base = share_view_window(view, window);
    return base ? base + (addr & (SHARE_WINDOW_SIZE - 1)) : NULL;
}

#endif
