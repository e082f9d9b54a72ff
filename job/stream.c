/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Streaming: an image comes to hold itself what layers below it hold, and then stands on `base`, or
 * on nothing, in their place.
 *
 * The copying is ash_edge_populate(): each piece is a serialising request to the overlay, so a
 * guest's write that meets a copy waits for it, and a copy skips what a guest has written. Any
 * format that maps can be the overlay.
 *
 * Invariants:
 *  1. At any time the overlay, on its present chain, reads as it did: who cancels keeps a valid
 * one.
 *  2. The backing strings change only when all was copied and is stable.
 *  3. The chain changes while the users are paused, and then the overlay lacks nothing, though it
 *     got shorter and longer meanwhile.
 *  4. While the job runs, the chain between the overlay and base stays as it is.
 *  5. What I/O needs belongs to the sweep, which may outlive the job. Pieces that a job leaves
 * behind when it is ended by force read on and write nothing, or end the write that they are at:
 * the contents stay the same. Until then invariant 4 holds on. */
#include <errno.h>
#include <glib.h>
#include "block/driver.h"
#include "block/graph/graft.h"
#include "block/map/populate.h"
#include "job/chain.h"
#include "job/job.h"
#include "job/sweep.h"
#include "util/assert.h"
#include "util/range.h"

#define PIECE_BYTES (1 * MiB)
#define LOOKS_AT_ONCE 64 /* before others get a turn */

struct stream {
    struct ash_job job;
    /* Options. */
    char *device;
    char *base_file;
    char *base_node;
    char *bottom;
    char *backing_file;
    int on_error;

    struct ash_node *top;
    struct ash_node *base; /* NULL: the whole chain goes */
    struct stream_sweep *sweep;
    uint64_t resizes; /* of the overlay, when the sweep began */
};

struct stream_sweep {
    struct ash_sweep sweep;
    struct ash_chain_hold hold; /* of the overlay and base */
    struct ash_user user;
    struct ash_edge *edge;
    uint64_t position;
    struct ash_list pieces; /* of struct ash_populating */
};

static const struct ash_option stream_options[] = {
    ASH_OPTION_STRING("device", struct stream, device, .help = "node of the overlay"),
    ASH_OPTION_STRING("base", struct stream, base_file,
                      .help = "file name of the new backing image"),
    ASH_OPTION_STRING("base-node", struct stream, base_node,
                      .help = "node of the new backing image"),
    ASH_OPTION_STRING("bottom", struct stream, bottom,
                      .help = "last node to be streamed; what it stands on is the base"),
    ASH_OPTION_STRING("backing-file", struct stream, backing_file,
                      .help = "what the overlay's header calls its new backing image"),
    ASH_OPTION_ENUM("on-error", struct stream, on_error, ash_on_error_names,
                    .help = "what an I/O error does: report, ignore, stop, enospc"),
    ASH_OPTION_END,
};

static struct stream *stream_of(struct ash_job *job)
{
    return ash_container_of(job, struct stream, job);
}

/* --- the sweep --- */

/* The next piece in which the overlay lacks something. */
ASH_CO_FN static int stream_next(struct ash_sweep *sweep, uint64_t *offset, uint64_t *bytes)
{
    struct stream_sweep *s = ash_container_of(sweep, struct stream_sweep, sweep);
    struct ash_node *top = s->hold.top;
    *bytes = 0;
    for (unsigned looks = 0; s->position < top->size_bytes; looks++) {
        uint64_t same_bytes;
        enum ash_lack lack;
        ash_user_enter(&s->user);
        int ret = s->user.forsaken
                      ? -ECANCELED
                      : ash_map_lacks(top, s->hold.base, s->position, top->size_bytes - s->position,
                                      &same_bytes, &lack);
        ash_user_leave(&s->user);
        if (sweep->job == NULL || sweep->job->cancelled) {
            return -ECANCELED;
        }
        if (ret < 0 || lack != ASH_LACKS_NOTHING) {
            uint64_t end = ash_align_down(s->position, PIECE_BYTES) + PIECE_BYTES;
            *offset = s->position;
            *bytes = ASH_MIN(end, top->size_bytes) - s->position;
            s->position += *bytes;
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

ASH_CO_FN static int populate(struct stream_sweep *s, uint64_t offset, uint64_t bytes)
{
    struct ash_populating piece = {0};
    if (s->user.forsaken) {
        return -ECANCELED;
    }
    ash_list_push_back(&s->pieces, &piece.link);
    int ret = ash_edge_populate_for_job(s->edge, s->hold.base, offset, bytes, &piece);
    ash_list_remove(&piece.link);
    return ret;
}

ASH_CO_FN static int stream_copy(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes,
                                 bool *reading)
{
    struct stream_sweep *s = ash_container_of(sweep, struct stream_sweep, sweep);
    const struct ash_node *top = s->hold.top;
    *reading = false;
    ash_user_enter(&s->user);
    int ret;
    uint64_t size;
    do { /* the overlay may have become shorter, also while the copy waited for its turn */
        size = top->size_bytes;
        bytes = offset < size ? ASH_MIN(bytes, size - offset) : 0;
        ret = bytes > 0 ? populate(s, offset, bytes) : 0;
    } while (ret == -EINVAL && top->size_bytes < size);
    ash_user_leave(&s->user);
    return ret;
}

static void stream_done(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes, int ret)
{
    (void)offset;
    if (ret == 0) {
        ash_job_progress(sweep->job, bytes);
    }
}

ASH_CO_FN static void stream_release(struct ash_sweep *sweep)
{
    struct stream_sweep *s = ash_container_of(sweep, struct stream_sweep, sweep);
    if (s->edge != NULL) {
        ash_graft_detach(s->edge);
    }
    ash_user_destroy(&s->user);
    ash_chain_release(&s->hold);
    g_free(s);
}

static const struct ash_sweep_ops stream_sweep_ops = {
    .next = stream_next,
    .copy = stream_copy,
    .done = stream_done,
    .release = stream_release,
};

/* --- the job --- */

ASH_CO_FN static int find_base(struct stream *s, struct ash_error *error)
{
    int named = (s->base_file != NULL) + (s->base_node != NULL) + (s->bottom != NULL);
    if (named > 1) {
        return ash_error_set(error, -EINVAL,
                             "'base', 'base-node' and 'bottom' exclude one another");
    }
    if (named == 0) {
        return 0;
    }
    struct ash_node *node;
    int ret;
    if (s->base_file != NULL) {
        ret = ash_job_find_image(s->top, "base", s->base_file, &node, error);
    } else {
        const char *option = s->bottom != NULL ? "bottom" : "base-node";
        const char *name = s->bottom != NULL ? s->bottom : s->base_node;
        ret = ash_job_find_node(s->job.loop, option, name, &node, error);
        if (ret == 0 && !ash_graft_in_chain(s->top, node)) {
            ret = ash_error_set(error, -EINVAL, "Node '%s' is not in the backing chain of '%s'",
                                name, s->top->name);
        }
    }
    if (ret < 0) {
        return ret;
    }
    if (s->bottom != NULL) {
        s->base = node->backing != NULL ? node->backing->child : NULL;
        return 0;
    }
    if (node == s->top) {
        return ash_error_set(error, -EINVAL, "'%s' cannot be streamed onto itself", node->filename);
    }
    s->base = node;
    return 0;
}

static int check_top(struct stream *s, struct ash_error *error)
{
    if (s->top->backing != NULL && s->top->driver->set_backing == NULL) {
        return ash_error_set(error, -ENOTSUP, "Driver '%s' cannot change the backing file of '%s'",
                             s->top->driver->name, s->top->filename);
    }
    return 0;
}

ASH_CO_FN static void stream_clean(struct ash_job *job)
{
    struct stream_sweep *s = stream_of(job)->sweep;
    if (s->sweep.tasks > 0) {
        ash_user_forsake(&s->user);
        ash_list_for_each (piece, &s->pieces, struct ash_populating, link) {
            ash_populate_forsake(piece);
        }
    }
    ash_sweep_drop(&s->sweep);
}

/* Takes what the job needs of the graph; clean gives back what was taken. */
ASH_CO_FN static int take(struct stream *s, struct ash_error *error)
{
    struct stream_sweep *sweep = s->sweep;
    int ret = ash_chain_hold(&sweep->hold, s->top, s->base, error);
    if (ret == 0) {
        ret = ash_chain_hold_top_flags(&sweep->hold, ASH_NODE_WRITE, error);
    }
    if (ret == 0) {
        ret = ash_graft_attach(s->top, ASH_RIGHT_READ | ASH_RIGHT_REWRITE, ASH_RIGHT_ALL,
                               &sweep->user, &sweep->edge, error);
    }
    return ret;
}

static void make_sweep(struct stream *s)
{
    struct stream_sweep *sweep = g_new0(struct stream_sweep, 1);
    ash_sweep_init(&sweep->sweep, &stream_sweep_ops, &s->job);
    ash_user_init(&sweep->user, s->job.loop);
    ash_list_init(&sweep->pieces);
    sweep->sweep.on_source_error = (enum ash_on_error)s->on_error;
    sweep->sweep.on_target_error = (enum ash_on_error)s->on_error;
    sweep->sweep.forsakable = true;
    sweep->sweep.looks = true;
    sweep->sweep.grace_ns = ASH_SWEEP_GRACE_NS;
    s->sweep = sweep;
}

ASH_CO_FN static int stream_start(struct ash_job *job, struct ash_error *error)
{
    struct stream *s = stream_of(job);
    struct ash_node *node;
    int ret = ash_job_find_node(job->loop, "device", s->device, &node, error);
    if (ret < 0) {
        return ret;
    }
    s->top = ash_graft_mapped(node);
    if (s->top == NULL) {
        return ash_error_set(error, -ENOTSUP, "'%s' has no backing chain", node->filename);
    }
    ret = find_base(s, error);
    if (ret == 0) {
        ret = check_top(s, error);
    }
    if (ret < 0) {
        return ret;
    }
    make_sweep(s);
    ret = take(s, error);
    if (ret < 0) {
        stream_clean(job);
    }
    return ret;
}

ASH_CO_FN static int stream_run(struct ash_job *job, struct ash_error *error)
{
    struct stream *s = stream_of(job);
    ash_job_progress_total(job, s->top->size_bytes);
    if (s->top->backing == NULL || s->top->backing->child == s->base) {
        ash_job_progress(job, s->top->size_bytes);
        return 0;
    }
    s->resizes = s->top->resizes;
    int ret = ash_sweep_run(&s->sweep->sweep);
    ret = ret < 0 ? ret : s->sweep->sweep.ignored;
    if (ret < 0 && ret != -ECANCELED) {
        ash_error_errno(error, ret, "Streaming into '%s' failed", s->top->filename);
    }
    return ret;
}

/* Under pause. A disk that got shorter or longer while it was streamed may lack what the sweep had
 * passed: then all of it is looked at once more. */
ASH_CO_FN static int stream_rest(struct stream *s)
{
    uint64_t size = s->top->size_bytes;
    uint64_t same_bytes;
    int ret = 0;
    if (s->top->resizes == s->resizes) {
        return 0;
    }
    for (uint64_t at = 0; at < size && ret == 0; at += same_bytes) {
        enum ash_lack lack;
        ret = ash_map_lacks(s->top, s->base, at, size - at, &same_bytes, &lack);
        if (ret == 0 && lack != ASH_LACKS_NOTHING) {
            ret = ash_edge_populate(s->sweep->edge, s->base, at, same_bytes, NULL, NULL);
        }
    }
    return ret;
}

ASH_CO_FN static int change_backing(struct stream *s, struct ash_pause *pause,
                                    struct ash_error *error)
{
    int ret = stream_rest(s);
    if (ret < 0) {
        return ash_error_errno(error, ret, "Streaming into '%s' failed", s->top->filename);
    }
    struct ash_node *named = s->base != NULL ? ash_graft_mapped(s->base) : NULL;
    const char *file = s->base == NULL           ? NULL
                       : s->backing_file != NULL ? s->backing_file
                                                 : s->base->filename;
    const char *format = named != NULL ? named->driver->name : NULL;
    return ash_graft_backing(s->top, pause, s->base, file, format, error);
}

ASH_CO_FN static int stream_prepare(struct ash_job *job, struct ash_error *error)
{
    struct stream *s = stream_of(job);
    if (s->top->backing == NULL || s->top->backing->child == s->base) {
        return 0;
    }
    struct ash_pause pause;
    int ret = ash_pause_begin(&pause, job->loop, &s->top, 1, UINT64_MAX);
    ash_assert(ret == 0); /* without a deadline it does not expire */
    ash_chain_thaw(&s->sweep->hold);
    ret = change_backing(s, &pause, error);
    ash_pause_end(&pause);
    return ret;
}

extern const struct ash_job_driver ash_job_stream;
const struct ash_job_driver ash_job_stream = {
    .type = "stream",
    .job_size = sizeof(struct stream),
    .options = stream_options,
    .start = stream_start,
    .run = stream_run,
    .prepare = stream_prepare,
    .clean = stream_clean,
};
