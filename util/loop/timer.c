/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Timers: a binary heap of pointers to armed timers, ordered by deadline, then by the order of
 * arming.
 *
 * The heap owns its array and nothing else: timers belong to who armed them, and cancel themselves
 * before their memory goes.
 *
 * Invariants:
 *  1. heap[i]->heap_index == i for 1 <= i <= count; a timer outside has heap_index 0.
 *  2. No timer comes before its parent heap[i / 2].
 *  3. Only arming, cancelling and firing touch the heap: an idle timer costs nothing per turn.
 *  4. One call of ash_timers_run() fires at most as many timers as were armed when it began, so a
 *     timer that re-arms itself for now cannot hold up the turn. */
#include <glib.h>
#include "util/assert.h"
#include "util/loop/private.h"

enum { INITIAL_CAPACITY = 64 };

static bool before(struct ash_timers *timers, const struct ash_timer *a, const struct ash_timer *b)
{
    timers->steps++;
    if (a->deadline_ns != b->deadline_ns) {
        return a->deadline_ns < b->deadline_ns;
    }
    return a->sequence < b->sequence;
}

static void place(struct ash_timers *timers, struct ash_timer *timer, uint32_t index)
{
    timers->heap[index] = timer;
    timer->heap_index = index;
}

/* Moves the timer from the hole at `index` towards the root until its parent is not later. */
static void sift_up(struct ash_timers *timers, struct ash_timer *timer, uint32_t index)
{
    while (index > 1 && before(timers, timer, timers->heap[index / 2])) {
        place(timers, timers->heap[index / 2], index);
        index /= 2;
    }
    place(timers, timer, index);
}

/* Moves the timer from the hole at `index` away from the root until no child is earlier. */
static void sift_down(struct ash_timers *timers, struct ash_timer *timer, uint32_t index)
{
    for (;;) {
        uint32_t child = index * 2;
        if (child > timers->count) {
            break;
        }
        if (child < timers->count && before(timers, timers->heap[child + 1], timers->heap[child])) {
            child++;
        }
        if (!before(timers, timers->heap[child], timer)) {
            break;
        }
        place(timers, timers->heap[child], index);
        index = child;
    }
    place(timers, timer, index);
}

static void insert(struct ash_timers *timers, struct ash_timer *timer)
{
    if (timers->count + 1 >= timers->capacity) {
        timers->capacity = ASH_MAX(timers->capacity * 2, (uint32_t)INITIAL_CAPACITY);
        timers->heap = g_renew(struct ash_timer *, timers->heap, timers->capacity);
    }
    timers->count++;
    timer->sequence = timers->sequence++;
    sift_up(timers, timer, timers->count);
}

static void take_out(struct ash_timers *timers, struct ash_timer *timer)
{
    uint32_t index = timer->heap_index;
    ash_assert(index >= 1 && index <= timers->count);
    ash_assert(timers->heap[index] == timer);
    struct ash_timer *moved = timers->heap[timers->count--];
    timer->heap_index = 0;
    if (moved == timer) {
        return;
    }
    if (index > 1 && before(timers, moved, timers->heap[index / 2])) {
        sift_up(timers, moved, index);
    } else {
        sift_down(timers, moved, index);
    }
}

void ash_timer_init(struct ash_timer *timer, void (*fire)(struct ash_timer *timer))
{
    *timer = (struct ash_timer){.fire = fire};
}

void ash_timer_set(struct ash_loop *loop, struct ash_timer *timer, uint64_t deadline_ns)
{
    ash_loop_assert_owner(loop);
    struct ash_timers *timers = &ash_loop_private(loop)->timers;
    if (timer->heap_index != 0) {
        take_out(timers, timer);
    }
    timer->deadline_ns = deadline_ns;
    insert(timers, timer);
    ash_loop_kick(loop);
}

void ash_timer_cancel(struct ash_loop *loop, struct ash_timer *timer)
{
    ash_loop_assert_owner(loop);
    if (timer->heap_index != 0) {
        take_out(&ash_loop_private(loop)->timers, timer);
    }
}

uint64_t ash_timers_next(const struct ash_timers *timers)
{
    return timers->count == 0 ? UINT64_MAX : timers->heap[1]->deadline_ns;
}

uint32_t ash_timers_run(struct ash_loop *loop)
{
    struct ash_timers *timers = &ash_loop_private(loop)->timers;
    uint32_t most = timers->count;
    if (most == 0) {
        return 0;
    }
    uint64_t now_ns = ash_loop_now(loop);
    uint32_t fired = 0;
    while (fired < most && timers->count > 0 && timers->heap[1]->deadline_ns <= now_ns) {
        struct ash_timer *timer = timers->heap[1];
        take_out(timers, timer);
        fired++;
        timer->fire(timer);
    }
    return fired;
}

struct sleeper {
    struct ash_timer timer;
    struct ash_co *co;
};

static void wake_sleeper(struct ash_timer *timer)
{
    ash_co_wake(ash_container_of(timer, struct sleeper, timer)->co);
}

void ash_co_sleep_until(uint64_t deadline_ns)
{
    struct sleeper sleeper = {.co = ash_co_self()};
    ash_timer_init(&sleeper.timer, wake_sleeper);
    ash_timer_set(ash_co_loop(), &sleeper.timer, deadline_ns);
    ash_co_yield();
}

void ash_co_sleep(uint64_t duration_ns)
{
    uint64_t now_ns = ash_loop_now(ash_co_loop());
    bool overflows = duration_ns > UINT64_MAX - now_ns;
    ash_co_sleep_until(overflows ? UINT64_MAX : now_ns + duration_ns);
}
