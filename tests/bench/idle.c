/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a turn of the loop costs while many timers and descriptors wait.
 *
 *     idle COUNT SECONDS     COUNT timers an hour ahead, and COUNT descriptors that nothing is
 * written to
 *
 * Prints one line: turns per second, engine. */
#include <ashlar/ashlar.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include "util/engine/engine.h"
#include "util/loop/loop.h"
#include "util/loop/private.h"

#define HOUR_NS UINT64_C(3600000000000)

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void on_timer(struct ash_timer *timer)
{
    (void)timer;
    abort(); /* an hour has not passed */
}

static void on_poll(struct ash_aio *aio)
{
    (void)aio; /* cancelled at the end */
}

static int wait_for_nothing(struct ash_loop *loop, unsigned count, struct ash_timer *timers,
                            struct ash_aio *polls)
{
    for (unsigned i = 0; i < count; i++) {
        ash_timer_init(&timers[i], on_timer);
        ash_timer_set(loop, &timers[i], ash_loop_now(loop) + HOUR_NS + i);
        int fd = eventfd(0, EFD_CLOEXEC);
        if (fd < 0) {
            return -1;
        }
        polls[i] =
            (struct ash_aio){.op = ASH_AIO_POLL, .poll_fd = fd, .mode = POLLIN, .done = on_poll};
        ash_engine_submit(loop->engine, &polls[i]);
    }
    return 0;
}

static uint64_t turns_in(struct ash_loop *loop, uint64_t time_ns)
{
    uint64_t turns = 0;
    for (uint64_t end_ns = now_ns() + time_ns; now_ns() < end_ns; turns += 64) {
        for (unsigned i = 0; i < 64; i++) {
            if (ash_loop_run_once(loop, 0, 0) < 0) {
                return 0;
            }
        }
    }
    return turns;
}

int main(int argc, char **argv)
{
    struct ash_loop *loop;
    if (argc != 3) {
        fprintf(stderr, "usage: idle COUNT SECONDS\n");
        return 2;
    }
    unsigned count = (unsigned)strtoul(argv[1], NULL, 10);
    uint64_t time_ns = strtoul(argv[2], NULL, 10) * UINT64_C(1000000000);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    struct ash_timer *timers = calloc(count + 1, sizeof(*timers));
    struct ash_aio *polls = calloc(count + 1, sizeof(*polls));
    if (timers == NULL || polls == NULL || ash_loop_new(NULL, &loop, NULL) < 0 ||
        ash_loop_bind(loop) < 0 || wait_for_nothing(loop, count, timers, polls) < 0) {
        perror("idle");
        return 1;
    }
    (void)turns_in(loop, time_ns / 8); /* the requests are on their way to the kernel then */
    uint64_t begin_ns = now_ns();
    uint64_t turns = turns_in(loop, time_ns);
    double seconds = (double)(now_ns() - begin_ns) / 1e9;
    printf("rate %.0f/s engine %s\n", (double)turns / seconds, ash_loop_engine(loop));
    for (unsigned i = 0; i < count; i++) {
        ash_timer_cancel(loop, &timers[i]);
        ash_engine_cancel_poll(loop->engine, &polls[i]);
    }
    (void)turns_in(loop, time_ns / 8);
    ash_loop_free(loop);
    free(timers);
    free(polls);
    return 0;
}
