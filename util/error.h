/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Filling struct ash_error. All accept a NULL error. */
#ifndef ASH_UTIL_ERROR_H
#define ASH_UTIL_ERROR_H

#include <ashlar/error.h>
#include "util/compiler.h"

/* Sets code (a negative errno) and message; returns the code, so that a caller can write
 * `return ash_error_set(error, -EINVAL, "...", ...)`. A second set replaces the first. */
int ash_error_set(struct ash_error *error, int code, const char *format, ...) ASH_PRINTF(3, 4);

/* As ash_error_set(), with ": <text of the errno>" at the end. */
int ash_error_errno(struct ash_error *error, int code, const char *format, ...) ASH_PRINTF(3, 4);

/* Gives a caller the error that a call of the library's own has: as much of it as the caller's struct
 * has room for. The other's code is set. */
void ash_error_copy(struct ash_error *to, const struct ash_error *from);

/* Puts text before a message that is already there. Returns the code. */
int ash_error_prefix(struct ash_error *error, const char *format, ...) ASH_PRINTF(2, 3);

#endif
