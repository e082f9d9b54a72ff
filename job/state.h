/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The state file of a job, as a mirror, a backup and a stream have one: opened together with the job's
 * images, looked after now and then, said to have ended, let go. What is in it is
 * block/copy/resume_file.h. */
#ifndef ASH_JOB_STATE_H
#define ASH_JOB_STATE_H

#include "block/copy/resume_file.h"
#include "block/graph/pause.h"
#include "job/job.h"
#include "job/sweep.h"

struct ash_job_file {
    char *name; /* options of the job: NULL: none */
    bool unmarked;
    struct ash_resume_file *resume; /* a reference; NULL: the job cannot be resumed */
    uint64_t look_ns; /* not before this */
};

/* Opens the file, and marks the images or looks at their marks. A job that is resumed must have parts of
 * the same length if `exact`: -EINVAL. After a failure ash_job_file_let_go() has to be called too. */
ASH_CO_FN int ash_job_file_open(struct ash_job_file *file, struct ash_loop *loop,
                                enum ash_resume_kind kind, uint64_t part_bytes, bool exact,
                                struct ash_node *source, struct ash_node *target,
                                struct ash_error *error);

/* The same in two steps, for a job that learns from the file which images it has. */
ASH_CO_FN int ash_job_file_open_alone(struct ash_job_file *file, struct ash_loop *loop,
                                      enum ash_resume_kind kind, uint64_t part_bytes, bool exact,
                                      uint64_t size_bytes, struct ash_error *error);
ASH_CO_FN int ash_job_file_images(struct ash_job_file *file, struct ash_node *source,
                                  struct ash_node *target, struct ash_error *error);

/* From here on the job can be resumed (ash_resume_begin), and: what was copied is noted (ash_resume_commit).
 * Both aside, so that force need not wait for them; the second is harmless without a file. A sweep has one
 * file. */
ASH_CO_FN int ash_job_file_begin(struct ash_job_file *file, struct ash_sweep *sweep,
                                 struct ash_error *error);
/* The first, while users are paused for it: a file that has answered nothing for a while is given up,
 * and the job is as if it had been ended by force: -ETIMEDOUT. */
ASH_CO_FN int ash_job_file_begin_soon(struct ash_job_file *file, struct ash_sweep *sweep,
                                      struct ash_error *error);
ASH_CO_FN int ash_job_file_commit(struct ash_job_file *file, struct ash_sweep *sweep);

/* Pauses the users of the source, as the job's filter is to go. If the job is ended by force and they are
 * not quiet soon, the file is given up, which they may wait for. */
ASH_CO_FN void ash_job_file_pause(struct ash_job_file *file, const struct ash_job *job,
                                  struct ash_pause *pause, struct ash_node *source);

/* Whether the job goes on from what the file says. */
bool ash_job_file_is_resumed(const struct ash_job_file *file);

/* Whether it is time to look for what can be noted: a second after something was, sooner after nothing
 * was found, unless there is much to look at; never without a file. Who has looked says so. */
bool ash_job_file_is_due(const struct ash_job_file *file, struct ash_loop *loop);
void ash_job_file_looked(struct ash_job_file *file, struct ash_loop *loop, bool found);
/* The same of what was put already (ash_resume_put): whether it is time, and there is something that is
 * not on its way to the file. It counts as noted then. */
bool ash_job_file_has_more(struct ash_job_file *file, struct ash_loop *loop);

/* The job has ended well, if the file can be made to say so; users may be paused for it, as above. */
ASH_CO_FN int ash_job_file_end(struct ash_job_file *file, struct ash_sweep *sweep,
                               struct ash_error *error);

/* Lets the images and the file go; harmless without one. */
ASH_CO_FN void ash_job_file_let_go(struct ash_job_file *file);

#endif
