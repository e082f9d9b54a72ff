/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changes to a bitmap as a whole, which a transaction can take back.
 *
 * An undo holds the bits as they would be without the change. While it is open, every mark, and
 * every change of length, is made there as well (mark.c); so taking the change back is exact,
 * whatever the guest has written meanwhile. Undos are closed in the opposite order of opening. */
#include <errno.h>
#include "block/bitmap/internal.h"
#include "util/assert.h"

static void undo_open(struct ash_bitmap_undo *undo, struct ash_bitmap *bitmap,
                      const struct ash_hbitmap *bits)
{
    undo->bitmap = bitmap;
    undo->bits = *bits;
    ash_list_push_back(&bitmap->undos, &undo->link);
}

static void undo_close(struct ash_bitmap_undo *undo)
{
    ash_assert(undo->bitmap->undos.prev == &undo->link);
    ash_list_remove(&undo->link);
    ash_hbitmap_destroy(&undo->bits);
    undo->bitmap = NULL;
}

void ash_bitmap_undo_drop(struct ash_bitmap_undo *undo)
{
    undo_close(undo);
}

void ash_bitmap_undo_restore(struct ash_bitmap_undo *undo)
{
    struct ash_bitmap *bitmap = undo->bitmap;
    ash_assert(!bitmap->frozen);
    struct ash_hbitmap bits = bitmap->bits;
    bitmap->bits = undo->bits;
    undo->bits = bits;
    undo_close(undo);
    if (bitmap->bits.count > 0) {
        ash_co_queue_wake_all(&bitmap->dirtied);
    }
}

int ash_bitmap_clear(struct ash_bitmap *bitmap, struct ash_bitmap_undo *undo)
{
    ash_assert(!bitmap->frozen);
    if (undo == NULL) {
        ash_hbitmap_reset_all(&bitmap->bits);
        return 0;
    }
    struct ash_hbitmap clean;
    int ret = ash_hbitmap_init(&clean, bitmap->bits.bits);
    if (ret < 0) {
        return ret;
    }
    undo_open(undo, bitmap, &bitmap->bits);
    bitmap->bits = clean;
    return 0;
}

/* to |= from, where `from` has granules of another size and as many bytes. A coarse granule is set
 * once, however many fine ones lie in it. */
static void merge_scaled(struct ash_bitmap *to, const struct ash_hbitmap *from, uint32_t shift)
{
    uint64_t bit = 0;
    while ((bit = ash_hbitmap_next_set(from, bit, from->bits)) != ASH_HBITMAP_NONE) {
        uint64_t stop = ash_hbitmap_next_clear(from, bit, from->bits);
        stop = stop == ASH_HBITMAP_NONE ? from->bits : stop;
        ash_bitmap_set(to, bit << shift, (stop - bit) << shift);
        if (shift < to->shift) {
            uint64_t ratio = UINT64_C(1) << (to->shift - shift);
            stop = (stop + ratio - 1) & ~(ratio - 1);
        }
        bit = stop;
    }
}

static void merge_bits(struct ash_bitmap *to, const struct ash_hbitmap *from, uint32_t shift)
{
    if (shift == to->shift) {
        ash_hbitmap_merge(&to->bits, from);
    } else {
        merge_scaled(to, from, shift);
    }
}

int ash_bitmap_merge(struct ash_bitmap *to, const struct ash_bitmap *from,
                     struct ash_bitmap_undo *undo, struct ash_error *error)
{
    ash_assert(!to->frozen);
    if (to->size_bytes != from->size_bytes) {
        return ash_error_set(error, -EINVAL,
                             "Bitmaps of nodes of different lengths cannot be merged");
    }
    if (undo != NULL) {
        struct ash_hbitmap before;
        int ret = ash_hbitmap_copy(&before, &to->bits);
        if (ret < 0) {
            return ash_error_set(error, ret, "No memory to merge bitmaps");
        }
        undo_open(undo, to, &before);
    }
    bool was_clean = to->bits.count == 0;
    merge_bits(to, &from->bits, from->shift);
    if (from->frozen) {
        merge_bits(to, &from->successor, from->shift);
    }
    if (was_clean && to->bits.count > 0) {
        ash_co_queue_wake_all(&to->dirtied);
    }
    return 0;
}
