/* SPDX-License-Identifier: MIT */
/* Sharing memory in place: what is exchanged, what is left alone, what the program may ask of it.
 */
#include <linux/io_uring.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "share_rig.h"

/* Checks that owner and peer see one memory with this pattern in it, both ways. */
static void check_shared(char *at, size_t len, uint64_t seed)
{
    char *other = peer(at, len);

    T_ASSERT(other && other != at);
    T_EQ(t_compare(at, 0, len, seed), -1);
    T_EQ(t_compare(other, 0, len, seed), -1);
    at[0] = 17;
    T_CHECK_EQ(other[0], 17);
    at[len - 1] = 18;
    T_CHECK_EQ(other[len - 1], 18);
    t_fill(other, 0, len, seed + 1);
    T_EQ(t_compare(at, 0, len, seed + 1), -1);
}

static void check_private(const char *at, size_t len, uint64_t seed)
{
    T_CHECK(!peer(at, len));
    T_EQ(t_compare(at, 0, len, seed), -1);
}

T_TEST(share, unaligned_heap_block)
{
    /* Shows that a malloc'ed block is shared whole, with its content, wherever it begins. */
    setup();
    size_t sizes[] = {1, 100, 5000, 70000, 3000000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char *at = malloc(sizes[i] + 3);

        T_ASSERT(at);
        t_fill(at + 3, 0, sizes[i], i);
        T_EQ(share(at + 3, sizes[i]), sizes[i]);
        check_shared(at + 3, sizes[i], i);
        forget(at + 3, sizes[i]);
        T_CHECK(!peer(at + 3, sizes[i]));
        free(at);
    }
    t_end();
}

T_TEST(share, brk_heap)
{
    /* Shows that pages of the brk heap can be exchanged, and that the heap can grow afterwards. */
    setup();
    char *at = sbrk(64 * 1024);
    T_ASSERT(at != (void *)-1);
    t_fill(at, 0, 64 * 1024, 5);
    T_EQ(share(at, 64 * 1024), 64 * 1024);
    check_shared(at, 64 * 1024, 5);
    char *more = sbrk(64 * 1024);
    T_ASSERT(more != (void *)-1);
    memset(more, 1, 64 * 1024);
    T_EQ(t_compare(at, 0, 64 * 1024, 6), -1);
    T_ASSERT(sbrk(-64 * 1024) != (void *)-1);
    forget(at, 64 * 1024);
    t_end();
}

T_TEST(share, untouched_stays_sparse)
{
    /* Shows that sharing takes memory only for pages that were touched. */
    setup();
    share_collect();
    uint64_t len = 512 * MIB, before = mem_bytes();
    char *at = pages(len);
    T_EQ(madvise(at, len, MADV_NOHUGEPAGE), 0);
    at[200 * MIB] = 1;
    at[200 * MIB + 5 * PAGE] = 2;
    at[len - 1] = 3;
    T_EQ(share(at, len), len);
    T_EQ(mem_bytes() - before, 3 * PAGE);
    T_CHECK_EQ(at[200 * MIB], 1);
    T_CHECK_EQ(at[200 * MIB + 5 * PAGE], 2);
    T_CHECK_EQ(at[len - 1], 3);
    T_CHECK_EQ(at[100 * MIB], 0);
    uint64_t in_window = address(at) | (SHARE_WINDOW_SIZE - 1);
    char *far = address(at) + len - 1 > in_window ? (char *)(uintptr_t)(in_window - 8) : at + 5;
    T_ASSERT(peer(far, 1));
    *peer(far, 1) = 9;
    T_CHECK_EQ(*far, 9);
    drop(at, len);
    share_collect();
    T_EQ(mem_bytes(), before);
    t_end();
}

T_TEST(share, again_after_forget)
{
    /* Shows that pages exchanged before are only marked again, not copied. */
    setup();
    char *at = pages(MIB);
    t_fill(at, 0, MIB, 1);
    T_EQ(share(at, MIB), MIB);
    char *other = peer(at, PAGE);
    forget(at, MIB);
    T_CHECK(!peer(at, 1));
    t_fill(other, 0, MIB, 2); /* still the same memory */
    T_EQ(share(at, MIB), MIB);
    T_CHECK(peer(at, PAGE) == other);
    check_shared(at, MIB, 2);
    forget(at + PAGE, 1);
    T_CHECK(peer(at, PAGE) && !peer(at + PAGE, 1) && peer(at + 2 * PAGE, 1));
    drop(at, MIB);
    t_end();
}

T_TEST(share, fresh_memory_at_an_old_address)
{
    /* Shows that nothing of an earlier mapping shows through, not even in untouched pages. */
    setup();
    char *at = pages(MIB);
    memset(at, 0xee, MIB);
    T_EQ(share(at, MIB), MIB);
    forget(at, MIB);
    T_ASSERT(mmap(at, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                  0) == at);
    t_fill(at + 7 * PAGE, 0, PAGE, 3);
    T_EQ(share(at, MIB), MIB);
    for (uint64_t i = 0; i < MIB; i++)
        if (i / PAGE != 7)
            T_ASSERT(at[i] == 0, "at %zu", (size_t)i);
    check_shared(at + 7 * PAGE, PAGE, 3);
    drop(at, MIB);
    t_end();
}

T_TEST(share, collect)
{
    /* Shows that unmapped pages are given back, and neither mapped nor registered ones. */
    setup();
    share_collect();
    uint64_t before = mem_bytes();
    char *at = pages(MIB), *kept = pages(MIB);
    memset(at, 1, MIB);
    memset(kept, 2, MIB);
    T_EQ(share(at, MIB), MIB);
    T_EQ(share(kept, MIB), MIB);
    char *other = peer(at, PAGE);
    forget(kept, MIB);
    munmap(at, MIB / 2);
    share_collect(); /* at is registered, kept is mapped */
    T_EQ(mem_bytes() - before, 2 * MIB);
    T_CHECK_EQ(other[5], 1);
    forget(at, MIB);
    share_collect();
    T_EQ(mem_bytes() - before, 3 * MIB / 2);
    T_CHECK_EQ(at[MIB / 2], 1);
    T_CHECK_EQ(kept[0], 2);
    drop(at, MIB);
    drop(kept, MIB);
    share_collect();
    T_EQ(mem_bytes(), before);
    t_end();
}

T_TEST(share, several_mappings)
{
    /* Shows that a range over several mappings is shared where it can be, in spite of a hole. */
    setup();
    char *at = pages(10 * PAGE);
    t_fill(at, 0, 10 * PAGE, 4);
    T_EQ(mprotect(at + 3 * PAGE, 2 * PAGE, PROT_READ), 0);
    T_EQ(munmap(at + 7 * PAGE, PAGE), 0);
    T_EQ(share(at + 100, 10 * PAGE - 100), 3 * PAGE - 100);
    T_CHECK(!peer(at + 3 * PAGE, 1) && !peer(at + 4 * PAGE, 1));
    T_EQ(t_compare(at + 3 * PAGE, 3 * PAGE, 2 * PAGE, 4), -1);
    T_CHECK(peer(at, 3 * PAGE));
    T_CHECK(peer(at + 5 * PAGE, 2 * PAGE) && !peer(at + 7 * PAGE, 1));
    T_CHECK(peer(at + 8 * PAGE, 2 * PAGE));
    T_EQ(t_compare(at + 5 * PAGE, 5 * PAGE, 2 * PAGE, 4), -1);
    T_EQ(t_compare(peer(at + 8 * PAGE, 2 * PAGE), 8 * PAGE, 2 * PAGE, 4), -1);
    T_EQ(mprotect(at + 3 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
    T_EQ(share(at, 7 * PAGE), 7 * PAGE); /* partly exchanged already */
    check_shared(at, 7 * PAGE, 4);
    drop(at, 10 * PAGE);
    t_end();
}

T_TEST(share, across_windows)
{
    /* Shows that a range that crosses a window is shared on both sides. */
    setup();
    char *room = pages(SHARE_WINDOW_SIZE + 8 * PAGE);
    uint64_t line = (address(room) + SHARE_WINDOW_SIZE) & ~(SHARE_WINDOW_SIZE - 1);
    char *at = line - address(room) >= 4 * PAGE && address(room) + SHARE_WINDOW_SIZE > line
                   ? (char *)(uintptr_t)(line - 4 * PAGE)
                   : NULL;
    if (!at)
        T_SKIP("the mapping lies on a window by chance");
    t_fill(at, 0, 8 * PAGE, 8);
    T_EQ(share(at, 8 * PAGE), 8 * PAGE);
    T_CHECK(!peer(at, 8 * PAGE)); /* the caller splits */
    T_EQ(t_compare(peer(at, 4 * PAGE), 0, 4 * PAGE, 8), -1);
    T_EQ(t_compare(peer(at + 4 * PAGE, 4 * PAGE), 4 * PAGE, 4 * PAGE, 8), -1);
    drop(room, SHARE_WINDOW_SIZE + 8 * PAGE);
    t_end();
}

T_TEST(share, huge_pages_of_the_kernel)
{
    /* Shows that memory backed by transparent huge pages is exchanged, also a part of one. */
    setup();
    char *room = pages(8 * MIB);
    madvise(room, 8 * MIB, MADV_HUGEPAGE);
    t_fill(room, 0, 8 * MIB, 9);
    T_EQ(share(room + 3 * MIB + 123, 2 * MIB), 2 * MIB);
    T_EQ(t_compare(room, 0, 8 * MIB, 9), -1);
    T_EQ(t_compare(peer(room + 4 * MIB, MIB), 4 * MIB, MIB, 9), -1);
    t_fill(peer(room + 4 * MIB, MIB), 4 * MIB, MIB, 10);
    T_EQ(t_compare(room, 0, 4 * MIB, 9), -1);
    T_EQ(t_compare(room + 4 * MIB, 4 * MIB, MIB, 10), -1);
    drop(room, 8 * MIB);
    t_end();
}

static char *file_pages(int flags)
{
    int fd = memfd_create("file", MFD_CLOEXEC);

    T_ASSERT(fd >= 0);
    T_EQ(ftruncate(fd, 4 * (off_t)PAGE), 0);
    char *at = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
    T_ASSERT(at != MAP_FAILED);
    close(fd);
    return at;
}

T_TEST(share, left_alone)
{
    /* Shows that memory which is not plain private memory is not touched, and it is no error. */
    setup();
    char *at[6] = {file_pages(MAP_PRIVATE), file_pages(MAP_SHARED), pages(4 * PAGE),
                   pages(4 * PAGE),         pages(4 * PAGE),        pages(4 * PAGE)};
    for (int i = 0; i < 6; i++)
        t_fill(at[i], 0, 4 * PAGE, (unsigned)i);
    T_EQ(mprotect(at[2], 4 * PAGE, PROT_READ), 0);
    T_EQ(mprotect(at[3], 4 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC), 0);
    bool locked = syscall(SYS_mlock, at[4], 4 * PAGE) == 0; /* sanitizers make mlock() nothing */
    int result;
    T_CHECK(!share_madvise(at[5], 4 * PAGE, MADV_WIPEONFORK, &result));
    T_EQ(madvise(at[5], 4 * PAGE, MADV_WIPEONFORK), 0);
    for (unsigned i = 0; i < 6; i++) {
        if (i == 4 && !locked)
            continue;
        T_CHECK_EQ(share(at[i], 4 * PAGE), 0);
        check_private(at[i], 4 * PAGE, i);
    }
    T_EQ(syscall(SYS_munlock, at[4], 4 * PAGE), 0);
    T_EQ(share(at[4], 4 * PAGE), 4 * PAGE);
    check_shared(at[4], 4 * PAGE, 4);
    for (int i = 0; i < 6; i++)
        drop(at[i], 4 * PAGE);
    t_end();
}

T_TEST(share, huge_tlb)
{
    /* Shows that huge TLB pages are left alone. */
    setup();
    char *at = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (at == MAP_FAILED)
        T_SKIP("no huge TLB pages here");
    t_fill(at, 0, 2 * MIB, 1);
    T_CHECK_EQ(share(at, 2 * MIB), 0);
    check_private(at, 2 * MIB, 1);
    drop(at, 2 * MIB);
    t_end();
}

static _Thread_local char thread_local_data[64];

static void *share_own_stack(void *result)
{
    char local[3 * PAGE];

    t_fill(local, 0, sizeof(local), 1);
    int64_t *got = result;
    got[0] = share(local, sizeof(local));
    got[1] = share(thread_local_data, sizeof(thread_local_data));
    got[2] =
        peer(local, 1) || peer(thread_local_data, 1) || t_compare(local, 0, sizeof(local), 1) != -1;
    return NULL;
}

T_TEST(share, stacks_are_left_alone)
{
    /* Shows that stacks and control blocks of threads, which fork itself needs, stay private. */
    setup();
    int64_t got[3];
    pthread_t thread;
    share_own_stack(got);
    T_CHECK_EQ(got[0], 0);
    T_CHECK_EQ(got[1], 0);
    T_CHECK_EQ(got[2], 0);
    T_EQ(pthread_create(&thread, NULL, share_own_stack, got), 0);
    pthread_join(thread, NULL);
    T_CHECK_EQ(got[0], 0);
    T_CHECK_EQ(got[1], 0);
    T_CHECK_EQ(got[2], 0);
    t_end();
}

T_TEST(share, pinned_pages)
{
    /* Shows that nothing is exchanged while the kernel has pages pinned for a device or a ring. */
    setup();
    struct io_uring_params params = {0};
    int ring = (int)syscall(SYS_io_uring_setup, 4, &params);
    if (ring < 0)
        T_SKIP("no io_uring here");
    char *at = pages(4 * PAGE);
    t_fill(at, 0, 4 * PAGE, 1);
    struct iovec buffer = {at, 4 * PAGE};
    T_EQ(syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, &buffer, 1), 0);
    T_CHECK_EQ(share(at, 4 * PAGE), -EBUSY);
    check_private(at, 4 * PAGE, 1);
    T_EQ(syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0), 0);
    T_EQ(share(at, 4 * PAGE), 4 * PAGE);
    check_shared(at, 4 * PAGE, 1);
    close(ring);
    drop(at, 4 * PAGE);
    t_end();
}

T_TEST(share, bad_arguments)
{
    /* Shows the errors of a range that can't be, and of a limit on file sizes (no signal). */
    setup();
    struct rlimit limit, small = {MIB, MIB};
    T_EQ(share_range(4096, 0), -EINVAL);
    T_EQ(share_range(~0ull - 4096, 8192), -EINVAL);
    T_EQ(share_range(1ull << 47, 4096), -EINVAL);
    T_EQ(share_range(0, 4096), 0);
    T_CHECK(!share_translate(&view, ~0ull, 8));
    T_CHECK(!share_translate(&view, 1ull << 47, 8));
    T_EQ(share_init(map), -EBUSY);
    char *at = pages(PAGE);
    t_fill(at, 0, PAGE, 1);
    T_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small.rlim_max = limit.rlim_max;
    T_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    T_CHECK_EQ(share(at, PAGE), -EFBIG);
    T_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    check_private(at, PAGE, 1);
    drop(at, PAGE);
    t_end();
}

T_TEST(share, realloc_takes_nobody_along)
{
    /* Shows that a big block, once shared, can be reallocated, and a neighbour keeps its data. */
    setup();
    size_t size = 1000000;
    mallopt(M_MMAP_THRESHOLD, 128 * 1024); /* else one test's free() changes the next one's heap */
    char *one = malloc(size), *two = malloc(size);
    T_ASSERT(one && two);
    t_fill(one, 0, size, 1);
    t_fill(two, 0, size, 2);
    T_EQ(share(one, size), size);
    T_EQ(share(two, size), size);
    forget(one, size);
    one = realloc(one, 4 * size);
    T_ASSERT(one);
    t_fill(one + size, 0, 3 * size, 3);
    T_EQ(t_compare(one, 0, size, 1), -1);
    T_EQ(t_compare(one + size, 0, 3 * size, 3), -1);
    check_shared(two, size, 2);
    one = realloc(one, size / 2);
    T_ASSERT(one);
    T_EQ(share(one, size / 2), size / 2);
    check_shared(one, size / 2, 1);
    t_fill(one, 0, size / 2, 4);
    forget(one, size / 2);
    one = realloc(one, 100); /* to one page, and something moves in behind it */
    char *wall = mmap(one - (address(one) % PAGE) + PAGE, PAGE, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    one = realloc(one, 5 * size);
    T_ASSERT(one);
    T_EQ(t_compare(one, 0, 100, 4), -1);
    t_fill(one, 0, 5 * size, 5);
    T_EQ(share(one, 5 * size), 5 * size);
    check_shared(one, 5 * size, 5);
    T_EQ(t_compare(two, 0, size, 3), -1);
    forget(one, 5 * size);
    forget(two, size);
    free(one);
    free(two);
    if (wall != MAP_FAILED)
        munmap(wall, PAGE);
    t_end();
}

T_TEST(share, advice_drops_pages)
{
    /* Shows that dropped pages read as zeroes, the rest stays, and other memory is as usual. */
    setup();
    int advices[] = {MADV_DONTNEED, MADV_FREE, MADV_REMOVE};
    share_collect();
    char *at = pages(16 * PAGE);
    for (int i = 0; i < 3; i++) {
        int result = -1;

        t_fill(at, 0, 16 * PAGE, 7);
        T_EQ(share(at, 8 * PAGE), 8 * PAGE);
        T_ASSERT(share_madvise(at + 2 * PAGE, 3 * PAGE - 1, advices[i], &result));
        T_EQ(result, 0);
        for (uint64_t j = 2 * PAGE; j < 5 * PAGE; j++)
            T_ASSERT(at[j] == 0 && peer(at + j, 1)[0] == 0);
        T_EQ(t_compare(at, 0, 2 * PAGE, 7), -1);
        T_EQ(t_compare(at + 5 * PAGE, 5 * PAGE, 11 * PAGE, 7), -1);
        T_CHECK(!share_madvise(at + 9 * PAGE, PAGE, advices[i], &result));
        T_CHECK(!share_madvise(at + 1, PAGE, advices[i], &result));
    }
    int result = -1;
    T_ASSERT(share_madvise(at + 6 * PAGE, 4 * PAGE, MADV_DONTNEED, &result)); /* ours and not */
    T_EQ(result, 0);
    for (uint64_t j = 6 * PAGE; j < 10 * PAGE; j++)
        T_ASSERT(at[j] == 0);
    drop(at, 16 * PAGE);
    T_ASSERT(mmap(at, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                  0) == at);
    memset(at, 1, 8 * PAGE);
    share_madvise(at, 8 * PAGE, MADV_DONTNEED, &result); /* once ours, now the program's */
    T_CHECK_EQ(at[0], 0);
    drop(at, 8 * PAGE);
    t_end();
}

T_TEST(share, moved_memory_is_private_again)
{
    /* Shows that mremap keeps the data, grows with zeroes and leaves the memfd's pages behind. */
    setup();
    char *at = pages(16 * PAGE);
    void *got;
    T_CHECK(!share_mremap(at, 8 * PAGE, 4 * PAGE, 0, NULL, &got));
    T_EQ(munmap(at + 8 * PAGE, 8 * PAGE), 0);
    t_fill(at, 0, 8 * PAGE, 1);
    T_EQ(share(at, 8 * PAGE), 8 * PAGE);
    forget(at, 8 * PAGE);
    T_ASSERT(share_mremap(at, 8 * PAGE, 4 * PAGE, 0, NULL, &got) && got == at);
    T_ASSERT(share_mremap(at, 4 * PAGE, 8 * PAGE, 0, NULL, &got) && got == at);
    T_CHECK_EQ(at[5 * PAGE], 0);
    T_EQ(t_compare(at, 0, 4 * PAGE, 1), -1);
    char *wall = mmap(at + 8 * PAGE, PAGE, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    T_ASSERT(share_mremap(at, 8 * PAGE, 16 * PAGE, 0, NULL, &got));
    T_ASSERT(wall == MAP_FAILED || got == MAP_FAILED);
    T_ASSERT(share_mremap(at, 8 * PAGE, 16 * PAGE, MREMAP_MAYMOVE, NULL, &got));
    char *moved = got;
    T_ASSERT(moved != MAP_FAILED);
    T_EQ(t_compare(moved, 0, 4 * PAGE, 1), -1);
    T_CHECK_EQ(moved[15 * PAGE], 0);
    T_EQ(share(moved, 16 * PAGE), 16 * PAGE);
    char *place = pages(16 * PAGE);
    T_ASSERT(share_mremap(moved, 16 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place, &got));
    T_ASSERT(got == place);
    T_EQ(t_compare(place, 0, 2 * PAGE, 1), -1);
    drop(place, 16 * PAGE);
    if (wall != MAP_FAILED)
        munmap(wall, PAGE);
    share_collect();
    t_end();
}

T_TEST(share, view_of_a_hostile_owner)
{
    /* Shows that a view refuses memory that can shrink, and numbers that lead nowhere. */
    setup();
    struct share_view other;
    int fd = memfd_create("hostile", MFD_CLOEXEC);
    T_ASSERT(fd >= 0);
    T_EQ(ftruncate(fd, SHARE_WORDS_SIZE), 0);
    T_EQ(share_view_open(&other, map, fd), -EPERM);
    close(fd);
    T_EQ(share_view_open(&other, map, -1), -EBADF);
    T_EQ(share_view_open(&other, map, share_mem_fd()), 0);
    T_CHECK(share_view_window(&other, SHARE_WINDOWS_MAX) == NULL);
    T_CHECK(share_view_window(&other, SHARE_WINDOWS_MAX - 1) == NULL);
    struct share_map *lies = mmap(NULL, sizeof(*lies), PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    T_ASSERT(lies != MAP_FAILED);
    other.map = lies;
    unsigned numbers[] = {SHARE_WINDOWS_MAX, SHARE_WINDOWS_MAX + 1, 65535};
    memset(lies->shared[SHARE_WINDOWS_MAX - 1], 0xff, sizeof(lies->shared[0]));
    for (int i = 0; i < 3; i++) {
        atomic_store(&lies->directory[1], (uint16_t)numbers[i]);
        T_CHECK(!share_translate(&other, SHARE_WINDOW_SIZE, 8));
    }
    munmap(lies, sizeof(*lies));
    ((char *)other.words)[3] = 5;
    T_CHECK_EQ(((char *)share_words())[3], 5);
    share_view_close(&other);
    t_end();
}
