/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Control calls of the public API, from any thread.
 *
 * A call begins a struct of its caller. Posted, it runs in a coroutine on the loop; at the end of
 * the turn in which it ended, `finish` runs on the plain stack, once, where it may call the host.
 * The _sync twin of a public function runs the same `run` with the struct on its stack. Arguments that
 * are wrong in themselves are found when the call is made, and leave their error in it: then it is not run,
 * and that is its result. */
#ifndef ASH_BLOCK_DISK_CALL_H
#define ASH_BLOCK_DISK_CALL_H

#include <ashlar/error.h>
#include "util/loop/loop.h"

struct ash_call {
    struct ash_turn_hook hook;
    struct ash_loop *loop;
    ASH_CO_PTR int (*run)(struct ash_call *call);
    void (*finish)(struct ash_call *call); /* of posted calls: tells the host and frees the call */
    int ret;                               /* of run */
    struct ash_error error;
};

void ash_call_init(struct ash_call *call, struct ash_loop *loop, int (*run)(struct ash_call *call),
                   void (*finish)(struct ash_call *call));

/* -ENOMEM or -ESHUTDOWN: neither run nor finish will be called. */
int ash_call_post(struct ash_call *call);

/* Runs it and waits; the result of run, or why it could not be run (ash_loop_run_sync()). */
int ash_call_sync(struct ash_call *call, struct ash_error *error);

#endif
