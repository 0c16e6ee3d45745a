/* SPDX-License-Identifier: MIT */
/* Credits around a queue pair: the word travels as immediate data, updates are empty sends. */
#include "credit.h"

#include <arpa/inet.h>
#include <infiniband/verbs.h>

int credit_qp_init(struct credit_qp *q, struct ibv_qp *qp, unsigned reserve, credit_wait_fn *wait,
                   void *arg)
{
    int err = credit_init(&q->credit, reserve);

    if (err != 0) {
        return err;
    }
    q->qp = qp;
    q->wait = wait;
    q->arg = arg;
    return 0;
}

/* An update that can't be sent now stays due: every later call here tries it again. */
static __attribute__((noinline)) void send_update(struct credit_qp *q)
{
    struct ibv_send_wr wr, *bad;
    uint32_t word;

    if (credit_update(&q->credit, &word) != 0) {
        return;
    }
    wr = (struct ibv_send_wr){.wr_id = (uintptr_t)q,
                              .opcode = IBV_WR_SEND_WITH_IMM,
                              .send_flags = IBV_SEND_SIGNALED,
                              .imm_data = htonl(word)};
    if (ibv_post_send(q->qp, &wr, &bad) == 0) {
        credit_sent(&q->credit, word);
    }
}

/* On the way of every message, and seldom true. */
static inline void update_if_due(struct credit_qp *q)
{
    if (__builtin_expect(credit_due(&q->credit), 0)) {
        send_update(q);
    }
}

int credit_qp_recv(struct credit_qp *q, struct ibv_recv_wr *wr)
{
    struct ibv_recv_wr *bad;
    int err;

    if (wr->next != NULL) {
        return -EINVAL;
    }
    err = ibv_post_recv(q->qp, wr, &bad);
    if (err != 0) {
        return -err;
    }
    credit_posted(&q->credit);
    update_if_due(q);
    return 0;
}

/* There is no word: waits for one as the caller wants it. */
static __attribute__((noinline)) int wait_for_word(struct credit_qp *q, uint32_t *word_out)
{
    int err;

    while ((err = credit_take(&q->credit, word_out)) == -EAGAIN && q->wait != NULL) {
        err = q->wait(q->arg);
        if (err != 0) {
            return err;
        }
    }
    return err;
}

static bool takes_receive(enum ibv_wr_opcode opcode)
{
    return opcode == IBV_WR_SEND_WITH_IMM || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

int credit_qp_send(struct credit_qp *q, struct ibv_send_wr *wr)
{
    struct ibv_send_wr *bad;
    uint32_t word;
    int err;

    if (wr->next != NULL || wr->opcode == IBV_WR_SEND || wr->opcode == IBV_WR_SEND_WITH_INV) {
        return -EINVAL;
    }
    if (!takes_receive(wr->opcode)) {
        return -ibv_post_send(q->qp, wr, &bad);
    }
    err = credit_take(&q->credit, &word);
    if (__builtin_expect(err != 0, 0)) {
        err = wait_for_word(q, &word);
    }
    if (__builtin_expect(err != 0, 0)) {
        return err;
    }
    wr->imm_data = htonl(word);
    err = ibv_post_send(q->qp, wr, &bad);
    if (err == 0) {
        credit_sent(&q->credit, word);
    }
    return -err;
}

int credit_qp_seen(struct credit_qp *q, const struct ibv_wc *wc)
{
    int kind = CREDIT_SENT;

    if (__builtin_expect(wc->status != IBV_WC_SUCCESS, 0)) {
        return -EIO;
    }
    if (wc->opcode & IBV_WC_RECV) {
        if (!(wc->wc_flags & IBV_WC_WITH_IMM)) {
            return -EPROTO;
        }
        kind = credit_arrived(&q->credit, ntohl(wc->imm_data));
        if (__builtin_expect(kind < 0, 0)) {
            return kind;
        }
    } else if (wc->wr_id == (uintptr_t)q) {
        kind = -EALREADY;
    }
    update_if_due(q);
    return kind;
}
