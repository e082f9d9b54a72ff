/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/layout.h"
#include <endian.h>
#include <glib.h>
#include <string.h>

#define OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define REFTABLE_MASK UINT64_C(0xfffffffffffffe00)
#define COMPRESSED (UINT64_C(1) << 62)

uint64_t layout_u64(const struct layout *layout, uint64_t offset)
{
    uint64_t value = 0;
    if (offset <= layout->size && layout->size - offset >= 8) {
        memcpy(&value, layout->bytes + offset, 8);
    }
    return be64toh(value);
}

static uint32_t u32(const struct layout *layout, uint64_t offset)
{
    uint32_t value = 0;
    if (offset <= layout->size && layout->size - offset >= 4) {
        memcpy(&value, layout->bytes + offset, 4);
    }
    return be32toh(value);
}

static uint64_t unit(const struct layout *layout)
{
    return UINT64_C(1) << layout->cluster_bits;
}

/* What lies outside the file is nobody's. */
static void refer(const struct layout *layout, uint32_t *counts, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> layout->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> layout->cluster_bits;
    for (uint64_t at = first; bytes > 0 && at <= last && at < layout->clusters; at++) {
        counts[at]++;
    }
}

static bool is_place(const struct layout *layout, uint64_t offset)
{
    return offset != 0 && (offset & (unit(layout) - 1)) == 0 && offset < layout->size;
}

/* --- entries --- */

static void coded_range(const struct layout *layout, uint64_t entry, uint64_t *offset,
                        uint64_t *bytes)
{
    uint32_t shift = 62 - (layout->cluster_bits - 8);
    uint64_t sectors = (entry >> shift & ((UINT64_C(1) << (layout->cluster_bits - 8)) - 1)) + 1;
    *offset = entry & ((UINT64_C(1) << shift) - 1);
    *bytes = sectors * 512 - (*offset & 511);
}

static void refer_entry(const struct layout *layout, uint64_t entry)
{
    uint64_t offset = entry & OFFSET_MASK;
    uint64_t bytes = unit(layout);
    if (entry & COMPRESSED) {
        coded_range(layout, entry, &offset, &bytes);
        refer(layout, layout->coded, offset, bytes);
    } else if (offset != 0) {
        refer(layout, layout->places, offset, bytes);
    }
}

static void refer_l1(const struct layout *layout)
{
    refer(layout, layout->tables, layout->l1_offset, layout->l1_entries * 8);
    for (uint64_t i = 0; i < layout->l1_entries; i++) {
        uint64_t table = layout_u64(layout, layout->l1_offset + i * 8) & OFFSET_MASK;
        if (table == 0) {
            continue;
        }
        refer(layout, layout->tables, table, unit(layout));
        for (uint64_t k = 0; is_place(layout, table) && k < unit(layout) / 8; k++) {
            refer_entry(layout, layout_u64(layout, table + k * 8));
        }
    }
}

static void refer_refcounts(const struct layout *layout)
{
    refer(layout, layout->tables, layout->reftable_offset, layout->reftable_entries * 8);
    for (uint64_t i = 0; i < layout->reftable_entries; i++) {
        uint64_t block = layout_u64(layout, layout->reftable_offset + i * 8) & REFTABLE_MASK;
        if (block != 0) {
            refer(layout, layout->tables, block, unit(layout));
        }
    }
}

/* --- refcounts --- */

static uint64_t block_of(const struct layout *layout, uint64_t cluster)
{
    uint64_t index = cluster >> (layout->cluster_bits + 3 - layout->order);
    uint64_t block = 0;
    if (index < layout->reftable_entries) {
        block = layout_u64(layout, layout->reftable_offset + index * 8) & REFTABLE_MASK;
    }
    return is_place(layout, block) ? block : 0;
}

uint64_t layout_refcount(const struct layout *layout, uint64_t cluster)
{
    uint64_t block = block_of(layout, cluster);
    uint64_t mask = (UINT64_C(1) << (layout->cluster_bits + 3 - layout->order)) - 1;
    uint64_t bit = (cluster & mask) << layout->order;
    uint32_t width = 1u << layout->order;
    uint64_t at = block + bit / 8;
    if (block == 0 || at + (width + 7) / 8 > layout->size) {
        return 0;
    }
    if (width < 8) {
        return layout->bytes[at] >> (bit % 8) & ((1u << width) - 1);
    }
    uint64_t value = 0;
    for (uint32_t i = 0; i < width / 8; i++) {
        value = value << 8 | layout->bytes[at + i];
    }
    return value;
}

static bool counted(const struct layout *layout, uint64_t cluster)
{
    uint64_t references =
        (uint64_t)layout->tables[cluster] + layout->places[cluster] + layout->coded[cluster];
    return references > 0 && layout_refcount(layout, cluster) >= references;
}

/* Of clusters that hold one thing only. */
static bool single(const struct layout *layout, uint64_t offset, uint64_t bytes)
{
    uint64_t last = (offset + bytes - 1) >> layout->cluster_bits;
    for (uint64_t at = offset >> layout->cluster_bits; bytes > 0 && at <= last; at++) {
        if (at >= layout->clusters || !counted(layout, at) ||
            layout->tables[at] + layout->places[at] + layout->coded[at] != 1) {
            return false;
        }
    }
    return true;
}

static bool metadata_good(const struct layout *layout)
{
    bool good = single(layout, 0, 1) && single(layout, layout->l1_offset, layout->l1_entries * 8) &&
                single(layout, layout->reftable_offset, layout->reftable_entries * 8);
    for (uint64_t i = 0; good && i < layout->reftable_entries; i++) {
        uint64_t block = layout_u64(layout, layout->reftable_offset + i * 8) & REFTABLE_MASK;
        good = block == 0 || (is_place(layout, block) && single(layout, block, unit(layout)));
    }
    return good;
}

/* --- the whole --- */

static bool read_header(struct layout *layout)
{
    layout->version = u32(layout, 4);
    layout->cluster_bits = u32(layout, 20);
    layout->order = layout->version >= 3 ? u32(layout, 96) : 4;
    layout->disk_bytes = layout_u64(layout, 24);
    layout->l1_offset = layout_u64(layout, 40);
    layout->l1_entries = u32(layout, 36);
    layout->reftable_offset = layout_u64(layout, 48);
    uint64_t reftable_clusters = u32(layout, 56);
    if (u32(layout, 0) != 0x514649fb || (layout->version != 2 && layout->version != 3) ||
        layout->cluster_bits < 9 || layout->cluster_bits > 21 || layout->order > 6 ||
        layout->l1_offset > layout->size || layout->l1_entries > layout->size / 8 ||
        layout->reftable_offset > layout->size ||
        reftable_clusters > (layout->size >> layout->cluster_bits) + 1) {
        return false;
    }
    layout->reftable_entries = reftable_clusters << (layout->cluster_bits - 3);
    layout->clusters = (layout->size + unit(layout) - 1) >> layout->cluster_bits;
    return true;
}

/* Files are made longer than they have to be. What lies behind this is not looked at. */
static uint64_t size_max(struct ash_sim_world *world, const char *path)
{
    uint8_t cluster_bits = 0;
    ash_sim_file_read(world, path, 23, &cluster_bits, 1);
    return cluster_bits > 12 ? 1536 * 1024 : 192 * 1024;
}

bool layout_read(struct layout *layout, struct ash_sim_world *world, const char *path)
{
    int64_t size = ash_sim_file_bytes(world, path);
    memset(layout, 0, sizeof(*layout));
    if (size <= 0) {
        return false;
    }
    layout->size = MIN((uint64_t)size, size_max(world, path));
    layout->bytes = g_malloc(layout->size);
    ash_sim_file_read(world, path, 0, layout->bytes, layout->size);
    if (!read_header(layout)) {
        layout_free(layout);
        return false;
    }
    layout->tables = g_new0(uint32_t, layout->clusters);
    layout->places = g_new0(uint32_t, layout->clusters);
    layout->coded = g_new0(uint32_t, layout->clusters);
    refer(layout, layout->tables, 0, 1);
    refer_refcounts(layout);
    refer_l1(layout);
    layout->metadata_good = metadata_good(layout);
    return true;
}

void layout_free(struct layout *layout)
{
    g_free(layout->bytes);
    g_free(layout->tables);
    g_free(layout->places);
    g_free(layout->coded);
    memset(layout, 0, sizeof(*layout));
}

uint64_t layout_l2_place(const struct layout *layout, uint64_t guest_cluster)
{
    uint32_t l2_bits = layout->cluster_bits - 3;
    uint64_t index = guest_cluster >> l2_bits;
    if (index >= layout->l1_entries) {
        return 0;
    }
    uint64_t table = layout_u64(layout, layout->l1_offset + index * 8) & OFFSET_MASK;
    uint64_t within = guest_cluster & ((UINT64_C(1) << l2_bits) - 1);
    return is_place(layout, table) ? table + within * 8 : 0;
}

bool layout_is_metadata(const struct layout *layout, uint64_t offset, uint64_t bytes)
{
    uint64_t last = (offset + bytes - 1) >> layout->cluster_bits;
    for (uint64_t at = offset >> layout->cluster_bits;
         bytes > 0 && at <= last && at < layout->clusters; at++) {
        if (layout->tables[at] > 0) {
            return true;
        }
    }
    return false;
}

static bool coded_is_sound(const struct layout *layout, uint64_t entry)
{
    uint64_t offset, bytes;
    coded_range(layout, entry, &offset, &bytes);
    uint64_t last = (offset + bytes - 1) >> layout->cluster_bits;
    for (uint64_t at = offset >> layout->cluster_bits; at <= last; at++) {
        if (at >= layout->clusters || !counted(layout, at) ||
            layout->tables[at] + layout->places[at] > 0) {
            return false;
        }
    }
    return true;
}

bool layout_is_sound(const struct layout *layout, uint64_t guest_cluster)
{
    uint64_t index = guest_cluster >> (layout->cluster_bits - 3);
    if (!layout->metadata_good || index >= layout->l1_entries) {
        return false;
    }
    uint64_t table = layout_u64(layout, layout->l1_offset + index * 8) & OFFSET_MASK;
    if (table == 0) {
        return true;
    }
    if (!is_place(layout, table) || !single(layout, table, unit(layout))) {
        return false;
    }
    uint64_t entry = layout_u64(layout, layout_l2_place(layout, guest_cluster));
    uint64_t offset = entry & OFFSET_MASK;
    if (entry & COMPRESSED) {
        return coded_is_sound(layout, entry);
    }
    return offset == 0 || (is_place(layout, offset) && single(layout, offset, unit(layout)));
}
