/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of what has to hold, and when. */
#ifndef ASH_TESTS_SIM_CHECK_H
#define ASH_TESTS_SIM_CHECK_H

#include "tests/sim/sim.h"

enum sim_moment {
    SIM_CHECK_IDLE,   /* all disks are closed, the machine is about to be switched off */
    SIM_CHECK_HALTED, /* it is off */
    SIM_CHECK_LIFE,   /* after a life, on a machine without faults: each disk is open for reading */
    SIM_CHECK_END,    /* at the end: each disk is open for writing, what leaked may be given back */
    SIM_CHECK_CLEAN,  /* after that: open for reading, nothing leaks any more */
};

struct sim_check {
    const char *name;
    enum sim_moment moment;
    void (*machine)(struct sim_run *run); /* one of the two */
    ASH_CO_PTR void (*disk)(struct sim_disk *disk);
};

extern const struct sim_check sim_checks[];

/* Those without a disk. */
void sim_check_all(struct sim_run *run, enum sim_moment moment);
/* Opens each disk and runs those of the moment. */
void sim_check_disks(struct sim_run *run, enum sim_moment moment);

#endif
