/* SPDX-License-Identifier: MIT */
/* Client and server: every way in which a connection is made, or is not. */
#include "end.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SHORT_MS = 30 };

/* Both ends in this process, each with a NIC handle and an idle VI. */
struct pair {
    struct end a, b;
    char name[NAME_BYTES];
    _Alignas(8) char here[ADDRESS_ROOM], there[ADDRESS_ROOM], remote[ADDRESS_ROOM];
    VIP_VI_ATTRIBUTES theirs;
};

static void pair_open(struct pair *p, VIP_RELIABILITY_LEVEL level)
{
    fresh_name(p->name);
    end_open(&p->a);
    end_open(&p->b);
    T_EQ(end_create_vi(&p->a, level, &p->a.vi), VIP_SUCCESS);
    T_EQ(end_create_vi(&p->b, level, &p->b.vi), VIP_SUCCESS);
    end_address(&p->a, "client", p->here);
    end_address(&p->b, p->name, p->there);
}

static void pair_close(struct pair *p)
{
    end_close(&p->a);
    end_close(&p->b);
    t_end();
}

static VIP_RETURN request_into(struct pair *p, VIP_ULONG timeout, VIP_VI_ATTRIBUTES *theirs)
{
    return VipConnectRequest(p->a.vi, (VIP_NET_ADDRESS *)p->here, (VIP_NET_ADDRESS *)p->there,
                             timeout, theirs);
}

static VIP_RETURN request(struct pair *p, VIP_ULONG timeout)
{
    return request_into(p, timeout, &p->theirs);
}

/* A thread that asks for a connection, until it is not told that nobody waits. */
struct asker {
    struct pair *pair;
    VIP_ULONG timeout;
    _Atomic bool heard; /* the server has a request */
    VIP_RETURN result;
    VIP_VI_ATTRIBUTES theirs;
    pthread_t thread;
};

static void *ask(void *arg)
{
    struct asker *asker = arg;

    do {
        asker->result = request_into(asker->pair, asker->timeout, &asker->theirs);
    } while (asker->result == VIP_NO_MATCH);
    return NULL;
}

/* Asks with more and more patience until a request was heard, and is not answered. */
static void *ask_in_vain(void *arg)
{
    struct asker *asker = arg;

    while (!atomic_load(&asker->heard)) {
        VIP_RETURN result = request_into(asker->pair, asker->timeout *= 2, &asker->theirs);

        if (result != VIP_NO_MATCH)
            asker->result = result;
    }
    return NULL;
}

static void asker_start(struct asker *asker)
{
    T_EQ(pthread_create(&asker->thread, NULL, ask, asker), 0);
}

static VIP_RETURN asker_join(struct asker *asker)
{
    T_EQ(pthread_join(asker->thread, NULL), 0);
    return asker->result;
}

static VIP_RETURN wait_for(struct pair *p, VIP_ULONG timeout)
{
    return VipConnectWait(p->b.nic, (VIP_NET_ADDRESS *)p->there, timeout,
                          (VIP_NET_ADDRESS *)p->remote, &p->theirs, &p->b.conn);
}

static VIP_VI_STATE state_of(VIP_VI_HANDLE vi)
{
    VIP_VI_STATE state;

    T_EQ(VipQueryVi(vi, &state, NULL, NULL, NULL), VIP_SUCCESS);
    return state;
}

/* ---- it works ---- */

T_TEST(vipl_connect, accepted)
{
    /* Shows what either side learns of the other, and the states on the way. */
    struct pair p;
    struct asker asker = {.pair = &p, .timeout = SOON_MS};
    VIP_NET_ADDRESS *remote = (VIP_NET_ADDRESS *)p.remote;

    pair_open(&p, VIP_SERVICE_RELIABLE_RECEPTION);
    asker_start(&asker);
    T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
    T_EQ(state_of(p.a.vi), VIP_STATE_CONNECT_PENDING);
    T_EQ(state_of(p.b.vi), VIP_STATE_IDLE);
    T_EQ(remote->HostAddressLen, p.a.limits.NicAddressLen);
    T_MEMEQ(p.remote, p.here, 4u + remote->HostAddressLen + 6);
    T_EQ(remote->DiscriminatorLen, 6);
    T_EQ(p.theirs.ReliabilityLevel, VIP_SERVICE_RELIABLE_RECEPTION);
    T_EQ(p.theirs.MaxTransferSize, MTS);
    T_ASSERT(!p.theirs.QoS && !p.theirs.Ptag);
    T_EQ(p.theirs.EnableRdmaWrite, VIP_TRUE);
    T_EQ(VipConnectAccept(p.b.conn, p.b.vi), VIP_SUCCESS);
    T_EQ(asker_join(&asker), VIP_SUCCESS);
    T_EQ(asker.theirs.EnableRdmaRead, VIP_TRUE);
    T_EQ(asker.theirs.MaxTransferSize, MTS);
    T_EQ(state_of(p.a.vi), VIP_STATE_CONNECTED);
    T_EQ(state_of(p.b.vi), VIP_STATE_CONNECTED);
    T_EQ(VipConnectAccept(p.b.conn, p.b.vi), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectReject(p.b.conn), VIP_INVALID_PARAMETER);
    pair_close(&p);
}

T_TEST(vipl_connect, again)
{
    /* Shows that a VI can be connected, disconnected and connected again, and transfers each time.
     */
    struct pair p;
    VIP_DESCRIPTOR *done;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    for (int round = 0; round < 5; round++) {
        struct asker asker = {.pair = &p, .timeout = SOON_MS};

        T_EQ(VipPostRecv(p.b.vi, end_prepare(&p.b, 0, 8), p.b.handle), VIP_SUCCESS);
        T_EQ(VipPostRecv(p.b.vi, end_prepare(&p.b, 1, 8), p.b.handle), VIP_SUCCESS);
        asker_start(&asker);
        T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
        T_EQ(VipConnectAccept(p.b.conn, p.b.vi), VIP_SUCCESS);
        T_EQ(asker_join(&asker), VIP_SUCCESS);
        T_EQ(VipPostSend(p.a.vi, end_prepare(&p.a, 0, 8), p.a.handle), VIP_SUCCESS);
        T_EQ(end_take(p.a.vi, SEND, &done), VIP_SUCCESS);
        T_EQ(end_take(p.b.vi, RECV, &done), VIP_SUCCESS);
        T_EQ(VipDisconnect(p.a.vi), VIP_SUCCESS);
        T_EQ(VipDisconnect(p.b.vi), VIP_SUCCESS);
        T_EQ(VipRecvDone(p.b.vi, &done), VIP_DESCRIPTOR_ERROR);
        T_ASSERT(done == end_descriptor(&p.b, 1));
        T_EQ(state_of(p.a.vi), VIP_STATE_IDLE);
        T_EQ(state_of(p.b.vi), VIP_STATE_IDLE);
    }
    T_EQ(VipDestroyVi(p.a.vi), VIP_SUCCESS);
    T_EQ(VipDestroyVi(p.b.vi), VIP_SUCCESS);
    pair_close(&p);
}

T_TEST(vipl_connect, one_nic_handle)
{
    /* Shows that two VIs of one NIC handle can be connected with each other. */
    struct pair p;
    struct asker asker = {.pair = &p, .timeout = SOON_MS};
    VIP_VI_HANDLE other;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    T_EQ(end_create_vi(&p.a, VIP_SERVICE_RELIABLE_DELIVERY, &other), VIP_SUCCESS);
    asker_start(&asker);
    T_EQ(VipConnectWait(p.a.nic, (VIP_NET_ADDRESS *)p.there, SOON_MS, (VIP_NET_ADDRESS *)p.remote,
                        &p.theirs, &p.a.conn),
         VIP_SUCCESS);
    T_EQ(VipConnectAccept(p.a.conn, p.b.vi), VIP_INVALID_PARAMETER); /* of another handle */
    T_EQ(VipConnectAccept(p.a.conn, other), VIP_SUCCESS);
    T_EQ(asker_join(&asker), VIP_SUCCESS);
    pair_close(&p);
}

T_TEST(vipl_connect, no_local_address)
{
    /* Shows that who asks need not say where from. */
    struct pair p;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    T_EQ(VipConnectRequest(p.a.vi, NULL, (VIP_NET_ADDRESS *)p.there, SOON_MS, &p.theirs),
         VIP_NO_MATCH);
    pair_close(&p);
}

T_TEST(vipl_connect, discriminators)
{
    /* Shows that discriminators of each length are told apart: empty, long, one a part of another.
     */
    static const char *const tails[] = {"", "x", "xy", "0123456"};
    struct pair p;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    for (int i = 3; i >= 0; i--) {
        struct asker asker = {.pair = &p, .timeout = SOON_MS};
        char name[2 * NAME_BYTES];

        /* Nobody waits at the one that is one byte shorter. */
        snprintf(name, sizeof(name), "%.8s-%s", p.name, tails[i]);
        end_address(&p.b, name, p.there);
        ((VIP_NET_ADDRESS *)p.there)->DiscriminatorLen--;
        T_EQ(request(&p, SOON_MS), VIP_NO_MATCH);
        end_address(&p.b, name, p.there);
        asker_start(&asker);
        T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
        T_EQ(VipConnectReject(p.b.conn), VIP_SUCCESS);
        T_EQ(asker_join(&asker), VIP_REJECT);
    }
    pair_close(&p);
}

T_TEST(vipl_connect, longest_discriminator)
{
    /* Shows that discriminators of exactly MaxDiscriminatorLen bytes reach the other side whole. */
    struct pair p;
    struct asker asker = {.pair = &p, .timeout = SOON_MS};
    VIP_NET_ADDRESS *remote = (VIP_NET_ADDRESS *)p.remote;
    char name[ADDRESS_ROOM] = "";

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    size_t most = p.a.limits.MaxDiscriminatorLen;
    T_ASSERT(most < sizeof(name) / 2);
    memset(name, 'y', most);
    end_address(&p.a, name, p.here);
    memcpy(name, p.name, strlen(p.name));
    end_address(&p.b, name, p.there);
    asker_start(&asker);
    T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
    T_EQ(remote->DiscriminatorLen, most);
    T_MEMEQ(p.remote, p.here, 4u + remote->HostAddressLen + most);
    T_EQ(VipConnectAccept(p.b.conn, p.b.vi), VIP_SUCCESS);
    T_EQ(asker_join(&asker), VIP_SUCCESS);
    pair_close(&p);
}

/* ---- it does not ---- */

T_TEST(vipl_connect, rejected)
{
    /* Shows that a rejected VI is idle and keeps its receives; the handle is gone. */
    struct pair p;
    struct asker asker = {.pair = &p, .timeout = SOON_MS};
    VIP_DESCRIPTOR *done;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    T_EQ(VipPostRecv(p.a.vi, end_prepare(&p.a, 0, 8), p.a.handle), VIP_SUCCESS);
    asker_start(&asker);
    T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
    T_EQ(VipConnectReject(p.b.conn), VIP_SUCCESS);
    T_EQ(asker_join(&asker), VIP_REJECT);
    T_EQ(VipConnectReject(p.b.conn), VIP_INVALID_PARAMETER);
    T_EQ(state_of(p.a.vi), VIP_STATE_IDLE);
    T_EQ(VipRecvDone(p.a.vi, &done), VIP_NOT_DONE);
    pair_close(&p);
}

T_TEST(vipl_connect, no_match)
{
    /* Shows what who asks is told when nobody waits: at all, at this discriminator, any more. */
    struct pair p;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    T_EQ(request(&p, SOON_MS), VIP_NO_MATCH);
    T_EQ(state_of(p.a.vi), VIP_STATE_IDLE);
    T_EQ(wait_for(&p, 0), VIP_TIMEOUT);
    T_EQ(request(&p, SOON_MS), VIP_NO_MATCH);
    pair_close(&p);
}

T_TEST(vipl_connect, timeouts)
{
    /* Shows that waiting ends in time, with nobody there, and with a server that does not answer.
     */
    struct pair p;
    struct asker asker = {.pair = &p, .timeout = SHORT_MS};

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    int64_t start = t_now_ns();
    T_EQ(wait_for(&p, SHORT_MS), VIP_TIMEOUT);
    T_ASSERT(t_now_ns() - start >= SHORT_MS * 1000000);
    T_EQ(pthread_create(&asker.thread, NULL, ask_in_vain, &asker), 0);
    T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
    atomic_store(&asker.heard, true);
    T_EQ(asker_join(&asker), VIP_TIMEOUT);
    T_EQ(state_of(p.a.vi), VIP_STATE_IDLE);
    /* The server comes too late, and its VI is idle again. */
    T_EQ(VipConnectAccept(p.b.conn, p.b.vi), VIP_TIMEOUT);
    T_EQ(state_of(p.b.vi), VIP_STATE_IDLE);
    T_EQ(VipConnectAccept(p.b.conn, p.b.vi), VIP_INVALID_PARAMETER);
    pair_close(&p);
}

T_TEST(vipl_connect, mismatches)
{
    /* Shows what keeps a server from accepting, that who asks hears nothing, and another VI does.
     */
    struct pair p;
    struct asker asker = {.pair = &p, .timeout = SOON_MS};
    VIP_VI_HANDLE other;
    VIP_VI_ATTRIBUTES attributes;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    asker_start(&asker);
    T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
    T_EQ(end_create_vi(&p.b, VIP_SERVICE_RELIABLE_RECEPTION, &other), VIP_SUCCESS);
    T_EQ(VipConnectAccept(p.b.conn, other), VIP_INVALID_RELIABILITY_LEVEL);
    T_EQ(state_of(other), VIP_STATE_IDLE);
    attributes = end_attributes(&p.b, VIP_SERVICE_RELIABLE_DELIVERY);
    attributes.MaxTransferSize = MTS - 1;
    T_EQ(VipSetViAttributes(other, &attributes), VIP_SUCCESS);
    T_EQ(VipConnectAccept(p.b.conn, other), VIP_INVALID_MTU);
    T_EQ(VipConnectAccept(p.b.conn, NULL), VIP_INVALID_PARAMETER);
    T_EQ(state_of(p.a.vi), VIP_STATE_CONNECT_PENDING);
    attributes.MaxTransferSize = MTS;
    T_EQ(VipSetViAttributes(other, &attributes), VIP_SUCCESS);
    T_EQ(VipConnectAccept(p.b.conn, other), VIP_SUCCESS);
    T_EQ(asker_join(&asker), VIP_SUCCESS);
    pair_close(&p);
}

T_TEST(vipl_connect, not_idle)
{
    /* Shows that a VI that is connected can be neither accepted with nor asked for again. */
    struct pair p;
    struct asker asker = {.pair = &p, .timeout = SOON_MS}, second;
    VIP_VI_HANDLE first;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    asker_start(&asker);
    T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
    T_EQ(VipConnectAccept(p.b.conn, p.b.vi), VIP_SUCCESS);
    T_EQ(asker_join(&asker), VIP_SUCCESS);
    T_EQ(request(&p, SOON_MS), VIP_INVALID_STATE);
    first = p.a.vi;
    T_EQ(end_create_vi(&p.a, VIP_SERVICE_RELIABLE_DELIVERY, &p.a.vi), VIP_SUCCESS);
    second = (struct asker){.pair = &p, .timeout = SOON_MS};
    asker_start(&second);
    T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
    T_EQ(VipConnectAccept(p.b.conn, p.b.vi), VIP_INVALID_STATE);
    T_EQ(VipConnectReject(p.b.conn), VIP_SUCCESS);
    T_EQ(asker_join(&second), VIP_REJECT);
    T_EQ(state_of(first), VIP_STATE_CONNECTED);
    pair_close(&p);
}

T_TEST(vipl_connect, given_up)
{
    /* Shows that VipDisconnect ends an attempt that another thread waits for. */
    struct pair p;
    struct asker asker = {.pair = &p, .timeout = VIP_INFINITE};
    VIP_DESCRIPTOR *done;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    T_EQ(VipPostRecv(p.a.vi, end_prepare(&p.a, 0, 8), p.a.handle), VIP_SUCCESS);
    asker_start(&asker);
    T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
    T_EQ(VipDisconnect(p.a.vi), VIP_SUCCESS);
    T_EQ(asker_join(&asker), VIP_INVALID_STATE);
    T_EQ(state_of(p.a.vi), VIP_STATE_IDLE);
    T_EQ(VipRecvDone(p.a.vi, &done), VIP_DESCRIPTOR_ERROR);
    T_ASSERT(done && done->CS.Status & VIP_STATUS_DESC_FLUSHED_ERROR);
    T_EQ(VipConnectAccept(p.b.conn, p.b.vi), VIP_TIMEOUT);
    pair_close(&p);
}

T_TEST(vipl_connect, bad_parameters)
{
    /* Shows what is refused at once. */
    struct pair p;
    VIP_NET_ADDRESS *there = (VIP_NET_ADDRESS *)p.there, *remote = (VIP_NET_ADDRESS *)p.remote;
    VIP_CONN_HANDLE conn;
    int stranger;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    T_EQ(request(&p, 0), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectRequest(NULL, NULL, there, 1, &p.theirs), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectRequest(&stranger, NULL, there, 1, &p.theirs), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectRequest(p.a.vi, NULL, NULL, 1, &p.theirs), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectRequest(p.a.vi, NULL, there, 1, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectWait(NULL, there, 1, remote, &p.theirs, &conn), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectWait(p.b.nic, NULL, 1, remote, &p.theirs, &conn), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectWait(p.b.nic, there, 1, NULL, &p.theirs, &conn), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectWait(p.b.nic, there, 1, remote, NULL, &conn), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectWait(p.b.nic, there, 1, remote, &p.theirs, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectAccept(NULL, p.b.vi), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectAccept(p.b.vi, p.b.vi), VIP_INVALID_PARAMETER);
    T_EQ(VipConnectReject(NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipDisconnect(NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipDisconnect(p.b.nic), VIP_INVALID_PARAMETER);
    there->DiscriminatorLen = (VIP_UINT16)(p.b.limits.MaxDiscriminatorLen + 1);
    T_EQ(wait_for(&p, 1), VIP_INVALID_PARAMETER);
    T_EQ(request(&p, 1), VIP_INVALID_PARAMETER);
    there->DiscriminatorLen = 1;
    there->HostAddressLen = 3;
    T_EQ(wait_for(&p, 1), VIP_INVALID_PARAMETER);
    T_EQ(request(&p, 1), VIP_INVALID_PARAMETER);
    end_address(&p.b, p.name, p.there);
    there->HostAddress[0] = 203; /* not an address of ours, nor anybody's: RFC 5737 */
    there->HostAddress[1] = 0;
    there->HostAddress[2] = 113;
    T_EQ(wait_for(&p, 1), VIP_INVALID_PARAMETER);
    pair_close(&p);
}

/* Documentation's own, nobody's: RFC 5737. */
static const uint8_t nowhere[4] = {203, 0, 113, 1};

/* Whether this host has a way there, by which packets would be lost. Only via0 is known to ask. */
static bool may_be_a_way(void)
{
    if (strcmp(test_device(), "via0"))
        return true;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(4791)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    T_ASSERT(fd >= 0);
    memcpy(&to.sin_addr, nowhere, sizeof(nowhere));
    bool way = !connect(fd, (struct sockaddr *)&to, sizeof(to));
    close(fd);
    return way;
}

T_TEST(vipl_connect, not_reachable)
{
    /* Shows that a host to which there is no way is not reachable, for clients and for peers. */
    struct pair p;
    VIP_NET_ADDRESS *there = (VIP_NET_ADDRESS *)p.there;
    VIP_RETURN code = may_be_a_way() ? VIP_TIMEOUT : VIP_NOT_REACHABLE;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    T_EQ(there->HostAddressLen, 4);
    memcpy(there->HostAddress, nowhere, sizeof(nowhere));
    T_IN(request(&p, 1000), VIP_NOT_REACHABLE, code);
    T_EQ(state_of(p.a.vi), VIP_STATE_IDLE);
    /* Of two peers it is the one with the longer discriminator that asks. */
    there->DiscriminatorLen = 1;
    T_EQ(VipConnectPeerRequest(p.a.vi, (VIP_NET_ADDRESS *)p.here, there, 1000), VIP_SUCCESS);
    T_IN(VipConnectPeerWait(p.a.vi, &p.theirs), VIP_NOT_REACHABLE, code);
    T_EQ(state_of(p.a.vi), VIP_STATE_IDLE);
    pair_close(&p);
}

enum { HANDLES = 32 };

T_TEST(vipl_connect, address_taken)
{
    /* Shows that an address can be taken by a few NIC handles only, and the next is told so. */
    struct pair p;
    VIP_NIC_HANDLE nics[HANDLES];
    VIP_RETURN result = VIP_TIMEOUT;
    int count = 0;

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    while (result == VIP_TIMEOUT && count < HANDLES) {
        T_EQ(VipOpenNic(test_device(), &nics[count]), VIP_SUCCESS);
        result = VipConnectWait(nics[count++], (VIP_NET_ADDRESS *)p.there, 0,
                                (VIP_NET_ADDRESS *)p.remote, &p.theirs, &p.b.conn);
    }
    T_EQ(result, VIP_ERROR_RESOURCE);
    T_EQ(VipConnectPeerRequest(p.b.vi, (VIP_NET_ADDRESS *)p.there, (VIP_NET_ADDRESS *)p.here, 1),
         VIP_ERROR_RESOURCE);
    T_EQ(state_of(p.b.vi), VIP_STATE_IDLE);
    /* When they are closed it is free again. */
    while (count)
        T_EQ(VipCloseNic(nics[--count]), VIP_SUCCESS);
    T_EQ(wait_for(&p, 0), VIP_TIMEOUT);
    pair_close(&p);
}

/* ---- many ---- */

enum { CLIENTS = 8 };

struct client {
    struct pair *pair;
    VIP_VI_HANDLE vi;
    VIP_RETURN result;
    pthread_t thread;
};

static void *be_client(void *arg)
{
    struct client *client = arg;
    VIP_VI_ATTRIBUTES theirs;
    int64_t deadline = t_deadline(SOON_MS);

    do {
        client->result =
            VipConnectRequest(client->vi, (VIP_NET_ADDRESS *)client->pair->here,
                              (VIP_NET_ADDRESS *)client->pair->there, SOON_MS, &theirs);
    } while (client->result == VIP_NO_MATCH && !t_expired(deadline));
    return NULL;
}

T_TEST(vipl_connect, many_at_once)
{
    /* Shows that a server gets each of many clients that ask at the same time, exactly once. */
    struct pair p;
    struct client clients[CLIENTS];

    pair_open(&p, VIP_SERVICE_RELIABLE_DELIVERY);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i].pair = &p;
        T_EQ(end_create_vi(&p.a, VIP_SERVICE_RELIABLE_DELIVERY, &clients[i].vi), VIP_SUCCESS);
        T_EQ(pthread_create(&clients[i].thread, NULL, be_client, &clients[i]), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        VIP_VI_HANDLE vi;

        T_EQ(end_create_vi(&p.b, VIP_SERVICE_RELIABLE_DELIVERY, &vi), VIP_SUCCESS);
        T_EQ(wait_for(&p, SOON_MS), VIP_SUCCESS);
        T_EQ(VipConnectAccept(p.b.conn, vi), VIP_SUCCESS);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        T_EQ(clients[i].result, VIP_SUCCESS);
        T_EQ(state_of(clients[i].vi), VIP_STATE_CONNECTED);
    }
    pair_close(&p);
}

T_TEST(vipl_connect, same_port)
{
    /* Shows that two processes may wait at one discriminator, which is one port for both. */
    struct t_peer *b = t_peer_start(ELSEWHERE), *c = t_peer_start(ELSEWHERE);
    struct t_peer *a = t_peer_start(T_INLINE);
    struct order open = {.level = VIP_SERVICE_RELIABLE_DELIVERY}, serve = {0}, second,
                 ask_for = {0};

    T_EQ(order_run(b, do_open, open).result, VIP_SUCCESS);
    T_EQ(order_run(c, do_open, open).result, VIP_SUCCESS);
    T_EQ(order_run(a, do_open, open).result, VIP_SUCCESS);
    fresh_name(serve.name);
    memcpy(ask_for.name, serve.name, sizeof(ask_for.name));
    end_address(end_of(a), "", ask_for.host);
    second = serve;
    t_peer_begin(b, do_serve, &serve, sizeof(serve));
    t_peer_begin(c, do_serve, &second, sizeof(second));
    T_EQ(order_run(a, do_request, ask_for).result, VIP_SUCCESS);
    T_EQ(end_create_vi(end_of(a), VIP_SERVICE_RELIABLE_DELIVERY, &end_of(a)->vi), VIP_SUCCESS);
    T_EQ(order_run(a, do_request, ask_for).result, VIP_SUCCESS);
    t_peer_finish(b);
    t_peer_finish(c);
    T_EQ(serve.result, VIP_SUCCESS);
    T_EQ(second.result, VIP_SUCCESS);
    order_run(a, do_close, open);
    order_run(b, do_close, open);
    order_run(c, do_close, open);
    t_peer_stop(a);
    t_peer_stop(b);
    t_peer_stop(c);
    t_end();
}
