/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2_tables: a valid image in which a few things are changed, and a guest that uses it.
 *
 * An input is 4 bytes (which image, how, how many changes, how many requests), then 4 bytes for
 * each change (mutate.h) and 4 for each request. Nothing in a qcow2 file is checksummed, so each
 * change reaches the code that believes it.
 *
 *  1. No guest data is written upon metadata, and no metadata is punched or cut off, as the file's
 *     own tables name it at that moment.
 *  2. Once the driver knows that the image is corrupt it writes no table any more, and the header
 *     says so.
 *  3. What no request touched and nothing else refers to (layout_is_sound()) reads as before.
 *  4. If all is sound, what was written is read back.
 *  5. What cannot be opened for reading cannot be opened for writing.
 *  6. A repair that says that all is well leaves nothing for the next check to find, and what was
 *     sound as it was. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include "block/image/image.h"
#include "block/qcow2/qcow2.h"
#include "tests/fuzz/layout.h"
#include "tests/fuzz/made.h"
#include "tests/fuzz/mutate.h"
#include "util/range.h"

enum { MUTATIONS_MAX = 8, REQUESTS_MAX = 24, WATCHED_MAX = 256, REQUEST_BYTES_MAX = 128 * 1024 };

#define MODE_SMALL_CACHE 1u
#define MODE_PARALLEL 2u /* all requests at once */
#define MODE_NO_DISCARD 4u
#define MODE_REPAIR 8u
#define MODE_REPAIR_FIRST 16u

#define STAMP "\xa5GUEST\x5a"
#define STAMP_BYTES 8
#define UNKNOWN 0x100

struct request {
    uint8_t op;
    uint8_t where;
    uint8_t length;
    uint8_t flags;
};

struct run {
    struct fuzz_machine machine;
    struct ash_disk *disk;
    struct ash_node *node; /* NULL: none is open */
    uint8_t mode;
    unsigned request_count;
    struct request requests[REQUESTS_MAX];

    /* The first guest clusters. */
    uint64_t unit;
    unsigned watched;
    bool all_sound;
    bool sound[WATCHED_MAX];
    bool touched[WATCHED_MAX];
    uint16_t expected[WATCHED_MAX]; /* the value that fills it, or UNKNOWN */
    int before[WATCHED_MAX];        /* what reading it gave */
    uint8_t *contents;              /* and what it read */
    bool opened_before;
};

/* --- what the disk is asked for --- */

static bool is_stamped(const struct ash_aio *aio)
{
    uint8_t buffer[4096];
    uint64_t bytes = ASH_MIN(aio->bytes, sizeof(buffer));
    ash_iov_to_buffer(aio->iov, buffer, bytes);
    return memmem(buffer, bytes, STAMP, STAMP_BYTES - 1) != NULL;
}

static bool is_corrupt(const struct run *run)
{
    return run->node != NULL && qcow2_state(run->node)->corrupt;
}

static void watch_write(const struct run *run, const struct ash_sim_event *event)
{
    const struct ash_aio *aio = event->aio;
    bool guests = is_stamped(aio);
    if (!guests && !(is_corrupt(run) && event->phase == ASH_SIM_SUBMITTED)) {
        return;
    }
    struct layout layout;
    if (!layout_read(&layout, run->machine.world, "image")) {
        return;
    }
    bool metadata = layout_is_metadata(&layout, aio->offset, aio->bytes);
    if (guests && metadata) {
        fuzz_fail("guest data is written upon metadata, %" PRIu64 " bytes at 0x%" PRIx64,
                  aio->bytes, aio->offset);
    }
    if (!guests && metadata && aio->offset >= 512) {
        fuzz_fail("a table is written though the image is corrupt, %" PRIu64 " bytes at 0x%" PRIx64,
                  aio->bytes, aio->offset);
    }
    layout_free(&layout);
}

static void watch_other(const struct run *run, const struct ash_aio *aio)
{
    struct layout layout;
    if (!layout_read(&layout, run->machine.world, "image")) {
        return;
    }
    bool cut = aio->op == ASH_AIO_TRUNCATE && aio->bytes < layout.size &&
               layout_is_metadata(&layout, aio->bytes, layout.size - aio->bytes);
    bool punched = aio->op == ASH_AIO_ALLOCATE &&
                   (aio->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0 &&
                   layout_is_metadata(&layout, aio->offset, aio->bytes);
    if (cut || punched) {
        fuzz_fail("metadata is %s, %" PRIu64 " bytes at 0x%" PRIx64, cut ? "cut off" : "punched",
                  aio->bytes, aio->offset);
    }
    layout_free(&layout);
}

static void watch(void *opaque, const struct ash_sim_event *event)
{
    struct run *run = opaque;
    if (event->phase != ASH_SIM_SUBMITTED) {
        return;
    }
    int op = event->aio->op;
    bool changes = op == ASH_AIO_WRITE || op == ASH_AIO_ALLOCATE || op == ASH_AIO_TRUNCATE;
    if (changes && (event->path == NULL || strcmp(event->path, "image") != 0)) {
        fuzz_fail("'%s' is changed", event->path);
    }
    if (op == ASH_AIO_WRITE) {
        watch_write(run, event);
    } else if (changes) {
        watch_other(run, event->aio);
    }
}

/* --- requests --- */

static void touch(struct run *run, uint64_t offset, uint64_t bytes, uint16_t value)
{
    for (uint64_t i = 0; i < run->watched; i++) {
        uint64_t begin = i * run->unit;
        if (ash_range_overlap(begin, run->unit, offset, bytes)) {
            bool whole = offset <= begin && offset + bytes >= begin + run->unit;
            run->touched[i] = true;
            run->expected[i] = whole ? value : UNKNOWN;
        }
    }
}

static void stamp(uint8_t *buffer, uint64_t bytes, uint8_t value)
{
    for (uint64_t i = 0; i < bytes; i++) {
        buffer[i] = i % STAMP_BYTES < STAMP_BYTES - 1 ? (uint8_t)STAMP[i % STAMP_BYTES] : value;
    }
}

ASH_CO_FN static void write_guest(struct run *run, uint64_t offset, uint64_t bytes, uint32_t flags,
                                  uint8_t value)
{
    uint8_t *buffer = g_malloc(bytes);
    stamp(buffer, bytes, value);
    struct iovec vec = {buffer, bytes};
    struct ash_io io = {.op = ASH_WRITE,
                        .flags = flags,
                        .offset = offset,
                        .bytes = bytes,
                        .iov = ash_iov_of(&vec, 1)};
    bool aligned = offset % STAMP_BYTES == 0;
    int ret = ash_disk_io(run->disk, &io);
    if (ret == 0 && aligned && value != 0) {
        touch(run, offset, bytes, value);
    }
    g_free(buffer);
}

ASH_CO_FN static void resize(struct run *run, const struct request *request)
{
    uint64_t bytes = ash_disk_bytes(run->disk);
    uint64_t by = request->length * run->unit + (request->flags & 4 ? 0 : request->where);
    uint64_t to = request->flags & 1 ? bytes - ASH_MIN(bytes, by) : bytes + by;
    uint64_t from = ash_align_down(ASH_MIN(bytes, to), run->unit);
    struct ash_error error = ASH_ERROR_INIT;
    touch(run, from, INT64_MAX - from, UNKNOWN);
    int prealloc = request->flags & 2 ? ASH_PREALLOC_METADATA : ASH_PREALLOC_OFF;
    if (to > INT64_MAX - MiB) {
        return;
    }
    int ret = ash_co_disk_resize(run->disk, to, ASH_RESIZE_SHRINK, prealloc, &error);
    if (ret < 0 && error.message[0] == '\0') {
        fuzz_fail("resizing to %" PRIu64 " fails with %d and nothing is said", to, ret);
    }
}

ASH_CO_FN static void make_request(struct run *run, const struct request *request)
{
    uint64_t end = ash_disk_bytes(run->disk);
    uint64_t offset = request->where * run->unit;
    uint64_t bytes = (request->length % 6 + 1) * run->unit;
    if (request->length & 0x80) {
        offset += 512 * (request->length >> 4 & 7) % run->unit;
        bytes = (request->length & 7) * 512 + 8;
    }
    offset = ASH_MIN(offset, end);
    bytes = ASH_MIN(ASH_MIN(bytes, end - offset), (uint64_t)REQUEST_BYTES_MAX);
    uint32_t flags = request->flags & (ASH_REQ_FUA | ASH_REQ_UNMAP);
    uint8_t op = request->op & 7;
    if (bytes == 0 && op < 6) {
        return;
    }
    if (op >= 1 && op <= 5) {
        touch(run, offset, bytes, UNKNOWN);
    }
    if (op == 0) {
        uint8_t *buffer = g_malloc(bytes);
        ash_disk_read(run->disk, offset, buffer, bytes);
        g_free(buffer);
    } else if (op <= 2) {
        write_guest(run, offset, bytes, flags & ASH_REQ_FUA, request->flags >> 2);
    } else if (op == 3) {
        write_guest(run, offset, bytes, ASH_IO_COMPRESS, request->flags >> 2);
    } else if (op == 4) {
        if (ash_disk_zero(run->disk, offset, bytes, flags) == 0) {
            touch(run, offset, bytes, 0);
        }
    } else if (op == 5) {
        ash_disk_discard(run->disk, offset, bytes);
    } else if (op == 6) {
        ash_disk_flush(run->disk);
    } else {
        resize(run, request);
    }
}

struct guest {
    struct ash_task task;
    struct run *run;
    const struct request *request;
};

static int run_guest(struct ash_task *task)
{
    ash_co_assert_inside();
    struct guest *guest = ash_container_of(task, struct guest, task);
    make_request(guest->run, guest->request);
    return 0;
}

ASH_CO_FN static void make_requests(struct run *run)
{
    struct guest guests[REQUESTS_MAX];
    struct ash_task_pool pool;
    if ((run->mode & MODE_PARALLEL) == 0) {
        for (unsigned i = 0; i < run->request_count; i++) {
            make_request(run, &run->requests[i]);
        }
        return;
    }
    ash_task_pool_init(&pool, &run->machine.loop->sched, REQUESTS_MAX);
    for (unsigned i = 0; i < run->request_count; i++) {
        guests[i] = (struct guest){.task.run = run_guest, .run = run, .request = &run->requests[i]};
        ash_task_pool_start(&pool, &guests[i].task);
    }
    ash_task_pool_finish(&pool);
    for (unsigned i = 0; i < run->watched; i++) {
        run->expected[i] = UNKNOWN; /* they overlapped */
    }
}

/* --- sessions --- */

ASH_CO_FN static int open_image(struct run *run, uint32_t flags)
{
    int ret = fuzz_open(&run->machine, "qcow2", flags, &run->disk);
    run->node = ret < 0 ? NULL : ash_disk_node(run->disk);
    return ret;
}

ASH_CO_FN static int close_image(struct run *run)
{
    int ret = ash_co_disk_close(run->disk, NULL);
    run->node = NULL;
    return ret;
}

/* What it holds before anything is done. */
static int look_before(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    if (open_image(run, 0) < 0) {
        return 1;
    }
    run->opened_before = true;
    run->watched = (unsigned)ASH_MIN(ash_disk_bytes(run->disk) / run->unit, (uint64_t)WATCHED_MAX);
    run->watched = (unsigned)ASH_MIN(run->watched, 2 * MiB / run->unit);
    run->contents = g_malloc(run->watched * run->unit + 1);
    for (unsigned i = 0; i < run->watched; i++) {
        run->expected[i] = UNKNOWN;
        run->before[i] =
            ash_disk_read(run->disk, i * run->unit, run->contents + i * run->unit, run->unit);
    }
    return close_image(run);
}

static void compare(const struct run *run, unsigned i, int ret, const uint8_t *now)
{
    const uint8_t *old = run->contents + i * run->unit;
    if (run->sound[i] && !run->touched[i] &&
        (ret != run->before[i] || (ret == 0 && memcmp(now, old, run->unit) != 0))) {
        fuzz_fail("guest cluster %u changed though nobody touched it (%d, was %d; 0x%02x, was "
                  "0x%02x)",
                  i, ret, run->before[i], now[0], old[0]);
    }
    if (!run->all_sound || run->expected[i] == UNKNOWN) {
        return;
    }
    uint8_t *want = g_malloc0(run->unit);
    if (run->expected[i] != 0) {
        stamp(want, run->unit, (uint8_t)run->expected[i]);
    }
    if (ret < 0 || memcmp(now, want, run->unit) != 0) {
        fuzz_fail("guest cluster %u does not hold what was written (%d, 0x%02x)", i, ret, now[0]);
    }
    g_free(want);
}

static int look_after(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    if (open_image(run, 0) < 0) {
        for (unsigned i = 0; i < run->watched; i++) {
            if (run->sound[i]) {
                fuzz_fail("it does not open any more");
            }
        }
        return 1;
    }
    uint8_t *now = g_malloc(run->unit);
    for (unsigned i = 0; i < run->watched && (i + 1) * run->unit <= ash_disk_bytes(run->disk);
         i++) {
        int ret = ash_disk_read(run->disk, i * run->unit, now, run->unit);
        compare(run, i, ret, now);
    }
    g_free(now);
    return close_image(run);
}

static void check_marked(struct run *run)
{
    struct qcow2_fields fields;
    ash_sim_file_read(run->machine.world, "image", 0, &fields, sizeof(fields));
    if (be32toh(fields.version) >= 3 &&
        (be64toh(fields.incompatible) & QCOW2_INCOMPATIBLE_CORRUPT) == 0) {
        fuzz_fail("the image is known to be corrupt and not marked so");
    }
}

static int guest_session(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    uint32_t flags = ASH_NODE_WRITE | (run->mode & MODE_NO_DISCARD ? 0 : ASH_NODE_DISCARD);
    if (open_image(run, flags) < 0) {
        return 1;
    }
    if (!run->opened_before) {
        fuzz_fail("it opens for writing but not for reading");
    }
    make_requests(run);
    bool corrupt = is_corrupt(run);
    close_image(run);
    if (corrupt) {
        run->all_sound = false;
        check_marked(run);
    }
    return 0;
}

static int repair_session(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    struct ash_check first = {.fix = ASH_CHECK_FIX_LEAKS | ASH_CHECK_FIX_ERRORS};
    struct ash_check second = {0};
    uint32_t flags = ASH_NODE_WRITE | ASH_NODE_CHECK | ASH_NODE_NO_BACKING;
    if (open_image(run, flags) < 0) {
        return 1;
    }
    struct ash_node *node = run->node;
    int ret = node->driver->check(node, &first, NULL);
    if (ret == 0 && first.corruptions + first.leaks + first.check_errors == 0) {
        ret = node->driver->check(node, &second, NULL);
        if (ret < 0 || second.corruptions + second.leaks + second.check_errors > 0) {
            fuzz_fail("after a repair a check finds %" PRIu64 " corruptions, %" PRIu64 " leaks, "
                      "%" PRIu64 " errors (%d)",
                      second.corruptions, second.leaks, second.check_errors, ret);
        }
    }
    close_image(run);
    return 0;
}

static void session(struct run *run, int (*fn)(void *opaque))
{
    fuzz_call(&run->machine, fn, run);
    if (ash_sim_open_files(run->machine.world) > 0) {
        fuzz_fail("a file was left open");
    }
}

/* The bytes of a valid image are made once. */
static void make_image(struct run *run, unsigned index)
{
    static uint8_t *bytes[32], *base;
    static size_t counts[32];
    bool was_running = fuzz_running;
    if (bytes[index] == NULL) {
        struct fuzz_machine maker;
        fuzz_running = false; /* it outlives the input */
        fuzz_machine_init(&maker, index);
        made_build(&maker, &made_images[index]);
        counts[index] = (size_t)ash_sim_file_bytes(maker.world, "image");
        bytes[index] = g_malloc(counts[index]);
        ash_sim_file_read(maker.world, "image", 0, bytes[index], counts[index]);
        base = base != NULL ? base : g_malloc(MADE_BASE_BYTES);
        ash_sim_file_read(maker.world, "base", 0, base, MADE_BASE_BYTES);
        fuzz_machine_free(&maker);
        fuzz_running = was_running;
    }
    ash_sim_file_write(run->machine.world, "base", 0, base, MADE_BASE_BYTES);
    ash_sim_file_write(run->machine.world, "image", 0, bytes[index], counts[index]);
    run->unit = made_images[index].unit;
}

static void find_sound(struct run *run)
{
    struct layout layout;
    run->all_sound = false;
    if (!layout_read(&layout, run->machine.world, "image")) {
        return;
    }
    run->unit = UINT64_C(1) << layout.cluster_bits;
    run->all_sound = layout.metadata_good;
    for (unsigned i = 0; i < WATCHED_MAX; i++) {
        run->sound[i] = layout_is_sound(&layout, i);
    }
    uint64_t guest_clusters = layout.l1_entries << (layout.cluster_bits - 3);
    for (uint64_t i = 0; run->all_sound && i < guest_clusters; i++) {
        run->all_sound = i < 65536 && layout_is_sound(&layout, i);
    }
    layout_free(&layout);
}

void fuzz_one(const uint8_t *data, size_t bytes)
{
    struct fuzz_input input = {data, bytes};
    struct run run = {0};
    if (bytes < 4) {
        return;
    }
    fuzz_machine_init(&run.machine, data[0]);
    make_image(&run, fuzz_u8(&input) % made_image_count);
    run.mode = fuzz_u8(&input);
    unsigned mutations = fuzz_u8(&input) % (MUTATIONS_MAX + 1);
    run.request_count = fuzz_u8(&input) % (REQUESTS_MAX + 1);
    for (unsigned i = 0; i < mutations; i++) {
        struct mutation mutation;
        mutation.what = fuzz_u8(&input);
        mutation.index = fuzz_u8(&input);
        mutation.how = fuzz_u8(&input);
        mutation.value = fuzz_u8(&input);
        mutate(run.machine.world, &mutation);
    }
    for (unsigned i = 0; i < run.request_count; i++) {
        run.requests[i].op = fuzz_u8(&input);
        run.requests[i].where = fuzz_u8(&input);
        run.requests[i].length = fuzz_u8(&input);
        run.requests[i].flags = fuzz_u8(&input);
    }
    find_sound(&run);
    fuzz_boot(&run.machine, run.mode & MODE_SMALL_CACHE ? 64 * KiB : 0);
    session(&run, look_before);
    ash_sim_observe(run.machine.world, watch, &run);
    if (run.mode & MODE_REPAIR_FIRST) {
        session(&run, repair_session);
        session(&run, look_after);
    }
    session(&run, guest_session);
    session(&run, look_after);
    if (run.mode & MODE_REPAIR) {
        session(&run, repair_session);
        session(&run, look_after);
    }
    fuzz_halt(&run.machine);
    g_free(run.contents);
    fuzz_machine_free(&run.machine);
}
