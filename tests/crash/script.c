/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the guest does: four workers at once, each with a range of its own at a time, and between
 * their rounds large requests and changes of the length.
 *
 * 1. The script depends on the seed and on the results of its requests alone, so a run that is cut
 *    is, up to the cut, the run that is not.
 * 2. After the first error a session ends, unless the disk is faulty: then it goes on. */
#include <errno.h>
#include <string.h>
#include "block/io/io.h"
#include "tests/crash/run.h"

enum { WORKERS = 4, LARGE_SECTORS = 700 };

struct request {
    uint32_t first;
    uint32_t count;
};

static uint32_t below(struct run *run, uint32_t limit)
{
    return (uint32_t)ash_prng_below(&run->prng, limit);
}

static uint64_t bytes_of(uint32_t sectors)
{
    return (uint64_t)sectors * MODEL_SECTOR;
}

/* --- requests: 0 or an error --- */

ASH_CO_FN static int do_write(struct run *run, struct request r, uint32_t flags)
{
    uint8_t *buffer = g_malloc(bytes_of(r.count));
    uint32_t value = model_new_value(&run->model);
    for (uint32_t i = 0; i < r.count; i++) {
        model_stamp(buffer + bytes_of(i), value, r.first + i);
    }
    model_begin(&run->model, r.first, r.count, value);
    int ret = ash_disk_write(run->disk, bytes_of(r.first), buffer, bytes_of(r.count), flags);
    g_free(buffer);
    if (ret == 0) {
        model_completed(&run->model, r.first, r.count);
        if (flags & ASH_REQ_FUA) {
            model_durable(&run->model, r.first, r.count);
        }
    }
    return ret;
}

ASH_CO_FN static int do_zero(struct run *run, struct request r, uint32_t flags)
{
    model_begin(&run->model, r.first, r.count, 0);
    int ret = ash_disk_zero(run->disk, bytes_of(r.first), bytes_of(r.count), flags);
    if (ret == 0) {
        model_completed(&run->model, r.first, r.count);
    }
    return ret;
}

ASH_CO_FN static int do_read(struct run *run, struct request r, bool settle)
{
    uint8_t *buffer = g_malloc(bytes_of(r.count));
    int ret = ash_disk_read(run->disk, bytes_of(r.first), buffer, bytes_of(r.count));
    for (uint32_t i = 0; ret == 0 && i < r.count; i++) {
        uint32_t value;
        const char *wrong =
            model_check(&run->model, r.first + i, buffer + bytes_of(i), false, &value);
        if (wrong) {
            run_fail(run, "a read before the cut: %s", wrong);
        }
        if (settle) {
            model_settle(&run->model, r.first + i, value, false);
        }
    }
    g_free(buffer);
    return ret;
}

/* Afterwards it is what it was, or zeroes; reading says which. */
ASH_CO_FN static int do_discard(struct run *run, struct request r)
{
    model_begin(&run->model, r.first, r.count, 0);
    int ret = ash_disk_discard(run->disk, bytes_of(r.first), bytes_of(r.count));
    return ret < 0 ? ret : do_read(run, r, true);
}

ASH_CO_FN static int do_flush(struct run *run)
{
    bool broken = run->flush_broken;
    uint32_t *mark = model_flush_begin(&run->model);
    int ret = ash_disk_flush(run->disk);
    model_flush_end(&run->model, mark, ret == 0);
    if (broken && ret == 0) {
        run_fail(run, "a flush ended well after one of the image's file had failed");
    }
    return ret;
}

ASH_CO_FN static int do_resize(struct run *run, uint32_t sectors)
{
    struct ash_error error = ASH_ERROR_INIT;
    uint32_t low = sectors < run->model.sectors ? sectors : run->model.sectors;
    bool unsupported = run->v2 && run->backing && sectors < run->model.sectors;
    if (unsupported || !model_claim(&run->model, low, run->model.sectors_max - low)) {
        return 0;
    }
    model_resize_begin(&run->model, sectors);
    int prealloc = ASH_PREALLOC_OFF;
    if (sectors > run->model.sectors && below(run, 2) == 0) {
        prealloc = (int)below(run, ASH_PREALLOC_FULL + 1);
    }
    int ret = ash_co_disk_resize(run->disk, bytes_of(sectors), ASH_RESIZE_SHRINK, prealloc, &error);
    if (ret == 0) {
        model_resize_end(&run->model, sectors, run->unit);
    } else {
        run->model.sectors = (uint32_t)(ash_disk_bytes(run->disk) / MODEL_SECTOR);
    }
    model_release(&run->model, low, run->model.sectors_max - low);
    return ret;
}

/* --- what to do next --- */

/* A range near one of the spots, most often. */
static struct request choose(struct run *run, uint32_t count_max)
{
    uint32_t sectors = run->model.sectors;
    uint32_t first = below(run, sectors);
    if (below(run, 4) != 0) {
        first = (run->spots[below(run, 3)] + below(run, 3 * run->unit + 4)) % sectors;
    }
    struct request r = {first, 1 + below(run, count_max)};
    if (below(run, 3) == 0) { /* whole clusters */
        r.first -= r.first % run->unit;
        r.count = (r.count + run->unit - 1) / run->unit * run->unit;
    }
    r.count = MIN(r.count, sectors - r.first);
    return r;
}

static struct request whole_units(const struct run *run, struct request r)
{
    uint32_t end = (r.first + r.count + run->unit - 1) / run->unit * run->unit;
    r.first -= r.first % run->unit;
    r.count = MIN(end, run->model.sectors) - r.first;
    return r;
}

ASH_CO_FN static int perform(struct run *run, struct request r, uint32_t which)
{
    switch (which) {
    case 0:
        return do_zero(run, r, 0);
    case 1:
        return do_zero(run, r, ASH_REQ_UNMAP);
    case 2:
    case 3:
        return do_discard(run, r);
    case 4:
        return do_read(run, r, false);
    case 5:
        return do_write(run, r, ASH_REQ_FUA);
    case 6:
    case 7:
        return do_write(run, r, ASH_IO_COMPRESS);
    default:
        return do_write(run, r, 0);
    }
}

ASH_CO_FN static int one_request(struct run *run, uint32_t count_max)
{
    uint32_t which = below(run, 15);
    if (which == 14) {
        return do_flush(run);
    }
    struct request r = choose(run, count_max);
    if (which == 6 || which == 7) {
        r = whole_units(run, r);
    }
    if (!model_claim(&run->model, r.first, r.count)) {
        return 0;
    }
    int ret = perform(run, r, which);
    model_release(&run->model, r.first, r.count);
    return ret;
}

/* Whether the session goes on after this result. */
static bool note(struct run *run, int ret)
{
    if (ret < 0) {
        run->errors++;
        run->failed |= !run->faulty || ash_sim_power_is_cut(run->world);
        if (!run->faulty && !ash_sim_power_is_cut(run->world)) {
            run_fail(run, "a request failed with %d (%s) and nothing was wrong", ret,
                     strerror(-ret));
        }
    }
    return !run->failed;
}

static void worker(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    for (uint32_t n = run->requests; n > 0 && !run->failed; n--) {
        note(run, one_request(run, run->unit * 2 + 3));
    }
    if (--run->workers == 0) {
        ash_co_wake(run->waiter);
    }
}

ASH_CO_FN static void together(struct run *run)
{
    run->workers = WORKERS;
    run->waiter = ash_co_self();
    for (uint32_t i = 0; i < WORKERS; i++) {
        if (ash_co_spawn(&run->loop->sched, worker, run) < 0) {
            run_fail(run, "no coroutine");
        }
    }
    ash_co_yield();
}

/* Ends with a flush half the time. */
ASH_CO_FN static void alone(struct run *run)
{
    uint32_t old = run->model.sectors;
    uint32_t sectors = old;
    switch (below(run, 4)) {
    case 0: /* by a little, inside a cluster perhaps */
        sectors = old - below(run, old / 4);
        break;
    case 1:
        sectors = old + below(run, run->model.sectors_max - old + 1);
        break;
    }
    if (sectors != old) {
        note(run, do_resize(run, sectors));
    }
    for (uint32_t n = below(run, 3); n > 0 && !run->failed; n--) {
        note(run, one_request(run, LARGE_SECTORS));
    }
    if (!run->failed && below(run, 2) == 0) {
        note(run, do_flush(run));
    }
}

static uint32_t session_size;

static int session(void *opaque)
{
    ash_co_assert_inside();
    struct run *run = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = run_open(run, ASH_NODE_WRITE | ASH_NODE_DISCARD, &error);
    if (ret < 0) {
        if (!run->faulty && !ash_sim_power_is_cut(run->world)) {
            run_fail(run, "cannot be opened for writing: %s", error.message);
        }
        return ret;
    }
    for (uint32_t i = 0; i < 2 && !run->failed; i++) {
        run->requests = session_size;
        together(run);
        if (!run->failed) {
            alone(run);
        }
    }
    uint32_t *mark = model_flush_begin(&run->model);
    bool broken = run->flush_broken;
    ret = ash_co_disk_close(run->disk, &error);
    model_flush_end(&run->model, mark, ret == 0);
    if (ret == 0 && broken) {
        run_fail(run, "closing ended well after a flush of the image's file had failed");
    }
    note(run, ret);
    return run->failed || ret < 0 ? -EIO : 0;
}

int run_session(struct run *run, uint32_t size)
{
    run->failed = false;
    run->errors = 0;
    run->flush_broken = false;
    session_size = size;
    return run_call(run, session);
}
