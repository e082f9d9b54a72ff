/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of jobs. What all have in common, starting, verbs at random moments, and waiting for
 * the end, is in job.c.
 *
 * A job that has a target takes one of the disk's, which are made with the disk: empty images that
 * nobody has used. */
#ifndef ASH_TESTS_SIM_JOB_H
#define ASH_TESTS_SIM_JOB_H

#include <jansson.h>
#include "job/job.h"
#include "tests/sim/step.h"

struct sim_job {
    const char *type;
    uint32_t weight;
    /* Whether it can be started now. May be NULL: always. */
    bool (*legal)(const struct sim_op *op);
    /* Draws the arguments besides "type" and "device", the disk's mapped node, which is `top`. */
    void (*describe)(struct sim_op *op, struct ash_node *top, json_t *description);
    /* A verb that ends it well is about to be applied, and the other side of that: `good`, it has
     * ended so. What it promises of the moment between. May be NULL. */
    void (*moment)(struct sim_op *op);
    /* It is over. */
    ASH_CO_PTR void (*end)(struct sim_op *op, int ret);
};

extern const struct sim_job *const sim_jobs[];

extern const struct sim_job sim_job_stream;
extern const struct sim_job sim_job_commit;
extern const struct sim_job sim_job_mirror;

/* The node that maps, under the disk's filters. */
struct ash_node *sim_job_top(const struct sim_op *op);

/* One of a list of words, as a member of a description. The last is NULL; the first stands for
 * leaving it out. Returns its index. */
uint32_t sim_job_choose(struct sim_op *op, json_t *description, const char *member,
                        const char *const *words);

/* Makes the disk's targets. */
ASH_CO_FN void sim_targets_create(struct sim_disk *disk);

/* At the beginning and the end of what may be the moment that a copy is of. */
void sim_moment_begin(struct sim_op *op);
void sim_moment_end(struct sim_op *op, bool good);
/* Has a copy that stays show that moment, and be sound; then the moment is over. */
ASH_CO_FN void sim_moment_compare(struct sim_op *op, const struct sim_layer *copy);

#endif
