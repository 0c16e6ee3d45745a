/* SPDX-License-Identifier: MIT */
/* VIADUCT_FAULTS: what is to go wrong on the wire, on purpose. For config.c. */
#ifndef VIADUCT_CORE_CONFIG_FAULTS_H
#define VIADUCT_CORE_CONFIG_FAULTS_H

#include <stddef.h>

#include "core/config.h"

/* "loss=1%,delay=50us": 0, or -EINVAL with one line in err that names what is wrong. */
int config_parse_faults(const char *text, struct config_faults *out, char *err, size_t err_size);

#endif
