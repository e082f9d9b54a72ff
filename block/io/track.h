/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests in flight on a node.
 *
 * Invariants:
 *  1. Every request to a node is on its list from track_begin to track_end, waiting time included.
 *  2. Two overlapping requests of which one serialises are never in the driver together. The one
 *     that was tracked later waits; so there are no cycles of waiting. A request may stop to serialise
 *     when it no longer changes anything.
 *  3. A tracked range never widens.
 *  4. While nothing serialises, tracking is two list operations. */
#ifndef ASH_BLOCK_IO_TRACK_H
#define ASH_BLOCK_IO_TRACK_H

#include "block/io/io.h"
#include "util/list.h"

struct ash_track {
    struct ash_list requests; /* of struct ash_request, in order of arrival */
    uint32_t serialising;     /* how many of them serialise */
    uint32_t count;
};

struct ash_request {
    struct ash_list link;
    struct ash_node *node;
    uint8_t op;
    bool serialising;
    bool waiting;    /* for an earlier one */
    uint64_t offset; /* the range that the node touches, padding included */
    uint64_t bytes;
    struct ash_co_queue waiters; /* later requests that wait for this one */
};

void ash_track_init(struct ash_track *track);

/* Puts the request on the list and waits for those it conflicts with. 0. */
ASH_CO_FN void ash_track_begin(struct ash_request *request, struct ash_node *node, uint8_t op,
                               uint64_t offset, uint64_t bytes, bool serialising);
void ash_track_end(struct ash_request *request);

/* From here on it is a request like any other: who waited for it only because it serialised goes on. */
void ash_track_stop_serialising(struct ash_request *request);

/* Whether a request that changes a part of the range is in flight: while one is, what the dirty bitmaps
 * of the node say of it is not final (block/bitmap/bitmap.h). */
bool ash_track_changing(const struct ash_node *node, uint64_t offset, uint64_t bytes);

/* Waits until nothing is in flight on the node. */
ASH_CO_FN void ash_track_drain(struct ash_node *node);

#endif
