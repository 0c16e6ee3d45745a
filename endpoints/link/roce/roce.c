/* SPDX-License-Identifier: MIT */
/*
 * The wire's comings: who polls the sockets when, and what becomes of a packet. A thread that polls
 * a CQ receives; the engine thread is the watchdog: while somebody polls it leaves the sockets
 * alone and looks again in a moment, so that two threads don't wake for the same packet.
 */
#define _GNU_SOURCE
#include "link/roce/roce_impl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/config_host.h"
#include "core/counters.h"
#include "core/process.h"
#include "trace/pcapng.h"

enum {
    POLLING_NS = 50000, /* who polled this lately polls still */
    LOOK_AGAIN_NS = 200000,
    ANSWER_NS = 200000, /* so long an ACK waits at most */
    BUSY_IDLE = 64,     /* polls in vain after which a socket is looked at more seldom */
    SELDOM = 16,
    TIMELESS = 4, /* of so many polls in vain one looks at the clock */
};

_Atomic uint32_t link_to_poll;
static _Atomic bool datagrams_used;
static struct spin receive_lock;
static _Atomic uint64_t polled_ns, due_ns = TRANSPORT_NEVER;
static _Atomic bool parked;         /* sockets are left to those who poll */
static struct icrc_unshift unshift; /* the receive lock */

void roce_lock(void)
{
    spin_lock(&receive_lock);
}

void roce_unlock(void)
{
    spin_unlock(&receive_lock);
}

void roce_settle(void)
{
    roce_lock();
    roce_unlock();
}

void roce_due_at(uint64_t when_ns)
{
    uint64_t seen = atomic_load_explicit(&due_ns, memory_order_relaxed);

    while (when_ns < seen) {
        if (!atomic_compare_exchange_weak(&due_ns, &seen, when_ns))
            continue;
        thread_wake_at(when_ns);
        return;
    }
}

/* ---- what came in ---- */

static bool is_connected_request(const struct wire_packet *packet)
{
    uint8_t service = packet->opcode & WIRE_SERVICE_MASK;

    return (service == WIRE_RC || service == WIRE_UC || service == WIRE_XRC) &&
           !(wire_traits(packet->opcode) & WIRE_IS_RESPONSE);
}

static void dispatch_unicast(const struct roce_from *from, const struct wire_packet *packet,
                             const uint8_t *bytes, size_t size)
{
    uint32_t slot = packet->dest_qpn >> LIMIT_QP_BITS;
    bool here = slot == process_slot();
    struct qp *qp = here ? qp_get(packet->dest_qpn & (LIMIT_QP - 1)) : NULL;

    if (!here && (steer_went_wrong(from, slot, bytes, size) || process_slot_is_taken(slot)))
        return;
    if (!qp) {
        counters_add(from->port->nic, COUNTER_DROPPED, 1);
        if (is_connected_request(packet))
            refusal_send(from, here ? REFUSED_BY_QP : REFUSED_BY_PROCESS, bytes, size);
        return;
    }
    if ((packet->opcode & WIRE_SERVICE_MASK) == WIRE_UD) {
        if (qp->type == IBV_QPT_UD)
            roce_datagram_receive(qp, from, packet);
    } else if (qp->type == IBV_QPT_UD || !roce_qp_receive(qp, from, packet)) {
        counters_add(from->port->nic, COUNTER_DROPPED, 1);
    }
}

static void dispatch(const struct roce_from *from, const struct wire_packet *packet,
                     const uint8_t *bytes, size_t size)
{
    if (packet->dest_qpn == WIRE_QPN_GSI)
        roce_mad_receive(from, packet, bytes, size);
    else if (packet->dest_qpn == WIRE_QPN_MULTICAST)
        roce_group_receive(from, packet);
    else
        dispatch_unicast(from, packet, bytes, size);
}

uint16_t roce_dispatch(const struct roce_from *from, const uint8_t *bytes, size_t size)
{
    struct wire_packet packet;
    uint16_t id = from->id;

    if (steer_is_probe(from->port, bytes, size))
        return id;
    if (!wire_parse(bytes, size, &packet) || !icrc_judge(&from->icrc, bytes, size, &unshift, &id)) {
        counters_add(from->port->nic, COUNTER_DROPPED, 1);
        return id;
    }
    if (__builtin_expect(pcapng_is_open(), 0))
        pcapng_write(PCAPNG_RECEIVED, &from->icrc, from->traffic_class, from->hop_limit, id, bytes,
                     size);
    dispatch(from, &packet, bytes, size);
    return id;
}

/* ---- polling ---- */

static void expire(uint64_t now)
{
    if (now < atomic_load_explicit(&due_ns, memory_order_relaxed))
        return;
    /* Who sets a time from here on is heard; all others are asked. */
    atomic_store(&due_ns, TRANSPORT_NEVER);
    uint64_t held = faults_deliver(now);
    roce_qp_answer(now);
    uint64_t next = roce_qp_expire(now), round = roce_peers_expire(now);
    next = held < next ? held : next;
    next = round < next ? round : next;
    if (next != TRANSPORT_NEVER)
        roce_due_at(next);
}

static bool is_worth_a_look(struct roce_port *port)
{
    return port->idle++ < BUSY_IDLE || port->idle % SELDOM == 0;
}

void roce_receive_all(void)
{
    uint64_t now = now_ns();

    for (struct roce_port *port = udp_ports(); port; port = port->next)
        udp_receive(port, &now);
    roce_qp_answer(now);
}

/* Whether something came; then the time is known. */
static bool look(uint64_t *now)
{
    bool some = false;

    for (struct roce_port *port = udp_ports(); port; port = port->next) {
        if (is_worth_a_look(port) && udp_receive(port, now)) {
            port->idle = 0;
            some = true;
        }
    }
    return some;
}

/*
 * An ACK waits for the next poll: the program has its completion sooner, and what it posts in turn
 * takes the ACK along. One that stops polling now has the watchdog send it.
 */
static void receive_and_answer(void)
{
    static unsigned vain;
    bool waited = roce_qp_waits();
    uint64_t now = 0;
    bool some = look(&now);

    if (!some && !waited && ++vain % TIMELESS)
        return;
    now = now ? now : now_ns();
    atomic_store_explicit(&polled_ns, now, memory_order_relaxed);
    if (!some || waited)
        roce_qp_answer(now);
    else if (roce_qp_answer_urgent(now))
        roce_due_at(now + ANSWER_NS);
    expire(now);
}

void roce_poll(void)
{
    if (!spin_try(&receive_lock))
        return;
    receive_and_answer();
    roce_unlock();
}

static void park(struct roce_port *port)
{
    udp_unwatch(port);
    atomic_store(&parked, true);
}

/* Who holds the lock may have been preempted by this very thread: never wait for it. */
static void on_readable(struct watch *watch)
{
    struct roce_port *port = (struct roce_port *)(void *)watch;
    uint64_t now = now_ns();

    if (now - atomic_load_explicit(&polled_ns, memory_order_relaxed) < POLLING_NS ||
        !spin_try(&receive_lock)) {
        park(port);
        return;
    }
    udp_receive(port, &now);
    roce_qp_answer(now);
    roce_unlock();
}

/* Nobody polls any more, or a socket is new: hear of what comes. */
static void watch_ports(uint64_t now)
{
    if (now - atomic_load_explicit(&polled_ns, memory_order_relaxed) < POLLING_NS) {
        thread_wake_at(now + LOOK_AGAIN_NS);
        return;
    }
    atomic_store(&parked, false);
    for (struct roce_port *port = udp_ports(); port; port = port->next) {
        port->watch.ready = on_readable;
        if (!port->watched && port->watch.fd >= 0 && thread_watch(&port->watch) == 0)
            port->watched = true;
    }
}

void roce_progress(void)
{
    if (!udp_ports())
        return;
    uint64_t now = now_ns();
    if (spin_try(&receive_lock)) {
        if (now >= atomic_load(&due_ns))
            roce_receive_all(); /* what is here already is not late */
        expire(now);
        roce_unlock();
    } else {
        thread_wake_at(now + LOOK_AGAIN_NS);
    }
    if (atomic_load(&parked))
        watch_ports(now);
    uint64_t due = atomic_load(&due_ns);
    if (due != TRANSPORT_NEVER && due > now)
        thread_wake_at(due);
    steer_progress(now);
    refusal_progress();
    roce_qp_progress();
    roce_peers_progress();
    roce_xrc_progress();
    roce_mad_progress();
}

void roce_answer(void)
{
    if (!atomic_load(&link_to_poll))
        return;
    roce_lock(); /* who has it is not about to answer: it may have looked already */
    roce_qp_answer(now_ns());
    roce_unlock();
}

/*
 * The program ends: what it has received is acknowledged, or the peer would ask again in vain. A
 * thread that has the lock may have been stopped for good.
 */
__attribute__((destructor)) static void say_goodbye(void)
{
    if (!atomic_load(&link_to_poll) || !spin_try(&receive_lock))
        return;
    roce_qp_answer(now_ns());
    roce_unlock();
}

void roce_after_fork(void)
{
    udp_after_fork();
    steer_after_fork();
    faults_after_fork();
    pcapng_after_fork();
    roce_mad_after_fork();
    roce_peers_after_fork();
    atomic_store(&due_ns, TRANSPORT_NEVER);
    atomic_store(&link_to_poll, 0);
    atomic_store(&datagrams_used, false);
    atomic_store(&parked, false);
    spin_unlock(&receive_lock);
}

void roce_rest(void)
{
    for (struct roce_port *port = udp_ports(); port; port = port->next)
        if (!port->group && port->watch.fd >= 0)
            udp_port_rest(port);
}

void roce_port_opened(void)
{
    atomic_store(&parked, true);
    thread_wake();
}

bool roce_uses_datagrams(void)
{
    return atomic_load_explicit(&datagrams_used, memory_order_relaxed);
}

void roce_use_datagrams(void)
{
    if (!roce_uses_datagrams() && !atomic_exchange(&datagrams_used, true))
        atomic_fetch_add(&link_to_poll, 1);
}

/* ---- opening ---- */

int roce_open(void)
{
    const struct config *config = config_get();
    int error = config->pcap[0] ? pcapng_open(config->pcap) : 0;

    if (error)
        dprintf(STDERR_FILENO, "viaduct: VIADUCT_PCAP=\"%s\": %s\n", config->pcap,
                strerror(-error));
    return error;
}

int roce_open_nic(const struct nic *nic)
{
    int error = 0;

    if (config_get()->link == CONFIG_LINK_SHM)
        return 0;
    for (unsigned i = 0; i < nic->gid_count; i++) {
        struct roce_port *port;
        int failed =
            address_is_made(nic->gids[i].raw) ? 0 : udp_port_open(nic, nic->gids[i].raw, &port);

        error = error ? error : failed;
    }
    return error;
}
