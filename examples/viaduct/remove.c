/* SPDX-License-Identifier: MIT */
/* viaduct remove, viaduct add: unplug a NIC under running programs, and plug it in again. */
#include "cmd.h"
#include "options.h"
#include "viaduct.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct option_def defs[] = {{0}};

static const struct option_set remove_set = {
    .usage = "NIC",
    .intro = "Take a NIC away from all programs that run over this runtime folder, as if the\n"
             "adapter had been unplugged. It stays away until 'viaduct add'.",
    .defs = defs,
    .more = "What programs see is what the kernel's uverbs and rdma_cm do:\n"
            "  queue pairs    go to ERR; what was posted completes with WR_FLUSH_ERR\n"
            "  contexts       get IBV_EVENT_DEVICE_FATAL; every command but those that destroy\n"
            "                 fails with EIO\n"
            "  rdma_cm        identifiers that are bound to the NIC get\n"
            "                 RDMA_CM_EVENT_DEVICE_REMOVAL; then only rdma_destroy_id works\n"
            "  new programs   see no such device\n"
            "What was open stays dead after 'viaduct add', until it is closed and opened anew.\n"
            "The result is 1 if there is no such NIC.",
};

static const struct option_set add_set = {
    .usage = "NIC",
    .intro = "Give a NIC that 'viaduct remove' has taken away to all programs again. Those that\n"
             "had it open must open it anew.",
    .defs = defs,
    .more = "The result is 1 if there is no such NIC, or if it is not away.",
};

static const char *reason(int error)
{
    return error == -ENODEV   ? "there is no such NIC"
           : error == -EEXIST ? "it is there already"
                              : strerror(-error);
}

static int change(const struct option_set *set, int argc, char **argv, int (*act)(const char *),
                  const char *done)
{
    int first = 0;
    enum options_result parsed = options_parse(set, argc, argv, NULL, &first);

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? CMD_OK : CMD_USAGE;
    if (argc - first != 1) {
        complain(first < argc ? "'%s' is unexpected: there is one NIC" : "which NIC?",
                 first < argc ? argv[first + 1] : "");
        return CMD_USAGE;
    }
    int told = act(argv[first]);
    if (told < 0) {
        complain("%s: %s", argv[first], reason(told));
        return told == -EINVAL ? CMD_UNAVAILABLE : CMD_FAILED;
    }
    printf("%s is %s; %d process%s told\n", argv[first], done, told,
           told == 1 ? " was" : "es were");
    return CMD_OK;
}

int remove_main(int argc, char **argv)
{
    return change(&remove_set, argc, argv, viaduct_remove, "removed");
}

int add_main(int argc, char **argv)
{
    return change(&add_set, argc, argv, viaduct_add, "added");
}
