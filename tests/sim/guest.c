/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guests: coroutines that do one step after another, each drawn when it begins. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "tests/sim/resume.h"

enum steps { STEPS_ALL, STEPS_REQUESTS, STEPS_RESIZES_TOO };

static uint32_t weight_of(const struct sim_step *step, enum steps steps)
{
    if (steps == STEPS_ALL || step->run == sim_run_io) {
        return step->weight;
    }
    return steps == STEPS_RESIZES_TOO && step->run == sim_run_resize ? 10 * step->weight : 0;
}

static const struct sim_step *choose(struct sim_op *op, enum steps steps)
{
    uint32_t sum = 0;
    for (const struct sim_step *step = sim_steps; step->name; step++) {
        sum += weight_of(step, steps);
    }
    uint64_t left = sim_below(op->prng, sum);
    const struct sim_step *step = sim_steps;
    for (; left >= weight_of(step, steps); step++) {
        left -= weight_of(step, steps);
    }
    return step;
}

void sim_expect(struct sim_run *run, int ret, bool disturbed, const char *what)
{
    bool cut = ash_sim_power_is_cut(run->world);
    bool known = ret == -EIO || ret == -ENOSPC || ret == -ENOMEM;
    if (ret >= 0 || (known && (run->faulty || cut)) ||
        ((ret == -EIO || ret == -EPERM) && disturbed)) {
        return;
    }
    sim_fail(run, "result", "%s ended with %d (%s)", what, ret, g_strerror(-ret));
}

static void note_begin(const struct sim_op *op)
{
    sim_note(op->run,
             "disk %u guest %u: %s 0x%" PRIx64 "+0x%" PRIx64 " flags 0x%x value %" PRIu64
             " (or %" PRIu64 ") argument %" PRIu64,
             op->disk->number, op->guest->number, op->step->name, op->io.offset, op->io.bytes,
             op->io.flags, op->value, op->scribble_value, op->bytes);
}

/* Whether the step was disturbed by a verb that ran beside it. */
static bool disturbed(const struct sim_op *op, bool at_start)
{
    return at_start || op->disk->verbs > 0 || op->disk->verbs_ever != op->verbs_ever;
}

/* Whether it may have waited in vain for a copy of what it was about to change. */
static bool timed_out(const struct sim_op *op, int ret)
{
    return ret == -ETIMEDOUT && (op->hurried || op->disk->hurried_ever != op->hurried_ever);
}

ASH_CO_FN static void perform(struct sim_op *op)
{
    const struct sim_step *step = op->step;
    if (op->disk->disk == NULL || (step->legal && !step->legal(op)) ||
        (step->draw && !step->draw(op))) {
        return;
    }
    bool at_start = op->disk->verbs > 0;
    op->verbs_ever = op->disk->verbs_ever;
    op->resizes_ever = op->disk->resizes_ever;
    op->hurried = op->disk->hurried;
    op->hurried_ever = op->disk->hurried_ever;
    op->jobs_ever = op->disk->jobs_ever;
    op->beside_job = op->disk->job != NULL;
    op->beside_reopening = op->disk->reopening;
    op->moved = op->disk->moved;
    note_begin(op);
    if (step->begin) {
        step->begin(op);
    }
    int ret = step->run(op);
    sim_note(op->run, "disk %u guest %u: %s ended with %d", op->disk->number, op->guest->number,
             step->name, ret);
    if (step->end) {
        step->end(op, ret);
    }
    if (!timed_out(op, ret) && (!step->may_end || !step->may_end(op, ret))) {
        sim_expect(op->run, ret, disturbed(op, at_start), step->name);
    }
    op->run->hash = (op->run->hash ^ (uint32_t)ret) * UINT64_C(0x9e3779b97f4a7c15);
}

ASH_CO_FN static void one_step(struct sim_guest *guest)
{
    struct sim_disk *disk = guest->disk;
    struct sim_op op = {.guest = guest, .disk = disk, .run = disk->run, .prng = &guest->prng};
    op.resumes = disk->resuming; /* others wait */
    op.step = op.resumes ? sim_step_job : choose(&op, STEPS_ALL);
    if (op.step->exclusive) {
        ash_co_rwlock_write(&disk->use);
    } else {
        ash_co_rwlock_read(&disk->use);
    }
    perform(&op);
    ash_co_rwlock_unlock(&disk->use);
    free(op.memory);
}

void sim_guest_request(const struct sim_op *within, bool resizes)
{
    struct sim_op *op = g_new0(struct sim_op, 1); /* there is one on the stack already */
    *op = (struct sim_op){
        .guest = within->guest, .disk = within->disk, .run = within->run, .prng = within->prng};
    op->step = choose(op, resizes ? STEPS_RESIZES_TOO : STEPS_REQUESTS);
    perform(op);
    free(op->memory);
    g_free(op);
}

/* The first guest is done with resuming the job, or has failed to. */
static void go_on(const struct sim_guest *guest)
{
    struct sim_disk *disk = guest->disk;
    if (disk->resuming && guest->number == 0) {
        sim_resume_missed(disk);
        disk->resuming = false;
    }
}

ASH_CO_FN static void rest(const struct sim_guest *guest, uint32_t step)
{
    const struct sim_run *run = guest->disk->run;
    if (run->rest_ns > 0 && !ash_sim_power_is_cut(run->world)) {
        struct ash_prng prng = sim_draw(
            run, "rest", (uint64_t)run->life << 32 | guest->disk->number, guest->number, step);
        ash_co_sleep(sim_below(&prng, run->rest_ns));
    }
}

void sim_guest_run(void *opaque)
{
    ash_co_assert_inside();
    struct sim_guest *guest = opaque;
    struct sim_run *run = guest->disk->run;
    while (guest->disk->resuming && guest->number > 0) {
        ash_co_sleep(run->latency_ns_max + run->rest_ns / 16);
    }
    for (uint32_t i = 0; i < guest->steps && !ash_sim_power_is_cut(run->world); i++) {
        if (sim_wants(run, "step.%u.%u.%u.%u", run->life, guest->disk->number, guest->number, i)) {
            guest->prng = sim_draw(run, "step", (uint64_t)run->life << 32 | guest->disk->number,
                                   guest->number, i);
            one_step(guest);
        }
        go_on(guest);
        rest(guest, i);
    }
    go_on(guest);
    if (--run->guests == 0) {
        ash_co_wake(run->waiter);
    }
}
