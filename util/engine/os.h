/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Threads of the host, for util/engine and util/loop only; nothing above calls pthread_*. */
#ifndef ASH_UTIL_ENGINE_OS_H
#define ASH_UTIL_ENGINE_OS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct ash_hooks;

/* A joinable thread with all signals blocked; calls hooks->thread_started first. Negative errno. */
int ash_thread_start(pthread_t *thread, const char *name, const struct ash_hooks *hooks,
                     void *(*fn)(void *opaque), void *opaque);

/* CLOCK_MONOTONIC. */
uint64_t ash_os_now_ns(void);

#endif
