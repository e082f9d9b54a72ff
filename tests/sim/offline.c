/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is done to an image that no guest uses: another backing file for it, or what it holds into
 * its backing file. The disk is closed, opened without filters, worked on, and opened again. Its
 * contents stay what they are, also when the work fails or the power is cut at any time on the way.
 */
#include <errno.h>
#include <string.h>
#include "block/graph/graft.h"
#include "block/image/image.h"
#include "block/image/rebase.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"

typedef int work_fn(struct sim_op *op);

bool sim_legal_offline(const struct sim_op *op)
{
    const struct sim_disk *disk = op->disk;
    return (disk->flags & ASH_NODE_WRITE) != 0 && !disk->job && sim_job_top(op)->backing != NULL &&
           sim_disk_told_by_headers(disk);
}

/* The layer of an image in the chain, `depth` below the top; NULL: there is none. */
static const struct sim_layer *layer_below(const struct sim_op *op, uint64_t depth)
{
    const struct ash_node *node = sim_job_top(op);
    for (; depth > 0 && node != NULL; depth--) {
        node = node->backing ? node->backing->child : NULL;
    }
    for (uint32_t i = 0; node != NULL && i < op->disk->layer_count; i++) {
        if (strcmp(op->disk->layers[i].file, node->file->child->filename) == 0) {
            return &op->disk->layers[i];
        }
    }
    return NULL;
}

/* Closes the disk and opens it again, with filters or without. */
ASH_CO_FN static int open_again(struct sim_disk *disk, uint32_t flags, bool filtered)
{
    struct ash_error error = ASH_ERROR_INIT;
    int ret = disk->disk ? sim_disk_close(disk, &error) : 0;
    disk->filtered = filtered;
    if (ret == 0) { /* otherwise the next life sees what is left */
        ret = sim_disk_open(disk, flags, &error);
    }
    if (ret < 0) {
        sim_note(disk->run, "        %s", error.message);
    }
    return ret;
}

ASH_CO_FN static int offline(struct sim_op *op, ASH_CO_PTR work_fn *work)
{
    struct sim_disk *disk = op->disk;
    uint32_t flags = disk->flags;
    disk->streamed = true; /* from now on the headers alone know the chain */
    int ret = open_again(disk, (flags & ~ASH_NODE_DIRECT) | ASH_NODE_DISCARD, false);
    if (ret < 0) {
        return ret;
    }
    ret = work(op);
    int opened = open_again(disk, flags, true);
    return ret < 0 ? ret : opened;
}

/* An image may have to be repaired before it can be written. */
bool sim_may_offline(const struct sim_op *op, int ret)
{
    bool lazy = false;
    for (uint32_t i = 0; i < op->disk->layer_count; i++) {
        lazy |= op->disk->layers[i].lazy;
    }
    return ret == -EBUSY && lazy;
}

/* --- rebase --- */

ASH_CO_FN static int rebase(struct sim_op *op)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_rebase work = {.overlay = op->disk->disk};
    const struct sim_layer *base = layer_below(op, op->bytes);
    int ret = 0;
    if (base != NULL) {
        json_t *description = base->format->describe(base);
        ret = ash_co_disk_open(op->run->loop, description, 0, &work.backing, &error);
        json_decref(description);
    }
    ret = ret < 0 ? ret : ash_image_rebase(&work, &error);
    int closed = work.backing ? ash_co_disk_close(work.backing, NULL) : 0;
    ret = ret < 0 ? ret : closed;
    if (ret == 0) {
        ret = ash_image_set_backing(op->disk->disk, base ? base->file : NULL,
                                    base ? base->format->name : NULL, &error);
    }
    sim_note(op->run, "        onto %s: %d %s", base ? base->file : "nothing", ret, error.message);
    return ret;
}

bool sim_draw_rebase(struct sim_op *op)
{
    op->bytes = 1 + sim_below(op->prng, 4); /* so many layers below the top; or onto nothing */
    return true;
}

int sim_run_rebase(struct sim_op *op)
{
    return offline(op, rebase);
}

/* --- commit --- */

/* Base gets what the image holds, which then is given up. */
ASH_CO_FN static int commit(struct sim_op *op)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_node *top = sim_job_top(op);
    struct ash_job *job;
    json_t *description = json_pack("{s:s, s:s, s:s, s:b}", "type", "commit", "device", top->name,
                                    "base-node", top->backing->child->name, "auto-dismiss", 0);
    json_object_set_new(description, "job-id", json_sprintf("image-commit-%u", op->disk->number));
    int ret = ash_co_job_start(op->run->loop, description, NULL, NULL, &job, &error);
    json_decref(description);
    if (ret < 0) {
        sim_note(op->run, "        %s", error.message);
        return ret;
    }
    while (ash_job_state(job) != ASH_JOB_CONCLUDED) {
        if (ash_job_state(job) == ASH_JOB_READY) {
            (void)!ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL);
        }
        ash_co_sleep(1 + op->run->latency_ns_max);
    }
    ret = job->ret;
    sim_note(op->run, "        committed: %d %s", ret, job->error.message);
    (void)!ash_co_job_control(job, ASH_JOB_DISMISS, 0, NULL);
    ash_job_unref(job);
    return ret < 0 ? ret : ash_image_empty(op->disk->disk, &error);
}

int sim_run_image_commit(struct sim_op *op)
{
    for (uint32_t i = 0; i < op->disk->layer_count; i++) {
        op->disk->layers[i].leaky = true; /* they are opened for writing, and a cut may come */
    }
    return offline(op, commit);
}
