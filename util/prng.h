/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A small, fast, seeded generator (xoshiro256**) for simulation and tests. Not for secrets. */
#ifndef ASH_UTIL_PRNG_H
#define ASH_UTIL_PRNG_H

#include <stdbool.h>
#include <stdint.h>

struct ash_prng {
    uint64_t state[4];
};

void ash_prng_seed(struct ash_prng *prng, uint64_t seed);
uint64_t ash_prng_next(struct ash_prng *prng);

/* Uniform in [0, bound); bound > 0. */
uint64_t ash_prng_below(struct ash_prng *prng, uint64_t bound);

/* Uniform in [low, high]. */
uint64_t ash_prng_between(struct ash_prng *prng, uint64_t low, uint64_t high);

/* True in `per_mille` of 1000 cases. */
bool ash_prng_chance(struct ash_prng *prng, unsigned per_mille);

void ash_prng_fill(struct ash_prng *prng, void *buffer, uint64_t bytes);

#endif
