/* SPDX-License-Identifier: MIT */
/* The stock rxe provider of libibverbs, without which via0 does not appear. */
#ifndef VIADUCT_PROVIDER_H
#define VIADUCT_PROVIDER_H

#include <stdbool.h>
#include <stddef.h>

enum provider_state {
    PROVIDER_OK,
    PROVIDER_NO_LIBRARY, /* librxe-rdmavNN.so is not beside libibverbs */
    PROVIDER_NO_CONFIG,  /* no file in /etc/libibverbs.d names it */
};

/* path_out: the library that was found, or the pattern that was looked for. */
enum provider_state provider_find(char *path_out, size_t size);

/* One sentence why via0 is not in the list of devices. Returns text. */
const char *provider_why_no_via(char *text, size_t size);

/* Whether the real /dev/infiniband is there: what this process sees may be our own. */
bool provider_kernel_has_rdma(void);

#endif
