/* SPDX-License-Identifier: MIT */
/*
 * The runtime directory. The kernel is asked, not libc: fakeroot would tell of another user.
 * Others may write in the directory above it, so nothing is trusted: it
 * must be a directory and no symbolic link, ours, and closed to everybody else. After that check
 * nobody but the user (and root) can replace it, because the directory above is sticky.
 */
#include "core/config_host.h"
#include "core/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned user_id(void)
{
    return (unsigned)syscall(SYS_geteuid);
}

struct dir_request {
    const char *path;
    const char *origin; /* how the path came about, for the error line */
    char *err;
    size_t err_size;
};

__attribute__((format(printf, 3, 4))) static int dir_refuse(const struct dir_request *request,
                                                            int error, const char *why, ...)
{
    char reason[128];
    va_list args;

    va_start(args, why);
    vsnprintf(reason, sizeof reason, why, args);
    va_end(args);
    snprintf(request->err, request->err_size,
             "%s: %s %s; write a directory of your own, mode 0700, in VIADUCT_RUNTIME_DIR",
             request->origin, request->path, reason);
    return -error;
}

/* Make the directory if it is missing, then look at what is really there. */
static int dir_prepare(const struct dir_request *request)
{
    struct stat st;

    if (mkdir(request->path, 0700) != 0 && errno != EEXIST)
        return dir_refuse(request, errno, "can't be made (%s)", strerror(errno));
    int fd = sys_open(request->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0)
        return dir_refuse(request, errno, "can't be used (%s)", strerror(errno));
    int failed = sys_fstat(fd, &st);
    sys_close(fd);
    if (failed)
        return dir_refuse(request, EIO, "can't be looked at");
    if (st.st_uid != user_id())
        return dir_refuse(request, EPERM, "belongs to user %u, not to you", (unsigned)st.st_uid);
    if ((st.st_mode & 0777) != 0700)
        return dir_refuse(request, EPERM, "has mode %04o, not 0700 (chmod 700 mends it)",
                          (unsigned)(st.st_mode & 0777));
    return 0;
}

/* Is it a directory in which we may make files? */
static bool is_usable(const char *path, struct stat *st)
{
    int fd = sys_open(path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    bool good = fd >= 0 && sys_fstat(fd, st) == 0 && sys_access(path, W_OK | X_OK) == 0;

    if (fd >= 0)
        sys_close(fd);
    return good;
}

/* $XDG_RUNTIME_DIR counts only if it is the user's own: sudo and su often leave another's. */
static bool xdg_is_ours(const char *xdg)
{
    struct stat st;

    return xdg && xdg[0] == '/' && is_usable(xdg, &st) && st.st_uid == user_id();
}

/*
 * Memory (/dev/shm) is better than /tmp: nothing there is removed because of its age. Which of the
 * two it is depends on the host only, so all processes of a user agree.
 */
static const char *shared_directory(void)
{
    struct stat st;

    return is_usable("/dev/shm", &st) ? "/dev/shm" : "/tmp";
}

int host_runtime_dir(const char *wanted, const char *xdg_runtime_dir, size_t size, char *out,
                     size_t err_size, char *err)
{
    struct dir_request request = {.path = out, .err = err, .err_size = err_size};
    char origin[320];
    int len;

    if (wanted) {
        snprintf(origin, sizeof origin, "VIADUCT_RUNTIME_DIR=\"%.256s\"", wanted);
        request.path = "the path";
        request.origin = origin;
        if (wanted[0] != '/')
            return dir_refuse(&request, EINVAL, "is not absolute");
        len = snprintf(out, size, "%s", wanted);
    } else if (xdg_is_ours(xdg_runtime_dir)) {
        request.origin = "the runtime directory in XDG_RUNTIME_DIR";
        len = snprintf(out, size, "%s/viaduct", xdg_runtime_dir);
    } else {
        request.origin = "the default runtime directory";
        len = snprintf(out, size, "%s/viaduct-%u", shared_directory(), user_id());
    }
    if (len < 0 || (size_t)len >= size) {
        request.path = "the path";
        return dir_refuse(&request, ENAMETOOLONG, "is longer than %zu characters", size - 1);
    }
    while (len > 1 && out[len - 1] == '/') /* a trailing slash would follow a symbolic link */
        out[--len] = '\0';
    request.path = out;
    return dir_prepare(&request);
}
