/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repairing refcounts: in their blocks, or as a whole new structure.
 *
 * In place when every cluster in use has a refcount block and the table of them is sound. Otherwise
 * a new refcount structure is written behind everything that is in use or in the file, and the
 * header is switched to it by one sector; what the old one took is free afterwards, unless
 * something refers to it.
 *
 * Invariants:
 *  1. In place, too low refcounts are raised first, and flushed, before any is lowered.
 *  2. A new structure is on disk, flushed, before the header names it.
 *  3. The new structure counts itself. */
#include "block/qcow2/repair.h"
#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "util/assert.h"
#include "util/range.h"

void ash_qcow2_repair_reload(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    ash_table_cache_forget(&s->l2_cache, 0, INT64_MAX);
    ash_table_cache_forget(&s->refcount_cache, 0, INT64_MAX);
    ash_map_forget(node, 0, INT64_MAX);
}

int ash_qcow2_repair_l1_entry(struct ash_node *node, uint64_t index, uint64_t entry)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t disk = htobe64(entry);
    int ret =
        ash_edge_write(node->file, s->l1.offset + index * sizeof(disk), &disk, sizeof(disk), 0);
    if (ret == 0) {
        s->l1.entries[index] = entry;
    }
    return ret;
}

/* Corrects one block; `raise`: only what is too low, otherwise only what is too high. */
ASH_CO_FN static int correct_block(struct qcow2_checking *checking, uint64_t index, uint64_t offset,
                                   uint8_t *block, bool raise)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    int ret = ash_qcow2_read(checking->node, offset, block, s->cluster_bytes);
    bool changed = false;
    uint64_t first = index << s->refblock_bits;
    for (uint64_t i = 0; ret == 0 && i < UINT64_C(1) << s->refblock_bits;) {
        uint64_t nothing =
            ash_qcow2_refs_unused(&checking->refs, block, s->refcount_order, first, i);
        if (nothing > 0) {
            i += nothing;
            continue;
        }
        uint64_t stored = ash_qcow2_refcount_read(block, s->refcount_order, i);
        uint64_t counted = ash_qcow2_refs_get(&checking->refs, first + i);
        if (raise ? stored < counted : stored > counted) {
            if (counted > s->refcount_max) {
                return -ERANGE;
            }
            ash_qcow2_check_report(
                checking, "Repairing cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                first + i, stored, counted);
            ash_qcow2_refcount_write(block, s->refcount_order, i, counted);
            changed = true;
        }
        i++;
    }
    if (ret == 0 && changed) {
        ret = ash_edge_write(checking->node->file, offset, block, s->cluster_bytes, 0);
    }
    return ret;
}

ASH_CO_FN static int correct_blocks(struct qcow2_checking *checking, bool raise)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    uint8_t *block = ash_buffer_alloc(checking->node->loop, s->cluster_bytes, 4096);
    if (block == NULL) {
        return -ENOMEM;
    }
    int ret = 0;
    for (uint64_t i = 0; i < s->reftable.count && ret == 0; i++) {
        uint64_t offset = s->reftable.entries[i] & QCOW2_REFTABLE_OFFSET;
        if (offset != 0 && ash_is_aligned(offset, s->cluster_bytes) &&
            offset >> s->cluster_bits < checking->file_clusters) {
            ret = correct_block(checking, i, offset, block, raise);
        }
    }
    ash_buffer_free(checking->node->loop, block, s->cluster_bytes);
    return ret == 0 ? ash_edge_flush(checking->node->file) : ret;
}

/* A new structure: blocks first, the table behind them, from `start` on. */
struct structure {
    uint64_t start;  /* cluster */
    GArray *regions; /* of uint64_t: table indices that need a block, ascending */
    uint64_t table_entries;
    uint64_t table_clusters;
};

static void add_region(GArray *regions, uint64_t region)
{
    if (regions->len == 0 || g_array_index(regions, uint64_t, regions->len - 1) < region) {
        g_array_append_val(regions, region);
    }
}

static void plan_regions(struct qcow2_checking *checking, struct structure *new, uint64_t own)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    g_array_set_size(new->regions, 0);
    uint64_t cluster = ash_qcow2_refs_next(&checking->refs, 0);
    while (cluster != UINT64_MAX) {
        uint64_t region = cluster >> s->refblock_bits;
        add_region(new->regions, region);
        cluster = ash_qcow2_refs_next(&checking->refs, (region + 1) << s->refblock_bits);
    }
    for (uint64_t at = new->start; at < new->start + own;
         at = ((at >> s->refblock_bits) + 1) << s->refblock_bits) {
        add_region(new->regions, at >> s->refblock_bits);
    }
}

/* What the old structure took was counted like everything else: once for each reference that leads
 * into the file. The new one takes its place. */
static void take_back_old_structure(struct qcow2_checking *checking)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    const struct qcow2_table *old = &s->reftable;
    uint64_t first = old->offset >> s->cluster_bits;
    uint64_t clusters = qcow2_clusters(s, old->count * sizeof(uint64_t));
    if (first + clusters <= checking->file_clusters) {
        for (uint64_t i = 0; i < clusters; i++) {
            ash_qcow2_refs_take_back(&checking->refs, first + i);
        }
    }
    for (uint64_t i = 0; i < old->count; i++) {
        uint64_t offset = old->entries[i] & QCOW2_REFTABLE_OFFSET;
        if (offset != 0 && ash_is_aligned(offset, s->cluster_bytes) &&
            offset >> s->cluster_bits < checking->file_clusters) {
            ash_qcow2_refs_take_back(&checking->refs, offset >> s->cluster_bits);
        }
    }
}

/* Grows until it has room for counting itself. */
static int plan_structure(struct qcow2_checking *checking, struct structure *new)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    new->start = ASH_MAX(ash_qcow2_refs_end(&checking->refs), checking->file_clusters);
    uint64_t own = 0;
    for (;;) {
        plan_regions(checking, new, own);
        uint64_t last = g_array_index(new->regions, uint64_t, new->regions->len - 1);
        uint64_t entries_per_cluster = s->cluster_bytes / sizeof(uint64_t);
        new->table_clusters = ash_div_round_up(last + 1, entries_per_cluster);
        new->table_entries = new->table_clusters *entries_per_cluster;
        if (new->table_entries * sizeof(uint64_t) > QCOW2_REFTABLE_BYTES_MAX) {
            return -EFBIG;
        }
        uint64_t needs = new->regions->len + new->table_clusters;
        if (needs == own) {
            break;
        }
        own = needs;
    }
    for (uint64_t i = 0; i < own; i++) {
        int ret = ash_qcow2_refs_add(&checking->refs, new->start + i);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int fill_block(struct qcow2_checking *checking, uint64_t region, uint8_t *block)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    uint64_t first = region << s->refblock_bits;
    memset(block, 0, s->cluster_bytes);
    for (uint64_t i = 0; i < UINT64_C(1) << s->refblock_bits; i++) {
        uint64_t counted = ash_qcow2_refs_get(&checking->refs, first + i);
        if (counted > s->refcount_max) {
            return -ERANGE;
        }
        if (counted != 0) {
            ash_qcow2_refcount_write(block, s->refcount_order, i, counted);
        }
    }
    return 0;
}

ASH_CO_FN static int write_structure(struct qcow2_checking *checking, const struct structure *new,
                                     uint64_t *table)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    struct ash_edge *file = checking->node->file;
    uint8_t *block = ash_buffer_alloc(checking->node->loop, s->cluster_bytes, 4096);
    int ret = block == NULL ? -ENOMEM : 0;
    for (guint i = 0; ret == 0 && i < new->regions->len; i++) {
        uint64_t region = g_array_index(new->regions, uint64_t, i);
        uint64_t offset = (new->start + i) << s->cluster_bits;
        table[region] = htobe64(offset);
        ret = fill_block(checking, region, block);
        if (ret == 0) {
            ret = ash_edge_write(file, offset, block, s->cluster_bytes, 0);
        }
    }
    if (ret == 0) {
        ret = ash_edge_write(file, (new->start + new->regions->len) << s->cluster_bits, table,
                             new->table_entries * sizeof(uint64_t), 0);
    }
    if (block != NULL) {
        ash_buffer_free(checking->node->loop, block, s->cluster_bytes);
    }
    return ret == 0 ? ash_edge_flush(file) : ret;
}

ASH_CO_FN static int rebuild(struct qcow2_checking *checking)
{
    struct ash_node *node = checking->node;
    struct ash_qcow2_state *s = qcow2_state(node);
    struct structure new = {.regions = g_array_new(FALSE, FALSE, sizeof(uint64_t))};
    uint64_t *table = NULL;
    take_back_old_structure(checking);
    int ret = plan_structure(checking, &new);
    if (ret == 0) {
        table = g_try_new0(uint64_t, new.table_entries);
        ret = table == NULL ? -ENOMEM : write_structure(checking, &new, table);
    }
    uint64_t offset = (new.start + new.regions->len) << s->cluster_bits;
    if (ret == 0) {
        ret = ash_qcow2_header_switch_reftable(node, offset, new.table_clusters);
    }
    if (ret == 0) {
        ash_qcow2_repair_reload(node);
        ash_qcow2_table_clear(&s->reftable);
        ret = ash_qcow2_table_alloc(&s->reftable, new.table_entries, offset);
    }
    if (ret == 0) {
        ret = ash_qcow2_table_load(node, &s->reftable);
    }
    g_free(table);
    g_array_free(new.regions, TRUE);
    return ret;
}

int ash_qcow2_repair_refcounts(struct qcow2_checking *checking, struct qcow2_findings *findings)
{
    bool errors = (checking->check->fix & ASH_CHECK_FIX_ERRORS) != 0;
    bool leaks = (checking->check->fix & ASH_CHECK_FIX_LEAKS) != 0;
    if (errors && findings->rebuild) {
        findings->repaired = true;
        ash_qcow2_check_report(checking, "Rebuilding refcount structure");
        return rebuild(checking);
    }
    int ret = 0;
    if (errors && findings->raise) {
        findings->repaired = true;
        ret = correct_blocks(checking, true);
    }
    if (ret == 0 && leaks && findings->lower) {
        findings->repaired = true;
        ret = correct_blocks(checking, false);
    }
    return ret;
}
