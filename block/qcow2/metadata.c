/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which clusters hold metadata: what a write of metadata, and an entry of an L2 table, is checked
 * against. A hash set with open addressing: eight bytes a slot, at most half of the slots in use.
 */
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/qcow2/qcow2.h"

#define REMOVED UINT64_MAX

static uint64_t slot_of(const struct qcow2_metadata *set, uint64_t cluster)
{
    return (cluster * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (set->slot_count - 1);
}

static uint64_t *find(const struct qcow2_metadata *set, uint64_t cluster)
{
    if (set->slot_count == 0) {
        return NULL;
    }
    for (uint64_t at = slot_of(set, cluster);; at = (at + 1) & (set->slot_count - 1)) {
        uint64_t *slot = &set->slots[at];
        if (*slot == 0) {
            return NULL;
        }
        if (*slot != REMOVED && *slot >> 3 == cluster) {
            return slot;
        }
    }
}

static void insert(struct qcow2_metadata *set, uint64_t value)
{
    uint64_t at = slot_of(set, value >> 3);
    while (set->slots[at] != 0 && set->slots[at] != REMOVED) {
        at = (at + 1) & (set->slot_count - 1);
    }
    set->used += set->slots[at] == 0;
    set->slots[at] = value;
    set->count++;
}

static bool make_room(struct qcow2_metadata *set)
{
    if ((set->used + 1) * 2 <= set->slot_count) {
        return true;
    }
    struct qcow2_metadata larger = {.slot_count = 64};
    while (larger.slot_count < (set->count + 1) * 4) {
        larger.slot_count *= 2;
    }
    larger.slots = g_try_new0(uint64_t, larger.slot_count);
    if (!larger.slots) {
        return false;
    }
    for (uint64_t i = 0; i < set->slot_count; i++) {
        if (set->slots[i] != 0 && set->slots[i] != REMOVED) {
            insert(&larger, set->slots[i]);
        }
    }
    g_free(set->slots);
    *set = larger;
    return true;
}

bool ash_qcow2_metadata_add(struct qcow2_metadata *set, uint64_t cluster, enum qcow2_kind kind)
{
    if (find(set, cluster) || !make_room(set)) {
        return false;
    }
    insert(set, cluster << 3 | kind);
    return true;
}

bool ash_qcow2_metadata_add_range(struct qcow2_metadata *set, uint64_t cluster, uint64_t count,
                                  enum qcow2_kind kind)
{
    for (uint64_t i = 0; i < count; i++) {
        if (!ash_qcow2_metadata_add(set, cluster + i, kind)) {
            ash_qcow2_metadata_remove(set, cluster, i);
            return false;
        }
    }
    return true;
}

void ash_qcow2_metadata_remove(struct qcow2_metadata *set, uint64_t cluster, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        uint64_t *slot = find(set, cluster + i);
        if (slot) {
            *slot = REMOVED;
            set->count--;
        }
    }
}

enum qcow2_kind ash_qcow2_metadata_kind(const struct qcow2_metadata *set, uint64_t cluster)
{
    const uint64_t *slot = find(set, cluster);
    return slot ? (enum qcow2_kind)(*slot & 7) : QCOW2_KIND_NONE;
}

void ash_qcow2_metadata_clear(struct qcow2_metadata *set)
{
    g_free(set->slots);
    memset(set, 0, sizeof(*set));
}
