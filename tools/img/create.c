/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* create: a new image, perhaps on top of a backing file. */
#include <errno.h>
#include <getopt.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "block/driver.h"
#include "block/image/image.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

struct create {
    const char *filename;
    const char *format;
    const struct ash_driver *driver;
    struct ash_tool_options options;
    bool quiet;
    bool unsafe; /* -u: the backing file is not opened */
    bool sized;
    uint64_t bytes;
};

/* Failures of this command name the new image first. */
static int fail(const struct create *create, const struct ash_error *error)
{
    ash_tool_error("%s: %s", create->filename, error->message);
    return 1;
}

/* What the line "Formatting" tells of, in the order in which users of such images know it. What
 * follows the equals sign is shown where nothing was given. */
static const char *const qcow2_line[] = {
    "encryption",
    "encrypt.format",
    "cluster_size=65536",
    "extended_l2=off",
    "preallocation",
    "compression_type=zlib",
    "size",
    "compat",
    "data_file",
    "data_file_raw",
    "backing_file",
    "backing_fmt",
    "lazy_refcounts=off",
    "refcount_bits=16",
    "nocow",
    "extent_size_hint",
    NULL,
};

static void append_option(GString *line, const char *name, const char *value)
{
    g_string_append_printf(line, " %s=", name);
    for (const char *p = value; *p != '\0'; p++) {
        g_string_append_c(line, *p);
        if (*p == ',') {
            g_string_append_c(line, ',');
        }
    }
}

static void print_formatting(const struct create *create)
{
    GString *line = g_string_new(NULL);
    if (strcmp(create->driver->name, "qcow2") == 0) {
        for (const char *const *entry = qcow2_line; *entry != NULL; entry++) {
            char **parts = g_strsplit(*entry, "=", 2);
            const char *value = ash_tool_options_get(&create->options, parts[0]);
            value = value != NULL ? value : parts[1];
            if (value != NULL) {
                append_option(line, parts[0], value);
            }
            g_strfreev(parts);
        }
    } else {
        const char *name;
        json_t *value;
        append_option(line, "size", ash_tool_options_get(&create->options, "size"));
        json_object_foreach(create->options.list, name, value)
        {
            if (strcmp(name, "size") != 0) {
                append_option(line, name, json_string_value(value));
            }
        }
    }
    printf("Formatting '%s', fmt=%s%s\n", create->filename, create->format, line->str);
    fflush(stdout);
    g_string_free(line, TRUE);
}

/* Opens the backing file to see that it is there, and how long it is. */
ASH_CO_FN static int look_at_backing(struct create *create, const char *backing, const char *format,
                                     uint64_t *bytes, struct ash_error *error)
{
    bool path = strncmp(backing, "json:", 5) != 0 && strstr(backing, "://") == NULL;
    char *filename = path ? ash_path_beside(create->filename, backing) : g_strdup(backing);
    struct ash_disk *disk = NULL;
    json_t *description = ash_describe(filename, format, error);
    int ret = description != NULL ? 0 : -EINVAL;
    if (ret == 0) {
        ret = ash_co_disk_open(ash_co_loop(), description, ASH_NODE_FORCE_SHARE, &disk, error);
        json_decref(description);
    }
    g_free(filename);
    if (ret < 0) {
        char reason[sizeof(error->message)];
        snprintf(reason, sizeof(reason), "%s", error->message);
        return ash_error_set(error, ret, "%s\nCould not open backing image.", reason);
    }
    *bytes = ash_tool_bytes(disk);
    if (format == NULL) {
        ret = ash_error_set(error, -EINVAL,
                            "Backing file specified without backing format\nDetected format of %s.",
                            ash_disk_node(disk)->driver->name);
    }
    int closed = ash_co_disk_close(disk, ret == 0 ? error : NULL);
    return ret < 0 ? ret : closed;
}

/* What must be right of the backing file before anything is made. */
ASH_CO_FN static int check_backing(struct create *create, struct ash_error *error)
{
    const char *backing = ash_tool_options_get(&create->options, "backing_file");
    const char *format = ash_tool_options_get(&create->options, "backing_fmt");
    if (backing == NULL) {
        return 0;
    }
    if (strcmp(backing, create->filename) == 0) {
        return ash_error_set(error, -EINVAL,
                             "Error: Trying to create an image with the same filename "
                             "as the backing file");
    }
    if (backing[0] == '\0') {
        return ash_error_set(error, -EINVAL, "Expected backing file name, got empty string");
    }
    if (create->unsafe) {
        return format != NULL
                   ? 0
                   : ash_error_set(error, -EINVAL, "Backing file specified without backing format");
    }
    uint64_t bytes = 0;
    int ret = look_at_backing(create, backing, format, &bytes, error);
    if (ret == 0 && !create->sized) {
        create->sized = true;
        create->bytes = bytes;
    }
    return ret;
}

/* Whether an image can be made under that name at all. */
static bool names_a_file(const char *filename, struct ash_error *error)
{
    if (strncmp(filename, "json:", 5) == 0) {
        ash_error_set(error, -EINVAL, "Unknown protocol 'json'");
        return false;
    }
    json_t *description = ash_describe(filename, "file", error);
    if (description == NULL) {
        return false;
    }
    const char *name = json_string_value(json_object_get(description, "driver"));
    const struct ash_driver *protocol = name != NULL ? ash_driver_find(name) : NULL;
    bool can = protocol == NULL || protocol->create_file != NULL;
    if (!can) {
        ash_error_set(error, -ENOTSUP, "Protocol driver '%s' does not support image creation",
                      name);
    }
    json_decref(description);
    return can;
}

/* Puts -b, -F and the size among the options. */
static int settle_options(struct create *create, const char *backing, const char *format,
                          struct ash_error *error)
{
    if (backing != NULL || format != NULL) {
        if (!create->driver->backing) {
            return ash_error_set(error, -ENOTSUP, "Backing %s not supported for file format '%s'",
                                 backing != NULL ? "file" : "format", create->format);
        }
        if (backing != NULL) {
            ash_tool_options_set(&create->options, "backing_file", backing);
        }
        if (format != NULL) {
            ash_tool_options_set(&create->options, "backing_fmt", format);
        }
    }
    if (!names_a_file(create->filename, error)) {
        return -EINVAL;
    }
    const char *size = ash_tool_options_get(&create->options, "size");
    if (size != NULL && create->sized) {
        return ash_error_set(error, -EINVAL, "The image size must be specified only once");
    }
    int ret = ash_tool_options_check(&create->options, create->driver, create->filename, error);
    if (ret == 0 && size != NULL) {
        create->sized = true;
        ret = ash_tool_number(ash_tool_options_get(&create->options, "size"), INT64_MAX,
                              &create->bytes)
                  ? 0
                  : ash_error_set(error, -EINVAL, "The image size is too large");
    }
    return ret;
}

ASH_CO_FN static int create_co(void *opaque)
{
    struct create *create = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = check_backing(create, &error);
    if (ret < 0) {
        return fail(create, &error);
    }
    if (!create->sized) {
        ash_error_set(&error, -EINVAL, "Image creation needs a size parameter");
        return fail(create, &error);
    }
    char number[32];
    snprintf(number, sizeof(number), "%" PRIu64, create->bytes);
    ash_tool_options_set(&create->options, "size", number);
    if (!create->quiet) {
        print_formatting(create);
    }
    ret = ash_image_create(ash_co_loop(), create->filename, create->format, create->bytes,
                           create->options.list, &error);
    if (ret < 0) {
        return fail(create, &error);
    }
    /* Whoever stops it wants no image; and a part of one never stays behind. */
    if (!ash_tool_completed()) {
        ash_tool_remove_made(create->filename);
        return 1;
    }
    return 0;
}

static int run_create(struct create *create, const char *backing, const char *backing_format)
{
    struct ash_error error = ASH_ERROR_INIT;
    if (ash_tool_format(create->format, &create->driver, &error) < 0) {
        if (create->options.help) {
            ash_tool_error("%s", error.message);
            return 1;
        }
        return fail(create, &error);
    }
    if (create->options.help) {
        ash_tool_options_help(create->driver, create->filename);
        return 0;
    }
    if (settle_options(create, backing, backing_format, &error) < 0) {
        return fail(create, &error);
    }
    ash_tool_catch_signals();
    return ash_tool_run(create_co, create, 1);
}

/* The operands: a name and perhaps a size. */
static int take_operands(struct create *create, int argc, char **argv)
{
    if (optind < argc) {
        create->filename = argv[optind++];
    } else if (!create->options.help) {
        return ash_tool_usage("Expecting image file name");
    }
    if (optind < argc) {
        if (!ash_tool_size(argv[optind++], "image size", 0, INT64_MAX, &create->bytes)) {
            return 1;
        }
        create->sized = true;
    }
    if (optind < argc) {
        return ash_tool_usage("Unexpected argument: %s", argv[optind]);
    }
    return 0;
}

int ash_img_create(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"object", required_argument, NULL, 256},
        {NULL, 0, NULL, 0},
    };
    struct create create = {.format = "raw"};
    const char *backing = NULL;
    const char *backing_format = NULL;
    int status = -1;
    int c;
    while (status < 0 && (c = getopt_long(argc, argv, ":F:b:f:ho:qu", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            status = ash_img_help("create");
            break;
        case 'F':
            backing_format = optarg;
            break;
        case 'b':
            backing = optarg;
            break;
        case 'f':
            create.format = optarg;
            break;
        case 'o':
            status = ash_tool_options_add(&create.options, optarg) ? -1 : 1;
            break;
        case 'q':
            create.quiet = true;
            break;
        case 'u':
            create.unsafe = true;
            break;
        case 256:
            status = ash_tool_object(optarg) ? -1 : 1;
            break;
        default:
            status = ash_tool_bad_option(c, argv);
        }
    }
    if (status < 0) {
        status = take_operands(&create, argc, argv);
        if (status == 0) {
            status = run_create(&create, backing, backing_format);
        }
    }
    ash_tool_options_clear(&create.options);
    return status;
}
