/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The simulated engine: random concurrent runs against a model, and that a seed decides it all. */
#include "tests/unit/unit.h"
#include "tests/unit/sim_rig.h"

#include <linux/falloc.h>
#include <stdio.h>
#include <unistd.h>

#define PUNCH (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)

/* Random concurrent requests, against a model that knows for each sector which changes it may show.
 *
 * Each change of a sector is one entry: what it leaves, when it was submitted and when it was seen
 * to complete, on a clock that ticks with each of these. Entry w may be what is on the disk unless
 * some w2 was submitted after w had completed, and w2 is certainly there: for what is visible,
 * because it completed; for what is durable, because it completed before a flush was submitted that
 * has completed since, or was a completed DSYNC. */
#define MODEL_SECTORS 48
#define MODEL_ENTRIES 200
#define MODEL_DEPTH 8
#define NEVER UINT32_MAX

struct entry {
    unsigned first;
    unsigned end;
    uint8_t value;
    bool dsync;
    uint32_t submitted;
    uint32_t completed;
};

struct model {
    struct entry changes[MODEL_ENTRIES];
    struct entry flushes[MODEL_ENTRIES];
    unsigned change_count;
    unsigned flush_count;
    unsigned unit; /* of tearing, in sectors of this test */
    uint32_t clock;
};

static bool certainly_durable(const struct model *model, const struct entry *change)
{
    if (change->dsync && change->completed != NEVER) {
        return true;
    }
    for (unsigned i = 0; i < model->flush_count; i++) {
        if (model->flushes[i].completed != NEVER &&
            change->completed < model->flushes[i].submitted) {
            return true;
        }
    }
    return false;
}

/* Whether a change may have been made durable: by a flush that began later, or by a DSYNC write to
 * the same sector that completed later. */
static bool possibly_durable(const struct model *model, const struct entry *change, unsigned sector)
{
    if (change->completed == 0) {
        return true;
    }
    for (unsigned i = 0; i < model->flush_count; i++) {
        if (model->flushes[i].completed != NEVER &&
            change->submitted < model->flushes[i].submitted) {
            return true;
        }
    }
    for (unsigned i = 0; i < model->change_count; i++) {
        const struct entry *dsync = &model->changes[i];
        if (dsync->dsync && dsync->completed != NEVER && change->submitted < dsync->completed &&
            sector / model->unit >= dsync->first / model->unit &&
            sector / model->unit <= (dsync->end - 1) / model->unit) {
            return true;
        }
    }
    return false;
}

static bool allowed(const struct model *model, const struct entry *change, unsigned sector,
                    enum ash_sim_cut mode)
{
    if (sector < change->first || sector >= change->end ||
        (mode == ASH_SIM_CUT_DROP && !possibly_durable(model, change, sector))) {
        return false;
    }
    for (unsigned i = 0; i < model->change_count; i++) {
        const struct entry *later = &model->changes[i];
        if (sector >= later->first && sector < later->end && change->completed < later->submitted &&
            (mode == ASH_SIM_CUT_KEEP ? later->completed != NEVER
                                      : certainly_durable(model, later))) {
            return false;
        }
    }
    return true;
}

static void model_check(struct rig *rig, const struct model *model, enum ash_sim_cut mode,
                        uint64_t seed)
{
    for (unsigned sector = 0; sector < MODEL_SECTORS; sector++) {
        uint8_t found = sector_value(rig, "a", sector);
        bool fine = false;
        for (unsigned i = 0; i < model->change_count && !fine; i++) {
            fine = model->changes[i].value == found &&
                   allowed(model, &model->changes[i], sector, mode);
        }
        if (!fine) {
            fail_msg("seed %llu, mode %d: sector %u cannot hold %u", (unsigned long long)seed,
                     (int)mode, sector, found);
        }
    }
}

struct slot {
    struct call call;
    struct entry *entry;
    uint8_t *buffer;
};

static void slot_submit(struct rig *rig, struct model *model, struct slot *slot,
                        struct ash_file *file, struct ash_prng *prng)
{
    unsigned kind = (unsigned)ash_prng_below(prng, 10);
    struct entry entry = {.submitted = ++model->clock, .completed = NEVER};

    if (kind == 0) {
        slot->entry = &model->flushes[model->flush_count++];
        slot->call = (struct call){.aio = {.op = ASH_AIO_FLUSH, .file = file}};
    } else {
        entry.first = (unsigned)ash_prng_below(prng, MODEL_SECTORS);
        entry.end = entry.first + 1 + (unsigned)ash_prng_below(prng, MODEL_SECTORS - entry.first);
        entry.value = kind < 8 ? (uint8_t)model->change_count : 0;
        entry.dsync = kind == 1;
        slot->entry = &model->changes[model->change_count++];
        size_t bytes = (entry.end - entry.first) * SECTOR;
        memset(slot->buffer, entry.value, bytes);
        slot->call = call_transfer(file, ASH_AIO_WRITE, entry.first * SECTOR, slot->buffer, bytes);
        slot->call.aio.flags = entry.dsync ? ASH_AIO_DSYNC : 0;
        if (kind >= 8) {
            slot->call.aio.op = ASH_AIO_ALLOCATE;
            slot->call.aio.mode = kind == 8 ? PUNCH : FALLOC_FL_ZERO_RANGE;
        }
    }
    *slot->entry = entry;
    call_submit(rig, &slot->call);
}

static void slots_collect(struct model *model, struct slot *slots)
{
    uint32_t now = ++model->clock;

    for (unsigned i = 0; i < MODEL_DEPTH; i++) {
        if (slots[i].entry && slots[i].call.done) {
            if (slots[i].call.aio.result >= 0) {
                slots[i].entry->completed = now;
            }
            slots[i].entry = NULL;
        }
    }
}

/* Returns a hash of all that happened. */
static uint64_t model_run(uint64_t seed, enum ash_sim_cut mode)
{
    struct rig rig = rig_new(&(struct ash_sim_config){
        .seed = seed, .latency_ns_max = 1000, .sector_bytes = seed % 3 ? 512 : 4096});
    struct model model = {.changes = {{.end = MODEL_SECTORS, .value = 255}},
                          .change_count = 1,
                          .unit = seed % 3 ? 1 : 8};
    struct slot slots[MODEL_DEPTH];
    struct ash_prng prng;

    memset(slots, 0, sizeof(slots));
    ash_prng_seed(&prng, ~seed);
    write_durably(&rig, "a", 255, MODEL_SECTORS * SECTOR);
    struct ash_file *file = do_open(&rig, "a");
    for (unsigned i = 0; i < MODEL_DEPTH; i++) {
        slots[i].buffer = malloc(MODEL_SECTORS * SECTOR);
    }
    unsigned steps = 5 + (unsigned)ash_prng_below(&prng, 100);
    for (unsigned step = 0; step < steps; step++) {
        struct slot *slot = &slots[ash_prng_below(&prng, MODEL_DEPTH)];
        if (!slot->entry) {
            slot_submit(&rig, &model, slot, file, &prng);
        } else {
            assert_true(rig.engine->ops->wait(rig.engine, UINT64_MAX) > 0);
            slots_collect(&model, slots);
        }
        if (step % 16 == 0) {
            model_check(&rig, &model, ASH_SIM_CUT_KEEP, seed);
        }
    }
    ash_sim_power_cut(rig.world, mode);
    model_check(&rig, &model, mode, seed);
    for (unsigned i = 0; i < MODEL_DEPTH; i++) {
        if (slots[i].entry) {
            call_wait(&rig, &slots[i].call);
        }
        free(slots[i].buffer);
    }
    do_close(&rig, file);
    uint64_t hash = ash_sim_trace_hash(rig.world);
    rig_free(&rig);
    return hash;
}

static void concurrent_runs_leave_only_what_the_model_allows(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 3000; seed++) {
        model_run(seed, (enum ash_sim_cut)(seed % 3));
    }
}

static uint64_t hash_of_write(const char *data)
{
    struct rig rig = rig_new(&(struct ash_sim_config){.seed = 1});
    struct ash_file *file = do_open(&rig, "a");

    assert_int_equal(do_write(&rig, file, 0, data, strlen(data)), strlen(data));
    do_close(&rig, file);
    uint64_t hash = ash_sim_trace_hash(rig.world);
    rig_free(&rig);
    return hash;
}

static void the_hash_tells_written_data(void **state)
{
    (void)state;
    assert_true(hash_of_write("some data") == hash_of_write("some data"));
    assert_true(hash_of_write("some data") != hash_of_write("some date"));
    assert_true(hash_of_write("some data") != hash_of_write("tome data"));
}

static void the_same_seed_gives_the_same_hash(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        uint64_t first = model_run(seed, ASH_SIM_CUT_RANDOM);
        void *elsewhere = malloc(1000 + seed * 977);
        assert_true(first == model_run(seed, ASH_SIM_CUT_RANDOM));
        assert_true(first != model_run(seed + 1, ASH_SIM_CUT_RANDOM));
        free(elsewhere);
    }
}

static uint64_t hash_of_seeds(void)
{
    uint64_t hash = 0;

    for (uint64_t seed = 0; seed < 50; seed++) {
        hash = hash * 31 + model_run(seed, ASH_SIM_CUT_RANDOM);
    }
    return hash;
}

static void other_processes_get_the_same_hash(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        char self[4096];
        char command[4200];
        unsigned long long hash = 0;
        ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
        assert_true(length > 0);
        self[length] = 0;
        snprintf(command, sizeof(command), "'%s' hash", self);
        FILE *pipe = popen(command, "r");
        assert_non_null(pipe);
        assert_int_equal(fscanf(pipe, "%llx", &hash), 1);
        assert_int_equal(pclose(pipe), 0);
        assert_true(hash == hash_of_seeds());
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(concurrent_runs_leave_only_what_the_model_allows),
        cmocka_unit_test(the_hash_tells_written_data),
        cmocka_unit_test(the_same_seed_gives_the_same_hash),
        cmocka_unit_test(other_processes_get_the_same_hash),
    };

    if (argc == 2 && !strcmp(argv[1], "hash")) {
        printf("%llx\n", (unsigned long long)hash_of_seeds());
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
