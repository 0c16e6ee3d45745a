/* SPDX-License-Identifier: MIT */
/* The two sides of a measurement: starting, reaching and being a server. */
#include "sides.h"

#include "channel.h"
#include "cmd.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

int side_start(serve_fn *serve, const void *options, int cpu, int *channel_out, pid_t *pid_out)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        complain("socketpair failed: %s", strerror(errno));
        return CMD_FAILED;
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) {
        complain("fork failed: %s", strerror(errno));
        close(ends[0]);
        close(ends[1]);
        return CMD_FAILED;
    }
    if (pid == 0) {
        close(ends[0]);
        _exit(serve(ends[1], options, cpu));
    }
    close(ends[1]);
    *channel_out = ends[0];
    *pid_out = pid;
    return CMD_OK;
}

int side_reach(const char *host, uint16_t port, int *channel_out)
{
    int error = channel_connect(host, port, channel_out);

    if (error == 0)
        return CMD_OK;
    complain("no server answers at %s, TCP port %u: %s; start one there with '%s server'", host,
             (unsigned)port, strerror(-error), cmd_name);
    return CMD_FAILED;
}

int side_end(pid_t pid, int code)
{
    int status;

    if (pid == 0)
        return code;
    if (code != CMD_OK)
        kill(pid, SIGTERM); /* it would only add that we are gone */
    if (waitpid(pid, &status, 0) != pid || code != CMD_OK)
        return code;
    if (WIFSIGNALED(status))
        complain("the server side was killed by signal %d", WTERMSIG(status));
    return status == 0 ? CMD_OK : CMD_FAILED;
}

static int serve_in_turn(int listen_fd, bool once, serve_fn *serve, const void *options, int cpu)
{
    int channel, code;

    do {
        int error = channel_accept(listen_fd, &channel);

        if (error != 0) {
            complain("accept failed: %s", strerror(-error));
            return CMD_FAILED;
        }
        code = serve(channel, options, cpu);
        close(channel);
    } while (!once);
    return code;
}

int side_listen(uint16_t port, bool once, serve_fn *serve, const void *options, int cpu)
{
    int listen_fd;
    int error = channel_listen(port, &listen_fd, &port);

    if (error != 0) {
        complain("--port: can't listen on TCP port %u: %s", (unsigned)port, strerror(-error));
        return CMD_FAILED;
    }
    complain("waiting for clients on TCP port %u", port);
    int code = serve_in_turn(listen_fd, once, serve, options, cpu);
    close(listen_fd);
    return code;
}
