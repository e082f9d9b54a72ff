/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A request as one value. It enters at a disk and passes, at every edge of the graph, the same
 * short pipeline: check -> align -> track -> split -> driver. Stages narrow it into copies on their
 * own stack; none changes it. */
#ifndef ASH_BLOCK_IO_IO_H
#define ASH_BLOCK_IO_IO_H

#include <ashlar/queue.h>
#include "util/co/co.h"
#include "util/iov.h"

struct ash_edge;
struct ash_node;
struct ash_status;

/* Flags inside the library, above the public ASH_REQ_*. */
#define ASH_IO_SERIALISE (1u << 16) /* waits for, and holds up, every overlapping request */
#define ASH_IO_COMPRESS                                                                            \
    (1u << 17) /* write: as coded extents; whole allocation units, the last one of                 \
                  the disk may be short. -ENOTSUP where the format has no coding */
#define ASH_IO_STATUS_ZEROES (1u << 18) /* status: finding out about zeroes is worth extra work */
#define ASH_IO_GUARDED (1u << 19)       /* the guard on guessed raw images has passed it */
#define ASH_IO_PUBLIC_FLAGS (ASH_REQ_FUA | ASH_REQ_UNMAP | ASH_REQ_NO_FALLBACK)

struct ash_io {
    uint8_t op;     /* enum ash_op */
    uint32_t flags; /* ASH_REQ_*, ASH_IO_* */
    uint64_t offset;
    uint64_t bytes;
    struct ash_iov iov;        /* read, write; at least `bytes` long. A write may be of bytes of a file:
                                  -ENOTSUP where that cannot be, and on any error it may be
                                  repeated from memory */
    struct ash_status *status; /* status: the answer */
    uint32_t padding_bytes;    /* write: so many of `bytes`, at the end, only fill up the last block,
                                  and must not lengthen the node */
};

#define ASH_STATUS_OFFSET (1u << 8) /* host_offset and host are valid: raw data lies there */
#define ASH_STATUS_COMPRESSED (1u << 9)
#define ASH_STATUS_EOF (1u << 10) /* the range ends at the end of the node */

/* What a range is, and how far the answer holds. */
struct ash_status {
    uint32_t flags; /* ASH_STATUS_* */
    uint32_t depth; /* layers above the one that decides; 0: the top itself */
    uint64_t bytes; /* > 0 */
    uint64_t host_offset;
    struct ash_node *node; /* the layer that decides */
    struct ash_node *host; /* the node in which host_offset counts */
};

/* The whole pipeline. 0 or a negative errno. `io` may be on the caller's stack. */
ASH_CO_FN int ash_edge_io(struct ash_edge *edge, const struct ash_io *io);

/* The same for the common cases. */
ASH_CO_FN int ash_edge_read(struct ash_edge *edge, uint64_t offset, void *buffer, uint64_t bytes);
ASH_CO_FN int ash_edge_write(struct ash_edge *edge, uint64_t offset, const void *buffer,
                             uint64_t bytes, uint32_t flags);
ASH_CO_FN int ash_edge_zero(struct ash_edge *edge, uint64_t offset, uint64_t bytes, uint32_t flags);
ASH_CO_FN int ash_edge_discard(struct ash_edge *edge, uint64_t offset, uint64_t bytes);
ASH_CO_FN int ash_edge_flush(struct ash_edge *edge);

/* Changes the length of the child, waiting for what is in flight in the range that appears or goes.
 * flags: ASH_RESIZE_SHRINK; preallocation: enum ash_prealloc. Needs the resize right. */
struct ash_error;
ASH_CO_FN int ash_edge_resize(struct ash_edge *edge, uint64_t bytes, uint32_t flags, int prealloc,
                              struct ash_error *error);

#endif
