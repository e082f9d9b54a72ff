/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A life: the machine is switched on, its disks are opened, used and closed, or it loses power. */
#include <errno.h>
#include "tests/sim/check.h"
#include "tests/sim/fault.h"
#include "tests/sim/resume.h"

enum { GUESTS_MAX = 6 };

struct crew {
    struct sim_guest guests[SIM_DISKS_MAX * GUESTS_MAX];
    uint32_t count;
};

static void choose_flags(struct sim_disk *disk, uint32_t *flags)
{
    struct sim_run *run = disk->run;
    struct ash_prng prng = sim_draw(run, "flags", run->life, disk->number, 0);
    *flags = ASH_NODE_WRITE;
    *flags |= ash_prng_chance(&prng, 850) ? ASH_NODE_DISCARD : 0;
    *flags |= ash_prng_chance(&prng, 100) ? ASH_NODE_DETECT_ZEROES : 0;
    *flags |= ash_prng_chance(&prng, 60) ? ASH_NODE_DETECT_ZEROES | ASH_NODE_DETECT_UNMAP : 0;
    if (sim_disk_may_be_direct(disk)) {
        *flags |= ash_prng_chance(&prng, 250) ? ASH_NODE_DIRECT : 0;
    }
    disk->write_through = ash_prng_chance(&prng, 100);
}

ASH_CO_FN static void open_disks(struct sim_run *run)
{
    for (uint32_t i = 0; i < run->disk_count; i++) {
        struct ash_error error = ASH_ERROR_INIT;
        struct sim_disk *disk = &run->disks[i];
        uint32_t flags;
        choose_flags(disk, &flags);
        ash_co_rwlock_init(&disk->use);
        disk->resizing = disk->reopening = disk->resuming = false;
        disk->struck = false;
        disk->job = NULL;
        disk->filtered = true;
        int ret = sim_disk_open(disk, flags, &error);
        if (ret < 0) {
            sim_note(run, "disk %u does not open: %s", i, error.message);
            sim_expect(run, ret, false, error.message);
        }
    }
}

ASH_CO_FN static void close_disks(struct sim_run *run)
{
    for (uint32_t i = 0; i < run->disk_count; i++) {
        struct ash_error error = ASH_ERROR_INIT;
        if (run->disks[i].disk) {
            int ret = sim_disk_close(&run->disks[i], &error);
            sim_expect(run, ret, false, error.message);
        }
    }
}

static void choose_crew(struct sim_run *run, struct crew *crew)
{
    for (uint32_t i = 0; i < run->disk_count; i++) {
        struct ash_prng prng = sim_draw(run, "crew", run->life, i, 0);
        uint32_t count = 1 + (uint32_t)sim_below(&prng, run->disk_count > 1 ? 3 : GUESTS_MAX);
        for (uint32_t n = 0; n < count; n++) {
            uint32_t steps = 1 + (uint32_t)sim_below(&prng, 10);
            if (run->disks[i].disk && sim_wants(run, "guest.%u.%u.%u", run->life, i, n)) {
                crew->guests[crew->count++] =
                    (struct sim_guest){.disk = &run->disks[i], .number = n, .steps = steps};
                run->disks[i].resuming |= n == 0 && run->disks[i].resumable.job;
            }
        }
        if (run->disks[i].disk && !run->disks[i].resuming) {
            sim_resume_missed(&run->disks[i]);
        }
    }
}

ASH_CO_FN static void work(struct sim_run *run)
{
    struct crew crew = {.count = 0};
    choose_crew(run, &crew);
    run->guests = crew.count;
    run->weather = true;
    run->waiter = ash_co_self();
    run->waiter_of_weather = NULL;
    if (ash_co_spawn(&run->loop->sched, sim_weather, run) < 0) {
        sim_fail(run, "machine", "no coroutine");
    }
    for (uint32_t i = 0; i < crew.count; i++) {
        if (ash_co_spawn(&run->loop->sched, sim_guest_run, &crew.guests[i]) < 0) {
            sim_fail(run, "machine", "no coroutine");
        }
    }
    if (crew.count > 0) {
        ash_co_yield();
    }
    if (run->weather) {
        run->waiter_of_weather = ash_co_self();
        ash_co_yield();
    }
}

/* Some guests take their time, so that what is done once a second is done while they work. */
static uint64_t choose_rest_ns(struct sim_run *run)
{
    struct ash_prng prng = sim_draw(run, "rest", run->life, 0, 0);
    bool rests = ash_prng_chance(&prng, 300) && sim_wants(run, "rest.%u", run->life);
    return rests ? UINT64_C(200000000) << sim_below(&prng, 3) : 0;
}

static int life(void *opaque)
{
    ash_co_assert_inside();
    struct sim_run *run = opaque;
    struct ash_prng prng = sim_draw(run, "life", run->life, 0, 0);
    bool from_the_start = ash_prng_chance(&prng, 250);
    if (from_the_start) {
        sim_faults_begin(run);
    }
    run->rest_ns = choose_rest_ns(run);
    open_disks(run);
    work(run);
    if (ash_prng_chance(&prng, 500)) {
        sim_faults_end(run);
    }
    close_disks(run);
    sim_faults_end(run);
    return 0;
}

void sim_live(struct sim_run *run)
{
    static const enum ash_sim_cut modes[] = {ASH_SIM_CUT_RANDOM, ASH_SIM_CUT_DROP,
                                             ASH_SIM_CUT_KEEP};
    struct ash_prng prng = sim_draw(run, "end", run->life, 0, 0);
    run->faulty = sim_faults_choose(run);
    run->flush_failed = false;
    sim_note(run, "--- life %u ---", run->life);
    sim_boot(run);
    sim_call(run, life, run);
    bool cut = ash_sim_power_is_cut(run->world);
    /* What a failed flush lost is still read, and what a failed closing did not flush; nobody could
     * know of it in a later life. */
    bool doubtful = run->flush_failed;
    for (uint32_t i = 0; i < run->disk_count; i++) {
        doubtful |= run->disks[i].unsettled;
    }
    if (!cut && doubtful) {
        ash_sim_power_cut(run->world, modes[sim_below(&prng, G_N_ELEMENTS(modes))]);
        cut = true;
    }
    ash_sim_power_cut_at(run->world, 0, ASH_SIM_CUT_DROP);
    for (uint32_t i = 0; i < run->disk_count; i++) {
        run->disks[i].filtered = false;
        run->disks[i].layers[0].leaky |= cut || run->faulty;
        run->disks[i].unsettled |= cut;
    }
    sim_halt(run);
    sim_check_disks(run, SIM_CHECK_LIFE);
}
