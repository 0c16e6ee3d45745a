/* SPDX-License-Identifier: MIT */
/* Peers: functions run for a test in a thread or a forked process, called over a socket pair. */
#include "t.h"
#include "t_internal.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PEERS_MAX = 64, CALL_MS = 60000, STOP_MS = 10000 };

struct t_peer {
    enum t_peer_kind kind;
    bool alive, busy;
    int fd;       /* the caller's end; -1 when closed */
    int their_fd; /* the end of a thread peer, which closes it itself */
    pid_t pid;
    pthread_t thread;
    void *state;
    void *arg; /* of the call under way: where the answer goes */
    size_t size;
    t_peer_fn *fn;
};

struct request {
    t_peer_fn *fn;
    size_t size;
    _Alignas(16) char arg[T_ARG_MAX];
};

struct answer {
    struct t_report report;
    _Alignas(16) char arg[T_ARG_MAX];
};

/* All peers of this process. A forked peer closes the sockets of its elder brothers by this list,
 * or they would never see the end of theirs. */
static struct t_peer *peers[PEERS_MAX];
static uint64_t processes; /* started so far */

static ssize_t receive(int fd, void *buf, size_t size)
{
    ssize_t got;

    do {
        got = recv(fd, buf, size, 0);
    } while (got < 0 && errno == EINTR);
    return got;
}

/* Runs one request, and collects its failures. */
static void serve_one(void **state, struct request *request, struct answer *answer)
{
    struct t_catch frame = {.failures = 0};
    struct t_catch *old = t_catch_set(&frame);

    memset(&answer->report, 0, sizeof(answer->report));
    if (sigsetjmp(frame.env, 0) == 0) {
        request->fn(state, request->arg);
    } else {
        answer->report.thrown = true;
    }
    t_catch_set(old);
    answer->report.failures = frame.failures;
    answer->report.skipped = frame.skipped;
    memcpy(answer->report.message, frame.message, sizeof(frame.message));
    memcpy(answer->arg, request->arg, request->size);
}

static void serve(int fd, void **state)
{
    struct request *request = malloc(sizeof(*request));
    struct answer *answer = malloc(sizeof(*answer));

    while (request && answer && receive(fd, request, sizeof(*request)) > 0) {
        size_t size = offsetof(struct answer, arg) + request->size;

        serve_one(state, request, answer);
        if (send(fd, answer, size, MSG_NOSIGNAL) < 0) {
            break;
        }
    }
    free(request);
    free(answer);
    close(fd);
}

static void *thread_main(void *arg)
{
    struct t_peer *peer = arg;

    serve(peer->their_fd, &peer->state);
    return NULL;
}

_Noreturn static void process_main(int fd, pid_t parent, uint64_t number)
{
    void *state = NULL;

    t_rand_split(number);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
    for (int i = 0; i < PEERS_MAX; i++) {
        if (peers[i] && peers[i]->fd >= 0) {
            close(peers[i]->fd);
        }
    }
    serve(fd, &state);
    _exit(0);
}

static void start_process(struct t_peer *peer, int fd)
{
    pid_t parent = getpid();

    processes++;
    peer->pid = fork();
    T_ASSERT(peer->pid >= 0, "fork: %s", strerror(errno));
    if (peer->pid == 0) {
        process_main(fd, parent, processes);
    }
    close(fd);
}

static void forget(struct t_peer *peer)
{
    for (int i = 0; i < PEERS_MAX; i++) {
        if (peers[i] == peer) {
            peers[i] = NULL;
        }
    }
}

static void remember(struct t_peer *peer)
{
    for (int i = 0; i < PEERS_MAX; i++) {
        if (!peers[i]) {
            peers[i] = peer;
            return;
        }
    }
    T_FAIL("too many peers");
}

static void close_fd(struct t_peer *peer)
{
    if (peer->fd >= 0) {
        close(peer->fd);
        peer->fd = -1;
    }
}

/* Waits for the process's end; returns its wait status, or -1 after the deadline. */
static int reap(struct t_peer *peer, int ms)
{
    int64_t deadline = t_deadline(ms);
    int status = -1;

    while (waitpid(peer->pid, &status, WNOHANG) == 0) {
        if (t_expired(deadline)) {
            return -1;
        }
        poll(NULL, 0, 1);
    }
    return status;
}

static bool join(struct t_peer *peer, int ms)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(ms / 1000 * t_slow()) + 1;
    return pthread_timedjoin_np(peer->thread, NULL, &until) == 0;
}

/* After the test, whatever became of it: no process and no thread stays. */
static void peer_cleanup(void *arg)
{
    struct t_peer *peer = arg;

    close_fd(peer);
    if (peer->alive && peer->kind == T_PROCESS && reap(peer, 1000) == -1) {
        kill(peer->pid, SIGKILL);
        reap(peer, STOP_MS);
    }
    if (peer->alive && peer->kind == T_THREAD && !join(peer, 2000)) {
        pthread_detach(peer->thread);
        return; /* it still uses the peer: leave that to it */
    }
    forget(peer);
    free(peer);
}

struct t_peer *t_peer_start(enum t_peer_kind kind)
{
    struct t_peer *peer = calloc(1, sizeof(*peer));
    int fds[2];

    T_ASSERT(peer != NULL);
    peer->kind = kind;
    peer->fd = -1;
    t_defer(peer_cleanup, peer);
    if (kind != T_INLINE) {
        T_ASSERT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0, "%s",
                 strerror(errno));
        peer->fd = fds[0];
        peer->their_fd = fds[1];
        remember(peer);
    }
    if (kind == T_PROCESS) {
        start_process(peer, fds[1]);
    } else if (kind == T_THREAD) {
        T_EQ(pthread_create(&peer->thread, NULL, thread_main, peer), 0);
    }
    peer->alive = true;
    t_hold(1, "peer");
    return peer;
}

void t_peer_begin(struct t_peer *peer, t_peer_fn *fn, void *arg, size_t size)
{
    struct request *request;
    size_t whole = offsetof(struct request, arg) + size;

    T_ASSERT(peer->alive && !peer->busy && size <= T_ARG_MAX);
    if (peer->kind == T_INLINE) {
        fn(&peer->state, arg);
        peer->busy = true;
        return;
    }
    request = malloc(sizeof(*request));
    T_ASSERT(request != NULL);
    request->fn = fn;
    request->size = size;
    memcpy(request->arg, arg, size);
    ssize_t sent = send(peer->fd, request, whole, MSG_NOSIGNAL);
    free(request);
    T_ASSERT(sent == (ssize_t)whole, "the peer is gone: %s", strerror(errno));
    peer->arg = arg;
    peer->size = size;
    peer->busy = true;
}

/* The peer closed its socket instead of answering: say how it died. */
_Noreturn static void fail_died(struct t_peer *peer)
{
    int status = peer->kind == T_PROCESS ? reap(peer, STOP_MS) : -1;

    if (status != -1) {
        peer->alive = false;
        t_hold(-1, "peer");
    }
    if (status != -1 && WIFSIGNALED(status)) {
        T_FAIL("the peer process died of signal %d (%s)", WTERMSIG(status),
               strsignal(WTERMSIG(status)));
    }
    T_FAIL("the peer ended without an answer (wait status %d)", status);
}

void t_peer_finish(struct t_peer *peer)
{
    const char *who = peer->kind == T_PROCESS ? "peer process" : "peer thread";
    struct t_report report;
    struct answer *answer;
    ssize_t got;

    T_ASSERT(peer->busy);
    peer->busy = false;
    if (peer->kind == T_INLINE) {
        return;
    }
    T_ASSERT(t_readable(peer->fd, CALL_MS), "the %s does not answer", who);
    answer = malloc(sizeof(*answer));
    T_ASSERT(answer != NULL);
    got = receive(peer->fd, answer, sizeof(*answer));
    if (got <= 0) {
        free(answer);
        fail_died(peer);
    }
    memcpy(peer->arg, answer->arg, peer->size);
    report = answer->report;
    free(answer);
    t_take_over(&report, who);
}

void t_peer_call(struct t_peer *peer, t_peer_fn *fn, void *arg, size_t size)
{
    t_peer_begin(peer, fn, arg, size);
    t_peer_finish(peer);
}

void *t_peer_state(struct t_peer *peer)
{
    return peer->kind == T_PROCESS ? NULL : peer->state;
}

enum t_peer_kind t_peer_kind(const struct t_peer *peer)
{
    return peer->kind;
}

static void gone(struct t_peer *peer)
{
    peer->alive = false;
    peer->busy = false;
    t_hold(-1, "peer");
}

void t_peer_kill(struct t_peer *peer)
{
    T_ASSERT(peer->kind == T_PROCESS && peer->alive);
    kill(peer->pid, SIGKILL);
    T_ASSERT(reap(peer, STOP_MS) != -1, "the peer survives SIGKILL");
    close_fd(peer);
    gone(peer);
}

void t_peer_stop(struct t_peer *peer)
{
    T_ASSERT(peer->alive);
    close_fd(peer);
    if (peer->kind == T_PROCESS) {
        int status = reap(peer, STOP_MS);

        T_ASSERT(status != -1, "the peer process does not end");
        gone(peer);
        T_ASSERT(status == 0, "the peer process ended with wait status 0x%x", (unsigned)status);
        return;
    }
    if (peer->kind == T_THREAD) {
        T_ASSERT(join(peer, STOP_MS), "the peer thread does not end");
    }
    gone(peer);
}
