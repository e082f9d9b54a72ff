/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What `info` says of a qcow2 image beyond what it says of any: the object and the order of its
 * keys are those that scripts know. */
#include "block/qcow2/qcow2.h"

static void set(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

json_t *ash_qcow2_info(struct ash_node *node)
{
    const struct ash_qcow2_state *s = qcow2_state(node);
    const struct qcow2_fields *f = &s->header.fields;
    bool zstd = f->compression == QCOW2_COMPRESSION_ZSTD;
    json_t *data = json_object();
    set(data, "compat", json_string(f->version >= 3 ? "1.1" : "0.10"));
    set(data, "compression-type", json_string(zstd ? "zstd" : "zlib"));
    if (f->version >= 3) {
        set(data, "lazy-refcounts",
            json_boolean((f->compatible & QCOW2_COMPATIBLE_LAZY_REFCOUNTS) != 0));
    }
    set(data, "refcount-bits", json_integer(1 << f->refcount_order));
    if (f->version >= 3) {
        set(data, "corrupt", json_boolean((f->incompatible & QCOW2_INCOMPATIBLE_CORRUPT) != 0));
        set(data, "extended-l2",
            json_boolean((f->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2) != 0));
    }
    bool dirty = (f->incompatible & QCOW2_INCOMPATIBLE_DIRTY) != 0;
    json_t *info = json_pack("{s:s, s:o, s:b}", "type", "qcow2", "data", data, "dirty-flag", dirty);
    if (f->version >= 3) {
        set(info, "bitmaps",
            json_boolean(ash_qcow2_header_find(&s->header, QCOW2_EXTENSION_BITMAPS) != NULL));
    }
    return info;
}
