/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commit: what the images from `top` down to `base` hold goes into `base`, and who stood on `top`
 * stands on `base` then. `top` is not the active image: see job/commit_active.c for that.
 *
 * Invariants:
 *  1. Whoever reads the chain from above reads the same at any time: what is written to base is
 * what layers above it decide anyway.
 *  2. Only the one chain sees base and the images above it: the job refuses others, as they would
 * see base change.
 *  3. The overlay's header names base only when all was copied and is stable in base.
 *  4. What I/O needs belongs to the sweep, which may outlive the job. A write that a job leaves
 * behind when it is ended by force may reach base at any time: until then nobody else commits to
 * base, and invariants 1 and 2 hold on. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/copy/copier.h"
#include "block/driver.h"
#include "block/graph/graft.h"
#include "block/graph/plan.h"
#include "job/chain.h"
#include "job/job.h"
#include "job/sweep.h"
#include "job/target.h"
#include "util/assert.h"
#include "util/range.h"

#define LOOKS_AT_ONCE 64 /* before others get a turn */

extern const struct ash_job_driver ash_job_commit;
extern const struct ash_job_driver ash_job_commit_active;

struct commit_sweep;

struct commit {
    struct ash_job job;
    char *device;
    char *top_file;
    char *top_node;
    char *base_file;
    char *base_node;
    char *backing_file;
    int on_error;

    struct ash_node *overlay; /* what stands on top */
    struct ash_node *top;
    struct ash_node *base;
    struct ash_edge *above_base; /* the chain's edge to base */
    struct commit_sweep *sweep;
};

struct commit_sweep {
    struct ash_sweep sweep;
    struct ash_chain_hold hold; /* of the overlay and base */
    struct ash_node *top;       /* a reference */
    struct ash_copier *copier;
    uint64_t position;
};

static const struct ash_option commit_options[] = {
    ASH_OPTION_STRING("device", struct commit, device,
                      .help = "node at the top of the whole chain"),
    ASH_OPTION_STRING("top", struct commit, top_file,
                      .help = "file name of the first image that goes"),
    ASH_OPTION_STRING("top-node", struct commit, top_node,
                      .help = "node of the first image that goes"),
    ASH_OPTION_STRING("base", struct commit, base_file,
                      .help = "file name of the image that is written to; the last one by default"),
    ASH_OPTION_STRING("base-node", struct commit, base_node,
                      .help = "node of the image that is written to"),
    ASH_OPTION_STRING("backing-file", struct commit, backing_file,
                      .help = "what the overlay's header calls its new backing image"),
    ASH_OPTION_ENUM("on-error", struct commit, on_error, ash_on_error_names,
                    .help = "what an I/O error does: report, ignore, stop, enospc"),
    ASH_OPTION_END,
};

static struct commit *commit_of(struct ash_job *job)
{
    return ash_container_of(job, struct commit, job);
}

/* --- the sweep --- */

ASH_CO_FN static int commit_next(struct ash_sweep *sweep, uint64_t *offset, uint64_t *bytes)
{
    struct commit_sweep *s = ash_container_of(sweep, struct commit_sweep, sweep);
    uint64_t end = s->top->size_bytes;
    *bytes = 0;
    for (unsigned looks = 0; s->position < end; looks++) {
        uint64_t same_bytes;
        bool decided;
        int ret = ash_copier_lookup(s->copier, s->hold.base, s->position, end - s->position,
                                    &same_bytes, &decided);
        if (sweep->job == NULL || sweep->job->cancelled) {
            return -ECANCELED;
        }
        if (ret < 0 || decided) {
            uint64_t piece = ASH_MAX(sweep->piece_bytes, s->copier->cluster_bytes);
            *offset = ash_align_down(s->position, s->copier->cluster_bytes);
            s->position = ASH_MIN(ash_align_down(s->position, piece) + piece, end);
            *bytes = s->position - *offset;
            return ret;
        }
        s->position += same_bytes;
        ash_job_progress(sweep->job, same_bytes);
        if (looks >= LOOKS_AT_ONCE) {
            ash_co_reschedule();
            looks = 0;
        }
    }
    return 0;
}

ASH_CO_FN static int commit_copy(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes,
                                 bool *reading)
{
    struct commit_sweep *s = ash_container_of(sweep, struct commit_sweep, sweep);
    struct ash_range_lock lock;
    *reading = false;
    int ret = ash_copier_begin(s->copier, &lock, offset, bytes);
    if (ret == 0) {
        ret = ash_copier_copy(s->copier, offset, bytes, reading);
        ash_copier_end(s->copier, &lock);
    }
    return ret;
}

static void commit_done(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes, int ret)
{
    (void)offset;
    if (ret == 0) {
        ash_job_progress(sweep->job, bytes);
    }
}

ASH_CO_FN static void commit_release(struct ash_sweep *sweep)
{
    struct commit_sweep *s = ash_container_of(sweep, struct commit_sweep, sweep);
    if (s->copier != NULL) {
        ash_copier_unref(s->copier);
    }
    ash_chain_release(&s->hold);
    ash_node_unref(s->top);
    g_free(s);
}

static const struct ash_sweep_ops commit_sweep_ops = {
    .next = commit_next,
    .copy = commit_copy,
    .done = commit_done,
    .release = commit_release,
};

/* --- finding the nodes --- */

/* The nodes that the description names, and those between. */
static int find_nodes(struct commit *c, struct ash_error *error)
{
    struct ash_node *device;
    int ret = ash_job_find_node(c->job.loop, "device", c->device, &device, error);
    if (ret < 0) {
        return ret;
    }
    struct ash_node *active = ash_graft_mapped(device);
    if (active == NULL || active->backing == NULL) {
        return ash_error_set(error, -EINVAL, "'%s' has no backing image", device->filename);
    }
    ret = ash_job_find_below(active, "top", c->top_file, "top-node", c->top_node, &c->top, error);
    if (ret < 0) {
        return ret;
    }
    if (c->base_file == NULL && c->base_node == NULL) {
        for (c->base = c->top; c->base->backing != NULL;) {
            c->base = c->base->backing->child;
        }
    } else {
        ret = ash_job_find_below(c->top, "base", c->base_file, "base-node", c->base_node, &c->base,
                                 error);
    }
    if (ret == 0 && c->base == c->top) {
        ret = ash_error_set(error, -EINVAL, "'%s' has no backing image", c->top->filename);
    }
    for (struct ash_node *node = active; ret == 0 && node != c->base; node = node->backing->child) {
        if (node->backing->child == c->top) {
            c->overlay = node;
        }
        if (node->backing->child->map == NULL) {
            ret = ash_error_set(error, -ENOTSUP, "A filter stands in the chain of '%s'",
                                active->filename);
        } else if (c->overlay != NULL) {
            c->above_base = node->backing;
            ret = ash_job_check_alone(node->backing->child, error);
        }
    }
    return ret;
}

/* --- start and end --- */

ASH_CO_FN static void commit_clean(struct ash_job *job)
{
    struct commit_sweep *s = commit_of(job)->sweep;
    if (s->sweep.tasks > 0) {
        ash_copier_abandon(s->copier);
    }
    ash_sweep_drop(&s->sweep);
}

static void make_sweep(struct commit *c)
{
    struct commit_sweep *s = g_new0(struct commit_sweep, 1);
    ash_sweep_init(&s->sweep, &commit_sweep_ops, &c->job);
    ash_node_ref(c->top);
    s->top = c->top;
    s->sweep.on_source_error = (enum ash_on_error)c->on_error;
    s->sweep.on_target_error = (enum ash_on_error)c->on_error;
    s->sweep.forsakable = true;
    s->sweep.looks = true;
    s->sweep.grace_ns = ASH_SWEEP_GRACE_NS;
    c->sweep = s;
}

ASH_CO_FN static int take(struct commit *c, struct ash_error *error)
{
    struct commit_sweep *s = c->sweep;
    int ret = ash_chain_hold(&s->hold, c->overlay, c->base, error);
    if (ret == 0) { /* its header is changed at the end: what it lacks for that shows now */
        ret = ash_chain_try_write(c->overlay, error);
    }
    if (ret == 0) {
        ret = ash_chain_hold_base_flags(&s->hold, ASH_NODE_WRITE, error);
    }
    if (ret < 0) {
        return ret;
    }
    ash_chain_lend_base(&s->hold, c->above_base);
    struct ash_copier_config config = {
        .source = c->top,
        .target = c->base,
        .base = c->base,
        .target_needs = ASH_RIGHT_RESIZE,
    };
    return ash_copier_new(c->job.loop, &config, &s->copier, error);
}

ASH_CO_FN static int commit_start(struct ash_job *job, struct ash_error *error)
{
    struct commit *c = commit_of(job);
    int ret = find_nodes(c, error);
    if (ret < 0) {
        return ret;
    }
    if (c->overlay->driver->set_backing == NULL) {
        return ash_error_set(error, -ENOTSUP, "Driver '%s' cannot change the backing file of '%s'",
                             c->overlay->driver->name, c->overlay->filename);
    }
    make_sweep(c);
    ret = take(c, error);
    if (ret < 0) {
        commit_clean(job);
    }
    return ret;
}

/* Where the images above base end and the overlay goes on, the overlay reads zeroes: so must base.
 */
ASH_CO_FN static int clear_beyond_top(struct ash_sweep *sweep)
{
    struct commit_sweep *s = ash_container_of(sweep, struct commit_sweep, sweep);
    uint64_t from = s->top->size_bytes;
    uint64_t end = s->hold.base->size_bytes;
    struct ash_io io = {.op = ASH_ZERO, .offset = from, .bytes = end - from};
    if (from >= end) {
        return 0;
    }
    ash_user_wait_at_gate(&s->copier->target_user);
    return ash_copier_target_io(s->copier, &io);
}

/* Base is made as long as what it is to hold. */
ASH_CO_FN static int fit_base(struct ash_sweep *sweep)
{
    struct commit_sweep *s = ash_container_of(sweep, struct commit_sweep, sweep);
    return ash_sweep_fit_target(sweep, s->copier, s->top->size_bytes);
}

ASH_CO_FN static int flush_base(struct ash_sweep *sweep)
{
    return ash_copier_flush(ash_container_of(sweep, struct commit_sweep, sweep)->copier);
}

ASH_CO_FN static int commit_run(struct ash_job *job, struct ash_error *error)
{
    struct commit *c = commit_of(job);
    struct ash_sweep *sweep = &c->sweep->sweep;
    ash_job_progress_total(job, c->top->size_bytes);
    int ret = ash_sweep_step(sweep, fit_base);
    if (ret < 0) {
        return ret;
    }
    ret = ash_sweep_run(sweep);
    ret = ret < 0 ? ret : sweep->ignored;
    if (ret == 0) {
        ret = ash_sweep_step(sweep, clear_beyond_top);
    }
    if (ret == 0) {
        ret = ash_sweep_step(sweep, flush_base);
    }
    if (ret < 0 && ret != -ECANCELED) {
        ash_error_errno(error, ret, "Committing '%s' to '%s' failed", c->top->filename,
                        c->base->filename);
    }
    return ret;
}

ASH_CO_FN static int commit_prepare(struct ash_job *job, struct ash_error *error)
{
    struct commit *c = commit_of(job);
    struct ash_chain_hold *hold = &c->sweep->hold;
    int ret = ash_chain_hold_top_flags(hold, ASH_NODE_WRITE, error);
    if (ret < 0) {
        return ret;
    }
    ash_copier_yield_target(c->sweep->copier);
    ash_chain_thaw(hold);
    const char *file = c->backing_file != NULL ? c->backing_file : c->base->filename;
    hold->above_base = NULL; /* it may go with its image */
    struct ash_pause pause;
    ret = ash_pause_begin(&pause, job->loop, &c->overlay, 1, UINT64_MAX);
    ash_assert(ret == 0); /* without a deadline it does not expire */
    ret = ash_graft_backing(c->overlay, &pause, c->base, file, c->base->driver->name, error);
    ash_pause_end(&pause);
    if (ret < 0) {
        hold->above_base = c->above_base;
    }
    return ret;
}

/* Without a top, or with the active image for it, it is another kind of work. */
static const struct ash_job_driver *commit_variant(struct ash_loop *loop, const json_t *description)
{
    const char *device = json_string_value(json_object_get(description, "device"));
    const char *file = json_string_value(json_object_get(description, "top"));
    const char *name = json_string_value(json_object_get(description, "top-node"));
    struct ash_node *node = device != NULL ? ash_node_find(loop, device) : NULL;
    struct ash_node *active = node != NULL ? ash_graft_mapped(node) : NULL;
    bool is_active = (file == NULL && name == NULL) ||
                     (active != NULL && file != NULL && strcmp(file, active->filename) == 0) ||
                     (active != NULL && name != NULL && strcmp(name, active->name) == 0);
    return is_active ? &ash_job_commit_active : &ash_job_commit;
}

const struct ash_job_driver ash_job_commit = {
    .type = "commit",
    .job_size = sizeof(struct commit),
    .variant = commit_variant,
    .options = commit_options,
    .start = commit_start,
    .run = commit_run,
    .prepare = commit_prepare,
    .clean = commit_clean,
};
