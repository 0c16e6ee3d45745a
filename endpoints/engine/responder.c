/* SPDX-License-Identifier: MIT */
/*
 * The responder of a reliable connection: the peer's requests, in the order of IBTA 9.7.4.1: PSN,
 * order of opcodes, right to the operation, resources, length, key; then it is done.
 */
#include <string.h>

#include "engine/transport_impl.h"

/* ---- XRC: memory that may be another process's ---- */

enum outcome responder_aim(struct transport *t, uint32_t xrc_srqn)
{
    struct responder *r = &t->responder;

    if (t->config.type != TRANSPORT_XRC)
        return OUT_DONE;
    enum transport_aim aim = t->calls->aim ? t->calls->aim(t->owner, xrc_srqn) : AIM_NONE;
    r->far = aim == AIM_FAR;
    return aim == AIM_LATER ? OUT_LATER : aim == AIM_NONE ? OUT_INVALID : OUT_DONE;
}

static enum outcome move_far(struct transport *t, struct transport_far *what, enum outcome refused)
{
    switch (t->calls->far(t->owner, what)) {
    case FAR_DONE:
        return OUT_DONE;
    case FAR_LATER:
        return OUT_LATER;
    default:
        return refused;
    }
}

/* As scatter(). */
static enum outcome scatter_far(struct transport *t, const struct wire_packet *packet)
{
    const struct transport_recv *recv = &t->responder.recv;
    uint32_t offset = t->responder.offset, left = packet->payload_length;
    struct transport_far what = {.op = FAR_PLACE, .bytes = packet->payload};
    enum outcome outcome = OUT_DONE;

    for (uint32_t i = 0; i < recv->sge_count && left && outcome == OUT_DONE; i++) {
        uint32_t room = recv->sges[i].length > offset ? recv->sges[i].length - offset : 0;

        what.key = recv->sges[i].key;
        what.addr = recv->sges[i].addr + offset;
        what.length = room < left ? room : left;
        outcome = what.length ? move_far(t, &what, OUT_BROKEN) : OUT_DONE;
        offset -= room ? offset : recv->sges[i].length;
        what.bytes += what.length;
        left -= what.length;
    }
    return outcome;
}

static enum outcome place_far(struct transport *t, const struct wire_packet *packet)
{
    const struct responder *r = &t->responder;
    struct transport_far what = {
        FAR_WRITE, r->rkey, r->va + r->offset, packet->payload_length, packet->payload, 0, 0, 0};

    return move_far(t, &what, OUT_ACCESS);
}

/* ---- the parts that UC has, too ---- */

enum outcome responder_take(struct transport *t, uint32_t xrc_srqn)
{
    struct responder *r = &t->responder;

    if (!r->holds) {
        r->recv.xrc_srqn = xrc_srqn;
        if (!t->calls->take(t->owner, &r->recv))
            return OUT_NO_RECEIVE;
    }
    r->holds = true;
    r->recv_length = receive_capacity(&r->recv);
    return OUT_DONE;
}

enum outcome responder_place_send(struct transport *t, const struct wire_packet *packet)
{
    struct responder *r = &t->responder;

    if (packet->payload_length > r->recv_length - r->offset)
        return OUT_TOO_LONG;
    enum outcome outcome = r->far ? scatter_far(t, packet) : OUT_DONE;
    if (outcome != OUT_DONE)
        return outcome;
    if (!r->far && !scatter(t->calls, t->owner, r->recv.sges, r->recv.sge_count, r->offset,
                            packet->payload, packet->payload_length))
        return OUT_BROKEN;
    r->offset += packet->payload_length;
    return OUT_DONE;
}

enum outcome responder_place_write(struct transport *t, const struct wire_packet *packet)
{
    struct responder *r = &t->responder;
    uint32_t length = packet->payload_length;

    if (length > r->length - r->offset)
        return OUT_INVALID;
    if (length) {
        void *to =
            t->calls->remote(t->owner, r->rkey, r->va + r->offset, length, TRANSPORT_REMOTE_WRITE);
        enum outcome outcome = !to ? OUT_ACCESS : r->far ? place_far(t, packet) : OUT_DONE;
        if (outcome != OUT_DONE)
            return outcome;
        if (!r->far)
            memcpy(to, packet->payload, length);
    }
    r->offset += length;
    return OUT_DONE;
}

void responder_deliver(struct transport *t, const struct wire_packet *packet, unsigned traits)
{
    struct responder *r = &t->responder;
    struct transport_arrival arrival;

    arrival.slot = r->recv.slot;
    arrival.status = TRANSPORT_SUCCESS;
    arrival.byte_len = r->offset;
    arrival.imm = 0;
    arrival.src_qpn = t->config.dest_qpn;
    arrival.xrc_srqn = r->recv.xrc_srqn;
    arrival.flags =
        (traits & WIRE_IS_WRITE ? ARRIVAL_WRITE : 0) | (packet->solicited ? ARRIVAL_SOLICITED : 0);
    if (traits & WIRE_HAS_IMM) {
        arrival.flags |= ARRIVAL_IMM;
        arrival.imm = packet->imm;
    } else if (traits & WIRE_HAS_IETH) {
        arrival.flags |= ARRIVAL_INV;
        arrival.imm = packet->invalidate_rkey;
    }
    r->holds = false;
    t->calls->deliver(t->owner, &arrival);
}

void responder_give_back(struct transport *t, enum transport_status status)
{
    struct responder *r = &t->responder;
    struct transport_arrival arrival = {.slot = r->recv.slot,
                                        .status = status,
                                        .src_qpn = t->config.dest_qpn,
                                        .xrc_srqn = r->recv.xrc_srqn};

    if (!r->holds)
        return;
    r->holds = false;
    t->calls->deliver(t->owner, &arrival);
}

/* IBTA 9.7.4.1.6: full until the last; the last of several has something. */
bool responder_length_fits(const struct transport *t, const struct wire_packet *packet,
                           unsigned traits)
{
    uint32_t length = packet->payload_length, mtu = t->config.mtu;

    if (!(traits & WIRE_IS_LAST))
        return length == mtu;
    return length <= mtu && (length || (traits & WIRE_IS_FIRST));
}

void responder_stop(struct transport *t)
{
    struct responder *r = &t->responder;

    r->on = false;
    r->message = MESSAGE_NONE;
    r->cnp_due = false;
    responder_give_back(t, TRANSPORT_FLUSH_ERR);
    r->closing = r->reply != REPLY_NONE;
    if (!r->closing)
        answer_drop_all(r);
}

/* ---- refusing ---- */

static void refuse(struct transport *t, enum aeth_nak nak, enum transport_status receive,
                   enum transport_failure failure)
{
    t->responder.refusal = (uint8_t)(AETH_NAK | nak);
    answer_nak(t, t->responder.refusal, t->responder.expected);
    responder_give_back(t, receive);
    transport_stop(t);
    t->calls->fail(t->owner, failure);
}

/* IBTA table 52. */
static void conclude(struct transport *t, enum outcome outcome)
{
    struct responder *r = &t->responder;

    switch (outcome) {
    case OUT_DONE:
    case OUT_LATER:
        break;
    case OUT_NO_RECEIVE:
        answer_nak(t, AETH_RNR | (t->config.min_rnr_timer & 31), r->expected);
        r->gap_told = r->rnr_told = true;
        break;
    case OUT_INVALID:
        refuse(t, NAK_INVALID_REQUEST, TRANSPORT_FLUSH_ERR, FAILED_REQUEST);
        break;
    case OUT_ACCESS:
        refuse(t, NAK_REMOTE_ACCESS, TRANSPORT_FLUSH_ERR, FAILED_ACCESS);
        break;
    case OUT_TOO_LONG:
        refuse(t, NAK_INVALID_REQUEST, TRANSPORT_LOC_LEN_ERR, FAILED_RECEIVE);
        break;
    case OUT_BROKEN:
        refuse(t, NAK_REMOTE_OPERATIONAL, TRANSPORT_LOC_PROT_ERR, FAILED_RECEIVE);
        break;
    }
}

/* ---- requests in their turn ---- */

static bool in_order(const struct responder *r, unsigned traits)
{
    if (r->message == MESSAGE_NONE)
        return traits & WIRE_IS_FIRST;
    if (traits & WIRE_IS_FIRST)
        return false;
    return traits & (r->message == MESSAGE_SEND ? WIRE_IS_SEND : WIRE_IS_WRITE);
}

/* This packet is done: the next is awaited, and the peer told if it asked. */
static void accept(struct transport *t, const struct wire_packet *packet, unsigned traits)
{
    struct responder *r = &t->responder;

    r->expected = psn_add(r->expected, 1);
    r->gap_told = r->rnr_told = false;
    if (traits & WIRE_IS_LAST) {
        r->message = MESSAGE_NONE;
        r->msn = psn_add(r->msn, 1);
    }
    if (packet->ack_request)
        answer_ack(r);
}

static enum outcome take_send(struct transport *t, const struct wire_packet *packet,
                              unsigned traits)
{
    struct responder *r = &t->responder;

    if ((traits & WIRE_IS_FIRST) && responder_take(t, r->xrc_srqn) != OUT_DONE)
        return OUT_NO_RECEIVE;
    if (!responder_length_fits(t, packet, traits))
        return OUT_INVALID;
    if (traits & WIRE_IS_FIRST)
        r->offset = 0;
    if ((traits & WIRE_HAS_IETH) && !t->calls->may_invalidate(t->owner, packet->invalidate_rkey))
        return OUT_ACCESS;
    enum outcome outcome = responder_place_send(t, packet);
    if (outcome != OUT_DONE)
        return outcome;
    r->message = MESSAGE_SEND;
    accept(t, packet, traits);
    if (traits & WIRE_IS_LAST)
        responder_deliver(t, packet, traits);
    return OUT_DONE;
}

/* The whole range is judged at once; no length, no key (IBTA 9.7.4.1.3). */
static enum outcome begin_write(struct transport *t, const struct wire_packet *packet)
{
    struct responder *r = &t->responder;

    if (packet->dma_length > MESSAGE_MAX)
        return OUT_INVALID;
    r->va = packet->va;
    r->rkey = packet->rkey;
    r->length = packet->dma_length;
    r->offset = 0;
    if (r->length && !t->calls->remote(t->owner, r->rkey, r->va, r->length, TRANSPORT_REMOTE_WRITE))
        return OUT_ACCESS;
    return OUT_DONE;
}

static bool write_length_fits(const struct transport *t, const struct wire_packet *packet,
                              unsigned traits)
{
    const struct responder *r = &t->responder;
    bool first = traits & WIRE_IS_FIRST;
    uint64_t length = first ? packet->dma_length : r->length;
    uint64_t end = (first ? 0 : (uint64_t)r->offset) + packet->payload_length;

    if (!responder_length_fits(t, packet, traits))
        return false;
    return traits & WIRE_IS_LAST ? end == length : end < length;
}

static enum outcome take_write(struct transport *t, const struct wire_packet *packet,
                               unsigned traits)
{
    struct responder *r = &t->responder;
    enum outcome outcome = OUT_DONE;

    if ((traits & WIRE_HAS_IMM) && responder_take(t, r->xrc_srqn) != OUT_DONE)
        return OUT_NO_RECEIVE;
    if (!write_length_fits(t, packet, traits))
        return OUT_INVALID;
    if (traits & WIRE_IS_FIRST)
        outcome = begin_write(t, packet);
    if (outcome == OUT_DONE)
        outcome = responder_place_write(t, packet);
    if (outcome != OUT_DONE)
        return outcome;
    r->message = MESSAGE_WRITE;
    accept(t, packet, traits);
    if (traits & WIRE_HAS_IMM)
        responder_deliver(t, packet, traits);
    return OUT_DONE;
}

/* ---- READs and atomics: remembered, and answered when packets are asked for ---- */

static void remember(struct transport *t, const struct wire_packet *packet, uint32_t count,
                     uint64_t result)
{
    struct responder *r = &t->responder;
    struct job *job = answer_new(r);

    r->msn = psn_add(r->msn, 1);
    *job = (struct job){
        .op = packet->opcode & (uint8_t)~WIRE_SERVICE_MASK,
        .psn = packet->psn,
        .count = count,
        .from = packet->psn,
        .to = psn_add(packet->psn, count),
        .rkey = packet->rkey,
        .length = packet->dma_length,
        .va = packet->va,
        .xrc_srqn = packet->xrc_srqn,
        .msn = r->msn,
        .result = result,
    };
    r->expected = psn_add(r->expected, count);
    r->gap_told = r->rnr_told = false;
    if (r->reply == REPLY_ACK)
        r->reply = REPLY_NONE; /* the answer says as much */
}

static enum outcome take_read(struct transport *t, const struct wire_packet *packet)
{
    if (packet->dma_length > MESSAGE_MAX)
        return OUT_INVALID;
    if (packet->dma_length && !t->calls->remote(t->owner, packet->rkey, packet->va,
                                                packet->dma_length, TRANSPORT_REMOTE_READ))
        return OUT_ACCESS;
    remember(t, packet, packets_of(packet->dma_length, t->config.mtu), 0);
    return OUT_DONE;
}

static uint64_t run_atomic(uint64_t *at, const struct wire_packet *packet, unsigned op)
{
    uint64_t before = packet->compare;

    if (op == WIRE_FETCH_ADD)
        return __atomic_fetch_add(at, packet->swap_add, __ATOMIC_SEQ_CST);
    __atomic_compare_exchange_n(at, &before, packet->swap_add, false, __ATOMIC_SEQ_CST,
                                __ATOMIC_SEQ_CST);
    return before;
}

static enum outcome run_far(struct transport *t, const struct wire_packet *packet, unsigned op,
                            uint64_t *before_out)
{
    struct transport_far what = {
        .op = op == WIRE_FETCH_ADD ? FAR_FETCH_ADD : FAR_COMPARE_SWAP,
        .key = packet->rkey,
        .addr = packet->va,
        .length = sizeof(uint64_t),
        .swap_add = packet->swap_add,
        .compare = packet->compare,
    };
    enum outcome outcome = move_far(t, &what, OUT_ACCESS);

    *before_out = what.before;
    return outcome;
}

static enum outcome take_atomic(struct transport *t, const struct wire_packet *packet, unsigned op)
{
    if (packet->va % sizeof(uint64_t)) /* IBTA 9.4.5 */
        return OUT_INVALID;
    uint64_t *at = t->calls->remote(t->owner, packet->rkey, packet->va, sizeof(uint64_t),
                                    TRANSPORT_REMOTE_ATOMIC);
    if (!at || (uintptr_t)at % sizeof(uint64_t))
        return OUT_ACCESS;
    uint64_t before = 0;
    enum outcome outcome = OUT_DONE;
    if (t->responder.far)
        outcome = run_far(t, packet, op, &before);
    else
        before = run_atomic(at, packet, op);
    if (outcome == OUT_DONE)
        remember(t, packet, 1, before);
    return outcome;
}

/* ---- one packet ---- */

static unsigned right_for(unsigned op, unsigned traits)
{
    if (traits & WIRE_IS_WRITE)
        return TRANSPORT_REMOTE_WRITE;
    if (op == WIRE_READ_REQUEST)
        return TRANSPORT_REMOTE_READ;
    return traits & WIRE_IS_SEND ? 0 : TRANSPORT_REMOTE_ATOMIC;
}

static enum outcome run(struct transport *t, const struct wire_packet *packet, unsigned traits)
{
    unsigned op = packet->opcode & ~WIRE_SERVICE_MASK, right = right_for(op, traits);

    struct responder *r = &t->responder;

    if (!in_order(r, traits) || (t->config.access & right) != right)
        return OUT_INVALID;
    if (traits & WIRE_IS_FIRST)
        r->xrc_srqn = packet->xrc_srqn;
    enum outcome outcome = responder_aim(t, r->xrc_srqn);
    if (outcome != OUT_DONE)
        return outcome;
    if (traits & WIRE_IS_SEND)
        return take_send(t, packet, traits);
    if (traits & WIRE_IS_WRITE)
        return take_write(t, packet, traits);
    if (!answer_has_room(r))
        return OUT_INVALID;
    return op == WIRE_READ_REQUEST ? take_read(t, packet) : take_atomic(t, packet, op);
}

/*
 * IBTA 9.7.5.2.4: one NAK a gap; then silence until the missing one comes. But a PSN that is not
 * beyond the last one belongs to another try, which has lost the missing one again.
 */
static void tell_gap(struct transport *t, uint32_t psn)
{
    struct responder *r = &t->responder;
    bool anew = !r->gap_told || !psn_before(r->gap_seen, psn);

    t->stats.ahead++;
    r->gap_seen = psn;
    if (!anew || r->rnr_told)
        return;
    r->gap_told = true;
    answer_nak(t, AETH_NAK | NAK_SEQUENCE, r->expected);
}

/*
 * Stopped by a NAK, and asked again for what was refused, or for what came before: the NAK was
 * lost. IBTA would have us silent, and the requester give up after all its retries, without the
 * reason.
 */
void responder_say_again(struct transport *t, uint32_t psn)
{
    struct responder *r = &t->responder;

    if (!r->refusal || psn_diff(psn, r->expected) > 0) {
        t->stats.dropped++;
        return;
    }
    answer_nak(t, r->refusal, r->expected);
    r->closing = true;
}

void responder_receive(struct transport *t, const struct wire_packet *packet, unsigned traits)
{
    int32_t ahead = psn_diff(packet->psn, t->responder.expected);

    if (ahead > 0)
        tell_gap(t, packet->psn);
    else if (ahead < 0)
        answer_duplicate(t, packet, traits);
    else
        conclude(t, run(t, packet, traits));
}
