/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes of a simulated file, in terms of pages, and its length.
 *
 * Invariants:
 *  1. No byte at or beyond the length is anything but zero, and no page that lies wholly beyond it
 * has a block.
 *  2. inode->lengths holds the changes of the length since it was durable, oldest first.
 *  3. No function here costs more than the pages that exist in the range it is given, and one step
 *     for each 64 pages that it allocates. */

#include <errno.h>
#include <string.h>
#include "util/assert.h"
#include "util/engine/sim/internal.h"
#include "util/range.h"

#define PAGE_MASK ((uint64_t)SIM_PAGE_BYTES - 1)

/* The part of one page that a range covers. */
struct part {
    uint64_t page_index;
    size_t from;
    size_t to;
};

static struct part part_at(uint64_t offset, uint64_t end)
{
    uint64_t page = offset >> SIM_PAGE_BITS;
    uint64_t start = page << SIM_PAGE_BITS;

    return (struct part){page, (size_t)(offset - start),
                         (size_t)ASH_MIN(end - start, (uint64_t)SIM_PAGE_BYTES)};
}

/* The bits of the pages [first, end) within leaf number `index`. */
static uint64_t leaf_bits(uint64_t index, uint64_t first, uint64_t end)
{
    uint64_t base = index << SIM_LEAF_BITS;
    uint64_t from = first > base ? first - base : 0;
    uint64_t to = ASH_MIN(end - base, (uint64_t)SIM_LEAF_PAGES);

    return (to == 64 ? UINT64_MAX : (UINT64_C(1) << to) - 1) & (UINT64_MAX << from);
}

static uint64_t page_end(uint64_t offset)
{
    return (offset + PAGE_MASK) >> SIM_PAGE_BITS;
}

static uint64_t leaf_end(uint64_t end_page)
{
    return (end_page + SIM_LEAF_PAGES - 1) >> SIM_LEAF_BITS;
}

void ash_sim_content_read(struct sim_inode *inode, uint64_t offset, uint64_t bytes,
                          struct ash_iov iov)
{
    for (uint64_t end = offset + bytes; offset < end;) {
        struct part part = part_at(offset, end);
        const uint8_t *block = ash_sim_page_read(inode, part.page_index);
        size_t length = part.to - part.from;

        if (block) {
            ash_iov_from_buffer(iov, block + part.from, length);
        } else {
            ash_iov_fill(iov, 0, length);
        }
        offset += length;
        iov = ash_iov_advance(iov, length);
    }
}

uint64_t ash_sim_content_write(struct sim_inode *inode, uint64_t offset, uint64_t bytes,
                               struct ash_iov iov, uint64_t seq, uint64_t new_pages_max)
{
    uint64_t at = offset;

    for (uint64_t end = offset + bytes; at < end;) {
        struct part part = part_at(at, end);
        size_t length = part.to - part.from;

        if (!ash_sim_page_allocated(inode, part.page_index) && new_pages_max-- == 0) {
            break;
        }
        uint8_t *block = ash_sim_page_change(inode, part.page_index, part.from, part.to, seq);
        ash_iov_to_buffer(iov, block + part.from, length);
        at += length;
        iov = ash_iov_advance(iov, length);
    }
    if (at > offset && at > inode->length) {
        ash_sim_content_set_length(inode, at, true, seq);
    }
    return at - offset;
}

/* Zeroes a part of a page, if it has anything to zero. */
static void zero_part(struct sim_inode *inode, uint64_t offset, uint64_t end, uint64_t seq)
{
    struct part part = part_at(offset, end);

    if (part.from < part.to && ash_sim_page_read(inode, part.page_index)) {
        uint8_t *block = ash_sim_page_change(inode, part.page_index, part.from, part.to, seq);
        memset(block + part.from, 0, part.to - part.from);
    }
}

/* Pages [first, end) read as zeroes and are holes, or unwritten if they are allocated and `keep`.
 */
static void clear_pages(struct sim_inode *inode, uint64_t first, uint64_t end, bool keep,
                        uint64_t seq)
{
    uint64_t index = first >> SIM_LEAF_BITS;

    for (struct sim_leaf *leaf;
         (leaf = ash_sim_tree_next(&inode->tree, &index)) && index < leaf_end(end); index++) {
        uint64_t bits = leaf_bits(index, first, end);
        for (uint64_t rest = leaf->data & bits; rest; rest &= rest - 1) {
            uint64_t page = (index << SIM_LEAF_BITS) + (unsigned)__builtin_ctzll(rest);
            ash_sim_page_clear(inode, page, keep, seq);
        }
        if (!keep) {
            uint64_t freed = (uint64_t)__builtin_popcountll(leaf->unwritten & bits);
            leaf->unwritten &= ~bits;
            inode->allocated_pages -= freed;
            inode->world->allocated_pages -= freed;
        }
    }
}

void ash_sim_content_zero(struct sim_inode *inode, uint64_t offset, uint64_t bytes, bool allocate,
                          uint64_t seq)
{
    uint64_t end = offset + bytes;
    uint64_t first_page = page_end(offset);
    uint64_t end_page = end >> SIM_PAGE_BITS;

    if (first_page > end_page) {
        zero_part(inode, offset, end, seq);
    } else {
        if (offset & PAGE_MASK) {
            zero_part(inode, offset, first_page << SIM_PAGE_BITS, seq);
        }
        if (first_page < end_page) {
            clear_pages(inode, first_page, end_page, allocate, seq);
        }
        if (end & PAGE_MASK) {
            zero_part(inode, end_page << SIM_PAGE_BITS, end, seq);
        }
    }
    if (allocate) {
        ash_sim_content_allocate(inode, offset, bytes);
    }
}

void ash_sim_content_allocate(struct sim_inode *inode, uint64_t offset, uint64_t bytes)
{
    uint64_t first = offset >> SIM_PAGE_BITS;
    uint64_t end = page_end(offset + bytes);

    for (uint64_t index = first >> SIM_LEAF_BITS; index < leaf_end(end); index++) {
        struct sim_leaf *leaf = ash_sim_tree_make(&inode->tree, index);
        uint64_t bits = leaf_bits(index, first, end) & ~(leaf->data | leaf->unwritten);
        uint64_t added = (uint64_t)__builtin_popcountll(bits);
        leaf->unwritten |= bits;
        inode->allocated_pages += added;
        inode->world->allocated_pages += added;
    }
}

uint64_t ash_sim_content_missing(struct sim_inode *inode, uint64_t offset, uint64_t bytes,
                                 uint64_t enough)
{
    uint64_t first = offset >> SIM_PAGE_BITS;
    uint64_t end = page_end(offset + bytes);
    uint64_t missing = end - first;
    uint64_t index = first >> SIM_LEAF_BITS;

    if (missing <= enough) {
        return missing;
    }
    for (const struct sim_leaf *leaf;
         (leaf = ash_sim_tree_next(&inode->tree, &index)) && index < leaf_end(end); index++) {
        uint64_t bits = leaf_bits(index, first, end) & (leaf->data | leaf->unwritten);
        missing -= (uint64_t)__builtin_popcountll(bits);
    }
    return missing;
}

void ash_sim_content_set_length(struct sim_inode *inode, uint64_t length, bool gradual,
                                uint64_t seq)
{
    struct sim_length change = {
        .seq = seq, .before = inode->length, .gradual = gradual, .shrinks = length < inode->length};

    if (length != inode->length) {
        g_array_append_val(inode->lengths, change);
        inode->length = length;
    }
}

void ash_sim_content_truncate(struct sim_inode *inode, uint64_t length, uint64_t seq)
{
    if (length < inode->length) {
        uint64_t rest = SIM_FILE_BYTES_MAX - length;
        ash_sim_content_zero(inode, length, rest, false, seq);
    }
    ash_sim_content_set_length(inode, length, false, seq);
}

void ash_sim_content_trim(struct sim_inode *inode, uint64_t length)
{
    ash_sim_content_zero(inode, length, SIM_FILE_BYTES_MAX - length, false, inode->world->seq);
    ash_sim_inode_flush(inode, UINT64_MAX, false);
    inode->length = length;
    g_array_set_size(inode->lengths, 0);
}

void ash_sim_content_lengths_durable(struct sim_inode *inode, uint64_t seq)
{
    guint count = 0;

    while (count < inode->lengths->len &&
           g_array_index(inode->lengths, struct sim_length, count).seq <= seq) {
        count++;
    }
    if (count > 0) {
        g_array_remove_range(inode->lengths, 0, count);
    }
}

void ash_sim_content_harden(struct sim_inode *inode, uint64_t offset, uint64_t bytes, uint64_t seq)
{
    for (uint64_t end = offset + bytes; offset < end;) {
        struct part part = part_at(offset, end);
        ash_sim_page_harden(inode, part.page_index, part.from, part.to, seq);
        offset += part.to - part.from;
    }
}

/* The first page at `page` or after it that has data; UINT64_MAX: none. */
static uint64_t next_data(struct sim_inode *inode, uint64_t page)
{
    uint64_t index = page >> SIM_LEAF_BITS;

    for (const struct sim_leaf *leaf; (leaf = ash_sim_tree_next(&inode->tree, &index)); index++) {
        uint64_t bits = leaf->data & leaf_bits(index, page, UINT64_MAX);
        if (bits) {
            return (index << SIM_LEAF_BITS) + (unsigned)__builtin_ctzll(bits);
        }
    }
    return UINT64_MAX;
}

/* The first page at `page` or after it that has none. */
static uint64_t next_hole(struct sim_inode *inode, uint64_t page)
{
    for (uint64_t index = page >> SIM_LEAF_BITS;; index++) {
        const struct sim_leaf *leaf = ash_sim_tree_get(&inode->tree, index);
        uint64_t bits = leaf_bits(index, page, UINT64_MAX) & ~(leaf ? leaf->data : 0);
        if (bits) {
            return (index << SIM_LEAF_BITS) + (unsigned)__builtin_ctzll(bits);
        }
    }
}

int64_t ash_sim_content_seek(struct sim_inode *inode, uint64_t offset, bool data)
{
    uint64_t page = offset >> SIM_PAGE_BITS;
    uint64_t found;

    if (offset >= inode->length) {
        return -ENXIO;
    }
    found = data ? next_data(inode, page) : next_hole(inode, page);
    if (found >= page_end(inode->length)) {
        return data ? -ENXIO : (int64_t)inode->length;
    }
    return (int64_t)ASH_MAX(found << SIM_PAGE_BITS, offset);
}

uint64_t ash_sim_pages_left(const struct ash_sim_world *world)
{
    uint64_t capacity = world->config.capacity_bytes >> SIM_PAGE_BITS;

    if (world->config.capacity_bytes == 0) {
        return SIM_ALLOCATE_BYTES_MAX >> SIM_PAGE_BITS;
    }
    return capacity > world->allocated_pages ? capacity - world->allocated_pages : 0;
}
