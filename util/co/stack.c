/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Stacks: mapped memory with a guard page below. From the low end:
 *
 *     guard page | usable bytes | struct ash_co | colour
 *
 * The part above the usable bytes takes a page (more if struct ash_co is larger), so that the
 * usable bytes are all that was asked for. Stacks that lie at multiples of a page from one another
 * would compete for the same few lines of the first-level cache; the colour moves each top by some
 * lines.
 *
 * 1. A stack that grows past its end hits the guard page and ends the process; it never reaches
 *    other memory (frames larger than a page are probed: -fstack-clash-protection).
 * 2. Memory of a stack is touched only by the coroutine that needs it. */
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#include "util/assert.h"
#include "util/co/checkers.h"
#include "util/co/private.h"
#include "util/range.h"

#define COLOURS 16
#define COLOUR_BYTES 192 /* three lines of cache */

struct ash_co *ash_co_stack_new(size_t stack_bytes, unsigned colour)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t colour_bytes = colour % COLOURS * COLOUR_BYTES;
    size_t top_bytes = ash_align_up(COLOURS * COLOUR_BYTES + sizeof(struct ash_co), page_bytes);
    size_t mapping_bytes = page_bytes + ash_align_up(stack_bytes, page_bytes) + top_bytes;

    void *mapping = mmap(NULL, mapping_bytes, PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) {
        return NULL;
    }
    char *low = (char *)mapping + page_bytes;
    if (mprotect(low, mapping_bytes - page_bytes, PROT_READ | PROT_WRITE) != 0) {
        munmap(mapping, mapping_bytes);
        return NULL;
    }

    uintptr_t at = (uintptr_t)mapping + mapping_bytes - colour_bytes - sizeof(struct ash_co);
    struct ash_co *co = (struct ash_co *)ash_align_down(at, 64);
    *co = (struct ash_co){
        .stack = low,
        .stack_bytes = (size_t)((char *)co - low),
        .mapping = mapping,
        .mapping_bytes = mapping_bytes,
    };
    ash_assert(co->stack_bytes >= stack_bytes);
    check_stack_new(co);
    return co;
}

void ash_co_stack_free(struct ash_co *co)
{
    check_stack_free(co);
    munmap(co->mapping, co->mapping_bytes);
}
