/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk: a user's handle on a node of a block graph.
 *
 * A disk belongs to the loop it was opened on. Control calls may come from any thread; each has a
 * completion, called exactly once on the owner thread's plain stack and never inside the call, and a
 * `_sync` twin that waits. A `_sync` call from the owner thread of a loop that runs on the caller's
 * thread runs the loop until it is done; from inside a callback it returns -EDEADLK. From any other thread it
 * sleeps until the owner has run it, and the owner must go on running turns meanwhile; that the loop has
 * an owner (ash_loop_bind()) is asserted. */
#ifndef ASHLAR_DISK_H
#define ASHLAR_DISK_H

#include <stdint.h>
#include <ashlar/error.h>
#include <ashlar/loop.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ash_disk;

/* Open flags. */
#define ASH_DISK_WRITE (1u << 0)       /* for reading and writing; otherwise read-only */
#define ASH_DISK_NO_BACKING (1u << 1)  /* do not open the backing chain; what the image
                                          lacks reads as zeroes. For inspection only */
#define ASH_DISK_FORCE_SHARE (1u << 2) /* take no locks; only without ASH_DISK_WRITE */
#define ASH_DISK_NO_LOCK (1u << 3)     /* locking=off for files that do not say otherwise */

struct ash_disk_options {
    uint32_t size; /* sizeof(struct ash_disk_options), or -EINVAL; smaller from an older header */
    uint32_t flags; /* ASH_DISK_* */
    /* For a description that is a file name: the format's driver name, or NULL to probe. A raw
     * image that was found by probing cannot have another format's header written to sector 0. */
    const char *format;
    /* "none", "writeback", "unsafe", "directsync", "writethrough", or NULL: writeback. */
    const char *cache;
};

#define ASH_DISK_OPTIONS_INIT {sizeof(struct ash_disk_options), 0, NULL, NULL}

struct ash_disk_info {
    uint32_t size; /* sizeof(struct ash_disk_info), set by the caller */
    uint32_t flags; /* ASH_DISK_INFO_* */
    uint64_t bytes;                   /* length of the disk */
    uint32_t request_alignment_bytes; /* offsets and lengths that need no read-modify-write */
    uint32_t memory_alignment_bytes;  /* buffer addresses that need no bounce buffer */
    uint32_t optimal_bytes;           /* best size of a request; 0: no preference */
    uint32_t cluster_bytes;           /* allocation unit of the format; 0: none */
    uint64_t transfer_bytes_max;      /* longest request; the caller need not split below it */
    uint64_t discard_bytes_max;
    uint64_t zero_bytes_max;
    uint32_t discard_alignment_bytes;
    uint32_t reserved;
};

#define ASH_DISK_INFO_READ_ONLY (1u << 0)
#define ASH_DISK_INFO_DISCARD (1u << 1)     /* discards are passed down and may free space */
#define ASH_DISK_INFO_WRITE_CACHE (1u << 2) /* writes are stable only after a flush */

/* What the disk has done since it was opened, by op (index: enum ash_op in queue.h). */
struct ash_disk_stats {
    uint32_t size; /* sizeof(struct ash_disk_stats), set by the caller */
    uint32_t reserved;
    struct {
        uint64_t count;          /* completed, failed ones included */
        uint64_t bytes;          /* of those that succeeded */
        uint64_t errors;
        uint64_t latency_ns_sum; /* from submission to completion */
        uint64_t latency_ns_max;
    } op[8];
};

/* `ret` 0 and a disk, or a negative errno, no disk, and the reason; `error` lives until it returns. */
typedef void ash_disk_opened_fn(void *opaque, int ret, struct ash_disk *disk,
                                const struct ash_error *error);
typedef void ash_done_fn(void *opaque, int ret, const struct ash_error *error);

/* Opens `description`: a file name, or a JSON object as "json:{...}" that names a driver and its
 * options. Strings and options are copied. Errors arrive with `done`; the call itself fails with
 * -ENOMEM or -ESHUTDOWN only, and then `done` is not called. Any thread. */
int ash_disk_open(struct ash_loop *loop, const char *description,
                  const struct ash_disk_options *options, ash_disk_opened_fn *done, void *opaque);
int ash_disk_open_sync(struct ash_loop *loop, const char *description,
                       const struct ash_disk_options *options, struct ash_disk **disk,
                       struct ash_error *error);

/* A file that a disk needs. */
struct ash_disk_file {
    uint32_t size;        /* sizeof(struct ash_disk_file) */
    uint32_t depth;       /* of the image it belongs to: 0 is the topmost, 1 what that stands on, … */
    const char *filename; /* as the hook open_file is asked for it */
    const char *format;   /* the driver of the image */
};

/* Is told of one file; `file` lives until it returns. */
typedef void ash_disk_file_fn(void *opaque, const struct ash_disk_file *file);

/* Tells `visit` of each file that ash_disk_open() with the same arguments would open, from the top of
 * the chain down, and then `done`; both get `opaque`. For hosts that open files on behalf of a jail.
 * No chain is opened and no lock taken: each image is read by itself, read-only, to see what it names,
 * and closed again before the next. What images name may change until the disk is opened. The _sync
 * twin calls `visit` on the caller's thread, before it returns. When it fails, the files above the one
 * that could not be read were told. Errors: those of opening an image; -ELOOP. Any thread. */
int ash_disk_files(struct ash_loop *loop, const char *description,
                   const struct ash_disk_options *options, ash_disk_file_fn *visit,
                   ash_done_fn *done, void *opaque);
int ash_disk_files_sync(struct ash_loop *loop, const char *description,
                        const struct ash_disk_options *options, ash_disk_file_fn *visit,
                        void *opaque, struct ash_error *error);

/* Flushes, closes and frees the disk; all its queues must have been freed, and its loans ended
 * (asserted). `done` gets the result of the last flush and of writing metadata; the disk is gone in any
 * case. */
int ash_disk_close(struct ash_disk *disk, ash_done_fn *done, void *opaque);
int ash_disk_close_sync(struct ash_disk *disk, struct ash_error *error);

/* Sets the length; `bytes` up to INT64_MAX rounded down to 512. Growing reads as zeroes, whatever
 * the backing file holds there. Shrinking needs ASH_RESIZE_SHRINK, otherwise -EINVAL; what lay
 * beyond is lost. Errors: also -EINVAL (a flag that does not exist), -EFBIG, -EPERM (read-only),
 * -ENOTSUP (the driver cannot). */
#define ASH_RESIZE_SHRINK (1u << 0)
int ash_disk_resize(struct ash_disk *disk, uint64_t bytes, uint32_t flags, ash_done_fn *done,
                    void *opaque);
int ash_disk_resize_sync(struct ash_disk *disk, uint64_t bytes, uint32_t flags,
                         struct ash_error *error);

/* Puts a filter between a node and all that use it, while they go on, or takes it out again. The
 * description is a JSON object, as {"driver": "copy-on-read", "node-name": "cor", "file": "disk0"},
 * whose "file" is the name of a node of the loop; it stands below `disk` or is its topmost. A filter
 * is closed when nobody uses it any more. Errors: -EINVAL (the description, or there is no such
 * filter), -EBUSY (nobody uses the node, or the filter is a job's), and what opening it gives. */
int ash_disk_insert_filter(struct ash_disk *disk, const char *description, ash_done_fn *done,
                           void *opaque);
int ash_disk_insert_filter_sync(struct ash_disk *disk, const char *description,
                                struct ash_error *error);
int ash_disk_remove_filter(struct ash_disk *disk, const char *node_name, ash_done_fn *done,
                           void *opaque);
int ash_disk_remove_filter_sync(struct ash_disk *disk, const char *node_name,
                                struct ash_error *error);

/* A disk on loan to another loop: a node there, called `node_name` (unique on that loop), that stands
 * for the disk. So a job of that loop can copy to the disk, or read from it, though it has another
 * thread: {"type": "backup", "device": "disk0", "target": node_name, ...}. What is asked of the node
 * the disk is asked on its own thread, as by one more queue, with the rights that it was opened with.
 * The node is as long as the disk was when it was lent, or as the borrower makes it. Until the loan
 * has ended the disk must not be closed, nor either loop freed. The loan is the caller's; when
 * ash_loan_end() succeeds it is gone, with -EBUSY (something still uses the node) it goes on.
 *
 * From any thread; `done` is called on `loop`'s. Errors arrive with `done`: -EINVAL (the disk is of
 * that loop already), -EEXIST (the name); the call itself fails with -ENOMEM or -ESHUTDOWN only. Both
 * loops have to run meanwhile, so a _sync twin on the thread that runs the disk's loop is -EDEADLK. */
struct ash_loan;
typedef void ash_disk_lent_fn(void *opaque, int ret, struct ash_loan *loan,
                              const struct ash_error *error);
int ash_disk_lend(struct ash_disk *disk, struct ash_loop *loop, const char *node_name,
                  ash_disk_lent_fn *done, void *opaque);
int ash_disk_lend_sync(struct ash_disk *disk, struct ash_loop *loop, const char *node_name,
                       struct ash_loan **loan, struct ash_error *error);
int ash_loan_end(struct ash_loan *loan, ash_done_fn *done, void *opaque);
int ash_loan_end_sync(struct ash_loan *loan, struct ash_error *error);

/* Snapshots of what the owner thread last published; any thread, never waits. The info follows the
 * disk's resizes, and the jobs that lead it to another node. 0 or -EINVAL if `size` is not that of a known
 * version of the struct. */
int ash_disk_info(struct ash_disk *disk, struct ash_disk_info *info);
int ash_disk_stats(struct ash_disk *disk, struct ash_disk_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
