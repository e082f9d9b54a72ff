/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Making images: the protocol makes the file, the format fills it.
 *
 * It owns the file from the moment that it made it: if the image does not come about, a file that
 * was not there before is removed again. One that was there, and was emptied, stays: it may be
 * somebody's link or device.
 *
 * Invariants:
 *  1. Every option is known to the format or to the protocol, or nothing is touched.
 *  2. When the call succeeds the image is complete and flushed. */
#include "block/image/image.h"
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/disk/disk.h"
#include "block/image/options.h"
#include "util/engine/co_aio.h"
#include "util/range.h"
#include "util/size.h"

struct creation {
    const struct ash_driver *format; /* may be the protocol itself */
    const struct ash_driver *protocol;
    const char *filename; /* as given */
    const char *path;     /* without the protocol's prefix */
    void *format_options;
    void *protocol_options;
    uint64_t bytes;
};

/* The length may stand among the options. */
static int take_size(json_t *rest, uint64_t *bytes, struct ash_error *error)
{
    json_t *size = json_object_get(rest, "size");
    int ret = 0;
    if (size == NULL) {
        return 0;
    }
    if (json_is_integer(size) && json_integer_value(size) >= 0) {
        *bytes = (uint64_t)json_integer_value(size);
    } else if (!json_is_string(size) || ash_size_parse(json_string_value(size), 1, bytes) < 0) {
        ret = ash_error_set(error, -EINVAL,
                            "Parameter 'size' expects a non-negative number below 2^63");
    }
    json_object_del(rest, "size");
    return ret;
}

void *ash_create_options_take(const struct ash_driver *driver, json_t *rest,
                              struct ash_error *error)
{
    void *options = g_malloc0(ASH_MAX(driver->create_size, 1));
    if (driver->create_options == NULL) {
        return options;
    }
    ash_options_init(driver->create_options, options);
    if (ash_options_take(driver->create_options, rest, options, error) < 0) {
        ash_create_options_free(driver, options);
        return NULL;
    }
    return options;
}

void ash_create_options_free(const struct ash_driver *driver, void *options)
{
    if (options != NULL && driver->create_options != NULL) {
        ash_options_clear(driver->create_options, options);
    }
    g_free(options);
}

int ash_create_options_refuse_rest(const json_t *rest, struct ash_error *error)
{
    void *first = json_object_iter((json_t *)rest);
    if (first == NULL) {
        return 0;
    }
    return ash_error_set(error, -EINVAL, "Invalid parameter '%s'", json_object_iter_key(first));
}

static int take_options(struct creation *creation, const json_t *options, struct ash_error *error)
{
    json_t *rest = options != NULL ? json_copy((json_t *)options) : json_object();
    int ret = take_size(rest, &creation->bytes, error);
    if (ret == 0) {
        creation->format_options = ash_create_options_take(creation->format, rest, error);
        ret = creation->format_options != NULL ? 0 : -EINVAL;
    }
    if (ret == 0) {
        creation->protocol_options = ash_create_options_take(creation->protocol, rest, error);
        ret = creation->protocol_options != NULL ? 0 : -EINVAL;
    }
    if (ret == 0) {
        ret = ash_create_options_refuse_rest(rest, error);
    }
    json_decref(rest);
    if (ret == 0 && !ash_range_valid(0, creation->bytes)) {
        ret = ash_error_set(error, -EFBIG, "The image size %" PRIu64 " is too large",
                            creation->bytes);
    }
    return ret;
}

/* The protocol of the file name, and the path that its create_file takes. */
static int find_protocol(struct creation *creation, json_t **description, struct ash_error *error)
{
    if (strncmp(creation->filename, "json:", 5) == 0) {
        return ash_error_set(error, -EINVAL, "Unknown protocol 'json'");
    }
    *description = ash_describe(creation->filename, "file", error);
    if (*description == NULL) {
        return -EINVAL;
    }
    const char *name = json_string_value(json_object_get(*description, "driver"));
    creation->protocol = ash_driver_find(name);
    creation->path = json_string_value(json_object_get(*description, "filename"));
    if (creation->protocol->create_file == NULL || creation->path == NULL) {
        return ash_error_set(error, -ENOTSUP,
                             "Protocol driver '%s' does not support image creation", name);
    }
    return 0;
}

/* Fills the file that is there now. */
ASH_CO_FN static int fill(struct ash_loop *loop, const struct creation *creation,
                          const json_t *description, struct ash_error *error)
{
    struct ash_disk *disk;
    int ret = ash_co_disk_open(loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, error);
    if (ret < 0) {
        return ret;
    }
    if (creation->format->create != NULL) {
        ret =
            creation->format->create(disk->root, creation->bytes, creation->format_options, error);
    } else {
        ret = ash_edge_resize(disk->root, creation->bytes, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF,
                              error);
    }
    int closed = ash_co_disk_close(disk, ret == 0 ? error : NULL);
    return ret < 0 ? ret : closed;
}

ASH_CO_FN static int make(struct ash_loop *loop, const struct creation *creation,
                          const json_t *description, struct ash_error *error)
{
    struct ash_file_status before;
    bool existed = ash_co_path_status(loop->engine, creation->path, &before) != -ENOENT;
    int ret =
        creation->protocol->create_file(loop, creation->path, creation->protocol_options, error);
    if (ret == 0) {
        ret = fill(loop, creation, description, error);
    }
    if (ret < 0 && !existed) {
        struct ash_aio remove = {.op = ASH_AIO_UNLINK, .path = creation->path};
        ash_co_aio(loop->engine, &remove);
    }
    return ret;
}

int ash_image_create(struct ash_loop *loop, const char *filename, const char *format,
                     uint64_t bytes, const json_t *options, struct ash_error *error)
{
    struct creation creation = {
        .format = ash_driver_find(format), .filename = filename, .bytes = bytes};
    json_t *description = NULL;
    if (creation.format == NULL) {
        return ash_error_set(error, -EINVAL, "Unknown file format '%s'", format);
    }
    if (creation.format->create == NULL && creation.format->create_file == NULL) {
        return ash_error_set(error, -ENOTSUP, "Format driver '%s' does not support image creation",
                             format);
    }
    int ret = find_protocol(&creation, &description, error);
    if (ret == 0) {
        ret = take_options(&creation, options, error);
    }
    if (ret == 0) {
        ret = make(loop, &creation, description, error);
    }
    if (creation.format_options != NULL) {
        ash_create_options_free(creation.format, creation.format_options);
    }
    if (creation.protocol_options != NULL) {
        ash_create_options_free(creation.protocol, creation.protocol_options);
    }
    json_decref(description);
    return ret;
}
