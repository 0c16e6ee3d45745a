/* SPDX-License-Identifier: MIT */
/* What the files of the transport share. */
#ifndef VIADUCT_ENGINE_TRANSPORT_IMPL_H
#define VIADUCT_ENGINE_TRANSPORT_IMPL_H

#include <stddef.h>

#include "engine/scatter.h"
#include "engine/transport.h"
#include "wire/psn.h"

enum {
    FETCHES = 256, /* a power of two above any max_rd_atomic */
    JOBS_MAX = 255,
    MESSAGE_MAX_LOG = 31,
    RNR_FOR_EVER = 7,
    CNP_INTERVAL_NS = 50000,
};

#define MESSAGE_MAX (1ull << MESSAGE_MAX_LOG)

/* ---- congestion window, round trips, probe timer: window.c ---- */
struct window {
    uint32_t size, slow_until, grown, max; /* packets */
    uint32_t delivered;                    /* since the last loss */
    bool reduced;
    uint32_t reduced_until; /* PSN: one loss a window counts */
    bool timing;
    uint32_t timed_psn;
    uint64_t timed_at_ns;
    uint64_t srtt_ns, rttvar_ns; /* 0: not measured yet */
    uint64_t best_ns;            /* the shortest lately, without waiting for anything */
    unsigned backoff;
    uint32_t probes;
    bool twice;                        /* the next packet is to be sent twice */
    uint32_t size_before, slow_before; /* the last probe; 0: nothing to restore */
    uint64_t least_ns;                 /* no probe sooner than that */
};

void window_init(struct window *w, uint32_t max);
void window_acked(struct window *w, uint32_t una, uint32_t count, uint32_t in_flight);
void window_lost(struct window *w, uint32_t una, uint32_t sent);
void window_congested(struct window *w, uint32_t una, uint32_t sent);
void window_probed(struct window *w);
/* What was not resent was acknowledged: the probe came too early. */
void window_restore(struct window *w);
void window_time(struct window *w, uint32_t psn, uint64_t now_ns);
void window_timed(struct window *w, uint32_t una, uint64_t now_ns);
uint64_t window_probe_after_ns(const struct window *w);

/* ---- requests of ours: sender.c sends them, completer.c hears of them ---- */
struct request {
    struct transport_wr wr;
    uint32_t length;
    uint32_t psn, psn_count; /* once begun; a local one has none */
    bool begun;
    enum transport_status failed; /* found here; completes when it is the oldest */
};

/* A READ (or a piece of one) or an atomic that was asked for, until its last answer is here. */
struct fetch {
    uint32_t psn, count;
};

/*
 *   una <= send <= sent <= next
 *   oldest unacknowledged | to be sent next | one beyond the last ever sent | free for new requests
 */
struct sender {
    bool on, held;
    struct request *ring;
    struct transport_sge *sges;
    uint8_t *inlined;
    uint32_t mask, head, cursor, tail; /* oldest, being sent, posted: free-running */
    uint32_t una, send, sent, next;
    uint32_t ssn, limit; /* messages begun; credits reach to this one */
    bool unlimited;
    struct fetch fetches[FETCHES];
    uint32_t fetch_head, fetch_tail;
    uint32_t unasked; /* packets since an acknowledgement was asked for */
    uint64_t asked_at_ns;
    bool gone_back; /* to una, since it last moved: more NAKs say nothing new, for a while */
    uint64_t gone_back_ns;
    uint32_t ahead; /* the last answer beyond a gap; PSNs below it are of a later try */
    unsigned retries, rnr_tries;
    bool refused;          /* since the last progress the peer's host said that nobody is there */
    uint64_t rnr_until_ns; /* 0: not waiting */
    uint64_t timeout_at_ns, probe_at_ns; /* TRANSPORT_NEVER: nothing is in flight */
    struct window window;
    uint32_t share; /* packets in flight that the owner grants */
};

/* ---- the peer's requests: responder.c takes them, answer.c answers ---- */
enum message { MESSAGE_NONE, MESSAGE_SEND, MESSAGE_WRITE };

/* A READ or atomic of the peer, remembered for duplicates. */
struct job {
    uint8_t op; /* low five bits of its opcode */
    uint32_t psn, count;
    uint32_t from, to; /* PSNs to be answered now */
    bool replay;       /* of what was answered once already */
    bool continued;    /* the next packet is not the first of its answer */
    uint32_t rkey, length, msn, xrc_srqn;
    uint64_t va;
    uint64_t result; /* atomics: what was there before */
};

enum reply { REPLY_NONE, REPLY_ACK, REPLY_NAK };

struct responder {
    bool on;
    bool closing; /* stopped, but an ACK or a NAK is still to go out */
    uint32_t expected, msn;
    uint32_t behind; /* UC: so many PSNs before the expected one have had their turn */
    bool gap_told;   /* a NAK for the expected PSN went out; until it comes we are silent, */
    bool rnr_told;
    uint32_t gap_seen; /* unless what comes begins anew: the last PSN that came instead */
    enum message message;
    uint64_t va;
    uint32_t rkey, length, offset; /* of the message under way */
    uint32_t xrc_srqn;             /* of the message under way */
    bool far;                      /* XRC: its memory is another process's */
    bool holds;                    /* recv is taken */
    struct transport_recv recv;
    uint32_t recv_length;
    struct job *jobs;
    uint32_t job_size, job_head, job_tail; /* ring: remembered are [head, tail) */
    uint32_t pending;                      /* jobs with packets to be sent */
    enum reply reply;
    uint8_t reply_syndrome;
    uint8_t refusal;    /* what the NAK said that ended it; 0: there was none */
    uint32_t reply_psn; /* NAKs */
    bool cnp_due;
    uint64_t cnp_at_ns; /* the last */
};

/* What is known of a peer that there is nothing to send to: pulse.c. */
struct pulse {
    bool on;        /* the owner wants to know */
    bool due;       /* a question is to be sent */
    bool open;      /* one was, and nothing has come since */
    bool suspected; /* the peer is said to be gone: it is asked a few times more */
    unsigned asked, refusals;
    uint64_t at_ns; /* TRANSPORT_NEVER: unless suspected */
};

struct transport {
    struct transport_config config;
    const struct transport_calls *calls;
    void *owner;
    struct sender sender;
    struct responder responder;
    bool answer_turn;    /* answers and requests take turns */
    unsigned before_ack; /* requests sent while an ACK waits */
    struct pulse pulse;
    struct transport_stats stats;
};

/* ---- sender.c ---- */
bool sender_init(struct sender *s, const struct transport_config *config);
void sender_fini(struct sender *s);
bool sender_post(struct sender *s, const struct transport_config *config,
                 const struct transport_wr *wr);
bool sender_ready(struct transport *t, uint64_t now_ns);
bool sender_next(struct transport *t, uint64_t now_ns, struct transport_packet *out);
struct request *sender_at(struct sender *s, uint32_t position);
/* The oldest request is over. */
void sender_complete(struct transport *t, enum transport_status status, uint32_t byte_len);
/* It is over with an error, and so is sending. */
void sender_fail(struct transport *t, enum transport_status status);
/* Complete what has come to the head and needs no answer. */
void sender_settle(struct transport *t);
void sender_go_back(struct transport *t);
/* Send the last packet in flight again, to ask for an acknowledgement. */
void sender_ask(struct transport *t);

/* ---- completer.c ---- */
void completer_receive(struct transport *t, uint64_t now_ns, const struct wire_packet *packet,
                       unsigned traits);
void completer_expire(struct transport *t, uint64_t now_ns);
void completer_refused(struct transport *t, uint64_t now_ns);
uint64_t completer_deadline(const struct sender *s);
/* Something is in flight: time it. */
void completer_arm(struct transport *t, uint64_t now_ns);

/* ---- responder.c, unreliable.c ---- */
/* XRC: turn to what goes with this shared receive queue: responder.far. */
enum outcome responder_aim(struct transport *t, uint32_t xrc_srqn);
void responder_receive(struct transport *t, const struct wire_packet *packet, unsigned traits);
void responder_say_again(struct transport *t, uint32_t psn);
void unreliable_receive(struct transport *t, const struct wire_packet *packet, unsigned traits);
/* The parts that both have. */
enum outcome {
    OUT_DONE,
    OUT_NO_RECEIVE,
    OUT_INVALID,
    OUT_ACCESS,
    OUT_TOO_LONG,
    OUT_BROKEN,
    OUT_LATER, /* XRC: the packet counts as lost */
};
/* Unless one is held already. */
enum outcome responder_take(struct transport *t, uint32_t xrc_srqn);
enum outcome responder_place_send(struct transport *t, const struct wire_packet *packet);
enum outcome responder_place_write(struct transport *t, const struct wire_packet *packet);
void responder_deliver(struct transport *t, const struct wire_packet *packet, unsigned traits);
/* The receive that is held completes with this. */
void responder_give_back(struct transport *t, enum transport_status status);
/* Does the payload's length fit the opcode's place in a message? */
bool responder_length_fits(const struct transport *t, const struct wire_packet *packet,
                           unsigned traits);
void responder_stop(struct transport *t);

/* ---- answer.c ---- */
bool answer_init(struct responder *r, const struct transport_config *config);
void answer_fini(struct responder *r);
/* False: the peer has more READs and atomics under way than we remember. */
bool answer_has_room(struct responder *r);
/* The place for a new one, when there is room: it takes that of the oldest. */
struct job *answer_new(struct responder *r);
void answer_duplicate(struct transport *t, const struct wire_packet *packet, unsigned traits);
void answer_ack(struct responder *r);
void answer_nak(struct transport *t, uint8_t syndrome, uint32_t psn);
bool answer_ready(const struct responder *r);
bool answer_next(struct transport *t, struct transport_packet *out);
void answer_drop_all(struct responder *r);

/* ---- pulse.c ---- */
bool pulse_ready(const struct transport *t);
bool pulse_next(struct transport *t, struct transport_packet *out);
/* A packet of the peer's has come. */
void pulse_heard(struct transport *t);
/* A question with this PSN is under way. */
bool pulse_is_open(const struct transport *t, uint32_t psn);
void pulse_refused(struct transport *t, uint64_t now_ns);
void pulse_expire(struct transport *t, uint64_t now_ns);

/* ---- transport.c ---- */
/* The headers that every packet of ours has. */
void packet_begin(const struct transport *t, uint8_t operation, uint32_t psn,
                  struct transport_packet *out);
uint64_t rnr_time_ns(uint8_t code);

static inline uint32_t packets_of(uint32_t length, uint32_t mtu)
{
    return length ? (uint32_t)(((uint64_t)length + mtu - 1) / mtu) : 1;
}

static inline uint32_t in_flight(const struct sender *s)
{
    return (s->send - s->una) & PSN_MASK;
}

static inline bool is_fetch(enum transport_op op)
{
    return op == TRANSPORT_READ || op == TRANSPORT_COMPARE_SWAP || op == TRANSPORT_FETCH_ADD;
}

static inline bool is_local(enum transport_op op)
{
    return op == TRANSPORT_LOCAL_INV || op == TRANSPORT_BIND;
}

static inline bool is_write(enum transport_op op)
{
    return op == TRANSPORT_WRITE || op == TRANSPORT_WRITE_IMM;
}

#endif
