/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* map: which layer holds which part of an image, and where. Neighbours that tell the same story
 * become one line. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "block/driver.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

struct map {
    struct ash_tool_image image;
    enum ash_output output;
    uint64_t start;
    uint64_t length; /* UINT64_MAX: to the end */
};

/* One line of output. */
struct line {
    uint64_t start;
    uint64_t bytes;
    uint32_t depth;
    bool present, zero, data, has_offset;
    uint64_t offset;
    const char *filename;
};

/* Zeroes that are made up are zeroes; anything else is not there. */
static bool is_made_up(const struct ash_status *status)
{
    return status->host != NULL && status->host->driver->no_medium &&
           (status->flags & ASH_STATUS_ZERO) == 0;
}

static struct line line_of(const struct ash_status *status, uint64_t start)
{
    if (is_made_up(status)) {
        return (struct line){.start = start, .bytes = status->bytes, .depth = status->depth};
    }
    struct line line = {
        .start = start,
        .bytes = status->bytes,
        .depth = status->depth,
        .present = (status->flags & ASH_STATUS_ALLOCATED) != 0,
        .zero = ash_tool_status_is_zero(status),
        .data = (status->flags & ASH_STATUS_DATA) != 0,
        .has_offset = (status->flags & ASH_STATUS_OFFSET) != 0,
        .offset = status->host_offset,
        .filename = status->host != NULL ? status->host->filename : NULL,
    };
    return line;
}

static bool joins(const struct line *a, const struct line *b)
{
    if (a->bytes == 0 || a->depth != b->depth || a->present != b->present || a->zero != b->zero ||
        a->data != b->data || a->has_offset != b->has_offset) {
        return false;
    }
    bool same_file = a->filename == b->filename || (a->filename != NULL && b->filename != NULL &&
                                                    strcmp(a->filename, b->filename) == 0);
    return same_file && (!a->has_offset || a->offset + a->bytes == b->offset);
}

/* 0, or 1 after saying why the line cannot be shown. */
static int print_human(const struct line *line)
{
    if (!line->data || line->zero) {
        return 0;
    }
    if (!line->has_offset || line->filename == NULL) {
        ash_tool_error("File contains external, encrypted or compressed clusters.");
        return 1;
    }
    char number[3][32];
    const uint64_t values[3] = {line->start, line->bytes, line->offset};
    for (int i = 0; i < 3; i++) {
        snprintf(number[i], sizeof(number[i]), "%#" PRIx64, values[i]);
    }
    printf("%-16s%-16s%-16s%s\n", number[0], number[1], number[2], line->filename);
    return 0;
}

static void print_json(const struct line *line, bool first)
{
    static const char *const names[] = {"false", "true"};
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %" PRIu32
           ", \"present\": %s, \"zero\": %s, \"data\": %s",
           first ? "[" : ",\n", line->start, line->bytes, line->depth, names[line->present],
           names[line->zero], names[line->data]);
    if (line->has_offset) {
        printf(", \"offset\": %" PRIu64, line->offset);
    }
    printf("}");
}

/* Prints all lines. */
ASH_CO_FN static int walk(const struct map *map, struct ash_disk *disk)
{
    uint64_t end = ash_tool_bytes(disk);
    uint64_t at = map->start;
    struct line current = {.start = at};
    bool first = true;
    if (map->length < end - ASH_MIN(at, end)) {
        end = at + map->length;
    }
    while (at < end) {
        struct ash_status status;
        int ret = ash_tool_status(disk, NULL, at, end - at, &status);
        if (ret < 0) {
            ash_tool_error("Failed to read image metadata: %s", strerror(-ret));
            return 1;
        }
        struct line next = line_of(&status, at);
        at += status.bytes;
        if (joins(&current, &next)) {
            current.bytes += next.bytes;
            continue;
        }
        if (current.bytes > 0 && map->output == ASH_OUTPUT_JSON) {
            print_json(&current, first);
            first = false;
        } else if (current.bytes > 0 && print_human(&current) != 0) {
            return 1;
        }
        current = next;
    }
    if (map->output == ASH_OUTPUT_JSON) {
        print_json(&current, first);
        printf("]\n");
        return 0;
    }
    return print_human(&current);
}

ASH_CO_FN static int map_co(void *opaque)
{
    const struct map *map = opaque;
    struct ash_disk *disk = ash_tool_open(&map->image);
    if (disk == NULL) {
        return 1;
    }
    if (map->output == ASH_OUTPUT_HUMAN) {
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    }
    int status = walk(map, disk);
    return ash_tool_close(disk, map->image.filename) < 0 ? 1 : status;
}

enum {
    OPTION_OUTPUT = 256,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
};

int ash_img_map(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"format", required_argument, NULL, 'f'},
        {"output", required_argument, NULL, OPTION_OUTPUT},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {"force-share", no_argument, NULL, 'U'},
        {"start-offset", required_argument, NULL, 's'},
        {"max-length", required_argument, NULL, 'l'},
        {NULL, 0, NULL, 0},
    };
    struct map map = {.length = UINT64_MAX};
    int c;
    while ((c = getopt_long(argc, argv, ":f:s:l:hU", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            return ash_img_help("map");
        case 'f':
            map.image.format = optarg;
            break;
        case 'U':
            map.image.flags |= ASH_NODE_FORCE_SHARE;
            break;
        case 's':
            if (!ash_tool_size(optarg, "start offset", 0, INT64_MAX, &map.start)) {
                return 1;
            }
            break;
        case 'l':
            if (!ash_tool_size(optarg, "max length", 0, INT64_MAX, &map.length)) {
                return 1;
            }
            break;
        case OPTION_OUTPUT:
            if (!ash_tool_output(optarg, &map.output)) {
                return 1;
            }
            break;
        case OPTION_OBJECT:
            if (!ash_tool_object(optarg)) {
                return 1;
            }
            break;
        case OPTION_IMAGE_OPTS:
            map.image.image_opts = true;
            break;
        default:
            return ash_tool_bad_option(c, argv);
        }
    }
    if (optind != argc - 1) {
        return ash_tool_usage("Expecting one image file name");
    }
    map.image.filename = argv[optind];
    if (map.image.image_opts && map.image.format != NULL) {
        ash_tool_error("--image-opts and --format are mutually exclusive");
        return 1;
    }
    return ash_tool_run(map_co, &map, 1);
}
