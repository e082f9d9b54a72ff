/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Queues of requests.
 *
 * Accepted requests stand in a FIFO of slots. Workers, coroutines that outlive a request, take them
 * one by one; a worker that finds more waiting makes sure that one other worker is on its way, so
 * that requests run side by side as soon as one blocks, and a batch of requests that never block
 * runs in one coroutine without a switch between them.
 *
 * Invariants:
 *  1. in_flight counts from submit to reap (or callback), and never exceeds depth; so the ring of
 *     completions, depth long, cannot overflow.
 *  2. While slots are waiting, a worker is running, or `starting` says that one is on its way.
 *  3. Completions reach the host at the end of a turn, on the plain stack.
 *  4. The queue outlives its workers: freeing it wakes idle ones, and the last to go frees the
 * memory. */
#include <ashlar/queue.h>
#include <errno.h>
#include <glib.h>
#include <string.h>
#include "block/disk/published.h"
#include "util/assert.h"
#include "util/error.h"
#include "util/engine/eventfd.h"

#define QUEUE_DEPTH_MAX 65536
#define INLINE_IOV 4
#define IDLE_WORKERS_MAX 64

struct slot {
    struct slot *next; /* in the list of free slots, or in the FIFO */
    struct ash_req req;
    uint64_t begin_ns;
    struct iovec *iov; /* own copy: inline_iov, or allocated */
    struct iovec inline_iov[INLINE_IOV];
};

struct ash_queue {
    struct ash_disk *disk;
    struct ash_loop *loop;
    uint32_t depth;
    uint32_t in_flight;
    uint32_t workers;  /* coroutines that exist */
    uint32_t starting; /* of them: woken or spawned, and not yet running */
    uint32_t idle;     /* of them: waiting in `rest` */
    bool freed;
    bool notify;
    int eventfd; /* -1: none */
    struct slot *slots;
    struct slot *free_slots;
    struct slot *waiting_first;
    struct slot **waiting_last;
    struct ash_cqe *ring;
    uint32_t ring_head; /* next to reap */
    uint32_t ring_count;
    struct ash_co_queue rest;
    struct ash_turn_hook hook;
    ash_queue_fn *on_complete;
    void *on_complete_opaque;
};

/* Completions. */

static void deliver(struct ash_queue *queue)
{
    while (queue->on_complete != NULL && queue->ring_count > 0) {
        /* What lies contiguously in the ring goes in one call; the callback may submit more. */
        uint32_t count = ASH_MIN(queue->ring_count, queue->depth - queue->ring_head);
        const struct ash_cqe *cqe = &queue->ring[queue->ring_head];
        struct ash_cqe copy[32];
        count = ASH_MIN(count, ASH_ARRAY_SIZE(copy));
        memcpy(copy, cqe, count * sizeof(*cqe));
        queue->ring_head = (queue->ring_head + count) % queue->depth;
        queue->ring_count -= count;
        queue->in_flight -= count;
        queue->on_complete(queue->on_complete_opaque, copy, count);
    }
}

static void turn_end(struct ash_turn_hook *hook)
{
    struct ash_queue *queue = ash_container_of(hook, struct ash_queue, hook);
    if (queue->eventfd >= 0 && queue->notify && queue->ring_count > 0) {
        ash_eventfd_raise(queue->eventfd);
    }
    deliver(queue);
}

static void complete(struct ash_queue *queue, struct slot *slot, int ret, uint64_t status_bytes)
{
    ash_assert(queue->ring_count < queue->depth);
    uint32_t tail = (queue->ring_head + queue->ring_count) % queue->depth;
    queue->ring[tail] = (struct ash_cqe){
        .user_data = slot->req.user_data, .result = ret, .status_bytes = status_bytes};
    queue->ring_count++;
    if (slot->iov != slot->inline_iov) {
        g_free(slot->iov);
    }
    slot->next = queue->free_slots;
    queue->free_slots = slot;
    ash_loop_at_turn_end(queue->loop, &queue->hook);
}

/* Requests. */

static int check(const struct slot *slot)
{
    const struct ash_req *req = &slot->req;
    if (req->op >= ASH_OP_COUNT || (req->flags & ~ASH_IO_PUBLIC_FLAGS) != 0 ||
        (req->reserved0 | req->reserved1 | req->reserved2) != 0) {
        return -EINVAL;
    }
    if (req->op == ASH_READ || req->op == ASH_WRITE) {
        uint64_t bytes = ash_iov_bytes(ash_iov_of(slot->iov, req->iov_count));
        return bytes < req->bytes ? -EINVAL : 0;
    }
    return 0;
}

ASH_CO_FN static void run_slot(struct ash_queue *queue, struct slot *slot)
{
    const struct ash_req *req = &slot->req;
    struct ash_status status = {0};
    struct ash_io io = {.op = req->op,
                        .flags = req->flags,
                        .offset = req->offset,
                        .bytes = req->bytes,
                        .status = &status};
    int ret = check(slot);
    if (ash_likely(ret == 0)) {
        io.iov = ash_iov_of(slot->iov, req->iov_count);
        ret = ash_disk_run(queue->disk, &io);
    }
    if (ash_likely(req->op < ASH_OP_COUNT)) {
        uint64_t now_ns = ash_loop_turn_ns(queue->loop);
        ash_disk_account(queue->disk, req->op, req->bytes, ret,
                         now_ns > slot->begin_ns ? now_ns - slot->begin_ns : 0);
    }
    if (ret >= 0 && req->op == ASH_STATUS) {
        ret = (int)(status.flags & (ASH_STATUS_DATA | ASH_STATUS_ZERO | ASH_STATUS_ALLOCATED));
    }
    complete(queue, slot, ret, status.bytes);
}

static struct slot *take_waiting(struct ash_queue *queue)
{
    struct slot *slot = queue->waiting_first;
    queue->waiting_first = slot->next;
    if (queue->waiting_first == NULL) {
        queue->waiting_last = &queue->waiting_first;
    }
    return slot;
}

static void start_worker(struct ash_queue *queue);

static void queue_destroy(struct ash_queue *queue)
{
    if (queue->eventfd >= 0) {
        ash_eventfd_close(queue->eventfd);
    }
    g_free(queue->slots);
    g_free(queue->ring);
    g_free(queue);
}

static void worker(void *opaque)
{
    struct ash_queue *queue = opaque;
    ash_co_assert_inside();
    queue->starting--;
    while (!queue->freed) {
        if (queue->waiting_first != NULL) {
            struct slot *slot = take_waiting(queue);
            if (queue->waiting_first != NULL && queue->starting == 0) {
                start_worker(queue);
            }
            run_slot(queue, slot);
        } else if (queue->idle < IDLE_WORKERS_MAX) {
            queue->idle++;
            ash_co_queue_wait(&queue->rest); /* who wakes it has taken it out of `idle` */
            queue->starting--;
        } else {
            break;
        }
    }
    if (--queue->workers == 0 && queue->freed) {
        queue_destroy(queue);
    }
}

/* Gets one more worker on its way. When no coroutine can be had, the workers that run take the
 * waiting requests one after another. */
static void start_worker(struct ash_queue *queue)
{
    if (queue->idle > 0) {
        queue->idle--;
        queue->starting++;
        ash_co_queue_wake_one(&queue->rest);
        return;
    }
    if (queue->workers < queue->depth && ash_co_spawn(&queue->loop->sched, worker, queue) == 0) {
        queue->workers++;
        queue->starting++;
    }
}

static int copy_iov(struct slot *slot)
{
    uint32_t count = slot->req.iov_count;
    slot->iov = slot->inline_iov;
    if (slot->req.op != ASH_READ && slot->req.op != ASH_WRITE) {
        return 0;
    }
    if (count > INLINE_IOV) {
        slot->iov = g_try_new(struct iovec, count);
        if (slot->iov == NULL) {
            slot->iov = slot->inline_iov;
            return -ENOMEM;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        slot->iov[i] = slot->req.iov[i];
    }
    slot->req.iov = slot->iov;
    return 0;
}

ASH_PUBLIC int ash_queue_submit(struct ash_queue *queue, const struct ash_req *req, uint32_t count)
{
    ash_loop_assert_owner(queue->loop);
    uint32_t taken = 0;
    uint64_t now_ns = ash_loop_turn_ns(queue->loop);
    while (taken < count && queue->in_flight < queue->depth) {
        struct slot *slot = queue->free_slots;
        ash_assert(slot != NULL);
        queue->free_slots = slot->next;
        slot->next = NULL;
        slot->req = req[taken];
        slot->begin_ns = now_ns;
        queue->in_flight++;
        taken++;
        int ret = copy_iov(slot);
        if (ash_unlikely(ret < 0)) {
            complete(queue, slot, ret, 0);
            continue;
        }
        *queue->waiting_last = slot;
        queue->waiting_last = &slot->next;
    }
    if (queue->waiting_first != NULL && queue->starting == 0) {
        start_worker(queue);
        if (ash_unlikely(queue->workers == 0)) {
            /* Not one coroutine can be had: say so rather than never answer. */
            while (queue->waiting_first != NULL) {
                complete(queue, take_waiting(queue), -ENOMEM, 0);
            }
        }
        ash_loop_kick(queue->loop); /* a host that polls must learn of it, outside of a turn too */
    }
    return (int)taken;
}

ASH_PUBLIC int ash_queue_reap(struct ash_queue *queue, struct ash_cqe *cqe, uint32_t max)
{
    ash_loop_assert_owner(queue->loop);
    uint32_t count = ASH_MIN(max, queue->ring_count);
    for (uint32_t i = 0; i < count; i++) {
        cqe[i] = queue->ring[queue->ring_head];
        queue->ring_head = (queue->ring_head + 1) % queue->depth;
    }
    queue->ring_count -= count;
    queue->in_flight -= count;
    return (int)count;
}

/* Life. */

ASH_PUBLIC int ash_queue_new(struct ash_disk *disk, uint32_t depth, struct ash_queue **result,
                             struct ash_error *error)
{
    ash_loop_assert_owner(disk->loop);
    if (depth == 0 || depth > QUEUE_DEPTH_MAX) {
        return ash_error_set(error, -EINVAL, "A queue's depth is 1 to %d, not %u", QUEUE_DEPTH_MAX,
                             depth);
    }
    struct ash_queue *queue = g_new0(struct ash_queue, 1);
    queue->slots = g_try_new0(struct slot, depth);
    queue->ring = g_try_new0(struct ash_cqe, depth);
    if (queue->slots == NULL || queue->ring == NULL) {
        g_free(queue->slots);
        g_free(queue->ring);
        g_free(queue);
        return ash_error_set(error, -ENOMEM, "No memory for a queue of depth %u", depth);
    }
    for (uint32_t i = 0; i < depth; i++) {
        queue->slots[i].next = i + 1 < depth ? &queue->slots[i + 1] : NULL;
    }
    queue->free_slots = queue->slots;
    queue->waiting_last = &queue->waiting_first;
    queue->disk = disk;
    queue->loop = disk->loop;
    queue->depth = depth;
    queue->notify = true;
    queue->eventfd = -1;
    ash_co_queue_init(&queue->rest);
    ash_turn_hook_init(&queue->hook, turn_end);
    disk->queues++;
    *result = queue;
    return 0;
}

ASH_PUBLIC void ash_queue_on_complete(struct ash_queue *queue, ash_queue_fn *fn, void *opaque)
{
    ash_loop_assert_owner(queue->loop);
    queue->on_complete = fn;
    queue->on_complete_opaque = opaque;
    if (fn != NULL && queue->ring_count > 0) {
        ash_loop_at_turn_end(queue->loop, &queue->hook);
    }
}

ASH_PUBLIC int ash_queue_eventfd(struct ash_queue *queue)
{
    if (queue->eventfd < 0) {
        queue->eventfd = ash_eventfd_new();
        if (queue->eventfd >= 0 && queue->notify && queue->ring_count > 0) {
            ash_eventfd_raise(queue->eventfd); /* what completed before there was one */
        }
    }
    return queue->eventfd;
}

ASH_PUBLIC void ash_queue_notify(struct ash_queue *queue, bool on)
{
    queue->notify = on;
    if (on && queue->eventfd >= 0 && queue->ring_count > 0) {
        ash_eventfd_raise(queue->eventfd);
    }
}

ASH_PUBLIC uint32_t ash_queue_in_flight(const struct ash_queue *queue)
{
    return queue->in_flight;
}

ASH_PUBLIC void ash_queue_free(struct ash_queue *queue)
{
    ash_loop_assert_owner(queue->loop);
    ash_assert(queue->in_flight == queue->ring_count);
    ash_turn_hook_cancel(&queue->hook);
    queue->disk->queues--;
    queue->freed = true;
    if (queue->workers == 0) {
        queue_destroy(queue);
        return;
    }
    while (queue->idle > 0) {
        start_worker(queue);
    }
}
