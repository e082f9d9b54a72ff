/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests to the engine as calls, and transfers that are completed whatever the kernel splits off.
 *
 *  1. The request lives on the stack of the coroutine that waits for it.
 *  2. A transfer goes on where the last one ended. An O_DIRECT file may only be addressed in
 *     whole units, so there it goes on at the last multiple of the unit, though not before its
 *     own start: what lies in between is read or written again. The unit is what the kernel
 *     tells, else 4 KiB.
 *  3. A short read ends the file only if the next one reads nothing, or, for an O_DIRECT file,
 *     which cannot be read behind an odd end, if its length says so.
 *  4. A transfer ends: one that gains nothing 16 times in a row is given up. */
#include "util/engine/co_aio.h"

#include <errno.h>
#include "util/assert.h"

#define DIRECT_UNIT 4096
#define FUTILE_MAX 16

ASH_CO_FN int64_t ash_co_aio(struct ash_engine *engine, struct ash_aio *aio)
{
    ash_co_assert_inside();
    aio->waiter = ash_co_self();
    aio->done = NULL;
    ash_engine_submit(engine, aio);
    ash_co_yield();
    return aio->result;
}

ASH_CO_FN int ash_co_open(struct ash_engine *engine, const char *path, uint32_t flags,
                          struct ash_file **file)
{
    struct ash_aio aio = {.op = ASH_AIO_OPEN, .path = path, .file_flags = flags, .adopt_fd = -1};
    int ret = (int)ash_co_aio(engine, &aio);

    if (ret == 0) {
        *file = aio.file;
    }
    return ret;
}

ASH_CO_FN int ash_co_close(struct ash_file *file)
{
    struct ash_aio aio = {.op = ASH_AIO_CLOSE, .file = file};

    return (int)ash_co_aio(file->engine, &aio);
}

/* A transfer under way: [offset, end) is left. */
struct transfer {
    struct ash_file *file;
    enum ash_aio_op op;
    uint32_t flags;
    struct ash_iov iov; /* at `offset` */
    uint64_t offset;
    uint64_t end;
    uint32_t futile; /* attempts in a row that gained nothing */
};

/* Returns the number of bytes moved, or a negative errno. */
ASH_CO_FN static int64_t transfer_once(const struct transfer *transfer)
{
    struct ash_aio aio = {
        .op = (uint8_t)transfer->op,
        .flags = transfer->flags,
        .file = transfer->file,
        .iov = transfer->iov,
        .offset = transfer->offset,
        .bytes = transfer->end - transfer->offset,
    };
    if (ash_iov_is_file(&transfer->iov)) {
        aio.op = ASH_AIO_COPY;
        aio.file = transfer->iov.file;
        aio.offset = transfer->iov.skip;
        aio.file2 = transfer->file;
        aio.offset2 = transfer->offset;
    }
    int64_t moved = ash_co_aio(transfer->file->engine, &aio);

    ash_assert(moved <= (int64_t)aio.bytes);
    return moved;
}

static uint32_t direct_unit(const struct ash_file_status *status)
{
    if (status->direct_offset_alignment) {
        return status->direct_offset_alignment;
    }
    return status->block_device && status->block_bytes ? status->block_bytes : DIRECT_UNIT;
}

/* After a transfer that moved some bytes, but not all: what to go on with. *ended tells that it was
 * a read that reached the end of the file. 0 or a negative errno. */
ASH_CO_FN static int after_short(struct transfer *transfer, uint64_t moved, bool *ended)
{
    uint64_t reached = transfer->offset + moved;
    struct ash_file_status status;

    if (transfer->file->flags & ASH_FILE_DIRECT) {
        int ret = ash_co_status(transfer->file, &status);
        if (ret < 0) {
            return ret;
        }
        *ended = transfer->op == ASH_AIO_READ && status.bytes <= reached;
        uint64_t at = reached - reached % direct_unit(&status);
        moved = *ended ? moved : at - ASH_MIN(at, transfer->offset);
    }
    transfer->iov = ash_iov_advance(transfer->iov, moved);
    transfer->offset += moved;
    transfer->futile = moved ? 0 : transfer->futile + 1;
    return 0;
}

ASH_CO_FN int ash_co_read(struct ash_file *file, uint64_t offset, uint64_t bytes,
                          struct ash_iov iov)
{
    struct transfer transfer = {
        .file = file, .op = ASH_AIO_READ, .iov = iov, .offset = offset, .end = offset + bytes};
    bool ended = bytes == 0;

    while (!ended) {
        int64_t moved = transfer_once(&transfer);
        if (moved < 0) {
            return (int)moved;
        }
        if ((uint64_t)moved == transfer.end - transfer.offset) {
            return 0;
        }
        ended = moved == 0;
        int ret = ended ? 0 : after_short(&transfer, (uint64_t)moved, &ended);
        if (ret < 0) {
            return ret;
        }
        if (transfer.futile >= FUTILE_MAX) {
            return -EIO;
        }
    }
    ash_iov_fill(transfer.iov, 0, transfer.end - transfer.offset);
    return 0;
}

ASH_CO_FN int ash_co_write(struct ash_file *file, uint64_t offset, uint64_t bytes,
                           struct ash_iov iov, uint32_t flags)
{
    struct transfer transfer = {.file = file,
                                .op = ASH_AIO_WRITE,
                                .flags = flags,
                                .iov = iov,
                                .offset = offset,
                                .end = offset + bytes};
    bool ended = false;

    while (transfer.offset < transfer.end) {
        int64_t moved = transfer_once(&transfer);
        if (moved < 0) {
            return (int)moved;
        }
        if ((uint64_t)moved == transfer.end - transfer.offset) {
            return 0;
        }
        int ret = moved == 0 ? -ENOSPC : after_short(&transfer, (uint64_t)moved, &ended);
        if (ret < 0) {
            return ret;
        }
        if (transfer.futile >= FUTILE_MAX) {
            return -ENOSPC;
        }
    }
    return 0;
}

ASH_CO_FN int ash_co_flush(struct ash_file *file)
{
    struct ash_aio aio = {.op = ASH_AIO_FLUSH, .file = file};

    return (int)ash_co_aio(file->engine, &aio);
}

ASH_CO_FN int ash_co_truncate(struct ash_file *file, uint64_t bytes)
{
    struct ash_aio aio = {.op = ASH_AIO_TRUNCATE, .file = file, .bytes = bytes};

    return (int)ash_co_aio(file->engine, &aio);
}

ASH_CO_FN int ash_co_allocate(struct ash_file *file, int mode, uint64_t offset, uint64_t bytes)
{
    struct ash_aio aio = {
        .op = ASH_AIO_ALLOCATE, .file = file, .mode = mode, .offset = offset, .bytes = bytes};

    return (int)ash_co_aio(file->engine, &aio);
}

ASH_CO_FN int ash_co_status(struct ash_file *file, struct ash_file_status *status)
{
    struct ash_aio aio = {.op = ASH_AIO_STATUS, .file = file, .status = status};

    return (int)ash_co_aio(file->engine, &aio);
}

ASH_CO_FN int ash_co_path_status(struct ash_engine *engine, const char *path,
                                 struct ash_file_status *status)
{
    struct ash_aio aio = {.op = ASH_AIO_STATUS, .path = path, .status = status};

    return (int)ash_co_aio(engine, &aio);
}

ASH_CO_FN int64_t ash_co_seek(struct ash_file *file, int whence, uint64_t offset)
{
    struct ash_aio aio = {.op = ASH_AIO_SEEK, .file = file, .mode = whence, .offset = offset};

    return ash_co_aio(file->engine, &aio);
}

ASH_CO_FN static int lock_ranges(struct ash_file *file, int type, uint32_t flags,
                                 const struct ash_byte_range *ranges, uint32_t count)
{
    struct ash_aio aio = {.op = ASH_AIO_LOCK,
                          .flags = flags,
                          .file = file,
                          .mode = type,
                          .ranges = ranges,
                          .range_count = count};

    return count == 0 ? 0 : (int)ash_co_aio(file->engine, &aio);
}

ASH_CO_FN int ash_co_lock(struct ash_file *file, int type, const struct ash_byte_range *ranges,
                          uint32_t count)
{
    return lock_ranges(file, type, 0, ranges, count);
}

ASH_CO_FN int ash_co_lock_test(struct ash_file *file, int type, const struct ash_byte_range *ranges,
                               uint32_t count)
{
    return lock_ranges(file, type, ASH_AIO_TEST, ranges, count);
}

ASH_CO_FN int ash_co_work(struct ash_engine *engine, int (*work)(void *opaque), void *opaque)
{
    struct ash_aio aio = {.op = ASH_AIO_WORK, .work = work, .work_opaque = opaque};

    return (int)ash_co_aio(engine, &aio);
}
