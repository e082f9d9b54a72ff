/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening nodes from descriptions.
 *
 * A description is a JSON object: "driver", the driver's own options, "file" for what lies below,
 * and the options of every node: node-name, read-only, auto-read-only, discard, detect-zeroes,
 * force-share, cache.direct, cache.no-flush, and copy-on-read, which puts a filter above it. Without
 * "driver" the format is probed. "backing" may be an object, a node name, null (no backing), or
 * absent: then the header's string decides, as a path relative to the image, and only as a path
 * unless ASH_NODE_HEADER_URLS. Chains are opened by a loop; the same file twice in a chain is
 * refused. */
#ifndef ASH_BLOCK_GRAPH_OPEN_H
#define ASH_BLOCK_GRAPH_OPEN_H

#include "block/graph/node.h"

#define ASH_CHAIN_DEPTH_MAX 4096

/* Opens a node and all below it. `description` is not changed. `flags`: the ASH_NODE_* that hold
 * where the description does not say otherwise. The caller gets one reference. */
ASH_CO_FN int ash_node_open(struct ash_loop *loop, const json_t *description, uint32_t flags,
                            struct ash_node **node, struct ash_error *error);

/* Makes and opens a leaf whose driver no description names. `state`: what the driver finds in the
 * node's state when it opens it. -EEXIST: the name is taken. The caller gets one reference. */
ASH_CO_FN int ash_node_make(struct ash_loop *loop, const struct ash_driver *driver,
                            const char *name, const void *state, struct ash_node **node,
                            struct ash_error *error);

/* The description of a file name as users write it: "json:{...}", "driver://..." for drivers with a
 * prefix, or a path, with a format or NULL for probing. Returns a new reference or NULL. */
json_t *ash_describe(const char *filename, const char *format, struct ash_error *error);

/* What belongs below `node` in the chain, opened or not, by its options or its header: 1 and a
 * description or a reference to an existing node, 0: nothing, or a negative errno. */
int ash_node_backing(struct ash_node *node, json_t **description, struct ash_node **existing,
                     struct ash_error *error);

/* The path of a backing file whose header string stands in `filename`: relative to its folder. To
 * be freed with g_free(). */
char *ash_path_beside(const char *filename, const char *backing);

#endif
