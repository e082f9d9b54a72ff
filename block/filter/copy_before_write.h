/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The filter that keeps a disk's old contents: block/copy/before_write.h. */
#ifndef ASH_BLOCK_FILTER_COPY_BEFORE_WRITE_H
#define ASH_BLOCK_FILTER_COPY_BEFORE_WRITE_H

#include "block/copy/before_write.h"
#include "block/graph/node.h"

extern const struct ash_driver ash_driver_copy_before_write;

/* What a node of this driver keeps; NULL if the node is of another. Lives as long as the node is
 * open, and longer for who takes a reference. */
struct ash_before_write *ash_before_write_of(const struct ash_node *node);

#endif
