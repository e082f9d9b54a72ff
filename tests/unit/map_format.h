/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test-map: a small mapped format for tests of the generic data path.
 *
 * Its map is an array in memory, written to the file when the image is closed. It waits for random
 * times inside its callbacks, answers in pieces of random length, and hands a freed place out again
 * as soon as no pin overlaps it, lowest first, so that whatever holds on to one too long or too
 * short meets another's data. */
#ifndef ASH_TESTS_MAP_FORMAT_H
#define ASH_TESTS_MAP_FORMAT_H

#include "block/driver.h"
#include "util/prng.h"

struct map_entry {
    uint8_t kind; /* enum ash_extent_kind */
    bool placed;  /* has a slot: data, coded, or a zero that keeps its place */
    bool shared;  /* must not be written in place */
    uint32_t coded_bytes;
    uint64_t slot;
    uint64_t linked; /* the number of the change that made it: stable once a flush covered it */
};

struct map_format {
    /* Options. */
    uint64_t delay_ns; /* longest wait inside a callback; 0: none */
    uint64_t seed;
    uint64_t slots_max; /* places in the file; 0: no bound */
    uint64_t commit_fails_per_mille;
    bool no_zero; /* zero is -ENOTSUP */

    uint64_t unit;
    struct map_entry *entries;
    uint64_t entry_count;
    bool *used; /* by slot */
    uint64_t slot_count;
    uint64_t changes;
    uint64_t changes_stable;
    struct ash_prng prng;
    struct ash_co_queue pin_waiters;

    /* What happened. */
    unsigned reused; /* slots handed out again */
    unsigned pinned; /* times that a free slot was not handed out because of a pin */
    unsigned waited; /* times that prepare waited for pins */
    unsigned lookups;
    unsigned flushes;
};

static inline struct map_format *map_format_of(const struct ash_node *node)
{
    return node->state;
}

/* Writes an empty image into a file of the simulator or of the host, with `write`. */
struct map_header {
    char magic[8];
    uint64_t bytes;
    uint64_t unit;
    uint64_t table_offset; /* 0: no entries */
    uint64_t slot_count;
    char backing[512];
    char backing_format[32];
};

void map_header_init(struct map_header *header, uint64_t bytes, uint64_t unit, const char *backing,
                     const char *backing_format);

/* From now on the units in the range must not be written where they are, as after a snapshot; but
 * not those that are read or written at the moment. */
void map_format_share(struct ash_node *node, uint64_t offset, uint64_t bytes);

#endif
