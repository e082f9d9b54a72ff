/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The job core: a job is a coroutine with a table of states.
 *
 * States, verbs, transactions, progress, speed, errors and events are the core's. A kind of job
 * (struct ash_job_driver) only does its work. All is the owner thread's; ash_job_info() alone may
 * be called from others.
 *
 * Invariants:
 *  1. The state changes in one function, and only along the table's arrows.
 *  2. There is one place where a job pauses, is throttled and learns that it was cancelled:
 *     ash_job_pause_point(). While it is paused nothing of it is in flight.
 *  3. A job that has started calls exactly one of commit and abort, then clean, then concludes.
 *     Neither can fail. They run when run() of every job of the transaction has returned.
 *  4. Events are told at the end of a turn, on the plain stack: who hears one may call any verb.
 *  5. A job lives while it has references: one of the core until it is dismissed, one of its
 *     coroutine while that runs, and those of its users. */
#ifndef ASH_JOB_JOB_H
#define ASH_JOB_JOB_H

#include <ashlar/job.h>
#include <jansson.h>
#include <stdatomic.h>
#include "block/graph/node.h"
#include "util/co/co.h"
#include "util/error.h"
#include "util/list.h"
#include "util/loop/loop.h"
#include "util/options.h"

struct ash_job_txn;

/* What to do about an I/O error. */
enum ash_on_error {
    ASH_ON_ERROR_REPORT,
    ASH_ON_ERROR_IGNORE,
    ASH_ON_ERROR_STOP,
    ASH_ON_ERROR_ENOSPC
};
extern const char *const ash_on_error_names[]; /* "report", "ignore", "stop", "enospc", NULL */

struct ash_job_driver {
    const char *type;
    bool instant;    /* all its work is done in begin: it is in a transaction for that alone */
    size_t job_size; /* of the struct that begins with a struct ash_job */
    const struct ash_option *options; /* into that struct; those of every job are the core's */
    /* The driver that this description is for, as one type can mean two kinds of work. NULL: this
     * one. Does not yield. */
    const struct ash_job_driver *(*variant)(struct ash_loop *loop, const json_t *description);

    /* Checks the options and takes what the job needs of the graph. After a failure nothing of it
     * is left, and no other callback is called. */
    ASH_CO_PTR int (*start)(struct ash_job *job, struct ash_error *error);
    /* The moment that the job is about, the same for all jobs of a transaction: the users above
     * every job->moment (set by start) are paused. May fail; then unbegin of those that have begun
     * is called, still in the pause, and then abort and clean of all. May be NULL. */
    ASH_CO_PTR int (*begin)(struct ash_job *job, struct ash_error *error);
    ASH_CO_PTR void (*unbegin)(struct ash_job *job);
    /* All have begun: nothing is taken back any more. Still in the pause; does not yield. */
    void (*begun)(struct ash_job *job);
    /* The work. Calls ash_job_pause_point() often. 0, or a negative errno with a sentence. When it
     * returns nothing of the job is in flight, but for a target that was given up by force. */
    ASH_CO_PTR int (*run)(struct ash_job *job, struct ash_error *error);
    /* All jobs of the transaction ended well: the last step that may fail. May be NULL. */
    ASH_CO_PTR int (*prepare)(struct ash_job *job, struct ash_error *error);
    ASH_CO_PTR void (*commit)(struct ash_job *job); /* may be NULL */
    ASH_CO_PTR void (*abort)(struct ash_job *job);  /* may be NULL */
    /* Gives back what start took. */
    ASH_CO_PTR void (*clean)(struct ash_job *job);

    /* The user asks a ready job to complete. NULL: such a job never gets ready. Does not yield. */
    int (*complete)(struct ash_job *job, struct ash_error *error);
    /* The user cancels without force. True: the job ends in its own way, and well. NULL: false. */
    bool (*cancel)(struct ash_job *job);
    /* Other options for the running job: takes out of `options` what it knows. NULL: it has none
     * that can change. Does not yield. -EINVAL, and nothing has changed. */
    int (*change)(struct ash_job *job, json_t *options, struct ash_error *error);
    /* Something changed that the job may wait for: a verb. Does not yield. May be NULL. */
    void (*kick)(struct ash_job *job);
};

struct ash_job {
    const struct ash_job_driver *driver;
    struct ash_loop *loop;
    char *id;
    _Atomic uint32_t refs;
    struct ash_list link; /* in the loop's list; empty once dismissed */
    struct ash_list txn_link;
    struct ash_job_txn *txn;
    struct ash_node *moment; /* for begin */

    /* Options that every job has. */
    bool auto_finalize;
    bool auto_dismiss;

    bool user_paused;
    uint32_t pauses; /* that hold it, the user's included */
    bool cancelled;  /* it ends with -ECANCELED, unless its driver chose to end well */
    bool forced;     /* and waits for nobody */
    bool finished;   /* run() has returned */
    int ret;
    struct ash_error error;
    struct ash_co_queue wake; /* the job's coroutine, where it waits for a change */
    struct ash_timer timer;   /* ends a throttled sleep */
    uint64_t allowed_ns;      /* speed: when the next bytes may go */

    /* Told at the end of the turn. */
    struct ash_turn_hook hook;
    ash_job_event_fn *event;
    void *event_opaque;
    uint32_t events; /* bits of enum ash_job_event */

    /* Progress: a window of the last seconds for the rate. */
    uint64_t window_ns;
    uint64_t window_bytes;

    /* What other threads read. */
    _Atomic uint32_t state;
    _Atomic int32_t io_error;
    _Atomic int32_t result;
    _Atomic uint64_t done_bytes;
    _Atomic uint64_t total_bytes;
    _Atomic uint64_t speed_limit;
    _Atomic uint64_t rate;
    _Atomic uint64_t forecast_ns; /* of jobs that know better than the rate tells; 0: they do not */
    _Atomic(const char *) message; /* set once, before `result` counts; lives as long as the job */
};

/* All kinds, NULL-terminated, in one visible table. */
extern const struct ash_job_driver *const ash_job_drivers[];

/* Makes and starts a job, or, of an array, all of them in one transaction. Each gets a reference
 * for the caller. */
ASH_CO_FN int ash_co_job_start(struct ash_loop *loop, const json_t *description,
                               ash_job_event_fn *event, void *event_opaque, struct ash_job **job,
                               struct ash_error *error);
ASH_CO_FN int ash_co_job_start_all(struct ash_loop *loop, const json_t *descriptions,
                                   ash_job_event_fn *event, void *event_opaque,
                                   struct ash_job **jobs, struct ash_error *error);
/* On a disk that nobody else has yet: a job that names no device gets its topmost node, and if it is
 * refused the disk is closed. */
ASH_CO_FN int ash_co_job_start_at_open(struct ash_disk *disk, const json_t *description,
                                       ash_job_event_fn *event, void *event_opaque,
                                       struct ash_job **job, struct ash_error *error);
ASH_CO_FN int ash_co_job_control(struct ash_job *job, enum ash_job_verb verb, uint64_t value,
                                 struct ash_error *error);
ASH_CO_FN int ash_co_job_change(struct ash_job *job, const json_t *description,
                                struct ash_error *error);

struct ash_job *ash_job_find(struct ash_loop *loop, const char *id);
void ash_job_ref(struct ash_job *job); /* ash_job_unref() gives it back */

static inline enum ash_job_state ash_job_state(const struct ash_job *job)
{
    return (enum ash_job_state)atomic_load_explicit(&job->state, memory_order_relaxed);
}

const char *ash_job_state_name(enum ash_job_state state);
const char *ash_job_verb_name(enum ash_job_verb verb);

/* For kinds of jobs. */

/* Waits while the job is paused, and after `bytes` were moved as long as its speed asks. `quiet`
 * waits until nothing of the job is in flight; called before it counts as paused. May be NULL.
 * 0, or -ECANCELED. */
ASH_CO_FN int ash_job_pause_point(struct ash_job *job, uint64_t bytes,
                                  ASH_CO_PTR void (*quiet)(void *opaque), void *opaque);
/* Waits until something happens: a verb, ash_job_kick(), or the deadline (UINT64_MAX: none). */
ASH_CO_FN void ash_job_wait(struct ash_job *job, uint64_t deadline_ns);
/* Ends ash_job_wait(). */
void ash_job_kick(struct ash_job *job);

/* The job's target equals its source from now on. */
void ash_job_ready(struct ash_job *job);

void ash_job_progress(struct ash_job *job, uint64_t bytes);
void ash_job_progress_total(struct ash_job *job, uint64_t total_bytes);

/* Applies a policy to an error. REPORT: the job fails with it. IGNORE: goes on. STOP: the job is
 * paused from the next pause point on; what failed is to be tried again. */
enum ash_on_error ash_job_io_error(struct ash_job *job, enum ash_on_error policy, int error);

#endif
