/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* New qcow2 images.
 *
 *   header | refcount table | refcount blocks | L1 table [| L2 tables | data]
 *
 * in whole clusters from the beginning of the file; the last two with preallocation. The header is
 * written last, after a flush: what was begun and not ended is not an image. */
#include "block/qcow2/create.h"
#include <errno.h>
#include <glib.h>
#include <inttypes.h>
#include <string.h>
#include "util/range.h"

static const char *const compat_names[] = {"0.10", "1.1", "v2", "v3", NULL};
static const char *const compression_names[] = {"zlib", "zstd", NULL};

const struct ash_option ash_qcow2_create_options[] = {
    ASH_OPTION_STRING("backing_file", struct ash_qcow2_create_options, backing_file,
                      .help = "File name of a base image"),
    ASH_OPTION_STRING("backing_fmt", struct ash_qcow2_create_options, backing_format,
                      .help = "Image format of the base image"),
    ASH_OPTION_SIZE("cluster_size", struct ash_qcow2_create_options, cluster_bytes, .def = 65536,
                    .help = "qcow2 cluster size"),
    ASH_OPTION_ENUM("compat", struct ash_qcow2_create_options, compat, compat_names,
                    .def = QCOW2_COMPAT_1_1, .help = "Compatibility level (v2 [0.10] or v3 [1.1])"),
    ASH_OPTION_ENUM("compression_type", struct ash_qcow2_create_options, compression,
                    compression_names,
                    .help = "Compression method used for image cluster compression"),
    ASH_OPTION_STRING("data_file", struct ash_qcow2_create_options, data_file,
                      .help = "File name of an external data file"),
    ASH_OPTION_BOOL("data_file_raw", struct ash_qcow2_create_options, data_file_raw,
                    .help = "The external data file must stay valid as a raw image"),
    ASH_OPTION_STRING("encrypt.cipher-alg", struct ash_qcow2_create_options, encrypt_more[0],
                      .help = "Name of encryption cipher algorithm"),
    ASH_OPTION_STRING("encrypt.cipher-mode", struct ash_qcow2_create_options, encrypt_more[1],
                      .help = "Name of encryption cipher mode"),
    ASH_OPTION_STRING("encrypt.hash-alg", struct ash_qcow2_create_options, encrypt_more[2],
                      .help = "Name of encryption hash algorithm"),
    ASH_OPTION_STRING("encrypt.ivgen-alg", struct ash_qcow2_create_options, encrypt_more[3],
                      .help = "Name of IV generator algorithm"),
    ASH_OPTION_STRING("encrypt.ivgen-hash-alg", struct ash_qcow2_create_options, encrypt_more[4],
                      .help = "Name of IV generator hash algorithm"),
    ASH_OPTION_STRING("encrypt.key-secret", struct ash_qcow2_create_options, encrypt_more[5],
                      .help = "ID of secret providing qcow AES key or LUKS passphrase"),
    ASH_OPTION_UINT("encrypt.iter-time", struct ash_qcow2_create_options, encrypt_iter_time,
                    .help = "Time to spend in PBKDF in milliseconds"),
    ASH_OPTION_STRING("encrypt.format", struct ash_qcow2_create_options, encrypt_format,
                      .help = "Encrypt the image, format choices: 'aes', 'luks'"),
    ASH_OPTION_BOOL("encryption", struct ash_qcow2_create_options, encryption,
                    .help = "Encrypt the image with format 'aes'. (Deprecated in favor of "
                            "encrypt.format=aes)"),
    ASH_OPTION_BOOL("extended_l2", struct ash_qcow2_create_options, extended_l2,
                    .help = "Extended L2 tables"),
    ASH_OPTION_BOOL("lazy_refcounts", struct ash_qcow2_create_options, lazy_refcounts,
                    .help = "Postpone refcount updates"),
    ASH_OPTION_ENUM("preallocation", struct ash_qcow2_create_options, preallocation,
                    ash_prealloc_names,
                    .help = "Preallocation mode (allowed values: off, metadata, falloc, full)"),
    ASH_OPTION_UINT("refcount_bits", struct ash_qcow2_create_options, refcount_bits, .def = 16,
                    .help = "Width of a reference count entry in bits"),
    ASH_OPTION_END,
};

/* --- options ------------------------------------------------------------------------------------
 */

static int refuse_later_features(const struct ash_qcow2_create_options *o, struct ash_error *error)
{
    if (o->encryption || o->encrypt_format) {
        return ash_error_set(error, -ENOTSUP, "encryption of qcow2 images is not supported yet");
    }
    if (o->data_file || o->data_file_raw) {
        return ash_error_set(error, -ENOTSUP,
                             "qcow2 images with an external data file are not supported yet");
    }
    if (o->extended_l2) {
        return ash_error_set(error, -ENOTSUP,
                             "qcow2 images with extended L2 entries are not supported yet");
    }
    return 0;
}

#define EXTENDED_L2_CLUSTER_BYTES_MIN 16384u

static int check_options(const struct ash_qcow2_create_options *o, struct ash_error *error)
{
    bool old = o->compat == QCOW2_COMPAT_0_10 || o->compat == QCOW2_COMPAT_V2;
    if (!ash_is_power_of_2(o->cluster_bytes) || o->cluster_bytes < 512 ||
        o->cluster_bytes > 2 * MiB) {
        return ash_error_set(error, -EINVAL,
                             "Cluster size must be a power of two between 512 and 2048k");
    }
    if (!ash_is_power_of_2(o->refcount_bits) || o->refcount_bits > 64) {
        return ash_error_set(error, -EINVAL,
                             "Refcount width must be a power of two and may not exceed 64 bits");
    }
    if (old && o->refcount_bits != 16) {
        return ash_error_set(
            error, -EINVAL,
            "Different refcount widths than 16 bits require compatibility level 1.1 "
            "or above (use version=v3 or greater)");
    }
    if (old && o->lazy_refcounts) {
        return ash_error_set(error, -EINVAL,
                             "Lazy refcounts only supported with compatibility level 1.1 and above "
                             "(use version=v3 or greater)");
    }
    if (old && o->compression != QCOW2_COMPRESSION_ZLIB) {
        return ash_error_set(error, -EINVAL,
                             "Non-zlib compression type is only supported with compatibility level "
                             "1.1 and above (use version=v3 or greater)");
    }
    if (o->backing_format && !o->backing_file) {
        return ash_error_set(error, -EINVAL, "Backing format cannot be used without backing file");
    }
    if (o->backing_file && o->preallocation != ASH_PREALLOC_OFF) {
        return ash_error_set(error, -EINVAL,
                             "Backing file and preallocation can only be used at the same time if "
                             "extended_l2 is enabled");
    }
    return 0;
}

int ash_qcow2_check_create_options(const struct ash_qcow2_create_options *options,
                                   struct ash_error *error)
{
    if (options->extended_l2 && options->cluster_bytes < EXTENDED_L2_CLUSTER_BYTES_MIN) {
        return ash_error_set(error, -EINVAL,
                             "Extended L2 entries are only supported with cluster sizes of at "
                             "least %u bytes",
                             EXTENDED_L2_CLUSTER_BYTES_MIN);
    }
    return check_options(options, error);
}

int ash_qcow2_create_header(const struct ash_qcow2_create_options *options, uint64_t bytes,
                            struct ash_qcow2_header *header, struct ash_error *error)
{
    struct qcow2_fields *f = &header->fields;
    ash_qcow2_header_init(header);
    int ret = ash_qcow2_check_create_options(options, error);
    if (ret == 0) {
        ret = refuse_later_features(options, error);
    }
    if (ret < 0) {
        return ret;
    }
    bool old = options->compat == QCOW2_COMPAT_0_10 || options->compat == QCOW2_COMPAT_V2;
    f->magic = QCOW2_MAGIC;
    f->version = old ? 2 : 3;
    f->cluster_bits = ash_log2(options->cluster_bytes);
    f->refcount_order = ash_log2(options->refcount_bits);
    if (bytes > INT64_MAX - 2 * MiB) {
        return ash_error_set(error, -EFBIG, "an image of %" PRIu64 " bytes is too large", bytes);
    }
    f->disk_bytes = ash_align_up(bytes, 512);
    f->compression = options->compression;
    f->incompatible = options->compression ? QCOW2_INCOMPATIBLE_COMPRESSION : 0;
    f->compatible = options->lazy_refcounts ? QCOW2_COMPATIBLE_LAZY_REFCOUNTS : 0;
    if (ash_qcow2_header_set_backing(header, options->backing_file, options->backing_format) < 0) {
        return ash_error_set(
            error, -EINVAL,
            "the name of the backing file or of its format is too long (limits: %d "
            "and %d bytes)",
            QCOW2_BACKING_BYTES_MAX, QCOW2_BACKING_FORMAT_BYTES_MAX);
    }
    return 0;
}

/* --- layout --- */

int ash_qcow2_layout(uint32_t cluster_bits, uint32_t refcount_order, uint32_t l2_entry_bytes,
                     uint64_t bytes, uint64_t data_clusters, bool with_l2,
                     struct qcow2_layout *layout)
{
    uint64_t cluster_bytes = UINT64_C(1) << cluster_bits;
    uint64_t table_bytes = cluster_bytes / l2_entry_bytes * cluster_bytes;
    uint64_t counts_per_block = UINT64_C(1) << (cluster_bits + 3 - refcount_order);
    memset(layout, 0, sizeof(*layout));
    layout->l1_entries = ash_div_round_up(bytes, table_bytes);
    if (layout->l1_entries > QCOW2_L1_BYTES_MAX / 8) {
        return -EFBIG;
    }
    layout->l1_clusters = ash_div_round_up(layout->l1_entries * 8, cluster_bytes);
    layout->l2_tables = with_l2 ? layout->l1_entries : 0;
    uint64_t fixed = 1 + layout->l1_clusters + layout->l2_tables + data_clusters;
    uint64_t before;
    layout->refblocks = layout->reftable_clusters = 1;
    do {
        before = layout->refblocks + layout->reftable_clusters;
        layout->total_clusters = fixed + before;
        layout->refblocks = ash_div_round_up(layout->total_clusters, counts_per_block);
        layout->reftable_clusters = ash_div_round_up(layout->refblocks * 8, cluster_bytes);
    } while (layout->refblocks + layout->reftable_clusters != before);
    if (layout->reftable_clusters << cluster_bits > QCOW2_REFTABLE_BYTES_MAX ||
        layout->total_clusters > QCOW2_HOST_OFFSET_MAX >> cluster_bits) {
        return -EFBIG;
    }
    return 0;
}

/* --- writing --- */

struct maker {
    struct ash_edge *file;
    struct ash_qcow2_header *header;
    struct qcow2_layout layout;
    uint64_t reftable; /* first clusters */
    uint64_t refblocks;
    uint64_t l1;
    uint64_t l2;
    uint64_t data;
    uint64_t data_clusters; /* that L2 tables lead to */
    uint32_t cluster_bits;
    bool sparse; /* what is not written reads as zeroes */
    uint8_t *cluster;
};

static void place_parts(struct maker *m)
{
    const struct qcow2_layout *l = &m->layout;
    m->reftable = 1;
    m->refblocks = m->reftable + l->reftable_clusters;
    m->l1 = m->refblocks + l->refblocks;
    m->l2 = m->l1 + l->l1_clusters;
    m->data = m->l2 + l->l2_tables;
    struct qcow2_fields *f = &m->header->fields;
    f->reftable_offset = m->reftable << m->cluster_bits;
    f->reftable_clusters = l->reftable_clusters;
    f->l1_entries = l->l1_entries;
    f->l1_offset = l->l1_entries ? m->l1 << m->cluster_bits : 0;
}

/* Fills m->cluster with what belongs at this cluster of the metadata; not the header. */
static void fill_cluster(struct maker *m, uint64_t at)
{
    uint64_t *entries = (uint64_t *)m->cluster;
    uint64_t per_table = UINT64_C(1) << (m->cluster_bits - 3);
    memset(m->cluster, 0, UINT64_C(1) << m->cluster_bits);
    if (at < m->refblocks) {
        uint64_t first = (at - m->reftable) * per_table;
        for (uint64_t i = 0; i < per_table && first + i < m->layout.refblocks; i++) {
            entries[i] = htobe64((m->refblocks + first + i) << m->cluster_bits);
        }
    } else if (at < m->l1) {
        uint32_t order = m->header->fields.refcount_order;
        uint32_t bits = m->cluster_bits + 3 - order;
        uint64_t first = (at - m->refblocks) << bits;
        for (uint64_t i = 0; i < UINT64_C(1) << bits && first + i < m->layout.total_clusters; i++) {
            ash_qcow2_refcount_write(m->cluster, order, i, 1);
        }
    } else if (at < m->l2) {
        uint64_t first = (at - m->l1) * per_table;
        for (uint64_t i = 0; i < per_table && first + i < m->layout.l2_tables; i++) {
            entries[i] = htobe64((m->l2 + first + i) << m->cluster_bits | QCOW2_ENTRY_COPIED);
        }
    } else {
        uint64_t first = (at - m->l2) * per_table;
        for (uint64_t i = 0; i < per_table && first + i < m->data_clusters; i++) {
            entries[i] = htobe64((m->data + first + i) << m->cluster_bits | QCOW2_ENTRY_COPIED);
        }
    }
}

/* Writes m->cluster; its zero end only where the file might hold something else. */
ASH_CO_FN static int write_cluster(struct maker *m, uint64_t at)
{
    uint64_t bytes = UINT64_C(1) << m->cluster_bits;
    while (m->sparse && bytes > 0 && m->cluster[bytes - 1] == 0) {
        bytes--;
    }
    bytes = ASH_MIN(ash_align_up(bytes, 4096), UINT64_C(1) << m->cluster_bits);
    return bytes ? ash_edge_write(m->file, at << m->cluster_bits, m->cluster, bytes, 0) : 0;
}

ASH_CO_FN static int write_parts(struct maker *m)
{
    int ret = 0;
    for (uint64_t at = 1; ret == 0 && at < m->data; at++) {
        fill_cluster(m, at);
        ret = write_cluster(m, at);
    }
    if (ret == 0) {
        ret = ash_edge_flush(m->file);
    }
    if (ret == 0) {
        ret = ash_qcow2_header_serialise(m->header, m->cluster, UINT64_C(1) << m->cluster_bits);
    }
    if (ret == 0) {
        ret = write_cluster(m, 0);
    }
    return ret == 0 ? ash_edge_flush(m->file) : ret;
}

/* Makes the file as long as it has to be, empty first where that can be. */
ASH_CO_FN static int size_file(struct maker *m, enum ash_prealloc prealloc, struct ash_error *error)
{
    uint64_t metadata_bytes = m->data << m->cluster_bits;
    uint64_t bytes = m->layout.total_clusters << m->cluster_bits;
    if (!m->sparse) {
        if (m->file->child->size_bytes < bytes) {
            return ash_error_set(error, -ENOSPC,
                                 "'%s' has %" PRIu64 " bytes; the image needs %" PRIu64,
                                 m->file->child->filename, m->file->child->size_bytes, bytes);
        }
        return 0;
    }
    int ret = ash_edge_resize(m->file, 0, ASH_RESIZE_SHRINK, ASH_PREALLOC_OFF, error);
    if (ret == 0) {
        ret = ash_edge_resize(m->file, metadata_bytes, 0, ASH_PREALLOC_OFF, error);
    }
    if (ret == 0 && bytes > metadata_bytes) {
        if (prealloc == ASH_PREALLOC_METADATA) {
            prealloc = ASH_PREALLOC_OFF;
        }
        ret = ash_edge_resize(m->file, bytes, 0, prealloc, error);
    }
    return ret;
}

/* The feature table is left out where a small cluster has no room for it. */
static int fit_header(struct maker *m, struct ash_error *error)
{
    uint64_t bytes = UINT64_C(1) << m->cluster_bits;
    int ret = -ENOSPC;
    if (m->header->fields.version >= 3) {
        ash_qcow2_header_name_features(m->header);
        ret = ash_qcow2_header_serialise(m->header, m->cluster, bytes);
        if (ret < 0) {
            ash_qcow2_header_remove(m->header, QCOW2_EXTENSION_FEATURES);
        }
    }
    if (ret < 0) {
        ret = ash_qcow2_header_serialise(m->header, m->cluster, bytes);
    }
    return ret < 0 ? ash_error_set(error, -EINVAL,
                                   "the backing file's name does not fit into a header of %" PRIu64
                                   " bytes",
                                   bytes)
                   : 0;
}

ASH_CO_FN static int make(struct maker *m, const struct ash_qcow2_create_options *options,
                          struct ash_error *error)
{
    uint64_t bytes = m->header->fields.disk_bytes;
    bool whole = options->preallocation != ASH_PREALLOC_OFF;
    m->cluster_bits = m->header->fields.cluster_bits;
    m->data_clusters = whole ? ash_div_round_up(bytes, UINT64_C(1) << m->cluster_bits) : 0;
    m->sparse = m->file->child->flags & ASH_NODE_GROWS;
    int ret = ash_qcow2_layout(m->cluster_bits, m->header->fields.refcount_order, 8, bytes,
                               m->data_clusters, whole, &m->layout);
    if (ret < 0) {
        return ash_error_set(
            error, ret,
            "The image size is too large for file format 'qcow2' (try using a larger "
            "cluster size)");
    }
    m->cluster = ash_buffer_alloc(m->file->child->loop, UINT64_C(1) << m->cluster_bits, 4096);
    if (!m->cluster) {
        return ash_error_set(error, -ENOMEM, "no memory for a cluster");
    }
    place_parts(m);
    ret = fit_header(m, error);
    if (ret == 0) {
        ret = size_file(m, options->preallocation, error);
    }
    if (ret == 0) {
        ret = write_parts(m);
        if (ret < 0) {
            ash_error_errno(error, ret, "Could not write the metadata of '%s'",
                            m->file->child->filename);
        }
    }
    ash_buffer_free(m->file->child->loop, m->cluster, UINT64_C(1) << m->cluster_bits);
    return ret;
}

int ash_qcow2_create(struct ash_edge *file, uint64_t bytes, const void *options,
                     struct ash_error *error)
{
    struct ash_qcow2_header header;
    struct maker maker = {.file = file, .header = &header};
    int ret = ash_qcow2_create_header(options, bytes, &header, error);
    if (ret == 0) {
        ret = make(&maker, options, error);
    }
    ash_qcow2_header_clear(&header);
    return ret;
}
