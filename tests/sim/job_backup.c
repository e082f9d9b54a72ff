/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Backup. The target is a copy of the moment at which the job was started: of all of the disk, or
 * together with what the disk's top image stands on (sync=top), or at least of what the bitmap had
 * to mark (a fresh target) or of what guests have changed (sync=none).
 *
 * One that is resumed is a copy of the moment of its first start, whatever guests have written
 * since.
 *
 * What the bitmap that it uses has to mark afterwards depends on how it ended, and on bitmap-mode.
 */
#include <errno.h>
#include "tests/sim/bitmap.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"
#include "tests/sim/resume.h"

enum mode { UNSET, ON_SUCCESS, ALWAYS, NEVER };
static const char *const modes[] = {"unset", "on-success", "always", "never", NULL};

static bool legal(const struct sim_op *op)
{
    return op->resumes || sim_target_fits(op->disk) || sim_bitmap_of_copy(op->disk) != NULL;
}

/* --- what it copies --- */

static void use_bitmap(struct sim_op *op, json_t *description, const struct sim_bitmap *bitmap)
{
    op->bitmap = bitmap->id;
    json_object_set_new(description, "bitmap", json_string(bitmap->name));
    op->mode = 1 + (int)sim_below(op->prng, 3);
    json_object_set_new(description, "bitmap-mode", json_string(modes[op->mode]));
}

/* What the bitmap marks. */
static void only_marked(struct sim_op *op, json_t *description, const struct sim_bitmap *bitmap)
{
    if (ash_prng_chance(op->prng, 500)) {
        op->mode = ON_SUCCESS;
        op->bitmap = bitmap->id;
        json_object_set_new(description, "bitmap", json_string(bitmap->name));
        json_object_set_new(description, "sync", json_string("incremental"));
    } else {
        use_bitmap(op, description, bitmap);
        json_object_set_new(description, "sync", json_string("bitmap"));
    }
}

/* A bitmap that begins, or begins anew, at the same moment. */
static void add_action(struct sim_op *op, const struct ash_node *top)
{
    struct sim_disk *disk = op->disk;
    struct sim_bitmap *bitmap = sim_bitmap_new(disk);
    op->adds = bitmap != NULL;
    if (bitmap) {
        uint64_t granularity = UINT64_C(512) << sim_below(op->prng, 9);
        op->action = json_pack("{s:s, s:s, s:s, s:I}", "type", "bitmap-add", "device", top->name,
                               "bitmap", bitmap->name, "granularity", (json_int_t)granularity);
    } else {
        bitmap = sim_bitmap_find(disk, sim_bitmap_any(disk));
        op->action = json_pack("{s:s, s:s, s:s}", "type", "bitmap-clear", "device", top->name,
                               "bitmap", bitmap->name);
    }
    op->action_bitmap = bitmap->id;
}

/* To an image that nobody has used. */
static void choose_sync(struct sim_op *op, const struct ash_node *top, json_t *description)
{
    enum { FULL = 5, TOP = 7, NONE = 8, MARKED = 10 };
    struct sim_disk *disk = op->disk;
    const struct sim_bitmap *bitmap = sim_bitmap_find(disk, sim_bitmap_any(disk));
    uint64_t kind = sim_below(op->prng, bitmap ? MARKED : NONE);
    if (kind >= NONE) {
        only_marked(op, description, bitmap);
        sim_moment_limit(op, &bitmap->changes);
        return;
    }
    op->endless = kind == NONE - 1;
    op->whole = kind < FULL || (kind < TOP && top->backing == NULL);
    op->overlay = !op->whole && kind < TOP && sim_target_stands(&op->target);
    json_object_set_new(description, "sync",
                        json_string(op->endless   ? "none"
                                    : kind < FULL ? "full"
                                                  : "top"));
    if (op->endless) {
        return;
    }
    if (!op->whole && !op->overlay) { /* nobody knows here what the top image holds */
        op->exact = g_array_new(FALSE, FALSE, sizeof(struct model_range));
    }
    if (bitmap && ash_prng_chance(op->prng, 300)) {
        use_bitmap(op, description, bitmap);
    } else if (ash_prng_chance(op->prng, 300)) {
        add_action(op, top);
    }
    op->watch = !op->whole          ? 0
                : op->bitmap        ? op->bitmap
                : op->action_bitmap ? op->action_bitmap
                                    : sim_bitmap_any(disk);
}

static void choose_target(struct sim_op *op, struct ash_node *top, json_t *description)
{
    struct sim_disk *disk = op->disk;
    const struct sim_bitmap *bitmap = sim_bitmap_of_copy(disk);
    const struct ash_node *below = NULL;
    if (bitmap && (!sim_target_fits(disk) || ash_prng_chance(op->prng, 700))) {
        only_marked(op, description, bitmap);
        op->target = disk->copy;
        op->incremental = op->whole = true;
        op->watch = disk->copy_watch;
    } else {
        op->target = disk->targets[disk->targets_used++];
        choose_sync(op, top, description);
        below = op->overlay ? top->backing->child : NULL;
    }
    disk->copy_watch = 0; /* until it has ended well */
    sim_target_describe(description, "target", &op->target, below);
}

/* What a job that is resumed has to have in common with what it was. */
static void choose_form(struct sim_op *op, json_t *description)
{
    if ((op->target.format->flags & SIM_FORMAT_COMPRESS) != 0 && ash_prng_chance(op->prng, 250)) {
        json_object_set_new(description, "compress", json_true());
    }
    if (ash_prng_chance(op->prng, 300)) {
        json_object_set_new(description, "min-cluster-size",
                            json_integer(4096 << sim_below(op->prng, 6)));
    }
}

static void describe(struct sim_op *op, struct ash_node *top, json_t *description)
{
    static const char *const policies[] = {"report", "report", "ignore", "stop", "enospc", NULL};
    struct sim_disk *disk = op->disk;
    op->longer = true;
    if (!op->resumes) {
        choose_target(op, top, description);
        choose_form(op, description);
        sim_resume_choose(op, description);
    }
    sim_job_choose(op, description, "on-source-error", policies);
    sim_job_choose(op, description, "on-target-error", policies);
    if (ash_prng_chance(op->prng, 400)) {
        json_object_set_new(description, "on-cbw-error", json_string("break-guest-write"));
    }
    if (ash_prng_chance(op->prng, 300)) {
        json_object_set_new(description, "cbw-timeout", json_integer(1));
    }
    op->timed = json_object_get(description, "cbw-timeout") != NULL;
    op->hurries = op->timed && json_object_get(description, "on-cbw-error") != NULL;
    /* Together with sync=none nothing would get to the target, and what the fleecing image has is
     * not there when a job is resumed. */
    if (disk->fleece.format && !op->endless && op->state[0] == '\0' &&
        ash_prng_chance(op->prng, 500)) {
        sim_target_describe(description, "fleecing", &disk->fleece, NULL);
    }
    if (ash_prng_chance(op->prng, 300)) {
        json_object_set_new(description, "use-copy-range", json_true());
    }
}

/* --- how it ended --- */

/* Marks that were there at the moment may be gone. */
static void settle_bitmap(struct sim_op *op, int ret)
{
    struct sim_disk *disk = op->disk;
    struct sim_bitmap *bitmap = sim_bitmap_find(disk, op->bitmap);
    bool forgets = ret == 0 ? op->mode != NEVER : op->mode == ALWAYS;
    if (bitmap && op->started && forgets) {
        sim_bitmap_restart(disk, bitmap, &disk->changes);
    }
}

ASH_CO_FN static void end(struct sim_op *op, int ret)
{
    struct sim_disk *disk = op->disk;
    const struct ash_node *top = sim_job_top(op);
    bool cancelled = op->endless && op->started && ret == -ECANCELED && !op->forced;
    if (op->endless && ret == 0) {
        sim_fail(op->run, "job", "a backup that has no end ended");
    }
    sim_await_closed(op, &op->target);
    if (disk->fleece.format) {
        sim_await_closed(op, &disk->fleece);
    }
    if (ret == 0 || cancelled) {
        sim_moment_compare(op, &op->target, op->overlay ? top->backing->child : NULL);
    }
    settle_bitmap(op, ret);
    /* A copy that was brought up to date in part lacks what the bitmap still marks; and so does one
     * that was just begun, if the bitmap was told what is there. */
    bool known = op->incremental || (op->started && op->bitmap && op->mode == ALWAYS);
    if (op->whole && op->watch != 0 && !op->forced && (ret == 0 || known)) {
        disk->copy = op->target;
        disk->copy_watch = op->watch;
    }
}

const struct sim_job sim_job_backup = {
    .type = "backup",
    .weight = 9,
    .legal = legal,
    .at_start = true,
    .describe = describe,
    .end = end,
};
