/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of faults, and the weather: the coroutine that lets them come and go. */
#ifndef ASH_TESTS_SIM_FAULT_H
#define ASH_TESTS_SIM_FAULT_H

#include "tests/sim/sim.h"

struct sim_fault {
    const char *name;
    uint32_t per_mille; /* of the lives with faults have it */
    bool harmless;      /* no request fails by it */
    void (*apply)(struct sim_run *run, struct ash_sim_config *config, struct ash_prng *prng);
};

/* Chooses this life's faults. Whether requests may fail. */
bool sim_faults_choose(struct sim_run *run);
/* Whether this life has the fault. */
bool sim_faults_have(const struct sim_run *run, const char *name);
/* From now on; until then there are none. */
void sim_faults_begin(struct sim_run *run);
/* No more, and what was held back goes on. */
void sim_faults_end(struct sim_run *run);

/* Something has begun that a power cut is to interrupt: with this chance it strikes within so many
 * writes. */
void sim_weather_strikes(struct sim_run *run, const struct sim_disk *disk, uint32_t per_mille,
                         uint64_t writes);

/* The weather's body. It ends after the guests. */
void sim_weather(void *opaque);

#endif
