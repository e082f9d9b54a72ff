/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/history.h"
#include <glib.h>
#include <string.h>
#include "util/assert.h"

enum { CROWDED = 10 }; /* entries from which on it is worth looking for some to forget */

void history_init(struct history *history, uint64_t value)
{
    *history = (struct history){.entries = g_new(struct history_entry, 2), .room = 2};
    history_settle(history, value);
}

void history_copy(struct history *to, const struct history *from)
{
    *to = *from;
    to->entries = g_new(struct history_entry, from->room);
    memcpy(to->entries, from->entries, from->count * sizeof(*to->entries));
}

void history_free(struct history *history)
{
    g_free(history->entries);
}

static struct history_entry *append(struct history *history)
{
    if (history->count == history->room) {
        history->room *= 2;
        history->entries = g_renew(struct history_entry, history->entries, history->room);
    }
    return &history->entries[history->count++];
}

static struct history_entry *find(struct history *history, uint64_t begin)
{
    for (uint32_t i = history->count; i-- > 0;) {
        if (history->entries[i].begin == begin) {
            return &history->entries[i];
        }
    }
    ash_assert(false);
    return NULL;
}

/* Whether no reader that begins at `begin` finds the entry. */
static bool hidden(const struct history *history, const struct history_entry *entry, uint64_t begin)
{
    for (uint32_t i = 0; i < history->count; i++) {
        const struct history_entry *later = &history->entries[i];
        if (later->sure && later->begin > entry->end && later->end < begin) {
            return true;
        }
    }
    return false;
}

static bool lost_for_good(const struct history *history, const struct history_entry *entry)
{
    for (uint32_t i = 0; i < history->count; i++) {
        const struct history_entry *later = &history->entries[i];
        if (later->sure && later->durable && later->begin > entry->end) {
            return true;
        }
    }
    return false;
}

static void forget(struct history *history, uint64_t before)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < history->count; i++) {
        const struct history_entry *entry = &history->entries[i];
        bool useless = lost_for_good(history, entry) && hidden(history, entry, before);
        if (!useless) {
            history->entries[kept++] = *entry;
        }
    }
    history->count = kept;
}

void history_begin(struct history *history, uint64_t value, uint64_t tick, uint64_t forget_before)
{
    if (history->count >= CROWDED) {
        forget(history, forget_before);
    }
    *append(history) =
        (struct history_entry){.value = value, .other = value, .begin = tick, .end = HISTORY_NEVER};
}

void history_set_other(struct history *history, uint64_t begin, uint64_t other)
{
    find(history, begin)->other = other;
}

void history_end(struct history *history, uint64_t begin, uint64_t tick,
                 enum history_outcome outcome, bool durable)
{
    struct history_entry *entry = find(history, begin);
    entry->end = tick;
    entry->sure = outcome == HISTORY_DONE;
    entry->acked = outcome != HISTORY_FAILED;
    entry->durable = durable && entry->acked;
}

void history_flushed(struct history *history, uint64_t begin)
{
    for (uint32_t i = 0; i < history->count; i++) {
        struct history_entry *entry = &history->entries[i];
        entry->durable |= entry->acked && entry->end < begin;
    }
}

static void add_value(uint64_t *values, uint32_t *count, uint64_t value)
{
    for (uint32_t i = 0; i < *count; i++) {
        if (values[i] == value) {
            return;
        }
    }
    ash_assert(*count < HISTORY_VALUES_MAX);
    values[(*count)++] = value;
}

uint32_t history_values(const struct history *history, uint64_t begin,
                        uint64_t values[static HISTORY_VALUES_MAX])
{
    uint32_t count = 0;
    for (uint32_t i = history->count; i-- > 0;) {
        const struct history_entry *entry = &history->entries[i];
        if (history->count == 1 || !hidden(history, entry, begin)) {
            add_value(values, &count, entry->value);
            add_value(values, &count, entry->other);
        }
    }
    return count;
}

uint32_t history_survivors(const struct history *history,
                           uint64_t values[static HISTORY_VALUES_MAX])
{
    uint32_t count = 0;
    for (uint32_t i = history->count; i-- > 0;) {
        const struct history_entry *entry = &history->entries[i];
        if (!lost_for_good(history, entry)) {
            add_value(values, &count, entry->value);
            add_value(values, &count, entry->other);
        }
    }
    return count;
}

void history_seen(struct history *history, uint64_t value, uint64_t begin, uint64_t end)
{
    bool acked = true; /* whichever it was of those that it can have been: zeroes are all alike */
    for (uint32_t i = 0; i < history->count; i++) {
        const struct history_entry *entry = &history->entries[i];
        if ((entry->value == value || entry->other == value) && !hidden(history, entry, begin)) {
            acked &= entry->acked && entry->end < begin;
        }
    }
    *append(history) = (struct history_entry){
        .value = value, .other = value, .begin = begin, .end = end, .sure = true, .acked = acked};
}

void history_settle(struct history *history, uint64_t value)
{
    history->count = 1;
    history->entries[0] = (struct history_entry){
        .value = value, .other = value, .sure = true, .acked = true, .durable = true};
}
