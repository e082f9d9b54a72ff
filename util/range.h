/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Byte ranges and alignment. Offsets and lengths are at most INT64_MAX; whoever takes them from
 * outside checks with ash_range_valid() first, and then no sum here can overflow. */
#ifndef ASH_UTIL_RANGE_H
#define ASH_UTIL_RANGE_H

#include <stdbool.h>
#include <stdint.h>
#include "util/compiler.h"

static inline bool ash_range_valid(uint64_t offset, uint64_t bytes)
{
    return offset <= INT64_MAX && bytes <= (uint64_t)INT64_MAX - offset;
}

/* Whether two ranges share a byte. Empty ranges share none. */
static inline bool ash_range_overlap(uint64_t a, uint64_t a_bytes, uint64_t b, uint64_t b_bytes)
{
    return a_bytes > 0 && b_bytes > 0 && a < b + b_bytes && b < a + a_bytes;
}

/* Whether the range lies within [outer, outer + outer_bytes). */
static inline bool ash_range_inside(uint64_t offset, uint64_t bytes, uint64_t outer,
                                    uint64_t outer_bytes)
{
    return offset >= outer && offset - outer <= outer_bytes && bytes <= outer_bytes - (offset - outer);
}

static inline bool ash_is_power_of_2(uint64_t x)
{
    return x != 0 && (x & (x - 1)) == 0;
}

/* For the three below `unit` is a power of two. */
static inline uint64_t ash_align_down(uint64_t x, uint64_t unit)
{
    return x & ~(unit - 1);
}

/* x is at most UINT64_MAX - unit + 1. */
static inline uint64_t ash_align_up(uint64_t x, uint64_t unit)
{
    return (x + unit - 1) & ~(unit - 1);
}

static inline bool ash_is_aligned(uint64_t x, uint64_t unit)
{
    return (x & (unit - 1)) == 0;
}

static inline uint64_t ash_div_round_up(uint64_t x, uint64_t unit)
{
    return x / unit + (x % unit != 0);
}

/* The exponent of a power of two. */
static inline unsigned ash_log2(uint64_t power_of_2)
{
    return (unsigned)__builtin_ctzll(power_of_2);
}

#endif
