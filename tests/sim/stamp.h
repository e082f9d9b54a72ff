/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Bytes that tell who wrote them and where they belong: of each value, at each offset. Value 0 is
 * zeroes. Three of four values can be coded well. */
#ifndef ASH_TESTS_SIM_STAMP_H
#define ASH_TESTS_SIM_STAMP_H

#include <stdint.h>

void stamp_fill(uint64_t value, uint64_t offset, void *buffer, uint64_t bytes);

/* How many bytes from the beginning on are those of the value. */
uint64_t stamp_match(uint64_t value, uint64_t offset, const void *buffer, uint64_t bytes);

#endif
