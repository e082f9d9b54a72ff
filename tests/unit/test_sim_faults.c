/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated engine: faults, lack of space, holds and stalls. */
#include "tests/unit/unit.h"
#include "tests/unit/sim_rig.h"

#include <linux/falloc.h>
#include <unistd.h>

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static struct rig plain_rig(void)
{
    return rig_new(&(struct ash_sim_config){.seed = 1, .latency_ns_min = 10, .latency_ns_max = 90});
}

static void fill(struct rig *rig, struct ash_file *file, uint64_t offset, uint8_t value,
                 size_t bytes)
{
    uint8_t *buffer = malloc(bytes);

    memset(buffer, value, bytes);
    assert_int_equal(do_write(rig, file, offset, buffer, bytes), bytes);
    free(buffer);
}

static void held_requests_wait_for_their_release(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");
    struct call held = call_transfer(file, ASH_AIO_WRITE, 4096, "held", 4);
    struct call flush = {.aio = {.op = ASH_AIO_FLUSH, .file = file}};

    (void)state;
    ash_sim_hold(rig.world, "a", ASH_AIO_WRITE, 4098, 1);
    ash_sim_hold(rig.world, "a", ASH_AIO_FLUSH, 0, 0);
    call_submit(&rig, &held);
    call_submit(&rig, &flush);
    assert_int_equal(do_write(&rig, file, 0, "free", 4), 4);
    assert_int_equal(do_write(&rig, file, 4094, "four", 4), 4);
    assert_int_equal(ash_sim_held(rig.world), 2);
    assert_int_equal(rig.engine->ops->wait(rig.engine, UINT64_MAX), -EDEADLK);
    assert_int_equal(ash_sim_file_bytes(rig.world, "a"), 4098);
    ash_sim_release_all(rig.world);
    assert_int_equal(call_wait(&rig, &held), 4);
    assert_int_equal(call_wait(&rig, &flush), 0);
    assert_int_equal(do_write(&rig, file, 4096, "more", 4), 4);
    do_close(&rig, file);
    rig_free(&rig);
}

static void stalled_requests_complete_after_release(void **state)
{
    unsigned carried_out = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct ash_sim_config config = {.seed = seed, .latency_ns_max = 10};
        struct rig rig = rig_new(&config);
        struct ash_file *file = do_open(&rig, "a");
        struct call call = call_transfer(file, ASH_AIO_WRITE, 0, "x", 1);
        config.stall_per_mille = 1000;
        ash_sim_world_configure(rig.world, &config);
        call_submit(&rig, &call);
        assert_int_equal(rig.engine->ops->wait(rig.engine, UINT64_MAX), -EDEADLK);
        assert_int_equal(ash_sim_held(rig.world), 1);
        carried_out += ash_sim_file_bytes(rig.world, "a") == 1;
        ash_sim_release_all(rig.world);
        assert_int_equal(call_wait(&rig, &call), 1);
        do_close(&rig, file);
        rig_free(&rig);
    }
    assert_in_range(carried_out, 5, 35);
}

static void short_transfers_end_at_sectors(void **state)
{
    struct ash_sim_config config = {.seed = 3, .short_per_mille = 1000};
    struct rig rig = rig_new(&config);
    struct ash_file *file = do_open(&rig, "a");
    uint8_t buffer[4000] = {0};
    unsigned shorter = 0;

    (void)state;
    for (unsigned i = 0; i < 50; i++) {
        int64_t done = do_write(&rig, file, 100, buffer, sizeof(buffer));
        assert_in_range(done, 412, 4000);
        assert_true(done == 4000 || (done + 100) % 512 == 0);
        shorter += done < 4000;
        assert_true(do_read(&rig, file, 0, buffer, 1024) % 512 == 0);
        assert_int_equal(do_read(&rig, file, 10, buffer, 100), 100);
    }
    assert_true(shorter > 30);
    for (unsigned i = 0; i < 20; i++) {
        int64_t done = do_write(&rig, file, 0, buffer, sizeof(buffer));
        assert_true(done == 4000 || do_write(&rig, file, 0, buffer, sizeof(buffer)) == 4000);
    }
    do_close(&rig, file);
    rig_free(&rig);
}

static void failing_requests_say_eio(void **state)
{
    struct ash_sim_config config = {.seed = 3,
                                    .read_error_per_mille = 1000,
                                    .write_error_per_mille = 1000,
                                    .flush_error_per_mille = 1000};
    struct rig rig = rig_new(&(struct ash_sim_config){.seed = 3});
    struct ash_file *file = do_open(&rig, "a");
    uint8_t byte = 0;

    (void)state;
    fill(&rig, file, 0, 1, 8192);
    ash_sim_world_configure(rig.world, &config);
    assert_int_equal(do_read(&rig, file, 0, &byte, 1), -EIO);
    assert_int_equal(do_write(&rig, file, 0, &byte, 1), -EIO);
    assert_int_equal(do_allocate(&rig, file, PUNCH, 0, 10), -EIO);
    assert_int_equal(do_truncate(&rig, file, 8192), -EIO);
    assert_int_equal(do_flush(&rig, file), -EIO);
    config.write_error_per_mille = 0;
    ash_sim_world_configure(rig.world, &config);
    assert_int_equal(do_write_dsync(&rig, file, 0, &byte, 1), -EIO);
    do_close(&rig, file);
    rig_free(&rig);
}

static void failed_writes_leave_any_part_behind(void **state)
{
    bool seen[5] = {false};

    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        struct rig rig =
            rig_new(&(struct ash_sim_config){.seed = seed, .write_error_per_mille = 1000});
        struct ash_file *file = do_open(&rig, "a");
        uint8_t buffer[2048];
        memset(buffer, 1, sizeof(buffer));
        assert_int_equal(do_write(&rig, file, 0, buffer, sizeof(buffer)), -EIO);
        int64_t bytes = ash_sim_file_bytes(rig.world, "a");
        assert_int_equal(bytes % 512, 0);
        seen[bytes / 512] = true;
        do_close(&rig, file);
        rig_free(&rig);
    }
    assert_true(seen[0] && seen[1] && seen[2] && seen[3]);
}

static void capacity_bounds_all_files_together(void **state)
{
    struct rig rig = rig_new(&(struct ash_sim_config){.capacity_bytes = 5 * 4096});
    struct ash_file *a = do_open(&rig, "a");
    struct ash_file *b = do_open(&rig, "b");
    uint8_t buffer[16384];

    (void)state;
    memset(buffer, 1, sizeof(buffer));
    assert_int_equal(do_write(&rig, a, 0, buffer, 12288), 12288);
    assert_int_equal(do_write(&rig, b, 100, buffer, 16384), 8092);
    assert_int_equal(do_write(&rig, b, 8192, buffer, 10), -ENOSPC);
    assert_int_equal(ash_sim_file_bytes(rig.world, "b"), 8192);
    assert_int_equal(do_write(&rig, a, 0, buffer, 12288), 12288);
    assert_int_equal(do_allocate(&rig, b, 0, 0, 8193), -ENOSPC);
    assert_int_equal(do_allocate(&rig, b, 0, 0, 8192), 0);
    assert_int_equal(do_truncate(&rig, b, 1 * TiB), 0);
    assert_int_equal(do_allocate(&rig, a, PUNCH, 0, 4096), 0);
    assert_int_equal(do_allocate(&rig, b, FALLOC_FL_ZERO_RANGE, 65536, 4096), 0);
    assert_int_equal(do_copy(&rig, b, 0, a, 0, 4096), -ENOSPC);
    do_close(&rig, a);
    assert_int_equal(do_path(&rig, ASH_AIO_UNLINK, "a", NULL), 0);
    assert_int_equal(do_write(&rig, b, 16384, buffer, 8192), 8192);
    do_close(&rig, b);
    rig_free(&rig);
}

static void space_comes_back_when_the_last_name_or_open_file_goes(void **state)
{
    struct rig rig = rig_new(&(struct ash_sim_config){.capacity_bytes = 2 * 4096});
    struct ash_file *a = do_open(&rig, "a");
    struct ash_file *b = do_open(&rig, "b");

    (void)state;
    fill(&rig, a, 0, 1, 8192);
    assert_int_equal(do_path(&rig, ASH_AIO_UNLINK, "a", NULL), 0);
    assert_int_equal(do_write(&rig, b, 0, "x", 1), -ENOSPC);
    do_close(&rig, a);
    fill(&rig, b, 0, 1, 8192);
    do_close(&rig, b);
    do_close(&rig, do_open(&rig, "c"));
    assert_int_equal(do_path(&rig, ASH_AIO_RENAME, "c", "b"), 0);
    b = do_open(&rig, "b");
    fill(&rig, b, 0, 1, 8192);
    do_close(&rig, b);
    rig_free(&rig);
}

static void copies_stop_where_space_ends(void **state)
{
    struct rig rig = rig_new(&(struct ash_sim_config){.capacity_bytes = 6 * 4096});
    struct ash_file *a = do_open(&rig, "a");

    (void)state;
    fill(&rig, a, 0, 1, 16384);
    assert_int_equal(do_copy(&rig, a, 0, a, 16384, 16384), 8192);
    do_close(&rig, a);
    rig_free(&rig);
}

static void writes_that_find_no_space_leave_the_length(void **state)
{
    struct rig rig = rig_new(&(struct ash_sim_config){.capacity_bytes = 4096});
    struct ash_file *a = do_open(&rig, "a");

    (void)state;
    fill(&rig, a, 0, 1, 100);
    assert_int_equal(do_write(&rig, a, 8192, "x", 1), -ENOSPC);
    assert_int_equal(ash_sim_file_bytes(rig.world, "a"), 100);
    do_close(&rig, a);
    rig_free(&rig);
}

static void lack_of_space_hits_only_what_needs_space(void **state)
{
    struct rig rig = rig_new(&(struct ash_sim_config){.seed = 5});
    struct ash_file *file = do_open(&rig, "a");

    (void)state;
    fill(&rig, file, 0, 1, 8192);
    ash_sim_world_configure(rig.world, &(struct ash_sim_config){.no_space_per_mille = 1000});
    fill(&rig, file, 0, 2, 8192);
    assert_int_equal(do_write(&rig, file, 8192, "x", 1), -ENOSPC);
    assert_int_equal(do_allocate(&rig, file, PUNCH, 0, 4096), 0);
    assert_int_equal(do_allocate(&rig, file, 0, 0, 8192), -ENOSPC);
    do_close(&rig, file);
    rig_free(&rig);
}

static void an_aimed_fault_hits_the_nth_io_of_a_file(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *a = do_open(&rig, "a");
    struct ash_file *b = do_open(&rig, "b");
    struct ash_file_status status;
    uint8_t byte = 0;

    (void)state;
    fill(&rig, a, 0, 1, 512);
    ash_sim_aim(rig.world, "a", 2, 3, -ENOSPC);
    assert_int_equal(do_read(&rig, a, 0, &byte, 1), 1);
    assert_int_equal(do_write(&rig, b, 0, &byte, 1), 1);
    assert_int_equal(do_flush(&rig, a), 0);
    assert_int_equal(do_status(&rig, a, NULL, &status), 0);
    assert_int_equal(do_write(&rig, a, 0, "no", 2), -ENOSPC);
    assert_int_equal(do_seek(&rig, a, SEEK_DATA, 0), -ENOSPC);
    assert_int_equal(do_truncate(&rig, a, 1000), -ENOSPC);
    assert_int_equal(ash_sim_file_bytes(rig.world, "a"), 512);
    assert_int_equal(sector_value(&rig, "a", 0), 1);
    assert_int_equal(do_flush(&rig, a), 0);
    ash_sim_aim(rig.world, "a", 0, UINT64_MAX, -EIO);
    assert_int_equal(do_allocate(&rig, a, PUNCH, 0, 512), -EIO);
    assert_int_equal(do_copy(&rig, a, 0, b, 0, 512), -EIO);
    ash_sim_aim(rig.world, NULL, 0, 0, 0);
    assert_int_equal(do_copy(&rig, a, 0, b, 0, 512), 512);
    do_close(&rig, a);
    do_close(&rig, b);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_requests_wait_for_their_release),
        cmocka_unit_test(stalled_requests_complete_after_release),
        cmocka_unit_test(short_transfers_end_at_sectors),
        cmocka_unit_test(failing_requests_say_eio),
        cmocka_unit_test(failed_writes_leave_any_part_behind),
        cmocka_unit_test(capacity_bounds_all_files_together),
        cmocka_unit_test(space_comes_back_when_the_last_name_or_open_file_goes),
        cmocka_unit_test(copies_stop_where_space_ends),
        cmocka_unit_test(writes_that_find_no_space_leave_the_length),
        cmocka_unit_test(lack_of_space_hits_only_what_needs_space),
        cmocka_unit_test(an_aimed_fault_hits_the_nth_io_of_a_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
