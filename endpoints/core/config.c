/* SPDX-License-Identifier: MIT */
/* Configuration: parse the environment, make the GID tables (see config.h). */
#include "core/config.h"

#include "core/config_faults.h"
#include "core/config_host.h"
#include "core/digest.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char nics_form[] = "write NAME=ADDRESS, as in VIADUCT_NICS=via0=192.0.2.5,via1="
                                "127.0.0.2 (+ joins several addresses of one NIC)";

/* What parsing carries around. */
struct parse {
    struct config *config;
    const struct host_addresses *host;
    const char *value; /* of VIADUCT_NICS */
    char *err;
    size_t err_size;
};

__attribute__((format(printf, 2, 3))) static int nics_refuse(const struct parse *parse,
                                                             const char *why, ...)
{
    char reason[160];
    va_list args;

    va_start(args, why);
    vsnprintf(reason, sizeof reason, why, args);
    va_end(args);
    snprintf(parse->err, parse->err_size, "VIADUCT_NICS=\"%.160s\": %s; %s", parse->value, reason,
             nics_form);
    return -EINVAL;
}

/*
 * A GUID in the form of an EUI-64 that was made from 48 bits (ff:fe in the middle), with the
 * universal/local and group bits clear: it is ours, not a vendor's (RFC 4291, appendix A).
 */
static uint64_t nic_make_guid(const char *name, const uint8_t address[16])
{
    uint64_t hash = digest_text(DIGEST_INIT, name);

    hash = digest_bytes(hash, address, 16);
    hash ^= hash >> 32; /* the low bits of FNV are its best ones: let the high ones have some */
    return (hash & 0xfcffff0000ffffffu) | 0x000000fffe000000u;
}

static bool config_has_address(const struct config *config, const uint8_t raw[16])
{
    for (unsigned n = 0; n < config->nic_count; n++) {
        for (unsigned g = 0; g < config->nics[n].gid_count; g++)
            if (memcmp(config->nics[n].gids[g].raw, raw, 16) == 0)
                return true;
    }
    return false;
}

/* Insert at `place` what the host knows about the address; the caller made sure there is room. */
static void nic_insert_gid(struct nic *nic, unsigned place, const uint8_t raw[16], const char *ndev)
{
    memmove(&nic->gids[place + 1], &nic->gids[place],
            (nic->gid_count - place) * sizeof nic->gids[0]);
    memcpy(nic->gids[place].raw, raw, 16);
    memset(nic->gids[place].ndev, 0, sizeof nic->gids[place].ndev);
    snprintf(nic->gids[place].ndev, sizeof nic->gids[place].ndev, "%s", ndev ? ndev : "lo");
    nic->gid_count++;
}

static void nic_append_gid(struct nic *nic, const uint8_t raw[16], const char *ndev)
{
    if (nic->gid_count < CONFIG_GIDS_MAX)
        nic_insert_gid(nic, nic->gid_count, raw, ndev);
}

/* GID 0 is the first IPv4 address given. */
static void nic_put_v4_first(struct nic *nic)
{
    for (unsigned i = 0; i < nic->gid_count; i++) {
        if (address_is_v4(nic->gids[i].raw)) {
            struct nic_gid first = nic->gids[i];

            memmove(&nic->gids[1], &nic->gids[0], i * sizeof first);
            nic->gids[0] = first;
            return;
        }
    }
}

/* The link-local address: the interface's own unless another NIC has it, or one of our making. */
static void nic_add_link_local(struct nic *nic, const struct config *config,
                               const struct host_addresses *host)
{
    uint8_t made[16] = {0xfe, 0x80};

    for (unsigned i = 0; i < nic->gid_count; i++)
        if (!address_is_v4(nic->gids[i].raw) && address_is_link_local(nic->gids[i].raw))
            return; /* the user gave one */
    for (unsigned i = 0; i < host->count; i++) {
        const struct host_address *address = &host->list[i];

        if (strcmp(address->ndev, nic->gids[0].ndev) == 0 && !address_is_v4(address->raw) &&
            address_is_link_local(address->raw) && !config_has_address(config, address->raw)) {
            nic_insert_gid(nic, 1, address->raw, address->ndev);
            return;
        }
    }
    for (unsigned i = 0; i < 8; i++)
        made[8 + i] = (uint8_t)(nic->guid >> (56 - 8 * i));
    nic_insert_gid(nic, 1, made, nic->gids[0].ndev);
}

/* Complete the tables of all NICs from the addresses they were given. */
static void config_complete(struct config *config, const struct host_addresses *host)
{
    uint8_t loopback[16] = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1};

    for (unsigned i = 0; i < config->nic_count; i++) {
        struct nic *nic = &config->nics[i];

        nic->index = i;
        nic_put_v4_first(nic);
        nic->guid = nic_make_guid(nic->name, nic->gids[0].raw);
    }
    for (unsigned i = 0; i < config->nic_count; i++)
        nic_add_link_local(&config->nics[i], config, host);
    if (!config_has_address(config, loopback))
        nic_append_gid(&config->nics[0], loopback, "lo");
    memset(loopback, 0, 15); /* ::1 */
    if (!config_has_address(config, loopback))
        nic_append_gid(&config->nics[0], loopback, "lo");
}

/* Text to an address a NIC can have: unicast, no zone. */
static int parse_address(const struct parse *parse, const char *text, uint8_t raw[16])
{
    static const uint8_t zero[16];
    struct in_addr v4;

    memset(raw, 0, 16);
    if (inet_pton(AF_INET, text, &v4) == 1) {
        raw[10] = raw[11] = 0xff;
        memcpy(raw + 12, &v4, 4);
    } else if (inet_pton(AF_INET6, text, raw) != 1) {
        return nics_refuse(parse, "\"%.64s\" is not an IPv4 or IPv6 address", text);
    }
    bool unicast = address_is_v4(raw) ? raw[12] != 0 && raw[12] < 224 : raw[0] != 0xff;
    if (!unicast || memcmp(raw, zero, 16) == 0)
        return nics_refuse(parse, "%.64s is not the address of a host", text);
    return 0;
}

/* One NIC's addresses, "192.0.2.5+fd00::5". The text is cut up. */
static int parse_addresses(const struct parse *parse, struct nic *nic, char *text)
{
    for (char *rest = text, *word; (word = strsep(&rest, "+"));) {
        uint8_t raw[16];
        int failed = parse_address(parse, word, raw);

        if (failed)
            return failed;
        if (config_has_address(parse->config, raw))
            return nics_refuse(parse, "%.64s is given twice", word);
        if (nic->gid_count == CONFIG_ADDRESSES_MAX)
            return nics_refuse(parse, "%s has more than %d addresses", nic->name,
                               CONFIG_ADDRESSES_MAX);
        nic_append_gid(nic, raw, host_interface_of(parse->host, raw));
    }
    return 0;
}

/*
 * A name becomes a file name and part of a device list, so letters, digits, "_", "-" and "." only,
 * and a letter first. A name with a driver's name in front would be taken by that driver.
 */
static int parse_name(const struct parse *parse, const char *name)
{
    if (strlen(name) >= CONFIG_NAME_MAX)
        return nics_refuse(parse, "the name %.40s... is longer than %d characters", name,
                           CONFIG_NAME_MAX - 1);
    if (!isalpha((unsigned char)name[0]))
        return nics_refuse(parse, "the name \"%s\" does not begin with a letter", name);
    for (const char *c = name; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr("_-.", *c))
            return nics_refuse(parse, "the name \"%s\" may have letters, digits, _ - . only", name);
    if (strncmp(name, "siw", 3) == 0 || strncmp(name, "uverbs", 6) == 0)
        return nics_refuse(parse, "the name %s is taken by another driver", name);
    for (unsigned i = 0; i + 1 < parse->config->nic_count; i++)
        if (strcmp(parse->config->nics[i].name, name) == 0)
            return nics_refuse(parse, "the name %s is given twice", name);
    return 0;
}

/* One NIC, "via0=ADDRESSES". The text is cut up. */
static int parse_nic(const struct parse *parse, char *text)
{
    struct config *config = parse->config;
    char *addresses = strchr(text, '=');

    if (!addresses)
        return nics_refuse(parse, "\"%.64s\" has no =", text);
    *addresses++ = '\0';
    if (config->nic_count == CONFIG_NICS_MAX)
        return nics_refuse(parse, "more than %d NICs", CONFIG_NICS_MAX);
    struct nic *nic = &config->nics[config->nic_count++];
    int failed = parse_name(parse, text);
    if (failed)
        return failed;
    snprintf(nic->name, sizeof nic->name, "%s", text);
    return parse_addresses(parse, nic, addresses);
}

static int parse_nics(const struct parse *parse)
{
    char *copy = strdup(parse->value);
    int failed = 0;

    if (!copy) {
        snprintf(parse->err, parse->err_size, "VIADUCT_NICS: out of memory");
        return -ENOMEM;
    }
    for (char *rest = copy, *word; !failed && (word = strsep(&rest, ","));)
        failed = parse_nic(parse, word);
    free(copy);
    return failed;
}

/* VIADUCT_NICS is not set: via0 with the addresses of the host's primary interface. */
static void config_default_nic(struct config *config, const struct host_addresses *host)
{
    static const uint8_t loopback[16] = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1};
    struct nic *nic = &config->nics[0];

    config->nic_count = 1;
    snprintf(nic->name, sizeof nic->name, "via0");
    for (unsigned i = 0; i < host->count && nic->gid_count < CONFIG_ADDRESSES_MAX; i++) {
        const struct host_address *address = &host->list[i];

        if (strcmp(address->ndev, host->primary) == 0 && !address_is_loopback(address->raw) &&
            !address_is_link_local(address->raw))
            nic_append_gid(nic, address->raw, address->ndev);
    }
    if (nic->gid_count == 0)
        nic_append_gid(nic, loopback, "lo");
}

static int config_load_link(struct config *config, char *err, size_t err_size)
{
    const char *value = secure_getenv("VIADUCT_LINK");

    config->link = CONFIG_LINK_AUTO;
    if (!value || !*value || strcmp(value, "auto") == 0)
        return 0;
    config->link = CONFIG_LINK_SHM;
    if (strcmp(value, "shm") == 0)
        return 0;
    config->link = CONFIG_LINK_ROCE;
    if (strcmp(value, "roce") == 0)
        return 0;
    snprintf(err, err_size, "VIADUCT_LINK=\"%.64s\": no such link; write auto, shm or roce", value);
    return -EINVAL;
}

/* An empty variable is as good as none: that is how a shell script leaves a default alone. */
static const char *variable(const char *name)
{
    const char *value = secure_getenv(name);

    return value && *value ? value : NULL;
}

static int config_load_decorators(struct config *config, char *err, size_t err_size)
{
    const char *faults = variable("VIADUCT_FAULTS"), *pcap = variable("VIADUCT_PCAP");

    if (pcap && strlen(pcap) >= sizeof config->pcap) {
        snprintf(err, err_size, "VIADUCT_PCAP=\"%.64s...\": the name is too long", pcap);
        return -ENAMETOOLONG;
    }
    snprintf(config->pcap, sizeof config->pcap, "%s", pcap ? pcap : "");
    return faults ? config_parse_faults(faults, &config->faults, err, err_size) : 0;
}

int config_load(struct config *out, char *err, size_t err_size)
{
    struct host_addresses host;
    struct parse parse = {.config = out,
                          .host = &host,
                          .value = variable("VIADUCT_NICS"),
                          .err = err,
                          .err_size = err_size};
    int failed;

    memset(out, 0, sizeof *out);
    failed = config_load_link(out, err, err_size);
    if (!failed)
        failed = config_load_decorators(out, err, err_size);
    if (failed)
        return failed;
    host_addresses_read(&host);
    if (parse.value)
        failed = parse_nics(&parse);
    else
        config_default_nic(out, &host);
    if (failed)
        return failed;
    config_complete(out, &host);
    return host_runtime_dir(variable("VIADUCT_RUNTIME_DIR"), variable("XDG_RUNTIME_DIR"),
                            sizeof out->runtime_dir, out->runtime_dir, err_size, err);
}

static struct config the_config;
static bool the_config_is_good;

static void config_load_once(void)
{
    char err[CONFIG_ERR_MAX];

    the_config_is_good = config_load(&the_config, err, sizeof err) == 0;
    if (!the_config_is_good)
        dprintf(STDERR_FILENO, "viaduct: %s\n", err);
}

const struct config *config_get(void)
{
    /* glibc runs it again in a child that was forked in the middle of it. */
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    int saved = errno;

    pthread_once(&once, config_load_once);
    errno = saved;
    return the_config_is_good ? &the_config : NULL;
}
