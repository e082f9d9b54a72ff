/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images as the tools' users name them.
 *
 * A disk may end within a sector of 512 bytes. Users of disk images know only whole sectors: what
 * is missing from the last one reads as zeroes. The functions here keep that in one place. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "block/driver.h"
#include "block/graph/open.h"
#include "block/map/map.h"
#include "tools/common/tool.h"
#include "util/json.h"
#include "util/range.h"

#define SECTOR_BYTES UINT64_C(512)

json_t *ash_tool_describe(const struct ash_tool_image *image, struct ash_error *error)
{
    if (image->image_opts) {
        return ash_json_from_keyval(image->filename, "file", error);
    }
    if (!image->path_only) {
        return ash_describe(image->filename, image->format, error);
    }
    if (strncmp(image->filename, "json:", 5) == 0 || strstr(image->filename, "://") != NULL) {
        ash_error_set(error, -EPERM, "It is not a path: refused, as the image's author chose it");
        return NULL;
    }
    json_t *description =
        json_pack("{s:{s:s, s:s}}", "file", "driver", "file", "filename", image->filename);
    if (description == NULL) {
        ash_error_set(error, -EINVAL, "The file name is not UTF-8");
    } else if (image->format != NULL) {
        json_object_set_new(description, "driver", json_string(image->format));
    }
    return description;
}

struct ash_disk *ash_tool_open(const struct ash_tool_image *image)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk = NULL;
    json_t *description = ash_tool_describe(image, &error);
    int ret = description != NULL ? 0 : -EINVAL;
    if (ret == 0) {
        ret = ash_co_disk_open(ash_co_loop(), description, image->flags, &disk, &error);
        json_decref(description);
    }
    if (ret < 0) {
        ash_tool_error("Could not open '%s': %s", image->filename,
                       error.message[0] != '\0' ? error.message : strerror(-ret));
        return NULL;
    }
    disk->write_through = image->write_through;
    return disk;
}

int ash_tool_close(struct ash_disk *disk, const char *filename)
{
    struct ash_error error = ASH_ERROR_INIT;
    if (disk == NULL) {
        return 0;
    }
    int ret = ash_co_disk_close(disk, &error);
    if (ret < 0) {
        ash_tool_error("Could not close '%s': %s", filename,
                       error.message[0] != '\0' ? error.message : strerror(-ret));
    }
    return ret;
}

uint64_t ash_tool_bytes(const struct ash_disk *disk)
{
    return ash_align_up(ash_disk_bytes(disk), SECTOR_BYTES);
}

int ash_tool_read(struct ash_disk *disk, uint64_t offset, void *buffer, uint64_t bytes)
{
    uint64_t end = ash_disk_bytes(disk);
    uint64_t inside = offset < end ? ASH_MIN(bytes, end - offset) : 0;
    if (inside < bytes) {
        memset((char *)buffer + inside, 0, bytes - inside);
    }
    return inside > 0 ? ash_disk_read(disk, offset, buffer, inside) : 0;
}

int ash_tool_status(struct ash_disk *disk, const struct ash_node *base, uint64_t offset,
                    uint64_t bytes, struct ash_status *status)
{
    uint64_t end = ash_disk_bytes(disk);
    *status = (struct ash_status){.node = ash_disk_node(disk)};
    if (offset >= end) {
        status->flags = ASH_STATUS_ZERO | ASH_STATUS_EOF;
        status->bytes = bytes;
        if (offset < ash_align_up(end, SECTOR_BYTES)) {
            /* The rest of the last sector is a hole of the image itself. */
            status->flags |= ASH_STATUS_ALLOCATED | ASH_STATUS_OFFSET;
            status->bytes = ASH_MIN(bytes, ash_align_up(end, SECTOR_BYTES) - offset);
            status->host_offset = offset;
            status->host = status->node;
        }
        return 0;
    }
    bytes = ASH_MIN(bytes, end - offset);
    int ret;
    if (base != NULL) {
        ret = ash_chain_status(ash_disk_node(disk), base, offset, bytes, ASH_IO_STATUS_ZEROES,
                               status);
    } else {
        struct ash_io io = {.op = ASH_STATUS,
                            .flags = ASH_IO_STATUS_ZEROES,
                            .offset = offset,
                            .bytes = bytes,
                            .status = status};
        ret = ash_disk_io(disk, &io);
    }
    return ret;
}

bool ash_tool_status_is_zero(const struct ash_status *status)
{
    return (status->flags & ASH_STATUS_ZERO) != 0 ||
           (status->flags & (ASH_STATUS_DATA | ASH_STATUS_ALLOCATED)) == 0;
}
