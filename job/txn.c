/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Transactions: how jobs end, alone or together.
 *
 * A job whose run() has returned waits until that of every other has. Then, if all went well, each
 * is prepared and all are committed; if one failed, or preparing one did, all are aborted.
 *
 * Invariants:
 *  1. One coroutine decides for all: that of the last job to finish, or of the verb that finalises
 *     or cancels. From then on `deciding` keeps every other verb out.
 *  2. The transaction lives until its last job has concluded. */
#include <errno.h>
#include <glib.h>
#include "job/private.h"
#include "util/assert.h"

struct ash_job_txn *ash_job_txn_new(void)
{
    struct ash_job_txn *txn = g_new0(struct ash_job_txn, 1);
    ash_list_init(&txn->jobs);
    return txn;
}

void ash_job_txn_add(struct ash_job_txn *txn, struct ash_job *job)
{
    job->txn = txn;
    txn->refs++;
    ash_list_push_back(&txn->jobs, &job->txn_link);
}

void ash_job_txn_stop_others(struct ash_job_txn *txn)
{
    ash_list_for_each (job, &txn->jobs, struct ash_job, txn_link) {
        if (!job->finished) {
            job->cancelled = true;
            job->forced = true;
            if (job->driver->kick != NULL) {
                job->driver->kick(job);
            }
            ash_job_kick(job);
        }
    }
}

/* Ends one job after the decision; it and, with the last one, the transaction may be gone then. */
ASH_CO_FN static void end(struct ash_job *job, bool good)
{
    struct ash_job_txn *txn = job->txn;
    if (good && job->driver->commit != NULL) {
        job->driver->commit(job);
    }
    if (!good && job->driver->abort != NULL) {
        job->driver->abort(job);
    }
    job->driver->clean(job);
    ash_list_remove(&job->txn_link);
    ash_list_init(&job->txn_link);
    job->txn = NULL;
    ash_job_conclude(job);
    if (--txn->refs == 0) {
        g_free(txn);
    }
}

ASH_CO_FN static void end_all(struct ash_job_txn *txn, bool good)
{
    uint32_t count = txn->refs;
    for (uint32_t i = 0; i < count; i++) {
        struct ash_job *job = ash_list_first(&txn->jobs, struct ash_job, txn_link);
        end(job, good);
    }
}

ASH_CO_FN static void abort_all(struct ash_job_txn *txn)
{
    txn->deciding = true;
    ash_list_for_each (job, &txn->jobs, struct ash_job, txn_link) {
        job->ret = job->ret < 0 ? job->ret : -ECANCELED;
        if (ash_job_state(job) != ASH_JOB_ABORTING) {
            ash_job_set_state(job, ASH_JOB_ABORTING);
        }
    }
    end_all(txn, false);
}

void ash_job_txn_finalize(struct ash_job_txn *txn)
{
    txn->deciding = true;
    bool good = true;
    ash_list_for_each (job, &txn->jobs, struct ash_job, txn_link) {
        if (good && job->driver->prepare != NULL) {
            job->ret = job->driver->prepare(job, &job->error);
            good = job->ret == 0;
        }
    }
    if (good) {
        end_all(txn, true);
    } else {
        abort_all(txn);
    }
}

static bool all_finished(const struct ash_job_txn *txn)
{
    ash_list_for_each (job, &txn->jobs, struct ash_job, txn_link) {
        if (!job->finished) {
            return false;
        }
    }
    return true;
}

/* All have finished. */
ASH_CO_FN static void decide(struct ash_job_txn *txn)
{
    bool good = true;
    bool automatic = true;
    ash_list_for_each (job, &txn->jobs, struct ash_job, txn_link) {
        good &= job->ret == 0;
        automatic &= job->auto_finalize;
    }
    if (!good) {
        abort_all(txn);
        return;
    }
    ash_list_for_each (job, &txn->jobs, struct ash_job, txn_link) {
        ash_job_set_state(job, ASH_JOB_PENDING);
    }
    if (automatic) {
        ash_job_txn_finalize(txn);
    }
}

void ash_job_txn_finished(struct ash_job *job, int ret)
{
    struct ash_job_txn *txn = job->txn;
    ash_assert(!job->finished);
    job->finished = true;
    job->ret = ret;
    ash_job_set_state(job, ret < 0 ? ASH_JOB_ABORTING : ASH_JOB_WAITING);
    if (ret < 0) {
        ash_job_txn_stop_others(txn);
    }
    if (all_finished(txn)) {
        decide(txn);
    }
}

void ash_job_txn_cancel(struct ash_job *job)
{
    struct ash_job_txn *txn = job->txn;
    job->ret = -ECANCELED;
    ash_job_set_state(job, ASH_JOB_ABORTING);
    ash_job_txn_stop_others(txn);
    if (all_finished(txn)) {
        abort_all(txn);
    }
}
