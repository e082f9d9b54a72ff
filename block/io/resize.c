/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing the length of a node.
 *
 * Invariants:
 *  1. The range that appears or goes is tracked as a serialising request: no other request is in
 * the driver there meanwhile (a write beyond the end that races a truncate is lost on some file
 *     systems).
 *  2. What appears reads as zeroes; the driver sees to it, as it alone knows when the new length
 *     becomes true on disk. Where that cannot be had, the node keeps its length.
 *  3. What walks found in that range, in this node or above it, is forgotten.
 *  4. Dirty bitmaps follow the length; the memory for it is there before anything changes. A shrink
 * that fails may have lost what it was to cut off, so that is marked.
 *  5. Who watches the growth of the node knows of it before anything changes. */
#include <errno.h>
#include <inttypes.h>
#include "block/bitmap/bitmap.h"
#include "block/driver.h"
#include "block/graph/node.h"
#include "block/io/mark.h"
#include "block/map/map.h"
#include "util/assert.h"

static int check(const struct ash_node *node, uint64_t bytes, uint32_t flags,
                 struct ash_error *error)
{
    if (bytes > INT64_MAX - 511) {
        return ash_error_set(error, -EFBIG, "'%s' cannot become %" PRIu64 " bytes long",
                             node->filename, bytes);
    }
    if (!ash_node_writable(node)) {
        return ash_error_set(error, -EPERM, "'%s' is read-only", node->filename);
    }
    if (node->driver->resize == NULL) {
        return ash_error_set(error, -ENOTSUP, "Driver '%s' cannot change the length of '%s'",
                             node->driver->name, node->filename);
    }
    if (bytes < node->size_bytes && (flags & ASH_RESIZE_SHRINK) == 0) {
        return ash_error_set(error, -EINVAL, "Shrinking '%s' was not allowed", node->filename);
    }
    return 0;
}

static int reserve(struct ash_node *node, uint64_t bytes, struct ash_error *error)
{
    int ret = ash_bitmaps_reserve(node, bytes);
    if (ret < 0) {
        return ash_error_set(error, ret, "No memory for the bitmaps of '%s' of %" PRIu64 " bytes",
                             node->filename, bytes);
    }
    return 0;
}

int ash_edge_resize(struct ash_edge *edge, uint64_t bytes, uint32_t flags, int prealloc,
                    struct ash_error *error)
{
    struct ash_node *node = edge->child;
    ash_assert((edge->needs & ASH_RIGHT_RESIZE) != 0);
    for (;;) {
        int ret = check(node, bytes, flags, error);
        if (ret < 0) {
            return ret;
        }
        ret = ash_mark_drop(node);
        if (ret < 0) {
            return ash_error_errno(error, ret, "The mark of '%s' cannot be taken away",
                                   node->filename);
        }
        uint64_t old = node->size_bytes;
        uint64_t from = ASH_MIN(old, bytes);
        struct ash_request request;
        ash_track_begin(&request, node, ASH_ZERO, from, INT64_MAX - from, true);
        if (node->size_bytes != old) { /* somebody changed it while this call waited */
            ash_track_end(&request);
            continue;
        }
        ret = reserve(node, bytes, error);
        if (ret == 0 && bytes > old && node->growth_watch != NULL) {
            ret = node->growth_watch->growing(node->growth_watch, old, bytes - old, error);
        }
        if (ret == 0) {
            ret = node->driver->resize(node, bytes, (enum ash_prealloc)prealloc, error);
            ash_assert(ret < 0 || node->size_bytes == bytes);
            ash_map_forget(node, from, INT64_MAX - from);
            ash_bitmaps_resized(node);
            node->resizes++;
            if (ret < 0) {
                ash_bitmaps_mark(node, from, old - from);
            }
        }
        ash_track_end(&request);
        return ret;
    }
}
