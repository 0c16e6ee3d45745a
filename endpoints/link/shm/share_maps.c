/* SPDX-License-Identifier: MIT */
/*
 * What the kernel says about this process's address space: its mappings, which pages were ever
 * touched, and which pages must not be exchanged. No allocation: the reader may hold up the heap.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#include "core/sys.h"
#include "link/shm/share_internal.h"

/* Newer than the headers of the systems we build on; the layout is the kernel's interface. */
struct query_vma { /* PROCMAP_QUERY, Linux 6.11 */
    uint64_t size, flags, addr;
    uint64_t vma_start, vma_end, vma_flags, page_size, vma_offset, inode;
    uint32_t dev_major, dev_minor;
    uint32_t name_size, build_id_size;
    uint64_t name_addr, build_id_addr;
};

struct scan_pages { /* PAGEMAP_SCAN, Linux 6.7 */
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

struct scan_region {
    uint64_t start, end, categories;
};

#define QUERY_VMA _IOWR('f', 17, struct query_vma)
#define SCAN_PAGES _IOWR('f', 16, struct scan_pages)

enum {
    QUERY_READABLE = 1,
    QUERY_WRITABLE = 2,
    QUERY_EXECUTABLE = 4,
    QUERY_SHARED = 8,
    QUERY_OR_NEXT = 16,
    SCAN_PRESENT = 1 << 3,
    SCAN_SWAPPED = 1 << 4,
    SCAN_ZERO = 1 << 5,
};

#define PAGEMAP_PRESENT (1ull << 63)
#define PAGEMAP_SWAPPED (1ull << 62)
#define ARENA_ALIGN (64ull << 20) /* of the C library's heaps beside the main one */

void maps_start(struct maps_reader *reader, int fd)
{
    reader->fd = fd;
    reader->text = reader->valid = false;
    reader->used = reader->filled = 0;
}

static bool is_plain(const struct maps_vma *vma, const char *name)
{
    if (vma->ino || vma->shared || vma->prot != (PROT_READ | PROT_WRITE))
        return false;
    return name[0] == '\0' || strcmp(name, "[heap]") == 0 || strncmp(name, "[anon:", 6) == 0;
}

/* 0, -ENOENT: no more, -ENOTTY: this kernel can't. */
static int query(int fd, uint64_t addr, struct maps_vma *out)
{
    char name[32] = "";
    struct query_vma query = {.size = sizeof(query),
                              .flags = QUERY_OR_NEXT,
                              .addr = addr,
                              .name_addr = (uintptr_t)name,
                              .name_size = sizeof(name)};

    if (sys_ioctl(fd, QUERY_VMA, &query)) {
        if (errno != ENAMETOOLONG)
            return -errno;
        strcpy(name, "?"); /* a file's */
        query.name_size = 0;
        query.name_addr = 0;
        query.flags = QUERY_OR_NEXT;
        if (sys_ioctl(fd, QUERY_VMA, &query))
            return -errno;
    }
    *out = (struct maps_vma){
        .start = query.vma_start,
        .end = query.vma_end,
        .offset = query.vma_offset,
        .dev = makedev(query.dev_major, query.dev_minor),
        .ino = query.inode,
        .prot = (query.vma_flags & QUERY_READABLE ? PROT_READ : 0) |
                (query.vma_flags & QUERY_WRITABLE ? PROT_WRITE : 0) |
                (query.vma_flags & QUERY_EXECUTABLE ? PROT_EXEC : 0),
        .shared = query.vma_flags & QUERY_SHARED,
    };
    out->plain = is_plain(out, name);
    return 0;
}

/* The next line of a text file in /proc, without its newline; NULL at the end. May be shortened. */
static char *next_line(struct maps_reader *reader)
{
    for (;;) {
        char *line = reader->buf + reader->used;
        char *newline = memchr(line, '\n', reader->filled - reader->used);

        if (newline) {
            *newline = '\0';
            reader->used = (size_t)(newline + 1 - reader->buf);
            return line;
        }
        reader->filled -= reader->used;
        memmove(reader->buf, line, reader->filled);
        reader->used = 0;
        if (reader->filled == sizeof(reader->buf))
            reader->filled = sizeof(reader->buf) / 2; /* drop from the middle of a long name */
        ssize_t got = sys_read(reader->fd, reader->buf + reader->filled,
                               sizeof(reader->buf) - reader->filled);
        if (got <= 0)
            return NULL;
        reader->filled += (size_t)got;
    }
}

/* "start-end perms offset major:minor inode   name"; false if it is another kind of line. */
static bool parse_vma(const char *line, struct maps_vma *out)
{
    char *at;

    out->start = strtoull(line, &at, 16);
    if (at == line || *at != '-')
        return false;
    out->end = strtoull(at + 1, &at, 16);
    if (strlen(at) < 6)
        return false;
    out->prot = (at[1] == 'r' ? PROT_READ : 0) | (at[2] == 'w' ? PROT_WRITE : 0) |
                (at[3] == 'x' ? PROT_EXEC : 0);
    out->shared = at[4] == 's';
    out->offset = strtoull(at + 5, &at, 16);
    unsigned major = (unsigned)strtoul(at, &at, 16);
    if (*at != ':')
        return false;
    out->dev = makedev(major, (unsigned)strtoul(at + 1, &at, 16));
    out->ino = strtoull(at, &at, 10);
    out->plain = is_plain(out, at + strspn(at, " "));
    return true;
}

static bool find_text(struct maps_reader *reader, uint64_t addr)
{
    char *line;

    while ((line = next_line(reader)))
        if (parse_vma(line, &reader->vma) && reader->vma.end > addr)
            return true;
    return false;
}

bool maps_find(struct maps_reader *reader, uint64_t addr, struct maps_vma *out)
{
    if (!reader->valid || reader->vma.end <= addr) {
        int error = reader->text ? -ENOTTY : query(reader->fd, addr, &reader->vma);

        if (error == -ENOTTY) {
            reader->text = true;
            error = find_text(reader, addr) ? 0 : -ENOENT;
        }
        reader->valid = !error;
    }
    *out = reader->vma;
    return reader->valid;
}

/* "VmFlags: rd wr mr mw me ac dc dd": two letters a flag. */
static int parse_flags(const char *line)
{
    int advice = 0;

    for (const char *at = line + strlen("VmFlags:"); *at; at++) {
        if (strncmp(at, " dc", 3) == 0)
            advice |= MAPS_DONTFORK;
        if (strncmp(at, " dd", 3) == 0)
            advice |= MAPS_DONTDUMP;
        if (strncmp(at, " wf", 3) == 0)
            advice |= MAPS_WIPEONFORK;
    }
    return advice;
}

int maps_advice(uint64_t addr)
{
    struct maps_reader reader;
    struct maps_vma vma = {0};
    int advice = -ENOENT;
    char *line;

    int fd = sys_open("/proc/self/smaps", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    maps_start(&reader, fd);
    while (advice < 0 && (line = next_line(&reader))) {
        if (strncmp(line, "VmFlags:", 8) == 0) {
            if (vma.start <= addr && addr < vma.end)
                advice = parse_flags(line);
        } else {
            struct maps_vma next;

            if (parse_vma(line, &next))
                vma = next;
        }
    }
    sys_close(fd);
    return advice;
}

/*
 * PAGEMAP_SCAN: pages that are not the zero page and are present or swapped. Number of runs, or
 * negative errno. *walked_out is how far the kernel looked.
 */
static int scan(int fd, uint64_t start, uint64_t end, struct scan_region *found, int max,
                uint64_t max_pages, uint64_t *walked_out)
{
    struct scan_pages scan = {.size = sizeof(scan),
                              .start = start,
                              .end = end,
                              .vec = (uintptr_t)found,
                              .vec_len = (uint64_t)max,
                              .max_pages = max_pages,
                              .category_inverted = SCAN_ZERO,
                              .category_mask = SCAN_ZERO,
                              .category_anyof_mask = SCAN_PRESENT | SCAN_SWAPPED,
                              .return_mask = SCAN_PRESENT | SCAN_SWAPPED};
    int count = sys_ioctl(fd, SCAN_PAGES, &scan);

    *walked_out = scan.walk_end;
    return count < 0 ? -errno : count;
}

/* One page's state from an older kernel's pagemap, 512 at a time. */
struct pagemap {
    int fd;
    uint64_t from, count; /* page numbers held */
    uint64_t entries[512];
};

static int pagemap_touched(struct pagemap *pagemap, uint64_t addr, uint64_t end)
{
    uint64_t page = addr / SHARE_PAGE;

    if (page - pagemap->from >= pagemap->count) {
        uint64_t want = (end - addr) / SHARE_PAGE;
        ssize_t got;

        if (want > 512)
            want = 512;
        got = sys_pread(pagemap->fd, pagemap->entries, want * 8, (off_t)(page * 8));
        if (got < 8)
            return got < 0 ? -errno : -EIO;
        pagemap->from = page;
        pagemap->count = (uint64_t)got / 8;
    }
    return (pagemap->entries[page - pagemap->from] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED)) != 0;
}

/* Add [start, end) to the runs, joined to the last one where they meet. */
static int runs_add(struct share_run *runs, int count, int max, uint64_t start, uint64_t end)
{
    if (count > 0 && runs[count - 1].end == start) {
        runs[count - 1].end = end;
        return count;
    }
    if (count == max)
        return -E2BIG;
    runs[count] = (struct share_run){start, end};
    return count + 1;
}

static int touched_pagemap(int fd, uint64_t start, uint64_t end, struct share_run *runs, int max)
{
    struct pagemap pagemap = {.fd = fd};
    int count = 0;

    for (uint64_t addr = start; addr < end && count >= 0; addr += SHARE_PAGE) {
        int touched = pagemap_touched(&pagemap, addr, end);

        if (touched < 0)
            return touched;
        if (touched)
            count = runs_add(runs, count, max, addr, addr + SHARE_PAGE);
    }
    return count;
}

int maps_touched(int pagemap_fd, uint64_t start, uint64_t end, struct share_run *runs, int max)
{
    struct scan_region found[16];
    uint64_t addr = start;
    int count = 0;

    while (addr < end && count >= 0) {
        uint64_t walked;
        int got = scan(pagemap_fd, addr, end, found, 16, 0, &walked);

        if (got == -ENOTTY || got == -EINVAL)
            return touched_pagemap(pagemap_fd, start, end, runs, max);
        if (got < 0)
            return got;
        for (int i = 0; i < got && count >= 0; i++)
            count = runs_add(runs, count, max, found[i].start, found[i].end);
        addr = walked > addr ? walked : end;
    }
    return count;
}

uint64_t maps_first_touched(int pagemap_fd, uint64_t start, uint64_t end)
{
    struct pagemap pagemap = {.fd = pagemap_fd};
    struct scan_region found;
    uint64_t walked;
    int got = scan(pagemap_fd, start, end, &found, 1, 1, &walked);

    if (got >= 0)
        return got ? found.start : end;
    for (uint64_t addr = start; addr < end; addr += SHARE_PAGE)
        if (pagemap_touched(&pagemap, addr, end))
            return addr; /* also if it can't be read: then the copy will say why */
    return end;
}

uint64_t maps_status(const char *key)
{
    struct maps_reader reader;
    uint64_t value = 0;
    char *line;

    int fd = sys_open("/proc/self/status", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    maps_start(&reader, fd);
    while ((line = next_line(&reader)))
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoull(line + strlen(key), NULL, 10);
    sys_close(fd);
    return value;
}

/*
 * The pages that a thread needs. The robust list's head lies in its control block, at the top of a
 * stack that the C library allocated; all below it in the mapping is that stack. The first thread's
 * stack is elsewhere ("[stack]"), its control block stands alone among other memory.
 */
static bool thread_pages(const struct maps_vma *vma, pid_t tid, struct share_run *out)
{
    void *head = NULL;
    size_t len;

    if (syscall(SYS_get_robust_list, tid, &head, &len))
        return false;
    uint64_t page = (uintptr_t)head & ~(SHARE_PAGE - 1);
    if (page < vma->start || page >= vma->end)
        return false;
    out->start = tid == getpid() ? page - 2 * SHARE_PAGE : vma->start;
    out->end = page + 2 * SHARE_PAGE;
    return true;
}

static void earlier(const struct share_run *one, uint64_t addr, struct share_run *best)
{
    if (one->end > addr && (best->end == 0 || one->start < best->start))
        *best = *one;
}

struct dirent_raw { /* as getdents64 gives it */
    uint64_t ino, next;
    uint16_t size;
    uint8_t type;
    char name[];
};

static void threads_kept(const struct maps_vma *vma, uint64_t addr, struct share_run *best)
{
    _Alignas(8) char entries[2048];
    long got;

    int fd = sys_open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    while ((got = syscall(SYS_getdents64, fd, entries, sizeof(entries))) > 0) {
        for (long at = 0; at < got;) {
            const struct dirent_raw *entry = (const void *)(entries + at);
            pid_t tid = (pid_t)strtol(entry->name, NULL, 10);
            struct share_run run;

            at += entry->size;
            if (tid > 0 && thread_pages(vma, tid, &run))
                earlier(&run, addr, best);
        }
    }
    sys_close(fd);
}

/*
 * The first word of such a heap points to its arena, right behind it. It is the program's memory:
 * the race, and what else a sanitizer would say, are intended.
 */
__attribute__((noinline, no_sanitize("thread"), no_sanitize("address"))) static bool
is_arena(uint64_t page)
{
    uint64_t word = *(const volatile uint64_t *)(uintptr_t)page;

    return word > page && word < page + SHARE_PAGE;
}

bool maps_kept(const struct maps_vma *vma, uint64_t addr, struct share_run *out)
{
    uint64_t page = (vma->start + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1);
    struct share_run best = {0, 0};

    for (; page < vma->end; page += ARENA_ALIGN) {
        struct share_run run = {page, page + SHARE_PAGE};

        if (run.end > addr && is_arena(page)) {
            earlier(&run, addr, &best);
            break;
        }
    }
    threads_kept(vma, addr, &best);
    *out = best;
    return best.end != 0;
}
