/* SPDX-License-Identifier: MIT */
/*
 * What a queue pair lets modify_qp change, and when (IBTA 10.3.1 and 11.2.5.2), as one table; and
 * the ranges of the values. Where the specification leaves a choice, we do what Linux does for
 * every device: a queue pair in RESET can't be moved to ERR, and only the named attributes may come
 * with a transition.
 */
#include <errno.h>
#include <stddef.h>

#include "core/limits.h"
#include "core/qp.h"

/* Kinds of queue pairs, as sets. */
enum {
    RC = 1 << IBV_QPT_RC,
    UC = 1 << IBV_QPT_UC,
    UD = 1 << IBV_QPT_UD,
    XRC_SEND = 1 << IBV_QPT_XRC_SEND,
    XRC_RECV = 1 << IBV_QPT_XRC_RECV,
    RELIABLE = RC | XRC_SEND | XRC_RECV,
    CONNECTED = RELIABLE | UC,
    REQUESTER = RC | XRC_SEND, /* retries what it sends */
    RESPONDER = RC | XRC_RECV, /* answers reads and atomics, and says "not ready" */
    ALL = CONNECTED | UD,
};

/* States, as sets. */
enum {
    RESET = 1 << IBV_QPS_RESET,
    INIT = 1 << IBV_QPS_INIT,
    RTR = 1 << IBV_QPS_RTR,
    RTS = 1 << IBV_QPS_RTS,
    SQD = 1 << IBV_QPS_SQD,
    SQE = 1 << IBV_QPS_SQE,
    ERR = 1 << IBV_QPS_ERR,
    ANY = RESET | INIT | RTR | RTS | SQD | SQE | ERR,
};

enum { PATH = IBV_QP_ALT_PATH | IBV_QP_PATH_MIG_STATE };

/*
 * Rows add up: a transition is legal for a kind if at least one row has it, and what all these rows
 * require and allow together counts.
 */
struct rule {
    uint8_t from, to; /* sets of states */
    uint16_t kinds;
    int required, optional;
};

static const struct rule rules[] = {
    {ANY, RESET, ALL, 0, 0},
    {ANY & ~RESET, ERR, ALL, 0, 0},

    {RESET, INIT, ALL, IBV_QP_PKEY_INDEX | IBV_QP_PORT, 0},
    {RESET, INIT, UD, IBV_QP_QKEY, 0},
    {RESET, INIT, CONNECTED, IBV_QP_ACCESS_FLAGS, 0},

    {INIT, INIT, ALL, 0, IBV_QP_PKEY_INDEX | IBV_QP_PORT},
    {INIT, INIT, UD, 0, IBV_QP_QKEY},
    {INIT, INIT, CONNECTED, 0, IBV_QP_ACCESS_FLAGS},

    {INIT, RTR, ALL, 0, IBV_QP_PKEY_INDEX},
    {INIT, RTR, UD, 0, IBV_QP_QKEY},
    {INIT, RTR, CONNECTED, IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN,
     IBV_QP_ACCESS_FLAGS | IBV_QP_ALT_PATH},
    {INIT, RTR, RESPONDER, IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER, 0},
    /* what means nothing there: perftest treats both ends of XRC alike */
    {INIT, RTR, XRC_SEND, 0, IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER},

    {RTR, RTS, ALL, IBV_QP_SQ_PSN, 0},
    {RTR, RTS, RELIABLE, IBV_QP_TIMEOUT, 0},
    {RTR, RTS, REQUESTER, IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC, 0},
    {RTR, RTS, XRC_RECV, 0, IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC},

    {RTR | RTS | SQD, RTS, ALL, 0, IBV_QP_CUR_STATE},
    {RTR | RTS | SQD, RTS, UD, 0, IBV_QP_QKEY},
    {RTR | RTS | SQD, RTS, CONNECTED, 0, IBV_QP_ACCESS_FLAGS | PATH},
    {RTR | RTS | SQD, RTS, RESPONDER, 0, IBV_QP_MIN_RNR_TIMER},

    {RTS, SQD, ALL, 0, IBV_QP_EN_SQD_ASYNC_NOTIFY},

    {SQD, SQD, ALL, 0, IBV_QP_PKEY_INDEX},
    {SQD, SQD, UD, 0, IBV_QP_QKEY},
    {SQD, SQD, CONNECTED, 0, IBV_QP_AV | IBV_QP_ACCESS_FLAGS | PATH},
    {SQD, SQD, RELIABLE, 0, IBV_QP_PORT | IBV_QP_TIMEOUT},
    {SQD, SQD, REQUESTER, 0, IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC},
    {SQD, SQD, RESPONDER, 0, IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER},

    {SQE, RTS, UD, 0, IBV_QP_CUR_STATE | IBV_QP_QKEY},
    {SQE, RTS, UC, 0, IBV_QP_CUR_STATE | IBV_QP_ACCESS_FLAGS},
};

int qp_attr_check(enum ibv_qp_type type, enum ibv_qp_state from, enum ibv_qp_state to, int mask)
{
    bool legal = false;
    int required = 0;
    int allowed = IBV_QP_STATE;

    if ((unsigned)type >= 16 || (unsigned)from > IBV_QPS_ERR || (unsigned)to > IBV_QPS_ERR)
        return -EINVAL;
    for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++) {
        const struct rule *rule = &rules[i];

        if (!(rule->from & 1 << from && rule->to & 1 << to && rule->kinds & 1 << type))
            continue;
        legal = true;
        required |= rule->required;
        allowed |= rule->required | rule->optional;
    }
    return legal && (mask & required) == required && !(mask & ~allowed) ? 0 : -EINVAL;
}

/*
 * The flags of a memory region that make no sense here are accepted and ignored, as by every
 * driver; bits that nobody has defined are not. 8 and 9 are the flushes of later headers.
 */
enum {
    ACCESS_KNOWN = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                   IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND | IBV_ACCESS_ZERO_BASED |
                   IBV_ACCESS_ON_DEMAND | IBV_ACCESS_HUGETLB | 1 << 8 | 1 << 9 |
                   IBV_ACCESS_OPTIONAL_RANGE,
};

static bool av_is_good(const struct ibv_ah_attr *av, unsigned port_count, unsigned gid_count)
{
    /* RoCE has no LIDs: without a global route there is no way to anywhere. */
    return av->port_num >= 1 && av->port_num <= port_count && av->is_global &&
           av->grh.sgid_index < gid_count && av->sl < 16;
}

static bool current_state_is_good(enum ibv_qp_state state)
{
    return state == IBV_QPS_RTR || state == IBV_QPS_RTS || state == IBV_QPS_SQD ||
           state == IBV_QPS_SQE;
}

static bool timers_are_good(const struct ibv_qp_attr *attr, int mask)
{
    return (!(mask & IBV_QP_TIMEOUT) || attr->timeout <= 31) &&
           (!(mask & IBV_QP_RETRY_CNT) || attr->retry_cnt <= 7) &&
           (!(mask & IBV_QP_RNR_RETRY) || attr->rnr_retry <= 7) &&
           (!(mask & IBV_QP_MIN_RNR_TIMER) || attr->min_rnr_timer <= 31);
}

static bool path_is_good(const struct ibv_qp_attr *attr, int mask,
                         const struct ibv_device_attr *limits, unsigned gid_count)
{
    if (mask & IBV_QP_ALT_PATH) /* one port: there is no other path */
        return false;
    if (mask & IBV_QP_PATH_MIG_STATE && attr->path_mig_state != IBV_MIG_MIGRATED)
        return false;
    if (mask & IBV_QP_AV && !av_is_good(&attr->ah_attr, limits->phys_port_cnt, gid_count))
        return false;
    if (mask & IBV_QP_PATH_MTU && (attr->path_mtu < IBV_MTU_256 || attr->path_mtu > IBV_MTU_4096))
        return false;
    return !(mask & IBV_QP_DEST_QPN) || attr->dest_qp_num < 1u << 24;
}

int qp_attr_values_check(const struct ibv_qp_attr *attr, int mask,
                         const struct ibv_device_attr *limits, unsigned gid_count)
{
    bool good =
        (!(mask & IBV_QP_STATE) || (unsigned)attr->qp_state <= IBV_QPS_ERR) &&
        (!(mask & IBV_QP_CUR_STATE) || current_state_is_good(attr->cur_qp_state)) &&
        (!(mask & IBV_QP_PORT) ||
         (attr->port_num >= 1 && attr->port_num <= limits->phys_port_cnt)) &&
        (!(mask & IBV_QP_PKEY_INDEX) || attr->pkey_index < limits->max_pkeys) &&
        (!(mask & IBV_QP_ACCESS_FLAGS) || !(attr->qp_access_flags & ~(unsigned)ACCESS_KNOWN)) &&
        (!(mask & IBV_QP_MAX_QP_RD_ATOMIC) || attr->max_rd_atomic <= limits->max_qp_init_rd_atom) &&
        (!(mask & IBV_QP_MAX_DEST_RD_ATOMIC) || attr->max_dest_rd_atomic <= limits->max_qp_rd_atom);

    return good && timers_are_good(attr, mask) && path_is_good(attr, mask, limits, gid_count)
               ? 0
               : -EINVAL;
}
