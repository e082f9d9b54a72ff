/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Emptying an image, as after its contents were committed to its backing file. */
#include <errno.h>
#include <string.h>
#include "block/disk/disk.h"
#include "block/graph/graft.h"
#include "block/image/image.h"
#include "block/map/ops.h"

int ash_image_empty(struct ash_disk *disk, struct ash_error *error)
{
    struct ash_node *node = ash_graft_mapped(ash_disk_node(disk));
    int ret = -ENOTSUP;
    if (node != NULL && ash_node_writable(node)) {
        ash_user_enter(&disk->user);
        ret = ash_map_empty(node);
        ash_user_leave(&disk->user);
    }
    return ret < 0 ? ash_error_errno(error, ret, "Could not empty %s", disk->root->child->filename)
                   : 0;
}
