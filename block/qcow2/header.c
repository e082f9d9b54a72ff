/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The qcow2 header cluster: parsing, checking, and putting it together again.
 *
 * 1. Byte order is converted here and nowhere else (fields_from_disk, ash_qcow2_fields_to_disk).
 * 2. Every field is checked for itself before anything follows it; the number of extensions and the
 *    length of every string have a stated bound, and nothing is read beyond the cluster.
 * 3. Extensions and header fields that are not known are kept, in their order, byte for byte. */
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "block/qcow2/qcow2.h"

void ash_qcow2_header_init(struct ash_qcow2_header *header)
{
    memset(header, 0, sizeof(*header));
    ash_list_init(&header->extensions);
}

static void extension_free(struct qcow2_extension *extension)
{
    ash_list_remove(&extension->link);
    g_free(extension->data);
    g_free(extension);
}

void ash_qcow2_header_clear(struct ash_qcow2_header *header)
{
    ash_list_for_each_safe (extension, &header->extensions, struct qcow2_extension, link) {
        extension_free(extension);
    }
    g_free(header->unknown);
    g_free(header->backing_file);
    g_free(header->backing_format);
    ash_qcow2_header_init(header);
}

struct qcow2_extension *ash_qcow2_header_find(const struct ash_qcow2_header *header, uint32_t type)
{
    ash_list_for_each (extension, &header->extensions, struct qcow2_extension, link) {
        if (extension->type == type) {
            return extension;
        }
    }
    return NULL;
}

void ash_qcow2_header_add(struct ash_qcow2_header *header, uint32_t type, const void *data,
                          uint32_t bytes)
{
    struct qcow2_extension *extension = g_new0(struct qcow2_extension, 1);
    extension->type = type;
    extension->bytes = bytes;
    extension->data = g_malloc(bytes ? bytes : 1);
    memcpy(extension->data, data, bytes);
    ash_list_push_back(&header->extensions, &extension->link);
}

void ash_qcow2_header_remove(struct ash_qcow2_header *header, uint32_t type)
{
    struct qcow2_extension *extension;
    while ((extension = ash_qcow2_header_find(header, type))) {
        extension_free(extension);
    }
}

static void fields_from_disk(struct qcow2_fields *to, const uint8_t *bytes, size_t count)
{
    struct qcow2_fields from;
    memset(&from, 0, sizeof(from));
    memcpy(&from, bytes, ASH_MIN(count, sizeof(from)));
    *to = (struct qcow2_fields){
        .magic = be32toh(from.magic),
        .version = be32toh(from.version),
        .backing_offset = be64toh(from.backing_offset),
        .backing_bytes = be32toh(from.backing_bytes),
        .cluster_bits = be32toh(from.cluster_bits),
        .disk_bytes = be64toh(from.disk_bytes),
        .crypt_method = be32toh(from.crypt_method),
        .l1_entries = be32toh(from.l1_entries),
        .l1_offset = be64toh(from.l1_offset),
        .reftable_offset = be64toh(from.reftable_offset),
        .reftable_clusters = be32toh(from.reftable_clusters),
        .snapshots = be32toh(from.snapshots),
        .snapshots_offset = be64toh(from.snapshots_offset),
        .incompatible = be64toh(from.incompatible),
        .compatible = be64toh(from.compatible),
        .autoclear = be64toh(from.autoclear),
        .refcount_order = be32toh(from.refcount_order),
        .header_bytes = be32toh(from.header_bytes),
        .compression = from.compression,
    };
    memcpy(to->padding, from.padding, sizeof(to->padding));
}

void ash_qcow2_fields_to_disk(const struct qcow2_fields *from, uint8_t *bytes)
{
    struct qcow2_fields to = {
        .magic = htobe32(from->magic),
        .version = htobe32(from->version),
        .backing_offset = htobe64(from->backing_offset),
        .backing_bytes = htobe32(from->backing_bytes),
        .cluster_bits = htobe32(from->cluster_bits),
        .disk_bytes = htobe64(from->disk_bytes),
        .crypt_method = htobe32(from->crypt_method),
        .l1_entries = htobe32(from->l1_entries),
        .l1_offset = htobe64(from->l1_offset),
        .reftable_offset = htobe64(from->reftable_offset),
        .reftable_clusters = htobe32(from->reftable_clusters),
        .snapshots = htobe32(from->snapshots),
        .snapshots_offset = htobe64(from->snapshots_offset),
        .incompatible = htobe64(from->incompatible),
        .compatible = htobe64(from->compatible),
        .autoclear = htobe64(from->autoclear),
        .refcount_order = htobe32(from->refcount_order),
        .header_bytes = htobe32(from->header_bytes),
        .compression = from->compression,
    };
    memcpy(to.padding, from->padding, sizeof(to.padding));
    uint32_t known = from->version == 2 ? QCOW2_HEADER_V2_BYTES : from->header_bytes;
    memcpy(bytes, &to, ASH_MIN(known, sizeof(to)));
}

uint32_t ash_qcow2_header_cluster_bytes(const uint8_t *bytes, size_t count)
{
    struct qcow2_fields fields;
    if (count < QCOW2_HEADER_V2_BYTES) {
        return 0;
    }
    fields_from_disk(&fields, bytes, QCOW2_HEADER_V2_BYTES);
    if (fields.magic != QCOW2_MAGIC || fields.cluster_bits < QCOW2_CLUSTER_BITS_MIN ||
        fields.cluster_bits > QCOW2_CLUSTER_BITS_MAX) {
        return 0;
    }
    return UINT32_C(1) << fields.cluster_bits;
}

/* --- checks -------------------------------------------------------------------------------------
 */

static int check_version(struct ash_qcow2_header *header, size_t count, const char *label,
                         struct ash_error *error)
{
    struct qcow2_fields *f = &header->fields;
    if (count < QCOW2_HEADER_V2_BYTES || f->magic != QCOW2_MAGIC) {
        return ash_error_set(error, -EINVAL, "%s: not in qcow2 format", label);
    }
    if (f->version != 2 && f->version != 3) {
        return ash_error_set(error, -ENOTSUP, "%s: qcow2 version %" PRIu32 " is not supported",
                             label, f->version);
    }
    if (f->cluster_bits < QCOW2_CLUSTER_BITS_MIN || f->cluster_bits > QCOW2_CLUSTER_BITS_MAX) {
        return ash_error_set(error, -EINVAL,
                             "%s: cluster size of 2^%" PRIu32 " bytes is outside 2^9 to 2^21",
                             label, f->cluster_bits);
    }
    if (f->version == 2) {
        f->incompatible = f->compatible = f->autoclear = 0;
        f->refcount_order = 4;
        f->header_bytes = QCOW2_HEADER_V2_BYTES;
        f->compression = QCOW2_COMPRESSION_ZLIB;
        memset(f->padding, 0, sizeof(f->padding));
        return 0;
    }
    if (f->header_bytes < QCOW2_HEADER_V3_BYTES || f->header_bytes > count ||
        f->header_bytes % 8 != 0) {
        return ash_error_set(error, -EINVAL, "%s: header length %" PRIu32 " is invalid", label,
                             f->header_bytes);
    }
    if (f->header_bytes < QCOW2_HEADER_BYTES) {
        f->compression = QCOW2_COMPRESSION_ZLIB;
        memset(f->padding, 0, sizeof(f->padding));
    }
    if (f->refcount_order > 6) {
        return ash_error_set(error, -EINVAL,
                             "%s: reference counts of 2^%" PRIu32 " bits are wider than 64", label,
                             f->refcount_order);
    }
    return 0;
}

/* An aligned range of the file, not upon the header and below the limit of offsets. */
static int check_range(const struct qcow2_fields *f, const char *what, uint64_t offset,
                       uint64_t bytes, const char *label, struct ash_error *error)
{
    uint64_t cluster_bytes = UINT64_C(1) << f->cluster_bits;
    if (offset & (cluster_bytes - 1) || offset < cluster_bytes || offset >= QCOW2_HOST_OFFSET_MAX ||
        bytes > QCOW2_HOST_OFFSET_MAX - offset) {
        return ash_error_set(error, -EINVAL, "%s: %s at offset 0x%" PRIx64 " is invalid", label,
                             what, offset);
    }
    return 0;
}

static int check_l1(const struct qcow2_fields *f, const char *label, struct ash_error *error)
{
    uint64_t table_bytes = UINT64_C(1) << (2 * f->cluster_bits - 3);
    uint64_t needed = f->disk_bytes / table_bytes + (f->disk_bytes % table_bytes != 0);
    if (f->disk_bytes > INT64_MAX - (UINT64_C(1) << QCOW2_CLUSTER_BITS_MAX)) {
        return ash_error_set(error, -EFBIG, "%s: disk size %" PRIu64 " is too large", label,
                             f->disk_bytes);
    }
    if (f->l1_entries > QCOW2_L1_BYTES_MAX / 8) {
        return ash_error_set(error, -EFBIG, "%s: L1 table of %" PRIu32 " entries is too large",
                             label, f->l1_entries);
    }
    if (f->l1_entries < needed) {
        return ash_error_set(error, -EINVAL,
                             "%s: L1 table of %" PRIu32 " entries is too small for %" PRIu64
                             " bytes",
                             label, f->l1_entries, f->disk_bytes);
    }
    if (f->l1_entries == 0) {
        return 0;
    }
    return check_range(f, "L1 table", f->l1_offset, (uint64_t)f->l1_entries * 8, label, error);
}

static int check_tables(const struct qcow2_fields *f, const char *label, struct ash_error *error)
{
    int ret = check_l1(f, label, error);
    if (ret < 0) {
        return ret;
    }
    uint64_t reftable_bytes = (uint64_t)f->reftable_clusters << f->cluster_bits;
    if (reftable_bytes > QCOW2_REFTABLE_BYTES_MAX) {
        return ash_error_set(error, -EFBIG,
                             "%s: reference count table of %" PRIu32 " clusters is too large",
                             label, f->reftable_clusters);
    }
    if (f->reftable_clusters > 0) {
        ret = check_range(f, "reference count table", f->reftable_offset, reftable_bytes, label,
                          error);
        if (ret < 0) {
            return ret;
        }
    }
    uint64_t l1_bytes = (uint64_t)f->l1_entries * 8;
    if (l1_bytes && reftable_bytes && f->l1_offset < f->reftable_offset + reftable_bytes &&
        f->reftable_offset < f->l1_offset + l1_bytes) {
        return ash_error_set(error, -EINVAL,
                             "%s: the L1 table at 0x%" PRIx64 " and the reference count table at "
                             "0x%" PRIx64 " overlap",
                             label, f->l1_offset, f->reftable_offset);
    }
    if (f->snapshots > 65536) {
        return ash_error_set(error, -EFBIG, "%s: %" PRIu32 " snapshots are too many", label,
                             f->snapshots);
    }
    if (f->snapshots > 0) {
        return check_range(f, "snapshot table", f->snapshots_offset, (uint64_t)f->snapshots * 40,
                           label, error);
    }
    return 0;
}

/* --- strings and extensions --- */

static int parse_backing(struct ash_qcow2_header *header, const uint8_t *bytes, size_t count,
                         const char *label, struct ash_error *error)
{
    const struct qcow2_fields *f = &header->fields;
    if (f->backing_offset == 0) {
        return 0;
    }
    if (f->backing_offset < f->header_bytes || f->backing_offset > count ||
        f->backing_bytes > ASH_MIN(QCOW2_BACKING_BYTES_MAX, count - f->backing_offset)) {
        return ash_error_set(error, -EINVAL,
                             "%s: backing file name of %" PRIu32 " bytes at offset %" PRIu64
                             " is too long or misplaced",
                             label, f->backing_bytes, f->backing_offset);
    }
    header->backing_file = g_strndup((const char *)bytes + f->backing_offset, f->backing_bytes);
    if (header->backing_file[0] == '\0') {
        g_clear_pointer(&header->backing_file, g_free);
    }
    return 0;
}

static int keep_extension(struct ash_qcow2_header *header, uint32_t type, const uint8_t *data,
                          uint32_t bytes, const char *label, struct ash_error *error)
{
    if (type == QCOW2_EXTENSION_BACKING_FORMAT) {
        if (bytes > QCOW2_BACKING_FORMAT_BYTES_MAX || header->backing_format) {
            return ash_error_set(error, -EINVAL, "%s: the header's backing format is %s", label,
                                 header->backing_format ? "given twice" : "too long");
        }
        header->backing_format = g_strndup((const char *)data, bytes);
    }
    ash_qcow2_header_add(header, type, data, bytes);
    return 0;
}

static int parse_extensions(struct ash_qcow2_header *header, const uint8_t *bytes, size_t count,
                            const char *label, struct ash_error *error)
{
    const struct qcow2_fields *f = &header->fields;
    size_t end = f->backing_offset ? ASH_MIN(f->backing_offset, count) : count;
    size_t at = f->header_bytes;
    uint32_t found = 0;

    while (at < end && end - at >= sizeof(struct qcow2_extension_head)) {
        struct qcow2_extension_head head;
        memcpy(&head, bytes + at, sizeof(head));
        uint32_t type = be32toh(head.type);
        uint32_t length = be32toh(head.bytes);
        at += sizeof(head);
        if (type == QCOW2_EXTENSION_END) {
            break;
        }
        if (length > end - at) {
            return ash_error_set(error, -EINVAL,
                                 "%s: header extension 0x%" PRIx32 " of %" PRIu32
                                 " bytes at offset %zu is too long",
                                 label, type, length, at - sizeof(head));
        }
        if (++found > QCOW2_EXTENSIONS_MAX) {
            return ash_error_set(error, -EINVAL, "%s: more than %d header extensions", label,
                                 QCOW2_EXTENSIONS_MAX);
        }
        int ret = keep_extension(header, type, bytes + at, length, label, error);
        if (ret < 0) {
            return ret;
        }
        at += ASH_MIN((length + UINT64_C(7)) & ~UINT64_C(7), end - at);
    }
    header->list_end = at;
    header->used_bytes = at;
    if (header->backing_file) {
        header->used_bytes = ASH_MAX(at, f->backing_offset + f->backing_bytes);
    }
    return 0;
}

int ash_qcow2_header_parse(struct ash_qcow2_header *header, const uint8_t *bytes, size_t count,
                           const char *label, struct ash_error *error)
{
    ash_qcow2_header_init(header);
    fields_from_disk(&header->fields, bytes, count);
    int ret = check_version(header, count, label, error);
    if (ret < 0) {
        return ret;
    }
    const struct qcow2_fields *f = &header->fields;
    count = ASH_MIN(count, UINT64_C(1) << f->cluster_bits);
    if (f->header_bytes > count) {
        return ash_error_set(error, -EINVAL, "%s: header length %" PRIu32 " is invalid", label,
                             f->header_bytes);
    }
    ret = check_tables(f, label, error);
    if (ret < 0) {
        return ret;
    }
    if (f->header_bytes > QCOW2_HEADER_BYTES) {
        header->unknown_bytes = f->header_bytes - QCOW2_HEADER_BYTES;
        header->unknown = g_malloc(header->unknown_bytes);
        memcpy(header->unknown, bytes + QCOW2_HEADER_BYTES, header->unknown_bytes);
    }
    ret = parse_backing(header, bytes, count, label, error);
    if (ret == 0) {
        ret = parse_extensions(header, bytes, count, label, error);
    }
    if (ret < 0) {
        ash_qcow2_header_clear(header);
    }
    return ret;
}

/* --- putting it together --- */

/* Appends; false if there is no room. */
static bool put(uint8_t *bytes, size_t count, size_t *at, const void *data, size_t length)
{
    if (*at > count || length > count - *at) {
        return false;
    }
    if (length > 0) {
        memcpy(bytes + *at, data, length);
    }
    *at += length;
    return true;
}

static bool put_extensions(const struct ash_qcow2_header *header, uint8_t *bytes, size_t count,
                           size_t *at)
{
    static const uint8_t zeroes[8];
    ash_list_for_each (extension, &header->extensions, struct qcow2_extension, link) {
        struct qcow2_extension_head head = {htobe32(extension->type), htobe32(extension->bytes)};
        if (!put(bytes, count, at, &head, sizeof(head)) ||
            !put(bytes, count, at, extension->data, extension->bytes) ||
            !put(bytes, count, at, zeroes, -extension->bytes & 7)) {
            return false;
        }
    }
    struct qcow2_extension_head end = {0, 0};
    bool room = count - *at >= sizeof(end);
    if (room) {
        put(bytes, count, at, &end, sizeof(end));
    }
    /* Without the end mark, nothing but the end of the cluster ends the list. */
    return room || *at == count;
}

int ash_qcow2_header_serialise(struct ash_qcow2_header *header, uint8_t *bytes, size_t count)
{
    memset(bytes, 0, count);
    return ash_qcow2_header_lay_out(header, bytes, count, 0);
}

int ash_qcow2_header_lay_out(struct ash_qcow2_header *header, uint8_t *bytes, size_t count,
                             size_t string_at)
{
    struct qcow2_fields *f = &header->fields;
    size_t at = QCOW2_HEADER_V2_BYTES;
    f->header_bytes = QCOW2_HEADER_V2_BYTES;
    if (f->version >= 3) {
        at = QCOW2_HEADER_BYTES;
        f->header_bytes = QCOW2_HEADER_BYTES + header->unknown_bytes;
        if (!put(bytes, count, &at, header->unknown, header->unknown_bytes)) {
            return -ENOSPC;
        }
    }
    if (!put_extensions(header, bytes, count, &at)) {
        return -ENOSPC;
    }
    header->list_end = at;
    f->backing_offset = 0;
    f->backing_bytes = 0;
    if (header->backing_file) {
        if (string_at != 0 && string_at < at) {
            return -ENOSPC;
        }
        at = string_at != 0 ? string_at : at;
        f->backing_offset = at;
        f->backing_bytes = strlen(header->backing_file);
        if (!put(bytes, count, &at, header->backing_file, f->backing_bytes)) {
            return -ENOSPC;
        }
    }
    header->used_bytes = at;
    ash_qcow2_fields_to_disk(f, bytes);
    return 0;
}

int ash_qcow2_header_set_backing(struct ash_qcow2_header *header, const char *file,
                                 const char *format)
{
    if ((file && strlen(file) > QCOW2_BACKING_BYTES_MAX) ||
        (format && strlen(format) > QCOW2_BACKING_FORMAT_BYTES_MAX)) {
        return -EINVAL;
    }
    char *file_copy = file && file[0] ? g_strdup(file) : NULL;
    char *format_copy = file_copy && format && format[0] ? g_strdup(format) : NULL;
    g_free(header->backing_file);
    g_free(header->backing_format);
    header->backing_file = file_copy;
    header->backing_format = format_copy;
    ash_qcow2_header_remove(header, QCOW2_EXTENSION_BACKING_FORMAT);
    if (format_copy) {
        ash_qcow2_header_add(header, QCOW2_EXTENSION_BACKING_FORMAT, format_copy,
                             strlen(format_copy));
        struct ash_list *link = header->extensions.prev;
        ash_list_remove(link);
        ash_list_push_front(&header->extensions, link);
    }
    return 0;
}
