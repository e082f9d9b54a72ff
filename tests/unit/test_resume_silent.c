/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs whose state file never answers, or only slowly: they end in time, and guests go on. */
#include "tests/unit/resume_machine.h"
#include "util/compiler.h"

#define END_NS_MAX UINT64_C(1000000000) /* from force-cancel to the end, both graces included */

struct late_write {
    struct machine *m;
    uint64_t offset;
    uint64_t after_ns;
    uint64_t took_ns;
    bool done;
    int ret;
};

static void write_late(void *opaque)
{
    struct late_write *late = opaque;
    static uint8_t data[SECTOR] = {1};
    ash_co_assert_inside();
    ash_co_sleep(late->after_ns);
    uint64_t begin_ns = ash_loop_now(late->m->rig.loop);
    late->ret = disk_io(late->m->disk, ASH_WRITE, late->offset, data, SECTOR);
    late->took_ns = ash_loop_now(late->m->rig.loop) - begin_ns;
    late->done = true;
}

static void hold_file(struct machine *m)
{
    ash_sim_hold(m->rig.world, "state", ASH_AIO_WRITE, 0, INT64_MAX);
    ash_sim_hold(m->rig.world, "state", ASH_AIO_FLUSH, 0, INT64_MAX);
}

ASH_CO_FN static struct ash_job *start_job(struct machine *m)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    int ret = start(m, m->disk, &job, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(ret, 0);
    return job;
}

ASH_CO_FN static void end_in_time(struct machine *m, struct ash_job *job)
{
    uint64_t begin_ns = ash_loop_now(m->rig.loop);
    assert_true(ash_sim_held(m->rig.world) > 0);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_FORCE_CANCEL, 0, NULL), 0);
    while (ash_job_state(job) != ASH_JOB_CONCLUDED) {
        assert_true(ash_loop_now(m->rig.loop) - begin_ns < END_NS_MAX);
        ash_co_sleep(1000000);
    }
    end_job(job);
}

/* What was held ends, and the disk is closed. */
ASH_CO_FN static void release_file(struct machine *m)
{
    ash_sim_release_all(m->rig.world);
    ash_co_sleep(100000000);
    assert_int_equal(ash_co_disk_close(m->disk, NULL), 0);
}

/* job:    begins; runs, so that parts are clear .. file held .......... ended by force
 * guests:                                            write, some wait ................ go on */
static int end_beside_guests(void *opaque)
{
    struct machine *m = opaque;
    struct late_write late[4];
    unsigned waiting = 0;
    ash_co_assert_inside();
    m->disk = open_disk(&m->rig, m->seed, "source");
    struct ash_job *job = start_job(m);
    guest(m, m->disk, strcmp(m->type, "mirror") == 0 ? 400 : 20);
    hold_file(m);
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(late); i++) {
        late[i] = (struct late_write){.m = m, .offset = i * MiB + MiB / 2};
        assert_int_equal(ash_co_spawn(&m->rig.loop->sched, write_late, &late[i]), 0);
    }
    ash_co_sleep(1000000000);
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(late); i++) {
        waiting += !late[i].done;
        late[i].ret += late[i].done ? 1000 : 0;
    }
    assert_true(waiting > 0);
    end_in_time(m, job);
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(late); i++) {
        assert_true(late[i].done);
        assert_int_equal(late[i].ret, late[i].ret >= 1000 ? 1000 : m->version_2 ? -EIO : 0);
    }
    release_file(m);
    return 0;
}

/* job:    has copied all, is pending .. file held .. is to end ......... has failed
 * guest:                                                     writes ......... goes on */
static int end_in_vain(void *opaque)
{
    struct machine *m = opaque;
    bool mirror = strcmp(m->type, "mirror") == 0;
    struct late_write late = {.m = m, .after_ns = END_NS_MAX};
    ash_co_assert_inside();
    m->disk = open_disk(&m->rig, m->seed, "source");
    struct ash_job *job = start_job(m);
    job->auto_finalize = mirror;
    await(job, mirror ? ASH_JOB_READY : ASH_JOB_PENDING);
    ash_co_sleep(2 * END_NS_MAX);
    hold_file(m);
    uint64_t begin_ns = ash_loop_now(m->rig.loop);
    assert_int_equal(ash_co_spawn(&m->rig.loop->sched, write_late, &late), 0);
    assert_int_equal(ash_co_job_control(job, mirror ? ASH_JOB_COMPLETE : ASH_JOB_FINALIZE, 0, NULL),
                     0);
    while (ash_job_state(job) != ASH_JOB_CONCLUDED) {
        assert_true(ash_loop_now(m->rig.loop) - begin_ns < 6 * END_NS_MAX);
        ash_co_sleep(1000000);
    }
    assert_int_equal(job->ret, -ETIMEDOUT);
    assert_string_equal(job->error.message, "'state' does not answer");
    ash_co_sleep(100000000);
    assert_true(late.done);
    assert_int_equal(late.ret, 0);
    assert_true(!mirror || late.took_ns > 3 * END_NS_MAX);
    assert_string_equal(ash_disk_node(m->disk)->filename, "source");
    assert_string_equal(ash_disk_node(m->disk)->driver->name, "qcow2");
    end_job(job);
    release_file(m);
    return 0;
}

/* What was on its way to the file got there at last: it may say that the job has ended. */
static void a_job_fails_whose_file_never_answers_when_it_ends(void **state)
{
    static const char *const types[] = {"mirror", "backup"};
    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(types); i++) {
        struct machine *m = machine_new(types[i], 1, false);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, end_in_vain, m), 0);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
        assert_true(m->refused == -ESTALE || m->refused == -EEXIST);
        machine_free(m);
    }
}

/* It cannot be resumed then, as the source has changed. */
static void guests_go_on_who_wait_for_a_file_that_never_answers(void **state)
{
    static const char *const types[] = {"mirror", "backup"};
    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(types); i++) {
        struct machine *m = machine_new(types[i], 1, false);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, end_beside_guests, m), 0);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
        assert_true(m->refused == -ESTALE || m->refused == -EUCLEAN);
        machine_free(m);
    }
}

/* mirror: ready, parts are clear .. file held ........... waits to pause guests .. ended by force
 * guest:                                      writes, waits ...................... goes on */
static int end_while_completing(void *opaque)
{
    struct machine *m = opaque;
    struct late_write late = {.m = m, .offset = 2 * MiB};
    uint8_t data[SECTOR] = {1};
    ash_co_assert_inside();
    m->disk = open_disk(&m->rig, m->seed, "source");
    struct ash_job *job = start_job(m);
    await(job, ASH_JOB_READY);
    for (unsigned i = 0; i < 2; i++) { /* the second change has bits cleared */
        ash_co_sleep(2 * END_NS_MAX);
        assert_int_equal(disk_io(m->disk, ASH_WRITE, 0, data, SECTOR), 0);
    }
    ash_co_sleep(100000000);
    hold_file(m);
    assert_int_equal(ash_co_spawn(&m->rig.loop->sched, write_late, &late), 0);
    ash_co_sleep(100000000);
    assert_false(late.done);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_COMPLETE, 0, NULL), 0);
    ash_co_sleep(END_NS_MAX);
    assert_int_equal(ash_job_state(job), ASH_JOB_READY);
    assert_int_equal(ash_disk_node(m->disk)->own.pauses, 1);
    end_in_time(m, job);
    assert_true(late.done);
    assert_int_equal(late.ret, 0);
    assert_string_equal(ash_disk_node(m->disk)->filename, "source");
    assert_string_equal(ash_disk_node(m->disk)->driver->name, "qcow2");
    release_file(m);
    return 0;
}

static void a_mirror_that_is_completed_ends_whose_file_never_answers(void **state)
{
    (void)state;
    struct machine *m = machine_new("mirror", 1, false);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, end_while_completing, m), 0);
    machine_free(m);
}

/* Nothing would tell that the source has changed: the write must not be made. */
static void a_write_fails_that_a_file_that_never_answers_alone_could_tell_of(void **state)
{
    (void)state;
    struct machine *m = machine_new("mirror", 1, true);
    m->vouched = true;
    assert_int_equal(ash_loop_run_sync(m->rig.loop, end_beside_guests, m), 0);
    machine_free(m);
}

/* A mirror cannot begin; a backup has copied all, and cannot note it. */
static int end_alone(void *opaque)
{
    struct machine *m = opaque;
    ash_co_assert_inside();
    m->disk = open_disk(&m->rig, m->seed, "source");
    struct ash_job *job = start_job(m);
    hold_file(m);
    ash_co_sleep(UINT64_C(20000000000));
    assert_int_equal(ash_job_state(job), ASH_JOB_RUNNING);
    end_in_time(m, job);
    uint8_t data[SECTOR] = {2};
    assert_int_equal(disk_io(m->disk, ASH_WRITE, MiB, data, SECTOR), 0);
    release_file(m);
    return 0;
}

static void a_mirror_ends_whose_file_never_answers_when_it_begins(void **state)
{
    (void)state;
    struct machine *m = machine_new("mirror", 1, false);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, end_alone, m), 0);
    machine_free(m);
}

/* start:  pauses the guests, writes to the file, which is held ..... is refused
 * guest:                                     writes, waits ............. goes on */
static int start_in_vain(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    struct late_write late = {.m = m, .offset = MiB, .after_ns = END_NS_MAX};
    static const uint8_t nothing[4096];
    ash_co_assert_inside();
    assert_int_equal(ash_sim_file_write(m->rig.world, "state", 0, nothing, sizeof(nothing)), 0);
    m->disk = open_disk(&m->rig, m->seed, "source");
    uint64_t begin_ns = ash_loop_now(m->rig.loop);
    hold_file(m);
    assert_int_equal(ash_co_spawn(&m->rig.loop->sched, write_late, &late), 0);
    assert_int_equal(start(m, m->disk, &job, &error), -ETIMEDOUT);
    assert_string_equal(error.message, "'state' does not answer");
    assert_true(ash_sim_held(m->rig.world) > 0);
    assert_true(ash_loop_now(m->rig.loop) - begin_ns < 6 * END_NS_MAX);
    ash_co_sleep(100000000);
    assert_true(late.done);
    assert_int_equal(late.ret, 0);
    assert_true(late.took_ns > 3 * END_NS_MAX);
    assert_string_equal(ash_disk_node(m->disk)->driver->name, "qcow2");
    assert_int_equal(start(m, m->disk, &job, &error), -EAGAIN); /* the file is in use */
    release_file(m);
    return 0;
}

static void a_backup_is_refused_whose_file_never_answers_when_it_begins(void **state)
{
    (void)state;
    struct machine *m = machine_new("backup", 1, false);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_in_vain, m), 0);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
    assert_int_equal(m->refused, 0); /* nothing is left of it */
    machine_free(m);
}

/* A file that answers, but slowly, is waited for: each write takes as long as users are paused for
 * one that does not, almost. */
static int start_slowly(void *opaque)
{
    struct machine *m = opaque;
    ash_co_assert_inside();
    m->disk = open_disk(&m->rig, m->seed, "source");
    uint64_t begin_ns = ash_loop_now(m->rig.loop);
    end_job(start_job(m));
    assert_true(ash_loop_now(m->rig.loop) - begin_ns > 6 * END_NS_MAX);
    assert_int_equal(ash_co_disk_close(m->disk, NULL), 0);
    return 0;
}

static void a_backup_begins_whose_file_answers_slowly(void **state)
{
    (void)state;
    struct machine *m = machine_new("backup", 1, false);
    struct ash_sim_config config = {
        .seed = 1, .latency_ns_min = 2 * END_NS_MAX, .latency_ns_max = 3 * END_NS_MAX};
    ash_sim_world_configure(m->rig.world, &config);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_slowly, m), 0);
    machine_free(m);
}

/* start:  pauses the guests, writes to the file, whose last request is held ... given up, or begins
 *                                                               it answers ..
 * Either it is refused, or it is a job that nobody has ended. */
struct answer {
    struct machine *m;
    uint64_t after_ns;
    bool began;
};

/* After as many requests as have been answered until then, of 1 us each. */
#define LAST_REQUEST_NS UINT64_C(40500)

static void hold_then_release(void *opaque)
{
    const struct answer *answer = opaque;
    ash_co_assert_inside();
    ash_co_sleep(LAST_REQUEST_NS);
    hold_file(answer->m);
    ash_co_sleep(answer->after_ns - LAST_REQUEST_NS);
    ash_sim_release_all(answer->m->rig.world);
}

static int start_at_the_last_moment(void *opaque)
{
    struct answer *answer = opaque;
    struct machine *m = answer->m;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    m->disk = open_disk(&m->rig, m->seed, "source");
    assert_int_equal(ash_co_spawn(&m->rig.loop->sched, hold_then_release, answer), 0);
    int ret = start(m, m->disk, &job, &error);
    answer->began = ret == 0;
    if (ret == 0) {
        await(job, ASH_JOB_CONCLUDED);
        assert_int_equal(job->ret, 0);
        end_job(job);
    } else {
        assert_int_equal(ret, -ETIMEDOUT);
        ash_co_sleep(END_NS_MAX);
    }
    assert_int_equal(ash_co_disk_close(m->disk, NULL), 0);
    return 0;
}

static void a_backup_whose_file_answers_at_the_last_moment_begins_or_is_refused(void **state)
{
    (void)state;
    bool began[2] = {false, false};
    for (unsigned i = 0; i < 60; i++) {
        struct machine *m = machine_new("backup", 1, false);
        struct ash_sim_config config = {.seed = 1, .latency_ns_min = 1000, .latency_ns_max = 1000};
        assert_int_equal(ash_sim_file_write(m->rig.world, "state", 0, (uint8_t[4096]){0}, 4096), 0);
        struct answer answer = {m, 5 * END_NS_MAX + END_NS_MAX / 10 + i * 1000, false};
        ash_sim_world_configure(m->rig.world, &config);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, start_at_the_last_moment, &answer), 0);
        began[answer.began] = true;
        machine_free(m);
    }
    assert_true(began[true] && began[false]);
}

static void a_backup_ends_whose_file_never_answers_when_all_is_copied(void **state)
{
    (void)state;
    struct machine *m = machine_new("backup", 1, false);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, end_alone, m), 0);
    machine_free(m);
}

/* --- a target that never gets stable --- */

/* job:    copies, notes it, for which the target is flushed, held .. cancelled, not over .. over
 * others:                                                                        open the target */
static int cancel_while_noting(void *opaque)
{
    struct machine *m = opaque;
    bool mirror = strcmp(m->type, "mirror") == 0;
    struct late_write late = {.m = m, .offset = 3 * MiB, .after_ns = END_NS_MAX};
    ash_co_assert_inside();
    m->disk = open_disk(&m->rig, m->seed, "source");
    struct ash_job *job = start_job(m);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_SET_SPEED, mirror ? MiB : 64 * KiB, NULL), 0);
    ash_sim_hold(m->rig.world, "target", ASH_AIO_FLUSH, 0, INT64_MAX);
    assert_int_equal(ash_co_spawn(&m->rig.loop->sched, write_late, &late), 0);
    ash_co_sleep(5 * END_NS_MAX / 2);
    assert_true(ash_sim_held(m->rig.world) > 0);
    assert_int_equal(ash_job_state(job), ASH_JOB_RUNNING);
    assert_int_equal(late.done, mirror);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), 0);
    ash_co_sleep(END_NS_MAX);
    assert_int_equal(ash_job_state(job), ASH_JOB_RUNNING);
    assert_true(late.done); /* who waits for a copy is let go at once */
    assert_int_equal(late.ret, 0);
    ash_sim_release_all(m->rig.world);
    await(job, ASH_JOB_CONCLUDED);
    assert_int_equal(job->ret, -ECANCELED);
    assert_int_equal(ash_co_disk_close(open_disk(&m->rig, m->seed, "target"), NULL), 0);
    end_job(job);
    assert_int_equal(ash_co_disk_close(m->disk, NULL), 0);
    return 0;
}

static void a_job_that_was_cancelled_leaves_its_target_to_others(void **state)
{
    static const char *const types[] = {"mirror", "backup"};
    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(types); i++) {
        struct machine *m = machine_new(types[i], 1, false);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, cancel_while_noting, m), 0);
        machine_free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guests_go_on_who_wait_for_a_file_that_never_answers),
        cmocka_unit_test(a_mirror_that_is_completed_ends_whose_file_never_answers),
        cmocka_unit_test(a_write_fails_that_a_file_that_never_answers_alone_could_tell_of),
        cmocka_unit_test(a_mirror_ends_whose_file_never_answers_when_it_begins),
        cmocka_unit_test(a_backup_is_refused_whose_file_never_answers_when_it_begins),
        cmocka_unit_test(a_job_fails_whose_file_never_answers_when_it_ends),
        cmocka_unit_test(a_backup_begins_whose_file_answers_slowly),
        cmocka_unit_test(a_backup_whose_file_answers_at_the_last_moment_begins_or_is_refused),
        cmocka_unit_test(a_backup_ends_whose_file_never_answers_when_all_is_copied),
        cmocka_unit_test(a_job_that_was_cancelled_leaves_its_target_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
