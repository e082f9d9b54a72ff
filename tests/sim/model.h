/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a disk may hold while many use it at once, and after its power was cut.
 *
 * The disk is a sequence of segments, each with a history of its own (history.h): segments are cut
 * where requests begin and end, so the cost goes with the requests and not with the bytes. The
 * length of the disk has a history too.
 *
 *  1. A sector (of tear_bytes) may be another value's than its neighbour, where a segment may hold
 *     several; within a sector it is one value's.
 *  2. Requests are told apart by when they began, so one model_op is one request. */
#ifndef ASH_TESTS_SIM_MODEL_H
#define ASH_TESTS_SIM_MODEL_H

#include "tests/sim/history.h"
#include "util/list.h"

struct model_segment {
    uint64_t offset; /* it reaches to the next one's */
    struct history history;
};

struct model {
    struct model_segment *segments; /* the last one is the end: its history is never used */
    uint32_t count;
    uint32_t room;
    uint64_t bytes; /* the length that requests see now */
    uint64_t bytes_max;
    struct history length;
    uint64_t tick;
    uint64_t next_value;
    uint32_t tear_bytes;
    struct ash_list readers; /* of struct model_op */
    char wrong[240];
};

struct model_op {
    struct ash_list link; /* of reads */
    uint64_t begin;
    uint64_t offset;
    uint64_t bytes;
};

/* All zeroes. */
void model_init(struct model *model, uint64_t bytes, uint64_t bytes_max, uint32_t tear_bytes);
void model_free(struct model *model);

/* What was the disk is now the backing file of a new, empty one. Nothing is under way. */
void model_overlay(struct model *model, uint64_t bytes);

uint64_t model_new_value(struct model *model);

/* A write of a value, or of zeroes (0). `other`: a part may be this value as well. */
void model_write_begin(struct model *model, struct model_op *op, uint64_t offset, uint64_t bytes,
                       uint64_t value);
void model_write_other(struct model *model, const struct model_op *op, uint64_t offset,
                       uint64_t bytes, uint64_t other);
void model_write_end(struct model *model, const struct model_op *op, enum history_outcome outcome,
                     bool durable);

/* A read. end: what is wrong with what was read, or NULL; valid until the next call. Without a
 * buffer the read failed. */
void model_read_begin(struct model *model, struct model_op *op, uint64_t offset, uint64_t bytes);
const char *model_read_end(struct model *model, struct model_op *op, const void *buffer);

void model_flush_begin(struct model *model, struct model_op *op);
void model_flush_end(struct model *model, const struct model_op *op, bool good);

/* A change of the length; `now`: what it is afterwards, whatever the outcome. */
void model_resize_begin(struct model *model, struct model_op *op, uint64_t bytes);
void model_resize_end(struct model *model, struct model_op *op, enum history_outcome outcome,
                      uint64_t now, bool durable);

/* What a place may hold for a reader that began then, and that ends now; and up to where that is
 * so. Returns how many values. */
uint32_t model_values(const struct model *model, uint64_t offset, uint64_t begin,
                      uint64_t values[static HISTORY_VALUES_MAX], uint64_t *end);
/* Whether the bytes are of these values: NULL or what is wrong. */
const char *model_match(struct model *model, uint64_t offset, const void *bytes, uint64_t count,
                        const uint64_t *values, uint32_t value_count);

/* After a cut: the length first, then the contents. What is found is what the model begins with
 * from now on. NULL or what is wrong. */
const char *model_settle_length(struct model *model, uint64_t bytes);
const char *model_settle(struct model *model, uint64_t offset, const void *buffer, uint64_t bytes);

#endif
