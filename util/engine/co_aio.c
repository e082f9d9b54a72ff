/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests to the engine as calls, and transfers that are completed whatever the kernel splits off.
 *
 *  1. The request lives on the stack of the coroutine that waits for it.
 *  2. A transfer goes on where the last one ended. For an O_DIRECT file, which may only be
 * addressed in whole blocks, it goes on at the last multiple of 4 KiB, though not before its own
 * start: the few bytes in between are read or written again.
 *  3. A short read ends the file only if the next one reads nothing, or, for an O_DIRECT file,
 * which cannot be read behind an odd end, if its length says so. */
#include "util/engine/co_aio.h"

#include <errno.h>
#include "util/assert.h"

#define DIRECT_UNIT 4096

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
    struct ash_iov iov; /* at `offset` */
    uint64_t offset;
    uint64_t end;
};

/* Takes `moved` bytes off, or somewhat fewer (invariant 2). Returns how many. */
static uint64_t advance(struct transfer *transfer, uint64_t moved)
{
    if (transfer->file->flags & ASH_FILE_DIRECT && transfer->offset + moved < transfer->end) {
        uint64_t at = (transfer->offset + moved) & ~(uint64_t)(DIRECT_UNIT - 1);
        moved = at > transfer->offset ? at - transfer->offset : 0;
    }
    transfer->iov = ash_iov_advance(transfer->iov, moved);
    transfer->offset += moved;
    return moved;
}

ASH_CO_FN static int64_t transfer_once(const struct transfer *transfer, enum ash_aio_op op,
                                       uint32_t flags)
{
    struct ash_aio aio = {
        .op = (uint8_t)op,
        .flags = flags,
        .file = transfer->file,
        .iov = transfer->iov,
        .offset = transfer->offset,
        .bytes = transfer->end - transfer->offset,
    };
    int64_t moved = ash_co_aio(transfer->file->engine, &aio);

    ash_assert(moved <= (int64_t)aio.bytes);
    return moved;
}

ASH_CO_FN int ash_co_read(struct ash_file *file, uint64_t offset, uint64_t bytes,
                          struct ash_iov iov)
{
    struct transfer transfer = {file, iov, offset, offset + bytes};
    bool stuck = false;

    while (transfer.offset < transfer.end) {
        int64_t moved = transfer_once(&transfer, ASH_AIO_READ, 0);
        if (moved < 0) {
            return (int)moved;
        }
        uint64_t reached = transfer.offset + (uint64_t)moved;
        bool ended = moved == 0;
        if (!ended && reached < transfer.end && (file->flags & ASH_FILE_DIRECT)) {
            struct ash_file_status status;
            int ret = ash_co_status(file, &status);
            if (ret < 0) {
                return ret;
            }
            ended = status.bytes <= reached;
        }
        if (ended) {
            ash_iov_fill(ash_iov_advance(transfer.iov, (uint64_t)moved), 0, transfer.end - reached);
            return 0;
        }
        if (advance(&transfer, (uint64_t)moved) == 0) {
            if (stuck) {
                return -EIO;
            }
            stuck = true;
        }
    }
    return 0;
}

ASH_CO_FN int ash_co_write(struct ash_file *file, uint64_t offset, uint64_t bytes,
                           struct ash_iov iov, uint32_t flags)
{
    struct transfer transfer = {file, iov, offset, offset + bytes};
    bool stuck = false;

    while (transfer.offset < transfer.end) {
        int64_t moved = transfer_once(&transfer, ASH_AIO_WRITE, flags);
        if (moved < 0) {
            return (int)moved;
        }
        if (advance(&transfer, (uint64_t)moved) == 0) {
            if (moved == 0 || stuck) {
                return -ENOSPC;
            }
            stuck = true;
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

ASH_CO_FN int ash_co_lock(struct ash_file *file, int type, uint64_t offset, uint64_t bytes)
{
    struct ash_aio aio = {
        .op = ASH_AIO_LOCK, .file = file, .mode = type, .offset = offset, .bytes = bytes};

    return (int)ash_co_aio(file->engine, &aio);
}

ASH_CO_FN int ash_co_lock_test(struct ash_file *file, int type, uint64_t offset, uint64_t bytes)
{
    struct ash_aio aio = {.op = ASH_AIO_LOCK,
                          .flags = ASH_AIO_TEST,
                          .file = file,
                          .mode = type,
                          .offset = offset,
                          .bytes = bytes};

    return (int)ash_co_aio(file->engine, &aio);
}

ASH_CO_FN int ash_co_work(struct ash_engine *engine, int (*work)(void *opaque), void *opaque)
{
    struct ash_aio aio = {.op = ASH_AIO_WORK, .work = work, .work_opaque = opaque};

    return (int)ash_co_aio(engine, &aio);
}
