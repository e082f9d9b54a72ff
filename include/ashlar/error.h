/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Errors of the control path.
 *
 * Every call returns 0 (or a count) or a negative errno. Control calls also take a caller-owned
 * `struct ash_error *`, which may be NULL, and leave in it a sentence that names the file, the
 * offset and the value found. There is no thread-local error state. */
#ifndef ASHLAR_ERROR_H
#define ASHLAR_ERROR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Filled by the library only when a call fails; otherwise left as it was. The message is a
 * NUL-terminated UTF-8 sentence without a final full stop or newline; one that would not fit is cut
 * and ends in "...". `size` is sizeof(struct ash_error), set by the caller (ASH_ERROR_INIT). */
struct ash_error {
    uint32_t size;
    int32_t code; /* 0, or the negative errno that the call returned */
    char message[1016];
};

#define ASH_ERROR_INIT {sizeof(struct ash_error), 0, ""}

#ifdef __cplusplus
}
#endif
#endif
