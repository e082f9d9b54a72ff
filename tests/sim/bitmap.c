/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/bitmap.h"
#include <inttypes.h>
#include <stdio.h>
#include "block/bitmap/bitmap.h"
#include "block/graph/graft.h"
#include "tests/sim/step.h"

static struct ash_node *node_of(const struct sim_disk *disk)
{
    return ash_graft_mapped(ash_disk_node(disk->disk));
}

/* --- what guests have changed --- */

void sim_changes_begin(struct sim_changes *changes, struct model *model)
{
    changes->since = ++model->tick;
    changes->ranges = g_array_new(FALSE, FALSE, sizeof(struct model_range));
}

void sim_changes_end(struct sim_changes *changes)
{
    if (changes->ranges) {
        g_array_free(changes->ranges, TRUE);
        changes->ranges = NULL;
    }
}

static void note_change(struct sim_changes *changes, const struct model *model,
                        const struct model_op *op)
{
    uint64_t end = MIN(op->offset + op->bytes, model->bytes);
    if (changes->ranges && changes->since < op->begin && op->offset < end) {
        struct model_range range = {op->offset, end - op->offset};
        g_array_append_val(changes->ranges, range);
    }
}

static void cut_changes(const struct sim_changes *changes, uint64_t bytes)
{
    for (guint n = 0; changes->ranges && n < changes->ranges->len; n++) {
        struct model_range *range = &g_array_index(changes->ranges, struct model_range, n);
        range->bytes = MIN(range->bytes, bytes - MIN(range->offset, bytes));
    }
}

void sim_bitmaps_changed(struct sim_disk *disk, const struct model_op *op)
{
    note_change(&disk->changes, &disk->model, op);
    for (uint32_t i = 0; i < SIM_BITMAPS_MAX; i++) {
        note_change(&disk->bitmaps[i].changes, &disk->model, op);
    }
}

void sim_bitmaps_resized(struct sim_disk *disk)
{
    for (uint32_t i = 0; i < SIM_BITMAPS_MAX; i++) {
        cut_changes(&disk->bitmaps[i].changes, disk->model.bytes);
    }
}

/* --- the bitmaps --- */

static void drop(struct sim_bitmap *bitmap)
{
    sim_changes_end(&bitmap->changes);
    bitmap->id = 0;
}

void sim_bitmaps_drop(struct sim_disk *disk)
{
    for (uint32_t i = 0; i < SIM_BITMAPS_MAX; i++) {
        drop(&disk->bitmaps[i]);
    }
    disk->copy_watch = 0;
}

struct sim_bitmap *sim_bitmap_find(struct sim_disk *disk, uint64_t id)
{
    for (uint32_t i = 0; id != 0 && i < SIM_BITMAPS_MAX; i++) {
        if (disk->bitmaps[i].id == id) {
            return &disk->bitmaps[i];
        }
    }
    return NULL;
}

struct sim_bitmap *sim_bitmap_new(struct sim_disk *disk)
{
    for (uint32_t i = 0; i < SIM_BITMAPS_MAX; i++) {
        struct sim_bitmap *bitmap = &disk->bitmaps[i];
        if (bitmap->id == 0) {
            bitmap->id = ++disk->bitmaps_ever;
            snprintf(bitmap->name, sizeof(bitmap->name), "b%" PRIu64, bitmap->id);
            return bitmap;
        }
    }
    return NULL;
}

void sim_bitmap_begin(struct sim_disk *disk, struct sim_bitmap *bitmap, bool good)
{
    if (good) {
        sim_changes_end(&bitmap->changes);
        sim_changes_begin(&bitmap->changes, &disk->model);
        return;
    }
    if (ash_bitmap_find(node_of(disk), bitmap->name) != NULL) {
        sim_fail(disk->run, "bitmap", "%s was added by what did not begin", bitmap->name);
    }
    drop(bitmap);
}

void sim_bitmap_restart(const struct sim_disk *disk, struct sim_bitmap *bitmap,
                        const struct sim_changes *changes)
{
    g_array_set_size(bitmap->changes.ranges, 0);
    g_array_append_vals(bitmap->changes.ranges, changes->ranges->data, changes->ranges->len);
    bitmap->changes.since = changes->since;
    cut_changes(&bitmap->changes, disk->model.bytes);
}

uint64_t sim_bitmap_any(const struct sim_disk *disk)
{
    for (uint32_t i = 0; i < SIM_BITMAPS_MAX; i++) {
        if (disk->bitmaps[i].id != 0) {
            return disk->bitmaps[i].id;
        }
    }
    return 0;
}

const struct sim_bitmap *sim_bitmap_of_copy(struct sim_disk *disk)
{
    return sim_bitmap_find(disk, disk->copy_watch);
}

/* --- the step --- */

static struct ash_bitmap *of(const struct sim_disk *disk, const struct sim_bitmap *bitmap)
{
    struct ash_bitmap *found = ash_bitmap_find(node_of(disk), bitmap->name);
    if (found == NULL) {
        sim_fail(disk->run, "bitmap", "disk %u has lost bitmap %s", disk->number, bitmap->name);
    }
    return found;
}

static void add(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_bitmap *made;
    struct sim_bitmap *bitmap = sim_bitmap_new(disk);
    uint64_t granularity = UINT64_C(512) << sim_below(op->prng, 9);
    if (ash_bitmap_new(node_of(disk), bitmap->name, granularity, &made, &error) < 0) {
        sim_fail(op->run, "bitmap", "disk %u: %s", disk->number, error.message);
    }
    sim_bitmap_begin(disk, bitmap, true);
    sim_note(op->run, "        %s of %" PRIu64 " bytes", bitmap->name, granularity);
}

/* All that has been changed is marked. */
static void compare(const struct sim_disk *disk, const struct sim_bitmap *bitmap)
{
    const struct ash_bitmap *bits = of(disk, bitmap);
    for (guint n = 0; n < bitmap->changes.ranges->len; n++) {
        const struct model_range *change =
            &g_array_index(bitmap->changes.ranges, struct model_range, n);
        uint64_t marked = ash_bitmap_dirty_bytes_in(bits, change->offset, change->bytes);
        if (marked != change->bytes) {
            sim_fail(disk->run, "bitmap",
                     "disk %u: of 0x%" PRIx64 "+0x%" PRIx64
                     ", which were changed, %s marks %" PRIu64,
                     disk->number, change->offset, change->bytes, bitmap->name, marked);
        }
    }
}

/* Not while the disk gets another length, and not while a job may lead it to another node. */
bool sim_legal_bitmap(const struct sim_op *op)
{
    return !op->disk->resizing && !op->disk->job;
}

int sim_run_bitmap(struct sim_op *op)
{
    struct sim_bitmap *bitmap = &op->disk->bitmaps[sim_below(op->prng, SIM_BITMAPS_MAX)];
    if (bitmap->id == 0) {
        add(op);
    } else {
        compare(op->disk, bitmap);
        if (ash_prng_chance(op->prng, 200)) {
            ash_bitmap_free(of(op->disk, bitmap));
            drop(bitmap);
        }
    }
    return 0;
}

void sim_bitmaps_compare(const struct sim_disk *disk)
{
    for (uint32_t i = 0; i < SIM_BITMAPS_MAX; i++) {
        if (disk->bitmaps[i].id != 0) {
            compare(disk, &disk->bitmaps[i]);
        }
    }
}
