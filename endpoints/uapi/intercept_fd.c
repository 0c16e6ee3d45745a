/* SPDX-License-Identifier: MIT */
/*
 * Calls on descriptors. A descriptor that is not ours costs one look into a byte table.
 *
 * A child of vfork() (posix_spawn, Python's subprocess) lives in the parent's memory with its own
 * descriptors: what it closes stays open in the parent, so the table is only changed by its owner.
 */
#include "uapi/intercept.h"

#include "core/config.h"
#include "core/sys.h"
#include "link/shm/share.h"

#include <limits.h>
#include <linux/netlink.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define RARELY(condition) __builtin_expect(!!(condition), 0)

/* ---- write ---- */

/* What the device says, as write() returns it; false if the descriptor is not ours after all. */
static bool device_write(int fd, const void *buf, size_t len, ssize_t *result_out)
{
    struct uapi_file *file = fdtab_hold(fd);
    int saved = errno;

    if (!file)
        return false;
    bool ours = file->ops->write != NULL;
    ssize_t result = -EIO;
    if (ours && !atomic_load(&file->dead))
        result = file->ops->write(file, buf, len);
    fdtab_put(file);
    *result_out = result < 0 ? -1 : result;
    errno = result < 0 ? (int)-result : saved;
    return ours;
}

static __attribute__((noinline)) ssize_t write_ours(int fd, const void *buf, size_t len)
{
    ssize_t result;

    return device_write(fd, buf, len, &result) ? result : real.write(fd, buf, len);
}

EXPORTED(ssize_t, write, (int fd, const void *buf, size_t len));
ssize_t via_write(int fd, const void *buf, size_t len)
{
    if (RARELY(fdtab_has(fd)))
        return write_ours(fd, buf, len);
    return real.write(fd, buf, len);
}
EXPORTED_ALIAS(ssize_t, __write, (int fd, const void *buf, size_t len), write);

/* One command after the other, as the kernel does for a device that only knows write(). */
static ssize_t writev_ours(int fd, const struct iovec *iov, int count)
{
    ssize_t total = 0;

    for (int i = 0; i < count; i++) {
        ssize_t result;

        if (!device_write(fd, iov[i].iov_base, iov[i].iov_len, &result))
            return i == 0 ? real.writev(fd, iov, count) : total;
        if (result < 0)
            return total > 0 ? total : -1;
        total += result;
        if ((size_t)result < iov[i].iov_len)
            break;
    }
    return total;
}

EXPORTED(ssize_t, writev, (int fd, const struct iovec *iov, int count));
ssize_t via_writev(int fd, const struct iovec *iov, int count)
{
    if (RARELY(fdtab_has(fd)))
        return writev_ours(fd, iov, count);
    return real.writev(fd, iov, count);
}

/* ---- close ---- */

EXPORTED(int, close, (int fd));
int via_close(int fd)
{
    if (RARELY(own_fd_has(fd)) && fdtab_is_owner())
        return failed_with(EBADF);
    /* First the table: once the kernel has closed it, another thread may get the number. */
    if (RARELY(fdtab_has(fd)) && fdtab_is_owner())
        fdtab_clear(fd);
    return real.close(fd);
}
EXPORTED_ALIAS(int, __close, (int fd), close);

/* All but the library's own. */
static int close_others(uint64_t first, uint64_t last)
{
    while (first <= last) {
        uint64_t own = own_fd_next(first, last);

        if (own > first && real.close_range((unsigned)first, (unsigned)own - 1, 0))
            return -1;
        first = own + 1;
    }
    return 0;
}

static int close_range_any(unsigned first, unsigned last, int flags)
{
    /* Other flags only mark the descriptors, or close them for this thread alone. */
    if (flags || first > last || !fdtab_is_owner())
        return real.close_range(first, last, flags);
    fdtab_clear_range(first, last);
    return close_others(first, last);
}

EXPORTED(int, close_range, (unsigned first, unsigned last, int flags));
int via_close_range(unsigned first, unsigned last, int flags)
{
    return close_range_any(first, last, flags);
}

EXPORTED(void, closefrom, (int first));
void via_closefrom(int first)
{
    unsigned from = first < 0 ? 0 : (unsigned)first;
    struct rlimit limit;

    if (close_range_any(from, UINT_MAX, 0) == 0)
        return;
    /* A kernel before 5.9: one by one. */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        for (unsigned fd = from; fd < limit.rlim_cur && fd < INT_MAX; fd++)
            if (!own_fd_has((int)fd) || !fdtab_is_owner())
                sys_close((int)fd);
}

/* ---- dup ---- */

/* new_fd (or -1) now names what old_fd does. */
static inline int duplicated(int old_fd, int new_fd)
{
    if (new_fd >= 0 && RARELY(fdtab_has(old_fd) || fdtab_has(new_fd)) && fdtab_is_owner())
        fdtab_dup(old_fd, new_fd);
    return new_fd;
}

EXPORTED(int, dup, (int fd));
int via_dup(int fd)
{
    return duplicated(fd, real.dup(fd));
}

static inline bool may_take(int fd, int to)
{
    return !RARELY(own_fd_has(to)) || fd == to || !fdtab_is_owner();
}

EXPORTED(int, dup2, (int fd, int to));
int via_dup2(int fd, int to)
{
    return may_take(fd, to) ? duplicated(fd, real.dup2(fd, to)) : failed_with(EBUSY);
}
EXPORTED_ALIAS(int, __dup2, (int fd, int to), dup2);

EXPORTED(int, dup3, (int fd, int to, int flags));
int via_dup3(int fd, int to, int flags)
{
    return may_take(fd, to) ? duplicated(fd, real.dup3(fd, to, flags)) : failed_with(EBUSY);
}

EXPORTED(int, fcntl, (int fd, int cmd, ...));
int via_fcntl(int fd, int cmd, ...)
{
    va_list args;

    /* Commands take a pointer, an int or nothing: the register goes on as it came. */
    va_start(args, cmd);
    void *arg = va_arg(args, void *);
    va_end(args);
    int result = real.fcntl(fd, cmd, arg);
    return cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC ? duplicated(fd, result) : result;
}
EXPORTED_ALIAS(int, fcntl64, (int fd, int cmd, ...), fcntl);
EXPORTED_ALIAS(int, __fcntl, (int fd, int cmd, ...), fcntl);

/* ---- others ---- */

/*
 * The kernel's own list of RDMA devices, asked by netlink, does not have ours. Where it can't be
 * asked, libibverbs reads sysfs, which has both.
 */
EXPORTED(int, socket, (int domain, int type, int protocol));
int via_socket(int domain, int type, int protocol)
{
    if (RARELY(domain == AF_NETLINK && protocol == NETLINK_RDMA) && config_get())
        return failed_with(EPROTONOSUPPORT);
    int fd = real.socket(domain, type, protocol);
    return duplicated(-1, fd);
}

/*
 * Pages that are exchanged with the shared file must read as zeroes after they were dropped, and
 * keep other advice.
 */
EXPORTED(int, madvise, (void *addr, size_t len, int advice));
int via_madvise(void *addr, size_t len, int advice)
{
    int result;

    if (share_madvise(addr, len, advice, &result))
        return result < 0 ? failed_with(-result) : result;
    return real.madvise(addr, len, advice);
}

/* And they can't move as they are. */
EXPORTED(void *, mremap, (void *addr, size_t old_len, size_t new_len, int flags, ...));
void *via_mremap(void *addr, size_t old_len, size_t new_len, int flags, ...)
{
    va_list args;
    void *result;

    va_start(args, flags);
    void *to = flags & ~MREMAP_MAYMOVE ? va_arg(args, void *) : NULL;
    va_end(args);
    if (share_mremap(addr, old_len, new_len, flags, to, &result))
        return result;
    return sys_mremap(addr, old_len, new_len, flags, to);
}
