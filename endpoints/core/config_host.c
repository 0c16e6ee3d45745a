/* SPDX-License-Identifier: MIT */
/* What the host says: its addresses and interfaces. No network traffic is caused. */
#include "core/config_host.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <limits.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool address_is_v4(const uint8_t raw[16])
{
    return memcmp(raw, mapped_prefix, sizeof mapped_prefix) == 0;
}

bool address_is_loopback(const uint8_t raw[16])
{
    static const uint8_t v6_loopback[16] = {[15] = 1};

    return (address_is_v4(raw) && raw[12] == 127) || memcmp(raw, v6_loopback, 16) == 0;
}

bool address_is_link_local(const uint8_t raw[16])
{
    if (address_is_v4(raw))
        return raw[12] == 169 && raw[13] == 254;
    return raw[0] == 0xfe && (raw[1] & 0xc0) == 0x80;
}

bool address_is_made(const uint8_t raw[16])
{
    return address_is_link_local(raw) && !address_is_v4(raw) && raw[11] == 0xff &&
           raw[12] == 0xfe && (raw[8] & 3) == 0;
}

static void host_add(struct host_addresses *host, const struct ifaddrs *entry)
{
    struct host_address *slot = &host->list[host->count];

    if (host->count == HOST_ADDRESSES_MAX)
        return;
    if (entry->ifa_addr->sa_family == AF_INET) {
        struct sockaddr_in v4;

        memcpy(&v4, entry->ifa_addr, sizeof v4);
        memcpy(slot->raw, mapped_prefix, sizeof mapped_prefix);
        memcpy(slot->raw + 12, &v4.sin_addr, 4);
    } else if (entry->ifa_addr->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;

        memcpy(&v6, entry->ifa_addr, sizeof v6);
        memcpy(slot->raw, &v6.sin6_addr, 16);
    } else {
        return;
    }
    snprintf(slot->ndev, sizeof slot->ndev, "%s", entry->ifa_name);
    host->count++;
}

static bool host_has_v4(const struct host_addresses *host, const char *ndev)
{
    for (unsigned i = 0; i < host->count; i++) {
        const struct host_address *address = &host->list[i];

        if (strcmp(address->ndev, ndev) == 0 && address_is_v4(address->raw) &&
            !address_is_loopback(address->raw) && !address_is_link_local(address->raw))
            return true;
    }
    return false;
}

/* The interface of the default route with the lowest metric that has a usable IPv4 address. */
static bool host_default_route(const struct host_addresses *host, const char *file, char out[16])
{
    FILE *routes = fopen(file, "re");
    unsigned long best = ULONG_MAX;
    char line[256];

    if (!routes)
        return false;
    while (fgets(line, sizeof line, routes)) {
        char ndev[16];
        unsigned long destination;
        unsigned long flags;
        unsigned long metric;
        unsigned long mask;

        /* A row that does not parse (the heading, for one) is not a route: nothing to report. */
        // NOLINTNEXTLINE(cert-err34-c)
        if (sscanf(line, "%15s %lx %*s %lx %*s %*s %lu %lx", ndev, &destination, &flags, &metric,
                   &mask) != 5)
            continue;
        if (destination == 0 && mask == 0 && (flags & 1) && metric < best &&
            host_has_v4(host, ndev)) {
            best = metric;
            memcpy(out, ndev, sizeof ndev);
        }
    }
    fclose(routes);
    return best != ULONG_MAX;
}

/* Without a default route: the first interface that is up and has a usable IPv4 address. */
static void host_choose_primary(struct host_addresses *host, const struct ifaddrs *entries,
                                const char *route_file)
{
    snprintf(host->primary, sizeof host->primary, "lo");
    if (host_default_route(host, route_file, host->primary))
        return;
    for (const struct ifaddrs *entry = entries; entry; entry = entry->ifa_next) {
        if ((entry->ifa_flags & IFF_UP) && !(entry->ifa_flags & IFF_LOOPBACK) &&
            host_has_v4(host, entry->ifa_name)) {
            snprintf(host->primary, sizeof host->primary, "%s", entry->ifa_name);
            return;
        }
    }
}

void host_addresses_read_from(const char *route_file, struct host_addresses *out)
{
    struct ifaddrs *entries = NULL;

    memset(out, 0, sizeof *out);
    if (getifaddrs(&entries) != 0)
        entries = NULL;
    for (const struct ifaddrs *entry = entries; entry; entry = entry->ifa_next)
        if (entry->ifa_addr && (entry->ifa_flags & IFF_UP))
            host_add(out, entry);
    host_choose_primary(out, entries, route_file);
    if (entries)
        freeifaddrs(entries);
}

void host_addresses_read(struct host_addresses *out)
{
    host_addresses_read_from("/proc/net/route", out);
}

const char *host_interface_of(const struct host_addresses *host, const uint8_t raw[16])
{
    for (unsigned i = 0; i < host->count; i++)
        if (memcmp(host->list[i].raw, raw, 16) == 0)
            return host->list[i].ndev;
    return address_is_loopback(raw) ? "lo" : NULL;
}
