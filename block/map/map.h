/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The data path of mapped formats, written once: reading through the chain, copy-on-write, zeroes,
 * discard, block status. A format supplies struct ash_map_ops and nothing else.
 *
 * Invariants:
 *  1. From prepare to commit or abort, and during zero and discard, the range lock is held on whole
 *     allocation units of the node. Who waited for it looks up again.
 *  2. Between a lookup and the pin there is no yield. A pin is held from before the I/O goes out
 * until it has completed. A format hands a host range out again only when no pin overlaps it.
 *  3. What a placement replaces is readable through the old link until commit.
 *  4. What a walk found is forgotten, in the node's own memory and in that of every node above it
 *     through backing edges, by the commit, zero or discard that changes it; a walk that was under
 *     way meanwhile does not remember what it found.
 *  5. Walking a chain is a loop: its stack does not depend on the depth.
 *  6. While a node grows, walks from above find it as long as it was: a gate keeps requests through
 *     its edges out of the new range, but walks pass it by. */
#ifndef ASH_BLOCK_MAP_MAP_H
#define ASH_BLOCK_MAP_MAP_H

#include <stdbool.h>
#include <stdint.h>
#include "block/driver.h"
#include "block/graph/node.h"
#include "util/co/co.h"
#include "util/co/range_lock.h"
#include "util/list.h"

enum ash_extent_kind {
    ASH_EXTENT_DATA, /* raw data at host_offset of edge */
    ASH_EXTENT_ZERO, /* reads as zeroes; may have a place (edge not NULL) that does not count */
    ASH_EXTENT_UNALLOCATED, /* ask the backing node; without one: zeroes */
    ASH_EXTENT_CODED,       /* one unit, coded: coded_bytes at host_offset of edge */
};

struct ash_extent {
    uint8_t kind;   /* enum ash_extent_kind */
    bool in_place;  /* data: may be overwritten where it is. Not taken back while pinned: a write in
                       flight would be missing in the copy that the next write makes */
    bool stable;    /* the link to it is on disk: FUA may be passed down */
    uint8_t coding; /* coded: the format's own */
    bool through;   /* data: the node below knows better what it is (raw): block status asks it */
    bool absent;    /* of walks. zero: because no layer of the chain says anything else */
    uint32_t coded_bytes;  /* coded: what to read; an upper bound */
    uint64_t bytes;        /* how far the answer holds, from the offset asked for */
    struct ash_edge *edge; /* data, coded: where it lies */
    uint64_t host_offset;  /* data: of the offset asked for. coded: of the unit */
    uint64_t unit_offset;  /* coded: guest offset of the unit */
    uint32_t unit_bytes;   /* coded: its length when decoded */
};

/* A claim on a host range, on the stack of who does the I/O. */
struct ash_pin {
    struct ash_list link;  /* in map->pins */
    struct ash_node *node; /* whose map led there; NULL: not taken */
    struct ash_edge *edge;
    uint64_t host_offset;
    uint64_t bytes;
};

void ash_pin_take(struct ash_pin *pin, struct ash_node *node, struct ash_edge *edge,
                  uint64_t host_offset, uint64_t bytes);
void ash_pin_drop(struct ash_pin *pin); /* harmless on one that was not taken */

/* Hands the claim over to another struct, which need not be initialised. */
void ash_pin_move(struct ash_pin *to, struct ash_pin *from);

/* For formats: whether I/O in flight uses a part of the range. */
bool ash_pin_overlaps(const struct ash_node *node, const struct ash_edge *edge,
                      uint64_t host_offset, uint64_t bytes);

/* Where a write goes. The format fills it in prepare; offset and bytes cover whole allocation units
 * (the last one reaches beyond the end of the disk if the unit does) and contain the beginning of
 * the write. Generic code writes the data and fills the rest of [offset, offset + bytes). */
struct ash_placement {
    uint64_t offset; /* guest */
    uint64_t bytes;
    struct ash_edge *edge;
    uint64_t host_offset; /* of `offset`; coded: of the coded bytes */
    uint32_t coded_bytes; /* 0: raw */
    bool reads_zero; /* the place reads as zeroes already: fill that is zero need not be written */
    bool fill_zero;  /* the fill is known to be zero (a zero cluster gets its place back) */
    uint64_t scratch[6]; /* the format's own: what it lets go, what commit links */
};

/* What a mapped node has besides its driver's state. */
struct ash_walk_cache;
struct ash_map {
    struct ash_list pins;
    struct ash_range_locks locks; /* on guest ranges, in allocation units */
    struct ash_walk_cache *cache; /* made by the first walk that went down */
    bool waiting_for_pins;        /* set by the format: call ops->unpinned */
    uint32_t unit_bytes;          /* allocation unit, from limits.cluster; a power of two; raw: 1 */
    uint64_t shown_bytes; /* walks from above see no more of the node; UINT64_MAX: its length. While
                             it grows, what appears is not covered yet */
};

struct ash_map *ash_map_new(struct ash_node *node);
void ash_map_free(struct ash_map *map);

/* The entries of the request path for nodes whose driver maps. */
ASH_CO_FN int ash_map_io(struct ash_node *node, const struct ash_io *io);

/* What [offset, offset + bytes) reads as, through the chain, down to (not including) `base` (NULL:
 * to the end). Fills extent->bytes; *owner is the node that decides, *depth how far down. A pin is
 * taken on data and coded extents before it returns. bytes > 0; offsets beyond the end of a node
 * read as zeroes. With `base` and nothing above it: UNALLOCATED. */
ASH_CO_FN int ash_map_walk(struct ash_node *top, const struct ash_node *base, uint64_t offset,
                           uint64_t bytes, struct ash_extent *extent, struct ash_node **owner,
                           uint32_t *depth, struct ash_pin *pin);

/* Block status of a chain: as ASH_STATUS, down to `base`. */
ASH_CO_FN int ash_chain_status(struct ash_node *top, const struct ash_node *base, uint64_t offset,
                               uint64_t bytes, uint32_t flags, struct ash_status *status);

/* For formats, and whoever changes a map: forget what walks found in the range. */
void ash_map_forget(struct ash_node *node, uint64_t offset, uint64_t bytes);

/* For a format that grows, when size_bytes is the new length and before that is true on disk: makes
 * zeroes of what a longer backing file, or the rest of the last unit, would show beyond the old one.
 * Nobody else may be in the new range; who walks there from above finds the old length until it
 * returns. */
ASH_CO_FN int ash_map_cover(struct ash_node *node, uint64_t old_bytes);

#endif
