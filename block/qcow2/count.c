/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counting what refers to what: the first half of the check.
 *
 * The tables are read from the file as they are on disk; nothing cached is trusted, and nothing is
 * changed.
 *
 * Invariants:
 *  1. A reference is counted only if it lies inside the file and is aligned; any other is reported
 * as a corruption, and not followed.
 *  2. Each table of the image is read once per reference to it; a bound on the number of tables
 * follows from the bounds on L1 tables and snapshots. */
#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include "block/qcow2/check.h"
#include "util/assert.h"
#include "util/range.h"

int ash_qcow2_count_range(struct qcow2_checking *checking, uint64_t offset, uint64_t bytes,
                          const char *what)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    if (bytes == 0) {
        return 0;
    }
    uint64_t first = offset >> s->cluster_bits;
    uint64_t last = (offset + bytes - 1) >> s->cluster_bits;
    if (!ash_range_valid(offset, bytes) || last >= checking->file_clusters) {
        ash_qcow2_check_report(
            checking, "ERROR: %s at offset 0x%" PRIx64 " lies outside of the file", what, offset);
        checking->check->corruptions++;
        return 0;
    }
    for (uint64_t cluster = first; cluster <= last; cluster++) {
        int ret = ash_qcow2_refs_add(&checking->refs, cluster);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static void count_statistics(struct qcow2_checking *checking, uint64_t entry, bool compressed)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    checking->check->allocated_clusters++;
    if (compressed) {
        /* Compressed clusters are fragmented by nature: they do not begin where the last one ended.
         */
        checking->check->compressed_clusters++;
        checking->check->fragmented_clusters++;
        return;
    }
    uint64_t cluster = (entry & QCOW2_ENTRY_OFFSET) >> s->cluster_bits;
    if (checking->last_data_cluster != 0 && cluster != checking->last_data_cluster + 1) {
        checking->check->fragmented_clusters++;
    }
    checking->last_data_cluster = cluster;
}

static int count_compressed(struct qcow2_checking *checking, uint64_t entry, bool active)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    if ((entry & QCOW2_ENTRY_COPIED) != 0) {
        ash_qcow2_check_report(checking,
                               "ERROR: coffset=0x%" PRIx64 ": copied flag must never be set "
                               "for compressed clusters",
                               qcow2_coded_offset(s, entry));
        checking->check->corruptions++;
    }
    if (active) {
        count_statistics(checking, entry, true);
    }
    uint64_t offset = qcow2_coded_offset(s, entry);
    uint64_t bytes = qcow2_coded_bytes(s, entry);
    /* The length is an upper bound in sectors: the last ones may lie beyond the end of the file. */
    uint64_t end = checking->file_clusters << s->cluster_bits;
    if (offset < end) {
        bytes = ASH_MIN(bytes, end - offset);
    }
    return ash_qcow2_count_range(checking, offset, bytes, "compressed cluster");
}

static int count_entry(struct qcow2_checking *checking, uint64_t entry, uint64_t guest_offset,
                       bool active)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    uint64_t host = entry & QCOW2_ENTRY_OFFSET;
    switch (qcow2_entry_kind(s, entry)) {
    case QCOW2_COMPRESSED:
        return count_compressed(checking, entry, active);
    case QCOW2_DATA:
    case QCOW2_ZERO_PLACED:
        if (!ash_is_aligned(host, s->cluster_bytes)) {
            ash_qcow2_check_report(checking,
                                   "ERROR offset=%" PRIx64 ": Data cluster is not properly "
                                   "aligned; L2 entry corrupted (guest offset 0x%" PRIx64 ").",
                                   host, guest_offset);
            checking->check->corruptions++;
            return 0;
        }
        if (active) {
            count_statistics(checking, entry, false);
        }
        return ash_qcow2_count_range(checking, host, s->cluster_bytes, "data cluster");
    default:
        return 0;
    }
}

ASH_CO_FN static int count_l2(struct qcow2_checking *checking, uint64_t l1_index, uint64_t offset,
                              uint64_t *table, bool active)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    uint64_t entries = s->cluster_bytes / sizeof(uint64_t);
    int ret = ash_qcow2_check_read(checking, offset, table, s->cluster_bytes);
    if (ret < 0) {
        ash_qcow2_check_report(checking, "ERROR: I/O error reading the L2 table at 0x%" PRIx64,
                               offset);
        checking->check->check_errors++;
        return 0;
    }
    checking->last_data_cluster = 0; /* between what two tables map there may well be a table */
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t entry = be64toh(table[i]);
        if (entry == 0) {
            continue;
        }
        ret = count_entry(checking, entry, (l1_index * entries + i) << s->cluster_bits, active);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int ash_qcow2_count_l1(struct qcow2_checking *checking, const uint64_t *entries, uint64_t count,
                       bool active)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    uint64_t *table = ash_buffer_alloc(checking->node->loop, s->cluster_bytes, 4096);
    if (table == NULL) {
        return -ENOMEM;
    }
    int ret = 0;
    for (uint64_t i = 0; i < count && ret == 0; i++) {
        uint64_t offset = entries[i] & QCOW2_ENTRY_OFFSET;
        if (entries[i] == 0) {
            continue;
        }
        if (!ash_is_aligned(offset, s->cluster_bytes) ||
            offset >> s->cluster_bits >= checking->file_clusters || offset == 0) {
            ash_qcow2_check_report(checking,
                                   "ERROR l2_offset=%" PRIx64 ": Table is not cluster "
                                   "aligned or outside of the file; L1 entry %" PRIu64 " corrupted",
                                   offset, i);
            checking->check->corruptions++;
            continue;
        }
        ret = ash_qcow2_count_range(checking, offset, s->cluster_bytes, "L2 table");
        if (ret == 0) {
            ret = count_l2(checking, i, offset, table, active);
        }
    }
    ash_buffer_free(checking->node->loop, table, s->cluster_bytes);
    return ret;
}

ASH_CO_FN static int count_reftable(struct qcow2_checking *checking)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    int ret = ash_qcow2_count_range(checking, s->reftable.offset,
                                    s->reftable.count * sizeof(uint64_t), "refcount table");
    for (uint64_t i = 0; i < s->reftable.count && ret == 0; i++) {
        uint64_t offset = s->reftable.entries[i] & QCOW2_REFTABLE_OFFSET;
        if (offset == 0) {
            continue;
        }
        if (!ash_is_aligned(offset, s->cluster_bytes) ||
            offset >> s->cluster_bits >= checking->file_clusters) {
            ash_qcow2_check_report(checking,
                                   "ERROR refcount block %" PRIu64 " is not cluster aligned or "
                                   "outside of the image; refcount table entry corrupted",
                                   i);
            checking->check->corruptions++;
            checking->reftable_bad = true;
            continue;
        }
        ret = ash_qcow2_count_range(checking, offset, s->cluster_bytes, "refcount block");
        if (ret == 0 && ash_qcow2_refs_get(&checking->refs, offset >> s->cluster_bits) != 1) {
            ash_qcow2_check_report(checking, "ERROR refcount block %" PRIu64 " refcount=%u", i,
                                   ash_qcow2_refs_get(&checking->refs, offset >> s->cluster_bits));
            checking->check->corruptions++;
            checking->reftable_bad = true;
        }
    }
    return ret;
}

int ash_qcow2_count_references(struct qcow2_checking *checking)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    int ret = ash_qcow2_count_range(checking, 0, s->cluster_bytes, "header");
    if (ret == 0) {
        ret = ash_qcow2_count_range(checking, s->l1.offset, s->l1.count * sizeof(uint64_t),
                                    "L1 table");
    }
    if (ret == 0) {
        ret = ash_qcow2_count_l1(checking, s->l1.entries, s->l1.count, true);
    }
    if (ret == 0) {
        ret = ash_qcow2_count_snapshots(checking);
    }
    if (ret == 0) {
        ret = ash_qcow2_count_bitmaps(checking);
    }
    if (ret == 0) {
        ret = count_reftable(checking);
    }
    return ret;
}
