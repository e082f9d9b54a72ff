/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Targets of jobs, and what a copy has to hold.
 *
 * A copy of a moment is a read: it may hold what a reader may have found who began before that
 * moment and ended after it. Where the disk had different lengths meanwhile, only what it held is
 * not compared. */
#include <inttypes.h>
#include <stdio.h>
#include "block/driver.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"

static void choose(struct sim_disk *disk, uint32_t index)
{
    struct ash_prng prng = sim_draw(disk->run, "target", disk->number, index, 0);
    struct sim_layer *target = &disk->targets[index];
    bool any = disk->layers[0].format != &sim_format_raw; /* whose length can be odd */
    *target = (struct sim_layer){.unit_bytes = 4096, .bytes = 4096};
    snprintf(target->file, sizeof(target->file), "d%u.t%u", disk->number, index);
    target->format = any ? sim_format_choose(&prng, 0) : &sim_format_raw;
    target->format->choose(target, &prng);
    target->bytes = MIN(target->unit_bytes, disk->layers[0].bytes / 512 * 512);
    target->offset = 0;
    target->window = false;
    target->odd = target->format == &sim_format_raw;
    target->leaky = true; /* whatever happens to it until it is used */
}

void sim_targets_create(struct sim_disk *disk)
{
    struct ash_prng prng = sim_draw(disk->run, "targets", disk->number, 0, 0);
    uint32_t count = (uint32_t)sim_below(&prng, SIM_TARGETS_MAX + 1);
    for (uint32_t index = 0; index < count; index++) {
        struct sim_layer *target = &disk->targets[index];
        choose(disk, index);
        if (target->bytes == 0 || !sim_wants(disk->run, "target.%u.%u", disk->number, index)) {
            break;
        }
        sim_note(disk->run, "disk %u target %u: %s %s, %" PRIu64 " bytes", disk->number, index,
                 target->format->name, target->options, target->bytes);
        target->format->create(disk, target, NULL);
        disk->target_count++;
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

static void end(struct sim_op *op, const uint8_t *bytes)
{
    const char *wrong = model_read_end(&op->disk->model, &op->moment, bytes);
    op->moment_began = false;
    if (wrong) {
        sim_fail(op->run, "copy", "disk %u, copied to %s: %s", op->disk->number, op->target.file,
                 wrong);
    }
}

void sim_moment_end(struct sim_op *op, bool good)
{
    end(op, NULL);
    model_flush_end(&op->disk->model, &op->moment_flush, good);
}

/* --- a copy --- */

static void report(struct ash_check *check, const char *sentence)
{
    sim_fail(check->opaque, "copy", "%s", sentence);
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
    check.report = op->run->faulty ? NULL : report;
    int ret = node->driver->check(node, &check, &error);
    expect(op, ret, "checking", error.message);
    if (ret == 0 && check.corruptions > 0) {
        sim_fail(op->run, "copy", "%s has %" PRIu64 " corruptions", copy->file, check.corruptions);
    }
}

ASH_CO_FN static void compare(struct sim_op *op, struct ash_disk *disk)
{
    uint64_t bytes = ash_disk_bytes(disk);
    uint64_t expected = op->moment.bytes;
    if (op->moment_resizes != op->disk->resizes_ever || op->disk->resizing) {
        end(op, NULL);
        return;
    }
    if (bytes != expected) {
        sim_fail(op->run, "copy", "%s is %" PRIu64 " bytes long, and what it is a copy of %" PRIu64,
                 op->target.file, bytes, expected);
    }
    uint8_t *buffer = g_malloc(bytes + 1);
    int ret = ash_disk_read(disk, 0, buffer, bytes);
    expect(op, ret, "reading", "");
    end(op, ret == 0 ? buffer : NULL);
    g_free(buffer);
}

void sim_moment_compare(struct sim_op *op, const struct sim_layer *copy)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk;
    json_t *description = copy->format->describe(copy);
    int ret = ash_co_disk_open(op->run->loop, description, 0, &disk, &error);
    json_decref(description);
    expect(op, ret, "opening", error.message);
    if (ret < 0) {
        end(op, NULL);
        return;
    }
    compare(op, disk);
    check(op, disk, copy);
    expect(op, ash_co_disk_close(disk, &error), "closing", error.message);
}
