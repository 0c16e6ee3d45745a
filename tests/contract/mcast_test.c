/* SPDX-License-Identifier: MIT */
/* Multicast: attaching, delivery to every member once, detaching. */
#include "ends.h"

enum { GRH = 40 };

static const struct side_opt ud = {.type = IBV_QPT_UD, .qps = 4, .unconnected = true};

/*
 * A group address of the family of the GID under test: for IPv4 the mapped 239.x.y.z, for IPv6
 * ff1e::. The group differs from run to run, so that runs do not hear one another.
 */
static union ibv_gid group_of(const union ibv_gid *gid, uint8_t number)
{
    union ibv_gid group = {.raw = {0}};
    bool mapped = gid->raw[10] == 0xff && gid->raw[11] == 0xff;

    group.raw[13] = (uint8_t)t_seed();
    group.raw[14] = (uint8_t)(t_seed() >> 8);
    group.raw[15] = number;
    if (mapped) {
        group.raw[10] = group.raw[11] = 0xff;
        group.raw[12] = 239;
    } else {
        group.raw[0] = 0xff;
        group.raw[1] = 0x1e;
    }
    return group;
}

struct member {
    int q;
    union ibv_gid group;
    int rc;
};

static void do_attach(struct side *s, void *arg)
{
    struct member *m = arg;

    m->rc = ibv_attach_mcast(s->qp[m->q], &m->group, 0);
}

static void do_detach(struct side *s, void *arg)
{
    struct member *m = arg;

    m->rc = ibv_detach_mcast(s->qp[m->q], &m->group, 0);
}

static int attach(struct end *e, int q, union ibv_gid group)
{
    struct member m = {.q = q, .group = group};

    e_run(e, do_attach, &m, sizeof(m));
    return m.rc;
}

static int detach(struct end *e, int q, union ibv_gid group)
{
    struct member m = {.q = q, .group = group};

    e_run(e, do_detach, &m, sizeof(m));
    return m.rc;
}

/* Replaces a's address handle by one for the group. */
static void do_aim(struct side *s, void *arg)
{
    struct side_info to = {.gid = *(union ibv_gid *)arg};
    struct ibv_ah_attr attr = side_ah_attr(&to);

    T_EQ(ibv_destroy_ah(s->ah), 0);
    s->ah = ibv_create_ah(s->pd, &attr);
    T_ASSERT(s->ah != NULL, "ibv_create_ah for a group: %s", strerror(errno));
}

static struct pair *open_group(enum topology topology, union ibv_gid *group_out)
{
    struct pair *p = pair_open(topology, &ud);

    pair_connect(p);
    *group_out = group_of(&p->a->info.gid, 1);
    e_run(p->a, do_aim, group_out, sizeof(*group_out));
    return p;
}

static void send_to_group(struct pair *p, uint32_t len)
{
    e_send(p->a,
           &(struct post){.id = 1, .op = IBV_WR_SEND, .off = 9, .len = len, .ud_qpn = 0xffffff});
    e_done(p->a, 1, IBV_WC_SEND);
}

static void receives(struct pair *p)
{
    for (int q = 0; q < 4; q++) {
        for (uint64_t i = 0; i < 2; i++) {
            uint64_t id = (uint64_t)q * 2 + i;

            e_recv(p->b, &(struct post){.q = q, .id = id, .off = p->rx + id * 128, .len = 128});
        }
    }
}

/* Takes completions until all queue pairs of `expected` (a bit set) have had one; no other may
 * come. */
static void arrives_at(struct pair *p, unsigned expected, uint32_t len)
{
    unsigned seen = 0;

    while (seen != expected) {
        struct ibv_wc wc = e_wait(p->b, RECV_CQ);
        unsigned q = (unsigned)wc.wr_id / 2;

        T_EQ(wc.status, IBV_WC_SUCCESS);
        T_EQ(wc.byte_len, GRH + len);
        T_EQ(wc.src_qp, p->a->info.qpn[0]);
        T_ASSERT(!(seen & 1u << q) && (expected & 1u << q), "queue pair %u", q);
        e_same(p->b, p->rx + wc.wr_id * 128 + GRH, len, p->a, 9);
        seen |= 1u << q;
    }
    e_quiet(p->b, RECV_CQ);
}

T_CONTRACT(mcast, reaches_every_member_once)
{
    /* Three of four queue pairs are members: each gets one copy, the fourth gets none. */
    union ibv_gid group;
    struct pair *p = open_group(topology, &group);

    receives(p);
    T_EQ(attach(p->b, 0, group), 0);
    T_EQ(attach(p->b, 2, group), 0);
    T_EQ(attach(p->b, 3, group), 0);
    send_to_group(p, 50);
    arrives_at(p, 1 | 4 | 8, 50);
    T_EQ(detach(p->b, 0, group), 0);
    T_EQ(detach(p->b, 2, group), 0);
    T_EQ(detach(p->b, 3, group), 0);
    pair_close(p);
}

T_CONTRACT(mcast, attached_twice_gets_one_copy)
{
    /* A queue pair that is attached to a group twice still gets one copy (ibv_attach_mcast(3)). */
    union ibv_gid group;
    struct pair *p = open_group(topology, &group);

    receives(p);
    T_EQ(attach(p->b, 1, group), 0);
    attach(p->b, 1, group);
    send_to_group(p, 20);
    arrives_at(p, 2, 20);
    T_EQ(detach(p->b, 1, group), 0);
    detach(p->b, 1, group);
    pair_close(p);
}

T_CONTRACT(mcast, detached_gets_nothing)
{
    /* After detaching nothing comes any more; the other member is not affected. */
    union ibv_gid group;
    struct pair *p = open_group(topology, &group);

    receives(p);
    T_EQ(attach(p->b, 0, group), 0);
    T_EQ(attach(p->b, 1, group), 0);
    T_EQ(detach(p->b, 0, group), 0);
    send_to_group(p, 8);
    arrives_at(p, 2, 8);
    T_EQ(detach(p->b, 1, group), 0);
    send_to_group(p, 8);
    e_quiet(p->b, RECV_CQ);
    pair_close(p);
}

T_CONTRACT(mcast, groups_are_separate)
{
    /* A member of another group hears nothing of this one. */
    union ibv_gid group, other;
    struct pair *p = open_group(topology, &group);

    other = group_of(&p->a->info.gid, 2);
    receives(p);
    T_EQ(attach(p->b, 0, other), 0);
    T_EQ(attach(p->b, 1, group), 0);
    send_to_group(p, 8);
    arrives_at(p, 2, 8);
    T_EQ(detach(p->b, 0, other), 0);
    T_EQ(detach(p->b, 1, group), 0);
    pair_close(p);
}

T_CONTRACT(mcast, at_both_ends)
{
    /* Members on the sender's own side hear it, too: delivery does not depend on where one is. */
    union ibv_gid group;
    struct pair *p = open_group(topology, &group);

    receives(p);
    e_recv(p->a, &(struct post){.q = 1, .id = 70, .off = p->rx, .len = 128});
    T_EQ(attach(p->a, 1, group), 0);
    T_EQ(attach(p->b, 0, group), 0);
    send_to_group(p, 30);
    arrives_at(p, 1, 30);
    e_got(p->a, 70, IBV_WC_RECV, GRH + 30);
    T_EQ(detach(p->a, 1, group), 0);
    T_EQ(detach(p->b, 0, group), 0);
    pair_close(p);
}

T_CONTRACT(mcast, qkey_is_checked)
{
    /* Group members check the Q_Key like anybody else. */
    union ibv_gid group;
    struct pair *p = open_group(topology, &group);

    receives(p);
    T_EQ(attach(p->b, 0, group), 0);
    e_send(p->a, &(struct post){
                     .id = 1, .op = IBV_WR_SEND, .len = 8, .ud_qpn = 0xffffff, .ud_qkey = 0x66});
    e_done(p->a, 1, IBV_WC_SEND);
    send_to_group(p, 9);
    arrives_at(p, 1, 9);
    T_EQ(detach(p->b, 0, group), 0);
    pair_close(p);
}

T_TEST(mcast_rules, only_datagrams)
{
    /* A connected queue pair can't be attached (ibv_attach_mcast(3)). */
    struct side *s = side_open(NULL, NULL);
    union ibv_gid group = group_of(&s->info.gid, 1);

    side_connect(s, 0, &s->info, 0);
    T_EQ(ibv_attach_mcast(s->qp[0], &group, 0), EINVAL);
    side_close(s, true);
}

T_TEST(mcast_rules, detach_needs_attach)
{
    /* Detaching from a group one is not in is EINVAL. */
    struct side *s = side_open(&(struct side_opt){.type = IBV_QPT_UD}, NULL);
    union ibv_gid group = group_of(&s->info.gid, 1);

    side_connect(s, 0, &s->info, 0);
    T_EQ(ibv_detach_mcast(s->qp[0], &group, 0), EINVAL);
    side_close(s, true);
}

T_TEST(mcast_rules, attached_queue_pair_is_busy)
{
    /* ibv_destroy_qp fails while the queue pair is in a group (ibv_create_qp(3), NOTES). */
    struct side *s = side_open(&(struct side_opt){.type = IBV_QPT_UD}, NULL);
    union ibv_gid group = group_of(&s->info.gid, 1);

    side_connect(s, 0, &s->info, 0);
    T_EQ(ibv_attach_mcast(s->qp[0], &group, 0), 0);
    T_EQ(ibv_destroy_qp(s->qp[0]), EBUSY);
    T_EQ(ibv_detach_mcast(s->qp[0], &group, 0), 0);
    side_close(s, true);
}

T_TEST(mcast_rules, members_up_to_the_limit)
{
    /* max_mcast_qp_attach queue pairs fit into a group; one more is refused. */
    struct side *s = side_open(&(struct side_opt){.type = IBV_QPT_UD, .qps = SIDE_QPS}, NULL);
    union ibv_gid group = group_of(&s->info.gid, 3);
    struct ibv_device_attr attr;
    int attached = 0, rc = 0;

    T_EQ(ibv_query_device(s->ctx, &attr), 0);
    while (attached < SIDE_QPS && (rc = ibv_attach_mcast(s->qp[attached], &group, 0)) == 0) {
        attached++;
    }
    if (attr.max_mcast_qp_attach < SIDE_QPS) {
        T_EQ(attached, attr.max_mcast_qp_attach);
        T_IN(rc, ENOMEM, ENOSPC, EINVAL);
    } else {
        T_EQ(attached, SIDE_QPS);
    }
    while (attached > 0) {
        T_EQ(ibv_detach_mcast(s->qp[--attached], &group, 0), 0);
    }
    side_close(s, true);
}
