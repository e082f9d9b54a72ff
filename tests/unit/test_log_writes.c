/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The log-writes filter: what stands in the log, when, and that replaying it onto an empty image
 * makes the image that was logged. */
#include "tests/unit/unit.h"
#include <endian.h>
#include "block/filter/fault.h"
#include "tests/unit/core_rig.h"

#define IMAGE_BYTES (256 * KiB)
#define LOG_BYTES (4 * MiB)
#define WRITING (ASH_NODE_WRITE | ASH_NODE_DISCARD)

enum { FLUSH = 1, FUA = 2, DISCARD = 4 };

/* The log, as the kernel's documentation lays it out: 64-bit numbers in little endian. */
struct log {
    uint8_t *bytes;
    uint64_t sector;
    uint64_t entries;
    uint64_t at; /* the next entry */
};

struct record {
    uint64_t offset;
    uint64_t bytes;
    uint64_t flags;
    const uint8_t *data;
    uint64_t data_bytes;
};

static uint64_t number(const uint8_t *bytes)
{
    uint64_t le;
    memcpy(&le, bytes, sizeof(le));
    return le64toh(le);
}

ASH_CO_FN static struct ash_disk *open_file(struct core *core, const char *name, uint32_t flags)
{
    struct ash_disk *disk = NULL;
    json_t *description =
        json_pack("{s:s, s:s}", "driver", "file", "filename", core_file(core, name, -1));
    assert_int_equal(ash_co_disk_open(core->loop, description, flags, &disk, NULL), 0);
    json_decref(description);
    return disk;
}

ASH_CO_FN static void read_log(struct core *core, struct log *log)
{
    struct ash_disk *disk = open_file(core, "log", ASH_NODE_FORCE_SHARE);
    uint64_t bytes = ash_disk_bytes(disk);
    assert_true(bytes >= 512);
    assert_true(bytes <= LOG_BYTES);
    log->bytes = g_malloc(bytes);
    assert_int_equal(ash_disk_read(disk, 0, log->bytes, bytes), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    assert_int_equal(number(log->bytes), 0x6a736677736872);
    assert_int_equal(number(log->bytes + 8), 1);
    log->entries = number(log->bytes + 16);
    log->sector = number(log->bytes + 24) & UINT32_MAX;
    log->at = log->sector;
}

static struct record next_record(struct log *log)
{
    const uint8_t *entry = log->bytes + log->at;
    struct record record = {.offset = number(entry) * log->sector,
                            .bytes = number(entry + 8) * log->sector,
                            .flags = number(entry + 16),
                            .data = entry + log->sector,
                            .data_bytes = number(entry + 24)};
    log->at += log->sector + record.data_bytes;
    log->entries--;
    return record;
}

static void expect_record(struct log *log, uint64_t offset, uint64_t bytes, uint64_t flags,
                          int byte)
{
    assert_true(log->entries > 0);
    struct record record = next_record(log);
    assert_int_equal(record.offset, offset);
    assert_int_equal(record.bytes, bytes);
    assert_int_equal(record.flags, flags);
    assert_int_equal(record.data_bytes, byte < 0 ? 0 : bytes);
    for (uint64_t i = 0; i < record.data_bytes; i++) {
        assert_int_equal(record.data[i], byte);
    }
}

static void expect_end(struct log *log)
{
    assert_int_equal(log->entries, 0);
    g_free(log->bytes);
}

ASH_CO_FN static int try_open(struct core *core, const char *own, const char *image,
                              const char *log, struct ash_disk **disk, struct ash_error *error)
{
    char *text = g_strdup_printf(
        "{\"driver\": \"log-writes\"%s, \"file\": {\"driver\": \"fault\", \"node-name\": "
        "\"image\"%s, "
        "\"file\": {\"driver\": \"file\", \"filename\": \"%s\"}}, \"log\": {\"driver\": \"fault\", "
        "\"node-name\": \"log\"%s, \"file\": {\"driver\": \"file\", \"filename\": \"%s\"}}}",
        own, image, core_file(core, "image", -1), log, core_file(core, "log", -1));
    json_t *description = json_loads(text, 0, NULL);
    assert_non_null(description);
    int ret = ash_co_disk_open(core->loop, description, WRITING, disk, error);
    json_decref(description);
    g_free(text);
    return ret;
}

ASH_CO_FN static struct ash_disk *open_logged(struct core *core, const char *own)
{
    struct ash_disk *disk = NULL;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = try_open(core, own, "", "", &disk, &error);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    return disk;
}

ASH_CO_FN static struct ash_disk *up(struct core *core, const char *own)
{
    core_file(core, "image", IMAGE_BYTES);
    core_file(core, "log", 0);
    return open_logged(core, own);
}

ASH_CO_FN static int put(struct ash_disk *disk, int byte, uint64_t offset, uint64_t bytes,
                         uint32_t flags)
{
    uint8_t *buffer = g_malloc(bytes);
    memset(buffer, byte, bytes);
    int ret = ash_disk_write(disk, offset, buffer, bytes, flags);
    g_free(buffer);
    return ret;
}

ASH_CO_FN static void close_disk(struct ash_disk *disk)
{
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(each_change_is_an_entry)
{
    (void)opaque;
    struct log log;
    struct ash_disk *disk = up(core, "");
    assert_int_equal(put(disk, 7, 4096, 1024, 0), 0);
    assert_int_equal(put(disk, 8, 512, 512, ASH_REQ_FUA), 0);
    assert_int_equal(ash_disk_zero(disk, 8192, 2048, 0), 0);
    assert_int_equal(ash_disk_discard(disk, 65536, 65536), 0);
    assert_int_equal(ash_disk_flush(disk), 0);
    read_log(core, &log); /* at a flush it is complete */
    assert_int_equal(log.sector, 512);
    expect_record(&log, 4096, 1024, 0, 7);
    expect_record(&log, 512, 512, FUA, 8);
    expect_record(&log, 8192, 2048, 0, 0);
    expect_record(&log, 65536, 65536, DISCARD, -1);
    expect_record(&log, 0, 0, FLUSH, -1);
    expect_end(&log);
    close_disk(disk);
}

CORE_TEST(a_write_of_a_part_of_a_sector_is_recorded_as_whole_sectors)
{
    (void)opaque;
    struct log log;
    struct ash_disk *disk = up(core, ", \"log-sector-size\": 4096");
    assert_int_equal(put(disk, 5, 0, 4096, 0), 0);
    assert_int_equal(put(disk, 5, 100, 7, 0), 0);
    close_disk(disk);
    read_log(core, &log);
    assert_int_equal(log.sector, 4096);
    expect_record(&log, 0, 4096, 0, 5);
    expect_record(&log, 0, 4096, 0, 5);
    expect_record(&log, 0, 0, FLUSH, -1); /* of closing */
    expect_end(&log);
}

CORE_TEST(the_super_block_counts_every_so_many_entries_and_when_the_disk_closes)
{
    (void)opaque;
    struct log log;
    struct ash_disk *disk = up(core, ", \"log-super-update-interval\": 3");
    for (unsigned i = 1; i <= 7; i++) {
        assert_int_equal(put(disk, 1, i * 512, 512, 0), 0);
        read_log(core, &log);
        assert_int_equal(log.entries, i / 3 * 3);
        g_free(log.bytes);
    }
    close_disk(disk);
    read_log(core, &log);
    assert_int_equal(log.entries, 8);
    g_free(log.bytes);
}

CORE_TEST(a_log_is_begun_anew_or_continued)
{
    (void)opaque;
    struct log log;
    struct ash_disk *disk = up(core, "");
    assert_int_equal(put(disk, 1, 0, 512, 0), 0);
    assert_int_equal(ash_disk_discard(disk, 4096, 4096), 0);
    close_disk(disk);
    disk = open_logged(core, ", \"log-append\": true");
    assert_int_equal(put(disk, 2, 512, 512, 0), 0);
    close_disk(disk);
    read_log(core, &log);
    expect_record(&log, 0, 512, 0, 1);
    expect_record(&log, 4096, 4096, DISCARD, -1);
    expect_record(&log, 0, 0, FLUSH, -1);
    expect_record(&log, 512, 512, 0, 2);
    expect_record(&log, 0, 0, FLUSH, -1);
    expect_end(&log);
    disk = open_logged(core, "");
    read_log(core, &log);
    expect_end(&log);
    close_disk(disk);
}

ASH_CO_FN static void expect_refused(struct core *core, const char *own, const char *part)
{
    struct ash_disk *disk;
    struct ash_error error = ASH_ERROR_INIT;
    assert_int_equal(try_open(core, own, "", "", &disk, &error), -EINVAL);
    if (strstr(error.message, part) == NULL) {
        print_message("%s\n", error.message);
    }
    assert_non_null(strstr(error.message, part));
}

CORE_TEST(what_cannot_be_logged_or_continued_is_refused)
{
    (void)opaque;
    core_file(core, "image", IMAGE_BYTES);
    core_file(core, "log", 512);
    expect_refused(core, ", \"log-sector-size\": 1000", "power of two");
    expect_refused(core, ", \"log-append\": true", "super block");
    struct ash_disk *disk = open_logged(core, "");
    assert_int_equal(put(disk, 1, 0, 1024, 0), 0);
    close_disk(disk);
    expect_refused(core, ", \"log-append\": true, \"log-sector-size\": 4096", "sectors of 512");
    disk = open_file(core, "log", WRITING);
    assert_int_equal(put(disk, 0xff, 512 + 8, 8, 0), 0); /* the first entry's length */
    close_disk(disk);
    expect_refused(core, ", \"log-append\": true", "damaged");
    core_file(core, "image", IMAGE_BYTES + 512);
    expect_refused(core, ", \"log-sector-size\": 4096", "262656 bytes");
}

CORE_TEST(a_request_that_failed_is_not_recorded)
{
    (void)opaque;
    struct log log;
    struct ash_disk *disk;
    core_file(core, "image", IMAGE_BYTES);
    core_file(core, "log", 0);
    assert_int_equal(try_open(core, "",
                              ", \"inject-error\": [{\"iotype\": \"write\", \"sector\": 9}]", "",
                              &disk, NULL),
                     0);
    assert_int_equal(put(disk, 1, 9 * 512, 512, 0), -EIO);
    assert_int_equal(put(disk, 2, 0, 512, 0), 0);
    close_disk(disk);
    read_log(core, &log);
    expect_record(&log, 0, 512, 0, 2);
    expect_record(&log, 0, 0, FLUSH, -1);
    expect_end(&log);
}

CORE_TEST(a_record_that_cannot_be_written_fails_the_request_and_leaves_no_gap)
{
    (void)opaque;
    struct log log;
    struct ash_disk *disk;
    core_file(core, "image", IMAGE_BYTES);
    core_file(core, "log", 0);
    /* Of two writes an entry, the header of the second fails: the super block is the first. */
    assert_int_equal(try_open(core, "", "",
                              ", \"inject-error\": [{\"iotype\": \"write\", \"skip\": 4, \"once\": "
                              "true, \"errno\": 28}]",
                              &disk, NULL),
                     0);
    assert_int_equal(put(disk, 1, 0, 512, 0), 0);
    assert_int_equal(put(disk, 2, 512, 512, 0), -ENOSPC);
    assert_int_equal(put(disk, 3, 1024, 512, 0), 0);
    close_disk(disk);
    read_log(core, &log);
    expect_record(&log, 0, 512, 0, 1);
    expect_record(&log, 1024, 512, 0, 3);
    expect_record(&log, 0, 0, FLUSH, -1);
    expect_end(&log);
}

struct write {
    struct ash_disk *disk;
    uint8_t buffer[512];
    bool done;
};

ASH_CO_FN static void write_sector(struct core *core, void *opaque)
{
    struct write *write = opaque;
    (void)core;
    assert_int_equal(ash_disk_write(write->disk, 0, write->buffer, 512, 0), 0);
    write->done = true;
}

ASH_CO_FN static void wait_until_suspended(struct ash_node *node, const char *tag)
{
    while (!ash_fault_is_suspended(node, tag)) {
        ash_co_sleep(1000);
    }
}

/* write ── image written ── record: stops, the write is not done ── goes on ── done */
CORE_TEST(a_request_completes_after_its_record)
{
    (void)opaque;
    struct log log;
    struct ash_disk *disk = up(core, "");
    struct ash_node *node = ash_node_find(core->loop, "log");
    struct write write = {.disk = disk};
    assert_int_equal(ash_fault_break(node, "write_aio", "t"), 0);
    core_spawn(core, write_sector, &write);
    wait_until_suspended(node, "t");
    ash_co_sleep(1000000);
    assert_false(write.done);
    assert_int_equal(ash_fault_resume(node, "t"), 0);
    core_join(core);
    close_disk(disk);
    read_log(core, &log);
    assert_int_equal(log.entries, 2);
    g_free(log.bytes);
}

/* write A ── its record: stops ── write B to the same: not let in ── the record goes on */
CORE_TEST(a_change_waits_until_an_earlier_one_to_the_same_place_is_recorded)
{
    (void)opaque;
    struct ash_disk *disk = up(core, "");
    struct ash_node *log = ash_node_find(core->loop, "log");
    struct ash_node *image = ash_node_find(core->loop, "image");
    struct write first = {.disk = disk};
    struct write second = {.disk = disk};
    assert_int_equal(ash_fault_break(log, "write_aio", "a"), 0);
    core_spawn(core, write_sector, &first);
    wait_until_suspended(log, "a");
    assert_int_equal(ash_fault_break(image, "write_aio", "b"), 0);
    core_spawn(core, write_sector, &second);
    ash_co_sleep(1000000);
    assert_false(ash_fault_is_suspended(image, "b"));
    assert_int_equal(ash_fault_resume(log, "a"), 0);
    wait_until_suspended(image, "b");
    assert_int_equal(ash_fault_resume(image, "b"), 0);
    core_join(core);
    close_disk(disk);
}

/* write ── image: stops ── guest scribbles ── goes on: image and log hold the same */
CORE_TEST(a_guest_that_scribbles_on_its_buffer_does_not_part_image_and_log)
{
    (void)opaque;
    struct log log;
    struct ash_disk *disk = up(core, "");
    struct ash_node *node = ash_node_find(core->loop, "image");
    struct write write = {.disk = disk};
    memset(write.buffer, 1, 512);
    assert_int_equal(ash_fault_break(node, "write_aio", "t"), 0);
    core_spawn(core, write_sector, &write);
    wait_until_suspended(node, "t");
    memset(write.buffer, 2, 512);
    assert_int_equal(ash_fault_resume(node, "t"), 0);
    core_join(core);
    uint8_t buffer[512];
    assert_int_equal(ash_disk_read(disk, 0, buffer, 512), 0);
    assert_int_equal(buffer[0], 1);
    close_disk(disk);
    read_log(core, &log);
    expect_record(&log, 0, 512, 0, 1);
    g_free(log.bytes);
}

ASH_CO_FN static void flush_disk(struct core *core, void *opaque)
{
    (void)core;
    assert_int_equal(ash_disk_flush(opaque), 0);
}

/* flush: stops in the image ── write ── the flush goes on: it is the first in the log */
CORE_TEST(what_a_flush_does_not_cover_is_recorded_after_it)
{
    (void)opaque;
    struct log log;
    struct ash_disk *disk = up(core, "");
    struct ash_node *node = ash_node_find(core->loop, "image");
    struct write write = {.disk = disk};
    assert_int_equal(ash_fault_break(node, "flush_to_disk", "t"), 0);
    core_spawn(core, flush_disk, disk);
    wait_until_suspended(node, "t");
    core_spawn(core, write_sector, &write);
    ash_co_sleep(1000000);
    assert_int_equal(ash_fault_resume(node, "t"), 0);
    core_join(core);
    close_disk(disk);
    read_log(core, &log);
    expect_record(&log, 0, 0, FLUSH, -1);
    expect_record(&log, 0, 512, 0, 0);
    g_free(log.bytes);
}

#define GUESTS 6
#define TURNS 25

ASH_CO_FN static void guest(struct core *core, void *opaque)
{
    struct ash_disk *disk = opaque;
    for (unsigned i = 0; i < TURNS; i++) {
        /* Many meet on a few sectors. */
        uint64_t offset = ash_prng_below(&core->prng, core->seed % 3 == 0 ? 2048 : IMAGE_BYTES);
        uint64_t bytes =
            ash_prng_between(&core->prng, 1, ASH_MIN(IMAGE_BYTES - offset, UINT64_C(20000)));
        uint64_t what = ash_prng_below(&core->prng, 10);
        int ret;
        if (what < 6) {
            ret = put(disk, 1 + (int)ash_prng_below(&core->prng, 255), offset, bytes,
                      what == 0 ? ASH_REQ_FUA : 0);
        } else if (what < 8) {
            ret = ash_disk_zero(disk, offset, bytes, what == 7 ? ASH_REQ_UNMAP : 0);
        } else {
            ret = what == 8 ? ash_disk_discard(disk, offset, bytes) : ash_disk_flush(disk);
        }
        assert_int_equal(ret, 0);
    }
}

ASH_CO_FN static void replay(struct core *core, struct ash_disk *disk)
{
    struct log log;
    read_log(core, &log);
    while (log.entries > 0) {
        struct record record = next_record(&log);
        int ret = 0;
        if ((record.flags & DISCARD) != 0) {
            ret = ash_disk_discard(disk, record.offset, record.bytes);
        } else if (record.bytes > 0) {
            assert_int_equal(record.data_bytes, record.bytes);
            ret = ash_disk_write(disk, record.offset, record.data, record.bytes, 0);
        }
        assert_int_equal(ret, 0);
    }
    g_free(log.bytes);
}

ASH_CO_FN static void replay_body(struct core *core, void *opaque)
{
    (void)opaque;
    uint8_t *logged = g_malloc(IMAGE_BYTES);
    uint8_t *replayed = g_malloc(IMAGE_BYTES);
    struct ash_disk *disk = up(
        core,
        core->seed % 2 == 0 ? "" : ", \"log-sector-size\": 2048, \"log-super-update-interval\": 7");
    for (unsigned i = 0; i < GUESTS; i++) {
        core_spawn(core, guest, disk);
    }
    core_join(core);
    close_disk(disk);
    core_file(core, "copy", IMAGE_BYTES);
    disk = open_file(core, "copy", WRITING);
    replay(core, disk);
    assert_int_equal(ash_disk_read(disk, 0, replayed, IMAGE_BYTES), 0);
    close_disk(disk);
    disk = open_file(core, "image", 0);
    assert_int_equal(ash_disk_read(disk, 0, logged, IMAGE_BYTES), 0);
    close_disk(disk);
    assert_memory_equal(logged, replayed, IMAGE_BYTES);
    g_free(logged);
    g_free(replayed);
}

static void replaying_the_log_makes_the_image_that_was_logged(void **state)
{
    (void)state;
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(core_is_real() ? 10 : 60);
         seed++) {
        struct core core;
        struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
        struct ash_sim_config sim_config = {.seed = seed, .latency_ns_max = seed % 2 * 2000};
        core_up_with(&core, seed, &sim_config, &loop_config);
        core_run(&core, replay_body, NULL);
        core_down(&core);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_change_is_an_entry),
        cmocka_unit_test(a_write_of_a_part_of_a_sector_is_recorded_as_whole_sectors),
        cmocka_unit_test(the_super_block_counts_every_so_many_entries_and_when_the_disk_closes),
        cmocka_unit_test(a_log_is_begun_anew_or_continued),
        cmocka_unit_test(what_cannot_be_logged_or_continued_is_refused),
        cmocka_unit_test(a_request_that_failed_is_not_recorded),
        cmocka_unit_test(a_record_that_cannot_be_written_fails_the_request_and_leaves_no_gap),
        cmocka_unit_test(a_request_completes_after_its_record),
        cmocka_unit_test(a_change_waits_until_an_earlier_one_to_the_same_place_is_recorded),
        cmocka_unit_test(a_guest_that_scribbles_on_its_buffer_does_not_part_image_and_log),
        cmocka_unit_test(what_a_flush_does_not_cover_is_recorded_after_it),
        cmocka_unit_test(replaying_the_log_makes_the_image_that_was_logged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
