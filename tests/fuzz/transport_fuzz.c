/* SPDX-License-Identifier: MIT */
/*
 * A transport with a hostile peer that knows its queue pair number and its PSNs: whatever it sends
 * in whatever state, nothing is read or written but what its keys allow, each request and receive
 * completes once, and the machine comes to rest. The bytes are a script of what happens.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "engine/transport.h"
#include "wire/psn.h"

enum { MEMORY = 16384, DEPTH = 8, PUMP_MAX = 100000, KEY_LOCAL = 1, KEY_REMOTE = 2 };

struct run {
    const uint8_t *at, *end;
    uint64_t now;
    struct transport *t;
    struct transport_config config;
    uint8_t *memory;
    uint64_t posted, completed, taken, delivered, receives;
    uint32_t psn_in, psn_out; /* where both directions begin */
    bool over;
    bool far; /* what the shared receive queue of the last request is */
};

static uint8_t byte(struct run *run)
{
    return run->at < run->end ? *run->at++ : 0;
}

static uint32_t word(struct run *run)
{
    uint32_t low = byte(run);

    return low | (uint32_t)byte(run) << 8;
}

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* ---- the owner ---- */

static void *memory_at(struct run *run, uint64_t addr, uint64_t length)
{
    return addr <= MEMORY && length <= MEMORY - addr ? run->memory + addr : NULL;
}

static void *on_local(void *owner, uint32_t key, uint64_t addr, uint64_t length, bool write)
{
    (void)write;
    return key == KEY_LOCAL ? memory_at(owner, addr, length) : NULL;
}

/* What is far may not be touched: its pointers are good to be tested only. */
static void *pointer_to(const struct run *run, void *memory)
{
    return memory && run->far ? (void *)8 : memory;
}

static void *on_remote(void *owner, uint32_t key, uint64_t addr, uint64_t length,
                       enum transport_access access)
{
    struct run *run = owner;

    must(length > 0 && (run->config.access & access));
    return key == KEY_REMOTE ? pointer_to(run, memory_at(run, addr, length)) : NULL;
}

static bool on_may_invalidate(void *owner, uint32_t key)
{
    (void)owner;
    return key == KEY_REMOTE;
}

static bool on_take(void *owner, struct transport_recv *recv_out)
{
    struct run *run = owner;

    if (run->taken == run->receives)
        return false;
    must(run->taken == run->delivered); /* one message at a time */
    recv_out->slot = (uint32_t)run->taken++;
    recv_out->sge_count = 2;
    recv_out->sges[0] = (struct transport_sge){0, 300, KEY_LOCAL};
    recv_out->sges[1] = (struct transport_sge){MEMORY - 3000, 3000, KEY_LOCAL};
    return true;
}

static uint32_t on_receives(void *owner)
{
    struct run *run = owner;

    return (uint32_t)(run->receives - run->taken);
}

static enum transport_aim on_aim(void *owner, uint32_t xrc_srqn)
{
    struct run *run = owner;
    enum transport_aim aim = (enum transport_aim)(xrc_srqn % 4);

    run->far = aim == AIM_FAR;
    return aim;
}

static enum transport_far_result on_far(void *owner, struct transport_far *what)
{
    struct run *run = owner;
    uint32_t key = what->op == FAR_PLACE ? KEY_LOCAL : KEY_REMOTE;
    uint8_t *at = memory_at(run, what->addr, what->length);

    must(run->far && what->length > 0);
    if (!at || what->key != key)
        return FAR_REFUSED;
    if (what->addr % 5 == 4)
        return FAR_LATER;
    if (what->op <= FAR_WRITE)
        memcpy(at, what->bytes, what->length);
    else
        what->bytes = at;
    return FAR_DONE;
}

static void on_deliver(void *owner, const struct transport_arrival *arrival)
{
    struct run *run = owner;

    must(arrival->slot == (uint32_t)run->delivered && run->delivered < run->taken);
    must(arrival->byte_len <= 0x80000000u);
    run->delivered++;
}

static enum transport_status on_execute(void *owner, const struct transport_wr *wr)
{
    (void)owner;
    return wr->imm % 4 == 3 ? TRANSPORT_BIND_ERR : TRANSPORT_SUCCESS;
}

static void on_complete(void *owner, const struct transport_wr *wr, enum transport_status status,
                        uint32_t byte_len)
{
    struct run *run = owner;

    (void)status;
    (void)byte_len;
    must(wr->cookie == run->completed && run->completed < run->posted);
    run->completed++;
}

static void on_fail(void *owner, enum transport_failure failure)
{
    struct run *run = owner;

    run->over = run->over || failure != FAILED_SENDING || run->config.type != TRANSPORT_UC;
    if (run->over)
        transport_stop(run->t);
    transport_flush(run->t);
}

/* ---- the script ---- */

static void post(struct run *run)
{
    uint8_t what = byte(run);
    struct transport_sge sges[2] = {
        {word(run) % MEMORY, word(run) % MEMORY, KEY_LOCAL},
        {word(run) % MEMORY, what & 0x80 ? byte(run) : 0, what & 0x40 ? 0u : KEY_LOCAL},
    };
    struct transport_wr wr = {
        .cookie = run->posted,
        .op = (enum transport_op)(what % (TRANSPORT_SEND_INV + 1)),
        .flags = byte(run) % 4,
        .imm = byte(run),
        .rkey = KEY_REMOTE,
        .sge_count = 2,
        .sges = sges,
    };

    if (wr.op == TRANSPORT_COMPARE_SWAP || wr.op == TRANSPORT_FETCH_ADD)
        sges[0].length = 8, sges[1].length = 0;
    if (transport_post(run->t, &wr))
        run->posted++;
    if (run->over)
        transport_flush(run->t);
}

/* The payload lies in a block of its own length, so that a sanitizer sees one byte too many. */
static void give(struct run *run)
{
    uint8_t choice = byte(run);
    uint32_t base = choice & 1 ? run->psn_in : run->psn_out;
    struct wire_packet packet = {
        .opcode = byte(run),
        .ack_request = choice & 2,
        .solicited = choice & 4,
        .pkey = 0xffff,
        .psn = psn_add(base, (uint32_t)(int32_t)(int8_t)byte(run)),
        .rkey = choice & 8 ? 0 : KEY_REMOTE,
        .va = word(run) % (MEMORY + 64),
        .syndrome = byte(run),
        .msn = byte(run),
        .invalidate_rkey = choice & 16 ? KEY_REMOTE : 0,
        .swap_add = 1,
        .xrc_srqn = choice >> 6,
    };
    uint32_t length = choice & 32 ? run->config.mtu : word(run) % (WIRE_PAYLOAD_MAX + 1);
    unsigned traits = wire_traits(packet.opcode);

    packet.dma_length = choice & 64 ? length : word(run) << (choice & 128 ? 15 : 0);
    packet.payload_length = traits & WIRE_HAS_PAYLOAD ? length : 0;
    uint8_t *payload = malloc(packet.payload_length + 1) /* never of no length */;
    memset(payload, choice, packet.payload_length + 1);
    packet.payload = payload + 1;
    transport_receive(run->t, run->now, &packet, byte(run) == 1);
    free(payload);
}

static void move_psn(struct run *run)
{
    uint8_t by = byte(run);

    run->psn_in = psn_add(run->psn_in, by);
    run->psn_out = psn_add(run->psn_out, byte(run));
}

static void pump(struct run *run, unsigned most)
{
    struct transport_packet packet;
    unsigned count = 0;

    while (count++ < most && transport_next(run->t, run->now, &packet)) {
        uint32_t length = 0;

        for (unsigned i = 0; i < packet.part_count; i++)
            length += (uint32_t)packet.parts[i].iov_len;
        must(length == packet.headers.payload_length && length <= run->config.mtu);
        must(wire_headers_size(packet.headers.opcode) > 0);
    }
    must(count < PUMP_MAX);
}

static void expire(struct run *run)
{
    uint64_t deadline = transport_deadline(run->t);

    if (deadline == TRANSPORT_NEVER)
        return;
    run->now = deadline > run->now ? deadline : run->now;
    transport_expire(run->t, run->now);
}

static void step(struct run *run)
{
    switch (byte(run) % 8) {
    case 0:
        post(run);
        break;
    case 1:
        run->receives += byte(run) % 4;
        break;
    case 2:
        pump(run, byte(run) + 1u);
        break;
    case 3:
        expire(run);
        break;
    case 4:
        move_psn(run);
        break;
    case 5:
        run->now += word(run) * 100;
        break;
    default:
        give(run);
        break;
    }
}

static void configure(struct run *run)
{
    uint8_t choice = byte(run);

    run->config = (struct transport_config){
        .type = (enum transport_type)(choice % 3),
        .max_wr = DEPTH,
        .max_sge = 2,
        .max_inline = 64,
        .max_dest_rd_atomic = byte(run) % 5,
        .dest_qpn = 5,
        .pkey = 0xffff,
        .mtu = 256u << (choice >> 1) % 5,
        .timeout = 10,
        .retry_count = byte(run) % 8,
        .rnr_retry = byte(run) % 8,
        .max_rd_atomic = byte(run) % 5,
        .access = byte(run) % 8,
        .window = byte(run),
    };
    run->psn_in = run->psn_out = word(run) << 8 | byte(run);
}

/* Without the peer all ends by itself, and what is left is flushed. */
static void finish(struct run *run)
{
    for (unsigned i = 0; i < 1000 && transport_deadline(run->t) != TRANSPORT_NEVER; i++) {
        pump(run, PUMP_MAX);
        expire(run);
    }
    pump(run, PUMP_MAX);
    transport_stop(run->t);
    transport_flush(run->t);
    must(run->completed == run->posted && run->delivered == run->taken);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct transport_calls calls = {
        .local = on_local,
        .remote = on_remote,
        .may_invalidate = on_may_invalidate,
        .take = on_take,
        .receives = on_receives,
        .deliver = on_deliver,
        .aim = on_aim,
        .far = on_far,
        .execute = on_execute,
        .complete = on_complete,
        .fail = on_fail,
    };
    struct run run = {.at = data, .end = data + size};

    configure(&run);
    run.memory = calloc(1, MEMORY);
    run.t = run.memory ? transport_new(&run.config, &calls, &run) : NULL;
    if (run.t) {
        transport_start_receiving(run.t, run.psn_in);
        transport_start_sending(run.t, run.psn_out);
        while (run.at < run.end)
            step(&run);
        finish(&run);
    }
    transport_free(run.t);
    free(run.memory);
    return 0;
}
