/* SPDX-License-Identifier: MIT */
/*
 * Connection management datagrams (IBTA 12.6, 12.11) as bytes and as a struct, and the header that
 * the RDMA IP CM service puts at the front of a request's private data (IBTA annex A11).
 *
 *   24 bytes  common header: class 7, method Send, transaction, attribute
 *   232 bytes the message, its private data last
 *
 * Nothing here allocates or keeps state; every byte that comes in is checked before it is believed.
 */
#ifndef VIADUCT_ENGINE_CM_MAD_H
#define VIADUCT_ENGINE_CM_MAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CM_MAD_SIZE = 256, CM_PRIVATE_MAX = 224, CM_ARI_MAX = 72, CM_IP_SIZE = 36 };

/* What fits behind the fixed part of each message. */
enum {
    CM_REQ_PRIVATE = 92,
    CM_MRA_PRIVATE = 222,
    CM_REJ_PRIVATE = 148,
    CM_REP_PRIVATE = 196,
    CM_RTU_PRIVATE = 224,
    CM_DREQ_PRIVATE = 220,
    CM_DREP_PRIVATE = 224,
    CM_SIDR_REQ_PRIVATE = 216,
    CM_SIDR_REP_PRIVATE = 136,
};

enum cm_attribute {
    CM_REQ = 0x10,
    CM_MRA,
    CM_REJ,
    CM_REP,
    CM_RTU,
    CM_DREQ,
    CM_DREP,
    CM_SIDR_REQ,
    CM_SIDR_REP,
};

/* IBTA 12.6.7.2, those we send or treat. */
enum cm_reason {
    CM_REASON_NO_RESOURCES = 3,
    CM_REASON_TIMEOUT = 4,
    CM_REASON_INVALID_COMM = 6,
    CM_REASON_INVALID_SERVICE = 8,
    CM_REASON_STALE = 10,
    CM_REASON_CONSUMER = 28,
};

/* IBTA 12.11.2.2 */
enum cm_sidr_status { CM_SIDR_OK, CM_SIDR_UNSUPPORTED, CM_SIDR_REJECTED, CM_SIDR_NO_QP };

/* Which message an MRA or REJ speaks of. */
enum cm_about { CM_ABOUT_REQ, CM_ABOUT_REP, CM_ABOUT_OTHER };

enum cm_transport { CM_TRANSPORT_RC, CM_TRANSPORT_UC, CM_TRANSPORT_RD, CM_TRANSPORT_EXTENDED };

/* One message. Only the fields of its attribute mean anything; the others are zero. */
struct cm_mad {
    uint16_t attribute; /* enum cm_attribute */
    uint64_t tid;
    uint32_t local_id, remote_id; /* sender's, receiver's; SIDR: the request, none */
    uint64_t service_id, ca_guid;
    uint32_t qkey, qpn, psn;
    uint8_t responder_resources, initiator_depth;
    uint8_t transport; /* enum cm_transport */
    bool xrc, flow_control, srq;
    uint8_t retry_count, rnr_retry, max_retries;
    uint8_t remote_timeout, local_timeout; /* 4.096 us << n: response of the peer, of the sender */
    uint8_t ack_timeout, ack_delay;
    uint8_t mtu; /* enum ibv_mtu */
    uint16_t pkey;
    uint8_t sgid[16], dgid[16]; /* the sender's, the receiver's */
    uint32_t flow_label;
    uint8_t traffic_class, hop_limit, sl, rate;
    uint8_t about, service_timeout; /* MRA, REJ */
    uint16_t reason;
    uint8_t sidr_status;
    uint8_t ari_len, private_len;
    uint8_t ari[CM_ARI_MAX];
    uint8_t private_data[CM_PRIVATE_MAX];
};

/* Room for private data in this message; 0: no such message. */
size_t cm_private_room(uint16_t attribute);
/* The private data must fit. */
void cm_mad_encode(const struct cm_mad *mad, uint8_t out[CM_MAD_SIZE]);
/* False: not a message of ours. private_len becomes the room: the true length isn't sent. */
bool cm_mad_decode(const uint8_t *bytes, size_t len, struct cm_mad *mad_out);

/* Who calls whom, by IP: addresses as IPv6, IPv4 ones mapped (::ffff:a.b.c.d). */
struct cm_ip {
    bool v4;
    uint16_t port; /* of the caller */
    uint8_t src[16], dst[16];
};

void cm_ip_encode(const struct cm_ip *ip, uint8_t out[CM_IP_SIZE]);
bool cm_ip_decode(const uint8_t bytes[CM_IP_SIZE], struct cm_ip *ip_out);

/* The IP CM service of a port space and a port. */
static inline uint64_t cm_service_id(uint16_t port_space, uint16_t port)
{
    return (uint64_t)port_space << 16 | port;
}

#endif
