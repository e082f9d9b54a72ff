/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* snapshot-access: the disk as it was when the copy-before-write node that is its file was opened.
 *
 *     {"driver": "snapshot-access", "file": "cbw0"}
 *
 * Reading what does not belong to the snapshot, or any of a snapshot that is broken, is -EACCES. A
 * discard says that a range will not be read again: it is copied no more, and what it takes in the
 * target is given back. Nothing can be written. */
#include <errno.h>
#include "block/driver.h"
#include "block/filter/copy_before_write.h"
#include "block/filter/filter.h"

struct snapshot_state {
    struct ash_before_write *before_write; /* a reference */
};

ASH_CO_FN static int snapshot_open(struct ash_node *node, struct ash_error *error)
{
    struct snapshot_state *state = node->state;
    state->before_write = ash_before_write_of(node->file->child);
    if (state->before_write == NULL) {
        return ash_error_set(error, -EINVAL,
                             "The file of a snapshot-access node is a "
                             "copy-before-write node, and not '%s'",
                             node->file->child->name);
    }
    ash_before_write_ref(state->before_write);
    node->size_bytes = state->before_write->size_bytes;
    return 0;
}

ASH_CO_FN static int snapshot_close(struct ash_node *node)
{
    const struct snapshot_state *state = node->state;
    ash_before_write_unref(state->before_write);
    return 0;
}

static void snapshot_limits(const struct ash_node *node, struct ash_limits *limits)
{
    const struct snapshot_state *state = node->state;
    ash_filter_limits(node, limits);
    limits->cluster = (uint32_t)state->before_write->copier->cluster_bytes;
}

/* It bears all that others do: what it shows stays as it is. */
static void snapshot_rights(const struct ash_node *node, uint32_t flags, enum ash_role role,
                            uint32_t parent_needs, uint32_t parent_allows, uint32_t *needs,
                            uint32_t *allows)
{
    (void)node;
    (void)flags;
    (void)role;
    (void)parent_allows;
    *needs = parent_needs & ASH_RIGHT_READ;
    *allows = ASH_RIGHT_ALL;
}

ASH_CO_FN static int snapshot_read(struct ash_node *node, const struct ash_io *io)
{
    const struct snapshot_state *state = node->state;
    return ash_before_write_read(state->before_write, io->offset, io->bytes, &io->iov);
}

ASH_CO_FN static int snapshot_status(struct ash_node *node, const struct ash_io *io)
{
    const struct snapshot_state *state = node->state;
    return ash_before_write_status(state->before_write, io->offset, io->bytes, io->status);
}

ASH_CO_FN static int snapshot_discard(struct ash_node *node, const struct ash_io *io)
{
    const struct snapshot_state *state = node->state;
    return ash_before_write_drop(state->before_write, io->offset, io->bytes);
}

ASH_CO_FN static int snapshot_refuse(struct ash_node *node, const struct ash_io *io)
{
    (void)node;
    (void)io;
    return -EACCES;
}

ASH_CO_FN static int snapshot_flush(struct ash_node *node, const struct ash_io *io)
{
    (void)node;
    (void)io;
    return 0; /* nothing was written */
}

extern const struct ash_driver ash_driver_snapshot_access;
const struct ash_driver ash_driver_snapshot_access = {
    .name = "snapshot-access",
    .kind = ASH_DRIVER_FILTER,
    .state_size = sizeof(struct snapshot_state),
    .open = snapshot_open,
    .close = snapshot_close,
    .limits = snapshot_limits,
    .rights = snapshot_rights,
    .io =
        {
            [ASH_READ] = snapshot_read,
            [ASH_STATUS] = snapshot_status,
            [ASH_DISCARD] = snapshot_discard,
            [ASH_WRITE] = snapshot_refuse,
            [ASH_ZERO] = snapshot_refuse,
            [ASH_FLUSH] = snapshot_flush,
        },
};
