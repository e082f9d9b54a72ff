/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A stream that goes on after a crash. The power is cut while one runs, at a random request beside
 * a guest that writes and resizes, or at every request without one; then the machine is started
 * again, and the stream with the same state file. It must leave out what was gone through before,
 * and in the end the overlay, on its new chain, reads as it did. */
#include "block/image/image.h"
#include "tests/unit/resume_rig.h"
#include "util/prng.h"

#define DISK_BYTES (8 * MiB)
#define MID_BYTES (5 * MiB) /* what the overlay lacks beyond must not show the base */
#define LONGEST_BYTES (10 * MiB)
#define SECTOR 512
#define PART_BYTES MiB

/* Sanitized programs are slow. */
#if defined(ASH_CO_ASAN)
#define SEEDS 30
#else
#define SEEDS 100
#endif

struct machine {
    struct rig rig;
    struct ash_prng prng;
    uint64_t seed;
    uint64_t cut_at;   /* 0: at a random request */
    bool alone;        /* no guest: what the disk holds is known */
    const char *base;  /* of the job; NULL: the whole chain goes */
    const char *again; /* of the job that goes on: NULL: it is left to the file */
    unsigned speed;
    bool over; /* the job came to its end before the power was cut */
    bool resumed;
    uint64_t skipped_bytes; /* that the second life did not have to go through */
    uint64_t size;
    uint8_t now[LONGEST_BYTES]; /* what the disk holds */
    uint8_t copy[LONGEST_BYTES];
};

ASH_CO_FN static int start(struct machine *m, struct ash_disk *disk, const char *base,
                           struct ash_job **job, struct ash_error *error)
{
    json_t *description =
        json_pack("{s:s, s:s, s:s, s:s, s:b, s:i, s:s*}", "type", "stream", "device",
                  ash_disk_node(disk)->name, "state-file", "state", "job-id", "job", "auto-dismiss",
                  0, "speed", (int)m->speed, "base", base);
    int ret = ash_co_job_start(m->rig.loop, description, NULL, NULL, job, error);
    json_decref(description);
    return ret;
}

/* Makes the disk shorter, and mostly longer again. */
ASH_CO_FN static void resize(struct machine *m, struct ash_disk *disk)
{
    uint64_t shorter = ash_prng_between(&m->prng, MiB / 2 / SECTOR, m->size / SECTOR) * SECTOR;
    uint64_t longer = ash_prng_between(&m->prng, shorter / SECTOR, LONGEST_BYTES / SECTOR) * SECTOR;
    if (ash_co_disk_resize(disk, shorter, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, NULL) == 0) {
        m->size = shorter;
    }
    if (ash_prng_chance(&m->prng, 800) &&
        ash_co_disk_resize(disk, longer, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, NULL) == 0) {
        memset(m->now + m->size, 0, longer - m->size);
        m->size = longer;
    }
}

/* What it does is in m->now, as far as the power lasts. */
ASH_CO_FN static void guest(struct machine *m, struct ash_disk *disk, unsigned writes)
{
    uint8_t data[32 * SECTOR];
    for (unsigned i = 0; i < writes && !ash_sim_power_is_cut(m->rig.world); i++) {
        if (ash_prng_chance(&m->prng, 60)) {
            resize(m, disk);
        }
        uint64_t sectors = ash_prng_between(&m->prng, 1, 32);
        uint64_t at = ash_prng_below(&m->prng, m->size / SECTOR - sectors) * SECTOR;
        memset(data, (int)ash_prng_below(&m->prng, 256), sizeof(data));
        uint8_t op = ash_prng_chance(&m->prng, 600)   ? ASH_WRITE
                     : ash_prng_chance(&m->prng, 500) ? ASH_ZERO
                                                      : ASH_DISCARD;
        (void)!disk_io(disk, op, at, data, sectors * SECTOR);
        if (op == ASH_DISCARD) { /* whole clusters read as zeroes, the rest stays */
            (void)!disk_io(disk, ASH_READ, at, m->now + at, sectors * SECTOR);
        } else {
            memset(m->now + at, op == ASH_WRITE ? data[0] : 0, sectors * SECTOR);
        }
        if (ash_prng_chance(&m->prng, 100)) {
            (void)!disk_io(disk, ASH_FLUSH, 0, NULL, 0);
        }
        ash_co_sleep(ash_prng_below(&m->prng, 120000000));
    }
}

/* Writes random pieces of an image; what is left out shows what is below. */
ASH_CO_FN static void fill(struct machine *m, const char *name, uint64_t bytes, uint32_t chance)
{
    struct ash_disk *disk = open_disk(&m->rig, m->seed, name);
    for (uint64_t at = 0; at < bytes; at += 64 * KiB) {
        if (ash_prng_chance(&m->prng, chance)) {
            memset(m->copy, 1 + (int)ash_prng_below(&m->prng, 255), 64 * KiB);
            assert_int_equal(disk_io(disk, ASH_WRITE, at, m->copy, 64 * KiB), 0);
        }
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

static int make_images(void *opaque)
{
    struct machine *m = opaque;
    ash_co_assert_inside();
    assert_int_equal(rig_create(&m->rig, "base", DISK_BYTES, "cluster_size=64k"), 0);
    assert_int_equal(rig_create(&m->rig, "mid", MID_BYTES,
                                "cluster_size=4k,backing_file=base,backing_fmt=qcow2"),
                     0);
    assert_int_equal(rig_create(&m->rig, "top", DISK_BYTES,
                                "cluster_size=16k,backing_file=mid,backing_fmt=qcow2"),
                     0);
    fill(m, "base", DISK_BYTES, 1000);
    fill(m, "mid", MID_BYTES, 700);
    fill(m, "top", DISK_BYTES, 200);
    return 0;
}

ASH_CO_FN static void look(struct machine *m, struct ash_disk *disk)
{
    m->size = ash_disk_bytes(disk);
    assert_in_range(m->size, SECTOR, LONGEST_BYTES);
    assert_int_equal(disk_io(disk, ASH_READ, 0, m->now, m->size), 0);
}

static int first_life(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "top");
    look(m, disk);
    uint64_t at = m->cut_at != 0 ? m->cut_at : ash_prng_between(&m->prng, 80, 400);
    ash_sim_power_cut_at(m->rig.world, at, ASH_SIM_CUT_RANDOM);
    if (start(m, disk, m->base, &job, &error) == 0) {
        if (!m->alone) {
            guest(m, disk, 120);
        }
        while (m->alone && ash_job_state(job) != ASH_JOB_CONCLUDED) {
            ash_co_sleep(1000000);
        }
        m->over = ash_job_state(job) == ASH_JOB_CONCLUDED && job->ret == 0 &&
                  !ash_sim_power_is_cut(m->rig.world);
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

/* How much of the disk the file calls gone through. */
static uint64_t clear_bytes(const struct machine *m)
{
    uint8_t bits[2];
    uint64_t size;
    uint64_t bytes = 0;
    assert_int_equal(ash_sim_file_read(m->rig.world, "state", 32, &size, 8), 0);
    assert_int_equal(ash_sim_file_read(m->rig.world, "state", 4096, bits, 2), 0);
    size = ASH_MIN(le64toh(size), m->size);
    for (uint64_t at = 0; at < size; at += PART_BYTES) {
        uint64_t part = at / PART_BYTES;
        if ((bits[part / 8] & 1u << part % 8) == 0) {
            bytes += ASH_MIN(PART_BYTES, size - at);
        }
    }
    return bytes;
}

ASH_CO_FN static void expect_contents(struct machine *m, struct ash_disk *disk, const char *when)
{
    assert_int_equal(ash_disk_bytes(disk), m->size);
    assert_int_equal(disk_io(disk, ASH_READ, 0, m->copy, m->size), 0);
    for (uint64_t at = 0; at < m->size; at += SECTOR) {
        if (memcmp(m->copy + at, m->now + at, SECTOR) != 0) {
            fail_msg("seed %lu, cut %lu, %s: at %#lx there is %#x, not %#x", (unsigned long)m->seed,
                     (unsigned long)m->cut_at, when, (unsigned long)at, m->copy[at], m->now[at]);
        }
    }
}

/* The overlay opens on what is left of the chain. */
ASH_CO_FN static void expect_the_end(struct machine *m)
{
    struct audit audit;
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "top");
    struct ash_edge *backing = ash_disk_node(disk)->backing;
    assert_int_equal(phase_of(m), ENDED);
    assert_true((backing != NULL) == (m->base != NULL));
    if (backing != NULL) {
        assert_string_equal(backing->child->filename, m->base);
    }
    expect_contents(m, disk, "on the new chain");
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    audit_image(&m->rig, "top", true, &audit);
    assert_int_equal(audit.corruptions, 0);
}

ASH_CO_FN static void wait_for_end(struct machine *m, struct ash_job *job)
{
    await(job, ASH_JOB_CONCLUDED);
    if (job->ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)m->seed, job->error.message);
    }
    assert_int_equal(job->ret, 0);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_DISMISS, 0, NULL), 0);
    ash_job_unref(job);
}

static int second_life(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "top");
    if (m->alone) {
        expect_contents(m, disk, "after the cut");
    }
    look(m, disk);
    m->resumed = phase_of(m) == BEGUN;
    m->skipped_bytes = m->resumed ? clear_bytes(m) : 0;
    int ret = start(m, disk, m->resumed ? m->again : m->base, &job, &error);
    if (ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)m->seed, error.message);
    }
    assert_int_equal(ret, 0);
    ash_co_reschedule();
    ash_co_reschedule();
    struct ash_job_info info = {.size = sizeof(info)};
    assert_int_equal(ash_job_info(job, &info), 0);
    assert_true(!m->resumed || info.done_bytes >= m->skipped_bytes);
    if (!m->alone) {
        guest(m, disk, 25);
    }
    wait_for_end(m, job);
    expect_contents(m, disk, "at the end");
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    expect_the_end(m);
    return 0;
}

static int check_the_end(void *opaque)
{
    struct machine *m = opaque;
    ash_co_assert_inside();
    if (!m->alone) { /* which of the guest's writes were stable is not known */
        struct ash_disk *disk = open_disk(&m->rig, m->seed, "top");
        look(m, disk);
        assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    }
    expect_the_end(m);
    return 0;
}

static struct machine *machine_new(uint64_t seed)
{
    struct machine *m = g_new0(struct machine, 1);
    struct ash_sim_config config = {.seed = seed, .latency_ns_max = 3000000};
    m->seed = seed;
    m->speed = 1000000;
    ash_prng_seed(&m->prng, seed);
    rig_world(&m->rig, &config);
    rig_boot(&m->rig);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, make_images, m), 0);
    return m;
}

static void machine_free(struct machine *m)
{
    rig_end(&m->rig);
    g_free(m);
}

static void restart(struct machine *m)
{
    ash_sim_power_cut_at(m->rig.world, 0, ASH_SIM_CUT_RANDOM);
    rig_halt(&m->rig);
    ash_sim_power_restore(m->rig.world);
    rig_boot(&m->rig);
}

/* Both lives. */
static void run_machine(struct machine *m)
{
    assert_int_equal(ash_loop_run_sync(m->rig.loop, first_life, m), 0);
    restart(m);
    enum phase phase = phase_of(m);
    if (m->over || phase == ENDED) { /* its end may be known to the file alone */
        assert_int_equal(phase, ENDED);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, check_the_end, m), 0);
    } else {
        assert_int_not_equal(phase, BROKEN);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, second_life, m), 0);
    }
}

static void a_stream_goes_on_after_a_power_cut(void **state)
{
    const char *one = getenv("ASHLAR_TEST_SEED");
    uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1;
    unsigned count = one != NULL ? 1 : SEEDS;
    unsigned resumed = 0;
    unsigned skipped = 0;
    (void)state;
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct machine *m = machine_new(seed);
        m->base = seed % 3 != 0 ? "base" : NULL;
        m->again = seed % 2 != 0 ? m->base : NULL;
        run_machine(m);
        resumed += m->resumed;
        skipped += m->skipped_bytes > 0;
        machine_free(m);
    }
    print_message("%u resumed, %u not from the start\n", resumed, skipped);
    assert_true(one != NULL || (resumed > count / 3 && skipped > count / 8));
}

/* Without a guest what the disk holds is known, whatever happened. */
static void power_cuts_at_every_write_of_a_stream_lose_nothing(void **state)
{
    unsigned step = SEEDS < 50 ? 7 : 1;
    unsigned resumed = 0;
    unsigned skipped = 0;
    bool over = false;
    (void)state;
    for (uint64_t cut = 1; !over; cut += step) {
        struct machine *m = machine_new(cut);
        m->alone = true;
        m->cut_at = cut;
        m->base = cut % 2 != 0 ? "base" : NULL;
        m->again = m->base;
        run_machine(m);
        resumed += m->resumed;
        skipped += m->skipped_bytes > 0;
        over = m->over;
        machine_free(m);
    }
    print_message("%u resumed, %u not from the start\n", resumed, skipped);
    assert_true(resumed > 35 / step && skipped > 20 / step);
}

/* The overlay gets shorter, and longer again than mid, where the base has something: after the
 * sweep was there, while it is still on its way or when it has ended. Then the job is left. */
struct growth {
    struct machine *machine;
    bool at_the_end;
};

static int grow_and_leave(void *opaque)
{
    const struct growth *growth = opaque;
    struct machine *m = growth->machine;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job_info info = {.size = sizeof(info)};
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "top");
    json_t *description =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:b}", "type", "stream", "device",
                  ash_disk_node(disk)->name, "job-id", "job", "base", "base", "state-file", "state",
                  "speed", 1000000, "auto-finalize", 0);
    assert_int_equal(ash_co_job_start(m->rig.loop, description, NULL, NULL, &job, &error), 0);
    json_decref(description);
    do {
        ash_co_sleep(1000000);
        assert_int_equal(ash_job_info(job, &info), 0);
    } while (growth->at_the_end ? info.state != ASH_JOB_PENDING : info.done_bytes < 7 * MiB);
    assert_int_equal(info.state, growth->at_the_end ? ASH_JOB_PENDING : ASH_JOB_RUNNING);
    assert_int_equal(ash_co_disk_resize(disk, 5 * MiB, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, NULL),
                     0);
    assert_int_equal(ash_co_disk_resize(disk, DISK_BYTES, 0, ASH_PREALLOC_OFF, NULL), 0);
    await(job, ASH_JOB_PENDING);
    look(m, disk);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL), 0);
    await(job, ASH_JOB_NULL);
    ash_job_unref(job);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

static void what_an_overlay_got_by_growing_is_gone_through(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct machine *m = machine_new(1);
        struct growth growth = {m, i == 1};
        m->alone = true;
        m->base = "base";
        assert_int_equal(ash_loop_run_sync(m->rig.loop, grow_and_leave, &growth), 0);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, second_life, m), 0);
        assert_true(m->resumed);
        assert_in_range(m->skipped_bytes, PART_BYTES, 5 * PART_BYTES);
        machine_free(m);
    }
}

/* One read of mid fails, and the policy has the job go on. What it could not copy then is still to
 * be copied by who goes on with the file. */
static int fail_once(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "top");
    look(m, disk);
    json_t *description =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:s, s:b}", "type", "stream", "device",
                  ash_disk_node(disk)->name, "job-id", "job", "base", "base", "state-file", "state",
                  "speed", 1000000, "on-error", "ignore", "auto-dismiss", 0);
    assert_int_equal(ash_co_job_start(m->rig.loop, description, NULL, NULL, &job, &error), 0);
    json_decref(description);
    ash_sim_aim(m->rig.world, "mid", m->seed, 1, -EIO);
    await(job, ASH_JOB_CONCLUDED);
    assert_int_equal(job->ret, -EIO);
    end_job(job);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

static void what_could_not_be_copied_is_copied_by_who_goes_on(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 4; seed++) {
        struct machine *m = machine_new(seed);
        m->alone = true;
        m->base = "base";
        assert_int_equal(ash_loop_run_sync(m->rig.loop, fail_once, m), 0);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, second_life, m), 0);
        assert_true(m->resumed && m->skipped_bytes > 0);
        machine_free(m);
    }
}

/* Runs a stream for a while and leaves it. */
static int begin_and_leave(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "top");
    look(m, disk);
    assert_int_equal(start(m, disk, m->base, &job, &error), 0);
    ash_co_sleep(UINT64_C(4000000000));
    end_job(job);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

/* The overlay is being flushed, so that what was gone through can be noted, and the flush does not
 * end.
 *
 * The job is ended by force, which does not wait for it.
 *
 * The flush ends: nothing is noted any more, as the job no longer knows of what happens to the
 * overlay. */
static int force_during_flush(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    uint8_t before;
    uint8_t after;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "top");
    look(m, disk);
    assert_int_equal(start(m, disk, m->base, &job, &error), 0);
    ash_co_sleep(UINT64_C(2500000000));
    ash_sim_hold(m->rig.world, "top", ASH_AIO_FLUSH, 0, UINT64_MAX);
    while (ash_sim_held(m->rig.world) == 0) {
        ash_co_sleep(1000000);
    }
    assert_int_equal(ash_job_state(job), ASH_JOB_RUNNING);
    assert_int_equal(ash_sim_file_read(m->rig.world, "state", 4096, &before, 1), 0);
    uint64_t begin_ns = ash_loop_now(m->rig.loop);
    end_job(job);
    assert_in_range(ash_loop_now(m->rig.loop) - begin_ns, 0, 300000000);
    assert_true(start(m, disk, m->base, &job, &error) <
                0); /* it still has the chain and the file */
    ash_sim_release_all(m->rig.world);
    ash_co_sleep(UINT64_C(1000000000));
    assert_int_equal(ash_sim_file_read(m->rig.world, "state", 4096, &after, 1), 0);
    assert_int_equal(after, before);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

static void a_stream_that_is_forced_while_it_flushes_can_be_resumed(void **state)
{
    struct machine *m = machine_new(1);
    (void)state;
    m->alone = true;
    m->base = "base";
    assert_int_equal(ash_loop_run_sync(m->rig.loop, force_during_flush, m), 0);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, second_life, m), 0);
    assert_true(m->resumed && m->skipped_bytes > 0);
    machine_free(m);
}

/* What may stand in the way of going on. */
enum obstacle { WRITTEN, OTHER_BASE, OTHER_STRING, OTHER_KIND, OTHER_CHAIN, RESIZED };

struct refusal {
    struct machine *machine;
    enum obstacle obstacle;
    int ret;
    const char *says;
};

ASH_CO_FN static struct ash_disk *open_on(struct machine *m, enum obstacle obstacle)
{
    struct ash_disk *disk = NULL;
    if (obstacle != OTHER_CHAIN) {
        return open_disk(&m->rig, m->seed, "top");
    }
    json_t *description =
        json_pack("{s:s, s:{s:s, s:s}, s:{s:s, s:{s:s, s:s}, s:n}}", "driver", "qcow2", "file",
                  "driver", "file", "filename", "top", "backing", "driver", "qcow2", "file",
                  "driver", "file", "filename", "mid", "backing");
    assert_int_equal(ash_co_disk_open(m->rig.loop, description, ASH_NODE_WRITE, &disk, NULL), 0);
    json_decref(description);
    return disk;
}

static int refused(void *opaque)
{
    const struct refusal *refusal = opaque;
    struct machine *m = refusal->machine;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_on(m, refusal->obstacle);
    json_t *description =
        json_pack("{s:s, s:s, s:s, s:s}", "type", "stream", "device", ash_disk_node(disk)->name,
                  "state-file", "state", "job-id", "job");
    if (refusal->obstacle == WRITTEN) {
        assert_int_equal(disk_io(disk, ASH_WRITE, 0, m->now, SECTOR), 0);
    } else if (refusal->obstacle == RESIZED) {
        assert_int_equal(ash_co_disk_resize(disk, LONGEST_BYTES, 0, ASH_PREALLOC_OFF, NULL), 0);
    } else if (refusal->obstacle == OTHER_BASE) {
        json_object_set_new(description, "base", json_string("mid"));
    } else if (refusal->obstacle == OTHER_STRING) {
        json_object_set_new(description, "backing-file", json_string("./base"));
    } else if (refusal->obstacle == OTHER_KIND) {
        assert_int_equal(rig_create(&m->rig, "target", DISK_BYTES, "cluster_size=64k"), 0);
        json_object_set_new(description, "type", json_string("mirror"));
        json_object_set_new(description, "target", json_string("target"));
        json_object_set_new(description, "format", json_string("qcow2"));
    }
    assert_int_equal(ash_co_job_start(m->rig.loop, description, NULL, NULL, &job, &error),
                     refusal->ret);
    if (strstr(error.message, refusal->says) == NULL) {
        fail_msg("'%s' does not say '%s'", error.message, refusal->says);
    }
    json_decref(description);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

/* What is refused leaves the job as it is: it goes on when it is asked for rightly. */
static void what_does_not_fit_the_file_is_refused(void **state)
{
    static const struct refusal refusals[] = {
        {NULL, OTHER_BASE, -EINVAL, "'state' is the state file of a stream down to 'base'"},
        {NULL, OTHER_STRING, -EINVAL, "another 'backing-file'"},
        {NULL, OTHER_KIND, -EINVAL, "another kind of job"},
        {NULL, OTHER_CHAIN, -EINVAL, "which is not in the backing chain of 'top'"},
    };
    struct machine *m = machine_new(1);
    (void)state;
    m->alone = true;
    m->base = "base";
    assert_int_equal(ash_loop_run_sync(m->rig.loop, begin_and_leave, m), 0);
    for (size_t i = 0; i < ASH_ARRAY_SIZE(refusals); i++) {
        struct refusal refusal = refusals[i];
        refusal.machine = m;
        assert_int_equal(ash_loop_run_sync(m->rig.loop, refused, &refusal), 0);
    }
    assert_int_equal(ash_loop_run_sync(m->rig.loop, second_life, m), 0);
    assert_true(m->resumed);
    assert_in_range(m->skipped_bytes, 2 * PART_BYTES, DISK_BYTES - PART_BYTES);
    machine_free(m);
}

static void an_overlay_that_was_changed_meanwhile_is_refused(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct machine *m = machine_new(1);
        struct refusal refusal = {m, i == 0 ? WRITTEN : RESIZED, -ESTALE,
                                  "'top' may have been changed since the job of 'state'"};
        m->base = "base";
        assert_int_equal(ash_loop_run_sync(m->rig.loop, begin_and_leave, m), 0);
        assert_int_equal(ash_loop_run_sync(m->rig.loop, refused, &refusal), 0);
        machine_free(m);
    }
}

/* Of a stream whose file says of every part that it was gone through nothing is looked at, though
 * it is not true: the overlay then shows the base. */
static int go_on_without_looking(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "top");
    uint64_t before = ash_sim_file_bytes(m->rig.world, "top");
    assert_int_equal(start(m, disk, m->base, &job, &error), 0);
    wait_for_end(m, job);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    assert_int_equal(ash_sim_file_bytes(m->rig.world, "top"), before);
    return 0;
}

static void parts_that_were_gone_through_are_not_looked_at_again(void **state)
{
    static const uint8_t none[1];
    struct machine *m = machine_new(1);
    (void)state;
    m->base = "base";
    assert_int_equal(ash_loop_run_sync(m->rig.loop, begin_and_leave, m), 0);
    assert_int_equal(ash_sim_file_write(m->rig.world, "state", 4096, none, sizeof(none)), 0);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, go_on_without_looking, m), 0);
    machine_free(m);
}

/* The chain has changed, and the file could not be made to say so. */
static void a_stream_whose_end_the_file_missed_ends_at_once(void **state)
{
    uint8_t header[4096 + 1];
    struct machine *m = machine_new(1);
    (void)state;
    m->alone = true;
    m->base = "base";
    assert_int_equal(ash_loop_run_sync(m->rig.loop, begin_and_leave, m), 0);
    assert_int_equal(ash_sim_file_read(m->rig.world, "state", 0, header, sizeof(header)), 0);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, second_life, m), 0);
    assert_int_equal(phase_of(m), ENDED);
    assert_int_equal(ash_sim_file_write(m->rig.world, "state", 0, header, sizeof(header)), 0);
    assert_int_equal(phase_of(m), BEGUN);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, second_life, m), 0);
    assert_int_equal(phase_of(m), ENDED);
    machine_free(m);
}

/* A stream with everything at once: the state file of one that has ended is refused. */
static int start_after_the_end(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "top");
    assert_int_equal(start(m, disk, NULL, &job, &error), -EEXIST);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

static void the_file_of_a_stream_that_has_ended_is_refused(void **state)
{
    struct machine *m = machine_new(1);
    (void)state;
    m->cut_at = UINT64_MAX / 2;
    m->alone = true;
    m->base = "base";
    run_machine(m);
    assert_true(m->over);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, start_after_the_end, m), 0);
    machine_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_goes_on_after_a_power_cut),
        cmocka_unit_test(power_cuts_at_every_write_of_a_stream_lose_nothing),
        cmocka_unit_test(what_an_overlay_got_by_growing_is_gone_through),
        cmocka_unit_test(what_could_not_be_copied_is_copied_by_who_goes_on),
        cmocka_unit_test(a_stream_that_is_forced_while_it_flushes_can_be_resumed),
        cmocka_unit_test(what_does_not_fit_the_file_is_refused),
        cmocka_unit_test(an_overlay_that_was_changed_meanwhile_is_refused),
        cmocka_unit_test(parts_that_were_gone_through_are_not_looked_at_again),
        cmocka_unit_test(a_stream_whose_end_the_file_missed_ends_at_once),
        cmocka_unit_test(the_file_of_a_stream_that_has_ended_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
