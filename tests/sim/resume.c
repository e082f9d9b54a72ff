/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/resume.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tests/sim/fault.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"
#include "util/iov.h"

/* --- which jobs --- */

/* Whether an image can tell that it was changed without the job. */
static bool can_be_marked(const struct sim_layer *layer)
{
    return layer->format == &sim_format_qcow2 && !layer->old_version;
}

/* Not those for which the mark has no room in the header, or that opening alone may change, as they
 * are repaired after a cut. */
static bool fits(const struct sim_layer *layer)
{
    return !can_be_marked(layer) || (!layer->lazy && layer->unit_bytes > 512);
}

void sim_resume_choose(struct sim_op *op, json_t *description)
{
    const struct sim_disk *disk = op->disk;
    const struct sim_layer *source = &disk->layers[0];
    bool whole = op->whole && !op->incremental && op->bitmap == 0;
    if (!whole || !fits(source) || !fits(&op->target) || !ash_prng_chance(op->prng, 980)) {
        return;
    }
    op->unmarked = !can_be_marked(source) || !can_be_marked(&op->target);
    snprintf(op->state, sizeof(op->state), "d%u.state%u", disk->number, disk->jobs_ever);
    json_object_set_new(description, "state-file", json_string(op->state));
    if (op->unmarked) {
        json_object_set_new(description, "state-unmarked", json_true());
    }
}

/* --- going on --- */

json_t *sim_resume_description(struct sim_op *op)
{
    struct sim_resumable *from = &op->disk->resumable;
    op->target = from->target;
    op->unmarked = from->unmarked;
    op->certain = from->certain;
    op->whole = true;
    op->image = from->image;
    from->image = NULL;
    memcpy(op->state, from->file, sizeof(op->state));
    sim_note(op->run, "disk %u: the job of %s goes on", op->disk->number, op->state);
    return json_deep_copy(from->description);
}

bool sim_resume_has_begun(const struct sim_op *op)
{
    uint8_t sector[512];
    bool read = ash_sim_file_read(op->run->world, op->state, 0, sector, sizeof(sector)) == 0;
    bool begun = read && !ash_buffer_is_zero(sector, sizeof(sector));
    if (op->certain && !begun) {
        sim_fail(op->run, "resume", "disk %u: %s says nothing of a job that had begun",
                 op->disk->number, op->state);
    }
    return begun;
}

void sim_resume_began(struct sim_op *op)
{
    bool rests = op->state[0] != '\0' && op->run->rest_ns > 0;
    op->strikes_after = rests ? 1 + (uint32_t)sim_below(op->prng, 3) : 0;
    op->lingers = rests ? 4 + (uint32_t)sim_below(op->prng, 6) : 0;
    sim_resume_goes_on(op);
}

void sim_resume_goes_on(struct sim_op *op)
{
    if (op->state[0] != '\0' && op->strikes_after-- == 0) {
        sim_weather_strikes(op->run, op->disk, op->resumes ? 250 : 800);
    }
}

bool sim_resume_may_end(const struct sim_op *op, int ret)
{
    /* Somebody has changed one of its images meanwhile; it had ended, and the power was cut before
     * that was told; it lost what it was to copy. */
    bool refused = ret == -ESTALE || ret == -EEXIST || ret == -EUCLEAN;
    return op->resumes && !op->started && refused && !op->certain;
}

/* --- remembering --- */

void sim_resume_forget(struct sim_disk *disk)
{
    json_decref(disk->resumable.description);
    model_image_free(disk->resumable.image);
    disk->resumable = (struct sim_resumable){.job = NULL};
}

static void remember(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    struct sim_resumable *resumable = &disk->resumable;
    bool alone = op->started && !op->run->faulty && !op->timed && !op->ending;
    json_t *description = json_incref(op->description);
    bool again = op->resumes && !op->started && ash_sim_power_is_cut(op->run->world);
    bool interrupted = disk->struck || (again && resumable->interrupted);
    sim_resume_forget(disk);
    *resumable = (struct sim_resumable){
        .job = op->job,
        .unmarked = op->unmarked,
        .interrupted = interrupted,
        .certain = disk->struck && alone,
        .target = op->target,
        .description = description,
    };
    memcpy(resumable->file, op->state, sizeof(resumable->file));
    if (op->job->at_start) {
        resumable->image = op->image;
        op->image = NULL;
    }
}

void sim_resume_settle(struct sim_op *op, int ret)
{
    struct sim_disk *disk = op->disk;
    bool trouble = ret == -EIO || ret == -ENOSPC || ret == -ENOMEM; /* with which it was opened */
    if (op->state[0] == '\0') {
        return;
    }
    if (ret < 0 && (op->started || trouble) && (!op->unmarked || disk->struck)) {
        remember(op);
    } else if (op->resumes) {
        sim_resume_forget(disk);
    }
}

void sim_resume_missed(struct sim_disk *disk)
{
    disk->resumable.certain = false;
    if (disk->resumable.unmarked) {
        sim_resume_forget(disk);
    }
}

bool sim_resume_awaited(const struct sim_run *run)
{
    bool awaited = false;
    for (uint32_t i = 0; i < run->disk_count; i++) {
        awaited |= run->disks[i].resumable.interrupted;
    }
    return awaited;
}

void sim_resume_cut(struct sim_run *run)
{
    for (uint32_t i = 0; i < run->disk_count; i++) {
        struct sim_disk *disk = &run->disks[i];
        disk->struck = disk->running && ash_job_state(disk->running) < ASH_JOB_WAITING;
    }
}
