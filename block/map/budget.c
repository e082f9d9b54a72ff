/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory budget: a list in order of use.
 *
 * Invariants:
 *  1. bytes is the sum over the items on the list.
 *  2. One addition tries to evict at most EVICTIONS_MAX items, so its cost is bounded although many
 *     items are dirty or in use. Items that refuse move to the recently used end, so that the next
 *     addition tries others. */
#include "block/map/budget.h"
#include "util/assert.h"

#define EVICTIONS_MAX 32

void ash_budget_init(struct ash_budget *budget, uint64_t bytes_max)
{
    budget->bytes = 0;
    budget->bytes_max = bytes_max;
    ash_list_init(&budget->items);
}

void ash_budget_add(struct ash_budget *budget, struct ash_budget_item *item)
{
    budget->bytes += item->bytes;
    for (int tries = 0; tries < EVICTIONS_MAX && ash_budget_exceeded(budget); tries++) {
        if (ash_list_empty(&budget->items)) {
            break;
        }
        struct ash_budget_item *oldest =
            ash_list_first(&budget->items, struct ash_budget_item, link);
        if (!oldest->evict(oldest)) {
            ash_budget_touch(budget, oldest);
        }
    }
    ash_list_push_back(&budget->items, &item->link);
}

void ash_budget_remove(struct ash_budget *budget, struct ash_budget_item *item)
{
    ash_assert(budget->bytes >= item->bytes);
    budget->bytes -= item->bytes;
    ash_list_remove(&item->link);
}
