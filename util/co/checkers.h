/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What AddressSanitizer, ThreadSanitizer and valgrind want to hear about stacks. Each function is
 * empty where its tool is not in the build. */
#ifndef ASH_UTIL_CO_CHECKERS_H
#define ASH_UTIL_CO_CHECKERS_H

#include "util/co/private.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASH_CO_ASAN
#endif
#if __has_feature(thread_sanitizer)
#define ASH_CO_TSAN
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(ASH_CO_ASAN)
#define ASH_CO_ASAN
#endif
#if defined(__SANITIZE_THREAD__) && !defined(ASH_CO_TSAN)
#define ASH_CO_TSAN
#endif

#if defined(ASH_CO_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(ASH_CO_TSAN)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(ASH_HAVE_VALGRIND)
#include <valgrind/valgrind.h>
#endif

/* Sanitizers spend stack on red zones. */
#if defined(ASH_CO_ASAN) || defined(ASH_CO_TSAN)
#define ASH_CO_STACK_BYTES_DEFAULT (256 * KiB)
#else
#define ASH_CO_STACK_BYTES_DEFAULT (64 * KiB)
#endif

/* A function that goes about a foreign or a raw stack. */
#if defined(__clang__)
#define ASH_CO_UNCHECKED __attribute__((no_sanitize("address", "thread")))
#else
#define ASH_CO_UNCHECKED __attribute__((no_sanitize_address, no_sanitize_thread))
#endif

/* A scheduler gets a stack; it gives it up. */
static inline void check_stack_new(struct ash_co *co)
{
#if defined(ASH_HAVE_VALGRIND)
    co->valgrind_id = VALGRIND_STACK_REGISTER(co->stack, co->stack + co->stack_bytes - 1);
#else
    (void)co;
#endif
}

static inline void check_stack_free(struct ash_co *co)
{
#if defined(ASH_HAVE_VALGRIND)
    VALGRIND_STACK_DEREGISTER(co->valgrind_id);
#endif
#if defined(ASH_CO_ASAN)
    /* Whatever is mapped here next must not find the shadow of our frames. */
    __asan_unpoison_memory_region(co->stack, co->stack_bytes);
#endif
    (void)co;
}

/* A coroutine begins on a stack that another has left; it has ended. It left nothing poisoned: all
 * its frames but the first have returned, and the first is not instrumented. */
static inline void check_begin(struct ash_co *co)
{
#if defined(ASH_CO_TSAN)
    co->tsan_fiber = __tsan_create_fiber(0);
#endif
    (void)co;
}

static inline void check_end(struct ash_co *co)
{
#if defined(ASH_CO_TSAN)
    __tsan_destroy_fiber(co->tsan_fiber);
#endif
    (void)co;
}

/* Around the switch into a coroutine, on the scheduler's side. Returns what after_enter() wants. */
static inline __attribute__((always_inline)) void *check_before_enter(struct ash_co_runner *runner,
                                                                      struct ash_co *co)
{
    void *fake_stack = NULL;

#if defined(ASH_CO_ASAN)
    __sanitizer_start_switch_fiber(&fake_stack, co->stack, co->stack_bytes);
#endif
#if defined(ASH_CO_TSAN)
    runner->tsan_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(co->tsan_fiber, 0);
#endif
    (void)runner;
    (void)co;
    return fake_stack;
}

static inline __attribute__((always_inline)) void check_after_enter(void *fake_stack)
{
#if defined(ASH_CO_ASAN)
    __sanitizer_finish_switch_fiber(fake_stack, NULL, NULL);
#endif
    (void)fake_stack;
}

/* Around the switch out of a coroutine, on its side. The first thing that a new coroutine does is
 * check_after_leave(co, NULL). */
static inline __attribute__((always_inline)) void *check_before_leave(struct ash_co *co,
                                                                      bool ending)
{
    void *fake_stack = NULL;

#if defined(ASH_CO_ASAN)
    __sanitizer_start_switch_fiber(ending ? NULL : &fake_stack, co->runner->stack,
                                   co->runner->stack_bytes);
#endif
#if defined(ASH_CO_TSAN)
    __tsan_switch_to_fiber(co->runner->tsan_fiber, 0);
#endif
    (void)co;
    (void)ending;
    return fake_stack;
}

static inline __attribute__((always_inline)) void check_after_leave(struct ash_co *co,
                                                                    void *fake_stack)
{
#if defined(ASH_CO_ASAN)
    __sanitizer_finish_switch_fiber(fake_stack, &co->runner->stack, &co->runner->stack_bytes);
#endif
    (void)co;
    (void)fake_stack;
}

/* Around work below the stack pointer. */
static inline void check_pause(void)
{
#if defined(ASH_HAVE_VALGRIND)
    VALGRIND_DISABLE_ERROR_REPORTING;
#endif
}

static inline void check_resume(void)
{
#if defined(ASH_HAVE_VALGRIND)
    VALGRIND_ENABLE_ERROR_REPORTING;
#endif
}

#endif
