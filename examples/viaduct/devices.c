/* SPDX-License-Identifier: MIT */
/* viaduct devices: what can be opened here, with its limits, and why the rest can't. */
#include "cmd.h"
#include "device.h"
#include "options.h"
#include "provider.h"
#include "report.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

struct devices {
    const char *device;
    bool json;
};

static const struct option_def defs[] = {
    {.name = "device",
     .letter = 'd',
     .type = OPTION_TEXT,
     .value = "NAME",
     .offset = offsetof(struct devices, device),
     .help = "only this one"},
    {.name = "json",
     .type = OPTION_FLAG,
     .offset = offsetof(struct devices, json),
     .help = "one JSON document"},
    {0},
};

static const struct option_set set = {
    .usage = "[OPTIONS]",
    .intro = "List the RDMA devices that a program can open here, with their addresses and\n"
             "limits, and say why others can't be opened.",
    .defs = defs,
    .more = "The result is 0 if at least one device can be opened, and 77 if none can.",
};

/* --- one device --- */

/* The limits worth a line, in this order, in text and in JSON. */
static json_t *limits_json(const struct ibv_device_attr *a, uint32_t max_msg_bytes)
{
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I}", "max_qp",
                     a->max_qp, "max_qp_wr", a->max_qp_wr, "max_sge", a->max_sge, "max_cq",
                     a->max_cq, "max_cqe", a->max_cqe, "max_srq", a->max_srq, "max_srq_wr",
                     a->max_srq_wr, "max_pd", a->max_pd, "max_mr", a->max_mr, "max_mw", a->max_mw,
                     "max_qp_rd_atom", a->max_qp_rd_atom, "max_mr_size_bytes",
                     a->max_mr_size > INT64_MAX ? INT64_MAX : (json_int_t)a->max_mr_size,
                     "max_msg_size_bytes", (json_int_t)max_msg_bytes);
}

static json_t *gids_json(struct ibv_context *context, const struct ibv_port_attr *port)
{
    static const union ibv_gid none;
    json_t *gids = json_array();

    for (int i = 0; i < port->gid_tbl_len; i++) {
        union ibv_gid gid;

        if (ibv_query_gid(context, DEVICE_PORT, i, &gid) != 0 ||
            memcmp(&gid, &none, sizeof(gid)) == 0)
            continue;
        json_array_append_new(gids,
                              json_pack("{s:i, s:s, s:s}", "index", i, "gid", device_gid_text(&gid),
                                        "type", device_gid_type(context, i)));
    }
    return gids;
}

static const char *link_layer_name(uint8_t layer)
{
    return layer == IBV_LINK_LAYER_ETHERNET ? "Ethernet" : "InfiniBand";
}

static json_t *open_json(struct ibv_context *context)
{
    struct ibv_device_attr attr;
    struct ibv_port_attr port = {.state = IBV_PORT_NOP};
    json_t *object;

    errno = ibv_query_device(context, &attr);
    if (errno == 0)
        errno = ibv_query_port(context, DEVICE_PORT, &port);
    if (errno != 0)
        return json_pack("{s:b, s:s}", "usable", 0, "why", strerror(errno));
    object =
        json_pack("{s:b, s:s, s:s, s:i, s:s, s:i, s:o, s:o}", "usable", 1, "state",
                  ibv_port_state_str(port.state), "link_layer", link_layer_name(port.link_layer),
                  "mtu_bytes", (int)device_mtu_bytes(port.active_mtu), "firmware", attr.fw_ver,
                  "ports", (int)attr.phys_port_cnt, "gids", gids_json(context, &port), "limits",
                  limits_json(&attr, port.max_msg_sz));
    return object;
}

static json_t *device_object(struct ibv_device *dev)
{
    struct ibv_context *context = ibv_open_device(dev);
    json_t *object, *named = json_pack("{s:s}", "name", ibv_get_device_name(dev));

    if (context == NULL) {
        object = json_pack("{s:b, s:s}", "usable", 0, "why", strerror(errno));
    } else {
        object = open_json(context);
        ibv_close_device(context);
    }
    json_object_update(named, object);
    json_decref(object);
    return named;
}

/* --- what is not in the list --- */

static bool in_list(const json_t *devices, const char *name)
{
    size_t index;
    json_t *device;

    json_array_foreach(devices, index, device)
    {
        if (strcmp(json_string_value(json_object_get(device, "name")), name) == 0)
            return true;
    }
    return false;
}

static void add_missing(json_t *missing, const char *name, const char *why)
{
    json_array_append_new(missing, json_pack("{s:s, s:s}", "name", name, "why", why));
}

/* Devices that the kernel has and libibverbs did not offer. */
static void add_kernel_devices(json_t *missing, const json_t *devices)
{
    DIR *dir = opendir("/sys/class/infiniband");
    struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.' || in_list(devices, entry->d_name))
            continue;
        add_missing(missing, entry->d_name,
                    "the kernel has it, but no provider of libibverbs takes it, or its file in "
                    "/dev/infiniband is not accessible (Debian: install ibverbs-providers)");
    }
    if (dir != NULL)
        closedir(dir);
}

static json_t *missing_json(const json_t *devices)
{
    json_t *missing = json_array();
    char why[512];

    if (!in_list(devices, device_default()))
        add_missing(missing, device_default(), provider_why_no_via(why, sizeof(why)));
    add_kernel_devices(missing, devices);
    if (!provider_kernel_has_rdma()) {
        add_missing(missing, "hardware",
                    "/dev/infiniband is missing: this machine has no RDMA adapter, or its kernel "
                    "modules are not loaded; via0 does not need them");
    }
    return missing;
}

/* --- output --- */

static void print_limits(const json_t *limits)
{
    const char *key;
    json_t *value;
    unsigned n = 0;

    json_object_foreach((json_t *)limits, key, value) printf(
        "%s%s %" JSON_INTEGER_FORMAT, n++ % 4 == 0 ? n == 1 ? "  limits  " : "\n          " : ", ",
        key, json_integer_value(value));
    putchar('\n');
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static void print_device(const json_t *device)
{
    size_t index;
    json_t *gid;

    if (!json_is_true(json_object_get(device, "usable"))) {
        printf("%s  can't be opened: %s\n", text_of(device, "name"), text_of(device, "why"));
        return;
    }
    printf("%s  %s, %s, MTU %d bytes, firmware %s\n", text_of(device, "name"),
           text_of(device, "state"), text_of(device, "link_layer"),
           (int)number_of(device, "mtu_bytes"), text_of(device, "firmware"));
    json_array_foreach(json_object_get(device, "gids"), index, gid)
        printf("  gid %-3d %s  %s\n", (int)number_of(gid, "index"), text_of(gid, "gid"),
               text_of(gid, "type"));
    print_limits(json_object_get(device, "limits"));
}

static void print_text(const json_t *devices, const json_t *missing)
{
    size_t index;
    json_t *item;

    json_array_foreach(devices, index, item) print_device(item);
    json_array_foreach(missing, index, item)
        printf("# no %s: %s\n", text_of(item, "name"), text_of(item, "why"));
}

static bool any_usable(const json_t *devices)
{
    size_t index;
    json_t *device;

    json_array_foreach(devices, index, device)
    {
        if (json_is_true(json_object_get(device, "usable")))
            return true;
    }
    return false;
}

static json_t *devices_array(const char *only)
{
    json_t *array = json_array();
    int count = 0;
    struct ibv_device **list = ibv_get_device_list(&count);

    for (int i = 0; list != NULL && i < count; i++) {
        if (only == NULL || strcmp(only, ibv_get_device_name(list[i])) == 0)
            json_array_append_new(array, device_object(list[i]));
    }
    if (list != NULL)
        ibv_free_device_list(list);
    return array;
}

static int show(const struct devices *opts)
{
    json_t *devices = devices_array(opts->device);
    json_t *missing = opts->device == NULL ? missing_json(devices) : json_array();
    int code = any_usable(devices) ? CMD_OK : CMD_UNAVAILABLE;

    if (opts->device != NULL && json_array_size(devices) == 0)
        complain("--device: no device is called '%s'; without --device all are listed",
                 opts->device);
    if (opts->json) {
        if (report_document(json_pack("{s:s, s:O, s:O}", "schema", "viaduct.devices/1", "devices",
                                      devices, "missing", missing)) != CMD_OK)
            code = CMD_FAILED;
    } else {
        print_text(devices, missing);
    }
    json_decref(devices);
    json_decref(missing);
    return code;
}

int devices_main(int argc, char **argv)
{
    struct devices opts = {0};
    int first = 0;
    enum options_result parsed = options_parse(&set, argc, argv, &opts, &first);

    if (parsed != OPTIONS_OK)
        return parsed == OPTIONS_HELP ? CMD_OK : CMD_USAGE;
    if (first < argc) {
        complain("'%s' is unexpected: there are only options", argv[first]);
        return CMD_USAGE;
    }
    return show(&opts);
}
