/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opens an image, prints "open", and keeps it until standard input ends. If it cannot be opened, prints
 * the reason and exits with 1.
 *
 *   lock_holder MODE DESCRIPTION      MODE: rw, ro, or share (read-only, force-share) */
#include <ashlar/ashlar.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static uint32_t flags_of(const char *mode)
{
    if (strcmp(mode, "rw") == 0) {
        return ASH_DISK_WRITE;
    }
    return strcmp(mode, "share") == 0 ? ASH_DISK_FORCE_SHARE : 0;
}

int main(int argc, char **argv)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk_options options = ASH_DISK_OPTIONS_INIT;
    struct ash_loop *loop;
    struct ash_disk *disk;
    char byte;
    if (argc != 3) {
        fprintf(stderr, "usage: %s rw|ro|share DESCRIPTION\n", argv[0]);
        return 2;
    }
    options.flags = flags_of(argv[1]);
    if (ash_loop_new(NULL, &loop, &error) < 0 || ash_loop_bind(loop) < 0) {
        fprintf(stderr, "%s: %s\n", argv[0], error.message);
        return 2;
    }
    int ret = ash_disk_open_sync(loop, argv[2], &options, &disk, &error);
    if (ret == 0) {
        puts("open");
        fflush(stdout);
        while (read(STDIN_FILENO, &byte, 1) > 0) {
        }
        ret = ash_disk_close_sync(disk, &error);
    }
    if (ret < 0) {
        puts(error.message);
    }
    ash_loop_free(loop);
    return ret < 0;
}
