/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copy-on-read: what is copied and what is not, copies that meet writes, copies that fail, and the
 * whole of it under guests and a streaming job.
 *
 * Most tests have an image over a base of 1 MiB that is full of bytes 0x11, in clusters of 4 KiB,
 * with a fault filter in each file, to hold requests back or to have them fail. */
#include "tests/unit/unit.h"
#include "block/filter/fault.h"
#include "block/map/populate.h"
#include "tests/unit/job_rig.h"

#define IMAGE_BYTES (1 * MiB)
#define CLUSTER 4096

ASH_CO_FN static void make(struct core *core, const char *name)
{
    json_t *options = json_pack("{s:i}", "cluster_size", CLUSTER);
    assert_int_equal(ash_image_create(core->loop, core_file(core, name, -1), "qcow2", IMAGE_BYTES,
                                      options, NULL),
                     0);
    json_decref(options);
}

/* Writes to a layer alone. */
ASH_CO_FN static void fill(struct core *core, const char *name, uint8_t byte, uint64_t offset,
                           uint64_t bytes)
{
    char *text = g_strdup_printf("{\"driver\": \"qcow2\", \"backing\": null, \"file\": "
                                 "{\"driver\": \"file\", \"filename\": \"%s\"}}",
                                 core_file(core, name, -1));
    struct ash_disk *disk = core_open_text(core, text, ASH_NODE_WRITE);
    uint8_t *buffer = g_malloc(bytes);
    memset(buffer, byte, bytes);
    assert_int_equal(ash_disk_write(disk, offset, buffer, bytes, 0), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    g_free(buffer);
    g_free(text);
}

/* `own` are more members of the image, `top` and `base` of the fault filters in the files. */
ASH_CO_FN static struct ash_disk *open_pair(struct core *core, const char *own, const char *top,
                                            const char *base, uint32_t flags)
{
    char *text = g_strdup_printf(
        "{\"driver\": \"qcow2\"%s, \"node-name\": \"image\", \"file\": "
        "{\"driver\": \"fault\", \"node-name\": \"top-file\"%s, \"file\": "
        "{\"driver\": \"file\", \"filename\": \"%s\"}}, \"backing\": {\"driver\": \"qcow2\", "
        "\"file\": {\"driver\": \"fault\", \"node-name\": \"base-file\"%s, \"file\": "
        "{\"driver\": \"file\", \"filename\": \"%s\"}}}}",
        own, top, core_file(core, "top", -1), base, core_file(core, "base", -1));
    struct ash_disk *disk = core_open_text(core, text, flags);
    g_free(text);
    return disk;
}

#define COPYING ", \"copy-on-read\": true"
#define WRITING (ASH_NODE_WRITE | ASH_NODE_DISCARD)

ASH_CO_FN static struct ash_disk *pair_up(struct core *core, const char *own, const char *top,
                                          const char *base, uint32_t flags)
{
    make(core, "base");
    make(core, "top");
    fill(core, "base", 0x11, 0, IMAGE_BYTES);
    return open_pair(core, own, top, base, flags);
}

/* The layer that decides what is there: 0 is the image itself. */
ASH_CO_FN static uint32_t depth_at(struct ash_disk *disk, uint64_t offset)
{
    struct ash_status status = {0};
    struct ash_io io = {.op = ASH_STATUS, .offset = offset, .bytes = 512, .status = &status};
    assert_int_equal(ash_disk_io(disk, &io), 0);
    return status.depth;
}

ASH_CO_FN static void expect_bytes(struct ash_disk *disk, uint64_t offset, uint8_t byte)
{
    uint8_t buffer[512];
    assert_int_equal(ash_disk_read(disk, offset, buffer, 512), 0);
    for (unsigned i = 0; i < 512; i++) {
        assert_int_equal(buffer[i], byte);
    }
}

ASH_CO_FN static void close_disk(struct ash_disk *disk)
{
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(a_read_copies_what_the_image_lacks)
{
    (void)opaque;
    struct ash_disk *disk = pair_up(core, COPYING, "", "", WRITING);
    expect_bytes(disk, 5000, 0x11);
    assert_int_equal(depth_at(disk, 0), 1);
    assert_int_equal(depth_at(disk, 4096), 0); /* the whole cluster, and no other */
    assert_int_equal(depth_at(disk, 8192 - 512), 0);
    assert_int_equal(depth_at(disk, 8192), 1);
    close_disk(disk);
    disk = open_pair(core, "", "", "", 0);
    assert_int_equal(depth_at(disk, 4096), 0);
    expect_bytes(disk, 4096, 0x11);
    close_disk(disk);
}

CORE_TEST(without_the_option_nothing_is_copied)
{
    (void)opaque;
    struct ash_disk *disk = pair_up(core, ", \"copy-on-read\": false", "", "", WRITING);
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(depth_at(disk, 4096), 1);
    close_disk(disk);
}

CORE_TEST(an_image_that_is_open_read_only_is_read_as_it_is)
{
    (void)opaque;
    struct ash_disk *disk = pair_up(core, COPYING, "", "", 0);
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(depth_at(disk, 4096), 1);
    close_disk(disk);
}

CORE_TEST(a_disk_becomes_read_only_and_writable_again)
{
    (void)opaque;
    struct ash_disk *disk = pair_up(core, COPYING, "", "", WRITING);
    assert_int_equal(ash_disk_reopen(disk, 0, false, NULL), 0);
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(depth_at(disk, 4096), 1);
    assert_int_equal(ash_disk_reopen(disk, WRITING, false, NULL), 0);
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(depth_at(disk, 4096), 0);
    close_disk(disk);
}

/* A second read goes to the image alone: nobody who waits for a read of the base sees one. */
CORE_TEST(a_second_read_of_the_same_range_leaves_the_base_alone)
{
    (void)opaque;
    struct ash_disk *disk = pair_up(core, COPYING, "", "", WRITING);
    struct ash_node *base = ash_node_find(core->loop, "base-file");
    struct ash_node *top = ash_node_find(core->loop, "top-file");
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(ash_fault_break(base, "read_aio", "base"), 0);
    assert_int_equal(ash_fault_break(top, "write_aio", "top"), 0);
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(ash_fault_remove_break(base, "base"), 0);
    assert_int_equal(ash_fault_remove_break(top, "top"), 0);
    close_disk(disk);
}

struct request {
    struct ash_disk *disk;
    bool write;
    uint64_t offset;
    uint8_t buffer[512];
    bool done;
};

ASH_CO_FN static void request(struct core *core, void *opaque)
{
    struct request *request = opaque;
    (void)core;
    int ret = request->write
                  ? ash_disk_write(request->disk, request->offset, request->buffer, 512, 0)
                  : ash_disk_read(request->disk, request->offset, request->buffer, 512);
    assert_int_equal(ret, 0);
    request->done = true;
}

ASH_CO_FN static void wait_until_suspended(struct ash_node *node, const char *tag)
{
    while (!ash_fault_is_suspended(node, tag)) {
        ash_co_sleep(1000);
    }
}

/* read ── base read ── top write: stops ── guest scribbles ── top write goes on ── done */
CORE_TEST(a_guest_that_scribbles_on_its_buffer_does_no_harm_to_the_image)
{
    (void)opaque;
    struct ash_disk *disk = pair_up(core, COPYING, "", "", WRITING);
    struct ash_node *top = ash_node_find(core->loop, "top-file");
    struct request read = {.disk = disk, .offset = 4096};
    assert_int_equal(ash_fault_break(top, "write_aio", "t"), 0);
    core_spawn(core, request, &read);
    wait_until_suspended(top, "t");
    memset(read.buffer, 0xee, sizeof(read.buffer));
    assert_int_equal(ash_fault_resume(top, "t"), 0);
    core_join(core);
    assert_int_equal(depth_at(disk, 4096), 0);
    expect_bytes(disk, 4096, 0x11);
    close_disk(disk);
}

/* read sector 0 ── the copy stops ── write sector 1: waits ── the copy goes on ── both done */
ASH_CO_FN static void write_beside_a_copy(struct core *core, const char *node, const char *event)
{
    struct ash_disk *disk = pair_up(core, COPYING, "", "", WRITING);
    struct ash_node *fault = ash_node_find(core->loop, node);
    struct request read = {.disk = disk, .offset = 4096};
    struct request write = {.disk = disk, .write = true, .offset = 4096 + 512};
    memset(write.buffer, 0x22, sizeof(write.buffer));
    assert_int_equal(ash_fault_break(fault, event, "t"), 0);
    core_spawn(core, request, &read);
    wait_until_suspended(fault, "t");
    core_spawn(core, request, &write);
    ash_co_sleep(1000000);
    assert_false(write.done);
    assert_int_equal(ash_fault_resume(fault, "t"), 0);
    core_join(core);
    expect_bytes(disk, 4096, 0x11);
    expect_bytes(disk, 4096 + 512, 0x22);
    expect_bytes(disk, 4096 + 1024, 0x11);
    close_disk(disk);
}

/* read: stops ── another read of the same: done ── the first goes on */
CORE_TEST(reads_of_what_the_image_holds_do_not_wait_for_one_another)
{
    (void)opaque;
    struct ash_disk *disk = pair_up(core, COPYING, "", "", WRITING);
    struct ash_node *top = ash_node_find(core->loop, "top-file");
    struct request first = {.disk = disk, .offset = 4096};
    struct request second = {.disk = disk, .offset = 4096};
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(ash_fault_break(top, "read_aio", "t"), 0);
    core_spawn(core, request, &first);
    wait_until_suspended(top, "t");
    core_spawn(core, request, &second);
    ash_co_sleep(1000000);
    assert_true(second.done);
    assert_false(first.done);
    assert_int_equal(ash_fault_resume(top, "t"), 0);
    core_join(core);
    close_disk(disk);
}

CORE_TEST(a_write_to_a_neighbouring_sector_while_the_base_is_read_is_kept)
{
    (void)opaque;
    write_beside_a_copy(core, "base-file", "read_aio");
}

CORE_TEST(a_write_to_a_neighbouring_sector_while_the_copy_is_written_is_kept)
{
    (void)opaque;
    write_beside_a_copy(core, "top-file", "write_aio");
}

CORE_TEST(a_read_does_not_fail_because_the_copy_cannot_be_written)
{
    (void)opaque;
    struct ash_disk *disk = pair_up(
        core, COPYING, ", \"inject-error\": [{\"iotype\": \"write\", \"errno\": 28}]", "", WRITING);
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(depth_at(disk, 4096), 1);
    (void)!ash_co_disk_close(disk, NULL);
}

/* Sector 9 of the raw base cannot be read. */
CORE_TEST(a_read_does_not_fail_for_a_bad_sector_beside_it)
{
    (void)opaque;
    make(core, "top");
    char *text = g_strdup_printf(
        "{\"driver\": \"qcow2\", \"copy-on-read\": true, \"file\": {\"driver\": \"file\", "
        "\"filename\": \"%s\"}, \"backing\": {\"driver\": \"raw\", \"file\": {\"driver\": "
        "\"fault\", \"inject-error\": [{\"iotype\": \"read\", \"sector\": 9}], \"file\": "
        "{\"driver\": \"null-co\", \"size\": %llu, \"read-zeroes\": true}}}}",
        core_file(core, "top", -1), (unsigned long long)IMAGE_BYTES);
    struct ash_disk *disk = core_open_text(core, text, WRITING);
    uint8_t buffer[512];
    expect_bytes(disk, 4096, 0);
    assert_int_equal(ash_disk_read(disk, 9 * 512, buffer, 512), -EIO);
    expect_bytes(disk, 10 * 512, 0);
    close_disk(disk);
    g_free(text);
}

ASH_CO_FN static void no_memory_body(struct core *core, void *opaque)
{
    (void)opaque;
    struct ash_disk *disk = pair_up(core, COPYING, "", "", WRITING);
    assert_int_equal(depth_at(disk, 4096), 1); /* the tables are loaded */
    uint8_t *buffer = NULL;
    assert_int_equal(posix_memalign((void **)&buffer, 4096, 4096), 0);
    alloc_fails_per_mille = 1000;
    int ret = ash_disk_read(disk, 4096, buffer, 4096);
    alloc_fails_per_mille = 0;
    assert_int_equal(ret, 0);
    assert_int_equal(buffer[4095], 0x11);
    assert_int_equal(depth_at(disk, 4096), 1);
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(depth_at(disk, 4096), 0);
    free(buffer);
    close_disk(disk);
}

static void a_read_does_not_fail_for_lack_of_memory(void **state)
{
    struct core core;
    struct ash_sim_config sim_config = {.seed = 1, .latency_ns_max = 2000};
    struct ash_hooks hooks = {.size = sizeof(hooks), .alloc = alloc_hook, .free = free_hook};
    struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
    (void)state;
    loop_config.hooks = &hooks;
    ash_prng_seed(&alloc_prng, 1);
    core_up_with(&core, 1, &sim_config, &loop_config);
    core_run(&core, no_memory_body, NULL);
    core_down(&core);
}

/* A filter between stays in the way of guests' reads: the first one fails. */
CORE_TEST(a_read_passes_the_filters_under_copy_on_read)
{
    (void)opaque;
    close_disk(pair_up(core, "", "", "", 0));
    char *text = g_strdup_printf(
        "{\"driver\": \"copy-on-read\", \"file\": {\"driver\": \"fault\", \"inject-error\": "
        "[{\"iotype\": \"read\", \"once\": true}], \"file\": {\"driver\": \"qcow2\", "
        "\"file\": {\"driver\": \"file\", \"filename\": \"%s\"}, \"backing\": "
        "{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"%s\"}}}}}",
        core_file(core, "top", -1), core_file(core, "base", -1));
    struct ash_disk *disk = core_open_text(core, text, WRITING);
    uint8_t buffer[512];
    assert_int_equal(ash_disk_read(disk, 4096, buffer, 512), -EIO);
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(depth_at(disk, 4096), 0);
    assert_int_equal(depth_at(disk, 8192), 1);
    close_disk(disk);
    g_free(text);
}

/* base: 0x11 all over; mid: 0x33 in the third cluster; a bottom `mid`. */
ASH_CO_FN static struct ash_disk *open_three(struct core *core, const char *bottom, int expected)
{
    struct ash_disk *disk = NULL;
    char *text = g_strdup_printf(
        "{\"driver\": \"copy-on-read\", \"bottom\": \"%s\", \"file\": {\"driver\": \"qcow2\", "
        "\"node-name\": \"image\", \"file\": {\"driver\": \"file\", \"filename\": \"%s\"}, "
        "\"backing\": {\"driver\": \"qcow2\", \"node-name\": \"mid\", \"file\": {\"driver\": "
        "\"file\", "
        "\"filename\": \"%s\"}, \"backing\": {\"driver\": \"qcow2\", \"node-name\": \"base\", "
        "\"file\": {\"driver\": \"file\", \"filename\": \"%s\"}}}}}",
        bottom, core_file(core, "top", -1), core_file(core, "mid", -1),
        core_file(core, "base", -1));
    json_t *description = json_loads(text, 0, NULL);
    assert_int_equal(ash_co_disk_open(core->loop, description, WRITING, &disk, NULL), expected);
    json_decref(description);
    g_free(text);
    return disk;
}

ASH_CO_FN static void make_three(struct core *core)
{
    make(core, "base");
    make(core, "mid");
    make(core, "top");
    fill(core, "base", 0x11, 0, IMAGE_BYTES);
    fill(core, "mid", 0x33, 8192, CLUSTER);
}

CORE_TEST(what_lies_below_the_bottom_is_not_copied)
{
    (void)opaque;
    make_three(core);
    struct ash_disk *disk = open_three(core, "mid", 0);
    expect_bytes(disk, 4096, 0x11);
    expect_bytes(disk, 8192, 0x33);
    assert_int_equal(depth_at(disk, 4096), 2);
    assert_int_equal(depth_at(disk, 8192), 0);
    close_disk(disk);
    disk = open_three(core, "base", 0);
    expect_bytes(disk, 4096, 0x11);
    assert_int_equal(depth_at(disk, 4096), 0);
    close_disk(disk);
}

CORE_TEST(the_chain_down_to_the_bottom_is_kept_while_the_filter_is_there)
{
    (void)opaque;
    make_three(core);
    struct ash_disk *disk = open_three(core, "mid", 0);
    struct ash_node *image = ash_node_find(core->loop, "image");
    assert_int_equal(ash_graft_freeze(image, NULL, NULL), -EBUSY);
    assert_true(image->backing->frozen);
    assert_true(image->backing->child->backing->frozen);
    close_disk(disk);
}

CORE_TEST(a_bottom_that_is_not_in_the_chain_is_refused)
{
    (void)opaque;
    make_three(core);
    assert_null(open_three(core, "elsewhere", -EINVAL));
    close_disk(open_three(core, "image", 0)); /* and nothing has stayed open */
}

/* Guests on a chain of 2 to 6 layers, with a job that streams into it at the same time. */
ASH_CO_FN static void guests_body(struct core *core, void *opaque)
{
    struct chain chain;
    struct guest guests[GUESTS];
    unsigned *copied = opaque;
    job_draw_layers(core, &chain, 2 + (unsigned)(core->seed % (LAYERS_MAX - 1)));
    chain.copy_on_read = true;
    chain_up(core, &chain);
    guests_start(core, &chain, guests, 30);
    bool streams = ash_prng_chance(&core->prng, 400);
    if (streams) {
        ash_co_sleep(ash_prng_below(&core->prng, 60000));
        struct ash_job *job = job_start(core, json_pack("{s:s, s:s}", "type", "stream", "device",
                                                        ash_disk_node(chain.disk)->name));
        assert_int_equal(job_finish(core, job), 0);
    }
    core_join(core);
    chain_verify(core, &chain);
    *copied += depth_at(chain.disk, 0) == 0;
    close_disk(chain.disk);
    chain.copy_on_read = false;
    chain.depth = streams ? 1 : chain.depth;
    chain.disk = chain_open(core, &chain, 0, ASH_NODE_CHECK);
    check_image(core, chain.disk);
    chain_verify(core, &chain);
    chain_down(&chain);
}

static unsigned seeds_that_copied;

ASH_CO_FN static void counted_guests_body(struct core *core, void *opaque)
{
    (void)opaque;
    guests_body(core, &seeds_that_copied);
}

static void copy_on_read_under_guests_keeps_the_contents(void **state)
{
    (void)state;
    job_run_seeds(core_is_real() ? 20 : 150, counted_guests_body);
    assert_true(seeds_that_copied > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_copies_what_the_image_lacks),
        cmocka_unit_test(without_the_option_nothing_is_copied),
        cmocka_unit_test(an_image_that_is_open_read_only_is_read_as_it_is),
        cmocka_unit_test(a_disk_becomes_read_only_and_writable_again),
        cmocka_unit_test(a_guest_that_scribbles_on_its_buffer_does_no_harm_to_the_image),
        cmocka_unit_test(a_second_read_of_the_same_range_leaves_the_base_alone),
        cmocka_unit_test(reads_of_what_the_image_holds_do_not_wait_for_one_another),
        cmocka_unit_test(a_write_to_a_neighbouring_sector_while_the_base_is_read_is_kept),
        cmocka_unit_test(a_write_to_a_neighbouring_sector_while_the_copy_is_written_is_kept),
        cmocka_unit_test(a_read_does_not_fail_because_the_copy_cannot_be_written),
        cmocka_unit_test(a_read_does_not_fail_for_a_bad_sector_beside_it),
        cmocka_unit_test(a_read_does_not_fail_for_lack_of_memory),
        cmocka_unit_test(a_read_passes_the_filters_under_copy_on_read),
        cmocka_unit_test(what_lies_below_the_bottom_is_not_copied),
        cmocka_unit_test(the_chain_down_to_the_bottom_is_kept_while_the_filter_is_there),
        cmocka_unit_test(a_bottom_that_is_not_in_the_chain_is_refused),
        cmocka_unit_test(copy_on_read_under_guests_keeps_the_contents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
