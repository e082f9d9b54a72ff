/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A loop for tests of the core: on the simulated engine, with coroutines run in an order drawn from
 * the seed, or, where ASHLAR_ENGINE is set, on that engine with files in /dev/shm. */
#ifndef ASH_TESTS_CORE_RIG_H
#define ASH_TESTS_CORE_RIG_H

#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "block/disk/disk.h"
#include "block/driver.h"
#include "block/graph/edge.h"
#include "block/graph/open.h"
#include "block/graph/plan.h"
#include "tests/unit/mem_protocol.h"
#include "tests/unit/temp_dir.h"
#include "util/engine/sim.h"
#include "util/loop/loop.h"

struct core {
    struct ash_sim_world *world; /* NULL: a real engine */
    struct ash_loop *loop;
    uint64_t seed;
    struct ash_prng prng; /* the test's own */
    struct ash_prng order;
    char directory[64];
    unsigned running;         /* coroutines that core_spawn() started */
    struct ash_co_queue idle; /* core_join() in it waits for the last of them */
};

/* A test that fails leaves its core up: then the seed is told, at the next one's start or at the
 * end of the program. */
static struct core *core_up_now;
static uint64_t core_seed_now;

static inline void core_tell_seed(void)
{
    if (core_up_now != NULL) {
        fprintf(stderr, "seed %lu: SEED=%lu before the command repeats it\n",
                (unsigned long)core_seed_now, (unsigned long)core_seed_now);
    }
    core_up_now = NULL;
}

/* The seeds of a random test: `usual` of them, or the one in the environment. */
static inline uint64_t core_first_seed(void)
{
    const char *seed = getenv("SEED");
    return seed != NULL ? strtoull(seed, NULL, 10) : 0;
}

static inline uint64_t core_end_seed(uint64_t usual)
{
    return getenv("SEED") != NULL ? core_first_seed() + 1 : fewer_if_sanitized(usual);
}

static inline bool core_is_real(void)
{
    return getenv("ASHLAR_ENGINE") != NULL;
}

static inline void core_up_with(struct core *core, uint64_t seed,
                                const struct ash_sim_config *sim_config,
                                const struct ash_loop_config *loop_config)
{
    struct ash_engine *engine;
    static bool first = true;
    memset(core, 0, sizeof(*core));
    core_tell_seed();
    if (first) {
        (void)atexit(core_tell_seed);
        first = false;
    }
    core_up_now = core;
    core_seed_now = seed;
    ash_co_queue_init(&core->idle);
    core->seed = seed;
    ash_prng_seed(&core->prng, seed);
    ash_prng_seed(&core->order, seed ^ 0x5eed);
    if (core_is_real()) {
        snprintf(core->directory, sizeof(core->directory), "%s", "/dev/shm/ashlar-core-XXXXXX");
        assert_non_null(mkdtemp(core->directory));
        assert_int_equal(ash_loop_new(loop_config, &core->loop, NULL), 0);
    } else {
        core->world = ash_sim_world_new(sim_config);
        struct ash_engine_config config = {.depth = 64};
        assert_int_equal(ash_engine_sim_new(core->world, &config, &engine, NULL), 0);
        assert_int_equal(ash_loop_new_with_engine(engine, loop_config, &core->loop, NULL), 0);
    }
    assert_int_equal(ash_loop_bind(core->loop), 0);
    core->loop->sched.shuffle = &core->order;
}

static inline void core_up(struct core *core, uint64_t seed)
{
    struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
    struct ash_sim_config sim_config = {.seed = seed, .latency_ns_max = 2000};
    core_up_with(core, seed, &sim_config, &loop_config);
}

/* The path of a file of this name, of `bytes` (a hole); -1: only the path. One of four buffers. */
static inline const char *core_file(struct core *core, const char *name, int64_t bytes)
{
    static char paths[4][128];
    static unsigned next;
    char *path = paths[next++ % 4];
    if (core->world == NULL) {
        snprintf(path, sizeof(paths[0]), "%s/%s", core->directory, name);
        if (bytes >= 0) {
            FILE *file = fopen(path, "w");
            assert_non_null(file);
            assert_int_equal(ftruncate(fileno(file), bytes), 0);
            fclose(file);
        }
    } else {
        snprintf(path, sizeof(paths[0]), "%s", name);
        if (bytes >= 0) {
            assert_int_equal(ash_sim_file_write(core->world, path,
                                                bytes > 0 ? (uint64_t)bytes - 1 : 0, "", bytes > 0),
                             0);
        }
    }
    return path;
}

static inline void core_down(struct core *core)
{
    ash_loop_free(core->loop);
    core_up_now = NULL;
    if (core->world != NULL) {
        assert_int_equal(ash_sim_open_files(core->world), 0);
        ash_sim_world_free(core->world);
    } else {
        assert_int_equal(directory_remove(core->directory), 0);
    }
}

struct core_body {
    struct core *core;
    void (*fn)(struct core *core, void *opaque);
    void *opaque;
};

static inline int core_main(void *opaque)
{
    struct core_body *body = opaque;
    body->fn(body->core, body->opaque);
    return 0;
}

/* Runs the function in a coroutine to its end. */
static inline void core_run(struct core *core, void (*fn)(struct core *core, void *opaque),
                            void *opaque)
{
    struct core_body body = {core, fn, opaque};
    assert_int_equal(ash_loop_run_sync(core->loop, core_main, &body), 0);
}

static inline void core_spawned(void *opaque)
{
    struct core_body body = *(struct core_body *)opaque;
    free(opaque);
    body.fn(body.core, body.opaque);
    if (--body.core->running == 0) {
        ash_co_queue_wake_all(&body.core->idle);
    }
}

/* Starts the function in a coroutine of its own; core_join() waits for all of them. */
static inline void core_spawn(struct core *core, void (*fn)(struct core *core, void *opaque),
                              void *opaque)
{
    struct core_body *body = malloc(sizeof(*body));
    assert_non_null(body);
    *body = (struct core_body){core, fn, opaque};
    core->running++;
    assert_int_equal(ash_co_spawn(&core->loop->sched, core_spawned, body), 0);
}

/* From a coroutine. */
ASH_CO_FN static inline void core_join(struct core *core)
{
    while (core->running > 0) {
        ash_co_queue_wait(&core->idle);
    }
}

/* A node of the in-memory protocol behind an edge that may do everything. */
ASH_CO_FN static inline struct ash_edge *core_mem(struct core *core, json_t *options)
{
    struct ash_node *node;
    struct ash_edge *edge;
    struct ash_error error = ASH_ERROR_INIT;
    json_object_set_new(options, "driver", json_string("test-mem"));
    int ret = ash_node_open(core->loop, options, ASH_NODE_WRITE | ASH_NODE_DISCARD, &node, &error);
    json_decref(options);
    if (ret < 0) {
        print_message("%s\n", error.message);
    }
    assert_int_equal(ret, 0);
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_attach(plan, NULL, node, "root", ASH_ROLE_DISK, ASH_RIGHT_ALL, ASH_RIGHT_ALL, NULL,
                    &edge);
    assert_int_equal(ash_plan_run(plan, &error), 0);
    ash_plan_free(plan);
    assert_int_equal(ash_node_unref(node), 0);
    return edge;
}

ASH_CO_FN static inline void core_let_go(struct core *core, struct ash_edge *edge)
{
    struct ash_plan *plan = ash_plan_new(core->loop);
    ash_plan_detach(plan, edge);
    assert_int_equal(ash_plan_run(plan, NULL), 0);
    ash_plan_free(plan);
}

/* A test whose body is a coroutine of a fresh loop. */
#define CORE_TEST(name)                                                                            \
    ASH_CO_FN static void name##_body(struct core *core, void *opaque);                            \
    static void name(void **state)                                                                 \
    {                                                                                              \
        struct core core;                                                                          \
        (void)state;                                                                               \
        core_up(&core, 1);                                                                         \
        core_run(&core, name##_body, NULL);                                                        \
        core_down(&core);                                                                          \
    }                                                                                              \
    ASH_CO_FN static void name##_body(struct core *core, void *opaque)

/* Opens a disk, which must work. Takes the description. */
ASH_CO_FN static inline struct ash_disk *core_open_disk(struct core *core, json_t *description,
                                                        uint32_t flags)
{
    struct ash_disk *disk = NULL;
    struct ash_error error = ASH_ERROR_INIT;
    int ret = ash_co_disk_open(core->loop, description, flags, &disk, &error);
    json_decref(description);
    if (ret < 0) {
        print_message("seed %lu: %s\n", (unsigned long)core->seed, error.message);
    }
    assert_int_equal(ret, 0);
    return disk;
}

/* The same with the description's text. */
ASH_CO_FN static inline struct ash_disk *core_open_text(struct core *core, const char *text,
                                                        uint32_t flags)
{
    json_t *description = json_loads(text, 0, NULL);
    assert_non_null(description);
    return core_open_disk(core, description, flags);
}

#endif
