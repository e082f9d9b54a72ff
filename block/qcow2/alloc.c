/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which host clusters are handed out.
 *
 * 1. No cluster is handed out twice: it leaves the set of free ones, or the end of allocation moves
 * past it, in the same turn in which it is found; its refcount is raised before the caller gets it.
 * 2. The end of allocation comes from metadata, never from the file's size.
 * 3. In the window [window, scanned) a bit is set exactly for clusters that are free: refcount 0,
 * below the end, not `pending`. Free clusters elsewhere are found by a scan in the background,
 * which goes round the image while the window is empty.
 * 4. A cluster reads as zeroes only if it was never handed out in this session and lies where the
 * file had nothing when it was opened.
 * 5. The file is grown ahead of the end by steps, in the background, and cut to size when writing
 *    ends; never below the size that it had. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "util/assert.h"

#define GROW_STEP_MIN (16 * MiB)
#define WORD_BITS 64
#define SCAN_TURNS 64 /* slices before others get a turn */

/* --- the window ---------------------------------------------------------------------------------
 */

static bool bit_get(const struct qcow2_alloc *a, uint64_t cluster)
{
    uint64_t i = cluster - a->window;
    return a->bits[i / WORD_BITS] >> (i % WORD_BITS) & 1;
}

static void bit_set(struct qcow2_alloc *a, uint64_t cluster)
{
    uint64_t i = cluster - a->window;
    ash_assert(!bit_get(a, cluster));
    a->bits[i / WORD_BITS] |= UINT64_C(1) << (i % WORD_BITS);
    a->free_count++;
}

static void bit_clear(struct qcow2_alloc *a, uint64_t cluster)
{
    uint64_t i = cluster - a->window;
    a->bits[i / WORD_BITS] &= ~(UINT64_C(1) << (i % WORD_BITS));
    a->free_count--;
}

/* The first free cluster in [from, to); UINT64_MAX. */
static uint64_t find_free(const struct qcow2_alloc *a, uint64_t from, uint64_t to)
{
    while (from < to) {
        uint64_t i = from - a->window;
        uint64_t word = a->bits[i / WORD_BITS] >> (i % WORD_BITS);
        if (word) {
            uint64_t found = from + __builtin_ctzll(word);
            return found < to ? found : UINT64_MAX;
        }
        from += WORD_BITS - i % WORD_BITS;
    }
    return UINT64_MAX;
}

/* Next-fit: the next run of at most `want` free clusters. */
static uint64_t take_free(struct qcow2_alloc *a, uint64_t want, uint64_t *first)
{
    if (a->free_count == 0) {
        return 0;
    }
    uint64_t from = ASH_MIN(ASH_MAX(a->cursor, a->window), a->scanned);
    uint64_t found = find_free(a, from, a->scanned);
    if (found == UINT64_MAX) {
        found = find_free(a, a->window, from);
    }
    ash_assert(found != UINT64_MAX);
    uint64_t count = 0;
    while (count < want && found + count < a->scanned && bit_get(a, found + count)) {
        bit_clear(a, found + count);
        count++;
    }
    a->cursor = found + count;
    *first = found;
    return count;
}

void ash_qcow2_alloc_free(struct ash_node *node, uint64_t cluster)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_alloc *a = &s->alloc;
    ash_qcow2_metadata_remove(&s->metadata, cluster, 1);
    if (cluster == s->coded_offset >> s->cluster_bits) {
        s->coded_offset = 0;
    }
    if (cluster >= a->window && cluster < a->scanned) {
        bit_set(a, cluster);
    } else if (cluster < a->end) {
        a->elsewhere = true;
        a->freed_elsewhere++;
    }
}

/* --- the scan --- */

static bool is_pending(const struct qcow2_alloc *a, uint64_t cluster)
{
    ash_list_for_each (pending, &a->pending, struct qcow2_pending, link) {
        if (cluster >= pending->cluster && cluster - pending->cluster < pending->count) {
            return true;
        }
    }
    return false;
}

/* The end of what refcount blocks can count today: nothing behind it is free. */
static uint64_t scan_end(const struct ash_qcow2_state *s)
{
    return ASH_MIN(s->alloc.end, s->reftable.count << s->refblock_bits);
}

/* Takes the refcounts of one slice into the window, or steps over a block that is not there: what
 * no block counts is not free, for the end of allocation has passed it by for a reason. */
ASH_CO_FN static int scan_slice(struct ash_node *node, uint64_t window_end)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_alloc *a = &s->alloc;
    struct ash_table_slice *slice;
    uint64_t at = a->scanned;
    if (!qcow2_refblock_exists(s, at)) {
        a->scanned = ASH_MIN(((at >> s->refblock_bits) + 1) << s->refblock_bits, window_end);
        return 0;
    }
    int ret = ash_qcow2_refcount_slice(node, at, &slice);
    if (ret < 0 || !slice || a->scanned != at) {
        return ret;
    }
    uint64_t mask = (UINT64_C(1) << s->refslice_bits) - 1;
    uint64_t to = ASH_MIN((at | mask) + 1, window_end);
    a->scanned = to;
    for (; at < to; at++) {
        if (ash_qcow2_refcount_read(slice->data, s->refcount_order, at & mask) ||
            is_pending(a, at)) {
            continue;
        }
        if (ash_qcow2_metadata_kind(&s->metadata, at) != QCOW2_KIND_NONE) {
            return ash_qcow2_corrupt(node, "the refcount of the metadata at 0x%" PRIx64 " is 0",
                                     at << s->cluster_bits);
        }
        bit_set(a, at);
    }
    return 0;
}

/* Goes round the image until something free is in the window. */
static void scan(struct ash_node *node)
{
    ash_co_assert_inside();
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_alloc *a = &s->alloc;
    uint64_t seen = 0;
    uint64_t generation = a->freed_elsewhere;
    for (uint32_t turns = 1; !s->closing && !s->corrupt; turns++) {
        uint64_t window_end = ASH_MIN(a->window + QCOW2_WINDOW_CLUSTERS, scan_end(s));
        if (turns % SCAN_TURNS == 0) {
            ash_co_reschedule();
        } else if (a->scanned < window_end) {
            uint64_t before = a->scanned;
            if (scan_slice(node, window_end) < 0) {
                break;
            }
            seen += a->scanned - before;
        } else if (a->free_count > 0) {
            break;
        } else if (seen >= scan_end(s)) {
            a->elsewhere = a->freed_elsewhere != generation;
            break;
        } else {
            a->window = window_end < scan_end(s) ? window_end : 0;
            a->scanned = a->window;
        }
    }
    a->scanning = false;
}

/* --- growing ahead --- */

static void grow(struct ash_node *node)
{
    ash_co_assert_inside();
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_alloc *a = &s->alloc;
    uint64_t bytes = a->end << s->cluster_bits;
    uint64_t step = ASH_MIN(ASH_MAX(bytes, GROW_STEP_MIN), s->given.grow_ahead_max);
    uint64_t target = (bytes + step + s->cluster_bytes - 1) & ~(uint64_t)(s->cluster_bytes - 1);
    if (target > node->file->child->size_bytes && !s->closing) {
        a->grown = true;
        int ret = ash_edge_resize(node->file, target, 0, ASH_PREALLOC_OFF, NULL);
        a->growth_failed = ret < 0 && node->file->child->size_bytes < target;
    }
    a->growing = false;
}

static void grow_ahead(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_alloc *a = &s->alloc;
    uint64_t bytes = a->end << s->cluster_bits;
    uint64_t step = ASH_MIN(ASH_MAX(bytes, GROW_STEP_MIN), s->given.grow_ahead_max);
    if (step == 0 || a->growing || a->growth_failed || s->closing ||
        !(node->file->child->flags & ASH_NODE_GROWS) || !(node->file->needs & ASH_RIGHT_RESIZE) ||
        bytes + step / 2 <= node->file->child->size_bytes) {
        return;
    }
    a->growing = true;
    if (ash_qcow2_background(node, grow) < 0) {
        a->growing = false;
    }
}

int ash_qcow2_alloc_trim(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t bytes = ASH_MAX(s->alloc.end << s->cluster_bits, s->alloc.size_at_open);
    if (!s->alloc.grown || bytes >= node->file->child->size_bytes) {
        return 0;
    }
    return ash_edge_resize(node->file, bytes, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, NULL);
}

/* --- allocation --- */

/* Raises the refcounts of clusters that were taken in this turn. */
ASH_CO_FN static int count_taken(struct ash_node *node, uint64_t cluster, uint64_t count)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_pending pending = {.cluster = cluster, .count = count};
    ash_list_push_back(&s->alloc.pending, &pending.link);
    int ret = ash_qcow2_refcount_raise(node, cluster, count);
    ash_list_remove(&pending.link);
    if (ret < 0) {
        /* Some other scan finds them again. */
        s->alloc.elsewhere = true;
        s->alloc.freed_elsewhere++;
    }
    return ret;
}

/* The end can move by at most *count; or a block has to be made first. */
ASH_CO_FN static int take_end(struct ash_node *node, uint64_t want, uint64_t *first,
                              uint64_t *count)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_alloc *a = &s->alloc;
    while (!qcow2_refblock_exists(s, a->end)) {
        int ret = ash_qcow2_refblock_ensure(node, a->end);
        if (ret < 0) {
            return ret;
        }
    }
    uint64_t block_end = ((a->end >> s->refblock_bits) + 1) << s->refblock_bits;
    uint64_t limit = QCOW2_HOST_OFFSET_MAX >> s->cluster_bits;
    if (!(node->file->child->flags & ASH_NODE_GROWS)) {
        limit = node->file->child->size_bytes >> s->cluster_bits;
    }
    limit = ASH_MIN(limit, block_end);
    if (a->end >= limit) {
        return -ENOSPC;
    }
    *first = a->end;
    *count = ASH_MIN(want, limit - a->end);
    a->end += *count;
    if (a->scanned == *first && a->end <= a->window + QCOW2_WINDOW_CLUSTERS) {
        a->scanned = a->end;
    }
    return 0;
}

int ash_qcow2_alloc(struct ash_node *node, uint64_t *count, uint64_t *cluster, bool *reads_zero)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_alloc *a = &s->alloc;
    bool zero = false;
    if (s->corrupt) {
        return -EIO;
    }
    uint64_t got = take_free(a, *count, cluster);
    if (got == 0) {
        if (a->elsewhere && !a->scanning) {
            a->scanning = true;
            if (ash_qcow2_background(node, scan) < 0) {
                a->scanning = false;
            }
        }
        int ret = take_end(node, *count, cluster, &got);
        if (ret < 0) {
            return ret;
        }
        zero = *cluster << s->cluster_bits >= a->zero_from;
    }
    int ret = count_taken(node, *cluster, got);
    if (ret < 0) {
        return ret;
    }
    grow_ahead(node);
    *count = got;
    if (reads_zero) {
        *reads_zero = zero;
    }
    return 0;
}

/* --- opening --- */

/* Whether the file reads as zeroes from `offset` to its end. */
ASH_CO_FN static bool tail_is_zero(struct ash_node *node, uint64_t offset, uint64_t size)
{
    while (offset < size) {
        struct ash_status status = {0};
        struct ash_io io = {.op = ASH_STATUS,
                            .offset = offset,
                            .bytes = size - offset,
                            .flags = ASH_IO_STATUS_ZEROES,
                            .status = &status};
        if (ash_edge_io(node->file, &io) < 0 || !(status.flags & ASH_STATUS_ZERO) ||
            status.bytes == 0) {
            return false;
        }
        offset += status.bytes;
    }
    return true;
}

int ash_qcow2_alloc_open(struct ash_node *node, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_alloc *a = &s->alloc;
    uint64_t size = node->file->child->size_bytes;
    uint64_t end;
    char label[300];
    ash_node_label(node, label);
    memset(a, 0, sizeof(*a));
    ash_list_init(&a->pending);
    int ret = ash_qcow2_refcount_end(node, &end);
    if (ret < 0) {
        return ash_error_errno(error, ret, "%s: cannot read the refcounts", label);
    }
    /* Should refcounts lie, allocation still begins behind all metadata. */
    for (uint64_t i = 0; i < s->metadata.slot_count; i++) {
        uint64_t slot = s->metadata.slots[i];
        if (slot != 0 && slot != UINT64_MAX) {
            end = ASH_MAX(end, (slot >> 3) + 1);
        }
    }
    if (end > QCOW2_HOST_OFFSET_MAX >> s->cluster_bits) {
        return ash_error_set(
            error, -EINVAL,
            "%s: refcounts reach to cluster %" PRIu64 ", beyond what can be addressed", label, end);
    }
    a->bits = g_try_malloc0(QCOW2_WINDOW_CLUSTERS / 8);
    if (!a->bits) {
        return ash_error_set(error, -ENOMEM, "%s: no memory for the map of free clusters", label);
    }
    a->end = end;
    a->elsewhere = true;
    a->size_at_open = size;
    a->zero_from = UINT64_MAX;
    if (node->file->child->flags & ASH_NODE_GROWS) {
        a->zero_from = size;
        uint64_t end_bytes = end << s->cluster_bits;
        if (end_bytes < size && tail_is_zero(node, end_bytes, size)) {
            /* Left behind by growth ahead. */
            if ((node->file->needs & ASH_RIGHT_RESIZE) &&
                ash_edge_resize(node->file, end_bytes, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, NULL) ==
                    0) {
                a->size_at_open = end_bytes;
            }
            a->zero_from = end_bytes;
        }
    }
    return 0;
}
