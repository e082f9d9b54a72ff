/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One io_uring: its set-up, its two queues and the one system call. */
#ifndef ASH_UTIL_ENGINE_RING_H
#define ASH_UTIL_ENGINE_RING_H

#include <liburing.h>
#include <stdbool.h>
#include <stdint.h>

struct ash_ring {
    struct io_uring ring; /* of liburing: mappings and sizes. The queues' state is kept here */
    uint32_t sq_tail;     /* of the entries that are filled, published or not */
    uint32_t cq_head;
    int host_fd;   /* an epoll set for the host to poll; -1 until it asks */
    int event_fd;  /* in it: the kernel writes it when there may be completions */
    bool deferred; /* bound to the thread that enables it */
    bool enabled;
};

/* Makes a ring for `depth` requests in flight, with the best set-up that the kernel has. A negative
 * errno; -ENOSYS also if the kernel's io_uring is too old, before Linux 5.11. */
int ash_ring_init(struct ash_ring *ring, uint32_t depth);
void ash_ring_destroy(struct ash_ring *ring);

/* Enables it for the calling thread. 0 or a negative errno. */
int ash_ring_enable(struct ash_ring *ring);

/* Publishes and submits all filled entries, runs what the kernel has deferred to this thread, and
 * waits for `wait_count` completions, at most timeout_ns (UINT64_MAX: no bound). Returns how many
 * entries were taken; -ETIME, -EINTR; -EAGAIN or -EBUSY if the kernel takes none now. */
int ash_ring_enter(struct ash_ring *ring, uint32_t wait_count, uint64_t timeout_ns);

/* A descriptor that polls readable when completions may have come since ash_ring_drain(), or when
 * `other_fd`, an eventfd, was written. It belongs to the ring. Or a negative errno. */
int ash_ring_host_fd(struct ash_ring *ring, int other_fd);

/* Ends the readiness of that descriptor. Look for completions afterwards, not before. */
void ash_ring_drain(struct ash_ring *ring);

/* Filled and not taken by the kernel. */
static inline uint32_t ash_ring_unsent(const struct ash_ring *ring)
{
    return ring->sq_tail - __atomic_load_n(ring->ring.sq.khead, __ATOMIC_ACQUIRE);
}

static inline bool ash_ring_full(const struct ash_ring *ring)
{
    return ash_ring_unsent(ring) >= ring->ring.sq.ring_entries;
}

/* The next entry to fill; the ring is not full (asserted). */
struct io_uring_sqe *ash_ring_next_sqe(struct ash_ring *ring);

/* Completions that can be taken without a system call. */
static inline uint32_t ash_ring_ready(const struct ash_ring *ring)
{
    return __atomic_load_n(ring->ring.cq.ktail, __ATOMIC_ACQUIRE) - ring->cq_head;
}

/* Whether the kernel holds completions back until the next ash_ring_enter(). */
static inline bool ash_ring_deferred_work(const struct ash_ring *ring)
{
    return __atomic_load_n(ring->ring.sq.kflags, __ATOMIC_RELAXED) &
           (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

/* A completion. */
struct ash_ring_event {
    uint64_t user_data;
    int32_t result;
    uint32_t flags;
};

/* Takes one; there is one (ash_ring_ready()). */
static inline struct ash_ring_event ash_ring_take(struct ash_ring *ring)
{
    const struct io_uring_cqe *cqe = &ring->ring.cq.cqes[ring->cq_head & ring->ring.cq.ring_mask];
    struct ash_ring_event event = {cqe->user_data, cqe->res, cqe->flags};

    ring->cq_head++;
    __atomic_store_n(ring->ring.cq.khead, ring->cq_head, __ATOMIC_RELEASE);
    return event;
}

#endif
