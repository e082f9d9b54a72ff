/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A machine context and the switch between two of them, by one of three implementations:
 *
 *     struct ash_co_context
 *         What a suspended stack needs to go on. It holds what a function must preserve for its
 *         caller; all else is clobbered by the switch, so the compiler keeps nothing there.
 *
 *     void ash_co_context_make(struct ash_co_context *context, void *stack, size_t stack_bytes,
 *                              void (*entry)(void))
 *         Makes a context that calls entry(), which must not return, on an unused stack. It takes
 *         over the floating-point control words of now.
 *
 *     void ash_co_context_switch(struct ash_co_context *from, const struct ash_co_context *to)
 *         Suspends into `from` and goes on with `to`. It returns when somebody switches to `from`.
 *
 * The switch is inlined: a call and its return would be one more return that the processor predicts
 * wrongly. The compiler may hold the address of a thread-local variable across it, therefore a
 * function that contains a switch uses none after it. */
#ifndef ASH_UTIL_CO_CONTEXT_H
#define ASH_UTIL_CO_CONTEXT_H

#if defined(ASH_CO_UCONTEXT)
#include "util/co/context_ucontext.h"
#elif defined(__x86_64__) && defined(__LP64__) && !defined(__APX_F__)
#include "util/co/context_x86_64.h"
#elif defined(__aarch64__) && defined(__LP64__)
#include "util/co/context_aarch64.h"
#else
#include "util/co/context_ucontext.h"
#endif

#endif
