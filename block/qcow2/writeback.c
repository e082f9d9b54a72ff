/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Metadata on its way to disk, in ordered batches.
 *
 *   collect all that is dirty -> refcount blocks [-> flush -> refcount table [-> flush -> header]]
 *     -> flush -> L2 tables -> flush [-> L1 table -> flush [-> header]]
 *
 * 1. Everything is copied in one turn: what changes afterwards belongs to the next batch. The first
 *    flush begins after that, so it covers the data of every link in the batch, which was complete
 *    before it was linked, and the refcounts, which were raised before.
 * 2. Links follow refcounts, and a table follows what it leads to, each after a flush.
 * 3. A drop is stable when the batch that was collected after it has ended well.
 * 4. One batch at a time. Who wants what is dirty now on disk waits for one that began after it
 * came.
 * 5. What failed to be written is dirty again. A flush that failed is remembered for as long as the
 *    node is open: nothing can say what it lost.
 * 6. With lazy refcounts, refcounts stay in memory until there are too many or writing ends; the
 * dirty bit was stable before the first of them was skipped. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include "block/graph/block.h"
#include "block/qcow2/qcow2.h"

#define DIRTY_SLICES_FEW 64ull /* no reason for a batch */

struct batch {
    struct ash_table_batch l2;
    struct ash_table_batch refcounts;
    struct qcow2_table_batch l1;
    struct qcow2_table_batch reftable;
};

/* --- background coroutines ----------------------------------------------------------------------
 */

struct background {
    struct ash_node *node;
    void (*fn)(struct ash_node *node);
};

static void background_run(void *opaque)
{
    struct background *background = opaque;
    struct ash_node *node = background->node;
    struct ash_qcow2_state *s = qcow2_state(node);
    background->fn(node);
    g_free(background);
    ash_user_leave(&node->own);
    s->background--;
    ash_co_queue_wake_all(&s->background_waiters);
}

int ash_qcow2_background(struct ash_node *node, void (*fn)(struct ash_node *node))
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct background *background = g_new(struct background, 1);
    *background = (struct background){node, fn};
    int ret = ash_co_spawn(&node->loop->sched, background_run, background);
    if (ret < 0) {
        g_free(background);
        return ret;
    }
    ash_user_begin(&node->own);
    s->background++;
    return 0;
}

/* --- one batch --- */

ASH_CO_FN static int flush_file(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    int ret = ash_edge_flush(node->file);
    if (ret < 0 && s->flush_error == 0) {
        s->flush_error = ret;
    }
    return ret;
}

static void batch_end(struct batch *batch, bool good)
{
    ash_table_batch_end(&batch->l2, good);
    ash_table_batch_end(&batch->refcounts, good);
    ash_qcow2_table_end(&batch->l1, good);
    ash_qcow2_table_end(&batch->reftable, good);
}

static uint64_t dirty_counts(const struct ash_qcow2_state *s)
{
    return (uint64_t)s->refcount_cache.dirty_count * s->refslice_bytes;
}

/* Takes copies of all that is dirty; does not yield after it has the lock. */
ASH_CO_FN static int batch_collect(struct ash_node *node, struct batch *batch)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    *batch = (struct batch){0};
    ash_co_mutex_lock(&s->refcount_lock);
    bool counts = !s->set.lazy || s->closing || dirty_counts(s) > s->dirty_soft;
    int ret = ash_table_batch_collect(&batch->l2, &s->l2_cache);
    if (ret == 0) {
        ret = ash_qcow2_table_collect(&batch->l1, &s->l1);
    }
    if (ret == 0 && counts) {
        ret = ash_table_batch_collect(&batch->refcounts, &s->refcount_cache);
    }
    if (ret == 0 && counts) {
        ret = ash_qcow2_table_collect(&batch->reftable, &s->reftable);
    }
    if (ret < 0) {
        batch_end(batch, false);
    } else {
        g_array_append_vals(s->drops_batch, s->drops_new->data, s->drops_new->len);
        g_array_set_size(s->drops_new, 0);
        s->l1_writing = batch->l1.chunks != NULL;
    }
    ash_co_mutex_unlock(&s->refcount_lock);
    return ret;
}

ASH_CO_FN static int write_counts(struct ash_node *node, struct batch *batch)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    int ret = ash_table_batch_write(&batch->refcounts);
    if (ret < 0 || !batch->reftable.chunks) {
        return ret;
    }
    ret = flush_file(node);
    if (ret == 0) {
        ret = ash_qcow2_table_write(node, &batch->reftable);
    }
    if (ret == 0 && batch->reftable.moved) {
        ret = ash_qcow2_header_switch_reftable(node, batch->reftable.offset,
                                               batch->reftable.bytes >> s->cluster_bits);
    }
    return ret;
}

ASH_CO_FN static int write_links(struct ash_node *node, struct batch *batch)
{
    int ret = 0;
    if (!ash_table_batch_empty(&batch->l2)) {
        ret = ash_table_batch_write(&batch->l2);
        if (ret == 0) {
            ret = flush_file(node);
        }
    }
    if (ret == 0 && batch->l1.chunks) {
        ret = ash_qcow2_table_write(node, &batch->l1);
        if (ret == 0 && batch->l1.moved) {
            ret = ash_qcow2_header_switch_l1(node, batch->l1.offset, batch->l1.bytes / 8);
        } else if (ret == 0) {
            ret = flush_file(node);
        }
    }
    return ret;
}

/* The old place of a table that the header no longer names. */
static void let_go(struct ash_node *node, struct qcow2_table *table)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_drop drop = {table->old_offset >> s->cluster_bits,
                              qcow2_clusters(s, table->old_bytes), QCOW2_PASS_OTHER};
    table->moved = false;
    if (drop.count > 0) {
        g_array_append_val(s->drops_stable, drop);
    }
}

static void batch_done(struct ash_node *node, struct batch *batch, bool good)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (good && batch->l1.moved) {
        let_go(node, &s->l1);
    }
    if (good && batch->reftable.moved && batch->reftable.chunks) {
        let_go(node, &s->reftable);
    }
    GArray *to = good ? s->drops_stable : s->drops_new;
    g_array_append_vals(to, s->drops_batch->data, s->drops_batch->len);
    g_array_set_size(s->drops_batch, 0);
    s->l1_writing = false;
    batch_end(batch, good);
    ash_qcow2_reclaim(node);
}

ASH_CO_FN static int batch_run(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct batch batch;
    if (s->flush_error) {
        return s->flush_error;
    }
    if (s->corrupt) {
        return -EIO;
    }
    int ret = batch_collect(node, &batch);
    if (ret < 0) {
        return ret;
    }
    ret = write_counts(node, &batch);
    if (ret == 0) {
        ret = flush_file(node);
    }
    if (ret == 0) {
        ret = write_links(node, &batch);
    }
    batch_done(node, &batch, ret == 0);
    return ret;
}

/* --- who asks for batches --- */

int ash_qcow2_flush(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (!s->writing) {
        return ash_edge_flush(node->file);
    }
    uint64_t wanted = s->batches_started + 1;
    while (s->batches_ended < wanted) {
        if (s->batch_running) {
            ash_co_queue_wait(&s->batch_waiters);
            continue;
        }
        s->batch_running = true;
        s->batches_started++;
        s->batch_result = batch_run(node);
        s->batches_ended = s->batches_started;
        s->batch_running = false;
        ash_co_queue_wake_all(&s->batch_waiters);
    }
    return s->batch_result;
}

static uint64_t dirty_bytes(const struct ash_qcow2_state *s)
{
    uint64_t counts = dirty_counts(s);
    return (uint64_t)s->l2_cache.dirty_count * s->slice_bytes +
           (s->set.lazy && counts <= s->dirty_soft ? 0 : counts);
}

static void batch_in_background(struct ash_node *node)
{
    ash_co_assert_inside();
    struct ash_qcow2_state *s = qcow2_state(node);
    ash_qcow2_flush(node);
    s->batch_in_background = false;
}

void ash_qcow2_writeback_kick(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t dirty = dirty_bytes(s);
    bool much = dirty > s->dirty_soft || (dirty > DIRTY_SLICES_FEW * s->slice_bytes &&
                                          ash_budget_exceeded(&ash_block_of(node->loop)->budget));
    if (!much || s->batch_in_background || s->closing || s->corrupt || s->flush_error) {
        return;
    }
    s->batch_in_background = true;
    if (ash_qcow2_background(node, batch_in_background) < 0) {
        s->batch_in_background = false;
    }
}

int ash_qcow2_writeback_throttle(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    while (dirty_bytes(s) > s->dirty_hard ||
           s->drops_new->len > s->dirty_hard / s->slice_bytes * 16) {
        int ret = ash_qcow2_flush(node);
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

int ash_qcow2_before_update(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (s->corrupt) {
        return -EIO;
    }
    if (ash_likely(!s->set.lazy || (s->header.fields.incompatible & QCOW2_INCOMPATIBLE_DIRTY))) {
        return 0;
    }
    return ash_qcow2_header_flag(node, QCOW2_INCOMPATIBLE_DIRTY, 0);
}
