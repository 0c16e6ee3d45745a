/* SPDX-License-Identifier: MIT */
/* What the kernel's UDP can do between two processes that poll: the floor of the wire. */
#include "floor.h"

#include "clock.h"
#include "cmd.h"
#include "cores.h"
#include "hist.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WARM_UP 2000u
#define ROUNDS 30000u
#define PATIENCE_NS UINT64_C(5000000000)

struct court {
    int ends[2]; /* connected to each other */
    size_t size;
    char *ball;
};

/* Poll until it comes; false: it is lost. */
static bool await(const struct court *court, unsigned end)
{
    uint64_t began = clock_ns();

    for (unsigned tries = 1;; tries++) {
        if (recv(court->ends[end], court->ball, court->size, MSG_DONTWAIT) >= 0)
            return true;
        if (tries % 4096 == 0 && clock_ns() - began > PATIENCE_NS)
            return false;
    }
}

static bool hit(const struct court *court, unsigned end)
{
    return send(court->ends[end], court->ball, court->size, 0) >= 0;
}

static void return_balls(void *arg)
{
    const struct court *court = arg;

    for (unsigned i = 0; i < WARM_UP + ROUNDS; i++) {
        if (!await(court, 1) || !hit(court, 1))
            return;
    }
}

static int serve_balls(const struct court *court, struct hist *hist)
{
    uint64_t last = clock_ticks(), now;

    for (unsigned i = 0; i < WARM_UP + ROUNDS; i++) {
        if (!hit(court, 0) || !await(court, 0)) {
            complain("a datagram was lost on the loopback interface");
            return CMD_FAILED;
        }
        now = clock_ticks();
        if (i >= WARM_UP)
            hist_add(hist, now - last);
        last = now;
    }
    return CMD_OK;
}

static int open_ends(struct court *court)
{
    struct sockaddr_in names[2];

    for (unsigned i = 0; i < 2; i++) {
        socklen_t size = sizeof(names[i]);

        names[i] =
            (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        court->ends[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (court->ends[i] < 0 ||
            bind(court->ends[i], (struct sockaddr *)&names[i], sizeof(names[i])) != 0 ||
            getsockname(court->ends[i], (struct sockaddr *)&names[i], &size) != 0)
            return -errno;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (connect(court->ends[i], (struct sockaddr *)&names[!i], sizeof(names[i])) != 0)
            return -errno;
    }
    return 0;
}

static int play(struct court *court, int cpu, int other_cpu, struct hist *hist)
{
    pid_t other = cores_start(other_cpu, return_balls, court);

    if (other < 0)
        return CMD_FAILED;
    cores_pin(cpu);
    int code = serve_balls(court, hist);
    if (code != CMD_OK)
        kill(other, SIGKILL);
    waitpid(other, NULL, 0);
    return code;
}

int floor_udp(size_t size, int cpu, int other_cpu, double *one_way_ns_out)
{
    struct court court = {.ends = {-1, -1}, .size = size, .ball = calloc(1, size)};
    struct hist *hist = malloc(sizeof(*hist));
    int code = CMD_FAILED;
    int error = open_ends(&court);

    if (error != 0)
        complain("no UDP sockets on the loopback interface: %s", strerror(-error));
    if (error == 0 && hist != NULL && court.ball != NULL) {
        hist_reset(hist);
        code = play(&court, cpu, other_cpu, hist);
        *one_way_ns_out = hist_middle(hist) * clock_ns_per_tick() / 2;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (court.ends[i] >= 0)
            close(court.ends[i]);
    }
    free(court.ball);
    free(hist);
    return code;
}
