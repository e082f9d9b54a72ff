/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2 on simulated disks against a model: random requests, several at once, power cuts at random
 * writes. After a cut the file must be consistent but for leaks, and each sector of the guest must
 * hold something that was written to it no earlier than the last flush that ended before the cut.
 *
 * A failing run prints its seed; ASH_TEST_SEED=n runs that one only. */
#include "tests/unit/qcow2_rig.h"
#include <stdlib.h>
#include "block/io/io.h"
#include "block/qcow2/qcow2.h"

enum { SECTOR = 512, SECTORS = 2048, WORKERS = 4, OWN_SECTORS = 3, BASE_VALUE = 1 };

/* What was written to a sector, in order; 0: zeroes. */
struct history {
    GArray *values;     /* of uint32_t */
    uint32_t completed; /* index of the newest that is known to have ended */
    uint32_t durable;   /* ... before a flush began that ended well */
};

struct run {
    struct rig rig;
    struct ash_prng prng;
    uint64_t seed;
    char options[200];
    bool v2;
    bool lazy;
    bool backing;
    bool pressed; /* little memory: slices are evicted, batches run in the background */
    uint32_t cluster_sectors;
    struct ash_disk *disk;
    struct history sectors[SECTORS];
    uint32_t next_value;
    uint32_t workers;
    uint32_t requests; /* left, for each worker */
    bool failed;
    struct ash_co *waiter;
};

static struct run run;

static void history_init(void)
{
    for (uint32_t i = 0; i < SECTORS; i++) {
        uint32_t first = run.backing ? BASE_VALUE : 0;
        run.sectors[i] = (struct history){.values = g_array_new(FALSE, FALSE, sizeof(uint32_t))};
        g_array_append_val(run.sectors[i].values, first);
    }
}

static void history_free(void)
{
    for (uint32_t i = 0; i < SECTORS; i++) {
        g_array_free(run.sectors[i].values, TRUE);
    }
}

static uint32_t value_of(const uint8_t *sector, uint32_t index)
{
    uint32_t words[SECTOR / 4];
    memcpy(words, sector, SECTOR);
    for (uint32_t i = 0; i < SECTOR / 4; i += 2) {
        uint32_t place = words[0] ? index : 0;
        if (words[i] != words[0] || words[i + 1] != place) {
            fail_msg("seed %" PRIu64
                     " (%s): sector %u holds a mixture or another's bytes: word %u is "
                     "%u/%u, not %u/%u",
                     run.seed, run.options, index, i, words[i], words[i + 1], words[0], place);
        }
    }
    return words[0];
}

static void stamp(uint8_t *sector, uint32_t value, uint32_t index)
{
    uint32_t words[SECTOR / 4];
    for (uint32_t i = 0; i < SECTOR / 4; i += 2) {
        words[i] = value;
        words[i + 1] = index;
    }
    memcpy(sector, words, SECTOR);
}

static uint32_t latest(uint32_t i)
{
    GArray *values = run.sectors[i].values;
    return g_array_index(values, uint32_t, values->len - 1);
}

static void note(uint32_t first, uint32_t count, uint32_t value)
{
    for (uint32_t i = first; i < first + count; i++) {
        g_array_append_val(run.sectors[i].values, value);
    }
}

static void note_completed(uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++) {
        run.sectors[i].completed = run.sectors[i].values->len - 1;
    }
}

ASH_CO_FN static int do_write(uint32_t first, uint32_t count, uint32_t flags)
{
    uint8_t *buffer = g_malloc((size_t)count * SECTOR);
    uint32_t value = ++run.next_value;
    for (uint32_t i = 0; i < count; i++) {
        stamp(buffer + (size_t)i * SECTOR, value, first + i);
    }
    note(first, count, value);
    int ret =
        ash_disk_write(run.disk, (uint64_t)first * SECTOR, buffer, (uint64_t)count * SECTOR, flags);
    g_free(buffer);
    if (ret == 0) {
        note_completed(first, count);
        if (flags & ASH_REQ_FUA) {
            for (uint32_t i = first; i < first + count; i++) {
                run.sectors[i].durable = run.sectors[i].completed;
            }
        }
    }
    return ret;
}

ASH_CO_FN static int do_zero(uint32_t first, uint32_t count, uint32_t flags)
{
    note(first, count, 0);
    int ret = ash_disk_zero(run.disk, (uint64_t)first * SECTOR, (uint64_t)count * SECTOR, flags);
    if (ret == 0) {
        note_completed(first, count);
    }
    return ret;
}

/* What a discarded sector reads as is its old contents or zeroes; reading it settles which. */
ASH_CO_FN static int do_discard(uint32_t first, uint32_t count)
{
    note(first, count, 0);
    int ret = ash_disk_discard(run.disk, (uint64_t)first * SECTOR, (uint64_t)count * SECTOR);
    uint8_t *buffer = g_malloc((size_t)count * SECTOR);
    if (ret == 0) {
        ret = ash_disk_read(run.disk, (uint64_t)first * SECTOR, buffer, (uint64_t)count * SECTOR);
    }
    for (uint32_t i = 0; ret == 0 && i < count; i++) {
        struct history *h = &run.sectors[first + i];
        uint32_t old = g_array_index(h->values, uint32_t, h->values->len - 2);
        uint32_t found = value_of(buffer + (size_t)i * SECTOR, first + i);
        assert_true(found == 0 || found == old);
        if (found != 0) {
            g_array_append_val(h->values, found);
        }
        h->completed = h->values->len - 1;
    }
    g_free(buffer);
    return ret;
}

/* Whole clusters, compressed. */
ASH_CO_FN static int do_compressed(uint32_t first, uint32_t count)
{
    first -= first % run.cluster_sectors;
    count = ASH_MIN(SECTORS - first,
                    (count + run.cluster_sectors - 1) / run.cluster_sectors * run.cluster_sectors);
    return do_write(first, count, ASH_IO_COMPRESS);
}

ASH_CO_FN static int do_flush(void)
{
    uint32_t *completed = g_new(uint32_t, SECTORS);
    for (uint32_t i = 0; i < SECTORS; i++) {
        completed[i] = run.sectors[i].completed;
    }
    int ret = ash_disk_flush(run.disk);
    for (uint32_t i = 0; ret == 0 && i < SECTORS; i++) {
        run.sectors[i].durable = ASH_MAX(run.sectors[i].durable, completed[i]);
    }
    g_free(completed);
    return ret;
}

/* Only by the worker that owns these sectors, or alone. */
ASH_CO_FN static int do_read(uint32_t first, uint32_t count)
{
    uint8_t *buffer = g_malloc((size_t)count * SECTOR);
    int ret = ash_disk_read(run.disk, (uint64_t)first * SECTOR, buffer, (uint64_t)count * SECTOR);
    for (uint32_t i = 0; ret == 0 && i < count; i++) {
        uint32_t found = value_of(buffer + (size_t)i * SECTOR, first + i);
        if (found != latest(first + i)) {
            fail_msg("seed %" PRIu64 " (%s): sector %u reads %u, not %u", run.seed, run.options,
                     first + i, found, latest(first + i));
        }
    }
    g_free(buffer);
    return ret;
}

static uint32_t below(uint32_t limit)
{
    return ash_prng_below(&run.prng, limit);
}

/* A worker owns every fourth group of sectors, so that workers meet in clusters and never in
 * sectors. */
static void worker(void *opaque)
{
    ash_co_assert_inside();
    uint32_t id = (uint32_t)(uintptr_t)opaque;
    uint32_t groups = SECTORS / OWN_SECTORS / WORKERS;
    int ret = 0;
    for (uint32_t n = run.requests; n > 0 && ret == 0; n--) {
        uint32_t group = below(below(4) == 0 ? groups : 24);
        uint32_t first = (group * WORKERS + id) * OWN_SECTORS;
        uint32_t count = 1 + below(OWN_SECTORS);
        switch (below(12)) {
        case 0:
            ret = do_flush();
            break;
        case 1:
            ret = do_zero(first, count, below(2) ? ASH_REQ_UNMAP : 0);
            break;
        case 2:
        case 3:
            ret = do_read(first, count);
            break;
        case 4:
            ret = do_write(first, count, ASH_REQ_FUA);
            break;
        default:
            ret = do_write(first, count, 0);
            break;
        }
    }
    run.failed |= ret < 0;
    if (--run.workers == 0 && run.waiter) {
        ash_co_wake(run.waiter);
    }
}

ASH_CO_FN static int work_together(uint32_t requests)
{
    run.requests = requests;
    run.workers = WORKERS;
    for (uint32_t i = 0; i < WORKERS; i++) {
        assert_int_equal(ash_co_spawn(&run.rig.loop->sched, worker, (void *)(uintptr_t)i), 0);
    }
    run.waiter = ash_co_self();
    ash_co_yield();
    run.waiter = NULL;
    return run.failed ? -EIO : 0;
}

/* Large requests, one after another. */
ASH_CO_FN static int work_alone(uint32_t requests)
{
    int ret = 0;
    for (uint32_t n = requests; n > 0 && ret == 0; n--) {
        uint32_t first = below(SECTORS);
        uint32_t count = 1 + below(ASH_MIN(SECTORS - first, 300));
        switch (below(9)) {
        case 0:
            ret = do_flush();
            break;
        case 1:
            ret = do_zero(first, count, below(2) ? ASH_REQ_UNMAP : 0);
            break;
        case 2:
        case 3:
            ret = do_discard(first, count);
            break;
        case 4:
            ret = do_read(first, count);
            break;
        case 5:
            ret = do_compressed(first, count);
            break;
        default:
            ret = do_write(first, count, 0);
            break;
        }
    }
    return ret;
}

static int body(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = rig_open(&run.rig, "image", ASH_NODE_WRITE | ASH_NODE_DISCARD, &run.disk, &error);
    if (ret < 0) {
        if (!ash_sim_power_is_cut(run.rig.world)) {
            fail_msg("seed %" PRIu64 " (%s): %s", run.seed, run.options, error.message);
        }
        return ret;
    }
    if (run.pressed) {
        struct ash_qcow2_state *s = qcow2_state(ash_disk_node(run.disk));
        s->dirty_soft = 1 + below(3);
        s->dirty_hard = s->dirty_soft * 2;
    }
    for (uint32_t round = 0; round < 4 && ret == 0; round++) {
        ret = work_together(30);
        if (ret == 0) {
            ret = work_alone(20);
        }
    }
    int close_ret = ash_co_disk_close(run.disk, &error);
    ret = ret < 0 ? ret : close_ret;
    if (ret < 0 && !ash_sim_power_is_cut(run.rig.world)) {
        fail_msg("seed %" PRIu64 " (%s): error %d without a power cut", run.seed, run.options, ret);
    }
    if (ret == 0) {
        for (uint32_t i = 0; i < SECTORS; i++) {
            run.sectors[i].durable = run.sectors[i].completed;
        }
    }
    return ret;
}

static int create_body(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    return rig_create(&run.rig, "image", SECTORS * SECTOR, run.options);
}

static int read_body(void *opaque)
{
    ash_co_assert_inside();
    (void)opaque;
    struct ash_error error = ASH_ERROR_INIT;
    uint8_t *buffer = g_malloc(SECTORS * SECTOR);
    if (rig_open(&run.rig, "image", 0, &run.disk, &error) < 0) {
        fail_msg("seed %" PRIu64 " (%s): %s", run.seed, run.options, error.message);
    }
    assert_int_equal(ash_disk_read(run.disk, 0, buffer, SECTORS * SECTOR), 0);
    for (uint32_t i = 0; i < SECTORS; i++) {
        struct history *h = &run.sectors[i];
        uint32_t found = value_of(buffer + (size_t)i * SECTOR, i);
        bool good = false;
        for (uint32_t k = h->durable; k < h->values->len; k++) {
            good |= g_array_index(h->values, uint32_t, k) == found;
        }
        if (!good) {
            fail_msg("seed %" PRIu64 " (%s): sector %u holds %u after the cut; durable was %u",
                     run.seed, run.options, i, found,
                     g_array_index(h->values, uint32_t, h->durable));
        }
        /* What is there now is where the next session starts from. */
        g_array_append_val(h->values, found);
        h->durable = h->completed = h->values->len - 1;
    }
    g_free(buffer);
    return ash_co_disk_close(run.disk, &error);
}

/* Whether the image says that its refcounts are not to be relied on. */
static bool marked_dirty(void)
{
    uint64_t incompatible = 0;
    if (run.lazy) {
        assert_int_equal(ash_sim_file_read(run.rig.world, "image", 72, &incompatible, 8), 0);
    }
    return be64toh(incompatible) & QCOW2_INCOMPATIBLE_DIRTY;
}

static void audit(bool clean)
{
    struct audit a;
    assert_false(clean && marked_dirty());
    audit_image(&run.rig, "image", !marked_dirty(), &a);
    if (a.corruptions) {
        fail_msg("seed %" PRIu64 " (%s): %" PRIu64 " corruptions, first: %s", run.seed, run.options,
                 a.corruptions, a.first);
    }
    if (clean && a.leaks) {
        fail_msg("seed %" PRIu64 " (%s): %" PRIu64 " leaks after a clean close", run.seed,
                 run.options, a.leaks);
    }
}

/* A raw image under this one, with a value of its own in each sector. */
static void make_base(void)
{
    uint8_t *bytes = g_malloc(SECTORS * SECTOR);
    for (uint32_t i = 0; i < SECTORS; i++) {
        stamp(bytes + (size_t)i * SECTOR, BASE_VALUE, i);
    }
    assert_int_equal(ash_sim_file_write(run.rig.world, "base", 0, bytes, SECTORS * SECTOR), 0);
    g_free(bytes);
}

static void choose_options(void)
{
    static const char *const sizes[] = {"512", "1k", "4k", "64k"};
    static const char *const widths[] = {"1", "2", "8", "16", "64"};
    run.v2 = below(5) == 0;
    run.lazy = !run.v2 && below(5) == 0;
    run.backing = below(3) == 0;
    run.pressed = below(2) == 0;
    run.rig.metadata_bytes_max = run.pressed ? 8192 : 0;
    run.next_value = BASE_VALUE;
    uint32_t which = below(4);
    const char *size = sizes[which];
    run.cluster_sectors = (uint32_t[]){1, 2, 8, 128}[which];
    if (run.v2) {
        snprintf(run.options, sizeof(run.options), "compat=0.10,cluster_size=%s", size);
    } else {
        snprintf(run.options, sizeof(run.options),
                 "cluster_size=%s,refcount_bits=%s,lazy_refcounts=%s", size, widths[below(5)],
                 run.lazy ? "on" : "off");
    }
    if (run.backing) {
        g_strlcat(run.options, ",backing_file=base,backing_fmt=raw", sizeof(run.options));
    }
}

/* One life: sessions that end with a cut or cleanly, each checked. */
static void live(uint64_t seed, uint32_t sessions, bool cuts)
{
    memset(&run, 0, sizeof(run));
    run.seed = seed;
    ash_prng_seed(&run.prng, seed);
    choose_options();
    struct ash_sim_config config = {
        .seed = seed,
        .sector_bytes = below(2) ? 512 : 4096,
        .latency_ns_min = 1000,
        .latency_ns_max = 100000,
    };
    history_init();
    rig_world(&run.rig, &config);
    if (run.backing) {
        make_base();
    }
    rig_boot(&run.rig);
    assert_int_equal(ash_loop_run_sync(run.rig.loop, create_body, NULL), 0);
    rig_halt(&run.rig);
    bool clean = true;
    for (uint32_t session = 0; session < sessions; session++) {
        rig_boot(&run.rig);
        run.failed = false;
        if (cuts && below(4) != 0) {
            ash_sim_power_cut_at(run.rig.world, 1 + below(800), ASH_SIM_CUT_RANDOM);
        }
        clean = ash_loop_run_sync(run.rig.loop, body, NULL) == 0;
        rig_halt(&run.rig);
        ash_sim_power_restore(run.rig.world);
        audit(clean && session == 0);
        rig_boot(&run.rig);
        assert_int_equal(ash_loop_run_sync(run.rig.loop, read_body, NULL), 0);
        rig_halt(&run.rig);
    }
    rig_end(&run.rig);
    history_free();
}

static void lives(uint64_t first, uint64_t count, uint32_t sessions, bool cuts)
{
    const char *chosen = getenv("ASH_TEST_SEED");
    if (chosen) {
        live(strtoull(chosen, NULL, 10), sessions, cuts);
        return;
    }
    for (uint64_t seed = first; seed < first + fewer_if_sanitized(count); seed++) {
        live(seed, sessions, cuts);
    }
}

static void random_requests_read_back_and_leave_a_clean_image(void **state)
{
    (void)state;
    lives(1, 40, 1, false);
}

static void power_cuts_leave_leaks_at_worst_and_lose_nothing_flushed(void **state)
{
    (void)state;
    lives(1000, 120, 3, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_requests_read_back_and_leave_a_clean_image),
        cmocka_unit_test(power_cuts_leave_leaks_at_worst_and_lose_nothing_flushed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
