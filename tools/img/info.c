/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* info: what an image is. It opens the image alone, and nothing that its header names unless asked
 * for the chain; it never writes. */
#include <getopt.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/image/image.h"
#include "tools/common/tool.h"
#include "tools/img/img.h"
#include "util/size.h"

struct info {
    struct ash_tool_image image;
    enum ash_output output;
    bool chain;
};

static const char *text_of(const json_t *info, const char *key)
{
    return json_string_value(json_object_get(info, key));
}

static void print_backing(const json_t *info)
{
    const char *backing = text_of(info, "backing-filename");
    const char *full = text_of(info, "full-backing-filename");
    const char *format = text_of(info, "backing-filename-format");
    if (backing != NULL) {
        printf("backing file: %s", backing);
        if (full == NULL) {
            printf(" (cannot determine actual path)");
        } else if (strcmp(backing, full) != 0) {
            printf(" (actual path: %s)", full);
        }
        printf("\n");
    }
    if (format != NULL) {
        printf("backing file format: %s\n", format);
    }
}

static void print_human(const json_t *info)
{
    uint64_t virtual_bytes = (uint64_t)json_integer_value(json_object_get(info, "virtual-size"));
    const json_t *actual = json_object_get(info, "actual-size");
    const json_t *cluster = json_object_get(info, "cluster-size");
    const json_t *specific = json_object_get(json_object_get(info, "format-specific"), "data");
    char size[64];
    ash_size_human(virtual_bytes, size, sizeof(size));
    printf("image: %s\nfile format: %s\nvirtual size: %s (%" PRIu64 " bytes)\n",
           text_of(info, "filename"), text_of(info, "format"), size, virtual_bytes);
    if (actual != NULL) {
        ash_size_human((uint64_t)json_integer_value(actual), size, sizeof(size));
        printf("disk size: %s\n", size);
    } else {
        printf("disk size: unavailable\n");
    }
    if (cluster != NULL) {
        printf("cluster_size: %" JSON_INTEGER_FORMAT "\n", json_integer_value(cluster));
    }
    if (json_is_true(json_object_get(info, "dirty-flag"))) {
        printf("cleanly shut down: no\n");
    }
    print_backing(info);
    if (specific != NULL) {
        printf("Format specific information:\n");
        ash_tool_print_specific(specific, 4);
    }
}

/* One image: what it is; and the next one below it, as it is to be opened, or NULL. */
ASH_CO_FN static json_t *look_at(const struct ash_tool_image *image, char **next_filename,
                                 char **next_format)
{
    struct ash_disk *disk = ash_tool_open(image);
    if (disk == NULL) {
        return NULL;
    }
    struct ash_node *node = ash_disk_node(disk);
    json_t *info = ash_image_info(node);
    *next_filename = g_strdup(text_of(info, "full-backing-filename"));
    *next_format = g_strdup(node->backing_format);
    if (ash_tool_close(disk, image->filename) < 0) {
        json_decref(info);
        return NULL;
    }
    return info;
}

/* All images of the chain into `list`, or the first one only. A chain that bites its tail is
 * refused. */
ASH_CO_FN static int collect(const struct info *request, json_t *list)
{
    GHashTable *seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    char *filename = g_strdup(request->image.filename);
    char *format = g_strdup(request->image.format);
    struct ash_tool_image image = request->image;
    int status = 0;
    while (filename != NULL && status == 0) {
        image.filename = filename;
        image.format = format;
        char *next_filename = NULL;
        char *next_format = NULL;
        json_t *info = NULL;
        char *real = realpath(filename, NULL); /* ./a and a are one */
        bool again = !g_hash_table_add(seen, g_strdup(real != NULL ? real : filename));
        free(real);
        if (again) {
            ash_tool_error("Backing file '%s' creates an infinite loop.", filename);
        } else {
            info = look_at(&image, &next_filename, &next_format);
        }
        status = info != NULL ? 0 : 1;
        if (info != NULL) {
            json_array_append_new(list, info);
        }
        g_free(filename);
        g_free(format);
        filename = request->chain ? next_filename : NULL;
        format = request->chain ? next_format : NULL;
        if (!request->chain) {
            g_free(next_filename);
            g_free(next_format);
        }
        image.image_opts = false;
        image.path_only = true;
    }
    g_free(filename);
    g_free(format);
    g_hash_table_destroy(seen);
    return status;
}

ASH_CO_FN static int info_co(void *opaque)
{
    const struct info *request = opaque;
    json_t *list = json_array();
    json_t *info;
    size_t i;
    int status = collect(request, list);
    if (status == 0 && request->output == ASH_OUTPUT_JSON) {
        ash_tool_print_json(request->chain ? list : json_array_get(list, 0));
    } else if (status == 0) {
        json_array_foreach(list, i, info)
        {
            printf("%s", i > 0 ? "\n" : "");
            print_human(info);
        }
    }
    json_decref(list);
    return status;
}

enum {
    OPTION_OUTPUT = 256,
    OPTION_BACKING_CHAIN,
    OPTION_OBJECT,
    OPTION_IMAGE_OPTS,
};

int ash_img_info(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'},
        {"format", required_argument, NULL, 'f'},
        {"output", required_argument, NULL, OPTION_OUTPUT},
        {"backing-chain", no_argument, NULL, OPTION_BACKING_CHAIN},
        {"object", required_argument, NULL, OPTION_OBJECT},
        {"image-opts", no_argument, NULL, OPTION_IMAGE_OPTS},
        {"force-share", no_argument, NULL, 'U'},
        {NULL, 0, NULL, 0},
    };
    struct info info = {.image.flags = ASH_NODE_NO_BACKING};
    int c;
    while ((c = getopt_long(argc, argv, ":hf:U", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            return ash_img_help("info");
        case 'f':
            info.image.format = optarg;
            break;
        case 'U':
            info.image.flags |= ASH_NODE_FORCE_SHARE;
            break;
        case OPTION_OUTPUT:
            if (!ash_tool_output(optarg, &info.output)) {
                return 1;
            }
            break;
        case OPTION_BACKING_CHAIN:
            info.chain = true;
            break;
        case OPTION_OBJECT:
            if (!ash_tool_object(optarg)) {
                return 1;
            }
            break;
        case OPTION_IMAGE_OPTS:
            info.image.image_opts = true;
            break;
        default:
            return ash_tool_bad_option(c, argv);
        }
    }
    if (optind != argc - 1) {
        return ash_tool_usage("Expecting one image file name");
    }
    info.image.filename = argv[optind];
    if (info.image.image_opts && info.image.format != NULL) {
        ash_tool_error("--image-opts and --format are mutually exclusive");
        return 1;
    }
    return ash_tool_run(info_co, &info, 1);
}
