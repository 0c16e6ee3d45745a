/* SPDX-License-Identifier: MIT */
/*
 * Thread domains and parent domains, which no command makes: slots of verbs_context. A parent
 * domain is a protection domain's second handle; the provider deallocates it as it does any.
 */
#ifndef VIADUCT_UAPI_DOMAIN_H
#define VIADUCT_UAPI_DOMAIN_H

#include <infiniband/verbs.h>

struct ibv_td *domain_alloc_td(struct ibv_context *ibv, struct ibv_td_init_attr *attr);
int domain_dealloc_td(struct ibv_td *td);
struct ibv_pd *domain_alloc_parent(struct ibv_context *ibv,
                                   struct ibv_parent_domain_init_attr *attr);

#endif
