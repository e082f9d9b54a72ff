/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one loop of a tool, and the signals that end it early. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "tools/common/tool.h"

static volatile sig_atomic_t caught;

/* The library's messages. Assertions speak for themselves. */
static void print_log(void *opaque, enum ash_log_level level, const char *message)
{
    (void)opaque;
    if (level == ASH_LOG_ERROR) {
        ash_tool_error("%s", message);
    } else if (level == ASH_LOG_WARNING) {
        ash_tool_warning("%s", message);
    }
}

static void print_fatal(void *opaque, const char *message)
{
    (void)opaque;
    ash_tool_error("internal error: %s", message);
}

struct ash_loop *ash_tool_loop_new(const char *engine)
{
    struct ash_hooks hooks = {.size = sizeof(hooks), .log = print_log, .fatal = print_fatal};
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_loop *loop;
    config.engine = engine;
    config.hooks = &hooks;
    int ret = ash_loop_new(&config, &loop, &error);
    if (ret == 0) {
        ret = ash_loop_bind(loop);
        if (ret == 0) {
            return loop;
        }
        ash_loop_free(loop);
        ash_error_errno(&error, ret, "The event loop cannot be bound to this thread");
    }
    ash_tool_error("%s", error.message);
    return NULL;
}

int ash_tool_run(int (*fn)(void *opaque), void *opaque, int failure)
{
    struct ash_loop *loop = ash_tool_loop_new(NULL);
    if (loop == NULL) {
        return failure;
    }
    int ret = ash_loop_run_sync(loop, fn, opaque);
    ash_loop_free(loop);
    if (ret < 0) {
        ash_tool_error("The event loop failed: %s", strerror(-ret));
        return failure;
    }
    return ret;
}

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};

static void catch_one(int number)
{
    caught = number;
}

void ash_tool_catch_signals(void)
{
    struct sigaction action = {.sa_handler = catch_one, .sa_flags = SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < ASH_ARRAY_SIZE(signals); i++) {
        struct sigaction before;
        /* What the caller had ignored (nohup) stays ignored. */
        if (sigaction(signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
            sigaction(signals[i], &action, NULL);
        }
    }
}

bool ash_tool_interrupted(void)
{
    return caught != 0;
}

bool ash_tool_completed(void)
{
    for (size_t i = 0; i < ASH_ARRAY_SIZE(signals); i++) {
        signal(signals[i], SIG_IGN);
    }
    return caught == 0;
}

int ash_tool_finish(int status)
{
    bool broken = ferror(stdout) != 0;
    if (fflush(stdout) != 0 || broken) {
        ash_tool_error("The output cannot be written");
        if (status == 0) {
            status = 1;
        }
    }
    if (caught != 0) {
        signal(caught, SIG_DFL);
        raise(caught);
    }
    return status;
}
