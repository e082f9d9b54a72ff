/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which files a disk needs: what is told before must be what opening then asks for. */
#include "tests/unit/unit.h"
#include "tests/unit/temp_dir.h"
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <ashlar/ashlar.h>
#include "block/image/image.h"
#include "util/co/co.h"
#include "util/loop/loop.h"

static char directory[64];
static GString *opened; /* by the hook, a line each */
static unsigned opened_to_write;
static GString *told;

static int open_file(void *opaque, const char *path, int flags, uint32_t mode)
{
    (void)opaque;
    g_string_append_printf(opened, "%s\n", path);
    opened_to_write += (flags & O_ACCMODE) != O_RDONLY;
    int fd = open(path, flags, mode);
    return fd < 0 ? -errno : fd;
}

static void visit(void *opaque, const struct ash_disk_file *file)
{
    assert_false(ash_co_self() != NULL);
    assert_ptr_equal(opaque, &told);
    assert_int_equal(file->size, sizeof(*file));
    g_string_append_printf(told, "%u %s %s\n", file->depth, file->format,
                           file->filename + strlen(directory) + 1);
}

struct image {
    const char *name;
    const char *format;
    const char *backing;
    const char *backing_format;
};

static int make(void *opaque)
{
    ash_co_assert_inside();
    const struct image *image = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    char *path = g_strdup_printf("%s/%s", directory, image->name);
    json_t *options = json_object();
    if (image->backing != NULL) {
        json_object_set_new(options, "backing_file", json_string(image->backing));
        json_object_set_new(options, "backing_fmt", json_string(image->backing_format));
    }
    int ret = ash_image_create(ash_co_loop(), path, image->format, 1 << 20, options, &error);
    json_decref(options);
    g_free(path);
    return ret;
}

static int set_up(void **state)
{
    struct ash_hooks hooks = {.size = sizeof(hooks), .open_file = open_file};
    struct ash_loop_config config = {.size = sizeof(config), .hooks = &hooks};
    struct ash_loop *loop;
    snprintf(directory, sizeof(directory), "%s", "/tmp/ashlar-files-XXXXXX");
    if (mkdtemp(directory) == NULL || ash_loop_new(&config, &loop, NULL) < 0 ||
        ash_loop_bind(loop) < 0) {
        return -1;
    }
    opened = g_string_new("");
    told = g_string_new("");
    static struct image images[] = {{"base.raw", "raw", NULL, NULL},
                                    {"mid.qcow2", "qcow2", "base.raw", "raw"},
                                    {"top.qcow2", "qcow2", "mid.qcow2", "qcow2"},
                                    {"lost.qcow2", "qcow2", "nowhere.raw", "raw"},
                                    {"tail.qcow2", "qcow2", "tail.qcow2", "qcow2"}};
    for (size_t i = 0; i < sizeof(images) / sizeof(images[0]); i++) {
        if (ash_loop_run_sync(loop, make, &images[i]) < 0) {
            return -1;
        }
    }
    g_string_set_size(opened, 0);
    *state = loop;
    return 0;
}

static int tear_down(void **state)
{
    ash_loop_free(*state);
    g_string_free(opened, TRUE);
    g_string_free(told, TRUE);
    return directory_remove(directory);
}

static int list(struct ash_loop *loop, const char *name, uint32_t flags, struct ash_error *error)
{
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    options.flags = flags;
    char *path = g_strdup_printf("%s/%s", directory, name);
    g_string_set_size(told, 0);
    int ret = ash_disk_files_sync(loop, path, &options, visit, &told, error);
    g_free(path);
    return ret;
}

static void the_files_of_a_chain_are_told_from_the_top(void **state)
{
    assert_int_equal(list(*state, "top.qcow2", ASH_DISK_WRITE, NULL), 0);
    assert_string_equal(told->str, "0 qcow2 top.qcow2\n1 qcow2 mid.qcow2\n2 raw base.raw\n");
    assert_int_equal(list(*state, "top.qcow2", ASH_DISK_NO_BACKING, NULL), 0);
    assert_string_equal(told->str, "0 qcow2 top.qcow2\n");
}

static void what_is_told_is_what_opening_asks_for(void **state)
{
    assert_int_equal(list(*state, "top.qcow2", 0, NULL), 0);
    GHashTable *asked = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_string_set_size(opened, 0);
    struct ash_disk *disk;
    char *path = g_strdup_printf("%s/top.qcow2", directory);
    assert_int_equal(ash_disk_open_sync(*state, path, NULL, &disk, NULL), 0);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    g_free(path);
    char **lines = g_strsplit(opened->str, "\n", 0);
    for (char **line = lines; **line != '\0'; line++) {
        g_hash_table_add(asked, g_strdup(*line + strlen(directory) + 1));
    }
    char **files = g_strsplit(told->str, "\n", 0);
    assert_int_equal(g_strv_length(files) - 1, g_hash_table_size(asked));
    for (char **file = files; **file != '\0'; file++) {
        assert_true(g_hash_table_contains(asked, strrchr(*file, ' ') + 1));
    }
    g_strfreev(lines);
    g_strfreev(files);
    g_hash_table_destroy(asked);
}

static void a_description_says_more_than_the_header(void **state)
{
    char *path =
        g_strdup_printf("json:{\"driver\": \"qcow2\", \"backing\": {\"driver\": \"raw\", \"file\": "
                        "{\"driver\": \"file\", \"filename\": \"%s/base.raw\"}}, \"file\": "
                        "{\"driver\": \"file\", \"filename\": \"%s/top.qcow2\"}}",
                        directory, directory);
    assert_int_equal(ash_disk_files_sync(*state, path, NULL, visit, &told, NULL), 0);
    assert_string_equal(told->str, "0 qcow2 top.qcow2\n1 raw base.raw\n");
    g_free(path);
    g_string_set_size(told, 0);
    assert_int_equal(ash_disk_files_sync(*state, "null-co://", NULL, visit, &told, NULL), 0);
    assert_string_equal(told->str, "");
}

/* What the description says of writing is for the disk, which is not opened here. */
static void nothing_is_opened_for_writing(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;
    char *path =
        g_strdup_printf("json:{\"driver\": \"qcow2\", \"read-only\": false, \"file\": {\"driver\": "
                        "\"file\", \"read-only\": false, \"filename\": \"%s/top.qcow2\"}}",
                        directory);
    opened_to_write = 0;
    int ret = ash_disk_files_sync(*state, path, NULL, visit, &told, &error);
    assert_string_equal(error.message, "");
    assert_int_equal(ret, 0);
    assert_string_equal(told->str, "0 qcow2 top.qcow2\n1 qcow2 mid.qcow2\n2 raw base.raw\n");
    assert_int_equal(opened_to_write, 0);
    g_free(path);
}

static void what_cannot_be_read_ends_the_list(void **state)
{
    struct ash_error error = ASH_ERROR_INIT;
    assert_int_equal(list(*state, "lost.qcow2", 0, &error), -ENOENT);
    assert_non_null(strstr(error.message, "nowhere.raw"));
    assert_string_equal(told->str, "0 qcow2 lost.qcow2\n");
    assert_int_equal(list(*state, "tail.qcow2", 0, &error), -ELOOP);
}

static int ended;

static void done(void *opaque, int ret, const struct ash_error *error)
{
    (void)error;
    assert_ptr_equal(opaque, &told);
    assert_int_equal(ret, 0);
    assert_string_not_equal(told->str, "");
    ended++;
}

static void a_call_from_any_thread_tells_later_and_once(void **state)
{
    char *path = g_strdup_printf("%s/mid.qcow2", directory);
    assert_int_equal(ash_disk_files(*state, path, NULL, visit, done, &told), 0);
    g_free(path);
    assert_string_equal(told->str, "");
    while (ended == 0) {
        assert_true(ash_loop_run_once(*state, -1, 0) >= 0);
    }
    assert_string_equal(told->str, "0 qcow2 mid.qcow2\n1 raw base.raw\n");
    assert_int_equal(ended, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(the_files_of_a_chain_are_told_from_the_top),
        TEST(what_is_told_is_what_opening_asks_for),
        TEST(a_description_says_more_than_the_header),
        TEST(nothing_is_opened_for_writing),
        TEST(what_cannot_be_read_ends_the_list),
        TEST(a_call_from_any_thread_tells_later_and_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
