/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Users of a graph: the gate.
 *
 * Invariants:
 *  1. While the gate is closed, none enters; who waits at the gate is not in flight.
 *  2. A pause that expires opens the gate again.
 *  3. Several may pause one user, each with a deadline of its own. Pausers wait on one queue of the
 *     loop, not on one in the user, which may be gone when they go on.
 *  4. Nobody waits for a user that was forsaken, and no plan edits what it is in. */
#include "block/graph/user.h"
#include <errno.h>
#include "block/graph/block.h"
#include "block/graph/pause.h"
#include "util/assert.h"

void ash_user_init(struct ash_user *user, struct ash_loop *loop)
{
    *user = (struct ash_user){.loop = loop};
    ash_co_queue_init(&user->gate);
}

void ash_user_destroy(struct ash_user *user)
{
    ash_pauses_forget(user);
    ash_block_of(user->loop)->forsaken -= user->forsaken;
    ash_assert(user->in_flight == 0);
    ash_assert(ash_co_queue_empty(&user->gate));
}

void ash_user_forsake(struct ash_user *user)
{
    ash_assert(!user->forsaken);
    user->forsaken = true;
    ash_block_of(user->loop)->forsaken++;
    ash_user_tell_pausers(user);
}

void ash_user_wait_at_gate(struct ash_user *user)
{
    while (user->pauses > 0) {
        ash_co_queue_wait(&user->gate);
    }
}

void ash_user_tell_pausers(struct ash_user *user)
{
    ash_co_queue_wake_all(&ash_block_of(user->loop)->pausers);
}

static void expire(struct ash_timer *timer)
{
    struct ash_quiet_wait *wait = ash_container_of(timer, struct ash_quiet_wait, timer);
    wait->expired = true;
    ash_co_queue_wake_all(&ash_block_of(wait->loop)->pausers);
}

void ash_quiet_wait_begin(struct ash_quiet_wait *wait, struct ash_loop *loop, uint64_t deadline_ns)
{
    ash_loop_assert_owner(loop);
    wait->loop = loop;
    wait->expired = false;
    wait->hurries = false;
    ash_timer_init(&wait->timer, expire);
    if (deadline_ns != UINT64_MAX) {
        ash_timer_set(loop, &wait->timer, deadline_ns);
    }
}

void ash_hurry_add(struct ash_loop *loop, struct ash_hurry *hurry)
{
    ash_list_push_back(&ash_block_of(loop)->hurries, &hurry->link);
}

void ash_hurry_remove(struct ash_hurry *hurry)
{
    ash_list_remove(&hurry->link);
}

static void tell_hurries(struct ash_quiet_wait *wait)
{
    struct ash_block *block = ash_block_of(wait->loop);
    wait->hurries = true;
    block->hurrying++;
    ash_list_for_each (hurry, &block->hurries, struct ash_hurry, link) {
        hurry->run(hurry);
    }
}

bool ash_quiet_wait_next(struct ash_quiet_wait *wait)
{
    if (!wait->hurries) {
        tell_hurries(wait);
    }
    if (!wait->expired) {
        ash_co_queue_wait(&ash_block_of(wait->loop)->pausers);
    }
    return !wait->expired;
}

void ash_quiet_wait_end(struct ash_quiet_wait *wait)
{
    ash_timer_cancel(wait->loop, &wait->timer);
    ash_block_of(wait->loop)->hurrying -= wait->hurries;
}

int ash_user_pause(struct ash_user *user, uint64_t deadline_ns)
{
    struct ash_quiet_wait wait;
    ash_user_close_gate(user);
    if (user->in_flight == 0) {
        return 0;
    }
    ash_quiet_wait_begin(&wait, user->loop, deadline_ns);
    while (user->in_flight > 0 && ash_quiet_wait_next(&wait)) {
    }
    ash_quiet_wait_end(&wait);
    if (user->in_flight > 0) {
        ash_user_resume(user);
        return -ETIMEDOUT;
    }
    return 0;
}

void ash_user_close_gate(struct ash_user *user)
{
    user->pauses++;
}

void ash_user_resume(struct ash_user *user)
{
    ash_assert(user->pauses > 0);
    if (--user->pauses == 0) {
        ash_co_queue_wake_all(&user->gate);
    }
}
