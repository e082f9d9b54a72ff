/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/model.h"
#include <glib.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "tests/sim/stamp.h"
#include "util/assert.h"

void model_init(struct model *model, uint64_t bytes, uint64_t bytes_max, uint32_t tear_bytes)
{
    *model = (struct model){
        .bytes = bytes, .bytes_max = bytes_max, .tear_bytes = tear_bytes, .room = 16};
    model->segments = g_new0(struct model_segment, model->room);
    history_init(&model->segments[0].history, 0);
    model->segments[1].offset = bytes_max;
    model->count = 2;
    history_init(&model->length, bytes);
    ash_list_init(&model->readers);
}

void model_free(struct model *model)
{
    for (uint32_t i = 0; i + 1 < model->count; i++) {
        history_free(&model->segments[i].history);
    }
    g_free(model->segments);
    history_free(&model->length);
}

uint64_t model_new_value(struct model *model)
{
    return ++model->next_value;
}

/* The segment that holds the offset. */
static uint32_t find(const struct model *model, uint64_t offset)
{
    uint32_t low = 0;
    uint32_t high = model->count - 1;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (model->segments[middle].offset <= offset) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The segment that begins at the offset; makes one if there is none. */
static uint32_t split(struct model *model, uint64_t offset)
{
    ash_assert(offset <= model->bytes_max);
    if (offset == model->bytes_max) {
        return model->count - 1;
    }
    uint32_t at = find(model, offset);
    if (model->segments[at].offset == offset) {
        return at;
    }
    if (model->count == model->room) {
        model->room *= 2;
        model->segments = g_renew(struct model_segment, model->segments, model->room);
    }
    struct model_segment *segment = &model->segments[at + 1];
    memmove(segment + 1, segment, (model->count - at - 1) * sizeof(*segment));
    model->count++;
    segment->offset = offset;
    history_copy(&segment->history, &model->segments[at].history);
    return at + 1;
}

/* The segments [*first, *end) are the range. */
static void cut_out(struct model *model, uint64_t offset, uint64_t bytes, uint32_t *first,
                    uint32_t *end)
{
    *first = split(model, offset);
    *end = split(model, offset + bytes);
}

/* One value, durable, in the range. */
static void settle_range(struct model *model, uint64_t offset, uint64_t bytes, uint64_t value)
{
    uint32_t first;
    uint32_t end;
    cut_out(model, offset, bytes, &first, &end);
    history_settle(&model->segments[first].history, value);
    for (uint32_t i = first + 1; i < end; i++) {
        history_free(&model->segments[i].history);
    }
    memmove(&model->segments[first + 1], &model->segments[end],
            (model->count - end) * sizeof(*model->segments));
    model->count -= end - first - 1;
}

void model_overlay(struct model *model, uint64_t bytes)
{
    uint64_t low = MIN(bytes, model->bytes);
    ash_assert(bytes <= model->bytes_max);
    if (low < model->bytes_max) {
        settle_range(model, low, model->bytes_max - low, 0);
    }
    model->bytes = bytes;
    history_settle(&model->length, bytes);
}

/* When the oldest read under way began. */
static uint64_t oldest_reader(const struct model *model)
{
    uint64_t oldest = HISTORY_NEVER;
    ash_list_for_each (op, &model->readers, struct model_op, link) {
        oldest = MIN(oldest, op->begin);
    }
    return oldest;
}

/* --- writes --- */

static void put(struct model *model, const struct model_op *op, uint64_t value)
{
    uint32_t first;
    uint32_t end;
    uint64_t oldest = oldest_reader(model);
    cut_out(model, op->offset, op->bytes, &first, &end);
    for (uint32_t i = first; i < end; i++) {
        history_begin(&model->segments[i].history, value, op->begin, oldest);
    }
}

static void put_end(struct model *model, const struct model_op *op, uint64_t tick,
                    enum history_outcome outcome, bool durable)
{
    uint32_t first;
    uint32_t end;
    cut_out(model, op->offset, op->bytes, &first, &end);
    for (uint32_t i = first; i < end; i++) {
        history_end(&model->segments[i].history, op->begin, tick, outcome, durable);
    }
}

void model_write_begin(struct model *model, struct model_op *op, uint64_t offset, uint64_t bytes,
                       uint64_t value)
{
    *op = (struct model_op){.begin = ++model->tick, .offset = offset, .bytes = bytes};
    put(model, op, value);
}

void model_write_other(struct model *model, const struct model_op *op, uint64_t offset,
                       uint64_t bytes, uint64_t other)
{
    uint32_t first;
    uint32_t end;
    cut_out(model, offset, bytes, &first, &end);
    for (uint32_t i = first; i < end; i++) {
        history_set_other(&model->segments[i].history, op->begin, other);
    }
}

void model_write_end(struct model *model, const struct model_op *op, enum history_outcome outcome,
                     bool durable)
{
    put_end(model, op, ++model->tick, outcome, durable);
}

/* --- looking at bytes --- */

/* A stretch that holds one value. */
struct found {
    uint64_t offset;
    uint64_t bytes;
    uint64_t value;
};

static void say_wrong(struct model *model, uint64_t offset, const uint8_t *bytes,
                      const uint64_t *values, uint32_t count)
{
    int used =
        snprintf(model->wrong, sizeof(model->wrong),
                 "at %" PRIu64 " are %02x%02x%02x%02x %02x%02x%02x%02x; may be", offset, bytes[0],
                 bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]);
    for (uint32_t i = 0; i < count && used < 150; i++) {
        used += snprintf(model->wrong + used, sizeof(model->wrong) - (size_t)used, " %" PRIu64,
                         values[i]);
    }
    /* Whose bytes they are, if anybody's. */
    for (uint64_t value = model->next_value + 1; value-- > 0;) {
        if (stamp_match(value, offset, bytes, 8) == 8) {
            snprintf(model->wrong + used, sizeof(model->wrong) - (size_t)used,
                     "; they are value %" PRIu64 "'s", value);
            return;
        }
    }
}

/* How far the stretch of one value reaches from `at` on: up to `bytes`, or to the end of a sector.
 * 0: it is none of them. */
static uint64_t stretch(const struct model *model, uint64_t offset, const uint8_t *at,
                        uint64_t bytes, const uint64_t *values, uint32_t count, uint64_t *value)
{
    uint64_t best = 0;
    for (uint32_t i = 0; i < count && best < bytes; i++) {
        uint64_t same = stamp_match(values[i], offset, at, bytes);
        if (same < bytes) {
            uint64_t end = offset + same;
            end -= end % model->tear_bytes;
            same = end > offset ? end - offset : 0;
        }
        if (same > best) {
            best = same;
            *value = values[i];
        }
    }
    return best;
}

/* Fills `found` with the stretches of one segment's part. false: something is wrong. */
static bool look(struct model *model, uint64_t offset, const uint8_t *at, uint64_t bytes,
                 const uint64_t *values, uint32_t count, GArray *found)
{
    while (bytes > 0) {
        struct found part = {.offset = offset};
        part.bytes = stretch(model, offset, at, bytes, values, count, &part.value);
        if (part.bytes == 0) {
            uint8_t sample[8] = {0};
            memcpy(sample, at, MIN(bytes, sizeof(sample)));
            say_wrong(model, offset, sample, values, count);
            return false;
        }
        g_array_append_val(found, part);
        offset += part.bytes;
        at += part.bytes;
        bytes -= part.bytes;
    }
    return true;
}

static uint64_t segment_end(const struct model *model, uint32_t index, uint64_t limit)
{
    return MIN(model->segments[index + 1].offset, limit);
}

/* --- reads --- */

void model_read_begin(struct model *model, struct model_op *op, uint64_t offset, uint64_t bytes)
{
    *op = (struct model_op){.begin = ++model->tick, .offset = offset, .bytes = bytes};
    ash_list_push_back(&model->readers, &op->link);
}

const char *model_read_end(struct model *model, struct model_op *op, const void *buffer)
{
    uint64_t tick = ++model->tick;
    uint64_t limit = op->offset + op->bytes;
    GArray *found = g_array_new(FALSE, FALSE, sizeof(struct found));
    bool good = true;
    ash_list_remove(&op->link);
    for (uint64_t at = op->offset; buffer != NULL && at < limit && good;) {
        uint64_t values[HISTORY_VALUES_MAX];
        uint32_t index = find(model, at);
        uint64_t end = segment_end(model, index, limit);
        uint32_t count = history_values(&model->segments[index].history, op->begin, values);
        guint before = found->len;
        good = look(model, at, (const uint8_t *)buffer + (at - op->offset), end - at, values, count,
                    found);
        if (count == 1) { /* nothing was learnt */
            g_array_set_size(found, before);
        }
        at = end;
    }
    for (guint i = 0; i < found->len; i++) {
        const struct found *part = &g_array_index(found, struct found, i);
        uint32_t first;
        uint32_t end;
        cut_out(model, part->offset, part->bytes, &first, &end);
        for (uint32_t s = first; s < end; s++) {
            history_seen(&model->segments[s].history, part->value, op->begin, tick);
        }
    }
    g_array_free(found, TRUE);
    return good ? NULL : model->wrong;
}

uint32_t model_values(const struct model *model, uint64_t offset, uint64_t begin,
                      uint64_t values[static HISTORY_VALUES_MAX], uint64_t *end)
{
    uint32_t index = find(model, offset);
    *end = model->segments[index + 1].offset;
    return history_values(&model->segments[index].history, begin, values);
}

const char *model_match(struct model *model, uint64_t offset, const void *bytes, uint64_t count,
                        const uint64_t *values, uint32_t value_count)
{
    GArray *found = g_array_new(FALSE, FALSE, sizeof(struct found));
    bool good = look(model, offset, bytes, count, values, value_count, found);
    g_array_free(found, TRUE);
    return good ? NULL : model->wrong;
}

/* --- flushes and lengths --- */

void model_flush_begin(struct model *model, struct model_op *op)
{
    *op = (struct model_op){.begin = ++model->tick};
}

void model_flush_end(struct model *model, const struct model_op *op, bool good)
{
    if (good) {
        for (uint32_t i = 0; i + 1 < model->count; i++) {
            history_flushed(&model->segments[i].history, op->begin);
        }
        history_flushed(&model->length, op->begin);
    }
}

void model_resize_begin(struct model *model, struct model_op *op, uint64_t bytes)
{
    uint64_t low = MIN(bytes, model->bytes);
    *op = (struct model_op){.begin = ++model->tick, .offset = low};
    op->bytes = MAX(bytes, model->bytes) - low;
    history_begin(&model->length, bytes, op->begin, HISTORY_NEVER);
    put(model, op, 0);
}

/* What a shrinking leaves behind of the last unit shows again after a cut, until what grew there is
 * flushed: so shrinking surely replaces nothing, and growing does. */
void model_resize_end(struct model *model, struct model_op *op, enum history_outcome outcome,
                      uint64_t now, bool durable)
{
    uint64_t tick = ++model->tick;
    bool grown = outcome == HISTORY_DONE && now > op->offset;
    history_end(&model->length, op->begin, tick, outcome, durable);
    put_end(model, op, tick, outcome == HISTORY_DONE && !grown ? HISTORY_MAYBE : outcome, false);
    model->bytes = now;
}

const char *model_settle_length(struct model *model, uint64_t bytes)
{
    uint64_t values[HISTORY_VALUES_MAX];
    uint32_t count = history_survivors(&model->length, values);
    for (uint32_t i = 0; i < count; i++) {
        if (values[i] == bytes) {
            model->bytes = bytes;
            history_settle(&model->length, bytes);
            return NULL;
        }
    }
    snprintf(model->wrong, sizeof(model->wrong), "it is %" PRIu64 " bytes long; was %" PRIu64,
             bytes, model->bytes);
    return model->wrong;
}

const char *model_settle(struct model *model, uint64_t offset, const void *buffer, uint64_t bytes)
{
    uint64_t limit = offset + bytes;
    GArray *found = g_array_new(FALSE, FALSE, sizeof(struct found));
    bool good = true;
    for (uint64_t at = offset; at < limit && good;) {
        uint64_t values[HISTORY_VALUES_MAX];
        uint32_t index = find(model, at);
        uint64_t end = segment_end(model, index, limit);
        uint32_t count = history_survivors(&model->segments[index].history, values);
        good = look(model, at, (const uint8_t *)buffer + (at - offset), end - at, values, count,
                    found);
        at = end;
    }
    for (guint i = 0; good && i < found->len;) {
        struct found part = g_array_index(found, struct found, i);
        for (i++; i < found->len && g_array_index(found, struct found, i).value == part.value;
             i++) {
            part.bytes += g_array_index(found, struct found, i).bytes;
        }
        settle_range(model, part.offset, part.bytes, part.value);
    }
    g_array_free(found, TRUE);
    return good ? NULL : model->wrong;
}
