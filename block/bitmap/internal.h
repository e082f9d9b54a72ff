/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of block/bitmap share. */
#ifndef ASH_BLOCK_BITMAP_INTERNAL_H
#define ASH_BLOCK_BITMAP_INTERNAL_H

#include "block/bitmap/bitmap.h"

/* How many granules the first `bytes` bytes touch. */
static inline uint64_t ash_bitmap_granules(const struct ash_bitmap *bitmap, uint64_t bytes)
{
    return (bytes >> bitmap->shift) + ((bytes & (ash_bitmap_granularity(bitmap) - 1)) != 0);
}

/* Where the range ends, cut to the node. */
static inline uint64_t ash_bitmap_end(const struct ash_bitmap *bitmap, uint64_t offset,
                                      uint64_t bytes)
{
    uint64_t size = bitmap->size_bytes;
    return offset >= size || bytes > size - offset ? size : offset + bytes;
}

#endif
