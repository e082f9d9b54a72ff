/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Growing and shrinking. Generic code has drained the range that appears or goes.
 *
 * Invariants:
 *  1. Growing: the L1 table is long enough, on disk, before the header says the new length.
 *  2. Shrinking: what lay beyond the new end is given up before the header says the new length, so
 * that growing again never shows it. Only where a backing file would show instead, as version 2 has
 * no zeroes, it is given up afterwards: there growing writes zeroes over whatever there is.
 *  3. Growing: what a backing file, or the rest of the last cluster, would show in the new range is
 *     covered with zeroes, on disk, before the header says the new length: a cut in between shows
 * the old length, never old contents.
 *  4. Where a call fails, the length in memory is that on disk.
 *  5. Preallocating: what a link leads to lies within the file before the link is made, so that the
 *     flush before links covers the file's length too. */
#include <errno.h>
#include <inttypes.h>
#include "block/qcow2/qcow2.h"
#include "util/assert.h"
#include "util/range.h"

/* Where the clusters end that would show a backing file, were they given up. */
static uint64_t shown_below(const struct ash_node *node)
{
    const struct ash_qcow2_state *s = qcow2_state(node);
    if (s->header.fields.version >= 3 || node->backing == NULL) {
        return 0;
    }
    return ash_align_up(node->backing->child->size_bytes, s->cluster_bytes);
}

ASH_CO_FN static int cut_off(struct ash_node *node, uint64_t from, uint64_t end)
{
    return from < end ? ash_qcow2_cut_off(node, from, end - from) : 0;
}

ASH_CO_FN static int shrink(struct ash_node *node, uint64_t bytes, struct ash_error *error)
{
    const struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t from = ash_align_up(bytes, s->cluster_bytes);
    uint64_t end = ash_align_up(node->size_bytes, s->cluster_bytes);
    uint64_t middle = ASH_MIN(ASH_MAX(from, shown_below(node)), end);
    int ret = cut_off(node, middle, end);
    if (ret == 0) {
        ret = ash_qcow2_flush(node);
    }
    if (ret == 0) {
        ret = ash_qcow2_header_set_length(node, bytes);
    }
    if (ret < 0) {
        return ash_error_errno(error, ret, "Shrinking '%s' failed", node->filename);
    }
    node->size_bytes = bytes;
    ret = cut_off(node, from, middle);
    if (ret < 0) { /* it is shorter all the same */
        ash_log(node->loop, ASH_LOG_WARNING, "'%s' keeps space beyond its end (error %d)",
                node->filename, -ret);
    }
    return 0;
}

/* Has the file reach to the end of what was placed. */
ASH_CO_FN static int reach(struct ash_node *node, const struct ash_placement *placement)
{
    uint64_t end = placement->host_offset + placement->bytes;
    const struct ash_node *file = node->file->child;
    if (end <= file->size_bytes || (file->flags & ASH_NODE_GROWS) == 0) {
        return 0;
    }
    int ret = ash_edge_resize(node->file, end, 0, ASH_PREALLOC_OFF, NULL);
    return file->size_bytes >= end ? 0 : ret; /* growth ahead may have come first */
}

/* Gives a place to a run of clusters from `offset` on; *done says how far it went. */
ASH_CO_FN static int preallocate_run(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                     enum ash_prealloc prealloc, uint64_t *done)
{
    struct ash_extent extent;
    int ret = ash_qcow2_map_ops.lookup(node, offset, bytes, &extent);
    *done = extent.bytes;
    if (ret < 0 || (extent.kind == ASH_EXTENT_DATA && extent.in_place)) {
        return ret;
    }
    struct ash_placement placement = {0};
    ret = ash_qcow2_map_ops.prepare(node, offset, bytes, &placement);
    if (ret < 0) {
        return ret;
    }
    *done = placement.bytes;
    if (prealloc != ASH_PREALLOC_METADATA || !placement.reads_zero) {
        ret = ash_edge_zero(placement.edge, placement.host_offset, placement.bytes, 0);
    } else {
        ret = reach(node, &placement);
    }
    if (ret == 0) {
        ret = ash_qcow2_map_ops.commit(node, &placement);
    }
    if (ret < 0) {
        ash_qcow2_map_ops.abort(node, &placement);
    }
    return ret;
}

ASH_CO_FN static int preallocate(struct ash_node *node, uint64_t from, enum ash_prealloc prealloc)
{
    const struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t end = ash_align_up(node->size_bytes, s->cluster_bytes);
    uint64_t at = ash_align_up(from, s->cluster_bytes);
    int ret = 0;
    while (at < end && ret == 0) {
        uint64_t done = 0;
        ret = preallocate_run(node, at, end - at, prealloc, &done);
        at += done;
    }
    return ret == 0 ? ash_qcow2_flush(node) : ret;
}

ASH_CO_FN static int grow(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                          struct ash_error *error)
{
    const struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t old = node->size_bytes;
    uint64_t entries = bytes == 0 ? 0 : qcow2_l1_index(s, bytes - 1) + 1;
    if (entries * sizeof(uint64_t) > QCOW2_L1_BYTES_MAX) {
        return ash_error_set(error, -EFBIG,
                             "'%s' cannot become %" PRIu64 " bytes long with clusters of %u bytes",
                             node->filename, bytes, s->cluster_bytes);
    }
    int ret = 0;
    if (entries > s->l1.count) {
        ret = ash_qcow2_l1_grow(node, entries, error);
        if (ret < 0) {
            return ret;
        }
    }
    node->size_bytes = bytes; /* nobody else is let into the new range meanwhile */
    ret = ash_map_cover(node, old);
    if (ret == 0) {
        ret = ash_qcow2_flush(node);
    }
    if (ret == 0) {
        ret = ash_qcow2_header_set_length(node, bytes);
    }
    if (ret < 0) {
        node->size_bytes = old;
        return ash_error_errno(error, ret, "Writing the header of '%s' failed", node->filename);
    }
    if (prealloc != ASH_PREALLOC_OFF) {
        ret = preallocate(node, old, prealloc);
        if (ret < 0) {
            return ash_error_errno(error, ret, "Preallocating '%s' failed", node->filename);
        }
    }
    return 0;
}

int ash_qcow2_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                     struct ash_error *error)
{
    if (!ash_is_aligned(bytes, 512)) {
        return ash_error_set(error, -EINVAL, "The new size must be a multiple of 512");
    }
    if (bytes < node->size_bytes) {
        if (prealloc != ASH_PREALLOC_OFF) {
            return ash_error_set(error, -EINVAL,
                                 "Preallocation can't be used for shrinking an image");
        }
        return shrink(node, bytes, error);
    }
    return bytes > node->size_bytes ? grow(node, bytes, prealloc, error) : 0;
}
