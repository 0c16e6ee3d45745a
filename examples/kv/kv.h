/* SPDX-License-Identifier: MIT */
/*
 * kv - a tiny key-value store whose gets never bother the server
 *
 * What you learn: with RDMA read a client can walk a data structure of the server's by itself,
 * if it knows the layout, and if it can tell a good copy from one that was being changed while
 * it was read. Here a bucket carries a checksum over all the rest: whoever reads a bucket that
 * does not match reads again. Puts are messages, because they change things.
 *
 *     +-------------------- server's table: KV_BUCKETS buckets ---------------------+
 *     | bucket | bucket | { version, key, value, check } | bucket | ...             |
 *     +-----------------------------------------------------------------------------+
 *           ^ client: hash(key) says where; RDMA read; compare check and key
 *
 *     examples/run kv [server | client HOST]
 *
 * Files: kv.h the layout, table.c the table, server.c puts, client.c gets, main.c the rest.
 */
#ifndef KV_H
#define KV_H

#include "../rc.h"

#define KV_BUCKETS 4096u
#define KV_PROBES 16u /* a key lies in one of so many buckets from its own on */
#define KV_KEY 24
#define KV_VALUE 64

struct kv_bucket {
    uint64_t version; /* counts the changes; 0: the bucket was never used */
    char key[KV_KEY];
    char value[KV_VALUE];
    uint64_t check; /* over all the above */
};

/* A message from the client, and the server's answer. An empty key ends the session. */
struct kv_put {
    char key[KV_KEY];
    char value[KV_VALUE];
};

struct kv_answer {
    uint32_t stored; /* 0: the table is full here */
};

/* One piece of registered memory at each side. */
struct kv_memory {
    struct kv_put put;
    struct kv_answer answer;
    struct kv_bucket copy;              /* client: what a read brings */
    struct kv_bucket table[KV_BUCKETS]; /* server */
};

/* A key that the server changes all the time, for gets to race with. */
#define KV_CLOCK_KEY "clock"

/* table.c */
unsigned kv_first_bucket(const char *key);
uint64_t kv_check(const struct kv_bucket *bucket);
bool kv_store(struct kv_bucket *table, const char *key, const char *value);

/* server.c and client.c */
void kv_serve(struct rc *rc, int peer, struct ibv_mr *mr);
void kv_use(struct rc *rc, int peer, struct ibv_mr *mr, const struct rc_memory *server);

#endif
