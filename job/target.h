/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where a job copies to. */
#ifndef ASH_JOB_TARGET_H
#define ASH_JOB_TARGET_H

#include "block/copy/copier.h"
#include "job/job.h"
#include "job/sweep.h"

/* The node that `name` names, or, if there is none, what it describes as a file name or a "json:"
 * description (format NULL: probed), opened for writing. A reference for the caller. */
ASH_CO_FN int ash_job_open_target(struct ash_loop *loop, const char *name, const char *format,
                                  struct ash_node **node, struct ash_error *error);

/* Makes the target as long as the source if it can be; through an edge that may resize. */
ASH_CO_FN int ash_job_fit_target(struct ash_edge *target, uint64_t bytes, struct ash_error *error);
/* The same, before anybody has an edge to the node. */
ASH_CO_FN int ash_job_fit_node(struct ash_loop *loop, struct ash_node *node, uint64_t bytes,
                               struct ash_error *error);
/* And no longer: who is led to it sees a disk of the length that it had. `must`: what cannot be
 * made shorter, as a device, is an error; otherwise it stays as it is. */
ASH_CO_FN int ash_job_cut_target(struct ash_edge *target, uint64_t bytes, bool must,
                                 struct ash_error *error);

/* From where on a target that is made longer hides its backing image, as what appears reads as zeroes:
 * a job that does not copy all has to copy that. UINT64_MAX: it has none. */
uint64_t ash_job_hides_from(const struct ash_node *target);

/* The same as steps of a sweep. What goes wrong the job's error says, if the sweep has its job still. */
ASH_CO_FN int ash_sweep_fit_target(struct ash_sweep *sweep, struct ash_copier *copier,
                                   uint64_t bytes);
ASH_CO_FN int ash_sweep_cut_target(struct ash_sweep *sweep, struct ash_copier *copier,
                                   uint64_t bytes, bool must);

#endif
