/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Ending a sleep from another thread, without a system call while nobody sleeps.
 *
 * The owner sleeps like this: ash_waker_prepare(); if it returns true, sleep on the eventfd among
 * others; ash_waker_awake(). Every wait() starts with ash_waker_take().
 *
 *  1. A wake between two takes is seen by the second, or ends the sleep between them. Both sides
 *     write their own flag before they read the other's, sequentially consistent, so at least one
 *     sees the other.
 *  2. Once the eventfd is polled by the host, it is written whether or not the owner sleeps.
 *  3. The eventfd is never read: whoever polls it is told of each write, not of the level (an
 *     edge-triggered epoll entry, a multishot poll). The counter takes 2^64 writes to fill. */
#ifndef ASH_UTIL_ENGINE_WAKER_H
#define ASH_UTIL_ENGINE_WAKER_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct ash_waker {
    int fd;
    atomic_bool woken;    /* set by any thread, taken by the owner */
    atomic_bool sleeping; /* set by the owner */
    atomic_bool exposed;  /* set by the owner: the host polls, so writes are always needed */
};

static inline int ash_waker_init(struct ash_waker *waker)
{
    atomic_init(&waker->woken, false);
    atomic_init(&waker->sleeping, false);
    atomic_init(&waker->exposed, false);
    waker->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return waker->fd < 0 ? -errno : 0;
}

static inline void ash_waker_destroy(struct ash_waker *waker)
{
    close(waker->fd);
}

static inline void ash_waker_write(struct ash_waker *waker)
{
    int saved = errno; /* for signal handlers */
    uint64_t one = 1;
    ssize_t written = write(waker->fd, &one, sizeof(one));

    (void)written; /* fails only when the counter is full, and then it is readable */
    errno = saved;
}

/* Any thread; async-signal-safe. */
static inline void ash_waker_wake(struct ash_waker *waker)
{
    if (!atomic_exchange(&waker->woken, true) &&
        (atomic_load(&waker->sleeping) || atomic_load(&waker->exposed))) {
        ash_waker_write(waker);
    }
}

/* The rest is the owner's. */

static inline bool ash_waker_peek(struct ash_waker *waker)
{
    return atomic_load_explicit(&waker->woken, memory_order_relaxed);
}

static inline bool ash_waker_take(struct ash_waker *waker)
{
    return ash_waker_peek(waker) && atomic_exchange(&waker->woken, false);
}

/* Whether the owner may sleep; then wakes are written until ash_waker_awake(). */
static inline bool ash_waker_prepare(struct ash_waker *waker)
{
    atomic_store(&waker->sleeping, true);
    if (!atomic_load(&waker->woken)) {
        return true;
    }
    atomic_store_explicit(&waker->sleeping, false, memory_order_relaxed);
    return false;
}

static inline void ash_waker_awake(struct ash_waker *waker)
{
    atomic_store_explicit(&waker->sleeping, false, memory_order_relaxed);
}

static inline void ash_waker_expose(struct ash_waker *waker)
{
    if (!atomic_exchange(&waker->exposed, true)) {
        if (atomic_load(&waker->woken)) {
            ash_waker_write(waker);
        }
    }
}

static inline bool ash_waker_exposed(struct ash_waker *waker)
{
    return atomic_load_explicit(&waker->exposed, memory_order_relaxed);
}

#endif
