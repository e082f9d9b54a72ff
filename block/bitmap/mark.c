/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The request path's part of dirty bitmaps: marks, and following the node's length.
 *
 * Nearly every mark finds its bits set already, and then costs one look at one word. */
#include "block/bitmap/internal.h"
#include "util/assert.h"

/* Sets the bits in all sets that are to have them. */
static void mark_new(struct ash_bitmap *bitmap, uint64_t first, uint64_t last)
{
    bool was_clean = bitmap->marks->count == 0;
    ash_hbitmap_set(bitmap->marks, first, last - first + 1);
    ash_list_for_each (undo, &bitmap->undos, struct ash_bitmap_undo, link) {
        ash_hbitmap_set(&undo->bits, first, last - first + 1);
    }
    if (was_clean) {
        ash_co_queue_wake_all(&bitmap->dirtied);
    }
}

/* Makes room for `bytes` in every set. */
static int reserve(struct ash_bitmap *bitmap, uint64_t bytes)
{
    uint64_t granules = ash_bitmap_granules(bitmap, bytes);
    int ret = ash_hbitmap_reserve(&bitmap->bits, granules);
    if (ret == 0 && bitmap->frozen) {
        ret = ash_hbitmap_reserve(&bitmap->successor, granules);
    }
    ash_list_for_each (undo, &bitmap->undos, struct ash_bitmap_undo, link) {
        if (ret == 0) {
            ret = ash_hbitmap_reserve(&undo->bits, granules);
        }
    }
    return ret;
}

/* Makes the bitmap as long as its node. What appeared is a change like a write: a copy made before
 * lacks it. */
static void follow(struct ash_bitmap *bitmap)
{
    uint64_t old = bitmap->size_bytes;
    uint64_t size = bitmap->node->size_bytes;
    if (reserve(bitmap, size) < 0) { /* whoever lengthens a node reserves first */
        ash_bitmap_set_inconsistent(bitmap);
        return;
    }
    uint64_t granules = ash_bitmap_granules(bitmap, size);
    bitmap->size_bytes = size;
    ash_hbitmap_resize(&bitmap->bits, granules);
    if (bitmap->frozen) {
        ash_hbitmap_resize(&bitmap->successor, granules);
    }
    ash_list_for_each (undo, &bitmap->undos, struct ash_bitmap_undo, link) {
        ash_hbitmap_resize(&undo->bits, granules);
    }
    if (size > old && bitmap->marks != NULL) {
        mark_new(bitmap, old >> bitmap->shift, granules - 1);
    }
}

int ash_bitmaps_reserve(struct ash_node *node, uint64_t bytes)
{
    ash_list_for_each (bitmap, &node->bitmaps, struct ash_bitmap, link) {
        int ret = reserve(bitmap, bytes);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

void ash_bitmaps_resized(struct ash_node *node)
{
    ash_list_for_each (bitmap, &node->bitmaps, struct ash_bitmap, link) {
        if (bitmap->size_bytes != node->size_bytes) {
            follow(bitmap);
        }
    }
}

void ash_bitmaps_mark(struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    uint64_t size = node->size_bytes;
    uint64_t end = offset >= size || bytes > size - offset ? size : offset + bytes;
    ash_list_for_each (bitmap, &node->bitmaps, struct ash_bitmap, link) {
        if (ash_unlikely(bitmap->size_bytes != size)) {
            follow(bitmap);
        }
        if (offset >= end) {
            continue;
        }
        if (ash_unlikely(bitmap->marks == NULL)) {
            if (bitmap->enabled && bitmap->read_only) {
                ash_bitmap_set_inconsistent(bitmap);
            }
            continue;
        }
        uint64_t first = offset >> bitmap->shift;
        uint64_t last = (end - 1) >> bitmap->shift;
        if (ash_unlikely(!ash_hbitmap_covered(bitmap->marks, first, last) ||
                         !ash_list_empty(&bitmap->undos))) {
            mark_new(bitmap, first, last);
        }
    }
}
