/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The guard on images whose format was guessed to be raw. */
#ifndef ASH_BLOCK_IO_GUARD_H
#define ASH_BLOCK_IO_GUARD_H

#include "block/graph/node.h"
#include "block/io/io.h"

#define ASH_GUARD_BYTES 512

static inline bool ash_guard_applies(const struct ash_node *node, const struct ash_io *io)
{
    return ash_unlikely((node->flags & ASH_NODE_PROBED) != 0) &&
           (io->op == ASH_WRITE || io->op == ASH_ZERO || io->op == ASH_DISCARD) &&
           io->offset < ASH_GUARD_BYTES && (io->flags & ASH_IO_GUARDED) == 0;
}

/* Changes to the guarded sector of a raw image: -EPERM if another format's header would stand there
 * afterwards. The part of a discard that lies in it is dropped. */
ASH_CO_FN int ash_guard_io(struct ash_edge *edge, const struct ash_io *io);

#endif
