/* SPDX-License-Identifier: MIT */
/*
 * The completer: what the peer answers, and its silence (IBTA 9.7.5, 9.7.6).
 *
 *   ACK up to p      SENDs and WRITEs before p are over; a READ or atomic among them that has not
 *                    been answered was lost: go back to it
 *   answer at p      the same for what is before p; its payload is placed if it is the next one
 *   NAK at p         the same for what is before p; then go back, wait, or fail, as it says
 *   silence          probe early, by measured round trips; give up by the ACK timeouts alone
 */
#include "engine/transport_impl.h"

/* ---- time ---- */

/*
 * Software that must wait for a core is no dead peer. Four times what is asked for is allowed (IBTA
 * 9.7.6.1.3), and is taken while it is not long; hardware has a floor, too.
 */
enum { TIMEOUT_LEAST_NS = 10000000, TIMEOUT_PATIENT_NS = 250000000, REFUSED_NS = 20000000 };

static uint64_t timeout_ns(const struct transport *t)
{
    uint64_t asked = 4096ull << t->config.timeout;
    uint64_t patient = 4 * asked < TIMEOUT_PATIENT_NS ? 4 * asked : TIMEOUT_PATIENT_NS;

    if (t->sender.refused)
        return REFUSED_NS;
    if (!t->config.timeout)
        return TRANSPORT_NEVER;
    if (patient < TIMEOUT_LEAST_NS)
        return TIMEOUT_LEAST_NS;
    return asked < patient ? patient : asked;
}

static uint64_t after(uint64_t now_ns, uint64_t wait_ns)
{
    return wait_ns > TRANSPORT_NEVER - 1 - now_ns ? TRANSPORT_NEVER : now_ns + wait_ns;
}

static void rearm(struct transport *t, uint64_t now_ns)
{
    struct sender *s = &t->sender;

    s->timeout_at_ns = s->probe_at_ns = TRANSPORT_NEVER;
    if (s->una == s->sent)
        return;
    s->timeout_at_ns = after(now_ns, timeout_ns(t));
    s->probe_at_ns = after(now_ns, window_probe_after_ns(&s->window));
}

void completer_arm(struct transport *t, uint64_t now_ns)
{
    if (t->sender.probe_at_ns == TRANSPORT_NEVER)
        rearm(t, now_ns);
}

static void disarm(struct sender *s)
{
    s->timeout_at_ns = s->probe_at_ns = TRANSPORT_NEVER;
}

uint64_t completer_deadline(const struct sender *s)
{
    if (!s->on)
        return TRANSPORT_NEVER;
    if (s->rnr_until_ns)
        return s->rnr_until_ns;
    return s->timeout_at_ns < s->probe_at_ns ? s->timeout_at_ns : s->probe_at_ns;
}

static void timed_out(struct transport *t, uint64_t now_ns)
{
    struct sender *s = &t->sender;

    t->stats.timeouts++;
    if (s->retries++ >= t->config.retry_count) {
        sender_fail(t, TRANSPORT_RETRY_EXC_ERR);
        return;
    }
    window_probed(&s->window);
    sender_go_back(t);
    rearm(t, now_ns);
}

/* Resend early: that costs a packet or two, and the ACK timeout goes on as it was. */
static void probe(struct transport *t, uint64_t now_ns)
{
    struct sender *s = &t->sender;

    t->stats.probes++;
    window_probed(&s->window);
    sender_go_back(t);
    s->probe_at_ns = after(now_ns, window_probe_after_ns(&s->window));
}

/* All was sent once, and of the last of it no acknowledgement was asked for: no loss, so far. */
static bool has_unasked(const struct sender *s)
{
    return s->unasked && s->send == s->sent && s->una != s->sent && !s->gone_back;
}

static void ask(struct transport *t, uint64_t now_ns)
{
    sender_ask(t);
    t->sender.probe_at_ns = after(now_ns, window_probe_after_ns(&t->sender.window));
}

void completer_expire(struct transport *t, uint64_t now_ns)
{
    struct sender *s = &t->sender;

    if (!s->on || completer_deadline(s) > now_ns)
        return;
    if (s->rnr_until_ns)
        s->rnr_until_ns = s->gone_back = 0;
    else if (s->timeout_at_ns <= now_ns)
        timed_out(t, now_ns);
    else if (has_unasked(s))
        ask(t, now_ns);
    else
        probe(t, now_ns);
}

void completer_refused(struct transport *t, uint64_t now_ns)
{
    struct sender *s = &t->sender;
    uint64_t soon = after(now_ns, REFUSED_NS);

    if (!s->on || s->una == s->sent || s->rnr_until_ns || s->refused)
        return;
    s->refused = true;
    if (soon < s->timeout_at_ns)
        s->timeout_at_ns = soon;
}

/* ---- progress ---- */

static bool needs_answer(const struct request *r)
{
    return is_fetch(r->wr.op);
}

static void forget_fetches(struct sender *s)
{
    while (s->fetch_head != s->fetch_tail) {
        const struct fetch *fetch = &s->fetches[s->fetch_head % FETCHES];

        if (psn_before(s->una, psn_add(fetch->psn, fetch->count)))
            return;
        s->fetch_head++;
    }
}

/* The peer is alive and has more than before. */
static void progressed(struct transport *t, uint64_t now_ns, uint32_t before, uint32_t flying)
{
    struct sender *s = &t->sender;

    if (s->una == before)
        return;
    if (psn_before(s->send, s->una)) {
        s->send = s->una;
        s->cursor = s->head;
        window_restore(&s->window);
    }
    s->retries = s->rnr_tries = 0;
    s->rnr_until_ns = 0;
    s->gone_back = s->refused = false;
    forget_fetches(s);
    window_timed(&s->window, s->una, now_ns);
    window_acked(&s->window, s->una, (s->una - before) & PSN_MASK, flying);
    rearm(t, now_ns);
}

/* Everything before psn is acknowledged. False: an answer among it is missing. */
static bool acknowledge(struct transport *t, uint64_t now_ns, uint32_t psn)
{
    struct sender *s = &t->sender;
    uint32_t before = s->una, flying = in_flight(s);
    bool complete = true;

    while (s->on && s->head != s->tail && psn_before(s->una, psn)) {
        const struct request *r = sender_at(s, s->head);
        uint32_t end = psn_add(r->psn, r->psn_count);

        if (needs_answer(r)) {
            complete = false;
            break;
        }
        if (psn_before(psn, end)) {
            s->una = psn;
            break;
        }
        s->una = end;
        sender_complete(t, TRANSPORT_SUCCESS, 0);
    }
    progressed(t, now_ns, before, flying);
    return complete;
}

/* Of all that asks for it, what was lost first is what counts. */
static void retry(struct transport *t, uint64_t now_ns)
{
    struct sender *s = &t->sender;

    if (s->gone_back)
        return;
    t->stats.go_backs++;
    window_lost(&s->window, s->una, s->sent);
    sender_go_back(t);
    s->gone_back_ns = now_ns;
}

/*
 * An answer came, but not the one before it. Of one try that is told many times; a PSN that is not
 * beyond the last one told is of the next try.
 */
static void answer_missing(struct transport *t, uint64_t now_ns, uint32_t psn)
{
    struct sender *s = &t->sender;

    if (s->gone_back && !psn_before(s->ahead, psn))
        s->gone_back = false;
    s->ahead = psn;
    retry(t, now_ns);
}

/* ---- credits (IBTA 9.7.7.2) ---- */

static void take_credits(struct sender *s, const struct wire_packet *packet)
{
    uint8_t code = packet->syndrome & AETH_VALUE_MASK;

    if (code == AETH_CREDIT_NONE) {
        s->unlimited = true;
        return;
    }
    uint32_t limit = psn_add(packet->msn, aeth_credits(code));
    if (psn_before(s->limit, limit))
        s->limit = limit;
}

/* ---- NAKs ---- */

static enum transport_status nak_status(uint8_t code)
{
    switch (code) {
    case NAK_INVALID_REQUEST:
        return TRANSPORT_REM_INV_REQ_ERR;
    case NAK_REMOTE_ACCESS:
        return TRANSPORT_REM_ACCESS_ERR;
    default:
        return TRANSPORT_REM_OP_ERR;
    }
}

/* Has there been time for what was sent again to arrive, and to be missed again? */
static bool may_tell_of_next_try(const struct sender *s, uint64_t now_ns)
{
    return s->window.srtt_ns && now_ns - s->gone_back_ns >= s->window.best_ns / 2;
}

static void take_nak(struct transport *t, uint64_t now_ns, const struct wire_packet *packet)
{
    struct sender *s = &t->sender;
    uint8_t code = packet->syndrome & AETH_VALUE_MASK;

    t->stats.naks_received++;
    if (code == NAK_SEQUENCE && s->gone_back && may_tell_of_next_try(s, now_ns))
        s->gone_back = false;
    if (!acknowledge(t, now_ns, packet->psn) || code == NAK_SEQUENCE)
        retry(t, now_ns);
    else if (code <= NAK_INVALID_RD && s->head != s->tail)
        sender_fail(t, nak_status(code));
}

static void take_rnr(struct transport *t, uint64_t now_ns, const struct wire_packet *packet)
{
    struct sender *s = &t->sender;

    t->stats.rnrs_received++;
    if (!acknowledge(t, now_ns, packet->psn)) {
        retry(t, now_ns);
        return;
    }
    if (s->rnr_until_ns)
        return; /* told twice */
    if (t->config.rnr_retry != RNR_FOR_EVER && s->rnr_tries++ >= t->config.rnr_retry) {
        sender_fail(t, TRANSPORT_RNR_RETRY_EXC_ERR);
        return;
    }
    s->retries = 0;
    sender_go_back(t);
    disarm(s);
    s->rnr_until_ns = now_ns + rnr_time_ns(packet->syndrome & AETH_VALUE_MASK);
}

static void take_ack(struct transport *t, uint64_t now_ns, const struct wire_packet *packet)
{
    switch (packet->syndrome & AETH_TYPE_MASK) {
    case AETH_ACK:
        take_credits(&t->sender, packet);
        if (!acknowledge(t, now_ns, psn_add(packet->psn, 1)))
            retry(t, now_ns);
        break;
    case AETH_RNR:
        take_rnr(t, now_ns, packet);
        break;
    case AETH_NAK:
        take_nak(t, now_ns, packet);
        break;
    default:
        t->stats.dropped++;
        break;
    }
}

/* ---- answers ---- */

/* One answer arrived; true if it was the request's last. */
static bool answered(struct transport *t, uint64_t now_ns, const struct request *r)
{
    struct sender *s = &t->sender;
    uint32_t before = s->una, flying = in_flight(s);

    s->una = psn_add(s->una, 1);
    bool last = s->una == psn_add(r->psn, r->psn_count);
    if (last)
        sender_complete(t, TRANSPORT_SUCCESS, r->length);
    progressed(t, now_ns, before, flying);
    return last;
}

static void take_read(struct transport *t, uint64_t now_ns, const struct request *r,
                      const struct wire_packet *packet)
{
    uint32_t offset = ((packet->psn - r->psn) & PSN_MASK) * t->config.mtu;
    uint32_t left = r->length - offset;

    if (packet->payload_length != (left < t->config.mtu ? left : t->config.mtu))
        sender_fail(t, TRANSPORT_BAD_RESP_ERR);
    else if (!scatter(t->calls, t->owner, r->wr.sges, r->wr.sge_count, offset, packet->payload,
                      packet->payload_length))
        sender_fail(t, TRANSPORT_LOC_PROT_ERR);
    else
        answered(t, now_ns, r);
}

static void take_atomic(struct transport *t, uint64_t now_ns, const struct request *r,
                        const struct wire_packet *packet)
{
    if (!scatter(t->calls, t->owner, r->wr.sges, r->wr.sge_count, 0,
                 (const uint8_t *)&packet->original, sizeof(packet->original)))
        sender_fail(t, TRANSPORT_LOC_PROT_ERR);
    else
        answered(t, now_ns, r);
}

static void take_answer(struct transport *t, uint64_t now_ns, const struct wire_packet *packet,
                        unsigned traits)
{
    struct sender *s = &t->sender;

    if ((traits & WIRE_HAS_AETH) && (packet->syndrome & AETH_TYPE_MASK) != AETH_ACK) {
        t->stats.dropped++;
        return;
    }
    if (!acknowledge(t, now_ns, packet->psn)) {
        answer_missing(t, now_ns, packet->psn);
        return;
    }
    if (!s->on || s->head == s->tail)
        return;
    const struct request *r = sender_at(s, s->head);
    bool atomic = traits & WIRE_HAS_ATOMIC_ACK;
    if (!r->begun || s->una != packet->psn || !needs_answer(r) ||
        atomic == (r->wr.op == TRANSPORT_READ)) {
        t->stats.dropped++;
        return;
    }
    if (traits & WIRE_HAS_AETH)
        take_credits(s, packet);
    if (atomic)
        take_atomic(t, now_ns, r, packet);
    else
        take_read(t, now_ns, r, packet);
}

/* Only what we have sent and is not acknowledged yet can be answered. */
void completer_receive(struct transport *t, uint64_t now_ns, const struct wire_packet *packet,
                       unsigned traits)
{
    struct sender *s = &t->sender;

    if (!s->on || t->config.type == TRANSPORT_UC) {
        t->stats.dropped++;
        return;
    }
    bool in_window = !psn_before(packet->psn, s->una) && psn_before(packet->psn, s->sent);
    if (!in_window) {
        t->stats.dropped++;
        /* A late ACK has no news but its credits. */
        if (packet->psn == psn_add(s->una, PSN_MASK) &&
            (packet->opcode & ~WIRE_SERVICE_MASK) == WIRE_ACK &&
            (packet->syndrome & AETH_TYPE_MASK) == AETH_ACK)
            take_credits(s, packet);
        return;
    }
    if ((packet->opcode & ~WIRE_SERVICE_MASK) == WIRE_ACK)
        take_ack(t, now_ns, packet);
    else
        take_answer(t, now_ns, packet, traits);
    sender_settle(t);
}
