/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Verbs: what is done to a disk while guests use it. */
#include <errno.h>
#include <inttypes.h>
#include "tests/sim/bitmap.h"
#include "tests/sim/format.h"
#include "tests/sim/step.h"

/* --- resize --- */

bool sim_legal_resize(const struct sim_op *op)
{
    return !op->disk->resizing && (op->disk->flags & ASH_NODE_WRITE) != 0;
}

bool sim_draw_resize(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    const struct sim_layer *top = &disk->layers[0];
    uint64_t old = disk->model.bytes;
    uint64_t bytes = ash_prng_chance(op->prng, 500)
                         ? old - sim_below(op->prng, old / 3 + 1)
                         : old + sim_below(op->prng, disk->model.bytes_max - old + 1);
    if (!top->odd || disk->logged) {
        bytes = (top->offset + bytes) / 4096 * 4096;
        bytes = bytes > top->offset ? bytes - top->offset : 4096 - top->offset % 4096;
    }
    if (top->format != &sim_format_raw && ash_prng_chance(op->prng, 500)) {
        bytes += sim_below(op->prng, 8) * 512;
    }
    op->bytes = MIN(bytes, disk->model.bytes_max / 512 * 512);
    if (op->bytes > old && ash_prng_chance(op->prng, 300)) {
        op->mode = (int)sim_below(op->prng, ASH_PREALLOC_FULL + 1);
    }
    return op->bytes != old &&
           (!top->format->may_resize || top->format->may_resize(disk, top, op->bytes));
}

void sim_begin_resize(struct sim_op *op)
{
    op->disk->resizing = true;
    op->disk->verbs++;
    op->disk->verbs_ever++;
    op->disk->resizes_ever++;
    model_resize_begin(&op->disk->model, &op->model, op->bytes);
}

int sim_run_resize(struct sim_op *op)
{
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_co_disk_resize(op->disk->disk, op->bytes, ASH_RESIZE_SHRINK, op->mode, &error);
    if (ret < 0) {
        sim_note(op->run, "        %s", error.message);
    }
    return ret;
}

void sim_end_resize(struct sim_op *op, int ret)
{
    uint64_t now = ash_disk_bytes(op->disk->disk);
    op->disk->resizing = false;
    op->disk->verbs--;
    if (ret < 0 && op->mode == ASH_PREALLOC_FULL && op->bytes > now) {
        op->disk->part_grown = MAX(op->disk->part_grown, op->bytes);
    }
    if (ret == 0 && now != op->bytes) {
        sim_fail(op->run, "length", "a resize to %" PRIu64 " made it %" PRIu64, op->bytes, now);
    }
    model_resize_end(&op->disk->model, &op->model, ret == 0 ? HISTORY_DONE : HISTORY_FAILED, now,
                     false);
    sim_bitmaps_resized(op->disk);
    if (ret == 0 && now == op->model.offset + op->model.bytes) { /* it grew */
        sim_bitmaps_changed(op->disk, &op->model);
    }
}

bool sim_may_resize(const struct sim_op *op, int ret)
{
    bool falloc =
        op->mode == ASH_PREALLOC_FALLOC && (op->run->unsupported & ASH_SIM_NO_ALLOCATE) != 0;
    bool metadata =
        op->mode == ASH_PREALLOC_METADATA && op->disk->layers[0].format == &sim_format_raw;
    return ret == -ENOTSUP && (falloc || metadata);
}

/* --- pause --- */

bool sim_draw_pause(struct sim_op *op)
{
    op->bytes = ash_prng_chance(op->prng, 400)
                    ? UINT64_MAX
                    : ash_loop_now(op->run->loop) + sim_below(op->prng, op->run->latency_ns_max);
    return true;
}

int sim_run_pause(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    int ret = ash_disk_pause(disk->disk, op->bytes);
    if (ret < 0) {
        return ret;
    }
    for (uint64_t n = sim_below(op->prng, 3); n > 0; n--) {
        if (disk->disk->user.in_flight > 0) {
            sim_fail(op->run, "pause", "disk %u: %u requests in flight while it is paused",
                     disk->number, disk->disk->user.in_flight);
        }
        ash_co_sleep(sim_below(op->prng, op->run->latency_ns_max));
    }
    ash_disk_resume(disk->disk);
    return 0;
}

bool sim_may_pause(const struct sim_op *op, int ret)
{
    return ret == -ETIMEDOUT && op->bytes != UINT64_MAX;
}

/* --- reopen --- */

bool sim_legal_reopen(const struct sim_op *op)
{
    return !op->disk->reopening;
}

bool sim_draw_reopen(struct sim_op *op)
{
    uint32_t flags = op->disk->flags & ~(ASH_NODE_WRITE | ASH_NODE_DIRECT);
    if (ash_prng_chance(op->prng, (op->disk->flags & ASH_NODE_WRITE) ? 600 : 900)) {
        flags |= ASH_NODE_WRITE;
    }
    if (ash_prng_chance(op->prng, 300) && sim_disk_may_be_direct(op->disk)) {
        flags |= ASH_NODE_DIRECT;
    }
    op->io.flags = flags;
    op->mode = ash_prng_chance(op->prng, 200);
    return true;
}

/* What a disk promises of its writes changes with it: weaker from the beginning, stronger at the
 * end. It flushes what was written before. Who wants to write meanwhile may be refused. */
int sim_run_reopen(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    struct ash_error error = ASH_ERROR_INIT;
    struct model_op flush;
    bool wrote = (disk->flags & ASH_NODE_WRITE) != 0;
    uint32_t before = disk->flags;
    bool before_through = disk->write_through;
    disk->reopening = true;
    disk->verbs++;
    disk->verbs_ever++;
    disk->write_through &= op->mode;
    model_flush_begin(&disk->model, &flush);
    int ret = ash_disk_reopen(disk->disk, op->io.flags, op->mode, &error);
    model_flush_end(&disk->model, &flush, ret == 0 && wrote);
    disk->flags = ret == 0 ? op->io.flags : before;
    disk->write_through = ret == 0 ? op->mode : before_through;
    disk->reopening = false;
    disk->verbs--;
    if (ret < 0) {
        sim_note(op->run, "        %s", error.message);
    }
    return ret;
}

/* A job needs to write. */
bool sim_may_reopen(const struct sim_op *op, int ret)
{
    bool job = op->beside_job || op->disk->jobs_ever != op->jobs_ever;
    return ret == -EACCES && job && (op->io.flags & ASH_NODE_WRITE) == 0;
}

/* --- close and open again --- */

int sim_run_close(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    struct ash_error error = ASH_ERROR_INIT;
    uint32_t flags = disk->flags | ASH_NODE_WRITE;
    int ret = sim_disk_close(disk, &error);
    if (ret == 0) { /* otherwise the next life sees what is left */
        ret = sim_disk_open(disk, flags, &error);
    }
    if (ret < 0) {
        sim_note(op->run, "        %s", error.message);
    }
    return ret;
}

/* --- sleep --- */

bool sim_draw_sleep(struct sim_op *op)
{
    op->bytes = sim_below(op->prng, 4 * op->run->latency_ns_max);
    return true;
}

int sim_run_sleep(struct sim_op *op)
{
    ash_co_sleep(op->bytes);
    return 0;
}
