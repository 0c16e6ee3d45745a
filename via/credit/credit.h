/* SPDX-License-Identifier: MIT */
/*
 * credit.h - end-to-end credit flow control over a reliable connection
 *
 * On a reliable VI or queue pair a message that finds no posted receive breaks the connection, or
 * stops it until the receiver wakes up. With credits that can't happen: a credit is a receive that
 * the other side has posted, and who has none does not send.
 *
 *        A                                             B
 *      limit 9   --- data,   word: I granted 5 --->   posted: D D D D  and the reserve R
 *      sent  2   <-- data,   word: I granted 9 ----   a return rides on data,
 *                <-- update, word: I granted 11 ---   or goes alone, into A's reserve
 *
 * Every message carries one 32-bit word (in its immediate data, or wherever you put it):
 *
 *       31    30 .. 24     23 .. 16           15 .. 0
 *      kind   sequence   update limit       data limit
 *
 * The limits are absolute, modulo their width: "you may send until you have sent so many". Nothing
 * is ever added up from increments, so no credit can be lost or made.
 *
 * Why it can't deadlock. Some posted receives, the reserve, are for updates only, and an update
 * always brings at least one credit. Who has used up all credits has sent data after the last
 * update he saw, and each word says that the reserve is free again. So whenever one side is out of
 * credit, the other may send an update. credit.pml is this protocol for the model checker spin;
 * the tests run it, and variants with a mistake that it must find.
 *
 * Two layers:
 *
 *   struct credit      the state of one end. No I/O, no clock, no memory: words go in and come out.
 *                      Use it with anything: VipPostSend, ibv_post_send, a socket.
 *   struct credit_qp   the same around an ibv_qp, with the word in the immediate data.
 *
 * Objects and lifetimes:
 *
 *   | object    | made by        | belongs to | ends                                          |
 *   |-----------|----------------|------------|-----------------------------------------------|
 *   | credit    | credit_init    | the caller | with its memory: there is nothing to give back |
 *   | credit_qp | credit_qp_init | the caller | the same, before the ibv_qp is destroyed       |
 *
 * A whole life of struct credit, with post() and send() for whatever you use:
 *
 *      credit_init(&c, 1);
 *      for (i = 0; i < 8; i++) { post(receive[i]); credit_posted(&c); }
 *      credit_hello(&c, &mine);                     the other side learns it before it sends
 *      credit_meet(&c, theirs);
 *
 *      if (credit_take(&c, &word) == 0) { send(data, word); credit_sent(&c, word); }
 *
 *      switch (credit_arrived(&c, word)) {          a message came, this was its word
 *      case CREDIT_DATA: consume(data);             fall through
 *      case CREDIT_UPDATE: post(receive); credit_posted(&c); break;
 *      default: disconnect();                       the other side broke the rules
 *      }
 *      if (credit_update(&c, &word) == 0) { send(nothing, word); credit_sent(&c, word); }
 *
 * Threads: one at a time, for each object. Nothing here allocates, sleeps or enters the kernel,
 * except as credit_qp says. Errors are negative errno; a call that returns one has changed nothing.
 */
#ifndef VIA_CREDIT_H
#define VIA_CREDIT_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- types ---------------------------------------------------------------------------------- */

/* What a message is: its word's first bit. */
enum credit_kind {
    CREDIT_DATA = 0,   /* took a credit */
    CREDIT_UPDATE = 1, /* has no data, and took a place of the reserve */
    CREDIT_SENT = 2    /* only from credit_qp_seen(): one of your own sends is complete */
};

enum {
    CREDIT_MAX = 32767,      /* receives for data that may be posted at one time */
    CREDIT_RESERVE_MAX = 127 /* receives for updates */
};

/* Free-running counters of one kind of message. Only differences mean anything. */
struct credit_count {
    uint32_t sent;      /* by us */
    uint32_t limit;     /* until which we may send */
    uint32_t arrived;   /* from the other side */
    uint32_t granted;   /* until which it may send: each receive posted adds one */
    uint32_t announced; /* how much of that it was told */
};

/* One end. The fields are for reading, in a debugger or for statistics. */
struct credit {
    struct credit_count count[2]; /* of CREDIT_DATA and of CREDIT_UPDATE */
    uint32_t missing;             /* receives that the reserve lacks: the next posted go there */
    uint32_t sequence_sent;       /* of all words */
    uint32_t sequence_arrived;
};

/* --- a connection's beginning ------------------------------------------------------------------
 */

/*
 * Make one end that has no receives and knows of none at the other.
 *
 * `reserve` receives (1 to CREDIT_RESERVE_MAX) are kept for the other side's updates: the first
 * that are posted. One is enough never to deadlock; two let an update leave while the last one's
 * place is still on its way back.
 *
 * Errors: -EINVAL the reserve is out of bounds.
 */
int credit_init(struct credit *c, unsigned reserve);

/*
 * The word that tells the other side of the receives posted so far. It travels outside the credit
 * protocol: in a connection's private data, over a socket, or not at all if both know it anyway.
 * Call it once, when the first receives have been posted, and not after credit_take().
 *
 * Errors: -EBUSY fewer receives than the reserve have been posted.
 */
int credit_hello(struct credit *c, uint32_t *word_out);

/*
 * Take note of the other side's hello. Until then there is no credit.
 *
 * Errors: -EPROTO this is no hello, or it grants more than CREDIT_MAX, or no reserve.
 */
int credit_meet(struct credit *c, uint32_t hello);

/* --- every message --------------------------------------------------------------------------- */

/* How many messages with data may be sent now. */
static inline uint32_t credit_available(const struct credit *c)
{
    return c->count[CREDIT_DATA].limit - c->count[CREDIT_DATA].sent;
}

/* A receive has been posted (for the first time, or again): one more for the reserve if that lacks
 * one, else one more credit for the other side, which hears of it by the next word. */
static inline void credit_posted(struct credit *c)
{
    struct credit_count *data = &c->count[CREDIT_DATA];

    if (__builtin_expect(c->missing > 0, 0)) {
        c->missing--;
        c->count[CREDIT_UPDATE].granted++;
        return;
    }
    data->granted++;
    assert(data->granted - data->arrived <= CREDIT_MAX);
}

/* The word of a message that leaves now. Callers use credit_take() or credit_update(). */
static inline uint32_t credit_word(const struct credit *c, enum credit_kind kind)
{
    return (uint32_t)kind << 31 | (c->sequence_sent & 127) << 24 |
           (c->count[CREDIT_UPDATE].granted & 255) << 16 | (c->count[CREDIT_DATA].granted & 65535);
}

/*
 * The word for a message with data. Send the message with it, then call credit_sent(); or, if it
 * could not be sent after all, do nothing: nothing has been taken yet.
 *
 * Errors:
 *   -EAGAIN  no credit. Receive something, then ask again.
 *   -EBUSY   an update has arrived whose receive was not posted again. Post it first: a word sent
 *            now could not tell that the reserve is free, and might be our last.
 */
static inline int credit_take(const struct credit *c, uint32_t *word_out)
{
    if (__builtin_expect(credit_available(c) == 0, 0)) {
        return -EAGAIN;
    }
    if (__builtin_expect(c->missing > 0, 0)) {
        return -EBUSY;
    }
    *word_out = credit_word(c, CREDIT_DATA);
    return 0;
}

/*
 * Whether returns have waited long enough: the other side knows of no more credits than we have to
 * tell of. It is true at the latest when the other side has none left; with traffic both ways it
 * never is, because each word brings all there is.
 */
static inline bool credit_due(const struct credit *c)
{
    const struct credit_count *data = &c->count[CREDIT_DATA];

    /* granted - announced, what we have to tell of, is not less than announced - arrived. */
    return (int32_t)(data->granted + data->arrived - 2 * data->announced) >= 0 &&
           data->granted != data->announced;
}

/*
 * The word for an update, a message without data. Ask after each credit_posted() and each
 * credit_arrived(), else the other side may wait for ever. Send it and call credit_sent(), or do
 * nothing and ask again later.
 *
 * Errors: -EAGAIN none is due, or the reserve at the other side is used up. The next word from
 * there brings it back, and it will come.
 */
static inline int credit_update(const struct credit *c, uint32_t *word_out)
{
    const struct credit_count *update = &c->count[CREDIT_UPDATE];

    if (!credit_due(c) || update->sent == update->limit) {
        return -EAGAIN;
    }
    *word_out = credit_word(c, CREDIT_UPDATE);
    return 0;
}

/* The message with this word has been handed over for sending, and nothing else in between. */
static inline void credit_sent(struct credit *c, uint32_t word)
{
    c->count[word >> 31].sent++;
    c->sequence_sent++;
    c->count[CREDIT_DATA].announced = c->count[CREDIT_DATA].granted;
    c->count[CREDIT_UPDATE].announced = c->count[CREDIT_UPDATE].granted;
}

/*
 * A message with this word has arrived. Hand the words in as the messages came.
 *
 * Returns CREDIT_DATA, or CREDIT_UPDATE: there is no data, so its receive should be posted again
 * at once (then credit_posted()).
 *
 * Errors, after which the connection is not to be trusted any more:
 *   -EOVERFLOW  the other side has sent without a credit
 *   -EPROTO     the word is out of sequence, takes a limit back, or grants more than can be:
 *               a message was lost, or the other side does not speak this protocol
 */
static inline int credit_arrived(struct credit *c, uint32_t word)
{
    struct credit_count *data = &c->count[CREDIT_DATA], *update = &c->count[CREDIT_UPDATE];
    struct credit_count *count = &c->count[word >> 31];
    uint32_t data_more = ((word & 65535) - data->limit) & 65535;
    uint32_t update_more = ((word >> 16 & 255) - update->limit) & 255;

    if (__builtin_expect((word >> 24 & 127) != (c->sequence_arrived & 127), 0)) {
        return -EPROTO;
    }
    if (__builtin_expect(count->arrived == count->announced, 0)) {
        return -EOVERFLOW;
    }
    if (__builtin_expect(data->limit - data->sent + data_more > CREDIT_MAX, 0) ||
        __builtin_expect(update->limit - update->sent + update_more > CREDIT_RESERVE_MAX, 0)) {
        return -EPROTO;
    }
    c->sequence_arrived++;
    count->arrived++;
    data->limit += data_more;
    update->limit += update_more;
    c->missing += word >> 31;
    return (int)(word >> 31);
}

/* --- around a queue pair -----------------------------------------------------------------------
 */

struct ibv_qp;
struct ibv_send_wr;
struct ibv_recv_wr;
struct ibv_wc;

/*
 * What to do when there is no credit: poll, and hand what was polled to credit_qp_seen(). Returns
 * 0 to have the credits looked at again, or a negative errno, with which the post returns.
 */
typedef int credit_wait_fn(void *arg);

/* One end over a reliable connected queue pair. `credit` is used directly for hello and meet. */
struct credit_qp {
    struct credit credit;
    struct ibv_qp *qp;
    credit_wait_fn *wait;
    void *arg;
};

/*
 * Put credits around qp, which stays the caller's. With `wait` a post without credit blocks, by
 * calling it; with NULL it returns -EAGAIN.
 *
 * The send queue and its CQ need room for `reserve` requests beside your own, whose completions
 * carry the address of *q as wr_id; credit_qp_seen() takes them. The receive queue must not be a
 * shared one. Post the receives, exchange hellos and meet before the first send.
 *
 * Errors: -EINVAL the reserve is out of bounds.
 */
int credit_qp_init(struct credit_qp *q, struct ibv_qp *qp, unsigned reserve, credit_wait_fn *wait,
                   void *arg);

/*
 * Post one receive, as ibv_post_recv does, and send an update if one is due. A receive's buffer
 * may stay empty: an update takes any of them.
 *
 * Errors: -EINVAL a list of several; or what ibv_post_recv says.
 */
int credit_qp_recv(struct credit_qp *q, struct ibv_recv_wr *wr);

/*
 * Post one send request. Those that take a receive at the other side must carry immediate data,
 * which is ours: *wr's imm_data is written. Those that take none go through as they are.
 *
 * Blocks:  without credit, if there is a `wait`; never otherwise.
 * Errors:
 *   -EAGAIN  no credit, and no `wait`
 *   -EBUSY   post the receive of the last update first (see credit_take)
 *   -EINVAL  a list of several, or a send without immediate data
 *   or what `wait` or ibv_post_send say
 */
int credit_qp_send(struct credit_qp *q, struct ibv_send_wr *wr);

/*
 * Look at a completion of this queue pair: hand in every one, in the order polled. Sends the
 * update that had to wait for this one, if there is one.
 *
 * Returns CREDIT_DATA, a message; CREDIT_UPDATE, post this receive again; CREDIT_SENT, a send of
 * yours is complete. If the completion was an update's of our own the answer is -EALREADY: there is
 * nothing to do.
 *
 * Errors: -EIO the completion is one of failure; -EPROTO, also without immediate data, and
 * -EOVERFLOW as credit_arrived().
 */
int credit_qp_seen(struct credit_qp *q, const struct ibv_wc *wc);

#ifdef __cplusplus
}
#endif

#endif
