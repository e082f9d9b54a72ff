/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing to a mapped node.
 *
 * A range that may be written in place goes straight to its edge, under a pin. Any other is written
 * under the range lock: look up again, prepare a place, fill and write it, commit the link, unlock.
 *
 * Invariants:
 *  1. Data and fill go out in one write, before commit; the format writes the link to disk only
 * after a flush that began after that.
 *  2. The guest's buffer is handed down once per byte. What must be copied is copied once.
 *  3. Fill is what the range reads as through this node's chain at that time; nobody else can
 * change it, as the lock covers whole allocation units.
 *  4. FUA is passed down only where the link is on disk already; elsewhere the request ends with a
 *     flush of the node. */
#include "block/map/ops.h"
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/map/walk_cache.h"
#include "util/assert.h"
#include "util/engine/co_aio.h"
#include "util/range.h"

#define ZERO_BUFFER_BYTES (1 * MiB)

/* Fill before or after the written part of a placement. */
struct fill {
    uint8_t *buffer; /* NULL: nothing has to be written */
    uint64_t bytes;
};

ASH_CO_FN static int reads_zero(struct ash_node *node, uint64_t offset, uint64_t bytes, bool *zero)
{
    *zero = true;
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
            *zero = false;
            return 0;
        }
        offset += extent.bytes;
        bytes -= extent.bytes;
    }
    return 0;
}

ASH_CO_FN static int fill_prepare(struct ash_node *node, const struct ash_placement *placement,
                                  uint64_t offset, uint64_t bytes, struct fill *fill)
{
    *fill = (struct fill){NULL, bytes};
    if (bytes == 0) {
        return 0;
    }
    bool zero = placement->fill_zero;
    if (!zero) {
        int ret = reads_zero(node, offset, bytes, &zero);
        if (ret < 0) {
            return ret;
        }
    }
    if (zero && placement->reads_zero) {
        fill->bytes = 0;
        return 0;
    }
    fill->buffer = ash_buffer_alloc(node->loop, bytes, 4096);
    if (fill->buffer == NULL) {
        return -ENOMEM;
    }
    if (zero) {
        memset(fill->buffer, 0, bytes);
        return 0;
    }
    struct iovec vec = {fill->buffer, bytes};
    return ash_map_read(node, offset, bytes, ash_iov_of(&vec, 1));
}

static void fill_free(struct ash_node *node, struct fill *fill)
{
    if (fill->buffer != NULL) {
        ash_buffer_free(node->loop, fill->buffer, fill->bytes);
    }
}

/* One write of head, data and tail. */
ASH_CO_FN static int write_filled(const struct ash_placement *placement, uint64_t offset,
                                  uint64_t bytes, struct ash_iov iov, const struct fill *head,
                                  const struct fill *tail)
{
    struct ash_io io = {.op = ASH_WRITE, .bytes = head->bytes + bytes + tail->bytes};
    io.offset = placement->host_offset + (offset - placement->offset) - head->bytes;
    if (head->bytes == 0 && tail->bytes == 0) {
        io.iov = iov;
        return ash_edge_io(placement->edge, &io);
    }
    if (ash_iov_is_file(&iov)) {
        return -ENOTSUP; /* one write is of memory, or of one file */
    }
    uint32_t pieces = ash_iov_pieces(iov, bytes);
    struct iovec *vec = g_new(struct iovec, (size_t)pieces + 2);
    uint32_t count = 0;
    if (head->bytes > 0) {
        vec[count++] = (struct iovec){head->buffer, head->bytes};
    }
    uint64_t covered;
    count += ash_iov_collect(iov, bytes, vec + count, pieces, &covered);
    if (tail->bytes > 0) {
        vec[count++] = (struct iovec){tail->buffer, tail->bytes};
    }
    io.iov = ash_iov_of(vec, count);
    int ret = ash_edge_io(placement->edge, &io);
    g_free(vec);
    return ret;
}

int ash_map_place(struct ash_node *node, struct ash_placement *placement, uint64_t offset,
                  uint64_t bytes, struct ash_iov iov)
{
    uint64_t end = placement->offset + placement->bytes;
    ash_assert(offset >= placement->offset);
    ash_assert(offset + bytes <= end);
    struct fill head = {0};
    struct fill tail = {0};
    int ret = fill_prepare(node, placement, placement->offset, offset - placement->offset, &head);
    if (ret == 0) {
        ret = fill_prepare(node, placement, offset + bytes, end - offset - bytes, &tail);
    }
    if (ret == 0) {
        ret = write_filled(placement, offset, bytes, iov, &head, &tail);
    }
    fill_free(node, &head);
    fill_free(node, &tail);
    if (ret == 0) {
        ret = node->driver->map->commit(node, placement);
    }
    if (ret < 0) {
        node->driver->map->abort(node, placement);
        return ret;
    }
    ash_map_forget(node, placement->offset, placement->bytes);
    return 0;
}

struct part {
    struct ash_task task;
    struct ash_node *node;
    uint64_t offset;
    uint64_t bytes;
    struct ash_iov iov;
    uint32_t flags;
    struct ash_extent extent;
    struct ash_pin pin; /* taken if in_place */
    bool *unstable;     /* set when something was written whose link is not on disk */
};

static bool in_place(const struct ash_extent *extent)
{
    return extent->kind == ASH_EXTENT_DATA && extent->in_place;
}

ASH_CO_FN static int write_in_place(struct part *part)
{
    struct ash_io io = {.op = ASH_WRITE,
                        .offset = part->extent.host_offset,
                        .bytes = part->bytes,
                        .iov = part->iov};
    if ((part->flags & ASH_REQ_FUA) != 0) {
        if (part->extent.stable) {
            io.flags = ASH_REQ_FUA;
        } else {
            *part->unstable = true;
        }
    }
    int ret = ash_edge_io(part->extent.edge, &io);
    ash_pin_drop(&part->pin);
    return ret;
}

/* Looks up and, if the answer may be written in place, pins it. */
ASH_CO_FN static int part_lookup(struct part *part, uint64_t left)
{
    int ret = part->node->driver->map->lookup(part->node, part->offset, left, &part->extent);
    if (ret < 0) {
        return ret;
    }
    part->bytes = part->extent.bytes;
    part->pin.node = NULL;
    if (in_place(&part->extent)) {
        ash_pin_take(&part->pin, part->node, part->extent.edge, part->extent.host_offset,
                     part->bytes);
    }
    return 0;
}

/* Writes a prefix of a range that needs a place; the caller holds the range lock. */
ASH_CO_FN static int write_new(struct part *part)
{
    struct ash_node *node = part->node;
    struct ash_placement placement = {0};
    int ret = node->driver->map->prepare(node, part->offset, part->bytes, &placement);
    if (ret < 0) {
        return ret;
    }
    uint64_t unit = node->map->unit_bytes;
    uint64_t end = ash_align_up(part->offset + part->bytes, unit);
    ash_assert(placement.bytes > 0);
    ash_assert(placement.offset >= ash_align_down(part->offset, unit)); /* within the lock */
    ash_assert(placement.offset + placement.bytes <= end);
    part->bytes = ASH_MIN(part->bytes, placement.offset + placement.bytes - part->offset);
    *part->unstable = true;
    return ash_map_place(node, &placement, part->offset, part->bytes, part->iov);
}

/* Writes a range of which at least the first byte needed a place when it was looked up. */
ASH_CO_FN static int write_allocating(struct part *part)
{
    uint64_t left = part->bytes;
    while (left > 0) {
        struct ash_range_lock lock;
        ash_range_lock(&lock, &part->node->map->locks, part->offset, left);
        int ret = part_lookup(part, left);
        if (ret == 0 && in_place(&part->extent)) {
            /* Somebody else linked it while this one waited. The pin suffices from here on. */
            ash_range_unlock(&lock);
            ret = write_in_place(part);
        } else {
            if (ret == 0) {
                ret = write_new(part);
            }
            ash_range_unlock(&lock);
        }
        if (ret < 0) {
            return ret;
        }
        part->offset += part->bytes;
        part->iov = ash_iov_advance(part->iov, part->bytes);
        left -= part->bytes;
    }
    return 0;
}

ASH_CO_FN static int write_part(struct part *part)
{
    return in_place(&part->extent) ? write_in_place(part) : write_allocating(part);
}

static int write_task(struct ash_task *task)
{
    struct part *part = ash_container_of(task, struct part, task);
    ash_co_assert_inside();
    int ret = write_part(part);
    g_free(part);
    return ret;
}

ASH_CO_FN static int write_parts(struct part *first, uint64_t left)
{
    struct ash_node *node = first->node;
    struct ash_task_pool pool;
    ash_task_pool_init(&pool, &node->loop->sched, ASH_MAP_FAN_OUT);
    struct part part = *first;
    ash_pin_move(&part.pin, &first->pin);
    int ret = 0;
    for (;;) {
        uint64_t offset = part.offset + part.bytes;
        struct ash_iov rest = ash_iov_advance(part.iov, part.bytes);
        left -= part.bytes;
        if (left == 0) {
            ret = write_part(&part);
            break;
        }
        struct part *copy = g_new(struct part, 1);
        *copy = part;
        ash_pin_move(&copy->pin, &part.pin);
        copy->task.run = write_task;
        ash_task_pool_start(&pool, &copy->task);
        if (pool.first_error < 0) {
            break;
        }
        part.offset = offset;
        part.iov = rest;
        ret = part_lookup(&part, left);
        if (ret < 0) {
            break;
        }
    }
    int pool_ret = ash_task_pool_finish(&pool);
    return ret < 0 ? ret : pool_ret;
}

int ash_map_write(struct ash_node *node, uint64_t offset, uint64_t bytes, struct ash_iov iov,
                  uint32_t flags)
{
    bool unstable = false;
    struct part part = {
        .node = node, .offset = offset, .iov = iov, .flags = flags, .unstable = &unstable};
    int ret = part_lookup(&part, bytes);
    if (ash_likely(ret == 0)) {
        ret = part.bytes >= bytes ? write_part(&part) : write_parts(&part, bytes);
    }
    if (ret == 0 && unstable && (flags & ASH_REQ_FUA) != 0) {
        ret = ash_map_flush(node);
    }
    return ret;
}

int ash_map_write_zeroes(struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    uint64_t chunk = ASH_MIN(bytes, ZERO_BUFFER_BYTES);
    uint8_t *buffer = ash_buffer_alloc(node->loop, chunk, 4096);
    if (buffer == NULL) {
        return -ENOMEM;
    }
    memset(buffer, 0, chunk);
    struct iovec vec = {buffer, chunk};
    int ret = 0;
    for (uint64_t done = 0; done < bytes && ret == 0; done += chunk) {
        chunk = ASH_MIN(chunk, bytes - done);
        ret = ash_map_write(node, offset + done, chunk, ash_iov_of(&vec, 1), 0);
    }
    ash_buffer_free(node->loop, buffer, vec.iov_len);
    return ret;
}
