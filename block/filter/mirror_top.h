/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The filter that a mirror puts above its source. */
#ifndef ASH_BLOCK_FILTER_MIRROR_TOP_H
#define ASH_BLOCK_FILTER_MIRROR_TOP_H

#include "block/bitmap/bitmap.h"
#include "block/copy/copier.h"
#include "block/copy/resume_file.h"
#include "block/filter/throttle_group.h"
#include "block/graph/node.h"

struct ash_mirror_top {
    struct ash_copier *copier; /* NULL: passes everything on. A reference */
    struct ash_bitmap *dirty;  /* of the source: what the target lacks */
    bool marked;               /* the job has marked there what it is to copy first */
    bool write_blocking;       /* guests' writes go to the target too, before they complete */
    uint64_t written_bytes;    /* that guests have changed, ever */
    struct ash_throttle_member *limit; /* what holds their changes back; NULL: nothing does */
    struct ash_resume_file *resume;    /* where guests' changes are recorded first; NULL: nowhere */
    int target_error; /* the first error of such a write; what failed stays dirty */
};

static inline struct ash_mirror_top *ash_mirror_top_of(const struct ash_node *node)
{
    return node->state;
}

extern const struct ash_driver ash_driver_mirror_top;

#endif
