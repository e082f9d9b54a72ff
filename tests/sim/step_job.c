/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs: a step that starts one, steers it, and waits for its end. */
#include "job/job.h"
#include "tests/sim/format.h"
#include "tests/sim/step.h"
#include <errno.h>

/* What the headers do not tell cannot be opened again once streaming has
 * changed them. */
bool sim_legal_stream(const struct sim_op *op)
{
    const struct sim_disk *disk = op->disk;
    return (disk->flags & ASH_NODE_WRITE) != 0 && !disk->streaming && !disk->reopening &&
           !disk->resizing && ash_disk_node(disk->disk)->backing != NULL &&
           sim_disk_told_by_headers(disk);
}

bool sim_draw_stream(struct sim_op *op)
{
    op->bytes = sim_below(op->prng, op->disk->layer_count); /* layers that are left below */
    op->mode = ash_prng_chance(op->prng, 300);              /* it is cancelled */
    return true;
}

static json_t *describe(const struct sim_op *op)
{
    struct ash_node *node = ash_disk_node(op->disk->disk);
    json_t *description =
        json_pack("{s:s, s:s, s:b}", "type", "stream", "device", node->name, "auto-dismiss", 0);
    struct ash_node *chain[SIM_LAYERS_MAX + 1];
    uint64_t count = 0;
    for (; node != NULL && count < G_N_ELEMENTS(chain);
         node = node->backing ? node->backing->child : NULL) {
        chain[count++] = node;
    }
    if (op->bytes > 0 && op->bytes < count) { /* so many layers stay below it */
        const char *base = chain[count - op->bytes]->name;
        json_object_set_new(description, "base-node", json_string(base));
    }
    return description;
}

/* The last event comes after the job was dismissed. */
static void hear(void *opaque, struct ash_job *job, enum ash_job_event event)
{
    struct sim_disk *disk = opaque;
    (void)job;
    (void)event;
    ash_co_queue_wake_all(&disk->job_waiters);
}

ASH_CO_FN static void steer(struct sim_op *op, struct ash_job *job)
{
    for (uint64_t n = sim_below(op->prng, 3); n > 0; n--) {
        ash_co_sleep(sim_below(op->prng, 8 * op->run->latency_ns_max));
        if (ash_prng_chance(op->prng, 500)) {
            uint64_t speed = sim_below(op->prng, 4) * 1024 * 1024;
            (void)!ash_co_job_control(job, ASH_JOB_SET_SPEED, speed, NULL);
        } else if (ash_co_job_control(job, ASH_JOB_PAUSE, 0, NULL) == 0) {
            ash_co_sleep(sim_below(op->prng, 8 * op->run->latency_ns_max));
            (void)!ash_co_job_control(job, ASH_JOB_RESUME, 0, NULL);
        }
    }
    if (op->mode) {
        ash_co_sleep(sim_below(op->prng, 8 * op->run->latency_ns_max));
        (void)!ash_co_job_control(job, ASH_JOB_CANCEL, 0, NULL);
    }
}

int sim_run_stream(struct sim_op *op)
{
    struct sim_disk *disk = op->disk;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    json_t *description = describe(op);
    ash_co_queue_init(&disk->job_waiters);
    disk->streaming = true;
    int ret = ash_co_job_start(op->run->loop, description, hear, disk, &job, &error);
    json_decref(description);
    if (ret == 0) {
        disk->streamed = true; /* from now on the headers alone know the chain */
        steer(op, job);
        while (ash_job_state(job) != ASH_JOB_CONCLUDED) {
            ash_co_queue_wait(&disk->job_waiters);
        }
        ret = job->ret;
        sim_note(op->run, "        %s", job->error.message);
        if (ash_co_job_control(job, ASH_JOB_DISMISS, 0, &error) < 0) {
            sim_fail(op->run, "job", "it cannot be dismissed: %s", error.message);
        }
        ash_job_unref(job);
    } else {
        sim_note(op->run, "        %s", error.message);
    }
    disk->streaming = false;
    return ret;
}

bool sim_may_stream(const struct sim_op *op, int ret)
{
    return ret == -ECANCELED && op->mode;
}
