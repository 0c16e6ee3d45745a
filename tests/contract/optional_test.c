/* SPDX-License-Identifier: MIT */
/*
 * What a device may do without. Then it says EOPNOTSUPP, and says so in its attributes, too; it
 * never makes half an object, and never leaves the program to find out by using it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ends.h"

static struct side *open_side(void)
{
    return side_open(&(struct side_opt){.qps = 1}, NULL);
}

/* The call made nothing; why not, is the answer. */
static void absent(const void *made, const char *what)
{
    T_ASSERT(!made, "%s was made", what);
    T_ASSERT(errno == EOPNOTSUPP || errno == ENOSYS, "%s: %s", what, strerror(errno));
}

T_TEST(optional, raw_packets)
{
    /* A raw packet queue pair needs a right that a plain user has not, and a device that can. */
    struct side *s = open_side();
    struct ibv_qp_init_attr attr = {.send_cq = s->send_cq,
                                    .recv_cq = s->recv_cq,
                                    .cap = {.max_send_wr = 1, .max_send_sge = 1},
                                    .qp_type = IBV_QPT_RAW_PACKET};
    struct ibv_qp *qp = ibv_create_qp(s->pd, &attr);

    if (qp)
        T_EQ(ibv_destroy_qp(qp), 0);
    else
        T_IN(errno, EOPNOTSUPP, EPERM);
    side_close(s, true);
}

T_TEST(optional, flow_rules)
{
    struct side *s = open_side();
    struct ibv_flow_attr attr = {.type = IBV_FLOW_ATTR_SNIFFER, .size = sizeof(attr), .port = 1};
    struct ibv_flow *flow = ibv_create_flow(s->qp[0], &attr);

    if (flow)
        T_EQ(ibv_destroy_flow(flow), 0);
    else
        T_IN(errno, EOPNOTSUPP, EPERM);
    side_close(s, true);
}

T_TEST(optional, device_memory)
{
    struct side *s = open_side();
    struct ibv_device_attr_ex attr;
    struct ibv_alloc_dm_attr dm_attr = {.length = 64};
    struct ibv_dm *dm = ibv_alloc_dm(s->ctx, &dm_attr);

    T_EQ(ibv_query_device_ex(s->ctx, NULL, &attr), 0);
    if (dm)
        T_EQ(ibv_free_dm(dm), 0);
    else
        absent(dm, "device memory");
    T_EQ(attr.max_dm_size != 0, dm != NULL);
    side_close(s, true);
}

T_TEST(optional, on_demand_paging)
{
    struct side *s = open_side();
    struct ibv_device_attr_ex attr;

    T_EQ(ibv_query_device_ex(s->ctx, NULL, &attr), 0);
    struct ibv_mr *mr =
        ibv_reg_mr(s->pd, s->buf, 4096, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND);
    if (!(attr.odp_caps.general_caps & IBV_ODP_SUPPORT))
        T_ASSERT(!mr && (errno == EOPNOTSUPP || errno == EINVAL), "ODP: %s", strerror(errno));
    else
        T_EQ(ibv_dereg_mr(mr), 0);
    side_close(s, true);
}

T_TEST(optional, prefetching)
{
    struct side *s = open_side();
    struct ibv_sge sge = {s->info.addr, 4096, s->info.lkey};

    T_IN(ibv_advise_mr(s->pd, IBV_ADVISE_MR_ADVICE_PREFETCH, 0, &sge, 1), 0, EOPNOTSUPP, ENOSYS);
    side_close(s, true);
}

T_TEST(optional, foreign_memory)
{
    /* A file is no dmabuf; a device without them does not even look. */
    struct side *s = open_side();
    int fd = open("/dev/null", O_RDWR);
    struct ibv_mr *mr = ibv_reg_dmabuf_mr(s->pd, 0, 4096, 0, fd, IBV_ACCESS_LOCAL_WRITE);

    T_ASSERT(!mr);
    T_IN(errno, EOPNOTSUPP, EINVAL);
    close(fd);
    side_close(s, true);
}

T_TEST(optional, null_region_and_counters)
{
    struct side *s = open_side();
    struct ibv_counters_init_attr attr = {0};
    struct ibv_mr *mr = ibv_alloc_null_mr(s->pd);
    struct ibv_counters *counters;

    if (mr)
        T_EQ(ibv_dereg_mr(mr), 0);
    else
        absent(mr, "a null region");
    counters = ibv_create_counters(s->ctx, &attr);
    if (counters)
        T_EQ(ibv_destroy_counters(counters), 0);
    else
        absent(counters, "counters");
    side_close(s, true);
}

T_TEST(optional, importing)
{
    /* What another process made: refused, with the process's own objects as they were. */
    struct side *s = open_side();
    struct ibv_context *context = ibv_import_device(s->ctx->cmd_fd);

    if (context) {
        T_EQ(ibv_close_device(context), 0);
    } else {
        T_ASSERT(!ibv_import_pd(s->ctx, s->pd->handle));
        T_ASSERT(errno == EOPNOTSUPP, "%s", strerror(errno));
        T_ASSERT(!ibv_import_mr(s->pd, s->mr->handle));
        T_ASSERT(errno == EOPNOTSUPP, "%s", strerror(errno));
        T_ASSERT(!ibv_import_dm(s->ctx, 1));
        T_ASSERT(errno == EOPNOTSUPP, "%s", strerror(errno));
    }
    T_EQ(qp_state(s->qp[0]), IBV_QPS_RESET);
    side_close(s, true);
}

T_TEST(optional, enhanced_connections)
{
    /* librdmacm asks for every queue pair it makes, and takes EOPNOTSUPP for an answer. */
    struct side *s = open_side();
    struct ibv_ece ece = {0};

    T_IN(ibv_query_ece(s->qp[0], &ece), 0, EOPNOTSUPP);
    T_IN(ibv_query_qp_data_in_order(s->qp[0], IBV_WR_RDMA_WRITE, 0), 0, 1);
    side_close(s, true);
}

T_TEST(optional, clock)
{
    /* The device's clock runs forward, if it can be read. */
    struct side *s = open_side();
    struct ibv_values_ex first = {.comp_mask = IBV_VALUES_MASK_RAW_CLOCK}, second = first;
    int result = ibv_query_rt_values_ex(s->ctx, &first);

    T_IN(result, 0, EOPNOTSUPP);
    if (result == 0) {
        T_EQ(ibv_query_rt_values_ex(s->ctx, &second), 0);
        T_ASSERT(second.raw_clock.tv_sec > first.raw_clock.tv_sec ||
                 second.raw_clock.tv_nsec >= first.raw_clock.tv_nsec);
    }
    side_close(s, true);
}

/* ---- the GID table ---- */

T_TEST(gids, tables_agree)
{
    /* ibv_query_gid, _gid_ex and _gid_table tell the same of each entry. */
    struct side *s = open_side();
    struct ibv_port_attr port;
    struct ibv_gid_entry table[256], entry;
    union ibv_gid gid;

    T_EQ(ibv_query_port(s->ctx, 1, &port), 0);
    ssize_t count = ibv_query_gid_table(s->ctx, table, 256, 0);
    T_ASSERT(count > 0, "%zd", count);
    for (ssize_t i = 0; i < count; i++) {
        T_EQ(table[i].port_num, 1);
        T_ASSERT((int)table[i].gid_index < port.gid_tbl_len);
        T_EQ(ibv_query_gid(s->ctx, 1, (int)table[i].gid_index, &gid), 0);
        T_MEMEQ(&gid, &table[i].gid, sizeof(gid));
        T_EQ(ibv_query_gid_ex(s->ctx, 1, table[i].gid_index, &entry, 0), 0);
        T_MEMEQ(&entry.gid, &gid, sizeof(gid));
        T_EQ(entry.gid_type, table[i].gid_type);
        T_EQ(entry.ndev_ifindex, table[i].ndev_ifindex);
    }
    T_ASSERT(ibv_query_gid_ex(s->ctx, 1, (uint32_t)port.gid_tbl_len, &entry, 0) != 0);
    side_close(s, true);
}

/* ---- parent domains ---- */

static struct ibv_pd *parent_of(struct side *s, struct ibv_td *td)
{
    struct ibv_parent_domain_init_attr attr = {.pd = s->pd, .td = td};

    return ibv_alloc_parent_domain(s->ctx, &attr);
}

T_TEST(parent, is_as_good_as_its_domain)
{
    /*
     * What is made with a parent domain belongs to the protection domain below it; the latter, and
     * the thread domain, can't go first.
     */
    struct side *s = open_side();
    struct ibv_td_init_attr td_attr = {0};
    struct ibv_td *td = ibv_alloc_td(s->ctx, &td_attr);

    if (!td) {
        T_EQ(errno, EOPNOTSUPP);
        side_close(s, true);
        T_SKIP("the device has no thread domains");
    }
    struct ibv_pd *own = s->pd, *parent = parent_of(s, td);
    T_ASSERT(parent, "ibv_alloc_parent_domain: %s", strerror(errno));
    T_EQ(ibv_dealloc_td(td), EBUSY);
    T_EQ(ibv_dealloc_pd(own), EBUSY);
    struct ibv_mr *mr = ibv_reg_mr(parent, s->buf, 4096, IBV_ACCESS_LOCAL_WRITE);
    T_ASSERT(mr);
    s->pd = parent;
    struct ibv_qp *qp = side_create_qp(s, &s->opt);
    s->pd = own;
    T_ASSERT(qp, "a queue pair: %s", strerror(errno));
    struct ibv_ah_attr ah_attr = side_ah_attr(&s->info);
    struct ibv_ah *ah = ibv_create_ah(parent, &ah_attr);
    T_ASSERT(ah);
    T_EQ(ibv_destroy_ah(ah), 0);
    T_EQ(ibv_destroy_qp(qp), 0);
    T_EQ(ibv_dereg_mr(mr), 0);
    T_EQ(ibv_dealloc_pd(parent), 0);
    T_EQ(ibv_dealloc_td(td), 0);
    side_close(s, true);
}

static void use_parent(struct side *s, void *arg)
{
    struct ibv_pd *parent = parent_of(s, NULL);

    *(bool *)arg = parent;
    if (!parent)
        return;
    /* the buffer anew, by the parent: the queue pair is of the domain below */
    s->mrs[0] = ibv_reg_mr(parent, s->buf, s->opt.size, ACCESS_ALL);
    T_ASSERT(s->mrs[0]);
    s->info.lkey = s->mrs[0]->lkey;
    s->extra[0] = parent;
}

static void drop_parent(struct side *s, void *arg)
{
    (void)arg;
    T_EQ(ibv_dereg_mr(s->mrs[0]), 0);
    s->mrs[0] = NULL;
    T_EQ(ibv_dealloc_pd(s->extra[0]), 0);
}

T_CONTRACT(parent, keys_fit_the_domain_below)
{
    /* A region of the parent domain serves a queue pair of the protection domain. */
    struct pair *p = pair_open(topology, NULL);
    bool has_parents = false;

    e_run(p->a, use_parent, &has_parents, sizeof(has_parents));
    if (has_parents) {
        pair_works(p, 0);
        e_run(p->a, drop_parent, NULL, 0);
    }
    pair_close(p);
}

/* ---- fork ---- */

/* ThreadSanitizer does not follow a fork of a process with threads. */
#ifndef __SANITIZE_THREAD__

/* The child leaves the device alone and ends. */
static void fork_child(struct side *s, void *arg)
{
    pid_t child = fork();
    int status;

    (void)s, (void)arg;
    if (child == 0)
        _exit(7);
    T_ASSERT(child > 0);
    T_EQ(waitpid(child, &status, 0), child);
    T_ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

T_TEST(fork_init, before_the_first_device)
{
    /* ibv_fork_init(3): a parent goes on after a child that touches nothing has come and gone. */
    T_EQ(ibv_fork_init(), 0);
    T_IN(ibv_is_fork_initialized(), IBV_FORK_ENABLED, IBV_FORK_UNNEEDED);
    struct pair *p = pair_open(ONE_PROCESS, NULL);

    pair_works(p, 0);
    e_run(p->a, fork_child, NULL, 0);
    pair_works(p, 0);
    pair_close(p);
}

#endif
