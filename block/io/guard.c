/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest that may write any bytes into a raw disk could write another format's header there, and
 * the next open without a named format would follow a backing file of the guest's choice. So where
 * raw was guessed, a write must not make the first sector look like anything else.
 *
 * Invariant: what is checked is what is written. The sector is copied first, because the guest may
 * change its buffer meanwhile. */
#include "block/io/guard.h"
#include <errno.h>
#include <string.h>
#include "block/driver.h"
#include "util/assert.h"

int ash_guard_write(struct ash_edge *edge, const struct ash_io *io)
{
    struct ash_node *node = edge->child;
    uint8_t sector[ASH_GUARD_BYTES] = {0};
    uint64_t guarded = ASH_MIN(io->bytes, ASH_GUARD_BYTES - io->offset);
    uint64_t present = ASH_MIN(sizeof(sector), node->size_bytes);
    int ret = ash_edge_read(edge, 0, sector, present);
    if (ret < 0) {
        return ret;
    }
    ash_iov_to_buffer(io->iov, sector + io->offset, guarded);
    if (strcmp(ash_driver_probe(sector, sizeof(sector))->name, "raw") != 0) {
        return -EPERM;
    }
    struct iovec vec = {sector + io->offset, guarded};
    struct ash_io head = *io;
    head.bytes = guarded;
    head.iov = ash_iov_of(&vec, 1);
    head.flags |= ASH_IO_GUARDED;
    ret = ash_edge_io(edge, &head);
    if (ret < 0 || guarded == io->bytes) {
        return ret;
    }
    struct ash_io rest = *io;
    rest.offset += guarded;
    rest.bytes -= guarded;
    rest.iov = ash_iov_advance(io->iov, guarded);
    return ash_edge_io(edge, &rest);
}
