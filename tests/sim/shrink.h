/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding a smaller run that still fails. */
#ifndef ASH_TESTS_SIM_SHRINK_H
#define ASH_TESTS_SIM_SHRINK_H

#include "tests/sim/sim.h"

/* Prints the command that repeats the smallest run it found. 0 unless the run does not fail. */
int shrink(const char *program, uint64_t seed, const struct sim_config *config);

#endif
