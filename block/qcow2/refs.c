/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* References to clusters, counted: a hash of chunks of counters.
 *
 * Invariants:
 *  1. Memory is bounded by chunks_max chunks, whatever the tables point at.
 *  2. A counter that is full stays full; such an image is refused before (-EFBIG). */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/qcow2/check.h"
#include "util/assert.h"

void ash_qcow2_refs_init(struct qcow2_refs *refs)
{
    refs->chunks = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    refs->order = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    refs->chunks_max = QCOW2_REFS_CHUNKS_MAX;
    refs->last = NULL;
    refs->last_key = UINT64_MAX;
    refs->gap_begin = UINT64_MAX;
    refs->gap_end = UINT64_MAX;
}

void ash_qcow2_refs_clear(struct qcow2_refs *refs)
{
    g_hash_table_destroy(refs->chunks);
    g_array_free(refs->order, TRUE);
}

/* The index in `order` of the first key >= `key`. */
static guint seek(struct qcow2_refs *refs, uint64_t key)
{
    guint low = 0;
    guint high = refs->order->len;
    while (low < high) {
        guint middle = (low + high) / 2;
        if (g_array_index(refs->order, uint64_t, middle) < key) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint16_t *find(struct qcow2_refs *refs, uint64_t key)
{
    if (refs->last_key != key) {
        refs->last = g_hash_table_lookup(refs->chunks, &key);
        refs->last_key = key;
    }
    return refs->last;
}

int ash_qcow2_refs_add(struct qcow2_refs *refs, uint64_t cluster)
{
    uint64_t key = cluster / QCOW2_REFS_CHUNK;
    uint16_t *chunk = find(refs, key);
    if (chunk == NULL) {
        if (refs->order->len >= refs->chunks_max) {
            return -EFBIG;
        }
        chunk = g_try_new0(uint16_t, QCOW2_REFS_CHUNK);
        if (chunk == NULL) {
            return -ENOMEM;
        }
        uint64_t *own_key = g_new(uint64_t, 1);
        *own_key = key;
        g_hash_table_insert(refs->chunks, own_key, chunk);
        g_array_insert_val(refs->order, seek(refs, key), key);
        refs->last = chunk;
        refs->last_key = key;
    }
    uint16_t *count = &chunk[cluster % QCOW2_REFS_CHUNK];
    if (*count == UINT16_MAX) {
        return -EFBIG;
    }
    (*count)++;
    refs->gap_begin = UINT64_MAX;
    return 0;
}

void ash_qcow2_refs_take_back(struct qcow2_refs *refs, uint64_t cluster)
{
    uint16_t *chunk = find(refs, cluster / QCOW2_REFS_CHUNK);
    ash_assert(chunk != NULL);
    ash_assert(chunk[cluster % QCOW2_REFS_CHUNK] > 0);
    chunk[cluster % QCOW2_REFS_CHUNK]--;
    refs->gap_begin = UINT64_MAX;
}

uint16_t ash_qcow2_refs_get(struct qcow2_refs *refs, uint64_t cluster)
{
    const uint16_t *chunk = find(refs, cluster / QCOW2_REFS_CHUNK);
    return chunk != NULL ? chunk[cluster % QCOW2_REFS_CHUNK] : 0;
}

/* The first counter from `at` on that is not zero, or QCOW2_REFS_CHUNK. Most are zero: four at a
 * time. */
static uint64_t skip_zeroes(const uint16_t *chunk, uint64_t at)
{
    while (at < QCOW2_REFS_CHUNK && chunk[at] == 0) {
        uint64_t four = 1;
        if (at % 4 == 0) {
            memcpy(&four, &chunk[at], sizeof(four));
        }
        at += four == 0 ? 4 : 1;
    }
    return at;
}

static uint64_t next(struct qcow2_refs *refs, uint64_t from)
{
    for (guint i = seek(refs, from / QCOW2_REFS_CHUNK); i < refs->order->len; i++) {
        uint64_t key = g_array_index(refs->order, uint64_t, i);
        const uint16_t *chunk = find(refs, key);
        uint64_t start = key * QCOW2_REFS_CHUNK;
        uint64_t at = skip_zeroes(chunk, start < from ? from - start : 0);
        if (at < QCOW2_REFS_CHUNK) {
            return start + at;
        }
    }
    return UINT64_MAX;
}

/* Who goes through a sparse image asks for the same gap again and again. */
uint64_t ash_qcow2_refs_next(struct qcow2_refs *refs, uint64_t from)
{
    if (from < refs->gap_begin || from > refs->gap_end) {
        refs->gap_end = next(refs, from);
        refs->gap_begin = from;
    }
    return refs->gap_end;
}

uint64_t ash_qcow2_refs_unused(struct qcow2_refs *refs, const uint8_t *block, uint32_t order,
                               uint64_t first, uint64_t i)
{
    uint64_t in_a_word = UINT64_C(64) >> order;
    uint64_t word;
    if (i % in_a_word != 0) {
        return 0;
    }
    memcpy(&word, block + i / in_a_word * sizeof(word), sizeof(word));
    bool unused = word == 0 && ash_qcow2_refs_next(refs, first + i) >= first + i + in_a_word;
    return unused ? in_a_word : 0;
}

uint64_t ash_qcow2_refs_end(struct qcow2_refs *refs)
{
    for (guint i = refs->order->len; i-- > 0;) {
        uint64_t key = g_array_index(refs->order, uint64_t, i);
        const uint16_t *chunk = find(refs, key);
        for (uint64_t at = QCOW2_REFS_CHUNK; at > 0; at--) {
            if (chunk[at - 1] != 0) {
                return key * QCOW2_REFS_CHUNK + at;
            }
        }
    }
    return 0;
}
