/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mirroring under guests: what the guests find after the users were led to the target is what they
 * wrote, and the target alone holds it. */
#include "tests/unit/unit.h"
#include "block/graph/block.h"
#include "block/image/image.h"
#include "tests/unit/job_rig.h"

enum ending { END_PIVOT, END_KEEP, END_CANCEL, END_FORCE, ENDINGS };

static unsigned seen[ENDINGS];

ASH_CO_FN static void create_target(struct core *core, uint64_t bytes, bool qcow2)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *options = json_object();
    if (qcow2) {
        json_object_set_new(options, "cluster_size",
                            json_integer((json_int_t)(1024 << ash_prng_below(&core->prng, 6))));
    }
    int ret = ash_image_create(core->loop, core_file(core, "target", -1), qcow2 ? "qcow2" : "raw",
                               bytes, options, &error);
    json_decref(options);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
}

ASH_CO_FN static struct ash_disk *open_target(struct core *core, bool qcow2)
{
    struct ash_disk *disk = NULL;
    json_t *description =
        json_pack("{s:s, s:{s:s, s:s}}", "driver", qcow2 ? "qcow2" : "raw", "file", "driver",
                  "file", "filename", core_file(core, "target", -1));
    assert_int_equal(ash_co_disk_open(core->loop, description, ASH_NODE_CHECK, &disk, NULL), 0);
    json_decref(description);
    return disk;
}

ASH_CO_FN static struct ash_job *start(struct core *core, struct chain *chain, bool qcow2)
{
    bool blocking = ash_prng_chance(&core->prng, 500);
    return job_start(core,
                     json_pack("{s:s, s:s, s:s, s:s, s:s, s:i}", "type", "mirror", "device",
                               job_layer(chain, 0)->name, "target", core_file(core, "target", -1),
                               "format", qcow2 ? "qcow2" : "raw", "copy-mode",
                               blocking ? "write-blocking" : "background", "granularity",
                               512 << ash_prng_below(&core->prng, 8)));
}

/* Steers the job to the ending that was drawn; returns the one it had. */
ASH_CO_FN static enum ending steer(struct core *core, struct ash_job *job, enum ending ending)
{
    if (ash_prng_chance(&core->prng, 300)) {
        job_pause_a_while(core, job);
    }
    if (ending == END_CANCEL || ending == END_FORCE) {
        ash_co_sleep(ash_prng_below(&core->prng, 60000));
        bool ready = ash_job_state(job) == ASH_JOB_READY;
        (void)!ash_co_job_control(job, ending == END_FORCE ? ASH_JOB_FORCE_CANCEL : ASH_JOB_CANCEL,
                                  0, NULL);
        return ending == END_CANCEL && ready ? END_KEEP : ending;
    }
    job_wait_for(job, ASH_JOB_READY);
    ash_co_sleep(ash_prng_below(&core->prng, 60000));
    assert_int_equal(
        ash_co_job_control(job, ending == END_PIVOT ? ASH_JOB_COMPLETE : ASH_JOB_CANCEL, 0, NULL),
        0);
    return ending;
}

/* Guests that do not write any more, so that a kept copy can be compared. */
ASH_CO_FN static void compare_target(struct core *core, struct chain *chain, bool qcow2)
{
    struct ash_disk *source = chain->disk;
    chain->disk = open_target(core, qcow2);
    if (qcow2) {
        check_image(core, chain->disk);
    }
    chain_verify(core, chain);
    assert_int_equal(ash_co_disk_close(chain->disk, NULL), 0);
    chain->disk = source;
}

ASH_CO_FN static void mirror_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct chain chain;
    struct guest guests[GUESTS];
    bool qcow2 = ash_prng_chance(&core->prng, 700);
    enum ending ending = (enum ending)ash_prng_below(&core->prng, ENDINGS);
    job_draw_layers(core, &chain, 1 + (unsigned)(core->seed % 3));
    chain.no_coded = true; /* the target may have other clusters, or none */
    chain_up(core, &chain);
    create_target(core, chain.bytes[0], qcow2);
    guests_start(core, &chain, guests, 40);
    ash_co_sleep(ash_prng_below(&core->prng, 60000));
    struct ash_job *job = start(core, &chain, qcow2);
    /* A copy that is kept is of one moment. Which one can be told only if nobody writes any more. */
    bool last_moment = ending == END_KEEP;
    if (last_moment) {
        core_join(core);
    }
    ending = steer(core, job, ending);
    int ret = job_finish(core, job);
    seen[ending] += ret == 0 || ending >= END_CANCEL;
    assert_int_equal(ret, ending == END_PIVOT || ending == END_KEEP ? 0 : -ECANCELED);
    core_join(core);
    chain_verify(core, &chain);
    if (ending == END_PIVOT) {
        const char *target = core_file(core, "target", -1);
        assert_string_equal(ash_disk_node(chain.disk)->filename, target);
    } else if (last_moment) {
        compare_target(core, &chain, qcow2);
    }
    assert_int_equal(ash_co_disk_close(chain.disk, NULL), 0);
    if (ending == END_PIVOT) {
        chain.disk = open_target(core, qcow2);
        if (qcow2) {
            check_image(core, chain.disk);
        }
    } else {
        chain.disk = chain_open(core, &chain, 0, ASH_NODE_CHECK);
        check_image(core, chain.disk);
    }
    chain_verify(core, &chain);
    chain_down(&chain);
    /* A job that was ended by force leaves its target when what was on its way has arrived. */
    while (!ash_list_empty(&ash_block_of(core->loop)->nodes)) {
        ash_co_sleep(1000);
    }
}

static void mirroring_under_guests_makes_an_equal_disk(void **state)
{
    (void)state;
    job_run_seeds(core_is_real() ? 60 : 300, mirror_body);
    for (unsigned i = 0; i < ENDINGS; i++) {
        assert_true(getenv("SEED") != NULL || seen[i] > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mirroring_under_guests_makes_an_equal_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
