/* SPDX-License-Identifier: MIT */
/*
 * The other side is of another host, as far as that can be told: its NIC has an address of its own,
 * and packets are the only way there. It is killed, and the near one hears of it, in each phase:
 * from the kernel if nobody is left at the address, else from the witness, a process there that
 * knows nothing of the two.
 */
#include <stdio.h>
#include <unistd.h>

#include "node.h"

enum { NEAR, FAR };

/* Addresses that no other test has: there may be others at the same time. */
static struct node *start(enum t_peer_kind kind, unsigned host, char address[64])
{
    struct node *node = node_start(kind);
    unsigned pid = (unsigned)getpid();
    char nics[80];

    snprintf(address, 64, "127.%u.%u.%u", host == FAR ? 101 + pid / 65536 % 100 : 1,
             pid / 256 % 256, pid % 254 + 1);
    snprintf(nics, sizeof(nics), "via0=%s", address);
    node_place(node, nics, "roce");
    return node;
}

struct hosts {
    struct node *far, *heir, *witness, *near; /* the heir has opened nothing yet */
    char there[64], here[64];
    uint16_t port; /* that the passive side listens on */
    bool far_is_active;
};

/* The near one is this process: processes come first. */
static struct hosts begin(bool witnessed, bool far_is_active)
{
    struct hosts hosts = {.far_is_active = far_is_active};
    struct call wild = {.wildcard = true, .backlog = 1};

    hosts.far = start(T_PROCESS, FAR, hosts.there);
    hosts.heir = start(T_PROCESS, FAR, hosts.there);
    if (witnessed) {
        hosts.witness = start(T_PROCESS, FAR, hosts.there);
        node_bind(hosts.witness, &wild);
        T_EQ(wild.result, 0);
    }
    hosts.near = start(T_INLINE, NEAR, hosts.here);
    struct call call = {.backlog = 1};
    snprintf(call.host, sizeof(call.host), "%s", far_is_active ? hosts.here : hosts.there);
    node_bind(far_is_active ? hosts.near : hosts.far, &call);
    T_EQ(call.result, 0);
    hosts.port = call.port;
    return hosts;
}

static void end(struct hosts *hosts)
{
    if (hosts->witness)
        node_stop(hosts->witness);
    if (hosts->heir)
        node_kill(hosts->heir);
    node_stop(hosts->near);
    t_end();
}

/* One message arrives. */
static void talk(struct node *from, struct node *to)
{
    node_send(from);
    T_EQ(node_sent(from), IBV_WC_SUCCESS);
    T_EQ(node_received(to), IBV_WC_SUCCESS);
}

static void kill_far(struct hosts *hosts)
{
    node_kill(hosts->far);
    hosts->far = NULL;
}

static struct node *passive(const struct hosts *hosts)
{
    return hosts->far_is_active ? hosts->near : hosts->far;
}

static struct node *active(const struct hosts *hosts)
{
    return hosts->far_is_active ? hosts->far : hosts->near;
}

static void ask(const struct hosts *hosts)
{
    struct call call = {.port = hosts->port};

    snprintf(call.host, sizeof(call.host), "%s", hosts->far_is_active ? hosts->here : hosts->there);
    node_connect(active(hosts), &call);
    T_EQ(call.result, 0);
    node_expect(passive(hosts), RDMA_CM_EVENT_CONNECT_REQUEST);
}

static void connect_them(const struct hosts *hosts)
{
    ask(hosts);
    T_EQ(node_accept(passive(hosts), NULL), 0);
    node_expect(active(hosts), RDMA_CM_EVENT_ESTABLISHED);
    node_expect(passive(hosts), RDMA_CM_EVENT_ESTABLISHED);
}

/* ---- while connecting ---- */

static void dies_before_it_accepts(bool witnessed)
{
    struct hosts hosts = begin(witnessed, false);

    ask(&hosts);
    kill_far(&hosts);
    node_expect(hosts.near, RDMA_CM_EVENT_REJECTED);
    end(&hosts);
}

T_TEST(cm_far, dies_before_it_accepts)
{
    /* Shows that a request to a process that dies is rejected. */
    dies_before_it_accepts(false);
}

T_TEST(cm_far, dies_before_it_accepts_witnessed)
{
    /* Shows the same where others live at its address. */
    dies_before_it_accepts(true);
}

static void dies_before_its_answer(bool witnessed)
{
    struct hosts hosts = begin(witnessed, true);

    ask(&hosts);
    kill_far(&hosts);
    T_EQ(node_accept(hosts.near, NULL), 0);
    node_expect(hosts.near, RDMA_CM_EVENT_REJECTED);
    end(&hosts);
}

T_TEST(cm_far, dies_before_its_answer)
{
    /* Shows that accepting who has died ends in a rejection. */
    dies_before_its_answer(false);
}

T_TEST(cm_far, dies_before_its_answer_witnessed)
{
    /* Shows the same where others live at its address. */
    dies_before_its_answer(true);
}

static void dies_before_it_confirms(bool witnessed)
{
    struct hosts hosts = begin(witnessed, true);

    ask(&hosts);
    T_EQ(node_accept(hosts.near, NULL), 0); /* it never looks at the answer */
    kill_far(&hosts);
    node_expect(hosts.near, RDMA_CM_EVENT_REJECTED);
    end(&hosts);
}

T_TEST(cm_far, dies_before_it_confirms)
{
    /* Shows that who died with the answer in its hands is missed. */
    dies_before_it_confirms(false);
}

T_TEST(cm_far, dies_before_it_confirms_witnessed)
{
    /* Shows the same where others live at its address. */
    dies_before_it_confirms(true);
}

static void dies_before_it_is_confirmed(bool witnessed)
{
    struct hosts hosts = begin(witnessed, false);

    ask(&hosts);
    T_EQ(node_accept(hosts.far, NULL), 0);
    kill_far(&hosts);
    struct call heard = node_next(hosts.near);
    if (heard.type == RDMA_CM_EVENT_ESTABLISHED)
        heard = node_next(hosts.near);
    T_ASSERT(heard.type == RDMA_CM_EVENT_DISCONNECTED || heard.type == RDMA_CM_EVENT_REJECTED,
             "event %d", heard.type);
    end(&hosts);
}

T_TEST(cm_far, dies_before_it_is_confirmed)
{
    /* Shows that who confirms to somebody who is no more hears of that. */
    dies_before_it_is_confirmed(false);
}

T_TEST(cm_far, dies_before_it_is_confirmed_witnessed)
{
    /* Shows the same where others live at its address. */
    dies_before_it_is_confirmed(true);
}

/* ---- connected ---- */

static void dies_idle(bool witnessed, bool far_is_active)
{
    struct hosts hosts = begin(witnessed, far_is_active);

    connect_them(&hosts);
    kill_far(&hosts);
    node_expect(hosts.near, RDMA_CM_EVENT_DISCONNECTED);
    T_EQ(node_received(hosts.near), IBV_WC_WR_FLUSH_ERR);
    node_quiet(hosts.near);
    end(&hosts);
}

T_TEST(cm_far, passive_dies_idle)
{
    /* Shows that the end of a peer is heard of on a connection that never carried anything. */
    dies_idle(false, false);
}

T_TEST(cm_far, active_dies_idle)
{
    /* Shows that it makes no difference which side had asked for the connection. */
    dies_idle(false, true);
}

T_TEST(cm_far, passive_dies_idle_witnessed)
{
    /* Shows the same where others live at its address. */
    dies_idle(true, false);
}

T_TEST(cm_far, active_dies_idle_witnessed)
{
    /* Shows the same where others live at its address. */
    dies_idle(true, true);
}

static void dies_after_a_while(bool witnessed)
{
    struct hosts hosts = begin(witnessed, false);

    connect_them(&hosts);
    talk(hosts.near, hosts.far);
    talk(hosts.far, hosts.near);
    kill_far(&hosts);
    node_expect(hosts.near, RDMA_CM_EVENT_DISCONNECTED);
    end(&hosts);
}

T_TEST(cm_far, dies_after_a_while)
{
    /* Shows that a connection that was used and has gone quiet is watched as well. */
    dies_after_a_while(false);
}

T_TEST(cm_far, dies_after_a_while_witnessed)
{
    /* Shows the same where others live at its address. */
    dies_after_a_while(true);
}

static void dies_sent_to(bool witnessed)
{
    struct hosts hosts = begin(witnessed, false);

    connect_them(&hosts);
    kill_far(&hosts);
    node_send(hosts.near);
    T_EQ(node_sent(hosts.near), IBV_WC_RETRY_EXC_ERR);
    T_EQ(node_received(hosts.near), IBV_WC_WR_FLUSH_ERR);
    node_expect(hosts.near, RDMA_CM_EVENT_DISCONNECTED);
    end(&hosts);
}

T_TEST(cm_far, dies_sent_to)
{
    /* Shows that what is being sent fails, and that the connection is said to be over. */
    dies_sent_to(false);
}

T_TEST(cm_far, dies_sent_to_witnessed)
{
    /* Shows the same where others live at its address. */
    dies_sent_to(true);
}

static void dies_disconnecting(bool witnessed)
{
    struct hosts hosts = begin(witnessed, false);

    connect_them(&hosts);
    kill_far(&hosts);
    T_EQ(node_disconnect(hosts.near), 0);
    node_expect(hosts.near, RDMA_CM_EVENT_DISCONNECTED);
    end(&hosts);
}

T_TEST(cm_far, dies_disconnecting)
{
    /* Shows that a disconnection ends although nobody is there to answer. */
    dies_disconnecting(false);
}

T_TEST(cm_far, dies_disconnecting_witnessed)
{
    /* Shows the same where others live at its address. */
    dies_disconnecting(true);
}

/* ---- and lives again ---- */

static void lives_again(bool witnessed)
{
    struct hosts hosts = begin(witnessed, false);
    struct call call = {.port = hosts.port, .backlog = 1};

    connect_them(&hosts);
    kill_far(&hosts);
    hosts.far = hosts.heir;
    hosts.heir = NULL;
    snprintf(call.host, sizeof(call.host), "%s", hosts.there);
    node_bind(hosts.far, &call);
    T_EQ(call.result, 0);
    node_expect(hosts.near, RDMA_CM_EVENT_DISCONNECTED);
    node_destroy(hosts.near);
    connect_them(&hosts);
    talk(hosts.near, hosts.far);
    kill_far(&hosts);
    node_expect(hosts.near, RDMA_CM_EVENT_DISCONNECTED);
    end(&hosts);
}

T_TEST(cm_far, lives_again)
{
    /* Shows that who is started again at the same address and port is not taken for who died. */
    lives_again(false);
}

T_TEST(cm_far, lives_again_witnessed)
{
    /* Shows the same where others live at its address. */
    lives_again(true);
}
