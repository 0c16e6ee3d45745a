/* SPDX-License-Identifier: MIT */
/*
 * The symbols of libibverbs that we stand before, where the dynamic linker lets us. Each calls the
 * library's own function and then does what that could not: programs that it does not reach
 * (libibverbs linked in, or taken by dlsym) lose nothing but what is said here.
 *
 *   ibv_open_device   the context's tables are found at once
 *   ibv_qp_to_qp_ex   the queue pair's too
 *   ibv_rereg_mr      works: the stock provider lacks it
 */
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <limits.h>
#include <link.h>
#include <rdma/ib_user_verbs.h>
#include <stdio.h>
#include <string.h>

#include "core/objects.h"
#include "core/qp.h"
#include "uapi/fastpath.h"
#include "uapi/uapi.h"

#define EXPORT __attribute__((visibility("default")))

/* ---- finding the library's function ---- */

static void *symbol_in(const char *object, const char *name, const void *own)
{
    void *handle = object && *object ? dlopen(object, RTLD_LAZY | RTLD_NOLOAD) : NULL;
    void *symbol = handle ? dlsym(handle, name) : NULL;

    if (handle)
        dlclose(handle); /* it stays: somebody has loaded it */
    return symbol != own ? symbol : NULL;
}

/* The path of the library in memory. dlopen() must wait until the walk over all is done. */
static int search_library(struct dl_phdr_info *info, size_t size, void *arg)
{
    char *path = arg;

    (void)size;
    if (!strstr(info->dlpi_name, "libibverbs.so"))
        return 0;
    snprintf(path, PATH_MAX, "%s", info->dlpi_name);
    return 1;
}

/*
 * The library's own function. Beside us if the program is linked with the library; with the caller
 * if that is a module which brought the library along (Python's do); else wherever it is loaded.
 */
static void *real_symbol(const char *name, const void *own, const void *caller)
{
    void *symbol = dlsym(RTLD_NEXT, name);
    char path[PATH_MAX];
    Dl_info info;

    if (!symbol && dladdr(caller, &info))
        symbol = symbol_in(info.dli_fname, name, own);
    if (!symbol && dl_iterate_phdr(search_library, path))
        symbol = symbol_in(path, name, own);
    return symbol;
}

/* ---- ibv_open_device, ibv_qp_to_qp_ex ---- */

/*
 * librdmacm keeps one context of each device for good. It takes a device that comes again for
 * another one by its index, which it learns by netlink and so does not have of ours: the only way
 * for a program to connect again is that this context lives again.
 */
static void note_opener(struct ibv_context *ibv, const void *caller)
{
    struct uapi_file *file = ibv->cmd_fd >= 0 ? fdtab_get(ibv->cmd_fd) : NULL;
    Dl_info info;

    if (!file || !dladdr(caller, &info) || !strstr(info.dli_fname, "librdmacm.so"))
        return;
    core_lock();
    struct context *context = uverbs_file_context(file);
    if (context)
        context->lives_again = true;
    core_unlock();
}

EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    struct ibv_context *(*real)(struct ibv_device *);

    *(void **)&real =
        real_symbol("ibv_open_device", (void *)ibv_open_device, __builtin_return_address(0));
    if (!real) {
        errno = ENOSYS;
        return NULL;
    }
    struct ibv_context *ibv = real(device);
    if (ibv) {
        fastpath_context_opened(ibv);
        note_opener(ibv, __builtin_return_address(0));
    }
    return ibv;
}

EXPORT struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *ibv_qp)
{
    struct ibv_qp_ex *(*real)(struct ibv_qp *);

    *(void **)&real =
        real_symbol("ibv_qp_to_qp_ex", (void *)ibv_qp_to_qp_ex, __builtin_return_address(0));
    struct ibv_qp_ex *ex = real ? real(ibv_qp) : NULL;
    if (!ex || qpex_is_patched(ex) || !fdtab_get(ibv_qp->context->cmd_fd))
        return ex;
    core_lock();
    struct qp *qp = qp_get(ibv_qp->handle);
    if (qp && qp_user_handle(qp) == (uintptr_t)ibv_qp)
        qpex_patch(ex, qp);
    core_unlock();
    return ex;
}

/* ---- ibv_rereg_mr ---- */

/* The command that the kernel's driver would take; the response is the new keys. */
static int rereg_command(struct uapi_file *file, struct ibv_mr *mr, int flags, struct ibv_pd *pd,
                         void *addr, size_t length, int access)
{
    struct ib_uverbs_rereg_mr_resp keys;
    struct {
        struct ib_uverbs_cmd_hdr hdr;
        struct ib_uverbs_rereg_mr req;
    } cmd = {
        .hdr = {.command = IB_USER_VERBS_CMD_REREG_MR,
                .in_words = sizeof(cmd) / 4,
                .out_words = sizeof(keys) / 4},
        .req = {.response = (uintptr_t)&keys,
                .mr_handle = mr->handle,
                .flags = (uint32_t)flags,
                .start = (uintptr_t)addr,
                .length = length,
                .hca_va = (uintptr_t)addr,
                .pd_handle = pd ? pd->handle : 0,
                .access_flags = (uint32_t)access},
    };
    ssize_t done = file->ops->write(file, &cmd, sizeof(cmd));

    if (done < 0)
        return (int)-done;
    mr->lkey = keys.lkey;
    mr->rkey = keys.rkey;
    if (flags & IBV_REREG_MR_CHANGE_PD)
        mr->pd = pd;
    if (flags & IBV_REREG_MR_CHANGE_TRANSLATION) {
        mr->addr = addr;
        mr->length = length;
    }
    return 0;
}

EXPORT int ibv_rereg_mr(struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *addr, size_t length,
                        int access)
{
    int (*real)(struct ibv_mr *, int, struct ibv_pd *, void *, size_t, int);
    int result = IBV_REREG_MR_ERR_CMD;

    errno = EOPNOTSUPP;
    *(void **)&real =
        real_symbol("ibv_rereg_mr", (void *)ibv_rereg_mr, __builtin_return_address(0));
    if (real)
        result = real(mr, flags, pd, addr, length, access);
    /* ENOSYS is what versions before 18 say */
    if (result == 0 || (errno != EOPNOTSUPP && errno != ENOSYS))
        return result;
    struct uapi_file *file = fdtab_get(mr->context->cmd_fd);
    if (!file)
        return result;
    int error = rereg_command(file, mr, flags, pd, addr, length, access);
    if (!error)
        return 0;
    errno = error;
    return IBV_REREG_MR_ERR_CMD;
}
