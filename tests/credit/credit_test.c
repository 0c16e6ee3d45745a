/* SPDX-License-Identifier: MIT */
/* Credits without any I/O: the rules one by one, then random schedules beside a reference. */
#include "credit.h"
#include "t.h"

/* --- two ends, and what is under way between them --- */

enum { ROOM = 256 };

/* One end, and the reference: totals that never go round, and what each word should have said. */
struct end {
    struct credit credit;
    uint64_t sent, limit, granted, held_data, held_updates;
    uint64_t known_granted; /* what the other side was told of our grants */
};

/* A message under way: its word, and the total of grants behind it. */
struct message {
    uint32_t word;
    uint64_t granted;
};

struct wire {
    struct message message[ROOM];
    unsigned first, count;
};

struct pair {
    struct end end[2];
    struct wire to[2];
    unsigned window, reserve;
};

static void open_end(struct end *e, unsigned window, unsigned reserve)
{
    T_EQ(credit_init(&e->credit, reserve), 0);
    for (unsigned i = 0; i < window + reserve; i++) {
        credit_posted(&e->credit);
    }
    e->granted = e->known_granted = window;
}

static void open_pair(struct pair *p, unsigned window, unsigned reserve)
{
    uint32_t hello[2];

    memset(p, 0, sizeof(*p));
    p->window = window;
    p->reserve = reserve;
    for (int i = 0; i < 2; i++) {
        open_end(&p->end[i], window, reserve);
        T_EQ(credit_hello(&p->end[i].credit, &hello[i]), 0);
        p->end[i].limit = window;
    }
    for (int i = 0; i < 2; i++) {
        T_EQ(credit_meet(&p->end[i].credit, hello[1 - i]), 0);
        T_EQ(credit_available(&p->end[i].credit), window);
    }
}

/* A message leaves, and there must be a receive for it, were the wire ever so fast. */
static void leave(struct pair *p, int i, uint32_t word)
{
    struct end *e = &p->end[i], *other = &p->end[1 - i];
    struct wire *wire = &p->to[1 - i];
    uint64_t taken = other->held_data + other->held_updates + wire->count;

    T_ASSERT(taken < p->window + p->reserve, "a message without a receive");
    wire->message[(wire->first + wire->count++) % ROOM] =
        (struct message){.word = word, .granted = e->granted};
    e->known_granted = e->granted;
    credit_sent(&e->credit, word);
}

static bool send_data(struct pair *p, int i)
{
    struct end *e = &p->end[i];
    uint32_t word;
    int err = credit_take(&e->credit, &word);

    T_EQ(credit_available(&e->credit), e->limit - e->sent);
    T_EQ(err, e->limit == e->sent ? -EAGAIN : e->held_updates > 0 ? -EBUSY : 0);
    if (err != 0) {
        return false;
    }
    e->sent++;
    leave(p, i, word);
    return true;
}

static bool send_update(struct pair *p, int i)
{
    uint32_t word;

    if (credit_update(&p->end[i].credit, &word) != 0) {
        return false;
    }
    T_ASSERT(p->end[i].granted > p->end[i].known_granted, "an update that brings nothing");
    leave(p, i, word);
    return true;
}

static bool arrive(struct pair *p, int i)
{
    struct end *e = &p->end[i];
    struct wire *wire = &p->to[i];
    struct message m = wire->message[wire->first % ROOM];
    int kind;

    if (wire->count == 0) {
        return false;
    }
    wire->first++;
    wire->count--;
    kind = credit_arrived(&e->credit, m.word);
    T_ASSERT(kind == CREDIT_DATA || kind == CREDIT_UPDATE, "arrived: %d", kind);
    *(kind == CREDIT_DATA ? &e->held_data : &e->held_updates) += 1;
    e->limit = m.granted;
    return true;
}

/* Which receive is posted again does not matter: the reserve is filled first. */
static bool post_again(struct pair *p, int i)
{
    struct end *e = &p->end[i];

    if (e->held_updates > 0) {
        e->held_updates--;
    } else if (e->held_data > 0) {
        e->held_data--;
        e->granted++;
    } else {
        return false;
    }
    credit_posted(&e->credit);
    return true;
}

/* --- random schedules --- */

typedef bool step_fn(struct pair *p, int i);

static step_fn *const steps[] = {send_data, send_update, arrive, post_again};
enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

/* Whether anything at all can happen: each step of each end is tried, from a random one on. */
static bool any_step(struct pair *p, bool one_way)
{
    unsigned from = (unsigned)t_rand_below(2 * STEPS);

    for (unsigned n = 0; n < 2 * STEPS; n++) {
        unsigned step = (from + n) % (2 * STEPS);

        if (one_way && steps[step / 2] == send_data && step % 2 == 1) {
            continue;
        }
        if (steps[step / 2](p, (int)(step % 2))) {
            return true;
        }
    }
    return false;
}

static void random_run(unsigned window, unsigned reserve, bool one_way, uint64_t messages)
{
    struct pair p;

    open_pair(&p, window, reserve);
    while (p.end[0].sent < messages) {
        T_ASSERT(any_step(&p, one_way), "deadlock after %lu", (unsigned long)p.end[0].sent);
    }
    if (!one_way) {
        T_ASSERT(p.end[1].sent > messages / 2, "the other side starves");
    }
}

T_TEST(credit_random, both_ways)
{
    /* Whatever comes first: no deadlock, each credit is known to the message, no overrun. */
    for (unsigned window = 1; window <= 9; window++) {
        random_run(window, 1 + window % 3, false, 20000);
    }
}

T_TEST(credit_random, one_way)
{
    /* All returns are updates. */
    for (unsigned window = 1; window <= 9; window++) {
        random_run(window, 1 + window % 3, true, 20000);
    }
}

T_TEST(credit_random, around_the_counters)
{
    /* More messages than any counter in a word can count, with a large window and reserve. */
    random_run(100, 127, false, 200000);
    random_run(200, 1, true, 200000);
}

/* --- rule by rule --- */

T_TEST(credit_rules, reserve_is_bounded)
{
    /* 1 to 127. */
    struct credit c;

    T_EQ(credit_init(&c, 0), -EINVAL);
    T_EQ(credit_init(&c, 128), -EINVAL);
    T_EQ(credit_init(&c, 127), 0);
}

T_TEST(credit_rules, hello_needs_the_reserve)
{
    /* A hello before the reserve is posted is refused; afterwards it names both limits. */
    struct credit c;
    uint32_t word;

    T_EQ(credit_init(&c, 2), 0);
    credit_posted(&c);
    T_EQ(credit_hello(&c, &word), -EBUSY);
    credit_posted(&c);
    credit_posted(&c);
    T_EQ(credit_hello(&c, &word), 0);
    T_EQ(word, 0x80020001u);
}

T_TEST(credit_rules, hello_is_checked)
{
    /* Data, a sequence number, no reserve, too much. */
    struct credit c;

    T_EQ(credit_init(&c, 1), 0);
    T_EQ(credit_meet(&c, 0x00010001), -EPROTO);
    T_EQ(credit_meet(&c, 0x81010001), -EPROTO);
    T_EQ(credit_meet(&c, 0x80000001), -EPROTO);
    T_EQ(credit_meet(&c, 0x80800001), -EPROTO);
    T_EQ(credit_meet(&c, 0x80018000), -EPROTO);
    T_EQ(credit_available(&c), 0);
    T_EQ(credit_meet(&c, 0x807f7fff), 0);
    T_EQ(credit_available(&c), CREDIT_MAX);
}

T_TEST(credit_rules, no_credit_before_meeting)
{
    /* Who has heard nothing sends nothing, not even an update. */
    struct credit c;
    uint32_t word;

    T_EQ(credit_init(&c, 1), 0);
    credit_posted(&c);
    credit_posted(&c);
    T_EQ(credit_take(&c, &word), -EAGAIN);
    T_EQ(credit_update(&c, &word), -EAGAIN);
}

T_TEST(credit_rules, spent)
{
    /* As many as the window, then -EAGAIN; an update brings them back. */
    struct pair p;

    open_pair(&p, 4, 1);
    for (int i = 0; i < 4; i++) {
        T_ASSERT(send_data(&p, 0));
    }
    T_ASSERT(!send_data(&p, 0));
    while (arrive(&p, 1) && post_again(&p, 1)) {
    }
    T_ASSERT(send_update(&p, 1));
    T_ASSERT(!send_data(&p, 0));
    T_ASSERT(arrive(&p, 0) && post_again(&p, 0));
    T_EQ(credit_available(&p.end[0].credit), 4);
}

T_TEST(credit_rules, an_update_must_be_posted_again)
{
    /* A word that leaves before could be the last, and would not free the reserve. */
    struct pair p;
    uint32_t word;

    open_pair(&p, 1, 1);
    T_ASSERT(send_data(&p, 0) && arrive(&p, 1) && post_again(&p, 1));
    T_ASSERT(send_update(&p, 1) && arrive(&p, 0));
    T_EQ(credit_take(&p.end[0].credit, &word), -EBUSY);
    T_ASSERT(post_again(&p, 0) && send_data(&p, 0));
}

T_TEST(credit_rules, returns_ride_on_data)
{
    /* With one message back for each, no update is ever due. */
    struct pair p;

    open_pair(&p, 4, 1);
    for (int i = 0; i < 1000; i++) {
        for (int side = 0; side < 2; side++) {
            T_ASSERT(send_data(&p, side) && arrive(&p, 1 - side) && post_again(&p, 1 - side));
            T_ASSERT(!credit_due(&p.end[1 - side].credit));
        }
    }
}

T_TEST(credit_rules, update_waits_for_the_reserve)
{
    /* One update at a time fits into a reserve of one; the next data word brings it back. */
    struct pair p;

    open_pair(&p, 4, 1);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 2; i++) {
            T_ASSERT(send_data(&p, 0) && arrive(&p, 1) && post_again(&p, 1));
        }
        T_ASSERT(credit_due(&p.end[1].credit));
        T_EQ(send_update(&p, 1), round == 0);
    }
    T_ASSERT(arrive(&p, 0) && post_again(&p, 0) && send_data(&p, 0) && arrive(&p, 1));
    T_ASSERT(send_update(&p, 1), "the reserve is back");
}

/* --- a peer that breaks the rules --- */

/* A word that is refused changes nothing. */
static void refused(struct pair *p, uint32_t word, int wanted)
{
    struct credit *c = &p->end[0].credit, copy = *c;

    T_EQ(credit_arrived(c, word), wanted);
    T_MEMEQ(c, &copy, sizeof(copy));
}

static uint32_t word_of(uint32_t kind, uint32_t sequence, uint32_t update, uint32_t data)
{
    return kind << 31 | sequence << 24 | update << 16 | data;
}

T_TEST(credit_peer, over_sends_data)
{
    /* One message more than the window, into the reserve. */
    struct pair p;

    open_pair(&p, 3, 1);
    for (uint32_t i = 0; i < 3; i++) {
        T_EQ(credit_arrived(&p.end[0].credit, word_of(CREDIT_DATA, i, 1, 3)), CREDIT_DATA);
    }
    refused(&p, word_of(CREDIT_DATA, 3, 1, 3), -EOVERFLOW);
}

T_TEST(credit_peer, knows_only_what_it_was_told)
{
    /* A receive that is posted but not announced may not be used, though the message would fit. */
    struct pair p;

    open_pair(&p, 1, 1);
    credit_posted(&p.end[0].credit);
    T_EQ(credit_arrived(&p.end[0].credit, word_of(CREDIT_DATA, 0, 1, 1)), CREDIT_DATA);
    refused(&p, word_of(CREDIT_DATA, 1, 1, 1), -EOVERFLOW);
}

T_TEST(credit_peer, over_sends_updates)
{
    /* A second update while the first holds the reserve. */
    struct pair p;

    open_pair(&p, 3, 1);
    T_EQ(credit_arrived(&p.end[0].credit, word_of(CREDIT_UPDATE, 0, 1, 4)), CREDIT_UPDATE);
    refused(&p, word_of(CREDIT_UPDATE, 1, 1, 5), -EOVERFLOW);
}

T_TEST(credit_peer, loses_or_repeats_a_message)
{
    /* The sequence has a gap, or stands still. */
    struct pair p;

    open_pair(&p, 3, 1);
    refused(&p, word_of(CREDIT_DATA, 1, 1, 3), -EPROTO);
    T_EQ(credit_arrived(&p.end[0].credit, word_of(CREDIT_DATA, 0, 1, 3)), CREDIT_DATA);
    refused(&p, word_of(CREDIT_DATA, 0, 1, 3), -EPROTO);
}

T_TEST(credit_peer, takes_credits_back)
{
    /* A limit that goes backwards looks like a huge step forward: neither is believed. */
    struct pair p;

    open_pair(&p, 3, 1);
    refused(&p, word_of(CREDIT_DATA, 0, 1, 2), -EPROTO);
    refused(&p, word_of(CREDIT_DATA, 0, 0, 3), -EPROTO);
    refused(&p, word_of(CREDIT_DATA, 0, 1, 0x8000), -EPROTO);
    refused(&p, word_of(CREDIT_DATA, 0, 128, 3), -EPROTO);
    T_EQ(credit_arrived(&p.end[0].credit, word_of(CREDIT_DATA, 0, 127, 0x7fff)), CREDIT_DATA);
    T_EQ(credit_available(&p.end[0].credit), CREDIT_MAX);
}
