/* SPDX-License-Identifier: MIT */
/*
 * One side's half of a measurement over VIPL: a NIC, memory, and VIs that are connected to the
 * other side's. It is made for one case, because a VI's level and its CQ belong to its creation.
 *
 *     memory:   | descriptors of all VIs | send part | receive part |
 *
 * With less than full reuse, messages start from a pool of buffers that are registered one by one.
 */
#ifndef VIADUCT_VIRIG_H
#define VIADUCT_VIRIG_H

#include "credit.h"
#include "measure.h"

#include <semaphore.h>
#include <vipl.h>

enum {
    VIRIG_SEGMENTS_MAX = 16,
    VIRIG_VIS_MAX = 256,
    VIRIG_DEPTH_MAX = 254, /* with the reserve, what a queue of VIPL holds */
    VIRIG_DEPTH_LAT = 8,   /* where one message follows the other */
    VIRIG_RESERVE = 2,     /* receives for credit updates */
    VIRIG_POOL = 64,
};

/* How completions are learned of. A handler runs in VIPL's thread, and wakes the one that waits. */
enum vihow { VIHOW_POLL, VIHOW_WAIT, VIHOW_NOTIFY, VIHOW_COUNT };

/* One line of VIBe, or of pingpong and bench with --api vipl. */
struct vicase {
    struct measure_case which;
    unsigned level; /* VIP_SERVICE_... */
    unsigned vis;
    unsigned segments;
    unsigned depth;
    unsigned reuse; /* of the same buffer, in percent */
    unsigned reply; /* bytes of an answer; 0: as long as the question */
    unsigned how;   /* enum vihow */
    bool cq;        /* queues are bound to a completion queue */
    unsigned check; /* messages to compare before measuring */
};

struct virig_vi {
    VIP_VI_HANDLE vi;
    struct credit credit;
    char *sends, *receives; /* descriptors */
    uint64_t posted, done;  /* sends since the connection was made */
    unsigned slot;          /* of the next send */
    unsigned ready[2];      /* completions the CQ has told of: sends, receives */
};

struct virig {
    struct vicase which;
    VIP_NIC_HANDLE nic;
    VIP_NIC_ATTRIBUTES limits;
    VIP_PROTECTION_HANDLE tag;
    VIP_CQ_HANDLE cq;
    VIP_MEM_HANDLE handle;
    char *memory, *send_part, *receive_part;
    size_t part_bytes, slot_bytes;
    char *pool;
    VIP_MEM_HANDLE pool_handles[VIRIG_POOL];
    struct virig_vi *vis;
    uint64_t remote_address; /* the other side's receive part */
    VIP_MEM_HANDLE remote_handle;
    uint64_t messages;   /* sent since the beginning: numbers the buffers of the pool */
    uint64_t connect_ns; /* what the last VipConnectRequest took */
    sem_t told;          /* by a handler, of this descriptor: */
    VIP_DESCRIPTOR *told_of;
};

/* The descriptors of a queue stand as close as their segments let them. */
static inline VIP_DESCRIPTOR *virig_slot(const struct virig *rig, char *slots, unsigned i)
{
    return (VIP_DESCRIPTOR *)(void *)(slots + i * rig->slot_bytes);
}

/* Each returns enum cmd_exit, after one line. device NULL: the default. */
int virig_open(struct virig *rig, const char *device, const struct vicase *which);
/* The server chooses where to meet and tells the client by the channel. */
int virig_connect(struct virig *rig, int channel, bool client);
void virig_close(struct virig *rig);

/* Post one message of the case, with immediate data or without, of `size` bytes. */
int virig_post_send(struct virig *rig, struct virig_vi *vi, VIP_UINT16 control, uint32_t immediate,
                    size_t size);
/* Post a receive, which is described once and for all. */
int virig_post_receive(struct virig *rig, struct virig_vi *vi, VIP_DESCRIPTOR *d);

/* The buffer from which the next message starts. */
char *virig_next_buffer(struct virig *rig);

/*
 * Take what is complete at the head of a queue, as the case wants it: polling or waiting, by
 * way of the CQ or not. `watch` is looked after meanwhile, see wait.h.
 */
int virig_take(struct virig *rig, const struct rig *watch, struct virig_vi *vi, bool receive,
               VIP_DESCRIPTOR **d_out);

/* Whether something was there: 1, with a descriptor taken; 0; or -CMD_FAILED. Never waits. */
int virig_try(struct virig *rig, struct virig_vi *vi, bool receive, VIP_DESCRIPTOR **d_out);

/* Take sends until at most `left` are under way. */
int virig_reap(struct virig *rig, const struct rig *watch, struct virig_vi *vi, unsigned left);

/* "VipOpenNic failed: return code 3". Returns CMD_FAILED. */
int virig_failed(const char *what, VIP_RETURN result);

#endif
