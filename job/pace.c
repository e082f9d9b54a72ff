/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pace of jobs: pausing, waiting, speed, progress, and what errors do to it.
 *
 * Speed is kept by a point in time before which no more bytes may go: moving bytes pushes it on by
 * what they take at that speed. A job may run ahead of it by a slice, so that it does not sleep
 * for every request. */
#include <errno.h>
#include <glib.h>
#include "job/private.h"
#include "util/assert.h"

#define SLICE_NS 100000000   /* how far a job may run ahead of its speed */
#define WINDOW_NS 1000000000 /* over which a rate is taken */

const char *const ash_on_error_names[] = {"report", "ignore", "stop", "enospc", NULL};

void ash_job_kick(struct ash_job *job)
{
    ash_co_queue_wake_all(&job->wake);
}

static void timer_fire(struct ash_timer *timer)
{
    ash_job_kick(ash_container_of(timer, struct ash_job, timer));
}

void ash_job_wait(struct ash_job *job, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX) {
        ash_co_queue_wait(&job->wake);
        return;
    }
    ash_timer_init(&job->timer, timer_fire);
    ash_timer_set(job->loop, &job->timer, deadline_ns);
    ash_co_queue_wait(&job->wake);
    ash_timer_cancel(job->loop, &job->timer);
}

ASH_CO_FN static void stay_paused(struct ash_job *job, ASH_CO_PTR void (*quiet)(void *opaque),
                                  void *opaque)
{
    if (quiet != NULL) {
        quiet(opaque);
    }
    if (job->pauses == 0 || job->cancelled) {
        return; /* taken back meanwhile */
    }
    bool ready = ash_job_state(job) == ASH_JOB_READY;
    ash_job_set_state(job, ready ? ASH_JOB_STANDBY : ASH_JOB_PAUSED);
    while (job->pauses > 0 && !job->cancelled) {
        ash_job_wait(job, UINT64_MAX);
    }
    ash_job_set_state(job, ready ? ASH_JOB_READY : ASH_JOB_RUNNING);
}

/* How long the job has to sleep, after `bytes` more were moved; 0: not at all. */
static uint64_t sleep_until(struct ash_job *job, uint64_t bytes)
{
    uint64_t speed = atomic_load_explicit(&job->speed_limit, memory_order_relaxed);
    if (speed == 0) {
        return 0;
    }
    uint64_t now_ns = ash_loop_now(job->loop);
    job->allowed_ns = ASH_MAX(job->allowed_ns, now_ns);
    job->allowed_ns += (uint64_t)((double)bytes * 1e9 / (double)speed);
    return job->allowed_ns > now_ns + SLICE_NS ? job->allowed_ns - SLICE_NS : 0;
}

int ash_job_pause_point(struct ash_job *job, uint64_t bytes, ASH_CO_PTR void (*quiet)(void *opaque),
                        void *opaque)
{
    uint64_t until_ns = sleep_until(job, bytes);
    for (;;) {
        if (job->cancelled) {
            return -ECANCELED;
        }
        if (job->pauses > 0) {
            stay_paused(job, quiet, opaque);
        } else if (until_ns > ash_loop_now(job->loop)) {
            ash_job_wait(job, until_ns);
            /* Another speed may have been set meanwhile. */
            until_ns = ASH_MIN(until_ns, sleep_until(job, 0));
        } else {
            return 0;
        }
    }
}

void ash_job_ready(struct ash_job *job)
{
    ash_job_set_state(job, ASH_JOB_READY);
}

static void add(_Atomic uint64_t *counter, uint64_t amount)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + amount, memory_order_relaxed);
}

void ash_job_progress(struct ash_job *job, uint64_t bytes)
{
    uint64_t now_ns = ash_loop_turn_ns(job->loop);
    add(&job->done_bytes, bytes);
    job->window_bytes += bytes;
    if (job->window_ns == 0) {
        job->window_ns = now_ns;
    } else if (now_ns - job->window_ns >= WINDOW_NS) {
        double seconds = (double)(now_ns - job->window_ns) / 1e9;
        atomic_store_explicit(&job->rate, (uint64_t)((double)job->window_bytes / seconds),
                              memory_order_relaxed);
        job->window_ns = now_ns;
        job->window_bytes = 0;
    }
}

void ash_job_progress_total(struct ash_job *job, uint64_t total_bytes)
{
    atomic_store_explicit(&job->total_bytes, total_bytes, memory_order_relaxed);
}

enum ash_on_error ash_job_io_error(struct ash_job *job, enum ash_on_error policy, int error)
{
    ash_assert(error < 0);
    if (policy == ASH_ON_ERROR_ENOSPC) {
        policy = error == -ENOSPC ? ASH_ON_ERROR_STOP : ASH_ON_ERROR_REPORT;
    }
    if (job->cancelled) {
        policy = ASH_ON_ERROR_REPORT;
    }
    if (policy == ASH_ON_ERROR_STOP) {
        atomic_store_explicit(&job->io_error, error, memory_order_relaxed);
        job->pauses += !job->user_paused;
        job->user_paused = true;
    }
    ash_job_tell(job, ASH_JOB_IO_ERROR);
    return policy;
}
