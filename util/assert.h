/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Assertions: for our own mistakes only, never for input. They ship in every build. */
#ifndef ASH_UTIL_ASSERT_H
#define ASH_UTIL_ASSERT_H

#include "util/compiler.h"

/* Tells the fatal hook of the thread's loop, if it has one, and aborts. */
ASH_NORETURN void ash_assert_failed(const char *condition, const char *file, int line);

#define ash_assert(condition)                                                                      \
    do {                                                                                           \
        if (ash_unlikely(!(condition))) {                                                          \
            ash_assert_failed(#condition, __FILE__, __LINE__);                                     \
        }                                                                                          \
    } while (0)

/* Sets what ash_assert_failed() calls on this thread before it aborts; NULL for nothing. */
struct ash_hooks;
void ash_assert_set_hooks(const struct ash_hooks *hooks);

#endif
