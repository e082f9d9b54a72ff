/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory that the library was told of: the same results with every engine, in it, across its ends
 * and outside; and that the kernel uses what was registered. */
#include "tests/unit/unit.h"
#include <ashlar/ashlar.h>
#include <errno.h>
#include <sys/mman.h>
#include "tests/unit/temp_dir.h"

#define FILE_BYTES (1u << 20)
#define REGION_BYTES (4u << 20)
#define BLOCK 4096u

static struct ash_loop *loop;
static struct ash_disk *disk;
static struct ash_queue *queue;
static unsigned refused; /* lines of the log that say that memory was not registered */

static void count_refusals(void *opaque, enum ash_log_level level, const char *message)
{
    (void)opaque;
    refused += level == ASH_LOG_INFO && strstr(message, "not registered") != NULL;
}

static int set_up_group(void **state)
{
    (void)state;
    return temp_dir_make(".");
}

static int tear_down_group(void **state)
{
    (void)state;
    temp_dir_remove();
    return 0;
}

static int set_up(void **state)
{
    struct ash_hooks hooks = {.size = sizeof(hooks), .log = count_refusals};
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    (void)state;
    refused = 0;
    config.hooks = &hooks;
    options.flags = ASH_DISK_WRITE;
    options.format = "raw";
    options.cache = "none";
    assert_int_equal(ash_loop_new(&config, &loop, NULL), 0);
    assert_int_equal(ash_loop_bind(loop), 0);
    const char *path = temp_file("disk", FILE_BYTES, 1);
    assert_int_equal(ash_disk_open_sync(loop, path, &options, &disk, NULL), 0);
    assert_int_equal(ash_queue_new(disk, 64, &queue, NULL), 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ash_queue_free(queue);
    assert_int_equal(ash_disk_close_sync(disk, NULL), 0);
    ash_loop_free(loop);
    return 0;
}

static uint8_t *map_memory(void)
{
    void *memory =
        mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    return memory;
}

static void submit(uint8_t op, uint64_t offset, struct iovec *vec, uint32_t count)
{
    struct ash_req req = {.op = op, .offset = offset, .iov = vec, .iov_count = count};
    for (uint32_t i = 0; i < count; i++) {
        req.bytes += vec[i].iov_len;
    }
    assert_int_equal(ash_queue_submit(queue, &req, 1), 1);
}

static void finish(unsigned count)
{
    struct ash_cqe cqe;
    while (count > 0) {
        if (ash_queue_reap(queue, &cqe, 1) == 1) {
            assert_int_equal(cqe.result, 0);
            count--;
        } else {
            assert_true(ash_loop_run_once(loop, -1, 0) >= 0);
        }
    }
}

static void transfer(uint8_t op, uint64_t offset, void *memory, size_t bytes)
{
    struct iovec vec = {memory, bytes};
    submit(op, offset, &vec, 1);
    finish(1);
}

static void what_is_wrong_is_refused(void **state)
{
    uint8_t *memory = map_memory();
    uint32_t id = 0;
    uint32_t other;
    (void)state;
    assert_int_equal(ash_memory_add(loop, memory, 0, 0, &id), -EINVAL);
    assert_int_equal(ash_memory_add(loop, NULL, BLOCK, 0, &id), -EINVAL);
    assert_int_equal(ash_memory_add(loop, memory, BLOCK, 1, &id), -EINVAL);
    assert_int_equal(ash_memory_add(loop, memory, SIZE_MAX, 0, &id), -EINVAL);
    assert_int_equal(ash_memory_remove(loop, 1), -ENOENT);
    assert_int_equal(ash_memory_add(loop, memory, 4 * BLOCK, 0, &id), 0);
    assert_int_equal(ash_memory_add(loop, memory + 3 * BLOCK, 4 * BLOCK, 0, &other), -EEXIST);
    assert_int_equal(ash_memory_add(loop, memory + 4 * BLOCK, BLOCK, 0, &other), 0);
    assert_int_not_equal(id, other);
    assert_int_equal(ash_memory_remove(loop, id), 0);
    assert_int_equal(ash_memory_remove(loop, id), -ENOENT);
    assert_int_equal(ash_memory_add(loop, memory, 4 * BLOCK, 0, &id), 0);
    munmap(memory, REGION_BYTES);
}

/* Pieces inside, outside, across the ends, of several elements: all hold what was written. */
static void requests_do_the_same_wherever_their_memory_lies(void **state)
{
    uint8_t *memory = map_memory();
    uint32_t ids[2];
    (void)state;
    assert_int_equal(ash_memory_add(loop, memory + 16 * BLOCK, 16 * BLOCK, 0, &ids[0]), 0);
    assert_int_equal(ash_memory_add(loop, memory + 32 * BLOCK, 16 * BLOCK, 0, &ids[1]), 0);
    for (unsigned first = 0; first < 60; first += 3) {
        for (unsigned blocks = 1; blocks <= 20; blocks += 6) {
            uint8_t *data = memory + first * BLOCK;
            uint8_t value = (uint8_t)(first * 4 + blocks + 1);
            memset(data, value, blocks * BLOCK);
            transfer(ASH_WRITE, first * BLOCK, data, blocks * BLOCK);
            memset(data, 0, blocks * BLOCK);
            transfer(ASH_READ, first * BLOCK, data, blocks * BLOCK);
            for (size_t i = 0; i < blocks * BLOCK; i++) {
                assert_int_equal(data[i], value);
            }
            struct iovec vec[2] = {{data + BLOCK, BLOCK}, {data, BLOCK}};
            memset(data, value + 1, BLOCK);
            memset(data + BLOCK, value + 2, BLOCK);
            submit(ASH_WRITE, 0, vec, 2);
            finish(1);
            assert_true(temp_holds(temp_path("disk"), 0, BLOCK, (uint8_t)(value + 2)));
            assert_true(temp_holds(temp_path("disk"), BLOCK, BLOCK, (uint8_t)(value + 1)));
        }
    }
    munmap(memory, REGION_BYTES);
}

/* Taken back between submission and completion, and used again at once for something else. */
static void memory_is_taken_back_under_requests(void **state)
{
    uint8_t *memory = map_memory();
    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        uint32_t id;
        struct iovec vec[16];
        assert_int_equal(ash_memory_add(loop, memory, 16 * BLOCK, 0, &id), 0);
        memset(memory, (int)(round % 255) + 1, 16 * BLOCK);
        for (unsigned i = 0; i < 16; i++) {
            vec[i] = (struct iovec){memory + i * BLOCK, BLOCK};
            submit(ASH_WRITE, i * BLOCK, &vec[i], 1);
        }
        if (round % 2 == 0) {
            assert_true(ash_loop_run_once(loop, 0, 0) >= 0);
        }
        assert_int_equal(ash_memory_remove(loop, id), 0);
        if (round % 4 < 2) {
            assert_int_equal(ash_memory_add(loop, memory + 64 * BLOCK, BLOCK, 0, &id), 0);
            finish(16);
            assert_int_equal(ash_memory_remove(loop, id), 0);
        } else {
            finish(16);
        }
        assert_true(temp_holds(temp_path("disk"), 0, 16 * BLOCK, (int)(round % 255) + 1));
    }
    munmap(memory, REGION_BYTES);
}

/* Behind the library's back the addresses are given other pages: a read into registered memory
 * still goes to the old ones. That breaks the rules, and shows that the kernel uses what was
 * registered. */
static void the_uring_engine_uses_registered_pages(void **state)
{
    uint8_t *memory = map_memory();
    uint32_t id;
    (void)state;
    memset(memory, 0, 16 * BLOCK);
    assert_int_equal(ash_memory_add(loop, memory, 16 * BLOCK, 0, &id), 0);
    if (strcmp(ash_loop_engine(loop), "uring") == 0 && refused > 0) {
        munmap(memory, REGION_BYTES);
        skip(); /* more than RLIMIT_MEMLOCK allows here */
    }
    assert_true(mmap(memory, 16 * BLOCK, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory);
    memset(memory, 0, 16 * BLOCK);
    transfer(ASH_READ, 0, memory + BLOCK, BLOCK);
    bool registered = strcmp(ash_loop_engine(loop), "uring") == 0;
    assert_int_equal(memory[BLOCK], registered ? 0 : 1);
    assert_int_equal(ash_memory_remove(loop, id), 0);
    transfer(ASH_READ, 0, memory + BLOCK, BLOCK);
    assert_int_equal(memory[BLOCK], 1);
    munmap(memory, REGION_BYTES);
}

/* A file that is not in memory cannot be registered everywhere; requests do not care. */
static void memory_that_cannot_be_registered_works_all_the_same(void **state)
{
    uint32_t id;
    (void)state;
    int fd = open(temp_file("mapped", 64 * BLOCK, 0), O_RDWR);
    assert_true(fd >= 0);
    uint8_t *memory = mmap(NULL, 64 * BLOCK, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(memory != MAP_FAILED);
    assert_int_equal(ash_memory_add(loop, memory, 64 * BLOCK, 0, &id), 0);
    transfer(ASH_WRITE, 0, memory, BLOCK);
    assert_true(temp_holds(temp_path("disk"), 0, BLOCK, 0));
    assert_int_equal(ash_memory_remove(loop, id), 0);
    munmap(memory, 64 * BLOCK);
    close(fd);
}

int main(void)
{
#define RUN(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        RUN(what_is_wrong_is_refused),
        RUN(requests_do_the_same_wherever_their_memory_lies),
        RUN(memory_is_taken_back_under_requests),
        RUN(the_uring_engine_uses_registered_pages),
        RUN(memory_that_cannot_be_registered_works_all_the_same),
    };
    return cmocka_run_group_tests(tests, set_up_group, tear_down_group);
}
