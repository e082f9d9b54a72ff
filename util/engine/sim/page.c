/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pages of simulated files: what reads see, what each sector held before, what is durable.
 *
 * A page's block is the latest state. A change first puts what it is about to overwrite into a
 * version, so the past of a sector is: its bytes in the oldest version that covers it (durable), in
 * the next one, ..., in the block (latest). A flush then only drops versions, and costs as much as
 * there is unsynced; nothing is ever copied back but by a power cut.
 *
 * A failed flush may lose sectors: what was durable moves to page->lost, the versions are dropped,
 * and so no later flush brings them back, though reads still see them. Writing such a sector again
 * and flushing that ends it.
 *
 * Invariants:
 *  1. A page is in inode->unsynced exactly while it has a version or something lost.
 *  2. A page has a block, a version or something lost; else it does not exist.
 *  3. leaf->data says which pages have a block; no page is both data and unwritten.
 *  4. Versions of a page are in the order of their seq. There are VERSIONS_MAX at most: beyond that
 *     the two oldest are joined, which forgets a state that a cut might have left, nothing else. */

#include <string.h>
#include "util/assert.h"
#include "util/engine/sim/internal.h"

#define VERSIONS_MAX 48

static void *block_get(struct ash_sim_world *world)
{
    void *block = world->free_blocks;

    if (!block) {
        return g_malloc(SIM_PAGE_BYTES);
    }
    memcpy(&world->free_blocks, block, sizeof(world->free_blocks));
    return block;
}

static void block_put(struct ash_sim_world *world, void *block)
{
    if (block) {
        memcpy(block, &world->free_blocks, sizeof(world->free_blocks));
        world->free_blocks = block;
    }
}

static struct sim_version *version_get(struct ash_sim_world *world, uint64_t seq, uint8_t mask)
{
    struct sim_version *version = world->free_versions;

    if (version) {
        world->free_versions = version->next;
    } else {
        version = g_new(struct sim_version, 1);
    }
    *version = (struct sim_version){.seq = seq, .mask = mask};
    return version;
}

static void version_put(struct ash_sim_world *world, struct sim_version *version)
{
    if (version) {
        block_put(world, version->block);
        version->next = world->free_versions;
        world->free_versions = version;
    }
}

void ash_sim_pools_free(struct ash_sim_world *world)
{
    while (world->free_blocks) {
        g_free(block_get(world));
    }
    while (world->free_versions) {
        struct sim_version *version = world->free_versions;
        world->free_versions = version->next;
        g_free(version);
    }
    while (world->free_pages) {
        struct sim_page *page = world->free_pages;
        world->free_pages = (struct sim_page *)page->unsynced.next;
        g_free(page);
    }
}

/* The leaf of a page, or NULL. */
struct sim_leaf *ash_sim_leaf(struct sim_inode *inode, uint64_t page_index)
{
    uint64_t index = page_index >> SIM_LEAF_BITS;

    if (!inode->leaf_cached || inode->leaf_cached_index != index) {
        struct sim_leaf *leaf = ash_sim_tree_get(&inode->tree, index);
        if (!leaf) {
            return NULL;
        }
        inode->leaf_cached = leaf;
        inode->leaf_cached_index = index;
    }
    return inode->leaf_cached;
}

static uint64_t bit_of(uint64_t page_index)
{
    return UINT64_C(1) << page_index % SIM_LEAF_PAGES;
}

static struct sim_page *page_find(struct sim_inode *inode, uint64_t page_index)
{
    struct sim_leaf *leaf = ash_sim_leaf(inode, page_index);

    return leaf ? leaf->pages[page_index % SIM_LEAF_PAGES] : NULL;
}

static struct sim_page *page_make(struct sim_inode *inode, uint64_t page_index)
{
    struct ash_sim_world *world = inode->world;
    struct sim_leaf *leaf = ash_sim_leaf(inode, page_index);

    if (!leaf) {
        leaf = ash_sim_tree_make(&inode->tree, page_index >> SIM_LEAF_BITS);
    }
    struct sim_page **slot = &leaf->pages[page_index % SIM_LEAF_PAGES];
    if (!*slot) {
        struct sim_page *page = world->free_pages;
        if (page) {
            world->free_pages = (struct sim_page *)page->unsynced.next;
        } else {
            page = g_new(struct sim_page, 1);
        }
        *page = (struct sim_page){.index = page_index};
        ash_list_init(&page->unsynced);
        *slot = page;
    }
    return *slot;
}

/* Gives the page a block or takes it, and keeps count of what is allocated. */
static void page_set_block(struct sim_inode *inode, struct sim_page *page, uint8_t *block,
                           bool unwritten)
{
    struct sim_leaf *leaf = ash_sim_leaf(inode, page->index);
    uint64_t bit = bit_of(page->index);
    int64_t before = !!((leaf->data | leaf->unwritten) & bit);
    int64_t after = block || unwritten;

    leaf->data = block ? leaf->data | bit : leaf->data & ~bit;
    leaf->unwritten = unwritten ? leaf->unwritten | bit : leaf->unwritten & ~bit;
    inode->allocated_pages += (uint64_t)(after - before);
    inode->world->allocated_pages += (uint64_t)(after - before);
    page->block = block;
}

/* Frees a page that is nothing any more, and keeps it out of the list of unsynced ones. */
static void page_tidy(struct sim_inode *inode, struct sim_page *page)
{
    if (page->oldest || page->lost) {
        return;
    }
    ash_list_remove(&page->unsynced);
    if (!page->block) {
        ash_sim_leaf(inode, page->index)->pages[page->index % SIM_LEAF_PAGES] = NULL;
        page->unsynced.next = (struct ash_list *)inode->world->free_pages;
        inode->world->free_pages = page;
    }
}

const uint8_t *ash_sim_page_read(struct sim_inode *inode, uint64_t page_index)
{
    struct sim_page *page = page_find(inode, page_index);

    return page ? page->block : NULL;
}

bool ash_sim_page_allocated(struct sim_inode *inode, uint64_t page_index)
{
    struct sim_leaf *leaf = ash_sim_leaf(inode, page_index);

    return leaf && ((leaf->data | leaf->unwritten) & bit_of(page_index));
}

/* The sectors that [from, to) of a page touches. */
static uint8_t sectors(const struct ash_sim_world *world, size_t from, size_t to)
{
    unsigned first = (unsigned)(from >> world->sector_bits);
    unsigned end = (unsigned)((to + ash_sim_sector_bytes(world) - 1) >> world->sector_bits);

    return (uint8_t)((1u << end) - (1u << first));
}

static void copy_sectors(const struct ash_sim_world *world, uint8_t *to, const uint8_t *from,
                         unsigned mask)
{
    while (mask) {
        unsigned first = (unsigned)__builtin_ctz(mask);
        unsigned run = (unsigned)__builtin_ctz(~(mask >> first));
        memcpy(to + (first << world->sector_bits), from + (first << world->sector_bits),
               run << world->sector_bits);
        mask &= ~(((1u << run) - 1) << first);
    }
}

/* Adds sectors of another version to one that lacks them. */
static void version_add(struct ash_sim_world *world, struct sim_version *to,
                        const struct sim_version *from, uint8_t mask)
{
    uint8_t data = from->data_mask & mask;

    ash_assert(!(to->mask & mask));
    to->mask |= mask;
    to->data_mask |= data;
    if (data) {
        if (!to->block) {
            to->block = block_get(world);
        }
        copy_sectors(world, to->block, from->block, data);
    }
}

static void versions_push(struct sim_inode *inode, struct sim_page *page,
                          struct sim_version *version)
{
    struct ash_sim_world *world = inode->world;

    if (page->newest) {
        page->newest->next = version;
    } else {
        page->oldest = version;
    }
    page->newest = version;
    page->version_count++;
    if (ash_list_empty(&page->unsynced)) {
        ash_list_push_back(&inode->unsynced, &page->unsynced);
    }
    if (page->version_count > VERSIONS_MAX) {
        struct sim_version *second = page->oldest->next;
        version_add(world, page->oldest, second, second->mask & (uint8_t)~page->oldest->mask);
        page->oldest->next = second->next;
        page->version_count--;
        version_put(world, second);
    }
}

static void versions_pop(struct ash_sim_world *world, struct sim_page *page)
{
    struct sim_version *version = page->oldest;

    page->oldest = version->next;
    if (!page->oldest) {
        page->newest = NULL;
    }
    page->version_count--;
    version_put(world, version);
}

uint8_t *ash_sim_page_change(struct sim_inode *inode, uint64_t page_index, size_t from, size_t to,
                             uint64_t seq)
{
    struct ash_sim_world *world = inode->world;
    struct sim_page *page = page_make(inode, page_index);
    struct sim_version *version = version_get(world, seq, sectors(world, from, to));
    uint8_t *block = page->block;

    if (!block) {
        block = block_get(world);
        if (to - from < SIM_PAGE_BYTES) {
            memset(block, 0, SIM_PAGE_BYTES);
        }
        page_set_block(inode, page, block, false);
    } else {
        version->data_mask = version->mask;
        if (to - from == SIM_PAGE_BYTES) {
            version->block = block;
            block = block_get(world);
            page->block = block;
        } else {
            version->block = block_get(world);
            copy_sectors(world, version->block, block, version->mask);
        }
    }
    versions_push(inode, page, version);
    return block;
}

void ash_sim_page_clear(struct sim_inode *inode, uint64_t page_index, bool unwritten, uint64_t seq)
{
    struct ash_sim_world *world = inode->world;
    struct sim_page *page = page_make(inode, page_index);

    if (page->block) {
        struct sim_version *version = version_get(world, seq, sectors(world, 0, SIM_PAGE_BYTES));
        version->data_mask = version->mask;
        version->block = page->block;
        page_set_block(inode, page, NULL, unwritten);
        versions_push(inode, page, version);
    } else {
        page_set_block(inode, page, NULL, unwritten);
        page_tidy(inode, page);
    }
}

/* These sectors are durable: nothing of them is lost any more. */
static void lost_forget(struct ash_sim_world *world, struct sim_page *page, uint8_t mask)
{
    if (page->lost) {
        page->lost->mask &= (uint8_t)~mask;
        page->lost->data_mask &= (uint8_t)~mask;
        if (!page->lost->mask) {
            version_put(world, page->lost);
            page->lost = NULL;
        }
    }
}

void ash_sim_page_harden(struct sim_inode *inode, uint64_t page_index, size_t from, size_t to,
                         uint64_t seq)
{
    struct ash_sim_world *world = inode->world;
    struct sim_page *page = page_find(inode, page_index);
    uint8_t mask = sectors(world, from, to);
    struct sim_version *before = NULL;

    if (!page) {
        return;
    }
    for (struct sim_version *version = page->oldest, *next; version && version->seq <= seq;
         version = next) {
        next = version->next;
        lost_forget(world, page, version->mask & mask);
        version->mask &= (uint8_t)~mask;
        version->data_mask &= (uint8_t)~mask;
        if (version->mask) {
            before = version;
            continue;
        }
        if (before) {
            before->next = next;
        } else {
            page->oldest = next;
        }
        if (page->newest == version) {
            page->newest = before;
        }
        page->version_count--;
        version_put(world, version);
    }
    page_tidy(inode, page);
}

static void page_flush(struct sim_inode *inode, struct sim_page *page, uint64_t seq)
{
    while (page->oldest && page->oldest->seq <= seq) {
        lost_forget(inode->world, page, page->oldest->mask);
        versions_pop(inode->world, page);
    }
}

/* The page is clean for whoever flushes next, but its durable bytes stay what they were. */
static void page_lose(struct sim_inode *inode, struct sim_page *page, uint64_t seq)
{
    while (page->oldest && page->oldest->seq <= seq) {
        if (!page->lost) {
            page->lost = version_get(inode->world, 0, 0);
        }
        version_add(inode->world, page->lost, page->oldest,
                    page->oldest->mask & (uint8_t)~page->lost->mask);
        versions_pop(inode->world, page);
    }
}

void ash_sim_inode_flush(struct sim_inode *inode, uint64_t seq, bool failed)
{
    ash_list_for_each_safe (page, &inode->unsynced, struct sim_page, unsynced) {
        if (!page->oldest || page->oldest->seq > seq) {
            continue;
        }
        switch (failed ? ash_prng_below(&inode->world->prng, 3) : 0) {
        case 0:
            page_flush(inode, page, seq);
            break;
        case 1:
            page_lose(inode, page, seq);
            break;
        default:
            break;
        }
        page_tidy(inode, page);
    }
}

/* Where the bytes of a sector are that the cut leaves: in the returned version, NULL: in the block.
 * A version holds what was before its change, so what a kept change wrote is found in the next
 * version that covers the sector. */
static const struct sim_version *settled_sector(const struct sim_page *page, unsigned sector,
                                                sim_keep_fn *keep, const void *opaque)
{
    unsigned bit = 1u << sector;
    const struct sim_version *lost = page->lost && (page->lost->mask & bit) ? page->lost : NULL;
    const struct sim_version *chosen = lost;
    bool decided = lost != NULL; /* chosen is right, unless a later change is kept */
    bool wants_next = false;

    for (const struct sim_version *version = page->oldest; version; version = version->next) {
        if (!(version->mask & bit)) {
            continue;
        }
        if (wants_next || !decided) {
            chosen = version;
            decided = true;
        }
        wants_next = keep(opaque, version->seq, page->index, sector);
    }
    return wants_next || !decided ? NULL : chosen;
}

static void page_settle(struct sim_inode *inode, struct sim_page *page, sim_keep_fn *keep,
                        const void *opaque)
{
    struct ash_sim_world *world = inode->world;
    unsigned sector_bytes = 1u << world->sector_bits;
    unsigned covered = page->lost ? page->lost->mask : 0;
    bool zeroes = true;

    for (const struct sim_version *version = page->oldest; version; version = version->next) {
        covered |= version->mask;
    }
    for (unsigned sector = 0; sector < SIM_PAGE_BYTES / sector_bytes; sector++) {
        size_t at = (size_t)sector * sector_bytes;
        const struct sim_version *from = NULL;
        if (covered & (1u << sector)) {
            from = settled_sector(page, sector, keep, opaque);
        }
        if (!from) {
            zeroes = zeroes && !page->block;
        } else if (from->data_mask & (1u << sector)) {
            if (!page->block) {
                uint8_t *block = block_get(world);
                memset(block, 0, SIM_PAGE_BYTES);
                page_set_block(inode, page, block, false);
            }
            memcpy(page->block + at, from->block + at, sector_bytes);
            zeroes = false;
        } else if (page->block) {
            memset(page->block + at, 0, sector_bytes);
        }
    }
    if (zeroes && page->block) {
        block_put(world, page->block);
        page_set_block(inode, page, NULL, false);
    }
}

void ash_sim_inode_settle(struct sim_inode *inode, sim_keep_fn *keep, const void *opaque)
{
    ash_list_for_each_safe (page, &inode->unsynced, struct sim_page, unsynced) {
        page_settle(inode, page, keep, opaque);
        while (page->oldest) {
            versions_pop(inode->world, page);
        }
        version_put(inode->world, page->lost);
        page->lost = NULL;
        page_tidy(inode, page);
    }
}

void ash_sim_inode_free_pages(struct sim_inode *inode)
{
    struct ash_sim_world *world = inode->world;
    uint64_t index = 0;

    for (struct sim_leaf *leaf; (leaf = ash_sim_tree_next(&inode->tree, &index)); index++) {
        for (unsigned i = 0; i < SIM_LEAF_PAGES; i++) {
            struct sim_page *page = leaf->pages[i];
            if (!page) {
                continue;
            }
            while (page->oldest) {
                versions_pop(world, page);
            }
            version_put(world, page->lost);
            block_put(world, page->block);
            page->unsynced.next = (struct ash_list *)world->free_pages;
            world->free_pages = page;
        }
    }
    ash_sim_tree_free(&inode->tree);
    inode->leaf_cached = NULL;
    world->allocated_pages -= inode->allocated_pages;
    inode->allocated_pages = 0;
    ash_list_init(&inode->unsynced);
}
