/* SPDX-License-Identifier: MIT */
/* Memory windows of both types: binding, bounds, rights, invalidation by either side. */
#include "ends.h"
#include "keys.h"

static const struct side_opt bindable = {.mr_access = ACCESS_ALL | IBV_ACCESS_MW_BIND, .qps = 2};

static void write_at(struct pair *p, int q, uint32_t rkey, uint64_t off, uint32_t len,
                     enum ibv_wc_status status)
{
    e_send(p->a, &(struct post){.q = q,
                                .id = 3,
                                .op = IBV_WR_RDMA_WRITE,
                                .off = 21,
                                .len = len,
                                .roff = (int64_t)off,
                                .rkey = rkey});
    e_expect(p->a, SEND_CQ, 3, status);
}

static void refused(struct pair *p, int q, uint32_t rkey, uint64_t off, uint32_t len)
{
    write_at(p, q, rkey, off, len, IBV_WC_REM_ACCESS_ERR);
    e_wait_state(p->b, q, IBV_QPS_ERR);
}

/* A window of either type over [off, off + len) of the main region; gives its key. */
static uint32_t bound(struct pair *p, enum ibv_mw_type type, uint64_t off, uint64_t len, int access)
{
    uint32_t key = e_mw(p->b, 0, type);

    return e_bind(p->b, (struct bind){.id = 7,
                                      .mw = 0,
                                      .mr = MAIN_MR,
                                      .off = off,
                                      .len = len,
                                      .access = access,
                                      .rkey = ibv_inc_rkey(key)});
}

static void opens_its_range(enum topology topology, enum ibv_mw_type type)
{
    struct pair *p = pair_open(topology, &bindable);
    uint32_t key = bound(p, type, p->rx + 1000, 100, ACCESS_REMOTE);

    T_ASSERT(key != p->b->info.rkey);
    write_at(p, 0, key, p->rx + 1000, 100, IBV_WC_SUCCESS);
    e_same(p->b, p->rx + 1000, 100, p->a, 21);
    e_send(p->a, &(struct post){.id = 4,
                                .op = IBV_WR_RDMA_READ,
                                .off = p->rx,
                                .len = 50,
                                .roff = (int64_t)p->rx + 1050,
                                .rkey = key});
    e_done(p->a, 4, IBV_WC_RDMA_READ);
    e_same(p->a, p->rx, 50, p->a, 21 + 50);
    e_untouched_but(p->b, p->rx + 1000, 100);
    pair_close(p);
}

T_CONTRACT(mw, type_1_opens_its_range)
{
    /* A bound window can be written and read by its own key. */
    opens_its_range(topology, IBV_MW_TYPE_1);
}

T_CONTRACT(mw, type_2_opens_its_range)
{
    /* The same for a window of type 2, bound by a work request with a key of one's choice. */
    opens_its_range(topology, IBV_MW_TYPE_2);
}

static void bounds(enum topology topology, enum ibv_mw_type type, int64_t shift)
{
    struct pair *p = pair_open(topology, &bindable);
    uint32_t key = bound(p, type, p->rx + 1000, 100, ACCESS_REMOTE);

    refused(p, 0, key, p->rx + 1000 + (uint64_t)shift, 100);
    e_untouched_but(p->b, 0, 0);
    pair_close_loose(p);
}

T_CONTRACT(mw, one_byte_outside)
{
    /* A byte before and a byte behind the window, though in the region, are refused. */
    bounds(topology, IBV_MW_TYPE_1, -1);
    bounds(topology, IBV_MW_TYPE_1, 1);
    bounds(topology, IBV_MW_TYPE_2, -1);
    bounds(topology, IBV_MW_TYPE_2, 1);
}

T_CONTRACT(mw, rights_of_the_window)
{
    /* A window for reading only can't be written, though its region can. */
    for (int type = IBV_MW_TYPE_1; type <= IBV_MW_TYPE_2; type++) {
        struct pair *p = pair_open(topology, &bindable);
        uint32_t key = bound(p, (enum ibv_mw_type)type, p->rx, 100, IBV_ACCESS_REMOTE_READ);

        refused(p, 0, key, p->rx, 10);
        e_untouched_but(p->b, 0, 0);
        pair_close_loose(p);
    }
}

T_CONTRACT(mw, not_bound_yet)
{
    /* The key of a window that was never bound opens nothing. */
    for (int type = IBV_MW_TYPE_1; type <= IBV_MW_TYPE_2; type++) {
        struct pair *p = pair_open(topology, &bindable);

        refused(p, 0, e_mw(p->b, 0, (enum ibv_mw_type)type), p->rx, 10);
        e_untouched_but(p->b, 0, 0);
        pair_close_loose(p);
    }
}

T_CONTRACT(mw, zero_based)
{
    /* IBV_ACCESS_ZERO_BASED: others address a window from its start (ibv_bind_mw(3)), up to its
     * end. */
    struct pair *p = pair_open(topology, &bindable);
    struct bind bind = {.id = 7,
                        .mr = MAIN_MR,
                        .off = p->rx + 1000,
                        .len = 100,
                        .access = ACCESS_REMOTE | IBV_ACCESS_ZERO_BASED};

    bind.rkey = ibv_inc_rkey(e_mw(p->b, 0, IBV_MW_TYPE_2));
    e_try_bind(p->b, &bind);
    if (bind.rc != 0 || e_wait(p->b, SEND_CQ).status != IBV_WC_SUCCESS) {
        /* A device without such windows refuses the bind, and opens nothing. */
        e_untouched_but(p->b, 0, 0);
        pair_close_loose(p);
        return;
    }
    e_send(p->a, &(struct post){.id = 3,
                                .op = IBV_WR_RDMA_WRITE,
                                .off = 21,
                                .len = 20,
                                .raddr = 80,
                                .rkey = bind.rkey});
    e_expect(p->a, SEND_CQ, 3, IBV_WC_SUCCESS);
    e_same(p->b, p->rx + 1080, 20, p->a, 21);
    e_send(p->a, &(struct post){.id = 4,
                                .op = IBV_WR_RDMA_WRITE,
                                .off = 21,
                                .len = 20,
                                .raddr = 81,
                                .rkey = bind.rkey});
    e_expect(p->a, SEND_CQ, 4, IBV_WC_REM_ACCESS_ERR);
    e_untouched_but(p->b, p->rx + 1080, 20);
    pair_close_loose(p);
}

T_CONTRACT(mw, atomics_through_a_window)
{
    /* A window with the right for atomics takes them. */
    struct pair *p = pair_open(topology, &bindable);
    uint32_t key = bound(p, IBV_MW_TYPE_1, p->rx, 64, IBV_ACCESS_REMOTE_ATOMIC);
    uint64_t word = 41;

    e_poke(p->b, p->rx, &word, sizeof(word));
    e_send(p->a, &(struct post){.id = 4,
                                .op = IBV_WR_ATOMIC_FETCH_AND_ADD,
                                .off = p->rx,
                                .len = 8,
                                .roff = (int64_t)p->rx,
                                .rkey = key,
                                .compare_add = 1});
    e_done(p->a, 4, IBV_WC_FETCH_ADD);
    e_peek(p->b, p->rx, &word, sizeof(word));
    T_EQ(word, 42);
    pair_close(p);
}

T_CONTRACT(mw, rebinding_type_1)
{
    /* Bound anew, the window has a new key and a new place; the old key is closed. */
    struct pair *p = pair_open(topology, &bindable);
    uint32_t old = bound(p, IBV_MW_TYPE_1, p->rx, 100, ACCESS_REMOTE);
    uint32_t new = e_bind(p->b, (struct bind){.id = 8,
                                              .mw = 0,
                                              .mr = MAIN_MR,
                                              .off = p->rx + 4096,
                                              .len = 100,
                                              .access = ACCESS_REMOTE});

    T_ASSERT(old != new);
    write_at(p, 0, new, p->rx + 4096, 100, IBV_WC_SUCCESS);
    refused(p, 0, old, p->rx, 10);
    e_untouched_but(p->b, p->rx + 4096, 100);
    pair_close_loose(p);
}

T_CONTRACT(mw, binding_to_nothing)
{
    /* A window of type 1 bound with length 0 is closed (ibv_alloc_mw(3)), and can be bound again.
     */
    struct pair *p = pair_open(topology, &bindable);
    uint32_t old = bound(p, IBV_MW_TYPE_1, p->rx, 100, ACCESS_REMOTE), again;

    e_bind(p->b, (struct bind){.id = 8, .mw = 0, .mr = MAIN_MR, .off = p->rx, .len = 0});
    again = e_bind(p->b, (struct bind){.id = 9,
                                       .mw = 0,
                                       .mr = MAIN_MR,
                                       .off = p->rx + 200,
                                       .len = 100,
                                       .access = ACCESS_REMOTE});
    write_at(p, 0, again, p->rx + 200, 100, IBV_WC_SUCCESS);
    refused(p, 0, old, p->rx, 10);
    e_untouched_but(p->b, p->rx + 200, 100);
    pair_close_loose(p);
}

T_CONTRACT(mw, rebinding_type_2_needs_invalidation)
{
    /* A bound window of type 2 can't be bound again before it is invalidated (IBTA 10.6.7.2). */
    struct pair *p = pair_open(topology, &bindable);
    uint32_t key = bound(p, IBV_MW_TYPE_2, p->rx, 100, ACCESS_REMOTE);
    struct bind again = {.id = 8,
                         .mw = 0,
                         .mr = MAIN_MR,
                         .off = p->rx,
                         .len = 50,
                         .access = ACCESS_REMOTE,
                         .rkey = ibv_inc_rkey(key)};

    e_try_bind(p->b, &again);
    if (again.rc == 0) {
        e_expect(p->b, SEND_CQ, 8, IBV_WC_MW_BIND_ERR);
    } else {
        T_EQ(again.rc, EINVAL);
    }
    pair_close_loose(p);
}

/* --- invalidation
 * ------------------------------------------------------------------------------------- */

T_CONTRACT(mw, local_invalidate)
{
    /* Invalidated by its owner, the window is closed, and may be bound again with another key. */
    struct pair *p = pair_open(topology, &bindable);
    uint32_t key = bound(p, IBV_MW_TYPE_2, p->rx, 100, ACCESS_REMOTE), again;

    write_at(p, 0, key, p->rx, 10, IBV_WC_SUCCESS);
    e_send(p->b, &(struct post){.id = 5, .op = IBV_WR_LOCAL_INV, .inv_rkey = key});
    e_done(p->b, 5, IBV_WC_LOCAL_INV);
    again = e_bind(p->b, (struct bind){.id = 9,
                                       .mw = 0,
                                       .mr = MAIN_MR,
                                       .off = p->rx + 200,
                                       .len = 100,
                                       .access = ACCESS_REMOTE,
                                       .rkey = ibv_inc_rkey(key)});
    write_at(p, 0, again, p->rx + 200, 10, IBV_WC_SUCCESS);
    refused(p, 0, key, p->rx + 50, 10);
    e_untouched(p->b, p->rx + 10, 190);
    pair_close_loose(p);
}

T_CONTRACT(mw, send_with_invalidate)
{
    /* The sender closes the receiver's window: the completion names the key, which is then dead. */
    struct pair *p = pair_open(topology, &bindable);
    uint32_t key = bound(p, IBV_MW_TYPE_2, p->rx, 100, ACCESS_REMOTE);
    struct ibv_wc wc;

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx + 4096, .len = 64});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND_WITH_INV, .len = 64, .inv_rkey = key});
    e_done(p->a, 2, IBV_WC_SEND);
    wc = e_got(p->b, 1, IBV_WC_RECV, 64);
    T_ASSERT((wc.wc_flags & IBV_WC_WITH_INV) && !(wc.wc_flags & IBV_WC_WITH_IMM));
    T_EQ(wc.invalidated_rkey, key);
    e_same(p->b, p->rx + 4096, 64, p->a, 0);
    refused(p, 0, key, p->rx, 10);
    e_untouched(p->b, p->rx, 100);
    pair_close_loose(p);
}

T_CONTRACT(mw, invalidating_what_is_not_there)
{
    /*
     * A send with a key that names nothing fails: the receiver sees an error completion or a flush,
     * the sender a remote error, and both queue pairs end in error.
     */
    struct pair *p = pair_open(topology, &bindable);

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx + 4096, .len = 64});
    e_send(p->a,
           &(struct post){.id = 2, .op = IBV_WR_SEND_WITH_INV, .len = 64, .inv_rkey = 0x00dead00});
    T_IN(e_wait(p->a, SEND_CQ).status, IBV_WC_REM_ACCESS_ERR, IBV_WC_REM_INV_REQ_ERR,
         IBV_WC_REM_OP_ERR);
    e_wait_state(p->a, 0, IBV_QPS_ERR);
    e_wait_state(p->b, 0, IBV_QPS_ERR);
    T_ASSERT(e_wait(p->b, RECV_CQ).status != IBV_WC_SUCCESS);
    pair_close_loose(p);
}

T_CONTRACT(mw, local_invalidate_of_nothing)
{
    /* Invalidating a key that names nothing fails at home, and the queue pair goes to error. */
    struct pair *p = pair_open(topology, &bindable);
    int rc =
        e_try_send(p->b, &(struct post){.id = 5, .op = IBV_WR_LOCAL_INV, .inv_rkey = 0x00dead00});

    if (rc == 0) {
        struct ibv_wc wc = e_wait(p->b, SEND_CQ);

        T_IN(wc.status, IBV_WC_MW_BIND_ERR, IBV_WC_LOC_QP_OP_ERR, IBV_WC_LOC_PROT_ERR,
             IBV_WC_LOC_ACCESS_ERR);
        e_wait_state(p->b, 0, IBV_QPS_ERR);
    } else {
        T_EQ(rc, EINVAL);
    }
    pair_close_loose(p);
}

/* --- who may use and who may bind
 * ---------------------------------------------------------------------- */

T_CONTRACT(mw, type_1_is_for_all_queue_pairs_of_the_domain)
{
    /* A window of type 1 belongs to the protection domain: the second queue pair may use it. */
    struct pair *p = pair_open(topology, &bindable);
    uint32_t key = bound(p, IBV_MW_TYPE_1, p->rx, 100, ACCESS_REMOTE);

    write_at(p, 1, key, p->rx, 10, IBV_WC_SUCCESS);
    pair_close(p);
}

T_CONTRACT(mw, type_2_is_for_its_queue_pair)
{
    /* A window of type 2 belongs to the queue pair it was bound on: another one may not use it. */
    struct pair *p = pair_open(topology, &bindable);
    uint32_t key = bound(p, IBV_MW_TYPE_2, p->rx, 100, ACCESS_REMOTE);

    refused(p, 1, key, p->rx, 10);
    e_untouched_but(p->b, 0, 0);
    write_at(p, 0, key, p->rx, 10, IBV_WC_SUCCESS);
    pair_close_loose(p);
}

static void bind_fails(enum topology topology, const struct side_opt *opt, struct bind bind,
                       enum ibv_mw_type type)
{
    struct pair *p = pair_open(topology, opt);
    uint32_t key = e_mw(p->b, 0, type);

    bind.id = 8;
    bind.rkey = ibv_inc_rkey(key);
    e_try_bind(p->b, &bind);
    if (bind.rc == 0) {
        /* IBTA 11.6.2: memory window bind error. */
        e_expect(p->b, SEND_CQ, 8, IBV_WC_MW_BIND_ERR);
        e_wait_state(p->b, 0, IBV_QPS_ERR);
    } else {
        T_IN(bind.rc, EINVAL, EPERM, EACCES);
    }
    e_untouched_but(p->b, 0, 0);
    pair_close_loose(p);
}

T_CONTRACT(mw, bind_needs_the_right)
{
    /* Binding to a region without IBV_ACCESS_MW_BIND fails, for both types. */
    struct bind bind = {.mr = MAIN_MR, .len = 100, .access = ACCESS_REMOTE};

    bind_fails(topology, NULL, bind, IBV_MW_TYPE_1);
    bind_fails(topology, NULL, bind, IBV_MW_TYPE_2);
}

T_CONTRACT(mw, bind_beyond_the_region)
{
    /* A window must lie within its region. */
    struct bind bind = {.mr = MAIN_MR, .off = 65536 - 99, .len = 100, .access = ACCESS_REMOTE};

    bind_fails(topology, &bindable, bind, IBV_MW_TYPE_1);
    bind_fails(topology, &bindable, bind, IBV_MW_TYPE_2);
}

T_CONTRACT(mw, bind_for_writing_needs_local_write)
{
    /* Remote write or atomic on a window needs local write on the region (ibv_bind_mw(3)). */
    struct side_opt opt = {.mr_access = IBV_ACCESS_MW_BIND | IBV_ACCESS_REMOTE_READ};
    struct bind bind = {.mr = MAIN_MR, .len = 100, .access = IBV_ACCESS_REMOTE_WRITE};

    bind_fails(topology, &opt, bind, IBV_MW_TYPE_1);
    bind_fails(topology, &opt, bind, IBV_MW_TYPE_2);
}

T_CONTRACT(mw, bound_region_is_busy)
{
    /* A region with a window bound to it can't be deregistered (ibv_dereg_mr(3)); freed, it can. */
    struct pair *p = pair_open(topology, &bindable);
    struct reg reg = {
        .slot = 0, .off = p->rx, .len = 4096, .access = ACCESS_ALL | IBV_ACCESS_MW_BIND};

    e_reg(p->b, &reg);
    e_mw(p->b, 0, IBV_MW_TYPE_1);
    e_bind(p->b, (struct bind){
                     .id = 7, .mw = 0, .mr = 0, .off = p->rx, .len = 100, .access = ACCESS_REMOTE});
    T_IN(e_dereg(p->b, 0), EBUSY, EINVAL);
    T_EQ(e_mw_dealloc(p->b, 0), 0);
    T_EQ(e_dereg(p->b, 0), 0);
    pair_close(p);
}

T_CONTRACT(mw, freed_window_is_closed)
{
    /* The key of a window that was freed while bound opens nothing. */
    struct pair *p = pair_open(topology, &bindable);
    uint32_t key = bound(p, IBV_MW_TYPE_1, p->rx, 100, ACCESS_REMOTE);

    T_EQ(e_mw_dealloc(p->b, 0), 0);
    refused(p, 0, key, p->rx, 10);
    e_untouched_but(p->b, 0, 0);
    pair_close_loose(p);
}

static void wrong_bind_call(struct side *s, void *arg)
{
    struct ibv_mw_bind bind = {.bind_info = {.mr = s->mr, .addr = s->info.addr, .length = 64}};

    (void)arg;
    T_EQ(ibv_bind_mw(s->qp[0], s->mw[0], &bind), EINVAL);
}

T_CONTRACT(mw, bind_call_is_for_type_1)
{
    /* ibv_bind_mw refuses a window of type 2. */
    struct pair *p = pair_open(topology, &bindable);
    int nothing = 0;

    e_mw(p->b, 0, IBV_MW_TYPE_2);
    e_run(p->b, wrong_bind_call, &nothing, sizeof(nothing));
    pair_close(p);
}

T_TEST(mw_types, unknown)
{
    /* A type that is neither 1 nor 2 is refused. */
    struct side *s = side_open(NULL, NULL);

    errno = 0;
    T_ASSERT(ibv_alloc_mw(s->pd, (enum ibv_mw_type)3) == NULL);
    T_IN(errno, EINVAL, EOPNOTSUPP);
    side_close(s, true);
}
