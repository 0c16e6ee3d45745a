/* SPDX-License-Identifier: MIT */
/*
 * How much may be in flight, and when silence means loss. The window doubles each round trip until
 * the first loss, then grows by one a round trip and halves with each loss (at most once a window);
 * a probe starts over. Round trips are measured as TCP does (RFC 6298), never on what was resent.
 */
#include "engine/transport_impl.h"

enum {
    WINDOW_START = 16,
    WINDOW_LEAST = 4,
    WINDOW_LOSSY = 32, /* what arrived between two losses, up to so many, may be in flight */
    WINDOW_PROBES = 3, /* a probe sends 1 to 3 */
    WINDOW_DEFAULT = 128,
    PROBE_FIRST_NS = 5000000, /* before anything is measured */
    FIRST_RTT_MOST_NS = 10000000,
    PROBE_LEAST_NS = 200000,
    PROBE_PATIENT_NS = 4000000, /* the least, once the peer was found to wait for a core at times */
    PROBE_MOST_NS = 100000000,
    CALM = 1024, /* packets that arrived since the last loss: silence means waiting, not loss */
};

void window_init(struct window *w, uint32_t max)
{
    uint32_t limit = max ? max : WINDOW_DEFAULT;

    *w = (struct window){0};
    w->max = limit < TRANSPORT_WINDOW_MAX ? limit : TRANSPORT_WINDOW_MAX;
    w->size = w->max < WINDOW_START ? w->max : WINDOW_START;
    w->slow_until = w->max;
    w->least_ns = PROBE_LEAST_NS;
    w->delivered = CALM;
}

void window_acked(struct window *w, uint32_t una, uint32_t count, uint32_t in_flight)
{
    /* One probe has mended it: a loss as any other. */
    if (w->backoff == 1 && w->size_before && w->size < w->slow_until)
        w->size = w->slow_until;
    w->backoff = 0;
    w->size_before = 0;
    w->delivered += w->delivered < CALM ? count : 0;
    if (w->reduced && !psn_before(una, w->reduced_until))
        w->reduced = false;
    if (in_flight < w->size / 2 && w->size >= WINDOW_START)
        return; /* the program, not the window, was the limit */
    if (w->size < w->slow_until) {
        w->size += count;
    } else {
        w->grown += count;
        if (w->grown >= w->size) {
            w->grown = 0;
            w->size++;
        }
    }
    if (w->size > w->max)
        w->size = w->max;
}

static uint32_t halved(const struct window *w, uint32_t least)
{
    uint32_t half = w->size / 2;

    least = least < w->max ? least : w->max;
    return half > least ? half : least;
}

static void reduce(struct window *w, uint32_t una, uint32_t sent, uint32_t least)
{
    w->timing = false;
    if (w->reduced && psn_before(una, w->reduced_until))
        return;
    w->size = w->slow_until = halved(w, least);
    w->grown = w->delivered = 0;
    w->reduced = true;
    w->reduced_until = sent;
}

/* A wire that loses at random stays in use. */
static uint32_t run_of(const struct window *w)
{
    uint32_t run = w->delivered < WINDOW_LOSSY ? w->delivered : WINDOW_LOSSY;

    return run < WINDOW_LEAST ? WINDOW_LEAST : run;
}

void window_lost(struct window *w, uint32_t una, uint32_t sent)
{
    w->least_ns = PROBE_LEAST_NS;
    reduce(w, una, sent, run_of(w));
}

void window_congested(struct window *w, uint32_t una, uint32_t sent)
{
    reduce(w, una, sent, WINDOW_LEAST);
}

/* On a wire that loses each second packet a question and its answer would stay in step with it. */
static uint32_t irregular(struct window *w)
{
    w->probes = w->probes * 1664525 + 1013904223;
    return w->probes >> 16;
}

/*
 * What was sent twice is not timed, but for the first time ever: too long is better than nothing,
 * with which a way longer than the first probe's time would be probed for ever.
 */
void window_probed(struct window *w)
{
    w->timing = w->timing && !w->srtt_ns;
    if (w->backoff == 0) {
        w->size_before = w->size;
        w->slow_before = w->slow_until;
        w->slow_until = halved(w, run_of(w));
    }
    w->size = 1 + irregular(w) % WINDOW_PROBES;
    w->twice = w->backoff > 0 && irregular(w) % 2;
    w->grown = 0;
    if (w->backoff < 20)
        w->backoff++;
}

void window_restore(struct window *w)
{
    if (!w->size_before)
        return;
    w->size = w->size_before;
    w->slow_until = w->slow_before;
    w->size_before = 0;
    if (w->delivered >= CALM)
        w->least_ns = 2 * w->least_ns < PROBE_PATIENT_NS ? 2 * w->least_ns : PROBE_PATIENT_NS;
}

void window_time(struct window *w, uint32_t psn, uint64_t now_ns)
{
    if (w->timing)
        return;
    w->timing = true;
    w->timed_psn = psn;
    w->timed_at_ns = now_ns;
}

void window_timed(struct window *w, uint32_t una, uint64_t now_ns)
{
    if (!w->timing || !psn_before(w->timed_psn, una))
        return;
    /* Two threads' clocks may be read in one order and used in the other. */
    uint64_t rtt = now_ns > w->timed_at_ns ? now_ns - w->timed_at_ns : 0;

    w->timing = false;
    w->least_ns -= (w->least_ns - PROBE_LEAST_NS) / 256;
    w->best_ns += w->best_ns / 64 + 1;
    w->best_ns = !w->srtt_ns || rtt < w->best_ns ? rtt : w->best_ns;
    if (!w->srtt_ns) {
        rtt = rtt < FIRST_RTT_MOST_NS ? rtt : FIRST_RTT_MOST_NS;
        w->srtt_ns = rtt ? rtt : 1;
        w->rttvar_ns = rtt / 2;
        return;
    }
    uint64_t off = rtt > w->srtt_ns ? rtt - w->srtt_ns : w->srtt_ns - rtt;
    w->rttvar_ns = (3 * w->rttvar_ns + off) / 4;
    w->srtt_ns = (7 * w->srtt_ns + rtt) / 8;
}

uint64_t window_probe_after_ns(const struct window *w)
{
    uint64_t after = w->srtt_ns ? w->srtt_ns + 4 * w->rttvar_ns : PROBE_FIRST_NS;

    after = (after < w->least_ns ? w->least_ns : after) << w->backoff;
    return after > PROBE_MOST_NS ? PROBE_MOST_NS : after;
}
