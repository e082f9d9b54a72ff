/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The inside of the qcow2 driver. Module functions by noun; each .c file opens with what it keeps.
 *
 * Words: an *entry* is 64 bits of an L1, L2 or refcount table, in host byte order unless it is said
 * to be as on disk. A *place* is a host cluster. Cluster numbers are host offsets >> cluster_bits.
 */
#ifndef ASH_BLOCK_QCOW2_QCOW2_H
#define ASH_BLOCK_QCOW2_QCOW2_H

#include <assert.h>
#include <endian.h>
#include "block/driver.h"
#include "block/map/map.h"
#include "block/map/table_cache.h"
#include "util/loop/loop.h"

/* --- on disk ------------------------------------------------------------------------------------
 */

#define QCOW2_MAGIC UINT32_C(0x514649fb)
#define QCOW2_HEADER_V2_BYTES 72
#define QCOW2_HEADER_V3_BYTES 104 /* the least */
#define QCOW2_HEADER_BYTES 112    /* what this code knows */

/* All fields big-endian on disk; struct ash_qcow2_header holds one in host order. */
struct qcow2_fields {
    uint32_t magic;
    uint32_t version;
    uint64_t backing_offset;
    uint32_t backing_bytes;
    uint32_t cluster_bits;
    uint64_t disk_bytes;
    uint32_t crypt_method;
    uint32_t l1_entries;
    uint64_t l1_offset;
    uint64_t reftable_offset;
    uint32_t reftable_clusters;
    uint32_t snapshots;
    uint64_t snapshots_offset;
    /* Version 3. */
    uint64_t incompatible;
    uint64_t compatible;
    uint64_t autoclear;
    uint32_t refcount_order;
    uint32_t header_bytes;
    uint8_t compression;
    uint8_t padding[7];
};
static_assert(sizeof(struct qcow2_fields) == QCOW2_HEADER_BYTES, "on-disk header");
static_assert(offsetof(struct qcow2_fields, snapshots_offset) == 64, "on-disk header");
static_assert(offsetof(struct qcow2_fields, header_bytes) == 100, "on-disk header");

struct qcow2_extension_head {
    uint32_t type;
    uint32_t bytes; /* of the data; padded to a multiple of 8 */
};
static_assert(sizeof(struct qcow2_extension_head) == 8, "on-disk header extension");

struct qcow2_feature_name {
    uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
    uint8_t bit;
    char name[46]; /* padded with zeroes, not terminated */
};
static_assert(sizeof(struct qcow2_feature_name) == 48, "on-disk feature name");

#define QCOW2_EXTENSION_END UINT32_C(0)
#define QCOW2_EXTENSION_BACKING_FORMAT UINT32_C(0xe2792aca)
#define QCOW2_EXTENSION_FEATURES UINT32_C(0x6803f857)
#define QCOW2_EXTENSION_BITMAPS UINT32_C(0x23852875)
#define QCOW2_EXTENSION_CRYPT UINT32_C(0x0537be77)
#define QCOW2_EXTENSION_DATA_FILE UINT32_C(0x44415441)
#define QCOW2_EXTENSION_MARK UINT32_C(0x4153484d) /* our own: mark.c */

#define QCOW2_INCOMPATIBLE_DIRTY (UINT64_C(1) << 0)
#define QCOW2_INCOMPATIBLE_CORRUPT (UINT64_C(1) << 1)
#define QCOW2_INCOMPATIBLE_DATA_FILE (UINT64_C(1) << 2)
#define QCOW2_INCOMPATIBLE_COMPRESSION (UINT64_C(1) << 3)
#define QCOW2_INCOMPATIBLE_EXTENDED_L2 (UINT64_C(1) << 4)
#define QCOW2_COMPATIBLE_LAZY_REFCOUNTS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)
#define QCOW2_AUTOCLEAR_RAW_DATA_FILE (UINT64_C(1) << 1)
#define QCOW2_AUTOCLEAR_MARK (UINT64_C(1) << 63) /* our own: mark.c */

enum qcow2_compression {
    QCOW2_COMPRESSION_ZLIB = 0, /* raw deflate, window of 4 KiB */
    QCOW2_COMPRESSION_ZSTD = 1,
};

#define QCOW2_ENTRY_COPIED (UINT64_C(1) << 63)          /* L1, L2: the refcount is exactly one */
#define QCOW2_ENTRY_COMPRESSED (UINT64_C(1) << 62)      /* L2 */
#define QCOW2_ENTRY_ZERO (UINT64_C(1) << 0)             /* L2, version 3 */
#define QCOW2_ENTRY_OFFSET UINT64_C(0x00fffffffffffe00) /* L1, L2 */
#define QCOW2_REFTABLE_OFFSET UINT64_C(0xfffffffffffffe00)

/* Limits; what is beyond is refused. */
#define QCOW2_CLUSTER_BITS_MIN 9
#define QCOW2_CLUSTER_BITS_MAX 21
#define QCOW2_L1_BYTES_MAX (32 * MiB)
#define QCOW2_REFTABLE_BYTES_MAX (8 * MiB)
#define QCOW2_BACKING_BYTES_MAX 1023
#define QCOW2_BACKING_FORMAT_BYTES_MAX 63
#define QCOW2_EXTENSIONS_MAX 64
#define QCOW2_HOST_OFFSET_MAX (UINT64_C(1) << 56)
#define QCOW2_SLICE_BYTES 4096 /* of L2 tables, where nothing else is said; of refcount blocks */
#define QCOW2_RUN_BYTES_MAX (16 * MiB) /* of one allocation */

/* --- the header ---------------------------------------------------------------------------------
 */

struct qcow2_extension {
    struct ash_list link;
    uint32_t type;
    uint32_t bytes;
    uint8_t *data;
};

/* A parsed header. `fields` in host byte order; version 2 headers have the version 3 fields filled
 * as if (refcount_order 4, header_bytes 72). */
struct ash_qcow2_header {
    struct qcow2_fields fields;
    uint8_t *unknown; /* fields beyond QCOW2_HEADER_BYTES, kept */
    uint32_t unknown_bytes;
    struct ash_list extensions; /* of struct qcow2_extension, in their order, all kinds */
    char *backing_file;         /* or NULL */
    char *backing_format;       /* or NULL */
    uint32_t list_end;          /* where the list of extensions ends */
    uint32_t used_bytes;        /* of the header cluster: end of extensions and strings */
};

/* As many of the fields as the header has, in disk order. */
void ash_qcow2_fields_to_disk(const struct qcow2_fields *fields, uint8_t *bytes);

void ash_qcow2_header_init(struct ash_qcow2_header *header);
void ash_qcow2_header_clear(struct ash_qcow2_header *header);

/* The cluster size that the first bytes claim; 0 if they are not a qcow2 header that can be read.
 */
uint32_t ash_qcow2_header_cluster_bytes(const uint8_t *bytes, size_t count);

/* Parses the header cluster (or as much of it as the file has, `count` bytes) and checks every
 * field for itself; nothing is looked up in the file. `file_bytes`: for bounds. `label` begins
 * messages. */
int ash_qcow2_header_parse(struct ash_qcow2_header *header, const uint8_t *bytes, size_t count,
                           const char *label, struct ash_error *error);

/* Fills a cluster: fields, extensions, strings; sets backing_offset, backing_bytes, header_bytes
 * and used_bytes. -ENOSPC if it does not fit. The rest of `bytes` is zeroed. */
int ash_qcow2_header_serialise(struct ash_qcow2_header *header, uint8_t *bytes, size_t count);

/* The same over what `bytes` holds, which stays where the header has nothing, and with the backing
 * string at `string_at`; 0: after the extensions. -ENOSPC. */
int ash_qcow2_header_lay_out(struct ash_qcow2_header *header, uint8_t *bytes, size_t count,
                             size_t string_at);

/* Puts the known feature names into the header, in place of what is there. Version 3. */
void ash_qcow2_header_name_features(struct ash_qcow2_header *header);

/* Sets the backing strings, and the extension of the format. -EINVAL: too long. */
int ash_qcow2_header_set_backing(struct ash_qcow2_header *header, const char *file,
                                 const char *format);

struct qcow2_extension *ash_qcow2_header_find(const struct ash_qcow2_header *header, uint32_t type);
void ash_qcow2_header_add(struct ash_qcow2_header *header, uint32_t type, const void *data,
                          uint32_t bytes);
void ash_qcow2_header_remove(struct ash_qcow2_header *header, uint32_t type);

/* Refuses what cannot be opened at all, or not for writing, naming the feature. */
int ash_qcow2_features_check(const struct ash_qcow2_header *header, bool writable,
                             const char *label, struct ash_error *error);

/* --- flat tables: L1 and the refcount table ------------------------------------------------------
 */

/* In memory as a whole, in host byte order. What changed is written in chunks of 4 KiB. */
struct qcow2_table {
    uint64_t *entries;
    uint64_t count;
    uint64_t allocated; /* entries that the memory has room for */
    uint64_t offset;    /* in the file */
    uint8_t *dirty;     /* a byte for each chunk */
    uint32_t dirty_chunks;
    bool moved;          /* `offset` is new: the header does not name it yet */
    uint64_t old_offset; /* moved: to be given back */
    uint64_t old_bytes;
};
#define QCOW2_CHUNK_ENTRIES 512

int ash_qcow2_table_alloc(struct qcow2_table *table, uint64_t count, uint64_t offset);
void ash_qcow2_table_clear(struct qcow2_table *table);
/* More entries, zero, in memory. -ENOMEM. */
int ash_qcow2_table_extend(struct qcow2_table *table, uint64_t count);
void ash_qcow2_table_set(struct qcow2_table *table, uint64_t index, uint64_t entry);
void ash_qcow2_table_dirty_all(struct qcow2_table *table);
ASH_CO_FN int ash_qcow2_table_load(struct ash_node *node, struct qcow2_table *table);

/* A copy of the chunks that changed, for write-back. Collecting does not yield. */
struct qcow2_table_batch {
    struct qcow2_table *table;
    uint64_t offset; /* of the table, and its length, when it was collected */
    uint64_t bytes;
    bool moved;
    GArray *chunks; /* of uint64_t: indices of chunks */
    uint64_t *copy; /* as on disk */
};
int ash_qcow2_table_collect(struct qcow2_table_batch *batch, struct qcow2_table *table);
ASH_CO_FN int ash_qcow2_table_write(struct ash_node *node, struct qcow2_table_batch *batch);
void ash_qcow2_table_end(struct qcow2_table_batch *batch, bool good);

/* --- which clusters hold metadata --- */

enum qcow2_kind {
    QCOW2_KIND_NONE,
    QCOW2_KIND_HEADER,
    QCOW2_KIND_L1,
    QCOW2_KIND_L2,
    QCOW2_KIND_REFTABLE,
    QCOW2_KIND_REFBLOCK,
};

/* A set of clusters; 8 to 16 bytes each. */
struct qcow2_metadata {
    uint64_t *slots; /* cluster << 3 | kind; 0: empty; UINT64_MAX: removed */
    uint64_t slot_count;
    uint64_t used; /* slots that are not empty */
    uint64_t count;
};
/* false: it is in the set already, or there is no memory. */
bool ash_qcow2_metadata_add(struct qcow2_metadata *set, uint64_t cluster, enum qcow2_kind kind);
bool ash_qcow2_metadata_add_range(struct qcow2_metadata *set, uint64_t cluster, uint64_t count,
                                  enum qcow2_kind kind);
void ash_qcow2_metadata_remove(struct qcow2_metadata *set, uint64_t cluster, uint64_t count);
enum qcow2_kind ash_qcow2_metadata_kind(const struct qcow2_metadata *set, uint64_t cluster);
void ash_qcow2_metadata_clear(struct qcow2_metadata *set);

/* --- freed places --- */

/* Whether the space goes back to the host: options.c. */
enum qcow2_pass {
    QCOW2_PASS_NOT,     /* others may use the cluster */
    QCOW2_PASS_REQUEST, /* a guest asked for it */
    QCOW2_PASS_OTHER,
};

/* A run of clusters that one reference each was dropped of. */
struct qcow2_drop {
    uint64_t cluster;
    uint64_t count;
    enum qcow2_pass pass;
};

/* --- the state --- */

/* Clusters that were taken and whose refcounts may still be 0: not free. On a stack. */
struct qcow2_pending {
    struct ash_list link;
    uint64_t cluster;
    uint64_t count;
};

/* Which clusters are free; see alloc.c. */
struct qcow2_alloc {
    uint64_t end;             /* first cluster that was never handed out */
    uint64_t window;          /* first cluster that `bits` stand for */
    uint64_t scanned;         /* bits are exact for [window, scanned) */
    uint64_t *bits;           /* set: free; QCOW2_WINDOW_CLUSTERS of them */
    uint64_t free_count;      /* bits set */
    uint64_t cursor;          /* next-fit: look from here on */
    bool elsewhere;           /* something outside [window, scanned) may be free */
    uint64_t freed_elsewhere; /* how often that was learnt */
    bool scanning;
    struct ash_list pending; /* of struct qcow2_pending */
    uint64_t zero_from;      /* host offset from which fresh clusters read as zeroes; UINT64_MAX */
    uint64_t size_at_open;   /* of the file */
    bool grown;              /* the file was made longer than needed, in this session */
    bool growing;
    bool growth_failed;
};
#define QCOW2_WINDOW_CLUSTERS (UINT64_C(1) << 20)

/* Options as they were given. */
struct qcow2_given {
    int lazy;
    int pass_request;
    int pass_snapshot; /* nothing is deleted */
    int pass_other;
    json_t *overlap;
    uint64_t cache_bytes; /* this and the next three: UINT64_MAX where not given */
    uint64_t l2_cache_bytes;
    uint64_t refcount_cache_bytes;
    uint64_t l2_entry_bytes;
    uint64_t clean_interval_s;
    uint64_t grow_ahead_max; /* bytes */
};

/* What follows from them and from the header. */
struct qcow2_settings {
    bool lazy;
    uint32_t slice_bytes;
    uint32_t overlap;        /* 1 << enum qcow2_kind: what nothing else may be written over */
    uint64_t l2_cache_bytes; /* UINT64_MAX: within the loop's budget */
    uint64_t refcount_cache_bytes;
    uint64_t clean_interval_ns; /* 0: never */
};

/* What reopening will change. */
struct qcow2_change {
    struct qcow2_given given;
    struct qcow2_settings set;
};

struct ash_qcow2_state {
    struct qcow2_given given; /* first: the driver's options are read into the state */
    struct qcow2_settings set;
    struct qcow2_change *change; /* between reopen_options and commit or abort */
    struct ash_timer clean_timer;

    struct ash_node *node;
    struct ash_qcow2_header header;
    uint8_t sector[512]; /* the header's first sector as on disk */
    uint32_t cluster_bits;
    uint32_t cluster_bytes;
    uint32_t l2_bits;    /* log2 of entries in an L2 table */
    uint32_t slice_bits; /* log2 of entries in a slice */
    uint32_t slice_bytes;
    uint32_t refcount_order;
    uint32_t refblock_bits; /* log2 of refcounts in a block */
    uint32_t refslice_bits; /* log2 of refcounts in a slice */
    uint32_t refslice_bytes;
    uint64_t refcount_max;
    uint32_t csize_shift; /* of compressed entries */
    uint64_t csize_mask;
    uint64_t coffset_mask;

    struct qcow2_table l1;
    struct qcow2_table reftable; /* only if refcounts_known */
    bool refcounts_known;        /* who only reads does not need them; a chain may have a thousand layers */
    struct ash_table_cache l2_cache;
    struct ash_table_cache refcount_cache;

    struct ash_qcow2_coders *coders; /* compress.c */

    /* Only while the node is open for writing. */
    bool writing;
    bool corrupt;  /* found since it was opened: no more metadata is written */
    bool reported; /* damage was logged once */
    struct qcow2_metadata metadata;
    struct qcow2_alloc alloc;
    struct ash_co_mutex l2_lock;       /* one new or copied L2 table at a time */
    struct ash_co_mutex refcount_lock; /* one new refcount block or table at a time */
    struct ash_co_mutex header_lock;   /* one header write at a time */
    struct ash_co_mutex coded_lock;
    uint64_t coded_offset; /* where the next compressed cluster goes; 0: a new cluster */

    /* Write-back. */
    uint64_t batches_started;
    uint64_t batches_ended;
    bool batch_running;
    bool batch_in_background; /* one was asked for */
    bool l1_writing;          /* by the running batch */
    int batch_result;         /* of the last one */
    int flush_error;          /* sticky */
    struct ash_co_queue batch_waiters;
    uint64_t dirty_soft; /* bytes of slices: above it a batch runs in the background */
    uint64_t dirty_hard; /* the same: above it allocation waits for the batch */

    /* Drops, by how far they have come. */
    GArray *drops_new;    /* of struct qcow2_drop: since the last batch was collected */
    GArray *drops_batch;  /* what the running batch writes */
    GArray *drops_stable; /* stable: wait for being worked on */
    GArray *drops_pinned; /* stable, but I/O in flight uses them */
    bool reclaiming;
    struct ash_co_queue reclaim_waiters; /* for it to end */

    uint32_t background; /* coroutines of our own */
    bool closing;        /* background ones end */
    struct ash_co_queue background_waiters;
};

static inline struct ash_qcow2_state *qcow2_state(const struct ash_node *node)
{
    return node->state;
}

static inline uint64_t qcow2_cluster_of(const struct ash_qcow2_state *s, uint64_t host_offset)
{
    return host_offset >> s->cluster_bits;
}

static inline uint64_t qcow2_clusters(const struct ash_qcow2_state *s, uint64_t bytes)
{
    return (bytes >> s->cluster_bits) + ((bytes & (s->cluster_bytes - 1)) != 0);
}

static inline uint64_t qcow2_l1_index(const struct ash_qcow2_state *s, uint64_t guest_offset)
{
    return guest_offset >> (s->cluster_bits + s->l2_bits);
}

/* Whether what is not allocated comes from somewhere else. */
static inline bool qcow2_has_backing(const struct ash_node *node)
{
    return node->backing || node->backing_file;
}

/* --- options --- */

extern const struct ash_option ash_qcow2_options[];
/* -EINVAL; does not change anything. */
int ash_qcow2_settle_options(const struct ash_qcow2_header *header, const struct qcow2_given *given,
                             struct qcow2_settings *set, struct ash_error *error);
bool ash_qcow2_passes_on(const struct ash_node *node, enum qcow2_pass pass);
/* Has tables that nobody uses leave memory from time to time, if that was asked for. */
void ash_qcow2_clean_start(struct ash_node *node);
void ash_qcow2_clean_stop(struct ash_node *node);
/* Of struct ash_driver; s->change stays until one of the next two is called. */
int ash_qcow2_reopen_options(struct ash_node *node, const json_t *options, uint32_t flags,
                             struct ash_error *error);
void ash_qcow2_change_drop(struct ash_node *node);
/* Nothing is dirty. */
void ash_qcow2_change_apply(struct ash_node *node);
/* open.c: empties the caches and makes them as the settings say. Nothing is dirty. */
void ash_qcow2_caches_renew(struct ash_node *node);

/* Whether a cluster of this kind is protected from what is no such thing. */
static inline bool qcow2_protects(const struct ash_qcow2_state *s, enum qcow2_kind kind)
{
    return (s->set.overlap >> kind & 1) != 0;
}

/* --- L2 entries --- */

enum qcow2_entry_kind {
    QCOW2_UNALLOCATED,
    QCOW2_ZERO_PLAIN,
    QCOW2_ZERO_PLACED, /* preallocated */
    QCOW2_DATA,
    QCOW2_COMPRESSED,
};

static inline enum qcow2_entry_kind qcow2_entry_kind(const struct ash_qcow2_state *s,
                                                     uint64_t entry)
{
    if (entry & QCOW2_ENTRY_COMPRESSED) {
        return QCOW2_COMPRESSED;
    }
    if ((entry & QCOW2_ENTRY_ZERO) && s->header.fields.version >= 3) {
        return (entry & QCOW2_ENTRY_OFFSET) ? QCOW2_ZERO_PLACED : QCOW2_ZERO_PLAIN;
    }
    return (entry & QCOW2_ENTRY_OFFSET) ? QCOW2_DATA : QCOW2_UNALLOCATED;
}

/* A compressed entry's first byte and the upper bound of its length. */
static inline uint64_t qcow2_coded_offset(const struct ash_qcow2_state *s, uint64_t entry)
{
    return entry & s->coffset_mask;
}

static inline uint32_t qcow2_coded_bytes(const struct ash_qcow2_state *s, uint64_t entry)
{
    uint64_t sectors = ((entry >> s->csize_shift) & s->csize_mask) + 1;
    return sectors * 512 - (qcow2_coded_offset(s, entry) & 511);
}

/* Whether an entry can be right: aligned, within limits, not upon metadata. */
bool ash_qcow2_entry_valid(const struct ash_qcow2_state *s, uint64_t entry);

/* The slice that holds the entry of a guest offset; *slice NULL: there is no table. `index`: of the
 * entry in it. Loads it. -EIO: the L1 entry or table is bad. */
ASH_CO_FN int ash_qcow2_l2_get(struct ash_node *node, uint64_t guest_offset,
                               struct ash_table_slice **slice, uint32_t *index);
/* The same without yielding: -EAGAIN if it would have to load. */
int ash_qcow2_l2_peek(struct ash_node *node, uint64_t guest_offset, struct ash_table_slice **slice,
                      uint32_t *index);
/* For changing it: makes the table, or copies one that is shared. */
ASH_CO_FN int ash_qcow2_l2_get_writable(struct ash_node *node, uint64_t guest_offset,
                                        struct ash_table_slice **slice, uint32_t *index);

static inline uint64_t qcow2_slice_entry(const struct ash_table_slice *slice, uint32_t index)
{
    return be64toh(((const uint64_t *)slice->data)[index]);
}

/* Changes an entry and marks the slice dirty. Does not yield. */
void ash_qcow2_l2_set(struct ash_table_slice *slice, uint32_t index, uint64_t entry);

/* Room for more L1 entries, QCOW2_L1_BYTES_MAX at most: a longer L1 table in a new place, switched by
 * the header. */
ASH_CO_FN int ash_qcow2_l1_grow(struct ash_node *node, uint64_t entries, struct ash_error *error);

/* --- refcounts --- */

/* Pure: one refcount in a block or slice of them, as on disk. */
uint64_t ash_qcow2_refcount_read(const void *block, uint32_t order, uint64_t index);
void ash_qcow2_refcount_write(void *block, uint32_t order, uint64_t index, uint64_t value);

ASH_CO_FN int ash_qcow2_refcount_get(struct ash_node *node, uint64_t cluster, uint64_t *value);
/* Whether each of `count` clusters has one reference, as far as can be read. */
ASH_CO_FN bool ash_qcow2_refcount_is_one(struct ash_node *node, uint64_t cluster, uint64_t count);
/* In memory; makes the block if there is none. -EINVAL: does not fit the width. */
ASH_CO_FN int ash_qcow2_refcount_set(struct ash_node *node, uint64_t cluster, uint64_t value);
/* Adds one to, or takes one from, each of `count` clusters. Taking from 0 is -EIO and marks the
 * image corrupt; -ERANGE: the width is exhausted. What was done before a failure is undone.
 * Clusters that fall to 0 are not handed out by this: see ash_qcow2_alloc_free(). */
ASH_CO_FN int ash_qcow2_refcount_raise(struct ash_node *node, uint64_t cluster, uint64_t count);
ASH_CO_FN int ash_qcow2_refcount_lower(struct ash_node *node, uint64_t cluster, uint64_t count,
                                       void (*zero)(struct ash_node *node, uint64_t cluster));
/* The last cluster whose refcount is not zero, plus one. */
ASH_CO_FN int ash_qcow2_refcount_end(struct ash_node *node, uint64_t *cluster);
/* The slice of refcounts that holds this cluster's; *slice NULL: there is no block, all are 0. */
ASH_CO_FN int ash_qcow2_refcount_slice(struct ash_node *node, uint64_t cluster,
                                       struct ash_table_slice **slice);
static inline bool qcow2_refblock_exists(const struct ash_qcow2_state *s, uint64_t cluster)
{
    uint64_t index = cluster >> s->refblock_bits;
    return index < s->reftable.count && (s->reftable.entries[index] & QCOW2_REFTABLE_OFFSET);
}
/* Makes the block that counts this cluster, unless there is one. */
ASH_CO_FN int ash_qcow2_refblock_ensure(struct ash_node *node, uint64_t cluster);

/* --- allocation --- */

/* At most `*count` clusters in one run, with refcount 1, in memory. reads_zero may be NULL. */
ASH_CO_FN int ash_qcow2_alloc(struct ash_node *node, uint64_t *count, uint64_t *cluster,
                              bool *reads_zero);
/* Exactly `count` clusters in one run, for tables that lie contiguous; of this kind from now on. */
ASH_CO_FN int ash_qcow2_alloc_table(struct ash_node *node, uint64_t count, enum qcow2_kind kind,
                                    uint64_t *cluster);
/* A cluster whose refcount fell to zero may be handed out again. Does not yield. */
void ash_qcow2_alloc_free(struct ash_node *node, uint64_t cluster);
ASH_CO_FN int ash_qcow2_alloc_open(struct ash_node *node, struct ash_error *error);
/* Cuts off what was grown ahead. */
ASH_CO_FN int ash_qcow2_alloc_trim(struct ash_node *node);

/* One reference to these clusters is dropped, in memory. They are given back when that is stable
 * and nothing uses them. Does not yield. */
void ash_qcow2_drop(struct ash_node *node, uint64_t cluster, uint64_t count, enum qcow2_pass pass);
/* Likewise what an L2 entry refers to. */
void ash_qcow2_drop_entry(struct ash_node *node, uint64_t entry, enum qcow2_pass pass);
/* Was never linked: as above, without waiting for a batch. */
void ash_qcow2_drop_unlinked(struct ash_node *node, uint64_t cluster, uint64_t count);
/* Starts giving back in the background if there is something to. Does not yield. */
void ash_qcow2_reclaim(struct ash_node *node);
/* Gives back what can be, and waits for it. */
ASH_CO_FN void ash_qcow2_reclaim_now(struct ash_node *node);
/* The map's callback: a pin that was waited for may be gone. */
void ash_qcow2_unpinned(struct ash_node *node);

/* --- write-back
 * ---------------------------------------------------------------------------------------------------
 */

/* All that is dirty now is stable when it returns. The map's flush. */
ASH_CO_FN int ash_qcow2_flush(struct ash_node *node);
/* Called when something became dirty: starts a batch in the background when there is much. Does not
 * yield. */
void ash_qcow2_writeback_kick(struct ash_node *node);
/* Waits while far too much is dirty. */
ASH_CO_FN int ash_qcow2_writeback_throttle(struct ash_node *node);
/* Before the first change of metadata: the dirty bit of lazy refcounts. */
ASH_CO_FN int ash_qcow2_before_update(struct ash_node *node);

/* Spawns a coroutine that close waits for. fn is called with the node. -EAGAIN, -ENOMEM. */
int ash_qcow2_background(struct ash_node *node, void (*fn)(struct ash_node *node));

/* --- the header on disk --- */

/* The header's first sector is written by one write between two flushes; on failure the fields in
 * memory are as before. One at a time, and each changes the fields as they are by then: a table may
 * move, or the length change, while the call waits. */

/* Sets and clears bits of the incompatible features. */
ASH_CO_FN int ash_qcow2_header_flag(struct ash_node *node, uint64_t set, uint64_t clear);
/* All autoclear features but those of `keep`. */
ASH_CO_FN int ash_qcow2_header_clear_autoclear(struct ash_node *node, uint64_t keep);
ASH_CO_FN int ash_qcow2_header_set_autoclear(struct ash_node *node, uint64_t features);
/* The length of the disk. */
ASH_CO_FN int ash_qcow2_header_set_length(struct ash_node *node, uint64_t bytes);
/* Leads the header to where these tables are now. */
ASH_CO_FN int ash_qcow2_header_switch_l1(struct ash_node *node, uint64_t offset, uint64_t entries);
ASH_CO_FN int ash_qcow2_header_switch_reftable(struct ash_node *node, uint64_t offset,
                                               uint64_t clusters);
/* Logs the sentence, and while open for writing sets the corrupt bit and stops writing metadata.
 * -EIO. */
ASH_CO_FN int ash_qcow2_corrupt(struct ash_node *node, const char *format, ...) ASH_PRINTF(2, 3);
/* Writes these fields over the header's first sector as s->sector has it, and flushes. Under
 * header_lock, after a flush. */
ASH_CO_FN int ash_qcow2_header_write_sector(struct ash_node *node,
                                            const struct qcow2_fields *fields);

/* rewrite.c: brings the header on disk, with its extensions and strings, to what s->header holds. On
 * failure the fields are those on disk. */
ASH_CO_FN int ash_qcow2_header_rewrite(struct ash_node *node, struct ash_error *error);

/* mark.c: of struct ash_driver. */
ASH_CO_FN int ash_qcow2_mark(struct ash_node *node, const uint8_t *id, struct ash_error *error);
const uint8_t *ash_qcow2_marked(const struct ash_node *node);
bool ash_qcow2_markable(const struct ash_node *node);

/* Reads from the file; zeroes beyond its end. */
ASH_CO_FN int ash_qcow2_read(struct ash_node *node, uint64_t offset, void *buffer, uint64_t bytes);
/* Writes metadata of a kind after the overlap check. */
ASH_CO_FN int ash_qcow2_write(struct ash_node *node, enum qcow2_kind kind, uint64_t offset,
                              const void *buffer, uint64_t bytes);

/* The caches' overlap checks. */
ASH_CO_FN int ash_qcow2_before_write_l2(struct ash_table_cache *cache, uint64_t offset,
                                        uint64_t bytes);
ASH_CO_FN int ash_qcow2_before_write_refblock(struct ash_table_cache *cache, uint64_t offset,
                                              uint64_t bytes);

/* --- the driver's callbacks, by file --- */

extern const struct ash_map_ops ash_qcow2_map_ops;
struct ash_qcow2_create_options; /* create.h */

ASH_CO_FN int ash_qcow2_open(struct ash_node *node, struct ash_error *error);
ASH_CO_FN int ash_qcow2_close(struct ash_node *node);
/* What opening for writing does beyond opening, and its reverse: for reopen. */
/* Loads the refcount table if it is not there. */
ASH_CO_FN int ash_qcow2_know_refcounts(struct ash_node *node, struct ash_error *error);
ASH_CO_FN int ash_qcow2_begin_writing(struct ash_node *node, struct ash_error *error);
ASH_CO_FN int ash_qcow2_end_writing(struct ash_node *node);
/* The two halves of end_writing. finish: writes all there is; afterwards nothing may be changed
 * until either go_on, which makes it as if it had not been called, or stop, which cannot fail. */
ASH_CO_FN int ash_qcow2_finish_writing(struct ash_node *node);
void ash_qcow2_go_on_writing(struct ash_node *node);
ASH_CO_FN void ash_qcow2_stop_writing(struct ash_node *node);
/* Writes all that is dirty, gives back all that was dropped and is not pinned, and writes that. */
ASH_CO_FN int ash_qcow2_settle(struct ash_node *node);
ASH_CO_FN int ash_qcow2_create(struct ash_edge *file, uint64_t bytes, const void *options,
                               struct ash_error *error);
ASH_CO_FN int ash_qcow2_set_backing(struct ash_node *node, const char *file, const char *format,
                                    struct ash_error *error);
ASH_CO_FN int ash_qcow2_zero(struct ash_node *node, uint64_t offset, uint64_t bytes,
                             uint32_t flags);
ASH_CO_FN int ash_qcow2_empty(struct ash_node *node, uint64_t offset, uint64_t bytes);
ASH_CO_FN int ash_qcow2_discard(struct ash_node *node, uint64_t offset, uint64_t bytes);
/* Lets all clusters in the range go that lies beyond a new end of the disk. */
ASH_CO_FN int ash_qcow2_cut_off(struct ash_node *node, uint64_t offset, uint64_t bytes);
ASH_CO_FN int ash_qcow2_prepare_coded(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                      uint32_t coded_bytes, struct ash_placement *placement);

/* compress.c */
struct ash_qcow2_coders *ash_qcow2_coders_new(uint8_t compression);
void ash_qcow2_coders_free(struct ash_qcow2_coders *coders);
int ash_qcow2_encode(const struct ash_node *node, const void *in, size_t in_bytes, void *out,
                     size_t out_bytes);
int ash_qcow2_decode(const struct ash_node *node, const struct ash_extent *extent, const void *in,
                     size_t in_bytes, void *out, size_t out_bytes);
/* check.c. Opening a dirty image for writing rebuilds its refcounts with fix set. */
ASH_CO_FN int ash_qcow2_check(struct ash_node *node, struct ash_check *check,
                              struct ash_error *error);
/* resize.c */
ASH_CO_FN int ash_qcow2_resize(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                               struct ash_error *error);
/* measure.c */
int ash_qcow2_measure(uint64_t bytes, const void *create_options,
                      uint64_t (*allocated)(void *opaque, uint64_t unit_bytes), void *opaque,
                      struct ash_measure *measure, struct ash_error *error);
/* info.c */
ASH_CO_FN json_t *ash_qcow2_info(struct ash_node *node);

#endif
