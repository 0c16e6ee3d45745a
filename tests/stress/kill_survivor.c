/* SPDX-License-Identifier: MIT */
/*
 * A survivor. Every request it posts is on an account and must come back exactly once; what is
 * shared between rounds (an SRQ, a UD queue pair, a neighbour) must work as before after each.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kill.h"

enum { SENDS = 16, RECEIVES = 16, PATTERN = 0x5a, LIMIT_NS = 1000000000, STUCK_S = 20 };

/* wr_id = round << 32 | kind << 16 | conn << 8 | place */
enum kind { KIND_SEND, KIND_RECEIVE, KIND_SRQ, KIND_UD, KIND_PROOF, KIND_NEIGHBOUR };

struct conn {
    struct ibv_qp *qp;
    bool send[SENDS], receive[RECEIVES]; /* outstanding */
    unsigned sends, receives;
    bool broken; /* a request of it has failed */
};

struct survivor {
    struct kill_board *board;
    unsigned self, round;
    struct rig rig;
    struct ibv_cq *cq;
    struct ibv_mr *mr, *big;
    struct ibv_srq *srq;
    struct ibv_qp *ud, *proof[2], *neighbour; /* proof: connected to each other, on the SRQ */
    struct ibv_ah *ah;
    struct conn conn[CONNS];
    bool srq_posted[SRQ_RECEIVES], ud_posted[UD_RECEIVES];
    unsigned srq_count, ud_count; /* posted */
    unsigned proofs, greetings;   /* under way */
    uint64_t connected_ns;        /* to the victim; 0: not */
    uint64_t cpu_at_kill_ns;      /* 0: it still lives */
    bool hold_srq, hold_ud;       /* keep what arrives instead of posting it again */
};

static struct survivor *current;

static void say_where(void)
{
    fprintf(stderr, "survivor %u, round %u, mode %u, seed %llu\n", current->self, current->round,
            atomic_load(&current->board->mode), (unsigned long long)current->board->seed);
}

static uint64_t id_of(const struct survivor *s, enum kind kind, unsigned conn, unsigned place)
{
    return (uint64_t)s->round << 32 | (uint64_t)kind << 16 | conn << 8 | place;
}

/* ---- receiving ---- */

/* Where receive `place` of an account lands; its first byte is spoiled so that an old one shows. */
static struct ibv_sge landing(struct survivor *s, unsigned account, unsigned place)
{
    uint64_t at = ((uint64_t)account * 64 + place) * 2 * MESSAGE_MAX;
    char *buffer = (char *)s->mr->addr + at;

    buffer[0] = 0;
    buffer[40] = 0;
    return (struct ibv_sge){(uintptr_t)buffer, MESSAGE_MAX + 40, s->mr->lkey};
}

static void receive(struct survivor *s, unsigned c, unsigned place)
{
    struct conn *conn = &s->conn[c];
    struct ibv_sge sge = landing(s, c, place);
    struct ibv_recv_wr *bad,
        wr = {.wr_id = id_of(s, KIND_RECEIVE, c, place), .sg_list = &sge, .num_sge = 1};

    CHECK(ibv_post_recv(conn->qp, &wr, &bad) == 0);
    CHECK(!conn->receive[place]);
    conn->receive[place] = true;
    conn->receives++;
}

/* These outlive rounds: their ids carry none. */
static void receive_srq(struct survivor *s, unsigned place)
{
    struct ibv_sge sge = landing(s, CONNS, place);
    struct ibv_recv_wr *bad,
        wr = {.wr_id = (uint64_t)KIND_SRQ << 16 | place, .sg_list = &sge, .num_sge = 1};

    CHECK(ibv_post_srq_recv(s->srq, &wr, &bad) == 0, "place %u, %u posted", place, s->srq_count);
    CHECK(!s->srq_posted[place]);
    s->srq_posted[place] = true;
    s->srq_count++;
}

static void receive_ud(struct survivor *s, unsigned place)
{
    struct ibv_sge sge = landing(s, CONNS + 1, place);
    struct ibv_recv_wr *bad,
        wr = {.wr_id = (uint64_t)KIND_UD << 16 | place, .sg_list = &sge, .num_sge = 1};

    CHECK(ibv_post_recv(s->ud, &wr, &bad) == 0, "place %u, %u posted", place, s->ud_count);
    CHECK(!s->ud_posted[place]);
    s->ud_posted[place] = true;
    s->ud_count++;
}

static void check_message(struct survivor *s, unsigned account, unsigned place, uint32_t from,
                          uint32_t length)
{
    const char *buffer =
        (const char *)s->mr->addr + ((uint64_t)account * 64 + place) * 2 * MESSAGE_MAX;

    CHECK(length > from && length <= MESSAGE_MAX + from, "%u bytes", length);
    CHECK(buffer[from] == PATTERN && buffer[length - 1] == PATTERN, "of %u bytes: %d, %d", length,
          buffer[from], buffer[length - 1]);
}

/* ---- completions ---- */

static void note_status(struct survivor *s, enum ibv_wc_status status)
{
    unsigned which = status == IBV_WC_SUCCESS         ? 0
                     : status == IBV_WC_WR_FLUSH_ERR  ? 1
                     : status == IBV_WC_RETRY_EXC_ERR ? 2
                                                      : 3;

    atomic_fetch_add(&s->board->errors[which], 1);
    CHECK(which < 3, "%s", ibv_wc_status_str(status));
}

static void on_conn(struct survivor *s, const struct ibv_wc *wc, bool is_send)
{
    unsigned c = (wc->wr_id >> 8) & 0xff, place = wc->wr_id & 0xff;
    struct conn *conn = &s->conn[c];
    bool *account = is_send ? &conn->send[place] : &conn->receive[place];

    CHECK(wc->wr_id >> 32 == s->round, "of round %u", (unsigned)(wc->wr_id >> 32));
    CHECK(*account, "place %u of connection %u came twice", place, c);
    CHECK(wc->qp_num == conn->qp->qp_num);
    *account = false;
    *(is_send ? &conn->sends : &conn->receives) -= 1;
    note_status(s, wc->status);
    if (wc->status != IBV_WC_SUCCESS) {
        conn->broken = true;
        return;
    }
    if (is_send)
        return;
    check_message(s, c, place, 0, wc->byte_len);
    if (!conn->broken)
        receive(s, c, place);
}

static void on_srq(struct survivor *s, const struct ibv_wc *wc)
{
    unsigned place = wc->wr_id & 0xff;

    CHECK(s->srq_posted[place], "receive %u of the SRQ came twice", place);
    CHECK(wc->status == IBV_WC_SUCCESS, "%s", ibv_wc_status_str(wc->status));
    s->srq_posted[place] = false;
    s->srq_count--;
    check_message(s, CONNS, place, 0, wc->byte_len);
    if (!s->hold_srq)
        receive_srq(s, place);
}

static void on_ud(struct survivor *s, const struct ibv_wc *wc)
{
    unsigned place = wc->wr_id & 0xff;

    CHECK(s->ud_posted[place], "datagram %u came twice", place);
    CHECK(wc->status == IBV_WC_SUCCESS, "%s", ibv_wc_status_str(wc->status));
    s->ud_posted[place] = false;
    s->ud_count--;
    check_message(s, CONNS + 1, place, 40, wc->byte_len);
    if (!s->hold_ud)
        receive_ud(s, place);
}

static void on_completion(struct survivor *s, const struct ibv_wc *wc)
{
    switch ((enum kind)(wc->wr_id >> 16 & 0xff)) {
    case KIND_SEND:
    case KIND_RECEIVE:
        on_conn(s, wc, (wc->wr_id >> 16 & 0xff) == KIND_SEND);
        break;
    case KIND_SRQ:
        on_srq(s, wc);
        break;
    case KIND_UD:
        on_ud(s, wc);
        break;
    case KIND_PROOF:
        CHECK(wc->status == IBV_WC_SUCCESS, "%s", ibv_wc_status_str(wc->status));
        s->proofs--;
        break;
    default:
        CHECK(wc->status == IBV_WC_SUCCESS, "neighbour: %s", ibv_wc_status_str(wc->status));
        s->greetings--;
    }
}

static unsigned poll(struct survivor *s)
{
    struct ibv_wc wc[16];
    int got = ibv_poll_cq(s->cq, 16, wc);

    if (!s->cpu_at_kill_ns && rig_now_ns() >= atomic_load(&s->board->kill_ns))
        s->cpu_at_kill_ns = rig_cpu_ns();

    CHECK(got >= 0);
    for (int i = 0; i < got; i++)
        on_completion(s, &wc[i]);
    if (!got)
        sched_yield();
    return (unsigned)got;
}

#define POLL_UNTIL(s, cond, what)                                                                  \
    do {                                                                                           \
        uint64_t poll_limit_ = rig_now_ns() + STUCK_S * 1000000000ull;                             \
        while (!(cond)) {                                                                          \
            poll(s);                                                                               \
            CHECK(rig_now_ns() < poll_limit_, "%s", what);                                         \
        }                                                                                          \
    } while (0)

/* ---- sending ---- */

static struct ibv_send_wr send_wr(struct ibv_sge *sge, uint64_t id, enum ibv_wr_opcode opcode)
{
    return (struct ibv_send_wr){.wr_id = id,
                                .sg_list = sge,
                                .num_sge = 1,
                                .opcode = opcode,
                                .send_flags = IBV_SEND_SIGNALED};
}

static void send_some(struct survivor *s, unsigned c)
{
    static const enum ibv_wr_opcode opcodes[] = {IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ,
                                                 IBV_WR_ATOMIC_FETCH_AND_ADD};
    static const uint32_t lengths[] = {8, 100, MESSAGE_MAX, CONN_AREA};
    const struct rig_address *to = &s->board->victim[s->self].conn[c];
    struct conn *conn = &s->conn[c];
    unsigned place = (unsigned)rig_random(SENDS), kind = (unsigned)rig_random(4);
    struct ibv_sge sge = {(uintptr_t)s->big->addr + c * CONN_AREA, 8, s->big->lkey};
    struct ibv_send_wr *bad, wr = send_wr(&sge, id_of(s, KIND_SEND, c, place), opcodes[kind]);

    if (conn->send[place])
        return;
    if (kind == 3) {
        wr.wr.atomic.remote_addr = to->addr + c * CONN_AREA;
        wr.wr.atomic.rkey = to->rkey;
        wr.wr.atomic.compare_add = 1;
    } else {
        sge.length = lengths[rig_random(kind == 0 ? 3 : rig_random(8) ? 3 : 4)];
        wr.wr.rdma.remote_addr = to->addr + c * CONN_AREA;
        wr.wr.rdma.rkey = to->rkey;
    }
    CHECK(ibv_post_send(conn->qp, &wr, &bad) == 0);
    conn->send[place] = true;
    conn->sends++;
}

/* One to oneself: through the SRQ by the pair of queue pairs for that, or as a datagram. */
static void send_proof(struct survivor *s, bool datagram)
{
    struct ibv_sge sge = {(uintptr_t)s->big->addr + BIG, 50, s->big->lkey};
    struct ibv_send_wr *bad, wr = send_wr(&sge, (uint64_t)KIND_PROOF << 16, IBV_WR_SEND);

    if (datagram) {
        wr.wr.ud.ah = s->ah;
        wr.wr.ud.remote_qpn = s->ud->qp_num;
        wr.wr.ud.remote_qkey = RIG_QKEY;
    }
    CHECK(ibv_post_send(datagram ? s->ud : s->proof[0], &wr, &bad) == 0);
    s->proofs++;
}

static void greet(struct survivor *s)
{
    struct ibv_sge sge = {(uintptr_t)s->big->addr + BIG, 20, s->big->lkey};
    struct ibv_send_wr *bad, wr = send_wr(&sge, (uint64_t)KIND_NEIGHBOUR << 16, IBV_WR_SEND);

    CHECK(ibv_post_send(s->neighbour, &wr, &bad) == 0);
    s->greetings++;
}

/* ---- the parts of a round ---- */

static void begin_round(struct survivor *s)
{
    struct kill_end *mine = &s->board->survivor[s->self];

    for (int c = 0; c < CONNS; c++) {
        struct rig_qp_options options = {.type = IBV_QPT_RC,
                                         .send_cq = s->cq,
                                         .recv_cq = s->cq,
                                         .srq = c == CONN_SRQ ? s->srq : NULL,
                                         .sends = SENDS,
                                         .receives = RECEIVES};
        memset(&s->conn[c], 0, sizeof(s->conn[c]));
        s->conn[c].qp = rig_qp(&s->rig, &options);
        mine->conn[c] = rig_address(&s->rig, s->conn[c].qp, s->big);
    }
    mine->ud = rig_address(&s->rig, s->ud, NULL);
    atomic_store(&s->board->survivor_ready[s->self], s->round);
}

static bool victim_is_gone(const struct survivor *s)
{
    return atomic_load(&s->board->reaped) == s->round;
}

/* False: it died before it said where it is. */
static bool connect_to_victim(struct survivor *s)
{
    while (atomic_load(&s->board->victim_ready) != s->round) {
        if (victim_is_gone(s))
            return false;
        poll(s);
    }
    for (unsigned c = 0; c < CONNS; c++) {
        s->conn[c].broken = !rig_connect(s->conn[c].qp, &s->board->victim[s->self].conn[c]);
        for (unsigned place = 0; place < RECEIVES && c != CONN_SRQ; place++)
            receive(s, c, place);
    }
    s->connected_ns = rig_now_ns();
    return true;
}

/* Sends in some modes; in others the victim does, or nobody. */
static bool sends_in(unsigned mode)
{
    return mode == KILL_MIXED || mode == KILL_CONTROL || mode == KILL_IDLE || mode == KILL_STARTING;
}

static void talk(struct survivor *s)
{
    bool sends = sends_in(atomic_load(&s->board->mode));

    while (!victim_is_gone(s)) {
        unsigned c = (unsigned)rig_random(CONNS);

        if (sends && !s->conn[c].broken)
            send_some(s, c);
        poll(s);
    }
}

static unsigned take_events(struct survivor *s)
{
    struct ibv_async_event event;
    unsigned fatal = 0;

    while (ibv_get_async_event(s->rig.ctx, &event) == 0) {
        CHECK(event.event_type == IBV_EVENT_QP_FATAL || event.event_type == IBV_EVENT_COMM_EST ||
                  event.event_type == IBV_EVENT_QP_LAST_WQE_REACHED,
              "%s", ibv_event_type_str(event.event_type));
        fatal += event.event_type == IBV_EVENT_QP_FATAL;
        ibv_ack_async_event(&event);
    }
    return fatal;
}

/* Connected at both ends before the kill. */
static bool was_live(const struct survivor *s)
{
    return atomic_load(&s->board->victim_connected) == s->round &&
           s->connected_ns < atomic_load(&s->board->kill_ns);
}

/*
 * A live connection must fail by itself. If the victim died before, only who sends finds out; one
 * that waits for nothing is ended by hand.
 */
static void settle(struct survivor *s, struct conn *conn)
{
    bool live = was_live(s);
    uint64_t limit = rig_now_ns() + STUCK_S * 1000000000ull;

    if (!live && !conn->sends)
        rig_to_error(conn->qp);
    while (conn->sends || conn->receives) {
        poll(s);
        if (!live && !conn->sends && !conn->broken) {
            rig_to_error(conn->qp);
            conn->broken = true;
        }
        CHECK(rig_now_ns() < limit, "%u sends and %u receives did not come back", conn->sends,
              conn->receives);
    }
    atomic_fetch_add(&s->board->failed, live);
}

/*
 * Within a second. On a machine that is busy otherwise we may not have been running: then what
 * counts is the time that we were. We never sleep.
 */
static void note_slowest(struct survivor *s)
{
    uint64_t now = rig_now_ns(), killed = atomic_load(&s->board->kill_ns);
    uint64_t took = now > killed ? now - killed : 0, seen = atomic_load(&s->board->slowest_ns);
    uint64_t ran = s->cpu_at_kill_ns ? rig_cpu_ns() - s->cpu_at_kill_ns : 0;

    while (took > seen && !atomic_compare_exchange_weak(&s->board->slowest_ns, &seen, took))
        ;
    CHECK(took < LIMIT_NS || ran < LIMIT_NS, "settled %llu ns after the kill, of which we ran %llu",
          (unsigned long long)took, (unsigned long long)ran);
}

static void end_round(struct survivor *s, bool connected)
{
    unsigned fatal = 0, silent = 0;

    for (int c = 0; c < CONNS && connected; c++) {
        settle(s, &s->conn[c]);
        silent += was_live(s) && !s->conn[c].broken;
    }
    POLL_UNTIL(s, (fatal += take_events(s)) >= silent, "events of broken connections");
    if (connected)
        note_slowest(s);
    while (poll(s))
        ; /* completions that are left go with their queue pair, and receives of the SRQ with them
           */
    for (int c = 0; c < CONNS; c++)
        CHECK(ibv_destroy_qp(s->conn[c].qp) == 0);
    take_events(s);
}

/* Every receive of the SRQ and of the UD queue pair is still there: take them all, once each. */
static void prove_receives(struct survivor *s)
{
    s->hold_srq = s->hold_ud = true;
    while (poll(s))
        ;
    for (unsigned i = s->srq_count; i; i--) {
        send_proof(s, false);
        POLL_UNTIL(s, s->proofs == 0, "a receive of the SRQ is lost");
    }
    POLL_UNTIL(s, s->srq_count == 0, "a receive of the SRQ is lost");
    /* A datagram that finds no receive is dropped: again, until what was claimed has come back. */
    uint64_t limit = rig_now_ns() + STUCK_S * 1000000000ull;
    while (s->ud_count) {
        send_proof(s, true);
        POLL_UNTIL(s, s->proofs == 0, "a datagram is sent");
        poll(s);
        CHECK(rig_now_ns() < limit, "%u receives of the UD queue pair are lost", s->ud_count);
    }
    s->hold_srq = s->hold_ud = false;
    for (unsigned place = 0; place < SRQ_RECEIVES; place++)
        receive_srq(s, place);
    for (unsigned place = 0; place < UD_RECEIVES; place++)
        receive_ud(s, place);
}

/* ---- its life ---- */

static void open_queues(struct survivor *s)
{
    struct ibv_srq_init_attr attr = {.attr = {.max_wr = SRQ_RECEIVES, .max_sge = 1}};
    struct rig_qp_options options = {.type = IBV_QPT_UD,
                                     .send_cq = s->cq,
                                     .recv_cq = s->cq,
                                     .sends = 64,
                                     .receives = UD_RECEIVES};

    s->srq = ibv_create_srq(s->rig.pd, &attr);
    CHECK(s->srq != NULL);
    s->ud = rig_qp(&s->rig, &options);
    CHECK(rig_connect(s->ud, NULL));
    options.type = IBV_QPT_RC;
    options.srq = s->srq;
    for (int i = 0; i < 2; i++)
        s->proof[i] = rig_qp(&s->rig, &options);
    s->neighbour = rig_qp(&s->rig, &options);
    for (int i = 0; i < 2; i++) {
        struct rig_address other = rig_address(&s->rig, s->proof[!i], NULL);

        CHECK(rig_connect(s->proof[i], &other));
    }
    s->ah = rig_ah(&s->rig, &s->rig.gid);
}

static void open_all(struct survivor *s)
{
    rig_open(&s->rig);
    int flags = fcntl(s->rig.ctx->async_fd, F_GETFL);
    CHECK(fcntl(s->rig.ctx->async_fd, F_SETFL, flags | O_NONBLOCK) == 0);
    s->cq = rig_cq(&s->rig, 4096, NULL);
    s->mr = rig_memory(&s->rig, (CONNS + 2) * 64ull * 2 * MESSAGE_MAX);
    s->big = rig_memory(&s->rig, 2 * BIG);
    memset((char *)s->big->addr + BIG, PATTERN, BIG);
    memset(s->big->addr, PATTERN, BIG);
    open_queues(s);
    for (unsigned place = 0; place < SRQ_RECEIVES; place++)
        receive_srq(s, place);
    for (unsigned place = 0; place < UD_RECEIVES; place++)
        receive_ud(s, place);
    s->board->neighbour[s->self] = rig_address(&s->rig, s->neighbour, NULL);
    atomic_store(&s->board->neighbour_ready[s->self], 1);
    while (!atomic_load(&s->board->neighbour_ready[!s->self]))
        sched_yield();
    CHECK(rig_connect(s->neighbour, &s->board->neighbour[!s->self]));
}

/* What a process holds; after some rounds it may grow no more. */
struct holdings {
    unsigned files;
    uint64_t resident, arena;
};

enum { SETTLED_ROUND = 100, RESIDENT_SLACK = 8 << 20, ARENA_SLACK = 2 << 20 };

static void check_holdings(struct survivor *s, struct holdings *first)
{
    struct holdings now = {rig_open_files(), rig_resident_bytes(), rig_arena_bytes()};

    if (s->round == SETTLED_ROUND)
        *first = now;
    if (s->round <= SETTLED_ROUND || s->round % 50)
        return;
    CHECK(now.files <= first->files, "%u open files, %u before", now.files, first->files);
    CHECK(now.resident < first->resident + RESIDENT_SLACK, "%llu bytes resident, %llu before",
          (unsigned long long)now.resident, (unsigned long long)first->resident);
    CHECK(now.arena < first->arena + ARENA_SLACK, "the arena has %llu bytes, %llu before",
          (unsigned long long)now.arena, (unsigned long long)first->arena);
    if (s->round % 500 == 0)
        printf("survivor %u, round %u: %u files, %llu KiB resident, %llu KiB of arena\n", s->self,
               s->round, now.files, (unsigned long long)now.resident / 1024,
               (unsigned long long)now.arena / 1024);
}

static void one_round(struct survivor *s)
{
    rig_seed(s->board->seed + 1 + s->self);
    s->cpu_at_kill_ns = 0;
    begin_round(s);
    bool connected = connect_to_victim(s);
    greet(s);
    if (connected)
        talk(s);
    end_round(s, connected);
    POLL_UNTIL(s, s->greetings == 0, "the neighbour is not disturbed");
}

void kill_survivor(struct kill_board *board, unsigned self)
{
    static struct survivor s;
    struct holdings first = {0};

    s.board = board;
    s.self = self;
    current = &s;
    check_context = say_where;
    rig_timeout = 14; /* a quarter of a second, to find out about victims that never answered */
    open_all(&s);
    for (;;) {
        unsigned round;

        while ((round = atomic_load(&board->round)) == s.round)
            poll(&s);
        if (round == UINT32_MAX)
            _exit(0);
        s.round = round;
        one_round(&s);
        /* Both must have greeted: proofs would take the neighbour's receive otherwise. */
        atomic_store(&board->survivor_done[self], round * 2);
        POLL_UNTIL(&s, atomic_load(&board->survivor_done[!self]) >= round * 2, "the neighbour");
        prove_receives(&s);
        check_holdings(&s, &first);
        atomic_store(&board->survivor_done[self], round * 2 + 1);
        CHECK(write(board->done_pipe[1], "", 1) == 1);
    }
}
