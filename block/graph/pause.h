/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pausing a part of a graph, so that a plan may edit it.
 *
 * A pause covers some nodes: the gates of all users above them are closed, and what they and the
 * nodes do is waited for. Users that come to stand above the nodes later come paused. Who pauses
 * may send requests of its own through the edges, as it stands outside of every gate, and has to
 * wait for what they set going (ash_pause_drain) before it runs its plan. */
#ifndef ASH_BLOCK_GRAPH_PAUSE_H
#define ASH_BLOCK_GRAPH_PAUSE_H

#include <glib.h>
#include "block/graph/node.h"

struct ash_block;

/* On the stack of who pauses. */
struct ash_pause {
    struct ash_loop *loop;
    struct ash_list link; /* in the loop's list of pauses */
    GPtrArray *nodes;     /* what is covered */
    GPtrArray *users;     /* whose gates this pause holds closed */
    bool given_up;        /* nobody wants it any more: it is not waited for */
};

/* Pauses what stands above the nodes, after other pauses that cover any of it have ended, at most
 * until the deadline on the loop's clock (UINT64_MAX: none): -ETIMEDOUT, and all gates are as
 * before. The nodes live as long as the pause. */
ASH_CO_FN int ash_pause_begin(struct ash_pause *pause, struct ash_loop *loop,
                              struct ash_node *const *nodes, size_t count, uint64_t deadline_ns);

/* Has ash_pause_begin() end, which is waiting: -ECANCELED, and all gates are as before. */
void ash_pause_give_up(struct ash_pause *pause);

/* Waits once more until nothing is in flight. -ETIMEDOUT; the pause stays. */
ASH_CO_FN int ash_pause_drain(struct ash_pause *pause, uint64_t deadline_ns);

void ash_pause_end(struct ash_pause *pause);

/* Asserts that nothing is in flight on the node, and that the users above it are paused. */
void ash_node_assert_quiet(const struct ash_node *node);

/* Whether requests of users that were forsaken may be in flight on the node. */
bool ash_node_is_forsaken(const struct ash_node *node);

/* After edges changed: who now stands above nodes that are paused is paused too. */
void ash_pauses_extend(struct ash_block *block);

/* A user goes. */
void ash_pauses_forget(struct ash_user *user);

#endif
