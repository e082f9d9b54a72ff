/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the block layer keeps per loop: its nodes, and the one memory budget of their metadata.
 *
 * Invariants:
 *  1. `names` has each node of `nodes` once, under its name, and nothing else; `ids` each job of
 *     `jobs`. So no two nodes have one name, nor two jobs one id, and finding one by it costs the same
 *     however many there are. Keys are the nodes' and jobs' own strings. */
#ifndef ASH_BLOCK_GRAPH_BLOCK_H
#define ASH_BLOCK_GRAPH_BLOCK_H

#include <glib.h>
#include <stdint.h>
#include "block/map/budget.h"
#include "util/co/co.h"
#include "util/list.h"
#include "util/loop/loop.h"

struct ash_block {
    struct ash_loop *loop;
    struct ash_list nodes; /* of struct ash_node, in order of opening */
    GHashTable *names;     /* of struct ash_node */
    uint64_t next_id;      /* for generated node names */
    struct ash_budget budget;
    struct ash_list jobs;  /* of the job layer */
    GHashTable *ids;       /* of struct ash_job */
    struct ash_co_mutex plans; /* one plan at a time, from solving to commit */
    struct ash_list pauses;    /* of struct ash_pause */
    struct ash_co_queue pausers;
    uint32_t hurrying;      /* who pauses and has found somebody busy */
    struct ash_list hurries; /* of struct ash_hurry */
    uint32_t forsaken;       /* users: ash_user_forsake() */
};

/* Made by the first call on the loop. */
struct ash_block *ash_block_of(struct ash_loop *loop);

#endif
