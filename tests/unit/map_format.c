/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Entry i tells of guest unit i; slot i lies at (i + 1) units in the file, behind the header.
 *
 * It keeps the contracts of block/driver.h: commit, zero and discard change an entry, let its old
 * slot go and have the range forgotten in one turn. */
#include "tests/unit/map_format.h"
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/map/map.h"
#include "util/assert.h"
#include "util/range.h"

extern const struct ash_driver ash_driver_test_map;

#define MAGIC "ASHTMAP1"

static const struct ash_option map_options[] = {
    ASH_OPTION_UINT("delay-ns", struct map_format, delay_ns, .def = 0),
    ASH_OPTION_UINT("seed", struct map_format, seed, .def = 0),
    ASH_OPTION_UINT("slots-max", struct map_format, slots_max, .def = 0),
    ASH_OPTION_UINT("commit-fails", struct map_format, commit_fails_per_mille, .def = 0),
    ASH_OPTION_BOOL("no-zero", struct map_format, no_zero, .def = 0),
    ASH_OPTION_END,
};

void map_header_init(struct map_header *header, uint64_t bytes, uint64_t unit, const char *backing,
                     const char *backing_format)
{
    memset(header, 0, sizeof(*header));
    memcpy(header->magic, MAGIC, 8);
    header->bytes = bytes;
    header->unit = unit;
    g_strlcpy(header->backing, backing != NULL ? backing : "", sizeof(header->backing));
    g_strlcpy(header->backing_format, backing_format != NULL ? backing_format : "",
              sizeof(header->backing_format));
}

static uint64_t slot_offset(const struct map_format *map, uint64_t slot)
{
    return (slot + 1) * map->unit;
}

ASH_CO_FN static void dither(struct map_format *map)
{
    if (map->delay_ns > 0 && ash_prng_chance(&map->prng, 600)) {
        ash_co_sleep(ash_prng_below(&map->prng, map->delay_ns));
    }
}

/* Opening and closing. */

ASH_CO_FN static int read_table(struct ash_node *node, const struct map_header *header)
{
    struct map_format *map = node->state;
    size_t bytes = map->entry_count * sizeof(struct map_entry);
    if (header->table_offset == 0 || bytes == 0) {
        return 0;
    }
    int ret = ash_edge_read(node->file, header->table_offset, map->entries, bytes);
    for (uint64_t i = 0; i < map->entry_count && ret == 0; i++) {
        if (map->entries[i].placed) {
            map->used[map->entries[i].slot] = true;
        }
    }
    return ret;
}

ASH_CO_FN static int map_open(struct ash_node *node, struct ash_error *error)
{
    struct map_format *map = node->state;
    struct map_header header;
    int ret = ash_edge_read(node->file, 0, &header, sizeof(header));
    if (ret < 0 || memcmp(header.magic, MAGIC, 8) != 0) {
        return ash_error_set(error, ret < 0 ? ret : -EINVAL, "'%s' is no test-map image",
                             node->filename);
    }
    ash_prng_seed(&map->prng, map->seed);
    ash_co_queue_init(&map->pin_waiters);
    map->unit = header.unit;
    map->entry_count = ash_div_round_up(header.bytes, header.unit);
    map->entries = g_new0(struct map_entry, ASH_MAX(map->entry_count, 1));
    for (uint64_t i = 0; i < map->entry_count; i++) {
        map->entries[i].kind = ASH_EXTENT_UNALLOCATED;
    }
    map->slot_count = header.slot_count;
    map->used = g_new0(bool, ASH_MAX(map->slot_count, 1));
    ret = read_table(node, &header);
    if (ret == 0 && ash_node_writable(node)) { /* what is beyond the slots reads as zeroes */
        ret = ash_edge_resize(node->file, slot_offset(map, map->slot_count), ASH_RESIZE_SHRINK, 0,
                              error);
    }
    if (ret < 0) {
        g_free(map->entries);
        g_free(map->used);
        return ash_error_errno(error, ret, "'%s' cannot be opened", node->filename);
    }
    node->size_bytes = header.bytes;
    if (header.backing[0] != '\0') {
        node->backing_file = g_strdup(header.backing);
    }
    if (header.backing_format[0] != '\0') {
        node->backing_format = g_strdup(header.backing_format);
    }
    return 0;
}

ASH_CO_FN static int write_back(struct ash_node *node)
{
    struct map_format *map = node->state;
    struct map_header header;
    map_header_init(&header, node->size_bytes, map->unit, node->backing_file, node->backing_format);
    header.slot_count = map->slot_count;
    header.table_offset = slot_offset(map, map->slot_count);
    int ret = ash_edge_write(node->file, header.table_offset, map->entries,
                             map->entry_count * sizeof(struct map_entry), 0);
    return ret < 0 ? ret : ash_edge_write(node->file, 0, &header, sizeof(header), 0);
}

ASH_CO_FN static int map_close(struct ash_node *node)
{
    struct map_format *map = node->state;
    int ret = ash_node_writable(node) ? write_back(node) : 0;
    g_free(map->entries);
    g_free(map->used);
    return ret;
}

static void map_limits(const struct ash_node *node, struct ash_limits *limits)
{
    limits->cluster = (uint32_t)map_format_of(node)->unit;
}

static int map_probe(const uint8_t *head, size_t bytes)
{
    struct map_header header;
    memcpy(&header, head, ASH_MIN(bytes, offsetof(struct map_header, table_offset)));
    bool mine = bytes >= offsetof(struct map_header, table_offset) &&
                memcmp(header.magic, MAGIC, 8) == 0 && header.unit <= MiB;
    return mine ? 100 : 0;
}

/* Places. */

static void let_go(struct map_format *map, struct map_entry *entry)
{
    if (entry->placed) {
        ash_assert(map->used[entry->slot]);
        map->used[entry->slot] = false;
        entry->placed = false;
    }
}

static bool can_have(struct ash_node *node, uint64_t slot)
{
    struct map_format *map = node->state;
    if (map->used[slot]) {
        return false;
    }
    bool pinned = ash_pin_overlaps(node, node->file, slot_offset(map, slot), map->unit);
    map->pinned += pinned;
    return !pinned;
}

/* Up to `want` neighbouring slots. Returns how many, or a negative errno. */
ASH_CO_FN static int allocate(struct ash_node *node, uint64_t want, uint64_t *first, bool *fresh)
{
    struct map_format *map = node->state;
    for (;;) {
        bool freed = false;
        for (uint64_t slot = 0; slot < map->slot_count; slot++) {
            freed |= !map->used[slot];
            if (!can_have(node, slot)) {
                continue;
            }
            uint64_t count = 0;
            while (count < want && slot + count < map->slot_count && can_have(node, slot + count)) {
                map->used[slot + count++] = true;
            }
            *first = slot;
            *fresh = false;
            map->reused += (unsigned)count;
            return (int)count;
        }
        if (map->slots_max == 0 || map->slot_count < map->slots_max) {
            *first = map->slot_count;
            *fresh = true;
            map->slot_count++;
            map->used = g_renew(bool, map->used, map->slot_count);
            map->used[*first] = true;
            return 1;
        }
        if (!freed) {
            return -ENOSPC;
        }
        map->waited++;
        node->map->waiting_for_pins = true;
        ash_co_queue_wait(&map->pin_waiters);
    }
}

static void map_unpinned(struct ash_node *node)
{
    node->map->waiting_for_pins = false;
    ash_co_queue_wake_all(&map_format_of(node)->pin_waiters);
}

/* The map. */

static bool in_place(const struct map_entry *entry)
{
    return entry->kind == ASH_EXTENT_DATA && !entry->shared;
}

static bool goes_on(const struct map_format *map, uint64_t index)
{
    const struct map_entry *a = &map->entries[index];
    const struct map_entry *b = &map->entries[index + 1];
    bool neighbours = !a->placed || a->slot + 1 == b->slot;
    return a->kind != ASH_EXTENT_CODED && a->kind == b->kind && a->placed == b->placed &&
           a->shared == b->shared && neighbours &&
           (a->linked <= map->changes_stable) == (b->linked <= map->changes_stable);
}

ASH_CO_FN static int map_lookup(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                struct ash_extent *extent)
{
    struct map_format *map = node->state;
    ash_assert(bytes > 0);
    ash_assert(offset + bytes <= node->size_bytes);
    map->lookups++;
    dither(map);
    uint64_t index = offset / map->unit;
    const struct map_entry *entry = &map->entries[index];
    uint64_t end = (index + 1) * map->unit;
    while (end < offset + bytes && goes_on(map, end / map->unit - 1) &&
           !ash_prng_chance(&map->prng, 100)) {
        end += map->unit;
    }
    *extent = (struct ash_extent){
        .kind = entry->kind,
        .in_place = in_place(entry),
        .stable = entry->linked <= map->changes_stable,
        .bytes = ASH_MIN(end - offset, bytes),
        .edge = entry->placed ? node->file : NULL,
    };
    if (entry->placed) {
        extent->host_offset = slot_offset(map, entry->slot) + offset % map->unit;
    }
    if (entry->kind == ASH_EXTENT_CODED) {
        extent->host_offset = slot_offset(map, entry->slot);
        extent->coded_bytes = entry->coded_bytes;
        extent->unit_offset = index * map->unit;
        extent->unit_bytes = (uint32_t)map->unit;
    }
    return 0;
}

enum { SCRATCH_SLOT, SCRATCH_KEPT };

ASH_CO_FN static int map_prepare(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                 struct ash_placement *placement)
{
    struct map_format *map = node->state;
    dither(map);
    uint64_t index = offset / map->unit;
    uint64_t want = ash_div_round_up(offset + bytes, map->unit) - index;
    want = ash_prng_between(&map->prng, 1, want);
    const struct map_entry *entry = &map->entries[index];
    placement->edge = node->file;
    placement->offset = index * map->unit;
    if (entry->kind == ASH_EXTENT_ZERO && entry->placed) {
        placement->bytes = map->unit;
        placement->host_offset = slot_offset(map, entry->slot);
        placement->fill_zero = true;
        placement->scratch[SCRATCH_SLOT] = entry->slot;
        placement->scratch[SCRATCH_KEPT] = true;
        return 0;
    }
    bool fresh;
    uint64_t slot;
    int count = allocate(node, want, &slot, &fresh);
    if (count < 0) {
        return count;
    }
    placement->bytes = (uint64_t)count * map->unit;
    placement->host_offset = slot_offset(map, slot);
    placement->reads_zero = fresh;
    placement->scratch[SCRATCH_SLOT] = slot;
    dither(map);
    return 0;
}

ASH_CO_FN static int map_prepare_coded(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                       uint32_t coded_bytes, struct ash_placement *placement)
{
    struct map_format *map = node->state;
    bool fresh;
    uint64_t slot;
    dither(map);
    int count = allocate(node, 1, &slot, &fresh);
    if (count < 0) {
        return count;
    }
    *placement = (struct ash_placement){.offset = offset,
                                        .bytes = bytes,
                                        .edge = node->file,
                                        .host_offset = slot_offset(map, slot),
                                        .coded_bytes = coded_bytes};
    placement->scratch[SCRATCH_SLOT] = slot;
    return 0;
}

ASH_CO_FN static int map_commit(struct ash_node *node, struct ash_placement *placement)
{
    struct map_format *map = node->state;
    dither(map);
    if (ash_prng_chance(&map->prng, (unsigned)map->commit_fails_per_mille)) {
        return -EIO;
    }
    map->changes++;
    for (uint64_t i = 0; i < placement->bytes / map->unit; i++) {
        struct map_entry *entry = &map->entries[placement->offset / map->unit + i];
        if (!placement->scratch[SCRATCH_KEPT]) {
            let_go(map, entry);
        }
        *entry = (struct map_entry){
            .kind = placement->coded_bytes > 0 ? ASH_EXTENT_CODED : ASH_EXTENT_DATA,
            .placed = true,
            .coded_bytes = placement->coded_bytes,
            .slot = placement->scratch[SCRATCH_SLOT] + i,
            .linked = map->changes,
        };
    }
    return 0;
}

ASH_CO_FN static void map_abort(struct ash_node *node, struct ash_placement *placement)
{
    struct map_format *map = node->state;
    for (uint64_t i = 0; i < placement->bytes / map->unit; i++) {
        if (!placement->scratch[SCRATCH_KEPT]) {
            map->used[placement->scratch[SCRATCH_SLOT] + i] = false;
        }
    }
    dither(map);
}

/* Makes one unit read as zeroes, and gives its place back or keeps it. */
static void clear(struct ash_node *node, uint64_t index, bool keep, uint8_t kind)
{
    struct map_format *map = node->state;
    struct map_entry *entry = &map->entries[index];
    keep = keep && entry->placed && !entry->shared && entry->kind != ASH_EXTENT_CODED;
    if (!keep) {
        let_go(map, entry);
    }
    entry->kind = kind;
    entry->shared = false;
    entry->linked = ++map->changes;
    ash_map_forget(node, index * map->unit, map->unit);
}

ASH_CO_FN static int map_zero(struct ash_node *node, uint64_t offset, uint64_t bytes,
                              uint32_t flags)
{
    struct map_format *map = node->state;
    ash_assert(ash_is_aligned(offset, map->unit));
    if (map->no_zero) {
        return -ENOTSUP;
    }
    uint64_t end = ash_div_round_up(offset + bytes, map->unit);
    for (uint64_t index = offset / map->unit; index < end; index++) {
        dither(map);
        clear(node, index, (flags & ASH_REQ_UNMAP) == 0, ASH_EXTENT_ZERO);
    }
    return 0;
}

ASH_CO_FN static int map_discard(struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    struct map_format *map = node->state;
    ash_assert(ash_is_aligned(offset, map->unit));
    uint64_t end = ash_div_round_up(offset + bytes, map->unit);
    for (uint64_t index = offset / map->unit; index < end; index++) {
        dither(map);
        clear(node, index, false, node->backing != NULL ? ASH_EXTENT_ZERO : ASH_EXTENT_UNALLOCATED);
    }
    return 0;
}

ASH_CO_FN static int map_flush(struct ash_node *node)
{
    struct map_format *map = node->state;
    uint64_t covered = map->changes;
    map->flushes++;
    dither(map);
    int ret = ash_edge_flush(node->file);
    if (ret == 0) {
        map->changes_stable = ASH_MAX(map->changes_stable, covered);
    }
    return ret;
}

/* Runs of one byte: its count, and it. */
static int map_encode(const struct ash_node *node, const void *in, size_t in_bytes, void *out,
                      size_t out_bytes)
{
    const uint8_t *from = in;
    uint8_t *to = out;
    size_t length = 0;
    (void)node;
    for (size_t i = 0; i < in_bytes;) {
        size_t run = 1;
        while (run < 255 && i + run < in_bytes && from[i + run] == from[i]) {
            run++;
        }
        if (length + 2 >= out_bytes) {
            return -E2BIG;
        }
        to[length++] = (uint8_t)run;
        to[length++] = from[i];
        i += run;
    }
    return (int)length;
}

static int map_decode(const struct ash_node *node, const struct ash_extent *extent, const void *in,
                      size_t in_bytes, void *out, size_t out_bytes)
{
    const uint8_t *from = in;
    size_t filled = 0;
    (void)node;
    (void)extent;
    for (size_t i = 0; i + 1 < in_bytes; i += 2) {
        if (from[i] > out_bytes - filled) {
            return -EIO;
        }
        memset((uint8_t *)out + filled, from[i + 1], from[i]);
        filled += from[i];
    }
    return filled == out_bytes ? 0 : -EIO;
}

static void set_length(struct ash_node *node, uint64_t bytes)
{
    struct map_format *map = node->state;
    uint64_t count = ash_div_round_up(bytes, map->unit);
    for (uint64_t i = count; i < map->entry_count; i++) {
        let_go(map, &map->entries[i]);
    }
    map->entries = g_renew(struct map_entry, map->entries, ASH_MAX(count, 1));
    for (uint64_t i = map->entry_count; i < count; i++) {
        map->entries[i] = (struct map_entry){.kind = ASH_EXTENT_UNALLOCATED};
    }
    map->entry_count = count;
    node->size_bytes = bytes;
}

ASH_CO_FN static int map_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                                struct ash_error *error)
{
    struct map_format *map = node->state;
    (void)prealloc;
    (void)error;
    dither(map);
    uint64_t old = node->size_bytes;
    set_length(node, bytes);
    dither(map);
    int ret = bytes > old ? ash_map_cover(node, old) : 0;
    if (ret < 0) {
        set_length(node, old);
    }
    return ret;
}

void map_format_share(struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    struct map_format *map = node->state;
    for (uint64_t i = offset / map->unit; i * map->unit < offset + bytes; i++) {
        struct map_entry *entry = &map->entries[i];
        bool data = entry->kind == ASH_EXTENT_DATA &&
                    !ash_pin_overlaps(node, node->file, slot_offset(map, entry->slot), map->unit);
        entry->shared |= data;
    }
}

static const struct ash_map_ops map_ops = {
    .lookup = map_lookup,
    .prepare = map_prepare,
    .prepare_coded = map_prepare_coded,
    .commit = map_commit,
    .abort = map_abort,
    .zero = map_zero,
    .discard = map_discard,
    .flush = map_flush,
    .encode = map_encode,
    .decode = map_decode,
    .unpinned = map_unpinned,
};

const struct ash_driver ash_driver_test_map = {
    .name = "test-map",
    .kind = ASH_DRIVER_FORMAT,
    .state_size = sizeof(struct map_format),
    .options = map_options,
    .backing = true,
    .probe = map_probe,
    .open = map_open,
    .close = map_close,
    .resize = map_resize,
    .limits = map_limits,
    .map = &map_ops,
};
