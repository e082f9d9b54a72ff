/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is done with each image: looked at, checked, read, written to, repaired. */
#ifndef ASH_TESTS_MALFORMED_SESSION_H
#define ASH_TESTS_MALFORMED_SESSION_H

#include "tests/malformed/fields.h"

/* A step may make its simulated disk work for a second: an I/O takes it IO_NS, and each byte one
 * nanosecond more. */
#define STEP_NS_MAX UINT64_C(1000000000)
#define STEP_IO_NS UINT64_C(20000)

/* And take this much memory, the simulated disk's included. */
#define STEP_BYTES_MAX (INT64_C(64) << 20)

enum step {
    STEP_INFO,
    STEP_CHECK,
    STEP_READ,
    STEP_WRITE,
    STEP_REPAIR,
    STEP_CHECK_AGAIN,
    STEP_COUNT,
};

struct totals {
    unsigned cases;
    unsigned opened[STEP_COUNT];
    unsigned refused[STEP_COUNT];
    unsigned damaged;  /* by the check: corruptions, leaks, or what cannot be read */
    unsigned repaired; /* clean at the end, which they were not before */
    unsigned writes_failed, writes_made;
    uint64_t ns_max; /* of all steps, by the measure above */
    int64_t bytes_max;
};

/* What runs now; for who tells of a failure. */
extern const char *session_step;

/* The file has these bytes at the beginning of each step but the last. What must not happen ends
 * the program, by fuzz_fail(). */
void session_run(const struct base *base, const uint8_t *bytes, size_t count,
                 struct totals *totals);

#endif
