/* SPDX-License-Identifier: MIT */
/*
 * The state machine of queue pairs: every transition with its required, optional and forbidden
 * attributes, from one table (IBTA 11.2.5.2 table 91, ibv_modify_qp(3)).
 */
#include "side.h"

#include <stdio.h>

/* States in the order of enum ibv_qp_state; no transition leads to SQE, the hardware does. */
enum { STATES = IBV_QPS_ERR + 1 };

struct step {
    enum ibv_qp_state from, to;
    int required[3], optional[3]; /* by service: RC, UC, UD; without IBV_QP_STATE */
};

enum { RC, UC, UD };

static const enum ibv_qp_type types[] = {IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD};
static const char *const type_names[] = {"RC", "UC", "UD"};
static const char *const state_names[] = {"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};

enum {
    CONNECTED_INIT = IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS,
    DATAGRAM_INIT = IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY,
    UC_RTR = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN,
    RC_RTR = UC_RTR | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER,
    RC_RTS = IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
             IBV_QP_MAX_QP_RD_ATOMIC,
    RC_SQD = IBV_QP_PORT | IBV_QP_AV | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
             IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_ACCESS_FLAGS |
             IBV_QP_PKEY_INDEX | IBV_QP_MIN_RNR_TIMER,
    UC_SQD = IBV_QP_AV | IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX,
    RC_LIVE = IBV_QP_CUR_STATE | IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER,
    UC_LIVE = IBV_QP_CUR_STATE | IBV_QP_ACCESS_FLAGS,
    UD_LIVE = IBV_QP_CUR_STATE | IBV_QP_QKEY,
};

/* Alternate paths are left out: a device without automatic path migration may refuse them. */
enum { UNTESTED = IBV_QP_ALT_PATH | IBV_QP_PATH_MIG_STATE | IBV_QP_CAP | IBV_QP_RATE_LIMIT };

static const struct step steps[] = {
    {IBV_QPS_RESET, IBV_QPS_INIT, {CONNECTED_INIT, CONNECTED_INIT, DATAGRAM_INIT}, {0}},
    {IBV_QPS_INIT, IBV_QPS_INIT, {0}, {CONNECTED_INIT, CONNECTED_INIT, DATAGRAM_INIT}},
    {IBV_QPS_INIT,
     IBV_QPS_RTR,
     {RC_RTR, UC_RTR, 0},
     {IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX, IBV_QP_ACCESS_FLAGS | IBV_QP_PKEY_INDEX,
      IBV_QP_PKEY_INDEX | IBV_QP_QKEY}},
    {IBV_QPS_RTR, IBV_QPS_RTS, {RC_RTS, IBV_QP_SQ_PSN, IBV_QP_SQ_PSN}, {RC_LIVE, UC_LIVE, UD_LIVE}},
    {IBV_QPS_RTS, IBV_QPS_RTS, {0}, {RC_LIVE, UC_LIVE, UD_LIVE}},
    {IBV_QPS_RTS,
     IBV_QPS_SQD,
     {0},
     {IBV_QP_EN_SQD_ASYNC_NOTIFY, IBV_QP_EN_SQD_ASYNC_NOTIFY, IBV_QP_EN_SQD_ASYNC_NOTIFY}},
    {IBV_QPS_SQD, IBV_QPS_SQD, {0}, {RC_SQD, UC_SQD, IBV_QP_PKEY_INDEX | IBV_QP_QKEY}},
    {IBV_QPS_SQD, IBV_QPS_RTS, {0}, {RC_LIVE, UC_LIVE, UD_LIVE}},
};

static const struct step *find_step(int from, int to)
{
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if ((int)steps[i].from == from && (int)steps[i].to == to) {
            return &steps[i];
        }
    }
    return NULL;
}

/* From every state a queue pair may be reset or put into error, with no attributes at all. */
static bool always_legal(int to)
{
    return to == IBV_QPS_RESET || to == IBV_QPS_ERR;
}

struct machine {
    struct side *s;
    int type;
    struct ibv_qp *qp;
};

static struct machine machine_open(int type)
{
    struct machine m = {.type = type};

    m.s = side_open(&(struct side_opt){.type = types[type]}, NULL);
    m.qp = m.s->qp[0];
    return m;
}

/* Attributes that are right for any transition of this queue pair. */
static struct ibv_qp_attr right_values(const struct machine *m, int from, int to)
{
    struct ibv_qp_attr attr, part;

    side_rtr_attr(m->s, &m->s->info, 0, &attr);
    side_init_attr(m->s, &part);
    attr.port_num = part.port_num;
    attr.qkey = part.qkey;
    attr.qp_access_flags = part.qp_access_flags;
    side_rts_attr(m->s, 0, &part);
    attr.sq_psn = part.sq_psn;
    attr.timeout = part.timeout;
    attr.retry_cnt = part.retry_cnt;
    attr.rnr_retry = part.rnr_retry;
    attr.max_rd_atomic = part.max_rd_atomic;
    attr.cur_qp_state = (enum ibv_qp_state)from;
    attr.qp_state = (enum ibv_qp_state)to;
    return attr;
}

static int modify(const struct machine *m, int from, int to, int mask)
{
    struct ibv_qp_attr attr = right_values(m, from, to);

    return ibv_modify_qp(m->qp, &attr, mask | IBV_QP_STATE);
}

/* Brings the queue pair from RESET to the state, by the legal way. */
static void bring_to(const struct machine *m, int state)
{
    static const int way[] = {IBV_QPS_RESET, IBV_QPS_INIT, IBV_QPS_RTR, IBV_QPS_RTS, IBV_QPS_SQD};

    T_EQ(qp_to_state(m->qp, IBV_QPS_RESET), 0);
    if (state == IBV_QPS_ERR) {
        bring_to(m, IBV_QPS_INIT);
        T_EQ(qp_to_state(m->qp, IBV_QPS_ERR), 0);
        return;
    }
    for (int i = 0; way[i] != state; i++) {
        T_EQ(modify(m, way[i], way[i + 1], find_step(way[i], way[i + 1])->required[m->type]), 0);
    }
    T_EQ(qp_state(m->qp), state);
}

static void stays(const struct machine *m, int state, const char *after)
{
    int now = (int)qp_state(m->qp);

    T_CHECK(now == state, "%s: %s after %s", type_names[m->type], state_names[now], after);
}

/* The required attributes are enough, and so are they with all optional ones. */
static void legal_step(const struct machine *m, const struct step *step)
{
    int required = step->required[m->type], optional = step->optional[m->type];
    char name[64];
    int rc;

    snprintf(name, sizeof(name), "%s %s->%s", type_names[m->type], state_names[step->from],
             state_names[step->to]);
    bring_to(m, (int)step->from);
    rc = modify(m, (int)step->from, (int)step->to, required);
    T_CHECK(rc == 0, "%s: %s", name, strerror(rc));
    stays(m, (int)step->to, name);
    bring_to(m, (int)step->from);
    rc = modify(m, (int)step->from, (int)step->to, required | optional);
    T_CHECK(rc == 0, "%s with all options: %s", name, strerror(rc));
    stays(m, (int)step->to, name);
    for (int bit = 1; bit <= IBV_QP_DEST_QPN; bit <<= 1) {
        if (optional & bit) {
            bring_to(m, (int)step->from);
            rc = modify(m, (int)step->from, (int)step->to, required | bit);
            T_CHECK(rc == 0, "%s with option 0x%x: %s", name, (unsigned)bit, strerror(rc));
        }
    }
}

static void all_steps(int type)
{
    struct machine m = machine_open(type);

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        legal_step(&m, &steps[i]);
    }
    side_close(m.s, false);
    t_end();
}

T_TEST(state_rc, legal_steps)
{
    /* Every transition of the table, with its required attributes, and with each optional one. */
    all_steps(RC);
}

T_TEST(state_uc, legal_steps)
{
    /* The same for unreliable connections. */
    all_steps(UC);
}

T_TEST(state_ud, legal_steps)
{
    /* The same for datagrams. */
    all_steps(UD);
}

/* Each required attribute left out is EINVAL, and nothing changes. */
static void missing_attributes(int type)
{
    struct machine m = machine_open(type);

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        const struct step *step = &steps[i];

        for (int bit = 1; bit <= IBV_QP_DEST_QPN; bit <<= 1) {
            if (step->required[type] & bit) {
                int rc;

                bring_to(&m, (int)step->from);
                rc = modify(&m, (int)step->from, (int)step->to, step->required[type] & ~bit);
                T_CHECK(rc == EINVAL, "%s %s->%s without 0x%x: %d", type_names[type],
                        state_names[step->from], state_names[step->to], (unsigned)bit, rc);
                stays(&m, (int)step->from, "an attribute was missing");
            }
        }
    }
    side_close(m.s, false);
    t_end();
}

T_TEST(state_rc, missing_attributes)
{
    /* A transition without one of its required attributes is EINVAL and does not happen. */
    missing_attributes(RC);
}

T_TEST(state_uc, missing_attributes)
{
    /* The same for unreliable connections. */
    missing_attributes(UC);
}

T_TEST(state_ud, missing_attributes)
{
    /* The same for datagrams. */
    missing_attributes(UD);
}

/* Each attribute that is neither required nor optional is EINVAL, and nothing changes. */
static void forbidden_attributes(int type)
{
    struct machine m = machine_open(type);

    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        const struct step *step = &steps[i];
        int known = step->required[type] | step->optional[type] | IBV_QP_STATE | UNTESTED;

        for (int bit = 1; bit <= IBV_QP_DEST_QPN; bit <<= 1) {
            if (!(known & bit)) {
                int rc;

                bring_to(&m, (int)step->from);
                rc = modify(&m, (int)step->from, (int)step->to, step->required[type] | bit);
                T_CHECK(rc == EINVAL, "%s %s->%s with 0x%x: %d", type_names[type],
                        state_names[step->from], state_names[step->to], (unsigned)bit, rc);
                stays(&m, (int)step->from, "an attribute was forbidden");
            }
        }
    }
    side_close(m.s, false);
    t_end();
}

T_TEST(state_rc, forbidden_attributes)
{
    /* A transition with an attribute that it does not have is EINVAL and does not happen. */
    forbidden_attributes(RC);
}

T_TEST(state_uc, forbidden_attributes)
{
    /* The same for unreliable connections. */
    forbidden_attributes(UC);
}

T_TEST(state_ud, forbidden_attributes)
{
    /* The same for datagrams. */
    forbidden_attributes(UD);
}

/* Every pair of states that the table does not have, with the attributes of some legal step. */
static void illegal_steps(int type)
{
    struct machine m = machine_open(type);

    for (int from = 0; from < STATES; from++) {
        if (from == IBV_QPS_SQE) {
            continue; /* only an error leads there: qp_life_test.c is about it */
        }
        for (int to = 0; to < STATES; to++) {
            const struct step *like = find_step(to == IBV_QPS_RTS ? IBV_QPS_RTR : from, to);
            int mask = like ? like->required[type] : 0, rc;

            if (always_legal(to) || find_step(from, to)) {
                continue;
            }
            bring_to(&m, from);
            rc = modify(&m, from, to, mask);
            T_CHECK(rc == EINVAL, "%s %s->%s: %d", type_names[type], state_names[from],
                    state_names[to], rc);
            stays(&m, from, "an illegal transition");
        }
    }
    side_close(m.s, false);
    t_end();
}

T_TEST(state_rc, illegal_steps)
{
    /* Every transition that is not in the table is EINVAL and does not happen. */
    illegal_steps(RC);
}

T_TEST(state_uc, illegal_steps)
{
    /* The same for unreliable connections. */
    illegal_steps(UC);
}

T_TEST(state_ud, illegal_steps)
{
    /* The same for datagrams. */
    illegal_steps(UD);
}

T_TEST(state, reset_and_error_from_everywhere)
{
    /*
     * RESET and ERR can be reached from every state, with no attributes but the state. (From RESET
     * to ERR is left open: IBTA 10.3.1 has it "from any state", Linux does not.)
     */
    for (int type = RC; type <= UD; type++) {
        struct machine m = machine_open(type);

        for (int from = 0; from < STATES; from++) {
            if (from != IBV_QPS_SQE) {
                int rc;

                bring_to(&m, from);
                rc = qp_to_state(m.qp, IBV_QPS_ERR);
                T_ASSERT(rc == 0 || (from == IBV_QPS_RESET && rc == EINVAL), "%s: %d",
                         state_names[from], rc);
                T_EQ(qp_state(m.qp), rc == 0 ? IBV_QPS_ERR : IBV_QPS_RESET);
                bring_to(&m, from);
                T_EQ(qp_to_state(m.qp, IBV_QPS_RESET), 0);
                T_EQ(qp_state(m.qp), IBV_QPS_RESET);
            }
        }
        side_close(m.s, false);
    }
    t_end();
}

T_TEST(state, current_state_must_be_true)
{
    /* A "current state" from which the transition is not legal makes it EINVAL. */
    struct machine m = machine_open(RC);
    struct ibv_qp_attr attr;

    bring_to(&m, IBV_QPS_RTR);
    attr = right_values(&m, IBV_QPS_RESET, IBV_QPS_RTS);
    T_EQ(ibv_modify_qp(m.qp, &attr, RC_RTS | IBV_QP_STATE | IBV_QP_CUR_STATE), EINVAL);
    T_EQ(qp_state(m.qp), IBV_QPS_RTR);
    side_close(m.s, true);
}

/* --- values
 * --------------------------------------------------------------------------------------- */

/* The step's legal attributes, changed by the test, must be refused. */
static void value_refused(const struct machine *m, int from, int to, struct ibv_qp_attr attr,
                          const char *what)
{
    int mask = find_step(from, to)->required[m->type] | IBV_QP_STATE, rc;

    bring_to(m, from);
    rc = ibv_modify_qp(m->qp, &attr, mask);
    T_CHECK(rc == EINVAL || rc == ENODATA || rc == ENOENT, "%s: %d", what, rc);
    stays(m, from, what);
}

#define REFUSED(m, from, to, field, value)                                                         \
    do {                                                                                           \
        struct ibv_qp_attr attr_ = right_values(&(m), (from), (to));                               \
        attr_.field = (value);                                                                     \
        value_refused(&(m), (from), (to), attr_, #field " = " #value);                             \
    } while (0)

T_TEST(state_values, init)
{
    /* Ports and P_Key indices that do not exist. */
    struct machine m = machine_open(RC);

    REFUSED(m, IBV_QPS_RESET, IBV_QPS_INIT, port_num, 0);
    REFUSED(m, IBV_QPS_RESET, IBV_QPS_INIT, port_num, 2);
    REFUSED(m, IBV_QPS_RESET, IBV_QPS_INIT, pkey_index, 60000);
    side_close(m.s, true);
}

T_TEST(state_values, rtr)
{
    /* MTUs that are no MTU; paths without GRH or with no such GID. */
    struct machine m = machine_open(RC);

    REFUSED(m, IBV_QPS_INIT, IBV_QPS_RTR, path_mtu, 0);
    REFUSED(m, IBV_QPS_INIT, IBV_QPS_RTR, path_mtu, 6);
    REFUSED(m, IBV_QPS_INIT, IBV_QPS_RTR, ah_attr.is_global, 0);
    REFUSED(m, IBV_QPS_INIT, IBV_QPS_RTR, ah_attr.port_num, 0);
    REFUSED(m, IBV_QPS_INIT, IBV_QPS_RTR, ah_attr.port_num, 2);
    REFUSED(m, IBV_QPS_INIT, IBV_QPS_RTR, ah_attr.grh.sgid_index, 255);
    REFUSED(m, IBV_QPS_INIT, IBV_QPS_RTR, min_rnr_timer, 32);
    side_close(m.s, true);
}

T_TEST(state_values, rts)
{
    /* Counts and time-outs that do not fit their 3 and 5 bits. */
    struct machine m = machine_open(RC);

    REFUSED(m, IBV_QPS_RTR, IBV_QPS_RTS, timeout, 32);
    REFUSED(m, IBV_QPS_RTR, IBV_QPS_RTS, retry_cnt, 8);
    REFUSED(m, IBV_QPS_RTR, IBV_QPS_RTS, rnr_retry, 8);
    side_close(m.s, true);
}

T_TEST(state_values, nothing_changes_on_error)
{
    /* If one attribute is bad none is taken over, the good ones neither (ibv_modify_qp(3), NOTES).
     */
    struct machine m = machine_open(RC);
    struct ibv_qp_attr attr, before, after;
    struct ibv_qp_init_attr init;

    bring_to(&m, IBV_QPS_RTS);
    T_EQ(ibv_query_qp(m.qp, &before, RC_LIVE, &init), 0);
    attr = right_values(&m, IBV_QPS_RTS, IBV_QPS_RTS);
    attr.qp_access_flags = 0;
    attr.min_rnr_timer = 40;
    T_EQ(ibv_modify_qp(m.qp, &attr, IBV_QP_ACCESS_FLAGS | IBV_QP_MIN_RNR_TIMER), EINVAL);
    T_EQ(ibv_query_qp(m.qp, &after, RC_LIVE, &init), 0);
    T_EQ(after.qp_access_flags, before.qp_access_flags);
    T_EQ(after.min_rnr_timer, before.min_rnr_timer);
    side_close(m.s, true);
}

/* --- queries
 * -------------------------------------------------------------------------------------- */

T_TEST(state_query, returns_what_was_set)
{
    /* Every attribute set on the way to RTS is there in a query. */
    struct machine m = machine_open(RC);
    struct ibv_qp_attr want, got;
    struct ibv_qp_init_attr init;

    bring_to(&m, IBV_QPS_RTS);
    want = right_values(&m, IBV_QPS_RTR, IBV_QPS_RTS);
    memset(&got, 0xff, sizeof(got));
    T_EQ(ibv_query_qp(m.qp, &got, (1 << 21) - 1, &init), 0);
    T_CHECK_EQ(got.qp_state, IBV_QPS_RTS);
    T_CHECK_EQ(got.path_mtu, want.path_mtu);
    T_CHECK_EQ(got.rq_psn, want.rq_psn);
    T_CHECK_EQ(got.sq_psn, want.sq_psn);
    T_CHECK_EQ(got.dest_qp_num, want.dest_qp_num);
    T_CHECK_EQ(got.qp_access_flags & ACCESS_REMOTE, want.qp_access_flags);
    T_CHECK_EQ(got.pkey_index, 0);
    T_CHECK_EQ(got.port_num, 1);
    T_CHECK_EQ(got.timeout, want.timeout);
    T_CHECK_EQ(got.retry_cnt, want.retry_cnt);
    T_CHECK_EQ(got.rnr_retry, want.rnr_retry);
    T_CHECK_EQ(got.min_rnr_timer, want.min_rnr_timer);
    T_CHECK_EQ(got.max_rd_atomic, want.max_rd_atomic);
    T_CHECK_EQ(got.max_dest_rd_atomic, want.max_dest_rd_atomic);
    T_CHECK_EQ(got.ah_attr.is_global, 1);
    T_CHECK_EQ(got.ah_attr.port_num, 1);
    T_CHECK_EQ(got.ah_attr.grh.sgid_index, want.ah_attr.grh.sgid_index);
    T_CHECK_EQ(got.ah_attr.grh.hop_limit, want.ah_attr.grh.hop_limit);
    T_MEMEQ(&got.ah_attr.grh.dgid, &want.ah_attr.grh.dgid, 16);
    side_close(m.s, true);
}

T_TEST(state_query, returns_how_it_was_made)
{
    /* The second structure tells how the queue pair was made. */
    struct side_opt opt = {.send_wr = 11,
                           .recv_wr = 12,
                           .send_sge = 2,
                           .recv_sge = 3,
                           .inline_size = 40,
                           .sig_all = true};
    struct side *s = side_open(&opt, NULL);
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;

    T_EQ(ibv_query_qp(s->qp[0], &attr, IBV_QP_STATE | IBV_QP_CAP, &init), 0);
    T_ASSERT(init.qp_context == s && init.send_cq == s->send_cq && init.recv_cq == s->recv_cq);
    T_ASSERT(init.srq == NULL);
    T_EQ(init.qp_type, IBV_QPT_RC);
    T_EQ(init.sq_sig_all, 1);
    T_CHECK(init.cap.max_send_wr >= s->info.cap.max_send_wr);
    T_CHECK(init.cap.max_recv_wr >= s->info.cap.max_recv_wr);
    T_CHECK(init.cap.max_send_sge >= s->info.cap.max_send_sge);
    T_CHECK(init.cap.max_recv_sge >= s->info.cap.max_recv_sge);
    T_CHECK(init.cap.max_inline_data >= s->info.cap.max_inline_data);
    T_CHECK_EQ(attr.cap.max_send_wr, init.cap.max_send_wr);
    side_close(s, true);
}

T_TEST(state_query, datagram_key)
{
    /* The Q_Key of a UD queue pair, first as made, then as changed. */
    struct machine m = machine_open(UD);
    struct ibv_qp_attr attr = {.qkey = 0x1234};
    struct ibv_qp_init_attr init;

    bring_to(&m, IBV_QPS_RTS);
    T_EQ(ibv_query_qp(m.qp, &attr, IBV_QP_QKEY, &init), 0);
    T_EQ(attr.qkey, m.s->opt.qkey);
    attr.qkey = 0x1234;
    T_EQ(ibv_modify_qp(m.qp, &attr, IBV_QP_QKEY), 0);
    T_EQ(ibv_query_qp(m.qp, &attr, IBV_QP_QKEY, &init), 0);
    T_EQ(attr.qkey, 0x1234);
    side_close(m.s, true);
}
