/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The copier: copies ranges from one node to another, for every job and for copy-before-write.
 *
 * Invariants:
 *  1. Two copies of one cluster never run at once, nor a copy and whoever holds ash_copier_lock()
 * on it. So who checks, under the lock, that a cluster is still to be copied, copies it once.
 *  2. Data passes through a buffer of the copier's own, and is read once; or, with OFFLOAD and where
 *     both sides are files underneath, it is copied by the kernel and never seen. What the kernel
 *     fails at, for whatever reason, is read and written, so that an error is one side's.
 *  3. What the source says reads as zeroes is not read, and is written as zeroes, or not at all if
 *     the target reads as zeroes already.
 *  4. A copy is a user of both nodes: of the source from before it waits for its lock, as guests
 *     inside may wait for that lock, until it is over.
 *  5. A copier whose job is forced to end is forsaken: from then on copies still on their way,
 * which can only be waiting for the target, touch and hold up the source no more.
 *  6. A copier of a chain, whose source and target guests see as one, or one whose source does not
 *     answer in time, is abandoned instead: nothing new is read or written by it, and nobody waits for
 *     what is on its way in either.
 *  7. It lives while it has references: who gives a copy up drops its own, and the copy that is
 *     still on its way frees it. */
#ifndef ASH_BLOCK_COPY_COPIER_H
#define ASH_BLOCK_COPY_COPIER_H

#include "block/graph/node.h"
#include "block/io/io.h"
#include "util/co/range_lock.h"

#define ASH_COPY_COMPRESS (1u << 0)      /* the target gets coded units; -ENOTSUP if it has none */
#define ASH_COPY_DETECT_ZEROES (1u << 1) /* data that is zero is written as zeroes */
#define ASH_COPY_UNMAP (1u << 2)         /* zeroes may give space back in the target */
#define ASH_COPY_TARGET_ZERO (1u << 3)   /* what was never written to the target reads as zeroes */
#define ASH_COPY_OFFLOAD (1u << 4)       /* data may be copied by the kernel; zeroes are not detected */

struct ash_copier_config {
    struct ash_node *source;
    struct ash_node *target;
    const struct ash_node *base; /* not NULL: only what layers above it decide is copied */
    uint32_t flags;              /* ASH_COPY_* */
    uint64_t cluster_bytes_min;  /* a power of two; 0: 64 KiB */
    uint32_t target_needs;       /* rights besides reading and writing */
};

struct ash_copier {
    struct ash_loop *loop;
    uint32_t refs;
    uint32_t flags;
    uint64_t cluster_bytes; /* the larger of both nodes' allocation units, at least the minimum */
    const struct ash_node *base;
    bool through_gates; /* its job has paused the users itself, and copies the rest */
    struct ash_user source_user;
    struct ash_user target_user;
    struct ash_edge *source;
    struct ash_edge *target;
    struct ash_range_locks locks; /* in clusters */
    uint32_t copies;              /* between begin and end */
    uint32_t reading;             /* of them: in the source */
    uint32_t offloading;          /* of those: the kernel copies, and waits for the target too */
    bool forsaken;                /* no copy begins any more, or reads on */
    bool let_go;                  /* copies do not count as users of the source any more */
    bool abandoned;               /* nothing is read or written any more */
    bool stale; /* the source may not be what it was to be any more: what is read is not used */
    struct ash_co_queue read;     /* who waits for `reading` to be 0 */
};

/* What a copier from the one to the other copies at once: cluster_bytes. */
uint64_t ash_copier_cluster(const struct ash_node *source, const struct ash_node *target,
                            uint64_t cluster_bytes_min);

/* Takes edges to both nodes; the target's allows others to read. */
ASH_CO_FN int ash_copier_new(struct ash_loop *loop, const struct ash_copier_config *config,
                             struct ash_copier **copier, struct ash_error *error);
void ash_copier_ref(struct ash_copier *copier);
ASH_CO_FN void ash_copier_unref(struct ash_copier *copier);

/* Before and after a copy: enters the graph and locks whole clusters. -ECANCELED: it was forsaken;
 * then there is nothing to end. _inside: for whom a request in the graph waits, which must not be
 * held up by a gate. */
ASH_CO_FN int ash_copier_begin(struct ash_copier *copier, struct ash_range_lock *lock,
                               uint64_t offset, uint64_t bytes);
ASH_CO_FN int ash_copier_begin_inside(struct ash_copier *copier, struct ash_range_lock *lock,
                                      uint64_t offset, uint64_t bytes);
void ash_copier_end(struct ash_copier *copier, struct ash_range_lock *lock);

/* Waits until no copy reads the source, and lets that go. If one still does at the deadline (on the
 * loop's clock; UINT64_MAX: none), it is abandoned; at once, if there is a deadline, while the kernel
 * copies from the one to the other, which may never end. Once only (asserted). */
ASH_CO_FN void ash_copier_forsake(struct ash_copier *copier, uint64_t deadline_ns);

/* Waits for nothing. Its users are forsaken (ash_user_forsake), and keep both nodes. Once only. */
void ash_copier_abandon(struct ash_copier *copier);

/* Copies whole clusters (the last one of the source may be short), between begin and end. On
 * an error *reading says whether the source failed. What lies beyond the end of the source is left.
 */
ASH_CO_FN int ash_copier_copy(struct ash_copier *copier, uint64_t offset, uint64_t bytes,
                              bool *reading);

/* Reads the source, or asks what it is, between begin and end. -ECANCELED: it was let go. */
ASH_CO_FN int ash_copier_read(struct ash_copier *copier, uint64_t offset, uint64_t bytes,
                              const struct ash_iov *iov);
ASH_CO_FN int ash_copier_status(struct ash_copier *copier, uint64_t offset, uint64_t bytes,
                                struct ash_status *status);

/* Before and after requests to the target that others may wait for, so no gate holds them up.
 * -ECANCELED: it was abandoned; then there is nothing to leave. */
int ash_copier_enter_target(struct ash_copier *copier);
void ash_copier_leave_target(struct ash_copier *copier);

/* A request to the target, between these two. */
ASH_CO_FN int ash_copier_target_io(struct ash_copier *copier, const struct ash_io *io);

/* What the target was given is stable. */
ASH_CO_FN int ash_copier_flush(struct ash_copier *copier);
/* What was read from the source is stable there. -ECANCELED: it was let go. */
ASH_CO_FN int ash_copier_flush_source(struct ash_copier *copier);

/* Whether layers of the source above `base` (NULL: all) decide anything from `offset` on, and for
 * how long that is so. */
ASH_CO_FN int ash_copier_lookup(struct ash_copier *copier, const struct ash_node *base,
                                uint64_t offset, uint64_t bytes, uint64_t *same_bytes,
                                bool *decided);

/* Gives up all rights on the target and bears everything: it goes to another user. Nothing is being
 * written to it (asserted). */
ASH_CO_FN void ash_copier_yield_target(struct ash_copier *copier);

#endif
