/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* resize: another length, absolute or relative. Losing data needs --shrink. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include "block/driver.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"
#include "util/size.h"

struct resize {
    struct ash_tool_image image;
    bool quiet;
    bool shrink;
    int sign; /* of a relative size; 0: absolute */
    uint64_t bytes;
    int preallocation; /* enum ash_prealloc */
};

/* The length asked for. False after saying what is wrong with it. */
static bool target_bytes(const struct resize *resize, uint64_t current, uint64_t *target)
{
    bool good;
    if (resize->sign > 0) {
        good = resize->bytes <= INT64_MAX - current;
        *target = current + resize->bytes;
    } else if (resize->sign < 0) {
        good = resize->bytes < current;
        *target = current - resize->bytes;
    } else {
        good = true;
        *target = resize->bytes;
    }
    if (!good || *target == 0) {
        ash_tool_error("New image size must be positive");
        return false;
    }
    return true;
}

ASH_CO_FN static int resize_disk(const struct resize *resize, struct ash_disk *disk)
{
    struct ash_error error = ASH_ERROR_INIT;
    uint64_t current = ash_tool_bytes(disk);
    uint64_t target;
    if (!target_bytes(resize, current, &target)) {
        return 1;
    }
    if (target <= current && resize->preallocation != ASH_PREALLOC_OFF) {
        ash_tool_error("Preallocation can only be used for growing images");
        return 1;
    }
    if (target < current && !resize->shrink) {
        ash_tool_error("Use the --shrink option to perform a shrink operation.");
        ash_tool_warning(
            "Shrinking an image will delete all data beyond the shrunken image's end. "
            "Before performing such an operation, make sure there is no important data "
            "there.");
        return 1;
    }
    int ret = ash_co_disk_resize(disk, target, resize->shrink ? ASH_RESIZE_SHRINK : 0,
                                 resize->preallocation, &error);
    if (ret < 0) {
        ash_tool_error("%s: %s", resize->image.filename,
                       error.message[0] != '\0' ? error.message : strerror(-ret));
        return 1;
    }
    return 0;
}

ASH_CO_FN static int resize_co(void *opaque)
{
    const struct resize *resize = opaque;
    struct ash_disk *disk = ash_tool_open(&resize->image);
    if (disk == NULL) {
        return 1;
    }
    int status = resize_disk(resize, disk);
    if (ash_tool_close(disk, resize->image.filename) < 0) {
        status = 1;
    }
    if (status == 0 && !resize->quiet) {
        printf("Image resized.\n");
    }
    return status;
}

static bool take_size(struct resize *resize, const char *text)
{
    if (text[0] == '+' || text[0] == '-') {
        resize->sign = text[0] == '+' ? 1 : -1;
        text++;
    }
    if (ash_size_parse(text, 1, &resize->bytes) == 0) {
        return true;
    }
    ash_tool_error("Parameter 'size' expects a non-negative number below 2^64\n"
                   "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                   "and exabytes, respectively.");
    return false;
}

static bool take_preallocation(struct resize *resize, const char *text)
{
    for (int i = 0; ash_prealloc_names[i] != NULL; i++) {
        if (strcmp(text, ash_prealloc_names[i]) == 0) {
            resize->preallocation = i;
            return true;
        }
    }
    ash_tool_error("Invalid preallocation mode '%s'", text);
    return false;
}

enum {
    OPTION_OBJECT = 256,
    OPTION_IMAGE_OPTS,
    OPTION_PREALLOCATION,
    OPTION_SHRINK,
};

/* Takes one option. -1, or the exit status. */
static int take_option(struct resize *resize, int c, char **argv)
{
    switch (c) {
    case 'h':
        return ash_img_help("resize");
    case 'f':
        resize->image.format = optarg;
        return -1;
    case 'q':
        resize->quiet = true;
        return -1;
    case OPTION_OBJECT:
        return ash_tool_object(optarg) ? -1 : 1;
    case OPTION_IMAGE_OPTS:
        resize->image.image_opts = true;
        return -1;
    case OPTION_PREALLOCATION:
        return take_preallocation(resize, optarg) ? -1 : 1;
    case OPTION_SHRINK:
        resize->shrink = true;
        return -1;
    default:
        return ash_tool_bad_option(c, argv);
    }
}

static bool asks_for_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

int ash_img_resize(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {"preallocation", required_argument, NULL, OPTION_PREALLOCATION},
        {"shrink", no_argument, NULL, OPTION_SHRINK},
        {NULL, 0, NULL, 0},
    };
    struct resize resize = {.image.flags = ASH_NODE_WRITE};
    int c;
    if (argc == 2 && asks_for_help(argv[1])) {
        return ash_img_help("resize");
    }
    /* The size comes last and may begin with a minus: getopt must not see it. */
    if (argc < 3) {
        return ash_tool_usage("Not enough arguments");
    }
    const char *size = argv[--argc];
    while ((c = getopt_long(argc, argv, ":f:hq", options, NULL)) != -1) {
        int status = take_option(&resize, c, argv);
        if (status >= 0) {
            return status;
        }
    }
    if (optind != argc - 1) {
        return ash_tool_usage("Expecting image file name and size");
    }
    resize.image.filename = argv[optind];
    if (resize.image.image_opts && resize.image.format != NULL) {
        ash_tool_error("--image-opts and --format are mutually exclusive");
        return 1;
    }
    if (!take_size(&resize, size)) {
        return 1;
    }
    ash_tool_catch_signals();
    return ash_tool_run(resize_co, &resize, 1);
}
