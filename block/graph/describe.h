/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Descriptions made from names: between the files of block/graph. */
#ifndef ASH_BLOCK_GRAPH_DESCRIBE_H
#define ASH_BLOCK_GRAPH_DESCRIBE_H

#include "block/graph/node.h"

/* Whether the driver opens a path of the host: what the prefix of a name is followed by. */
bool ash_driver_takes_filename(const struct ash_driver *driver);

/* The description of the protocol node for a user's file name; NULL and an error. */
json_t *ash_describe_protocol(const char *filename, struct ash_error *error);

/* The description of what the header of `node` names as its backing file. */
json_t *ash_describe_backing(const struct ash_node *node, struct ash_error *error);

/* The options that every node has, taken out of a description. */
struct ash_node_options {
    char *driver; /* NULL: probe */
    char *name;   /* NULL: generated */
    uint32_t flags;
    bool copy_on_read; /* a filter of that name is to stand above the node */
};

/* `flags` holds where the description says nothing. Takes its keys out of `description`. */
int ash_node_options_take(json_t *description, uint32_t flags, struct ash_node_options *options,
                          struct ash_error *error);
void ash_node_options_clear(struct ash_node_options *options);

#endif
