/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* iovec arrays of IOV_MAX elements for requests in flight, kept for the next ones. */
#ifndef ASH_UTIL_ENGINE_IOV_POOL_H
#define ASH_UTIL_ENGINE_IOV_POOL_H

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/uio.h>

/* Beyond these, arrays go back to the heap: 1 MiB of addresses, of which only what was used takes
 * memory. */
#define ASH_IOV_POOL_IDLE_MAX 64

union ash_iov_array {
    union ash_iov_array *next; /* while idle */
    struct iovec vec[IOV_MAX];
};

struct ash_iov_pool {
    union ash_iov_array *idle;
    uint32_t idle_count;
};

/* NULL: out of memory. */
static inline struct iovec *ash_iov_pool_get(struct ash_iov_pool *pool)
{
    union ash_iov_array *array = pool->idle;

    if (!array) {
        array = malloc(sizeof(*array));
        return array ? array->vec : NULL;
    }
    pool->idle = array->next;
    pool->idle_count--;
    return array->vec;
}

static inline void ash_iov_pool_put(struct ash_iov_pool *pool, void *vec)
{
    union ash_iov_array *array = vec;

    if (pool->idle_count >= ASH_IOV_POOL_IDLE_MAX) {
        free(array);
        return;
    }
    array->next = pool->idle;
    pool->idle = array;
    pool->idle_count++;
}

static inline void ash_iov_pool_destroy(struct ash_iov_pool *pool)
{
    while (pool->idle) {
        union ash_iov_array *array = pool->idle;
        pool->idle = array->next;
        free(array);
    }
}

#endif
