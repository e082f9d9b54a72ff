/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The switch by the C library's ucontext, for other processors. Contract: util/co/context.h. It is
 * slow, as it saves the signal mask with a system call. */
#ifndef ASH_UTIL_CO_CONTEXT_UCONTEXT_H
#define ASH_UTIL_CO_CONTEXT_UCONTEXT_H

#include <stddef.h>
#include <ucontext.h>
#include "util/assert.h"

struct ash_co_context {
    ucontext_t ucontext;
};

static inline void ash_co_context_make(struct ash_co_context *context, void *stack,
                                       size_t stack_bytes, void (*entry)(void))
{
    int ret = getcontext(&context->ucontext);

    ash_assert(ret == 0);
    context->ucontext.uc_stack.ss_sp = stack;
    context->ucontext.uc_stack.ss_size = stack_bytes;
    context->ucontext.uc_link = NULL;
    makecontext(&context->ucontext, entry, 0);
}

static inline void ash_co_context_switch(struct ash_co_context *from,
                                         const struct ash_co_context *to)
{
    int ret = swapcontext(&from->ucontext, &to->ucontext);

    ash_assert(ret == 0);
}

#endif
