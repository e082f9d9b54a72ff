/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A sweep: the loop of every job. It asks for the next range, works on many at once, pauses, keeps
 * to the job's speed, applies the policy to errors, and ends early when it has to.
 *
 * Invariants:
 *  1. A range is either to come, in work, or to be tried again; a job that ends well has done all.
 *  2. While the job is paused nothing is in work.
 *  3. At most tasks_max ranges, and bytes_max bytes if that is more than one range, are in work.
 *  4. Who is forced to end does not wait for ranges in work if the sweep is `forsakable`, or only
 * for a grace: then they own what they use, and the last of them frees it through `release`.
 *  5. The job's own coroutine never waits for I/O of such a sweep: what it would wait for, steps
 * and looks, is done aside, by a coroutine that is forsaken as a range is. After a wait, whatever
 * runs for the sweep looks whether it still has its job.
 *  6. Guests wait for ranges in work. So where ranges of piece_bytes take long, the next ones are
 * smaller, and where they do not, larger again; ranges that were cut before the last change have no
 * say. */
#ifndef ASH_JOB_SWEEP_H
#define ASH_JOB_SWEEP_H

#include "block/copy/resume_file.h"
#include "job/job.h"

struct ash_sweep;

/* The grace of jobs on chains, and of what reads a source. What is well ends within it, and leaves
 * nothing behind. */
#define ASH_SWEEP_GRACE_NS UINT64_C(250000000)

struct ash_sweep_ops {
    /* The next range; *bytes 0: there is none at present. 0 or a negative errno. With a range, the
     * error is one of looking at it, and it counts as a range whose copy failed; without, it ends
     * the sweep. May yield; if it does so for I/O, the sweep `looks`. */
    ASH_CO_PTR int (*next)(struct ash_sweep *sweep, uint64_t *offset, uint64_t *bytes);
    /* Works on a range, in a coroutine of its own. 0 or a negative errno, and *reading says whether
     * the source or the target failed. */
    ASH_CO_PTR int (*copy)(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes, bool *reading);
    /* A range is done, in the turn in which copy has returned; not called once the sweep was
     * forsaken. `again`: it failed, and is to be tried again later or, with IGNORE, never. May be
     * NULL. Does not yield. */
    void (*done)(struct ash_sweep *sweep, uint64_t offset, uint64_t bytes, int ret);
    /* Frees the sweep, when nothing of it is in work any more. */
    ASH_CO_PTR void (*release)(struct ash_sweep *sweep);
};

struct ash_sweep {
    const struct ash_sweep_ops *ops;
    struct ash_job *job; /* NULL once forsaken */
    struct ash_loop *loop;
    enum ash_on_error on_source_error;
    enum ash_on_error on_target_error;
    bool forsakable;
    bool looks;         /* next() does I/O */
    uint64_t grace_ns;  /* so long what is in work may take to end, before it is forsaken: of jobs
                           that leave something behind that others meet */
    uint64_t forced_ns; /* when the grace ends; 0: it has not begun */
    bool remembers;     /* next() finds again what failed */
    bool hasty; /* users wait: an error ends the run, and its policy is the caller's business */
    uint32_t tasks_max;
    uint64_t bytes_max;
    uint32_t piece_bytes; /* what next() hands out at most, or a cluster; a power of two, and less
                             where ranges take long */

    struct ash_resume_file *file; /* a reference, of what is done to it aside; NULL: none */
    uint32_t refs; /* the job's, and one of each range in work */
    uint32_t tasks;
    uint64_t bytes;
    struct ash_list again; /* ranges to be tried once more */
    int ret;               /* the first error that ends it */
    bool reading;          /* it was one of the source */
    int ignored;           /* the first error that was ignored */
    uint64_t resume_ns;    /* nothing is handed out before: an error was ignored */
};

void ash_sweep_init(struct ash_sweep *sweep, const struct ash_sweep_ops *ops, struct ash_job *job);

/* Until there is no range left, none is in work, and none is to be tried again. 0, -ECANCELED, or
 * the error that a policy reports. May be called again. */
ASH_CO_FN int ash_sweep_run(struct ash_sweep *sweep);

/* Runs a function aside and waits for it: its result, or -ECANCELED if it was forsaken. `args` is
 * copied for it, and copied back when it has ended. */
ASH_CO_FN int ash_sweep_aside(struct ash_sweep *sweep,
                              ASH_CO_PTR int (*run)(struct ash_sweep *sweep, void *args),
                              void *args, size_t args_bytes);

/* Runs a function beside the sweep, as a range in work is: the sweep goes on, and does not end or
 * count as paused before it has ended. It looks after each wait whether the sweep still has its
 * job. */
ASH_CO_FN void ash_sweep_beside(struct ash_sweep *sweep,
                                ASH_CO_PTR void (*run)(struct ash_sweep *sweep));

/* Does a step at the target that can be done again, as often as the policy wants, aside. 0,
 * -ECANCELED, or the error. */
ASH_CO_FN int ash_sweep_step(struct ash_sweep *sweep,
                             ASH_CO_PTR int (*step)(struct ash_sweep *sweep));

/* After a run or a step that was hasty and failed: applies the policy. True: it is to be done
 * again, after the next pause point. Rests as after any error that is ignored. */
ASH_CO_FN bool ash_sweep_goes_on(struct ash_sweep *sweep, int ret);

/* Waits until `count`, which others count down and tell the job, is 0, or the user has had enough,
 * as one of the job's marks tells: `cancelled`, or `forced` for what only force leaves behind.
 * -ECANCELED: then; 0. */
ASH_CO_FN int ash_sweep_wait_out(struct ash_sweep *sweep, const uint32_t *count,
                                 const bool *enough);

/* The job lets go. The sweep is freed, or will be by the last range in work. */
ASH_CO_FN void ash_sweep_drop(struct ash_sweep *sweep);

#endif
