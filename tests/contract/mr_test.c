/* SPDX-License-Identifier: MIT */
/* Memory regions: rights, bad addresses, overlapping, addresses of one's own, change, and the end.
 */
#include "ends.h"
#include "keys.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static struct side *plain_side(void)
{
    return side_open(&(struct side_opt){.qps = ZERO}, NULL);
}

/* errno of a registration that must fail. */
static int reg_fails(struct side *s, void *addr, size_t len, int access)
{
    struct ibv_mr *mr;

    errno = 0;
    mr = ibv_reg_mr(s->pd, addr, len, (unsigned)access);
    T_ASSERT(mr == NULL, "registered %zu bytes with access 0x%x", len, (unsigned)access);
    return errno;
}

T_TEST(mr, remembers_what_was_registered)
{
    /* The region names its context, domain, address and length, and has keys. */
    struct side *s = plain_side();
    struct ibv_mr *mr = ibv_reg_mr(s->pd, s->buf + 13, 1000, ACCESS_ALL);

    T_ASSERT(mr != NULL);
    T_ASSERT(mr->context == s->ctx && mr->pd == s->pd);
    T_ASSERT(mr->addr == s->buf + 13 && mr->length == 1000);
    T_ASSERT(mr->lkey != 0 && mr->rkey != 0);
    T_EQ(ibv_dereg_mr(mr), 0);
    side_close(s, true);
}

T_TEST(mr, every_set_of_rights)
{
    /* All sets of rights: those with remote write or atomic need local write, or EINVAL (man page).
     */
    struct side *s = plain_side();

    for (int access = 0; access < 32; access++) {
        bool needs = access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC);
        struct ibv_mr *mr;

        errno = 0;
        mr = ibv_reg_mr(s->pd, s->buf, 4096, (unsigned)access);
        if (needs && !(access & IBV_ACCESS_LOCAL_WRITE)) {
            T_CHECK(mr == NULL && errno == EINVAL, "access 0x%x: errno %d", (unsigned)access,
                    errno);
        } else {
            T_CHECK(mr != NULL, "access 0x%x: %s", (unsigned)access, strerror(errno));
        }
        if (mr) {
            T_CHECK_EQ(ibv_dereg_mr(mr), 0);
        }
    }
    side_close(s, true);
}

T_TEST(mr, unknown_rights)
{
    /* Bits that mean nothing are refused; optional ones (bits 20 to 29) are ignored by design. */
    struct side *s = plain_side();
    struct ibv_mr *mr;

    T_IN(reg_fails(s, s->buf, 4096, IBV_ACCESS_LOCAL_WRITE | 1 << 15), EINVAL, EOPNOTSUPP);
    mr = ibv_reg_mr(s->pd, s->buf, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING);
    T_ASSERT(mr != NULL, "relaxed ordering: %s", strerror(errno));
    T_EQ(ibv_dereg_mr(mr), 0);
    side_close(s, true);
}

T_TEST(mr, bad_addresses)
{
    /* Memory that is not there is EFAULT; a range that wraps round is EINVAL or EFAULT. */
    struct side *s = plain_side();
    char *hole = mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    T_ASSERT(hole != MAP_FAILED);
    T_EQ(munmap(hole + 4096, 4096), 0);
    T_EQ(reg_fails(s, hole + 4096, 4096, IBV_ACCESS_LOCAL_WRITE), EFAULT);
    T_EQ(reg_fails(s, hole, 12288, IBV_ACCESS_LOCAL_WRITE), EFAULT);
    T_EQ(reg_fails(s, hole, 4097, IBV_ACCESS_LOCAL_WRITE), EFAULT);
    T_EQ(reg_fails(s, hole + 8191, 2, IBV_ACCESS_LOCAL_WRITE), EFAULT);
    T_IN(reg_fails(s, hole, SIZE_MAX - 4096, IBV_ACCESS_LOCAL_WRITE), EFAULT, EINVAL, ENOMEM);
    T_IN(reg_fails(s, (void *)(UINTPTR_MAX - 4095), 8192, 0), EFAULT, EINVAL, ENOMEM);
    munmap(hole, 4096);
    munmap(hole + 8192, 4096);
    side_close(s, true);
}

T_TEST(mr, read_only_memory)
{
    /* Read-only memory can't be registered for writing (EFAULT); without local write it may be. */
    struct side *s = plain_side();
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct ibv_mr *mr;

    T_EQ(reg_fails(s, page, 4096, IBV_ACCESS_LOCAL_WRITE), EFAULT);
    mr = ibv_reg_mr(s->pd, page, 4096, IBV_ACCESS_REMOTE_READ);
    if (mr) {
        T_EQ(ibv_dereg_mr(mr), 0);
    } else {
        /* Older kernels ask for write access whatever the rights. */
        T_EQ(errno, EFAULT);
    }
    munmap(page, 4096);
    side_close(s, true);
}

T_TEST(mr, empty)
{
    /* A region of no bytes is refused with EINVAL, or is made and holds nothing. */
    struct side *s = plain_side();
    struct ibv_mr *mr;

    errno = 0;
    mr = ibv_reg_mr(s->pd, s->buf, 0, IBV_ACCESS_LOCAL_WRITE);
    if (mr) {
        T_EQ(mr->length, 0);
        T_EQ(ibv_dereg_mr(mr), 0);
    } else {
        T_EQ(errno, EINVAL);
    }
    side_close(s, true);
}

T_TEST(mr, gigabyte)
{
    /* A large region over memory that was never touched; its first and last byte can be reached. */
    struct side *s = side_open(NULL, NULL);
    size_t len = (size_t)1 << 30;
    char *memory =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct ibv_mr *mr;
    struct ibv_sge sge = {s->info.addr, 8, s->info.lkey};
    struct ibv_send_wr *bad, wr = {.sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = IBV_WR_RDMA_WRITE,
                                   .send_flags = IBV_SEND_SIGNALED};

    T_ASSERT(memory != MAP_FAILED);
    mr = ibv_reg_mr(s->pd, memory, len, ACCESS_ALL);
    T_ASSERT(mr != NULL, "%s", strerror(errno));
    side_connect(s, 0, &s->info, 0);
    wr.wr.rdma.rkey = mr->rkey;
    for (int i = 0; i < 2; i++) {
        wr.wr.rdma.remote_addr = (uintptr_t)memory + (i ? len - 8 : 0);
        T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
        T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
    }
    T_MEMEQ(memory, s->buf, 8);
    T_MEMEQ(memory + len - 8, s->buf, 8);
    T_EQ(ibv_dereg_mr(mr), 0);
    munmap(memory, len);
    side_close(s, true);
}

T_TEST(mr, keys_differ)
{
    /* Regions that live at the same time have different keys. */
    enum { COUNT = 300 };
    struct side *s = plain_side();
    struct ibv_mr *mr[COUNT];

    for (int i = 0; i < COUNT; i++) {
        mr[i] = ibv_reg_mr(s->pd, s->buf, 4096, ACCESS_ALL);
        T_ASSERT(mr[i] != NULL);
        for (int k = 0; k < i; k++) {
            T_ASSERT(mr[k]->rkey != mr[i]->rkey && mr[k]->lkey != mr[i]->lkey);
        }
    }
    for (int i = 0; i < COUNT; i++) {
        T_EQ(ibv_dereg_mr(mr[i]), 0);
    }
    side_close(s, true);
}

T_TEST(mr, kinds_of_memory)
{
    /* Heap, stack, static, shared and file memory can be registered and written. */
    static char in_data[256] = "x";
    char on_stack[256], *heap = malloc(256);
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = memfd_create("mr", MFD_CLOEXEC);
    char *file;
    struct side *s = side_open(NULL, NULL);

    T_EQ(ftruncate(fd, 4096), 0);
    file = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *all[] = {in_data, on_stack, heap, shared, file};
    side_connect(s, 0, &s->info, 0);
    for (int i = 0; i < 5; i++) {
        struct ibv_mr *mr = ibv_reg_mr(s->pd, all[i], 256, ACCESS_ALL);
        struct ibv_sge sge = {s->info.addr, 256, s->info.lkey};
        struct ibv_send_wr *bad, wr = {.sg_list = &sge,
                                       .num_sge = 1,
                                       .opcode = IBV_WR_RDMA_WRITE,
                                       .send_flags = IBV_SEND_SIGNALED};

        T_ASSERT(mr != NULL, "kind %d: %s", i, strerror(errno));
        wr.wr.rdma.remote_addr = (uintptr_t)all[i];
        wr.wr.rdma.rkey = mr->rkey;
        T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
        T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
        T_MEMEQ(all[i], s->buf, 256);
        T_EQ(ibv_dereg_mr(mr), 0);
    }
    free(heap);
    munmap(shared, 4096);
    munmap(file, 4096);
    close(fd);
    side_close(s, true);
}

/* --- use between two ends
 * ---------------------------------------------------------------------------- */

static void write_with(struct pair *p, uint64_t raddr, uint32_t rkey, enum ibv_wc_status status)
{
    e_send(
        p->a,
        &(struct post){
            .id = 3, .op = IBV_WR_RDMA_WRITE, .off = 21, .len = 40, .raddr = raddr, .rkey = rkey});
    e_expect(p->a, SEND_CQ, 3, status);
}

T_CONTRACT(mr, overlapping_regions)
{
    /* One piece of memory may be in several regions with different rights; the key decides. */
    struct pair *p = pair_open(topology, NULL);
    struct reg reading = {.slot = 0, .off = p->rx, .len = 4096, .access = IBV_ACCESS_REMOTE_READ};
    struct reg writing = {.slot = 1, .off = p->rx + 100, .len = 4096, .access = ACCESS_ALL};

    e_reg(p->b, &reading);
    e_reg(p->b, &writing);
    write_with(p, p->b->info.addr + p->rx + 100, writing.rkey, IBV_WC_SUCCESS);
    e_same(p->b, p->rx + 100, 40, p->a, 21);
    T_EQ(e_dereg(p->b, 1), 0);
    /* The other region still holds, and sees what was written. */
    e_send(p->a, &(struct post){.id = 4,
                                .op = IBV_WR_RDMA_READ,
                                .off = p->rx,
                                .len = 40,
                                .roff = (int64_t)p->rx + 100,
                                .rkey = reading.rkey});
    e_done(p->a, 4, IBV_WC_RDMA_READ);
    e_same(p->a, p->rx, 40, p->a, 21);
    write_with(p, p->b->info.addr + p->rx + 100, reading.rkey, IBV_WC_REM_ACCESS_ERR);
    pair_close_loose(p);
}

T_CONTRACT(mr, address_of_ones_own)
{
    /* ibv_reg_mr_iova: others, and oneself, address the region from the number given. */
    struct pair *p = pair_open(topology, NULL);
    uint64_t base = (UINT64_C(0x7) << 44) + (p->b->info.addr & 0xfff);
    struct reg reg = {.slot = 0,
                      .off = p->rx,
                      .len = 8192,
                      .access = ACCESS_ALL,
                      .has_iova = true,
                      .iova = base + (p->rx & 0xfff)};
    struct post recv = {.id = 9, .nsge = 1, .absolute = true};

    e_reg(p->b, &reg);
    write_with(p, reg.iova + 500, reg.rkey, IBV_WC_SUCCESS);
    e_same(p->b, p->rx + 500, 40, p->a, 21);
    recv.sge[0] = (struct ibv_sge){reg.iova + 1000, 64, reg.lkey};
    e_recv(p->b, &recv);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 64});
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 9, IBV_WC_RECV, 64);
    e_same(p->b, p->rx + 1000, 64, p->a, 0);
    /* The true address means nothing in this region. */
    write_with(p, p->b->info.addr + p->rx, reg.rkey, IBV_WC_REM_ACCESS_ERR);
    pair_close_loose(p);
}

T_CONTRACT(mr, address_of_zero)
{
    /* hca_va 0 makes a region that is addressed by offsets; the byte before and behind is not in
     * it. */
    struct pair *p = pair_open(topology, NULL);
    struct reg reg = {
        .slot = 0, .off = p->rx, .len = 4096, .access = ACCESS_ALL, .has_iova = true, .iova = 0};

    /* pair_open's buffers begin on a page, as an address with the same page offset as 0. */
    T_EQ((p->b->info.addr + p->rx) % 4096, 0);
    e_reg(p->b, &reg);
    write_with(p, 4096 - 40, reg.rkey, IBV_WC_SUCCESS);
    e_same(p->b, p->rx + 4096 - 40, 40, p->a, 21);
    write_with(p, 4096 - 39, reg.rkey, IBV_WC_REM_ACCESS_ERR);
    e_untouched_but(p->b, p->rx + 4096 - 40, 40);
    pair_close_loose(p);
}

T_CONTRACT(mr, zero_based)
{
    /* IBV_ACCESS_ZERO_BASED: addresses count from the start of the region (ibv_reg_mr(3)). */
    struct pair *p = pair_open(topology, NULL);
    struct reg reg = {
        .slot = 0, .off = p->rx, .len = 4096, .access = ACCESS_ALL | IBV_ACCESS_ZERO_BASED};

    if (e_try_reg(p->b, &reg) != 0) {
        /* Not every device has them; then the registration must say so. */
        T_IN(reg.err, EINVAL, EOPNOTSUPP);
        pair_close(p);
        return;
    }
    e_send(
        p->a,
        &(struct post){
            .id = 3, .op = IBV_WR_RDMA_WRITE, .off = 21, .len = 40, .raddr = 64, .rkey = reg.rkey});
    e_done(p->a, 3, IBV_WC_RDMA_WRITE);
    e_same(p->b, p->rx + 64, 40, p->a, 21);
    pair_close(p);
}

static void dereg_busy_loop(struct side *s, void *arg)
{
    (void)arg;
    for (int i = 0; i < 200; i++) {
        struct ibv_mr *mr = ibv_reg_mr(s->pd, s->buf, s->opt.size, ACCESS_ALL);

        T_ASSERT(mr != NULL);
        T_EQ(ibv_dereg_mr(mr), 0);
    }
}

T_CONTRACT(mr, registering_disturbs_no_traffic)
{
    /* Regions over the same memory come and go while messages arrive in it. */
    struct pair *p = pair_open(topology, NULL);
    int nothing = 0;

    for (uint64_t i = 0; i < 10; i++) {
        e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = 4096});
        e_begin(p->b, dereg_busy_loop, &nothing, sizeof(nothing));
        e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .off = i, .len = 4096});
        e_send(p->a, &(struct post){.id = 3,
                                    .op = IBV_WR_RDMA_WRITE,
                                    .off = i,
                                    .len = 4096,
                                    .roff = (int64_t)p->rx + 8192});
        e_done(p->a, 2, IBV_WC_SEND);
        e_done(p->a, 3, IBV_WC_RDMA_WRITE);
        e_finish(p->b);
        e_got(p->b, 1, IBV_WC_RECV, 4096);
        e_same(p->b, p->rx, 4096, p->a, i);
        e_same(p->b, p->rx + 8192, 4096, p->a, i);
    }
    pair_close(p);
}

/* --- re-registration
 * ---------------------------------------------------------------------------------- */

struct rereg {
    int flags, access;
    bool other_pd;
    uint64_t off;
    size_t len;
    uint32_t lkey, rkey;
    int rc, err;
};

static void do_rereg(struct side *s, void *arg)
{
    struct rereg *r = arg;

    if (!s->other_pd) {
        s->other_pd = ibv_alloc_pd(s->ctx);
    }
    errno = 0;
    r->rc = ibv_rereg_mr(s->mrs[0], r->flags, r->other_pd ? s->other_pd : s->pd, s->buf + r->off,
                         r->len, r->access);
    r->err = errno;
    r->lkey = s->mrs[0]->lkey;
    r->rkey = s->mrs[0]->rkey;
}

/* Gives the keys after the change; a device that can't change regions at all must say EOPNOTSUPP.
 */
static struct rereg rereg(struct pair *p, struct rereg r)
{
    e_run(p->b, do_rereg, &r, sizeof(r));
    if (r.rc != 0 && r.err == EOPNOTSUPP) {
        T_SKIP("the device can't change regions (EOPNOTSUPP)");
    }
    T_ASSERT(r.rc == 0, "ibv_rereg_mr: %d, %s", r.rc, strerror(r.err));
    return r;
}

static struct pair *pair_with_region(enum topology topology, int access)
{
    struct pair *p = pair_open(topology, NULL);
    struct reg reg = {.slot = 0, .off = p->rx, .len = 4096, .access = access};

    e_reg(p->b, &reg);
    return p;
}

T_CONTRACT(mr_rereg, rights)
{
    /* IBV_REREG_MR_CHANGE_ACCESS: what was not allowed is now, and then no longer. */
    struct pair *p = pair_with_region(topology, IBV_ACCESS_LOCAL_WRITE);
    struct rereg r =
        rereg(p, (struct rereg){.flags = IBV_REREG_MR_CHANGE_ACCESS, .access = ACCESS_ALL});

    write_with(p, p->b->info.addr + p->rx, r.rkey, IBV_WC_SUCCESS);
    r = rereg(
        p, (struct rereg){.flags = IBV_REREG_MR_CHANGE_ACCESS, .access = IBV_ACCESS_REMOTE_READ});
    write_with(p, p->b->info.addr + p->rx + 64, r.rkey, IBV_WC_REM_ACCESS_ERR);
    e_untouched_but(p->b, p->rx, 40);
    pair_close_loose(p);
}

T_CONTRACT(mr_rereg, domain)
{
    /* IBV_REREG_MR_CHANGE_PD: the queue pair's domain can no longer use it, then it can again. */
    struct pair *p = pair_with_region(topology, ACCESS_ALL);
    struct rereg r = rereg(p, (struct rereg){.flags = IBV_REREG_MR_CHANGE_PD, .other_pd = true});

    r = rereg(p, (struct rereg){.flags = IBV_REREG_MR_CHANGE_PD});
    write_with(p, p->b->info.addr + p->rx, r.rkey, IBV_WC_SUCCESS);
    r = rereg(p, (struct rereg){.flags = IBV_REREG_MR_CHANGE_PD, .other_pd = true});
    write_with(p, p->b->info.addr + p->rx + 64, r.rkey, IBV_WC_REM_ACCESS_ERR);
    e_untouched_but(p->b, p->rx, 40);
    pair_close_loose(p);
}

T_CONTRACT(mr_rereg, translation)
{
    /* IBV_REREG_MR_CHANGE_TRANSLATION: the region lies elsewhere; where it was is closed. */
    struct pair *p = pair_with_region(topology, ACCESS_ALL);
    struct rereg r = rereg(
        p,
        (struct rereg){.flags = IBV_REREG_MR_CHANGE_TRANSLATION, .off = p->rx + 8192, .len = 1000});

    write_with(p, p->b->info.addr + p->rx + 8192 + 960, r.rkey, IBV_WC_SUCCESS);
    e_same(p->b, p->rx + 8192 + 960, 40, p->a, 21);
    write_with(p, p->b->info.addr + p->rx, r.rkey, IBV_WC_REM_ACCESS_ERR);
    e_untouched_but(p->b, p->rx + 8192 + 960, 40);
    pair_close_loose(p);
}

T_CONTRACT(mr_rereg, bad_arguments)
{
    /* Flags that mean nothing and rights that can't be are refused; the old region holds. */
    struct pair *p = pair_with_region(topology, ACCESS_ALL);
    struct rereg flags = {.flags = 8};
    struct rereg rights = {.flags = IBV_REREG_MR_CHANGE_ACCESS, .access = IBV_ACCESS_REMOTE_WRITE};

    e_run(p->b, do_rereg, &flags, sizeof(flags));
    T_ASSERT(flags.rc != 0);
    T_IN(flags.err, EINVAL, EOPNOTSUPP);
    e_run(p->b, do_rereg, &rights, sizeof(rights));
    T_ASSERT(rights.rc != 0);
    T_IN(rights.err, EINVAL, EOPNOTSUPP);
    write_with(p, p->b->info.addr + p->rx, flags.rkey, IBV_WC_SUCCESS);
    pair_close(p);
}

/* --- fork
 * ---------------------------------------------------------------------------------------------- */

T_TEST(mr_fork, parent_keeps_its_memory)
{
    /*
     * After ibv_fork_init a program may fork (ibv_fork_init(3)): what the parent writes afterwards
     * is what it sends, what arrives is where it looks, while a child that touches nothing lives.
     */
    struct side *s;
    int go[2], status;
    pid_t child;

    T_EQ(ibv_fork_init(), 0);
    s = side_open(NULL, NULL);
    side_connect(s, 0, &s->info, 0);
    T_EQ(pipe(go), 0);
    child = fork();
    if (child == 0) {
        char byte;

        close(go[1]);
        _exit(read(go[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(go[0]);
    for (uint8_t i = 1; i < 10; i++) {
        struct ibv_sge sge = {s->info.addr, 4096, s->info.lkey};
        struct ibv_send_wr *bad, wr = {.sg_list = &sge,
                                       .num_sge = 1,
                                       .opcode = IBV_WR_RDMA_WRITE,
                                       .send_flags = IBV_SEND_SIGNALED,
                                       .wr.rdma = {s->info.addr + 32768, s->info.rkey}};

        memset(s->buf, i, 4096);
        s->buf[32768] = 0;
        T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
        T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
        T_EQ(s->buf[32768], i);
        T_EQ(s->buf[32768 + 4095], i);
    }
    close(go[1]);
    T_EQ(waitpid(child, &status, 0), child);
    T_EQ(status, 0);
    side_close(s, true);
}
