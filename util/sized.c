/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reading what a caller filled that was built against another version's headers. Owns nothing.
 *
 * 1. Nothing is read beyond what the caller's size says; what it does not have keeps its default.
 * 2. What this version does not know is never ignored where the caller has set it. */
#include "util/sized.h"
#include <errno.h>
#include <string.h>
#include "util/compiler.h"

/* Far beyond any version: a larger size is a field that nobody has set. */
enum { STRUCT_BYTES_MAX = 4096 };

int ash_sized_read(void *to, uint32_t to_bytes, const void *from, uint32_t bytes_min,
                   const char *what, struct ash_error *error)
{
    uint32_t bytes;
    memcpy(&bytes, from, sizeof(bytes));
    if (bytes < bytes_min || bytes > STRUCT_BYTES_MAX) {
        return ash_error_set(error, -EINVAL, "%s: size is %u, expected that of the struct, %u",
                             what, bytes, to_bytes);
    }
    memcpy(to, from, ASH_MIN(to_bytes, bytes));
    for (uint32_t i = to_bytes; i < bytes; i++) {
        if (((const unsigned char *)from)[i] != 0) {
            return ash_error_set(error, -EINVAL,
                                 "%s: a field is set that this version does not know", what);
        }
    }
    return 0;
}
