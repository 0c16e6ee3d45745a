/* SPDX-License-Identifier: MIT */
/*
 * The connection manager's machine: two of them, a network of our own between them and a clock we
 * move. What is lost, doubled or late is decided message by message.
 */
#ifndef TESTS_UNIT_CM_WORLD_H
#define TESTS_UNIT_CM_WORLD_H

#include <stdio.h>

#include "engine/cm.h"
#include "t.h"

enum { ACTIVE, PASSIVE, PACKETS = 256, LOG = 256, ACK_TIMEOUT = 14 };

struct packet {
    int to;
    uint8_t bytes[CM_MAD_SIZE];
};

struct side {
    struct cm *cm;
    struct cm_conn *conn;
    char log[LOG]; /* events, one letter each */
    struct cm_mad last;
};

static struct {
    struct side sides[2];
    struct packet wire[PACKETS];
    unsigned head, tail;  /* on the wire; tail also counts the messages ever sent */
    unsigned lose, count; /* messages [lose, lose + count) never arrive */
    bool twice;
    unsigned refusals;               /* requests for which nobody listens */
    bool accepts, confirms, answers; /* what the owners do by themselves */
    uint64_t now;
} world;

/* By enum cm_event. */
static const char letters[] = "QPTJDdUXSs";

static inline void send_packet(void *owner, const struct cm_route *route, const uint8_t *mad)
{
    int from = owner == &world.sides[ACTIVE] ? ACTIVE : PASSIVE;
    unsigned number = world.tail++;

    T_ASSERT(world.tail - world.head < PACKETS);
    T_EQ(route->via, 100u + (unsigned)!from);
    world.wire[number % PACKETS].to = !from;
    memcpy(world.wire[number % PACKETS].bytes, mad, CM_MAD_SIZE);
}

static const struct cm_mad reply = {.qpn = 0x22,
                                    .psn = 0x222222,
                                    .ca_guid = 2,
                                    .rnr_retry = 7,
                                    .responder_resources = 3,
                                    .initiator_depth = 4,
                                    .private_len = 5,
                                    .private_data = "reply"};

static inline void on_event(void *owner, struct cm_conn *conn, enum cm_event event,
                            const struct cm_mad *mad)
{
    struct side *side = owner;
    size_t len = strlen(side->log);

    T_ASSERT(len + 1 < LOG);
    side->log[len] = letters[event];
    if (mad)
        side->last = *mad;
    if (event == CM_EVENT_REQ && world.refusals) {
        world.refusals--;
        T_EQ(cm_reject(conn, world.now, CM_REASON_INVALID_SERVICE, NULL, 0), 0);
        cm_destroy(conn, world.now);
    } else if (event == CM_EVENT_REQ || event == CM_EVENT_SIDR_REQ) {
        cm_set_user(conn, side);
        side->conn = conn;
        if (world.accepts && event == CM_EVENT_REQ)
            T_EQ(cm_accept(conn, world.now, &reply), 0);
    } else if (event == CM_EVENT_REP && world.confirms) {
        T_EQ(cm_confirm(conn, world.now), 0);
    } else if (event == CM_EVENT_DREQ && world.answers) {
        T_EQ(cm_disconnect(conn, world.now), 0);
    }
}

static inline void begin(void)
{
    static const struct cm_owner calls = {send_packet, on_event};

    memset(&world, 0, sizeof(world));
    world.accepts = world.confirms = world.answers = true;
    world.now = 1000;
    for (int i = 0; i < 2; i++)
        world.sides[i].cm = cm_new(&calls, &world.sides[i], t_rand());
}

static inline void end(void)
{
    cm_free(world.sides[ACTIVE].cm);
    cm_free(world.sides[PASSIVE].cm);
    t_end();
}

static inline void arrive(const struct packet *packet)
{
    struct cm_route from = {.via = 100u + (unsigned)!packet->to};
    struct packet copy = *packet;

    cm_receive(world.sides[copy.to].cm, world.now, &from, copy.bytes, CM_MAD_SIZE);
}

/* Until the wire is empty. No time passes. */
static inline void deliver(void)
{
    while (world.head != world.tail) {
        unsigned number = world.head++;
        struct packet packet = world.wire[number % PACKETS];

        if (number - world.lose < world.count)
            continue;
        arrive(&packet);
        if (world.twice)
            arrive(&packet);
    }
}

/* Let the earliest deadline come, of both; false: there is none before `limit`. */
static inline bool tick(uint64_t limit)
{
    uint64_t a = cm_deadline(world.sides[ACTIVE].cm), p = cm_deadline(world.sides[PASSIVE].cm);
    uint64_t next = a < p ? a : p;

    if (next > limit)
        return false;
    T_ASSERT(next >= world.now);
    world.now = next;
    cm_expire(world.sides[ACTIVE].cm, world.now);
    cm_expire(world.sides[PASSIVE].cm, world.now);
    deliver();
    return true;
}

static inline void run_for(uint64_t ns)
{
    uint64_t limit = world.now + ns;

    deliver();
    while (tick(limit))
        continue;
    world.now = limit;
}

static const struct cm_mad request = {.service_id = 0x01061234,
                                      .ca_guid = 1,
                                      .qpn = 0x11,
                                      .psn = 0x111111,
                                      .responder_resources = 1,
                                      .initiator_depth = 2,
                                      .retry_count = 6,
                                      .rnr_retry = 5,
                                      .ack_timeout = ACK_TIMEOUT,
                                      .mtu = 5,
                                      .pkey = 0xffff,
                                      .hop_limit = 64,
                                      .private_len = 4,
                                      .private_data = "ask"};
static const struct cm_route there = {.via = 101};

static inline void connect_them(void)
{
    struct side *active = &world.sides[ACTIVE];

    T_EQ(cm_connect(active->cm, world.now, &there, &request, active, &active->conn), 0);
}

static inline enum cm_state state(int which)
{
    return cm_state_of(world.sides[which].conn);
}

static inline struct cm_stats stats(int which)
{
    struct cm_stats found;

    cm_get_stats(world.sides[which].cm, &found);
    return found;
}

#define EVENTS(active, passive)                                                                    \
    do {                                                                                           \
        T_STREQ(world.sides[ACTIVE].log, active);                                                  \
        T_STREQ(world.sides[PASSIVE].log, passive);                                                \
    } while (0)

#endif
