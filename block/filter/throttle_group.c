/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests that wait for their turn; the rules stand in the header.
 *
 * Invariants:
 *  1. `waiting` is the number of waiters in all lines. While it is not 0, the timer is armed for
 * the earliest time at which one of them may start.
 *  2. Who waits is woken by whoever takes it out of its line and has charged it. So a request is
 *     charged once, and goes on when it is woken.
 *  3. A line that was served goes to the end of the list. */
#include "block/filter/throttle_group.h"
#include <glib.h>
#include "block/graph/pause.h"
#include "util/assert.h"

struct waiter {
    struct ash_list link;
    struct ash_co *co;
    uint64_t bytes;
};

static void let_go(struct ash_throttle_group *group, struct ash_throttle_line *line,
                   uint64_t now_ns)
{
    struct waiter *waiter = ash_list_first(&line->waiters, struct waiter, link);
    ash_list_remove(&waiter->link);
    group->waiting--;
    ash_ratelimit_charge(&group->limit, line->write, waiter->bytes, now_ns);
    ash_co_wake(waiter->co);
}

/* The first line whose foremost request may start by `now_ns`; NULL, and *due_ns is when one may.
 */
static struct ash_throttle_line *next_line(struct ash_throttle_group *group, uint64_t now_ns,
                                           uint64_t *due_ns)
{
    *due_ns = UINT64_MAX;
    ash_list_for_each (line, &group->lines, struct ash_throttle_line, link) {
        if (ash_list_empty(&line->waiters)) {
            continue;
        }
        uint64_t line_due_ns = ash_ratelimit_due_ns(&group->limit, line->write);
        if (line_due_ns <= now_ns) {
            return line;
        }
        *due_ns = ASH_MIN(*due_ns, line_due_ns);
    }
    return NULL;
}

static void arm(struct ash_throttle_group *group)
{
    uint64_t due_ns;
    uint64_t now_ns = ash_loop_now(group->loop);
    ash_timer_cancel(group->loop, &group->timer);
    if (group->waiting > 0) {
        bool now = next_line(group, now_ns, &due_ns) != NULL;
        ash_timer_set(group->loop, &group->timer, now ? now_ns : due_ns);
    }
}

/* Lets go whoever may. */
static void timer_fire(struct ash_timer *timer)
{
    struct ash_throttle_group *group = ash_container_of(timer, struct ash_throttle_group, timer);
    uint64_t now_ns = ash_loop_now(group->loop);
    uint64_t due_ns;
    struct ash_throttle_line *line;
    while ((line = next_line(group, now_ns, &due_ns)) != NULL) {
        let_go(group, line, now_ns);
        ash_list_remove(&line->link);
        ash_list_push_back(&group->lines, &line->link);
    }
    arm(group);
}

/* Somebody pauses: the requests of those who are paused go on. */
static void hurry(struct ash_hurry *hurry)
{
    struct ash_throttle_group *group = ash_container_of(hurry, struct ash_throttle_group, hurry);
    uint64_t now_ns = ash_loop_now(group->loop);
    ash_list_for_each (line, &group->lines, struct ash_throttle_line, link) {
        if (ash_list_empty(&line->waiters) || !ash_node_hurried(line->node)) {
            continue;
        }
        while (!ash_list_empty(&line->waiters)) {
            let_go(group, line, now_ns);
        }
    }
    arm(group);
}

struct ash_throttle_group *ash_throttle_group_new(struct ash_loop *loop,
                                                  const struct ash_ratelimit_config *config)
{
    struct ash_throttle_group *group = g_new0(struct ash_throttle_group, 1);
    group->loop = loop;
    ash_ratelimit_init(&group->limit, config);
    ash_list_init(&group->lines);
    ash_timer_init(&group->timer, timer_fire);
    group->hurry.run = hurry;
    ash_hurry_add(loop, &group->hurry);
    return group;
}

void ash_throttle_join(struct ash_throttle_member *member, struct ash_throttle_group *group,
                       struct ash_node *node)
{
    member->group = group;
    group->refs++;
    for (int i = 0; i < 2; i++) {
        member->lines[i].node = node;
        member->lines[i].write = i == 1;
        ash_list_init(&member->lines[i].waiters);
        ash_list_push_back(&group->lines, &member->lines[i].link);
    }
}

void ash_throttle_leave(struct ash_throttle_member *member)
{
    struct ash_throttle_group *group = member->group;
    for (int i = 0; i < 2; i++) {
        ash_assert(ash_list_empty(&member->lines[i].waiters));
        ash_list_remove(&member->lines[i].link);
    }
    member->group = NULL;
    if (--group->refs == 0) {
        ash_timer_cancel(group->loop, &group->timer);
        ash_hurry_remove(&group->hurry);
        g_free(group);
    }
}

/* Whether a request of the kind waits already: who comes later does not overtake. */
static bool queue_stands(const struct ash_throttle_group *group, bool write)
{
    if (group->waiting > 0) {
        ash_list_for_each (line, &group->lines, struct ash_throttle_line, link) {
            if (line->write == write && !ash_list_empty(&line->waiters)) {
                return true;
            }
        }
    }
    return false;
}

void ash_throttle_wait(struct ash_throttle_member *member, bool write, uint64_t bytes)
{
    struct ash_throttle_group *group = member->group;
    if (!ash_ratelimit_active(&group->limit)) {
        return;
    }
    uint64_t now_ns = ash_loop_now(group->loop);
    struct ash_throttle_line *line = &member->lines[write];
    bool free = !queue_stands(group, write) && ash_ratelimit_due_ns(&group->limit, write) <= now_ns;
    if (free || ash_node_hurried(line->node)) {
        ash_ratelimit_charge(&group->limit, write, bytes, now_ns);
        return;
    }
    struct waiter waiter = {.co = ash_co_self(), .bytes = bytes};
    ash_list_push_back(&line->waiters, &waiter.link);
    group->waiting++;
    arm(group);
    ash_co_yield();
    ash_assert(ash_list_empty(&waiter.link));
}

void ash_throttle_set(struct ash_throttle_group *group, const struct ash_ratelimit_config *config)
{
    ash_ratelimit_init(&group->limit, config);
    arm(group);
}
