/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening and fitting the target of a job. */
#include "job/target.h"
#include <errno.h>
#include <inttypes.h>
#include "block/driver.h"
#include "block/graph/graft.h"
#include "block/graph/open.h"

int ash_job_open_target(struct ash_loop *loop, const char *name, const char *format,
                        struct ash_node **node, struct ash_error *error)
{
    if (name == NULL) {
        return ash_error_set(error, -EINVAL, "Parameter 'target' is missing");
    }
    *node = ash_node_find(loop, name);
    if (*node != NULL) {
        ash_node_ref(*node);
        return 0;
    }
    struct ash_error own = ASH_ERROR_INIT;
    error = error != NULL ? error : &own;
    json_t *description = ash_describe(name, format, error);
    if (description == NULL) {
        return error->code;
    }
    int ret = ash_node_open(loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD, node, error);
    json_decref(description);
    return ret;
}

int ash_job_fit_target(struct ash_edge *target, uint64_t bytes, struct ash_error *error)
{
    if (target->child->size_bytes >= bytes) {
        return 0;
    }
    if (target->child->driver->resize == NULL) {
        return ash_error_set(error, -ENOSPC, "'%s' has %" PRIu64 " bytes, %" PRIu64 " are needed",
                             target->child->filename, target->child->size_bytes, bytes);
    }
    int ret = ash_edge_resize(target, bytes, 0, ASH_PREALLOC_OFF, error);
    return target->child->size_bytes >= bytes ? 0 : ret; /* another copy may have come first */
}

int ash_job_fit_node(struct ash_loop *loop, struct ash_node *node, uint64_t bytes,
                     struct ash_error *error)
{
    struct ash_user user;
    struct ash_edge *edge;
    if (node->size_bytes >= bytes) {
        return 0;
    }
    ash_user_init(&user, loop);
    int ret = ash_graft_attach(node, ASH_RIGHT_READ | ASH_RIGHT_WRITE | ASH_RIGHT_RESIZE,
                               ASH_RIGHT_READ | ASH_RIGHT_REWRITE, &user, &edge, error);
    if (ret == 0) {
        ash_user_enter(&user);
        ret = ash_job_fit_target(edge, bytes, error);
        ash_user_leave(&user);
        ash_graft_detach(edge);
    }
    ash_user_destroy(&user);
    return ret;
}

uint64_t ash_job_hides_from(const struct ash_node *target)
{
    const struct ash_node *mapped = ash_graft_mapped((struct ash_node *)target);
    return mapped != NULL && mapped->backing != NULL ? target->size_bytes : UINT64_MAX;
}

int ash_job_cut_target(struct ash_edge *target, uint64_t bytes, bool must, struct ash_error *error)
{
    if (target->child->size_bytes <= bytes) {
        return 0;
    }
    int ret = ash_edge_resize(target, bytes, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, error);
    return ret == -ENOTSUP && !must ? 0 : ret;
}

static int say(struct ash_sweep *sweep, int ret, const struct ash_error *error)
{
    if (ret < 0 && sweep->job != NULL && error->code != 0) {
        sweep->job->error = *error;
    }
    return ret;
}

int ash_sweep_fit_target(struct ash_sweep *sweep, struct ash_copier *copier, uint64_t bytes)
{
    struct ash_error error = ASH_ERROR_INIT;
    if (!copier->through_gates) {
        ash_user_wait_at_gate(&copier->target_user);
    }
    int ret = ash_copier_enter_target(copier);
    if (ret == 0) {
        ret = ash_job_fit_target(copier->target, bytes, &error);
        ash_copier_leave_target(copier);
    }
    return say(sweep, ret, &error);
}

int ash_sweep_cut_target(struct ash_sweep *sweep, struct ash_copier *copier, uint64_t bytes,
                         bool must)
{
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_copier_enter_target(copier);
    if (ret == 0) {
        ret = ash_job_cut_target(copier->target, bytes, must, &error);
        ash_copier_leave_target(copier);
    }
    return say(sweep, ret, &error);
}
