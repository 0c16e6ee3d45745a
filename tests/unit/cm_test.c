/* SPDX-License-Identifier: MIT */
/* Conversations of the connection manager: their lives, and what becomes of what does not fit. */
#include <errno.h>
#include <stdlib.h>

#include "cm_world.h"

/* ---- the good path ---- */

T_TEST(cm, connect_and_disconnect)
{
    /* Shows the whole life: seven messages, no repetition, both ends in time wait, then free. */
    begin();
    connect_them();
    deliver();
    EVENTS("P", "QT");
    T_EQ(state(ACTIVE), CM_ESTABLISHED);
    T_EQ(state(PASSIVE), CM_ESTABLISHED);
    T_EQ(cm_deadline(world.sides[ACTIVE].cm), UINT64_MAX);
    T_EQ(cm_disconnect(world.sides[ACTIVE].conn, world.now), 0);
    deliver();
    EVENTS("Pd", "QTD");
    T_EQ(state(ACTIVE), CM_TIMEWAIT);
    T_EQ(state(PASSIVE), CM_TIMEWAIT);
    run_for(cm_timeout_ns(ACK_TIMEOUT));
    EVENTS("PdX", "QTDX");
    T_EQ(world.tail, 5);
    T_EQ(stats(ACTIVE).unexpected + stats(PASSIVE).unexpected, 0);
    end();
}

T_TEST(cm, what_the_messages_carry)
{
    /* Shows that numbers and private data arrive as they were given. */
    begin();
    connect_them();
    world.accepts = false;
    deliver();
    const struct cm_mad *req = &world.sides[PASSIVE].last;
    T_EQ(req->qpn, request.qpn);
    T_EQ(req->psn, request.psn);
    T_EQ(req->service_id, request.service_id);
    T_EQ(req->initiator_depth, 2);
    T_EQ(req->retry_count, 6);
    T_EQ(req->mtu, 5);
    T_EQ(req->private_len, CM_REQ_PRIVATE);
    T_MEMEQ(req->private_data, "ask", 4);
    T_EQ(cm_accept(world.sides[PASSIVE].conn, world.now, &reply), 0);
    deliver();
    T_EQ(world.sides[ACTIVE].last.qpn, reply.qpn);
    T_EQ(world.sides[ACTIVE].last.psn, reply.psn);
    T_MEMEQ(world.sides[ACTIVE].last.private_data, "reply", 6);
    end();
}

/* ---- loss and repetition ---- */

T_TEST(cm, each_message_lost_once)
{
    /* Shows that whichever message of a connection's life is lost, it is made good in time. */
    for (unsigned lost = 0; lost < 5; lost++) {
        begin();
        world.lose = lost;
        world.count = 1;
        connect_them();
        run_for(cm_timeout_ns(CM_RESPONSE_TIMEOUT));
        EVENTS("P", "QT");
        T_EQ(cm_disconnect(world.sides[ACTIVE].conn, world.now), 0);
        run_for(2 * cm_timeout_ns(CM_RESPONSE_TIMEOUT));
        EVENTS("PdX", "QTDX");
        cm_free(world.sides[ACTIVE].cm);
        cm_free(world.sides[PASSIVE].cm);
    }
    t_end();
}

T_TEST(cm, every_message_twice)
{
    /* Shows that a repeated message is answered, but happens once. */
    begin();
    world.twice = true;
    connect_them();
    deliver();
    T_EQ(cm_disconnect(world.sides[ACTIVE].conn, world.now), 0);
    run_for(cm_timeout_ns(ACK_TIMEOUT));
    EVENTS("PdX", "QTDX");
    T_CHECK(stats(PASSIVE).duplicates > 0);
    end();
}

T_TEST(cm, long_silence)
{
    /* Shows that a request gives up after its tries, not before, and says so to the other side. */
    begin();
    world.count = CM_RETRIES + 1;
    connect_them();
    run_for((CM_RETRIES + 1) * cm_timeout_ns(CM_RESPONSE_TIMEOUT) - 1);
    EVENTS("", "");
    run_for(1);
    EVENTS("U", "");
    T_EQ(state(ACTIVE), CM_IDLE);
    T_EQ(stats(ACTIVE).resent, CM_RETRIES);
    end();
}

T_TEST(cm, reply_never_confirmed)
{
    /* Shows that the passive side gives up too, and the active one hears of that. */
    begin();
    world.confirms = false;
    connect_them();
    deliver();
    world.lose = world.tail;
    world.count = CM_RETRIES * 2;
    run_for(1000 * cm_timeout_ns(CM_RESPONSE_TIMEOUT));
    T_STREQ(world.sides[PASSIVE].log, "QU");
    end();
}

T_TEST(cm, disconnect_never_answered)
{
    /* Shows that a disconnection ends by itself. */
    begin();
    connect_them();
    deliver();
    world.lose = world.tail;
    world.count = PACKETS;
    T_EQ(cm_disconnect(world.sides[ACTIVE].conn, world.now), 0);
    run_for(20 * cm_timeout_ns(CM_RESPONSE_TIMEOUT));
    EVENTS("PdX", "QT");
    end();
}

T_TEST(cm, slow_program)
{
    /* Shows that a program which takes its time to accept is waited for. */
    begin();
    world.accepts = false;
    connect_them();
    run_for(15 * cm_timeout_ns(CM_RESPONSE_TIMEOUT));
    EVENTS("", "Q");
    T_CHECK(stats(ACTIVE).resent <= 15 && stats(PASSIVE).duplicates == stats(ACTIVE).resent);
    T_EQ(cm_accept(world.sides[PASSIVE].conn, world.now, &reply), 0);
    deliver();
    EVENTS("P", "QT");
    end();
}

/* ---- saying no, and both at once ---- */

T_TEST(cm, rejects)
{
    /* Shows that a rejection carries its reason and data, from either side. */
    begin();
    world.accepts = world.confirms = false;
    connect_them();
    deliver();
    T_EQ(cm_reject(world.sides[PASSIVE].conn, world.now, CM_REASON_CONSUMER, "no", 3), 0);
    deliver();
    EVENTS("J", "Q");
    T_EQ(world.sides[ACTIVE].last.reason, CM_REASON_CONSUMER);
    T_MEMEQ(world.sides[ACTIVE].last.private_data, "no", 3);
    T_EQ(cm_reject(world.sides[PASSIVE].conn, world.now, CM_REASON_CONSUMER, NULL, 0), -EINVAL);
    cm_destroy(world.sides[ACTIVE].conn, world.now);
    connect_them();
    deliver();
    T_EQ(cm_accept(world.sides[PASSIVE].conn, world.now, &reply), 0);
    deliver();
    T_EQ(cm_reject(world.sides[ACTIVE].conn, world.now, CM_REASON_CONSUMER, NULL, 0), 0);
    deliver();
    EVENTS("JP", "QQJ");
    end();
}

T_TEST(cm, crossing_disconnects)
{
    /* Shows that two wishes to disconnect that cross end in one event on each side. */
    begin();
    connect_them();
    deliver();
    T_EQ(cm_disconnect(world.sides[ACTIVE].conn, world.now), 0);
    T_EQ(cm_disconnect(world.sides[PASSIVE].conn, world.now), 0);
    run_for(cm_timeout_ns(ACK_TIMEOUT));
    EVENTS("PdX", "QTdX");
    end();
}

T_TEST(cm, data_before_the_confirmation)
{
    /* Shows that the program may say that the connection stands, and the late RTU is dropped. */
    begin();
    world.confirms = false;
    connect_them();
    deliver();
    T_EQ(cm_established(world.sides[PASSIVE].conn, world.now), 0);
    T_EQ(cm_established(world.sides[PASSIVE].conn, world.now), -EINVAL);
    T_EQ(cm_confirm(world.sides[ACTIVE].conn, world.now), 0);
    deliver();
    EVENTS("P", "QT");
    end();
}

/* ---- ends without a word from the program ---- */

T_TEST(cm, destroyed_in_each_state)
{
    /* Shows that the other side hears of it at once, whatever the state was. */
    begin();
    world.accepts = world.confirms = world.answers = false;
    connect_them();
    cm_destroy(world.sides[ACTIVE].conn, world.now);
    deliver();
    EVENTS("", "QJ");
    connect_them();
    deliver();
    cm_destroy(world.sides[PASSIVE].conn, world.now);
    deliver();
    EVENTS("J", "QJQ");
    world.accepts = true;
    connect_them();
    deliver();
    cm_destroy(world.sides[ACTIVE].conn, world.now);
    deliver();
    EVENTS("JP", "QJQQJ");
    world.confirms = true;
    connect_them();
    deliver();
    cm_destroy(world.sides[PASSIVE].conn, world.now);
    deliver();
    EVENTS("JPPD", "QJQQJQT");
    cm_destroy(world.sides[ACTIVE].conn, world.now);
    deliver();
    T_EQ(stats(PASSIVE).unexpected, 0);
    end();
}

T_TEST(cm, destroyed_and_not_heard)
{
    /* Shows that the peer hears of the end though the first messages that say so are lost. */
    begin();
    connect_them();
    deliver();
    cm_destroy(world.sides[ACTIVE].conn, world.now);
    world.lose = world.tail - 1;
    world.count = 2;
    deliver();
    EVENTS("P", "QT");
    run_for(2 * cm_timeout_ns(CM_RESPONSE_TIMEOUT));
    EVENTS("P", "QTD");
    run_for(cm_timeout_ns(ACK_TIMEOUT));
    EVENTS("P", "QTDX");
    T_EQ(cm_deadline(world.sides[ACTIVE].cm), UINT64_MAX);
    end();
}

static bool leads_out(uint64_t via)
{
    return via == 100 + PASSIVE;
}

T_TEST(cm, process_ends)
{
    /* Shows that it is told again in haste, whoever has asked to end it, until it is answered. */
    for (int asked = 0; asked < 2; asked++) {
        begin();
        connect_them();
        deliver();
        if (asked)
            T_EQ(cm_disconnect(world.sides[ACTIVE].conn, world.now), 0);
        world.lose = world.head;
        world.count = CM_RETRIES - 1;
        T_EQ(cm_quit(world.sides[ACTIVE].cm, world.now, leads_out), 1);
        T_EQ(cm_quit(world.sides[PASSIVE].cm, world.now, leads_out), 0);
        run_for(CM_QUIT_NS);
        T_EQ(cm_quit(world.sides[ACTIVE].cm, world.now, leads_out), 0);
        run_for(cm_timeout_ns(ACK_TIMEOUT));
        EVENTS("PdX", "QTDX");
        end();
    }
}

T_TEST(cm, disconnect_from_a_stranger)
{
    /* Shows that who disconnects from a forgotten conversation is answered all the same. */
    begin();
    connect_them();
    deliver();
    cm_forget(world.sides[PASSIVE].conn);
    T_EQ(cm_disconnect(world.sides[ACTIVE].conn, world.now), 0);
    deliver();
    EVENTS("Pd", "QT");
    end();
}

T_TEST(cm, peer_gone)
{
    /* Shows what the end of the other process looks like, from each state. */
    begin();
    world.accepts = false;
    connect_them();
    deliver();
    cm_lost(world.sides[ACTIVE].cm, world.now, 101);
    cm_lost(world.sides[PASSIVE].cm, world.now, 100);
    EVENTS("J", "QJ");
    world.accepts = true;
    connect_them();
    deliver();
    cm_lost(world.sides[ACTIVE].cm, world.now, 101);
    cm_lost(world.sides[PASSIVE].cm, world.now, 999);
    EVENTS("JPD", "QJQT");
    T_EQ(state(PASSIVE), CM_ESTABLISHED);
    T_EQ(cm_disconnect(world.sides[PASSIVE].conn, world.now), 0);
    cm_lost(world.sides[PASSIVE].cm, world.now, 100);
    T_STREQ(world.sides[PASSIVE].log, "QJQTd");
    end();
}

T_TEST(cm, restarted_with_the_same_id)
{
    /* Shows that a request is new although its id is that of a connection whose end got lost. */
    static const struct cm_owner calls = {send_packet, on_event};
    struct side *active = &world.sides[ACTIVE];
    struct cm_mad again = request;

    begin();
    for (int life = 0; life < 2; life++) {
        cm_free(active->cm);
        active->cm = cm_new(&calls, active, 7); /* the seed, and so the ids */
        again.psn++;
        T_EQ(cm_connect(active->cm, world.now, &there, &again, active, &active->conn), 0);
        deliver();
    }
    EVENTS("PP", "QTDQT");
    T_EQ(state(ACTIVE), CM_ESTABLISHED);
    T_EQ(state(PASSIVE), CM_ESTABLISHED);
    T_EQ(cm_disconnect(active->conn, world.now), 0);
    deliver();
    EVENTS("PPd", "QTDQTD");
    end();
}

T_TEST(cm, gone_while_it_was_thinking)
{
    /* Shows that who asked for patience and died is not waited for as long as it asked. */
    begin();
    world.accepts = false;
    connect_them();
    deliver();
    run_for(cm_timeout_ns(CM_RESPONSE_TIMEOUT)); /* asked again, told to wait */
    T_EQ(stats(PASSIVE).duplicates, 1);
    run_for(200 * cm_timeout_ns(CM_RESPONSE_TIMEOUT)); /* asked again each time that is over */
    EVENTS("", "Q");
    world.lose = world.tail;
    world.count = PACKETS;
    run_for((CM_RETRIES + 3) * cm_timeout_ns(CM_RESPONSE_TIMEOUT));
    EVENTS("U", "Q");
    end();
}

T_TEST(cm, nobody_listens)
{
    /* Shows that who asks where nobody listens hears of it at once, each time. */
    begin();
    for (world.refusals = 2; world.refusals;) {
        connect_them();
        deliver();
    }
    EVENTS("JJ", "QQ");
    connect_them();
    deliver();
    EVENTS("JJP", "QQQT");
    end();
}

/* ---- datagram services ---- */

static void ask_service(void)
{
    struct side *active = &world.sides[ACTIVE];

    T_EQ(cm_sidr_connect(active->cm, world.now, &there, &request, active, &active->conn), 0);
}

T_TEST(cm, service)
{
    /* Shows a service found, with the answer repeated if it is asked for again, and one refused. */
    begin();
    ask_service();
    world.lose = 1;
    world.count = 1;
    deliver();
    EVENTS("", "S");
    T_EQ(cm_sidr_reply(world.sides[PASSIVE].conn,
                       &(struct cm_mad){.qpn = 7, .qkey = 9, .service_id = 5}),
         0);
    run_for(cm_timeout_ns(CM_RESPONSE_TIMEOUT));
    EVENTS("s", "S");
    T_EQ(world.sides[ACTIVE].last.qpn, 7);
    T_EQ(world.sides[ACTIVE].last.qkey, 9);
    ask_service();
    deliver();
    cm_destroy(world.sides[PASSIVE].conn, world.now);
    deliver();
    EVENTS("ss", "SS");
    T_EQ(world.sides[ACTIVE].last.sidr_status, CM_SIDR_REJECTED);
    world.lose = world.tail;
    world.count = PACKETS;
    ask_service();
    run_for(20 * cm_timeout_ns(CM_RESPONSE_TIMEOUT));
    EVENTS("ssU", "SS");
    end();
}

/* ---- what should not come ---- */

T_TEST(cm, malformed)
{
    /* Shows that torn and foreign datagrams are counted and do nothing. */
    struct cm_route from = {.via = 101};
    uint8_t bytes[CM_MAD_SIZE] = {0};

    begin();
    connect_them();
    memcpy(bytes, world.wire[0].bytes, sizeof(bytes));
    for (size_t len = 0; len < CM_MAD_SIZE; len += 15)
        cm_receive(world.sides[ACTIVE].cm, world.now, &from, bytes, len);
    uint64_t before = stats(ACTIVE).malformed;
    T_EQ(before, stats(ACTIVE).received);
    for (unsigned i = 0; i < 4; i++) {
        bytes[i] ^= 0x55;
        cm_receive(world.sides[ACTIVE].cm, world.now, &from, bytes, sizeof(bytes));
        bytes[i] ^= 0x55;
    }
    T_EQ(stats(ACTIVE).malformed, before + 4);
    EVENTS("", "");
    end();
}

T_TEST(cm, from_another_place)
{
    /* Shows that ids count only together with where they come from. */
    struct cm_route other = {.via = 555};

    begin();
    connect_them();
    deliver();
    cm_disconnect(world.sides[ACTIVE].conn, world.now);
    struct packet dreq = world.wire[world.head++ % PACKETS];
    /* The machine answers strangers; that answer goes elsewhere, so it is taken off the wire. */
    dreq.bytes[17] = CM_DREP;
    cm_receive(world.sides[PASSIVE].cm, world.now, &other, dreq.bytes, CM_MAD_SIZE);
    T_EQ(state(PASSIVE), CM_ESTABLISHED);
    T_EQ(stats(PASSIVE).unexpected, 1);
    end();
}

static void check_same_ip(const struct cm_ip *got, const struct cm_ip *wanted)
{
    T_EQ(got->v4, wanted->v4);
    T_EQ(got->port, wanted->port);
    T_MEMEQ(got->src, wanted->src, sizeof(got->src));
    T_MEMEQ(got->dst, wanted->dst, sizeof(got->dst));
}

T_TEST(cm, ip_header)
{
    /* Shows that addresses of both families pass through the IP header. */
    struct cm_ip v4 = {.v4 = true,
                       .port = 4791,
                       .src = {[10] = 255, 255, 192, 0, 2, 1},
                       .dst = {[10] = 255, 255, 192, 0, 2, 2}};
    struct cm_ip v6 = {.port = 1, .src = {0x20, 1}, .dst = {0xfd, [15] = 9}};
    struct cm_ip out = {0};
    uint8_t bytes[CM_IP_SIZE];

    cm_ip_encode(&v4, bytes);
    T_EQ(bytes[1], 0x40);
    T_EQ(bytes[14], 0);
    T_CHECK(cm_ip_decode(bytes, &out));
    check_same_ip(&out, &v4);
    cm_ip_encode(&v6, bytes);
    T_CHECK(cm_ip_decode(bytes, &out));
    check_same_ip(&out, &v6);
    bytes[1] = 0x50;
    T_CHECK(!cm_ip_decode(bytes, &out));
    t_end();
}

/* ---- anything at all ---- */

static void random_act(struct side *side)
{
    switch (side->conn ? t_rand_below(5) : 4) {
    case 0:
        cm_disconnect(side->conn, world.now);
        break;
    case 1:
        cm_accept(side->conn, world.now, &reply);
        break;
    case 2:
        cm_confirm(side->conn, world.now);
        break;
    case 3:
        cm_reject(side->conn, world.now, CM_REASON_CONSUMER, NULL, 0);
        break;
    default:
        break;
    }
}

T_TEST(cm, any_order_of_anything)
{
    /* Shows that with loss, repetition and calls at any time both ends come to rest. */
    for (int round = 0; round < 500; round++) {
        begin();
        world.accepts = t_rand_below(2);
        world.confirms = t_rand_below(2);
        world.answers = t_rand_below(2);
        world.twice = t_rand_below(2);
        world.lose = (unsigned)t_rand_below(8);
        world.count = (unsigned)t_rand_below(6);
        connect_them();
        for (int step = 0; step < 6; step++) {
            random_act(&world.sides[t_rand_below(2)]);
            run_for(t_rand_below(3 * cm_timeout_ns(CM_RESPONSE_TIMEOUT)));
        }
        run_for(2 * CM_RETRIES * cm_timeout_ns(CM_SERVICE_TIMEOUT));
        T_EQ(cm_deadline(world.sides[ACTIVE].cm), UINT64_MAX);
        T_EQ(cm_deadline(world.sides[PASSIVE].cm), UINT64_MAX);
        cm_free(world.sides[ACTIVE].cm);
        cm_free(world.sides[PASSIVE].cm);
    }
    t_end();
}
