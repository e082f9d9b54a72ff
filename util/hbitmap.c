/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A hierarchical set of bits; what it is stands in the header.
 *
 * Invariants:
 *  1. Bit i of any[0] is set iff words[i] is not 0; bit i of any[k + 1] iff any[k][i] is not 0.
 *  2. Bit i of full[0] is set iff words[i] is all ones; bit i of full[k + 1] iff full[k][i] is all
 *     ones. What lies beyond the end of a level counts as not full, and a search that gets there
 * has found nothing.
 *  3. Bits from `bits` on are clear, up to the capacity.
 *  4. `count` is the number of set bits.
 *
 * A word changes in change_word() only, which goes up a pyramid no further than something changes
 * there. Whatever handles many words skips those that are empty, or full, by the pyramids, so its
 * cost is that of the words that matter, and memory that was never written stays untouched. */
#include "util/hbitmap.h"
#include <errno.h>
#include <glib.h>
#include "util/assert.h"
#include "util/range.h"

#define ALL UINT64_MAX

static uint64_t levels_measure(struct ash_hbitmap *map)
{
    uint64_t below = map->capacity / 64;
    uint64_t total = 0;
    map->levels = 0;
    do {
        below = ash_div_round_up(below, 64);
        ash_assert(map->levels < ASH_HBITMAP_LEVELS);
        map->level_words[map->levels++] = below;
        total += below;
    } while (below > 1);
    return total;
}

/* `bits` clear bits with room for `capacity`. */
static int init(struct ash_hbitmap *map, uint64_t bits, uint64_t capacity)
{
    *map = (struct ash_hbitmap){.bits = bits};
    if (capacity > ASH_HBITMAP_BITS_MAX) {
        return -ENOMEM;
    }
    map->capacity = ash_align_up(ASH_MAX(capacity, 1), 64);
    uint64_t summary_words = levels_measure(map);
    map->words = g_try_new0(uint64_t, map->capacity / 64);
    map->summaries = g_try_new0(uint64_t, 2 * summary_words);
    if (map->words == NULL || map->summaries == NULL) {
        ash_hbitmap_destroy(map);
        return -ENOMEM;
    }
    uint64_t *level = map->summaries;
    for (uint32_t i = 0; i < map->levels; i++) {
        map->any[i] = level;
        map->full[i] = level + summary_words;
        level += map->level_words[i];
    }
    return 0;
}

int ash_hbitmap_init(struct ash_hbitmap *map, uint64_t bits)
{
    return init(map, bits, bits);
}

void ash_hbitmap_destroy(struct ash_hbitmap *map)
{
    g_free(map->words);
    g_free(map->summaries);
    *map = (struct ash_hbitmap){0};
}

/* Pyramids. */

static void any_changed(struct ash_hbitmap *map, uint64_t index, bool any)
{
    for (uint32_t level = 0; level < map->levels; level++) {
        uint64_t *word = &map->any[level][index / 64];
        uint64_t old = *word;
        uint64_t bit = UINT64_C(1) << (index % 64);
        *word = any ? old | bit : old & ~bit;
        if ((old != 0) == (*word != 0)) {
            return;
        }
        index /= 64;
    }
}

static void full_changed(struct ash_hbitmap *map, uint64_t index, bool full)
{
    for (uint32_t level = 0; level < map->levels; level++) {
        uint64_t *word = &map->full[level][index / 64];
        uint64_t old = *word;
        uint64_t bit = UINT64_C(1) << (index % 64);
        *word = full ? old | bit : old & ~bit;
        if ((old == ALL) == (*word == ALL)) {
            return;
        }
        index /= 64;
    }
}

static void change_word(struct ash_hbitmap *map, uint64_t index, uint64_t word)
{
    uint64_t old = map->words[index];
    if (old == word) {
        return;
    }
    map->words[index] = word;
    map->count += (uint64_t)__builtin_popcountll(word);
    map->count -= (uint64_t)__builtin_popcountll(old);
    if ((old != 0) != (word != 0)) {
        any_changed(map, index, word != 0);
    }
    if ((old == ALL) != (word == ALL)) {
        full_changed(map, index, word == ALL);
    }
}

/* The first word from `index` on whose bit in the pyramid, XOR flip, is set; NONE. flip is 0 or
 * ALL. */
static uint64_t next_word(const struct ash_hbitmap *map, uint64_t *const *pyramid, uint64_t index,
                          uint64_t flip)
{
    for (uint32_t level = 0; level < map->levels; level++) {
        if (index / 64 >= map->level_words[level]) {
            return ASH_HBITMAP_NONE;
        }
        uint64_t left = (pyramid[level][index / 64] ^ flip) & ALL << (index % 64);
        if (left == 0) {
            index = index / 64 + 1;
            continue;
        }
        index = ash_align_down(index, 64) + (uint64_t)__builtin_ctzll(left);
        while (level > 0) {
            level--;
            if (index >= map->level_words[level]) {
                return ASH_HBITMAP_NONE;
            }
            index = index * 64 + (uint64_t)__builtin_ctzll(pyramid[level][index] ^ flip);
        }
        return index < map->capacity / 64 ? index : ASH_HBITMAP_NONE;
    }
    return ASH_HBITMAP_NONE;
}

static uint64_t next_used_word(const struct ash_hbitmap *map, uint64_t index)
{
    return next_word(map, map->any, index, 0);
}

static uint64_t next_word_with_room(const struct ash_hbitmap *map, uint64_t index)
{
    return next_word(map, map->full, index, ALL);
}

/* Ranges. */

/* The bits of word `index` that lie in [first, last]. */
static uint64_t mask_of(uint64_t index, uint64_t first, uint64_t last)
{
    uint64_t mask = ALL;
    if (index == first / 64) {
        mask &= ALL << (first % 64);
    }
    if (index == last / 64) {
        mask &= ALL >> (63 - last % 64);
    }
    return mask;
}

static void assert_range(const struct ash_hbitmap *map, uint64_t first, uint64_t count)
{
    ash_assert(first <= map->bits);
    ash_assert(count <= map->bits - first);
}

void ash_hbitmap_set(struct ash_hbitmap *map, uint64_t first, uint64_t count)
{
    assert_range(map, first, count);
    if (count == 0) {
        return;
    }
    uint64_t last = first + count - 1;
    uint64_t index = first / 64;
    while (index <= last / 64) { /* NONE is beyond */
        uint64_t word = map->words[index] | mask_of(index, first, last);
        if (word != map->words[index]) {
            change_word(map, index++, word);
        } else {
            index = next_word_with_room(map, index + 1);
        }
    }
}

void ash_hbitmap_reset(struct ash_hbitmap *map, uint64_t first, uint64_t count)
{
    assert_range(map, first, count);
    if (count == 0) {
        return;
    }
    uint64_t last = first + count - 1;
    uint64_t index = first / 64;
    while (index <= last / 64) {
        uint64_t word = map->words[index] & ~mask_of(index, first, last);
        if (word != map->words[index]) {
            change_word(map, index++, word);
        } else {
            index = next_used_word(map, index + 1);
        }
    }
}

void ash_hbitmap_reset_all(struct ash_hbitmap *map)
{
    ash_hbitmap_reset(map, 0, map->bits);
    ash_assert(map->count == 0);
}

uint64_t ash_hbitmap_count(const struct ash_hbitmap *map, uint64_t first, uint64_t count)
{
    assert_range(map, first, count);
    if (count == 0 || count == map->bits) {
        return count == 0 ? 0 : map->count;
    }
    uint64_t last = first + count - 1;
    uint64_t set = 0;
    for (uint64_t index = next_used_word(map, first / 64); index <= last / 64;
         index = next_used_word(map, index + 1)) {
        set += (uint64_t)__builtin_popcountll(map->words[index] & mask_of(index, first, last));
    }
    return set;
}

uint64_t ash_hbitmap_next_set(const struct ash_hbitmap *map, uint64_t from, uint64_t end)
{
    end = ASH_MIN(end, map->bits);
    if (from >= end) {
        return ASH_HBITMAP_NONE;
    }
    uint64_t index = from / 64;
    uint64_t word = map->words[index] & ALL << (from % 64);
    if (word == 0) {
        index = next_used_word(map, index + 1);
        if (index > (end - 1) / 64) {
            return ASH_HBITMAP_NONE;
        }
        word = map->words[index];
    }
    uint64_t bit = index * 64 + (uint64_t)__builtin_ctzll(word);
    return bit < end ? bit : ASH_HBITMAP_NONE;
}

uint64_t ash_hbitmap_next_clear(const struct ash_hbitmap *map, uint64_t from, uint64_t end)
{
    end = ASH_MIN(end, map->bits);
    if (from >= end) {
        return ASH_HBITMAP_NONE;
    }
    uint64_t index = from / 64;
    uint64_t word = ~map->words[index] & ALL << (from % 64);
    if (word == 0) {
        index = next_word_with_room(map, index + 1);
        if (index > (end - 1) / 64) {
            return ASH_HBITMAP_NONE;
        }
        word = ~map->words[index];
    }
    uint64_t bit = index * 64 + (uint64_t)__builtin_ctzll(word);
    return bit < end ? bit : ASH_HBITMAP_NONE;
}

/* Whole sets. */

static void merge_words(struct ash_hbitmap *to, const struct ash_hbitmap *from)
{
    for (uint64_t index = next_used_word(from, 0); index != ASH_HBITMAP_NONE;
         index = next_used_word(from, index + 1)) {
        change_word(to, index, to->words[index] | from->words[index]);
    }
}

void ash_hbitmap_merge(struct ash_hbitmap *to, const struct ash_hbitmap *from)
{
    ash_assert(to->bits == from->bits);
    merge_words(to, from);
}

int ash_hbitmap_copy(struct ash_hbitmap *to, const struct ash_hbitmap *from)
{
    int ret = init(to, from->bits, from->capacity);
    if (ret == 0) {
        merge_words(to, from);
    }
    return ret;
}

int ash_hbitmap_reserve(struct ash_hbitmap *map, uint64_t bits)
{
    if (bits <= map->capacity) {
        return 0;
    }
    struct ash_hbitmap larger;
    int ret = init(&larger, map->bits,
                   ASH_MAX(bits, ASH_MIN(map->capacity + map->capacity / 2, ASH_HBITMAP_BITS_MAX)));
    if (ret < 0) {
        return ret;
    }
    merge_words(&larger, map);
    ash_hbitmap_destroy(map);
    *map = larger;
    return 0;
}

void ash_hbitmap_resize(struct ash_hbitmap *map, uint64_t bits)
{
    ash_assert(bits <= map->capacity);
    if (bits < map->bits) {
        ash_hbitmap_reset(map, bits, map->bits - bits);
    }
    map->bits = bits;
}

void ash_hbitmap_put_word(struct ash_hbitmap *map, uint64_t index, uint64_t word)
{
    ash_assert(index < ash_hbitmap_word_count(map));
    ash_assert((word & ~mask_of(index, 0, map->bits - 1)) == 0);
    change_word(map, index, word);
}

uint64_t ash_hbitmap_memory_bytes(const struct ash_hbitmap *map)
{
    uint64_t words = map->capacity / 64;
    for (uint32_t level = 0; level < map->levels; level++) {
        words += 2 * map->level_words[level];
    }
    return words * sizeof(uint64_t);
}
