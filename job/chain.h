/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What jobs on backing chains share: finding the nodes that a description names, and keeping the chain
 * as it is. */
#ifndef ASH_JOB_CHAIN_H
#define ASH_JOB_CHAIN_H

#include "job/job.h"

/* A node by its name: -ENODEV and a sentence if there is none, or `name` is missing. */
int ash_job_find_node(struct ash_loop *loop, const char *option, const char *name,
                      struct ash_node **node, struct ash_error *error);

/* The node below `top` in its chain whose image has this file name; -ENOENT. */
int ash_job_find_image(struct ash_node *top, const char *option, const char *filename,
                       struct ash_node **node, struct ash_error *error);

/* The node below `from` that one of two options names; not both. -EINVAL. */
int ash_job_find_below(struct ash_node *from, const char *file_option, const char *file,
                       const char *node_option, const char *name, struct ash_node **node,
                       struct ash_error *error);

/* Nobody but the chain that it is part of, and jobs, may stand on the node: -EBUSY. */
int ash_job_check_alone(const struct ash_node *node, struct ash_error *error);

/* What a job takes of its chain, and what is given back only when the last of its I/O has ended: that
 * may be after the job, if it was ended by force. Until then the chain keeps its shape, so that
 * whatever comes late finds what it was meant for; another job on it is refused. */
struct ash_chain_hold {
    struct ash_node *top; /* both are references; base may be NULL: the end of the chain */
    struct ash_node *base;
    bool frozen;                 /* the edges between them */
    struct ash_edge *above_base; /* lends base to the job and not to another; NULL: not lent */
    uint32_t top_flags;          /* that they did not have */
    uint32_t base_flags;
};

/* Freezes the chain: -EBUSY. Whatever it returns, ash_chain_release() gives back what was taken. */
int ash_chain_hold(struct ash_chain_hold *hold, struct ash_node *top, struct ash_node *base,
                   struct ash_error *error);
/* For a job that only reads the chain, and cleans up: until when it waits for what does. A job that is
 * ended by force, or that `leaves` something behind all the same, waits for a grace, and has the chain
 * held, as what stays must not get in the way of who would change it. UINT64_MAX: without bound, as it
 * is not forced, or another job has its filter in the chain, whose removal could not wait. */
uint64_t ash_chain_hold_forced(struct ash_chain_hold *hold, const struct ash_job *job,
                               struct ash_node *top, bool leaves);
/* Whether the node can be written later: makes it writable for a moment, if it is not. */
ASH_CO_FN int ash_chain_try_write(struct ash_node *node, struct ash_error *error);

/* Sets flags (ASH_NODE_WRITE, ASH_NODE_DISCARD) that top, or base, does not have. */
ASH_CO_FN int ash_chain_hold_top_flags(struct ash_chain_hold *hold, uint32_t flags,
                                       struct ash_error *error);
ASH_CO_FN int ash_chain_hold_base_flags(struct ash_chain_hold *hold, uint32_t flags,
                                        struct ash_error *error);
/* Lets the job write to base through the chain's edge to it. */
void ash_chain_lend_base(struct ash_chain_hold *hold, struct ash_edge *above_base);
/* The job is about to change the chain itself. */
void ash_chain_thaw(struct ash_chain_hold *hold);
/* Gives all back. Pauses users; the job's edges are gone already. */
ASH_CO_FN void ash_chain_release(struct ash_chain_hold *hold);

#endif
