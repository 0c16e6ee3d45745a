/* SPDX-License-Identifier: MIT */
/*
 * Moving bytes between our memory and the target's, by the first way that works:
 *
 *   1. it is our own process, or the pages are shared: memcpy
 *   2. process_vm_writev/readv: the kernel copies; and the target is asked to share the pages
 *   3. the target's engine thread does it for us (SHM_EXECUTE)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "core/requester.h"
#include "link/shm/shm.h"

enum {
    SHARE_ASK_EVERY = 16,     /* of the small moves that went the slow way */
    SHARE_ASK_WEIGHT = 65536, /* as many bytes count as another one */
    PIECE_BYTES = 1 << 20,    /* moved, and shared, at a time; aligned */
    FAULT_NS = 200000000,
};

/*
 * Ask to share what was reached the slow way: now and then for small moves, since the page may have
 * been forgotten since, always for large ones. What is shared already is skipped.
 */
static void ask_share(struct peer *peer, uint32_t key, uint64_t addr, uint64_t length)
{
    struct shm_msg msg = {.type = SHM_SHARE, .offset = addr, .length = length, .key = key};
    uint32_t weight = 1 + (uint32_t)(length / SHARE_ASK_WEIGHT);
    uint32_t before = atomic_fetch_add_explicit(&peer->asked, weight, memory_order_relaxed);

    if (before % SHARE_ASK_EVERY + weight >= SHARE_ASK_EVERY || before == 0)
        msg_send(peer->watch.fd, &msg, NULL, 0, NULL, 0);
}

/* Pieces end at their alignment, so that none crosses a window and a shared one is found shared. */
static uint64_t piece_of(uint64_t addr, uint64_t length)
{
    uint64_t left = PIECE_BYTES - (addr & (PIECE_BYTES - 1));

    return left < length ? left : length;
}

/* move_direct() of the next piece; *length is cut to it. */
static char *direct(struct peer *peer, uint64_t addr, uint64_t *length)
{
    if (!peer->self)
        *length = piece_of(addr, *length);
    return move_direct(peer, addr, *length);
}

/* Bytes moved, or 0 if the kernel won't let us, or negative: the memory is not there. */
static ssize_t by_kernel(struct peer *peer, bool out, uint64_t remote, void *local, uint64_t length)
{
    struct iovec here = {local, length}, there = {(void *)remote, length};

    if (atomic_load_explicit(&peer->no_process_vm, memory_order_relaxed))
        return 0;
    ssize_t moved = out ? process_vm_writev(peer->pid, &here, 1, &there, 1, 0)
                        : process_vm_readv(peer->pid, &here, 1, &there, 1, 0);
    if (moved > 0)
        return moved;
    if (moved < 0 && errno == EFAULT)
        return -EFAULT;
    atomic_store(&peer->no_process_vm, true);
    return 0;
}

/* ---- by the target's engine thread ---- */

static _Atomic uint64_t next_id = 1;

static enum move ask_execute(struct qp *qp, struct peer *peer, struct shm_msg *msg,
                             const void *payload, size_t length)
{
    msg->type = SHM_EXECUTE;
    msg->index = qp->index;
    msg->id = atomic_fetch_add(&next_id, 1);
    msg->key = qp->remote_key;
    qp->stall = STALL_REMOTE;
    qp->remote_status = -EINPROGRESS;
    qp->remote_op = msg->id;
    qp->remote_peer = peer;
    if (!peer_send(peer, msg, payload, length))
        qp->remote_op = 0; /* asked again at the next try */
    return MOVE_STALL;
}

/* What became of the request in flight; STALL_REMOTE again as long as there is no answer. */
static enum move poll_execute(struct qp *qp, void *local)
{
    if (qp->remote_status == -EINPROGRESS) {
        qp->stall = STALL_REMOTE;
        return MOVE_STALL;
    }
    /* Here, not when it came: by now the key may have gone, and then we are not called. */
    if (qp->remote_reply && local)
        memcpy(local, qp->remote_reply, qp->remote_length);
    requester_drop_remote(qp);
    return qp->remote_status ? MOVE_FAULT : MOVE_DONE;
}

static enum move by_target(struct qp *qp, struct peer *peer, bool out, uint64_t remote, void *local,
                           uint64_t *length)
{
    struct shm_msg msg = {.op = out ? SHM_OP_WRITE : SHM_OP_READ, .offset = remote};

    *length = *length < SHM_PAYLOAD_MAX ? *length : SHM_PAYLOAD_MAX;
    if (qp->remote_op)
        return poll_execute(qp, out ? NULL : local);
    msg.length = *length;
    qp->remote_length = out ? 0 : (uint32_t)*length;
    return ask_execute(qp, peer, &msg, out ? local : NULL, out ? *length : 0);
}

/*
 * The kernel says that the target's memory is not there: so it looks for some microseconds while
 * its pages are being shared. If it stays so, it is true.
 */
static enum move fault(struct qp *qp)
{
    uint64_t now = now_ns();

    if (!qp->fault_since_ns)
        qp->fault_since_ns = now;
    if (now - qp->fault_since_ns > FAULT_NS)
        return MOVE_FAULT;
    qp->stall = STALL_PAGES;
    return MOVE_STALL;
}

/* ---- one piece ---- */

static enum move move_piece(struct qp *qp, struct peer *peer, bool out, uint64_t remote,
                            char *local, uint64_t *length)
{
    char *there = direct(peer, remote, length);

    /*
     * What has been asked for is waited for, though there be a better way by now: else its answer
     * would be taken for that of the next piece, or an old write come on top of a new one.
     */
    if (__builtin_expect(qp->remote_op != 0, 0))
        return by_target(qp, peer, out, remote, local, length);
    if (__builtin_expect(there != NULL, 1)) {
        memcpy(out ? there : local, out ? local : there, *length);
        return MOVE_DONE;
    }
    if (share_is_moving(peer->view.map)) {
        /* The kernel would write to pages that are being replaced. */
        qp->stall = STALL_PAGES;
        return MOVE_STALL;
    }
    ask_share(peer, qp->remote_key, remote, *length);
    ssize_t moved = by_kernel(peer, out, remote, local, *length);
    if (moved < 0)
        return fault(qp);
    if (moved == 0)
        return by_target(qp, peer, out, remote, local, length);
    *length = (uint64_t)moved;
    return MOVE_DONE;
}

/*
 * wqe_done_bytes counts over the whole WQE; a caller that comes back after a stall skips what is
 * done and calls again with the rest of its piece.
 */
static enum move move_all(struct qp *qp, struct peer *peer, bool out, uint64_t remote, char *local,
                          uint64_t length)
{
    while (length) {
        uint64_t piece = length;
        enum move result = move_piece(qp, peer, out, remote, local, &piece);

        if (result != MOVE_DONE)
            return result;
        qp->fault_since_ns = 0;
        qp->wqe_done_bytes += piece;
        remote += piece;
        local += piece;
        length -= piece;
    }
    return MOVE_DONE;
}

enum move move_out(struct qp *qp, struct peer *peer, uint64_t to, const void *from, uint64_t length)
{
    return move_all(qp, peer, true, to, (char *)(uintptr_t)from, length);
}

enum move move_in(struct qp *qp, struct peer *peer, void *to, uint64_t from, uint64_t length)
{
    return move_all(qp, peer, false, from, to, length);
}

uint64_t move_atomic_here(uint64_t *at, bool add, uint64_t operand, uint64_t swap)
{
    if (add)
        return __atomic_fetch_add(at, operand, __ATOMIC_SEQ_CST);
    __atomic_compare_exchange_n(at, &operand, swap, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return operand;
}

enum move move_atomic(struct qp *qp, struct peer *peer, uint64_t at, const struct ibv_send_wr *wr,
                      uint64_t *before_out)
{
    bool add = wr->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
    uint64_t length = sizeof(uint64_t);
    uint64_t *there = (uint64_t *)(void *)direct(peer, at, &length);

    if (there && !qp->remote_op) {
        *before_out = move_atomic_here(there, add, wr->wr.atomic.compare_add, wr->wr.atomic.swap);
        return MOVE_DONE;
    }
    if (qp->remote_op) {
        enum move result = poll_execute(qp, NULL);

        *before_out = qp->remote_value;
        return result;
    }
    struct shm_msg msg = {.op = add ? SHM_OP_ADD : SHM_OP_CAS,
                          .offset = at,
                          .length = length,
                          .value = {wr->wr.atomic.compare_add, wr->wr.atomic.swap}};
    ask_share(peer, qp->remote_key, at, length);
    qp->remote_length = 0;
    return ask_execute(qp, peer, &msg, NULL, 0);
}
