/* SPDX-License-Identifier: MIT */
/* Virtual time, the wire between two nodes, and what a node is to its transport. */
#include "sim.h"

#include <stdlib.h>
#include <string.h>

enum { REORDER_BY = 8 };

/* ---- chance: splitmix64 ---- */

uint64_t sim_random(struct sim *sim)
{
    uint64_t z = sim->seed += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t sim_below(struct sim *sim, uint64_t bound)
{
    return bound ? sim_random(sim) % bound : 0;
}

bool sim_chance(struct sim *sim, uint32_t ppm)
{
    return ppm && sim_below(sim, 1000000) < ppm;
}

/* ---- a node ---- */

static void *memory_at(struct sim_node *node, uint64_t addr, uint64_t length)
{
    if (addr > SIM_MEMORY || length > SIM_MEMORY - addr)
        return NULL;
    return node->memory + addr;
}

/* XRC: what is far is good to be tested, and nothing else. */
static void *pointer_to(struct sim_node *node, void *memory)
{
    return memory && node->far ? (void *)8 : memory;
}

static void *node_local(void *owner, uint32_t key, uint64_t addr, uint64_t length, bool write)
{
    (void)write;
    return key == SIM_KEY_LOCAL ? memory_at(owner, addr, length) : NULL;
}

static void *node_remote(void *owner, uint32_t key, uint64_t addr, uint64_t length,
                         enum transport_access access)
{
    struct sim_node *node = owner;

    if (node->key_gone || (key == SIM_KEY_WINDOW && node->window_gone))
        return NULL;
    if (key == SIM_KEY_READ_ONLY && access != TRANSPORT_REMOTE_READ)
        return NULL;
    if (key != SIM_KEY_REMOTE && key != SIM_KEY_WINDOW && key != SIM_KEY_READ_ONLY)
        return NULL;
    return pointer_to(node, memory_at(node, addr, length));
}

static bool node_may_invalidate(void *owner, uint32_t key)
{
    struct sim_node *node = owner;

    return key == SIM_KEY_WINDOW && !node->window_gone;
}

static bool node_take(void *owner, struct transport_recv *recv_out)
{
    struct sim_node *node = owner;

    if (node->recv_head == node->recv_tail ||
        (node->config.type == TRANSPORT_XRC && recv_out->xrc_srqn != SIM_XRC_SRQN))
        return false;
    const struct sim_recv *recv = &node->recvs[node->recv_head % SIM_RECVS];
    recv_out->slot = node->recv_head++ % SIM_RECVS;
    recv_out->sge_count = recv->sge_count;
    memcpy(recv_out->sges, recv->sges, sizeof(recv->sges));
    return true;
}

static uint32_t node_receives(void *owner)
{
    struct sim_node *node = owner;

    return node->shared_receives ? UINT32_MAX : node->recv_tail - node->recv_head;
}

static void log_entry(struct sim_node *node, const struct sim_entry *entry)
{
    if (node->logged < SIM_LOG)
        node->log[node->logged++] = *entry;
    if (node->on_entry)
        node->on_entry(node, entry);
}

static void node_deliver(void *owner, const struct transport_arrival *arrival)
{
    struct sim_node *node = owner;
    struct sim_entry entry = {
        .kind = LOG_RECV,
        .cookie = node->recvs[arrival->slot % SIM_RECVS].cookie,
        .status = arrival->status,
        .flags = arrival->flags,
        .byte_len = arrival->byte_len,
        .imm = arrival->imm,
        .xrc_srqn = arrival->xrc_srqn,
    };

    if (arrival->flags & ARRIVAL_INV)
        node->window_gone = true;
    log_entry(node, &entry);
}

/* Here or there, and at times out of reach. */
static enum transport_aim node_aim(void *owner, uint32_t xrc_srqn)
{
    struct sim_node *node = owner;

    if (xrc_srqn != SIM_XRC_SRQN)
        return AIM_NONE;
    if (sim_chance(node->sim, node->sim->unreached_ppm))
        return AIM_LATER;
    node->far = node->sim->unreached_ppm && sim_below(node->sim, 2);
    return node->far ? AIM_FAR : AIM_HERE;
}

static uint64_t atomic_far(uint8_t *at, const struct transport_far *what)
{
    uint64_t before, after;

    memcpy(&before, at, sizeof(before));
    after = what->op == FAR_FETCH_ADD ? before + what->swap_add
            : before == what->compare ? what->swap_add
                                      : before;
    memcpy(at, &after, sizeof(after));
    return before;
}

static enum transport_far_result node_move(void *owner, struct transport_far *what)
{
    struct sim_node *node = owner;
    uint8_t *at = memory_at(node, what->addr, what->length);

    if (!at || node->key_gone)
        return FAR_REFUSED;
    if (sim_chance(node->sim, node->sim->unreached_ppm))
        return FAR_LATER;
    if (what->op == FAR_PLACE || what->op == FAR_WRITE) {
        memcpy(at, what->bytes, what->length);
    } else if (what->op == FAR_READ) {
        memcpy(node->moved, at, what->length);
        what->bytes = node->moved;
    } else {
        what->before = atomic_far(at, what);
    }
    return FAR_DONE;
}

static enum transport_status node_execute(void *owner, const struct transport_wr *wr)
{
    struct sim_node *node = owner;

    if (wr->op == TRANSPORT_LOCAL_INV)
        node->window_gone = true;
    else
        node->window_gone = false;
    return wr->imm == SIM_KEY_GONE ? TRANSPORT_BIND_ERR : TRANSPORT_SUCCESS;
}

static void node_complete(void *owner, const struct transport_wr *wr, enum transport_status status,
                          uint32_t byte_len)
{
    struct sim_entry entry = {
        .kind = LOG_SEND,
        .cookie = wr->cookie,
        .op = wr->op,
        .status = status,
        .byte_len = byte_len,
    };

    log_entry(owner, &entry);
}

static void node_fail(void *owner, enum transport_failure failure)
{
    struct sim_node *node = owner;
    struct sim_entry entry = {.kind = LOG_FAIL, .failure = failure};

    log_entry(node, &entry);
    if (failure == FAILED_PEER && node->config.type == TRANSPORT_UC)
        return;
    if (failure != FAILED_SENDING || node->config.type != TRANSPORT_UC)
        transport_stop(node->transport);
    transport_flush(node->transport);
}

const struct transport_calls sim_calls = {
    .local = node_local,
    .remote = node_remote,
    .may_invalidate = node_may_invalidate,
    .take = node_take,
    .receives = node_receives,
    .deliver = node_deliver,
    .aim = node_aim,
    .far = node_move,
    .execute = node_execute,
    .complete = node_complete,
    .fail = node_fail,
};

/* ---- life ---- */

static _Alignas(64) uint8_t memories[2][SIM_MEMORY];

struct sim *sim_new(uint64_t seed, enum transport_type type)
{
    struct sim *sim = calloc(1, sizeof(*sim));

    if (!sim)
        abort();
    sim->seed = seed;
    sim->delay_ns = 20000;
    for (unsigned i = 0; i < 2; i++) {
        struct sim_node *node = &sim->nodes[i];

        node->sim = sim;
        node->index = i;
        node->psn = (uint32_t)sim_below(sim, 1 << 24);
        node->memory = memories[i]; /* one world at a time: fresh pages cost more than the work */
        memset(node->memory, 0, SIM_MEMORY);
        node->config = (struct transport_config){
            .type = type,
            .max_wr = 64,
            .max_sge = 4,
            .max_inline = 256,
            .max_dest_rd_atomic = 16,
            .dest_qpn = 0x100 + !i,
            .pkey = 0xffff,
            .mtu = 1024,
            .timeout = 14,
            .retry_count = 7,
            .rnr_retry = 7,
            .min_rnr_timer = 1,
            .max_rd_atomic = 16,
            .access = TRANSPORT_REMOTE_WRITE | TRANSPORT_REMOTE_READ | TRANSPORT_REMOTE_ATOMIC,
        };
    }
    return sim;
}

void sim_start(struct sim *sim)
{
    for (unsigned i = 0; i < 2; i++) {
        struct sim_node *node = &sim->nodes[i];

        node->transport = transport_new(&node->config, &sim_calls, node);
        if (!node->transport)
            abort();
        transport_start_receiving(node->transport, sim->nodes[!i].psn);
        transport_start_sending(node->transport, node->psn);
    }
}

static void free_frames(struct sim_frame *frame)
{
    for (struct sim_frame *after; frame; frame = after) {
        after = frame->next;
        free(frame);
    }
}

void sim_free(struct sim *sim)
{
    free_frames(sim->queue);
    free_frames(sim->spare);
    for (unsigned i = 0; i < 2; i++)
        transport_free(sim->nodes[i].transport);
    free(sim);
}

/* ---- frames ---- */

static struct sim_frame *frame_new(struct sim *sim)
{
    struct sim_frame *frame = sim->spare;

    if (frame)
        sim->spare = frame->next;
    else if (!(frame = malloc(sizeof(*frame))))
        abort();
    return frame;
}

static void frame_free(struct sim *sim, struct sim_frame *frame)
{
    frame->next = sim->spare;
    sim->spare = frame;
}

static void frame_queue(struct sim *sim, struct sim_frame *frame)
{
    struct sim_frame **at = &sim->queue;

    frame->order = sim->order++;
    while (*at && (*at)->at_ns <= frame->at_ns)
        at = &(*at)->next;
    frame->next = *at;
    *at = frame;
}

/* Stands for the ICRC: any one-bit change shows. */
static uint32_t checksum(const uint8_t *bytes, size_t len)
{
    uint64_t sum = len;

    for (size_t i = 0; i + 4 <= len; i += 4) {
        uint32_t word;

        memcpy(&word, bytes + i, sizeof(word));
        sum = (sum ^ word) * 0x100000001b3ull;
    }
    return (uint32_t)(sum ^ sum >> 32);
}

static void frame_fill(struct sim_frame *frame, const struct transport_packet *packet)
{
    size_t len = wire_emit(&packet->headers, frame->bytes);

    if (!len)
        abort();
    for (unsigned i = 0; i < packet->part_count; i++) {
        memcpy(frame->bytes + len, packet->parts[i].iov_base, packet->parts[i].iov_len);
        len += packet->parts[i].iov_len;
    }
    memset(frame->bytes + len, 0, wire_pad(packet->headers.payload_length));
    len += wire_pad(packet->headers.payload_length);
    uint32_t sum = checksum(frame->bytes, len);
    memcpy(frame->bytes + len, &sum, sizeof(sum));
    frame->len = (uint32_t)len + WIRE_ICRC_SIZE;
}

/* ---- the wire ---- */

static bool is_lost(struct sim *sim)
{
    const struct sim_faults *faults = &sim->faults;

    if (sim->bursting) {
        sim->bursting--;
        return true;
    }
    if (sim->now_ns >= faults->dark_from_ns && sim->now_ns < faults->dark_until_ns)
        return true;
    if (faults->lose_each && sim->frames % faults->lose_each == 0)
        return true;
    if (!sim_chance(sim, faults->loss))
        return false;
    sim->bursting = sim_below(sim, faults->burst);
    return true;
}

static uint64_t arrival(struct sim *sim, unsigned from, uint32_t len)
{
    uint64_t *busy = &sim->busy_until_ns[from];

    if (*busy < sim->now_ns)
        *busy = sim->now_ns;
    *busy += (uint64_t)(len + 46) * sim->ns_per_kib / 1024;
    return *busy + sim->delay_ns;
}

static bool queue_is_full(const struct sim *sim, unsigned from)
{
    if (!sim->queue_max || !sim->ns_per_kib || sim->busy_until_ns[from] < sim->now_ns)
        return false;
    uint64_t waiting = sim->busy_until_ns[from] - sim->now_ns;
    uint64_t each = (uint64_t)(sim->nodes[0].config.mtu + 100) * sim->ns_per_kib / 1024;

    return waiting / each >= sim->queue_max;
}

static void send_copy(struct sim *sim, unsigned from, const struct transport_packet *packet)
{
    struct sim_frame *frame = frame_new(sim);

    frame_fill(frame, packet);
    frame->to = !from;
    frame->marked = sim_chance(sim, sim->faults.mark);
    frame->at_ns = arrival(sim, from, frame->len);
    if (sim_chance(sim, sim->faults.reorder))
        frame->at_ns += sim->delay_ns * sim_below(sim, REORDER_BY);
    if (sim_chance(sim, sim->faults.corrupt)) {
        uint64_t bit = sim_below(sim, frame->len * 8ull);

        frame->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    frame_queue(sim, frame);
}

static void send_frame(struct sim *sim, unsigned from, const struct transport_packet *packet)
{
    enum sim_fate fate = sim->fate ? sim->fate(sim, !from, &packet->headers) : FATE_DELIVER;

    sim->frames++;
    if (fate == FATE_LOSE || is_lost(sim) || queue_is_full(sim, from)) {
        sim->lost++;
        return;
    }
    send_copy(sim, from, packet);
    if (fate == FATE_TWICE || sim_chance(sim, sim->faults.dup))
        send_copy(sim, from, packet);
}

static void pump(struct sim *sim, unsigned index)
{
    struct transport_packet packet;

    while (transport_next(sim->nodes[index].transport, sim->now_ns, &packet))
        send_frame(sim, index, &packet);
}

static void receive_frame(struct sim *sim, const struct sim_frame *frame)
{
    struct wire_packet packet;
    uint32_t sum;

    memcpy(&sum, frame->bytes + frame->len - WIRE_ICRC_SIZE, sizeof(sum));
    if (sum != checksum(frame->bytes, frame->len - WIRE_ICRC_SIZE))
        return;
    if (!wire_parse(frame->bytes, frame->len, &packet))
        abort();
    transport_receive(sim->nodes[frame->to].transport, sim->now_ns, &packet, frame->marked);
}

/* ---- time ---- */

static uint64_t next_time(const struct sim *sim)
{
    uint64_t next = sim->queue ? sim->queue->at_ns : TRANSPORT_NEVER;

    for (unsigned i = 0; i < 2; i++) {
        uint64_t deadline = transport_deadline(sim->nodes[i].transport);

        next = deadline < next ? deadline : next;
    }
    return next;
}

bool sim_step(struct sim *sim)
{
    pump(sim, 0);
    pump(sim, 1);
    uint64_t next = next_time(sim);
    if (next == TRANSPORT_NEVER)
        return false;
    sim->now_ns = next > sim->now_ns ? next : sim->now_ns;
    while (sim->queue && sim->queue->at_ns <= sim->now_ns) {
        struct sim_frame *frame = sim->queue;

        sim->queue = frame->next;
        receive_frame(sim, frame);
        frame_free(sim, frame);
    }
    for (unsigned i = 0; i < 2; i++) {
        if (transport_deadline(sim->nodes[i].transport) <= sim->now_ns)
            transport_expire(sim->nodes[i].transport, sim->now_ns);
    }
    return true;
}

void sim_run(struct sim *sim, uint64_t for_ns)
{
    uint64_t until = sim->now_ns + for_ns;

    while (sim->now_ns < until && sim_step(sim))
        ;
}

/* ---- what tests say and ask ---- */

bool sim_post(struct sim_node *node, const struct transport_wr *wr)
{
    return transport_post(node->transport, wr);
}

void sim_recv(struct sim_node *node, uint64_t cookie, uint32_t at, uint32_t length)
{
    struct sim_recv *recv = &node->recvs[node->recv_tail++ % SIM_RECVS];

    recv->cookie = cookie;
    recv->sge_count = 1;
    recv->sges[0] = (struct transport_sge){at, length, SIM_KEY_LOCAL};
}

struct transport_wr sim_wr(enum transport_op op, uint64_t cookie, uint32_t at, uint32_t length,
                           uint32_t remote)
{
    static struct transport_sge sges[16];
    static unsigned turn;
    struct transport_sge *sge = &sges[turn++ % 16];

    *sge = (struct transport_sge){at, length, SIM_KEY_LOCAL};
    return (struct transport_wr){
        .cookie = cookie,
        .op = op,
        .rkey = SIM_KEY_REMOTE,
        .xrc_srqn = SIM_XRC_SRQN,
        .remote_addr = remote,
        .sge_count = 1,
        .sges = sge,
    };
}

const struct sim_entry *sim_nth(const struct sim_node *node, enum sim_log_kind kind, unsigned n)
{
    for (uint32_t i = 0; i < node->logged; i++) {
        if (node->log[i].kind == kind && n-- == 0)
            return &node->log[i];
    }
    return NULL;
}

unsigned sim_count(const struct sim_node *node, enum sim_log_kind kind)
{
    unsigned count = 0;

    for (uint32_t i = 0; i < node->logged; i++)
        count += node->log[i].kind == kind;
    return count;
}
