/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A whole run: the machine and its images come about, it lives, and is looked at. */
#include <string.h>
#include "tests/sim/check.h"
#include "tests/sim/fault.h"
#include "tests/sim/resume.h"

/* Lives for jobs that were cut off in the last one. */
#define LIVES_MORE_MAX 2

struct sim_run *sim_current;

static uint32_t choose_unsupported(struct ash_prng *prng)
{
    uint32_t flags = 0;
    for (uint32_t bit = 0; bit < 7; bit++) {
        flags |= ash_prng_chance(prng, 120) ? 1u << bit : 0;
    }
    return flags;
}

static void choose(struct sim_run *run)
{
    static const uint64_t latencies[] = {1000, 20000, 100000, 100000, 1000000};
    struct ash_prng prng = sim_draw(run, "run", 0, 0, 0);
    struct ash_sim_config config = {.seed = run->seed ^ run->config->salt << 32};
    config.sector_bytes = ash_prng_chance(&prng, 300) ? 4096 : 512;
    run->alignment = ash_prng_chance(&prng, 300) ? 4096 : 512;
    run->latency_ns_max = latencies[sim_below(&prng, G_N_ELEMENTS(latencies))];
    run->unsupported = ash_prng_chance(&prng, 500) ? choose_unsupported(&prng) : 0;
    run->life_count = 1 + (uint32_t)sim_below(&prng, 4);
    uint32_t disk_count = 1;
    while (disk_count < SIM_DISKS_MAX && ash_prng_chance(&prng, 250)) {
        disk_count++;
    }
    run->world = ash_sim_world_new(&config);
    run->order = sim_draw(run, "order", run->config->salt, 0, 0);
    for (uint32_t i = 0; i < disk_count; i++) {
        if (i == 0 || sim_wants(run, "disk.%u", i)) {
            struct sim_disk *disk = &run->disks[run->disk_count++];
            disk->run = run;
            disk->number = i;
            sim_disk_choose(disk);
        }
    }
}

static int create(void *opaque)
{
    ash_co_assert_inside();
    struct sim_run *run = opaque;
    for (uint32_t i = 0; i < run->disk_count; i++) {
        sim_disk_create(&run->disks[i]);
    }
    return 0;
}

void sim_run_seed(uint64_t seed, const struct sim_config *config, uint64_t *hash)
{
    struct sim_run run = {.seed = seed, .config = config};
    sim_current = &run;
    sim_memory_begin(&run);
    choose(&run);
    sim_trace_world(&run);
    uint32_t unsupported = run.unsupported;
    run.unsupported = 0;
    sim_faults_end(&run);
    sim_boot(&run);
    sim_call(&run, create, &run);
    sim_halt(&run);
    run.unsupported = unsupported;
    sim_faults_end(&run);
    uint32_t most = run.life_count + LIVES_MORE_MAX;
    for (run.life = 0; run.life < (sim_resume_awaited(&run) ? most : run.life_count); run.life++) {
        if (sim_wants(&run, "life.%u", run.life)) {
            sim_live(&run);
        }
    }
    sim_check_disks(&run, SIM_CHECK_END);
    sim_check_disks(&run, SIM_CHECK_CLEAN);
    *hash = run.hash ^ ash_sim_trace_hash(run.world);
    for (uint32_t i = 0; i < run.disk_count; i++) {
        sim_resume_forget(&run.disks[i]);
        model_free(&run.disks[i].model);
    }
    ash_sim_world_free(run.world);
    sim_machine_end();
    sim_current = NULL;
}
