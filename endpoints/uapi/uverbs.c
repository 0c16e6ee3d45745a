/* SPDX-License-Identifier: MIT */
/*
 * /dev/infiniband/uverbsN: opening it, and the way of a command from write() to its handler.
 *
 * The descriptor is a memfd, so that ioctl() says ENOTTY by itself (every rdma-core then uses
 * write() for good) and mmap() works: it holds one dummy page, an empty ring, which the provider
 * maps for each of its queues and never gets to use, because the calls that would touch it go
 * through the function tables we patch (fastpath.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/sys.h"
#include "uapi/cmd.h"
#include "uapi/fastpath.h"

enum {
    RING_PAGE = 4096,
    RING_LOG2_ELEMENT = 6, /* the provider wants at least a struct ib_uverbs_wc */
    ON_STACK = 1024,       /* longest command that needs no allocation */
    /* the longest one that the 16-bit word counts can describe */
    COMMAND_MAX = 24 + 2 * 65535 * 8,
};

struct mminfo cmd_ring_info(void)
{
    return (struct mminfo){.offset = 0, .size = RING_PAGE};
}

/* ---- the way in ---- */

/*
 * Where the parts of a plain command lie; header and sizes as in ib_user_verbs.h. The response's
 * address is the first word of the request, and the driver's response follows the core's.
 */
static int parse_plain(struct cmd *cmd, const struct cmd_method *method, const uint8_t *at,
                       size_t len)
{
    const struct ib_uverbs_cmd_hdr *hdr = (const void *)at;
    size_t in_len = len - sizeof(*hdr), out_len = hdr->out_words * sizeof(uint32_t);

    if (hdr->in_words * sizeof(uint32_t) != len)
        return -EINVAL;
    if (in_len < method->req_min || out_len < method->resp_min)
        return -ENOSPC;
    cmd->req = at + sizeof(*hdr);
    cmd->req_len = in_len;
    if (method->flags & CMD_DRIVER) {
        cmd->req_len = method->req_size;
        cmd->driver_req = at + sizeof(*hdr) + method->req_size;
        cmd->driver_req_len = in_len - method->req_size;
    }
    if (method->flags & CMD_RESP) {
        memcpy(&cmd->out, cmd->req, sizeof(cmd->out));
        cmd->out_len = out_len;
        if (method->flags & CMD_DRIVER) {
            cmd->out_len = method->resp_size;
            cmd->driver_out = cmd->out + method->resp_size;
            cmd->driver_out_len = out_len - method->resp_size;
        }
    }
    return 0;
}

/* An extended command has a second header, with all four lengths and the response's address. */
static int parse_extended(struct cmd *cmd, const struct cmd_method *method, const uint8_t *at,
                          size_t len)
{
    const struct ib_uverbs_cmd_hdr *hdr = (const void *)at;
    const struct ib_uverbs_ex_cmd_hdr *ex = (const void *)(at + sizeof(*hdr));
    size_t header = sizeof(*hdr) + sizeof(*ex), word = sizeof(uint64_t);

    if (len < header || (hdr->in_words + ex->provider_in_words) * word != len - header)
        return -EINVAL;
    if (hdr->in_words * word < method->req_min)
        return -ENOSPC;
    if (ex->cmd_hdr_reserved)
        return -EINVAL;
    if (!ex->response != !(hdr->out_words | ex->provider_out_words))
        return -EINVAL;
    if (ex->response && hdr->out_words * word < method->resp_min)
        return -ENOSPC;
    cmd->req = at + header;
    cmd->req_len = hdr->in_words * word;
    cmd->driver_req = at + header + cmd->req_len;
    cmd->driver_req_len = ex->provider_in_words * word;
    cmd->out = ex->response;
    cmd->out_len = hdr->out_words * word;
    cmd->driver_out = cmd->out + cmd->out_len;
    cmd->driver_out_len = ex->provider_out_words * word;
    return 0;
}

/*
 * Give the handler the request in the size it knows: a shorter one (an older program) is padded
 * with zeros, a longer one (a newer program) must be zero beyond what we know.
 */
static int fit_request(struct cmd *cmd, const struct cmd_method *method)
{
    const uint8_t *req = cmd->req;

    for (size_t i = method->req_size; i < cmd->req_len; i++) {
        if (req[i])
            return -EOPNOTSUPP;
    }
    memcpy(cmd->req_store, req, cmd->req_len < method->req_size ? cmd->req_len : method->req_size);
    cmd->req = cmd->req_store;
    return 0;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

void *cmd_driver_resp(struct cmd *cmd, size_t size)
{
    if (cmd->driver_out_len < size)
        return NULL;
    cmd->driver_resp_len = size;
    return cmd->driver_resp;
}

uint32_t cmd_response_length(const struct cmd *cmd, size_t size)
{
    return (uint32_t)smaller(cmd->out_len, size);
}

static int respond(struct cmd *cmd, const struct cmd_method *method)
{
    size_t len = smaller(cmd->out_len, method->resp_size);
    int err = user_write_two((struct user_part[2]){
        {cmd->out, cmd->resp, len}, {cmd->driver_out, cmd->driver_resp, cmd->driver_resp_len}});

    if (!err && !(method->flags & CMD_RESP))
        err = user_zero(cmd->out + len, cmd->out_len - len);
    return err;
}

/* A response that can't be delivered must not leave an object nobody knows of. */
static int probe(const struct cmd *cmd, const struct cmd_method *method)
{
    if (method->flags & CMD_QUERY)
        return 0;
    return user_probe_two((struct user_part[2]){
        {.theirs = cmd->out, .len = smaller(cmd->out_len, method->resp_size)},
        {.theirs = cmd->driver_out, .len = smaller(cmd->driver_out_len, CMD_DRIVER_RESP_MAX)}});
}

/* What the program has of the NIC stays until it destroys that, as with the kernel. */
static bool is_removed(const struct cmd *cmd, const struct cmd_method *method)
{
    return cmd->context && atomic_load(&cmd->context->removed) &&
           !(method->flags & (CMD_DESTROY | CMD_DATA));
}

static int run(struct cmd *cmd, const struct cmd_method *method)
{
    bool locked = !(method->flags & CMD_DATA);
    int err = probe(cmd, method), respond_err = 0;

    if (err)
        return err;
    if (locked)
        core_lock();
    cmd->context = atomic_load_explicit(&cmd->file->context, memory_order_acquire);
    if (is_removed(cmd, method))
        err = -EIO;
    else
        err = cmd->context || (method->flags & CMD_FIRST) ? method->run(cmd) : -EINVAL;
    if (locked)
        core_unlock();
    if (!err || cmd->respond_on_error)
        respond_err = respond(cmd, method);
    return err ? err : respond_err;
}

/* `at` is aligned, private and has room for 8 more bytes; `from` is where the program has it. */
static int dispatch(struct uverbs_file *file, uint8_t *at, size_t len, uint64_t from)
{
    struct ib_uverbs_cmd_hdr *hdr = (void *)at;
    struct cmd cmd = {.file = file};
    const struct cmd_method *method;
    int err = cmd_method_find(hdr->command, &method);

    if (err)
        return err;
    /* rdma-core 18 and 19 declare this command two words too short, but do have the words. */
    if (hdr->command == IB_USER_VERBS_CMD_DESTROY_CQ && len == 16 && hdr->in_words == 4) {
        err = user_read(at + len, from + len, 8);
        if (err)
            return err;
        hdr->in_words = 6;
        len = 24;
    }
    if (hdr->command & IB_USER_VERBS_CMD_FLAG_EXTENDED)
        err = parse_extended(&cmd, method, at, len);
    else
        err = parse_plain(&cmd, method, at, len);
    if (!err && !(method->flags & CMD_VARIABLE))
        err = fit_request(&cmd, method);
    return err ? err : run(&cmd, method);
}

static ssize_t uverbs_write(struct uapi_file *base, const void *buf, size_t len)
{
    uint64_t on_stack[ON_STACK / 8];
    void *at = on_stack;
    int err;

    if (base->dead)
        return -EIO;
    if (len < sizeof(struct ib_uverbs_cmd_hdr) || len > COMMAND_MAX)
        return -EINVAL;
    if (len + 8 > sizeof(on_stack))
        at = malloc(len + 8);
    if (!at)
        return -ENOMEM;
    err = user_read(at, (uintptr_t)buf, len);
    if (!err)
        err = dispatch((struct uverbs_file *)base, at, len, (uintptr_t)buf);
    if (at != on_stack)
        free(at);
    return err ? err : (ssize_t)len;
}

/* ---- opening and closing ---- */

static void uverbs_release(struct uapi_file *base)
{
    struct uverbs_file *file = (struct uverbs_file *)base;

    core_lock();
    if (file->context) {
        fastpath_context_closed(file->context);
        context_close(file->context);
    }
    core_unlock();
    free(file);
}

static const struct uapi_file_ops uverbs_ops = {uverbs_write, uverbs_release};

/* A memfd with an empty ring that is also a full one: nothing to poll, no room to post. */
static int ring_create(const char *name, int flags)
{
    struct rxe_queue_buf ring = {.log2_elem_size = RING_LOG2_ELEMENT};
    int fd = memfd_create(name, MFD_ALLOW_SEALING | (flags & O_CLOEXEC ? MFD_CLOEXEC : 0u));
    int err;

    if (fd < 0)
        return -errno;
    if (ftruncate(fd, RING_PAGE) == 0 && sys_write(fd, &ring, sizeof(ring)) == sizeof(ring) &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
        return fd;
    err = -errno;
    sys_close(fd);
    return err;
}

int uverbs_open(const struct nic *nic, int flags, int *fd_out)
{
    struct uverbs_file *file = calloc(1, sizeof(*file));
    int fd, err;

    if (!file)
        return -ENOMEM;
    file->file.ops = &uverbs_ops;
    file->nic = nic;
    err = fd = ring_create(nic->name, flags);
    if (fd < 0)
        goto no_ring;
    err = fdtab_set(fd, &file->file);
    if (err)
        goto no_entry;
    *fd_out = fd;
    return 0;

no_entry:
    sys_close(fd);
no_ring:
    free(file);
    return err;
}

void uverbs_after_fork(void)
{
    core_after_fork();
}

struct context *uverbs_file_context(const struct uapi_file *file)
{
    return file->ops == &uverbs_ops ? ((const struct uverbs_file *)file)->context : NULL;
}
