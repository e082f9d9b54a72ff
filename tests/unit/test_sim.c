/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated engine: what each request does, locks, the clock. */
#include "tests/unit/unit.h"
#include "tests/unit/sim_rig.h"

#include <limits.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <unistd.h>

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

static struct rig plain_rig(void)
{
    return rig_new(&(struct ash_sim_config){.seed = 1, .latency_ns_min = 10, .latency_ns_max = 90});
}

static void check_filled(struct rig *rig, struct ash_file *file, uint64_t offset, uint8_t value,
                         size_t bytes)
{
    uint8_t *buffer = malloc(bytes);

    assert_int_equal(do_read(rig, file, offset, buffer, bytes), bytes);
    for (size_t i = 0; i < bytes; i++) {
        assert_int_equal(buffer[i], value);
    }
    free(buffer);
}

static void fill(struct rig *rig, struct ash_file *file, uint64_t offset, uint8_t value,
                 size_t bytes)
{
    uint8_t *buffer = malloc(bytes);

    memset(buffer, value, bytes);
    assert_int_equal(do_write(rig, file, offset, buffer, bytes), bytes);
    free(buffer);
}

static void open_flags_act_as_those_of_open(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file;
    struct ash_file *again;

    (void)state;
    assert_int_equal(try_open(&rig, "a", 0, &file), -ENOENT);
    assert_int_equal(try_open(&rig, "a", ASH_FILE_WRITE | ASH_FILE_CREATE, &file), 0);
    assert_int_equal(file->fd, -1);
    fill(&rig, file, 0, 7, 100);
    assert_int_equal(
        try_open(&rig, "a", ASH_FILE_WRITE | ASH_FILE_CREATE | ASH_FILE_EXCLUSIVE, &again),
        -EEXIST);
    assert_int_equal(try_open(&rig, "a", ASH_FILE_WRITE | ASH_FILE_CREATE, &again), 0);
    check_filled(&rig, again, 0, 7, 100);
    do_close(&rig, again);
    assert_int_equal(
        try_open(&rig, "a", ASH_FILE_WRITE | ASH_FILE_CREATE | ASH_FILE_TRUNCATE, &again), 0);
    assert_int_equal(ash_sim_file_bytes(rig.world, "a"), 0);
    do_close(&rig, again);
    do_close(&rig, file);
    assert_int_equal(ash_sim_open_files(rig.world), 0);
    rig_free(&rig);
}

static void host_descriptors_are_not_adopted(void **state)
{
    struct rig rig = plain_rig();
    struct call call = {.aio = {.op = ASH_AIO_OPEN, .adopt_fd = 0}};

    (void)state;
    assert_int_equal(call_run(&rig, &call), -EOPNOTSUPP);
    rig_free(&rig);
}

static void reading_only_files_cannot_be_written(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file;
    char byte = 1;

    (void)state;
    do_close(&rig, do_open(&rig, "a"));
    assert_int_equal(try_open(&rig, "a", 0, &file), 0);
    assert_int_equal(do_write(&rig, file, 0, &byte, 1), -EBADF);
    assert_int_equal(do_allocate(&rig, file, 0, 0, 10), -EBADF);
    assert_int_equal(do_truncate(&rig, file, 10), -EINVAL);
    assert_int_equal(do_flush(&rig, file), 0);
    do_close(&rig, file);
    assert_int_equal(ash_sim_file_set_read_only(rig.world, "a", true), 0);
    assert_int_equal(try_open(&rig, "a", ASH_FILE_WRITE, &file), -EACCES);
    assert_int_equal(ash_sim_file_bytes(rig.world, "a"), 0);
    rig_free(&rig);
}

static void reads_end_at_the_end_of_the_file(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");
    uint8_t buffer[100];

    (void)state;
    fill(&rig, file, 5000, 3, 50);
    check_filled(&rig, file, 0, 0, 5000);
    assert_int_equal(do_read(&rig, file, 5010, buffer, 100), 40);
    assert_int_equal(buffer[39], 3);
    assert_int_equal(do_read(&rig, file, 5050, buffer, 100), 0);
    assert_int_equal(do_read(&rig, file, UINT64_C(1) << 62, buffer, 100), 0);
    assert_int_equal(do_read(&rig, file, INT64_MAX, buffer, 100), -EINVAL);
    assert_int_equal(do_write(&rig, file, INT64_MAX, buffer, 100), -EINVAL);
    assert_int_equal(do_write(&rig, file, UINT64_C(1) << 62, buffer, 100), -EFBIG);
    assert_int_equal(do_write(&rig, file, 9000, buffer, 0), 0);
    assert_int_equal(ash_sim_file_bytes(rig.world, "a"), 5050);
    do_close(&rig, file);
    rig_free(&rig);
}

static void vectors_beyond_iov_max_give_short_transfers(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");
    struct iovec vec[IOV_MAX + 10];
    uint8_t bytes[IOV_MAX + 10];
    struct call call = {.aio = {.op = ASH_AIO_WRITE, .file = file, .bytes = IOV_MAX + 10}};

    (void)state;
    for (size_t i = 0; i < IOV_MAX + 10; i++) {
        bytes[i] = (uint8_t)i;
        vec[i] = (struct iovec){&bytes[i], 1};
    }
    call.aio.iov = ash_iov_of(vec, IOV_MAX + 10);
    assert_int_equal(call_run(&rig, &call), IOV_MAX);
    do_close(&rig, file);
    rig_free(&rig);
}

static void direct_files_demand_alignment(void **state)
{
    struct rig rig = rig_new(&(struct ash_sim_config){.direct_alignment = 1024});
    struct ash_file *file;
    uint8_t *buffer = aligned_alloc(1024, 4096);

    (void)state;
    memset(buffer, 1, 4096);
    assert_int_equal(try_open(&rig, "a", ASH_FILE_WRITE | ASH_FILE_CREATE | ASH_FILE_DIRECT, &file),
                     0);
    assert_int_equal(do_write(&rig, file, 1024, buffer, 2048), 2048);
    assert_int_equal(do_write(&rig, file, 512, buffer, 2048), -EINVAL);
    assert_int_equal(do_write(&rig, file, 1024, buffer, 512), -EINVAL);
    assert_int_equal(do_write(&rig, file, 1024, buffer + 512, 2048), -EINVAL);
    assert_int_equal(do_read(&rig, file, 0, buffer + 512, 1024), -EINVAL);
    assert_int_equal(do_read(&rig, file, 0, buffer, 4096), 3072);
    do_close(&rig, file);
    ash_sim_world_configure(rig.world, &(struct ash_sim_config){.unsupported = ASH_SIM_NO_DIRECT});
    assert_int_equal(try_open(&rig, "a", ASH_FILE_DIRECT, &file), -EINVAL);
    free(buffer);
    rig_free(&rig);
}

static void a_status_may_be_out_of_date_when_it_completes(void **state)
{
    unsigned outdated = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rig rig = rig_new(&(struct ash_sim_config){.seed = seed, .latency_ns_max = 100});
        struct ash_file *file = do_open(&rig, "a");
        struct ash_file_status status;
        struct call write = call_transfer(file, ASH_AIO_WRITE, 0, "x", 1);
        struct call ask = {.aio = {.op = ASH_AIO_STATUS, .file = file, .status = &status}};
        call_submit(&rig, &write);
        call_submit(&rig, &ask);
        assert_int_equal(call_wait(&rig, &ask), 0);
        outdated += write.done && status.bytes == 0;
        call_wait(&rig, &write);
        do_close(&rig, file);
        rig_free(&rig);
    }
    assert_true(outdated > 0);
}

static void allocation_modes_change_length_and_content_as_fallocate_does(void **state)
{
    static const struct {
        int mode;
        uint64_t length;
        uint8_t inside;
        uint64_t allocated;
    } cases[] = {
        {0, 40000, 5, 40960},
        {FALLOC_FL_KEEP_SIZE, 20000, 5, 40960},
        {FALLOC_FL_ZERO_RANGE, 40000, 0, 40960},
        {FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 20000, 0, 40960},
        {PUNCH, 20000, 0, 12288},
    };

    (void)state;
    for (size_t i = 0; i < ASH_ARRAY_SIZE(cases); i++) {
        struct rig rig = plain_rig();
        struct ash_file *file = do_open(&rig, "a");
        fill(&rig, file, 0, 5, 20000);
        assert_int_equal(do_allocate(&rig, file, cases[i].mode, 10000, 30000), 0);
        assert_int_equal(ash_sim_file_bytes(rig.world, "a"), cases[i].length);
        assert_int_equal(ash_sim_file_allocated_bytes(rig.world, "a"), cases[i].allocated);
        check_filled(&rig, file, 0, 5, 10000);
        check_filled(&rig, file, 10000, cases[i].inside, 10000);
        if (cases[i].length > 20000) {
            check_filled(&rig, file, 20000, 0, 20000);
        }
        do_close(&rig, file);
        rig_free(&rig);
    }
}

static void allocation_refuses_what_fallocate_refuses(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");
    struct ash_sim_config config = {.unsupported = ASH_SIM_NO_PUNCH_HOLE | ASH_SIM_NO_ZERO_RANGE |
                                                   ASH_SIM_NO_ALLOCATE | ASH_SIM_NO_SEEK};

    (void)state;
    assert_int_equal(do_allocate(&rig, file, FALLOC_FL_PUNCH_HOLE, 0, 10), -EOPNOTSUPP);
    assert_int_equal(do_allocate(&rig, file, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
    assert_int_equal(do_allocate(&rig, file, PUNCH, 0, 0), -EINVAL);
    assert_int_equal(do_allocate(&rig, file, 0, 0, 1 * TiB), -ENOSPC);
    ash_sim_world_configure(rig.world, &config);
    assert_int_equal(do_allocate(&rig, file, PUNCH, 0, 10), -EOPNOTSUPP);
    assert_int_equal(do_allocate(&rig, file, FALLOC_FL_ZERO_RANGE, 0, 10), -EOPNOTSUPP);
    assert_int_equal(do_allocate(&rig, file, 0, 0, 10), -EOPNOTSUPP);
    assert_int_equal(do_seek(&rig, file, SEEK_DATA, 0), -EINVAL);
    do_close(&rig, file);
    rig_free(&rig);
}

static void small_punches_zero_only_their_bytes(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");

    (void)state;
    fill(&rig, file, 0, 9, 12288);
    assert_int_equal(do_allocate(&rig, file, PUNCH, 100, 50), 0);
    assert_int_equal(do_allocate(&rig, file, PUNCH, 4000, 200), 0);
    check_filled(&rig, file, 0, 9, 100);
    check_filled(&rig, file, 100, 0, 50);
    check_filled(&rig, file, 150, 9, 3850);
    check_filled(&rig, file, 4000, 0, 200);
    check_filled(&rig, file, 4200, 9, 8088);
    do_close(&rig, file);
    rig_free(&rig);
}

static void what_a_truncate_cut_off_reads_as_zeroes_later(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");

    (void)state;
    fill(&rig, file, 0, 4, 10000);
    assert_int_equal(do_truncate(&rig, file, 5000), 0);
    assert_int_equal(do_truncate(&rig, file, 10000), 0);
    check_filled(&rig, file, 0, 4, 5000);
    check_filled(&rig, file, 5000, 0, 5000);
    assert_int_equal(ash_sim_file_allocated_bytes(rig.world, "a"), 8192);
    do_close(&rig, file);
    rig_free(&rig);
}

static void seek_finds_data_and_holes_of_a_huge_sparse_file(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");
    uint64_t far = UINT64_C(1) << 60;

    (void)state;
    fill(&rig, file, 8192, 1, 4096 * 70);
    fill(&rig, file, far, 1, 10);
    assert_int_equal(do_allocate(&rig, file, 0, 400 * KiB, 4 * KiB), 0);
    assert_int_equal(do_seek(&rig, file, SEEK_DATA, 0), 8192);
    assert_int_equal(do_seek(&rig, file, SEEK_HOLE, 0), 0);
    assert_int_equal(do_seek(&rig, file, SEEK_HOLE, 8192), 8192 + 4096 * 70);
    assert_int_equal(do_seek(&rig, file, SEEK_DATA, 9001), 9001);
    assert_int_equal(do_seek(&rig, file, SEEK_DATA, 8192 + 4096 * 70), far);
    assert_int_equal(do_seek(&rig, file, SEEK_HOLE, far), far + 10);
    assert_int_equal(do_seek(&rig, file, SEEK_DATA, far + 10), -ENXIO);
    assert_int_equal(do_seek(&rig, file, SEEK_HOLE, far + 10), -ENXIO);
    assert_int_equal(do_allocate(&rig, file, PUNCH, 0, far + 10), 0);
    assert_int_equal(do_seek(&rig, file, SEEK_DATA, 0), far);
    assert_int_equal(do_allocate(&rig, file, PUNCH, far, 4096), 0);
    assert_int_equal(do_seek(&rig, file, SEEK_DATA, 0), -ENXIO);
    assert_int_equal(do_seek(&rig, file, SEEK_HOLE, 77), 77);
    assert_int_equal(ash_sim_file_allocated_bytes(rig.world, "a"), 0);
    do_close(&rig, file);
    rig_free(&rig);
}

static void allocating_again_what_was_punched_counts_again(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");

    (void)state;
    assert_int_equal(do_allocate(&rig, file, 0, 0, 8192), 0);
    assert_int_equal(do_allocate(&rig, file, PUNCH, 0, 8192), 0);
    assert_int_equal(ash_sim_file_allocated_bytes(rig.world, "a"), 0);
    fill(&rig, file, 0, 1, 4096);
    assert_int_equal(ash_sim_file_allocated_bytes(rig.world, "a"), 4096);
    do_close(&rig, file);
    rig_free(&rig);
}

static void what_was_set_aside_and_written_goes_as_a_whole(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");

    (void)state;
    assert_int_equal(do_allocate(&rig, file, 0, 0, 8192), 0);
    fill(&rig, file, 0, 1, 8192);
    assert_int_equal(ash_sim_file_allocated_bytes(rig.world, "a"), 8192);
    assert_int_equal(do_allocate(&rig, file, PUNCH, 0, 8192), 0);
    assert_int_equal(ash_sim_file_allocated_bytes(rig.world, "a"), 0);
    do_close(&rig, file);
    rig_free(&rig);
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void seek_finds_each_page_of_random_sparse_files(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rig rig = plain_rig();
        struct ash_file *file = do_open(&rig, "a");
        struct ash_prng prng;
        uint64_t pages[40];
        ash_prng_seed(&prng, seed);
        for (size_t i = 0; i < ASH_ARRAY_SIZE(pages); i++) {
            pages[i] = ash_prng_below(&prng, UINT64_C(1) << ash_prng_between(&prng, 1, 45));
            fill(&rig, file, pages[i] * 4096, 1, 4096);
        }
        qsort(pages, ASH_ARRAY_SIZE(pages), sizeof(pages[0]), compare_numbers);
        for (size_t i = 1; i < ASH_ARRAY_SIZE(pages); i++) {
            if (pages[i] > pages[i - 1] + 1) {
                uint64_t before = ash_prng_between(&prng, pages[i - 1] + 1, pages[i] - 1);
                assert_int_equal(do_seek(&rig, file, SEEK_DATA, before * 4096), pages[i] * 4096);
                assert_int_equal(do_seek(&rig, file, SEEK_HOLE, pages[i - 1] * 4096),
                                 (pages[i - 1] + 1) * 4096);
            }
        }
        do_close(&rig, file);
        rig_free(&rig);
    }
}

static void status_numbers_files_in_order_of_creation(void **state)
{
    struct rig rig = rig_new(&(struct ash_sim_config){.direct_alignment = 4096});
    struct ash_file *file = do_open(&rig, "b");
    struct ash_file_status status;

    (void)state;
    do_close(&rig, do_open(&rig, "a"));
    fill(&rig, file, 0, 1, 5000);
    assert_int_equal(do_status(&rig, file, NULL, &status), 0);
    assert_int_equal(status.inode, 1);
    assert_int_equal(status.bytes, 5000);
    assert_int_equal(status.allocated_bytes, 8192);
    assert_true(status.regular);
    assert_int_equal(status.direct_offset_alignment, 4096);
    assert_int_equal(do_status(&rig, NULL, "a", &status), 0);
    assert_int_equal(status.inode, 2);
    assert_int_equal(do_status(&rig, NULL, "c", &status), -ENOENT);
    ash_sim_world_configure(rig.world,
                            &(struct ash_sim_config){.unsupported = ASH_SIM_NO_DIRECT_HINT});
    assert_int_equal(do_status(&rig, NULL, "a", &status), 0);
    assert_int_equal(status.direct_offset_alignment, 0);
    do_close(&rig, file);
    rig_free(&rig);
}

static void the_number_of_a_file_is_never_used_again(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file_status status;

    (void)state;
    do_close(&rig, do_open(&rig, "a"));
    assert_int_equal(do_path(&rig, ASH_AIO_UNLINK, "a", NULL), 0);
    do_close(&rig, do_open(&rig, "a"));
    assert_int_equal(do_status(&rig, NULL, "a", &status), 0);
    assert_int_equal(status.inode, 2);
    rig_free(&rig);
}

static void locks_exclude_other_opens_only(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *a = do_open(&rig, "f");
    struct ash_file *b = do_open(&rig, "f");

    (void)state;
    assert_int_equal(do_lock(&rig, a, F_RDLCK, 100, 10), 0);
    assert_int_equal(do_lock(&rig, b, F_RDLCK, 105, 10), 0);
    assert_int_equal(do_lock(&rig, b, F_WRLCK, 109, 1), -EAGAIN);
    assert_int_equal(do_lock_test(&rig, b, F_WRLCK, 109, 1), 1);
    assert_int_equal(do_lock_test(&rig, b, F_WRLCK, 110, 1), 0);
    assert_int_equal(do_lock_test(&rig, b, F_RDLCK, 109, 1), 0);
    assert_int_equal(do_lock(&rig, a, F_UNLCK, 100, 10), 0);
    assert_int_equal(do_lock(&rig, b, F_WRLCK, 109, 1), 0);
    assert_int_equal(do_lock(&rig, a, F_RDLCK, 109, 1), -EAGAIN);
    assert_int_equal(do_lock(&rig, a, F_WRLCK, 105, 1), -EAGAIN);
    do_close(&rig, b);
    assert_int_equal(do_lock(&rig, a, F_WRLCK, 0, 0), 0);
    do_close(&rig, a);
    rig_free(&rig);
}

static void unlocking_the_middle_splits_a_lock(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *a = do_open(&rig, "f");
    struct ash_file *b = do_open(&rig, "f");

    (void)state;
    assert_int_equal(do_lock(&rig, a, F_WRLCK, 100, 100), 0);
    assert_int_equal(do_lock(&rig, a, F_UNLCK, 140, 20), 0);
    assert_int_equal(do_lock_test(&rig, b, F_RDLCK, 139, 1), 1);
    assert_int_equal(do_lock_test(&rig, b, F_RDLCK, 140, 20), 0);
    assert_int_equal(do_lock_test(&rig, b, F_RDLCK, 160, 1), 1);
    assert_int_equal(do_lock_test(&rig, b, F_RDLCK, 199, 1), 1);
    assert_int_equal(do_lock_test(&rig, b, F_RDLCK, 200, 0), 0);
    assert_int_equal(do_lock(&rig, a, F_RDLCK, 100, 10), 0);
    assert_int_equal(do_lock_test(&rig, b, F_RDLCK, 100, 10), 0);
    assert_int_equal(do_lock_test(&rig, b, F_RDLCK, 110, 1), 1);
    do_close(&rig, a);
    do_close(&rig, b);
    rig_free(&rig);
}

static void write_locks_need_a_file_open_for_writing(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file;

    (void)state;
    do_close(&rig, do_open(&rig, "f"));
    assert_int_equal(try_open(&rig, "f", 0, &file), 0);
    assert_int_equal(do_lock(&rig, file, F_WRLCK, 0, 1), -EBADF);
    assert_int_equal(do_lock(&rig, file, F_RDLCK, 0, 1), 0);
    assert_int_equal(do_lock(&rig, file, 99, 0, 1), -EINVAL);
    do_close(&rig, file);
    rig_free(&rig);
}

static void names_move_and_go_while_open_files_stay(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *a = do_open(&rig, "a");
    struct ash_file *b = do_open(&rig, "b");

    (void)state;
    fill(&rig, a, 0, 1, 10);
    fill(&rig, b, 0, 2, 20);
    assert_int_equal(do_path(&rig, ASH_AIO_RENAME, "a", "b"), 0);
    assert_int_equal(ash_sim_file_bytes(rig.world, "a"), -ENOENT);
    assert_int_equal(ash_sim_file_bytes(rig.world, "b"), 10);
    check_filled(&rig, b, 0, 2, 20);
    assert_int_equal(do_path(&rig, ASH_AIO_UNLINK, "b", NULL), 0);
    check_filled(&rig, a, 0, 1, 10);
    assert_int_equal(do_path(&rig, ASH_AIO_UNLINK, "b", NULL), -ENOENT);
    assert_int_equal(do_path(&rig, ASH_AIO_RENAME, "b", "c"), -ENOENT);
    assert_int_equal(do_path(&rig, ASH_AIO_READLINK, "b", NULL), -ENOENT);
    do_close(&rig, a);
    do_close(&rig, b);
    do_close(&rig, do_open(&rig, "b"));
    assert_int_equal(do_path(&rig, ASH_AIO_READLINK, "b", NULL), -EINVAL);
    assert_int_equal(do_path(&rig, ASH_AIO_RENAME, "b", "b"), 0);
    assert_int_equal(do_path(&rig, ASH_AIO_SYNC_DIR, ".", NULL), 0);
    assert_int_equal(ash_sim_file_bytes(rig.world, "b"), 0);
    rig_free(&rig);
}

static void copies_move_bytes_between_files(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *a = do_open(&rig, "a");
    struct ash_file *b = do_open(&rig, "b");

    (void)state;
    fill(&rig, a, 0, 1, 10000);
    assert_int_equal(do_copy(&rig, a, 100, b, 333, 20000), 9900);
    check_filled(&rig, b, 0, 0, 333);
    check_filled(&rig, b, 333, 1, 9900);
    assert_int_equal(ash_sim_file_bytes(rig.world, "b"), 10233);
    assert_int_equal(do_copy(&rig, a, 10000, b, 0, 10), 0);
    assert_int_equal(do_copy(&rig, a, 0, a, 5, 10), -EINVAL);
    assert_int_equal(do_copy(&rig, a, 0, a, 50000, 10), 10);
    ash_sim_world_configure(rig.world, &(struct ash_sim_config){.unsupported = ASH_SIM_NO_COPY});
    assert_int_equal(do_copy(&rig, a, 0, b, 0, 10), -EOPNOTSUPP);
    do_close(&rig, a);
    do_close(&rig, b);
    rig_free(&rig);
}

static void polls_end_only_when_cancelled(void **state)
{
    struct rig rig = plain_rig();
    struct call call = {.aio = {.op = ASH_AIO_POLL}};

    (void)state;
    call_submit(&rig, &call);
    assert_int_equal(rig.engine->in_flight, 0);
    assert_int_equal(rig.engine->ops->wait(rig.engine, 2000000000), 0);
    assert_false(call.done);
    ash_engine_cancel_poll(rig.engine, &call.aio);
    ash_engine_cancel_poll(rig.engine, &call.aio);
    assert_false(call.done);
    assert_int_equal(call_wait(&rig, &call), -ECANCELED);
    rig_free(&rig);
}

static int add_one(void *opaque)
{
    return ++*(int *)opaque;
}

static void work_runs_when_it_completes(void **state)
{
    struct rig rig = plain_rig();
    int count = 41;
    struct call call = {.aio = {.op = ASH_AIO_WORK, .work = add_one, .work_opaque = &count}};

    (void)state;
    call_submit(&rig, &call);
    assert_int_equal(count, 41);
    assert_int_equal(call_wait(&rig, &call), 42);
    rig_free(&rig);
}

static void time_jumps_to_completions_and_deadlines(void **state)
{
    struct rig rig =
        rig_new(&(struct ash_sim_config){.latency_ns_min = 1000, .latency_ns_max = 1000});
    const struct ash_engine_ops *ops = rig.engine->ops;
    struct ash_file *file = do_open(&rig, "a");
    uint64_t start = ops->now(rig.engine);
    struct call call = {.aio = {.op = ASH_AIO_FLUSH, .file = file}};

    (void)state;
    call_submit(&rig, &call);
    assert_int_equal(ops->wait(rig.engine, 0), 0);
    assert_int_equal(ops->now(rig.engine), start);
    assert_int_equal(ops->wait(rig.engine, start + 999), 0);
    assert_int_equal(ops->now(rig.engine), start + 999);
    assert_false(call.done);
    assert_int_equal(ops->wait(rig.engine, start + 5000), 1);
    assert_int_equal(ops->now(rig.engine), start + 1000);
    assert_true(call.done);
    assert_int_equal(ops->wait(rig.engine, UINT64_MAX), -EDEADLK);
    ops->wake(rig.engine);
    assert_int_equal(ops->wait(rig.engine, UINT64_MAX), 0);
    assert_int_equal(ops->wait(rig.engine, UINT64_MAX), -EDEADLK);
    assert_int_equal(ops->now(rig.engine), start + 1000);
    do_close(&rig, file);
    rig_free(&rig);
}

static void concurrent_writes_are_carried_out_in_any_order(void **state)
{
    bool first_won = false;
    bool second_won = false;

    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rig rig = rig_new(&(struct ash_sim_config){.seed = seed, .latency_ns_max = 100});
        struct ash_file *file = do_open(&rig, "a");
        struct call a = call_transfer(file, ASH_AIO_WRITE, 0, "first", 5);
        struct call b = call_transfer(file, ASH_AIO_WRITE, 0, "other", 5);
        char found[5];
        call_submit(&rig, &a);
        call_submit(&rig, &b);
        assert_int_equal(call_wait(&rig, &a), 5);
        assert_int_equal(call_wait(&rig, &b), 5);
        assert_int_equal(do_read(&rig, file, 0, found, 5), 5);
        first_won |= !memcmp(found, "first", 5);
        second_won |= !memcmp(found, "other", 5);
        do_close(&rig, file);
        rig_free(&rig);
    }
    assert_true(first_won && second_won);
}

/* Each request takes the same time: which one comes first is drawn all the same. */
static void requests_that_are_due_at_once_complete_in_any_order(void **state)
{
    bool first_won = false;
    bool second_won = false;

    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rig rig = rig_new(&(struct ash_sim_config){.seed = seed});
        struct ash_file *file = do_open(&rig, "a");
        struct call a = call_transfer(file, ASH_AIO_WRITE, 0, "first", 5);
        struct call b = call_transfer(file, ASH_AIO_WRITE, 0, "other", 5);
        char found[5];
        call_submit(&rig, &a);
        call_submit(&rig, &b);
        assert_int_equal(call_wait(&rig, &a), 5);
        assert_int_equal(call_wait(&rig, &b), 5);
        assert_int_equal(do_read(&rig, file, 0, found, 5), 5);
        first_won |= !memcmp(found, "first", 5);
        second_won |= !memcmp(found, "other", 5);
        do_close(&rig, file);
        rig_free(&rig);
    }
    assert_true(first_won && second_won);
}

static void a_write_may_be_seen_before_it_completes(void **state)
{
    bool early = false;
    bool late = false;

    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rig rig = rig_new(&(struct ash_sim_config){.seed = seed, .latency_ns_max = 100});
        struct ash_file *file = do_open(&rig, "a");
        struct call write = call_transfer(file, ASH_AIO_WRITE, 0, "x", 1);
        char found = 0;
        struct call read = call_transfer(file, ASH_AIO_READ, 0, &found, 1);
        call_submit(&rig, &write);
        call_submit(&rig, &read);
        assert_true(call_wait(&rig, &read) >= 0);
        early |= found == 'x' && !write.done;
        late |= found == 0;
        call_wait(&rig, &write);
        do_close(&rig, file);
        rig_free(&rig);
    }
    assert_true(early && late);
}

static void files_survive_export_and_import(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");
    char path[] = "/tmp/ashlar-sim-XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    fill(&rig, file, 4096, 1, 8192);
    fill(&rig, file, 1 * GiB, 2, 5);
    assert_int_equal(do_truncate(&rig, file, 2 * GiB + 1), 0);
    assert_int_equal(ash_sim_file_export(rig.world, "a", path), 0);
    assert_int_equal(ash_sim_file_export(rig.world, "b", path), -ENOENT);
    assert_int_equal(ash_sim_file_write(rig.world, "c", 100, "old", 3), 0);
    assert_int_equal(ash_sim_file_import(rig.world, "c", path), 0);
    assert_int_equal(ash_sim_file_bytes(rig.world, "c"), 2 * GiB + 1);
    assert_true(ash_sim_file_allocated_bytes(rig.world, "c") <= (int64_t)(1 * MiB));
    ash_sim_power_cut(rig.world, ASH_SIM_CUT_DROP);
    do_close(&rig, file);
    rig_engine_off(&rig);
    rig_power_on(&rig);
    assert_int_equal(ash_sim_file_bytes(rig.world, "a"), 0);
    file = do_open(&rig, "c");
    check_filled(&rig, file, 0, 0, 4096);
    check_filled(&rig, file, 4096, 1, 8192);
    check_filled(&rig, file, 12288, 0, 4096);
    check_filled(&rig, file, 1 * GiB, 2, 5);
    do_close(&rig, file);
    unlink(path);
    rig_free(&rig);
}

static void direct_access_sees_and_leaves_durable_files(void **state)
{
    struct rig rig = plain_rig();
    char found[5] = "";

    (void)state;
    assert_int_equal(ash_sim_file_read(rig.world, "a", 0, found, 1), -ENOENT);
    assert_int_equal(ash_sim_file_write(rig.world, "a", 100, "hello", 5), 0);
    assert_int_equal(ash_sim_file_read(rig.world, "a", 101, found, 5), -EINVAL);
    ash_sim_power_cut(rig.world, ASH_SIM_CUT_DROP);
    assert_int_equal(ash_sim_file_read(rig.world, "a", 100, found, 5), 0);
    assert_memory_equal(found, "hello", 5);
    rig_free(&rig);
}

static void files_left_open_are_closed_and_counted(void **state)
{
    struct rig rig = plain_rig();
    struct ash_file *file = do_open(&rig, "a");

    (void)state;
    assert_int_equal(do_lock(&rig, file, F_WRLCK, 0, 1), 0);
    assert_int_equal(ash_sim_open_files(rig.world), 1);
    rig_engine_off(&rig);
    assert_int_equal(ash_sim_leaked_files(rig.world), 1);
    rig_power_on(&rig);
    file = do_open(&rig, "a");
    assert_int_equal(do_lock(&rig, file, F_WRLCK, 0, 1), 0);
    do_close(&rig, file);
    rig_free(&rig);
}

static void a_world_has_one_engine_at_a_time(void **state)
{
    struct rig rig = plain_rig();
    struct ash_engine *engine;
    struct ash_engine_config config = {.depth = 1};

    (void)state;
    assert_int_equal(ash_engine_sim_new(rig.world, &config, &engine, NULL), -EBUSY);
    rig_free(&rig);
}

static void count_event(void *opaque, const struct ash_sim_event *event)
{
    unsigned *counts = opaque;

    counts[event->phase]++;
    if (event->aio && event->aio->op == ASH_AIO_WRITE) {
        assert_string_equal(event->path, "a");
        assert_string_equal(ash_sim_op_name(event->aio->op), "write");
    }
}

static void an_observer_sees_every_phase(void **state)
{
    struct rig rig = plain_rig();
    unsigned counts[4] = {0};

    (void)state;
    ash_sim_observe(rig.world, count_event, counts);
    struct ash_file *file = do_open(&rig, "a");
    fill(&rig, file, 0, 1, 10);
    ash_sim_power_cut(rig.world, ASH_SIM_CUT_KEEP);
    do_close(&rig, file);
    assert_int_equal(counts[ASH_SIM_SUBMITTED], 3);
    assert_int_equal(counts[ASH_SIM_CARRIED_OUT], 3);
    assert_int_equal(counts[ASH_SIM_COMPLETED], 3);
    assert_int_equal(counts[ASH_SIM_POWER_CUT], 1);
    rig_free(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_flags_act_as_those_of_open),
        cmocka_unit_test(host_descriptors_are_not_adopted),
        cmocka_unit_test(reading_only_files_cannot_be_written),
        cmocka_unit_test(reads_end_at_the_end_of_the_file),
        cmocka_unit_test(vectors_beyond_iov_max_give_short_transfers),
        cmocka_unit_test(direct_files_demand_alignment),
        cmocka_unit_test(a_status_may_be_out_of_date_when_it_completes),
        cmocka_unit_test(allocation_modes_change_length_and_content_as_fallocate_does),
        cmocka_unit_test(allocation_refuses_what_fallocate_refuses),
        cmocka_unit_test(small_punches_zero_only_their_bytes),
        cmocka_unit_test(what_a_truncate_cut_off_reads_as_zeroes_later),
        cmocka_unit_test(seek_finds_data_and_holes_of_a_huge_sparse_file),
        cmocka_unit_test(allocating_again_what_was_punched_counts_again),
        cmocka_unit_test(what_was_set_aside_and_written_goes_as_a_whole),
        cmocka_unit_test(seek_finds_each_page_of_random_sparse_files),
        cmocka_unit_test(status_numbers_files_in_order_of_creation),
        cmocka_unit_test(the_number_of_a_file_is_never_used_again),
        cmocka_unit_test(locks_exclude_other_opens_only),
        cmocka_unit_test(unlocking_the_middle_splits_a_lock),
        cmocka_unit_test(write_locks_need_a_file_open_for_writing),
        cmocka_unit_test(names_move_and_go_while_open_files_stay),
        cmocka_unit_test(copies_move_bytes_between_files),
        cmocka_unit_test(polls_end_only_when_cancelled),
        cmocka_unit_test(work_runs_when_it_completes),
        cmocka_unit_test(time_jumps_to_completions_and_deadlines),
        cmocka_unit_test(concurrent_writes_are_carried_out_in_any_order),
        cmocka_unit_test(requests_that_are_due_at_once_complete_in_any_order),
        cmocka_unit_test(a_write_may_be_seen_before_it_completes),
        cmocka_unit_test(files_survive_export_and_import),
        cmocka_unit_test(direct_access_sees_and_leaves_durable_files),
        cmocka_unit_test(files_left_open_are_closed_and_counted),
        cmocka_unit_test(a_world_has_one_engine_at_a_time),
        cmocka_unit_test(an_observer_sees_every_phase),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
