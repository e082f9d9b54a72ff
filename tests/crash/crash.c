/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Cuts the power of a simulated machine at every write of a run, and lets its disk fail.
 *
 *   crash cuts FIRST COUNT    for each of COUNT seeds: the run of that seed, once for each of its
 *                             writes n, with what was not synced dropped, torn, kept or torn in
 *                             turn (seeds that differ by 42 begin elsewhere)
 *   crash cut SEED N MODE     one of them; MODE: drop, keep, random
 *   crash faults FIRST COUNT  for each seed and each kind of fault: a run with such faults
 *   crash fault SEED KIND     one of them
 *
 * 1. All that happens depends on the arguments alone.
 * 2. A run ends in the normal way: requests fail, the disk is closed, the loop is freed. Then the
 *    image is looked at (verify.h), written on, cut in that again at times, repaired, and has to be
 *    clean.
 * 3. Of each 200 cut images one is shown to qemu-img. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "tests/crash/verify.h"

enum { SESSION_REQUESTS = 5, AFTERWARDS_REQUESTS = 3, PEER_EVERY = 200, SECONDS_MAX = 300 };

static const char *program;
static char again[120]; /* the arguments that repeat what is running */
static uint64_t runs;

static void say_again(int signal)
{
    (void)signal;
    static const char text[] = "\nto repeat: ";
    (void)!write(2, text, sizeof(text) - 1);
    (void)!write(2, program, strlen(program));
    (void)!write(2, again, strlen(again));
    (void)!write(2, "\n", 1);
    if (signal) {
        _exit(1);
    }
}

void run_fail(const struct run *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "seed %" PRIu64 " (%s, tears at %u): ", run->seed, run->options,
            run->file_unit);
    vfprintf(stderr, format, args);
    va_end(args);
    say_again(0);
    verify_end();
    _exit(1);
}

/* --- cuts --- */

static const char *const mode_names[] = {
    [ASH_SIM_CUT_DROP] = "drop", [ASH_SIM_CUT_KEEP] = "keep", [ASH_SIM_CUT_RANDOM] = "random"};

/* After the first session: looks, writes on with a second cut at times, repairs. */
static void afterwards(struct run *run, bool show)
{
    ash_sim_power_restore(run->world);
    verify_after_cut(run, show);
    run_boot(run);
    if (ash_prng_below(&run->prng, 3) == 0) {
        ash_sim_power_cut_at(run->world, 1 + ash_prng_below(&run->prng, 40), ASH_SIM_CUT_RANDOM);
    }
    int ret = run_session(run, AFTERWARDS_REQUESTS);
    bool cut = ash_sim_power_is_cut(run->world);
    run_halt(run);
    ash_sim_power_restore(run->world);
    ash_sim_power_cut_at(run->world, 0, ASH_SIM_CUT_DROP);
    if (ret < 0 && !cut) {
        run_fail(run, "writing on failed with %d", ret);
    }
    if (cut) {
        verify_after_cut(run, false);
    }
    verify_repaired(run, show);
}

/* n 0: no cut; returns how many writes there are. */
static uint64_t one_cut(uint64_t seed, uint64_t n, enum ash_sim_cut mode)
{
    struct run run;
    snprintf(again, sizeof(again), " cut %" PRIu64 " %" PRIu64 " %s", seed, n, mode_names[mode]);
    alarm(SECONDS_MAX);
    run_init(&run, seed);
    uint64_t before = ash_sim_mutations(run.world);
    run_boot(&run);
    if (n > 0) {
        ash_sim_power_cut_at(run.world, n, mode);
    }
    run_session(&run, SESSION_REQUESTS);
    uint64_t count = ash_sim_mutations(run.world) - before;
    if (n > 0 && !ash_sim_power_is_cut(run.world)) {
        run_fail(&run, "the run has less than %" PRIu64 " writes", n);
    }
    run_halt(&run);
    if (n == 0) {
        verify_repaired(&run, true);
    } else {
        ash_prng_seed(&run.prng, seed ^ n << 32);
        afterwards(&run, verify_has_peer() && ash_prng_below(&run.prng, PEER_EVERY) == 0);
    }
    run_free(&run);
    runs++;
    return count;
}

static void all_cuts(uint64_t seed)
{
    static const enum ash_sim_cut modes[] = {ASH_SIM_CUT_DROP, ASH_SIM_CUT_RANDOM, ASH_SIM_CUT_KEEP,
                                             ASH_SIM_CUT_RANDOM};
    uint64_t count = one_cut(seed, 0, ASH_SIM_CUT_DROP);
    for (uint64_t n = 1; n <= count; n++) {
        one_cut(seed, n, modes[(n + seed / RUN_CONFIGURATIONS) % 4]);
    }
}

/* --- faults --- */

#define FAULT_CAPACITY 4
static const struct ash_sim_config faults[] = {
    {.read_error_per_mille = 30},
    {.write_error_per_mille = 30},
    {.flush_error_per_mille = 60},
    {.no_space_per_mille = 100},
    {.capacity_bytes = 1}, /* beyond what is there: drawn */
    {.short_per_mille = 300},
    {.read_error_per_mille = 5,
     .write_error_per_mille = 10,
     .flush_error_per_mille = 10,
     .no_space_per_mille = 20,
     .short_per_mille = 100},
};

static void watch_flushes(void *opaque, const struct ash_sim_event *event)
{
    struct run *run = opaque;
    if (event->phase == ASH_SIM_COMPLETED && event->aio->op == ASH_AIO_FLUSH && event->result < 0) {
        run->flush_broken = true;
    }
}

static void break_disk(struct run *run, unsigned kind)
{
    struct ash_sim_config config = faults[kind];
    config.latency_ns_min = 1000;
    config.latency_ns_max = 100000;
    if (kind == FAULT_CAPACITY) {
        config.capacity_bytes = (uint64_t)ash_sim_file_allocated_bytes(run->world, "image") +
                                ash_prng_below(&run->prng, 512 * 1024);
        if (run->backing) {
            config.capacity_bytes += (uint64_t)ash_sim_file_allocated_bytes(run->world, "base");
        }
    }
    ash_sim_world_configure(run->world, &config);
    run->faulty = config.short_per_mille < 300;
    ash_sim_observe(run->world, watch_flushes, run);
}

static void mend_disk(struct run *run)
{
    struct ash_sim_config config = {.latency_ns_min = 1000, .latency_ns_max = 100000};
    ash_sim_world_configure(run->world, &config);
    ash_sim_observe(run->world, NULL, NULL);
    run->faulty = false;
    run->flush_broken = false;
}

static uint32_t one_fault(uint64_t seed, unsigned kind)
{
    struct run run;
    snprintf(again, sizeof(again), " fault %" PRIu64 " %u", seed, kind);
    alarm(SECONDS_MAX);
    run_init(&run, seed);
    ash_prng_seed(&run.prng, seed ^ (uint64_t)kind << 32);
    run_boot(&run);
    break_disk(&run, kind);
    enum ash_sim_cut mode = (enum ash_sim_cut)ash_prng_below(&run.prng, 3);
    if (ash_prng_below(&run.prng, 3) == 0) {
        ash_sim_power_cut_at(run.world, 1 + ash_prng_below(&run.prng, 150), mode);
    }
    run_session(&run, SESSION_REQUESTS * 3);
    uint32_t errors = run.errors;
    run_halt(&run);
    if (!ash_sim_power_is_cut(run.world)) {
        ash_sim_power_cut_at(run.world, 0, mode);
        ash_sim_power_cut(run.world, mode);
    }
    mend_disk(&run);
    afterwards(&run, verify_has_peer() && ash_prng_below(&run.prng, PEER_EVERY / 8) == 0);
    run_free(&run);
    runs++;
    return errors;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: %s cuts FIRST COUNT | cut SEED N drop|keep|random | faults FIRST COUNT | "
            "fault SEED 0..%zu\n",
            program, sizeof(faults) / sizeof(faults[0]) - 1);
    return 2;
}

int main(int argc, char **argv)
{
    program = argv[0];
    if (argc < 4) {
        return usage();
    }
    signal(SIGABRT, say_again);
    signal(SIGALRM, say_again);
    uint64_t first = strtoull(argv[2], NULL, 10);
    uint64_t second = strtoull(argv[3], NULL, 10);
    uint64_t errors = 0;
    for (uint64_t seed = first; !strcmp(argv[1], "cuts") && seed < first + second; seed++) {
        all_cuts(seed);
    }
    for (uint64_t seed = first; !strcmp(argv[1], "faults") && seed < first + second; seed++) {
        for (unsigned kind = 0; kind < sizeof(faults) / sizeof(faults[0]); kind++) {
            errors += one_fault(seed, kind);
        }
    }
    if (!strcmp(argv[1], "fault") && second < sizeof(faults) / sizeof(faults[0])) {
        errors = one_fault(first, (unsigned)second);
    } else if (!strcmp(argv[1], "cut") && argc == 5) {
        for (unsigned mode = 0; mode < sizeof(mode_names) / sizeof(mode_names[0]); mode++) {
            if (!strcmp(argv[4], mode_names[mode])) {
                one_cut(first, second, (enum ash_sim_cut)mode);
            }
        }
    }
    verify_end();
    printf("%" PRIu64 " runs, %" PRIu64 " failed requests, %" PRIu32 " images shown to qemu-img\n",
           runs, errors, verify_peer_runs);
    return runs > 0 ? 0 : usage();
}
