/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated engine: the clock, and the requests in flight in the order of their events.
 *
 *   submit -> held (a hold matches, or it stalls) -- release --+
 *          +-> heap, SIM_STAGE_START <-------------------------+
 *                 | its instant has come: carried out
 *                 +-> completed at once (metadata, flush, work)
 *                 +-> heap or held, SIM_STAGE_COMPLETE -> completed
 *   What a fault is aimed at goes to the heap in SIM_STAGE_COMPLETE at once.
 *
 * Invariants:
 *  1. A request in flight is exactly once in the heap or in world->held; a poll is in sim->polls,
 * and once cancelled in the heap.
 *  2. Time never goes back, and moves only in wait(), when nothing is due.
 *  3. The order of events is a function of the draws: time, then a random tie-break. */

#include <errno.h>
#include <string.h>
#include "util/assert.h"
#include "util/engine/sim/internal.h"
#include "util/error.h"
#include "util/range.h"

static struct sim_engine *sim_of(struct ash_engine *engine)
{
    return ash_container_of(engine, struct sim_engine, engine);
}

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
    return a->time_ns != b->time_ns ? a->time_ns < b->time_ns : a->tie < b->tie;
}

static void heap_push(struct sim_engine *sim, uint64_t time_ns, struct sim_request *request)
{
    struct sim_event event = {time_ns, ash_prng_next(&sim->world->prng), request};
    uint32_t at = sim->heap_count++;

    if (at == sim->heap_max) {
        sim->heap_max = ASH_MAX(sim->heap_max * 2, 64u);
        sim->heap = g_renew(struct sim_event, sim->heap, sim->heap_max);
    }
    while (at > 0 && earlier(&event, &sim->heap[(at - 1) / 2])) {
        sim->heap[at] = sim->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    sim->heap[at] = event;
}

static struct sim_request *heap_pop(struct sim_engine *sim)
{
    struct sim_request *request = sim->heap[0].request;
    struct sim_event last = sim->heap[--sim->heap_count];
    uint32_t at = 0;

    for (;;) {
        uint32_t child = at * 2 + 1;
        if (child >= sim->heap_count) {
            break;
        }
        if (child + 1 < sim->heap_count && earlier(&sim->heap[child + 1], &sim->heap[child])) {
            child++;
        }
        if (!earlier(&sim->heap[child], &last)) {
            break;
        }
        sim->heap[at] = sim->heap[child];
        at = child;
    }
    sim->heap[at] = last;
    return request;
}

static struct sim_request *request_new(struct sim_engine *sim, struct ash_aio *aio)
{
    struct sim_request *request;

    if (ash_list_empty(&sim->free_requests)) {
        request = g_new(struct sim_request, 1);
    } else {
        request = ash_list_first(&sim->free_requests, struct sim_request, link);
        ash_list_remove(&request->link);
    }
    *request = (struct sim_request){.aio = aio, .seq = sim->world->seq};
    ash_list_init(&request->link);
    return request;
}

static void hold(struct ash_sim_world *world, struct sim_request *request)
{
    ash_list_push_back(&world->held, &request->link);
    world->held_count++;
}

static void complete_later(struct sim_engine *sim, struct sim_request *request, int64_t result)
{
    request->stage = SIM_STAGE_COMPLETE;
    request->result = result;
    heap_push(sim, sim->world->now_ns, request);
}

/* Draws when the request is carried out and when it completes. */
static void schedule(struct sim_engine *sim, struct sim_request *request)
{
    struct ash_sim_world *world = sim->world;
    const struct ash_sim_config *config = &world->config;
    uint64_t latency =
        ash_prng_between(&world->prng, config->latency_ns_min, config->latency_ns_max);

    request->complete_ns = world->now_ns + latency;
    if (request->stage == SIM_STAGE_START && ash_sim_has_two_stages(request->aio)) {
        latency = ash_prng_between(&world->prng, 0, latency);
    }
    heap_push(sim, world->now_ns + latency, request);
}

static bool has_range(const struct ash_aio *aio)
{
    return aio->op == ASH_AIO_READ || aio->op == ASH_AIO_WRITE || aio->op == ASH_AIO_ALLOCATE ||
           aio->op == ASH_AIO_COPY;
}

static bool is_of(const struct ash_aio *aio, const char *path)
{
    const char *of = aio->path;

    if (aio->file && aio->op != ASH_AIO_OPEN) {
        of = ash_sim_file_of(aio->file)->inode->path;
    }
    return of && strcmp(of, path) == 0;
}

static bool hold_matches(const struct sim_hold *hold, const struct ash_aio *aio)
{
    if (aio->op != hold->op || !is_of(aio, hold->path)) {
        return false;
    }
    return !has_range(aio) || (aio->offset < hold->offset + hold->bytes &&
                               hold->offset < aio->offset + ASH_MAX(aio->bytes, UINT64_C(1)));
}

static bool is_held(const struct ash_sim_world *world, const struct ash_aio *aio)
{
    if (aio->op == ASH_AIO_WORK) {
        return false;
    }
    ash_list_for_each (hold, &world->holds, struct sim_hold, link) {
        if (hold_matches(hold, aio)) {
            return true;
        }
    }
    return false;
}

/* Whether a fault was aimed at it. */
static bool is_hit(struct ash_sim_world *world, const struct ash_aio *aio)
{
    bool counts = ash_sim_is_mutation(aio) || aio->op == ASH_AIO_READ || aio->op == ASH_AIO_SEEK;

    if (!counts || world->aim_path == NULL || !is_of(aio, world->aim_path)) {
        return false;
    }
    if (world->aim_skip > 0) {
        world->aim_skip--;
        return false;
    }
    bool hit = world->aim_count > 0;
    world->aim_count -= hit && world->aim_count != UINT64_MAX;
    return hit;
}

static void sim_submit(struct ash_engine *engine, struct ash_aio *aio)
{
    struct sim_engine *sim = sim_of(engine);
    struct ash_sim_world *world = sim->world;

    ash_sim_trace(world, ASH_SIM_SUBMITTED, aio, 0);
    if (aio->op == ASH_AIO_POLL) {
        ash_list_push_back(&sim->polls, &aio->link);
        return;
    }
    struct sim_request *request = request_new(sim, aio);
    bool disk = !ash_sim_needs_no_power(aio);
    if (disk && world->power_is_cut) {
        complete_later(sim, request, -EIO);
    } else if (is_hit(world, aio)) {
        request->stage = SIM_STAGE_COMPLETE;
        request->result = world->aim_error;
        schedule(sim, request);
    } else if (is_held(world, aio)) {
        hold(world, request);
    } else if (disk && ash_prng_chance(&world->prng, world->config.stall_per_mille)) {
        if (ash_sim_has_two_stages(aio) && ash_prng_chance(&world->prng, 500)) {
            request->stall = true;
            schedule(sim, request);
        } else {
            hold(world, request);
        }
    } else {
        schedule(sim, request);
    }
}

static void complete(struct sim_engine *sim, struct sim_request *request)
{
    struct ash_aio *aio = request->aio;
    int64_t result = ash_sim_finish(sim->world, request);

    ash_list_push_front(&sim->free_requests, &request->link);
    ash_sim_trace(sim->world, ASH_SIM_COMPLETED, aio, result);
    ash_aio_complete(&sim->engine, aio, result);
}

/* The first event. Returns how many requests it completed: 0 or 1. */
static int dispatch(struct sim_engine *sim)
{
    struct ash_sim_world *world = sim->world;
    struct sim_request *request = sim->heap[0].request;

    if (request->stage == SIM_STAGE_START) {
        if (ash_sim_is_mutation(request->aio)) {
            if (world->cut_after > 0 && --world->cut_after == 0) {
                ash_sim_power_cut(world, world->cut_mode);
                return 0;
            }
            world->mutations++;
        }
        heap_pop(sim);
        request->result = ash_sim_carry_out(world, request, true);
        request->stage = SIM_STAGE_COMPLETE;
        ash_sim_trace(world, ASH_SIM_CARRIED_OUT, request->aio, request->result);
        if (request->stall) {
            request->stall = false;
            hold(world, request);
            return 0;
        }
        if (ash_sim_has_two_stages(request->aio)) {
            heap_push(sim, request->complete_ns, request);
            return 0;
        }
    } else {
        heap_pop(sim);
    }
    complete(sim, request);
    return 1;
}

/* What is due, but not more than is there: what completions submit waits for the next turn. */
static int run_due(struct sim_engine *sim)
{
    int limit = (int)sim->heap_count;
    int completed = 0;

    while (completed < limit && sim->heap_count > 0 && sim->heap[0].time_ns <= sim->world->now_ns) {
        completed += dispatch(sim);
    }
    return completed;
}

static int sim_wait(struct ash_engine *engine, uint64_t deadline_ns)
{
    struct sim_engine *sim = sim_of(engine);
    struct ash_sim_world *world = sim->world;
    bool woken = __atomic_exchange_n(&sim->woken, false, __ATOMIC_ACQ_REL);

    for (;;) {
        int completed = run_due(sim);
        if (completed > 0 || woken || deadline_ns <= world->now_ns) {
            return completed;
        }
        if (sim->heap_count == 0 && deadline_ns == UINT64_MAX) {
            return -EDEADLK;
        }
        world->now_ns = deadline_ns;
        if (sim->heap_count > 0) {
            world->now_ns = ASH_MIN(deadline_ns, sim->heap[0].time_ns);
        }
    }
}

static void sim_wake(struct ash_engine *engine)
{
    __atomic_store_n(&sim_of(engine)->woken, true, __ATOMIC_RELEASE);
}

static void sim_random(struct ash_engine *engine, void *buffer, size_t bytes)
{
    struct ash_prng prng;
    ash_prng_seed(&prng, ++sim_of(engine)->world->randoms);
    ash_prng_fill(&prng, buffer, bytes);
}

static uint64_t sim_now(struct ash_engine *engine)
{
    return sim_of(engine)->world->now_ns;
}

static void sim_cancel_poll(struct ash_engine *engine, struct ash_aio *aio)
{
    struct sim_engine *sim = sim_of(engine);

    if (!ash_list_empty(&aio->link)) {
        ash_list_remove(&aio->link);
        complete_later(sim, request_new(sim, aio), -ECANCELED);
    }
}

static int sim_fd(struct ash_engine *engine)
{
    (void)engine;
    return -1;
}

static void sim_destroy(struct ash_engine *engine)
{
    struct sim_engine *sim = sim_of(engine);
    struct ash_sim_world *world = sim->world;

    ash_assert(engine->in_flight == 0);
    ash_assert(ash_list_empty(&sim->polls));
    ash_assert(sim->heap_count == 0);
    ash_list_for_each_safe (file, &world->open_files, struct sim_file, link) {
        world->leaked_files++;
        ash_sim_close(file);
    }
    ash_list_for_each_safe (request, &sim->free_requests, struct sim_request, link) {
        g_free(request);
    }
    world->engine = NULL;
    g_free(sim->heap);
    g_free(sim);
}

void ash_sim_fail_in_flight(struct sim_engine *sim)
{
    struct sim_event *events = sim->heap;
    uint32_t count = sim->heap_count;

    sim->heap = NULL;
    sim->heap_count = 0;
    sim->heap_max = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (ash_sim_needs_no_power(events[i].request->aio)) {
            heap_push(sim, events[i].time_ns, events[i].request);
        } else {
            complete_later(sim, events[i].request, -EIO);
        }
    }
    g_free(events);
    ash_list_for_each_safe (request, &sim->world->held, struct sim_request, link) {
        if (!ash_sim_needs_no_power(request->aio)) {
            ash_list_remove(&request->link);
            sim->world->held_count--;
            complete_later(sim, request, -EIO);
        }
    }
}

void ash_sim_hold(struct ash_sim_world *world, const char *path, int op, uint64_t offset,
                  uint64_t bytes)
{
    struct sim_hold *hold_new = g_new(struct sim_hold, 1);

    ash_assert(offset <= INT64_MAX);
    *hold_new = (struct sim_hold){.path = g_strdup(path), .op = op, .offset = offset};
    hold_new->bytes = ASH_MIN(bytes, (uint64_t)INT64_MAX);
    ash_list_push_back(&world->holds, &hold_new->link);
}

void ash_sim_release_all(struct ash_sim_world *world)
{
    ash_list_for_each_safe (hold_old, &world->holds, struct sim_hold, link) {
        ash_list_remove(&hold_old->link);
        g_free(hold_old->path);
        g_free(hold_old);
    }
    ash_list_for_each_safe (request, &world->held, struct sim_request, link) {
        ash_list_remove(&request->link);
        world->held_count--;
        schedule(world->engine, request);
    }
}

void ash_sim_aim(struct ash_sim_world *world, const char *path, uint64_t skip, uint64_t count,
                 int error)
{
    ash_assert(error < 0 || count == 0);
    g_free(world->aim_path);
    world->aim_path = count > 0 ? g_strdup(path) : NULL;
    world->aim_skip = skip;
    world->aim_count = count;
    world->aim_error = error;
}

uint32_t ash_sim_held(const struct ash_sim_world *world)
{
    return world->held_count;
}

static const struct ash_engine_ops sim_ops = {
    .name = "sim",
    .submit = sim_submit,
    .wait = sim_wait,
    .wake = sim_wake,
    .now = sim_now,
    .random = sim_random,
    .cancel_poll = sim_cancel_poll,
    .fd = sim_fd,
    .destroy = sim_destroy,
};

int ash_engine_sim_new(struct ash_sim_world *world, const struct ash_engine_config *config,
                       struct ash_engine **engine, struct ash_error *error)
{
    if (world->engine) {
        return ash_error_set(error, -EBUSY, "The simulated world has an engine already");
    }
    struct sim_engine *sim = g_new0(struct sim_engine, 1);
    sim->engine.ops = &sim_ops;
    sim->engine.config = *config;
    sim->world = world;
    ash_list_init(&sim->polls);
    ash_list_init(&sim->free_requests);
    world->engine = sim;
    *engine = &sim->engine;
    return 0;
}
