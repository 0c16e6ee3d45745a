/* SPDX-License-Identifier: MIT */
/* What the host says: its addresses and interfaces, and a private directory. For config.c. */
#ifndef VIADUCT_CORE_CONFIG_HOST_H
#define VIADUCT_CORE_CONFIG_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An IP address; IPv4 is mapped (::ffff:a.b.c.d), as in a RoCEv2 GID. */
struct host_address {
    uint8_t raw[16];
    char ndev[16];
};

enum { HOST_ADDRESSES_MAX = 64 };

/* The host's own addresses in the kernel's order. A snapshot: it never changes. */
struct host_addresses {
    unsigned count;
    struct host_address list[HOST_ADDRESSES_MAX];
    char primary[16]; /* interface of the default route, else the first that is up, else "lo" */
};

bool address_is_v4(const uint8_t raw[16]);
bool address_is_loopback(const uint8_t raw[16]);
bool address_is_link_local(const uint8_t raw[16]);
/* One of config.c's making, on some NIC of this host: no interface has it. */
bool address_is_made(const uint8_t raw[16]);

/* Read them. A host that tells nothing has none, and "lo" is its primary interface. */
void host_addresses_read(struct host_addresses *out);

/*
 * The same with another file in place of /proc/net/route, for tests: the rows have the interface
 * in column 1, destination in 2, flags in 4, metric in 7, mask in 8, numbers in hexadecimal.
 */
void host_addresses_read_from(const char *route_file, struct host_addresses *out);

/* The interface that has the address (or, for 127/8, "lo"); NULL if none. */
const char *host_interface_of(const struct host_addresses *host, const uint8_t raw[16]);

/*
 * The runtime directory: `wanted` (an absolute path, NULL: the default). Made if missing; it must
 * be a real directory (no symbolic link) that belongs to the effective user, mode 0700.
 * Returns 0 and its path, or a negative errno and one line in err.
 */
int host_runtime_dir(const char *wanted, const char *xdg_runtime_dir, size_t size, char *out,
                     size_t err_size, char *err);

#endif
