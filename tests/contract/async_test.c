/* SPDX-License-Identifier: MIT */
/* Asynchronous events: their descriptor, who they name, and the accounts of acknowledging. */
#include "side.h"

#include <fcntl.h>
#include <pthread.h>

/* A drained send queue is the one event that a program can have whenever it likes. */
static void make_event(struct side *s, int q)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_SQD, .en_sqd_async_notify = 1};

    T_EQ(ibv_modify_qp(s->qp[q], &attr, IBV_QP_STATE | IBV_QP_EN_SQD_ASYNC_NOTIFY), 0);
}

static struct side *connected(int qps)
{
    struct side *s = side_open(&(struct side_opt){.qps = qps}, NULL);

    for (int q = 0; q < qps; q++) {
        side_connect(s, q, &s->info, q);
    }
    return s;
}

static struct ibv_async_event get_event(struct side *s)
{
    struct ibv_async_event event;

    T_ASSERT(t_readable(s->ctx->async_fd, WAIT_MS), "no event");
    T_EQ(ibv_get_async_event(s->ctx, &event), 0);
    return event;
}

T_TEST(async, names_type_and_queue_pair)
{
    /* The event names its type and the queue pair it is about, one event for each. */
    struct side *s = connected(4);
    unsigned seen = 0;

    for (int q = 0; q < 4; q++) {
        make_event(s, q);
    }
    for (int i = 0; i < 4; i++) {
        struct ibv_async_event event = get_event(s);

        T_EQ(event.event_type, IBV_EVENT_SQ_DRAINED);
        for (int q = 0; q < 4; q++) {
            seen += event.element.qp == s->qp[q] ? 1u << (4 * q) : 0;
        }
        ibv_ack_async_event(&event);
    }
    T_EQ(seen, 0x1111);
    T_ASSERT(!t_readable(s->ctx->async_fd, 0));
    side_close(s, true);
}

T_TEST(async, empty_and_not_blocking)
{
    /* With O_NONBLOCK an empty queue gives -1 and EAGAIN. (side_open sets the flag.) */
    struct side *s = connected(1);
    struct ibv_async_event event;

    T_ASSERT(fcntl(s->ctx->async_fd, F_GETFL) & O_NONBLOCK);
    errno = 0;
    T_EQ(ibv_get_async_event(s->ctx, &event), -1);
    T_EQ(errno, EAGAIN);
    side_close(s, true);
}

struct waiter {
    struct side *s;
    struct ibv_async_event event;
    int rc;
};

static void *wait_thread(void *arg)
{
    struct waiter *waiter = arg;

    waiter->rc = ibv_get_async_event(waiter->s->ctx, &waiter->event);
    return NULL;
}

T_TEST(async, blocks_until_there_is_one)
{
    /* Without O_NONBLOCK a thread sleeps in ibv_get_async_event until there is an event. */
    struct side *s = connected(1);
    struct waiter waiter = {.s = s, .rc = 77};
    pthread_t thread;

    T_EQ(fcntl(s->ctx->async_fd, F_SETFL, 0), 0);
    T_EQ(pthread_create(&thread, NULL, wait_thread, &waiter), 0);
    make_event(s, 0);
    T_EQ(pthread_join(thread, NULL), 0);
    T_EQ(waiter.rc, 0);
    T_ASSERT(waiter.event.element.qp == s->qp[0]);
    ibv_ack_async_event(&waiter.event);
    T_EQ(fcntl(s->ctx->async_fd, F_SETFL, O_NONBLOCK), 0);
    side_close(s, true);
}

T_TEST(async, destroyed_with_an_event_unread)
{
    /* An event that nobody read goes with its queue pair: destroying does not wait for it. */
    struct side *s = connected(2);
    struct ibv_async_event event;

    make_event(s, 0);
    T_ASSERT(t_readable(s->ctx->async_fd, WAIT_MS));
    T_EQ(ibv_destroy_qp(s->qp[0]), 0);
    s->qp[0] = NULL;
    T_EQ(ibv_get_async_event(s->ctx, &event), -1);
    make_event(s, 1);
    event = get_event(s);
    T_ASSERT(event.element.qp == s->qp[1]);
    ibv_ack_async_event(&event);
    side_close(s, true);
}

struct destroyer {
    struct ibv_qp *qp;
    int done;
};

static void *destroy_thread(void *arg)
{
    struct destroyer *destroyer = arg;
    int rc = ibv_destroy_qp(destroyer->qp);

    __atomic_store_n(&destroyer->done, rc == 0 ? 1 : -1, __ATOMIC_SEQ_CST);
    return NULL;
}

T_TEST(async, destroying_waits_for_the_acknowledge)
{
    /* An event that was read and not acknowledged holds ibv_destroy_qp until it is (man page). */
    struct side *s = connected(1);
    struct destroyer destroyer = {.qp = s->qp[0]};
    struct ibv_async_event event;
    int64_t quiet;
    pthread_t thread;

    make_event(s, 0);
    event = get_event(s);
    T_EQ(pthread_create(&thread, NULL, destroy_thread, &destroyer), 0);
    quiet = t_deadline(QUIET_MS);
    T_UNTIL(t_expired(quiet), WAIT_MS);
    T_EQ(__atomic_load_n(&destroyer.done, __ATOMIC_SEQ_CST), 0);
    ibv_ack_async_event(&event);
    T_EQ(pthread_join(thread, NULL), 0);
    T_EQ(destroyer.done, 1);
    s->qp[0] = NULL;
    side_close(s, true);
}

T_TEST(async, each_context_has_its_own)
{
    /* An event comes to the context that the queue pair was made on, and to no other. */
    struct side *s = connected(1), *other = connected(1);
    struct ibv_async_event event;

    make_event(s, 0);
    event = get_event(s);
    T_ASSERT(event.element.qp == s->qp[0]);
    ibv_ack_async_event(&event);
    T_ASSERT(!t_readable(other->ctx->async_fd, QUIET_MS));
    side_close(other, true);
    side_close(s, true);
}
