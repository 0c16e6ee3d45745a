/* SPDX-License-Identifier: MIT */
/* Rivals: each is a server and a client program, and a word about how to read its output. */
#include "rival.h"

#include "channel.h"
#include "cmd.h"
#include "cores.h"
#include "floor.h"
#include "where.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGS_MAX 24
#define OUTPUT_MAX 8192
#define CONNECT_TRIES 40
#define TIME_MAX_S 60
#define UDP_MAX 32768

const char *const rival_names[] = {"floor", "memcpy", "ucx", "libfabric", "udp", "iperf3", NULL};

static bool installed(const char *program)
{
    char path[4096];

    return where_program(program, path, sizeof(path)) == 0;
}

const char *rival_missing(enum rival rival)
{
    if (rival == RIVAL_UCX && !installed("ucx_perftest"))
        return "ucx_perftest is not installed (Debian: ucx-utils)";
    if (rival == RIVAL_LIBFABRIC && !installed("fi_pingpong"))
        return "fi_pingpong is not installed (Debian: libfabric-bin)";
    if (rival == RIVAL_IPERF3 && !installed("iperf3"))
        return "iperf3 is not installed (Debian: iperf3)";
    return NULL;
}

bool rival_plays(enum rival rival, const struct measure_case *which)
{
    bool two_sided = which->op == OP_SEND || which->op == OP_WRITE;

    switch (rival) {
    case RIVAL_FLOOR:
        return which->test == TEST_LAT && two_sided && which->size <= 64;
    case RIVAL_MEMCPY:
        return which->test == TEST_BW;
    case RIVAL_UCX:
        return two_sided || (which->op == OP_READ && which->test == TEST_BW);
    case RIVAL_LIBFABRIC:
        return which->test == TEST_LAT && which->op == OP_SEND;
    case RIVAL_UDP:
        return which->test == TEST_LAT && two_sided && which->size <= UDP_MAX;
    case RIVAL_IPERF3:
        return which->test == TEST_BW;
    default:
        return false;
    }
}

/* --- a pair of programs --- */

struct match {
    const char *server[ARGS_MAX];
    const char *client[ARGS_MAX];
    unsigned server_args;
    unsigned client_args;
    const char *environment; /* NAME=VALUE, may be NULL */
    int cpu;
    int other_cpu;
    /* what some of the arguments point to */
    char port[16];
    char size[24];
    char iters[24];
};

/* Start argv with its stdout in out_fd (-1: nowhere). Our NIC is not to be under it. */
static pid_t start(const struct match *match, const char *const *argv, int cpu, int out_fd)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    int null_fd = open("/dev/null", O_RDWR);

    dup2(null_fd, STDIN_FILENO);
    dup2(out_fd >= 0 ? out_fd : null_fd, STDOUT_FILENO);
    dup2(null_fd, STDERR_FILENO);
    unsetenv("LD_PRELOAD");
    if (match->environment != NULL)
        putenv(strdup(match->environment));
    cores_pin(cpu);
    alarm(TIME_MAX_S);
    execvp(argv[0], (char *const *)(uintptr_t)argv);
    _exit(127);
}

static void nap(long ms)
{
    struct timespec pause = {.tv_nsec = ms * 1000000};

    nanosleep(&pause, NULL);
}

static size_t read_output(int fd, char *output)
{
    size_t used = 0;
    ssize_t n;

    while ((n = read(fd, output + used, OUTPUT_MAX - 1 - used)) > 0)
        used += (size_t)n;
    output[used] = '\0';
    return used;
}

/* Run the client once. Returns its exit status, or -1. */
static int run_client(const struct match *match, char *output)
{
    int ends[2], status = -1;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    pid = start(match, match->client, match->cpu, ends[1]);
    close(ends[1]);
    read_output(ends[0], output);
    close(ends[0]);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    return status;
}

/*
 * The server needs a moment before it listens, and a client that comes too early gives up: it
 * is then started again.
 */
static int play(const struct match *match, char *output)
{
    pid_t server = start(match, match->server, match->other_cpu, -1);
    int status = -1;

    for (int i = 0; server > 0 && status != 0 && i < CONNECT_TRIES; i++) {
        nap(25);
        if (waitpid(server, NULL, WNOHANG) == server)
            server = -1;
        else
            status = run_client(match, output);
    }
    if (server > 0) {
        nap(25);
        kill(server, SIGKILL);
        waitpid(server, NULL, 0);
    }
    if (status == 0)
        return CMD_OK;
    complain("%s did not run to its end", match->client[0]);
    return CMD_FAILED;
}

/* A port nobody uses now. */
static unsigned free_port(void)
{
    uint16_t port = 0;
    int fd;

    if (channel_listen(0, &fd, &port) == 0)
        close(fd);
    return port;
}

static void match_begin(struct match *match, const char *program)
{
    snprintf(match->port, sizeof(match->port), "%u", free_port());
    match->server[match->server_args++] = program;
    match->client[match->client_args++] = program;
}

/* --- UCX --- */

static const char *ucx_test(const struct measure_case *which, bool low_level)
{
    if (which->test == TEST_LAT) {
        if (low_level)
            return which->op == OP_SEND ? "am_lat" : "put_lat";
        return which->op == OP_SEND ? "tag_lat" : "ucp_put_lat";
    }
    if (low_level)
        return which->op == OP_SEND ? "am_bw" : "put_bw";
    if (which->op == OP_READ)
        return "ucp_get";
    return which->op == OP_SEND ? "tag_bw" : "ucp_put_bw";
}

/* About a quarter of a second. */
static unsigned long ucx_iters(const struct measure_case *which)
{
    unsigned long iters = which->test == TEST_LAT ? 1000000 : 4000000;
    unsigned long most = (unsigned long)((UINT64_C(4) << 30) / which->size) + 10;

    return iters < most ? iters : most;
}

/* iterations,percentile us,average us,overall us,MB/s,overall MB/s,messages,overall messages */
static bool ucx_value(const char *output, enum measure_test test, double *value_out)
{
    const char *line = strrchr(output, '\n');
    double us, mb, messages;

    while (line != NULL && line > output && line[-1] != '\n')
        line--;
    if (line == NULL ||
        sscanf(line, "%*[0-9],%lf,%*[^,],%*[^,],%*[^,],%lf,%*[^,],%lf", &us, &mb, &messages) != 3)
        return false;
    if (test == TEST_LAT)
        *value_out = us * 1000;
    else
        *value_out = test == TEST_BW ? mb * 1048576 : messages;
    return true;
}

static void add_args(struct match *match, const char *const *args, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        match->server[match->server_args++] = args[i];
        match->client[match->client_args++] = args[i];
    }
}

/*
 * Small messages: UCX's lower interface over POSIX shared memory, its fastest path; active
 * messages over 64 bytes must be copied by it. Large ones: the upper interface, which picks the
 * best way itself.
 */
static void ucx_args(const struct measure_case *which, struct match *match)
{
    bool low_level = which->size <= 4096 && which->op != OP_READ;
    const char *const all[] = {"-p", match->port,  "-s", match->size,
                               "-n", match->iters, "-t", ucx_test(which, low_level),
                               "-v", "-f"};
    const char *const low[] = {"-d", "memory", "-x", "posix"};
    const char *const copied[] = {"-D", "bcopy"};

    snprintf(match->size, sizeof(match->size), "%zu", which->size);
    snprintf(match->iters, sizeof(match->iters), "%lu", ucx_iters(which));
    add_args(match, all, sizeof(all) / sizeof(all[0]));
    if (low_level)
        add_args(match, low, sizeof(low) / sizeof(low[0]));
    else
        match->environment = "UCX_TLS=posix,sysv,cma,self";
    if (low_level && which->op == OP_SEND && which->size > 64)
        add_args(match, copied, sizeof(copied) / sizeof(copied[0]));
}

static int measure_ucx(const struct measure_case *which, struct match *match, double *value_out)
{
    char output[OUTPUT_MAX];

    match_begin(match, "ucx_perftest");
    match->client[match->client_args++] = "127.0.0.1";
    ucx_args(which, match);
    if (play(match, output) != CMD_OK)
        return CMD_FAILED;
    if (ucx_value(output, which->test, value_out))
        return CMD_OK;
    complain("ucx_perftest answered something else than its table");
    return CMD_FAILED;
}

/* --- libfabric --- */

/* The last line: bytes, sent, acknowledged, total, time, MB/s, us a transfer, Mxfers/s. */
static bool libfabric_value(const char *output, double *value_out)
{
    const char *line = strrchr(output, '\n');
    double us;

    while (line != NULL && line > output && line[-1] != '\n')
        line--;
    if (line == NULL || sscanf(line, "%*s %*s %*s %*s %*s %*s %lf", &us) != 1)
        return false;
    *value_out = us * 1000;
    return true;
}

static int measure_libfabric(const struct measure_case *which, struct match *match,
                             double *value_out)
{
    char output[OUTPUT_MAX];
    const char *const args[] = {"-p", "shm", "-e", "rdm", "-I", "100000", "-S", match->size};

    match_begin(match, "fi_pingpong");
    snprintf(match->size, sizeof(match->size), "%zu", which->size);
    add_args(match, args, sizeof(args) / sizeof(args[0]));
    match->server[match->server_args++] = "-B";
    match->server[match->server_args++] = match->port;
    match->client[match->client_args++] = "-P";
    match->client[match->client_args++] = match->port;
    match->client[match->client_args++] = "127.0.0.1";
    if (play(match, output) != CMD_OK)
        return CMD_FAILED;
    if (libfabric_value(output, value_out))
        return CMD_OK;
    complain("fi_pingpong answered something else than its table");
    return CMD_FAILED;
}

/* --- iperf3 --- */

/* "... 25000 Mbits/sec   receiver" */
static bool iperf3_value(const char *output, double *value_out)
{
    const char *line = strstr(output, "receiver");
    double mbits;

    while (line != NULL && line > output && line[-1] != '\n')
        line--;
    if (line == NULL || (line = strstr(line, "Bytes")) == NULL ||
        sscanf(line, "Bytes %lf Mbits/sec", &mbits) != 1)
        return false;
    *value_out = mbits * 1e6 / 8;
    return true;
}

/* One stream of TCP for a second. */
static int measure_iperf3(struct match *match, double *value_out)
{
    char output[OUTPUT_MAX];
    const char *const client[] = {"-c", "127.0.0.1", "-t", "1", "-f", "m"};

    match_begin(match, "iperf3");
    match->server[match->server_args++] = "-s";
    for (unsigned i = 0; i < sizeof(client) / sizeof(client[0]); i++)
        match->client[match->client_args++] = client[i];
    add_args(match, (const char *const[]){"-p", match->port}, 2);
    if (play(match, output) != CMD_OK)
        return CMD_FAILED;
    if (iperf3_value(output, value_out))
        return CMD_OK;
    complain("iperf3 answered something else than its table");
    return CMD_FAILED;
}

int rival_measure(enum rival rival, const struct measure_case *which, int cpu, int other_cpu,
                  double *value_out)
{
    struct match match = {.cpu = cpu, .other_cpu = other_cpu};

    switch (rival) {
    case RIVAL_FLOOR:
        return floor_cache_line(cpu, other_cpu, value_out);
    case RIVAL_MEMCPY:
        return floor_memcpy(which->size, value_out);
    case RIVAL_UCX:
        return measure_ucx(which, &match, value_out);
    case RIVAL_LIBFABRIC:
        return measure_libfabric(which, &match, value_out);
    case RIVAL_UDP:
        return floor_udp(which->size, cpu, other_cpu, value_out);
    case RIVAL_IPERF3:
        return measure_iperf3(&match, value_out);
    default:
        return CMD_FAILED;
    }
}
