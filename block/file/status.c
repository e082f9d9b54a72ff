/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file: where there is data and where there are holes, by SEEK_DATA and SEEK_HOLE, and a few
 * answers remembered.
 *
 * Invariants:
 *  1. A caller who does not ask about zeroes is told "data" for all of the range, and that answer
 * is never remembered: what is kept comes from seeks only.
 *  2. An answer is kept only if no mutation ended while the seeks ran, and is forgotten when one
 * that overlaps ends. Until a write has ended, either answer is right.
 *  3. Holes are remembered only while no other program may write to the file: a hole that is data
 * by now would be skipped by whoever copies. Data that is a hole by now is only read in vain.
 *  4. A host that cannot tell has data everywhere. */
#include <errno.h>
#include <unistd.h>
#include "block/file/file.h"
#include "util/assert.h"
#include "util/range.h"

void ash_file_extents_forget(struct ash_file_extents *extents, uint64_t offset, uint64_t bytes,
                             bool holes_only)
{
    bool any = false;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(extents->extent); i++) {
        struct ash_file_extent *extent = &extents->extent[i];
        if (ash_range_overlap(extent->offset, extent->bytes, offset, bytes) &&
            (extent->hole || !holes_only)) {
            extent->bytes = 0;
        }
        any = any || extent->bytes > 0;
    }
    extents->any = any;
}

static const struct ash_file_extent *known(const struct ash_file_extents *extents, uint64_t offset)
{
    for (size_t i = 0; extents->any && i < ASH_ARRAY_SIZE(extents->extent); i++) {
        const struct ash_file_extent *extent = &extents->extent[i];
        if (offset >= extent->offset && offset - extent->offset < extent->bytes) {
            return extent;
        }
    }
    return NULL;
}

static void remember(struct ash_file_node *state, const struct ash_file_extent *found)
{
    struct ash_file_extents *extents = &state->extents;
    if (found->hole && (state->allows & ASH_RIGHT_WRITE) != 0) {
        return;
    }
    extents->extent[extents->oldest] = *found;
    extents->oldest = (extents->oldest + 1) % ASH_ARRAY_SIZE(extents->extent);
    extents->any = true;
}

/* What lies at `offset`, which is before the end `size`. False: the host cannot tell. */
ASH_CO_FN static bool seek(struct ash_file_node *state, uint64_t offset, uint64_t size,
                           struct ash_file_extent *found)
{
    int64_t data = ash_co_seek(state->file, SEEK_DATA, offset);
    if (data == -ENXIO) {
        *found = (struct ash_file_extent){offset, size - offset, true};
        return true;
    }
    if (data < 0 || (uint64_t)data < offset) {
        state->no_seek = data == -EINVAL || data == -EOPNOTSUPP;
        return false;
    }
    if ((uint64_t)data > offset) {
        *found = (struct ash_file_extent){offset, (uint64_t)data - offset, true};
        return true;
    }
    int64_t hole = ash_co_seek(state->file, SEEK_HOLE, offset);
    if (hole < 0 || (uint64_t)hole <= offset) {
        return false;
    }
    *found = (struct ash_file_extent){offset, (uint64_t)hole - offset, false};
    return true;
}

int ash_file_status(struct ash_node *node, const struct ash_io *io)
{
    struct ash_file_node *state = ash_file_node(node);
    struct ash_file_extent found = {io->offset, io->bytes, false};
    if ((io->flags & ASH_IO_STATUS_ZEROES) != 0 && !state->no_seek) {
        const struct ash_file_extent *extent = known(&state->extents, io->offset);
        uint64_t mutations = state->mutations;
        if (extent != NULL) {
            found = *extent;
        } else if (seek(state, io->offset, node->size_bytes, &found)) {
            if (mutations == state->mutations) {
                remember(state, &found);
            }
        } else {
            found = (struct ash_file_extent){io->offset, io->bytes, false};
        }
    }
    uint64_t bytes = ASH_MIN(found.offset + found.bytes - io->offset, io->bytes);
    uint32_t flags = ASH_STATUS_ALLOCATED | ASH_STATUS_OFFSET;
    flags |= found.hole ? ASH_STATUS_ZERO : ASH_STATUS_DATA;
    flags |= io->offset + bytes == node->size_bytes ? ASH_STATUS_EOF : 0;
    ash_assert(bytes > 0);
    *io->status = (struct ash_status){
        .flags = flags,
        .bytes = bytes,
        .host_offset = io->offset,
        .node = node,
        .host = node,
    };
    return 0;
}
