/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pausing a part of a graph.
 *
 * Invariants:
 *  1. All gates are closed before anybody is waited for: else a busy user could keep another from
 *     ever becoming quiet.
 *  2. While a pause stands, every user above its nodes is in its list, once, with its gate closed.
 *     Plans keep it so when they commit (extend), and users when they go (forget).
 *  3. Two pauses do not cover one user, unless it came to stand above both later: what one who
 * pauses sends on its own would disturb the other's plan.
 *  4. What a node does of itself (opening, background work, closing) counts as a user of it, but a
 *     closed gate stops only the opening: requests in flight may wait for the background.
 *  5. Users that were forsaken are not waited for. Who pauses may find requests of theirs below
 * what it covers, and edits what is above: ash_plan_run() sees to that.
 *  6. A pause that is given up while it is waited for leaves all gates as they were. */
#include "block/graph/pause.h"
#include <errno.h>
#include "block/graph/block.h"
#include "util/assert.h"

typedef void user_fn(struct ash_user *user, bool of_node, void *opaque);

/* Calls fn for the users of the node and of all nodes above it, once a node. */
static void for_each_user(const struct ash_node *start, user_fn *fn, void *opaque)
{
    GPtrArray *nodes = g_ptr_array_new(); /* in the order in which they were met */
    GHashTable *seen = g_hash_table_new(NULL, NULL);
    g_hash_table_add(seen, (void *)start);
    g_ptr_array_add(nodes, (void *)start);
    for (guint i = 0; i < nodes->len; i++) {
        struct ash_node *node = nodes->pdata[i];
        fn(&node->own, true, opaque);
        ash_list_for_each (edge, &node->parents, struct ash_edge, child_link) {
            if (edge->user != NULL) {
                fn(edge->user, false, opaque);
            }
            if (edge->parent != NULL && g_hash_table_add(seen, edge->parent)) {
                g_ptr_array_add(nodes, edge->parent);
            }
        }
    }
    g_hash_table_destroy(seen);
    g_ptr_array_free(nodes, TRUE);
}

static void cover(struct ash_user *user, bool of_node, void *opaque)
{
    (void)of_node;
    struct ash_pause *pause = opaque;
    if (!g_ptr_array_find(pause->users, user, NULL)) {
        g_ptr_array_add(pause->users, user);
        ash_user_close_gate(user);
    }
}

static void extend(struct ash_pause *pause)
{
    for (guint i = 0; i < pause->nodes->len; i++) {
        for_each_user(pause->nodes->pdata[i], cover, pause);
    }
}

void ash_pauses_extend(struct ash_block *block)
{
    ash_list_for_each (pause, &block->pauses, struct ash_pause, link) {
        extend(pause);
    }
}

void ash_pauses_forget(struct ash_user *user)
{
    ash_list_for_each (pause, &ash_block_of(user->loop)->pauses, struct ash_pause, link) {
        g_ptr_array_remove(pause->users, user);
    }
}

static bool busy(const struct ash_pause *pause)
{
    for (guint i = 0; i < pause->users->len; i++) {
        const struct ash_user *user = pause->users->pdata[i];
        if (user->in_flight > 0 && !user->forsaken) {
            return true;
        }
    }
    return false;
}

static void look_for(struct ash_user *user, bool of_node, void *opaque)
{
    bool *found = opaque;
    (void)of_node;
    ash_list_for_each (pause, &ash_block_of(user->loop)->pauses, struct ash_pause, link) {
        *found |= g_ptr_array_find(pause->users, user, NULL);
    }
}

/* Whether a pause that stands covers somebody whom this one would cover. */
static bool taken(const struct ash_pause *pause)
{
    bool found = false;
    for (guint i = 0; i < pause->nodes->len; i++) {
        for_each_user(pause->nodes->pdata[i], look_for, &found);
    }
    return found;
}

int ash_pause_drain(struct ash_pause *pause, uint64_t deadline_ns)
{
    struct ash_quiet_wait wait;
    bool in_time = true;
    ash_quiet_wait_begin(&wait, pause->loop, deadline_ns);
    while (busy(pause) && in_time && !pause->given_up) {
        in_time = ash_quiet_wait_next(&wait);
    }
    ash_quiet_wait_end(&wait);
    return !busy(pause) ? 0 : pause->given_up ? -ECANCELED : -ETIMEDOUT;
}

ASH_CO_FN static int wait_for_others(struct ash_pause *pause, uint64_t deadline_ns)
{
    struct ash_quiet_wait wait;
    bool in_time = true;
    ash_quiet_wait_begin(&wait, pause->loop, deadline_ns);
    while (taken(pause) && in_time && !pause->given_up) {
        in_time = ash_quiet_wait_next(&wait);
    }
    ash_quiet_wait_end(&wait);
    return !taken(pause) ? 0 : pause->given_up ? -ECANCELED : -ETIMEDOUT;
}

int ash_pause_begin(struct ash_pause *pause, struct ash_loop *loop, struct ash_node *const *nodes,
                    size_t count, uint64_t deadline_ns)
{
    ash_loop_assert_owner(loop);
    pause->loop = loop;
    pause->given_up = false;
    pause->nodes = g_ptr_array_new();
    pause->users = g_ptr_array_new();
    ash_list_init(&pause->link);
    for (size_t i = 0; i < count; i++) {
        g_ptr_array_add(pause->nodes, nodes[i]);
    }
    int ret = wait_for_others(pause, deadline_ns);
    if (ret == 0) {
        ash_list_push_back(&ash_block_of(loop)->pauses, &pause->link);
        extend(pause);
        ret = ash_pause_drain(pause, deadline_ns);
    }
    if (ret < 0) {
        ash_pause_end(pause);
    }
    return ret;
}

void ash_pause_give_up(struct ash_pause *pause)
{
    pause->given_up = true;
    ash_co_queue_wake_all(&ash_block_of(pause->loop)->pausers);
}

void ash_pause_end(struct ash_pause *pause)
{
    ash_list_remove(&pause->link);
    for (guint i = 0; i < pause->users->len; i++) {
        ash_user_resume(pause->users->pdata[i]);
    }
    g_ptr_array_free(pause->users, TRUE);
    g_ptr_array_free(pause->nodes, TRUE);
    ash_co_queue_wake_all(&ash_block_of(pause->loop)->pausers); /* who would cover the same */
}

static void look_paused(struct ash_user *user, bool of_node, void *opaque)
{
    bool *paused = opaque;
    (void)of_node;
    *paused |= user->pauses > 0;
}

bool ash_node_hurried(const struct ash_node *node)
{
    bool paused = false;
    if (ash_unlikely(ash_block_of(node->loop)->hurrying > 0)) {
        for_each_user(node, look_paused, &paused);
    }
    return paused;
}

static void look_forsaken(struct ash_user *user, bool of_node, void *opaque)
{
    bool *forsaken = opaque;
    (void)of_node;
    *forsaken |= user->forsaken && user->in_flight > 0;
}

bool ash_node_is_forsaken(const struct ash_node *node)
{
    bool forsaken = false;
    if (ash_unlikely(ash_block_of(node->loop)->forsaken > 0)) {
        for_each_user(node, look_forsaken, &forsaken);
    }
    return forsaken;
}

static void assert_user_quiet(struct ash_user *user, bool of_node, void *opaque)
{
    (void)opaque;
    ash_assert(user->in_flight == 0);
    ash_assert(of_node || user->pauses > 0);
}

void ash_node_assert_quiet(const struct ash_node *node)
{
    ash_assert(node->track.count == 0);
    if (node->open) { /* else nobody stands above it yet, or any more */
        for_each_user(node, assert_user_quiet, NULL);
    }
}
