/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the compilers offer, under one name each. */
#ifndef ASH_UTIL_COMPILER_H
#define ASH_UTIL_COMPILER_H

#include <stddef.h>
#include <stdint.h>

#define ASH_PRINTF(string, args) __attribute__((format(printf, string, args)))
#define ASH_USE_RESULT __attribute__((warn_unused_result))
#define ASH_NORETURN __attribute__((noreturn))
#define ash_likely(x) __builtin_expect(!!(x), 1)
#define ash_unlikely(x) __builtin_expect(!!(x), 0)
#define ASH_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define ash_container_of(pointer, type, field) ((type *)((char *)(pointer) - offsetof(type, field)))

#define ASH_MIN(a, b) ((a) < (b) ? (a) : (b))
#define ASH_MAX(a, b) ((a) > (b) ? (a) : (b))

#define KiB (UINT64_C(1) << 10)
#define MiB (UINT64_C(1) << 20)
#define GiB (UINT64_C(1) << 30)
#define TiB (UINT64_C(1) << 40)

/* A default-visibility symbol of the public API. */
#define ASH_PUBLIC __attribute__((visibility("default")))

#endif
