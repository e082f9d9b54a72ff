/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changes to a valid qcow2 file, each told in four bytes: what, which, how, and by how much. So a
 * fuzzer meets headers and tables that are right but for one thing or a few. */
#ifndef ASH_TESTS_FUZZ_MUTATE_H
#define ASH_TESTS_FUZZ_MUTATE_H

#include "tests/fuzz/fuzz.h"

struct mutation {
    uint8_t what;
    uint8_t index;
    uint8_t how;
    uint8_t value;
};

/* Changes "image". */
void mutate(struct ash_sim_world *world, const struct mutation *mutation);

#endif
