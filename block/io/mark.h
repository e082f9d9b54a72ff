/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Marks on images. A resumable job marks the images that it works on, so that it can tell after a
 * crash whether anybody has changed them in between: the mark goes with the first change that is
 * made without the job, by whatever program.
 *
 * Invariants:
 *  1. A mark that nobody holds is off the disk, stably, before a change goes to the image.
 *  2. Who holds a mark knows of every change that is made meanwhile.
 *  3. Marking is work of the node's own: who pauses what stands above it waits for that.
 *  4. An image that is read-only is not touched, only refused: what could not be written to a header
 *     is told by every later flush.
 *  5. Who takes a mark away asks for that in the turn in which it found it, and a format changes its
 *     header in the order in which it is asked: so what is taken is never a mark that came later. */
#ifndef ASH_BLOCK_IO_MARK_H
#define ASH_BLOCK_IO_MARK_H

#include <stdint.h>
#include "block/graph/node.h"
#include "util/error.h"

#define ASH_MARK_BYTES 16

/* Whether the image of a node that maps can have one. */
bool ash_mark_possible(const struct ash_node *node);

/* Marks the image with `id`, and holds the mark. Stable when it returns. -ENOTSUP: the format, or
 * this image, cannot have one; -EBUSY: another job holds one; -EACCES: it is read-only. */
ASH_CO_FN int ash_mark_set(struct ash_node *node, const uint8_t *id, struct ash_error *error);

/* Holds the mark that the image was opened with, if it is `id`. -ESTALE: it is not, or is gone. */
int ash_mark_hold(struct ash_node *node, const uint8_t *id);

/* Holds it no more: it stays on disk until the first change. Harmless if it was not held. */
void ash_mark_release(struct ash_node *node);

/* Before a change of what the image holds: takes away a mark that nobody holds. */
ASH_CO_FN int ash_mark_drop(struct ash_node *node);

#endif
