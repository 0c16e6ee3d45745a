/* SPDX-License-Identifier: MIT */
/* A peer's side of shared memory: mappings of another process's windows, made when first needed. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "core/sys.h"
#include "link/shm/share.h"

/* The owner is not trusted: a mapping past the end of the memfd would raise SIGBUS in us. */
static bool reaches(int mem_fd, uint64_t size)
{
    struct stat st;

    return sys_fstat(mem_fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size >= size;
}

/* Not for our children (their parent's peer is not theirs), nor for our core dumps. */
static char *map_part(int mem_fd, uint64_t at, uint64_t len)
{
    char *part = sys_mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, mem_fd, (off_t)at);

    if (part == MAP_FAILED)
        return NULL;
    sys_madvise(part, len, MADV_DONTFORK);
    sys_madvise(part, len, MADV_DONTDUMP);
    return part;
}

int share_view_open(struct share_view *view, const struct share_map *map, int mem_fd)
{
    long seals = syscall(SYS_fcntl, mem_fd, F_GET_SEALS);

    if (seals < 0)
        return -errno;
    if (!(seals & F_SEAL_SHRINK) || !reaches(mem_fd, SHARE_WORDS_SIZE))
        return -EPERM;
    memset(view, 0, sizeof(*view));
    view->map = map;
    view->mem_fd = mem_fd;
    view->words = map_part(mem_fd, 0, SHARE_WORDS_SIZE);
    return view->words ? 0 : -ENOMEM;
}

void share_view_close(struct share_view *view)
{
    for (unsigned i = 0; i < SHARE_WINDOWS_MAX; i++) {
        char *base = atomic_exchange(&view->windows[i], NULL);

        if (base)
            sys_munmap(base, SHARE_WINDOW_SIZE);
    }
    if (view->words)
        sys_munmap(view->words, SHARE_WORDS_SIZE);
    view->words = NULL;
}

char *share_view_window(struct share_view *view, unsigned window)
{
    uint64_t at = SHARE_WORDS_SIZE + ((uint64_t)window << SHARE_WINDOW_SHIFT);
    char *mapped = NULL;

    if (window >= SHARE_WINDOWS_MAX || !reaches(view->mem_fd, at + SHARE_WINDOW_SIZE))
        return NULL;
    char *base = map_part(view->mem_fd, at, SHARE_WINDOW_SIZE);
    if (!base)
        return NULL;
    if (atomic_compare_exchange_strong(&view->windows[window], &mapped, base))
        return base;
    sys_munmap(base, SHARE_WINDOW_SIZE); /* another thread was faster */
    return mapped;
}
