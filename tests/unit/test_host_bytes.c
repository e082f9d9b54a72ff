/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes whose data is bytes of a file: copied where nobody has to see them, refused elsewhere, and
 * found in the file that holds them. */
#include "tests/unit/unit.h"
#include <errno.h>
#include "block/copy/host_bytes.h"
#include "block/driver.h"
#include "block/image/image.h"
#include "block/io/guard.h"
#include "tests/unit/job_rig.h"

#define BYTES (64 * KiB)

/* Writes the second half of the source, by its place in the host's file, to the start of the
 * target. */
ASH_CO_FN static int write_found(struct ash_disk *source, struct ash_disk *target, uint64_t offset,
                                 uint32_t flags)
{
    struct ash_host_bytes found;
    int ret = ash_host_bytes_find(ash_disk_node(source), BYTES / 2, BYTES / 2, &found);
    assert_int_equal(ret, 0);
    assert_int_equal(found.bytes, BYTES / 2);
    struct ash_io io = {
        .op = ASH_WRITE, .flags = flags, .offset = offset, .bytes = found.bytes, .iov = found.iov};
    ret = ash_disk_io(target, &io);
    ash_host_bytes_drop(&found);
    return ret;
}

ASH_CO_FN static struct ash_disk *source_disk(struct core *core)
{
    struct ash_disk *disk = job_raw_disk(core, "source", BYTES);
    uint8_t *data = g_malloc(BYTES / 2);
    memset(data, 7, BYTES / 2);
    assert_int_equal(ash_disk_write(disk, BYTES / 2, data, BYTES / 2, 0), 0);
    g_free(data);
    return disk;
}

CORE_TEST(bytes_of_a_file_are_written_where_nobody_has_to_see_them)
{
    (void)opaque;
    struct ash_disk *source = source_disk(core);
    struct ash_disk *plain = job_raw_disk(core, "plain", BYTES);
    json_t *description = job_describe_raw(core, "looks", BYTES);
    json_object_set_new(description, "detect-zeroes", json_string("on"));
    struct ash_disk *looks = core_open_disk(core, description, ASH_NODE_WRITE | ASH_NODE_DISCARD);
    uint8_t last;
    assert_int_equal(write_found(source, plain, 0, ASH_REQ_FUA), -ENOTSUP);
    assert_int_equal(write_found(source, plain, 0, ASH_IO_COMPRESS), -ENOTSUP);
    assert_int_equal(write_found(source, looks, 0, 0), -ENOTSUP);
    assert_int_equal(ash_disk_read(plain, BYTES / 2 - 1, &last, 1), 0);
    assert_int_equal(last, 0);
    assert_int_equal(write_found(source, plain, 0, 0), 0);
    assert_int_equal(ash_disk_read(plain, BYTES / 2 - 1, &last, 1), 0);
    assert_int_equal(last, 7);
    assert_int_equal(ash_co_disk_close(source, NULL), 0);
    assert_int_equal(ash_co_disk_close(plain, NULL), 0);
    assert_int_equal(ash_co_disk_close(looks, NULL), 0);
}

/* What they are might make another image of it. */
CORE_TEST(the_first_sector_of_a_guessed_image_takes_no_bytes_of_a_file)
{
    (void)opaque;
    struct ash_disk *source = source_disk(core);
    json_t *description = json_pack("{s:{s:s, s:s}}", "file", "driver", "file", "filename",
                                    core_file(core, "guessed", BYTES));
    struct ash_disk *guessed = core_open_disk(core, description, ASH_NODE_WRITE);
    assert_true((ash_disk_node(guessed)->flags & ASH_NODE_PROBED) != 0);
    assert_int_equal(write_found(source, guessed, ASH_GUARD_BYTES - 1, 0), -ENOTSUP);
    assert_int_equal(write_found(source, guessed, ASH_GUARD_BYTES, 0), 0);
    assert_int_equal(ash_co_disk_close(source, NULL), 0);
    assert_int_equal(ash_co_disk_close(guessed, NULL), 0);
}

/* Zeroes lie in no file, whatever the file holds there. */
CORE_TEST(only_data_is_found)
{
    (void)opaque;
    struct ash_host_bytes found;
    const char *path = core_file(core, "image", -1);
    assert_int_equal(ash_image_create(core->loop, path, "qcow2", BYTES * 4, NULL, NULL), 0);
    struct ash_disk *disk = core_open_disk(core,
                                           json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2",
                                                     "file", "driver", "file", "filename", path),
                                           ASH_NODE_WRITE | ASH_NODE_DISCARD);
    struct ash_node *node = ash_disk_node(disk);
    uint8_t sector[512] = {1};
    assert_int_equal(ash_host_bytes_find(node, 0, BYTES, &found), -ENOTSUP);
    assert_int_equal(ash_disk_write(disk, 0, sector, sizeof(sector), 0), 0);
    assert_int_equal(ash_host_bytes_find(node, 0, BYTES * 2, &found), 0);
    assert_int_equal(found.bytes, BYTES);
    assert_true(ash_iov_is_file(&found.iov));
    assert_int_equal(found.pin_count, 1);
    ash_host_bytes_drop(&found);
    assert_int_equal(ash_disk_zero(disk, 0, BYTES, 0), 0);
    assert_int_equal(ash_host_bytes_find(node, 0, BYTES, &found), -ENOTSUP);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_of_a_file_are_written_where_nobody_has_to_see_them),
        cmocka_unit_test(the_first_sector_of_a_guessed_image_takes_no_bytes_of_a_file),
        cmocka_unit_test(only_data_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
