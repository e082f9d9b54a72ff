/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks between nodes, which exclude one another as programs do: each has its own open file
 * description. tests/interop/locks.sh sets them against QEMU. */
#include "tests/unit/unit.h"
#include <errno.h>
#include "tests/unit/bare_node.h"
#include "tests/unit/temp_dir.h"

#define READ ASH_RIGHT_READ
#define WRITE ASH_RIGHT_WRITE
#define REWRITE ASH_RIGHT_REWRITE
#define RESIZE ASH_RIGHT_RESIZE
#define ALL ASH_RIGHT_ALL

static struct ash_loop *loop;

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

/* Two nodes of one file. */
struct pair {
    struct bare a;
    struct bare b;
};

ASH_CO_FN static void open_pair(struct pair *pair, uint32_t flags, const char *locking)
{
    const char *path = temp_file("image", 4096, 1);
    json_t *options = json_pack("{s:s, s:s}", "filename", path, "locking", locking);
    json_incref(options);
    assert_int_equal(bare_open(&pair->a, loop, "file", options, flags), 0);
    assert_int_equal(bare_open(&pair->b, loop, "file", options, flags), 0);
}

ASH_CO_FN static void close_pair(struct pair *pair)
{
    bare_close(&pair->a);
    bare_close(&pair->b);
}

ASH_CO_FN static int lock(struct bare *bare, uint32_t needs, uint32_t allows)
{
    return bare->node.driver->lock(&bare->node, needs, allows, &bare->error);
}

/* Bit n: byte 100 + n, bit 8 + n: byte 200 + n, as another program sees them. */
static unsigned held(const char *path)
{
    unsigned bits = 0;
    int fd = open(path, O_RDWR);
    for (unsigned i = 0; i < 8; i++) {
        struct flock test = {.l_type = F_WRLCK,
                             .l_whence = SEEK_SET,
                             .l_start = (i < 4 ? 100 : 200) + i % 4,
                             .l_len = 1};
        assert_int_equal(fcntl(fd, F_OFD_GETLK, &test), 0);
        bits |= test.l_type != F_UNLCK ? 1u << (i % 4 + (i < 4 ? 0 : 8)) : 0;
    }
    close(fd);
    return bits;
}

CO_TEST(bytes_are_those_of_qemu)
{
    struct pair pair;
    open_pair(&pair, ASH_NODE_WRITE, "auto");
    const char *path = temp_path("image");
    assert_int_equal(held(path), 0);
    assert_int_equal(lock(&pair.a, READ | WRITE, READ | REWRITE), 0);
    assert_int_equal(held(path), 0x3 | 0xa00);
    assert_int_equal(lock(&pair.a, READ | RESIZE | REWRITE, READ), 0);
    assert_int_equal(held(path), 0xd | 0xe00);
    assert_int_equal(lock(&pair.a, 0, ALL), 0);
    assert_int_equal(held(path), 0);
    close_pair(&pair);
}

CO_TEST(every_right_excludes_who_does_not_allow_it)
{
    static const char *const names[] = {"consistent read", "write", "write unchanged", "resize"};
    for (unsigned i = 0; i < 4; i++) {
        struct pair pair;
        char expected[200];
        open_pair(&pair, ASH_NODE_WRITE, "on");
        assert_int_equal(lock(&pair.a, 1u << i, ALL), 0);
        assert_int_equal(lock(&pair.b, 0, ALL & ~(1u << i)), -EAGAIN);
        snprintf(expected, sizeof(expected),
                 "Failed to get shared \"%s\" lock\nIs another process using the image [%s]?",
                 names[i], pair.b.node.filename);
        assert_string_equal(pair.b.error.message, expected);
        assert_int_equal(lock(&pair.b, ALL, ALL), 0);
        assert_int_equal(lock(&pair.a, 0, ALL), 0);

        assert_int_equal(lock(&pair.b, 0, ALL & ~(1u << i)), 0);
        assert_int_equal(lock(&pair.a, 1u << i, ALL), -EAGAIN);
        snprintf(expected, sizeof(expected),
                 "Failed to get \"%s\" lock\nIs another process using the image [%s]?", names[i],
                 pair.a.node.filename);
        assert_string_equal(pair.a.error.message, expected);
        assert_int_equal(lock(&pair.a, ALL & ~(1u << i), ALL), 0);
        close_pair(&pair);
    }
}

CO_TEST(refusal_leaves_what_was_held)
{
    struct pair pair;
    open_pair(&pair, ASH_NODE_WRITE, "auto");
    const char *path = temp_path("image");
    assert_int_equal(lock(&pair.a, READ, ALL & ~RESIZE), 0);
    assert_int_equal(lock(&pair.b, READ, ALL), 0);
    assert_int_equal(lock(&pair.b, READ | WRITE | RESIZE, READ), -EAGAIN);
    assert_int_equal(lock(&pair.a, 0, ALL), 0);
    assert_int_equal(held(path), 0x1);
    assert_int_equal(lock(&pair.b, READ | WRITE | RESIZE, READ), 0);
    assert_int_equal(held(path), 0xb | 0xe00);
    close_pair(&pair);
}

CO_TEST(readers_share)
{
    struct pair pair;
    open_pair(&pair, 0, "auto");
    assert_int_equal(lock(&pair.a, READ, READ | REWRITE), 0);
    assert_int_equal(lock(&pair.b, READ, READ | REWRITE), 0);
    close_pair(&pair);
}

CO_TEST(closing_lets_go)
{
    struct pair pair;
    open_pair(&pair, ASH_NODE_WRITE, "auto");
    assert_int_equal(lock(&pair.a, READ | WRITE, 0), 0);
    bare_close(&pair.a);
    assert_int_equal(lock(&pair.b, READ | WRITE, 0), 0);
    bare_close(&pair.b);
}

/* Duplicates of all descriptors of a file: they keep what is closed alive, as a worker of the
 * kernel does that is about to let go of it. */
static unsigned keep_alive(const char *path, int kept[static 8])
{
    struct stat wanted, found;
    unsigned count = 0;
    assert_int_equal(stat(path, &wanted), 0);
    for (int fd = 3; fd < 64 && count < 8; fd++) {
        if (fstat(fd, &found) == 0 && found.st_ino == wanted.st_ino &&
            found.st_dev == wanted.st_dev) {
            kept[count++] = fcntl(fd, F_DUPFD_CLOEXEC, 64);
        }
    }
    return count;
}

static void let_die(unsigned count, const int kept[static 8])
{
    while (count-- > 0) {
        close(kept[count]);
    }
}

CO_TEST(closing_lets_go_though_the_description_lives_on)
{
    struct pair pair;
    int kept[8];
    open_pair(&pair, ASH_NODE_WRITE, "auto");
    assert_int_equal(lock(&pair.a, READ | WRITE, 0), 0);
    unsigned count = keep_alive(temp_path("image"), kept);
    assert_int_equal(count, 2);
    bare_close(&pair.a);
    assert_int_equal(lock(&pair.b, READ | WRITE, 0), 0);
    let_die(count, kept);
    bare_close(&pair.b);
}

CO_TEST(reopening_lets_go_though_the_description_lives_on)
{
    struct pair pair;
    int kept[8];
    open_pair(&pair, ASH_NODE_WRITE, "auto");
    struct ash_node *node = &pair.a.node;
    assert_int_equal(lock(&pair.a, READ | WRITE, READ), 0);
    unsigned count = keep_alive(temp_path("image"), kept);
    assert_int_equal(node->driver->reopen_prepare(node, 0, NULL), 0);
    node->driver->reopen_commit(node, 0);
    assert_int_equal(lock(&pair.a, READ, ALL), 0);
    assert_int_equal(held(temp_path("image")), 0x1);
    let_die(count, kept);
    close_pair(&pair);
}

CO_TEST(locking_can_be_switched_off)
{
    struct pair pair;
    open_pair(&pair, ASH_NODE_WRITE, "off");
    assert_int_equal(lock(&pair.a, ALL, 0), 0);
    assert_int_equal(held(temp_path("image")), 0);
    assert_int_equal(lock(&pair.b, ALL, 0), 0);
    close_pair(&pair);
}

CO_TEST(no_lock_flag_holds_where_the_option_does_not_say_otherwise)
{
    struct pair pair;
    open_pair(&pair, ASH_NODE_WRITE | ASH_NODE_NO_LOCK, "auto");
    assert_int_equal(lock(&pair.a, READ, 0), 0);
    assert_int_equal(held(temp_path("image")), 0);
    close_pair(&pair);
    open_pair(&pair, ASH_NODE_WRITE | ASH_NODE_NO_LOCK, "on");
    assert_int_equal(lock(&pair.a, READ, 0), 0);
    assert_int_equal(held(temp_path("image")), 0x1 | 0xf00);
    close_pair(&pair);
}

/* Whether plans lock before or after they reopen, the locks never lapse and never meet themselves.
 */
CO_TEST(reopening_keeps_the_locks)
{
    for (unsigned i = 0; i < 4; i++) {
        struct pair pair;
        bool lock_first = (i & 1) != 0, called_off = (i & 2) != 0;
        open_pair(&pair, 0, "auto");
        struct ash_node *node = &pair.a.node;
        const char *path = temp_path("image");
        assert_int_equal(lock(&pair.a, READ, READ | REWRITE), 0);
        if (lock_first) {
            assert_int_equal(lock(&pair.a, READ | WRITE, READ), 0);
        }
        assert_int_equal(node->driver->reopen_prepare(node, ASH_NODE_WRITE, NULL), 0);
        if (!lock_first) {
            assert_int_equal(lock(&pair.a, READ | WRITE, READ), 0);
        }
        if (called_off) {
            node->driver->reopen_abort(node);
            assert_int_equal(lock(&pair.a, READ, READ | REWRITE), 0);
            assert_int_equal(held(path), 0x1 | 0xa00);
        } else {
            node->driver->reopen_commit(node, ASH_NODE_WRITE);
            assert_int_equal(held(path), 0x3 | 0xe00);
            assert_int_equal(lock(&pair.a, READ | WRITE, READ), 0);
            assert_int_equal(held(path), 0x3 | 0xe00);
            assert_int_equal(lock(&pair.a, READ | WRITE, READ | REWRITE), 0);
            assert_int_equal(held(path), 0x3 | 0xa00);
        }
        close_pair(&pair);
    }
}

CO_TEST(creation_leaves_a_file_alone_that_another_uses)
{
    struct pair pair;
    struct ash_error error = ASH_ERROR_INIT;
    open_pair(&pair, ASH_NODE_WRITE, "auto");
    const struct ash_driver *driver = pair.a.node.driver;
    const char *path = temp_path("image");
    assert_int_equal(lock(&pair.a, READ, READ | REWRITE), 0);
    assert_int_equal(driver->create_file(loop, path, NULL, &error), -EAGAIN);
    assert_non_null(strstr(error.message, "Failed to get \"write\" lock"));
    assert_true(temp_holds(path, 0, 4096, 1));
    assert_int_equal(lock(&pair.a, 0, ALL), 0);
    assert_int_equal(driver->create_file(loop, path, NULL, &error), 0);
    assert_int_equal(temp_bytes(path), 0);
    close_pair(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_those_of_qemu),
        cmocka_unit_test(every_right_excludes_who_does_not_allow_it),
        cmocka_unit_test(refusal_leaves_what_was_held),
        cmocka_unit_test(readers_share),
        cmocka_unit_test(closing_lets_go),
        cmocka_unit_test(closing_lets_go_though_the_description_lives_on),
        cmocka_unit_test(reopening_lets_go_though_the_description_lives_on),
        cmocka_unit_test(locking_can_be_switched_off),
        cmocka_unit_test(no_lock_flag_holds_where_the_option_does_not_say_otherwise),
        cmocka_unit_test(reopening_keeps_the_locks),
        cmocka_unit_test(creation_leaves_a_file_alone_that_another_uses),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
