/* SPDX-License-Identifier: MIT */
/*
 * How the program's function tables are found and filled: contexts and extended completion queues.
 * Extended queue pairs are in qpex_test.c.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fastpath_stubs.h"

static void created(uint64_t user_handle)
{
    stub_cq.user_handle = user_handle;
    core_lock();
    fastpath_cq_created(&stub_cq);
    core_unlock();
}

/* Two pages of which the second can't be touched; returns the boundary. */
static char *cliff(void)
{
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    T_ASSERT(pages != MAP_FAILED);
    T_EQ(mprotect(pages + 4096, 4096, PROT_NONE), 0);
    return pages + 4096;
}

T_TEST(fastpath, opened)
{
    /* Shows that a context opened through us gets our functions, and only where they belong. */
    stub_reset();
    fastpath_context_opened(&stub_verbs.context);
    struct ibv_context_ops *ops = &stub_verbs.context.ops;

    T_ASSERT(stub_context.ibv == &stub_verbs.context);
    T_ASSERT(stub_verbs.create_cq_ex != stock_create_cq_ex);
    T_ASSERT(stub_verbs.create_qp_ex != stock_create_qp_ex);
    T_ASSERT(stub_verbs.query_rt_values);
    T_ASSERT((uintptr_t)ops->alloc_mw == (uintptr_t)stock);
    T_ASSERT((uintptr_t)ops->dealloc_mw == (uintptr_t)stock);
    T_ASSERT(!stub_verbs.modify_cq && !stub_verbs.create_wq);
    T_EQ(core_locks, 0);
}

T_TEST(fastpath, calls_reach_the_core)
{
    /* Shows handle to object to call, with the return values the verbs promise. */
    struct ibv_wc wc;
    struct ibv_cq cq = {.context = &stub_verbs.context, .handle = STUB_HANDLE};
    struct ibv_qp qp = {.context = &stub_verbs.context, .handle = STUB_HANDLE};
    struct ibv_srq srq = {.context = &stub_verbs.context, .handle = STUB_HANDLE};
    struct ibv_mw mw = {.context = &stub_verbs.context, .type = IBV_MW_TYPE_1};
    struct ibv_mw_bind bind = {.wr_id = 1};
    struct ibv_send_wr send = {.wr_id = 1}, *bad_send = NULL;
    struct ibv_recv_wr recv = {.wr_id = 1}, *bad_recv = NULL;

    stub_reset();
    fastpath_context_opened(&stub_verbs.context);
    struct ibv_context_ops *ops = &stub_verbs.context.ops;
    T_EQ(ops->poll_cq(&cq, 3, &wc), 3);
    T_EQ(wc.wr_id, 3);
    T_EQ(ops->req_notify_cq(&cq, 0), 0);
    T_EQ(stub_cq.arms, 1);
    T_EQ(ops->req_notify_cq(&cq, 2), 0);
    T_EQ(stub_cq.arms, 101);
    T_EQ(ops->req_notify_cq(&cq, 1), ENOMEM);
    T_EQ(ops->post_send(&qp, &send, &bad_send), 0);
    T_ASSERT(stub_qp.wr == &send && !bad_send);
    stub_qp.result = EINVAL;
    T_EQ(ops->post_send(&qp, &send, &bad_send), EINVAL);
    T_EQ(ops->post_recv(&qp, &recv, &bad_recv), 0);
    T_EQ(ops->post_srq_recv(&srq, &recv, &bad_recv), 0);
    T_EQ(ops->bind_mw(&qp, &mw, &bind), 0);
    T_EQ(stub_qp.recvs + stub_srq.recvs + stub_qp.binds, 3);
}

T_TEST(fastpath, gone_objects)
{
    /* Shows that a handle without an object (after a fork) is an error, not a crash. */
    struct ibv_wc wc;
    struct ibv_cq cq = {.handle = 9};
    struct ibv_qp qp = {.handle = 9};
    struct ibv_srq srq = {.handle = 9};
    struct ibv_send_wr send = {.wr_id = 1}, *bad_send = NULL;
    struct ibv_recv_wr recv = {.wr_id = 1}, *bad_recv = NULL;

    stub_reset();
    fastpath_context_opened(&stub_verbs.context);
    struct ibv_context_ops *ops = &stub_verbs.context.ops;
    T_EQ(ops->poll_cq(&cq, 1, &wc), -EIO);
    T_EQ(ops->req_notify_cq(&cq, 0), EIO);
    T_EQ(ops->post_send(&qp, &send, &bad_send), EIO);
    T_ASSERT(bad_send == &send);
    T_EQ(ops->post_recv(&qp, &recv, &bad_recv), EIO);
    T_ASSERT(bad_recv == &recv);
    bad_recv = NULL;
    T_EQ(ops->post_srq_recv(&srq, &recv, &bad_recv), EIO);
    T_ASSERT(bad_recv == &recv);
    T_EQ(ops->bind_mw(&qp, NULL, NULL), EIO);
}

T_TEST(fastpath, found_by_any_object)
{
    /* Shows that a CQ, an SRQ, a queue pair or its CQ is enough to find the context. */
    struct ibv_context *ibv = &stub_verbs.context;
    struct ibv_cq cq = {.context = ibv};
    struct ibv_qp qp = {.context = ibv};
    struct ibv_srq srq = {.context = ibv};

    stub_reset();
    created((uintptr_t)&cq);
    T_ASSERT(stub_is_patched());
    stub_reset();
    fastpath_srq_created(&stub_srq, 0);
    T_ASSERT(!stub_is_patched());
    core_lock();
    fastpath_srq_created(&stub_srq, (uintptr_t)&srq);
    T_ASSERT(stub_is_patched());
    stub_reset();
    stub_qp.user_handle = (uintptr_t)&qp;
    fastpath_qp_created(&stub_qp);
    T_ASSERT(stub_is_patched());
    stub_reset();
    stub_cq.user_handle = (uintptr_t)&cq;
    fastpath_qp_created(&stub_qp);
    T_ASSERT(stub_is_patched());
    stub_reset();
    stub_qp.user_handle = (uintptr_t)&qp;
    fastpath_qp_modified(&stub_qp, IBV_QPS_RTR);
    T_ASSERT(stub_is_patched());
    core_unlock();
}

T_TEST(fastpath, provider_sets_the_pointer_late)
{
    /* Shows that garbage where the context will be is left alone, and the next command tries. */
    char *edge = cliff();
    char zeroes[1024] = {0};
    struct ibv_cq cq = {0};
    uint64_t garbage[] = {0,
                          1,
                          0xdeadbeefdeadbee8,
                          (uintptr_t)edge,
                          (uintptr_t)edge - 8,
                          (uintptr_t)&stub_verbs.context + 4,
                          (uintptr_t)&stub_verbs,
                          (uintptr_t)zeroes + 512,
                          UINTPTR_MAX,
                          UINTPTR_MAX - 7};

    stub_reset();
    created(0);
    created((uintptr_t)edge);
    created((uintptr_t)edge - 4);
    for (size_t i = 0; i < sizeof(garbage) / sizeof(garbage[0]); i++) {
        memcpy(&cq.context, &garbage[i], sizeof(garbage[i]));
        created((uintptr_t)&cq);
        T_CHECK(!stub_is_patched() && !stub_context.ibv, "0x%llx", (long long)garbage[i]);
    }
    cq.context = &stub_verbs.context;
    core_lock();
    fastpath_qp_created(&stub_qp);
    core_unlock();
    T_ASSERT(stub_is_patched());
}

#define REFUSED(field, value)                                                                      \
    do {                                                                                           \
        stub_reset();                                                                              \
        stub_verbs.field = (value);                                                                \
        created((uintptr_t)&cq);                                                                   \
        T_CHECK(!stub_context.ibv && stub_verbs.create_cq_ex == stock_create_cq_ex,                \
                #field " = " #value);                                                              \
    } while (0)

T_TEST(fastpath, everything_must_fit)
{
    /* Shows that one wrong detail is enough to leave a context alone. */
    struct ibv_cq cq = {.context = &stub_verbs.context};

    REFUSED(sz, 8);
    REFUSED(sz, 1 << 20);
    REFUSED(context.abi_compat, NULL);
    REFUSED(context.cmd_fd, STUB_CMD_FD + 5);
    REFUSED(context.cmd_fd, -1);
    REFUSED(context.async_fd, STUB_CMD_FD);
    REFUSED(context.ops.poll_cq, NULL);
    REFUSED(context.ops.post_send, (void *)&cq);
    stub_reset();
    struct context other = {.async_fd = STUB_ASYNC_FD};
    stub_cq.context = &other;
    created((uintptr_t)&cq);
    T_ASSERT(!stub_is_patched() && !other.ibv);
}

T_TEST(fastpath, old_library_has_fewer_slots)
{
    /* Shows that slots which the library did not allocate are not touched. */
    size_t end = sizeof(struct verbs_context);

    stub_reset();
    stub_verbs.sz = end - offsetof(struct verbs_context, create_qp_ex);
    fastpath_context_opened(&stub_verbs.context);
    T_ASSERT(stub_is_patched());
    T_ASSERT(stub_verbs.create_qp_ex != stock_create_qp_ex);
    T_ASSERT(stub_verbs.create_cq_ex == stock_create_cq_ex);
    T_ASSERT(!stub_verbs.query_rt_values);
}

T_TEST(fastpath, next_life_of_a_context)
{
    /* Shows that a context that is freed and made again at the same address is found anew. */
    stub_reset();
    fastpath_context_opened(&stub_verbs.context);
    stub_reset();
    T_ASSERT(!stub_is_patched());
    fastpath_context_opened(&stub_verbs.context);
    T_ASSERT(stub_is_patched());
    core_lock();
    fastpath_context_closed(&stub_context);
    fastpath_context_closed(&stub_context);
    core_unlock();
    T_ASSERT(!stub_verbs.create_cq_ex(&stub_verbs.context, &(struct ibv_cq_init_attr_ex){0}));
    T_EQ(errno, EIO);
}

T_TEST(fastpath, clock)
{
    /* Shows that the clock is the wall clock in nanoseconds, and that nothing else is known. */
    struct ibv_values_ex values = {.comp_mask = IBV_VALUES_MASK_RAW_CLOCK};
    struct timespec now;

    stub_reset();
    fastpath_context_opened(&stub_verbs.context);
    clock_gettime(CLOCK_REALTIME, &now);
    T_EQ(stub_verbs.query_rt_values(&stub_verbs.context, &values), 0);
    T_EQ(values.raw_clock.tv_sec, 0);
    T_ASSERT(values.raw_clock.tv_nsec >= now.tv_sec * 1000000000L + now.tv_nsec);
    values.comp_mask = IBV_VALUES_MASK_RESERVED;
    T_EQ(stub_verbs.query_rt_values(&stub_verbs.context, &values), EINVAL);
}

T_TEST(fastpath, says_so_when_out_of_reach)
{
    /* Shows one line on stderr, once, when a queue pair gets ready and no table was ever found. */
    char said[1024];
    int ends[2], saved = dup(STDERR_FILENO);

    stub_reset();
    T_EQ(pipe(ends), 0);
    fflush(stderr);
    T_EQ(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
    core_lock();
    fastpath_qp_created(&stub_qp);
    fastpath_qp_modified(&stub_qp, IBV_QPS_INIT);
    fastpath_qp_modified(&stub_qp, IBV_QPS_RTR);
    fastpath_qp_modified(&stub_qp, IBV_QPS_RTR);
    core_unlock();
    fflush(stderr);
    dup2(saved, STDERR_FILENO);
    close(ends[1]);
    ssize_t len = read(ends[0], said, sizeof(said));
    T_ASSERT(len > 0 && memcmp(said, "viaduct: ", 9) == 0);
    T_ASSERT(memchr(said, '\n', (size_t)len) == said + len - 1, "%.*s", (int)len, said);
    close(ends[0]);
    close(saved);
}

/* ---- extended completion queues ---- */

static struct ibv_cq_ex *make_cq_ex(uint64_t flags)
{
    struct ibv_cq_init_attr_ex attr = {.cqe = 4, .wc_flags = flags};

    fastpath_context_opened(&stub_verbs.context);
    return ibv_create_cq_ex(&stub_verbs.context, &attr);
}

T_TEST(cqex, creation)
{
    /* Shows that timestamps are ours, and that what nobody delivers is refused by the provider. */
    stub_reset();
    T_ASSERT(make_cq_ex(IBV_WC_EX_WITH_BYTE_LEN) == &stock_cq_ex);
    T_EQ(stub_cq.stamped, 0);
    T_ASSERT(!stock_cq_ex.read_completion_ts && !stock_cq_ex.read_completion_wallclock_ns);
    stub_reset();
    T_ASSERT(make_cq_ex(IBV_WC_EX_WITH_IMM | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK));
    T_EQ(stock_wc_flags, IBV_WC_EX_WITH_IMM);
    T_EQ(stub_cq.stamped, 1);
    T_ASSERT(!stock_cq_ex.read_completion_ts && stock_cq_ex.read_completion_wallclock_ns);
    stub_reset();
    T_ASSERT(make_cq_ex(IBV_WC_EX_WITH_COMPLETION_TIMESTAMP));
    T_ASSERT(stock_cq_ex.read_completion_ts && !stock_cq_ex.read_completion_wallclock_ns);
    stub_reset();
    T_ASSERT(!make_cq_ex(IBV_WC_EX_WITH_FLOW_TAG | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP));
    T_EQ(errno, EOPNOTSUPP);
}

static void fill_completions(void)
{
    for (int i = 0; i < STUB_WCS; i++) {
        stub_cq.completions[i] = (struct completion){
            .wc = {.wr_id = 100u + (unsigned)i,
                   .status = i ? IBV_WC_SUCCESS : IBV_WC_RNR_RETRY_EXC_ERR,
                   .opcode = i ? IBV_WC_RECV : IBV_WC_SEND,
                   .vendor_err = 1,
                   .byte_len = 2,
                   .imm_data = 3,
                   .qp_num = 4,
                   .src_qp = 5,
                   .wc_flags = IBV_WC_WITH_IMM,
                   .slid = 6,
                   .sl = 7,
                   .dlid_path_bits = 8},
            .timestamp_ns = 1000u + (unsigned)i,
        };
    }
}

T_TEST(cqex, polling)
{
    /* Shows one round: each field is right, and the CQ is not locked while the program has it. */
    struct ibv_poll_cq_attr attr = {0};

    stub_reset();
    struct ibv_cq_ex *ex = make_cq_ex(CQEX_OWN_FLAGS);
    T_EQ(ibv_start_poll(ex, &attr), ENOENT);
    T_EQ(stub_cq.locked, 0);
    fill_completions();
    stub_cq.ready = 2;
    T_EQ(ibv_start_poll(ex, &attr), 0);
    T_EQ(stub_cq.locked, 0);
    T_EQ(ex->wr_id, 102);
    T_EQ(ibv_wc_read_completion_ts(ex), 1002);
    T_EQ(ibv_next_poll(ex), 0);
    T_EQ(ex->wr_id, 103);
    T_EQ(ex->status, IBV_WC_SUCCESS);
    T_EQ(ibv_wc_read_opcode(ex), IBV_WC_RECV);
    T_EQ(ibv_wc_read_vendor_err(ex), 1);
    T_EQ(ibv_wc_read_byte_len(ex), 2);
    T_EQ(ibv_wc_read_imm_data(ex), 3);
    T_EQ(ibv_wc_read_qp_num(ex), 4);
    T_EQ(ibv_wc_read_src_qp(ex), 5);
    T_EQ(ibv_wc_read_wc_flags(ex), IBV_WC_WITH_IMM);
    T_EQ(ibv_wc_read_slid(ex), 6);
    T_EQ(ibv_wc_read_sl(ex), 7);
    T_EQ(ibv_wc_read_dlid_path_bits(ex), 8);
    T_EQ(ibv_wc_read_completion_wallclock_ns(ex), 1003);
    T_EQ(ibv_next_poll(ex), ENOENT);
    ibv_end_poll(ex);
    T_EQ(ibv_start_poll(ex, &attr), ENOENT);
    T_EQ(stub_cq.locked, 0);
}

/* Polls in sessions of up to three until `*arg` completions were seen or the CQ is empty. */
static void poll_some(void **state, void *arg)
{
    struct ibv_poll_cq_attr attr = {0};
    int *seen = arg;

    (void)state;
    while (ibv_start_poll(&stock_cq_ex, &attr) == 0) {
        do {
            T_EQ(stock_cq_ex.wr_id, ibv_wc_read_completion_ts(&stock_cq_ex) - 900);
            ++*seen;
        } while (*seen % 3 && ibv_next_poll(&stock_cq_ex) == 0);
        ibv_end_poll(&stock_cq_ex);
    }
}

T_TEST(cqex, two_threads)
{
    /* Shows that sessions of two threads take turns: each completion goes to one of them, whole. */
    struct t_peer *peer = t_peer_start(T_THREAD);
    int mine = 0, theirs = 0;

    stub_reset();
    make_cq_ex(CQEX_OWN_FLAGS);
    fill_completions();
    stub_cq.ready = 10000;
    t_peer_begin(peer, poll_some, &theirs, sizeof(theirs));
    poll_some(NULL, &mine);
    t_peer_finish(peer);
    T_EQ(mine + theirs, 10000);
    t_peer_stop(peer);
}

T_TEST(cqex, single_threaded)
{
    /* Shows that one thread alone needs no session: a forgotten end does not block the next start.
     */
    struct ibv_poll_cq_attr attr = {0};
    struct ibv_cq_init_attr_ex init = {.cqe = 4,
                                       .comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS,
                                       .flags = IBV_CREATE_CQ_ATTR_SINGLE_THREADED};

    stub_reset();
    fastpath_context_opened(&stub_verbs.context);
    struct ibv_cq_ex *ex = ibv_create_cq_ex(&stub_verbs.context, &init);
    fill_completions();
    stub_cq.ready = 2;
    T_EQ(ibv_start_poll(ex, &attr), 0);
    T_EQ(ibv_start_poll(ex, &attr), 0);
    ibv_end_poll(ex);
}

T_TEST(cqex, errors)
{
    /* Shows a completion with an error, an overrun CQ, an unknown option, a CQ that is gone. */
    struct ibv_poll_cq_attr attr = {0}, odd = {.comp_mask = 1};

    stub_reset();
    struct ibv_cq_ex *ex = make_cq_ex(0);
    fill_completions();
    stub_cq.ready = 4;
    T_EQ(ibv_start_poll(ex, &odd), EINVAL);
    T_EQ(ibv_start_poll(ex, &attr), 0);
    T_EQ(ex->status, IBV_WC_RNR_RETRY_EXC_ERR);
    ibv_end_poll(ex);
    stub_cq.ready = -EIO;
    T_EQ(ibv_start_poll(ex, &attr), EIO);
    T_EQ(stub_cq.locked, 0);
    ex->handle = 9;
    T_EQ(ibv_start_poll(ex, &attr), EIO);
}

T_TEST(cqex, found_when_used)
{
    /* Shows that an extended CQ made before its context was known is patched with the first QP. */
    struct ibv_poll_cq_attr attr = {0};

    stub_reset();
    created((uintptr_t)&stock_cq_ex);
    T_ASSERT((uintptr_t)stock_cq_ex.start_poll == (uintptr_t)stock);
    core_lock();
    fastpath_qp_created(&stub_qp);
    core_unlock();
    T_EQ(ibv_start_poll(&stock_cq_ex, &attr), ENOENT);
    T_ASSERT(!stock_cq_ex.read_completion_ts);
}

T_TEST(cqex, plain_cq_is_left_alone)
{
    /* Shows that what lies behind a plain CQ, or can't be read, is never taken for functions. */
    char *edge = cliff();
    struct ibv_cq *plain = (struct ibv_cq *)(void *)(edge - sizeof(struct ibv_cq));
    struct ibv_cq_ex odd;

    stub_reset();
    plain->context = &stub_verbs.context;
    created((uintptr_t)plain);
    core_lock();
    fastpath_qp_created(&stub_qp);
    core_unlock();
    T_ASSERT(stub_is_patched());

    stub_reset();
    odd = stock_cq_ex;
    odd.read_slid = (void *)&odd; /* data among the code */
    created((uintptr_t)&odd);
    core_lock();
    fastpath_qp_created(&stub_qp);
    core_unlock();
    T_ASSERT((uintptr_t)odd.start_poll == (uintptr_t)stock);
}

/* ---- probing ---- */

T_TEST(probe, tables)
{
    /* Shows what passes for a table: code of one object, set where it must be. */
    void *table[4] = {(void *)stock, NULL, (void *)created, (void *)cliff};
    uint64_t addr = (uintptr_t)table;

    T_ASSERT(fastpath_is_table(addr, 4, 0, 1));
    T_ASSERT(fastpath_is_table(addr, 4, 2, 2));
    T_ASSERT(!fastpath_is_table(addr, 4, 0, 2));
    T_ASSERT(!fastpath_is_table(addr + 4, 3, 0, 0));
    T_ASSERT(!fastpath_is_table(addr, 1000, 0, 1));
    table[1] = (void *)table;
    T_ASSERT(!fastpath_is_table(addr, 4, 0, 1));
    table[1] = (void *)getppid; /* code, but of another object */
    T_ASSERT(!fastpath_is_table(addr, 4, 0, 1));
    memset(table, 0, sizeof(table));
    T_ASSERT(!fastpath_is_table(addr, 4, 0, 0));
    T_ASSERT(!fastpath_is_table((uintptr_t)cliff() - 16, 4, 0, 0));
}

T_TEST(probe, reads_without_faulting)
{
    /* Shows that readable bytes come, and the rest is an answer. */
    char *edge = cliff();
    uint64_t value = 0;

    memset(edge - 8, 7, 8);
    T_ASSERT(fastpath_read((uintptr_t)edge - 8, &value, 8));
    T_EQ(value, 0x0707070707070707);
    T_ASSERT(!fastpath_read((uintptr_t)edge - 4, &value, 8));
    T_ASSERT(!fastpath_read((uintptr_t)edge, &value, 8));
    T_ASSERT(!fastpath_read(0, &value, 8));
    T_ASSERT(!fastpath_read(UINTPTR_MAX - 7, &value, 8));
}

static void read_without_the_call(void **state, void *arg)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = 4, .filter = code};
    char *edge = cliff();
    uint64_t value = 0;

    (void)state, (void)arg;
    T_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    T_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    memset(edge - 8, 7, 8);
    T_ASSERT(fastpath_read((uintptr_t)edge - 8, &value, 8));
    T_EQ(value, 0x0707070707070707);
    T_ASSERT(!fastpath_read((uintptr_t)edge, &value, 8));
    T_ASSERT(!fastpath_read(0, &value, 8));
}

T_TEST(probe, reads_where_the_call_is_forbidden)
{
    /* Shows the second way to read, which containers that forbid the first one leave. */
    struct t_peer *peer = t_peer_start(T_PROCESS);

    t_peer_call(peer, read_without_the_call, &(int){0}, sizeof(int));
    t_peer_stop(peer);
}
