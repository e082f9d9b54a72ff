/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mirroring; see the header. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/driver.h"
#include "block/filter/mirror_top.h"
#include "block/graph/graft.h"
#include "block/graph/open.h"
#include "block/graph/pause.h"
#include "job/chain.h"
#include "job/mirror.h"
#include "job/sweep.h"
#include "job/target.h"
#include "util/assert.h"
#include "util/range.h"

#define PIECE_BYTES (1 * MiB)
#define REST_BYTES                                                                                 \
    (16 * MiB)       /* so much is copied while the guest is paused, or what is left after */
#define ROUNDS_MAX 8 /* so many rounds in which a busy guest kept it above that */

static const char *const sync_names[] = {"full", "top", "none", "incremental", NULL};

static const char *const copy_mode_names[] = {"background", "write-blocking", NULL};

struct ash_mirror_sweep {
    struct ash_sweep sweep;
    struct ash_mirror *mirror;  /* not to be looked at once forsaken */
    struct ash_chain_hold hold; /* of a commit, or of what force has left behind */
    struct ash_copier *copier;
    uint64_t position;
    bool passed; /* all was looked at: while guests write, a run that is to end is one pass */
    struct ash_list works; /* of struct work */
};

/* A range that is being copied, on the stack of who copies it. */
struct work {
    struct ash_list link;
    uint64_t offset;
    uint64_t bytes;
};

static const struct ash_option mirror_options[] = {
    ASH_OPTION_STRING("device", struct ash_mirror, device, .help = "node of the source"),
    ASH_OPTION_STRING("target", struct ash_mirror, target_name,
                      .help = "node of the target, or a file name or description to be opened"),
    ASH_OPTION_STRING("format", struct ash_mirror, target_format,
                      .help = "driver for a target that is a file name"),
    ASH_OPTION_STRING("replaces", struct ash_mirror, replaces,
                      .help = "node whose users are led to the target; the source by default"),
    ASH_OPTION_STRING("filter-node-name", struct ash_mirror, filter_name,
                      .help = "name of the filter"),
    ASH_OPTION_STRING("bitmap", struct ash_mirror, bitmap_name,
                      .help = "for sync=incremental: what to copy"),
    ASH_OPTION_STRING("state-file", struct ash_mirror, state.name,
                      .help = "file that makes the job resumable; if it is one, resumes it"),
    ASH_OPTION_BOOL("state-unmarked", struct ash_mirror, state.unmarked,
                    .help = "vouches that images which cannot be marked are not changed between"),
    ASH_OPTION_ENUM("sync", struct ash_mirror, sync, sync_names,
                    .help = "what to copy: full, top, none, incremental"),
    ASH_OPTION_ENUM("copy-mode", struct ash_mirror, copy_mode, copy_mode_names,
                    .help = "background, or write-blocking: guests' writes go to both"),
    ASH_OPTION_SIZE("granularity", struct ash_mirror, granularity_bytes,
                    .help = "of the dirty bitmap, a power of two"),
    ASH_OPTION_BOOL("unmap", struct ash_mirror, unmap, .def = 1,
                    .help = "zeroes may give space back in the target"),
    ASH_OPTION_BOOL("use-copy-range", struct ash_mirror, use_copy_range,
                    .help = "has the kernel copy from file to file, where it can"),
    ASH_OPTION_BOOL("converge", struct ash_mirror, converge,
                    .help = "holds guests' writes back when the target cannot keep up"),
    ASH_OPTION_SIZE("converge-floor", struct ash_mirror, converge_floor, .def = MiB,
                    .help = "bytes per second that guests may always write"),
    ASH_OPTION_ENUM("on-source-error", struct ash_mirror, on_source_error, ash_on_error_names,
                    .help = "what an error of the source does: report, ignore, stop, enospc"),
    ASH_OPTION_ENUM("on-target-error", struct ash_mirror, on_target_error, ash_on_error_names,
                    .help = "the same for the target"),
    ASH_OPTION_END,
};

static struct ash_mirror *mirror_of(struct ash_job *job)
{
    return ash_container_of(job, struct ash_mirror, job);
}

/* --- the state file --- */

#define STATE_PART_BYTES (1 * MiB)

/* What was copied is made stable and noted in the state file, beside the job: it may be waited for
 * in vain. */
struct ash_mirror_tidying {
    struct ash_mirror *mirror; /* NULL: it has let go */
    struct ash_resume_file *resume;
    struct ash_copier *copier;
};

static void tidy(void *opaque)
{
    struct ash_mirror_tidying *tidying = opaque;
    ash_co_assert_inside();
    /* The source too: what it loses in a power cut, the target must not have kept. */
    if (ash_copier_flush_source(tidying->copier) == 0 && ash_copier_flush(tidying->copier) == 0) {
        ash_resume_tidy_end(tidying->resume);
    }
    if (tidying->mirror != NULL) {
        tidying->mirror->tidying = NULL;
        ash_job_kick(&tidying->mirror->job);
    }
    ash_copier_unref(tidying->copier);
    ash_resume_unref(tidying->resume);
    g_free(tidying);
}

/* Whether the target has got the range. */
static bool is_copied(void *opaque, uint64_t offset, uint64_t bytes)
{
    const struct ash_mirror *m = opaque;
    ash_list_for_each (work, &m->sweep->works, struct work, link) {
        if (work->offset < offset + bytes && offset < work->offset + work->bytes) {
            return false;
        }
    }
    return ash_bitmap_dirty_bytes_in(m->dirty, offset, bytes) == 0;
}

ASH_CO_FN static void tidy_now_and_then(struct ash_mirror *m)
{
    bool ending = m->goal != ASH_MIRROR_GOAL_NONE; /* all is copied soon */
    if (ending || m->tidying != NULL || !ash_job_file_is_due(&m->state, m->job.loop)) {
        return;
    }
    bool found = ash_resume_tidy_begin(m->state.resume, is_copied, m);
    ash_job_file_looked(&m->state, m->job.loop, found);
    if (!found) {
        return;
    }
    struct ash_mirror_tidying *tidying = g_new0(struct ash_mirror_tidying, 1);
    *tidying = (struct ash_mirror_tidying){m, m->state.resume, m->sweep->copier};
    ash_copier_ref(tidying->copier);
    ash_resume_ref(tidying->resume);
    m->tidying = tidying;
    if (ash_co_spawn(&m->job.loop->sched, tidy, tidying) < 0) {
        tidy(tidying);
    }
}

ASH_CO_FN static int open_state(struct ash_mirror *m, struct ash_error *error)
{
    uint64_t part = ASH_MAX(STATE_PART_BYTES, m->granularity_bytes);
    return ash_job_file_open(&m->state, m->job.loop, ASH_RESUME_MIRROR, part, false, m->source,
                             m->target, error);
}

/* The parts that the file has bits of, and what the source has grown by. */
static void mark_resumed(struct ash_mirror *m)
{
    const struct ash_resume_file *file = m->state.resume;
    uint64_t size = m->source->size_bytes;
    for (uint64_t i = 0;
         (i = ash_hbitmap_next_set(&file->now, i, file->now.bits)) != ASH_HBITMAP_NONE; i++) {
        uint64_t at = i * file->part_bytes;
        if (at < size) {
            ash_bitmap_set(m->dirty, at, ASH_MIN(file->part_bytes, size - at));
        }
    }
    if (size > file->size_bytes) {
        ash_bitmap_set(m->dirty, file->size_bytes, size - file->size_bytes);
    }
}

/* What is marked is in the file: from here on the job can be resumed. */
ASH_CO_FN static int begin_state(struct ash_mirror *m, struct ash_error *error)
{
    uint64_t at = 0;
    uint64_t bytes = 0;
    if (m->state.resume == NULL || m->state.resume->resumed) {
        return 0;
    }
    while (ash_bitmap_next_dirty(m->dirty, at + bytes, UINT64_MAX, UINT64_MAX, &at, &bytes)) {
        ash_resume_put(m->state.resume, at, bytes, true);
    }
    return ash_job_file_begin(&m->state, &m->sweep->sweep, error);
}

ASH_CO_FN static void let_state_go(struct ash_mirror *m)
{
    if (m->tidying != NULL) {
        m->tidying->mirror = NULL;
        m->tidying = NULL;
    }
    ash_job_file_let_go(&m->state);
}

/* --- the sweep --- */

ASH_CO_FN static int mirror_next(struct ash_sweep *sweep, uint64_t *offset, uint64_t *bytes)
{
    struct ash_mirror_sweep *s = ash_container_of(sweep, struct ash_mirror_sweep, sweep);
    struct ash_bitmap *dirty = s->mirror->dirty;
    uint64_t cluster = s->copier->cluster_bytes;
    uint64_t piece = ASH_MAX(sweep->piece_bytes, cluster);
    uint64_t found;
    uint64_t length;
    *bytes = 0;
    tidy_now_and_then(s->mirror);
    bool one_pass = s->mirror->goal != ASH_MIRROR_GOAL_NONE && !s->mirror->paused;
    if (ash_bitmap_is_clean(dirty) || (one_pass && s->passed)) {
        return 0;
    }
    if (!ash_bitmap_next_dirty(dirty, s->position, UINT64_MAX, piece, &found, &length)) {
        s->position = 0;
        s->passed = true;
        if (one_pass || !ash_bitmap_next_dirty(dirty, 0, UINT64_MAX, piece, &found, &length)) {
            return 0;
        }
    }
    *offset = ash_align_down(found, cluster);
    *bytes = ash_align_up(found + length, cluster) - *offset;
    s->position = *offset + *bytes;
    return 0;
}

/* The source may have grown since the sweep began. */
ASH_CO_FN static int follow_length(struct ash_mirror_sweep *s)
{
    int ret = ash_copier_enter_target(s->copier);
    if (ret == 0) {
        ret = ash_job_fit_target(s->copier->target, s->mirror->source->size_bytes, NULL);
        ash_copier_leave_target(s->copier);
    }
    return ret;
}

/* One dirty range, under its lock. Bits first, then the data: what a guest changes meanwhile is
 * dirty again when it ends. */
ASH_CO_FN static int copy_dirty(struct ash_mirror_sweep *s, uint64_t offset, uint64_t bytes,
                                bool *reading)
{
    ash_bitmap_reset(s->mirror->dirty, offset, bytes);
    int ret = follow_length(s);
    ret = ret < 0 ? ret : ash_copier_copy(s->copier, offset, bytes, reading);
    if (ret < 0 && s->sweep.job != NULL) {
        ash_bitmap_set(s->mirror->dirty, offset, bytes);
    }
    if (ret == 0 && s->sweep.job != NULL) {
        ash_job_progress(s->sweep.job, bytes);
    }
    return ret;
}

/* What is still dirty of a range that was handed out: bits are reset only here, so the same range
 * may have been handed out several times. */
ASH_CO_FN static int mirror_copy(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes,
                                 bool *reading)
{
    struct ash_mirror_sweep *s = ash_container_of(sweep, struct ash_mirror_sweep, sweep);
    uint64_t cluster = s->copier->cluster_bytes;
    uint64_t end = offset + bytes;
    uint64_t found;
    uint64_t length;
    struct ash_range_lock lock;
    *reading = false;
    int ret = ash_copier_begin(s->copier, &lock, offset, bytes);
    if (ret < 0) {
        return ret;
    }
    struct work work = {.offset = offset, .bytes = bytes};
    ash_list_push_back(&s->works, &work.link);
    while (ret == 0 && sweep->job != NULL && offset < end &&
           ash_bitmap_next_dirty(s->mirror->dirty, offset, end, bytes, &found, &length)) {
        offset = ash_align_down(found, cluster);
        length = ash_align_up(found + length, cluster) - offset;
        ret = copy_dirty(s, offset, length, reading);
        offset += length;
    }
    ash_list_remove(&work.link);
    ash_copier_end(s->copier, &lock);
    return ret;
}

static void mirror_done(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes, int ret)
{
    (void)offset;
    (void)bytes;
    (void)ret;
    struct ash_mirror *m = ash_container_of(sweep, struct ash_mirror_sweep, sweep)->mirror;
    ash_job_progress_total(&m->job, atomic_load_explicit(&m->job.done_bytes, memory_order_relaxed) +
                                        sweep->bytes + ash_bitmap_dirty_bytes(m->dirty));
}

ASH_CO_FN static void mirror_release(struct ash_sweep *sweep)
{
    struct ash_mirror_sweep *s = ash_container_of(sweep, struct ash_mirror_sweep, sweep);
    ash_copier_unref(s->copier);
    ash_chain_release(&s->hold);
    g_free(s);
}

static const struct ash_sweep_ops mirror_sweep_ops = {
    .next = mirror_next,
    .copy = mirror_copy,
    .done = mirror_done,
    .release = mirror_release,
};

/* --- start and end --- */

ASH_CO_FN static int insert_filter(struct ash_mirror *m, struct ash_error *error)
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
    m->filter->flags |= ASH_NODE_JOBS;
    struct ash_pause pause;
    ret = ash_pause_begin(&pause, m->job.loop, &m->source, 1, UINT64_MAX);
    ash_assert(ret == 0);
    ret = ash_graft_insert(m->filter, error);
    if (ret == 0) {
        ash_bitmap_enable(m->dirty); /* from here on every change is marked */
        ash_mirror_top_of(m->filter)->resume = m->state.resume;
    }
    ash_pause_end(&pause);
    return ret;
}

ASH_CO_FN static void remove_filter(struct ash_mirror *m)
{
    struct ash_mirror_top *top = ash_mirror_top_of(m->filter);
    if (!m->paused) {
        ash_job_file_pause(&m->state, &m->job, &m->pause, m->source);
        m->paused = true;
    }
    ash_converge_stop(&m->throttle);
    int ret = ash_graft_remove(m->filter, NULL, NULL);
    ash_assert(ret == 0); /* the users have the rights that they had before */
    if (top->copier != NULL) {
        ash_copier_unref(top->copier);
        top->copier = NULL;
    }
    ash_node_unref(m->filter);
    m->filter = NULL;
    let_state_go(m); /* before anybody writes without the filter */
}

void ash_mirror_clean(struct ash_job *job)
{
    struct ash_mirror *m = mirror_of(job);
    bool busy = m->sweep != NULL && (m->sweep->sweep.tasks > 0 || m->tidying != NULL);
    if (busy && m->base != NULL) {
        ash_copier_abandon(m->sweep->copier);
    } else if (busy) {
        struct ash_chain_hold *hold = &m->sweep->hold;
        struct ash_copier *copier = m->sweep->copier;
        ash_copier_forsake(copier,
                           ash_chain_hold_forced(hold, job, m->source, copier->offloading > 0));
        if (!m->sweep->copier->abandoned) {
            ash_chain_release(hold);
        }
    }
    if (m->filter != NULL) {
        remove_filter(m);
    }
    let_state_go(m);
    if (m->paused) {
        ash_pause_end(&m->pause);
        m->paused = false;
    }
    if (m->sweep != NULL) {
        ash_sweep_drop(&m->sweep->sweep);
    }
    ash_chain_release(&m->hold); /* the sweep was not made */
    if (m->dirty != NULL) {
        ash_bitmap_free(m->dirty);
    }
    if (m->target != NULL) {
        ash_node_unref(m->target);
    }
    ash_node_unref(m->source);
}

static uint64_t granularity(const struct ash_mirror *m)
{
    return m->granularity_bytes != 0 ? m->granularity_bytes
                                     : ash_bitmap_default_granularity(m->target);
}

int ash_mirror_take(struct ash_mirror *m, struct ash_error *error)
{
    int ret = ash_bitmap_new(m->source, NULL, granularity(m), &m->dirty, error);
    if (ret < 0) {
        return ret;
    }
    ash_bitmap_disable(m->dirty);
    struct ash_copier_config config = {
        .source = m->source,
        .target = m->target,
        .base = m->base,
        .cluster_bytes_min = granularity(m),
        .flags = (m->use_copy_range ? ASH_COPY_OFFLOAD : ASH_COPY_DETECT_ZEROES) |
                 (m->unmap ? ASH_COPY_UNMAP : 0),
        .target_needs = ASH_RIGHT_RESIZE,
    };
    struct ash_copier *copier;
    ret = ash_copier_new(m->job.loop, &config, &copier, error);
    if (ret < 0) {
        return ret;
    }
    m->sweep = g_new0(struct ash_mirror_sweep, 1);
    m->sweep->mirror = m;
    m->sweep->copier = copier;
    ash_list_init(&m->sweep->works);
    ash_sweep_init(&m->sweep->sweep, &mirror_sweep_ops, &m->job);
    m->sweep->sweep.on_source_error = (enum ash_on_error)m->on_source_error;
    m->sweep->sweep.on_target_error = (enum ash_on_error)m->on_target_error;
    m->sweep->hold = m->hold;
    m->hold = (struct ash_chain_hold){0};
    m->sweep->sweep.forsakable = true;
    m->sweep->sweep.grace_ns = m->base != NULL ? ASH_SWEEP_GRACE_NS : 0;
    m->sweep->sweep.remembers = true;
    ret = insert_filter(m, error);
    if (ret == 0) {
        struct ash_mirror_top *top = ash_mirror_top_of(m->filter);
        ash_copier_ref(copier);
        top->copier = copier;
        top->dirty = m->dirty;
        top->write_blocking = m->copy_mode == ASH_MIRROR_WRITE_BLOCKING;
        if (m->converge) {
            ash_converge_start(&m->throttle, &m->job, m->filter, m->dirty, m->converge_floor);
        }
    }
    return ret;
}

struct ash_chain_hold *ash_mirror_hold(struct ash_mirror *m)
{
    return &m->sweep->hold;
}

ASH_CO_FN static int mirror_start(struct ash_job *job, struct ash_error *error)
{
    struct ash_mirror *m = mirror_of(job);
    int ret = ash_job_find_node(job->loop, "device", m->device, &m->source, error);
    if (ret < 0) {
        return ret;
    }
    if (m->sync == ASH_MIRROR_INCREMENTAL && m->bitmap_name == NULL) {
        return ash_error_set(error, -EINVAL, "sync=incremental needs 'bitmap'");
    }
    ash_node_ref(m->source);
    ret = ash_job_open_target(job->loop, m->target_name, m->target_format, &m->target, error);
    if (ret == 0 && m->target == m->source) {
        ret = ash_error_set(error, -EINVAL, "'%s' cannot be mirrored to itself", m->device);
    }
    if (ret == 0 && m->state.name != NULL) {
        ret = open_state(m, error);
    }
    if (ret == 0) {
        ret = ash_mirror_take(m, error);
    }
    if (ret < 0) {
        ash_mirror_clean(job);
    }
    return ret;
}

/* --- the work --- */

struct lookup {
    const struct ash_node *base;
    uint64_t offset;
    uint64_t bytes;
    bool decided;
};

ASH_CO_FN static int look_up(struct ash_sweep *sweep, void *args)
{
    struct ash_mirror_sweep *s = ash_container_of(sweep, struct ash_mirror_sweep, sweep);
    struct lookup *lookup = args;
    return ash_copier_lookup(s->copier, lookup->base, lookup->offset, lookup->bytes, &lookup->bytes,
                             &lookup->decided);
}

/* Marks what layers above `base` hold. */
ASH_CO_FN static int mark_above(struct ash_mirror *m, const struct ash_node *base)
{
    uint64_t size = m->source->size_bytes;
    for (uint64_t at = 0, same = 0; at < size; at += same) {
        struct lookup lookup = {.base = base, .offset = at, .bytes = size - at};
        int ret = ash_job_pause_point(&m->job, 0, NULL, NULL);
        if (ret < 0) {
            return ret;
        }
        ret = ash_sweep_aside(&m->sweep->sweep, look_up, &lookup, sizeof(lookup));
        bool decided = lookup.decided;
        same = lookup.bytes;
        if (ret < 0) {
            enum ash_on_error policy = (enum ash_on_error)m->on_source_error;
            policy = ash_job_io_error(&m->job, policy, ret);
            if (policy == ASH_ON_ERROR_REPORT) {
                return ret;
            }
            /* Whoever copies it will look at it again. */
            decided = policy == ASH_ON_ERROR_IGNORE;
            same = decided ? ASH_MIN(size - at, PIECE_BYTES) : 0;
        }
        if (decided) {
            ash_bitmap_set(m->dirty, at, same);
        }
    }
    return 0;
}

/* Marks what is to be copied first. */
ASH_CO_FN static int mark(struct ash_mirror *m, struct ash_error *error)
{
    uint64_t size = m->source->size_bytes;
    if (ash_job_file_is_resumed(&m->state)) {
        mark_resumed(m);
        return 0;
    }
    if (m->base != NULL) {
        return mark_above(m, m->base);
    }
    uint64_t hides_from = ash_job_hides_from(m->target);
    if (hides_from < size) {
        ash_bitmap_set(m->dirty, hides_from, size - hides_from);
    }
    if (m->sync == ASH_MIRROR_FULL) {
        ash_bitmap_set(m->dirty, 0, size);
    } else if (m->sync == ASH_MIRROR_INCREMENTAL) {
        struct ash_bitmap *from = ash_bitmap_find(m->source, m->bitmap_name);
        if (from == NULL) {
            return ash_error_set(error, -ENOENT, "Node '%s' has no bitmap '%s'", m->source->name,
                                 m->bitmap_name);
        }
        int ret = ash_bitmap_check(from, ASH_BITMAP_TO_READ, error);
        return ret < 0 ? ret : ash_bitmap_merge(m->dirty, from, NULL, error);
    } else if (m->sync == ASH_MIRROR_TOP) {
        struct ash_node *mapped = ash_graft_mapped(m->source);
        return mark_above(m, mapped != NULL && mapped->backing != NULL ? mapped->backing->child
                                                                       : NULL);
    }
    return 0;
}

/* Steps at the target; what they say goes into the job's error. */
ASH_CO_FN static int flush_target(struct ash_sweep *sweep)
{
    struct ash_mirror_sweep *s = ash_container_of(sweep, struct ash_mirror_sweep, sweep);
    int ret = ash_copier_flush(s->copier);
    if (ret < 0 && sweep->job != NULL) {
        ash_error_errno(&sweep->job->error, ret, "Flushing '%s' failed",
                        s->copier->target->child->filename);
    }
    return ret;
}

ASH_CO_FN static int fit_target(struct ash_sweep *sweep)
{
    struct ash_mirror_sweep *s = ash_container_of(sweep, struct ash_mirror_sweep, sweep);
    return ash_sweep_fit_target(sweep, s->copier, s->mirror->source->size_bytes);
}

/* The users' disk keeps its length. Of a base that is what it has beyond that the chain did not
 * show; another target that cannot be made shorter stays as it is. */
ASH_CO_FN static int cut_target(struct ash_sweep *sweep)
{
    struct ash_mirror_sweep *s = ash_container_of(sweep, struct ash_mirror_sweep, sweep);
    const struct ash_mirror *m = s->mirror;
    return ash_sweep_cut_target(sweep, s->copier, m->source->size_bytes, m->base != NULL);
}

/* Copies until nothing is dirty; and what the source has grown. */
ASH_CO_FN static int catch_up(struct ash_mirror *m, struct ash_error *error)
{
    int ret = ash_sweep_step(&m->sweep->sweep, fit_target);
    if (ret == 0) {
        m->sweep->passed = false;
        ret = ash_sweep_run(&m->sweep->sweep);
        if (ret < 0 && ret != -ECANCELED) {
            ash_error_errno(error, ret, "Mirroring '%s' failed", m->source->filename);
        }
    }
    return ret;
}

/* Ready: keeps up with the guests until the user says how it is to end. */
ASH_CO_FN static int keep_up(struct ash_mirror *m, struct ash_error *error)
{
    int ret = 0;
    while (ret == 0 && m->goal == ASH_MIRROR_GOAL_NONE) {
        ret = catch_up(m, error);
        if (ret == 0 && m->goal == ASH_MIRROR_GOAL_NONE && ash_bitmap_is_clean(m->dirty)) {
            ash_co_queue_wait(&m->dirty->dirtied); /* or for a verb: see ash_mirror_kick() */
            ret = ash_job_pause_point(&m->job, 0, NULL, NULL);
        }
    }
    return ret;
}

/* Copies the rest while the users are paused. They go on when that fails. */
ASH_CO_FN static int copy_rest(struct ash_mirror *m, struct ash_error *error)
{
    struct ash_mirror_sweep *s = m->sweep;
    if (m->job.cancelled) {
        return -ECANCELED;
    }
    m->pausing = true;
    int ret = ash_pause_begin(&m->pause, m->job.loop, &m->source, 1, UINT64_MAX);
    m->pausing = false;
    if (ret < 0) { /* given up, as guests wait for what does not answer */
        return ret;
    }
    m->paused = true;
    s->copier->through_gates = true;
    s->sweep.hasty = true;
    ret = catch_up(m, error);
    if (ret == 0 && m->base == NULL) { /* who commits keeps what base has beyond */
        ret = ash_sweep_step(&s->sweep, cut_target);
    }
    if (ret == 0) {
        ret = ash_sweep_step(&s->sweep, flush_target);
    }
    s->sweep.hasty = false;
    if (ret < 0) {
        s->copier->through_gates = false;
        ash_pause_end(&m->pause);
        m->paused = false;
    }
    return ret;
}

/* Copies until little is dirty, and then, while the users are paused, the rest. When that fails the
 * policy decides whether it is tried again. */
ASH_CO_FN static int finish(struct ash_mirror *m, struct ash_error *error)
{
    struct ash_sweep *sweep = &m->sweep->sweep;
    while (m->tidying != NULL && !m->job.cancelled) { /* it would be in the way of what follows */
        ash_job_wait(&m->job, UINT64_MAX);
    }
    for (;;) {
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
        ret = copy_rest(m, error);
        if (ret == 0 || ret == -ECANCELED || !ash_sweep_goes_on(sweep, ret)) {
            return ret;
        }
        ret = ash_job_pause_point(&m->job, 0, NULL, NULL);
        if (ret < 0) {
            return ret;
        }
    }
}

int ash_mirror_run(struct ash_job *job, struct ash_error *error)
{
    struct ash_mirror *m = mirror_of(job);
    int ret = mark(m, error);
    ret = ret < 0 ? ret : begin_state(m, error);
    if (ret == 0) {
        ash_mirror_top_of(m->filter)->marked = true;
        ret = catch_up(m, error);
    }
    if (ret == 0) {
        ret = ash_sweep_step(&m->sweep->sweep, flush_target);
    }
    if (ret == 0) {
        m->was_ready = true;
        ash_job_ready(job);
        ret = keep_up(m, error);
    }
    if (ret == 0) {
        ret = finish(m, error);
    }
    while (m->tidying != NULL && !job->forced) { /* it uses the target, as copies do */
        ash_job_wait(job, UINT64_MAX);
    }
    return ret;
}

/* --- the end --- */

/* Leads the users of what is replaced to the target. Who would start it again must not copy over
 * what guests write next: so the state file says that it has ended, as the last step before that. A
 * job that is refused earlier can be resumed. */
int ash_mirror_prepare(struct ash_job *job, struct ash_error *error)
{
    struct ash_mirror *m = mirror_of(job);
    if (m->goal != ASH_MIRROR_GOAL_PIVOT) {
        return ash_job_file_end(&m->state, &m->sweep->sweep, error);
    }
    struct ash_node *replaced = m->filter;
    if (m->replaces != NULL) {
        int ret = ash_job_find_node(job->loop, "replaces", m->replaces, &replaced, error);
        if (ret < 0) {
            return ret;
        }
    }
    int ret = m->base != NULL ? cut_target(&m->sweep->sweep) : 0; /* into the job's error */
    if (ret == 0 && m->base != NULL) { /* or a cut of the power would give it its length back */
        ret = flush_target(&m->sweep->sweep);
    }
    if (ret < 0) {
        return ret;
    }
    ash_copier_yield_target(m->sweep->copier);
    ret = ash_job_file_end(&m->state, &m->sweep->sweep, error);
    return ret < 0 ? ret : ash_graft_lead(replaced, m->target, error);
}

int ash_mirror_complete(struct ash_job *job, struct ash_error *error)
{
    struct ash_mirror *m = mirror_of(job);
    if (m->goal != ASH_MIRROR_GOAL_NONE) {
        return ash_error_set(error, -EBUSY, "Job '%s' is ending already", job->id);
    }
    m->goal = ASH_MIRROR_GOAL_PIVOT;
    return 0;
}

bool ash_mirror_cancel(struct ash_job *job)
{
    struct ash_mirror *m = mirror_of(job);
    if (!m->was_ready) {
        return false;
    }
    m->goal = m->goal == ASH_MIRROR_GOAL_NONE ? ASH_MIRROR_GOAL_KEEP : m->goal;
    return true;
}

void ash_mirror_kick(struct ash_job *job)
{
    struct ash_mirror *m = mirror_of(job);
    ash_co_queue_wake_all(&m->dirty->dirtied);
    if (m->pausing && job->cancelled) {
        ash_pause_give_up(&m->pause);
    }
}

/* What can change while it runs. */
static const struct ash_option change_options[] = {
    ASH_OPTION_ENUM("copy-mode", struct ash_mirror, copy_mode, copy_mode_names),
    ASH_OPTION_END,
};

static int mirror_change(struct ash_job *job, json_t *options, struct ash_error *error)
{
    struct ash_mirror *m = mirror_of(job);
    int before = m->copy_mode;
    int ret = ash_options_take(change_options, options, m, error);
    if (ret == 0) {
        ret = ash_options_refuse_rest(options, "Changing a mirror", error);
    }
    if (ret < 0) {
        m->copy_mode = before;
        return ret;
    }
    ash_mirror_top_of(m->filter)->write_blocking = m->copy_mode == ASH_MIRROR_WRITE_BLOCKING;
    return 0;
}

extern const struct ash_job_driver ash_job_mirror;
const struct ash_job_driver ash_job_mirror = {
    .type = "mirror",
    .job_size = sizeof(struct ash_mirror),
    .options = mirror_options,
    .start = mirror_start,
    .run = ash_mirror_run,
    .prepare = ash_mirror_prepare,
    .clean = ash_mirror_clean,
    .complete = ash_mirror_complete,
    .cancel = ash_mirror_cancel,
    .change = mirror_change,
    .kick = ash_mirror_kick,
};
