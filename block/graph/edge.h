/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making and unmaking nodes and edges: between the files of block/graph only. */
#ifndef ASH_BLOCK_GRAPH_EDGE_H
#define ASH_BLOCK_GRAPH_EDGE_H

#include "block/graph/node.h"

/* A node without edges and with one reference; the driver is not opened. `name` NULL: generated. */
struct ash_node *ash_node_new(struct ash_loop *loop, const struct ash_driver *driver,
                              const char *name, uint32_t flags);

/* Takes apart a node whose driver did not open, and lets its children go. */
ASH_CO_FN void ash_node_discard(struct ash_node *node);

/* Links an edge into both nodes' lists. The reference to the child is the caller's to take. */
struct ash_edge *ash_edge_new(struct ash_node *parent, struct ash_node *child, const char *name,
                              enum ash_role role, uint32_t needs, uint32_t allows,
                              struct ash_user *user);

/* Unlinks and frees an edge. The reference to the child is the caller's to drop. */
void ash_edge_free(struct ash_edge *edge);

/* Leads the edge to another child. The references are the caller's. */
void ash_edge_lead(struct ash_edge *edge, struct ash_node *child);

#endif
