/* SPDX-License-Identifier: MIT */
/*
 * rc.h - what every example needs before its first message, in plain libibverbs
 *
 *   rc_sides()     two sides and a socket between them: two processes here, or two hosts
 *   rc_open()      device -> protection domain, completion queue -> queue pair
 *   rc_connect()   tell each other the queue pairs' numbers, and connect them
 *   rc_wait()      wait for one completion, and insist that it is a good one
 *   rc_swap()      tell each other anything else, such as where memory is
 *
 * An example that fails prints one line and exits: nothing here is worth recovering from.
 */
#ifndef EXAMPLES_RC_H
#define EXAMPLES_RC_H

#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <netdb.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define RC_TCP_PORT "18516"
#define RC_IB_PORT 1
#define RC_GID_INDEX 0

struct rc {
    struct ibv_context *context; /* the open device */
    struct ibv_pd *pd;           /* queue pairs and memory of one domain may be used together */
    struct ibv_cq *cq;           /* where completions of sends and receives arrive */
    struct ibv_qp *qp;           /* a send queue and a receive queue, connected to another pair */
};

/* Where a piece of memory is, for the other side. */
struct rc_memory {
    uint64_t addr;
    uint32_t rkey;
    uint32_t length;
};

static inline void rc_need(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "%s failed: %s\n", what, errno != 0 ? strerror(errno) : "unknown reason");
    exit(1);
}

/* --- two sides --- */

static inline int rc_listen(void)
{
    struct addrinfo hints = {
        .ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *info = NULL;
    int on = 1;

    rc_need(getaddrinfo(NULL, RC_TCP_PORT, &hints, &info) == 0, "getaddrinfo");
    int fd = socket(info->ai_family, info->ai_socktype, 0);
    rc_need(fd >= 0, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    rc_need(bind(fd, info->ai_addr, info->ai_addrlen) == 0, "bind to port " RC_TCP_PORT);
    rc_need(listen(fd, 16) == 0, "listen");
    freeaddrinfo(info);
    return fd;
}

static inline int rc_reach(const char *host)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *info = NULL;

    rc_need(getaddrinfo(host, RC_TCP_PORT, &hints, &info) == 0, "looking up the server's host");
    int fd = socket(info->ai_family, info->ai_socktype, 0);
    rc_need(fd >= 0 && connect(fd, info->ai_addr, info->ai_addrlen) == 0, "connect");
    freeaddrinfo(info);
    return fd;
}

/*
 * No argument: fork a server, connected to us by a socket pair. It must happen before the device
 * is opened, because an open device does not survive a fork. "server" and "client HOST": one
 * side each, also on two hosts. Returns the socket.
 */
static inline int rc_sides(int argc, char **argv, bool *server_out)
{
    int ends[2];

    *server_out = argc == 2 && strcmp(argv[1], "server") == 0;
    if (*server_out)
        return accept(rc_listen(), NULL, NULL);
    if (argc == 3 && strcmp(argv[1], "client") == 0)
        return rc_reach(argv[2]);
    if (argc != 1) {
        fprintf(stderr, "usage: %s [server | client HOST]\n", argv[0]);
        exit(2);
    }
    rc_need(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
    pid_t child = fork();
    rc_need(child >= 0, "fork");
    *server_out = child == 0;
    close(ends[*server_out]);
    return ends[!*server_out];
}

/* Both send their own and receive the other's: with sizes alike, that is all the protocol. */
static inline void rc_swap(int peer, const void *mine, void *theirs, size_t size)
{
    rc_need(send(peer, mine, size, MSG_NOSIGNAL) == (ssize_t)size, "telling the other side");
    rc_need(recv(peer, theirs, size, MSG_WAITALL) == (ssize_t)size, "hearing the other side");
}

/* Wait until the other side has come as far. */
static inline void rc_meet(int peer)
{
    char mine = 0, theirs;

    rc_swap(peer, &mine, &theirs, 1);
}

/* Stay on the first CPU that we may use, or on the last. */
static inline void rc_pin(bool last)
{
    cpu_set_t may, one;
    size_t cpu = last ? CPU_SETSIZE - 1 : 0;

    rc_need(sched_getaffinity(0, sizeof(may), &may) == 0, "sched_getaffinity");
    while (!CPU_ISSET(cpu, &may))
        cpu += last ? (size_t)-1 : 1;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    rc_need(sched_setaffinity(0, sizeof(one), &one) == 0, "sched_setaffinity");
}

/* --- from nothing to a connected queue pair --- */

/* The device called $RC_DEVICE, or the first in the list. */
static inline struct ibv_context *rc_open_device(void)
{
    const char *name = getenv("RC_DEVICE");
    struct ibv_context *context = NULL;
    struct ibv_device **list = ibv_get_device_list(NULL);

    for (int i = 0; list != NULL && list[i] != NULL && context == NULL; i++) {
        if (name == NULL || strcmp(name, ibv_get_device_name(list[i])) == 0)
            context = ibv_open_device(list[i]);
    }
    rc_need(context != NULL, "opening an RDMA device (is it run by 'viaduct run'?)");
    ibv_free_device_list(list);
    return context;
}

static inline void rc_modify(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
    errno = ibv_modify_qp(qp, attr, mask | IBV_QP_STATE);
    rc_need(errno == 0, "ibv_modify_qp");
}

/* INIT: what the other side may do to our memory. */
static inline void rc_to_init(struct rc *rc)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .port_num = RC_IB_PORT,
                               .qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE |
                                                  IBV_ACCESS_REMOTE_ATOMIC};

    rc_modify(rc->qp, &attr, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

/* depth: how many requests each queue holds. */
static inline void rc_open(struct rc *rc, unsigned depth)
{
    struct ibv_qp_init_attr init = {
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = depth, .max_recv_wr = depth, .max_send_sge = 1, .max_recv_sge = 1}};

    rc->context = rc_open_device();
    rc->pd = ibv_alloc_pd(rc->context);
    rc_need(rc->pd != NULL, "ibv_alloc_pd");
    rc->cq = ibv_create_cq(rc->context, (int)(2 * depth), NULL, NULL, 0);
    rc_need(rc->cq != NULL, "ibv_create_cq");
    init.send_cq = init.recv_cq = rc->cq;
    rc->qp = ibv_create_qp(rc->pd, &init);
    rc_need(rc->qp != NULL, "ibv_create_qp");
    rc_to_init(rc); /* from here on receives may be posted */
}

/* Ready to receive: who the other side is, and how to get there. */
static inline void rc_to_rtr(struct rc *rc, uint32_t remote_qpn, const union ibv_gid *remote)
{
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = IBV_MTU_1024,
        .dest_qp_num = remote_qpn,
        .rq_psn = 0,
        .max_dest_rd_atomic = 1,
        .min_rnr_timer = 12,
        .ah_attr = {.is_global = 1,
                    .port_num = RC_IB_PORT,
                    .grh = {.dgid = *remote, .sgid_index = RC_GID_INDEX, .hop_limit = 64}}};

    rc_modify(rc->qp, &attr,
              IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
}

/* Ready to send: how long to wait, and how often to try again. */
static inline void rc_to_rts(struct rc *rc)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RTS,
                               .sq_psn = 0,
                               .timeout = 14,
                               .retry_cnt = 7,
                               .rnr_retry = 7,
                               .max_rd_atomic = 1};

    rc_modify(rc->qp, &attr,
              IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                  IBV_QP_MAX_QP_RD_ATOMIC);
}

static inline void rc_connect(struct rc *rc, int peer)
{
    struct {
        uint32_t qpn;
        union ibv_gid gid;
    } mine = {.qpn = rc->qp->qp_num}, theirs;

    rc_need(ibv_query_gid(rc->context, RC_IB_PORT, RC_GID_INDEX, &mine.gid) == 0, "ibv_query_gid");
    rc_swap(peer, &mine, &theirs, sizeof(mine));
    rc_to_rtr(rc, theirs.qpn, &theirs.gid);
    rc_to_rts(rc);
    rc_meet(peer);
}

/* --- completions --- */

/* For who waits by polling: now and then, see whether the other side is still there. */
static inline void rc_look(int peer, unsigned idle)
{
    char byte;

    if (idle % 256 == 0)
        sched_yield();
    errno = ECONNRESET;
    if (idle % (1u << 20) == 0)
        rc_need(recv(peer, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0, "the other side");
}

/* Poll until there is one. Who finds nothing for long lets others have the CPU. */
static inline struct ibv_wc rc_wait(struct rc *rc, int peer)
{
    struct ibv_wc wc;
    unsigned idle = 0;
    int n;

    while ((n = ibv_poll_cq(rc->cq, 1, &wc)) == 0)
        rc_look(peer, ++idle);
    rc_need(n == 1, "ibv_poll_cq");
    if (wc.status != IBV_WC_SUCCESS) {
        fprintf(stderr, "a work request failed: %s\n", ibv_wc_status_str(wc.status));
        exit(1);
    }
    return wc;
}

/* In the reverse order of rc_open. The parent of rc_sides also waits for its child. */
static inline int rc_close(struct rc *rc)
{
    int status = 0;

    ibv_destroy_qp(rc->qp);
    ibv_destroy_cq(rc->cq);
    ibv_dealloc_pd(rc->pd);
    ibv_close_device(rc->context);
    while (wait(&status) > 0) {
        if (status != 0)
            return 1;
    }
    return 0;
}

#endif
