/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes of a node as bytes of a file of the host, so that the kernel can copy them without their
 * passing through memory of ours, or make two files share them. */
#ifndef ASH_BLOCK_COPY_HOST_BYTES_H
#define ASH_BLOCK_COPY_HOST_BYTES_H

#include "block/graph/node.h"
#include "block/map/map.h"

/* Formats on top of one another, such as qcow2 on raw on a file. */
#define ASH_HOST_BYTES_LAYERS 3

/* Valid, and holding its claims on the places that formats gave the bytes, until it is dropped. */
struct ash_host_bytes {
    struct ash_iov iov; /* of the file */
    uint64_t bytes;     /* of those asked for, from the first on */
    struct ash_pin pins[ASH_HOST_BYTES_LAYERS];
    uint32_t pin_count;
};

/* Where the data of [offset, offset + bytes) lies, from `offset` on; the range is within the node.
 * What it finds is for reading, by a user of the node. -ENOTSUP: not as it is in such a file (it
 * reads as zeroes, is coded, lies behind a filter or in a file for direct I/O); other errors are of
 * the lookup. */
ASH_CO_FN int ash_host_bytes_find(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                  struct ash_host_bytes *found);
void ash_host_bytes_drop(struct ash_host_bytes *found);

#endif
