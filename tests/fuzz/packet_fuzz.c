/* SPDX-License-Identifier: MIT */
/* Packets off the wire: whatever parses must be inside its bytes, and emit to the same headers. */
#include <stdlib.h>
#include <string.h>

#include "wire/icrc.h"
#include "wire/packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bits that parsing does not keep: the BTH's reserved ones. */
static void clear_reserved(uint8_t *bth)
{
    bth[4] &= 0xc0;
    bth[8] &= 0x80;
}

static void check_packet(const uint8_t *bytes, size_t size, const struct wire_packet *packet)
{
    uint8_t again[WIRE_HEADERS_MAX], first[WIRE_BTH_SIZE];
    size_t headers = wire_emit(packet, again);

    memcpy(first, bytes, sizeof(first));
    clear_reserved(first);
    if (headers != wire_headers_size(packet->opcode) || memcmp(again, first, sizeof(first)) != 0)
        abort();
    if (packet->payload && (packet->payload != bytes + headers ||
                            headers + packet->payload_length + WIRE_ICRC_SIZE > size))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wire_packet packet;
    struct icrc_path path = {.source = {[10] = 0xff, 0xff}, .target = {[10] = 0xff, 0xff}};
    struct icrc_unshift unshift = {0};
    uint8_t *bytes = malloc(size ? size : 1); /* exactly as long, so that a sanitizer sees */

    if (!bytes)
        return 0;
    if (size)
        memcpy(bytes, data, size);
    if (wire_parse(bytes, size, &packet))
        check_packet(bytes, size, &packet);
    icrc_judge(&path, bytes, size, &unshift, NULL);
    free(bytes);
    return 0;
}
