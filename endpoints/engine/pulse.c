/* SPDX-License-Identifier: MIT */
/*
 * Is the peer still there, though there is nothing to send to it? Who asks for a sign of life sends
 * an empty WRITE with the PSN before the oldest one unacknowledged: a duplicate, which a responder
 * acknowledges and which changes nothing (IBTA 9.7.5.1.1). A peer that answers nothing may have its
 * reasons. One that is said to be gone, and then answers none of a few such questions, is.
 *
 *   quiet --ask--> open --refused--> suspected --no answer to PULSES--> fail(FAILED_PEER)
 *     ^              '------ any packet -----'
 *
 * Unreliable connections, and XRC where it receives, get no acknowledgement: there it must be said
 * twice. Their question is a packet that does not fit where it comes, and so is dropped.
 */
#include "engine/transport_impl.h"

enum { PULSES = 5, PULSE_NS = 20000000, REFUSALS = 2 };

static bool is_answered(const struct transport *t)
{
    return t->config.type == TRANSPORT_RC || (t->config.type == TRANSPORT_XRC && !t->calls->aim);
}

static void quiet(struct pulse *p)
{
    p->due = p->open = p->suspected = false;
    p->asked = p->refusals = 0;
    p->at_ns = TRANSPORT_NEVER;
}

static bool is_idle(const struct transport *t)
{
    return t->sender.on && t->sender.una == t->sender.sent;
}

void transport_watch(struct transport *t, bool on)
{
    quiet(&t->pulse);
    t->pulse.on = on;
}

bool transport_ask(struct transport *t)
{
    if (!t->pulse.on || t->pulse.suspected || !is_idle(t))
        return false;
    t->pulse.due = true;
    return true;
}

void pulse_heard(struct transport *t)
{
    quiet(&t->pulse);
}

bool pulse_is_open(const struct transport *t, uint32_t psn)
{
    return t->pulse.open && psn == psn_add(t->sender.una, PSN_MASK);
}

void pulse_refused(struct transport *t, uint64_t now_ns)
{
    struct pulse *p = &t->pulse;

    if (!p->on || !is_idle(t))
        return;
    p->refusals++;
    if (p->suspected)
        return;
    p->suspected = p->due = true;
    p->asked = 0;
    p->at_ns = now_ns + PULSE_NS;
}

static void gone(struct transport *t)
{
    quiet(&t->pulse);
    t->pulse.on = false;
    if (t->config.type != TRANSPORT_UC)
        transport_stop(t);
    t->calls->fail(t->owner, FAILED_PEER);
}

void pulse_expire(struct transport *t, uint64_t now_ns)
{
    struct pulse *p = &t->pulse;

    if (now_ns < p->at_ns)
        return;
    if (!is_idle(t)) {
        quiet(p); /* what is under way finds out by itself */
    } else if (++p->asked < PULSES) {
        p->due = true;
        p->at_ns = now_ns + PULSE_NS;
    } else if (is_answered(t) || p->refusals >= REFUSALS) {
        gone(t);
    } else {
        p->suspected = false; /* the next question may be refused again */
        p->at_ns = TRANSPORT_NEVER;
    }
}

bool pulse_ready(const struct transport *t)
{
    return t->pulse.due && is_idle(t);
}

bool pulse_next(struct transport *t, struct transport_packet *out)
{
    struct pulse *p = &t->pulse;

    if (!pulse_ready(t))
        return false;
    packet_begin(t, t->config.type == TRANSPORT_UC ? WIRE_SEND_MIDDLE : WIRE_WRITE_ONLY,
                 psn_add(t->sender.una, PSN_MASK), out);
    out->headers.ack_request = is_answered(t);
    p->due = false;
    p->open = true;
    return true;
}
