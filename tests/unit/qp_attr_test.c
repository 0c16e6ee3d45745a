/* SPDX-License-Identifier: MIT */
/*
 * Which attributes may, and must, come with which change of a queue pair's state. The expectation
 * is written the other way round than the code under test: one line for each kind and transition,
 * with a letter for each attribute, upper case if it must be there.
 */
#include <stdio.h>

#include "core/qp.h"
#include "t.h"

/* letter, bit */
static const struct {
    char letter;
    int bit;
} attributes[] = {
    {'c', IBV_QP_CUR_STATE},
    {'n', IBV_QP_EN_SQD_ASYNC_NOTIFY},
    {'a', IBV_QP_ACCESS_FLAGS},
    {'k', IBV_QP_PKEY_INDEX},
    {'p', IBV_QP_PORT},
    {'q', IBV_QP_QKEY},
    {'v', IBV_QP_AV},
    {'m', IBV_QP_PATH_MTU},
    {'t', IBV_QP_TIMEOUT},
    {'y', IBV_QP_RETRY_CNT},
    {'w', IBV_QP_RNR_RETRY},
    {'r', IBV_QP_RQ_PSN},
    {'i', IBV_QP_MAX_QP_RD_ATOMIC},
    {'l', IBV_QP_ALT_PATH},
    {'u', IBV_QP_MIN_RNR_TIMER},
    {'s', IBV_QP_SQ_PSN},
    {'o', IBV_QP_MAX_DEST_RD_ATOMIC},
    {'g', IBV_QP_PATH_MIG_STATE},
    {'z', IBV_QP_CAP},
    {'d', IBV_QP_DEST_QPN},
};

enum { ATTRIBUTES = sizeof(attributes) / sizeof(attributes[0]) };

/* "kind from>to attributes"; what is not here is illegal. */
static const char *const legal[] = {
    "RC RESET>INIT KPA",      "RC INIT>INIT kpa",
    "RC INIT>RTR VMDROU kal", "RC RTR>RTS TYWSI calug",
    "RC RTS>RTS calug",       "RC RTS>SQD n",
    "RC SQD>RTS calug",       "RC SQD>SQD pvtywiolakug",
    "UC RESET>INIT KPA",      "UC INIT>INIT kpa",
    "UC INIT>RTR VMDR kal",   "UC RTR>RTS S calg",
    "UC RTS>RTS calg",        "UC RTS>SQD n",
    "UC SQD>RTS calg",        "UC SQD>SQD vlakg",
    "UC SQE>RTS ca",          "UD RESET>INIT KPQ",
    "UD INIT>INIT kpq",       "UD INIT>RTR kq",
    "UD RTR>RTS S cq",        "UD RTS>RTS cq",
    "UD RTS>SQD n",           "UD SQD>RTS cq",
    "UD SQD>SQD kq",          "UD SQE>RTS cq",
    "XS RESET>INIT KPA",      "XS INIT>INIT kpa",
    "XS INIT>RTR VMDR kalou",   "XS RTR>RTS TYWSI calg",
    "XS RTS>RTS calg",        "XS RTS>SQD n",
    "XS SQD>RTS calg",        "XS SQD>SQD pvtywilakg",
    "XR RESET>INIT KPA",      "XR INIT>INIT kpa",
    "XR INIT>RTR VMDROU kal", "XR RTR>RTS TS calugywi",
    "XR RTS>RTS calug",       "XR RTS>SQD n",
    "XR SQD>RTS calug",       "XR SQD>SQD pvtolakug",
};

static const struct {
    const char *name;
    enum ibv_qp_type type;
} kinds[] = {{"RC", IBV_QPT_RC},
             {"UC", IBV_QPT_UC},
             {"UD", IBV_QPT_UD},
             {"XS", IBV_QPT_XRC_SEND},
             {"XR", IBV_QPT_XRC_RECV}};

enum { KINDS = sizeof(kinds) / sizeof(kinds[0]), STATES = IBV_QPS_ERR + 1 };

static const char *const states[STATES] = {
    [IBV_QPS_RESET] = "RESET", [IBV_QPS_INIT] = "INIT", [IBV_QPS_RTR] = "RTR",
    [IBV_QPS_RTS] = "RTS",     [IBV_QPS_SQD] = "SQD",   [IBV_QPS_SQE] = "SQE",
    [IBV_QPS_ERR] = "ERR",
};

/* The letters of a transition, or NULL if it is illegal. */
static const char *expected(int kind, int from, int to)
{
    char start[32];
    int len =
        snprintf(start, sizeof(start), "%s %s>%s ", kinds[kind].name, states[from], states[to]);

    if (to == IBV_QPS_RESET)
        return "";
    if (to == IBV_QPS_ERR)
        return from == IBV_QPS_RESET ? NULL : "";
    for (size_t i = 0; i < sizeof(legal) / sizeof(legal[0]); i++) {
        if (strncmp(legal[i], start, (size_t)len) == 0)
            return legal[i] + len;
    }
    return NULL;
}

static void read_letters(const char *letters, int *required_out, int *allowed_out)
{
    *required_out = 0;
    *allowed_out = IBV_QP_STATE;
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        char lower = attributes[i].letter;

        if (strchr(letters, lower - 'a' + 'A'))
            *required_out |= attributes[i].bit;
        if (strchr(letters, lower))
            *allowed_out |= attributes[i].bit;
    }
    *allowed_out |= *required_out;
}

static void check_mask(int kind, int from, int to, int mask, bool good)
{
    int rc = qp_attr_check(kinds[kind].type, (enum ibv_qp_state)from, (enum ibv_qp_state)to, mask);

    T_CHECK(rc == (good ? 0 : -EINVAL), "%s %s>%s mask 0x%x gave %d", kinds[kind].name,
            states[from], states[to], (unsigned)mask, rc);
}

/* Every mask that differs from the required set in one attribute, and some random ones. */
static void check_transition(int kind, int from, int to)
{
    const char *letters = expected(kind, from, to);
    int required = 0;
    int allowed = IBV_QP_STATE;

    if (letters)
        read_letters(letters, &required, &allowed);
    check_mask(kind, from, to, required | IBV_QP_STATE, letters);
    check_mask(kind, from, to, required, letters);
    check_mask(kind, from, to, allowed, letters);
    for (int bit = 1; bit < 1 << 27; bit <<= 1) {
        check_mask(kind, from, to, required | bit, letters && allowed & bit);
        check_mask(kind, from, to, allowed & ~bit, letters && !(required & bit));
    }
    for (int i = 0; i < 200; i++) {
        int mask = (int)t_rand_below(1 << 27);

        if (i % 2) /* mostly legal ones too */
            mask = (mask & allowed) | required;
        check_mask(kind, from, to, mask, letters && !(mask & ~allowed) && !(required & ~mask));
    }
}

T_TEST(qp_attr, every_transition)
{
    /* Shows that each kind, pair of states and mask is judged as the table above says. */
    for (int kind = 0; kind < KINDS; kind++) {
        for (int from = 0; from < STATES; from++) {
            for (int to = 0; to < STATES; to++)
                check_transition(kind, from, to);
        }
    }
}

T_TEST(qp_attr, no_such_state_or_kind)
{
    /* Shows that values outside the enumerations, which programs may pass, are refused. */
    enum ibv_qp_state none = IBV_QPS_UNKNOWN;

    T_EQ(qp_attr_check(IBV_QPT_RC, none, IBV_QPS_RESET, IBV_QP_STATE), -EINVAL);
    T_EQ(qp_attr_check(IBV_QPT_RC, IBV_QPS_RTS, none, IBV_QP_STATE), -EINVAL);
    T_EQ(qp_attr_check(IBV_QPT_RC, (enum ibv_qp_state) - 1, IBV_QPS_ERR, IBV_QP_STATE), -EINVAL);
    T_EQ(qp_attr_check(IBV_QPT_RC, IBV_QPS_RTS, (enum ibv_qp_state)200, IBV_QP_STATE), -EINVAL);
    T_EQ(qp_attr_check(IBV_QPT_RAW_PACKET, IBV_QPS_RESET, IBV_QPS_RESET, 0), -EINVAL);
    T_EQ(qp_attr_check(IBV_QPT_DRIVER, IBV_QPS_RESET, IBV_QPS_RESET, 0), -EINVAL);
    T_EQ(qp_attr_check((enum ibv_qp_type)0, IBV_QPS_RESET, IBV_QPS_RESET, 0), -EINVAL);
}

static const struct ibv_device_attr limits = {
    .max_qp_rd_atom = 16,
    .max_qp_init_rd_atom = 8,
    .max_pkeys = 1,
    .phys_port_cnt = 1,
};

/* Every attribute in range, most of them at its limit. */
static struct ibv_qp_attr good_attr(void)
{
    return (struct ibv_qp_attr){
        .qp_state = IBV_QPS_RTR,
        .cur_qp_state = IBV_QPS_RTS,
        .path_mtu = IBV_MTU_4096,
        .path_mig_state = IBV_MIG_MIGRATED,
        .qkey = 0xffffffff,
        .rq_psn = 0xffffffff,
        .sq_psn = 0x01000000,
        .dest_qp_num = 0xffffff,
        .qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                           IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
                           IBV_ACCESS_RELAXED_ORDERING,
        .ah_attr = {.port_num = 1, .is_global = 1, .sl = 15, .grh = {.sgid_index = 2}},
        .max_rd_atomic = 8,
        .max_dest_rd_atomic = 16,
        .min_rnr_timer = 31,
        .port_num = 1,
        .timeout = 31,
        .retry_cnt = 7,
        .rnr_retry = 7,
        .en_sqd_async_notify = 1,
    };
}

enum { ALL_BITS = (1 << 21) - 1, GOOD_BITS = ALL_BITS & ~IBV_QP_ALT_PATH };

/* Is this value refused when its bit is in the mask, and left alone when not? */
static void check_value(const char *what, const struct ibv_qp_attr *attr, int bit, bool good)
{
    T_CHECK(qp_attr_values_check(attr, GOOD_BITS, &limits, 3) == (good ? 0 : -EINVAL), "%s", what);
    T_CHECK(qp_attr_values_check(attr, bit, &limits, 3) == (good ? 0 : -EINVAL), "%s", what);
    T_CHECK(qp_attr_values_check(attr, GOOD_BITS & ~bit, &limits, 3) == 0, "%s, unnamed", what);
}

#define CHECK_VALUE(bit, field, value, good)                                                       \
    do {                                                                                           \
        struct ibv_qp_attr attr_ = good_attr();                                                    \
        attr_.field = (value);                                                                     \
        check_value(#field " = " #value, &attr_, bit, good);                                       \
    } while (0)

T_TEST(qp_attr, values_at_their_limits)
{
    /* Shows the last good and the first bad value of each attribute. */
    CHECK_VALUE(IBV_QP_STATE, qp_state, IBV_QPS_ERR, true);
    CHECK_VALUE(IBV_QP_STATE, qp_state, IBV_QPS_UNKNOWN, false);
    CHECK_VALUE(IBV_QP_CUR_STATE, cur_qp_state, IBV_QPS_RTR, true);
    CHECK_VALUE(IBV_QP_CUR_STATE, cur_qp_state, IBV_QPS_SQE, true);
    CHECK_VALUE(IBV_QP_CUR_STATE, cur_qp_state, IBV_QPS_INIT, false);
    CHECK_VALUE(IBV_QP_CUR_STATE, cur_qp_state, IBV_QPS_ERR, false);
    CHECK_VALUE(IBV_QP_PORT, port_num, 0, false);
    CHECK_VALUE(IBV_QP_PORT, port_num, 2, false);
    CHECK_VALUE(IBV_QP_PKEY_INDEX, pkey_index, 1, false);
    CHECK_VALUE(IBV_QP_PATH_MTU, path_mtu, IBV_MTU_256, true);
    CHECK_VALUE(IBV_QP_PATH_MTU, path_mtu, (enum ibv_mtu)0, false);
    CHECK_VALUE(IBV_QP_PATH_MTU, path_mtu, (enum ibv_mtu)6, false);
    CHECK_VALUE(IBV_QP_TIMEOUT, timeout, 32, false);
    CHECK_VALUE(IBV_QP_RETRY_CNT, retry_cnt, 8, false);
    CHECK_VALUE(IBV_QP_RNR_RETRY, rnr_retry, 8, false);
    CHECK_VALUE(IBV_QP_MIN_RNR_TIMER, min_rnr_timer, 32, false);
    CHECK_VALUE(IBV_QP_MAX_QP_RD_ATOMIC, max_rd_atomic, 9, false);
    CHECK_VALUE(IBV_QP_MAX_DEST_RD_ATOMIC, max_dest_rd_atomic, 17, false);
    CHECK_VALUE(IBV_QP_DEST_QPN, dest_qp_num, 1u << 24, false);
    CHECK_VALUE(IBV_QP_ACCESS_FLAGS, qp_access_flags, 0, true);
    CHECK_VALUE(IBV_QP_ACCESS_FLAGS, qp_access_flags, 1u << 19, false);
    CHECK_VALUE(IBV_QP_ACCESS_FLAGS, qp_access_flags, 1u << 31, false);
    CHECK_VALUE(IBV_QP_PATH_MIG_STATE, path_mig_state, IBV_MIG_REARM, false);
    CHECK_VALUE(IBV_QP_PATH_MIG_STATE, path_mig_state, IBV_MIG_ARMED, false);
}

T_TEST(qp_attr, address_vector)
{
    /* Shows that a path needs our port, a route header and a GID of the table. */
    CHECK_VALUE(IBV_QP_AV, ah_attr.port_num, 0, false);
    CHECK_VALUE(IBV_QP_AV, ah_attr.port_num, 2, false);
    CHECK_VALUE(IBV_QP_AV, ah_attr.is_global, 0, false);
    CHECK_VALUE(IBV_QP_AV, ah_attr.grh.sgid_index, 3, false);
    CHECK_VALUE(IBV_QP_AV, ah_attr.grh.sgid_index, 255, false);
    CHECK_VALUE(IBV_QP_AV, ah_attr.sl, 16, false);
}

T_TEST(qp_attr, no_alternate_path)
{
    /* Shows that a second path, which a NIC with one port can't have, is refused. */
    struct ibv_qp_attr attr = good_attr();

    T_EQ(qp_attr_values_check(&attr, IBV_QP_ALT_PATH, &limits, 3), -EINVAL);
    T_EQ(qp_attr_values_check(&attr, ALL_BITS, &limits, 3), -EINVAL);
    T_EQ(qp_attr_values_check(&attr, 0, &limits, 0), 0);
}
