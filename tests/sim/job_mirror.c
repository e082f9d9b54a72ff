/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mirror. Completed, the target is the disk from then on; cancelled when it was ready, it is a copy
 * of a moment between the verb and the end. A copy that a bitmap has watched from before is brought
 * up to date later by sync=incremental. With sync=top it is that on what the disk's top image
 * stands on, and with sync=none it has what guests wrote meanwhile.
 *
 * One that has a state file, and did not end well, is resumed at the beginning of a later life,
 * before guests use the disk: then it has to become as whole as any. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "tests/sim/bitmap.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"

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

/* Whether an image can tell that it was changed without the job. Opening one that is dirty is such
 * a change. */
static bool can_be_marked(const struct sim_layer *layer)
{
    bool room = layer->unit_bytes > 512; /* for the mark in the header */
    return layer->format == &sim_format_qcow2 && !layer->old_version && !layer->lazy && room;
}

static void choose_state(struct sim_op *op, json_t *description)
{
    const struct sim_disk *disk = op->disk;
    if (op->whole && !op->incremental && can_be_marked(&disk->layers[0]) &&
        can_be_marked(&op->target) && ash_prng_chance(op->prng, 800)) {
        snprintf(op->state, sizeof(op->state), "d%u.state%u", disk->number, disk->jobs_ever);
        json_object_set_new(description, "state-file", json_string(op->state));
    }
}

static void resume(struct sim_op *op, json_t *description)
{
    struct sim_disk *disk = op->disk;
    op->target = disk->resumed;
    sim_note(op->run, "disk %u: the job of %s goes on", disk->number, disk->state);
    op->whole = true;
    op->keep = ash_prng_chance(op->prng, 500);
    memcpy(op->state, disk->state, sizeof(op->state));
    json_object_set_new(description, "state-file", json_string(op->state));
    sim_target_describe(description, "target", &op->target, NULL);
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
        resume(op, description);
    } else {
        choose_target(op, top, description);
        choose_state(op, description);
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

/* What did not end well is resumed in a later life. */
static void keep_state(struct sim_op *op, int ret)
{
    struct sim_disk *disk = op->disk;
    if (op->state[0] != '\0' && ret < 0 && (op->started || ret == -EIO)) {
        memcpy(disk->state, op->state, sizeof(disk->state));
        disk->resumed = op->target;
    } else if (op->resumes) {
        disk->state[0] = '\0';
    }
}

ASH_CO_FN static void end(struct sim_op *op, int ret)
{
    keep_state(op, ret);
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
    .weight = 6,
    .moves = true,
    .legal = legal,
    .describe = describe,
    .moment = moment,
    .end = end,
};
