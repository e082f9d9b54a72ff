/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The log: one line at a time to the host's hook, and nowhere else. Keeps nothing, so any thread
 * may call it. A message may quote names out of an image, so what would break the line is replaced.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "util/loop/loop.h"

enum { MESSAGE_BYTES = 1024 };

void ash_log(struct ash_loop *loop, enum ash_log_level level, const char *format, ...)
{
    if (loop->hooks.log == NULL) {
        return;
    }
    int saved_errno = errno;
    char message[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    if (length >= MESSAGE_BYTES) {
        memcpy(message + sizeof(message) - sizeof("..."), "...", sizeof("..."));
    }
    for (char *c = message; length > 0 && *c != '\0'; c++) {
        if ((unsigned char)*c < ' ' || *c == 0x7f) {
            *c = '?';
        }
    }
    if (length >= 0) {
        loop->hooks.log(loop->hooks.opaque, level, message);
    }
    errno = saved_errno;
}
