/* SPDX-License-Identifier: MIT */
/* Which CPU each side of a measurement runs on. */
#include "cores.h"

#include "cmd.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The CPUs this process was started with, also after cores_pin. */
static const cpu_set_t *allowed(void)
{
    static cpu_set_t set;

    if (CPU_COUNT(&set) == 0 && sched_getaffinity(0, sizeof(set), &set) != 0)
        CPU_SET(0, &set);
    return &set;
}

unsigned cores_allowed(void)
{
    return (unsigned)CPU_COUNT(allowed());
}

bool cores_may_use(int cpu)
{
    return cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET((size_t)cpu, allowed());
}

/* The lowest numbered hyperthread of the core that cpu belongs to; cpu itself if unknown. */
static int first_sibling(int cpu)
{
    char path[96];
    FILE *file;
    int first;

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
             cpu);
    file = fopen(path, "re");
    if (file == NULL)
        return cpu;
    if (fscanf(file, "%d", &first) != 1)
        first = cpu;
    fclose(file);
    return first;
}

/* Whether a CPU below this one, also allowed, is of the same core. */
static bool is_second_thread(const cpu_set_t *set, int cpu)
{
    int core = first_sibling(cpu);

    for (int other = 0; other < cpu; other++) {
        if (CPU_ISSET((size_t)other, set) && first_sibling(other) == core)
            return true;
    }
    return false;
}

int cores_pick(unsigned n)
{
    const cpu_set_t *set = allowed();
    int last = 0;

    for (int pass = 0; pass < 2; pass++) {
        for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (!CPU_ISSET((size_t)cpu, set) || is_second_thread(set, cpu) != (pass == 1))
                continue;
            last = cpu;
            if (n-- == 0)
                return cpu;
        }
    }
    return last;
}

void cores_unpin(void)
{
    sched_setaffinity(0, sizeof(cpu_set_t), allowed());
}

int cores_pin(int cpu)
{
    cpu_set_t set;

    allowed(); /* before it shrinks */
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0 ? 0 : -errno;
}

pid_t cores_start(int cpu, void (*run)(void *arg), void *arg)
{
    pid_t child = fork();

    if (child < 0)
        complain("fork failed: %s", strerror(errno));
    if (child == 0) {
        cores_pin(cpu);
        run(arg);
        _exit(0);
    }
    return child;
}
