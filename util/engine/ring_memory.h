/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory registered with a ring: the kernel keeps its pages at hand, and does not look them up for
 * each request. Used on the thread that enabled the ring. */
#ifndef ASH_UTIL_ENGINE_RING_MEMORY_H
#define ASH_UTIL_ENGINE_RING_MEMORY_H

#include <stdbool.h>
#include <stdint.h>
#include "util/engine/ring.h"

#define ASH_RING_MEMORY_SLOTS 256

struct ash_ring_memory {
    bool made; /* the kernel has the table */
    uint32_t used;
    uint32_t last; /* the slot that was found last, to be tried first */
    struct {
        uintptr_t base;
        uint64_t bytes; /* 0: free */
    } slot[ASH_RING_MEMORY_SLOTS];
};

/* All of it or nothing: 0, -ENOSPC when the table is full, or what the kernel says. */
int ash_ring_memory_add(struct ash_ring *ring, struct ash_ring_memory *memory, void *base,
                        uint64_t bytes);
/* What was added. Requests in flight keep what they use. */
void ash_ring_memory_remove(struct ash_ring *ring, struct ash_ring_memory *memory, void *base,
                            uint64_t bytes);

/* The slot that holds the whole range, or -1. */
int ash_ring_memory_find(struct ash_ring_memory *memory, const void *base, uint64_t bytes);

#endif
