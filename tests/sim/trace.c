/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The timeline of a run: what guests ask for, what reaches the simulated disks, cuts. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include "tests/sim/resume.h"

static void print_time(const struct sim_run *run)
{
    uint64_t now = ash_sim_now(run->world);
    printf("%8" PRIu64 ".%03u us  ", now / 1000, (unsigned)(now % 1000));
}

void sim_note(struct sim_run *run, const char *format, ...)
{
    va_list args;
    if (!run->config->trace) {
        return;
    }
    print_time(run);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

/* A few digits that tell contents apart. */
static uint32_t digest(const struct ash_aio *aio, uint64_t bytes)
{
    uint8_t *buffer = g_malloc(bytes + 1);
    uint64_t hash = bytes;
    ash_iov_to_buffer(aio->iov, buffer, bytes);
    for (uint64_t i = 0; i < bytes; i++) {
        hash = (hash ^ buffer[i]) * UINT64_C(0x100000001b3);
    }
    g_free(buffer);
    return (uint32_t)(hash ^ hash >> 32);
}

static void observe(void *opaque, const struct ash_sim_event *event)
{
    static const char *const cuts[] = {"all that was unsynced is lost", "all is kept", "random"};
    static const char *const phases[] = {"asked", "done ", "ended"};
    struct sim_run *run = opaque;
    const struct ash_aio *aio = event->aio;
    if (event->phase == ASH_SIM_COMPLETED && aio->op == ASH_AIO_FLUSH && event->result < 0) {
        run->flush_failed = true;
    }
    if (event->phase == ASH_SIM_POWER_CUT) {
        sim_resume_cut(run);
    }
    if (!run->config->trace || (aio && (aio->op == ASH_AIO_LOCK || aio->op == ASH_AIO_STATUS))) {
        return;
    }
    print_time(run);
    if (event->phase == ASH_SIM_POWER_CUT) {
        printf("POWER CUT: %s\n", cuts[event->result]);
        return;
    }
    printf("        %s %-8s %-8s", phases[event->phase], event->path ? event->path : "-",
           ash_sim_op_name(aio->op));
    if (aio->op == ASH_AIO_READ || aio->op == ASH_AIO_WRITE || aio->op == ASH_AIO_ALLOCATE ||
        aio->op == ASH_AIO_TRUNCATE) {
        printf(" 0x%" PRIx64 "+0x%" PRIx64 "%s", aio->offset, aio->bytes,
               aio->flags & ASH_AIO_DSYNC ? " dsync" : "");
    }
    if (event->phase != ASH_SIM_SUBMITTED) {
        printf(" = %" PRId64, event->result);
    }
    if ((event->phase == ASH_SIM_CARRIED_OUT && aio->op == ASH_AIO_WRITE && event->result > 0) ||
        (event->phase == ASH_SIM_COMPLETED && aio->op == ASH_AIO_READ && event->result > 0)) {
        printf(" #%08x", digest(aio, (uint64_t)event->result));
    }
    putchar('\n');
}

void sim_trace_world(struct sim_run *run)
{
    ash_sim_observe(run->world, observe, run);
}
