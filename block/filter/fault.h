/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The fault filter from the outside: requests that stop at a named event until they are told to go
 * on. What else it does is in its description (fault.c). Owner thread. */
#ifndef ASH_BLOCK_FILTER_FAULT_H
#define ASH_BLOCK_FILTER_FAULT_H

#include "block/graph/node.h"

/* Whether the node is one. */
bool ash_node_is_fault(const struct ash_node *node);

/* The next coroutine that comes to the event stops there, under a tag of the caller's choice; the
 * break is used up by it. -EINVAL: no such event. */
int ash_fault_break(struct ash_node *node, const char *event, const char *tag);

/* Takes back breaks with the tag that were not reached, and lets go who stopped at one. -ENOENT. */
int ash_fault_remove_break(struct ash_node *node, const char *tag);

/* Lets go who stopped longest ago under the tag. -ENOENT: nobody. */
int ash_fault_resume(struct ash_node *node, const char *tag);

/* Whether somebody has stopped under the tag. */
bool ash_fault_is_suspended(const struct ash_node *node, const char *tag);

#endif
