/* SPDX-License-Identifier: MIT */
/* Memory windows as the send queue and the responder change them. Data path. */
#ifndef VIADUCT_CORE_MR_BIND_H
#define VIADUCT_CORE_MR_BIND_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

/* IBV_WC_SUCCESS, or IBV_WC_MW_BIND_ERR with the window as it was (IBTA 10.6.7.2). */
enum ibv_wc_status mw_bind(uint32_t qpn, uint32_t pd, uint32_t handle, uint32_t new_key,
                           uint32_t mr_handle, const struct ibv_mw_bind_info *info);
/* False: not a bound type 2 window of this queue pair and domain. */
bool mw_invalidate(uint32_t qpn, uint32_t pd, uint32_t rkey);

#endif
