/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether to look for completions a little longer before going to sleep.
 *
 * Going to sleep and being woken costs more than many a fast disk's whole request. So while reads
 * or writes are in flight, wait() looks again and again for a bounded time, if that is likely to
 * pay.
 *
 *  1. One wait() spins at most `bound_ns`: 50 us, or what the user set; 0 is never.
 *  2. By default it spins only while the average time from "nothing there" to the next completion
 *     of a read or write is less than half the bound, and then for at most four times that
 *     average. What was slept through counts in the average, so a slow disk, or a machine without
 *     a processor to spare, soon ends the spinning. One sleep in 32 is spun for nevertheless:
 *     being woken may be what takes so long. If its completion comes soon, the average starts
 *     anew from there.
 *  3. A bound set by the user is spun in full each time: he asked for it.
 *  4. Waits that end by a timer, a poll or a wake teach nothing.
 *  5. Every 16 looks it offers the processor to others: the kernel's worker that is to carry the
 *     request out may have been put on this one. With both processors busy that is worth 1.4x at
 *     any depth. */
#ifndef ASH_UTIL_ENGINE_SPIN_H
#define ASH_UTIL_ENGINE_SPIN_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include "util/assert.h"
#include "util/engine/engine.h"

#define ASH_SPIN_BOUND_NS 50000
#define ASH_SPIN_SHORTEST_NS 4000
#define ASH_SPIN_TRIAL 32

struct ash_spin {
    uint64_t bound_ns;
    uint64_t average_ns; /* of idle gaps, at most 4 bounds: one long gap shall not weigh for ever */
    uint32_t slept;      /* sleeps since the last trial */
    uint32_t transfers;  /* reads and writes in flight */
    uint32_t finished;   /* reads and writes that completed, ever; wraps */
    bool adaptive;
    bool trial; /* the last budget was for a trial */
};

static inline void ash_spin_init(struct ash_spin *spin, uint64_t busy_poll_ns)
{
    spin->adaptive = busy_poll_ns == UINT64_MAX;
    spin->bound_ns = spin->adaptive ? ASH_SPIN_BOUND_NS : busy_poll_ns;
    spin->average_ns = 0;
    spin->slept = 0;
    spin->trial = false;
    spin->transfers = 0;
    spin->finished = 0;
}

static inline bool ash_spin_counts(const struct ash_aio *aio)
{
    return aio->op == ASH_AIO_READ || aio->op == ASH_AIO_WRITE;
}

static inline void ash_spin_begin(struct ash_spin *spin, const struct ash_aio *aio)
{
    spin->transfers += ash_spin_counts(aio);
}

static inline void ash_spin_end(struct ash_spin *spin, const struct ash_aio *aio)
{
    if (ash_spin_counts(aio)) {
        ash_assert(spin->transfers > 0);
        spin->transfers--;
        spin->finished++;
    }
}

/* How long this wait, which found nothing so far, may spin. */
static inline uint64_t ash_spin_budget(struct ash_spin *spin)
{
    if (!spin->transfers) {
        return 0;
    }
    if (!spin->adaptive) {
        return spin->bound_ns;
    }
    spin->trial = false;
    if (spin->average_ns < spin->bound_ns / 2) {
        return ASH_MIN(spin->bound_ns, ASH_MAX(4 * spin->average_ns, ASH_SPIN_SHORTEST_NS));
    }
    if (++spin->slept >= ASH_SPIN_TRIAL) {
        spin->slept = 0;
        spin->trial = true;
        return spin->bound_ns;
    }
    return 0;
}

/* A read or write completed `gap_ns` after a wait found nothing. */
static inline void ash_spin_learn(struct ash_spin *spin, uint64_t gap_ns)
{
    uint64_t gap = ASH_MIN(gap_ns, 4 * spin->bound_ns);

    if (spin->trial && gap < spin->bound_ns / 2) {
        spin->average_ns = gap;
    } else {
        spin->average_ns = (spin->average_ns * 7 + gap) / 8;
    }
}

static inline void ash_spin_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline void ash_spin_yield(void)
{
    sched_yield();
}

#endif
