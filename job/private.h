/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between the files of the job core. */
#ifndef ASH_JOB_PRIVATE_H
#define ASH_JOB_PRIVATE_H

#include "job/job.h"

/* Jobs that succeed or fail together; a job alone has one of its own. */
struct ash_job_txn {
    struct ash_list jobs; /* of struct ash_job, by txn_link */
    uint32_t refs;        /* of its jobs that have not concluded */
    bool deciding;        /* finalising or aborting has begun: no verb comes in between */
};

struct ash_job_txn *ash_job_txn_new(void);
void ash_job_txn_add(struct ash_job_txn *txn, struct ash_job *job);

/* run() of a job has returned. May carry the whole transaction to its end. */
ASH_CO_FN void ash_job_txn_finished(struct ash_job *job, int ret);
/* The user finalises, or cancels a job that waits for others or for that. */
ASH_CO_FN void ash_job_txn_finalize(struct ash_job_txn *txn);
ASH_CO_FN void ash_job_txn_cancel(struct ash_job *job);
/* Cancels by force all of its jobs that still run. */
void ash_job_txn_stop_others(struct ash_job_txn *txn);

void ash_job_set_state(struct ash_job *job, enum ash_job_state state);
void ash_job_tell(struct ash_job *job, enum ash_job_event event);

/* The job is over, with job->ret; dismisses it if it wants that. It may be gone afterwards. */
void ash_job_conclude(struct ash_job *job);
void ash_job_dismiss(struct ash_job *job);

#endif
