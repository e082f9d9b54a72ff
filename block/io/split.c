/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Splitting: aligned requests that are longer, or in more pieces, than a driver takes, and memory
 * that does not fit it.
 *
 * Invariants:
 *  1. What reaches the driver respects transfer_max, iov_max, zero_max, discard_max and both memory
 *     and request alignment.
 *  2. A write that is copied to a bounce buffer is copied once, whole chunk by chunk.
 *  3. What is to be coded passes whole: it is cut by units, and copied, where it is coded. */
#include "block/io/pipeline.h"
#include <errno.h>
#include "block/driver.h"
#include "util/assert.h"
#include "util/range.h"

#define BOUNCE_CHUNK_BYTES (1 * MiB)

static bool fits_memory(const struct ash_limits *limits, const struct ash_io *io)
{
    if (limits->memory_alignment > 1 &&
        !ash_iov_aligned(io->iov, io->bytes, limits->memory_alignment, limits->memory_alignment)) {
        return false;
    }
    return limits->iov_max == 0 || io->iov.count <= limits->iov_max ||
           ash_iov_pieces(io->iov, io->bytes) <= limits->iov_max;
}

ASH_CO_FN static int bounced(struct ash_node *node, const struct ash_io *io)
{
    size_t alignment = ASH_MAX(node->limits.memory_alignment, 16);
    void *buffer = ash_buffer_alloc(node->loop, io->bytes, alignment);
    if (buffer == NULL) {
        return -ENOMEM;
    }
    struct iovec vec = {buffer, io->bytes};
    struct ash_io copy = *io;
    copy.iov = ash_iov_of(&vec, 1);
    if (io->op == ASH_WRITE) {
        ash_iov_to_buffer(io->iov, buffer, io->bytes);
    }
    int ret = ash_dispatch(node, &copy);
    if (ret >= 0 && io->op == ASH_READ) {
        ash_iov_from_buffer(io->iov, buffer, io->bytes);
    }
    ash_buffer_free(node->loop, buffer, io->bytes);
    return ret;
}

int ash_split_run(struct ash_node *node, const struct ash_io *io)
{
    const struct ash_limits *limits = &node->limits;
    if (ash_unlikely((io->flags & ASH_IO_COMPRESS) != 0)) {
        return ash_dispatch(node, io);
    }
    bool fits = ash_likely(limits->memory_alignment <= 1 && limits->iov_max == 0) ||
                fits_memory(limits, io);
    if (fits && (limits->transfer_max == 0 || io->bytes <= limits->transfer_max)) {
        return ash_dispatch(node, io);
    }
    uint64_t chunk = limits->transfer_max != 0 ? limits->transfer_max : io->bytes;
    if (!fits) {
        chunk = ASH_MIN(chunk, BOUNCE_CHUNK_BYTES);
    }
    struct ash_io part = *io;
    for (uint64_t done = 0; done < io->bytes; done += part.bytes) {
        part.offset = io->offset + done;
        part.bytes = ASH_MIN(chunk, io->bytes - done);
        part.padding_bytes = done + part.bytes == io->bytes ? io->padding_bytes : 0;
        part.iov = ash_iov_advance(io->iov, done);
        int ret = fits ? ash_dispatch(node, &part) : bounced(node, &part);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}
