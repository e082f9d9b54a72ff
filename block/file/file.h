/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of the file driver; nobody outside block/file includes this. */
#ifndef ASH_BLOCK_FILE_FILE_H
#define ASH_BLOCK_FILE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include "block/driver.h"
#include "util/engine/co_aio.h"

/* Of the option "aio"; threads is the first, io_uring the third. */
#define ASH_FILE_AIO_NATIVE 1

/* The state of a node. Owner thread. */
struct ash_file_node {
    /* Options. */
    char *filename;
    int locking;       /* enum ash_file_locking */
    int aio;           /* the loop's engine decides; native asks for O_DIRECT */
    /* Taken, and nothing follows from them. */
    uint64_t aio_max_batch;
    bool drop_cache;
    bool check_cache_dropped;

    uint64_t adopt_fd; /* ASH_FILE_NO_FD: none */

    struct ash_file *file;        /* the node's only descriptor */
    struct ash_file_status about; /* as it was when opened: kind, identity, device properties */
    uint32_t request_alignment;
    uint32_t memory_alignment;

    /* Flushing (io.c). */
    bool flush_failed;         /* and what it may have lost stays lost */
    bool flushing;             /* one at a time */
    struct ash_co_queue flush_waiters;
    uint64_t mutations;        /* writes, zeroes, discards, resizes that ended */
    uint64_t mutations_stable; /* of them covered by a flush that began after they ended */

    /* What the file system was found not to do (io.c). */
    bool no_zero_range;
    bool no_punch;
    bool no_discard;
    bool no_allocate;

    /* Held shared by writes beyond the end, exclusively by whatever else sets the length. */
    struct ash_co_rwlock length_lock;

    /* What seeks found (status.c). */
    struct ash_file_extents {
        struct ash_file_extent {
            uint64_t offset;
            uint64_t bytes; /* 0: unused */
            bool hole;
        } extent[4];
        uint32_t oldest; /* the next to be replaced */
        bool any;
    } extents;
    bool no_seek;

    /* Locks (lock.c): bytes that `file` holds. */
    uint32_t lock_needs;
    uint32_t lock_denies;
    uint32_t allows; /* what the parents can bear others to do, locks or not */
    bool lock_off;   /* by the user, or because the host has none */

    /* Between reopen_prepare and commit or abort: NULL if the descriptor stays. */
    struct ash_file *next;
    uint32_t next_request_alignment;
    uint32_t next_memory_alignment;
};

#define ASH_FILE_NO_FD UINT64_MAX

enum ash_file_locking {
    ASH_FILE_LOCKING_AUTO,
    ASH_FILE_LOCKING_ON,
    ASH_FILE_LOCKING_OFF,
};

static inline struct ash_file_node *ash_file_node(const struct ash_node *node)
{
    return node->state;
}

/* open.c */
ASH_CO_FN int ash_file_node_open(struct ash_node *node, struct ash_error *error);
ASH_CO_FN int ash_file_node_close(struct ash_node *node);
ASH_CO_FN int ash_file_node_reopen_prepare(struct ash_node *node, uint32_t flags,
                                           struct ash_error *error);
ASH_CO_FN void ash_file_node_reopen_commit(struct ash_node *node, uint32_t flags);
ASH_CO_FN void ash_file_node_reopen_abort(struct ash_node *node);
/* Options of a new file. */
struct ash_file_create_options {
    bool nocow;
    uint64_t extent_size_hint;
};

/* Refuses paths that are neither regular files nor block devices before they are opened: opening
 * some devices has effects. A path that cannot be examined is left to open. */
ASH_CO_FN int ash_file_check_kind(struct ash_loop *loop, const char *filename, const char *verb,
                                  bool write, struct ash_error *error);

/* align.c: what O_DIRECT demands of this file. -EINVAL: no alignment that works. */
ASH_CO_FN int ash_file_probe_alignment(struct ash_loop *loop, struct ash_file *file,
                                       const struct ash_file_status *about,
                                       uint32_t *request_alignment, uint32_t *memory_alignment);

/* io.c */
ASH_CO_FN int ash_file_read(struct ash_node *node, const struct ash_io *io);
ASH_CO_FN int ash_file_write(struct ash_node *node, const struct ash_io *io);
ASH_CO_FN int ash_file_flush(struct ash_node *node, const struct ash_io *io);
ASH_CO_FN int ash_file_discard(struct ash_node *node, const struct ash_io *io);
ASH_CO_FN int ash_file_zero(struct ash_node *node, const struct ash_io *io);
/* After contents or length changed, or may have. */
void ash_file_mutated(struct ash_file_node *state, uint64_t offset, uint64_t bytes,
                      bool holes_only);

/* status.c */
ASH_CO_FN int ash_file_status(struct ash_node *node, const struct ash_io *io);
/* Forgets what overlaps; with holes_only, data stays known as data. */
void ash_file_extents_forget(struct ash_file_extents *extents, uint64_t offset, uint64_t bytes,
                             bool holes_only);

/* length.c */
ASH_CO_FN int ash_file_create(struct ash_loop *loop, const char *filename, const void *options,
                              struct ash_error *error);
ASH_CO_FN int ash_file_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                              struct ash_error *error);

/* lock.c */
ASH_CO_FN int ash_file_lock(struct ash_node *node, uint32_t needs, uint32_t allows,
                            struct ash_error *error);
/* On a file that holds no locks yet: takes them and looks for conflicts. On failure the locks are
 * left to ash_file_unlock(). -EAGAIN; -ENOTSUP: the host has no such locks. */
ASH_CO_FN int ash_file_lock_new(struct ash_file *file, const char *filename, uint32_t needs,
                                uint32_t denies, struct ash_error *error);
/* Lets go of all locks; to be called before ash_co_close(), which may do so a while later only. */
ASH_CO_FN void ash_file_unlock(struct ash_file *file);
/* Takes over the locks that another open of the same file holds; they do not conflict. */
ASH_CO_FN int ash_file_lock_copy(struct ash_file *file, uint32_t needs, uint32_t denies);

#endif
