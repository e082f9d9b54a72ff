/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert, in three parts: the command line (convert.c), making the target
 * (convert_target.c), moving the data (convert_copy.c). */
#ifndef ASH_TOOLS_IMG_CONVERT_H
#define ASH_TOOLS_IMG_CONVERT_H

#include "tools/common/tool.h"

struct convert_source {
    struct ash_tool_image image;
    struct ash_disk *disk;
    uint64_t start; /* where it begins in the target */
    uint64_t bytes;
};

struct convert {
    /* What was asked for. */
    struct convert_source *sources;
    uint32_t source_count;
    struct ash_tool_image target;
    const char *target_format;
    const struct ash_driver *target_driver; /* NULL with target_image_opts */
    struct ash_tool_options options;
    const char *backing;
    const char *backing_format;
    bool compress;
    bool offload; /* the kernel copies what it can from file to file */
    bool skip_create;
    bool target_is_zero;
    bool bitmaps; /* dirty bitmaps are to come along: there must be none */
    bool skip_broken_bitmaps;
    bool target_image_opts;
    bool quiet;
    bool progress_on;
    bool salvage;
    uint64_t sparse_bytes; /* shortest run of zeroes to leave out; 0: leave nothing out */
    uint64_t rate;         /* bytes a second; 0: no limit */
    uint32_t windows;      /* in flight */

    /* How it goes. */
    struct ash_disk *target_disk;
    uint64_t total_bytes;
    bool zero_init;   /* what is not written to the target reads as zeroes */
    bool has_backing; /* the target has a backing file: what only that holds is left to it */
    const struct ash_node *base; /* the node of the source that holds the same */
    bool created;
    struct ash_progress progress;
};

/* Makes the target unless it is there, and opens it. Prints what fails. 0 or 1. */
ASH_CO_FN int ash_convert_open_target(struct convert *convert);

/* Moves the data. Prints what fails. 0 or a negative errno. */
ASH_CO_FN int ash_convert_copy(struct convert *convert);

#endif
