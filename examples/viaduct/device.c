/* SPDX-License-Identifier: MIT */
/* Finding and opening a verbs device by name, and choosing its GID. */
#include "device.h"

#include "cmd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *device_default(void)
{
    static char name[64];
    const char *nics = getenv("VIADUCT_NICS");
    size_t length = nics != NULL ? strcspn(nics, "=,") : 0;

    if (length == 0 || length >= sizeof(name))
        return "via0";
    memcpy(name, nics, length);
    return name;
}

const char *device_gid_text(const union ibv_gid *gid)
{
    static char text[INET6_ADDRSTRLEN];

    return inet_ntop(AF_INET6, gid->raw, text, sizeof(text));
}

const char *device_gid_type(struct ibv_context *context, int index)
{
    struct ibv_gid_entry entry;

    if (ibv_query_gid_ex(context, DEVICE_PORT, (uint32_t)index, &entry, 0) != 0)
        return "unknown";
    return entry.gid_type == IBV_GID_TYPE_ROCE_V2 ? "RoCE v2" : "IB/RoCE v1";
}

unsigned device_mtu_bytes(enum ibv_mtu mtu)
{
    return 128u << mtu;
}

/* The first GID that is an IPv4 address under RoCE v2, else 0. */
static int best_gid(struct device *device)
{
    for (int i = 0; i < device->port.gid_tbl_len; i++) {
        struct ibv_gid_entry entry;

        if (ibv_query_gid_ex(device->context, DEVICE_PORT, (uint32_t)i, &entry, 0) != 0)
            continue;
        if (entry.gid_type == IBV_GID_TYPE_ROCE_V2 &&
            IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)entry.gid.raw))
            return i;
    }
    return 0;
}

static bool is_active(struct ibv_device *dev)
{
    struct ibv_context *context = ibv_open_device(dev);
    struct ibv_port_attr port;
    bool active;

    if (context == NULL)
        return false;
    active = ibv_query_port(context, DEVICE_PORT, &port) == 0 && port.state == IBV_PORT_ACTIVE;
    ibv_close_device(context);
    return active;
}

static struct ibv_device *find(struct ibv_device **list, int count, const char *name)
{
    const char *wanted = name != NULL ? name : device_default();

    for (int i = 0; i < count; i++) {
        if (strcmp(ibv_get_device_name(list[i]), wanted) == 0)
            return list[i];
    }
    for (int i = 0; name == NULL && i < count; i++) {
        if (is_active(list[i]))
            return list[i];
    }
    return NULL;
}

static int open_by_name(const char *name, struct ibv_context **context_out)
{
    int count = 0;
    struct ibv_device **list = ibv_get_device_list(&count);
    struct ibv_device *dev = list != NULL ? find(list, count, name) : NULL;
    int code = CMD_OK;

    if (dev == NULL) {
        complain("no RDMA device%s%s%s here; 'viaduct devices' lists what there is, 'viaduct "
                 "doctor' says what is missing",
                 name != NULL ? " is called '" : "", name != NULL ? name : "",
                 name != NULL ? "'" : "");
        code = CMD_UNAVAILABLE;
    } else {
        *context_out = ibv_open_device(dev);
        if (*context_out == NULL) {
            complain("%s can't be opened: %s", ibv_get_device_name(dev), strerror(errno));
            code = CMD_UNAVAILABLE;
        }
    }
    if (list != NULL)
        ibv_free_device_list(list);
    return code;
}

static int choose_gid(struct device *device, int gid_index)
{
    const char *name = ibv_get_device_name(device->context->device);

    if (ibv_query_device(device->context, &device->attr) != 0 ||
        ibv_query_port(device->context, DEVICE_PORT, &device->port) != 0) {
        complain("%s does not answer queries: %s", name, strerror(errno));
        return CMD_UNAVAILABLE;
    }
    if (device->port.state != IBV_PORT_ACTIVE) {
        complain("port 1 of %s is not active (%s)", name, ibv_port_state_str(device->port.state));
        return CMD_UNAVAILABLE;
    }
    device->gid_index = gid_index >= 0 ? gid_index : best_gid(device);
    if (device->gid_index >= device->port.gid_tbl_len ||
        ibv_query_gid(device->context, DEVICE_PORT, device->gid_index, &device->gid) != 0) {
        complain("--gid: %s has no GID %d; 'viaduct devices' lists them", name, device->gid_index);
        return CMD_USAGE;
    }
    device->gid_type = device_gid_type(device->context, device->gid_index);
    return CMD_OK;
}

int device_open(const char *name, int gid_index, struct device *device_out)
{
    struct device device = {0};
    int code = open_by_name(name, &device.context);

    if (code != CMD_OK)
        return code;
    code = choose_gid(&device, gid_index);
    if (code != CMD_OK) {
        ibv_close_device(device.context);
        return code;
    }
    *device_out = device;
    return CMD_OK;
}

void device_close(struct device *device)
{
    ibv_close_device(device->context);
    device->context = NULL;
}

void device_print(const struct device *device)
{
    printf("# device   %s, GID %d %s, %s, MTU %u bytes\n",
           ibv_get_device_name(device->context->device), device->gid_index,
           device_gid_text(&device->gid), device->gid_type,
           device_mtu_bytes(device->port.active_mtu));
}

json_t *device_json(const struct device *device)
{
    return json_pack("{s:s, s:i, s:s, s:s, s:i}", "name",
                     ibv_get_device_name(device->context->device), "gid_index", device->gid_index,
                     "gid", device_gid_text(&device->gid), "gid_type", device->gid_type,
                     "mtu_bytes", (int)device_mtu_bytes(device->port.active_mtu));
}
