/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/format.h"

const struct sim_format *const sim_formats[] = {&sim_format_qcow2, &sim_format_raw, NULL};

const struct sim_format *sim_format_choose(struct ash_prng *prng, uint32_t flags)
{
    uint32_t sum = 0;
    for (const struct sim_format *const *f = sim_formats; *f; f++) {
        sum += ((*f)->flags & flags) == flags ? (*f)->weight : 0;
    }
    uint64_t left = sim_below(prng, sum);
    for (const struct sim_format *const *f = sim_formats;; f++) {
        uint32_t weight = ((*f)->flags & flags) == flags ? (*f)->weight : 0;
        if (left < weight) {
            return *f;
        }
        left -= weight;
    }
}

json_t *sim_options(const char *text)
{
    json_t *object = json_object();
    char **pairs = g_strsplit(text, ",", 0);
    for (char **pair = pairs; *pair && **pair; pair++) {
        char **two = g_strsplit(*pair, "=", 2);
        json_object_set_new(object, two[0], json_string(two[1]));
        g_strfreev(two);
    }
    g_strfreev(pairs);
    return object;
}
