/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rebasing: what the overlay lacks is compared, as its present chain and as the new backing image
 * have it, and where they differ the overlay gets what it reads as today. What is left lacking
 * reads the same on either.
 *
 * Invariants:
 *  1. At any time the overlay reads as before on its present chain: only what it reads as is
 * written.
 *  2. Whole allocation units are written. Zeroes are written by the format's own means only where
 *     something is below the overlay: otherwise they could leave lacking what reads as zeroes
 * today.
 *  3. The header names the new backing image only when all that was written is stable. */
#include "block/image/rebase.h"
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/driver.h"
#include "block/graph/graft.h"
#include "block/map/map.h"
#include "util/assert.h"
#include "util/range.h"

#define CHUNK_BYTES (1 * MiB)

struct work {
    struct ash_rebase *rebase;
    struct ash_node *node;
    uint64_t unit;
    uint64_t chunk;
    uint8_t *old;
    uint8_t *new;
};

/* What lies beyond the end of a backing image reads as zeroes. */
ASH_CO_FN static int read_new(const struct work *work, uint64_t offset, uint64_t bytes)
{
    struct ash_disk *backing = work->rebase->backing;
    uint64_t size = backing != NULL ? ash_disk_bytes(backing) : 0;
    uint64_t inside = offset < size ? ASH_MIN(bytes, size - offset) : 0;
    memset(work->new + inside, 0, bytes - inside);
    return inside > 0 ? ash_disk_read(backing, offset, work->new, inside) : 0;
}

enum kind { SAME, DATA, ZEROES };

/* What has to become of a unit, or what the range has of it. */
static enum kind kind_of(const struct work *work, uint64_t at, uint64_t bytes)
{
    if (memcmp(work->old + at, work->new + at, bytes) == 0) {
        return SAME;
    }
    struct iovec vec = {work->old + at, bytes};
    bool zero = work->node->backing != NULL && ash_iov_is_zero(ash_iov_of(&vec, 1), bytes);
    return zero ? ZEROES : DATA;
}

ASH_CO_FN static int write_run(const struct work *work, enum kind kind, uint64_t offset,
                               uint64_t at, uint64_t bytes)
{
    struct ash_disk *overlay = work->rebase->overlay;
    if (kind == SAME || bytes == 0) {
        return 0;
    }
    return kind == ZEROES ? ash_disk_zero(overlay, offset + at, bytes, 0)
                          : ash_disk_write(overlay, offset + at, work->old + at, bytes, 0);
}

/* Writes the units that differ, neighbours of one kind together. */
ASH_CO_FN static int write_differing(const struct work *work, uint64_t offset, uint64_t bytes)
{
    enum kind run_kind = SAME;
    uint64_t run = 0; /* where it begins */
    int ret = 0;
    for (uint64_t at = 0; at < bytes && ret == 0;) {
        uint64_t length = ASH_MIN(work->unit - (offset + at) % work->unit, bytes - at);
        enum kind kind = kind_of(work, at, length);
        if (kind != run_kind) {
            ret = write_run(work, run_kind, offset, run, at - run);
            run_kind = kind;
            run = at;
        }
        at += length;
    }
    return ret < 0 ? ret : write_run(work, run_kind, offset, run, bytes - run);
}

/* A range that the overlay lacks. */
ASH_CO_FN static int rebase_range(const struct work *work, uint64_t offset, uint64_t bytes,
                                  struct ash_error *error)
{
    struct ash_disk *overlay = work->rebase->overlay;
    int ret = ash_disk_read(overlay, offset, work->old, bytes);
    if (ret < 0) {
        return ash_error_errno(error, ret, "error while reading from old backing file");
    }
    ret = read_new(work, offset, bytes);
    if (ret < 0) {
        return ash_error_errno(error, ret, "error while reading from new backing file");
    }
    ret = write_differing(work, offset, bytes);
    return ret < 0 ? ash_error_errno(error, ret, "Error while writing to COW image") : 0;
}

/* Whether old and new are known to be zeroes, without reading; and for how many whole units. */
ASH_CO_FN static bool both_zero(const struct work *work, uint64_t offset, uint64_t *bytes)
{
    struct ash_disk *sides[] = {work->rebase->overlay, work->rebase->backing};
    for (unsigned i = 0; i < 2; i++) {
        uint64_t size = sides[i] != NULL ? ash_disk_bytes(sides[i]) : 0;
        if (offset >= size) {
            continue;
        }
        struct ash_status status = {0};
        struct ash_io io = {.op = ASH_STATUS,
                            .flags = ASH_IO_STATUS_ZEROES,
                            .offset = offset,
                            .bytes = ASH_MIN(*bytes, size - offset),
                            .status = &status};
        if (ash_disk_io(sides[i], &io) < 0 || (status.flags & ASH_STATUS_ZERO) == 0) {
            return false;
        }
        *bytes = status.bytes < size - offset ? status.bytes : *bytes;
    }
    uint64_t end = offset + *bytes;
    end = end < work->node->size_bytes ? ash_align_down(end, work->unit) : end;
    *bytes = end > offset ? end - offset : *bytes;
    return end > offset;
}

ASH_CO_FN static int step(const struct work *work, uint64_t offset, uint64_t *bytes,
                          struct ash_error *error)
{
    struct ash_node *node = work->node;
    const struct ash_node *below = node->backing != NULL ? node->backing->child : NULL;
    struct ash_status status;
    int ret = ash_chain_status(node, below, offset, *bytes, 0, &status);
    if (ret < 0) {
        return ash_error_errno(error, ret, "error while reading image metadata");
    }
    *bytes = status.bytes;
    if ((status.flags & ASH_STATUS_ALLOCATED) != 0) {
        return 0;
    }
    uint64_t zero_bytes = *bytes;
    if (both_zero(work, offset, &zero_bytes)) {
        *bytes = zero_bytes;
        return 0;
    }
    *bytes = ASH_MIN(*bytes, work->chunk - offset % work->chunk);
    return rebase_range(work, offset, *bytes, error);
}

ASH_CO_FN static int run(struct work *work, struct ash_error *error)
{
    struct ash_rebase *rebase = work->rebase;
    uint64_t size = work->node->size_bytes;
    for (uint64_t offset = 0; offset < size;) {
        if (rebase->progress != NULL && !rebase->progress(rebase, offset, size)) {
            return ash_error_set(error, -EINTR, "It was interrupted");
        }
        uint64_t bytes = size - offset;
        int ret = step(work, offset, &bytes, error);
        if (ret < 0) {
            return ret;
        }
        offset += bytes;
    }
    return 0;
}

int ash_image_rebase(struct ash_rebase *rebase, struct ash_error *error)
{
    struct ash_node *node = ash_graft_mapped(ash_disk_node(rebase->overlay));
    if (node == NULL || node->driver->set_backing == NULL) {
        return ash_error_errno(error, -ENOTSUP, "'%s' can have no backing file",
                               ash_disk_node(rebase->overlay)->filename);
    }
    uint64_t unit = node->map->unit_bytes;
    struct work work = {
        .rebase = rebase, .node = node, .unit = unit, .chunk = ASH_MAX(CHUNK_BYTES, unit)};
    work.old = ash_buffer_alloc(node->loop, work.chunk, 4096);
    work.new = ash_buffer_alloc(node->loop, work.chunk, 4096);
    int ret = work.old != NULL && work.new != NULL
                  ? run(&work, error)
                  : ash_error_errno(error, -ENOMEM, "There is no memory for buffers");
    ash_buffer_free(node->loop, work.old, work.chunk);
    ash_buffer_free(node->loop, work.new, work.chunk);
    return ret;
}

int ash_image_set_backing(struct ash_disk *disk, const char *file, const char *format,
                          struct ash_error *error)
{
    struct ash_node *node = ash_graft_mapped(ash_disk_node(disk));
    if (node == NULL || node->driver->set_backing == NULL) {
        return ash_error_set(error, -ENOTSUP, "%s", strerror(ENOTSUP));
    }
    if (file != NULL && format == NULL) {
        return ash_error_set(error, -EINVAL, "backing format must be specified");
    }
    int ret = ash_disk_flush(disk);
    if (ret < 0) {
        return ash_error_errno(error, ret, "Flushing '%s' failed", node->filename);
    }
    ash_user_enter(&disk->user);
    ret = node->driver->set_backing(node, file, format, error);
    ash_user_leave(&disk->user);
    return ret;
}
