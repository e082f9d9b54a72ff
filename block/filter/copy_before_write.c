/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-before-write: what is about to change below is copied to a target first, so that the disk as
 * it was when the filter was opened can be read through a snapshot-access node above it.
 *
 *     {"driver": "copy-before-write", "file": ..., "target": "node",
 *      "bitmap": {"node": "n", "name": "b"}, "on-cbw-error": "break-snapshot", "cbw-timeout": 30,
 *      "min-cluster-size": 65536}
 *
 * `bitmap`: only what it marks belongs to the snapshot. `on-cbw-error`: what a copy that failed, or
 * that took longer than `cbw-timeout` seconds, does: break-guest-write (the guest's request fails)
 * or break-snapshot (the snapshot can be read no more, and the guest notices nothing).
 *
 * The moment is that at which the node was opened, or was put in the way of users.
 * When the node is closed, or taken out of the graph and closed, the snapshot breaks. */
#include "block/filter/copy_before_write.h"
#include <errno.h>
#include "block/bitmap/bitmap.h"
#include "block/driver.h"
#include "block/filter/filter.h"
#include "util/range.h"

enum on_cbw_error { BREAK_GUEST_WRITE, BREAK_SNAPSHOT };
static const char *const on_cbw_error_names[] = {"break-guest-write", "break-snapshot", NULL};

struct cbw_state {
    char *target;
    char *bitmap_node;
    char *bitmap_name;
    int on_cbw_error;
    uint64_t timeout_s;
    uint64_t cluster_bytes_min;
    struct ash_before_write *before_write;
};

static const struct ash_option cbw_options[] = {
    ASH_OPTION_STRING("target", struct cbw_state, target,
                      .help = "node that takes what is about to be overwritten"),
    ASH_OPTION_STRING("bitmap.node", struct cbw_state, bitmap_node,
                      .help = "node of the bitmap; the file by default"),
    ASH_OPTION_STRING("bitmap.name", struct cbw_state, bitmap_name,
                      .help = "only what this bitmap marks is kept"),
    ASH_OPTION_ENUM("on-cbw-error", struct cbw_state, on_cbw_error, on_cbw_error_names,
                    .help = "break-guest-write or break-snapshot"),
    ASH_OPTION_UINT("cbw-timeout", struct cbw_state, timeout_s, .max = 1000000,
                    .help = "seconds that a guest waits for a copy; 0: as long as it takes"),
    ASH_OPTION_SIZE("min-cluster-size", struct cbw_state, cluster_bytes_min,
                    .help = "copies are at least so large; a power of two"),
    ASH_OPTION_END,
};

struct ash_before_write *ash_before_write_of(const struct ash_node *node)
{
    const struct cbw_state *state = node->state;
    return node->driver == &ash_driver_copy_before_write ? state->before_write : NULL;
}

/* Of the whole source, only what the bitmap marks. */
static int keep_marked(const struct cbw_state *state, const struct ash_node *file,
                       struct ash_error *error)
{
    const struct ash_node *node =
        state->bitmap_node != NULL ? ash_node_find(file->loop, state->bitmap_node) : file;
    if (node == NULL) {
        return ash_error_set(error, -ENODEV, "Cannot find node '%s'", state->bitmap_node);
    }
    const struct ash_bitmap *bitmap = ash_bitmap_find(node, state->bitmap_name);
    if (bitmap == NULL) {
        return ash_error_set(error, -ENOENT, "Node '%s' has no bitmap '%s'", node->name,
                             state->bitmap_name);
    }
    int ret = ash_bitmap_check(bitmap, ASH_BITMAP_TO_READ, error);
    if (ret == 0 && bitmap->size_bytes != file->size_bytes) {
        ret = ash_error_set(error, -EINVAL, "Bitmap '%s' is of a disk of another length",
                            state->bitmap_name);
    }
    if (ret == 0) {
        ret = ash_before_write_restart(state->before_write);
    }
    uint64_t at = 0;
    uint64_t bytes = 0;
    while (ret == 0 &&
           ash_bitmap_next_dirty(bitmap, at + bytes, UINT64_MAX, UINT64_MAX, &at, &bytes)) {
        ash_before_write_keep(state->before_write, at, bytes);
    }
    return ret;
}

ASH_CO_FN static int cbw_open(struct ash_node *node, struct ash_error *error)
{
    struct cbw_state *state = node->state;
    if (state->target == NULL) {
        return ash_error_set(error, -EINVAL, "Parameter 'target' is missing");
    }
    struct ash_node *target = ash_node_find(node->loop, state->target);
    if (target == NULL) {
        return ash_error_set(error, -ENODEV, "Cannot find node '%s'", state->target);
    }
    int ret = ash_before_write_check_cluster(state->cluster_bytes_min, error);
    if (ret < 0) {
        return ret;
    }
    struct ash_before_write_config config = {
        .source = node->file->child,
        .target = target,
        .cluster_bytes_min = state->cluster_bytes_min,
        .timeout_ns = state->timeout_s * 1000000000,
        .break_guest_write = state->on_cbw_error == BREAK_GUEST_WRITE,
    };
    ret = ash_before_write_new(node->loop, &config, &state->before_write, error);
    if (ret == 0 && state->bitmap_name != NULL) {
        ret = keep_marked(state, node->file->child, error);
        if (ret < 0) {
            ash_before_write_unref(state->before_write);
        }
    }
    return ret < 0 ? ret : ash_filter_open(node, error);
}

/* Put in the way of guests: the moment is now. */
ASH_CO_FN static int cbw_inserted(struct ash_node *node, struct ash_error *error)
{
    const struct cbw_state *state = node->state;
    struct ash_node *file = node->file->child;
    if (state->before_write->copier->target->child->size_bytes < file->size_bytes) {
        return ash_error_set(error, -ENOSPC, "'%s' has grown meanwhile", file->filename);
    }
    if (state->bitmap_name != NULL) {
        return keep_marked(state, file, error);
    }
    int ret = ash_before_write_restart(state->before_write);
    if (ret < 0) {
        return ash_error_errno(error, ret, "A snapshot of '%s' cannot be kept", file->filename);
    }
    ash_before_write_keep(state->before_write, 0, file->size_bytes);
    return 0;
}

ASH_CO_FN static int cbw_close(struct ash_node *node)
{
    struct cbw_state *state = node->state;
    /* Nothing guards the source any more. */
    ash_before_write_break(state->before_write, -ECANCELED);
    ash_before_write_unref(state->before_write);
    return 0;
}

ASH_CO_FN static int cbw_change(struct ash_node *node, const struct ash_io *io)
{
    const struct cbw_state *state = node->state;
    int ret = ash_before_write_guard(state->before_write, io->offset, io->bytes);
    return ret < 0 ? ret : ash_edge_io(node->file, io);
}

ASH_CO_FN static int cbw_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                                struct ash_error *error)
{
    const struct cbw_state *state = node->state;
    int ret = bytes < node->size_bytes
                  ? ash_before_write_guard(state->before_write, bytes, node->size_bytes - bytes)
                  : 0;
    if (ret < 0) {
        return ash_error_errno(error, ret, "What '%s' is to lose could not be copied first",
                               node->filename);
    }
    return ash_filter_resize(node, bytes, prealloc, error);
}

const struct ash_driver ash_driver_copy_before_write = {
    .name = "copy-before-write",
    .kind = ASH_DRIVER_FILTER,
    .state_size = sizeof(struct cbw_state),
    .options = cbw_options,
    .open = cbw_open,
    .inserted = cbw_inserted,
    .close = cbw_close,
    .limits = ash_filter_limits,
    .resize = cbw_resize,
    .io =
        {
            [ASH_WRITE] = cbw_change,
            [ASH_ZERO] = cbw_change,
            [ASH_DISCARD] = cbw_change,
        },
};
