/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file driver's requests on files of the host, in the build directory. */
#include "tests/unit/unit.h"
#include <errno.h>
#include "tests/unit/bare_node.h"
#include "tests/unit/temp_dir.h"

static struct ash_loop *loop;
static uint8_t buffer[256 * 1024] __attribute__((aligned(4096)));

static int set_up(void **state)
{
    (void)state;
    int ret = ash_loop_new(NULL, &loop, NULL);
    return ret < 0 || temp_dir_make(".") < 0 ? -1 : ash_loop_bind(loop);
}

static int tear_down(void **state)
{
    (void)state;
    temp_dir_remove();
    ash_loop_free(loop);
    return 0;
}

ASH_CO_FN static void open_path(struct bare *bare, const char *path, uint32_t flags)
{
    json_t *options = json_pack("{s:s}", "filename", path);
    assert_int_equal(bare_open(bare, loop, "file", options, flags), 0);
}

CO_TEST(what_was_written_is_read)
{
    struct bare bare;
    open_path(&bare, temp_file("a", 8192, 1), ASH_NODE_WRITE);
    assert_int_equal(bare.node.size_bytes, 8192);
    memset(buffer, 2, 1000);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 100, buffer, 1000, 0), 0);
    memset(buffer, 0, sizeof(buffer));
    assert_int_equal(bare_io(&bare, ASH_READ, 99, buffer, 1002, 0), 0);
    assert_int_equal(buffer[0], 1);
    assert_int_equal(buffer[1], 2);
    assert_int_equal(buffer[1000], 2);
    assert_int_equal(buffer[1001], 1);
    assert_int_equal(bare_close(&bare), 0);
}

CO_TEST(vectors_are_read_and_written_piece_by_piece)
{
    struct bare bare;
    const char *path = temp_file("a", 0, 0);
    struct iovec vec[40];
    open_path(&bare, path, ASH_NODE_WRITE);
    for (unsigned i = 0; i < 40; i++) {
        vec[i] = (struct iovec){buffer + 64 * i, i + 1};
        memset(vec[i].iov_base, (int)i + 1, i + 1);
    }
    struct ash_io io = {.op = ASH_WRITE, .offset = 7, .bytes = 820, .iov = ash_iov_of(vec, 40)};
    assert_int_equal(bare.node.driver->io[ASH_WRITE](&bare.node, &io), 0);
    assert_true(temp_holds(path, 7 + 780, 40, 40));
    assert_true(temp_holds(path, 7 + 1, 2, 2));
    memset(buffer, 0, sizeof(buffer));
    io.op = ASH_READ;
    assert_int_equal(bare.node.driver->io[ASH_READ](&bare.node, &io), 0);
    assert_int_equal(buffer[64 * 39 + 39], 40);
    assert_int_equal(buffer[64 * 38 + 39], 0);
    bare_close(&bare);
}

CO_TEST(write_beyond_the_end_extends_the_node_exactly)
{
    struct bare bare;
    const char *path = temp_file("a", 1000, 1);
    open_path(&bare, path, ASH_NODE_WRITE);
    assert_true(bare.node.flags & ASH_NODE_GROWS);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 3000, buffer, 77, 0), 0);
    assert_int_equal(bare.node.size_bytes, 3077);
    assert_int_equal(temp_bytes(path), 3077);
    assert_true(temp_holds(path, 1000, 2000, 0));
    bare_close(&bare);
}

CO_TEST(read_across_the_end_finds_zeroes)
{
    struct bare bare;
    open_path(&bare, temp_file("a", 1000, 1), 0);
    memset(buffer, 9, 2000);
    assert_int_equal(bare_io(&bare, ASH_READ, 900, buffer, 1100, 0), 0);
    assert_int_equal(buffer[99], 1);
    assert_true(ash_buffer_is_zero(buffer + 100, 1000));
    bare_close(&bare);
}

CO_TEST(fua_and_flush_succeed)
{
    struct bare bare;
    open_path(&bare, temp_file("a", 0, 0), ASH_NODE_WRITE);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, ASH_REQ_FUA), 0);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 4096, buffer, 4096, 0), 0);
    assert_int_equal(bare_io(&bare, ASH_FLUSH, 0, NULL, 0, 0), 0);
    assert_int_equal(bare_io(&bare, ASH_FLUSH, 0, NULL, 0, 0), 0);
    assert_int_equal(bare_close(&bare), 0);
}

/* Whole file systems lack one or the other way to make zeroes; then data is left and says so. */
ASH_CO_FN static void expect_zeroed(struct bare *bare, const char *path, int ret, uint64_t offset,
                                    size_t bytes)
{
    (void)bare;
    assert_true(ret == 0 || ret == -ENOTSUP);
    if (ret == 0) {
        assert_true(temp_holds(path, offset, bytes, 0));
    }
}

CO_TEST(zero_leaves_zeroes_and_touches_nothing_else)
{
    struct bare bare;
    const char *path = temp_file("a", 64 * 1024, 1);
    open_path(&bare, path, ASH_NODE_WRITE);
    expect_zeroed(&bare, path, bare_io(&bare, ASH_ZERO, 5000, NULL, 9000, 0), 5000, 9000);
    expect_zeroed(&bare, path, bare_io(&bare, ASH_ZERO, 30000, NULL, 9000, ASH_REQ_UNMAP), 30000,
                  9000);
    assert_true(temp_holds(path, 0, 5000, 1));
    assert_true(temp_holds(path, 14000, 16000, 1));
    assert_true(temp_holds(path, 39000, 64 * 1024 - 39000, 1));
    assert_int_equal(bare.node.size_bytes, 64 * 1024);
    assert_int_equal(temp_bytes(path), 64 * 1024);
    bare_close(&bare);
}

CO_TEST(zero_with_unmap_gives_space_back)
{
    struct bare bare;
    open_path(&bare, temp_file("a", 1 * MiB, 1), ASH_NODE_WRITE);
    int64_t before = bare.node.driver->allocated_bytes(&bare.node);
    assert_true(before >= (int64_t)(1 * MiB));
    int ret = bare_io(&bare, ASH_ZERO, 0, NULL, 512 * KiB, ASH_REQ_UNMAP);
    if (ret == 0) {
        assert_true(bare.node.driver->allocated_bytes(&bare.node) <= before - 512 * 1024);
    }
    bare_close(&bare);
}

CO_TEST(zero_beyond_the_end_extends)
{
    struct bare bare;
    for (unsigned i = 0; i < 2; i++) {
        uint32_t flags = i == 0 ? ASH_REQ_UNMAP : 0;
        const char *path = temp_file("a", 10000, 1);
        open_path(&bare, path, ASH_NODE_WRITE);
        int ret = bare_io(&bare, ASH_ZERO, 9000, NULL, 91000, flags);
        expect_zeroed(&bare, path, ret, 9000, ret == 0 ? 91000 : 0);
        assert_int_equal(bare.node.size_bytes, temp_bytes(path));
        ret = bare_io(&bare, ASH_ZERO, 200000, NULL, 1000, flags);
        expect_zeroed(&bare, path, ret, 200000, ret == 0 ? 1000 : 0);
        assert_int_equal(bare.node.size_bytes, temp_bytes(path));
        assert_int_equal(temp_bytes(path), 201000);
        assert_true(temp_holds(path, 0, 9000, 1));
        bare_close(&bare);
    }
}

CO_TEST(discard_gives_space_back_and_keeps_the_length)
{
    struct bare bare;
    const char *path = temp_file("a", 1 * MiB, 1);
    open_path(&bare, path, ASH_NODE_WRITE | ASH_NODE_DISCARD);
    int ret = bare_io(&bare, ASH_DISCARD, 256 * KiB, NULL, 2 * MiB, 0);
    assert_true(ret == 0 || ret == -ENOTSUP);
    assert_true(temp_holds(path, 0, 256 * KiB, 1));
    assert_int_equal(temp_bytes(path), 1 * MiB);
    if (ret == 0) {
        assert_true(bare.node.driver->allocated_bytes(&bare.node) <= 260 * 1024);
    }
    assert_int_equal(bare_io(&bare, ASH_DISCARD, 4 * MiB, NULL, 4096, 0), 0);
    bare_close(&bare);
}

/* A megabyte of which the second quarter is data and the rest holes. */
static const char *quarter(void)
{
    const char *path = temp_file("quarter", 1 * MiB, -1);
    int fd = open(path, O_RDWR);
    memset(buffer, 3, sizeof(buffer));
    assert_int_equal(pwrite(fd, buffer, 256 * KiB, 256 * KiB), 256 * KiB);
    fsync(fd);
    close(fd);
    return path;
}

ASH_CO_FN static void expect_status(struct bare *bare, uint64_t offset, uint64_t asked,
                                    uint32_t flags, uint64_t bytes)
{
    struct ash_status status = bare_status(bare, offset, asked, ASH_IO_STATUS_ZEROES);
    assert_int_equal(status.flags, flags | ASH_STATUS_ALLOCATED | ASH_STATUS_OFFSET);
    assert_int_equal(status.bytes, bytes);
}

CO_TEST(status_tells_data_from_holes)
{
    struct bare bare;
    open_path(&bare, quarter(), ASH_NODE_WRITE);
    for (unsigned i = 0; i < 2; i++) { /* by seeking, then from memory */
        expect_status(&bare, 0, 1 * MiB, ASH_STATUS_ZERO, 256 * KiB);
        expect_status(&bare, 100, 1000, ASH_STATUS_ZERO, 1000);
        expect_status(&bare, 256 * KiB, 768 * KiB, ASH_STATUS_DATA, 256 * KiB);
        expect_status(&bare, 300 * KiB, 1 * KiB, ASH_STATUS_DATA, 1 * KiB);
        expect_status(&bare, 512 * KiB, 512 * KiB, ASH_STATUS_ZERO | ASH_STATUS_EOF, 512 * KiB);
        assert_int_equal(bare.node.driver->lock(&bare.node, ASH_RIGHT_READ, ASH_RIGHT_READ, NULL),
                         0);
    }
    bare_close(&bare);
}

CO_TEST(who_does_not_ask_about_zeroes_hears_data_and_spoils_no_later_answer)
{
    struct bare bare;
    open_path(&bare, quarter(), ASH_NODE_WRITE);
    struct ash_status status = bare_status(&bare, 0, 1 * MiB, 0);
    assert_int_equal(status.flags & 3, ASH_STATUS_DATA);
    assert_int_equal(status.bytes, 1 * MiB);
    expect_status(&bare, 0, 1 * MiB, ASH_STATUS_ZERO, 256 * KiB);
    bare_close(&bare);
}

CO_TEST(remembered_answers_follow_writes_zeroes_and_resizing)
{
    struct bare bare;
    open_path(&bare, quarter(), ASH_NODE_WRITE);
    /* Nobody else may write, so that holes are remembered. */
    assert_int_equal(bare.node.driver->lock(&bare.node, ASH_RIGHT_READ, ASH_RIGHT_READ, NULL), 0);
    expect_status(&bare, 0, 1 * MiB, ASH_STATUS_ZERO, 256 * KiB);
    expect_status(&bare, 256 * KiB, 256 * KiB, ASH_STATUS_DATA, 256 * KiB);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 64 * KiB, buffer, 64 * KiB, 0), 0);
    expect_status(&bare, 0, 1 * MiB, ASH_STATUS_ZERO, 64 * KiB);
    expect_status(&bare, 64 * KiB, 192 * KiB, ASH_STATUS_DATA, 64 * KiB);
    int ret = bare_io(&bare, ASH_ZERO, 256 * KiB, NULL, 128 * KiB, ASH_REQ_UNMAP);
    if (ret == 0) {
        expect_status(&bare, 256 * KiB, 256 * KiB, ASH_STATUS_ZERO, 128 * KiB);
    }
    expect_status(&bare, 512 * KiB, 512 * KiB, ASH_STATUS_ZERO | ASH_STATUS_EOF, 512 * KiB);
    assert_int_equal(bare.node.driver->resize(&bare.node, 600 * KiB, 0, NULL), 0);
    expect_status(&bare, 512 * KiB, 88 * KiB, ASH_STATUS_ZERO | ASH_STATUS_EOF, 88 * KiB);
    bare_close(&bare);
}

CO_TEST(hole_is_not_remembered_while_others_may_write)
{
    struct bare bare;
    const char *path = quarter();
    open_path(&bare, path, 0);
    assert_int_equal(bare.node.driver->lock(&bare.node, ASH_RIGHT_READ, ASH_RIGHT_ALL, NULL), 0);
    expect_status(&bare, 0, 64 * KiB, ASH_STATUS_ZERO, 64 * KiB);
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, buffer, 64 * KiB, 0), 64 * KiB);
    close(fd);
    expect_status(&bare, 0, 64 * KiB, ASH_STATUS_DATA, 64 * KiB);
    bare_close(&bare);
}

CO_TEST(resize_grows_with_zeroes_and_shrinks)
{
    struct bare bare;
    const char *path = temp_file("a", 10000, 1);
    open_path(&bare, path, ASH_NODE_WRITE);
    assert_int_equal(bare.node.driver->resize(&bare.node, 5001, ASH_PREALLOC_OFF, NULL), 0);
    assert_int_equal(bare.node.size_bytes, 5001);
    assert_int_equal(bare.node.driver->resize(&bare.node, 20000, ASH_PREALLOC_OFF, NULL), 0);
    assert_int_equal(bare.node.size_bytes, 20000);
    assert_int_equal(temp_bytes(path), 20000);
    assert_true(temp_holds(path, 0, 5001, 1));
    assert_true(temp_holds(path, 5001, 14999, 0));
    bare_close(&bare);
}

CO_TEST(preallocation_takes_the_space)
{
    static const enum ash_prealloc modes[] = {ASH_PREALLOC_FALLOC, ASH_PREALLOC_FULL};
    static const uint32_t flags[] = {0, ASH_NODE_DIRECT};
    for (unsigned i = 0; i < 4; i++) {
        struct bare bare;
        const char *path = temp_file("a", 10000, 1);
        open_path(&bare, path, ASH_NODE_WRITE | flags[i / 2]);
        uint64_t bytes = 3 * MiB + 12345;
        assert_int_equal(bare.node.driver->resize(&bare.node, bytes, modes[i % 2], NULL), 0);
        assert_int_equal(bare.node.size_bytes, bytes);
        assert_int_equal(temp_bytes(path), bytes);
        assert_true(temp_holds(path, 0, 10000, 1));
        assert_true(temp_holds(path, 10000, bytes - 10000, 0));
        assert_true(bare.node.driver->allocated_bytes(&bare.node) >= (int64_t)bytes - 4096);
        bare_close(&bare);
    }
}

CO_TEST(preallocation_that_a_file_cannot_have_is_refused)
{
    struct bare bare;
    const char *path = temp_file("a", 10000, 1);
    open_path(&bare, path, ASH_NODE_WRITE);
    assert_int_equal(
        bare.node.driver->resize(&bare.node, 20000, ASH_PREALLOC_METADATA, &bare.error), -ENOTSUP);
    assert_string_equal(bare.error.message, "Unsupported preallocation mode: metadata");
    assert_int_equal(bare.node.driver->resize(&bare.node, 5000, ASH_PREALLOC_FALLOC, &bare.error),
                     -ENOTSUP);
    assert_non_null(strstr(bare.error.message, "shrinking"));
    assert_int_equal(temp_bytes(path), 10000);
    bare_close(&bare);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(vectors_are_read_and_written_piece_by_piece),
        cmocka_unit_test(write_beyond_the_end_extends_the_node_exactly),
        cmocka_unit_test(read_across_the_end_finds_zeroes),
        cmocka_unit_test(fua_and_flush_succeed),
        cmocka_unit_test(zero_leaves_zeroes_and_touches_nothing_else),
        cmocka_unit_test(zero_with_unmap_gives_space_back),
        cmocka_unit_test(zero_beyond_the_end_extends),
        cmocka_unit_test(discard_gives_space_back_and_keeps_the_length),
        cmocka_unit_test(status_tells_data_from_holes),
        cmocka_unit_test(who_does_not_ask_about_zeroes_hears_data_and_spoils_no_later_answer),
        cmocka_unit_test(remembered_answers_follow_writes_zeroes_and_resizing),
        cmocka_unit_test(hole_is_not_remembered_while_others_may_write),
        cmocka_unit_test(resize_grows_with_zeroes_and_shrinks),
        cmocka_unit_test(preallocation_takes_the_space),
        cmocka_unit_test(preallocation_that_a_file_cannot_have_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
