/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests as calls from a coroutine: whole transfers, whatever the engine splits off; the end of
 * the file; on simulated disks, which give short transfers, and on the engine that ASHLAR_ENGINE
 * names. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "util/assert.h"
#include "util/engine/co_aio.h"
#include "util/engine/sim.h"
#include "util/loop/loop.h"

#define UNIT 512
#define FILE_BYTES (64 * UNIT)

struct stage {
    struct ash_loop *loop;
    struct ash_sim_world *world; /* NULL: a real engine */
    const char *path;
    uint32_t flags;
    struct ash_prng prng;
};

static struct stage simulated(uint64_t seed, const struct ash_sim_config *config)
{
    struct stage stage = {.world = ash_sim_world_new(config), .path = "file"};
    struct ash_engine_config engine_config = {.depth = 8};
    struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
    struct ash_engine *engine;

    assert_int_equal(ash_engine_sim_new(stage.world, &engine_config, &engine, NULL), 0);
    assert_int_equal(ash_loop_new_with_engine(engine, &loop_config, &stage.loop, NULL), 0);
    assert_int_equal(ash_loop_bind(stage.loop), 0);
    ash_prng_seed(&stage.prng, seed);
    return stage;
}

static void stage_free(struct stage *stage)
{
    ash_loop_free(stage->loop);
    if (stage->world) {
        ash_sim_world_free(stage->world);
    }
}

ASH_CO_FN static struct ash_file *open_file(struct stage *stage)
{
    struct ash_file *file = NULL;
    int ret =
        ash_co_open(stage->loop->engine, stage->path,
                    ASH_FILE_WRITE | ASH_FILE_CREATE | ASH_FILE_TRUNCATE | stage->flags, &file);

    ash_assert(ret == 0);
    return file;
}

/* 300 random writes and reads against a model in memory; the file ends somewhere inside. */
static int against_a_model(void *opaque)
{
    struct stage *stage = opaque;
    static uint8_t model[FILE_BYTES];
    uint8_t *memory = aligned_alloc(4096, FILE_BYTES);
    int ret = 0;

    ash_co_assert_inside();
    struct ash_file *file = open_file(stage);
    memset(model, 0, sizeof(model));
    for (int i = 0; i < 300 && ret == 0; i++) {
        uint64_t from = ash_prng_below(&stage->prng, FILE_BYTES / UNIT) * UNIT;
        uint64_t bytes = (1 + ash_prng_below(&stage->prng, (FILE_BYTES - from) / UNIT)) * UNIT;
        uint64_t cut = ash_prng_below(&stage->prng, bytes / UNIT) * UNIT;
        struct iovec vec[] = {{memory, cut}, {memory + cut, bytes - cut}};
        if (ash_prng_below(&stage->prng, 3) == 0) {
            ash_prng_fill(&stage->prng, model + from, bytes);
            memcpy(memory, model + from, bytes);
            ret = ash_co_write(file, from, bytes, ash_iov_of(vec, 2), i % 2 ? ASH_AIO_DSYNC : 0);
        } else {
            memset(memory, 0xee, bytes);
            ret = ash_co_read(file, from, bytes, ash_iov_of(vec, 2));
            if (ret == 0 && memcmp(memory, model + from, bytes)) {
                ret = -EILSEQ;
            }
        }
    }
    free(memory);
    int closed = ash_co_close(file);
    return ret < 0 ? ret : closed;
}

static void short_transfers_are_completed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct ash_sim_config config = {.seed = seed,
                                        .short_per_mille = 600,
                                        .latency_ns_max = 1000,
                                        .unsupported = seed % 2 ? ASH_SIM_NO_DIRECT_HINT : 0};
        for (uint32_t flags = 0; flags <= ASH_FILE_DIRECT; flags += ASH_FILE_DIRECT) {
            struct stage stage = simulated(seed, &config);
            stage.flags = flags;
            int ret = ash_loop_run_sync(stage.loop, against_a_model, &stage);
            stage_free(&stage);
            if (ret < 0) {
                fail_msg("seed %llu, flags %u: %s", (unsigned long long)seed, flags,
                         strerror(-ret));
            }
        }
    }
}

static int write_beyond_the_space(void *opaque)
{
    struct stage *stage = opaque;
    static uint8_t memory[FILE_BYTES];
    struct iovec vec = {memory, sizeof(memory)};

    ash_co_assert_inside();
    struct ash_file *file = open_file(stage);
    int ret = ash_co_write(file, 0, sizeof(memory), ash_iov_of(&vec, 1), 0);
    ash_assert(ash_co_close(file) == 0);
    return ret;
}

static void write_that_finds_no_space_ends(void **state)
{
    struct ash_sim_config config = {.seed = 7, .capacity_bytes = FILE_BYTES / 2};
    struct stage stage = simulated(7, &config);

    (void)state;
    assert_int_equal(ash_loop_run_sync(stage.loop, write_beyond_the_space, &stage), -ENOSPC);
    stage_free(&stage);
}

/* An engine that moves a sector at a time, where the file can only be addressed in larger units. */

static const struct ash_engine_ops *sim_ops;
static uint32_t transfers;

static void submit_a_sector(struct ash_engine *engine, struct ash_aio *aio)
{
    if (aio->op == ASH_AIO_READ || aio->op == ASH_AIO_WRITE) {
        aio->bytes = ASH_MIN(aio->bytes, UNIT);
        transfers++;
    }
    sim_ops->submit(engine, aio);
}

static int transfer_in_vain(void *opaque)
{
    struct stage *stage = opaque;
    uint8_t *memory = aligned_alloc(4096, FILE_BYTES);
    struct iovec vec = {memset(memory, 5, FILE_BYTES), FILE_BYTES};

    ash_co_assert_inside();
    struct ash_file *file = open_file(stage);
    ash_assert(ash_co_truncate(file, FILE_BYTES) == 0);
    transfers = 0;
    int ret = ash_co_write(file, 4096, 8192, ash_iov_of(&vec, 1), 0);
    ash_assert(ret == -ENOSPC && transfers == 16);
    ret = ash_co_read(file, 4096, 8192, ash_iov_of(&vec, 1));
    ash_assert(ret == -EIO && transfers == 32);
    free(memory);
    return ash_co_close(file);
}

static void transfer_that_gains_nothing_is_given_up(void **state)
{
    struct ash_sim_config config = {.seed = 1, .unsupported = ASH_SIM_NO_DIRECT_HINT};
    struct stage stage = simulated(1, &config);
    struct ash_engine_ops ops;

    (void)state;
    stage.flags = ASH_FILE_DIRECT;
    sim_ops = stage.loop->engine->ops;
    ops = *sim_ops;
    ops.submit = submit_a_sector;
    stage.loop->engine->ops = &ops;
    assert_int_equal(ash_loop_run_sync(stage.loop, transfer_in_vain, &stage), 0);
    stage.loop->engine->ops = sim_ops;
    stage_free(&stage);
}

/* The rest is on a real engine. */

static char real_path[] = "/tmp/ashlar-co-aio-XXXXXX";

static struct stage real(uint32_t flags)
{
    struct stage stage = {.path = real_path, .flags = flags};

    assert_int_equal(ash_loop_new(NULL, &stage.loop, NULL), 0);
    assert_int_equal(ash_loop_bind(stage.loop), 0);
    ash_prng_seed(&stage.prng, 1);
    return stage;
}

static void real_files_agree_with_a_model(void **state)
{
    (void)state;
    for (uint32_t flags = 0; flags <= ASH_FILE_DIRECT; flags += ASH_FILE_DIRECT) {
        struct stage stage = real(flags);
        int ret = ash_loop_run_sync(stage.loop, against_a_model, &stage);
        /* A disk of 4 KiB sectors does not take the 512 bytes of this test. */
        assert_true(ret == 0 || (flags && ret == -EINVAL));
        stage_free(&stage);
    }
}

/* A file of 1000 bytes: an end that O_DIRECT cannot address. */
static int read_over_an_odd_end(void *opaque)
{
    struct stage *stage = opaque;
    uint8_t *memory = aligned_alloc(4096, 16384);
    struct iovec vec = {memory, 16384};
    int ret = 0;

    ash_co_assert_inside();
    struct ash_file *file = open_file(stage);
    memset(memory, 9, 16384);
    ret = ash_co_write(file, 0, 4096, ash_iov_of(&vec, 1), 0);
    ash_assert(ret == 0 && ash_co_truncate(file, 1000) == 0);
    for (uint64_t offset = 0; offset <= 8192 && ret == 0; offset += 4096) {
        memset(memory, 0xee, 16384);
        ret = ash_co_read(file, offset, 16384, ash_iov_of(&vec, 1));
        for (size_t i = 0; i < 16384 && ret == 0; i++) {
            ret = memory[i] == (offset + i < 1000 ? 9 : 0) ? 0 : -EILSEQ;
        }
    }
    free(memory);
    ash_assert(ash_co_close(file) == 0);
    return ret;
}

static void what_lies_behind_the_end_reads_as_zeroes(void **state)
{
    (void)state;
    for (uint32_t flags = 0; flags <= ASH_FILE_DIRECT; flags += ASH_FILE_DIRECT) {
        struct stage stage = real(flags);
        assert_int_equal(ash_loop_run_sync(stage.loop, read_over_an_odd_end, &stage), 0);
        stage_free(&stage);
    }
}

static int setup(void **state)
{
    int fd = mkstemp(real_path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
    (void)state;
    return unlink(real_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_transfers_are_completed),
        cmocka_unit_test(write_that_finds_no_space_ends),
        cmocka_unit_test(transfer_that_gains_nothing_is_given_up),
        cmocka_unit_test(real_files_agree_with_a_model),
        cmocka_unit_test(what_lies_behind_the_end_reads_as_zeroes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
