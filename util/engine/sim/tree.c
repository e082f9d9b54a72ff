/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where the pages of a sparse simulated file are found.
 *
 * A radix tree with 64 slots a node: leaves (struct sim_leaf) hold the pages, inner nodes say in a
 * bitmap which slots they use, so that the next leaf after a hole of any size is found in as many
 * steps as the tree is high.
 *
 * Invariants:
 *  1. A tree of height h holds the indexes below 64^h; it grows at the root and never shrinks.
 *  2. A slot is set exactly when its bit in `used` is. */

#include "util/assert.h"
#include "util/engine/sim/internal.h"

#define FAN_BITS 6
#define FAN 64

struct inner {
    uint64_t used;
    void *slots[FAN];
};

/* Whether the index is within what a tree of this height can hold. */
static bool holds(const struct sim_tree *tree, uint64_t index)
{
    unsigned bits = tree->height * FAN_BITS;

    return bits >= 64 || index >> bits == 0;
}

static unsigned slot_of(uint64_t index, unsigned level)
{
    return (unsigned)(index >> ((level - 1) * FAN_BITS)) % FAN;
}

struct sim_leaf *ash_sim_tree_get(const struct sim_tree *tree, uint64_t index)
{
    void *node = tree->root;

    if (!holds(tree, index)) {
        return NULL;
    }
    for (unsigned level = tree->height; level > 0 && node; level--) {
        node = ((struct inner *)node)->slots[slot_of(index, level)];
    }
    return node;
}

struct sim_leaf *ash_sim_tree_make(struct sim_tree *tree, uint64_t index)
{
    void **link = &tree->root;

    while (!holds(tree, index)) {
        if (tree->root) {
            struct inner *root = g_new0(struct inner, 1);
            root->used = 1;
            root->slots[0] = tree->root;
            tree->root = root;
        }
        tree->height++;
    }
    for (unsigned level = tree->height; level > 0; level--) {
        if (!*link) {
            *link = g_new0(struct inner, 1);
        }
        struct inner *node = *link;
        unsigned slot = slot_of(index, level);
        node->used |= UINT64_C(1) << slot;
        link = &node->slots[slot];
    }
    if (!*link) {
        *link = g_new0(struct sim_leaf, 1);
    }
    return *link;
}

/* The first leaf at *index or after it below a node; *index counts from the node's first leaf. */
static struct sim_leaf *next_below(void *node, unsigned level, uint64_t *index)
{
    if (level == 0) {
        return node;
    }
    const struct inner *inner = node;
    unsigned shift = (level - 1) * FAN_BITS;
    unsigned slot = (unsigned)(*index >> shift);
    uint64_t rest = *index & ((UINT64_C(1) << shift) - 1);

    for (;;) {
        uint64_t used = slot < FAN ? inner->used >> slot << slot : 0;
        if (!used) {
            return NULL;
        }
        unsigned found = (unsigned)__builtin_ctzll(used);
        if (found != slot) {
            slot = found;
            rest = 0;
        }
        struct sim_leaf *leaf = next_below(inner->slots[slot], level - 1, &rest);
        if (leaf) {
            *index = ((uint64_t)slot << shift) + rest;
            return leaf;
        }
        slot++;
        rest = 0;
    }
}

struct sim_leaf *ash_sim_tree_next(const struct sim_tree *tree, uint64_t *index)
{
    if (!tree->root || !holds(tree, *index)) {
        return NULL;
    }
    return next_below(tree->root, tree->height, index);
}

static void free_below(void *node, unsigned level)
{
    if (level > 0) {
        struct inner *inner = node;
        for (uint64_t used = inner->used; used; used &= used - 1) {
            free_below(inner->slots[__builtin_ctzll(used)], level - 1);
        }
    }
    g_free(node);
}

void ash_sim_tree_free(struct sim_tree *tree)
{
    if (tree->root) {
        free_below(tree->root, tree->height);
    }
    tree->root = NULL;
    tree->height = 0;
}
