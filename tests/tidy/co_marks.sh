#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Shows that clang keeps functions that may yield (ASH_CO_FN) inside coroutines: it accepts calls from
# marked functions and rejects those from others. Argument: the root of the sources.
set -eu
root=$1
command -v clang >/dev/null || exit 77

# Reads a source and tells whether clang accepts it; prints what it says otherwise.
accepts() {
    { echo '#include "util/co/co.h"'; cat; } |
        clang -std=gnu11 -D_GNU_SOURCE -I"$root" -I"$root/include" -Werror -Wthread-safety \
            -fsyntax-only -x c - 2>&1
}

expect_accepted() {
    if ! output=$(accepts); then
        echo "rejected, but should not be: $1"
        echo "$output"
        exit 1
    fi
}

expect_rejected() {
    if output=$(accepts); then
        echo "accepted, but should not be: $1"
        exit 1
    fi
    case $output in
    *"requires holding ash_in_coroutine"* | *"requires holding 'ash_in_coroutine'"* | \
        *"requires holding coroutine 'ash_in_coroutine'"*) ;;
    *)
        echo "rejected, but for another reason: $1"
        echo "$output"
        exit 1
        ;;
    esac
}

expect_accepted 'a marked function that yields' <<'END'
ASH_CO_FN void f(void);
ASH_CO_FN void f(void) { ash_co_yield(); }
END

expect_rejected 'an unmarked function that yields' <<'END'
void f(void);
void f(void) { ash_co_yield(); }
END

expect_accepted 'a marked function that calls one of its own' <<'END'
ASH_CO_FN static int g(int x) { ash_co_reschedule(); return x; }
ASH_CO_FN int f(int x);
ASH_CO_FN int f(int x) { return g(x) + 1; }
END

expect_rejected 'an unmarked function that calls a marked one of its own' <<'END'
ASH_CO_FN static int g(int x) { ash_co_reschedule(); return x; }
int f(int x);
int f(int x) { return g(x) + 1; }
END

expect_rejected 'an unmarked function that locks a mutex' <<'END'
void f(struct ash_co_mutex *mutex);
void f(struct ash_co_mutex *mutex) { ash_co_mutex_lock(mutex); }
END

expect_accepted 'an unmarked function that asserts to be inside a coroutine' <<'END'
void f(void);
void f(void) { ash_co_assert_inside(); ash_co_yield(); }
END

expect_rejected 'an assertion on one of two paths only' <<'END'
void f(int x);
void f(int x) { if (x) { ash_co_assert_inside(); } ash_co_yield(); }
END

expect_accepted 'an unmarked function that wakes' <<'END'
void f(struct ash_co *co);
void f(struct ash_co *co) { ash_co_wake(co); }
END
