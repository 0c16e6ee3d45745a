/* SPDX-License-Identifier: MIT */
/*
 * Sleeping until something completes. All completion queues of a NIC share a channel; of the
 * threads that wait one reads it, and wakes the others when anything came.
 */
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vip.h"

int wait_init(struct vip_nic *nic)
{
    pthread_mutex_init(&nic->wait.lock, NULL);
    cond_init(&nic->wait.changed);
    nic->wait.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    nic->channel = ibv_create_comp_channel(nic->verbs);
    if (nic->wait.wake < 0 || !nic->channel)
        return -ENOMEM;
    return set_nonblocking(nic->channel->fd);
}

void wait_fini(struct vip_nic *nic)
{
    if (nic->channel)
        ibv_destroy_comp_channel(nic->channel);
    if (nic->wait.wake >= 0)
        close(nic->wait.wake);
    pthread_cond_destroy(&nic->wait.changed);
    pthread_mutex_destroy(&nic->wait.lock);
}

/*
 * The order matters to wait_arm(): not armed any more, then a new turn. What the thread that armed
 * it knew of the CQ is known here, too: hence the exchange.
 */
static void read_channel(struct vip_nic *nic)
{
    struct ibv_cq *verbs;
    void *context;

    while (ibv_get_cq_event(nic->channel, &verbs, &context) == 0) {
        atomic_exchange(&((struct cq *)context)->armed, false);
        ibv_ack_cq_events(verbs, 1);
    }
}

/* One sleep of the thread that reads, outside the lock. */
static void sleep_for_all(struct vip_nic *nic, int64_t deadline)
{
    struct pollfd fds[] = {{.fd = nic->channel->fd, .events = POLLIN},
                           {.fd = nic->wait.wake, .events = POLLIN}};
    uint64_t count;

    if (poll(fds, 2, remaining_ms(deadline)) <= 0)
        return;
    if (fds[0].revents)
        read_channel(nic);
    if (fds[1].revents)
        (void)!read(nic->wait.wake, &count, sizeof(count));
    atomic_fetch_add(&nic->wait.turn, 1);
}

bool wait_turn(struct vip_nic *nic, uint32_t turn, int64_t deadline)
{
    bool in_time = true;

    pthread_mutex_lock(&nic->wait.lock);
    while (atomic_load(&nic->wait.turn) == turn && in_time) {
        if (nic->wait.reading) {
            in_time = cond_wait_until(&nic->wait.changed, &nic->wait.lock, deadline);
            continue;
        }
        nic->wait.reading = true;
        pthread_mutex_unlock(&nic->wait.lock);
        sleep_for_all(nic, deadline);
        pthread_mutex_lock(&nic->wait.lock);
        nic->wait.reading = false;
        pthread_cond_broadcast(&nic->wait.changed);
        in_time = deadline == INT64_MAX || clock_ns() < deadline;
    }
    bool came = atomic_load(&nic->wait.turn) != turn;
    pthread_mutex_unlock(&nic->wait.lock);
    return came;
}

void wait_wake(struct vip_nic *nic)
{
    uint64_t one = 1;

    pthread_mutex_lock(&nic->wait.lock);
    atomic_fetch_add(&nic->wait.turn, 1);
    if (nic->wait.reading)
        (void)!write(nic->wait.wake, &one, sizeof(one));
    pthread_cond_broadcast(&nic->wait.changed);
    pthread_mutex_unlock(&nic->wait.lock);
}

bool wait_arm(struct cq *cq)
{
    if (atomic_exchange(&cq->armed, true))
        return false;
    ibv_req_notify_cq(cq->verbs, 0);
    return true;
}

/*
 * Who asked to be told may sleep, while somebody else took the completions from the device, and a
 * device need not tell of what was taken.
 */
void wait_share(struct cq *cq)
{
    if (atomic_exchange(&cq->armed, false))
        wait_wake(cq->head.nic);
}
