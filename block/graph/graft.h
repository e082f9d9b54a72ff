/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing a graph under users: putting a filter above a node and taking it out, leading a node to
 * another backing node. Each is one plan: it is carried out, or the graph stays as it was. Where it
 * says so, the caller has paused what stands above the node (block/graph/pause.h). */
#ifndef ASH_BLOCK_GRAPH_GRAFT_H
#define ASH_BLOCK_GRAPH_GRAFT_H

#include "block/graph/node.h"
#include "block/graph/pause.h"

/* Puts a filter, opened with the node as its file, between the node and all that use it, but for
 * the edges that jobs have. The users must be paused. */
ASH_CO_FN int ash_graft_insert(struct ash_node *filter, struct ash_error *error);
/* Leads all users of the filter, but for jobs and `except`, which may be NULL, to what is under it.
 * Paused: the filter, to which the caller has a reference. */
ASH_CO_FN int ash_graft_remove(struct ash_node *filter, const struct ash_node *except,
                               struct ash_error *error);

/* The same at one go, of a filter by its description, whose "file" names the node, and of one by
 * its name. Pause the users themselves. -EBUSY: nobody uses the node, or the filter is a job's. */
ASH_CO_FN int ash_graft_insert_filter(struct ash_loop *loop, const json_t *description,
                                      struct ash_error *error);
ASH_CO_FN int ash_graft_remove_filter(struct ash_loop *loop, const char *name,
                                      struct ash_error *error);

/* Leads all users of `from`, but for jobs, to `to`. Paused: `from`. */
ASH_CO_FN int ash_graft_lead(struct ash_node *from, struct ash_node *to, struct ash_error *error);

/* Puts a mapped node without backing node between a node and all that use it, as its overlay; and
 * takes it out again. Paused: the node. The caller has a reference to the overlay. */
ASH_CO_FN int ash_graft_put_overlay(struct ash_node *node, struct ash_node *overlay,
                                    struct ash_error *error);
ASH_CO_FN int ash_graft_take_overlay(struct ash_node *node, struct ash_node *overlay,
                                     struct ash_error *error);

/* Makes `backing` (NULL: none) the backing node, and writes the header's strings to say so, in this
 * order: what the node holds is stable, the header, the graph. `pause` covers the node. */
ASH_CO_FN int ash_graft_backing(struct ash_node *node, struct ash_pause *pause,
                                struct ash_node *backing, const char *file, const char *format,
                                struct ash_error *error);

/* Opens a node, and what it stands on through "file", for writing, or no longer for it. Pauses what
 * stands above them itself. */
ASH_CO_FN int ash_graft_set_writable(struct ash_node *node, bool writable, struct ash_error *error);
/* The same for any of the flags that can change: ASH_NODE_WRITE, DISCARD, DIRECT, NO_FLUSH. */
ASH_CO_FN int ash_graft_set_flags(struct ash_node *node, uint32_t set, uint32_t clear,
                                  struct ash_error *error);

/* An edge of a job's own to a node. To detach it, nobody but the caller may use it; the user's gate
 * is closed meanwhile. */
ASH_CO_FN int ash_graft_attach(struct ash_node *node, uint32_t needs, uint32_t allows,
                               struct ash_user *user, struct ash_edge **edge,
                               struct ash_error *error);
ASH_CO_FN void ash_graft_detach(struct ash_edge *edge);

/* The node that maps, under the filters on top of it; NULL if there is none. */
struct ash_node *ash_graft_mapped(struct ash_node *node);

/* Keeps plans from changing the backing edges from `top` down to `base` (NULL: the end): -EBUSY if
 * one of them is kept already, or leads to a filter that a job will take out. */
int ash_graft_freeze(struct ash_node *top, const struct ash_node *base, struct ash_error *error);
void ash_graft_thaw(struct ash_node *top, const struct ash_node *base);

/* Whether `node` is `top` or in its chain of backing nodes, filters in between passed. */
bool ash_graft_in_chain(struct ash_node *top, const struct ash_node *node);

#endif
