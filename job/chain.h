/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What jobs on backing chains share: finding the nodes that a description names. */
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

#endif
