/* SPDX-License-Identifier: MIT */
/*
 * VIPL's inside: the objects behind the handles, and who may write what. docs/architecture.md has
 * the picture. Locks, outer to inner: vi->lock, post locks, a cq's lock, vi->break_lock; apart
 * from them nic->lock (connections and lists), under which a vi's break_lock may be taken.
 */
#ifndef VIA_VIPL_VIP_H
#define VIA_VIPL_VIP_H

#include <errno.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#pragma GCC visibility push(default)
#include "vipl.h"
#pragma GCC visibility pop

enum {
    LIMIT_VI = 1024,
    LIMIT_CQ = 1024,
    LIMIT_PTAGS = 256,
    LIMIT_REGIONS = 8192,
    LIMIT_CQ_ENTRIES = 65536,
    LIMIT_DESCRIPTORS = 256, /* a power of two */
    LIMIT_SEGMENTS = 16,
    LIMIT_INLINE = 64,
    LIMIT_RDMA_READS = 16,
    DISCRIMINATOR_MAX = 16,
    ADDRESS_MAX = 16,
    CACHE_LINE = 64,
};
#define LIMIT_TRANSFER 0x7fffffffu
#define LIMIT_BYTES (1ull << 47) /* what a process can have */

/* On the way of every message: no call is worth it. */
#define HOT static inline __attribute__((always_inline))
/* And what is seldom done stays out of its way. */
#define COLD __attribute__((noinline))
/* Not seldom, but a call is worth less than the registers it would cost its caller. */
#define APART __attribute__((noinline))

static inline bool likely(bool x)
{
    return __builtin_expect(x, 1);
}

static inline bool unlikely(bool x)
{
    return __builtin_expect(x, 0);
}

/* ---- locks for moments (spin.c has the slow ways) ---- */

struct spin {
    _Atomic uint32_t taken;
};

void spin_wait(struct spin *spin);

static inline void spin_lock(struct spin *spin)
{
    if (unlikely(atomic_exchange_explicit(&spin->taken, 1, memory_order_acquire)))
        spin_wait(spin);
}

static inline void spin_unlock(struct spin *spin)
{
    atomic_store_explicit(&spin->taken, 0, memory_order_release);
}

/*
 * A lock that belongs to the first thread that takes it, which then needs no atomic operation: it
 * says that it is in, and looks whether the lock is still its own. Who else wants it takes it away
 * for good: from then on it is an ordinary lock. Taking it away, it makes every thread of the
 * process pass a barrier (membarrier), so that the owner either sees that, or is seen.
 */
struct lock {
    const void *_Atomic owner; /* NULL: nobody yet; LOCK_SHARED; else a thread's own address */
    _Atomic uint32_t inside;   /* the owner is, or looks whether it may be */
    bool held_shared;          /* by who holds the lock */
    struct spin spin;          /* of all, when it is shared */
};

#define LOCK_SHARED ((const void *)1)

extern __thread char lock_self __attribute__((tls_model("initial-exec")));

/* Once, before the first lock: locks are shared from the beginning where barriers can't be made. */
void lock_prepare(void);
void lock_slowly(struct lock *lock);

static inline void lock_take(struct lock *lock)
{
    if (likely(atomic_load_explicit(&lock->owner, memory_order_relaxed) == &lock_self)) {
        atomic_store_explicit(&lock->inside, 1, memory_order_relaxed);
        atomic_signal_fence(memory_order_seq_cst);
        if (likely(atomic_load_explicit(&lock->owner, memory_order_acquire) == &lock_self))
            return;
        atomic_store_explicit(&lock->inside, 0, memory_order_release);
    }
    lock_slowly(lock);
}

static inline void lock_give(struct lock *lock)
{
    if (unlikely(lock->held_shared)) {
        lock->held_shared = false;
        spin_unlock(&lock->spin);
    } else {
        atomic_store_explicit(&lock->inside, 0, memory_order_release);
    }
}

/* ---- handles (pool.c) ---- */

enum kind { KIND_FREE, KIND_NIC, KIND_PTAG, KIND_CQ, KIND_VI, KIND_CONN };

/* First in every object that has a handle. */
struct head {
    _Atomic uint32_t kind;
    struct vip_nic *nic;
    struct head *next; /* in the list of its kind, or of free slots */
};

enum { SLOT_BYTES = 2048 };

struct pool {
    uintptr_t base;
    size_t size; /* 0: there is none yet */
};
extern struct pool pool;

/* Zeroed but for its head; NULL: none is left. */
void *pool_take(enum kind kind, struct vip_nic *nic);
void pool_give(void *object);

/* The object behind a handle, NULL if it isn't one of this kind. */
static inline void *handle_of(const void *handle, enum kind kind)
{
    uintptr_t at = (uintptr_t)handle - pool.base;
    struct head *head = (struct head *)(uintptr_t)handle;

    if (unlikely(at >= pool.size || at % SLOT_BYTES))
        return NULL;
    if (unlikely(atomic_load_explicit(&head->kind, memory_order_relaxed) != (uint32_t)kind))
        return NULL;
    return head;
}

/* ---- memory (memory.c) ---- */

struct ptag {
    struct head head;
    struct ibv_pd *pd;
    struct ibv_mr *confirm; /* nic->confirm_words in this domain; NULL: not needed yet */
    unsigned users;         /* nic->lock */
};

struct region {
    VIP_MEM_HANDLE handle;
    uint32_t lkey;
    uint64_t base, length;
    struct ptag *ptag;
    struct ibv_mr *mr;
    bool write, read;
    struct region *next; /* free ones */
};

/* Written with nic->lock held, between two increments of nic->table_turn; read without. */
struct table {
    uint32_t shift, mask;
    struct table *older;
    _Atomic(struct region *) slot[];
};

/* ---- completion queues and work queues (queue.c, cq.c) ---- */

/* A Notify registration. */
struct notice {
    struct notice *next;
    VIP_PVOID context;
    VIP_CQ_CALLBACK cq_handler;
    VIP_VI_CALLBACK vi_handler;
};

/* So many completions in a row that were there when looked for make a streak. */
enum { STREAK = 4 };

struct cq {
    struct head head; /* a handle, or inside a work queue */
    struct lock lock; /* of everything below, and of its queues' done and taken */
    struct ibv_cq *verbs;
    struct queue *only; /* of this queue; NULL: VipCreateCQ's */
    uint32_t entries, mask;
    uint32_t put, got;      /* entries told of, entries taken */
    uint32_t streak;        /* of completions; only in a CQ that a work queue has for its own */
    struct queue **waiting; /* ring: whose descriptor is complete */
    _Atomic bool armed;
    unsigned users;         /* nic->lock */
    struct notice *notices; /* nic->callback.lock */
    unsigned notice_count;
    struct cq *next_noticed;
};

/* What is posted. Flags: bits of the status to come, and: */
enum { ENTRY_SOFT = 0x1 }; /* fails in its turn, with the error bits in flags; not at the device */

struct entry {
    VIP_DESCRIPTOR *descriptor; /* NULL: its memory is gone, it is never handed out */
    VIP_MEM_HANDLE handle;
    _Atomic uint32_t flags;
    uint32_t length;
    uint32_t removals; /* nic->removals when it was posted */
};

struct queue {
    struct lock post_lock;
    bool receives;
    bool stopped; /* post_lock: a failure is on its way, nothing posted later may begin */
    uint32_t mask;
    struct vi *vi;
    struct cq *cq;
    struct entry *ring;
    _Atomic uint32_t posted; /* post_lock */
    _Atomic uint32_t taken;  /* cq->lock, like done */
    _Alignas(CACHE_LINE) uint32_t done;
    struct cq own;
    /* post_lock: requests of one piece, made ready. */
    struct ibv_sge piece;
    union {
        struct ibv_send_wr send;
        struct ibv_recv_wr recv;
    } plain;
};

/* ---- VIs (vi.c) ---- */

struct vi {
    struct head head;
    _Atomic uint32_t state; /* VIP_VI_STATE; break_lock */
    bool reliable, confirms;
    uint32_t max_transfer, max_inline;
    uint32_t max_plain; /* the longest send that is one request and no more */
    struct ibv_qp *qp;
    struct ptag *ptag;
    /* What a confirming VI reads at the other end. */
    uint64_t confirm_address;
    uint32_t confirm_rkey;
    bool may_read;       /* the other side has EnableRdmaRead */
    _Atomic bool left;   /* the other side has ended the connection */
    uint8_t report_what; /* VIP_ERROR_CODE for the other side + 1; break_lock */
    _Atomic bool broken; /* the cm thread has not dealt with it yet */
    struct spin break_lock;
    pthread_mutex_t lock; /* calls that change the VI */
    VIP_VI_ATTRIBUTES attributes;
    struct conn *conn; /* nic->lock */
    VIP_PVOID user_data;
    struct queue send, recv;
};

_Static_assert(sizeof(struct vi) <= SLOT_BYTES, "a VI must fit into a slot");

/* ---- connections (cm.c) ---- */

struct address {
    uint16_t host_len, name_len;
    uint8_t host[ADDRESS_MAX];
    uint8_t name[DISCRIMINATOR_MAX]; /* the discriminator */
};

enum message_type { MESSAGE_CLIENT, MESSAGE_PEER, MESSAGE_REPORT, MESSAGE_ANSWER, MESSAGE_REFUSAL };

/* What travels in private data. */
struct message {
    enum message_type type;
    VIP_RELIABILITY_LEVEL level;
    bool write, read;
    uint8_t reads; /* RDMA reads that it answers at a time */
    uint8_t code;  /* refusal: VIP_RETURN; report: VIP_ERROR_CODE */
    uint16_t report_port;
    uint32_t max_transfer; /* report: the queue pair's number */
    uint64_t confirm_address;
    uint32_t confirm_rkey;
    struct address from, to; /* discriminators only */
};

enum conn_role { ROLE_CLIENT, ROLE_SERVER, ROLE_PEER, ROLE_REPORT };

/* Everything under nic->lock; events of rdma_cm are the cm thread's. */
struct conn {
    struct head head;
    enum conn_role role;
    struct rdma_cm_id *id;
    struct vi *vi;
    bool over, taken; /* over: result is there; taken: the program has it */
    bool handed_out;  /* ROLE_SERVER: ConnHandle, or VipConnectAccept is at work */
    VIP_RETURN result;
    struct address local, remote;
    struct message theirs, mine;
    uint32_t their_qpn;
    int probe;   /* how many ports were tried */
    int listens; /* ROLE_PEER: at which of the ports of its address */
    int stale; /* how often the request came too early */
    uint32_t my_qpn;
    bool answered, mismatch; /* ROLE_PEER: the other one asked; somebody there wants another */
    unsigned pause_ms;
    int64_t deadline, again;
    int64_t leave_at; /* the other side has ended it, and we follow then; 0: no */
};

struct listener {
    struct rdma_cm_id *id;
    struct address at;
    uint16_t port;
    struct listener *next;
};

/* A thread in VipConnectWait. */
struct waiter {
    const struct address *at;
    struct conn *conn;
    struct waiter *next;
};

/* ---- NICs (nic.c) ---- */

struct event {
    VIP_ERROR_DESCRIPTOR what;
    struct event *next;
};

struct vip_nic {
    struct head head;
    struct ibv_context *verbs;
    struct ibv_comp_channel *channel;
    VIP_NIC_ATTRIBUTES attributes;
    struct address address;
    uint8_t port;
    uint32_t max_reads; /* RDMA reads outstanding */
    _Atomic bool closing;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a conn is over, a waiter has one */
    struct head *ptags, *cqs, *vis, *conns;
    unsigned ptag_count, cq_count, vi_count, region_count;
    uint64_t registered_bytes;

    _Atomic(struct table *) table;
    _Atomic uint32_t table_turn, removals;
    struct region *free_regions, **region_blocks;
    unsigned region_block_count;
    uint64_t *confirm_words; /* a page: the first is what peers read, the second where we put it */

    pthread_t cm_thread;
    struct rdma_event_channel *cm;
    int cm_wake;
    struct listener *listeners;
    struct waiter *waiters;
    struct rdma_cm_id *report_id;
    uint16_t report_port;

    struct {
        pthread_mutex_t lock;
        pthread_cond_t changed;
        pthread_t thread;
        struct spin events_lock; /* first, last; inside a cq's lock */
        struct event *first, **last;
        VIP_ERROR_HANDLER handler;
        VIP_PVOID context;
        struct cq *noticed; /* those with registrations */
        struct cq *running; /* whose handler is running */
        bool stop;
    } callback;

    struct {
        pthread_mutex_t lock;
        pthread_cond_t changed;
        bool reading; /* somebody reads the channel, for all */
        int wake;
        _Atomic uint32_t turn; /* something may be complete */
    } wait;

    struct {
        pthread_mutex_t lock;
        bool on;
        char *file;
        VIP_NET_ADDRESS **known;
        unsigned known_count;
    } names;
};

_Static_assert(sizeof(struct vip_nic) <= SLOT_BYTES, "a NIC must fit into a slot");
_Static_assert(sizeof(struct conn) <= SLOT_BYTES, "a connection must fit into a slot");

/* ---- spin.c, pool.c, nic.c ---- */

int64_t clock_ns(void);
int64_t deadline_of(VIP_ULONG timeout);
/* Milliseconds for poll(). */
int remaining_ms(int64_t deadline);
/* Waits until the deadline at most; false: it has passed. */
bool cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, int64_t deadline);
void cond_init(pthread_cond_t *cond);
int set_nonblocking(int fd);
void list_add(struct head **list, struct head *item);
void list_remove(struct head **list, struct head *item);
/* A thread that no signal of the program's goes to. */
int thread_start(pthread_t *thread_out, void *(*run)(void *), void *arg);
static inline struct vip_nic *nic_of(VIP_NIC_HANDLE handle)
{
    return handle_of(handle, KIND_NIC);
}

/* ---- memory.c ---- */

/* Which of the NIC's keys a confirming VI uses; false: there is no memory for it. */
bool ptag_confirms(struct ptag *ptag);
int memory_init(struct vip_nic *nic);
void memory_fini(struct vip_nic *nic);
struct ptag *ptag_of(struct vip_nic *nic, VIP_PROTECTION_HANDLE handle);
void ptag_use(struct ptag *ptag, int change);
/* NULL: there is none. Not of a table that was being changed: that is searched again. */
const struct region *region_search(struct vip_nic *nic, VIP_MEM_HANDLE handle);

HOT uint32_t table_place(const struct table *table, VIP_MEM_HANDLE handle)
{
    return (handle * 0x9e3779b1u) >> table->shift;
}

/* Nearly always it is the first that is looked at. NULL: look on. */
HOT const struct region *region_first(struct vip_nic *nic, VIP_MEM_HANDLE handle)
{
    const struct table *table = atomic_load_explicit(&nic->table, memory_order_acquire);
    const struct region *region =
        atomic_load_explicit(&table->slot[table_place(table, handle)], memory_order_acquire);

    return likely(region && region->handle == handle) ? region : NULL;
}

HOT const struct region *region_find(struct vip_nic *nic, VIP_MEM_HANDLE handle)
{
    const struct region *region = region_first(nic, handle);

    return likely(region != NULL) ? region : region_search(nic, handle);
}

/* True if [address, address + length) lies in the region and both have the tag. */
static inline bool region_covers(const struct region *region, const struct ptag *ptag,
                                 uint64_t address, uint64_t length)
{
    uint64_t at = address - region->base;

    return region->ptag == ptag && at <= region->length && length <= region->length - at;
}

/* ---- queue.c: under the cq's lock, unless said otherwise ---- */

int queue_init(struct queue *queue, struct vi *vi, struct cq *cq, bool receives);
void queue_fini(struct queue *queue);
/* Completes what fails by itself, as far as its turn has come. */
void queue_settle(struct queue *queue);
/* The same, not under the lock; wakes who waits. */
void queue_settle_now(struct queue *queue);
/* The next complete descriptor, NULL: none. */
VIP_DESCRIPTOR *queue_take(struct queue *queue);
/* One that the device has completed. */
void cq_consume(const struct ibv_wc *wc);
/* Takes what the device has completed, at most `most`; how many there were. */
int cq_poll(struct cq *cq, int most);
/* The next queue that has a complete descriptor not told of yet; NULL: none. */
struct queue *cq_next(struct cq *cq);
/* Something complete waits to be taken, or to be told of. */
bool queue_has_more(const struct queue *queue);
/* Nothing is posted, or all of it was found complete. */
bool queue_is_done(struct queue *queue);
/* Everything that is posted fails: the device has been told to flush. Not under the lock. */
void queue_flush(struct queue *queue, bool at_device);

/* In the identifier of a request that a confirmation follows: nothing of a user's address. */
#define UNCONFIRMED (1ull << 63)

/* Names queue and place in the ring. */
HOT uint64_t queue_id(const struct queue *queue, uint32_t place)
{
    return (uint64_t)(uintptr_t)queue << 16 | (uint16_t)place;
}

/* Something was deregistered since it was posted: its own memory, perhaps. */
HOT bool removed_since(const struct vi *vi, const struct entry *entry)
{
    return entry->removals != atomic_load_explicit(&vi->head.nic->removals, memory_order_relaxed);
}

/* The program wrote into what belongs to the library while the descriptor was posted. */
HOT bool was_relinked(const VIP_DESCRIPTOR *descriptor)
{
    return descriptor->CS.Next.AddressBits || descriptor->CS.NextHandle;
}

/* ---- post.c ---- */

/* A receive, posted at this place of the ring, goes to the VI's new queue pair. */
void receive_again(struct queue *queue, uint32_t place);
/* All memory that the receive names is there. */
bool receive_is_good(const struct vi *vi, const VIP_DESCRIPTOR *descriptor);

/* ---- wait.c ---- */

int wait_init(struct vip_nic *nic);
void wait_fini(struct vip_nic *nic);
/* Sleeps until nic->wait.turn is not `turn`; false: the deadline has passed. */
bool wait_turn(struct vip_nic *nic, uint32_t turn, int64_t deadline);
void wait_wake(struct vip_nic *nic);
/* Has the device tell of the next completion. True: do look once more before you sleep. */
bool wait_arm(struct cq *cq);
/* Complete descriptors are left behind for whoever else waits. Not under the lock. */
void wait_share(struct cq *cq);

/* ---- cq.c ---- */

int cq_init(struct cq *cq, struct vip_nic *nic, struct queue *only, uint32_t entries);
void cq_fini(struct cq *cq);
struct cq *cq_of(VIP_CQ_HANDLE handle);

/* ---- notify.c, events.c: the callback thread ---- */

int callback_init(struct vip_nic *nic);
/* No handler runs afterwards. */
void callback_stop(struct vip_nic *nic);
void callback_fini(struct vip_nic *nic);
bool callback_is_me(const struct vip_nic *nic);
VIP_RETURN notice_add(struct cq *cq, const struct notice *what);
/* No handler of this cq's runs afterwards, but one that calls this. */
void notice_cancel(struct cq *cq);
void raise_error(struct vip_nic *nic, VIP_ERROR_CODE code, struct vi *vi, struct cq *cq,
                 VIP_DESCRIPTOR *descriptor, uint32_t operation);
struct event *event_next(struct vip_nic *nic);

/* ---- vi.c ---- */

VIP_RETURN attributes_check(struct vip_nic *nic, const VIP_VI_ATTRIBUTES *attributes);
void vi_close(struct vi *vi);
/*
 * From connected to error, if nobody was faster. `report` is what the other side should raise,
 * VIP_ERROR_CODE + 1, or 0.
 */
bool vi_break(struct vi *vi, uint8_t report);
/* Back to idle, everything posted complete. vi->lock held, its connection gone. */
void vi_reset(struct vi *vi);
/* Back to idle after an attempt to connect, with what is posted. vi->lock held. */
void vi_rewind(struct vi *vi);
static inline struct vi *vi_of(VIP_VI_HANDLE handle)
{
    return handle_of(handle, KIND_VI);
}
static inline VIP_VI_STATE vi_state(struct vi *vi)
{
    return (VIP_VI_STATE)atomic_load_explicit(&vi->state, memory_order_acquire);
}
/* nic->lock held. */
void vi_set_state(struct vi *vi, VIP_VI_STATE state);

/* ---- address.c ---- */

bool address_take(const VIP_NET_ADDRESS *from, struct address *to_out);
void address_give(const struct address *from, VIP_NET_ADDRESS *to);
bool address_equal(const struct address *a, const struct address *b);
int address_compare(const struct address *a, const struct address *b);
bool address_same_host(const struct address *a, const struct address *b);
bool address_is_loopback(const struct address *address);
/* Of the discriminator, the probe-th to be tried. */
uint16_t address_port(const struct address *address, int probe);
void address_socket(const struct address *from, uint16_t port, struct sockaddr_storage *to);
void address_host(const struct sockaddr *from, struct address *to);
size_t message_put(const struct message *message, uint8_t *to);
bool message_get(const uint8_t *from, size_t len, struct message *message_out);
enum { PROBES = 8, MESSAGE_MAX = 56, REPORTED = 0xff };

/* ---- cm.c: nic->lock held, unless said otherwise ---- */

int cm_init(struct vip_nic *nic);
void cm_stop(struct vip_nic *nic);
void cm_fini(struct vip_nic *nic);
void cm_wake(struct vip_nic *nic);
/* -EADDRINUSE, -EADDRNOTAVAIL, -ENOMEM ... */
int cm_listen(struct vip_nic *nic, const struct address *at, int *probe_out);
/* Begins to ask conn->remote, at the port of conn->probe. */
int cm_ask(struct conn *conn);
struct conn *conn_new(struct vip_nic *nic, enum conn_role role, struct vi *vi);
/* Not under the lock: ends it, and the identifier with it. */
void conn_end(struct conn *conn);
/* Takes the VI's connection away from it, so that nobody else ends it. */
struct conn *conn_detach(struct vi *vi);
void conn_finish(struct conn *conn, VIP_RETURN result);
void conn_describe(struct conn *conn);
void conn_remote_attributes(const struct conn *conn, VIP_VI_ATTRIBUTES *to);
/* The queue pair to a state that the identifier knows the numbers for. */
int conn_move_qp(struct conn *conn, enum ibv_qp_state state);
int conn_accept(struct conn *conn);
void conn_refuse(struct rdma_cm_id *id, VIP_RETURN code);
VIP_RETURN conn_compare(const struct conn *conn, const struct vi *vi);

/* ---- connect.c, peer.c ---- */

/* A connection that the VI asks for; NULL, and the result says why not. Both locks held. */
struct conn *conn_begin(struct vi *vi, enum conn_role role, const VIP_NET_ADDRESS *local,
                        const VIP_NET_ADDRESS *remote, VIP_ULONG timeout, VIP_RETURN *result_out);
/* A request came for somebody who waits; true: taken. */
bool server_offer(struct vip_nic *nic, struct conn *conn);
/* A peer's request came; the answer is given here. */
VIP_RETURN peer_offer(struct vip_nic *nic, struct conn *fresh, struct conn **for_out);
/* A peer was refused: try again later, or not at all. */
void peer_refused(struct conn *conn, VIP_RETURN code);
/* What is due; when to come again. */
int64_t peers_progress(struct vip_nic *nic, int64_t now);

/* ---- names.c ---- */

void names_init(struct vip_nic *nic);
void names_fini(struct vip_nic *nic);

#endif
