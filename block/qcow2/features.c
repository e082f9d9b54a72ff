/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The features of qcow2 images: their names, and what this code does about each.
 *
 * 1. An incompatible feature that is not known is refused by the name that the image's own table
 * gives it, else by its number.
 * 2. A feature that is known and not supported is refused for writing when reading does not depend
 * on it, and altogether otherwise: no write of ours invalidates what it does not understand. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/qcow2/qcow2.h"

enum { INCOMPATIBLE = 0, COMPATIBLE = 1, AUTOCLEAR = 2 };

static const struct qcow2_feature_name known_names[] = {
    {INCOMPATIBLE, 0, "dirty bit"},
    {INCOMPATIBLE, 1, "corrupt bit"},
    {INCOMPATIBLE, 2, "external data file"},
    {INCOMPATIBLE, 3, "compression type"},
    {INCOMPATIBLE, 4, "extended L2 entries"},
    {COMPATIBLE, 0, "lazy refcounts"},
    {AUTOCLEAR, 0, "bitmaps"},
    {AUTOCLEAR, 1, "raw external data"},
};

void ash_qcow2_header_name_features(struct ash_qcow2_header *header)
{
    ash_qcow2_header_remove(header, QCOW2_EXTENSION_FEATURES);
    ash_qcow2_header_add(header, QCOW2_EXTENSION_FEATURES, known_names, sizeof(known_names));
}

/* The image's own name of a feature, made printable. */
static bool name_of(const struct ash_qcow2_header *header, uint8_t type, uint8_t bit,
                    char name[static 47])
{
    const struct qcow2_extension *table = ash_qcow2_header_find(header, QCOW2_EXTENSION_FEATURES);
    for (uint32_t at = 0; table && table->bytes - at >= sizeof(struct qcow2_feature_name);
         at += sizeof(struct qcow2_feature_name)) {
        struct qcow2_feature_name entry;
        memcpy(&entry, table->data + at, sizeof(entry));
        if (entry.type != type || entry.bit != bit || entry.name[0] == '\0') {
            continue;
        }
        memcpy(name, entry.name, sizeof(entry.name));
        name[46] = '\0';
        for (char *c = name; *c; c++) {
            if (!g_ascii_isprint(*c)) {
                *c = '?';
            }
        }
        return true;
    }
    return false;
}

static int refuse_unknown(const struct ash_qcow2_header *header, uint64_t unknown,
                          const char *label, struct ash_error *error)
{
    GString *names = g_string_new(NULL);
    for (uint8_t bit = 0; bit < 64; bit++) {
        char name[47];
        if (!(unknown >> bit & 1)) {
            continue;
        }
        g_string_append(names, names->len ? ", " : "");
        if (name_of(header, INCOMPATIBLE, bit, name)) {
            g_string_append(names, name);
        } else {
            g_string_append_printf(names, "incompatible feature %u", bit);
        }
    }
    int ret =
        ash_error_set(error, -ENOTSUP, "%s: unsupported qcow2 feature(s): %s", label, names->str);
    g_string_free(names, TRUE);
    return ret;
}

static int check_compression(const struct qcow2_fields *f, const char *label,
                             struct ash_error *error)
{
    bool bit = f->incompatible & QCOW2_INCOMPATIBLE_COMPRESSION;
    if (f->compression > QCOW2_COMPRESSION_ZSTD) {
        return ash_error_set(error, -ENOTSUP, "%s: compression type %u is not supported", label,
                             f->compression);
    }
    if (bit != (f->compression != QCOW2_COMPRESSION_ZLIB)) {
        return ash_error_set(
            error, -EINVAL,
            "%s: compression type %u and the feature bit for it contradict each other", label,
            f->compression);
    }
    return 0;
}

static int check_readable(const struct ash_qcow2_header *header, const char *label,
                          struct ash_error *error)
{
    const struct qcow2_fields *f = &header->fields;
    uint64_t known = QCOW2_INCOMPATIBLE_DIRTY | QCOW2_INCOMPATIBLE_CORRUPT |
                     QCOW2_INCOMPATIBLE_DATA_FILE | QCOW2_INCOMPATIBLE_COMPRESSION |
                     QCOW2_INCOMPATIBLE_EXTENDED_L2;
    if (f->incompatible & ~known) {
        return refuse_unknown(header, f->incompatible & ~known, label, error);
    }
    if (f->incompatible & QCOW2_INCOMPATIBLE_EXTENDED_L2) {
        return ash_error_set(error, -ENOTSUP, "%s: extended L2 entries are not supported yet",
                             label);
    }
    if (f->incompatible & QCOW2_INCOMPATIBLE_DATA_FILE) {
        return ash_error_set(error, -ENOTSUP, "%s: an external data file is not supported yet",
                             label);
    }
    if (f->crypt_method != 0) {
        return ash_error_set(error, f->crypt_method > 2 ? -EINVAL : -ENOTSUP,
                             "%s: encryption (method %" PRIu32 ") is not supported yet", label,
                             f->crypt_method);
    }
    return check_compression(f, label, error);
}

int ash_qcow2_features_check(const struct ash_qcow2_header *header, bool writable,
                             const char *label, struct ash_error *error)
{
    const struct qcow2_fields *f = &header->fields;
    int ret = check_readable(header, label, error);
    if (ret < 0 || !writable) {
        return ret;
    }
    if (f->snapshots > 0) {
        return ash_error_set(error, -ENOTSUP,
                             "%s: it has %" PRIu32
                             " internal snapshot(s); writing to such images is "
                             "not supported yet",
                             label, f->snapshots);
    }
    if ((f->autoclear & QCOW2_AUTOCLEAR_BITMAPS) ||
        ash_qcow2_header_find(header, QCOW2_EXTENSION_BITMAPS)) {
        return ash_error_set(
            error, -ENOTSUP,
            "%s: it has persistent bitmaps; writing to such images is not supported "
            "yet",
            label);
    }
    return 0;
}
