/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Live snapshots: a disk, or two of them in one transaction, get an overlay. What the disks hold
 * stays what it is. The overlay is made by the action, or it is there already: as a file, or as a
 * node that is open. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "block/graph/graft.h"
#include "block/graph/open.h"
#include "block/image/image.h"
#include "tests/sim/bitmap.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"

/* While it happens it counts as a job of each of its disks. */
static const struct sim_job snapshot_job = {.type = "snapshot", .moves = true};

static bool may(const struct sim_disk *disk)
{
    return disk->disk && (disk->flags & ASH_NODE_WRITE) != 0 && !disk->job && !disk->resizing &&
           !disk->resuming && disk->layer_count < SIM_LAYERS_MAX && disk->model.bytes > 0 &&
           disk->model.bytes % 512 == 0;
}

bool sim_legal_snapshot(const struct sim_op *op)
{
    return may(op->disk);
}

/* --- one disk's --- */

struct overlay {
    struct sim_disk *disk;
    struct sim_layer layer;
    struct ash_node *node; /* that is open already; NULL */
    json_t *action;
};

static struct ash_node *top_of(const struct sim_disk *disk)
{
    return ash_graft_mapped(ash_disk_node(disk->disk));
}

static void choose(struct sim_op *op, struct overlay *overlay)
{
    struct sim_layer *layer = &overlay->layer;
    struct sim_disk *disk = overlay->disk;
    *layer = (struct sim_layer){.format = &sim_format_qcow2, .unit_bytes = 65536};
    snprintf(layer->file, sizeof(layer->file), "d%u.s%u", disk->number, disk->snapshots_ever++);
    layer->by_header = ash_prng_chance(op->prng, 500);
    layer->bytes = disk->model.bytes;
    overlay->action = json_pack("{s:s, s:s}", "type", "snapshot", "device", top_of(disk)->name);
}

/* Its file, as somebody else makes it. */
ASH_CO_FN static int create(struct sim_op *op, struct overlay *overlay)
{
    struct sim_layer *layer = &overlay->layer;
    const struct sim_layer *below = &overlay->disk->layers[0];
    layer->format->choose(layer, op->prng);
    layer->unnamed = !overlay->disk->streamed && ash_prng_chance(op->prng, 300);
    json_t *options = sim_options(layer->options);
    json_object_set_new(options, "preallocation", json_string("off"));
    if (!layer->unnamed) {
        json_object_set_new(options, "backing_file", json_string(below->file));
        json_object_set_new(options, "backing_fmt", json_string(below->format->name));
    }
    int ret = ash_image_create(op->run->loop, layer->file, "qcow2", layer->bytes, options, NULL);
    json_decref(options);
    return ret;
}

ASH_CO_FN static int open_node(struct sim_op *op, struct overlay *overlay)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = overlay->layer.format->describe(&overlay->layer);
    json_object_set_new(description, "backing", json_null());
    json_object_set_new(description, "node-name", json_string(overlay->layer.file));
    uint32_t flags = top_of(overlay->disk)->flags & (ASH_NODE_WRITE | ASH_NODE_DISCARD);
    int ret = ash_node_open(op->run->loop, description, flags, &overlay->node, &error);
    json_decref(description);
    return ret;
}

ASH_CO_FN static int prepare(struct sim_op *op, struct overlay *overlay)
{
    enum { MADE, EXISTING, OPEN, WAYS };
    int ret = 0;
    choose(op, overlay);
    uint64_t way = sim_below(op->prng, WAYS);
    if (way != MADE) {
        ret = create(op, overlay);
    }
    if (ret == 0 && way == OPEN) {
        ret = open_node(op, overlay);
        json_object_set_new(overlay->action, "overlay", json_string(overlay->layer.file));
    } else {
        json_object_set_new(overlay->action, "snapshot-file", json_string(overlay->layer.file));
        json_object_set_new(overlay->action, "mode",
                            json_string(way == MADE ? "absolute-paths" : "existing"));
    }
    return ret;
}

/* The disk has its overlay. The bitmaps stay with the image below. */
static void adopt(struct overlay *overlay)
{
    struct sim_disk *disk = overlay->disk;
    memmove(disk->layers + 1, disk->layers, disk->layer_count * sizeof(disk->layers[0]));
    disk->layers[0] = overlay->layer;
    disk->layers[1].leaky = true; /* whatever comes before it is closed */
    disk->layer_count++;
    disk->moved++;
    sim_bitmaps_drop(disk);
    sim_note(disk->run, "disk %u is in %s now", disk->number, overlay->layer.file);
}

/* --- one or two --- */

/* Another disk, which is held as the guest's own is; only if that takes no waiting, or they might
 * wait for one another. */
ASH_CO_FN static struct sim_disk *hold_other(struct sim_op *op)
{
    struct sim_run *run = op->run;
    struct sim_disk *other = &run->disks[sim_below(op->prng, run->disk_count)];
    bool free = other != op->disk && !other->use.writing && ash_list_empty(&other->use.waiting);
    if (!free || !may(other) || !ash_prng_chance(op->prng, 700)) {
        return NULL;
    }
    ash_co_rwlock_read(&other->use);
    return other;
}

ASH_CO_FN static int take(struct sim_op *op, struct overlay *overlays, uint32_t count)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *jobs[2] = {NULL};
    json_t *actions = json_array();
    int ret = 0;
    for (uint32_t i = 0; i < count && ret == 0; i++) {
        ret = prepare(op, &overlays[i]);
        json_array_append_new(actions, overlays[i].action);
    }
    if (ret == 0) {
        ret = ash_co_job_start_all(op->run->loop, actions, NULL, NULL, jobs, &error);
        sim_note(op->run, "        %s", error.message);
    }
    for (uint32_t i = 0; i < count && ret == 0; i++) {
        while (ash_job_state(jobs[i]) < ASH_JOB_CONCLUDED) {
            ash_co_sleep(op->run->latency_ns_max);
        }
        if (jobs[i]->ret < 0) {
            sim_fail(op->run, "job", "a snapshot that has begun ends with %d", jobs[i]->ret);
        }
        ash_job_unref(jobs[i]);
    }
    json_decref(actions);
    return ret;
}

int sim_run_snapshot(struct sim_op *op)
{
    struct overlay overlays[2] = {{.disk = op->disk}, {.disk = NULL}};
    struct sim_disk *other = hold_other(op);
    uint32_t count = other ? 2 : 1;
    overlays[1].disk = other;
    for (uint32_t i = 0; i < count; i++) {
        overlays[i].disk->job = &snapshot_job;
        overlays[i].disk->jobs_ever++;
    }
    int ret = take(op, overlays, count);
    for (uint32_t i = 0; i < count; i++) {
        if (overlays[i].node) {
            sim_expect(op->run, ash_node_unref(overlays[i].node), false, "closing an overlay");
        }
        if (ret == 0) {
            adopt(&overlays[i]);
        }
        overlays[i].disk->job = NULL;
    }
    op->mode = other && other->resizes_ever > 0; /* it may have got another length */
    if (other) {
        ash_co_rwlock_unlock(&other->use);
    }
    return ret;
}

/* The overlay and the image were not of the same length, or it was reopened meanwhile. */
bool sim_may_snapshot(const struct sim_op *op, int ret)
{
    bool resized = op->disk->resizes_ever != op->resizes_ever || op->disk->resizing || op->mode;
    bool reopened = op->disk->reopening || op->disk->verbs_ever != op->verbs_ever;
    return (ret == -EINVAL && resized) || (ret == -EACCES && reopened);
}
