/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* file: opening, closing and reopening the one descriptor of a node.
 *
 * Invariants:
 *  1. A node has one descriptor: for I/O, for locks, for everything. Only between reopen_prepare
 * and commit or abort does it have two, and then both hold the locks.
 *  2. Nothing but regular files and block devices is opened, by path where the path can be examined
 * and by descriptor always. Opening a FIFO waits; opening a tape rewinds it.
 *  3. Reopening leads to the same file, whatever the path names by then. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <limits.h>
#include "block/file/file.h"
#include "util/assert.h"

static uint32_t file_flags(uint32_t node_flags)
{
    return ((node_flags & ASH_NODE_WRITE) != 0 ? ASH_FILE_WRITE : 0) |
           ((node_flags & ASH_NODE_DIRECT) != 0 ? ASH_FILE_DIRECT : 0);
}

static bool kind_fits(const struct ash_file_status *about)
{
    return about->regular || about->block_device;
}

static int wrong_kind(const struct ash_file_status *about, const char *filename, const char *verb,
                      bool write, struct ash_error *error)
{
    if (about->directory && write) {
        return ash_error_errno(error, -EISDIR, "Could not %s '%s'", verb, filename);
    }
    return ash_error_set(error, -EINVAL, "'file' driver requires '%s' to be a regular file",
                         filename);
}

int ash_file_check_kind(struct ash_loop *loop, const char *filename, const char *verb, bool write,
                        struct ash_error *error)
{
    struct ash_file_status about;
    if (loop->hooks.open_file != NULL) {
        return 0; /* the path is the hook's, and examining it would be another open */
    }
    int ret = ash_co_path_status(loop->engine, filename, &about);
    return ret == 0 && !kind_fits(&about) ? wrong_kind(&about, filename, verb, write, error) : 0;
}

ASH_CO_FN static int open_host(struct ash_node *node, const char *path, uint64_t adopt_fd,
                               uint32_t flags, struct ash_file **file)
{
    if (adopt_fd == ASH_FILE_NO_FD) {
        return ash_co_open(node->loop->engine, path, file_flags(flags), file);
    }
    struct ash_aio aio = {
        .op = ASH_AIO_OPEN,
        .adopt_fd = (int)adopt_fd,
        .file_flags = file_flags(flags),
    };
    int64_t ret = ash_co_aio(node->loop->engine, &aio);
    *file = aio.file;
    return ret < 0 ? (int)ret : 0;
}

static bool means_read_only(int ret)
{
    return ret == -EACCES || ret == -EPERM || ret == -EROFS;
}

static int cannot_open(const struct ash_node *node, uint32_t flags, int ret,
                       struct ash_error *error)
{
    if (ret == -EINVAL && (flags & ASH_NODE_DIRECT) != 0) {
        return ash_error_set(error, ret,
                             "Could not open '%s': the file system does not support O_DIRECT",
                             node->filename);
    }
    return ash_error_errno(error, ret, "Could not open '%s'", node->filename);
}

/* Opens with the rights that `*flags` ask for, or without writing where that is denied and
 * ASH_NODE_AUTO_READ_ONLY lets it. */
ASH_CO_FN static int open_file(struct ash_node *node, const char *path, uint64_t adopt_fd,
                               uint32_t *flags, struct ash_file **file,
                               struct ash_file_status *about, struct ash_error *error)
{
    int ret = open_host(node, path, adopt_fd, *flags, file);
    if (means_read_only(ret) && (*flags & ASH_NODE_WRITE) != 0 &&
        (*flags & ASH_NODE_AUTO_READ_ONLY) != 0) {
        *flags &= ~ASH_NODE_WRITE;
        ret = open_host(node, path, adopt_fd, *flags, file);
    }
    if (ret < 0) {
        return cannot_open(node, *flags, ret, error);
    }
    ret = ash_co_status(*file, about);
    if (ret < 0) {
        ash_error_errno(error, ret, "Could not find out about '%s'", node->filename);
    } else if (!kind_fits(about)) {
        ret = wrong_kind(about, node->filename, "open", (*flags & ASH_NODE_WRITE) != 0, error);
    } else if (about->read_only_device && (*flags & ASH_NODE_WRITE) != 0) {
        if ((*flags & ASH_NODE_AUTO_READ_ONLY) != 0) {
            *flags &= ~ASH_NODE_WRITE;
            return 0;
        }
        ret = ash_error_set(error, -EACCES,
                            "Could not open '%s' for writing: the device is read-only",
                            node->filename);
    }
    if (ret < 0) {
        ash_co_close(*file);
    }
    return ret;
}

ASH_CO_FN static int find_alignment(struct ash_node *node, struct ash_file *file, uint32_t flags,
                                    const struct ash_file_status *about,
                                    uint32_t *request_alignment, uint32_t *memory_alignment,
                                    struct ash_error *error)
{
    *request_alignment = 1;
    *memory_alignment = 1;
    if ((flags & ASH_NODE_DIRECT) == 0) {
        return 0;
    }
    int ret =
        ash_file_probe_alignment(node->loop, file, about, request_alignment, memory_alignment);
    if (ret < 0) {
        ash_error_errno(error, ret,
                        "Could not find an alignment that O_DIRECT accepts on '%s'; try "
                        "cache.direct=off",
                        node->filename);
    }
    return ret;
}

static int check_options(struct ash_node *node, struct ash_error *error)
{
    struct ash_file_node *state = ash_file_node(node);
    if (state->adopt_fd != ASH_FILE_NO_FD && state->adopt_fd > INT_MAX) {
        return ash_error_set(error, -EINVAL, "There is no descriptor %" PRIu64, state->adopt_fd);
    }
    if (state->adopt_fd != ASH_FILE_NO_FD && state->filename != NULL) {
        return ash_error_set(error, -EINVAL,
                             "Options 'fd' and 'filename' exclude each other ('%s')",
                             state->filename);
    }
    if (state->adopt_fd == ASH_FILE_NO_FD &&
        (state->filename == NULL || state->filename[0] == '\0')) {
        return ash_error_set(error, -EINVAL, "The '%s' block driver requires a file name",
                             node->driver->name);
    }
    if (state->aio == ASH_FILE_AIO_NATIVE && (node->flags & ASH_NODE_DIRECT) == 0) {
        return ash_error_set(error, -EINVAL,
                             "aio=native was specified, but it requires cache.direct=on, which was "
                             "not specified.");
    }
    g_free(node->filename);
    node->filename = state->filename != NULL ? g_strdup(state->filename)
                                             : g_strdup_printf("fd:%" PRIu64, state->adopt_fd);
    return 0;
}

int ash_file_node_open(struct ash_node *node, struct ash_error *error)
{
    struct ash_file_node *state = ash_file_node(node);
    int ret = check_options(node, error);
    if (ret == 0 && state->filename != NULL) {
        ret = ash_file_check_kind(node->loop, node->filename, "open",
                                  (node->flags & ASH_NODE_WRITE) != 0, error);
    }
    if (ret < 0) {
        return ret;
    }
    uint32_t flags = node->flags;
    ret = open_file(node, node->filename, state->adopt_fd, &flags, &state->file, &state->about,
                    error);
    if (ret < 0) {
        return ret;
    }
    ret = find_alignment(node, state->file, flags, &state->about, &state->request_alignment,
                         &state->memory_alignment, error);
    if (ret < 0) {
        ash_co_close(state->file);
        return ret;
    }
    node->flags = flags | (state->about.regular ? ASH_NODE_GROWS : 0);
    node->size_bytes = state->about.bytes;
    state->mutations = (flags & ASH_NODE_WRITE) != 0 ? 1 : 0;
    state->allows = ASH_RIGHT_ALL;
    state->lock_off =
        state->locking == ASH_FILE_LOCKING_OFF ||
        (state->locking == ASH_FILE_LOCKING_AUTO && (node->flags & ASH_NODE_NO_LOCK) != 0);
    ash_co_rwlock_init(&state->length_lock);
    ash_co_queue_init(&state->flush_waiters);
    return 0;
}

int ash_file_node_close(struct ash_node *node)
{
    struct ash_file_node *state = ash_file_node(node);
    ash_assert(state->next == NULL);
    if ((state->lock_needs | state->lock_denies) != 0) {
        ash_file_unlock(state->file);
    }
    int ret = ash_co_close(state->file);
    state->file = NULL;
    return state->flush_failed ? -EIO : ret;
}

int ash_file_node_reopen_prepare(struct ash_node *node, uint32_t flags, struct ash_error *error)
{
    struct ash_file_node *state = ash_file_node(node);
    if (file_flags(flags) == state->file->flags) {
        return 0;
    }
    /* By the descriptor where there is no path. */
    char by_fd[48];
    g_snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", state->file->fd);
    const char *path = state->filename != NULL ? state->filename : by_fd;
    uint32_t got = flags & ~ASH_NODE_AUTO_READ_ONLY;
    struct ash_file_status about;
    struct ash_file *file = NULL;
    int ret = open_file(node, path, ASH_FILE_NO_FD, &got, &file, &about, error);
    if (ret < 0) {
        return ret;
    }
    if (about.device != state->about.device || about.inode != state->about.inode) {
        ret = ash_error_set(error, -ESTALE,
                            "Could not reopen '%s': the name leads to another file now",
                            node->filename);
    }
    if (ret == 0) {
        ret = find_alignment(node, file, flags, &about, &state->next_request_alignment,
                             &state->next_memory_alignment, error);
    }
    if (ret == 0) {
        ret = ash_file_lock_copy(file, state->lock_needs, state->lock_denies);
        if (ret < 0) {
            ash_error_errno(error, ret, "Could not lock '%s'", node->filename);
        }
    }
    if (ret < 0) {
        ash_co_close(file);
        return ret;
    }
    state->next = file;
    return 0;
}

void ash_file_node_reopen_commit(struct ash_node *node, uint32_t flags)
{
    struct ash_file_node *state = ash_file_node(node);
    if (state->next != NULL) {
        ash_file_unlock(state->file);
        ash_co_close(state->file);
        state->file = state->next;
        state->next = NULL;
        state->request_alignment = state->next_request_alignment;
        state->memory_alignment = state->next_memory_alignment;
        state->mutations++; /* the new descriptor has not been flushed yet */
    }
    node->flags = flags | (state->about.regular ? ASH_NODE_GROWS : 0);
    node->driver->limits(node, &node->limits);
}

void ash_file_node_reopen_abort(struct ash_node *node)
{
    struct ash_file_node *state = ash_file_node(node);
    if (state->next != NULL) {
        ash_file_unlock(state->next);
        ash_co_close(state->next);
        state->next = NULL;
    }
}
