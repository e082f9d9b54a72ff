/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Repairs, between the files of the check. */
#ifndef ASH_BLOCK_QCOW2_REPAIR_H
#define ASH_BLOCK_QCOW2_REPAIR_H

#include "block/qcow2/check.h"

struct qcow2_findings {
    bool raise;     /* some refcount is too low */
    bool lower;     /* some refcount is too high */
    bool missing;   /* a cluster in use has no refcount block */
    bool rebuild;   /* the refcount structure cannot be corrected where it is */
    bool as_stored; /* flags are measured by stored refcounts, which may not be the references */
    bool fix_flags; /* correct COPIED flags while looking at them */
    uint64_t flags; /* wrong COPIED flags */
    bool repaired;  /* refcounts were written */
};

/* Makes the stored refcounts say what was counted, as far as check->fix allows. */
ASH_CO_FN int ash_qcow2_repair_refcounts(struct qcow2_checking *checking,
                                         struct qcow2_findings *findings);

/* One entry of the L1 table, in memory and on disk. */
ASH_CO_FN int ash_qcow2_repair_l1_entry(struct ash_node *node, uint64_t index, uint64_t entry);

/* Forgets cached tables, which repairs went around. */
void ash_qcow2_repair_reload(struct ash_node *node);

#endif
