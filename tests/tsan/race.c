/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Whether ThreadSanitizer sees what it should. Two loops with threads of their own add to one plain
 * counter, from coroutines that sleep in between.
 *
 *     race plain     at will: a race, which must be reported
 *     race handed    who has added hands the counter over by a post: none
 *     race worker    worker threads add, for coroutines that wait for them: none */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ashlar/ashlar.h>
#include "util/assert.h"
#include "util/engine/co_aio.h"
#include "util/loop/loop.h"

enum { ROUNDS = 100 };

static struct ash_loop *loops[2];
static sem_t ended;
static unsigned counter;

ASH_CO_FN static void add_at_will(void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < ROUNDS; i++) {
        counter++;
        ash_co_sleep(1000);
    }
    sem_post(&ended);
}

static void begin_handing(void *opaque);

ASH_CO_FN static void add_and_hand_over(void *opaque)
{
    struct ash_loop *next = opaque == loops[0] ? loops[1] : loops[0];
    ash_co_sleep(1000);
    if (++counter == 2 * ROUNDS) {
        sem_post(&ended);
    } else {
        ash_assert(ash_loop_post(next, begin_handing, next) == 0);
    }
}

static int add_one(void *opaque)
{
    (*(unsigned *)opaque)++;
    return 0;
}

ASH_CO_FN static void have_workers_add(void *opaque)
{
    struct ash_loop *loop = opaque;
    unsigned mine = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        mine++;
        ash_assert(ash_co_work(loop->engine, add_one, &mine) == 0);
    }
    ash_assert(mine == 2 * ROUNDS);
    sem_post(&ended);
}

static void spawn(struct ash_loop *loop, ash_co_fn *fn)
{
    ash_assert(ash_co_spawn(&loop->sched, fn, loop) == 0);
}

static void begin_at_will(void *opaque)
{
    spawn(opaque, add_at_will);
}

static void begin_handing(void *opaque)
{
    spawn(opaque, add_and_hand_over);
}

static void begin_working(void *opaque)
{
    spawn(opaque, have_workers_add);
}

static const struct {
    const char *name;
    void (*begin)(void *opaque);
    unsigned loops;
} ways[] = {
    {"plain", begin_at_will, 2},
    {"handed", begin_handing, 1},
    {"worker", begin_working, 2},
};

static void run(void (*begin)(void *opaque), unsigned count)
{
    struct ash_loop_config config = ASH_LOOP_CONFIG_INIT;
    config.flags = ASH_LOOP_OWN_THREAD;
    sem_init(&ended, 0, 0);
    for (unsigned i = 0; i < 2; i++) {
        ash_assert(ash_loop_new(&config, &loops[i], NULL) == 0);
    }
    for (unsigned i = 0; i < count; i++) {
        ash_assert(ash_loop_post(loops[i], begin, loops[i]) == 0);
    }
    for (unsigned i = 0; i < count; i++) {
        while (sem_wait(&ended) < 0) {
            ash_assert(errno == EINTR);
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        ash_loop_free(loops[i]);
    }
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < ASH_ARRAY_SIZE(ways); i++) {
        if (strcmp(argv[1], ways[i].name) == 0) {
            run(ways[i].begin, ways[i].loops);
            printf("%u\n", counter);
            return 0;
        }
    }
    fprintf(stderr, "race plain|handed|worker\n");
    return 2;
}
