/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated engine under a loop with coroutines: what the simulator of the whole stack stands
 * on. */
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>
#include "util/engine/co_aio.h"
#include "util/engine/sim.h"
#include "util/loop/loop.h"

#define BLOCK 4096
#define BLOCKS 16

struct stage {
    struct ash_sim_world *world;
    struct ash_loop *loop;
    struct ash_file *file;
    struct ash_prng prng;
    uint32_t running;
    int result;
};

static struct stage stage_new(const struct ash_sim_config *config)
{
    struct stage stage = {.world = ash_sim_world_new(config)};
    struct ash_engine_config engine_config = {.depth = 64};
    struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
    struct ash_engine *engine;

    assert_int_equal(ash_engine_sim_new(stage.world, &engine_config, &engine, NULL), 0);
    assert_int_equal(ash_loop_new_with_engine(engine, &loop_config, &stage.loop, NULL), 0);
    assert_int_equal(ash_loop_bind(stage.loop), 0);
    ash_prng_seed(&stage.prng, config->seed);
    return stage;
}

static void stage_free(struct stage *stage)
{
    ash_loop_free(stage->loop);
    ash_sim_world_free(stage->world);
}

/* What the tests run in a coroutine: each returns 0 or a negative errno. */
static int write_and_read_back(void *opaque)
{
    struct stage *stage = opaque;
    uint8_t out[BLOCK * 2];
    uint8_t in[BLOCK * 2];
    struct iovec out_vec = {out, sizeof(out)};
    struct iovec in_vec = {in, sizeof(in)};
    struct ash_file *file;

    ash_co_assert_inside();
    ash_prng_fill(&stage->prng, out, sizeof(out));
    int ret = ash_co_open(stage->loop->engine, "a", ASH_FILE_WRITE | ASH_FILE_CREATE, &file);
    if (ret < 0) {
        return ret;
    }
    ret = ash_co_write(file, 100, sizeof(out), ash_iov_of(&out_vec, 1), 0);
    if (ret == 0) {
        ret = ash_co_read(file, 100, sizeof(in), ash_iov_of(&in_vec, 1));
    }
    if (ret == 0 && memcmp(out, in, sizeof(out))) {
        ret = -EILSEQ;
    }
    ash_co_close(file);
    return ret;
}

static int sleep_for_an_hour(void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    ash_co_sleep(UINT64_C(3600) * 1000000000);
    return 0;
}

static int flush_held(void *opaque)
{
    struct stage *stage = opaque;

    ash_co_assert_inside();
    stage->result = ash_co_flush(stage->file);
    stage->running = 0;
    return stage->result;
}

static int open_file(void *opaque)
{
    struct stage *stage = opaque;

    ash_co_assert_inside();
    return ash_co_open(stage->loop->engine, "a", ASH_FILE_WRITE | ASH_FILE_CREATE, &stage->file);
}

static int close_file(void *opaque)
{
    struct stage *stage = opaque;

    ash_co_assert_inside();
    return ash_co_close(stage->file);
}

static void short_transfers_are_gone_on_with(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct stage stage = stage_new(
            &(struct ash_sim_config){.seed = seed, .latency_ns_max = 1000, .short_per_mille = 800});
        assert_int_equal(ash_loop_run_sync(stage.loop, write_and_read_back, &stage), 0);
        assert_int_equal(ash_sim_open_files(stage.world), 0);
        stage_free(&stage);
    }
}

static void sleeping_takes_no_time_of_the_host(void **state)
{
    struct stage stage = stage_new(&(struct ash_sim_config){.seed = 1});
    uint64_t start = ash_sim_now(stage.world);

    (void)state;
    assert_int_equal(ash_loop_run_sync(stage.loop, sleep_for_an_hour, &stage), 0);
    assert_int_equal(ash_sim_now(stage.world) - start, UINT64_C(3600) * 1000000000);
    stage_free(&stage);
}

static void a_run_that_can_never_end_is_a_deadlock(void **state)
{
    struct stage stage = stage_new(&(struct ash_sim_config){.seed = 1, .latency_ns_max = 100});

    (void)state;
    assert_int_equal(ash_loop_run_sync(stage.loop, open_file, &stage), 0);
    ash_sim_hold(stage.world, "a", ASH_AIO_FLUSH, 0, 0);
    stage.running = 1;
    assert_int_equal(ash_loop_run_sync(stage.loop, flush_held, &stage), -EDEADLK);
    assert_int_equal(ash_sim_held(stage.world), 1);
    ash_sim_release_all(stage.world);
    while (stage.running > 0) {
        assert_true(ash_loop_run_once(stage.loop, -1, 0) >= 0);
    }
    assert_int_equal(stage.result, 0);
    assert_int_equal(ash_loop_run_sync(stage.loop, close_file, &stage), 0);
    stage_free(&stage);
}

static void guest(void *opaque)
{
    struct stage *stage = opaque;
    uint8_t block[BLOCK];
    struct iovec vec = {block, sizeof(block)};

    ash_co_assert_inside();
    for (unsigned i = 0; i < 20; i++) {
        uint64_t offset = ash_prng_below(&stage->prng, BLOCKS) * BLOCK;
        int ret;
        memset(block, (int)ash_prng_below(&stage->prng, 256), sizeof(block));
        if (ash_prng_chance(&stage->prng, 500)) {
            ret = ash_co_write(stage->file, offset, BLOCK, ash_iov_of(&vec, 1), 0);
        } else {
            ret = ash_co_read(stage->file, offset, BLOCK, ash_iov_of(&vec, 1));
        }
        stage->result = ret < 0 ? ret : stage->result;
        if (ash_prng_chance(&stage->prng, 100)) {
            ash_co_flush(stage->file);
        }
    }
    stage->running--;
}

static uint64_t guests_run(uint64_t seed)
{
    struct stage stage = stage_new(&(struct ash_sim_config){.seed = seed,
                                                            .latency_ns_max = 1000,
                                                            .short_per_mille = 50,
                                                            .read_error_per_mille = 20,
                                                            .write_error_per_mille = 20});

    stage.loop->sched.shuffle = &stage.prng;
    assert_int_equal(ash_loop_run_sync(stage.loop, open_file, &stage), 0);
    ash_sim_power_cut_at(stage.world, 1 + seed % 150, ASH_SIM_CUT_RANDOM);
    for (stage.running = 0; stage.running < 8; stage.running++) {
        assert_int_equal(ash_co_spawn(&stage.loop->sched, guest, &stage), 0);
    }
    while (stage.running > 0) {
        assert_true(ash_loop_run_once(stage.loop, -1, 0) >= 0);
    }
    assert_int_equal(ash_loop_run_sync(stage.loop, close_file, &stage), 0);
    uint64_t hash = ash_sim_trace_hash(stage.world);
    stage_free(&stage);
    return hash;
}

static void shuffled_guests_repeat_by_their_seed(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        uint64_t hash = guests_run(seed);
        assert_true(hash == guests_run(seed));
        assert_true(hash != guests_run(seed + 1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_transfers_are_gone_on_with),
        cmocka_unit_test(sleeping_takes_no_time_of_the_host),
        cmocka_unit_test(a_run_that_can_never_end_is_a_deadlock),
        cmocka_unit_test(shuffled_guests_repeat_by_their_seed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
