/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/crash/run.h"
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "block/graph/open.h"
#include "block/image/image.h"

/* 42 configurations: version 2 in 6, version 3 in 36. */
void run_choose(struct run *run, uint64_t seed)
{
    static const char *const sizes[] = {"512", "4k", "64k"};
    static const uint32_t units[] = {1, 8, 128};
    static const char *const widths[] = {"16", "1", "64"};
    uint32_t n = (uint32_t)(seed * 11 % RUN_CONFIGURATIONS); /* neighbours differ */
    uint32_t size = n % 3;
    run->seed = seed;
    run->unit = units[size];
    run->backing = n / 3 % 2;
    run->v2 = n < 6;
    run->lazy = !run->v2 && (n / 6 - 1) % 2;
    if (run->v2) {
        snprintf(run->options, sizeof(run->options), "compat=0.10,cluster_size=%s", sizes[size]);
    } else {
        snprintf(run->options, sizeof(run->options),
                 "cluster_size=%s,refcount_bits=%s,lazy_refcounts=%s", sizes[size],
                 widths[(n / 6 - 1) / 2], run->lazy ? "on" : "off");
    }
    if (run->backing) {
        g_strlcat(run->options, ",backing_file=base,backing_fmt=raw", sizeof(run->options));
    }
    ash_prng_seed(&run->prng, seed);
    run->file_unit = ash_prng_below(&run->prng, 2) ? 512 : 4096;
}

static json_t *options_of(const char *text)
{
    json_t *object = json_object();
    char **pairs = g_strsplit(text, ",", 0);
    for (char **pair = pairs; *pair; pair++) {
        char **two = g_strsplit(*pair, "=", 2);
        json_object_set_new(object, two[0], json_string(two[1]));
        g_strfreev(two);
    }
    g_strfreev(pairs);
    return object;
}

static int create(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    json_t *options = options_of(run->options);
    int ret = ash_image_create(run->loop, "image", "qcow2",
                               (uint64_t)run->model.sectors * MODEL_SECTOR, options, &error);
    json_decref(options);
    if (ret < 0) {
        run_fail(run, "cannot create the image: %s", error.message);
    }
    return ret;
}

static void make_base(struct run *run)
{
    uint8_t *bytes = g_malloc((size_t)run->base_sectors * MODEL_SECTOR);
    for (uint32_t i = 0; i < run->base_sectors; i++) {
        model_stamp(bytes + (size_t)i * MODEL_SECTOR, MODEL_BASE, i);
    }
    ash_sim_file_write(run->world, "base", 0, bytes, (size_t)run->base_sectors * MODEL_SECTOR);
    g_free(bytes);
}

void run_init(struct run *run, uint64_t seed)
{
    memset(run, 0, sizeof(*run));
    run_choose(run, seed);
    struct ash_sim_config config = {
        .seed = seed,
        .sector_bytes = run->file_unit,
        .latency_ns_min = 1000,
        .latency_ns_max = 100000,
    };
    run->world = ash_sim_world_new(&config);
    /* Enough for several tables of each kind with small clusters. */
    static const uint32_t sizes[] = {400, 1500, 5000};
    uint32_t sectors = run->unit == 128 ? 2048 : sizes[ash_prng_below(&run->prng, 3)];
    sectors += (uint32_t)ash_prng_below(&run->prng, 100);
    uint32_t most = sectors * 3 / 2;
    if (run->backing) {
        run->base_sectors = sectors / 2 + (uint32_t)ash_prng_below(&run->prng, sectors);
        run->base_sectors = MIN(run->base_sectors, most);
        make_base(run);
    }
    model_init(&run->model, sectors, most, run->base_sectors);
    for (uint32_t i = 0; i < G_N_ELEMENTS(run->spots); i++) {
        run->spots[i] = (uint32_t)ash_prng_below(&run->prng, sectors);
    }
    run_boot(run);
    run_call(run, create);
    run_halt(run);
}

void run_free(struct run *run)
{
    ash_sim_world_free(run->world);
    model_free(&run->model);
}

void run_boot(struct run *run)
{
    struct ash_engine_config config = {.depth = 64};
    struct ash_engine *engine;
    if (ash_engine_sim_new(run->world, &config, &engine, NULL) < 0 ||
        ash_loop_new_with_engine(engine, NULL, &run->loop, NULL) < 0 ||
        ash_loop_bind(run->loop) < 0) {
        run_fail(run, "no loop");
    }
}

void run_halt(struct run *run)
{
    ash_loop_free(run->loop);
    run->loop = NULL;
    if (ash_sim_leaked_files(run->world) > 0) {
        run_fail(run, "%" PRIu32 " files were left open", ash_sim_leaked_files(run->world));
    }
}

int run_call(struct run *run, int (*fn)(void *opaque))
{
    int ret = ash_loop_run_sync(run->loop, fn, run);
    if (ret == -EDEADLK) {
        run_fail(run, "a request waits for ever");
    }
    return ret;
}

int run_open(struct run *run, uint32_t flags, struct ash_error *error)
{
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", "image");
    int ret = ash_co_disk_open(run->loop, description, flags, &run->disk, error);
    json_decref(description);
    return ret;
}
