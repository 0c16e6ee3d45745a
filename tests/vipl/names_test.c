/* SPDX-License-Identifier: MIT */
/* Name service and management information. */
#include "end.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char path[256];

static void remove_file(void *arg)
{
    unlink(arg);
}

static char *write_hosts(const char *text)
{
    const char *folder = getenv("TMPDIR");

    snprintf(path, sizeof(path), "%s/vip_hosts.XXXXXX", folder ? folder : "/tmp");
    int fd = mkstemp(path);

    T_ASSERT(fd >= 0);
    t_defer(remove_file, path);
    T_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    return path;
}

static char *name_of(const char *name)
{
    return (char *)(uintptr_t)name;
}

T_TEST(vipl_names, not_begun)
{
    /* Shows that there is no name service before it is begun and after it is ended. */
    struct end a;
    _Alignas(8) char room[ADDRESS_ROOM];
    VIP_NET_ADDRESS *address = (VIP_NET_ADDRESS *)room;
    char name[64];
    VIP_ULONG len = sizeof(name);

    end_open(&a);
    T_EQ(VipNSShutdown(a.nic), VIP_ERROR_NAMESERVICE);
    T_EQ(VipNSGetHostByName(a.nic, name_of("localhost"), address, 0), VIP_ERROR_NAMESERVICE);
    end_address(&a, "", room);
    T_EQ(VipNSGetHostByAddr(a.nic, address, name, &len), VIP_ERROR_NAMESERVICE);
    T_EQ(VipNSInit(a.nic, name_of("/no/such/file")), VIP_ERROR_NAMESERVICE);
    T_EQ(VipNSInit(a.nic, NULL), VIP_SUCCESS);
    T_EQ(VipNSShutdown(a.nic), VIP_SUCCESS);
    T_EQ(VipNSShutdown(a.nic), VIP_ERROR_NAMESERVICE);
    end_close(&a);
    t_end();
}

T_TEST(vipl_names, hosts_file)
{
    /* Shows look-ups in a hosts file: both orders, aliases, several addresses, comments. */
    struct end a;
    _Alignas(8) char room[ADDRESS_ROOM];
    VIP_NET_ADDRESS *address = (VIP_NET_ADDRESS *)room;
    static const uint8_t first[4] = {198, 51, 100, 1}, second[4] = {198, 51, 100, 2};

    end_open(&a);
    T_EQ(a.limits.NicAddressLen, 4);
    char *file = write_hosts("# a comment\n\n198.51.100.1 one uno  # more\nnonsense\n"
                             "two\t198.51.100.2\n198.51.100.2 ONE\n198.51.100.9\n");
    T_EQ(VipNSInit(a.nic, file), VIP_SUCCESS);
    T_EQ(VipNSGetHostByName(a.nic, name_of("one"), address, 0), VIP_SUCCESS);
    T_EQ(address->HostAddressLen, 4);
    T_EQ(address->DiscriminatorLen, 0);
    T_MEMEQ(address->HostAddress, first, 4u);
    T_EQ(VipNSGetHostByName(a.nic, name_of("one"), address, 1), VIP_SUCCESS);
    T_MEMEQ(address->HostAddress, second, 4u);
    T_EQ(VipNSGetHostByName(a.nic, name_of("uno"), address, 0), VIP_SUCCESS);
    T_MEMEQ(address->HostAddress, first, 4u);
    T_EQ(VipNSGetHostByName(a.nic, name_of("two"), address, 0), VIP_SUCCESS);
    T_MEMEQ(address->HostAddress, second, 4u);
    T_EQ(VipNSGetHostByName(a.nic, name_of("two"), address, 1), VIP_ERROR_NAMESERVICE);
    T_EQ(VipNSGetHostByName(a.nic, name_of("no-such-host.invalid"), address, 0),
         VIP_ERROR_NAMESERVICE);
    end_close(&a);
    t_end();
}

T_TEST(vipl_names, by_address)
{
    /* Shows the way back, the room it takes, and what is refused. */
    struct end a;
    _Alignas(8) char room[ADDRESS_ROOM];
    VIP_NET_ADDRESS *address = (VIP_NET_ADDRESS *)room;
    char name[64] = "";
    VIP_ULONG len = 7;

    end_open(&a);
    char *file = write_hosts("198.51.100.1 seven77\n");
    T_EQ(VipNSInit(a.nic, file), VIP_SUCCESS);
    T_EQ(VipNSGetHostByName(a.nic, name_of("seven77"), address, 0), VIP_SUCCESS);
    T_EQ(VipNSGetHostByAddr(a.nic, address, name, &len), VIP_ERROR_RESOURCE);
    T_EQ(len, 8);
    T_EQ(VipNSGetHostByAddr(a.nic, address, name, &len), VIP_SUCCESS);
    T_STREQ(name, "seven77");
    T_EQ(len, 8);
    T_EQ(VipNSGetHostByAddr(a.nic, NULL, name, &len), VIP_INVALID_PARAMETER);
    T_EQ(VipNSGetHostByAddr(a.nic, address, NULL, &len), VIP_INVALID_PARAMETER);
    T_EQ(VipNSGetHostByAddr(a.nic, address, name, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipNSGetHostByName(a.nic, NULL, address, 0), VIP_INVALID_PARAMETER);
    T_EQ(VipNSGetHostByName(a.nic, name, NULL, 0), VIP_INVALID_PARAMETER);
    address->HostAddressLen = 5;
    T_EQ(VipNSGetHostByAddr(a.nic, address, name, &len), VIP_INVALID_PARAMETER);
    end_close(&a);
    t_end();
}

T_TEST(vipl_names, resolver)
{
    /* Shows that the system's own names are found, too. */
    struct end a;
    _Alignas(8) char room[ADDRESS_ROOM];
    VIP_NET_ADDRESS *address = (VIP_NET_ADDRESS *)room;

    end_open(&a);
    T_EQ(VipNSInit(a.nic, NULL), VIP_SUCCESS);
    T_EQ(VipNSGetHostByName(a.nic, name_of("localhost"), address, 0), VIP_SUCCESS);
    T_EQ(address->HostAddress[0], 127);
    T_EQ(VipNSGetHostByName(a.nic, name_of("198.51.100.33"), address, 0), VIP_SUCCESS);
    T_EQ(address->HostAddress[3], 33);
    end_close(&a);
    t_end();
}

T_TEST(vipl_names, environment)
{
    /* Shows that VIPL_HOSTS names the file, if the program does not. */
    struct end a;
    _Alignas(8) char room[ADDRESS_ROOM];

    setenv("VIPL_HOSTS", write_hosts("198.51.100.4 four\n"), 1);
    end_open(&a);
    T_EQ(VipNSInit(a.nic, NULL), VIP_SUCCESS);
    T_EQ(VipNSGetHostByName(a.nic, name_of("four"), (VIP_NET_ADDRESS *)room, 0), VIP_SUCCESS);
    end_close(&a);
    unsetenv("VIPL_HOSTS");
    t_end();
}

T_TEST(vipl_management, autodiscovery)
{
    /* Shows the list of NICs: this one, and with a hop those of the hosts file, each once. */
    struct end a;
    VIP_AUTODISCOVERY_LIST list = {0, NULL, 0};

    end_open(&a);
    T_EQ(VipQuerySystemManagementInfo(a.nic, VIP_SMI_AUTODISCOVERY, &list), VIP_SUCCESS);
    T_EQ(list.NumAdAddrs, 1);
    T_EQ(list.ADAddrArray[0]->HostAddressLen, a.limits.NicAddressLen);
    T_MEMEQ(list.ADAddrArray[0]->HostAddress, a.limits.LocalNicAddress, a.limits.NicAddressLen);
    T_EQ(VipNSInit(a.nic, write_hosts("198.51.100.1 a\n198.51.100.2 b c\n198.51.100.1 d\n")),
         VIP_SUCCESS);
    T_EQ(VipQuerySystemManagementInfo(a.nic, VIP_SMI_AUTODISCOVERY, &list), VIP_SUCCESS);
    T_EQ(list.NumAdAddrs, 1);
    list.NumberOfHops = 1;
    T_EQ(VipQuerySystemManagementInfo(a.nic, VIP_SMI_AUTODISCOVERY, &list), VIP_SUCCESS);
    T_EQ(list.NumAdAddrs, 3);
    T_EQ(VipQuerySystemManagementInfo(a.nic, 2, &list), VIP_INVALID_PARAMETER);
    T_EQ(VipQuerySystemManagementInfo(a.nic, VIP_SMI_AUTODISCOVERY, NULL), VIP_INVALID_PARAMETER);
    T_EQ(VipQuerySystemManagementInfo(NULL, VIP_SMI_AUTODISCOVERY, &list), VIP_INVALID_PARAMETER);
    end_close(&a);
    t_end();
}
