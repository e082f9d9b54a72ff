/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert: copies images, one after another, into one of another format. */
#include "tools/img/convert.h"
#include <errno.h>
#include <getopt.h>
#include <glib.h>
#include <string.h>
#include "block/driver.h"
#include "block/map/map.h"
#include "tools/img/img.h"
#include "util/size.h"

#define SPARSE_BYTES_DEFAULT 4096u
#define SPARSE_BYTES_MAX (16 * MiB)
#define WINDOWS_DEFAULT 8u
#define WINDOWS_MAX 16u

/* What does not show before the whole command line is read. */
struct arguments {
    struct convert convert;
    const char *source_format;
    const char *source_cache;
    const char *target_cache;
    bool source_image_opts;
    bool force_share;
    bool sparse_given;
};

ASH_CO_FN static int open_sources(struct convert *convert)
{
    for (uint32_t i = 0; i < convert->source_count; i++) {
        struct convert_source *source = &convert->sources[i];
        source->disk = ash_tool_open(&source->image);
        if (source->disk == NULL) {
            return 1;
        }
        source->start = convert->total_bytes;
        source->bytes = ash_tool_bytes(source->disk);
        if (source->bytes > INT64_MAX - convert->total_bytes) {
            ash_tool_error("%s: the images are too large together", convert->target.filename);
            return 1;
        }
        convert->total_bytes += source->bytes;
    }
    return 0;
}

/* Dirty bitmaps cannot be copied yet: an image that can hold them is taken if it holds none. */
ASH_CO_FN static int check_bitmaps(const struct convert *convert)
{
    if (!convert->bitmaps) {
        return 0;
    }
    if (convert->source_count > 1) {
        ash_tool_error("Copying bitmaps only possible with single source");
        return 1;
    }
    const char *compat = ash_tool_options_get(&convert->options, "compat");
    bool old = compat != NULL && (strcmp(compat, "0.10") == 0 || strcmp(compat, "v2") == 0);
    if (!convert->skip_create && (old || strcmp(convert->target_format, "qcow2") != 0)) {
        ash_tool_error("Format driver '%s' does not support bitmaps", convert->target_format);
        return 1;
    }
    struct ash_node *node = ash_disk_node(convert->sources[0].disk);
    json_t *info = node->driver->info != NULL ? node->driver->info(node) : NULL;
    const json_t *held = json_object_get(info, "bitmaps");
    int status = 1;
    if (!json_is_boolean(held)) {
        ash_tool_error("Source lacks bitmap support");
    } else if (json_is_true(held)) {
        ash_tool_error(
            "--bitmaps: '%s' has dirty bitmaps, and copying them is not supported by this "
            "version",
            convert->sources[0].image.filename);
    } else {
        status = 0;
    }
    json_decref(info);
    return status;
}

ASH_CO_FN static int convert_co(void *opaque)
{
    struct convert *convert = opaque;
    int status = open_sources(convert);
    if (status == 0) {
        status = check_bitmaps(convert);
    }
    if (status == 0) {
        status = ash_convert_open_target(convert);
    }
    if (status == 0) {
        ash_progress_set(&convert->progress, 0);
        status = ash_convert_copy(convert) < 0 ? 1 : 0;
    }
    if (ash_tool_close(convert->target_disk, convert->target.filename) < 0) {
        status = 1;
    }
    for (uint32_t i = 0; i < convert->source_count; i++) {
        if (ash_tool_close(convert->sources[i].disk, convert->sources[i].image.filename) < 0) {
            status = 1;
        }
    }
    /* A signal that came after the last data was copied must not leave an image behind that the
     * exit status denies. */
    if (status == 0 && !ash_tool_completed()) {
        status = 1;
    }
    if (status == 0) {
        ash_progress_set(&convert->progress, 100);
    } else if (convert->created) {
        ash_tool_remove_made(convert->target.filename);
    }
    return status;
}

/* --- The command line. --- */

enum {
    OPTION_OBJECT = 256,
    OPTION_IMAGE_OPTS,
    OPTION_TARGET_IMAGE_OPTS,
    OPTION_TARGET_IS_ZERO,
    OPTION_SALVAGE,
    OPTION_BITMAPS,
    OPTION_SKIP_BROKEN_BITMAPS,
};

static int take_sparse(struct arguments *arguments, const char *text)
{
    uint64_t bytes;
    arguments->sparse_given = true;
    int ret = ash_size_parse(text, 1, &bytes);
    if (ret == -EINVAL) {
        return ash_tool_size(text, "buffer size for sparse output", 0, INT64_MAX, &bytes) ? -1 : 1;
    }
    if (ret < 0 || bytes % 512 != 0 || bytes > SPARSE_BYTES_MAX) {
        ash_tool_error(
            "Invalid buffer size for sparse output specified. Valid sizes are multiples of "
            "512 up to %llu. Select 0 to disable sparse detection (fully allocates output).",
            (unsigned long long)SPARSE_BYTES_MAX);
        return 1;
    }
    arguments->convert.sparse_bytes = bytes;
    return -1;
}

static int take_windows(struct convert *convert, const char *text)
{
    uint64_t number;
    if (!ash_tool_number(text, WINDOWS_MAX, &number) || number == 0) {
        ash_tool_error(
            "Invalid number of coroutines. Allowed number of coroutines is between 1 and %u",
            WINDOWS_MAX);
        return 1;
    }
    convert->windows = (uint32_t)number;
    return -1;
}

/* Options that only set something. False: it is not one of them. */
static bool take_setting(struct arguments *arguments, int c)
{
    struct convert *convert = &arguments->convert;
    switch (c) {
    case 'f':
        arguments->source_format = optarg;
        return true;
    case 'O':
        convert->target_format = optarg;
        return true;
    case 'B':
        convert->backing = optarg;
        return true;
    case 'F':
        convert->backing_format = optarg;
        return true;
    case 'C':
        convert->offload = true;
        return true;
    case 'c':
        convert->compress = true;
        return true;
    case 'p':
        convert->progress_on = true;
        return true;
    case 'q':
        convert->quiet = true;
        return true;
    case 'n':
        convert->skip_create = true;
        return true;
    case 't':
        arguments->target_cache = optarg;
        return true;
    case 'T':
        arguments->source_cache = optarg;
        return true;
    case 'U':
        arguments->force_share = true;
        return true;
    case 'W':
        return true; /* writes go out of order anyway */
    case OPTION_IMAGE_OPTS:
        arguments->source_image_opts = true;
        return true;
    case OPTION_TARGET_IMAGE_OPTS:
        convert->target_image_opts = true;
        return true;
    case OPTION_TARGET_IS_ZERO:
        convert->target_is_zero = true;
        return true;
    case OPTION_SALVAGE:
        convert->salvage = true;
        return true;
    default:
        return false;
    }
}

/* Takes one option. -1, or the exit status. */
static int take_option(struct arguments *arguments, int c, char **argv)
{
    struct convert *convert = &arguments->convert;
    if (take_setting(arguments, c)) {
        return -1;
    }
    switch (c) {
    case 'h':
        return ash_img_help("convert");
    case 'o':
        return ash_tool_options_add(&convert->options, optarg) ? -1 : 1;
    case 'S':
        return take_sparse(arguments, optarg);
    case 'm':
        return take_windows(convert, optarg);
    case 'r':
        return ash_tool_size(optarg, "rate limit", 0, INT64_MAX, &convert->rate) ? -1 : 1;
    case 'l':
        return ash_img_unsupported("-l", "Internal snapshots are");
    case OPTION_OBJECT:
        return ash_tool_object(optarg) ? -1 : 1;
    case OPTION_BITMAPS:
        convert->bitmaps = true;
        return -1;
    case OPTION_SKIP_BROKEN_BITMAPS:
        convert->skip_broken_bitmaps = true;
        return -1;
    default:
        return ash_tool_bad_option(c, argv);
    }
}

/* What cannot go together: a sentence, or NULL. */
static const char *find_conflict(const struct arguments *arguments)
{
    const struct convert *convert = &arguments->convert;
    if (arguments->source_image_opts && arguments->source_format != NULL) {
        return "--image-opts and --format are mutually exclusive";
    }
    if (convert->target_image_opts && !convert->skip_create) {
        return "--target-image-opts requires use of -n flag";
    }
    if (convert->target_image_opts && convert->target_format != NULL) {
        return "-O and --target-image-opts are mutually exclusive";
    }
    if (convert->offload && convert->compress) {
        return "Cannot enable copy offloading when -c is used";
    }
    if (convert->offload && arguments->sparse_given) {
        return "Cannot enable copy offloading when -S is used";
    }
    if (convert->offload && convert->salvage) {
        return "Cannot use copy offloading in salvaging mode";
    }
    if (convert->skip_broken_bitmaps && !convert->bitmaps) {
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    }
    if (convert->target_is_zero && !convert->skip_create) {
        return "--target-is-zero requires use of -n flag";
    }
    if (convert->skip_create && convert->options.list != NULL) {
        return "-o has no effect when skipping image creation";
    }
    if (convert->source_count > 1 && convert->backing != NULL) {
        return "Having a backing file for the target makes no sense when concatenating multiple "
               "input "
               "images";
    }
    return NULL;
}

/* The backing file among the create options. -1, or the exit status. */
static int settle_backing(struct convert *convert)
{
    if ((convert->backing != NULL || convert->backing_format != NULL) &&
        !convert->target_driver->backing) {
        ash_tool_error("Backing file not supported for file format '%s'", convert->target_format);
        return 1;
    }
    if (convert->backing != NULL) {
        ash_tool_options_set(&convert->options, "backing_file", convert->backing);
    }
    if (convert->backing_format != NULL) {
        ash_tool_options_set(&convert->options, "backing_fmt", convert->backing_format);
    }
    convert->backing = ash_tool_options_get(&convert->options, "backing_file");
    if (convert->backing != NULL &&
        ash_tool_options_get(&convert->options, "backing_fmt") == NULL) {
        ash_tool_error("Use of backing file requires explicit backing format");
        return 1;
    }
    return -1;
}

/* The target's format and create options. -1, or the exit status. */
static int settle_target(struct convert *convert)
{
    struct ash_error error = ASH_ERROR_INIT;
    if (convert->target_image_opts) {
        return -1;
    }
    convert->target_format = convert->target_format != NULL ? convert->target_format : "raw";
    convert->target_driver = ash_driver_find(convert->target_format);
    if (convert->target_driver == NULL || !convert->skip_create) {
        if (ash_tool_format(convert->target_format, &convert->target_driver, &error) < 0) {
            ash_tool_error("%s", error.message);
            return 1;
        }
    }
    if (convert->options.help) {
        ash_tool_options_help(convert->target_driver, convert->target.filename);
        return 0;
    }
    if (convert->source_count == 0) {
        return -1;
    }
    if (ash_tool_options_check(&convert->options, convert->target_driver, convert->target.filename,
                               &error) < 0) {
        ash_tool_error("%s", error.message);
        return 1;
    }
    const struct ash_map_ops *map = convert->target_driver->map;
    if (convert->compress && (map == NULL || map->encode == NULL)) {
        ash_tool_error("Compression not supported for this file format");
        return 1;
    }
    const char *preallocation = ash_tool_options_get(&convert->options, "preallocation");
    if (convert->compress && preallocation != NULL && strcmp(preallocation, "off") != 0) {
        ash_tool_error("Compression and preallocation not supported at the same time");
        return 1;
    }
    return settle_backing(convert);
}

/* The operands: sources and the target. */
static void take_operands(struct arguments *arguments, int argc, char **argv)
{
    struct convert *convert = &arguments->convert;
    int operands = argc - optind;
    convert->source_count = operands >= 2 ? (uint32_t)operands - 1 : 0;
    convert->target.filename = operands >= 2 ? argv[argc - 1] : NULL;
    convert->sources = g_new0(struct convert_source, convert->source_count + 1);
    for (uint32_t i = 0; i < convert->source_count; i++) {
        convert->sources[i].image.filename = argv[optind + (int)i];
        convert->sources[i].image.format = arguments->source_format;
        convert->sources[i].image.image_opts = arguments->source_image_opts;
        convert->sources[i].image.flags = arguments->force_share ? ASH_NODE_FORCE_SHARE : 0;
    }
    convert->target.flags = ASH_NODE_WRITE | ASH_NODE_DISCARD;
    convert->target.image_opts = convert->target_image_opts;
}

/* Cache modes. -1, or the exit status. */
static int settle_caches(struct arguments *arguments)
{
    struct convert *convert = &arguments->convert;
    for (uint32_t i = 0; i < convert->source_count; i++) {
        struct ash_tool_image *image = &convert->sources[i].image;
        if (ash_cache_mode(arguments->source_cache, &image->flags, &image->write_through) < 0) {
            ash_tool_error("Invalid source cache option: %s", arguments->source_cache);
            return 1;
        }
    }
    struct ash_tool_image *target = &convert->target;
    if (ash_cache_mode(arguments->target_cache, &target->flags, &target->write_through) < 0) {
        ash_tool_error("Invalid cache option: %s", arguments->target_cache);
        return 1;
    }
    return -1;
}

static int settle_and_run(struct arguments *arguments)
{
    struct convert *convert = &arguments->convert;
    int status = settle_target(convert);
    if (status < 0 && convert->source_count == 0) {
        ash_tool_error("Must specify image file name");
        return 1;
    }
    if (status < 0) {
        status = settle_caches(arguments);
    }
    if (status >= 0) {
        return status;
    }
    convert->target.format = convert->target_format;
    ash_tool_catch_signals();
    return ash_tool_run(convert_co, convert, 1);
}

static int run_convert(struct arguments *arguments, int argc, char **argv)
{
    struct convert *convert = &arguments->convert;
    take_operands(arguments, argc, argv);
    const char *conflict = find_conflict(arguments);
    if (conflict != NULL) {
        ash_tool_error("%s", conflict);
        return 1;
    }
    /* Shown though what is asked for may be refused yet, as by qemu-img. */
    ash_progress_begin(&convert->progress,
                       convert->progress_on && !convert->quiet && convert->source_count > 0);
    int status = settle_and_run(arguments);
    ash_progress_end(&convert->progress);
    return status;
}

int ash_img_convert(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"source-image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {"force-share", no_argument, NULL, 'U'},
        {"target-image-opts", no_argument, NULL, OPTION_TARGET_IMAGE_OPTS},
        {"salvage", no_argument, NULL, OPTION_SALVAGE},
        {"target-is-zero", no_argument, NULL, OPTION_TARGET_IS_ZERO},
        {"bitmaps", no_argument, NULL, OPTION_BITMAPS},
        {"skip-broken-bitmaps", no_argument, NULL, OPTION_SKIP_BROKEN_BITMAPS},
        {NULL, 0, NULL, 0},
    };
    struct arguments arguments = {
        .source_cache = "writeback",
        .target_cache = "unsafe",
        .convert.sparse_bytes = SPARSE_BYTES_DEFAULT,
        .convert.windows = WINDOWS_DEFAULT,
    };
    int status = -1;
    int c;
    while (status < 0 &&
           (c = getopt_long(argc, argv, ":hf:O:B:CcF:o:l:S:pt:T:qnm:WUr:", options, NULL)) != -1) {
        status = take_option(&arguments, c, argv);
    }
    if (status < 0) {
        status = run_convert(&arguments, argc, argv);
    }
    ash_tool_options_clear(&arguments.convert.options);
    g_free(arguments.convert.sources);
    return status;
}
