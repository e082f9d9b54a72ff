/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Holding a guest back just enough; see the header. */
#include "job/converge.h"
#include "util/assert.h"
#include "util/range.h"

#define WINDOW_NS UINT64_C(250000000)
#define WINDOWS_PER_SECOND 4
#define LITTLE_BYTES (8 * MiB) /* so much is copied in one go while the guest is paused */

/* What was dirtied anew: what is dirty now and was not before, or was copied meanwhile. */
static uint64_t dirtied(uint64_t last_dirty, uint64_t dirty, uint64_t copied)
{
    uint64_t sum = dirty + copied;
    return sum > last_dirty ? sum - last_dirty : 0;
}

uint64_t ash_converge_next(uint64_t limit, uint64_t floor, bool ready, uint64_t last_dirty,
                           uint64_t dirty, uint64_t copied, uint64_t written)
{
    uint64_t fresh = dirtied(last_dirty, dirty, copied);
    uint64_t rate = written * WINDOWS_PER_SECOND;
    if (ready && dirty <= LITTLE_BYTES) {
        uint64_t more = limit * 2;
        return more > 4 * rate ? 0 : more;
    }
    bool falls = dirty < last_dirty - last_dirty / 64;
    uint64_t bearable = copied / 4 * 3;
    if (falls || fresh <= bearable || fresh == 0) {
        return limit;
    }
    uint64_t lower = (uint64_t)((double)rate * (double)bearable / (double)fresh);
    lower = limit != 0 ? ASH_MIN(limit, lower) : lower;
    return ASH_MAX(lower, floor);
}

static void set_limit(struct ash_converge *converge, uint64_t limit)
{
    if (limit != converge->limit) {
        struct ash_ratelimit_config config = {0};
        for (int kind = 0; kind < ASH_RATELIMIT_KINDS; kind++) {
            config.limit[kind].length = 1;
        }
        config.limit[ASH_RATELIMIT_BPS_WRITE].average = limit;
        ash_throttle_set(converge->member.group, &config);
        converge->limit = limit;
    }
}

static void note(struct ash_converge *converge)
{
    converge->last_dirty = ash_bitmap_dirty_bytes(converge->dirty);
    converge->last_done = atomic_load_explicit(&converge->job->done_bytes, memory_order_relaxed);
    converge->last_written = converge->top->written_bytes;
}

/* From what was gained in the window. */
static uint64_t forecast_ns(uint64_t last_dirty, uint64_t dirty, uint64_t copied)
{
    uint64_t fresh = dirtied(last_dirty, dirty, copied);
    if (copied <= fresh) {
        return UINT64_MAX;
    }
    double windows = (double)dirty / (double)(copied - fresh);
    return windows < 1e9 ? (uint64_t)(windows * (double)WINDOW_NS) + 1 : UINT64_MAX;
}

static void window_over(struct ash_timer *timer)
{
    struct ash_converge *converge = ash_container_of(timer, struct ash_converge, timer);
    struct ash_job *job = converge->job;
    uint64_t dirty = ash_bitmap_dirty_bytes(converge->dirty);
    uint64_t copied =
        atomic_load_explicit(&job->done_bytes, memory_order_relaxed) - converge->last_done;
    uint64_t written = converge->top->written_bytes - converge->last_written;
    uint64_t limit = 0; /* a job that is paused holds nobody back */
    if (job->pauses == 0) {
        limit =
            ash_converge_next(converge->limit, converge->floor, ash_job_state(job) == ASH_JOB_READY,
                              converge->last_dirty, dirty, copied, written);
        atomic_store_explicit(&job->forecast_ns, forecast_ns(converge->last_dirty, dirty, copied),
                              memory_order_relaxed);
    }
    set_limit(converge, limit);
    note(converge);
    ash_timer_set(job->loop, timer, ash_loop_now(job->loop) + WINDOW_NS);
}

void ash_converge_start(struct ash_converge *converge, struct ash_job *job, struct ash_node *filter,
                        const struct ash_bitmap *dirty, uint64_t floor)
{
    struct ash_ratelimit_config config = {0};
    ash_assert(converge->job == NULL);
    converge->job = job;
    converge->top = ash_mirror_top_of(filter);
    converge->dirty = dirty;
    converge->floor = floor;
    converge->limit = 0;
    ash_throttle_join(&converge->member, ash_throttle_group_new(job->loop, &config), filter);
    converge->top->limit = &converge->member;
    note(converge);
    ash_timer_init(&converge->timer, window_over);
    ash_timer_set(job->loop, &converge->timer, ash_loop_now(job->loop) + WINDOW_NS);
}

void ash_converge_stop(struct ash_converge *converge)
{
    if (converge->job != NULL) {
        ash_timer_cancel(converge->job->loop, &converge->timer);
        converge->top->limit = NULL;
        ash_throttle_leave(&converge->member);
        atomic_store_explicit(&converge->job->forecast_ns, 0, memory_order_relaxed);
        converge->job = NULL;
    }
}
