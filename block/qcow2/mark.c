/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2: the mark of a resumable job: an autoclear feature bit, and a header extension with the
 * mark. The specification has whoever writes to the image and does not know the bit clear it, so
 * the bit tells whether the extension still counts. Without the bit the extension is nothing. */
#include <errno.h>
#include <string.h>
#include "block/io/mark.h"
#include "block/qcow2/qcow2.h"

const uint8_t *ash_qcow2_marked(const struct ash_node *node)
{
    const struct ash_qcow2_state *s = node->state;
    const struct qcow2_extension *extension =
        ash_qcow2_header_find(&s->header, QCOW2_EXTENSION_MARK);
    bool counts = (s->header.fields.autoclear & QCOW2_AUTOCLEAR_MARK) != 0 && extension != NULL &&
                  extension->bytes == ASH_MARK_BYTES;
    return counts ? extension->data : NULL;
}

/* Version 2 has no feature bits. */
bool ash_qcow2_markable(const struct ash_node *node)
{
    const struct ash_qcow2_state *s = node->state;
    return s->header.fields.version >= 3;
}

int ash_qcow2_mark(struct ash_node *node, const uint8_t *id, struct ash_error *error)
{
    struct ash_qcow2_state *s = qcow2_state(node);
    if (id == NULL) {
        return ash_qcow2_header_clear_autoclear(node, 0);
    }
    /* The bit goes before the extension changes, and comes back after it: it must not vouch for an
     * older one. */
    int ret = ash_qcow2_header_clear_autoclear(node, 0);
    if (ret < 0) {
        return ash_error_errno(error, ret, "'%s' cannot be marked", node->filename);
    }
    ash_qcow2_header_remove(&s->header, QCOW2_EXTENSION_MARK);
    ash_qcow2_header_add(&s->header, QCOW2_EXTENSION_MARK, id, ASH_MARK_BYTES);
    ret = ash_qcow2_header_rewrite(node, error);
    if (ret < 0) {
        ash_qcow2_header_remove(&s->header, QCOW2_EXTENSION_MARK);
        return ret;
    }
    ret = ash_qcow2_header_set_autoclear(node, QCOW2_AUTOCLEAR_MARK);
    return ret < 0 ? ash_error_errno(error, ret, "'%s' cannot be marked", node->filename) : 0;
}
