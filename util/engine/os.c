/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Threads and the clock of the host.
 *
 *  1. A thread of the library takes no signal: the host's handlers run on the host's threads.
 *  2. The host's thread_started hook is the first thing that a thread runs. */
#include "util/engine/os.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ashlar/loop.h>

struct start {
    const struct ash_hooks *hooks;
    void *(*fn)(void *opaque);
    void *opaque;
    char name[16]; /* what the kernel keeps of a thread's name */
};

static void *thread_main(void *opaque)
{
    struct start start = *(struct start *)opaque;

    free(opaque);
    pthread_setname_np(pthread_self(), start.name);
    if (start.hooks && start.hooks->thread_started) {
        start.hooks->thread_started(start.hooks->opaque, start.name);
    }
    return start.fn(start.opaque);
}

int ash_thread_start(pthread_t *thread, const char *name, const struct ash_hooks *hooks,
                     void *(*fn)(void *opaque), void *opaque)
{
    struct start *start = malloc(sizeof(*start));
    sigset_t all, before;
    int ret;

    if (!start) {
        return -ENOMEM;
    }
    *start = (struct start){.hooks = hooks, .fn = fn, .opaque = opaque};
    strncpy(start->name, name, sizeof(start->name) - 1);

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    ret = -pthread_create(thread, NULL, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (ret < 0) {
        free(start);
    }
    return ret;
}

uint64_t ash_os_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
