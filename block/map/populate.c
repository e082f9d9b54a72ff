/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Copying into a node what it lacks.
 *
 * Invariants:
 *  1. From finding out that the node lacks a range until the copy is linked, no guest's request
 *     touches the range: the whole call is one serialising request over whole allocation units. So
 * a copy never overwrites what a guest wrote, not even in another sector of its unit.
 *  2. What is written comes from a buffer of our own: a reader's memory may change under us.
 *  3. Zeroes are written only where a base remains that could show something else.
 *  4. A copy that was given up serialises only while it writes, and begins no write. */
#include "block/map/populate.h"
#include <errno.h>
#include <string.h>
#include "block/driver.h"
#include "block/io/track.h"
#include "block/map/ops.h"
#include "util/assert.h"
#include "util/range.h"

#define CHUNK_BYTES (1 * MiB) /* the most that is copied at once */

struct populate {
    struct ash_node *node;
    const struct ash_node *base;
    const struct ash_iov *iov;
    struct ash_populating *own;
    uint64_t offset; /* what the reader wants */
    uint64_t end;
    uint8_t *buffer; /* of CHUNK_BYTES; made by the first copy */
    uint64_t buffer_bytes;
    uint64_t copied_bytes;
};

int ash_map_lacks(struct ash_node *node, const struct ash_node *base, uint64_t offset,
                  uint64_t bytes, uint64_t *same_bytes, enum ash_lack *lack)
{
    struct ash_status status;
    *lack = ASH_LACKS_NOTHING;
    *same_bytes = bytes;
    if (node->backing == NULL || node->backing->child == base) {
        return 0;
    }
    /* First the node alone: where a layer below it ends, the zeroes that follow count as the
     * node's in the chain, though it does not hold them. */
    int ret = ash_chain_status(node, node->backing->child, offset, bytes, 0, &status);
    if (ret == 0 && (status.flags & ASH_STATUS_ALLOCATED) == 0) {
        ret = ash_chain_status(node, base, offset, status.bytes, ASH_IO_STATUS_ZEROES, &status);
        if (ret == 0 && (status.flags & ASH_STATUS_ALLOCATED) != 0) {
            bool zero = (status.flags & ASH_STATUS_ZERO) != 0;
            *lack = !zero ? ASH_LACKS_DATA : base != NULL ? ASH_LACKS_ZEROES : ASH_LACKS_NOTHING;
        }
    }
    *same_bytes = status.bytes;
    return ret;
}

/* The reader's part of [at, at + bytes). */
static bool wanted(const struct populate *p, uint64_t at, uint64_t bytes, uint64_t *from,
                   uint64_t *length)
{
    if (p->iov == NULL || at >= p->end || at + bytes <= p->offset) {
        return false;
    }
    *from = ASH_MAX(at, p->offset);
    *length = ASH_MIN(at + bytes, p->end) - *from;
    return true;
}

/* Zero, or the error of a copy if nobody reads: a reader gets its data all the same. */
static int forgive(const struct populate *p, int ret)
{
    return p->iov != NULL ? 0 : ret;
}

static int write_begin(struct populate *p)
{
    if (p->own->forsaken) {
        return -ECANCELED;
    }
    p->own->writing = true;
    return 0;
}

ASH_CO_FN static int copy(struct populate *p, uint64_t at, uint64_t bytes)
{
    struct ash_node *node = p->node;
    if (p->buffer == NULL) {
        p->buffer = ash_buffer_alloc(node->loop, p->buffer_bytes, 4096);
        if (p->buffer == NULL) {
            return -ENOMEM;
        }
    }
    struct iovec vec = {p->buffer, bytes};
    int ret = ash_map_read(node, at, bytes, ash_iov_of(&vec, 1));
    ret = ret < 0 ? ret : write_begin(p);
    if (ret < 0) {
        return ret;
    }
    ret = ash_map_write(node, at, bytes, ash_iov_of(&vec, 1), 0);
    p->own->writing = false;
    p->copied_bytes += ret == 0 ? bytes : 0;
    uint64_t from;
    uint64_t length;
    if (wanted(p, at, bytes, &from, &length)) {
        ash_iov_from_buffer(ash_iov_advance(*p->iov, from - p->offset), p->buffer + (from - at),
                            length);
    }
    return forgive(p, ret);
}

/* Parts of units are written, as data: zeroing would leave alone what reads as zeroes today,
 * because a layer ends here, and base would show there tomorrow. Writing a part has the node hold
 * the unit. */
ASH_CO_FN static int hold_zeroes(struct ash_node *node, uint64_t at, uint64_t bytes)
{
    uint64_t unit = node->map->unit_bytes;
    uint64_t end = at + bytes;
    uint64_t start = ASH_MIN(ash_align_up(at, unit), end);
    uint64_t stop = end == node->size_bytes ? end : ASH_MAX(ash_align_down(end, unit), start);
    int ret = at < start ? ash_map_write_zeroes(node, at, start - at) : 0;
    if (ret == 0 && start < stop) {
        ret = ash_map_zero(node, start, stop - start, 0);
    }
    if (ret == 0 && stop < end) {
        ret = ash_map_write_zeroes(node, stop, end - stop);
    }
    return ret;
}

ASH_CO_FN static int zero(struct populate *p, uint64_t at, uint64_t bytes)
{
    int ret = write_begin(p);
    if (ret < 0) {
        return ret;
    }
    ret = hold_zeroes(p->node, at, bytes);
    p->own->writing = false;
    p->copied_bytes += ret == 0 ? bytes : 0;
    uint64_t from;
    uint64_t length;
    if (wanted(p, at, bytes, &from, &length)) {
        ash_iov_fill(ash_iov_advance(*p->iov, from - p->offset), 0, length);
    }
    return forgive(p, ret);
}

ASH_CO_FN static int leave(struct populate *p, uint64_t at, uint64_t bytes)
{
    uint64_t from;
    uint64_t length;
    if (!wanted(p, at, bytes, &from, &length)) {
        return 0;
    }
    return ash_map_read(p->node, from, length, ash_iov_advance(*p->iov, from - p->offset));
}

/* Ranges to be copied that follow one another go as one, whatever layers they come from. */
ASH_CO_FN static int gather(struct populate *p, uint64_t at, uint64_t end, uint64_t *bytes)
{
    while (at + *bytes < end && *bytes < p->buffer_bytes) {
        uint64_t more;
        enum ash_lack lack;
        int ret = ash_map_lacks(p->node, p->base, at + *bytes, end - at - *bytes, &more, &lack);
        if (ret < 0) {
            return ret;
        }
        if (lack != ASH_LACKS_DATA) {
            break;
        }
        *bytes += more;
    }
    *bytes = ASH_MIN(*bytes, p->buffer_bytes);
    return 0;
}

ASH_CO_FN static int populate(struct populate *p, uint64_t at, uint64_t end)
{
    p->buffer_bytes = ASH_MIN(end - at, ASH_MAX(CHUNK_BYTES, p->node->map->unit_bytes));
    int ret = 0;
    while (at < end && ret == 0) {
        uint64_t bytes;
        enum ash_lack lack;
        ret = p->own->forsaken ? -ECANCELED
                               : ash_map_lacks(p->node, p->base, at, end - at, &bytes, &lack);
        if (ret < 0) {
            break;
        }
        if (lack == ASH_LACKS_DATA) {
            ret = gather(p, at, end, &bytes);
            ret = ret < 0 ? ret : copy(p, at, bytes);
        } else if (lack == ASH_LACKS_ZEROES) {
            ret = zero(p, at, bytes);
        } else {
            ret = leave(p, at, bytes);
        }
        at += bytes;
    }
    if (p->buffer != NULL) {
        ash_buffer_free(p->node->loop, p->buffer, p->buffer_bytes);
    }
    return ret;
}

/* `p` says what is asked. */
ASH_CO_FN static int run(struct ash_edge *edge, struct populate *p)
{
    struct ash_node *node = edge->child;
    ash_assert(node->map != NULL);
    ash_assert((edge->needs & (ASH_RIGHT_REWRITE | ASH_RIGHT_WRITE)) != 0);
    uint64_t unit = node->map->unit_bytes;
    uint64_t start = ash_align_down(p->offset, unit);
    uint64_t end = ash_align_up(p->end, unit);
    p->node = node;
    p->own->tracked = true;
    ash_track_begin(&p->own->request, node, ASH_READ, start, end - start, true);
    int ret = -EINVAL;
    if (p->end <= node->size_bytes) {
        ret = populate(p, start, ASH_MIN(end, node->size_bytes));
    }
    p->own->tracked = false;
    ash_track_end(&p->own->request);
    return ret;
}

int ash_edge_populate_for_job(struct ash_edge *edge, const struct ash_node *base, uint64_t offset,
                              uint64_t bytes, struct ash_populating *populating)
{
    struct populate p = {.base = base, .own = populating, .offset = offset, .end = offset + bytes};
    return run(edge, &p);
}

void ash_populate_forsake(struct ash_populating *populating)
{
    ash_assert(!populating->forsaken);
    populating->forsaken = true;
    if (populating->tracked && !populating->writing) {
        ash_track_stop_serialising(&populating->request);
    }
}

int ash_edge_populate(struct ash_edge *edge, const struct ash_node *base, uint64_t offset,
                      uint64_t bytes, const struct ash_iov *iov, uint64_t *copied_bytes)
{
    struct ash_populating own = {0};
    struct populate p = {
        .base = base, .own = &own, .iov = iov, .offset = offset, .end = offset + bytes};
    int ret = run(edge, &p);
    if (copied_bytes != NULL) {
        *copied_bytes += p.copied_bytes;
    }
    return ret;
}
