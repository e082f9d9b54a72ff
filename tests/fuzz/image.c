/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* image: a file of any content, opened as an image of each format.
 *
 * An input is 64 bytes of head and the file. The head says which format of the table it is opened
 * as, what is done with it, and up to 15 requests of 4 bytes each.
 *
 *  1. Opened for reading, or looked at, nothing is changed.
 *  2. Opened for writing, only the image itself is changed.
 *  3. What was written within one cluster is read back; the same range read twice is the same.
 *  4. A repair that says that all is well leaves nothing for the next check to find. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "block/image/image.h"
#include "block/map/map.h"
#include "tests/fuzz/fuzz.h"
#include "util/range.h"

/* A format that is added is a line here, and seeds in tests/fuzz/seeds.c. */
static const char *const formats[] = {
    "qcow2", "raw", NULL, /* probed */
};

enum { HEAD_BYTES = 64, REQUESTS_MAX = 15, FILE_BYTES_MAX = 1 << 20, STATUS_STEPS_MAX = 64 };
enum { READS_MAX = 8 };

#define MODE_WRITE 1u       /* open for writing and make the requests */
#define MODE_CHECK 2u       /* check, and repair */
#define MODE_NO_DISCARD 4u  /* discards are ignored */
#define MODE_SMALL_CACHE 8u /* little memory for tables */
#define MODE_DETECT 16u     /* detect-zeroes */

struct request {
    uint8_t op;
    uint8_t where;
    uint8_t length;
    uint8_t flags;
};

struct run {
    struct fuzz_machine machine;
    const char *format;
    uint8_t mode;
    uint8_t request_count;
    struct request requests[REQUESTS_MAX];
    struct ash_disk *disk;
    uint32_t errors_before; /* of machine.errors_logged, when the session began */
};

/* --- requests --- */

/* Offsets over the whole disk, its edges, and the neighbourhood of its beginning. */
static uint64_t offset_of(const struct run *run, const struct request *request)
{
    uint64_t end = ash_disk_bytes(run->disk);
    uint64_t cluster = ASH_MAX(ash_disk_node(run->disk)->limits.cluster, 512u);
    uint64_t step = request->where & 63;
    switch (request->where >> 6) {
    case 0:
        return step * cluster;
    case 1:
        return step * 512 + 100;
    case 2:
        return end / 64 * step;
    default:
        return end > step * 512 ? end - step * 512 : 0;
    }
}

static uint64_t length_of(const struct run *run, const struct request *request)
{
    static const uint32_t lengths[] = {512, 1, 4096, 1000, 65536, 12345, 8192, 20000};
    uint64_t cluster = ASH_MAX(ash_disk_node(run->disk)->limits.cluster, 512u);
    return request->length & 8 ? ASH_MIN(cluster << (request->length & 3), 64 * KiB)
                               : lengths[request->length & 7];
}

/* In a damaged image, what is being given back can be what is read: then it is read again. But
 * nothing is given back once an error was logged, which says that the image is corrupt. */
ASH_CO_FN static void read_twice(struct run *run, uint64_t offset, uint64_t bytes)
{
    uint8_t *one = g_malloc(bytes);
    uint8_t *two = g_malloc(bytes);
    for (unsigned i = 0; i < READS_MAX; i++) {
        uint32_t changes = run->machine.changes;
        int first = ash_disk_read(run->disk, offset, one, bytes);
        int second = ash_disk_read(run->disk, offset, two, bytes);
        if (changes != run->machine.changes && run->machine.errors_logged == run->errors_before) {
            continue;
        }
        if (first != second || (first == 0 && memcmp(one, two, bytes) != 0)) {
            fuzz_fail("%" PRIu64 " bytes at %" PRIu64 " read twice differ (%d, %d)", bytes, offset,
                      first, second);
        }
        break;
    }
    g_free(one);
    g_free(two);
}

ASH_CO_FN static void write_and_look(struct run *run, uint64_t offset, uint64_t bytes,
                                     uint32_t flags, uint8_t value)
{
    uint8_t *buffer = g_malloc(bytes);
    memset(buffer, value, bytes);
    struct iovec vec = {buffer, bytes};
    struct ash_io io = {.op = ASH_WRITE,
                        .flags = flags,
                        .offset = offset,
                        .bytes = bytes,
                        .iov = ash_iov_of(&vec, 1)};
    uint64_t cluster = ASH_MAX(ash_disk_node(run->disk)->limits.cluster, 1u);
    bool one_cluster = offset / cluster == (offset + bytes - 1) / cluster;
    if (ash_disk_io(run->disk, &io) == 0 && one_cluster) {
        memset(buffer, ~value, bytes);
        int ret = ash_disk_read(run->disk, offset, buffer, bytes);
        for (uint64_t i = 0; i < bytes; i++) {
            if (ret < 0 || buffer[i] != value) {
                fuzz_fail("%" PRIu64 " bytes written at %" PRIu64 " are not there (%d)", bytes,
                          offset, ret);
            }
        }
    }
    g_free(buffer);
}

ASH_CO_FN static void resize(struct run *run, const struct request *request)
{
    uint64_t bytes = ash_disk_bytes(run->disk);
    uint64_t by = (uint64_t)request->length * 4096 + request->where;
    int preallocation = request->flags >> 1 & 3;
    struct ash_error error = ASH_ERROR_INIT;
    if (request->flags & 0x40) { /* by very much; that cannot be made ready in advance */
        by <<= request->flags >> 4 & 3 ? 40 : 24;
        preallocation = ASH_PREALLOC_OFF;
    }
    bytes = request->flags & 1 ? bytes - ASH_MIN(bytes, by) : bytes + by;
    int ret = ash_co_disk_resize(run->disk, bytes, ASH_RESIZE_SHRINK, preallocation, &error);
    if (ret < 0 && error.message[0] == '\0') {
        fuzz_fail("resizing to %" PRIu64 " fails with %d and nothing is said", bytes, ret);
    }
}

ASH_CO_FN static void make_request(struct run *run, const struct request *request)
{
    uint64_t offset = offset_of(run, request);
    uint64_t bytes = length_of(run, request);
    uint64_t end = ash_disk_bytes(run->disk);
    if ((request->flags & 0x80) == 0) { /* else it may lie outside */
        offset = ASH_MIN(offset, end);
        bytes = ASH_MIN(bytes, end - offset);
    }
    if (bytes == 0) {
        return;
    }
    uint32_t flags = request->flags & (ASH_REQ_FUA | ASH_REQ_UNMAP | ASH_REQ_NO_FALLBACK);
    switch (request->op & 7) {
    case 0:
        read_twice(run, offset, bytes);
        break;
    case 1:
    case 2:
        write_and_look(run, offset, bytes, flags & ASH_REQ_FUA, request->flags);
        break;
    case 3:
        write_and_look(run, offset, bytes, ASH_IO_COMPRESS, request->flags);
        break;
    case 4:
        ash_disk_zero(run->disk, offset, bytes, flags);
        break;
    case 5:
        ash_disk_discard(run->disk, offset, bytes);
        break;
    case 6:
        ash_disk_flush(run->disk);
        break;
    default:
        resize(run, request);
        break;
    }
}

/* --- sessions --- */

ASH_CO_FN static void look(struct run *run)
{
    struct ash_node *node = ash_disk_node(run->disk);
    uint64_t end = ash_disk_bytes(run->disk);
    json_t *info = ash_image_info(node);
    if (info == NULL) {
        fuzz_fail("there is no information about the image");
    }
    json_decref(info);
    uint64_t at = 0;
    for (int steps = 0; at < end && steps < STATUS_STEPS_MAX; steps++) {
        struct ash_status status = {0};
        struct ash_io io = {.op = ASH_STATUS, .offset = at, .bytes = end - at, .status = &status};
        int ret = ash_disk_io(run->disk, &io);
        if (ret < 0) {
            break;
        }
        if (status.bytes == 0 || status.bytes > end - at) {
            fuzz_fail("status at %" PRIu64 " tells of %" PRIu64 " bytes", at, status.bytes);
        }
        at += status.bytes;
    }
}

static int read_session(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    if (fuzz_open(&run->machine, run->format, 0, &run->disk) < 0) {
        return 1;
    }
    look(run);
    for (unsigned i = 0; i < run->request_count; i++) {
        struct request request = run->requests[i];
        request.op = 0;
        make_request(run, &request);
    }
    return ash_co_disk_close(run->disk, NULL);
}

static int write_session(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    uint32_t flags = ASH_NODE_WRITE;
    flags |= run->mode & MODE_NO_DISCARD ? 0 : ASH_NODE_DISCARD;
    flags |= run->mode & MODE_DETECT ? ASH_NODE_DETECT_ZEROES : 0;
    if (fuzz_open(&run->machine, run->format, flags, &run->disk) < 0) {
        return 1;
    }
    for (unsigned i = 0; i < run->request_count; i++) {
        make_request(run, &run->requests[i]);
    }
    look(run);
    ash_co_disk_close(run->disk, NULL);
    return 0;
}

static void on_report(struct ash_check *check, const char *sentence)
{
    (void)check;
    if (sentence[0] == '\0') {
        fuzz_fail("the check says nothing");
    }
}

ASH_CO_FN static int check_once(struct run *run, uint32_t fix, struct ash_check *check)
{
    struct ash_node *node = ash_disk_node(run->disk);
    struct ash_error error = ASH_ERROR_INIT;
    *check = (struct ash_check){.fix = fix, .report = on_report};
    if (node->driver->check == NULL) {
        return -ENOTSUP;
    }
    int ret = node->driver->check(node, check, &error);
    if (ret < 0 && error.message[0] == '\0') {
        fuzz_fail("the check fails with %d and nothing is said", ret);
    }
    return ret;
}

static int look_session(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    struct ash_check check;
    if (fuzz_open(&run->machine, run->format, ASH_NODE_CHECK | ASH_NODE_NO_BACKING, &run->disk) <
        0) {
        return 1;
    }
    check_once(run, 0, &check);
    return ash_co_disk_close(run->disk, NULL);
}

static int repair_session(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    struct ash_check first, second;
    if (fuzz_open(&run->machine, run->format, ASH_NODE_CHECK | ASH_NODE_NO_BACKING | ASH_NODE_WRITE,
                  &run->disk) < 0) {
        return 1;
    }
    int ret = check_once(run, ASH_CHECK_FIX_LEAKS | ASH_CHECK_FIX_ERRORS, &first);
    bool good = ret == 0 && first.corruptions == 0 && first.check_errors == 0 && first.leaks == 0;
    if (good) {
        ret = check_once(run, 0, &second);
        if (ret < 0 || second.corruptions + second.leaks + second.check_errors > 0) {
            fuzz_fail("after a repair a check finds %" PRIu64 " corruptions, %" PRIu64 " leaks, "
                      "%" PRIu64 " errors (%d)",
                      second.corruptions, second.leaks, second.check_errors, ret);
        }
    }
    ret = ash_co_disk_close(run->disk, NULL);
    if (good && ret < 0) {
        fuzz_fail("after a good repair closing fails with %d", ret);
    }
    return 0;
}

static void session(struct run *run, int (*fn)(void *opaque), const char *only)
{
    run->machine.only = only;
    run->errors_before = run->machine.errors_logged;
    fuzz_call(&run->machine, fn, run);
    if (ash_sim_open_files(run->machine.world) > 0) {
        fuzz_fail("a file was left open");
    }
}

static void make_files(struct run *run, const struct fuzz_input *input)
{
    uint8_t base[8192];
    for (size_t i = 0; i < sizeof(base); i++) {
        base[i] = (uint8_t)(i % 251);
    }
    ash_sim_file_write(run->machine.world, "base", 0, base, sizeof(base));
    ash_sim_file_write(run->machine.world, "image", 0, input->data,
                       ASH_MIN(input->bytes, (size_t)FILE_BYTES_MAX));
}

void fuzz_one(const uint8_t *data, size_t bytes)
{
    struct fuzz_input input = {data, bytes};
    struct run run;
    if (bytes < HEAD_BYTES) {
        return;
    }
    fuzz_machine_init(&run.machine, data[3]);
    run.format = formats[fuzz_u8(&input) % ASH_ARRAY_SIZE(formats)];
    run.mode = fuzz_u8(&input);
    run.request_count = fuzz_u8(&input) % (REQUESTS_MAX + 1);
    fuzz_u8(&input);
    for (unsigned i = 0; i < REQUESTS_MAX; i++) {
        run.requests[i].op = fuzz_u8(&input);
        run.requests[i].where = fuzz_u8(&input);
        run.requests[i].length = fuzz_u8(&input);
        run.requests[i].flags = fuzz_u8(&input);
    }
    make_files(&run, &input);
    fuzz_boot(&run.machine, run.mode & MODE_SMALL_CACHE ? 64 * KiB : 0);
    session(&run, read_session, "");
    if (run.mode & MODE_CHECK) {
        session(&run, look_session, "");
    }
    if (run.mode & MODE_WRITE) {
        session(&run, write_session, "image");
    }
    if (run.mode & MODE_CHECK) {
        session(&run, repair_session, "image");
    }
    session(&run, read_session, "");
    fuzz_halt(&run.machine);
    fuzz_machine_free(&run.machine);
}
