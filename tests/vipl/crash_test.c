/* SPDX-License-Identifier: MIT */
/* Peers that are killed, in each state of their VI, and threads that share one. */
#include "end.h"

#include <pthread.h>

/* The other end is gone; this one closes alone. */
static void close_one(struct ends e)
{
    order_run(e.a, do_close, (struct order){0});
    t_peer_stop(e.a);
    t_end();
}

T_TEST(vipl_crash, idle)
{
    /* Shows that a request to a process that died while its VI was idle finds nobody. */
    struct ends e = ends_open((struct order){.level = VIP_SERVICE_RELIABLE_DELIVERY});
    struct end *a = end_of(e.a);
    _Alignas(8) char there[ADDRESS_ROOM];
    VIP_VI_ATTRIBUTES theirs;

    t_peer_kill(e.b);
    T_EQ(VipConnectRequest(a->vi, NULL, end_address(a, "who died", there), SOON_MS, &theirs),
         VIP_NO_MATCH);
    close_one(e);
}

/* Waits for a request and leaves it unanswered. */
static void do_wait_only(void **state, void *arg)
{
    struct order *order = arg;
    struct end *end = *state;
    _Alignas(8) char room[ADDRESS_ROOM];

    order->result = VipConnectWait(end->nic, end_address(end, order->name, room), SOON_MS,
                                   (VIP_NET_ADDRESS *)order->remote, &order->theirs, &end->conn);
}

struct asker {
    struct t_peer *end;
    _Atomic bool heard; /* the server has the request */
    struct order order;
    pthread_t thread;
};

static void *ask(void *arg)
{
    struct asker *asker = arg;
    struct end *end = end_of(asker->end);
    _Alignas(8) char there[ADDRESS_ROOM];

    do {
        asker->order.result =
            VipConnectRequest(end->vi, NULL, end_address(end, asker->order.name, there), SOON_MS,
                              &asker->order.theirs);
    } while (asker->order.result == VIP_NO_MATCH && !asker->heard);
    return NULL;
}

T_TEST(vipl_crash, server_pending)
{
    /*
     * Shows that who asks is not kept waiting by a server that dies instead of answering. On a
     * wire, where the dead say nothing, the request is sent again, and another process at that
     * address may answer.
     */
    struct ends e = ends_open((struct order){.level = VIP_SERVICE_RELIABLE_DELIVERY});
    struct asker asker = {.end = e.a};
    struct order serve = {0};

    fresh_name(serve.name);
    asker.order = serve;
    T_EQ(pthread_create(&asker.thread, NULL, ask, &asker), 0);
    T_EQ(order_run(e.b, do_wait_only, serve).result, VIP_SUCCESS);
    asker.heard = true;
    t_peer_kill(e.b);
    pthread_join(asker.thread, NULL);
    T_IN(asker.order.result, VIP_TIMEOUT, VIP_NO_MATCH);
    expect_state(e.a, VIP_STATE_IDLE);
    close_one(e);
}

T_TEST(vipl_crash, client_pending)
{
    /* Shows that a server can't accept a client that died, and its VI is idle afterwards. */
    struct ends e = ends_open((struct order){.level = VIP_SERVICE_RELIABLE_DELIVERY});
    struct order wait = {0}, request = {0};
    struct end *a = end_of(e.a);

    fresh_name(wait.name);
    memcpy(request.name, wait.name, NAME_BYTES);
    end_address(a, "", request.host);
    t_peer_begin(e.b, do_request, &request, sizeof(request));
    T_EQ(order_run(e.a, do_wait_only, wait).result, VIP_SUCCESS);
    t_peer_kill(e.b);
    VIP_RETURN result = VipConnectAccept(a->conn, a->vi);
    /* The news of the death may come after the connection. */
    T_IN(result, VIP_SUCCESS, VIP_TIMEOUT);
    expect_state(e.a, result ? VIP_STATE_IDLE : VIP_STATE_ERROR);
    close_one(e);
}

/* The connection of e.a, which has one receive, is lost: flushed, in error, told once. */
static void expect_lost(struct ends e)
{
    struct end *a = end_of(e.a);

    expect_error(e.a, VIP_ERROR_CONN_LOST);
    expect_state(e.a, VIP_STATE_ERROR);
    expect_done(e.a, RECV, 0, VIP_STATUS_OP_RECEIVE | VIP_STATUS_DESC_FLUSHED_ERROR, 0);
    post_send(e.a, 2, 8);
    expect_done(e.a, SEND, 2, VIP_STATUS_DESC_FLUSHED_ERROR, 0);
    T_EQ(VipDisconnect(a->vi), VIP_SUCCESS);
    T_EQ(VipDestroyVi(a->vi), VIP_SUCCESS);
    T_EQ(end_error_count(a, VIP_ERROR_CONN_LOST), 1);
    close_one(e);
}

static void told_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that an end that does nothing hears of the other's death, unless that is on a wire. */
    struct ends e = ends_connect(level);

    post_recv(e.a, 0, 8);
    t_peer_kill(e.b);
    expect_lost(e);
}
T_LEVELS(vipl_crash, told)

static void told_why_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that the device says that the VI has failed, whoever noticed first. */
    struct ends e = ends_connect(level);

    post_recv(e.a, 0, 8);
    t_peer_kill(e.b);
    expect_error(e.a, VIP_ERROR_RDMA_TRANSPORT);
    expect_lost(e);
}
T_RELIABLE_LEVELS(vipl_crash, told_why)

static void connected_at(VIP_RELIABILITY_LEVEL level)
{
    /* Shows that it finds out, at the latest, when it sends. */
    struct ends e = ends_connect(level);

    post_recv(e.a, 0, 8);
    t_peer_kill(e.b);
    post_send(e.a, 1, 8);
    struct order order = order_run(e.a, do_take, (struct order){.which = SEND});
    T_EQ(order.result, VIP_DESCRIPTOR_ERROR);
    T_EQ(order.found, 1);
    T_IN(order.status & VIP_STATUS_ERROR_MASK, VIP_STATUS_TRANSPORT_ERROR,
         VIP_STATUS_DESC_FLUSHED_ERROR);
    expect_lost(e);
}
T_RELIABLE_LEVELS(vipl_crash, connected)

T_TEST(vipl_crash, in_error)
{
    /* Shows that an end in error is not moved by the other's death. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);

    order_run(e.b, do_disconnect, (struct order){0});
    expect_state(e.a, VIP_STATE_ERROR);
    t_peer_kill(e.b);
    T_EQ(order_run(e.a, do_disconnect, (struct order){0}).result, VIP_SUCCESS);
    expect_state(e.a, VIP_STATE_IDLE);
    close_one(e);
}

T_TEST(vipl_crash, sending)
{
    /* Shows that sends to an end that dies all complete, in order, none twice. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);

    for (int i = 0; i < 4; i++)
        post_recv(e.b, i, 8);
    for (int i = 0; i < 4; i++)
        post_send(e.a, i, 8);
    t_peer_kill(e.b);
    for (int i = 4; i < SLOTS; i++)
        post_send(e.a, i, 8);
    for (int i = 0; i < SLOTS; i++) {
        struct order order = order_run(e.a, do_take, (struct order){.which = SEND});

        T_EQ(order.found, i);
        T_ASSERT(order.status & VIP_STATUS_DONE);
    }
    expect_empty(e.a, SEND);
    expect_state(e.a, VIP_STATE_ERROR);
    close_one(e);
}

/* ---- threads ---- */

enum { THREADS = 4, EACH = 500 };

struct worker {
    struct end *end;
    _Atomic int *taken;
    _Atomic bool *complete; /* of each slot */
    int slot, failed;
    pthread_t thread;
};

/* Takes one, whoever posted it, and tells him. */
static VIP_RETURN take_for_all(struct worker *w)
{
    VIP_DESCRIPTOR *done;
    VIP_RETURN result = VipSendDone(w->end->vi, &done);

    if (result == VIP_SUCCESS) {
        atomic_fetch_add(w->taken, 1);
        w->complete[((char *)done - w->end->area) / DESCRIPTOR_ROOM] = true;
    }
    return result;
}

static void *post_many(void *arg)
{
    struct worker *w = arg;

    for (int i = 0; i < EACH && !w->failed; i++) {
        VIP_DESCRIPTOR *descriptor = end_prepare(w->end, w->slot, 8);

        w->complete[w->slot] = false;
        w->failed |= VipPostSend(w->end->vi, descriptor, w->end->handle) != VIP_SUCCESS;
        /* Takes what is complete, and goes on when its own is. */
        while (!w->failed && !w->complete[w->slot]) {
            if (take_for_all(w) == VIP_NOT_DONE)
                t_relax();
        }
    }
    return NULL;
}

T_TEST(vipl_thread, one_queue)
{
    /* Shows that threads may share a send queue: all that is posted completes, each once. */
    struct ends e = ends_connect(VIP_SERVICE_UNRELIABLE);
    struct worker workers[THREADS];
    struct end *a = end_of(e.a);
    _Atomic int taken = 0;
    _Atomic bool complete[THREADS];
    VIP_DESCRIPTOR *done;

    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.end = a, .slot = i, .taken = &taken, .complete = complete};
        T_EQ(pthread_create(&workers[i].thread, NULL, post_many, &workers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        T_EQ(workers[i].failed, 0);
    }
    T_EQ(VipSendDone(a->vi, &done), VIP_DESCRIPTOR_ERROR);
    T_ASSERT(!done);
    T_EQ(taken, THREADS * EACH);
    ends_close(e);
    t_end();
}

static void *open_and_close(void *arg)
{
    struct worker *w = arg;

    for (int i = 0; i < 10 && !w->failed; i++) {
        VIP_NIC_HANDLE nic;
        VIP_PROTECTION_HANDLE ptag;
        VIP_VI_HANDLE vi;

        w->failed |= VipOpenNic(test_device(), &nic) != VIP_SUCCESS;
        if (w->failed)
            break;
        w->failed |= VipCreatePtag(nic, &ptag) != VIP_SUCCESS;
        VIP_VI_ATTRIBUTES attributes = {VIP_SERVICE_RELIABLE_DELIVERY, 64, NULL, ptag, 0, 0};
        w->failed |= VipCreateVi(nic, &attributes, NULL, NULL, &vi) != VIP_SUCCESS;
        w->failed |= VipCloseNic(nic) != VIP_SUCCESS;
    }
    return NULL;
}

T_TEST(vipl_thread, opening)
{
    /* Shows that threads may open, use and close NICs at the same time. */
    struct worker workers[THREADS] = {0};

    for (int i = 0; i < THREADS; i++)
        T_EQ(pthread_create(&workers[i].thread, NULL, open_and_close, &workers[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        T_EQ(workers[i].failed, 0);
    }
    t_end();
}
