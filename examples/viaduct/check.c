/* SPDX-License-Identifier: MIT */
/*
 * The checked pass: every byte of every message is known beforehand and compared afterwards.
 *
 * A message's pattern comes from its number, so a lost, doubled, torn or stale message shows.
 * Writes and reads are announced by a send without data, which the verbs order behind them.
 */
#include "channel.h"
#include "cmd.h"
#include "measure.h"
#include "pass.h"
#include "wait.h"

#include <inttypes.h>
#include <string.h>

struct check {
    struct rig *rig;
    bool client;
    enum measure_op op;
    size_t size;
};

/* Byte i of message n: a multiplicative hash, different in each byte and message. */
static unsigned char pattern(uint64_t n, size_t i)
{
    uint64_t x = (n * UINT64_C(0x9e3779b97f4a7c15)) ^ ((uint64_t)i * UINT64_C(0xff51afd7ed558ccd));

    return (unsigned char)(x >> 56 ^ x >> 24);
}

static void fill(char *buffer, size_t size, uint64_t n)
{
    for (size_t i = 0; i < size; i++)
        buffer[i] = (char)pattern(n, i);
}

static int compare(const struct check *check, const char *buffer, uint64_t n)
{
    for (size_t i = 0; i < check->size; i++) {
        unsigned char got = (unsigned char)buffer[i];

        if (got != pattern(n, i)) {
            complain("wrong data: %s of %zu bytes, message %" PRIu64 ", byte %zu is 0x%02x and "
                     "should be 0x%02x",
                     measure_op_names[check->op], check->size, n, i, got, pattern(n, i));
            return CMD_FAILED;
        }
    }
    return CMD_OK;
}

static int request(const struct check *check, enum measure_op op, size_t size)
{
    struct pass pass = {.rig = check->rig, .which = {.test = TEST_BW, .op = op, .size = size}};
    struct ibv_sge sge;
    struct ibv_send_wr wr;
    struct ibv_wc wc;

    pass_request(&pass, &sge, &wr);
    wr.num_sge = size > 0 ? 1 : 0;
    wr.send_flags |= IBV_SEND_SIGNALED;
    if (pass_post(check->rig->qps[0], &wr) != CMD_OK)
        return CMD_FAILED;
    return wait_completions(check->rig, check->rig->send_cq, 1, &wc) < 0 ? CMD_FAILED : CMD_OK;
}

/* "Your turn": a send without data. */
static int announce(const struct check *check)
{
    return request(check, OP_SEND, 0);
}

static int receive(const struct check *check, size_t size)
{
    struct pass pass = {.rig = check->rig};
    struct ibv_wc wc;

    if (wait_completions(check->rig, check->rig->recv_cq, 1, &wc) < 0)
        return CMD_FAILED;
    if (wc.byte_len != size) {
        complain("wrong length: a receive says %u bytes, %zu were sent", wc.byte_len, size);
        return CMD_FAILED;
    }
    return pass_post_recvs(&pass, 0, 1);
}

static int give(const struct check *check, uint64_t n)
{
    fill(check->rig->send_part, check->size, n);
    if (check->op == OP_SEND)
        return request(check, OP_SEND, check->size);
    return request(check, OP_WRITE, check->size) == CMD_OK ? announce(check) : CMD_FAILED;
}

static int take(const struct check *check, uint64_t n)
{
    if (receive(check, check->op == OP_SEND ? check->size : 0) != CMD_OK)
        return CMD_FAILED;
    return compare(check, check->rig->recv_part, n);
}

/* send and write: message 2r goes to the server, 2r + 1 comes back. */
static int round_trip(const struct check *check, uint64_t r)
{
    if (check->client)
        return give(check, 2 * r) == CMD_OK ? take(check, 2 * r + 1) : CMD_FAILED;
    return take(check, 2 * r) == CMD_OK ? give(check, 2 * r + 1) : CMD_FAILED;
}

/* read: the server fills its memory and says so, the client reads, compares and says so. */
static int round_read(const struct check *check, uint64_t r)
{
    if (!check->client) {
        fill(check->rig->recv_part, check->size, r);
        return announce(check) == CMD_OK ? receive(check, 0) : CMD_FAILED;
    }
    memset(check->rig->send_part, 0, check->size);
    if (receive(check, 0) != CMD_OK || request(check, OP_READ, check->size) != CMD_OK ||
        compare(check, check->rig->send_part, r) != CMD_OK)
        return CMD_FAILED;
    return announce(check);
}

/* atomic: the client counts up the server's zeroed word; each answer is the count before. */
static int round_atomic(const struct check *check, uint64_t r)
{
    uint64_t before;

    if (!check->client) {
        if (r > 0)
            return CMD_OK;
        memset(check->rig->recv_part, 0, sizeof(before));
        return announce(check);
    }
    if ((r == 0 && receive(check, 0) != CMD_OK) ||
        request(check, OP_ATOMIC, sizeof(before)) != CMD_OK)
        return CMD_FAILED;
    memcpy(&before, check->rig->send_part, sizeof(before));
    if (before == r)
        return CMD_OK;
    complain("wrong count: fetch and add number %" PRIu64 " found %" PRIu64, r, before);
    return CMD_FAILED;
}

int check_run(struct rig *rig, bool client, enum measure_op op, size_t size, unsigned rounds)
{
    struct check check = {.rig = rig, .client = client, .op = op, .size = size};
    int code = CMD_OK;

    for (uint64_t r = 0; r < rounds && code == CMD_OK; r++) {
        if (op == OP_ATOMIC)
            code = round_atomic(&check, r);
        else
            code = op == OP_READ ? round_read(&check, r) : round_trip(&check, r);
    }
    /* The server must not touch its memory while the client still counts. */
    if (code == CMD_OK && channel_sync(rig->channel) != 0) {
        complain("the other side is gone");
        code = CMD_FAILED;
    }
    return code;
}
