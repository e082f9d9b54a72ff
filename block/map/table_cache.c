/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Slices of on-disk tables in memory. A hash by offset finds them, the loop's budget evicts the
 * clean ones, and a batch takes copies of the dirty ones to disk. The invariants stand in the
 * header. */
#include "block/map/table_cache.h"
#include <errno.h>
#include <string.h>
#include "block/graph/block.h"
#include "block/io/event.h"
#include "util/assert.h"

#define BUCKETS_MIN 64
#define RUN_BYTES_MAX (256 * KiB)
#define WRITES_MAX 16
#define RUN_ALIGNMENT 4096

void ash_table_cache_init(struct ash_table_cache *cache, struct ash_node *node,
                          uint32_t slice_bytes)
{
    ash_assert(slice_bytes > 0 && (slice_bytes & (slice_bytes - 1)) == 0);
    memset(cache, 0, sizeof(*cache));
    cache->node = node;
    cache->budget = &ash_block_of(node->loop)->budget;
    cache->slice_bytes = slice_bytes;
    cache->slice_bits = __builtin_ctz(slice_bytes);
    cache->bucket_count = BUCKETS_MIN;
    cache->buckets = g_new0(struct ash_table_slice *, BUCKETS_MIN);
    ash_list_init(&cache->dirty);
}

void ash_table_cache_bound(struct ash_table_cache *cache, uint64_t bytes)
{
    ash_assert(cache->count == 0);
    /* Two, or a slice that is copied to another would go for it. */
    uint64_t least = 2 * (cache->slice_bytes + sizeof(struct ash_table_slice));
    ash_budget_init(&cache->own, ASH_MAX(bytes, least));
    cache->budget = &cache->own;
}

static inline uint32_t bucket_of(const struct ash_table_cache *cache, uint64_t offset)
{
    uint64_t hash = (offset >> cache->slice_bits) * UINT64_C(0x9e3779b97f4a7c15);
    return hash >> 32 & (cache->bucket_count - 1);
}

static inline struct ash_table_slice *find(const struct ash_table_cache *cache, uint64_t offset)
{
    struct ash_table_slice *slice = cache->buckets[bucket_of(cache, offset)];
    while (slice && slice->offset != offset) {
        slice = slice->bucket_next;
    }
    return slice;
}

static void grow_buckets(struct ash_table_cache *cache)
{
    struct ash_table_slice **old = cache->buckets;
    uint32_t old_count = cache->bucket_count;
    cache->bucket_count *= 2;
    cache->buckets = g_new0(struct ash_table_slice *, cache->bucket_count);
    for (uint32_t i = 0; i < old_count; i++) {
        struct ash_table_slice *slice = old[i];
        while (slice) {
            struct ash_table_slice *next = slice->bucket_next;
            struct ash_table_slice **bucket = &cache->buckets[bucket_of(cache, slice->offset)];
            slice->bucket_next = *bucket;
            *bucket = slice;
            slice = next;
        }
    }
    g_free(old);
}

static void hash_insert(struct ash_table_slice *slice)
{
    struct ash_table_cache *cache = slice->cache;
    if (cache->count >= cache->bucket_count) {
        grow_buckets(cache);
    }
    struct ash_table_slice **bucket = &cache->buckets[bucket_of(cache, slice->offset)];
    slice->bucket_next = *bucket;
    *bucket = slice;
    cache->count++;
}

static void hash_remove(struct ash_table_slice *slice)
{
    struct ash_table_cache *cache = slice->cache;
    struct ash_table_slice **at = &cache->buckets[bucket_of(cache, slice->offset)];
    while (*at != slice) {
        at = &(*at)->bucket_next;
    }
    *at = slice->bucket_next;
    cache->count--;
    if (cache->last == slice) {
        cache->last = NULL;
    }
}

static bool evict(struct ash_budget_item *item)
{
    struct ash_table_slice *slice = ash_list_entry(item, struct ash_table_slice, item);
    if (slice->dirty || slice->writing) {
        return false;
    }
    struct ash_table_cache *cache = slice->cache;
    hash_remove(slice);
    ash_budget_remove(cache->budget, item);
    ash_buffer_free(cache->node->loop, slice->data, cache->slice_bytes);
    g_free(slice);
    return true;
}

/* What the file below asks of memory, and no more: an allocator can waste as much as the alignment
 * on each slice, and there are thousands. */
static size_t slice_alignment(const struct ash_node *node)
{
    return ASH_MAX(node->file->child->limits.memory_alignment, 16);
}

static struct ash_table_slice *slice_new(struct ash_table_cache *cache, uint64_t offset)
{
    struct ash_table_slice *slice = g_new0(struct ash_table_slice, 1);
    slice->data =
        ash_buffer_alloc(cache->node->loop, cache->slice_bytes, slice_alignment(cache->node));
    if (!slice->data) {
        g_free(slice);
        return NULL;
    }
    slice->cache = cache;
    slice->offset = offset;
    slice->used = true;
    slice->item.bytes = cache->slice_bytes + sizeof(*slice);
    slice->item.evict = evict;
    ash_list_init(&slice->item.link);
    ash_list_init(&slice->dirty_link);
    ash_co_queue_init(&slice->waiters);
    return slice;
}

static void slice_free(struct ash_table_slice *slice)
{
    ash_buffer_free(slice->cache->node->loop, slice->data, slice->cache->slice_bytes);
    g_free(slice);
}

/* Out of the hash, the budget and the list of dirty ones; freed unless somebody works on it. */
static void discard_slice(struct ash_table_slice *slice)
{
    struct ash_table_cache *cache = slice->cache;
    hash_remove(slice);
    if (slice->dirty) {
        ash_list_remove(&slice->dirty_link);
        cache->dirty_count--;
        slice->dirty = false;
    }
    if (!slice->loading) {
        ash_budget_remove(cache->budget, &slice->item);
    }
    if (slice->loading || slice->writing) {
        slice->orphan = true;
    } else {
        slice_free(slice);
    }
}

void ash_table_cache_destroy(struct ash_table_cache *cache)
{
    for (uint32_t i = 0; i < cache->bucket_count; i++) {
        while (cache->buckets[i]) {
            ash_assert(!cache->buckets[i]->loading);
            ash_assert(!cache->buckets[i]->writing);
            discard_slice(cache->buckets[i]);
        }
    }
    g_free(cache->buckets);
    cache->buckets = NULL;
    cache->bucket_count = 0;
}

struct ash_table_slice *ash_table_cache_peek(struct ash_table_cache *cache, uint64_t offset)
{
    struct ash_table_slice *slice = cache->last;
    if (ash_likely(slice && slice->offset == offset)) {
        slice->used = true;
        return slice;
    }
    slice = find(cache, offset);
    if (!slice || slice->loading) {
        return NULL;
    }
    ash_budget_touch(cache->budget, &slice->item);
    slice->used = true;
    cache->last = slice;
    return slice;
}

/* Reads what the file has of the slice; zeroes beyond its end. */
ASH_CO_FN static int read_slice(struct ash_table_slice *slice)
{
    struct ash_edge *file = slice->cache->node->file;
    uint64_t size = file->child->size_bytes;
    uint64_t bytes = slice->cache->slice_bytes;
    uint64_t there = slice->offset >= size ? 0 : ASH_MIN(bytes, size - slice->offset);
    memset((uint8_t *)slice->data + there, 0, bytes - there);
    if (there == 0) {
        return 0;
    }
    ash_edge_event(file, (enum ash_event)slice->cache->load_event);
    return ash_edge_read(file, slice->offset, slice->data, there);
}

int ash_table_cache_get(struct ash_table_cache *cache, uint64_t offset,
                        struct ash_table_slice **out)
{
    for (;;) {
        struct ash_table_slice *slice = ash_table_cache_peek(cache, offset);
        if (slice) {
            *out = slice;
            return 0;
        }
        slice = find(cache, offset);
        if (slice) {
            ash_co_queue_wait(&slice->waiters);
            continue;
        }
        slice = slice_new(cache, offset);
        if (!slice) {
            return -ENOMEM;
        }
        slice->loading = true;
        hash_insert(slice);
        int ret = read_slice(slice);
        if (ret == 0 && cache->loaded && !slice->orphan) {
            ret = cache->loaded(cache, slice);
        }
        slice->loading = false;
        ash_co_queue_wake_all(&slice->waiters);
        if (ret == 0 && !slice->orphan) {
            ash_budget_add(cache->budget, &slice->item);
            *out = slice;
            return 0;
        }
        if (!slice->orphan) {
            hash_remove(slice);
        }
        bool again = slice->orphan;
        slice_free(slice);
        if (!again) {
            return ret;
        }
    }
}

int ash_table_cache_new(struct ash_table_cache *cache, uint64_t offset,
                        struct ash_table_slice **out)
{
    struct ash_table_slice *slice = slice_new(cache, offset);
    if (!slice) {
        return -ENOMEM;
    }
    struct ash_table_slice *old = find(cache, offset);
    if (old) {
        discard_slice(old);
    }
    memset(slice->data, 0, cache->slice_bytes);
    hash_insert(slice);
    ash_table_slice_dirty(slice);
    ash_budget_add(cache->budget, &slice->item);
    *out = slice;
    return 0;
}

/* Of a range that is longer than the cache is large. */
static void forget_many(struct ash_table_cache *cache, uint64_t offset, uint64_t bytes)
{
    for (uint32_t i = 0; i < cache->bucket_count; i++) {
        struct ash_table_slice *slice = cache->buckets[i];
        while (slice) {
            struct ash_table_slice *next = slice->bucket_next;
            if (slice->offset >= offset && slice->offset - offset < bytes) {
                discard_slice(slice);
            }
            slice = next;
        }
    }
}

void ash_table_cache_forget(struct ash_table_cache *cache, uint64_t offset, uint64_t bytes)
{
    if (bytes >> cache->slice_bits > cache->bucket_count) {
        forget_many(cache, offset, bytes);
        return;
    }
    for (uint64_t at = 0; at < bytes; at += cache->slice_bytes) {
        struct ash_table_slice *slice = find(cache, offset + at);
        if (slice) {
            discard_slice(slice);
        }
    }
}

void ash_table_cache_clean(struct ash_table_cache *cache)
{
    for (uint32_t i = 0; i < cache->bucket_count; i++) {
        struct ash_table_slice *slice = cache->buckets[i];
        while (slice) {
            struct ash_table_slice *next = slice->bucket_next;
            if (!slice->used && !slice->loading) {
                evict(&slice->item); /* unless it has to be written */
            } else {
                slice->used = false;
            }
            slice = next;
        }
    }
}

void ash_table_slice_dirty(struct ash_table_slice *slice)
{
    if (!slice->dirty) {
        slice->dirty = true;
        slice->cache->dirty_count++;
        ash_list_push_back(&slice->cache->dirty, &slice->dirty_link);
    }
}

/* --- batches ------------------------------------------------------------------------------------
 */

struct run {
    struct ash_task task;
    struct ash_table_cache *cache;
    uint64_t offset;
    uint64_t bytes;
    uint8_t *buffer;
};

static void run_free(void *opaque)
{
    struct run *run = opaque;
    ash_buffer_free(run->cache->node->loop, run->buffer, run->bytes);
    g_free(run);
}

static gint by_offset(gconstpointer a, gconstpointer b)
{
    const struct ash_table_slice *x = *(struct ash_table_slice *const *)a;
    const struct ash_table_slice *y = *(struct ash_table_slice *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* One buffer for adjacent slices from `first` on; returns how many, 0: out of memory. */
static guint add_run(struct ash_table_batch *batch, guint first)
{
    struct ash_table_cache *cache = batch->cache;
    struct ash_table_slice **slices = (struct ash_table_slice **)batch->slices->pdata + first;
    guint rest = batch->slices->len - first;
    guint count = 1;
    while (count < rest && (count + UINT64_C(1)) * cache->slice_bytes <= RUN_BYTES_MAX &&
           slices[count]->offset == slices[0]->offset + (uint64_t)count * cache->slice_bytes) {
        count++;
    }
    struct run *run = g_new0(struct run, 1);
    run->cache = cache;
    run->offset = slices[0]->offset;
    run->bytes = (uint64_t)count * cache->slice_bytes;
    run->buffer = ash_buffer_alloc(cache->node->loop, run->bytes, RUN_ALIGNMENT);
    if (!run->buffer) {
        g_free(run);
        return 0;
    }
    for (guint i = 0; i < count; i++) {
        memcpy(run->buffer + (uint64_t)i * cache->slice_bytes, slices[i]->data, cache->slice_bytes);
    }
    g_ptr_array_add(batch->runs, run);
    return count;
}

int ash_table_batch_collect(struct ash_table_batch *batch, struct ash_table_cache *cache)
{
    batch->cache = cache;
    batch->slices = g_ptr_array_new();
    batch->runs = g_ptr_array_new_with_free_func(run_free);
    ash_list_for_each (slice, &cache->dirty, struct ash_table_slice, dirty_link) {
        ash_assert(!slice->writing);
        g_ptr_array_add(batch->slices, slice);
    }
    g_ptr_array_sort(batch->slices, by_offset);
    for (guint i = 0; i < batch->slices->len;) {
        guint count = add_run(batch, i);
        if (count == 0) {
            g_ptr_array_set_size(batch->slices, 0);
            ash_table_batch_end(batch, false);
            return -ENOMEM;
        }
        i += count;
    }
    for (guint i = 0; i < batch->slices->len; i++) {
        struct ash_table_slice *slice = g_ptr_array_index(batch->slices, i);
        ash_list_remove(&slice->dirty_link);
        slice->dirty = false;
        slice->writing = true;
    }
    cache->dirty_count = 0;
    return 0;
}

bool ash_table_batch_empty(const struct ash_table_batch *batch)
{
    return !batch->slices || batch->slices->len == 0;
}

static int run_write(struct ash_task *task)
{
    ash_co_assert_inside();
    struct run *run = ash_container_of(task, struct run, task);
    struct ash_table_cache *cache = run->cache;
    int ret = cache->before_write ? cache->before_write(cache, run->offset, run->bytes) : 0;
    if (ret < 0) {
        return ret;
    }
    return ash_edge_write(cache->node->file, run->offset, run->buffer, run->bytes, 0);
}

int ash_table_batch_write(struct ash_table_batch *batch)
{
    struct ash_task_pool pool;
    if (ash_table_batch_empty(batch)) {
        return 0;
    }
    ash_task_pool_init(&pool, &batch->cache->node->loop->sched, WRITES_MAX);
    for (guint i = 0; i < batch->runs->len; i++) {
        struct run *run = g_ptr_array_index(batch->runs, i);
        run->task.run = run_write;
        ash_task_pool_start(&pool, &run->task);
    }
    return ash_task_pool_finish(&pool);
}

void ash_table_batch_end(struct ash_table_batch *batch, bool good)
{
    for (guint i = 0; batch->slices && i < batch->slices->len; i++) {
        struct ash_table_slice *slice = g_ptr_array_index(batch->slices, i);
        slice->writing = false;
        if (slice->orphan) {
            slice_free(slice);
        } else if (!good) {
            ash_table_slice_dirty(slice);
        }
    }
    if (batch->slices) {
        g_ptr_array_free(batch->slices, TRUE);
        g_ptr_array_free(batch->runs, TRUE);
    }
    batch->slices = NULL;
    batch->runs = NULL;
}
