/* SPDX-License-Identifier: MIT */
/*
 * Unreliable datagrams (IBTA 9.8.2): one packet a message, nothing remembered. Functions over the
 * same owner as a transport's (engine/transport.h).
 */
#ifndef VIADUCT_ENGINE_DATAGRAM_H
#define VIADUCT_ENGINE_DATAGRAM_H

#include "engine/transport.h"

enum { DATAGRAM_GRH_SIZE = 40 };

/* What the sender's queue pair and its address handle say. */
struct datagram_to {
    uint32_t qpn, qkey; /* a Q_Key with its top bit set: the queue pair's own is used instead */
    uint32_t src_qpn, own_qkey;
    uint16_t pkey;
    uint32_t mtu;
    uint32_t psn;
};

/*
 * The packet for a SEND. Anything but success is what its completion must say, and there is no
 * packet. Inline elements are read where they are.
 */
enum transport_status datagram_make(const struct transport_calls *calls, void *owner,
                                    const struct transport_wr *wr, const struct datagram_to *to,
                                    struct transport_packet *packet_out);

enum datagram_verdict {
    DATAGRAM_TAKEN,
    DATAGRAM_DROPPED, /* wrong Q_Key, no receive, or longer than the receive: nobody hears of it */
    DATAGRAM_BROKEN,  /* a receive's own key was bad: it is completed, the queue pair must fail */
};

/* A receive that was taken, and is there for the next datagram; the owner's to flush at the end. */
struct datagram_hold {
    bool taken;
    struct transport_recv recv;
};

/* grh: the 40 bytes in front of the payload, made from the IP header. */
enum datagram_verdict datagram_receive(const struct transport_calls *calls, void *owner,
                                       uint32_t qkey, struct datagram_hold *hold,
                                       const uint8_t grh[DATAGRAM_GRH_SIZE],
                                       const struct wire_packet *packet);

#endif
