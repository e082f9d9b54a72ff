/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The options of new qcow2 images: what create, preallocation and measure share. */
#ifndef ASH_BLOCK_QCOW2_CREATE_H
#define ASH_BLOCK_QCOW2_CREATE_H

#include "block/qcow2/qcow2.h"

struct ash_qcow2_create_options {
    int compat; /* enum qcow2_compat */
    char *backing_file;
    char *backing_format;
    uint64_t cluster_bytes;
    int preallocation; /* enum ash_prealloc */
    bool lazy_refcounts;
    uint64_t refcount_bits;
    int compression; /* enum qcow2_compression */
    /* Refused by name: later work brings them. */
    bool encryption;
    char *encrypt_format;
    char *encrypt_more[6];
    uint64_t encrypt_iter_time;
    char *data_file;
    bool data_file_raw;
    bool extended_l2;
};

enum qcow2_compat {
    QCOW2_COMPAT_0_10,
    QCOW2_COMPAT_1_1,
    QCOW2_COMPAT_V2,
    QCOW2_COMPAT_V3,
};

extern const struct ash_option ash_qcow2_create_options[];

/* Checks the options together and fills the header of an image of this size: version, clusters,
 * refcount width, features, backing strings, L1 length. Offsets are left 0. */
int ash_qcow2_create_header(const struct ash_qcow2_create_options *options, uint64_t bytes,
                            struct ash_qcow2_header *header, struct ash_error *error);

/* What is wrong with them, together; features that are to come are right. */
int ash_qcow2_check_create_options(const struct ash_qcow2_create_options *options,
                                   struct ash_error *error);

/* How many clusters an image takes with this many clusters of data and L2 tables for `bytes` (0
 * data: an empty image), and where the parts of a new one lie. l2_entry_bytes: 8, or 16 for extended
 * entries. */
struct qcow2_layout {
    uint64_t l1_entries;
    uint64_t l1_clusters;
    uint64_t l2_tables;
    uint64_t refblocks;
    uint64_t reftable_clusters;
    uint64_t total_clusters;
};
/* -EFBIG: beyond the limits. */
int ash_qcow2_layout(uint32_t cluster_bits, uint32_t refcount_order, uint32_t l2_entry_bytes,
                     uint64_t bytes, uint64_t data_clusters, bool with_l2, struct qcow2_layout *layout);

#endif
