/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rewriting the header: extensions and backing strings, which reach beyond its first sector.
 *
 * 1. What the new header has beyond the first sector is written where the header on disk has
 *    nothing, and flushed; then one write of the first sector switches to it. So a cut, tears
 *    included, leaves the old header or the new one.
 * 2. Where extensions shift, old and new ones want the same bytes. Then the switch has two steps.
 * In between the header is the old one without the names of its features, which are for error
 * messages only and are what fills the first sector, and with its backing string further on; so the
 * rest of the list lies in the first sector, and what lies beyond it is free.
 * 3. A header in which this finds no room, because its other extensions do not fit into the first
 *    sector, or the strings into the cluster together, is left as it is: -ENOTSUP. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "block/qcow2/qcow2.h"
#include "util/range.h"

/* Strings are moved out of the way to before here. */
#define FAR_BYTES (64 * KiB)

/* A header as it is laid out in its cluster. */
struct layout {
    uint8_t *bytes;
    uint32_t list_end;
    uint64_t string_at; /* 0: none */
    uint64_t string_bytes;
    struct qcow2_fields fields;
};

struct rewrite {
    struct ash_node *node;
    uint32_t cluster_bytes;
    struct layout now; /* as on disk */
    struct layout next;
};

/* Lays the header out over what the disk holds. */
static int lay_out(struct rewrite *rewrite, struct ash_qcow2_header *header, uint64_t string_at)
{
    struct layout *next = &rewrite->next;
    memcpy(next->bytes, rewrite->now.bytes, rewrite->cluster_bytes);
    int ret = ash_qcow2_header_lay_out(header, next->bytes, rewrite->cluster_bytes, string_at);
    next->list_end = header->list_end;
    next->string_at = header->fields.backing_offset;
    next->string_bytes = header->fields.backing_bytes;
    next->fields = header->fields;
    return ret;
}

/* The bytes beyond the first sector that differ; false if there are none. */
static bool difference(const struct rewrite *rewrite, uint32_t sector_bytes, uint32_t *from,
                       uint32_t *to)
{
    *from = sector_bytes;
    *to = rewrite->cluster_bytes;
    const uint8_t *old = rewrite->now.bytes;
    const uint8_t *new = rewrite->next.bytes;
    while (*from < *to && old[*from] == new[*from]) {
        (*from)++;
    }
    while (*from < *to && old[*to - 1] == new[*to - 1]) {
        (*to)--;
    }
    return *from < *to;
}

/* Whether the next layout changes, beyond the first sector, what the one on disk uses. */
static bool conflicts(const struct rewrite *rewrite, uint32_t sector_bytes)
{
    const struct layout *now = &rewrite->now;
    for (uint32_t i = sector_bytes; i < rewrite->cluster_bytes; i++) {
        bool used =
            i < now->list_end || (i >= now->string_at && i - now->string_at < now->string_bytes);
        if (used && now->bytes[i] != rewrite->next.bytes[i]) {
            return true;
        }
    }
    return false;
}

/* A place for the header's string such that one switch leads there. */
static bool find_place(struct rewrite *rewrite, struct ash_qcow2_header *header, bool far)
{
    const struct ash_qcow2_state *s = qcow2_state(rewrite->node);
    uint64_t end = ASH_MIN(rewrite->cluster_bytes, FAR_BYTES);
    uint64_t length = header->backing_file != NULL ? strlen(header->backing_file) : 0;
    uint64_t last = length < end ? end - length : 1;
    uint64_t behind =
        ASH_MAX(rewrite->now.list_end, rewrite->now.string_at + rewrite->now.string_bytes);
    uint64_t places[] = {0, ash_align_up(behind, 8), last};
    for (size_t i = far ? 2 : 0; i < ASH_ARRAY_SIZE(places); i++) {
        if (lay_out(rewrite, header, places[i]) == 0 && !conflicts(rewrite, sizeof(s->sector))) {
            return true;
        }
    }
    return false;
}

/* Carries the next layout out. */
ASH_CO_FN static int switch_over(struct rewrite *rewrite)
{
    struct ash_node *node = rewrite->node;
    struct ash_qcow2_state *s = qcow2_state(node);
    uint32_t from, to;
    int ret = ash_edge_flush(node->file);
    if (ret == 0 && difference(rewrite, sizeof(s->sector), &from, &to)) {
        ret = ash_edge_write(node->file, from, rewrite->next.bytes + from, to - from, 0);
        if (ret == 0) {
            ret = ash_edge_flush(node->file);
        }
    }
    if (ret < 0) {
        return ret;
    }
    uint8_t old[sizeof(s->sector)];
    memcpy(old, s->sector, sizeof(old));
    memcpy(s->sector, rewrite->next.bytes, sizeof(s->sector));
    ret = ash_qcow2_header_write_sector(node, &rewrite->next.fields);
    if (ret < 0) {
        memcpy(s->sector, old, sizeof(old));
        return ret;
    }
    struct layout done = rewrite->next;
    rewrite->next.bytes = rewrite->now.bytes;
    rewrite->now = done;
    return 0;
}

/* The step in between: see 2. `old` is the header on disk. */
ASH_CO_FN static int make_room(struct rewrite *rewrite, struct ash_qcow2_header *old)
{
    ash_qcow2_header_remove(old, QCOW2_EXTENSION_FEATURES);
    return find_place(rewrite, old, true) ? switch_over(rewrite) : -ENOTSUP;
}

ASH_CO_FN static int change(struct rewrite *rewrite, struct ash_qcow2_header *old)
{
    struct ash_qcow2_state *s = qcow2_state(rewrite->node);
    if (find_place(rewrite, &s->header, false)) {
        return switch_over(rewrite);
    }
    int ret = lay_out(rewrite, &s->header, 0); /* whether it fits at all */
    if (ret == 0) {
        ret = make_room(rewrite, old);
    }
    if (ret < 0) {
        return ret;
    }
    return find_place(rewrite, &s->header, false) ? switch_over(rewrite) : -ENOTSUP;
}

ASH_CO_FN static int run(struct rewrite *rewrite, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(rewrite->node);
    struct ash_qcow2_header old;
    char label[300];
    ash_node_label(rewrite->node, label);
    int ret = ash_qcow2_read(rewrite->node, 0, rewrite->now.bytes, rewrite->cluster_bytes);
    if (ret < 0) {
        return ash_error_errno(error, ret, "%s: cannot read the header", label);
    }
    memcpy(rewrite->now.bytes, s->sector, sizeof(s->sector));
    ret = ash_qcow2_header_parse(&old, rewrite->now.bytes, rewrite->cluster_bytes, label, error);
    if (ret < 0) {
        return ret;
    }
    rewrite->now.list_end = old.list_end;
    rewrite->now.string_at = old.fields.backing_offset;
    rewrite->now.string_bytes = old.fields.backing_bytes;
    rewrite->now.fields = old.fields;
    ret = change(rewrite, &old);
    ash_qcow2_header_clear(&old);
    s->header.fields = rewrite->now.fields;
    if (ret == -ENOSPC) {
        return ash_error_set(error, ret,
                             "%s: the header does not fit into a cluster of %" PRIu32 " bytes",
                             label, rewrite->cluster_bytes);
    }
    if (ret == -ENOTSUP) {
        return ash_error_set(error, ret,
                             "%s: the header has no room in which to change it safely: its "
                             "extensions do not fit into the first sector",
                             label);
    }
    return ret < 0 ? ash_error_errno(error, ret, "%s: cannot write the header", label) : 0;
}

int ash_qcow2_header_rewrite(struct ash_node *node, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    struct rewrite rewrite = {.node = node, .cluster_bytes = s->cluster_bytes};
    rewrite.now.bytes = ash_buffer_alloc(node->loop, s->cluster_bytes, 4096);
    rewrite.next.bytes = ash_buffer_alloc(node->loop, s->cluster_bytes, 4096);
    uint8_t *buffers[] = {rewrite.now.bytes, rewrite.next.bytes};
    int ret = -ENOMEM;
    if (buffers[0] != NULL && buffers[1] != NULL) {
        ash_co_mutex_lock(&s->header_lock);
        ret = run(&rewrite, error);
        ash_co_mutex_unlock(&s->header_lock);
    } else {
        ash_error_set(error, ret, "'%s': no memory for the header", node->filename);
    }
    for (size_t i = 0; i < ASH_ARRAY_SIZE(buffers); i++) {
        if (buffers[i] != NULL) {
            ash_buffer_free(node->loop, buffers[i], s->cluster_bytes);
        }
    }
    return ret;
}
