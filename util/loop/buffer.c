/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Data buffers: the host's memory if it gives some, else the C library's. Image-sized, so running
 * out is an error that callers return and never an abort.
 *
 * Those of KEPT_BYTES_MIN to KEPT_BYTES_MAX have a power of two for a size, whatever was asked for,
 * so that one that is kept will do for many. What is not touched of them takes no memory. */
#include <stdlib.h>
#include "util/assert.h"
#include "util/co/checkers.h"
#include "util/loop/loop.h"

enum { ALIGNMENT_MIN = 16, ALIGNMENT_KEPT = 4096 };

#define KEPT_BYTES_MIN (64 * KiB)
#define KEPT_BYTES_MAX (2 * MiB)

#if defined(ASH_CO_ASAN)
#define POISON(memory, bytes) ASAN_POISON_MEMORY_REGION(memory, bytes)
#define UNPOISON(memory, bytes) ASAN_UNPOISON_MEMORY_REGION(memory, bytes)
#else
#define POISON(memory, bytes) ((void)(memory), (void)(bytes))
#define UNPOISON(memory, bytes) ((void)(memory), (void)(bytes))
#endif

static bool of_kept_size(size_t bytes)
{
    return bytes >= KEPT_BYTES_MIN && bytes <= KEPT_BYTES_MAX;
}

static size_t kept_size(size_t bytes)
{
    size_t size = KEPT_BYTES_MIN;
    while (size < bytes) {
        size *= 2;
    }
    return size;
}

/* One of that size that is kept; NULL: none. The last one first: it may still be in a cache. */
static void *take_kept(struct ash_buffers *buffers, size_t bytes)
{
    for (uint32_t i = buffers->count; i-- > 0;) {
        if (buffers->kept[i].bytes == bytes) {
            void *memory = buffers->kept[i].memory;
            buffers->count--;
            for (; i < buffers->count; i++) {
                buffers->kept[i] = buffers->kept[i + 1];
            }
            UNPOISON(memory, bytes);
            return memory;
        }
    }
    return NULL;
}

static bool keep(struct ash_buffers *buffers, void *memory, size_t bytes)
{
    if (buffers->keepers == 0 || buffers->count == ASH_BUFFERS_KEPT_MAX) {
        return false;
    }
    buffers->kept[buffers->count].memory = memory;
    buffers->kept[buffers->count].bytes = bytes;
    buffers->count++;
    POISON(memory, bytes);
    return true;
}

void ash_buffers_keep(struct ash_loop *loop)
{
    ash_loop_assert_owner(loop);
    loop->buffers.keepers++;
}

void ash_buffers_unkeep(struct ash_loop *loop)
{
    struct ash_buffers *buffers = &loop->buffers;
    ash_loop_assert_owner(loop);
    ash_assert(buffers->keepers > 0);
    buffers->keepers--;
    while (buffers->keepers == 0 && buffers->count > 0) {
        buffers->count--;
        UNPOISON(buffers->kept[buffers->count].memory, buffers->kept[buffers->count].bytes);
        free(buffers->kept[buffers->count].memory);
    }
}

static void *library_alloc(struct ash_loop *loop, size_t bytes, size_t alignment)
{
    void *memory = NULL;
    if (of_kept_size(bytes)) {
        bytes = kept_size(bytes);
        memory = alignment <= ALIGNMENT_KEPT ? take_kept(&loop->buffers, bytes) : NULL;
        alignment = alignment < ALIGNMENT_KEPT ? ALIGNMENT_KEPT : alignment;
    }
    return memory != NULL || posix_memalign(&memory, alignment, bytes) == 0 ? memory : NULL;
}

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
    return library_alloc(loop, bytes, alignment);
}

void ash_buffer_free(struct ash_loop *loop, void *buffer, size_t bytes)
{
    if (buffer == NULL) {
        return;
    }
    if (loop->hooks.free != NULL) {
        loop->hooks.free(loop->hooks.opaque, buffer, bytes);
    } else if (!of_kept_size(bytes) || !keep(&loop->buffers, buffer, kept_size(bytes))) {
        free(buffer);
    }
}
