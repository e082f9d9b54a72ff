/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* raw: the file's bytes as they are, or a window of them (offset, size).
 *
 * It maps: every range is data of the file, in place and stable, so that reading, status and chains
 * need nothing of their own here. Zeroes and discards pass down to the file, which knows better
 * what a range is.
 *
 * Invariant: an image that was taken for raw by probing keeps that meaning: a write must not make
 * its first sector look like another format's, or the next open would follow the guest's own
 * "backing file". */
#include <errno.h>
#include <inttypes.h>
#include "block/driver.h"
#include "block/map/map.h"
#include "util/assert.h"
#include "util/range.h"

struct raw_state {
    uint64_t offset_bytes;
    uint64_t size_bytes; /* as given, or TO_THE_END */
};

#define TO_THE_END UINT64_MAX

static const struct ash_option raw_options[] = {
    ASH_OPTION_SIZE("offset", struct raw_state, offset_bytes,
                    .help = "where the disk begins in the file"),
    ASH_OPTION_SIZE("size", struct raw_state, size_bytes, .def = TO_THE_END,
                    .help = "length of the disk; where it is not given, to the end "
                            "of the file"),
    ASH_OPTION_END,
};

ASH_CO_FN static int raw_open(struct ash_node *node, struct ash_error *error)
{
    struct raw_state *state = node->state;
    uint64_t file_bytes = node->file->child->size_bytes;
    if (state->offset_bytes > file_bytes) {
        return ash_error_set(error, -EINVAL,
                             "Offset %" PRIu64 " lies beyond the end of '%s' (%" PRIu64 " bytes)",
                             state->offset_bytes, node->filename, file_bytes);
    }
    uint64_t rest = file_bytes - state->offset_bytes;
    bool sized = state->size_bytes != TO_THE_END;
    if (sized && state->size_bytes > rest) {
        return ash_error_set(error, -EINVAL,
                             "Size %" PRIu64 " from offset %" PRIu64
                             " on reaches beyond the end of '%s' (%" PRIu64 " bytes)",
                             state->size_bytes, state->offset_bytes, node->filename, file_bytes);
    }
    node->size_bytes = sized ? state->size_bytes : rest;
    if (!sized) {
        node->flags |= node->file->child->flags & ASH_NODE_GROWS;
    }
    return 0;
}

ASH_CO_FN static int raw_lookup(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                struct ash_extent *extent)
{
    const struct raw_state *state = node->state;
    *extent = (struct ash_extent){
        .kind = ASH_EXTENT_DATA,
        .in_place = true,
        .stable = true,
        .through = true,
        .bytes = bytes,
        .edge = node->file,
        .host_offset = state->offset_bytes + offset,
    };
    return 0;
}

/* The file's blocks are the disk's where they fit it. Otherwise the file pads, and not the disk: a
 * block padded here would reach beyond the disk and, read from it, be zeroes there. */
static void raw_limits(const struct ash_node *node, struct ash_limits *limits)
{
    const struct ash_limits *below = &node->file->child->limits;
    const struct raw_state *state = node->state;
    bool fits = ash_is_aligned(state->offset_bytes | node->size_bytes, below->request_alignment);
    limits->request_alignment = fits ? below->request_alignment : 1;
    limits->memory_alignment = fits ? below->memory_alignment : 1;
}

ASH_CO_FN static int raw_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                                struct ash_error *error)
{
    struct raw_state *state = node->state;
    if (state->size_bytes != TO_THE_END) {
        return ash_error_set(error, -ENOTSUP, "'%s' is a window of fixed size in its file",
                             node->filename);
    }
    if (!ash_range_valid(state->offset_bytes, bytes)) {
        return ash_error_set(error, -EFBIG, "'%s' cannot become %" PRIu64 " bytes long",
                             node->filename, bytes);
    }
    int ret = ash_edge_resize(node->file, state->offset_bytes + bytes, ASH_RESIZE_SHRINK, prealloc,
                              error);
    if (ret == 0) {
        node->size_bytes = bytes;
        raw_limits(node, &node->limits);
    }
    return ret;
}

static const char *const raw_shaping[] = {"offset", "size", NULL};

struct raw_create_options {
    int preallocation; /* enum ash_prealloc */
};

static const struct ash_option raw_create_options[] = {
    ASH_OPTION_ENUM("preallocation", struct raw_create_options, preallocation, ash_prealloc_names,
                    .help = "Preallocation mode (allowed values: off, falloc, full)"),
    ASH_OPTION_END,
};

ASH_CO_FN static int raw_create(struct ash_edge *file, uint64_t bytes, const void *options,
                                struct ash_error *error)
{
    const struct raw_create_options *wanted = options;
    if (wanted->preallocation == ASH_PREALLOC_METADATA) {
        return ash_error_set(error, -EINVAL, "Unsupported preallocation mode 'metadata'");
    }
    return ash_edge_resize(file, bytes, ASH_RESIZE_SHRINK, wanted->preallocation, error);
}

/* What the parents do, and nothing of its own. */
static void raw_rights(const struct ash_node *node, uint32_t flags, enum ash_role role,
                       uint32_t parent_needs, uint32_t parent_allows, uint32_t *needs,
                       uint32_t *allows)
{
    (void)node;
    (void)flags;
    (void)role;
    *needs = parent_needs;
    *allows = parent_allows;
}

static const struct ash_map_ops raw_map = {
    .lookup = raw_lookup,
};

const struct ash_driver ash_driver_raw = {
    .name = "raw",
    .kind = ASH_DRIVER_FORMAT,
    .state_size = sizeof(struct raw_state),
    .options = raw_options,
    .shaping = raw_shaping,
    .create_options = raw_create_options,
    .create_size = sizeof(struct raw_create_options),
    .open = raw_open,
    .create = raw_create,
    .resize = raw_resize,
    .limits = raw_limits,
    .rights = raw_rights,
    .map = &raw_map,
};
