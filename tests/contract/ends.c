/* SPDX-License-Identifier: MIT */
/* Two ends of a connection: every call here is carried to the side that lives in the peer. */
#include "ends.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

/* --- carrying a call
 * ------------------------------------------------------------------------------ */

struct carried {
    end_fn *fn;
    _Alignas(16) char arg[END_ARG];
};

static void carry(void **state, void *arg)
{
    struct carried *c = arg;

    c->fn(*state, c->arg);
}

/* The calls under way: e_begin's copy of the arguments must live until e_finish. */
struct call {
    struct end *end;
    struct carried *carried;
    void *arg;
    size_t size;
};

enum { CALLS_MAX = 64 };
static struct call calls[CALLS_MAX];

void e_begin(struct end *e, end_fn *fn, void *arg, size_t size)
{
    struct call *call = calls;

    T_ASSERT(size <= END_ARG && !e->dead);
    while (call->carried && call->end != e) {
        call++;
        T_ASSERT(call < calls + CALLS_MAX);
    }
    free(call->carried);
    *call = (struct call){e, malloc(sizeof(struct carried)), arg, size};
    T_ASSERT(call->carried != NULL);
    call->carried->fn = fn;
    if (size) {
        memcpy(call->carried->arg, arg, size);
    }
    t_peer_begin(e->peer, carry, call->carried, offsetof(struct carried, arg) + size);
}

void e_finish(struct end *e)
{
    struct call *call = calls;

    while (call->end != e || !call->carried) {
        call++;
        T_ASSERT(call < calls + CALLS_MAX);
    }
    t_peer_finish(e->peer);
    if (call->size) {
        memcpy(call->arg, call->carried->arg, call->size);
    }
    free(call->carried);
    *call = (struct call){.end = NULL};
}

void e_run(struct end *e, end_fn *fn, void *arg, size_t size)
{
    e_begin(e, fn, arg, size);
    e_finish(e);
}

/* --- opening and closing
 * -------------------------------------------------------------------------- */

struct open_call {
    struct side_opt opt;
    struct side *share;
    struct side_info info;
};

static void do_open(void **state, void *arg)
{
    struct open_call *call = arg;
    struct side *s = side_open(&call->opt, call->share);

    *state = s;
    call->info = s->info;
}

/* A test that failed half-way leaves its objects; without this they would disturb later tests. */
static void abandon(void *arg)
{
    struct end *e = arg;

    for (int i = 0; i < CALLS_MAX; i++) {
        if (calls[i].end == e) {
            free(calls[i].carried);
            calls[i] = (struct call){.end = NULL};
        }
    }
    if (!e->dead && e->peer && t_peer_kind(e->peer) == T_INLINE && t_peer_state(e->peer)) {
        side_close(t_peer_state(e->peer), false);
    }
}

void end_start(struct end *e, enum t_peer_kind kind)
{
    *e = (struct end){.peer = t_peer_start(kind)};
    t_defer(abandon, e);
}

void end_open(struct end *e, const struct side_opt *opt, struct end *share)
{
    struct open_call call = {.opt = *opt, .share = share ? share->info.share : NULL};

    t_peer_call(e->peer, do_open, &call, sizeof(call));
    e->info = call.info;
}

struct connect_call {
    int q, to_q;
    struct side_info to;
};

static void do_connect(struct side *s, void *arg)
{
    struct connect_call *call = arg;

    side_connect(s, call->q, &call->to, call->to_q);
}

void end_connect(struct end *e, int q, struct end *to, int to_q)
{
    struct connect_call call = {q, to_q, to->info};

    e_run(e, do_connect, &call, sizeof(call));
    e->to = to;
}

static void do_close(void **state, void *arg)
{
    bool *strict = arg;
    struct side *s = *state;

    *state = NULL;
    side_close(s, *strict);
}

static void end_shut(struct end *e)
{
    bool strict = !e->loose;

    t_peer_call(e->peer, do_close, &strict, sizeof(strict));
    e->dead = true;
}

void end_close(struct end *e)
{
    if (!e->dead) {
        end_shut(e);
        t_peer_stop(e->peer);
    }
}

/* Tells the summary test that a topology was exercised on a device. */
static void record(enum topology topology)
{
    static const char *const names[] = {"two_processes", "two_threads", "one_process", "self"};
    char what[128];

    snprintf(what, sizeof(what), "%s.%s", device_name(), names[topology]);
    record_run(what);
}

void traffic_expected(void)
{
    record_run("traffic");
}

struct pair *pair_open2(enum topology topology, const struct side_opt *a, const struct side_opt *b)
{
    static const struct side_opt all_default = {.type = IBV_QPT_RC};
    static const enum t_peer_kind kinds[] = {T_PROCESS, T_THREAD, T_INLINE, T_INLINE};
    struct pair *p = calloc(1, sizeof(*p));

    T_ASSERT(p != NULL);
    a = a ? a : &all_default;
    b = b ? b : &all_default;
    t_defer(free, p);
    p->topology = topology;
    p->a = &p->end[0];
    p->b = topology == SELF ? p->a : &p->end[1];
    /*
     * The process must be forked before this one opens a device. In one process b comes second:
     * clean-up goes backwards, and b is on a's context.
     */
    if (topology == ONE_PROCESS || topology == SELF) {
        end_start(p->a, T_INLINE);
    }
    if (topology != SELF) {
        end_start(p->b, kinds[topology]);
    }
    if (topology == TWO_PROCESSES || topology == TWO_THREADS) {
        end_start(p->a, T_INLINE);
    }
    end_open(p->a, a, NULL);
    if (topology != SELF) {
        end_open(p->b, b, topology == ONE_PROCESS ? p->a : NULL);
    }
    p->a->to = p->b;
    p->b->to = p->a;
    p->rx = side_options(a).size / 2;
    if (!a->unconnected) {
        pair_connect(p);
    }
    record(topology);
    return p;
}

struct pair *pair_open(enum topology topology, const struct side_opt *opt)
{
    return pair_open2(topology, opt, opt);
}

void pair_connect(struct pair *p)
{
    for (int q = 0; q < SIDE_QPS && p->a->info.qpn[q] && p->b->info.qpn[q]; q++) {
        end_connect(p->a, q, p->b, q);
        if (p->b != p->a) {
            end_connect(p->b, q, p->a, q);
        }
    }
}

void pair_close(struct pair *p)
{
    /* b may use a's context, and a device is closed only when nothing is left on it. */
    if (p->b != p->a) {
        end_close(p->b);
    }
    end_close(p->a);
    t_end();
}

void pair_close_loose(struct pair *p)
{
    p->a->loose = true;
    p->b->loose = true;
    pair_close(p);
}

void pair_kill_b(struct pair *p)
{
    t_peer_kill(p->b->peer);
    p->b->dead = true;
}

/* --- posting
 * -------------------------------------------------------------------------------------- */

struct post_call {
    struct post post;
    int first, count; /* for e_recv_many */
    int rc;
};

/* The scatter/gather list as the device wants it. */
static int resolve(const struct side *s, const struct post *post, struct ibv_sge *sge_out)
{
    if (post->nsge == 0) {
        *sge_out = (struct ibv_sge){s->info.addr + post->off, post->len,
                                    post->lkey ? post->lkey : s->info.lkey};
        return post->len > 0 ? 1 : 0;
    }
    for (int i = 0; i < post->nsge; i++) {
        sge_out[i] = post->sge[i];
        if (!post->absolute) {
            sge_out[i].addr += s->info.addr;
            sge_out[i].lkey = sge_out[i].lkey ? sge_out[i].lkey : s->info.lkey;
        }
    }
    return post->nsge;
}

static void fill_remote(const struct side *s, const struct post *post, struct ibv_send_wr *wr)
{
    if (s->opt.type == IBV_QPT_UD) {
        wr->wr.ud.ah = s->ah;
        wr->wr.ud.remote_qpn = post->ud_qpn;
        wr->wr.ud.remote_qkey = post->ud_qkey;
    } else if (wr->opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
               wr->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr->wr.atomic.remote_addr = post->raddr;
        wr->wr.atomic.rkey = post->rkey;
        wr->wr.atomic.compare_add = post->compare_add;
        wr->wr.atomic.swap = post->swap;
    } else {
        wr->wr.rdma.remote_addr = post->raddr;
        wr->wr.rdma.rkey = post->rkey;
    }
}

static void do_send(struct side *s, void *arg)
{
    struct post_call *call = arg;
    struct post *post = &call->post;
    struct ibv_sge sge[POST_SGE];
    struct ibv_send_wr *bad = NULL,
                       wr = {
                           .wr_id = post->id,
                           .num_sge = resolve(s, post, sge),
                           .sg_list = sge,
                           .opcode = post->op,
                           .send_flags =
                               post->flags | (post->quiet ? 0u : (unsigned)IBV_SEND_SIGNALED),
                       };

    if (post->op == IBV_WR_SEND_WITH_INV || post->op == IBV_WR_LOCAL_INV) {
        wr.invalidate_rkey = post->inv_rkey;
    } else {
        wr.imm_data = htonl(post->imm);
    }
    fill_remote(s, post, &wr);
    call->rc = ibv_post_send(s->qp[post->q], &wr, &bad);
    T_ASSERT(call->rc == 0 || bad == &wr, "bad_wr is not the refused request");
}

static int post_recv(struct side *s, int q, struct ibv_recv_wr *wr)
{
    struct ibv_recv_wr *bad = NULL;
    int rc = s->srq ? ibv_post_srq_recv(s->srq, wr, &bad) : ibv_post_recv(s->qp[q], wr, &bad);

    T_ASSERT(rc == 0 || bad == wr, "bad_wr is not the refused request");
    return rc;
}

static void do_recv(struct side *s, void *arg)
{
    struct post_call *call = arg;
    struct ibv_sge sge[POST_SGE];
    struct ibv_recv_wr wr = {.wr_id = call->post.id, .sg_list = sge};

    wr.num_sge = resolve(s, &call->post, sge);
    call->rc = post_recv(s, call->post.q, &wr);
}

static void do_recv_many(struct side *s, void *arg)
{
    struct post_call *call = arg;

    for (int i = 0; i < call->count; i++) {
        struct ibv_sge sge;
        struct ibv_recv_wr wr = {.wr_id = call->post.id + (uint64_t)i, .sg_list = &sge};

        wr.num_sge = resolve(s, &call->post, &sge);
        T_EQ(post_recv(s, call->post.q, &wr), 0);
        call->post.off += call->post.len;
    }
}

int e_try_send(struct end *e, const struct post *post)
{
    struct post_call call = {.post = *post};

    if (e->to && !call.post.raddr) {
        call.post.raddr = e->to->info.addr + (uint64_t)post->roff;
    }
    if (e->to && !call.post.rkey) {
        call.post.rkey = e->to->info.rkey;
    }
    if (e->to && !call.post.ud_qpn) {
        call.post.ud_qpn = e->to->info.qpn[post->q];
    }
    if (!call.post.ud_qkey) {
        call.post.ud_qkey = side_options(NULL).qkey;
    }
    e_run(e, do_send, &call, sizeof(call));
    return call.rc;
}

int e_try_recv(struct end *e, const struct post *post)
{
    struct post_call call = {.post = *post};

    e_run(e, do_recv, &call, sizeof(call));
    return call.rc;
}

void e_send(struct end *e, const struct post *post)
{
    int rc = e_try_send(e, post);

    T_ASSERT(rc == 0, "post send %llu: %s", (unsigned long long)post->id, strerror(rc));
}

void e_recv(struct end *e, const struct post *post)
{
    int rc = e_try_recv(e, post);

    T_ASSERT(rc == 0, "post receive %llu: %s", (unsigned long long)post->id, strerror(rc));
}

void e_recv_many(struct end *e, int q, uint64_t first_id, int count, uint64_t off, uint32_t len)
{
    struct post_call call = {.post = {.q = q, .id = first_id, .off = off, .len = len},
                             .count = count};

    e_run(e, do_recv_many, &call, sizeof(call));
}

/* --- completions
 * ---------------------------------------------------------------------------------- */

struct poll_call {
    enum which which;
    int n, got;
    int ms;
    struct ibv_wc wc[64];
};

static struct ibv_cq *cq_of(const struct side *s, enum which which)
{
    return which == SEND_CQ ? s->send_cq : s->recv_cq;
}

static void do_poll(struct side *s, void *arg)
{
    struct poll_call *call = arg;
    int64_t deadline = t_deadline(call->ms);

    for (;;) {
        call->got = ibv_poll_cq(cq_of(s, call->which), call->n, call->wc);
        if (call->got != 0 || call->ms == 0 || t_expired(deadline)) {
            return;
        }
        t_relax();
    }
}

struct ibv_wc e_wait(struct end *e, enum which which)
{
    struct poll_call call = {.which = which, .n = 1, .ms = WAIT_MS};

    e_run(e, do_poll, &call, sizeof(call));
    T_ASSERT(call.got == 1, "no completion in the %s CQ within %d ms (poll gave %d)",
             which == SEND_CQ ? "send" : "receive", WAIT_MS, call.got);
    return call.wc[0];
}

struct ibv_wc e_expect(struct end *e, enum which which, uint64_t id, enum ibv_wc_status status)
{
    struct ibv_wc wc = e_wait(e, which);

    T_ASSERT(wc.wr_id == id && wc.status == status,
             "%s completion: id %llu '%s' (opcode %d, vendor 0x%x) instead of id %llu '%s'",
             which == SEND_CQ ? "send" : "receive", (unsigned long long)wc.wr_id,
             ibv_wc_status_str(wc.status), (int)wc.opcode, wc.vendor_err, (unsigned long long)id,
             ibv_wc_status_str(status));
    T_ASSERT(wc.qp_num != 0);
    return wc;
}

void e_done(struct end *e, uint64_t id, enum ibv_wc_opcode opcode)
{
    struct ibv_wc wc = e_expect(e, SEND_CQ, id, IBV_WC_SUCCESS);

    T_EQ(wc.opcode, opcode);
}

struct ibv_wc e_got(struct end *e, uint64_t id, enum ibv_wc_opcode opcode, uint32_t len)
{
    struct ibv_wc wc = e_expect(e, RECV_CQ, id, IBV_WC_SUCCESS);

    T_EQ(wc.opcode, opcode);
    T_EQ(wc.byte_len, len);
    return wc;
}

void e_flushed(struct end *e, enum which which, uint64_t first_id, int count)
{
    for (int i = 0; i < count; i++) {
        e_expect(e, which, first_id + (uint64_t)i, IBV_WC_WR_FLUSH_ERR);
    }
}

static void none_within(struct end *e, enum which which, int ms)
{
    struct poll_call call = {.which = which, .n = 1, .ms = ms};

    e_run(e, do_poll, &call, sizeof(call));
    T_ASSERT(call.got == 0, "unexpected %s completion: id %llu '%s'",
             which == SEND_CQ ? "send" : "receive", (unsigned long long)call.wc[0].wr_id,
             ibv_wc_status_str(call.wc[0].status));
}

void e_none(struct end *e, enum which which)
{
    none_within(e, which, 0);
}

void e_quiet(struct end *e, enum which which)
{
    none_within(e, which, QUIET_MS);
}

int e_poll(struct end *e, enum which which, int n, struct ibv_wc *wc_out)
{
    struct poll_call call = {.which = which, .n = n};

    e_run(e, do_poll, &call, sizeof(call));
    memcpy(wc_out, call.wc, sizeof(wc_out[0]) * (size_t)(call.got > 0 ? call.got : 0));
    return call.got;
}

/* --- memory
 * --------------------------------------------------------------------------------------- */

struct memory_call {
    uint64_t off, at, seed;
    size_t len;
    int64_t wrong;
    char bytes[16384];
};

static void do_compare(struct side *s, void *arg)
{
    struct memory_call *call = arg;

    T_ASSERT(call->off + call->len <= s->opt.size);
    call->wrong = t_compare(s->buf + call->off, call->at, call->len, call->seed);
}

static void compare(struct end *e, struct memory_call *call, const char *what)
{
    call->wrong = -1;
    e_run(e, do_compare, call, offsetof(struct memory_call, bytes));
    T_ASSERT(call->wrong == -1, "%s: byte %lld of %zu from offset %llu", what,
             (long long)call->wrong, call->len, (unsigned long long)call->off);
}

void e_same(struct end *e, uint64_t off, size_t len, struct end *from, uint64_t from_off)
{
    struct memory_call call = {.off = off, .len = len, .at = from_off, .seed = from->info.seed};

    compare(e, &call, "wrong data");
}

void e_untouched(struct end *e, uint64_t off, size_t len)
{
    struct memory_call call = {.off = off, .len = len, .at = off, .seed = e->info.seed};

    compare(e, &call, "a byte moved that must not");
}

static void do_size(struct side *s, void *arg)
{
    *(size_t *)arg = s->opt.size;
}

void e_untouched_but(struct end *e, uint64_t off, size_t len)
{
    size_t size = 0;

    e_run(e, do_size, &size, sizeof(size));
    e_untouched(e, 0, off);
    e_untouched(e, off + len, size - off - len);
}

static void do_peek(struct side *s, void *arg)
{
    struct memory_call *call = arg;

    memcpy(call->bytes, s->buf + call->off, call->len);
}

static void do_poke(struct side *s, void *arg)
{
    struct memory_call *call = arg;

    memcpy(s->buf + call->off, call->bytes, call->len);
}

void e_peek(struct end *e, uint64_t off, void *buf, size_t len)
{
    struct memory_call call = {.off = off, .len = len};

    T_ASSERT(len <= sizeof(call.bytes));
    e_run(e, do_peek, &call, sizeof(call));
    memcpy(buf, call.bytes, len);
}

void e_poke(struct end *e, uint64_t off, const void *buf, size_t len)
{
    struct memory_call call = {.off = off, .len = len};

    T_ASSERT(len <= sizeof(call.bytes));
    memcpy(call.bytes, buf, len);
    e_run(e, do_poke, &call, sizeof(call));
}

/* --- queue pairs and events
 * ------------------------------------------------------------------------- */

struct qp_call {
    int q, mask, rc, ms;
    enum ibv_event_type type;
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
};

static void do_modify(struct side *s, void *arg)
{
    struct qp_call *call = arg;

    call->rc = ibv_modify_qp(s->qp[call->q], &call->attr, call->mask);
}

static void do_query(struct side *s, void *arg)
{
    struct qp_call *call = arg;

    T_EQ(ibv_query_qp(s->qp[call->q], &call->attr, call->mask, &call->init), 0);
}

static void do_event(struct side *s, void *arg)
{
    struct qp_call *call = arg;

    call->rc = side_has_event(s, call->type, call->q >= 0 ? s->qp[call->q] : NULL, call->ms);
}

int e_modify(struct end *e, int q, const struct ibv_qp_attr *attr, int mask)
{
    struct qp_call call = {.q = q, .mask = mask, .attr = *attr};

    e_run(e, do_modify, &call, sizeof(call));
    return call.rc;
}

int e_to_state(struct end *e, int q, enum ibv_qp_state state)
{
    return e_modify(e, q, &(struct ibv_qp_attr){.qp_state = state}, IBV_QP_STATE);
}

void e_query(struct end *e, int q, struct ibv_qp_attr *attr_out, struct ibv_qp_init_attr *init_out)
{
    struct qp_call call = {.q = q, .mask = (1 << 22) - 1};

    e_run(e, do_query, &call, sizeof(call));
    *attr_out = call.attr;
    if (init_out) {
        *init_out = call.init;
    }
}

enum ibv_qp_state e_state(struct end *e, int q)
{
    struct ibv_qp_attr attr;

    e_query(e, q, &attr, NULL);
    return attr.qp_state;
}

void e_wait_state(struct end *e, int q, enum ibv_qp_state state)
{
    int64_t deadline = t_deadline(WAIT_MS);
    enum ibv_qp_state now;

    while ((now = e_state(e, q)) != state) {
        T_ASSERT(!t_expired(deadline), "the QP is in state %d, not in %d", (int)now, (int)state);
        t_relax();
    }
}

bool e_has_event(struct end *e, enum ibv_event_type type, int q, int ms)
{
    struct qp_call call = {.q = q, .type = type, .ms = ms};

    e_run(e, do_event, &call, sizeof(call));
    return call.rc != 0;
}

void e_event(struct end *e, enum ibv_event_type type, int q)
{
    T_ASSERT(e_has_event(e, type, q, EVENT_MS), "no event '%s'", ibv_event_type_str(type));
}

void pair_works(struct pair *p, int q)
{
    e_recv(p->b, &(struct post){.q = q, .id = 901, .off = p->rx, .len = 128});
    e_send(p->a, &(struct post){.q = q, .id = 902, .op = IBV_WR_SEND, .off = 5, .len = 64});
    e_done(p->a, 902, IBV_WC_SEND);
    e_got(p->b, 901, IBV_WC_RECV, 64);
    e_same(p->b, p->rx, 64, p->a, 5);
}
