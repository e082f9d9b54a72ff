/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Backup: the target gets the source as it was when the job was started.
 *
 *     guest ─▶ copy-before-write ─▶ source         the job copies source ─▶ target
 *                     └─ what guests are about to change, first ─▶ target
 *
 * With a fleecing image, guests never wait for the target:
 *
 *     guest ─▶ copy-before-write ─▶ source         the job copies snapshot-access ─▶ target
 *                     │    ▲                       and drops from the fleecing image what it has
 *                     │    └── snapshot-access
 *                     └─ what guests are about to change, first ─▶ fleecing image
 *
 * Invariants:
 *  1. From begin to clean every change of the source passes the filter.
 *  2. A cluster that the snapshot keeps is copied once: by a guest or by the sweep, whoever comes
 *     first. A job that ends has waited for both, unless it was ended by force.
 *  3. `todo` marks the clusters that the target lacks. Without fleecing it is what the filter has
 *     still to copy; with it, the sweep's own.
 *  4. The bitmap is frozen at the moment of the snapshot.
 *  5. With a state file, a guest changes a cluster only when the target has it, and the file says
 *     so, stably; a job that is resumed copies what the file says is still to be copied. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/bitmap/bitmap.h"
#include "block/driver.h"
#include "block/filter/copy_before_write.h"
#include "block/graph/graft.h"
#include "block/graph/open.h"
#include "block/graph/pause.h"
#include "job/chain.h"
#include "job/job.h"
#include "job/state.h"
#include "job/sweep.h"
#include "job/target.h"
#include "util/assert.h"
#include "util/range.h"

enum sync { SYNC_FULL, SYNC_TOP, SYNC_NONE, SYNC_INCREMENTAL, SYNC_BITMAP };
static const char *const sync_names[] = {"full", "top", "none", "incremental", "bitmap", NULL};

/* When the bitmap forgets what was copied. */
enum bitmap_mode { MODE_UNSET, MODE_ON_SUCCESS, MODE_ALWAYS, MODE_NEVER };
static const char *const bitmap_mode_names[] = {"unset", "on-success", "always", "never", NULL};

static const char *const on_cbw_error_names[] = {"break-snapshot", "break-guest-write", NULL};

struct backup {
    struct ash_job job;
    char *device;
    char *target_name;
    char *target_format;
    char *fleecing_name;
    char *filter_name;
    char *bitmap_name;
    struct ash_job_file state; /* its resume is the snapshot's, too, from begin on */
    int sync;
    int bitmap_mode;
    bool compress;
    bool use_copy_range;
    int on_source_error;
    int on_target_error;
    int on_cbw_error;
    uint64_t cbw_timeout_s;
    uint64_t cluster_bytes_min;

    struct ash_node *source;
    struct ash_node *target;
    struct ash_node *fleecing; /* NULL: none */
    struct ash_node *filter;
    struct ash_node *snapshot; /* with fleecing */
    struct ash_before_write *before_write;
    struct ash_bitmap *bitmap;   /* busy; frozen from begin on */
    struct ash_bitmap *changed;  /* sync=top: what was written while the layers were looked at */
    struct ash_hbitmap own_todo; /* with fleecing */
    struct ash_hbitmap *todo;
    struct backup_sweep *sweep;
    bool begun;
    uint64_t hides_from; /* of the target, before it was made longer: ash_job_hides_from() */
};

struct backup_sweep {
    struct ash_sweep sweep;
    struct backup *backup; /* not to be looked at once forsaken */
    struct ash_before_write *before_write;
    struct ash_copier *copier; /* with fleecing: to the target. Otherwise that of before_write */
    uint64_t position;         /* in clusters */
    bool fleecing;
    struct ash_chain_hold hold; /* of what force has left behind */
};

static const struct ash_option backup_options[] = {
    ASH_OPTION_STRING("device", struct backup, device, .help = "node of the source"),
    ASH_OPTION_STRING("target", struct backup, target_name,
                      .help = "node of the target, or a file name or description to be opened"),
    ASH_OPTION_STRING("format", struct backup, target_format,
                      .help = "driver for a target that is a file name"),
    ASH_OPTION_STRING("fleecing", struct backup, fleecing_name,
                      .help = "node, file name or description of an image that takes what guests "
                              "overwrite, so that they never wait for the target"),
    ASH_OPTION_STRING("filter-node-name", struct backup, filter_name, .help = "name of the filter"),
    ASH_OPTION_STRING("bitmap", struct backup, bitmap_name, .help = "a dirty bitmap of the source"),
    ASH_OPTION_STRING("state-file", struct backup, state.name,
                      .help = "file that makes the job resumable; if it is one, resumes it"),
    ASH_OPTION_BOOL("state-unmarked", struct backup, state.unmarked,
                    .help = "vouches that images which cannot be marked are not changed between"),
    ASH_OPTION_ENUM("sync", struct backup, sync, sync_names,
                    .help = "what to copy: full, top, none, incremental, bitmap"),
    ASH_OPTION_ENUM("bitmap-mode", struct backup, bitmap_mode, bitmap_mode_names,
                    .help = "when the bitmap forgets what was copied: on-success, always, never"),
    ASH_OPTION_BOOL("compress", struct backup, compress,
                    .help = "writes compressed clusters to the target"),
    ASH_OPTION_BOOL("use-copy-range", struct backup, use_copy_range,
                    .help = "has the kernel copy from file to file, where it can"),
    ASH_OPTION_ENUM("on-source-error", struct backup, on_source_error, ash_on_error_names,
                    .help = "what an error of the source does: report, ignore, stop, enospc"),
    ASH_OPTION_ENUM("on-target-error", struct backup, on_target_error, ash_on_error_names,
                    .help = "the same for the target"),
    ASH_OPTION_ENUM("on-cbw-error", struct backup, on_cbw_error, on_cbw_error_names,
                    .help = "what a failed copy for a guest's write breaks: break-snapshot (the "
                            "job fails) or break-guest-write"),
    ASH_OPTION_UINT("cbw-timeout", struct backup, cbw_timeout_s, .max = 1000000,
                    .help =
                        "seconds that a guest's write waits for a copy; 0: as long as it takes"),
    ASH_OPTION_SIZE("min-cluster-size", struct backup, cluster_bytes_min,
                    .help = "copies are at least so large; a power of two"),
    ASH_OPTION_END,
};

static struct backup *backup_of(struct ash_job *job)
{
    return ash_container_of(job, struct backup, job);
}

static uint64_t todo_bytes(const struct backup *b)
{
    return b->todo->count * b->sweep->copier->cluster_bytes;
}

/* --- the state file --- */

static void settle(void *opaque)
{
    struct ash_resume_file *file = opaque;
    ash_co_assert_inside();
    (void)!ash_resume_commit(file); /* what is not noted is copied once more */
    ash_resume_unref(file);
}

/* What was copied is made stable and noted, beside the job: it may be waited for in vain. */
ASH_CO_FN static void settle_now_and_then(struct backup *b)
{
    struct ash_resume_file *file = b->state.resume;
    if (ash_job_file_has_more(&b->state, b->job.loop)) {
        ash_resume_ref(file);
        if (ash_co_spawn(&b->job.loop->sched, settle, file) < 0) {
            settle(file);
        }
    }
}

/* The images are marked, or their marks are held, before anything is done to them: a change that is
 * made without the mark says that the job cannot go on. */
ASH_CO_FN static int open_state(struct backup *b, struct ash_error *error)
{
    int ret = ash_before_write_check_cluster(b->cluster_bytes_min, error);
    if (ret == 0 && b->fleecing != NULL) {
        ret = ash_error_set(error, -ENOTSUP, "A backup with a fleecing image cannot be resumed");
    }
    if (ret == 0) {
        uint64_t cluster = ash_copier_cluster(b->source, b->target, b->cluster_bytes_min);
        ret = ash_job_file_open(&b->state, b->job.loop, ASH_RESUME_BACKUP, cluster, true, b->source,
                                b->target, error);
    }
    return ret;
}

/* The users are paused, and what the snapshot keeps is known. From here on the job can be resumed.
 */
ASH_CO_FN static int begin_state(struct backup *b, struct ash_error *error)
{
    const struct ash_hbitmap *uncopied = &b->before_write->uncopied;
    uint64_t cluster = b->before_write->copier->cluster_bytes;
    if (b->state.resume == NULL) {
        return 0;
    }
    if (!b->state.resume->resumed) {
        /* What the moment is must outlive a power cut. */
        int ret = ash_copier_flush_source(b->before_write->copier);
        if (ret < 0) {
            return ash_error_errno(error, ret, "Flushing '%s' failed", b->source->filename);
        }
    }
    ash_resume_ref(b->state.resume);
    ash_before_write_record(b->before_write, b->state.resume);
    if (b->state.resume->resumed) {
        return 0;
    }
    for (uint64_t i = 0;
         (i = ash_hbitmap_next_set(uncopied, i, uncopied->bits)) != ASH_HBITMAP_NONE; i++) {
        ash_resume_put(b->state.resume, i * cluster, cluster, true);
    }
    return ash_job_file_begin_soon(&b->state, &b->sweep->sweep, error);
}

/* --- the sweep --- */

ASH_CO_FN static int backup_next(struct ash_sweep *sweep, uint64_t *offset, uint64_t *bytes)
{
    struct backup_sweep *s = ash_container_of(sweep, struct backup_sweep, sweep);
    const struct ash_hbitmap *todo = s->backup->todo;
    uint64_t cluster = s->copier->cluster_bytes;
    uint64_t first = ash_hbitmap_next_set(todo, s->position, UINT64_MAX);
    *bytes = 0;
    settle_now_and_then(s->backup);
    if (first == ASH_HBITMAP_NONE) {
        s->position = todo->bits;
        return 0;
    }
    uint64_t most = ASH_MIN(first + ASH_MAX(sweep->piece_bytes / cluster, 1), todo->bits);
    uint64_t next = ash_hbitmap_next_clear(todo, first, most);
    next = next == ASH_HBITMAP_NONE ? most : next;
    *offset = first * cluster;
    *bytes = (next - first) * cluster;
    s->position = next;
    return 0;
}

/* From the snapshot to the target, and then out of the fleecing image. */
ASH_CO_FN static int copy_snapshot(struct backup_sweep *s, uint64_t offset, uint64_t bytes,
                                   bool *reading)
{
    struct ash_range_lock lock;
    uint64_t cluster = s->copier->cluster_bytes;
    int ret = ash_copier_begin(s->copier, &lock, offset, bytes);
    if (ret == 0) {
        ret = ash_copier_copy(s->copier, offset, bytes, reading);
        ash_copier_end(s->copier, &lock);
    }
    if (ret == 0 && s->sweep.job != NULL) {
        ash_hbitmap_reset(s->backup->todo, offset / cluster, bytes / cluster);
        (void)!ash_before_write_drop(s->before_write, offset, bytes); /* costs space at worst */
    }
    return ret;
}

ASH_CO_FN static int backup_copy(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes,
                                 bool *reading)
{
    struct backup_sweep *s = ash_container_of(sweep, struct backup_sweep, sweep);
    *reading = false;
    int ret = s->fleecing ? copy_snapshot(s, offset, bytes, reading)
                          : ash_before_write_copy(s->before_write, offset, bytes, reading);
    if (ret < 0 && s->before_write->broken < 0) {
        /* There is nothing to try again. */
        sweep->on_source_error = ASH_ON_ERROR_REPORT;
        sweep->on_target_error = ASH_ON_ERROR_REPORT;
    }
    return ret;
}

/* What guests had copied counts too. */
static void show_progress(struct backup *b)
{
    uint64_t total = atomic_load_explicit(&b->job.total_bytes, memory_order_relaxed);
    uint64_t done = atomic_load_explicit(&b->job.done_bytes, memory_order_relaxed);
    uint64_t now = total - ASH_MIN(total, todo_bytes(b));
    if (now > done) {
        ash_job_progress(&b->job, now - done);
    }
}

static void backup_done(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes, int ret)
{
    (void)offset;
    (void)bytes;
    (void)ret;
    show_progress(ash_container_of(sweep, struct backup_sweep, sweep)->backup);
}

ASH_CO_FN static void backup_release(struct ash_sweep *sweep)
{
    struct backup_sweep *s = ash_container_of(sweep, struct backup_sweep, sweep);
    if (s->fleecing && s->copier != NULL) {
        ash_copier_unref(s->copier);
    }
    ash_before_write_unref(s->before_write);
    ash_chain_release(&s->hold);
    g_free(s);
}

static const struct ash_sweep_ops backup_sweep_ops = {
    .next = backup_next,
    .copy = backup_copy,
    .done = backup_done,
    .release = backup_release,
};

/* --- the filter --- */

ASH_CO_FN static int open_filter(struct backup *b, struct ash_error *error)
{
    const struct ash_node *target = b->fleecing != NULL ? b->fleecing : b->target;
    json_t *description = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I}", "driver", "copy-before-write", "file", b->source->name,
        "target", target->name, "on-cbw-error", on_cbw_error_names[b->on_cbw_error], "cbw-timeout",
        (json_int_t)b->cbw_timeout_s, "min-cluster-size", (json_int_t)b->cluster_bytes_min);
    if (b->filter_name != NULL) {
        json_object_set_new(description, "node-name", json_string(b->filter_name));
    }
    uint32_t flags = b->source->flags & (ASH_NODE_WRITE | ASH_NODE_DISCARD);
    int ret = ash_node_open(b->job.loop, description, flags, &b->filter, error);
    json_decref(description);
    if (ret == 0) {
        b->filter->flags |= ASH_NODE_JOBS;
        b->before_write = ash_before_write_of(b->filter);
    }
    return ret;
}

/* The users of the source are paused. */
ASH_CO_FN static void remove_filter(struct backup *b)
{
    if (b->begun) {
        int ret = ash_graft_remove(b->filter, b->snapshot, NULL);
        ash_assert(ret == 0); /* the users have the rights that they had before */
        b->begun = false;
    }
}

static void release_bitmaps(struct backup *b)
{
    if (b->bitmap != NULL) {
        if (b->bitmap->frozen) {
            ash_bitmap_join(b->bitmap);
        }
        ash_bitmap_set_busy(b->bitmap, false);
        b->bitmap = NULL;
    }
    if (b->changed != NULL) {
        ash_bitmap_free(b->changed);
        b->changed = NULL;
    }
}

/* Nobody is to wait for what is not wanted any more. What reads the source, and does not end soon,
 * stays behind: a snapshot, too, that is read, on its filter. */
ASH_CO_FN static void forsake(struct backup *b)
{
    struct backup_sweep *s = b->sweep;
    bool kernel = b->before_write->copier->offloading > 0; /* for guests, too */
    uint64_t deadline_ns =
        ash_chain_hold_forced(&s->hold, &b->job, s->fleecing ? b->filter : b->source, kernel);
    b->before_write->changed = NULL;
    ash_before_write_forsake(b->before_write, deadline_ns);
    if (s->fleecing && s->sweep.tasks > 0) {
        ash_copier_forsake(s->copier, deadline_ns);
    }
    if (!b->before_write->copier->abandoned && (s->copier == NULL || !s->copier->abandoned)) {
        ash_chain_release(&s->hold);
    }
}

ASH_CO_FN static void backup_clean(struct ash_job *job)
{
    struct backup *b = backup_of(job);
    release_bitmaps(b);
    if (b->sweep != NULL) {
        forsake(b);
        ash_sweep_drop(&b->sweep->sweep); /* before the snapshot that it reads */
    }
    if (b->begun) {
        struct ash_pause pause;
        ash_job_file_pause(&b->state, job, &pause, b->source);
        remove_filter(b);
        ash_job_file_let_go(&b->state); /* before anybody writes without the filter */
        ash_pause_end(&pause);
    }
    ash_job_file_let_go(&b->state);
    ash_hbitmap_destroy(&b->own_todo);
    struct ash_node *nodes[] = {b->snapshot, b->filter, b->fleecing, b->target, b->source};
    for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
        if (nodes[i] != NULL) {
            ash_node_unref(nodes[i]);
        }
    }
}

/* --- start --- */

static int check_bitmap(struct backup *b, struct ash_error *error)
{
    bool needs = b->sync == SYNC_INCREMENTAL || b->sync == SYNC_BITMAP;
    if (b->sync == SYNC_INCREMENTAL) {
        if (b->bitmap_mode != MODE_UNSET && b->bitmap_mode != MODE_ON_SUCCESS) {
            return ash_error_set(error, -EINVAL,
                                 "sync=incremental goes with bitmap-mode=on-success only");
        }
        b->bitmap_mode = MODE_ON_SUCCESS;
    }
    if (b->bitmap_name == NULL) {
        return needs ? ash_error_set(error, -EINVAL, "sync=%s needs 'bitmap'", sync_names[b->sync])
               : b->bitmap_mode != MODE_UNSET
                   ? ash_error_set(error, -EINVAL, "'bitmap-mode' needs 'bitmap'")
                   : 0;
    }
    if (b->sync == SYNC_NONE || b->bitmap_mode == MODE_UNSET) {
        return ash_error_set(error, -EINVAL,
                             b->sync == SYNC_NONE ? "sync=none takes no bitmap"
                                                  : "'bitmap' needs 'bitmap-mode'");
    }
    struct ash_bitmap *bitmap = ash_bitmap_find(b->source, b->bitmap_name);
    if (bitmap == NULL) {
        return ash_error_set(error, -ENOENT, "Node '%s' has no bitmap '%s'", b->source->name,
                             b->bitmap_name);
    }
    int ret = ash_bitmap_check(bitmap, ASH_BITMAP_TO_CHANGE, error);
    if (ret == 0) {
        ash_bitmap_set_busy(bitmap, true);
        b->bitmap = bitmap;
    }
    return ret;
}

/* sync=top: marks in `changed`, which records meanwhile, what the topmost layer holds. What guests
 * write in the meantime it holds then. */
ASH_CO_FN static int look_at_top(struct backup *b, struct ash_error *error)
{
    struct ash_node *mapped = ash_graft_mapped(b->source);
    const struct ash_node *base =
        mapped != NULL && mapped->backing != NULL ? mapped->backing->child : NULL;
    struct ash_copier *copier = b->before_write->copier;
    int ret = ash_bitmap_new(b->source, NULL, copier->cluster_bytes, &b->changed, error);
    for (uint64_t at = 0, same = 0; ret == 0 && at < b->source->size_bytes; at += same) {
        bool decided;
        ret = ash_copier_lookup(copier, base, at, b->source->size_bytes - at, &same, &decided);
        if (ret < 0) {
            return ash_error_errno(error, ret, "Cannot tell what '%s' holds", b->source->filename);
        }
        if (decided) {
            ash_bitmap_set(b->changed, at, same);
        }
    }
    return ret;
}

static void changed(void *opaque)
{
    struct backup *b = opaque;
    show_progress(b);
    ash_job_kick(&b->job);
}

ASH_CO_FN static void make_sweep(struct backup *b)
{
    b->sweep = g_new0(struct backup_sweep, 1);
    b->sweep->backup = b;
    b->sweep->before_write = b->before_write;
    ash_before_write_ref(b->before_write);
    b->sweep->fleecing = b->fleecing != NULL;
    if (!b->sweep->fleecing) {
        b->sweep->copier = b->before_write->copier;
        b->sweep->copier->flags |= ASH_COPY_UNMAP | (b->compress ? ASH_COPY_COMPRESS : 0) |
                                   (b->use_copy_range ? ASH_COPY_OFFLOAD : 0);
    }
    ash_sweep_init(&b->sweep->sweep, &backup_sweep_ops, &b->job);
    b->sweep->sweep.on_source_error = (enum ash_on_error)b->on_source_error;
    b->sweep->sweep.on_target_error = (enum ash_on_error)b->on_target_error;
    b->sweep->sweep.forsakable = true;
}

/* With fleecing: the way from the snapshot to the target. Not in begin, as what is opened above
 * paused nodes is paused too. */
ASH_CO_FN static int open_snapshot(struct backup *b, struct ash_error *error)
{
    json_t *description =
        json_pack("{s:s, s:s}", "driver", "snapshot-access", "file", b->filter->name);
    int ret = ash_node_open(b->job.loop, description, 0, &b->snapshot, error);
    json_decref(description);
    if (ret < 0) {
        return ret;
    }
    struct ash_copier_config config = {
        .source = b->snapshot,
        .target = b->target,
        .flags = ASH_COPY_UNMAP | (b->compress ? ASH_COPY_COMPRESS : 0),
    };
    ret = ash_copier_new(b->job.loop, &config, &b->sweep->copier, error);
    if (ret == 0) {
        uint64_t cluster = b->sweep->copier->cluster_bytes;
        ret = ash_hbitmap_init(&b->own_todo, ash_div_round_up(b->snapshot->size_bytes, cluster));
        if (ret < 0) {
            ash_error_errno(error, ret, "Backing up '%s' failed", b->source->filename);
        }
    }
    return ret;
}

/* sync=none copies for guests alone, and to one image. */
static int check_none(const struct backup *b, struct ash_error *error)
{
    if (b->sync != SYNC_NONE) {
        return 0;
    }
    if (b->fleecing != NULL) {
        return ash_error_set(error, -EINVAL,
                             "sync=none takes no fleecing image: nothing would reach the target");
    }
    if (b->hides_from < b->source->size_bytes) {
        return ash_error_set(
            error, -EINVAL,
            "With sync=none '%s' must be as long as '%s': what it is lengthened by "
            "would hide its backing image",
            b->target->filename, b->source->filename);
    }
    return 0;
}

ASH_CO_FN static int open_images(struct backup *b, struct ash_error *error)
{
    struct ash_loop *loop = b->job.loop;
    int ret = ash_job_open_target(loop, b->target_name, b->target_format, &b->target, error);
    if (ret == 0 && b->fleecing_name != NULL) {
        ret = ash_job_open_target(loop, b->fleecing_name, NULL, &b->fleecing, error);
    }
    if (ret == 0 && (b->target == b->source || b->fleecing == b->source)) {
        ret = ash_error_set(error, -EINVAL, "'%s' cannot be backed up to itself", b->device);
    }
    if (ret == 0 && b->fleecing == b->target) {
        ret = ash_error_set(error, -EINVAL, "The fleecing image cannot be the target");
    }
    if (ret == 0 && b->compress && b->target->map == NULL) {
        ret = ash_error_set(error, -ENOTSUP, "'%s' takes no compressed clusters",
                            b->target->filename);
    }
    if (ret == 0) {
        b->hides_from = ash_job_hides_from(b->target);
    }
    return ret;
}

ASH_CO_FN static int fit_images(struct backup *b, struct ash_error *error)
{
    int ret = ash_job_file_is_resumed(&b->state) ? 0 : check_none(b, error);
    if (ret == 0) {
        ret = ash_job_fit_node(b->job.loop, b->target, b->source->size_bytes, error);
    }
    if (ret == 0 && b->fleecing != NULL) {
        ret = ash_job_fit_node(b->job.loop, b->fleecing, b->source->size_bytes, error);
    }
    return ret;
}

ASH_CO_FN static int backup_start(struct ash_job *job, struct ash_error *error)
{
    struct backup *b = backup_of(job);
    int ret = ash_job_find_node(job->loop, "device", b->device, &b->source, error);
    if (ret < 0) {
        return ret;
    }
    ash_node_ref(b->source);
    job->moment = b->source;
    ret = b->state.name == NULL ? check_bitmap(b, error) : 0;
    ret = ret < 0 ? ret : open_images(b, error);
    if (ret == 0 && b->state.name != NULL) {
        ret = open_state(b, error);
        if (ret == 0 && !ash_job_file_is_resumed(&b->state)) {
            ret = check_bitmap(b, error);
        }
    }
    ret = ret < 0 ? ret : fit_images(b, error);
    ret = ret < 0 ? ret : open_filter(b, error);
    if (ret == 0) {
        make_sweep(b);
        ret = b->fleecing != NULL ? open_snapshot(b, error) : 0;
    }
    if (ret == 0 && b->sync == SYNC_TOP && !ash_job_file_is_resumed(&b->state)) {
        ret = look_at_top(b, error);
    }
    if (ret < 0) {
        backup_clean(job);
    }
    return ret;
}

/* --- the moment --- */

static void keep_marked(struct backup *b, const struct ash_bitmap *bitmap)
{
    uint64_t at = 0;
    uint64_t bytes = 0;
    while (ash_bitmap_next_dirty(bitmap, at + bytes, UINT64_MAX, UINT64_MAX, &at, &bytes)) {
        ash_before_write_keep(b->before_write, at, bytes);
    }
}

/* With fleecing: what is to go from the snapshot to the target. Whole clusters of the target do,
 * which may be larger than those in which it was said what the snapshot keeps. */
static void note_todo(struct backup *b)
{
    uint64_t cluster = b->sweep->copier->cluster_bytes;
    uint64_t kept_cluster = b->before_write->copier->cluster_bytes;
    const struct ash_hbitmap *kept = &b->before_write->kept;
    uint64_t at = 0;
    for (; (at = ash_hbitmap_next_set(kept, at, kept->bits)) != ASH_HBITMAP_NONE; at++) {
        ash_hbitmap_set(&b->own_todo, at * kept_cluster / cluster, 1);
    }
    for (at = 0; (at = ash_hbitmap_next_set(&b->own_todo, at, UINT64_MAX)) != ASH_HBITMAP_NONE;
         at++) {
        ash_before_write_keep(b->before_write, at * cluster, cluster);
    }
}

/* What the snapshot keeps. */
static void keep(struct backup *b)
{
    if (ash_job_file_is_resumed(&b->state)) {
        uint64_t cluster = b->state.resume->part_bytes;
        for (uint64_t i = 0;
             (i = ash_hbitmap_next_set(&b->state.resume->now, i, UINT64_MAX)) != ASH_HBITMAP_NONE;
             i++) {
            ash_before_write_keep(b->before_write, i * cluster, cluster);
        }
    } else if (b->sync == SYNC_TOP) {
        keep_marked(b, b->changed);
    } else if (b->sync == SYNC_INCREMENTAL || b->sync == SYNC_BITMAP) {
        keep_marked(b, b->bitmap);
    } else {
        ash_before_write_keep(b->before_write, 0, b->before_write->size_bytes);
    }
    if (!ash_job_file_is_resumed(&b->state) && b->hides_from < b->before_write->size_bytes) {
        ash_before_write_keep(b->before_write, b->hides_from,
                              b->before_write->size_bytes - b->hides_from);
    }
}

ASH_CO_FN static void backup_unbegin(struct ash_job *job)
{
    struct backup *b = backup_of(job);
    release_bitmaps(b);
    remove_filter(b);
}

ASH_CO_FN static int backup_begin(struct ash_job *job, struct ash_error *error)
{
    struct backup *b = backup_of(job);
    if (b->source->size_bytes != b->before_write->size_bytes) {
        return ash_error_set(error, -EAGAIN, "'%s' has changed its length meanwhile",
                             b->source->filename);
    }
    int ret = ash_job_file_is_resumed(&b->state)
                  ? ash_before_write_restart_at(b->before_write, b->state.resume->size_bytes)
                  : ash_before_write_restart(b->before_write);
    if (ret == 0 && b->bitmap != NULL) {
        ret = ash_bitmap_freeze(b->bitmap);
    }
    if (ret < 0) {
        return ash_error_errno(error, ret, "Backing up '%s' failed", b->source->filename);
    }
    keep(b);
    ret = begin_state(b, error);
    ret = ret < 0 ? ret : ash_graft_insert(b->filter, error);
    b->begun = ret == 0;
    b->todo = &b->before_write->uncopied;
    if (b->fleecing != NULL) {
        note_todo(b);
        b->todo = &b->own_todo;
    }
    if (ret < 0) {
        backup_unbegin(job);
        return ret;
    }
    if (b->sync != SYNC_NONE) {
        ash_job_progress_total(job, todo_bytes(b));
    }
    b->before_write->changed = changed;
    b->before_write->opaque = b;
    return 0;
}

/* --- the work --- */

/* sync=none: only what guests change is copied, until the job is cancelled. */
ASH_CO_FN static int wait_for_end(struct backup *b)
{
    int ret = 0;
    while (ret == 0 && b->before_write->broken == 0) {
        ret = ash_job_pause_point(&b->job, 0, NULL, NULL);
        if (ret == 0 && b->before_write->broken == 0) {
            ash_job_wait(&b->job, UINT64_MAX);
        }
    }
    return ret;
}

ASH_CO_FN static int flush_target(struct ash_sweep *sweep)
{
    return ash_copier_flush(ash_container_of(sweep, struct backup_sweep, sweep)->copier);
}

ASH_CO_FN static int backup_run(struct ash_job *job, struct ash_error *error)
{
    struct backup *b = backup_of(job);
    struct ash_sweep *sweep = &b->sweep->sweep;
    const uint32_t *copies = &b->before_write->copier->copies; /* for guests, too */
    int ret = 0;
    if (b->sync == SYNC_NONE) {
        ret = wait_for_end(b);
    } else {
        do {
            /* A guest's copy that fails leaves work behind the sweep. */
            b->sweep->position = 0;
            ret = ash_sweep_run(sweep);
            ret = ret < 0 ? ret : ash_sweep_wait_out(sweep, copies, &job->cancelled);
        } while (ret == 0 && sweep->ignored == 0 && b->before_write->broken == 0 &&
                 b->todo->count > 0);
        ret = ret < 0 ? ret : sweep->ignored;
        show_progress(b);
    }
    int broken = b->before_write->broken;
    if (broken < 0) {
        return ash_error_errno(error, broken,
                               "The snapshot of '%s' broke, as a guest's write could not wait",
                               b->source->filename);
    }
    if (ret == 0) {
        ret = ash_sweep_step(sweep, flush_target);
    }
    ret = ret < 0 ? ret : ash_job_file_commit(&b->state, sweep);
    if (ret < 0 && ret != -ECANCELED) {
        ash_error_errno(error, ret, "Backing up '%s' to '%s' failed", b->source->filename,
                        b->target->filename);
    }
    if (b->sync == SYNC_NONE) { /* what the kernel copies at this moment is to stay */
        b->before_write->copier->flags &= ~ASH_COPY_OFFLOAD;
        (void)!ash_sweep_wait_out(sweep, &b->before_write->copier->offloading, &job->forced);
    }
    if (ret < 0) { /* guests are let go, but what is copied for them, and noted, uses the target */
        ash_before_write_break(b->before_write, -ECANCELED);
        (void)!ash_sweep_wait_out(sweep, copies, &job->forced);
        (void)!ash_sweep_wait_out(sweep, &b->before_write->notings, &job->forced);
    }
    return ret;
}

/* --- the end --- */

/* Who would start it again must not take what guests write from now on for that moment. */
ASH_CO_FN static int backup_prepare(struct ash_job *job, struct ash_error *error)
{
    struct backup *b = backup_of(job);
    return ash_job_file_end(&b->state, &b->sweep->sweep, error);
}

ASH_CO_FN static void backup_commit(struct ash_job *job)
{
    struct backup *b = backup_of(job);
    if (b->bitmap != NULL && b->bitmap_mode != MODE_NEVER) {
        ash_bitmap_abdicate(b->bitmap);
    }
}

/* bitmap-mode=always: the bitmap says what the target still lacks, and what guests changed since.
 */
ASH_CO_FN static void backup_abort(struct ash_job *job)
{
    struct backup *b = backup_of(job);
    if (b->bitmap == NULL || b->bitmap_mode != MODE_ALWAYS || !b->bitmap->frozen) {
        return;
    }
    uint64_t cluster = b->sweep->copier->cluster_bytes;
    ash_bitmap_reset(b->bitmap, 0, b->bitmap->size_bytes);
    for (uint64_t at = 0; (at = ash_hbitmap_next_set(b->todo, at, UINT64_MAX)) != ASH_HBITMAP_NONE;
         at++) {
        ash_bitmap_set(b->bitmap, at * cluster, cluster);
    }
}

extern const struct ash_job_driver ash_job_backup;
const struct ash_job_driver ash_job_backup = {
    .type = "backup",
    .job_size = sizeof(struct backup),
    .options = backup_options,
    .start = backup_start,
    .begin = backup_begin,
    .unbegin = backup_unbegin,
    .run = backup_run,
    .prepare = backup_prepare,
    .commit = backup_commit,
    .abort = backup_abort,
    .clean = backup_clean,
};
