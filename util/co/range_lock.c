/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Range locks. Who comes later waits for every earlier overlapping lock, waiting ones included: so
 * nobody starves, and as waiting follows the order of arrival it has no cycles. */
#include "util/co/range_lock.h"
#include "util/assert.h"
#include "util/range.h"

void ash_range_locks_init(struct ash_range_locks *locks, uint64_t unit_bytes)
{
    ash_assert(unit_bytes >= 1);
    ash_list_init(&locks->held);
    locks->unit_bytes = unit_bytes;
}

/* The first lock that overlaps the range and came before `before` (NULL: of all). */
static struct ash_range_lock *conflict(const struct ash_range_locks *locks,
                                       const struct ash_range_lock *before, uint64_t offset,
                                       uint64_t bytes)
{
    ash_list_for_each (other, &locks->held, struct ash_range_lock, link) {
        if (other == before) {
            return NULL;
        }
        if (ash_range_overlap(other->offset, other->bytes, offset, bytes)) {
            return other;
        }
    }
    return NULL;
}

void ash_range_lock(struct ash_range_lock *lock, struct ash_range_locks *locks, uint64_t offset,
                    uint64_t bytes)
{
    lock->offset = ash_align_down(offset, locks->unit_bytes);
    lock->bytes = ash_align_up(offset + bytes, locks->unit_bytes) - lock->offset;
    ash_co_queue_init(&lock->waiters);
    ash_list_push_back(&locks->held, &lock->link);
    struct ash_range_lock *other;
    while ((other = conflict(locks, lock, lock->offset, lock->bytes)) != NULL) {
        ash_co_queue_wait(&other->waiters);
    }
}

void ash_range_unlock(struct ash_range_lock *lock)
{
    ash_list_remove(&lock->link);
    ash_co_queue_wake_all(&lock->waiters);
}

bool ash_range_locked(const struct ash_range_locks *locks, uint64_t offset, uint64_t bytes)
{
    return conflict(locks, NULL, offset, bytes) != NULL;
}
