/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs that go on after a crash. The power is cut at a random request of a machine on which a guest
 * writes beside a job; then the machine is started again, the job too, and a guest writes again. In
 * the end the target holds what the job promises: a mirror's the source, a backup's the moment of
 * its first start. */
#include "block/image/image.h"
#include "job/state.h"
#include "tests/unit/resume_machine.h"

/* Sanitized programs are slow. */
#if defined(ASH_CO_ASAN)
#define SEEDS 12
#else
#define SEEDS 120
#endif

static int first_life(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "source");
    guest(m, disk, 10); /* not all of it flushed when the job starts */
    assert_int_equal(disk_io(disk, ASH_READ, 0, m->moment, DISK_BYTES), 0);
    ash_sim_power_cut_at(m->rig.world, ash_prng_between(&m->prng, 1, 700), ASH_SIM_CUT_RANDOM);
    if (start(m, disk, &job, &error) == 0) {
        guest(m, disk, 150);
        m->over = ash_job_state(job) == ASH_JOB_CONCLUDED && job->ret == 0;
        end_job(job);
    }
    (void)!ash_co_disk_close(disk, NULL);
    return 0;
}

/* What the state file says of the job. */
enum phase { NOTHING, BEGUN, ENDED, BROKEN };

static enum phase phase_of(const struct machine *m)
{
    uint8_t sector[SECTOR] = {0};
    if (ash_sim_file_bytes(m->rig.world, "state") < SECTOR) {
        return NOTHING;
    }
    assert_int_equal(ash_sim_file_read(m->rig.world, "state", 0, sector, SECTOR), 0);
    return memcmp(sector, "ASHLARJ1", 8) == 0 ? (enum phase)sector[16] : NOTHING;
}

ASH_CO_FN static void expect_same(struct machine *m, const uint8_t *want, const char *what)
{
    struct ash_disk *target = open_disk(&m->rig, m->seed, "target");
    assert_int_equal(disk_io(target, ASH_READ, 0, m->copy, DISK_BYTES), 0);
    for (uint64_t i = 0; i < SECTORS; i++) {
        if (memcmp(m->copy + i * SECTOR, want + i * SECTOR, SECTOR) != 0) {
            fail_msg("seed %lu, %s of the %s: sector %lu has %#x, not %#x", (unsigned long)m->seed,
                     what, m->type, (unsigned long)i, m->copy[i * SECTOR], want[i * SECTOR]);
        }
    }
    assert_int_equal(ash_co_disk_close(target, NULL), 0);
}

ASH_CO_FN static void finish(struct machine *m, struct ash_disk *disk, struct ash_job *job)
{
    bool mirror = strcmp(m->type, "mirror") == 0;
    enum ash_job_state wanted = mirror ? ASH_JOB_READY : ASH_JOB_CONCLUDED;
    guest(m, disk, 20);
    while (ash_job_state(job) != wanted && ash_job_state(job) != ASH_JOB_CONCLUDED) {
        ash_co_sleep(1000000);
    }
    if (job->ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)m->seed, job->error.message);
    }
    if (mirror) {
        assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), 0);
        while (ash_job_state(job) != ASH_JOB_CONCLUDED) {
            ash_co_sleep(1000000);
        }
    }
    if (job->ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)m->seed, job->error.message);
    }
    assert_int_equal(job->ret, 0);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_DISMISS, 0, NULL), 0);
    ash_job_unref(job);
    assert_int_equal(disk_io(disk, ASH_READ, 0, m->now, DISK_BYTES), 0);
    expect_same(m, mirror ? m->now : m->moment, "the end");
}

struct meddler {
    struct machine *machine;
    struct ash_disk *disk;
    bool done;
};

/* Fills the disk with what it does not hold, while the job is started. */
static void meddle(void *opaque)
{
    struct meddler *meddler = opaque;
    ash_co_assert_inside();
    memset(meddler->machine->copy, 0xee, MiB);
    ash_co_sleep(ash_prng_below(&meddler->machine->prng, 60000000));
    for (uint64_t at = 0; at < DISK_BYTES; at += MiB) {
        assert_int_equal(disk_io(meddler->disk, ASH_WRITE, at, meddler->machine->copy, MiB), 0);
    }
    meddler->done = true;
}

static int second_life(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    bool begun = phase_of(m) == BEGUN;
    ash_co_assert_inside();
    struct ash_disk *disk =
        open_disk(&m->rig, m->seed, m->meddling == WITH_TARGET ? "target" : "source");
    struct meddler meddler = {m, disk, true};
    if (begun && m->meddling == AT_ONCE) {
        meddler.done = false;
        assert_int_equal(ash_co_spawn(&m->rig.loop->sched, meddle, &meddler), 0);
    } else if (begun && m->meddling != NOBODY) {
        assert_int_equal(disk_io(disk, ASH_WRITE, 0, m->now, SECTOR), 0);
    }
    if (m->meddling == WITH_TARGET) {
        assert_int_equal(ash_co_disk_close(disk, NULL), 0);
        disk = open_disk(&m->rig, m->seed, "source");
    }
    if (!begun) {
        assert_int_equal(disk_io(disk, ASH_READ, 0, m->moment, DISK_BYTES), 0);
    }
    int ret = start(m, disk, &job, &error);
    m->refused = ret;
    if (ret < 0 && (m->meddling == NOBODY || !begun)) {
        print_message("seed %lu: %s\n", (unsigned long)m->seed, error.message);
    }
    if (m->meddling == AT_ONCE) {
        assert_true(ret == 0 || (begun && ret == -ESTALE)); /* whoever came first */
    } else {
        assert_int_equal(ret, begun && m->meddling != NOBODY ? -ESTALE : 0);
    }
    while (!meddler.done) {
        ash_co_sleep(1000000);
    }
    if (ret == 0) {
        finish(m, disk, job);
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

static int check_the_end(void *opaque)
{
    struct machine *m = opaque;
    ash_co_assert_inside();
    expect_same(m, m->moment, "what was done");
    return 0;
}

/* Whether there was something to resume. */
static bool run_machine(const char *type, uint64_t seed, enum meddling meddling)
{
    struct machine *m = g_new0(struct machine, 1);
    struct ash_sim_config config = {.seed = seed, .latency_ns_max = 3000000};
    m->seed = seed;
    m->type = type;
    m->meddling = meddling;
    ash_prng_seed(&m->prng, seed);
    rig_world(&m->rig, &config);
    rig_boot(&m->rig);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, make_images, m), 0);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, first_life, m), 0);
    ash_sim_power_cut_at(m->rig.world, 0, ASH_SIM_CUT_RANDOM);
    rig_halt(&m->rig);
    ash_sim_power_restore(m->rig.world);
    rig_boot(&m->rig);
    enum phase phase = phase_of(m);
    if (m->over || phase == ENDED) { /* its end may be known to the file alone */
        assert_int_equal(phase, ENDED);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, check_the_end, m), 0);
    } else if (phase != BROKEN) {
        assert_int_equal(ash_loop_run_sync(m->rig.loop, second_life, m), 0);
    }
    rig_end(&m->rig);
    g_free(m);
    return phase == BEGUN;
}

static void run_seeds(const char *type, enum meddling meddling, unsigned count)
{
    unsigned begun = 0;
    const char *one = getenv("ASHLAR_TEST_SEED");
    uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1;
    count = one != NULL ? 1 : count;
    for (uint64_t seed = first; seed < first + count; seed++) {
        begun += run_machine(type, seed, meddling);
    }
    assert_true(one != NULL || begun > count / 3);
}

static void a_mirror_goes_on_after_a_power_cut(void **state)
{
    (void)state;
    run_seeds("mirror", NOBODY, SEEDS);
}

static void a_backup_goes_on_after_a_power_cut(void **state)
{
    (void)state;
    run_seeds("backup", NOBODY, SEEDS);
}

static void a_source_that_was_changed_meanwhile_is_refused(void **state)
{
    (void)state;
    run_seeds("mirror", WITH_SOURCE, 8);
    run_seeds("backup", WITH_SOURCE, 8);
}

static void a_target_that_was_changed_meanwhile_is_refused(void **state)
{
    (void)state;
    run_seeds("mirror", WITH_TARGET, 8);
    run_seeds("backup", WITH_TARGET, 8);
}

static void a_write_while_the_job_is_resumed_is_not_missed(void **state)
{
    (void)state;
    run_seeds("mirror", AT_ONCE, SEEDS / 3);
}

/* The same, on disks that take their time from then on. */
static struct machine *slow_machine_new(const char *type, uint64_t seed)
{
    struct machine *m = machine_new(type, seed, false);
    struct ash_sim_config config = {
        .seed = seed, .latency_ns_min = 1000, .latency_ns_max = 20000000};
    ash_sim_world_configure(m->rig.world, &config);
    return m;
}

/* The target is as long as the disk was at the moment, and is made longer when the job goes on. */
static int grow_meanwhile(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "source");
    assert_int_equal(disk_io(disk, ASH_READ, 0, m->moment, DISK_BYTES), 0);
    assert_int_equal(start(m, disk, &job, &error), 0);
    guest(m, disk, 20);
    assert_int_equal(ash_co_disk_resize(disk, DISK_BYTES + MiB, 0, ASH_PREALLOC_OFF, NULL), 0);
    guest(m, disk, 20);
    ash_sim_power_cut_at(m->rig.world, 0, ASH_SIM_CUT_RANDOM);
    end_job(job);
    (void)!ash_co_disk_close(disk, NULL);
    return 0;
}

static void a_disk_that_grew_before_the_cut_is_backed_up_to_the_end(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 8; seed++) {
        struct machine *m = machine_new("backup", seed, false);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, grow_meanwhile, m), 0);
        rig_halt(&m->rig);
        ash_sim_power_restore(m->rig.world);
        rig_boot(&m->rig);
        assert_int_equal(phase_of(m), BEGUN);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, second_life, m), 0);
        assert_int_equal(m->refused, 0);
        machine_free(m);
    }
}

/* What the fleecing image has of the moment would have to outlive the cut: nothing sees to that. */
static int start_with_fleecing(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    assert_int_equal(rig_create(&m->rig, "fleece", DISK_BYTES, "cluster_size=4k"), 0);
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "source");
    json_t *description = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s}", "type", "backup", "device",
                                    ash_disk_node(disk)->name, "target", "target", "format",
                                    "qcow2", "state-file", "state", "fleecing", "fleece");
    assert_int_equal(ash_co_job_start(m->rig.loop, description, NULL, NULL, &job, &error),
                     -ENOTSUP);
    json_decref(description);
    assert_string_equal(error.message, "A backup with a fleecing image cannot be resumed");
    assert_int_equal(ash_sim_file_bytes(m->rig.world, "state"), -ENOENT);
    assert_string_equal(ash_disk_node(disk)->driver->name, "qcow2");
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

static void a_backup_with_a_fleecing_image_takes_no_state_file(void **state)
{
    (void)state;
    struct machine *m = machine_new("backup", 1, false);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_with_fleecing, m), 0);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
    assert_int_equal(m->refused, 0); /* nothing is left of it */
    machine_free(m);
}

/* The image was marked anew by a later job, whose file is not the one that is given. */
static void the_file_of_an_earlier_job_is_refused(void **state)
{
    static uint8_t file[8192];
    static const uint8_t nothing[SECTOR];
    struct machine *m = machine_new("mirror", 1, false);
    (void)state;
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
    assert_int_equal(m->refused, 0);
    uint64_t bytes = (uint64_t)ash_sim_file_bytes(m->rig.world, "state");
    assert_in_range(bytes, SECTOR, sizeof(file));
    assert_int_equal(ash_sim_file_read(m->rig.world, "state", 0, file, bytes), 0);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
    assert_int_equal(m->refused, 0); /* it was resumed, as nothing has changed */
    assert_int_equal(ash_sim_file_write(m->rig.world, "state", 0, nothing, SECTOR), 0);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
    assert_int_equal(m->refused, 0); /* another job */
    assert_int_equal(ash_sim_file_write(m->rig.world, "state", 0, file, bytes), 0);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
    assert_int_equal(m->refused, -ESTALE);
    machine_free(m);
}

static void a_job_on_images_of_version_2_needs_somebody_to_vouch(void **state)
{
    static const char *const types[] = {"mirror", "backup"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct machine *m = machine_new(types[i], 1, true);
        uint8_t header[SECTOR];
        assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
        assert_int_equal(m->refused, -ENOTSUP);
        m->vouched = true;
        assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
        assert_int_equal(m->refused, 0);
        assert_int_equal(ash_sim_file_read(m->rig.world, "state", 0, header, SECTOR), 0);
        assert_memory_equal(header, "ASHLARJ1", 8);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
        assert_int_equal(m->refused, 0); /* it was resumed */
        machine_free(m);
    }
}

/* Guests write while the next job marks the image, on which the mark of an earlier one is. */
static void write_on(void *opaque)
{
    struct machine *m = opaque;
    ash_co_assert_inside();
    uint8_t data[SECTOR] = {1};
    uint64_t delay_ns = ash_prng_below(&m->prng, 500000000);
    ash_co_sleep(delay_ns);
    assert_int_equal(disk_io(m->disk, ASH_WRITE, 0, data, SECTOR), 0);
    m->writing = false;
}

static int start_beside_a_guest(void *opaque)
{
    static const uint8_t nothing[SECTOR];
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    m->disk = open_disk(&m->rig, m->seed, "source");
    assert_int_equal(start(m, m->disk, &job, &error), 0);
    ash_co_sleep(100000000);
    end_job(job);
    ash_co_sleep(1000000000); /* what it gave up lets go of the file */
    assert_int_equal(ash_sim_file_write(m->rig.world, "state", 0, nothing, SECTOR), 0);
    m->writing = true;
    assert_int_equal(ash_co_spawn(&m->rig.loop->sched, write_on, m), 0);
    assert_int_equal(start(m, m->disk, &job, &error), 0);
    while (m->writing) {
        ash_co_sleep(1000000);
    }
    end_job(job);
    assert_int_equal(ash_co_disk_close(m->disk, NULL), 0);
    return 0;
}

static void a_guest_writes_while_an_image_is_marked_again(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        struct machine *m = slow_machine_new("mirror", seed);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, start_beside_a_guest, m), 0);
        machine_free(m);
    }
}

static int look_now_and_then(void *opaque)
{
    enum { MS = 1000000 };
    struct machine *m = opaque;
    struct ash_loop *loop = m->rig.loop;
    struct ash_resume_file few = {.size_bytes = 0};
    struct ash_resume_file many = {.size_bytes = 0};
    struct ash_job_file file = {.resume = NULL};
    ash_co_assert_inside();
    assert_int_equal(ash_hbitmap_init(&few.now, 10), 0);
    assert_int_equal(ash_hbitmap_init(&many.now, 1 << 20), 0);
    assert_false(ash_job_file_is_due(&file, loop));
    file.resume = &few;
    assert_true(ash_job_file_is_due(&file, loop));
    assert_true(ash_job_file_is_due(&file, loop)); /* to ask uses nothing up */
    ash_job_file_looked(&file, loop, false);
    assert_false(ash_job_file_is_due(&file, loop));
    ash_co_sleep(200 * MS);
    assert_true(ash_job_file_is_due(&file, loop));
    ash_job_file_looked(&file, loop, true);
    ash_co_sleep(900 * MS);
    assert_false(ash_job_file_is_due(&file, loop));
    ash_co_sleep(200 * MS);
    assert_true(ash_job_file_is_due(&file, loop));
    file.resume = &many;
    ash_job_file_looked(&file, loop, false);
    ash_co_sleep(900 * MS);
    assert_false(ash_job_file_is_due(&file, loop)); /* each look is work */
    ash_hbitmap_destroy(&few.now);
    ash_hbitmap_destroy(&many.now);
    return 0;
}

static void where_nothing_could_be_noted_is_looked_again_soon(void **state)
{
    (void)state;
    struct machine *m = slow_machine_new("mirror", 0);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, look_now_and_then, m), 0);
    machine_free(m);
}

/* A mirror that is to replace a node that is not there: refused at its end. */
static int replace_nobody(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "source");
    json_t *description =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "type", "mirror", "job-id", "job",
                  "device", ash_disk_node(disk)->name, "target", "target", "format", "qcow2",
                  "state-file", "state", "replaces", "nobody", "auto-dismiss", 0);
    assert_int_equal(ash_co_job_start(m->rig.loop, description, NULL, NULL, &job, &error), 0);
    json_decref(description);
    await(job, ASH_JOB_READY);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_COMPLETE, 0, &error), 0);
    await(job, ASH_JOB_CONCLUDED);
    m->refused = job->ret;
    end_job(job);
    assert_string_equal(ash_disk_node(disk)->driver->name, "qcow2");
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

/* That is the moment at which bits are to be cleared, so both images are flushed. */
static int complete_a_mirror(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    uint8_t data[SECTOR] = {1};
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "source");
    assert_int_equal(start(m, disk, &job, &error), 0);
    await(job, ASH_JOB_READY);
    assert_int_equal(disk_io(disk, ASH_WRITE, 0, data, SECTOR), 0);
    ash_co_sleep(100000000);
    assert_int_equal(disk_io(disk, ASH_WRITE, 0, data, SECTOR), 0);
    ash_co_sleep(1500000000); /* it is copied, and neither image was flushed since */
    assert_int_equal(ash_co_job_control(job, ASH_JOB_COMPLETE, 0, &error), 0);
    await(job, ASH_JOB_CONCLUDED);
    assert_int_equal(job->ret, 0);
    assert_string_equal(ash_disk_node(disk)->filename, "target");
    end_job(job);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

static void a_mirror_is_completed_while_its_bits_are_cleared(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < SEEDS; seed++) {
        struct machine *m = slow_machine_new("mirror", seed);
        m->rig.loop->sched.shuffle = &m->prng;
        assert_int_equal(ash_loop_run_sync(m->rig.loop, complete_a_mirror, m), 0);
        machine_free(m);
    }
}

static void a_mirror_whose_replaces_was_refused_can_be_resumed(void **state)
{
    struct machine *m = machine_new("mirror", 1, false);
    (void)state;
    assert_int_equal(ash_loop_run_sync(m->rig.loop, replace_nobody, m), 0);
    assert_int_equal(m->refused, -ENODEV);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_another, m), 0);
    assert_int_equal(m->refused, 0);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mirror_goes_on_after_a_power_cut),
        cmocka_unit_test(a_backup_goes_on_after_a_power_cut),
        cmocka_unit_test(a_source_that_was_changed_meanwhile_is_refused),
        cmocka_unit_test(a_target_that_was_changed_meanwhile_is_refused),
        cmocka_unit_test(a_write_while_the_job_is_resumed_is_not_missed),
        cmocka_unit_test(a_disk_that_grew_before_the_cut_is_backed_up_to_the_end),
        cmocka_unit_test(a_backup_with_a_fleecing_image_takes_no_state_file),
        cmocka_unit_test(the_file_of_an_earlier_job_is_refused),
        cmocka_unit_test(a_job_on_images_of_version_2_needs_somebody_to_vouch),
        cmocka_unit_test(a_guest_writes_while_an_image_is_marked_again),
        cmocka_unit_test(a_mirror_is_completed_while_its_bits_are_cleared),
        cmocka_unit_test(where_nothing_could_be_noted_is_looked_again_soon),
        cmocka_unit_test(a_mirror_whose_replaces_was_refused_can_be_resumed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
