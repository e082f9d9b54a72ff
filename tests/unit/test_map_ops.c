/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The generic data path, one behaviour at a time: block status, pins, guests that scribble on their
 * buffers, the guard on guessed raw images, lengths, FUA. Under the simulator. */
#include "tests/unit/unit.h"
#include "block/map/map.h"
#include "tests/unit/chain_rig.h"

#define UNIT 4096

static struct chain one_layer(void)
{
    return (struct chain){.depth = 1, .unit = {UNIT}, .bytes = {16 * UNIT}};
}

static struct chain two_layers(uint64_t top, uint64_t base)
{
    return (struct chain){.depth = 2, .unit = {UNIT, UNIT}, .bytes = {top, base}};
}

ASH_CO_FN static void put(struct ash_disk *disk, uint64_t offset, uint64_t bytes, int value)
{
    uint8_t *buffer = g_malloc(bytes);
    memset(buffer, value, bytes);
    assert_int_equal(ash_disk_write(disk, offset, buffer, bytes, 0), 0);
    g_free(buffer);
}

ASH_CO_FN static void expect(struct ash_disk *disk, uint64_t offset, uint64_t bytes, int value)
{
    uint8_t *buffer = g_malloc(bytes);
    assert_int_equal(ash_disk_read(disk, offset, buffer, bytes), 0);
    for (uint64_t i = 0; i < bytes; i++) {
        assert_int_equal(buffer[i], value);
    }
    g_free(buffer);
}

/* Makes images of the chain, with `fill` in the whole base if there are two, and opens the top. */
ASH_CO_FN static struct ash_disk *open_images(struct core *core, struct chain *chain, int fill)
{
    for (unsigned layer = 0; layer < chain->depth; layer++) {
        chain_image(core, chain_name(layer), chain->bytes[layer], chain->unit[layer], NULL, NULL);
    }
    if (chain->depth > 1 && fill >= 0) {
        struct ash_disk *base = chain_open(core, chain, 1, ASH_NODE_WRITE);
        put(base, 0, chain->bytes[1], fill);
        assert_int_equal(ash_co_disk_close(base, NULL), 0);
    }
    return chain_open(core, chain, 0, ASH_NODE_WRITE | ASH_NODE_DISCARD);
}

/* Block status. */

ASH_CO_FN static struct ash_status status_at(struct ash_disk *disk, uint64_t offset, uint64_t bytes)
{
    struct ash_status status = {0};
    struct ash_io io = {.op = ASH_STATUS, .offset = offset, .bytes = bytes, .status = &status};
    assert_int_equal(ash_disk_io(disk, &io), 0);
    return status;
}

#define KINDS (ASH_STATUS_DATA | ASH_STATUS_ZERO | ASH_STATUS_ALLOCATED)

CORE_TEST(status_tells_which_layer_decides_and_whether_any_does)
{
    (void)opaque;
    struct chain chain = two_layers(16 * UNIT, 8 * UNIT + 100);
    struct ash_disk *disk = open_images(core, &chain, -1);
    struct ash_node *base = ash_disk_node(disk)->backing->child;
    put(disk, UNIT, UNIT, 1);
    for (int round = 0; round < 2; round++) { /* the second one from memory */
        struct ash_status status = status_at(disk, 0, UNIT);
        assert_int_equal(status.flags & KINDS, ASH_STATUS_ZERO);
        assert_int_equal(status.depth, 1);
        assert_ptr_equal(status.node, base);
        status = status_at(disk, UNIT, UNIT);
        assert_int_equal(status.flags & KINDS, ASH_STATUS_DATA | ASH_STATUS_ALLOCATED);
        assert_int_equal(status.depth, 0);
        /* Beyond the end of the base. */
        status = status_at(disk, 10 * UNIT, 6 * UNIT);
        assert_int_equal(status.flags & KINDS, ASH_STATUS_ZERO);
        assert_int_equal(status.depth, 0);
        assert_ptr_equal(status.node, ash_disk_node(disk));
        assert_true((status.flags & ASH_STATUS_EOF) != 0 || status.bytes < 6 * UNIT);
    }
    assert_int_equal(ash_disk_zero(disk, 0, UNIT, 0), 0);
    assert_int_equal(status_at(disk, 0, UNIT).flags & KINDS,
                     ASH_STATUS_ZERO | ASH_STATUS_ALLOCATED);
    assert_int_equal(status_at(disk, 0, UNIT).depth, 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(status_above_a_base_tells_what_the_base_would_show)
{
    (void)opaque;
    struct chain chain = two_layers(16 * UNIT, 8 * UNIT);
    struct ash_disk *disk = open_images(core, &chain, 3);
    struct ash_node *top = ash_disk_node(disk);
    struct ash_status status;
    assert_int_equal(ash_chain_status(top, top->backing->child, 0, 16 * UNIT, 0, &status), 0);
    assert_int_equal(status.flags & KINDS, 0);
    put(disk, 0, UNIT, 1);
    assert_int_equal(ash_chain_status(top, top->backing->child, 0, UNIT, 0, &status), 0);
    assert_int_equal(status.flags & KINDS, ASH_STATUS_DATA | ASH_STATUS_ALLOCATED);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* Pins. */

struct request {
    struct ash_disk *disk;
    struct ash_io io;
    struct iovec vec;
    uint8_t buffer[4 * UNIT];
    int ret;
    bool done;
};

static void request_run(struct core *core, void *opaque)
{
    struct request *request = opaque;
    (void)core;
    ash_co_assert_inside();
    request->vec = (struct iovec){request->buffer, request->io.bytes};
    request->io.iov = ash_iov_of(&request->vec, 1);
    request->ret = ash_disk_io(request->disk, &request->io);
    request->done = true;
}

static void request_start(struct core *core, struct request *request, struct ash_disk *disk,
                          uint8_t op, uint64_t offset, uint64_t bytes)
{
    request->disk = disk;
    request->io = (struct ash_io){.op = op, .offset = offset, .bytes = bytes};
    request->done = false;
    core_spawn(core, request_run, request);
}

ASH_CO_FN static void wait_held(struct core *core)
{
    while (ash_sim_held(core->world) == 0) {
        ash_co_sleep(1000);
    }
}

/* read of unit 0 is held in the engine -> unit 0 is discarded -> unit 1 is written, needs a place
 * -> released: the read returns what unit 0 held. */
CORE_TEST(a_place_that_is_being_read_is_not_given_to_another)
{
    (void)opaque;
    struct chain chain = one_layer();
    struct ash_disk *disk = open_images(core, &chain, -1);
    struct map_format *map = map_format_of(ash_disk_node(disk));
    struct request *read = g_new0(struct request, 1);
    put(disk, 0, UNIT, 0x11);
    uint64_t slot = map->entries[0].slot;
    ash_sim_hold(core->world, "top", ASH_AIO_READ, (slot + 1) * UNIT, UNIT);
    request_start(core, read, disk, ASH_READ, 0, UNIT);
    wait_held(core);
    assert_int_equal(ash_disk_discard(disk, 0, UNIT), 0);
    assert_false(map->used[slot]);
    put(disk, UNIT, UNIT, 0x22);
    assert_true(map->entries[1].slot != slot);
    assert_false(read->done);
    ash_sim_release_all(core->world);
    core_join(core);
    assert_int_equal(read->ret, 0);
    assert_int_equal(read->buffer[0], 0x11);
    assert_int_equal(read->buffer[UNIT - 1], 0x11);
    put(disk, 2 * UNIT, UNIT, 0x33);
    assert_int_equal(map->entries[2].slot, slot); /* now it is free */
    expect(disk, 0, UNIT, 0);
    expect(disk, UNIT, UNIT, 0x22);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    g_free(read);
}

/* write in place to unit 0 is held -> unit 0 is discarded -> unit 1 is written -> released: the
 * late write does not land in unit 1. */
CORE_TEST(a_place_that_is_being_written_is_not_given_to_another)
{
    (void)opaque;
    struct chain chain = one_layer();
    struct ash_disk *disk = open_images(core, &chain, -1);
    struct map_format *map = map_format_of(ash_disk_node(disk));
    struct request *write = g_new0(struct request, 1);
    put(disk, 0, UNIT, 0x11);
    uint64_t slot = map->entries[0].slot;
    memset(write->buffer, 0x44, UNIT);
    ash_sim_hold(core->world, "top", ASH_AIO_WRITE, (slot + 1) * UNIT, UNIT);
    request_start(core, write, disk, ASH_WRITE, 0, UNIT);
    wait_held(core);
    assert_int_equal(ash_disk_zero(disk, 0, UNIT, ASH_REQ_UNMAP), 0);
    put(disk, UNIT, UNIT, 0x22);
    assert_true(map->entries[1].slot != slot);
    ash_sim_release_all(core->world);
    core_join(core);
    expect(disk, UNIT, UNIT, 0x22);
    expect(disk, 0, UNIT, 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    g_free(write);
}

/* The only place there is is freed and pinned: the next write waits for the read, and no longer. */
CORE_TEST(who_needs_a_pinned_place_is_told_when_the_pin_is_dropped)
{
    (void)opaque;
    struct chain chain = one_layer();
    chain.slots_max = 1;
    struct ash_disk *disk = open_images(core, &chain, -1);
    struct map_format *map = map_format_of(ash_disk_node(disk));
    struct request *read = g_new0(struct request, 1);
    struct request *write = g_new0(struct request, 1);
    put(disk, 0, UNIT, 0x11);
    ash_sim_hold(core->world, "top", ASH_AIO_READ, UNIT, UNIT);
    request_start(core, read, disk, ASH_READ, 0, UNIT);
    wait_held(core);
    assert_int_equal(ash_disk_discard(disk, 0, UNIT), 0);
    request_start(core, write, disk, ASH_WRITE, 5 * UNIT, UNIT);
    ash_co_sleep(1000000);
    assert_false(write->done);
    assert_int_equal(map->waited, 1);
    ash_sim_release_all(core->world);
    core_join(core);
    assert_int_equal(read->ret, 0);
    assert_int_equal(read->buffer[7], 0x11);
    assert_int_equal(write->ret, 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    g_free(read);
    g_free(write);
}

/* Writers of one unit that needs a place: one at a time, and both parts are there afterwards. */
CORE_TEST(a_write_to_another_part_of_a_unit_waits_for_its_place)
{
    (void)opaque;
    struct chain chain = two_layers(16 * UNIT, 16 * UNIT);
    struct ash_disk *disk = open_images(core, &chain, 0x77);
    struct request *first = g_new0(struct request, 1);
    struct request *second = g_new0(struct request, 1);
    memset(first->buffer, 1, 100);
    memset(second->buffer, 2, 100);
    ash_sim_hold(core->world, "top", ASH_AIO_WRITE, UNIT, UNIT);
    request_start(core, first, disk, ASH_WRITE, 50, 100);
    wait_held(core);
    request_start(core, second, disk, ASH_WRITE, 1000, 100);
    ash_co_sleep(1000000);
    assert_false(second->done);
    expect(disk, 0, UNIT, 0x77); /* nothing is linked yet */
    ash_sim_release_all(core->world);
    core_join(core);
    expect(disk, 0, 50, 0x77);
    expect(disk, 50, 100, 1);
    expect(disk, 150, 850, 0x77);
    expect(disk, 1000, 100, 2);
    expect(disk, 1100, UNIT - 1100, 0x77);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    g_free(first);
    g_free(second);
}

CORE_TEST(a_failed_commit_leaves_what_was_there)
{
    (void)opaque;
    struct chain chain = two_layers(16 * UNIT, 16 * UNIT);
    struct ash_disk *disk = open_images(core, &chain, 0x77);
    struct ash_node *node = ash_disk_node(disk);
    map_format_of(node)->commit_fails_per_mille = 1000;
    assert_int_equal(ash_disk_write(disk, 100, "x", 1, 0), -EIO);
    expect(disk, 0, 16 * UNIT, 0x77);
    assert_true(ash_list_empty(&node->map->locks.held));
    assert_true(ash_list_empty(&node->map->pins));
    assert_false(map_format_of(node)->used[0]);
    map_format_of(node)->commit_fails_per_mille = 0;
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* Guests that change their buffers while they are written. */

struct scribbler {
    uint8_t *buffer;
    uint64_t bytes;
    const uint8_t *other; /* what is put there in turn; NULL: random bytes */
    bool stop;
};

static void scribble(struct core *core, void *opaque)
{
    struct scribbler *scribbler = opaque;
    uint8_t *own = g_memdup2(scribbler->buffer, scribbler->bytes);
    ash_co_assert_inside();
    for (bool turn = true; !scribbler->stop; turn = !turn) {
        if (scribbler->other == NULL) {
            ash_prng_fill(&core->prng, scribbler->buffer, ash_prng_below(&core->prng, UNIT));
        } else {
            memcpy(scribbler->buffer, turn ? scribbler->other : own, scribbler->bytes);
        }
        ash_co_sleep(ash_prng_below(&core->prng, 300));
    }
    g_free(own);
}

CORE_TEST(a_buffer_that_changes_while_it_is_compressed_gives_a_unit_that_can_be_read)
{
    (void)opaque;
    struct chain chain = one_layer();
    struct ash_disk *disk = open_images(core, &chain, -1);
    uint8_t *buffer = g_malloc0(4 * UNIT);
    struct scribbler scribbler = {.buffer = buffer, .bytes = 4 * UNIT};
    core_spawn(core, scribble, &scribbler);
    for (int i = 0; i < 100; i++) {
        struct iovec vec = {buffer, 4 * UNIT};
        struct ash_io io = {.op = ASH_WRITE,
                            .flags = ASH_IO_COMPRESS,
                            .bytes = vec.iov_len,
                            .iov = ash_iov_of(&vec, 1)};
        uint8_t back[4 * UNIT];
        assert_int_equal(ash_disk_io(disk, &io), 0);
        assert_int_equal(ash_disk_read(disk, 0, back, sizeof(back)), 0);
        memset(buffer, 0, 4 * UNIT);
    }
    scribbler.stop = true;
    core_join(core);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    g_free(buffer);
}

/* Two clusters of 2 MiB in memory that O_DIRECT does not take: they are not cut where the request
 * path would cut what it has to copy. */
CORE_TEST(a_unit_larger_than_a_bounce_buffer_is_coded_whole)
{
    (void)opaque;
    struct ash_disk *disk;
    struct chain chain = {.depth = 1, .qcow2 = true, .unit = {2 * MiB}, .bytes = {8 * MiB}};
    chain_create(core, &chain, 0);
    json_t *description = chain_describe(core, &chain, 0);
    uint32_t flags = ASH_NODE_WRITE | ASH_NODE_DIRECT;
    assert_int_equal(ash_co_disk_open(core->loop, description, flags, &disk, NULL), 0);
    json_decref(description);
    assert_true(ash_disk_node(disk)->file->child->limits.memory_alignment > 1);
    uint8_t *memory = g_malloc0(4 * MiB + 1);
    memset(memory + 1, 0x5c, 4 * MiB);
    struct iovec vec = {memory + 1, 4 * MiB};
    struct ash_io io = {.op = ASH_WRITE, .flags = ASH_IO_COMPRESS, .iov = ash_iov_of(&vec, 1)};
    io.bytes = vec.iov_len;
    assert_int_equal(ash_disk_io(disk, &io), 0);
    assert_true((status_at(disk, 2 * MiB, MiB).flags & ASH_STATUS_COMPRESSED) != 0);
    expect(disk, MiB - 1, 2 * MiB + 1, 0x5c);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    g_free(memory);
}

ASH_CO_FN static struct ash_disk *open_guessed(struct core *core)
{
    struct ash_disk *disk;
    json_t *description = json_pack("{s:{s:s, s:s}}", "file", "driver", "file", "filename",
                                    core_file(core, "guessed", 65536));
    assert_int_equal(
        ash_co_disk_open(core->loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, NULL),
        0);
    json_decref(description);
    assert_string_equal(ash_disk_node(disk)->driver->name, "raw");
    return disk;
}

static void assert_still_raw(struct core *core)
{
    uint8_t head[512];
    assert_int_equal(ash_sim_file_read(core->world, "guessed", 0, head, sizeof(head)), 0);
    assert_string_equal(ash_driver_probe(head, sizeof(head))->name, "raw");
}

CORE_TEST(a_guessed_raw_image_refuses_another_formats_header)
{
    (void)opaque;
    struct ash_disk *disk = open_guessed(core);
    struct map_header header;
    uint8_t buffer[1024] = {0};
    map_header_init(&header, 65536, UNIT, NULL, NULL);
    memcpy(buffer, &header, 512);
    assert_int_equal(ash_disk_write(disk, 0, buffer, sizeof(buffer), 0), -EPERM);
    assert_int_equal(ash_disk_write(disk, 4, buffer, 512, 0), 0);
    assert_int_equal(ash_disk_write(disk, 512, buffer, 512, 0), 0);
    expect(disk, 0, 4, 0);
    assert_still_raw(core);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* A header whose unit is too large is none; zeroes in its upper half would make it one. */
CORE_TEST(zeroes_cannot_complete_a_header_either)
{
    (void)opaque;
    struct ash_disk *disk = open_guessed(core);
    struct map_header header;
    map_header_init(&header, 65536, UNIT | UINT64_C(1) << 40, NULL, NULL);
    assert_int_equal(ash_disk_write(disk, 0, &header, 512, 0), 0);
    uint64_t upper = offsetof(struct map_header, unit) + 4;
    assert_int_equal(ash_disk_zero(disk, upper, 4, 0), -EPERM);
    assert_int_equal(ash_disk_zero(disk, upper, 4, ASH_REQ_UNMAP), -EPERM);
    assert_int_equal(ash_disk_discard(disk, upper, 4), 0);
    assert_still_raw(core);
    assert_int_equal(ash_disk_zero(disk, 0, 4096, 0), 0);
    expect(disk, 0, 4096, 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* Each half is harmless, and they come at once. */
CORE_TEST(two_halves_of_a_header_written_at_once_do_not_both_get_there)
{
    (void)opaque;
    struct ash_disk *disk = open_guessed(core);
    struct map_header header;
    map_header_init(&header, 65536, UNIT, NULL, NULL);
    for (int i = 0; i < 50; i++) {
        struct request *halves = g_new0(struct request, 2);
        assert_int_equal(ash_disk_zero(disk, 0, 512, 0), 0);
        memcpy(halves[0].buffer, &header, 4);
        memcpy(halves[1].buffer, (uint8_t *)&header + 4, 508);
        request_start(core, &halves[0], disk, ASH_WRITE, 0, 4);
        request_start(core, &halves[1], disk, ASH_WRITE, 4, 508);
        core_join(core);
        assert_still_raw(core);
        assert_true((halves[0].ret == -EPERM) != (halves[1].ret == -EPERM));
        g_free(halves);
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(a_buffer_that_changes_does_not_pass_the_guard)
{
    (void)opaque;
    struct ash_disk *disk = open_guessed(core);
    struct map_header header;
    uint8_t buffer[512] = {0};
    map_header_init(&header, 65536, UNIT, NULL, NULL);
    struct scribbler scribbler = {
        .buffer = buffer, .bytes = 512, .other = (const uint8_t *)&header};
    core_spawn(core, scribble, &scribbler);
    for (int i = 0; i < 200; i++) {
        int ret = ash_disk_write(disk, 0, buffer, sizeof(buffer), 0);
        assert_true(ret == 0 || ret == -EPERM);
        assert_still_raw(core);
    }
    scribbler.stop = true;
    core_join(core);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* Lengths. */

CORE_TEST(what_a_longer_backing_file_holds_does_not_show_when_the_disk_grows)
{
    (void)opaque;
    struct chain chain = two_layers(5 * UNIT + 100, 16 * UNIT);
    struct ash_disk *disk = open_images(core, &chain, 0x77);
    expect(disk, 0, 5 * UNIT + 100, 0x77);
    assert_int_equal(ash_co_disk_resize(disk, 20 * UNIT, 0, 0, NULL), 0);
    expect(disk, 0, 5 * UNIT + 100, 0x77);
    expect(disk, 5 * UNIT + 100, 15 * UNIT - 100, 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

struct growing {
    struct ash_disk *disk;
    bool done;
};

static void grow(struct core *core, void *opaque)
{
    struct growing *growing = opaque;
    (void)core;
    ash_co_assert_inside();
    assert_int_equal(ash_co_disk_resize(growing->disk, 16 * UNIT, 0, 0, NULL), 0);
    growing->done = true;
}

/* b1 on b2 is made longer; its new units become zeroes one after another, slowly -> meanwhile top,
 * on b1, is read there again and again: never what b2 holds. */
CORE_TEST(who_reads_from_above_a_node_that_grows_does_not_see_what_lies_below_it)
{
    (void)opaque;
    struct chain chain = {
        .depth = 3, .unit = {UNIT, UNIT, UNIT}, .bytes = {16 * UNIT, 4 * UNIT, 16 * UNIT}};
    for (unsigned layer = 0; layer < chain.depth; layer++) {
        chain_create(core, &chain, layer);
    }
    struct ash_disk *base = chain_open(core, &chain, 2, ASH_NODE_WRITE);
    put(base, 0, 16 * UNIT, 0x77);
    assert_int_equal(ash_co_disk_close(base, NULL), 0);
    chain.delay_ns = 50000;
    json_t *description = chain_describe(core, &chain, 1);
    json_object_set_new(description, "node-name", json_string("middle"));
    struct growing growing = {.disk = core_open_disk(core, description, ASH_NODE_WRITE)};
    description =
        json_pack("{s:s, s:{s:s, s:s}, s:s, s:b}", "driver", "test-map", "file", "driver", "file",
                  "filename", core_file(core, "top", -1), "backing", "middle", "force-share", true);
    struct ash_disk *above = core_open_disk(core, description, 0);
    core_spawn(core, grow, &growing);
    /* Not before: a walk remembers that it found nothing there. */
    while (ash_disk_node(growing.disk)->size_bytes < 16 * UNIT) {
        ash_co_sleep(1000);
    }
    unsigned reads = 0;
    for (; !growing.done; reads++) {
        expect(above, 15 * UNIT, UNIT, 0);
        ash_co_sleep(1000);
    }
    core_join(core);
    assert_true(reads > 0);
    expect(above, 0, 4 * UNIT, 0x77);
    expect(above, 4 * UNIT, 12 * UNIT, 0);
    assert_int_equal(ash_co_disk_close(above, NULL), 0);
    assert_int_equal(ash_co_disk_close(growing.disk, NULL), 0);
}

CORE_TEST(what_was_cut_off_does_not_come_back_when_the_disk_grows)
{
    (void)opaque;
    struct chain chain = one_layer();
    struct ash_disk *disk = open_images(core, &chain, -1);
    put(disk, 0, 16 * UNIT, 5);
    assert_int_equal(ash_co_disk_resize(disk, 3 * UNIT + 7, ASH_RESIZE_SHRINK, 0, NULL), 0);
    assert_int_equal(ash_co_disk_resize(disk, 16 * UNIT, 0, 0, NULL), 0);
    expect(disk, 0, 3 * UNIT + 7, 5);
    expect(disk, 3 * UNIT + 7, 13 * UNIT - 7, 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(a_disk_that_cannot_hide_its_backing_file_does_not_grow)
{
    (void)opaque;
    struct chain chain = two_layers(5 * UNIT, 16 * UNIT);
    struct ash_disk *disk = open_images(core, &chain, 0x77);
    struct map_format *map = map_format_of(ash_disk_node(disk));
    map->no_zero = true;
    map->commit_fails_per_mille = 1000;
    assert_int_equal(ash_co_disk_resize(disk, 8 * UNIT, 0, 0, NULL), -EIO);
    assert_int_equal(ash_disk_bytes(disk), 5 * UNIT);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* What is asked of a range that the walk remembers from before. */
CORE_TEST(a_read_across_the_end_of_a_shorter_backing_file_finds_zeroes)
{
    (void)opaque;
    struct chain chain = two_layers(16 * UNIT, 3 * UNIT + 50);
    struct ash_disk *disk = open_images(core, &chain, 0x77);
    for (int round = 0; round < 2; round++) {
        expect(disk, 0, 3 * UNIT + 50, 0x77);
        expect(disk, 3 * UNIT + 50, 13 * UNIT - 50, 0);
    }
    put(disk, 3 * UNIT + 20, 10, 9); /* fills its unit from both sides of the end */
    expect(disk, 3 * UNIT, 20, 0x77);
    expect(disk, 3 * UNIT + 20, 10, 9);
    expect(disk, 3 * UNIT + 30, 20, 0x77);
    expect(disk, 3 * UNIT + 50, UNIT, 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* FUA, zeroes. */

struct counts {
    unsigned flushes;
    unsigned stable_writes;
};

static void count(void *opaque, const struct ash_sim_event *event)
{
    struct counts *counts = opaque;
    if (event->phase == ASH_SIM_SUBMITTED) {
        counts->flushes += event->aio->op == ASH_AIO_FLUSH;
        counts->stable_writes +=
            event->aio->op == ASH_AIO_WRITE && (event->aio->flags & ASH_AIO_DSYNC) != 0;
    }
}

CORE_TEST(fua_is_passed_down_only_where_the_link_is_stable)
{
    (void)opaque;
    struct chain chain = one_layer();
    struct ash_disk *disk = open_images(core, &chain, -1);
    struct counts counts = {0};
    ash_sim_observe(core->world, count, &counts);
    assert_int_equal(ash_disk_write(disk, 0, "new", 3, ASH_REQ_FUA), 0);
    assert_true(counts.flushes > 0);
    assert_int_equal(counts.stable_writes, 0);
    counts = (struct counts){0};
    assert_int_equal(ash_disk_write(disk, 0, "old", 3, ASH_REQ_FUA), 0);
    assert_int_equal(counts.flushes, 0);
    assert_int_equal(counts.stable_writes, 1);
    put(disk, UNIT, UNIT, 1);
    counts = (struct counts){0};
    assert_int_equal(ash_disk_write(disk, UNIT, "not yet", 7, ASH_REQ_FUA), 0);
    assert_true(counts.flushes > 0);
    ash_sim_observe(core->world, NULL, NULL);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(zeroes_without_fallback_write_no_data)
{
    (void)opaque;
    struct chain chain = one_layer();
    struct ash_disk *disk = open_images(core, &chain, -1);
    put(disk, 0, 4 * UNIT, 6);
    assert_int_equal(ash_disk_zero(disk, UNIT + 1, UNIT, ASH_REQ_NO_FALLBACK), -ENOTSUP);
    assert_int_equal(ash_disk_zero(disk, UNIT, UNIT, ASH_REQ_NO_FALLBACK), 0);
    assert_int_equal(ash_disk_zero(disk, UNIT + 1, UNIT - 1, ASH_REQ_NO_FALLBACK), 0);
    map_format_of(ash_disk_node(disk))->no_zero = true;
    assert_int_equal(ash_disk_zero(disk, 2 * UNIT, UNIT, ASH_REQ_NO_FALLBACK), -ENOTSUP);
    expect(disk, 2 * UNIT, UNIT, 6);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* Nodes that are not mapped end a walk, and their whole request path is entered. */
CORE_TEST(a_filter_in_the_chain_is_not_passed_by)
{
    (void)opaque;
    struct ash_disk *disk;
    chain_image(core, "top", 16 * UNIT, UNIT, NULL, NULL);
    json_t *description =
        json_pack("{s:s, s:{s:s, s:s}, s:{s:s, s:{s:s, s:i, s:i}}}", "driver", "test-map", "file",
                  "driver", "file", "filename", "top", "backing", "driver", "test-filter", "file",
                  "driver", "test-mem", "size", 16 * UNIT, "request-alignment", 512);
    assert_int_equal(ash_co_disk_open(core->loop, description, ASH_NODE_WRITE, &disk, NULL), 0);
    json_decref(description);
    struct ash_node *filter = ash_disk_node(disk)->backing->child;
    struct mem_protocol *mem = mem_protocol_of(filter->file->child);
    memset(mem->data, 0x3c, 16 * UNIT);
    for (unsigned round = 1; round < 4; round++) {
        expect(disk, 100, 1000, 0x3c);
        assert_int_equal(mem->count[ASH_READ], round);
    }
    assert_int_equal(mem->violations, 0);
    mem->fail = -EROFS;
    uint8_t byte;
    assert_int_equal(ash_disk_read(disk, 5 * UNIT, &byte, 1), -EROFS);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

CORE_TEST(what_walks_found_beyond_a_new_end_is_forgotten)
{
    (void)opaque;
    struct chain chain = two_layers(16 * UNIT, 4 * UNIT);
    struct ash_disk *disk = open_images(core, &chain, 3);
    put(disk, 8 * UNIT, 8 * UNIT, 5);
    expect(disk, 8 * UNIT, 8 * UNIT, 5);
    uint32_t flags = ASH_RESIZE_SHRINK;
    assert_int_equal(ash_co_disk_resize(disk, 8 * UNIT, flags, ASH_PREALLOC_OFF, NULL), 0);
    assert_int_equal(ash_co_disk_resize(disk, 16 * UNIT, 0, ASH_PREALLOC_OFF, NULL), 0);
    expect(disk, 8 * UNIT, 8 * UNIT, 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
}

/* The memory of what walks found must not outlive the edge that they went down. */
CORE_TEST(a_backing_file_that_is_replaced_is_read_from_then_on)
{
    (void)opaque;
    struct chain chain = two_layers(16 * UNIT, 16 * UNIT);
    struct ash_disk *disk = open_images(core, &chain, 3);
    expect(disk, 0, 16 * UNIT, 3);
    expect(disk, 0, 16 * UNIT, 3); /* from memory */
    struct ash_node *other;
    json_t *description = json_pack("{s:s, s:i}", "driver", "test-mem", "size", 16 * UNIT);
    assert_int_equal(ash_node_open(core->loop, description, 0, &other, NULL), 0);
    json_decref(description);
    memset(mem_protocol_of(other)->data, 4, 16 * UNIT);
    assert_int_equal(ash_disk_pause(disk, UINT64_MAX), 0);
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_replace(plan, ash_disk_node(disk)->backing, other);
    assert_int_equal(ash_plan_run(plan, NULL), 0);
    ash_plan_free(plan);
    ash_disk_resume(disk);
    expect(disk, 0, 16 * UNIT, 4);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    assert_int_equal(ash_node_unref(other), 0);
}

/* A chain begins below a filter as well, whether the filter is the top or stands in a chain. */
CORE_TEST(what_stands_below_a_filter_has_its_own_chain)
{
    (void)opaque;
    static const char *const descriptions[] = {
        "{'driver':'test-filter','file':{'driver':'test-map','file':{'driver':'file',"
        "'filename':'low'}}}",
        "{'driver':'test-map','file':{'driver':'file','filename':'top'},'backing':"
        "{'driver':'test-filter','file':{'driver':'test-map','file':{'driver':'file',"
        "'filename':'low'}}}}",
    };
    struct ash_disk *disk;
    chain_image(core, "base", 16 * UNIT, UNIT, NULL, NULL);
    chain_image(core, "low", 16 * UNIT, UNIT, "base", "test-map");
    chain_image(core, "top", 16 * UNIT, UNIT, NULL, NULL);
    json_t *base = json_pack("{s:s, s:{s:s, s:s}}", "driver", "test-map", "file", "driver", "file",
                             "filename", "base");
    assert_int_equal(ash_co_disk_open(core->loop, base, ASH_NODE_WRITE, &disk, NULL), 0);
    json_decref(base);
    put(disk, 0, 4 * UNIT, 5);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    for (size_t i = 0; i < ASH_ARRAY_SIZE(descriptions); i++) {
        char *text = g_strdup(descriptions[i]);
        json_t *description = json_loads(g_strdelimit(text, "'", '"'), 0, NULL);
        assert_non_null(description);
        assert_int_equal(ash_co_disk_open(core->loop, description, 0, &disk, NULL), 0);
        expect(disk, 0, 4 * UNIT, 5);
        assert_int_equal(ash_co_disk_close(disk, NULL), 0);
        json_decref(description);
        g_free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_tells_which_layer_decides_and_whether_any_does),
        cmocka_unit_test(status_above_a_base_tells_what_the_base_would_show),
        cmocka_unit_test(a_place_that_is_being_read_is_not_given_to_another),
        cmocka_unit_test(a_place_that_is_being_written_is_not_given_to_another),
        cmocka_unit_test(who_needs_a_pinned_place_is_told_when_the_pin_is_dropped),
        cmocka_unit_test(a_write_to_another_part_of_a_unit_waits_for_its_place),
        cmocka_unit_test(a_failed_commit_leaves_what_was_there),
        cmocka_unit_test(
            a_buffer_that_changes_while_it_is_compressed_gives_a_unit_that_can_be_read),
        cmocka_unit_test(a_unit_larger_than_a_bounce_buffer_is_coded_whole),
        cmocka_unit_test(a_guessed_raw_image_refuses_another_formats_header),
        cmocka_unit_test(zeroes_cannot_complete_a_header_either),
        cmocka_unit_test(two_halves_of_a_header_written_at_once_do_not_both_get_there),
        cmocka_unit_test(a_buffer_that_changes_does_not_pass_the_guard),
        cmocka_unit_test(what_a_longer_backing_file_holds_does_not_show_when_the_disk_grows),
        cmocka_unit_test(who_reads_from_above_a_node_that_grows_does_not_see_what_lies_below_it),
        cmocka_unit_test(what_was_cut_off_does_not_come_back_when_the_disk_grows),
        cmocka_unit_test(a_disk_that_cannot_hide_its_backing_file_does_not_grow),
        cmocka_unit_test(a_read_across_the_end_of_a_shorter_backing_file_finds_zeroes),
        cmocka_unit_test(fua_is_passed_down_only_where_the_link_is_stable),
        cmocka_unit_test(zeroes_without_fallback_write_no_data),
        cmocka_unit_test(what_walks_found_beyond_a_new_end_is_forgotten),
        cmocka_unit_test(a_backing_file_that_is_replaced_is_read_from_then_on),
        cmocka_unit_test(a_filter_in_the_chain_is_not_passed_by),
        cmocka_unit_test(what_stands_below_a_filter_has_its_own_chain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
