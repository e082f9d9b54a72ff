/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* For tests of what must abort. */
#ifndef ASH_TESTS_DIES_H
#define ASH_TESTS_DIES_H

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

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

#endif
