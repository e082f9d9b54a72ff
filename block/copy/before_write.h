/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk as it was at one moment, while guests write on: what they are about to overwrite is copied
 * away first. The copy-before-write filter calls it for what guests change, the snapshot-access
 * filter reads through it, and a backup copies with it.
 *
 * It knows two things of each cluster (the copier's):
 *
 *     kept   uncopied   what the snapshot holds
 *     no     -          nothing: reading it is -EACCES
 *     yes    yes        what the source holds; to be copied before that changes
 *     yes    no         what the target holds
 *
 * Invariants:
 *  1. `kept` and `uncopied` of a cluster change under the copier's lock on it only, or while the
 *     users of the source are paused. A copy resets `uncopied` when it begins, and sets it again
 * when it fails.
 *  2. Who reads a cluster from the source holds its lock while reading. A guest's change waits for
 *     the lock, and goes on when the cluster is not to be copied any more: nobody reads it there
 *     then.
 *  3. A guest waits for one copy, or one read, of each cluster that it touches, and for no other.
 * It stops waiting when the snapshot is broken, or when its time is over: the copy, or what hangs
 *     in it, is not waited for.
 *  4. Once broken it stays so: nothing is copied any more, guests are not held up, and reading is
 *     -EACCES, also for reads under way.
 *  5. What the source grows by is not in the snapshot. What it is to lose is copied first.
 *  6. With a resume file, a guest's change goes on when its clusters are stably copied, or when the
 *     file stably says that the snapshot is broken. */
#ifndef ASH_BLOCK_COPY_BEFORE_WRITE_H
#define ASH_BLOCK_COPY_BEFORE_WRITE_H

#include "block/copy/copier.h"
#include "block/copy/resume_file.h"
#include "util/hbitmap.h"

struct ash_before_write_config {
    struct ash_node *source;
    struct ash_node *target;
    uint64_t cluster_bytes_min; /* a power of two; 0: 64 KiB */
    uint64_t timeout_ns;        /* so long a guest's change waits; 0: as long as it takes */
    bool break_guest_write;     /* a copy that failed fails the change, not the snapshot */
};

struct ash_before_write {
    struct ash_loop *loop;
    uint32_t refs;
    struct ash_copier *copier;
    struct ash_hbitmap kept; /* both in clusters of the copier */
    struct ash_hbitmap uncopied;
    uint64_t size_bytes; /* of the snapshot */
    uint64_t timeout_ns;
    bool break_guest_write;
    int broken;                     /* the error that broke it; 0: none did */
    struct ash_co_queue waiting;    /* guests; woken by each copy that ends, and when it breaks */
    void (*changed)(void *opaque);  /* a guest's copy has ended, or it broke; may be NULL */
    void *opaque;                   /* for changed */
    struct ash_resume_file *resume; /* NULL: none. A reference; its parts are clusters */
    uint32_t notings; /* of copies in the file, on their way: they flush the target. `changed` tells */
};

/* Whether copies can be at least so large: a power of two up to 1 GiB, or 0; else -EINVAL. */
int ash_before_write_check_cluster(uint64_t cluster_bytes_min, struct ash_error *error);

/* With all of the source kept and uncopied. The users of the source are paused, or there are none.
 * -ENOSPC: the target is shorter than the source; -ENOMEM, and what rights give. */
ASH_CO_FN int ash_before_write_new(struct ash_loop *loop,
                                   const struct ash_before_write_config *config,
                                   struct ash_before_write **result, struct ash_error *error);
void ash_before_write_ref(struct ash_before_write *self);
ASH_CO_FN void ash_before_write_unref(struct ash_before_write *self);

/* The moment of the snapshot is now: the length that the source has, and nothing kept. The users of
 * the source are paused. -ENOMEM: as before. ash_before_write_keep() then says what is kept. */
int ash_before_write_restart(struct ash_before_write *self);
/* The same, for a snapshot of a length that the source had earlier. */
int ash_before_write_restart_at(struct ash_before_write *self, uint64_t bytes);
/* Keeps every cluster that the range touches; cut to the snapshot. Users are paused. */
void ash_before_write_keep(struct ash_before_write *self, uint64_t offset, uint64_t bytes);

/* Before a guest's change of the range: returns when it may go on. 0, or, with break_guest_write,
 * the error of a copy. */
ASH_CO_FN int ash_before_write_guard(struct ash_before_write *self, uint64_t offset,
                                     uint64_t bytes);

/* Copies what is uncopied of the range (whole clusters), as a job does. -EACCES: broken;
 * -ECANCELED: forsaken. */
ASH_CO_FN int ash_before_write_copy(struct ash_before_write *self, uint64_t offset, uint64_t bytes,
                                    bool *reading);

/* Records copies in the file from now on, and takes over the caller's reference to it. The users of
 * the source are paused. */
void ash_before_write_record(struct ash_before_write *self, struct ash_resume_file *file);

/* Reads the snapshot; the range lies in it. Asks what its beginning is. */
ASH_CO_FN int ash_before_write_read(struct ash_before_write *self, uint64_t offset, uint64_t bytes,
                                    const struct ash_iov *iov);
ASH_CO_FN int ash_before_write_status(struct ash_before_write *self, uint64_t offset,
                                      uint64_t bytes, struct ash_status *status);

/* The whole clusters of the range are wanted no more: they are not copied, and what they take in
 * the target is given back. */
ASH_CO_FN int ash_before_write_drop(struct ash_before_write *self, uint64_t offset, uint64_t bytes);

/* Breaks the snapshot, and lets all guests go on. Again: nothing. */
void ash_before_write_break(struct ash_before_write *self, int error);
/* Breaks it and forsakes the copier (ash_copier_forsake): nothing of it holds the source up any more. */
ASH_CO_FN void ash_before_write_forsake(struct ash_before_write *self, uint64_t deadline_ns);

#endif
