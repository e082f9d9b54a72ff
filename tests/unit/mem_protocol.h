/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* test-mem: a protocol in memory for tests of the request path. Its options are its limits; it
 * counts requests that do not keep them, takes time before and after it looks at its memory, and so
 * shows what runs beside what. */
#ifndef ASH_TESTS_MEM_PROTOCOL_H
#define ASH_TESTS_MEM_PROTOCOL_H

#include "block/driver.h"
#include "util/prng.h"

#define MEM_LOCKS_MAX 64

struct mem_protocol {
    /* Options. */
    uint64_t size_bytes;
    uint64_t request_alignment;
    uint64_t memory_alignment;
    uint64_t iov_max;
    uint64_t transfer_max;
    uint64_t zero_alignment;
    uint64_t zero_max;
    uint64_t discard_alignment;
    uint64_t discard_max;
    uint64_t delay_ns;
    uint64_t seed;
    bool no_zero; /* zero is -ENOTSUP */

    uint8_t *data;
    uint64_t capacity; /* of data: the size up to whole blocks */
    struct ash_prng prng;
    unsigned violations; /* requests beyond the limits */
    unsigned count[ASH_OP_COUNT];
    unsigned running;
    unsigned running_max;
    unsigned discard_bytes;

    /* Locks and reopening. */
    struct {
        uint32_t needs;
        uint32_t allows;
    } locks[MEM_LOCKS_MAX]; /* as called */
    unsigned lock_count;
    unsigned prepared;
    unsigned committed;
    unsigned aborted;
    bool fail_lock; /* the next one */
    bool fail_reopen;
    bool fail_resize;

    int fail; /* returned by what is asked next, once; 0: nothing */
};

static inline struct mem_protocol *mem_protocol_of(const struct ash_node *node)
{
    return node->state;
}

#endif
