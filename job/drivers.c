/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* All kinds of jobs, in one visible table: constructors would be lost in a static archive. */
#include "job/job.h"

extern const struct ash_job_driver ash_job_backup;
extern const struct ash_job_driver ash_job_bitmap_add;
extern const struct ash_job_driver ash_job_bitmap_clear;
extern const struct ash_job_driver ash_job_bitmap_disable;
extern const struct ash_job_driver ash_job_bitmap_enable;
extern const struct ash_job_driver ash_job_bitmap_merge;
extern const struct ash_job_driver ash_job_commit;
extern const struct ash_job_driver ash_job_mirror;
extern const struct ash_job_driver ash_job_snapshot;
extern const struct ash_job_driver ash_job_stream;

const struct ash_job_driver *const ash_job_drivers[] = {
    &ash_job_backup,
    &ash_job_bitmap_add,
    &ash_job_bitmap_clear,
    &ash_job_bitmap_disable,
    &ash_job_bitmap_enable,
    &ash_job_bitmap_merge,
    &ash_job_commit,
    &ash_job_mirror,
    &ash_job_snapshot,
    &ash_job_stream,
    NULL,
};
