/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writing and reading bitmaps as streams; the format stands in the header.
 *
 * Runs of clean and of dirty words are found by the bitmap's summaries, so writing an almost clean
 * bitmap takes the time of its dirty words. Words are carried in pieces of PIECE_WORDS. */
#include "block/bitmap/stream.h"
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "util/assert.h"
#include "util/error.h"
#include "util/range.h"

#define PIECE_WORDS 512
#define SHIFT_MIN 9
#define SHIFT_MAX 31

enum { KIND_CLEAN, KIND_DIRTY, KIND_WORDS };

static const char magic[8] = {'a', 's', 'h', 'b', 'i', 't', 's', 1};

struct header {
    char magic[8];
    uint32_t flags;
    uint32_t shift;
    uint64_t size_bytes;
    uint64_t granules;
    uint64_t dirty;
};
_Static_assert(sizeof(struct header) == 40, "as the format says");

struct chunk {
    uint32_t kind;
    uint32_t words;
};
_Static_assert(sizeof(struct chunk) == 8, "as the format says");

int ash_bitmap_picture_take(const struct ash_bitmap *bitmap, struct ash_bitmap_picture *picture)
{
    picture->shift = bitmap->shift;
    picture->size_bytes = bitmap->size_bytes;
    int ret = ash_hbitmap_copy(&picture->bits, &bitmap->bits);
    if (ret == 0 && bitmap->frozen) {
        ash_hbitmap_merge(&picture->bits, &bitmap->successor);
    }
    return ret;
}

void ash_bitmap_picture_free(struct ash_bitmap_picture *picture)
{
    ash_hbitmap_destroy(&picture->bits);
}

/* Writing. */

/* How many words from `index` on are all clean, or all dirty. */
static uint64_t run_length(const struct ash_hbitmap *bits, uint64_t index, bool dirty)
{
    uint64_t other = dirty ? ash_hbitmap_next_clear(bits, index * 64, bits->bits)
                           : ash_hbitmap_next_set(bits, index * 64, bits->bits);
    if (other == ASH_HBITMAP_NONE) {
        /* A last word that is short is never all ones. */
        return (dirty ? bits->bits / 64 : ash_hbitmap_word_count(bits)) - index;
    }
    return other / 64 - index;
}

/* How many words from `index` on belong to no run. Takes no more than fit a piece. */
static uint64_t mixed_length(const struct ash_hbitmap *bits, uint64_t index)
{
    uint64_t end = ASH_MIN(index + PIECE_WORDS, ash_hbitmap_word_count(bits));
    uint64_t at = index;
    while (at < end && ash_hbitmap_word(bits, at) != 0 &&
           ash_hbitmap_word(bits, at) != UINT64_MAX) {
        at++;
    }
    return at - index;
}

static int write_words(const struct ash_hbitmap *bits, uint64_t index, uint64_t words,
                       ash_bitmap_sink_fn *sink, void *opaque)
{
    uint64_t piece[PIECE_WORDS];
    ash_assert(words <= PIECE_WORDS);
    for (uint64_t i = 0; i < words; i++) {
        piece[i] = htole64(ash_hbitmap_word(bits, index + i));
    }
    return sink(opaque, piece, words * sizeof(uint64_t));
}

/* Writes the chunk that begins with word `index`, and says how long it is. */
static int write_chunk(const struct ash_hbitmap *bits, uint64_t index, uint64_t *words,
                       ash_bitmap_sink_fn *sink, void *opaque)
{
    uint64_t word = ash_hbitmap_word(bits, index);
    uint32_t kind = word == 0 ? KIND_CLEAN : word == UINT64_MAX ? KIND_DIRTY : KIND_WORDS;
    *words = kind == KIND_WORDS ? mixed_length(bits, index)
                                : run_length(bits, index, kind == KIND_DIRTY);
    *words = ASH_MIN(*words, UINT32_MAX);
    struct chunk chunk = {htole32(kind), htole32((uint32_t)*words)};
    int ret = sink(opaque, &chunk, sizeof(chunk));
    if (ret == 0 && kind == KIND_WORDS) {
        ret = write_words(bits, index, *words, sink, opaque);
    }
    return ret;
}

int ash_bitmap_stream_write(const struct ash_bitmap_picture *picture, ash_bitmap_sink_fn *sink,
                            void *opaque)
{
    const struct ash_hbitmap *bits = &picture->bits;
    struct header header = {.flags = 0,
                            .shift = htole32(picture->shift),
                            .size_bytes = htole64(picture->size_bytes),
                            .granules = htole64(bits->bits),
                            .dirty = htole64(bits->count)};
    memcpy(header.magic, magic, sizeof(magic));
    int ret = sink(opaque, &header, sizeof(header));
    uint64_t words = 0;
    for (uint64_t at = 0; at < ash_hbitmap_word_count(bits) && ret == 0; at += words) {
        ret = write_chunk(bits, at, &words, sink, opaque);
    }
    return ret;
}

/* Reading. */

struct reading {
    struct ash_hbitmap *bits;
    ash_bitmap_source_fn *source;
    void *opaque;
    struct ash_error *error;
};

static int take(struct reading *reading, void *data, size_t bytes)
{
    int ret = reading->source(reading->opaque, data, bytes);
    return ret < 0 ? ash_error_errno(reading->error, ret, "A bitmap cannot be read") : 0;
}

static int read_header(struct reading *reading, uint64_t size_bytes, struct header *header)
{
    int ret = take(reading, header, sizeof(*header));
    if (ret < 0) {
        return ret;
    }
    if (memcmp(header->magic, magic, sizeof(magic)) != 0 || header->flags != 0) {
        return ash_error_set(reading->error, -EINVAL, "This is no bitmap, or of another version");
    }
    header->shift = le32toh(header->shift);
    header->size_bytes = le64toh(header->size_bytes);
    header->granules = le64toh(header->granules);
    header->dirty = le64toh(header->dirty);
    if (header->shift < SHIFT_MIN || header->shift > SHIFT_MAX) {
        return ash_error_set(reading->error, -EINVAL,
                             "The bitmap's granularity is 2 to the power of %" PRIu32,
                             header->shift);
    }
    if (header->size_bytes != size_bytes) {
        return ash_error_set(reading->error, -EINVAL,
                             "The bitmap is for %" PRIu64 " bytes, the disk has %" PRIu64,
                             header->size_bytes, size_bytes);
    }
    if (header->granules != ash_div_round_up(size_bytes, UINT64_C(1) << header->shift)) {
        return ash_error_set(reading->error, -EINVAL,
                             "The bitmap has %" PRIu64 " granules, which do not cover its %" PRIu64
                             " bytes",
                             header->granules, size_bytes);
    }
    return 0;
}

/* Words that follow, bits beyond the end excluded. */
static int read_words(struct reading *reading, uint64_t index, uint64_t words)
{
    uint64_t piece[PIECE_WORDS];
    uint64_t bits = reading->bits->bits;
    while (words > 0) {
        uint64_t count = ASH_MIN(words, PIECE_WORDS);
        int ret = take(reading, piece, count * sizeof(uint64_t));
        if (ret < 0) {
            return ret;
        }
        for (uint64_t i = 0; i < count; i++, index++) {
            uint64_t word = le64toh(piece[i]);
            uint64_t left = bits - index * 64;
            if (left < 64 && word >> left != 0) {
                return ash_error_set(reading->error, -EINVAL,
                                     "The bitmap has dirty granules beyond its end");
            }
            ash_hbitmap_put_word(reading->bits, index, word);
        }
        words -= count;
    }
    return 0;
}

/* Reads the chunk that begins with word `index`, and says how long it is. */
static int read_chunk(struct reading *reading, uint64_t index, uint64_t *words)
{
    struct chunk chunk;
    int ret = take(reading, &chunk, sizeof(chunk));
    if (ret < 0) {
        return ret;
    }
    uint32_t kind = le32toh(chunk.kind);
    uint64_t whole =
        kind == KIND_DIRTY ? reading->bits->bits / 64 : ash_hbitmap_word_count(reading->bits);
    *words = le32toh(chunk.words);
    if (kind > KIND_WORDS || *words == 0 || index > whole || *words > whole - index) {
        return ash_error_set(reading->error, -EINVAL,
                             "The bitmap has a chunk of kind %" PRIu32 " of %" PRIu64
                             " words at word %" PRIu64,
                             kind, *words, index);
    }
    if (kind == KIND_WORDS) {
        return read_words(reading, index, *words);
    }
    if (kind == KIND_DIRTY) {
        ash_hbitmap_set(reading->bits, index * 64, *words * 64);
    }
    return 0;
}

static int read_chunks(struct reading *reading, uint64_t dirty)
{
    uint64_t words = 0;
    for (uint64_t at = 0; at < ash_hbitmap_word_count(reading->bits); at += words) {
        int ret = read_chunk(reading, at, &words);
        if (ret < 0) {
            return ret;
        }
    }
    if (reading->bits->count != dirty) {
        return ash_error_set(reading->error, -EINVAL,
                             "The bitmap has %" PRIu64 " dirty granules, and says %" PRIu64,
                             reading->bits->count, dirty);
    }
    return 0;
}

int ash_bitmap_stream_read(struct ash_bitmap_picture *picture, uint64_t size_bytes,
                           ash_bitmap_source_fn *source, void *opaque, struct ash_error *error)
{
    struct reading reading = {&picture->bits, source, opaque, error};
    struct header header;
    int ret = read_header(&reading, size_bytes, &header);
    if (ret < 0) {
        return ret;
    }
    picture->shift = header.shift;
    picture->size_bytes = header.size_bytes;
    ret = ash_hbitmap_init(&picture->bits, header.granules);
    if (ret < 0) {
        return ash_error_set(error, ret, "No memory for a bitmap of %" PRIu64 " granules",
                             header.granules);
    }
    ret = read_chunks(&reading, header.dirty);
    if (ret < 0) {
        ash_hbitmap_destroy(&picture->bits);
    }
    return ret;
}
