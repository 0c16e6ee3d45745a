/* SPDX-License-Identifier: MIT */
/*
 * The connection manager's machine against anything: the input is a script of datagrams, of the
 * owner's calls and of passing time. The last datagrams the machine sent can be echoed with some
 * bytes changed, so that ids fit and the states behind the first are reached.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/cm.h"

enum { CONNS = 8, SENT = 8 };

struct run {
    struct cm *cm;
    struct cm_conn *conns[CONNS];
    uint8_t sent[SENT][CM_MAD_SIZE];
    unsigned sent_count;
    const uint8_t *at, *end;
    uint64_t now;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t next(struct run *run)
{
    return run->at < run->end ? *run->at++ : 0;
}

static void on_send(void *owner, const struct cm_route *route, const uint8_t *mad)
{
    struct run *run = owner;
    struct cm_mad decoded;

    (void)route;
    if (!cm_mad_decode(mad, CM_MAD_SIZE, &decoded))
        abort(); /* what we say we must understand */
    memcpy(run->sent[run->sent_count++ % SENT], mad, CM_MAD_SIZE);
}

static void on_event(void *owner, struct cm_conn *conn, enum cm_event event,
                     const struct cm_mad *mad)
{
    struct run *run = owner;
    struct cm_ip ip;

    if (event != CM_EVENT_REQ && event != CM_EVENT_SIDR_REQ)
        return;
    (void)cm_ip_decode(mad->private_data, &ip);
    for (unsigned i = 0; i < CONNS; i++) {
        if (!run->conns[i]) {
            run->conns[i] = conn;
            return;
        }
    }
    cm_destroy(conn, run->now);
}

static void receive(struct run *run, uint8_t *bytes)
{
    struct cm_route from = {.via = next(run) % 2};

    for (unsigned changes = next(run) % 16; changes; changes--)
        bytes[next(run)] = next(run);
    /* Exactly as long as it is, so that a sanitizer sees every byte too many. */
    size_t len = next(run) ? CM_MAD_SIZE : next(run);
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        return;
    memcpy(copy, bytes, len);
    cm_receive(run->cm, run->now, &from, copy, len);
    free(copy);
}

/* One of ours as an answer: our id where the peer's stands. */
static void echo(struct run *run)
{
    uint8_t bytes[CM_MAD_SIZE], id[4];

    memcpy(bytes, run->sent[next(run) % SENT], sizeof(bytes));
    memcpy(id, bytes + 24, 4);
    memcpy(bytes + 24, bytes + 28, 4);
    memcpy(bytes + 28, id, 4);
    bytes[17] = (uint8_t)(0x10 + next(run) % 10);
    receive(run, bytes);
}

static void begin(struct run *run, struct cm_conn **slot)
{
    struct cm_mad mad = {.ca_guid = 1, .service_id = next(run), .ack_timeout = next(run) & 31};
    struct cm_route route = {.via = next(run) % 2};

    if (!*slot)
        (next(run) & 1 ? cm_connect : cm_sidr_connect)(run->cm, run->now, &route, &mad, run, slot);
}

static void call(struct run *run, struct cm_conn **slot)
{
    static const struct cm_mad answer = {.qpn = 3, .private_len = 2};

    if (!*slot)
        return;
    switch (next(run) % 8) {
    case 0:
        cm_accept(*slot, run->now, &answer);
        break;
    case 1:
        cm_confirm(*slot, run->now);
        break;
    case 2:
        cm_disconnect(*slot, run->now);
        break;
    case 3:
        cm_reject(*slot, run->now, next(run), "ab", 2);
        break;
    case 4:
        cm_established(*slot, run->now);
        break;
    case 5:
        cm_sidr_reply(*slot, &answer);
        break;
    case 6:
        cm_destroy(*slot, run->now);
        *slot = NULL;
        break;
    default:
        cm_forget(*slot);
        *slot = NULL;
        break;
    }
}

static void step(struct run *run)
{
    uint8_t blank[CM_MAD_SIZE] = {1, 7, 2, 3, [17] = 0x10};
    uint8_t what = next(run);
    struct cm_conn **slot = &run->conns[what / 8 % CONNS];

    switch (what % 8) {
    case 0:
        blank[17] = (uint8_t)(0x10 + next(run) % 10);
        receive(run, blank);
        break;
    case 1:
    case 2:
        echo(run);
        break;
    case 3:
        begin(run, slot);
        break;
    case 4:
    case 5:
        call(run, slot);
        break;
    case 6:
        cm_lost(run->cm, run->now, next(run) % 2);
        break;
    default:
        run->now += (uint64_t)next(run) << 24;
        cm_expire(run->cm, run->now);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cm_owner calls = {on_send, on_event};
    struct run run = {.at = data, .end = data + size};

    run.cm = cm_new(&calls, &run, 1);
    if (!run.cm)
        return 0;
    while (run.at < run.end)
        step(&run);
    cm_free(run.cm);
    return 0;
}
