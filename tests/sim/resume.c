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

/* The power is cut within so many writes, at most. */
static void strike(const struct sim_op *op, uint64_t writes)
{
    sim_weather_strikes(op->run, op->disk, op->resumes ? 400 : 800, writes);
}

void sim_resume_began(struct sim_op *op)
{
    if (op->state[0] == '\0') {
        return;
    }
    if (ash_prng_chance(op->prng, 700)) {
        op->lingers = 4 + (uint32_t)sim_below(op->prng, 6);
    } else {
        strike(op, UINT64_C(1) << sim_below(op->prng, 9));
    }
}

/* Whether the file says of a part that it needs not be copied again. */
static bool has_cleared(const struct sim_op *op)
{
    enum { BITS_AT = 4096, PART_BYTES = 1 << 20 };
    uint8_t bits = 0xff;
    uint64_t parts = (op->disk->model.bytes + PART_BYTES - 1) / PART_BYTES;
    uint8_t all = (uint8_t)((1u << MIN(parts, 8)) - 1);
    bool read = ash_sim_file_read(op->run->world, op->state, BITS_AT, &bits, 1) == 0;
    return read && (bits & all) != all;
}

void sim_resume_linger(struct sim_op *op)
{
    enum { MS = 1000000 };
    ash_co_sleep((300 + sim_below(op->prng, 900)) * MS); /* bits are cleared once a second */
    if (!has_cleared(op)) {
        return;
    }
    if (!op->aimed && ash_prng_chance(op->prng, 500)) {
        op->aimed = true;
        strike(op, UINT64_C(1) << sim_below(op->prng, 5));
    }
    for (uint64_t n = 1 + sim_below(op->prng, 3); n > 0; n--) {
        sim_guest_request(op);
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
