/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Plans: solve, prepare, commit.
 *
 * Invariants:
 *  1. Until commit no edge, right or flag of the graph changes. New edges exist unlinked; what
 * rights existing edges would get stands in the plan's proposals.
 *  2. Prepare takes locks for the union of old and new rights; commit, or the way back, lets go
 * what is not needed. So at no time less is locked than the graph needs.
 *  3. Commit cannot fail.
 *  4. From solving to commit no other plan of the loop runs: what was solved holds when it is
 * carried out. Nodes that lost their last edge are closed after that, as closing runs plans.
 *  5. What is edited is quiet from solving to commit; who comes to stand above a paused node by the
 *     plan is paused in the turn in which the edges change.
 *  6. Solving is a worklist: a node is looked at again when the rights of an edge to it changed. It
 *     ends because the graph has no cycles, which is checked first. */
#include "block/graph/plan.h"
#include <errno.h>
#include <glib.h>
#include "block/driver.h"
#include "block/graph/block.h"
#include "block/graph/edge.h"
#include "block/graph/pause.h"
#include "block/map/map.h"
#include "util/assert.h"

enum edit_kind { EDIT_ATTACH, EDIT_DETACH, EDIT_REPLACE, EDIT_RIGHTS, EDIT_REOPEN };

struct edit {
    enum edit_kind kind;
    struct ash_edge *edge; /* attach: unlinked, to be linked by commit */
    struct ash_node *node; /* replace: the new child; reopen: the node */
    uint32_t flags;        /* reopen */
    const json_t *options; /* reopen; NULL: the same */
    struct ash_edge **out; /* attach */
    bool prepared;         /* reopen */
};

struct rights {
    uint32_t needs;
    uint32_t allows;
};

struct ash_plan {
    struct ash_loop *loop;
    GArray *edits;         /* of struct edit */
    GHashTable *proposals; /* edge -> struct rights; looked up, never iterated */
    GPtrArray *touched;    /* nodes in the order in which they were first looked at */
    GPtrArray *changed;    /* edges with proposals, in order */
};

struct ash_plan *ash_plan_new(struct ash_loop *loop)
{
    ash_loop_assert_owner(loop);
    struct ash_plan *plan = g_new0(struct ash_plan, 1);
    plan->loop = loop;
    plan->edits = g_array_new(FALSE, TRUE, sizeof(struct edit));
    plan->proposals = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    plan->touched = g_ptr_array_new();
    plan->changed = g_ptr_array_new();
    return plan;
}

static struct edit *edit_at(struct ash_plan *plan, guint index)
{
    return &g_array_index(plan->edits, struct edit, index);
}

void ash_plan_free(struct ash_plan *plan)
{
    for (guint i = 0; i < plan->edits->len; i++) {
        if (edit_at(plan, i)->kind == EDIT_ATTACH) {
            g_free(edit_at(plan, i)->edge); /* commit sets it to NULL when it links it */
        }
    }
    g_array_free(plan->edits, TRUE);
    g_hash_table_destroy(plan->proposals);
    g_ptr_array_free(plan->touched, TRUE);
    g_ptr_array_free(plan->changed, TRUE);
    g_free(plan);
}

void ash_plan_attach(struct ash_plan *plan, struct ash_node *parent, struct ash_node *child,
                     const char *name, enum ash_role role, uint32_t needs, uint32_t allows,
                     struct ash_user *user, struct ash_edge **edge)
{
    struct ash_edge *fresh = g_new0(struct ash_edge, 1);
    *fresh = (struct ash_edge){.parent = parent,
                               .child = child,
                               .name = name,
                               .role = role,
                               .needs = needs,
                               .allows = allows,
                               .user = user};
    struct edit edit = {.kind = EDIT_ATTACH, .edge = fresh, .out = edge};
    g_array_append_val(plan->edits, edit);
}

void ash_plan_detach(struct ash_plan *plan, struct ash_edge *edge)
{
    struct edit edit = {.kind = EDIT_DETACH, .edge = edge};
    g_array_append_val(plan->edits, edit);
}

void ash_plan_replace(struct ash_plan *plan, struct ash_edge *edge, struct ash_node *child)
{
    struct edit edit = {.kind = EDIT_REPLACE, .edge = edge, .node = child};
    g_array_append_val(plan->edits, edit);
}

static void propose(struct ash_plan *plan, struct ash_edge *edge, uint32_t needs, uint32_t allows)
{
    struct rights *rights = g_hash_table_lookup(plan->proposals, edge);
    if (rights == NULL) {
        rights = g_new(struct rights, 1);
        g_hash_table_insert(plan->proposals, edge, rights);
        g_ptr_array_add(plan->changed, edge);
    }
    *rights = (struct rights){needs, allows};
}

void ash_plan_rights(struct ash_plan *plan, struct ash_edge *edge, uint32_t needs, uint32_t allows)
{
    struct edit edit = {.kind = EDIT_RIGHTS, .edge = edge};
    g_array_append_val(plan->edits, edit);
    propose(plan, edge, needs, allows);
}

void ash_plan_reopen(struct ash_plan *plan, struct ash_node *node, uint32_t flags)
{
    ash_plan_reopen_options(plan, node, flags, NULL);
}

void ash_plan_reopen_options(struct ash_plan *plan, struct ash_node *node, uint32_t flags,
                             const json_t *options)
{
    struct edit edit = {.kind = EDIT_REOPEN, .node = node, .flags = flags, .options = options};
    g_array_append_val(plan->edits, edit);
}

/* The graph as it would be. */

static struct rights proposed(struct ash_plan *plan, struct ash_edge *edge)
{
    struct rights *rights = g_hash_table_lookup(plan->proposals, edge);
    return rights != NULL ? *rights : (struct rights){edge->needs, edge->allows};
}

/* NULL: the edge goes. */
static struct ash_node *proposed_child(struct ash_plan *plan, struct ash_edge *edge)
{
    struct ash_node *child = edge->child;
    for (guint i = 0; i < plan->edits->len; i++) {
        struct edit *edit = edit_at(plan, i);
        if (edit->edge == edge && edit->kind == EDIT_DETACH) {
            return NULL;
        }
        if (edit->edge == edge && edit->kind == EDIT_REPLACE) {
            child = edit->node;
        }
    }
    return child;
}

static uint32_t proposed_flags(struct ash_plan *plan, const struct ash_node *node)
{
    for (guint i = 0; i < plan->edits->len; i++) {
        struct edit *edit = edit_at(plan, i);
        if (edit->kind == EDIT_REOPEN && edit->node == node) {
            return edit->flags;
        }
    }
    return node->flags;
}

/* Edges that would lead to the node. */
static GPtrArray *proposed_parents(struct ash_plan *plan, struct ash_node *node)
{
    GPtrArray *edges = g_ptr_array_new();
    ash_list_for_each (edge, &node->parents, struct ash_edge, child_link) {
        if (proposed_child(plan, edge) == node) {
            g_ptr_array_add(edges, edge);
        }
    }
    for (guint i = 0; i < plan->edits->len; i++) {
        struct edit *edit = edit_at(plan, i);
        bool arrives =
            edit->kind == EDIT_REPLACE && edit->node == node && edit->edge->child != node;
        if ((edit->kind == EDIT_ATTACH && edit->edge->child == node) || arrives) {
            g_ptr_array_add(edges, edit->edge);
        }
    }
    return edges;
}

static GPtrArray *proposed_children(struct ash_plan *plan, struct ash_node *node)
{
    GPtrArray *edges = g_ptr_array_new();
    ash_list_for_each (edge, &node->children, struct ash_edge, parent_link) {
        if (proposed_child(plan, edge) != NULL) {
            g_ptr_array_add(edges, edge);
        }
    }
    for (guint i = 0; i < plan->edits->len; i++) {
        struct edit *edit = edit_at(plan, i);
        if (edit->kind == EDIT_ATTACH && edit->edge->parent == node) {
            g_ptr_array_add(edges, edit->edge);
        }
    }
    return edges;
}

/* Shape: no cycles, no deep nesting of nodes that are not mapped. */

static bool reaches(struct ash_plan *plan, struct ash_node *from, const struct ash_node *target)
{
    GPtrArray *work = g_ptr_array_new();
    GHashTable *seen = g_hash_table_new(NULL, NULL);
    g_ptr_array_add(work, from);
    bool found = false;
    while (work->len > 0 && !found) {
        struct ash_node *node = g_ptr_array_remove_index(work, work->len - 1);
        if (!g_hash_table_add(seen, node)) {
            continue;
        }
        found = node == target;
        GPtrArray *edges = proposed_children(plan, node);
        for (guint i = 0; i < edges->len; i++) {
            g_ptr_array_add(work, proposed_child(plan, edges->pdata[i]));
        }
        g_ptr_array_free(edges, TRUE);
    }
    g_hash_table_destroy(seen);
    g_ptr_array_free(work, TRUE);
    return found;
}

static unsigned nesting_below(struct ash_node *node)
{
    unsigned depth = 0;
    while (node != NULL && node->map == NULL && depth <= ASH_NESTING_MAX) {
        depth++;
        node = node->file != NULL ? node->file->child : NULL;
    }
    return depth;
}

static unsigned nesting_above(struct ash_node *node)
{
    unsigned depth = 0;
    while (node != NULL && node->map == NULL && depth <= ASH_NESTING_MAX) {
        depth++;
        node = ash_list_empty(&node->parents)
                   ? NULL
                   : ash_list_first(&node->parents, struct ash_edge, child_link)->parent;
    }
    return depth;
}

static int check_shape(struct ash_plan *plan, struct ash_error *error)
{
    for (guint i = 0; i < plan->edits->len; i++) {
        struct edit *edit = edit_at(plan, i);
        if ((edit->kind == EDIT_REPLACE || edit->kind == EDIT_DETACH) && edit->edge->frozen) {
            return ash_error_set(error, -EBUSY, "A job relies on '%s' being in its place",
                                 edit->edge->child->filename);
        }
        if (edit->kind != EDIT_ATTACH && edit->kind != EDIT_REPLACE) {
            continue;
        }
        struct ash_node *parent = edit->edge->parent;
        struct ash_node *child = edit->kind == EDIT_ATTACH ? edit->edge->child : edit->node;
        if (parent == NULL) {
            continue;
        }
        if (reaches(plan, child, parent)) {
            return ash_error_set(error, -ELOOP, "Making '%s' a child of '%s' would close a loop",
                                 child->name, parent->name);
        }
        if (nesting_above(parent) + nesting_below(child) > ASH_NESTING_MAX) {
            return ash_error_set(error, -E2BIG, "More than %d filters above one another at '%s'",
                                 ASH_NESTING_MAX, child->name);
        }
    }
    return 0;
}

/* Rights. */

static void derive(struct ash_plan *plan, struct ash_node *parent, enum ash_role role,
                   struct rights above, struct rights *rights)
{
    uint32_t flags = proposed_flags(plan, parent);
    if (parent->driver->rights != NULL) {
        parent->driver->rights(parent, flags, role, above.needs, above.allows, &rights->needs,
                               &rights->allows);
    } else if (parent->driver->kind == ASH_DRIVER_FILTER) {
        *rights = above;
    } else {
        /* A format's metadata may change although nobody writes at the moment, and it cannot bear
         * that somebody else changes what lies below. */
        bool writes = (flags & ASH_NODE_WRITE) != 0 && role != ASH_ROLE_BACKING;
        rights->needs = ASH_RIGHT_READ | (writes ? ASH_RIGHT_WRITE | ASH_RIGHT_RESIZE : 0);
        rights->allows = ASH_RIGHT_READ | ASH_RIGHT_REWRITE;
    }
    if ((flags & ASH_NODE_FORCE_SHARE) != 0) {
        rights->allows = ASH_RIGHT_ALL;
    }
}

static struct rights gather(struct ash_plan *plan, GPtrArray *parents)
{
    struct rights sum = {0, ASH_RIGHT_ALL};
    for (guint i = 0; i < parents->len; i++) {
        struct rights rights = proposed(plan, parents->pdata[i]);
        sum.needs |= rights.needs;
        sum.allows &= rights.allows;
    }
    return sum;
}

static const char *user_name(const struct ash_edge *edge)
{
    if (edge->parent != NULL) {
        return edge->parent->name;
    }
    return edge->role == ASH_ROLE_JOB ? "a job" : "a disk";
}

#define WRITING (ASH_RIGHT_WRITE | ASH_RIGHT_REWRITE | ASH_RIGHT_RESIZE)

/* Somebody needs to write to what would be read-only. */
static int refuse_read_only(struct ash_plan *plan, const struct ash_node *node, GPtrArray *parents,
                            struct ash_error *error)
{
    guint i = 0;
    while ((proposed(plan, parents->pdata[i]).needs & WRITING) == 0) {
        i++;
    }
    if ((node->flags & ASH_NODE_WRITE) == 0) {
        return ash_error_set(error, -EACCES, "Block node is read-only: '%s'", node->filename);
    }
    return ash_error_set(error, -EACCES, "'%s' cannot become read-only: %s writes to it",
                         node->filename, user_name(parents->pdata[i]));
}

static int check_conflicts(struct ash_plan *plan, struct ash_node *node, GPtrArray *parents,
                           struct ash_error *error)
{
    struct rights sum = gather(plan, parents);
    if ((sum.needs & WRITING) != 0 && (proposed_flags(plan, node) & ASH_NODE_WRITE) == 0) {
        return refuse_read_only(plan, node, parents, error);
    }
    for (guint i = 0; i < parents->len; i++) {
        struct rights a = proposed(plan, parents->pdata[i]);
        for (guint j = i + 1; j < parents->len; j++) {
            struct rights b = proposed(plan, parents->pdata[j]);
            if (((a.needs & ~b.allows) | (b.needs & ~a.allows)) != 0) {
                return ash_error_set(
                    error, -EPERM, "'%s' is used by %s and by %s, which does not allow that",
                    node->filename, user_name(parents->pdata[i]), user_name(parents->pdata[j]));
            }
        }
    }
    return 0;
}

static void touch(struct ash_plan *plan, GQueue *work, struct ash_node *node)
{
    if (!g_ptr_array_find(plan->touched, node, NULL)) {
        g_ptr_array_add(plan->touched, node);
    }
    g_queue_push_tail(work, node);
}

static void start_solving(struct ash_plan *plan, GQueue *work)
{
    for (guint i = 0; i < plan->edits->len; i++) {
        struct edit *edit = edit_at(plan, i);
        if (edit->kind == EDIT_REOPEN) {
            touch(plan, work, edit->node);
            continue;
        }
        if (edit->kind == EDIT_ATTACH && edit->edge->parent != NULL) {
            touch(plan, work, edit->edge->parent); /* derives the new edge's rights */
        }
        touch(plan, work, edit->edge->child);
        if (edit->kind == EDIT_REPLACE) {
            touch(plan, work, edit->node);
        }
    }
}

static void solve_node(struct ash_plan *plan, GQueue *work, struct ash_node *node)
{
    GPtrArray *parents = proposed_parents(plan, node);
    struct rights above = gather(plan, parents);
    g_ptr_array_free(parents, TRUE);
    GPtrArray *children = proposed_children(plan, node);
    for (guint i = 0; i < children->len; i++) {
        struct ash_edge *edge = children->pdata[i];
        struct rights now = proposed(plan, edge);
        struct rights next;
        derive(plan, node, edge->role, above, &next);
        next.allows |= edge->lends;
        if (now.needs != next.needs || now.allows != next.allows) {
            propose(plan, edge, next.needs, next.allows);
            touch(plan, work, proposed_child(plan, edge));
        }
    }
    g_ptr_array_free(children, TRUE);
}

static int solve(struct ash_plan *plan, struct ash_error *error)
{
    GQueue work = G_QUEUE_INIT;
    start_solving(plan, &work);
    while (!g_queue_is_empty(&work)) {
        solve_node(plan, &work, g_queue_pop_head(&work));
    }
    for (guint i = 0; i < plan->touched->len; i++) {
        GPtrArray *parents = proposed_parents(plan, plan->touched->pdata[i]);
        int ret = check_conflicts(plan, plan->touched->pdata[i], parents, error);
        g_ptr_array_free(parents, TRUE);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* Prepare and commit. */

void ash_node_rights(const struct ash_node *node, uint32_t *needs, uint32_t *allows)
{
    *needs = 0;
    *allows = ASH_RIGHT_ALL;
    ash_list_for_each (edge, &node->parents, struct ash_edge, child_link) {
        *needs |= edge->needs;
        *allows &= edge->allows;
    }
}

ASH_CO_FN static int lock_node(struct ash_plan *plan, struct ash_node *node, bool both,
                               struct ash_error *error)
{
    if (node->driver->lock == NULL) {
        return 0;
    }
    uint32_t needs;
    uint32_t allows;
    ash_node_rights(node, &needs, &allows);
    if (both) {
        GPtrArray *parents = proposed_parents(plan, node);
        struct rights next = gather(plan, parents);
        g_ptr_array_free(parents, TRUE);
        needs |= next.needs;
        allows &= next.allows;
    }
    return node->driver->lock(node, needs, allows, error);
}

/* Lets go, on the nodes looked at, what the edges as they are do not need. */
ASH_CO_FN static void settle_locks(struct ash_plan *plan)
{
    for (guint i = 0; i < plan->touched->len; i++) {
        lock_node(plan, plan->touched->pdata[i], false, NULL);
    }
}

ASH_CO_FN static int prepare_reopen(const struct edit *edit, struct ash_error *error)
{
    struct ash_node *node = edit->node;
    int ret = 0;
    if (json_object_size(edit->options) > 0) {
        ret = node->driver->reopen_options != NULL
                  ? node->driver->reopen_options(node, edit->options, edit->flags, error)
                  : ash_error_set(error, -EINVAL, "Cannot change the option '%s'",
                                  json_object_iter_key(json_object_iter((json_t *)edit->options)));
    }
    if (ret == 0 && node->driver->reopen_prepare != NULL) {
        ret = node->driver->reopen_prepare(node, edit->flags, error);
    }
    return ret;
}

ASH_CO_FN static int prepare(struct ash_plan *plan, struct ash_error *error)
{
    int ret = 0;
    for (guint i = 0; i < plan->edits->len && ret == 0; i++) {
        struct edit *edit = edit_at(plan, i);
        if (edit->kind != EDIT_REOPEN) {
            continue;
        }
        ret = prepare_reopen(edit, error);
        edit_at(plan, i)->prepared = ret == 0;
    }
    for (guint i = 0; i < plan->touched->len && ret == 0; i++) {
        ret = lock_node(plan, plan->touched->pdata[i], true, error);
    }
    if (ret == 0) {
        return 0;
    }
    for (guint i = plan->edits->len; i-- > 0;) {
        struct edit *edit = edit_at(plan, i);
        if (edit->prepared && edit->node->driver->reopen_abort != NULL) {
            edit->node->driver->reopen_abort(edit->node);
        }
    }
    settle_locks(plan);
    return ret;
}

static void commit_edge(struct edit *edit, GPtrArray *lost)
{
    struct ash_edge *edge = edit->edge;
    switch (edit->kind) {
    case EDIT_ATTACH:
        ash_node_ref(edge->child);
        *edit->out = ash_edge_new(edge->parent, edge->child, edge->name, edge->role, edge->needs,
                                  edge->allows, edge->user);
        if (edge->parent != NULL) {
            ash_map_forget(edge->parent, 0, INT64_MAX);
        }
        g_free(edge);
        edit->edge = NULL;
        break;
    case EDIT_DETACH:
        if (edge->parent != NULL) {
            ash_map_forget(edge->parent, 0, INT64_MAX);
        }
        g_ptr_array_add(lost, edge->child);
        ash_edge_free(edge);
        break;
    case EDIT_REPLACE:
        ash_node_ref(edit->node);
        g_ptr_array_add(lost, edge->child);
        ash_edge_lead(edge, edit->node);
        if (edge->user != NULL && edge->user->led != NULL) {
            edge->user->led(edge->user);
        }
        if (edge->parent != NULL) {
            ash_map_forget(edge->parent, 0, INT64_MAX);
        }
        break;
    default:
        break;
    }
}

/* Lays what was changed over what the node was opened with. */
static void keep_options(const struct edit *edit)
{
    if (edit->options != NULL) {
        json_t *options = json_deep_copy(edit->options);
        json_object_update(edit->node->options, options);
        json_decref(options);
    }
}

ASH_CO_FN static void commit(struct ash_plan *plan, GPtrArray *lost)
{
    for (guint i = 0; i < plan->changed->len; i++) {
        struct ash_edge *edge = plan->changed->pdata[i];
        struct rights rights = proposed(plan, edge);
        edge->needs = rights.needs;
        edge->allows = rights.allows;
    }
    for (guint i = 0; i < plan->edits->len; i++) {
        struct edit *edit = edit_at(plan, i);
        if (edit->kind == EDIT_REOPEN) {
            if (edit->node->driver->reopen_commit != NULL) {
                edit->node->driver->reopen_commit(edit->node, edit->flags);
            }
            edit->node->flags = edit->flags;
            keep_options(edit);
        } else {
            commit_edge(edit, lost);
        }
    }
    ash_pauses_extend(ash_block_of(plan->loop));
    settle_locks(plan);
}

/* The node that is edited; NULL: a user's edge is. */
static const struct ash_node *edited(const struct edit *edit)
{
    return edit->kind == EDIT_REOPEN ? edit->node : edit->edge->parent;
}

/* What pauses do not wait for must not be edited under. */
static int check_forsaken(struct ash_plan *plan, struct ash_error *error)
{
    for (guint i = 0; i < plan->edits->len; i++) {
        const struct ash_node *node = edited(edit_at(plan, i));
        if (node != NULL && ash_node_is_forsaken(node)) {
            return ash_error_set(error, -EBUSY,
                                 "I/O of a job that was ended by force has not ended yet in '%s'",
                                 node->filename);
        }
    }
    return 0;
}

static void assert_quiet(struct ash_plan *plan)
{
    for (guint i = 0; i < plan->edits->len; i++) {
        struct edit *edit = edit_at(plan, i);
        const struct ash_node *node = edited(edit);
        if (node != NULL) {
            ash_node_assert_quiet(node);
        } else if (edit->kind != EDIT_ATTACH && edit->edge->user != NULL) {
            ash_assert(edit->edge->user->pauses > 0);
            ash_assert(edit->edge->user->in_flight == 0);
        }
    }
}

int ash_plan_run_filled(struct ash_plan *plan, void (*fill)(struct ash_plan *plan, void *opaque),
                        void *opaque, struct ash_error *error)
{
    struct ash_block *block = ash_block_of(plan->loop);
    GPtrArray *lost = g_ptr_array_new();
    ash_co_mutex_lock(&block->plans);
    if (fill != NULL) {
        fill(plan, opaque);
    }
    int ret = check_forsaken(plan, error);
    if (ret == 0) {
        assert_quiet(plan);
        ret = check_shape(plan, error);
    }
    if (ret == 0) {
        ret = solve(plan, error);
    }
    if (ret == 0) {
        ret = prepare(plan, error);
    }
    if (ret == 0) {
        assert_quiet(plan);
        commit(plan, lost);
    }
    ash_co_mutex_unlock(&block->plans);
    for (guint i = 0; i < lost->len; i++) {
        ash_node_unref(lost->pdata[i]);
    }
    g_ptr_array_free(lost, TRUE);
    return ret;
}

int ash_plan_run(struct ash_plan *plan, struct ash_error *error)
{
    return ash_plan_run_filled(plan, NULL, NULL, error);
}
