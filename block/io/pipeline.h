/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The stages between the pipeline's files; nobody else includes this. */
#ifndef ASH_BLOCK_IO_PIPELINE_H
#define ASH_BLOCK_IO_PIPELINE_H

#include "block/graph/node.h"
#include "block/io/io.h"

/* Padding of a read or write to the node's request alignment. */
struct ash_alignment {
    uint64_t offset; /* of the padded request */
    uint64_t bytes;
    uint32_t head; /* padding before the caller's range, and after it */
    uint32_t tail;
};

/* Only computes. */
void ash_align_plan(const struct ash_node *node, const struct ash_io *io,
                    struct ash_alignment *alignment);

/* Reads and writes that need padding: bounce buffers, and read-modify-write. */
ASH_CO_FN int ash_align_run(struct ash_node *node, const struct ash_io *io,
                            const struct ash_alignment *alignment);

/* An aligned read or write: cut to the limits, bounced where the memory does not fit the driver. */
ASH_CO_FN int ash_split_run(struct ash_node *node, const struct ash_io *io);

/* Zero and discard: aligned, cut, with fallbacks. */
ASH_CO_FN int ash_zero_run(struct ash_node *node, const struct ash_io *io);
ASH_CO_FN int ash_discard_run(struct ash_node *node, const struct ash_io *io);

/* The driver's callback, or what stands for a missing one. */
ASH_CO_FN int ash_dispatch(struct ash_node *node, const struct ash_io *io);

#endif
