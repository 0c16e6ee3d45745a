/* SPDX-License-Identifier: MIT */
/* Counters of a NIC over all processes (counters.h): the file of totals. */
#define _GNU_SOURCE
#include "core/counters.h"

#include <stdio.h>
#include <string.h>

#include "core/arena.h"
#include "core/process.h"
#include "core/shared_table.h"
#include "core/state.h"
#include "core/sys.h"

enum { NAMES = 64 };

struct totals {
    struct total {
        char nic[CONFIG_NAME_MAX];
        _Atomic uint64_t of[COUNTERS];
    } nics[NAMES];
};

static struct shared_table file = SHARED_TABLE("counters", struct totals);
static struct total *of_nic[CONFIG_NICS_MAX];

static struct total *find(struct totals *totals, const char *nic)
{
    for (unsigned i = 0; i < NAMES; i++) {
        struct total *total = &totals->nics[i];

        if (!total->nic[0])
            snprintf(total->nic, sizeof(total->nic), "%s", nic);
        if (!strcmp(total->nic, nic))
            return total;
    }
    return NULL;
}

void counters_open(const struct config *config)
{
    if (shared_table_lock(&file))
        return;
    for (unsigned i = 0; i < config->nic_count; i++)
        of_nic[i] = find(file.map, config->nics[i].name);
    shared_table_unlock(&file);
}

void counters_add(unsigned nic, enum counter counter, uint64_t count)
{
    if (of_nic[nic])
        atomic_fetch_add_explicit(&of_nic[nic]->of[counter], count, memory_order_relaxed);
}

void counters_sum(const struct pub_qp *qp, struct counter_values *values)
{
    values->of[COUNTER_MESSAGES] += qp->messages;
    values->of[COUNTER_BYTES] += qp->tx_bytes + qp->read_bytes;
    values->of[COUNTER_SENDS] += qp->sends;
    values->of[COUNTER_RNR] += qp->rnr_waits;
    values->of[COUNTER_RETRIES] += qp->retries;
}

void counters_retire(struct pub_qp *qp)
{
    struct counter_values values = {0};

    counters_sum(qp, &values);
    for (unsigned i = 0; i < COUNTERS; i++) {
        if (values.of[i])
            counters_add(qp->nic, i, values.of[i]);
    }
    qp->messages = qp->tx_bytes = qp->read_bytes = qp->sends = 0;
    qp->rnr_waits = qp->retries = 0;
}

void counters_after_fork(void)
{
    memset(of_nic, 0, sizeof(of_nic));
    shared_table_after_fork(&file);
}

/* A program that ends without destroying what it made, as many do. */
__attribute__((destructor)) static void retire_all(void)
{
    if (!process_is_open() || !core_try_lock())
        return;
    for (uint32_t i = 1; i < qp_high(); i++) {
        if (qp_at(i))
            counters_retire(arena_qp(i));
    }
    core_unlock();
}

void counters_totals(const char *runtime_dir, const char *nic, struct counter_values *values_out)
{
    char path[CONFIG_PATH_MAX + 16];
    struct totals totals = {0};

    memset(values_out, 0, sizeof(*values_out));
    snprintf(path, sizeof(path), "%s/%s", runtime_dir, file.name);
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0)
        return;
    if (sys_pread(fd, &totals, sizeof(totals), 0) == sizeof(totals)) {
        for (unsigned i = 0; i < NAMES; i++) {
            if (strncmp(totals.nics[i].nic, nic, sizeof(totals.nics[i].nic)) == 0)
                memcpy(values_out->of, totals.nics[i].of, sizeof(values_out->of));
        }
    }
    sys_close(fd);
}
