/* SPDX-License-Identifier: MIT */
/*
 * Completion events that another process writes: into which channel, how often, and what becomes of
 * them if it dies over it.
 */
#include "ends.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct side_opt with_events = {.events = true};

static void arm_recv(struct end *e)
{
    struct side *s = e->info.share;

    T_EQ(ibv_req_notify_cq(s->recv_cq, 0), 0);
}

static void take_event(struct side *s)
{
    struct ibv_cq *cq = NULL;
    void *context;

    T_ASSERT(t_readable(s->channel->fd, WAIT_MS), "no completion event");
    T_EQ(ibv_get_cq_event(s->channel, &cq, &context), 0);
    T_ASSERT(cq == s->recv_cq);
    ibv_ack_cq_events(cq, 1);
}

static void send_to_a(struct pair *p)
{
    e_recv(p->a, &(struct post){.id = 1, .off = p->rx, .len = 64});
    e_send(p->b, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 64});
    e_done(p->b, 2, IBV_WC_SEND);
    e_got(p->a, 1, IBV_WC_RECV, 64);
}

/* ---- dying over it ---- */

enum { CHANNEL_ROUNDS = 20, RECORD = 8 };

/* The process is killed when its thread writes an event: before that, or after. */
struct trap {
    bool write_first;
    bool failed;
    _Atomic int listener; /* 0: not yet there; -1: refused */
};

static int install(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RECORD, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                        &program);
}

/* Of the thread's writes only an event goes into a pipe. */
static bool is_event(const struct seccomp_notif *asked)
{
    struct stat status;

    return fstat((int)asked->data.args[0], &status) == 0 && S_ISFIFO(status.st_mode);
}

static void *trapper(void *argument)
{
    struct trap *trap = argument;

    while (!trap->listener)
        sched_yield();
    while (trap->listener > 0) {
        struct seccomp_notif asked = {0};

        if (ioctl(trap->listener, SECCOMP_IOCTL_NOTIF_RECV, &asked))
            continue;
        if (is_event(&asked)) {
            const void *record = (const void *)(uintptr_t)asked.data.args[1];

            if (trap->write_first)
                syscall(SYS_write, (int)asked.data.args[0], record, RECORD);
            kill(getpid(), SIGKILL);
        }
        struct seccomp_notif_resp answer = {.id = asked.id,
                                            .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        ioctl(trap->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    return NULL;
}

static void set_trap(struct side *s, void *arg)
{
    static struct trap trap;
    pthread_t thread;

    (void)s;
    trap.write_first = ((struct trap *)arg)->write_first;
    /* Before the filter: a thread has that of its creator. */
    T_EQ(pthread_create(&thread, NULL, trapper, &trap), 0);
    trap.listener = install();
    ((struct trap *)arg)->failed = trap.listener < 0;
}

static void post_last(struct side *s, void *arg)
{
    struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};

    (void)arg;
    T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
}

/* Until b writes a's events itself; the first ones it asks a's engine for. */
static void teach_channel(struct pair *p)
{
    for (int i = 0; i < CHANNEL_ROUNDS; i++) {
        arm_recv(p->a);
        send_to_a(p);
        take_event(p->a->info.share);
    }
}

static void die_over_an_event(bool write_first)
{
    struct pair *p = pair_open(TWO_PROCESSES, &with_events);
    struct trap trap = {.write_first = write_first};
    struct side *s = p->a->info.share;

    teach_channel(p);
    e_run(p->b, set_trap, &trap, sizeof(trap));
    if (trap.failed)
        T_SKIP("no seccomp notifications here");
    arm_recv(p->a);
    e_recv(p->a, &(struct post){.id = 3, .off = p->rx, .len = 64});
    e_begin(p->b, post_last, NULL, 0);
    take_event(s);
    pair_kill_b(p);
    e_event(p->a, IBV_EVENT_QP_FATAL, 0);
    e_got(p->a, 3, IBV_WC_RECV, 0);
    /* Of an event that was written, too, there may be one more. Destroying waits for neither. */
    while (t_readable(s->channel->fd, QUIET_MS))
        take_event(s);
    pair_close_loose(p);
}

T_TEST(event, initiator_killed_before_it_wrote)
{
    /* It had claimed the event. The program hears of the completion all the same. */
    die_over_an_event(false);
}

T_TEST(event, initiator_killed_after_it_wrote)
{
    /* It had not counted the event. The CQ's account still closes. */
    die_over_an_event(true);
}

T_TEST(event, target_killed_asleep)
{
    /* Its channel has no reader any more: writing to it raises no signal in us. */
    for (int i = 0; i < 5; i++) {
        struct side_opt opt = {.events = true, .timeout = 12, .retry_cnt = 3};
        struct pair *p = pair_open(TWO_PROCESSES, &opt);
        struct ibv_wc wc = {0};
        uint64_t id = 1;

        teach_channel(p);
        arm_recv(p->a);
        e_recv_many(p->b, 0, 1, 32, p->rx, 64);
        pair_kill_b(p);
        while (wc.status == IBV_WC_SUCCESS) {
            e_send(p->a, &(struct post){.id = id++, .op = IBV_WR_SEND, .len = 64});
            wc = e_wait(p->a, SEND_CQ);
        }
        pair_close_loose(p);
    }
}

/* ---- how often ---- */

enum { INITIATORS = 4, EXACT_ROUNDS = 300 };

struct crowd {
    struct end target, initiator[INITIATORS];
};

static void crowd_open(struct crowd *crowd)
{
    struct side_opt opt = {.events = true, .unconnected = true}, many = opt;

    many.qps = INITIATORS;
    for (int i = 0; i < INITIATORS; i++)
        end_start(&crowd->initiator[i], T_PROCESS);
    end_start(&crowd->target, T_INLINE);
    end_open(&crowd->target, &many, NULL);
    for (int i = 0; i < INITIATORS; i++) {
        end_open(&crowd->initiator[i], &opt, NULL);
        end_connect(&crowd->initiator[i], 0, &crowd->target, i);
        end_connect(&crowd->target, i, &crowd->initiator[i], 0);
        e_recv_many(&crowd->target, i, 1, 2, 0, 0);
    }
}

static void post_and_wait(struct side *s, void *arg)
{
    post_last(s, arg);
    T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
}

static void crowd_sends(struct crowd *crowd)
{
    for (int i = 0; i < INITIATORS; i++)
        e_begin(&crowd->initiator[i], post_and_wait, NULL, 0);
    for (int i = 0; i < INITIATORS; i++)
        e_finish(&crowd->initiator[i]);
}

static void take_all_and_repost(struct crowd *crowd)
{
    struct side *s = crowd->target.info.share;
    struct ibv_recv_wr *bad, wr = {.wr_id = 1};

    for (int i = 0; i < INITIATORS; i++) {
        struct ibv_wc wc = cq_wait(s->recv_cq);

        T_EQ(wc.status, IBV_WC_SUCCESS);
        for (int q = 0; q < INITIATORS; q++) {
            if (s->qp[q]->qp_num == wc.qp_num)
                T_EQ(ibv_post_recv(s->qp[q], &wr, &bad), 0);
        }
    }
}

T_TEST(event, one_for_many_initiators)
{
    /* Several processes complete something for an armed CQ at once: one of them makes the event. */
    static struct crowd crowd; /* what is deferred looks at it, too */

    crowd_open(&crowd);
    struct side *s = crowd.target.info.share;
    for (int i = 0; i < EXACT_ROUNDS; i++) {
        arm_recv(&crowd.target);
        crowd_sends(&crowd);
        take_event(s);
        T_ASSERT(!t_readable(s->channel->fd, 0), "a second event in round %d", i);
        take_all_and_repost(&crowd);
    }
    T_ASSERT(!t_readable(s->channel->fd, QUIET_MS));
    crowd.target.loose = true;
    for (int i = 0; i < INITIATORS; i++)
        end_close(&crowd.initiator[i]);
    end_close(&crowd.target);
    t_end();
}

enum { BACKLOG = 700, SMALL_PIPE = 4096 };

T_TEST(event, channel_that_is_full)
{
    /* More events than the channel holds wait for their turn; none is lost, none is made twice. */
    struct pair *p = pair_open(TWO_PROCESSES, &with_events);
    struct side *s = p->a->info.share;

    T_EQ(fcntl(s->channel->fd, F_SETPIPE_SZ, SMALL_PIPE), SMALL_PIPE);
    for (int i = 0; i < BACKLOG; i++) {
        arm_recv(p->a);
        send_to_a(p);
    }
    for (int i = 0; i < BACKLOG; i++)
        take_event(s);
    T_ASSERT(!t_readable(s->channel->fd, QUIET_MS));
    pair_close(p);
}

/* ---- who is woken ---- */

enum { MANY = 20000, DEPTH = 512, BURST = 300 };

/* How often the NIC's own thread of this process went to sleep. */
static long engine_naps(void)
{
    long naps = 0;
    char path[300];
    DIR *tasks = opendir("/proc/self/task");

    for (struct dirent *task; tasks && (task = readdir(tasks));) {
        char line[128] = "";
        bool engine = false;

        snprintf(path, sizeof(path), "/proc/self/task/%s/status", task->d_name);
        FILE *status = fopen(path, "re");
        while (status && fgets(line, sizeof(line), status)) {
            engine = engine || !strcmp(line, "Name:\tviaduct\n");
            if (engine && !strncmp(line, "voluntary_", 10))
                naps += strtol(strchr(line, ':') + 1, NULL, 10);
        }
        if (status)
            fclose(status);
    }
    closedir(tasks);
    return naps;
}

T_TEST(event, engine_sleeps_on)
{
    /* What others complete wakes the program, and nobody else. */
    struct pair *p = pair_open(TWO_PROCESSES, &with_events);

    teach_channel(p);
    long before = engine_naps();
    for (int i = 0; i < 100; i++) {
        arm_recv(p->a);
        send_to_a(p);
        take_event(p->a->info.share);
    }
    T_ASSERT(before > 0 && engine_naps() - before < 10, "%ld times", engine_naps() - before);
    pair_close(p);
}

/* In bursts, so that the other side polls many between two sleeps, or few. */
static void send_many(struct side *s, void *arg)
{
    struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_SEND};

    (void)arg;
    for (int i = 0; i < MANY; i++) {
        wr.send_flags = i % 16 == 15 ? IBV_SEND_SIGNALED : 0;
        T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
        if (wr.send_flags)
            T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
        if (i / BURST % 2)
            sched_yield();
    }
}

static int drain(struct side *s)
{
    struct ibv_recv_wr *bad, wr = {.wr_id = 1};
    struct ibv_wc wc;
    int got = 0;

    for (; ibv_poll_cq(s->recv_cq, 1, &wc) == 1; got++) {
        T_EQ(wc.status, IBV_WC_SUCCESS);
        T_EQ(ibv_post_recv(s->qp[0], &wr, &bad), 0);
    }
    return got;
}

T_TEST(event, sleeping_between_bursts)
{
    /* Whoever polls until nothing is there, arms and looks again may sleep: no wake-up is lost. */
    struct side_opt opt = {.events = true, .recv_wr = DEPTH, .cqe = DEPTH};
    struct pair *p = pair_open(TWO_PROCESSES, &opt);
    struct side *s = p->a->info.share;
    int got = 0;

    e_recv_many(p->a, 0, 1, DEPTH, 0, 0);
    e_begin(p->b, send_many, NULL, 0);
    while (got < MANY) {
        got += drain(s);
        arm_recv(p->a);
        int late = drain(s);
        got += late;
        if (!late && got < MANY)
            take_event(s);
    }
    e_finish(p->b);
    pair_close_loose(p);
}

/* ---- into which channel ---- */

enum { LIVES = 8 };

static void count_descriptors(struct side *s, void *arg)
{
    (void)s;
    *(int *)arg = t_fd_count();
}

/* A new a, of the same process: b's process has met those before it. */
static void live_once(struct end *a, struct end *b)
{
    struct pair view = {.a = a, .b = b, .rx = 32768};

    end_start(a, T_INLINE);
    end_open(a, &(struct side_opt){.events = true, .unconnected = true}, NULL);
    T_EQ(e_to_state(b, 0, IBV_QPS_RESET), 0);
    end_connect(a, 0, b, 0);
    end_connect(b, 0, a, 0);
    teach_channel(&view);
    T_ASSERT(!t_readable(((struct side *)a->info.share)->channel->fd, 0));
    end_close(a);
}

T_TEST(event, channels_that_come_and_go)
{
    /* Each CQ's events come through its own channel, whatever had its number before. */
    static struct end a, b; /* what is deferred looks at them, too */
    int first = 0, last = 0;

    end_start(&b, T_PROCESS);
    end_open(&b, &(struct side_opt){.unconnected = true}, NULL);
    for (int i = 0; i < LIVES; i++) {
        live_once(&a, &b);
        e_run(&b, count_descriptors, i == 1 ? &first : &last, sizeof(int));
    }
    T_ASSERT(last <= first, "%d descriptors, then %d", first, last);
    end_close(&b);
    t_end();
}
