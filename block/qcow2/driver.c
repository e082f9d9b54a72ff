/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: the driver's limits, reopening, and its table of callbacks. The format itself is
 * described by docs/interop/qcow2.txt of QEMU; each other file of this folder keeps one part of it.
 */
#include <errno.h>
#include <string.h>
#include "block/qcow2/create.h"
#include "block/qcow2/qcow2.h"

static int probe(const uint8_t *head, size_t bytes)
{
    uint32_t words[2];
    if (bytes < sizeof(words)) {
        return 0;
    }
    memcpy(words, head, sizeof(words));
    return be32toh(words[0]) == QCOW2_MAGIC && be32toh(words[1]) >= 2 ? 100 : 0;
}

static void limits(const struct ash_node *node, struct ash_limits *limits)
{
    limits->cluster = qcow2_state(node)->cluster_bytes;
    limits->memory_alignment = node->file->child->limits.memory_alignment;
    limits->optimal = limits->cluster;
}

/* --- reopening -----------------------------------------------------------------------------------
 */

/* What writing begins with happens in prepare, while the file may not be written yet: an image that
 * has to be changed first cannot become writable this way. What writing ends with is written in
 * prepare too; but what is in memory for writing goes in commit only, because who could not write a
 * moment ago may be unable to read it back. */
ASH_CO_FN static int prepare(struct ash_node *node, uint32_t flags, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    const struct qcow2_fields *f = &s->header.fields;
    bool write = flags & ASH_NODE_WRITE;
    char label[300];
    if (write && !s->writing) {
        uint64_t known = ash_qcow2_marked(node) != NULL ? QCOW2_AUTOCLEAR_MARK : 0;
        if ((f->incompatible & QCOW2_INCOMPATIBLE_DIRTY) || (f->autoclear & ~known) != 0) {
            return ash_error_set(error, -EBUSY,
                                 "%s: it has to be repaired, or features cleared, before it can be "
                                 "written; open it for writing instead of reopening it",
                                 ash_node_label(node, label));
        }
        return ash_qcow2_begin_writing(node, error);
    }
    if (s->writing && (!write || s->change != NULL)) {
        int ret = ash_qcow2_finish_writing(node);
        if (ret < 0) {
            ash_qcow2_go_on_writing(node);
            return ash_error_errno(error, ret, "%s: cannot write its metadata",
                                   ash_node_label(node, label));
        }
    }
    return 0;
}

ASH_CO_FN static int reopen_prepare(struct ash_node *node, uint32_t flags, struct ash_error *error)
{
    int ret = prepare(node, flags, error);
    if (ret < 0) {
        ash_qcow2_change_drop(node);
    }
    return ret;
}

ASH_CO_FN static void reopen_commit(struct ash_node *node, uint32_t flags)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (!(flags & ASH_NODE_WRITE) && s->writing) {
        ash_qcow2_stop_writing(node);
    }
    ash_qcow2_change_apply(node);
    if (s->writing) {
        ash_qcow2_go_on_writing(node);
    }
}

ASH_CO_FN static void reopen_abort(struct ash_node *node)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    ash_qcow2_change_drop(node);
    if (ash_node_writable(node)) {
        ash_qcow2_go_on_writing(node);
    } else if (s->writing) {
        ash_qcow2_stop_writing(node);
    }
}

const struct ash_driver ash_driver_qcow2 = {
    .name = "qcow2",
    .kind = ASH_DRIVER_FORMAT,
    .state_size = sizeof(struct ash_qcow2_state),
    .options = ash_qcow2_options,
    .create_options = ash_qcow2_create_options,
    .create_size = sizeof(struct ash_qcow2_create_options),
    .backing = true,
    .probe = probe,
    .open = ash_qcow2_open,
    .close = ash_qcow2_close,
    .create = ash_qcow2_create,
    .resize = ash_qcow2_resize,
    .check = ash_qcow2_check,
    .set_backing = ash_qcow2_set_backing,
    .mark = ash_qcow2_mark,
    .marked = ash_qcow2_marked,
    .markable = ash_qcow2_markable,
    .measure = ash_qcow2_measure,
    .info = ash_qcow2_info,
    .limits = limits,
    .reopen_options = ash_qcow2_reopen_options,
    .reopen_prepare = reopen_prepare,
    .reopen_commit = reopen_commit,
    .reopen_abort = reopen_abort,
    .map = &ash_qcow2_map_ops,
};
