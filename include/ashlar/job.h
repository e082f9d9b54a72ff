/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs: long work on a graph, while guests run on: stream, commit, mirror, backup.
 *
 * A job is started from a description and goes through states; verbs steer it. It belongs to the loop
 * of its graph. Control calls may come from any thread; each has a completion, called exactly once on
 * the owner thread's plain stack and never inside the call, and a `_sync` twin that waits, as those of
 * disk.h. Events are told on the owner thread's plain stack. See docs/jobs.md.
 *
 *     created ─▶ running ⇄ paused            (standby: paused while ready)
 *                   │  ▲
 *                   ▼  └────▶ ready ⇄ standby
 *                waiting ─▶ pending ─▶ concluded ─▶ null
 *     from each on the way: ─▶ aborting ─▶ concluded */
#ifndef ASHLAR_JOB_H
#define ASHLAR_JOB_H

#include <stdint.h>
#include <ashlar/disk.h>
#include <ashlar/error.h>
#include <ashlar/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ash_job;

enum ash_job_state {
    ASH_JOB_CREATED = 0,   /* exists and has not run */
    ASH_JOB_RUNNING = 1,
    ASH_JOB_PAUSED = 2,    /* by a verb, or by an error under the policy "stop"; nothing is in flight */
    ASH_JOB_READY = 3,     /* its target is, and stays, equal to its source: complete or cancel it */
    ASH_JOB_STANDBY = 4,   /* paused while ready */
    ASH_JOB_WAITING = 5,   /* has done its part; others of its transaction have not */
    ASH_JOB_PENDING = 6,   /* waits for `finalize` */
    ASH_JOB_ABORTING = 7,  /* failed or cancelled; undoes what it did to the graph */
    ASH_JOB_CONCLUDED = 8, /* over; its result can be read until `dismiss` */
    ASH_JOB_NULL = 9,      /* dismissed; the handle alone remains */
};

enum ash_job_verb {
    ASH_JOB_PAUSE = 0,
    ASH_JOB_RESUME = 1,       /* takes back one pause; after an error, tries again */
    ASH_JOB_CANCEL = 2,       /* a ready mirror ends well, and its target stays a consistent copy;
                                 anything else ends with -ECANCELED */
    ASH_JOB_FORCE_CANCEL = 3, /* ends at once with -ECANCELED; the target may hold anything, and is
                                 not waited for. It stays open until what was on its way to it has
                                 ended; the loop must not be freed before */
    ASH_JOB_COMPLETE = 4,     /* ready jobs: do what they are for (a mirror pivots) */
    ASH_JOB_FINALIZE = 5,
    ASH_JOB_DISMISS = 6,
    ASH_JOB_SET_SPEED = 7,    /* value: bytes per second; 0: no limit */
    ASH_JOB_VERB_COUNT = 8,
};

enum ash_job_event {
    ASH_JOB_STATE_CHANGED = 0,
    ASH_JOB_IO_ERROR = 1, /* and the policy was applied; the job's info says which error */
};

/* A snapshot of what the owner thread last published. */
struct ash_job_info {
    uint32_t size;         /* sizeof(struct ash_job_info), set by the caller */
    uint32_t state;        /* enum ash_job_state */
    int32_t result;        /* 0, or why it failed; final from ASH_JOB_CONCLUDED on */
    int32_t io_error;      /* the error that stopped it; 0: none, or it was resumed */
    uint64_t done_bytes;   /* of total_bytes, which can grow while guests write */
    uint64_t total_bytes;
    uint64_t speed_limit;  /* bytes per second; 0: none */
    uint64_t rate;         /* bytes per second, over the last seconds */
    uint64_t left_ns;      /* forecast; UINT64_MAX: none */
    char id[128];
    char type[32];
    char message[512];     /* the sentence for `result`; "" while there is none */
};

typedef void ash_job_event_fn(void *opaque, struct ash_job *job, enum ash_job_event event);
typedef void ash_job_started_fn(void *opaque, int ret, struct ash_job *job,
                                const struct ash_error *error);

/* Starts a job from a JSON object, as {"type": "stream", "device": "node", ...}: see docs/jobs.md for
 * each type's members. `event` (may be NULL) hears of it, on the owner thread, until the job is
 * dismissed; it may call any verb, dismissing included. The caller gets a reference with `started`.
 * Errors arrive with `started`: -EINVAL (the description), -EEXIST (the id), -EBUSY (the nodes are in
 * use), and what opening a target gives. The call itself fails with -ENOMEM or -ESHUTDOWN. Of
 * a job with a state file besides: -ESTALE (an image may have been changed since it was interrupted),
 * -EEXIST (the file's job has ended), -EUCLEAN (it cannot be resumed ever), -ENOTSUP (an image cannot
 * be marked), -ENOSPC (its header has no room for the mark), -EAGAIN (the file is in use), -ETIMEDOUT (it
 * does not answer). */
int ash_job_start(struct ash_loop *loop, const char *description, ash_job_event_fn *event,
                  void *event_opaque, ash_job_started_fn *started, void *opaque);
int ash_job_start_sync(struct ash_loop *loop, const char *description, ash_job_event_fn *event,
                       void *event_opaque, struct ash_job **job, struct ash_error *error);

/* Opens a disk and starts a job on it, in one: for a job with a state file that is to go on where it was
 * when the host died. When it completes, the disk is open and the job is in its place, so no request of
 * the guest's can have come before it. `description` and `options` are those of ash_disk_open(), `job`
 * is that of ash_job_start(); a job that names no device gets the topmost node of the disk. When the job
 * is refused, the disk is closed again and the error is the job's. The caller gets the disk and a
 * reference to the job, or neither. Errors: those of both calls, with `opened`; the call itself fails
 * with -ENOMEM or -ESHUTDOWN only. Any thread; `opened` is called on `loop`'s. Strings are copied. */
typedef void ash_disk_opened_with_job_fn(void *opaque, int ret, struct ash_disk *disk,
                                         struct ash_job *job, const struct ash_error *error);
int ash_disk_open_with_job(struct ash_loop *loop, const char *description,
                           const struct ash_disk_options *options, const char *job,
                           ash_job_event_fn *event, void *event_opaque,
                           ash_disk_opened_with_job_fn *opened, void *opaque);
int ash_disk_open_with_job_sync(struct ash_loop *loop, const char *description,
                                const struct ash_disk_options *options, const char *job,
                                ash_job_event_fn *event, void *event_opaque, struct ash_disk **disk,
                                struct ash_job **started, struct ash_error *error);

/* Several jobs that begin at the same moment, while all guests of their disks are paused, and that
 * succeed or fail together: a JSON array of descriptions. All are made, or none, and then no disk has
 * changed. Actions that are over at once (snapshots, bitmaps) may be among them. `count` is the length
 * of the array, or -EINVAL; jobs: so many, each a reference of the caller's, there when `done` is called
 * with 0, until which the array has to live. Errors: those of ash_job_start(), with `done`; the call itself
 * fails with -ENOMEM or -ESHUTDOWN only. Any thread. */
int ash_job_start_all(struct ash_loop *loop, const char *descriptions, ash_job_event_fn *event,
                      void *event_opaque, struct ash_job **jobs, uint32_t count, ash_done_fn *done,
                      void *opaque);
int ash_job_start_all_sync(struct ash_loop *loop, const char *descriptions, ash_job_event_fn *event,
                           void *event_opaque, struct ash_job **jobs, uint32_t count,
                           struct ash_error *error);

/* Applies a verb. -EPERM: not legal in the job's state, which the sentence names. */
int ash_job_control(struct ash_job *job, enum ash_job_verb verb, uint64_t value, ash_done_fn *done,
                    void *opaque);
int ash_job_control_sync(struct ash_job *job, enum ash_job_verb verb, uint64_t value,
                         struct ash_error *error);

/* Changes options of a job that runs: a JSON object, as {"copy-mode": "write-blocking"}. See
 * docs/jobs.md for what each type can change. -EINVAL: it cannot change that, and nothing has changed;
 * -EPERM: it is over. */
int ash_job_change(struct ash_job *job, const char *description, ash_done_fn *done, void *opaque);
int ash_job_change_sync(struct ash_job *job, const char *description, struct ash_error *error);

/* What the job is at. Any thread, never waits. -EINVAL: a size that is not known. */
int ash_job_info(struct ash_job *job, struct ash_job_info *info);

/* Lets the handle go (NULL: nothing); the job itself goes on. Any thread. */
void ash_job_unref(struct ash_job *job);

#ifdef __cplusplus
}
#endif
#endif
