/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Counts what malloc() and its relatives have handed out: the library's buffers, GLib's, and what
 * everything else takes. Stacks of coroutines are mapped, and do not count. */
#ifndef ASH_TESTS_MALFORMED_MEMORY_H
#define ASH_TESTS_MALFORMED_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* From now on: how much there is, and the highest that it gets. */
void memory_begin(void);

/* More than there was at memory_begin(): now, and at most. Negative: less. */
int64_t memory_bytes(void);
int64_t memory_bytes_max(void);

/* `beyond(bytes)` is called inside the call of malloc() that takes more than `bytes_max`, with what
 * it asked for. It may not allocate. */
void memory_limit(int64_t bytes_max, void (*beyond)(size_t bytes));

#endif
