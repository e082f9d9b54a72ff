/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Users of a graph: disks, jobs, and what nodes do of themselves.
 *
 * A user enters before it sends requests into the graph and leaves when they have completed. A
 * pause closes its gate: who is inside goes on to the end, who comes waits outside. Who waits
 * outside (at the gate, for a rate limit, for a decision of the host) is not in flight.
 *
 * A user is found from the edge by which it holds its node (edge->user), and, for what a node does
 * of itself, from the node (node->own). Owner thread. */
#ifndef ASH_BLOCK_GRAPH_USER_H
#define ASH_BLOCK_GRAPH_USER_H

#include <stdbool.h>
#include <stdint.h>
#include "util/co/co.h"
#include "util/compiler.h"
#include "util/loop/loop.h"

struct ash_user {
    struct ash_loop *loop;
    uint32_t in_flight;
    uint32_t pauses;          /* gate closed while > 0 */
    bool forsaken;            /* what is in flight may never end, and no pause waits for it */
    struct ash_co_queue gate; /* who comes during a pause */
    /* Its edge leads to another node now; inside a plan's commit. NULL: nobody wants to know. */
    void (*led)(struct ash_user *user);
};

void ash_user_init(struct ash_user *user, struct ash_loop *loop);

/* Takes the user out of all pauses, before its memory goes. Nothing is in flight (asserted). */
void ash_user_destroy(struct ash_user *user);

/* What is in flight of the user may never end, and is waited for no more, by pauses that have begun
 * neither. Plans that would edit what it is in are refused until it has ended: -EBUSY. The user sends
 * nothing new, and what is in flight changes no contents that others can see. For ever. */
void ash_user_forsake(struct ash_user *user);

ASH_CO_FN void ash_user_wait_at_gate(struct ash_user *user);
void ash_user_tell_pausers(struct ash_user *user);

/* Past the gate without looking: for work that somebody inside waits for, and for work that ends by
 * itself soon. A pause waits for it all the same. */
static inline void ash_user_begin(struct ash_user *user)
{
    user->in_flight++;
}

ASH_CO_FN static inline void ash_user_enter(struct ash_user *user)
{
    if (ash_unlikely(user->pauses > 0)) {
        ash_user_wait_at_gate(user);
    }
    user->in_flight++;
}

static inline void ash_user_leave(struct ash_user *user)
{
    user->in_flight--;
    if (ash_unlikely(user->pauses > 0) && user->in_flight == 0) {
        ash_user_tell_pausers(user);
    }
}

/* Closes the gate and waits until nothing is in flight, at most until the deadline on the loop's
 * clock (UINT64_MAX: none): -ETIMEDOUT, and the gate is as before. Pauses nest. The user lives
 * until it returns. */
ASH_CO_FN int ash_user_pause(struct ash_user *user, uint64_t deadline_ns);
void ash_user_close_gate(struct ash_user *user);
void ash_user_resume(struct ash_user *user);

/* Waiting for users of the loop to become quiet: begin; then, as long as somebody is busy, next,
 * until it returns false because the deadline has passed; then end. Users may come and go
 * meanwhile, so look again from the start after each. */
struct ash_quiet_wait {
    struct ash_loop *loop;
    struct ash_timer timer;
    bool expired;
    bool hurries; /* somebody was busy: those who delay requests were told */
};
void ash_quiet_wait_begin(struct ash_quiet_wait *wait, struct ash_loop *loop, uint64_t deadline_ns);
ASH_CO_FN bool ash_quiet_wait_next(struct ash_quiet_wait *wait);
void ash_quiet_wait_end(struct ash_quiet_wait *wait);

/* Who holds requests back of its own will, as a rate limit does, lets those of users go on whose gates
 * are closed: a pause must not wait for it. `run` is called when somebody begins to wait for a busy
 * user; it does not yield. */
struct ash_hurry {
    struct ash_list link;
    void (*run)(struct ash_hurry *hurry);
};
void ash_hurry_add(struct ash_loop *loop, struct ash_hurry *hurry);
void ash_hurry_remove(struct ash_hurry *hurry);

/* Whether somebody waits for users to become quiet, and a user above the node is paused. */
struct ash_node;
bool ash_node_hurried(const struct ash_node *node);

#endif
