/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For tests of what must abort. */
#ifndef ASH_TESTS_DIES_H
#define ASH_TESTS_DIES_H

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <ashlar/loop.h>
#include "util/assert.h"

/* Calls fn() in a child process and fails unless that dies of `signal_number`. */
static inline void assert_dies(void (*fn)(void), int signal_number)
{
    struct rlimit no_core = {0, 0};
    int status = 0;

    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* cmocka and the sanitizers catch such signals to report them. */
        setrlimit(RLIMIT_CORE, &no_core);
        signal(signal_number, SIG_DFL);
        fn();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), signal_number);
}

/* A child that ends by itself has its memory looked through by valgrind, and what its threads still
 * have counts as leaked: another status then. One that a signal ends has not. */
#define DIES_BY_THE_ASSERTION SIGUSR1

static inline void exit_if_expected(void *condition, const char *message)
{
    const char *text = strstr(message, "assertion failed: ");

    if (text != NULL && strcmp(text + strlen("assertion failed: "), condition) == 0) {
        raise(DIES_BY_THE_ASSERTION);
    }
}

/* In the child: for the loops that fn() makes, as a turn sets the hooks of its loop. */
static const struct ash_hooks *dies_hooks;

/* Calls fn() in a child process and fails unless the assertion of `condition` fails there. */
static inline void assert_asserts(void (*fn)(void), const char *condition)
{
    int status = 0;

    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        struct ash_hooks hooks = {.size = sizeof(hooks)};
        char text[128];
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        signal(DIES_BY_THE_ASSERTION, SIG_DFL);
        snprintf(text, sizeof(text), "%s", condition);
        hooks.opaque = text;
        hooks.fatal = exit_if_expected;
        ash_assert_set_hooks(&hooks);
        dies_hooks = &hooks;
        fn();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), DIES_BY_THE_ASSERTION);
}

#endif
