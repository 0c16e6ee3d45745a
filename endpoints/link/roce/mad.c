/* SPDX-License-Identifier: MIT */
/* Connection management datagrams over the wire: unreliable datagrams to queue pair 1 (IBTA 13). */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "core/conn.h"
#include "core/digest.h"
#include "link/roce/roce_impl.h"

enum { MAD_SIZE = 256, WAITING_MAX = 4096 };

/* Received, and not yet with the connection manager, whose lock a polling thread does not have. */
struct waiting {
    struct waiting *next;
    uint8_t own[16], peer[16];
    uint8_t mad[MAD_SIZE];
};

static struct waiting *first, **last = &first; /* the receive lock */
static unsigned count;

uint64_t roce_via(const uint8_t gid[16])
{
    return digest_bytes(DIGEST_INIT, gid, 16) & ~(uint64_t)(LIMIT_SLOTS - 1);
}

/* ---- sending ---- */

static const struct nic *nic_of(const uint8_t gid[16])
{
    const struct config *config = config_get();

    for (unsigned n = 0; n < config->nic_count; n++)
        for (unsigned g = 0; g < config->nics[n].gid_count; g++)
            if (!memcmp(config->nics[n].gids[g].raw, gid, 16))
                return &config->nics[n];
    return &config->nics[0];
}

void roce_send_mad(const uint8_t sgid[16], const uint8_t dgid[16], const uint8_t mad[MAD_SIZE])
{
    static uint32_t psn;
    struct roce_path path;
    struct roce_port *port;
    struct transport_packet packet = {
        .headers = {.opcode = WIRE_UD | WIRE_SEND_ONLY,
                    .pkey = DEFAULT_PKEY,
                    .dest_qpn = WIRE_QPN_GSI,
                    .psn = psn++ & 0xffffff,
                    .qkey = WIRE_QKEY_GSI,
                    .src_qpn = WIRE_QPN_GSI,
                    .payload_length = MAD_SIZE},
        .part_count = 1,
        .parts = {{(void *)(uintptr_t)mad, MAD_SIZE}},
    };

    if (udp_port_open(nic_of(sgid), sgid, &port) || udp_path(port, dgid, 0, &path))
        return; /* as lost as on any other way: it is sent again */
    struct roce_batch *batch = batch_take();
    batch_add(batch, &path, &packet);
    batch_send(batch);
}

/* ---- receiving ---- */

void roce_mad_receive(const struct roce_from *from, const struct wire_packet *packet)
{
    struct waiting *waiting;

    if (packet->payload_length != MAD_SIZE || packet->qkey != WIRE_QKEY_GSI ||
        packet->src_qpn != WIRE_QPN_GSI || count >= WAITING_MAX ||
        !(waiting = malloc(sizeof(*waiting))))
        return;
    memcpy(waiting->own, from->icrc.target, 16);
    memcpy(waiting->peer, from->icrc.source, 16);
    memcpy(waiting->mad, packet->payload, MAD_SIZE);
    waiting->next = NULL;
    *last = waiting;
    last = &waiting->next;
    count++;
    thread_wake();
}

static struct waiting *take_all(void)
{
    roce_lock();
    struct waiting *list = first;
    first = NULL;
    last = &first;
    count = 0;
    roce_unlock();
    return list;
}

void roce_mad_progress(void)
{
    for (struct waiting *waiting = take_all(), *next; waiting; waiting = next) {
        next = waiting->next;
        conn_receive_wire(roce_via(waiting->peer), waiting->own, waiting->peer, waiting->mad,
                          MAD_SIZE);
        free(waiting);
    }
}

void roce_mad_after_fork(void)
{
    while (first) {
        struct waiting *next = first->next;

        free(first);
        first = next;
    }
    last = &first;
    count = 0;
}
