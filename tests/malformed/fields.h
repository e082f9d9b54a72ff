/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Valid qcow2 images with everything in them, the fields in their bytes, and values of each field
 * that hurt. tests/interop/craft.py and tests/interop/malformed have the same fields and values, in
 * images that QEMU made. */
#ifndef ASH_TESTS_MALFORMED_FIELDS_H
#define ASH_TESTS_MALFORMED_FIELDS_H

#include <glib.h>
#include "tests/fuzz/layout.h"
#include "tests/fuzz/made.h"

#define IMAGE_NAME "damaged.qcow2"

struct base {
    const struct made_image *made;
    uint8_t *bytes;
    size_t count;
    uint8_t backing[MADE_BASE_BYTES];
    struct layout layout;
    uint64_t coded_offset; /* of the first compressed cluster's data */
    GArray *metadata;      /* uint64_t: where clusters of metadata begin */
    GPtrArray *fields;     /* struct field */
};

enum field_kind {
    FIELD_NUMBER, /* of the header, an extension, or a refcount */
    FIELD_ENTRY,  /* of the L1 or the refcount table */
    FIELD_L2,
    FIELD_NAME,
    FIELD_CONTENT,
};

struct field {
    char *name;
    uint64_t offset;
    uint32_t bytes;
    enum field_kind kind;
    GPtrArray *values; /* GBytes, in order, each once: what is put at the offset, big-endian */
};

/* Names of bases, ending with NULL. */
extern const char *const base_names[];

/* NULL: none is called so. */
struct base *base_new(const char *name);
void base_free(struct base *base);
const struct field *base_field(const struct base *base, const char *name);

#endif
