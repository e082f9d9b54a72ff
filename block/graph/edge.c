/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Edges: linked into the parent's list of children, the child's list of parents, and the parent's
 * pointer for their role. */
#include "block/graph/edge.h"
#include <glib.h>
#include "util/assert.h"

static struct ash_edge **role_slot(struct ash_node *parent, enum ash_role role)
{
    switch (role) {
    case ASH_ROLE_FILE:
        return &parent->file;
    case ASH_ROLE_DATA:
        return &parent->data;
    case ASH_ROLE_BACKING:
        return &parent->backing;
    default:
        return NULL;
    }
}

struct ash_edge *ash_edge_new(struct ash_node *parent, struct ash_node *child, const char *name,
                              enum ash_role role, uint32_t needs, uint32_t allows,
                              struct ash_user *user)
{
    struct ash_edge *edge = g_new0(struct ash_edge, 1);
    edge->parent = parent;
    edge->child = child;
    edge->name = name;
    edge->role = role;
    edge->needs = needs;
    edge->allows = allows;
    edge->user = user;
    ash_list_push_back(&child->parents, &edge->child_link);
    ash_list_init(&edge->parent_link);
    if (parent != NULL) {
        struct ash_edge **slot = role_slot(parent, role);
        ash_assert(slot != NULL);
        ash_assert(*slot == NULL);
        *slot = edge;
        ash_list_push_back(&parent->children, &edge->parent_link);
    }
    return edge;
}

void ash_edge_free(struct ash_edge *edge)
{
    if (edge->parent != NULL) {
        struct ash_edge **slot = role_slot(edge->parent, edge->role);
        ash_assert(slot != NULL);
        *slot = NULL;
        ash_list_remove(&edge->parent_link);
    }
    ash_list_remove(&edge->child_link);
    g_free(edge);
}

void ash_edge_lead(struct ash_edge *edge, struct ash_node *child)
{
    ash_list_remove(&edge->child_link);
    edge->child = child;
    ash_list_push_back(&child->parents, &edge->child_link);
}
