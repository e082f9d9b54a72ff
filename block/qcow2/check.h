/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between the files of the check: who counts references, who compares, who repairs. */
#ifndef ASH_BLOCK_QCOW2_CHECK_H
#define ASH_BLOCK_QCOW2_CHECK_H

#include "block/qcow2/qcow2.h"

/* References to clusters as they were counted: a sparse array, because a few bytes in a table can
 * point anywhere. */
struct qcow2_refs {
    GHashTable *chunks; /* cluster / QCOW2_REFS_CHUNK -> uint16_t[] */
    GArray *order;      /* of uint64_t: the keys, sorted */
    guint chunks_max;   /* QCOW2_REFS_CHUNKS_MAX; tests have less */
    uint64_t last_key; /* that was asked for last; UINT64_MAX: none */
    uint16_t *last;    /* its chunk, or NULL if there is none */
    /* What was found last: none in [gap_begin, gap_end) has a count, and gap_end has one. */
    uint64_t gap_begin;
    uint64_t gap_end;
};
#define QCOW2_REFS_CHUNK UINT64_C(16384)
#define QCOW2_REFS_CHUNKS_MAX 65536 /* 2 GiB of counts; some 10^9 clusters */

void ash_qcow2_refs_init(struct qcow2_refs *refs);
void ash_qcow2_refs_clear(struct qcow2_refs *refs);
/* -EFBIG: more than is counted. */
int ash_qcow2_refs_add(struct qcow2_refs *refs, uint64_t cluster);
/* One of those that were added does not count after all. */
void ash_qcow2_refs_take_back(struct qcow2_refs *refs, uint64_t cluster);
uint16_t ash_qcow2_refs_get(struct qcow2_refs *refs, uint64_t cluster);
/* The least cluster >= `from` with a count, or UINT64_MAX. */
uint64_t ash_qcow2_refs_next(struct qcow2_refs *refs, uint64_t from);
/* Of the clusters from number `i` of a refcount block on, which begins with cluster `first`: how many
 * have refcount 0 and no count, as far as one word of the block tells. Most of a block is such. */
uint64_t ash_qcow2_refs_unused(struct qcow2_refs *refs, const uint8_t *block, uint32_t order,
                               uint64_t first, uint64_t i);
/* The last cluster with a count, plus one. */
uint64_t ash_qcow2_refs_end(struct qcow2_refs *refs);

/* One run of the check. */
struct qcow2_checking {
    struct ash_node *node;
    struct ash_check *check;
    struct qcow2_refs refs;
    uint64_t file_clusters;     /* in the file, the last one may be short */
    uint64_t last_data_cluster; /* for fragmentation, within one L2 table */
    uint64_t end_cluster;       /* behind the last one with a stored refcount */
    bool reftable_bad;          /* an entry of the refcount table is unusable */
};

void ash_qcow2_check_report(struct qcow2_checking *checking, const char *format, ...)
    ASH_PRINTF(2, 3);

/* Reads from the file; remembers the first error. */
ASH_CO_FN int ash_qcow2_check_read(struct qcow2_checking *checking, uint64_t offset, void *buffer,
                                   uint64_t bytes);

/* Counts every reference: header, L1, L2 tables, clusters, snapshots, bitmaps, refcount table. What
 * is unreadable is counted in check_errors; negative only when the check cannot go on. */
ASH_CO_FN int ash_qcow2_count_references(struct qcow2_checking *checking);

/* Those of internal snapshots and of bitmaps, which are read only to count them. */
ASH_CO_FN int ash_qcow2_count_snapshots(struct qcow2_checking *checking);
ASH_CO_FN int ash_qcow2_count_bitmaps(struct qcow2_checking *checking);

/* Counts a range of bytes; what lies outside the file or is misaligned is a corruption. */
int ash_qcow2_count_range(struct qcow2_checking *checking, uint64_t offset, uint64_t bytes,
                          const char *what);
/* An L1 table and all below it. `active`: the image's own, whose clusters make the statistics. */
ASH_CO_FN int ash_qcow2_count_l1(struct qcow2_checking *checking, const uint64_t *entries,
                                 uint64_t count, bool active);

#endif
