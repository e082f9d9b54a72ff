/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Jobs on a chain: stream and commit. The contents stay what they are, which the model expects of
 * every disk anyway. What the headers do not tell cannot be opened again once these have changed
 * them. */
#include <string.h>
#include "block/graph/graft.h"
#include "tests/sim/bitmap.h"
#include "tests/sim/format.h"
#include "tests/sim/job.h"
#include "tests/sim/resume.h"

/* The chain from the top, without filters. Returns its length. */
static uint64_t chain_of(struct ash_node *top, struct ash_node *chain[static SIM_LAYERS_MAX])
{
    uint64_t count = 0;
    for (struct ash_node *node = top; node != NULL && count < SIM_LAYERS_MAX;
         node = node->backing ? node->backing->child : NULL) {
        chain[count++] = node;
    }
    return count;
}

enum { MIB = 1 << 20 };

static const char *const policies[] = {"report", "report", "ignore", "stop", "enospc", NULL};

/* --- stream --- */

static bool stream_legal(const struct sim_op *op)
{
    return op->resumes || (sim_job_top(op)->backing != NULL && sim_disk_told_by_headers(op->disk));
}

static const char *below_of(const struct ash_node *node)
{
    return node->backing ? ash_graft_mapped(node->backing->child)->filename : "";
}

static void stream_choose(struct sim_op *op, struct ash_node *top, json_t *description)
{
    struct ash_node *chain[SIM_LAYERS_MAX] = {NULL};
    uint64_t count = chain_of(top, chain);
    uint64_t below = sim_below(op->prng, count); /* so many layers stay below it */
    if (below > 0) {
        const struct ash_node *base = chain[count - below];
        json_object_set_new(description, "base-node", json_string(base->name));
        g_strlcpy(op->base, below_of(chain[count - below - 1]), sizeof(op->base));
        if (ash_prng_chance(op->prng, 200)) {
            json_object_set_new(description, "backing-file", json_string(op->base));
        }
    }
    g_strlcpy(op->below, below_of(top), sizeof(op->below));
    sim_resume_choose(op, description);
    if (op->state[0] != '\0' && ash_prng_chance(op->prng, 700)) {
        json_object_set_new(description, "auto-finalize", json_false());
    }
}

/* The same base by its file name, or left to the state file. */
static void stream_choose_again(struct sim_op *op, const struct ash_node *top, json_t *description)
{
    json_object_del(description, "base-node");
    json_object_del(description, "base");
    if (op->base[0] != '\0' && ash_prng_chance(op->prng, 500)) {
        json_object_set_new(description, "base", json_string(op->base));
    } else if (!sim_resume_has_begun(op)) { /* then it is not known, and it starts over */
        op->base[0] = '\0';
    }
    if (op->certain && strcmp(below_of(top), op->below) != 0) {
        sim_fail(op->run, "resume",
                 "disk %u stands on '%s', and stood on '%s' when it was streamed", op->disk->number,
                 below_of(top), op->below);
    }
    g_strlcpy(op->below, below_of(top), sizeof(op->below));
}

static void stream_describe(struct sim_op *op, struct ash_node *top, json_t *description)
{
    if (op->resumes) {
        stream_choose_again(op, top, description);
    } else {
        stream_choose(op, top, description);
    }
    if (op->state[0] != '\0' && op->disk->model.bytes > MIB && ash_prng_chance(op->prng, 700)) {
        json_object_set_new(description, "speed", json_integer(MIB / 2 << sim_below(op->prng, 3)));
    }
    sim_job_choose(op, description, "on-error", policies);
    op->disk->streamed = true; /* from now on the headers alone know the chain */
}

const struct sim_job sim_job_stream = {
    .type = "stream",
    .weight = 6,
    .legal = stream_legal,
    .describe = stream_describe,
};

/* --- commit --- */

static bool commit_legal(const struct sim_op *op)
{
    struct ash_node *chain[SIM_LAYERS_MAX] = {NULL};
    return chain_of(sim_job_top(op), chain) >= 3 && sim_disk_told_by_headers(op->disk);
}

static void commit_describe(struct sim_op *op, struct ash_node *top, json_t *description)
{
    struct ash_node *chain[SIM_LAYERS_MAX] = {NULL};
    uint64_t count = chain_of(top, chain);
    uint64_t first = 1 + sim_below(op->prng, count - 2);
    uint64_t base = first + 1 + sim_below(op->prng, count - first - 1);
    json_object_set_new(description, "top-node", json_string(chain[first]->name));
    if (base + 1 < count || ash_prng_chance(op->prng, 500)) {
        json_object_set_new(description, "base-node", json_string(chain[base]->name));
    }
    sim_job_choose(op, description, "on-error", policies);
    op->disk->streamed = true;
    for (uint32_t i = 0; i < op->disk->layer_count; i++) {
        op->disk->layers[i].leaky = true; /* they are opened for writing, and a cut may come */
    }
}

const struct sim_job sim_job_commit = {
    .type = "commit",
    .weight = 4,
    .legal = commit_legal,
    .describe = commit_describe,
};

/* --- commit of the active image --- */

static bool active_legal(const struct sim_op *op)
{
    return sim_job_top(op)->backing != NULL && sim_disk_told_by_headers(op->disk);
}

static void active_describe(struct sim_op *op, struct ash_node *top, json_t *description)
{
    struct ash_node *chain[SIM_LAYERS_MAX] = {NULL};
    struct sim_disk *disk = op->disk;
    uint64_t base = 1 + sim_below(op->prng, chain_of(top, chain) - 1);
    json_object_set_new(description, "base-node", json_string(chain[base]->name));
    sim_job_choose(op, description, "on-error", policies);
    disk->streamed = true;
    for (uint32_t i = 0; i < disk->layer_count; i++) {
        disk->layers[i].leaky = true;
        if (strcmp(disk->layers[i].file, chain[base]->file->child->filename) == 0) {
            op->target = disk->layers[i];
        }
    }
}

/* Completed, base is the disk. */
static void active_end(struct sim_op *op, int ret)
{
    struct sim_disk *disk = op->disk;
    uint32_t base = 0;
    if (ret < 0 || !op->completed) {
        return;
    }
    while (strcmp(disk->layers[base].file, op->target.file) != 0) {
        base++;
    }
    sim_note(op->run, "disk %u is in %s now", disk->number, op->target.file);
    disk->layer_count -= base;
    memmove(disk->layers, disk->layers + base, disk->layer_count * sizeof(disk->layers[0]));
    disk->moved++;
    sim_bitmaps_drop(disk);
    sim_moment_end(op, true);
}

const struct sim_job sim_job_commit_active = {
    .type = "commit",
    .weight = 4,
    .legal = active_legal,
    .moves = true,
    .describe = active_describe,
    .moment = sim_moment_begin,
    .end = active_end,
};
