/* SPDX-License-Identifier: MIT */
/* Socket addresses and path records between the commands' layout and the core's. */
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <rdma/ib_user_sa.h>
#include <string.h>

#include "uapi/ucma.h"

enum {
    RATE_100_GBPS = 16,
    PACKET_LIFE_TIME = 15,
    EXACTLY = 2, /* selector of a path record's component */
    HOP_LIMIT = 64,
    PKEY = 0xffff,
};

/* AF_IB (IBTA addresses): what the stock library sends when it probes for it. */
struct address_ib {
    uint16_t family;
    uint16_t pkey;
    uint32_t flow;
    uint8_t gid[16];
    uint64_t service_id, service_mask;
    uint64_t scope_id;
};
_Static_assert(sizeof(struct address_ib) == 48, "as struct sockaddr_ib");

/* ---- addresses ---- */

static void take_v4(const void *sockaddr, struct cma_addr *addr)
{
    struct sockaddr_in v4;

    memcpy(&v4, sockaddr, sizeof(v4));
    addr->port = ntohs(v4.sin_port);
    addr->ip[10] = addr->ip[11] = 0xff;
    memcpy(addr->ip + 12, &v4.sin_addr, 4);
}

static void take_v6(const void *sockaddr, struct cma_addr *addr)
{
    struct sockaddr_in6 v6;

    memcpy(&v6, sockaddr, sizeof(v6));
    addr->port = ntohs(v6.sin6_port);
    addr->scope_id = v6.sin6_scope_id;
    memcpy(addr->ip, &v6.sin6_addr, 16);
}

static void take_ib(const void *sockaddr, struct cma_addr *addr)
{
    struct address_ib ib;

    memcpy(&ib, sockaddr, sizeof(ib));
    addr->port = (uint16_t)be64toh(ib.service_id);
    memcpy(addr->ip, ib.gid, 16);
}

int ucma_addr_in(const void *sockaddr, size_t room, struct cma_addr *addr_out)
{
    memset(addr_out, 0, sizeof(*addr_out));
    if (room < sizeof(sa_family_t))
        return -EINVAL;
    memcpy(&addr_out->family, sockaddr, sizeof(addr_out->family));
    if (addr_out->family == AF_INET && room >= sizeof(struct sockaddr_in))
        take_v4(sockaddr, addr_out);
    else if (addr_out->family == AF_INET6 && room >= sizeof(struct sockaddr_in6))
        take_v6(sockaddr, addr_out);
    else if (addr_out->family == AF_IB && room >= sizeof(struct address_ib))
        take_ib(sockaddr, addr_out);
    else
        return -EINVAL;
    return 0;
}

static size_t put_ib(const struct cma_id *id, const struct cma_addr *addr, void *out)
{
    struct address_ib ib = {.family = AF_IB, .pkey = htobe16(PKEY), .service_mask = UINT64_MAX};

    ib.service_id = htobe64((uint64_t)id->space << 16 | addr->port);
    memcpy(ib.gid, addr->ip, 16);
    memcpy(out, &ib, sizeof(ib));
    return sizeof(ib);
}

size_t ucma_addr_out(const struct cma_id *id, const struct cma_addr *addr, void *sockaddr_out)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(addr->port)};
    struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(addr->port), .sin6_scope_id = addr->scope_id};

    switch (addr->family) {
    case AF_INET:
        memcpy(&v4.sin_addr, addr->ip + 12, 4);
        memcpy(sockaddr_out, &v4, sizeof(v4));
        return sizeof(v4);
    case AF_INET6:
        memcpy(&v6.sin6_addr, addr->ip, 16);
        memcpy(sockaddr_out, &v6, sizeof(v6));
        return sizeof(v6);
    case AF_IB:
        return put_ib(id, addr, sockaddr_out);
    default:
        return 0;
    }
}

/* ---- paths ---- */

static bool has_route(const struct cma_id *id)
{
    return id->state == CMA_ROUTE || id->state == CMA_CONNECT;
}

void ucma_path_out(const struct cma_id *id, struct ib_user_path_rec *path_out)
{
    *path_out = (struct ib_user_path_rec){
        .reversible = 1,
        .mtu = id->mtu,
        .pkey = htobe16(PKEY),
        .hop_limit = HOP_LIMIT,
        .traffic_class = id->tos,
        .numb_path = 1,
        .mtu_selector = EXACTLY,
        .rate_selector = EXACTLY,
        .rate = RATE_100_GBPS,
        .packet_life_time_selector = EXACTLY,
        .packet_life_time = PACKET_LIFE_TIME,
    };
    memcpy(path_out->dgid, id->dst.ip, 16);
    memcpy(path_out->sgid, id->src.ip, 16);
}

/* The GIDs are known as soon as the addresses are, the rest with the route. */
static void put_route(const struct cma_id *id, struct rdma_ucm_query_route_resp *resp)
{
    if (has_route(id)) {
        resp->num_paths = 1;
        ucma_path_out(id, &resp->ib_route[0]);
        return;
    }
    memcpy(resp->ib_route[0].sgid, id->src.ip, 16);
    memcpy(resp->ib_route[0].dgid, id->dst.ip, 16);
    resp->ib_route[0].pkey = htobe16(PKEY);
}

int ucma_query_route(struct ucma_call *call)
{
    const struct rdma_ucm_query *req = (const void *)call->req;
    struct rdma_ucm_query_route_resp *resp = (void *)call->resp;
    uint8_t other[sizeof(struct address_ib)];
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    if (error)
        return error;
    call->resp_len = sizeof(*resp);
    ucma_addr_out(id->cma, &id->cma->src,
                  id->cma->src.family == AF_IB ? (void *)other : &resp->src_addr);
    ucma_addr_out(id->cma, &id->cma->dst, &resp->dst_addr);
    if (!id->cma->nic)
        return 0;
    resp->node_guid = htobe64(id->cma->nic->guid);
    resp->port_num = 1;
    resp->ibdev_index = id->cma->nic->index;
    put_route(id->cma, resp);
    return 0;
}

/* ---- QUERY, by what is asked for ---- */

static void query_device(const struct cma_id *cma, struct rdma_ucm_query_addr_resp *resp)
{
    if (!cma->nic)
        return;
    resp->node_guid = htobe64(cma->nic->guid);
    resp->port_num = 1;
    resp->pkey = htobe16(PKEY);
    resp->ibdev_index = cma->nic->index;
}

static int query_addr(struct ucma_call *call, const struct cma_id *cma)
{
    struct rdma_ucm_query_addr_resp *resp = (void *)call->resp;

    if (call->out_len < offsetof(struct rdma_ucm_query_addr_resp, ibdev_index))
        return -ENOSPC;
    call->resp_len = sizeof(*resp);
    resp->src_size = (uint16_t)ucma_addr_out(cma, &cma->src, &resp->src_addr);
    resp->dst_size = (uint16_t)ucma_addr_out(cma, &cma->dst, &resp->dst_addr);
    query_device(cma, resp);
    return 0;
}

static int query_gid(struct ucma_call *call, const struct cma_id *cma)
{
    struct rdma_ucm_query_addr_resp *resp = (void *)call->resp;

    if (call->out_len < offsetof(struct rdma_ucm_query_addr_resp, ibdev_index))
        return -ENOSPC;
    call->resp_len = sizeof(*resp);
    resp->src_size = (uint16_t)put_ib(cma, &cma->src, &resp->src_addr);
    resp->dst_size = (uint16_t)put_ib(cma, &cma->dst, &resp->dst_addr);
    query_device(cma, resp);
    return 0;
}

/* A path record as subnet administration packs it (IBTA 15.2.5.16). */
struct packed_path {
    uint64_t service_id;
    uint8_t dgid[16], sgid[16];
    uint16_t dlid, slid;
    uint32_t flow_label_hop_limit;
    uint8_t traffic_class, reversible_count;
    uint16_t pkey, qos_sl;
    uint8_t mtu, rate, life_time, preference;
    uint8_t reserved[6];
};

static int query_path(struct ucma_call *call, const struct cma_id *cma)
{
    struct rdma_ucm_query_path_resp *resp = (void *)call->resp;
    struct packed_path path = {
        .flow_label_hop_limit = htobe32(HOP_LIMIT),
        .traffic_class = cma->tos,
        .reversible_count = 0x80 | 1,
        .pkey = htobe16(PKEY),
        .mtu = (uint8_t)(EXACTLY << 6 | cma->mtu),
        .rate = EXACTLY << 6 | RATE_100_GBPS,
        .life_time = EXACTLY << 6 | PACKET_LIFE_TIME,
    };

    _Static_assert(sizeof(path) == sizeof(resp->path_data[0].path_rec), "64 bytes");
    if (call->out_len < sizeof(*resp))
        return -ENOSPC;
    call->resp_len = sizeof(*resp);
    if (!has_route(cma))
        return 0;
    resp->num_paths = 1;
    if (call->out_len < sizeof(*resp) + sizeof(resp->path_data[0]))
        return 0;
    memcpy(path.dgid, cma->dst.ip, 16);
    memcpy(path.sgid, cma->src.ip, 16);
    resp->path_data[0].flags = IB_PATH_GMP | IB_PATH_PRIMARY | IB_PATH_BIDIRECTIONAL;
    memcpy(resp->path_data[0].path_rec, &path, sizeof(path));
    call->resp_len += sizeof(resp->path_data[0]);
    return 0;
}

int ucma_query(struct ucma_call *call)
{
    const struct rdma_ucm_query *req = (const void *)call->req;
    struct ucma_id *id;
    int error = ucma_find(call->file, req->id, &id);

    if (error)
        return error;
    switch (req->option) {
    case RDMA_USER_CM_QUERY_ADDR:
        return query_addr(call, id->cma);
    case RDMA_USER_CM_QUERY_PATH:
        return query_path(call, id->cma);
    case RDMA_USER_CM_QUERY_GID:
        return query_gid(call, id->cma);
    default:
        return -ENOSYS;
    }
}
