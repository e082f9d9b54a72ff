/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* decode: bytes of a compressed cluster, to the decoders.
 *
 * An input is one byte (zlib or zstd, and the size of a cluster), and the stream.
 *
 *  1. Decoding fills the cluster or fails with -EIO; it reads and writes within its buffers.
 *  2. What was encoded decodes to what it was. */
#include <errno.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "tests/fuzz/fuzz.h"

static void encode_and_back(const struct ash_node *node, const uint8_t *data, size_t bytes,
                            size_t unit)
{
    uint8_t *plain = g_malloc0(unit);
    uint8_t *coded = g_malloc(unit);
    memcpy(plain, data, MIN(bytes, unit));
    int ret = ash_qcow2_encode(node, plain, unit, coded, unit);
    if (ret > 0) {
        uint8_t *back = g_malloc(unit);
        uint8_t *exact = g_memdup2(coded, (gsize)ret);
        if (ash_qcow2_decode(node, NULL, exact, (size_t)ret, back, unit) < 0 ||
            memcmp(plain, back, unit) != 0) {
            fuzz_fail("%d bytes do not decode to what was encoded", ret);
        }
        g_free(exact);
        g_free(back);
    } else if (ret != -E2BIG) {
        fuzz_fail("encoding ends with %d", ret);
    }
    g_free(plain);
    g_free(coded);
}

void fuzz_one(const uint8_t *data, size_t bytes)
{
    struct fuzz_input input = {data, bytes};
    uint8_t head = fuzz_u8(&input);
    struct ash_qcow2_state *state = g_new0(struct ash_qcow2_state, 1);
    struct ash_node node = {.state = state};
    size_t unit = (size_t)512 << (head >> 1 & 7);
    state->coders =
        ash_qcow2_coders_new(head & 1 ? QCOW2_COMPRESSION_ZSTD : QCOW2_COMPRESSION_ZLIB);

    uint8_t *out = g_malloc(unit);
    uint8_t *again = g_malloc(unit);
    int ret = ash_qcow2_decode(&node, NULL, input.data, input.bytes, out, unit);
    if (ret != 0 && ret != -EIO) {
        fuzz_fail("decoding ends with %d", ret);
    }
    /* Once more with the context of the first time. */
    if (ash_qcow2_decode(&node, NULL, input.data, input.bytes, again, unit) != ret ||
        (ret == 0 && memcmp(out, again, unit) != 0)) {
        fuzz_fail("decoding twice gives two results");
    }
    encode_and_back(&node, input.data, input.bytes, unit);
    g_free(out);
    g_free(again);
    ash_qcow2_coders_free(state->coders);
    g_free(state);
}
