/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Changing a graph under users. See the header; each change is one plan.
 *
 * Invariants:
 *  1. An edge that a job has (role ASH_ROLE_JOB) leads where the job put it: putting in a filter
 * and taking it out passes it by, or the job would read through its own filter. So does that of a
 * filter on which a job has left something behind (ASH_NODE_LEFT).
 *  2. When a node gets another backing node, what it holds is stable before the header says so, and
 *     the header says so before the graph does. A crash in between finds an image that reads the
 *     same by either header, which is the caller's to have brought about. */
#include "block/graph/graft.h"
#include <errno.h>
#include <glib.h>
#include "block/driver.h"
#include "block/graph/open.h"
#include "block/graph/pause.h"
#include "block/graph/plan.h"
#include "block/map/ops.h"
#include "util/assert.h"

/* Whether the edge leads where a job put it, or is one of `except`. */
static bool stays(const struct ash_edge *edge, const struct ash_node *except)
{
    const struct ash_node *parent = edge->parent;
    return edge->role == ASH_ROLE_JOB ||
           (parent != NULL && (parent == except || (parent->flags & ASH_NODE_LEFT) != 0));
}

/* Leads every user of `from`, but for jobs and `except`, to `to`. */
ASH_CO_FN static int lead_users(struct ash_node *from, struct ash_node *to,
                                const struct ash_node *except, struct ash_error *error)
{
    struct ash_plan *plan = ash_plan_new(from->loop);
    ash_list_for_each (edge, &from->parents, struct ash_edge, child_link) {
        if (!stays(edge, except)) {
            ash_plan_replace(plan, edge, to);
        }
    }
    int ret = ash_plan_run(plan, error);
    ash_plan_free(plan);
    return ret;
}

int ash_graft_insert(struct ash_node *filter, struct ash_error *error)
{
    const struct ash_node *below = filter->file->child;
    ash_assert(filter->driver->kind == ASH_DRIVER_FILTER);
    /* Both may have changed since the filter was opened. */
    filter->size_bytes = below->size_bytes;
    filter->flags = (filter->flags & ~ASH_NODE_WRITE) | (below->flags & ASH_NODE_WRITE);
    return lead_users(filter->file->child, filter, filter, error);
}

int ash_graft_remove(struct ash_node *filter, const struct ash_node *except,
                     struct ash_error *error)
{
    ash_assert(filter->driver->kind == ASH_DRIVER_FILTER);
    int ret = lead_users(filter, filter->file->child, except, error);
    if (ret == 0 && except != NULL) {
        filter->flags |= ASH_NODE_LEFT;
    }
    return ret;
}

/* Whether somebody besides jobs, and `except`, stands on the node. */
static bool has_users(const struct ash_node *node, const struct ash_node *except)
{
    ash_list_for_each (edge, &node->parents, struct ash_edge, child_link) {
        if (!stays(edge, except)) {
            return true;
        }
    }
    return false;
}

/* The filter is open, and nobody stands on it yet. */
ASH_CO_FN static int put_in(struct ash_node *filter, struct ash_error *error)
{
    struct ash_node *below = filter->file->child;
    struct ash_pause pause;
    if (!has_users(below, filter)) {
        return ash_error_set(error, -EBUSY, "Nobody uses node '%s'", below->name);
    }
    int ret = ash_pause_begin(&pause, filter->loop, &below, 1, UINT64_MAX);
    ash_assert(ret == 0); /* without a deadline it does not expire */
    ret = ash_graft_insert(filter, error);
    if (ret == 0 && filter->driver->inserted != NULL) {
        ret = filter->driver->inserted(filter, error);
        if (ret < 0) {
            int undone = ash_graft_remove(filter, NULL, NULL);
            ash_assert(undone == 0); /* the users have the rights that they had before */
        }
    }
    ash_pause_end(&pause);
    return ret;
}

int ash_graft_insert_filter(struct ash_loop *loop, const json_t *description,
                            struct ash_error *error)
{
    const char *name = json_string_value(json_object_get(description, "file"));
    struct ash_node *below = name != NULL ? ash_node_find(loop, name) : NULL;
    if (below == NULL) {
        return ash_error_set(error, -EINVAL,
                             "The 'file' of a filter that is put in is the name of "
                             "a node, and not '%s'",
                             name != NULL ? name : "");
    }
    struct ash_node *filter;
    uint32_t flags = below->flags & (ASH_NODE_WRITE | ASH_NODE_DISCARD);
    int ret = ash_node_open(loop, description, flags, &filter, error);
    if (ret < 0) {
        return ret;
    }
    if (filter->driver->kind != ASH_DRIVER_FILTER) {
        ret = ash_error_set(error, -EINVAL, "Driver '%s' is not a filter", filter->driver->name);
    } else {
        ret = put_in(filter, error);
    }
    ash_node_unref(filter); /* its users have it */
    return ret;
}

int ash_graft_remove_filter(struct ash_loop *loop, const char *name, struct ash_error *error)
{
    struct ash_node *filter = name != NULL ? ash_node_find(loop, name) : NULL;
    if (filter == NULL || filter->driver->kind != ASH_DRIVER_FILTER) {
        return ash_error_set(error, -EINVAL, "There is no filter '%s'", name != NULL ? name : "");
    }
    if ((filter->flags & ASH_NODE_JOBS) != 0) {
        return ash_error_set(error, -EBUSY, "Filter '%s' is a job's", name);
    }
    struct ash_pause pause;
    ash_node_ref(filter);
    int ret = ash_pause_begin(&pause, loop, &filter, 1, UINT64_MAX);
    ash_assert(ret == 0); /* without a deadline it does not expire */
    ret = ash_graft_remove(filter, NULL, error);
    ash_pause_end(&pause);
    ash_node_unref(filter);
    return ret;
}

int ash_graft_lead(struct ash_node *from, struct ash_node *to, struct ash_error *error)
{
    return lead_users(from, to, NULL, error);
}

int ash_graft_put_overlay(struct ash_node *node, struct ash_node *overlay, struct ash_error *error)
{
    struct ash_plan *plan = ash_plan_new(node->loop);
    ash_list_for_each (edge, &node->parents, struct ash_edge, child_link) {
        ash_plan_replace(plan, edge, overlay);
    }
    ash_plan_attach(plan, overlay, node, "backing", ASH_ROLE_BACKING, 0, ASH_RIGHT_ALL, NULL,
                    &overlay->backing);
    int ret = ash_plan_run(plan, error);
    ash_plan_free(plan);
    return ret;
}

int ash_graft_take_overlay(struct ash_node *node, struct ash_node *overlay, struct ash_error *error)
{
    struct ash_plan *plan = ash_plan_new(node->loop);
    ash_list_for_each (edge, &overlay->parents, struct ash_edge, child_link) {
        ash_plan_replace(plan, edge, node);
    }
    ash_plan_detach(plan, overlay->backing);
    int ret = ash_plan_run(plan, error);
    ash_plan_free(plan);
    return ret;
}

ASH_CO_FN static int plan_backing(struct ash_node *node, struct ash_node *backing,
                                  struct ash_error *error)
{
    struct ash_plan *plan = ash_plan_new(node->loop);
    if (backing == NULL) {
        ash_plan_detach(plan, node->backing);
    } else {
        ash_plan_replace(plan, node->backing, backing);
    }
    int ret = ash_plan_run(plan, error);
    ash_plan_free(plan);
    return ret;
}

int ash_graft_backing(struct ash_node *node, struct ash_pause *pause, struct ash_node *backing,
                      const char *file, const char *format, struct ash_error *error)
{
    ash_assert(node->backing != NULL);
    int ret = ash_map_flush(node);
    if (ret < 0) {
        return ash_error_errno(error, ret, "Flushing '%s' failed", node->filename);
    }
    if (node->driver->set_backing == NULL) {
        return ash_error_set(error, -ENOTSUP, "Driver '%s' cannot change the backing file of '%s'",
                             node->driver->name, node->filename);
    }
    ret = node->driver->set_backing(node, file, format, error);
    if (ret == 0) {
        ret = ash_pause_drain(pause, UINT64_MAX); /* that may have set work going */
        ash_assert(ret == 0);
        ret = plan_backing(node, backing, error);
    }
    return ret;
}

/* On the way to writing the file goes first; on the way back the format, which may still have to
 * write something. */
static void plan_flags(struct ash_plan *plan, const GPtrArray *nodes, uint32_t set, uint32_t clear)
{
    bool upwards = (set & ASH_NODE_WRITE) != 0;
    for (guint i = 0; i < nodes->len; i++) {
        struct ash_node *at = nodes->pdata[upwards ? nodes->len - 1 - i : i];
        ash_plan_reopen(plan, at, (at->flags | set) & ~clear);
    }
}

int ash_graft_set_writable(struct ash_node *node, bool writable, struct ash_error *error)
{
    return writable ? ash_graft_set_flags(node, ASH_NODE_WRITE, 0, error)
                    : ash_graft_set_flags(node, 0, ASH_NODE_WRITE, error);
}

int ash_graft_set_flags(struct ash_node *node, uint32_t set, uint32_t clear,
                        struct ash_error *error)
{
    GPtrArray *nodes = g_ptr_array_new();
    for (struct ash_node *at = node; at != NULL; at = at->file != NULL ? at->file->child : NULL) {
        g_ptr_array_add(nodes, at);
    }
    struct ash_pause pause;
    int ret = ash_pause_begin(&pause, node->loop, (struct ash_node **)nodes->pdata, nodes->len,
                              UINT64_MAX);
    ash_assert(ret == 0); /* without a deadline it does not expire */
    struct ash_plan *plan = ash_plan_new(node->loop);
    plan_flags(plan, nodes, set, clear);
    ret = ash_plan_run(plan, error);
    ash_plan_free(plan);
    ash_pause_end(&pause);
    g_ptr_array_free(nodes, TRUE);
    return ret;
}

int ash_graft_attach(struct ash_node *node, uint32_t needs, uint32_t allows, struct ash_user *user,
                     struct ash_edge **edge, struct ash_error *error)
{
    struct ash_plan *plan = ash_plan_new(node->loop);
    ash_plan_attach(plan, NULL, node, "job", ASH_ROLE_JOB, needs, allows, user, edge);
    int ret = ash_plan_run(plan, error);
    ash_plan_free(plan);
    return ret;
}

void ash_graft_detach(struct ash_edge *edge)
{
    struct ash_user *user = edge->user;
    struct ash_plan *plan = ash_plan_new(edge->child->loop);
    ash_plan_detach(plan, edge);
    ash_user_close_gate(user);
    int ret = ash_plan_run(plan, NULL);
    ash_assert(ret == 0); /* giving rights back conflicts with nobody */
    ash_user_resume(user);
    ash_plan_free(plan);
}

struct ash_node *ash_graft_mapped(struct ash_node *node)
{
    while (node != NULL && node->map == NULL) {
        node = node->driver->kind == ASH_DRIVER_FILTER ? node->file->child : NULL;
    }
    return node;
}

/* One step down: past filters, then to the backing node. */
static struct ash_edge *next_edge(struct ash_node *node)
{
    return node->driver->kind == ASH_DRIVER_FILTER ? node->file : node->backing;
}

int ash_graft_freeze(struct ash_node *top, const struct ash_node *base, struct ash_error *error)
{
    for (struct ash_node *node = top; node != base && next_edge(node) != NULL;
         node = next_edge(node)->child) {
        if (next_edge(node)->frozen) {
            ash_graft_thaw(top, node);
            return ash_error_set(error, -EBUSY, "'%s' is part of a chain that another job works on",
                                 node->filename);
        }
        const struct ash_node *next = next_edge(node)->child;
        if ((next->flags & ASH_NODE_JOBS) != 0) {
            /* The filter goes when that job ends, whoever relies on it. */
            ash_graft_thaw(top, node);
            return ash_error_set(error, -EBUSY, "Filter '%s' of another job stands below '%s'",
                                 next->name, node->filename);
        }
        next_edge(node)->frozen = true;
    }
    return 0;
}

void ash_graft_thaw(struct ash_node *top, const struct ash_node *base)
{
    for (struct ash_node *node = top; node != base && next_edge(node) != NULL;
         node = next_edge(node)->child) {
        next_edge(node)->frozen = false;
    }
}

bool ash_graft_in_chain(struct ash_node *top, const struct ash_node *node)
{
    for (struct ash_node *at = top; at != node; at = next_edge(at)->child) {
        if (next_edge(at) == NULL) {
            return false;
        }
    }
    return true;
}
