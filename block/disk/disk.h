/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk from the inside: for the library's own coroutines and for the tools. The public part is
 * <ashlar/disk.h>. */
#ifndef ASH_BLOCK_DISK_DISK_H
#define ASH_BLOCK_DISK_DISK_H

#include <ashlar/disk.h>
#include "block/graph/node.h"
#include "block/io/io.h"

/* A user of a graph (block/graph/user.h). Every request enters and leaves here. */
struct ash_disk {
    struct ash_loop *loop;
    struct ash_edge *root;
    bool write_through; /* every write is FUA */
    struct ash_user user;
    uint32_t queues; /* and loans */
    struct ash_disk_published *published; /* what other threads may read */
};

/* Opens a description (block/graph/open.h) with ASH_NODE_* flags. With ASH_NODE_WRITE it needs
 * read, write and resize and allows others to read; without it, reading, and allows all but writing
 * and resizing; ASH_NODE_FORCE_SHARE allows all. */
ASH_CO_FN int ash_co_disk_open(struct ash_loop *loop, const json_t *description, uint32_t flags,
                               struct ash_disk **disk, struct ash_error *error);
/* The same as ash_disk_open(), for coroutines. */
ASH_CO_FN int ash_co_disk_open_public(struct ash_loop *loop, const char *description,
                                      const struct ash_disk_options *options,
                                      struct ash_disk **disk, struct ash_error *error);
ASH_CO_FN int ash_co_disk_close(struct ash_disk *disk, struct ash_error *error);

/* A copy of what a host gave (NULL: the defaults) for a call that is made later; to be cleared. What
 * cannot be understood leaves an error there. */
void ash_disk_options_copy(struct ash_disk_options *copy, const struct ash_disk_options *options,
                           struct ash_error *error);
void ash_disk_options_clear(struct ash_disk_options *copy);

/* One request, accounted and held up by pauses. */
ASH_CO_FN int ash_disk_io(struct ash_disk *disk, const struct ash_io *io);
ASH_CO_FN int ash_disk_read(struct ash_disk *disk, uint64_t offset, void *buffer, uint64_t bytes);
ASH_CO_FN int ash_disk_write(struct ash_disk *disk, uint64_t offset, const void *buffer,
                             uint64_t bytes, uint32_t flags);
ASH_CO_FN int ash_disk_zero(struct ash_disk *disk, uint64_t offset, uint64_t bytes, uint32_t flags);
ASH_CO_FN int ash_disk_discard(struct ash_disk *disk, uint64_t offset, uint64_t bytes);
ASH_CO_FN int ash_disk_flush(struct ash_disk *disk);
ASH_CO_FN int ash_co_disk_resize(struct ash_disk *disk, uint64_t bytes, uint32_t flags,
                                 int prealloc, struct ash_error *error);

/* Closes the gate and waits until no request is in flight, at most until the deadline on the loop's
 * clock (UINT64_MAX: none): -ETIMEDOUT and the gate is open again. Pauses nest. */
ASH_CO_FN int ash_disk_pause(struct ash_disk *disk, uint64_t deadline_ns);
void ash_disk_resume(struct ash_disk *disk);

/* Reopens the disk's nodes with other flags and write mode, paused meanwhile. */
ASH_CO_FN int ash_disk_reopen(struct ash_disk *disk, uint32_t flags, bool write_through,
                              struct ash_error *error);
/* The same with the flags of detect-zeroes too, and other options for the driver of the disk's node, or
 * of what filters on it stand on. */
ASH_CO_FN int ash_disk_reopen_with(struct ash_disk *disk, uint32_t flags, bool write_through,
                                   const json_t *options, struct ash_error *error);

/* Cache modes as qemu-img's -t takes them: sets ASH_NODE_DIRECT and NO_FLUSH in *flags,
 * *write_through. -EINVAL: no such mode. */
int ash_cache_mode(const char *mode, uint32_t *flags, bool *write_through);

static inline uint64_t ash_disk_bytes(const struct ash_disk *disk)
{
    return disk->root->child->size_bytes;
}

static inline struct ash_node *ash_disk_node(const struct ash_disk *disk)
{
    return disk->root->child;
}

#endif
