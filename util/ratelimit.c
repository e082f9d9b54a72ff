/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Limits on bytes and operations a second; what they mean stands in the header.
 *
 * A bucket that leaks at a rate is kept as the time at which it will be empty: adding n to it moves
 * that by n / rate, and its level now is (empty - now) * rate. So nothing has to be leaked by hand,
 * and the remainder of each division is carried on, so that long runs are exact. */
#include "util/ratelimit.h"
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "util/assert.h"

#define SECOND_NS UINT64_C(1000000000)
#define BRIM_DEFAULT_NS (SECOND_NS / 10)

static const char *const names[ASH_RATELIMIT_KINDS] = {
    "bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write",
};

static int check_one(const struct ash_ratelimit_config *config, int kind, struct ash_error *error)
{
    uint64_t average = config->limit[kind].average;
    uint64_t max = config->limit[kind].max;
    uint64_t length = config->limit[kind].length;
    if (average > ASH_RATELIMIT_VALUE_MAX || max > ASH_RATELIMIT_VALUE_MAX ||
        length > ASH_RATELIMIT_VALUE_MAX / ASH_MAX(max, 1)) {
        return ash_error_set(error, -EINVAL, "The values of '%s' exceed %" PRIu64, names[kind],
                             ASH_RATELIMIT_VALUE_MAX);
    }
    if (max != 0 && max < average) {
        return ash_error_set(error, -EINVAL, "'%s-max' is less than '%s'", names[kind],
                             names[kind]);
    }
    if (max != 0 && average == 0) {
        return ash_error_set(error, -EINVAL, "'%s-max' needs '%s'", names[kind], names[kind]);
    }
    if (length == 0 || (length > 1 && max == 0)) {
        return ash_error_set(error, -EINVAL, "'%s-max-length' is %" PRIu64 "%s", names[kind],
                             length, length == 0 ? "" : " without a maximum");
    }
    return 0;
}

int ash_ratelimit_check(const struct ash_ratelimit_config *config, struct ash_error *error)
{
    for (int kind = 0; kind < ASH_RATELIMIT_KINDS; kind++) {
        int ret = check_one(config, kind, error);
        if (ret < 0) {
            return ret;
        }
        int total = kind / 3 * 3;
        if (kind != total && config->limit[total].average != 0 &&
            config->limit[kind].average != 0) {
            return ash_error_set(error, -EINVAL, "'%s' and '%s' cannot be set together",
                                 names[total], names[kind]);
        }
    }
    return 0;
}

/* How long `rate` a second takes for `amount`; what is left over goes to *rest. */
static uint64_t duration_ns(uint64_t amount, uint64_t rate, uint64_t *rest)
{
    unsigned __int128 total = (unsigned __int128)amount * SECOND_NS + *rest;
    *rest = (uint64_t)(total % rate);
    total /= rate;
    return total > INT64_MAX / 4 ? INT64_MAX / 4 : (uint64_t)total;
}

void ash_ratelimit_init(struct ash_ratelimit *limit, const struct ash_ratelimit_config *config)
{
    *limit = (struct ash_ratelimit){.config = *config};
    for (int kind = 0; kind < ASH_RATELIMIT_KINDS; kind++) {
        uint64_t max = config->limit[kind].max;
        uint64_t length = config->limit[kind].length;
        uint64_t rest = 0;
        struct ash_ratelimit_bucket *average = &limit->average[kind];
        average->rate = config->limit[kind].average;
        average->brim_ns = BRIM_DEFAULT_NS;
        if (average->rate != 0 && max != 0) {
            average->brim_ns = duration_ns(max * length, average->rate, &rest);
        }
        if (length > 1) {
            limit->burst[kind].rate = max;
            limit->burst[kind].brim_ns = BRIM_DEFAULT_NS;
        }
    }
}

static bool applies(int kind, bool write)
{
    int of = kind % 3;
    return of == ASH_RATELIMIT_BPS_TOTAL || (of == ASH_RATELIMIT_BPS_WRITE) == write;
}

static uint64_t bucket_due_ns(const struct ash_ratelimit_bucket *bucket)
{
    return bucket->rate == 0 || bucket->empty_ns <= bucket->brim_ns
               ? 0
               : bucket->empty_ns - bucket->brim_ns;
}

uint64_t ash_ratelimit_due_ns(const struct ash_ratelimit *limit, bool write)
{
    uint64_t due_ns = 0;
    for (int kind = 0; kind < ASH_RATELIMIT_KINDS; kind++) {
        if (applies(kind, write)) {
            due_ns = ASH_MAX(due_ns, bucket_due_ns(&limit->average[kind]));
            due_ns = ASH_MAX(due_ns, bucket_due_ns(&limit->burst[kind]));
        }
    }
    return due_ns;
}

static void bucket_charge(struct ash_ratelimit_bucket *bucket, uint64_t amount, uint64_t now_ns)
{
    if (bucket->rate == 0) {
        return;
    }
    if (bucket->empty_ns < now_ns) {
        bucket->empty_ns = now_ns;
        bucket->rest = 0;
    }
    bucket->empty_ns += duration_ns(amount, bucket->rate, &bucket->rest);
    bucket->empty_ns = ASH_MIN(bucket->empty_ns, (uint64_t)INT64_MAX / 2);
}

static uint64_t operations(const struct ash_ratelimit *limit, uint64_t bytes)
{
    uint64_t size = limit->config.iops_size_bytes;
    return size == 0 || bytes <= size ? 1 : bytes / size + (bytes % size != 0);
}

void ash_ratelimit_charge(struct ash_ratelimit *limit, bool write, uint64_t bytes, uint64_t now_ns)
{
    for (int kind = 0; kind < ASH_RATELIMIT_KINDS; kind++) {
        if (applies(kind, write)) {
            uint64_t amount = kind < ASH_RATELIMIT_IOPS_TOTAL ? bytes : operations(limit, bytes);
            bucket_charge(&limit->average[kind], amount, now_ns);
            bucket_charge(&limit->burst[kind], amount, now_ns);
        }
    }
}

bool ash_ratelimit_active(const struct ash_ratelimit *limit)
{
    for (int kind = 0; kind < ASH_RATELIMIT_KINDS; kind++) {
        if (limit->average[kind].rate != 0) {
            return true;
        }
    }
    return false;
}
