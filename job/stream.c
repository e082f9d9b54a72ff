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
 * the contents stay the same. Until then invariant 4 holds on.
 *  6. With a state file, a part of it is clear only if the overlay lacks nothing of that part,
 * stably: first all of it was gone through, then the overlay was flushed, then the bit is cleared.
 * What the overlay gets by growing it may lack: the bits of that are stably set before it grows.
 *  7. The file says that the job has ended only when the chain has changed, stably. Who starts the
 * job again between the two finds nothing left to do. */
#include <errno.h>
#include <glib.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "block/driver.h"
#include "block/graph/graft.h"
#include "block/map/populate.h"
#include "job/chain.h"
#include "job/job.h"
#include "job/state.h"
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
    struct ash_job_file state;
    int on_error;

    struct ash_node *top;
    struct ash_node *base; /* NULL: the whole chain goes */
    struct stream_sweep *sweep;
    uint64_t resizes;              /* of the overlay, when the sweep began */
    struct ash_growth_watch watch; /* with a state file */
    uint64_t grown_from;           /* the overlay was lengthened beyond this */
};

struct stream_sweep {
    struct ash_sweep sweep;
    struct ash_chain_hold hold; /* of the overlay and base */
    struct ash_user user;
    struct ash_edge *edge;
    uint64_t position;
    struct ash_list pieces;        /* of struct ash_populating */
    struct ash_hbitmap unfinished; /* with a state file: parts that have a piece that is not done */
    bool tidying;
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
    ASH_OPTION_STRING("state-file", struct stream, state.name,
                      .help = "file that makes the job resumable; if it is one, resumes it"),
    ASH_OPTION_BOOL("state-unmarked", struct stream, state.unmarked,
                    .help = "vouches that an image which cannot be marked is not changed between"),
    ASH_OPTION_ENUM("on-error", struct stream, on_error, ash_on_error_names,
                    .help = "what an I/O error does: report, ignore, stop, enospc"),
    ASH_OPTION_END,
};

static struct stream *stream_of(struct ash_job *job)
{
    return ash_container_of(job, struct stream, job);
}

/* Nothing lies between the overlay and base. */
static bool is_over(const struct stream *s)
{
    return s->top->backing == NULL || s->top->backing->child == s->base;
}

/* --- the state file --- */

/* A part has at most one piece: both begin at multiples of this. */
#define STATE_PART_BYTES PIECE_BYTES

/* Whether the sweep has had all of a part, and the overlay lacks nothing of it. */
static bool is_gone_through(void *opaque, uint64_t offset, uint64_t bytes)
{
    const struct stream *s = opaque;
    const struct stream_sweep *sweep = s->sweep;
    uint64_t end = ASH_MIN(offset + bytes, s->state.resume->size_bytes);
    bool passed = end <= sweep->position || sweep->position >= s->top->size_bytes;
    uint64_t part = offset / STATE_PART_BYTES;
    return passed && end <= s->grown_from &&
           ash_hbitmap_next_set(&sweep->unfinished, part, part + 1) == ASH_HBITMAP_NONE;
}

/* What was gone through is made stable, and then noted. */
ASH_CO_FN static void tidy(struct ash_sweep *sweep)
{
    struct stream_sweep *s = ash_container_of(sweep, struct stream_sweep, sweep);
    struct ash_resume_file *resume =
        sweep->job != NULL ? stream_of(sweep->job)->state.resume : NULL;
    if (resume == NULL) { /* the job has let go meanwhile */
        return;
    }
    ash_resume_ref(resume);
    ash_user_enter(&s->user);
    int ret = s->user.forsaken ? -ECANCELED : ash_edge_flush(s->edge);
    ash_user_leave(&s->user);
    if (ret == 0 && sweep->job != NULL) {
        ash_resume_tidy_end(resume);
    }
    s->tidying = false;
    ash_resume_unref(resume);
}

ASH_CO_FN static void tidy_now_and_then(struct ash_sweep *sweep)
{
    struct stream *s = stream_of(sweep->job);
    if (s->sweep->tidying || !ash_job_file_is_due(&s->state, sweep->loop)) {
        return;
    }
    bool found = ash_resume_tidy_begin(s->state.resume, is_gone_through, s);
    ash_job_file_looked(&s->state, sweep->loop, found);
    if (found) {
        s->sweep->tidying = true;
        ash_sweep_beside(sweep, tidy);
    }
}

ASH_CO_FN static int tidy_aside(struct ash_sweep *sweep, void *args)
{
    (void)args;
    tidy(sweep);
    return 0;
}

/* All was gone through: the end may be long in coming. What is not noted is gone through again. */
ASH_CO_FN static void tidy_last(struct stream *s)
{
    uint8_t nothing = 0;
    if (s->state.resume != NULL && ash_resume_tidy_begin(s->state.resume, is_gone_through, s)) {
        (void)!ash_sweep_aside(&s->sweep->sweep, tidy_aside, &nothing, sizeof(nothing));
    }
}

/* The overlay gets longer, and may lack what appears. */
ASH_CO_FN static int growing(struct ash_growth_watch *watch, uint64_t offset, uint64_t bytes,
                             struct ash_error *error)
{
    struct stream *s = ash_container_of(watch, struct stream, watch);
    struct ash_resume_file *resume = s->state.resume;
    struct ash_resume_intent intent;
    s->grown_from = ASH_MIN(s->grown_from, offset);
    ash_resume_ref(resume); /* the job may end meanwhile */
    int ret = ash_resume_intend(resume, &intent, offset, bytes);
    if (ret == 0) {
        ash_resume_intended(&intent);
    } else {
        ash_error_errno(error, ret, "'%s' cannot be written", resume->name);
    }
    ash_resume_unref(resume);
    return ret;
}

static const char *image_name(struct ash_node *node)
{
    struct ash_node *mapped = ash_graft_mapped(node);
    return mapped != NULL ? mapped->filename : node != NULL ? node->filename : NULL;
}

/* What the job is about, for the file. */
static int describe(struct stream *s, struct ash_error *error)
{
    json_t *about =
        json_pack("{s:s*, s:s*}", "base", image_name(s->base), "backing-file", s->backing_file);
    if (about == NULL) {
        return ash_error_set(error, -EINVAL, "'%s' holds only names that are UTF-8", s->state.name);
    }
    char *text = json_dumps(about, JSON_COMPACT);
    int ret = ash_resume_set_about(s->state.resume, text, error);
    free(text);
    json_decref(about);
    return ret;
}

/* From here on the job can be resumed. */
ASH_CO_FN static int begin_state(struct stream *s, struct ash_error *error)
{
    struct ash_resume_file *resume = s->state.resume;
    if (resume == NULL || resume->resumed) {
        return 0;
    }
    ash_resume_put(resume, 0, resume->size_bytes, true);
    return ash_job_file_begin(&s->state, &s->sweep->sweep, error);
}

ASH_CO_FN static void let_state_go(struct stream *s)
{
    if (s->top->growth_watch == &s->watch) {
        s->top->growth_watch = NULL;
    }
    ash_job_file_let_go(&s->state);
}

/* How much of the overlay was gone through before. */
static uint64_t bytes_done_before(const struct stream *s)
{
    const struct ash_resume_file *file = s->state.resume;
    uint64_t covered = ASH_MIN(file->size_bytes, s->top->size_bytes);
    uint64_t done = covered;
    for (uint64_t i = 0;
         (i = ash_hbitmap_next_set(&file->now, i, file->now.bits)) != ASH_HBITMAP_NONE; i++) {
        uint64_t at = i * file->part_bytes;
        done -= at < covered ? ASH_MIN(file->part_bytes, covered - at) : 0;
    }
    return done;
}

/* --- the sweep --- */

/* The part that a piece is of. Beyond what the file covers there are none, nor without one. */
static void note_unfinished(struct stream_sweep *s, uint64_t offset, bool unfinished)
{
    uint64_t part = offset / STATE_PART_BYTES;
    if (part >= s->unfinished.bits) {
        return;
    }
    if (unfinished) {
        ash_hbitmap_set(&s->unfinished, part, 1);
    } else {
        ash_hbitmap_reset(&s->unfinished, part, 1);
    }
}

/* Whether there is more to be looked at. Parts that are clear in the file were gone through before.
 */
static bool is_more(struct stream_sweep *s)
{
    const struct ash_resume_file *file =
        s->sweep.job != NULL ? stream_of(s->sweep.job)->state.resume : NULL;
    if (file != NULL && s->position < file->size_bytes) {
        uint64_t part =
            ash_hbitmap_next_set(&file->now, s->position / file->part_bytes, file->now.bits);
        uint64_t at = part == ASH_HBITMAP_NONE ? file->size_bytes : part * file->part_bytes;
        s->position = ASH_MAX(s->position, at);
    }
    return s->position < s->hold.top->size_bytes;
}

/* The next piece in which the overlay lacks something. */
ASH_CO_FN static int stream_next(struct ash_sweep *sweep, uint64_t *offset, uint64_t *bytes)
{
    struct stream_sweep *s = ash_container_of(sweep, struct stream_sweep, sweep);
    struct ash_node *top = s->hold.top;
    *bytes = 0;
    tidy_now_and_then(sweep);
    for (unsigned looks = 0; is_more(s); looks++) {
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
            note_unfinished(s, *offset, true);
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
    struct stream_sweep *s = ash_container_of(sweep, struct stream_sweep, sweep);
    if (ret == 0) {
        note_unfinished(s, offset, false);
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
    ash_hbitmap_destroy(&s->unfinished);
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

static bool same_text(const char *a, const char *b)
{
    return a != NULL && b != NULL ? strcmp(a, b) == 0 : a == b;
}

/* The base that the job had when it was first started. Where the description names one too, it has
 * to be that: what was gone through says nothing of another. */
ASH_CO_FN static int find_base_again(struct stream *s, const char *name, struct ash_error *error)
{
    struct ash_node *below = s->top->backing != NULL ? s->top->backing->child : NULL;
    const char *file = s->state.name;
    if (same_text(image_name(below), name)) { /* the chain had been changed already */
        s->base = below;
        return 0;
    }
    bool named = s->base_file != NULL || s->base_node != NULL || s->bottom != NULL;
    int ret = named ? find_base(s, error) : 0;
    if (ret == 0 && named && !same_text(image_name(s->base), name)) {
        return ash_error_set(error, -EINVAL, "'%s' is the state file of a stream down to %s%s%s",
                             file, name != NULL ? "'" : "", name != NULL ? name : "no image",
                             name != NULL ? "'" : "");
    }
    if (ret == 0 && !named && name != NULL &&
        ash_job_find_image(s->top, "base", name, &s->base, NULL) < 0) {
        return ash_error_set(error, -EINVAL,
                             "'%s' is the state file of a stream down to '%s', which is not in the "
                             "backing chain of '%s'",
                             file, name, s->top->filename);
    }
    return ret;
}

/* Takes over what the file says of the job. */
ASH_CO_FN static int take_about(struct stream *s, struct ash_error *error)
{
    const char *text = s->state.resume->about;
    json_t *about = text != NULL ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (!json_is_object(about)) {
        json_decref(about);
        return ash_error_set(error, -EINVAL, "'%s' does not say what its stream was to do",
                             s->state.name);
    }
    const char *name = json_string_value(json_object_get(about, "backing-file"));
    int ret = 0;
    if (s->backing_file == NULL) {
        s->backing_file = g_strdup(name);
    } else if (!same_text(s->backing_file, name)) {
        ret = ash_error_set(error, -EINVAL,
                            "'%s' is the state file of a stream with another 'backing-file'",
                            s->state.name);
    }
    if (ret == 0) {
        ret = find_base_again(s, json_string_value(json_object_get(about, "base")), error);
    }
    json_decref(about);
    return ret;
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
    let_state_go(stream_of(job));
    if (s == NULL) {
        return;
    }
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

/* The overlay is ready to be written: from here on no change of it is missed. */
ASH_CO_FN static int take_state(struct stream *s, struct ash_error *error)
{
    struct ash_resume_file *resume = s->state.resume;
    if (resume == NULL) {
        return 0;
    }
    int ret = ash_hbitmap_init(&s->sweep->unfinished, resume->now.bits);
    if (ret < 0) {
        return ash_error_errno(error, ret, "'%s' cannot be kept in memory", s->state.name);
    }
    ret = resume->resumed ? 0 : describe(s, error);
    ret = ret < 0 ? ret : ash_job_file_images(&s->state, s->top, NULL, error);
    if (ret == 0) {
        s->watch.growing = growing;
        s->top->growth_watch = &s->watch;
    }
    return ret;
}

/* The base, by the options or by the file that the job is resumed from. */
ASH_CO_FN static int choose_base(struct stream *s, struct ash_error *error)
{
    int ret = 0;
    if (s->state.name != NULL) {
        ret = ash_job_file_open_alone(&s->state, s->job.loop, ASH_RESUME_STREAM, STATE_PART_BYTES,
                                      true, s->top->size_bytes, error);
    }
    if (ret < 0) {
        return ret;
    }
    return ash_job_file_is_resumed(&s->state) ? take_about(s, error) : find_base(s, error);
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
    s->grown_from = UINT64_MAX;
    ret = choose_base(s, error);
    if (ret == 0) {
        ret = check_top(s, error);
    }
    if (ret == 0) {
        make_sweep(s);
        ret = take(s, error);
    }
    if (ret == 0) {
        ret = take_state(s, error);
    }
    if (ret < 0) {
        stream_clean(job);
    }
    return ret;
}

ASH_CO_FN static int stream_run(struct ash_job *job, struct ash_error *error)
{
    struct stream *s = stream_of(job);
    ash_job_progress_total(job, s->top->size_bytes);
    if (is_over(s)) {
        ash_job_progress(job, s->top->size_bytes);
        return 0;
    }
    s->resizes = s->top->resizes;
    int ret = begin_state(s, error);
    if (ret < 0) {
        return ret;
    }
    if (s->state.resume != NULL) {
        ash_job_progress(job, bytes_done_before(s));
    }
    ret = ash_sweep_run(&s->sweep->sweep);
    ret = ret < 0 ? ret : s->sweep->sweep.ignored;
    if (ret < 0 && ret != -ECANCELED) {
        ash_error_errno(error, ret, "Streaming into '%s' failed", s->top->filename);
    }
    if (ret == 0) {
        tidy_last(s);
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
    int ret = 0;
    if (!is_over(s)) {
        struct ash_pause pause;
        ret = ash_pause_begin(&pause, job->loop, &s->top, 1, UINT64_MAX);
        ash_assert(ret == 0); /* without a deadline it does not expire */
        ash_chain_thaw(&s->sweep->hold);
        ret = change_backing(s, &pause, error);
        ash_pause_end(&pause);
    }
    return ret;
}

/* The chain has changed: that the file cannot be made to say so does not make the job fail. Who
 * starts it again finds that out. */
ASH_CO_FN static void stream_commit(struct ash_job *job)
{
    struct stream *s = stream_of(job);
    struct ash_error error = ASH_ERROR_INIT;
    if (ash_job_file_end(&s->state, &s->sweep->sweep, &error) < 0) {
        ash_log(job->loop, ASH_LOG_WARNING, "%s", error.message);
    }
}

extern const struct ash_job_driver ash_job_stream;
const struct ash_job_driver ash_job_stream = {
    .type = "stream",
    .job_size = sizeof(struct stream),
    .options = stream_options,
    .start = stream_start,
    .run = stream_run,
    .prepare = stream_prepare,
    .commit = stream_commit,
    .clean = stream_clean,
};
