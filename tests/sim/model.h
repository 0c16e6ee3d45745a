/* SPDX-License-Identifier: MIT */
/*
 * Random work in both directions against a reference: what each request must do is computed when it
 * is posted, and compared when it completes, arrives, or is over.
 */
#ifndef MODEL_H
#define MODEL_H

#include "sim.h"

/* Let both nodes post `count` random requests each; NULL if all went as the reference says. */
const char *model_run(struct sim *sim, unsigned count, uint64_t limit_ns);

#endif
