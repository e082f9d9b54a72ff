/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* compare: do two images read alike.
 *
 * The images are walked in windows, several at once; each task compares one. The first difference
 * is what is reported, so a window that finds one only lowers the mark, and windows beyond it are
 * not begun any more.
 *
 * Invariant: all windows before the mark have been compared when the answer is given. */
#include <errno.h>
#include <getopt.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "tools/common/tool.h"
#include "tools/img/img.h"
#include "util/range.h"

#define EXIT_DIFFERENT 1
#define EXIT_OPEN 2
#define EXIT_STATUS 3
#define EXIT_READ 4

#define WINDOW_BYTES (1 * MiB)
#define WINDOWS 8u
#define SECTOR_BYTES UINT64_C(512)

struct compare {
    struct ash_tool_image image[2];
    struct ash_disk *disk[2];
    uint64_t bytes[2];
    uint64_t common_bytes;
    uint64_t total_bytes;
    bool strict;
    bool quiet;
    bool progress_on;
    struct ash_progress progress;
    uint64_t done_bytes;

    uint64_t mark;   /* of the first event found so far; UINT64_MAX: none */
    int mark_status; /* what it is: an exit status */
    bool mark_is_allocation;
    int mark_error; /* a negative errno */
    int mark_image; /* whose */
};

struct window {
    struct ash_task task;
    struct compare *compare;
    uint64_t offset;
    uint64_t bytes;
};

static void set_mark(struct compare *compare, uint64_t offset, int status, int image, int error)
{
    if (offset < compare->mark) {
        compare->mark = offset;
        compare->mark_status = status;
        compare->mark_image = image;
        compare->mark_error = error;
        compare->mark_is_allocation = false;
    }
}

/* Status of one image, also beyond its end. */
ASH_CO_FN static bool look(struct compare *compare, int image, uint64_t offset, uint64_t bytes,
                           struct ash_status *status)
{
    int ret = ash_tool_status(compare->disk[image], NULL, offset, bytes, status);
    if (ret < 0) {
        set_mark(compare, offset, EXIT_STATUS, image, ret);
    }
    return ret == 0;
}

ASH_CO_FN static bool fetch(struct compare *compare, int image, uint64_t offset, void *buffer,
                            uint64_t bytes)
{
    int ret = ash_tool_read(compare->disk[image], offset, buffer, bytes);
    if (ret < 0) {
        set_mark(compare, offset, EXIT_READ, image, ret);
    }
    return ret == 0;
}

/* The sector of the first byte that differs. */
static void find_difference(struct compare *compare, uint64_t offset, const uint8_t *a,
                            const uint8_t *b, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += SECTOR_BYTES) {
        if (memcmp(a + at, b + at, ASH_MIN(SECTOR_BYTES, bytes - at)) != 0) {
            set_mark(compare, offset + at, EXIT_DIFFERENT, 0, 0);
            return;
        }
    }
}

/* One image holds data where the other reads as zeroes. */
static void find_nonzero(struct compare *compare, uint64_t offset, const uint8_t *data,
                         uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += SECTOR_BYTES) {
        if (!ash_buffer_is_zero(data + at, ASH_MIN(SECTOR_BYTES, bytes - at))) {
            set_mark(compare, offset + at, EXIT_DIFFERENT, 0, 0);
            return;
        }
    }
}

/* A range in which neither image's status changes. */
ASH_CO_FN static void compare_range(struct compare *compare, uint64_t offset, uint64_t bytes,
                                    const struct ash_status *status, uint8_t *buffer)
{
    bool zero[2] = {ash_tool_status_is_zero(&status[0]), ash_tool_status_is_zero(&status[1])};
    uint8_t *second = buffer + WINDOW_BYTES;
    const uint32_t kinds = ASH_STATUS_DATA | ASH_STATUS_ZERO | ASH_STATUS_ALLOCATED |
                           ASH_STATUS_OFFSET | ASH_STATUS_COMPRESSED;
    if (compare->strict && (status[0].flags & kinds) != (status[1].flags & kinds)) {
        set_mark(compare, offset, EXIT_DIFFERENT, 0, 0);
        compare->mark_is_allocation |= compare->mark == offset;
        return;
    }
    if (zero[0] && zero[1]) {
        return;
    }
    if (!zero[0] && !zero[1]) {
        if (fetch(compare, 0, offset, buffer, bytes) && fetch(compare, 1, offset, second, bytes)) {
            find_difference(compare, offset, buffer, second, bytes);
        }
    } else if (fetch(compare, zero[0] ? 1 : 0, offset, buffer, bytes)) {
        find_nonzero(compare, offset, buffer, bytes);
    }
}

ASH_CO_FN static int compare_window(struct ash_task *task)
{
    struct window *window = ash_container_of(task, struct window, task);
    struct compare *compare = window->compare;
    uint64_t at = window->offset;
    uint64_t end = at + window->bytes;
    struct ash_loop *loop = ash_co_loop();
    uint8_t *buffer = ash_buffer_alloc(loop, 2 * WINDOW_BYTES, 4096);
    if (buffer == NULL) {
        set_mark(compare, at, EXIT_READ, 0, -ENOMEM);
        at = end;
    }
    while (at < end && at < compare->mark) {
        struct ash_status status[2];
        if (!look(compare, 0, at, end - at, &status[0]) ||
            !look(compare, 1, at, end - at, &status[1])) {
            break;
        }
        uint64_t bytes = ASH_MIN(status[0].bytes, status[1].bytes);
        compare_range(compare, at, bytes, status, buffer);
        at += bytes;
    }
    if (buffer != NULL) {
        ash_buffer_free(loop, buffer, 2 * WINDOW_BYTES);
    }
    compare->done_bytes += window->bytes;
    ash_progress_set(&compare->progress,
                     (double)compare->done_bytes * 100 / (double)compare->total_bytes);
    g_free(window);
    return 0;
}

/* How far from `offset` on both images read as zeroes and no window is needed. Strict comparing
 * looks at everything. */
ASH_CO_FN static uint64_t skippable(struct compare *compare, uint64_t offset, uint64_t end)
{
    struct ash_status status[2];
    if (compare->strict || !look(compare, 0, offset, end - offset, &status[0]) ||
        !ash_tool_status_is_zero(&status[0]) ||
        !look(compare, 1, offset, status[0].bytes, &status[1]) ||
        !ash_tool_status_is_zero(&status[1])) {
        return 0;
    }
    return ASH_MIN(status[0].bytes, status[1].bytes);
}

/* Compares [start, end). */
ASH_CO_FN static void compare_part(struct compare *compare, uint64_t start, uint64_t end)
{
    struct ash_task_pool pool;
    ash_task_pool_init(&pool, &ash_co_loop()->sched, WINDOWS);
    for (uint64_t at = start; at < end && at < compare->mark;) {
        uint64_t skip = skippable(compare, at, end);
        if (skip > 0) {
            at += skip;
            compare->done_bytes += skip;
            continue;
        }
        struct window *window = g_new0(struct window, 1);
        window->task.run = compare_window;
        window->compare = compare;
        window->offset = at;
        window->bytes = ASH_MIN(WINDOW_BYTES - at % WINDOW_BYTES, end - at);
        at += window->bytes;
        ash_task_pool_start(&pool, &window->task);
    }
    ash_task_pool_finish(&pool);
}

/* Prints what the mark stands for. Returns its exit status. */
static int tell_mark(const struct compare *compare)
{
    const char *filename = compare->image[compare->mark_image].filename;
    if (compare->mark_status == EXIT_READ) {
        ash_tool_error("Error while reading offset %" PRIu64 " of %s: %s", compare->mark, filename,
                       strerror(-compare->mark_error));
    } else if (compare->mark_status == EXIT_STATUS) {
        ash_tool_error("Sector allocation test failed for %s at offset %" PRIu64 ": %s", filename,
                       compare->mark, strerror(-compare->mark_error));
    } else if (!compare->quiet && compare->mark_is_allocation) {
        printf("Strict mode: Offset %" PRIu64 " block status mismatch!\n", compare->mark);
    } else if (!compare->quiet) {
        printf("Content mismatch at offset %" PRIu64 "!\n", compare->mark);
    }
    return compare->mark_status;
}

ASH_CO_FN static int compare_disks(struct compare *compare)
{
    compare->common_bytes = ASH_MIN(compare->bytes[0], compare->bytes[1]);
    compare->total_bytes = ASH_MAX(compare->bytes[0], compare->bytes[1]);
    compare->mark = UINT64_MAX;
    if (compare->strict && compare->bytes[0] != compare->bytes[1]) {
        if (!compare->quiet) {
            printf("Strict mode: Image size mismatch!\n");
        }
        return EXIT_DIFFERENT;
    }
    compare_part(compare, 0, compare->common_bytes);
    if (compare->mark == UINT64_MAX && compare->bytes[0] != compare->bytes[1]) {
        if (!compare->quiet) {
            printf("Warning: Image size mismatch!\n");
            fflush(stdout);
        }
        compare_part(compare, compare->common_bytes, compare->total_bytes);
    }
    if (compare->mark != UINT64_MAX) {
        return tell_mark(compare);
    }
    ash_progress_set(&compare->progress, 100);
    if (!compare->quiet) {
        printf("Images are identical.\n");
    }
    return 0;
}

ASH_CO_FN static int compare_co(void *opaque)
{
    struct compare *compare = opaque;
    int status = 0;
    ash_progress_begin(&compare->progress, compare->progress_on);
    for (int i = 0; i < 2 && status == 0; i++) {
        compare->disk[i] = ash_tool_open(&compare->image[i]);
        if (compare->disk[i] == NULL) {
            status = EXIT_OPEN;
        } else {
            compare->bytes[i] = ash_tool_bytes(compare->disk[i]);
        }
    }
    if (status == 0) {
        status = compare_disks(compare);
    }
    for (int i = 0; i < 2; i++) {
        if (ash_tool_close(compare->disk[i], compare->image[i].filename) < 0) {
            status = EXIT_READ;
        }
    }
    ash_progress_end(&compare->progress);
    return status;
}

enum {
    OPTION_OBJECT = 256,
    OPTION_IMAGE_OPTS,
};

/* Takes one option. -1, or the exit status. */
static int take_option(struct compare *compare, int c, char **argv)
{
    switch (c) {
    case 'h':
        return ash_img_help("compare");
    case 'f':
        compare->image[0].format = optarg;
        return -1;
    case 'F':
        compare->image[1].format = optarg;
        return -1;
    case 'T':
        for (int i = 0; i < 2; i++) {
            struct ash_tool_image *image = &compare->image[i];
            if (ash_cache_mode(optarg, &image->flags, &image->write_through) < 0) {
                ash_tool_error("Invalid source cache option: %s", optarg);
                return EXIT_OPEN;
            }
        }
        return -1;
    case 'p':
        compare->progress_on = true;
        return -1;
    case 'q':
        compare->quiet = true;
        return -1;
    case 's':
        compare->strict = true;
        return -1;
    case 'U':
        compare->image[0].flags |= ASH_NODE_FORCE_SHARE;
        compare->image[1].flags |= ASH_NODE_FORCE_SHARE;
        return -1;
    case OPTION_OBJECT:
        return ash_tool_object(optarg) ? -1 : EXIT_OPEN;
    case OPTION_IMAGE_OPTS:
        compare->image[0].image_opts = true;
        compare->image[1].image_opts = true;
        return -1;
    default:
        return ash_tool_bad_option(c, argv);
    }
}

int ash_img_compare(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {"force-share", no_argument, NULL, 'U'},
        {NULL, 0, NULL, 0},
    };
    struct compare compare = {.strict = false};
    int c;
    while ((c = getopt_long(argc, argv, ":hf:F:T:pqsU", options, NULL)) != -1) {
        int status = take_option(&compare, c, argv);
        if (status >= 0) {
            return status;
        }
    }
    if (optind != argc - 2) {
        return ash_tool_usage("Expecting two image file names");
    }
    compare.image[0].filename = argv[optind];
    compare.image[1].filename = argv[optind + 1];
    if (compare.quiet) {
        compare.progress_on = false;
    }
    if (compare.image[0].image_opts &&
        (compare.image[0].format != NULL || compare.image[1].format != NULL)) {
        ash_tool_error("--image-opts and --format are mutually exclusive");
        return EXIT_OPEN;
    }
    return ash_tool_run(compare_co, &compare, EXIT_OPEN);
}
