/* SPDX-License-Identifier: MIT */
/* The table: open addressing, and a checksum that tells a whole bucket from a torn one. */
#include "kv.h"

/* FNV-1a: short, and good enough for both uses. */
static uint64_t hash(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    uint64_t h = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        h = (h ^ bytes[i]) * UINT64_C(0x100000001b3);
    return h;
}

unsigned kv_first_bucket(const char *key)
{
    return (unsigned)(hash(key, strlen(key)) % KV_BUCKETS);
}

uint64_t kv_check(const struct kv_bucket *bucket)
{
    return hash(bucket, offsetof(struct kv_bucket, check));
}

/* The bucket of this key, or the free one where it belongs; NULL if all its places are taken. */
static struct kv_bucket *find(struct kv_bucket *table, const char *key)
{
    unsigned first = kv_first_bucket(key);

    for (unsigned i = 0; i < KV_PROBES; i++) {
        struct kv_bucket *bucket = &table[(first + i) % KV_BUCKETS];

        if (bucket->version == 0 || strncmp(bucket->key, key, KV_KEY) == 0)
            return bucket;
    }
    return NULL;
}

bool kv_store(struct kv_bucket *table, const char *key, const char *value)
{
    struct kv_bucket *bucket = find(table, key);

    if (bucket == NULL)
        return false;
    /* A reader may come between any two of these lines; the check is what it goes by. */
    bucket->version++;
    snprintf(bucket->key, KV_KEY, "%s", key);
    snprintf(bucket->value, KV_VALUE, "%s", value);
    bucket->check = kv_check(bucket);
    return true;
}
