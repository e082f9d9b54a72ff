/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* measure: how large an image would become. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "block/driver.h"
#include "block/image/image.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

struct measure {
    struct ash_tool_image image; /* filename NULL: an empty image of `bytes` */
    const char *format;
    const struct ash_driver *driver;
    struct ash_tool_options options;
    enum ash_output output;
    bool sized;
    uint64_t bytes;
};

/* Compatibility levels without bitmaps. */
static bool is_old(const char *compat)
{
    return compat != NULL && (strcmp(compat, "0.10") == 0 || strcmp(compat, "v2") == 0);
}

/* Whether source and target can hold dirty bitmaps: then the output has a line for them. */
ASH_CO_FN static bool holds_bitmaps(struct ash_node *node, const struct ash_driver *format,
                                    const json_t *options)
{
    if (node == NULL || node->driver != format || strcmp(format->name, "qcow2") != 0) {
        return false;
    }
    json_t *info = ash_image_info(node);
    json_t *data = json_object_get(json_object_get(info, "format-specific"), "data");
    const char *compat = json_string_value(json_object_get(data, "compat"));
    bool holds = !is_old(compat) && !is_old(json_string_value(json_object_get(options, "compat")));
    json_decref(info);
    return holds;
}

static void print_measure(const struct measure *measure, const struct ash_measure *result,
                          bool bitmaps)
{
    if (measure->output == ASH_OUTPUT_HUMAN) {
        printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n",
               result->required_bytes, result->fully_allocated_bytes);
        if (bitmaps) {
            printf("bitmaps size: 0\n");
        }
        return;
    }
    json_t *object = json_object();
    if (bitmaps) {
        json_object_set_new(object, "bitmaps", json_integer(0));
    }
    json_object_set_new(object, "required", json_integer((json_int_t)result->required_bytes));
    json_object_set_new(object, "fully-allocated",
                        json_integer((json_int_t)result->fully_allocated_bytes));
    ash_tool_print_json(object);
    json_decref(object);
}

ASH_CO_FN static int measure_co(void *opaque)
{
    struct measure *measure = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_measure result;
    struct ash_disk *disk = NULL;
    struct ash_node *node = NULL;
    if (measure->image.filename != NULL) {
        disk = ash_tool_open(&measure->image);
        if (disk == NULL) {
            return 1;
        }
        node = ash_disk_node(disk);
        measure->bytes = ash_tool_bytes(disk);
    }
    int ret = ash_image_measure(ash_co_loop(), measure->format, measure->options.list,
                                measure->bytes, node, &result, &error);
    if (ret < 0) {
        ash_tool_error("%s", error.message[0] != '\0' ? error.message : strerror(-ret));
    } else {
        print_measure(measure, &result,
                      holds_bitmaps(node, measure->driver, measure->options.list));
    }
    if (disk != NULL && ash_tool_close(disk, measure->image.filename) < 0) {
        ret = -EIO;
    }
    return ret < 0 ? 1 : 0;
}

enum {
    OPTION_OUTPUT = 256,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
    OPTION_SIZE,
};

/* Takes one option. -1, or the exit status. */
static int take_option(struct measure *measure, int c, char **argv)
{
    switch (c) {
    case 'h':
        return ash_img_help("measure");
    case 'f':
        measure->image.format = optarg;
        return -1;
    case 'l':
        return ash_img_unsupported("-l", "Internal snapshots are");
    case 'o':
        return ash_tool_options_add(&measure->options, optarg) ? -1 : 1;
    case 'O':
        measure->format = optarg;
        return -1;
    case 'U':
        measure->image.flags |= ASH_NODE_FORCE_SHARE;
        return -1;
    case OPTION_OUTPUT:
        return ash_tool_output(optarg, &measure->output) ? -1 : 1;
    case OPTION_OBJECT:
        return ash_tool_object(optarg) ? -1 : 1;
    case OPTION_IMAGE_OPTS:
        measure->image.image_opts = true;
        return -1;
    case OPTION_SIZE:
        measure->sized = true;
        return ash_tool_size(optarg, "image size", 0, INT64_MAX, &measure->bytes) ? -1 : 1;
    default:
        return ash_tool_bad_option(c, argv);
    }
}

/* What cannot go together. -1, or the exit status. */
static int check_arguments(struct measure *measure, int argc, char **argv)
{
    if (argc - optind > 1) {
        ash_tool_error("At most one filename argument is allowed.");
    } else if (measure->sized && argc - optind == 1) {
        ash_tool_error("--size N cannot be used together with a filename.");
    } else if (!measure->sized && argc - optind == 0) {
        if (measure->image.image_opts || measure->image.format != NULL) {
            ash_tool_error("--image-opts, -f, and -l require a filename argument.");
        } else {
            ash_tool_error("Either --size N or one filename must be specified.");
        }
    } else if (measure->sized && (measure->image.image_opts || measure->image.format != NULL)) {
        ash_tool_error("--image-opts, -f, and -l require a filename argument.");
    } else if (measure->image.image_opts && measure->image.format != NULL) {
        ash_tool_error("--image-opts and --format are mutually exclusive");
    } else {
        measure->image.filename = argv[optind]; /* or argv[argc], which is NULL */
        return -1;
    }
    return 1;
}

/* The target's format and options. -1, or the exit status. */
static int check_target(struct measure *measure)
{
    struct ash_error error = ASH_ERROR_INIT;
    if (ash_tool_format(measure->format, &measure->driver, &error) < 0) {
        ash_tool_error("%s", error.message);
        return 1;
    }
    if (measure->options.help != NULL) {
        /* Here it is no option. */
        ash_error_set(&error, -EINVAL, "Invalid parameter '%s'", measure->options.help);
    }
    if (error.code < 0 ||
        ash_tool_options_check(&measure->options, measure->driver, "file:", &error) < 0) {
        ash_tool_error("%s", error.message);
        ash_tool_error("Invalid options for file format '%s'", measure->format);
        return 1;
    }
    return -1;
}

int ash_img_measure(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"output", required_argument, NULL, OPTION_OUTPUT},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {"size", required_argument, NULL, OPTION_SIZE},
        {"force-share", no_argument, NULL, 'U'},
        {NULL, 0, NULL, 0},
    };
    struct measure measure = {.format = "raw"};
    int status = -1;
    int c;
    while (status < 0 && (c = getopt_long(argc, argv, ":hf:l:o:O:U", options, NULL)) != -1) {
        status = take_option(&measure, c, argv);
    }
    if (status < 0) {
        status = check_arguments(&measure, argc, argv);
    }
    if (status < 0) {
        status = check_target(&measure);
    }
    if (status < 0) {
        status = ash_tool_run(measure_co, &measure, 1);
    }
    ash_tool_options_clear(&measure.options);
    return status;
}
