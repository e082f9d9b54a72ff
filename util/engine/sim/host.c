/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Simulated files to and from files of the host, for what other programs have to look at. Blocking
 * calls: tests use this outside of any loop. Holes stay holes in both directions. */

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/engine/sim/internal.h"

#define CHUNK_BYTES (64 * KiB)

static int write_all(int fd, const uint8_t *buffer, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t done = pwrite(fd, buffer, bytes, (off_t)offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return done < 0 ? -errno : -ENOSPC;
        }
        buffer += done;
        bytes -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

static int export_data(struct sim_inode *inode, int fd, uint8_t *buffer)
{
    int64_t start = 0;

    while ((start = ash_sim_content_seek(inode, (uint64_t)start, true)) >= 0) {
        int64_t end = ash_sim_content_seek(inode, (uint64_t)start, false);
        while (start < end) {
            uint64_t bytes = ASH_MIN((uint64_t)(end - start), CHUNK_BYTES);
            struct iovec vec = {buffer, bytes};
            ash_sim_content_read(inode, (uint64_t)start, bytes, ash_iov_of(&vec, 1));
            int ret = write_all(fd, buffer, bytes, (uint64_t)start);
            if (ret < 0) {
                return ret;
            }
            start += (int64_t)bytes;
        }
    }
    return 0;
}

int ash_sim_file_export(struct ash_sim_world *world, const char *path, const char *host_path)
{
    struct sim_inode *inode = ash_sim_find(world, path);

    if (!inode) {
        return -ENOENT;
    }
    int fd = open(host_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        return -errno;
    }
    int ret = ftruncate(fd, (off_t)inode->length) < 0 ? -errno : 0;
    if (ret == 0) {
        uint8_t *buffer = g_malloc(CHUNK_BYTES);
        ret = export_data(inode, fd, buffer);
        g_free(buffer);
    }
    if (close(fd) < 0 && ret == 0) {
        ret = -errno;
    }
    return ret;
}

/* Reads what may be less than asked for only at the end of the file. */
static int read_all(int fd, uint8_t *buffer, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t done = pread(fd, buffer, bytes, (off_t)offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return done < 0 ? -errno : -EIO;
        }
        buffer += done;
        bytes -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

static int import_data(struct ash_sim_world *world, const char *path, int fd, uint8_t *buffer)
{
    off_t start = 0;

    while ((start = lseek(fd, start, SEEK_DATA)) >= 0) {
        off_t end = lseek(fd, start, SEEK_HOLE);
        if (end < 0) {
            return -errno;
        }
        while (start < end) {
            size_t bytes = ASH_MIN((uint64_t)(end - start), CHUNK_BYTES);
            int ret = read_all(fd, buffer, bytes, (uint64_t)start);
            if (ret == 0) {
                ret = ash_sim_file_write(world, path, (uint64_t)start, buffer, bytes);
            }
            if (ret < 0) {
                return ret;
            }
            start += (off_t)bytes;
        }
    }
    return errno == ENXIO ? 0 : -errno;
}

int ash_sim_file_import(struct ash_sim_world *world, const char *path, const char *host_path)
{
    struct stat status;
    int fd = open(host_path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    int ret = fstat(fd, &status) < 0 ? -errno : 0;
    if (ret == 0) {
        struct sim_inode *inode = ash_sim_find(world, path);
        uint8_t *buffer = g_malloc(CHUNK_BYTES);
        if (!inode) {
            inode = ash_sim_create(world, path);
        }
        ash_sim_content_truncate(inode, 0, ++world->seq);
        ash_sim_content_truncate(inode, (uint64_t)status.st_size, world->seq);
        ash_sim_inode_flush(inode, world->seq, false);
        ash_sim_content_lengths_durable(inode, world->seq);
        ret = import_data(world, path, fd, buffer);
        g_free(buffer);
    }
    close(fd);
    return ret;
}
