/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-on-read: what a guest reads, the image under the filter holds itself from then on.
 *
 *     {"driver": "copy-on-read", "bottom": "name of a node", "file": ...}
 *
 * The option "copy-on-read": true of any node puts one above it. With "bottom", which is an image
 * of the chain, only what that image and those above it decide is copied. The chain down to there
 * is kept from changing then, and so is the image under the filter.
 *
 * The copying is ash_edge_populate(): one serialising request over whole allocation units. An image
 * that is open read-only, or has no layers below it, is read as it is.
 *
 * Other filters may stand between this one and the image, as those that jobs insert do. A guest's
 * read passes them all: then the range is copied first, beside them, and read after that.
 *
 * Invariants:
 *  1. A read fails only if it had failed without the filter.
 *  2. A read of what the image holds goes straight on: all it costs is a look into the image's map.
 */
#include <errno.h>
#include <string.h>
#include "block/driver.h"
#include "block/filter/filter.h"
#include "block/graph/graft.h"
#include "block/map/populate.h"
#include "util/assert.h"

struct cor_state {
    char *bottom_name;
    bool frozen;                 /* the chain down to `base`: there is a bottom */
    const struct ash_node *base; /* what stands below the bottom; NULL: nothing does */
};

static const struct ash_option cor_options[] = {
    ASH_OPTION_STRING("bottom", struct cor_state, bottom_name,
                      .help = "node of the last image of the chain that data is copied from"),
    ASH_OPTION_END,
};

/* Besides what those above need: writing what is there already. */
static void cor_rights(const struct ash_node *node, uint32_t flags, enum ash_role role,
                       uint32_t parent_needs, uint32_t parent_allows, uint32_t *needs,
                       uint32_t *allows)
{
    (void)node;
    (void)role;
    *needs = parent_needs | ((flags & ASH_NODE_WRITE) != 0 ? ASH_RIGHT_REWRITE : 0);
    *allows = parent_allows;
}

static struct ash_node *find_bottom(struct ash_node *top, const char *name)
{
    struct ash_node *node = top;
    while (node != NULL && node->map != NULL && strcmp(node->name, name) != 0) {
        node = node->backing != NULL ? node->backing->child : NULL;
    }
    return node != NULL && node->map != NULL ? node : NULL;
}

static int cor_chained(struct ash_node *node, struct ash_error *error)
{
    struct cor_state *state = node->state;
    if (state->bottom_name == NULL) {
        return 0;
    }
    struct ash_node *bottom = find_bottom(ash_graft_mapped(node), state->bottom_name);
    if (bottom == NULL) {
        return ash_error_set(error, -EINVAL, "Node '%s' is not an image in the chain of '%s'",
                             state->bottom_name, node->filename);
    }
    state->base = bottom->backing != NULL ? bottom->backing->child : NULL;
    int ret = ash_graft_freeze(node, state->base, error);
    state->frozen = ret == 0;
    return ret;
}

ASH_CO_FN static int cor_close(struct ash_node *node)
{
    struct cor_state *state = node->state;
    if (state->frozen) {
        ash_graft_thaw(node, state->base);
    }
    return 0;
}

/* The edge to the image, past the filters on top of it; NULL where nothing can be copied. */
static struct ash_edge *image_edge(const struct ash_node *node)
{
    struct ash_edge *edge = node->file;
    while (edge->child->map == NULL && edge->child->driver->kind == ASH_DRIVER_FILTER) {
        edge = edge->child->file;
    }
    bool copies = edge->child->backing != NULL && ash_node_writable(edge->child) &&
                  (edge->needs & (ASH_RIGHT_REWRITE | ASH_RIGHT_WRITE)) != 0;
    return copies ? edge : NULL;
}

/* Whether the image lacks a part of the range. What cannot be found out counts as held. */
ASH_CO_FN static bool lacks(struct ash_node *image, const struct ash_node *base,
                            const struct ash_io *io)
{
    uint64_t end = io->offset + io->bytes;
    for (uint64_t at = io->offset; at < end;) {
        uint64_t same_bytes;
        enum ash_lack lack;
        if (at >= image->size_bytes ||
            ash_map_lacks(image, base, at, end - at, &same_bytes, &lack) < 0) {
            return false;
        }
        if (lack != ASH_LACKS_NOTHING) {
            return true;
        }
        at += same_bytes;
    }
    return false;
}

ASH_CO_FN static int cor_read(struct ash_node *node, const struct ash_io *io)
{
    const struct cor_state *state = node->state;
    struct ash_edge *edge = image_edge(node);
    if (edge == NULL || !lacks(edge->child, state->base, io)) {
        return ash_edge_io(node->file, io);
    }
    bool straight = edge == node->file;
    int ret = ash_edge_populate(edge, state->base, io->offset, io->bytes,
                                straight ? &io->iov : NULL, NULL);
    return straight && ret == 0 ? 0 : ash_edge_io(node->file, io);
}

const struct ash_driver ash_driver_copy_on_read = {
    .name = "copy-on-read",
    .kind = ASH_DRIVER_FILTER,
    .state_size = sizeof(struct cor_state),
    .options = cor_options,
    .open = ash_filter_open,
    .chained = cor_chained,
    .close = cor_close,
    .limits = ash_filter_limits,
    .rights = cor_rights,
    .resize = ash_filter_resize,
    .io = {[ASH_READ] = cor_read},
};
