/* SPDX-License-Identifier: MIT */
/* The layouts of connection management datagrams: offsets are those of IBTA 12.6 and 12.11. */
#include "engine/cm_mad.h"

#include <assert.h>
#include <string.h>

enum {
    HEADER = 24,
    BASE_VERSION = 1,
    CLASS_CM = 7,
    CLASS_VERSION = 2,
    METHOD_SEND = 3,
    LID_PERMISSIVE = 0xffff, /* RoCE has no LIDs */
    XRC_EXTENDED = 1,
};

/* ---- big-endian fields ---- */

static void put(uint8_t *at, unsigned bytes, uint64_t value)
{
    for (unsigned i = bytes; i-- > 0; value >>= 8)
        at[i] = (uint8_t)value;
}

static uint64_t get(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | at[i];
    return value;
}

static uint8_t bits(uint8_t high, uint8_t low, unsigned low_bits)
{
    return (uint8_t)((unsigned)high << low_bits | (low & ((1u << low_bits) - 1)));
}

/* ---- where private data lies ---- */

static const struct {
    uint8_t at, room;
} private_data[] = {
    [CM_REQ - CM_REQ] = {140, CM_REQ_PRIVATE},
    [CM_MRA - CM_REQ] = {10, CM_MRA_PRIVATE},
    [CM_REJ - CM_REQ] = {84, CM_REJ_PRIVATE},
    [CM_REP - CM_REQ] = {36, CM_REP_PRIVATE},
    [CM_RTU - CM_REQ] = {8, CM_RTU_PRIVATE},
    [CM_DREQ - CM_REQ] = {12, CM_DREQ_PRIVATE},
    [CM_DREP - CM_REQ] = {8, CM_DREP_PRIVATE},
    [CM_SIDR_REQ - CM_REQ] = {16, CM_SIDR_REQ_PRIVATE},
    [CM_SIDR_REP - CM_REQ] = {96, CM_SIDR_REP_PRIVATE},
};

size_t cm_private_room(uint16_t attribute)
{
    return attribute >= CM_REQ && attribute <= CM_SIDR_REP ? private_data[attribute - CM_REQ].room
                                                           : 0;
}

/* ---- encoding: `at` is the message behind the common header, all zeroes ---- */

static void encode_req_path(const struct cm_mad *mad, uint8_t *at)
{
    put(at + 52, 2, LID_PERMISSIVE);
    put(at + 54, 2, LID_PERMISSIVE);
    memcpy(at + 56, mad->sgid, 16);
    memcpy(at + 72, mad->dgid, 16);
    put(at + 88, 4, (uint64_t)mad->flow_label << 12 | (mad->rate & 0x3f));
    at[92] = mad->traffic_class;
    at[93] = mad->hop_limit;
    at[94] = (uint8_t)(mad->sl << 4 | (mad->hop_limit <= 1) << 3);
    at[95] = (uint8_t)(mad->ack_timeout << 3);
}

static void encode_req(const struct cm_mad *mad, uint8_t *at)
{
    put(at, 4, mad->local_id);
    put(at + 8, 8, mad->service_id);
    put(at + 16, 8, mad->ca_guid);
    put(at + 28, 4, mad->qkey);
    put(at + 32, 3, mad->qpn);
    at[35] = mad->responder_resources;
    at[39] = mad->initiator_depth;
    at[43] = (uint8_t)(mad->remote_timeout << 3 | (mad->transport & 3) << 1 | mad->flow_control);
    put(at + 44, 3, mad->psn);
    at[47] = bits(mad->local_timeout, mad->retry_count, 3);
    put(at + 48, 2, mad->pkey);
    at[50] = bits(mad->mtu, mad->rnr_retry, 4) & 0xf7;
    at[51] = (uint8_t)(mad->max_retries << 4 | mad->srq << 3 | (mad->xrc ? XRC_EXTENDED : 0));
    encode_req_path(mad, at);
}

static void encode_rep(const struct cm_mad *mad, uint8_t *at)
{
    put(at + 8, 4, mad->qkey);
    put(at + 12, 3, mad->qpn);
    put(at + 20, 3, mad->psn);
    at[24] = mad->responder_resources;
    at[25] = mad->initiator_depth;
    at[26] = (uint8_t)(mad->ack_delay << 3 | mad->flow_control);
    at[27] = (uint8_t)(mad->rnr_retry << 5 | mad->srq << 4);
    put(at + 28, 8, mad->ca_guid);
}

static void encode_sidr(const struct cm_mad *mad, uint8_t *at)
{
    put(at, 4, mad->local_id);
    if (mad->attribute == CM_SIDR_REQ) {
        put(at + 4, 2, mad->pkey);
        put(at + 8, 8, mad->service_id);
        return;
    }
    at[4] = mad->sidr_status;
    put(at + 8, 3, mad->qpn);
    put(at + 12, 8, mad->service_id);
    put(at + 20, 4, mad->qkey);
}

static void encode_connected(const struct cm_mad *mad, uint8_t *at)
{
    put(at, 4, mad->local_id);
    put(at + 4, 4, mad->remote_id);
    if (mad->attribute == CM_REP) {
        encode_rep(mad, at);
    } else if (mad->attribute == CM_MRA) {
        at[8] = (uint8_t)(mad->about << 6);
        at[9] = (uint8_t)(mad->service_timeout << 3);
    } else if (mad->attribute == CM_REJ) {
        at[8] = (uint8_t)(mad->about << 6);
        at[9] = (uint8_t)(mad->ari_len << 1);
        put(at + 10, 2, mad->reason);
        memcpy(at + 12, mad->ari, mad->ari_len);
    } else if (mad->attribute == CM_DREQ) {
        put(at + 8, 3, mad->qpn);
    }
}

void cm_mad_encode(const struct cm_mad *mad, uint8_t out[CM_MAD_SIZE])
{
    uint8_t *at = out + HEADER;

    assert(mad->private_len <= cm_private_room(mad->attribute) && mad->ari_len <= CM_ARI_MAX);
    memset(out, 0, CM_MAD_SIZE);
    out[0] = BASE_VERSION;
    out[1] = CLASS_CM;
    out[2] = CLASS_VERSION;
    out[3] = METHOD_SEND;
    put(out + 8, 8, mad->tid);
    put(out + 16, 2, mad->attribute);
    if (mad->attribute == CM_REQ)
        encode_req(mad, at);
    else if (mad->attribute == CM_SIDR_REQ || mad->attribute == CM_SIDR_REP)
        encode_sidr(mad, at);
    else
        encode_connected(mad, at);
    memcpy(at + private_data[mad->attribute - CM_REQ].at, mad->private_data, mad->private_len);
}

/* ---- decoding ---- */

static void decode_req(const uint8_t *at, struct cm_mad *mad)
{
    mad->local_id = (uint32_t)get(at, 4);
    mad->service_id = get(at + 8, 8);
    mad->ca_guid = get(at + 16, 8);
    mad->qkey = (uint32_t)get(at + 28, 4);
    mad->qpn = (uint32_t)get(at + 32, 3);
    mad->responder_resources = at[35];
    mad->initiator_depth = at[39];
    mad->remote_timeout = at[43] >> 3;
    mad->transport = at[43] >> 1 & 3;
    mad->flow_control = at[43] & 1;
    mad->psn = (uint32_t)get(at + 44, 3);
    mad->local_timeout = at[47] >> 3;
    mad->retry_count = at[47] & 7;
    mad->pkey = (uint16_t)get(at + 48, 2);
    mad->mtu = at[50] >> 4;
    mad->rnr_retry = at[50] & 7;
    mad->max_retries = at[51] >> 4;
    mad->srq = at[51] >> 3 & 1;
    mad->xrc = mad->transport == CM_TRANSPORT_EXTENDED && (at[51] & 7) == XRC_EXTENDED;
    memcpy(mad->sgid, at + 56, 16);
    memcpy(mad->dgid, at + 72, 16);
    mad->flow_label = (uint32_t)(get(at + 88, 4) >> 12);
    mad->rate = at[91] & 0x3f;
    mad->traffic_class = at[92];
    mad->hop_limit = at[93];
    mad->sl = at[94] >> 4;
    mad->ack_timeout = at[95] >> 3;
}

static void decode_rep(const uint8_t *at, struct cm_mad *mad)
{
    mad->qkey = (uint32_t)get(at + 8, 4);
    mad->qpn = (uint32_t)get(at + 12, 3);
    mad->psn = (uint32_t)get(at + 20, 3);
    mad->responder_resources = at[24];
    mad->initiator_depth = at[25];
    mad->ack_delay = at[26] >> 3;
    mad->flow_control = at[26] & 1;
    mad->rnr_retry = at[27] >> 5;
    mad->srq = at[27] >> 4 & 1;
    mad->ca_guid = get(at + 28, 8);
}

static void decode_sidr(const uint8_t *at, struct cm_mad *mad)
{
    mad->local_id = (uint32_t)get(at, 4);
    if (mad->attribute == CM_SIDR_REQ) {
        mad->pkey = (uint16_t)get(at + 4, 2);
        mad->service_id = get(at + 8, 8);
        return;
    }
    mad->sidr_status = at[4];
    mad->qpn = (uint32_t)get(at + 8, 3);
    mad->service_id = get(at + 12, 8);
    mad->qkey = (uint32_t)get(at + 20, 4);
}

static bool decode_connected(const uint8_t *at, struct cm_mad *mad)
{
    mad->local_id = (uint32_t)get(at, 4);
    mad->remote_id = (uint32_t)get(at + 4, 4);
    if (mad->attribute == CM_REP) {
        decode_rep(at, mad);
    } else if (mad->attribute == CM_MRA) {
        mad->about = at[8] >> 6;
        mad->service_timeout = at[9] >> 3;
    } else if (mad->attribute == CM_REJ) {
        mad->about = at[8] >> 6;
        mad->ari_len = at[9] >> 1;
        mad->reason = (uint16_t)get(at + 10, 2);
        if (mad->ari_len > CM_ARI_MAX)
            return false;
        memcpy(mad->ari, at + 12, mad->ari_len);
    } else if (mad->attribute == CM_DREQ) {
        mad->qpn = (uint32_t)get(at + 8, 3);
    }
    return true;
}

bool cm_mad_decode(const uint8_t *bytes, size_t len, struct cm_mad *mad_out)
{
    const uint8_t *at = bytes + HEADER;

    if (len != CM_MAD_SIZE || bytes[0] != BASE_VERSION || bytes[1] != CLASS_CM ||
        bytes[2] != CLASS_VERSION || bytes[3] != METHOD_SEND || get(bytes + 4, 2))
        return false;
    memset(mad_out, 0, sizeof(*mad_out));
    mad_out->tid = get(bytes + 8, 8);
    mad_out->attribute = (uint16_t)get(bytes + 16, 2);
    mad_out->private_len = (uint8_t)cm_private_room(mad_out->attribute);
    if (!mad_out->private_len)
        return false;
    memcpy(mad_out->private_data, at + private_data[mad_out->attribute - CM_REQ].at,
           mad_out->private_len);
    if (mad_out->attribute == CM_REQ)
        decode_req(at, mad_out);
    else if (mad_out->attribute == CM_SIDR_REQ || mad_out->attribute == CM_SIDR_REP)
        decode_sidr(at, mad_out);
    else
        return decode_connected(at, mad_out);
    return true;
}

/* ---- the IP CM header ---- */

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* An IPv4 address takes the last four bytes, the others are zero. */
static void put_address(uint8_t *at, bool v4, const uint8_t address[16])
{
    memcpy(at, address, 16);
    if (v4)
        memset(at, 0, 12);
}

static void get_address(const uint8_t *at, bool v4, uint8_t address[16])
{
    memcpy(address, at, 16);
    if (v4)
        memcpy(address, mapped, sizeof(mapped));
}

void cm_ip_encode(const struct cm_ip *ip, uint8_t out[CM_IP_SIZE])
{
    out[0] = 0; /* version 0.0 */
    out[1] = (uint8_t)((ip->v4 ? 4 : 6) << 4);
    put(out + 2, 2, ip->port);
    put_address(out + 4, ip->v4, ip->src);
    put_address(out + 20, ip->v4, ip->dst);
}

bool cm_ip_decode(const uint8_t bytes[CM_IP_SIZE], struct cm_ip *ip_out)
{
    uint8_t version = bytes[1] >> 4;

    if (bytes[0] >> 4 || (version != 4 && version != 6))
        return false;
    ip_out->v4 = version == 4;
    ip_out->port = (uint16_t)get(bytes + 2, 2);
    get_address(bytes + 4, ip_out->v4, ip_out->src);
    get_address(bytes + 20, ip_out->v4, ip_out->dst);
    return true;
}
