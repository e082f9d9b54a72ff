/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Committing images in the middle of a chain under guests: the contents stay what the model says,
 * the chain gets shorter, all images are consistent. */
#include "tests/unit/unit.h"
#include "tests/unit/job_rig.h"

static unsigned cancelled_runs;
static unsigned committed_runs;

ASH_CO_FN static void check_alone(struct core *core, struct chain *chain, unsigned layer)
{
    struct ash_disk *disk = chain_open(core, chain, layer, ASH_NODE_CHECK);
    check_image(core, disk);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

ASH_CO_FN static int commit_one(struct core *core, struct chain *chain, unsigned top, unsigned base)
{
    struct ash_job *job = job_start(core, json_pack("{s:s, s:s, s:s, s:s}", "type", "commit",
                                                    "device", ash_disk_node(chain->disk)->name,
                                                    "top-node", job_layer(chain, top)->name,
                                                    "base-node", job_layer(chain, base)->name));
    bool cancel = ash_prng_chance(&core->prng, 200);
    if (ash_prng_chance(&core->prng, 300)) {
        job_pause_a_while(core, job);
    }
    if (cancel) {
        ash_co_sleep(ash_prng_below(&core->prng, 60000));
        (void)!ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL);
    }
    int ret = job_finish(core, job);
    assert_true(ret == 0 || (ret == -ECANCELED && cancel));
    cancelled_runs += ret < 0;
    committed_runs += ret == 0;
    return ret;
}

ASH_CO_FN static void commit_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct chain chain;
    struct guest guests[GUESTS];
    unsigned depth = 3 + (unsigned)(core->seed % (LAYERS_MAX - 2));
    unsigned top = 1 + (unsigned)ash_prng_below(&core->prng, depth - 2);
    unsigned base = top + 1 + (unsigned)ash_prng_below(&core->prng, depth - top - 1);
    job_draw_layers(core, &chain, depth);
    chain_up(core, &chain);
    guests_start(core, &chain, guests, 30);
    ash_co_sleep(ash_prng_below(&core->prng, 60000));
    int ret = commit_one(core, &chain, top, base);
    core_join(core);
    if (ret == 0) {
        struct ash_node *overlay = job_layer(&chain, top - 1);
        assert_string_equal(overlay->backing->child->filename,
                            core_file(core, chain_name(base), -1));
    }
    chain_verify(core, &chain);
    assert_int_equal(ash_co_disk_close(chain.disk, NULL), 0);
    check_alone(core, &chain, 0);
    check_alone(core, &chain, base);

    /* By the headers' own account it reads the same, if they say what the chain is. */
    if (ret == 0 && top == 1) {
        json_t *below =
            chain_describe_qcow2(core, &chain, base); /* uses all of core_file's buffers */
        json_t *description =
            json_pack("{s:s, s:{s:s, s:s}, s:o}", "driver", "qcow2", "file", "driver", "file",
                      "filename", core_file(core, chain_name(0), -1), "backing", below);
        assert_int_equal(ash_co_disk_open(core->loop, description, 0, &chain.disk, NULL), 0);
        json_decref(description);
        chain_verify(core, &chain);
    } else {
        chain.disk = chain_open(core, &chain, 0, 0);
        if (ret < 0) {
            chain_verify(core, &chain);
        }
    }
    chain_down(&chain);
}

static void committing_under_guests_keeps_the_contents(void **state)
{
    (void)state;
    job_run_seeds(core_is_real() ? 60 : 300, commit_body);
    assert_true(getenv("SEED") != NULL || (cancelled_runs > 0 && committed_runs > 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(committing_under_guests_keeps_the_contents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
