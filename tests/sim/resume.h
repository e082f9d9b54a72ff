/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs with a state file. One that does not end well is resumed at the beginning of a later life,
 * before guests use the disk: "the same job started again with the same file". A disk remembers one
 * of them at a time, the last.
 *
 *  1. What it promises is what it promised when it was first started, also of which moment.
 *  2. A job that the cut struck while it ran, and nothing else went wrong, has to go on: it must not
 *     be refused. Others may be, as somebody may have changed an image without the job.
 *  3. With images that cannot tell of such a change the file is only used again when there was none:
 *     when the cut struck while the job ran.
 *  4. A job has begun when the header of its file is there. Before that it starts over.
 *  5. A stream that the cut struck finds the chain that it had: nothing goes before it has ended.
 *     It does not go through again what its file says is done. */
#ifndef ASH_TESTS_SIM_RESUME_H
#define ASH_TESTS_SIM_RESUME_H

#include "job/job.h"
#include "tests/sim/step.h"

/* Gives a job that is about to be started a state file, if it can have one, mostly. */
void sim_resume_choose(struct sim_op *op, json_t *description);
/* The description that the job of the disk was first started with, and what is known of it. */
json_t *sim_resume_description(struct sim_op *op);
/* How much of the disk its file says needs not be looked at again. 0 without a file. */
uint64_t sim_resume_cleared(const struct sim_op *op);
/* Whether it goes on from the moment of its first start. */
bool sim_resume_has_begun(const struct sim_op *op);
/* It has begun: the power may be cut, at once or while it lingers. */
ASH_CO_FN void sim_resume_began(struct sim_op *op, const struct ash_job *job);
/* Whether it stays where it is for a while: a mirror ready, a stream running or unfinished. */
bool sim_resume_lingers(const struct sim_op *op, enum ash_job_state state);
/* That while, in which its guest writes what it has to tell of in its file. */
ASH_CO_FN void sim_resume_linger(struct sim_op *op);
/* It has just begun, or is over: what it says that it went through. */
void sim_resume_account(const struct sim_op *op, const struct ash_job *job, bool over);
/* It is over, or was refused. */
void sim_resume_settle(struct sim_op *op, int ret);
/* Whether it may be refused so. */
bool sim_resume_may_end(const struct sim_op *op, int ret);

/* The power is cut at this moment. */
void sim_resume_cut(struct sim_run *run);
/* Guests use the disk though its job was not resumed. */
void sim_resume_missed(struct sim_disk *disk);
void sim_resume_forget(struct sim_disk *disk);
/* Whether a job was cut off, so that one more life is of use. */
bool sim_resume_awaited(const struct sim_run *run);

#endif
