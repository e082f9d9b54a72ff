/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* File names as users write them, and file names as images contain them.
 *
 * A name from a user may be a "json:" description or carry a driver's prefix. A name from an
 * image's header is a path and nothing else, because whoever wrote the image chose it. */
#include "block/graph/open.h"
#include <ctype.h>
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/driver.h"
#include "block/graph/describe.h"
#include "util/json.h"

/* The length of a scheme at the start ("nbd" of "nbd://h"), or 0: a colon before the first slash,
 * as in URLs. One letter is not taken for one. */
static size_t scheme_length(const char *filename)
{
    size_t i = 0;
    while (isalnum((unsigned char)filename[i]) ||
           (i > 0 && strchr("+.-", filename[i]) != NULL && filename[i] != '\0')) {
        i++;
    }
    return i > 1 && filename[i] == ':' ? i : 0;
}

static const struct ash_driver *driver_by_prefix(const char *filename)
{
    for (const struct ash_driver *const *driver = ash_drivers; *driver != NULL; driver++) {
        const char *prefix = (*driver)->prefix;
        if (prefix != NULL && strncmp(filename, prefix, strlen(prefix)) == 0) {
            return *driver;
        }
    }
    return NULL;
}

bool ash_driver_takes_filename(const struct ash_driver *driver)
{
    for (const struct ash_option *option = driver->options; option != NULL && option->name != NULL;
         option++) {
        if (strcmp(option->name, "filename") == 0) {
            return true;
        }
    }
    return false;
}

json_t *ash_describe_protocol(const char *filename, struct ash_error *error)
{
    const struct ash_driver *driver = driver_by_prefix(filename);
    if (driver != NULL && !ash_driver_takes_filename(driver)) {
        const char *rest = filename + strlen(driver->prefix);
        if (*rest != '\0') {
            ash_error_set(error, -EINVAL, "Driver '%s' takes nothing after '%s'", driver->name,
                          driver->prefix);
            return NULL;
        }
        return json_pack("{s:s}", "driver", driver->name);
    }
    if (driver != NULL) {
        filename += strlen(driver->prefix);
    } else if (scheme_length(filename) > 0) {
        ash_error_set(error, -EINVAL, "Unknown protocol '%.*s'", (int)scheme_length(filename),
                      filename);
        return NULL;
    }
    json_t *name = json_string(filename);
    if (name == NULL) {
        ash_error_set(error, -EINVAL, "The file name is not UTF-8");
        return NULL;
    }
    return json_pack("{s:s, s:o}", "driver", driver != NULL ? driver->name : "file", "filename",
                     name);
}

json_t *ash_describe(const char *filename, const char *format, struct ash_error *error)
{
    if (filename == NULL) {
        ash_error_set(error, -EINVAL, "There is no description");
        return NULL;
    }
    if (strncmp(filename, "json:", 5) == 0) {
        if (format == NULL) {
            return ash_json_parse(filename + 5, error);
        }
        json_t *description = ash_json_parse(filename + 5, error);
        if (description != NULL && json_object_get(description, "driver") == NULL) {
            json_object_set_new(description, "driver", json_string(format));
        }
        return description;
    }
    const struct ash_driver *driver = format != NULL ? ash_driver_find(format) : NULL;
    if (format != NULL && driver == NULL) {
        ash_error_set(error, -EINVAL, "Unknown driver '%s'", format);
        return NULL;
    }
    json_t *protocol = ash_describe_protocol(filename, error);
    if (protocol == NULL || (driver != NULL && driver->kind == ASH_DRIVER_PROTOCOL)) {
        return protocol;
    }
    json_t *description = json_pack("{s:o}", "file", protocol);
    if (description != NULL && format != NULL) {
        json_object_set_new(description, "driver", json_string(format));
    }
    return description;
}

char *ash_path_beside(const char *filename, const char *backing)
{
    if (strncmp(backing, "file:", 5) == 0) {
        backing += 5;
    }
    if (g_path_is_absolute(backing)) {
        return g_strdup(backing);
    }
    const char *slash = strrchr(filename, '/');
    if (slash == NULL) {
        return g_strdup(backing);
    }
    return g_strdup_printf("%.*s%s", (int)(slash - filename) + 1, filename, backing);
}

json_t *ash_describe_backing(const struct ash_node *node, struct ash_error *error)
{
    const char *backing = node->backing_file;
    bool url = strncmp(backing, "json:", 5) == 0 || strstr(backing, "://") != NULL;
    if (url && (node->flags & ASH_NODE_HEADER_URLS) == 0) {
        ash_error_set(error, -EPERM,
                      "The backing file of '%s' is not a path but '%s': refused, as "
                      "the image's author chose it",
                      node->filename, backing);
        return NULL;
    }
    if (url) {
        return ash_describe(backing, node->backing_format, error);
    }
    const char *format = node->backing_format;
    if (format != NULL && ash_driver_find(format) == NULL) {
        ash_error_set(error, -EINVAL, "Unknown driver '%s', the backing format of '%s'", format,
                      node->filename);
        return NULL;
    }
    char *path = ash_path_beside(node->filename, backing);
    json_t *description = json_pack("{s:{s:s, s:s}}", "file", "driver", "file", "filename", path);
    g_free(path);
    if (description == NULL) {
        ash_error_set(error, -EINVAL, "The backing file name of '%s' is not UTF-8", node->filename);
    } else if (format != NULL) {
        json_object_set_new(description, "driver", json_string(format));
    }
    return description;
}
