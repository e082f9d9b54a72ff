/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counters and descriptions for other threads.
 *
 * Invariants:
 *  1. Only the owner thread writes. A counter is one relaxed store, so a reader may see a request
 * in one counter and not yet in another, but never a torn number.
 *  2. A published description never changes; a new one replaces it, and the old ones live until the
 *     disk is closed, so a reader needs no lock. Descriptions change on resize and reopen only. */
#include "block/disk/published.h"
#include <errno.h>
#include <glib.h>
#include <stdatomic.h>
#include "util/assert.h"

struct op_counters {
    _Atomic uint64_t count;
    _Atomic uint64_t bytes;
    _Atomic uint64_t errors;
    _Atomic uint64_t latency_ns_sum;
    _Atomic uint64_t latency_ns_max;
};

struct ash_disk_published {
    _Atomic(const struct ash_disk_info *) info;
    GPtrArray *infos; /* all that were published; owner thread */
    struct op_counters op[ASH_OP_COUNT];
};

struct ash_disk_published *ash_published_new(void)
{
    struct ash_disk_published *published = g_new0(struct ash_disk_published, 1);
    published->infos = g_ptr_array_new_with_free_func(g_free);
    return published;
}

void ash_published_free(struct ash_disk_published *published)
{
    g_ptr_array_free(published->infos, TRUE);
    g_free(published);
}

void ash_disk_publish(struct ash_disk *disk)
{
    const struct ash_node *node = disk->root->child;
    const struct ash_limits *limits = &node->limits;
    struct ash_disk_info *info = g_new0(struct ash_disk_info, 1);
    info->size = sizeof(*info);
    info->bytes = node->size_bytes;
    info->request_alignment_bytes = limits->request_alignment;
    info->memory_alignment_bytes = limits->memory_alignment;
    info->optimal_bytes = limits->optimal;
    info->cluster_bytes = limits->cluster;
    info->transfer_bytes_max = limits->transfer_max != 0 ? limits->transfer_max : INT64_MAX;
    info->discard_bytes_max = limits->discard_max != 0 ? limits->discard_max : INT64_MAX;
    info->zero_bytes_max = limits->zero_max != 0 ? limits->zero_max : INT64_MAX;
    info->discard_alignment_bytes =
        limits->discard_alignment != 0 ? limits->discard_alignment : limits->request_alignment;
    if ((disk->root->needs & ASH_RIGHT_WRITE) == 0) {
        info->flags |= ASH_DISK_INFO_READ_ONLY;
    }
    if ((node->flags & ASH_NODE_DISCARD) != 0) {
        info->flags |= ASH_DISK_INFO_DISCARD;
    }
    if (!disk->write_through) {
        info->flags |= ASH_DISK_INFO_WRITE_CACHE;
    }
    g_ptr_array_add(disk->published->infos, info);
    atomic_store_explicit(&disk->published->info, info, memory_order_release);
}

static void add(_Atomic uint64_t *counter, uint64_t amount)
{
    uint64_t value = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, value + amount, memory_order_relaxed);
}

void ash_disk_account(struct ash_disk *disk, uint8_t op, uint64_t bytes, int ret,
                      uint64_t latency_ns)
{
    struct op_counters *counters = &disk->published->op[op];
    add(&counters->count, 1);
    if (ash_likely(ret >= 0)) {
        add(&counters->bytes, bytes);
    } else {
        add(&counters->errors, 1);
    }
    add(&counters->latency_ns_sum, latency_ns);
    if (latency_ns > atomic_load_explicit(&counters->latency_ns_max, memory_order_relaxed)) {
        atomic_store_explicit(&counters->latency_ns_max, latency_ns, memory_order_relaxed);
    }
}

ASH_PUBLIC int ash_disk_info(struct ash_disk *disk, struct ash_disk_info *info)
{
    if (info->size != sizeof(*info)) {
        return -EINVAL;
    }
    *info = *atomic_load_explicit(&disk->published->info, memory_order_acquire);
    return 0;
}

ASH_PUBLIC int ash_disk_stats(struct ash_disk *disk, struct ash_disk_stats *stats)
{
    if (stats->size != sizeof(*stats)) {
        return -EINVAL;
    }
    *stats = (struct ash_disk_stats){.size = sizeof(*stats)};
    for (int op = 0; op < ASH_OP_COUNT; op++) {
        struct op_counters *counters = &disk->published->op[op];
        stats->op[op].count = atomic_load_explicit(&counters->count, memory_order_relaxed);
        stats->op[op].bytes = atomic_load_explicit(&counters->bytes, memory_order_relaxed);
        stats->op[op].errors = atomic_load_explicit(&counters->errors, memory_order_relaxed);
        stats->op[op].latency_ns_sum =
            atomic_load_explicit(&counters->latency_ns_sum, memory_order_relaxed);
        stats->op[op].latency_ns_max =
            atomic_load_explicit(&counters->latency_ns_max, memory_order_relaxed);
    }
    return 0;
}
