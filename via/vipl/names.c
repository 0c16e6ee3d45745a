/* SPDX-License-Identifier: MIT */
/* Name service: a hosts file, then the system's resolver; and the list of NICs that are known. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "vip.h"

#define DEFAULT_FILE "/etc/vip_hosts"

enum { LINE_MAX_BYTES = 512, NAME_MAX_BYTES = 256 };

/* ---- the hosts file ---- */

/* One that fits the NIC: the same family. */
static bool parse_host(const struct vip_nic *nic, const char *text, struct address *to)
{
    *to = (struct address){.host_len = nic->address.host_len};
    return text && inet_pton(to->host_len == 4 ? AF_INET : AF_INET6, text, to->host) == 1;
}

/* What is looked for, and where to put what is found. */
struct search {
    const char *name;           /* NULL: any */
    const struct address *host; /* NULL: any */
    unsigned skip;
    struct address found_host;
    char found_name[NAME_MAX_BYTES];
};

static bool matches(struct search *search, const struct address *host, const char *name)
{
    if ((search->name && strcasecmp(search->name, name) != 0) ||
        (search->host && !address_same_host(search->host, host)))
        return false;
    if (search->skip) {
        search->skip--;
        return false;
    }
    search->found_host = *host;
    snprintf(search->found_name, sizeof(search->found_name), "%s", name);
    return true;
}

/* "address name ...", or "name address". */
static bool search_line(const struct vip_nic *nic, char *line, struct search *search)
{
    struct address host;
    char *rest;

    line[strcspn(line, "#\n")] = 0;
    char *first = strtok_r(line, " \t", &rest), *second = strtok_r(NULL, " \t", &rest);
    if (!first || !second)
        return false;
    if (!parse_host(nic, first, &host))
        return parse_host(nic, second, &host) && matches(search, &host, first);
    for (; second; second = strtok_r(NULL, " \t", &rest)) {
        if (matches(search, &host, second))
            return true;
        if (!search->name)
            break;
    }
    return false;
}

static bool search_file(const struct vip_nic *nic, struct search *search)
{
    FILE *file = nic->names.file ? fopen(nic->names.file, "re") : NULL;
    char line[LINE_MAX_BYTES];
    bool found = false;

    while (file && !found && fgets(line, sizeof(line), file))
        found = search_line(nic, line, search);
    if (file)
        fclose(file);
    return found;
}

/* ---- the resolver ---- */

/* Hosts often know themselves by a loopback address, where no NIC waits: it stands for this NIC. */
static bool resolve_name(const struct vip_nic *nic, struct search *search)
{
    struct addrinfo hints = {.ai_family = nic->address.host_len == 4 ? AF_INET : AF_INET6,
                             .ai_socktype = SOCK_STREAM},
                    *list;
    bool found = false;

    if (getaddrinfo(search->name, NULL, &hints, &list))
        return false;
    for (struct addrinfo *info = list; info && !found; info = info->ai_next) {
        struct address host = {0};

        address_host(info->ai_addr, &host);
        if (address_is_loopback(&host))
            memcpy(host.host, nic->address.host, sizeof(host.host));
        found = matches(search, &host, search->name);
    }
    freeaddrinfo(list);
    return found;
}

static bool resolve_host(struct search *search)
{
    struct sockaddr_storage at;

    address_socket(search->host, 0, &at);
    return !getnameinfo((struct sockaddr *)&at, sizeof(at), search->found_name,
                        sizeof(search->found_name), NULL, 0, NI_NAMEREQD);
}

/* ---- the calls; a file's name does not change while somebody reads it ---- */

static bool is_readable(const char *path)
{
    FILE *file = fopen(path, "re");

    if (file)
        fclose(file);
    return file;
}

/* NULL: none. False: one was asked for that is not there. */
static bool choose_file(const char *asked, char **path_out)
{
    const char *path = asked ? asked : getenv("VIPL_HOSTS");

    *path_out = NULL;
    if (!path && !is_readable(DEFAULT_FILE))
        return true;
    path = path ? path : DEFAULT_FILE;
    if (!is_readable(path))
        return false;
    *path_out = strdup(path);
    return *path_out;
}

VIP_RETURN VipNSInit(VIP_NIC_HANDLE NicHandle, VIP_PVOID NSInitInfo)
{
    struct vip_nic *nic = nic_of(NicHandle);
    char *path;

    if (!nic)
        return VIP_INVALID_PARAMETER;
    if (!choose_file(NSInitInfo, &path))
        return VIP_ERROR_NAMESERVICE;
    pthread_mutex_lock(&nic->names.lock);
    free(nic->names.file);
    nic->names.file = path;
    nic->names.on = true;
    pthread_mutex_unlock(&nic->names.lock);
    return VIP_SUCCESS;
}

VIP_RETURN VipNSGetHostByName(VIP_NIC_HANDLE NicHandle, VIP_CHAR *Name, VIP_NET_ADDRESS *Address,
                              VIP_ULONG NameIndex)
{
    struct vip_nic *nic = nic_of(NicHandle);

    if (!nic || !Name || !Address)
        return VIP_INVALID_PARAMETER;
    struct search search = {.name = Name, .skip = (unsigned)NameIndex};
    pthread_mutex_lock(&nic->names.lock);
    bool found = nic->names.on && (search_file(nic, &search) || resolve_name(nic, &search));
    pthread_mutex_unlock(&nic->names.lock);
    if (!found)
        return VIP_ERROR_NAMESERVICE;
    address_give(&search.found_host, Address);
    return VIP_SUCCESS;
}

VIP_RETURN VipNSGetHostByAddr(VIP_NIC_HANDLE NicHandle, VIP_NET_ADDRESS *Address, VIP_CHAR *Name,
                              VIP_ULONG *NameLen)
{
    struct vip_nic *nic = nic_of(NicHandle);
    struct address host;

    if (!nic || !Name || !NameLen || !address_take(Address, &host))
        return VIP_INVALID_PARAMETER;
    struct search search = {.host = &host};
    pthread_mutex_lock(&nic->names.lock);
    bool found = nic->names.on && (search_file(nic, &search) || resolve_host(&search));
    pthread_mutex_unlock(&nic->names.lock);
    if (!found)
        return VIP_ERROR_NAMESERVICE;
    VIP_ULONG room = *NameLen;
    *NameLen = strlen(search.found_name) + 1;
    if (room < *NameLen)
        return VIP_ERROR_RESOURCE;
    memcpy(Name, search.found_name, *NameLen);
    return VIP_SUCCESS;
}

VIP_RETURN VipNSShutdown(VIP_NIC_HANDLE NicHandle)
{
    struct vip_nic *nic = nic_of(NicHandle);

    if (!nic)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&nic->names.lock);
    bool was_on = nic->names.on;
    nic->names.on = false;
    free(nic->names.file);
    nic->names.file = NULL;
    pthread_mutex_unlock(&nic->names.lock);
    return was_on ? VIP_SUCCESS : VIP_ERROR_NAMESERVICE;
}

/* ---- autodiscovery ---- */

static void forget_known(struct vip_nic *nic)
{
    while (nic->names.known_count)
        free(nic->names.known[--nic->names.known_count]);
    free(nic->names.known);
    nic->names.known = NULL;
}

static bool is_known(const struct vip_nic *nic, const struct address *host)
{
    for (unsigned i = 0; i < nic->names.known_count; i++) {
        struct address known;

        if (address_take(nic->names.known[i], &known) && address_same_host(&known, host))
            return true;
    }
    return false;
}

static bool add_known(struct vip_nic *nic, const struct address *host)
{
    unsigned count = nic->names.known_count;
    VIP_NET_ADDRESS **more = realloc(nic->names.known, sizeof(VIP_NET_ADDRESS *) * (count + 1));

    if (more)
        nic->names.known = more;
    VIP_NET_ADDRESS *copy = calloc(1, sizeof(VIP_NET_ADDRESS) + ADDRESS_MAX);
    if (!more || !copy) {
        free(copy);
        return false;
    }
    address_give(host, copy);
    nic->names.known[nic->names.known_count++] = copy;
    return true;
}

static bool find_known(struct vip_nic *nic, VIP_ULONG hops)
{
    forget_known(nic);
    if (!add_known(nic, &nic->address))
        return false;
    for (unsigned line = 0; hops && nic->names.on; line++) {
        struct search search = {.skip = line};

        if (!search_file(nic, &search))
            break;
        if (!is_known(nic, &search.found_host) && !add_known(nic, &search.found_host))
            return false;
    }
    return true;
}

VIP_RETURN VipQuerySystemManagementInfo(VIP_NIC_HANDLE NicHandle, VIP_ULONG InfoType,
                                        VIP_PVOID SysManInfo)
{
    struct vip_nic *nic = nic_of(NicHandle);
    VIP_AUTODISCOVERY_LIST *list = SysManInfo;

    if (!nic || InfoType != VIP_SMI_AUTODISCOVERY || !list)
        return VIP_INVALID_PARAMETER;
    pthread_mutex_lock(&nic->names.lock);
    bool found = find_known(nic, list->NumberOfHops);
    if (found) {
        list->ADAddrArray = nic->names.known;
        list->NumAdAddrs = nic->names.known_count;
    }
    pthread_mutex_unlock(&nic->names.lock);
    return found ? VIP_SUCCESS : VIP_ERROR_RESOURCE;
}

void names_init(struct vip_nic *nic)
{
    pthread_mutex_init(&nic->names.lock, NULL);
}

void names_fini(struct vip_nic *nic)
{
    forget_known(nic);
    free(nic->names.file);
    pthread_mutex_destroy(&nic->names.lock);
}
