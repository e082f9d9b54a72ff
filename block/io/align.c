/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Alignment: requests that do not fit the blocks of a node.
 *
 * Invariants:
 *  1. The plan only computes; the tracked range is what it says.
 *  2. A padded write reads the blocks that it covers in part, and writes whole blocks. It
 * serialises, so nobody writes to those blocks in between. What it adds at the end is named to the
 * driver, as the end of the node may lie in it.
 *  3. A short request goes through one bounce buffer. A long one is cut into a first block, an
 * aligned middle that needs no copy, and a last block, so memory is bounded. */
#include "block/io/pipeline.h"
#include <errno.h>
#include <string.h>
#include "util/assert.h"
#include "util/range.h"

#define BOUNCE_WHOLE_BYTES (128 * KiB)

void ash_align_plan(const struct ash_node *node, const struct ash_io *io,
                    struct ash_alignment *alignment)
{
    uint32_t block = node->limits.request_alignment;
    uint64_t end = io->offset + io->bytes;
    if (ash_likely(block == 1 || io->op == ASH_DISCARD || io->op == ASH_STATUS ||
                   io->op == ASH_FLUSH)) {
        *alignment = (struct ash_alignment){io->offset, io->bytes, 0, 0};
        return;
    }
    alignment->offset = ash_align_down(io->offset, block);
    alignment->bytes = ash_align_up(end, block) - alignment->offset;
    alignment->head = (uint32_t)(io->offset - alignment->offset);
    alignment->tail = (uint32_t)(alignment->offset + alignment->bytes - end);
}

ASH_CO_FN static int raw_io(struct ash_node *node, uint8_t op, uint64_t offset, void *buffer,
                            uint64_t bytes, uint32_t flags, uint32_t padding_bytes)
{
    struct iovec vec = {buffer, bytes};
    struct ash_io io = {.op = op,
                        .flags = flags,
                        .offset = offset,
                        .bytes = bytes,
                        .iov = ash_iov_of(&vec, 1),
                        .padding_bytes = padding_bytes};
    return ash_split_run(node, &io);
}

/* Reads the first and the last block of a padded write, where they are not overwritten whole. */
ASH_CO_FN static int fill_edges(struct ash_node *node, uint8_t *buffer, uint64_t offset,
                                uint64_t bytes, uint32_t head, uint32_t tail)
{
    uint32_t block = node->limits.request_alignment;
    if (head != 0 || (tail != 0 && bytes == block)) {
        int ret = raw_io(node, ASH_READ, offset, buffer, block, 0, 0);
        if (ret < 0) {
            return ret;
        }
    }
    if (tail != 0 && bytes > block) {
        return raw_io(node, ASH_READ, offset + bytes - block, buffer + bytes - block, block, 0, 0);
    }
    return 0;
}

/* A part of a request, through one buffer of whole blocks. */
ASH_CO_FN static int bounce(struct ash_node *node, const struct ash_io *io)
{
    struct ash_alignment fit;
    ash_align_plan(node, io, &fit);
    uint8_t *buffer =
        ash_buffer_alloc(node->loop, fit.bytes, ASH_MAX(node->limits.memory_alignment, 16));
    if (buffer == NULL) {
        return -ENOMEM;
    }
    int ret;
    if (io->op == ASH_READ) {
        ret = raw_io(node, ASH_READ, fit.offset, buffer, fit.bytes, io->flags, 0);
        if (ret == 0) {
            ash_iov_from_buffer(io->iov, buffer + fit.head, io->bytes);
        }
    } else {
        ret = fill_edges(node, buffer, fit.offset, fit.bytes, fit.head, fit.tail);
        if (ret == 0) {
            ash_iov_to_buffer(io->iov, buffer + fit.head, io->bytes);
            ret = raw_io(node, ASH_WRITE, fit.offset, buffer, fit.bytes, io->flags, fit.tail);
        }
    }
    ash_buffer_free(node->loop, buffer, fit.bytes);
    return ret;
}

int ash_align_run(struct ash_node *node, const struct ash_io *io,
                  const struct ash_alignment *alignment)
{
    uint32_t block = node->limits.request_alignment;
    if (alignment->bytes <= ASH_MAX(BOUNCE_WHOLE_BYTES, 2 * (uint64_t)block)) {
        return bounce(node, io);
    }
    struct ash_io part = *io;
    uint64_t left = io->bytes;
    while (left > 0) {
        part.bytes = left;
        if (!ash_is_aligned(part.offset, block)) {
            part.bytes = block - (part.offset & (block - 1));
        } else if (left >= block) {
            part.bytes = ash_align_down(left, block);
        }
        bool whole = ash_is_aligned(part.offset, block) && ash_is_aligned(part.bytes, block);
        int ret = whole ? ash_split_run(node, &part) : bounce(node, &part);
        if (ret < 0) {
            return ret;
        }
        part.offset += part.bytes;
        left -= part.bytes;
        part.iov = ash_iov_advance(part.iov, part.bytes);
    }
    return 0;
}
