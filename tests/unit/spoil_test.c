/* SPDX-License-Identifier: MIT */
/*
 * Flipped bits (VIADUCT_FAULTS) cost time, never data: what is spoiled is refused, wherever the bit
 * is. The rest of the link is played by this test.
 */
#include "link/roce/roce_impl.h"

#include <string.h>

#include "core/config.h"
#include "core/process.h"
#include "t.h"

static struct config config = {.faults = {.any = true, .corrupt = UINT32_MAX, .seed = 1}};
static unsigned passed, believed;

const struct config *config_get(void)
{
    return &config;
}

uint32_t process_slot(void)
{
    return 1;
}

bool steer_is_probe(const struct roce_port *port, const uint8_t *bytes, size_t size)
{
    (void)port, (void)bytes, (void)size;
    return false;
}

void roce_due_at(uint64_t when_ns)
{
    (void)when_ns;
}

uint16_t roce_dispatch(const struct roce_from *from, const uint8_t *bytes, size_t size)
{
    struct icrc_unshift unshift = {0};
    uint16_t id = from->id;

    passed++;
    believed += icrc_judge(&from->icrc, bytes, size, &unshift, &id);
    return id;
}

T_TEST(spoil, nothing_spoiled_is_believed)
{
    enum { PACKETS = 20000, SIZE = 64 };
    struct roce_from from = {.icrc = {.source = {[10] = 0xff, 0xff, 10, 0, 0, 1},
                                      .target = {[10] = 0xff, 0xff, 10, 0, 0, 2},
                                      .source_port = 0xc000,
                                      .target_port = WIRE_UDP_PORT}};
    uint8_t bytes[SIZE] = {0};

    for (unsigned i = 0; i < PACKETS; i++) {
        memset(bytes, (int)i, SIZE);
        icrc_put(bytes + SIZE - WIRE_ICRC_SIZE, icrc_of(&from.icrc, (uint16_t)i, bytes, SIZE));
        faults_receive(&from, bytes, SIZE);
    }
    T_EQ(believed, 0u);
    T_ASSERT(passed > PACKETS * 9 / 10); /* the others the UDP checksum would have found */
}
