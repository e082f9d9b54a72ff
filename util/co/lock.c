/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What coroutines of one scheduler wait for each other with: queue, mutex, readers-writer lock.
 *
 * They own nothing: who waits is linked through its own struct ash_co or through its own stack.
 *
 * 1. First come, first served, everywhere.
 * 2. A lock is handed over while it is held: from the unlock on it belongs to the waiter that is
 *    woken, though that has not run yet. Nobody can slip in between. */
#include "util/assert.h"
#include "util/co/co.h"
#include "util/co/private.h"

void ash_co_queue_init(struct ash_co_queue *queue)
{
    ash_list_init(&queue->waiting);
}

ASH_CO_FN void ash_co_queue_wait(struct ash_co_queue *queue)
{
    struct ash_co *self = ash_co_self();

    ash_assert(self != NULL);
    ash_list_push_back(&queue->waiting, &self->link);
    ash_co_yield();
}

bool ash_co_queue_wake_one(struct ash_co_queue *queue)
{
    if (ash_co_queue_empty(queue)) {
        return false;
    }
    struct ash_co *first = ash_list_first(&queue->waiting, struct ash_co, link);
    ash_list_remove(&first->link);
    ash_co_wake(first);
    return true;
}

void ash_co_queue_wake_all(struct ash_co_queue *queue)
{
    while (ash_co_queue_wake_one(queue)) {
    }
}

bool ash_co_queue_empty(const struct ash_co_queue *queue)
{
    return ash_list_empty(&queue->waiting);
}

void ash_co_mutex_init(struct ash_co_mutex *mutex)
{
    mutex->owner = NULL;
    ash_co_queue_init(&mutex->waiting);
}

void ash_co_mutex_destroy(struct ash_co_mutex *mutex)
{
    ash_assert(mutex->owner == NULL);
    ash_assert(ash_co_queue_empty(&mutex->waiting));
}

bool ash_co_mutex_try_lock(struct ash_co_mutex *mutex)
{
    struct ash_co *self = ash_co_self();

    ash_assert(self != NULL);
    if (mutex->owner != NULL) {
        return false;
    }
    mutex->owner = self;
    return true;
}

ASH_CO_FN void ash_co_mutex_lock(struct ash_co_mutex *mutex)
{
    struct ash_co *self = ash_co_self();

    ash_assert(self != NULL);
    ash_assert(mutex->owner != self);
    if (mutex->owner == NULL) {
        mutex->owner = self;
        return;
    }
    ash_co_queue_wait(&mutex->waiting);
    ash_assert(mutex->owner == self);
}

void ash_co_mutex_unlock(struct ash_co_mutex *mutex)
{
    ash_assert(mutex->owner != NULL);
    ash_assert(mutex->owner == ash_co_self());
    if (ash_co_queue_empty(&mutex->waiting)) {
        mutex->owner = NULL;
        return;
    }
    mutex->owner = ash_list_first(&mutex->waiting.waiting, struct ash_co, link);
    ash_co_queue_wake_one(&mutex->waiting);
}

/* On the stack of who waits for a struct ash_co_rwlock. */
struct rwlock_waiter {
    struct ash_list link;
    struct ash_co *co;
    bool writes;
};

void ash_co_rwlock_init(struct ash_co_rwlock *lock)
{
    lock->readers = 0;
    lock->writing = false;
    ash_list_init(&lock->waiting);
}

/* Gives the lock to as many of the first waiters as can hold it together. */
static void rwlock_hand_over(struct ash_co_rwlock *lock)
{
    while (!lock->writing && !ash_list_empty(&lock->waiting)) {
        struct rwlock_waiter *first = ash_list_first(&lock->waiting, struct rwlock_waiter, link);
        if (first->writes && lock->readers > 0) {
            return;
        }
        if (first->writes) {
            lock->writing = true;
        } else {
            lock->readers++;
        }
        ash_list_remove(&first->link);
        ash_co_wake(first->co);
    }
}

ASH_CO_FN static void rwlock_wait(struct ash_co_rwlock *lock, bool writes)
{
    struct rwlock_waiter waiter = {.co = ash_co_self(), .writes = writes};

    ash_assert(waiter.co != NULL);
    ash_list_push_back(&lock->waiting, &waiter.link);
    ash_co_yield();
}

ASH_CO_FN void ash_co_rwlock_read(struct ash_co_rwlock *lock)
{
    if (lock->writing || !ash_list_empty(&lock->waiting)) {
        rwlock_wait(lock, false);
    } else {
        lock->readers++;
    }
}

ASH_CO_FN void ash_co_rwlock_write(struct ash_co_rwlock *lock)
{
    if (lock->writing || lock->readers > 0) {
        rwlock_wait(lock, true);
    } else {
        lock->writing = true;
    }
}

void ash_co_rwlock_unlock(struct ash_co_rwlock *lock)
{
    if (lock->writing) {
        ash_assert(lock->readers == 0);
        lock->writing = false;
    } else {
        ash_assert(lock->readers > 0);
        lock->readers--;
    }
    rwlock_hand_over(lock);
}
