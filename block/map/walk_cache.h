/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What walks through a chain found, kept per topmost node, so that a long chain, once warm, reads
 * like a short one.
 *
 * The guest's space is cut into windows; a window holds a sorted array of coalesced extents.
 * Windows are items of the loop's memory budget and go least recently used first. */
#ifndef ASH_BLOCK_MAP_WALK_CACHE_H
#define ASH_BLOCK_MAP_WALK_CACHE_H

#include "block/map/map.h"

struct ash_walk_cache;

/* A walk under way: what it finds is not remembered if its range was forgotten meanwhile. */
struct ash_walk {
    struct ash_list link;
    uint64_t offset;
    uint64_t bytes;
    bool stale;
};

/* What is remembered of an extent. */
struct ash_walk_find {
    struct ash_extent extent; /* DATA or ZERO; in_place and stable are not remembered */
    struct ash_node *owner;
    uint32_t depth;
};

struct ash_walk_cache *ash_walk_cache_new(struct ash_node *node);
void ash_walk_cache_free(struct ash_walk_cache *cache);

/* Fills *find for `offset`, with extent.bytes at most `bytes`; false: not known. */
bool ash_walk_cache_lookup(struct ash_walk_cache *cache, uint64_t offset, uint64_t bytes,
                           struct ash_walk_find *find);

void ash_walk_begin(struct ash_walk_cache *cache, struct ash_walk *walk, uint64_t offset,
                    uint64_t bytes);
/* Remembers the find (NULL: nothing) unless the walk went stale. */
void ash_walk_end(struct ash_walk_cache *cache, struct ash_walk *walk,
                  const struct ash_walk_find *find);

void ash_walk_cache_forget(struct ash_walk_cache *cache, uint64_t offset, uint64_t bytes);

#endif
