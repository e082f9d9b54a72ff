/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs with a state file on a simulated machine: what the tests of every kind share. */
#ifndef ASH_TESTS_UNIT_RESUME_RIG_H
#define ASH_TESTS_UNIT_RESUME_RIG_H

#include "job/job.h"
#include "tests/unit/qcow2_rig.h"

ASH_CO_FN static inline int disk_io(struct ash_disk *disk, uint8_t op, uint64_t offset,
                                    void *buffer, uint64_t bytes)
{
    struct iovec vec = {buffer, bytes};
    struct ash_io io = {.op = op, .offset = offset, .bytes = bytes, .iov = ash_iov_of(&vec, 1)};
    return ash_disk_io(disk, &io);
}

ASH_CO_FN static inline struct ash_disk *open_disk(struct rig *rig, uint64_t seed, const char *name)
{
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_disk *disk = NULL;
    int ret = rig_open(rig, name, ASH_NODE_WRITE | ASH_NODE_DISCARD, &disk, &error);
    if (ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)seed, error.message);
    }
    assert_int_equal(ret, 0);
    return disk;
}

ASH_CO_FN static inline void await(struct ash_job *job, enum ash_job_state state)
{
    while (ash_job_state(job) != state) {
        ash_co_sleep(1000000);
    }
}

/* By force, unless it has ended; gives up the reference. */
ASH_CO_FN static inline void end_job(struct ash_job *job)
{
    (void)!ash_co_job_control(job, ASH_JOB_FORCE_CANCEL, 0, NULL);
    await(job, ASH_JOB_CONCLUDED);
    assert_int_equal(ash_co_job_control(job, ASH_JOB_DISMISS, 0, NULL), 0);
    ash_job_unref(job);
}

#endif
