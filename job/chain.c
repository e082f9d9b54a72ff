/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding nodes by what a job's description says, and keeping chains. */
#include "job/chain.h"
#include <errno.h>
#include <string.h>
#include "block/graph/graft.h"
#include "block/graph/pause.h"
#include "block/graph/plan.h"
#include "job/sweep.h"
#include "util/assert.h"

int ash_job_find_node(struct ash_loop *loop, const char *option, const char *name,
                      struct ash_node **node, struct ash_error *error)
{
    if (name == NULL) {
        return ash_error_set(error, -EINVAL, "Parameter '%s' is missing", option);
    }
    *node = ash_node_find(loop, name);
    if (*node == NULL) {
        return ash_error_set(error, -ENODEV, "Cannot find device='' nor node-name='%s'", name);
    }
    return 0;
}

int ash_job_find_image(struct ash_node *top, const char *option, const char *filename,
                       struct ash_node **result, struct ash_error *error)
{
    for (struct ash_node *node = ash_graft_mapped(top); node != NULL && node->backing != NULL;) {
        node = ash_graft_mapped(node->backing->child);
        if (node != NULL && strcmp(node->filename, filename) == 0) {
            *result = node;
            return 0;
        }
    }
    return ash_error_set(error, -ENOENT, "Parameter '%s': '%s' is not in the backing chain of '%s'",
                         option, filename, top->filename);
}

int ash_job_find_below(struct ash_node *from, const char *file_option, const char *file,
                       const char *node_option, const char *name, struct ash_node **node,
                       struct ash_error *error)
{
    if (file != NULL && name != NULL) {
        return ash_error_set(error, -EINVAL, "'%s' and '%s' exclude one another", file_option,
                             node_option);
    }
    if (file != NULL) {
        return ash_job_find_image(from, file_option, file, node, error);
    }
    int ret = ash_job_find_node(from->loop, node_option, name, node, error);
    if (ret == 0 && (*node == from || !ash_graft_in_chain(from, *node))) {
        ret = ash_error_set(error, -EINVAL, "Node '%s' is not below '%s' in its backing chain",
                            name, from->filename);
    }
    return ret;
}

int ash_job_check_alone(const struct ash_node *node, struct ash_error *error)
{
    unsigned users = 0;
    ash_list_for_each (edge, &node->parents, struct ash_edge, child_link) {
        users += edge->role != ASH_ROLE_JOB;
    }
    return users == 1 ? 0
                      : ash_error_set(error, -EBUSY, "'%s' is used by others than the chain",
                                      node->filename);
}

/* --- keeping a chain --- */

#define LENT (ASH_RIGHT_WRITE | ASH_RIGHT_RESIZE)

int ash_chain_hold(struct ash_chain_hold *hold, struct ash_node *top, struct ash_node *base,
                   struct ash_error *error)
{
    *hold = (struct ash_chain_hold){.top = top, .base = base};
    ash_node_ref(top);
    if (base != NULL) {
        ash_node_ref(base);
    }
    int ret = ash_graft_freeze(top, base, error);
    hold->frozen = ret == 0;
    return ret;
}

uint64_t ash_chain_hold_forced(struct ash_chain_hold *hold, const struct ash_job *job,
                               struct ash_node *top, bool leaves)
{
    if ((!job->forced && !leaves) || ash_chain_hold(hold, top, NULL, NULL) < 0) {
        return UINT64_MAX;
    }
    return ash_loop_now(job->loop) + ASH_SWEEP_GRACE_NS;
}

ASH_CO_FN static int add_flags(struct ash_node *node, uint32_t flags, uint32_t *added,
                               struct ash_error *error)
{
    flags &= ~node->flags;
    int ret = flags != 0 ? ash_graft_set_flags(node, flags, 0, error) : 0;
    *added |= ret == 0 ? flags : 0;
    return ret;
}

int ash_chain_hold_top_flags(struct ash_chain_hold *hold, uint32_t flags, struct ash_error *error)
{
    return add_flags(hold->top, flags, &hold->top_flags, error);
}

int ash_chain_hold_base_flags(struct ash_chain_hold *hold, uint32_t flags, struct ash_error *error)
{
    return add_flags(hold->base, flags, &hold->base_flags, error);
}

ASH_CO_FN static void drop_flags(struct ash_node *node, uint32_t flags)
{
    struct ash_error error = ASH_ERROR_INIT;
    if (flags != 0 && ash_graft_set_flags(node, 0, flags, &error) < 0) {
        ash_log(node->loop, ASH_LOG_WARNING, "%s", error.message);
    }
}

int ash_chain_try_write(struct ash_node *node, struct ash_error *error)
{
    uint32_t added = 0;
    int ret = add_flags(node, ASH_NODE_WRITE, &added, error);
    drop_flags(node, added);
    return ret;
}

void ash_chain_lend_base(struct ash_chain_hold *hold, struct ash_edge *above_base)
{
    hold->above_base = above_base;
    above_base->lends = LENT;
    above_base->allows |= LENT;
}

/* Base may be written by nobody else again. To deny others something takes locks, which can fail:
 * so it is done here, or not at all, and not by the next plan that comes along, as when the disk is
 * closed. */
ASH_CO_FN static void end_loan(const struct ash_chain_hold *hold)
{
    struct ash_edge *edge = hold->above_base;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_pause pause;
    if (edge == NULL) {
        return;
    }
    struct ash_loop *loop = edge->child->loop;
    int ret = ash_pause_begin(&pause, loop, &edge->parent, 1, UINT64_MAX);
    ash_assert(ret == 0); /* without a deadline it does not expire */
    struct ash_plan *plan = ash_plan_new(loop);
    edge->lends = 0;
    ash_plan_rights(plan, edge, edge->needs, edge->allows & ~LENT);
    if (ash_plan_run(plan, &error) < 0) {
        edge->lends = LENT;
        ash_log(loop, ASH_LOG_WARNING, "%s", error.message);
    }
    ash_plan_free(plan);
    ash_pause_end(&pause);
}

void ash_chain_thaw(struct ash_chain_hold *hold)
{
    if (hold->frozen) {
        ash_graft_thaw(hold->top, hold->base);
    }
    hold->frozen = false;
}

void ash_chain_release(struct ash_chain_hold *hold)
{
    if (hold->top == NULL) {
        return;
    }
    ash_chain_thaw(hold);
    drop_flags(hold->top, hold->top_flags);
    if (hold->base != NULL) {
        drop_flags(hold->base, hold->base_flags);
    }
    end_loan(hold);
    if (hold->base != NULL) {
        ash_node_unref(hold->base);
    }
    ash_node_unref(hold->top);
    *hold = (struct ash_chain_hold){0};
}
