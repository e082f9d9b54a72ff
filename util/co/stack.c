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
 * To map a stack, to protect its guard page, to touch it for the first time and to unmap it is much
 * of what a short-lived loop costs. So what a scheduler lets go is kept for the next one, of
 * whichever thread, in `spare`: the one thing that loops share. It is asked only where a scheduler
 * has no idle stack of its own, and nobody ever waits for it: who finds it taken maps and unmaps.
 * So it also does no harm if the process forks while another thread is in here.
 *
 * 1. A stack that grows past its end hits the guard page and ends the process; it never reaches
 *    other memory (frames larger than a page are probed: -fstack-clash-protection).
 * 2. Memory of a stack is touched only by the coroutine that needs it.
 * 3. Spare stacks are of one size, are SPARE_MAX at most, and are poisoned for no checker. */
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>
#include "util/assert.h"
#include "util/co/checkers.h"
#include "util/co/private.h"
#include "util/range.h"

#define COLOURS 16
#define COLOUR_BYTES 192 /* three lines of cache */
#define SPARE_MAX 128

static struct {
    atomic_flag taken;
    uint32_t count;
    struct ash_co *first;
} spare = {.taken = ATOMIC_FLAG_INIT};

static bool take_spares(void)
{
    return !atomic_flag_test_and_set_explicit(&spare.taken, memory_order_acquire);
}

static void release_spares(void)
{
    atomic_flag_clear_explicit(&spare.taken, memory_order_release);
}

/* The one that was kept last, which is the likeliest to be in the processor's cache; or NULL. */
static struct ash_co *reuse(size_t mapping_bytes)
{
    struct ash_co *co = NULL;
    if (take_spares()) {
        if (spare.count > 0 && spare.first->mapping_bytes == mapping_bytes) {
            co = spare.first;
            spare.first = co->next_spare;
            spare.count--;
        }
        release_spares();
    }
    return co;
}

static bool keep(struct ash_co *co)
{
    bool kept = false;
    if (take_spares()) {
        if (spare.count == 0 ||
            (spare.count < SPARE_MAX && spare.first->mapping_bytes == co->mapping_bytes)) {
            co->next_spare = spare.count == 0 ? NULL : spare.first;
            spare.first = co;
            spare.count++;
            kept = true;
        }
        release_spares();
    }
    return kept;
}

/* When the process ends, or a program lets go of the shared library. */
__attribute__((destructor)) static void unmap_spares(void)
{
    if (take_spares()) {
        for (; spare.count > 0; spare.count--) {
            struct ash_co *co = spare.first;
            spare.first = co->next_spare;
            munmap(co->mapping, co->mapping_bytes);
        }
        release_spares();
    }
}

static void *map_stack(size_t mapping_bytes, size_t page_bytes)
{
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
    return mapping;
}

struct ash_co *ash_co_stack_new(size_t stack_bytes, unsigned colour)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t colour_bytes = (size_t)(colour % COLOURS) * COLOUR_BYTES;
    size_t top_bytes =
        ash_align_up((size_t)COLOURS * COLOUR_BYTES + sizeof(struct ash_co), page_bytes);
    size_t mapping_bytes = page_bytes + ash_align_up(stack_bytes, page_bytes) + top_bytes;

    struct ash_co *used = reuse(mapping_bytes);
    char *mapping = used != NULL ? used->mapping : map_stack(mapping_bytes, page_bytes);
    if (mapping == NULL) {
        return NULL;
    }
    char *low = mapping + page_bytes;
    /* Where the last one was, if there was one: its lines may still be in the cache. */
    uintptr_t at = (uintptr_t)mapping + mapping_bytes - colour_bytes - sizeof(struct ash_co);
    struct ash_co *co = used != NULL ? used : (struct ash_co *)ash_align_down(at, 64);
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
    if (!keep(co)) {
        munmap(co->mapping, co->mapping_bytes);
    }
}
