/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What one place may hold: all that was put there, with when each was asked for and when it ended.
 *
 * Requests run side by side, so a place has no order but what their beginnings and ends tell: one
 * that ended before another began came before it, and of two that overlapped either may be last.
 *
 *  1. Something is *hidden* from a reader by what surely replaced it: begun after it had ended, and
 *     ended before the reader began.
 *  2. A cut leaves what is not hidden by something *durable*: covered by a flush that began after
 *     it had ended, or stable by itself.
 *  3. Whoever has seen a value has put the places in order: seeing is an entry as writing is. It is
 *     as durable as a write if what was seen had been acknowledged.
 *  4. Times are ticks of one counter, and no two begin at the same. */
#ifndef ASH_TESTS_SIM_HISTORY_H
#define ASH_TESTS_SIM_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

#define HISTORY_NEVER UINT64_MAX
#define HISTORY_VALUES_MAX 64

struct history_entry {
    uint64_t value;
    uint64_t other; /* what it may be as well, where a buffer was changed while it was written */
    uint64_t begin;
    uint64_t end; /* HISTORY_NEVER: under way */
    bool sure;    /* replaced all that was there */
    bool acked;   /* ended well */
    bool durable;
};

struct history {
    struct history_entry *entries;
    uint32_t count;
    uint32_t room;
};

enum history_outcome {
    HISTORY_DONE,   /* it is there */
    HISTORY_MAYBE,  /* it ended well, and promised nothing */
    HISTORY_FAILED, /* it may be there */
};

void history_init(struct history *history, uint64_t value);
void history_copy(struct history *to, const struct history *from);
void history_free(struct history *history);

/* Something begins; `forget_before`: no reader that began earlier is under way. */
void history_begin(struct history *history, uint64_t value, uint64_t tick, uint64_t forget_before);
/* The one that began at `begin`. */
void history_set_other(struct history *history, uint64_t begin, uint64_t other);
void history_end(struct history *history, uint64_t begin, uint64_t tick,
                 enum history_outcome outcome, bool durable);

/* A flush that began then has ended well. */
void history_flushed(struct history *history, uint64_t begin);

/* What a reader that began then may find; HISTORY_NEVER: nothing is under way any more. Returns how
 * many values. */
uint32_t history_values(const struct history *history, uint64_t begin,
                        uint64_t values[static HISTORY_VALUES_MAX]);
/* What a cut may leave. */
uint32_t history_survivors(const struct history *history,
                           uint64_t values[static HISTORY_VALUES_MAX]);

/* A reader found this value between the two ticks. */
void history_seen(struct history *history, uint64_t value, uint64_t begin, uint64_t end);

/* This is it, and durable: nothing is under way. */
void history_settle(struct history *history, uint64_t value);

#endif
