/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading through a chain.
 *
 * A request that is one extent, as most are, goes straight down on the caller's stack. One that
 * falls into several extents fans out through a bounded pool of tasks; each carries its extent and
 * its pin. Coded extents are read and decoded in bounce buffers on a worker thread: coded bytes
 * never pass through the guest's own buffer, which the guest could change between reading and
 * decoding. */
#include "block/map/ops.h"
#include <errno.h>
#include <glib.h>
#include "util/assert.h"
#include "util/engine/co_aio.h"

struct piece {
    struct ash_task task;
    struct ash_extent extent;
    struct ash_node *owner;
    struct ash_pin pin;
    uint64_t offset;
    uint64_t bytes;
    struct ash_iov iov;
};

struct decoding {
    const struct ash_node *node;
    const struct ash_extent *extent;
    const void *in;
    void *out;
};

static int decode(void *opaque)
{
    struct decoding *work = opaque;
    return work->node->driver->map->decode(work->node, work->extent, work->in,
                                           work->extent->coded_bytes, work->out,
                                           work->extent->unit_bytes);
}

ASH_CO_FN static int read_coded(struct piece *piece)
{
    struct ash_loop *loop = piece->owner->loop;
    const struct ash_extent *extent = &piece->extent;
    uint64_t skip = piece->offset - extent->unit_offset;
    ash_assert(skip + piece->bytes <= extent->unit_bytes);
    size_t in_bytes = extent->coded_bytes;
    size_t out_bytes = extent->unit_bytes;
    uint8_t *in = ash_buffer_alloc(loop, in_bytes, 4096);
    uint8_t *out = ash_buffer_alloc(loop, out_bytes, 4096);
    int ret = in == NULL || out == NULL ? -ENOMEM : 0;
    if (ret == 0) {
        ret = ash_edge_read(extent->edge, extent->host_offset, in, in_bytes);
    }
    if (ret == 0) {
        struct decoding work = {piece->owner, extent, in, out};
        ret = ash_co_work(loop->engine, decode, &work);
    }
    if (ret == 0) {
        ash_iov_from_buffer(piece->iov, out + skip, piece->bytes);
    }
    if (in != NULL) {
        ash_buffer_free(loop, in, in_bytes);
    }
    if (out != NULL) {
        ash_buffer_free(loop, out, out_bytes);
    }
    return ret;
}

ASH_CO_FN static int read_piece(struct piece *piece)
{
    int ret;
    switch (piece->extent.kind) {
    case ASH_EXTENT_DATA: {
        struct ash_io io = {.op = ASH_READ,
                            .offset = piece->extent.host_offset,
                            .bytes = piece->bytes,
                            .iov = piece->iov};
        ret = ash_edge_io(piece->extent.edge, &io);
        break;
    }
    case ASH_EXTENT_CODED:
        ret = read_coded(piece);
        break;
    default:
        ash_iov_fill(piece->iov, 0, piece->bytes);
        ret = 0;
    }
    ash_pin_drop(&piece->pin);
    return ret;
}

static int read_task(struct ash_task *task)
{
    struct piece *piece = ash_container_of(task, struct piece, task);
    ash_co_assert_inside();
    int ret = read_piece(piece);
    g_free(piece);
    return ret;
}

ASH_CO_FN static int walk_piece(struct ash_node *node, struct piece *piece, uint64_t left)
{
    uint32_t depth;
    int ret = ash_map_walk(node, NULL, piece->offset, left, &piece->extent, &piece->owner, &depth,
                           &piece->pin);
    piece->bytes = piece->extent.bytes;
    return ret;
}

/* The rest of a request whose first piece, already looked up, does not cover it. */
ASH_CO_FN static int read_pieces(struct ash_node *node, struct piece *first, uint64_t left)
{
    struct ash_task_pool pool;
    ash_task_pool_init(&pool, &node->loop->sched, ASH_MAP_FAN_OUT);
    struct piece piece = *first;
    ash_pin_move(&piece.pin, &first->pin);
    int ret = 0;
    for (;;) {
        uint64_t offset = piece.offset + piece.bytes;
        struct ash_iov rest = ash_iov_advance(piece.iov, piece.bytes);
        left -= piece.bytes;
        if (piece.extent.kind == ASH_EXTENT_ZERO || left == 0) {
            ret = read_piece(&piece);
        } else {
            struct piece *copy = g_new(struct piece, 1);
            *copy = piece;
            ash_pin_move(&copy->pin, &piece.pin);
            copy->task.run = read_task;
            ash_task_pool_start(&pool, &copy->task);
        }
        if (left == 0 || ret < 0 || pool.first_error < 0) {
            break;
        }
        piece.offset = offset;
        piece.iov = rest;
        ret = walk_piece(node, &piece, left);
        if (ret < 0) {
            break;
        }
    }
    int pool_ret = ash_task_pool_finish(&pool);
    return ret < 0 ? ret : pool_ret;
}

int ash_map_read(struct ash_node *node, uint64_t offset, uint64_t bytes, struct ash_iov iov)
{
    struct piece piece;
    piece.offset = offset;
    piece.iov = iov;
    int ret = walk_piece(node, &piece, bytes);
    if (ash_unlikely(ret < 0)) {
        return ret;
    }
    if (ash_likely(piece.bytes >= bytes)) {
        return read_piece(&piece);
    }
    return read_pieces(node, &piece, bytes);
}
