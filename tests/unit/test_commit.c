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
    job_run_seeds(core_is_real() ? 40 : 200, commit_body);
    assert_true(getenv("SEED") != NULL || (cancelled_runs > 0 && committed_runs > 0));
}

enum ending { END_PIVOT, END_KEEP, END_CANCEL, END_FORCE, ENDINGS };
static unsigned active_runs[ENDINGS];

ASH_CO_FN static enum ending steer_active(struct core *core, struct ash_job *job,
                                          enum ending ending)
{
    if (ash_prng_chance(&core->prng, 300)) {
        job_pause_a_while(core, job);
    }
    if (ending == END_CANCEL || ending == END_FORCE) {
        ash_co_sleep(ash_prng_below(&core->prng, 60000));
        bool ready = ash_job_state(job) == ASH_JOB_READY;
        (void)!ash_co_job_control(job, ending == END_FORCE ? ASH_JOB_FORCE_CANCEL : ASH_JOB_CANCEL,
                                  0, NULL);
        return ready && ending == END_CANCEL ? END_KEEP : ending;
    }
    job_wait_for(job, ASH_JOB_READY);
    ash_co_sleep(ash_prng_below(&core->prng, 60000));
    assert_int_equal(
        ash_co_job_control(job, ending == END_PIVOT ? ASH_JOB_COMPLETE : ASH_JOB_CANCEL, 0, NULL),
        0);
    return ending;
}

ASH_CO_FN static void active_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct chain chain;
    struct guest guests[GUESTS];
    unsigned depth = 2 + (unsigned)(core->seed % (LAYERS_MAX - 1));
    unsigned base = 1 + (unsigned)ash_prng_below(&core->prng, depth - 1);
    enum ending ending = (enum ending)ash_prng_below(&core->prng, ENDINGS);
    job_draw_layers(core, &chain, depth);
    chain.no_coded = true; /* base has other clusters */
    chain_up(core, &chain);
    guests_start(core, &chain, guests, 40);
    ash_co_sleep(ash_prng_below(&core->prng, 60000));
    json_t *description =
        json_pack("{s:s, s:s, s:s}", "type", "commit", "device", ash_disk_node(chain.disk)->name,
                  "base-node", job_layer(&chain, base)->name);
    if (ash_prng_chance(&core->prng, 300)) {
        json_object_set_new(description, "top-node", json_string(job_layer(&chain, 0)->name));
    }
    struct ash_job *job = job_start(core, description);
    ending = steer_active(core, job, ending);
    int ret = job_finish(core, job);
    active_runs[ending]++;
    assert_int_equal(ret, ending == END_PIVOT || ending == END_KEEP ? 0 : -ECANCELED);
    core_join(core);
    chain_verify(core, &chain);
    if (ending == END_PIVOT) {
        const char *name = core_file(core, chain_name(base), -1);
        assert_string_equal(ash_disk_node(chain.disk)->filename, name);
        assert_int_equal(ash_disk_discard(chain.disk, 0, 0), 0);
    } else {
        assert_false(ash_node_writable(job_layer(&chain, base)));
    }
    assert_int_equal(ash_co_disk_close(chain.disk, NULL), 0);
    check_alone(core, &chain, 0);
    check_alone(core, &chain, base);
    chain.disk = chain_open(core, &chain, ending == END_PIVOT ? base : 0, 0);
    chain_verify(core, &chain);
    chain_down(&chain);
}

static void the_active_image_is_committed_and_left(void **state)
{
    (void)state;
    job_run_seeds(core_is_real() ? 40 : 200, active_body);
    for (unsigned i = 0; i < ENDINGS; i++) {
        assert_true(getenv("SEED") != NULL || active_runs[i] > 0);
    }
}

/* --- what is refused --- */

#define INCOMPATIBLE_AT 79 /* the lowest byte of these features */
#define INCOMPATIBLE_DIRTY 1

/* As if the machine had lost power while the image was written with lazy refcounts. */
ASH_CO_FN static void make_dirty(struct core *core, unsigned layer)
{
    struct ash_disk *disk = core_open_disk(core,
                                           json_pack("{s:s, s:s}", "driver", "file", "filename",
                                                     core_file(core, chain_name(layer), -1)),
                                           ASH_NODE_WRITE);
    uint8_t sector[512];
    assert_int_equal(ash_disk_read(disk, 0, sector, sizeof(sector)), 0);
    sector[INCOMPATIBLE_AT] |= INCOMPATIBLE_DIRTY;
    assert_int_equal(ash_disk_write(disk, 0, sector, sizeof(sector), 0), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* The image above top, whose header the commit is to change, is read-only and has to be repaired
 * before it can be written. Nothing is copied in vain. */
CORE_TEST(a_commit_that_could_not_change_the_chain_in_the_end_does_not_start)
{
    struct chain chain = {.depth = 4, .qcow2 = true};
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    (void)opaque;
    for (unsigned layer = 0; layer < chain.depth; layer++) {
        chain.unit[layer] = 4096;
        chain.bytes[layer] = 64 * KiB;
    }
    chain_up(core, &chain);
    assert_int_equal(ash_co_disk_close(chain.disk, NULL), 0);
    make_dirty(core, 1);
    chain.disk = chain_open(core, &chain, 0, ASH_NODE_WRITE);
    json_t *description =
        json_pack("{s:s, s:s, s:s}", "type", "commit", "device", ash_disk_node(chain.disk)->name,
                  "top-node", job_layer(&chain, 2)->name);
    assert_int_equal(ash_co_job_start(core->loop, description, NULL, NULL, &job, &error), -EBUSY);
    json_decref(description);
    assert_non_null(strstr(error.message, "it has to be repaired"));
    assert_false(ash_node_writable(job_layer(&chain, 1)));
    assert_false(ash_node_writable(job_layer(&chain, 3)));
    chain_verify(core, &chain);
    chain_down(&chain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(committing_under_guests_keeps_the_contents),
        cmocka_unit_test(the_active_image_is_committed_and_left),
        cmocka_unit_test(a_commit_that_could_not_change_the_chain_in_the_end_does_not_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
