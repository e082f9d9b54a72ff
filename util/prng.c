/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* xoshiro256** (Blackman and Vigna), seeded through splitmix64 so that near seeds give unrelated
 * sequences and no seed gives the all-zero state. The same seed gives the same sequence on every
 * machine: bytes are laid out little-endian. */
#include "util/prng.h"

#include <endian.h>
#include <string.h>
#include "util/assert.h"
#include "util/compiler.h"

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return x << bits | x >> (64 - bits);
}

void ash_prng_seed(struct ash_prng *prng, uint64_t seed)
{
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(prng->state); i++) {
        seed += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t mixed = seed;
        mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
        prng->state[i] = mixed ^ mixed >> 31;
    }
}

uint64_t ash_prng_next(struct ash_prng *prng)
{
    uint64_t *state = prng->state;
    uint64_t result = rotate_left(state[1] * 5, 7) * 9;
    uint64_t shifted = state[1] << 17;

    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotate_left(state[3], 45);
    return result;
}

uint64_t ash_prng_below(struct ash_prng *prng, uint64_t bound)
{
    ash_assert(bound > 0);

    /* The first 2^64 mod bound values would make small results likelier: they are drawn again. */
    uint64_t rejected = -bound % bound;
    uint64_t value;
    do {
        value = ash_prng_next(prng);
    } while (value < rejected);
    return value % bound;
}

uint64_t ash_prng_between(struct ash_prng *prng, uint64_t low, uint64_t high)
{
    ash_assert(low <= high);

    uint64_t span = high - low;
    if (span == UINT64_MAX) {
        return ash_prng_next(prng);
    }
    return low + ash_prng_below(prng, span + 1);
}

bool ash_prng_chance(struct ash_prng *prng, unsigned per_mille)
{
    return ash_prng_below(prng, 1000) < per_mille;
}

void ash_prng_fill(struct ash_prng *prng, void *buffer, uint64_t bytes)
{
    uint8_t *out = buffer;

    while (bytes > 0) {
        uint64_t word = htole64(ash_prng_next(prng));
        size_t part = (size_t)ASH_MIN(bytes, sizeof(word));
        memcpy(out, &word, part);
        out += part;
        bytes -= part;
    }
}
