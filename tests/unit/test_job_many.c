/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A thousand jobs on one loop at once: streams, commits, mirrors and backups, each of a disk of its
 * own. All end well, and what one costs is printed. JOBS=2000 before the command runs so many. */
#include "tests/unit/unit.h"
#include <time.h>
#include "block/graph/block.h"
#include "tests/unit/job_rig.h"

#define JOBS 1000
#define JOBS_MAX 4000
#define CLUSTER (64 * KiB)
#define BYTES (4 * CLUSTER)

enum kind { STREAM, COMMIT, MIRROR, BACKUP, KINDS };

static const char *const types[] = {"stream", "commit", "mirror", "backup"};

static unsigned count = JOBS;
static struct ash_disk *disks[JOBS_MAX];
static struct ash_job *jobs[JOBS_MAX];

static json_t *describe(const char *prefix, unsigned i, json_t *backing)
{
    char name[32];
    snprintf(name, sizeof(name), "%s%u", prefix, i);
    json_t *description = json_pack("{s:s, s:s, s:{s:s, s:s}}", "driver", "qcow2", "node-name",
                                    name, "file", "driver", "file", "filename", name);
    json_object_set_new(description, "backing", backing);
    return description;
}

/* Images of this kind for all disks, the first `clusters` of them written. */
ASH_CO_FN static void make_images(struct core *core, const char *prefix, unsigned clusters,
                                  unsigned value)
{
    struct ash_disk *disk;
    uint8_t *data = g_malloc(MiB);
    char name[32];
    snprintf(name, sizeof(name), "%s0", prefix);
    assert_int_equal(ash_image_create(core->loop, name, "qcow2", BYTES, NULL, NULL), 0);
    json_t *description = describe(prefix, 0, json_null());
    assert_int_equal(ash_co_disk_open(core->loop, description, ASH_NODE_WRITE, &disk, NULL), 0);
    json_decref(description);
    memset(data, (int)value, clusters * CLUSTER);
    assert_int_equal(ash_disk_write(disk, 0, data, clusters * CLUSTER, 0), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    size_t bytes = (size_t)ash_sim_file_bytes(core->world, name);
    assert_true(bytes <= MiB);
    assert_int_equal(ash_sim_file_read(core->world, name, 0, data, bytes), 0);
    for (unsigned i = 1; i < count; i++) {
        snprintf(name, sizeof(name), "%s%u", prefix, i);
        assert_int_equal(ash_sim_file_write(core->world, name, 0, data, bytes), 0);
    }
    g_free(data);
}

ASH_CO_FN static void start_one(struct core *core, unsigned i)
{
    char name[32];
    char target[32];
    snprintf(name, sizeof(name), "top%u", i);
    snprintf(target, sizeof(target), "target%u", i);
    json_t *description = json_pack("{s:s, s:s}", "type", types[i % KINDS], "device", name);
    if (i % KINDS == MIRROR || i % KINDS == BACKUP) {
        json_object_set_new(description, "target", json_string(target));
        json_object_set_new(description, "format", json_string("qcow2"));
    }
    jobs[i] = job_start(core, description);
}

ASH_CO_FN static void end_one(struct core *core, unsigned i)
{
    static uint8_t data[BYTES];
    if (i % KINDS == COMMIT || i % KINDS == MIRROR) {
        job_wait_for(jobs[i], ASH_JOB_READY);
        assert_int_equal(ash_co_job_control(jobs[i], ASH_JOB_COMPLETE, 0, NULL), 0);
    }
    assert_int_equal(job_finish(core, jobs[i]), 0);
    assert_int_equal(ash_disk_read(disks[i], 0, data, BYTES), 0);
    for (unsigned cluster = 0; cluster < 4; cluster++) {
        assert_int_equal(data[cluster * CLUSTER], cluster < 1 ? 2 : cluster < 2 ? 1 : 0);
    }
}

static void many_body(struct core *core, void *opaque)
{
    (void)opaque;
    ash_co_assert_inside();
    make_images(core, "base", 2, 1);
    make_images(core, "top", 1, 2);
    make_images(core, "target", 1, 3);
    for (unsigned i = 0; i < count; i++) {
        json_t *description = describe("top", i, describe("base", i, json_null()));
        assert_int_equal(ash_co_disk_open(core->loop, description,
                                          ASH_NODE_WRITE | ASH_NODE_DISCARD, &disks[i], NULL),
                         0);
        json_decref(description);
    }
    clock_t begin = clock();
    for (unsigned i = 0; i < count; i++) {
        start_one(core, i);
    }
    for (unsigned i = 0; i < count; i++) {
        end_one(core, i);
    }
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    print_message("%.0f us of processor time for each of %u jobs\n", seconds * 1e6 / count, count);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(ash_co_disk_close(disks[i], NULL), 0);
    }
    assert_true(ash_list_empty(&ash_block_of(core->loop)->nodes));
}

static void a_thousand_jobs_on_one_loop_end_well(void **state)
{
    struct core core;
    (void)state;
    const char *wanted = getenv("JOBS");
    count = (unsigned)(wanted != NULL ? strtoul(wanted, NULL, 10) : fewer_if_sanitized(JOBS));
    assert_in_range(count, 1, JOBS_MAX);
    core_up(&core, core_first_seed());
    core_run(&core, many_body, NULL);
    core_down(&core);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_jobs_on_one_loop_end_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
