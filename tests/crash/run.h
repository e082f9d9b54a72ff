/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One simulated machine with a qcow2 image on it, what its disk may hold, and the requests that a
 * guest makes. */
#ifndef ASH_TESTS_CRASH_RUN_H
#define ASH_TESTS_CRASH_RUN_H

#include "block/disk/disk.h"
#include "block/driver.h"
#include "tests/crash/model.h"
#include "util/engine/sim.h"
#include "util/prng.h"

struct run {
    uint64_t seed;
    struct ash_prng prng;
    struct ash_sim_world *world;
    struct ash_loop *loop;
    struct ash_disk *disk;
    struct model model;

    /* The image. */
    char options[200];
    bool v2;
    bool lazy;
    bool backing;
    uint32_t unit;      /* sectors of a cluster */
    uint32_t file_unit; /* bytes at which simulated writes tear */
    uint32_t base_sectors;
    uint32_t spots[3]; /* where most requests go */

    /* A session. */
    bool faulty;       /* requests may fail, and the guest goes on */
    bool flush_broken; /* the simulated disk failed a flush of the image */
    uint32_t errors;
    uint32_t workers;
    uint32_t requests; /* for each worker */
    bool failed;
    struct ash_co *waiter;
};

/* The configuration that a seed stands for. */
#define RUN_CONFIGURATIONS 42
void run_choose(struct run *run, uint64_t seed);
/* A world with the image (and its backing file) in it. */
void run_init(struct run *run, uint64_t seed);
void run_free(struct run *run);

void run_boot(struct run *run);
void run_halt(struct run *run);
/* In a coroutine on the machine's loop; a deadlock fails the run. */
int run_call(struct run *run, int (*fn)(void *opaque));
ASH_CO_FN int run_open(struct run *run, uint32_t flags, struct ash_error *error);

/* Opens the image, makes requests and closes it. `size`: how many. 0 or the first error, which is
 * a failure of the test unless power was cut or the disk is faulty. */
int run_session(struct run *run, uint32_t size);

/* Says what is wrong and how to repeat it, and ends the program. */
void run_fail(const struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)))
__attribute__((noreturn));

#endif
