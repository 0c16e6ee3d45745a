/* SPDX-License-Identifier: MIT */
/* The pcapng writer: what it wrote is read back, block by block. */
#include "trace/pcapng.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "scratch.h"

enum {
    SECTION = 0x0a0d0d0a,
    INTERFACE = 1,
    PACKET = 6,
    FILE_MAX = 4 << 20,
    THREADS = 4,
    PACKETS = 200, /* of a thread */
};

/* The file as it is, and how far it was read. */
static uint8_t file[FILE_MAX];
static size_t file_size, at;

struct block {
    uint32_t type, size;
    const uint8_t *body; /* behind type and size */
    size_t body_size;
};

static const struct icrc_path v4 = {
    .source = {[10] = 0xff, 0xff, 192, 0, 2, 1},
    .target = {[10] = 0xff, 0xff, 192, 0, 2, 2},
    .source_port = 0xc123,
    .target_port = 4791,
};

static const struct icrc_path v6 = {
    .source = {0xfd, 9, [15] = 1},
    .target = {0xfd, 9, [15] = 2},
    .source_port = 0xffff,
    .target_port = 4791,
};

/* The test's own folder. */
static const char *folder;

static const char *path_of(const char *name)
{
    return pathf("%s/%s", folder, name);
}

static void load(const char *path)
{
    int fd = open(path, O_RDONLY);

    T_ASSERT(fd >= 0, "%s: %s", path, strerror(errno));
    ssize_t size = read(fd, file, sizeof(file));
    close(fd);
    T_ASSERT(size > 0 && size < (ssize_t)sizeof(file));
    file_size = (size_t)size;
    at = 0;
}

static uint32_t word(const uint8_t *from)
{
    uint32_t value;

    memcpy(&value, from, sizeof(value));
    return value;
}

static uint16_t big16(const uint8_t *from)
{
    return (uint16_t)(from[0] << 8 | from[1]);
}

/* Each block has its size at both ends, in whole words. */
static struct block next_block(void)
{
    T_ASSERT(at + 12 <= file_size, "the file ends at %zu", file_size);
    struct block block = {.type = word(file + at), .size = word(file + at + 4)};

    T_ASSERT(block.size >= 12 && block.size % 4 == 0 && block.size <= file_size - at);
    T_EQ(word(file + at + block.size - 4), block.size);
    block.body = file + at + 8;
    block.body_size = block.size - 12;
    at += block.size;
    return block;
}

/* The value of an option; its list must end as it should. */
static const uint8_t *option(const uint8_t *list, const uint8_t *end, uint16_t code, size_t *size)
{
    const uint8_t *found = NULL;

    for (;;) {
        T_ASSERT(list + 4 <= end);
        uint16_t this = (uint16_t)word(list), length = (uint16_t)(word(list) >> 16);
        if (this == 0) {
            T_EQ(length, 0);
            T_EQ(list + 4 - end, 0);
            return found;
        }
        if (this == code) {
            found = list + 4;
            *size = length;
        }
        list += 4 + (length + 3u) / 4 * 4;
    }
}

static void expect_text(const struct block *block, size_t skip, uint16_t code, const char *text)
{
    size_t size = 0;
    const uint8_t *value = option(block->body + skip, block->body + block->body_size, code, &size);

    T_ASSERT(value && size == strlen(text) && !memcmp(value, text, size), "%.*s, not %s", (int)size,
             value ? (const char *)value : "", text);
}

static void expect_section(void)
{
    struct block block = next_block();

    T_EQ(block.type, SECTION);
    T_EQ(word(block.body), 0x1a2b3c4d);
    T_EQ(word(block.body + 4), 1); /* version 1.0 */
    T_EQ(word(block.body + 8), UINT32_MAX);
    T_EQ(word(block.body + 12), UINT32_MAX);
    expect_text(&block, 16, 4, "viaduct");
}

static void expect_interface(const char *direction)
{
    struct block block = next_block();
    char name[16] = "", text[80];
    size_t size = 0;

    T_EQ(block.type, INTERFACE);
    T_EQ(word(block.body), 101); /* raw IP, and nothing reserved */
    T_EQ(word(block.body + 4), 0);
    snprintf(text, sizeof(text), "viaduct-%s", direction);
    expect_text(&block, 8, 2, text);
    prctl(PR_GET_NAME, name);
    snprintf(text, sizeof(text), "%s[%d] %s", name, (int)getpid(), direction);
    expect_text(&block, 8, 3, text);
    const uint8_t *resolution = option(block.body + 8, block.body + block.body_size, 9, &size);
    T_ASSERT(resolution && size == 1 && *resolution == 9);
}

static void expect_start(void)
{
    expect_section();
    expect_interface("sent");
    expect_interface("received");
}

static uint64_t wall_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* A packet block; what it holds. */
static const uint8_t *expect_packet(enum pcapng_direction direction, uint32_t size,
                                    uint64_t *time_out)
{
    struct block block = next_block();
    const uint8_t *packet = block.body + 20;
    size_t flags_size = 0;

    T_EQ(block.type, PACKET);
    T_EQ(word(block.body), direction == PCAPNG_RECEIVED);
    *time_out = (uint64_t)word(block.body + 4) << 32 | word(block.body + 8);
    T_EQ(word(block.body + 12), size);
    T_EQ(word(block.body + 16), size);
    for (uint32_t i = size; i % 4; i++)
        T_EQ(packet[i], 0);
    const uint8_t *flags =
        option(packet + (size + 3) / 4 * 4, block.body + block.body_size, 2, &flags_size);
    T_ASSERT(flags && flags_size == 4);
    T_EQ(word(flags), direction == PCAPNG_RECEIVED ? 1 : 2); /* inbound, outbound */
    return packet;
}

static uint32_t sum_of(const uint8_t *bytes, size_t size)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < size; i++)
        sum += (uint32_t)bytes[i] << (i % 2 ? 0 : 8);
    return sum;
}

/* The checksum is right if all of it, addresses included, sums up to ones. */
static void expect_checksum(const uint8_t *udp, const struct icrc_path *path, size_t size)
{
    unsigned skip = path == &v4 ? 12 : 0;
    uint32_t sum = sum_of(path->source + skip, 16 - skip) + sum_of(path->target + skip, 16 - skip);

    sum += 17 + (uint32_t)size + sum_of(udp, size);
    T_ASSERT(big16(udp + 6) != 0);
    sum = (sum & 0xffff) + (sum >> 16);
    T_EQ((sum & 0xffff) + (sum >> 16), 0xffff);
}

static void expect_udp(const uint8_t *udp, const struct icrc_path *path, const uint8_t *payload,
                       size_t size)
{
    T_EQ(big16(udp), path->source_port);
    T_EQ(big16(udp + 2), path->target_port);
    T_EQ(big16(udp + 4), 8 + size);
    expect_checksum(udp, path, 8 + size);
    T_ASSERT(!memcmp(udp + 8, payload, size));
}

static void expect_v4(const uint8_t *packet, size_t size)
{
    uint32_t sum = 0;

    T_EQ(packet[0], 0x45);
    T_EQ(packet[1], 0x2e);
    T_EQ(big16(packet + 2), 28 + size);
    T_EQ(big16(packet + 4), 0xabcd);
    T_EQ(big16(packet + 6), 0x4000); /* don't fragment */
    T_EQ(packet[8], 63);
    T_EQ(packet[9], 17);
    T_ASSERT(!memcmp(packet + 12, v4.source + 12, 4) && !memcmp(packet + 16, v4.target + 12, 4));
    for (unsigned i = 0; i < 20; i += 2)
        sum += big16(packet + i);
    T_EQ((sum & 0xffff) + (sum >> 16), 0xffff);
}

T_TEST(pcapng, packets)
{
    /* Every remainder of a packet's size by four, both directions, both versions of IP. */
    uint8_t payload[64];
    uint64_t times[9];

    folder = scratch();
    for (unsigned i = 0; i < sizeof(payload); i++)
        payload[i] = (uint8_t)(255 - i);
    T_EQ(pcapng_open(path_of("capture")), 0);
    T_ASSERT(pcapng_is_open());
    uint64_t before = wall_ns();
    for (unsigned i = 0; i < 4; i++) {
        pcapng_write(PCAPNG_SENT, &v4, 0x2e, 63, 0xabcd, payload, 40 + i);
        pcapng_write(PCAPNG_RECEIVED, &v6, 0xa5, 1, 0xabcd, payload, 60 + i);
    }
    uint64_t after = wall_ns();
    pcapng_after_fork();
    load(path_of("capture"));
    expect_start();
    for (unsigned i = 0; i < 4; i++) {
        const uint8_t *packet = expect_packet(PCAPNG_SENT, 28 + 40 + i, &times[2 * i]);
        expect_v4(packet, 40 + i);
        expect_udp(packet + 20, &v4, payload, 40 + i);
        packet = expect_packet(PCAPNG_RECEIVED, 48 + 60 + i, &times[2 * i + 1]);
        T_EQ(word(packet), 0x0000506a); /* version 6, class 0xa5, no flow */
        T_EQ(big16(packet + 4), 8 + 60 + i);
        T_ASSERT(packet[6] == 17 && packet[7] == 1);
        T_ASSERT(!memcmp(packet + 8, v6.source, 16) && !memcmp(packet + 24, v6.target, 16));
        expect_udp(packet + 40, &v6, payload, 60 + i);
    }
    T_EQ(at, file_size);
    for (unsigned i = 0; i < 8; i++)
        T_ASSERT(times[i] >= (i ? times[i - 1] : before) && times[i] <= after);
}

T_TEST(pcapng, largest_packet)
{
    static uint8_t payload[4096 + 56];
    uint64_t when;

    folder = scratch();
    memset(payload, 0x5a, sizeof(payload));
    T_EQ(pcapng_open(path_of("capture")), 0);
    pcapng_write(PCAPNG_SENT, &v6, 0, 64, 0, payload, sizeof(payload));
    pcapng_after_fork();
    load(path_of("capture"));
    expect_start();
    const uint8_t *packet = expect_packet(PCAPNG_SENT, 48 + sizeof(payload), &when);
    expect_udp(packet + 40, &v6, payload, sizeof(payload));
    T_EQ(at, file_size);
}

T_TEST(pcapng, old_file_is_overwritten)
{
    folder = scratch();
    FILE *old = fopen(path_of("capture"), "w");
    T_ASSERT(old);
    for (unsigned i = 0; i < 1000; i++)
        fputs("old old old ", old);
    fclose(old);
    T_EQ(pcapng_open(path_of("capture")), 0);
    pcapng_after_fork();
    load(path_of("capture"));
    expect_start();
    T_EQ(at, file_size);
}

T_TEST(pcapng, file_of_another)
{
    /* Somebody is writing it: the process's number goes behind the name, and that file is whole. */
    char other[4200];
    struct stat theirs;

    folder = scratch();
    int fd = open(path_of("capture"), O_WRONLY | O_CREAT, 0600);
    T_ASSERT(fd >= 0 && flock(fd, LOCK_EX) == 0);
    T_EQ(pcapng_open(path_of("capture")), 0);
    pcapng_after_fork();
    T_EQ(fstat(fd, &theirs), 0);
    T_EQ(theirs.st_size, 0);
    close(fd);
    snprintf(other, sizeof(other), "%s.%d", path_of("capture"), (int)getpid());
    load(other);
    expect_start();
    T_EQ(at, file_size);
}

T_TEST(pcapng, private_to_its_user)
{
    struct stat made;

    folder = scratch();
    T_EQ(pcapng_open(path_of("capture")), 0);
    pcapng_after_fork();
    T_EQ(stat(path_of("capture"), &made), 0);
    T_EQ(made.st_mode & 0777, 0600);
}

T_TEST(pcapng, where_no_file_can_be)
{
    folder = scratch();
    T_EQ(pcapng_open(path_of("missing/capture")), -ENOENT);
    T_ASSERT(!pcapng_is_open());
    T_EQ(pcapng_open(folder), -EISDIR);
    T_ASSERT(!pcapng_is_open());
}

static void *write_many(void *argument)
{
    uint8_t payload[300];

    memset(payload, (int)(uintptr_t)argument, sizeof(payload));
    for (unsigned i = 0; i < PACKETS; i++)
        pcapng_write(PCAPNG_SENT, &v4, 0, 64, 0, payload, 16 + i % 256);
    return NULL;
}

T_TEST(pcapng, threads)
{
    /* A packet is one write: the blocks of several threads never mix. */
    pthread_t threads[THREADS];
    unsigned counts[THREADS] = {0};

    folder = scratch();
    T_EQ(pcapng_open(path_of("capture")), 0);
    for (uintptr_t i = 0; i < THREADS; i++)
        T_EQ(pthread_create(&threads[i], NULL, write_many, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pcapng_after_fork();
    load(path_of("capture"));
    expect_start();
    while (at < file_size) {
        struct block block = next_block();
        const uint8_t *payload = block.body + 20 + 28;
        uint32_t size = word(block.body + 12) - 28;

        T_EQ(block.type, PACKET);
        T_ASSERT(payload[0] < THREADS);
        T_EQ(size, 16 + counts[payload[0]]++ % 256);
        for (uint32_t i = 0; i < size; i++)
            T_EQ(payload[i], payload[0]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        T_EQ(counts[i], PACKETS);
}
