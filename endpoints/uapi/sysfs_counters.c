/* SPDX-License-Identifier: MIT */
/*
 * The counters of a port, in the words of the kernel: those that soft-RoCE has under hw_counters,
 * and those of every InfiniBand port under counters. A file is written anew when it is opened, and
 * all of them when their directory is: whoever has it open keeps what was true then. One message is
 * one packet here; nothing is ever lost, out of order or repeated on the way, and such counters
 * stay 0.
 */
#include "uapi/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/counters.h"
#include "core/sys.h"
#include "core/thread.h"
#include "link/shm/look.h"

enum { FRESH_NS = 10000000, NEVER = COUNTERS }; /* "lifespan" says 10 ms */

/* How a file is made: a counter in units. */
static const struct port_counter {
    const char *file;
    unsigned counter; /* enum counter, or NEVER: 0 */
    unsigned unit;
} port_counters[] = {
    {"counters/VL15_dropped", NEVER, 1},
    {"counters/excessive_buffer_overrun_errors", NEVER, 1},
    {"counters/link_downed", NEVER, 1},
    {"counters/link_error_recovery", NEVER, 1},
    {"counters/local_link_integrity_errors", NEVER, 1},
    {"counters/multicast_rcv_packets", NEVER, 1},
    {"counters/multicast_xmit_packets", NEVER, 1},
    {"counters/port_rcv_constraint_errors", NEVER, 1},
    {"counters/port_rcv_data", COUNTER_BYTES, 4},
    {"counters/port_rcv_errors", COUNTER_DROPPED, 1},
    {"counters/port_rcv_packets", COUNTER_MESSAGES, 1},
    {"counters/port_rcv_remote_physical_errors", NEVER, 1},
    {"counters/port_rcv_switch_relay_errors", NEVER, 1},
    {"counters/port_xmit_constraint_errors", NEVER, 1},
    {"counters/port_xmit_data", COUNTER_BYTES, 4},
    {"counters/port_xmit_discards", NEVER, 1},
    {"counters/port_xmit_packets", COUNTER_MESSAGES, 1},
    {"counters/port_xmit_wait", COUNTER_RNR, 1},
    {"counters/symbol_error", NEVER, 1},
    {"counters/unicast_rcv_packets", COUNTER_MESSAGES, 1},
    {"counters/unicast_xmit_packets", COUNTER_MESSAGES, 1},
    {"hw_counters/ack_deferred", NEVER, 1},
    {"hw_counters/completer_retry_err", COUNTER_RETRIES, 1},
    {"hw_counters/duplicate_request", NEVER, 1},
    {"hw_counters/link_downed", NEVER, 1},
    {"hw_counters/out_of_seq_request", NEVER, 1},
    {"hw_counters/rcvd_pkts", COUNTER_MESSAGES, 1},
    {"hw_counters/rcvd_rnr_err", COUNTER_RNR, 1},
    {"hw_counters/rcvd_seq_err", NEVER, 1},
    {"hw_counters/rdma_recvs", COUNTER_SENDS, 1},
    {"hw_counters/rdma_sends", COUNTER_SENDS, 1},
    {"hw_counters/retry_exceeded_err", COUNTER_RETRY_EXCEEDED, 1},
    {"hw_counters/retry_rnr_exceeded_err", COUNTER_RNR_EXCEEDED, 1},
    {"hw_counters/send_err", COUNTER_ERRORS, 1},
    {"hw_counters/send_rnr_err", COUNTER_RNR, 1},
    {"hw_counters/sent_pkts", COUNTER_MESSAGES, 1},
};

#define COUNT (sizeof(port_counters) / sizeof(port_counters[0]))

const char *sysfs_counter_name(unsigned i)
{
    return i < COUNT ? port_counters[i].file : NULL;
}

/* ---- the values ---- */

static void add_process(const struct look *look, const char *nic, struct counter_values *values)
{
    for (uint32_t i = 1; i < look_qps(look); i++) {
        const struct pub_qp *qp = look_qp(look, i);

        if (qp->type && qp->nic < CONFIG_NICS_MAX &&
            strncmp(look_header(look)->nics[qp->nic].name, nic, CONFIG_NAME_MAX) == 0)
            counters_sum(qp, values);
    }
}

static void read_values(const char *runtime_dir, const char *nic, struct counter_values *values_out)
{
    struct look_list *list = look_all(runtime_dir);

    counters_totals(runtime_dir, nic, values_out);
    for (unsigned i = 0; list && i < list->count; i++)
        add_process(&list->looks[i], nic, values_out);
    look_free(list);
}

/* A program that reads all files in a row asks the processes once. */
static void recent_values(const char *runtime_dir, const char *nic,
                          struct counter_values *values_out)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct counter_values recent;
    static char recent_nic[CONFIG_NAME_MAX];
    static uint64_t until_ns;

    pthread_mutex_lock(&lock);
    if (now_ns() >= until_ns || strcmp(recent_nic, nic) != 0) {
        read_values(runtime_dir, nic, &recent);
        snprintf(recent_nic, sizeof(recent_nic), "%s", nic);
        until_ns = now_ns() + FRESH_NS;
    }
    *values_out = recent;
    pthread_mutex_unlock(&lock);
}

/* ---- the files ---- */

/* Written beside the tree and moved there: a reader sees the old one or the new one. */
static void write_file(const char *runtime_dir, const char *path, uint64_t value)
{
    char scratch[SYSFS_PATH_MAX];

    snprintf(scratch, sizeof(scratch), "%s/sysfs-new-XXXXXX", runtime_dir);
    int fd = mkostemp(scratch, O_CLOEXEC);
    if (fd < 0)
        return;
    dprintf(fd, "%llu\n", (unsigned long long)value);
    if (fchmod(fd, 0444) != 0 || rename(scratch, path) != 0)
        unlink(scratch);
    sys_close(fd);
}

static uint64_t value_of(const struct port_counter *counter, const struct counter_values *values)
{
    return counter->counter == NEVER ? 0 : values->of[counter->counter] / counter->unit;
}

/* Where the path names the port's files: behind "ports/1/"; and the NIC's name. */
static const char *port_part(const char *path, char nic[CONFIG_NAME_MAX])
{
    const char *name = strstr(path, "/infiniband/"), *port = strstr(path, "/ports/1/");

    if (!name || !port)
        return NULL;
    name += strlen("/infiniband/");
    size_t len = strcspn(name, "/");
    if (len >= CONFIG_NAME_MAX)
        return NULL;
    memcpy(nic, name, len);
    nic[len] = '\0';
    return port + strlen("/ports/1/");
}

/* The path names that counter, or the directory it lies in. */
static bool is_meant(const struct port_counter *counter, const char *part)
{
    size_t len = strlen(part);

    while (len && part[len - 1] == '/')
        len--;
    return strncmp(counter->file, part, len) == 0 &&
           (!counter->file[len] || counter->file[len] == '/');
}

void sysfs_refresh(const char *path)
{
    const struct config *config = config_get();
    struct counter_values values;
    char nic[CONFIG_NAME_MAX], place[SYSFS_PATH_MAX];
    int saved = errno;
    const char *part = config ? port_part(path, nic) : NULL;

    if (!part || (strncmp(part, "counters", 8) != 0 && strncmp(part, "hw_counters", 11) != 0))
        return;
    recent_values(config->runtime_dir, nic, &values);
    for (size_t i = 0; i < COUNT; i++) {
        if (!is_meant(&port_counters[i], part))
            continue;
        snprintf(place, sizeof(place), "%.*s%s", (int)(part - path), path, port_counters[i].file);
        write_file(config->runtime_dir, place, value_of(&port_counters[i], &values));
    }
    errno = saved;
}
