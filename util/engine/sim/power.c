/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The power cut: what it leaves of each file.
 *
 * For a random cut each change of each sector reached the medium or did not, and the sector is what
 * the last one that did left. How that is drawn is chosen anew for each file, because independent
 * sectors alone would hardly ever leave a large write whole, and whole requests alone would never
 * tear one:
 *
 *   by sector    each sector of each change on its own: everything is torn
 *   by page      each page of each change
 *   by request   each change as a whole
 *   in order     all changes up to some instant
 *   mixed        by request, but some requests by sector
 *
 * The decision is a function of the draw and of what is asked about, so the order in which sectors
 * are settled does not matter.
 *
 * The length goes its own way, as metadata does; only the zeroes that a shrinking truncate leaves
 * come and go with it, because no journal brings the old length with the new hole, or the reverse.
 *
 * Invariants:
 *  1. After a cut nothing is unsynced: what is there is durable.
 *  2. What a completed flush covered is there, whatever was drawn. */

#include "util/assert.h"
#include "util/engine/sim/internal.h"
#include "util/range.h"

enum style {
    STYLE_ALL,
    STYLE_NONE,
    STYLE_SECTOR,
    STYLE_PAGE,
    STYLE_REQUEST,
    STYLE_ORDER,
    STYLE_MIXED,
};

struct draw {
    enum style style;
    uint64_t salt;
    uint32_t odds;     /* of 256 that a change reached the medium */
    uint64_t seq_last; /* in order: the last one that did */
    const GArray *lengths;
    uint64_t lengths_end; /* the first change of the length that did not reach the medium */
};

static uint64_t scramble(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static bool coin(const struct draw *draw, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t hash = scramble(draw->salt ^ scramble(a ^ scramble(b ^ scramble(c))));

    return (hash & 0xff) < draw->odds;
}

/* Whether a change was a truncate that shrank the file. */
static bool is_shrink(const GArray *lengths, uint64_t seq)
{
    guint low = 0;
    guint high = lengths->len;

    while (low < high) {
        guint middle = low + (high - low) / 2;
        const struct sim_length *change = &g_array_index(lengths, struct sim_length, middle);
        if (change->seq == seq) {
            return change->shrinks;
        }
        if (change->seq < seq) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

static bool keep(const void *opaque, uint64_t seq, uint64_t page_index, unsigned sector)
{
    const struct draw *draw = opaque;

    if (draw->lengths->len > 0 && is_shrink(draw->lengths, seq)) {
        return seq < draw->lengths_end;
    }
    switch (draw->style) {
    case STYLE_ALL:
        return true;
    case STYLE_SECTOR:
        return coin(draw, seq, page_index, sector + 1);
    case STYLE_PAGE:
        return coin(draw, seq, page_index, 0);
    case STYLE_REQUEST:
        return coin(draw, seq, UINT64_MAX, 0);
    case STYLE_ORDER:
        return seq <= draw->seq_last;
    case STYLE_MIXED:
        if (scramble(draw->salt + seq) % 4 == 0) {
            return coin(draw, seq, page_index, sector + 1);
        }
        return coin(draw, seq, UINT64_MAX, 0);
    default:
        return false;
    }
}

/* The oldest change that is not durable, or the newest change of all. */
static uint64_t oldest_unsynced(const struct sim_inode *inode)
{
    uint64_t seq = inode->world->seq;

    ash_list_for_each (page, &inode->unsynced, struct sim_page, unsynced) {
        if (page->oldest && page->oldest->seq < seq) {
            seq = page->oldest->seq;
        }
    }
    return seq;
}

static void draw_style(struct draw *draw, const struct sim_inode *inode, struct ash_prng *prng)
{
    static const uint32_t odds[] = {32, 128, 128, 224};
    static const enum style styles[] = {
        STYLE_ALL,   STYLE_NONE,    STYLE_SECTOR,  STYLE_SECTOR,  STYLE_SECTOR,
        STYLE_PAGE,  STYLE_REQUEST, STYLE_REQUEST, STYLE_REQUEST, STYLE_ORDER,
        STYLE_ORDER, STYLE_MIXED,   STYLE_MIXED,
    };

    draw->style = styles[ash_prng_below(prng, ASH_ARRAY_SIZE(styles))];
    draw->salt = ash_prng_next(prng);
    draw->odds = odds[ash_prng_below(prng, ASH_ARRAY_SIZE(odds))];
    if (draw->style == STYLE_ORDER) {
        uint64_t oldest = oldest_unsynced(inode);
        draw->seq_last = ash_prng_between(prng, oldest > 0 ? oldest - 1 : 0, inode->world->seq);
    }
}

/* The length that the cut leaves: one that the file had since it was durable, or, where it grew by
 * a write, one on the way. */
static uint64_t draw_length(struct draw *draw, const struct sim_inode *inode, enum ash_sim_cut mode,
                            struct ash_prng *prng)
{
    guint count = inode->lengths->len;
    uint64_t chosen = 0;

    draw->lengths = inode->lengths;
    draw->lengths_end = UINT64_MAX;
    if (count == 0 || mode == ASH_SIM_CUT_KEEP ||
        (mode == ASH_SIM_CUT_RANDOM && ash_prng_chance(prng, 400))) {
        return inode->length;
    }
    if (mode == ASH_SIM_CUT_RANDOM) {
        chosen = ash_prng_below(prng, count);
    }
    const struct sim_length *change = &g_array_index(inode->lengths, struct sim_length, chosen);
    uint64_t next = chosen + 1 < count ? change[1].before : inode->length;
    draw->lengths_end = change->seq;
    if (mode == ASH_SIM_CUT_RANDOM && change->gradual && ash_prng_chance(prng, 500)) {
        uint64_t on_the_way = ash_prng_between(prng, change->before, next);
        on_the_way = ash_align_down(on_the_way, ash_sim_sector_bytes(inode->world));
        return ASH_MAX(change->before, on_the_way);
    }
    return change->before;
}

static void settle_all(struct ash_sim_world *world, enum ash_sim_cut mode)
{
    ash_list_for_each (inode, &world->inodes, struct sim_inode, link) {
        struct draw draw = {.style = mode == ASH_SIM_CUT_KEEP ? STYLE_ALL : STYLE_NONE};
        if (ash_list_empty(&inode->unsynced) && inode->lengths->len == 0) {
            continue;
        }
        if (mode == ASH_SIM_CUT_RANDOM) {
            draw_style(&draw, inode, &world->prng);
        }
        uint64_t length = draw_length(&draw, inode, mode, &world->prng);
        ash_sim_inode_settle(inode, keep, &draw);
        ash_sim_content_trim(inode, length);
    }
}

/* A request on its way may have been carried out for all anybody knows. */
static void carry_out_unfinished(struct ash_sim_world *world, struct sim_request *request)
{
    if (request->stage == SIM_STAGE_START && ash_sim_is_mutation(request->aio) &&
        request->aio->op != ASH_AIO_FLUSH) {
        int64_t result = ash_sim_carry_out(world, request, false);
        ash_sim_trace(world, ASH_SIM_CARRIED_OUT, request->aio, result);
    }
}

void ash_sim_power_cut(struct ash_sim_world *world, enum ash_sim_cut mode)
{
    struct sim_engine *sim = world->engine;

    if (world->power_is_cut) {
        return;
    }
    if (sim && mode == ASH_SIM_CUT_RANDOM) {
        for (uint32_t i = 0; i < sim->heap_count; i++) {
            carry_out_unfinished(world, sim->heap[i].request);
        }
        ash_list_for_each (request, &world->held, struct sim_request, link) {
            carry_out_unfinished(world, request);
        }
    }
    world->power_is_cut = true;
    world->cut_after = 0;
    ash_sim_trace(world, ASH_SIM_POWER_CUT, NULL, mode);
    settle_all(world, mode);
    if (sim) {
        ash_sim_fail_in_flight(sim);
    }
}

void ash_sim_power_cut_at(struct ash_sim_world *world, uint64_t nth, enum ash_sim_cut mode)
{
    world->cut_after = nth;
    world->cut_mode = mode;
}

bool ash_sim_power_is_cut(const struct ash_sim_world *world)
{
    return world->power_is_cut;
}

void ash_sim_power_restore(struct ash_sim_world *world)
{
    ash_assert(!world->engine);
    world->power_is_cut = false;
    world->cut_after = 0;
}
