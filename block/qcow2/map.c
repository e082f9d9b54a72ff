/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The map of a qcow2 image: where a guest range is, where it may go, linking it.
 *
 * 1. lookup answers from one entry, and goes on while the next ones continue it, in slices that are
 * in memory. It yields only to load the first slice.
 * 2. prepare takes places for entries of one slice that need one, and links nothing. The refcounts
 * of the places are raised in memory when it returns.
 * 3. commit changes entries in memory. What they held before is dropped (drop.c).
 * 4. A preallocated zero cluster gets its own place back, and its fill is zero; unless I/O in
 * flight uses the place: a write from before it was made zero would land upon the fill. Then it
 * gets a fresh one. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "util/assert.h"

/* What a placement is; in scratch[SCRATCH_KIND]. */
enum { SCRATCH_KIND, SCRATCH_CLUSTER, SCRATCH_COUNT };
enum { PLACE_FRESH, PLACE_AGAIN, PLACE_CODED };

/* --- lookup -------------------------------------------------------------------------------------
 */

/* How far the range without tables goes on, in bytes from `offset`. */
static uint64_t untabled_bytes(const struct ash_qcow2_state *s, uint64_t offset, uint64_t bytes)
{
    uint32_t shift = s->cluster_bits + s->l2_bits;
    uint64_t i = offset >> shift;
    while (i < s->l1.count && !(s->l1.entries[i] & QCOW2_ENTRY_OFFSET)) {
        i++;
        if ((i << shift) - offset >= bytes) {
            return bytes;
        }
    }
    return i < s->l1.count ? (i << shift) - offset : bytes;
}

/* Whether an entry goes on where the one `distance` bytes before it was; `kind` is of that one. */
static inline bool continues(const struct ash_qcow2_state *s, enum qcow2_entry_kind kind,
                             uint64_t first, uint64_t distance, uint64_t entry)
{
    if (kind == QCOW2_DATA || kind == QCOW2_ZERO_PLACED) {
        return entry == first + distance;
    }
    return qcow2_entry_kind(s, entry) == kind;
}

/* Goes on from an entry while the next ones continue it. */
static void extend(struct ash_node *node, struct ash_table_slice *slice, uint32_t index,
                   uint64_t offset, uint64_t bytes, struct ash_extent *extent)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t first = qcow2_slice_entry(slice, index);
    enum qcow2_entry_kind kind = qcow2_entry_kind(s, first);
    uint64_t start = offset & ~(uint64_t)(s->cluster_bytes - 1);
    uint64_t end = offset + bytes;
    uint64_t at = start + s->cluster_bytes;
    index++;
    for (; at < end; at += s->cluster_bytes, index++) {
        if (index >> s->slice_bits) {
            if (ash_qcow2_l2_peek(node, at, &slice, &index) < 0) {
                break;
            }
            if (!slice) {
                if (kind != QCOW2_UNALLOCATED) {
                    break;
                }
                at += untabled_bytes(s, at, end - at);
                break;
            }
            if (slice->suspect) {
                break;
            }
            extent->stable &= ash_table_slice_stable(slice);
        }
        if (!continues(s, kind, first, at - start, qcow2_slice_entry(slice, index))) {
            break;
        }
    }
    extent->bytes = ASH_MIN(at, end) - offset;
}

/* What one good entry says. */
static void describe(struct ash_node *node, uint64_t entry, uint64_t offset,
                     struct ash_extent *extent)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t within = offset & (s->cluster_bytes - 1);
    extent->bytes = s->cluster_bytes - within;
    switch (qcow2_entry_kind(s, entry)) {
    case QCOW2_DATA:
        extent->kind = ASH_EXTENT_DATA;
        extent->in_place = (entry & QCOW2_ENTRY_COPIED) && !s->corrupt;
        extent->edge = node->file;
        extent->host_offset = (entry & QCOW2_ENTRY_OFFSET) + within;
        break;
    case QCOW2_ZERO_PLACED:
        extent->kind = ASH_EXTENT_ZERO;
        extent->edge = node->file;
        extent->host_offset = (entry & QCOW2_ENTRY_OFFSET) + within;
        break;
    case QCOW2_ZERO_PLAIN:
        extent->kind = ASH_EXTENT_ZERO;
        break;
    case QCOW2_COMPRESSED: {
        uint64_t size = node->file->child->size_bytes;
        extent->kind = ASH_EXTENT_CODED;
        extent->edge = node->file;
        extent->coding = s->header.fields.compression;
        extent->host_offset = qcow2_coded_offset(s, entry);
        extent->coded_bytes = qcow2_coded_bytes(s, entry);
        /* The last sector need not be there as a whole. */
        if (extent->host_offset < size) {
            extent->coded_bytes = ASH_MIN(extent->coded_bytes, size - extent->host_offset);
        }
        extent->unit_offset = offset - within;
        extent->unit_bytes = s->cluster_bytes;
        break;
    }
    default:
        extent->kind = ASH_EXTENT_UNALLOCATED;
        break;
    }
}

ASH_CO_FN static int lookup(struct ash_node *node, uint64_t offset, uint64_t bytes,
                            struct ash_extent *extent)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct ash_table_slice *slice;
    uint32_t index;
    int ret = ash_qcow2_l2_peek(node, offset, &slice, &index);
    if (ret < 0) {
        ret = ash_qcow2_l2_get(node, offset, &slice, &index);
        if (ret < 0) {
            return ret;
        }
    }
    memset(extent, 0, sizeof(*extent));
    if (!slice) {
        extent->kind = ASH_EXTENT_UNALLOCATED;
        extent->bytes = untabled_bytes(s, offset, bytes);
        return 0;
    }
    uint64_t entry = qcow2_slice_entry(slice, index);
    if (ash_unlikely(slice->suspect && !ash_qcow2_entry_valid(s, entry))) {
        return ash_qcow2_corrupt(
            node, "L2 entry 0x%" PRIx64 " of guest offset 0x%" PRIx64 " is invalid", entry, offset);
    }
    describe(node, entry, offset, extent);
    extent->stable = ash_table_slice_stable(slice) && s->l1.dirty_chunks == 0 && !s->l1_writing;
    if (extent->bytes >= bytes) {
        extent->bytes = bytes;
    } else if (extent->kind != ASH_EXTENT_CODED && !slice->suspect) {
        extend(node, slice, index, offset, bytes, extent);
    }
    return 0;
}

/* --- placing --- */

static bool has_own_place(const struct ash_qcow2_state *s, uint64_t entry)
{
    return (entry & QCOW2_ENTRY_COPIED) && qcow2_entry_kind(s, entry) == QCOW2_ZERO_PLACED;
}

static bool writable_in_place(const struct ash_qcow2_state *s, uint64_t entry)
{
    return (entry & QCOW2_ENTRY_COPIED) && qcow2_entry_kind(s, entry) == QCOW2_DATA;
}

/* How many entries from `index` on, `most` at the utmost, are served by one placement. */
static uint64_t run_of(const struct ash_qcow2_state *s, const struct ash_table_slice *slice,
                       uint32_t index, uint64_t most)
{
    uint64_t first = qcow2_slice_entry(slice, index);
    bool again = has_own_place(s, first);
    uint64_t count = 1;
    while (count < most && index + count < UINT32_C(1) << s->slice_bits) {
        uint64_t entry = qcow2_slice_entry(slice, index + count);
        if (again ? entry != first + (count << s->cluster_bits)
                  : has_own_place(s, entry) || writable_in_place(s, entry)) {
            break;
        }
        count++;
    }
    return count;
}

ASH_CO_FN static int prepare(struct ash_node *node, uint64_t offset, uint64_t bytes,
                             struct ash_placement *placement)
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
    uint64_t start = offset & ~(uint64_t)(s->cluster_bytes - 1);
    uint64_t most = qcow2_clusters(s, ASH_MIN(offset - start + bytes, QCOW2_RUN_BYTES_MAX));
    uint64_t first = qcow2_slice_entry(slice, index);
    ash_assert(!writable_in_place(s, first));
    uint64_t count = run_of(s, slice, index, most);
    uint64_t cluster;
    placement->offset = start;
    placement->edge = node->file;
    uint64_t own = first & QCOW2_ENTRY_OFFSET;
    if (has_own_place(s, first) &&
        !ash_pin_overlaps(node, node->file, own, count << s->cluster_bits)) {
        if (slice->suspect && !ash_qcow2_entry_valid(s, first)) {
            return ash_qcow2_corrupt(node, "L2 entry 0x%" PRIx64 " is invalid", first);
        }
        cluster = own >> s->cluster_bits;
        count = slice->suspect ? 1 : count;
        placement->fill_zero = true;
        placement->scratch[SCRATCH_KIND] = PLACE_AGAIN;
    } else {
        ret = ash_qcow2_alloc(node, &count, &cluster, &placement->reads_zero);
        if (ret < 0) {
            return ret;
        }
        placement->scratch[SCRATCH_KIND] = PLACE_FRESH;
    }
    placement->bytes = count << s->cluster_bits;
    placement->host_offset = cluster << s->cluster_bits;
    placement->scratch[SCRATCH_CLUSTER] = cluster;
    placement->scratch[SCRATCH_COUNT] = count;
    return 0;
}

/* Where coded bytes go: behind the last ones if they fit there, else into a new cluster, or into
 * both when the new one follows. Under coded_lock. */
ASH_CO_FN static int place_coded(struct ash_node *node, uint32_t bytes, uint64_t *offset,
                                 uint64_t *cluster, uint64_t *count)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t at = s->coded_offset;
    uint64_t rest = at ? s->cluster_bytes - (at & (s->cluster_bytes - 1)) : 0;
    uint64_t old = at >> s->cluster_bits;
    bool fits = rest >= bytes;
    if (rest > 0) {
        int ret = ash_qcow2_refcount_raise(node, old, 1);
        if (ret < 0 && ret != -ERANGE) {
            return ret;
        }
        if (ret == 0 && s->coded_offset != at) {
            /* While its refcount was loaded, the last reference to it was given back. */
            ash_qcow2_refcount_lower(node, old, 1, NULL);
            ret = -ERANGE;
        }
        rest = ret == 0 ? rest : 0;
    }
    if (rest > 0 && fits) {
        *offset = at;
        *cluster = old;
        *count = 1;
        return 0;
    }
    uint64_t one = 1;
    int ret = ash_qcow2_alloc(node, &one, cluster, NULL);
    if (ret == 0 && rest > 0 && *cluster == old + 1) {
        *offset = at;
        *cluster = old;
        *count = 2;
        return 0;
    }
    if (rest > 0) {
        ash_qcow2_drop_unlinked(node, old, 1);
    }
    *offset = *cluster << s->cluster_bits;
    *count = 1;
    return ret;
}

int ash_qcow2_prepare_coded(struct ash_node *node, uint64_t offset, uint64_t bytes,
                            uint32_t coded_bytes, struct ash_placement *placement)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint64_t host, cluster, count;
    ash_assert(bytes == s->cluster_bytes && (offset & (s->cluster_bytes - 1)) == 0);
    ash_assert(coded_bytes > 0 && coded_bytes <= s->cluster_bytes);
    int ret = ash_qcow2_before_update(node);
    if (ret == 0) {
        ret = ash_qcow2_writeback_throttle(node);
    }
    if (ret < 0) {
        return ret;
    }
    /* Whole sectors, so that two writes never meet in one. */
    uint32_t room = (coded_bytes + 511) & ~UINT32_C(511);
    ash_co_mutex_lock(&s->coded_lock);
    ret = place_coded(node, room, &host, &cluster, &count);
    if (ret == 0) {
        uint64_t next = host + room;
        s->coded_offset = next & (s->cluster_bytes - 1) ? next : 0;
    }
    ash_co_mutex_unlock(&s->coded_lock);
    if (ret < 0) {
        return ret;
    }
    if (host > s->coffset_mask) {
        ash_qcow2_drop_unlinked(node, cluster, count);
        return -EFBIG;
    }
    placement->offset = offset;
    placement->bytes = bytes;
    placement->edge = node->file;
    placement->host_offset = host;
    placement->coded_bytes = coded_bytes;
    placement->scratch[SCRATCH_KIND] = PLACE_CODED;
    placement->scratch[SCRATCH_CLUSTER] = cluster;
    placement->scratch[SCRATCH_COUNT] = count;
    return 0;
}

/* The entry of a coded placement. */
static uint64_t coded_entry(const struct ash_qcow2_state *s, const struct ash_placement *placement)
{
    uint64_t first = placement->host_offset;
    uint64_t last = first + placement->coded_bytes - 1;
    return QCOW2_ENTRY_COMPRESSED | ((last >> 9) - (first >> 9)) << s->csize_shift | first;
}

/* What an entry that is invalid leads to is not given back: it may be a table. Who writes coded
 * units, or several at once, has not looked at all of them. */
ASH_CO_FN static int check_replaced(struct ash_node *node, const struct ash_table_slice *slice,
                                    uint32_t index, uint64_t count)
{
    for (uint64_t i = 0; slice->suspect && i < count; i++) {
        uint64_t old = qcow2_slice_entry(slice, index + i);
        if (!ash_qcow2_entry_valid(qcow2_state(node), old)) {
            return ash_qcow2_corrupt(node, "L2 entry 0x%" PRIx64 " is invalid", old);
        }
    }
    return 0;
}

ASH_CO_FN static int commit(struct ash_node *node, struct ash_placement *placement)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct ash_table_slice *slice;
    uint32_t index;
    bool coded = placement->scratch[SCRATCH_KIND] == PLACE_CODED;
    uint64_t count = coded ? 1 : placement->scratch[SCRATCH_COUNT];
    int ret = ash_qcow2_l2_get_writable(node, placement->offset, &slice, &index);
    ret = ret < 0 ? ret : check_replaced(node, slice, index, count);
    if (ret < 0) {
        return ret;
    }
    for (uint64_t i = 0; i < count; i++) {
        uint64_t place = placement->host_offset + (i << s->cluster_bits);
        uint64_t old = qcow2_slice_entry(slice, index + i);
        if (placement->scratch[SCRATCH_KIND] != PLACE_AGAIN) {
            ash_qcow2_drop_entry(node, old, QCOW2_PASS_OTHER);
        } else {
            ash_assert((old & QCOW2_ENTRY_OFFSET) == place);
        }
        ash_qcow2_l2_set(slice, index + i,
                         coded ? coded_entry(s, placement) : place | QCOW2_ENTRY_COPIED);
    }
    ash_qcow2_writeback_kick(node);
    return 0;
}

ASH_CO_FN static void abort_placement(struct ash_node *node, struct ash_placement *placement)
{
    if (placement->scratch[SCRATCH_KIND] != PLACE_AGAIN) {
        ash_qcow2_drop_unlinked(node, placement->scratch[SCRATCH_CLUSTER],
                                placement->scratch[SCRATCH_COUNT]);
    }
}

const struct ash_map_ops ash_qcow2_map_ops = {
    .lookup = lookup,
    .prepare = prepare,
    .prepare_coded = ash_qcow2_prepare_coded,
    .commit = commit,
    .abort = abort_placement,
    .zero = ash_qcow2_zero,
    .discard = ash_qcow2_discard,
    .empty = ash_qcow2_empty,
    .flush = ash_qcow2_flush,
    .encode = ash_qcow2_encode,
    .decode = ash_qcow2_decode,
    .unpinned = ash_qcow2_unpinned,
};
