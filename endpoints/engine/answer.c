/* SPDX-License-Identifier: MIT */
/*
 * What the responder says: answers to READs and atomics in the order of their PSNs, then one ACK or
 * NAK for all that was taken (IBTA 9.7.5). The last requests of that kind are remembered, so that a
 * duplicate is answered again and not done again.
 */
#include <stdlib.h>

#include "engine/transport_impl.h"

bool answer_init(struct responder *r, const struct transport_config *config)
{
    r->job_size = config->max_dest_rd_atomic;
    r->jobs = calloc((size_t)r->job_size + 1, sizeof(*r->jobs));
    return r->jobs;
}

void answer_fini(struct responder *r)
{
    free(r->jobs);
}

static struct job *job_at(const struct responder *r, uint32_t position)
{
    return &r->jobs[position % r->job_size];
}

static bool is_pending(const struct job *job)
{
    return job->from != job->to;
}

bool answer_has_room(struct responder *r)
{
    if (!r->job_size)
        return false;
    if (r->job_tail - r->job_head < r->job_size)
        return true;
    const struct job *oldest = job_at(r, r->job_head);
    return !is_pending(oldest) || oldest->replay;
}

struct job *answer_new(struct responder *r)
{
    if (r->job_tail - r->job_head == r->job_size) {
        r->pending -= is_pending(job_at(r, r->job_head));
        r->job_head++;
    }
    r->pending++;
    return job_at(r, r->job_tail++);
}

void answer_drop_all(struct responder *r)
{
    r->job_head = r->job_tail;
    r->pending = 0;
    r->reply = REPLY_NONE;
    r->closing = false;
}

void answer_ack(struct responder *r)
{
    if (r->reply == REPLY_NONE)
        r->reply = REPLY_ACK;
}

void answer_nak(struct transport *t, uint8_t syndrome, uint32_t psn)
{
    struct responder *r = &t->responder;

    r->reply = REPLY_NAK;
    r->reply_syndrome = syndrome;
    r->reply_psn = psn;
}

/* ---- duplicates (IBTA 9.7.5.1.1) ---- */

static void replay(struct responder *r, struct job *job, uint32_t from, uint32_t to)
{
    bool before = is_pending(job);

    /* What was still to come of the first answer comes behind. */
    if (before && !job->replay && psn_before(to, job->to))
        to = job->to;
    job->from = from;
    job->to = to;
    job->continued = false;
    job->replay = !before || job->replay;
    r->pending += !before;
}

static void repeat_read(struct transport *t, struct job *job, const struct wire_packet *packet)
{
    uint32_t index = (packet->psn - job->psn) & PSN_MASK;
    uint64_t offset = (uint64_t)index * t->config.mtu;
    uint32_t count = packets_of(packet->dma_length, t->config.mtu);

    if (packet->rkey != job->rkey || packet->va != job->va + offset ||
        packet->dma_length > job->length - offset || count > job->count - index) {
        t->stats.dropped++;
        return;
    }
    replay(&t->responder, job, packet->psn, psn_add(packet->psn, count));
}

static struct job *find_job(const struct responder *r, const struct wire_packet *packet)
{
    for (uint32_t i = r->job_head; i != r->job_tail; i++) {
        struct job *job = job_at(r, i);

        if (((packet->psn - job->psn) & PSN_MASK) < job->count &&
            job->op == (packet->opcode & ~WIRE_SERVICE_MASK))
            return job;
    }
    return NULL;
}

void answer_duplicate(struct transport *t, const struct wire_packet *packet, unsigned traits)
{
    struct responder *r = &t->responder;

    t->stats.duplicates++;
    if (traits & (WIRE_IS_SEND | WIRE_IS_WRITE)) {
        answer_ack(r);
        return;
    }
    struct job *job = find_job(r, packet);
    if (!job)
        t->stats.dropped++;
    else if (job->op == WIRE_READ_REQUEST)
        repeat_read(t, job, packet);
    else if (job->va == packet->va && job->rkey == packet->rkey)
        replay(r, job, job->psn, psn_add(job->psn, 1));
    else
        t->stats.dropped++;
}

/* ---- packets ---- */

bool answer_ready(const struct responder *r)
{
    return (r->on || r->closing) && (r->pending || r->reply != REPLY_NONE);
}

static uint8_t credit_code(const struct transport *t)
{
    uint32_t receives = t->calls->receives(t->owner);

    if (receives == UINT32_MAX)
        return AETH_CREDIT_NONE;
    return aeth_credit_code(receives + t->responder.holds);
}

static void fill_aeth(const struct transport *t, uint32_t msn, struct transport_packet *out)
{
    out->headers.syndrome = AETH_ACK | credit_code(t);
    out->headers.msn = msn;
}

/* The key has gone since the READ was accepted: what a new READ would hear. */
static void lost_access(struct transport *t, struct job *job)
{
    struct responder *r = &t->responder;
    uint32_t psn = job->from;

    job->to = job->from;
    r->pending--;
    if (r->closing || job->replay)
        return;
    answer_drop_all(r);
    answer_nak(t, AETH_NAK | NAK_REMOTE_ACCESS, psn);
    transport_stop(t);
    t->calls->fail(t->owner, FAILED_ACCESS);
}

static void finish_packet(struct responder *r, struct job *job)
{
    job->from = psn_add(job->from, 1);
    r->pending -= !is_pending(job);
}

/* What an answer's packet is made of. NULL: it can't be now, or (see lost_access()) no more. */
static void *read_from(struct transport *t, struct job *job, uint32_t offset, uint32_t length)
{
    struct transport_far what = {
        .op = FAR_READ, .key = job->rkey, .addr = job->va + offset, .length = length};
    enum outcome outcome = responder_aim(t, job->xrc_srqn);
    void *from = NULL;

    if (outcome == OUT_LATER)
        return NULL;
    if (outcome == OUT_DONE)
        from =
            t->calls->remote(t->owner, job->rkey, job->va + offset, length, TRANSPORT_REMOTE_READ);
    if (!from) {
        lost_access(t, job);
        return NULL;
    }
    if (!t->responder.far)
        return from;
    enum transport_far_result result = t->calls->far(t->owner, &what);
    if (result == FAR_REFUSED)
        lost_access(t, job);
    return result == FAR_DONE ? (void *)(uintptr_t)what.bytes : NULL;
}

static bool make_read(struct transport *t, struct job *job, struct transport_packet *out)
{
    uint32_t offset = ((job->from - job->psn) & PSN_MASK) * t->config.mtu;
    uint32_t left = job->length - offset, length = left < t->config.mtu ? left : t->config.mtu;
    void *from = NULL;

    if (length) {
        from = read_from(t, job, offset, length);
        if (!from)
            return false;
    }
    bool last = psn_add(job->from, 1) == job->to;
    packet_begin(t, wire_message_operation(WIRE_MESSAGE_READ_ANSWER, !job->continued, last),
                 job->from, out);
    if (!job->continued || last)
        fill_aeth(t, job->msn, out);
    job->continued = !last;
    out->headers.payload_length = length;
    if (length)
        out->parts[out->part_count++] = (struct iovec){from, length};
    return true;
}

static void make_atomic_ack(const struct transport *t, const struct job *job,
                            struct transport_packet *out)
{
    packet_begin(t, WIRE_ATOMIC_ACK, job->from, out);
    fill_aeth(t, job->msn, out);
    out->headers.original = job->result;
}

static struct job *oldest_pending(const struct responder *r)
{
    for (uint32_t i = r->job_head; i != r->job_tail; i++) {
        if (is_pending(job_at(r, i)))
            return job_at(r, i);
    }
    return NULL;
}

static bool next_answer(struct transport *t, struct transport_packet *out)
{
    struct job *job = oldest_pending(&t->responder);

    if (!job)
        return false;
    if (job->op != WIRE_READ_REQUEST)
        make_atomic_ack(t, job, out);
    else if (!make_read(t, job, out))
        return false;
    finish_packet(&t->responder, job);
    return true;
}

static void count_nak(struct transport *t)
{
    if ((t->responder.reply_syndrome & AETH_TYPE_MASK) == AETH_RNR)
        t->stats.rnrs_sent++;
    else
        t->stats.naks_sent++;
}

static void make_reply(struct transport *t, struct transport_packet *out)
{
    struct responder *r = &t->responder;

    packet_begin(t, WIRE_ACK, psn_add(r->expected, PSN_MASK), out);
    fill_aeth(t, r->msn, out);
    if (r->reply == REPLY_NAK) {
        count_nak(t);
        out->headers.psn = r->reply_psn;
        out->headers.syndrome = r->reply_syndrome;
    }
    r->reply = REPLY_NONE;
    if (r->closing)
        answer_drop_all(r);
}

bool answer_next(struct transport *t, struct transport_packet *out)
{
    struct responder *r = &t->responder;

    if (!answer_ready(r))
        return false;
    if (r->pending && next_answer(t, out))
        return true;
    if (!answer_ready(r) || r->pending || r->reply == REPLY_NONE)
        return false;
    make_reply(t, out);
    return true;
}
