/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest that may write any bytes into a raw disk could write another format's header there, and
 * the next open without a named format would follow a backing file of the guest's choice. So where
 * raw was guessed, nothing must make the first sector look like anything else.
 *
 * Invariants:
 *  1. What is checked is what is written. The sector is copied first, because the guest may change
 *     its buffer meanwhile.
 *  2. From check to write nobody else changes the sector: two requests of which each is harmless
 *     could make a header between them. The range lock of the raw node is held, which has no other
 *     use there.
 *  3. Zeroes can complete a header too. Only a sector of nothing but zeroes needs no look. */
#include "block/io/guard.h"
#include <errno.h>
#include <string.h>
#include "block/driver.h"
#include "block/map/map.h"
#include "util/assert.h"
#include "util/range.h"

/* The part of the request from `done` on, which the guard has nothing to do with. */
ASH_CO_FN static int pass_rest(struct ash_edge *edge, const struct ash_io *io, uint64_t done)
{
    if (done == io->bytes) {
        return 0;
    }
    struct ash_io rest = *io;
    rest.offset += done;
    rest.bytes -= done;
    rest.flags |= ASH_IO_GUARDED;
    if (io->op == ASH_WRITE) {
        rest.iov = ash_iov_advance(io->iov, done);
    }
    return ash_edge_io(edge, &rest);
}

/* Changes the first sector in [io->offset, io->offset + bytes), if it is raw afterwards. */
ASH_CO_FN static int change_sector(struct ash_edge *edge, const struct ash_io *io, uint64_t bytes)
{
    uint8_t sector[ASH_GUARD_BYTES] = {0};
    uint64_t present = ASH_MIN(sizeof(sector), edge->child->size_bytes);
    int ret = ash_edge_read(edge, 0, sector, present);
    if (ret < 0) {
        return ret;
    }
    if (io->op == ASH_WRITE) {
        ash_iov_to_buffer(io->iov, sector + io->offset, bytes);
    } else {
        memset(sector + io->offset, 0, bytes);
    }
    if (strcmp(ash_driver_probe(sector, sizeof(sector))->name, "raw") != 0) {
        return -EPERM;
    }
    struct iovec vec = {sector + io->offset, bytes};
    struct ash_io head = *io;
    head.bytes = bytes;
    head.iov = ash_iov_of(&vec, 1);
    head.flags |= ASH_IO_GUARDED;
    return ash_edge_io(edge, &head);
}

int ash_guard_io(struct ash_edge *edge, const struct ash_io *io)
{
    uint64_t guarded = ASH_MIN(io->bytes, ASH_GUARD_BYTES - io->offset);
    if (io->op == ASH_DISCARD) {
        return pass_rest(edge, io, guarded);
    }
    if (io->op == ASH_WRITE && ash_iov_is_file(&io->iov)) {
        return -ENOTSUP; /* what is to be written has to be looked at */
    }
    if (io->op == ASH_ZERO && guarded == ASH_GUARD_BYTES) {
        return pass_rest(edge, io, 0);
    }
    struct ash_range_lock lock;
    ash_assert(edge->child->map != NULL); /* only raw is guessed */
    ash_range_lock(&lock, &edge->child->map->locks, 0, ASH_GUARD_BYTES);
    int ret = change_sector(edge, io, guarded);
    ash_range_unlock(&lock);
    return ret < 0 ? ret : pass_rest(edge, io, guarded);
}
