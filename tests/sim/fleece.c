/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A fleecing reader: a copy-before-write filter is put in the way of guests, and the disk as it was
 * at that moment is read through a snapshot-access node while they write on. Ranges that were given
 * up, and a snapshot that is broken, are refused; nothing else is. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include "block/filter/copy_before_write.h"
#include "block/graph/graft.h"
#include "block/graph/open.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"

/* While it is there it counts as the disk's job. */
static const struct sim_job fleece_job = {.type = "fleece"};

struct reader {
    struct sim_op *op;
    struct ash_node *target;
    struct ash_disk *snapshot;
    struct ash_before_write *before_write;
    bool gave_up; /* a range */
};

bool sim_legal_fleece(const struct sim_op *op)
{
    const struct sim_disk *disk = op->disk;
    return disk->fleece.format && (disk->flags & ASH_NODE_WRITE) != 0 && !disk->job &&
           !disk->resizing && disk->model.bytes > 0;
}

/* --- putting it there --- */

ASH_CO_FN static int open_target(struct reader *reader)
{
    struct sim_op *op = reader->op;
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = op->disk->fleece.format->describe(&op->disk->fleece);
    json_object_set_new(description, "node-name", json_sprintf("target%u", op->disk->number));
    int ret = ash_node_open(op->run->loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD,
                            &reader->target, &error);
    json_decref(description);
    return ret;
}

ASH_CO_FN static int insert(struct reader *reader, const char *name)
{
    struct sim_op *op = reader->op;
    struct ash_error error = ASH_ERROR_INIT;
    bool breaks_guests = ash_prng_chance(op->prng, 400);
    bool timed = ash_prng_chance(op->prng, 300);
    json_t *filter = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I}", "driver", "copy-before-write", "node-name", name, "file",
        sim_job_top(op)->name, "target", reader->target->name, "on-cbw-error",
        breaks_guests ? "break-guest-write" : "break-snapshot", "cbw-timeout", (json_int_t)timed);
    op->disk->hurried = timed && breaks_guests;
    op->disk->hurried_ever += op->disk->hurried;
    sim_moment_begin(op);
    int ret = ash_graft_insert_filter(op->run->loop, filter, &error);
    sim_moment_end(op, false);
    json_decref(filter);
    if (ret < 0) {
        sim_note(op->run, "        %s", error.message);
    }
    return ret;
}

/* --- reading --- */

/* A range that is not read again, and how it looks from then on. */
ASH_CO_FN static void give_up(struct reader *reader, uint64_t offset, uint64_t bytes)
{
    int ret = ash_disk_discard(reader->snapshot, offset, bytes);
    reader->gave_up = true;
    sim_expect(reader->op->run, ret == -EACCES ? 0 : ret, false, "giving up a range");
}

ASH_CO_FN static void read_once(struct reader *reader, uint64_t offset, uint64_t bytes)
{
    struct sim_op *op = reader->op;
    bool broken = reader->before_write->broken < 0;
    uint8_t *buffer = g_malloc(bytes + 1);
    int ret = ash_disk_read(reader->snapshot, offset, buffer, bytes);
    sim_note(op->run, "disk %u: 0x%" PRIx64 "+0x%" PRIx64 " of the snapshot: %d", op->disk->number,
             offset, bytes, ret);
    if (ret == 0 && broken) {
        sim_fail(op->run, "fleece", "disk %u: a broken snapshot is read", op->disk->number);
    }
    const char *wrong = NULL;
    if (ret == 0 && op->image) {
        wrong = model_image_compare(op->image, &op->disk->model, offset, buffer, bytes, NULL);
    }
    if (wrong) {
        sim_fail(op->run, "fleece", "disk %u, 0x%" PRIx64 "+0x%" PRIx64 " of the snapshot: %s",
                 op->disk->number, offset, bytes, wrong);
    }
    broken = reader->before_write->broken < 0;
    if (ret != -EACCES || !(broken || reader->gave_up)) {
        sim_expect(op->run, ret, false, "reading a snapshot");
    }
    g_free(buffer);
}

ASH_CO_FN static void read_on(struct reader *reader)
{
    struct sim_op *op = reader->op;
    uint64_t size = ash_disk_bytes(reader->snapshot);
    if (op->image && size != model_image_bytes(op->image)) {
        sim_fail(op->run, "fleece", "disk %u: the snapshot is %" PRIu64 " bytes long, not %" PRIu64,
                 op->disk->number, size, model_image_bytes(op->image));
    }
    for (uint64_t n = 2 + sim_below(op->prng, 8); n > 0 && size > 0; n--) {
        uint64_t offset = sim_below(op->prng, size);
        uint64_t bytes = 1 + sim_below(op->prng, MIN(size - offset, 100000));
        if (ash_sim_power_is_cut(op->run->world)) {
            return;
        }
        ash_co_sleep(sim_below(op->prng, 8 * op->run->latency_ns_max));
        if (ash_prng_chance(op->prng, 150)) {
            give_up(reader, offset, bytes);
        } else {
            read_once(reader, ash_prng_chance(op->prng, 300) ? 0 : offset, bytes);
        }
    }
}

ASH_CO_FN static int open_and_read(struct reader *reader, const char *name)
{
    struct sim_op *op = reader->op;
    struct ash_error error = ASH_ERROR_INIT;
    json_t *description = json_pack("{s:s, s:s}", "driver", "snapshot-access", "file", name);
    int ret = ash_co_disk_open(op->run->loop, description, ASH_NODE_WRITE | ASH_NODE_DISCARD,
                               &reader->snapshot, &error);
    json_decref(description);
    if (ret < 0) {
        sim_note(op->run, "        %s", error.message);
        return ret;
    }
    reader->before_write = ash_before_write_of(ash_disk_node(reader->snapshot)->file->child);
    read_on(reader);
    return ash_co_disk_close(reader->snapshot, &error);
}

int sim_run_fleece(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    struct reader reader = {.op = op};
    struct ash_error error = ASH_ERROR_INIT;
    char name[16];
    snprintf(name, sizeof(name), "cbw%u", disk->number);
    disk->job = &fleece_job;
    disk->jobs_ever++;
    int ret = sim_image_fit(op, &disk->fleece);
    ret = ret < 0 ? ret : open_target(&reader);
    if (ret == 0) {
        ret = insert(&reader, name);
        if (ret == 0) {
            ret = open_and_read(&reader, name);
            if (ash_graft_remove_filter(op->run->loop, name, &error) < 0) {
                sim_fail(op->run, "fleece", "the filter cannot be taken out: %s", error.message);
            }
        }
        int closed = ash_node_unref(reader.target);
        ret = ret < 0 ? ret : closed;
    }
    sim_await_closed(op, &disk->fleece);
    model_image_free(op->image);
    disk->hurried = false;
    disk->job = NULL;
    return ret;
}

/* It has grown meanwhile, or was reopened. */
bool sim_may_fleece(const struct sim_op *op, int ret)
{
    bool resized = op->disk->resizing || op->disk->resizes_ever != op->resizes_ever;
    bool reopened = op->disk->reopening || op->disk->verbs_ever != op->verbs_ever;
    bool odd = op->disk->layers[0].odd && op->disk->fleece.format != &sim_format_raw;
    return (ret == -ENOSPC && resized) || (ret == -EINVAL && odd) || (ret == -EACCES && reopened);
}
