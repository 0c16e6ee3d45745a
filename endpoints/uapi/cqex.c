/* SPDX-License-Identifier: MIT */
/*
 * Extended completion queues: struct ibv_cq_ex, polled one completion at a time through functions
 * inside it. The stock provider's functions walk a ring that stays empty here; ours poll the CQ.
 *
 *   start_poll   takes the session and the first completion (ENOENT: none, and no session)
 *   next_poll    takes the next one (ENOENT: none; the session stays until end_poll)
 *   read_*       fields of the one taken last
 *   end_poll     gives the session back
 *
 * The session is a lock of its own, which single-threaded CQs do without. The CQ's lock is held
 * only while a completion is taken: between start and end the program runs, and may post or give
 * commands.
 */
#include <errno.h>
#include <stddef.h>

#include "core/limits.h"
#include "core/objects.h"
#include "core/spin.h"
#include "uapi/fastpath.h"

/* What a CQ's polling keeps, by handle. */
struct cqex {
    struct completion now; /* taken last; guarded by the session */
    struct spin session;
    bool single_threaded; /* the program has promised: no session */
    bool settled;         /* known to be plain, or patched: not to be probed; under core_lock() */
};

static struct cqex states[LIMIT_CQ];
_Static_assert((LIMIT_CQ & (LIMIT_CQ - 1)) == 0, "a handle is masked, not checked");

static inline struct cqex *cqex_of(const struct ibv_cq_ex *ex)
{
    return &states[ex->handle % LIMIT_CQ];
}

static int take(struct ibv_cq_ex *ex, struct cqex *state)
{
    struct cq *cq = cq_get(ex->handle);

    if (!cq)
        return EIO;
    cq_poll_lock(cq);
    int count = cq_poll_one(cq, &state->now);
    cq_poll_unlock(cq);
    if (count <= 0) {
        cq_session(cq, false);
        return count ? -count : ENOENT;
    }
    ex->status = state->now.wc.status;
    ex->wr_id = state->now.wc.wr_id;
    return 0;
}

static int next_poll(struct ibv_cq_ex *ex)
{
    return take(ex, cqex_of(ex));
}

static void end_poll(struct ibv_cq_ex *ex)
{
    struct cqex *state = cqex_of(ex);
    struct cq *cq = cq_get(ex->handle);

    if (cq)
        cq_session(cq, false);
    if (!state->single_threaded)
        spin_unlock(&state->session);
}

static int start_poll(struct ibv_cq_ex *ex, struct ibv_poll_cq_attr *attr)
{
    struct cqex *state = cqex_of(ex);
    struct cq *cq = cq_get(ex->handle);

    if (attr && attr->comp_mask)
        return EINVAL;

    if (!state->single_threaded)
        spin_lock(&state->session);
    if (cq)
        cq_session(cq, true);
    int error = take(ex, state);
    if (error)
        end_poll(ex);
    return error;
}

static enum ibv_wc_opcode read_opcode(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.wc.opcode;
}

static uint32_t read_vendor_err(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.wc.vendor_err;
}

static uint32_t read_byte_len(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.wc.byte_len;
}

/* Also the invalidated rkey: the same word, in the host's order. */
static __be32 read_imm_data(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.wc.imm_data;
}

static uint32_t read_qp_num(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.wc.qp_num;
}

static uint32_t read_src_qp(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.wc.src_qp;
}

static unsigned int read_wc_flags(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.wc.wc_flags;
}

static uint32_t read_slid(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.wc.slid;
}

static uint8_t read_sl(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.wc.sl;
}

static uint8_t read_dlid_path_bits(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.wc.dlid_path_bits;
}

/* The NIC's clock is the wall clock, in nanoseconds, so this serves both kinds of timestamp. */
static uint64_t read_timestamp(struct ibv_cq_ex *ex)
{
    return cqex_of(ex)->now.timestamp_ns;
}

void cqex_patch(struct ibv_cq_ex *ex, struct cq *cq, uint64_t own_flags, bool single_threaded)
{
    struct cqex *state = &states[cq_handle(cq) % LIMIT_CQ];

    state->settled = true;
    state->single_threaded = single_threaded;
    atomic_store(&state->session.held, 0); /* the handle's last CQ may have gone in a session */
    if (own_flags & CQEX_OWN_FLAGS)
        cq_stamp(cq);
    if (own_flags & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP)
        __atomic_store_n(&ex->read_completion_ts, read_timestamp, __ATOMIC_RELEASE);
    if (own_flags & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK)
        __atomic_store_n(&ex->read_completion_wallclock_ns, read_timestamp, __ATOMIC_RELEASE);
    FASTPATH_SWAP(ex, read_opcode, read_opcode);
    FASTPATH_SWAP(ex, read_vendor_err, read_vendor_err);
    FASTPATH_SWAP(ex, read_byte_len, read_byte_len);
    FASTPATH_SWAP(ex, read_imm_data, read_imm_data);
    FASTPATH_SWAP(ex, read_qp_num, read_qp_num);
    FASTPATH_SWAP(ex, read_src_qp, read_src_qp);
    FASTPATH_SWAP(ex, read_wc_flags, read_wc_flags);
    FASTPATH_SWAP(ex, read_slid, read_slid);
    FASTPATH_SWAP(ex, read_sl, read_sl);
    FASTPATH_SWAP(ex, read_dlid_path_bits, read_dlid_path_bits);
    FASTPATH_SWAP(ex, end_poll, end_poll);
    FASTPATH_SWAP(ex, next_poll, next_poll);
    FASTPATH_SWAP(ex, start_poll, start_poll);
}

void cqex_created(struct cq *cq, bool settled)
{
    states[cq_handle(cq) % LIMIT_CQ].settled = settled;
}

void cqex_probe(struct cq *cq)
{
    struct cqex *state = &states[cq_handle(cq) % LIMIT_CQ];
    uint64_t ex = cq_user_handle(cq);
    size_t first = offsetof(struct ibv_cq_ex, start_poll);
    size_t count = (sizeof(struct ibv_cq_ex) - first) / sizeof(void *);

    if (state->settled)
        return;
    state->settled = true;
    if (fastpath_is_table(ex + first, count, 0, 3))
        cqex_patch((struct ibv_cq_ex *)(uintptr_t)ex, cq, 0, false);
}
