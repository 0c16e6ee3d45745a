/* SPDX-License-Identifier: MIT */
/* Peers that both ask: in either order, with any addresses, and what may go wrong. */
#include "end.h"

#include <stdio.h>

enum { SHORT_MS = 60 };

struct peers {
    struct end a, b;
    _Alignas(8) char at_a[ADDRESS_ROOM], at_b[ADDRESS_ROOM];
    VIP_VI_ATTRIBUTES theirs;
};

static void peers_open(struct peers *p, const char *first, const char *second)
{
    char name[NAME_BYTES], whole[2 * NAME_BYTES];

    fresh_name(name);
    end_open(&p->a);
    end_open(&p->b);
    T_EQ(end_create_vi(&p->a, VIP_SERVICE_RELIABLE_DELIVERY, &p->a.vi), VIP_SUCCESS);
    T_EQ(end_create_vi(&p->b, VIP_SERVICE_RELIABLE_DELIVERY, &p->b.vi), VIP_SUCCESS);
    snprintf(whole, sizeof(whole), "%s%s", first, name);
    end_address(&p->a, whole, p->at_a);
    snprintf(whole, sizeof(whole), "%s%s", second, name);
    end_address(&p->b, whole, p->at_b);
}

static void peers_close(struct peers *p)
{
    end_close(&p->a);
    end_close(&p->b);
    t_end();
}

static VIP_RETURN ask(VIP_VI_HANDLE vi, void *local, void *remote, VIP_ULONG timeout)
{
    return VipConnectPeerRequest(vi, local, remote, timeout);
}

static VIP_VI_STATE state_of(VIP_VI_HANDLE vi)
{
    VIP_VI_STATE state;

    T_EQ(VipQueryVi(vi, &state, NULL, NULL, NULL), VIP_SUCCESS);
    return state;
}

/* Polls until it is over. */
static VIP_RETURN peer_result(VIP_VI_HANDLE vi, VIP_VI_ATTRIBUTES *theirs)
{
    int64_t deadline = t_deadline(SOON_MS);
    VIP_RETURN result;

    for (;;) {
        result = VipConnectPeerDone(vi, theirs);
        if (result != VIP_NOT_DONE || t_expired(deadline))
            return result;
        t_relax();
    }
}

static void both_ask(const char *first, const char *second, bool b_begins)
{
    struct peers p;
    VIP_DESCRIPTOR *done;

    peers_open(&p, first, second);
    T_EQ(VipPostRecv(p.b.vi, end_prepare(&p.b, 0, 8), p.b.handle), VIP_SUCCESS);
    struct end *begins = b_begins ? &p.b : &p.a, *follows = b_begins ? &p.a : &p.b;
    void *at = b_begins ? p.at_b : p.at_a, *other = b_begins ? p.at_a : p.at_b;
    T_EQ(ask(begins->vi, at, other, SOON_MS), VIP_SUCCESS);
    T_EQ(VipConnectPeerDone(begins->vi, &p.theirs), VIP_NOT_DONE);
    T_EQ(state_of(begins->vi), VIP_STATE_CONNECT_PENDING);
    T_EQ(ask(follows->vi, other, at, SOON_MS), VIP_SUCCESS);
    T_EQ(VipConnectPeerWait(begins->vi, &p.theirs), VIP_SUCCESS);
    T_EQ(p.theirs.MaxTransferSize, MTS);
    T_EQ(peer_result(follows->vi, &p.theirs), VIP_SUCCESS);
    T_EQ(VipConnectPeerDone(follows->vi, &p.theirs), VIP_INVALID_STATE);
    T_EQ(state_of(p.a.vi), VIP_STATE_CONNECTED);
    T_EQ(state_of(p.b.vi), VIP_STATE_CONNECTED);
    T_EQ(VipPostSend(p.a.vi, end_prepare(&p.a, 0, 8), p.a.handle), VIP_SUCCESS);
    T_EQ(end_take(p.a.vi, SEND, &done), VIP_SUCCESS);
    T_EQ(end_take(p.b.vi, RECV, &done), VIP_SUCCESS);
    peers_close(&p);
}

T_TEST(vipl_peer, smaller_first)
{
    /* Shows that it does not matter who asks first: here who listens. */
    both_ask("a", "b", false);
}

T_TEST(vipl_peer, greater_first)
{
    /* And here who sends the request. */
    both_ask("b", "a", false);
}

T_TEST(vipl_peer, same_address)
{
    /* Shows that the two may have the very same address. */
    both_ask("", "", false);
}

T_TEST(vipl_peer, same_address_other_first)
{
    /* The same, the other way round. */
    both_ask("", "", true);
}

T_TEST(vipl_peer, timeout)
{
    /* Shows that an attempt that nobody answers ends in time, for either role; then the VI is idle.
     */
    struct peers p;

    peers_open(&p, "a", "b");
    T_EQ(ask(p.a.vi, p.at_a, p.at_b, SHORT_MS), VIP_SUCCESS);
    T_EQ(VipConnectPeerWait(p.a.vi, &p.theirs), VIP_TIMEOUT);
    T_EQ(state_of(p.a.vi), VIP_STATE_IDLE);
    T_EQ(VipConnectPeerWait(p.a.vi, &p.theirs), VIP_INVALID_STATE);
    T_EQ(ask(p.b.vi, p.at_b, p.at_a, SHORT_MS), VIP_SUCCESS);
    T_EQ(peer_result(p.b.vi, &p.theirs), VIP_TIMEOUT);
    T_EQ(state_of(p.b.vi), VIP_STATE_IDLE);
    peers_close(&p);
}

T_TEST(vipl_peer, no_match)
{
    /* Shows that who is wanted, but wants somebody else, is no match. */
    struct peers p;
    _Alignas(8) char third[ADDRESS_ROOM];

    peers_open(&p, "b", "a");
    end_address(&p.a, "somebody", third);
    T_EQ(ask(p.b.vi, p.at_b, third, SOON_MS), VIP_SUCCESS);
    T_EQ(ask(p.a.vi, p.at_a, p.at_b, SOON_MS), VIP_SUCCESS);
    T_EQ(VipConnectPeerWait(p.a.vi, &p.theirs), VIP_NO_MATCH);
    T_EQ(VipConnectPeerDone(p.b.vi, &p.theirs), VIP_NOT_DONE);
    T_EQ(VipDisconnect(p.b.vi), VIP_SUCCESS);
    T_EQ(VipConnectPeerDone(p.b.vi, &p.theirs), VIP_INVALID_STATE);
    peers_close(&p);
}

static void mismatch(VIP_RELIABILITY_LEVEL level, VIP_ULONG mts, VIP_RETURN code)
{
    struct peers p;

    peers_open(&p, "a", "b");
    VIP_VI_ATTRIBUTES attributes = end_attributes(&p.b, level);
    attributes.MaxTransferSize = mts;
    T_EQ(VipSetViAttributes(p.b.vi, &attributes), VIP_SUCCESS);
    T_EQ(ask(p.a.vi, p.at_a, p.at_b, SOON_MS), VIP_SUCCESS);
    T_EQ(ask(p.b.vi, p.at_b, p.at_a, SOON_MS), VIP_SUCCESS);
    T_EQ(VipConnectPeerWait(p.a.vi, &p.theirs), code);
    T_EQ(VipConnectPeerWait(p.b.vi, &p.theirs), code);
    T_EQ(state_of(p.a.vi), VIP_STATE_IDLE);
    T_EQ(state_of(p.b.vi), VIP_STATE_IDLE);
    peers_close(&p);
}

T_TEST(vipl_peer, levels_differ)
{
    /* Shows that both hear of it when their levels differ. */
    mismatch(VIP_SERVICE_RELIABLE_RECEPTION, MTS, VIP_INVALID_RELIABILITY_LEVEL);
}

T_TEST(vipl_peer, sizes_differ)
{
    /* Shows that both hear of it when their transfer sizes differ. */
    mismatch(VIP_SERVICE_RELIABLE_DELIVERY, MTS / 2, VIP_INVALID_MTU);
}

T_TEST(vipl_peer, bad_parameters)
{
    /* Shows what is refused at once. */
    struct peers p;

    peers_open(&p, "a", "b");
    T_EQ(ask(NULL, p.at_a, p.at_b, SOON_MS), VIP_INVALID_PARAMETER);
    T_EQ(ask(p.a.vi, NULL, p.at_b, SOON_MS), VIP_INVALID_PARAMETER);
    T_EQ(ask(p.a.vi, p.at_a, NULL, SOON_MS), VIP_INVALID_PARAMETER);
    T_EQ(ask(p.a.vi, p.at_a, p.at_b, 0), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectPeerDone(NULL, &p.theirs), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectPeerDone(p.a.vi, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectPeerWait(NULL, &p.theirs), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectPeerWait(p.a.vi, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectPeerWait(p.a.vi, &p.theirs), VIP_INVALID_STATE);
    T_EQ(ask(p.a.vi, p.at_a, p.at_b, SOON_MS), VIP_SUCCESS);
    T_EQ(ask(p.a.vi, p.at_a, p.at_b, SOON_MS), VIP_INVALID_STATE);
    peers_close(&p);
}

enum { MANY = 12 };

T_TEST(vipl_peer, many)
{
    /* Shows that many requests may be under way at once, as programs of the time made them. */
    struct peers p;
    VIP_VI_HANDLE a[MANY], b[MANY];
    _Alignas(8) char at_a[MANY][ADDRESS_ROOM], at_b[MANY][ADDRESS_ROOM];

    peers_open(&p, "a", "b");
    for (int i = 0; i < MANY; i++) {
        char name[NAME_BYTES];

        fresh_name(name);
        end_address(&p.a, name, at_a[i]);
        fresh_name(name);
        end_address(&p.b, i % 3 ? name : at_a[i] + 4 + p.a.limits.NicAddressLen, at_b[i]);
        T_EQ(end_create_vi(&p.a, VIP_SERVICE_UNRELIABLE, &a[i]), VIP_SUCCESS);
        T_EQ(end_create_vi(&p.b, VIP_SERVICE_UNRELIABLE, &b[i]), VIP_SUCCESS);
        T_EQ(ask(a[i], at_a[i], at_b[i], SOON_MS), VIP_SUCCESS);
    }
    for (int i = MANY - 1; i >= 0; i--)
        T_EQ(ask(b[i], at_b[i], at_a[i], SOON_MS), VIP_SUCCESS);
    for (int i = 0; i < MANY; i++) {
        T_EQ(VipConnectPeerWait(a[i], &p.theirs), VIP_SUCCESS);
        T_EQ(VipConnectPeerWait(b[i], &p.theirs), VIP_SUCCESS);
    }
    peers_close(&p);
}

enum { CROWD = 8 };

T_TEST(vipl_peer, same_address_crowd)
{
    /* Shows that any number of pairs find together at one address, on two NICs and within one. */
    struct peers p;
    VIP_VI_HANDLE vis[CROWD];

    peers_open(&p, "", "");
    for (int i = 0; i < CROWD; i++) {
        struct end *end = i % 3 ? &p.b : &p.a;

        T_EQ(end_create_vi(end, VIP_SERVICE_RELIABLE_DELIVERY, &vis[i]), VIP_SUCCESS);
        T_EQ(ask(vis[i], p.at_a, p.at_b, SOON_MS), VIP_SUCCESS);
    }
    for (int i = 0; i < CROWD; i++)
        T_EQ(VipConnectPeerWait(vis[i], &p.theirs), VIP_SUCCESS);
    peers_close(&p);
}

/* ---- two processes ---- */

static void do_peer_ask(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;
    _Alignas(8) char here[ADDRESS_ROOM], there[ADDRESS_ROOM];

    order->result = ask(end->vi, end_address(end, order->name, here),
                        host_address(order->host, order->other, there), SOON_MS);
    if (!order->result)
        order->result = VipConnectPeerWait(end->vi, &order->theirs);
}

T_TEST(vipl_peer, two_processes)
{
    /* Shows that it works between processes, and that messages pass. */
    struct ends e = ends_open((struct order){.level = VIP_SERVICE_RELIABLE_DELIVERY});
    struct order a = {0}, b = {0};

    fresh_name(a.name);
    fresh_name(b.name);
    memcpy(a.other, b.name, NAME_BYTES);
    memcpy(b.other, a.name, NAME_BYTES);
    end_address(end_of(e.a), "", a.host);
    end_address(end_of(e.a), "", b.host);
    t_peer_begin(e.b, do_peer_ask, &b, sizeof(b));
    a = order_run(e.a, do_peer_ask, a);
    t_peer_finish(e.b);
    T_EQ(a.result, VIP_SUCCESS);
    T_EQ(b.result, VIP_SUCCESS);
    post_recv(e.b, 0, 8);
    post_send(e.a, 0, 8);
    expect_done(e.b, RECV, 0, VIP_STATUS_OP_RECEIVE, 8);
    ends_close(e);
    t_end();
}
