/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening a disk together with a job on it. The block layer knows of no jobs, so this is the jobs'
 * part of the API; the call is of the kind that disks have (block/disk/call.h).
 *
 * Invariants:
 *  1. Nobody but this call has the disk before the job has its place in the graph.
 *  2. Either both are given to the caller, or neither is left. */
#include <ashlar/job.h>
#include <errno.h>
#include <glib.h>
#include "block/disk/call.h"
#include "block/disk/disk.h"
#include "job/job.h"
#include "util/error.h"

struct open_call {
    struct ash_call call;
    char *description;
    struct ash_disk_options options;
    char *job_text;
    ash_job_event_fn *event;
    void *event_opaque;
    struct ash_disk *disk;
    struct ash_job *job;
    ash_disk_opened_with_job_fn *opened;
    void *opaque;
};

int ash_co_job_start_at_open(struct ash_disk *disk, const json_t *description,
                             ash_job_event_fn *event, void *event_opaque, struct ash_job **job,
                             struct ash_error *error)
{
    json_t *own = json_deep_copy(description);
    if (json_is_object(own) && json_object_get(own, "device") == NULL) {
        json_object_set_new(own, "device", json_string(ash_disk_node(disk)->name));
    }
    int ret = ash_co_job_start(disk->loop, own, event, event_opaque, job, error);
    json_decref(own);
    if (ret < 0) {
        (void)!ash_co_disk_close(disk, NULL); /* the reason is the job's */
    }
    return ret;
}

ASH_CO_FN static int open_and_start(struct open_call *open, const json_t *job)
{
    int ret = ash_co_disk_open_public(open->call.loop, open->description, &open->options,
                                      &open->disk, &open->call.error);
    if (ret == 0) {
        ret = ash_co_job_start_at_open(open->disk, job, open->event, open->event_opaque, &open->job,
                                       &open->call.error);
    }
    return ret;
}

static int run(struct ash_call *call)
{
    struct open_call *open = ash_container_of(call, struct open_call, call);
    json_error_t where;
    ash_co_assert_inside();
    json_t *job = json_loads(open->job_text, JSON_REJECT_DUPLICATES, &where);
    if (job == NULL) {
        return ash_error_set(&call->error, -EINVAL, "The description of a job is not JSON: %s",
                             where.text);
    }
    int ret = open_and_start(open, job);
    json_decref(job);
    return ret;
}

static void open_clear(struct open_call *open)
{
    g_free(open->description);
    ash_disk_options_clear(&open->options);
    g_free(open->job_text);
}

static void finish(struct ash_call *call)
{
    struct open_call *open = ash_container_of(call, struct open_call, call);
    bool good = call->ret == 0;
    open->opened(open->opaque, call->ret, good ? open->disk : NULL, good ? open->job : NULL,
                 &call->error);
    open_clear(open);
    g_free(open);
}

static void open_init(struct open_call *open, struct ash_loop *loop, const char *description,
                      const struct ash_disk_options *options, const char *job,
                      ash_job_event_fn *event, void *event_opaque)
{
    *open = (struct open_call){
        .description = g_strdup(description),
        .job_text = g_strdup(job),
        .event = event,
        .event_opaque = event_opaque,
    };
    ash_call_init(&open->call, loop, run, finish);
    ash_disk_options_copy(&open->options, options, &open->call.error);
}

ASH_PUBLIC int ash_disk_open_with_job(struct ash_loop *loop, const char *description,
                                      const struct ash_disk_options *options, const char *job,
                                      ash_job_event_fn *event, void *event_opaque,
                                      ash_disk_opened_with_job_fn *opened, void *opaque)
{
    struct open_call *open = g_new0(struct open_call, 1);
    open_init(open, loop, description, options, job, event, event_opaque);
    open->opened = opened;
    open->opaque = opaque;
    int ret = ash_call_post(&open->call);
    if (ret < 0) {
        open_clear(open);
        g_free(open);
    }
    return ret;
}

ASH_PUBLIC int ash_disk_open_with_job_sync(struct ash_loop *loop, const char *description,
                                           const struct ash_disk_options *options, const char *job,
                                           ash_job_event_fn *event, void *event_opaque,
                                           struct ash_disk **disk, struct ash_job **started,
                                           struct ash_error *error)
{
    struct open_call open;
    open_init(&open, loop, description, options, job, event, event_opaque);
    int ret = ash_call_sync(&open.call, error);
    if (ret == 0) {
        *disk = open.disk;
        *started = open.job;
    }
    open_clear(&open);
    return ret;
}
