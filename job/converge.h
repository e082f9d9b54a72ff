/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Has a mirror catch up with a guest that writes faster than the target takes.
 *
 * At the end of each window of a quarter of a second it is looked at how much was copied, written
 * and dirtied. When what is dirty did not fall, the guest's writes are held to a rate at which
 * three quarters of what is copied is dirtied anew, but never to less than a floor; so the rest
 * falls by a quarter of the copying rate at least, or the floor is what keeps it from falling. When
 * little is dirty the limit is doubled in each window, and is gone when it limits nothing.
 *
 * What is dirtied need not be what is written: a write of 4 KiB may dirty 64 KiB. So the limit is
 * the written rate times the ratio by which dirtying is to fall. */
#ifndef ASH_JOB_CONVERGE_H
#define ASH_JOB_CONVERGE_H

#include "block/bitmap/bitmap.h"
#include "block/filter/mirror_top.h"
#include "block/filter/throttle_group.h"
#include "job/job.h"

struct ash_converge {
    struct ash_job *job; /* NULL: not at work */
    struct ash_mirror_top *top;
    const struct ash_bitmap *dirty;
    uint64_t floor; /* bytes per second that the guest may always write */
    struct ash_timer timer;
    struct ash_throttle_member member;
    uint64_t limit; /* bytes per second; 0: none */
    uint64_t last_dirty;
    uint64_t last_done;
    uint64_t last_written;
};

/* From now on, for the filter node of a running mirror, until stop. */
void ash_converge_start(struct ash_converge *converge, struct ash_job *job, struct ash_node *filter,
                        const struct ash_bitmap *dirty, uint64_t floor);
/* Lifts the limit. No guest waits for it in the filter any more (asserted): the users are paused,
 * or there was no limit. Not at work: nothing. */
void ash_converge_stop(struct ash_converge *converge);

/* One window is over; for tests. Figures of that window, in bytes; the limit to have from now on.
 */
uint64_t ash_converge_next(uint64_t limit, uint64_t floor, bool ready, uint64_t last_dirty,
                           uint64_t dirty, uint64_t copied, uint64_t written);

#endif
