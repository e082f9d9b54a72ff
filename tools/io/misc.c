/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands about the length of the disk, and about the program. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/driver.h"
#include "tools/io/shell.h"

#define NS_PER_MS UINT64_C(1000000)

bool ash_shell_length(struct ash_shell *shell, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    char text[64];
    printf("%s\n", ash_shell_bytes((double)ash_tool_bytes(shell->disk), text));
    return true;
}

struct resize {
    struct ash_disk *disk;
    uint64_t bytes;
    int preallocation;
    struct ash_error error;
};

ASH_CO_FN static int resize_co(void *opaque)
{
    struct resize *resize = opaque;
    return ash_co_disk_resize(resize->disk, resize->bytes, ASH_RESIZE_SHRINK, resize->preallocation,
                              &resize->error);
}

/* The index of a mode's name, or -1. */
static int find_preallocation(const char *name)
{
    for (int i = 0; ash_prealloc_names[i] != NULL; i++) {
        if (strcmp(ash_prealloc_names[i], name) == 0) {
            return i;
        }
    }
    ash_tool_error("Invalid preallocation mode '%s'", name);
    return -1;
}

bool ash_shell_truncate(struct ash_shell *shell, int argc, char **argv)
{
    struct resize resize = {
        .disk = shell->disk, .preallocation = ASH_PREALLOC_OFF, .error = ASH_ERROR_INIT};
    int c;
    while ((c = getopt(argc, argv, "m:")) != -1) {
        if (c != 'm') {
            return ash_command_usage("truncate");
        }
        resize.preallocation = find_preallocation(optarg);
        if (resize.preallocation < 0) {
            return false;
        }
    }
    if (optind != argc - 1) {
        return ash_command_usage("truncate");
    }
    if (!ash_shell_size(argv[optind], &resize.bytes)) {
        return false;
    }
    int ret = ash_loop_run_sync(shell->loop, resize_co, &resize);
    if (ret < 0) {
        ash_tool_error("%s",
                       resize.error.message[0] != '\0' ? resize.error.message : strerror(-ret));
    }
    return ret == 0;
}

ASH_CO_FN static int sleep_co(void *opaque)
{
    ash_co_sleep(*(const uint64_t *)opaque);
    return 0;
}

bool ash_shell_sleep(struct ash_shell *shell, int argc, char **argv)
{
    (void)argc;
    uint64_t ms, ns;
    if (!ash_tool_number(argv[1], UINT64_MAX / NS_PER_MS, &ms)) {
        printf("%s is not a valid number\n", argv[1]);
        return false;
    }
    ns = ms * NS_PER_MS;
    return ash_loop_run_sync(shell->loop, sleep_co, &ns) == 0;
}

bool ash_shell_sigraise(struct ash_shell *shell, int argc, char **argv)
{
    (void)shell;
    (void)argc;
    uint64_t number;
    if (!ash_shell_size(argv[1], &number)) {
        return false;
    }
    if (number > NSIG) {
        printf("signal argument '%s' is too large to be a valid signal\n", argv[1]);
        return false;
    }
    fflush(stdout);
    raise((int)number);
    return true;
}

bool ash_shell_abort(struct ash_shell *shell, int argc, char **argv)
{
    (void)shell;
    (void)argc;
    (void)argv;
    fflush(stdout);
    abort();
}
