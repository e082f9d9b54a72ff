/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ASH_AIO_POLL over epoll, for the engines that sleep in epoll. */
#ifndef ASH_UTIL_ENGINE_POLLSET_H
#define ASH_UTIL_ENGINE_POLLSET_H

#include <glib.h>
#include "util/engine/engine.h"

struct ash_pollset {
    struct ash_engine *engine;
    int epoll_fd;
    GHashTable *by_fd;     /* descriptor -> the requests that wait for it; never iterated */
    struct ash_list ready; /* requests with their result, to be completed */
    uint32_t waiting;      /* requests not on `ready` */
};

/* 0 or a negative errno. */
int ash_pollset_init(struct ash_pollset *pollset, struct ash_engine *engine);
void ash_pollset_destroy(struct ash_pollset *pollset); /* no request is left (asserted) */

/* Registers a descriptor of the engine's own, edge-triggered, whose events only end a sleep. */
int ash_pollset_watch(struct ash_pollset *pollset, int fd);

/* True if the request is ready at once, and so needs a reap. Both. */
bool ash_pollset_submit(struct ash_pollset *pollset, struct ash_aio *aio);
bool ash_pollset_cancel(struct ash_pollset *pollset, struct ash_aio *aio);

/* Puts a request of any kind on `ready`. */
void ash_pollset_finish(struct ash_pollset *pollset, struct ash_aio *aio, int64_t result);

/* One epoll_wait; puts what it finds on `ready`. timeout_ns UINT64_MAX: no bound. Returns 0 or a
 * negative errno; an interrupted sleep is 0. */
int ash_pollset_wait(struct ash_pollset *pollset, uint64_t timeout_ns);

/* Completes what is ready; returns how many. */
int ash_pollset_reap(struct ash_pollset *pollset);

#endif
