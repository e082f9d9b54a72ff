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

#endif
