/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One io_uring. liburing maps it; entering it and keeping its queues is done here, because Debian's
 * liburing 2.3 neither exports the call that enables a ring nor takes "submit, run deferred work,
 * wait with a time-out" as one call.
 *
 *  1. Entry i of the submission queue always names slot i: the index array is written once.
 *  2. Entries are published only in ash_ring_enter().
 *  3. A deferred ring is created disabled, and belongs to the thread that enables it.
 *  4. A ring is only had where entering it and registering with it are allowed, too: some sandboxes
 *     refuse one call and not another, and that would show only when I/O is under way.
 *  5. The host does not poll the ring itself: what the kernel defers to the owner makes the ring
 *     readable, but wakes nobody who sleeps on it. An eventfd registered with the ring is written
 *     then. Both eventfds are in an epoll set, edge-triggered, so that one call drains them. */
#include "util/engine/ring.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "util/assert.h"
#include "util/compiler.h"

#define COMMON (IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP)
#define DEFERRED                                                                                   \
    (IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |         \
     IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED)
#define COOPERATIVE                                                                                \
    (IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL)

/* Sleeping with a time-out in the same call; completions are never dropped. */
#define FEATURES (IORING_FEAT_EXT_ARG | IORING_FEAT_NODROP)

#define CQ_ENTRIES_MIN 1024 /* idle polls are not counted in the depth, and may all fire */

/* From the best: Linux 6.1, 5.19, 5.11. */
static const uint32_t setups[] = {COMMON | DEFERRED, COMMON | COOPERATIVE, COMMON};

/* What a sandbox says of a call that it does not allow. Anything else is the ring's own answer,
 * such as that it is not enabled yet. */
static int refused(long result)
{
    return result < 0 && (errno == EPERM || errno == ENOSYS || errno == EACCES) ? -errno : 0;
}

static int try_calls(const struct ash_ring *ring)
{
    int fd = ring->ring.ring_fd;
    int ret = refused(syscall(__NR_io_uring_enter, fd, 0, 0, 0, NULL, 0));

    /* There are no buffers to take back. */
    return ret < 0
               ? ret
               : refused(syscall(__NR_io_uring_register, fd, IORING_UNREGISTER_BUFFERS, NULL, 0));
}

int ash_ring_init(struct ash_ring *ring, uint32_t depth)
{
    struct io_uring_params params;
    int ret = -ENOSYS;

    *ring = (struct ash_ring){.host_fd = -1, .event_fd = -1};
    for (size_t i = 0; i < ASH_ARRAY_SIZE(setups); i++) {
        params = (struct io_uring_params){
            .flags = setups[i],
            .cq_entries = ASH_MAX(4 * depth, CQ_ENTRIES_MIN),
        };
        ret = io_uring_queue_init_params(depth, &ring->ring, &params);
        if (ret != -EINVAL) {
            break;
        }
    }
    if (ret < 0) {
        return ret;
    }
    ret = (params.features & FEATURES) != FEATURES ? -ENOSYS : try_calls(ring);
    if (ret < 0) {
        io_uring_queue_exit(&ring->ring);
        return ret;
    }
    ring->deferred = params.flags & IORING_SETUP_R_DISABLED;
    ring->enabled = !ring->deferred;
    for (uint32_t i = 0; i < ring->ring.sq.ring_entries; i++) {
        ring->ring.sq.array[i] = i;
    }
    return 0;
}

void ash_ring_destroy(struct ash_ring *ring)
{
    io_uring_queue_exit(&ring->ring);
    if (ring->host_fd >= 0) {
        close(ring->host_fd);
        close(ring->event_fd);
    }
}

int ash_ring_host_fd(struct ash_ring *ring, int other_fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int epoll_fd, event_fd, ret;

    if (ring->host_fd >= 0) {
        return ring->host_fd;
    }
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event_fd < 0) {
        return -errno;
    }
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, event_fd, &event) < 0 ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, other_fd, &event) < 0) {
        ret = -errno;
    } else {
        ret = io_uring_register_eventfd(&ring->ring, event_fd);
    }
    if (ret < 0) {
        if (epoll_fd >= 0) {
            close(epoll_fd);
        }
        close(event_fd);
        return ret;
    }
    ring->host_fd = epoll_fd;
    ring->event_fd = event_fd;
    return epoll_fd;
}

void ash_ring_drain(struct ash_ring *ring)
{
    struct epoll_event events[2];

    if (ring->host_fd >= 0) {
        epoll_wait(ring->host_fd, events, 2, 0);
    }
}

int ash_ring_enable(struct ash_ring *ring)
{
    if (syscall(__NR_io_uring_register, ring->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) <
        0) {
        return -errno;
    }
    ring->enabled = true;
    return 0;
}

struct io_uring_sqe *ash_ring_next_sqe(struct ash_ring *ring)
{
    ash_assert(!ash_ring_full(ring));
    return &ring->ring.sq.sqes[ring->sq_tail++ & ring->ring.sq.ring_mask];
}

int ash_ring_enter(struct ash_ring *ring, uint32_t wait_count, uint64_t timeout_ns)
{
    struct __kernel_timespec timeout = {
        .tv_sec = (int64_t)(timeout_ns / 1000000000),
        .tv_nsec = (int64_t)(timeout_ns % 1000000000),
    };
    struct io_uring_getevents_arg arg = {
        .ts = timeout_ns == UINT64_MAX ? 0 : (uint64_t)(uintptr_t)&timeout,
    };
    int ret;

    __atomic_store_n(ring->ring.sq.ktail, ring->sq_tail, __ATOMIC_RELEASE);
    ret = (int)syscall(__NR_io_uring_enter, ring->ring.ring_fd, ash_ring_unsent(ring), wait_count,
                       IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG, &arg, sizeof(arg));
    return ret < 0 ? -errno : ret;
}
