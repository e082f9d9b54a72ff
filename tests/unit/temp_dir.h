/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A directory for the files of one test program, and looking at files without the library. */
#ifndef ASH_TESTS_TEMP_DIR_H
#define ASH_TESTS_TEMP_DIR_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char temp_dir[64];

/* Below `parent`: "." is the build directory. */
static inline int temp_dir_make(const char *parent)
{
    snprintf(temp_dir, sizeof(temp_dir), "%s/ashlar-test-XXXXXX", parent);
    return mkdtemp(temp_dir) != NULL ? 0 : -1;
}

/* Of files only. A program that did it would take as long as many a test. */
static inline int directory_remove(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return -1;
    }
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        unlinkat(dirfd(dir), entry->d_name, 0); /* not "." and "..", which are no files */
    }
    closedir(dir);
    return rmdir(path);
}

static inline void temp_dir_remove(void)
{
    directory_remove(temp_dir);
}

/* For a group of tests: one in memory. */
static inline int temp_dir_set_up(void **state)
{
    (void)state;
    return temp_dir_make("/dev/shm");
}

static inline int temp_dir_tear_down(void **state)
{
    (void)state;
    temp_dir_remove();
    return 0;
}

/* A path in it; one of four buffers taken in turn. */
static inline const char *temp_path(const char *name)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof(paths[0]), "%s/%s", temp_dir, name);
    return path;
}

/* A new file of `bytes` times `value`, or all hole with value -1. */
static inline const char *temp_file(const char *name, size_t bytes, int value)
{
    const char *path = temp_path(name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    if (value >= 0 && bytes > 0) {
        void *buffer = malloc(bytes);
        assert_non_null(buffer);
        memset(buffer, value, bytes);
        assert_int_equal(pwrite(fd, buffer, bytes, 0), bytes);
        free(buffer);
    }
    close(fd);
    return path;
}

static inline int64_t temp_bytes(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? (int64_t)status.st_size : -1;
}

/* Whether the range of the file is nothing but `value`. */
static inline bool temp_holds(const char *path, uint64_t offset, size_t bytes, int value)
{
    uint8_t *buffer = malloc(bytes);
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    bool same = pread(fd, buffer, bytes, (off_t)offset) == (ssize_t)bytes;
    for (size_t i = 0; same && i < bytes; i++) {
        same = buffer[i] == value;
    }
    close(fd);
    free(buffer);
    return same;
}

/* Open descriptors of this process. */
static inline unsigned descriptors(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count;
}

#endif
