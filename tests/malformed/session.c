/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Each image gets a machine of its own, so that one that is run alone behaves as it did among the
 * others.
 *
 * 1. A refusal is explained by a sentence that names the image, or the backing file that is at
 * fault.
 * 2. Who opens an image to look at it, check it or read it changes no file; who writes to it or
 *    repairs it changes no other.
 * 3. No guest data is written upon metadata, and no metadata is punched or cut off by guests, as
 * the file's own tables name it at that moment.
 * 4. A repair that says that all is well leaves nothing for the next check to find.
 * 5. No step takes more of the disk or of memory than session.h allows.
 * 6. Nothing is left behind, in memory or open. */
#include "tests/malformed/session.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <string.h>
#include "block/image/image.h"
#include "tests/malformed/memory.h"

/* Repaired is the image, not what guests have made of it. */
#define REPAIRED_NAME "repaired-" IMAGE_NAME

#define STAMP "\xa5GUEST\x5a!"
#define STAMP_BYTES 8

const char *session_step = "nothing";

static const char *const step_names[] = {
    [STEP_INFO] = "info",   [STEP_CHECK] = "check",   [STEP_READ] = "read",
    [STEP_WRITE] = "write", [STEP_REPAIR] = "repair", [STEP_CHECK_AGAIN] = "check again",
};

struct session {
    struct fuzz_machine machine;
    const struct base *base;
    struct totals *totals;
    enum step step;
    struct ash_disk *disk;
    uint64_t ns;      /* that this step has taken of the disk */
    bool guests;      /* write now: the layout is watched */
    bool layout_read; /* and as it was when the last table was written */
    struct layout layout;
    struct ash_check first; /* what the check before the repair found */
};

static const char *image_of(const struct session *session)
{
    return session->step >= STEP_REPAIR ? REPAIRED_NAME : IMAGE_NAME;
}

/* --- what the disk is asked for --- */

static void forget_layout(struct session *session)
{
    if (session->layout_read) {
        layout_free(&session->layout);
        session->layout_read = false;
    }
}

static bool is_metadata(struct session *session, uint64_t offset, uint64_t bytes)
{
    if (!session->layout_read) {
        session->layout_read = layout_read(&session->layout, session->machine.world, IMAGE_NAME);
    }
    return session->layout_read && layout_is_metadata(&session->layout, offset, bytes);
}

static bool is_stamped(const struct ash_aio *aio)
{
    uint8_t buffer[4096];
    uint64_t bytes = ASH_MIN(aio->bytes, sizeof(buffer));
    ash_iov_to_buffer(aio->iov, buffer, bytes);
    return memmem(buffer, bytes, STAMP, STAMP_BYTES) != NULL;
}

static void guard_metadata(struct session *session, const struct ash_aio *aio)
{
    const char *what = NULL;
    uint64_t bytes = aio->bytes;
    uint64_t offset = aio->offset;
    if (aio->op == ASH_AIO_WRITE && is_stamped(aio)) {
        what = "overwritten with guest data";
    } else if (aio->op == ASH_AIO_ALLOCATE &&
               (aio->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0) {
        what = "punched";
    } else if (aio->op == ASH_AIO_TRUNCATE) {
        int64_t size = ash_sim_file_bytes(session->machine.world, IMAGE_NAME);
        what = aio->bytes < (uint64_t)size ? "cut off" : NULL;
        offset = aio->bytes;
        bytes = (uint64_t)size - offset;
    }
    if (what != NULL && is_metadata(session, offset, bytes)) {
        fuzz_fail("metadata is %s, %" PRIu64 " bytes at 0x%" PRIx64, what, bytes, offset);
    }
}

static bool changes(const struct ash_aio *aio)
{
    switch (aio->op) {
    case ASH_AIO_WRITE:
    case ASH_AIO_ALLOCATE:
    case ASH_AIO_TRUNCATE:
    case ASH_AIO_COPY:
    case ASH_AIO_RENAME:
    case ASH_AIO_UNLINK:
        return true;
    default:
        return false;
    }
}

static void on_submitted(struct session *session, const struct ash_sim_event *event)
{
    const struct ash_aio *aio = event->aio;
    bool moves = aio->op == ASH_AIO_READ || aio->op == ASH_AIO_WRITE;
    session->ns += STEP_IO_NS + (moves ? aio->bytes : 0);
    if (session->ns > STEP_NS_MAX) {
        fuzz_fail("it takes more than a second of the disk");
    }
    if (!changes(aio)) {
        return;
    }
    bool image = event->path != NULL && strcmp(event->path, image_of(session)) == 0;
    bool may = session->step == STEP_WRITE || session->step == STEP_REPAIR;
    if (!image || !may) {
        fuzz_fail("'%s' is changed (%s)", event->path, ash_sim_op_name(aio->op));
    }
    if (session->guests) {
        guard_metadata(session, aio);
    }
}

static void watch(void *opaque, const struct ash_sim_event *event)
{
    struct session *session = opaque;
    if (event->phase == ASH_SIM_SUBMITTED) {
        on_submitted(session, event);
    } else if (event->phase == ASH_SIM_CARRIED_OUT && session->layout_read &&
               event->aio->op == ASH_AIO_WRITE &&
               layout_is_metadata(&session->layout, event->aio->offset, event->aio->bytes)) {
        forget_layout(session); /* a new table becomes one by a change of another */
    }
}

/* --- opening and checking --- */

/* The file at fault may be the one below; then which image wants it is for its host to say. */
static bool names_the_file(const char *message)
{
    return strstr(message, IMAGE_NAME) != NULL ||
           g_str_has_prefix(message, "Could not open backing file: ");
}

ASH_CO_FN static int open_image(struct session *session, uint32_t flags)
{
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = json_pack("{s:s, s:{s:s, s:s}}", "driver", "qcow2", "file", "driver",
                                    "file", "filename", image_of(session));
    int ret = ash_co_disk_open(session->machine.loop, description, flags, &session->disk, &error);
    json_decref(description);
    if (ret < 0 && (error.code != ret || !names_the_file(error.message))) {
        fuzz_fail("refuses with %d and does not name the image: '%s' (%d)", ret, error.message,
                  error.code);
    }
    session->totals->opened[session->step] += ret == 0;
    session->totals->refused[session->step] += ret < 0;
    return ret;
}

static void on_report(struct ash_check *check, const char *sentence)
{
    (void)check;
    if (sentence[0] == '\0') {
        fuzz_fail("the check finds something and does not say what");
    }
}

static bool is_clean(const struct ash_check *check)
{
    return check->corruptions + check->leaks + check->check_errors == 0;
}

ASH_CO_FN static int check(struct session *session, uint32_t fix, struct ash_check *result)
{
    struct ash_node *node = ash_disk_node(session->disk);
    struct ash_error error = ASH_ERROR_INIT;
    *result = (struct ash_check){.fix = fix, .report = on_report};
    int ret = node->driver->check(node, result, &error);
    if (ret < 0 && error.message[0] == '\0') {
        fuzz_fail("the check fails with %d and does not say why", ret);
    }
    return ret;
}

/* --- steps --- */

static int info(void *opaque)
{
    ash_co_assert_inside();
    struct session *session = opaque;
    if (open_image(session, ASH_NODE_NO_BACKING) < 0) {
        return 0;
    }
    json_t *told = ash_image_info(ash_disk_node(session->disk));
    if (told == NULL) {
        fuzz_fail("there is no information about the image");
    }
    json_decref(told);
    return ash_co_disk_close(session->disk, NULL);
}

static int check_first(void *opaque)
{
    ash_co_assert_inside();
    struct session *session = opaque;
    session->first = (struct ash_check){.check_errors = 1};
    if (open_image(session, ASH_NODE_NO_BACKING | ASH_NODE_CHECK) < 0) {
        return 0;
    }
    check(session, 0, &session->first);
    session->totals->damaged += !is_clean(&session->first);
    return ash_co_disk_close(session->disk, NULL);
}

/* Each kind of cluster, alone and with its neighbour. */
static int read_guests(void *opaque)
{
    ash_co_assert_inside();
    static const uint8_t ranges[][2] = {{0, 1}, {2, 2}, {4, 1}, {5, 1}, {6, 2}};
    struct session *session = opaque;
    uint64_t unit = session->base->made->unit;
    if (open_image(session, 0) < 0) {
        return 0;
    }
    uint8_t *buffer = g_malloc(2 * unit);
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(ranges); i++) {
        ash_disk_read(session->disk, ranges[i][0] * unit, buffer, ranges[i][1] * unit);
    }
    g_free(buffer);
    return ash_co_disk_close(session->disk, NULL);
}

ASH_CO_FN static void count_write(struct session *session, int ret)
{
    session->totals->writes_made += ret == 0;
    session->totals->writes_failed += ret < 0;
}

/* To each kind of cluster, to all of it or a part. */
static int write_guests(void *opaque)
{
    ash_co_assert_inside();
    static const struct {
        uint32_t cluster;
        uint32_t from;
        uint32_t bytes; /* 0: a cluster */
    } ranges[] = {{0, 0, 0}, {1, 100, 300}, {2, 0, 0}, {3, 7, 400},
                  {4, 0, 0}, {5, 1, 100},   {6, 0, 0}};
    struct session *session = opaque;
    uint64_t unit = session->base->made->unit;
    if (open_image(session, ASH_NODE_WRITE | ASH_NODE_DISCARD) < 0) {
        return 0;
    }
    uint8_t *buffer = g_malloc(unit);
    for (uint64_t i = 0; i < unit; i++) {
        buffer[i] = (uint8_t)STAMP[i % STAMP_BYTES];
    }
    session->guests = true;
    for (unsigned i = 0; i < ASH_ARRAY_SIZE(ranges); i++) {
        uint64_t bytes = ranges[i].bytes != 0 ? ranges[i].bytes : unit;
        count_write(session,
                    ash_disk_write(session->disk, ranges[i].cluster * unit + ranges[i].from, buffer,
                                   bytes, 0));
    }
    count_write(session, ash_disk_zero(session->disk, unit, unit, ASH_REQ_UNMAP));
    count_write(session, ash_disk_discard(session->disk, 0, unit));
    count_write(session, ash_disk_flush(session->disk));
    count_write(session, ash_co_disk_close(session->disk, NULL));
    session->guests = false;
    forget_layout(session);
    g_free(buffer);
    return 0;
}

static int repair(void *opaque)
{
    ash_co_assert_inside();
    struct session *session = opaque;
    session->first = (struct ash_check){.check_errors = 1};
    if (open_image(session, ASH_NODE_WRITE | ASH_NODE_NO_BACKING | ASH_NODE_CHECK) < 0) {
        return 0;
    }
    int ret = check(session, ASH_CHECK_FIX_LEAKS | ASH_CHECK_FIX_ERRORS, &session->first);
    bool clean = ret == 0 && is_clean(&session->first);
    ret = ash_co_disk_close(session->disk, NULL);
    if (clean && ret < 0) {
        fuzz_fail("after a repair that says that all is well closing fails with %d", ret);
    }
    if (!clean) {
        session->first.check_errors++;
    }
    return 0;
}

static int check_again(void *opaque)
{
    ash_co_assert_inside();
    struct session *session = opaque;
    struct ash_check second = {.check_errors = 1};
    bool good = is_clean(&session->first);
    int ret = open_image(session, ASH_NODE_NO_BACKING | ASH_NODE_CHECK);
    if (ret == 0) {
        ret = check(session, 0, &second);
        ash_co_disk_close(session->disk, NULL);
    }
    if (good && (ret < 0 || !is_clean(&second))) {
        fuzz_fail("after a repair that says that all is well a check finds %" PRIu64
                  " corruptions, %" PRIu64 " leaks, %" PRIu64 " errors (%d)",
                  second.corruptions, second.leaks, second.check_errors, ret);
    }
    session->totals->repaired +=
        good && session->first.corruptions_fixed + session->first.leaks_fixed > 0;
    return 0;
}

/* --- the whole --- */

static void run_step(struct session *session, enum step step)
{
    static int (*const bodies[])(void *opaque) = {
        [STEP_INFO] = info,          [STEP_CHECK] = check_first, [STEP_READ] = read_guests,
        [STEP_WRITE] = write_guests, [STEP_REPAIR] = repair,     [STEP_CHECK_AGAIN] = check_again,
    };
    session->step = step;
    session_step = step_names[step];
    session->ns = 0;
    int ret = fuzz_call(&session->machine, bodies[step], session);
    if (ret < 0) {
        fuzz_fail("closing what was only read fails with %d", ret);
    }
    if (ash_sim_open_files(session->machine.world) > 0) {
        fuzz_fail("a file was left open");
    }
    session->totals->ns_max = ASH_MAX(session->totals->ns_max, session->ns);
}

static void run_steps(const struct base *base, const uint8_t *bytes, size_t count,
                      struct totals *totals)
{
    struct session session = {.base = base, .totals = totals};
    fuzz_machine_init(&session.machine, 1);
    struct ash_sim_world *world = session.machine.world;
    ash_sim_observe(world, watch, &session);
    ash_sim_file_write(world, "base", 0, base->backing, sizeof(base->backing));
    ash_sim_file_write(world, IMAGE_NAME, 0, bytes, count);
    ash_sim_file_write(world, REPAIRED_NAME, 0, bytes, count);
    fuzz_boot(&session.machine, 0);
    for (enum step step = 0; step < STEP_COUNT; step++) {
        run_step(&session, step);
    }
    fuzz_halt(&session.machine);
    fuzz_machine_free(&session.machine);
}

static void beyond(size_t bytes)
{
    fuzz_fail("it takes more than %" PRIi64 " MiB of memory, the last %zu bytes of it at once",
              STEP_BYTES_MAX >> 20, bytes);
}

void session_run(const struct base *base, const uint8_t *bytes, size_t count, struct totals *totals)
{
    totals->cases++;
    memory_begin();
    memory_limit(STEP_BYTES_MAX, beyond);
    run_steps(base, bytes, count, totals);
    memory_limit(INT64_MAX, NULL);
    totals->bytes_max = ASH_MAX(totals->bytes_max, memory_bytes_max());
    if (totals->cases > 1 && memory_bytes() > 0) {
        fuzz_fail("%" PRIi64 " bytes of memory are left behind", memory_bytes());
    }
    session_step = "nothing";
}
