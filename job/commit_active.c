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
 *     it, and is as it was if they are not.
 *  4. A write that the job leaves behind when it is ended by force may reach base at any time:
 * until then the chain stays as it is, and nobody else commits to base. */
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
    struct ash_edge *above_base; /* the chain's edge to base */
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

/* Base is opened as the active image is, as it will take its place. */
ASH_CO_FN static int take(struct commit_active *c, struct ash_error *error)
{
    struct ash_mirror *m = &c->mirror;
    int ret = ash_chain_hold(&m->hold, m->source, c->base, error);
    if (ret == 0) {
        ret = ash_chain_hold_base_flags(
            &m->hold, ASH_NODE_WRITE | (m->source->flags & ASH_NODE_DISCARD), error);
    }
    if (ret == 0) {
        ash_chain_lend_base(&m->hold, c->above_base);
        ret = ash_mirror_take(m, error);
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
        ash_mirror_clean(job);
    }
    return ret;
}

ASH_CO_FN static int commit_active_prepare(struct ash_job *job, struct ash_error *error)
{
    struct commit_active *c = commit_of(job);
    if (c->mirror.goal != ASH_MIRROR_GOAL_PIVOT) {
        return 0;
    }
    struct ash_chain_hold *hold = ash_mirror_hold(&c->mirror);
    ash_chain_thaw(hold);
    int ret = ash_mirror_prepare(job, error);
    if (ret == 0) {
        hold->above_base =
            NULL; /* it goes with the chain, and lends base to the users until then */
        hold->base_flags = 0;
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
    .clean = ash_mirror_clean,
    .complete = ash_mirror_complete,
    .cancel = ash_mirror_cancel,
    .kick = ash_mirror_kick,
};
