/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A cursor over somebody else's iovec array. It is two words and an offset, passed by value and
 * narrowed by copying; it owns nothing, and no iovec array needs to be copied to address a part of
 * a vector.
 *
 * The data of a write may instead be bytes of an open file, which the kernel copies: then there is
 * no memory to look at. Such a cursor can be narrowed, and asked what shape it has; whoever needs
 * the bytes asks ash_iov_is_file() first (asserted). */
#ifndef ASH_UTIL_IOV_H
#define ASH_UTIL_IOV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct ash_file;

#define ASH_IOV_FILE UINT32_MAX

struct ash_iov {
    union {
        const struct iovec *vec;
        struct ash_file *file; /* if count is ASH_IOV_FILE */
    };
    uint32_t count; /* elements from vec on */
    size_t skip; /* bytes of vec[0] that lie before the cursor; < vec[0].iov_len, or 0. Of a file:
                    the offset in it */
};

/* A cursor over one caller-owned element. */
static inline struct ash_iov ash_iov_of(const struct iovec *vec, uint32_t count)
{
    return (struct ash_iov){.vec = vec, .count = count};
}

/* A cursor over the bytes of a file, from `offset` on. */
static inline struct ash_iov ash_iov_of_file(struct ash_file *file, uint64_t offset)
{
    return (struct ash_iov){.file = file, .count = ASH_IOV_FILE, .skip = offset};
}

static inline bool ash_iov_is_file(const struct ash_iov *iov)
{
    return iov->count == ASH_IOV_FILE;
}

/* Bytes from the cursor to the end of the vector; not of a file. */
uint64_t ash_iov_bytes(struct ash_iov iov);

/* The cursor `bytes` further on; `bytes` is at most ash_iov_bytes(). Empty elements are skipped. */
struct ash_iov ash_iov_advance(struct ash_iov iov, uint64_t bytes);

/* Copies `bytes` from the cursor on out to, or in from, a buffer; fills with one value. The vector
 * is long enough (asserted). */
void ash_iov_to_buffer(struct ash_iov iov, void *buffer, size_t bytes);
void ash_iov_from_buffer(struct ash_iov iov, const void *buffer, size_t bytes);
void ash_iov_fill(struct ash_iov iov, uint8_t value, uint64_t bytes);

/* Writes up to `max` elements that cover the next `bytes` into `out`, first and last cut to fit.
 * Returns how many; *covered tells how many bytes they cover (less than `bytes` if `max` was too
 * small). Empty elements are left out. */
uint32_t ash_iov_collect(struct ash_iov iov, uint64_t bytes, struct iovec *out, uint32_t max,
                         uint64_t *covered);

/* How many non-empty elements cover the next `bytes`; 1 of a file. */
uint32_t ash_iov_pieces(struct ash_iov iov, uint64_t bytes);

/* Whether the next `bytes` are one piece of memory; then *base is where. */
bool ash_iov_contiguous(struct ash_iov iov, uint64_t bytes, void **base);

/* Whether every piece of the next `bytes` starts at a multiple of `alignment` and has a length that
 * is a multiple of `length_unit` (both powers of two). */
bool ash_iov_aligned(struct ash_iov iov, uint64_t bytes, size_t alignment, size_t length_unit);

/* Whether the next `bytes` are all zero. */
bool ash_iov_is_zero(struct ash_iov iov, uint64_t bytes);

/* Whether a buffer is all zero; fast. */
bool ash_buffer_is_zero(const void *buffer, size_t bytes);

#endif
