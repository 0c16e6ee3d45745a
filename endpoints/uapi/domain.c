/* SPDX-License-Identifier: MIT */
/* Thread domains and parent domains (domain.h). */
#include "uapi/domain.h"

#include <errno.h>
#include <stdlib.h>

#include "core/objects.h"
#include "uapi/fastpath.h"
#include "uapi/uapi.h"

struct thread_domain {
    struct ibv_td ibv;
    struct td core;
};

/* core_lock() held. NULL: not one of ours, or closed. */
static struct context *context_of(const struct ibv_context *ibv)
{
    struct uapi_file *file = ibv->cmd_fd >= 0 ? fdtab_get(ibv->cmd_fd) : NULL;

    return file ? uverbs_file_context(file) : NULL;
}

struct ibv_td *domain_alloc_td(struct ibv_context *ibv, struct ibv_td_init_attr *attr)
{
    struct thread_domain *td = attr->comp_mask ? NULL : calloc(1, sizeof(*td));

    if (!td) {
        errno = attr->comp_mask ? EOPNOTSUPP : ENOMEM;
        return NULL;
    }
    td->ibv.context = ibv;
    return &td->ibv;
}

int domain_dealloc_td(struct ibv_td *ibv)
{
    struct thread_domain *td = (struct thread_domain *)ibv;

    core_lock();
    unsigned users = td->core.users;
    core_unlock();
    if (users)
        return EBUSY;
    free(td);
    return 0;
}

/* 0 and the new domain's handle. */
static int make_parent(struct ibv_context *ibv, const struct ibv_parent_domain_init_attr *attr,
                       uint32_t *handle_out)
{
    struct thread_domain *td = (struct thread_domain *)attr->td;
    struct pd *parent;
    int error = -EINVAL;

    core_lock();
    struct context *context = context_of(ibv);
    struct pd *pd = context ? pd_get(attr->pd->handle) : NULL;
    if (pd && pd->context == context)
        error = pd_alloc_parent(pd, td ? &td->core : NULL, &parent);
    if (!error)
        *handle_out = parent->handle;
    core_unlock();
    return error;
}

/* Memory of the program's own making is for providers that keep queues in it: there is no use. */
struct ibv_pd *domain_alloc_parent(struct ibv_context *ibv,
                                   struct ibv_parent_domain_init_attr *attr)
{
    uint32_t known =
        IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;
    struct ibv_pd *pd = calloc(1, sizeof(*pd));
    int error = !pd                        ? -ENOMEM
                : attr->comp_mask & ~known ? -EOPNOTSUPP
                : !attr->pd                ? -EINVAL
                                           : make_parent(ibv, attr, &pd->handle);

    if (error) {
        free(pd);
        errno = -error;
        return NULL;
    }
    pd->context = ibv;
    return pd;
}
