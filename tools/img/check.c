/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check: is the image's metadata consistent; and repairing it. After a repair the image is checked
 * again, and it is that second look which is reported and which decides the exit status. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "block/driver.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"

#define EXIT_CHECK_FAILED 1
#define EXIT_CORRUPT 2
#define EXIT_LEAKS 3
#define EXIT_UNSUPPORTED 63

struct check {
    struct ash_tool_image image;
    enum ash_output output;
    bool quiet;
    uint32_t fix;
};

static void report(struct ash_check *check, const char *sentence)
{
    (void)check;
    fflush(stdout);
    fprintf(stderr, "%s\n", sentence);
}

static void set_number(json_t *object, const char *name, uint64_t number, bool always)
{
    if (always || number != 0) {
        json_object_set_new(object, name, json_integer((json_int_t)number));
    }
}

static void print_json(const struct ash_check *result, const struct ash_node *node,
                       const char *filename)
{
    json_t *object = json_object();
    set_number(object, "image-end-offset", result->image_end_offset, false);
    set_number(object, "compressed-clusters", result->compressed_clusters, false);
    set_number(object, "total-clusters", result->total_clusters, false);
    set_number(object, "corruptions", result->corruptions, false);
    set_number(object, "corruptions-fixed", result->corruptions_fixed, false);
    set_number(object, "check-errors", result->check_errors, true);
    set_number(object, "leaks-fixed", result->leaks_fixed, false);
    set_number(object, "leaks", result->leaks, false);
    set_number(object, "allocated-clusters", result->allocated_clusters, false);
    json_object_set_new(object, "filename", json_string(filename));
    json_object_set_new(object, "format", json_string(node->driver->name));
    set_number(object, "fragmented-clusters", result->fragmented_clusters, false);
    ash_tool_print_json(object);
    json_decref(object);
}

static void print_human(const struct ash_check *result)
{
    if (result->corruptions == 0 && result->leaks == 0 && result->check_errors == 0) {
        printf("No errors were found on the image.\n");
    }
    if (result->corruptions > 0) {
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may corrupt it.\n",
               result->corruptions);
    }
    if (result->leaks > 0) {
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               result->leaks);
    }
    if (result->check_errors > 0) {
        printf("\n%" PRIu64 " internal errors have occurred during the check.\n",
               result->check_errors);
    }
    if (result->total_clusters != 0 && result->allocated_clusters != 0) {
        double allocated = (double)result->allocated_clusters;
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
               "%0.2f%% compressed clusters\n",
               result->allocated_clusters, result->total_clusters,
               allocated * 100 / (double)result->total_clusters,
               (double)result->fragmented_clusters * 100 / allocated,
               (double)result->compressed_clusters * 100 / allocated);
    }
    if (result->image_end_offset > 0) {
        printf("Image end offset: %" PRIu64 "\n", result->image_end_offset);
    }
}

ASH_CO_FN static int check_once(const struct check *check, struct ash_disk *disk, uint32_t fix,
                                struct ash_check *result)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_node *node = ash_disk_node(disk);
    *result = (struct ash_check){.fix = fix, .report = report};
    int ret = node->driver->check(node, result, &error);
    if (ret < 0) {
        ash_tool_error("Check of '%s' failed: %s", check->image.filename,
                       error.message[0] != '\0' ? error.message : strerror(-ret));
    }
    return ret;
}

static bool talks(const struct check *check)
{
    return !check->quiet && check->output == ASH_OUTPUT_HUMAN;
}

/* Repairs were made: says so and looks again. What was fixed is kept for the final report. */
ASH_CO_FN static int check_again(const struct check *check, struct ash_disk *disk,
                                 struct ash_check *result)
{
    uint64_t leaks_fixed = result->leaks_fixed;
    uint64_t corruptions_fixed = result->corruptions_fixed;
    if (talks(check)) {
        printf("The following inconsistencies were found and repaired:\n\n    %" PRIu64
               " leaked clusters\n    %" PRIu64 " corruptions\n\n"
               "Double checking the fixed image now...\n",
               leaks_fixed, corruptions_fixed);
    }
    int ret = check_once(check, disk, 0, result);
    result->leaks_fixed = leaks_fixed;
    result->corruptions_fixed = corruptions_fixed;
    return ret;
}

ASH_CO_FN static int check_disk(const struct check *check, struct ash_disk *disk)
{
    struct ash_check result;
    struct ash_node *node = ash_disk_node(disk);
    if (node->driver->check == NULL) {
        ash_tool_error("This image format does not support checks");
        return EXIT_UNSUPPORTED;
    }
    int ret = check_once(check, disk, check->fix, &result);
    if (ret == 0 && (result.leaks_fixed != 0 || result.corruptions_fixed != 0)) {
        ret = check_again(check, disk, &result);
    }
    if (ret == -ENOTSUP) {
        return EXIT_UNSUPPORTED;
    }
    if (ret < 0) {
        return EXIT_CHECK_FAILED;
    }
    if (check->output == ASH_OUTPUT_JSON && !check->quiet) {
        print_json(&result, node, check->image.filename);
    } else if (talks(check)) {
        print_human(&result);
    }
    if (result.check_errors > 0) {
        return EXIT_CHECK_FAILED;
    }
    return result.corruptions > 0 ? EXIT_CORRUPT : result.leaks > 0 ? EXIT_LEAKS : 0;
}

ASH_CO_FN static int check_co(void *opaque)
{
    const struct check *check = opaque;
    struct ash_disk *disk = ash_tool_open(&check->image);
    if (disk == NULL) {
        return EXIT_CHECK_FAILED;
    }
    int status = check_disk(check, disk);
    return ash_tool_close(disk, check->image.filename) < 0 ? EXIT_CHECK_FAILED : status;
}

static int take_repair(struct check *check, const char *mode)
{
    if (strcmp(mode, "leaks") == 0) {
        check->fix = ASH_CHECK_FIX_LEAKS;
    } else if (strcmp(mode, "all") == 0) {
        check->fix = ASH_CHECK_FIX_LEAKS | ASH_CHECK_FIX_ERRORS;
    } else {
        return ash_tool_usage("Unknown option value for -r (expecting 'leaks' or 'all'): %s", mode);
    }
    check->image.flags |= ASH_NODE_WRITE;
    return -1;
}

enum {
    OPTION_OUTPUT = 256,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
};

/* Takes one option. -1, or the exit status. */
static int take_option(struct check *check, int c, char **argv)
{
    switch (c) {
    case 'h':
        return ash_img_help("check");
    case 'f':
        check->image.format = optarg;
        return -1;
    case 'r':
        return take_repair(check, optarg);
    case 'q':
        check->quiet = true;
        return -1;
    case 'T':
        if (ash_cache_mode(optarg, &check->image.flags, &check->image.write_through) < 0) {
            ash_tool_error("Invalid source cache option: %s", optarg);
            return EXIT_CHECK_FAILED;
        }
        return -1;
    case 'U':
        check->image.flags |= ASH_NODE_FORCE_SHARE;
        return -1;
    case OPTION_OUTPUT:
        return ash_tool_output(optarg, &check->output) ? -1 : EXIT_CHECK_FAILED;
    case OPTION_OBJECT:
        return ash_tool_object(optarg) ? -1 : 1;
    case OPTION_IMAGE_OPTS:
        check->image.image_opts = true;
        return -1;
    default:
        return ash_tool_bad_option(c, argv);
    }
}

int ash_img_check(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"format", required_argument, NULL, 'f'},
        {"repair", required_argument, NULL, 'r'},
        {"output", required_argument, NULL, OPTION_OUTPUT},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {"force-share", no_argument, NULL, 'U'},
        {NULL, 0, NULL, 0},
    };
    struct check check = {.image.flags = ASH_NODE_CHECK};
    int c;
    while ((c = getopt_long(argc, argv, ":hf:r:T:qU", options, NULL)) != -1) {
        int status = take_option(&check, c, argv);
        if (status >= 0) {
            return status;
        }
    }
    if (optind != argc - 1) {
        return ash_tool_usage("Expecting one image file name");
    }
    check.image.filename = argv[optind];
    if (check.image.image_opts && check.image.format != NULL) {
        ash_tool_error("--image-opts and --format are mutually exclusive");
        return EXIT_CHECK_FAILED;
    }
    if (check.fix != 0) {
        ash_tool_catch_signals();
    }
    return ash_tool_run(check_co, &check, EXIT_CHECK_FAILED);
}
