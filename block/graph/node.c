/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Nodes: their lives, and what a loop keeps of them.
 *
 * Invariants:
 *  1. A node lives while it has references; each edge to it is one.
 *  2. Closing goes down a chain in a loop: a closed node's children join a list of nodes that lost
 * a reference, so the stack does not depend on the depth.
 *  3. A node is closed before its children: what it writes on closing still finds them.
 *  4. Nobody finds a node by its name before it is open or once it closes; the name is taken all
 *     the same. */
#include "block/graph/node.h"
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include "block/bitmap/bitmap.h"
#include "block/driver.h"
#include "block/graph/block.h"
#include "block/graph/edge.h"
#include "block/graph/plan.h"
#include "block/map/map.h"
#include "util/assert.h"

static void block_free(struct ash_loop *loop)
{
    struct ash_block *block = loop->block;
    ash_assert(ash_list_empty(&block->jobs)); /* each concluded and dismissed */
    ash_assert(ash_list_empty(&block->nodes));
    ash_assert(ash_list_empty(&block->pauses));
    ash_assert(g_hash_table_size(block->names) == 0);
    ash_assert(g_hash_table_size(block->ids) == 0);
    g_hash_table_destroy(block->names);
    g_hash_table_destroy(block->ids);
    ash_co_mutex_destroy(&block->plans);
    g_free(block);
    loop->block = NULL;
}

struct ash_block *ash_block_of(struct ash_loop *loop)
{
    if (loop->block == NULL) {
        struct ash_block *block = g_new0(struct ash_block, 1);
        block->loop = loop;
        ash_list_init(&block->nodes);
        ash_list_init(&block->jobs);
        block->names = g_hash_table_new(g_str_hash, g_str_equal);
        block->ids = g_hash_table_new(g_str_hash, g_str_equal);
        ash_co_mutex_init(&block->plans);
        ash_list_init(&block->pauses);
        ash_co_queue_init(&block->pausers);
        ash_list_init(&block->hurries);
        ash_budget_init(&block->budget, loop->metadata_bytes_max);
        loop->block = block;
        loop->block_free = block_free;
    }
    return loop->block;
}

struct ash_node *ash_node_find(struct ash_loop *loop, const char *name)
{
    struct ash_node *node = g_hash_table_lookup(ash_block_of(loop)->names, name);
    return node != NULL && node->open ? node : NULL;
}

bool ash_node_name_taken(struct ash_loop *loop, const char *name)
{
    return g_hash_table_contains(ash_block_of(loop)->names, name);
}

/* A generated name, which no user gave to another node. */
static char *make_name(struct ash_block *block)
{
    for (;;) {
        char *name = g_strdup_printf("#block%" G_GUINT64_FORMAT, block->next_id++);
        if (!g_hash_table_contains(block->names, name)) {
            return name;
        }
        g_free(name);
    }
}

const char *ash_node_label(const struct ash_node *node, char buffer[static 300])
{
    snprintf(buffer, 300, "%s %s '%.250s'", node->driver->name,
             node->driver->kind == ASH_DRIVER_FORMAT ? "image" : "node", node->filename);
    return buffer;
}

struct ash_node *ash_node_new(struct ash_loop *loop, const struct ash_driver *driver,
                              const char *name, uint32_t flags)
{
    struct ash_block *block = ash_block_of(loop);
    struct ash_node *node = g_new0(struct ash_node, 1);
    node->loop = loop;
    node->driver = driver;
    node->state = g_malloc0(ASH_MAX(driver->state_size, 1));
    node->name = name != NULL ? g_strdup(name) : make_name(block);
    node->filename = g_strdup("");
    node->options = json_object();
    node->flags = flags;
    node->refs = 1;
    node->limits.request_alignment = 1;
    node->limits.memory_alignment = 1;
    ash_list_init(&node->parents);
    ash_list_init(&node->children);
    ash_list_init(&node->bitmaps);
    ash_track_init(&node->track);
    ash_user_init(&node->own, loop);
    ash_list_push_back(&block->nodes, &node->nodes_link);
    bool fresh = g_hash_table_insert(block->names, node->name, node);
    ash_assert(fresh);
    return node;
}

void ash_node_ref(struct ash_node *node)
{
    ash_loop_assert_owner(node->loop);
    ash_assert(node->refs > 0);
    node->refs++;
}

/* Frees the struct of a node that is closed and has no edges. */
static void node_free(struct ash_node *node)
{
    ash_assert(ash_list_empty(&node->children));
    ash_assert(ash_list_empty(&node->parents));
    ash_assert(node->track.count == 0);
    ash_user_destroy(&node->own);
    ash_bitmaps_free(node);
    if (node->map != NULL) {
        ash_map_free(node->map);
    }
    if (node->driver->options != NULL) {
        ash_options_clear(node->driver->options, node->state);
    }
    ash_list_remove(&node->nodes_link);
    g_hash_table_remove(ash_block_of(node->loop)->names, node->name);
    json_decref(node->options);
    g_free(node->state);
    g_free(node->name);
    g_free(node->filename);
    g_free(node->backing_file);
    g_free(node->backing_format);
    g_free(node);
}

/* Lets a child go. One that somebody else uses keeps living, with fewer rights to lock. */
ASH_CO_FN static void child_release(struct ash_edge *edge, GPtrArray *lost)
{
    if (edge->child->refs == 1) {
        g_ptr_array_add(lost, edge->child);
        ash_edge_free(edge);
        return;
    }
    struct ash_plan *plan = ash_plan_new(edge->child->loop);
    ash_plan_detach(plan, edge);
    int ret = ash_plan_run(plan, NULL);
    ash_assert(ret == 0); /* giving rights back conflicts with nobody */
    ash_plan_free(plan);
}

/* Closes a node without references; its children are put on `lost`. */
ASH_CO_FN static int node_close(struct ash_node *node, bool opened, GPtrArray *lost)
{
    int ret = 0;
    node->open = false;
    ash_user_begin(&node->own); /* who pauses what lies below waits for it */
    if (opened && node->driver->close != NULL) {
        ret = node->driver->close(node);
    }
    ash_list_for_each_safe (edge, &node->children, struct ash_edge, parent_link) {
        child_release(edge, lost);
    }
    ash_user_leave(&node->own);
    node_free(node);
    return ret;
}

ASH_CO_FN static int close_all(GPtrArray *lost)
{
    int first = 0;
    while (lost->len > 0) {
        struct ash_node *node = g_ptr_array_remove_index(lost, lost->len - 1);
        if (--node->refs > 0) {
            continue;
        }
        int ret = node_close(node, true, lost);
        first = first == 0 ? ret : first;
    }
    return first;
}

int ash_node_unref(struct ash_node *node)
{
    ash_loop_assert_owner(node->loop);
    ash_assert(node->refs > 0);
    if (node->refs > 1) {
        node->refs--;
        return 0;
    }
    GPtrArray *lost = g_ptr_array_new();
    g_ptr_array_add(lost, node);
    int ret = close_all(lost);
    g_ptr_array_free(lost, TRUE);
    return ret;
}

void ash_node_discard(struct ash_node *node)
{
    GPtrArray *lost = g_ptr_array_new();
    ash_assert(node->refs == 1);
    node_close(node, false, lost);
    close_all(lost);
    g_ptr_array_free(lost, TRUE);
}
