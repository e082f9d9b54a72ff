/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mirror. Completed, the target is the disk from then on; cancelled when it was ready, it is a copy
 * of a moment between the verb and the end. A copy that a bitmap has watched from before is brought
 * up to date later by sync=incremental. With sync=top it is that on what the disk's top image
 * stands on, and with sync=none it has what guests wrote meanwhile.
 *
 * One that is resumed has to become as whole as any. */
#include <errno.h>
#include "tests/sim/bitmap.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"
#include "tests/sim/resume.h"

static bool legal(const struct sim_op *op)
{
    return op->resumes || sim_target_fits(op->disk) || sim_bitmap_of_copy(op->disk) != NULL;
}

/* How much of the disk gets to an image that nobody has used. */
static void choose_sync(struct sim_op *op, const struct ash_node *top, json_t *description)
{
    static const char *const syncs[] = {"full", "full", "full", "top", "top", "none", NULL};
    enum { TOP = 3, NONE = 5 };
    struct sim_disk *disk = op->disk;
    uint32_t sync = sim_job_choose(op, description, "sync", syncs);
    op->whole = sync < TOP || (sync < NONE && top->backing == NULL);
    op->overlay = !op->whole && sync < NONE && sim_target_stands(&op->target);
    op->keep = ash_prng_chance(op->prng, 300) || (!op->whole && (!op->overlay || disk->streamed));
    /* Whatever has a bitmap from before the job began can be brought up to date afterwards. */
    op->watch = op->whole ? sim_bitmap_any(disk) : 0;
}

/* Which image it copies to, and how much. */
static void choose_target(struct sim_op *op, struct ash_node *top, json_t *description)
{
    struct sim_disk *disk = op->disk;
    const struct sim_bitmap *bitmap = sim_bitmap_of_copy(disk);
    const struct ash_node *below = NULL;
    if (bitmap && (!sim_target_fits(disk) || ash_prng_chance(op->prng, 700))) {
        json_object_set_new(description, "sync", json_string("incremental"));
        json_object_set_new(description, "bitmap", json_string(bitmap->name));
        op->target = disk->copy;
        op->keep = ash_prng_chance(op->prng, 600);
        op->incremental = op->whole = true;
        op->watch = disk->copy_watch;
    } else {
        op->target = disk->targets[disk->targets_used++];
        choose_sync(op, top, description);
        below = op->overlay ? top->backing->child : NULL;
    }
    sim_target_describe(description, "target", &op->target, below);
}

static void describe(struct sim_op *op, struct ash_node *top, json_t *description)
{
    static const char *const modes[] = {"background", "background", "write-blocking", NULL};
    static const char *const policies[] = {"report", "report", "ignore", "stop", "enospc", NULL};
    if (op->resumes) {
        op->keep = ash_prng_chance(op->prng, 500);
    } else {
        choose_target(op, top, description);
        sim_resume_choose(op, description);
    }
    op->disk->copy_watch = 0; /* until it has ended well */
    sim_job_choose(op, description, "copy-mode", modes);
    sim_job_choose(op, description, "on-source-error", policies);
    sim_job_choose(op, description, "on-target-error", policies);
    if (ash_prng_chance(op->prng, 300)) {
        json_object_set_new(description, "granularity",
                            json_integer(512 << sim_below(op->prng, 12)));
    }
    if (ash_prng_chance(op->prng, 300)) {
        json_object_set_new(description, "use-copy-range", json_true());
    }
}

static void moment(struct sim_op *op)
{
    if (!op->whole && !op->overlay) { /* it has what guests wrote, and may have more */
        sim_moment_limit(op, NULL);
    }
    sim_moment_begin(op);
}

/* The target has taken the disk's place. */
static void pivot(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    sim_note(op->run, "disk %u is in %s now", disk->number, op->target.file);
    disk->layers[0] = op->target;
    disk->layers[0].leaky = true; /* what was tried before may have left something */
    disk->layer_count = op->overlay ? disk->layer_count : 1;
    disk->streamed = false;
    disk->moved++;
    sim_bitmaps_drop(disk);
}

ASH_CO_FN static void end(struct sim_op *op, int ret)
{
    bool pivoted = ret == 0 && op->completed;
    if (pivoted) {
        pivot(op);
        sim_moment_end(op, true);
    } else {
        sim_await_closed(op, &op->target);
    }
    if (!pivoted && ret == 0) {
        const struct ash_node *top = sim_job_top(op);
        sim_moment_compare(op, &op->target, op->overlay ? top->backing->child : NULL);
    }
    /* What a failed one left in the copy lies within what the bitmap says, too. */
    bool again = op->incremental && !op->forced;
    if (!pivoted && op->watch != 0 && (ret == 0 || again)) {
        op->disk->copy = op->target;
        op->disk->copy_watch = op->watch;
    }
}

const struct sim_job sim_job_mirror = {
    .type = "mirror",
    .weight = 9,
    .moves = true,
    .legal = legal,
    .describe = describe,
    .moment = moment,
    .end = end,
};
