/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Refcounts: how often a host cluster is referred to.
 *
 * 1. Refcounts change in cached slices only; write-back takes them to disk before what refers to
 * the clusters (writeback.c).
 * 2. A new block lies at the end of allocation; when that falls into its own range, it counts
 * itself. It is in the table in memory, and its own refcount is raised, before anybody uses it.
 * 3. A longer refcount table gets a new place at once, so that a batch never sees entries that have
 *    no place. Both happen under refcount_lock, and batches are collected under it. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "util/assert.h"

uint64_t ash_qcow2_refcount_read(const void *block, uint32_t order, uint64_t index)
{
    const uint8_t *bytes = block;
    switch (order) {
    case 0:
    case 1:
    case 2: {
        uint32_t bits = 1u << order;
        uint64_t bit = index << order;
        return bytes[bit / 8] >> (bit % 8) & ((1u << bits) - 1);
    }
    case 3:
        return bytes[index];
    case 4:
        return be16toh(((const uint16_t *)block)[index]);
    case 5:
        return be32toh(((const uint32_t *)block)[index]);
    default:
        return be64toh(((const uint64_t *)block)[index]);
    }
}

void ash_qcow2_refcount_write(void *block, uint32_t order, uint64_t index, uint64_t value)
{
    uint8_t *bytes = block;
    switch (order) {
    case 0:
    case 1:
    case 2: {
        uint32_t bits = 1u << order;
        uint64_t bit = index << order;
        uint8_t mask = ((1u << bits) - 1) << (bit % 8);
        bytes[bit / 8] = (bytes[bit / 8] & ~mask) | (value << (bit % 8) & mask);
        break;
    }
    case 3:
        bytes[index] = value;
        break;
    case 4:
        ((uint16_t *)block)[index] = htobe16(value);
        break;
    case 5:
        ((uint32_t *)block)[index] = htobe32(value);
        break;
    default:
        ((uint64_t *)block)[index] = htobe64(value);
        break;
    }
}

static uint64_t index_in_slice(const struct ash_qcow2_state *s, uint64_t cluster)
{
    return cluster & ((UINT64_C(1) << s->refslice_bits) - 1);
}

static uint64_t slice_offset(const struct ash_qcow2_state *s, uint64_t block, uint64_t cluster)
{
    uint64_t in_block = cluster & ((UINT64_C(1) << s->refblock_bits) - 1);
    return block + (in_block >> s->refslice_bits) * s->refslice_bytes;
}

int ash_qcow2_refcount_slice(struct ash_node *node, uint64_t cluster,
                             struct ash_table_slice **slice)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    *slice = NULL;
    if (!qcow2_refblock_exists(s, cluster)) {
        return 0;
    }
    uint64_t entry = s->reftable.entries[cluster >> s->refblock_bits];
    uint64_t block = entry & QCOW2_REFTABLE_OFFSET;
    if (block & (s->cluster_bytes - 1) || block >= QCOW2_HOST_OFFSET_MAX) {
        return ash_qcow2_corrupt(node,
                                 "refcount table entry %" PRIu64 " (0x%" PRIx64 ") is invalid",
                                 cluster >> s->refblock_bits, entry);
    }
    return ash_table_cache_get(&s->refcount_cache, slice_offset(s, block, cluster), slice);
}

int ash_qcow2_refcount_get(struct ash_node *node, uint64_t cluster, uint64_t *value)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct ash_table_slice *slice;
    int ret = ash_qcow2_refcount_slice(node, cluster, &slice);
    *value = 0;
    if (ret == 0 && slice) {
        *value =
            ash_qcow2_refcount_read(slice->data, s->refcount_order, index_in_slice(s, cluster));
    }
    return ret;
}

bool ash_qcow2_refcount_is_one(struct ash_node *node, uint64_t cluster, uint64_t count)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    for (uint64_t done = 0; done < count;) {
        struct ash_table_slice *slice;
        int ret = ash_qcow2_refcount_slice(node, cluster + done, &slice);
        if (ret < 0 || !slice) {
            return false;
        }
        uint64_t at = index_in_slice(s, cluster + done);
        uint64_t upto = ASH_MIN(at + count - done, UINT64_C(1) << s->refslice_bits);
        for (; at < upto; at++, done++) {
            if (ash_qcow2_refcount_read(slice->data, s->refcount_order, at) != 1) {
                return false;
            }
        }
    }
    return true;
}

int ash_qcow2_refcount_set(struct ash_node *node, uint64_t cluster, uint64_t value)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct ash_table_slice *slice;
    if (value > s->refcount_max) {
        return -EINVAL;
    }
    int ret = ash_qcow2_refblock_ensure(node, cluster);
    if (ret == 0) {
        ret = ash_qcow2_refcount_slice(node, cluster, &slice);
    }
    if (ret == 0) {
        ash_qcow2_refcount_write(slice->data, s->refcount_order, index_in_slice(s, cluster), value);
        ash_table_slice_dirty(slice);
    }
    return ret;
}

/* --- raising and lowering --- */

int ash_qcow2_refcount_raise(struct ash_node *node, uint64_t cluster, uint64_t count)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t done = 0;
    int ret = 0;
    while (done < count) {
        struct ash_table_slice *slice;
        ret = ash_qcow2_refblock_ensure(node, cluster + done);
        if (ret == 0) {
            ret = ash_qcow2_refcount_slice(node, cluster + done, &slice);
        }
        if (ret < 0) {
            break;
        }
        uint64_t at = index_in_slice(s, cluster + done);
        uint64_t upto = ASH_MIN(at + count - done, UINT64_C(1) << s->refslice_bits);
        for (; at < upto; at++, done++) {
            uint64_t value = ash_qcow2_refcount_read(slice->data, s->refcount_order, at);
            if (value >= s->refcount_max) {
                ret = -ERANGE;
                break;
            }
            ash_qcow2_refcount_write(slice->data, s->refcount_order, at, value + 1);
        }
        ash_table_slice_dirty(slice);
        if (ret < 0) {
            break;
        }
    }
    if (ret < 0 && done > 0) {
        /* If this fails too, clusters leak. */
        ash_qcow2_refcount_lower(node, cluster, done, NULL);
    }
    return ret;
}

int ash_qcow2_refcount_lower(struct ash_node *node, uint64_t cluster, uint64_t count,
                             void (*zero)(struct ash_node *node, uint64_t cluster))
{
    struct ash_qcow2_state *s = qcow2_state(node);
    for (uint64_t done = 0; done < count;) {
        struct ash_table_slice *slice;
        int ret = ash_qcow2_refcount_slice(node, cluster + done, &slice);
        if (ret < 0) {
            return ret;
        }
        uint64_t at = index_in_slice(s, cluster + done);
        uint64_t upto = ASH_MIN(at + count - done, UINT64_C(1) << s->refslice_bits);
        for (; slice && at < upto; at++, done++) {
            uint64_t value = ash_qcow2_refcount_read(slice->data, s->refcount_order, at);
            if (value == 0) {
                break;
            }
            ash_qcow2_refcount_write(slice->data, s->refcount_order, at, value - 1);
            ash_table_slice_dirty(slice);
            if (value == 1 && zero) {
                zero(node, cluster + done);
            }
        }
        if (!slice || at < upto) {
            return ash_qcow2_corrupt(
                node, "cluster at 0x%" PRIx64 " is given back, but its refcount is 0",
                (cluster + done) << s->cluster_bits);
        }
    }
    return 0;
}

/* The last refcount of a slice that is not zero, plus one; most are zero, so whole words first. */
static uint64_t used_in_slice(const struct ash_qcow2_state *s, const uint8_t *data)
{
    uint64_t words = s->refslice_bytes / sizeof(uint64_t);
    uint64_t word = 0;
    while (words > 0 && word == 0) {
        words--;
        memcpy(&word, data + words * sizeof(word), sizeof(word));
    }
    if (word == 0) {
        return 0;
    }
    uint64_t at = (words + 1) * (UINT64_C(64) >> s->refcount_order);
    while (ash_qcow2_refcount_read(data, s->refcount_order, at - 1) == 0) {
        at--;
    }
    return at;
}

int ash_qcow2_refcount_end(struct ash_node *node, uint64_t *cluster)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t per_slice = UINT64_C(1) << s->refslice_bits;
    uint64_t slices_per_block = UINT64_C(1) << (s->refblock_bits - s->refslice_bits);
    uint32_t slices_max = 4096;
    for (uint64_t i = s->reftable.count; i-- > 0;) {
        if (!(s->reftable.entries[i] & QCOW2_REFTABLE_OFFSET)) {
            continue;
        }
        for (uint64_t j = slices_per_block; j-- > 0;) {
            struct ash_table_slice *slice;
            uint64_t first = (i << s->refblock_bits) + j * per_slice;
            *cluster = first + per_slice;
            if (slices_max-- == 0) {
                /* So many empty blocks: allocation goes on behind them. */
                return 0;
            }
            int ret = ash_qcow2_refcount_slice(node, first, &slice);
            if (ret < 0) {
                return ret;
            }
            uint64_t used = used_in_slice(s, slice->data);
            if (used > 0) {
                *cluster = first + used;
                return 0;
            }
        }
    }
    *cluster = 0;
    return 0;
}
