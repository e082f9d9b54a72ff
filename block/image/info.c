/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an image is, as a JSON object with the names that users of image tools know.
 *
 * It asks the node and what stands under it, and opens nothing: the names in a header are shown,
 * not followed. */
#include <glib.h>
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

json_t *ash_image_info(struct ash_node *node)
{
    json_t *info = json_object();
    json_t *specific = node->driver->info != NULL ? node->driver->info(node) : NULL;
    json_t *dirty = json_incref(json_object_get(specific, "dirty-flag"));
    int64_t allocated = allocated_bytes(node);
    json_object_del(specific, "dirty-flag");
    if (node->backing_format != NULL) {
        json_object_set_new(info, "backing-filename-format", text(node->backing_format));
    }
    set_number(info, "virtual-size", ash_align_up(node->size_bytes, 512));
    json_object_set_new(info, "filename", text(node->filename));
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
    json_object_set_new(info, "dirty-flag", dirty != NULL ? dirty : json_false());
    return info;
}
