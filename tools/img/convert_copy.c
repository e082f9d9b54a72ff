/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert: moving the data.
 *
 * One coroutine walks the source's block status and hands out windows of the target, several of
 * which are in flight: a task reads its window, finds the zeroes in it and writes the rest, so that
 * reading one window overlaps writing others. What reads as zeroes over more than a window is never
 * handed out.
 *
 * A window is cut into granules: the unit in which the target allocates, at least what -S asks for.
 *
 * Invariants:
 *  1. Windows begin at a granule and end at one or at the end of the target; no two overlap. So no
 *     two writes in flight touch one allocation unit, and compressed writes are whole units.
 *  2. A granule is left out only if it reads as zeroes and the target does too, or if the target's
 *     backing file holds it.
 *  3. After the first error, or a signal, no window is handed out any more; those in flight end. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/copy/host_bytes.h"
#include "block/disk/disk.h"
#include "tools/img/convert.h"
#include "util/iov.h"
#include "util/range.h"

#define WINDOW_BYTES_MIN (1 * MiB)
#define GRANULE_BYTES_MIN UINT64_C(512)
#define GRANULE_BYTES_MAX UINT64_C(4096) /* where the target has no unit of its own */
#define ZERO_STEP_BYTES (1 * GiB)
#define SECTOR_BYTES UINT64_C(512)

enum kind {
    KIND_UNKNOWN,
    KIND_KEEP, /* the target's backing file holds it */
    KIND_ZERO,
    KIND_DATA,
    KIND_DONE, /* the kernel has copied it */
};

struct copy {
    struct convert *convert;
    struct ash_task_pool pool;
    uint64_t window_bytes;
    uint64_t granule_bytes;
    GPtrArray *buffers; /* idle, window_bytes each */
    uint64_t begin_ns;
    uint64_t done_bytes;
    bool moved; /* something was handed out */
    bool failed;
};

struct window {
    struct ash_task task;
    struct copy *copy;
    uint64_t offset;
    uint64_t bytes;
    enum kind kind; /* of all of it, or KIND_UNKNOWN */
    uint8_t *buffer;
    uint32_t granules;
    uint8_t kinds[]; /* a granule each */
};

/* --- The sources as one. --- */

static struct convert_source *source_at(const struct convert *convert, uint64_t offset)
{
    uint32_t i = 0;
    while (offset - convert->sources[i].start >= convert->sources[i].bytes) {
        i++;
    }
    return &convert->sources[i];
}

/* What lies at `offset`, and how far that holds. */
ASH_CO_FN static int kind_at(struct copy *copy, uint64_t offset, uint64_t bytes, enum kind *kind,
                             uint64_t *holds)
{
    struct convert *convert = copy->convert;
    struct convert_source *source = source_at(convert, offset);
    uint64_t inside = offset - source->start;
    struct ash_status status;
    bytes = ASH_MIN(bytes, source->bytes - inside);
    int ret = ash_tool_status(source->disk, convert->base, inside, bytes, &status);
    if (ret < 0) {
        if (convert->salvage) {
            *kind = KIND_DATA;
            *holds = ASH_MIN(bytes, copy->window_bytes);
            return 0;
        }
        ash_tool_error("%s: error while reading block status at offset %" PRIu64 ": %s",
                       source->image.filename, inside, strerror(-ret));
        return ret;
    }
    *holds = status.bytes;
    if (convert->base != NULL && (status.flags & ASH_STATUS_ALLOCATED) == 0) {
        *kind = KIND_KEEP;
    } else if (ash_tool_status_is_zero(&status)) {
        *kind = convert->sparse_bytes > 0 ? KIND_ZERO : KIND_DATA;
    } else {
        *kind = KIND_DATA;
    }
    return 0;
}

/* Sector by sector; what cannot be read is zeroes. */
ASH_CO_FN static void salvage(const struct convert *convert, struct convert_source *source,
                              uint64_t inside, uint8_t *buffer, uint64_t bytes)
{
    for (uint64_t done = 0; done < bytes; done += SECTOR_BYTES) {
        uint64_t step = ASH_MIN(SECTOR_BYTES, bytes - done);
        int ret = ash_tool_read(source->disk, inside + done, buffer + done, step);
        if (ret < 0) {
            memset(buffer + done, 0, step);
            if (!convert->quiet) {
                ash_tool_warning("%s: error while reading offset %" PRIu64 ": %s",
                                 source->image.filename, inside + done, strerror(-ret));
            }
        }
    }
}

ASH_CO_FN static int read_sources(const struct convert *convert, uint64_t offset, uint8_t *buffer,
                                  uint64_t bytes)
{
    while (bytes > 0) {
        struct convert_source *source = source_at(convert, offset);
        uint64_t inside = offset - source->start;
        uint64_t step = ASH_MIN(bytes, source->bytes - inside);
        int ret = ash_tool_read(source->disk, inside, buffer, step);
        if (ret < 0 && convert->salvage) {
            salvage(convert, source, inside, buffer, step);
        } else if (ret < 0) {
            ash_tool_error("%s: error while reading at byte %" PRIu64 ": %s",
                           source->image.filename, inside, strerror(-ret));
            return ret;
        }
        offset += step;
        buffer += step;
        bytes -= step;
    }
    return 0;
}

/* --- A window. --- */

static uint64_t granule_end(const struct window *window, uint32_t granule)
{
    return ASH_MIN((granule + UINT64_C(1)) * window->copy->granule_bytes, window->bytes);
}

/* The end of the run of granules of one kind. */
static uint32_t run_end(const struct window *window, uint32_t granule)
{
    uint32_t end = granule + 1;
    while (end < window->granules && window->kinds[end] == window->kinds[granule]) {
        end++;
    }
    return end;
}

/* Finds out what each granule is. One that is of two kinds has to be read. */
ASH_CO_FN static int find_kinds(struct window *window)
{
    uint64_t granule_bytes = window->copy->granule_bytes;
    if (window->kind != KIND_UNKNOWN) {
        memset(window->kinds, window->kind, window->granules);
        return 0;
    }
    for (uint64_t at = 0; at < window->bytes;) {
        enum kind kind;
        uint64_t holds;
        int ret = kind_at(window->copy, window->offset + at, window->bytes - at, &kind, &holds);
        if (ret < 0) {
            return ret;
        }
        for (uint64_t i = at / granule_bytes; i < ash_div_round_up(at + holds, granule_bytes);
             i++) {
            bool same = window->kinds[i] == KIND_UNKNOWN || window->kinds[i] == kind;
            window->kinds[i] = same ? (uint8_t)kind : KIND_DATA;
        }
        at += holds;
    }
    return 0;
}

/* Has the kernel copy a piece: whole granules. Returns its length; 0: it cannot be. */
ASH_CO_FN static uint64_t offload_piece(const struct window *window, uint64_t from, uint64_t bytes)
{
    const struct convert *convert = window->copy->convert;
    uint64_t offset = window->offset + from;
    struct convert_source *source = source_at(convert, offset);
    uint64_t inside = offset - source->start;
    struct ash_host_bytes found;
    uint64_t end = from + ASH_MIN(bytes, source->bytes - inside);
    if (inside + (end - from) > ash_disk_bytes(source->disk)) {
        return 0;
    }
    ash_user_enter(&source->disk->user);
    int ret = ash_host_bytes_find(ash_disk_node(source->disk), inside, end - from, &found);
    if (ret == 0) {
        end = from + found.bytes;
        if (end != window->bytes) {
            end = ash_align_down(end, window->copy->granule_bytes);
        }
        if (end > from) {
            struct ash_io io = {
                .op = ASH_WRITE, .offset = offset, .bytes = end - from, .iov = found.iov};
            ret = ash_disk_io(convert->target_disk, &io);
        }
        ash_host_bytes_drop(&found);
    }
    ash_user_leave(&source->disk->user);
    return ret == 0 && end > from ? end - from : 0;
}

/* What fails is left to be read and written, whatever the reason: then it is known which of the two
 * it was. */
ASH_CO_FN static void offload_data(struct window *window)
{
    uint64_t granule_bytes = window->copy->granule_bytes;
    for (uint32_t i = 0, end; i < window->granules; i = end) {
        end = run_end(window, i);
        if (window->kinds[i] != KIND_DATA) {
            continue;
        }
        uint64_t at = i * granule_bytes;
        uint64_t stop = granule_end(window, end - 1);
        uint64_t piece;
        while (at < stop && (piece = offload_piece(window, at, stop - at)) > 0) {
            at += piece;
        }
        memset(window->kinds + i, KIND_DONE, ash_div_round_up(at, granule_bytes) - i);
    }
}

ASH_CO_FN static int read_data(struct window *window)
{
    for (uint32_t i = 0, end; i < window->granules; i = end) {
        uint64_t from = i * window->copy->granule_bytes;
        end = run_end(window, i);
        if (window->kinds[i] == KIND_DATA) {
            int ret = read_sources(window->copy->convert, window->offset + from,
                                   window->buffer + from, granule_end(window, end - 1) - from);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

/* Data that is nothing but zeroes need not be written, if there is enough of it in one place. */
static void find_zeroes(struct window *window)
{
    uint64_t granule_bytes = window->copy->granule_bytes;
    uint64_t sparse_bytes = ASH_MIN(window->copy->convert->sparse_bytes, window->bytes);
    for (uint32_t i = 0; i < window->granules && sparse_bytes > 0; i++) {
        uint64_t from = i * granule_bytes;
        if (window->kinds[i] == KIND_DATA &&
            ash_buffer_is_zero(window->buffer + from, granule_end(window, i) - from)) {
            window->kinds[i] = KIND_ZERO;
        }
    }
    for (uint32_t i = 0, end; i < window->granules && sparse_bytes > granule_bytes; i = end) {
        uint64_t from = i * granule_bytes;
        end = run_end(window, i);
        uint64_t bytes = granule_end(window, end - 1) - from;
        bool edge = i == 0 || end == window->granules; /* it may go on outside */
        if (window->kinds[i] == KIND_ZERO && bytes < sparse_bytes && !edge) {
            memset(window->buffer + from, 0, bytes);
            memset(window->kinds + i, KIND_DATA, end - i);
        }
    }
}

ASH_CO_FN static int write_run(struct window *window, enum kind kind, uint64_t from, uint64_t bytes)
{
    const struct convert *convert = window->copy->convert;
    uint64_t offset = window->offset + from;
    int ret = 0;
    if (kind == KIND_DATA) {
        struct iovec vec = {window->buffer + from, bytes};
        struct ash_io io = {.op = ASH_WRITE,
                            .flags = convert->compress ? ASH_IO_COMPRESS : 0,
                            .offset = offset,
                            .bytes = bytes,
                            .iov = ash_iov_of(&vec, 1)};
        ret = ash_disk_io(convert->target_disk, &io);
    } else if (kind == KIND_ZERO && !convert->zero_init) {
        ret = ash_disk_zero(convert->target_disk, offset, bytes, ASH_REQ_UNMAP);
    }
    if (ret < 0) {
        ash_tool_error("%s: error while writing at byte %" PRIu64 ": %s", convert->target.filename,
                       offset, strerror(-ret));
    }
    return ret;
}

ASH_CO_FN static int write_runs(struct window *window)
{
    for (uint32_t i = 0, end; i < window->granules; i = end) {
        uint64_t from = i * window->copy->granule_bytes;
        end = run_end(window, i);
        int ret = write_run(window, window->kinds[i], from, granule_end(window, end - 1) - from);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static void add_done(struct copy *copy, uint64_t bytes)
{
    copy->done_bytes += bytes;
    if (copy->done_bytes < copy->convert->total_bytes) {
        ash_progress_set(&copy->convert->progress,
                         (double)copy->done_bytes * 100 / (double)copy->convert->total_bytes);
    }
}

ASH_CO_FN static int copy_window(struct ash_task *task)
{
    struct window *window = ash_container_of(task, struct window, task);
    struct copy *copy = window->copy;
    struct ash_loop *loop = ash_co_loop();
    int ret = 0;
    if (copy->buffers->len > 0) {
        window->buffer = g_ptr_array_steal_index_fast(copy->buffers, copy->buffers->len - 1);
    } else {
        window->buffer = ash_buffer_alloc(loop, copy->window_bytes, 4096);
    }
    if (window->buffer == NULL) {
        ash_tool_error("%s: no memory to copy with", copy->convert->target.filename);
        ret = -ENOMEM;
    }
    if (ret == 0) {
        ret = find_kinds(window);
    }
    if (ret == 0 && copy->convert->offload) {
        offload_data(window);
    }
    if (ret == 0) {
        ret = read_data(window);
    }
    if (ret == 0) {
        find_zeroes(window);
        ret = write_runs(window);
    }
    if (window->buffer != NULL) {
        g_ptr_array_add(copy->buffers, window->buffer);
    }
    add_done(copy, window->bytes);
    copy->failed |= ret < 0;
    g_free(window);
    return ret;
}

/* --- Handing out. --- */

ASH_CO_FN static void start_window(struct copy *copy, uint64_t offset, uint64_t bytes,
                                   enum kind kind)
{
    uint32_t granules = (uint32_t)ash_div_round_up(bytes, copy->granule_bytes);
    struct window *window = g_malloc0(sizeof(*window) + granules);
    window->task.run = copy_window;
    window->copy = copy;
    window->offset = offset;
    window->bytes = bytes;
    window->kind = kind;
    window->granules = granules;
    ash_task_pool_start(&copy->pool, &window->task);
}

/* Zeroes over many windows. */
ASH_CO_FN static int skip_zeroes(struct copy *copy, uint64_t offset, uint64_t bytes)
{
    const struct convert *convert = copy->convert;
    int ret = 0;
    if (convert->zero_init) {
        return 0;
    }
    for (uint64_t done = 0; done < bytes && ret == 0 && !ash_tool_interrupted();
         done += ZERO_STEP_BYTES) {
        ret = ash_disk_zero(convert->target_disk, offset + done,
                            ASH_MIN(ZERO_STEP_BYTES, bytes - done), ASH_REQ_UNMAP);
    }
    if (ret < 0) {
        ash_tool_error("%s: error while writing zeroes at byte %" PRIu64 ": %s",
                       convert->target.filename, offset, strerror(-ret));
    }
    return ret;
}

/* Holds back what the rate does not allow yet. */
ASH_CO_FN static void throttle(const struct copy *copy, uint64_t moved_bytes)
{
    if (copy->convert->rate != 0) {
        double seconds = (double)moved_bytes / (double)copy->convert->rate;
        ash_co_sleep_until(copy->begin_ns + (uint64_t)(seconds * 1e9));
    }
}

ASH_CO_FN static int walk(struct copy *copy)
{
    struct convert *convert = copy->convert;
    uint64_t known_end = 0;
    uint64_t moved_bytes = 0;
    enum kind kind = KIND_UNKNOWN;
    for (uint64_t at = 0; at < convert->total_bytes && !copy->failed && !ash_tool_interrupted();) {
        if (known_end <= at) {
            uint64_t holds;
            int ret = kind_at(copy, at, convert->total_bytes - at, &kind, &holds);
            if (ret < 0) {
                return ret;
            }
            known_end = at + holds;
        }
        uint64_t whole_end = known_end == convert->total_bytes
                                 ? known_end
                                 : ash_align_down(known_end, copy->granule_bytes);
        uint64_t window_end = ASH_MIN(ash_align_down(at, copy->window_bytes) + copy->window_bytes,
                                      convert->total_bytes);
        if (kind != KIND_DATA && whole_end > at && whole_end >= window_end) {
            int ret = kind == KIND_ZERO ? skip_zeroes(copy, at, whole_end - at) : 0;
            if (ret < 0) {
                return ret;
            }
            add_done(copy, whole_end - at);
            at = whole_end;
            continue;
        }
        throttle(copy, moved_bytes);
        copy->moved = true;
        moved_bytes += window_end - at;
        start_window(copy, at, window_end - at, known_end >= window_end ? kind : KIND_UNKNOWN);
        at = window_end;
    }
    return 0;
}

static uint64_t granule_of(const struct convert *convert)
{
    const struct ash_limits *limits = &ash_disk_node(convert->target_disk)->limits;
    uint64_t sparse = ASH_MAX(convert->sparse_bytes, GRANULE_BYTES_MIN);
    uint64_t granule = GRANULE_BYTES_MAX;
    while (granule > sparse) {
        granule /= 2;
    }
    granule = ASH_MAX(granule, limits->request_alignment);
    return ASH_MAX(granule, limits->cluster);
}

int ash_convert_copy(struct convert *convert)
{
    struct ash_loop *loop = ash_co_loop();
    struct copy copy = {.convert = convert, .begin_ns = ash_loop_now(loop)};
    copy.granule_bytes = granule_of(convert);
    copy.window_bytes = ASH_MAX(WINDOW_BYTES_MIN, copy.granule_bytes);
    copy.buffers = g_ptr_array_new();
    ash_task_pool_init(&copy.pool, &loop->sched, convert->windows);
    int ret = walk(&copy);
    int pool_ret = ash_task_pool_finish(&copy.pool);
    ret = ret < 0 ? ret : pool_ret;
    if (ret == 0 && ash_tool_interrupted()) {
        ret = -EINTR;
    }
    if (ret == 0 && copy.moved) {
        ash_progress_set(&convert->progress, 100);
    }
    for (guint i = 0; i < copy.buffers->len; i++) {
        ash_buffer_free(loop, g_ptr_array_index(copy.buffers, i), copy.window_bytes);
    }
    g_ptr_array_free(copy.buffers, TRUE);
    return ret;
}
