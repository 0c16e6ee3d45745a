/* SPDX-License-Identifier: MIT */
/*
 * Ports of the connection manager, for all processes of the user on this host: a table in the
 * runtime directory, so that a port is bound once per address as with sockets, and a request finds
 * the process that listens.
 *
 * An entry names its owner (process_name()). One whose owner died is free: whoever comes by takes
 * it. All functions are called with core_lock() held, after process_open().
 */
#ifndef VIADUCT_CORE_PORTS_H
#define VIADUCT_CORE_PORTS_H

#include <stdbool.h>
#include <stdint.h>

enum {
    PORTS_PER_NUMBER = 16, /* bindings of one port number: addresses, port spaces, reuse */
    PORTS_EPHEMERAL_FIRST = 32768,
    PORTS_EPHEMERAL_LAST = 60999,
};

/* Who wants which port where. Addresses are IPv6, IPv4 ones mapped; all zero after that: any. */
struct port_wish {
    uint16_t space, port; /* port 0: any that is free */
    uint8_t address[16];
    bool reuse;   /* others that reuse it too are welcome, unless one listens */
    bool v6_only; /* the wildcard :: does not mean IPv4 */
};

/* A bound port: entry + 1 in the table; 0: none. */
struct port_binding {
    uint32_t entry;
};

/*
 * 0, the binding, and the port's number. -EADDRINUSE: somebody has it, or no number is free;
 * -EAGAIN: the table was locked for a second; or what opening the table says.
 */
int port_bind(const struct port_wish *wish, struct port_binding *binding_out, uint16_t *port_out);
/* From now on requests find it. -EADDRINUSE: somebody listens there already. */
int port_listen(struct port_binding *binding);
void port_release(struct port_binding *binding);
/* The process that listens there for this address; 0: nobody. */
uint64_t port_find(uint16_t space, uint16_t port, const uint8_t address[16]);
void ports_after_fork(void);

/* ---- addresses ---- */
bool address_is_mapped(const uint8_t address[16]); /* IPv4 */
bool address_is_any(const uint8_t address[16]);    /* 0.0.0.0 or :: */
/* A request to `address` may go to who is bound to `bound`. */
bool address_serves(const uint8_t bound[16], bool v6_only, const uint8_t address[16]);

#endif
