/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests that wait for their turn under limits that several members share.
 *
 * Members of a group are nodes of one loop. Reads and writes of each member are a line of their
 * own; the lines are served in turn, a request at a time, so that a busy member does not keep out a
 * quiet one, nor writes reads.
 *
 * A pause never waits for a limit: while somebody waits for users to become quiet, what those users
 * have here goes on at once. It is charged all the same, so the rate holds on average. */
#ifndef ASH_BLOCK_FILTER_THROTTLE_GROUP_H
#define ASH_BLOCK_FILTER_THROTTLE_GROUP_H

#include "block/graph/node.h"
#include "block/graph/user.h"
#include "util/ratelimit.h"

struct ash_throttle_group {
    struct ash_loop *loop;
    uint32_t refs; /* members */
    struct ash_ratelimit limit;
    struct ash_list lines; /* of struct ash_throttle_line; the next to be served comes first */
    uint32_t waiting;
    struct ash_timer timer;
    struct ash_hurry hurry; /* somebody pauses */
};

struct ash_throttle_line {
    struct ash_list link;
    struct ash_list waiters;
    struct ash_node *node;
    bool write;
};

struct ash_throttle_member {
    struct ash_throttle_group *group;
    struct ash_throttle_line lines[2]; /* reads, writes */
};

struct ash_throttle_group *ash_throttle_group_new(struct ash_loop *loop,
                                                  const struct ash_ratelimit_config *config);

/* Joins; the last to leave frees the group. No request of the member waits when it leaves
 * (asserted). */
void ash_throttle_join(struct ash_throttle_member *member, struct ash_throttle_group *group,
                       struct ash_node *node);
void ash_throttle_leave(struct ash_throttle_member *member);

/* Waits until a request may start, and charges it. */
ASH_CO_FN void ash_throttle_wait(struct ash_throttle_member *member, bool write, uint64_t bytes);

/* Changes the limits, for those who wait too. `config` has passed ash_ratelimit_check(). */
void ash_throttle_set(struct ash_throttle_group *group, const struct ash_ratelimit_config *config);

#endif
