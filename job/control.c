/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The public API of jobs, from any thread.
 *
 * A call becomes a struct call, posted to the loop; there it runs in a coroutine, and at the end of
 * the turn in which it ended its completion is called on the plain stack, once. The _sync twins run
 * the same functions through ash_loop_run_sync(). A call keeps a reference to its job.
 *
 * Invariants:
 *  1. A completion is called once, on the plain stack, at the end of a turn. */
#include <ashlar/job.h>
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "job/job.h"
#include "util/assert.h"

struct call {
    struct ash_turn_hook hook;
    struct ash_loop *loop;
    char *description; /* NULL: a verb. With a job: what is to change of it */
    ash_job_event_fn *event;
    void *event_opaque;
    struct ash_job **jobs; /* where those go that are started */
    uint32_t count;        /* 0: one, from an object; else the array has so many */
    struct ash_job *job;   /* verbs; and the one that was started */
    bool changes;
    enum ash_job_verb verb;
    uint64_t value;
    int ret;
    struct ash_error error;
    ash_job_started_fn *started;
    ash_done_fn *done;
    void *opaque;
};

ASH_CO_FN static int run_described(struct call *call)
{
    json_error_t where;
    json_t *description = json_loads(call->description, JSON_REJECT_DUPLICATES, &where);
    if (description == NULL) {
        return ash_error_set(&call->error, -EINVAL, "The description of a job is not JSON: %s",
                             where.text);
    }
    int ret;
    if (call->changes) {
        ret = ash_co_job_change(call->job, description, &call->error);
    } else if (call->count == 0) {
        ret = ash_co_job_start(call->loop, description, call->event, call->event_opaque, call->jobs,
                               &call->error);
    } else if (json_array_size(description) != call->count) {
        ret = ash_error_set(&call->error, -EINVAL, "The transaction has %zu jobs and not %u",
                            json_array_size(description), call->count);
    } else {
        ret = ash_co_job_start_all(call->loop, description, call->event, call->event_opaque,
                                   call->jobs, &call->error);
    }
    json_decref(description);
    return ret;
}

static int run(void *opaque)
{
    struct call *call = opaque;
    ash_co_assert_inside();
    if (call->error.code < 0) {
        return call->error.code; /* its arguments were wrong */
    }
    if (call->description != NULL) {
        return run_described(call);
    }
    return ash_co_job_control(call->job, call->verb, call->value, &call->error);
}

static void call_free(struct call *call)
{
    if (call->description == NULL || call->changes) {
        ash_job_unref(call->job);
    }
    g_free(call->description);
    g_free(call);
}

static void finish(struct ash_turn_hook *hook)
{
    struct call *call = ash_container_of(hook, struct call, hook);
    if (call->started != NULL) {
        call->started(call->opaque, call->ret, call->ret == 0 ? call->job : NULL, &call->error);
    } else if (call->done != NULL) {
        call->done(call->opaque, call->ret, &call->error);
    }
    call_free(call);
}

static void call_coroutine(void *opaque)
{
    struct call *call = opaque;
    call->ret = run(call);
    ash_loop_at_turn_end(call->loop, &call->hook);
}

static void call_posted(void *opaque)
{
    struct call *call = opaque;
    int ret = ash_co_spawn(&call->loop->sched, call_coroutine, call);
    if (ret < 0) {
        call->ret = ash_error_set(&call->error, ret, "No coroutine can be had");
        ash_loop_at_turn_end(call->loop, &call->hook);
    }
}

static struct call *call_new(struct ash_loop *loop)
{
    struct call *call = g_new0(struct call, 1);
    call->loop = loop;
    call->error = (struct ash_error)ASH_ERROR_INIT;
    ash_turn_hook_init(&call->hook, finish);
    return call;
}

static struct call *call_start(struct ash_loop *loop, const char *description,
                               ash_job_event_fn *event, void *event_opaque, struct ash_job **jobs,
                               uint32_t count)
{
    struct call *call = call_new(loop);
    call->description = g_strdup(description != NULL ? description : "");
    call->event = event;
    call->event_opaque = event_opaque;
    call->jobs = jobs != NULL ? jobs : &call->job;
    call->count = count;
    return call;
}

static struct call *call_verb(struct ash_job *job, enum ash_job_verb verb, uint64_t value)
{
    struct call *call = call_new(job->loop);
    ash_job_ref(job);
    call->job = job;
    call->verb = verb;
    call->value = value;
    return call;
}

static struct call *call_change(struct ash_job *job, const char *description)
{
    struct call *call = call_verb(job, ASH_JOB_VERB_COUNT, 0);
    call->description = g_strdup(description != NULL ? description : "");
    call->changes = true;
    return call;
}

static int post(struct call *call)
{
    int ret = ash_loop_post(call->loop, call_posted, call);
    if (ret < 0) {
        call_free(call);
    }
    return ret;
}

static int sync_run(struct call *call, struct ash_error *error)
{
    int ret = ash_loop_run_sync(call->loop, run, call);
    if (ret < 0) {
        if (call->error.code == 0) {
            ash_error_errno(&call->error, ret, "The call could not be made");
        }
        ash_error_copy(error, &call->error);
    }
    call_free(call);
    return ret;
}

ASH_PUBLIC int ash_job_start(struct ash_loop *loop, const char *description,
                             ash_job_event_fn *event, void *event_opaque,
                             ash_job_started_fn *started, void *opaque)
{
    struct call *call = call_start(loop, description, event, event_opaque, NULL, 0);
    call->started = started;
    call->opaque = opaque;
    return post(call);
}

ASH_PUBLIC int ash_job_start_sync(struct ash_loop *loop, const char *description,
                                  ash_job_event_fn *event, void *event_opaque, struct ash_job **job,
                                  struct ash_error *error)
{
    return sync_run(call_start(loop, description, event, event_opaque, job, 0), error);
}

static struct call *call_start_all(struct ash_loop *loop, const char *descriptions,
                                   ash_job_event_fn *event, void *event_opaque,
                                   struct ash_job **jobs, uint32_t count)
{
    struct call *call = call_start(loop, descriptions, event, event_opaque, jobs, count);
    if (count == 0) {
        ash_error_set(&call->error, -EINVAL, "A transaction has at least one job");
    }
    return call;
}

ASH_PUBLIC int ash_job_start_all(struct ash_loop *loop, const char *descriptions,
                                 ash_job_event_fn *event, void *event_opaque, struct ash_job **jobs,
                                 uint32_t count, ash_done_fn *done, void *opaque)
{
    struct call *call = call_start_all(loop, descriptions, event, event_opaque, jobs, count);
    call->done = done;
    call->opaque = opaque;
    return post(call);
}

ASH_PUBLIC int ash_job_start_all_sync(struct ash_loop *loop, const char *descriptions,
                                      ash_job_event_fn *event, void *event_opaque,
                                      struct ash_job **jobs, uint32_t count,
                                      struct ash_error *error)
{
    return sync_run(call_start_all(loop, descriptions, event, event_opaque, jobs, count), error);
}

ASH_PUBLIC int ash_job_control(struct ash_job *job, enum ash_job_verb verb, uint64_t value,
                               ash_done_fn *done, void *opaque)
{
    if ((unsigned)verb >= ASH_JOB_VERB_COUNT) {
        return -EINVAL;
    }
    struct call *call = call_verb(job, verb, value);
    call->done = done;
    call->opaque = opaque;
    return post(call);
}

ASH_PUBLIC int ash_job_control_sync(struct ash_job *job, enum ash_job_verb verb, uint64_t value,
                                    struct ash_error *error)
{
    if ((unsigned)verb >= ASH_JOB_VERB_COUNT) {
        return ash_error_set(error, -EINVAL, "There is no verb %u", (unsigned)verb);
    }
    return sync_run(call_verb(job, verb, value), error);
}

ASH_PUBLIC int ash_job_change(struct ash_job *job, const char *description, ash_done_fn *done,
                              void *opaque)
{
    struct call *call = call_change(job, description);
    call->done = done;
    call->opaque = opaque;
    return post(call);
}

ASH_PUBLIC int ash_job_change_sync(struct ash_job *job, const char *description,
                                   struct ash_error *error)
{
    return sync_run(call_change(job, description), error);
}

/* The job's own forecast, or one from the rate of the last window. */
static uint64_t time_left_ns(const struct ash_job *job, const struct ash_job_info *info)
{
    if (info->done_bytes >= info->total_bytes) {
        return 0;
    }
    uint64_t forecast_ns = atomic_load_explicit(&job->forecast_ns, memory_order_relaxed);
    if (forecast_ns != 0) {
        return forecast_ns;
    }
    if (info->rate == 0) {
        return UINT64_MAX;
    }
    double seconds = (double)(info->total_bytes - info->done_bytes) / (double)info->rate;
    return seconds < 1e9 ? (uint64_t)(seconds * 1e9) : UINT64_MAX;
}

ASH_PUBLIC int ash_job_info(struct ash_job *job, struct ash_job_info *info)
{
    if (info->size != sizeof(*info)) {
        return -EINVAL;
    }
    *info = (struct ash_job_info){.size = sizeof(*info)};
    /* The state first, and with it all that was published before it. */
    info->state = atomic_load_explicit(&job->state, memory_order_acquire);
    info->result = atomic_load_explicit(&job->result, memory_order_acquire);
    info->io_error = atomic_load_explicit(&job->io_error, memory_order_relaxed);
    info->done_bytes = atomic_load_explicit(&job->done_bytes, memory_order_relaxed);
    info->total_bytes = atomic_load_explicit(&job->total_bytes, memory_order_relaxed);
    info->speed_limit = atomic_load_explicit(&job->speed_limit, memory_order_relaxed);
    info->rate = atomic_load_explicit(&job->rate, memory_order_relaxed);
    info->left_ns = time_left_ns(job, info);
    g_strlcpy(info->id, job->id, sizeof(info->id));
    g_strlcpy(info->type, job->driver->type, sizeof(info->type));
    const char *message = atomic_load_explicit(&job->message, memory_order_acquire);
    if (message != NULL) {
        g_strlcpy(info->message, message, sizeof(info->message));
    }
    return 0;
}
