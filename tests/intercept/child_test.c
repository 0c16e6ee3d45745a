/* SPDX-License-Identifier: MIT */
/*
 * Children: one made by fork has dead contexts and may open its own, one made by vfork changes
 * nothing in its parent, and a program that is executed starts afresh.
 */
#include "device.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* What the device says of a command that does not exist: anything but that it is dead. */
static int error_of_write(int fd)
{
    char rubbish[64];

    memset(rubbish, 0xff, sizeof rubbish);
    return write(fd, rubbish, sizeof rubbish) < 0 ? errno : 0;
}

static int status_of(pid_t child)
{
    int status = -1;

    T_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

T_TEST(child, fork)
{
    /* Shows that the child's context answers EIO, and that the parent's lives on. */
    int fd = device_open();

    T_ASSERT(is_device(fd), "%s", strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        if (error_of_write(fd) != EIO)
            _exit(1);
        close(fd);
        fd = device_open();
        if (!is_device(fd) || error_of_write(fd) == EIO)
            _exit(2);
        _exit(0);
    }
    T_EQ(status_of(child), 0);
    T_CHECK(is_device(fd));
    T_CHECK(error_of_write(fd) != EIO);
    close(fd);
    t_end();
}

T_TEST(child, vfork)
{
    /* Shows that what a child closes before it executes stays open in the parent. */
    int fd = device_open();
    int copy = dup(fd);

    T_ASSERT(is_device(fd));
    pid_t child = vfork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork): that's the test
    if (child == 0) {
        /* What Python's subprocess does there, though the manual forbids it. */
        // NOLINTBEGIN(clang-analyzer-unix.Vfork)
        close(fd);
        dup2(1, copy);
        close_range(3, ~0u, 0);
        // NOLINTEND(clang-analyzer-unix.Vfork)
        _exit(0);
    }
    T_EQ(status_of(child), 0);
    T_CHECK(is_device(fd) && is_device(copy));
    T_CHECK(error_of_write(copy) != EIO);
    close(fd);
    T_CHECK(is_device(copy));
    close(copy);
    t_end();
}

static int run(const char *script, const char *argument)
{
    char *argv[] = {(char *)"sh", (char *)"-c",     (char *)script,
                    (char *)"sh", (char *)argument, NULL};
    pid_t child;

    T_EQ(posix_spawn(&child, "/bin/sh", NULL, NULL, argv, environ), 0);
    return status_of(child);
}

T_TEST(child, exec)
{
    /* Shows that an executed program has no descriptor of ours, but sees the devices. */
    int fd = device_open();
    char number[16];

    T_ASSERT(is_device(fd));
    snprintf(number, sizeof number, "%d", fd);
    T_EQ(run("! [ -e /proc/self/fd/$1 ]", number), 0);
    T_EQ(run("for node in /dev/infiniband/uverbs*; do [ -c $node ] || exit 1; done", ""), 0);
    T_EQ(run("cd /sys/class/infiniband/via0 && read -r type <node_type && [ \"$type\" = '1: CA' ]",
             ""),
         0);
    close(fd);
    t_end();
}

/* What a program says on its stderr, at most `size` - 1 characters. */
static void errors_of(const char *script, char *buf, size_t size)
{
    char command[512];
    FILE *pipe;

    snprintf(command, sizeof command, "{ %s; } 2>&1 >/dev/null", script);
    pipe = popen(command, "re"); // NOLINT(cert-env33-c): a fixed script, and a shell is the test
    T_ASSERT(pipe);
    buf[fread(buf, 1, size - 1, pipe)] = '\0';
    pclose(pipe);
}

T_TEST(child, quiet)
{
    /* Shows that a bad configuration is told by one line, to programs that look for devices only.
     */
    char text[1024];

    setenv("VIADUCT_NICS", "rubbish", 1);
    errors_of("cat /dev/null", text, sizeof text);
    T_STREQ(text, "");
    errors_of("cat /sys/class/infiniband/via0/node_type /sys/class/infiniband/via1/node_type", text,
              sizeof text);
    const char *line = strstr(text, "viaduct: VIADUCT_NICS=\"rubbish\"");
    T_ASSERT(line, "%s", text);
    T_CHECK(!strstr(line + 1, "viaduct: "), "%s", text);
    T_CHECK(strstr(text, "No such file"), "%s", text);
    setenv("VIADUCT_NICS", "via0=192.0.2.77,via1=127.0.0.2", 1);
    t_end();
}
