/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What each request does to the simulated world, and what may go wrong with it.
 *
 * Errors are those that Linux gives for a file of ext4 or XFS. The faults of the configuration are
 * drawn where a request is carried out:
 *
 *   error of a write    nothing, or a part that ends at a sector, was written all the same
 *   short transfer      ends at a sector, is never empty, and not twice in a row from one offset
 *   no space            a write ends where it needs a page that it does not get; -ENOSPC if that is
 *                       the first
 *   error of a flush    see page.c; of a DSYNC write: it is written, and not durable
 *
 * Invariants:
 *  1. A request that -EINVAL, -EBADF and the like refuse changes nothing.
 *  2. What is drawn from the generator depends on the requests alone. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <unistd.h>
#include "util/assert.h"
#include "util/engine/sim/internal.h"
#include "util/range.h"

#define TRANSFER_BYTES_MAX (UINT64_C(0x7ffff000)) /* as the kernel's MAX_RW_COUNT */
#define COPY_BYTES_MAX (1 * MiB)                  /* of one request: a longer one is cut short */
#define INODE_BLOCK_BYTES 4096
#define DEVICE 1

bool ash_sim_is_mutation(const struct ash_aio *aio)
{
    switch (aio->op) {
    case ASH_AIO_WRITE:
    case ASH_AIO_FLUSH:
    case ASH_AIO_ALLOCATE:
    case ASH_AIO_TRUNCATE:
    case ASH_AIO_COPY:
        return true;
    default:
        return false;
    }
}

bool ash_sim_has_two_stages(const struct ash_aio *aio)
{
    return aio->op == ASH_AIO_READ || aio->op == ASH_AIO_SEEK || aio->op == ASH_AIO_STATUS ||
           (ash_sim_is_mutation(aio) && aio->op != ASH_AIO_FLUSH);
}

bool ash_sim_needs_no_power(const struct ash_aio *aio)
{
    return aio->op == ASH_AIO_CLOSE || aio->op == ASH_AIO_POLL || aio->op == ASH_AIO_WORK ||
           (aio->op == ASH_AIO_LOCK && aio->mode == F_UNLCK);
}

/* Bytes that one call moves at most: no more than IOV_MAX elements. 0 or -EINVAL for what O_DIRECT
 * does not take. */
static int check_transfer(const struct ash_sim_world *world, const struct ash_aio *aio,
                          uint64_t *bytes)
{
    uint32_t alignment = world->config.direct_alignment;

    if (!ash_range_valid(aio->offset, aio->bytes)) {
        return -EINVAL;
    }
    *bytes = ASH_MIN(aio->bytes, TRANSFER_BYTES_MAX);
    if (aio->iov.count > IOV_MAX) {
        struct ash_iov iov = aio->iov;
        uint64_t covered = 0;
        for (unsigned i = 0; i < IOV_MAX && covered < *bytes; i++) {
            struct iovec piece;
            uint64_t piece_bytes;
            ash_iov_collect(iov, *bytes - covered, &piece, 1, &piece_bytes);
            iov = ash_iov_advance(iov, piece_bytes);
            covered += piece_bytes;
        }
        *bytes = covered;
    }
    if ((aio->file->flags & ASH_FILE_DIRECT) &&
        (!ash_is_aligned(aio->offset, alignment) ||
         !ash_iov_aligned(aio->iov, *bytes, alignment, alignment))) {
        return -EINVAL;
    }
    return 0;
}

/* Whether this transfer is cut short. Never twice in a row from one offset: who repeats a transfer
 * gains something, as on a real system, though he may only go on in larger units than sectors. */
static bool draw_short(struct ash_sim_world *world, struct sim_inode *inode, uint64_t offset)
{
    if (!ash_prng_chance(&world->prng, world->config.short_per_mille) ||
        inode->short_offset == offset) {
        inode->short_offset = UINT64_MAX;
        return false;
    }
    inode->short_offset = offset;
    return true;
}

/* A length up to `bytes` that ends at a sector, not 0. */
static uint64_t shorten(struct ash_sim_world *world, const struct ash_aio *aio, uint64_t bytes)
{
    uint64_t unit = ash_sim_sector_bytes(world);
    uint64_t end = aio->offset + bytes;

    if (aio->file->flags & ASH_FILE_DIRECT) {
        unit = ASH_MAX(unit, (uint64_t)world->config.direct_alignment);
    }
    uint64_t first = ash_align_down(aio->offset, unit) + unit;
    if (first >= end) {
        return bytes;
    }
    uint64_t count = (end - 1 - first) / unit + 1;
    return first + ash_prng_below(&world->prng, count) * unit - aio->offset;
}

static int64_t carry_read(struct ash_sim_world *world, struct ash_aio *aio, bool faults)
{
    struct sim_inode *inode = ash_sim_file_of(aio->file)->inode;
    const struct ash_sim_config *config = &world->config;
    uint64_t bytes;
    int ret = check_transfer(world, aio, &bytes);

    if (ret < 0) {
        return ret;
    }
    if (aio->offset >= inode->length || bytes == 0) {
        return 0;
    }
    bytes = ASH_MIN(bytes, inode->length - aio->offset);
    if (faults && ash_prng_chance(&world->prng, config->read_error_per_mille)) {
        return -EIO;
    }
    if (faults && draw_short(world, inode, aio->offset)) {
        bytes = shorten(world, aio, bytes);
    }
    ash_sim_content_read(inode, aio->offset, bytes, aio->iov);
    return (int64_t)bytes;
}

/* How many new pages a change of this range gets. */
static uint64_t draw_space(struct ash_sim_world *world, struct sim_inode *inode, uint64_t offset,
                           uint64_t bytes, bool faults)
{
    uint64_t left = ash_sim_pages_left(world);
    uint64_t missing = 0;

    if (faults && world->config.no_space_per_mille > 0) {
        missing = ash_sim_content_missing(inode, offset, bytes, 0);
        if (missing > 0 && ash_prng_chance(&world->prng, world->config.no_space_per_mille)) {
            left = ASH_MIN(left, ash_prng_below(&world->prng, missing));
        }
    }
    return left;
}

static int64_t carry_write(struct ash_sim_world *world, struct ash_aio *aio, bool faults)
{
    struct sim_inode *inode = ash_sim_file_of(aio->file)->inode;
    const struct ash_sim_config *config = &world->config;
    bool fails = false;
    uint64_t bytes;

    if (!(aio->file->flags & ASH_FILE_WRITE)) {
        return -EBADF;
    }
    int ret = check_transfer(world, aio, &bytes);
    if (ret < 0 || bytes == 0) {
        return ret;
    }
    if (aio->offset + bytes > SIM_FILE_BYTES_MAX) {
        return -EFBIG;
    }
    if (faults && ash_prng_chance(&world->prng, config->write_error_per_mille)) {
        fails = true;
        bytes = ash_prng_chance(&world->prng, 500) ? 0 : shorten(world, aio, bytes);
    } else if (faults && draw_short(world, inode, aio->offset)) {
        bytes = shorten(world, aio, bytes);
    }
    uint64_t space = draw_space(world, inode, aio->offset, bytes, faults);
    uint64_t done = ash_sim_content_write(inode, aio->offset, bytes, aio->iov, world->seq, space);
    inode->modified_ns = world->now_ns;
    if (fails) {
        return -EIO;
    }
    return done > 0 ? (int64_t)done : -ENOSPC;
}

static int check_allocate(const struct ash_sim_world *world, const struct ash_aio *aio)
{
    uint32_t unsupported = world->config.unsupported;

    if (!ash_range_valid(aio->offset, aio->bytes) || aio->bytes == 0) {
        return -EINVAL;
    }
    switch (aio->mode) {
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE | FALLOC_FL_NO_HIDE_STALE:
        return world->config.devices ? 0 : -EOPNOTSUPP;
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
        return unsupported & ASH_SIM_NO_PUNCH_HOLE ? -EOPNOTSUPP : 0;
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
        return unsupported & ASH_SIM_NO_ZERO_RANGE ? -EOPNOTSUPP : 0;
    case 0:
    case FALLOC_FL_KEEP_SIZE:
        return unsupported & ASH_SIM_NO_ALLOCATE ? -EOPNOTSUPP : 0;
    default:
        return -EOPNOTSUPP;
    }
}

static int64_t carry_allocate(struct ash_sim_world *world, struct ash_aio *aio, bool faults)
{
    struct sim_inode *inode = ash_sim_file_of(aio->file)->inode;
    bool punch = aio->mode & FALLOC_FL_PUNCH_HOLE;
    bool fails = false;
    int ret = check_allocate(world, aio);

    if (ret < 0) {
        return ret;
    }
    if (!(aio->file->flags & ASH_FILE_WRITE)) {
        return -EBADF;
    }
    if (aio->offset + aio->bytes > SIM_FILE_BYTES_MAX) {
        return -EFBIG;
    }
    if (faults && ash_prng_chance(&world->prng, world->config.write_error_per_mille)) {
        fails = true;
        if (ash_prng_chance(&world->prng, 500)) {
            return -EIO;
        }
    }
    if (aio->mode & FALLOC_FL_NO_HIDE_STALE) {
        return fails ? -EIO : 0;
    }
    if (!punch) {
        uint64_t left = draw_space(world, inode, aio->offset, aio->bytes, faults);
        if (ash_sim_content_missing(inode, aio->offset, aio->bytes, left) > left) {
            return -ENOSPC;
        }
    }
    if (punch || (aio->mode & FALLOC_FL_ZERO_RANGE)) {
        ash_sim_content_zero(inode, aio->offset, aio->bytes, !punch, world->seq);
    } else {
        ash_sim_content_allocate(inode, aio->offset, aio->bytes);
    }
    if (!(aio->mode & FALLOC_FL_KEEP_SIZE) && aio->offset + aio->bytes > inode->length) {
        ash_sim_content_set_length(inode, aio->offset + aio->bytes, false, world->seq);
    }
    inode->modified_ns = world->now_ns;
    return fails ? -EIO : 0;
}

static int64_t carry_truncate(struct ash_sim_world *world, struct ash_aio *aio, bool faults)
{
    struct sim_inode *inode = ash_sim_file_of(aio->file)->inode;
    bool fails = false;

    if (!(aio->file->flags & ASH_FILE_WRITE) || aio->bytes > INT64_MAX) {
        return -EINVAL;
    }
    if (aio->bytes > SIM_FILE_BYTES_MAX) {
        return -EFBIG;
    }
    if (faults && ash_prng_chance(&world->prng, world->config.write_error_per_mille)) {
        fails = true;
        if (ash_prng_chance(&world->prng, 500)) {
            return -EIO;
        }
    }
    ash_sim_content_truncate(inode, aio->bytes, world->seq);
    inode->modified_ns = world->now_ns;
    return fails ? -EIO : 0;
}

static int64_t carry_flush(struct ash_sim_world *world, struct sim_request *request, bool faults)
{
    struct sim_inode *inode = ash_sim_file_of(request->aio->file)->inode;
    bool fails = faults && ash_prng_chance(&world->prng, world->config.flush_error_per_mille);

    ash_sim_inode_flush(inode, request->seq, fails);
    if (!fails || ash_prng_chance(&world->prng, 500)) {
        ash_sim_content_lengths_durable(inode, request->seq);
    }
    return fails ? -EIO : 0;
}

static int64_t carry_copy(struct ash_sim_world *world, struct ash_aio *aio, bool faults)
{
    struct sim_inode *from = ash_sim_file_of(aio->file)->inode;
    struct sim_inode *to = ash_sim_file_of(aio->file2)->inode;
    uint64_t bytes = ASH_MIN(aio->bytes, COPY_BYTES_MAX);
    uint64_t done = 0;

    if (!(aio->file2->flags & ASH_FILE_WRITE)) {
        return -EBADF;
    }
    if (world->config.unsupported & ASH_SIM_NO_COPY) {
        return -EOPNOTSUPP;
    }
    if (!ash_range_valid(aio->offset, aio->bytes) || !ash_range_valid(aio->offset2, aio->bytes)) {
        return -EINVAL;
    }
    if (from == to && ash_range_overlap(aio->offset, aio->bytes, aio->offset2, aio->bytes)) {
        return -EINVAL;
    }
    if (aio->offset2 + bytes > SIM_FILE_BYTES_MAX) {
        return -EFBIG;
    }
    if (aio->offset >= from->length) {
        return 0;
    }
    bytes = ASH_MIN(bytes, from->length - aio->offset);
    if (faults && ash_prng_chance(&world->prng, world->config.write_error_per_mille)) {
        return -EIO;
    }
    uint64_t space = draw_space(world, to, aio->offset2, bytes, faults);
    while (done < bytes) {
        uint8_t buffer[SIM_PAGE_BYTES];
        uint64_t chunk = ASH_MIN(bytes - done, sizeof(buffer));
        struct iovec vec = {buffer, chunk};
        uint64_t before = to->allocated_pages;
        ash_sim_content_read(from, aio->offset + done, chunk, ash_iov_of(&vec, 1));
        uint64_t written = ash_sim_content_write(to, aio->offset2 + done, chunk,
                                                 ash_iov_of(&vec, 1), world->seq, space);
        space -= to->allocated_pages - before;
        done += written;
        if (written < chunk) {
            break;
        }
    }
    to->modified_ns = world->now_ns;
    return done > 0 || bytes == 0 ? (int64_t)done : -ENOSPC;
}

static int64_t carry_seek(struct ash_sim_world *world, struct ash_aio *aio)
{
    struct sim_inode *inode = ash_sim_file_of(aio->file)->inode;

    if ((aio->mode != SEEK_DATA && aio->mode != SEEK_HOLE) ||
        (world->config.unsupported & ASH_SIM_NO_SEEK)) {
        return -EINVAL;
    }
    return ash_sim_content_seek(inode, aio->offset, aio->mode == SEEK_DATA);
}

static int64_t carry_status(struct ash_sim_world *world, struct ash_aio *aio)
{
    struct sim_inode *inode =
        aio->file ? ash_sim_file_of(aio->file)->inode : ash_sim_find(world, aio->path);

    if (!inode) {
        return -ENOENT;
    }
    *aio->status = (struct ash_file_status){
        .bytes = inode->length,
        .allocated_bytes = inode->allocated_pages << SIM_PAGE_BITS,
        .device = DEVICE,
        .inode = inode->number,
        .modified_ns = inode->modified_ns,
        .block_bytes = INODE_BLOCK_BYTES,
        .regular = !world->config.devices,
        .block_device = world->config.devices,
    };
    if (!(world->config.unsupported & ASH_SIM_NO_DIRECT_HINT)) {
        aio->status->direct_offset_alignment = world->config.direct_alignment;
        aio->status->direct_memory_alignment = world->config.direct_alignment;
    }
    return 0;
}

static int64_t carry_open(struct ash_sim_world *world, struct ash_aio *aio)
{
    aio->file = NULL;
    if (aio->adopt_fd >= 0) {
        return -EOPNOTSUPP;
    }
    if ((aio->file_flags & ASH_FILE_DIRECT) && (world->config.unsupported & ASH_SIM_NO_DIRECT)) {
        return -EINVAL;
    }
    return ash_sim_open(world, aio->path, aio->file_flags, &aio->file);
}

static int64_t carry_lock(struct ash_aio *aio)
{
    for (uint32_t i = 0; i < aio->range_count; i++) {
        const struct ash_byte_range *range = &aio->ranges[i];
        int ret;

        if (!ash_range_valid(range->offset, range->bytes)) {
            return -EINVAL;
        }
        ret = ash_sim_lock(ash_sim_file_of(aio->file), aio->mode, range->offset, range->bytes,
                           aio->flags & ASH_AIO_TEST);
        if (ret != 0) {
            return ret < 0 ? ret : (int)i + 1;
        }
    }
    return 0;
}

static int64_t carry_mutation(struct ash_sim_world *world, struct sim_request *request, bool faults)
{
    struct ash_aio *aio = request->aio;

    if (aio->op == ASH_AIO_FLUSH) {
        return carry_flush(world, request, faults);
    }
    request->seq = ++world->seq;
    switch (aio->op) {
    case ASH_AIO_WRITE:
        return carry_write(world, aio, faults);
    case ASH_AIO_ALLOCATE:
        return carry_allocate(world, aio, faults);
    case ASH_AIO_TRUNCATE:
        return carry_truncate(world, aio, faults);
    default:
        return carry_copy(world, aio, faults);
    }
}

int64_t ash_sim_carry_out(struct ash_sim_world *world, struct sim_request *request, bool faults)
{
    struct ash_aio *aio = request->aio;

    if (ash_sim_is_mutation(aio)) {
        return carry_mutation(world, request, faults);
    }
    switch (aio->op) {
    case ASH_AIO_OPEN:
        return carry_open(world, aio);
    case ASH_AIO_CLOSE:
        ash_sim_close(ash_sim_file_of(aio->file));
        return 0;
    case ASH_AIO_READ:
        return carry_read(world, aio, faults);
    case ASH_AIO_SEEK:
        return carry_seek(world, aio);
    case ASH_AIO_STATUS:
        return carry_status(world, aio);
    case ASH_AIO_LOCK:
        return carry_lock(aio);
    case ASH_AIO_RENAME:
        return ash_sim_rename(world, aio->path, aio->path2);
    case ASH_AIO_UNLINK:
        return ash_sim_unlink(world, aio->path);
    case ASH_AIO_SYNC_DIR:
        return 0;
    case ASH_AIO_READLINK:
        return ash_sim_find(world, aio->path) ? -EINVAL : -ENOENT;
    case ASH_AIO_WORK:
        return aio->work(aio->work_opaque);
    default:
        return -EINVAL;
    }
}

int64_t ash_sim_finish(struct ash_sim_world *world, struct sim_request *request)
{
    const struct ash_aio *aio = request->aio;

    if (aio->op != ASH_AIO_WRITE || !(aio->flags & ASH_AIO_DSYNC) || request->result <= 0) {
        return request->result;
    }
    if (ash_prng_chance(&world->prng, world->config.flush_error_per_mille)) {
        return -EIO;
    }
    struct sim_inode *inode = ash_sim_file_of(aio->file)->inode;
    ash_sim_content_harden(inode, aio->offset, (uint64_t)request->result, request->seq);
    ash_sim_content_lengths_durable(inode, request->seq);
    return request->result;
}
