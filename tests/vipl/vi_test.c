/* SPDX-License-Identifier: MIT */
/* VIs: their attributes, their limits, and every state with every call. */
#include "end.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

static void refused(struct end *a, const char *what, VIP_VI_ATTRIBUTES attributes, VIP_RETURN code)
{
    VIP_VI_HANDLE vi = NULL;
    VIP_RETURN created = VipCreateVi(a->nic, &attributes, NULL, NULL, &vi);
    VIP_RETURN set = VipSetViAttributes(a->vi, &attributes);

    T_CHECK(created == code && set == code, "%s: %d, %d, not %d", what, created, set, code);
    T_CHECK(!vi, "%s", what);
}

T_TEST(vipl_vi, attributes_refused)
{
    /* Shows every attribute that can't be, when a VI is made and when it is changed. */
    struct end a, b;
    VIP_VI_ATTRIBUTES good, bad;

    end_open(&a);
    end_open(&b);
    T_EQ(end_create_vi(&a, VIP_SERVICE_UNRELIABLE, &a.vi), VIP_SUCCESS);
    good = bad = end_attributes(&a, VIP_SERVICE_UNRELIABLE);
    bad.ReliabilityLevel = 0;
    refused(&a, "no level", bad, VIP_INVALID_RELIABILITY_LEVEL);
    bad.ReliabilityLevel = 3;
    refused(&a, "two levels", bad, VIP_INVALID_RELIABILITY_LEVEL);
    bad.ReliabilityLevel = 8;
    refused(&a, "an unknown level", bad, VIP_INVALID_RELIABILITY_LEVEL);
    bad.ReliabilityLevel = VIP_SERVICE_UNRELIABLE | VIP_SERVICE_DFC;
    refused(&a, "a vendor's addition", bad, VIP_INVALID_RELIABILITY_LEVEL);
    bad = good;
    bad.MaxTransferSize = 0;
    refused(&a, "no transfer size", bad, VIP_INVALID_MTU);
    bad.MaxTransferSize = a.limits.MaxTransferSize + 1;
    refused(&a, "too large", bad, VIP_INVALID_MTU);
    bad = good;
    bad.QoS = &a;
    refused(&a, "QoS", bad, VIP_INVALID_QOS);
    bad = good;
    bad.Ptag = NULL;
    refused(&a, "no tag", bad, VIP_INVALID_PTAG);
    bad.Ptag = b.ptag;
    refused(&a, "somebody else's tag", bad, VIP_INVALID_PTAG);
    bad.Ptag = a.vi;
    refused(&a, "not a tag", bad, VIP_INVALID_PTAG);
    bad = good;
    bad.EnableRdmaRead = VIP_TRUE;
    refused(&a, "RDMA read", bad, VIP_INVALID_RDMAREAD);
    T_EQ(VipCreateVi(a.nic, NULL, NULL, NULL, &b.vi), VIP_INVALID_PARAMETER);
    T_EQ(VipCreateVi(a.nic, &good, NULL, NULL, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipCreateVi(a.nic, &good, a.vi, NULL, &b.vi), VIP_INVALID_PARAMETER);
    T_EQ(VipCreateVi(a.nic, &good, NULL, a.vi, &b.vi), VIP_INVALID_PARAMETER);
    T_EQ(VipSetViAttributes(a.vi, NULL), VIP_INVALID_PARAMETER);
    end_close(&a);
    end_close(&b);
    t_end();
}

T_TEST(vipl_vi, attributes)
{
    /* Shows that a VI has the attributes it was given, is idle and empty, and can be changed. */
    struct end a;
    VIP_VI_ATTRIBUTES attributes, seen;
    VIP_VI_STATE state;
    VIP_BOOLEAN send_empty, recv_empty;
    VIP_DESCRIPTOR *done;

    end_open(&a);
    attributes = end_attributes(&a, VIP_SERVICE_UNRELIABLE);
    T_EQ(VipCreateVi(a.nic, &attributes, NULL, NULL, &a.vi), VIP_SUCCESS);
    T_EQ(VipQueryVi(a.vi, &state, &seen, &send_empty, &recv_empty), VIP_SUCCESS);
    T_EQ(state, VIP_STATE_IDLE);
    T_ASSERT(send_empty && recv_empty);
    T_MEMEQ(&seen, &attributes, sizeof(seen));
    T_EQ(VipPostRecv(a.vi, end_prepare(&a, 0, 8), a.handle), VIP_SUCCESS);
    T_EQ(VipQueryVi(a.vi, NULL, NULL, &send_empty, &recv_empty), VIP_SUCCESS);
    T_ASSERT(send_empty && !recv_empty);

    attributes = end_attributes(&a, VIP_SERVICE_RELIABLE_RECEPTION);
    attributes.MaxTransferSize = a.limits.MaxTransferSize;
    T_EQ(VipSetViAttributes(a.vi, &attributes), VIP_SUCCESS);
    attributes.MaxTransferSize = 1;
    T_EQ(VipSetViAttributes(a.vi, &attributes), VIP_SUCCESS);
    T_EQ(VipQueryVi(a.vi, NULL, &seen, NULL, NULL), VIP_SUCCESS);
    T_MEMEQ(&seen, &attributes, sizeof(seen));
    T_EQ(VipRecvDone(a.vi, &done), VIP_NOT_DONE); /* still posted */
    VIP_PROTECTION_HANDLE other;
    T_EQ(VipCreatePtag(a.nic, &other), VIP_SUCCESS);
    attributes.Ptag = other;
    T_EQ(VipSetViAttributes(a.vi, &attributes), VIP_SUCCESS);
    T_EQ(VipDestroyPtag(a.nic, other), VIP_ERROR_RESOURCE);
    /* The receive lies in memory with the tag the VI had. */
    T_EQ(VipRecvDone(a.vi, &done), VIP_DESCRIPTOR_ERROR);
    T_ASSERT(done && done->CS.Status & VIP_STATUS_PROTECTION_ERROR);
    T_EQ(VipDestroyVi(a.vi), VIP_SUCCESS);
    T_EQ(VipDestroyPtag(a.nic, other), VIP_SUCCESS);
    end_close(&a);
    t_end();
}

T_TEST(vipl_vi, limit)
{
    /* Shows that exactly MaxVI can be made, and one more when one is gone. */
    struct end a;

    end_open(&a);
    VIP_VI_HANDLE *vis = calloc(a.limits.MaxVI + 1, sizeof(*vis));
    for (VIP_ULONG i = 0; i < a.limits.MaxVI; i++)
        T_EQ(end_create_vi(&a, VIP_SERVICE_UNRELIABLE, &vis[i]), VIP_SUCCESS);
    T_EQ(end_create_vi(&a, VIP_SERVICE_UNRELIABLE, &vis[a.limits.MaxVI]), VIP_ERROR_RESOURCE);
    T_EQ(VipDestroyVi(vis[0]), VIP_SUCCESS);
    T_EQ(VipDestroyVi(vis[0]), VIP_INVALID_PARAMETER);
    T_EQ(end_create_vi(&a, VIP_SERVICE_UNRELIABLE, &vis[0]), VIP_SUCCESS);
    free(vis);
    end_close(&a);
    t_end();
}

T_TEST(vipl_vi, destroy)
{
    /* Shows that a VI with descriptors left can't go, and how they are got rid of. */
    struct end a;
    VIP_DESCRIPTOR *done;

    end_open(&a);
    T_EQ(end_create_vi(&a, VIP_SERVICE_RELIABLE_DELIVERY, &a.vi), VIP_SUCCESS);
    T_EQ(VipPostRecv(a.vi, end_prepare(&a, 0, 8), a.handle), VIP_SUCCESS);
    T_EQ(VipDestroyVi(a.vi), VIP_ERROR_RESOURCE);
    T_EQ(VipDisconnect(a.vi), VIP_SUCCESS);
    T_EQ(VipDestroyVi(a.vi), VIP_ERROR_RESOURCE); /* complete, but not taken */
    T_EQ(VipRecvDone(a.vi, &done), VIP_DESCRIPTOR_ERROR);
    T_EQ(done->CS.Status, VIP_STATUS_DONE | VIP_STATUS_OP_RECEIVE | VIP_STATUS_DESC_FLUSHED_ERROR);
    T_EQ(VipDestroyVi(a.vi), VIP_SUCCESS);
    T_EQ(VipDisconnect(a.vi), VIP_INVALID_PARAMETER);
    end_close(&a);
    t_end();
}

/* ---- every state with every call ---- */

struct peer_thread {
    struct end *end;
    char room[ADDRESS_ROOM] __attribute__((aligned(8)));
    VIP_RETURN result;
    VIP_VI_ATTRIBUTES theirs;
    pthread_t thread;
};

static void *request_forever(void *arg)
{
    struct peer_thread *t = arg;

    do {
        t->result = VipConnectRequest(t->end->vi, NULL, (VIP_NET_ADDRESS *)t->room, VIP_INFINITE,
                                      &t->theirs);
    } while (t->result == VIP_NO_MATCH);
    return NULL;
}

/* A bystander asks for a connection: only with an idle VI could it be accepted. */
static void accept_in(VIP_VI_STATE state, struct end *a, struct end *other)
{
    struct end asks = *other;
    struct peer_thread t = {.end = &asks};
    _Alignas(8) char remote[ADDRESS_ROOM];
    VIP_VI_ATTRIBUTES theirs;
    char name[NAME_BYTES];

    if (state == VIP_STATE_IDLE)
        return;
    fresh_name(name);
    end_address(a, name, t.room);
    T_EQ(end_create_vi(&asks, VIP_SERVICE_RELIABLE_DELIVERY, &asks.vi), VIP_SUCCESS);
    T_EQ(pthread_create(&t.thread, NULL, request_forever, &t), 0);
    T_EQ(VipConnectWait(a->nic, (VIP_NET_ADDRESS *)t.room, SOON_MS, (VIP_NET_ADDRESS *)remote,
                        &theirs, &a->conn),
         VIP_SUCCESS);
    T_EQ(VipConnectAccept(a->conn, a->vi), VIP_INVALID_STATE);
    T_EQ(VipConnectReject(a->conn), VIP_SUCCESS);
    pthread_join(t.thread, NULL);
    T_EQ(t.result, VIP_REJECT);
}

/* Calls about connections. A peer's request, but no other, has a result to wait for. */
static void connecting_in(VIP_VI_STATE state, struct end *a, struct end *other, bool peer)
{
    bool idle = state == VIP_STATE_IDLE;
    _Alignas(8) char here[ADDRESS_ROOM], there[ADDRESS_ROOM];
    VIP_VI_ATTRIBUTES theirs;

    end_address(a, "here", here);
    end_address(other, "nobody is here", there);
    T_EQ(VipConnectRequest(a->vi, (VIP_NET_ADDRESS *)here, (VIP_NET_ADDRESS *)there, SOON_MS,
                           &theirs),
         idle ? VIP_NO_MATCH : VIP_INVALID_STATE);
    if (!idle)
        T_EQ(VipConnectPeerRequest(a->vi, (VIP_NET_ADDRESS *)here, (VIP_NET_ADDRESS *)there,
                                   SOON_MS),
             VIP_INVALID_STATE);
    T_EQ(VipConnectPeerDone(a->vi, &theirs), peer ? VIP_NOT_DONE : VIP_INVALID_STATE);
    if (!peer)
        T_EQ(VipConnectPeerWait(a->vi, &theirs), VIP_INVALID_STATE);
    accept_in(state, a, other);
}

/* A descriptor that a handler was given. */
struct noticed {
    VIP_DESCRIPTOR *descriptor;
    _Atomic int calls;
};

static void note_descriptor(VIP_PVOID context, VIP_NIC_HANDLE nic, VIP_VI_HANDLE vi,
                            VIP_DESCRIPTOR *descriptor)
{
    struct noticed *noticed = context;

    (void)nic;
    (void)vi;
    noticed->descriptor = descriptor;
    atomic_fetch_add(&noticed->calls, 1);
}

/* Calls on empty queues. */
static void taking_in(struct end *a)
{
    VIP_DESCRIPTOR *done;
    VIP_BOOLEAN deferred;

    T_EQ(VipRecvDone(a->vi, &done), VIP_DESCRIPTOR_ERROR);
    T_ASSERT(!done);
    T_EQ(VipSendDone(a->vi, &done), VIP_DESCRIPTOR_ERROR);
    T_ASSERT(!done);
    T_EQ(VipSendWait(a->vi, SOON_MS, &done), VIP_DESCRIPTOR_ERROR);
    T_ASSERT(!done);
    T_EQ(VipRecvWait(a->vi, SOON_MS, &done), VIP_DESCRIPTOR_ERROR);
    T_ASSERT(!done);
    T_EQ(VipPostDeferredSends(a->vi, VIP_TRUE, &deferred), VIP_SUCCESS);
    T_EQ(VipSetUserData(a->vi, a), VIP_SUCCESS);
    T_ASSERT(VipGetUserData(a->vi) == a);
}

/* What is done with a VI in a state, and what comes of it. `end` is a, `other` a bystander. */
static void calls_in(VIP_VI_STATE state, struct end *a, struct end *other, bool peer)
{
    VIP_VI_ATTRIBUTES attributes = end_attributes(a, VIP_SERVICE_RELIABLE_DELIVERY);
    bool idle = state == VIP_STATE_IDLE;
    struct noticed noticed = {0};
    VIP_DESCRIPTOR *done;
    VIP_VI_STATE seen;

    T_EQ(VipQueryVi(a->vi, &seen, NULL, NULL, NULL), VIP_SUCCESS);
    T_EQ(seen, state);
    T_EQ(VipSetViAttributes(a->vi, &attributes), idle ? VIP_SUCCESS : VIP_INVALID_STATE);
    connecting_in(state, a, other, peer);
    if (!idle)
        T_EQ(VipDestroyVi(a->vi), VIP_INVALID_STATE);
    taking_in(a);

    /* Receives: kept before there is a connection, flushed after. */
    T_EQ(VipPostRecv(a->vi, end_prepare(a, 0, 8), a->handle), VIP_SUCCESS);
    VIP_RETURN result = VipRecvDone(a->vi, &done);
    T_EQ(result, state == VIP_STATE_ERROR ? VIP_DESCRIPTOR_ERROR : VIP_NOT_DONE);
    if (state == VIP_STATE_ERROR)
        T_EQ(done->CS.Status,
             VIP_STATUS_DONE | VIP_STATUS_OP_RECEIVE | VIP_STATUS_DESC_FLUSHED_ERROR);

    /* Sends: flushed unless there is one. */
    if (state != VIP_STATE_CONNECTED) {
        T_EQ(VipPostSend(a->vi, end_prepare(a, 1, 8), a->handle), VIP_SUCCESS);
        T_EQ(VipSendDone(a->vi, &done), VIP_DESCRIPTOR_ERROR);
        T_ASSERT(done == end_descriptor(a, 1));
        T_EQ(done->CS.Status, VIP_STATUS_DONE | VIP_STATUS_OP_SEND | VIP_STATUS_DESC_FLUSHED_ERROR);
        T_EQ(done->CS.Length, 0);
        T_EQ(VipSendNotify(a->vi, &noticed, note_descriptor), VIP_SUCCESS);
        T_EQ(VipPostSend(a->vi, end_prepare(a, 2, 8), a->handle), VIP_SUCCESS);
        T_UNTIL(atomic_load(&noticed.calls) == 1, SOON_MS);
        T_ASSERT(noticed.descriptor == end_descriptor(a, 2));
    }
}

/* From any state to idle. What was posted is complete. Nobody else may use a VI that is destroyed.
 */
static void end_of_state(struct end *a, struct peer_thread *asks)
{
    VIP_VI_STATE state;
    VIP_DESCRIPTOR *done;

    T_EQ(VipDisconnect(a->vi), VIP_SUCCESS);
    T_EQ(VipQueryVi(a->vi, &state, NULL, NULL, NULL), VIP_SUCCESS);
    T_EQ(state, VIP_STATE_IDLE);
    if (asks) {
        pthread_join(asks->thread, NULL);
        T_EQ(asks->result, VIP_INVALID_STATE);
    }
    while (VipRecvDone(a->vi, &done) == VIP_DESCRIPTOR_ERROR && done)
        T_EQ(done->CS.Status & VIP_STATUS_ERROR_MASK, VIP_STATUS_DESC_FLUSHED_ERROR);
    while (VipSendDone(a->vi, &done) != VIP_DESCRIPTOR_ERROR || done)
        ;
    T_EQ(VipDestroyVi(a->vi), VIP_SUCCESS);
}

static void through_states(VIP_VI_STATE last, bool peer)
{
    struct end a, b;
    struct peer_thread t = {.end = &a};
    _Alignas(8) char remote[ADDRESS_ROOM];
    char name[NAME_BYTES];
    VIP_VI_ATTRIBUTES theirs;

    end_open(&a);
    end_open(&b);
    fresh_name(name);
    end_address(&b, name, t.room);
    T_EQ(end_create_vi(&a, VIP_SERVICE_RELIABLE_DELIVERY, &a.vi), VIP_SUCCESS);
    T_EQ(end_create_vi(&b, VIP_SERVICE_RELIABLE_DELIVERY, &b.vi), VIP_SUCCESS);
    if (peer) {
        end_address(&a, name, remote);
        T_EQ(VipConnectPeerRequest(a.vi, (VIP_NET_ADDRESS *)remote, (VIP_NET_ADDRESS *)t.room,
                                   VIP_INFINITE),
             VIP_SUCCESS);
    } else if (last != VIP_STATE_IDLE) {
        T_EQ(pthread_create(&t.thread, NULL, request_forever, &t), 0);
        T_EQ(VipConnectWait(b.nic, (VIP_NET_ADDRESS *)t.room, SOON_MS, (VIP_NET_ADDRESS *)remote,
                            &theirs, &b.conn),
             VIP_SUCCESS);
    }
    if (last == VIP_STATE_CONNECTED || last == VIP_STATE_ERROR) {
        T_EQ(VipConnectAccept(b.conn, b.vi), VIP_SUCCESS);
        pthread_join(t.thread, NULL);
        T_EQ(t.result, VIP_SUCCESS);
    }
    if (last == VIP_STATE_ERROR) {
        T_EQ(VipDisconnect(b.vi), VIP_SUCCESS);
        T_ASSERT(end_error(&a, VIP_ERROR_CONN_LOST));
    }
    calls_in(last, &a, &b, peer);
    end_of_state(&a, last == VIP_STATE_CONNECT_PENDING && !peer ? &t : NULL);
    end_close(&a);
    end_close(&b);
    t_end();
}

T_TEST(vipl_vi, calls_when_idle)
{
    /* Shows what every call does with an idle VI. */
    through_states(VIP_STATE_IDLE, false);
}

T_TEST(vipl_vi, calls_when_pending)
{
    /* ... one that asks for a connection ... */
    through_states(VIP_STATE_CONNECT_PENDING, false);
}

T_TEST(vipl_vi, calls_when_pending_peer)
{
    /* ... one that asks a peer ... */
    through_states(VIP_STATE_CONNECT_PENDING, true);
}

T_TEST(vipl_vi, calls_when_connected)
{
    /* ... one that is connected ... */
    through_states(VIP_STATE_CONNECTED, false);
}

T_TEST(vipl_vi, calls_when_in_error)
{
    /* ... and one whose connection is lost. */
    through_states(VIP_STATE_ERROR, false);
}
