/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* New refcount blocks and a longer refcount table. See refcount.c for what holds; all of it happens
 * under refcount_lock. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "util/assert.h"

/* Puts an empty block for `index` at `cluster`, in memory. Does not yield. */
static int place_block(struct ash_node *node, uint64_t index, uint64_t cluster)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t offset = cluster << s->cluster_bits;
    for (uint64_t at = 0; at < s->cluster_bytes; at += s->refslice_bytes) {
        struct ash_table_slice *slice;
        int ret = ash_table_cache_new(&s->refcount_cache, offset + at, &slice);
        if (ret < 0) {
            ash_table_cache_forget(&s->refcount_cache, offset, s->cluster_bytes);
            return ret;
        }
    }
    if (!ash_qcow2_metadata_add(&s->metadata, cluster, QCOW2_KIND_REFBLOCK)) {
        ash_table_cache_forget(&s->refcount_cache, offset, s->cluster_bytes);
        return -ENOMEM;
    }
    ash_qcow2_table_set(&s->reftable, index, offset);
    return 0;
}

static void remove_block(struct ash_node *node, uint64_t index)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t offset = s->reftable.entries[index] & QCOW2_REFTABLE_OFFSET;
    if (offset) {
        ash_table_cache_forget(&s->refcount_cache, offset, s->cluster_bytes);
        ash_qcow2_metadata_remove(&s->metadata, offset >> s->cluster_bits, 1);
        s->reftable.entries[index] = 0;
    }
}

/* Sets the refcounts of fresh clusters, whose blocks exist, to 1. */
ASH_CO_FN static int count_fresh(struct ash_node *node, uint64_t cluster, uint64_t count)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_pending pending = {.cluster = cluster, .count = count};
    int ret = 0;
    ash_list_push_back(&s->alloc.pending, &pending.link);
    for (uint64_t i = 0; i < count; i++) {
        struct ash_table_slice *slice;
        ret = ash_qcow2_refcount_slice(node, cluster + i, &slice);
        if (ret < 0) {
            break;
        }
        ash_assert(slice);
        uint64_t at = (cluster + i) & ((UINT64_C(1) << s->refslice_bits) - 1);
        ash_qcow2_refcount_write(slice->data, s->refcount_order, at, 1);
        ash_table_slice_dirty(slice);
    }
    ash_list_remove(&pending.link);
    return ret;
}

/* A block for `index`, which the table in memory has room for. */
ASH_CO_FN static int make_block(struct ash_node *node, uint64_t index)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    for (;;) {
        uint64_t own = s->alloc.end >> s->refblock_bits;
        if (own >= s->reftable.count) {
            return -EFBIG;
        }
        bool exists = s->reftable.entries[own] & QCOW2_REFTABLE_OFFSET;
        uint64_t cluster = s->alloc.end;
        if (own != index && exists) {
            int ret = place_block(node, index, cluster);
            if (ret < 0) {
                return ret;
            }
            s->alloc.end++;
            ret = count_fresh(node, cluster, 1);
            if (ret < 0) {
                remove_block(node, index);
            }
            return ret;
        }
        /* The block at the end of allocation counts itself. */
        ash_assert(!exists);
        int ret = place_block(node, own, cluster);
        if (ret < 0) {
            return ret;
        }
        s->alloc.end++;
        ret = count_fresh(node, cluster, 1);
        if (ret < 0) {
            remove_block(node, own);
            return ret;
        }
        if (own == index) {
            return 0;
        }
    }
}

/* Blocks for `count` clusters at the end of allocation, which the table has room for; they may push
 * the end further. When it returns 0, [*first, *first + count) are counted and taken. */
ASH_CO_FN static int take_run(struct ash_node *node, uint64_t count, uint64_t *first)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    for (;;) {
        uint64_t start = s->alloc.end;
        uint64_t at = start;
        while (at < start + count && qcow2_refblock_exists(s, at)) {
            at = ((at >> s->refblock_bits) + 1) << s->refblock_bits;
        }
        if (at >= start + count) {
            *first = start;
            s->alloc.end = start + count;
            return count_fresh(node, start, count);
        }
        if (at >> s->refblock_bits >= s->reftable.count) {
            return -EFBIG;
        }
        int ret = make_block(node, at >> s->refblock_bits);
        if (ret < 0) {
            return ret;
        }
    }
}

static void undo_extend(struct ash_node *node, uint64_t count)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    for (uint64_t i = count; i < s->reftable.count; i++) {
        remove_block(node, i);
    }
    s->reftable.count = count;
}

/* Room in the table for `index`: in memory, and a place on disk. */
ASH_CO_FN static int extend_table(struct ash_node *node, uint64_t index)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_table *table = &s->reftable;
    uint64_t per_cluster = s->cluster_bytes / 8;
    uint64_t old_count = table->count;
    /* Half as large again, and at least what the longer table needs to count itself. */
    uint64_t count = ASH_MAX(index + 1, old_count + old_count / 2) / per_cluster + 2;
    count = ASH_MIN(count, QCOW2_REFTABLE_BYTES_MAX >> s->cluster_bits);
    uint64_t first;
    if (index >= count * per_cluster) {
        return -EFBIG;
    }
    int ret = ash_qcow2_table_extend(table, count * per_cluster);
    if (ret < 0) {
        return ret;
    }
    ret = take_run(node, count, &first);
    if (ret == 0 &&
        !ash_qcow2_metadata_add_range(&s->metadata, first, count, QCOW2_KIND_REFTABLE)) {
        ret = -ENOMEM;
    }
    if (ret < 0) {
        undo_extend(node, old_count);
        return ret;
    }
    table->old_offset = table->offset;
    table->old_bytes = old_count * 8;
    table->offset = first << s->cluster_bits;
    table->moved = true;
    ash_qcow2_table_dirty_all(table);
    return 0;
}

/* Takes refcount_lock when no earlier move of the table is pending. */
ASH_CO_FN static int lock_settled(struct ash_node *node, bool will_move)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    ash_co_mutex_lock(&s->refcount_lock);
    while (will_move && s->reftable.moved) {
        ash_co_mutex_unlock(&s->refcount_lock);
        int ret = ash_qcow2_flush(node);
        if (ret < 0) {
            return ret;
        }
        ash_co_mutex_lock(&s->refcount_lock);
    }
    return 0;
}

int ash_qcow2_refblock_ensure(struct ash_node *node, uint64_t cluster)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t index = cluster >> s->refblock_bits;
    if (ash_likely(qcow2_refblock_exists(s, cluster))) {
        return 0;
    }
    if (s->corrupt) {
        return -EIO;
    }
    /* The block may come to lie in the range of yet another one that is missing. */
    uint64_t need = ASH_MAX(index, (s->alloc.end + 2) >> s->refblock_bits);
    int ret = lock_settled(node, need >= s->reftable.count);
    if (ret < 0) {
        return ret;
    }
    need = ASH_MAX(index, (s->alloc.end + 2) >> s->refblock_bits);
    if (need >= s->reftable.count && !s->reftable.moved) {
        ret = extend_table(node, need);
    }
    if (ret == 0 && !qcow2_refblock_exists(s, cluster)) {
        ret = index < s->reftable.count ? make_block(node, index) : -EAGAIN;
    }
    ash_co_mutex_unlock(&s->refcount_lock);
    return ret == -EAGAIN ? ash_qcow2_refblock_ensure(node, cluster) : ret;
}

int ash_qcow2_alloc_table(struct ash_node *node, uint64_t count, enum qcow2_kind kind,
                          uint64_t *cluster)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (count == 1) {
        int ret = ash_qcow2_alloc(node, &count, cluster, NULL);
        if (ret == 0 && !ash_qcow2_metadata_add(&s->metadata, *cluster, kind)) {
            ash_qcow2_drop_unlinked(node, *cluster, 1);
            return -ENOMEM;
        }
        return ret;
    }
    /* Room in the refcount table for what comes, and for blocks in between. */
    uint64_t last = s->alloc.end + count + (count >> s->refblock_bits) + 4;
    if (last >> s->refblock_bits >= s->reftable.count) {
        int ret = ash_qcow2_refblock_ensure(node, last);
        if (ret < 0) {
            return ret;
        }
    }
    int ret = lock_settled(node, false);
    if (ret == 0) {
        ret = take_run(node, count, cluster);
        ash_co_mutex_unlock(&s->refcount_lock);
    }
    if (ret == 0 && !ash_qcow2_metadata_add_range(&s->metadata, *cluster, count, kind)) {
        ash_qcow2_drop_unlinked(node, *cluster, count);
        return -ENOMEM;
    }
    return ret;
}
