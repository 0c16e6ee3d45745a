/* SPDX-License-Identifier: MIT */
/*
 * The responder of an unreliable connection (IBTA 9.8.2): nobody is told anything. What does not
 * fit ends its message, and the next one to begin is taken, whatever its PSN; but nothing twice.
 */
#include "engine/transport_impl.h"

enum { LATE_MOST = 1024 }; /* packets that came since: nothing is that late */

static enum outcome take_send(struct transport *t, const struct wire_packet *packet,
                              unsigned traits)
{
    struct responder *r = &t->responder;

    if (traits & WIRE_IS_FIRST) {
        if (responder_take(t, 0) != OUT_DONE)
            return OUT_NO_RECEIVE;
        r->message = MESSAGE_SEND;
        r->offset = 0;
    }
    return responder_place_send(t, packet);
}

static enum outcome take_write(struct transport *t, const struct wire_packet *packet,
                               unsigned traits)
{
    struct responder *r = &t->responder;

    if (!(t->config.access & TRANSPORT_REMOTE_WRITE))
        return OUT_ACCESS;
    if (traits & WIRE_IS_FIRST) {
        r->message = MESSAGE_WRITE;
        r->va = packet->va;
        r->rkey = packet->rkey;
        r->length = packet->dma_length;
        r->offset = 0;
    }
    if (r->length > MESSAGE_MAX ||
        (r->length &&
         !t->calls->remote(t->owner, r->rkey, r->va, r->length, TRANSPORT_REMOTE_WRITE)))
        return OUT_ACCESS;
    enum outcome outcome = responder_place_write(t, packet);
    if (outcome == OUT_DONE && (traits & WIRE_IS_LAST) && r->offset != r->length)
        return OUT_INVALID;
    if (outcome == OUT_DONE && (traits & WIRE_HAS_IMM))
        return responder_take(t, 0);
    return outcome;
}

/* Does it begin a message, or go on with the one under way? */
static bool fits(const struct responder *r, const struct wire_packet *packet, unsigned traits)
{
    if (traits & WIRE_IS_FIRST)
        return true;
    if (packet->psn != r->expected || r->message == MESSAGE_NONE)
        return false;
    return traits & (r->message == MESSAGE_SEND ? WIRE_IS_SEND : WIRE_IS_WRITE);
}

/*
 * IBTA has any first packet begin a message, whatever its PSN: its networks neither double nor
 * reorder. IP's do. What is a little behind has been here, or was overtaken, and is lost.
 */
static bool is_late(const struct responder *r, uint32_t psn)
{
    int32_t behind = -psn_diff(psn, r->expected);

    return behind > 0 && behind <= (int32_t)r->behind;
}

static void advance(struct responder *r, uint32_t psn)
{
    int32_t ahead = psn_diff(psn, r->expected) + 1;

    r->behind = ahead > 0 ? r->behind + (uint32_t)ahead : 1;
    r->behind = r->behind < LATE_MOST ? r->behind : LATE_MOST;
    r->expected = psn_add(psn, 1);
}

static enum outcome run(struct transport *t, const struct wire_packet *packet, unsigned traits)
{
    if (!fits(&t->responder, packet, traits) || !responder_length_fits(t, packet, traits))
        return OUT_INVALID;
    advance(&t->responder, packet->psn);
    return traits & WIRE_IS_SEND ? take_send(t, packet, traits) : take_write(t, packet, traits);
}

/* A receive that was taken for the message that ends here is there for the next one. */
static void drop(struct transport *t, enum outcome outcome)
{
    t->responder.message = MESSAGE_NONE;
    t->stats.dropped++;
    if (outcome != OUT_BROKEN)
        return;
    responder_give_back(t, TRANSPORT_LOC_PROT_ERR);
    transport_stop(t);
    t->calls->fail(t->owner, FAILED_RECEIVE);
}

void unreliable_receive(struct transport *t, const struct wire_packet *packet, unsigned traits)
{
    struct responder *r = &t->responder;

    if (is_late(r, packet->psn)) {
        t->stats.dropped++;
        return;
    }
    enum outcome outcome = run(t, packet, traits);

    if (outcome != OUT_DONE) {
        drop(t, outcome);
        return;
    }
    if (!(traits & WIRE_IS_LAST))
        return;
    if (r->message == MESSAGE_SEND || (traits & WIRE_HAS_IMM))
        responder_deliver(t, packet, traits);
    r->message = MESSAGE_NONE;
}
