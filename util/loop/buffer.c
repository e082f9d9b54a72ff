/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Data buffers: the host's memory if it gives some, else the C library's. Image-sized, so running
 * out is an error that callers return and never an abort. */
#include <stdlib.h>
#include "util/assert.h"
#include "util/loop/loop.h"

enum { ALIGNMENT_MIN = 16 };

void *ash_buffer_alloc(struct ash_loop *loop, size_t bytes, size_t alignment)
{
    ash_assert(alignment >= ALIGNMENT_MIN);
    ash_assert((alignment & (alignment - 1)) == 0);
    ash_assert(bytes > 0);
    if (loop->hooks.alloc != NULL) {
        void *memory = loop->hooks.alloc(loop->hooks.opaque, bytes, alignment);
        if (((uintptr_t)memory & (alignment - 1)) != 0) {
            ash_log(loop, ASH_LOG_ERROR, "the host's alloc hook did not align to %zu bytes",
                    alignment);
            loop->hooks.free(loop->hooks.opaque, memory, bytes);
            return NULL;
        }
        return memory;
    }
    void *memory;
    return posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

void ash_buffer_free(struct ash_loop *loop, void *buffer, size_t bytes)
{
    if (buffer == NULL) {
        return;
    }
    if (loop->hooks.free != NULL) {
        loop->hooks.free(loop->hooks.opaque, buffer, bytes);
    } else {
        free(buffer);
    }
}
