/* SPDX-License-Identifier: MIT */
/* How long a tick is. */
#include "clock.h"

double clock_ns_per_tick(void)
{
    static double ns_per_tick;
    uint64_t ns, ticks, now;

    if (ns_per_tick > 0)
        return ns_per_tick;
    ns = clock_ns();
    ticks = clock_ticks();
    do {
        now = clock_ns();
    } while (now - ns < 20000000);
    ns_per_tick = (double)(now - ns) / (double)(clock_ticks() - ticks);
    return ns_per_tick;
}
