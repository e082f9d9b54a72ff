/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Limits on bytes and operations a second, as block devices have them: in all, of reads, of writes,
 * with bursts. Only arithmetic on times that the caller gives; who waits, and how, is its business.
 *
 * Each limit is a leaky bucket: it leaks `average` a second and holds a burst. A request may start
 * when the bucket is not over its brim, and then its whole cost goes in, so a large one is never
 * starved and is paid for by those that come after it. Over any time t no more passes than the
 * brim, `average` * t, and one request.
 *
 * The brim is max * length, where a burst of `max` a second for `length` seconds is allowed;
 * otherwise what passes in a tenth of a second. With a length above 1 a second bucket, which leaks
 * `max` a second, keeps the burst to that rate. */
#ifndef ASH_UTIL_RATELIMIT_H
#define ASH_UTIL_RATELIMIT_H

#include <stdbool.h>
#include <stdint.h>
#include "util/error.h"

#define ASH_RATELIMIT_VALUE_MAX UINT64_C(1000000000000000) /* a second, and max * length */

enum ash_ratelimit_kind {
    ASH_RATELIMIT_BPS_TOTAL,
    ASH_RATELIMIT_BPS_READ,
    ASH_RATELIMIT_BPS_WRITE,
    ASH_RATELIMIT_IOPS_TOTAL,
    ASH_RATELIMIT_IOPS_READ,
    ASH_RATELIMIT_IOPS_WRITE,
    ASH_RATELIMIT_KINDS,
};

struct ash_ratelimit_config {
    struct {
        uint64_t average; /* a second; 0: no limit */
        uint64_t max;     /* a second, in a burst; 0: none */
        uint64_t length;  /* seconds; 1 unless max is set */
    } limit[ASH_RATELIMIT_KINDS];
    uint64_t iops_size_bytes; /* a longer request counts as several operations; 0: as one */
};

/* A bucket by the time at which it will have run dry. */
struct ash_ratelimit_bucket {
    uint64_t rate;    /* a second; 0: no limit */
    uint64_t brim_ns; /* how far empty_ns may lie ahead */
    uint64_t empty_ns;
    uint64_t rest; /* of the last division, in 1 / rate of a nanosecond */
};

struct ash_ratelimit {
    struct ash_ratelimit_config config;
    struct ash_ratelimit_bucket average[ASH_RATELIMIT_KINDS];
    struct ash_ratelimit_bucket burst[ASH_RATELIMIT_KINDS];
};

/* -EINVAL and the reason: total together with read or write, a max below its average or without
 * one, a length without max or 0, numbers above ASH_RATELIMIT_VALUE_MAX. */
int ash_ratelimit_check(const struct ash_ratelimit_config *config, struct ash_error *error);

/* Full credit. `config` has passed the check. */
void ash_ratelimit_init(struct ash_ratelimit *limit, const struct ash_ratelimit_config *config);

/* From when on a read, or a write, may start; 0: at once. */
uint64_t ash_ratelimit_due_ns(const struct ash_ratelimit *limit, bool write);

/* A request starts. */
void ash_ratelimit_charge(struct ash_ratelimit *limit, bool write, uint64_t bytes, uint64_t now_ns);

/* Whether there is any limit. */
bool ash_ratelimit_active(const struct ash_ratelimit *limit);

#endif
