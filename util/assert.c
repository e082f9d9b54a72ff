/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What happens when an assertion fails: the host's fatal hook hears of it once, then the process is
 * aborted. Nothing is printed: the library's only output is the host's hooks.
 *
 * Owns one pointer a thread, to the hooks of the loop that the thread runs. */
#include "util/assert.h"

#include <stdio.h>
#include <stdlib.h>
#include <ashlar/loop.h>

static __thread const struct ash_hooks *thread_hooks;

void ash_assert_set_hooks(const struct ash_hooks *hooks)
{
    thread_hooks = hooks;
}

void ash_assert_failed(const char *condition, const char *file, int line)
{
    const struct ash_hooks *hooks = thread_hooks;
    char message[512];

    /* A hook that fails an assertion itself must not be called again. */
    thread_hooks = NULL;
    if (hooks != NULL && hooks->fatal != NULL) {
        snprintf(message, sizeof(message), "%s:%d: assertion failed: %s", file, line, condition);
        hooks->fatal(hooks->opaque, message);
    }
    abort();
}
