/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/resume.h"
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
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

/* A stream writes to no image but the one that it works on. */
static bool has_target(const struct sim_op *op)
{
    return op->job != &sim_job_stream;
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
    bool suits = !has_target(op) || (whole && fits(&op->target));
    if (!suits || !fits(source) || !ash_prng_chance(op->prng, 980)) {
        return;
    }
    op->unmarked = !can_be_marked(source) || (has_target(op) && !can_be_marked(&op->target));
    if (has_target(op)) {
        /* Should it start over, there may be something below what is on top now. */
        json_object_set_new(description, "sync", json_string("full"));
    }
    snprintf(op->state, sizeof(op->state), "d%u.state%u", disk->number, disk->jobs_ever);
    json_object_set_new(description, "state-file", json_string(op->state));
    if (op->unmarked) {
        json_object_set_new(description, "state-unmarked", json_true());
    }
}

/* --- what the file says --- */

/* As block/copy/resume_file.c has it on disk. */
enum { PART_BYTES_AT = 24, BITS_AT = 4096 };

uint64_t sim_resume_cleared(const struct sim_op *op)
{
    uint64_t sizes[2] = {0}; /* of a part, and of the disk */
    uint8_t bits = 0xff;
    uint64_t cleared = 0;
    (void)!ash_sim_file_read(op->run->world, op->state, PART_BYTES_AT, sizes, sizeof(sizes));
    if (ash_sim_file_read(op->run->world, op->state, BITS_AT, &bits, 1) < 0 || sizes[0] == 0) {
        return 0;
    }
    uint64_t bytes = MIN(le64toh(sizes[1]), op->disk->model.bytes);
    for (uint64_t part = 0; part < 8 && part * le64toh(sizes[0]) < bytes; part++) {
        uint64_t at = part * le64toh(sizes[0]);
        cleared += (bits & 1u << part) == 0 ? MIN(le64toh(sizes[0]), bytes - at) : 0;
    }
    return cleared;
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
    memcpy(op->below, from->below, sizeof(op->below));
    memcpy(op->base, from->base, sizeof(op->base));
    memcpy(op->state, from->file, sizeof(op->state));
    sim_note(op->run, "disk %u: the job of %s goes on", op->disk->number, op->state);
    return json_deep_copy(from->description);
}

bool sim_resume_has_begun(const struct sim_op *op)
{
    uint8_t sector[512];
    bool read = ash_sim_file_read(op->run->world, op->state, 0, sector, sizeof(sector)) == 0;
    bool begun = read && !ash_buffer_is_zero(sector, sizeof(sector));
    if (op->job->at_start && op->certain && !begun) {
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

void sim_resume_began(struct sim_op *op, const struct ash_job *job)
{
    if (op->state[0] == '\0') {
        return;
    }
    for (uint32_t turns = 0; turns < 8 && atomic_load(&job->total_bytes) == 0; turns++) {
        ash_co_reschedule();
    }
    sim_resume_account(op, job, false);
    /* What a stream lost shows when it has ended: most that are resumed get there. */
    bool goes_on = op->resumes && !has_target(op) && ash_prng_chance(op->prng, 700);
    if (!goes_on && ash_prng_chance(op->prng, 700)) {
        op->lingers = 4 + (uint32_t)sim_below(op->prng, 6);
    } else if (!goes_on) {
        strike(op, UINT64_C(1) << sim_below(op->prng, 9));
    }
}

void sim_resume_linger(struct sim_op *op)
{
    enum { MS = 1000000 };
    ash_co_sleep((300 + sim_below(op->prng, 900)) * MS); /* bits are cleared once a second */
    if (sim_resume_cleared(op) == 0) {
        return;
    }
    /* A flush of the guest's would save what a stream has not flushed: it has no time for many. */
    if (!op->aimed && ash_prng_chance(op->prng, has_target(op) ? 500 : 900)) {
        op->aimed = true;
        strike(op, UINT64_C(1) << sim_below(op->prng, has_target(op) ? 5 : 3));
    }
    for (uint64_t n = 1 + sim_below(op->prng, 3); n > 0; n--) {
        sim_guest_request(op, !has_target(op));
    }
}

bool sim_resume_lingers(const struct sim_op *op, enum ash_job_state state)
{
    bool stays = has_target(op) ? state == ASH_JOB_READY || state == ASH_JOB_STANDBY
                                : state == ASH_JOB_RUNNING || state == ASH_JOB_PENDING;
    return op->lingers > 0 && stays;
}

/* Of a stream: what its file said was done is not gone through again, and the rest is, once. */
void sim_resume_account(const struct sim_op *op, const struct ash_job *job, bool over)
{
    uint64_t done = atomic_load(&job->done_bytes);
    uint64_t total = atomic_load(&job->total_bytes);
    bool resized = op->disk->resizing || op->disk->resizes_ever != op->resizes_ever;
    if (op->state[0] == '\0' || has_target(op) || resized || total == 0) {
        return;
    }
    if (done > total || (over && job->ret == 0 && done != total) ||
        (!over && job->ret == 0 && done < op->cleared)) {
        sim_fail(op->run, "resume",
                 "disk %u: of %" PRIu64 " bytes a stream went through %" PRIu64 ", and %" PRIu64
                 " were done before",
                 op->disk->number, total, done, op->cleared);
    }
}

bool sim_resume_may_end(const struct sim_op *op, int ret)
{
    /* Somebody has changed one of its images meanwhile, or the chain, or put an image that cannot
     * be marked on top, or whose header has no room for the mark; it had ended, and the power was
     * cut before that was told; it lost what it was to copy. */
    bool roomless = ret == -ENOSPC && !fits(&op->disk->layers[0]);
    bool refused = ret == -ESTALE || ret == -EEXIST || ret == -EUCLEAN || ret == -ENOTSUP ||
                   roomless || ((ret == -EINVAL || ret == -ENOENT) && !has_target(op));
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
    memcpy(resumable->below, op->below, sizeof(resumable->below));
    memcpy(resumable->base, op->base, sizeof(resumable->base));
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
        const struct ash_job *job = disk->running;
        bool waits = job && ash_job_state(job) == ASH_JOB_PENDING && !job->auto_finalize &&
                     !disk->finalizing;
        disk->struck = waits || (job && ash_job_state(job) < ASH_JOB_WAITING);
    }
}
