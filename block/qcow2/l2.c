/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* L1 and L2 tables: finding the slice that holds an entry, and making tables.
 *
 * 1. An L2 table is changed only when its L1 entry has the COPIED flag; otherwise it is copied
 * first.
 * 2. Entries are checked once, when a slice is read. A slice with a bad entry is `suspect`, and
 * then each entry is looked at when it is used.
 * 3. A slice that took time to load counts only if the L1 entry still leads to it. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "util/assert.h"

static bool is_free_of_metadata(const struct ash_qcow2_state *s, uint64_t host_offset)
{
    return !qcow2_protects(s,
                           ash_qcow2_metadata_kind(&s->metadata, qcow2_cluster_of(s, host_offset)));
}

bool ash_qcow2_entry_valid(const struct ash_qcow2_state *s, uint64_t entry)
{
    uint64_t first, last;
    switch (qcow2_entry_kind(s, entry)) {
    case QCOW2_UNALLOCATED:
    case QCOW2_ZERO_PLAIN:
        return true;
    case QCOW2_COMPRESSED:
        first = qcow2_coded_offset(s, entry);
        last = first + qcow2_coded_bytes(s, entry) - 1;
        if (first < s->cluster_bytes || last >= QCOW2_HOST_OFFSET_MAX) {
            return false;
        }
        break;
    default:
        first = last = entry & QCOW2_ENTRY_OFFSET;
        if (first & (s->cluster_bytes - 1)) {
            return false;
        }
        break;
    }
    return !s->writing || (is_free_of_metadata(s, first) && is_free_of_metadata(s, last));
}

/* Where the slice of a guest offset lies; 0: there is no table. */
static inline uint64_t slice_offset(const struct ash_qcow2_state *s, uint64_t l1_entry,
                                    uint64_t guest_offset, uint32_t *index)
{
    uint64_t table = l1_entry & QCOW2_ENTRY_OFFSET;
    uint64_t in_table = guest_offset >> s->cluster_bits & ((UINT64_C(1) << s->l2_bits) - 1);
    *index = in_table & ((UINT32_C(1) << s->slice_bits) - 1);
    return table ? table + (in_table >> s->slice_bits) * s->slice_bytes : 0;
}

static inline uint64_t l1_entry_of(const struct ash_qcow2_state *s, uint64_t guest_offset)
{
    uint64_t i = qcow2_l1_index(s, guest_offset);
    return i < s->l1.count ? s->l1.entries[i] : 0;
}

int ash_qcow2_l2_peek(struct ash_node *node, uint64_t guest_offset, struct ash_table_slice **slice,
                      uint32_t *index)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t at = slice_offset(s, l1_entry_of(s, guest_offset), guest_offset, index);
    if (at == 0) {
        *slice = NULL;
        return 0;
    }
    *slice = ash_table_cache_peek(&s->l2_cache, at);
    return *slice ? 0 : -EAGAIN;
}

/* Whether an L1 entry may be followed. */
static bool l1_entry_valid(const struct ash_qcow2_state *s, uint64_t entry)
{
    uint64_t table = entry & QCOW2_ENTRY_OFFSET;
    return (table & (s->cluster_bytes - 1)) == 0 &&
           (!s->writing ||
            ash_qcow2_metadata_kind(&s->metadata, table >> s->cluster_bits) == QCOW2_KIND_L2);
}

int ash_qcow2_l2_get(struct ash_node *node, uint64_t guest_offset, struct ash_table_slice **slice,
                     uint32_t *index)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    for (;;) {
        int ret = ash_qcow2_l2_peek(node, guest_offset, slice, index);
        if (ret != -EAGAIN) {
            return ret;
        }
        uint64_t entry = l1_entry_of(s, guest_offset);
        if (!l1_entry_valid(s, entry)) {
            return ash_qcow2_corrupt(
                node, "L1 entry %" PRIu64 " (0x%" PRIx64 ") does not lead to an L2 table",
                qcow2_l1_index(s, guest_offset), entry);
        }
        ret = ash_table_cache_get(&s->l2_cache, slice_offset(s, entry, guest_offset, index), slice);
        if (ret < 0) {
            return ret;
        }
        if (((l1_entry_of(s, guest_offset) ^ entry) & QCOW2_ENTRY_OFFSET) == 0) {
            return 0;
        }
    }
}

void ash_qcow2_l2_set(struct ash_table_slice *slice, uint32_t index, uint64_t entry)
{
    ((uint64_t *)slice->data)[index] = htobe64(entry);
    ash_table_slice_dirty(slice);
}

/* Fills the cache with the slices of a table at `to`: zeroes, or a copy of the one at `from`. */
ASH_CO_FN static int fill_table(struct ash_node *node, uint64_t from, uint64_t to)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    int ret = 0;
    for (uint64_t at = 0; ret == 0 && at < s->cluster_bytes; at += s->slice_bytes) {
        struct ash_table_slice *slice, *old;
        ret = ash_table_cache_new(&s->l2_cache, to + at, &slice);
        if (ret < 0 || from == 0) {
            continue;
        }
        /* While `old` loads, the new slice is dirty or being written, so it cannot go; but it may
         * have to be marked again. */
        ret = ash_table_cache_get(&s->l2_cache, from + at, &old);
        if (ret == 0) {
            memcpy(slice->data, old->data, s->slice_bytes);
            slice->suspect = old->suspect;
            ash_table_slice_dirty(slice);
        }
    }
    if (ret < 0) {
        ash_table_cache_forget(&s->l2_cache, to, s->cluster_bytes);
    }
    return ret;
}

/* A table of its own for this L1 entry. Under l2_lock. */
ASH_CO_FN static int make_table(struct ash_node *node, uint64_t l1_index)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t old = s->l1.entries[l1_index];
    uint64_t cluster;
    if ((old & QCOW2_ENTRY_OFFSET) && !l1_entry_valid(s, old)) {
        return ash_qcow2_corrupt(
            node, "L1 entry %" PRIu64 " (0x%" PRIx64 ") does not lead to an L2 table", l1_index,
            old);
    }
    int ret = ash_qcow2_alloc_table(node, 1, QCOW2_KIND_L2, &cluster);
    if (ret < 0) {
        return ret;
    }
    uint64_t to = cluster << s->cluster_bits;
    ret = fill_table(node, old & QCOW2_ENTRY_OFFSET, to);
    if (ret < 0) {
        ash_qcow2_drop_unlinked(node, cluster, 1);
        return ret;
    }
    ash_qcow2_table_set(&s->l1, l1_index, to | QCOW2_ENTRY_COPIED);
    if (old & QCOW2_ENTRY_OFFSET) {
        ash_qcow2_drop(node, (old & QCOW2_ENTRY_OFFSET) >> s->cluster_bits, 1, QCOW2_PASS_NOT);
    }
    return 0;
}

int ash_qcow2_l2_get_writable(struct ash_node *node, uint64_t guest_offset,
                              struct ash_table_slice **slice, uint32_t *index)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t i = qcow2_l1_index(s, guest_offset);
    if (s->corrupt || i >= s->l1.count) {
        return -EIO;
    }
    if (ash_unlikely(!(s->l1.entries[i] & QCOW2_ENTRY_COPIED))) {
        ash_co_mutex_lock(&s->l2_lock);
        int ret = 0;
        if (!(s->l1.entries[i] & QCOW2_ENTRY_COPIED)) {
            ret = make_table(node, i);
        }
        ash_co_mutex_unlock(&s->l2_lock);
        if (ret < 0) {
            return ret;
        }
    }
    int ret = ash_qcow2_l2_get(node, guest_offset, slice, index);
    if (ret == 0 && !*slice) {
        return ash_qcow2_corrupt(node, "L1 entry %" PRIu64 " has a flag and no table", i);
    }
    return ret;
}

int ash_qcow2_l1_grow(struct ash_node *node, uint64_t entries, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t cluster;
    int ret = 0;
    if (entries <= s->l1.count) {
        return 0;
    }
    ash_assert(entries <= QCOW2_L1_BYTES_MAX / 8); /* who wants more says what of */
    ret = ash_qcow2_before_update(node);
    if (ret < 0) {
        return ash_error_errno(error, ret, "The L1 table of '%s' cannot be made longer",
                               node->filename);
    }
    ash_co_mutex_lock(&s->l2_lock);
    while (ret == 0 && s->l1.moved) {
        ret = ash_qcow2_flush(node);
    }
    if (ret == 0) {
        ret = ash_qcow2_alloc_table(node, qcow2_clusters(s, entries * 8), QCOW2_KIND_L1, &cluster);
    }
    if (ret == 0) {
        uint64_t old_bytes = s->l1.count * 8;
        ret = ash_qcow2_table_extend(&s->l1, entries);
        if (ret < 0) {
            ash_qcow2_drop_unlinked(node, cluster, qcow2_clusters(s, entries * 8));
        } else {
            s->l1.old_offset = s->l1.offset;
            s->l1.old_bytes = old_bytes;
            s->l1.offset = cluster << s->cluster_bits;
            s->l1.moved = true;
            ash_qcow2_table_dirty_all(&s->l1);
        }
    }
    ash_co_mutex_unlock(&s->l2_lock);
    if (ret == 0) {
        ret = ash_qcow2_flush(node);
    }
    return ret < 0 ? ash_error_errno(error, ret, "The L1 table of '%s' cannot be made longer",
                                     node->filename)
                   : 0;
}
