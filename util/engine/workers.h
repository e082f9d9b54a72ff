/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Worker threads: they carry out requests with blocking system calls, for every engine what it has
 * no asynchronous way for. */
#ifndef ASH_UTIL_ENGINE_WORKERS_H
#define ASH_UTIL_ENGINE_WORKERS_H

#include "util/engine/engine.h"
#include "util/engine/spin.h"

struct ash_workers;

/* At most `max` threads, started when there is work for them. Reads and writes are counted in
 * `spin`, the engine's. NULL: out of memory. */
struct ash_workers *ash_workers_new(struct ash_engine *engine, uint32_t max, struct ash_spin *spin);

/* Queues; never blocks but for a short lock. The engine is woken when it is done. */
void ash_workers_submit(struct ash_workers *workers, struct ash_aio *aio);

/* Completes what is done; returns how many. To be called after each wake. */
int ash_workers_reap(struct ash_workers *workers);

/* Nothing queued or running (asserted). Joins the threads. NULL is fine. */
void ash_workers_free(struct ash_workers *workers);

#endif
