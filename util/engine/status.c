/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a file or block device of the host is: length, identity, alignments.
 *
 *  1. What the kernel does not tell is 0, never a guess.
 *  2. Asking neither changes nor locks anything; a path is opened only where it must be. */
#include "util/engine/blocking.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <ashlar/loop.h>

/* A number from a device's queue directory; a partition has its disk's. 0 if there is none. */
static uint32_t queue_number(uint32_t major_number, uint32_t minor_number, const char *name)
{
    static const char *const places[] = {"queue", "../queue"};
    uint64_t value = 0;

    for (size_t i = 0; i < ASH_ARRAY_SIZE(places); i++) {
        char path[128], text[32];
        snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major_number, minor_number,
                 places[i], name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        ssize_t bytes = read(fd, text, sizeof(text) - 1);
        close(fd);
        if (bytes <= 0) {
            break;
        }
        for (ssize_t at = 0; at < bytes && text[at] >= '0' && text[at] <= '9'; at++) {
            value = ASH_MIN(value * 10 + (uint64_t)(text[at] - '0'), UINT32_MAX);
        }
        break;
    }
    return (uint32_t)value;
}

static int device_status(int fd, const struct statx *from, struct ash_file_status *status)
{
    uint64_t bytes = 0;
    int sector_bytes = 0, read_only = 0;
    unsigned int physical_bytes = 0;

    if (ioctl(fd, BLKGETSIZE64, &bytes) < 0) {
        return -errno;
    }
    status->bytes = bytes;
    status->block_device = true;
    if (ioctl(fd, BLKSSZGET, &sector_bytes) == 0 && sector_bytes > 0) {
        status->block_bytes = (uint32_t)sector_bytes;
    }
    if (ioctl(fd, BLKPBSZGET, &physical_bytes) == 0) {
        status->physical_block_bytes = physical_bytes;
    }
    status->read_only_device = ioctl(fd, BLKROGET, &read_only) == 0 && read_only;
    status->discard_granularity =
        queue_number(from->stx_rdev_major, from->stx_rdev_minor, "discard_granularity");
    return 0;
}

static void fill(struct ash_file_status *status, const struct statx *from)
{
    *status = (struct ash_file_status){
        .bytes = from->stx_size,
        .allocated_bytes = from->stx_blocks * 512,
        .device = makedev(from->stx_dev_major, from->stx_dev_minor),
        .inode = from->stx_ino,
        .modified_ns = (uint64_t)from->stx_mtime.tv_sec * 1000000000 + from->stx_mtime.tv_nsec,
        .block_bytes = from->stx_blksize,
        .regular = S_ISREG(from->stx_mode),
        .directory = S_ISDIR(from->stx_mode),
    };
#ifdef STATX_DIOALIGN
    if (from->stx_mask & STATX_DIOALIGN) {
        status->direct_offset_alignment = from->stx_dio_offset_align;
        status->direct_memory_alignment = from->stx_dio_mem_align;
    }
#endif
}

static int status_of_fd(int fd, struct ash_file_status *status)
{
    unsigned int mask = STATX_BASIC_STATS;
    struct statx from;

#ifdef STATX_DIOALIGN
    mask |= STATX_DIOALIGN;
#endif
    memset(&from, 0, sizeof(from));
    if (statx(fd, "", AT_EMPTY_PATH, mask, &from) < 0) {
        return -errno;
    }
    fill(status, &from);
    return S_ISBLK(from.stx_mode) ? device_status(fd, &from, status) : 0;
}

/* Opens the path only for a device, whose length no stat tells, or where the host's hook alone can
 * see it. */
int ash_blocking_status(struct ash_engine *engine, const struct ash_aio *aio)
{
    const struct ash_hooks *hooks = engine->config.hooks;
    struct stat quick;
    bool hooked = hooks && hooks->open_file;
    int fd, ret;

    if (aio->file) {
        return status_of_fd(aio->file->fd, aio->status);
    }
    if (!hooked && stat(aio->path, &quick) < 0) {
        return -errno;
    }
    if (hooked || S_ISBLK(quick.st_mode)) {
        fd = ash_blocking_open(engine, aio->path, O_RDONLY);
    } else {
        fd = open(aio->path, O_PATH | O_CLOEXEC);
        fd = fd < 0 ? -errno : fd;
    }
    if (fd < 0) {
        return fd;
    }
    ret = status_of_fd(fd, aio->status);
    close(fd);
    return ret;
}
