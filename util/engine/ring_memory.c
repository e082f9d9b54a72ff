/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory registered with a ring.
 *
 * 1. The kernel takes at most 1 GiB in a slot, so a region may take several, in pieces one after
 *    another; what crosses from one to the next is not found.
 * 2. A slot is free in the table here before the kernel is told: no request is prepared with a slot
 * that goes. One that was prepared and not sent gets -EFAULT, and is carried out without it. */
#include "util/engine/ring_memory.h"

#include <errno.h>
#include "util/compiler.h"

#define PIECE_BYTES_MAX (UINT64_C(1) << 30)

/* Empties (NULL) or fills a slot in the kernel. */
static int update(struct ash_ring *ring, uint32_t slot, void *base, uint64_t bytes)
{
    struct iovec vec = {base, bytes};
    __u64 tag = 0;
    int ret = io_uring_register_buffers_update_tag(&ring->ring, slot, &vec, &tag, 1);

    return ret < 0 ? ret : 0;
}

static int free_slot(const struct ash_ring_memory *memory)
{
    for (int i = 0; i < ASH_RING_MEMORY_SLOTS; i++) {
        if (memory->slot[i].bytes == 0) {
            return i;
        }
    }
    return -ENOSPC;
}

static int add_piece(struct ash_ring *ring, struct ash_ring_memory *memory, uint8_t *base,
                     uint64_t bytes)
{
    int slot = free_slot(memory);
    int ret;

    if (slot < 0) {
        return slot;
    }
    ret = update(ring, (uint32_t)slot, base, bytes);
    if (ret == 0) {
        memory->slot[slot].base = (uintptr_t)base;
        memory->slot[slot].bytes = bytes;
        memory->used++;
    }
    return ret;
}

int ash_ring_memory_add(struct ash_ring *ring, struct ash_ring_memory *memory, void *base,
                        uint64_t bytes)
{
    uint64_t done = 0;
    int ret = 0;

    if (!memory->made) {
        ret = io_uring_register_buffers_sparse(&ring->ring, ASH_RING_MEMORY_SLOTS);
        memory->made = ret == 0;
    }
    while (ret == 0 && done < bytes) {
        uint64_t piece = ASH_MIN(PIECE_BYTES_MAX, bytes - done);
        ret = add_piece(ring, memory, (uint8_t *)base + done, piece);
        done += ret == 0 ? piece : 0;
    }
    if (ret < 0) {
        ash_ring_memory_remove(ring, memory, base, done);
    }
    return ret;
}

void ash_ring_memory_remove(struct ash_ring *ring, struct ash_ring_memory *memory, void *base,
                            uint64_t bytes)
{
    uintptr_t start = (uintptr_t)base;

    for (uint32_t i = 0; i < ASH_RING_MEMORY_SLOTS; i++) {
        if (memory->slot[i].bytes != 0 && memory->slot[i].base >= start &&
            memory->slot[i].base - start < bytes) {
            memory->slot[i].bytes = 0;
            memory->used--;
            update(ring, i, NULL, 0);
        }
    }
}

static bool holds(const struct ash_ring_memory *memory, uint32_t slot, uintptr_t base,
                  uint64_t bytes)
{
    uint64_t into = base - memory->slot[slot].base;

    return base >= memory->slot[slot].base && into < memory->slot[slot].bytes &&
           bytes <= memory->slot[slot].bytes - into;
}

int ash_ring_memory_find(struct ash_ring_memory *memory, const void *base, uint64_t bytes)
{
    if (ash_likely(memory->used == 0)) {
        return -1;
    }
    if (holds(memory, memory->last, (uintptr_t)base, bytes)) {
        return (int)memory->last;
    }
    for (uint32_t i = 0; i < ASH_RING_MEMORY_SLOTS; i++) {
        if (holds(memory, i, (uintptr_t)base, bytes)) {
            memory->last = i;
            return (int)i;
        }
    }
    return -1;
}
