/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an image is, as a JSON object with the names that users of image tools know.
 *
 * It asks the node and what stands under it, and opens nothing: the names in a header are shown,
 * not followed. */
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include "block/image/image.h"
#include "util/range.h"

/* Names on disk need not be UTF-8. */
static json_t *text(const char *bytes)
{
    char *valid = g_utf8_make_valid(bytes, -1);
    json_t *string = json_string(valid);
    g_free(valid);
    return string;
}

static void set_number(json_t *info, const char *name, uint64_t number)
{
    json_object_set_new(info, name, json_integer((json_int_t)number));
}

/* Of the node, or of the file under it. */
ASH_CO_FN static int64_t allocated_bytes(struct ash_node *node)
{
    while (node->driver->allocated_bytes == NULL && node->file != NULL) {
        node = node->file->child;
    }
    return node->driver->allocated_bytes != NULL ? node->driver->allocated_bytes(node) : -1;
}

/* Where the header's backing file is to be looked for. */
static json_t *full_backing_name(const struct ash_node *node)
{
    const char *backing = node->backing_file;
    if (strncmp(backing, "json:", 5) == 0 || strstr(backing, "://") != NULL) {
        return text(backing);
    }
    char *path = ash_path_beside(node->filename, backing);
    json_t *full = text(path);
    g_free(path);
    return full;
}

/* Whether the name of the file says all of what the node is. */
static bool name_tells(const struct ash_node *node)
{
    const char *const *shaping = node->driver->shaping;
    for (; shaping != NULL && *shaping != NULL; shaping++) {
        if (json_object_get(node->options, *shaping) != NULL) {
            return false;
        }
    }
    if (node->driver->kind != ASH_DRIVER_FORMAT || node->file == NULL) {
        return true;
    }
    return node->file->child->driver->kind == ASH_DRIVER_PROTOCOL && name_tells(node->file->child);
}

/* What makes the node what it is, in the order that users of such names know. */
static json_t *shape_of(const struct ash_node *node)
{
    static const char *const order[] = {"read-zeroes", "offset", "driver", "size"};
    json_t *shape = json_object();
    for (size_t i = 0; i < ASH_ARRAY_SIZE(order); i++) {
        json_t *value = json_object_get(node->options, order[i]);
        if (strcmp(order[i], "driver") == 0) {
            json_object_set_new(shape, order[i], json_string(node->driver->name));
        } else if (node->driver->shaping != NULL && value != NULL) {
            json_object_set(shape, order[i], value);
        }
    }
    if (node->file != NULL) {
        json_object_set_new(shape, "file", shape_of(node->file->child));
    } else if (!node->driver->no_medium) {
        json_object_set_new(shape, "filename", text(node->filename));
    }
    return shape;
}

/* A name that leads to this node again. */
static json_t *name_of(const struct ash_node *node)
{
    if (name_tells(node) || node->driver->kind == ASH_DRIVER_FILTER) {
        return text(node->filename);
    }
    json_t *shape = shape_of(node);
    char *dump = json_dumps(shape, 0);
    char *name = g_strdup_printf("json:%s", dump);
    json_t *string = json_string(name);
    g_free(name);
    free(dump);
    json_decref(shape);
    return string;
}

static bool stands_on_nothing(const struct ash_node *node)
{
    while (node->file != NULL) {
        node = node->file->child;
    }
    return node->driver->no_medium;
}

json_t *ash_image_info(struct ash_node *node)
{
    json_t *info = json_object();
    json_t *specific = node->driver->info != NULL ? node->driver->info(node) : NULL;
    json_t *dirty = json_incref(json_object_get(specific, "dirty-flag"));
    int64_t allocated = allocated_bytes(node);
    json_object_del(specific, "dirty-flag");
    json_object_del(specific, "bitmaps");
    if (node->backing_format != NULL) {
        json_object_set_new(info, "backing-filename-format", text(node->backing_format));
    }
    set_number(info, "virtual-size", ash_align_up(node->size_bytes, 512));
    json_object_set_new(info, "filename", name_of(node));
    if (node->limits.cluster != 0) {
        set_number(info, "cluster-size", node->limits.cluster);
    }
    json_object_set_new(info, "format", text(node->driver->name));
    if (allocated >= 0) {
        set_number(info, "actual-size", (uint64_t)allocated);
    }
    if (specific != NULL) {
        json_object_set_new(info, "format-specific", specific);
    }
    if (node->backing_file != NULL) {
        json_object_set_new(info, "full-backing-filename", full_backing_name(node));
        json_object_set_new(info, "backing-filename", text(node->backing_file));
    }
    if (!stands_on_nothing(node)) {
        json_object_set_new(info, "dirty-flag", dirty != NULL ? dirty : json_false());
    }
    return info;
}
