/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Dirty bitmaps: which parts of a node were changed since a point in time.
 *
 * A bitmap lies on a node of a disk's graph: by its node name, or, where `node` is NULL, the disk's own
 * (the topmost that is no filter). Every write, write of zeroes, discard and growth of the node marks
 * it, a failed one too. Bitmaps have names, unique on their node, and are what incremental backups
 * and mirrors start from. They live in memory as long as the node.
 *
 * Like the calls of <ashlar/disk.h>, those below may come from any thread; each has a completion,
 * called exactly once on the owner thread's plain stack and never inside the call, and a `_sync` twin
 * that waits. Strings and options are copied. The call itself fails with -ENOMEM or -ESHUTDOWN only,
 * and then `done` is not called. The disk must stay open until the completion. */
#ifndef ASHLAR_BITMAP_H
#define ASHLAR_BITMAP_H

#include <stddef.h>
#include <stdint.h>
#include <ashlar/disk.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ASH_BITMAP_DISABLED (1u << 0) /* does not record until it is enabled */

struct ash_bitmap_options {
    uint32_t size;              /* sizeof(struct ash_bitmap_options) */
    uint32_t flags;             /* ASH_BITMAP_DISABLED */
    const char *node;           /* NULL: the disk's own */
    const char *name;           /* 1 to 1023 bytes */
    uint64_t granularity_bytes; /* a power of two from 512 to 2 GiB; 0: the node's cluster size if
                                   that is between 4 KiB and 64 KiB, otherwise 64 KiB */
};

#define ASH_BITMAP_OPTIONS_INIT {sizeof(struct ash_bitmap_options), 0, NULL, NULL, 0}

#define ASH_BITMAP_INFO_RECORDING (1u << 0)    /* changes are marked */
#define ASH_BITMAP_INFO_BUSY (1u << 1)         /* a job uses it */
#define ASH_BITMAP_INFO_PERSISTENT (1u << 2)   /* it is stored in the image */
#define ASH_BITMAP_INFO_INCONSISTENT (1u << 3) /* changes are missing; it can only be deleted */
#define ASH_BITMAP_INFO_READ_ONLY (1u << 4)

struct ash_bitmap_info {
    uint32_t size;  /* sizeof(struct ash_bitmap_info), set by the library */
    uint32_t flags; /* ASH_BITMAP_INFO_* */
    const char *name;
    uint64_t granularity_bytes;
    uint64_t dirty_bytes;
};

/* Makes a clean bitmap. Errors: -EINVAL (name or granularity), -EEXIST, -ENOENT (no such node),
 * -ENOMEM. */
int ash_disk_bitmap_create(struct ash_disk *disk, const struct ash_bitmap_options *options,
                           ash_done_fn *done, void *opaque);
int ash_disk_bitmap_create_sync(struct ash_disk *disk, const struct ash_bitmap_options *options,
                                struct ash_error *error);

/* Deletes one. Errors: -ENOENT, -EBUSY (a job uses it), -EPERM (read-only). */
int ash_disk_bitmap_delete(struct ash_disk *disk, const char *node, const char *name,
                           ash_done_fn *done, void *opaque);
int ash_disk_bitmap_delete_sync(struct ash_disk *disk, const char *node, const char *name,
                                struct ash_error *error);

/* Has it record, or not. Errors here and below: -ENOENT, -EBUSY, -EPERM (read-only), -EINVAL
 * (inconsistent). */
int ash_disk_bitmap_enable(struct ash_disk *disk, const char *node, const char *name,
                           ash_done_fn *done, void *opaque);
int ash_disk_bitmap_enable_sync(struct ash_disk *disk, const char *node, const char *name,
                                struct ash_error *error);
int ash_disk_bitmap_disable(struct ash_disk *disk, const char *node, const char *name,
                            ash_done_fn *done, void *opaque);
int ash_disk_bitmap_disable_sync(struct ash_disk *disk, const char *node, const char *name,
                                 struct ash_error *error);

/* Makes it clean. */
int ash_disk_bitmap_clear(struct ash_disk *disk, const char *node, const char *name,
                          ash_done_fn *done, void *opaque);
int ash_disk_bitmap_clear_sync(struct ash_disk *disk, const char *node, const char *name,
                               struct ash_error *error);

/* An element of an array, which has no size of its own: it keeps the one it has. */
struct ash_bitmap_source {
    const char *node; /* NULL: the disk's own */
    const char *name;
};

/* Marks in a bitmap what is marked in any of the `count` sources, which stay as they are. Granularities
 * may differ, lengths may not (-EINVAL). When it fails, nothing has changed. */
int ash_disk_bitmap_merge(struct ash_disk *disk, const char *node, const char *name,
                          const struct ash_bitmap_source *sources, uint32_t count,
                          ash_done_fn *done, void *opaque);
int ash_disk_bitmap_merge_sync(struct ash_disk *disk, const char *node, const char *name,
                               const struct ash_bitmap_source *sources, uint32_t count,
                               struct ash_error *error);

/* Is told of one bitmap; `info` lives until it returns. */
typedef void ash_bitmap_visit_fn(void *opaque, const struct ash_bitmap_info *info);

/* Tells `visit` of each named bitmap of the node, in the order in which they were made, and then
 * `done`; both get `opaque`. The _sync twin calls `visit` on the caller's thread, before it returns.
 * Errors: -ENOENT (no such node). */
int ash_disk_bitmap_list(struct ash_disk *disk, const char *node, ash_bitmap_visit_fn *visit,
                         ash_done_fn *done, void *opaque);
int ash_disk_bitmap_list_sync(struct ash_disk *disk, const char *node, ash_bitmap_visit_fn *visit,
                              void *opaque, struct ash_error *error);

/* Takes all of `data`, at most 4 KiB. 0, or a negative errno, which ends the writing and is what the
 * call then returns. It must not close the disk. */
typedef int ash_bitmap_sink_fn(void *opaque, const void *data, size_t bytes);

/* Fills all of `data`, at most 4 KiB. 0, or a negative errno. */
typedef int ash_bitmap_source_fn(void *opaque, void *data, size_t bytes);

/* Writes what the bitmap says at one instant as a stream of bytes, of a format that does not change
 * between machines; its beginning says what it is, and it knows its own end. `sink` is called before
 * `done`, on the owner thread's plain stack; by the _sync twin on the caller's thread, while requests
 * go on. Errors: also what the sink returned. */
int ash_disk_bitmap_save(struct ash_disk *disk, const char *node, const char *name,
                         ash_bitmap_sink_fn *sink, ash_done_fn *done, void *opaque);
int ash_disk_bitmap_save_sync(struct ash_disk *disk, const char *node, const char *name,
                              ash_bitmap_sink_fn *sink, void *opaque, struct ash_error *error);

/* Makes a new bitmap of a stream; `granularity_bytes` is 0, as the stream says it. The stream is not
 * trusted: -EINVAL if it is none, is damaged, or is for a disk of another length. Reads no further
 * than its end. Threads as in save. */
int ash_disk_bitmap_load(struct ash_disk *disk, const struct ash_bitmap_options *options,
                         ash_bitmap_source_fn *source, ash_done_fn *done, void *opaque);
int ash_disk_bitmap_load_sync(struct ash_disk *disk, const struct ash_bitmap_options *options,
                              ash_bitmap_source_fn *source, void *opaque, struct ash_error *error);

#ifdef __cplusplus
}
#endif
#endif
