/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Control calls: from a post to a coroutine to the host's completion. See the header. */
#include "block/disk/call.h"
#include "util/error.h"

static void finish(struct ash_turn_hook *hook)
{
    struct ash_call *call = ash_container_of(hook, struct ash_call, hook);
    call->finish(call);
}

void ash_call_init(struct ash_call *call, struct ash_loop *loop, int (*run)(struct ash_call *call),
                   void (*finish_call)(struct ash_call *call))
{
    *call =
        (struct ash_call){.loop = loop, .run = run, .finish = finish_call, .error = ASH_ERROR_INIT};
    ash_turn_hook_init(&call->hook, finish);
}

/* A call whose arguments were wrong has its error by now. */
ASH_CO_FN static int run_unless_refused(struct ash_call *call)
{
    return call->error.code < 0 ? call->error.code : call->run(call);
}

static void call_coroutine(void *opaque)
{
    struct ash_call *call = opaque;
    ash_co_assert_inside();
    call->ret = run_unless_refused(call);
    ash_loop_at_turn_end(call->loop, &call->hook);
}

static void call_posted(void *opaque)
{
    struct ash_call *call = opaque;
    int ret = ash_co_spawn(&call->loop->sched, call_coroutine, call);
    if (ret < 0) {
        call->ret = ash_error_set(&call->error, ret, "No coroutine can be had");
        ash_loop_at_turn_end(call->loop, &call->hook);
    }
}

int ash_call_post(struct ash_call *call)
{
    return ash_loop_post(call->loop, call_posted, call);
}

static int run_sync(void *opaque)
{
    struct ash_call *call = opaque;
    ash_co_assert_inside();
    return run_unless_refused(call);
}

int ash_call_sync(struct ash_call *call, struct ash_error *error)
{
    int ret = ash_loop_run_sync(call->loop, run_sync, call);
    if (ret < 0) {
        if (call->error.code == 0) {
            ash_error_errno(&call->error, ret, "The call could not be made");
        }
        ash_error_copy(error, &call->error);
    }
    return ret;
}
