/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening and closing qcow2 images, and what writing to one begins and ends with.
 *
 * 1. Nothing is written by opening for reading.
 * 2. Before the first write: the features allow it, the refcounts are right (a dirty image is
 * repaired), every cluster of metadata is known, and no two tables share one.
 * 3. Writing ends with everything on disk, what was dropped given back, the dirty bit cleared after
 * a flush, and the file cut to size. If any of this fails, the dirty bit stays. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/graph/block.h"
#include "block/qcow2/qcow2.h"

#define DIRTY_SOFT_BYTES_MAX (8 * MiB)
#define DIRTY_SOFT_BYTES_MIN (256 * KiB)

/* --- the header --- */

ASH_CO_FN static int read_header(struct ash_node *node, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t size = node->file->child->size_bytes;
    char label[300];
    ash_node_label(node, label);
    int ret = ash_qcow2_read(node, 0, s->sector, sizeof(s->sector));
    if (ret < 0) {
        return ash_error_errno(error, ret, "%s: cannot read the header", label);
    }
    uint32_t bytes = ash_qcow2_header_cluster_bytes(s->sector, ASH_MIN(size, sizeof(s->sector)));
    if (bytes == 0) {
        /* For the message. */
        return ash_qcow2_header_parse(&s->header, s->sector, ASH_MIN(size, sizeof(s->sector)),
                                      label, error);
    }
    uint8_t *cluster = ash_buffer_alloc(node->loop, bytes, 4096);
    if (!cluster) {
        return ash_error_set(error, -ENOMEM, "%s: no memory for the header", label);
    }
    ret = ash_qcow2_read(node, 0, cluster, bytes);
    if (ret < 0) {
        ash_error_errno(error, ret, "%s: cannot read the header", label);
    } else {
        ret = ash_qcow2_header_parse(&s->header, cluster, bytes, label, error);
    }
    ash_buffer_free(node->loop, cluster, bytes);
    return ret;
}

static void set_geometry(struct ash_qcow2_state *s)
{
    const struct qcow2_fields *f = &s->header.fields;
    s->cluster_bits = f->cluster_bits;
    s->cluster_bytes = UINT32_C(1) << s->cluster_bits;
    s->l2_bits = s->cluster_bits - 3;
    s->refcount_order = f->refcount_order;
    s->refblock_bits = s->cluster_bits + 3 - s->refcount_order;
    s->refslice_bytes = ASH_MIN(s->cluster_bytes, QCOW2_SLICE_BYTES);
    s->refslice_bits = __builtin_ctz(s->refslice_bytes) + 3 - s->refcount_order;
    s->refcount_max =
        s->refcount_order == 6 ? INT64_MAX : (UINT64_C(1) << (1u << s->refcount_order)) - 1;
    s->csize_shift = 62 - (s->cluster_bits - 8);
    s->csize_mask = (UINT64_C(1) << (s->cluster_bits - 8)) - 1;
    s->coffset_mask = (UINT64_C(1) << s->csize_shift) - 1;
    s->coders = ash_qcow2_coders_new(f->compression);
}

ASH_CO_FN static int load_tables(struct ash_node *node, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    const struct qcow2_fields *f = &s->header.fields;
    char label[300];
    int ret = ash_qcow2_table_alloc(&s->l1, f->l1_entries, f->l1_offset);
    if (ret == 0) {
        ret = ash_qcow2_table_load(node, &s->l1);
    }
    return ret < 0 ? ash_error_errno(error, ret, "%s: cannot read the L1 table",
                                     ash_node_label(node, label))
                   : 0;
}

int ash_qcow2_know_refcounts(struct ash_node *node, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    const struct qcow2_fields *f = &s->header.fields;
    uint64_t count = (uint64_t)f->reftable_clusters << (s->cluster_bits - 3);
    char label[300];
    if (s->refcounts_known) {
        return 0;
    }
    int ret = ash_qcow2_table_alloc(&s->reftable, count, f->reftable_offset);
    if (ret == 0) {
        ret = ash_qcow2_table_load(node, &s->reftable);
    }
    if (ret < 0) {
        ash_qcow2_table_clear(&s->reftable);
        return ash_error_errno(error, ret, "%s: cannot read the refcount table",
                               ash_node_label(node, label));
    }
    s->refcounts_known = true;
    return 0;
}

/* --- caches --- */

static int l2_loaded(struct ash_table_cache *cache, struct ash_table_slice *slice)
{
    const struct ash_qcow2_state *s = qcow2_state(cache->node);
    for (uint32_t i = 0; i < UINT32_C(1) << s->slice_bits; i++) {
        if (!ash_qcow2_entry_valid(s, qcow2_slice_entry(slice, i))) {
            slice->suspect = true;
            break;
        }
    }
    return 0;
}

static void init_state(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    s->node = node;
    ash_qcow2_header_init(&s->header);
    ash_list_init(&s->alloc.pending);
    ash_co_mutex_init(&s->l2_lock);
    ash_co_mutex_init(&s->refcount_lock);
    ash_co_mutex_init(&s->header_lock);
    ash_co_mutex_init(&s->coded_lock);
    ash_co_queue_init(&s->batch_waiters);
    ash_co_queue_init(&s->background_waiters);
    ash_co_queue_init(&s->reclaim_waiters);
    s->drops_new = g_array_new(FALSE, FALSE, sizeof(struct qcow2_drop));
    s->drops_batch = g_array_new(FALSE, FALSE, sizeof(struct qcow2_drop));
    s->drops_stable = g_array_new(FALSE, FALSE, sizeof(struct qcow2_drop));
    s->drops_pinned = g_array_new(FALSE, FALSE, sizeof(struct qcow2_drop));
}

/* A cache of its own size; half of it may be dirty before it is written. Returns how much may be.
 */
static uint64_t bound(struct ash_table_cache *cache, uint64_t bytes, uint64_t soft)
{
    if (bytes == UINT64_MAX) {
        return soft;
    }
    ash_table_cache_bound(cache, bytes);
    return ASH_MIN(soft, cache->own.bytes_max / 2);
}

static void init_caches(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    s->slice_bytes = s->set.slice_bytes;
    s->slice_bits = __builtin_ctz(s->slice_bytes) - 3;
    ash_table_cache_init(&s->l2_cache, node, s->slice_bytes);
    ash_table_cache_init(&s->refcount_cache, node, s->refslice_bytes);
    uint64_t soft = node->loop->metadata_bytes_max / 8;
    soft = ASH_MIN(ASH_MAX(soft, DIRTY_SOFT_BYTES_MIN), DIRTY_SOFT_BYTES_MAX);
    soft = bound(&s->l2_cache, s->set.l2_cache_bytes, soft);
    soft = bound(&s->refcount_cache, s->set.refcount_cache_bytes, soft);
    s->l2_cache.loaded = l2_loaded;
    s->l2_cache.before_write = ash_qcow2_before_write_l2;
    s->refcount_cache.before_write = ash_qcow2_before_write_refblock;
    s->l2_cache.load_event = ASH_EVENT_L2_LOAD;
    s->refcount_cache.load_event = ASH_EVENT_REFBLOCK_LOAD;
    s->dirty_soft = soft;
    s->dirty_hard = s->dirty_soft * 4;
}

void ash_qcow2_caches_renew(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    ash_table_cache_destroy(&s->l2_cache);
    ash_table_cache_destroy(&s->refcount_cache);
    init_caches(node);
}

static void clear_state(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    ash_qcow2_clean_stop(node);
    if (s->l2_cache.buckets) {
        ash_table_cache_destroy(&s->l2_cache);
        ash_table_cache_destroy(&s->refcount_cache);
    }
    ash_qcow2_coders_free(s->coders);
    ash_qcow2_table_clear(&s->l1);
    ash_qcow2_table_clear(&s->reftable);
    ash_qcow2_metadata_clear(&s->metadata);
    g_clear_pointer(&s->alloc.bits, g_free);
    ash_qcow2_header_clear(&s->header);
    g_array_free(s->drops_new, TRUE);
    g_array_free(s->drops_batch, TRUE);
    g_array_free(s->drops_stable, TRUE);
    g_array_free(s->drops_pinned, TRUE);
}

/* --- writing --- */

/* Adds the tables that a flat table leads to; they lie within the file. Returns the first bad
 * entry's index, or -1. */
static int64_t add_targets(struct ash_qcow2_state *s, const struct qcow2_table *table,
                           uint64_t mask, enum qcow2_kind kind)
{
    for (uint64_t i = 0; i < table->count; i++) {
        uint64_t target = table->entries[i] & mask;
        if (target == 0) {
            continue;
        }
        if (target & (s->cluster_bytes - 1) || target >= s->node->file->child->size_bytes ||
            !ash_qcow2_metadata_add(&s->metadata, target >> s->cluster_bits, kind)) {
            return i;
        }
    }
    return -1;
}

/* Finds out which clusters hold metadata. With ASH_NODE_CHECK, conflicts are for the check to find.
 */
static int know_metadata(struct ash_node *node, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    const struct qcow2_fields *f = &s->header.fields;
    bool checking = node->flags & ASH_NODE_CHECK;
    char label[300];
    ash_node_label(node, label);
    bool good = ash_qcow2_metadata_add(&s->metadata, 0, QCOW2_KIND_HEADER) &&
                ash_qcow2_metadata_add_range(&s->metadata, f->l1_offset >> s->cluster_bits,
                                             qcow2_clusters(s, (uint64_t)f->l1_entries * 8),
                                             QCOW2_KIND_L1) &&
                ash_qcow2_metadata_add_range(&s->metadata, f->reftable_offset >> s->cluster_bits,
                                             f->reftable_clusters, QCOW2_KIND_REFTABLE);
    if (!good && !checking) {
        return ash_error_set(error, -EINVAL, "%s: the header's tables overlap", label);
    }
    int64_t bad = add_targets(s, &s->reftable, QCOW2_REFTABLE_OFFSET, QCOW2_KIND_REFBLOCK);
    if (bad >= 0 && !checking) {
        return ash_error_set(error, -EINVAL,
                             "%s: refcount table entry %" PRIi64 " (0x%" PRIx64 ") is invalid or "
                             "overlaps other metadata; check and repair the image",
                             label, bad, s->reftable.entries[bad]);
    }
    bad = add_targets(s, &s->l1, QCOW2_ENTRY_OFFSET, QCOW2_KIND_L2);
    if (bad >= 0 && !checking) {
        return ash_error_set(error, -EINVAL,
                             "%s: L1 table entry %" PRIi64 " (0x%" PRIx64
                             ") is invalid or overlaps "
                             "other metadata; check and repair the image",
                             label, bad, s->l1.entries[bad]);
    }
    return 0;
}

/* An image that was not closed with lazy refcounts on: its refcounts are counted anew before
 * anything relies on them. */
ASH_CO_FN static int repair_dirty(struct ash_node *node, struct ash_error *error)
{
    struct ash_check check = {.fix = ASH_CHECK_FIX_LEAKS | ASH_CHECK_FIX_ERRORS};
    char label[300];
    int ret = ash_qcow2_check(node, &check, error);
    if (ret == 0 && check.check_errors != 0 && check.io_error != 0) {
        return ash_error_errno(
            error, check.io_error,
            "%s: it was not closed properly, and cannot be repaired as a part of "
            "it cannot be read",
            ash_node_label(node, label));
    }
    if (ret == 0 && (check.corruptions != 0 || check.check_errors != 0)) {
        ret = ash_error_set(error, -EACCES,
                            "%s: it was not closed properly, and not all of it could be repaired",
                            ash_node_label(node, label));
    }
    return ret;
}

/* What is not known to hold for what we write must not be claimed any more. A mark stays until the
 * first change. */
ASH_CO_FN static int clear_autoclear(struct ash_node *node, struct ash_error *error)
{
    bool marked = ash_qcow2_marked(node) != NULL;
    node->mark_idle = marked && !node->mark_held;
    int ret = ash_qcow2_header_clear_autoclear(node, marked ? QCOW2_AUTOCLEAR_MARK : 0);
    char label[300];
    return ret < 0 ? ash_error_errno(error, ret, "%s: cannot clear the autoclear features",
                                     ash_node_label(node, label))
                   : 0;
}

int ash_qcow2_begin_writing(struct ash_node *node, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    bool checking = node->flags & ASH_NODE_CHECK;
    char label[300];
    ash_node_label(node, label);
    int ret = ash_qcow2_features_check(&s->header, true, label, error);
    if (ret == 0 && (s->header.fields.incompatible & QCOW2_INCOMPATIBLE_CORRUPT) && !checking) {
        ret =
            ash_error_set(error, -EACCES,
                          "%s: the image is marked corrupt and can be opened read-only only; check "
                          "it and repair it first",
                          label);
    }
    if (ret == 0) {
        ret = ash_qcow2_know_refcounts(node, error);
    }
    if (ret == 0 && s->reftable.count == 0 && !checking) {
        ret = ash_error_set(error, -EINVAL, "%s: it has no refcount table", label);
    }
    if (ret == 0 && (s->header.fields.incompatible & QCOW2_INCOMPATIBLE_DIRTY) && !checking) {
        ret = repair_dirty(node, error);
    }
    if (ret == 0) {
        ret = know_metadata(node, error);
    }
    if (ret == 0) {
        ret = ash_qcow2_alloc_open(node, error);
    }
    if (ret < 0) {
        ash_qcow2_metadata_clear(&s->metadata);
        g_clear_pointer(&s->alloc.bits, g_free);
        return ret;
    }
    s->writing = true;
    s->closing = false;
    /* Slices that were read before did not know the metadata. */
    ash_qcow2_caches_renew(node);
    ret = clear_autoclear(node, error);
    if (ret < 0) {
        ash_qcow2_end_writing(node);
    }
    return ret;
}

#define SETTLE_ROUNDS_MAX 64

int ash_qcow2_settle(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    int ret = ash_qcow2_flush(node);
    unsigned rounds = 0; /* what cannot be given back for want of memory leaks at last */
    while (ret == 0 && rounds++ < SETTLE_ROUNDS_MAX &&
           (s->drops_new->len > 0 || s->drops_stable->len > 0 || s->reclaiming)) {
        if (s->reclaiming) {
            ash_co_queue_wait(&s->reclaim_waiters); /* another coroutine is at it */
        } else {
            ash_qcow2_reclaim_now(node);
        }
        ret = ash_qcow2_flush(node);
    }
    return ret;
}

ASH_CO_FN static int write_all(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    int ret = ash_qcow2_settle(node);
    if (ret == 0 && (s->header.fields.incompatible & QCOW2_INCOMPATIBLE_DIRTY) &&
        !(node->flags & ASH_NODE_CHECK)) {
        ret = ash_qcow2_header_flag(node, 0, QCOW2_INCOMPATIBLE_DIRTY);
    }
    return ret;
}

ASH_CO_FN static void wait_for_background(struct ash_qcow2_state *s)
{
    s->closing = true;
    while (s->background > 0) {
        ash_co_queue_wait(&s->background_waiters);
    }
}

int ash_qcow2_finish_writing(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    wait_for_background(s);
    int ret = s->corrupt ? -EIO : write_all(node);
    return ret == 0 ? ash_qcow2_alloc_trim(node) : ret;
}

void ash_qcow2_go_on_writing(struct ash_node *node)
{
    qcow2_state(node)->closing = false;
}

void ash_qcow2_stop_writing(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    wait_for_background(s);
    s->writing = false;
    s->closing = false;
    ash_qcow2_metadata_clear(&s->metadata);
    g_clear_pointer(&s->alloc.bits, g_free);
}

int ash_qcow2_end_writing(struct ash_node *node)
{
    int ret = ash_qcow2_finish_writing(node);
    ash_qcow2_stop_writing(node);
    return ret;
}

/* --- open and close --- */

int ash_qcow2_open(struct ash_node *node, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    char label[300];
    init_state(node);
    int ret = read_header(node, error);
    if (ret == 0) {
        ret = ash_qcow2_features_check(&s->header, false, ash_node_label(node, label), error);
    }
    if (ret == 0) {
        ret = ash_qcow2_settle_options(&s->header, &s->given, &s->set, error);
    }
    if (ret == 0) {
        set_geometry(s);
        init_caches(node);
        ash_qcow2_clean_start(node);
        ret = load_tables(node, error);
    }
    if (ret == 0) {
        node->size_bytes = s->header.fields.disk_bytes;
        node->backing_file = g_strdup(s->header.backing_file);
        node->backing_format = g_strdup(s->header.backing_format);
        if (ash_node_writable(node)) {
            ret = ash_qcow2_begin_writing(node, error);
        }
    }
    if (ret < 0) {
        g_clear_pointer(&node->backing_file, g_free);
        g_clear_pointer(&node->backing_format, g_free);
        clear_state(node);
    }
    return ret;
}

int ash_qcow2_close(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    int ret = s->writing ? ash_qcow2_end_writing(node) : 0;
    clear_state(node);
    return ret;
}
