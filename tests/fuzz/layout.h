/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A qcow2 file's tables as its bytes have them, read by code that shares nothing with the driver:
 * which host clusters hold metadata, how often each is referred to, and which guest clusters are
 * sound. */
#ifndef ASH_TESTS_FUZZ_LAYOUT_H
#define ASH_TESTS_FUZZ_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "util/engine/sim.h"

struct layout {
    uint8_t *bytes; /* the file; owned */
    uint64_t size;
    uint32_t version;
    uint32_t cluster_bits;
    uint32_t order; /* of refcounts */
    uint64_t disk_bytes;
    uint64_t l1_offset;
    uint64_t l1_entries;
    uint64_t reftable_offset;
    uint64_t reftable_entries;
    uint64_t clusters;  /* in the file, the last one may be short */
    uint32_t *tables;   /* by host cluster: references by metadata, */
    uint32_t *places;   /* by entries for data, */
    uint32_t *coded;    /* and by those for compressed data */
    bool metadata_good; /* header, L1, refcount table and blocks: one reference each, and counted */
};

/* Takes the file as it is now. False: its header is none, and there is nothing to free. */
bool layout_read(struct layout *layout, struct ash_sim_world *world, const char *path);
void layout_free(struct layout *layout);

uint64_t layout_u64(const struct layout *layout, uint64_t offset);
uint64_t layout_refcount(const struct layout *layout, uint64_t cluster);
/* The place of the L2 entry of a guest cluster in the file; 0: none. */
uint64_t layout_l2_place(const struct layout *layout, uint64_t guest_cluster);

/* Whether the range holds metadata: a table that is named by the header or another. */
bool layout_is_metadata(const struct layout *layout, uint64_t offset, uint64_t bytes);

/* Whether nothing but a request to it may change what this guest cluster holds: all that leads to
 * it has one reference and is counted, and so is all that leads to the counts. */
bool layout_is_sound(const struct layout *layout, uint64_t guest_cluster);

#endif
