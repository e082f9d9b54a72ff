/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What filters share: a filter is as long as its child, has its limits, and changes length with it. A
 * length that is no multiple of the child's blocks leaves padding to the child. */
#ifndef ASH_BLOCK_FILTER_FILTER_H
#define ASH_BLOCK_FILTER_FILTER_H

#include "block/driver.h"

/* For .open, or its beginning: size and file name are the child's. */
ASH_CO_FN int ash_filter_open(struct ash_node *node, struct ash_error *error);

/* For .limits and .resize. */
void ash_filter_limits(const struct ash_node *node, struct ash_limits *limits);
ASH_CO_FN int ash_filter_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                                struct ash_error *error);

#endif
