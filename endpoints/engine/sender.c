/* SPDX-License-Identifier: MIT */
/*
 * The requester: what of the send queue goes out next (IBTA 9.7.3).
 *
 *   head ......... cursor ......... tail        requests: under way | being sent | waiting
 *
 * A packet is made from its PSN alone: the request that has it, and how far into it that is. So
 * going back is setting `send` back.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/transport_impl.h"

/* Small requests that wait for an acknowledgement to be sent together: see transport_may_wait(). */
enum { WAIT_FLIGHT = 16, WAIT_MOST = 32, WAIT_BYTES = 512 };
/* What the program does not wait for is asked about this seldom, in a dialogue. */
enum { ASK_AGAIN_NS = 50000, UNASKED_WINDOW = 16 };

/* ---- the queue ---- */

bool sender_init(struct sender *s, const struct transport_config *config)
{
    uint32_t places = 1;

    while (places < config->max_wr)
        places *= 2;
    s->mask = places - 1;
    s->timeout_at_ns = s->probe_at_ns = TRANSPORT_NEVER;
    s->share = UINT32_MAX;
    s->ring = calloc(places, sizeof(*s->ring));
    s->sges = calloc((size_t)places * (config->max_sge + 1), sizeof(*s->sges));
    s->inlined = calloc(places, (size_t)config->max_inline + 1);
    return s->ring && s->sges && s->inlined;
}

void sender_fini(struct sender *s)
{
    free(s->ring);
    free(s->sges);
    free(s->inlined);
}

struct request *sender_at(struct sender *s, uint32_t position)
{
    return &s->ring[position & s->mask];
}

static void copy_inline(struct transport_wr *wr, struct transport_sge *sge, uint8_t *to)
{
    uint32_t length = 0;

    for (uint32_t i = 0; i < wr->sge_count; i++) {
        if (wr->sges[i].length)
            memcpy(to + length, (const void *)(uintptr_t)wr->sges[i].addr, wr->sges[i].length);
        length += wr->sges[i].length;
    }
    *sge = (struct transport_sge){(uintptr_t)to, length, 0};
    wr->sge_count = 1;
}

bool sender_post(struct sender *s, const struct transport_config *config,
                 const struct transport_wr *wr)
{
    uint32_t place = s->tail & s->mask;
    struct request *r = &s->ring[place];
    struct transport_sge *sges = &s->sges[(size_t)place * (config->max_sge + 1)];

    if (s->tail - s->head > s->mask)
        return false;
    r->wr = *wr;
    r->begun = false;
    r->failed = TRANSPORT_SUCCESS;
    if (wr->flags & TRANSPORT_INLINE)
        copy_inline(&r->wr, sges, &s->inlined[(size_t)place * (config->max_inline + 1)]);
    else if (wr->sge_count)
        memcpy(sges, wr->sges, wr->sge_count * sizeof(*sges));
    r->wr.sges = sges;
    s->tail++;
    return true;
}

bool transport_post(struct transport *t, const struct transport_wr *wr)
{
    return sender_post(&t->sender, &t->config, wr);
}

bool transport_may_wait(const struct transport *t)
{
    const struct sender *s = &t->sender;
    uint32_t waiting = s->tail - s->cursor;

    if (t->config.type == TRANSPORT_UC || in_flight(s) < WAIT_FLIGHT ||
        in_flight(s) <= s->unasked || !waiting || waiting > WAIT_MOST || s->gone_back)
        return false;
    const struct request *newest = &s->ring[(s->tail - 1) & s->mask];
    return newest->wr.sge_count <= 1 && newest->wr.sges[0].length <= WAIT_BYTES;
}

/* ---- requests end ---- */

void sender_complete(struct transport *t, enum transport_status status, uint32_t byte_len)
{
    struct sender *s = &t->sender;
    const struct request *r = sender_at(s, s->head++);

    if ((int32_t)(s->cursor - s->head) < 0)
        s->cursor = s->head;
    t->calls->complete(t->owner, &r->wr, status, byte_len);
}

void sender_fail(struct transport *t, enum transport_status status)
{
    if (t->config.type != TRANSPORT_UC)
        transport_stop(t);
    else
        t->sender.on = false;
    sender_complete(t, status, 0);
    t->calls->fail(t->owner, FAILED_SENDING);
}

void sender_settle(struct transport *t)
{
    struct sender *s = &t->sender;

    if (s->on && s->head != s->tail && sender_at(s, s->head)->failed)
        sender_fail(t, sender_at(s, s->head)->failed);
}

/* Later ones fail when those before are over. */
static void found_bad(struct transport *t, struct request *r, enum transport_status status)
{
    r->failed = status;
    sender_settle(t);
}

void sender_go_back(struct transport *t)
{
    struct sender *s = &t->sender;

    s->send = s->una;
    s->cursor = s->head;
    s->gone_back = true;
    s->unasked = 0;
}

void sender_ask(struct transport *t)
{
    struct sender *s = &t->sender;
    const struct request *r = sender_at(s, s->cursor);

    if (s->cursor == s->tail || !r->begun || s->send == r->psn)
        s->cursor--;
    s->send = psn_add(s->send, PSN_MASK);
    s->unasked = TRANSPORT_WINDOW_MAX;
}

/* ---- a request begins ---- */

static void *element(struct transport *t, const struct request *r, const struct transport_sge *sge,
                     uint32_t offset, uint32_t length)
{
    if (r->wr.flags & TRANSPORT_INLINE)
        return (void *)(uintptr_t)(sge->addr + offset);
    return t->calls->local(t->owner, sge->key, sge->addr + offset, length, is_fetch(r->wr.op));
}

/* All keys at once, before anything is sent (IBTA 9.7.3). */
static enum transport_status measure(struct transport *t, struct request *r)
{
    uint64_t length = 0;

    for (uint32_t i = 0; i < r->wr.sge_count; i++) {
        const struct transport_sge *sge = &r->wr.sges[i];

        if (sge->length && !element(t, r, sge, 0, sge->length))
            return TRANSPORT_LOC_PROT_ERR;
        length += sge->length;
    }
    if (length > MESSAGE_MAX)
        return TRANSPORT_LOC_LEN_ERR;
    r->length = (uint32_t)length;
    return TRANSPORT_SUCCESS;
}

static enum transport_status check(struct transport *t, struct request *r)
{
    bool reliable = t->config.type != TRANSPORT_UC;

    if (is_fetch(r->wr.op) && (!reliable || !t->config.max_rd_atomic))
        return TRANSPORT_LOC_QP_OP_ERR;
    if (r->wr.op == TRANSPORT_SEND_INV && !reliable)
        return TRANSPORT_LOC_QP_OP_ERR;
    enum transport_status status = measure(t, r);
    if (status)
        return status;
    if (is_fetch(r->wr.op) && r->wr.op != TRANSPORT_READ && r->length != sizeof(uint64_t))
        return TRANSPORT_LOC_LEN_ERR;
    return TRANSPORT_SUCCESS;
}

/* IBTA 9.7.7.2: within the credits, or one beyond. */
static bool has_credit(const struct sender *s, enum transport_op op)
{
    if (s->unlimited || is_fetch(op) || op == TRANSPORT_WRITE)
        return true;
    return psn_diff(s->ssn, s->limit) <= 0;
}

static bool may_begin(const struct transport *t, const struct request *r)
{
    const struct sender *s = &t->sender;

    if (s->held)
        return false;
    if (is_local(r->wr.op))
        return s->head == s->cursor;
    if ((r->wr.flags & TRANSPORT_FENCE) && s->fetch_head != s->fetch_tail)
        return false;
    return t->config.type == TRANSPORT_UC || has_credit(s, r->wr.op);
}

static void execute(struct transport *t, struct request *r)
{
    enum transport_status status = t->calls->execute(t->owner, &r->wr);

    if (status) {
        found_bad(t, r, status);
        return;
    }
    t->sender.cursor++;
    sender_complete(t, TRANSPORT_SUCCESS, 0);
    sender_settle(t);
}

static bool begin(struct transport *t, struct request *r)
{
    struct sender *s = &t->sender;
    enum transport_status status = check(t, r);

    if (status) {
        found_bad(t, r, status);
        return false;
    }
    r->begun = true;
    r->psn = s->next;
    r->psn_count = r->wr.op == TRANSPORT_READ || !is_fetch(r->wr.op)
                       ? packets_of(r->length, t->config.mtu)
                       : 1;
    s->next = psn_add(s->next, r->psn_count);
    if (r->wr.op != TRANSPORT_READ) /* a READ's pieces are messages of their own */
        s->ssn = psn_add(s->ssn, 1);
    return true;
}

/* ---- may the request at the cursor go on? ---- */

static struct fetch *fetch_at(struct sender *s, uint32_t position)
{
    return &s->fetches[position % FETCHES];
}

/* What was asked for before and covers this PSN. */
static const struct fetch *find_fetch(const struct sender *s, uint32_t psn)
{
    for (uint32_t i = s->fetch_head; i != s->fetch_tail; i++) {
        const struct fetch *fetch = &s->fetches[i % FETCHES];

        if (((psn - fetch->psn) & PSN_MASK) < fetch->count)
            return fetch;
    }
    return NULL;
}

/* What may be in flight: the window, within our share of the way. */
static uint32_t open_window(const struct sender *s)
{
    return s->window.size < s->share ? s->window.size : s->share;
}

static uint32_t room(const struct sender *s)
{
    uint32_t flying = in_flight(s), most = open_window(s);

    return most > flying ? most - flying : 0;
}

static uint32_t left_of(const struct sender *s, const struct request *r)
{
    return r->begun ? r->psn_count - ((s->send - r->psn) & PSN_MASK) : 1;
}

/* Pieces of a quarter of the window or more, so that a READ does not trickle. */
static bool fetch_fits(const struct transport *t, const struct request *r)
{
    const struct sender *s = &t->sender;
    uint32_t piece = open_window(s) / 4 + 1, left = left_of(s, r);

    if (psn_before(s->send, s->sent) && find_fetch(s, s->send))
        return in_flight(s) == 0 || room(s) > 0;
    if (s->fetch_tail - s->fetch_head >= t->config.max_rd_atomic && t->config.max_rd_atomic)
        return false;
    return in_flight(s) == 0 || room(s) >= (left < piece ? left : piece);
}

static bool fits(const struct transport *t, const struct request *r)
{
    if (t->config.type == TRANSPORT_UC || is_local(r->wr.op))
        return true;
    if (is_fetch(r->wr.op))
        return fetch_fits(t, r);
    return in_flight(&t->sender) == 0 || room(&t->sender) > 0;
}

static struct request *ready_request(struct transport *t, uint64_t now_ns)
{
    struct sender *s = &t->sender;

    if (!s->on || s->cursor == s->tail || now_ns < s->rnr_until_ns)
        return NULL;
    struct request *r = sender_at(s, s->cursor);
    if (r->failed || (!r->begun && !may_begin(t, r)) || !fits(t, r))
        return NULL;
    return r;
}

static bool has_unreliable_done(const struct transport *t)
{
    return t->config.type == TRANSPORT_UC && t->sender.on && t->sender.head != t->sender.cursor;
}

bool sender_ready(struct transport *t, uint64_t now_ns)
{
    return has_unreliable_done(t) || ready_request(t, now_ns);
}

/* ---- packets ---- */

/* The parts of [offset, offset + length) of the request. False: a key has gone since it began. */
static bool gather(struct transport *t, const struct request *r, uint32_t offset, uint32_t length,
                   struct transport_packet *out)
{
    for (uint32_t i = 0; i < r->wr.sge_count && length; i++) {
        const struct transport_sge *sge = &r->wr.sges[i];

        if (offset >= sge->length) {
            offset -= sge->length;
            continue;
        }
        uint32_t part = sge->length - offset < length ? sge->length - offset : length;
        void *base = element(t, r, sge, offset, part);
        if (!base)
            return false;
        out->parts[out->part_count++] = (struct iovec){base, part};
        length -= part;
        offset = 0;
    }
    return true;
}

static enum wire_message message_of(enum transport_op op)
{
    switch (op) {
    case TRANSPORT_SEND_IMM:
        return WIRE_MESSAGE_SEND_IMM;
    case TRANSPORT_SEND_INV:
        return WIRE_MESSAGE_SEND_INV;
    case TRANSPORT_WRITE:
        return WIRE_MESSAGE_WRITE;
    case TRANSPORT_WRITE_IMM:
        return WIRE_MESSAGE_WRITE_IMM;
    default:
        return WIRE_MESSAGE_SEND;
    }
}

/* An acknowledgement asked for here says all that the ones before it would have. */
static void asked(struct sender *s, uint64_t now_ns)
{
    s->unasked = 0;
    s->asked_at_ns = now_ns;
}

/* So few credits are left that news of more must come in time. */
static bool is_short_of_credits(const struct sender *s)
{
    return !s->unlimited && psn_diff(s->limit, s->ssn) < (int32_t)(s->window.size / 4);
}

/*
 * A small message whose completion the program does not wait for, while nothing is lost and we ask
 * often: a later acknowledgement will do.
 */
static bool may_go_unasked(const struct sender *s, const struct request *r, uint64_t now_ns)
{
    return r->psn_count == 1 && !(r->wr.flags & TRANSPORT_SIGNALED) && !s->window.reduced &&
           s->window.size >= UNASKED_WINDOW && s->send == s->sent && !is_short_of_credits(s) &&
           now_ns - s->asked_at_ns < ASK_AGAIN_NS;
}

/* In time for the window to stay open, and at the end of messages. */
static bool asks(struct sender *s, const struct request *r, bool last, uint64_t now_ns)
{
    bool quiet = last && may_go_unasked(s, r, now_ns);
    uint32_t most = open_window(s) / (quiet ? 2 : 4);

    s->unasked++;
    if ((!last || quiet) && s->unasked < most && room(s) > 1)
        return false;
    asked(s, now_ns);
    return true;
}

static void fill_headers(struct transport *t, uint64_t now_ns, const struct request *r, bool first,
                         bool last, struct transport_packet *out)
{
    packet_begin(t, wire_message_operation(message_of(r->wr.op), first, last), t->sender.send, out);
    out->headers.xrc_srqn = r->wr.xrc_srqn;
    out->headers.va = r->wr.remote_addr;
    out->headers.rkey = r->wr.rkey;
    out->headers.dma_length = r->length;
    out->headers.imm = out->headers.invalidate_rkey = r->wr.imm;
    out->headers.solicited =
        last && (r->wr.flags & TRANSPORT_SOLICITED) && r->wr.op != TRANSPORT_WRITE;
    out->headers.ack_request = t->config.type != TRANSPORT_UC && asks(&t->sender, r, last, now_ns);
}

/* 1 packet, or 0 if it can't be made. */
static uint32_t make_message(struct transport *t, uint64_t now_ns, const struct request *r,
                             struct transport_packet *out)
{
    uint32_t index = (t->sender.send - r->psn) & PSN_MASK;
    uint32_t offset = index * t->config.mtu, left = r->length - offset;
    uint32_t length = left < t->config.mtu ? left : t->config.mtu;

    fill_headers(t, now_ns, r, index == 0, index == r->psn_count - 1, out);
    out->headers.payload_length = length;
    return gather(t, r, offset, length, out) ? 1 : 0;
}

/* How many packets of answer to ask for: the rest of what was asked for before, or a new piece. */
static uint32_t take_fetch(struct transport *t, const struct request *r)
{
    struct sender *s = &t->sender;
    const struct fetch *known = find_fetch(s, s->send);

    if (known)
        return known->count - ((s->send - known->psn) & PSN_MASK);
    uint32_t left = left_of(s, r), count = room(s) ? room(s) : 1;
    count = count < left ? count : left;
    *fetch_at(s, s->fetch_tail++) = (struct fetch){s->send, count};
    if (r->wr.op == TRANSPORT_READ)
        s->ssn = psn_add(s->ssn, 1);
    return count;
}

static uint32_t make_read(struct transport *t, const struct request *r,
                          struct transport_packet *out)
{
    uint32_t offset = ((t->sender.send - r->psn) & PSN_MASK) * t->config.mtu;
    uint32_t count = take_fetch(t, r);
    uint64_t length = (uint64_t)count * t->config.mtu;

    packet_begin(t, WIRE_READ_REQUEST, t->sender.send, out);
    out->headers.xrc_srqn = r->wr.xrc_srqn;
    out->headers.va = r->wr.remote_addr + offset;
    out->headers.rkey = r->wr.rkey;
    out->headers.dma_length = length < r->length - offset ? (uint32_t)length : r->length - offset;
    out->headers.ack_request = true;
    return count;
}

static uint32_t make_atomic(struct transport *t, const struct request *r,
                            struct transport_packet *out)
{
    bool add = r->wr.op == TRANSPORT_FETCH_ADD;

    take_fetch(t, r);
    packet_begin(t, add ? WIRE_FETCH_ADD : WIRE_COMPARE_SWAP, t->sender.send, out);
    out->headers.xrc_srqn = r->wr.xrc_srqn;
    out->headers.va = r->wr.remote_addr;
    out->headers.rkey = r->wr.rkey;
    out->headers.swap_add = r->wr.swap_add;
    out->headers.compare = add ? 0 : r->wr.compare;
    out->headers.ack_request = true;
    return 1;
}

static uint32_t make(struct transport *t, uint64_t now_ns, const struct request *r,
                     struct transport_packet *out)
{
    if (!is_fetch(r->wr.op))
        return make_message(t, now_ns, r, out);
    asked(&t->sender, now_ns); /* its answer says so */
    return r->wr.op == TRANSPORT_READ ? make_read(t, r, out) : make_atomic(t, r, out);
}

/* These PSNs are on their way. */
static void advance(struct transport *t, uint64_t now_ns, const struct request *r, uint32_t count,
                    bool timed)
{
    struct sender *s = &t->sender;
    uint32_t first = s->send;

    if (s->window.twice) {
        s->window.twice = false;
        t->stats.resent++;
        return;
    }
    s->send = psn_add(s->send, count);
    if (psn_before(s->sent, s->send)) {
        if (timed && first == s->sent)
            window_time(&s->window, first, now_ns);
        s->sent = s->send;
    } else {
        t->stats.resent++;
    }
    if (s->send == psn_add(r->psn, r->psn_count))
        s->cursor++;
    if (t->config.type != TRANSPORT_UC)
        completer_arm(t, now_ns);
    else
        s->una = s->send;
}

/* The packets of these were fetched, and by now sent: see transport_next(). */
static void complete_unreliable(struct transport *t)
{
    while (has_unreliable_done(t))
        sender_complete(t, TRANSPORT_SUCCESS, 0);
    sender_settle(t);
}

bool sender_next(struct transport *t, uint64_t now_ns, struct transport_packet *out)
{
    struct request *r;

    if (has_unreliable_done(t))
        complete_unreliable(t);
    while ((r = ready_request(t, now_ns))) {
        if (is_local(r->wr.op)) {
            execute(t, r);
            continue;
        }
        if (!r->begun) {
            if (!begin(t, r))
                return false;
            continue; /* how long it is, and whether it fits, is known now */
        }
        uint32_t count = make(t, now_ns, r, out);
        if (count) {
            advance(t, now_ns, r, count, out->headers.ack_request);
            return true;
        }
        found_bad(t, r, TRANSPORT_LOC_PROT_ERR);
    }
    return false;
}
