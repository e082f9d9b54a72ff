/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The request path: check -> align -> track -> split -> driver.
 *
 * Invariants:
 *  1. A request that reaches a driver lies within the node (or extends a node that grows), is
 * aligned to the node's limits and not longer than they allow.
 *  2. The tracked range is the padded one, computed before tracking; it never widens. A padded
 * write, of data or of zeroes, serialises, because between its read and its write nobody else may
 * touch the block. That of a coded write is whole units, also beyond the end.
 *  3. Who waited for others may find the node shorter than before, and checks its range again.
 *  4. Nothing here keeps state: everything is on the stack of the request.
 *  5. Dirty bitmaps are marked after the driver and before tracking ends, in one turn, whether it
 * failed or not. */
#include "block/io/pipeline.h"
#include <errno.h>
#include "block/bitmap/bitmap.h"
#include "block/driver.h"
#include "block/io/guard.h"
#include "block/io/mark.h"
#include "block/map/map.h"
#include "util/assert.h"
#include "util/range.h"

static bool is_mutation(uint8_t op)
{
    return op == ASH_WRITE || op == ASH_ZERO || op == ASH_DISCARD;
}

/* Whether the range is one the node has, or may come to have by this request. */
static int check_range(const struct ash_edge *edge, const struct ash_io *io)
{
    const struct ash_node *node = edge->child;
    if (!ash_range_valid(io->offset, io->bytes)) {
        return -EIO;
    }
    if (ash_likely(io->offset + io->bytes <= node->size_bytes)) {
        return 0;
    }
    /* A format may write beyond the end of what it stands on; a guest may not. */
    bool extends = edge->parent != NULL && (io->op == ASH_WRITE || io->op == ASH_ZERO) &&
                   (node->flags & ASH_NODE_GROWS) != 0 && (edge->needs & ASH_RIGHT_RESIZE) != 0;
    return extends ? 0 : -EIO;
}

/* Whether a write may be bytes of a file: only where nobody has to look at them, to cut them into
 * blocks, or to say more than that they were written. */
static bool takes_file(const struct ash_node *node, const struct ash_io *io)
{
    bool plain = (io->flags & (ASH_REQ_FUA | ASH_IO_COMPRESS)) == 0 &&
                 (node->flags & ASH_NODE_DETECT_ZEROES) == 0 &&
                 node->limits.request_alignment <= 1 && node->limits.memory_alignment <= 1;
    return plain && (node->map != NULL ||
                     (node->driver->host_file != NULL && node->driver->host_file(node) != NULL));
}

static int check(const struct ash_edge *edge, const struct ash_io *io)
{
    ash_assert(io->op < ASH_OP_COUNT);
    if (is_mutation(io->op)) {
        if (!ash_node_writable(edge->child)) {
            return -EPERM;
        }
        if (io->op == ASH_WRITE && ash_unlikely(ash_iov_is_file(&io->iov)) &&
            !takes_file(edge->child, io)) {
            return -ENOTSUP;
        }
        ash_assert((edge->needs & (ASH_RIGHT_WRITE | ASH_RIGHT_REWRITE)) != 0);
    }
    if (io->op == ASH_FLUSH) {
        return 0;
    }
    return check_range(edge, io);
}

int ash_dispatch(struct ash_node *node, const struct ash_io *io)
{
    if (node->map != NULL) {
        return ash_map_io(node, io);
    }
    if (ash_likely(node->driver->io[io->op] != NULL)) {
        return node->driver->io[io->op](node, io);
    }
    if (node->driver->kind == ASH_DRIVER_FILTER) {
        return ash_edge_io(node->file, io);
    }
    if (io->op == ASH_STATUS) {
        *io->status =
            (struct ash_status){.flags = ASH_STATUS_DATA | ASH_STATUS_ALLOCATED | ASH_STATUS_OFFSET,
                                .bytes = io->bytes,
                                .host_offset = io->offset,
                                .node = node,
                                .host = node};
        return 0;
    }
    return io->op == ASH_FLUSH || io->op == ASH_DISCARD ? 0 : -ENOTSUP;
}

/* What a node may be asked to do instead of what was asked: a write of zeroes by detect-zeroes, or
 * nothing for a discard that is not wanted. */
static void rewrite(const struct ash_node *node, struct ash_io *io)
{
    if (ash_likely((node->flags & (ASH_NODE_DETECT_ZEROES | ASH_NODE_DISCARD)) ==
                   ASH_NODE_DISCARD)) {
        return;
    }
    if (io->op == ASH_WRITE && (node->flags & ASH_NODE_DETECT_ZEROES) != 0 &&
        (io->flags & ASH_IO_COMPRESS) == 0 && ash_iov_is_zero(io->iov, io->bytes)) {
        io->op = ASH_ZERO;
        if ((node->flags & ASH_NODE_DETECT_UNMAP) != 0) {
            io->flags |= ASH_REQ_UNMAP;
        }
    }
    if ((node->flags & ASH_NODE_DISCARD) == 0) {
        io->flags &= ~ASH_REQ_UNMAP;
    }
}

ASH_CO_FN static int run(struct ash_node *node, const struct ash_io *io,
                         const struct ash_alignment *alignment)
{
    switch (io->op) {
    case ASH_READ:
    case ASH_WRITE:
        if (ash_unlikely(alignment->head != 0 || alignment->tail != 0)) {
            return ash_align_run(node, io, alignment);
        }
        return ash_split_run(node, io);
    case ASH_ZERO:
        return ash_zero_run(node, io);
    case ASH_DISCARD:
        return ash_discard_run(node, io);
    default:
        return ash_dispatch(node, io);
    }
}

/* Before a request that may lengthen a node with dirty bitmaps: no mark may lack memory. */
static int reserve_bitmaps(struct ash_node *node, const struct ash_alignment *alignment)
{
    uint64_t end = alignment->offset + alignment->bytes;
    return end > node->size_bytes ? ash_bitmaps_reserve(node, end) : 0;
}

/* What has passed the driver of a node with dirty bitmaps, successfully or not. */
static void mark_bitmaps(struct ash_node *node, const struct ash_io *io,
                         const struct ash_alignment *alignment)
{
    bool dropped = io->op == ASH_DISCARD && (node->flags & ASH_NODE_DISCARD) == 0;
    if (is_mutation(io->op) && !dropped) {
        ash_bitmaps_mark(node, alignment->offset, alignment->bytes);
    }
}

/* A read by a parent node that reaches beyond the end finds zeroes there: the last cluster of an
 * image need not be complete. */
ASH_CO_FN static int read_across_end(struct ash_edge *edge, const struct ash_io *io)
{
    uint64_t end = edge->child->size_bytes;
    uint64_t inside = io->offset < end ? end - io->offset : 0;
    ash_iov_fill(ash_iov_advance(io->iov, inside), 0, io->bytes - inside);
    if (inside == 0) {
        return 0;
    }
    struct ash_io part = *io;
    part.bytes = inside;
    return ash_edge_io(edge, &part);
}

/* What a request gets that does not lie within the node. */
ASH_CO_FN static int outside(struct ash_edge *edge, const struct ash_io *io, int ret)
{
    if (io->op == ASH_READ && edge->parent != NULL && ash_range_valid(io->offset, io->bytes)) {
        return read_across_end(edge, io);
    }
    return ret;
}

/* A coded write replaces whole units, also the last one, of which the disk may have a part only:
 * the disk must not get longer beside it. */
static uint64_t tracked_bytes(const struct ash_node *node, const struct ash_io *io,
                              const struct ash_alignment *alignment)
{
    bool coded = (io->flags & ASH_IO_COMPRESS) != 0 && node->map != NULL;
    return ash_unlikely(coded) ? ash_align_up(alignment->bytes, node->map->unit_bytes)
                               : alignment->bytes;
}

int ash_edge_io(struct ash_edge *edge, const struct ash_io *asked)
{
    struct ash_node *node = edge->child;
    struct ash_io io = *asked;

    int ret = check(edge, &io);
    if (ash_unlikely(ret < 0)) {
        return outside(edge, &io, ret);
    }
    if (io.bytes == 0 && io.op != ASH_FLUSH) {
        return 0;
    }
    if (ash_unlikely(ash_guard_applies(node, &io))) {
        return ash_guard_io(edge, &io);
    }
    if (ash_unlikely(node->mark_idle) && is_mutation(io.op)) {
        ret = ash_mark_drop(node);
        if (ret < 0) {
            return ret;
        }
    }
    rewrite(node, &io);

    struct ash_alignment alignment;
    ash_align_plan(node, &io, &alignment);
    bool padded_write =
        (io.op == ASH_WRITE || io.op == ASH_ZERO) && (alignment.head != 0 || alignment.tail != 0);

    struct ash_request request;
    ash_track_begin(&request, node, io.op, alignment.offset, tracked_bytes(node, &io, &alignment),
                    padded_write || (io.flags & ASH_IO_SERIALISE) != 0);
    ret = check_range(edge, &io);
    if (ash_unlikely(ret < 0)) {
        ash_track_end(&request);
        return outside(edge, &io, ret);
    }
    if (ash_unlikely(!ash_list_empty(&node->bitmaps))) {
        ret = reserve_bitmaps(node, &alignment);
        if (ret < 0) {
            ash_track_end(&request);
            return ret;
        }
    }
    ret = run(node, &io, &alignment);
    if (ash_unlikely(io.offset + io.bytes > node->size_bytes) && ret >= 0 && is_mutation(io.op)) {
        node->size_bytes =
            io.offset + io.bytes; /* a growing node that maps does not count itself */
    }
    if (ash_unlikely(!ash_list_empty(&node->bitmaps))) {
        mark_bitmaps(node, &io, &alignment);
    }
    ash_track_end(&request);
    return ret;
}

ASH_CO_FN static int edge_buffer_io(struct ash_edge *edge, uint8_t op, uint64_t offset,
                                    void *buffer, uint64_t bytes, uint32_t flags)
{
    struct iovec vec = {buffer, bytes};
    struct ash_io io = {
        .op = op, .flags = flags, .offset = offset, .bytes = bytes, .iov = ash_iov_of(&vec, 1)};
    return ash_edge_io(edge, &io);
}

int ash_edge_read(struct ash_edge *edge, uint64_t offset, void *buffer, uint64_t bytes)
{
    return edge_buffer_io(edge, ASH_READ, offset, buffer, bytes, 0);
}

int ash_edge_write(struct ash_edge *edge, uint64_t offset, const void *buffer, uint64_t bytes,
                   uint32_t flags)
{
    return edge_buffer_io(edge, ASH_WRITE, offset, (void *)buffer, bytes, flags);
}

int ash_edge_zero(struct ash_edge *edge, uint64_t offset, uint64_t bytes, uint32_t flags)
{
    struct ash_io io = {.op = ASH_ZERO, .flags = flags, .offset = offset, .bytes = bytes};
    return ash_edge_io(edge, &io);
}

int ash_edge_discard(struct ash_edge *edge, uint64_t offset, uint64_t bytes)
{
    struct ash_io io = {.op = ASH_DISCARD, .offset = offset, .bytes = bytes};
    return ash_edge_io(edge, &io);
}

int ash_edge_flush(struct ash_edge *edge)
{
    struct ash_io io = {.op = ASH_FLUSH};
    return ash_edge_io(edge, &io);
}
