/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* raw: a file, or a window in one. What lies around the window must stay as it is. */
#include <inttypes.h>
#include <stdio.h>
#include "tests/sim/format.h"
#include "tests/sim/stamp.h"

enum { MARGIN_VALUE = 1 << 20, AFTER_BYTES = 700 }; /* what lies around a window */
enum { BLOCK_BYTES = 4096 };                        /* of direct I/O, at most */

/* So many bytes that the file ends with a block. */
static uint64_t whole_blocks(const struct sim_layer *layer, uint64_t bytes)
{
    return (layer->offset + bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES - layer->offset;
}

static void choose(struct sim_layer *layer, struct ash_prng *prng)
{
    static const uint64_t offsets[] = {0, 0, 0, 512, 4096, 65536, 1000};
    layer->unit_bytes = 512;
    layer->offset = offsets[sim_below(prng, G_N_ELEMENTS(offsets))];
    layer->window = layer->offset > 0 && ash_prng_chance(prng, 700);
    layer->odd = ash_prng_chance(prng, 400);
    if (layer->odd) {
        layer->bytes += ash_prng_chance(prng, 500) ? 0 : sim_below(prng, 512);
    } else {
        layer->bytes = whole_blocks(layer, layer->bytes);
    }
    snprintf(layer->options, sizeof(layer->options), "offset=%" PRIu64 ",size=%" PRIu64,
             layer->offset, layer->window ? layer->bytes : 0);
}

ASH_CO_FN static void create(struct sim_disk *disk, struct sim_layer *layer,
                             const struct sim_layer *below)
{
    uint64_t after = layer->window ? AFTER_BYTES : 0;
    uint64_t bytes = layer->offset + layer->bytes + after;
    uint8_t *margin = g_malloc(MAX(layer->offset, after) + 1);
    (void)below;
    ash_sim_file_write(disk->run->world, layer->file, bytes - 1, "", 1);
    stamp_fill(MARGIN_VALUE, 0, margin, layer->offset);
    ash_sim_file_write(disk->run->world, layer->file, 0, margin, layer->offset);
    stamp_fill(MARGIN_VALUE, 0, margin, after);
    ash_sim_file_write(disk->run->world, layer->file, layer->offset + layer->bytes, margin, after);
    g_free(margin);
}

static json_t *describe(const struct sim_layer *layer)
{
    json_t *description =
        json_pack("{s:s, s:I, s:{s:s, s:s}}", "driver", "raw", "offset", (json_int_t)layer->offset,
                  "file", "driver", "file", "filename", layer->file);
    if (layer->window) { /* without a size it goes on to the end */
        json_object_set_new(description, "size", json_integer((json_int_t)layer->bytes));
    }
    return description;
}

static bool may_resize(const struct sim_disk *disk, const struct sim_layer *layer, uint64_t bytes)
{
    (void)disk;
    return !layer->window && (layer->odd || bytes == whole_blocks(layer, bytes));
}

static void expect_margin(struct sim_run *run, const struct sim_layer *layer, uint64_t offset,
                          uint64_t bytes)
{
    uint8_t *margin = g_malloc(bytes + 1);
    if (ash_sim_file_read(run->world, layer->file, offset, margin, bytes) < 0) {
        sim_fail(run, "window", "%s became shorter than its window", layer->file);
    }
    uint64_t same = stamp_match(MARGIN_VALUE, 0, margin, bytes);
    if (same < bytes) {
        sim_fail(run, "window", "%s was changed at %" PRIu64 ", outside of its window", layer->file,
                 offset + same);
    }
    g_free(margin);
}

static void audit(struct sim_run *run, const struct sim_layer *layer, bool clean)
{
    (void)clean;
    expect_margin(run, layer, 0, layer->offset);
    if (layer->window) {
        expect_margin(run, layer, layer->offset + layer->bytes, AFTER_BYTES);
    }
}

const struct sim_format sim_format_raw = {
    .name = "raw",
    .weight = 1,
    .choose = choose,
    .create = create,
    .describe = describe,
    .may_resize = may_resize,
    .audit = audit,
};
