/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulator's command line.
 *
 *   sim run FIRST COUNT         the runs of COUNT seeds, and how many there were a second
 *   sim seed SEED [...]         one run
 *   sim trace SEED [...]        the same as a timeline
 *   sim shrink SEED [...]       a smaller run that fails too, as the command that repeats it
 *   sim list FILE               the runs of all seeds in a file
 *   sim soak SECONDS FIRST [FILE]  seeds for so long on all cores; FILE keeps those that fail
 *
 * [...]: --salt N, other latencies and orders; --without NAME,NAME..., decisions left out. */
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "sim_commit.h"
#include "tests/sim/shrink.h"
#include "tests/sim/sim.h"
#include "tests/sim/soak.h"

enum { SECONDS_MAX = 120, TWICE_EVERY = 16 };

static const char *program;
static const char *arguments = ""; /* of the run under way, after its seed */

/* --- failures --- */

static const char *commit(void)
{
    const char *named = getenv("ASHLAR_COMMIT");
    return named ? named : SIM_COMMIT;
}

void sim_tell_command(void)
{
    fprintf(stderr, "commit %s; to repeat: %s seed %" PRIu64 "%s\n", commit(), program,
            sim_current ? sim_current->seed : 0, arguments);
}

void sim_fail(struct sim_run *run, const char *checker, const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fprintf(stderr, "seed %" PRIu64 " fails: [%s] life %u: ", run->seed, checker, run->life);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    sim_tell_command();
    _exit(1);
}

static void died(int signal)
{
    static char text[64];
    fflush(stdout);
    snprintf(text, sizeof(text), "seed %" PRIu64 " fails: [signal] %d\n",
             sim_current ? sim_current->seed : 0, signal);
    (void)!write(2, text, strlen(text));
    sim_tell_command();
    _exit(1);
}

/* --- runs --- */

static uint64_t one(uint64_t seed, const struct sim_config *config, bool twice)
{
    uint64_t hash;
    uint64_t again;
    alarm(SECONDS_MAX);
    sim_run_seed(seed, config, &hash);
    if (twice) {
        sim_run_seed(seed, config, &again);
        if (hash != again) {
            struct sim_run run = {.seed = seed, .config = config};
            sim_current = &run;
            sim_fail(&run, "twice", "two runs of it differ: %" PRIx64 " and %" PRIx64, hash, again);
        }
    }
    return hash;
}

static double seconds(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int many(uint64_t first, uint64_t count)
{
    struct sim_config config = {0};
    double begin = seconds(CLOCK_MONOTONIC);
    for (uint64_t seed = first; seed < first + count; seed++) {
        one(seed, &config, seed % TWICE_EVERY == 0);
    }
    double took = seconds(CLOCK_MONOTONIC) - begin;
    double busy = seconds(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t runs = count + (first + count + TWICE_EVERY - 1) / TWICE_EVERY -
                    (first + TWICE_EVERY - 1) / TWICE_EVERY;
    printf("%" PRIu64 " seeds, every %dth twice: %" PRIu64 " runs in %.1f s, %.0f a second of the "
           "processor's time\n",
           count, TWICE_EVERY, runs, took, (double)runs / busy);
    return 0;
}

static int list(const char *path)
{
    struct sim_config config = {0};
    char *text;
    uint64_t count = 0;
    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        fprintf(stderr, "%s cannot be read\n", path);
        return 1;
    }
    char **lines = g_strsplit(text, "\n", 0);
    for (char **line = lines; *line; line++) {
        if (g_ascii_isdigit(**line)) {
            one(strtoull(*line, NULL, 10), &config, true);
            count++;
        }
    }
    g_strfreev(lines);
    g_free(text);
    printf("%" PRIu64 " seeds of %s, each twice\n", count, path);
    return count > 0 ? 0 : 1;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: %s run FIRST COUNT | list FILE | soak SECONDS FIRST [FILE] | seed|trace|shrink "
            "SEED [--salt N] "
            "[--without NAME,...]\n",
            program);
    return 2;
}

static bool read_options(int argc, char **argv, struct sim_config *config)
{
    GString *text = g_string_new("");
    for (int i = 3; i + 1 < argc; i += 2) {
        g_string_append_printf(text, " %s %s", argv[i], argv[i + 1]);
        if (strcmp(argv[i], "--salt") == 0) {
            config->salt = strtoull(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--without") == 0) {
            config->left_out = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
            char **names = g_strsplit(argv[i + 1], ",", 0);
            for (char **name = names; *name; name++) {
                g_hash_table_add(config->left_out, g_strdup(*name));
            }
            g_strfreev(names);
        } else {
            return false;
        }
    }
    arguments = g_string_free(text, FALSE);
    return argc % 2 == 1;
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGABRT, SIGALRM, SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    struct sim_config config = {0};
    program = argv[0];
    mallopt(M_MMAP_THRESHOLD, 64 * 1024 * 1024);
    mallopt(M_TRIM_THRESHOLD, 256 * 1024 * 1024);
    for (size_t i = 0; i < G_N_ELEMENTS(signals); i++) {
        signal(signals[i], died);
    }
    if (argc == 4 && strcmp(argv[1], "run") == 0) {
        return many(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10));
    }
    if (argc == 3 && strcmp(argv[1], "list") == 0) {
        return list(argv[2]);
    }
    if ((argc == 4 || argc == 5) && strcmp(argv[1], "soak") == 0) {
        return soak(strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10),
                    argc == 5 ? argv[4] : NULL);
    }
    if (argc < 3 || !read_options(argc, argv, &config)) {
        return usage();
    }
    uint64_t seed = strtoull(argv[2], NULL, 10);
    if (strcmp(argv[1], "shrink") == 0) {
        return shrink(program, seed, &config);
    }
    config.trace = strcmp(argv[1], "trace") == 0;
    if (!config.trace && strcmp(argv[1], "seed") != 0) {
        return usage();
    }
    uint64_t hash = one(seed, &config, !config.trace || getenv("SIM_TWICE"));
    printf("seed %" PRIu64 " is fine; the hash of what it did: %016" PRIx64 "\n", seed, hash);
    return 0;
}
