/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs under guests: what the tests of every kind share. And small raw disks, and targets that fail. */
#ifndef ASH_TESTS_JOB_RIG_H
#define ASH_TESTS_JOB_RIG_H

#include "block/graph/graft.h"
#include "job/job.h"
#include "tests/unit/chain_guests.h"

#define JOB_NS_MAX UINT64_C(2000000000) /* no job of a test takes as long */

static inline void job_draw_layers(struct core *core, struct chain *chain, unsigned depth)
{
    *chain = (struct chain){.depth = depth, .qcow2 = true};
    for (unsigned layer = 0; layer < depth; layer++) {
        chain->unit[layer] = UINT64_C(1024) << ash_prng_below(&core->prng, layer == 0 ? 4 : 7);
        chain->bytes[layer] = ash_prng_between(&core->prng, 10000, 160000) / 512 * 512;
    }
}

/* Layer 0 is the disk's own node. */
static inline struct ash_node *job_layer(struct chain *chain, unsigned layer)
{
    struct ash_node *node = ash_graft_mapped(ash_disk_node(chain->disk));
    while (layer-- > 0) {
        node = node->backing->child;
    }
    return node;
}

/* --- small raw disks --- */

/* A raw image in a file of this name, of `bytes`, zeroes; -1: as it is. */
static inline json_t *job_describe_raw(struct core *core, const char *name, int64_t bytes)
{
    return json_pack("{s:s, s:{s:s, s:s}}", "driver", "raw", "file", "driver", "file", "filename",
                     core_file(core, name, bytes));
}

/* A disk on one, to be written; its node has the name, too. */
ASH_CO_FN static inline struct ash_disk *job_raw_disk(struct core *core, const char *name,
                                                      int64_t bytes)
{
    json_t *description = job_describe_raw(core, name, bytes);
    json_object_set_new(description, "node-name", json_string(name));
    return core_open_disk(core, description, ASH_NODE_WRITE | ASH_NODE_DISCARD);
}

/* A node of the name on one, for a target, with these faults; to be unreferenced. */
ASH_CO_FN static inline struct ash_node *job_faulty_node(struct core *core, const char *name,
                                                         int64_t bytes, json_t *faults)
{
    struct ash_node *node;
    json_object_update_new(faults, json_pack("{s:s, s:s, s:o}", "driver", "fault", "node-name",
                                             name, "file", job_describe_raw(core, name, bytes)));
    assert_int_equal(
        ash_node_open(core->loop, faults, ASH_NODE_WRITE | ASH_NODE_DISCARD, &node, NULL), 0);
    json_decref(faults);
    return node;
}

/* Two disks that are counted up in turn: the first is never more than one step ahead of the second.
 * That holds for what is kept of one moment, too. */
struct job_counter {
    struct ash_disk *disk[2];
    uint64_t value; /* the next one */
    bool stop;
};

static inline void job_count_on(struct core *core, void *opaque)
{
    struct job_counter *counter = opaque;
    (void)core;
    ash_co_assert_inside();
    for (; !counter->stop; counter->value++) {
        for (unsigned i = 0; i < 2; i++) {
            uint64_t sector[64] = {counter->value};
            assert_int_equal(ash_disk_write(counter->disk[i], 0, sector, sizeof(sector), 0), 0);
        }
    }
}

/* What a disk was counted up to; closes it. */
ASH_CO_FN static inline uint64_t job_counted(struct ash_disk *disk)
{
    uint64_t value;
    assert_int_equal(ash_disk_read(disk, 0, &value, sizeof(value)), 0);
    assert_int_equal(ash_co_disk_close(disk, NULL), 0);
    return value;
}

/* --- jobs --- */

/* Takes the description; it is not dismissed by itself. */
ASH_CO_FN static inline struct ash_job *job_start(struct core *core, json_t *description)
{
    struct ash_job *job;
    struct ash_error error = ASH_ERROR_INIT;
    json_object_set_new(description, "auto-dismiss", json_false());
    int ret = ash_co_job_start(core->loop, description, NULL, NULL, &job, &error);
    json_decref(description);
    if (ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)core->seed, error.message);
    }
    assert_int_equal(ret, 0);
    return job;
}

/* Pauses for a while, at a random time. */
ASH_CO_FN static inline void job_pause_a_while(struct core *core, struct ash_job *job)
{
    ash_co_sleep(ash_prng_below(&core->prng, 40000));
    if (ash_co_job_control(job, ASH_JOB_PAUSE, 0, NULL) == 0) {
        ash_co_sleep(20000);
        (void)!ash_co_job_control(job, ASH_JOB_RESUME, 0, NULL);
    }
}

/* Waits until the job is in this state, or has concluded. */
ASH_CO_FN static inline void job_wait_for(struct ash_job *job, enum ash_job_state state)
{
    uint64_t end_ns = ash_loop_now(job->loop) + JOB_NS_MAX;
    while (ash_job_state(job) != state && ash_job_state(job) != ASH_JOB_CONCLUDED) {
        if (ash_loop_now(job->loop) > end_ns) {
            struct ash_job_info info = {.size = sizeof(info)};
            (void)!ash_job_info(job, &info);
            print_message("still %s, %lu of %lu bytes done\n",
                          ash_job_state_name(ash_job_state(job)), (unsigned long)info.done_bytes,
                          (unsigned long)info.total_bytes);
            assert_true(false);
        }
        /* A real clock's timers take the time that the job needs. */
        ash_co_sleep(core_is_real() ? 20000 : 1000);
    }
}

/* Waits for its end and dismisses it. The result. */
ASH_CO_FN static inline int job_finish(struct core *core, struct ash_job *job)
{
    job_wait_for(job, ASH_JOB_CONCLUDED);
    int ret = job->ret;
    if (ret < 0 && ret != -ECANCELED) {
        print_message("seed %lu: %s\n", (unsigned long)core->seed, job->error.message);
    }
    assert_int_equal(ash_co_job_control(job, ASH_JOB_DISMISS, 0, NULL), 0);
    ash_job_unref(job);
    return ret;
}

/* Runs the body for many seeds, on worlds whose requests take random times. */
static inline void job_run_seeds(uint64_t count, void (*body)(struct core *core, void *opaque))
{
    for (uint64_t seed = core_first_seed(); seed < core_end_seed(count); seed++) {
        struct core core;
        struct ash_sim_config sim_config = {.seed = seed, .latency_ns_max = 4000};
        struct ash_hooks hooks = {.size = sizeof(hooks), .alloc = alloc_hook, .free = free_hook};
        struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
        loop_config.hooks = &hooks;
        ash_prng_seed(&alloc_prng, seed);
        core_up_with(&core, seed, &sim_config, &loop_config);
        core_run(&core, body, NULL);
        core_down(&core);
    }
}

#endif
