/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Requests: reads, writes of all kinds, zeroes, discards, flushes, block status. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include "tests/sim/bitmap.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"
#include "tests/sim/stamp.h"
#include "tests/sim/step.h"

/* --- legal --- */

bool sim_legal_write(const struct sim_op *op)
{
    return (op->disk->flags & ASH_NODE_WRITE) != 0;
}

bool sim_legal_compress(const struct sim_op *op)
{
    return sim_legal_write(op) && (op->disk->layers[0].format->flags & SIM_FORMAT_COMPRESS) != 0;
}

/* --- arguments --- */

static uint64_t draw_length(struct sim_op *op, uint64_t left)
{
    uint64_t unit = op->disk->layers[0].unit_bytes;
    uint64_t most = 0;
    switch (sim_below(op->prng, 8)) {
    case 0:
        return MIN(left, 1 + sim_below(op->prng, 40));
    case 1:
    case 2:
        most = 512;
        break;
    case 3:
    case 4:
        most = unit;
        break;
    case 5:
    case 6:
        most = 3 * unit;
        break;
    default:
        most = 65536;
        break;
    }
    return 1 + sim_below(op->prng, MIN(left, most));
}

/* A range of the disk, near one of its spots most often. */
static bool draw_range(struct sim_op *op)
{
    uint64_t size = op->disk->model.bytes;
    uint64_t unit = op->disk->layers[0].unit_bytes;
    if (size == 0) {
        return false;
    }
    uint64_t offset = sim_below(op->prng, size);
    if (!ash_prng_chance(op->prng, 200)) {
        uint64_t spot = op->disk->spots[sim_below(op->prng, SIM_SPOTS)];
        offset = (spot + sim_below(op->prng, MAX(2 * unit, 2048))) % size;
    }
    uint64_t bytes = draw_length(op, size - offset);
    switch (sim_below(op->prng, 4)) {
    case 0: /* whole units */
        offset -= offset % unit;
        bytes = (bytes + unit - 1) / unit * unit;
        break;
    case 1: /* whole sectors */
    case 2:
        offset -= offset % 512;
        bytes = (bytes + 511) / 512 * 512;
        break;
    }
    op->io.offset = offset;
    op->io.bytes = MIN(bytes, size - offset);
    return true;
}

/* Cuts the buffer into pieces, empty ones too. */
static void draw_pieces(struct sim_op *op)
{
    uint8_t *at = op->buffer;
    uint64_t left = op->io.bytes;
    uint32_t count = 0;
    while (left > 0 && count < SIM_PIECES_MAX - 1 && ash_prng_chance(op->prng, 350)) {
        uint64_t piece = sim_below(op->prng, left + 1);
        op->vec[count++] = (struct iovec){at, piece};
        at += piece;
        left -= piece;
    }
    op->vec[count++] = (struct iovec){at, left};
    op->io.iov = ash_iov_of(op->vec, count);
}

/* Where memory lies decides whether direct I/O copies it: so this too is drawn. */
static void new_buffer(struct sim_op *op)
{
    static const uint32_t offsets[] = {0, 0, 0, 512, 16, 8, 1};
    uint64_t offset = offsets[sim_below(op->prng, G_N_ELEMENTS(offsets))];
    if (posix_memalign(&op->memory, 4096, op->io.bytes + offset) != 0) {
        sim_fail(op->run, "machine", "no memory");
    }
    op->buffer = (uint8_t *)op->memory + offset;
    draw_pieces(op);
}

bool sim_draw_read(struct sim_op *op)
{
    op->io.op = ASH_READ;
    if (!draw_range(op)) {
        return false;
    }
    new_buffer(op);
    memset(op->buffer, 0xee, op->io.bytes);
    return true;
}

/* A buffer is copied so much at a time: where one copy ends no sector need end. */
enum { SCRIBBLED_BYTES_MAX = 1 << 20 };

/* Whoever writes may change the buffer meanwhile: then it is either. */
static void draw_scribble(struct sim_op *op)
{
    if (ash_prng_chance(op->prng, 200) && op->io.bytes < SCRIBBLED_BYTES_MAX) {
        op->scribble_at = sim_below(op->prng, op->io.bytes);
        op->scribble_bytes = 1 + sim_below(op->prng, op->io.bytes - op->scribble_at);
        op->scribble_value = ash_prng_chance(op->prng, 200) ? 0 : model_new_value(&op->disk->model);
    }
}

bool sim_draw_write(struct sim_op *op)
{
    op->io.op = ASH_WRITE;
    if (!draw_range(op)) {
        return false;
    }
    new_buffer(op);
    op->value = ash_prng_chance(op->prng, 60) ? 0 : model_new_value(&op->disk->model);
    stamp_fill(op->value, op->io.offset, op->buffer, op->io.bytes);
    draw_scribble(op);
    return true;
}

bool sim_draw_fua(struct sim_op *op)
{
    op->io.flags = ASH_REQ_FUA;
    return sim_draw_write(op);
}

bool sim_draw_compress(struct sim_op *op)
{
    uint64_t size = op->disk->model.bytes;
    uint64_t unit = op->disk->layers[0].unit_bytes;
    op->io.op = ASH_WRITE;
    op->io.flags = ASH_IO_COMPRESS;
    if (!draw_range(op)) {
        return false;
    }
    uint64_t end = (op->io.offset + op->io.bytes + unit - 1) / unit * unit;
    op->io.offset -= op->io.offset % unit;
    op->io.bytes = MIN(end, size) - op->io.offset;
    new_buffer(op);
    op->value = model_new_value(&op->disk->model);
    stamp_fill(op->value, op->io.offset, op->buffer, op->io.bytes);
    draw_scribble(op);
    return true;
}

bool sim_draw_zero(struct sim_op *op)
{
    static const uint32_t flags[] = {0,
                                     0,
                                     ASH_REQ_UNMAP,
                                     ASH_REQ_UNMAP,
                                     ASH_REQ_FUA,
                                     ASH_REQ_FUA | ASH_REQ_UNMAP,
                                     ASH_REQ_NO_FALLBACK};
    op->io.op = ASH_ZERO;
    op->io.flags = flags[sim_below(op->prng, G_N_ELEMENTS(flags))];
    return draw_range(op);
}

bool sim_draw_discard(struct sim_op *op)
{
    op->io.op = ASH_DISCARD;
    return draw_range(op);
}

bool sim_draw_flush(struct sim_op *op)
{
    op->io.op = ASH_FLUSH;
    return true;
}

bool sim_draw_status(struct sim_op *op)
{
    op->io.op = ASH_STATUS;
    op->io.status = &op->status;
    op->io.flags = ash_prng_chance(op->prng, 500) ? ASH_IO_STATUS_ZEROES : 0;
    return draw_range(op);
}

/* --- what the model learns before --- */

void sim_begin_read(struct sim_op *op)
{
    model_read_begin(&op->disk->model, &op->model, op->io.offset, op->io.bytes);
}

static void scribble(struct ash_timer *timer)
{
    struct sim_op *op = ash_container_of(timer, struct sim_op, scribble);
    stamp_fill(op->scribble_value, op->io.offset + op->scribble_at, op->buffer + op->scribble_at,
               op->scribble_bytes);
    sim_note(op->run, "disk %u guest %u: scribbles", op->disk->number, op->guest->number);
}

void sim_begin_write(struct sim_op *op)
{
    struct model *model = &op->disk->model;
    op->durable = (op->io.flags & ASH_REQ_FUA) != 0 || op->disk->write_through;
    model_write_begin(model, &op->model, op->io.offset, op->io.bytes, op->value);
    if (op->scribble_bytes > 0) {
        model_write_other(model, &op->model, op->io.offset + op->scribble_at, op->scribble_bytes,
                          op->scribble_value);
        ash_timer_init(&op->scribble, scribble);
        ash_timer_set(op->run->loop, &op->scribble,
                      ash_loop_now(op->run->loop) +
                          sim_below(op->prng, 2 * op->run->latency_ns_max + 1));
    }
}

void sim_begin_flush(struct sim_op *op)
{
    model_flush_begin(&op->disk->model, &op->model);
}

/* --- carrying out --- */

static void completed(void *opaque, const struct ash_cqe *cqe, uint32_t count)
{
    struct sim_op *op = opaque;
    if (count != 1) {
        sim_fail(op->run, "queue", "%u completions of one request", count);
    }
    op->result = cqe->result;
    if (op->io.op == ASH_STATUS && cqe->result >= 0) {
        op->status =
            (struct ash_status){.flags = (uint32_t)cqe->result, .bytes = cqe->status_bytes};
    }
    ash_co_wake(op->waiter);
}

/* As a program does it. */
ASH_CO_FN static int run_queued(struct sim_op *op)
{
    struct ash_queue *queue;
    struct ash_req request = {.op = op->io.op,
                              .flags = op->io.flags,
                              .offset = op->io.offset,
                              .bytes = op->io.bytes,
                              .iov = op->io.iov.vec,
                              .iov_count = op->io.iov.count};
    if (ash_queue_new(op->disk->disk, 1, &queue, NULL) < 0) {
        sim_fail(op->run, "queue", "cannot be made");
    }
    ash_queue_on_complete(queue, completed, op);
    op->waiter = ash_co_self();
    if (ash_queue_submit(queue, &request, 1) != 1) {
        sim_fail(op->run, "queue", "takes no request");
    }
    ash_co_yield();
    ash_queue_free(queue);
    return op->result;
}

int sim_run_io(struct sim_op *op)
{
    bool can_be_queued = (op->io.flags & ~ASH_IO_PUBLIC_FLAGS) == 0;
    int ret;
    if (can_be_queued && ash_prng_chance(op->prng, 250)) {
        ret = run_queued(op);
    } else {
        ret = ash_disk_io(op->disk->disk, &op->io);
    }
    if (op->scribble_bytes > 0) {
        ash_timer_cancel(op->run->loop, &op->scribble);
    }
    return ret;
}

bool sim_may_zero(const struct sim_op *op, int ret)
{
    return ret == -ENOTSUP && (op->io.flags & ASH_REQ_NO_FALLBACK) != 0;
}

/* A unit that was the last one, and not complete, when the request was made. */
bool sim_may_compress(const struct sim_op *op, int ret)
{
    uint64_t end = op->io.offset + op->io.bytes;
    const struct sim_job *job = op->disk->job;
    bool moved = op->moved != op->disk->moved || (job && job->moves);
    if ((ret == -EINVAL || ret == -ENOTSUP) && moved) {
        return true; /* it came to an image of another format */
    }
    return ret == -EINVAL && end % op->disk->layers[0].unit_bytes != 0 &&
           (op->disk->resizing || op->disk->model.bytes != end);
}

/* --- what the model learns after --- */

void sim_end_read(struct sim_op *op, int ret)
{
    const char *wrong = model_read_end(&op->disk->model, &op->model, ret == 0 ? op->buffer : NULL);
    if (wrong) {
        sim_fail(op->run, "content", "disk %u guest %u read 0x%" PRIx64 "+0x%" PRIx64 ": %s",
                 op->disk->number, op->guest->number, op->io.offset, op->io.bytes, wrong);
    }
}

/* A range that is said to be zero is a read of zeroes. */
void sim_end_status(struct sim_op *op, int ret)
{
    const struct ash_status *status = &op->status;
    uint8_t *zeroes = NULL;
    if (ret >= 0 && (status->bytes == 0 || status->bytes > op->io.bytes)) {
        sim_fail(op->run, "status", "disk %u: the answer holds for %" PRIu64 " bytes of %" PRIu64,
                 op->disk->number, status->bytes, op->io.bytes);
    }
    if (ret >= 0 && (status->flags & ASH_STATUS_ZERO) != 0) {
        zeroes = g_malloc0(op->io.bytes);
        op->model.bytes = status->bytes;
    }
    const char *wrong = model_read_end(&op->disk->model, &op->model, zeroes);
    if (wrong) {
        sim_fail(op->run, "status",
                 "disk %u guest %u status 0x%" PRIx64 "+0x%" PRIx64 " says zero: %s",
                 op->disk->number, op->guest->number, op->io.offset, op->model.bytes, wrong);
    }
    g_free(zeroes);
}

static bool is_durable(const struct sim_op *op)
{
    return (op->io.flags & ASH_REQ_FUA) != 0 || (op->durable && op->disk->write_through);
}

void sim_end_write(struct sim_op *op, int ret)
{
    model_write_end(&op->disk->model, &op->model, ret == 0 ? HISTORY_DONE : HISTORY_FAILED,
                    is_durable(op));
    if (ret == 0) {
        sim_bitmaps_changed(op->disk, &op->model);
    }
}

void sim_end_discard(struct sim_op *op, int ret)
{
    model_write_end(&op->disk->model, &op->model, ret == 0 ? HISTORY_MAYBE : HISTORY_FAILED, false);
}

void sim_end_flush(struct sim_op *op, int ret)
{
    model_flush_end(&op->disk->model, &op->model, ret == 0);
}
