/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Memory that the host told of.
 *
 * The loop keeps the regions, so that numbers and errors are the same with every engine; an engine
 * that can make use of memory is told.
 *
 * 1. Regions do not overlap.
 * 2. What an engine refuses is a region all the same, which it is not asked to forget. */
#include <ashlar/memory.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include "util/loop/private.h"

struct region {
    struct ash_list link;
    uint32_t id;
    void *base;
    size_t bytes;
    bool known; /* to the engine */
};

static bool overlaps(const struct ash_loop_private *private, uintptr_t base, size_t bytes)
{
    ash_list_for_each (region, &private->memory, struct region, link) {
        uintptr_t start = (uintptr_t)region->base;
        if (base < start + region->bytes && start < base + bytes) {
            return true;
        }
    }
    return false;
}

ASH_PUBLIC int ash_memory_add(struct ash_loop *loop, void *base, size_t bytes, uint32_t flags,
                              uint32_t *id)
{
    struct ash_loop_private *private = ash_loop_private(loop);
    ash_loop_assert_owner(loop);
    if (base == NULL || bytes == 0 || bytes > UINTPTR_MAX - (uintptr_t)base || flags != 0) {
        return -EINVAL;
    }
    if (overlaps(private, (uintptr_t)base, bytes)) {
        return -EEXIST;
    }
    struct region *region = calloc(1, sizeof(*region));
    if (region == NULL) {
        return -ENOMEM;
    }
    region->id = ++private->memory_last_id;
    region->base = base;
    region->bytes = bytes;
    if (loop->engine->ops->memory_add != NULL) {
        int ret = loop->engine->ops->memory_add(loop->engine, base, bytes);
        region->known = ret == 0;
        if (ret < 0) {
            ash_log(loop, ASH_LOG_INFO,
                    "%zu bytes of memory are not registered with the kernel (error %d)", bytes,
                    -ret);
        }
    }
    ash_list_push_back(&private->memory, &region->link);
    *id = region->id;
    return 0;
}

static void forget(struct ash_loop *loop, struct region *region)
{
    if (region->known) {
        loop->engine->ops->memory_remove(loop->engine, region->base, region->bytes);
    }
    ash_list_remove(&region->link);
    free(region);
}

ASH_PUBLIC int ash_memory_remove(struct ash_loop *loop, uint32_t id)
{
    ash_loop_assert_owner(loop);
    ash_list_for_each (region, &ash_loop_private(loop)->memory, struct region, link) {
        if (region->id == id) {
            forget(loop, region);
            return 0;
        }
    }
    return -ENOENT;
}

void ash_memory_forget_all(struct ash_loop *loop)
{
    ash_list_for_each_safe (region, &ash_loop_private(loop)->memory, struct region, link) {
        forget(loop, region);
    }
}
