/* SPDX-License-Identifier: MIT */
/* A queue pair's transport as a whole: life, states, and who has the next packet. */
#include <stdlib.h>

#include "engine/transport_impl.h"

enum { REQUESTS_BEFORE_ACK = 8 };

/* ---- life ---- */

struct transport *transport_new(const struct transport_config *config,
                                const struct transport_calls *calls, void *owner)
{
    struct transport *t = calloc(1, sizeof(*t));

    if (!t)
        return NULL;
    t->config = *config;
    t->calls = calls;
    t->owner = owner;
    t->pulse.at_ns = TRANSPORT_NEVER;
    window_init(&t->sender.window, config->window);
    if (sender_init(&t->sender, config) && answer_init(&t->responder, config))
        return t;
    transport_free(t);
    return NULL;
}

void transport_free(struct transport *t)
{
    if (!t)
        return;
    sender_fini(&t->sender);
    answer_fini(&t->responder);
    free(t);
}

/* ---- states ---- */

void transport_start_receiving(struct transport *t, uint32_t psn)
{
    t->responder.expected = psn & PSN_MASK;
    t->responder.behind = 0;
    t->responder.on = true;
}

void transport_start_sending(struct transport *t, uint32_t psn)
{
    struct sender *s = &t->sender;

    s->una = s->send = s->sent = s->next = psn & PSN_MASK;
    s->timeout_at_ns = s->probe_at_ns = TRANSPORT_NEVER;
    s->window.probes = psn ^ t->config.dest_qpn << 16; /* not in step with the peer's */
    s->on = true;
}

void transport_hold(struct transport *t, bool hold)
{
    t->sender.held = hold;
}

/* What has not begun may wait; what has begun must be over. */
bool transport_is_drained(const struct transport *t)
{
    const struct sender *s = &t->sender;

    return s->held && (s->head == s->tail || !s->ring[s->head & s->mask].begun);
}

void transport_stop(struct transport *t)
{
    t->sender.on = false;
    t->sender.timeout_at_ns = t->sender.probe_at_ns = TRANSPORT_NEVER;
    t->sender.rnr_until_ns = 0;
    transport_watch(t, false);
    responder_stop(t);
}

void transport_flush(struct transport *t)
{
    struct sender *s = &t->sender;

    while (s->head != s->tail)
        sender_complete(t, TRANSPORT_FLUSH_ERR, 0);
    s->cursor = s->head;
    s->fetch_head = s->fetch_tail;
    s->una = s->send = s->sent = s->next;
}

void transport_modify(struct transport *t, const struct transport_config *config)
{
    struct transport_config before = t->config;

    t->config = *config;
    t->config.type = before.type;
    t->config.max_wr = before.max_wr;
    t->config.max_sge = before.max_sge;
    t->config.max_inline = before.max_inline;
    t->config.max_dest_rd_atomic = before.max_dest_rd_atomic;
}

const struct transport_config *transport_config_of(const struct transport *t)
{
    return &t->config;
}

void transport_set_share(struct transport *t, uint32_t packets)
{
    t->sender.share = packets;
}

bool transport_is_sending(const struct transport *t)
{
    return t->sender.on && t->sender.head != t->sender.tail;
}

/* ---- packets in ---- */

static uint8_t service_of(const struct transport *t)
{
    switch (t->config.type) {
    case TRANSPORT_RC:
        return WIRE_RC;
    case TRANSPORT_UC:
        return WIRE_UC;
    default:
        return WIRE_XRC;
    }
}

static bool is_ours(const struct transport *t, const struct wire_packet *packet, unsigned traits)
{
    uint8_t service = service_of(t);

    return (traits & WIRE_IS_VALID) && (packet->opcode & WIRE_SERVICE_MASK) == service &&
           wire_pkey_matches(packet->pkey, t->config.pkey);
}

static void congestion_seen(struct transport *t, uint64_t now_ns)
{
    struct responder *r = &t->responder;

    if (r->cnp_at_ns && now_ns - r->cnp_at_ns < CNP_INTERVAL_NS)
        return;
    r->cnp_due = true;
    r->cnp_at_ns = now_ns;
}

static void congestion_told(struct transport *t)
{
    t->stats.cnps_received++;
    window_congested(&t->sender.window, t->sender.una, t->sender.sent);
}

void transport_receive(struct transport *t, uint64_t now_ns, const struct wire_packet *packet,
                       bool ce)
{
    unsigned traits = wire_traits(packet->opcode);

    t->stats.received++;
    if (packet->opcode == WIRE_CNP) {
        congestion_told(t);
        return;
    }
    if (!is_ours(t, packet, traits)) {
        t->stats.dropped++;
        return;
    }
    if (__builtin_expect(t->pulse.open || t->pulse.suspected, 0))
        pulse_heard(t);
    if (ce && t->responder.on)
        congestion_seen(t, now_ns);
    if (traits & WIRE_IS_RESPONSE)
        completer_receive(t, now_ns, packet, traits);
    else if (!t->responder.on)
        responder_say_again(t, packet->psn);
    else if (t->config.type != TRANSPORT_UC)
        responder_receive(t, packet, traits);
    else
        unreliable_receive(t, packet, traits);
}

/* ---- packets out ---- */

void packet_begin(const struct transport *t, uint8_t operation, uint32_t psn,
                  struct transport_packet *out)
{
    uint8_t service = service_of(t);

    wire_clear(&out->headers);
    out->headers.opcode = service | operation;
    out->headers.migrated = true; /* no other path: hardware asks for it */
    out->headers.pkey = t->config.pkey;
    out->headers.dest_qpn = t->config.dest_qpn;
    out->headers.psn = psn;
    out->part_count = 0;
}

static void make_cnp(struct transport *t, struct transport_packet *out)
{
    static uint8_t reserved[WIRE_CNP_RESERVED];

    packet_begin(t, 0, 0, out);
    out->headers.opcode = WIRE_CNP;
    out->headers.becn = true;
    out->headers.payload_length = WIRE_CNP_RESERVED;
    out->parts[0] = (struct iovec){reserved, WIRE_CNP_RESERVED};
    out->part_count = 1;
    t->responder.cnp_due = false;
    t->stats.cnps_sent++;
}

static bool has_only_ack(const struct responder *r)
{
    return r->reply == REPLY_ACK && !r->pending;
}

/*
 * Answers and requests take turns, so that a long READ of the peer does not keep ours waiting. An
 * ACK goes behind a few requests: it is the shorter packet, and so the kernel sends it with them.
 */
static bool next_of_two(struct transport *t, uint64_t now_ns, struct transport_packet *out)
{
    bool acks = has_only_ack(&t->responder);

    t->answer_turn = acks ? t->before_ack++ >= REQUESTS_BEFORE_ACK : !t->answer_turn;
    if (!acks)
        t->before_ack = 0;
    if (t->answer_turn)
        return answer_next(t, out) || sender_next(t, now_ns, out);
    return sender_next(t, now_ns, out) || answer_next(t, out);
}

bool transport_next(struct transport *t, uint64_t now_ns, struct transport_packet *packet_out)
{
    if (t->responder.cnp_due)
        make_cnp(t, packet_out);
    else if (!next_of_two(t, now_ns, packet_out) && !pulse_next(t, packet_out))
        return false;
    t->stats.sent++;
    return true;
}

bool transport_has_next(struct transport *t, uint64_t now_ns)
{
    return t->responder.cnp_due || answer_ready(&t->responder) || sender_ready(t, now_ns) ||
           pulse_ready(t);
}

bool transport_is_urgent(struct transport *t, uint64_t now_ns)
{
    return t->responder.cnp_due || sender_ready(t, now_ns) ||
           (answer_ready(&t->responder) && !has_only_ack(&t->responder));
}

/* ---- time ---- */

uint64_t transport_deadline(const struct transport *t)
{
    uint64_t deadline = completer_deadline(&t->sender);

    return t->pulse.at_ns < deadline ? t->pulse.at_ns : deadline;
}

void transport_expire(struct transport *t, uint64_t now_ns)
{
    completer_expire(t, now_ns);
    pulse_expire(t, now_ns);
}

bool transport_is_in_flight(const struct transport *t, uint32_t psn)
{
    const struct sender *s = &t->sender;

    return pulse_is_open(t, psn) || (s->on && !psn_before(psn, s->una) && psn_before(psn, s->sent));
}

void transport_refused(struct transport *t, uint64_t now_ns)
{
    completer_refused(t, now_ns);
    pulse_refused(t, now_ns);
}

bool transport_is_refused(const struct transport *t)
{
    return t->sender.refused;
}

/* IBTA table 45, in units of 10 us; code 0 is the longest. */
uint64_t rnr_time_ns(uint8_t code)
{
    static const uint32_t units[32] = {
        65536, 1,    2,    3,    4,    6,     8,     12,    16,    24,    32,
        48,    64,   96,   128,  192,  256,   384,   512,   768,   1024,  1536,
        2048,  3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152,
    };

    return units[code & 31] * 10000ull;
}

/* ---- what is known ---- */

void transport_get_stats(const struct transport *t, struct transport_stats *stats_out)
{
    *stats_out = t->stats;
}

uint32_t transport_head(const struct transport *t)
{
    return t->sender.head;
}

uint32_t transport_tail(const struct transport *t)
{
    return t->sender.tail;
}
