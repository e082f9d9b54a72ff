/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Choosing an engine, and telling completions.
 *
 *  1. An engine that was asked for by name is never replaced by another.
 *  2. Without a name the order is uring, aio, threads, and only if none can be had is it an
 *     error, which then says why each was refused.
 *  3. A completion never switches to a coroutine: it makes it ready, or calls done() on the plain
 *     stack of wait(). */
#include "util/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "util/assert.h"
#include "util/co/co.h"
#include "util/error.h"

#define DEPTH_DEFAULT 256
#define WORKERS_DEFAULT 16

static const struct {
    const char *name;
    int (*make)(const struct ash_engine_config *, struct ash_engine **, struct ash_error *);
} engines[] = {
    {"uring", ash_engine_uring_new},
    {"aio", ash_engine_aio_new},
    {"threads", ash_engine_threads_new},
};

static int engine_by_name(const char *name, const struct ash_engine_config *config,
                          struct ash_engine **engine, struct ash_error *error)
{
    for (size_t i = 0; i < ASH_ARRAY_SIZE(engines); i++) {
        if (!strcmp(engines[i].name, name)) {
            return engines[i].make(config, engine, error);
        }
    }
    return ash_error_set(error, -EINVAL,
                         "There is no engine '%s'; there are uring, aio and threads", name);
}

/* The first that the kernel grants. */
static int engine_by_order(const struct ash_engine_config *config, struct ash_engine **engine,
                           struct ash_error *error)
{
    struct ash_error why[ASH_ARRAY_SIZE(engines)];
    int ret = -ENOSYS;

    for (size_t i = 0; i < ASH_ARRAY_SIZE(engines); i++) {
        why[i] = (struct ash_error)ASH_ERROR_INIT;
        ret = engines[i].make(config, engine, &why[i]);
        if (ret == 0) {
            return 0;
        }
    }
    return ash_error_set(error, ret, "No engine can be had: %s; %s; %s", why[0].message,
                         why[1].message, why[2].message);
}

int ash_engine_new(const char *name, const struct ash_engine_config *config,
                   struct ash_engine **engine, struct ash_error *error)
{
    struct ash_engine_config full = *config;

    if (!full.depth) {
        full.depth = DEPTH_DEFAULT;
    }
    if (!full.workers) {
        full.workers = WORKERS_DEFAULT;
    }
    if (!name) {
        name = getenv("ASHLAR_ENGINE");
    }
    return name && *name ? engine_by_name(name, &full, engine, error)
                         : engine_by_order(&full, engine, error);
}

void ash_aio_complete(struct ash_engine *engine, struct ash_aio *aio, int64_t result)
{
    aio->result = result;
    if (aio->op != ASH_AIO_POLL) {
        ash_assert(engine->in_flight > 0);
        engine->in_flight--;
    }
    if (aio->waiter) {
        ash_assert(!aio->done);
        ash_co_wake(aio->waiter);
    } else {
        aio->done(aio);
    }
}

void ash_engine_random(struct ash_engine *engine, void *buffer, size_t bytes)
{
    if (engine->ops->random != NULL) {
        engine->ops->random(engine, buffer, bytes);
        return;
    }
    for (size_t done = 0; done < bytes;) {
        ssize_t got = getrandom((char *)buffer + done, bytes - done, 0);
        ash_assert(got > 0 || errno == EINTR); /* nothing else can fail: getrandom(2) */
        done += got > 0 ? (size_t)got : 0;
    }
}
