/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pins of mapped nodes.
 *
 * A pin is a claim on a host range by I/O in flight: taken in the same turn as the lookup that
 * found the range, dropped when the I/O has completed. Freed ranges that a pin overlaps are not
 * handed out again; the format asks ash_pin_overlaps(), and is told by unpinned() when to ask
 * again. A range that is not linked any more cannot get new pins, so asking once per drop is
 * enough. */
#include "block/map/map.h"
#include "util/assert.h"
#include "util/range.h"

void ash_pin_take(struct ash_pin *pin, struct ash_node *node, struct ash_edge *edge,
                  uint64_t host_offset, uint64_t bytes)
{
    if (node->map == NULL) {
        pin->node = NULL;
        return;
    }
    pin->node = node;
    pin->edge = edge;
    pin->host_offset = host_offset;
    pin->bytes = bytes;
    ash_list_push_back(&node->map->pins, &pin->link);
}

void ash_pin_drop(struct ash_pin *pin)
{
    struct ash_node *node = pin->node;
    if (node == NULL) {
        return;
    }
    ash_list_remove(&pin->link);
    pin->node = NULL;
    if (ash_unlikely(node->map->waiting_for_pins)) {
        node->driver->map->unpinned(node);
    }
}

void ash_pin_move(struct ash_pin *to, struct ash_pin *from)
{
    *to = *from;
    if (from->node != NULL) {
        ash_list_insert_after(&from->link, &to->link);
        ash_list_remove(&from->link);
        from->node = NULL;
    }
}

bool ash_pin_overlaps(const struct ash_node *node, const struct ash_edge *edge,
                      uint64_t host_offset, uint64_t bytes)
{
    ash_list_for_each(pin, &node->map->pins, struct ash_pin, link)
    {
        if (pin->edge == edge &&
            ash_range_overlap(pin->host_offset, pin->bytes, host_offset, bytes)) {
            return true;
        }
    }
    return false;
}
