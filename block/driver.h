/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The driver interface. A missing callback forwards (filters), falls back to generic code, or is
 * -ENOTSUP. Callbacks run in coroutines on the owner thread unless they say otherwise. */
#ifndef ASH_BLOCK_DRIVER_H
#define ASH_BLOCK_DRIVER_H

#include <jansson.h>
#include "block/graph/node.h"
#include "block/io/io.h"
#include "util/options.h"

struct ash_extent;
struct ash_placement;

/* Named events, for the fault filter: block/io/event.h. */
enum ash_event {
    ASH_EVENT_NONE,
    /* Requests, told by the filter itself. */
    ASH_EVENT_READ_AIO,
    ASH_EVENT_WRITE_AIO,
    ASH_EVENT_PWRITEV_ZERO,
    ASH_EVENT_PWRITEV_DISCARD,
    ASH_EVENT_FLUSH_TO_DISK,
    /* qcow2. */
    ASH_EVENT_L2_LOAD,
    ASH_EVENT_L2_UPDATE,
    ASH_EVENT_REFBLOCK_LOAD,
    ASH_EVENT_REFBLOCK_UPDATE,
    ASH_EVENT_L1_UPDATE,
    ASH_EVENT_REFTABLE_UPDATE,
    ASH_EVENT_HEADER_UPDATE,
};

enum ash_driver_kind {
    ASH_DRIVER_PROTOCOL, /* a leaf that holds bytes: file, null */
    ASH_DRIVER_FORMAT,   /* has a "file" child: raw, qcow2 */
    ASH_DRIVER_FILTER,   /* has a "file" child and passes on what it does not handle */
};

enum ash_prealloc {
    ASH_PREALLOC_OFF,
    ASH_PREALLOC_METADATA,
    ASH_PREALLOC_FALLOC,
    ASH_PREALLOC_FULL,
};
extern const char *const ash_prealloc_names[]; /* "off", "metadata", "falloc", "full", NULL */

/* What `check` found, and what it was asked to repair. */
#define ASH_CHECK_FIX_LEAKS (1u << 0)
#define ASH_CHECK_FIX_ERRORS (1u << 1)
struct ash_check {
    uint32_t fix;             /* ASH_CHECK_FIX_* */
    void (*report)(struct ash_check *check, const char *sentence); /* one finding; may be NULL */
    void *opaque;             /* for report */
    uint64_t corruptions;     /* left */
    uint64_t leaks;           /* left; clusters */
    uint64_t check_errors;    /* could not be examined */
    int io_error;             /* the first, where that was for want of reading it; 0: none */
    uint64_t corruptions_fixed;
    uint64_t leaks_fixed;
    uint64_t image_end_offset;
    uint64_t total_clusters;
    uint64_t allocated_clusters;
    uint64_t fragmented_clusters;
    uint64_t compressed_clusters;
};

/* How large an image of a format would become. */
struct ash_measure {
    uint64_t required_bytes;
    uint64_t fully_allocated_bytes;
};

/* The map of a format: where is this guest range, where may it go, link it. Reading, copy-on-write,
 * zeroing, discarding and walking the chain are generic (block/map). See block/map/map.h for extents,
 * placements, locks and pins. */
struct ash_map_ops {
    /* What [offset, offset + bytes) is, from `offset` on; bytes > 0, within the node. Fills
     * extent->bytes in 1..bytes. May wait for metadata; what it returns holds until the caller
     * yields. */
    ASH_CO_PTR int (*lookup)(struct ash_node *node, uint64_t offset, uint64_t bytes,
                            struct ash_extent *extent);

    /* Finds a place for a prefix of the write [offset, offset + bytes); the caller holds the range
     * lock. Must not link it. -ENOSPC. */
    ASH_CO_PTR int (*prepare)(struct ash_node *node, uint64_t offset, uint64_t bytes,
                             struct ash_placement *placement);
    /* A place for one coded unit of `coded_bytes`. */
    ASH_CO_PTR int (*prepare_coded)(struct ash_node *node, uint64_t offset, uint64_t bytes,
                                   uint32_t coded_bytes, struct ash_placement *placement);
    /* Links the placement, after its data was written: from now on lookup finds it. Merges into the
     * entry as it is by then. On failure the caller calls abort. What it waits for, it waits for
     * before it changes the first entry: from there to its return it does not yield, because only
     * then is the range forgotten, and until then a walk may find, and pin, the old place. */
    ASH_CO_PTR int (*commit)(struct ash_node *node, struct ash_placement *placement);
    /* Gives the place back. Cannot fail. */
    ASH_CO_PTR void (*abort)(struct ash_node *node, struct ash_placement *placement);

    /* Whole allocation units (the last one of the disk may be short), under the range lock. zero: reads
     * as zeroes from now on; with ASH_REQ_UNMAP the space may be given back. discard: the format gives
     * space back and what is read afterwards is zeroes, never a backing file's old contents; where it
     * cannot say so it does nothing. -ENOTSUP: generic code writes zeroes, or nothing. NULL: passed to
     * the edge of the data extents.
     * Both may yield between entries. So each calls ash_map_forget() for a range in the turn in which
     * it changes the entry, before its old place can be handed out. */
    ASH_CO_PTR int (*zero)(struct ash_node *node, uint64_t offset, uint64_t bytes, uint32_t flags);
    ASH_CO_PTR int (*discard)(struct ash_node *node, uint64_t offset, uint64_t bytes);

    /* Whole allocation units, under the range lock: the node holds nothing of its own there from now
     * on, and what is below it shows. Calls ash_map_forget() as zero does. NULL: not possible. */
    ASH_CO_PTR int (*empty)(struct ash_node *node, uint64_t offset, uint64_t bytes);

    /* Everything acknowledged before the call is stable when it returns, data included. NULL: flushes
     * the children. */
    ASH_CO_PTR int (*flush)(struct ash_node *node);

    /* Codes and decodes one unit. On any thread, with several at once: they touch nothing of the node
     * that can change while it is open. encode returns the coded length, -E2BIG if that is not less
     * than out_bytes. decode fills out_bytes or returns -EIO. */
    int (*encode)(const struct ash_node *node, const void *in, size_t in_bytes, void *out,
                  size_t out_bytes);
    int (*decode)(const struct ash_node *node, const struct ash_extent *extent, const void *in,
                  size_t in_bytes, void *out, size_t out_bytes);

    /* Called when a pin is dropped while node->map->waiting_for_pins is set. Does not yield. */
    void (*unpinned)(struct ash_node *node);
};

struct ash_driver {
    const char *name;
    enum ash_driver_kind kind;
    size_t state_size;
    const char *prefix;                   /* of file names: "null-co://"; NULL */
    const struct ash_option *options;     /* into the state; may be NULL */
    const struct ash_option *create_options; /* into a struct of create_size bytes; may be NULL */
    size_t create_size;
    bool backing;                         /* images can have a backing file */
    bool no_medium;                       /* nothing is held: what is read is made up */
    const char *const *shaping;           /* of `options`, those without which the file's name does not
                                             tell what the node is; NULL: none */
    const char *data_child;               /* what a description calls one more child (node->data),
                                             described as "file" is; NULL: there is none */

    /* How sure the driver is that a file that begins with these bytes is its: 0 (no) to 100. */
    int (*probe)(const uint8_t *head, size_t bytes);

    /* The options are in the state, and node->file is open for formats and filters. Sets size_bytes,
     * and, from the header, backing_file and backing_format. After a failure close is not called. */
    ASH_CO_PTR int (*open)(struct ash_node *node, struct ash_error *error);
    /* All that the node stands on is open now, its backing chain included, though none of it can be
     * found by name yet. Does not yield. A failure closes the node. */
    int (*chained)(struct ash_node *node, struct ash_error *error);
    /* Filters: the node was put in the way of users, who are still paused. May fail; then it is taken
     * out again. May be NULL. */
    ASH_CO_PTR int (*inserted)(struct ash_node *node, struct ash_error *error);
    /* Writes what is not written and frees what open took. The state's memory is the caller's. */
    ASH_CO_PTR int (*close)(struct ash_node *node);

    /* Protocols: makes the file of this name. Formats: writes an empty image into `file`, an edge
     * that may be written and resized. `options`: a struct of create_size, filled by the table;
     * `bytes`: length of the disk. */
    ASH_CO_PTR int (*create_file)(struct ash_loop *loop, const char *filename, const void *options,
                                 struct ash_error *error);
    ASH_CO_PTR int (*create)(struct ash_edge *file, uint64_t bytes, const void *options,
                            struct ash_error *error);

    /* Generic code has checked rights and shrink flags, and drained the range. Sets size_bytes. What
     * appears reads as zeroes: mapped formats call ash_map_cover(). On failure the length is as it was
     * or, if only preallocation failed, the new one. */
    ASH_CO_PTR int (*resize)(struct ash_node *node, uint64_t bytes, enum ash_prealloc prealloc,
                            struct ash_error *error);
    ASH_CO_PTR int (*check)(struct ash_node *node, struct ash_check *check, struct ash_error *error);
    /* Rewrites the header's backing strings (NULL: none). */
    ASH_CO_PTR int (*set_backing)(struct ash_node *node, const char *file, const char *format,
                                 struct ash_error *error);
    /* Marks the image with 16 bytes, or, with NULL, takes the mark away; stable when it returns: see
     * block/io/mark.h. Missing: such images cannot be marked. */
    ASH_CO_PTR int (*mark)(struct ash_node *node, const uint8_t *id, struct ash_error *error);
    /* Whether this one can be. Missing: all can. */
    bool (*markable)(const struct ash_node *node);
    /* The mark that is on disk; NULL: none. */
    const uint8_t *(*marked)(const struct ash_node *node);
    /* How large an image of `bytes` would be of which `allocated_bytes` (whole units of the format's own
     * size are counted by the caller through `unit`) hold data. */
    int (*measure)(uint64_t bytes, const void *create_options,
                   uint64_t (*allocated)(void *opaque, uint64_t unit_bytes), void *opaque,
                   struct ash_measure *measure, struct ash_error *error);
    /* The format-specific information of `info --output=json`, "type" and "data"; a new reference or
     * NULL. "dirty-flag" beside them tells whether the image was not closed properly, and "bitmaps", of
     * one that can hold dirty bitmaps, whether it does; both are taken out by whoever shows it. */
    ASH_CO_PTR json_t *(*info)(struct ash_node *node);
    /* Bytes on the host that the node takes; -ENOTSUP. Missing: asks node->file. */
    ASH_CO_PTR int64_t (*allocated_bytes)(struct ash_node *node);

    void (*limits)(const struct ash_node *node, struct ash_limits *limits);

    /* Protocols: the open file of the host that holds the node's bytes at their own offsets, where the
     * kernel may copy from it and to it; NULL: not now. A node that has one takes writes whose data is
     * bytes of another (ash_iov_of_file). Missing: none. */
    struct ash_file *(*host_file)(const struct ash_node *node);

    /* Rights on a child, from the flags that the node has or is to have, the union of the parents'
     * needs, and the intersection of what they allow. Missing: the rule for the kind and role. */
    void (*rights)(const struct ash_node *node, uint32_t flags, enum ash_role role,
                   uint32_t parent_needs, uint32_t parent_allows, uint32_t *needs,
                   uint32_t *allows);
    /* Protocols: takes and lets go the locks of other processes for the rights held now (needs) and
     * denied to others (~allows). Called in a plan's prepare with the wider set of old and new, then
     * in commit with the new set, which only lets go. */
    ASH_CO_PTR int (*lock)(struct ash_node *node, uint32_t needs, uint32_t allows,
                          struct ash_error *error);

    /* Reopening with other options of the driver's own (block/graph/plan.h): called before
     * reopen_prepare, whose driver then has the other callbacks too. Looks at all of them, refuses those
     * that cannot change ("Cannot change the option 'x'"), and keeps what they say for commit; abort,
     * or a reopen_prepare that fails, drops it. Does not yield. Missing: none can. */
    int (*reopen_options)(struct ash_node *node, const json_t *options, uint32_t flags,
                          struct ash_error *error);
    /* Reopening with other flags: prepare may fail; then exactly one of commit and abort. Missing: the
     * flags are taken over as they are. */
    ASH_CO_PTR int (*reopen_prepare)(struct ash_node *node, uint32_t flags, struct ash_error *error);
    ASH_CO_PTR void (*reopen_commit)(struct ash_node *node, uint32_t flags);
    ASH_CO_PTR void (*reopen_abort)(struct ash_node *node);

    /* A parent node is about to do what the event names. Filters that listen. */
    ASH_CO_PTR void (*event)(struct ash_node *node, enum ash_event event);

    /* Protocols and filters. The request is checked, aligned, tracked and within the limits. */
    ASH_CO_PTR int (*io[ASH_OP_COUNT])(struct ash_node *node, const struct ash_io *io);

    const struct ash_map_ops *map; /* formats */
};

/* All drivers, NULL-terminated, in one visible table: a static archive must not lose them. */
extern const struct ash_driver *const ash_drivers[];

/* By name; NULL. */
const struct ash_driver *ash_driver_find(const char *name);

/* The format of a file by its first bytes (up to 2048): the surest driver; raw if none. */
const struct ash_driver *ash_driver_probe(const uint8_t *head, size_t bytes);

#endif
