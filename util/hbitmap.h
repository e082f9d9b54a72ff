/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A hierarchical set of bits.
 *
 * The bits lie in words of 64. Above them stand two pyramids of summaries, each level a 64th of the
 * one below: a bit of `any` says that some bit of its word below is set, a bit of `full` that all
 * are. So the next set bit and the next clear bit are found in O(log n), and memory is the bits and
 * a 31st part.
 *
 * Memory is taken for a capacity and never while bits change: only init and reserve can fail, and
 * they fail cleanly. It comes zeroed from the system, so what is never set costs little.
 *
 * A position is all there is of an iterator: sets and resets between two calls of a search are
 * harmless. Not thread-safe. */
#ifndef ASH_UTIL_HBITMAP_H
#define ASH_UTIL_HBITMAP_H

#include <stdbool.h>
#include <stdint.h>
#include "util/compiler.h"

#define ASH_HBITMAP_LEVELS 11 /* 64^11 is more than 2^63 */
#define ASH_HBITMAP_NONE UINT64_MAX
#define ASH_HBITMAP_BITS_MAX (UINT64_C(1) << 40) /* more is -ENOMEM without asking for it */

struct ash_hbitmap {
    uint64_t *words; /* the bits; those from `bits` on are clear */
    uint64_t bits;
    uint64_t count;                           /* of set bits */
    uint64_t capacity;                        /* in bits, a multiple of 64 */
    uint32_t levels;                          /* of each pyramid; the highest is one word */
    uint64_t level_words[ASH_HBITMAP_LEVELS]; /* of each level of a pyramid, the lowest first */
    uint64_t *any[ASH_HBITMAP_LEVELS];
    uint64_t *full[ASH_HBITMAP_LEVELS];
    uint64_t *summaries; /* the memory of both */
};

/* `bits` clear bits; 0 is allowed. -ENOMEM, and then there is nothing to destroy. */
int ash_hbitmap_init(struct ash_hbitmap *map, uint64_t bits);
void ash_hbitmap_destroy(struct ash_hbitmap *map);

/* A copy, in memory of its own. -ENOMEM. */
int ash_hbitmap_copy(struct ash_hbitmap *to, const struct ash_hbitmap *from);

/* Makes room for `bits` bits, so that a resize up to there cannot fail. Growing in small steps
 * copies seldom. -ENOMEM: nothing has changed. */
int ash_hbitmap_reserve(struct ash_hbitmap *map, uint64_t bits);

/* Sets the number of bits; within the capacity (asserted). New ones are clear. Keeps the memory. */
void ash_hbitmap_resize(struct ash_hbitmap *map, uint64_t bits);

/* Ranges below lie within the bits (asserted); the empty one is allowed. */
void ash_hbitmap_set(struct ash_hbitmap *map, uint64_t first, uint64_t count);
void ash_hbitmap_reset(struct ash_hbitmap *map, uint64_t first, uint64_t count);
void ash_hbitmap_reset_all(struct ash_hbitmap *map);

static inline bool ash_hbitmap_test(const struct ash_hbitmap *map, uint64_t bit)
{
    return (map->words[bit / 64] >> (bit % 64) & 1) != 0;
}

/* Whether all of the bits `first` to `last`, which lie in one word, are set: what most marks find.
 */
static inline bool ash_hbitmap_covered(const struct ash_hbitmap *map, uint64_t first, uint64_t last)
{
    uint64_t mask = UINT64_MAX << (first % 64) & UINT64_MAX >> (63 - last % 64);
    return first / 64 == last / 64 && (map->words[first / 64] & mask) == mask;
}

/* The first set, or clear, bit in [from, end); NONE. `end` may lie beyond the bits and counts as
 * their end then. */
uint64_t ash_hbitmap_next_set(const struct ash_hbitmap *map, uint64_t from, uint64_t end);
uint64_t ash_hbitmap_next_clear(const struct ash_hbitmap *map, uint64_t from, uint64_t end);

/* How many bits of the range are set. */
uint64_t ash_hbitmap_count(const struct ash_hbitmap *map, uint64_t first, uint64_t count);

/* to |= from, of equal length (asserted). */
void ash_hbitmap_merge(struct ash_hbitmap *to, const struct ash_hbitmap *from);

/* Word by word: for writing to and loading from elsewhere. A word holds the bits 64 * i and up, the
 * lowest first. Loading replaces; bits beyond the end must be clear (asserted). */
static inline uint64_t ash_hbitmap_word_count(const struct ash_hbitmap *map)
{
    return map->bits / 64 + (map->bits % 64 != 0);
}

static inline uint64_t ash_hbitmap_word(const struct ash_hbitmap *map, uint64_t index)
{
    return map->words[index];
}

void ash_hbitmap_put_word(struct ash_hbitmap *map, uint64_t index, uint64_t word);

/* Bytes of memory that were asked for. */
uint64_t ash_hbitmap_memory_bytes(const struct ash_hbitmap *map);

#endif
