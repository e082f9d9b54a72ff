/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs: their lives, their states, and the verbs.
 *
 * What is legal stands in two tables; nothing else decides on it. A job is a coroutine that runs
 * the driver's run(); what happens when that has returned is its transaction's business
 * (job/txn.c). */
#include "job/job.h"
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/graph/block.h"
#include "block/graph/pause.h"
#include "job/private.h"
#include "util/assert.h"
#include "util/json.h"

#define S(state) (1u << ASH_JOB_##state)

static const char *const state_names[] = {
    "created", "running", "paused",   "ready",     "standby",
    "waiting", "pending", "aborting", "concluded", "null",
};

/* Where a state may lead. */
static const uint32_t arrows[] = {
    [ASH_JOB_CREATED] = S(RUNNING) | S(ABORTING) | S(NULL),
    [ASH_JOB_RUNNING] = S(PAUSED) | S(READY) | S(WAITING) | S(ABORTING),
    [ASH_JOB_PAUSED] = S(RUNNING),
    [ASH_JOB_READY] = S(STANDBY) | S(WAITING) | S(ABORTING),
    [ASH_JOB_STANDBY] = S(READY),
    [ASH_JOB_WAITING] = S(PENDING) | S(ABORTING),
    [ASH_JOB_PENDING] = S(ABORTING) | S(CONCLUDED),
    [ASH_JOB_ABORTING] = S(CONCLUDED),
    [ASH_JOB_CONCLUDED] = S(NULL),
    [ASH_JOB_NULL] = 0,
};

#define ALIVE (S(CREATED) | S(RUNNING) | S(PAUSED) | S(READY) | S(STANDBY))

static const struct {
    const char *name;
    uint32_t states; /* in which it is legal */
} verbs[] = {
    [ASH_JOB_PAUSE] = {"pause", ALIVE},
    [ASH_JOB_RESUME] = {"resume", ALIVE},
    [ASH_JOB_CANCEL] = {"cancel", ALIVE | S(WAITING) | S(PENDING)},
    [ASH_JOB_FORCE_CANCEL] = {"force-cancel", ALIVE | S(WAITING) | S(PENDING)},
    [ASH_JOB_COMPLETE] = {"complete", S(READY)},
    [ASH_JOB_FINALIZE] = {"finalize", S(PENDING)},
    [ASH_JOB_DISMISS] = {"dismiss", S(CONCLUDED)},
    [ASH_JOB_SET_SPEED] = {"set-speed", ALIVE},
};

const char *ash_job_state_name(enum ash_job_state state)
{
    return state_names[state];
}

const char *ash_job_verb_name(enum ash_job_verb verb)
{
    return verbs[verb].name;
}

/* --- lives --- */

struct ash_job *ash_job_find(struct ash_loop *loop, const char *id)
{
    return g_hash_table_lookup(ash_block_of(loop)->ids, id);
}

/* From here on it is found by its id, which is free. */
static void enlist(struct ash_job *job)
{
    struct ash_block *block = ash_block_of(job->loop);
    ash_list_push_back(&block->jobs, &job->link);
    bool fresh = g_hash_table_insert(block->ids, job->id, job);
    ash_assert(fresh);
}

static void delist(struct ash_job *job)
{
    g_hash_table_remove(ash_block_of(job->loop)->ids, job->id);
    ash_list_remove(&job->link);
}

void ash_job_ref(struct ash_job *job)
{
    atomic_fetch_add_explicit(&job->refs, 1, memory_order_relaxed);
}

static void job_free(struct ash_job *job)
{
    if (job->driver->options != NULL) {
        ash_options_clear(job->driver->options, job);
    }
    g_free((char *)atomic_load_explicit(&job->message, memory_order_relaxed));
    g_free(job->id);
    g_free(job);
}

ASH_PUBLIC void ash_job_unref(struct ash_job *job)
{
    if (job == NULL) {
        return;
    }
    uint32_t before = atomic_fetch_sub_explicit(&job->refs, 1, memory_order_acq_rel);
    ash_assert(before > 0);
    if (before == 1) {
        job_free(job);
    }
}

/* --- states and events --- */

static void tell(struct ash_turn_hook *hook)
{
    struct ash_job *job = ash_container_of(hook, struct ash_job, hook);
    uint32_t events = job->events;
    job->events = 0;
    for (unsigned event = 0; events != 0; event++, events >>= 1) {
        if ((events & 1) != 0 && job->event != NULL) {
            job->event(job->event_opaque, job, (enum ash_job_event)event);
        }
    }
    ash_job_unref(job);
}

void ash_job_tell(struct ash_job *job, enum ash_job_event event)
{
    if (job->events == 0) {
        ash_job_ref(job);
        ash_loop_at_turn_end(job->loop, &job->hook);
    }
    job->events |= 1u << event;
}

void ash_job_set_state(struct ash_job *job, enum ash_job_state state)
{
    enum ash_job_state old = ash_job_state(job);
    ash_assert((arrows[old] & 1u << state) != 0);
    atomic_store_explicit(&job->state, state, memory_order_release);
    ash_job_tell(job, ASH_JOB_STATE_CHANGED);
}

void ash_job_dismiss(struct ash_job *job)
{
    ash_job_set_state(job, ASH_JOB_NULL);
    delist(job);
    ash_job_unref(job);
}

void ash_job_conclude(struct ash_job *job)
{
    if (job->ret < 0 && job->error.code == 0) {
        ash_error_errno(&job->error, job->ret, "Job '%s' failed", job->id);
    }
    if (job->ret < 0) {
        atomic_store_explicit(&job->message, g_strdup(job->error.message), memory_order_release);
    }
    atomic_store_explicit(&job->result, job->ret, memory_order_release);
    ash_job_set_state(job, ASH_JOB_CONCLUDED);
    if (job->auto_dismiss) {
        ash_job_dismiss(job);
    }
}

/* --- starting --- */

struct common_options {
    char *type;
    char *id;
    bool auto_finalize;
    bool auto_dismiss;
    uint64_t speed;
};

static const struct ash_option common_options[] = {
    ASH_OPTION_STRING("type", struct common_options, type, .help = "the kind of job"),
    ASH_OPTION_STRING("job-id", struct common_options, id,
                      .help = "its name; without one, that of its device"),
    ASH_OPTION_BOOL("auto-finalize", struct common_options, auto_finalize, .def = 1,
                    .help = "changes the graph without waiting for finalize"),
    ASH_OPTION_BOOL("auto-dismiss", struct common_options, auto_dismiss, .def = 1,
                    .help = "is forgotten as soon as it is over"),
    ASH_OPTION_SIZE("speed", struct common_options, speed, .help = "bytes per second; 0: no limit"),
    ASH_OPTION_END,
};

static const struct ash_job_driver *find_driver(const char *type, struct ash_error *error)
{
    if (type == NULL) {
        ash_error_set(error, -EINVAL, "Parameter 'type' is missing");
        return NULL;
    }
    for (const struct ash_job_driver *const *driver = ash_job_drivers; *driver != NULL; driver++) {
        if (strcmp((*driver)->type, type) == 0) {
            return *driver;
        }
    }
    ash_error_set(error, -EINVAL, "Unknown type of job '%s'", type);
    return NULL;
}

/* The name that the user gave; that of the device; or, of what is over at once, one of its own. */
static void choose_id(struct ash_loop *loop, const struct ash_job_driver *driver, const char *given,
                      const char *device, char *id, size_t bytes)
{
    const char *name = given != NULL ? given : device;
    if (given == NULL && driver->instant) {
        unsigned number = 0;
        do {
            g_snprintf(id, (gulong)bytes, "#%s%u", driver->type, number++);
        } while (ash_job_find(loop, id) != NULL);
        return;
    }
    g_strlcpy(id, name != NULL ? name : "", bytes);
}

static int check_id(struct ash_loop *loop, const char *id, struct ash_error *error)
{
    if (id[0] == '\0' || strlen(id) >= sizeof(((struct ash_job_info *)0)->id)) {
        return ash_error_set(error, -EINVAL, "Parameter 'job-id' must have 1 to 127 bytes");
    }
    if (ash_job_find(loop, id) != NULL) {
        return ash_error_set(error, -EEXIST, "Job ID '%s' already in use", id);
    }
    return 0;
}

static struct ash_job *job_alloc(struct ash_loop *loop, const struct ash_job_driver *driver,
                                 const struct common_options *common, const char *id)
{
    struct ash_job *job = g_malloc0(driver->job_size);
    job->driver = driver;
    job->loop = loop;
    job->id = g_strdup(id);
    job->error = (struct ash_error)ASH_ERROR_INIT;
    job->auto_finalize = common->auto_finalize;
    job->auto_dismiss = common->auto_dismiss;
    atomic_store_explicit(&job->refs, 1, memory_order_relaxed);
    atomic_store_explicit(&job->speed_limit, common->speed, memory_order_relaxed);
    ash_list_init(&job->link);
    ash_list_init(&job->txn_link);
    ash_co_queue_init(&job->wake);
    ash_turn_hook_init(&job->hook, tell);
    return job;
}

/* Takes the driver's own options and what the job needs of the graph. */
ASH_CO_FN static int prepare_start(struct ash_job *job, json_t *rest, struct ash_error *error)
{
    if (job->driver->options != NULL) {
        ash_options_init(job->driver->options, job);
        int ret = ash_options_take(job->driver->options, rest, job, error);
        if (ret < 0) {
            return ret;
        }
    }
    char *what = g_strdup_printf("Job type '%s'", job->driver->type);
    int ret = ash_options_refuse_rest(rest, what, error);
    g_free(what);
    return ret < 0 ? ret : job->driver->start(job, error);
}

/* A job that has its place in the graph and does not run yet. */
ASH_CO_FN static int create(struct ash_loop *loop, const json_t *description,
                            struct ash_job **result, struct ash_error *error)
{
    if (!json_is_object(description)) {
        return ash_error_set(error, -EINVAL, "The description of a job is a JSON object");
    }
    struct common_options common;
    json_t *rest = json_deep_copy(description);
    ash_options_init(common_options, &common);
    int ret = ash_options_take(common_options, rest, &common, error);
    const struct ash_job_driver *driver = ret == 0 ? find_driver(common.type, error) : NULL;
    ret = ret < 0 ? ret : driver == NULL ? -EINVAL : 0;
    if (ret == 0 && driver->variant != NULL) {
        driver = driver->variant(loop, rest);
    }
    char id[sizeof(((struct ash_job_info *)0)->id) + 1] = "";
    if (ret == 0) {
        choose_id(loop, driver, common.id, json_string_value(json_object_get(rest, "device")), id,
                  sizeof(id));
        ret = check_id(loop, id, error);
    }
    if (ret == 0) {
        struct ash_job *job = job_alloc(loop, driver, &common, id);
        enlist(job);
        ret = prepare_start(job, rest, error);
        if (ret == 0) {
            *result = job;
        } else {
            delist(job);
            ash_job_unref(job);
        }
    }
    ash_options_clear(common_options, &common);
    json_decref(rest);
    return ret;
}

static void job_main(void *opaque)
{
    struct ash_job *job = opaque;
    ash_co_assert_inside();
    int ret = -ECANCELED;
    ash_job_set_state(job, ASH_JOB_RUNNING);
    if (!job->cancelled) {
        ret = job->driver->run(job, &job->error);
    }
    if (ret == 0 && job->forced) {
        ret = -ECANCELED;
    }
    ash_job_txn_finished(job, ret);
    ash_job_unref(job);
}

/* The jobs are made; none has run. */
ASH_CO_FN static void undo_start(struct ash_job **jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct ash_job *job = jobs[i];
        if (job->driver->abort != NULL) {
            job->driver->abort(job);
        }
        job->driver->clean(job);
        delist(job);
        ash_job_unref(job);
    }
}

static void launch(struct ash_job *job)
{
    ash_job_ref(job); /* the coroutine's */
    ash_job_ref(job); /* the caller's */
    int ret = ash_co_spawn(&job->loop->sched, job_main, job);
    ash_assert(ret == 0); /* reserved by who starts: see start_jobs() */
}

/* Makes sure that coroutines for `count` jobs can be had: nothing is undone once one has started.
 */
static int reserve_coroutines(struct ash_loop *loop, size_t count, struct ash_error *error)
{
    if (loop->sched.count + count > loop->sched.config.count_max) {
        return ash_error_set(error, -EAGAIN, "No coroutine can be had for %zu jobs", count);
    }
    return 0;
}

/* Begins those that are about a moment, all at the same. */
ASH_CO_FN static int begin_jobs(struct ash_loop *loop, struct ash_job **jobs, size_t count,
                                struct ash_error *error)
{
    struct ash_node **nodes = g_new(struct ash_node *, count);
    size_t node_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (jobs[i]->driver->begin != NULL) {
            nodes[node_count++] = jobs[i]->moment;
        }
    }
    int ret = 0;
    if (node_count > 0) {
        struct ash_pause pause;
        ret = ash_pause_begin(&pause, loop, nodes, node_count, UINT64_MAX);
        ash_assert(ret == 0); /* without a deadline it does not expire */
        size_t begun = 0;
        for (; ret == 0 && begun < count; begun += ret == 0) {
            const struct ash_job_driver *driver = jobs[begun]->driver;
            ret = driver->begin != NULL ? driver->begin(jobs[begun], error) : 0;
        }
        for (size_t i = 0; ret == 0 && i < count; i++) {
            if (jobs[i]->driver->begun != NULL) {
                jobs[i]->driver->begun(jobs[i]);
            }
        }
        while (ret < 0 && begun-- > 0) {
            if (jobs[begun]->driver->unbegin != NULL) {
                jobs[begun]->driver->unbegin(jobs[begun]);
            }
        }
        ash_pause_end(&pause);
    }
    g_free(nodes);
    return ret;
}

ASH_CO_FN static int start_jobs(struct ash_loop *loop, const json_t *const *descriptions,
                                size_t count, ash_job_event_fn *event, void *event_opaque,
                                struct ash_job **jobs, struct ash_error *error)
{
    ash_loop_assert_owner(loop);
    for (size_t i = 0; i < count; i++) {
        int ret = create(loop, descriptions[i], &jobs[i], error);
        if (ret < 0) {
            undo_start(jobs, i);
            return ret;
        }
    }
    int ret = reserve_coroutines(loop, count, error);
    if (ret == 0) {
        ret = begin_jobs(loop, jobs, count, error);
    }
    if (ret < 0) {
        undo_start(jobs, count);
        return ret;
    }
    struct ash_job_txn *txn = ash_job_txn_new();
    bool alone = true;
    for (size_t i = 0; i < count; i++) {
        jobs[i]->event = event;
        jobs[i]->event_opaque = event_opaque;
        alone &= jobs[i]->driver->instant;
        ash_job_txn_add(jobs[i]->driver->instant ? ash_job_txn_new() : txn, jobs[i]);
    }
    if (alone) {
        g_free(txn);
    }
    for (size_t i = 0; i < count; i++) {
        launch(jobs[i]);
    }
    return 0;
}

int ash_co_job_start(struct ash_loop *loop, const json_t *description, ash_job_event_fn *event,
                     void *event_opaque, struct ash_job **job, struct ash_error *error)
{
    return start_jobs(loop, &description, 1, event, event_opaque, job, error);
}

int ash_co_job_start_all(struct ash_loop *loop, const json_t *descriptions, ash_job_event_fn *event,
                         void *event_opaque, struct ash_job **jobs, struct ash_error *error)
{
    size_t count = json_array_size(descriptions);
    if (count == 0) {
        return ash_error_set(error, -EINVAL, "A transaction is a JSON array of at least one job");
    }
    const json_t **list = g_new(const json_t *, count);
    for (size_t i = 0; i < count; i++) {
        list[i] = json_array_get(descriptions, i);
    }
    int ret = start_jobs(loop, list, count, event, event_opaque, jobs, error);
    g_free(list);
    return ret;
}

/* --- verbs --- */

static void pause_user(struct ash_job *job)
{
    job->pauses += !job->user_paused;
    job->user_paused = true;
}

static void resume_user(struct ash_job *job)
{
    job->pauses -= job->user_paused;
    job->user_paused = false;
    atomic_store_explicit(&job->io_error, 0, memory_order_relaxed);
}

ASH_CO_FN static void cancel(struct ash_job *job, bool force)
{
    if (job->finished) {
        ash_job_txn_cancel(job);
        return;
    }
    if (!force && job->driver->cancel != NULL && job->driver->cancel(job)) {
        return;
    }
    job->cancelled = true;
    job->forced |= force;
}

ASH_CO_FN static int apply(struct ash_job *job, enum ash_job_verb verb, uint64_t value,
                           struct ash_error *error)
{
    switch (verb) {
    case ASH_JOB_PAUSE:
        if (job->user_paused) {
            return ash_error_set(error, -EPERM, "Job '%s' is already paused", job->id);
        }
        pause_user(job);
        break;
    case ASH_JOB_RESUME:
        if (!job->user_paused) {
            return ash_error_set(error, -EPERM, "Job '%s' is not paused", job->id);
        }
        resume_user(job);
        break;
    case ASH_JOB_CANCEL:
    case ASH_JOB_FORCE_CANCEL:
        cancel(job, verb == ASH_JOB_FORCE_CANCEL);
        break;
    case ASH_JOB_COMPLETE:
        if (job->driver->complete == NULL) {
            return ash_error_set(error, -ENOTSUP, "Job '%s' cannot be completed", job->id);
        }
        return job->driver->complete(job, error);
    case ASH_JOB_FINALIZE:
        ash_job_txn_finalize(job->txn);
        break;
    case ASH_JOB_DISMISS:
        ash_job_dismiss(job);
        break;
    default:
        atomic_store_explicit(&job->speed_limit, value, memory_order_relaxed);
        job->allowed_ns = 0;
    }
    return 0;
}

int ash_co_job_control(struct ash_job *job, enum ash_job_verb verb, uint64_t value,
                       struct ash_error *error)
{
    ash_loop_assert_owner(job->loop);
    ash_assert(verb < ASH_JOB_VERB_COUNT);
    enum ash_job_state state = ash_job_state(job);
    bool deciding = job->txn != NULL && job->txn->deciding;
    if ((verbs[verb].states & 1u << state) == 0 || (deciding && verb != ASH_JOB_DISMISS)) {
        return ash_error_set(error, -EPERM,
                             "Job '%s' in state '%s' cannot accept command verb '%s'", job->id,
                             state_names[state], verbs[verb].name);
    }
    ash_job_ref(job);
    int ret = apply(job, verb, value, error);
    if (job->driver->kick != NULL && !job->finished) {
        job->driver->kick(job);
    }
    ash_job_kick(job);
    ash_job_unref(job);
    return ret;
}

/* What a job can change it can change as long as it runs. */
int ash_co_job_change(struct ash_job *job, const json_t *description, struct ash_error *error)
{
    ash_loop_assert_owner(job->loop);
    enum ash_job_state state = ash_job_state(job);
    if ((verbs[ASH_JOB_SET_SPEED].states & 1u << state) == 0 || job->finished) {
        return ash_error_set(error, -EPERM, "Job '%s' in state '%s' cannot be changed", job->id,
                             state_names[state]);
    }
    if (job->driver->change == NULL || !json_is_object(description)) {
        return ash_error_set(error, -EINVAL, "Job '%s' has no options that can change", job->id);
    }
    json_t *rest = json_deep_copy(description);
    int ret = job->driver->change(job, rest, error);
    json_decref(rest);
    if (ret == 0) {
        ash_job_kick(job);
    }
    return ret;
}
