/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Committing the active image of a chain: what it and the images below it hold goes into `base`, as
 * guests write on. It is a mirror to base that copies only what layers above base hold; when the
 * job is completed, the users of the active image are led to base.
 *
 * Invariants, besides those of the mirror:
 *  1. Whoever reads the chain from above reads the same at any time: what is written to base is
 * what layers above it decide anyway.
 *  2. Only the one chain sees base and the images between: the job refuses others.
 *  3. The users' disk keeps its length: what base has beyond that is cut off when they are led to
 *     it, and is as it was if they are not. */
#include <errno.h>
#include <glib.h>
#include "block/driver.h"
#include "block/graph/graft.h"
#include "block/graph/pause.h"
#include "block/graph/plan.h"
#include "job/chain.h"
#include "job/mirror.h"
#include "util/assert.h"

struct commit_active {
    struct ash_mirror mirror;
    char *top_file; /* these two name the active image, or the job would be another */
    char *top_node;
    char *base_file;
    char *base_node;

    struct ash_node *base;
    struct ash_edge *above_base; /* the chain's edge to base; NULL once the users have left it */
    uint32_t set_flags;          /* that base did not have */
    bool frozen;
    bool lent; /* above_base lends base to this job, and not to another */
};

static const struct ash_option commit_active_options[] = {
    ASH_OPTION_STRING("device", struct commit_active, mirror.device,
                      .help = "node at the top of the chain"),
    ASH_OPTION_STRING("top", struct commit_active, top_file, .help = "the active image"),
    ASH_OPTION_STRING("top-node", struct commit_active, top_node, .help = "its node"),
    ASH_OPTION_STRING("base", struct commit_active, base_file,
                      .help = "file name of the image that is written to; the last one by default"),
    ASH_OPTION_STRING("base-node", struct commit_active, base_node,
                      .help = "node of the image that is written to"),
    ASH_OPTION_STRING("filter-node-name", struct commit_active, mirror.filter_name,
                      .help = "name of the filter"),
    ASH_OPTION_ENUM("on-error", struct commit_active, mirror.on_source_error, ash_on_error_names,
                    .help = "what an I/O error does: report, ignore, stop, enospc"),
    ASH_OPTION_END,
};

static struct commit_active *commit_of(struct ash_job *job)
{
    return ash_container_of(job, struct commit_active, mirror.job);
}

static int find_nodes(struct commit_active *c, struct ash_error *error)
{
    struct ash_node *device;
    int ret = ash_job_find_node(c->mirror.job.loop, "device", c->mirror.device, &device, error);
    if (ret < 0) {
        return ret;
    }
    struct ash_node *active = ash_graft_mapped(device);
    if (active == NULL || active->backing == NULL) {
        return ash_error_set(error, -EINVAL, "'%s' has no backing image", device->filename);
    }
    c->mirror.source = active;
    if (c->base_file == NULL && c->base_node == NULL) {
        for (c->base = active; c->base->backing != NULL;) {
            c->base = c->base->backing->child;
        }
    } else {
        ret = ash_job_find_below(active, "base", c->base_file, "base-node", c->base_node, &c->base,
                                 error);
    }
    for (struct ash_node *node = active; ret == 0 && node != c->base; node = node->backing->child) {
        c->above_base = node->backing;
        ret = c->above_base->child->map == NULL && c->above_base->child != c->base
                  ? ash_error_set(error, -ENOTSUP, "A filter stands in the chain of '%s'",
                                  active->filename)
                  : ash_job_check_alone(c->above_base->child, error);
    }
    return ret;
}

#define LENT (ASH_RIGHT_WRITE | ASH_RIGHT_RESIZE)

/* Base may be written by nobody else again. To deny others something takes locks, which can fail:
 * so it is done here, or not at all, and not by the next plan that comes along, as when the disk is
 * closed. */
ASH_CO_FN static void end_loan(const struct commit_active *c, struct ash_node *source)
{
    struct ash_edge *edge = c->above_base;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_pause pause;
    if (!c->lent || edge->lends == 0) {
        return;
    }
    int ret = ash_pause_begin(&pause, source->loop, &source, 1, UINT64_MAX);
    ash_assert(ret == 0); /* without a deadline it does not expire */
    struct ash_plan *plan = ash_plan_new(source->loop);
    edge->lends = 0;
    ash_plan_rights(plan, edge, edge->needs, edge->allows & ~LENT);
    if (ash_plan_run(plan, &error) < 0) {
        edge->lends = LENT;
        ash_log(source->loop, ASH_LOG_WARNING, "%s", error.message);
    }
    ash_plan_free(plan);
    ash_pause_end(&pause);
}

ASH_CO_FN static void commit_active_clean(struct ash_job *job)
{
    struct commit_active *c = commit_of(job);
    struct ash_node *source = c->mirror.source;
    struct ash_node *base = c->base;
    ash_node_ref(source);
    ash_node_ref(base);
    ash_mirror_clean(job);
    if (c->frozen) {
        ash_graft_thaw(source, base);
    }
    if (c->above_base != NULL) {
        struct ash_error error = ASH_ERROR_INIT;
        if (c->set_flags != 0 && ash_graft_set_flags(base, 0, c->set_flags, &error) < 0) {
            ash_log(job->loop, ASH_LOG_WARNING, "%s", error.message);
        }
        end_loan(c, source);
    }
    ash_node_unref(source);
    ash_node_unref(base);
}

/* Base is opened as the active image is, as it will take its place. */
ASH_CO_FN static int take(struct commit_active *c, struct ash_error *error)
{
    int ret = ash_graft_freeze(c->mirror.source, c->base, error);
    c->frozen = ret == 0;
    uint32_t flags = ASH_NODE_WRITE | (c->mirror.source->flags & ASH_NODE_DISCARD);
    flags &= ~c->base->flags;
    if (ret == 0 && flags != 0) {
        ret = ash_graft_set_flags(c->base, flags, 0, error);
        c->set_flags = ret == 0 ? flags : 0;
    }
    if (ret == 0) {
        c->lent = true;
        c->above_base->lends = LENT;
        c->above_base->allows |= c->above_base->lends;
        ret = ash_mirror_take(&c->mirror, error);
    }
    return ret;
}

ASH_CO_FN static int commit_active_start(struct ash_job *job, struct ash_error *error)
{
    struct commit_active *c = commit_of(job);
    int ret = find_nodes(c, error);
    if (ret < 0) {
        return ret;
    }
    c->mirror.target = c->base;
    c->mirror.base = c->base;
    c->mirror.unmap = true;
    c->mirror.on_target_error = c->mirror.on_source_error;
    ash_node_ref(c->mirror.source);
    ash_node_ref(c->mirror.target);
    ret = take(c, error);
    if (ret < 0) {
        commit_active_clean(job);
    }
    return ret;
}

ASH_CO_FN static int commit_active_prepare(struct ash_job *job, struct ash_error *error)
{
    struct commit_active *c = commit_of(job);
    if (c->mirror.goal != ASH_MIRROR_GOAL_PIVOT) {
        return 0;
    }
    ash_graft_thaw(c->mirror.source, c->base);
    c->frozen = false;
    int ret = ash_mirror_prepare(job, error);
    if (ret == 0) {
        c->above_base = NULL; /* it goes with the chain, and lends base to the users until then */
    }
    return ret;
}

extern const struct ash_job_driver ash_job_commit_active;
const struct ash_job_driver ash_job_commit_active = {
    .type = "commit",
    .job_size = sizeof(struct commit_active),
    .options = commit_active_options,
    .start = commit_active_start,
    .run = ash_mirror_run,
    .prepare = commit_active_prepare,
    .clean = commit_active_clean,
    .complete = ash_mirror_complete,
    .cancel = ash_mirror_cancel,
    .kick = ash_mirror_kick,
};
