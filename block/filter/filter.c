/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What filters share. What a filter does not handle, the request path passes to its child. */
#include "block/filter/filter.h"

int ash_filter_open(struct ash_node *node, struct ash_error *error)
{
    (void)error;
    node->size_bytes = node->file->child->size_bytes;
    return 0;
}

void ash_filter_limits(const struct ash_node *node, struct ash_limits *limits)
{
    *limits = node->file->child->limits;
}

int ash_filter_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                      struct ash_error *error)
{
    int ret = ash_edge_resize(node->file, bytes, ASH_RESIZE_SHRINK, (int)prealloc, error);
    if (ret == 0) {
        node->size_bytes = bytes;
        ash_filter_limits(node, &node->limits);
    }
    return ret;
}
