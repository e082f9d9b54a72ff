/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef ASH_TESTS_SIM_FILTER_H
#define ASH_TESTS_SIM_FILTER_H

#include <jansson.h>
#include "tests/sim/sim.h"

/* Puts the filters that a disk has in this life around its top image. Takes the description. */
json_t *sim_filters_add(struct sim_disk *disk, json_t *description);

#endif
