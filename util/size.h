/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sizes as people write them: "4096", "64k", "1.5G", "0x1000"; suffixes b k K M G T P E are powers of
 * 1024, as in qemu-img. */
#ifndef ASH_UTIL_SIZE_H
#define ASH_UTIL_SIZE_H

#include <stddef.h>
#include <stdint.h>

/* Parses the whole of `text`; without a suffix the number counts `default_unit` bytes (1 for bytes).
 * 0; -EINVAL: not a size; -ERANGE: beyond INT64_MAX. A fraction needs a suffix larger than bytes. */
int ash_size_parse(const char *text, uint64_t default_unit, uint64_t *bytes);

/* "1.5 GiB": three significant digits as qemu-img prints them. `out` holds 32 bytes at least. */
void ash_size_human(uint64_t bytes, char *out, size_t out_bytes);

#endif
