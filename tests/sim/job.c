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
#include "tests/sim/format.h"

const struct sim_job *const sim_jobs[] = {&sim_job_stream, &sim_job_commit, &sim_job_mirror, NULL};

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

/* --- choosing --- */

bool sim_legal_job(const struct sim_op *op)
{
    const struct sim_disk *disk = op->disk;
    return (disk->flags & ASH_NODE_WRITE) != 0 && !disk->job && !disk->resizing;
}

bool sim_draw_job(struct sim_op *op)
{
    uint64_t sum = 0;
    for (const struct sim_job *const *job = sim_jobs; *job; job++) {
        sum += (*job)->weight;
    }
    uint64_t left = sim_below(op->prng, sum);
    const struct sim_job *const *job = sim_jobs;
    for (; left >= (*job)->weight; job++) {
        left -= (*job)->weight;
    }
    op->job = *job;
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
    int ret = control(op, job, verb, 0);
    op->cancelled |= ret == 0 && !ready;
    op->completed |= ret == 0 && verb == ASH_JOB_COMPLETE;
    return ret == 0;
}

ASH_CO_FN static bool force(struct sim_op *op, struct ash_job *job)
{
    bool good = control(op, job, ASH_JOB_FORCE_CANCEL, 0) == 0;
    op->cancelled |= good;
    op->forced |= good;
    return good;
}

ASH_CO_FN static void nap(struct sim_op *op)
{
    ash_co_sleep(sim_below(op->prng, 8 * op->run->latency_ns_max));
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
    while (!is_over(job)) {
        ash_co_sleep(100000 + 4 * op->run->latency_ns_max);
        if (ash_sim_power_is_cut(op->run->world)) {
            force(op, job);
        } else if (ash_job_state(job) == ASH_JOB_PAUSED || ash_job_state(job) == ASH_JOB_STANDBY) {
            control(op, job, ASH_JOB_RESUME, 0); /* an error stopped it */
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
    for (uint64_t n = sim_below(op->prng, 4); n > 0 && !ending; n--) {
        nap(op);
        ending = apply_verb(op, job);
    }
    mind(op, job, ending);
}

static json_t *describe(struct sim_op *op)
{
    struct ash_node *top = sim_job_top(op);
    json_t *description = json_pack("{s:s, s:s, s:s, s:b}", "type", op->job->type, "job-id", "job",
                                    "device", top->name, "auto-dismiss", 0);
    if (ash_prng_chance(op->prng, 200)) {
        json_object_set_new(description, "speed", json_integer(65536 << sim_below(op->prng, 6)));
    }
    json_object_set_new(description, "job-id",
                        json_sprintf("job-%u-%u", op->disk->number, op->disk->jobs_ever));
    op->job->describe(op, top, description);
    return description;
}

int sim_run_job(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    disk->job = op->job;
    disk->jobs_ever++;
    json_t *description = describe(op);
    char *text = json_dumps(description, JSON_COMPACT);
    sim_note(op->run, "        %s", text);
    free(text);
    int ret = ash_co_job_start(op->run->loop, description, NULL, NULL, &job, &error);
    json_decref(description);
    if (ret == 0) {
        steer(op, job);
        ret = job->ret;
        sim_note(op->run, "        %s", job->error.message);
        if (ash_co_job_control(job, ASH_JOB_DISMISS, 0, &error) < 0) {
            sim_fail(op->run, "job", "it cannot be dismissed: %s", error.message);
        }
        ash_job_unref(job);
    } else {
        sim_note(op->run, "        %s", error.message);
    }
    if (op->job->end) {
        op->job->end(op, ret);
    }
    if (op->moment_began) {
        sim_moment_end(op, false);
    }
    disk->job = NULL;
    return ret;
}

bool sim_may_job(const struct sim_op *op, int ret)
{
    bool reopened = op->disk->reopening || op->disk->verbs_ever != op->verbs_ever;
    return (ret == -ECANCELED && op->cancelled) || (ret == -EACCES && reopened);
}
