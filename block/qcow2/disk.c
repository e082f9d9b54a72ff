/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Metadata in the file: reading, writing after the overlap check, and changes of the header.
 *
 * 1. Metadata is written only where the set of metadata clusters says that its kind lies. Anything
 * else marks the image corrupt and is refused, unless the option overlap-check has it pass.
 * 2. Header fields that change while an image is in use lie in the first 512 bytes, and are written
 * by one write of that sector between two flushes: a tear cannot split it. What
 *    reaches further, extensions and backing strings, is changed in rewrite.c.
 * 3. One change of the header at a time, under header_lock. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "block/io/event.h"
#include "block/io/mark.h"
#include "block/qcow2/qcow2.h"

int ash_qcow2_read(struct ash_node *node, uint64_t offset, void *buffer, uint64_t bytes)
{
    uint64_t size = node->file->child->size_bytes;
    uint64_t there = offset >= size ? 0 : ASH_MIN(bytes, size - offset);
    memset((uint8_t *)buffer + there, 0, bytes - there);
    return there ? ash_edge_read(node->file, offset, buffer, there) : 0;
}

/* Whether all clusters of the range hold this kind, or what is not protected. */
static bool all_of_kind(const struct ash_qcow2_state *s, enum qcow2_kind kind, uint64_t offset,
                        uint64_t bytes)
{
    uint64_t last = (offset + bytes - 1) >> s->cluster_bits;
    for (uint64_t at = offset >> s->cluster_bits; at <= last; at++) {
        enum qcow2_kind there = ash_qcow2_metadata_kind(&s->metadata, at);
        bool protected = there == QCOW2_KIND_NONE ? s->set.overlap != 0 : qcow2_protects(s, there);
        if (there != kind && protected) {
            return false;
        }
    }
    return true;
}

/* The overlap check. */
ASH_CO_FN static int may_write(struct ash_node *node, enum qcow2_kind kind, uint64_t offset,
                               uint64_t bytes)
{
    static const char *const names[] = {"data",     "the header",     "the L1 table",
                                        "L2 table", "refcount table", "refcount block"};
    struct ash_qcow2_state *s = qcow2_state(node);
    if (s->corrupt) {
        return -EIO;
    }
    if (!all_of_kind(s, kind, offset, bytes)) {
        return ash_qcow2_corrupt(node,
                                 "prevented a write of %s at offset 0x%" PRIx64 " (%" PRIu64
                                 " bytes), which overlaps something else",
                                 names[kind], offset, bytes);
    }
    return 0;
}

/* Tells the node below what is about to be written. May yield. */
ASH_CO_FN static void tell(struct ash_node *node, enum qcow2_kind kind)
{
    static const enum ash_event events[] = {
        [QCOW2_KIND_HEADER] = ASH_EVENT_HEADER_UPDATE,
        [QCOW2_KIND_L1] = ASH_EVENT_L1_UPDATE,
        [QCOW2_KIND_L2] = ASH_EVENT_L2_UPDATE,
        [QCOW2_KIND_REFTABLE] = ASH_EVENT_REFTABLE_UPDATE,
        [QCOW2_KIND_REFBLOCK] = ASH_EVENT_REFBLOCK_UPDATE,
    };
    ash_edge_event(node->file, events[kind]);
}

int ash_qcow2_write(struct ash_node *node, enum qcow2_kind kind, uint64_t offset,
                    const void *buffer, uint64_t bytes)
{
    tell(node, kind);
    int ret = may_write(node, kind, offset, bytes);
    return ret < 0 ? ret : ash_edge_write(node->file, offset, buffer, bytes, 0);
}

int ash_qcow2_before_write_l2(struct ash_table_cache *cache, uint64_t offset, uint64_t bytes)
{
    tell(cache->node, QCOW2_KIND_L2);
    return may_write(cache->node, QCOW2_KIND_L2, offset, bytes);
}

int ash_qcow2_before_write_refblock(struct ash_table_cache *cache, uint64_t offset, uint64_t bytes)
{
    tell(cache->node, QCOW2_KIND_REFBLOCK);
    return may_write(cache->node, QCOW2_KIND_REFBLOCK, offset, bytes);
}

/* --- the header --- */

int ash_qcow2_header_write_sector(struct ash_node *node, const struct qcow2_fields *fields)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    uint8_t sector[sizeof(s->sector)];
    memcpy(sector, s->sector, sizeof(sector));
    ash_qcow2_fields_to_disk(fields, sector);
    tell(node, QCOW2_KIND_HEADER);
    int ret = ash_edge_write(node->file, 0, sector, sizeof(sector), 0);
    if (ret == 0) {
        ret = ash_edge_flush(node->file);
    }
    if (ret == 0) {
        memcpy(s->sector, sector, sizeof(sector));
        s->header.fields = *fields;
    } else if (s->flush_error == 0) {
        /* What the disk holds now is not known. */
        s->flush_error = ret;
    }
    return ret;
}

/* A change of the fields as they are when it is made; false: it changes nothing. */
typedef bool change_fn(struct qcow2_fields *fields, uint64_t a, uint64_t b);

/* Changes the header on disk, and then in memory. */
ASH_CO_FN static int change(struct ash_node *node, change_fn *fn, uint64_t a, uint64_t b)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    int ret = 0;
    ash_co_mutex_lock(&s->header_lock);
    struct qcow2_fields fields = s->header.fields;
    if (fn(&fields, a, b)) {
        ret = ash_edge_flush(node->file);
        if (ret == 0) {
            ret = ash_qcow2_header_write_sector(node, &fields);
        }
    }
    ash_co_mutex_unlock(&s->header_lock);
    return ret;
}

static bool flags(struct qcow2_fields *fields, uint64_t set, uint64_t clear)
{
    uint64_t old = fields->incompatible;
    fields->incompatible = (old | set) & ~clear;
    return fields->incompatible != old;
}

int ash_qcow2_header_flag(struct ash_node *node, uint64_t set, uint64_t clear)
{
    return change(node, flags, set, clear);
}

static bool no_autoclear(struct qcow2_fields *fields, uint64_t keep, uint64_t unused)
{
    (void)unused;
    bool any = (fields->autoclear & ~keep) != 0;
    fields->autoclear &= keep;
    return any;
}

int ash_qcow2_header_clear_autoclear(struct ash_node *node, uint64_t keep)
{
    return change(node, no_autoclear, keep, 0);
}

static bool autoclear(struct qcow2_fields *fields, uint64_t set, uint64_t unused)
{
    (void)unused;
    fields->autoclear |= set;
    return true;
}

int ash_qcow2_header_set_autoclear(struct ash_node *node, uint64_t features)
{
    return change(node, autoclear, features, 0);
}

static bool length(struct qcow2_fields *fields, uint64_t bytes, uint64_t unused)
{
    (void)unused;
    fields->disk_bytes = bytes;
    return true;
}

int ash_qcow2_header_set_length(struct ash_node *node, uint64_t bytes)
{
    return change(node, length, bytes, 0);
}

static bool l1(struct qcow2_fields *fields, uint64_t offset, uint64_t entries)
{
    fields->l1_offset = offset;
    fields->l1_entries = entries;
    return true;
}

int ash_qcow2_header_switch_l1(struct ash_node *node, uint64_t offset, uint64_t entries)
{
    return change(node, l1, offset, entries);
}

static bool reftable(struct qcow2_fields *fields, uint64_t offset, uint64_t clusters)
{
    fields->reftable_offset = offset;
    fields->reftable_clusters = clusters;
    return true;
}

int ash_qcow2_header_switch_reftable(struct ash_node *node, uint64_t offset, uint64_t clusters)
{
    return change(node, reftable, offset, clusters);
}

int ash_qcow2_corrupt(struct ash_node *node, const char *format, ...)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    char sentence[400], label[300];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    if (!s->reported) {
        s->reported = true;
        ash_log(node->loop, ASH_LOG_ERROR, "%s: corrupt: %s", ash_node_label(node, label),
                sentence);
    }
    if (!s->writing || s->corrupt) {
        return -EIO;
    }
    s->corrupt = true;
    if (s->header.fields.version >= 3) {
        /* If this cannot be written either, nothing more can be done about it. */
        ash_qcow2_header_flag(node, QCOW2_INCOMPATIBLE_CORRUPT, 0);
    }
    return -EIO;
}

/* --- backing strings --- */

int ash_qcow2_set_backing(struct ash_node *node, const char *file, const char *format,
                          struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    char label[300];
    ash_node_label(node, label);
    if (!s->writing) {
        return ash_error_set(error, -EACCES, "%s: it is not open for writing", label);
    }
    int dropped = ash_mark_drop(node);
    if (dropped < 0) {
        return ash_error_errno(error, dropped, "%s: its mark cannot be taken away", label);
    }
    char *old_file = g_strdup(s->header.backing_file);
    char *old_format = g_strdup(s->header.backing_format);
    int ret;
    if (file && strlen(file) > QCOW2_BACKING_BYTES_MAX) {
        ret = ash_error_set(error, -EINVAL, "%s: backing file name is longer than %d bytes", label,
                            QCOW2_BACKING_BYTES_MAX);
    } else if (ash_qcow2_header_set_backing(&s->header, file, format) < 0) {
        ret = ash_error_set(error, -EINVAL, "%s: backing format name is longer than %d bytes",
                            label, QCOW2_BACKING_FORMAT_BYTES_MAX);
    } else {
        ret = ash_qcow2_header_rewrite(node, error);
        if (ret < 0) {
            ash_qcow2_header_set_backing(&s->header, old_file, old_format);
        }
    }
    g_free(old_file);
    g_free(old_format);
    if (ret == 0) {
        g_free(node->backing_file);
        g_free(node->backing_format);
        node->backing_file = g_strdup(s->header.backing_file);
        node->backing_format = g_strdup(s->header.backing_format);
    }
    return ret;
}
