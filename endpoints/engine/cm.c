/* SPDX-License-Identifier: MIT */
/* Conversations: where they are kept, how they are found, and when they are due. */
#include "engine/cm_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Steele and Vigna's mixing step: good enough to make ids that a stale message does not hit. */
static uint64_t random_next(struct cm *cm)
{
    uint64_t z = cm->random += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

struct cm *cm_new(const struct cm_owner *calls, void *owner, uint64_t seed)
{
    struct cm *cm = calloc(1, sizeof(*cm));

    if (!cm)
        return NULL;
    cm->calls = calls;
    cm->owner = owner;
    cm->random = seed;
    cm->high = 1; /* id 0 means none */
    return cm;
}

void cm_free(struct cm *cm)
{
    for (uint32_t i = 1; i < cm->high; i++)
        free(cm->conns[i]);
    free(cm->conns);
    free(cm->lives);
    free(cm->freed);
    free(cm->heap);
    free(cm);
}

void cm_get_stats(const struct cm *cm, struct cm_stats *stats_out)
{
    *stats_out = cm->stats;
}

/* ---- by index ---- */

/* `array` is the address of a pointer to the elements, whatever their type. */
static bool resize(void *array, size_t count, size_t element)
{
    void *before;

    memcpy(&before, array, sizeof(before));
    void *more = realloc(before, count * element);
    if (more)
        memcpy(array, &more, sizeof(more));
    return more;
}

/* Room for one more conversation everywhere, so that nothing fails later. */
static bool grow(struct cm *cm)
{
    uint32_t size = cm->size ? cm->size * 2 : 64;

    if (size > CM_CONNS_MAX || !resize(&cm->conns, size, sizeof(*cm->conns)) ||
        !resize(&cm->lives, size, sizeof(*cm->lives)) ||
        !resize(&cm->freed, size, sizeof(*cm->freed)) ||
        !resize(&cm->heap, size + 1u, sizeof(struct cm_conn *)))
        return false;
    for (uint32_t i = cm->size; i < size; i++) {
        cm->conns[i] = NULL;
        cm->lives[i] = (uint32_t)random_next(cm);
    }
    cm->size = size;
    return true;
}

static uint32_t take_index(struct cm *cm)
{
    if (cm->freed_count)
        return cm->freed[--cm->freed_count];
    if (cm->high >= cm->size && !grow(cm))
        return 0;
    return cm->high++;
}

void cm_set_mark(struct cm *cm, uint32_t mark)
{
    cm->mark = mark;
}

static uint32_t make_id(struct cm *cm, uint32_t index)
{
    uint32_t life = ++cm->lives[index] << CM_INDEX_BITS & ~(UINT32_MAX << (32 - CM_MARK_BITS));

    return index | life | cm->mark << (32 - CM_MARK_BITS);
}

struct cm_conn *cm_conn_new(struct cm *cm, const struct cm_route *route, void *user)
{
    uint32_t index = take_index(cm);
    struct cm_conn *conn = index ? calloc(1, sizeof(*conn)) : NULL;

    if (!conn) {
        if (index)
            cm->freed[cm->freed_count++] = index;
        return NULL;
    }
    conn->cm = cm;
    conn->user = user;
    conn->route = *route;
    conn->local_id = make_id(cm, index);
    conn->deadline_ns = CM_NEVER;
    cm->conns[index] = conn;
    cm->count++;
    return conn;
}

struct cm_conn *cm_by_local(struct cm *cm, uint32_t local_id, uint64_t via)
{
    uint32_t index = local_id & (CM_CONNS_MAX - 1);
    struct cm_conn *conn = index && index < cm->high ? cm->conns[index] : NULL;

    return conn && conn->local_id == local_id && conn->route.via == via ? conn : NULL;
}

/* ---- by the peer's id ---- */

static struct cm_conn **bucket(struct cm *cm, uint32_t remote_id, uint64_t guid, uint64_t via)
{
    uint64_t mix = (remote_id ^ guid ^ via * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;

    return &cm->buckets[mix >> 52];
}

struct cm_conn *cm_by_remote(struct cm *cm, uint32_t remote_id, uint64_t guid, uint64_t via)
{
    struct cm_conn *conn = *bucket(cm, remote_id, guid, via);

    while (conn &&
           (conn->remote_id != remote_id || conn->remote_guid != guid || conn->route.via != via))
        conn = conn->next;
    return conn;
}

void cm_set_remote(struct cm_conn *conn, uint32_t remote_id, uint64_t guid)
{
    struct cm_conn **first = bucket(conn->cm, remote_id, guid, conn->route.via);

    assert(!conn->hashed);
    conn->remote_id = remote_id;
    conn->remote_guid = guid;
    conn->next = *first;
    conn->hashed = true;
    *first = conn;
}

void cm_unhash(struct cm_conn *conn)
{
    struct cm_conn **at = bucket(conn->cm, conn->remote_id, conn->remote_guid, conn->route.via);

    if (!conn->hashed)
        return;
    while (*at != conn)
        at = &(*at)->next;
    *at = conn->next;
    conn->hashed = false;
}

/* ---- by deadline ---- */

static void heap_set(struct cm *cm, size_t at, struct cm_conn *conn)
{
    cm->heap[at] = conn;
    conn->heap_at = at;
}

static void heap_up(struct cm *cm, size_t at)
{
    struct cm_conn *conn = cm->heap[at];

    for (; at > 1 && cm->heap[at / 2]->deadline_ns > conn->deadline_ns; at /= 2)
        heap_set(cm, at, cm->heap[at / 2]);
    heap_set(cm, at, conn);
}

static void heap_down(struct cm *cm, size_t at)
{
    struct cm_conn *conn = cm->heap[at];

    for (size_t child = at * 2; child <= cm->heap_count; child = at * 2) {
        if (child < cm->heap_count &&
            cm->heap[child + 1]->deadline_ns < cm->heap[child]->deadline_ns)
            child++;
        if (cm->heap[child]->deadline_ns >= conn->deadline_ns)
            break;
        heap_set(cm, at, cm->heap[child]);
        at = child;
    }
    heap_set(cm, at, conn);
}

static void heap_remove(struct cm_conn *conn)
{
    struct cm *cm = conn->cm;
    size_t at = conn->heap_at;
    struct cm_conn *last = cm->heap[cm->heap_count--];

    conn->heap_at = 0;
    if (last == conn)
        return;
    heap_set(cm, at, last);
    heap_up(cm, at);
    heap_down(cm, last->heap_at);
}

void cm_arm(struct cm_conn *conn, uint64_t deadline_ns)
{
    struct cm *cm = conn->cm;

    if (conn->heap_at)
        heap_remove(conn);
    conn->deadline_ns = deadline_ns;
    if (deadline_ns == CM_NEVER)
        return;
    assert(cm->heap_count < cm->size);
    heap_set(cm, ++cm->heap_count, conn);
    heap_up(cm, cm->heap_count);
}

uint64_t cm_deadline(const struct cm *cm)
{
    return cm->heap_count ? cm->heap[1]->deadline_ns : CM_NEVER;
}

/* ---- ends ---- */

void cm_forget(struct cm_conn *conn)
{
    struct cm *cm = conn->cm;
    uint32_t index = conn->local_id & (CM_CONNS_MAX - 1);

    cm_arm(conn, CM_NEVER);
    cm_unhash(conn);
    cm->conns[index] = NULL;
    cm->freed[cm->freed_count++] = index;
    cm->count--;
    free(conn);
}

/* ---- what is known ---- */

void *cm_user(const struct cm_conn *conn)
{
    return conn->user;
}

void cm_set_user(struct cm_conn *conn, void *user)
{
    conn->user = user;
}

enum cm_state cm_state_of(const struct cm_conn *conn)
{
    return conn->state;
}

const struct cm_route *cm_route_of(const struct cm_conn *conn)
{
    return &conn->route;
}
