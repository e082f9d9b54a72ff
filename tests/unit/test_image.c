/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whole images: making them, taking back what did not come about, telling what they are. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "block/disk/disk.h"
#include "block/image/image.h"

static char directory[64];
static char path[96];

/* What one coroutine is to do, and what came of it. */
struct work {
    const char *format;
    uint64_t bytes;
    const char *options; /* JSON, or NULL */
    int ret;
    struct ash_error error;
    json_t *info;
    struct ash_measure measure;
};

static int set_up(void **state)
{
    struct ash_loop *loop;
    snprintf(directory, sizeof(directory), "%s", "/tmp/ashlar-image-XXXXXX");
    if (mkdtemp(directory) == NULL || ash_loop_new(NULL, &loop, NULL) < 0 ||
        ash_loop_bind(loop) < 0) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/image", directory);
    *state = loop;
    return 0;
}

static int tear_down(void **state)
{
    ash_loop_free(*state);
    unlink(path);
    return rmdir(directory);
}

ASH_CO_FN static int create_co(void *opaque)
{
    struct work *work = opaque;
    json_t *options = work->options != NULL ? json_loads(work->options, 0, NULL) : NULL;
    work->error = (struct ash_error)ASH_ERROR_INIT;
    work->ret = ash_image_create(ash_co_loop(), path, work->format, work->bytes, options, &work->error);
    json_decref(options);
    return 0;
}

static struct work create(struct ash_loop *loop, const char *format, uint64_t bytes,
                          const char *options)
{
    struct work work = {.format = format, .bytes = bytes, .options = options};
    assert_int_equal(ash_loop_run_sync(loop, create_co, &work), 0);
    return work;
}

static int64_t length(void)
{
    struct stat about;
    return stat(path, &about) == 0 ? (int64_t)about.st_size : -1;
}

static void a_raw_image_has_the_length_asked_for(void **state)
{
    assert_int_equal(create(*state, "raw", 12345, NULL).ret, 0);
    assert_int_equal(length(), 12345);
}

static void a_size_among_the_options_is_the_length(void **state)
{
    assert_int_equal(create(*state, "raw", 0, "{\"size\": \"3k\"}").ret, 0);
    assert_int_equal(length(), 3072);
}

static void an_unknown_option_is_named_and_nothing_is_made(void **state)
{
    struct work work = create(*state, "raw", 4096, "{\"preallocation\": \"off\", \"bogus\": \"1\"}");
    assert_int_equal(work.ret, -EINVAL);
    assert_non_null(strstr(work.error.message, "'bogus'"));
    assert_int_equal(length(), -1);
}

static void a_file_that_did_not_become_an_image_is_removed(void **state)
{
    /* Known to be refused only once the file is there. */
    struct work work = create(*state, "raw", 4096, "{\"preallocation\": \"metadata\"}");
    assert_true(work.ret < 0);
    assert_int_equal(length(), -1);
}

static void a_file_that_was_there_is_not_removed(void **state)
{
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_true(create(*state, "raw", 4096, "{\"preallocation\": \"metadata\"}").ret < 0);
    assert_int_equal(length(), 0);
}

static void an_unknown_format_and_one_that_cannot_be_made_are_refused(void **state)
{
    assert_int_equal(create(*state, "nonsense", 4096, NULL).ret, -EINVAL);
    assert_int_equal(create(*state, "null-co", 4096, NULL).ret, -ENOTSUP);
    assert_int_equal(length(), -1);
}

static void a_length_beyond_what_offsets_hold_is_refused(void **state)
{
    assert_int_equal(create(*state, "raw", UINT64_MAX, NULL).ret, -EFBIG);
    assert_int_equal(length(), -1);
}

ASH_CO_FN static int look_co(void *opaque)
{
    struct work *work = opaque;
    struct ash_disk *disk;
    json_t *description = ash_describe(path, "raw", NULL);
    work->ret = ash_co_disk_open(ash_co_loop(), description, 0, &disk, &work->error);
    json_decref(description);
    if (work->ret < 0) {
        return 0;
    }
    work->info = ash_image_info(ash_disk_node(disk));
    work->ret = ash_image_measure(ash_co_loop(), work->format, NULL, ash_disk_bytes(disk),
                                  ash_disk_node(disk), &work->measure, NULL);
    return ash_co_disk_close(disk, NULL);
}

static void info_counts_whole_sectors(void **state)
{
    struct work work = {.format = "raw"};
    assert_int_equal(create(*state, "raw", 1000, NULL).ret, 0);
    assert_int_equal(ash_loop_run_sync(*state, look_co, &work), 0);
    assert_int_equal(work.ret, 0);
    assert_int_equal(json_integer_value(json_object_get(work.info, "virtual-size")), 1024);
    assert_string_equal(json_string_value(json_object_get(work.info, "format")), "raw");
    assert_string_equal(json_string_value(json_object_get(work.info, "filename")), path);
    assert_null(json_object_get(work.info, "backing-filename"));
    json_decref(work.info);
}

static void a_format_without_an_opinion_takes_what_the_disk_is_long(void **state)
{
    struct work work = {.format = "raw"};
    assert_int_equal(create(*state, "raw", 1000, NULL).ret, 0);
    assert_int_equal(ash_loop_run_sync(*state, look_co, &work), 0);
    assert_int_equal(work.measure.required_bytes, 1024);
    assert_int_equal(work.measure.fully_allocated_bytes, 1024);
    json_decref(work.info);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_raw_image_has_the_length_asked_for),
        CASE(a_size_among_the_options_is_the_length),
        CASE(an_unknown_option_is_named_and_nothing_is_made),
        CASE(a_file_that_did_not_become_an_image_is_removed),
        CASE(a_file_that_was_there_is_not_removed),
        CASE(an_unknown_format_and_one_that_cannot_be_made_are_refused),
        CASE(a_length_beyond_what_offsets_hold_is_refused),
        CASE(info_counts_whole_sectors),
        CASE(a_format_without_an_opinion_takes_what_the_disk_is_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
