/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A simulated machine on which a guest writes beside a mirror or a backup with a state file. */
#ifndef ASH_TESTS_UNIT_RESUME_MACHINE_H
#define ASH_TESTS_UNIT_RESUME_MACHINE_H

#include "tests/unit/resume_rig.h"
#include "util/prng.h"

#define DISK_BYTES (4 * MiB)
#define SECTORS (DISK_BYTES / 512)
#define SECTOR 512

enum meddling { NOBODY, WITH_SOURCE, WITH_TARGET, AT_ONCE };

struct machine {
    struct rig rig;
    struct ash_prng prng;
    uint64_t seed;
    const char *type;
    enum meddling meddling;
    bool version_2;        /* its images can have no mark */
    bool vouched;          /* that nobody else writes to them */
    struct ash_disk *disk; /* on which a guest writes beside */
    bool writing;
    bool moment_known;
    bool over; /* the job came to its end before the power was cut */
    int refused;
    uint8_t moment[DISK_BYTES];
    uint8_t now[DISK_BYTES];
    uint8_t copy[DISK_BYTES];
};

ASH_CO_FN static inline int start(struct machine *m, struct ash_disk *disk, struct ash_job **job,
                                  struct ash_error *error)
{
    json_t *description =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:i}", "type", m->type, "device",
                  ash_disk_node(disk)->name, "target", "target", "format", "qcow2", "state-file",
                  "state", "job-id", "job", "auto-dismiss", 0, "speed",
                  strcmp(m->type, "mirror") == 0 ? 20000000 : 600000);
    if (m->vouched) {
        json_object_set_new(description, "state-unmarked", json_true());
    }
    int ret = ash_co_job_start(m->rig.loop, description, NULL, NULL, job, error);
    json_decref(description);
    return ret;
}

/* Writes in one quarter of the disk for a while, and then in another, so that a mirror gets to keep
 * the others; until it has done so often enough or the power is gone. */
ASH_CO_FN static inline void guest(struct machine *m, struct ash_disk *disk, unsigned writes)
{
    uint8_t data[16 * SECTOR];
    uint64_t home = 0;
    for (unsigned i = 0; i < writes && !ash_sim_power_is_cut(m->rig.world); i++) {
        uint64_t sectors = ash_prng_between(&m->prng, 1, 16);
        if (ash_prng_chance(&m->prng, 50)) {
            home = ash_prng_below(&m->prng, 4);
        }
        uint64_t at = home * (SECTORS / 4) + ash_prng_below(&m->prng, SECTORS / 4 - sectors);
        memset(data, (int)ash_prng_below(&m->prng, 256), sectors * SECTOR);
        uint8_t op = ash_prng_chance(&m->prng, 700)   ? ASH_WRITE
                     : ash_prng_chance(&m->prng, 500) ? ASH_ZERO
                                                      : ASH_DISCARD;
        (void)!disk_io(disk, op, at * SECTOR, data, sectors * SECTOR);
        if (ash_prng_chance(&m->prng, 100)) {
            (void)!disk_io(disk, ASH_FLUSH, 0, NULL, 0);
        }
        ash_co_sleep(ash_prng_below(&m->prng, 60000000));
    }
}

static inline int make_images(void *opaque)
{
    struct machine *m = opaque;
    ash_co_assert_inside();
    const char *source = m->version_2 ? "cluster_size=4k,compat=0.10" : "cluster_size=4k";
    const char *target = m->version_2 ? "cluster_size=16k,compat=0.10" : "cluster_size=16k";
    assert_int_equal(rig_create(&m->rig, "source", DISK_BYTES, source), 0);
    assert_int_equal(rig_create(&m->rig, "target", DISK_BYTES, target), 0);
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "source");
    for (uint64_t at = 0; at < DISK_BYTES; at += 64 * KiB) {
        if (ash_prng_chance(&m->prng, 700)) {
            memset(m->moment + at, 1 + (int)ash_prng_below(&m->prng, 255), 64 * KiB);
            assert_int_equal(disk_io(disk, ASH_WRITE, at, m->moment + at, 64 * KiB), 0);
        }
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

/* With its images made. */
static inline struct machine *machine_new(const char *type, uint64_t seed, bool version_2)
{
    struct machine *m = g_new0(struct machine, 1);
    struct ash_sim_config config = {.seed = seed};
    m->type = type;
    m->version_2 = version_2;
    ash_prng_seed(&m->prng, seed);
    rig_world(&m->rig, &config);
    rig_boot(&m->rig);
    assert_int_equal(ash_loop_run_sync(m->rig.loop, make_images, m), 0);
    return m;
}

static inline void machine_free(struct machine *m)
{
    rig_end(&m->rig);
    g_free(m);
}

/* Starts the job, which goes on where there is one to be resumed, and ends it by force soon. */
static inline int start_another(void *opaque)
{
    struct machine *m = opaque;
    struct ash_error error = ASH_ERROR_INIT;
    struct ash_job *job;
    ash_co_assert_inside();
    struct ash_disk *disk = open_disk(&m->rig, m->seed, "source");
    m->refused = start(m, disk, &job, &error);
    if (m->refused == 0) {
        ash_co_sleep(100000000);
        end_job(job);
    }
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return 0;
}

#endif
