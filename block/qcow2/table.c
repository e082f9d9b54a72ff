/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Flat tables: the L1 table and the refcount table, in memory as a whole.
 *
 * 1. What is written is a copy taken when the batch was collected: an entry set later is not in it.
 * 2. A chunk that failed to be written is dirty again. */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/qcow2/qcow2.h"

static uint64_t chunk_count(uint64_t entries)
{
    return (entries + QCOW2_CHUNK_ENTRIES - 1) / QCOW2_CHUNK_ENTRIES;
}

int ash_qcow2_table_alloc(struct qcow2_table *table, uint64_t count, uint64_t offset)
{
    memset(table, 0, sizeof(*table));
    table->offset = offset;
    return ash_qcow2_table_extend(table, count);
}

void ash_qcow2_table_clear(struct qcow2_table *table)
{
    g_free(table->entries);
    g_free(table->dirty);
    memset(table, 0, sizeof(*table));
}

int ash_qcow2_table_extend(struct qcow2_table *table, uint64_t count)
{
    if (count > table->allocated) {
        uint64_t chunks = chunk_count(count);
        uint64_t allocated = chunks * QCOW2_CHUNK_ENTRIES;
        uint64_t *entries = g_try_new0(uint64_t, allocated);
        uint8_t *dirty = g_try_malloc0(chunks);
        if (!entries || !dirty) {
            g_free(entries);
            g_free(dirty);
            return -ENOMEM;
        }
        if (table->allocated) {
            memcpy(entries, table->entries, table->count * 8);
            memcpy(dirty, table->dirty, chunk_count(table->count));
        }
        g_free(table->entries);
        g_free(table->dirty);
        table->entries = entries;
        table->dirty = dirty;
        table->allocated = allocated;
    }
    table->count = ASH_MAX(table->count, count);
    return 0;
}

static void mark(struct qcow2_table *table, uint64_t chunk)
{
    table->dirty_chunks += !table->dirty[chunk];
    table->dirty[chunk] = 1;
}

void ash_qcow2_table_set(struct qcow2_table *table, uint64_t index, uint64_t entry)
{
    table->entries[index] = entry;
    mark(table, index / QCOW2_CHUNK_ENTRIES);
}

void ash_qcow2_table_dirty_all(struct qcow2_table *table)
{
    for (uint64_t chunk = 0; chunk < chunk_count(table->count); chunk++) {
        mark(table, chunk);
    }
}

int ash_qcow2_table_load(struct ash_node *node, struct qcow2_table *table)
{
    int ret = 0;
    /* In pieces, so that a large table is not one request. */
    for (uint64_t at = 0; ret == 0 && at < table->count * 8; at += MiB) {
        uint64_t bytes = ASH_MIN(table->count * 8 - at, MiB);
        ret = ash_qcow2_read(node, table->offset + at, (uint8_t *)table->entries + at, bytes);
    }
    for (uint64_t i = 0; i < table->count; i++) {
        table->entries[i] = be64toh(table->entries[i]);
    }
    return ret;
}

int ash_qcow2_table_collect(struct qcow2_table_batch *batch, struct qcow2_table *table)
{
    *batch = (struct qcow2_table_batch){
        .table = table, .offset = table->offset, .bytes = table->count * 8, .moved = table->moved};
    if (table->dirty_chunks == 0) {
        return 0;
    }
    batch->copy = g_try_new(uint64_t, (uint64_t)table->dirty_chunks * QCOW2_CHUNK_ENTRIES);
    if (!batch->copy) {
        return -ENOMEM;
    }
    batch->chunks = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    uint64_t *to = batch->copy;
    for (uint64_t chunk = 0; chunk < chunk_count(table->count); chunk++) {
        if (!table->dirty[chunk]) {
            continue;
        }
        const uint64_t *from = table->entries + chunk * QCOW2_CHUNK_ENTRIES;
        for (uint32_t i = 0; i < QCOW2_CHUNK_ENTRIES; i++) {
            *to++ = htobe64(from[i]);
        }
        table->dirty[chunk] = 0;
        g_array_append_val(batch->chunks, chunk);
    }
    table->dirty_chunks = 0;
    return 0;
}

int ash_qcow2_table_write(struct ash_node *node, struct qcow2_table_batch *batch)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    enum qcow2_kind kind = batch->table == &s->l1 ? QCOW2_KIND_L1 : QCOW2_KIND_REFTABLE;
    guint i = 0;
    while (batch->chunks && i < batch->chunks->len) {
        uint64_t first = g_array_index(batch->chunks, uint64_t, i);
        guint run = 1;
        while (i + run < batch->chunks->len && run < 256 &&
               g_array_index(batch->chunks, uint64_t, i + run) == first + run) {
            run++;
        }
        uint64_t at = first * QCOW2_CHUNK_ENTRIES * 8;
        uint64_t bytes = ASH_MIN(UINT64_C(8) * run * QCOW2_CHUNK_ENTRIES, batch->bytes - at);
        int ret = ash_qcow2_write(node, kind, batch->offset + at,
                                  batch->copy + (uint64_t)i * QCOW2_CHUNK_ENTRIES, bytes);
        if (ret < 0) {
            return ret;
        }
        i += run;
    }
    return 0;
}

void ash_qcow2_table_end(struct qcow2_table_batch *batch, bool good)
{
    for (guint i = 0; batch->chunks && !good && i < batch->chunks->len; i++) {
        mark(batch->table, g_array_index(batch->chunks, uint64_t, i));
    }
    if (batch->chunks) {
        g_array_free(batch->chunks, TRUE);
    }
    g_free(batch->copy);
    *batch = (struct qcow2_table_batch){0};
}
