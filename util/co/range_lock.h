/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks on ranges between coroutines of one scheduler, granted in order of arrival. */
#ifndef ASH_UTIL_CO_RANGE_LOCK_H
#define ASH_UTIL_CO_RANGE_LOCK_H

#include <stdbool.h>
#include <stdint.h>
#include "util/co/co.h"
#include "util/list.h"

/* The ranges of one thing that are locked or waited for. */
struct ash_range_locks {
    struct ash_list held; /* of struct ash_range_lock, in order of arrival */
    uint64_t unit_bytes;  /* a lock covers whole units of this; a power of two */
};

/* One lock, on the stack of who holds it. */
struct ash_range_lock {
    struct ash_list link; /* in locks->held */
    uint64_t offset;
    uint64_t bytes;
    struct ash_co_queue waiters;
};

void ash_range_locks_init(struct ash_range_locks *locks, uint64_t unit_bytes);

/* Locks whole units around the range; waits for overlapping locks, in order of arrival. */
ASH_CO_FN void ash_range_lock(struct ash_range_lock *lock, struct ash_range_locks *locks,
                              uint64_t offset, uint64_t bytes);
void ash_range_unlock(struct ash_range_lock *lock);

/* Whether somebody holds, or waits for, a part of the range. */
bool ash_range_locked(const struct ash_range_locks *locks, uint64_t offset, uint64_t bytes);

#endif
