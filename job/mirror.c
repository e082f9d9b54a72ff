/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mirror: a target comes to equal its source, and stays equal, until the user has the source's
 * users led to the target (complete), or keeps it as a copy (cancel).
 *
 *     copy ──(nothing dirty, flushed)──▶ ready: keep up ──complete, cancel──▶ pause the users,
 *     copy the rest, flush ──▶ end; in commit: lead the users to the target
 *
 * Invariants:
 *  1. A bit of the bitmap is set where the target may differ. It is reset before the source is
 * read, and set again when copying fails.
 *  2. The end is decided only while the users are paused and nothing is in flight: then no bit set
 *     means that target and source are equal. The users stay paused until they have been led over.
 *  3. A job that ends well has flushed the target after the last write to it. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/bitmap/bitmap.h"
#include "block/copy/copier.h"
#include "block/filter/mirror_top.h"
#include "block/graph/graft.h"
#include "block/graph/open.h"
#include "block/graph/pause.h"
#include "job/chain.h"
#include "job/job.h"
#include "job/sweep.h"
#include "job/target.h"
#include "util/assert.h"
#include "util/range.h"

#define PIECE_BYTES (1 * MiB)
#define REST_BYTES                                                                                 \
    (16 * MiB)       /* so much is copied while the guest is paused, or what is left after */
#define ROUNDS_MAX 8 /* so many rounds in which a busy guest kept it above that */

enum sync { SYNC_FULL, SYNC_TOP, SYNC_NONE, SYNC_INCREMENTAL };
static const char *const sync_names[] = {"full", "top", "none", "incremental", NULL};

enum copy_mode { COPY_BACKGROUND, COPY_WRITE_BLOCKING };
static const char *const copy_mode_names[] = {"background", "write-blocking", NULL};

/* How it ends. */
enum goal { GOAL_NONE, GOAL_PIVOT, GOAL_KEEP };

struct mirror {
    struct ash_job job;
    char *device;
    char *target_name;
    char *target_format;
    char *replaces;
    char *filter_name;
    char *bitmap_name;
    int sync;
    int copy_mode;
    uint64_t granularity_bytes;
    bool unmap;
    int on_source_error;
    int on_target_error;

    struct ash_node *source;
    struct ash_node *target;
    struct ash_node *filter;
    struct ash_bitmap *dirty;
    struct mirror_sweep *sweep;
    struct ash_pause pause;
    bool paused;
    bool was_ready;
    enum goal goal;
};

struct mirror_sweep {
    struct ash_sweep sweep;
    struct mirror *mirror; /* not to be looked at once forsaken */
    struct ash_copier *copier;
    uint64_t position;
};

static const struct ash_option mirror_options[] = {
    ASH_OPTION_STRING("device", struct mirror, device, .help = "node of the source"),
    ASH_OPTION_STRING("target", struct mirror, target_name,
                      .help = "node of the target, or a file name or description to be opened"),
    ASH_OPTION_STRING("format", struct mirror, target_format,
                      .help = "driver for a target that is a file name"),
    ASH_OPTION_STRING("replaces", struct mirror, replaces,
                      .help = "node whose users are led to the target; the source by default"),
    ASH_OPTION_STRING("filter-node-name", struct mirror, filter_name, .help = "name of the filter"),
    ASH_OPTION_STRING("bitmap", struct mirror, bitmap_name,
                      .help = "for sync=incremental: what to copy"),
    ASH_OPTION_ENUM("sync", struct mirror, sync, sync_names,
                    .help = "what to copy: full, top, none, incremental"),
    ASH_OPTION_ENUM("copy-mode", struct mirror, copy_mode, copy_mode_names,
                    .help = "background, or write-blocking: guests' writes go to both"),
    ASH_OPTION_SIZE("granularity", struct mirror, granularity_bytes,
                    .help = "of the dirty bitmap, a power of two"),
    ASH_OPTION_BOOL("unmap", struct mirror, unmap, .def = 1,
                    .help = "zeroes may give space back in the target"),
    ASH_OPTION_ENUM("on-source-error", struct mirror, on_source_error, ash_on_error_names,
                    .help = "what an error of the source does: report, ignore, stop, enospc"),
    ASH_OPTION_ENUM("on-target-error", struct mirror, on_target_error, ash_on_error_names,
                    .help = "the same for the target"),
    ASH_OPTION_END,
};

static struct mirror *mirror_of(struct ash_job *job)
{
    return ash_container_of(job, struct mirror, job);
}

/* --- the sweep --- */

ASH_CO_FN static int mirror_next(struct ash_sweep *sweep, uint64_t *offset, uint64_t *bytes)
{
    struct mirror_sweep *s = ash_container_of(sweep, struct mirror_sweep, sweep);
    struct ash_bitmap *dirty = s->mirror->dirty;
    uint64_t cluster = s->copier->cluster_bytes;
    uint64_t piece = ASH_MAX(PIECE_BYTES, cluster);
    uint64_t found;
    uint64_t length;
    *bytes = 0;
    if (ash_bitmap_is_clean(dirty)) {
        return 0;
    }
    if (!ash_bitmap_next_dirty(dirty, s->position, UINT64_MAX, piece, &found, &length)) {
        s->position = 0;
        if (!ash_bitmap_next_dirty(dirty, 0, UINT64_MAX, piece, &found, &length)) {
            return 0;
        }
    }
    *offset = ash_align_down(found, cluster);
    *bytes = ash_align_up(found + length, cluster) - *offset;
    s->position = *offset + *bytes;
    return 0;
}

ASH_CO_FN static int mirror_copy(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes,
                                 bool *reading)
{
    struct mirror_sweep *s = ash_container_of(sweep, struct mirror_sweep, sweep);
    struct ash_range_lock lock;
    *reading = false;
    int ret = ash_copier_begin(s->copier, &lock, offset, bytes);
    if (ret < 0) {
        return ret;
    }
    if (sweep->job != NULL) {
        /* Bits first, then the data: what a guest changes meanwhile is dirty again when it ends. */
        ash_bitmap_reset(s->mirror->dirty, offset, bytes);
        ret = ash_copier_copy(s->copier, offset, bytes, reading);
        if (ret < 0 && sweep->job != NULL) {
            ash_bitmap_set(s->mirror->dirty, offset, bytes);
        }
    }
    ash_copier_end(s->copier, &lock);
    return ret;
}

/* The total is what was copied and what is still dirty: it grows while guests write. */
static void mirror_done(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes, int ret)
{
    (void)offset;
    struct mirror *m = ash_container_of(sweep, struct mirror_sweep, sweep)->mirror;
    if (ret == 0) {
        ash_job_progress(&m->job, bytes);
    }
    ash_job_progress_total(&m->job, atomic_load_explicit(&m->job.done_bytes, memory_order_relaxed) +
                                        sweep->bytes + ash_bitmap_dirty_bytes(m->dirty));
}

ASH_CO_FN static void mirror_release(struct ash_sweep *sweep)
{
    struct mirror_sweep *s = ash_container_of(sweep, struct mirror_sweep, sweep);
    ash_copier_unref(s->copier);
    g_free(s);
}

static const struct ash_sweep_ops mirror_sweep_ops = {
    .next = mirror_next,
    .copy = mirror_copy,
    .done = mirror_done,
    .release = mirror_release,
};

/* --- start and end --- */

ASH_CO_FN static int insert_filter(struct mirror *m, struct ash_error *error)
{
    json_t *description = json_pack("{s:s, s:s}", "driver", "mirror-top", "file", m->source->name);
    if (m->filter_name != NULL) {
        json_object_set_new(description, "node-name", json_string(m->filter_name));
    }
    uint32_t flags = m->source->flags & (ASH_NODE_WRITE | ASH_NODE_DISCARD);
    int ret = ash_node_open(m->job.loop, description, flags, &m->filter, error);
    json_decref(description);
    if (ret < 0) {
        return ret;
    }
    struct ash_pause pause;
    ret = ash_pause_begin(&pause, m->job.loop, &m->source, 1, UINT64_MAX);
    ash_assert(ret == 0);
    ret = ash_graft_insert(m->filter, error);
    if (ret == 0) {
        ash_bitmap_enable(m->dirty); /* from here on every change is marked */
    }
    ash_pause_end(&pause);
    return ret;
}

ASH_CO_FN static void remove_filter(struct mirror *m)
{
    struct ash_mirror_top *top = ash_mirror_top_of(m->filter);
    if (!m->paused) {
        int ret = ash_pause_begin(&m->pause, m->job.loop, &m->source, 1, UINT64_MAX);
        ash_assert(ret == 0);
        m->paused = true;
    }
    int ret = ash_graft_remove(m->filter, NULL);
    ash_assert(ret == 0); /* the users have the rights that they had before */
    if (top->copier != NULL) {
        ash_copier_unref(top->copier);
        top->copier = NULL;
    }
    ash_node_unref(m->filter);
    m->filter = NULL;
}

ASH_CO_FN static void mirror_clean(struct ash_job *job)
{
    struct mirror *m = mirror_of(job);
    if (m->sweep != NULL && m->sweep->sweep.tasks > 0) {
        ash_copier_forsake(m->sweep->copier);
    }
    if (m->filter != NULL) {
        remove_filter(m);
    }
    if (m->paused) {
        ash_pause_end(&m->pause);
        m->paused = false;
    }
    if (m->sweep != NULL) {
        ash_sweep_drop(&m->sweep->sweep);
    }
    if (m->dirty != NULL) {
        ash_bitmap_free(m->dirty);
    }
    if (m->target != NULL) {
        ash_node_unref(m->target);
    }
    ash_node_unref(m->source);
}

static uint64_t granularity(const struct mirror *m)
{
    return m->granularity_bytes != 0 ? m->granularity_bytes
                                     : ash_bitmap_default_granularity(m->target);
}

ASH_CO_FN static int take(struct mirror *m, struct ash_error *error)
{
    int ret = ash_bitmap_new(m->source, NULL, granularity(m), &m->dirty, error);
    if (ret < 0) {
        return ret;
    }
    ash_bitmap_disable(m->dirty);
    struct ash_copier_config config = {
        .source = m->source,
        .target = m->target,
        .cluster_bytes_min = granularity(m),
        .flags = ASH_COPY_DETECT_ZEROES | (m->unmap ? ASH_COPY_UNMAP : 0),
        .target_needs = ASH_RIGHT_RESIZE,
    };
    struct ash_copier *copier;
    ret = ash_copier_new(m->job.loop, &config, &copier, error);
    if (ret < 0) {
        return ret;
    }
    m->sweep = g_new0(struct mirror_sweep, 1);
    m->sweep->mirror = m;
    m->sweep->copier = copier;
    ash_sweep_init(&m->sweep->sweep, &mirror_sweep_ops, &m->job);
    m->sweep->sweep.on_source_error = (enum ash_on_error)m->on_source_error;
    m->sweep->sweep.on_target_error = (enum ash_on_error)m->on_target_error;
    m->sweep->sweep.forsakable = true;
    ret = insert_filter(m, error);
    if (ret == 0) {
        struct ash_mirror_top *top = ash_mirror_top_of(m->filter);
        ash_copier_ref(copier);
        top->copier = copier;
        top->dirty = m->dirty;
        top->write_blocking = m->copy_mode == COPY_WRITE_BLOCKING;
    }
    return ret;
}

ASH_CO_FN static int mirror_start(struct ash_job *job, struct ash_error *error)
{
    struct mirror *m = mirror_of(job);
    int ret = ash_job_find_node(job->loop, "device", m->device, &m->source, error);
    if (ret < 0) {
        return ret;
    }
    if (m->sync == SYNC_INCREMENTAL && m->bitmap_name == NULL) {
        return ash_error_set(error, -EINVAL, "sync=incremental needs 'bitmap'");
    }
    ash_node_ref(m->source);
    ret = ash_job_open_target(job->loop, m->target_name, m->target_format, &m->target, error);
    if (ret == 0 && m->target == m->source) {
        ret = ash_error_set(error, -EINVAL, "'%s' cannot be mirrored to itself", m->device);
    }
    if (ret == 0) {
        ret = take(m, error);
    }
    if (ret < 0) {
        mirror_clean(job);
    }
    return ret;
}

/* --- the work --- */

/* Marks what is to be copied first. */
ASH_CO_FN static int mark(struct mirror *m, struct ash_error *error)
{
    uint64_t size = m->source->size_bytes;
    if (m->sync == SYNC_FULL) {
        ash_bitmap_set(m->dirty, 0, size);
    } else if (m->sync == SYNC_INCREMENTAL) {
        struct ash_bitmap *from = ash_bitmap_find(m->source, m->bitmap_name);
        if (from == NULL) {
            return ash_error_set(error, -ENOENT, "Node '%s' has no bitmap '%s'", m->source->name,
                                 m->bitmap_name);
        }
        int ret = ash_bitmap_check(from, ASH_BITMAP_TO_READ, error);
        return ret < 0 ? ret : ash_bitmap_merge(m->dirty, from, NULL, error);
    } else if (m->sync == SYNC_TOP) {
        struct ash_node *mapped = ash_graft_mapped(m->source);
        struct ash_copier *copier = m->sweep->copier;
        const struct ash_node *base =
            mapped != NULL && mapped->backing != NULL ? mapped->backing->child : NULL;
        for (uint64_t at = 0, same = 0; at < size; at += same) {
            bool decided;
            int ret = ash_job_pause_point(&m->job, 0, NULL, NULL);
            ret = ret < 0 ? ret : ash_copier_lookup(copier, base, at, size - at, &same, &decided);
            if (ret < 0) {
                return ret;
            }
            if (decided) {
                ash_bitmap_set(m->dirty, at, same);
            }
        }
    }
    return 0;
}

ASH_CO_FN static int flush(struct mirror *m, struct ash_error *error)
{
    int ret = ash_copier_flush(m->sweep->copier);
    return ret < 0 ? ash_error_errno(error, ret, "Flushing '%s' failed", m->target->filename) : 0;
}

/* Copies until nothing is dirty; and what the source has grown. */
ASH_CO_FN static int catch_up(struct mirror *m, struct ash_error *error)
{
    int ret = ash_job_fit_target(m->sweep->copier->target, m->source->size_bytes, error);
    if (ret == 0) {
        ret = ash_sweep_run(&m->sweep->sweep);
        if (ret < 0 && ret != -ECANCELED) {
            ash_error_errno(error, ret, "Mirroring '%s' failed", m->source->filename);
        }
    }
    return ret;
}

/* Ready: keeps up with the guests until the user says how it is to end. */
ASH_CO_FN static int keep_up(struct mirror *m, struct ash_error *error)
{
    int ret = 0;
    while (ret == 0 && m->goal == GOAL_NONE) {
        ret = catch_up(m, error);
        if (ret == 0 && m->goal == GOAL_NONE && ash_bitmap_is_clean(m->dirty)) {
            /* A guest's write does not wake the job: it looks again soon. */
            ash_job_wait(&m->job, ash_loop_now(m->job.loop) + 10000000);
            ret = ash_job_pause_point(&m->job, 0, NULL, NULL);
        }
    }
    return ret;
}

/* Pauses the users and copies the rest. */
ASH_CO_FN static int finish(struct mirror *m, struct ash_error *error)
{
    int ret = 0;
    for (unsigned round = 0; ret == 0 && round < ROUNDS_MAX; round++) {
        if (ash_bitmap_dirty_bytes(m->dirty) <= REST_BYTES) {
            break;
        }
        ret = catch_up(m, error);
    }
    if (ret < 0) {
        return ret;
    }
    ret = ash_pause_begin(&m->pause, m->job.loop, &m->source, 1, UINT64_MAX);
    ash_assert(ret == 0);
    m->paused = true;
    m->sweep->copier->through_gates = true;
    ret = catch_up(m, error);
    return ret < 0 ? ret : flush(m, error);
}

ASH_CO_FN static int mirror_run(struct ash_job *job, struct ash_error *error)
{
    struct mirror *m = mirror_of(job);
    int ret = mark(m, error);
    if (ret == 0) {
        ret = catch_up(m, error);
    }
    if (ret == 0) {
        ret = flush(m, error);
    }
    if (ret == 0) {
        m->was_ready = true;
        ash_job_ready(job);
        ret = keep_up(m, error);
    }
    if (ret == 0) {
        ret = finish(m, error);
    }
    return ret;
}

/* --- the end --- */

/* Leads the users of what is replaced to the target. */
ASH_CO_FN static int mirror_prepare(struct ash_job *job, struct ash_error *error)
{
    struct mirror *m = mirror_of(job);
    if (m->goal != GOAL_PIVOT) {
        return 0;
    }
    struct ash_node *replaced = m->filter;
    if (m->replaces != NULL) {
        int ret = ash_job_find_node(job->loop, "replaces", m->replaces, &replaced, error);
        if (ret < 0) {
            return ret;
        }
    }
    ash_copier_yield_target(m->sweep->copier);
    return ash_graft_lead(replaced, m->target, error);
}

static int mirror_complete(struct ash_job *job, struct ash_error *error)
{
    struct mirror *m = mirror_of(job);
    if (m->goal != GOAL_NONE) {
        return ash_error_set(error, -EBUSY, "Job '%s' is ending already", job->id);
    }
    m->goal = GOAL_PIVOT;
    return 0;
}

static bool mirror_cancel(struct ash_job *job)
{
    struct mirror *m = mirror_of(job);
    if (!m->was_ready) {
        return false;
    }
    m->goal = m->goal == GOAL_NONE ? GOAL_KEEP : m->goal;
    return true;
}

extern const struct ash_job_driver ash_job_mirror;
const struct ash_job_driver ash_job_mirror = {
    .type = "mirror",
    .job_size = sizeof(struct mirror),
    .options = mirror_options,
    .start = mirror_start,
    .run = mirror_run,
    .prepare = mirror_prepare,
    .clean = mirror_clean,
    .complete = mirror_complete,
    .cancel = mirror_cancel,
};
