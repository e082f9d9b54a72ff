/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The loop of every job; see the header. The job's coroutine alone hands out ranges; each range is
 * a coroutine, which wakes it when it ends. So is what is done aside. */
#include "job/sweep.h"
#include <errno.h>
#include <glib.h>
#include <stddef.h>
#include <string.h>
#include "util/assert.h"

#define RETRY_NS                                                                                   \
    10000000 /* after an error that was ignored: what fails at once may be tried for ever */

/* From 1 MiB, what a copier has in a buffer at once, to the cluster that images have by default. */
#define PIECE_BYTES_MAX (1 * MiB)
#define PIECE_BYTES_MIN (64 * KiB)
#define SLOW_NS UINT64_C(500000000)
#define FAST_NS UINT64_C(100000000)

struct range {
    struct ash_list link; /* in sweep->again */
    struct ash_sweep *sweep;
    uint64_t offset;
    uint64_t bytes;
};

void ash_sweep_init(struct ash_sweep *sweep, const struct ash_sweep_ops *ops, struct ash_job *job)
{
    sweep->ops = ops;
    sweep->job = job;
    sweep->loop = job->loop;
    ash_buffers_keep(sweep->loop);
    sweep->tasks_max = 16;
    sweep->bytes_max = 64 * MiB;
    sweep->piece_bytes = PIECE_BYTES_MAX;
    sweep->refs = 1;
    ash_list_init(&sweep->again);
}

ASH_CO_FN static void unref(struct ash_sweep *sweep)
{
    if (--sweep->refs == 0) {
        ash_assert(sweep->tasks == 0);
        ash_buffers_unkeep(sweep->loop);
        if (sweep->file != NULL) {
            ash_resume_unref(sweep->file);
        }
        sweep->ops->release(sweep);
    }
}

static void end_with(struct ash_sweep *sweep, int ret, bool reading)
{
    if (sweep->ret == 0) {
        sweep->ret = ret;
        sweep->reading = reading;
    }
}

/* What becomes of a range that failed. True: it is kept, to be tried again. */
static bool failed(struct ash_sweep *sweep, struct range *range, int ret, bool reading)
{
    enum ash_on_error policy = reading ? sweep->on_source_error : sweep->on_target_error;
    if (sweep->hasty) {
        end_with(sweep, ret, reading);
        return false;
    }
    switch (ash_job_io_error(sweep->job, policy, ret)) {
    case ASH_ON_ERROR_STOP:
        if (sweep->remembers) {
            return false;
        }
        ash_list_push_back(&sweep->again, &range->link);
        return true;
    case ASH_ON_ERROR_IGNORE:
        sweep->resume_ns = ash_loop_now(sweep->job->loop) + RETRY_NS;
        sweep->ignored = sweep->ignored == 0 ? ret : sweep->ignored;
        return false;
    default:
        end_with(sweep, ret, reading);
        return false;
    }
}

static void adapt(struct ash_sweep *sweep, uint64_t bytes, uint64_t took_ns)
{
    if (bytes != sweep->piece_bytes) {
        return;
    }
    if (took_ns > SLOW_NS && sweep->piece_bytes > PIECE_BYTES_MIN) {
        sweep->piece_bytes /= 2;
    } else if (took_ns < FAST_NS && sweep->piece_bytes < PIECE_BYTES_MAX) {
        sweep->piece_bytes *= 2;
    }
}

static void work(void *opaque)
{
    struct range *range = opaque;
    struct ash_sweep *sweep = range->sweep;
    ash_co_assert_inside();
    bool reading = false;
    bool kept = false;
    uint64_t begin_ns = ash_loop_now(sweep->loop);
    int ret = sweep->ops->copy(sweep, range->offset, range->bytes, &reading);
    adapt(sweep, range->bytes, ash_loop_now(sweep->loop) - begin_ns);
    sweep->tasks--;
    sweep->bytes -= range->bytes;
    if (sweep->job != NULL) {
        if (sweep->ops->done != NULL) {
            sweep->ops->done(sweep, range->offset, range->bytes, ret);
        }
        if (ret < 0) {
            kept = failed(sweep, range, ret, reading);
        }
        ash_job_kick(sweep->job);
    }
    if (!kept) {
        g_free(range);
    }
    unref(sweep);
}

static int start(struct ash_sweep *sweep, struct range *range)
{
    struct ash_loop *loop = sweep->job->loop;
    int ret = ash_co_spawn(&loop->sched, work, range);
    if (ret == 0) {
        sweep->refs++;
        sweep->tasks++;
        sweep->bytes += range->bytes;
    }
    return ret;
}

ASH_CO_FN static void quiet(void *opaque)
{
    struct ash_sweep *sweep = opaque;
    while (sweep->tasks > 0 && !sweep->job->cancelled) {
        ash_job_wait(sweep->job, UINT64_MAX);
    }
}

/* Whether the job lets go of what is in work; if not, until when it has to be waited for at most.
 */
static bool lets_go(struct ash_sweep *sweep, uint64_t *until_ns)
{
    *until_ns = UINT64_MAX;
    if (!sweep->job->forced || !sweep->forsakable) {
        return false;
    }
    uint64_t now_ns = ash_loop_now(sweep->loop);
    if (sweep->forced_ns == 0) {
        sweep->forced_ns = now_ns + sweep->grace_ns;
    }
    *until_ns = sweep->forced_ns;
    return now_ns >= sweep->forced_ns;
}

/* What is done aside; freed by whoever ends last. */
struct aside {
    struct ash_sweep *sweep;
    ASH_CO_PTR int (*run)(struct ash_sweep *sweep, void *args);
    bool done;
    bool forsaken;
    int ret;
    _Alignas(max_align_t) uint8_t args[];
};

static void aside_main(void *opaque)
{
    struct aside *aside = opaque;
    struct ash_sweep *sweep = aside->sweep;
    ash_co_assert_inside();
    aside->ret = sweep->job != NULL ? aside->run(sweep, aside->args) : -ECANCELED;
    aside->done = true;
    sweep->tasks--;
    if (sweep->job != NULL) {
        ash_job_kick(sweep->job);
    }
    if (aside->forsaken) {
        g_free(aside);
    }
    unref(sweep);
}

int ash_sweep_aside(struct ash_sweep *sweep,
                    ASH_CO_PTR int (*run)(struct ash_sweep *sweep, void *args), void *args,
                    size_t args_bytes)
{
    struct aside *aside = g_malloc0(sizeof(*aside) + args_bytes);
    uint64_t until_ns;
    aside->sweep = sweep;
    aside->run = run;
    memcpy(aside->args, args, args_bytes);
    sweep->refs++;
    sweep->tasks++;
    if (ash_co_spawn(&sweep->loop->sched, aside_main, aside) < 0) {
        aside_main(aside); /* no coroutine can be had: then it cannot be forsaken */
    }
    while (!aside->done && !lets_go(sweep, &until_ns)) {
        ash_job_wait(sweep->job, until_ns);
    }
    if (!aside->done) {
        aside->forsaken = true;
        return -ECANCELED;
    }
    int ret = aside->ret;
    memcpy(args, aside->args, args_bytes);
    g_free(aside);
    return ret;
}

struct beside {
    struct ash_sweep *sweep;
    ASH_CO_PTR void (*run)(struct ash_sweep *sweep);
};

static void beside_main(void *opaque)
{
    struct beside *beside = opaque;
    struct ash_sweep *sweep = beside->sweep;
    ash_co_assert_inside();
    beside->run(sweep);
    g_free(beside);
    sweep->tasks--;
    if (sweep->job != NULL) {
        ash_job_kick(sweep->job);
    }
    unref(sweep);
}

void ash_sweep_beside(struct ash_sweep *sweep, ASH_CO_PTR void (*run)(struct ash_sweep *sweep))
{
    struct beside *beside = g_new0(struct beside, 1);
    *beside = (struct beside){sweep, run};
    sweep->refs++;
    sweep->tasks++;
    if (ash_co_spawn(&sweep->loop->sched, beside_main, beside) < 0) {
        beside_main(beside);
    }
}

struct look {
    uint64_t offset;
    uint64_t bytes;
};

ASH_CO_FN static int look(struct ash_sweep *sweep, void *args)
{
    struct look *look = args;
    return sweep->ops->next(sweep, &look->offset, &look->bytes);
}

/* A range to be tried again, or a fresh one; NULL and 0: none at present. 1: one
 * could not be looked at, and there may be more. */
ASH_CO_FN static int take(struct ash_sweep *sweep, struct range **range)
{
    *range = NULL;
    if (!ash_list_empty(&sweep->again)) {
        *range = ash_list_first(&sweep->again, struct range, link);
        ash_list_remove(&(*range)->link);
        return 0;
    }
    struct look found = {0};
    int ret =
        sweep->looks ? ash_sweep_aside(sweep, look, &found, sizeof(found)) : look(sweep, &found);
    if (found.bytes == 0) {
        return ret;
    }
    struct range *next = g_new0(struct range, 1);
    *next = (struct range){.sweep = sweep, .offset = found.offset, .bytes = found.bytes};
    if (ret == 0) {
        *range = next;
        return 0;
    }
    if (!failed(sweep, next, ret, true)) {
        g_free(next);
    }
    return 1;
}

static bool full(const struct ash_sweep *sweep, uint64_t bytes)
{
    return sweep->tasks >= sweep->tasks_max ||
           (sweep->tasks > 0 && sweep->bytes + bytes > sweep->bytes_max);
}

/* Waits for room and starts; puts the range back when the sweep ends meanwhile. The job may have
 * been cancelled while the range was looked for, and nobody need wake it any more: each wait is
 * only for one that is not. */
ASH_CO_FN static int hand_out(struct ash_sweep *sweep, struct range *range)
{
    struct ash_job *job = sweep->job;
    int ret = 0;
    while (full(sweep, range->bytes) && !job->cancelled && sweep->ret == 0) {
        ash_job_wait(job, UINT64_MAX);
    }
    while (!job->cancelled && sweep->ret == 0) {
        uint64_t bytes = range->bytes;
        ret = start(sweep, range);
        if (ret == 0) {
            return ash_job_pause_point(job, bytes, quiet, sweep);
        }
        if (sweep->tasks == 0) {
            break; /* not one coroutine can be had */
        }
        ash_job_wait(job, UINT64_MAX);
        ret = 0;
    }
    g_free(range);
    return job->cancelled ? -ECANCELED : ret;
}

/* All that was handed out has ended, or is forsaken. */
ASH_CO_FN static void settle(struct ash_sweep *sweep)
{
    uint64_t until_ns;
    while (sweep->tasks > 0 && !lets_go(sweep, &until_ns)) {
        ash_job_wait(sweep->job, until_ns);
    }
    while (!ash_list_empty(&sweep->again)) {
        struct range *range = ash_list_first(&sweep->again, struct range, link);
        ash_list_remove(&range->link);
        g_free(range);
    }
}

/* Nothing more is handed out soon after an error that was ignored. */
ASH_CO_FN static void rest(struct ash_sweep *sweep)
{
    struct ash_job *job = sweep->job;
    while (ash_loop_now(job->loop) < sweep->resume_ns && !job->cancelled) {
        ash_job_wait(job, sweep->resume_ns);
    }
}

int ash_sweep_run(struct ash_sweep *sweep)
{
    int ret;
    for (;;) {
        struct range *range;
        rest(sweep);
        ret = ash_job_pause_point(sweep->job, 0, quiet, sweep);
        if (ret < 0 || sweep->ret < 0) {
            break;
        }
        ret = take(sweep, &range);
        if (ret < 0) {
            break;
        }
        if (ret > 0) {
            continue;
        }
        if (range != NULL) {
            ret = hand_out(sweep, range);
            if (ret < 0) {
                break;
            }
        } else if (sweep->tasks > 0) {
            if (!sweep->job->cancelled) {
                ash_job_wait(sweep->job, UINT64_MAX);
            }
        } else if (ash_list_empty(&sweep->again)) {
            break;
        }
    }
    if (ret < 0 || sweep->ret < 0) {
        settle(sweep);
    }
    return ret < 0 ? ret : sweep->ret;
}

struct step {
    ASH_CO_PTR int (*run)(struct ash_sweep *sweep);
};

ASH_CO_FN static int do_step(struct ash_sweep *sweep, void *args)
{
    const struct step *step = args;
    return step->run(sweep);
}

int ash_sweep_step(struct ash_sweep *sweep, ASH_CO_PTR int (*run)(struct ash_sweep *sweep))
{
    struct ash_job *job = sweep->job;
    struct step step = {run};
    for (;;) {
        int ret = ash_sweep_aside(sweep, do_step, &step, sizeof(step));
        if (ret == 0 || ret == -ECANCELED || sweep->hasty ||
            ash_job_io_error(job, sweep->on_target_error, ret) != ASH_ON_ERROR_STOP) {
            return ret;
        }
        ret = ash_job_pause_point(job, 0, quiet, sweep);
        if (ret < 0) {
            return ret;
        }
    }
}

bool ash_sweep_goes_on(struct ash_sweep *sweep, int ret)
{
    bool copying = sweep->ret < 0;
    enum ash_on_error policy = sweep->reading ? sweep->on_source_error : sweep->on_target_error;
    policy = ash_job_io_error(sweep->job, policy, ret);
    sweep->ret = 0;
    sweep->reading = false;
    if (copying && policy == ASH_ON_ERROR_IGNORE) {
        sweep->resume_ns = ash_loop_now(sweep->loop) + RETRY_NS;
        rest(sweep);
        return true;
    }
    return policy == ASH_ON_ERROR_STOP;
}

int ash_sweep_wait_out(struct ash_sweep *sweep, const uint32_t *count, const bool *enough)
{
    while (*count > 0 && !*enough) {
        ash_job_wait(sweep->job, UINT64_MAX);
    }
    return *enough ? -ECANCELED : 0;
}

void ash_sweep_drop(struct ash_sweep *sweep)
{
    sweep->job = NULL;
    unref(sweep);
}
