/* SPDX-License-Identifier: MIT */
/*
 * Configuration: what the environment says about the NICs of this process (docs/architecture.md,
 * "Configuration"). Read once, when the library is first asked; never guessed: a wrong value is
 * one clear line on stderr and no device.
 *
 *   VIADUCT_NICS         via0=192.0.2.5+fd00::5,via1=127.0.0.2
 *   VIADUCT_LINK         auto | shm | roce
 *   VIADUCT_FAULTS       loss=1%,dup=0.1%,reorder=1%,corrupt=0.1%,delay=50us,seed=7
 *   VIADUCT_PCAP         /tmp/frames.pcapng
 *   VIADUCT_RUNTIME_DIR  /run/user/1000/viaduct
 *
 * A NIC's GID table, whose length is the port's gid_tbl_len:
 *
 *   0            its first IPv4 address, mapped (its first IPv6 address if it has no IPv4)
 *   1            a link-local IPv6 address: the interface's own, or one made from the GUID
 *   2 ...        its other addresses, in the order given
 *   last         ::ffff:127.0.0.1 and ::1: the first NIC only, unless some NIC was given them
 */
#ifndef VIADUCT_CORE_CONFIG_H
#define VIADUCT_CORE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CONFIG_NICS_MAX = 8,
    CONFIG_GIDS_MAX = 16,
    CONFIG_ADDRESSES_MAX = CONFIG_GIDS_MAX - 3, /* given by the user; the rest is made */
    CONFIG_NAME_MAX = 32,
    CONFIG_PATH_MAX = 256,
    CONFIG_ERR_MAX = 512, /* room for any error line of config_load() */
};

/* One entry of a NIC's GID table. */
struct nic_gid {
    uint8_t raw[16];
    char ndev[16]; /* the network interface it belongs to, "lo" if none has the address */
};

/* One NIC (one device, one port). Constant after config_load(). */
struct nic {
    char name[CONFIG_NAME_MAX]; /* "via0" */
    unsigned index;             /* position in struct config */
    uint64_t guid;              /* node GUID, host byte order, EUI-64 made from name and address */
    unsigned gid_count;
    struct nic_gid gids[CONFIG_GIDS_MAX];
};

enum config_link { CONFIG_LINK_AUTO, CONFIG_LINK_SHM, CONFIG_LINK_ROCE };

/* What is to go wrong on the wire on purpose; rates as parts of 2^32. */
struct config_faults {
    bool any;
    uint32_t loss, duplicate, reorder, corrupt;
    uint64_t delay_ns, seed;
};

struct config {
    unsigned nic_count; /* at least 1 */
    struct nic nics[CONFIG_NICS_MAX];
    enum config_link link;
    struct config_faults faults;
    char pcap[CONFIG_PATH_MAX];        /* "": no capture */
    char runtime_dir[CONFIG_PATH_MAX]; /* exists, mode 0700, owned by us, once config_load() is 0 */
};

/*
 * Parse VIADUCT_NICS, VIADUCT_LINK, VIADUCT_RUNTIME_DIR and look up the host's addresses (no
 * network traffic). The variables are ignored in a program with more rights than its user.
 *
 * Returns 0, or a negative errno with one line (no newline) in err that names the variable, the
 * value and what to write instead; `out` is then undefined. Blocks: makes system calls, and makes
 * the runtime directory if it is missing. Threads: any.
 */
int config_load(struct config *out, char *err, size_t err_size);

/*
 * The process's configuration, loaded at the first call; NULL (said once on stderr) if it is bad.
 * Threads: any; a fork in the middle of the first call is harmless.
 */
const struct config *config_get(void);

#endif
