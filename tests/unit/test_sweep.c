/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The sweep, with a kind of job whose ranges take as long as the test says: how much is in work at
 * once, what a pause waits for, and what an end by force does not wait for. */
#include "tests/unit/unit.h"
#include "job/job.h"
#include "job/sweep.h"
#include "tests/unit/core_rig.h"

enum { KIB = 1024, MIB = 1024 * 1024 };

struct toy {
    struct ash_job job;
    struct toy_sweep *sweep;
    uint64_t ranges;
    uint64_t range_bytes;
    bool forsakable;
};

struct toy_sweep {
    struct ash_sweep sweep;
    uint64_t ranges_left;
    uint64_t range_bytes;
};

static struct {
    uint32_t in_work;
    uint32_t in_work_max;
    uint64_t bytes;
    uint64_t bytes_max;
    uint64_t copied;
    uint64_t done;
    uint64_t looks;
    unsigned released;
    bool held;           /* ranges in work stay there */
    uint64_t sizes[256]; /* of the ranges, as handed out */
} seen;

static uint64_t takes_ns = 1000; /* a range */
static uint64_t slow_ranges;     /* the first so many take 0.6 s */

static uint64_t force_at; /* the job is ended by force in the look of this number; 0: in none */

static const struct ash_option toy_options[] = {
    ASH_OPTION_UINT("ranges", struct toy, ranges),
    ASH_OPTION_SIZE("range-bytes", struct toy, range_bytes),
    ASH_OPTION_BOOL("forsakable", struct toy, forsakable),
    ASH_OPTION_END,
};

ASH_CO_FN static int toy_next(struct ash_sweep *sweep, uint64_t *offset, uint64_t *bytes)
{
    struct toy_sweep *toy = ash_container_of(sweep, struct toy_sweep, sweep);
    *offset = 0;
    uint64_t most = toy->range_bytes != 0 ? toy->range_bytes : sweep->piece_bytes;
    *bytes = toy->ranges_left > 0 ? most : 0;
    seen.sizes[seen.looks % ASH_ARRAY_SIZE(seen.sizes)] = *bytes;
    if (++seen.looks == force_at) {
        sweep->job->cancelled = sweep->job->forced = true;
    }
    toy->ranges_left -= toy->ranges_left > 0;
    return 0;
}

ASH_CO_FN static int toy_copy(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes,
                              bool *reading)
{
    (void)sweep;
    (void)offset;
    *reading = false;
    seen.in_work++;
    seen.bytes += bytes;
    seen.in_work_max = ASH_MAX(seen.in_work_max, seen.in_work);
    seen.bytes_max = ASH_MAX(seen.bytes_max, seen.bytes);
    do {
        ash_co_sleep(seen.looks <= slow_ranges ? 600000000 : takes_ns);
    } while (seen.held);
    seen.in_work--;
    seen.bytes -= bytes;
    seen.copied++;
    return 0;
}

static void toy_done(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes, int ret)
{
    (void)sweep;
    (void)offset;
    (void)bytes;
    (void)ret;
    seen.done++;
}

ASH_CO_FN static void toy_release(struct ash_sweep *sweep)
{
    assert_int_equal(seen.in_work, 0);
    seen.released++;
    g_free(ash_container_of(sweep, struct toy_sweep, sweep));
}

static const struct ash_sweep_ops toy_sweep_ops = {
    .next = toy_next,
    .copy = toy_copy,
    .done = toy_done,
    .release = toy_release,
};

static struct toy *toy_of(struct ash_job *job)
{
    return ash_container_of(job, struct toy, job);
}

ASH_CO_FN static int toy_start(struct ash_job *job, struct ash_error *error)
{
    struct toy *toy = toy_of(job);
    (void)error;
    toy->sweep = g_new0(struct toy_sweep, 1);
    toy->sweep->ranges_left = toy->ranges;
    toy->sweep->range_bytes = toy->range_bytes;
    ash_sweep_init(&toy->sweep->sweep, &toy_sweep_ops, job);
    toy->sweep->sweep.forsakable = toy->forsakable;
    return 0;
}

ASH_CO_FN static int toy_run(struct ash_job *job, struct ash_error *error)
{
    (void)error;
    return ash_sweep_run(&toy_of(job)->sweep->sweep);
}

ASH_CO_FN static void toy_clean(struct ash_job *job)
{
    ash_sweep_drop(&toy_of(job)->sweep->sweep);
}

static const struct ash_job_driver toy_driver = {
    .type = "toy",
    .job_size = sizeof(struct toy),
    .options = toy_options,
    .start = toy_start,
    .run = toy_run,
    .clean = toy_clean,
};

/* In place of the library's. */
const struct ash_job_driver *const ash_job_drivers[] = {&toy_driver, NULL};

ASH_CO_FN static struct ash_job *start(struct core *core, uint64_t ranges, uint64_t range_bytes,
                                       bool forsakable)
{
    struct ash_job *job;
    memset(&seen, 0, sizeof(seen));
    json_t *description =
        json_pack("{s:s, s:s, s:I, s:I, s:b, s:b}", "type", "toy", "job-id", "toy", "ranges",
                  (json_int_t)ranges, "range-bytes", (json_int_t)range_bytes, "forsakable",
                  forsakable, "auto-dismiss", 0);
    assert_int_equal(ash_co_job_start(core->loop, description, NULL, NULL, &job, NULL), 0);
    json_decref(description);
    return job;
}

/* For a while, in which all that can happen has happened. */
ASH_CO_FN static void settle(void)
{
    for (unsigned i = 0; i < 50; i++) {
        ash_co_sleep(1000);
    }
}

ASH_CO_FN static int end(struct ash_job *job)
{
    for (unsigned i = 0; ash_job_state(job) != ASH_JOB_CONCLUDED; i++) {
        assert_true(i < 100000);
        ash_co_sleep(1000);
    }
    int ret = job->ret;
    assert_int_equal(ash_co_job_control(job, ASH_JOB_DISMISS, 0, NULL), 0);
    ash_job_unref(job);
    return ret;
}

CORE_TEST(so_many_ranges_and_bytes_are_in_work_and_no_more)
{
    (void)opaque;
    assert_int_equal(end(start(core, 300, 64 * KIB, false)), 0);
    assert_int_equal(seen.in_work_max, 16);
    assert_int_equal(seen.done, 300);
    assert_int_equal(end(start(core, 60, 8 * MIB, false)), 0);
    assert_int_equal(seen.bytes_max, 64 * MIB);
    assert_int_equal(seen.done, 60);
    assert_int_equal(end(start(core, 3, 100 * MIB, false)), 0);
    assert_int_equal(seen.in_work_max, 1);
    assert_int_equal(seen.done, 3);
}

/* ranges: in work, held ........................ end
 * job:                   pause   still running      paused   goes on */
CORE_TEST(a_job_counts_as_paused_when_nothing_is_in_work_any_more)
{
    (void)opaque;
    struct ash_job *job = start(core, 100, 64 * KIB, false);
    seen.held = true;
    settle();
    assert_int_equal(seen.in_work, 16);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_PAUSE, 0, NULL), 0);
    settle();
    assert_int_equal(ash_job_state(job), ASH_JOB_RUNNING);
    seen.held = false;
    for (unsigned i = 0; ash_job_state(job) != ASH_JOB_PAUSED; i++) {
        assert_true(i < 1000);
        ash_co_sleep(100);
    }
    uint64_t copied = seen.copied;
    assert_int_equal(seen.in_work, 0);
    settle();
    assert_int_equal(seen.copied, copied);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_RESUME, 0, NULL), 0);
    assert_int_equal(end(job), 0);
    assert_int_equal(seen.done, 100);
}

/* How many of the ranges had this size; those of each size follow one another. */
static unsigned count_of(uint64_t bytes, uint64_t ranges)
{
    unsigned count = 0;
    for (uint64_t i = 0; i < ranges; i++) {
        count += seen.sizes[i] == bytes;
    }
    return count;
}

ASH_CO_FN static void end_slowly(struct ash_job *job)
{
    while (ash_job_state(job) != ASH_JOB_CONCLUDED) {
        ash_co_sleep(100000000);
    }
    assert_int_equal(end(job), 0);
}

/* Each is in work with 15 others, which say the same and are heard once. */
CORE_TEST(ranges_get_smaller_where_they_take_long_and_larger_where_they_do_not)
{
    (void)opaque;
    slow_ranges = 128;
    end_slowly(start(core, 200, 0, false));
    slow_ranges = 0;
    assert_int_equal(seen.sizes[0], 1 * MIB);
    assert_int_equal(seen.sizes[127], 64 * KIB);
    assert_int_equal(seen.sizes[199], 1 * MIB);
    for (uint64_t bytes = 128 * KIB; bytes <= 512 * KIB; bytes *= 2) {
        assert_true(count_of(bytes, 128) >= 15);
    }
    for (unsigned i = 1; i < 200; i++) {
        assert_true(seen.sizes[i] >= seen.sizes[i - 1] / 2);
        assert_true(seen.sizes[i] >= 64 * KIB && seen.sizes[i] <= 1 * MIB);
    }
    takes_ns = 300000000; /* neither long nor short */
    end_slowly(start(core, 100, 0, false));
    takes_ns = 1000;
    assert_int_equal(count_of(1 * MIB, 100), 100);
}

CORE_TEST(an_end_by_force_waits_for_ranges_that_cannot_be_forsaken)
{
    (void)opaque;
    struct ash_job *job = start(core, 100, 64 * KIB, false);
    seen.held = true;
    settle();
    assert_int_equal(ash_co_job_control(job, ASH_JOB_FORCE_CANCEL, 0, NULL), 0);
    settle();
    assert_int_equal(ash_job_state(job), ASH_JOB_RUNNING);
    seen.held = false;
    assert_int_equal(end(job), -ECANCELED);
    assert_int_equal(seen.released, 1);
    assert_int_equal(seen.done, seen.copied);
}

CORE_TEST(ranges_that_were_forsaken_free_what_they_use_when_the_last_has_ended)
{
    (void)opaque;
    struct ash_job *job = start(core, 100, 64 * KIB, true);
    seen.held = true;
    settle();
    assert_int_equal(ash_co_job_control(job, ASH_JOB_FORCE_CANCEL, 0, NULL), 0);
    settle();
    assert_int_equal(ash_job_state(job), ASH_JOB_CONCLUDED);
    assert_int_equal(end(job), -ECANCELED);
    assert_int_equal(seen.in_work, 16);
    assert_int_equal(seen.released, 0);
    seen.held = false;
    settle();
    assert_int_equal(seen.in_work, 0);
    assert_int_equal(seen.released, 1);
    assert_int_equal(seen.done, 0);
}

/* As when the job was ended while it looked, and had not been woken yet: nobody wakes it again. */
ASH_CO_FN static void force_in_look(struct core *core, uint64_t ranges, uint64_t number)
{
    force_at = number;
    struct ash_job *job = start(core, ranges, 64 * KIB, true);
    seen.held = true;
    settle();
    force_at = 0;
    assert_int_equal(seen.looks, number);
    assert_int_equal(end(job), -ECANCELED);
    seen.held = false;
    settle();
    assert_int_equal(seen.released, 1);
}

CORE_TEST(an_end_by_force_is_noticed_when_it_came_during_a_look)
{
    (void)opaque;
    force_in_look(core, 100, 17); /* no room for what was found */
    force_in_look(core, 3, 4);    /* nothing was found */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(so_many_ranges_and_bytes_are_in_work_and_no_more),
        cmocka_unit_test(a_job_counts_as_paused_when_nothing_is_in_work_any_more),
        cmocka_unit_test(ranges_get_smaller_where_they_take_long_and_larger_where_they_do_not),
        cmocka_unit_test(an_end_by_force_waits_for_ranges_that_cannot_be_forsaken),
        cmocka_unit_test(ranges_that_were_forsaken_free_what_they_use_when_the_last_has_ended),
        cmocka_unit_test(an_end_by_force_is_noticed_when_it_came_during_a_look),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
