/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A host that has run out: of descriptors while a loop is made, of memory for buffers while an
 * image lives. Each thing that is asked for is refused once, in the order of asking; what was had
 * before must be given back, and what was written before must be there. */
#include "tests/unit/unit.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include "block/disk/disk.h"
#include "block/graph/describe.h"
#include "block/image/image.h"
#include "tests/unit/temp_dir.h"
#include "util/loop/loop.h"

#define CLUSTER_BYTES 4096
#define DISK_BYTES (64 * CLUSTER_BYTES)
#define TRIES_MAX 200

/* Descriptors. */

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

/* The limit under which `spare` more can be had. */
static rlim_t limit_for(unsigned spare)
{
    int fd = 0;
    for (; fcntl(fd, F_GETFD) >= 0 || spare > 0; fd++) {
        spare -= fcntl(fd, F_GETFD) < 0;
    }
    return (rlim_t)fd;
}

static void limit_descriptors(rlim_t most)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = most;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Makes a loop and what a host asks of it. 0 or a negative errno. */
static int make_loop(uint32_t flags, struct ash_error *error)
{
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    struct ash_loop *loop;
    config.flags = flags;
    int ret = ash_loop_new(&config, &loop, error);
    if (ret < 0) {
        return ret;
    }
    if (flags == 0) {
        ret = ash_loop_bind(loop);
        if (ret == 0 && ash_loop_fd(loop) < 0) {
            ret = -EMFILE;
        }
    }
    ash_loop_free(loop);
    return ret;
}

static void check_scarce_descriptors(uint32_t flags)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct rlimit before;
    int ret = -EMFILE;
    unsigned refusals = 0;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(make_loop(flags, &error), 0);
    unsigned open_before = open_descriptors();
    for (unsigned spare = 0; ret < 0; spare++) {
        assert_true(spare < 32);
        limit_descriptors(limit_for(spare));
        error = (struct ash_error)ASH_ERROR_INIT;
        ret = make_loop(flags, &error);
        limit_descriptors(before.rlim_cur);
        assert_int_equal(open_descriptors(), open_before);
        if (ret < 0) {
            assert_int_equal(ret, -EMFILE);
            refusals++;
        }
    }
    assert_true(refusals >= 2);
}

static void a_loop_that_finds_no_descriptor_gives_back_those_it_had(void **state)
{
    (void)state;
    check_scarce_descriptors(0);
}

static void so_does_a_loop_with_a_thread_of_its_own(void **state)
{
    (void)state;
    check_scarce_descriptors(ASH_LOOP_OWN_THREAD);
}

/* Buffers. */

struct life {
    struct ash_loop *loop;
    const char *path;
    unsigned asked;     /* for buffers */
    unsigned refuse_at; /* counted from 1; 0: never */
    int64_t live;       /* buffers that were not freed */
    bool written;       /* the first write was acknowledged */
    unsigned no_memory; /* how many calls said so */
    unsigned other;     /* errors */
    uint8_t *data;
};

static void *alloc_or_refuse(void *opaque, size_t bytes, size_t alignment)
{
    struct life *life = opaque;
    if (++life->asked == life->refuse_at) {
        return NULL;
    }
    life->live++;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void free_counted(void *opaque, void *memory, size_t bytes)
{
    struct life *life = opaque;
    (void)bytes;
    life->live--;
    free(memory);
}

static int note(struct life *life, int ret)
{
    life->no_memory += ret == -ENOMEM;
    life->other += ret < 0 && ret != -ENOMEM;
    return ret;
}

ASH_CO_FN static int request(struct life *life, struct ash_disk *disk, uint8_t op, uint32_t flags,
                             uint64_t offset, uint64_t bytes)
{
    struct iovec vec = {life->data, bytes};
    struct ash_io io = {
        .op = op, .flags = flags, .offset = offset, .bytes = bytes, .iov = ash_iov_of(&vec, 1)};
    return note(life, ash_disk_io(disk, &io));
}

/* What the first cluster must hold: nothing or `written`, and that once it was acknowledged. */
ASH_CO_FN static void look(struct life *life, struct ash_disk *disk)
{
    memset(life->data, 0xee, CLUSTER_BYTES);
    if (request(life, disk, ASH_READ, 0, 0, CLUSTER_BYTES) < 0) {
        return;
    }
    for (unsigned i = 0; i < CLUSTER_BYTES; i++) {
        bool inside = i >= 100 && i < 300;
        if (life->written || life->data[i] != 0) {
            assert_int_equal(life->data[i], inside ? 0x55 : 0);
        }
    }
}

ASH_CO_FN static void use(struct life *life, struct ash_disk *disk)
{
    memset(life->data, 0x55, DISK_BYTES);
    life->written = request(life, disk, ASH_WRITE, 0, 100, 200) == 0;
    look(life, disk);
    memset(life->data, 0x77, 4 * CLUSTER_BYTES);
    request(life, disk, ASH_WRITE, ASH_IO_COMPRESS, 8 * CLUSTER_BYTES, 4 * CLUSTER_BYTES);
    request(life, disk, ASH_READ, 0, 8 * CLUSTER_BYTES + 11, 2 * CLUSTER_BYTES);
    request(life, disk, ASH_WRITE, 0, 9 * CLUSTER_BYTES + 512, 512); /* copies from a coded one */
    request(life, disk, ASH_ZERO, ASH_REQ_UNMAP, 20 * CLUSTER_BYTES + 7, 3 * CLUSTER_BYTES);
    request(life, disk, ASH_ZERO, 0, 70, 10);
    memset(life->data, 0x55, CLUSTER_BYTES);
    request(life, disk, ASH_WRITE, 0, 100, 200);
    request(life, disk, ASH_DISCARD, 0, 8 * CLUSTER_BYTES, CLUSTER_BYTES);
    request(life, disk, ASH_FLUSH, 0, 0, 0);
}

/* A life from creation to closing. */
ASH_CO_FN static int live(void *opaque)
{
    struct life *life = opaque;
    struct ash_disk *disk;
    json_t *options = json_pack("{s:i}", "cluster_size", CLUSTER_BYTES);
    int ret =
        note(life, ash_image_create(life->loop, life->path, "qcow2", DISK_BYTES, options, NULL));
    json_decref(options);
    if (ret < 0) {
        return 0;
    }
    json_t *description = ash_describe(life->path, "qcow2", NULL);
    ret = note(life, ash_co_disk_open(life->loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD,
                                      &disk, NULL));
    if (ret == 0) {
        use(life, disk);
        note(life, ash_co_disk_close(disk, NULL));
        life->refuse_at = 0;
        assert_int_equal(ash_co_disk_open(life->loop, description, 0, &disk, NULL), 0);
        look(life, disk);
        assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    }
    json_decref(description);
    return 0;
}

static struct life live_once(unsigned refuse_at)
{
    struct life life = {.path = temp_path("image"), .refuse_at = refuse_at};
    struct ash_hooks hooks = {
        .size = sizeof(hooks), .opaque = &life, .alloc = alloc_or_refuse, .free = free_counted};
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    config.hooks = &hooks;
    life.data = malloc(DISK_BYTES);
    assert_int_equal(ash_loop_new(&config, &life.loop, NULL), 0);
    assert_int_equal(ash_loop_bind(life.loop), 0);
    assert_int_equal(ash_loop_run_sync(life.loop, live, &life), 0);
    ash_loop_free(life.loop);
    free(life.data);
    return life;
}

static void any_buffer_may_be_missing(void **state)
{
    (void)state;
    struct life whole = live_once(0);
    assert_int_equal(whole.no_memory, 0);
    assert_int_equal(whole.other, 0);
    assert_int_equal(whole.live, 0);
    assert_true(whole.asked > 10);
    assert_true(whole.asked < TRIES_MAX);
    unsigned told = 0;
    for (unsigned at = 1; at <= whole.asked; at++) {
        struct life life = live_once(at);
        assert_int_equal(life.live, 0);
        assert_int_equal(life.other, 0);
        told += life.no_memory > 0;
    }
    assert_true(told > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_loop_that_finds_no_descriptor_gives_back_those_it_had),
        cmocka_unit_test(so_does_a_loop_with_a_thread_of_its_own),
        cmocka_unit_test(any_buffer_may_be_missing),
    };
    return cmocka_run_group_tests(tests, temp_dir_set_up, temp_dir_tear_down);
}
