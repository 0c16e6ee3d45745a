/* SPDX-License-Identifier: MIT */
/*
 * Which descriptors are ours.
 *
 * close() may be called in a signal handler, so there is no lock. A reader announces itself,
 * fetches the pointer and takes a reference; who removes a pointer waits until no other thread is
 * in those three steps, and only then drops the table's reference:
 *
 *   reader   readers++   file = slot   file->refs++   readers--
 *   remover  slot = NULL ... readers == 0 ... file->refs--
 *
 * Both sides are sequentially consistent: if the remover saw no reader, one that comes later sees
 * the empty slot.
 */
#include "uapi/uapi.h"

#include <errno.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

_Atomic uint8_t fdtab_ours[FDTAB_SIZE];
static struct uapi_file *_Atomic files[FDTAB_SIZE];
static atomic_int readers;
static atomic_uint used; /* descriptors at and above it were never ours */
static atomic_int owner; /* the process the table speaks of */
/* This thread is a reader: a signal handler that finds it set has interrupted one. */
static _Thread_local volatile bool reading __attribute__((tls_model("initial-exec")));

static int process_id(void)
{
    return (int)syscall(SYS_getpid); /* the kernel's word: libc once cached it through vfork */
}

bool fdtab_is_owner(void)
{
    return atomic_load(&owner) == process_id();
}

void fdtab_put(struct uapi_file *file)
{
    if (atomic_fetch_sub(&file->refs, 1) == 1 && !atomic_load(&file->dead) && file->ops->release)
        file->ops->release(file);
}

struct uapi_file *fdtab_get(int fd)
{
    return fdtab_has(fd) ? atomic_load(&files[fd]) : NULL;
}

struct uapi_file *fdtab_hold(int fd)
{
    if (!fdtab_has(fd))
        return NULL;
    bool outer = reading;
    reading = true;
    atomic_fetch_add(&readers, 1);
    struct uapi_file *file = atomic_load(&files[fd]);
    if (file)
        atomic_fetch_add(&file->refs, 1);
    atomic_fetch_sub(&readers, 1);
    reading = outer;
    return file;
}

/* Until no thread is between its load and its reference: a few instructions, if it has a CPU. */
static void readers_wait(void)
{
    static const struct timespec pause = {.tv_nsec = 50000};

    for (unsigned i = 0; atomic_load(&readers) != 0; i++) {
        if (i < 100)
            sched_yield();
        else
            syscall(SYS_nanosleep, &pause, NULL); /* libc's could be cancelled */
    }
}

/* Put `file` (with a reference that becomes the table's) or NULL into the slot. */
static void slot_exchange(int fd, struct uapi_file *file)
{
    struct uapi_file *old = atomic_exchange(&files[fd], file);
    unsigned seen = atomic_load(&used);

    atomic_store(&fdtab_ours[fd], file != NULL);
    while (file && seen <= (unsigned)fd &&
           !atomic_compare_exchange_weak(&used, &seen, (unsigned)fd + 1))
        continue;
    /* The reader that a handler interrupted may be about to use the file: it is never released. */
    if (!old || reading)
        return;
    readers_wait();
    fdtab_put(old);
}

int fdtab_set(int fd, struct uapi_file *file)
{
    if ((unsigned)fd >= FDTAB_SIZE)
        return -EMFILE;
    /* A child of a bare clone opens for itself: what it inherited is not its own. */
    if (atomic_load(&owner) != 0 && !fdtab_is_owner())
        fdtab_after_fork();
    atomic_store(&owner, process_id());
    atomic_fetch_add(&file->refs, 1);
    slot_exchange(fd, file);
    return 0;
}

void fdtab_dup(int old_fd, int new_fd)
{
    struct uapi_file *file;

    if (old_fd == new_fd || (unsigned)new_fd >= FDTAB_SIZE)
        return;
    file = fdtab_hold(old_fd);
    if (file || fdtab_has(new_fd))
        slot_exchange(new_fd, file);
}

void fdtab_clear(int fd)
{
    if (fdtab_has(fd))
        slot_exchange(fd, NULL);
}

void fdtab_clear_range(unsigned first, unsigned last)
{
    unsigned end = atomic_load(&used);

    for (unsigned fd = first; fd <= last && fd < end; fd++)
        fdtab_clear((int)fd);
}

void fdtab_after_fork(void)
{
    unsigned end = atomic_load(&used);

    atomic_store(&readers, 0); /* those threads are not here */
    reading = false;
    atomic_store(&owner, process_id());
    for (unsigned fd = 0; fd < end; fd++) {
        struct uapi_file *file = atomic_load(&files[fd]);

        if (file)
            atomic_store(&file->dead, true);
    }
}
