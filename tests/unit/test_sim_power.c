/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated engine: what is durable, and what a power cut may leave.
 *
 * For each rule two things are shown over many seeds: that no state comes up that a real disk could
 * not leave, and that every state it could leave does come up. */
#include "tests/unit/unit.h"
#include "tests/unit/sim_rig.h"

#include <linux/falloc.h>

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
#define SEEDS 300

static struct rig seeded_rig(uint64_t seed)
{
    return rig_new(&(struct ash_sim_config){.seed = seed, .latency_ns_max = 1000});
}

static void fill(struct rig *rig, struct ash_file *file, uint64_t offset, uint8_t value,
                 size_t bytes)
{
    uint8_t *buffer = malloc(bytes);

    memset(buffer, value, bytes);
    assert_int_equal(do_write(rig, file, offset, buffer, bytes), bytes);
    free(buffer);
}

/* Cuts, closes, and makes the world usable again. */
static void cut_and_restore(struct rig *rig, struct ash_file *file, enum ash_sim_cut mode)
{
    ash_sim_power_cut(rig->world, mode);
    do_close(rig, file);
    rig_engine_off(rig);
    rig_power_on(rig);
}

static void a_sector_may_keep_any_of_its_versions(void **state)
{
    unsigned seen[4] = {0};

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct rig rig = seeded_rig(seed);
        write_durably(&rig, "a", 1, 4096);
        struct ash_file *file = do_open(&rig, "a");
        fill(&rig, file, 0, 2, 1024);
        fill(&rig, file, 0, 3, 512);
        cut_and_restore(&rig, file, ASH_SIM_CUT_RANDOM);
        uint8_t found = sector_value(&rig, "a", 0);
        assert_in_range(found, 1, 3);
        seen[found]++;
        assert_in_range(sector_value(&rig, "a", 1), 1, 2);
        assert_int_equal(sector_value(&rig, "a", 2), 1);
        rig_free(&rig);
    }
    assert_true(seen[1] > 10 && seen[2] > 10 && seen[3] > 10);
}

static void drop_and_keep_leave_exactly_one_state(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        for (int keep = 0; keep < 2; keep++) {
            struct rig rig = seeded_rig(seed);
            write_durably(&rig, "a", 1, 8192);
            struct ash_file *file = do_open(&rig, "a");
            fill(&rig, file, 0, 2, 8192);
            assert_int_equal(do_flush(&rig, file), 0);
            fill(&rig, file, 512, 3, 8192);
            assert_int_equal(do_allocate(&rig, file, PUNCH, 4096, 4096), 0);
            cut_and_restore(&rig, file, keep ? ASH_SIM_CUT_KEEP : ASH_SIM_CUT_DROP);
            assert_int_equal(ash_sim_file_bytes(rig.world, "a"), keep ? 8704 : 8192);
            assert_int_equal(sector_value(&rig, "a", 0), 2);
            assert_int_equal(sector_value(&rig, "a", 1), keep ? 3 : 2);
            assert_int_equal(sector_value(&rig, "a", 9), keep ? 0 : 2);
            rig_free(&rig);
        }
    }
}

static void writes_are_torn_at_sectors_only(void **state)
{
    static const uint32_t sector_bytes[] = {512, 4096};

    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(sector_bytes); i++) {
        unsigned per_sector = sector_bytes[i] / SECTOR;
        unsigned seen[4] = {0};
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct rig rig =
                rig_new(&(struct ash_sim_config){.seed = seed, .sector_bytes = sector_bytes[i]});
            write_durably(&rig, "a", 1, 3 * sector_bytes[i]);
            struct ash_file *file = do_open(&rig, "a");
            fill(&rig, file, 0, 2, 2 * sector_bytes[i]);
            cut_and_restore(&rig, file, ASH_SIM_CUT_RANDOM);
            uint8_t first = sector_value(&rig, "a", 0);
            uint8_t second = sector_value(&rig, "a", per_sector);
            for (unsigned j = 1; j < per_sector; j++) {
                assert_int_equal(sector_value(&rig, "a", j), first);
                assert_int_equal(sector_value(&rig, "a", per_sector + j), second);
            }
            assert_int_equal(sector_value(&rig, "a", 2 * per_sector), 1);
            assert_in_range(first, 1, 2);
            assert_in_range(second, 1, 2);
            seen[(first - 1) * 2 + second - 1]++;
            rig_free(&rig);
        }
        assert_true(seen[0] > 10 && seen[1] > 3 && seen[2] > 3 && seen[3] > 10);
    }
}

static void punched_and_zeroed_sectors_may_come_back(void **state)
{
    static const int modes[] = {PUNCH, FALLOC_FL_ZERO_RANGE};

    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(modes); i++) {
        unsigned seen[4] = {0};
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            struct rig rig = seeded_rig(seed);
            write_durably(&rig, "a", 1, 8192);
            struct ash_file *file = do_open(&rig, "a");
            assert_int_equal(do_allocate(&rig, file, modes[i], 0, 4096), 0);
            fill(&rig, file, 512, 2, 512);
            cut_and_restore(&rig, file, ASH_SIM_CUT_RANDOM);
            assert_in_range(sector_value(&rig, "a", 0), 0, 1);
            seen[sector_value(&rig, "a", 1)]++;
            assert_int_equal(sector_value(&rig, "a", 8), 1);
            rig_free(&rig);
        }
        assert_true(seen[0] > 10 && seen[1] > 10 && seen[2] > 10);
    }
}

static void writes_in_flight_may_be_kept_or_lost(void **state)
{
    unsigned seen[2][3] = {{0}}; /* not held, held */

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct rig rig = seeded_rig(seed);
        uint8_t buffer[SECTOR];
        write_durably(&rig, "a", 1, 4096);
        struct ash_file *file = do_open(&rig, "a");
        struct call call = call_transfer(file, ASH_AIO_WRITE, 0, buffer, SECTOR);
        memset(buffer, 2, SECTOR);
        if (seed % 2) {
            ash_sim_hold(rig.world, "a", ASH_AIO_WRITE, 0, SECTOR);
        }
        call_submit(&rig, &call);
        ash_sim_power_cut(rig.world, ASH_SIM_CUT_RANDOM);
        assert_int_equal(call_wait(&rig, &call), -EIO);
        do_close(&rig, file);
        seen[seed % 2][sector_value(&rig, "a", 0)]++;
        rig_free(&rig);
    }
    assert_true(seen[0][1] > 10 && seen[0][2] > 10);
    assert_true(seen[1][1] > 10 && seen[1][2] > 10);
}

static void the_length_stops_at_what_it_was_or_on_the_way(void **state)
{
    unsigned seen[5] = {0};

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct rig rig = seeded_rig(seed);
        write_durably(&rig, "a", 1, 512);
        struct ash_file *file = do_open(&rig, "a");
        fill(&rig, file, 512, 2, 1536);
        cut_and_restore(&rig, file, ASH_SIM_CUT_RANDOM);
        int64_t bytes = ash_sim_file_bytes(rig.world, "a");
        assert_true(bytes % 512 == 0 && bytes >= 512 && bytes <= 2048);
        seen[bytes / 512]++;
        for (unsigned i = 1; i < bytes / 512; i++) {
            uint8_t found = sector_value(&rig, "a", i);
            assert_true(found == 0 || found == 2);
        }
        file = do_open(&rig, "a");
        assert_int_equal(do_truncate(&rig, file, 2048), 0);
        for (unsigned i = (unsigned)(bytes / 512); i < 4; i++) {
            assert_int_equal(sector_value(&rig, "a", i), 0);
        }
        do_close(&rig, file);
        rig_free(&rig);
    }
    assert_true(seen[1] > 10 && seen[2] > 3 && seen[3] > 3 && seen[4] > 10);
}

static void a_truncate_takes_length_and_data_together(void **state)
{
    unsigned seen[3] = {0};

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct rig rig = seeded_rig(seed);
        write_durably(&rig, "a", 1, 4096);
        struct ash_file *file = do_open(&rig, "a");
        assert_int_equal(do_truncate(&rig, file, 512), 0);
        assert_int_equal(do_truncate(&rig, file, 2048), 0);
        cut_and_restore(&rig, file, ASH_SIM_CUT_RANDOM);
        int64_t bytes = ash_sim_file_bytes(rig.world, "a");
        if (bytes == 4096) {
            assert_int_equal(sector_value(&rig, "a", 7), 1);
            seen[0]++;
        } else if (bytes == 2048) {
            assert_int_equal(sector_value(&rig, "a", 1), 0);
            seen[1]++;
        } else {
            assert_int_equal(bytes, 512);
            seen[2]++;
        }
        assert_int_equal(sector_value(&rig, "a", 0), 1);
        rig_free(&rig);
    }
    assert_true(seen[0] > 10 && seen[1] > 10 && seen[2] > 10);
}

/* write -> flush begins -> the write completes -> flush completes -> cut */
static void a_flush_need_not_cover_what_was_in_flight(void **state)
{
    unsigned kept = 0;
    unsigned lost = 0;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct rig rig = seeded_rig(seed);
        uint8_t buffer[SECTOR];
        struct ash_file *file = do_open(&rig, "a");
        struct call flush = {.aio = {.op = ASH_AIO_FLUSH, .file = file}};
        struct call call = call_transfer(file, ASH_AIO_WRITE, 512, buffer, SECTOR);
        memset(buffer, 2, SECTOR);
        fill(&rig, file, 0, 1, 512);
        fill(&rig, file, 512, 1, 512);
        call_submit(&rig, &call);
        if (seed % 2) {
            rig.engine->ops->wait(rig.engine, rig.engine->ops->now(rig.engine) + 100);
        }
        bool completed = call.done;
        call_submit(&rig, &flush);
        assert_int_equal(call_wait(&rig, &flush), 0);
        assert_int_equal(call_wait(&rig, &call), SECTOR);
        cut_and_restore(&rig, file, ASH_SIM_CUT_DROP);
        assert_int_equal(sector_value(&rig, "a", 0), 1);
        uint8_t found = sector_value(&rig, "a", 1);
        assert_true(found == 2 || (found == 1 && !completed));
        kept += found == 2;
        lost += found == 1;
        rig_free(&rig);
    }
    assert_true(kept > 10 && lost > 10);
}

static void dsync_covers_its_sectors_and_the_length(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rig rig = seeded_rig(seed);
        uint8_t buffer[1024];
        struct ash_file *file = do_open(&rig, "a");
        memset(buffer, 3, sizeof(buffer));
        fill(&rig, file, 0, 1, 512);
        fill(&rig, file, 1536, 2, 512);
        assert_int_equal(do_write_dsync(&rig, file, 512, buffer, 1024), 1024);
        fill(&rig, file, 512, 4, 512);
        cut_and_restore(&rig, file, ASH_SIM_CUT_DROP);
        assert_int_equal(ash_sim_file_bytes(rig.world, "a"), 2048);
        assert_int_equal(sector_value(&rig, "a", 0), 0);
        assert_int_equal(sector_value(&rig, "a", 1), 3);
        assert_int_equal(sector_value(&rig, "a", 2), 3);
        assert_int_equal(sector_value(&rig, "a", 3), 0);
        rig_free(&rig);
    }
}

/* An append in flight when the flush begins: its length need not be durable either. */
static void a_flush_need_not_cover_the_length_of_an_append_in_flight(void **state)
{
    unsigned kept = 0;
    unsigned lost_though_carried_out = 0;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct rig rig = seeded_rig(seed);
        uint8_t buffer[SECTOR] = {0};
        struct ash_file *file = do_open(&rig, "a");
        struct call flush = {.aio = {.op = ASH_AIO_FLUSH, .file = file}};
        struct call call = call_transfer(file, ASH_AIO_WRITE, 512, buffer, SECTOR);
        fill(&rig, file, 0, 1, 512);
        call_submit(&rig, &call);
        if (seed % 2) {
            rig.engine->ops->wait(rig.engine, rig.engine->ops->now(rig.engine) + 200);
        }
        bool completed = call.done;
        call_submit(&rig, &flush);
        assert_int_equal(call_wait(&rig, &flush), 0);
        bool carried_out = ash_sim_file_bytes(rig.world, "a") == 1024;
        assert_int_equal(call_wait(&rig, &call), SECTOR);
        cut_and_restore(&rig, file, ASH_SIM_CUT_DROP);
        int64_t bytes = ash_sim_file_bytes(rig.world, "a");
        assert_true(bytes == 1024 || (bytes == 512 && !completed));
        kept += bytes == 1024;
        lost_though_carried_out += carried_out && bytes == 512;
        rig_free(&rig);
    }
    assert_true(kept > 10 && lost_though_carried_out > 10);
}

static void dsync_does_not_cover_what_was_carried_out_later(void **state)
{
    unsigned later = 0;

    (void)state;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct rig rig = seeded_rig(seed);
        uint8_t synced[SECTOR];
        uint8_t plain[SECTOR];
        struct ash_file *file = do_open(&rig, "a");
        struct call a = call_transfer(file, ASH_AIO_WRITE, 0, synced, SECTOR);
        struct call b = call_transfer(file, ASH_AIO_WRITE, 0, plain, SECTOR);
        memset(synced, 1, SECTOR);
        memset(plain, 2, SECTOR);
        a.aio.flags = ASH_AIO_DSYNC;
        call_submit(&rig, &a);
        call_submit(&rig, &b);
        assert_int_equal(call_wait(&rig, &a), SECTOR);
        assert_int_equal(call_wait(&rig, &b), SECTOR);
        later += sector_value(&rig, "a", 0) == 2;
        cut_and_restore(&rig, file, ASH_SIM_CUT_DROP);
        assert_int_equal(sector_value(&rig, "a", 0), 1);
        rig_free(&rig);
    }
    assert_true(later > 10);
}

enum rewrite { REWRITE_NOT, REWRITE_AND_FLUSH, REWRITE_DSYNC };

/* A failed flush, perhaps another write of the sector, a flush that succeeds, a cut. */
static uint8_t value_after_failed_flush(uint64_t seed, enum rewrite rewrite, enum ash_sim_cut mode)
{
    uint8_t buffer[SECTOR];
    struct ash_sim_config config = {.seed = seed};
    struct rig rig = rig_new(&config);

    write_durably(&rig, "a", 1, 8192);
    struct ash_file *file = do_open(&rig, "a");
    fill(&rig, file, 0, 2, 512);
    config.flush_error_per_mille = 1000;
    ash_sim_world_configure(rig.world, &config);
    assert_int_equal(do_flush(&rig, file), -EIO);
    config.flush_error_per_mille = 0;
    ash_sim_world_configure(rig.world, &config);
    assert_int_equal(sector_value(&rig, "a", 0), 2);
    memset(buffer, 3, SECTOR);
    if (rewrite == REWRITE_DSYNC) {
        assert_int_equal(do_write_dsync(&rig, file, 0, buffer, SECTOR), SECTOR);
    } else {
        if (rewrite == REWRITE_AND_FLUSH) {
            assert_int_equal(do_write(&rig, file, 0, buffer, SECTOR), SECTOR);
        }
        assert_int_equal(do_flush(&rig, file), 0);
    }
    cut_and_restore(&rig, file, mode);
    uint8_t found = sector_value(&rig, "a", 0);
    assert_int_equal(sector_value(&rig, "a", 1), 1);
    rig_free(&rig);
    return found;
}

static void a_failed_flush_loses_pages_for_good(void **state)
{
    static const enum ash_sim_cut modes[] = {ASH_SIM_CUT_DROP, ASH_SIM_CUT_KEEP,
                                             ASH_SIM_CUT_RANDOM};

    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(modes); i++) {
        unsigned seen[3] = {0};
        for (uint64_t seed = 0; seed < 100; seed++) {
            uint8_t found = value_after_failed_flush(seed, REWRITE_NOT, modes[i]);
            assert_in_range(found, 1, 2);
            seen[found]++;
        }
        assert_true(seen[1] > 10 && seen[2] > 10);
    }
}

static void writing_again_heals_what_a_failed_flush_lost(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        for (enum rewrite how = REWRITE_AND_FLUSH; how <= REWRITE_DSYNC; how++) {
            assert_int_equal(value_after_failed_flush(seed, how, ASH_SIM_CUT_DROP), 3);
            assert_int_equal(value_after_failed_flush(seed, how, ASH_SIM_CUT_RANDOM), 3);
        }
    }
}

static void many_versions_of_one_page_are_bounded_and_right(void **state)
{
    bool oldest = false;
    bool newest = false;
    bool other = false;

    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct rig rig = seeded_rig(seed);
        write_durably(&rig, "a", 1, 4096);
        struct ash_file *file = do_open(&rig, "a");
        for (unsigned i = 2; i < 202; i++) {
            fill(&rig, file, (i % 8) * 512, (uint8_t)i, 512);
        }
        cut_and_restore(&rig, file, seed % 2 ? ASH_SIM_CUT_RANDOM : ASH_SIM_CUT_DROP);
        for (unsigned i = 0; i < 8; i++) {
            uint8_t found = sector_value(&rig, "a", i);
            assert_true(found == 1 || (found > 1 && found < 202 && found % 8 == i));
            assert_true(seed % 2 || found == 1);
            oldest |= found == 1;
            newest |= found >= 194;
            other |= found > 1 && found < 194;
        }
        rig_free(&rig);
    }
    assert_true(oldest && newest && other);
}

static void everything_but_teardown_fails_without_power(void **state)
{
    struct rig rig = seeded_rig(1);
    struct ash_file *file = do_open(&rig, "a");
    struct ash_file *other;
    struct ash_file_status status;
    struct call flush = {.aio = {.op = ASH_AIO_FLUSH, .file = file}};
    char byte = 0;

    (void)state;
    assert_int_equal(do_lock(&rig, file, F_WRLCK, 0, 1), 0);
    fill(&rig, file, 0, 1, 512);
    ash_sim_hold(rig.world, "a", ASH_AIO_FLUSH, 0, 0);
    call_submit(&rig, &flush);
    assert_false(ash_sim_power_is_cut(rig.world));
    ash_sim_power_cut(rig.world, ASH_SIM_CUT_DROP);
    assert_true(ash_sim_power_is_cut(rig.world));
    assert_int_equal(call_wait(&rig, &flush), -EIO);
    assert_int_equal(do_read(&rig, file, 0, &byte, 1), -EIO);
    assert_int_equal(do_write(&rig, file, 0, &byte, 1), -EIO);
    assert_int_equal(do_flush(&rig, file), -EIO);
    assert_int_equal(do_truncate(&rig, file, 5), -EIO);
    assert_int_equal(do_status(&rig, file, NULL, &status), -EIO);
    assert_int_equal(try_open(&rig, "b", ASH_FILE_CREATE, &other), -EIO);
    assert_int_equal(do_path(&rig, ASH_AIO_UNLINK, "a", NULL), -EIO);
    assert_int_equal(do_lock(&rig, file, F_RDLCK, 0, 1), -EIO);
    assert_int_equal(do_lock(&rig, file, F_UNLCK, 0, 1), 0);
    do_close(&rig, file);
    assert_int_equal(ash_sim_file_bytes(rig.world, "a"), 0);
    rig_engine_off(&rig);
    rig_power_on(&rig);
    assert_false(ash_sim_power_is_cut(rig.world));
    file = do_open(&rig, "a");
    fill(&rig, file, 0, 1, 512);
    do_close(&rig, file);
    rig_free(&rig);
}

static void an_armed_cut_strikes_before_the_nth_mutation(void **state)
{
    (void)state;
    for (unsigned nth = 1; nth <= 5; nth++) {
        struct rig rig = seeded_rig(nth);
        struct ash_file *file = do_open(&rig, "a");
        uint8_t buffer[SECTOR] = {1};
        ash_sim_power_cut_at(rig.world, nth, ASH_SIM_CUT_KEEP);
        for (unsigned i = 1; i <= 4; i++) {
            int64_t ret = do_write(&rig, file, ash_sim_file_bytes(rig.world, "a"), buffer, SECTOR);
            assert_int_equal(ret, i < nth ? SECTOR : -EIO);
            do_read(&rig, file, 0, buffer, 1);
        }
        assert_int_equal(do_flush(&rig, file), -EIO);
        assert_int_equal(ash_sim_mutations(rig.world), nth - 1);
        assert_int_equal(ash_sim_file_bytes(rig.world, "a"), (nth - 1) * SECTOR);
        do_close(&rig, file);
        rig_free(&rig);
    }
}

static int forty_two(void *opaque)
{
    (void)opaque;
    return 42;
}

static void work_polls_and_closing_live_through_a_cut(void **state)
{
    struct rig rig = seeded_rig(1);
    struct call close = {.aio = {.op = ASH_AIO_CLOSE, .file = do_open(&rig, "a")}};
    struct call work = {.aio = {.op = ASH_AIO_WORK, .work = forty_two}};
    struct call poll = {.aio = {.op = ASH_AIO_POLL}};

    (void)state;
    call_submit(&rig, &close);
    call_submit(&rig, &work);
    call_submit(&rig, &poll);
    ash_sim_power_cut(rig.world, ASH_SIM_CUT_RANDOM);
    assert_int_equal(call_wait(&rig, &close), 0);
    assert_int_equal(call_wait(&rig, &work), 42);
    assert_int_equal(ash_sim_open_files(rig.world), 0);
    assert_int_equal(rig.engine->ops->wait(rig.engine, UINT64_MAX), -EDEADLK);
    assert_false(poll.done);
    ash_engine_cancel_poll(rig.engine, &poll.aio);
    assert_int_equal(call_wait(&rig, &poll), -ECANCELED);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sector_may_keep_any_of_its_versions),
        cmocka_unit_test(drop_and_keep_leave_exactly_one_state),
        cmocka_unit_test(writes_are_torn_at_sectors_only),
        cmocka_unit_test(punched_and_zeroed_sectors_may_come_back),
        cmocka_unit_test(writes_in_flight_may_be_kept_or_lost),
        cmocka_unit_test(the_length_stops_at_what_it_was_or_on_the_way),
        cmocka_unit_test(a_truncate_takes_length_and_data_together),
        cmocka_unit_test(a_flush_need_not_cover_what_was_in_flight),
        cmocka_unit_test(dsync_covers_its_sectors_and_the_length),
        cmocka_unit_test(a_flush_need_not_cover_the_length_of_an_append_in_flight),
        cmocka_unit_test(dsync_does_not_cover_what_was_carried_out_later),
        cmocka_unit_test(a_failed_flush_loses_pages_for_good),
        cmocka_unit_test(writing_again_heals_what_a_failed_flush_lost),
        cmocka_unit_test(many_versions_of_one_page_are_bounded_and_right),
        cmocka_unit_test(everything_but_teardown_fails_without_power),
        cmocka_unit_test(an_armed_cut_strikes_before_the_nth_mutation),
        cmocka_unit_test(work_polls_and_closing_live_through_a_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
