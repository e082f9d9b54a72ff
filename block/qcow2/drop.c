/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Giving places back.
 *
 *   new --(a batch is collected)--> batch --(it ended well)--> stable --(no pin)--> refcount falls
 *    ^------(it failed)---------------'                          | ^--(unpinned)--.
 *                                                                '--(a pin)--> pinned
 *
 * 1. A refcount falls only after the drop of the reference is stable and while no pin overlaps the
 * place.
 * 2. A place is punched before its refcount falls, so nobody can have been given it; only places
 * that had one reference, by the entry's own account and by the refcount's, are punched.
 * 3. One coroutine at a time works on it.
 * 4. Of an image that is known to be corrupt nothing is given back: others may be there. */
#include <errno.h>
#include <glib.h>
#include "block/qcow2/qcow2.h"

static void append(GArray *drops, uint64_t cluster, uint64_t count, enum qcow2_pass pass)
{
    if (drops->len > 0) {
        struct qcow2_drop *last = &g_array_index(drops, struct qcow2_drop, drops->len - 1);
        if (last->cluster + last->count == cluster && last->pass == pass) {
            last->count += count;
            return;
        }
    }
    struct qcow2_drop drop = {cluster, count, pass};
    g_array_append_val(drops, drop);
}

void ash_qcow2_drop(struct ash_node *node, uint64_t cluster, uint64_t count, enum qcow2_pass pass)
{
    append(qcow2_state(node)->drops_new, cluster, count, pass);
}

void ash_qcow2_drop_entry(struct ash_node *node, uint64_t entry, enum qcow2_pass pass)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    switch (qcow2_entry_kind(s, entry)) {
    case QCOW2_DATA:
    case QCOW2_ZERO_PLACED:
        ash_qcow2_drop(node, (entry & QCOW2_ENTRY_OFFSET) >> s->cluster_bits, 1,
                       (entry & QCOW2_ENTRY_COPIED) ? pass : QCOW2_PASS_NOT);
        break;
    case QCOW2_COMPRESSED: {
        uint64_t offset = qcow2_coded_offset(s, entry);
        uint64_t first = qcow2_cluster_of(s, offset);
        uint64_t last = qcow2_cluster_of(s, offset + qcow2_coded_bytes(s, entry) - 1);
        ash_qcow2_drop(node, first, last - first + 1, QCOW2_PASS_NOT);
        break;
    }
    default:
        break;
    }
}

void ash_qcow2_drop_unlinked(struct ash_node *node, uint64_t cluster, uint64_t count)
{
    append(qcow2_state(node)->drops_stable, cluster, count, QCOW2_PASS_NOT);
    ash_qcow2_reclaim(node);
}

/* Gives one run back; -EBUSY: a pin overlaps it. */
ASH_CO_FN static int give_back(struct ash_node *node, const struct qcow2_drop *drop)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t offset = drop->cluster << s->cluster_bits;
    uint64_t bytes = drop->count << s->cluster_bits;
    bool punch = ash_qcow2_passes_on(node, drop->pass) &&
                 ash_qcow2_refcount_is_one(node, drop->cluster, drop->count);
    if (s->corrupt) {
        return 0;
    }
    if (node->map && ash_pin_overlaps(node, node->file, offset, bytes)) {
        return -EBUSY;
    }
    if (punch) {
        /* Advice; whether it was taken does not matter. */
        ash_edge_discard(node->file, offset, bytes);
    }
    int ret = ash_qcow2_refcount_lower(node, drop->cluster, drop->count, ash_qcow2_alloc_free);
    if (ret == -ENOMEM) {
        /* For want of memory nothing must leak for good: the next batch tries again. */
        ash_qcow2_drop(node, drop->cluster, drop->count, QCOW2_PASS_NOT);
    }
    return 0;
}

/* The parts of a run that are not pinned, cluster by cluster. */
ASH_CO_FN static void give_back_parts(struct ash_node *node, const struct qcow2_drop *drop)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    for (uint64_t i = 0; i < drop->count; i++) {
        struct qcow2_drop one = {drop->cluster + i, 1, drop->pass};
        if (give_back(node, &one) < 0) {
            append(s->drops_pinned, one.cluster, 1, one.pass);
            node->map->waiting_for_pins = true;
        }
    }
}

void ash_qcow2_reclaim_now(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (s->reclaiming) {
        return;
    }
    s->reclaiming = true;
    while (s->drops_stable->len > 0) {
        GArray *drops = s->drops_stable;
        s->drops_stable = g_array_new(FALSE, FALSE, sizeof(struct qcow2_drop));
        for (guint i = 0; i < drops->len; i++) {
            const struct qcow2_drop *drop = &g_array_index(drops, struct qcow2_drop, i);
            if (give_back(node, drop) < 0) {
                give_back_parts(node, drop);
            }
        }
        g_array_free(drops, TRUE);
    }
    s->reclaiming = false;
    ash_co_queue_wake_all(&s->reclaim_waiters);
    ash_qcow2_writeback_kick(node);
}

static void reclaim(struct ash_node *node)
{
    ash_co_assert_inside();
    ash_qcow2_reclaim_now(node);
}

void ash_qcow2_reclaim(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (s->drops_stable->len > 0 && !s->reclaiming && !s->closing) {
        /* If no coroutine can be had now, the next batch tries again. */
        (void)!ash_qcow2_background(node, reclaim);
    }
}

void ash_qcow2_unpinned(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    node->map->waiting_for_pins = false;
    if (s->drops_pinned->len > 0) {
        g_array_append_vals(s->drops_stable, s->drops_pinned->data, s->drops_pinned->len);
        g_array_set_size(s->drops_pinned, 0);
        ash_qcow2_reclaim(node);
    }
}
