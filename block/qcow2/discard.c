/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Zeroes, discards and emptying: whole clusters, changed entry by entry in memory.
 *
 * 1. What is read afterwards is zeroes, never a backing file's old contents. Version 2 has no entry
 * that says so: with a backing file it does nothing and returns -ENOTSUP.
 * Emptying alone lets show what is below.
 * 2. A compressed cluster, or one that is shared, is dropped and never kept as a place. */
#include <errno.h>
#include <inttypes.h>
#include "block/qcow2/qcow2.h"

/* What an entry becomes. */
typedef uint64_t entry_fn(const struct ash_node *node, uint64_t old, uint32_t flags);

static uint64_t zeroed(const struct ash_node *node, uint64_t old, uint32_t flags)
{
    const struct ash_qcow2_state *s = qcow2_state(node);
    enum qcow2_entry_kind kind = qcow2_entry_kind(s, old);
    if (s->header.fields.version < 3) {
        return 0;
    }
    if (kind == QCOW2_ZERO_PLAIN || (kind == QCOW2_UNALLOCATED && !qcow2_has_backing(node))) {
        return old;
    }
    bool own_place =
        (kind == QCOW2_DATA || kind == QCOW2_ZERO_PLACED) && (old & QCOW2_ENTRY_COPIED);
    if (own_place && !(flags & ASH_REQ_UNMAP)) {
        return old | QCOW2_ENTRY_ZERO;
    }
    return QCOW2_ENTRY_ZERO;
}

static uint64_t discarded(const struct ash_node *node, uint64_t old, uint32_t flags)
{
    const struct ash_qcow2_state *s = qcow2_state(node);
    enum qcow2_entry_kind kind = qcow2_entry_kind(s, old);
    (void)flags;
    if (kind == QCOW2_ZERO_PLAIN) {
        return old;
    }
    return qcow2_has_backing(node) ? QCOW2_ENTRY_ZERO : 0;
}

/* What lies beyond a new end: nobody reads it, and growing again covers what a backing file would
 * show. Zeroes, where there are such entries, for who sees it after a crash before the new length
 * is on disk. */
static uint64_t cut_off(const struct ash_node *node, uint64_t old, uint32_t flags)
{
    const struct ash_qcow2_state *s = qcow2_state(node);
    if (qcow2_entry_kind(s, old) == QCOW2_UNALLOCATED || s->header.fields.version < 3) {
        return 0;
    }
    return discarded(node, old, flags);
}

static uint64_t emptied(const struct ash_node *node, uint64_t old, uint32_t flags)
{
    (void)node;
    (void)old;
    (void)flags;
    return 0;
}

/* Changes the entries of one slice that [offset, offset + bytes) touches; returns how many bytes of
 * the range were dealt with. */
ASH_CO_FN static int64_t change_slice(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                      entry_fn *become, uint32_t flags)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct ash_table_slice *slice;
    uint32_t index;
    int ret = ash_qcow2_before_update(node);
    if (ret == 0) {
        ret = ash_qcow2_writeback_throttle(node);
    }
    if (ret == 0) {
        ret = ash_qcow2_l2_get_writable(node, offset, &slice, &index);
    }
    if (ret < 0) {
        return ret;
    }
    uint64_t count = qcow2_clusters(s, bytes);
    count = ASH_MIN(count, (UINT64_C(1) << s->slice_bits) - index);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t old = qcow2_slice_entry(slice, index + i);
        if (slice->suspect && !ash_qcow2_entry_valid(s, old)) {
            ash_map_forget(node, offset, i << s->cluster_bits);
            return ash_qcow2_corrupt(
                node, "L2 entry 0x%" PRIx64 " of guest offset 0x%" PRIx64 " is invalid", old,
                offset + (i << s->cluster_bits));
        }
        uint64_t new = become(node, old, flags);
        if (new == old) {
            continue;
        }
        if ((new &QCOW2_ENTRY_OFFSET) == 0) {
            ash_qcow2_drop_entry(node, old, QCOW2_PASS_REQUEST);
        }
        ash_qcow2_l2_set(slice, index + i, new);
    }
    ash_map_forget(node, offset, count << s->cluster_bits); /* in the turn of the change: map.h */
    ash_qcow2_writeback_kick(node);
    return count << s->cluster_bits;
}

ASH_CO_FN static int change(struct ash_node *node, uint64_t offset, uint64_t bytes,
                            entry_fn *become, uint32_t flags)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    bool without_table = !qcow2_has_backing(node) || become == cut_off || become == emptied;
    while (bytes > 0) {
        uint64_t i = qcow2_l1_index(s, offset);
        int64_t done;
        if (i < s->l1.count && s->l1.entries[i] == 0 && without_table) {
            /* Without a table, and with nothing below, it reads as zeroes already. */
            done = ((i + 1) << (s->cluster_bits + s->l2_bits)) - offset;
        } else {
            done = change_slice(node, offset, bytes, become, flags);
        }
        if (done < 0) {
            return done;
        }
        offset += done;
        bytes -= ASH_MIN(bytes, (uint64_t)done);
    }
    return 0;
}

static bool has_no_zeroes(const struct ash_node *node)
{
    return qcow2_state(node)->header.fields.version < 3 && qcow2_has_backing(node);
}

int ash_qcow2_zero(struct ash_node *node, uint64_t offset, uint64_t bytes, uint32_t flags)
{
    return has_no_zeroes(node) ? -ENOTSUP : change(node, offset, bytes, zeroed, flags);
}

int ash_qcow2_discard(struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    return has_no_zeroes(node) ? -ENOTSUP : change(node, offset, bytes, discarded, 0);
}

int ash_qcow2_empty(struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    return change(node, offset, bytes, emptied, 0);
}

int ash_qcow2_cut_off(struct ash_node *node, uint64_t offset, uint64_t bytes)
{
    return change(node, offset, bytes, cut_off, 0);
}
