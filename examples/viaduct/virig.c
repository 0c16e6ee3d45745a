/* SPDX-License-Identifier: MIT */
/* One side's half of a measurement over VIPL. */
#include "virig.h"

#include "channel.h"
#include "clock.h"
#include "cmd.h"
#include "cores.h"
#include "wait.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 30000
#define HOST_MAX 16

int virig_failed(const char *what, VIP_RETURN result)
{
    complain("%s failed: return code %d", what, (int)result);
    return CMD_FAILED;
}

#define TRY(call)                                                                                  \
    do {                                                                                           \
        VIP_RETURN result_ = (call);                                                               \
        if (result_ != VIP_SUCCESS)                                                                \
            return virig_failed(#call, result_);                                                   \
    } while (0)

/* --- memory --- */

/* More than can be under way, if there is room: then the sender may be ahead. */
static unsigned receives_of(const struct vicase *which)
{
    return which->depth < VIRIG_DEPTH_MAX / 2 ? 2 * which->depth : VIRIG_DEPTH_MAX;
}

static size_t slots_of(const struct vicase *which)
{
    return which->depth + receives_of(which) + (size_t)VIRIG_RESERVE;
}

/* With an address segment in front, for RDMA. */
static size_t slot_bytes_of(const struct vicase *which)
{
    size_t bytes =
        sizeof(VIP_CONTROL_SEGMENT) + (which->segments + 1) * sizeof(VIP_DESCRIPTOR_SEGMENT);

    return (bytes + VIP_DESCRIPTOR_ALIGNMENT - 1) / VIP_DESCRIPTOR_ALIGNMENT *
           VIP_DESCRIPTOR_ALIGNMENT;
}

static int register_memory(struct virig *rig, char *at, size_t bytes, VIP_MEM_HANDLE *handle_out)
{
    VIP_MEM_ATTRIBUTES attributes = {.Ptag = rig->tag,
                                     .EnableRdmaWrite = VIP_TRUE,
                                     .EnableRdmaRead = rig->which.level != VIP_SERVICE_UNRELIABLE};

    TRY(VipRegisterMem(rig->nic, at, bytes, &attributes, handle_out));
    return CMD_OK;
}

static int make_pool(struct virig *rig)
{
    if (rig->which.reuse >= 100)
        return CMD_OK;
    rig->pool = aligned_alloc(4096, rig->part_bytes * VIRIG_POOL);
    if (rig->pool == NULL)
        return virig_failed("aligned_alloc", VIP_ERROR_RESOURCE);
    memset(rig->pool, 0, rig->part_bytes * VIRIG_POOL);
    for (unsigned i = 0; i < VIRIG_POOL; i++) {
        char *at = rig->pool + i * rig->part_bytes;

        if (register_memory(rig, at, rig->part_bytes, &rig->pool_handles[i]) != CMD_OK)
            return CMD_FAILED;
    }
    return CMD_OK;
}

static int make_memory(struct virig *rig)
{
    size_t size =
        rig->which.which.size > rig->which.reply ? rig->which.which.size : rig->which.reply;
    size_t slots, bytes;

    rig->slot_bytes = slot_bytes_of(&rig->which);
    slots = (slots_of(&rig->which) * rig->which.vis * rig->slot_bytes + 4095) / 4096 * 4096;
    rig->part_bytes = (size + 4095) / 4096 * 4096;
    bytes = slots + 2 * rig->part_bytes;
    rig->memory = aligned_alloc(4096, bytes);
    rig->vis = calloc(rig->which.vis, sizeof(*rig->vis));
    if (rig->memory == NULL || rig->vis == NULL)
        return virig_failed("aligned_alloc", VIP_ERROR_RESOURCE);
    memset(rig->memory, 0, bytes);
    rig->send_part = rig->memory + slots;
    rig->receive_part = rig->send_part + rig->part_bytes;
    for (unsigned i = 0; i < rig->which.vis; i++) {
        rig->vis[i].sends = rig->memory + i * slots_of(&rig->which) * rig->slot_bytes;
        rig->vis[i].receives = rig->vis[i].sends + rig->which.depth * rig->slot_bytes;
    }
    if (register_memory(rig, rig->memory, bytes, &rig->handle) != CMD_OK)
        return CMD_FAILED;
    return make_pool(rig);
}

/* --- messages --- */

/* A hundred messages in a row: so many from the first buffer, the others from all the rest. */
static unsigned buffer_of(const struct virig *rig)
{
    if (rig->messages % 100 < rig->which.reuse)
        return 0;
    return 1 + (unsigned)(rig->messages % (VIRIG_POOL - 1));
}

char *virig_next_buffer(struct virig *rig)
{
    return rig->pool == NULL ? rig->send_part : rig->pool + buffer_of(rig) * rig->part_bytes;
}

/* Cuts the message into the segments of the case, behind `first` others. */
static void describe(const struct virig *rig, VIP_DESCRIPTOR *d, unsigned first, char *at,
                     VIP_MEM_HANDLE handle, size_t size)
{
    unsigned segments = size < rig->which.segments ? 1 : rig->which.segments;
    size_t each = size / segments;
    VIP_DESCRIPTOR_SEGMENT *s = (VIP_DESCRIPTOR_SEGMENT *)(void *)((char *)d + sizeof(d->CS));

    for (unsigned i = 0; i < segments; i++) {
        size_t length = i + 1 < segments ? each : size - each * (segments - 1);

        s[first + i].Local.Data.Address = at + i * each;
        s[first + i].Local.Handle = handle;
        s[first + i].Local.Length = (VIP_UINT32)length;
    }
    d->CS.SegCount = (VIP_UINT16)(first + segments);
    d->CS.Length = (VIP_UINT32)size;
    d->CS.Status = 0;
    d->CS.Reserved = 0;
}

int virig_post_send(struct virig *rig, struct virig_vi *vi, VIP_UINT16 control, uint32_t immediate,
                    size_t size)
{
    VIP_DESCRIPTOR *d = virig_slot(rig, vi->sends, vi->slot);
    bool rdma = (control & VIP_CONTROL_OP_MASK) != VIP_CONTROL_OP_SENDRECV;
    VIP_MEM_HANDLE handle = rig->pool == NULL ? rig->handle : rig->pool_handles[buffer_of(rig)];
    VIP_RETURN result;

    /* What was sent from this slot before is most often what is sent now. */
    if (rig->pool != NULL || d->CS.Length != size || d->CS.Control != control) {
        describe(rig, d, rdma, virig_next_buffer(rig), handle, size);
        d->CS.Control = control;
        if (rdma)
            d->DS[0].Remote = (VIP_ADDRESS_SEGMENT){{rig->remote_address}, rig->remote_handle, 0};
    }
    d->CS.Status = 0;
    d->CS.ImmediateData = immediate;
    result = VipPostSend(vi->vi, d, rig->handle);
    if (result != VIP_SUCCESS)
        return virig_failed("VipPostSend", result);
    vi->posted++;
    vi->slot = vi->slot + 1 < rig->which.depth ? vi->slot + 1 : 0;
    rig->messages++;
    return CMD_OK;
}

int virig_post_receive(struct virig *rig, struct virig_vi *vi, VIP_DESCRIPTOR *d)
{
    VIP_RETURN result;

    d->CS.Control = 0;
    d->CS.Status = 0;
    d->CS.Length = (VIP_UINT32)rig->part_bytes;
    result = VipPostRecv(vi->vi, d, rig->handle);
    if (result != VIP_SUCCESS)
        return virig_failed("VipPostRecv", result);
    return CMD_OK;
}

/* --- completions --- */

static int bad(VIP_RETURN result, const VIP_DESCRIPTOR *d)
{
    if (result == VIP_TIMEOUT)
        complain("nothing has come for %d seconds: giving up", PATIENCE_MS / 1000);
    else if (result == VIP_DESCRIPTOR_ERROR && d != NULL)
        complain("a descriptor failed: status 0x%x", (unsigned)d->CS.Status);
    else
        complain("taking a descriptor failed: return code %d", (int)result);
    return CMD_FAILED;
}

/* One entry of the CQ becomes one completion that is known to be there. */
static int take_entry(struct virig *rig, bool wait)
{
    VIP_VI_HANDLE handle;
    VIP_BOOLEAN receive;
    VIP_RETURN result = wait ? VipCQWait(rig->cq, PATIENCE_MS, &handle, &receive)
                             : VipCQDone(rig->cq, &handle, &receive);
    struct virig_vi *vi;

    if (result == VIP_NOT_DONE)
        return 0;
    if (result != VIP_SUCCESS)
        return -bad(result, NULL);
    vi = VipGetUserData(handle);
    vi->ready[receive != VIP_FALSE]++;
    return 1;
}

static VIP_RETURN done(struct virig_vi *vi, bool receive, VIP_DESCRIPTOR **d_out)
{
    return receive ? VipRecvDone(vi->vi, d_out) : VipSendDone(vi->vi, d_out);
}

/* By way of the CQ: which may have told of this queue before, when another one was looked for. */
static int try_told(struct virig *rig, struct virig_vi *vi, bool receive, VIP_DESCRIPTOR **d_out)
{
    int n = vi->ready[receive] == 0 ? take_entry(rig, false) : 0;
    VIP_RETURN result;

    if (n < 0 || vi->ready[receive] == 0)
        return n < 0 ? n : 0;
    *d_out = NULL;
    result = done(vi, receive, d_out);
    if (result != VIP_SUCCESS)
        return -bad(result, *d_out);
    vi->ready[receive]--;
    vi->done += !receive;
    return 1;
}

int virig_try(struct virig *rig, struct virig_vi *vi, bool receive, VIP_DESCRIPTOR **d_out)
{
    if (rig->cq != NULL)
        return try_told(rig, vi, receive, d_out);
    VIP_RETURN result = done(vi, receive, d_out);

    if (result == VIP_NOT_DONE)
        return 0;
    if (__builtin_expect(result != VIP_SUCCESS, 0))
        return -bad(result, *d_out);
    vi->done += !receive;
    return 1;
}

/* Sleep until the queue, or the CQ, has something. */
static int take_blocking(struct virig *rig, struct virig_vi *vi, bool receive,
                         VIP_DESCRIPTOR **d_out)
{
    VIP_RETURN result;

    *d_out = NULL;
    if (rig->cq != NULL) {
        while (vi->ready[receive] == 0) {
            if (take_entry(rig, true) < 0)
                return CMD_FAILED;
        }
        vi->ready[receive]--;
        result = done(vi, receive, d_out);
    } else {
        result = receive ? VipRecvWait(vi->vi, PATIENCE_MS, d_out)
                         : VipSendWait(vi->vi, PATIENCE_MS, d_out);
    }
    vi->done += !receive;
    return result == VIP_SUCCESS ? CMD_OK : bad(result, *d_out);
}

static void told(VIP_PVOID context, VIP_NIC_HANDLE nic, VIP_VI_HANDLE vi, VIP_DESCRIPTOR *d)
{
    struct virig *rig = context;

    (void)nic;
    (void)vi;
    rig->told_of = d;
    sem_post(&rig->told);
}

/* A registration is good for one descriptor: the handler gets it, and this thread from there. */
static int take_notified(struct virig *rig, struct virig_vi *vi, bool receive,
                         VIP_DESCRIPTOR **d_out)
{
    VIP_RETURN result =
        receive ? VipRecvNotify(vi->vi, rig, told) : VipSendNotify(vi->vi, rig, told);
    struct timespec until;
    int failed;

    if (result != VIP_SUCCESS)
        return bad(result, NULL);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_MS / 1000;
    do {
        failed = sem_timedwait(&rig->told, &until);
    } while (failed != 0 && errno == EINTR);
    if (failed != 0)
        return bad(VIP_TIMEOUT, NULL);
    *d_out = rig->told_of;
    vi->done += !receive;
    return (*d_out)->CS.Status & VIP_STATUS_ERROR_MASK ? bad(VIP_DESCRIPTOR_ERROR, *d_out) : CMD_OK;
}

int virig_take(struct virig *rig, const struct rig *watch, struct virig_vi *vi, bool receive,
               VIP_DESCRIPTOR **d_out)
{
    if (rig->which.how == VIHOW_NOTIFY)
        return take_notified(rig, vi, receive, d_out);
    if (rig->which.how == VIHOW_WAIT)
        return take_blocking(rig, vi, receive, d_out);
    for (uint64_t idle = 1;; idle++) {
        int n = virig_try(rig, vi, receive, d_out);

        if (__builtin_expect(n != 0, 1))
            return n > 0 ? CMD_OK : CMD_FAILED;
        if (wait_idle(watch, idle) != 0)
            return CMD_FAILED;
    }
}

int virig_reap(struct virig *rig, const struct rig *watch, struct virig_vi *vi, unsigned left)
{
    VIP_DESCRIPTOR *d;

    while (vi->posted - vi->done > left) {
        if (virig_take(rig, watch, vi, false, &d) != CMD_OK)
            return CMD_FAILED;
    }
    return CMD_OK;
}

/* --- VIs --- */

/* Both sides open alike, so each knows the other's hello: it is its own. */
static int prepare_vi(struct virig *rig, struct virig_vi *vi)
{
    uint32_t hello;

    credit_init(&vi->credit, VIRIG_RESERVE);
    for (unsigned i = 0; i < receives_of(&rig->which) + VIRIG_RESERVE; i++) {
        VIP_DESCRIPTOR *d = virig_slot(rig, vi->receives, i);

        describe(rig, d, 0, rig->receive_part, rig->handle, rig->part_bytes);
        if (virig_post_receive(rig, vi, d) != CMD_OK)
            return CMD_FAILED;
        credit_posted(&vi->credit);
    }
    credit_hello(&vi->credit, &hello);
    credit_meet(&vi->credit, hello);
    return CMD_OK;
}

static int make_vi(struct virig *rig, struct virig_vi *vi)
{
    VIP_VI_ATTRIBUTES attributes = {
        .ReliabilityLevel = (VIP_RELIABILITY_LEVEL)rig->which.level,
        .MaxTransferSize = rig->part_bytes,
        .Ptag = rig->tag,
        .EnableRdmaWrite = VIP_TRUE,
        .EnableRdmaRead = rig->which.level != VIP_SERVICE_UNRELIABLE,
    };

    TRY(VipCreateVi(rig->nic, &attributes, rig->cq, rig->cq, &vi->vi));
    VipSetUserData(vi->vi, vi);
    return prepare_vi(rig, vi);
}

/* A connection that ends as it should raises an error, too. */
static void quiet(VIP_PVOID context, VIP_ERROR_DESCRIPTOR *error)
{
    (void)context;
    (void)error;
}

static int open_all(struct virig *rig, const char *device)
{
    const struct vicase *which = &rig->which;

    TRY(VipOpenNic(device != NULL ? device : device_default(), &rig->nic));
    TRY(VipErrorCallback(rig->nic, NULL, quiet));
    TRY(VipQueryNic(rig->nic, &rig->limits));
    TRY(VipCreatePtag(rig->nic, &rig->tag));
    if (which->cq)
        TRY(VipCreateCQ(rig->nic, 2 * slots_of(which) * which->vis, &rig->cq));
    if (make_memory(rig) != CMD_OK)
        return CMD_FAILED;
    for (unsigned i = 0; i < which->vis; i++) {
        if (make_vi(rig, &rig->vis[i]) != CMD_OK)
            return CMD_FAILED;
    }
    return CMD_OK;
}

/* Threads that are started with the NIC may run anywhere; this one stays where it was. */
int virig_open(struct virig *rig, const char *device, const struct vicase *which)
{
    cpu_set_t here;
    int code;

    memset(rig, 0, sizeof(*rig));
    rig->which = *which;
    sem_init(&rig->told, 0, 0);
    sched_getaffinity(0, sizeof(here), &here);
    cores_unpin();
    code = open_all(rig, device);
    sched_setaffinity(0, sizeof(here), &here);
    if (code != CMD_OK)
        virig_close(rig);
    return code;
}

void virig_close(struct virig *rig)
{
    /* Closing the NIC ends all that belongs to it. */
    if (rig->nic != NULL)
        VipCloseNic(rig->nic);
    sem_destroy(&rig->told);
    free(rig->vis);
    free(rig->pool);
    free(rig->memory);
    memset(rig, 0, sizeof(*rig));
}

/* --- connecting --- */

union address {
    VIP_NET_ADDRESS net;
    char room[sizeof(VIP_NET_ADDRESS) + 256];
};

/* What a side tells the other. */
struct facts {
    uint64_t address;
    uint32_t handle;
    uint16_t host_len;
    uint8_t host[HOST_MAX];
    char meeting[16];
};

static void fill_address(const struct facts *f, union address *out)
{
    size_t meeting = strnlen(f->meeting, sizeof(f->meeting));

    memset(out, 0, sizeof(*out));
    out->net.HostAddressLen = f->host_len;
    out->net.DiscriminatorLen = (VIP_UINT16)meeting;
    memcpy(out->net.HostAddress, f->host, f->host_len);
    memcpy(out->net.HostAddress + f->host_len, f->meeting, meeting);
}

static int exchange(struct virig *rig, int channel, struct facts *mine, struct facts *theirs)
{
    static unsigned counter;
    size_t length = 0;
    int error;

    *mine = (struct facts){.address = (uintptr_t)rig->receive_part, .handle = rig->handle};
    mine->host_len = rig->limits.NicAddressLen < HOST_MAX ? rig->limits.NicAddressLen : HOST_MAX;
    memcpy(mine->host, rig->limits.LocalNicAddress, mine->host_len);
    snprintf(mine->meeting, sizeof(mine->meeting), "%d.%u", (int)getpid() & 0xffffff,
             counter++ & 0xffff);
    error = channel_put(channel, mine, sizeof(*mine));
    if (error == 0)
        error = channel_get(channel, theirs, sizeof(*theirs), &length);
    if (error != 0 || length != sizeof(*theirs) || theirs->host_len > HOST_MAX) {
        complain("the other side is gone, or speaks another language");
        return CMD_FAILED;
    }
    rig->remote_address = theirs->address;
    rig->remote_handle = theirs->handle;
    return CMD_OK;
}

static int accept_vi(struct virig *rig, const struct facts *mine, VIP_VI_HANDLE vi)
{
    union address here, there;
    VIP_VI_ATTRIBUTES theirs;
    VIP_CONN_HANDLE asked;

    fill_address(mine, &here);
    TRY(VipConnectWait(rig->nic, &here.net, PATIENCE_MS, &there.net, &theirs, &asked));
    TRY(VipConnectAccept(asked, vi));
    return CMD_OK;
}

/* Until the server has begun to wait, nobody matches. */
static int request_vi(struct virig *rig, const struct facts *theirs, VIP_VI_HANDLE vi, int channel)
{
    union address there;
    VIP_VI_ATTRIBUTES attributes;
    VIP_RETURN result;

    fill_address(theirs, &there);
    for (;;) {
        uint64_t began = clock_ns();

        result = VipConnectRequest(vi, NULL, &there.net, PATIENCE_MS, &attributes);
        rig->connect_ns = clock_ns() - began;
        if (result != VIP_NO_MATCH)
            break;
        if (!channel_alive(channel)) {
            complain("the other side is gone");
            return CMD_FAILED;
        }
        usleep(100);
    }
    return result == VIP_SUCCESS ? CMD_OK : virig_failed("VipConnectRequest", result);
}

int virig_connect(struct virig *rig, int channel, bool client)
{
    struct facts mine, theirs;
    int code = exchange(rig, channel, &mine, &theirs);

    for (unsigned i = 0; code == CMD_OK && i < rig->which.vis; i++) {
        code = client ? request_vi(rig, &theirs, rig->vis[i].vi, channel)
                      : accept_vi(rig, &mine, rig->vis[i].vi);
    }
    return code;
}
