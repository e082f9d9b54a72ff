/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the image itself holds, not the files below it: alloc and map. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "tools/io/shell.h"
#include "util/range.h"

struct extents {
    struct ash_shell *shell;
    uint64_t offset;
    uint64_t bytes;
    uint64_t allocated;
    bool print;
};

static void print_extent(uint64_t offset, uint64_t bytes, bool held)
{
    char length[64], place[64];
    printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n",
           ash_shell_bytes((double)bytes, length), bytes, held ? "   " : "not",
           ash_shell_bytes((double)offset, place), offset);
}

/* Walks the range; neighbours of one kind count as one extent. */
ASH_CO_FN static int extents_co(void *opaque)
{
    struct extents *extents = opaque;
    uint64_t end = extents->offset + extents->bytes;
    uint64_t begin = extents->offset; /* of the extent that is being put together */
    bool held = true;
    for (uint64_t at = extents->offset; at < end;) {
        struct ash_status status;
        int ret = ash_tool_status(extents->shell->disk, NULL, at, end - at, &status);
        if (ret < 0) {
            ash_tool_error("'%s': what is allocated at offset %" PRIu64 " cannot be told: %s",
                           extents->shell->filename, at, strerror(-ret));
            return 1;
        }
        bool here = (status.flags & ASH_STATUS_ALLOCATED) != 0 && status.depth == 0;
        if (at >= ash_disk_bytes(extents->shell->disk)) {
            here = held; /* the rest of the last sector counts as what lies before it */
        }
        if (here != held && at > begin) {
            if (extents->print) {
                print_extent(begin, at - begin, held);
            }
            begin = at;
        }
        held = here;
        uint64_t bytes = ASH_MIN(status.bytes, end - at);
        extents->allocated += here ? bytes : 0;
        at += bytes;
    }
    if (extents->print && end > begin) {
        print_extent(begin, end - begin, held);
    }
    return 0;
}

bool ash_shell_alloc(struct ash_shell *shell, int argc, char **argv)
{
    struct extents extents = {.shell = shell, .bytes = 512};
    if (!ash_shell_size(argv[1], &extents.offset) ||
        (argc == 3 && !ash_shell_size(argv[2], &extents.bytes))) {
        return false;
    }
    uint64_t end = ash_tool_bytes(shell->disk);
    uint64_t left = extents.offset < end ? end - extents.offset : 0;
    extents.bytes = ASH_MIN(extents.bytes, left);
    if (ash_loop_run_sync(shell->loop, extents_co, &extents) != 0) {
        return false;
    }
    char place[64];
    printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", extents.allocated,
           extents.bytes, ash_shell_bytes((double)extents.offset, place));
    return true;
}

bool ash_shell_map(struct ash_shell *shell, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct extents extents = {.shell = shell, .bytes = ash_tool_bytes(shell->disk), .print = true};
    return ash_loop_run_sync(shell->loop, extents_co, &extents) == 0;
}
