/* SPDX-License-Identifier: MIT */
/* Unreliable datagrams: the GRH, keys, numbers, lengths, replies, and what is dropped in silence.
 */
#include "ends.h"

#include <arpa/inet.h>
#include <netinet/ip.h>
#include <stdlib.h>

enum { GRH = 40 };

static const struct side_opt ud = {.type = IBV_QPT_UD};

/* A good datagram arrives; what was dropped before it would have taken its receive. */
static void only_the_good_one_arrives(struct pair *p)
{
    e_send(p->a, &(struct post){
                     .id = 800, .op = IBV_WR_SEND_WITH_IMM, .off = 3, .len = 33, .imm = 0xfeed});
    e_done(p->a, 800, IBV_WC_SEND);
    T_EQ(ntohl(e_got(p->b, 801, IBV_WC_RECV, GRH + 33).imm_data), 0xfeed);
    e_same(p->b, p->rx + GRH, 33, p->a, 3);
    e_quiet(p->b, RECV_CQ);
}

static void one_receive(struct pair *p)
{
    e_recv(p->b, &(struct post){.id = 801, .off = p->rx, .len = 4096 + GRH});
}

T_CONTRACT_SELF(ud, send)
{
    /* The payload lies behind 40 bytes of GRH; the completion names the sender. */
    struct pair *p = pair_open(topology, &ud);
    struct ibv_wc wc;

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = GRH + 100});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .off = 7, .len = 64});
    e_done(p->a, 2, IBV_WC_SEND);
    wc = e_got(p->b, 1, IBV_WC_RECV, GRH + 64);
    T_ASSERT(wc.wc_flags & IBV_WC_GRH);
    T_EQ(wc.wc_flags & IBV_WC_WITH_IMM, 0);
    T_EQ(wc.src_qp, p->a->info.qpn[0]);
    T_EQ(wc.qp_num, p->b->info.qpn[0]);
    e_same(p->b, p->rx + GRH, 64, p->a, 7);
    e_untouched_but(p->b, p->rx, GRH + 64);
    pair_close(p);
}

T_CONTRACT_SELF(ud, device_opened_again)
{
    /* A device that was closed, the last of the process perhaps, is as good when it is opened. */
    for (int i = 0; i < 4; i++) {
        struct pair *p = pair_open(topology, &ud);

        one_receive(p);
        e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 64});
        e_done(p->a, 2, IBV_WC_SEND);
        e_got(p->b, 801, IBV_WC_RECV, GRH + 64);
        e_same(p->b, p->rx + GRH, 64, p->a, 0);
        pair_close(p);
    }
}

T_CONTRACT_SELF(ud, send_with_immediate)
{
    /* Immediate data comes as on connections. */
    struct pair *p = pair_open(topology, &ud);
    struct ibv_wc wc;

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = GRH});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND_WITH_IMM, .imm = 0x01020304});
    e_done(p->a, 2, IBV_WC_SEND);
    wc = e_got(p->b, 1, IBV_WC_RECV, GRH);
    T_ASSERT((wc.wc_flags & IBV_WC_GRH) && (wc.wc_flags & IBV_WC_WITH_IMM));
    T_EQ(ntohl(wc.imm_data), 0x01020304);
    pair_close(p);
}

static bool is_mapped(const union ibv_gid *gid)
{
    static const uint8_t prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    return memcmp(gid->raw, prefix, sizeof(prefix)) == 0;
}

/* The Internet checksum of a header that contains its own: zero if it is right. */
static uint16_t checksum(const uint8_t *bytes, size_t len)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < len; i += 2) {
        sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    }
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

T_CONTRACT_SELF(ud, grh_is_a_valid_header)
{
    /*
     * RoCEv2 (IBTA annex A17.4.5.1): with IPv4 the second half of the GRH area is the IPv4 header,
     * with its addresses and checksum; with IPv6 the whole is the IPv6 header.
     */
    struct pair *p = pair_open(topology, &ud);
    uint8_t grh[GRH];

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = GRH + 16});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 16});
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 1, IBV_WC_RECV, GRH + 16);
    e_peek(p->b, p->rx, grh, sizeof(grh));
    if (is_mapped(&p->a->info.gid)) {
        T_EQ(grh[20], 0x45);
        T_EQ(grh[20 + 9], IPPROTO_UDP);
        T_ASSERT(grh[20 + 8] > 0, "time to live");
        T_MEMEQ(grh + 20 + 12, p->a->info.gid.raw + 12, 4);
        T_MEMEQ(grh + 20 + 16, p->b->info.gid.raw + 12, 4);
        T_EQ(checksum(grh + 20, 20), 0);
    } else {
        T_EQ(grh[0] >> 4, 6);
        T_MEMEQ(grh + 8, p->a->info.gid.raw, 16);
        T_MEMEQ(grh + 24, p->b->info.gid.raw, 16);
    }
    pair_close(p);
}

/* What b does with a received datagram: makes an address handle from it, and answers. */
struct reply {
    struct ibv_wc wc;
    uint64_t rx;
    bool by_init; /* ibv_init_ah_from_wc and ibv_create_ah, instead of ibv_create_ah_from_wc */
};

static void do_reply(struct side *s, void *arg)
{
    struct reply *reply = arg;
    struct ibv_grh *grh = (struct ibv_grh *)(void *)(s->buf + reply->rx);
    struct ibv_sge sge = {s->info.addr, 20, s->info.lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 30,
                                   .sg_list = &sge,
                                   .num_sge = 1,
                                   .opcode = IBV_WR_SEND,
                                   .send_flags = IBV_SEND_SIGNALED};
    struct ibv_ah_attr attr;
    struct ibv_ah *ah;

    if (reply->by_init) {
        memset(&attr, 0, sizeof(attr));
        T_EQ(ibv_init_ah_from_wc(s->ctx, 1, &reply->wc, grh, &attr), 0);
        T_EQ(attr.is_global, 1);
        T_EQ(attr.port_num, 1);
        ah = ibv_create_ah(s->pd, &attr);
    } else {
        ah = ibv_create_ah_from_wc(s->pd, &reply->wc, grh, 1);
    }
    T_ASSERT(ah != NULL, "no address handle from a completion: %s", strerror(errno));
    wr.wr.ud.ah = ah;
    wr.wr.ud.remote_qpn = reply->wc.src_qp;
    wr.wr.ud.remote_qkey = s->opt.qkey;
    T_EQ(ibv_post_send(s->qp[0], &wr, &bad), 0);
    T_EQ(cq_wait(s->send_cq).status, IBV_WC_SUCCESS);
    T_EQ(ibv_destroy_ah(ah), 0);
}

static void replies(enum topology topology, bool by_init)
{
    struct pair *p = pair_open(topology, &ud);
    struct reply reply = {.rx = p->rx, .by_init = by_init};

    e_recv(p->a, &(struct post){.id = 10, .off = p->rx, .len = GRH + 64});
    e_recv(p->b, &(struct post){.id = 11, .off = p->rx, .len = GRH + 64});
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8});
    e_done(p->a, 1, IBV_WC_SEND);
    reply.wc = e_got(p->b, 11, IBV_WC_RECV, GRH + 8);
    e_run(p->b, do_reply, &reply, sizeof(reply));
    T_EQ(e_got(p->a, 10, IBV_WC_RECV, GRH + 20).src_qp, p->b->info.qpn[0]);
    e_same(p->a, p->rx + GRH, 20, p->b, 0);
    pair_close(p);
}

T_CONTRACT(ud, reply_by_create_ah_from_wc)
{
    /* A completion and its GRH are enough to answer the sender. */
    replies(topology, false);
}

T_CONTRACT(ud, reply_by_init_ah_from_wc)
{
    /* The same in two steps. */
    replies(topology, true);
}

T_CONTRACT(ud, gather_and_scatter_across_the_grh)
{
    /* The GRH is scattered like data: the split may lie anywhere in it. */
    struct pair *p = pair_open(topology, &ud);
    struct post recv = {.id = 1,
                        .nsge = 3,
                        .sge = {{.addr = p->rx, .length = 13},
                                {.addr = p->rx + 100, .length = 30},
                                {.addr = p->rx + 200, .length = 100}}};
    struct post send = {.id = 2,
                        .op = IBV_WR_SEND,
                        .nsge = 2,
                        .sge = {{.addr = 50, .length = 10}, {.addr = 10, .length = 20}}};

    e_recv(p->b, &recv);
    e_send(p->a, &send);
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 1, IBV_WC_RECV, GRH + 30);
    e_same(p->b, p->rx + 127, 3, p->a, 50);
    e_same(p->b, p->rx + 200, 7, p->a, 53);
    e_same(p->b, p->rx + 207, 20, p->a, 10);
    pair_close(p);
}

T_CONTRACT(ud, largest_datagram)
{
    /* A message of exactly the port's MTU passes whole. */
    struct pair *p = pair_open(topology, &ud);
    uint32_t mtu = 128u << p->a->info.mtu;

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = GRH + mtu});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = mtu});
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 1, IBV_WC_RECV, GRH + mtu);
    e_same(p->b, p->rx + GRH, mtu, p->a, 0);
    pair_close(p);
}

T_CONTRACT(ud, too_long)
{
    /*
     * More than an MTU is not sent. How that is told is left open: refused at once, LOC_LEN_ERR,
     * or in silence (IBTA C10-93.1.1 forbids to emit it, and lets the request succeed).
     */
    struct pair *p = pair_open(topology, &ud);
    uint32_t mtu = 128u << p->a->info.mtu;
    int rc;

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = GRH + mtu + 64});
    rc = e_try_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = mtu + 1});
    T_IN(rc, 0, EINVAL, EMSGSIZE, ENOMEM);
    if (rc == 0) {
        T_IN(e_wait(p->a, SEND_CQ).status, IBV_WC_SUCCESS, IBV_WC_LOC_LEN_ERR);
    }
    e_quiet(p->b, RECV_CQ);
    e_untouched_but(p->b, 0, 0);
    pair_close(p);
}

/* --- dropped in silence
 * ------------------------------------------------------------------------------ */

T_CONTRACT(ud, wrong_qkey)
{
    /* A datagram with another Q_Key than the receiver's is dropped (IBTA 10.2.5). */
    struct pair *p = pair_open(topology, &ud);

    one_receive(p);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8, .ud_qkey = 0x11223345});
    e_done(p->a, 1, IBV_WC_SEND);
    only_the_good_one_arrives(p);
    pair_close(p);
}

T_CONTRACT(ud, controlled_qkey)
{
    /*
     * A Q_Key with its highest bit set in the request stands for the sending queue pair's own one
     * (IBTA 10.2.5, C10-15), whatever its other bits.
     */
    struct pair *p = pair_open(topology, &ud);

    one_receive(p);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8, .ud_qkey = 0x80000001});
    e_done(p->a, 1, IBV_WC_SEND);
    e_got(p->b, 801, IBV_WC_RECV, GRH + 8);
    pair_close(p);
}

T_CONTRACT(ud, qkey_can_be_changed)
{
    /* ibv_modify_qp changes the Q_Key in RTS, for what is received from then on. */
    struct pair *p = pair_open(topology, &ud);
    struct ibv_qp_attr attr = {.qkey = 0x55};

    T_EQ(e_modify(p->b, 0, &attr, IBV_QP_QKEY), 0);
    one_receive(p);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8});
    e_done(p->a, 1, IBV_WC_SEND);
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 9, .ud_qkey = 0x55});
    e_done(p->a, 2, IBV_WC_SEND);
    e_got(p->b, 801, IBV_WC_RECV, GRH + 9);
    e_quiet(p->b, RECV_CQ);
    pair_close(p);
}

T_CONTRACT(ud, number_that_is_no_queue_pair)
{
    /* A datagram to nobody vanishes; the sender's request succeeds. */
    struct pair *p = pair_open(topology, &ud);

    one_receive(p);
    e_send(p->a, &(struct post){
                     .id = 1, .op = IBV_WR_SEND, .len = 8, .ud_qpn = p->b->info.qpn[0] ^ 0x2a55});
    e_done(p->a, 1, IBV_WC_SEND);
    only_the_good_one_arrives(p);
    pair_close(p);
}

T_CONTRACT(ud, no_receive_posted)
{
    /* A datagram that finds no receive vanishes. */
    struct pair *p = pair_open(topology, &ud);

    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8});
    e_done(p->a, 1, IBV_WC_SEND);
    e_quiet(p->b, RECV_CQ);
    one_receive(p);
    only_the_good_one_arrives(p);
    pair_close(p);
}

T_CONTRACT(ud, receive_too_short)
{
    /*
     * A receive that can't hold GRH and payload: the datagram is dropped, or the receive ends with
     * LOC_LEN_ERR (IBTA 11.6.2); in no case is a byte written behind the buffer.
     */
    struct pair *p = pair_open(topology, &ud);
    struct ibv_wc wc[1];

    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = GRH + 15});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 16});
    e_done(p->a, 2, IBV_WC_SEND);
    e_has_event(p->b, IBV_EVENT_QP_FATAL, 0, QUIET_MS);
    if (e_poll(p->b, RECV_CQ, 1, wc) == 1) {
        T_EQ(wc[0].wr_id, 1);
        T_EQ(wc[0].status, IBV_WC_LOC_LEN_ERR);
    }
    e_untouched(p->b, p->rx + GRH + 15, 256);
    e_untouched(p->b, 0, p->rx);
    pair_close_loose(p);
}

T_CONTRACT(ud, connected_queue_pair_is_no_target)
{
    /* A datagram to a queue pair of another service type is dropped there. */
    struct side_opt b = {.type = IBV_QPT_RC, .unconnected = true};
    struct side_opt a = {.type = IBV_QPT_UD, .unconnected = true};
    struct pair *p = pair_open2(topology, &a, &b);

    end_connect(p->a, 0, p->b, 0);
    end_connect(p->b, 0, p->a, 0);
    e_recv(p->b, &(struct post){.id = 1, .off = p->rx, .len = 256});
    e_send(p->a, &(struct post){.id = 2, .op = IBV_WR_SEND, .len = 16});
    e_done(p->a, 2, IBV_WC_SEND);
    e_quiet(p->b, RECV_CQ);
    T_EQ(e_state(p->b, 0), IBV_QPS_RTS);
    e_untouched_but(p->b, 0, 0);
    pair_close(p);
}

T_CONTRACT(ud, peer_in_init_gets_nothing)
{
    /* In INIT receives may be posted but nothing is received; from RTR on it is. */
    struct side_opt b = ud;
    struct pair *p;
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 0x11223344};

    b.unconnected = true;
    p = pair_open2(topology, &b, &b);
    end_connect(p->a, 0, p->b, 0);
    T_EQ(e_modify(p->b, 0, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY), 0);
    one_receive(p);
    e_send(p->a, &(struct post){.id = 1, .op = IBV_WR_SEND, .len = 8});
    e_done(p->a, 1, IBV_WC_SEND);
    e_quiet(p->b, RECV_CQ);
    T_EQ(e_to_state(p->b, 0, IBV_QPS_RTR), 0);
    only_the_good_one_arrives(p);
    pair_close(p);
}

T_CONTRACT(ud, one_sender_many_receivers)
{
    /* One UD queue pair reaches any other, by number, in any order. */
    struct side_opt b = ud;
    struct pair *p;

    b.qps = 8;
    p = pair_open2(topology, &ud, &b);
    for (int q = 1; q < 8; q++) {
        end_connect(p->b, q, p->a, 0);
    }
    for (int q = 0; q < 8; q++) {
        e_recv(p->b, &(struct post){
                         .q = q, .id = (uint64_t)q, .off = p->rx + (uint64_t)q * 128, .len = 128});
    }
    for (int q = 7; q >= 0; q--) {
        e_send(p->a, &(struct post){.id = 9,
                                    .op = IBV_WR_SEND,
                                    .off = (uint64_t)q,
                                    .len = 16,
                                    .ud_qpn = p->b->info.qpn[q]});
        e_done(p->a, 9, IBV_WC_SEND);
        T_EQ(e_got(p->b, (uint64_t)q, IBV_WC_RECV, GRH + 16).qp_num, p->b->info.qpn[q]);
        e_same(p->b, p->rx + (uint64_t)q * 128 + GRH, 16, p->a, (uint64_t)q);
    }
    pair_close(p);
}
