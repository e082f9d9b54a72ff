/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Block status and the entry of the request path. */
#include <errno.h>
#include "block/driver.h"
#include "block/map/ops.h"
#include "util/assert.h"

int ash_map_flush(struct ash_node *node)
{
    if (node->driver->map->flush != NULL) {
        return node->driver->map->flush(node);
    }
    int ret = node->data != NULL ? ash_edge_flush(node->data) : 0;
    return ret < 0 ? ret : ash_edge_flush(node->file);
}

/* The answer for an extent of data, from the node that holds it where that knows better. */
ASH_CO_FN static int data_status(const struct ash_extent *extent, uint32_t flags,
                                 struct ash_status *status)
{
    status->flags |= ASH_STATUS_DATA | ASH_STATUS_OFFSET;
    status->host_offset = extent->host_offset;
    status->host = extent->edge->child;
    if (!extent->through) {
        return 0;
    }
    struct ash_status below = {0};
    struct ash_io io = {.op = ASH_STATUS,
                        .flags = flags,
                        .offset = extent->host_offset,
                        .bytes = status->bytes,
                        .status = &below};
    int ret = ash_edge_io(extent->edge, &io);
    if (ret < 0) {
        return ret;
    }
    ash_assert(below.bytes > 0);
    status->bytes = ASH_MIN(status->bytes, below.bytes);
    status->flags = (below.flags & ~ASH_STATUS_EOF) | ASH_STATUS_ALLOCATED;
    status->host_offset = below.host_offset;
    status->host = below.host;
    return 0;
}

int ash_chain_status(struct ash_node *top, const struct ash_node *base, uint64_t offset,
                     uint64_t bytes, uint32_t flags, struct ash_status *status)
{
    ash_assert(bytes > 0);
    *status = (struct ash_status){.bytes = bytes, .node = top};
    if (top->map == NULL) {
        return -ENOTSUP;
    }
    struct ash_extent extent;
    struct ash_pin pin;
    int ret = ash_map_walk(top, base, offset, bytes, &extent, &status->node, &status->depth, &pin);
    if (ret < 0) {
        return ret;
    }
    status->bytes = extent.bytes;
    if (extent.kind != ASH_EXTENT_UNALLOCATED && !extent.absent) {
        status->flags |= ASH_STATUS_ALLOCATED;
    }
    switch (extent.kind) {
    case ASH_EXTENT_DATA:
        ret = data_status(&extent, flags, status);
        break;
    case ASH_EXTENT_CODED:
        status->flags |= ASH_STATUS_DATA | ASH_STATUS_COMPRESSED;
        break;
    case ASH_EXTENT_ZERO:
        status->flags |= ASH_STATUS_ZERO;
        if (extent.edge != NULL) {
            status->flags |= ASH_STATUS_OFFSET;
            status->host_offset = extent.host_offset;
            status->host = extent.edge->child;
        }
        break;
    default:
        break;
    }
    ash_pin_drop(&pin);
    if (offset + status->bytes >= top->size_bytes) {
        status->flags |= ASH_STATUS_EOF;
    }
    return ret;
}

int ash_map_io(struct ash_node *node, const struct ash_io *io)
{
    switch (io->op) {
    case ASH_READ:
        return ash_map_read(node, io->offset, io->bytes, io->iov);
    case ASH_WRITE:
        if (ash_unlikely((io->flags & ASH_IO_COMPRESS) != 0)) {
            int ret = ash_map_write_coded(node, io->offset, io->bytes, io->iov);
            return ret == 0 && (io->flags & ASH_REQ_FUA) != 0 ? ash_map_flush(node) : ret;
        }
        return ash_map_write(node, io->offset, io->bytes, io->iov, io->flags);
    case ASH_ZERO:
        return ash_map_zero(node, io->offset, io->bytes, io->flags);
    case ASH_DISCARD:
        return ash_map_discard(node, io->offset, io->bytes);
    case ASH_FLUSH:
        return ash_map_flush(node);
    case ASH_STATUS:
        return ash_chain_status(node, NULL, io->offset, io->bytes, io->flags, io->status);
    default:
        return -ENOTSUP;
    }
}
