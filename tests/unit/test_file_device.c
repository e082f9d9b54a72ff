/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The file driver on a block device: a loop device over a file in the build directory. Skipped
 * where none can be had. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include "tests/unit/bare_node.h"
#include "tests/unit/temp_dir.h"

enum { DEVICE_BYTES = 4 * 1024 * 1024 };

static struct ash_loop *loop;
static const char *image;
static char device[32];
static int device_fd;
static uint8_t buffer[64 * 1024] __attribute__((aligned(4096)));

/* A loop device of 512-byte sectors over `image`. -EBUSY: another program was faster. -ENXIO: and
 * it is just giving the device back. */
static int attach_once(int backing, uint32_t flags)
{
    struct loop_config config = {
        .fd = (uint32_t)backing, .block_size = 512, .info.lo_flags = flags};
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int number = control < 0 ? -1 : ioctl(control, LOOP_CTL_GET_FREE);
    close(control);
    if (number < 0) {
        return -ENODEV;
    }
    snprintf(device, sizeof(device), "/dev/loop%d", number);
    device_fd = open(device, O_RDWR | O_CLOEXEC);
    if (device_fd < 0) {
        return -errno;
    }
    if (ioctl(device_fd, LOOP_CONFIGURE, &config) < 0) {
        int ret = -errno;
        close(device_fd);
        return ret;
    }
    return 0;
}

static int attach(uint32_t flags)
{
    int backing = open(image, O_RDWR | O_CLOEXEC);
    int ret = -EBUSY;
    for (unsigned i = 0; i < 100 && (ret == -EBUSY || ret == -ENXIO); i++) {
        ret = attach_once(backing, flags);
    }
    close(backing);
    return ret;
}

static void detach(void)
{
    ioctl(device_fd, LOOP_CLR_FD, 0);
    close(device_fd);
}

static int set_up(void)
{
    int ret = ash_loop_new(NULL, &loop, NULL);
    if (ret < 0 || temp_dir_make(".") < 0) {
        return -1;
    }
    image = temp_file("image", DEVICE_BYTES, 1);
    return ash_loop_bind(loop);
}

static void tear_down(void)
{
    temp_dir_remove();
    ash_loop_free(loop);
}

ASH_CO_FN static void open_device(struct bare *bare, const char *driver, uint32_t flags)
{
    json_t *options = json_pack("{s:s}", "filename", device);
    assert_int_equal(bare_open(bare, loop, driver, options, flags), 0);
}

#define DEVICE_TEST(name)                                                                          \
    ASH_CO_FN static void name##_on_device(void);                                                  \
    CO_TEST(name)                                                                                  \
    {                                                                                              \
        assert_int_equal(attach(0), 0);                                                            \
        name##_on_device();                                                                        \
        detach();                                                                                  \
    }                                                                                              \
    ASH_CO_FN static void name##_on_device(void)

DEVICE_TEST(both_drivers_open_a_device_of_fixed_length)
{
    static const char *const drivers[] = {"file", "host_device"};
    for (unsigned i = 0; i < 2; i++) {
        struct bare bare;
        open_device(&bare, drivers[i], ASH_NODE_WRITE);
        assert_int_equal(bare.node.size_bytes, DEVICE_BYTES);
        assert_false(bare.node.flags & ASH_NODE_GROWS);
        assert_int_equal(bare.node.driver->resize(&bare.node, DEVICE_BYTES, 0, NULL), 0);
        assert_int_equal(bare.node.driver->resize(&bare.node, 1024, 0, &bare.error), -ENOTSUP);
        assert_non_null(strstr(bare.error.message, device));
        assert_int_equal(bare.node.driver->create_file(loop, device, NULL, NULL), 0);
        assert_int_equal(bare.node.size_bytes, DEVICE_BYTES);
        bare_close(&bare);
    }
}

DEVICE_TEST(sector_size_is_the_alignment_of_direct_access)
{
    struct bare bare;
    open_device(&bare, "file", ASH_NODE_WRITE | ASH_NODE_DIRECT);
    assert_int_equal(bare.node.limits.request_alignment, 512);
    assert_true(bare.node.limits.memory_alignment <= 512);
    memset(buffer, 5, 512);
    assert_int_equal(bare_io(&bare, ASH_WRITE, 512, buffer, 512, ASH_REQ_FUA), 0);
    assert_int_equal(bare_io(&bare, ASH_READ, 0, buffer + 512, 1024, 0), 0);
    assert_int_equal(buffer[1023], 1);
    assert_int_equal(buffer[1024], 5);
    assert_int_equal(bare_io(&bare, ASH_FLUSH, 0, NULL, 0, 0), 0);
    bare_close(&bare);
}

DEVICE_TEST(zero_and_discard_reach_the_device)
{
    struct bare bare;
    open_device(&bare, "file", ASH_NODE_WRITE | ASH_NODE_DISCARD);
    uint32_t unit = bare.node.limits.zero_alignment;
    assert_true(unit >= 512);
    assert_true(bare.node.limits.discard_alignment >= unit);
    memset(buffer, 1, sizeof(buffer));
    assert_int_equal(bare_io(&bare, ASH_WRITE, 0, buffer, sizeof(buffer), 0), 0);
    assert_int_equal(bare_io(&bare, ASH_ZERO, unit, NULL, unit, 0), 0);
    int ret = bare_io(&bare, ASH_ZERO, 4 * unit, NULL, unit, ASH_REQ_UNMAP);
    assert_true(ret == 0 || ret == -ENOTSUP);
    assert_int_equal(bare_io(&bare, ASH_READ, 0, buffer, 8 * unit, 0), 0);
    assert_int_equal(buffer[unit - 1], 1);
    assert_true(ash_buffer_is_zero(buffer + unit, unit));
    assert_int_equal(buffer[2 * unit], 1);
    if (ret == 0) {
        assert_true(ash_buffer_is_zero(buffer + 4 * unit, unit));
    }
    assert_int_equal(buffer[5 * unit], 1);
    ret = bare_io(&bare, ASH_DISCARD, 1 * MiB, NULL, 1 * MiB, 0);
    assert_true(ret == 0 || ret == -ENOTSUP);
    assert_int_equal(bare_io(&bare, ASH_FLUSH, 0, NULL, 0, 0), 0);
    bare_close(&bare);
}

DEVICE_TEST(status_of_a_device_is_data)
{
    struct bare bare;
    open_device(&bare, "file", 0);
    struct ash_status status = bare_status(&bare, 0, DEVICE_BYTES, ASH_IO_STATUS_ZEROES);
    assert_int_equal(status.flags & 3, ASH_STATUS_DATA);
    assert_int_equal(status.bytes, DEVICE_BYTES);
    bare_close(&bare);
}

CO_TEST(read_only_device_is_not_opened_for_writing)
{
    struct bare bare;
    assert_int_equal(attach(LO_FLAGS_READ_ONLY), 0);
    json_t *options = json_pack("{s:s}", "filename", device);
    int ret = bare_open(&bare, loop, "file", options, ASH_NODE_WRITE);
    assert_int_equal(ret, -EACCES);
    assert_non_null(strstr(bare.error.message, device));
    open_device(&bare, "file", ASH_NODE_WRITE | ASH_NODE_AUTO_READ_ONLY);
    assert_false(bare.node.flags & ASH_NODE_WRITE);
    bare_close(&bare);
    detach();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_drivers_open_a_device_of_fixed_length),
        cmocka_unit_test(sector_size_is_the_alignment_of_direct_access),
        cmocka_unit_test(zero_and_discard_reach_the_device),
        cmocka_unit_test(status_of_a_device_is_data),
        cmocka_unit_test(read_only_device_is_not_opened_for_writing),
    };
    if (set_up() < 0) {
        return 1;
    }
    if (attach(0) < 0) {
        print_message("no loop device can be had here\n");
        tear_down();
        return 77;
    }
    detach();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tear_down();
    return failed;
}
