/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Mirror: a target comes to equal its source, and stays equal, until the user has the source's
 * users led to the target (complete), or keeps it as a copy (cancel). The active image of a chain
 * is committed in this way too (job/commit_active.c): the target is its base then.
 *
 *     copy ──(nothing dirty, flushed)──▶ ready: keep up ──complete, cancel──▶ pause the users,
 *     copy the rest, flush ──▶ end; in prepare: lead the users to the target
 *
 * Invariants:
 *  1. A bit of the bitmap is set where the target may differ. It is reset before the source is
 *     read, and set again when copying fails.
 *  2. The end is decided only while the users are paused and nothing is in flight: then no bit set
 *     means that target and source are equal. The users stay paused until they have been led over.
 *  3. A job that ends well has flushed the target after the last write to it.
 *  4. With a state file, a part of it is clear only if the target holds what the source does,
 * stably: the file says so by the time at which a guest may write. */
#ifndef ASH_JOB_MIRROR_H
#define ASH_JOB_MIRROR_H

#include "block/bitmap/bitmap.h"
#include "block/copy/copier.h"
#include "block/graph/pause.h"
#include "job/converge.h"
#include "job/chain.h"
#include "job/job.h"
#include "job/state.h"

enum ash_mirror_sync {
    ASH_MIRROR_FULL,
    ASH_MIRROR_TOP,
    ASH_MIRROR_NONE,
    ASH_MIRROR_INCREMENTAL,
};
enum ash_mirror_copy_mode { ASH_MIRROR_BACKGROUND, ASH_MIRROR_WRITE_BLOCKING };
enum ash_mirror_goal { ASH_MIRROR_GOAL_NONE, ASH_MIRROR_GOAL_PIVOT, ASH_MIRROR_GOAL_KEEP };

struct ash_mirror_sweep;
struct ash_mirror_tidying;

struct ash_mirror {
    struct ash_job job;
    char *device;
    char *target_name;
    char *target_format;
    char *replaces;
    char *filter_name;
    char *bitmap_name;
    struct ash_job_file state;
    int sync;      /* enum ash_mirror_sync */
    int copy_mode; /* enum ash_mirror_copy_mode */
    uint64_t granularity_bytes;
    bool unmap;
    bool use_copy_range;
    bool converge;
    uint64_t converge_floor;
    int on_source_error;
    int on_target_error;

    struct ash_node *source;
    struct ash_node *target;
    const struct ash_node *base; /* not NULL: only what layers above it hold is copied */
    struct ash_node *filter;
    struct ash_bitmap *dirty;
    struct ash_mirror_sweep *sweep;
    struct ash_mirror_tidying *tidying;
    struct ash_converge throttle; /* while `converge` is on */
    struct ash_pause pause;
    struct ash_chain_hold hold; /* of who commits; the sweep's once there is one */
    bool pausing; /* `pause` is being waited for, and can be given up */
    bool paused;
    bool was_ready;
    enum ash_mirror_goal goal;
};

/* For start: source and target (references) and the options are set. Puts the filter in. */
ASH_CO_FN int ash_mirror_take(struct ash_mirror *mirror, struct ash_error *error);

/* What a commit keeps of its chain, once it has been taken. */
struct ash_chain_hold *ash_mirror_hold(struct ash_mirror *mirror);

/* Those of the driver. The job is the first member of a struct ash_mirror. */
ASH_CO_FN int ash_mirror_run(struct ash_job *job, struct ash_error *error);
ASH_CO_FN int ash_mirror_prepare(struct ash_job *job, struct ash_error *error);
ASH_CO_FN void ash_mirror_clean(struct ash_job *job);
int ash_mirror_complete(struct ash_job *job, struct ash_error *error);
bool ash_mirror_cancel(struct ash_job *job);
void ash_mirror_kick(struct ash_job *job);

#endif
