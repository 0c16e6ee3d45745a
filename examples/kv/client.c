/* SPDX-License-Identifier: MIT */
/* The client: puts are messages and answers, gets are RDMA reads. */
#include "kv.h"

#define KEYS 1000
#define CLOCK_READS 20000

static unsigned long reads, torn;

static void post_send(struct rc *rc, struct ibv_mr *mr)
{
    struct kv_memory *memory = mr->addr;
    struct ibv_sge piece = {
        .addr = (uintptr_t)&memory->put, .length = sizeof(memory->put), .lkey = mr->lkey};
    struct ibv_send_wr wr = {
        .sg_list = &piece, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad;

    errno = ibv_post_send(rc->qp, &wr, &bad);
    rc_need(errno == 0, "ibv_post_send");
}

static void put(struct rc *rc, int peer, struct ibv_mr *mr, const char *key, const char *value)
{
    struct kv_memory *memory = mr->addr;
    struct ibv_sge place = {
        .addr = (uintptr_t)&memory->answer, .length = sizeof(memory->answer), .lkey = mr->lkey};
    struct ibv_recv_wr wr = {.sg_list = &place, .num_sge = 1}, *bad;

    snprintf(memory->put.key, KV_KEY, "%s", key);
    snprintf(memory->put.value, KV_VALUE, "%s", value);
    errno = ibv_post_recv(rc->qp, &wr, &bad);
    rc_need(errno == 0, "ibv_post_recv");
    post_send(rc, mr);
    rc_wait(rc, peer);
    rc_wait(rc, peer);
    rc_need(memory->answer.stored, "storing a key");
}

/* One bucket, as it was while nobody changed it. */
static const struct kv_bucket *read_bucket(struct rc *rc, int peer, struct ibv_mr *mr,
                                           const struct rc_memory *server, unsigned index)
{
    struct kv_memory *memory = mr->addr;
    struct ibv_sge place = {
        .addr = (uintptr_t)&memory->copy, .length = sizeof(memory->copy), .lkey = mr->lkey};
    struct ibv_send_wr wr = {.sg_list = &place,
                             .num_sge = 1,
                             .opcode = IBV_WR_RDMA_READ,
                             .send_flags = IBV_SEND_SIGNALED,
                             .wr.rdma = {.remote_addr = server->addr +
                                                        offsetof(struct kv_memory, table) +
                                                        index * sizeof(struct kv_bucket),
                                         .rkey = server->rkey}};
    struct ibv_send_wr *bad;

    for (;; torn++) {
        errno = ibv_post_send(rc->qp, &wr, &bad);
        rc_need(errno == 0, "ibv_post_send");
        rc_wait(rc, peer);
        reads++;
        if (memory->copy.version == 0 || memory->copy.check == kv_check(&memory->copy))
            return &memory->copy;
    }
}

/* The value, or NULL. It stays good until the next get. */
static const char *get(struct rc *rc, int peer, struct ibv_mr *mr, const struct rc_memory *server,
                       const char *key)
{
    unsigned first = kv_first_bucket(key);

    for (unsigned i = 0; i < KV_PROBES; i++) {
        const struct kv_bucket *bucket =
            read_bucket(rc, peer, mr, server, (first + i) % KV_BUCKETS);

        if (bucket->version == 0)
            return NULL;
        if (strncmp(bucket->key, key, KV_KEY) == 0)
            return bucket->value;
    }
    return NULL;
}

/* The clock's value says its tick twice: both must agree, and it never goes back. */
static void race(struct rc *rc, int peer, struct ibv_mr *mr, const struct rc_memory *server)
{
    unsigned long last = 0, before = torn, one, two;

    for (unsigned i = 0; i < CLOCK_READS; i++) {
        const char *value = get(rc, peer, mr, server, KV_CLOCK_KEY);

        errno = EBADMSG;
        rc_need(value != NULL && sscanf(value, "%lu %lu", &one, &two) == 2 && one == two &&
                    one >= last,
                "reading the clock");
        last = one;
    }
    printf("client: read the clock %u times while it ticked to %lu; %lu reads were torn, seen by "
           "their check, and read again\n",
           CLOCK_READS, last, torn - before);
}

void kv_use(struct rc *rc, int peer, struct ibv_mr *mr, const struct rc_memory *server)
{
    struct kv_memory *memory = mr->addr;
    char key[KV_KEY], value[KV_VALUE];

    rc_meet(peer);
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(key, sizeof(key), "key %u", i);
        snprintf(value, sizeof(value), "the value of key %u", i);
        put(rc, peer, mr, key, value);
    }
    for (unsigned i = 0; i < KEYS; i++) {
        snprintf(key, sizeof(key), "key %u", i);
        snprintf(value, sizeof(value), "the value of key %u", i);
        const char *got = get(rc, peer, mr, server, key);
        errno = EBADMSG;
        rc_need(got != NULL && strcmp(got, value) == 0, "getting what was put");
    }
    rc_need(get(rc, peer, mr, server, "no such key") == NULL, "finding nothing");
    printf("client: put %u keys, got all of them back with %lu reads\n", KEYS, reads);
    race(rc, peer, mr, server);
    memory->put.key[0] = '\0';
    post_send(rc, mr);
    rc_wait(rc, peer);
}
