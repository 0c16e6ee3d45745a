/* SPDX-License-Identifier: MIT */
/* The pcapng writer: a section header, two interfaces, then a block a packet. */
#define _GNU_SOURCE
#include "trace/pcapng.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <time.h>

#include "core/sys.h"

enum {
    BLOCK_SECTION = 0x0a0d0d0a,
    BLOCK_INTERFACE = 1,
    BLOCK_PACKET = 6,
    ORDER_MAGIC = 0x1a2b3c4d,
    LINKTYPE_RAW = 101, /* begins with an IP header */
    OPTION_END = 0,
    OPTION_IF_NAME = 2,
    OPTION_IF_DESCRIPTION = 3,
    OPTION_IF_TSRESOL = 9,
    OPTION_PACKET_FLAGS = 2,
    NANOSECONDS = 9,
    IP4_SIZE = 20,
    IP6_SIZE = 40,
    UDP_SIZE = 8,
    UDP_PROTOCOL = 17,
    HEADERS_MAX = IP6_SIZE + UDP_SIZE,
};

static int file = -1;

bool pcapng_is_open(void)
{
    return file >= 0;
}

/* ---- blocks ---- */

struct block {
    uint32_t words[128];
    size_t count;
};

static void put(struct block *block, uint32_t word)
{
    block->words[block->count++] = word;
}

static void put_option(struct block *block, uint16_t code, const void *value, size_t size)
{
    put(block, (uint32_t)size << 16 | code);
    size_t words = (size + 3) / 4;
    memset(&block->words[block->count], 0, words * 4);
    memcpy(&block->words[block->count], value, size);
    block->count += words;
}

static void begin(struct block *block, uint32_t type)
{
    block->count = 0;
    put(block, type);
    put(block, 0);
}

static void write_block(struct block *block)
{
    block->words[1] = (uint32_t)(block->count + 1) * 4;
    put(block, block->words[1]);
    (void)!sys_write(file, block->words, block->count * 4);
}

static void write_section(void)
{
    static const char application[] = "viaduct";
    struct block block;

    begin(&block, BLOCK_SECTION);
    put(&block, ORDER_MAGIC);
    put(&block, 1);          /* version 1.0 */
    put(&block, UINT32_MAX); /* of no known length: 64 bits of ones */
    put(&block, UINT32_MAX);
    put_option(&block, 4, application, sizeof(application) - 1);
    put(&block, OPTION_END);
    write_block(&block);
}

static void write_interface(const char *direction)
{
    char process[16] = "", name[32], description[80];
    uint8_t resolution = NANOSECONDS;
    struct block block;

    prctl(PR_GET_NAME, process);
    snprintf(name, sizeof(name), "viaduct-%s", direction);
    snprintf(description, sizeof(description), "%s[%d] %s", process, (int)getpid(), direction);
    begin(&block, BLOCK_INTERFACE);
    put(&block, LINKTYPE_RAW);
    put(&block, 0); /* packets are whole */
    put_option(&block, OPTION_IF_NAME, name, strlen(name));
    put_option(&block, OPTION_IF_DESCRIPTION, description, strlen(description));
    put_option(&block, OPTION_IF_TSRESOL, &resolution, 1);
    put(&block, OPTION_END);
    write_block(&block);
}

/* ---- the file ---- */

static int open_locked(const char *path)
{
    int fd = own_fd(sys_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));

    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && ftruncate(fd, 0) == 0)
        return fd;
    sys_close(fd);
    return -EBUSY;
}

int pcapng_open(const char *path)
{
    char other[4096];
    int fd = open_locked(path);

    if (fd == -EBUSY) {
        snprintf(other, sizeof(other), "%s.%d", path, (int)getpid());
        fd = open_locked(other);
    }
    if (fd < 0)
        return fd;
    file = fd;
    write_section();
    write_interface("sent");
    write_interface("received");
    return 0;
}

/* ---- packets ---- */

static void put16(uint8_t *at, size_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

/* The sum of IP's checksums, not folded yet. */
static uint64_t sum_of(const uint8_t *bytes, size_t size)
{
    uint64_t sum = 0;

    for (size_t i = 0; i + 1 < size; i += 2)
        sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    return size % 2 ? sum + ((uint32_t)bytes[size - 1] << 8) : sum;
}

static uint16_t fold(uint64_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static size_t put_ip(const struct icrc_path *path, uint8_t traffic_class, uint8_t hop_limit,
                     uint16_t id, size_t length, uint8_t *at)
{
    memset(at, 0, HEADERS_MAX);
    if (!icrc_path_is_v4(path)) {
        at[0] = (uint8_t)(0x60 | traffic_class >> 4);
        at[1] = (uint8_t)(traffic_class << 4);
        put16(at + 4, length);
        at[6] = UDP_PROTOCOL;
        at[7] = hop_limit;
        memcpy(at + 8, path->source, 16);
        memcpy(at + 24, path->target, 16);
        return IP6_SIZE;
    }
    at[0] = 0x45;
    at[1] = traffic_class;
    put16(at + 2, IP4_SIZE + length);
    put16(at + 4, id);
    at[6] = 0x40; /* DF */
    at[8] = hop_limit;
    at[9] = UDP_PROTOCOL;
    memcpy(at + 12, path->source + 12, 4);
    memcpy(at + 16, path->target + 12, 4);
    put16(at + 10, fold(sum_of(at, IP4_SIZE)));
    return IP4_SIZE;
}

/* As the kernel makes it: 0 would say that there is none, which IPv6 does not allow. */
static uint16_t udp_checksum(const struct icrc_path *path, const uint8_t *udp,
                             const uint8_t *payload, size_t size)
{
    unsigned skip = icrc_path_is_v4(path) ? 12 : 0;
    uint64_t sum = sum_of(path->source + skip, 16 - skip) + sum_of(path->target + skip, 16 - skip) +
                   UDP_PROTOCOL + UDP_SIZE + size;
    uint16_t checksum = fold(sum + sum_of(udp, UDP_SIZE) + sum_of(payload, size));

    return checksum ? checksum : 0xffff;
}

static size_t put_headers(const struct icrc_path *path, uint8_t traffic_class, uint8_t hop_limit,
                          uint16_t id, const uint8_t *payload, size_t size, uint8_t *at)
{
    size_t ip = put_ip(path, traffic_class, hop_limit, id, UDP_SIZE + size, at);

    put16(at + ip, path->source_port);
    put16(at + ip + 2, path->target_port);
    put16(at + ip + 4, UDP_SIZE + size);
    put16(at + ip + 6, 0);
    put16(at + ip + 6, udp_checksum(path, at + ip, payload, size));
    return ip + UDP_SIZE;
}

void pcapng_write(enum pcapng_direction direction, const struct icrc_path *path,
                  uint8_t traffic_class, uint8_t hop_limit, uint16_t id, const uint8_t *payload,
                  size_t size)
{
    uint8_t headers[HEADERS_MAX];
    static const uint8_t zeroes[4];
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t ns = (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
    size_t head = put_headers(path, traffic_class, hop_limit, id, payload, size, headers);
    uint32_t captured = (uint32_t)(head + size), pad = -captured & 3;
    uint32_t total = 28 + captured + pad + 12 + 4;
    uint32_t front[7] = {
        BLOCK_PACKET, total,   direction == PCAPNG_RECEIVED, (uint32_t)(ns >> 32), (uint32_t)ns,
        captured,     captured};
    uint32_t back[4] = {4u << 16 | OPTION_PACKET_FLAGS, direction == PCAPNG_RECEIVED ? 1 : 2,
                        OPTION_END, total};
    struct iovec parts[] = {
        {front, sizeof(front)},           {headers, head},      {(void *)(uintptr_t)payload, size},
        {(void *)(uintptr_t)zeroes, pad}, {back, sizeof(back)},
    };
    (void)!writev(file, parts, sizeof(parts) / sizeof(parts[0]));
}

void pcapng_after_fork(void)
{
    if (file >= 0)
        sys_close(file);
    file = -1;
}
