/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file: making files, and setting their length.
 *
 * Invariants:
 *  1. A file that another program uses is not truncated: its locks are looked at first.
 *  2. Who sets the length holds length_lock exclusively: no write beyond the end is in flight.
 *  3. A change of the length that fails leaves the file as long as it was; if that fails, too, the
 *     log says so. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "block/file/file.h"
#include "util/assert.h"
#include "util/range.h"

#define FILL_BYTES (1 * MiB)

/* The new file is written and resized here, and nobody else may set its length meanwhile. */
#define CREATE_NEEDS (ASH_RIGHT_WRITE | ASH_RIGHT_RESIZE)
#define CREATE_DENIES ASH_RIGHT_RESIZE

ASH_CO_FN static int empty(struct ash_file *file, const char *filename, struct ash_error *error)
{
    struct ash_file_status about;
    int ret = ash_co_status(file, &about);
    if (ret < 0) {
        return ash_error_errno(error, ret, "Could not find out about '%s'", filename);
    }
    if (about.block_device) {
        return 0;
    }
    if (!about.regular) {
        return ash_error_set(
            error, -EINVAL,
            "Could not create '%s': it is neither a regular file nor a block device", filename);
    }
    ret = ash_file_lock_new(file, filename, CREATE_NEEDS, CREATE_DENIES, error);
    if (ret < 0 && ret != -ENOTSUP) {
        return ret;
    }
    ret = ash_co_truncate(file, 0);
    if (ret < 0) {
        return ash_error_errno(error, ret, "Could not empty '%s'", filename);
    }
    return 0;
}

int ash_file_create(struct ash_loop *loop, const char *filename, const void *options,
                    struct ash_error *error)
{
    const struct ash_file_create_options *wanted = options;
    if (wanted != NULL && wanted->extent_size_hint > UINT32_MAX) {
        return ash_error_set(error, -EINVAL, "Extent size hint is too large");
    }
    int ret = ash_file_check_kind(loop, filename, "create", true, error);
    if (ret < 0) {
        return ret;
    }
    struct ash_aio open = {
        .op = ASH_AIO_OPEN,
        .path = filename,
        .adopt_fd = -1,
        .file_flags = ASH_FILE_WRITE | ASH_FILE_CREATE,
    };
    if (wanted != NULL) {
        open.file_flags |= wanted->nocow ? ASH_FILE_NOCOW : 0;
        open.bytes = wanted->extent_size_hint;
    }
    ret = (int)ash_co_aio(loop->engine, &open);
    if (ret < 0) {
        return ash_error_errno(error, ret, "Could not create '%s'", filename);
    }
    struct ash_file *file = open.file;
    ret = empty(file, filename, error);
    ash_file_unlock(file);
    int closed = ash_co_close(file);
    if (ret == 0 && closed < 0) {
        ret = ash_error_errno(error, closed, "Could not close '%s'", filename);
    }
    return ret;
}

/* Writes zeroes from `from` to `to` in whole blocks of the file's alignment. The block in which
 * `from` lies holds data and is left alone; what is written too much at the end is cut off by the
 * caller. */
ASH_CO_FN static int fill(struct ash_node *node, uint64_t from, uint64_t to)
{
    struct ash_file_node *state = ash_file_node(node);
    uint64_t start = ash_align_up(from, state->request_alignment);
    uint64_t stop = ash_align_up(to, state->request_alignment);
    void *zeroes = ash_buffer_alloc(node->loop, FILL_BYTES, ASH_MAX(state->memory_alignment, 16));
    if (zeroes == NULL) {
        return -ENOMEM;
    }
    memset(zeroes, 0, FILL_BYTES);
    int ret = 0;
    for (uint64_t at = start; at < stop && ret >= 0; at += FILL_BYTES) {
        struct iovec vec = {zeroes, ASH_MIN(FILL_BYTES, stop - at)};
        ret = ash_co_write(state->file, at, vec.iov_len, ash_iov_of(&vec, 1), 0);
    }
    ash_buffer_free(node->loop, zeroes, FILL_BYTES);
    return ret;
}

/* After a failure, which may come late: what could not be done may be done all the same, and the
 * file must not have another length than the node. */
ASH_CO_FN static void restore(struct ash_node *node)
{
    int ret = ash_co_truncate(ash_file_node(node)->file, node->size_bytes);
    if (ret < 0) {
        ash_log(node->loop, ASH_LOG_ERROR,
                "Could not make '%s' %" PRIu64 " bytes long again (error %d)", node->filename,
                node->size_bytes, -ret);
    }
}

ASH_CO_FN static int grow(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                          struct ash_error *error)
{
    struct ash_file_node *state = ash_file_node(node);
    uint64_t old = node->size_bytes;
    int ret = 0;
    if (prealloc == ASH_PREALLOC_FALLOC) {
        ret = ash_co_allocate(state->file, 0, old, bytes - old);
    } else if (prealloc == ASH_PREALLOC_FULL) {
        ret = fill(node, old, bytes);
    }
    if (ret >= 0) {
        ret = ash_co_truncate(state->file, bytes);
    }
    if (ret >= 0 && prealloc == ASH_PREALLOC_FULL) {
        /* Some file systems find out only now whether there is room. */
        state->mutations++;
        ret = ash_file_flush(node, NULL);
    }
    if (ret < 0) {
        restore(node);
        return ash_error_errno(error, ret,
                               prealloc == ASH_PREALLOC_OFF
                                   ? "Could not make '%s' %" PRIu64 " bytes long"
                                   : "Could not preallocate '%s' up to %" PRIu64 " bytes",
                               node->filename, bytes);
    }
    return 0;
}

ASH_CO_FN static int resize_file(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                                 struct ash_error *error)
{
    if (bytes > node->size_bytes) {
        return grow(node, bytes, prealloc, error);
    }
    if (prealloc != ASH_PREALLOC_OFF && bytes < node->size_bytes) {
        return ash_error_set(error, -ENOTSUP, "Preallocation can't be used for shrinking '%s'",
                             node->filename);
    }
    int ret = ash_co_truncate(ash_file_node(node)->file, bytes);
    if (ret < 0) {
        restore(node);
        return ash_error_errno(error, ret, "Could not make '%s' %" PRIu64 " bytes long",
                               node->filename, bytes);
    }
    return 0;
}

int ash_file_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                    struct ash_error *error)
{
    struct ash_file_node *state = ash_file_node(node);
    if (prealloc == ASH_PREALLOC_METADATA) {
        return ash_error_set(error, -ENOTSUP, "Unsupported preallocation mode: %s",
                             ash_prealloc_names[prealloc]);
    }
    if (state->about.block_device) {
        if (bytes == node->size_bytes) {
            return 0;
        }
        return ash_error_set(error, -ENOTSUP,
                             "'%s' is a device of %" PRIu64 " bytes and cannot become %" PRIu64
                             " bytes long",
                             node->filename, node->size_bytes, bytes);
    }
    ash_co_rwlock_write(&state->length_lock);
    uint64_t from = ASH_MIN(node->size_bytes, bytes);
    int ret = resize_file(node, bytes, prealloc, error);
    if (ret == 0) {
        node->size_bytes = bytes;
    }
    ash_file_mutated(state, from, INT64_MAX - from, false);
    ash_co_rwlock_unlock(&state->length_lock);
    return ret;
}
