/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A bitmap as a stream of bytes: for migration, and for keeping it anywhere.
 *
 * All numbers are little-endian. A header of 40 bytes:
 *
 *      0  8 bytes  "ashbits" and the version, 1
 *      8  u32      flags: 0
 *     12  u32      the granularity's exponent: 9 to 31
 *     16  u64      length of the node in bytes
 *     24  u64      granules in the bitmap: as many as the length touches
 *     32  u64      dirty ones among them
 *
 * Then come chunks that make up the bitmap's words from the first to the last. A word is 64
 * granules, the lowest bit being the first; bits beyond the last granule are 0. A chunk is
 *
 *      0  u32      kind: 0: clean words, 1: dirty words (all ones), 2: words that follow
 *      4  u32      number of words: at least 1
 *      8  words    8 bytes each; of kind 2 only
 *
 * Nothing comes after the last word: a stream knows its own end. Reading trusts nothing, takes 4
 * KiB besides the bitmap, and time by the bitmap's words, which the reader bounds by naming the
 * length that it expects. */
#ifndef ASH_BLOCK_BITMAP_STREAM_H
#define ASH_BLOCK_BITMAP_STREAM_H

#include <ashlar/bitmap.h>
#include "block/bitmap/bitmap.h"

/* What a bitmap was at one time; on its own, so that it can be written on any thread. */
struct ash_bitmap_picture {
    struct ash_hbitmap bits;
    uint32_t shift;
    uint64_t size_bytes;
};

/* Takes a picture: what is frozen, and its successor, together. -ENOMEM. */
int ash_bitmap_picture_take(const struct ash_bitmap *bitmap, struct ash_bitmap_picture *picture);
void ash_bitmap_picture_free(struct ash_bitmap_picture *picture);

/* Writes it through `sink`, in pieces of at most 4 KiB. 0, or what the sink returned. */
int ash_bitmap_stream_write(const struct ash_bitmap_picture *picture, ash_bitmap_sink_fn *sink,
                            void *opaque);

/* Reads one of a node of `size_bytes` through `source`. -EINVAL: not such a stream; -ENOMEM; or
 * what the source returned. */
int ash_bitmap_stream_read(struct ash_bitmap_picture *picture, uint64_t size_bytes,
                           ash_bitmap_source_fn *source, void *opaque, struct ash_error *error);

#endif
