/* SPDX-License-Identifier: MIT */
/* viaduct run: start a program with the NIC preloaded, configured by options. */
#include "cmd.h"
#include "elf.h"
#include "options.h"
#include "where.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NIC_NAME_MAX 31

struct run {
    struct text_list nics;
    const char *link;
    const char *faults;
    const char *pcap;
    const char *runtime_dir;
};

#define FIELD(member) offsetof(struct run, member)

static const struct option_def defs[] = {
    {.name = "nic",
     .type = OPTION_LIST,
     .offset = FIELD(nics),
     .value = "NAME=ADDR",
     .help = "a NIC and its address: via0=192.0.2.5; may come again"},
    {.name = "link",
     .type = OPTION_TEXT,
     .offset = FIELD(link),
     .value = "LINK",
     .help = "how peers are reached: auto, shm or roce (auto)"},
    {.name = "faults",
     .type = OPTION_TEXT,
     .offset = FIELD(faults),
     .value = "LIST",
     .help = "what goes wrong on the wire: loss=1%,seed=7"},
    {.name = "pcap",
     .type = OPTION_TEXT,
     .offset = FIELD(pcap),
     .value = "FILE",
     .help = "capture packets, for Wireshark"},
    {.name = "runtime-dir",
     .type = OPTION_TEXT,
     .offset = FIELD(runtime_dir),
     .value = "DIR",
     .help = "folder where processes find each other"},
    {0},
};

static const struct option_set set = {
    .usage = "[OPTIONS] [--] PROGRAM [ARGUMENTS]",
    .intro = "Run a program with via0 under its libibverbs: libviaduct.so is preloaded, and the\n"
             "options become the VIADUCT_* variables of its environment.",
    .defs = defs,
    .program_follows = true,
    .more = "The result is the program's own. 'viaduct doctor PROGRAM' says why one doesn't see\n"
            "via0. Examples:\n"
            "  viaduct run -- ibv_devinfo\n"
            "  viaduct run --nic via0=127.0.0.1 --nic via1=127.0.0.2 -- ibv_devices",
};

/* --- checks. Each prints its line and returns CMD_USAGE. --- */

static bool nic_name_ok(const char *name, size_t length)
{
    bool good = length > 0 && length <= NIC_NAME_MAX && isalpha((unsigned char)name[0]);

    for (size_t i = 0; good && i < length; i++)
        good = isalnum((unsigned char)name[i]) || strchr("_-.", name[i]) != NULL;
    return good;
}

/* One of the addresses that '+' joins. */
static int check_address(const char *nic, const char *address, size_t length)
{
    unsigned char raw[sizeof(struct in6_addr)];
    char text[INET6_ADDRSTRLEN] = "";

    if (length < sizeof(text))
        memcpy(text, address, length);
    if (inet_pton(AF_INET, text, raw) == 1 || inet_pton(AF_INET6, text, raw) == 1)
        return CMD_OK;
    complain("--nic: '%.*s' in '%s' is not an IPv4 or IPv6 address", (int)length, address, nic);
    return CMD_USAGE;
}

/* via0=192.0.2.5 or via0=192.0.2.5+fd00::5. The library judges what this host has. */
static int check_nic(const char *nic)
{
    const char *equals = strchr(nic, '=');
    const char *address = equals;
    int code = CMD_OK;

    if (equals == NULL || !nic_name_ok(nic, (size_t)(equals - nic))) {
        complain("--nic: '%s' is not NAME=ADDR; write it like via0=192.0.2.5", nic);
        return CMD_USAGE;
    }
    while (code == CMD_OK && *address != '\0') {
        size_t length = strcspn(++address, "+");

        code = check_address(nic, address, length);
        address += length;
    }
    return code;
}

static int check_link(const char *link)
{
    if (strcmp(link, "auto") == 0 || strcmp(link, "shm") == 0 || strcmp(link, "roce") == 0)
        return CMD_OK;
    complain("--link: '%s' is not auto, shm or roce", link);
    return CMD_USAGE;
}

static int check_options(const struct run *opts)
{
    int code = opts->link != NULL ? check_link(opts->link) : CMD_OK;

    for (unsigned i = 0; i < opts->nics.count && code == CMD_OK; i++)
        code = check_nic(opts->nics.items[i]);
    return code;
}

/* --- the environment --- */

static void set_if(const char *name, const char *value)
{
    if (value != NULL)
        setenv(name, value, 1);
}

static void set_nics(const struct text_list *nics)
{
    char value[2048] = "";
    size_t used = 0;

    for (unsigned i = 0; i < nics->count && used < sizeof(value); i++)
        used += (size_t)snprintf(value + used, sizeof(value) - used, "%s%s", i > 0 ? "," : "",
                                 nics->items[i]);
    if (nics->count > 0)
        setenv("VIADUCT_NICS", value, 1);
}

/* Behind what is preloaded already: sanitizers insist on being first. */
static int set_preload(void)
{
    const char *tried = "../lib/libviaduct.so";
    const char *library = where_library(&tried);
    const char *before = getenv("LD_PRELOAD");
    char *value;

    if (library == NULL) {
        complain("libviaduct.so is not at %s: build or install Viaduct completely", tried);
        return CMD_UNAVAILABLE;
    }
    if (strpbrk(library, " :") != NULL) {
        complain("libviaduct.so can't be preloaded from %s: the loader takes no path with a space "
                 "or a colon; install it elsewhere",
                 library);
        return CMD_UNAVAILABLE;
    }
    if (before != NULL && strstr(before, library) != NULL)
        return CMD_OK;
    if (asprintf(&value, "%s%s%s", before != NULL ? before : "",
                 before != NULL && *before != '\0' ? ":" : "", library) < 0)
        return CMD_FAILED;
    setenv("LD_PRELOAD", value, 1);
    free(value);
    return CMD_OK;
}

static int set_environment(const struct run *opts)
{
    set_nics(&opts->nics);
    set_if("VIADUCT_LINK", opts->link);
    set_if("VIADUCT_FAULTS", opts->faults);
    set_if("VIADUCT_PCAP", opts->pcap);
    set_if("VIADUCT_RUNTIME_DIR", opts->runtime_dir);
    return set_preload();
}

/* --- the program --- */

static int find_program(const char *name, char *path, size_t size)
{
    struct elf_info info;
    const char *obstacle;
    int error = where_program(name, path, size);

    if (error == -EACCES) {
        complain("'%s' can't be executed (%s is a directory or has no x permission)", name, path);
        return CMD_USAGE;
    }
    if (error != 0) {
        complain("no program '%s'%s", name,
                 strchr(name, '/') != NULL ? ": there is no such file"
                                           : " on the PATH; is its package installed?");
        return CMD_USAGE;
    }
    /* It may still be what the user wants, so this is a warning. */
    obstacle = elf_inspect(path, &info) == 0 ? elf_obstacle(&info) : NULL;
    if (obstacle != NULL)
        complain("warning: '%s' will not see via0: %s", name, obstacle);
    return CMD_OK;
}

int run_main(int argc, char **argv)
{
    char path[4096];
    struct run opts = {0};
    int first = 0;
    enum options_result parsed = options_parse(&set, argc, argv, &opts, &first);
    int code;

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? CMD_OK : CMD_USAGE;
    code = check_options(&opts);
    if (code != CMD_OK)
        return code;
    if (first == argc) {
        complain("no PROGRAM given; write it like 'viaduct run -- ibv_devinfo'");
        return CMD_USAGE;
    }
    code = find_program(argv[first], path, sizeof(path));
    if (code == CMD_OK)
        code = set_environment(&opts);
    if (code != CMD_OK)
        return code;
    execv(path, argv + first);
    complain("'%s' can't be started: %s", path, strerror(errno));
    return CMD_USAGE;
}
