/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A job is a step of the guest that starts it, steers it by verbs at random moments, and waits for
 * its end.
 *
 *  1. A disk has one job at a time.
 *  2. A job that would wait for somebody to end it is ended: by complete or by cancel once it is
 *     ready, by force when power was cut.
 *  3. What a job promises is told to the model by its own functions, see job.h. */
#include "tests/sim/job.h"
#include <errno.h>
#include "block/graph/graft.h"
#include "tests/sim/bitmap.h"
#include "tests/sim/format.h"
#include "tests/sim/resume.h"

const struct sim_job *const sim_jobs[] = {&sim_job_stream, &sim_job_commit, &sim_job_commit_active,
                                          &sim_job_mirror, &sim_job_backup, NULL};

struct ash_node *sim_job_top(const struct sim_op *op)
{
    return ash_graft_mapped(ash_disk_node(op->disk->disk));
}

uint32_t sim_job_choose(struct sim_op *op, json_t *description, const char *member,
                        const char *const *words)
{
    uint32_t count = 0;
    while (words[count]) {
        count++;
    }
    uint32_t index = (uint32_t)sim_below(op->prng, count);
    if (index > 0) {
        json_object_set_new(description, member, json_string(words[index]));
    }
    return index;
}

/* Some errors never go away, as after a flush that failed: a job stops at them again and again, or
 * tries for ever if it is to ignore them. */
enum { STOPS_MAX = 40, LOOKS_MAX = 20000 };
#define MIND_NS_MAX UINT64_C(200000000000)

/* --- choosing --- */

bool sim_legal_job(const struct sim_op *op)
{
    const struct sim_disk *disk = op->disk;
    return (disk->flags & ASH_NODE_WRITE) != 0 && !disk->job && !disk->resizing;
}

bool sim_draw_job(struct sim_op *op)
{
    uint64_t sum = 0;
    if (op->resumes) {
        op->job = op->disk->resumable.job;
        return true;
    }
    for (const struct sim_job *const *job = sim_jobs; *job; job++) {
        sum += (*job)->weight;
    }
    uint64_t left = sim_below(op->prng, sum);
    const struct sim_job *const *job = sim_jobs;
    for (; left >= (*job)->weight; job++) {
        left -= (*job)->weight;
    }
    op->job = *job;
    if (op->job->legal && !op->job->legal(op)) {
        op->job = &sim_job_stream; /* it needs nothing but a chain */
    }
    return !op->job->legal || op->job->legal(op);
}

/* --- steering --- */

static bool is_over(const struct ash_job *job)
{
    return ash_job_state(job) >= ASH_JOB_CONCLUDED;
}

static bool is_ready(const struct ash_job *job)
{
    return ash_job_state(job) == ASH_JOB_READY || ash_job_state(job) == ASH_JOB_STANDBY;
}

ASH_CO_FN static int control(struct sim_op *op, struct ash_job *job, enum ash_job_verb verb,
                             uint64_t value)
{
    if (is_over(job)) {
        return -EPERM;
    }
    int ret = ash_co_job_control(job, verb, value, NULL);
    sim_note(op->run, "disk %u: job %s: %s is answered by %d, now %s", op->disk->number,
             op->job->type, ash_job_verb_name(verb), ret, ash_job_state_name(ash_job_state(job)));
    return ret;
}

/* A verb after which it ends in its own time. */
ASH_CO_FN static bool end_well(struct sim_op *op, struct ash_job *job, enum ash_job_verb verb)
{
    bool ready = is_ready(job);
    if (ready && op->job->moment && !op->moment_began) {
        op->job->moment(op);
    }
    if (op->endless && verb == ASH_JOB_CANCEL && !op->cancelled) {
        sim_moment_limit(op, NULL); /* of what guests change from now on nothing is promised */
    }
    int ret = control(op, job, verb, 0);
    op->cancelled |= ret == 0 && !ready;
    op->completed |= ret == 0 && verb == ASH_JOB_COMPLETE;
    op->ending |= ret == 0;
    return ret == 0;
}

ASH_CO_FN static bool force(struct sim_op *op, struct ash_job *job)
{
    bool good = control(op, job, ASH_JOB_FORCE_CANCEL, 0) == 0;
    op->cancelled |= good;
    op->forced |= good;
    op->run->forced |= good;
    return good;
}

ASH_CO_FN static void nap(struct sim_op *op)
{
    ash_co_sleep(sim_below(op->prng, 8 * op->run->latency_ns_max + 4 * op->run->rest_ns));
}

/* Returns whether it is going to end. */
ASH_CO_FN static bool apply_verb(struct sim_op *op, struct ash_job *job)
{
    switch (sim_below(op->prng, 12)) {
    case 0:
    case 1:
    case 2:
    case 3:
        control(op, job, ASH_JOB_SET_SPEED, sim_below(op->prng, 4) * 1024 * 1024);
        return false;
    case 4:
        return force(op, job);
    case 5:
        return end_well(op, job, ASH_JOB_CANCEL);
    case 6:
        return !op->keep && end_well(op, job, ASH_JOB_COMPLETE);
    default:
        if (control(op, job, ASH_JOB_PAUSE, 0) == 0) {
            nap(op);
            control(op, job, ASH_JOB_RESUME, 0);
        }
        return false;
    }
}

/* Looks after a job until it is over. */
ASH_CO_FN static void mind(struct sim_op *op, struct ash_job *job, bool ending)
{
    uint64_t began_ns = ash_loop_now(op->run->loop);
    for (uint32_t stops = 0, looks = 0; !is_over(job); looks++) {
        ash_co_sleep(100000 + 4 * op->run->latency_ns_max + op->run->rest_ns / 16);
        bool long_ago = ash_loop_now(op->run->loop) - began_ns > MIND_NS_MAX;
        bool endless = stops == STOPS_MAX || (op->run->faulty && (looks >= LOOKS_MAX || long_ago));
        if (ash_sim_power_is_cut(op->run->world) || endless) {
            force(op, job);
        } else if (ash_job_state(job) == ASH_JOB_PAUSED || ash_job_state(job) == ASH_JOB_STANDBY) {
            control(op, job, ASH_JOB_RESUME, 0); /* an error stopped it */
            stops += job->forced ? 0 : 1;
        } else if (!ending && sim_resume_lingers(op, ash_job_state(job))) {
            op->lingers--;
            sim_resume_linger(op);
            if (is_ready(job)) {
                control(op, job, ASH_JOB_PAUSE, 0); /* has it look what there is to do */
            }
        } else if (ash_job_state(job) == ASH_JOB_PENDING) {
            nap(op);
            bool good = !is_over(job) && ash_prng_chance(op->prng, 800);
            op->ending |= good;
            op->disk->finalizing = good;
            good ? (void)control(op, job, ASH_JOB_FINALIZE, 0)
                 : (void)end_well(op, job, ASH_JOB_CANCEL);
        } else if (op->endless && !ending) {
            nap(op);
            ending = ash_prng_chance(op->prng, 400) && end_well(op, job, ASH_JOB_CANCEL);
        } else if (is_ready(job) && !ending) {
            nap(op);
            bool complete = !op->keep && ash_prng_chance(op->prng, 600);
            ending = end_well(op, job, complete ? ASH_JOB_COMPLETE : ASH_JOB_CANCEL);
        }
    }
}

ASH_CO_FN static void steer(struct sim_op *op, struct ash_job *job)
{
    bool ending = false;
    for (uint64_t n = sim_below(op->prng, 4); n > 0 && op->lingers == 0 && !ending; n--) {
        nap(op);
        ending = apply_verb(op, job);
    }
    mind(op, job, ending);
}

static json_t *describe(struct sim_op *op)
{
    struct ash_node *top = sim_job_top(op);
    json_t *description = op->resumes ? sim_resume_description(op) : json_object();
    json_object_set_new(description, "type", json_string(op->job->type));
    json_object_set_new(description, "device", json_string(top->name));
    json_object_set_new(description, "auto-dismiss", json_false());
    if (ash_prng_chance(op->prng, 200)) {
        json_object_set_new(description, "speed", json_integer(65536 << sim_below(op->prng, 6)));
    }
    if (ash_prng_chance(op->prng, 150)) {
        json_object_set_new(description, "auto-finalize", json_false());
    }
    json_object_set_new(description, "job-id",
                        json_sprintf("job-%u-%u", op->disk->number, op->disk->jobs_ever));
    op->job->describe(op, top, description);
    return description;
}

/* The job, and what is to happen at the same moment. */
ASH_CO_FN static int start(struct sim_op *op, json_t *description, struct ash_job **job,
                           struct ash_error *error)
{
    struct ash_loop *loop = op->run->loop;
    struct ash_job *jobs[2] = {NULL};
    int first = op->action && ash_prng_chance(op->prng, 500); /* the action is */
    if (!op->action) {
        return ash_co_job_start(loop, description, NULL, NULL, job, error);
    }
    json_t *all = json_array();
    json_array_append(all, first ? op->action : description);
    json_array_append(all, first ? description : op->action);
    int ret = ash_co_job_start_all(loop, all, NULL, NULL, jobs, error);
    json_decref(all);
    if (ret == 0) {
        *job = jobs[first];
        ash_job_unref(jobs[!first]);
    }
    return ret;
}

static void note_description(struct sim_op *op, const json_t *description)
{
    if (op->run->config->trace) {
        char *text = json_dumps(description, JSON_COMPACT);
        sim_note(op->run, "        %s", text);
        free(text);
    }
}

/* Starts it. NULL: that failed. */
ASH_CO_FN static struct ash_job *begin(struct sim_op *op, int *ret)
{
    struct sim_disk *disk = op->disk;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job = NULL;
    json_t *description = describe(op);
    op->description = description;
    note_description(op, description);
    op->cleared = sim_resume_cleared(op);
    if (op->job->at_start && !(op->resumes && sim_resume_has_begun(op))) {
        model_image_free(op->image);
        sim_moment_begin(op);
    }
    disk->hurried = op->hurries;
    disk->hurried_ever += op->hurries;
    *ret = op->overlay ? sim_image_fit(op, &op->target) : 0;
    *ret = *ret < 0 ? *ret : start(op, description, &job, &error);
    op->started = *ret == 0;
    disk->resuming = false;
    if (op->moment_began) {
        sim_moment_end(op, false);
    }
    sim_changes_begin(&disk->changes, &disk->model);
    struct sim_bitmap *bitmap = sim_bitmap_find(disk, op->action_bitmap);
    if (bitmap && (op->adds || op->started)) {
        sim_bitmap_begin(disk, bitmap, op->started);
    }
    if (*ret < 0) {
        sim_note(op->run, "        %s", error.message);
    }
    json_decref(op->action);
    return op->started ? job : NULL;
}

int sim_run_job(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    struct ash_error error = ASH_ERROR_INIT;
    int ret;
    disk->job = op->job;
    disk->finalizing = false;
    disk->jobs_ever++;
    struct ash_job *job = begin(op, &ret);
    if (job) {
        disk->running = job;
        sim_resume_began(op, job);
        steer(op, job);
        sim_resume_account(op, job, true);
        disk->running = NULL;
        ret = job->ret;
        sim_note(op->run, "        %s", job->error.message);
        if (ash_co_job_control(job, ASH_JOB_DISMISS, 0, &error) < 0) {
            sim_fail(op->run, "job", "it cannot be dismissed: %s", error.message);
        }
        ash_job_unref(job);
    }
    disk->hurried = false;
    sim_resume_settle(op, ret);
    json_decref(op->description);
    if (op->job->end) {
        op->job->end(op, ret);
    }
    if (op->moment_began) {
        sim_moment_end(op, false);
    }
    model_image_free(op->image);
    if (op->exact) {
        g_array_free(op->exact, TRUE);
    }
    sim_changes_end(&disk->changes);
    disk->job = NULL;
    return ret;
}

/* Whether an image of it may have to be repaired before it can be written. */
static bool has_lazy(const struct sim_disk *disk)
{
    bool lazy = false;
    for (uint32_t i = 0; i < disk->layer_count; i++) {
        lazy |= disk->layers[i].lazy;
    }
    return lazy;
}

bool sim_may_job(const struct sim_op *op, int ret)
{
    bool reopened =
        op->disk->reopening || op->beside_reopening || op->disk->verbs_ever != op->verbs_ever;
    bool resized = op->disk->resizing || op->disk->resizes_ever != op->resizes_ever;
    bool odd = op->target.format == &sim_format_qcow2 && op->disk->layers[0].odd;
    return sim_resume_may_end(op, ret) || (ret == -ECANCELED && op->cancelled) ||
           (ret == -EINVAL && odd) ||
           (ret == -EBUSY && !op->started && has_lazy(op->disk)) ||
           (ret == -EACCES && reopened) || (ret == -ETIMEDOUT && op->timed) ||
           ((ret == -EAGAIN || ret == -ENOSPC) && resized && !op->started);
}
