/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The disks: chains of images, how they come about, opening and closing.
 *
 * Images are made from the bottom up, and each gets something to hold before the next stands on it,
 * through the library and without faults: what the layers hide of one another is part of the
 * model's beginning. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "tests/sim/bitmap.h"
#include "tests/sim/fault.h"
#include "tests/sim/filter.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"
#include "tests/sim/stamp.h"

/* --- choosing --- */

static uint64_t choose_bytes(const struct sim_layer *layer, struct ash_prng *prng)
{
    uint64_t unit = MIN(layer->unit_bytes, 1u << 16);
    uint64_t units = 1 + sim_below(prng, unit < 8192 ? 40 : 6);
    uint64_t bytes = units * MAX(unit, 1024);
    if (ash_prng_chance(prng, 500)) { /* the last one is not complete */
        bytes -= sim_below(prng, unit / 512) * 512;
    }
    return bytes;
}

/* What a job notes at a time in its state file is 1 MiB. */
enum { MIB = 1 << 20, SMALL_UNIT = 4096 };

static void choose_layer(struct sim_disk *disk, uint32_t index, bool last, struct ash_prng *prng)
{
    struct sim_layer *layer = &disk->layers[index];
    uint32_t flags = last ? 0 : SIM_FORMAT_BACKING;
    memset(layer, 0, sizeof(*layer));
    snprintf(layer->file, sizeof(layer->file), "d%u.%u", disk->number, index);
    layer->format = sim_format_choose(prng, flags);
    layer->unnamed = ash_prng_chance(prng, 300);
    layer->by_header = ash_prng_chance(prng, 500);
    layer->unit_bytes = 4096;
    layer->bytes = choose_bytes(layer, prng);
    layer->format->choose(layer, prng);
    if (layer->unit_bytes != 512) {
        layer->bytes = choose_bytes(layer, prng);
    }
    if (disk->is_long && (layer->unit_bytes >= SMALL_UNIT || layer->format == &sim_format_raw)) {
        layer->bytes += sim_below(prng, 4) * MIB;
    }
}

static uint32_t choose_depth(struct ash_prng *prng)
{
    uint32_t depth = 1;
    while (depth < SIM_LAYERS_MAX && ash_prng_chance(prng, 450)) {
        depth++;
    }
    return depth;
}

void sim_disk_choose(struct sim_disk *disk)
{
    struct ash_prng prng = sim_draw(disk->run, "disk", disk->number, 0, 0);
    uint32_t depth = choose_depth(&prng);
    disk->is_long =
        depth > 1 && ash_prng_chance(&prng, 60) && sim_wants(disk->run, "long.%u", disk->number);
    uint64_t most = 0;
    uint32_t tear_bytes = 512;
    for (uint32_t index = 0; index < depth; index++) {
        struct ash_prng own = sim_draw(disk->run, "layer", disk->number, index, 0);
        bool last = index + 1 == depth;
        if (!last && !sim_wants(disk->run, "layer.%u.%u", disk->number, index)) {
            continue;
        }
        choose_layer(disk, disk->layer_count, last, &own);
        const struct sim_layer *layer = &disk->layers[disk->layer_count++];
        most = MAX(most, layer->bytes);
        tear_bytes = layer->offset % 512 != 0 ? 1 : tear_bytes;
    }
    const struct sim_layer *bottom = &disk->layers[disk->layer_count - 1];
    model_init(&disk->model, bottom->bytes, most + most / 2 + 512, tear_bytes);
    for (uint32_t i = 0; i < SIM_SPOTS; i++) {
        disk->spots[i] = sim_below(&prng, disk->layers[0].bytes);
    }
}

/* --- making --- */

/* Whether the header of a layer tells what it stands on. */
static bool tells(const struct sim_disk *disk, uint32_t index)
{
    return !disk->layers[index].unnamed && disk->layers[index + 1].offset == 0;
}

bool sim_disk_told_by_headers(const struct sim_disk *disk)
{
    bool told = true;
    for (uint32_t index = 0; index + 1 < disk->layer_count; index++) {
        told &= tells(disk, index);
    }
    return told;
}

/* From a layer down. What the headers tell completely may be left to them. */
static json_t *describe(const struct sim_disk *disk, uint32_t first)
{
    json_t *below = json_null();
    bool told = true; /* the headers from here on down tell it all */
    if (disk->streamed && first == 0) {
        return disk->layers[0].format->describe(&disk->layers[0]);
    }
    for (uint32_t index = disk->layer_count; index-- > first;) {
        const struct sim_layer *layer = &disk->layers[index];
        json_t *own = layer->format->describe(layer);
        bool bottom = index + 1 == disk->layer_count;
        told = bottom || (told && tells(disk, index));
        if ((layer->format->flags & SIM_FORMAT_BACKING) == 0 || (told && layer->by_header)) {
            json_decref(below);
        } else {
            json_object_set_new(own, "backing", below);
        }
        below = own;
    }
    return below;
}

ASH_CO_FN static void open_layer(struct sim_disk *disk, uint32_t index, struct ash_disk **opened)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = describe(disk, index);
    int ret = ash_co_disk_open(disk->run->loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD,
                               opened, &error);
    json_decref(description);
    if (ret < 0) {
        sim_fail(disk->run, "create", "%s cannot be opened: %s", disk->layers[index].file,
                 error.message);
    }
}

/* One request of the filling, alone. */
ASH_CO_FN static void fill_once(struct sim_disk *disk, struct ash_disk *layer,
                                struct ash_prng *prng)
{
    struct model_op op;
    uint64_t size = disk->model.bytes;
    uint64_t offset = sim_below(prng, size);
    uint64_t bytes = 1 + sim_below(prng, MIN(size - offset, 20000));
    bool zero = ash_prng_chance(prng, 150);
    uint64_t value = zero ? 0 : model_new_value(&disk->model);
    int ret;
    model_write_begin(&disk->model, &op, offset, bytes, value);
    if (zero) {
        ret = ash_disk_zero(layer, offset, bytes, ash_prng_chance(prng, 500) ? ASH_REQ_UNMAP : 0);
    } else {
        uint8_t *buffer = g_malloc(bytes);
        stamp_fill(value, offset, buffer, bytes);
        ret = ash_disk_write(layer, offset, buffer, bytes, 0);
        g_free(buffer);
    }
    if (ret < 0) {
        sim_fail(disk->run, "create", "filling failed with %d", ret);
    }
    model_write_end(&disk->model, &op, HISTORY_DONE, true);
}

ASH_CO_FN static void fill(struct sim_disk *disk, uint32_t index)
{
    struct ash_prng prng = sim_draw(disk->run, "fill", disk->number, index, 0);
    uint64_t count = sim_below(&prng, 4) * (disk->is_long ? 3 : 1);
    struct ash_disk *opened;
    struct ash_error error = ASH_ERROR_INIT;
    if (count == 0 || !sim_wants(disk->run, "fill.%u.%u", disk->number, index)) {
        return;
    }
    open_layer(disk, index, &opened);
    for (; count > 0; count--) {
        fill_once(disk, opened, &prng);
    }
    if (ash_co_disk_close(opened, &error) < 0) {
        sim_fail(disk->run, "create", "%s", error.message);
    }
}

void sim_disk_create(struct sim_disk *disk)
{
    for (uint32_t index = disk->layer_count; index-- > 0;) {
        struct sim_layer *layer = &disk->layers[index];
        bool bottom = index + 1 == disk->layer_count;
        sim_note(disk->run, "disk %u layer %u: %s %s, %" PRIu64 " bytes", disk->number, index,
                 layer->format->name, layer->options, layer->bytes);
        layer->format->create(disk, layer, bottom ? NULL : layer + 1);
        model_overlay(&disk->model, layer->bytes);
        fill(disk, index);
    }
    sim_targets_create(disk);
}

/* --- opening and closing --- */

/* Not where memory fails too: which of the library's own tables have to be copied for direct I/O
 * depends on where they lie, and so would which request gets no memory. */
bool sim_disk_may_be_direct(const struct sim_disk *disk)
{
    return !(disk->run->unsupported & ASH_SIM_NO_DIRECT) &&
           !sim_faults_have(disk->run, "no-memory");
}

int sim_disk_open(struct sim_disk *disk, uint32_t flags, struct ash_error *error)
{
    json_t *description = describe(disk, 0);
    if (disk->filtered) {
        description = sim_filters_add(disk, description);
    }
    if (disk->write_through) {
        json_object_set_new(description, "cache", json_pack("{s:b}", "writeback", 0));
    }
    int ret = ash_co_disk_open(disk->run->loop, description, flags, &disk->disk, error);
    json_decref(description);
    if (ret < 0) {
        disk->disk = NULL;
        return ret;
    }
    disk->flags = flags;
    disk->verbs = 0;
    return 0;
}

int sim_disk_close(struct sim_disk *disk, struct ash_error *error)
{
    struct model_op op;
    bool wrote = (disk->flags & ASH_NODE_WRITE) != 0;
    sim_bitmaps_compare(disk);
    sim_bitmaps_drop(disk);
    model_flush_begin(&disk->model, &op);
    int ret = ash_co_disk_close(disk->disk, error);
    disk->disk = NULL;
    sim_note(disk->run, "disk %u: closing ended with %d", disk->number, ret);
    model_flush_end(&disk->model, &op, ret == 0 && wrote);
    disk->unsettled |= ret < 0;
    return ret;
}
