/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/fault.h"
#include <stdio.h>
#include <string.h>

/* --- the table --- */

static void short_transfers(struct sim_run *run, struct ash_sim_config *config,
                            struct ash_prng *prng)
{
    (void)run;
    config->short_per_mille = 50 + (uint32_t)sim_below(prng, 400);
}

static void read_errors(struct sim_run *run, struct ash_sim_config *config, struct ash_prng *prng)
{
    (void)run;
    config->read_error_per_mille = 1 + (uint32_t)sim_below(prng, 60);
}

static void write_errors(struct sim_run *run, struct ash_sim_config *config, struct ash_prng *prng)
{
    (void)run;
    config->write_error_per_mille = 1 + (uint32_t)sim_below(prng, 60);
}

static void flush_errors(struct sim_run *run, struct ash_sim_config *config, struct ash_prng *prng)
{
    (void)run;
    config->flush_error_per_mille = 10 + (uint32_t)sim_below(prng, 200);
}

static void no_space(struct sim_run *run, struct ash_sim_config *config, struct ash_prng *prng)
{
    (void)run;
    config->no_space_per_mille = 10 + (uint32_t)sim_below(prng, 300);
}

static void full(struct sim_run *run, struct ash_sim_config *config, struct ash_prng *prng)
{
    uint64_t used = 0;
    for (uint32_t i = 0; i < run->disk_count; i++) {
        for (uint32_t layer = 0; layer < run->disks[i].layer_count; layer++) {
            used += (uint64_t)ash_sim_file_allocated_bytes(run->world,
                                                           run->disks[i].layers[layer].file);
        }
    }
    config->capacity_bytes = used + sim_below(prng, 256 * 1024) + 1;
}

static void stalls(struct sim_run *run, struct ash_sim_config *config, struct ash_prng *prng)
{
    (void)run;
    config->stall_per_mille = 1 + (uint32_t)sim_below(prng, 40);
}

static void no_memory(struct sim_run *run, struct ash_sim_config *config, struct ash_prng *prng)
{
    (void)config;
    run->memory_per_mille = 5 + (uint32_t)sim_below(prng, 150);
}

static const struct sim_fault faults[] = {
    {"short", 300, true, short_transfers},
    {"stall", 300, true, stalls},
    {"read-error", 250, false, read_errors},
    {"write-error", 250, false, write_errors},
    {"flush-error", 200, false, flush_errors},
    {"no-space", 200, false, no_space},
    {"full", 100, false, full},
    {"no-memory", 200, false, no_memory},
};

/* --- what a life has of it --- */

static struct ash_sim_config calm(const struct sim_run *run)
{
    return (struct ash_sim_config){
        .latency_ns_min = 1000,
        .latency_ns_max = run->latency_ns_max,
        .direct_alignment = run->alignment,
        .unsupported = run->unsupported,
    };
}

static bool chosen(struct sim_run *run, const struct sim_fault *fault)
{
    struct ash_prng prng = sim_draw(run, fault->name, run->life, 0, 0);
    return ash_prng_chance(&prng, fault->per_mille) &&
           sim_wants(run, "fault.%u.%s", run->life, fault->name);
}

bool sim_faults_choose(struct sim_run *run)
{
    struct ash_prng prng = sim_draw(run, "faults", run->life, 0, 0);
    bool harmful = false;
    run->faults = 0;
    if (ash_prng_chance(&prng, 450)) {
        return false;
    }
    for (uint32_t i = 0; i < G_N_ELEMENTS(faults); i++) {
        if (chosen(run, &faults[i])) {
            run->faults |= 1u << i;
            harmful |= !faults[i].harmless;
        }
    }
    return harmful;
}

bool sim_faults_have(const struct sim_run *run, const char *name)
{
    for (uint32_t i = 0; i < G_N_ELEMENTS(faults); i++) {
        if (strcmp(faults[i].name, name) == 0) {
            return (run->faults & 1u << i) != 0;
        }
    }
    return false;
}

void sim_faults_begin(struct sim_run *run)
{
    struct ash_sim_config config = calm(run);
    for (uint32_t i = 0; i < G_N_ELEMENTS(faults); i++) {
        if (run->faults & 1u << i) {
            struct ash_prng prng = sim_draw(run, faults[i].name, run->life, 1, 0);
            faults[i].apply(run, &config, &prng);
            sim_note(run, "fault: %s", faults[i].name);
        }
    }
    ash_sim_world_configure(run->world, &config);
}

void sim_faults_end(struct sim_run *run)
{
    struct ash_sim_config config = calm(run);
    ash_sim_world_configure(run->world, &config);
    run->memory_per_mille = 0;
    if (ash_sim_held(run->world) > 0) {
        ash_sim_release_all(run->world);
    }
}

/* --- the weather --- */

static void draw_cut(struct sim_run *run, struct ash_prng *prng, uint64_t most)
{
    static const enum ash_sim_cut modes[] = {ASH_SIM_CUT_RANDOM, ASH_SIM_CUT_RANDOM,
                                             ASH_SIM_CUT_RANDOM, ASH_SIM_CUT_DROP,
                                             ASH_SIM_CUT_KEEP};
    enum ash_sim_cut mode = modes[sim_below(prng, G_N_ELEMENTS(modes))];
    ash_sim_power_cut_at(run->world, 1 + sim_below(prng, most), mode);
}

void sim_weather_strikes(struct sim_run *run, const struct sim_disk *disk, uint32_t per_mille,
                         uint64_t writes)
{
    struct ash_prng prng = sim_draw(run, "strike", run->life, disk->number, disk->jobs_ever);
    if (!ash_sim_power_is_cut(run->world) && ash_prng_chance(&prng, per_mille) &&
        sim_wants(run, "strike.%u.%u.%u", run->life, disk->number, disk->jobs_ever)) {
        draw_cut(run, &prng, writes);
    }
}

/* Half of the lives end by a cut, wherever that strikes. */
void sim_weather(void *opaque)
{
    ash_co_assert_inside();
    struct sim_run *run = opaque;
    struct ash_prng prng = sim_draw(run, "weather", run->life, 0, 0);
    uint64_t span_ns = run->latency_ns_max * (1 + sim_below(&prng, 40)) + run->rest_ns;
    bool cuts = ash_prng_chance(&prng, 550) && sim_wants(run, "cut.%u", run->life);
    ash_co_sleep(sim_below(&prng, span_ns));
    if (cuts) {
        draw_cut(run, &prng, UINT64_C(1) << sim_below(&prng, 9));
    }
    for (uint32_t n = 0; run->guests > 0 && n < 3; n++) {
        sim_faults_begin(run);
        ash_co_sleep(sim_below(&prng, span_ns));
        if (!ash_prng_chance(&prng, 300)) {
            sim_faults_end(run);
        }
        ash_co_sleep(sim_below(&prng, span_ns));
    }
    while (run->guests > 0) {
        ash_co_sleep(span_ns);
        sim_faults_end(run);
        span_ns += span_ns / 4; /* who lingers would be looked at all the time */
    }
    run->weather = false;
    if (run->waiter_of_weather) {
        ash_co_wake(run->waiter_of_weather);
    }
}
