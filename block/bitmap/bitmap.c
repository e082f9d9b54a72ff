/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps: their lives, their states, and bits as ranges of bytes. The rules stand in the
 * header.
 *
 * Invariants:
 *  1. `marks` says where marks go, and follows from enabled, frozen, inconsistent and read_only: it
 * is set by route() alone.
 *  2. Every set of bits that the bitmap has (bits, successor, undos) covers size_bytes. */
#include "block/bitmap/bitmap.h"
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/bitmap/internal.h"
#include "util/assert.h"
#include "util/range.h"

#define GRANULARITY_DEFAULT (64 * KiB)
#define GRANULARITY_DEFAULT_MIN (4 * KiB)

/* Life. */

static int check_new(const struct ash_node *node, const char *name, uint64_t granularity_bytes,
                     struct ash_error *error)
{
    if (!ash_is_power_of_2(granularity_bytes) || granularity_bytes < ASH_BITMAP_GRANULARITY_MIN ||
        granularity_bytes > ASH_BITMAP_GRANULARITY_MAX) {
        return ash_error_set(error, -EINVAL,
                             "The granularity of a bitmap is a power of two from 512 bytes to 2 "
                             "GiB, not %" G_GUINT64_FORMAT,
                             granularity_bytes);
    }
    if (name == NULL) {
        return 0;
    }
    if (name[0] == '\0' || strlen(name) > ASH_BITMAP_NAME_MAX) {
        return ash_error_set(error, -EINVAL, "The name of a bitmap is 1 to %d bytes long, not %zu",
                             ASH_BITMAP_NAME_MAX, strlen(name));
    }
    if (ash_bitmap_find(node, name) != NULL) {
        return ash_error_set(error, -EEXIST, "'%s' has a bitmap '%s' already", node->filename,
                             name);
    }
    return 0;
}

static void route(struct ash_bitmap *bitmap)
{
    bool records = bitmap->enabled && !bitmap->inconsistent && !bitmap->read_only;
    bitmap->marks = !records ? NULL : bitmap->frozen ? &bitmap->successor : &bitmap->bits;
}

int ash_bitmap_new(struct ash_node *node, const char *name, uint64_t granularity_bytes,
                   struct ash_bitmap **result, struct ash_error *error)
{
    ash_loop_assert_owner(node->loop);
    int ret = check_new(node, name, granularity_bytes, error);
    if (ret < 0) {
        return ret;
    }
    struct ash_bitmap *bitmap = g_new0(struct ash_bitmap, 1);
    bitmap->shift = ash_log2(granularity_bytes);
    ret = ash_hbitmap_init(&bitmap->bits, ash_bitmap_granules(bitmap, node->size_bytes));
    if (ret < 0) {
        g_free(bitmap);
        return ash_error_set(error, ret,
                             "No memory for a bitmap of '%s' of granularity %" G_GUINT64_FORMAT,
                             node->filename, granularity_bytes);
    }
    bitmap->node = node;
    bitmap->name = g_strdup(name);
    bitmap->size_bytes = node->size_bytes;
    bitmap->enabled = true;
    ash_list_init(&bitmap->undos);
    ash_co_queue_init(&bitmap->dirtied);
    route(bitmap);
    ash_list_push_back(&node->bitmaps, &bitmap->link);
    *result = bitmap;
    return 0;
}

void ash_bitmap_free(struct ash_bitmap *bitmap)
{
    ash_assert(!bitmap->frozen);
    ash_assert(ash_list_empty(&bitmap->undos));
    ash_assert(ash_co_queue_empty(&bitmap->dirtied));
    ash_list_remove(&bitmap->link);
    ash_hbitmap_destroy(&bitmap->bits);
    g_free(bitmap->name);
    g_free(bitmap);
}

void ash_bitmaps_free(struct ash_node *node)
{
    ash_list_for_each_safe (bitmap, &node->bitmaps, struct ash_bitmap, link) {
        ash_assert(!bitmap->busy);
        ash_bitmap_free(bitmap);
    }
}

struct ash_bitmap *ash_bitmap_find(const struct ash_node *node, const char *name)
{
    ash_list_for_each (bitmap, &node->bitmaps, struct ash_bitmap, link) {
        if (bitmap->name != NULL && strcmp(bitmap->name, name) == 0) {
            return bitmap;
        }
    }
    return NULL;
}

uint64_t ash_bitmap_default_granularity(const struct ash_node *node)
{
    uint64_t cluster = node->limits.cluster;
    return cluster >= GRANULARITY_DEFAULT_MIN && cluster <= GRANULARITY_DEFAULT
               ? cluster
               : GRANULARITY_DEFAULT;
}

/* States. */

int ash_bitmap_check(const struct ash_bitmap *bitmap, uint32_t not_allowed, struct ash_error *error)
{
    const char *name = bitmap->name != NULL ? bitmap->name : "";
    if ((not_allowed & ASH_BITMAP_NOT_BUSY) != 0 && bitmap->busy) {
        return ash_error_set(error, -EBUSY, "Bitmap '%s' is in use by a job", name);
    }
    if ((not_allowed & ASH_BITMAP_NOT_READ_ONLY) != 0 && bitmap->read_only) {
        return ash_error_set(error, -EPERM, "Bitmap '%s' is read-only, as its image is", name);
    }
    if ((not_allowed & ASH_BITMAP_NOT_INCONSISTENT) != 0 && bitmap->inconsistent) {
        return ash_error_set(error, -EINVAL,
                             "Bitmap '%s' is inconsistent: some changes are missing in it; it can "
                             "only be deleted",
                             name);
    }
    return 0;
}

void ash_bitmap_enable(struct ash_bitmap *bitmap)
{
    bitmap->enabled = true;
    route(bitmap);
}

void ash_bitmap_disable(struct ash_bitmap *bitmap)
{
    bitmap->enabled = false;
    route(bitmap);
}

void ash_bitmap_set_busy(struct ash_bitmap *bitmap, bool busy)
{
    ash_assert(busy || !bitmap->frozen);
    bitmap->busy = busy;
}

void ash_bitmap_set_persistent(struct ash_bitmap *bitmap, bool persistent)
{
    ash_assert(bitmap->name != NULL);
    bitmap->persistent = persistent;
}

void ash_bitmap_set_read_only(struct ash_bitmap *bitmap, bool read_only)
{
    bitmap->read_only = read_only;
    route(bitmap);
}

void ash_bitmap_set_inconsistent(struct ash_bitmap *bitmap)
{
    bitmap->inconsistent = true;
    route(bitmap);
}

/* Freezing. */

int ash_bitmap_freeze(struct ash_bitmap *bitmap)
{
    ash_assert(bitmap->busy);
    ash_assert(!bitmap->frozen);
    int ret = ash_hbitmap_init(&bitmap->successor, bitmap->bits.bits);
    if (ret < 0) {
        return ret;
    }
    bitmap->frozen = true;
    route(bitmap);
    return 0;
}

void ash_bitmap_join(struct ash_bitmap *bitmap)
{
    ash_assert(bitmap->frozen);
    ash_hbitmap_merge(&bitmap->bits, &bitmap->successor);
    ash_hbitmap_destroy(&bitmap->successor);
    bitmap->frozen = false;
    route(bitmap);
}

void ash_bitmap_abdicate(struct ash_bitmap *bitmap)
{
    ash_assert(bitmap->frozen);
    ash_hbitmap_destroy(&bitmap->bits);
    bitmap->bits = bitmap->successor;
    bitmap->successor = (struct ash_hbitmap){0};
    bitmap->frozen = false;
    route(bitmap);
}

/* Bits. */

void ash_bitmap_set(struct ash_bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t end = ash_bitmap_end(bitmap, offset, bytes);
    if (offset < end) {
        uint64_t first = offset >> bitmap->shift;
        ash_hbitmap_set(&bitmap->bits, first, ash_bitmap_granules(bitmap, end) - first);
    }
}

void ash_bitmap_reset(struct ash_bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t end = ash_bitmap_end(bitmap, offset, bytes);
    uint64_t first = ash_bitmap_granules(bitmap, offset);
    uint64_t stop = end == bitmap->size_bytes ? bitmap->bits.bits : end >> bitmap->shift;
    if (first < stop) {
        ash_hbitmap_reset(&bitmap->bits, first, stop - first);
    }
}

bool ash_bitmap_get(const struct ash_bitmap *bitmap, uint64_t offset)
{
    return offset < bitmap->size_bytes && ash_hbitmap_test(&bitmap->bits, offset >> bitmap->shift);
}

typedef uint64_t search_fn(const struct ash_hbitmap *map, uint64_t from, uint64_t end);

/* The first range in [from, end) of granules that `next` finds, up to one that `other` finds. */
static bool next_range(const struct ash_bitmap *bitmap, search_fn *next, search_fn *other,
                       uint64_t from, uint64_t end, uint64_t bytes_max, uint64_t *offset,
                       uint64_t *bytes)
{
    ash_assert(bytes_max > 0);
    end = ASH_MIN(end, bitmap->size_bytes);
    if (from >= end) {
        return false;
    }
    uint64_t bit = next(&bitmap->bits, from >> bitmap->shift, ash_bitmap_granules(bitmap, end));
    if (bit == ASH_HBITMAP_NONE) {
        return false;
    }
    uint64_t start = ASH_MAX(bit << bitmap->shift, from);
    uint64_t stop = bytes_max < end - start ? start + bytes_max : end;
    uint64_t last = other(&bitmap->bits, bit, ash_bitmap_granules(bitmap, stop));
    if (last != ASH_HBITMAP_NONE) {
        stop = ASH_MIN(stop, last << bitmap->shift);
    }
    *offset = start;
    *bytes = stop - start;
    return true;
}

bool ash_bitmap_next_dirty(const struct ash_bitmap *bitmap, uint64_t from, uint64_t end,
                           uint64_t bytes_max, uint64_t *offset, uint64_t *bytes)
{
    return next_range(bitmap, ash_hbitmap_next_set, ash_hbitmap_next_clear, from, end, bytes_max,
                      offset, bytes);
}

bool ash_bitmap_next_clean(const struct ash_bitmap *bitmap, uint64_t from, uint64_t end,
                           uint64_t bytes_max, uint64_t *offset, uint64_t *bytes)
{
    return next_range(bitmap, ash_hbitmap_next_clear, ash_hbitmap_next_set, from, end, bytes_max,
                      offset, bytes);
}

uint64_t ash_bitmap_dirty_bytes(const struct ash_bitmap *bitmap)
{
    return ash_bitmap_dirty_bytes_in(bitmap, 0, bitmap->size_bytes);
}

uint64_t ash_bitmap_dirty_bytes_in(const struct ash_bitmap *bitmap, uint64_t offset, uint64_t bytes)
{
    uint64_t end = ash_bitmap_end(bitmap, offset, bytes);
    if (offset >= end) {
        return 0;
    }
    uint64_t first = offset >> bitmap->shift;
    uint64_t stop = ash_bitmap_granules(bitmap, end);
    uint64_t dirty = ash_hbitmap_count(&bitmap->bits, first, stop - first) << bitmap->shift;
    if (ash_hbitmap_test(&bitmap->bits, first)) {
        dirty -= offset - (first << bitmap->shift);
    }
    if (ash_hbitmap_test(&bitmap->bits, stop - 1)) {
        dirty -= (stop << bitmap->shift) - end;
    }
    return dirty;
}
