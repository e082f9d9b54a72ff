/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The Linux AIO engine: reads and writes of O_DIRECT files go to io_submit, which for others would
 * block; all else goes to workers.
 *
 *  1. At most config.depth requests have a slot; what comes on top waits in `pending`.
 *  2. A slot is idle, queued for the next io_submit, or in the kernel.
 *  3. Completions are taken from the ring that the kernel shares with us, without a system call.
 *     The kernel writes the waker's eventfd with each, so that a sleep in epoll ends.
 *  4. What io_submit refuses, or gives back unfinished, is carried out by a worker: its result is
 *     the one that is told. When the kernel has no room for the moment, it is asked again once
 *     something has completed; only if it has nothing of ours does a worker take the request. */
#include "util/engine/engine.h"

#include <errno.h>
#include <libaio.h>
#include <stdlib.h>
#include "util/assert.h"
#include "util/engine/blocking.h"
#include "util/engine/epoll_core.h"
#include "util/engine/iov_pool.h"
#include "util/engine/os.h"
#include "util/error.h"

#define INLINE_PIECES ASH_ARRAY_SIZE(((struct ash_aio *)0)->scratch.inline_iov)
#define RING_MAGIC 0xa10a10a1

/* What an io_context_t points to: the kernel's struct aio_ring. */
struct ring {
    uint32_t id;
    uint32_t nr; /* events */
    uint32_t head;
    uint32_t tail;
    uint32_t magic;
    uint32_t compat_features;
    uint32_t incompat_features;
    uint32_t header_length;
    struct io_event events[];
};

_Static_assert(sizeof(struct ring) == 32, "as the kernel lays it out");

struct slot {
    struct iocb iocb;
    struct ash_aio *aio;
    struct iovec *array; /* of the pool, or NULL */
};

struct aio {
    struct ash_engine engine;
    struct ash_epoll_core core;
    io_context_t context;
    struct ash_iov_pool arrays;
    struct ash_list pending;
    struct slot *slots;
    uint32_t *idle; /* a stack of slot numbers */
    uint32_t idle_count;
    struct iocb **queue; /* for the next io_submit, from queue_first on */
    uint32_t queue_first;
    uint32_t queue_count;
    bool ring_usable;
};

static struct aio *aio_of(struct ash_engine *engine)
{
    return ash_container_of(engine, struct aio, engine);
}

/* Gives a request a slot and queues it; there is one idle. */
static void start(struct aio *self, struct ash_aio *aio)
{
    uint32_t number = self->idle[--self->idle_count];
    struct slot *slot = &self->slots[number];
    bool reading = aio->op == ASH_AIO_READ;
    struct iovec *vec = aio->scratch.inline_iov;
    uint64_t covered;
    uint32_t count = ash_iov_collect(aio->iov, aio->bytes, vec, INLINE_PIECES, &covered);

    slot->aio = aio;
    slot->array = NULL;
    if (covered < aio->bytes && (slot->array = ash_iov_pool_get(&self->arrays))) {
        vec = slot->array;
        count = ash_iov_collect(aio->iov, aio->bytes, vec, IOV_MAX, &covered);
    }
    if (count == 1) {
        size_t bytes = ASH_MIN(vec->iov_len, ASH_TRANSFER_BYTES_MAX);
        (reading ? io_prep_pread : io_prep_pwrite)(&slot->iocb, aio->file->fd, vec->iov_base, bytes,
                                                   (long long)aio->offset);
    } else {
        (reading ? io_prep_preadv : io_prep_pwritev)(&slot->iocb, aio->file->fd, vec, (int)count,
                                                     (long long)aio->offset);
    }
    slot->iocb.aio_rw_flags = !reading && (aio->flags & ASH_AIO_DSYNC) ? RWF_DSYNC : 0;
    slot->iocb.data = slot;
    io_set_eventfd(&slot->iocb, self->core.waker.fd);
    self->queue[(self->queue_first + self->queue_count++) % self->engine.config.depth] =
        &slot->iocb;
}

/* Lets the slot go; the request is the caller's again. */
static struct ash_aio *release(struct aio *self, struct slot *slot)
{
    struct ash_aio *aio = slot->aio;

    if (slot->array) {
        ash_iov_pool_put(&self->arrays, slot->array);
    }
    slot->aio = NULL;
    self->idle[self->idle_count++] = (uint32_t)(slot - self->slots);
    ash_spin_end(&self->core.spin, aio);
    return aio;
}

static void fill(struct aio *self)
{
    while (self->idle_count && !ash_list_empty(&self->pending)) {
        struct ash_aio *aio = ash_list_first(&self->pending, struct ash_aio, link);
        ash_list_remove(&aio->link);
        start(self, aio);
    }
}

/* Hands the queue to the kernel, as far as it takes it. */
static void send_all(struct aio *self)
{
    fill(self);
    while (self->queue_count) {
        uint32_t run = ASH_MIN(self->queue_count, self->engine.config.depth - self->queue_first);
        int ret = io_submit(self->context, run, &self->queue[self->queue_first]);
        if (ret == -EINTR) {
            continue;
        }
        if (ret == -EAGAIN && self->idle_count + self->queue_count < self->engine.config.depth) {
            return; /* something is in the kernel */
        }
        ash_assert(ret != 0);
        uint32_t taken = 1;
        if (ret < 0) {
            struct slot *slot = self->queue[self->queue_first]->data;
            ash_workers_submit(self->core.workers, release(self, slot));
        } else {
            taken = (uint32_t)ret;
        }
        self->queue_first = (self->queue_first + taken) % self->engine.config.depth;
        self->queue_count -= taken;
    }
}

static int take(struct aio *self, const struct io_event *event)
{
    struct ash_aio *aio = release(self, event->data);
    int64_t result = (long)event->res;

    if (result == -EAGAIN || result == -EINTR || result == -EOPNOTSUPP) {
        ash_workers_submit(self->core.workers, aio);
        return 0;
    }
    ash_aio_complete(&self->engine, aio, result);
    return 1;
}

static int peek_by_call(struct aio *self)
{
    struct timespec zero = {0};
    struct io_event events[16];
    int count = 0;
    int found = self->core.spin.transfers ? io_getevents(self->context, 0, 16, events, &zero) : 0;

    for (int i = 0; i < found; i++) {
        count += take(self, &events[i]);
    }
    return count;
}

static int aio_peek(struct ash_engine *engine)
{
    struct aio *self = aio_of(engine);
    struct ring *ring = (struct ring *)self->context;
    uint32_t tail;
    int count = 0;

    if (!self->ring_usable) {
        return peek_by_call(self);
    }
    tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
    while (ring->head != tail) {
        struct io_event event = ring->events[ring->head];
        __atomic_store_n(&ring->head, (ring->head + 1) % ring->nr, __ATOMIC_RELEASE);
        count += take(self, &event);
    }
    return count;
}

static void aio_submit(struct ash_engine *engine, struct ash_aio *aio)
{
    struct aio *self = aio_of(engine);

    if (!ash_spin_counts(aio) || !(aio->file->flags & ASH_FILE_DIRECT) || aio->bytes == 0) {
        ash_epoll_core_submit(&self->core, aio);
        return;
    }
    ash_spin_begin(&self->core.spin, aio);
    if (self->idle_count && ash_list_empty(&self->pending)) {
        start(self, aio);
    } else {
        ash_list_push_back(&self->pending, &aio->link);
    }
}

static int aio_wait(struct ash_engine *engine, uint64_t deadline_ns)
{
    struct aio *self = aio_of(engine);
    int count;

    send_all(self);
    count = ash_epoll_core_wait(&self->core, deadline_ns);
    if (count > 0 && (self->queue_count || (self->idle_count && !ash_list_empty(&self->pending)))) {
        send_all(self); /* into the room that completions made, before the host polls */
    }
    return count;
}

static void aio_wake(struct ash_engine *engine)
{
    ash_waker_wake(&aio_of(engine)->core.waker);
}

static uint64_t aio_now(struct ash_engine *engine)
{
    (void)engine;
    return ash_os_now_ns();
}

static void aio_cancel_poll(struct ash_engine *engine, struct ash_aio *aio)
{
    ash_epoll_core_cancel(&aio_of(engine)->core, aio);
}

static int aio_fd(struct ash_engine *engine)
{
    return ash_epoll_core_fd(&aio_of(engine)->core);
}

static void release_memory(struct aio *self)
{
    ash_iov_pool_destroy(&self->arrays);
    free(self->slots);
    free(self->idle);
    free(self->queue);
    free(self);
}

static void aio_destroy(struct ash_engine *engine)
{
    struct aio *self = aio_of(engine);

    ash_assert(engine->in_flight == 0);
    io_destroy(self->context);
    ash_epoll_core_destroy(&self->core);
    release_memory(self);
}

static const struct ash_engine_ops aio_ops = {
    .name = "aio",
    .submit = aio_submit,
    .wait = aio_wait,
    .wake = aio_wake,
    .now = aio_now,
    .cancel_poll = aio_cancel_poll,
    .fd = aio_fd,
    .destroy = aio_destroy,
};

static int refuse(struct ash_error *error, int code)
{
    if (code == -EAGAIN) {
        return ash_error_set(error, code,
                             "Engine aio: the system's bound on requests is reached "
                             "(/proc/sys/fs/aio-max-nr)");
    }
    if (code == -ENOSYS || code == -EPERM) {
        return ash_error_set(error, -ENOSYS, "Engine aio: this kernel has or grants no Linux AIO");
    }
    return ash_error_errno(error, code, "Engine aio: io_setup");
}

int ash_engine_aio_new(const struct ash_engine_config *config, struct ash_engine **engine,
                       struct ash_error *error)
{
    struct aio *self = calloc(1, sizeof(*self));
    const struct ring *ring;
    int ret;

    if (!self) {
        return ash_error_set(error, -ENOMEM, "Engine aio: no memory");
    }
    self->engine = (struct ash_engine){.ops = &aio_ops, .config = *config};
    ash_list_init(&self->pending);
    self->slots = calloc(config->depth, sizeof(*self->slots));
    self->idle = calloc(config->depth, sizeof(*self->idle));
    self->queue = calloc(config->depth, sizeof(struct iocb *));
    if (!self->slots || !self->idle || !self->queue) {
        release_memory(self);
        return ash_error_set(error, -ENOMEM, "Engine aio: no memory");
    }
    for (uint32_t i = 0; i < config->depth; i++) {
        self->idle[self->idle_count++] = config->depth - 1 - i;
    }
    ret = io_setup((int)config->depth, &self->context);
    if (ret < 0) {
        release_memory(self);
        return refuse(error, ret);
    }
    ring = (const struct ring *)self->context;
    self->ring_usable = ring->magic == RING_MAGIC && ring->incompat_features == 0 &&
                        ring->header_length == sizeof(struct ring);
    ret = ash_epoll_core_init(&self->core, &self->engine);
    if (ret < 0) {
        io_destroy(self->context);
        release_memory(self);
        return ash_error_errno(error, ret, "Engine aio: epoll and eventfd");
    }
    self->core.peek = aio_peek;
    *engine = &self->engine;
    return 0;
}
