/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tests whose bodies are coroutines. */
#ifndef ASH_TESTS_CO_TEST_H
#define ASH_TESTS_CO_TEST_H

#include "util/co/co.h"
#include "util/loop/loop.h"

/* A test that runs on `loop`, whatever that expression gives after the set-up. */
#define CO_TEST_ON(loop, name)                                                                     \
    ASH_CO_FN static void name##_co(void);                                                         \
    static int name##_main(void *opaque)                                                           \
    {                                                                                              \
        (void)opaque;                                                                              \
        ash_co_assert_inside();                                                                    \
        name##_co();                                                                               \
        return 0;                                                                                  \
    }                                                                                              \
    static void name(void **state)                                                                 \
    {                                                                                              \
        (void)state;                                                                               \
        assert_int_equal(ash_loop_run_sync(loop, name##_main, NULL), 0);                           \
    }                                                                                              \
    ASH_CO_FN static void name##_co(void)

#endif
