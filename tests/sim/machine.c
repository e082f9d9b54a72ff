/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The machine: a loop on a simulated engine, with coroutines in an order drawn from the seed.
 *
 * Liveness: when nothing can happen any more although somebody waits, the engine says so. Then what
 * it holds back is released and the faults end; if that does not help, something waits for ever. A
 * bound on turns and on virtual time catches what is busy for ever. */
#include <errno.h>
#include "block/graph/block.h"
#include "tests/sim/check.h"
#include "tests/sim/fault.h"
#include "tests/sim/sim.h"
#include "util/assert.h"
#include "util/co/private.h"

#define TURNS_MAX 3000000
#define LIFE_NS_MAX (UINT64_C(600) * 1000000000)

/* Stacks of coroutines outlive loops and runs: mapping new ones would take a third of the time.
 * They are all of one colour, as how buffers on them are aligned depends on that. A run that needs
 * more makes its own, which do not outlive it. */
#define STACKS 48
static struct ash_list spare_stacks; /* of struct ash_co */
static uintptr_t colour;

static uintptr_t colour_of(const struct ash_co *co)
{
    return (uintptr_t)co % 4096;
}

static void make_stacks(const struct ash_co_sched *sched)
{
    ash_list_init(&spare_stacks);
    for (unsigned i = 0; i < STACKS; i++) {
        struct ash_co *co = ash_co_stack_new(sched->config.stack_bytes, 0);
        ash_assert(co != NULL);
        ash_list_push_back(&spare_stacks, &co->link);
        colour = colour_of(co);
    }
}

void sim_machine_end(void)
{
    ash_list_for_each_safe (co, &spare_stacks, struct ash_co, link) {
        if (colour_of(co) != colour) {
            ash_list_remove(&co->link);
            ash_co_stack_free(co);
        }
    }
}

static void move_stacks(struct ash_list *to, struct ash_list *from, struct ash_co_sched *sched)
{
    ash_list_for_each_safe (co, from, struct ash_co, link) {
        ash_list_remove(&co->link);
        ash_list_push_back(to, &co->link);
        co->sched = sched;
    }
}

static void give_stacks(struct ash_co_sched *sched)
{
    if (!spare_stacks.next) {
        make_stacks(sched);
    }
    ash_list_for_each (co, &spare_stacks, struct ash_co, link) {
        sched->idle_count++;
    }
    move_stacks(&sched->idle, &spare_stacks, sched);
}

static void keep_stacks(struct ash_co_sched *sched)
{
    move_stacks(&spare_stacks, &sched->idle, NULL);
    sched->idle_count = 0;
}

void sim_boot(struct sim_run *run)
{
    struct ash_engine_config config = {.depth = 64};
    struct ash_loop_config loop_config = ASH_LOOP_CONFIG_INIT;
    struct ash_engine *engine;
    struct ash_prng prng = sim_draw(run, "boot", run->life, 0, 0);
    loop_config.hooks = &sim_hooks;
    if (ash_prng_chance(&prng, 250)) {
        loop_config.metadata_bytes_max = 4096 + sim_below(&prng, 65536);
    }
    ash_sim_power_restore(run->world);
    run->forced = false;
    if (ash_engine_sim_new(run->world, &config, &engine, NULL) < 0 ||
        ash_loop_new_with_engine(engine, &loop_config, &run->loop, NULL) < 0 ||
        ash_loop_bind(run->loop) < 0) {
        sim_fail(run, "machine", "no loop");
    }
    run->loop->sched.shuffle = &run->order;
    give_stacks(&run->loop->sched);
}

void sim_halt(struct sim_run *run)
{
    sim_check_all(run, SIM_CHECK_IDLE);
    keep_stacks(&run->loop->sched);
    ash_loop_free(run->loop);
    run->loop = NULL;
    sim_check_all(run, SIM_CHECK_HALTED);
}

struct call {
    int (*fn)(void *opaque);
    void *opaque;
    int ret;
    bool done;
};

static void call_body(void *opaque)
{
    struct call *call = opaque;
    call->ret = call->fn(call->opaque);
    call->done = true;
}

/* Coroutines of the library's own may have something to finish; and what a job left behind that was
 * ended by force, as in a throttle, may take its time. */
static void finish(struct sim_run *run)
{
    uint64_t end_ns = ash_sim_now(run->world) + LIFE_NS_MAX;
    while (run->loop->sched.ready_count > 0) {
        ash_loop_run_once(run->loop, 0, 0);
    }
    while (run->forced && run->loop->sched.count > 0 && ash_sim_now(run->world) < end_ns &&
           ash_loop_run_once(run->loop, -1, 0) >= 0) {
    }
}

int sim_call(struct sim_run *run, int (*fn)(void *opaque), void *opaque)
{
    struct call call = {.fn = fn, .opaque = opaque};
    uint64_t end_ns = ash_sim_now(run->world) + LIFE_NS_MAX;
    uint64_t turns = 0;
    if (ash_co_spawn(&run->loop->sched, call_body, &call) < 0) {
        sim_fail(run, "machine", "no coroutine");
    }
    while (!call.done) {
        int ret = ash_loop_run_once(run->loop, -1, 0);
        if (ret == -EDEADLK && ash_sim_held(run->world) > 0) {
            sim_note(run, "nothing moves: %u requests are released", ash_sim_held(run->world));
            sim_faults_end(run);
            continue;
        }
        if (ret == -EDEADLK) {
            sim_fail(run, "liveness", "%u coroutines wait for ever", run->loop->sched.count);
        }
        if (ret < 0) {
            sim_fail(run, "machine", "a turn ended with %d", ret);
        }
        if (++turns > TURNS_MAX || ash_sim_now(run->world) > end_ns) {
            sim_fail(run, "liveness", "it does not come to an end");
        }
    }
    finish(run);
    return call.ret;
}
