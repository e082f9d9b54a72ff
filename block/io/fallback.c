/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zero and discard on drivers that do less than was asked.
 *
 * Invariants:
 *  1. A write of zeroes leaves zeroes: where a driver cannot do it, or the range does not fill its
 *     blocks, zeroes are written as data, unless NO_FALLBACK forbids it. Discard never stands in
 * for it.
 *  2. A discard is advice: what does not fit is dropped, and -ENOTSUP is success.
 *  3. FUA of a zero operation is a flush after it: no driver has it otherwise. */
#include "block/io/pipeline.h"
#include <errno.h>
#include <string.h>
#include "block/driver.h"
#include "util/assert.h"
#include "util/range.h"

#define ZERO_BUFFER_BYTES (1 * MiB)

/* Writes zeroes as data, in chunks of a bounded buffer. The padding of unaligned ends is within the
 * range that the caller has tracked. */
ASH_CO_FN static int write_zeroes(struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    uint64_t chunk = ASH_MIN(bytes, ZERO_BUFFER_BYTES);
    uint8_t *buffer =
        ash_buffer_alloc(node->loop, chunk, ASH_MAX(node->limits.memory_alignment, 16));
    if (buffer == NULL) {
        return -ENOMEM;
    }
    memset(buffer, 0, chunk);
    struct iovec vec = {buffer, chunk};
    int ret = 0;
    for (uint64_t done = 0; done < bytes && ret >= 0; done += chunk) {
        chunk = ASH_MIN(chunk, bytes - done);
        struct ash_io io = {
            .op = ASH_WRITE, .offset = offset + done, .bytes = chunk, .iov = ash_iov_of(&vec, 1)};
        struct ash_alignment alignment;
        ash_align_plan(node, &io, &alignment);
        ret = alignment.head != 0 || alignment.tail != 0 ? ash_align_run(node, &io, &alignment)
                                                         : ash_split_run(node, &io);
    }
    ash_buffer_free(node->loop, buffer, vec.iov_len);
    return ret;
}

/* The part that fills the driver's blocks, by its own means. -ENOTSUP says from where on (*done)
 * data has to be written. */
ASH_CO_FN static int zero_natively(struct ash_node *node, uint64_t unit, uint64_t offset,
                                   uint64_t bytes, uint32_t flags, uint64_t *done)
{
    uint64_t chunk = ash_align_down(node->limits.zero_max, unit);
    chunk = chunk != 0 ? chunk : bytes;
    for (*done = 0; *done < bytes;) {
        struct ash_io io = {.op = ASH_ZERO,
                            .flags = flags,
                            .offset = offset + *done,
                            .bytes = ASH_MIN(chunk, bytes - *done)};
        int ret = ash_dispatch(node, &io);
        if (ret < 0) {
            return ret;
        }
        *done += io.bytes;
    }
    return 0;
}

int ash_zero_run(struct ash_node *node, const struct ash_io *io)
{
    uint64_t unit = node->limits.zero_alignment != 0 ? node->limits.zero_alignment
                                                     : node->limits.request_alignment;
    uint32_t flags = io->flags & ~ASH_REQ_FUA;
    uint64_t end = io->offset + io->bytes;
    uint64_t start = ASH_MIN(ash_align_up(io->offset, unit), end);
    uint64_t stop = ASH_MAX(ash_align_down(end, unit), start);
    uint64_t done = 0;

    if ((flags & ASH_REQ_NO_FALLBACK) != 0 && (io->offset < start || stop < end)) {
        return -ENOTSUP;
    }
    int ret = zero_natively(node, unit, start, stop - start, flags, &done);
    if (ret == -ENOTSUP && (flags & ASH_REQ_NO_FALLBACK) == 0) {
        ret = write_zeroes(node, start + done, stop - start - done);
    }
    if (ret >= 0 && io->offset < start) {
        ret = write_zeroes(node, io->offset, start - io->offset);
    }
    if (ret >= 0 && stop < end) {
        ret = write_zeroes(node, stop, end - stop);
    }
    if (ret >= 0 && (io->flags & ASH_REQ_FUA) != 0) {
        struct ash_io flush = {.op = ASH_FLUSH};
        ret = ash_dispatch(node, &flush);
    }
    return ret;
}

int ash_discard_run(struct ash_node *node, const struct ash_io *io)
{
    if ((node->flags & ASH_NODE_DISCARD) == 0) {
        return 0;
    }
    uint64_t unit = node->limits.discard_alignment != 0 ? node->limits.discard_alignment
                                                        : node->limits.request_alignment;
    uint64_t end = io->offset + io->bytes;
    uint64_t start = ash_align_up(io->offset, unit);
    uint64_t stop = end == node->size_bytes ? end : ash_align_down(end, unit);
    uint64_t chunk = ash_align_down(node->limits.discard_max, unit);
    chunk = chunk != 0 ? chunk : io->bytes;
    while (start < stop) {
        struct ash_io part = {.op = ASH_DISCARD,
                              .flags = io->flags,
                              .offset = start,
                              .bytes = ASH_MIN(chunk, stop - start)};
        int ret = ash_dispatch(node, &part);
        if (ret < 0) {
            return ret == -ENOTSUP ? 0 : ret;
        }
        start += part.bytes;
    }
    return 0;
}
