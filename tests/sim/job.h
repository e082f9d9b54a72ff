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
    bool moves;    /* it leads the disk to another image, before it has told of that */
    bool at_start; /* what it promises is of the moment at which it is started */
    /* A ready job is about to be ended well: the moment that it promises something of begins. May
     * be NULL. */
    void (*moment)(struct sim_op *op);
    /* It is over. */
    ASH_CO_PTR void (*end)(struct sim_op *op, int ret);
};

extern const struct sim_job *const sim_jobs[];

extern const struct sim_job sim_job_stream;
extern const struct sim_job sim_job_commit;
extern const struct sim_job sim_job_commit_active;
extern const struct sim_job sim_job_mirror;
extern const struct sim_job sim_job_backup;

/* The node that maps, under the disk's filters. */
struct ash_node *sim_job_top(const struct sim_op *op);

/* One of a list of words, as a member of a description. The last is NULL; the first stands for
 * leaving it out. Returns its index. */
uint32_t sim_job_choose(struct sim_op *op, json_t *description, const char *member,
                        const char *const *words);

/* Makes the disk's targets. */
ASH_CO_FN void sim_targets_create(struct sim_disk *disk);

/* Whether the disk has a target that nobody has used. */
bool sim_target_fits(const struct sim_disk *disk);
/* Whether it can stand on another image, and hides nothing of that. */
bool sim_target_stands(const struct sim_layer *target);
/* A member that describes an image. `below`: a node that it is to stand on; NULL: as it is. */
void sim_target_describe(json_t *description, const char *member, const struct sim_layer *layer,
                         const struct ash_node *below);

/* Makes an image that nobody uses as long as the disk, if it is shorter: one that grows while it
 * stands on another hides what that has. */
ASH_CO_FN int sim_image_fit(struct sim_op *op, const struct sim_layer *layer);

/* At the beginning and the end of what may be the moment that a copy is of. `flushed`: all that was
 * acknowledged before is durable. */
void sim_moment_begin(struct sim_op *op);
void sim_moment_end(struct sim_op *op, bool flushed);
/* The copy has to equal the moment where guests have changed something so far, since the job was
 * started or since `changes` began, and may read as zeroes elsewhere. */
void sim_moment_limit(struct sim_op *op, const struct sim_changes *changes);
/* Has a copy that stays show that moment, and be sound. `below`: what it stands on; NULL: nothing.
 */
ASH_CO_FN void sim_moment_compare(struct sim_op *op, const struct sim_layer *copy,
                                  const struct ash_node *below);
/* Waits until the library has let go of an image: what was given up may still be on its way to it.
 */
ASH_CO_FN void sim_await_closed(struct sim_op *op, const struct sim_layer *layer);

#endif
