/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Running for a given time on all cores. */
#ifndef ASH_TESTS_SIM_SOAK_H
#define ASH_TESTS_SIM_SOAK_H

#include <stdint.h>

/* The seeds from `first` on; those that fail are appended to the file at `path` (NULL: told only),
 * each with what it said. Returns 1 if any failed. */
int soak(uint64_t seconds, uint64_t first, const char *path);

#endif
