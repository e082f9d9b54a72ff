/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A sanitizer tells of each allocation. Without one, this file is the program's malloc(): it
 * counts, and glibc's does the work. */
#include "tests/malformed/memory.h"
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

static int64_t bytes_live, bytes_max, bytes_begin;
static int64_t limit = INT64_MAX;
static void (*limit_beyond)(size_t bytes);

static void raised(size_t bytes, size_t asked)
{
    int64_t live = __atomic_add_fetch(&bytes_live, (int64_t)bytes, __ATOMIC_RELAXED);
    if (live > __atomic_load_n(&bytes_max, __ATOMIC_RELAXED)) {
        __atomic_store_n(&bytes_max, live, __ATOMIC_RELAXED);
    }
    if (limit_beyond != NULL && live - bytes_begin > limit) {
        void (*beyond)(size_t) = limit_beyond;
        limit_beyond = NULL;
        beyond(asked);
    }
}

static void lowered(size_t bytes)
{
    __atomic_sub_fetch(&bytes_live, (int64_t)bytes, __ATOMIC_RELAXED);
}

int64_t memory_bytes(void)
{
    return __atomic_load_n(&bytes_live, __ATOMIC_RELAXED) - bytes_begin;
}

int64_t memory_bytes_max(void)
{
    return __atomic_load_n(&bytes_max, __ATOMIC_RELAXED) - bytes_begin;
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

#ifdef SANITIZED

int __sanitizer_install_malloc_and_free_hooks(void (*allocated)(const volatile void *, size_t),
                                              void (*freed)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *);

/* What was freed is kept back until this much of it has come together: more than an image takes,
 * and little enough to stay in the processor's caches. */
__attribute__((visibility("default"))) const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=1";
}

static void on_malloc(const volatile void *memory, size_t bytes)
{
    if (memory != NULL) {
        raised(__sanitizer_get_allocated_size(memory), bytes);
    }
}

static void on_free(const volatile void *memory)
{
    if (memory != NULL) {
        lowered(__sanitizer_get_allocated_size(memory));
    }
}

static void install(void)
{
    static int installed;
    if (!installed) {
        installed = __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    }
}

#else

/* GLib's calls lead here as well. */
#pragma GCC visibility push(default)

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *memory);

static void *counted(void *memory, size_t asked)
{
    if (memory != NULL) {
        raised(malloc_usable_size(memory), asked);
    }
    return memory;
}

void *malloc(size_t bytes)
{
    return counted(__libc_malloc(bytes), bytes);
}

void *calloc(size_t count, size_t bytes)
{
    return counted(__libc_calloc(count, bytes), count * bytes);
}

void *realloc(void *memory, size_t bytes)
{
    size_t old = memory != NULL ? malloc_usable_size(memory) : 0;
    void *result = __libc_realloc(memory, bytes);
    if (result != NULL || bytes == 0) {
        lowered(old);
    }
    return counted(result, bytes);
}

void *memalign(size_t alignment, size_t bytes)
{
    return counted(__libc_memalign(alignment, bytes), bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    void *result = memalign(alignment, bytes);
    if (result == NULL) {
        return ENOMEM;
    }
    *memory = result;
    return 0;
}

void free(void *memory)
{
    if (memory != NULL) {
        lowered(malloc_usable_size(memory));
        __libc_free(memory);
    }
}

#pragma GCC visibility pop

static void install(void)
{
}

#endif

void memory_begin(void)
{
    install();
    bytes_begin = __atomic_load_n(&bytes_live, __ATOMIC_RELAXED);
    bytes_max = bytes_begin;
}

void memory_limit(int64_t bytes, void (*beyond)(size_t bytes))
{
    limit = bytes;
    limit_beyond = beyond;
}
