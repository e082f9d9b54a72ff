/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One bound on the memory of cached metadata: of all tables and of what walks found, over all nodes
 * of a loop. Least recently used first. */
#ifndef ASH_BLOCK_MAP_BUDGET_H
#define ASH_BLOCK_MAP_BUDGET_H

#include <stdbool.h>
#include <stdint.h>
#include "util/list.h"

struct ash_budget {
    uint64_t bytes; /* of all items */
    uint64_t bytes_max;
    struct ash_list items; /* of struct ash_budget_item, least recently used first */
};

struct ash_budget_item {
    struct ash_list link;
    uint32_t bytes;
    /* Frees the item (and calls ash_budget_remove()) without yielding, or returns false because it
     * is in use or dirty; then it counts as just used. */
    bool (*evict)(struct ash_budget_item *item);
};

void ash_budget_init(struct ash_budget *budget, uint64_t bytes_max);

/* Adds an item as most recently used, and evicts others while the bound is exceeded; a bounded
 * number of them is tried, so items that cannot go cost no scan of the list. */
void ash_budget_add(struct ash_budget *budget, struct ash_budget_item *item);
void ash_budget_remove(struct ash_budget *budget, struct ash_budget_item *item);

/* Most recently used. */
static inline void ash_budget_touch(struct ash_budget *budget, struct ash_budget_item *item)
{
    ash_list_remove(&item->link);
    ash_list_push_back(&budget->items, &item->link);
}

/* Whether the bound is exceeded although nothing more could be evicted: time to write back. */
static inline bool ash_budget_exceeded(const struct ash_budget *budget)
{
    return budget->bytes > budget->bytes_max;
}

#endif
