/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copying into a node what it lacks and the layers below it have: streaming and copy-on-read. */
#ifndef ASH_BLOCK_MAP_POPULATE_H
#define ASH_BLOCK_MAP_POPULATE_H

#include "block/graph/node.h"
#include "block/io/track.h"
#include "util/iov.h"

/* What a node lacks of what layers above `base` (NULL: all of its chain) decide. */
enum ash_lack { ASH_LACKS_NOTHING, ASH_LACKS_ZEROES, ASH_LACKS_DATA };

/* What it lacks from `offset` on, and for how many bytes of `bytes` that holds. */
ASH_CO_FN int ash_map_lacks(struct ash_node *node, const struct ash_node *base, uint64_t offset,
                            uint64_t bytes, uint64_t *same_bytes, enum ash_lack *lack);

/* Reads the range through a mapped node into `iov` (NULL: nothing is wanted), and has the node hold
 * itself, from now on, what layers above `base` (NULL: all) decide of it. The edge needs
 * ASH_RIGHT_REWRITE. It is a serialising request over whole allocation units: guests' requests to
 * these wait, and what a guest wrote before is found and left alone. The contents stay the same, so
 * no dirty bitmap is marked.
 * A reader's request does not fail because copying did: only reading does. Without `iov` it does.
 * *copied_bytes (may be NULL) grows by what was written. -EINVAL: beyond the end. */
ASH_CO_FN int ash_edge_populate(struct ash_edge *edge, const struct ash_node *base, uint64_t offset,
                                uint64_t bytes, const struct ash_iov *iov, uint64_t *copied_bytes);

/* A copy that can be given up, on the stack of who asks for it. */
struct ash_populating {
    struct ash_list link; /* the asker's */
    struct ash_request request;
    bool tracked;  /* request is on the node's list */
    bool writing;  /* the node is being changed */
    bool forsaken;
};

/* The same for nobody who reads. `populating` is zero but for its link. -ECANCELED: it was given up. */
ASH_CO_FN int ash_edge_populate_for_job(struct ash_edge *edge, const struct ash_node *base,
                                        uint64_t offset, uint64_t bytes,
                                        struct ash_populating *populating);

/* It may wait for I/O that never ends, and is not wanted any more: nothing more is written. While it
 * reads, guests' requests go on at once. A write that is under way may reach the node at any time, so
 * requests to the same allocation units wait until it has. */
void ash_populate_forsake(struct ash_populating *populating);

#endif
