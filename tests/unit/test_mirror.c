/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mirroring under guests: what the guests find after the users were led to the target is what they
 * wrote, and the target alone holds it. */
#include "tests/unit/unit.h"
#include "block/graph/block.h"
#include "block/image/image.h"
#include "block/filter/mirror_top.h"
#include "job/converge.h"
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
    if (ash_prng_chance(&core->prng, 300)) {
        bool blocking = ash_prng_chance(&core->prng, 500);
        json_t *change =
            json_pack("{s:s}", "copy-mode", blocking ? "write-blocking" : "background");
        ash_co_sleep(ash_prng_below(&core->prng, 40000));
        assert_int_equal(ash_co_job_change(job, change, NULL), 0);
        json_decref(change);
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
    /* A copy that is kept is of one moment. Which one can be told only if nobody writes any more.
     */
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

/* --- a guest that writes faster than the target takes --- */

#define BUSY_BYTES (4 * MiB)
#define SECOND_NS UINT64_C(1000000000)

struct busy {
    struct ash_disk *disk;
    bool stop;
    uint64_t written_bytes;
    uint64_t longest_ns;
};

/* 16 MiB a second, if it is let. */
static void write_busily(struct core *core, void *opaque)
{
    struct busy *busy = opaque;
    static char block[16 * KiB];
    ash_co_assert_inside();
    while (!busy->stop) {
        uint64_t offset = ash_prng_below(&core->prng, BUSY_BYTES / sizeof(block)) * sizeof(block);
        uint64_t start_ns = ash_loop_now(core->loop);
        assert_int_equal(ash_disk_write(busy->disk, offset, block, sizeof(block), 0), 0);
        busy->longest_ns = ASH_MAX(busy->longest_ns, ash_loop_now(core->loop) - start_ns);
        busy->written_bytes += sizeof(block);
        ash_co_sleep(1000000);
    }
}

ASH_CO_FN static struct ash_node *slow_target(struct core *core)
{
    struct ash_node *node;
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description =
        json_pack("{s:s, s:s, s:{s:i}, s:o}", "driver", "throttle", "node-name", "slow", "limits",
                  "bps-total", 4 << 20, "file", job_describe_raw(core, "target", BUSY_BYTES));
    int ret = ash_node_open(core->loop, description, ASH_NODE_WRITE, &node, &error);
    json_decref(description);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    return node;
}

/* Whether the job gets ready within 20 seconds. */
ASH_CO_FN static bool gets_ready(struct core *core, bool converge, struct busy *busy)
{
    *busy = (struct busy){0};
    struct ash_node *target = slow_target(core);
    busy->disk = job_raw_disk(core, "d", BUSY_BYTES);
    core_spawn(core, write_busily, busy);
    struct ash_job *job =
        job_start(core, json_pack("{s:s, s:s, s:s, s:b, s:i, s:i}", "type", "mirror", "device", "d",
                                  "target", "slow", "converge", converge, "converge-floor", 65536,
                                  "granularity", 16384));
    uint64_t end_ns = ash_loop_now(core->loop) + 20 * SECOND_NS;
    while (ash_job_state(job) < ASH_JOB_READY && ash_loop_now(core->loop) < end_ns) {
        ash_co_sleep(10000000);
    }
    bool ready = ash_job_state(job) == ASH_JOB_READY;
    busy->stop = true;
    core_join(core);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_FORCE_CANCEL, 0, NULL), 0);
    assert_int_equal(job_finish(core, job), -ECANCELED);
    assert_int_equal(ash_co_disk_close(busy->disk, NULL), 0);
    assert_int_equal(ash_node_unref(target), 0);
    while (!ash_list_empty(&ash_block_of(core->loop)->nodes)) {
        ash_co_sleep(1000);
    }
    return ready;
}

ASH_CO_FN static void converge_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct busy busy;
    assert_false(gets_ready(core, false, &busy));
    assert_true(gets_ready(core, true, &busy));
    /* Held back, but neither stalled nor to less than the floor. */
    assert_true(busy.longest_ns < SECOND_NS / 2);
}

static void a_busy_guest_is_held_back_until_the_target_is_equal(void **state)
{
    struct core core;
    (void)state;
    if (core_is_real()) {
        skip();
    }
    core_up(&core, core_first_seed());
    core_run(&core, converge_body, NULL);
    core_down(&core);
}

static void the_limit_is_what_the_target_can_bear(void **state)
{
    (void)state;
    const uint64_t M = MiB;
    /* It falls by itself: nothing is done. */
    assert_int_equal(ash_converge_next(0, M, false, 100 * M, 90 * M, 20 * M, 10 * M), 0);
    /* 10 MiB copied in a window and 20 dirtied: 7.5 of 20 of the rate of 80 MiB a second. */
    assert_int_equal(ash_converge_next(0, M, false, 100 * M, 110 * M, 10 * M, 20 * M), 30 * M);
    /* Never less than the floor, never more than before. */
    assert_int_equal(ash_converge_next(0, 40 * M, false, 100 * M, 110 * M, 10 * M, 20 * M), 40 * M);
    assert_int_equal(ash_converge_next(10 * M, M, false, 100 * M, 110 * M, 10 * M, 20 * M), 10 * M);
    /* Ready and nearly clean: it is lifted step by step. */
    assert_int_equal(ash_converge_next(10 * M, M, true, 2 * M, M, 2 * M, 2 * M), 20 * M);
    assert_int_equal(ash_converge_next(40 * M, M, true, 2 * M, M, 2 * M, 2 * M), 0);
    assert_int_equal(ash_converge_next(10 * M, M, false, 2 * M, M, 2 * M, 2 * M), 10 * M);
}

/* --- changing a mirror that runs --- */

ASH_CO_FN static void change_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk = job_raw_disk(core, "d", BUSY_BYTES);
    struct ash_job *job =
        job_start(core, json_pack("{s:s, s:s, s:s, s:s, s:s}", "type", "mirror", "device", "d",
                                  "target", core_file(core, "target", BUSY_BYTES), "format", "raw",
                                  "filter-node-name", "top"));
    job_wait_for(job, ASH_JOB_READY);
    struct ash_mirror_top *top = ash_mirror_top_of(ash_node_find(core->loop, "top"));
    assert_false(top->write_blocking);
    json_t *change = json_pack("{s:s}", "copy-mode", "write-blocking");
    assert_int_equal(ash_co_job_change(job, change, &error), 0);
    assert_true(top->write_blocking);
    json_object_set_new(change, "copy-mode", json_string("background"));
    json_object_set_new(change, "target", json_string("other"));
    assert_int_equal(ash_co_job_change(job, change, &error), -EINVAL);
    assert_true(top->write_blocking);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), 0);
    job_wait_for(job, ASH_JOB_CONCLUDED);
    assert_int_equal(ash_co_job_change(job, change, &error), -EPERM);
    json_decref(change);
    assert_int_equal(job_finish(core, job), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

static void the_copy_mode_changes_while_it_runs(void **state)
{
    struct core core;
    (void)state;
    core_up(&core, core_first_seed());
    core_run(&core, change_body, NULL);
    core_down(&core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mirroring_under_guests_makes_an_equal_disk),
        cmocka_unit_test(a_busy_guest_is_held_back_until_the_target_is_equal),
        cmocka_unit_test(the_limit_is_what_the_target_can_bear),
        cmocka_unit_test(the_copy_mode_changes_while_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
