/* SPDX-License-Identifier: MIT */
/*
 * For the tests of shared memory: an owner and a peer in one process. The peer is a view, which
 * maps the same memfd a second time.
 */
#ifndef VIADUCT_TESTS_SHARE_RIG_H
#define VIADUCT_TESTS_SHARE_RIG_H

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "link/shm/share.h"
#include "t.h"

#define PAGE SHARE_PAGE
#define MIB (1ull << 20)

static struct share_map *map;
static struct share_view view;

static inline void setup(void)
{
    if (!share_is_possible())
        T_SKIP("the kernel does not allow userfaultfd here");
    if (map)
        return;
    map = mmap(NULL, sizeof(*map), PROT_READ | PROT_WRITE,
               MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    T_ASSERT(map != MAP_FAILED);
    T_EQ(share_init(map), 0);
    T_EQ(share_view_open(&view, map, share_mem_fd()), 0);
    T_EQ(pthread_atfork(share_fork_prepare, share_fork_parent, share_fork_child), 0);
}

static inline uint64_t address(const void *at)
{
    return (uintptr_t)at;
}

static inline int64_t share(const void *at, uint64_t len)
{
    return share_range(address(at), len);
}

static inline char *peer(const void *at, uint64_t len)
{
    return share_translate(&view, address(at), len);
}

static inline char *pages(uint64_t len)
{
    void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    T_ASSERT(at != MAP_FAILED);
    return at;
}

/* The region is deregistered. */
static inline void forget(const void *at, uint64_t len)
{
    share_forget(address(at), len);
    share_settle(address(at), len);
}

/* The region is deregistered and the memory unmapped. */
static inline void drop(char *at, uint64_t len)
{
    forget(at, len);
    munmap(at, len);
}

/* Memory that the memfd takes up. */
static inline uint64_t mem_bytes(void)
{
    struct stat st;

    T_EQ(fstat(share_mem_fd(), &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

#endif
