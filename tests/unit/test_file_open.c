/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening, reopening and creating files of the host, and what O_DIRECT demands of them. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <sys/resource.h>
#include "block/file/file.h"
#include "tests/unit/bare_node.h"
#include "tests/unit/temp_dir.h"
#include "util/range.h"

static struct ash_loop *loop;
static uint8_t buffer[64 * 1024] __attribute__((aligned(4096)));

/* What the hook answers to opens for writing, and to O_DIRECT; 0: opens. */
static int deny_write;
static int deny_direct;

static int open_hook(void *opaque, const char *path, int flags, uint32_t mode)
{
    (void)opaque;
    if (deny_write != 0 && (flags & O_ACCMODE) == O_RDWR) {
        return deny_write;
    }
    if (deny_direct != 0 && (flags & O_DIRECT) != 0) {
        return deny_direct;
    }
    int fd = open(path, flags, mode);
    return fd < 0 ? -errno : fd;
}

static int make_loop(const struct ash_hooks *hooks)
{
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    config.hooks = hooks;
    int ret = ash_loop_new(&config, &loop, NULL);
    return ret < 0 ? ret : ash_loop_bind(loop);
}

static int set_up(void **state)
{
    (void)state;
    return make_loop(NULL);
}

static int set_up_hook(void **state)
{
    (void)state;
    static const struct ash_hooks hooks = {.size = sizeof(hooks), .open_file = open_hook};
    deny_write = 0;
    deny_direct = 0;
    return make_loop(&hooks);
}

static int tear_down(void **state)
{
    (void)state;
    ash_loop_free(loop);
    return 0;
}

ASH_CO_FN static int open_path(struct bare *bare, const char *path, uint32_t flags)
{
    return bare_open(bare, loop, "file", json_pack("{s:s}", "filename", path), flags);
}

ASH_CO_FN static void expect_refused(const char *driver, const char *path, uint32_t flags, int code,
                                     const char *message)
{
    struct bare bare;
    unsigned before = descriptors();
    json_t *options = json_pack("{s:s}", "filename", path);
    assert_int_equal(bare_open(&bare, loop, driver, options, flags), code);
    assert_int_equal(bare.error.code, code);
    assert_non_null(strstr(bare.error.message, message));
    assert_int_equal(descriptors(), before);
}

CO_TEST(missing_file_is_named_with_the_reason)
{
    expect_refused("file", "no/such/file", 0, -ENOENT,
                   "Could not open 'no/such/file': No such file or directory");
}

CO_TEST(what_is_no_disk_is_refused_by_name)
{
    const char *fifo = temp_path("fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    /* Looked at before, not only refused by the open. */
    expect_refused("file", fifo, 0, -EINVAL, "requires '");
    expect_refused("file", fifo, 0, -EINVAL, fifo);
    expect_refused("file", temp_dir, 0, -EINVAL, temp_dir);
    expect_refused("file", "/dev/null", ASH_NODE_WRITE, -EINVAL, "'/dev/null'");
    expect_refused("host_device", temp_file("a", 0, 0), 0, -EINVAL, "requires '");
    unlink(fifo);
}

CO_TEST(name_is_required_once)
{
    struct bare bare;
    assert_int_equal(bare_open(&bare, loop, "file", json_object(), 0), -EINVAL);
    assert_string_equal(bare.error.message, "The 'file' block driver requires a file name");
    json_t *both = json_pack("{s:s, s:i}", "filename", "a", "fd", 0);
    assert_int_equal(bare_open(&bare, loop, "file", both, 0), -EINVAL);
    assert_non_null(strstr(bare.error.message, "exclude each other"));
}

CO_TEST(options_of_scripts_are_accepted_and_others_refused)
{
    struct bare bare;
    const char *path = temp_file("a", 0, 0);
    json_t *known =
        json_pack("{s:s, s:s, s:s}", "filename", path, "aio", "io_uring", "locking", "on");
    assert_int_equal(bare_open(&bare, loop, "file", known, 0), 0);
    bare_close(&bare);
    json_t *unknown = json_pack("{s:s, s:s}", "filename", path, "aio", "magic");
    assert_int_equal(bare_open(&bare, loop, "file", unknown, 0), -EINVAL);
    assert_non_null(strstr(bare.error.message, "magic"));
}

CO_TEST(descriptor_is_taken_over_and_closed)
{
    struct bare bare;
    int fd = open(temp_file("a", 5000, 7), O_RDWR);
    unsigned before = descriptors();
    json_t *options = json_pack("{s:i}", "fd", fd);
    assert_int_equal(bare_open(&bare, loop, "file", options, ASH_NODE_WRITE), 0);
    assert_int_equal(bare.node.size_bytes, 5000);
    assert_int_equal(bare_io(&bare, ASH_READ, 4999, buffer, 1, 0), 0);
    assert_int_equal(buffer[0], 7);
    assert_int_equal(descriptors(), before);
    assert_int_equal(bare_close(&bare), 0);
    assert_int_equal(descriptors(), before - 1);
}

CO_TEST(descriptor_that_cannot_write_opens_read_only_if_that_is_allowed)
{
    struct bare bare;
    int fd = open(temp_file("a", 5000, 7), O_RDONLY);
    json_t *options = json_pack("{s:i}", "fd", fd);
    json_incref(options);
    assert_int_equal(bare_open(&bare, loop, "file", options, ASH_NODE_WRITE), -EACCES);
    assert_int_equal(
        bare_open(&bare, loop, "file", options, ASH_NODE_WRITE | ASH_NODE_AUTO_READ_ONLY), 0);
    assert_false(bare.node.flags & ASH_NODE_WRITE);
    bare_close(&bare);
}

CO_TEST(auto_read_only_falls_back)
{
    static const int errors[] = {-EACCES, -EPERM, -EROFS};
    const char *path = temp_file("a", 4096, 1);
    for (size_t i = 0; i < ASH_ARRAY_SIZE(errors); i++) {
        struct bare bare;
        deny_write = errors[i];
        expect_refused("file", path, ASH_NODE_WRITE, errors[i], path);
        assert_int_equal(open_path(&bare, path, ASH_NODE_WRITE | ASH_NODE_AUTO_READ_ONLY), 0);
        assert_false(bare.node.flags & ASH_NODE_WRITE);
        bare_close(&bare);
    }
    deny_write = -EMFILE;
    expect_refused("file", path, ASH_NODE_WRITE | ASH_NODE_AUTO_READ_ONLY, -EMFILE, path);
}

CO_TEST(file_system_without_o_direct_is_said_so)
{
    const char *path = temp_file("a", 4096, 1);
    deny_direct = -EINVAL;
    expect_refused("file", path, ASH_NODE_DIRECT, -EINVAL, "does not support O_DIRECT");
    expect_refused("file", path, ASH_NODE_DIRECT, -EINVAL, path);
}

CO_TEST(without_o_direct_nothing_is_demanded)
{
    struct bare bare;
    assert_int_equal(open_path(&bare, temp_file("a", 4096, 1), 0), 0);
    assert_int_equal(bare.node.limits.request_alignment, 1);
    assert_int_equal(bare.node.limits.memory_alignment, 1);
    assert_int_equal(bare.node.limits.iov_max, 1024);
    bare_close(&bare);
}

/* Writes and reads back with O_DIRECT at the finest alignment that the node admits to. */
ASH_CO_FN static void use_direct(const char *path)
{
    struct bare bare;
    assert_int_equal(open_path(&bare, path, ASH_NODE_WRITE | ASH_NODE_DIRECT), 0);
    uint32_t unit = bare.node.limits.request_alignment;
    uint32_t memory = bare.node.limits.memory_alignment;
    assert_true(ash_is_power_of_2(unit) && unit <= 65536);
    assert_true(ash_is_power_of_2(memory) && memory <= 4096);
    uint8_t *at = buffer + memory;
    memset(at, 5, unit);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 3 * unit, at, unit, 0), 0);
    memset(at, 0, unit);
    assert_int_equal(bare_io(&bare, ASH_READ, 3 * unit, at, unit, 0), 0);
    assert_int_equal(at[0], 5);
    assert_int_equal(at[unit - 1], 5);
    assert_int_equal(bare_io(&bare, ASH_FLUSH, 0, NULL, 0, 0), 0);
    bare_close(&bare);
}

CO_TEST(found_alignment_works_on_data_holes_and_empty_files)
{
    use_direct(temp_file("a", 1 * MiB, 1));
    use_direct(temp_file("a", 1 * MiB, -1));
    use_direct(temp_file("a", 0, 0));
    use_direct(temp_file("a", 100, 1));
    use_direct(temp_file("a", 5000, 1));
}

CO_TEST(alignment_is_probed_where_the_kernel_does_not_tell)
{
    struct bare bare;
    assert_int_equal(open_path(&bare, temp_file("a", 1 * MiB, 1), ASH_NODE_DIRECT), 0);
    struct ash_file_node *state = ash_file_node(&bare.node);
    struct ash_file_status about = state->about;
    uint32_t unit, memory;
    about.direct_offset_alignment = 0;
    about.direct_memory_alignment = 0;
    assert_int_equal(ash_file_probe_alignment(loop, state->file, &about, &unit, &memory), 0);
    if (state->about.direct_offset_alignment != 0) {
        assert_int_equal(unit, state->about.direct_offset_alignment);
        assert_true(memory <= state->about.direct_memory_alignment);
    }
    assert_int_equal(bare_io(&bare, ASH_READ, unit, buffer + memory, unit, 0), 0);
    assert_int_equal(buffer[memory], 1);
    bare_close(&bare);
}

/* A read of a hole succeeds however crooked it is, and would tell too little. */
CO_TEST(holes_and_empty_files_are_given_the_safe_alignment)
{
    static const size_t sizes[] = {0, 1 * MiB};
    for (unsigned i = 0; i < 2; i++) {
        struct bare bare;
        uint32_t unit, memory;
        assert_int_equal(open_path(&bare, temp_file("a", sizes[i], -1), ASH_NODE_DIRECT), 0);
        struct ash_file_node *state = ash_file_node(&bare.node);
        struct ash_file_status about = {.bytes = sizes[i], .block_bytes = 4096, .regular = true};
        assert_int_equal(ash_file_probe_alignment(loop, state->file, &about, &unit, &memory), 0);
        assert_int_equal(unit, 4096);
        assert_int_equal(memory, 4096);
        bare_close(&bare);
    }
}

CO_TEST(direct_read_of_an_odd_end_finds_zeroes)
{
    struct bare bare;
    assert_int_equal(open_path(&bare, temp_file("a", 5000, 1), ASH_NODE_DIRECT), 0);
    memset(buffer, 9, sizeof(buffer));
    assert_int_equal(bare_io(&bare, ASH_READ, 0, buffer, 8192, 0), 0);
    assert_int_equal(buffer[4999], 1);
    assert_true(ash_buffer_is_zero(buffer + 5000, 8192 - 5000));
    bare_close(&bare);
}

ASH_CO_FN static int reopen(struct bare *bare, uint32_t flags, bool commit)
{
    const struct ash_driver *driver = bare->node.driver;
    int ret = driver->reopen_prepare(&bare->node, flags, &bare->error);
    if (ret == 0 && commit) {
        driver->reopen_commit(&bare->node, flags);
    } else if (ret == 0) {
        driver->reopen_abort(&bare->node);
    }
    return ret;
}

CO_TEST(reopening_changes_access_and_keeps_one_descriptor)
{
    struct bare bare;
    unsigned before = descriptors();
    assert_int_equal(open_path(&bare, temp_file("a", 8192, 1), 0), 0);
    assert_int_equal(reopen(&bare, ASH_NODE_WRITE, true), 0);
    assert_true(bare.node.flags & ASH_NODE_WRITE);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), 0);
    assert_int_equal(reopen(&bare, ASH_NODE_WRITE | ASH_NODE_DIRECT, true), 0);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), 0);
    assert_int_equal(bare_io(&bare, ASH_FLUSH, 0, NULL, 0, 0), 0);
    assert_int_equal(reopen(&bare, 0, true), 0);
    assert_int_equal(bare.node.limits.request_alignment, 1);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), -EBADF);
    assert_int_equal(descriptors(), before + 1);
    bare_close(&bare);
}

CO_TEST(reopening_that_is_called_off_changes_nothing)
{
    struct bare bare;
    unsigned before = descriptors();
    assert_int_equal(open_path(&bare, temp_file("a", 8192, 1), ASH_NODE_WRITE), 0);
    assert_int_equal(reopen(&bare, 0, false), 0);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), 0);
    assert_int_equal(descriptors(), before + 1);
    bare_close(&bare);
}

CO_TEST(reopening_notices_that_the_name_leads_elsewhere)
{
    struct bare bare;
    const char *path = temp_file("a", 8192, 1);
    assert_int_equal(open_path(&bare, path, 0), 0);
    unsigned before = descriptors();
    assert_int_equal(rename(temp_file("b", 8192, 2), path), 0);
    assert_int_equal(reopen(&bare, ASH_NODE_WRITE, true), -ESTALE);
    assert_non_null(strstr(bare.error.message, path));
    assert_int_equal(descriptors(), before);
    bare_close(&bare);
}

CO_TEST(descriptor_is_reopened_without_a_path)
{
    struct bare bare;
    int fd = open(temp_file("a", 8192, 1), O_RDONLY);
    assert_int_equal(bare_open(&bare, loop, "file", json_pack("{s:i}", "fd", fd), 0), 0);
    assert_int_equal(reopen(&bare, ASH_NODE_WRITE, true), 0);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, 4096, 0), 0);
    bare_close(&bare);
}

CO_TEST(creation_makes_and_empties_files)
{
    const struct ash_driver *driver = ash_driver_find("file");
    const char *path = temp_file("a", 8192, 1);
    unsigned before = descriptors();
    assert_int_equal(driver->create_file(loop, path, NULL, NULL), 0);
    assert_int_equal(temp_bytes(path), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(driver->create_file(loop, path, NULL, NULL), 0);
    assert_int_equal(temp_bytes(path), 0);
    assert_int_equal(descriptors(), before);
}

CO_TEST(creation_where_none_can_be_says_why)
{
    const struct ash_driver *driver = ash_driver_find("file");
    struct ash_error error = ASH_ERROR_INIT;
    assert_int_equal(driver->create_file(loop, "/no/dir/a", NULL, &error), -ENOENT);
    assert_string_equal(error.message, "Could not create '/no/dir/a': No such file or directory");
    assert_int_equal(driver->create_file(loop, temp_dir, NULL, &error), -EISDIR);
    assert_non_null(strstr(error.message, "': Is a directory"));
    assert_int_equal(driver->create_file(loop, "/dev/null", NULL, &error), -EINVAL);
    assert_non_null(strstr(error.message, "'/dev/null'"));
}

CO_TEST(a_thousand_files_open_under_the_usual_limit)
{
    enum { COUNT = 1000 }; /* the engine, the loop and the test itself have a few */
    struct rlimit old, usual;
    struct bare *bare = g_new0(struct bare, COUNT);
    const char *path = temp_file("a", 4096, 1);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    usual = old;
    usual.rlim_cur = 1024;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &usual), 0);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_int_equal(open_path(&bare[i], path, 0), 0);
        assert_int_equal(bare[i].node.driver->lock(&bare[i].node, ASH_RIGHT_READ,
                                                   ASH_RIGHT_READ | ASH_RIGHT_REWRITE, NULL),
                         0);
    }
    for (unsigned i = 0; i < COUNT; i++) {
        bare_close(&bare[i]);
    }
    setrlimit(RLIMIT_NOFILE, &old);
    g_free(bare);
}

static int run_in(const char *parent)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_file_is_named_with_the_reason),
        cmocka_unit_test(what_is_no_disk_is_refused_by_name),
        cmocka_unit_test(name_is_required_once),
        cmocka_unit_test(options_of_scripts_are_accepted_and_others_refused),
        cmocka_unit_test(descriptor_is_taken_over_and_closed),
        cmocka_unit_test(descriptor_that_cannot_write_opens_read_only_if_that_is_allowed),
        cmocka_unit_test(without_o_direct_nothing_is_demanded),
        cmocka_unit_test(found_alignment_works_on_data_holes_and_empty_files),
        cmocka_unit_test(alignment_is_probed_where_the_kernel_does_not_tell),
        cmocka_unit_test(holes_and_empty_files_are_given_the_safe_alignment),
        cmocka_unit_test(direct_read_of_an_odd_end_finds_zeroes),
        cmocka_unit_test(reopening_changes_access_and_keeps_one_descriptor),
        cmocka_unit_test(reopening_that_is_called_off_changes_nothing),
        cmocka_unit_test(reopening_notices_that_the_name_leads_elsewhere),
        cmocka_unit_test(descriptor_is_reopened_without_a_path),
        cmocka_unit_test(creation_makes_and_empties_files),
        cmocka_unit_test(creation_where_none_can_be_says_why),
        cmocka_unit_test(a_thousand_files_open_under_the_usual_limit),
    };
    const struct CMUnitTest hook_tests[] = {
        cmocka_unit_test(auto_read_only_falls_back),
        cmocka_unit_test(file_system_without_o_direct_is_said_so),
    };
    if (temp_dir_make(parent) < 0) {
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    failed += cmocka_run_group_tests(hook_tests, set_up_hook, tear_down);
    temp_dir_remove();
    return failed;
}

int main(void)
{
    return run_in(".") + run_in("/dev/shm");
}
