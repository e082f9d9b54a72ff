/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Targets of jobs, and what a copy has to hold.
 *
 * A copy of a moment is a read: it may hold what a reader may have found who began before that
 * moment and ended after it. This is kept until the copy can be looked at. Where the disk had
 * different lengths meanwhile it is not compared. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "block/driver.h"
#include "block/graph/block.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"

/* --- the images --- */

static void choose(struct sim_disk *disk, struct sim_layer *target, const char *kind,
                   uint32_t index)
{
    struct ash_prng prng = sim_draw(disk->run, kind, disk->number, index, 0);
    bool any = disk->layers[0].format != &sim_format_raw; /* whose length can be odd */
    *target = (struct sim_layer){.unit_bytes = 4096, .bytes = 4096};
    snprintf(target->file, sizeof(target->file), "d%u.%c%u", disk->number, kind[0], index);
    target->format = any ? sim_format_choose(&prng, 0) : &sim_format_raw;
    target->format->choose(target, &prng);
    target->bytes = MIN(target->unit_bytes, disk->layers[0].bytes / 512 * 512);
    target->offset = 0;
    target->window = false;
    target->odd = target->format == &sim_format_raw;
    target->unnamed = true;
    target->leaky = true; /* whatever happens to it until it is used */
}

ASH_CO_FN static bool create(struct sim_disk *disk, struct sim_layer *target, const char *kind,
                             uint32_t index)
{
    choose(disk, target, kind, index);
    if (target->bytes == 0 || !sim_wants(disk->run, "%s.%u.%u", kind, disk->number, index)) {
        target->format = NULL;
        return false;
    }
    sim_note(disk->run, "disk %u %s %u: %s %s, %" PRIu64 " bytes", disk->number, kind, index,
             target->format->name, target->options, target->bytes);
    target->format->create(disk, target, NULL);
    return true;
}

void sim_targets_create(struct sim_disk *disk)
{
    struct ash_prng prng = sim_draw(disk->run, "targets", disk->number, 0, 0);
    uint32_t count = (uint32_t)sim_below(&prng, SIM_TARGETS_MAX + 1);
    while (disk->target_count < count &&
           create(disk, &disk->targets[disk->target_count], "target", disk->target_count)) {
        disk->target_count++;
    }
    if (ash_prng_chance(&prng, 400)) {
        create(disk, &disk->fleece, "fleece", 0);
    }
}

bool sim_target_fits(const struct sim_disk *disk)
{
    return disk->targets_used < disk->target_count;
}

bool sim_target_stands(const struct sim_layer *target)
{
    return (target->format->flags & SIM_FORMAT_BACKING) != 0 &&
           strstr(target->options, "preallocation=off") != NULL;
}

void sim_target_describe(json_t *description, const char *member, const struct sim_layer *layer,
                         const struct ash_node *below)
{
    json_t *own = layer->format->describe(layer);
    if (below) {
        json_object_set_new(own, "backing", json_string(below->name));
    }
    char *text = json_dumps(own, JSON_COMPACT);
    json_object_set_new(description, member, json_sprintf("json:%s", text));
    free(text);
    json_decref(own);
}

int sim_image_fit(struct sim_op *op, const struct sim_layer *layer)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *image;
    json_t *description = layer->format->describe(layer);
    int ret = ash_co_disk_open(op->run->loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD,
                               &image, &error);
    json_decref(description);
    if (ret < 0) {
        return ret;
    }
    uint64_t bytes = op->disk->model.bytes;
    if (ash_disk_bytes(image) < bytes) {
        ret = ash_co_disk_resize(image, bytes, 0, ASH_PREALLOC_OFF, &error);
    }
    int closed = ash_co_disk_close(image, &error);
    return ret < 0 ? ret : closed;
}

static bool is_open(struct sim_run *run, const char *file)
{
    ash_list_for_each (node, &ash_block_of(run->loop)->nodes, struct ash_node, nodes_link) {
        if (strcmp(node->filename, file) == 0) {
            return true;
        }
    }
    return false;
}

void sim_await_closed(struct sim_op *op, const struct sim_layer *layer)
{
    while (is_open(op->run, layer->file)) {
        ash_co_sleep(100000 + 4 * op->run->latency_ns_max);
    }
}

/* --- the moment --- */

void sim_moment_begin(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    op->moment_began = true;
    op->moment_resizes = disk->resizing ? UINT32_MAX : disk->resizes_ever;
    model_read_begin(&disk->model, &op->moment, 0, disk->model.bytes);
    model_flush_begin(&disk->model, &op->moment_flush);
}

void sim_moment_end(struct sim_op *op, bool flushed)
{
    bool known = op->moment_resizes == op->disk->resizes_ever && !op->disk->resizing;
    op->moment_began = false;
    op->image = model_image_take(&op->disk->model, &op->moment);
    model_flush_end(&op->disk->model, &op->moment_flush, flushed);
    if (!known) {
        model_image_free(op->image);
        op->image = NULL;
    }
}

void sim_moment_limit(struct sim_op *op, const struct sim_changes *changes)
{
    const GArray *ranges = changes ? changes->ranges : op->disk->changes.ranges;
    op->exact = op->exact ? op->exact : g_array_new(FALSE, FALSE, sizeof(struct model_range));
    g_array_set_size(op->exact, 0);
    g_array_append_vals(op->exact, ranges->data, ranges->len);
}

/* --- a copy --- */

static void report(struct ash_check *check, const char *sentence)
{
    struct sim_run *run = check->opaque;
    if (!ash_sim_power_is_cut(run->world)) { /* what cannot be read then is no finding */
        sim_fail(run, "copy", "%s", sentence);
    }
}

/* What may go wrong with it besides is as bad as on any other disk. */
static void expect(struct sim_op *op, int ret, const char *what, const char *why)
{
    sim_note(op->run, "        %s the copy ended with %d: %s", what, ret, why);
    sim_expect(op->run, ret, false, what);
}

ASH_CO_FN static void check(struct sim_op *op, struct ash_disk *disk, const struct sim_layer *copy)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_node *node = ash_disk_node(disk);
    struct ash_check check = {.opaque = op->run};
    if (node->driver->check == NULL ||
        (copy->format->dirty && copy->format->dirty(op->run, copy))) {
        return;
    }
    bool leaks = op->run->faulty || op->resumes; /* a cut may leave some */
    check.report = leaks ? NULL : report;
    int ret = node->driver->check(node, &check, &error);
    expect(op, ret, "checking", error.message);
    if (ret == 0 && check.corruptions > 0) {
        sim_fail(op->run, "copy", "%s has %" PRIu64 " corruptions", copy->file, check.corruptions);
    }
}

ASH_CO_FN static void compare(struct sim_op *op, struct ash_disk *disk)
{
    uint64_t bytes = ash_disk_bytes(disk);
    uint64_t expected = model_image_bytes(op->image);
    if (bytes < expected || (bytes > expected && !op->longer)) {
        sim_fail(op->run, "copy", "%s is %" PRIu64 " bytes long, and what it is a copy of %" PRIu64,
                 op->target.file, bytes, expected);
    }
    uint8_t *buffer = g_malloc(expected + 1);
    int ret = ash_disk_read(disk, 0, buffer, expected);
    expect(op, ret, "reading", "");
    const char *wrong = NULL;
    if (ret == 0) {
        wrong = model_image_compare(op->image, &op->disk->model, 0, buffer, expected, op->exact);
    }
    if (wrong) {
        sim_fail(op->run, "copy", "disk %u, copied to %s: %s", op->disk->number, op->target.file,
                 wrong);
    }
    g_free(buffer);
}

void sim_moment_compare(struct sim_op *op, const struct sim_layer *copy,
                        const struct ash_node *below)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk;
    json_t *description = copy->format->describe(copy);
    if (op->moment_began) {
        sim_moment_end(op, false);
    }
    if (below) {
        json_object_set_new(description, "backing", json_string(below->name));
    }
    int ret = ash_co_disk_open(op->run->loop, description, 0, &disk, &error);
    json_decref(description);
    expect(op, ret, "opening", error.message);
    if (ret < 0) {
        return;
    }
    if (op->image) {
        compare(op, disk);
    }
    check(op, disk, copy);
    expect(op, ash_co_disk_close(disk, &error), "closing", error.message);
}
