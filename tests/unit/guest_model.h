/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a disk may hold while several guests write to it at once.
 *
 * Each write carries a number; a byte tells the number of the write that it is from and a little of
 * its place. The model keeps, for each byte, the set of writes whose byte it may be: when a write
 * ends, itself and those that ran beside it. A read narrows the set: what was seen once, with no
 * write under way, stays. */
#ifndef ASH_TESTS_GUEST_MODEL_H
#define ASH_TESTS_GUEST_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include "util/list.h"

#define GUEST_IDS 64 /* 0 is zero */

struct guest_model {
    uint64_t bytes;
    uint64_t *may; /* by byte: a set of numbers */
    struct ash_list ops;
    struct guest_room *spare; /* rooms of operations that ended */
    uint64_t seed;
};

struct guest_op {
    struct ash_list link;
    bool reads;
    unsigned id;
    uint64_t offset;
    uint64_t bytes;
    struct guest_room *room;
    uint64_t *beside; /* in room. Writes: what ran beside it. Reads: what may be seen */
    bool *busy;       /* in room. Reads: a write was under way */
};

void guest_model_init(struct guest_model *model, uint64_t bytes);
void guest_model_free(struct guest_model *model);

/* A new length; what appears is zero. */
void guest_model_resize(struct guest_model *model, uint64_t bytes);

/* The byte that write `id` puts there. */
uint8_t guest_byte(unsigned id, uint64_t offset);
void guest_fill(unsigned id, uint64_t offset, uint8_t *buffer, uint64_t bytes);

void guest_write_begin(struct guest_model *model, struct guest_op *op, unsigned id, uint64_t offset,
                       uint64_t bytes);
/* sure: it was carried out. Otherwise (it failed, or was a discard) it may have been, in part. */
void guest_write_end(struct guest_model *model, struct guest_op *op, bool sure);

void guest_read_begin(struct guest_model *model, struct guest_op *op, uint64_t offset,
                      uint64_t bytes);
/* NULL: the read failed. Returns the offset of the first byte that cannot be, or -1. */
int64_t guest_read_end(struct guest_model *model, struct guest_op *op, const uint8_t *buffer);

#endif
