/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2, versions 2 and 3, with all options of creation. */
#include <stdio.h>
#include "block/image/image.h"
#include "tests/sim/format.h"

static uint32_t choose_unit(struct ash_prng *prng)
{
    static const uint8_t bits[] = {9, 9, 9, 10, 11, 12, 12, 12, 13, 14, 15, 16, 16, 16};
    return ash_prng_chance(prng, 4) ? 1u << 21 : 1u << bits[sim_below(prng, sizeof(bits))];
}

static void choose(struct sim_layer *layer, struct ash_prng *prng)
{
    static const char *const preallocations[] = {"off",      "off",    "off", "off",
                                                 "metadata", "falloc", "full"};
    static const char *const widths[] = {"16", "16", "16", "1", "2", "4", "8", "32", "64"};
    layer->unit_bytes = choose_unit(prng);
    layer->old_version = ash_prng_chance(prng, 200);
    const char *preallocation = preallocations[sim_below(prng, G_N_ELEMENTS(preallocations))];
    if (layer->unit_bytes > 65536) {
        preallocation = "off";
    }
    int used = snprintf(layer->options, sizeof(layer->options), "cluster_size=%u,preallocation=%s",
                        layer->unit_bytes, preallocation);
    if (layer->old_version) {
        g_strlcat(layer->options, ",compat=0.10", sizeof(layer->options));
        return;
    }
    layer->lazy = ash_prng_chance(prng, 300);
    const char *width = widths[sim_below(prng, G_N_ELEMENTS(widths))];
    const char *compression = ash_prng_chance(prng, 500) ? "zstd" : "zlib";
    snprintf(layer->options + used, sizeof(layer->options) - (size_t)used,
             ",refcount_bits=%s,lazy_refcounts=%s,compression_type=%s", width,
             layer->lazy ? "on" : "off", compression);
}

ASH_CO_FN static void create(struct sim_disk *disk, struct sim_layer *layer,
                             const struct sim_layer *below)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *options = sim_options(layer->options);
    if (below) { /* it would hide what is below */
        json_object_set_new(options, "preallocation", json_string("off"));
    }
    if (below && !layer->unnamed) {
        json_object_set_new(options, "backing_file", json_string(below->file));
        json_object_set_new(options, "backing_fmt", json_string(below->format->name));
    }
    int ret =
        ash_image_create(disk->run->loop, layer->file, "qcow2", layer->bytes, options, &error);
    json_decref(options);
    if (ret < 0) {
        sim_fail(disk->run, "create", "%s", error.message);
    }
}

static json_t *describe(const struct sim_layer *layer)
{
    return json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver", "file", "filename",
                     layer->file);
}

static bool may_resize(const struct sim_disk *disk, const struct sim_layer *layer, uint64_t bytes)
{
    (void)disk;
    (void)layer;
    return bytes % 512 == 0;
}

static bool dirty(struct sim_run *run, const struct sim_layer *layer)
{
    uint8_t head[80] = {0};
    ash_sim_file_read(run->world, layer->file, 0, head, sizeof(head));
    return !layer->old_version && (head[79] & 1);
}

static void audit(struct sim_run *run, const struct sim_layer *layer, bool clean)
{
    if (dirty(run, layer) && (clean || !layer->lazy)) {
        sim_fail(run, "dirty", "the dirty bit of %s is set", layer->file);
    }
}

const struct sim_format sim_format_qcow2 = {
    .name = "qcow2",
    .weight = 4,
    .flags = SIM_FORMAT_BACKING | SIM_FORMAT_COMPRESS | SIM_FORMAT_CHECK,
    .choose = choose,
    .create = create,
    .describe = describe,
    .may_resize = may_resize,
    .dirty = dirty,
    .audit = audit,
};
