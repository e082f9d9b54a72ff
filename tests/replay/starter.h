/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Runs qemu-img many times, one after the other: by tests/interop/fork_server.c if the environment
 * names it as FORK_SERVER, which takes a tenth of the time; else in the usual way. */
#ifndef ASH_TESTS_REPLAY_STARTER_H
#define ASH_TESTS_REPLAY_STARTER_H

#include <stdbool.h>
#include <stddef.h>

struct starter {
    int socket; /* to the fork server; -1: there is none */
    int output; /* a file without a name: what the last run printed */
    long server;
};

/* False: there is no qemu-img. */
bool starter_begin(struct starter *starter);
void starter_end(struct starter *starter);

/* Returns the exit status, -1 if it died. `arguments` ends with NULL and begins after the
 * program. */
int starter_run(struct starter *starter, const char *directory, const char *const *arguments);
/* What it printed, or the beginning of that. */
void starter_output(const struct starter *starter, char *into, size_t size);

#endif
