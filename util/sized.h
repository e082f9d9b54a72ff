/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Structs of the public API that a caller fills, and that begin with their size. */
#ifndef ASH_UTIL_SIZED_H
#define ASH_UTIL_SIZED_H

#include <stdint.h>
#include "util/error.h"

/* Copies `from` over `to`, which holds the defaults: a caller that was built against an older header
 * keeps them for what it does not know; what we do not know of a newer one's has to be zero. `from` begins
 * with its size, which is at least `bytes_min`. -EINVAL, with a sentence that begins with `what`, and `to`
 * may have changed. */
int ash_sized_read(void *to, uint32_t to_bytes, const void *from, uint32_t bytes_min, const char *what,
                   struct ash_error *error);

#endif
