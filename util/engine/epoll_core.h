/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the engines that sleep in epoll have in common: workers, polls, wakes, spinning and
 * sleeping. aio adds requests in the kernel; threads adds nothing. */
#ifndef ASH_UTIL_ENGINE_EPOLL_CORE_H
#define ASH_UTIL_ENGINE_EPOLL_CORE_H

#include "util/engine/engine.h"
#include "util/engine/pollset.h"
#include "util/engine/spin.h"
#include "util/engine/waker.h"
#include "util/engine/workers.h"

struct ash_epoll_core {
    struct ash_engine *engine;
    struct ash_waker waker;
    struct ash_pollset pollset;
    struct ash_workers *workers;
    struct ash_spin spin;
    uint32_t busy_turns; /* since the last look at the descriptors */

    /* Completes what else can be had without a system call; returns how many. May be NULL. */
    int (*peek)(struct ash_engine *engine);
};

int ash_epoll_core_init(struct ash_epoll_core *core, struct ash_engine *engine);
void ash_epoll_core_destroy(struct ash_epoll_core *core);

void ash_epoll_core_submit(struct ash_epoll_core *core,
                           struct ash_aio *aio); /* to workers; polls */
void ash_epoll_core_cancel(struct ash_epoll_core *core, struct ash_aio *aio);

/* Completes in the next wait without anything else. */
void ash_epoll_core_finish(struct ash_epoll_core *core, struct ash_aio *aio, int64_t result);

/* As wait() of the engine, once what is queued has been submitted. */
int ash_epoll_core_wait(struct ash_epoll_core *core, uint64_t deadline_ns);

int ash_epoll_core_fd(struct ash_epoll_core *core);

#endif
