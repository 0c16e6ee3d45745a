/* SPDX-License-Identifier: MIT */
/* Completion queues, waiting, and handlers that are called for completions. */
#include "end.h"

#include <pthread.h>

enum { SHORT_MS = 20, QUIET_MS = 20 };

static struct ends connect_cq(bool send, bool recv)
{
    return ends_connect_as(
        (struct order){.level = VIP_SERVICE_RELIABLE_DELIVERY, .send_cq = send, .recv_cq = recv});
}

static VIP_RETURN next_entry(VIP_CQ_HANDLE cq, VIP_VI_HANDLE *vi, VIP_BOOLEAN *recv)
{
    int64_t deadline = t_deadline(SOON_MS);
    VIP_RETURN result;

    for (;;) {
        result = VipCQDone(cq, vi, recv);
        if (result != VIP_NOT_DONE || t_expired(deadline))
            return result;
        t_relax();
    }
}

/* ---- completion queues ---- */

T_TEST(vipl_cq, entries)
{
    /* Shows that an entry names VI and queue, one for each completion, and nothing else does. */
    struct ends e = connect_cq(true, true);
    struct end *a = end_of(e.a);
    VIP_VI_HANDLE vi = NULL;
    VIP_BOOLEAN recv = VIP_FALSE;

    T_EQ(VipCQDone(a->cq, &vi, &recv), VIP_NOT_DONE);
    T_EQ(VipCQWait(a->cq, 0, &vi, &recv), VIP_TIMEOUT);
    T_EQ(VipCQWait(a->cq, SHORT_MS, &vi, &recv), VIP_TIMEOUT);
    post_recv(e.a, 0, 8);
    post_recv(e.b, 0, 8);
    post_recv(e.b, 1, 8);
    post_send(e.b, 2, 8);
    T_EQ(next_entry(a->cq, &vi, &recv), VIP_SUCCESS);
    T_ASSERT(vi == a->vi && recv == VIP_TRUE);
    expect_done(e.a, RECV, 0, VIP_STATUS_OP_RECEIVE, 8);
    post_send(e.a, 1, 8);
    post_send(e.a, 2, 8);
    for (int i = 1; i < 3; i++) {
        T_EQ(VipCQWait(a->cq, SOON_MS, &vi, &recv), VIP_SUCCESS);
        T_ASSERT(vi == a->vi && recv == VIP_FALSE);
        expect_done(e.a, SEND, i, VIP_STATUS_OP_SEND, 8);
    }
    T_EQ(VipCQDone(a->cq, &vi, &recv), VIP_NOT_DONE);
    ends_close(e);
    t_end();
}

T_TEST(vipl_cq, failures)
{
    /* Shows that descriptors which fail, and those that are flushed, have their entries, too. */
    struct ends e = connect_cq(true, true);
    struct end *a = end_of(e.a);
    VIP_DESCRIPTOR *bad = end_prepare(a, 1, 8);
    VIP_VI_HANDLE vi;
    VIP_BOOLEAN recv;
    int sends = 0, recvs = 0;

    post_recv(e.a, 0, 8);
    bad->CS.Control = VIP_CONTROL_RESERVED;
    T_EQ(VipPostSend(a->vi, bad, a->handle), VIP_SUCCESS);
    post_send(e.a, 2, 8);
    for (int i = 0; i < 3; i++) {
        T_EQ(next_entry(a->cq, &vi, &recv), VIP_SUCCESS);
        recvs += recv;
        sends += !recv;
    }
    T_EQ(recvs, 1);
    T_EQ(sends, 2);
    T_EQ(VipCQDone(a->cq, &vi, &recv), VIP_NOT_DONE);
    expect_done(e.a, SEND, 1, VIP_STATUS_FORMAT_ERROR, 0);
    expect_done(e.a, SEND, 2, VIP_STATUS_DESC_FLUSHED_ERROR, 0);
    expect_done(e.a, RECV, 0, VIP_STATUS_OP_RECEIVE | VIP_STATUS_DESC_FLUSHED_ERROR, 0);
    ends_close(e);
    t_end();
}

T_TEST(vipl_cq, done_without_entry)
{
    /* Shows that the descriptor may be taken first: its entry comes all the same. */
    struct ends e = connect_cq(false, true);
    struct end *a = end_of(e.a);
    VIP_VI_HANDLE vi;
    VIP_BOOLEAN recv;

    post_recv(e.a, 0, 8);
    post_send(e.b, 0, 8);
    expect_done(e.a, RECV, 0, VIP_STATUS_OP_RECEIVE, 8);
    T_EQ(VipCQDone(a->cq, &vi, &recv), VIP_SUCCESS);
    T_EQ(VipCQDone(a->cq, &vi, &recv), VIP_NOT_DONE);
    ends_close(e);
    t_end();
}

T_TEST(vipl_cq, made_and_ended)
{
    /* Shows the limits and errors of making, resizing and ending a CQ. */
    struct end a, b;
    VIP_CQ_HANDLE cqs[4];

    end_open(&a);
    end_open(&b);
    T_EQ(VipCreateCQ(a.nic, 0, &a.cq), VIP_INVALID_PARAMETER);
    T_EQ(VipCreateCQ(a.nic, 1, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipCreateCQ(a.nic, a.limits.MaxCQEntries + 1, &a.cq), VIP_ERROR_RESOURCE);
    T_EQ(VipCreateCQ(a.nic, a.limits.MaxCQEntries, &a.cq), VIP_SUCCESS);
    T_EQ(VipResizeCQ(a.cq, 0), VIP_INVALID_PARAMETER);
    T_EQ(VipResizeCQ(a.cq, a.limits.MaxCQEntries + 1), VIP_ERROR_RESOURCE);
    T_EQ(VipResizeCQ(a.cq, 10), VIP_SUCCESS);
    T_EQ(VipResizeCQ(a.cq, 1000), VIP_SUCCESS);
    VIP_VI_ATTRIBUTES attributes = end_attributes(&a, VIP_SERVICE_UNRELIABLE);
    T_EQ(VipCreateVi(a.nic, &attributes, a.cq, a.cq, &a.vi), VIP_SUCCESS);
    T_EQ(VipDestroyCQ(a.cq), VIP_ERROR_RESOURCE);
    T_EQ(VipDestroyVi(a.vi), VIP_SUCCESS);
    T_EQ(VipDestroyCQ(a.cq), VIP_SUCCESS);
    T_EQ(VipDestroyCQ(a.cq), VIP_INVALID_PARAMETER);
    /* Those of another NIC handle can't be used. */
    T_EQ(VipCreateCQ(b.nic, 1, &cqs[0]), VIP_SUCCESS);
    T_EQ(VipCreateVi(a.nic, &attributes, cqs[0], NULL, &a.vi), VIP_INVALID_PARAMETER);
    T_EQ(VipCreateVi(a.nic, &attributes, NULL, cqs[0], &a.vi), VIP_INVALID_PARAMETER);
    end_close(&a);
    end_close(&b);
    t_end();
}

T_TEST(vipl_cq, limit)
{
    /* Shows that exactly MaxCQ can be made. */
    struct end a;
    VIP_CQ_HANDLE cq, last = NULL;

    end_open(&a);
    for (VIP_ULONG i = 0; i < a.limits.MaxCQ; i++)
        T_EQ(VipCreateCQ(a.nic, 1, &last), VIP_SUCCESS);
    T_EQ(VipCreateCQ(a.nic, 1, &cq), VIP_ERROR_RESOURCE);
    T_EQ(VipDestroyCQ(last), VIP_SUCCESS);
    T_EQ(VipCreateCQ(a.nic, 1, &cq), VIP_SUCCESS);
    end_close(&a);
    t_end();
}

T_TEST(vipl_cq, holds_what_it_says)
{
    /* Shows that a CQ of n holds n, can't be made smaller then, and that one more is catastrophic.
     */
    enum { HELD = 4 };
    struct end a;
    VIP_VI_HANDLE vi;
    VIP_BOOLEAN recv;

    end_open(&a);
    T_EQ(VipCreateCQ(a.nic, HELD, &a.cq), VIP_SUCCESS);
    VIP_VI_ATTRIBUTES attributes = end_attributes(&a, VIP_SERVICE_UNRELIABLE);
    T_EQ(VipCreateVi(a.nic, &attributes, a.cq, NULL, &a.vi), VIP_SUCCESS);
    for (int i = 0; i < HELD; i++) /* idle: each is flushed at once */
        T_EQ(VipPostSend(a.vi, end_prepare(&a, i, 8), a.handle), VIP_SUCCESS);
    T_EQ(VipResizeCQ(a.cq, HELD - 1), VIP_ERROR_RESOURCE);
    T_EQ(VipResizeCQ(a.cq, HELD), VIP_SUCCESS);
    T_EQ(atomic_load(&a.error_count), 0);
    T_EQ(VipPostSend(a.vi, end_prepare(&a, HELD, 8), a.handle), VIP_SUCCESS);
    const VIP_ERROR_DESCRIPTOR *error = end_error(&a, VIP_ERROR_CATASTROPHIC);
    T_ASSERT(error && error->CQHandle == a.cq);
    T_EQ(error->ResourceCode, VIP_RESOURCE_CQ);
    for (int i = 0; i < HELD; i++)
        T_EQ(VipCQDone(a.cq, &vi, &recv), VIP_SUCCESS);
    T_EQ(VipCQDone(a.cq, &vi, &recv), VIP_NOT_DONE);
    end_close(&a);
    t_end();
}

T_TEST(vipl_cq, parameters)
{
    /* Shows what the calls on a CQ refuse, and that its queues can't be waited for one by one. */
    struct ends e = connect_cq(true, true);
    struct end *a = end_of(e.a);
    VIP_DESCRIPTOR *done;
    VIP_VI_HANDLE vi;
    VIP_BOOLEAN recv;

    T_EQ(VipCQDone(a->cq, NULL, &recv), VIP_INVALID_PARAMETER);
    T_EQ(VipCQDone(a->cq, &vi, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipCQWait(a->cq, 1, NULL, &recv), VIP_INVALID_PARAMETER);
    T_EQ(VipCQWait(a->cq, 1, &vi, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipCQNotify(a->cq, NULL, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipSendWait(a->vi, 1, &done), VIP_INVALID_PARAMETER);
    T_EQ(VipRecvWait(a->vi, 1, &done), VIP_INVALID_PARAMETER);
    ends_close(e);
    t_end();
}

/* ---- waiting ---- */

struct sleeper {
    struct end *end;
    VIP_RETURN result;
    VIP_DESCRIPTOR *done;
    pthread_t thread;
};

static void *sleep_for_receive(void *arg)
{
    struct sleeper *sleeper = arg;

    sleeper->result = VipRecvWait(sleeper->end->vi, VIP_INFINITE, &sleeper->done);
    return NULL;
}

T_TEST(vipl_wait, times_out)
{
    /* Shows that a wait takes its time, and no longer when something comes. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct end *a = end_of(e.a);
    VIP_DESCRIPTOR *done;

    T_EQ(VipRecvWait(a->vi, VIP_INFINITE, &done), VIP_DESCRIPTOR_ERROR); /* nothing is posted */
    T_ASSERT(!done);
    post_recv(e.a, 0, 8);
    int64_t start = t_now_ns();
    T_EQ(VipRecvWait(a->vi, SHORT_MS, &done), VIP_TIMEOUT);
    T_ASSERT(t_now_ns() - start >= SHORT_MS * 1000000);
    T_EQ(VipRecvWait(a->vi, 0, &done), VIP_TIMEOUT);
    post_send(e.b, 0, 8);
    T_EQ(VipRecvWait(a->vi, VIP_INFINITE, &done), VIP_SUCCESS);
    T_ASSERT(done == end_descriptor(a, 0));
    post_recv(e.b, 0, 8);
    post_send(e.a, 1, 8);
    T_EQ(VipSendWait(a->vi, 0xffffffff, &done), VIP_SUCCESS);
    ends_close(e);
    t_end();
}

T_TEST(vipl_wait, woken)
{
    /* Shows that a thread asleep in a wait is woken by what arrives, again and again. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);

    for (int i = 0; i < 50; i++) {
        struct sleeper sleeper = {.end = end_of(e.a)};

        post_recv(e.a, 0, 8);
        T_EQ(pthread_create(&sleeper.thread, NULL, sleep_for_receive, &sleeper), 0);
        if (i % 2)
            t_relax();
        post_send(e.b, 0, 8);
        expect_done(e.b, SEND, 0, VIP_STATUS_OP_SEND, 8);
        pthread_join(sleeper.thread, NULL);
        T_EQ(sleeper.result, VIP_SUCCESS);
    }
    ends_close(e);
    t_end();
}

T_TEST(vipl_wait, woken_by_the_end)
{
    /* Shows that it is woken when the connection is lost, and finds its receive flushed. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct sleeper sleeper = {.end = end_of(e.a)};

    post_recv(e.a, 0, 8);
    T_EQ(pthread_create(&sleeper.thread, NULL, sleep_for_receive, &sleeper), 0);
    order_run(e.b, do_disconnect, (struct order){0});
    pthread_join(sleeper.thread, NULL);
    T_EQ(sleeper.result, VIP_DESCRIPTOR_ERROR);
    T_ASSERT(sleeper.done && sleeper.done->CS.Status & VIP_STATUS_DESC_FLUSHED_ERROR);
    ends_close(e);
    t_end();
}

T_TEST(vipl_wait, done_beside_wait)
{
    /* Shows that Done does not block behind a thread in Wait, and may take what that waits for. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct end *a = end_of(e.a);
    struct sleeper sleeper = {.end = a};
    VIP_DESCRIPTOR *done = NULL;

    post_recv(e.a, 0, 8);
    T_EQ(pthread_create(&sleeper.thread, NULL, sleep_for_receive, &sleeper), 0);
    T_EQ(VipRecvDone(a->vi, &done), VIP_NOT_DONE);
    post_recv(e.a, 1, 8);
    post_send(e.b, 0, 8);
    post_send(e.b, 1, 8);
    T_EQ(end_take(a->vi, RECV, &done), VIP_SUCCESS);
    pthread_join(sleeper.thread, NULL);
    T_EQ(sleeper.result, VIP_SUCCESS);
    T_ASSERT(sleeper.done != done);
    ends_close(e);
    t_end();
}

enum { WAITERS = 6 };

T_TEST(vipl_wait, many)
{
    /* Shows that threads that wait for different VIs of one NIC are each woken for their own. */
    struct end a, b;
    struct end mine[WAITERS];
    struct sleeper sleepers[WAITERS];
    VIP_VI_HANDLE vis[WAITERS];

    end_open(&a);
    end_open(&b);
    for (int i = 0; i < WAITERS; i++) {
        char name[NAME_BYTES];
        _Alignas(8) char at_a[ADDRESS_ROOM], at_b[ADDRESS_ROOM];
        VIP_VI_ATTRIBUTES theirs;

        mine[i] = a;
        fresh_name(name);
        end_address(&a, name, at_a);
        fresh_name(name);
        end_address(&b, name, at_b);
        T_EQ(end_create_vi(&a, VIP_SERVICE_RELIABLE_DELIVERY, &mine[i].vi), VIP_SUCCESS);
        T_EQ(end_create_vi(&b, VIP_SERVICE_RELIABLE_DELIVERY, &vis[i]), VIP_SUCCESS);
        T_EQ(VipConnectPeerRequest(mine[i].vi, (VIP_NET_ADDRESS *)at_a, (VIP_NET_ADDRESS *)at_b,
                                   SOON_MS),
             VIP_SUCCESS);
        T_EQ(VipConnectPeerRequest(vis[i], (VIP_NET_ADDRESS *)at_b, (VIP_NET_ADDRESS *)at_a,
                                   SOON_MS),
             VIP_SUCCESS);
        T_EQ(VipConnectPeerWait(mine[i].vi, &theirs), VIP_SUCCESS);
        T_EQ(VipConnectPeerWait(vis[i], &theirs), VIP_SUCCESS);
        T_EQ(VipPostRecv(mine[i].vi, end_prepare(&a, i, 8), a.handle), VIP_SUCCESS);
        sleepers[i] = (struct sleeper){.end = &mine[i]};
        T_EQ(pthread_create(&sleepers[i].thread, NULL, sleep_for_receive, &sleepers[i]), 0);
    }
    for (int i = WAITERS - 1; i >= 0; i--) {
        T_EQ(VipPostSend(vis[i], end_prepare(&b, i, 8), b.handle), VIP_SUCCESS);
        pthread_join(sleepers[i].thread, NULL);
        T_EQ(sleepers[i].result, VIP_SUCCESS);
        T_ASSERT(sleepers[i].done == end_descriptor(&a, i));
    }
    end_close(&a);
    end_close(&b);
    t_end();
}

/* ---- handlers ---- */

struct calls {
    struct end *end;
    _Atomic int count;
    int again; /* how often the handler registers itself again */
    VIP_VI_HANDLE vi;
    VIP_DESCRIPTOR *done[SLOTS];
    VIP_BOOLEAN recv[SLOTS];
    VIP_RETURN result;
};

static void on_receive(VIP_PVOID context, VIP_NIC_HANDLE nic, VIP_VI_HANDLE vi,
                       VIP_DESCRIPTOR *descriptor)
{
    struct calls *calls = context;
    int count = atomic_load(&calls->count);

    calls->vi = nic == calls->end->nic ? vi : NULL;
    calls->done[count] = descriptor;
    if (calls->again-- > 0)
        calls->result = VipRecvNotify(vi, calls, on_receive);
    atomic_store(&calls->count, count + 1);
}

static void on_entry(VIP_PVOID context, VIP_NIC_HANDLE nic, VIP_VI_HANDLE vi, VIP_BOOLEAN recv)
{
    struct calls *calls = context;
    int count = atomic_load(&calls->count);

    calls->vi = nic == calls->end->nic ? vi : NULL;
    calls->recv[count] = recv;
    if (calls->again-- > 0)
        calls->result = VipCQNotify(calls->end->cq, calls, on_entry);
    atomic_store(&calls->count, count + 1);
}

static void stays(const struct calls *calls, int count)
{
    int64_t deadline = t_deadline(QUIET_MS);

    while (!t_expired(deadline))
        T_EQ(atomic_load(&calls->count), count);
}

T_TEST(vipl_notify, one_for_one)
{
    /* Shows that a registration serves one descriptor, which is taken, and no more. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct end *a = end_of(e.a);
    struct calls calls = {.end = a};
    VIP_DESCRIPTOR *done;

    T_EQ(VipRecvNotify(a->vi, NULL, NULL), VIP_INVALID_PARAMETER);
    post_recv(e.a, 0, 8);
    post_recv(e.a, 1, 8);
    T_EQ(VipRecvNotify(a->vi, &calls, on_receive), VIP_SUCCESS);
    stays(&calls, 0);
    post_send(e.b, 0, 8);
    post_send(e.b, 1, 8);
    T_UNTIL(atomic_load(&calls.count) == 1, SOON_MS);
    T_ASSERT(calls.vi == a->vi && calls.done[0] == end_descriptor(a, 0));
    T_EQ(calls.done[0]->CS.Status, VIP_STATUS_DONE | VIP_STATUS_OP_RECEIVE);
    stays(&calls, 1);
    T_EQ(end_take(a->vi, RECV, &done), VIP_SUCCESS);
    T_ASSERT(done == end_descriptor(a, 1));
    ends_close(e);
    t_end();
}

T_TEST(vipl_notify, already_there)
{
    /* Shows that what is complete already is served at once, and that registrations queue up. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct end *a = end_of(e.a);
    struct calls calls = {.end = a};

    post_recv(e.a, 0, 8);
    post_recv(e.a, 1, 8);
    post_send(e.b, 0, 8);
    post_send(e.b, 1, 8);
    expect_done(e.b, SEND, 0, VIP_STATUS_OP_SEND, 8);
    expect_done(e.b, SEND, 1, VIP_STATUS_OP_SEND, 8);
    T_EQ(VipRecvNotify(a->vi, &calls, on_receive), VIP_SUCCESS);
    T_EQ(VipRecvNotify(a->vi, &calls, on_receive), VIP_SUCCESS);
    T_EQ(VipRecvNotify(a->vi, &calls, on_receive), VIP_SUCCESS); /* nothing is posted for it yet */
    T_UNTIL(atomic_load(&calls.count) == 2, SOON_MS);
    post_recv(e.a, 2, 8);
    post_send(e.b, 2, 8);
    T_UNTIL(atomic_load(&calls.count) == 3, SOON_MS);
    for (int i = 0; i < 3; i++)
        T_ASSERT(calls.done[i] == end_descriptor(a, i));
    ends_close(e);
    t_end();
}

T_TEST(vipl_notify, again)
{
    /* Shows that a handler may register itself again. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct end *a = end_of(e.a);
    struct calls calls = {.end = a, .again = 7};

    for (int i = 0; i < 8; i++)
        post_recv(e.a, i, 8);
    T_EQ(VipRecvNotify(a->vi, &calls, on_receive), VIP_SUCCESS);
    for (int i = 0; i < 8; i++)
        post_send(e.b, i, 8);
    T_UNTIL(atomic_load(&calls.count) == 8, SOON_MS);
    T_EQ(calls.result, VIP_SUCCESS);
    for (int i = 0; i < 8; i++)
        T_ASSERT(calls.done[i] == end_descriptor(a, i));
    ends_close(e);
    t_end();
}

T_TEST(vipl_notify, send)
{
    /* Shows that sends have handlers, too, and what is flushed is told of. */
    struct ends e = ends_connect(VIP_SERVICE_RELIABLE_DELIVERY);
    struct end *a = end_of(e.a);
    struct calls sends = {.end = a}, recvs = {.end = a};

    post_recv(e.b, 0, 8);
    T_EQ(VipSendNotify(a->vi, &sends, on_receive), VIP_SUCCESS);
    post_send(e.a, 1, 8);
    T_UNTIL(atomic_load(&sends.count) == 1, SOON_MS);
    T_ASSERT(sends.done[0] == end_descriptor(a, 1));
    post_recv(e.a, 0, 8);
    T_EQ(VipRecvNotify(a->vi, &recvs, on_receive), VIP_SUCCESS);
    T_EQ(VipDisconnect(a->vi), VIP_SUCCESS);
    T_UNTIL(atomic_load(&recvs.count) == 1, SOON_MS);
    T_ASSERT(recvs.done[0]->CS.Status & VIP_STATUS_DESC_FLUSHED_ERROR);
    ends_close(e);
    t_end();
}

T_TEST(vipl_notify, limit_and_cancellation)
{
    /* Shows how many may wait, and that destroying the VI or the CQ cancels them. */
    struct end a;
    struct calls calls = {.end = &a};

    end_open(&a);
    T_EQ(end_create_vi(&a, VIP_SERVICE_RELIABLE_DELIVERY, &a.vi), VIP_SUCCESS);
    for (VIP_ULONG i = 0; i < a.limits.MaxDescriptorsPerQueue; i++)
        T_EQ(VipRecvNotify(a.vi, &calls, on_receive), VIP_SUCCESS);
    T_EQ(VipRecvNotify(a.vi, &calls, on_receive), VIP_ERROR_RESOURCE);
    T_EQ(VipSendNotify(a.vi, &calls, on_receive), VIP_SUCCESS);
    T_EQ(VipDestroyVi(a.vi), VIP_SUCCESS);
    T_EQ(VipCreateCQ(a.nic, 4, &a.cq), VIP_SUCCESS);
    T_EQ(VipCQNotify(a.cq, &calls, on_entry), VIP_SUCCESS);
    T_EQ(VipCQNotify(a.cq, &calls, on_entry), VIP_SUCCESS);
    T_EQ(VipDestroyCQ(a.cq), VIP_SUCCESS);
    T_EQ(atomic_load(&calls.count), 0);
    end_close(&a);
    t_end();
}

T_TEST(vipl_notify, cq)
{
    /* Shows handlers for entries of a CQ: in order, one each, those that were there before first.
     */
    struct ends e = connect_cq(true, true);
    struct end *a = end_of(e.a);
    struct calls calls = {.end = a, .again = 2};
    VIP_VI_HANDLE vi;
    VIP_BOOLEAN recv;

    T_EQ(VipRecvNotify(a->vi, &calls, on_receive), VIP_INVALID_PARAMETER);
    T_EQ(VipSendNotify(a->vi, &calls, on_receive), VIP_INVALID_PARAMETER);
    post_recv(e.a, 0, 8);
    post_send(e.b, 0, 8);
    expect_done(e.a, RECV, 0, VIP_STATUS_OP_RECEIVE, 8);
    T_EQ(VipCQNotify(a->cq, &calls, on_entry), VIP_SUCCESS);
    T_UNTIL(atomic_load(&calls.count) == 1, SOON_MS);
    post_recv(e.b, 0, 8);
    post_recv(e.b, 1, 8);
    post_send(e.a, 1, 8);
    post_send(e.a, 2, 8);
    T_UNTIL(atomic_load(&calls.count) == 3, SOON_MS);
    T_ASSERT(calls.vi == a->vi && calls.result == VIP_SUCCESS);
    T_ASSERT(calls.recv[0] && !calls.recv[1] && !calls.recv[2]);
    expect_done(e.a, SEND, 1, VIP_STATUS_OP_SEND, 8);
    expect_done(e.a, SEND, 2, VIP_STATUS_OP_SEND, 8);
    T_EQ(VipCQDone(a->cq, &vi, &recv), VIP_NOT_DONE);
    ends_close(e);
    t_end();
}
