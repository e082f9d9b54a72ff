/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Streaming under guests: the contents stay what the model says, the chain gets shorter, the image
 * is consistent. */
#include "tests/unit/unit.h"
#include "block/graph/graft.h"
#include "job/job.h"
#include "tests/unit/chain_guests.h"

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

static void draw_layers(struct core *core, struct chain *chain, unsigned depth)
{
    *chain = (struct chain){.depth = depth, .qcow2 = true};
    for (unsigned layer = 0; layer < depth; layer++) {
        chain->unit[layer] = UINT64_C(1024) << ash_prng_below(&core->prng, layer == 0 ? 4 : 7);
        chain->bytes[layer] = ash_prng_between(&core->prng, 10000, 160000) / 512 * 512;
    }
}

static struct ash_node *layer_node(struct chain *chain, unsigned layer)
{
    struct ash_node *node = ash_disk_node(chain->disk);
    while (layer-- > 0) {
        node = node->backing->child;
    }
    return node;
}

ASH_CO_FN static struct ash_job *start(struct core *core, struct chain *chain,
                                       const struct plan *plan)
{
    struct ash_job *job;
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = json_pack("{s:s, s:s, s:b}", "type", "stream", "device",
                                    ash_disk_node(chain->disk)->name, "auto-dismiss", 0);
    if (plan->base > 0) {
        const char *name = layer_node(chain, plan->base)->name;
        json_object_set_new(description, "base-node", json_string(name));
    }
    int ret = ash_co_job_start(core->loop, description, NULL, NULL, &job, &error);
    json_decref(description);
    if (ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)core->seed, error.message);
    }
    assert_int_equal(ret, 0);
    return job;
}

ASH_CO_FN static void disturb(struct core *core, struct ash_job *job, const struct plan *plan)
{
    if (plan->pauses) {
        ash_co_sleep(ash_prng_below(&core->prng, 40000));
        if (ash_co_job_control(job, ASH_JOB_PAUSE, 0, NULL) == 0) {
            ash_co_sleep(20000);
            (void)!ash_co_job_control(job, ASH_JOB_RESUME, 0, NULL);
        }
    }
    if (plan->cancel) {
        ash_co_sleep(ash_prng_below(&core->prng, 100000));
        cancelled_runs += ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL) == 0;
    }
}

ASH_CO_FN static int finish(struct ash_job *job)
{
    while (ash_job_state(job) != ASH_JOB_CONCLUDED) {
        ash_co_sleep(1000);
    }
    int ret = job->ret;
    if (ret < 0 && ret != -ECANCELED) {
        print_message("%s\n", job->error.message);
    }
    assert_int_equal(ash_co_job_control(job, ASH_JOB_DISMISS, 0, NULL), 0);
    ash_job_unref(job);
    return ret;
}

ASH_CO_FN static void stream_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct plan plan = draw_plan(core);
    struct chain chain;
    struct guest guests[GUESTS];
    draw_layers(core, &chain, plan.depth);
    chain_up(core, &chain);
    guests_start(core, &chain, guests, 30);
    ash_co_sleep(ash_prng_below(&core->prng, 60000));
    struct ash_job *job = start(core, &chain, &plan);
    disturb(core, job, &plan);
    int ret = finish(job);
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
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(core_is_real() ? 60 : 300);
         seed++) {
        struct core core;
        struct ash_sim_config sim_config = {.seed = seed, .latency_ns_max = 4000};
        struct ash_hooks hooks = {.size = sizeof(hooks), .alloc = alloc_hook, .free = free_hook};
        struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
        loop_config.hooks = &hooks;
        ash_prng_seed(&alloc_prng, seed);
        core_up_with(&core, seed, &sim_config, &loop_config);
        core_run(&core, stream_body, NULL);
        core_down(&core);
    }
    assert_true(getenv("SEED") != NULL || cancelled_runs > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streaming_under_guests_keeps_the_contents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
