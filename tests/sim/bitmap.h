/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps of a disk's top image, and what has to be marked in them: all that was changed by a
 * request that began after the bitmap was there, and ended well. They go with the node. */
#ifndef ASH_TESTS_SIM_BITMAP_H
#define ASH_TESTS_SIM_BITMAP_H

#include "tests/sim/sim.h"

void sim_changes_begin(struct sim_changes *changes, struct model *model);
void sim_changes_end(struct sim_changes *changes);

/* A change that is over, told of by its guest. */
void sim_bitmaps_changed(struct sim_disk *disk, const struct model_op *op);
/* Fails the run where one of them lacks a mark. Nothing is under way. */
void sim_bitmaps_compare(const struct sim_disk *disk);
/* The disk has another length: of what it lost the marks may go. */
void sim_bitmaps_resized(struct sim_disk *disk);
/* The node is gone, or another one has its place. */
void sim_bitmaps_drop(struct sim_disk *disk);

/* A place for one more, with a name: the caller makes it, and says with sim_bitmap_begin() whether
 * that went well. NULL: there is none. */
struct sim_bitmap *sim_bitmap_new(struct sim_disk *disk);
/* From now on it marks what is changed: what it marked before may be forgotten. Not good: it must
 * not be there. */
void sim_bitmap_begin(struct sim_disk *disk, struct sim_bitmap *bitmap, bool good);
/* It has to mark these changes, and what comes. */
void sim_bitmap_restart(const struct sim_disk *disk, struct sim_bitmap *bitmap,
                        const struct sim_changes *changes);
struct sim_bitmap *sim_bitmap_find(struct sim_disk *disk, uint64_t id);

/* One that is there, as sim_bitmap.id; 0: none. */
uint64_t sim_bitmap_any(const struct sim_disk *disk);
/* That which has watched the disk since before `disk->copy` was made; NULL. */
const struct sim_bitmap *sim_bitmap_of_copy(struct sim_disk *disk);

#endif
