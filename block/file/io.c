/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file: reading, writing, flushing, zeroing and discarding.
 *
 * Invariants:
 *  1. A flush that failed is never forgotten: the kernel reports the loss of a page once and then
 * calls it clean, so that the next fdatasync succeeds. From the first failure on every flush fails
 * until the node is closed. One flush runs at a time: of two that ran side by side the one that
 * succeeded could be told first. Who waited for one is often covered by it.
 *  2. A flush without a system call is one for which every mutation that ended before it was
 * covered by a successful flush that began later. The first flush of a node that may write always
 * reaches the host: what an earlier process wrote and we have read need not be stable.
 *  3. A write beyond the end, which the host serves by growing the file, never runs beside anything
 *     else that sets the length: a truncate with an older idea of the length cuts the write off,
 * and XFS has lost writes beside a fallocate.
 *  4. size_bytes is the exact length, after failures too. O_DIRECT writes whole blocks: what a
 * write adds to fill the last one up is cut off again before anything else sets the length. A cut
 * of the power in between leaves the file longer by less than a block of zeroes.
 *  5. Zeroing never stands on a discard. What a file system cannot do is -ENOTSUP, and the request
 * path writes zeroes as data. */
#include <errno.h>
#include <linux/falloc.h>
#include "block/file/file.h"
#include "util/assert.h"

void ash_file_mutated(struct ash_file_node *state, uint64_t offset, uint64_t bytes, bool holes_only)
{
    state->mutations++;
    if (state->extents.any) {
        ash_file_extents_forget(&state->extents, offset, bytes, holes_only);
    }
}

int ash_file_read(struct ash_node *node, const struct ash_io *io)
{
    return ash_co_read(ash_file_node(node)->file, io->offset, io->bytes, io->iov);
}

/* A request that may have grown the file in part failed: asks how long it is now. */
ASH_CO_FN static void refresh_length(struct ash_node *node)
{
    struct ash_file_status status;
    if (ash_co_status(ash_file_node(node)->file, &status) == 0) {
        node->size_bytes = ASH_MAX(node->size_bytes, status.bytes);
    }
}

/* Whether the length is what it should be after growing to `end`, with `ret`. */
ASH_CO_FN static void grown(struct ash_node *node, uint64_t end, int ret)
{
    if (ret >= 0) {
        node->size_bytes = ASH_MAX(node->size_bytes, end);
    } else if (ret != -ENOTSUP) {
        refresh_length(node);
    }
}

ASH_CO_FN static int write_data(struct ash_node *node, const struct ash_io *io)
{
    struct ash_file_node *state = ash_file_node(node);
    bool stable = (io->flags & ASH_REQ_FUA) != 0 && (node->flags & ASH_NODE_NO_FLUSH) == 0;
    int ret = ash_co_write(state->file, io->offset, io->bytes, io->iov, stable ? ASH_AIO_DSYNC : 0);
    if (stable && ret == -EIO) {
        /* It may be the sync that failed, and what others wrote may be lost with it. */
        state->flush_failed = true;
    }
    ash_file_mutated(state, io->offset, io->bytes, true);
    return ret;
}

/* A write whose last block is filled up beyond the end of the file. */
ASH_CO_FN static int write_and_cut(struct ash_node *node, const struct ash_io *io)
{
    struct ash_file_node *state = ash_file_node(node);
    uint64_t end = io->offset + io->bytes;
    uint64_t wanted = ASH_MAX(node->size_bytes, end - io->padding_bytes);
    int ret = write_data(node, io);
    if (ret < 0) {
        refresh_length(node);
    } else {
        node->size_bytes = ASH_MAX(node->size_bytes, end);
    }
    if (node->size_bytes <= wanted) {
        return ret;
    }
    int cut = ash_co_truncate(state->file, wanted);
    ash_file_mutated(state, wanted, end - wanted, false);
    struct ash_file_status status;
    if (cut < 0 && ash_co_status(state->file, &status) == 0) {
        node->size_bytes = status.bytes; /* it may have been cut all the same */
    }
    if (cut < 0) {
        return ret < 0 ? ret : cut;
    }
    node->size_bytes = wanted;
    /* What was asked to be stable has a length that is not yet. */
    return ret == 0 && (io->flags & ASH_REQ_FUA) != 0 ? ash_file_flush(node, NULL) : ret;
}

int ash_file_write(struct ash_node *node, const struct ash_io *io)
{
    struct ash_file_node *state = ash_file_node(node);
    uint64_t end = io->offset + io->bytes;
    if (ash_likely(end <= node->size_bytes)) {
        return write_data(node, io);
    }
    if (io->padding_bytes > 0) {
        ash_co_rwlock_write(&state->length_lock);
        int ret = write_and_cut(node, io);
        ash_co_rwlock_unlock(&state->length_lock);
        return ret;
    }
    ash_co_rwlock_read(&state->length_lock);
    int ret = write_data(node, io);
    grown(node, end, ret);
    ash_co_rwlock_unlock(&state->length_lock);
    return ret;
}

int ash_file_flush(struct ash_node *node, const struct ash_io *io)
{
    (void)io;
    struct ash_file_node *state = ash_file_node(node);
    if ((node->flags & ASH_NODE_NO_FLUSH) != 0) {
        return 0;
    }
    uint64_t asked = state->mutations;
    while (state->flushing) {
        ash_co_queue_wait(&state->flush_waiters);
    }
    if (state->flush_failed) {
        return -EIO;
    }
    if (asked <= state->mutations_stable) {
        return 0;
    }
    uint64_t covered = state->mutations;
    state->flushing = true;
    int ret = ash_co_flush(state->file);
    state->flushing = false;
    ash_co_queue_wake_all(&state->flush_waiters);
    if (ret < 0) {
        if (!state->flush_failed) {
            ash_log(node->loop, ASH_LOG_ERROR,
                    "Flushing '%s' failed (error %d): what was written since the last flush may be "
                    "lost, and no later flush will succeed",
                    node->filename, -ret);
        }
        state->flush_failed = true;
        return ret;
    }
    if (state->flush_failed) {
        return -EIO;
    }
    state->mutations_stable = ASH_MAX(state->mutations_stable, covered);
    return 0;
}

/* fallocate() with one meaning for "cannot": some file systems say -EINVAL. */
ASH_CO_FN static int allocate(struct ash_file *file, int mode, uint64_t offset, uint64_t bytes,
                              bool *unsupported)
{
    if (*unsupported) {
        return -ENOTSUP;
    }
    int ret = ash_co_allocate(file, mode, offset, bytes);
    if (ret == -EOPNOTSUPP || ret == -ENOSYS) {
        *unsupported = true;
        return -ENOTSUP;
    }
    return ret == -EINVAL ? -ENOTSUP : ret;
}

int ash_file_discard(struct ash_node *node, const struct ash_io *io)
{
    struct ash_file_node *state = ash_file_node(node);
    if (io->offset >= node->size_bytes) {
        return 0;
    }
    /* Of a device: a discard proper, which need not leave zeroes. */
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    mode |= state->about.block_device ? FALLOC_FL_NO_HIDE_STALE : 0;
    uint64_t bytes = ASH_MIN(io->bytes, node->size_bytes - io->offset);
    int ret = allocate(state->file, mode, io->offset, bytes, &state->no_discard);
    ash_file_mutated(state, io->offset, bytes, false);
    return ret;
}

/* A range that lies within the file. Where a file system cannot zero a range in place (tmpfs), a
 * hole to which space is given again does as well, but not on a device. */
ASH_CO_FN static int zero_inside(struct ash_file_node *state, uint64_t offset, uint64_t bytes,
                                 bool unmap)
{
    const int punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    int ret = -ENOTSUP;
    if (unmap) {
        ret = allocate(state->file, punch, offset, bytes, &state->no_punch);
    }
    if (ret == -ENOTSUP) {
        ret = allocate(state->file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, bytes,
                       &state->no_zero_range);
    }
    if (ret == -ENOTSUP && !unmap && !state->about.block_device && !state->no_allocate) {
        ret = allocate(state->file, punch, offset, bytes, &state->no_punch);
        if (ret == 0) {
            ret = allocate(state->file, FALLOC_FL_KEEP_SIZE, offset, bytes, &state->no_allocate);
        }
    }
    return ret;
}

/* A range that reaches beyond the end. With UNMAP what appears is a hole; otherwise space is set
 * aside for it, so that a later write to it cannot run out of it. */
ASH_CO_FN static int zero_growing(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                  bool unmap)
{
    struct ash_file_node *state = ash_file_node(node);
    uint64_t end = offset + bytes;
    uint64_t inside = offset < node->size_bytes ? node->size_bytes - offset : 0;
    if (unmap) {
        int ret = inside > 0 ? zero_inside(state, offset, inside, true) : 0;
        return ret < 0 ? ret : ash_co_truncate(state->file, end);
    }
    int ret = allocate(state->file, FALLOC_FL_ZERO_RANGE, offset, bytes, &state->no_zero_range);
    if (ret == -ENOTSUP && inside == 0) {
        ret = allocate(state->file, 0, offset, bytes, &state->no_allocate);
    }
    return ret;
}

int ash_file_zero(struct ash_node *node, const struct ash_io *io)
{
    struct ash_file_node *state = ash_file_node(node);
    bool unmap = (io->flags & ASH_REQ_UNMAP) != 0;
    uint64_t end = io->offset + io->bytes;
    int ret;
    if (end <= node->size_bytes) {
        ret = zero_inside(state, io->offset, io->bytes, unmap);
    } else {
        ash_co_rwlock_write(&state->length_lock);
        /* Somebody may have grown the file while this request waited. */
        if (end <= node->size_bytes) {
            ret = zero_inside(state, io->offset, io->bytes, unmap);
        } else {
            ret = zero_growing(node, io->offset, io->bytes, unmap);
            grown(node, end, ret);
        }
        ash_co_rwlock_unlock(&state->length_lock);
    }
    ash_file_mutated(state, io->offset, io->bytes, false);
    return ret;
}
