/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walking a chain of mapped nodes: a loop over lookups, never a recursion.
 *
 * A walk passes mapped nodes only. A filter or a protocol node ends it: there the range is data of
 * that node, behind its edge's whole pipeline. What lies beyond the end of a shorter backing node
 * reads as zeroes.
 *
 * The walk's answer is remembered in the topmost node, if the chain has more than one layer, and
 * only for walks to the very end of the chain. Coded extents are not remembered: decoding them
 * costs more than the walk. */
#include "block/map/map.h"
#include <errno.h>
#include <glib.h>
#include "block/map/walk_cache.h"
#include "util/assert.h"
#include "util/range.h"

#define LOOK_AHEAD_UNITS 16

struct ash_map *ash_map_new(struct ash_node *node)
{
    struct ash_map *map = g_new0(struct ash_map, 1);
    ash_list_init(&map->pins);
    map->shown_bytes = UINT64_MAX;
    map->unit_bytes = node->limits.cluster != 0 ? node->limits.cluster : 1;
    ash_range_locks_init(&map->locks, map->unit_bytes);
    return map;
}

void ash_map_free(struct ash_map *map)
{
    ash_assert(ash_list_empty(&map->pins));
    ash_assert(ash_list_empty(&map->locks.held));
    if (map->cache != NULL) {
        ash_walk_cache_free(map->cache);
    }
    g_free(map);
}

void ash_map_forget(struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    if (node->map != NULL && node->map->cache != NULL) {
        ash_walk_cache_forget(node->map->cache, offset, bytes);
    }
    /* A chain is long but seldom branches: go up in a loop, and recurse only for further parents.
     */
    struct ash_node *above = node;
    while (above != NULL) {
        struct ash_node *next = NULL;
        ash_list_for_each (edge, &above->parents, struct ash_edge, child_link) {
            struct ash_node *parent = edge->parent;
            if (parent == NULL || (edge->role != ASH_ROLE_BACKING && parent->map != NULL)) {
                continue;
            }
            if (next != NULL) {
                ash_map_forget(parent, offset, bytes);
                continue;
            }
            if (parent->map != NULL && parent->map->cache != NULL) {
                ash_walk_cache_forget(parent->map->cache, offset, bytes);
            }
            next = parent;
        }
        above = next;
    }
}

/* Zeroes that no layer decided: the deepest one that reaches as far has the last word. */
static void find_nothing(const struct ash_edge *via, uint64_t bytes, struct ash_walk_find *find)
{
    find->extent = (struct ash_extent){.kind = ASH_EXTENT_ZERO, .absent = true, .bytes = bytes};
    if (via != NULL) {
        find->owner = via->parent;
        find->depth--;
    }
}

/* How long the node is for a walk from `top`. */
static uint64_t length_for(const struct ash_node *top, const struct ash_node *node)
{
    return node == top || node->map == NULL ? node->size_bytes
                                            : ASH_MIN(node->size_bytes, node->map->shown_bytes);
}

/* One step down each turn, until a layer decides. */
ASH_CO_FN static int descend(struct ash_node *top, const struct ash_node *base, uint64_t offset,
                             uint64_t bytes, struct ash_walk_find *find)
{
    struct ash_node *node = top;
    struct ash_edge *via = NULL;
    struct ash_extent *extent = &find->extent;
    *extent = (struct ash_extent){.kind = ASH_EXTENT_ZERO, .bytes = bytes};
    find->depth = 0;
    for (;;) {
        uint64_t length = length_for(top, node);
        find->owner = node;
        if (offset >= length) {
            find_nothing(via, bytes, find);
            extent->absent = base == NULL; /* below this node, what stands on `base` ends here */
            return 0;
        }
        bytes = ASH_MIN(bytes, length - offset);
        if (node->map == NULL) {
            *extent = (struct ash_extent){.kind = ASH_EXTENT_DATA,
                                          .through = true,
                                          .bytes = bytes,
                                          .edge = via,
                                          .host_offset = offset};
            return 0;
        }
        int ret = node->driver->map->lookup(node, offset, bytes, extent);
        if (ret < 0) {
            return ret;
        }
        ash_assert(extent->bytes > 0);
        ash_assert(extent->bytes <= bytes);
        bytes = extent->bytes;
        if (extent->kind != ASH_EXTENT_UNALLOCATED) {
            return 0;
        }
        via = node->backing;
        if (via == NULL || via->child == base) {
            if (base == NULL) {
                find_nothing(NULL, bytes, find);
            }
            return 0;
        }
        node = via->child;
        find->depth++;
    }
}

static void pin_find(struct ash_pin *pin, const struct ash_walk_find *find)
{
    const struct ash_extent *extent = &find->extent;
    if (extent->kind == ASH_EXTENT_DATA) {
        ash_pin_take(pin, find->owner, extent->edge, extent->host_offset, extent->bytes);
    } else if (extent->kind == ASH_EXTENT_CODED) {
        ash_pin_take(pin, find->owner, extent->edge, extent->host_offset, extent->coded_bytes);
    } else {
        pin->node = NULL;
    }
}

/* Narrows what was found from `start` on to [offset, offset + bytes). False: it does not reach
 * there. */
static bool narrow(struct ash_walk_find *find, uint64_t start, uint64_t offset, uint64_t bytes)
{
    struct ash_extent *extent = &find->extent;
    uint64_t skip = offset - start;
    if (extent->bytes <= skip) {
        return false;
    }
    extent->bytes = ASH_MIN(extent->bytes - skip, bytes);
    if (extent->kind != ASH_EXTENT_CODED && extent->edge != NULL) {
        extent->host_offset += skip;
    }
    return true;
}

/* A walk that is remembered looks at whole allocation units, and at some more of them than were
 * asked for: the next request will want those, and one longer look costs less than many walks. */
ASH_CO_FN static int walk_and_remember(struct ash_node *top, uint64_t offset, uint64_t bytes,
                                       struct ash_walk_find *find)
{
    struct ash_walk_cache *cache = top->map->cache;
    uint64_t unit = top->map->unit_bytes;
    uint64_t start = ash_align_down(offset, unit);
    uint64_t end = ash_align_up(offset + bytes, unit) + LOOK_AHEAD_UNITS * unit;
    struct ash_walk walk;
    ash_walk_begin(cache, &walk, start, end - start);
    int ret = descend(top, NULL, start, end - start, find);
    bool worth =
        ret == 0 && (find->extent.kind == ASH_EXTENT_DATA || find->extent.kind == ASH_EXTENT_ZERO);
    ash_walk_end(cache, &walk, worth ? find : NULL);
    return ret;
}

ASH_CO_FN static int walk(struct ash_node *top, const struct ash_node *base, uint64_t offset,
                          uint64_t bytes, struct ash_walk_find *find)
{
    if (top->backing == NULL || base != NULL || offset >= top->size_bytes) {
        return descend(top, base, offset, bytes, find);
    }
    if (top->map->cache == NULL) {
        top->map->cache = ash_walk_cache_new(top);
    }
    if (ash_walk_cache_lookup(top->map->cache, offset, bytes, find)) {
        return 0;
    }
    uint64_t start = ash_align_down(offset, top->map->unit_bytes);
    int ret = walk_and_remember(top, offset, bytes, find);
    if (ret == 0 && !narrow(find, start, offset, bytes)) {
        /* A layer below has smaller units, and its answer ends before the offset. */
        ret = descend(top, NULL, offset, bytes, find);
    }
    return ret;
}

int ash_map_walk(struct ash_node *top, const struct ash_node *base, uint64_t offset, uint64_t bytes,
                 struct ash_extent *extent, struct ash_node **owner, uint32_t *depth,
                 struct ash_pin *pin)
{
    ash_assert(bytes > 0);
    struct ash_walk_find find;
    int ret = walk(top, base, offset, bytes, &find);
    if (ret < 0) {
        pin->node = NULL;
        return ret;
    }
    pin_find(pin, &find);
    *extent = find.extent;
    *owner = find.owner;
    *depth = find.depth;
    return 0;
}
