/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A worker process for each core takes every n-th seed. One that fails ends its process, after it
 * said why; another takes over behind it. */
#include "tests/sim/soak.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "tests/sim/sim.h"

enum { WORKERS_MAX = 256, SEED_SECONDS_MAX = 120 };

struct worker {
    pid_t process;
    int output;
    uint64_t failed;
    uint64_t done;
};

static volatile uint64_t *next_seed; /* of each worker; shared with it */
static time_t end_time;
static uint32_t workers_count;

static void work(uint32_t number)
{
    struct sim_config config = {0};
    while (time(NULL) < end_time) {
        uint64_t hash;
        uint64_t seed = next_seed[number];
        next_seed[number] = seed + workers_count;
        alarm(SEED_SECONDS_MAX);
        sim_run_seed(seed, &config, &hash);
    }
    _exit(0);
}

static void begin(struct worker *worker, uint32_t number)
{
    int pipes[2];
    if (pipe(pipes) < 0) {
        return;
    }
    fflush(stdout);
    worker->process = fork();
    if (worker->process == 0) {
        dup2(pipes[1], 2);
        close(pipes[0]);
        close(pipes[1]);
        work(number);
    }
    close(pipes[1]);
    worker->output = pipes[0];
}

static void keep(const char *path, uint64_t seed, const char *text)
{
    FILE *file = path ? fopen(path, "a") : NULL;
    const char *why = strstr(text, "fails: ");
    printf("%s", text);
    if (file) {
        const char *line = why ? why + 7 : "it died";
        fprintf(file, "%" PRIu64 " %.*s\n", seed, (int)strcspn(line, "\n"), line);
        fclose(file);
    }
}

/* Waits for what a worker has to say, and whether it failed. */
static bool end(struct worker *worker, uint32_t number, const char *path)
{
    char text[4096];
    size_t used = 0;
    ssize_t count;
    int status;
    while (used < sizeof(text) - 1 &&
           (count = read(worker->output, text + used, sizeof(text) - 1 - used)) > 0) {
        used += (size_t)count;
    }
    text[used] = '\0';
    close(worker->output);
    waitpid(worker->process, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return false;
    }
    keep(path, next_seed[number] - workers_count, text);
    return true;
}

/* Minds one worker after another, in a process of its own for each core. */
static void mind(uint32_t number, const char *path)
{
    struct worker worker = {0};
    bool any = false;
    while (time(NULL) < end_time) {
        begin(&worker, number);
        any |= end(&worker, number, path);
    }
    fflush(stdout);
    _exit(any);
}

int soak(uint64_t seconds, uint64_t first, const char *path)
{
    pid_t minders[WORKERS_MAX];
    uint64_t done = 0;
    bool any = false;
    workers_count = (uint32_t)CLAMP(sysconf(_SC_NPROCESSORS_ONLN), 1, WORKERS_MAX);
    end_time = time(NULL) + (time_t)seconds;
    next_seed = mmap(NULL, WORKERS_MAX * sizeof(*next_seed), PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (uint32_t i = 0; i < workers_count; i++) {
        next_seed[i] = first + i;
        fflush(stdout);
        minders[i] = fork();
        if (minders[i] == 0) {
            mind(i, path);
        }
    }
    for (uint32_t i = 0; i < workers_count; i++) {
        int status;
        waitpid(minders[i], &status, 0);
        any |= !WIFEXITED(status) || WEXITSTATUS(status) != 0;
        done += (next_seed[i] - first) / workers_count;
    }
    printf("%" PRIu64 " seeds from %" PRIu64 " on in %" PRIu64 " s, %s\n", done, first, seconds,
           any ? "some failed" : "none failed");
    return any;
}
