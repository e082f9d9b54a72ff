/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cursors over iovec arrays.
 *
 * Owns nothing. Everything here is one walk over pieces, where a piece is what is left of one
 * non-empty element, cut to the bytes that were asked for.
 *
 * 1. An element of length 0 is never looked into: its base may be NULL or wild.
 * 2. Asking for 0 bytes looks at no element at all: the vector may be NULL.
 * 3. A vector shorter than asked is our own mistake (asserted), except in ash_iov_bytes().
 * 4. A file has no pieces (asserted). */
#include "util/iov.h"

#include <string.h>
#include "util/assert.h"
#include "util/compiler.h"

/* Takes the next piece of at most `bytes` (> 0) off the cursor. */
static struct iovec take_piece(struct ash_iov *iov, uint64_t bytes)
{
    ash_assert(iov->count != ASH_IOV_FILE);
    while (iov->count > 0 && iov->vec->iov_len == iov->skip) {
        iov->vec++;
        iov->count--;
        iov->skip = 0;
    }
    ash_assert(iov->count > 0);

    size_t left = iov->vec->iov_len - iov->skip;
    struct iovec piece = {
        .iov_base = (char *)iov->vec->iov_base + iov->skip,
        .iov_len = left <= bytes ? left : (size_t)bytes,
    };
    iov->skip += piece.iov_len;
    return piece;
}

uint64_t ash_iov_bytes(struct ash_iov iov)
{
    uint64_t bytes = 0;

    ash_assert(!ash_iov_is_file(&iov));
    for (uint32_t i = 0; i < iov.count; i++) {
        bytes += iov.vec[i].iov_len;
    }
    return bytes - iov.skip;
}

struct ash_iov ash_iov_advance(struct ash_iov iov, uint64_t bytes)
{
    if (ash_iov_is_file(&iov)) {
        iov.skip += bytes;
        return iov;
    }
    while (bytes > 0) {
        bytes -= take_piece(&iov, bytes).iov_len;
    }
    while (iov.count > 0 && iov.vec->iov_len == iov.skip) {
        iov.vec++;
        iov.count--;
        iov.skip = 0;
    }
    return iov;
}

void ash_iov_to_buffer(struct ash_iov iov, void *buffer, size_t bytes)
{
    char *out = buffer;

    while (bytes > 0) {
        struct iovec piece = take_piece(&iov, bytes);
        memcpy(out, piece.iov_base, piece.iov_len);
        out += piece.iov_len;
        bytes -= piece.iov_len;
    }
}

void ash_iov_from_buffer(struct ash_iov iov, const void *buffer, size_t bytes)
{
    const char *in = buffer;

    while (bytes > 0) {
        struct iovec piece = take_piece(&iov, bytes);
        memcpy(piece.iov_base, in, piece.iov_len);
        in += piece.iov_len;
        bytes -= piece.iov_len;
    }
}

void ash_iov_fill(struct ash_iov iov, uint8_t value, uint64_t bytes)
{
    while (bytes > 0) {
        struct iovec piece = take_piece(&iov, bytes);
        memset(piece.iov_base, value, piece.iov_len);
        bytes -= piece.iov_len;
    }
}

uint32_t ash_iov_collect(struct ash_iov iov, uint64_t bytes, struct iovec *out, uint32_t max,
                         uint64_t *covered)
{
    uint32_t count = 0;
    uint64_t left = bytes;

    while (left > 0 && count < max) {
        out[count] = take_piece(&iov, left);
        left -= out[count].iov_len;
        count++;
    }
    *covered = bytes - left;
    return count;
}

uint32_t ash_iov_pieces(struct ash_iov iov, uint64_t bytes)
{
    uint32_t count = 0;

    if (ash_iov_is_file(&iov)) {
        return 1;
    }
    while (bytes > 0) {
        bytes -= take_piece(&iov, bytes).iov_len;
        count++;
    }
    return count;
}

bool ash_iov_contiguous(struct ash_iov iov, uint64_t bytes, void **base)
{
    *base = NULL;
    if (bytes == 0) {
        return true;
    }

    struct iovec first = take_piece(&iov, bytes);
    char *end = (char *)first.iov_base + first.iov_len;
    bytes -= first.iov_len;
    while (bytes > 0) {
        struct iovec piece = take_piece(&iov, bytes);
        if (piece.iov_base != end) {
            return false;
        }
        end += piece.iov_len;
        bytes -= piece.iov_len;
    }
    *base = first.iov_base;
    return true;
}

bool ash_iov_aligned(struct ash_iov iov, uint64_t bytes, size_t alignment, size_t length_unit)
{
    while (bytes > 0) {
        struct iovec piece = take_piece(&iov, bytes);
        if (((uintptr_t)piece.iov_base & (alignment - 1)) != 0 ||
            (piece.iov_len & (length_unit - 1)) != 0) {
            return false;
        }
        bytes -= piece.iov_len;
    }
    return true;
}

bool ash_iov_is_zero(struct ash_iov iov, uint64_t bytes)
{
    while (bytes > 0) {
        struct iovec piece = take_piece(&iov, bytes);
        if (!ash_buffer_is_zero(piece.iov_base, piece.iov_len)) {
            return false;
        }
        bytes -= piece.iov_len;
    }
    return true;
}

static uint64_t load_word(const unsigned char *bytes)
{
    uint64_t word;

    memcpy(&word, bytes, sizeof(word));
    return word;
}

/* Sixteen bytes at any address, in one register on every machine that has such. */
typedef uint64_t vector __attribute__((vector_size(16), aligned(1), may_alias));

bool ash_buffer_is_zero(const void *buffer, size_t bytes)
{
    const unsigned char *in = buffer;

    if (bytes < sizeof(uint64_t)) {
        unsigned char any = 0;
        for (size_t i = 0; i < bytes; i++) {
            any |= in[i];
        }
        return any == 0;
    }
    /* Data differs from zero at its ends or in the middle: three looks settle most calls. */
    if ((load_word(in) | load_word(in + bytes / 2 - sizeof(uint64_t) / 2) |
         load_word(in + bytes - sizeof(uint64_t))) != 0) {
        return false;
    }
    for (; bytes >= 8 * sizeof(vector); in += 8 * sizeof(vector), bytes -= 8 * sizeof(vector)) {
        const vector *v = (const vector *)in;
        vector any = (v[0] | v[1]) | (v[2] | v[3]) | (v[4] | v[5]) | (v[6] | v[7]);
        if ((any[0] | any[1]) != 0) {
            return false;
        }
    }
    for (; bytes >= sizeof(uint64_t); in += sizeof(uint64_t), bytes -= sizeof(uint64_t)) {
        if (load_word(in) != 0) {
            return false;
        }
    }
    /* The last, odd bytes lie within the last word, which was looked at above. */
    return true;
}
