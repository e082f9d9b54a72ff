/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check: what refers to a cluster against what its refcount says, and the COPIED flags.
 *
 * The references are counted from the file (count.c, count_other.c), then compared with the
 * refcount blocks, block by block. Repairs are in repair.c. After repairs everything is counted
 * again, so that what is reported as left is what another run would find.
 *
 * Invariants:
 *  1. Without `fix` nothing is written.
 *  2. A repair raises refcounts before it lowers any, and flushes in between; a cut in the middle
 * leaves leaks at worst beyond what was wrong before.
 *  3. Nothing is repaired if something could not be examined: it might be what keeps a cluster
 * alive.
 *  4. While repairs are made the image is not open for writing in the driver's sense: no allocator
 * runs, no slice is dirty. Writing begins again afterwards, from what is on disk then. */
#include "block/qcow2/check.h"
#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include "block/io/mark.h"
#include "block/qcow2/repair.h"
#include "util/assert.h"
#include "util/range.h"

void ash_qcow2_check_report(struct qcow2_checking *checking, const char *format, ...)
{
    if (checking->check->report == NULL) {
        return;
    }
    char sentence[300];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    checking->check->report(checking->check, sentence);
}

int ash_qcow2_check_read(struct qcow2_checking *checking, uint64_t offset, void *buffer,
                         uint64_t bytes)
{
    int ret = ash_qcow2_read(checking->node, offset, buffer, bytes);
    if (ret < 0 && checking->check->io_error == 0) {
        checking->check->io_error = ret;
    }
    return ret;
}

/* One cluster's refcount as it is stored against what was counted. */
static void compare_cluster(struct qcow2_checking *checking, struct qcow2_findings *findings,
                            uint64_t cluster, uint64_t stored)
{
    uint64_t counted = ash_qcow2_refs_get(&checking->refs, cluster);
    if (stored != 0 && cluster >= checking->end_cluster) {
        checking->end_cluster = cluster + 1;
    }
    if (stored == counted) {
        return;
    }
    bool leak = stored > counted;
    ash_qcow2_check_report(checking,
                           "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                           leak ? "Leaked" : "ERROR", cluster, stored, counted);
    if (leak) {
        checking->check->leaks++;
    } else {
        checking->check->corruptions++;
    }
    findings->raise |= !leak;
    findings->lower |= leak;
}

/* Clusters that no refcount block covers. */
static void compare_uncovered(struct qcow2_checking *checking, struct qcow2_findings *findings,
                              uint64_t first, uint64_t end)
{
    uint64_t cluster = ash_qcow2_refs_next(&checking->refs, first);
    while (cluster < end) {
        compare_cluster(checking, findings, cluster, 0);
        findings->missing = true;
        cluster = ash_qcow2_refs_next(&checking->refs, cluster + 1);
    }
}

ASH_CO_FN static int compare_block(struct qcow2_checking *checking, struct qcow2_findings *findings,
                                   uint64_t index, uint64_t offset, uint8_t *block)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    uint64_t first = index << s->refblock_bits;
    int ret = ash_qcow2_check_read(checking, offset, block, s->cluster_bytes);
    if (ret < 0) {
        ash_qcow2_check_report(checking, "ERROR: refcount block %" PRIu64 " cannot be read", index);
        checking->check->check_errors++;
        return 0;
    }
    for (uint64_t i = 0; i < UINT64_C(1) << s->refblock_bits;) {
        uint64_t nothing =
            ash_qcow2_refs_unused(&checking->refs, block, s->refcount_order, first, i);
        if (nothing > 0) {
            i += nothing;
            continue;
        }
        compare_cluster(checking, findings, first + i,
                        ash_qcow2_refcount_read(block, s->refcount_order, i));
        i++;
    }
    return 0;
}

static bool block_usable(const struct qcow2_checking *checking, uint64_t offset)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    return offset != 0 && ash_is_aligned(offset, s->cluster_bytes) &&
           offset >> s->cluster_bits < checking->file_clusters;
}

ASH_CO_FN static int compare_refcounts(struct qcow2_checking *checking,
                                       struct qcow2_findings *findings)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    uint8_t *block = ash_buffer_alloc(checking->node->loop, s->cluster_bytes, 4096);
    if (block == NULL) {
        return -ENOMEM;
    }
    int ret = 0;
    for (uint64_t i = 0; i < s->reftable.count && ret == 0; i++) {
        uint64_t offset = s->reftable.entries[i] & QCOW2_REFTABLE_OFFSET;
        uint64_t first = i << s->refblock_bits;
        if (block_usable(checking, offset)) {
            ret = compare_block(checking, findings, i, offset, block);
        } else {
            compare_uncovered(checking, findings, first, first + (UINT64_C(1) << s->refblock_bits));
        }
    }
    compare_uncovered(checking, findings, s->reftable.count << s->refblock_bits, UINT64_MAX);
    ash_buffer_free(checking->node->loop, block, s->cluster_bytes);
    return ret;
}

/* The refcount that stands in its block; 0 where there is none. */
ASH_CO_FN static int stored_of(const struct qcow2_checking *checking, uint64_t cluster,
                               uint64_t *stored)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    uint64_t index = cluster >> s->refblock_bits;
    *stored = 0;
    if (index >= s->reftable.count ||
        !block_usable(checking, s->reftable.entries[index] & QCOW2_REFTABLE_OFFSET)) {
        return 0;
    }
    return ash_qcow2_refcount_get(checking->node, cluster, stored);
}

/* What COPIED is measured by: the count as it is stored, by which the image would be used, or,
 * where errors are mended, the references, as which it is stored by then. */
ASH_CO_FN static uint64_t count_of(struct qcow2_checking *checking,
                                   const struct qcow2_findings *findings, uint64_t cluster)
{
    uint64_t stored;
    if (findings->as_stored && stored_of(checking, cluster, &stored) == 0) {
        return stored;
    }
    return ash_qcow2_refs_get(&checking->refs, cluster);
}

/* COPIED has to say whether the count is one. */
ASH_CO_FN static bool flag_wrong(struct qcow2_checking *checking,
                                 const struct qcow2_findings *findings, uint64_t entry,
                                 uint64_t host)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    if (!ash_is_aligned(host, s->cluster_bytes) ||
        host >> s->cluster_bits >= checking->file_clusters) {
        return false; /* reported as what it is */
    }
    bool one = count_of(checking, findings, host >> s->cluster_bits) == 1;
    return one != ((entry & QCOW2_ENTRY_COPIED) != 0);
}

ASH_CO_FN static int check_l2_flags(struct qcow2_checking *checking,
                                    struct qcow2_findings *findings, uint64_t offset,
                                    uint64_t *table)
{
    const struct ash_qcow2_state *s = qcow2_state(checking->node);
    if (ash_qcow2_check_read(checking, offset, table, s->cluster_bytes) < 0) {
        /* Counting may have read it: its flags were not examined all the same. */
        ash_qcow2_check_report(
            checking, "ERROR: the flags of the L2 table at 0x%" PRIx64 " cannot be read", offset);
        checking->check->check_errors++;
        return 0;
    }
    bool changed = false;
    for (uint64_t i = 0; i < s->cluster_bytes / sizeof(uint64_t); i++) {
        if (table[i] == 0) {
            continue;
        }
        uint64_t entry = be64toh(table[i]);
        enum qcow2_entry_kind kind = qcow2_entry_kind(s, entry);
        if ((kind != QCOW2_DATA && kind != QCOW2_ZERO_PLACED) ||
            !flag_wrong(checking, findings, entry, entry & QCOW2_ENTRY_OFFSET)) {
            continue;
        }
        ash_qcow2_check_report(
            checking, "ERROR OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64,
            entry, count_of(checking, findings, (entry & QCOW2_ENTRY_OFFSET) >> s->cluster_bits));
        checking->check->corruptions++;
        table[i] = htobe64(entry ^ QCOW2_ENTRY_COPIED);
        changed = true;
        findings->flags++;
    }
    if (changed && findings->fix_flags) {
        return ash_edge_write(checking->node->file, offset, table, s->cluster_bytes, 0);
    }
    return 0;
}

/* The flags of the active L1 table and its L2 tables; corrects them if findings->fix_flags. */
ASH_CO_FN static int check_flags(struct qcow2_checking *checking, struct qcow2_findings *findings)
{
    struct ash_qcow2_state *s = qcow2_state(checking->node);
    uint64_t *table = ash_buffer_alloc(checking->node->loop, s->cluster_bytes, 4096);
    if (table == NULL) {
        return -ENOMEM;
    }
    int ret = 0;
    for (uint64_t i = 0; i < s->l1.count && ret == 0; i++) {
        uint64_t entry = s->l1.entries[i];
        uint64_t offset = entry & QCOW2_ENTRY_OFFSET;
        if (offset == 0 || !block_usable(checking, offset)) {
            continue;
        }
        if (flag_wrong(checking, findings, entry, offset)) {
            ash_qcow2_check_report(checking,
                                   "ERROR OFLAG_COPIED L2 cluster: l1_index=%" PRIu64
                                   " l1_entry=%" PRIx64 " refcount=%" PRIu64,
                                   i, entry,
                                   count_of(checking, findings, offset >> s->cluster_bits));
            checking->check->corruptions++;
            findings->flags++;
            if (findings->fix_flags) {
                ret = ash_qcow2_repair_l1_entry(checking->node, i, entry ^ QCOW2_ENTRY_COPIED);
            }
        }
        if (ret == 0) {
            ret = check_l2_flags(checking, findings, offset, table);
        }
    }
    ash_buffer_free(checking->node->loop, table, s->cluster_bytes);
    return ret;
}

static void checking_init(struct qcow2_checking *checking, struct ash_node *node,
                          struct ash_check *check)
{
    const struct ash_qcow2_state *s = qcow2_state(node);
    *checking = (struct qcow2_checking){.node = node, .check = check};
    checking->file_clusters = qcow2_clusters(s, node->file->child->size_bytes);
    ash_qcow2_refs_init(&checking->refs);
    check->total_clusters = qcow2_clusters(s, node->size_bytes);
}

/* One look at everything; with `fix` set in the check, one round of repairs. */
ASH_CO_FN static int check_once(struct ash_node *node, struct ash_check *check,
                                struct qcow2_findings *findings, struct ash_error *error)
{
    struct qcow2_checking checking;
    checking_init(&checking, node, check);
    int ret = ash_qcow2_count_references(&checking);
    if (ret == 0) {
        ret = compare_refcounts(&checking, findings);
    }
    uint64_t end = ASH_MAX(ash_qcow2_refs_end(&checking.refs), checking.end_cluster);
    check->image_end_offset = end << qcow2_state(node)->cluster_bits;
    findings->rebuild = checking.reftable_bad || findings->missing;
    bool errors = (check->fix & ASH_CHECK_FIX_ERRORS) != 0;
    bool examined = check->check_errors == 0;
    if (ret == 0 && check->fix != 0 && examined) {
        ret = ash_qcow2_repair_refcounts(&checking, findings);
    }
    if (ret == 0 && examined) { /* flags say how often a place is counted, and not all were */
        findings->fix_flags = errors;
        findings->as_stored = !errors && (findings->raise || findings->lower);
        if (findings->repaired) {
            ash_qcow2_repair_reload(node);
        }
        ret = check_flags(&checking, findings);
    }
    ash_qcow2_refs_clear(&checking.refs);
    if (ret < 0) {
        return ash_error_errno(error, ret, "Checking '%s' failed", node->filename);
    }
    return 0;
}

/* Runs again what would be found now, silently, and moves what is gone to the fixed ones. */
ASH_CO_FN static int recheck(struct ash_node *node, struct ash_check *check,
                             struct ash_error *error)
{
    struct ash_check again = {0};
    struct qcow2_findings findings = {0};
    int ret = ash_edge_flush(node->file);
    if (ret == 0) {
        ash_qcow2_repair_reload(node);
        ret = check_once(node, &again, &findings, error);
    }
    if (ret < 0) {
        return ret;
    }
    check->corruptions_fixed = check->corruptions - ASH_MIN(check->corruptions, again.corruptions);
    check->leaks_fixed = check->leaks - ASH_MIN(check->leaks, again.leaks);
    check->corruptions = again.corruptions;
    check->leaks = again.leaks;
    check->check_errors = again.check_errors;
    check->io_error = again.io_error;
    check->image_end_offset = again.image_end_offset;
    return 0;
}

/* A clean image needs neither the corrupt nor the dirty bit. */
ASH_CO_FN static int clear_bits(struct ash_node *node, const struct ash_check *check)
{
    uint64_t bits = QCOW2_INCOMPATIBLE_DIRTY | QCOW2_INCOMPATIBLE_CORRUPT;
    bool set = (qcow2_state(node)->header.fields.incompatible & bits) != 0;
    bool clean = check->corruptions == 0 && check->check_errors == 0;
    if (!set || !clean || (check->fix & ASH_CHECK_FIX_ERRORS) == 0) {
        return 0;
    }
    int ret = ash_qcow2_header_flag(node, 0, bits);
    if (ret == 0) {
        qcow2_state(node)->corrupt = false;
    }
    return ret;
}

int ash_qcow2_check(struct ash_node *node, struct ash_check *check, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct qcow2_findings findings = {0};
    bool was_writing = s->writing;
    if (check->fix != 0 && !ash_node_writable(node)) {
        return ash_error_set(error, -EPERM, "'%s' is not open for writing", node->filename);
    }
    if (check->fix != 0) {
        int dropped = ash_mark_drop(node); /* a repair may change what is read */
        if (dropped < 0) {
            return ash_error_errno(error, dropped, "The mark of '%s' cannot be taken away",
                                   node->filename);
        }
    }
    /* What was dropped and not yet given back would look like a leak. */
    int ret = was_writing ? ash_qcow2_settle(node) : 0;
    if (ret == 0 && was_writing && check->fix != 0) {
        ret = ash_qcow2_finish_writing(node);
        if (ret == 0) {
            ash_qcow2_stop_writing(node);
        } else {
            ash_qcow2_go_on_writing(node);
        }
    }
    if (ret < 0) {
        return ash_error_errno(error, ret, "Writing the metadata of '%s' failed", node->filename);
    }
    ret = ash_qcow2_know_refcounts(node, error);
    if (ret < 0) {
        return ret;
    }
    ret = check_once(node, check, &findings, error);
    bool mended = findings.repaired || (findings.fix_flags && findings.flags > 0);
    if (ret == 0 && mended) {
        ret = recheck(node, check, error);
    }
    if (ret == 0) {
        ret = clear_bits(node, check);
    }
    if (was_writing && check->fix != 0) {
        int begin_ret = ash_qcow2_begin_writing(node, ret == 0 ? error : NULL);
        ret = ret < 0 ? ret : begin_ret;
        if (begin_ret < 0) { /* the node stays writable in name: let every write fail */
            s->writing = true;
            s->corrupt = true;
        }
    }
    return ret;
}
