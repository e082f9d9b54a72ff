/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Streaming under guests: the contents stay what the model says, the chain gets shorter, the image
 * is consistent. */
#include "tests/unit/unit.h"
#include "tests/unit/job_rig.h"

struct plan {
    unsigned depth;
    unsigned base; /* layer that stays as the base; 0: none */
    bool cancel;
    bool pauses;
};

static unsigned cancelled_runs;

static struct plan draw_plan(struct core *core)
{
    struct plan plan = {.depth = 2 + (unsigned)(core->seed % (LAYERS_MAX - 1))};
    if (plan.depth > 2 && ash_prng_chance(&core->prng, 400)) {
        plan.base = 2 + (unsigned)ash_prng_below(&core->prng, plan.depth - 2);
    }
    plan.cancel = ash_prng_chance(&core->prng, 200);
    plan.pauses = ash_prng_chance(&core->prng, 300);
    return plan;
}

ASH_CO_FN static struct ash_job *start(struct core *core, struct chain *chain,
                                       const struct plan *plan)
{
    json_t *description =
        json_pack("{s:s, s:s}", "type", "stream", "device", ash_disk_node(chain->disk)->name);
    if (plan->base > 0) {
        const char *name = job_layer(chain, plan->base)->name;
        json_object_set_new(description, "base-node", json_string(name));
    }
    return job_start(core, description);
}

ASH_CO_FN static void disturb(struct core *core, struct ash_job *job, const struct plan *plan)
{
    if (plan->pauses) {
        job_pause_a_while(core, job);
    }
    if (plan->cancel) {
        ash_co_sleep(ash_prng_below(&core->prng, 100000));
        cancelled_runs += ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL) == 0;
    }
}

ASH_CO_FN static void stream_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct plan plan = draw_plan(core);
    struct chain chain;
    struct guest guests[GUESTS];
    job_draw_layers(core, &chain, plan.depth);
    chain_up(core, &chain);
    guests_start(core, &chain, guests, 30);
    ash_co_sleep(ash_prng_below(&core->prng, 60000));
    struct ash_job *job = start(core, &chain, &plan);
    disturb(core, job, &plan);
    int ret = job_finish(core, job);
    core_join(core);
    assert_true(ret == 0 || (ret == -ECANCELED && plan.cancel));
    if (ret == 0) {
        struct ash_edge *backing = ash_disk_node(chain.disk)->backing;
        assert_true((backing != NULL) == (plan.base > 0));
        if (backing != NULL) {
            assert_string_equal(backing->child->filename,
                                core_file(core, chain_name(plan.base), -1));
        }
    }
    chain_verify(core, &chain);
    assert_int_equal(ash_co_disk_close(chain.disk, NULL), 0);
    chain.disk = NULL;

    /* From its own header the image opens on what is left of the chain, and reads the same. */
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", core_file(core, chain_name(0), -1));
    if (ret == 0) {
        assert_int_equal(
            ash_co_disk_open(core->loop, description, ASH_NODE_CHECK, &chain.disk, NULL), 0);
    } else {
        chain.disk = chain_open(core, &chain, 0, ASH_NODE_CHECK);
    }
    json_decref(description);
    check_image(core, chain.disk);
    chain_verify(core, &chain);
    chain_down(&chain);
}

static void streaming_under_guests_keeps_the_contents(void **state)
{
    (void)state;
    job_run_seeds(core_is_real() ? 60 : 300, stream_body);
    assert_true(getenv("SEED") != NULL || cancelled_runs > 0);
}

#define SHORT_BYTES (64 * KiB)
#define LONG_BYTES (256 * KiB)

/* An overlay on an image as short, on a longer base that holds something everywhere. */
ASH_CO_FN static void layers_with_a_short_one(struct core *core, struct chain *chain)
{
    *chain = (struct chain){.depth = 3, .qcow2 = true};
    for (unsigned layer = 0; layer < chain->depth; layer++) {
        chain->unit[layer] = 4 * KiB;
        chain->bytes[layer] = layer < 2 ? SHORT_BYTES : LONG_BYTES;
    }
    chain_up(core, chain);
    assert_int_equal(ash_co_disk_close(chain->disk, NULL), 0);
    struct ash_disk *base = chain_open(core, chain, 2, ASH_NODE_WRITE | ASH_NODE_DISCARD);
    static uint8_t data[LONG_BYTES];
    memset(data, 0xba, sizeof(data));
    assert_int_equal(ash_disk_write(base, 0, data, sizeof(data), 0), 0);
    assert_int_equal(ash_co_disk_close(base, NULL), 0);
    chain->disk = chain_open(core, chain, 0, ASH_NODE_WRITE | ASH_NODE_DISCARD);
}

ASH_CO_FN static void resize(struct chain *chain, uint64_t bytes)
{
    assert_int_equal(
        ash_co_disk_resize(chain->disk, bytes, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, NULL), 0);
}

ASH_CO_FN static void assert_zero_after_the_short_one(const struct chain *chain)
{
    static uint8_t data[LONG_BYTES];
    assert_int_equal(ash_disk_read(chain->disk, 0, data, sizeof(data)), 0);
    for (size_t at = SHORT_BYTES; at < sizeof(data); at++) {
        assert_int_equal(data[at], 0);
    }
}

/* The sweep ends: the overlay holds all of what it is long.
 *
 * The guest makes it shorter and longer: what appears reads as zeroes, as the image below has
 * ended. The overlay holds none of them.
 *
 * The job is finalized: the overlay stands on base, which holds something there. */
CORE_TEST(a_disk_that_grew_after_the_sweep_does_not_show_the_base)
{
    (void)opaque;
    struct chain chain;
    layers_with_a_short_one(core, &chain);
    struct ash_job *job =
        job_start(core, json_pack("{s:s, s:s, s:s, s:b}", "type", "stream", "device",
                                  ash_disk_node(chain.disk)->name, "base-node",
                                  job_layer(&chain, 2)->name, "auto-finalize", 0));
    job_wait_for(job, ASH_JOB_PENDING);
    resize(&chain, SHORT_BYTES / 2);
    resize(&chain, LONG_BYTES);
    assert_zero_after_the_short_one(&chain);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_FINALIZE, 0, NULL), 0);
    assert_int_equal(job_finish(core, job), 0);
    assert_string_equal(job_layer(&chain, 1)->filename, core_file(core, chain_name(2), -1));
    assert_zero_after_the_short_one(&chain);
    check_image(core, chain.disk);
    chain_down(&chain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_that_grew_after_the_sweep_does_not_show_the_base),
        cmocka_unit_test(streaming_under_guests_keeps_the_contents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
