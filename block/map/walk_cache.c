/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory of walks.
 *
 * Invariants:
 *  1. Entries of a window are sorted, do not overlap, and lie within it.
 *  2. An entry is what a walk that started after the last change to its range found: a change
 * forgets the range and marks the walks under way over it as stale.
 *  3. A window has at most WINDOW_ENTRIES_MAX entries; one that would need more starts again empty.
 * So inserting costs a bounded move.
 *  4. Forgetting a range costs the windows that exist in it, not its length.
 *  5. Forgetting takes no memory, so it evicts nothing: formats call it with pointers to slices of
 *     their tables at hand. Where it would have to split an entry and has no room, it forgets more.
 */
#include "block/map/walk_cache.h"
#include <glib.h>
#include <string.h>
#include "block/graph/block.h"
#include "util/assert.h"
#include "util/range.h"

#define WINDOW_BYTES (8 * MiB)
#define WINDOW_ENTRIES_MAX 2048

struct entry {
    uint32_t start; /* within the window */
    uint32_t bytes;
    uint32_t depth;
    uint8_t kind;
    bool through;
    bool absent;
    struct ash_edge *edge;
    struct ash_node *owner;
    uint64_t host_offset;
};

/* Whether host_offset counts: a zero extent may have a place too. */
static bool placed(const struct entry *entry)
{
    return entry->edge != NULL;
}

struct window {
    struct ash_budget_item item;
    struct ash_walk_cache *cache;
    uint64_t index; /* offset / WINDOW_BYTES; the key in the table */
    uint32_t count;
    uint32_t capacity;
    struct entry *entries;
};

struct ash_walk_cache {
    struct ash_budget *budget;
    GHashTable *windows;   /* index -> struct window */
    struct window *recent; /* the window of the last look-up, or NULL */
    struct ash_list walks; /* under way */
};

struct ash_walk_cache *ash_walk_cache_new(struct ash_node *node)
{
    struct ash_walk_cache *cache = g_new0(struct ash_walk_cache, 1);
    cache->budget = &ash_block_of(node->loop)->budget;
    cache->windows = g_hash_table_new(g_int64_hash, g_int64_equal);
    ash_list_init(&cache->walks);
    return cache;
}

static void window_free(struct window *window)
{
    if (window->cache->recent == window) {
        window->cache->recent = NULL;
    }
    g_hash_table_remove(window->cache->windows, &window->index);
    ash_budget_remove(window->cache->budget, &window->item);
    g_free(window->entries);
    g_free(window);
}

static bool window_evict(struct ash_budget_item *item)
{
    window_free(ash_container_of(item, struct window, item));
    return true;
}

void ash_walk_cache_free(struct ash_walk_cache *cache)
{
    ash_assert(ash_list_empty(&cache->walks));
    GList *windows = g_hash_table_get_values(cache->windows);
    for (GList *at = windows; at != NULL; at = at->next) {
        window_free(at->data);
    }
    g_list_free(windows);
    g_hash_table_destroy(cache->windows);
    g_free(cache);
}

static struct window *window_find(struct ash_walk_cache *cache, uint64_t index)
{
    if (cache->recent != NULL && cache->recent->index == index) {
        return cache->recent;
    }
    struct window *window = g_hash_table_lookup(cache->windows, &index);
    if (window != NULL) {
        cache->recent = window;
    }
    return window;
}

static uint32_t window_item_bytes(uint32_t capacity)
{
    /* The struct, the entries, and what the hash table needs for it. */
    return (uint32_t)(sizeof(struct window) + capacity * sizeof(struct entry) + 64);
}

static struct window *window_new(struct ash_walk_cache *cache, uint64_t index)
{
    struct window *window = g_new0(struct window, 1);
    window->cache = cache;
    window->index = index;
    window->item.evict = window_evict;
    window->item.bytes = window_item_bytes(0);
    g_hash_table_insert(cache->windows, &window->index, window);
    ash_budget_add(cache->budget, &window->item);
    return window;
}

static void window_reserve(struct window *window, uint32_t count)
{
    if (count <= window->capacity) {
        return;
    }
    uint32_t capacity = ASH_MAX(4, ASH_MAX(count, window->capacity * 2));
    window->entries = g_renew(struct entry, window->entries, capacity);
    window->capacity = capacity;
    ash_budget_remove(window->cache->budget, &window->item);
    window->item.bytes = window_item_bytes(capacity);
    ash_budget_add(window->cache->budget, &window->item);
}

/* The index of the first entry that ends after `at`. */
static uint32_t window_seek(const struct window *window, uint32_t at)
{
    uint32_t low = 0;
    uint32_t high = window->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (window->entries[middle].start + window->entries[middle].bytes <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool ash_walk_cache_lookup(struct ash_walk_cache *cache, uint64_t offset, uint64_t bytes,
                           struct ash_walk_find *find)
{
    struct window *window = window_find(cache, offset / WINDOW_BYTES);
    if (window == NULL) {
        return false;
    }
    uint32_t at = (uint32_t)(offset % WINDOW_BYTES);
    uint32_t index = window_seek(window, at);
    if (index == window->count || window->entries[index].start > at) {
        return false;
    }
    const struct entry *entry = &window->entries[index];
    uint32_t skip = at - entry->start;
    find->extent = (struct ash_extent){
        .kind = entry->kind,
        .through = entry->through,
        .absent = entry->absent,
        .bytes = ASH_MIN(bytes, entry->bytes - skip),
        .edge = entry->edge,
        .host_offset = entry->host_offset + (placed(entry) ? skip : 0),
    };
    find->owner = entry->owner;
    find->depth = entry->depth;
    ash_budget_touch(cache->budget, &window->item);
    return true;
}

static void window_remove(struct window *window, uint32_t index, uint32_t count)
{
    if (count == 0) {
        return;
    }
    memmove(&window->entries[index], &window->entries[index + count],
            (window->count - index - count) * sizeof(struct entry));
    window->count -= count;
}

/* There is room for it. */
static void window_insert(struct window *window, uint32_t index, const struct entry *entry)
{
    ash_assert(window->count < window->capacity);
    memmove(&window->entries[index + 1], &window->entries[index],
            (window->count - index) * sizeof(struct entry));
    window->entries[index] = *entry;
    window->count++;
}

static void entry_cut_front(struct entry *entry, uint32_t bytes)
{
    entry->start += bytes;
    entry->bytes -= bytes;
    if (placed(entry)) {
        entry->host_offset += bytes;
    }
}

/* Takes [start, end) out of a window; without room to split an entry, what follows of it too. */
static void window_clear(struct window *window, uint32_t start, uint32_t end)
{
    uint32_t index = window_seek(window, start);
    if (index < window->count && window->entries[index].start < start) {
        struct entry *entry = &window->entries[index];
        uint32_t entry_end = entry->start + entry->bytes;
        struct entry rest = *entry;
        entry->bytes = start - entry->start;
        index++;
        if (entry_end > end && window->count < window->capacity) {
            entry_cut_front(&rest, end - rest.start);
            window_insert(window, index, &rest);
            return;
        }
    }
    uint32_t last = index;
    while (last < window->count &&
           window->entries[last].start + window->entries[last].bytes <= end) {
        last++;
    }
    window_remove(window, index, last - index);
    if (index < window->count && window->entries[index].start < end) {
        entry_cut_front(&window->entries[index], end - window->entries[index].start);
    }
}

static bool continues(const struct entry *a, const struct entry *b)
{
    return a->start + a->bytes == b->start && a->kind == b->kind && a->edge == b->edge &&
           a->owner == b->owner && a->depth == b->depth && a->through == b->through &&
           a->absent == b->absent && (!placed(a) || a->host_offset + a->bytes == b->host_offset);
}

static void window_put(struct window *window, const struct entry *entry)
{
    if (window->count >= WINDOW_ENTRIES_MAX) {
        window->count = 0;
    }
    window_reserve(window, window->count + 2); /* what is put, and the rest of what it splits */
    window_clear(window, entry->start, entry->start + entry->bytes);
    uint32_t index = window_seek(window, entry->start);
    if (index > 0 && continues(&window->entries[index - 1], entry)) {
        index--;
        window->entries[index].bytes += entry->bytes;
    } else {
        window_insert(window, index, entry);
    }
    if (index + 1 < window->count &&
        continues(&window->entries[index], &window->entries[index + 1])) {
        window->entries[index].bytes += window->entries[index + 1].bytes;
        window_remove(window, index + 1, 1);
    }
}

static void remember(struct ash_walk_cache *cache, uint64_t offset,
                     const struct ash_walk_find *find)
{
    uint64_t end = offset + find->extent.bytes;
    uint64_t host = find->extent.host_offset;
    while (offset < end) {
        struct window *window = window_find(cache, offset / WINDOW_BYTES);
        if (window == NULL) {
            window = window_new(cache, offset / WINDOW_BYTES);
        }
        uint32_t start = (uint32_t)(offset % WINDOW_BYTES);
        struct entry entry = {
            .start = start,
            .bytes = (uint32_t)ASH_MIN(end - offset, WINDOW_BYTES - start),
            .depth = find->depth,
            .kind = find->extent.kind,
            .through = find->extent.through,
            .absent = find->extent.absent,
            .edge = find->extent.edge,
            .owner = find->owner,
            .host_offset = host,
        };
        window_put(window, &entry);
        offset += entry.bytes;
        host += placed(&entry) ? entry.bytes : 0;
    }
}

void ash_walk_begin(struct ash_walk_cache *cache, struct ash_walk *walk, uint64_t offset,
                    uint64_t bytes)
{
    walk->offset = offset;
    walk->bytes = bytes;
    walk->stale = false;
    ash_list_push_back(&cache->walks, &walk->link);
}

void ash_walk_end(struct ash_walk_cache *cache, struct ash_walk *walk,
                  const struct ash_walk_find *find)
{
    ash_list_remove(&walk->link);
    /* A huge range of zeroes would fill many windows with one entry each: the first ones are
     * enough. */
    if (find != NULL && !walk->stale) {
        struct ash_walk_find part = *find;
        part.extent.bytes = ASH_MIN(part.extent.bytes, 8 * WINDOW_BYTES);
        remember(cache, walk->offset, &part);
    }
}

static void forget_in_window(struct window *window, uint64_t offset, uint64_t end)
{
    uint64_t base = window->index * WINDOW_BYTES;
    uint64_t start = ASH_MAX(offset, base);
    uint64_t stop = ASH_MIN(end, base + WINDOW_BYTES);
    if (start < stop) {
        window_clear(window, (uint32_t)(start - base), (uint32_t)(stop - base));
    }
}

void ash_walk_cache_forget(struct ash_walk_cache *cache, uint64_t offset, uint64_t bytes)
{
    uint64_t end = bytes > INT64_MAX - offset ? INT64_MAX : offset + bytes;
    ash_list_for_each (walk, &cache->walks, struct ash_walk, link) {
        if (ash_range_overlap(walk->offset, walk->bytes, offset, end - offset)) {
            walk->stale = true;
        }
    }
    uint64_t first = offset / WINDOW_BYTES;
    uint64_t last = end == 0 ? 0 : (end - 1) / WINDOW_BYTES;
    if (last - first < g_hash_table_size(cache->windows)) {
        for (uint64_t index = first; index <= last; index++) {
            struct window *window = window_find(cache, index);
            if (window != NULL) {
                forget_in_window(window, offset, end);
            }
        }
        return;
    }
    GHashTableIter iter;
    gpointer value;
    g_hash_table_iter_init(&iter, cache->windows);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        forget_in_window(value, offset, end);
    }
}
