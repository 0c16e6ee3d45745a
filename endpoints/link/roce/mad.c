/* SPDX-License-Identifier: MIT */
/* Connection management datagrams over the wire: unreliable datagrams to queue pair 1 (IBTA 13). */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "core/conn.h"
#include "core/digest.h"
#include "core/process.h"
#include "link/roce/roce_impl.h"

enum { MAD_SIZE = 256, WAITING_MAX = 4096, SENT_KEPT = 64 };

/* Received, and not yet with the connection manager, whose lock a polling thread does not have. */
struct waiting {
    struct waiting *next;
    struct roce_from from;
    size_t size;
    uint8_t mad[MAD_SIZE];
    uint8_t bytes[WIRE_HEADERS_MAX + MAD_SIZE + WIRE_ICRC_SIZE]; /* all of the packet */
};

/* What was sent last, in case it is refused. */
static struct {
    uint8_t peer[16];
    uint32_t psn;
    uint8_t mad[MAD_SIZE];
} sent[SENT_KEPT];
static uint32_t next_psn; /* hard to guess */
static bool begun;

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

static uint32_t keep_sent(const uint8_t peer[16], const uint8_t mad[MAD_SIZE])
{
    if (!begun)
        (void)!getrandom(&next_psn, sizeof(next_psn), 0);
    begun = true;
    uint32_t psn = next_psn++ & 0xffffff;
    memcpy(sent[psn % SENT_KEPT].peer, peer, 16);
    sent[psn % SENT_KEPT].psn = psn;
    memcpy(sent[psn % SENT_KEPT].mad, mad, MAD_SIZE);
    return psn;
}

void roce_mad_refused(const uint8_t peer[16], uint32_t psn)
{
    uint8_t mad[MAD_SIZE];

    if (!begun || sent[psn % SENT_KEPT].psn != psn ||
        memcmp(sent[psn % SENT_KEPT].peer, peer, 16) != 0)
        return;
    memcpy(mad, sent[psn % SENT_KEPT].mad, MAD_SIZE);
    conn_refused(roce_via(peer), mad, MAD_SIZE);
}

void roce_send_mad(const uint8_t sgid[16], const uint8_t dgid[16], const uint8_t mad[MAD_SIZE])
{
    struct roce_path path;
    struct roce_port *port;
    struct transport_packet packet = {
        .headers = {.opcode = WIRE_UD | WIRE_SEND_ONLY,
                    .pkey = DEFAULT_PKEY,
                    .dest_qpn = WIRE_QPN_GSI,
                    .psn = keep_sent(dgid, mad),
                    .qkey = WIRE_QKEY_GSI,
                    .src_qpn = WIRE_QPN_GSI,
                    .payload_length = MAD_SIZE},
        .part_count = 1,
        .parts = {{(void *)(uintptr_t)mad, MAD_SIZE}},
    };

    if (udp_port_open(nic_of(sgid), sgid, &port) || udp_path(port, dgid, 0, &path))
        return;    /* as lost as on any other way: it is sent again */
    roce_answer(); /* the end of a connection must not overtake the last acknowledgement */
    struct roce_batch *batch = batch_take();
    batch_add(batch, &path, &packet);
    batch_send(batch);
}

/* ---- receiving ---- */

void roce_mad_receive(const struct roce_from *from, const struct wire_packet *packet,
                      const uint8_t *bytes, size_t size)
{
    struct waiting *waiting;

    if (packet->payload_length != MAD_SIZE || packet->qkey != WIRE_QKEY_GSI ||
        packet->src_qpn != WIRE_QPN_GSI || count >= WAITING_MAX || size > sizeof(waiting->bytes) ||
        !(waiting = malloc(sizeof(*waiting))))
        return;
    waiting->from = *from;
    waiting->size = size;
    memcpy(waiting->mad, packet->payload, MAD_SIZE);
    memcpy(waiting->bytes, bytes, size);
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

/*
 * Any process of this address may have got it: which one is it for? For the dead, or if it is for
 * nobody, we answer; a living process that can't be reached just now will be asked again.
 */
static void deliver(const struct waiting *waiting)
{
    const struct icrc_path *path = &waiting->from.icrc;
    uint32_t slot = conn_slot_of(waiting->mad, MAD_SIZE, path->target);

    if (slot != process_slot() && !waiting->from.final &&
        (steer_hand_over(&waiting->from, slot, true, waiting->bytes, waiting->size) ||
         process_slot_is_taken(slot)))
        return;
    conn_receive_wire(roce_via(path->source), path->target, path->source, waiting->mad, MAD_SIZE);
}

void roce_mad_progress(void)
{
    for (struct waiting *waiting = take_all(), *next; waiting; waiting = next) {
        next = waiting->next;
        deliver(waiting);
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
