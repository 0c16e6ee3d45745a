/* SPDX-License-Identifier: MIT */
/* The configuration: GID tables, the runtime directory, and a clear line for each wrong value. */
#include "core/config.h"
#include "core/config_host.h"

#include <arpa/inet.h>

#include "scratch.h"

static struct config config;
static char err[CONFIG_ERR_MAX];

/* Load with this VIADUCT_NICS (NULL: unset) and a runtime directory of the test's own. */
static int load(const char *nics)
{
    if (nics)
        setenv("VIADUCT_NICS", nics, 1);
    else
        unsetenv("VIADUCT_NICS");
    err[0] = '\0';
    return config_load(&config, err, sizeof err);
}

static void begin(void)
{
    unsetenv("VIADUCT_LINK");
    setenv("VIADUCT_RUNTIME_DIR", scratch(), 1);
}

static const char *gid_text(unsigned nic, unsigned index)
{
    static char texts[4][INET6_ADDRSTRLEN];
    static unsigned next;
    char *text = texts[next++ % 4];

    T_ASSERT(index < config.nics[nic].gid_count, "gid %u of %u", index, config.nics[nic].gid_count);
    inet_ntop(AF_INET6, config.nics[nic].gids[index].raw, text, INET6_ADDRSTRLEN);
    return text;
}

T_TEST(config, default_nic)
{
    /* Shows that without any variable there is one NIC that also has the loopback addresses. */
    begin();
    T_EQ(load(NULL), 0);
    T_EQ(config.nic_count, 1);
    T_STREQ(config.nics[0].name, "via0");
    T_ASSERT(config.nics[0].gid_count >= 3);
    T_ASSERT(strncmp(gid_text(0, 0), "::ffff:", 7) == 0, "%s", gid_text(0, 0));
    bool v4 = false;
    bool v6 = false;
    for (unsigned i = 0; i < config.nics[0].gid_count; i++) {
        v4 = v4 || strcmp(gid_text(0, i), "::ffff:127.0.0.1") == 0;
        v6 = v6 || strcmp(gid_text(0, i), "::1") == 0;
    }
    T_CHECK(v4 && v6);
    T_EQ(config.link, CONFIG_LINK_AUTO);
    t_end();
}

T_TEST(config, explicit_nics)
{
    /* Shows the order of the tables, and that the first NIC alone gets what nobody was given. */
    begin();
    T_EQ(load("via0=fd77::5+192.0.2.77,eth-x.1=198.51.100.7"), 0);
    T_EQ(config.nic_count, 2);
    T_STREQ(config.nics[1].name, "eth-x.1");
    T_EQ(config.nics[1].index, 1);
    T_STREQ(gid_text(0, 0), "::ffff:192.0.2.77");
    T_CHECK(strncmp(gid_text(0, 1), "fe80::", 6) == 0);
    T_STREQ(gid_text(0, 2), "fd77::5");
    T_STREQ(gid_text(0, 3), "::ffff:127.0.0.1");
    T_STREQ(gid_text(0, 4), "::1");
    T_EQ(config.nics[0].gid_count, 5);
    T_STREQ(gid_text(1, 0), "::ffff:198.51.100.7");
    T_EQ(config.nics[1].gid_count, 2);
    /* No interface has these addresses. */
    T_STREQ(config.nics[1].gids[0].ndev, "lo");
    t_end();
}

T_TEST(config, loopback_given_to_the_second)
{
    /* Shows that an address is never in two tables. */
    begin();
    T_EQ(load("via0=192.0.2.77,via1=127.0.0.1"), 0);
    T_STREQ(gid_text(1, 0), "::ffff:127.0.0.1");
    for (unsigned i = 0; i < config.nics[0].gid_count; i++)
        T_CHECK(strcmp(gid_text(0, i), "::ffff:127.0.0.1") != 0);
    T_CHECK(strcmp(gid_text(0, 1), gid_text(1, 1)) != 0, "one link-local address for two NICs");
    t_end();
}

T_TEST(config, only_ipv6)
{
    /* Shows that a NIC without IPv4 address begins its table with what it was given. */
    begin();
    T_EQ(load("via0=fd77::5"), 0);
    T_STREQ(gid_text(0, 0), "fd77::5");
    t_end();
}

T_TEST(config, guid)
{
    /* Shows that a GUID depends on name and address, looks local, and is the same every time. */
    begin();
    T_EQ(load("via0=192.0.2.77,via1=192.0.2.78"), 0);
    uint64_t first = config.nics[0].guid;
    T_CHECK(first != config.nics[1].guid);
    T_EQ(first >> 56 & 3, 0);
    T_EQ(first >> 24 & 0xffff, 0xfffe);
    T_EQ(load("via0=192.0.2.77"), 0);
    T_EQ(config.nics[0].guid, first);
    T_EQ(load("via1=192.0.2.77"), 0);
    T_CHECK(config.nics[0].guid != first);
    t_end();
}

T_TEST(config, wrong_nics)
{
    /* Shows that each mistake is named together with the value and the right form. */
    static const struct {
        const char *value, *reason;
    } cases[] = {
        {"via0", "has no ="},
        {"via0=", "not an IPv4 or IPv6 address"},
        {"via0=hostname", "not an IPv4 or IPv6 address"},
        {"via0=192.0.2.300", "not an IPv4 or IPv6 address"},
        {"via0=fe80::1%eth0", "not an IPv4 or IPv6 address"},
        {"via0=192.0.2.1+", "not an IPv4 or IPv6 address"},
        {"via0=0.0.0.0", "not the address of a host"},
        {"via0=224.0.0.1", "not the address of a host"},
        {"via0=ff02::1", "not the address of a host"},
        {"via0=::", "not the address of a host"},
        {"=192.0.2.1", "does not begin with a letter"},
        {"0via=192.0.2.1", "does not begin with a letter"},
        {"a/b=192.0.2.1", "may have letters"},
        {"a b=192.0.2.1", "may have letters"},
        {"abcdefghijklmnopqrstuvwxyzabcdefg=192.0.2.1", "longer than 31"},
        {"siw0=192.0.2.1", "taken by another driver"},
        {"via0=192.0.2.1,via0=192.0.2.2", "given twice"},
        {"via0=192.0.2.1,via1=192.0.2.1", "given twice"},
        {"via0=192.0.2.1+192.0.2.1", "given twice"},
        {"via0=192.0.2.1,", "has no ="},
        {"a=10.0.0.1,b=10.0.0.2,c=10.0.0.3,d=10.0.0.4,e=10.0.0.5,f=10.0.0.6,g=10.0.0.7,"
         "h=10.0.0.8,i=10.0.0.9",
         "more than 8 NICs"},
        {"a=10.0.0.1+10.0.0.2+10.0.0.3+10.0.0.4+10.0.0.5+10.0.0.6+10.0.0.7+10.0.0.8+10.0.0.9+"
         "10.0.1.1+10.0.1.2+10.0.1.3+10.0.1.4+10.0.1.5",
         "more than 13 addresses"},
    };

    begin();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        T_CHECK_EQ(load(cases[i].value), -EINVAL);
        T_CHECK(strncmp(err, "VIADUCT_NICS=\"", 14) == 0, "%s", err);
        T_CHECK(strstr(err, cases[i].reason), "%s: %s", cases[i].value, err);
        T_CHECK(strstr(err, "write NAME=ADDRESS"), "%s", err);
        T_CHECK(!strchr(err, '\n'));
    }
    t_end();
}

T_TEST(config, full_tables)
{
    /* Shows that the largest table the user can ask for still has room for what we add. */
    begin();
    T_EQ(load("a=10.0.0.1+10.0.0.2+10.0.0.3+10.0.0.4+10.0.0.5+10.0.0.6+10.0.0.7+10.0.0.8+10.0.0.9+"
              "10.0.1.1+10.0.1.2+10.0.1.3+10.0.1.4"),
         0);
    T_EQ(config.nics[0].gid_count, CONFIG_GIDS_MAX);
    T_STREQ(gid_text(0, CONFIG_GIDS_MAX - 1), "::1");
    t_end();
}

T_TEST(config, link)
{
    /* Shows the links one may ask for, and the answer to others. */
    begin();
    setenv("VIADUCT_LINK", "shm", 1);
    T_EQ(load(NULL), 0);
    T_EQ(config.link, CONFIG_LINK_SHM);
    setenv("VIADUCT_LINK", "roce", 1);
    T_EQ(config_load(&config, err, sizeof err), 0);
    T_EQ(config.link, CONFIG_LINK_ROCE);
    setenv("VIADUCT_LINK", "", 1);
    T_EQ(load(NULL), 0);
    T_EQ(config.link, CONFIG_LINK_AUTO);
    setenv("VIADUCT_LINK", "tcp", 1);
    T_EQ(load(NULL), -EINVAL);
    T_STREQ(err, "VIADUCT_LINK=\"tcp\": no such link; write auto, shm or roce");
    t_end();
}

/* ---- the runtime directory ---- */

static int load_dir(const char *path)
{
    setenv("VIADUCT_RUNTIME_DIR", path, 1);
    return load("via0=192.0.2.77");
}

T_TEST(config, runtime_dir_is_made)
{
    /* Shows that a missing directory is made for the user alone. */
    begin();
    const char *path = pathf("%s/new", scratch());
    struct stat st;

    T_EQ(load_dir(pathf("%s//", path)), 0);
    T_STREQ(config.runtime_dir, path);
    T_EQ(stat(path, &st), 0);
    T_EQ(st.st_mode & 0777, 0700);
    T_EQ(load_dir(path), 0); /* and again, now that it is there */
    t_end();
}

T_TEST(config, runtime_dir_refused)
{
    /* Shows that a directory which others can enter, change or swap is not used. */
    begin();
    const char *base = scratch();

    T_EQ(load_dir("relative/path"), -EINVAL);
    T_CHECK(strstr(err, "VIADUCT_RUNTIME_DIR=\"relative/path\""), "%s", err);

    const char *open_dir = pathf("%s/open", base);
    T_EQ(mkdir(open_dir, 0755), 0);
    T_EQ(load_dir(open_dir), -EPERM);
    T_CHECK(strstr(err, "mode 0755"), "%s", err);

    const char *link = pathf("%s/link", base);
    T_EQ(symlink(base, link), 0);
    T_CHECK(load_dir(link) < 0, "a symbolic link was followed");
    T_CHECK(load_dir(pathf("%s/", link)) < 0, "a symbolic link was followed");

    scratch_file(pathf("%s/file", base), "");
    T_EQ(load_dir(pathf("%s/file", base)), -ENOTDIR);
    T_EQ(load_dir(pathf("%s/no/such/dir", base)), -ENOENT);

    char long_path[2 * CONFIG_PATH_MAX];
    memset(long_path, 'x', sizeof long_path);
    long_path[0] = '/';
    long_path[sizeof long_path - 1] = '\0';
    T_EQ(load_dir(long_path), -ENAMETOOLONG);
    t_end();
}

T_TEST(config, runtime_dir_of_another)
{
    /* Shows that a directory of another user is not used: somebody may have been there first. */
    begin();
    if (geteuid() != 0)
        T_SKIP("only root can make a directory for another user");
    const char *path = pathf("%s/theirs", scratch());
    T_EQ(mkdir(path, 0700), 0);
    T_EQ(chown(path, 12345, 12345), 0);
    T_EQ(load_dir(path), -EPERM);
    T_CHECK(strstr(err, "belongs to user 12345"), "%s", err);
    t_end();
}

T_TEST(config, runtime_dir_default)
{
    /* Shows that $XDG_RUNTIME_DIR is taken if it is the user's own, and else left alone. */
    char out[CONFIG_PATH_MAX];
    const char *xdg = scratch();

    T_EQ(host_runtime_dir(NULL, xdg, sizeof out, out, sizeof err, err), 0);
    T_STREQ(out, pathf("%s/viaduct", xdg));
    T_EQ(host_runtime_dir(NULL, "/nonexistent", sizeof out, out, sizeof err, err), 0);
    T_CHECK(strstr(out, pathf("/viaduct-%u", geteuid())), "%s", out);
    t_end();
}

/* ---- the host ---- */

T_TEST(config, default_route)
{
    /* Shows that no routing table at all and a strange one are survived. */
    struct host_addresses host;
    const char *base = scratch();

    host_addresses_read_from("/nonexistent", &host);
    T_CHECK(host.primary[0]);
    scratch_file(pathf("%s/route", base),
                 "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
                 "nosuch0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
                 "rubbish\n");
    host_addresses_read_from(pathf("%s/route", base), &host);
    T_CHECK(strcmp(host.primary, "nosuch0") != 0);
    t_end();
}

T_TEST(config, interface_of)
{
    /* Shows that every address of 127/8 belongs to lo, and an unknown one to nobody. */
    struct host_addresses host;
    uint8_t raw[16] = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 9};

    host_addresses_read(&host);
    T_STREQ(host_interface_of(&host, raw), "lo");
    raw[12] = 203;
    raw[14] = 113;
    T_CHECK(!host_interface_of(&host, raw));
    t_end();
}
