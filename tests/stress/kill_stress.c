/* SPDX-License-Identifier: MIT */
/*
 * kill -9 at random moments, some hundreds of times (or --count N): see kill.h. --seed N repeats a
 * run's choices, but not the instruction that the timer hits.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kill.h"

enum { ROUNDS = 300, PROCESSES = SURVIVORS + 1 };

static pid_t start(struct kill_board *board, int survivor)
{
    pid_t parent = getpid(), pid = fork();

    CHECK(pid >= 0);
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    if (survivor >= 0)
        kill_survivor(board, (unsigned)survivor);
    kill_victim(board);
}

/* The victim must die by its timer; a survivor that ends has failed. */
static void await_victim(pid_t victim)
{
    int status;
    pid_t pid;

    while ((pid = wait(&status)) != victim)
        CHECK(pid == -1 && errno == EINTR, "survivor %d is gone, status %x", (int)pid, status);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the victim ended with status %x",
          status);
}

static void await_survivors(struct kill_board *board, unsigned round)
{
    for (int k = 0; k < SURVIVORS; k++) {
        while (atomic_load(&board->survivor_done[k]) != round * 2 + 1) {
            struct pollfd ready = {.fd = board->done_pipe[0], .events = POLLIN};
            char bytes[16];
            int status;
            pid_t pid = waitpid(-1, &status, WNOHANG);

            CHECK(pid == 0, "survivor %d is gone, status %x", (int)pid, status);
            if (poll(&ready, 1, 100) > 0)
                CHECK(read(ready.fd, bytes, sizeof(bytes)) > 0);
        }
    }
}

static void one_round(struct kill_board *board, unsigned round)
{
    board->seed = rig_random(UINT64_MAX);
    atomic_store(&board->mode, (unsigned)rig_random(KILL_MODES));
    atomic_store(&board->kill_ns, UINT64_MAX);
    atomic_store(&board->round, round);
    await_victim(start(board, -1));
    atomic_store(&board->reaped, round);
    await_survivors(board, round);
}

/* As a process leaves it that was killed while many others lived. */
static void leave_socket(void)
{
    const char *path = getenv("VIADUCT_RUNTIME_DIR");
    char name[512];

    if (!path || mkdir(path, 0700) < 0)
        CHECK(path == NULL || errno == EEXIST);
    snprintf(name, sizeof(name), "%s/slot-0900.sock", path ? path : "");
    int fd = path ? open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    CHECK(fd >= 0 || !path);
    close(fd);
}

/*
 * Each start cleans up what the dead left: no more sockets than processes at a time, one for shared
 * memory and one for the wire each. An address on the wire has a file that stays.
 */
static void check_runtime_dir(void)
{
    const char *path = getenv("VIADUCT_RUNTIME_DIR");
    DIR *dir = path ? opendir(path) : NULL;
    unsigned sockets = 0, others = 0;

    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name);

        if (length > 5 && !strcmp(entry->d_name + length - 5, ".sock"))
            sockets++;
        else if (strncmp(entry->d_name, "slot-", 5) && strncmp(entry->d_name, "sysfs-", 6) &&
                 strncmp(entry->d_name, "roce-", 5) && entry->d_name[0] != '.')
            others++; /* other builds have trees of their own */
    }
    closedir(dir);
    printf("runtime directory: %u sockets, %u others\n", sockets, others);
    CHECK(sockets <= 2 * PROCESSES);
    CHECK(others <= 2, "more than the counters and the multicast word");
}

int main(int argc, char **argv)
{
    unsigned rounds = (unsigned)rig_option(argc, argv, "count", ROUNDS);
    uint64_t seed = rig_option(argc, argv, "seed", rig_now_ns());
    struct kill_board *board =
        mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t begin = rig_now_ns();

    setvbuf(stdout, NULL, _IOLBF, 0);
    CHECK(board != MAP_FAILED && pipe(board->done_pipe) == 0);
    rig_seed(seed);
    printf("%u kills, seed %llu\n", rounds, (unsigned long long)seed);
    leave_socket();
    for (int k = 0; k < SURVIVORS; k++)
        start(board, k);
    for (unsigned round = 1; round <= rounds; round++)
        one_round(board, round);
    atomic_store(&board->round, UINT32_MAX);
    for (int k = 0; k < SURVIVORS; k++) {
        int status;

        CHECK(wait(&status) > 0 && status == 0, "a survivor ended with status %x", status);
    }
    check_runtime_dir();
    printf(
        "%u kills in %.1f s; %u connections broken, the slowest settled %.3f ms after the kill\n",
        rounds, (double)(rig_now_ns() - begin) / 1e9, atomic_load(&board->failed),
        (double)atomic_load(&board->slowest_ns) / 1e6);
    printf("completions: %u succeeded, %u flushed, %u retries exceeded\n",
           atomic_load(&board->errors[0]), atomic_load(&board->errors[1]),
           atomic_load(&board->errors[2]));
    return 0;
}
