/* SPDX-License-Identifier: MIT */
/* The library's version, as the build knows it. */
#include "viaduct.h"

__attribute__((visibility("default"))) const char *viaduct_version(void)
{
    return VIADUCT_VERSION;
}
