/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/bitmap.h"
#include <inttypes.h>
#include <stdio.h>
#include "block/bitmap/bitmap.h"
#include "block/graph/graft.h"
#include "tests/sim/step.h"

struct change {
    uint64_t offset;
    uint64_t bytes;
};

static struct ash_node *node_of(const struct sim_disk *disk)
{
    return ash_graft_mapped(ash_disk_node(disk->disk));
}

void sim_bitmaps_changed(struct sim_disk *disk, const struct model_op *op)
{
    for (uint32_t i = 0; i < SIM_BITMAPS_MAX; i++) {
        struct sim_bitmap *bitmap = &disk->bitmaps[i];
        uint64_t end = MIN(op->offset + op->bytes, disk->model.bytes);
        if (bitmap->id != 0 && bitmap->since < op->begin && op->offset < end) {
            struct change change = {op->offset, end - op->offset};
            g_array_append_val(bitmap->changes, change);
        }
    }
}

void sim_bitmaps_resized(struct sim_disk *disk)
{
    for (uint32_t i = 0; i < SIM_BITMAPS_MAX; i++) {
        struct sim_bitmap *bitmap = &disk->bitmaps[i];
        for (guint n = 0; bitmap->id != 0 && n < bitmap->changes->len; n++) {
            struct change *change = &g_array_index(bitmap->changes, struct change, n);
            uint64_t left = disk->model.bytes - MIN(change->offset, disk->model.bytes);
            change->bytes = MIN(change->bytes, left);
        }
    }
}

static void drop(struct sim_bitmap *bitmap)
{
    if (bitmap->id != 0) {
        g_array_free(bitmap->changes, TRUE);
        bitmap->id = 0;
    }
}

void sim_bitmaps_drop(struct sim_disk *disk)
{
    for (uint32_t i = 0; i < SIM_BITMAPS_MAX; i++) {
        drop(&disk->bitmaps[i]);
    }
    disk->copy_watch = 0;
}

static const struct sim_bitmap *find(const struct sim_disk *disk, uint64_t id)
{
    for (uint32_t i = 0; id != 0 && i < SIM_BITMAPS_MAX; i++) {
        if (disk->bitmaps[i].id == id) {
            return &disk->bitmaps[i];
        }
    }
    return NULL;
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

const struct sim_bitmap *sim_bitmap_of_copy(const struct sim_disk *disk)
{
    return find(disk, disk->copy_watch);
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

static void add(struct sim_op *op, struct sim_bitmap *bitmap)
{
    struct sim_disk *disk = op->disk;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_bitmap *made;
    uint64_t granularity = UINT64_C(512) << sim_below(op->prng, 9);
    bitmap->id = ++disk->bitmaps_ever;
    snprintf(bitmap->name, sizeof(bitmap->name), "b%" PRIu64, bitmap->id);
    if (ash_bitmap_new(node_of(disk), bitmap->name, granularity, &made, &error) < 0) {
        sim_fail(op->run, "bitmap", "disk %u: %s", disk->number, error.message);
    }
    bitmap->since = ++disk->model.tick;
    bitmap->changes = g_array_new(FALSE, FALSE, sizeof(struct change));
    sim_note(op->run, "        %s of %" PRIu64 " bytes", bitmap->name, granularity);
}

/* All that has been changed is marked. */
static void compare(const struct sim_disk *disk, const struct sim_bitmap *bitmap)
{
    const struct ash_bitmap *bits = of(disk, bitmap);
    for (guint n = 0; n < bitmap->changes->len; n++) {
        const struct change *change = &g_array_index(bitmap->changes, struct change, n);
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
        add(op, bitmap);
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
