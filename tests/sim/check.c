/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/sim/check.h"
#include <inttypes.h>
#include <stdio.h>
#include "block/graph/block.h"
#include "tests/sim/format.h"

/* --- the machine --- */

static void no_coroutines(struct sim_run *run)
{
    if (run->loop->sched.count > 0) {
        sim_fail(run, "coroutines", "%u are left", run->loop->sched.count);
    }
}

static void no_requests(struct sim_run *run)
{
    if (run->loop->engine->in_flight > 0) {
        sim_fail(run, "requests", "%u are in flight", run->loop->engine->in_flight);
    }
}

static void no_nodes(struct sim_run *run)
{
    if (run->loop->block && !ash_list_empty(&ash_block_of(run->loop)->nodes)) {
        sim_fail(run, "nodes", "a node was not closed");
    }
}

static void no_memory_of_tables(struct sim_run *run)
{
    if (run->loop->block && ash_block_of(run->loop)->budget.bytes > 0) {
        sim_fail(run, "budget", "%" PRIu64 " bytes of metadata are counted and no node is open",
                 ash_block_of(run->loop)->budget.bytes);
    }
}

static void no_buffers(struct sim_run *run)
{
    if (run->buffers > 0) {
        sim_fail(run, "buffers", "%" PRIu64 " were not given back", run->buffers);
    }
}

static void no_files(struct sim_run *run)
{
    if (ash_sim_leaked_files(run->world) > 0 || ash_sim_open_files(run->world) > 0) {
        sim_fail(run, "files", "%u were left open", ash_sim_leaked_files(run->world));
    }
}

static void files_themselves(struct sim_run *run)
{
    for (uint32_t i = 0; i < run->disk_count; i++) {
        const struct sim_disk *disk = &run->disks[i];
        for (uint32_t index = 0; index < disk->layer_count; index++) {
            const struct sim_layer *layer = &disk->layers[index];
            if (layer->format->audit && ash_sim_file_bytes(run->world, layer->file) >= 0) {
                layer->format->audit(run, layer, !layer->leaky);
            }
        }
    }
}

/* --- each disk --- */

static void first_finding(struct ash_check *check, const char *sentence)
{
    char *first = check->opaque;
    if (first[0] == '\0') {
        g_strlcpy(first, sentence, 200);
    }
}

ASH_CO_FN static void check_image(struct sim_disk *disk, uint32_t fix, bool leaks_allowed)
{
    struct sim_layer *layer = &disk->layers[0];
    struct ash_node *node = ash_disk_node(disk->disk);
    struct ash_error error = ASH_ERROR_INIT;
    char first[200] = "";
    struct ash_check check = {.fix = fix, .report = first_finding, .opaque = first};
    if (!(layer->format->flags & SIM_FORMAT_CHECK)) {
        return;
    }
    if (layer->format->dirty && layer->format->dirty(disk->run, layer) && leaks_allowed && !fix) {
        return;
    }
    if (node->driver->check(node, &check, &error) < 0) {
        sim_fail(disk->run, "check", "disk %u: %s", disk->number, error.message);
    }
    if (check.corruptions > 0 || check.check_errors > 0 || (check.leaks > 0 && !leaks_allowed)) {
        sim_fail(disk->run, "check",
                 "disk %u: %" PRIu64 " corruptions, %" PRIu64 " errors, %" PRIu64
                 " leaks; the first: %s",
                 disk->number, check.corruptions, check.check_errors, check.leaks, first);
    }
}

ASH_CO_FN static void image_after_life(struct sim_disk *disk)
{
    check_image(disk, 0, disk->layers[0].leaky);
}

ASH_CO_FN static void image_repairs(struct sim_disk *disk)
{
    check_image(disk, ASH_CHECK_FIX_LEAKS, false);
    disk->layers[0].leaky = false;
}

ASH_CO_FN static void image_is_clean(struct sim_disk *disk)
{
    check_image(disk, 0, false);
}

/* Direct I/O writes the last block of a file of an odd length whole and cuts it after that: a cut
 * in between leaves the block. Told of under "Open findings" in docs/testing.md. */
static bool is_whole_block(const struct sim_disk *disk, uint64_t bytes)
{
    return disk->layers[0].odd && bytes - disk->model.bytes < 4096 && bytes % 512 == 0 &&
           bytes <= disk->model.bytes_max;
}

/* A file that was growing by writes, and whose growth nobody was told of, keeps some of them. */
static bool is_part_of_growth(const struct sim_disk *disk, uint64_t bytes)
{
    return disk->layers[0].format == &sim_format_raw && bytes < disk->part_grown;
}

static void allow_longer(struct sim_disk *disk, uint64_t bytes)
{
    struct model *model = &disk->model;
    if (bytes > model->bytes && (is_whole_block(disk, bytes) || is_part_of_growth(disk, bytes))) {
        uint64_t begin = ++model->tick;
        history_begin(&model->length, bytes, begin, HISTORY_NEVER);
        history_end(&model->length, begin, ++model->tick, HISTORY_FAILED, false);
    }
    disk->part_grown = 0;
}

ASH_CO_FN static void contents(struct sim_disk *disk)
{
    struct sim_run *run = disk->run;
    uint64_t bytes = ash_disk_bytes(disk->disk);
    const char *wrong = NULL;
    if (disk->unsettled) {
        allow_longer(disk, bytes);
        wrong = model_settle_length(&disk->model, bytes);
    } else if (bytes != disk->model.bytes) {
        sim_fail(run, "length", "disk %u is %" PRIu64 " bytes long, and was %" PRIu64, disk->number,
                 bytes, disk->model.bytes);
    }
    if (wrong) {
        sim_fail(run, "length", "disk %u after the cut: %s", disk->number, wrong);
    }
    uint8_t *buffer = g_malloc(bytes);
    struct model_op op;
    model_read_begin(&disk->model, &op, 0, bytes);
    int ret = ash_disk_read(disk->disk, 0, buffer, bytes);
    if (ret < 0) {
        sim_fail(run, "content", "disk %u: reading all of it failed with %d", disk->number, ret);
    }
    if (!disk->unsettled) {
        wrong = model_read_end(&disk->model, &op, buffer);
    } else {
        (void)model_read_end(&disk->model, &op, NULL);
        wrong = model_settle(&disk->model, 0, buffer, bytes);
    }
    if (wrong) {
        sim_fail(run, "content", "disk %u %s: %s", disk->number,
                 disk->unsettled ? "after the cut" : "read again", wrong);
    }
    g_free(buffer);
    disk->unsettled = false;
}

/* --- the table --- */

const struct sim_check sim_checks[] = {
    {.name = "coroutines", .moment = SIM_CHECK_IDLE, .machine = no_coroutines},
    {.name = "requests", .moment = SIM_CHECK_IDLE, .machine = no_requests},
    {.name = "nodes", .moment = SIM_CHECK_IDLE, .machine = no_nodes},
    {.name = "budget", .moment = SIM_CHECK_IDLE, .machine = no_memory_of_tables},
    {.name = "buffers", .moment = SIM_CHECK_HALTED, .machine = no_buffers},
    {.name = "files", .moment = SIM_CHECK_HALTED, .machine = no_files},
    {.name = "audit", .moment = SIM_CHECK_HALTED, .machine = files_themselves},
    {.name = "check", .moment = SIM_CHECK_LIFE, .disk = image_after_life},
    {.name = "content", .moment = SIM_CHECK_LIFE, .disk = contents},
    {.name = "repair", .moment = SIM_CHECK_END, .disk = image_repairs},
    {.name = "content", .moment = SIM_CHECK_END, .disk = contents},
    {.name = "clean", .moment = SIM_CHECK_CLEAN, .disk = image_is_clean},
    {.name = NULL},
};

void sim_check_all(struct sim_run *run, enum sim_moment moment)
{
    for (const struct sim_check *check = sim_checks; check->name; check++) {
        if (check->machine && check->moment == moment) {
            check->machine(run);
        }
    }
}

struct look {
    struct sim_run *run;
    enum sim_moment moment;
};

static int look(void *opaque)
{
    ash_co_assert_inside();
    struct look *look = opaque;
    struct sim_run *run = look->run;
    uint32_t flags = look->moment == SIM_CHECK_END ? ASH_NODE_WRITE | ASH_NODE_DISCARD : 0;
    for (uint32_t i = 0; i < run->disk_count; i++) {
        struct sim_disk *disk = &run->disks[i];
        struct ash_error error = ASH_ERROR_INIT;
        if (sim_disk_open(disk, flags, &error) < 0) {
            sim_fail(run, "open", "disk %u: %s", i, error.message);
        }
        for (const struct sim_check *check = sim_checks; check->name; check++) {
            if (check->disk && check->moment == look->moment) {
                check->disk(disk);
            }
        }
        if (sim_disk_close(disk, &error) < 0) {
            sim_fail(run, "close", "disk %u: %s", i, error.message);
        }
    }
    return 0;
}

void sim_check_disks(struct sim_run *run, enum sim_moment moment)
{
    struct look what = {run, moment};
    sim_note(run, "--- looking (%d) ---", moment);
    sim_boot(run);
    sim_call(run, look, &what);
    sim_halt(run);
}
