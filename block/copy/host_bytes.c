/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a node down to the file that holds a range of it: one walk for each format on the way.
 *
 * Invariant: the pins are taken in the turn of the lookup that found their place, and held until
 * the caller has copied; so no place is handed out again, and written to, meanwhile. */
#include "block/copy/host_bytes.h"
#include <errno.h>
#include "block/driver.h"

/* One step down: `*node` and `*offset` become what holds them. */
ASH_CO_FN static int step_down(struct ash_node **node, uint64_t *offset,
                               struct ash_host_bytes *found)
{
    struct ash_extent extent;
    struct ash_node *owner;
    uint32_t depth;
    if (found->pin_count == ASH_HOST_BYTES_LAYERS) {
        return -ENOTSUP;
    }
    int ret = ash_map_walk(*node, NULL, *offset, found->bytes, &extent, &owner, &depth,
                           &found->pins[found->pin_count]);
    if (ret < 0) {
        return ret;
    }
    found->pin_count++;
    if (extent.kind != ASH_EXTENT_DATA || extent.edge == NULL) {
        return -ENOTSUP;
    }
    found->bytes = extent.bytes;
    *offset = extent.host_offset;
    *node = extent.edge->child;
    return 0;
}

int ash_host_bytes_find(struct ash_node *node, uint64_t offset, uint64_t bytes,
                        struct ash_host_bytes *found)
{
    int ret = 0;
    found->bytes = bytes;
    found->pin_count = 0;
    while (ret == 0 && node->map != NULL) {
        ret = step_down(&node, &offset, found);
    }
    struct ash_file *file = NULL;
    if (ret == 0 && node->driver->host_file != NULL) {
        file = node->driver->host_file(node);
    }
    if (file == NULL) {
        ash_host_bytes_drop(found);
        return ret < 0 ? ret : -ENOTSUP;
    }
    found->iov = ash_iov_of_file(file, offset);
    return 0;
}

void ash_host_bytes_drop(struct ash_host_bytes *found)
{
    while (found->pin_count > 0) {
        ash_pin_drop(&found->pins[--found->pin_count]);
    }
}
