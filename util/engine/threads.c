/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine that needs nothing of the kernel but threads: each request is a blocking system call
 * on a worker. At most config.workers run at once, and the others wait in the pool's queue. */
#include "util/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include "util/assert.h"
#include "util/engine/epoll_core.h"
#include "util/engine/os.h"
#include "util/error.h"

struct threads {
    struct ash_engine engine;
    struct ash_epoll_core core;
};

static struct ash_epoll_core *core_of(struct ash_engine *engine)
{
    return &ash_container_of(engine, struct threads, engine)->core;
}

static void threads_submit(struct ash_engine *engine, struct ash_aio *aio)
{
    ash_epoll_core_submit(core_of(engine), aio);
}

static int threads_wait(struct ash_engine *engine, uint64_t deadline_ns)
{
    return ash_epoll_core_wait(core_of(engine), deadline_ns);
}

static void threads_wake(struct ash_engine *engine)
{
    ash_waker_wake(&core_of(engine)->waker);
}

static uint64_t threads_now(struct ash_engine *engine)
{
    (void)engine;
    return ash_os_now_ns();
}

static void threads_cancel_poll(struct ash_engine *engine, struct ash_aio *aio)
{
    ash_epoll_core_cancel(core_of(engine), aio);
}

static int threads_fd(struct ash_engine *engine)
{
    return ash_epoll_core_fd(core_of(engine));
}

static void threads_destroy(struct ash_engine *engine)
{
    ash_assert(engine->in_flight == 0);
    ash_epoll_core_destroy(core_of(engine));
    free(ash_container_of(engine, struct threads, engine));
}

static const struct ash_engine_ops threads_ops = {
    .name = "threads",
    .submit = threads_submit,
    .wait = threads_wait,
    .wake = threads_wake,
    .now = threads_now,
    .cancel_poll = threads_cancel_poll,
    .fd = threads_fd,
    .destroy = threads_destroy,
};

int ash_engine_threads_new(const struct ash_engine_config *config, struct ash_engine **engine,
                           struct ash_error *error)
{
    struct threads *threads = calloc(1, sizeof(*threads));
    int ret;

    if (!threads) {
        return ash_error_set(error, -ENOMEM, "Engine threads: no memory");
    }
    threads->engine = (struct ash_engine){.ops = &threads_ops, .config = *config};
    ret = ash_epoll_core_init(&threads->core, &threads->engine);
    if (ret < 0) {
        free(threads);
        return ash_error_errno(error, ret, "Engine threads: epoll and eventfd");
    }
    *engine = &threads->engine;
    return 0;
}
