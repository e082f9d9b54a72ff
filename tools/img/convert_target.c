/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert: the target image: made, opened, and removed again if the conversion fails.
 *
 * Invariant: only what this run has made (or emptied, to make it anew) is ever removed, and only if
 * it is a regular file that the name itself denotes. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "block/driver.h"
#include "block/image/image.h"
#include "block/map/map.h"
#include "tools/img/convert.h"
#include "util/engine/co_aio.h"

/* What a file that was just made holds nothing: reads as zeroes, unless it lies on a device and the
 * format does not say which parts are in use. */
ASH_CO_FN static bool new_reads_as_zeroes(const struct convert *convert)
{
    struct ash_file_status status;
    char *path = ash_tool_host_path(convert->target.filename);
    bool regular = path != NULL && ash_co_path_status(ash_co_loop()->engine, path, &status) == 0 &&
                   status.regular;
    const char *preallocation = ash_tool_options_get(&convert->options, "preallocation");
    bool keeps_account = ash_disk_node(convert->target_disk)->limits.cluster != 0 &&
                         (preallocation == NULL || strcmp(preallocation, "off") == 0);
    g_free(path);
    return regular || keeps_account;
}

ASH_CO_FN static int create(struct convert *convert)
{
    struct ash_error error = ASH_ERROR_INIT;
    char number[32];
    for (uint32_t i = 0; i < convert->source_count; i++) {
        if (ash_tool_reads_from(convert->sources[i].disk, convert->target.filename)) {
            ash_tool_error("%s: it is a file of the source '%s', and would be lost",
                           convert->target.filename, convert->sources[i].image.filename);
            return 1;
        }
    }
    snprintf(number, sizeof(number), "%" PRIu64, convert->total_bytes);
    ash_tool_options_set(&convert->options, "size", number);
    int ret = ash_image_create(ash_co_loop(), convert->target.filename, convert->target_format,
                               convert->total_bytes, convert->options.list, &error);
    if (ret < 0) {
        ash_tool_error("%s: error while converting %s: %s", convert->target.filename,
                       convert->target_format, error.message);
        return 1;
    }
    convert->created = true;
    return 0;
}

/* The node of the source's chain that the target's backing file stands for: the one of that file,
 * or else the first below the top. */
static const struct ash_node *find_base(const struct convert *convert)
{
    const struct ash_node *top = ash_disk_node(convert->sources[0].disk);
    const char *backing = ash_disk_node(convert->target_disk)->backing_file;
    if (top->backing == NULL || backing == NULL) {
        return NULL;
    }
    char *beside = ash_path_beside(ash_disk_node(convert->target_disk)->filename, backing);
    char *path = realpath(beside, NULL);
    const struct ash_node *found = NULL;
    for (const struct ash_node *node = top;
         path != NULL && found == NULL && node->backing != NULL;) {
        node = node->backing->child;
        char *other = realpath(node->filename, NULL);
        if (other != NULL && strcmp(other, path) == 0) {
            found = node;
        }
        free(other);
    }
    free(path);
    g_free(beside);
    return found != NULL ? found : top->backing->child;
}

/* What the open target must be like. */
ASH_CO_FN static int check_target(struct convert *convert)
{
    struct ash_node *node = ash_disk_node(convert->target_disk);
    convert->has_backing = node->backing != NULL || node->backing_file != NULL;
    if (ash_tool_bytes(convert->target_disk) < convert->total_bytes) {
        ash_tool_error("%s: output file is smaller than input file", convert->target.filename);
        return 1;
    }
    if (convert->compress && (node->driver->map == NULL || node->driver->map->encode == NULL)) {
        ash_tool_error("Compression not supported for this file format");
        return 1;
    }
    if (convert->target_is_zero && convert->backing != NULL) {
        ash_tool_error("Cannot use --target-is-zero when the destination image has a backing file");
        return 1;
    }
    convert->zero_init = convert->target_is_zero || (convert->created && !convert->has_backing &&
                                                     new_reads_as_zeroes(convert));
    if (convert->has_backing && convert->backing != NULL) {
        convert->base = find_base(convert);
    }
    return 0;
}

int ash_convert_open_target(struct convert *convert)
{
    if (!convert->skip_create && create(convert) != 0) {
        return 1;
    }
    convert->target_disk = ash_tool_open(&convert->target);
    return convert->target_disk == NULL ? 1 : check_target(convert);
}
