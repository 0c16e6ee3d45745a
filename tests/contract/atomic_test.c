/* SPDX-License-Identifier: MIT */
/* Atomics: the right result, the original value returned, and truly one at a time. */
#include "ends.h"

static uint64_t read_word(struct end *e, uint64_t off)
{
    uint64_t word;

    e_peek(e, off, &word, sizeof(word));
    return word;
}

static void write_word(struct end *e, uint64_t off, uint64_t word)
{
    e_poke(e, off, &word, sizeof(word));
}

/* One atomic from a to b's word at `roff`; gives the original value as it arrived at a. */
static uint64_t atomic(struct pair *p, enum ibv_wr_opcode op, int64_t roff, uint64_t compare_add,
                       uint64_t swap)
{
    e_send(p->a, &(struct post){.id = 1,
                                .op = op,
                                .off = p->rx + 256,
                                .len = 8,
                                .roff = roff,
                                .compare_add = compare_add,
                                .swap = swap});
    e_done(p->a, 1, op == IBV_WR_ATOMIC_CMP_AND_SWP ? IBV_WC_COMP_SWAP : IBV_WC_FETCH_ADD);
    e_untouched(p->a, p->rx + 248, 8);
    e_untouched(p->a, p->rx + 264, 8);
    return read_word(p->a, p->rx + 256);
}

T_CONTRACT_SELF(atomic, fetch_and_add)
{
    /* The word grows by the addend, in the target's own byte order; the old value comes back. */
    struct pair *p = pair_open(topology, NULL);

    write_word(p->b, 64, 0x0102030405060708);
    T_EQ(atomic(p, IBV_WR_ATOMIC_FETCH_AND_ADD, 64, 0x10, 0), 0x0102030405060708);
    T_EQ(read_word(p->b, 64), 0x0102030405060718);
    e_untouched(p->b, 0, 64);
    e_untouched(p->b, 72, 64);
    pair_close(p);
}

T_CONTRACT(atomic, fetch_and_add_wraps)
{
    /* Addition is modulo 2^64, so adding the greatest number takes one away. */
    struct pair *p = pair_open(topology, NULL);

    write_word(p->b, 8, 5);
    T_EQ(atomic(p, IBV_WR_ATOMIC_FETCH_AND_ADD, 8, UINT64_MAX, 0), 5);
    T_EQ(read_word(p->b, 8), 4);
    write_word(p->b, 8, UINT64_MAX);
    T_EQ(atomic(p, IBV_WR_ATOMIC_FETCH_AND_ADD, 8, 2, 0), -1);
    T_EQ(read_word(p->b, 8), 1);
    pair_close(p);
}

T_CONTRACT(atomic, fetch_and_add_zero_reads)
{
    /* Adding nothing is an atomic read. */
    struct pair *p = pair_open(topology, NULL);

    write_word(p->b, 0, 77);
    T_EQ(atomic(p, IBV_WR_ATOMIC_FETCH_AND_ADD, 0, 0, 0), 77);
    T_EQ(read_word(p->b, 0), 77);
    pair_close(p);
}

T_CONTRACT_SELF(atomic, compare_and_swap_equal)
{
    /* Where the word equals the comparand, it is swapped; the old value comes back. */
    struct pair *p = pair_open(topology, NULL);

    write_word(p->b, 16, 0x1122334455667788);
    T_EQ(atomic(p, IBV_WR_ATOMIC_CMP_AND_SWP, 16, 0x1122334455667788, 0x99), 0x1122334455667788);
    T_EQ(read_word(p->b, 16), 0x99);
    e_untouched(p->b, 0, 16);
    e_untouched(p->b, 24, 64);
    pair_close(p);
}

T_CONTRACT_SELF(atomic, compare_and_swap_different)
{
    /* Where they differ, even in one bit, the word stays; the old value comes back all the same. */
    struct pair *p = pair_open(topology, NULL);

    write_word(p->b, 16, 0x8000000000000001);
    T_EQ(atomic(p, IBV_WR_ATOMIC_CMP_AND_SWP, 16, 1, 0x99), (int64_t)0x8000000000000001);
    T_EQ(read_word(p->b, 16), (int64_t)0x8000000000000001);
    pair_close(p);
}

T_CONTRACT(atomic, last_word_of_the_region)
{
    /* The last eight bytes can be used; they end where the region does. */
    struct pair *p = pair_open(topology, NULL);

    write_word(p->b, 65528, 1);
    T_EQ(atomic(p, IBV_WR_ATOMIC_FETCH_AND_ADD, 65528, 1, 0), 1);
    T_EQ(read_word(p->b, 65528), 2);
    pair_close(p);
}

T_CONTRACT(atomic, more_than_the_depth)
{
    /*
     * With one outstanding atomic allowed at either end, a queue of sixteen is still carried out,
     * one after the other, in order.
     */
    struct pair *p = pair_open(topology, &(struct side_opt){.rd_atomic = 1, .dest_rd_atomic = 1});

    write_word(p->b, 0, 100);
    for (uint64_t i = 0; i < 16; i++) {
        e_send(p->a, &(struct post){.id = i,
                                    .op = IBV_WR_ATOMIC_FETCH_AND_ADD,
                                    .off = p->rx + i * 8,
                                    .len = 8,
                                    .compare_add = 1});
    }
    for (uint64_t i = 0; i < 16; i++) {
        e_done(p->a, i, IBV_WC_FETCH_ADD);
        T_EQ(read_word(p->a, p->rx + i * 8), 100 + i);
    }
    T_EQ(read_word(p->b, 0), 116);
    pair_close(p);
}

T_CONTRACT(atomic, ordered_after_a_write)
{
    /* An atomic sees what a write before it on the same queue pair has put there. */
    struct pair *p = pair_open(topology, NULL);

    for (uint64_t i = 0; i < 20; i++) {
        write_word(p->a, 0, i);
        e_send(p->a, &(struct post){
                         .id = 5, .op = IBV_WR_RDMA_WRITE, .len = 8, .roff = 128, .quiet = true});
        T_EQ(atomic(p, IBV_WR_ATOMIC_FETCH_AND_ADD, 128, 1000, 0), i);
        T_EQ(read_word(p->b, 128), i + 1000);
    }
    pair_close(p);
}

/* --- many at once
 * ---------------------------------------------------------------------------------- */

enum { CLIENTS = 4, ROUNDS = 200 };

struct crowd {
    struct side_info to;
    uint64_t sum; /* out: of the original values, or the number of won swaps */
};

/* Posts one atomic and waits; the result is in the first word of the receive half. */
static uint64_t one(struct side *s, const struct side_info *to, enum ibv_wr_opcode op,
                    uint64_t compare_add, uint64_t swap)
{
    uint64_t *word = (uint64_t *)(void *)(s->buf + s->opt.size / 2);
    struct ibv_sge sge = {(uintptr_t)word, 8, s->info.lkey};
    struct ibv_send_wr *bad, wr = {
                                 .sg_list = &sge,
                                 .num_sge = 1,
                                 .opcode = op,
                                 .send_flags = IBV_SEND_SIGNALED,
                                 .wr.atomic = {to->addr, compare_add, swap, to->rkey},
                             };
    struct ibv_wc wc;

    T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
    wc = cq_wait(s->send_cq);
    T_EQ(wc.status, IBV_WC_SUCCESS);
    return *(volatile uint64_t *)word;
}

static void add_many(struct side *s, void *arg)
{
    struct crowd *crowd = arg;
    uint64_t last = 0;

    for (int i = 0; i < ROUNDS; i++) {
        uint64_t was = one(s, &crowd->to, IBV_WR_ATOMIC_FETCH_AND_ADD, 1, 0);

        T_ASSERT(i == 0 || was > last, "a counter went back");
        last = was;
        crowd->sum += was;
    }
}

/* A lock-free increment by compare-and-swap, as programs do it. */
static void swap_many(struct side *s, void *arg)
{
    struct crowd *crowd = arg;
    int64_t deadline = t_deadline(3 * WAIT_MS);
    uint64_t seen = 0;

    while (crowd->sum < ROUNDS) {
        uint64_t was = one(s, &crowd->to, IBV_WR_ATOMIC_CMP_AND_SWP, seen, seen + 1);

        T_ASSERT(!t_expired(deadline), "only %llu swaps won", (unsigned long long)crowd->sum);
        crowd->sum += was == seen;
        seen = was == seen ? seen + 1 : was;
    }
}

/* A target with one queue pair for each client; the clients work at the same time. */
static void crowd_works(enum t_peer_kind kind, end_fn *fn, uint64_t *sum_out, uint64_t *word_out)
{
    struct end target, client[CLIENTS];
    struct crowd crowd[CLIENTS];
    struct side_opt opt = side_options(NULL);

    for (int i = 0; i < CLIENTS; i++) {
        end_start(&client[i], kind);
    }
    end_start(&target, T_INLINE);
    opt.qps = CLIENTS;
    end_open(&target, &opt, NULL);
    opt.qps = 1;
    for (int i = 0; i < CLIENTS; i++) {
        end_open(&client[i], &opt, NULL);
        end_connect(&target, i, &client[i], 0);
        end_connect(&client[i], 0, &target, i);
    }
    write_word(&target, 0, 0);
    for (int i = 0; i < CLIENTS; i++) {
        crowd[i] = (struct crowd){.to = target.info};
        e_begin(&client[i], fn, &crowd[i], sizeof(crowd[i]));
    }
    *sum_out = 0;
    for (int i = 0; i < CLIENTS; i++) {
        e_finish(&client[i]);
        *sum_out += crowd[i].sum;
    }
    *word_out = read_word(&target, 0);
    for (int i = 0; i < CLIENTS; i++) {
        end_close(&client[i]);
    }
    end_close(&target);
    t_end();
}

static void adds_sum_up(enum t_peer_kind kind)
{
    const uint64_t total = CLIENTS * ROUNDS;
    uint64_t sum, word;

    crowd_works(kind, add_many, &sum, &word);
    T_EQ(word, total);
    /* Each value from 0 to total - 1 was returned to somebody exactly once. */
    T_EQ(sum, total * (total - 1) / 2);
}

T_TEST(atomic_crowd_processes, additions_sum_up)
{
    /* Four processes add at once: nothing is lost, and each original value is given once. */
    adds_sum_up(T_PROCESS);
}

T_TEST(atomic_crowd_threads, additions_sum_up)
{
    /* The same with four threads, each with its own context. */
    adds_sum_up(T_THREAD);
}

static void swaps_sum_up(enum t_peer_kind kind)
{
    uint64_t sum, word;

    crowd_works(kind, swap_many, &sum, &word);
    T_EQ(sum, CLIENTS * ROUNDS);
    T_EQ(word, CLIENTS * ROUNDS);
}

T_TEST(atomic_crowd_processes, swaps_sum_up)
{
    /* Four processes count by compare-and-swap: every swap that was won is in the word. */
    swaps_sum_up(T_PROCESS);
}

T_TEST(atomic_crowd_threads, swaps_sum_up)
{
    /* The same with four threads. */
    swaps_sum_up(T_THREAD);
}
