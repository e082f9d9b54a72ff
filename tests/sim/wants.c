/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Decisions: what is left out of a run, and where random numbers come from. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "tests/sim/sim.h"

static void record(struct sim_names *names, const char *name)
{
    size_t bytes = strlen(name);
    if (names->bytes + bytes + 1 <= sizeof(names->text)) {
        memcpy(names->text + names->bytes, name, bytes);
        names->text[names->bytes + bytes] = '\n';
        names->bytes += bytes + 1;
    }
}

bool sim_wants(struct sim_run *run, const char *format, ...)
{
    const struct sim_config *config = run->config;
    char name[64];
    va_list args;
    if (!config->left_out && !config->asked) {
        return true;
    }
    va_start(args, format);
    vsnprintf(name, sizeof(name), format, args);
    va_end(args);
    if (config->left_out && g_hash_table_contains(config->left_out, name)) {
        return false;
    }
    if (config->asked) {
        record(config->asked, name);
    }
    return true;
}

static uint64_t scramble(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

struct ash_prng sim_draw(const struct sim_run *run, const char *what, uint64_t a, uint64_t b,
                         uint64_t c)
{
    uint64_t hash = scramble(run->seed);
    struct ash_prng prng;
    for (; *what; what++) {
        hash = scramble(hash ^ (uint8_t)*what);
    }
    ash_prng_seed(&prng, scramble(scramble(scramble(hash ^ a) ^ b) ^ c));
    return prng;
}
