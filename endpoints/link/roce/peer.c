/* SPDX-License-Identifier: MIT */
/*
 * Peers that end. What is in flight finds out by itself, and sooner if it is refused (refusal.c).
 * For connections on which nothing is under way, those of rdma_cm, each process asks on: once in a
 * while one queue pair of those that lead to the same process asks for a sign of life
 * (engine/pulse.c). Nobody has to answer; but where nobody is, the host refuses. That is one timer
 * for all, and none without such connections.
 */
#include <stdlib.h>
#include <string.h>

#include "core/conn.h"
#include "core/process.h"
#include "link/roce/roce_qp.h"

enum { ROUND_NS = 300000000, REFUSED_NS = 5000000 };

/* A process elsewhere, by its slot, if it has one of ours; else some part of its host. */
struct roce_peer {
    struct roce_peer *next;
    const struct roce_port *port;
    uint8_t gid[16];
    uint32_t slot;
    unsigned users;
    struct roce_qp *turn; /* who asks in this round */
};

static struct roce_peer *peers; /* the receive lock */
static uint64_t round_ns = TRANSPORT_NEVER;
static uint64_t look_ns = TRANSPORT_NEVER; /* what was asked may have been refused by now */
static _Atomic bool lost_due;

/* ---- refused ---- */

static bool has_in_flight(struct roce_qp *wire, uint32_t psn)
{
    spin_lock_word(&wire->qp->pub->busy);
    bool has = transport_is_in_flight(wire->transport, psn);
    spin_unlock_word(&wire->qp->pub->busy);
    return has;
}

static uint32_t dest_qpn(const struct roce_qp *wire)
{
    return transport_config_of(wire->transport)->dest_qpn;
}

static bool goes_to(const struct roce_qp *wire, const struct roce_port *port,
                    const uint8_t peer[16])
{
    return wire->path.port == port && memcmp(wire->path.icrc.target, peer, 16) == 0;
}

/* Somebody who can't see our packets would have to guess one that is in flight. */
static bool is_believable(const struct roce_port *port, const uint8_t peer[16], uint32_t qpn,
                          uint32_t psn)
{
    for (struct roce_qp *wire = roce_qp_all(); wire; wire = wire->next)
        if (goes_to(wire, port, peer) && dest_qpn(wire) == qpn && has_in_flight(wire, psn))
            return true;
    return false;
}

/* Packets that it has heard so far. */
static uint64_t heard_by(struct roce_qp *wire)
{
    struct transport_stats stats;

    spin_lock_word(&wire->qp->pub->busy);
    transport_get_stats(wire->transport, &stats);
    spin_unlock_word(&wire->qp->pub->busy);
    return stats.received;
}

/*
 * A host where nobody is at all may be one whose program is about to start: that matters only to
 * who has heard from it.
 */
static bool concerns(struct roce_qp *wire, uint32_t qpn, enum refusal who)
{
    if (who == REFUSED_BY_QP)
        return dest_qpn(wire) == qpn;
    if (who == REFUSED_BY_PROCESS)
        return dest_qpn(wire) >> LIMIT_QP_BITS == qpn >> LIMIT_QP_BITS;
    return wire->peer || heard_by(wire) > 0;
}

void roce_qp_unreachable(const struct roce_port *port, const uint8_t peer[16], uint32_t qpn,
                         enum refusal who)
{
    uint64_t now = now_ns();

    for (struct roce_qp *wire = roce_qp_all(); wire; wire = wire->next) {
        if (!goes_to(wire, port, peer) || !concerns(wire, qpn, who))
            continue;
        spin_lock_word(&wire->qp->pub->busy);
        transport_refused(wire->transport, now);
        roce_qp_push(wire, now);
        spin_unlock_word(&wire->qp->pub->busy);
    }
}

void roce_qp_refused(const struct roce_port *port, const uint8_t peer[16], uint32_t qpn,
                     uint32_t psn, enum refusal who)
{
    if (is_believable(port, peer, qpn, psn))
        roce_qp_unreachable(port, peer, qpn, who);
}

/* ---- watched ---- */

static struct roce_peer *peer_find(const struct roce_qp *wire)
{
    uint32_t slot = dest_qpn(wire) >> LIMIT_QP_BITS;
    struct roce_peer *peer = peers;

    while (peer && (peer->slot != slot || !goes_to(wire, peer->port, peer->gid)))
        peer = peer->next;
    if (peer || !(peer = calloc(1, sizeof(*peer))))
        return peer;
    peer->port = wire->path.port;
    memcpy(peer->gid, wire->path.icrc.target, 16);
    peer->slot = slot;
    peer->next = peers;
    peers = peer;
    return peer;
}

static void peer_drop(struct roce_peer *peer)
{
    struct roce_peer **at = &peers;

    if (--peer->users)
        return;
    while (*at != peer)
        at = &(*at)->next;
    *at = peer->next;
    free(peer);
}

void peer_forget(struct roce_qp *wire)
{
    if (!wire->peer)
        return;
    if (wire->peer->turn == wire)
        wire->peer->turn = NULL;
    peer_drop(wire->peer);
    wire->peer = NULL;
}

static void set_watched(struct roce_qp *wire, bool on)
{
    if (on && !wire->peer && (wire->peer = peer_find(wire)))
        wire->peer->users++;
    if (!on)
        peer_forget(wire);
    transport_watch(wire->transport, on);
}

void roce_watch(struct qp *qp, uint32_t peer_qpn, bool on)
{
    struct roce_qp *wire = qp->wire;

    roce_lock();
    spin_lock_word(&qp->pub->busy);
    if (dest_qpn(wire) == peer_qpn)
        set_watched(wire, on);
    spin_unlock_word(&qp->pub->busy);
    if (peers && round_ns == TRANSPORT_NEVER)
        roce_due_at(round_ns = now_ns() + ROUND_NS);
    roce_unlock();
}

/* ---- rounds ---- */

/* Nothing has come from there since the last round. */
static bool is_silent(struct roce_qp *wire)
{
    uint64_t heard = heard_by(wire);
    bool silent = heard - wire->heard <= wire->asked;

    wire->heard = heard;
    wire->asked = false;
    return silent;
}

/* Of those that have heard nothing, who asked least lately. */
static void choose(void)
{
    for (struct roce_peer *peer = peers; peer; peer = peer->next)
        peer->turn = NULL;
    for (struct roce_qp *wire = roce_qp_all(); wire; wire = wire->next)
        if (wire->peer && is_silent(wire) &&
            (!wire->peer->turn || wire->asked_ns < wire->peer->turn->asked_ns))
            wire->peer->turn = wire;
}

static void ask(struct roce_qp *wire, uint64_t now)
{
    wire->asked_ns = now;
    spin_lock_word(&wire->qp->pub->busy);
    wire->asked = transport_ask(wire->transport);
    if (wire->asked)
        roce_qp_push(wire, now);
    spin_unlock_word(&wire->qp->pub->busy);
}

static void ask_all(uint64_t now_ns)
{
    choose();
    for (struct roce_peer *peer = peers; peer; peer = peer->next)
        if (peer->turn)
            ask(peer->turn, now_ns);
    round_ns = peers ? now_ns + ROUND_NS : TRANSPORT_NEVER;
    look_ns = peers ? now_ns + REFUSED_NS : TRANSPORT_NEVER;
}

/* Nobody watches connected sockets. */
static void look_for_refusals(void)
{
    for (struct roce_peer *peer = peers; peer; peer = peer->next)
        if (peer->turn && peer->turn->path.outlet)
            refusal_suspect(peer->turn->path.outlet);
    look_ns = TRANSPORT_NEVER;
}

uint64_t roce_peers_expire(uint64_t now_ns)
{
    if (now_ns >= look_ns)
        look_for_refusals();
    if (now_ns >= round_ns)
        ask_all(now_ns);
    return look_ns < round_ns ? look_ns : round_ns;
}

/* ---- gone ---- */

void peer_lost(struct roce_qp *wire)
{
    atomic_store(&wire->lost, true);
    atomic_store(&lost_due, true);
    thread_wake();
}

/* core_lock keeps the list as it is. */
void roce_peers_progress(void)
{
    if (!atomic_exchange(&lost_due, false))
        return;
    for (struct roce_qp *wire = roce_qp_all(); wire; wire = wire->next)
        if (atomic_exchange(&wire->lost, false))
            conn_lost_peer(roce_via(wire->path.icrc.target), dest_qpn(wire));
}

void roce_peers_after_fork(void)
{
    for (struct roce_peer *peer = peers, *next; peer; peer = next) {
        next = peer->next;
        free(peer);
    }
    peers = NULL;
    round_ns = look_ns = TRANSPORT_NEVER;
    atomic_store(&lost_due, false);
    roce_qp_after_fork();
}
