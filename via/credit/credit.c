/* SPDX-License-Identifier: MIT */
/* A connection's beginning: two ends that know nothing of each other meet. */
#include "credit.h"

#include <string.h>

int credit_init(struct credit *c, unsigned reserve)
{
    if (reserve < 1 || reserve > CREDIT_RESERVE_MAX) {
        return -EINVAL;
    }
    memset(c, 0, sizeof(*c));
    c->missing = reserve;
    return 0;
}

int credit_hello(struct credit *c, uint32_t *word_out)
{
    if (c->missing > 0) {
        return -EBUSY;
    }
    *word_out = credit_word(c, CREDIT_UPDATE);
    c->count[CREDIT_DATA].announced = c->count[CREDIT_DATA].granted;
    c->count[CREDIT_UPDATE].announced = c->count[CREDIT_UPDATE].granted;
    return 0;
}

int credit_meet(struct credit *c, uint32_t hello)
{
    uint32_t data = hello & 65535, update = hello >> 16 & 255;

    if (hello >> 24 != 128 || data > CREDIT_MAX || update < 1 || update > CREDIT_RESERVE_MAX) {
        return -EPROTO;
    }
    c->count[CREDIT_DATA].limit = data;
    c->count[CREDIT_UPDATE].limit = update;
    return 0;
}
