/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Waiting in epoll.
 *
 *  1. A wait that finds completions makes no system call, but looks at the descriptors every 16th
 *     time, lest a busy disk starve a socket.
 *  2. The eventfd is in the epoll set edge-triggered, and is never read: taking the event is what
 *     ends its readiness. It is written by wakes and by the kernel as it completes a request of
 *     aio.
 *  3. One that finds nothing makes one epoll_wait. It may return 0 early: for a signal, or for an
 *     event whose cause was dealt with before. */
#include "util/engine/epoll_core.h"

#include <errno.h>
#include "util/assert.h"
#include "util/engine/os.h"

#define BUSY_TURNS_MAX 16

int ash_epoll_core_init(struct ash_epoll_core *core, struct ash_engine *engine)
{
    int ret;

    *core = (struct ash_epoll_core){.engine = engine};
    ash_spin_init(&core->spin, engine->config.busy_poll_ns);
    ret = ash_waker_init(&core->waker);
    if (ret < 0) {
        return ret;
    }
    ret = ash_pollset_init(&core->pollset, engine);
    if (ret < 0) {
        goto fail_pollset;
    }
    ret = ash_pollset_watch(&core->pollset, core->waker.fd);
    if (ret < 0) {
        goto fail_workers;
    }
    core->workers = ash_workers_new(engine, engine->config.workers, &core->spin);
    if (!core->workers) {
        ret = -ENOMEM;
        goto fail_workers;
    }
    return 0;

fail_workers:
    ash_pollset_destroy(&core->pollset);
fail_pollset:
    ash_waker_destroy(&core->waker);
    return ret;
}

void ash_epoll_core_destroy(struct ash_epoll_core *core)
{
    ash_workers_free(core->workers);
    ash_pollset_destroy(&core->pollset);
    ash_waker_destroy(&core->waker);
}

void ash_epoll_core_submit(struct ash_epoll_core *core, struct ash_aio *aio)
{
    if (aio->op != ASH_AIO_POLL) {
        ash_workers_submit(core->workers, aio);
    } else if (ash_pollset_submit(&core->pollset, aio)) {
        ash_waker_wake(&core->waker);
    }
}

void ash_epoll_core_cancel(struct ash_epoll_core *core, struct ash_aio *aio)
{
    ash_assert(aio->op == ASH_AIO_POLL);
    if (ash_pollset_cancel(&core->pollset, aio)) {
        ash_waker_wake(&core->waker);
    }
}

void ash_epoll_core_finish(struct ash_epoll_core *core, struct ash_aio *aio, int64_t result)
{
    ash_pollset_finish(&core->pollset, aio, result);
    ash_waker_wake(&core->waker);
}

/* Completes all that needs no system call. */
static int collect(struct ash_epoll_core *core, bool *woken)
{
    int count = core->peek ? core->peek(core->engine) : 0;

    if (ash_waker_take(&core->waker)) {
        *woken = true;
        count += ash_workers_reap(core->workers);
        count += ash_pollset_reap(&core->pollset);
    }
    return count;
}

/* One look at the descriptors. */
static int look(struct ash_epoll_core *core, uint64_t timeout_ns)
{
    int ret = ash_pollset_wait(&core->pollset, timeout_ns);

    core->busy_turns = 0;
    return ret < 0 ? ret : ash_pollset_reap(&core->pollset);
}

static int spin(struct ash_epoll_core *core, uint64_t until_ns, bool *woken)
{
    do {
        for (int i = 0; i < 16; i++) {
            int count = collect(core, woken);
            if (count || *woken) {
                return count;
            }
            ash_spin_relax();
        }
        ash_spin_yield();
    } while (ash_os_now_ns() < until_ns);
    return 0;
}

/* There is nothing yet: spins if that pays, then sleeps. */
static int idle(struct ash_epoll_core *core, uint64_t deadline_ns)
{
    uint64_t budget_ns = ash_spin_budget(&core->spin);
    uint64_t start_ns = ash_os_now_ns(), now_ns = start_ns;
    uint32_t finished = core->spin.finished;
    bool woken = false;
    int count = 0, ret = 0;

    if (budget_ns && start_ns < deadline_ns) {
        count = spin(core, ASH_MIN(start_ns + budget_ns, deadline_ns), &woken);
        now_ns = ash_os_now_ns();
    }
    if (!count && !woken) {
        uint64_t timeout_ns = deadline_ns == UINT64_MAX ? UINT64_MAX
                              : now_ns < deadline_ns    ? deadline_ns - now_ns
                                                        : 0;
        ret = look(core, ash_waker_prepare(&core->waker) ? timeout_ns : 0);
        ash_waker_awake(&core->waker);
        count = collect(core, &woken) + ASH_MAX(ret, 0);
        now_ns = ash_os_now_ns();
    }
    if (core->spin.finished != finished) {
        ash_spin_learn(&core->spin, now_ns - start_ns);
    }
    return count ? count : ASH_MIN(ret, 0);
}

int ash_epoll_core_wait(struct ash_epoll_core *core, uint64_t deadline_ns)
{
    bool woken = false;
    int count = collect(core, &woken);
    int ret = 0;

    if (!count && !woken && deadline_ns) {
        return idle(core, deadline_ns);
    }
    /* The host's own epoll shall not see readiness for ever, so a turn without completions looks.
     */
    if (count ? ++core->busy_turns >= BUSY_TURNS_MAX && core->pollset.waiting
              : core->pollset.waiting || ash_waker_exposed(&core->waker)) {
        ret = look(core, 0);
        /* The look may have taken the event of what came after the first collect. */
        count += ASH_MAX(ret, 0) + collect(core, &woken);
    }
    return count ? count : ret;
}

int ash_epoll_core_fd(struct ash_epoll_core *core)
{
    ash_waker_expose(&core->waker);
    return core->pollset.epoll_fd;
}
