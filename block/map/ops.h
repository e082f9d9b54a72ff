/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The operations of the generic data path, between its files. */
#ifndef ASH_BLOCK_MAP_OPS_H
#define ASH_BLOCK_MAP_OPS_H

#include "block/map/map.h"

/* Parts of one request that run at once. */
#define ASH_MAP_FAN_OUT 16

ASH_CO_FN int ash_map_read(struct ash_node *node, uint64_t offset, uint64_t bytes,
                           struct ash_iov iov);
ASH_CO_FN int ash_map_write(struct ash_node *node, uint64_t offset, uint64_t bytes,
                            struct ash_iov iov, uint32_t flags);
ASH_CO_FN int ash_map_write_coded(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                  struct ash_iov iov);
ASH_CO_FN int ash_map_zero(struct ash_node *node, uint64_t offset, uint64_t bytes, uint32_t flags);
ASH_CO_FN int ash_map_discard(struct ash_node *node, uint64_t offset, uint64_t bytes);
/* Has the node hold nothing of its own any more. -ENOTSUP where the format cannot. */
ASH_CO_FN int ash_map_empty(struct ash_node *node);
ASH_CO_FN int ash_map_flush(struct ash_node *node);

/* Writes `bytes` of zeroes as data, from a bounded buffer. */
ASH_CO_FN int ash_map_write_zeroes(struct ash_node *node, uint64_t offset, uint64_t bytes);

/* Finishes a placement under the range lock: data into its place, with its fill, then the link. On
 * failure the place is given back. `offset`, `bytes`: the part of the placement that `iov` covers.
 */
ASH_CO_FN int ash_map_place(struct ash_node *node, struct ash_placement *placement, uint64_t offset,
                            uint64_t bytes, struct ash_iov iov);

#endif
