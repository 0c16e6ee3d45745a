/* SPDX-License-Identifier: MIT */
/* One side of a connection: opening, connecting, waiting, closing. */
#include "side.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

const char *device_name(void)
{
    const char *name = getenv("VIADUCT_TEST_DEVICE");

    return name ? name : "via0";
}

int device_gid_index(void)
{
    const char *index = getenv("VIADUCT_TEST_GID");

    return index ? atoi(index) : 0;
}

void record_run(const char *what)
{
    const char *dir = getenv("VIADUCT_TEST_RECORD");
    char self[256], path[512];
    ssize_t len;
    int fd;

    if (!dir) {
        return;
    }
    /* Not argv[0]: Criterion's workers have another one. */
    len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[len > 0 ? len : 0] = '\0';
    snprintf(path, sizeof(path), "%s/%s.%s", dir,
             strrchr(self, '/') ? strrchr(self, '/') + 1 : self, what);
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0) {
        close(fd);
    }
}

__attribute__((constructor)) static void record_start(void)
{
    record_run("started");
}

struct ibv_context *device_open(void)
{
    int count = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    struct ibv_context *ctx = NULL;
    bool found = false;

    T_ASSERT(list != NULL, "ibv_get_device_list: %s", strerror(errno));
    for (int i = 0; i < count && !found; i++) {
        if (strcmp(ibv_get_device_name(list[i]), device_name()) == 0) {
            found = true;
            ctx = ibv_open_device(list[i]);
        }
    }
    ibv_free_device_list(list);
    T_ASSERT(found, "no device %s among %d", device_name(), count);
    T_ASSERT(ctx != NULL, "ibv_open_device: %s", strerror(errno));
    return ctx;
}

/* --- options ---------------------------------------------------------------------------------- */

#define DEFAULT(field, value)                                                                      \
    do {                                                                                           \
        if (!o.field) {                                                                            \
            o.field = (value);                                                                     \
        }                                                                                          \
    } while (0)

static int value_or_zero(int value)
{
    return value == ZERO ? 0 : value;
}

struct side_opt side_options(const struct side_opt *opt)
{
    struct side_opt o = opt ? *opt : (struct side_opt){.type = IBV_QPT_RC};

    DEFAULT(type, IBV_QPT_RC);
    DEFAULT(qps, 1);
    DEFAULT(cqe, 256);
    DEFAULT(send_wr, 64);
    DEFAULT(recv_wr, 64);
    DEFAULT(send_sge, 4);
    DEFAULT(recv_sge, 4);
    DEFAULT(srq_wr, 64);
    DEFAULT(srq_sge, 4);
    DEFAULT(size, 65536);
    DEFAULT(mr_access, ACCESS_ALL);
    DEFAULT(qp_access, ACCESS_REMOTE);
    DEFAULT(timeout, 14);
    DEFAULT(retry_cnt, 6);
    DEFAULT(rnr_retry, 7);
    DEFAULT(min_rnr_timer, 1);
    DEFAULT(rd_atomic, 4);
    DEFAULT(dest_rd_atomic, 4);
    DEFAULT(mtu, IBV_MTU_1024);
    DEFAULT(qkey, 0x11223344);
    o.qps = value_or_zero(o.qps);
    o.mr_access = value_or_zero(o.mr_access);
    o.qp_access = value_or_zero(o.qp_access);
    o.timeout = value_or_zero(o.timeout);
    o.retry_cnt = value_or_zero(o.retry_cnt);
    o.rnr_retry = value_or_zero(o.rnr_retry);
    o.min_rnr_timer = value_or_zero(o.min_rnr_timer);
    o.rd_atomic = value_or_zero(o.rd_atomic);
    o.dest_rd_atomic = value_or_zero(o.dest_rd_atomic);
    return o;
}

/* --- opening ------------------------------------------------------------------------------------
 */

static void open_context(struct side *s, struct side *share)
{
    int flags;

    s->shared_ctx = share != NULL;
    s->ctx = share ? share->ctx : device_open();
    s->async = share ? share->async : calloc(1, sizeof(*s->async));
    T_ASSERT(s->async != NULL);
    flags = fcntl(s->ctx->async_fd, F_GETFL);
    T_EQ(fcntl(s->ctx->async_fd, F_SETFL, flags | O_NONBLOCK), 0);
}

/* Ordinary private memory, as a program has it, with guard pages that are not registered. */
static void open_memory(struct side *s)
{
    s->raw_size = s->opt.size + 2 * (size_t)SIDE_GUARD;
    s->raw = mmap(NULL, s->raw_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    T_ASSERT(s->raw != MAP_FAILED, "mmap: %s", strerror(errno));
    s->buf = s->raw + SIDE_GUARD;
    t_fill(s->raw, 0, SIDE_GUARD, ~s->info.seed);
    t_fill(s->buf, 0, s->opt.size, s->info.seed);
    t_fill(s->buf + s->opt.size, 0, SIDE_GUARD, ~s->info.seed);
    s->mr = ibv_reg_mr(s->pd, s->buf, s->opt.size, (unsigned)s->opt.mr_access);
    T_ASSERT(s->mr != NULL, "ibv_reg_mr: %s", strerror(errno));
    s->info.addr = (uintptr_t)s->buf;
    s->info.rkey = s->mr->rkey;
    s->info.lkey = s->mr->lkey;
}

static struct ibv_cq *open_cq(struct side *s)
{
    struct ibv_cq_init_attr_ex attr = {
        .cqe = (uint32_t)s->opt.cqe,
        .cq_context = s,
        .channel = s->channel,
        .wc_flags = s->opt.wc_flags,
    };
    struct ibv_cq *cq;

    if (s->opt.cq_ex) {
        struct ibv_cq_ex *ex = ibv_create_cq_ex(s->ctx, &attr);

        cq = ex ? ibv_cq_ex_to_cq(ex) : NULL;
    } else {
        cq = ibv_create_cq(s->ctx, s->opt.cqe, s, s->channel, 0);
    }
    T_ASSERT(cq != NULL, "create CQ: %s", strerror(errno));
    return cq;
}

static void open_cqs(struct side *s)
{
    if (s->opt.events) {
        s->channel = ibv_create_comp_channel(s->ctx);
        T_ASSERT(s->channel != NULL, "channel: %s", strerror(errno));
    }
    s->send_cq = open_cq(s);
    s->recv_cq = s->opt.one_cq ? s->send_cq : open_cq(s);
    s->info.cqe = s->send_cq->cqe;
}

static void open_srq(struct side *s)
{
    struct ibv_srq_init_attr attr = {
        .srq_context = s,
        .attr = {.max_wr = s->opt.srq_wr, .max_sge = s->opt.srq_sge},
    };

    s->srq = ibv_create_srq(s->pd, &attr);
    T_ASSERT(s->srq != NULL, "ibv_create_srq: %s", strerror(errno));
}

struct ibv_qp *side_create_qp(struct side *s, const struct side_opt *opt)
{
    struct ibv_qp_init_attr_ex ex = {
        .qp_context = s,
        .send_cq = s->send_cq,
        .recv_cq = s->recv_cq,
        .srq = opt->use_srq ? s->srq : NULL,
        .cap = {opt->send_wr, opt->recv_wr, opt->send_sge, opt->recv_sge, opt->inline_size},
        .qp_type = opt->type,
        .sq_sig_all = opt->sig_all,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .pd = s->pd,
        .send_ops_flags = opt->send_ops,
    };
    struct ibv_qp_init_attr attr = {
        .qp_context = s,
        .send_cq = s->send_cq,
        .recv_cq = s->recv_cq,
        .srq = ex.srq,
        .cap = ex.cap,
        .qp_type = opt->type,
        .sq_sig_all = opt->sig_all,
    };
    struct ibv_qp *qp = opt->send_ops ? ibv_create_qp_ex(s->ctx, &ex) : ibv_create_qp(s->pd, &attr);

    if (qp) {
        s->info.cap = opt->send_ops ? ex.cap : attr.cap;
    }
    return qp;
}

static void query_port(struct side *s)
{
    struct ibv_port_attr port;

    T_EQ(ibv_query_port(s->ctx, 1, &port), 0);
    T_EQ(port.state, IBV_PORT_ACTIVE);
    T_EQ(ibv_query_gid(s->ctx, 1, device_gid_index(), &s->info.gid), 0);
    s->info.lid = port.lid;
    s->info.mtu = port.active_mtu;
    if (s->opt.mtu > port.active_mtu) {
        s->opt.mtu = port.active_mtu;
    }
}

struct side *side_open(const struct side_opt *opt, struct side *share)
{
    struct side *s = calloc(1, sizeof(*s));

    T_ASSERT(s != NULL);
    s->opt = side_options(opt);
    s->info.seed = t_rand() | 1;
    s->info.share = s;
    open_context(s, share);
    query_port(s);
    s->pd = ibv_alloc_pd(s->ctx);
    T_ASSERT(s->pd != NULL, "ibv_alloc_pd: %s", strerror(errno));
    open_memory(s);
    open_cqs(s);
    if (s->opt.use_srq) {
        open_srq(s);
    }
    for (int i = 0; i < s->opt.qps; i++) {
        s->qp[i] = side_create_qp(s, &s->opt);
        T_ASSERT(s->qp[i] != NULL, "create QP: %s", strerror(errno));
        s->info.qpn[i] = s->qp[i]->qp_num;
        s->info.psn[i] = (uint32_t)t_rand_below(1 << 24);
    }
    t_hold(1, "side");
    return s;
}

/* --- connecting ---------------------------------------------------------------------------------
 */

int side_init_attr(const struct side *s, struct ibv_qp_attr *attr_out)
{
    int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT;

    *attr_out = (struct ibv_qp_attr){
        .qp_state = IBV_QPS_INIT,
        .port_num = 1,
        .qkey = s->opt.qkey,
        .qp_access_flags = (unsigned)s->opt.qp_access,
    };
    return mask | (s->opt.type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS);
}

struct ibv_ah_attr side_ah_attr(const struct side_info *to)
{
    return (struct ibv_ah_attr){
        .grh = {.dgid = to->gid, .sgid_index = (uint8_t)device_gid_index(), .hop_limit = 64},
        .dlid = to->lid,
        .is_global = 1,
        .port_num = 1,
    };
}

int side_rtr_attr(const struct side *s, const struct side_info *to, int to_q,
                  struct ibv_qp_attr *attr_out)
{
    int mask = IBV_QP_STATE;

    *attr_out = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR};
    if (s->opt.type == IBV_QPT_UD) {
        return mask;
    }
    attr_out->path_mtu = s->opt.mtu;
    attr_out->dest_qp_num = to->qpn[to_q];
    attr_out->rq_psn = to->psn[to_q];
    attr_out->ah_attr = side_ah_attr(to);
    mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
    if (s->opt.type == IBV_QPT_RC) {
        attr_out->max_dest_rd_atomic = (uint8_t)s->opt.dest_rd_atomic;
        attr_out->min_rnr_timer = (uint8_t)s->opt.min_rnr_timer;
        mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    }
    return mask;
}

int side_rts_attr(const struct side *s, int q, struct ibv_qp_attr *attr_out)
{
    int mask = IBV_QP_STATE | IBV_QP_SQ_PSN;

    *attr_out = (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .sq_psn = s->info.psn[q]};
    if (s->opt.type == IBV_QPT_RC) {
        attr_out->timeout = (uint8_t)s->opt.timeout;
        attr_out->retry_cnt = (uint8_t)s->opt.retry_cnt;
        attr_out->rnr_retry = (uint8_t)s->opt.rnr_retry;
        attr_out->max_rd_atomic = (uint8_t)s->opt.rd_atomic;
        mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
    }
    return mask;
}

void side_connect(struct side *s, int q, const struct side_info *to, int to_q)
{
    struct ibv_qp_attr attr;
    int mask;

    mask = side_init_attr(s, &attr);
    T_EQ(ibv_modify_qp(s->qp[q], &attr, mask), 0);
    mask = side_rtr_attr(s, to, to_q, &attr);
    T_EQ(ibv_modify_qp(s->qp[q], &attr, mask), 0);
    mask = side_rts_attr(s, q, &attr);
    T_EQ(ibv_modify_qp(s->qp[q], &attr, mask), 0);
    if (s->opt.type == IBV_QPT_UD && !s->ah) {
        struct ibv_ah_attr ah = side_ah_attr(to);

        s->ah = ibv_create_ah(s->pd, &ah);
        T_ASSERT(s->ah != NULL, "ibv_create_ah: %s", strerror(errno));
    }
}

enum ibv_qp_state qp_state(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;

    T_EQ(ibv_query_qp(qp, &attr, IBV_QP_STATE, &init), 0);
    return attr.qp_state;
}

int qp_to_state(struct ibv_qp *qp, enum ibv_qp_state state)
{
    struct ibv_qp_attr attr = {.qp_state = state};

    return ibv_modify_qp(qp, &attr, IBV_QP_STATE);
}

/* --- waiting ------------------------------------------------------------------------------------
 */

struct ibv_wc cq_wait(struct ibv_cq *cq)
{
    struct ibv_wc wc = {.status = IBV_WC_GENERAL_ERR};
    int64_t deadline = t_deadline(WAIT_MS);
    int got;

    while ((got = ibv_poll_cq(cq, 1, &wc)) == 0) {
        T_ASSERT(!t_expired(deadline), "no completion within %d ms", WAIT_MS);
        t_relax();
    }
    T_EQ(got, 1);
    return wc;
}

static void take_async(struct side *s)
{
    struct async_queue *queue = s->async;

    while (queue->count < EVENTS_MAX &&
           ibv_get_async_event(s->ctx, &queue->event[queue->count]) == 0) {
        queue->count++;
    }
}

static void drop_async(struct async_queue *queue, int index)
{
    ibv_ack_async_event(&queue->event[index]);
    queue->count--;
    memmove(&queue->event[index], &queue->event[index + 1],
            sizeof(queue->event[0]) * (size_t)(queue->count - index));
}

bool side_has_event(struct side *s, enum ibv_event_type type, const void *element, int ms)
{
    int64_t deadline = t_deadline(ms);

    for (;;) {
        take_async(s);
        for (int i = 0; i < s->async->count; i++) {
            const struct ibv_async_event *event = &s->async->event[i];

            if (event->event_type == type && (!element || event->element.qp == element)) {
                drop_async(s->async, i);
                return true;
            }
        }
        if (t_expired(deadline)) {
            return false;
        }
        t_readable(s->ctx->async_fd, 1);
    }
}

void side_wait_event(struct side *s, enum ibv_event_type type, const void *element)
{
    T_ASSERT(side_has_event(s, type, element, EVENT_MS), "no event '%s'", ibv_event_type_str(type));
}

/* --- closing ------------------------------------------------------------------------------------
 */

static bool owns(const struct side *s, const void *element)
{
    bool own = element == s->send_cq || element == s->recv_cq || (s->srq && element == s->srq);

    for (int i = 0; i < SIDE_QPS; i++) {
        own = own || (s->qp[i] && element == s->qp[i]);
    }
    return own;
}

/*
 * Events that no test expects, but that the spec lets come: communication established (IBTA
 * 11.6.3.1, when a packet meets a QP in RTR) and last WQE reached, when a QP with an SRQ ends.
 */
static bool harmless(enum ibv_event_type type)
{
    return type == IBV_EVENT_COMM_EST || type == IBV_EVENT_QP_LAST_WQE_REACHED;
}

static void close_async(struct side *s, bool strict)
{
    take_async(s);
    for (int i = s->async->count - 1; i >= 0; i--) {
        struct ibv_async_event *event = &s->async->event[i];

        if (owns(s, event->element.qp)) {
            T_CHECK(!strict || harmless(event->event_type), "an event nobody expected: %s",
                    ibv_event_type_str(event->event_type));
            drop_async(s->async, i);
        }
    }
}

static void check_no_completion(struct ibv_cq *cq, const char *name)
{
    struct ibv_wc wc;

    T_CHECK(ibv_poll_cq(cq, 1, &wc) == 0, "%s CQ: wr_id %llu, %s, left unread", name,
            (unsigned long long)wc.wr_id, ibv_wc_status_str(wc.status));
}

/* Before the queue pairs: a device may wait for windows that are bound to one. */
static void close_windows(struct side *s)
{
    for (int i = 0; i < SIDE_KEYS; i++) {
        if (s->mw[i]) {
            T_CHECK_EQ(ibv_dealloc_mw(s->mw[i]), 0);
        }
    }
}

static void close_keys(struct side *s)
{
    for (int i = 0; i < SIDE_KEYS; i++) {
        if (s->mrs[i]) {
            T_CHECK_EQ(ibv_dereg_mr(s->mrs[i]), 0);
        }
    }
    if (s->other_pd) {
        T_CHECK_EQ(ibv_dealloc_pd(s->other_pd), 0);
    }
}

static void close_memory(struct side *s)
{
    T_CHECK_EQ(ibv_dereg_mr(s->mr), 0);
    T_CHECK_EQ(t_compare(s->raw, 0, SIDE_GUARD, ~s->info.seed), -1);
    T_CHECK_EQ(t_compare(s->buf + s->opt.size, 0, SIDE_GUARD, ~s->info.seed), -1);
    munmap(s->raw, s->raw_size);
}

static void close_cqs(struct side *s, bool strict)
{
    if (strict && !s->opt.cq_ex) {
        check_no_completion(s->send_cq, "send");
        check_no_completion(s->recv_cq, "receive");
    }
    T_CHECK_EQ(ibv_destroy_cq(s->send_cq), 0);
    if (!s->opt.one_cq) {
        T_CHECK_EQ(ibv_destroy_cq(s->recv_cq), 0);
    }
    if (s->channel) {
        T_CHECK_EQ(ibv_destroy_comp_channel(s->channel), 0);
    }
}

void side_close(struct side *s, bool strict)
{
    close_async(s, strict);
    if (s->ah) {
        T_CHECK_EQ(ibv_destroy_ah(s->ah), 0);
    }
    close_windows(s);
    for (int i = 0; i < SIDE_QPS; i++) {
        if (s->qp[i]) {
            T_CHECK_EQ(ibv_destroy_qp(s->qp[i]), 0);
        }
    }
    if (s->srq) {
        T_CHECK_EQ(ibv_destroy_srq(s->srq), 0);
    }
    close_cqs(s, strict);
    close_keys(s);
    close_memory(s);
    T_CHECK_EQ(ibv_dealloc_pd(s->pd), 0);
    if (!s->shared_ctx) {
        T_CHECK_EQ(ibv_close_device(s->ctx), 0);
        free(s->async);
    }
    free(s);
    t_hold(-1, "side");
}
