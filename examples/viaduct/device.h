/* SPDX-License-Identifier: MIT */
/* Finding and opening a verbs device by name, and choosing its GID. */
#ifndef VIADUCT_DEVICE_H
#define VIADUCT_DEVICE_H

#include <infiniband/verbs.h>
#include <jansson.h>

/* An open device, port 1, and the GID that packets will carry. */
struct device {
    struct ibv_context *context;
    struct ibv_device_attr attr;
    struct ibv_port_attr port;
    union ibv_gid gid;
    int gid_index;
    const char *gid_type; /* "RoCE v2" */
};

#define DEVICE_PORT 1

/* The first NIC that VIADUCT_NICS names, or via0. Static buffer. */
const char *device_default(void);

/*
 * Open the device called name; NULL: device_default(), or else the first with an active port.
 * gid_index < 0: the first RoCE v2 GID made of an IPv4 address, or else GID 0.
 * On failure one line says why, with complain(), and the result is CMD_UNAVAILABLE or
 * CMD_USAGE; CMD_OK otherwise.
 */
int device_open(const char *name, int gid_index, struct device *device_out);
void device_close(struct device *device);

/* "::ffff:192.0.2.5"; static buffer. */
const char *device_gid_text(const union ibv_gid *gid);

/* "RoCE v2", "IB/RoCE v1" or "unknown". */
const char *device_gid_type(struct ibv_context *context, int index);

/* "# device   via0, ..." and the same as a new JSON object. */
void device_print(const struct device *device);
json_t *device_json(const struct device *device);

/* 256 .. 4096 */
unsigned device_mtu_bytes(enum ibv_mtu mtu);

#endif
