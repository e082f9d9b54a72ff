/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps: which parts of a node were changed.
 *
 * A bitmap belongs to a node and has a bit for each granule of its length. While it records, every
 * write, write of zeroes and discard that passes an edge to the node, and every change of its
 * length, marks what it may have touched: the padded range, and also when it fails, because it may
 * have failed half-way.
 *
 * When a request marks: once, when the driver is done with it and before it leaves the list of
 * tracked requests, in one turn. From this follows what a reader may rely on:
 *
 *  1. A change that was acknowledged is marked.
 *  2. Who finds no request that changes the range on the node's list (ash_track_changing()), or has
 *     a serialising request of its own there, finds every earlier change marked.
 *  3. Who resets a bit and then reads the data may read it while a change is in flight; that change
 *     sets the bit again when it ends. So reset first, then read. The other way round loses
 * changes.
 *  4. A change in flight may be unmarked and yet on the disk in part. So a count of 0 says that two
 *     nodes are equal only while nothing is in flight: then it is final.
 *
 * A mark when the request begins would add nothing: whoever may reset bits could reset it while the
 * request is still in flight, so it could never be relied on.
 *
 * Growth is a change: what appears is marked in bitmaps that record, because a copy that was made
 * before lacks it. In those that do not record, and after a shrink, new granules are clear.
 *
 * Freezing. A job works on a bitmap as it was at one time, while the guest goes on. `freeze` has
 * marks go to a second set of bits, the successor, and leaves the first to the job, which may set
 * and reset bits there. Then either `join` puts the successor's bits back into the first (the job
 * failed: what it has not reset is still to do), or `abdicate` drops the first and the successor
 * takes its place and name (the job has done it all). Both cannot fail. The pointer to the bitmap
 * stays the same through all of it.
 *
 * Undo. `clear` and `merge` can be taken back exactly, changes by the guest in between included:
 * while an undo is open, marks go to what it would restore as well.
 *
 * All on the owner thread; nothing here yields, save what says so. */
#ifndef ASH_BLOCK_BITMAP_BITMAP_H
#define ASH_BLOCK_BITMAP_BITMAP_H

#include "block/graph/node.h"
#include "util/co/co.h"
#include "util/hbitmap.h"

#define ASH_BITMAP_GRANULARITY_MIN 512
#define ASH_BITMAP_GRANULARITY_MAX (2 * GiB)
#define ASH_BITMAP_NAME_MAX 1023 /* bytes, without the NUL */

struct ash_bitmap {
    struct ash_list link;      /* in node->bitmaps, in order of creation */
    struct ash_hbitmap *marks; /* where marks go: &bits, or &successor; NULL: not recording */
    uint32_t shift;            /* granularity: 1 << shift bytes */
    bool enabled;
    bool frozen;
    bool busy;           /* a job has it: nobody else changes or deletes it */
    bool persistent;     /* the format is to store it when the node is closed */
    bool inconsistent;   /* what it says is not to be trusted; it can only be deleted */
    bool read_only;      /* stored in an image that is not open for writing. A change that passes
                            nonetheless makes it inconsistent */
    uint64_t size_bytes; /* of the node, as the bits cover it */
    struct ash_hbitmap bits;
    struct ash_hbitmap successor; /* while frozen */
    struct ash_list undos;        /* of struct ash_bitmap_undo, oldest first */
    struct ash_node *node;
    char *name;                  /* NULL: anonymous, a job's own */
    struct ash_co_queue dirtied; /* woken when a mark has set the first bit of a clean bitmap */
};

/* What a change to a bitmap replaced. In memory of the caller; closed by restore or by drop, in the
 * opposite order of opening. */
struct ash_bitmap_undo {
    struct ash_list link;
    struct ash_bitmap *bitmap;
    struct ash_hbitmap bits;
};

/* Life. */

/* A clean bitmap on the node, enabled. name: 1 to 1023 bytes, not taken on the node; NULL:
 * anonymous. -EINVAL, -EEXIST, -ENOMEM. */
int ash_bitmap_new(struct ash_node *node, const char *name, uint64_t granularity_bytes,
                   struct ash_bitmap **bitmap, struct ash_error *error);

/* Frees it, whatever its state, save that it is not frozen and has no undo open (asserted). */
void ash_bitmap_free(struct ash_bitmap *bitmap);

/* By name; NULL. */
struct ash_bitmap *ash_bitmap_find(const struct ash_node *node, const char *name);

/* 64 KiB, or what the format of the node allocates in, if that is between 4 KiB and 64 KiB. */
uint64_t ash_bitmap_default_granularity(const struct ash_node *node);

/* States. */

/* What a user of a bitmap cannot bear. */
#define ASH_BITMAP_NOT_BUSY (1u << 0)
#define ASH_BITMAP_NOT_READ_ONLY (1u << 1)
#define ASH_BITMAP_NOT_INCONSISTENT (1u << 2)
#define ASH_BITMAP_TO_CHANGE 7u /* enable, disable, clear, merge into, use in a job */
#define ASH_BITMAP_TO_READ                                                                         \
    (ASH_BITMAP_NOT_BUSY | ASH_BITMAP_NOT_INCONSISTENT) /* merge from, save */
#define ASH_BITMAP_TO_DELETE (ASH_BITMAP_NOT_BUSY | ASH_BITMAP_NOT_READ_ONLY)

/* -EBUSY, -EPERM or -EINVAL, and the reason. */
int ash_bitmap_check(const struct ash_bitmap *bitmap, uint32_t not_allowed,
                     struct ash_error *error);

void ash_bitmap_enable(struct ash_bitmap *bitmap);
void ash_bitmap_disable(struct ash_bitmap *bitmap);
void ash_bitmap_set_busy(struct ash_bitmap *bitmap, bool busy);
void ash_bitmap_set_persistent(struct ash_bitmap *bitmap, bool persistent);
void ash_bitmap_set_read_only(struct ash_bitmap *bitmap, bool read_only);
/* For good; it records no more. */
void ash_bitmap_set_inconsistent(struct ash_bitmap *bitmap);

/* Bits. Ranges in bytes, within the node (what lies beyond is cut off). While frozen: those of the
 * job, not of the successor. */

/* Every granule that the range touches. */
void ash_bitmap_set(struct ash_bitmap *bitmap, uint64_t offset, uint64_t bytes);
/* Every granule that lies in the range whole; the last one of the node may be short. */
void ash_bitmap_reset(struct ash_bitmap *bitmap, uint64_t offset, uint64_t bytes);
bool ash_bitmap_get(const struct ash_bitmap *bitmap, uint64_t offset);

/* The first dirty range in [from, end), cut to it and to `bytes_max` (from its beginning); false:
 * none. A caller goes on from *offset + *bytes; what is set or reset meanwhile does no harm.
 * next_clean the same for what is clean. */
bool ash_bitmap_next_dirty(const struct ash_bitmap *bitmap, uint64_t from, uint64_t end,
                           uint64_t bytes_max, uint64_t *offset, uint64_t *bytes);
bool ash_bitmap_next_clean(const struct ash_bitmap *bitmap, uint64_t from, uint64_t end,
                           uint64_t bytes_max, uint64_t *offset, uint64_t *bytes);

/* Of the whole bitmap, and of a range. The short last granule counts as long as it is. */
uint64_t ash_bitmap_dirty_bytes(const struct ash_bitmap *bitmap);
uint64_t ash_bitmap_dirty_bytes_in(const struct ash_bitmap *bitmap, uint64_t offset,
                                   uint64_t bytes);

static inline uint64_t ash_bitmap_granularity(const struct ash_bitmap *bitmap)
{
    return UINT64_C(1) << bitmap->shift;
}

/* Of the set that the job sees: O(1). */
static inline bool ash_bitmap_is_clean(const struct ash_bitmap *bitmap)
{
    return bitmap->bits.count == 0;
}

/* Changes as a whole. Not while frozen (asserted). undo may be NULL; with it, -ENOMEM is possible
 * and then nothing has changed. */
int ash_bitmap_clear(struct ash_bitmap *bitmap, struct ash_bitmap_undo *undo);

/* to |= from. Granularities may differ: a granule of `to` becomes dirty when a dirty one of `from`
 * touches it. Nodes may differ too, lengths may not: -EINVAL. Takes what has been frozen in `from`
 * and its successor together. */
int ash_bitmap_merge(struct ash_bitmap *to, const struct ash_bitmap *from,
                     struct ash_bitmap_undo *undo, struct ash_error *error);

/* Ends an undo: restore takes the change back, drop lets it be. Neither can fail. */
void ash_bitmap_undo_restore(struct ash_bitmap_undo *undo);
void ash_bitmap_undo_drop(struct ash_bitmap_undo *undo);

/* Freezing. The bitmap must be busy (asserted). The successor records if the bitmap did.
 * -ENOMEM: as before. */
int ash_bitmap_freeze(struct ash_bitmap *bitmap);
void ash_bitmap_join(struct ash_bitmap *bitmap);
void ash_bitmap_abdicate(struct ash_bitmap *bitmap);

/* The request path's part. */

/* Marks the range in every bitmap of the node that records; the range lies within the node. */
void ash_bitmaps_mark(struct ash_node *node, uint64_t offset, uint64_t bytes);

/* Before a node can become `bytes` long: makes sure that no bitmap lacks the memory for it.
 * -ENOMEM. */
int ash_bitmaps_reserve(struct ash_node *node, uint64_t bytes);

/* After it became longer or shorter: bitmaps follow node->size_bytes. */
void ash_bitmaps_resized(struct ash_node *node);

/* With the node. None is busy (asserted). */
void ash_bitmaps_free(struct ash_node *node);

#endif
