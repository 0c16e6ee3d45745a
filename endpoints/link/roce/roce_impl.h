/* SPDX-License-Identifier: MIT */
/* The wire inside: sockets by local address, batches of packets, and who gets what comes in. */
#ifndef VIADUCT_LINK_ROCE_ROCE_IMPL_H
#define VIADUCT_LINK_ROCE_ROCE_IMPL_H

#include <netinet/in.h>

#include "core/thread.h"
#include "engine/transport.h"
#include "link/roce/roce.h"
#include "wire/icrc.h"
#include "wire/packet.h"

enum {
    ROCE_SENDERS = 8,    /* sockets to send from, one source port each, of a local address */
    ROCE_PORTS_MAX = 64, /* local addresses */
    ROCE_IDS = 16,
    ROCE_SEGMENTS_MAX = 64, /* packets that one datagram of the batch is cut into by the kernel */
};

/*
 * What is done before a packet is sent is over before it is received. The thread sanitizer does not
 * see that: it is told, on both sides.
 */
#ifdef __SANITIZE_THREAD__
void socket_orders(void);
#else
static inline void socket_orders(void)
{
}
#endif

/* Does the filter send packets to the right process? */
enum steering { STEER_GOOD, STEER_WRONG, STEER_PROBING };

/* An IP address with its port, as sockets want it. */
struct roce_sockaddr {
    socklen_t size;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    };
};

/* A socket that sends to any address: what comes back there is refusals. */
struct roce_sender {
    struct watch watch; /* its first member */
    struct roce_port *port;
};

/* A socket connected to a destination: outlet.c. */
struct roce_outlet {
    struct spin lock; /* from the number that a packet will have until it is sent */
    struct roce_outlet *next;
    _Atomic bool refused; /* nobody was there; to be told */
    _Atomic bool suspect; /* an answer is overdue: look for refusals */
    struct icrc_path icrc;
    unsigned sender;
    int fd;
    bool counted;         /* IPv4: packets have numbers, and */
    _Atomic bool in_step; /* this is the next one's: */
    uint16_t next_id;
    uint64_t learn_at_ns;
};

/* A local address, with what is received there and sent from there. Lives as long as the process.
 */
struct roce_port {
    struct watch watch; /* its first member; .fd: bound to (address, 4791); -1: it rests */
    uint8_t gid[16];
    unsigned nic; /* its index */
    bool v4, group;
    bool no_segmentation; /* the kernel won't cut datagrams for this device */
    bool watched;         /* the engine thread hears of what comes */
    unsigned idle;        /* polls in vain since something came */
    unsigned running;     /* calls that received something, one after the other */
    bool crowded;         /* receive several with a call */
    bool sparse;          /* they come one by one */
    bool marks;           /* and yet the next one's traffic class is told */
    unsigned lone, calls;
    uint32_t interface;
    unsigned mtu;
    _Atomic int senders[ROCE_SENDERS]; /* descriptor + 1 */
    uint16_t sender_ports[ROCE_SENDERS];
    struct roce_sender sender_watches[ROCE_SENDERS];
    struct roce_outlet *outlets; /* core_lock */
    _Atomic int sending;         /* queue pairs with requests under way, which share */
    unsigned room;               /* so many packets in flight */
    uint16_t ids[ROCE_IDS];      /* the receive lock: what the next packet may have, by source */
    struct roce_port *next;
    struct roce_port *left; /* of a group, and nobody is in it */
    /* steer.c: the processes of this address */
    struct roce_roster *roster;
    int roster_fd;
    _Atomic int steering; /* enum steering */
    unsigned members;
    uint64_t repaired_ns;
};

/* Where packets go from where; fixed once made. */
struct roce_path {
    struct roce_port *port;
    unsigned sender;
    struct roce_outlet *outlet; /* NULL: none; else the better way */
    struct icrc_path icrc;      /* the addresses, and the ports without the outlet */
    struct roce_sockaddr to;
    uint8_t traffic_class, hop_limit;
};

/* What is known of a packet that came in beside its bytes. */
struct roce_from {
    struct roce_port *port;
    struct icrc_path icrc; /* source: who sent it */
    uint8_t traffic_class, hop_limit;
    uint16_t id; /* IPv4: it may have this identification */
    uint64_t now_ns;
    bool final; /* another process handed it over: it is ours, or nobody's */
};

/* ---- udp.c: sockets ---- */
/* core_lock held: the local address, opened if it isn't yet; 0 or negative errno. */
int udp_port_open(const struct nic *nic, const uint8_t gid[16], struct roce_port **port_out);
struct roce_port *udp_ports(void);
/* The engine thread hears no more of what comes there, if it did. */
void udp_unwatch(struct roce_port *port);
/* core_lock held: close what receives, until it is opened again. */
void udp_port_rest(struct roce_port *port);
/*
 * core_lock held: receive what is sent to a group of IP on the interfaces of a NIC that its family
 * has; 0 or negative errno.
 */
int udp_group_join(const struct nic *nic, const uint8_t mgid[16]);
/* core_lock held: nobody here is in the group any more by this interface. */
void udp_group_leave(uint32_t interface, const uint8_t mgid[16]);
/* The local address that a group is reached from: sgid, or another one of the group's family. */
struct roce_port *udp_group_port(const struct nic *nic, const uint8_t sgid[16],
                                 const uint8_t mgid[16]);
/* Any thread: NULL if it was never opened. */
struct roce_port *udp_port_find(const uint8_t gid[16]);
/* Any thread: 0 and the path. `entropy` chooses the source port. */
int udp_path(struct roce_port *port, const uint8_t dgid[16], uint32_t entropy,
             struct roce_path *path_out);
/* Whether the kernel tells of a packet's traffic class, where congestion is marked; its hops. */
void udp_tell_class(int fd, bool v4, bool on);
void udp_tell_hops(int fd, bool v4, bool on);
/* A socket to send from, bound to a free source port; or negative errno. */
int udp_open_source(const struct roce_port *port, unsigned salt, uint16_t *number_out);
void udp_after_fork(void);
/* A UDP port of an address that is reached from this one. */
void udp_address(const struct roce_port *port, const uint8_t gid[16], uint16_t number,
                 struct roce_sockaddr *out);
/* The address in it. */
void udp_take_address(const struct roce_sockaddr *address, uint8_t gid[16]);
/* The largest path MTU that a port's interface carries: 256 .. 4096. */
unsigned udp_path_mtu(unsigned mtu);

/* ---- receive.c ---- */
/*
 * The receive lock held: receive what has come, a batch at most, and hand each packet to
 * roce_dispatch(). How many datagrams there were. The time is read if it is needed and 0.
 */
unsigned udp_receive(struct roce_port *port, uint64_t *now_ns_inout);

/* ---- outlet.c: connected sockets to send from ---- */
/* core_lock held. NULL: there can't be one. It lives as long as its port. */
struct roce_outlet *outlet_find(struct roce_port *port, const uint8_t dgid[16], unsigned sender);
/* False: another thread has it, or the number of its next packet is not known. */
bool outlet_take(struct roce_outlet *outlet);
void outlet_give(struct roce_outlet *outlet);
/* Any thread: its packets may have other numbers than we think. */
void outlet_doubt(struct roce_outlet *outlet);
void outlets_close(struct roce_port *port);

/* ---- steer.c: several processes behind one address ---- */
/* Makes port->watch.fd. `first`: no other process of this runtime directory has one. */
typedef int steer_bind(struct roce_port *port, bool first);
/* core_lock held. */
int steer_join(struct roce_port *port, steer_bind *bind_socket);
/* core_lock held. close_socket() passes on what is in it for others. */
void steer_leave(struct roce_port *port, void (*close_socket)(struct roce_port *port));
void steer_close(struct roce_port *port);
/* core_lock held: where others hand over what is ours. */
int steer_open(void);
/* Engine thread, core_lock held. */
void steer_progress(uint64_t now_ns);
bool steer_is_probe(const struct roce_port *port, const uint8_t *bytes, size_t size);
/* False: that process can't be reached. `final`: it is to keep it. */
bool steer_hand_over(const struct roce_from *from, uint32_t slot, bool final, const uint8_t *bytes,
                     size_t size);
/* The receive lock held: hand it over, and see to it that the next one gets there by itself. */
bool steer_went_wrong(const struct roce_from *from, uint32_t slot, const uint8_t *bytes,
                      size_t size);
void steer_after_fork(void);

/* ---- batch.c: packets on their way out ---- */
struct roce_batch;
struct roce_batch *batch_take(void);
/* Copies all of the packet. path must stay until the batch is given back. */
void batch_add(struct roce_batch *batch, const struct roce_path *path,
               const struct transport_packet *packet);
/* Send what is in it, and give it back. */
void batch_send(struct roce_batch *batch);

/* ---- roce.c: what came in ---- */
/* The receive lock held. Bytes: a UDP payload. The packet's identification, if that can be told. */
uint16_t roce_dispatch(const struct roce_from *from, const uint8_t *bytes, size_t size);

/* ---- qp.c: connected queue pairs ---- */
extern const struct transport_calls roce_calls; /* the owner is a struct qp */
/* The receive lock held. False: it is not from its peer. */
bool roce_qp_receive(struct qp *qp, const struct roce_from *from, const struct wire_packet *packet);
/* The receive lock held: send what the packets of this batch made due. */
void roce_qp_answer(uint64_t now_ns);
/* The same, but those that have no more than an ACK to say wait: true if there are any. */
bool roce_qp_answer_urgent(uint64_t now_ns);
bool roce_qp_waits(void);
/* The receive lock held: who fell due. The next time, or UINT64_MAX. */
uint64_t roce_qp_expire(uint64_t now_ns);
/* The engine thread, core_lock held: events that fell due. */
void roce_qp_progress(void);
/* Any thread: call roce_qp_expire() at this time. */
void roce_due_at(uint64_t when_ns);

/* The elements that are not empty. */
void roce_copy_receive(struct transport_recv *to, const struct pub_sge *sges, uint32_t count);
struct roce_xrc *roce_qp_xrc(const struct qp *qp);

/* ---- xrc.c: what XRC_RECV queue pairs have instead of roce_calls ---- */
extern const struct transport_calls roce_xrc_calls;
/* Freed by free(). 0 or -ENOMEM. */
int roce_xrc_new(struct qp *qp, struct roce_xrc **xrc_out);
/* Engine, core_lock held: completions that could not be delivered yet. */
void roce_xrc_progress(void);

/* ---- peer.c ---- */
/* Who is not there: what the queue pair number names, all of its process, or anybody at all. */
enum refusal { REFUSED_BY_QP, REFUSED_BY_PROCESS, REFUSED_BY_HOST };
/*
 * The receive lock held: `peer` says that nobody is there for a packet with this queue pair number
 * and PSN.
 */
void roce_qp_refused(const struct roce_port *port, const uint8_t peer[16], uint32_t qpn,
                     uint32_t psn, enum refusal who);
/* The same, and it is to be believed. */
void roce_qp_unreachable(const struct roce_port *port, const uint8_t peer[16], uint32_t qpn,
                         enum refusal who);
/* The receive lock held: ask who is silent, when it is time. The next time, or TRANSPORT_NEVER. */
uint64_t roce_peers_expire(uint64_t now_ns);
void roce_peers_progress(void); /* the engine thread, core_lock held */
void roce_peers_after_fork(void);

/* ---- refusal.c: of packets that nobody is there for ---- */
/* Hear of those that are sent from this socket, which is not connected; `at` stays. Any thread. */
void refusal_watch(struct roce_sender *at, struct roce_port *port, int fd);
/* An answer to what went out there is overdue: look whether somebody said why. Any thread. */
void refusal_suspect(struct roce_outlet *outlet);
/* One that was connected was told, in place of sending. Any thread. */
void refusal_note(struct roce_outlet *outlet);
void refusal_progress(void); /* the engine thread */
/* The receive lock held: tell who sent this request that nobody is there for it. */
void refusal_send(const struct roce_from *from, enum refusal who, const uint8_t *bytes,
                  size_t size);

/* ---- datagram.c ---- */
void roce_datagram_receive(struct qp *qp, const struct roce_from *from,
                           const struct wire_packet *packet);

/* Everybody here who is in the group. */
void roce_group_receive(const struct roce_from *from, const struct wire_packet *packet);

/* ---- faults.c, the receive lock held ---- */
void faults_receive(const struct roce_from *from, uint8_t *bytes, size_t size);
/* Packets whose time has come; when the next one's does, or TRANSPORT_NEVER. */
uint64_t faults_deliver(uint64_t now_ns);
void faults_after_fork(void);

/* ---- mad.c ---- */
void roce_mad_receive(const struct roce_from *from, const struct wire_packet *packet,
                      const uint8_t *bytes, size_t size);
void roce_mad_progress(void); /* core_lock held */
/* core_lock held: nobody is there at `peer` for the datagram with this PSN. */
void roce_mad_refused(const uint8_t peer[16], uint32_t psn);
void roce_mad_after_fork(void);

/* ---- roce.c, any thread ---- */
/* A local address was opened: the engine thread must hear of what comes. */
void roce_port_opened(void);
/* The receive lock held: take in what has come, and answer it. */
void roce_receive_all(void);
/* Datagrams come or go over the wire: pollers look for them from now on. */
void roce_use_datagrams(void);
bool roce_uses_datagrams(void);

/* ---- lock of the receive side ---- */
/* What has been received is acknowledged now. */
void roce_answer(void);
void roce_lock(void);
void roce_unlock(void);

#endif
