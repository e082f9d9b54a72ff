/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What every unit test includes: cmocka in the order it wants, and whether valgrind runs it. */
#ifndef ASH_TESTS_UNIT_H
#define ASH_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#ifdef ASH_HAVE_VALGRIND
#include <valgrind/valgrind.h>
#endif
#include "util/co/checkers.h"

static inline bool is_sanitized(void)
{
#ifdef ASH_CO_ASAN
    return true;
#else
    return false;
#endif
}

/* The sanitized build finds what a kind of run does wrong with memory, in few runs of each kind:
 * what depends on the seed alone the normal build has seen, and each run costs ten times as much.
 */
static inline uint64_t fewer_if_sanitized(uint64_t usual)
{
    const uint64_t few = 20;
    if (is_sanitized() && usual > few) {
        return usual / 6 > few ? usual / 6 : few;
    }
    return usual;
}

/* Its processor and its kernel are not quite the real ones. A test that skips for it says why. */
static inline bool under_valgrind(void)
{
#ifdef ASH_HAVE_VALGRIND
    return RUNNING_ON_VALGRIND;
#else
    return false;
#endif
}

#endif
