/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Plans: the only way to change a graph.
 *
 * A plan collects edits, then: solves rights and checks shape without touching anything; prepares
 * (may yield and may fail: file locks, reopening, header updates); commits, which cannot fail. When
 * it fails nothing has changed.
 *
 * What is edited is quiet: no request is in flight on the node, and the users above it are paused
 * and have left; asserted at the start and again before commit. A node that opens or closes has no
 * users. Others are paused by the caller (block/graph/pause.h). Edited are the parents of edges
 * that come, go or are led elsewhere, the nodes reopened, and, of edges without a parent, their
 * users. A child that gains or loses a parent is not edited. */
#ifndef ASH_BLOCK_GRAPH_PLAN_H
#define ASH_BLOCK_GRAPH_PLAN_H

#include "block/graph/node.h"

/* Nodes that are not mapped nest on the stack of a request; more than this in a row is refused. */
#define ASH_NESTING_MAX 16

struct ash_plan;

struct ash_plan *ash_plan_new(struct ash_loop *loop);
void ash_plan_free(struct ash_plan *plan);

/* Adds an edge; the new edge takes its own reference to the child. `name` is static. With parent
 * NULL it is a disk's. For an edge with a parent node, needs and allows are derived. The edge is
 * returned through *edge by commit. */
void ash_plan_attach(struct ash_plan *plan, struct ash_node *parent, struct ash_node *child,
                     const char *name, enum ash_role role, uint32_t needs, uint32_t allows,
                     struct ash_user *user, struct ash_edge **edge);
/* Removes an edge; its child loses a reference after commit. */
void ash_plan_detach(struct ash_plan *plan, struct ash_edge *edge);
/* Leads an edge to another child. */
void ash_plan_replace(struct ash_plan *plan, struct ash_edge *edge, struct ash_node *child);
/* Changes what a disk's edge needs and allows. */
void ash_plan_rights(struct ash_plan *plan, struct ash_edge *edge, uint32_t needs, uint32_t allows);
/* Reopens a node with other flags (ASH_NODE_WRITE, DIRECT, NO_FLUSH, DISCARD). */
void ash_plan_reopen(struct ash_plan *plan, struct ash_node *node, uint32_t flags);
/* Reopens it with other options of its driver as well, which stay the caller's; NULL: the same. */
void ash_plan_reopen_options(struct ash_plan *plan, struct ash_node *node, uint32_t flags,
                             const json_t *options);

/* Carries the plan out or leaves all as it was. -EPERM: rights conflict, naming both parents;
 * -ELOOP: a cycle; -E2BIG: nesting; -EBUSY: a job relies on what is edited, or left I/O behind there
 * when it was ended by force. */
ASH_CO_FN int ash_plan_run(struct ash_plan *plan, struct ash_error *error);
/* The same for edits that depend on the graph: `fill` adds them when no other plan can change it any
 * more. It does not yield. */
ASH_CO_FN int ash_plan_run_filled(struct ash_plan *plan,
                                  void (*fill)(struct ash_plan *plan, void *opaque), void *opaque,
                                  struct ash_error *error);

/* The union of what the parents of a node need, and what all of them allow. */
void ash_node_rights(const struct ash_node *node, uint32_t *needs, uint32_t *allows);

#endif
