/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* References of internal snapshots and of persistent bitmaps. This code does not use either yet; it
 * counts what they refer to, so that a check does not take it for leaked, and a repair never frees
 * it.
 *
 * Invariants:
 *  1. Every length is bounded before memory is taken for it.
 *  2. What cannot be understood is a check error, and then nothing is repaired. */
#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/qcow2/check.h"
#include "util/range.h"

#define SNAPSHOT_TABLE_BYTES_MAX (64 * MiB)
#define BITMAP_DIRECTORY_BYTES_MAX (64 * MiB)
#define BITMAPS_MAX 65535
#define BITMAP_TABLE_ENTRIES_MAX (8 * MiB / 8)

struct snapshot_fields {
    uint64_t l1_offset;
    uint32_t l1_entries;
    uint16_t id_bytes;
    uint16_t name_bytes;
    uint32_t date_s;
    uint32_t date_ns;
    uint64_t vm_clock_ns;
    uint32_t vm_state_bytes;
    uint32_t extra_bytes;
};
static_assert(sizeof(struct snapshot_fields) == 40, "on-disk snapshot");

struct bitmap_fields {
    uint64_t table_offset;
    uint32_t table_entries;
    uint32_t flags;
    uint8_t type;
    uint8_t granularity_bits;
    uint16_t name_bytes;
    uint32_t extra_bytes;
};
static_assert(sizeof(struct bitmap_fields) == 24, "on-disk bitmap");

struct bitmap_extension {
    uint32_t count;
    uint32_t reserved;
    uint64_t directory_bytes;
    uint64_t directory_offset;
};
static_assert(sizeof(struct bitmap_extension) == 24, "on-disk bitmap extension");

static int unreadable(struct qcow2_checking *checking, const char *what, uint64_t offset)
{
    ash_qcow2_check_report(checking, "ERROR: %s at 0x%" PRIx64 " cannot be read", what, offset);
    checking->check->check_errors++;
    return 0;
}

/* Reads a table of 64-bit entries into host order. NULL: reported. */
ASH_CO_FN static uint64_t *load_table(struct qcow2_checking *checking, uint64_t offset,
                                      uint64_t entries, const char *what)
{
    uint64_t *table = g_try_new(uint64_t, entries);
    if (table == NULL || ash_qcow2_check_read(checking, offset, table, entries * 8) < 0) {
        g_free(table);
        unreadable(checking, what, offset);
        return NULL;
    }
    for (uint64_t i = 0; i < entries; i++) {
        table[i] = be64toh(table[i]);
    }
    return table;
}

ASH_CO_FN static int count_snapshot(struct qcow2_checking *checking,
                                    const struct snapshot_fields *fields)
{
    uint64_t offset = be64toh(fields->l1_offset);
    uint64_t entries = be32toh(fields->l1_entries);
    if (entries == 0) {
        return 0;
    }
    if (entries * 8 > QCOW2_L1_BYTES_MAX || !ash_range_valid(offset, entries * 8)) {
        return unreadable(checking, "a snapshot's L1 table", offset);
    }
    int ret = ash_qcow2_count_range(checking, offset, entries * 8, "a snapshot's L1 table");
    uint64_t *table =
        ret == 0 ? load_table(checking, offset, entries, "a snapshot's L1 table") : NULL;
    if (table != NULL) {
        ret = ash_qcow2_count_l1(checking, table, entries, false);
        g_free(table);
    }
    return ret;
}

int ash_qcow2_count_snapshots(struct qcow2_checking *checking)
{
    const struct qcow2_fields *header = &qcow2_state(checking->node)->header.fields;
    uint64_t start = header->snapshots_offset;
    uint64_t at = start;
    for (uint32_t i = 0; i < header->snapshots; i++) {
        struct snapshot_fields fields;
        if (!ash_range_valid(at, sizeof(fields)) || at - start > SNAPSHOT_TABLE_BYTES_MAX ||
            ash_qcow2_check_read(checking, at, &fields, sizeof(fields)) < 0) {
            return unreadable(checking, "the snapshot table", at);
        }
        int ret = count_snapshot(checking, &fields);
        if (ret < 0) {
            return ret;
        }
        uint64_t bytes = sizeof(fields) + (uint64_t)be32toh(fields.extra_bytes) +
                         be16toh(fields.id_bytes) + be16toh(fields.name_bytes);
        at += ash_align_up(bytes, 8);
    }
    if (at - start > SNAPSHOT_TABLE_BYTES_MAX) {
        return unreadable(checking, "the snapshot table", start);
    }
    return ash_qcow2_count_range(checking, start, at - start, "the snapshot table");
}

ASH_CO_FN static int count_bitmap(struct qcow2_checking *checking,
                                  const struct bitmap_fields *fields)
{
    uint64_t offset = be64toh(fields->table_offset);
    uint64_t entries = be32toh(fields->table_entries);
    if (entries > BITMAP_TABLE_ENTRIES_MAX || !ash_range_valid(offset, entries * 8)) {
        return unreadable(checking, "a bitmap's table", offset);
    }
    int ret = ash_qcow2_count_range(checking, offset, entries * 8, "a bitmap's table");
    if (ret < 0 || entries == 0) {
        return ret;
    }
    uint64_t *table = load_table(checking, offset, entries, "a bitmap's table");
    for (uint64_t i = 0; table != NULL && i < entries && ret == 0; i++) {
        uint64_t data = table[i] & QCOW2_ENTRY_OFFSET;
        if (data != 0) {
            ret = ash_qcow2_count_range(checking, data, qcow2_state(checking->node)->cluster_bytes,
                                        "a bitmap's data");
        }
    }
    g_free(table);
    return ret;
}

ASH_CO_FN static int count_directory(struct qcow2_checking *checking, const uint8_t *directory,
                                     uint64_t bytes, uint32_t count)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct bitmap_fields fields;
        if (bytes - at < sizeof(fields)) {
            return unreadable(checking, "the bitmap directory", at);
        }
        memcpy(&fields, directory + at, sizeof(fields));
        uint64_t entry = ash_align_up(
            sizeof(fields) + (uint64_t)be32toh(fields.extra_bytes) + be16toh(fields.name_bytes), 8);
        if (entry > bytes - at) {
            return unreadable(checking, "the bitmap directory", at);
        }
        int ret = count_bitmap(checking, &fields);
        if (ret < 0) {
            return ret;
        }
        at += entry;
    }
    return 0;
}

int ash_qcow2_count_bitmaps(struct qcow2_checking *checking)
{
    const struct ash_qcow2_header *header = &qcow2_state(checking->node)->header;
    const struct qcow2_extension *extension =
        ash_qcow2_header_find(header, QCOW2_EXTENSION_BITMAPS);
    if (extension == NULL) {
        return 0;
    }
    struct bitmap_extension fields;
    if (extension->bytes < sizeof(fields)) {
        return unreadable(checking, "the bitmaps extension", 0);
    }
    memcpy(&fields, extension->data, sizeof(fields));
    uint64_t offset = be64toh(fields.directory_offset);
    uint64_t bytes = be64toh(fields.directory_bytes);
    uint32_t count = be32toh(fields.count);
    if (bytes > BITMAP_DIRECTORY_BYTES_MAX || count > BITMAPS_MAX ||
        !ash_range_valid(offset, bytes)) {
        return unreadable(checking, "the bitmap directory", offset);
    }
    int ret = ash_qcow2_count_range(checking, offset, bytes, "the bitmap directory");
    if (ret < 0) {
        return ret;
    }
    uint8_t *directory = g_try_malloc(ASH_MAX(bytes, 1));
    if (directory == NULL || ash_qcow2_check_read(checking, offset, directory, bytes) < 0) {
        unreadable(checking, "the bitmap directory", offset);
    } else {
        ret = count_directory(checking, directory, bytes, count);
    }
    g_free(directory);
    return ret;
}
