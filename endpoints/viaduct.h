/* SPDX-License-Identifier: MIT */
/* Viaduct's only public header: what a program may ask the library itself. */
#ifndef VIADUCT_H
#define VIADUCT_H

#ifdef __cplusplus
extern "C" {
#endif

const char *viaduct_version(void);

#ifdef __cplusplus
}
#endif

#endif
