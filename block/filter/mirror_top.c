/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mirror-top: the filter that a mirror puts above its source. While write_blocking is set, what a
 * guest changes is changed in the target too before the guest is told.
 *
 * Invariants:
 *  1. A change to both holds the copier's lock on its clusters, so that no copy of older contents
 *     reaches the target after it.
 *  2. Source and target get the same bytes: those of a copy that is made once, as the guest may
 *     scribble on its buffer meanwhile.
 *  3. Clusters that were clean before the change and that both got are clean after it; those that
 *     were dirty stay so, as the change may cover them in part. If the target fails, or does not
 * reach so far yet, they are dirty: the guest's request does not fail for that. Nothing counts as
 * clean until the job has marked what is to be copied first.
 *  4. The source comes first: what it failed to write is not in the target either, unless the
 * source wrote a part; then the cluster is dirty.
 *  5. Of a resumable mirror no change reaches the source before the intent is stable. */
#include "block/filter/mirror_top.h"
#include <errno.h>
#include "block/filter/filter.h"
#include "util/assert.h"
#include "util/range.h"

/* Passes a change to the target; *whole: all of it. */
ASH_CO_FN static int change_target(struct ash_copier *copier, const struct ash_io *io, bool *whole)
{
    struct ash_io own = *io;
    own.flags &= ASH_REQ_UNMAP; /* nothing else is the target's business */
    uint64_t size = copier->target->child->size_bytes;
    *whole = io->offset + io->bytes <= size;
    if (own.offset >= size) {
        return 0; /* the guest's disk is longer; the job follows */
    }
    own.bytes = ASH_MIN(own.bytes, size - own.offset);
    ash_user_begin(&copier->target_user); /* inside a guest's request: not held up */
    int ret = ash_edge_io(copier->target, &own);
    ash_user_leave(&copier->target_user);
    return ret;
}

ASH_CO_FN static int change_both(struct ash_node *node, const struct ash_io *io)
{
    struct ash_mirror_top *top = ash_mirror_top_of(node);
    struct ash_copier *copier = top->copier;
    struct ash_range_lock lock;
    ash_copier_ref(copier);
    ash_range_lock(&lock, &copier->locks, io->offset, io->bytes);
    bool clean = top->marked && ash_bitmap_dirty_bytes_in(top->dirty, lock.offset, lock.bytes) == 0;
    int ret = ash_edge_io(node->file, io);
    if (ret == 0 && io->op != ASH_DISCARD) {
        bool whole;
        int target_ret = change_target(copier, io, &whole);
        if (target_ret == 0 && clean && whole) {
            ash_bitmap_reset(top->dirty, lock.offset, lock.bytes);
        }
        top->target_error = top->target_error == 0 ? target_ret : top->target_error;
    }
    ash_range_unlock(&lock);
    ash_copier_unref(copier);
    return ret;
}

static bool passes(const struct ash_node *node)
{
    const struct ash_mirror_top *top = ash_mirror_top_of(node);
    return top->copier == NULL || !top->write_blocking;
}

/* A change that a guest makes: counted, and held back where the mirror would not catch up. */
ASH_CO_FN static void count(struct ash_node *node, const struct ash_io *io)
{
    struct ash_mirror_top *top = ash_mirror_top_of(node);
    if (top->limit != NULL) {
        ash_throttle_wait(top->limit, true, io->bytes);
    }
    top->written_bytes += io->bytes;
}

ASH_CO_FN static int change_data(struct ash_node *node, const struct ash_io *io)
{
    if (passes(node)) {
        return ash_edge_io(node->file, io);
    }
    void *copy = ash_buffer_alloc(node->loop, io->bytes, 4096);
    if (copy == NULL) {
        return -ENOMEM;
    }
    struct iovec vec = {copy, io->bytes};
    struct ash_io own = *io;
    own.iov = ash_iov_of(&vec, 1);
    ash_iov_to_buffer(io->iov, copy, io->bytes);
    int ret = change_both(node, &own);
    ash_buffer_free(node->loop, copy, io->bytes);
    return ret;
}

ASH_CO_FN static int change(struct ash_node *node, const struct ash_io *io)
{
    if (io->op == ASH_WRITE) {
        return change_data(node, io);
    }
    return passes(node) ? ash_edge_io(node->file, io) : change_both(node, io);
}

ASH_CO_FN static int mirror_top_change(struct ash_node *node, const struct ash_io *io)
{
    struct ash_resume_file *resume = ash_mirror_top_of(node)->resume;
    count(node, io);
    if (resume == NULL) {
        return change(node, io);
    }
    struct ash_resume_intent intent;
    int ret = ash_resume_intend(resume, &intent, io->offset, io->bytes);
    if (ret == 0) {
        ret = change(node, io);
        ash_resume_intended(&intent);
    }
    return ret;
}

/* What a disk loses, or gets anew, is a change too. */
ASH_CO_FN static int mirror_top_resize(struct ash_node *node, uint64_t bytes,
                                       enum ash_prealloc prealloc, struct ash_error *error)
{
    struct ash_resume_file *resume = ash_mirror_top_of(node)->resume;
    struct ash_resume_intent intent;
    uint64_t from = ASH_MIN(bytes, node->size_bytes);
    if (resume == NULL) {
        return ash_filter_resize(node, bytes, prealloc, error);
    }
    int ret = ash_resume_intend(resume, &intent, from, ASH_MAX(bytes, node->size_bytes) - from);
    if (ret < 0) {
        return ash_error_errno(error, ret, "'%s' cannot be written", resume->name);
    }
    ret = ash_filter_resize(node, bytes, prealloc, error);
    ash_resume_intended(&intent);
    return ret;
}

const struct ash_driver ash_driver_mirror_top = {
    .name = "mirror-top",
    .kind = ASH_DRIVER_FILTER,
    .state_size = sizeof(struct ash_mirror_top),
    .open = ash_filter_open,
    .limits = ash_filter_limits,
    .resize = mirror_top_resize,
    .io =
        {
            [ASH_WRITE] = mirror_top_change,
            [ASH_ZERO] = mirror_top_change,
            [ASH_DISCARD] = mirror_top_change,
        },
};
