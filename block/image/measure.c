/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How large an image would become. A format counts by its own clusters, and this file tells it how
 * much of a source lies in clusters that hold data. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include "block/image/image.h"
#include "block/image/options.h"
#include "block/map/map.h"
#include "util/range.h"

struct source {
    struct ash_node *node; /* NULL: an empty image */
    int error;             /* of the first failure */
};

/* Bytes of data, rounded outwards to units; neighbours in one unit count once. In a coroutine. */
static uint64_t allocated(void *opaque, uint64_t unit_bytes)
{
    struct source *source = opaque;
    uint64_t total = 0;
    uint64_t counted = 0; /* up to here */
    uint64_t at = 0;
    if (source->node == NULL) {
        return 0;
    }
    ash_co_assert_inside();
    uint64_t end = source->node->size_bytes;
    if (!ash_node_is_mapped(source->node)) {
        return ash_div_round_up(end, unit_bytes) * unit_bytes;
    }
    while (at < end) {
        struct ash_status status;
        int ret = ash_chain_status(source->node, NULL, at, end - at, ASH_IO_STATUS_ZEROES, &status);
        if (ret < 0) {
            source->error = ret;
            return total;
        }
        if ((status.flags & ASH_STATUS_DATA) != 0 && (status.flags & ASH_STATUS_ZERO) == 0) {
            uint64_t first = ASH_MAX(at - at % unit_bytes, counted);
            uint64_t last = ash_div_round_up(at + status.bytes, unit_bytes) * unit_bytes;
            total += last - first;
            counted = last;
        }
        at += status.bytes;
    }
    return total;
}

int ash_image_measure(struct ash_loop *loop, const char *format, const json_t *options,
                      uint64_t bytes, struct ash_node *source, struct ash_measure *measure,
                      struct ash_error *error)
{
    const struct ash_driver *driver = ash_driver_find(format);
    struct source from = {.node = source};
    (void)loop;
    if (driver == NULL) {
        return ash_error_set(error, -EINVAL, "Unknown file format '%s'", format);
    }
    if (!ash_range_valid(0, bytes) || bytes > INT64_MAX - 511) {
        return ash_error_set(error, -EFBIG, "The image size %" PRIu64 " is too large", bytes);
    }
    json_t *rest = options != NULL ? json_copy((json_t *)options) : json_object();
    json_object_del(rest, "size");
    json_object_del(rest, "nocow"); /* of the file, and nothing to the length */
    json_object_del(rest, "extent_size_hint");
    void *taken = ash_create_options_take(driver, rest, error);
    int ret = taken != NULL ? ash_create_options_refuse_rest(rest, error) : -EINVAL;
    json_decref(rest);
    bytes = ash_align_up(bytes, 512);
    if (ret == 0 && driver->measure != NULL) {
        ret = driver->measure(bytes, taken, allocated, &from, measure, error);
    } else if (ret == 0) {
        *measure = (struct ash_measure){bytes, bytes};
    }
    if (ret == 0 && from.error < 0) {
        ret = ash_error_errno(error, from.error, "The allocation of '%s' cannot be read",
                              source->filename);
    }
    if (taken != NULL) {
        ash_create_options_free(driver, taken);
    }
    return ret;
}
