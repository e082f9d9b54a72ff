/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Every request, carried out synchronously: what the worker threads run.
 *
 *  1. A call that a signal interrupts is repeated; close is not, since the descriptor is gone.
 *  2. Descriptors are always close-on-exec.
 *  3. Reads and writes make one transfer and report it, short or not: going on is the caller's.
 *  4. Locks belong to the open file description, so that they exclude other opens of this process
 *     and other programs alike, and go away with the last descriptor.
 *  5. A range that must read as zeroes afterwards is never only discarded. */
#include "util/engine/blocking.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <ashlar/loop.h>
#include "util/assert.h"

#define RETRY(call)                                                                                \
    ({                                                                                             \
        int64_t retry_ret_;                                                                        \
        do {                                                                                       \
            retry_ret_ = (call);                                                                   \
        } while (retry_ret_ < 0 && errno == EINTR);                                                \
        retry_ret_ < 0 ? -(int64_t)errno : retry_ret_;                                             \
    })

/* Opening a FIFO waits for its other end, for ever if need be: a path in an image may name one. */
static bool would_block_in_open(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode));
}

int ash_blocking_open(struct ash_engine *engine, const char *path, int flags)
{
    const struct ash_hooks *hooks = engine->config.hooks;

    flags |= O_CLOEXEC | O_NOCTTY;
    if (hooks && hooks->open_file) {
        int fd = hooks->open_file(hooks->opaque, path, flags, 0644);
        if (fd >= 0) {
            fcntl(fd, F_SETFD, FD_CLOEXEC);
        }
        return fd;
    }
    if (would_block_in_open(path)) {
        return -EINVAL;
    }
    return (int)RETRY(open(path, flags, 0644));
}

static int open_flags(uint32_t file_flags)
{
    int flags = file_flags & ASH_FILE_WRITE ? O_RDWR : O_RDONLY;

    flags |= file_flags & ASH_FILE_DIRECT ? O_DIRECT : 0;
    flags |= file_flags & ASH_FILE_CREATE ? O_CREAT : 0;
    flags |= file_flags & ASH_FILE_TRUNCATE ? O_TRUNC : 0;
    flags |= file_flags & ASH_FILE_EXCLUSIVE ? O_EXCL : 0;
    return flags;
}

/* Makes a descriptor of the caller's what open() would have made. */
static int adopt(int fd, uint32_t file_flags)
{
    int flags = fcntl(fd, F_GETFL);
    bool direct = file_flags & ASH_FILE_DIRECT;

    if (flags < 0) {
        return -errno;
    }
    if ((flags & O_ACCMODE) == O_WRONLY ||
        ((file_flags & ASH_FILE_WRITE) && (flags & O_ACCMODE) != O_RDWR)) {
        return -EACCES;
    }
    if (direct != !!(flags & O_DIRECT) &&
        fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) < 0) {
        return -errno;
    }
    return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : fd;
}

static bool is_in_memory(int fd)
{
    struct statfs status;

    return fstatfs(fd, &status) == 0 &&
           (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC);
}

/* Wishes: most file systems know neither, and an image is as good without. */
static void set_hints(int fd, const struct ash_aio *aio)
{
    struct fsxattr attributes;
    int flags;

    if ((aio->file_flags & ASH_FILE_NOCOW) && ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
        flags |= FS_NOCOW_FL;
        (void)!ioctl(fd, FS_IOC_SETFLAGS, &flags);
    }
    if (aio->bytes > 0 && ioctl(fd, FS_IOC_FSGETXATTR, &attributes) == 0) {
        attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
        attributes.fsx_extsize = (uint32_t)aio->bytes;
        (void)!ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
    }
}

static int do_open(struct ash_engine *engine, struct ash_aio *aio)
{
    struct ash_host_file *host = calloc(1, sizeof(*host));
    struct stat status;
    int fd;

    if (!host) {
        return -ENOMEM;
    }
    fd = aio->adopt_fd >= 0 ? adopt(aio->adopt_fd, aio->file_flags)
                            : ash_blocking_open(engine, aio->path, open_flags(aio->file_flags));
    if (fd < 0) {
        free(host);
        return fd;
    }
    if (aio->file_flags & ASH_FILE_CREATE) {
        set_hints(fd, aio);
    }
    host->file = (struct ash_file){.engine = engine, .fd = fd, .flags = aio->file_flags};
    host->block_device = fstat(fd, &status) == 0 && S_ISBLK(status.st_mode);
    host->in_memory = is_in_memory(fd);
    aio->file = &host->file;
    return 0;
}

static int do_close(struct ash_aio *aio)
{
    struct ash_host_file *host = ash_host_file(aio->file);
    int ret = close(host->file.fd) < 0 && errno != EINTR ? -errno : 0;

    free(host);
    return ret;
}

static int64_t write_then_sync(int fd, const struct iovec *vec, int count, off_t offset)
{
    int64_t moved = RETRY(pwritev(fd, vec, count, offset));

    if (moved > 0) {
        int64_t ret = RETRY(fdatasync(fd));
        if (ret < 0) {
            return ret;
        }
    }
    return moved;
}

static int64_t do_transfer(const struct ash_aio *aio)
{
    struct iovec vec[IOV_MAX]; /* 16 KiB: on a worker's stack, never on a coroutine's */
    uint64_t covered;
    int count = (int)ash_iov_collect(aio->iov, aio->bytes, vec, IOV_MAX, &covered);
    int fd = aio->file->fd;
    off_t offset = (off_t)aio->offset;

    if (aio->op == ASH_AIO_READ) {
        return RETRY(preadv(fd, vec, count, offset));
    }
    if (aio->flags & ASH_AIO_DSYNC) {
        int64_t ret = RETRY(pwritev2(fd, vec, count, offset, RWF_DSYNC));
        return ret == -EOPNOTSUPP || ret == -ENOSYS ? write_then_sync(fd, vec, count, offset) : ret;
    }
    return RETRY(pwritev(fd, vec, count, offset));
}

static int64_t do_allocate(const struct ash_aio *aio)
{
    struct ash_host_file *host = ash_host_file(aio->file);
    int fd = host->file.fd;
    uint64_t range[2] = {aio->offset, aio->bytes};
    bool discard = aio->mode & FALLOC_FL_NO_HIDE_STALE;
    int64_t ret;

    if (discard && host->block_device) {
        return RETRY(ioctl(fd, BLKDISCARD, range));
    }
    ret = RETRY(
        fallocate(fd, aio->mode & ~FALLOC_FL_NO_HIDE_STALE, (off_t)aio->offset, (off_t)aio->bytes));
    if (ret == -EOPNOTSUPP && host->block_device && (aio->mode & FALLOC_FL_ZERO_RANGE)) {
        ret = RETRY(ioctl(fd, BLKZEROOUT, range));
    }
    return ret == -ENOSYS || ret == -ENOTTY ? -EOPNOTSUPP : ret;
}

static int64_t do_lock(const struct ash_aio *aio)
{
    for (uint32_t i = 0; i < aio->range_count; i++) {
        struct flock lock = {
            .l_type = (short)aio->mode,
            .l_whence = SEEK_SET,
            .l_start = (off_t)aio->ranges[i].offset,
            .l_len = (off_t)aio->ranges[i].bytes,
        };
        bool test = aio->flags & ASH_AIO_TEST;
        int64_t ret = RETRY(fcntl(aio->file->fd, test ? F_OFD_GETLK : F_OFD_SETLK, &lock));

        if (ret < 0) {
            return ret == -EACCES ? -EAGAIN : ret;
        }
        if (test && lock.l_type != F_UNLCK) {
            return i + 1;
        }
    }
    return 0;
}

static int64_t do_sync_dir(struct ash_engine *engine, const struct ash_aio *aio)
{
    int fd = ash_blocking_open(engine, aio->path, O_RDONLY | O_DIRECTORY);
    int64_t ret;

    if (fd < 0) {
        return fd;
    }
    ret = RETRY(fsync(fd));
    close(fd);
    return ret;
}

static int64_t do_readlink(const struct ash_aio *aio)
{
    struct iovec out;
    uint64_t covered;

    if (!ash_iov_collect(aio->iov, aio->bytes, &out, 1, &covered)) {
        return -EINVAL;
    }
    return RETRY(readlink(aio->path, out.iov_base, out.iov_len));
}

static int64_t do_copy(const struct ash_aio *aio)
{
    off_t from = (off_t)aio->offset;
    off_t to = (off_t)aio->offset2;
    size_t bytes = ASH_MIN(aio->bytes, ASH_TRANSFER_BYTES_MAX);
    int64_t ret = RETRY(copy_file_range(aio->file->fd, &from, aio->file2->fd, &to, bytes, 0));

    return ret == -ENOSYS ? -EOPNOTSUPP : ret;
}

int64_t ash_blocking_run(struct ash_engine *engine, struct ash_aio *aio)
{
    switch ((enum ash_aio_op)aio->op) {
    case ASH_AIO_OPEN:
        return do_open(engine, aio);
    case ASH_AIO_CLOSE:
        return do_close(aio);
    case ASH_AIO_READ:
    case ASH_AIO_WRITE:
        return do_transfer(aio);
    case ASH_AIO_FLUSH:
        return RETRY(fdatasync(aio->file->fd));
    case ASH_AIO_ALLOCATE:
        return do_allocate(aio);
    case ASH_AIO_TRUNCATE:
        return RETRY(ftruncate(aio->file->fd, (off_t)aio->bytes));
    case ASH_AIO_SEEK:
        return RETRY(lseek(aio->file->fd, (off_t)aio->offset, aio->mode));
    case ASH_AIO_STATUS:
        return ash_blocking_status(engine, aio);
    case ASH_AIO_LOCK:
        return do_lock(aio);
    case ASH_AIO_RENAME:
        return RETRY(rename(aio->path, aio->path2));
    case ASH_AIO_UNLINK:
        return RETRY(unlink(aio->path));
    case ASH_AIO_SYNC_DIR:
        return do_sync_dir(engine, aio);
    case ASH_AIO_READLINK:
        return do_readlink(aio);
    case ASH_AIO_COPY:
        return do_copy(aio);
    case ASH_AIO_WORK:
        return aio->work(aio->work_opaque);
    case ASH_AIO_POLL:
    case ASH_AIO_OP_COUNT:
        break;
    }
    ash_assert(!"a request that a thread can carry out");
    return -EINVAL;
}
