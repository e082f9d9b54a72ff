/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What mailing lists have reported of other block layers' jobs, a test for each: a write that races
 * the pivot, a drain during a throttled sleep, a node that its own job's end removes, a discard
 * that races copy-before-write. More of them are in test_job_race.c. */
#include "tests/unit/unit.h"
#include "block/filter/fault.h"
#include "block/graph/block.h"
#include "block/image/image.h"
#include "tests/unit/job_rig.h"

#define CLUSTER (64 * KiB)
#define SECTOR 512
#define SECOND_NS UINT64_C(1000000000)

/* --- a write that races the pivot --- */

#define SLOTS 64 /* of a cluster each; a writer has each WRITERS-th */
#define WRITERS 4
#define DISK_BYTES (SLOTS * CLUSTER)

struct race {
    struct ash_disk *disk;
    bool stop;
    uint64_t acknowledged[SLOTS]; /* the newest number that was written there */
    uint64_t count;               /* of all that was acknowledged */
};

struct race_writer {
    struct race *race;
    unsigned first;
};

/* The longest rest between two writes, so that a mirror gets ready beside them: on a slow machine,
 * as under ThreadSanitizer, the writers are slower too when they have gone on for a while. */
static uint64_t rest_ns_max(const struct core *core, uint64_t begin_ns)
{
    if (!core_is_real()) {
        return 100000;
    }
    return ash_loop_now(core->loop) - begin_ns < 300000000 ? 4000000 : 40000000;
}

static void write_on(struct core *core, void *opaque)
{
    struct race_writer *writer = opaque;
    struct race *race = writer->race;
    uint64_t begin_ns = ash_loop_now(core->loop);
    ash_co_assert_inside();
    for (uint64_t number = 1; !race->stop; number++) {
        uint64_t data[SECTOR / 8] = {number};
        unsigned slot =
            writer->first + WRITERS * (unsigned)ash_prng_below(&core->prng, SLOTS / WRITERS);
        assert_int_equal(ash_disk_write(race->disk, slot * CLUSTER, data, SECTOR, 0), 0);
        race->acknowledged[slot] = number;
        race->count++;
        ash_co_sleep(ash_prng_below(&core->prng, rest_ns_max(core, begin_ns)));
    }
}

static unsigned raced; /* runs in which a write was acknowledged while the job ended */

/* What was acknowledged, before and after the pivot, is in the image that is on top now. */
ASH_CO_FN static void race_ends(struct core *core, struct race *race, struct ash_job *job)
{
    job_wait_for(job, ASH_JOB_READY);
    ash_co_sleep(ash_prng_below(&core->prng, 60000));
    uint64_t before = race->count;
    assert_int_equal(ash_co_job_control(job, ASH_JOB_COMPLETE, 0, NULL), 0);
    assert_int_equal(job_finish(core, job), 0);
    raced += race->count > before;
    ash_co_sleep(1000000);
    race->stop = true;
    core_join(core);
    assert_int_equal(ash_co_disk_close(race->disk, NULL), 0);
}

ASH_CO_FN static void expect_acknowledged(const struct race *race, struct ash_disk *top)
{
    for (unsigned slot = 0; slot < SLOTS; slot++) {
        uint64_t data[SECTOR / 8];
        assert_int_equal(ash_disk_read(top, slot * CLUSTER, data, SECTOR), 0);
        assert_int_equal(data[0], race->acknowledged[slot]);
    }
    assert_int_equal(ash_co_disk_close(top, NULL), 0);
}

ASH_CO_FN static void start_writers(struct core *core, struct race *race,
                                    struct race_writer *writers)
{
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct race_writer){race, i};
        core_spawn(core, write_on, &writers[i]);
    }
    ash_co_sleep(ash_prng_below(&core->prng, 30000));
}

static void mirror_race_body(struct core *core, void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    struct race race = {.disk = job_raw_disk(core, "d", DISK_BYTES)};
    struct race_writer writers[WRITERS];
    start_writers(core, &race, writers);
    struct ash_job *job =
        job_start(core, json_pack("{s:s, s:s, s:s, s:s, s:s}", "type", "mirror", "device", "d",
                                  "target", core_file(core, "t", 0), "format", "raw", "copy-mode",
                                  core->seed % 2 == 0 ? "background" : "write-blocking"));
    race_ends(core, &race, job);
    expect_acknowledged(&race, job_raw_disk(core, "t", -1));
}

static void a_write_that_races_the_pivot_of_a_mirror_is_in_the_target(void **state)
{
    (void)state;
    raced = 0;
    job_run_seeds(core_is_real() ? 6 : 40, mirror_race_body);
    assert_true(raced > 0 || core_is_real() || getenv("SEED") != NULL);
}

ASH_CO_FN static struct ash_disk *open_qcow2(struct core *core, const char *name, json_t *backing)
{
    struct ash_disk *disk = NULL;
    json_t *description =
        json_pack("{s:s, s:s, s:o, s:{s:s, s:s}}", "driver", "qcow2", "node-name", name, "backing",
                  backing, "file", "driver", "file", "filename", core_file(core, name, -1));
    assert_int_equal(
        ash_co_disk_open(core->loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, NULL),
        0);
    json_decref(description);
    return disk;
}

ASH_CO_FN static void create_qcow2(struct core *core, const char *name)
{
    assert_int_equal(
        ash_image_create(core->loop, core_file(core, name, -1), "qcow2", DISK_BYTES, NULL, NULL),
        0);
}

static json_t *describe_base(struct core *core)
{
    return json_pack("{s:s, s:s, s:n, s:{s:s, s:s}}", "driver", "qcow2", "node-name", "base",
                     "backing", "file", "driver", "file", "filename", core_file(core, "base", -1));
}

static void commit_race_body(struct core *core, void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    create_qcow2(core, "base");
    create_qcow2(core, "top");
    struct race race = {.disk = open_qcow2(core, "top", describe_base(core))};
    struct race_writer writers[WRITERS];
    start_writers(core, &race, writers);
    struct ash_job *job =
        job_start(core, json_pack("{s:s, s:s}", "type", "commit", "device", "top"));
    race_ends(core, &race, job);
    expect_acknowledged(&race, open_qcow2(core, "base", json_null()));
}

static void a_write_that_races_the_pivot_of_a_commit_is_in_base(void **state)
{
    (void)state;
    raced = 0;
    job_run_seeds(core_is_real() ? 6 : 40, commit_race_body);
    assert_true(raced > 0 || core_is_real() || getenv("SEED") != NULL);
}

/* --- a drain during a throttled sleep --- */

/* A chain of which each job has something to do, that takes more than an hour. */
ASH_CO_FN static struct ash_disk *sleepy_disk(struct core *core)
{
    uint8_t *data = g_malloc(CLUSTER * 2);
    create_qcow2(core, "base");
    create_qcow2(core, "mid");
    create_qcow2(core, "top");
    const char *const layers[] = {"base", "mid"};
    for (unsigned i = 0; i < 2; i++) {
        struct ash_disk *disk = open_qcow2(core, layers[i], json_null());
        memset(data, 1 + (int)i, CLUSTER * 2);
        for (unsigned slot = 0; slot < SLOTS; slot += 16) {
            assert_int_equal(ash_disk_write(disk, slot * CLUSTER, data, CLUSTER * 2, 0), 0);
        }
        assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    }
    g_free(data);
    json_t *mid = json_pack("{s:s, s:s, s:o, s:{s:s, s:s}}", "driver", "qcow2", "node-name", "mid",
                            "backing", describe_base(core), "file", "driver", "file", "filename",
                            core_file(core, "mid", -1));
    return open_qcow2(core, "top", mid);
}

/* job:   copies, sleeps ................................................ is cancelled
 * disk:                 is paused; gets a filter; becomes read-only; at once          */
ASH_CO_FN static void drain_one(struct core *core, json_t *description)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk = sleepy_disk(core);
    json_object_set_new(description, "speed", json_integer(1000));
    struct ash_job *job = job_start(core, description);
    ash_co_sleep(SECOND_NS / 10);
    assert_int_equal(ash_job_state(job), ASH_JOB_RUNNING);
    uint64_t begin_ns = ash_loop_now(core->loop);
    assert_int_equal(ash_disk_pause(disk, begin_ns + SECOND_NS / 4), 0);
    ash_disk_resume(disk);
    json_t *filter = json_pack("{s:s, s:s, s:s}", "driver", "throttle", "node-name", "f", "file",
                               ash_disk_node(disk)->name);
    assert_int_equal(ash_graft_insert_filter(core->loop, filter, &error), 0);
    json_decref(filter);
    assert_int_equal(ash_graft_remove_filter(core->loop, "f", &error), 0);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_PAUSE, 0, NULL), 0);
    job_wait_for(job, ASH_JOB_PAUSED);
    assert_int_equal(ash_job_state(job), ASH_JOB_PAUSED);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_RESUME, 0, NULL), 0);
    assert_true(ash_loop_now(core->loop) - begin_ns < SECOND_NS / 4);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), 0);
    assert_int_equal(job_finish(core, job), -ECANCELED);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(a_drain_during_a_throttled_sleep_does_not_wait_for_the_sleep)
{
    (void)opaque;
    drain_one(core, json_pack("{s:s, s:s}", "type", "stream", "device", "top"));
    drain_one(core,
              json_pack("{s:s, s:s, s:s}", "type", "commit", "device", "top", "top-node", "mid"));
    drain_one(core, json_pack("{s:s, s:s}", "type", "commit", "device", "top"));
    drain_one(core, json_pack("{s:s, s:s, s:s, s:s}", "type", "mirror", "device", "top", "target",
                              core_file(core, "t", 0), "format", "raw"));
    drain_one(core, json_pack("{s:s, s:s, s:s, s:s}", "type", "backup", "device", "top", "target",
                              core_file(core, "t", 0), "format", "raw"));
}

/* --- a node that its own job's end removes --- */

struct hearer {
    struct core *core;
    struct ash_job *job;
    bool heard;
};

ASH_CO_FN static void expect_gone(struct core *core, const char *name)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    assert_null(ash_node_find(core->loop, name));
    json_t *description = json_pack("{s:s, s:s}", "type", "stream", "device", name);
    assert_int_equal(ash_co_job_start(core->loop, description, NULL, NULL, &job, &error), -ENODEV);
    json_decref(description);
    assert_non_null(strstr(error.message, name));
    assert_int_equal(ash_graft_remove_filter(core->loop, name, &error), -EINVAL);
    assert_non_null(strstr(error.message, name));
}

static void name_what_went(struct core *core, void *opaque)
{
    struct hearer *hearer = opaque;
    ash_co_assert_inside();
    expect_gone(core, "filter");
    expect_gone(core, "d");
    assert_null(ash_job_find(core->loop, "job"));
    assert_int_equal(ash_co_job_control(hearer->job, ASH_JOB_CANCEL, 0, NULL), -EPERM);
}

static void hear(void *opaque, struct ash_job *job, enum ash_job_event event)
{
    struct hearer *hearer = opaque;
    (void)event;
    if (ash_job_state(job) == ASH_JOB_NULL && !hearer->heard) {
        hearer->heard = true;
        hearer->job = job;
        ash_job_ref(job);
        core_spawn(hearer->core, name_what_went, hearer);
    }
}

/* mirror: ends: its filter, and its source, go with it; it is dismissed by itself
 * host:                       hears of it, and names them */
CORE_TEST(a_node_that_went_with_its_own_jobs_end_is_named_in_vain)
{
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct hearer hearer = {.core = core};
    struct ash_job *job;
    struct ash_disk *disk = job_raw_disk(core, "d", MiB);
    json_t *description = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "type", "mirror", "job-id",
                                    "job", "device", "d", "target", core_file(core, "t", 0),
                                    "format", "raw", "filter-node-name", "filter");
    assert_int_equal(ash_co_job_start(core->loop, description, hear, &hearer, &job, &error), 0);
    json_decref(description);
    job_wait_for(job, ASH_JOB_READY);
    assert_ptr_equal(ash_disk_node(disk), ash_node_find(core->loop, "filter"));
    assert_int_equal(ash_graft_remove_filter(core->loop, "filter", &error), -EBUSY);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_COMPLETE, 0, NULL), 0);
    job_wait_for(job, ASH_JOB_NULL);
    core_join(core);
    ash_co_sleep(1000000);
    core_join(core);
    assert_true(hearer.heard);
    assert_string_equal(ash_disk_node(disk)->driver->name, "raw");
    ash_job_unref(hearer.job);
    ash_job_unref(job);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* mirror of mid: its filter in the chain .............. ends, takes the filter out
 * stream:                                  is refused, would rely on it            */
CORE_TEST(a_chain_with_the_filter_of_another_job_in_it_is_not_relied_on)
{
    (void)opaque;
    struct ash_job *refused;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk = sleepy_disk(core);
    struct ash_job *mirror =
        job_start(core, json_pack("{s:s, s:s, s:s, s:s, s:s}", "type", "mirror", "device", "mid",
                                  "filter-node-name", "above", "target", core_file(core, "t", 0),
                                  "format", "raw"));
    job_wait_for(mirror, ASH_JOB_READY);
    json_t *description = json_pack("{s:s, s:s}", "type", "stream", "device", "top");
    assert_int_equal(ash_co_job_start(core->loop, description, NULL, NULL, &refused, &error),
                     -EBUSY);
    assert_non_null(strstr(error.message, "Filter 'above' of another job"));
    assert_int_equal(ash_co_job_control(mirror, ASH_JOB_CANCEL, 0, NULL), 0);
    assert_int_equal(job_finish(core, mirror), 0);
    assert_int_equal(job_finish(core, job_start(core, description)), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* --- a discard that races copy-before-write --- */

#define OLD_BYTES (16 * CLUSTER)

struct discarder {
    struct ash_disk *disk;
    uint64_t offset;
    uint64_t bytes;
    bool done;
};

static void discard_once(struct core *core, void *opaque)
{
    struct discarder *discarder = opaque;
    (void)core;
    ash_co_assert_inside();
    assert_int_equal(ash_disk_discard(discarder->disk, discarder->offset, discarder->bytes), 0);
    discarder->done = true;
}

ASH_CO_FN static struct ash_disk *old_disk(struct core *core)
{
    struct ash_disk *disk = job_raw_disk(core, "d", OLD_BYTES);
    uint8_t *old = g_malloc(OLD_BYTES);
    memset(old, 1, OLD_BYTES);
    assert_int_equal(ash_disk_write(disk, 0, old, OLD_BYTES, 0), 0);
    g_free(old);
    return disk;
}

/* All of a raw image. */
ASH_CO_FN static void expect_old(struct core *core, const char *name)
{
    struct ash_disk *disk = job_raw_disk(core, name, -1);
    uint8_t *data = g_malloc(OLD_BYTES);
    assert_int_equal(ash_disk_read(disk, 0, data, OLD_BYTES), 0);
    for (uint64_t i = 0; i < OLD_BYTES; i++) {
        if (data[i] != 1) {
            print_message("byte %lu is %u\n", (unsigned long)i, data[i]);
        }
        assert_int_equal(data[i], 1);
    }
    g_free(data);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

ASH_CO_FN static struct ash_job *back_up(struct core *core, const char *sync)
{
    return job_start(core, json_pack("{s:s, s:s, s:s, s:s, s:i}", "type", "backup", "device", "d",
                                     "target", "t", "sync", sync, "speed", 1));
}

/* backup:            copies for the guest, held ...................... ends
 * guest:  discards, waits ......... finds the old data where it reads ...... is done */
CORE_TEST(a_discard_waits_for_the_copy_of_what_it_discards)
{
    (void)opaque;
    struct ash_disk *disk = old_disk(core);
    struct discarder discarder = {.disk = disk, .bytes = OLD_BYTES};
    struct ash_node *target = job_faulty_node(core, "t", OLD_BYTES, json_object());
    struct ash_job *job = back_up(core, "none");
    uint8_t sector[SECTOR];
    for (unsigned i = 0; i < 2 * OLD_BYTES / CLUSTER; i++) {
        assert_int_equal(ash_fault_break(target, "write_aio", "held"), 0);
    }
    core_spawn(core, discard_once, &discarder);
    for (unsigned i = 0; !ash_fault_is_suspended(target, "held"); i++) {
        assert_true(i < 100000);
        ash_co_sleep(10000);
    }
    ash_co_sleep(1000000);
    assert_false(discarder.done);
    for (uint64_t at = 0; at < OLD_BYTES; at += CLUSTER) {
        assert_int_equal(ash_disk_read(disk, at, sector, SECTOR), 0);
        assert_int_equal(sector[0], 1);
    }
    assert_int_equal(ash_fault_remove_break(target, "held"), 0);
    core_join(core);
    assert_int_equal(ash_disk_read(disk, 0, sector, SECTOR), 0);
    assert_int_equal(sector[0], 0);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), 0);
    assert_int_equal(job_finish(core, job), -ECANCELED);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    ash_node_unref(target);
    expect_old(core, "t");
}

static void discard_body(struct core *core, void *opaque)
{
    struct discarder discarders[8];
    (void)opaque;
    ash_co_assert_inside();
    struct ash_disk *disk = old_disk(core);
    (void)core_file(core, "t", OLD_BYTES);
    struct ash_job *job =
        job_start(core, json_pack("{s:s, s:s, s:s, s:s}", "type", "backup", "device", "d", "target",
                                  core_file(core, "t", -1), "format", "raw"));
    for (unsigned i = 0; i < 8; i++) {
        uint64_t offset = ash_prng_below(&core->prng, OLD_BYTES / 4096) * 4096;
        uint64_t bytes = ash_prng_between(&core->prng, 1, OLD_BYTES - offset);
        discarders[i] = (struct discarder){.disk = disk, .offset = offset, .bytes = bytes};
        core_spawn(core, discard_once, &discarders[i]);
        ash_co_sleep(ash_prng_below(&core->prng, 10000));
    }
    core_join(core);
    assert_int_equal(job_finish(core, job), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    expect_old(core, "t");
}

static void a_discard_that_races_a_backup_leaves_it_the_old_data(void **state)
{
    (void)state;
    job_run_seeds(core_is_real() ? 6 : 60, discard_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_write_that_races_the_pivot_of_a_mirror_is_in_the_target),
        cmocka_unit_test(a_write_that_races_the_pivot_of_a_commit_is_in_base),
        cmocka_unit_test(a_drain_during_a_throttled_sleep_does_not_wait_for_the_sleep),
        cmocka_unit_test(a_node_that_went_with_its_own_jobs_end_is_named_in_vain),
        cmocka_unit_test(a_chain_with_the_filter_of_another_job_in_it_is_not_relied_on),
        cmocka_unit_test(a_discard_waits_for_the_copy_of_what_it_discards),
        cmocka_unit_test(a_discard_that_races_a_backup_leaves_it_the_old_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
