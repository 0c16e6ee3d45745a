/* SPDX-License-Identifier: MIT */
/* The device, its port, its GID and P_Key tables: what queries say, and that they agree. */
#include "side.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

T_TEST(device, listed_once)
{
    /* The device is in the list once, as a channel adapter with a GUID. */
    int count, found = 0;
    struct ibv_device **list = ibv_get_device_list(&count);

    T_ASSERT(list != NULL);
    T_ASSERT(list[count] == NULL, "the list must end with NULL");
    for (int i = 0; i < count; i++) {
        if (strcmp(ibv_get_device_name(list[i]), device_name()) == 0) {
            found++;
            T_EQ(list[i]->node_type, IBV_NODE_CA);
            T_EQ(list[i]->transport_type, IBV_TRANSPORT_IB);
            T_ASSERT(ibv_get_device_guid(list[i]) != 0);
            T_ASSERT(list[i]->dev_name[0] != '\0');
        }
    }
    ibv_free_device_list(list);
    T_EQ(found, 1);
}

T_TEST(device, opens_several_times)
{
    /* One process may have the device open many times; each context works by itself. */
    struct ibv_context *ctx[10];
    struct ibv_port_attr port;

    for (int i = 0; i < 10; i++) {
        ctx[i] = device_open();
    }
    for (int i = 0; i < 10; i += 2) {
        T_EQ(ibv_close_device(ctx[i]), 0);
    }
    for (int i = 1; i < 10; i += 2) {
        T_EQ(ibv_query_port(ctx[i], 1, &port), 0);
        T_EQ(ibv_close_device(ctx[i]), 0);
    }
}

T_TEST(device, open_and_close_leak_no_descriptor)
{
    /* Opening, using and closing a hundred times leaves no file descriptor behind. */
    int before = 0;

    for (int i = 0; i < 100; i++) {
        struct side *s = side_open(NULL, NULL);

        side_close(s, true);
        /* What a process keeps after its first use of the device is its own affair. */
        if (i == 0) {
            before = t_fd_count();
        }
    }
    T_EQ(t_fd_count(), before);
    t_end();
}

T_TEST(device, attributes_are_sane)
{
    /* Limits are positive, strings end, the GUID is the one in the list. */
    struct ibv_context *ctx = device_open();
    struct ibv_device_attr a;
    long page = sysconf(_SC_PAGESIZE);

    T_EQ(ibv_query_device(ctx, &a), 0);
    T_ASSERT(strnlen(a.fw_ver, sizeof(a.fw_ver)) < sizeof(a.fw_ver));
    T_ASSERT(a.node_guid == ibv_get_device_guid(ctx->device));
    T_ASSERT(a.sys_image_guid != 0);
    T_ASSERT(a.max_mr_size >= (UINT64_C(1) << 30));
    T_ASSERT(a.page_size_cap & (uint64_t)page);
    T_ASSERT(a.max_qp > 0 && a.max_qp_wr > 0 && a.max_sge > 0 && a.max_sge_rd > 0);
    T_ASSERT(a.max_cq > 0 && a.max_cqe > 0 && a.max_mr > 0 && a.max_pd > 0);
    T_ASSERT(a.max_qp_rd_atom > 0 && a.max_qp_init_rd_atom > 0 && a.max_res_rd_atom > 0);
    T_ASSERT(a.max_mw > 0 && a.max_ah > 0);
    T_ASSERT(a.max_srq > 0 && a.max_srq_wr > 0 && a.max_srq_sge > 0);
    T_ASSERT(a.max_mcast_grp > 0 && a.max_mcast_qp_attach > 0);
    T_ASSERT(a.max_pkeys >= 1);
    T_ASSERT(a.atomic_cap == IBV_ATOMIC_HCA || a.atomic_cap == IBV_ATOMIC_GLOB);
    T_EQ(a.phys_port_cnt, 1);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(device, capabilities_name_what_the_suite_uses)
{
    /* The flags for windows, invalidation, SRQ resize and RNR NAK are set, as the device has them.
     */
    struct ibv_context *ctx = device_open();
    struct ibv_device_attr a;

    T_EQ(ibv_query_device(ctx, &a), 0);
    T_CHECK(a.device_cap_flags & IBV_DEVICE_RC_RNR_NAK_GEN);
    T_CHECK(a.device_cap_flags & (IBV_DEVICE_MEM_WINDOW | IBV_DEVICE_MEM_WINDOW_TYPE_2A |
                                  IBV_DEVICE_MEM_WINDOW_TYPE_2B));
    T_CHECK(a.device_cap_flags & IBV_DEVICE_MEM_MGT_EXTENSIONS);
    /* IBTA 11.2.1.2: windows of type 2 are associated in one of two ways, never in both. */
    T_CHECK((a.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2A) == 0 ||
            (a.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B) == 0);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(device, extended_attributes_agree)
{
    /* The extended query has the same basic attributes, and refuses a comp_mask it can't know. */
    struct ibv_context *ctx = device_open();
    struct ibv_device_attr a;
    struct ibv_device_attr_ex ex;
    struct ibv_query_device_ex_input input = {.comp_mask = 1u << 31};

    T_EQ(ibv_query_device(ctx, &a), 0);
    T_EQ(ibv_query_device_ex(ctx, NULL, &ex), 0);
    T_EQ(ex.orig_attr.max_qp, a.max_qp);
    T_EQ(ex.orig_attr.max_qp_wr, a.max_qp_wr);
    T_EQ(ex.orig_attr.max_cqe, a.max_cqe);
    T_EQ(ex.orig_attr.max_mr, a.max_mr);
    T_EQ(ex.orig_attr.max_sge, a.max_sge);
    T_EQ(ex.orig_attr.device_cap_flags, a.device_cap_flags);
    T_ASSERT(ex.orig_attr.node_guid == a.node_guid);
    T_STREQ(ex.orig_attr.fw_ver, a.fw_ver);
    T_EQ(ibv_query_device_ex(ctx, &input, &ex), EINVAL);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(device, contexts_agree)
{
    /* Two contexts of one device tell the same. */
    struct ibv_context *x = device_open(), *y = device_open();
    struct ibv_device_attr a, b;
    struct ibv_port_attr p, q;

    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    T_EQ(ibv_query_device(x, &a), 0);
    T_EQ(ibv_query_device(y, &b), 0);
    T_MEMEQ(&a, &b, sizeof(a));
    T_EQ(ibv_query_port(x, 1, &p), 0);
    T_EQ(ibv_query_port(y, 1, &q), 0);
    T_EQ(p.state, q.state);
    T_EQ(p.gid_tbl_len, q.gid_tbl_len);
    T_EQ(ibv_close_device(x), 0);
    T_EQ(ibv_close_device(y), 0);
}

T_TEST(device, has_completion_vectors)
{
    /* There is at least one completion vector, and a quiet asynchronous event descriptor. */
    struct ibv_context *ctx = device_open();

    T_ASSERT(ctx->num_comp_vectors >= 1);
    T_ASSERT(ctx->async_fd >= 0);
    T_ASSERT(!t_readable(ctx->async_fd, 0));
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(device, clock_runs)
{
    /* Where a completion clock is announced it can be read, and goes forward. */
    struct ibv_context *ctx = device_open();
    struct ibv_device_attr_ex ex;
    struct ibv_values_ex one = {.comp_mask = IBV_VALUES_MASK_RAW_CLOCK}, two = one;

    T_EQ(ibv_query_device_ex(ctx, NULL, &ex), 0);
    if (ex.hca_core_clock == 0) {
        /* Not announced: the call must say so, not invent a time. */
        T_IN(ibv_query_rt_values_ex(ctx, &one), EOPNOTSUPP, EINVAL, ENOTSUP);
    } else {
        T_EQ(ibv_query_rt_values_ex(ctx, &one), 0);
        T_ASSERT(one.comp_mask & IBV_VALUES_MASK_RAW_CLOCK);
        T_EQ(ibv_query_rt_values_ex(ctx, &two), 0);
        T_ASSERT(two.raw_clock.tv_sec > one.raw_clock.tv_sec ||
                 (two.raw_clock.tv_sec == one.raw_clock.tv_sec &&
                  two.raw_clock.tv_nsec >= one.raw_clock.tv_nsec));
    }
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(port, is_active_ethernet)
{
    /* A RoCE port: Ethernet, active, link up, an MTU within its bounds. */
    struct ibv_context *ctx = device_open();
    struct ibv_port_attr p;

    T_EQ(ibv_query_port(ctx, 1, &p), 0);
    T_EQ(p.state, IBV_PORT_ACTIVE);
    T_EQ(p.link_layer, IBV_LINK_LAYER_ETHERNET);
    T_EQ(p.phys_state, 5);
    T_ASSERT(p.active_mtu >= IBV_MTU_256 && p.active_mtu <= p.max_mtu);
    T_ASSERT(p.max_mtu <= IBV_MTU_4096);
    T_ASSERT(p.gid_tbl_len > device_gid_index());
    T_ASSERT(p.pkey_tbl_len >= 1);
    T_ASSERT(p.max_msg_sz >= 1 << 20);
    T_EQ(p.lid, 0);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(port, others_do_not_exist)
{
    /* Ports count from 1; port 0 and the one after the last are refused. */
    struct ibv_context *ctx = device_open();
    struct ibv_port_attr p;

    T_EQ(ibv_query_port(ctx, 0, &p), EINVAL);
    T_EQ(ibv_query_port(ctx, 2, &p), EINVAL);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(gid, is_a_roce_v2_address)
{
    /* The GID under test is not null, and its type is RoCEv2. */
    struct ibv_context *ctx = device_open();
    struct ibv_gid_entry entry;
    union ibv_gid gid, null = {.raw = {0}};

    T_EQ(ibv_query_gid(ctx, 1, device_gid_index(), &gid), 0);
    T_ASSERT(memcmp(&gid, &null, sizeof(gid)) != 0);
    T_EQ(ibv_query_gid_ex(ctx, 1, (uint32_t)device_gid_index(), &entry, 0), 0);
    T_MEMEQ(&entry.gid, &gid, sizeof(gid));
    T_EQ(entry.gid_type, IBV_GID_TYPE_ROCE_V2);
    T_EQ(entry.port_num, 1);
    T_EQ(entry.gid_index, device_gid_index());
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(gid, table_has_it)
{
    /* The whole table, read at once, holds the same entry. */
    struct ibv_context *ctx = device_open();
    struct ibv_gid_entry table[256];
    union ibv_gid gid;
    ssize_t count = ibv_query_gid_table(ctx, table, 256, 0);
    int found = 0;

    T_ASSERT(count > 0, "ibv_query_gid_table: %zd", count);
    T_EQ(ibv_query_gid(ctx, 1, device_gid_index(), &gid), 0);
    for (ssize_t i = 0; i < count; i++) {
        found += table[i].gid_index == (uint32_t)device_gid_index() && table[i].port_num == 1 &&
                 memcmp(&table[i].gid, &gid, sizeof(gid)) == 0;
    }
    T_EQ(found, 1);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(gid, beyond_the_table_is_refused)
{
    /* An index outside the table is an error, not a null GID. */
    struct ibv_context *ctx = device_open();
    struct ibv_port_attr p;
    union ibv_gid gid;

    T_EQ(ibv_query_port(ctx, 1, &p), 0);
    T_ASSERT(ibv_query_gid(ctx, 1, p.gid_tbl_len, &gid) != 0);
    T_ASSERT(ibv_query_gid(ctx, 1, -1, &gid) != 0);
    T_ASSERT(ibv_query_gid(ctx, 2, 0, &gid) != 0);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(pkey, default_is_a_full_member)
{
    /* RoCE has the default P_Key at index 0 (IBTA A16), in network order. */
    struct ibv_context *ctx = device_open();
    __be16 pkey = 0;

    T_EQ(ibv_query_pkey(ctx, 1, 0, &pkey), 0);
    T_EQ(ntohs(pkey), 0xffff);
    T_EQ(ibv_get_pkey_index(ctx, 1, pkey), 0);
    T_EQ(ibv_close_device(ctx), 0);
}

T_TEST(pkey, beyond_the_table_is_refused)
{
    /* An index outside the table, or another port, is an error. */
    struct ibv_context *ctx = device_open();
    struct ibv_port_attr p;
    __be16 pkey;

    T_EQ(ibv_query_port(ctx, 1, &p), 0);
    T_ASSERT(ibv_query_pkey(ctx, 1, p.pkey_tbl_len, &pkey) != 0);
    T_ASSERT(ibv_query_pkey(ctx, 2, 0, &pkey) != 0);
    T_EQ(ibv_close_device(ctx), 0);
}
