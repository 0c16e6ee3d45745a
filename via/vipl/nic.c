/* SPDX-License-Identifier: MIT */
/* NIC handles: finding the device, its attributes and addresses, and closing everything. */
#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vip.h"

/* ---- which device ---- */

static bool starts_with(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

static bool is_number(const char *text)
{
    while (isdigit((unsigned char)*text))
        text++;
    return !*text;
}

/* What programs of the time were written with. */
static bool is_historical(const char *name)
{
    return !*name || (starts_with(name, "VINIC") && is_number(name + 5)) ||
           (starts_with(name, "nic") && is_number(name + 3)) || starts_with(name, "/dev/clan") ||
           starts_with(name, "/dev/via");
}

/* The first active port; 0: none. */
static uint8_t active_port(struct ibv_context *verbs, struct ibv_port_attr *port_out)
{
    struct ibv_device_attr device;

    if (ibv_query_device(verbs, &device))
        return 0;
    for (uint8_t port = 1; port <= device.phys_port_cnt; port++) {
        if (!ibv_query_port(verbs, port, port_out) && port_out->state == IBV_PORT_ACTIVE)
            return port;
    }
    return 0;
}

static bool try_device(struct vip_nic *nic, struct ibv_device *device, struct ibv_port_attr *port)
{
    nic->verbs = ibv_open_device(device);
    if (!nic->verbs)
        return false;
    nic->port = active_port(nic->verbs, port);
    if (nic->port)
        return true;
    ibv_close_device(nic->verbs);
    nic->verbs = NULL;
    return false;
}

static int open_device(struct vip_nic *nic, const char *name, struct ibv_port_attr *port)
{
    const char *base = starts_with(name, "/dev/") ? name + 5 : name;
    struct ibv_device **list = ibv_get_device_list(NULL);
    bool found = false;

    for (int i = 0; list && list[i] && !found && *base; i++)
        found = !strcmp(ibv_get_device_name(list[i]), base) && try_device(nic, list[i], port);
    for (int i = 0; list && list[i] && !found && is_historical(name); i++)
        found = try_device(nic, list[i], port);
    if (list)
        ibv_free_device_list(list);
    return found ? 0 : -ENODEV;
}

/* ---- attributes ---- */

static VIP_ULONG smaller(uint64_t a, uint64_t b)
{
    return (VIP_ULONG)(a < b ? a : b);
}

static VIP_ULONG power_at_most(uint64_t value)
{
    uint64_t power = 1;

    while (power * 2 <= value)
        power *= 2;
    return (VIP_ULONG)power;
}

static void fill_limits(VIP_NIC_ATTRIBUTES *to, const struct ibv_device_attr *device)
{
    uint64_t wr = smaller((uint64_t)device->max_qp_wr / 2, (uint64_t)device->max_cqe / 2);

    to->MaxRegisterBytes = smaller(device->max_mr_size, LIMIT_BYTES);
    to->MaxRegisterBlockBytes = to->MaxRegisterBytes;
    to->MaxPtags = smaller(LIMIT_PTAGS, (uint64_t)device->max_pd);
    to->MaxRegisterRegions = smaller(LIMIT_REGIONS, (uint64_t)device->max_mr - to->MaxPtags);
    to->MaxCQ = smaller(LIMIT_CQ, (uint64_t)device->max_cq / 4);
    to->MaxCQEntries = smaller(LIMIT_CQ_ENTRIES, (uint64_t)device->max_cqe);
    /* Each of its queues may need a completion queue of its own. */
    to->MaxVI = smaller(
        LIMIT_VI, smaller((uint64_t)device->max_qp, ((uint64_t)device->max_cq - to->MaxCQ) / 2));
    to->MaxDescriptorsPerQueue = power_at_most(smaller(LIMIT_DESCRIPTORS, wr));
    to->MaxSegmentsPerDesc = smaller(LIMIT_SEGMENTS, (uint64_t)device->max_sge);
}

static int fill_attributes(struct vip_nic *nic, const struct ibv_port_attr *port)
{
    VIP_NIC_ATTRIBUTES *to = &nic->attributes;
    struct ibv_device_attr device;

    if (ibv_query_device(nic->verbs, &device))
        return -EIO;
    snprintf(to->Name, sizeof(to->Name), "%s", ibv_get_device_name(nic->verbs->device));
    to->HardwareVersion = device.hw_ver;
    to->ProviderVersion = VIPL_VERSION;
    to->NicAddressLen = nic->address.host_len;
    to->LocalNicAddress = nic->address.host;
    to->ThreadSafe = VIP_TRUE;
    to->MaxDiscriminatorLen = DISCRIMINATOR_MAX;
    fill_limits(to, &device);
    to->MaxTransferSize = smaller(port->max_msg_sz, LIMIT_TRANSFER);
    to->NativeMTU = 128ul << port->active_mtu;
    nic->max_reads = (uint32_t)smaller(LIMIT_RDMA_READS, (uint64_t)device.max_qp_rd_atom);
    nic->max_reads = (uint32_t)smaller(nic->max_reads, (uint64_t)device.max_qp_init_rd_atom);
    to->ReliabilityLevelSupport = VIP_SERVICE_UNRELIABLE | VIP_SERVICE_RELIABLE_DELIVERY;
    if (nic->max_reads) {
        to->ReliabilityLevelSupport |= VIP_SERVICE_RELIABLE_RECEPTION;
        to->RDMAReadSupport = VIP_SERVICE_RELIABLE_DELIVERY | VIP_SERVICE_RELIABLE_RECEPTION;
    }
    return 0;
}

/* An IP address from the table of GIDs: 4 for IPv4, 16 for IPv6, 0 for anything else. */
static uint16_t host_of_gid(const union ibv_gid *gid, uint8_t host[ADDRESS_MAX])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const union ibv_gid none;

    if (!memcmp(gid, &none, sizeof(none)))
        return 0;
    if (!memcmp(gid->raw, mapped, sizeof(mapped))) {
        memcpy(host, gid->raw + 12, 4);
        return 4;
    }
    if (gid->raw[0] == 0xfe) /* of the link only: no program can name it */
        return 0;
    memcpy(host, gid->raw, 16);
    return 16;
}

/* The first IPv4 address, or else the first IPv6 one. */
static int find_address(struct vip_nic *nic, const struct ibv_port_attr *port)
{
    for (int i = 0; i < port->gid_tbl_len; i++) {
        union ibv_gid gid;
        uint8_t host[ADDRESS_MAX] = {0};

        if (ibv_query_gid(nic->verbs, nic->port, i, &gid))
            break;
        uint16_t len = host_of_gid(&gid, host);
        if (!len || (nic->address.host_len && len == 16))
            continue;
        nic->address.host_len = len;
        memcpy(nic->address.host, host, sizeof(host));
        if (len == 4)
            return 0;
    }
    return nic->address.host_len ? 0 : -EADDRNOTAVAIL;
}

/* ---- opening and closing ---- */

int set_nonblocking(int fd)
{
    return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) ? -errno : 0;
}

static int nic_start(struct vip_nic *nic)
{
    int error = wait_init(nic);

    if (!error)
        error = memory_init(nic);
    if (error)
        goto no_memory;
    error = callback_init(nic);
    if (error)
        goto no_memory;
    error = cm_init(nic);
    if (error)
        goto no_cm;
    return 0;
no_cm:
    callback_stop(nic);
    callback_fini(nic);
no_memory:
    memory_fini(nic);
    wait_fini(nic);
    return error;
}

static int nic_open(struct vip_nic *nic, const char *name)
{
    struct ibv_port_attr port;
    int error = open_device(nic, name, &port);

    if (error)
        return error;
    error = find_address(nic, &port);
    if (!error)
        error = fill_attributes(nic, &port);
    if (!error)
        error = set_nonblocking(nic->verbs->async_fd);
    if (!error)
        error = nic_start(nic);
    if (error)
        ibv_close_device(nic->verbs);
    return error;
}

VIP_RETURN VipOpenNic(const VIP_CHAR *DeviceName, VIP_NIC_HANDLE *NicHandle)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    if (!NicHandle)
        return VIP_INVALID_PARAMETER;
    pthread_once(&once, lock_prepare);
    struct vip_nic *nic = pool_take(KIND_NIC, NULL);
    if (!nic)
        return VIP_ERROR_RESOURCE;
    nic->head.nic = nic;
    pthread_mutex_init(&nic->lock, NULL);
    cond_init(&nic->changed);
    names_init(nic);
    if (nic_open(nic, DeviceName ? DeviceName : "")) {
        pool_give(nic);
        return VIP_ERROR_RESOURCE;
    }
    *NicHandle = nic;
    return VIP_SUCCESS;
}

static void close_objects(struct vip_nic *nic)
{
    while (nic->vis)
        vi_close((struct vi *)nic->vis);
    while (nic->conns)
        conn_end((struct conn *)nic->conns);
    while (nic->cqs) {
        struct cq *cq = (struct cq *)nic->cqs;

        nic->cqs = cq->head.next;
        cq_fini(cq);
        pool_give(cq);
    }
}

/* The threads end first: then nobody looks at what goes. */
VIP_RETURN VipCloseNic(VIP_NIC_HANDLE NicHandle)
{
    struct vip_nic *nic = nic_of(NicHandle);

    if (!nic)
        return VIP_INVALID_PARAMETER;
    if (callback_is_me(nic))
        return VIP_ERROR_RESOURCE;
    cm_stop(nic);
    callback_stop(nic);
    close_objects(nic);
    cm_fini(nic);
    names_fini(nic);
    memory_fini(nic);
    callback_fini(nic);
    wait_fini(nic);
    ibv_close_device(nic->verbs);
    pthread_cond_destroy(&nic->changed);
    pthread_mutex_destroy(&nic->lock);
    pool_give(nic);
    return VIP_SUCCESS;
}

VIP_RETURN VipQueryNic(VIP_NIC_HANDLE NicHandle, VIP_NIC_ATTRIBUTES *NicAttribs)
{
    struct vip_nic *nic = nic_of(NicHandle);

    if (!nic || !NicAttribs)
        return VIP_INVALID_PARAMETER;
    *NicAttribs = nic->attributes;
    return VIP_SUCCESS;
}
