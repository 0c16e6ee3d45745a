/* SPDX-License-Identifier: MIT */
/* Addresses of connection identifiers: which are ours, binding, resolving, multicast groups. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "core/cma_impl.h"
#include "core/removal.h"
#include "link/link.h"

/* A NIC that is there, or one that was taken away. */
static bool find_gid(const uint8_t ip[16], bool out, const struct nic **nic_out, uint8_t *index_out)
{
    const struct config *config = config_get();

    for (unsigned i = 0; config && i < config->nic_count; i++) {
        const struct nic *nic = &config->nics[i];

        if (removal_is_out(nic) != out)
            continue;
        for (unsigned gid = 0; gid < nic->gid_count; gid++) {
            if (memcmp(nic->gids[gid].raw, ip, 16))
                continue;
            *nic_out = nic;
            *index_out = (uint8_t)gid;
            return true;
        }
    }
    return false;
}

bool cma_find_gid(const uint8_t ip[16], const struct nic **nic_out, uint8_t *index_out)
{
    return find_gid(ip, false, nic_out, index_out);
}

bool cma_is_any(const struct cma_addr *addr)
{
    return address_is_any(addr->ip);
}

/* AF_IB stands for any way to call; of our addresses only the IP ones have names. */
static int check_family(const struct cma_addr *addr)
{
    if (addr->family == AF_INET || addr->family == AF_INET6)
        return 0;
    if (addr->family != AF_IB)
        return -EAFNOSUPPORT;
    return cma_is_any(addr) ? 0 : -ENODEV;
}

/* ---- binding ---- */

static int take_port(struct cma_id *id, const struct cma_addr *addr)
{
    struct port_wish wish = {
        .space = id->space, .port = addr->port, .reuse = id->reuse, .v6_only = id->v6_only};
    uint16_t port;

    memcpy(wish.address, addr->ip, 16);
    int error = port_bind(&wish, &id->port, &port);
    if (error)
        return error;
    id->src = *addr;
    id->src.port = port;
    return 0;
}

int cma_bind(struct cma_id *id, const struct cma_addr *addr)
{
    const struct nic *nic = NULL;
    uint8_t index = 0;
    int error = check_family(addr);

    if (error || id->state != CMA_IDLE)
        return error ? error : -EINVAL;
    if (!cma_is_any(addr) && !cma_find_gid(addr->ip, &nic, &index))
        return find_gid(addr->ip, true, &nic, &index) ? -ENODEV : -EADDRNOTAVAIL;
    error = take_port(id, addr);
    if (error)
        return error;
    id->nic = nic;
    id->sgid_index = index;
    id->state = CMA_BOUND;
    return 0;
}

int cma_bind_any(struct cma_id *id, uint16_t family)
{
    struct cma_addr any = {.family = family};

    if (id->state != CMA_IDLE)
        return 0;
    if (family == AF_INET)
        any.ip[10] = any.ip[11] = 0xff;
    return cma_bind(id, &any);
}

/* ---- resolving ---- */

static void tell_simple(struct cma_id *id, enum cma_event_type type, int status)
{
    cma_tell(id, &(struct cma_event){.type = type, .status = status});
}

/* The first address of the family, and one of a like reach: loopback speaks to loopback only. */
static bool choose_source(const uint8_t dst[16], const struct nic **nic_out, uint8_t *index_out)
{
    const struct config *config = config_get();
    const struct nic *nic = &config->nics[0];
    uint8_t source[16];

    if (cma_find_gid(dst, nic_out, index_out))
        return true;
    if (link_source_for(dst, source) && cma_find_gid(source, nic_out, index_out))
        return true;
    for (unsigned gid = 0; gid < nic->gid_count && !removal_is_out(nic); gid++) {
        if (address_is_mapped(nic->gids[gid].raw) != address_is_mapped(dst))
            continue;
        *nic_out = nic;
        *index_out = (uint8_t)gid;
        return true;
    }
    return false;
}

/* Another host's address that the network has a way to. */
static bool is_reachable(const uint8_t dst[16])
{
    uint8_t source[16];

    return link_is_elsewhere(&config_get()->nics[0], dst) && link_source_for(dst, source);
}

/* Somebody may be there: ourselves, a process with other addresses that listens, another host. */
static int find_destination(struct cma_id *id, const struct cma_addr *dst)
{
    const struct nic *nic;
    uint8_t index;

    if (!cma_find_gid(dst->ip, &nic, &index) && !port_find(id->space, dst->port, dst->ip) &&
        !is_reachable(dst->ip))
        return -ENODEV;
    if (id->nic) /* bound to an address: that is where we call from */
        return address_is_mapped(id->src.ip) == address_is_mapped(dst->ip) ? 0 : -EINVAL;
    if (!choose_source(dst->ip, &nic, &index))
        return -ENODEV;
    id->nic = nic;
    id->sgid_index = index;
    memcpy(id->src.ip, nic->gids[index].raw, 16);
    id->src.family = dst->family;
    return 0;
}

/* The wildcard as a destination means this host. */
static void name_ourselves(struct cma_addr *dst)
{
    memset(dst->ip, 0, 16);
    if (dst->family == AF_INET)
        memcpy(dst->ip, (uint8_t[16]){[10] = 0xff, 0xff, 127, 0, 0, 1}, 16);
    else
        dst->ip[15] = 1;
}

static bool is_group(const uint8_t ip[16])
{
    return ip[0] == 0xff || (address_is_mapped(ip) && (ip[12] & 0xf0) == 0xe0);
}

/* A group is reached from any of our addresses of its family. */
static int find_group(struct cma_id *id, const struct cma_addr *dst)
{
    if (id->nic)
        return 0;
    if (!choose_source(dst->ip, &id->nic, &id->sgid_index))
        return -ENODEV;
    memcpy(id->src.ip, id->nic->gids[id->sgid_index].raw, 16);
    id->src.family = dst->family;
    return 0;
}

static int prepare(struct cma_id *id, const struct cma_addr *src, const struct cma_addr *dst)
{
    int error = check_family(dst);

    if (!error && dst->family == AF_IB)
        error = -ENODEV;
    if (error || id->state == CMA_BOUND)
        return error;
    if (id->state != CMA_IDLE)
        return -EINVAL;
    return src && src->family ? cma_bind(id, src) : cma_bind_any(id, dst->family);
}

int cma_resolve_addr(struct cma_id *id, const struct cma_addr *src, const struct cma_addr *dst)
{
    int error = prepare(id, src, dst);

    if (error)
        return error;
    id->dst = *dst;
    if (cma_is_any(&id->dst))
        name_ourselves(&id->dst);
    error = is_group(id->dst.ip) ? find_group(id, &id->dst) : find_destination(id, &id->dst);
    if (!error)
        id->state = CMA_ADDR;
    tell_simple(id, error ? CMA_ADDR_ERROR : CMA_ADDR_RESOLVED, error);
    return 0;
}

int cma_resolve_route(struct cma_id *id)
{
    if (id->state != CMA_ADDR)
        return -EINVAL;
    cma_limit_mtu(id);
    id->state = CMA_ROUTE;
    tell_simple(id, CMA_ROUTE_RESOLVED, 0);
    return 0;
}

/* ---- paths ---- */

void cma_path(const struct cma_id *id, struct ibv_ah_attr *ah_out)
{
    memset(ah_out, 0, sizeof(*ah_out));
    memcpy(ah_out->grh.dgid.raw, id->dst.ip, 16);
    ah_out->grh.sgid_index = id->sgid_index;
    ah_out->grh.hop_limit = CMA_HOP_LIMIT;
    ah_out->grh.traffic_class = id->tos;
    ah_out->is_global = 1;
    ah_out->port_num = 1;
}

/* The group's GID is the address itself (RoCEv2), IPv4 mapped. */
int cma_join(struct cma_id *id, const struct cma_addr *addr, struct cma_event *event_out)
{
    if (check_family(addr) || addr->family == AF_IB || !is_group(addr->ip) || !cma_is_datagram(id))
        return -EINVAL;
    if (!id->nic || id->state == CMA_IDLE || id->state == CMA_LISTEN || id->state == CMA_CONNECT)
        return -EINVAL;
    memset(event_out, 0, sizeof(*event_out));
    event_out->type = CMA_MULTICAST_JOIN;
    event_out->datagram = true;
    event_out->params.qpn = CMA_MULTICAST_QPN;
    event_out->params.qkey = id->qkey;
    cma_path(id, &event_out->ah);
    memcpy(event_out->ah.grh.dgid.raw, addr->ip, 16);
    return 0;
}
