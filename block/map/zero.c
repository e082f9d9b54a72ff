/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zeroes and discards on mapped nodes.
 *
 * Whole allocation units go to the format, under the range lock. What is left at either end of a
 * write of zeroes is written as data, unless it reads as zeroes already; what is left of a discard
 * is dropped. A unit that the end of the disk cuts short counts as whole.
 *
 * A format without an answer of its own (raw) has the operation passed to where its data lies. */
#include "block/map/ops.h"
#include <errno.h>
#include "block/driver.h"
#include "util/assert.h"
#include "util/range.h"

/* At most this much is locked and handled at a time, so that a huge request holds nobody up long.
 */
#define CHUNK_BYTES (1 * GiB)

static void whole_units(const struct ash_node *node, uint64_t offset, uint64_t bytes,
                        uint64_t *start, uint64_t *stop)
{
    uint64_t unit = node->map->unit_bytes;
    uint64_t end = offset + bytes;
    *start = ash_align_up(offset, unit);
    *stop = end >= node->size_bytes ? end : ash_align_down(end, unit);
    *start = ASH_MIN(*start, end);
    *stop = ASH_MAX(*stop, *start);
}

/* A part of a unit: written as data unless that changes nothing. */
ASH_CO_FN static int zero_partial(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                  uint32_t flags)
{
    while (bytes > 0) {
        struct ash_extent extent;
        struct ash_node *owner;
        uint32_t depth;
        struct ash_pin pin;
        int ret = ash_map_walk(node, NULL, offset, bytes, &extent, &owner, &depth, &pin);
        if (ret < 0) {
            return ret;
        }
        ash_pin_drop(&pin);
        if (extent.kind != ASH_EXTENT_ZERO) {
            if ((flags & ASH_REQ_NO_FALLBACK) != 0) {
                return -ENOTSUP;
            }
            ret = ash_map_write_zeroes(node, offset, extent.bytes);
            if (ret < 0) {
                return ret;
            }
        }
        offset += extent.bytes;
        bytes -= extent.bytes;
    }
    return 0;
}

/* For formats that leave it to the edge below: passes `op` to where the data of the range lies. */
ASH_CO_FN static int pass_down(struct ash_node *node, uint8_t op, uint64_t offset, uint64_t bytes,
                               uint32_t flags)
{
    while (bytes > 0) {
        struct ash_extent extent;
        int ret = node->driver->map->lookup(node, offset, bytes, &extent);
        if (ret < 0) {
            return ret;
        }
        ash_assert(extent.kind == ASH_EXTENT_DATA);
        struct ash_io io = {
            .op = op, .flags = flags, .offset = extent.host_offset, .bytes = extent.bytes};
        ret = ash_edge_io(extent.edge, &io);
        if (ret < 0) {
            return ret;
        }
        offset += extent.bytes;
        bytes -= extent.bytes;
    }
    return 0;
}

ASH_CO_FN static int zero_units(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                uint32_t flags)
{
    struct ash_range_lock lock;
    ash_range_lock(&lock, &node->map->locks, offset, bytes);
    int ret = node->driver->map->zero(node, offset, bytes, flags);
    ash_map_forget(node, offset, bytes);
    ash_range_unlock(&lock);
    if (ret == -ENOTSUP && (flags & ASH_REQ_NO_FALLBACK) == 0) {
        ret = ash_map_write_zeroes(node, offset, bytes);
    }
    return ret;
}

int ash_map_zero(struct ash_node *node, uint64_t offset, uint64_t bytes, uint32_t flags)
{
    if (node->driver->map->zero == NULL) {
        return pass_down(node, ASH_ZERO, offset, bytes, flags);
    }
    uint64_t start;
    uint64_t stop;
    whole_units(node, offset, bytes, &start, &stop);
    int ret = zero_partial(node, offset, start - offset, flags);
    for (uint64_t at = start; at < stop && ret == 0;) {
        uint64_t chunk = ASH_MIN(CHUNK_BYTES, stop - at);
        ret = zero_units(node, at, chunk, flags);
        at += chunk;
    }
    if (ret == 0) {
        ret = zero_partial(node, stop, offset + bytes - stop, flags);
    }
    if (ret == 0 && (flags & ASH_REQ_FUA) != 0) {
        ret = ash_map_flush(node);
    }
    return ret;
}

int ash_map_cover(struct ash_node *node, uint64_t old_bytes)
{
    uint64_t end = ash_align_up(old_bytes, node->map->unit_bytes);
    if (node->backing != NULL) {
        uint64_t below_bytes = node->backing->child->size_bytes;
        end = ASH_MAX(end, ash_align_up(below_bytes, node->map->unit_bytes));
    }
    end = ASH_MIN(end, node->size_bytes);
    if (old_bytes >= end) {
        return 0;
    }
    node->map->shown_bytes = old_bytes;
    int ret = ash_map_zero(node, old_bytes, end - old_bytes, 0);
    node->map->shown_bytes = UINT64_MAX;
    return ret;
}

int ash_map_empty(struct ash_node *node)
{
    int ret = node->driver->map->empty != NULL ? 0 : -ENOTSUP;
    uint64_t end = node->size_bytes;
    for (uint64_t at = 0; at < end && ret == 0; at += CHUNK_BYTES) {
        struct ash_range_lock lock;
        uint64_t chunk = ASH_MIN(CHUNK_BYTES, end - at);
        ash_range_lock(&lock, &node->map->locks, at, chunk);
        ret = node->driver->map->empty(node, at, chunk);
        ash_map_forget(node, at, chunk);
        ash_range_unlock(&lock);
    }
    return ret == 0 ? ash_map_flush(node) : ret;
}

int ash_map_discard(struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    if (node->driver->map->discard == NULL) {
        return pass_down(node, ASH_DISCARD, offset, bytes, 0);
    }
    uint64_t start;
    uint64_t stop;
    whole_units(node, offset, bytes, &start, &stop);
    int ret = 0;
    while (start < stop && ret == 0) {
        uint64_t chunk = ASH_MIN(CHUNK_BYTES, stop - start);
        struct ash_range_lock lock;
        ash_range_lock(&lock, &node->map->locks, start, chunk);
        ret = node->driver->map->discard(node, start, chunk);
        ash_map_forget(node, start, chunk);
        ash_range_unlock(&lock);
        start += chunk;
    }
    return ret;
}
