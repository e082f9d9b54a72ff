/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the library asks of its host: memory for data (counted, never clean, and at times there is
 * none), and somebody who listens to what it says. */
#include <stdlib.h>
#include <string.h>
#include "tests/sim/sim.h"

static void *take(void *opaque, size_t bytes, size_t alignment)
{
    struct sim_run *run = sim_current;
    void *memory;
    (void)opaque;
    if (run->memory_per_mille > 0 && ash_prng_chance(&run->memory_prng, run->memory_per_mille)) {
        sim_note(run, "no memory for %zu bytes", bytes);
        return NULL;
    }
    /* Aligned as asked for and not by a bit more: otherwise it depends on luck what is copied. */
    if (posix_memalign(&memory, 2 * alignment, bytes + alignment) != 0) {
        return NULL;
    }
    memory = (uint8_t *)memory + alignment;
    memset(memory, 0xa5, bytes);
    run->buffers++;
    return memory;
}

static void *whole_allocation(void *memory)
{
    uintptr_t address = (uintptr_t)memory;
    return (uint8_t *)memory - (address & -address);
}

static void give(void *opaque, void *memory, size_t bytes)
{
    (void)opaque;
    if (memory) {
        memset(memory, 0x5a, MIN(bytes, 64));
        sim_current->buffers--;
        free(whole_allocation(memory));
    }
}

/* Nobody but the library writes the images: damage is of its own making. */
static void listen(void *opaque, enum ash_log_level level, const char *message)
{
    (void)opaque;
    sim_note(sim_current, "log: %s", message);
    if (level == ASH_LOG_ERROR && strstr(message, "corrupt")) {
        sim_fail(sim_current, "corrupt", "%s", message);
    }
}

const struct ash_hooks sim_hooks = {
    .size = sizeof(struct ash_hooks), .log = listen, .alloc = take, .free = give};

void sim_memory_begin(struct sim_run *run)
{
    run->memory_prng = sim_draw(run, "memory", run->config->salt, 0, 0);
    run->memory_per_mille = 0;
    run->buffers = 0;
}
