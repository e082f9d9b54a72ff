/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What filters share. What a filter does not handle, the request path passes to its child. */
#include "block/filter/filter.h"
#include "util/range.h"

int ash_filter_open(struct ash_node *node, struct ash_error *error)
{
    const struct ash_node *child = node->file->child;
    (void)error;
    node->size_bytes = child->size_bytes;
    node->flags |= child->flags & ASH_NODE_GROWS;
    return 0;
}

void ash_filter_limits(const struct ash_node *node, struct ash_limits *limits)
{
    *limits = node->file->child->limits;
    if (!ash_is_aligned(node->size_bytes, limits->request_alignment)) {
        limits->request_alignment = 1; /* a block padded here would reach beyond the child's end */
        limits->memory_alignment = 1;
    }
}

int ash_filter_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                      struct ash_error *error)
{
    int ret = ash_edge_resize(node->file, bytes, ASH_RESIZE_SHRINK, (int)prealloc, error);
    /* Also when it failed: what it failed at may be the preallocation of its new part. */
    node->size_bytes = node->file->child->size_bytes;
    ash_filter_limits(node, &node->limits);
    return ret;
}
