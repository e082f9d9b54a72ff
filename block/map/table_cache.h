/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Slices of on-disk tables in memory: of L2 tables, refcount blocks and the like. One cache per
 * kind of table of one node; all share the loop's memory budget but those that are bounded by a size
 * of their own.
 *
 * Invariants:
 *  1. There is at most one slice for an offset, loading ones included: who comes while it loads
 * waits.
 *  2. A slice that is dirty, being written or loading is never evicted.
 *  3. What is written is a copy taken when the batch was collected: later changes are not in it.
 *  4. A slice is stable again only when its batch ended well and it was not changed meanwhile. */
#ifndef ASH_BLOCK_MAP_TABLE_CACHE_H
#define ASH_BLOCK_MAP_TABLE_CACHE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "block/graph/node.h"
#include "block/map/budget.h"
#include "util/co/co.h"
#include "util/list.h"

struct ash_table_cache;

/* A pointer to one holds until the caller yields. */
struct ash_table_slice {
    struct ash_budget_item item;
    struct ash_table_cache *cache;
    struct ash_table_slice *bucket_next;
    struct ash_list dirty_link; /* in cache->dirty, oldest first */
    uint64_t offset;            /* in the file: the key */
    void *data;                 /* as on disk; cache->slice_bytes */
    bool loading;
    bool orphan;  /* forgotten while loading or being written: its user frees it */
    bool dirty;   /* differs from what was last collected */
    bool writing; /* collected by a batch that has not ended */
    bool suspect; /* the format's: set by `loaded`, entries need a closer look */
    bool used;    /* since ash_table_cache_clean() was called last */
    struct ash_co_queue waiters;
};

struct ash_table_cache {
    struct ash_node *node; /* slices lie in node->file */
    struct ash_budget *budget; /* the loop's, or `own` */
    struct ash_budget own;
    int load_event; /* enum ash_event: told before a slice is read */
    uint32_t slice_bytes; /* a power of two */
    uint32_t slice_bits;
    struct ash_table_slice **buckets;
    uint32_t bucket_count; /* a power of two */
    uint32_t count;
    uint32_t dirty_count;
    struct ash_table_slice *last; /* of the last hit: touched already */
    struct ash_list dirty;
    /* Looks at a slice that was read; a negative errno keeps it out of the cache. May be NULL. */
    int (*loaded)(struct ash_table_cache *cache, struct ash_table_slice *slice);
    /* Whether this range of the file may be written as such tables. May be NULL. */
    ASH_CO_PTR int (*before_write)(struct ash_table_cache *cache, uint64_t offset, uint64_t bytes);
};

void ash_table_cache_init(struct ash_table_cache *cache, struct ash_node *node,
                          uint32_t slice_bytes);

/* Takes the cache out of the loop's budget and bounds it by `bytes` of its own; as there, what is
 * dirty stays until it is written. The cache is empty. */
void ash_table_cache_bound(struct ash_table_cache *cache, uint64_t bytes);

/* Drops the clean slices that nobody asked for since the last call. Does not yield. */
void ash_table_cache_clean(struct ash_table_cache *cache);

/* Frees everything, dirty slices too. Nothing loads or is being written (asserted). */
void ash_table_cache_destroy(struct ash_table_cache *cache);

/* The slice at this offset if it is in memory. Does not yield. */
struct ash_table_slice *ash_table_cache_peek(struct ash_table_cache *cache, uint64_t offset);

/* Loads it if need be. Beyond the end of the file it is zero. */
ASH_CO_FN int ash_table_cache_get(struct ash_table_cache *cache, uint64_t offset,
                                  struct ash_table_slice **slice);

/* A zeroed, dirty slice, whatever is on disk or was cached there. -ENOMEM. Does not yield. */
int ash_table_cache_new(struct ash_table_cache *cache, uint64_t offset,
                        struct ash_table_slice **slice);

/* Drops slices in the range, with changes that were not written. Does not yield. */
void ash_table_cache_forget(struct ash_table_cache *cache, uint64_t offset, uint64_t bytes);

/* To be called before or after each change of data, in the same turn. */
void ash_table_slice_dirty(struct ash_table_slice *slice);

/* Whether what the slice says is on disk, flushed. */
static inline bool ash_table_slice_stable(const struct ash_table_slice *slice)
{
    return !slice->dirty && !slice->writing;
}

/* What a write-back takes along. */
struct ash_table_batch {
    struct ash_table_cache *cache;
    GPtrArray *slices; /* by offset */
    GPtrArray *runs;   /* adjacent ones, copied into one buffer */
};

/* Copies all dirty slices. -ENOMEM: nothing was taken. Does not yield. */
int ash_table_batch_collect(struct ash_table_batch *batch, struct ash_table_cache *cache);
bool ash_table_batch_empty(const struct ash_table_batch *batch);
ASH_CO_FN int ash_table_batch_write(struct ash_table_batch *batch);
/* good: what was written is stable now. Otherwise the slices are dirty again. */
void ash_table_batch_end(struct ash_table_batch *batch, bool good);

#endif
