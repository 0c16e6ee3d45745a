/* SPDX-License-Identifier: MIT */
/* Messages of the connection manager that find nobody: who is gone, and who was never there. */
#include "cm_world.h"

/* The last message, and what is sent of it again within `tries`, is refused instead of delivered.
 */
static void refuse(int which, unsigned tries)
{
    for (unsigned i = 0; i < tries; i++) {
        T_ASSERT(world.head != world.tail, "try %u", i);
        while (world.head != world.tail) {
            struct packet *packet = &world.wire[world.head++ % PACKETS];

            cm_refused(world.sides[which].cm, world.now, 100u + (unsigned)packet->to, packet->bytes,
                       CM_MAD_SIZE);
        }
        if (i + 1 < tries) {
            world.now = cm_deadline(world.sides[which].cm);
            cm_expire(world.sides[which].cm, world.now);
        }
    }
}

T_TEST(cm, refused_before_it_came)
{
    /* Shows that who asks where nobody is yet asks on, and meets who comes. */
    begin();
    connect_them();
    refuse(ACTIVE, 3);
    EVENTS("", "");
    run_for(cm_timeout_ns(CM_RESPONSE_TIMEOUT));
    EVENTS("P", "QT");
    end();
}

T_TEST(cm, refused_after_it_was_there)
{
    /* Shows that who asked where somebody was, and is no more, hears of it at the next try. */
    begin();
    world.accepts = false;
    connect_them();
    deliver();
    world.now = cm_deadline(world.sides[ACTIVE].cm);
    cm_expire(world.sides[ACTIVE].cm, world.now);
    refuse(ACTIVE, 1);
    EVENTS("J", "Q");
    T_EQ(cm_deadline(world.sides[ACTIVE].cm), UINT64_MAX);
    connect_them();
    run_for(cm_timeout_ns(CM_RESPONSE_TIMEOUT)); /* told to wait */
    world.now = cm_deadline(world.sides[ACTIVE].cm);
    cm_expire(world.sides[ACTIVE].cm, world.now);
    refuse(ACTIVE, 1);
    EVENTS("JJ", "QQ");
    end();
}

T_TEST(cm, refused_once_it_is_known)
{
    /* Shows that each later message that is refused ends the connection at once, once. */
    begin();
    world.confirms = false;
    connect_them();
    deliver(); /* the request; the reply waits for confirmation */
    T_EQ(cm_confirm(world.sides[ACTIVE].conn, world.now), 0);
    refuse(ACTIVE, 1);
    EVENTS("PD", "Q");
    world.now = cm_deadline(world.sides[PASSIVE].cm);
    cm_expire(world.sides[PASSIVE].cm, world.now);
    refuse(PASSIVE, 1);
    EVENTS("PD", "QJ");
    world.confirms = true;
    connect_them();
    deliver();
    T_EQ(cm_disconnect(world.sides[ACTIVE].conn, world.now), 0);
    struct packet asked = world.wire[world.head % PACKETS];
    refuse(ACTIVE, 1);
    EVENTS("PDPd", "QJQT");
    T_EQ(state(ACTIVE), CM_TIMEWAIT);
    cm_refused(world.sides[ACTIVE].cm, world.now, 101, asked.bytes, CM_MAD_SIZE);
    cm_refused(world.sides[ACTIVE].cm, world.now, 101, asked.bytes, 10);
    EVENTS("PDPd", "QJQT");
    end();
}

T_TEST(cm, refusals_that_do_not_fit)
{
    /* Shows that a refusal from elsewhere, or of a message that was answered, changes nothing. */
    begin();
    connect_them();
    struct packet asked = world.wire[world.head % PACKETS];
    cm_refused(world.sides[ACTIVE].cm, world.now, 999, asked.bytes, CM_MAD_SIZE);
    deliver();
    cm_refused(world.sides[ACTIVE].cm, world.now, 101, asked.bytes, CM_MAD_SIZE);
    cm_refused(world.sides[PASSIVE].cm, world.now, 100, asked.bytes, CM_MAD_SIZE);
    EVENTS("P", "QT");
    T_EQ(state(ACTIVE), CM_ESTABLISHED);
    cm_lost_peer(world.sides[ACTIVE].cm, world.now, 101, 0x23);
    cm_lost_peer(world.sides[ACTIVE].cm, world.now, 999, 0x22);
    EVENTS("P", "QT");
    cm_lost_peer(world.sides[ACTIVE].cm, world.now, 101, 0x22);
    cm_lost_peer(world.sides[PASSIVE].cm, world.now, 100, 0x11);
    EVENTS("PD", "QTD");
    end();
}

T_TEST(cm, accepted_for_one_who_forgot)
{
    /* Shows that who accepts a request of one who is no more is told so. */
    begin();
    world.accepts = false;
    connect_them();
    deliver();
    cm_forget(world.sides[ACTIVE].conn);
    T_EQ(cm_accept(world.sides[PASSIVE].conn, world.now, &reply), 0);
    deliver();
    EVENTS("", "QJ");
    T_EQ(world.sides[PASSIVE].last.reason, CM_REASON_INVALID_COMM);
    end();
}
