/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The io_uring engine.
 *
 * A request goes to one of three places: the ring, the worker threads (what io_uring has no request
 * for, and what must not be tried without blocking), or `local` (done without either).
 *
 *     submit ──▶ ring entry ──▶ kernel ──▶ completion entry ──▶ ash_aio_complete
 *        │           ▲                          │ -EAGAIN
 *        ├──▶ pending ┘ (ring full, or depth)    ▼
 *        ├──▶ workers ──────────────────────▶ done list ──▶ (in wait)
 *        └──▶ local ────────────────────────────────────▶ (in wait)
 *
 *  1. At most config.depth requests are in the kernel, polls not counted; what comes on top waits
 *     in `pending`. It neither fails nor blocks.
 *  2. A wait makes one io_uring_enter for all that was queued, and none if nothing was queued and
 *     completions were there. More only when a turn queued more than the ring holds; and while the
 *     host polls for us, one that finds nothing also ends the readiness of its descriptor.
 *  3. A deferred ring shows completions only after an enter. The kernel says by a flag in shared
 *     memory when it holds some back, so spinning costs no system call.
 *  4. user_data is the request's address; the two low bits say what else is to be done (enum
 *     tag).
 *  5. A poll in the kernel has scratch.number IN_KERNEL, and its link is empty until it is
 *     cancelled and waits for an entry on `cancels`. Its completion takes it off that list, so no
 *     cancel is sent for a request that is gone.
 *  6. A transfer of more than 4 pieces names them in an array of the pool, which scratch.pointer
 *     holds until the completion. Without memory for one, the first 4 pieces go out: a short
 *     transfer.
 *  7. What the kernel gives back unfinished (-EAGAIN, -EINTR, -EOPNOTSUPP, -EFAULT because
 * registered memory was taken back before the request was sent, -ECANCELED because the thread that
 * submitted it ended) is carried out by a worker, and its result is the one told.
 *  8. A short transfer of a file that lies in memory is done by the call that submits it: the
 * kernel would hand it to a thread of its own, and waking that takes longer than copying.
 * Such completions never keep those of the kernel back: a wait that found nothing in the ring
 * enters when the kernel holds something. */
#include "util/engine/engine.h"

#include <errno.h>
#include <poll.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <time.h>
#include "util/assert.h"
#include "util/engine/blocking.h"
#include "util/engine/iov_pool.h"
#include "util/engine/os.h"
#include "util/engine/ring.h"
#include "util/engine/ring_memory.h"
#include "util/engine/spin.h"
#include "util/engine/waker.h"
#include "util/engine/workers.h"
#include "util/error.h"

#define INLINE_PIECES ASH_ARRAY_SIZE(((struct ash_aio *)0)->scratch.inline_iov)
#define COPIED_BYTES_MAX 16384 /* of a file in memory: more is worth another processor */
#define RETRY_NS 1000000       /* when the kernel lacks memory for requests */

enum tag { TAG_PLAIN, TAG_ARRAY, TAG_WAKE, TAG_IGNORE, TAG_MASK = 3 };
enum poll_state { PENDING, IN_KERNEL, CANCELLING, LOCAL };

struct uring {
    struct ash_engine engine;
    struct ash_ring ring;
    struct ash_waker waker;
    struct ash_workers *workers;
    struct ash_spin spin;
    struct ash_iov_pool arrays;
    struct ash_list pending; /* for room in the ring or the depth */
    struct ash_list polls;   /* for room in the ring */
    struct ash_list cancels; /* polls in the kernel to be cancelled, for room in the ring */
    struct ash_list local;   /* done; aio->result is set */
    uint32_t in_kernel;      /* of requests but polls */
    uint32_t poll_count;     /* not completed */
    bool wake_armed;         /* the kernel polls the waker */
    bool multishot;
    struct ash_ring_memory memory;
};

static struct uring *uring_of(struct ash_engine *engine)
{
    return ash_container_of(engine, struct uring, engine);
}

/* Requests into the ring. */

static uint32_t prepare_transfer(struct uring *uring, struct io_uring_sqe *sqe, struct ash_aio *aio)
{
    int rw_flags = aio->flags & ASH_AIO_DSYNC ? RWF_DSYNC : 0;
    struct iovec *vec = aio->scratch.inline_iov;
    struct iovec *array;
    uint64_t covered;
    uint32_t tag = TAG_PLAIN;
    uint32_t count = ash_iov_collect(aio->iov, aio->bytes, vec, INLINE_PIECES, &covered);

    if (covered < aio->bytes && (array = ash_iov_pool_get(&uring->arrays))) {
        count = ash_iov_collect(aio->iov, aio->bytes, array, IOV_MAX, &covered);
        aio->scratch.pointer = array;
        vec = array;
        tag = TAG_ARRAY;
    }
    if (count == 1) {
        uint32_t bytes = (uint32_t)ASH_MIN(vec->iov_len, ASH_TRANSFER_BYTES_MAX);
        int slot = ash_ring_memory_find(&uring->memory, vec->iov_base, bytes);
        io_uring_prep_rw(aio->op == ASH_AIO_READ ? IORING_OP_READ : IORING_OP_WRITE, sqe,
                         aio->file->fd, vec->iov_base, bytes, aio->offset);
        if (ash_unlikely(slot >= 0)) {
            sqe->opcode = aio->op == ASH_AIO_READ ? IORING_OP_READ_FIXED : IORING_OP_WRITE_FIXED;
            sqe->buf_index = (uint16_t)slot;
        }
    } else {
        io_uring_prep_rw(aio->op == ASH_AIO_READ ? IORING_OP_READV : IORING_OP_WRITEV, sqe,
                         aio->file->fd, vec, count, aio->offset);
    }
    sqe->rw_flags = aio->op == ASH_AIO_WRITE ? rw_flags : 0;
    return tag;
}

/* Fills an entry; there is room. */
static void start(struct uring *uring, struct ash_aio *aio)
{
    struct io_uring_sqe *sqe = ash_ring_next_sqe(&uring->ring);
    uint32_t tag = TAG_PLAIN;

    switch (aio->op) {
    case ASH_AIO_READ:
    case ASH_AIO_WRITE:
        tag = prepare_transfer(uring, sqe, aio);
        break;
    case ASH_AIO_FLUSH:
        io_uring_prep_fsync(sqe, aio->file->fd, IORING_FSYNC_DATASYNC);
        break;
    case ASH_AIO_ALLOCATE:
        io_uring_prep_fallocate(sqe, aio->file->fd, aio->mode, (off_t)aio->offset,
                                (off_t)aio->bytes);
        break;
    case ASH_AIO_POLL:
        io_uring_prep_poll_add(sqe, aio->poll_fd, (unsigned int)aio->mode);
        break;
    default:
        ash_assert(!"a request that the ring carries out");
    }
    sqe->user_data = (uint64_t)(uintptr_t)aio | tag;
    if (aio->op == ASH_AIO_POLL) {
        aio->scratch.number = IN_KERNEL;
        ash_list_init(&aio->link);
    } else {
        uring->in_kernel++;
    }
}

static void start_cancel(struct uring *uring, struct ash_aio *aio)
{
    struct io_uring_sqe *sqe = ash_ring_next_sqe(&uring->ring);

    io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)aio);
    sqe->user_data = TAG_IGNORE;
}

static void arm_waker(struct uring *uring)
{
    struct io_uring_sqe *sqe = ash_ring_next_sqe(&uring->ring);

    if (uring->multishot) {
        io_uring_prep_poll_multishot(sqe, uring->waker.fd, POLLIN);
    } else {
        io_uring_prep_poll_add(sqe, uring->waker.fd, POLLIN);
    }
    sqe->user_data = TAG_WAKE;
    uring->wake_armed = true;
}

/* Takes what waits for room into the ring, as far as there is room. */
static void fill(struct uring *uring)
{
    if (!uring->wake_armed && !ash_ring_full(&uring->ring)) {
        arm_waker(uring);
    }
    while (!ash_list_empty(&uring->cancels) && !ash_ring_full(&uring->ring)) {
        struct ash_aio *aio = ash_list_first(&uring->cancels, struct ash_aio, link);
        ash_list_remove(&aio->link);
        start_cancel(uring, aio);
    }
    while (!ash_list_empty(&uring->polls) && !ash_ring_full(&uring->ring)) {
        struct ash_aio *aio = ash_list_first(&uring->polls, struct ash_aio, link);
        ash_list_remove(&aio->link);
        start(uring, aio);
    }
    while (!ash_list_empty(&uring->pending) && !ash_ring_full(&uring->ring) &&
           uring->in_kernel < uring->engine.config.depth) {
        struct ash_aio *aio = ash_list_first(&uring->pending, struct ash_aio, link);
        ash_list_remove(&aio->link);
        start(uring, aio);
    }
}

/* Whether something is held back that goes out as soon as the ring is empty. */
static bool waits_for_entries(const struct uring *uring)
{
    return !ash_list_empty(&uring->cancels) || !ash_list_empty(&uring->polls) ||
           (!ash_list_empty(&uring->pending) && uring->in_kernel < uring->engine.config.depth);
}

/* Done without the kernel: completes in the next wait. */
static void finish_locally(struct uring *uring, struct ash_aio *aio, int64_t result)
{
    aio->result = result;
    ash_list_push_back(&uring->local, &aio->link);
    ash_waker_wake(&uring->waker);
}

static bool ring_has(const struct ash_aio *aio)
{
    switch (aio->op) {
    case ASH_AIO_READ:
    case ASH_AIO_WRITE:
    case ASH_AIO_FLUSH:
        return true;
    case ASH_AIO_ALLOCATE: /* devices have fallbacks, and so has the mode that no file system knows
                            */
        return !ash_host_file(aio->file)->block_device && !(aio->mode & FALLOC_FL_NO_HIDE_STALE);
    default:
        return false;
    }
}

static void submit_poll(struct uring *uring, struct ash_aio *aio)
{
    uring->poll_count++;
    if (ash_list_empty(&uring->polls) && !ash_ring_full(&uring->ring)) {
        start(uring, aio);
    } else {
        aio->scratch.number = PENDING;
        ash_list_push_back(&uring->polls, &aio->link);
    }
}

static void uring_submit(struct ash_engine *engine, struct ash_aio *aio)
{
    struct uring *uring = uring_of(engine);

    if (aio->op == ASH_AIO_POLL) {
        submit_poll(uring, aio);
        return;
    }
    if (!ring_has(aio)) {
        ash_workers_submit(uring->workers, aio);
        return;
    }
    ash_spin_begin(&uring->spin, aio);
    if (ash_spin_counts(aio) && aio->bytes == 0) {
        finish_locally(uring, aio, 0);
    } else if (ash_spin_counts(aio) && aio->bytes <= COPIED_BYTES_MAX &&
               ash_host_file(aio->file)->in_memory) {
        finish_locally(uring, aio, ash_blocking_run(engine, aio));
    } else if (ash_list_empty(&uring->pending) && !ash_ring_full(&uring->ring) &&
               uring->in_kernel < engine->config.depth) {
        start(uring, aio);
    } else {
        ash_list_push_back(&uring->pending, &aio->link);
    }
}

static void uring_cancel_poll(struct ash_engine *engine, struct ash_aio *aio)
{
    struct uring *uring = uring_of(engine);

    ash_assert(aio->op == ASH_AIO_POLL);
    switch ((enum poll_state)aio->scratch.number) {
    case PENDING:
        ash_list_remove(&aio->link);
        aio->scratch.number = LOCAL;
        finish_locally(uring, aio, -ECANCELED);
        break;
    case IN_KERNEL:
        aio->scratch.number = CANCELLING;
        if (ash_ring_full(&uring->ring)) {
            ash_list_push_back(&uring->cancels, &aio->link);
        } else {
            start_cancel(uring, aio);
        }
        break;
    case CANCELLING:
    case LOCAL:
        break;
    }
}

/* Completions out of the ring. */

static void take_wake(struct uring *uring, const struct ash_ring_event *event)
{
    uint64_t count;

    if (event->result == -EINVAL && uring->multishot) {
        uring->multishot = false; /* before Linux 5.13 */
    }
    if (event->flags & IORING_CQE_F_MORE) {
        return;
    }
    /* It must be armed anew, which looks at the level: here alone the eventfd is read. */
    uring->wake_armed = false;
    if (read(uring->waker.fd, &count, sizeof(count)) < 0) {
        ash_assert(errno == EAGAIN);
    }
}

static void complete_poll(struct uring *uring, struct ash_aio *aio, int32_t result)
{
    ash_list_remove(&aio->link); /* off `cancels`, if it is there */
    uring->poll_count--;
    if (result >= 0) {
        result &= aio->mode | POLLERR | POLLHUP | POLLNVAL;
    }
    ash_aio_complete(&uring->engine, aio, result);
}

/* Returns how many requests it completed: 0 or 1. */
static int take(struct uring *uring, const struct ash_ring_event *event)
{
    struct ash_aio *aio = (struct ash_aio *)(uintptr_t)(event->user_data & ~(uint64_t)TAG_MASK);
    enum tag tag = event->user_data & TAG_MASK;

    if (tag == TAG_WAKE || tag == TAG_IGNORE) {
        if (tag == TAG_WAKE) {
            take_wake(uring, event);
        }
        return 0;
    }
    if (aio->op == ASH_AIO_POLL) {
        complete_poll(uring, aio, event->result);
        return 1;
    }
    uring->in_kernel--;
    if (tag == TAG_ARRAY) {
        ash_iov_pool_put(&uring->arrays, aio->scratch.pointer);
    }
    ash_spin_end(&uring->spin, aio);
    if (ash_unlikely(event->result == -EAGAIN || event->result == -EINTR ||
                     event->result == -ECANCELED || event->result == -EOPNOTSUPP ||
                     event->result == -EFAULT)) {
        ash_workers_submit(uring->workers, aio);
        return 0;
    }
    ash_aio_complete(&uring->engine, aio, event->result);
    return 1;
}

static int reap_local(struct uring *uring)
{
    struct ash_list local;
    int count = 0;

    if (ash_list_empty(&uring->local)) {
        return 0;
    }
    ash_list_init(&local);
    ash_list_insert_after(&uring->local, &local);
    ash_list_remove(&uring->local);
    while (!ash_list_empty(&local)) {
        struct ash_aio *aio = ash_list_first(&local, struct ash_aio, link);
        ash_list_remove(&aio->link);
        if (aio->op == ASH_AIO_POLL) {
            uring->poll_count--;
        } else {
            ash_spin_end(&uring->spin, aio);
        }
        ash_aio_complete(&uring->engine, aio, aio->result);
        count++;
    }
    return count;
}

/* Completes all that can be had without a system call. *woken is set if a wake was among it. */
static int collect(struct uring *uring, bool *woken)
{
    int count = 0;

    if (ash_waker_take(&uring->waker)) {
        *woken = true;
        count += ash_workers_reap(uring->workers);
        count += reap_local(uring);
    }
    for (uint32_t ready = ash_ring_ready(&uring->ring); ready; ready--) {
        struct ash_ring_event event = ash_ring_take(&uring->ring);
        count += take(uring, &event);
    }
    return count;
}

/* Hands everything to the kernel that it will take, without waiting. 0 or a negative errno; that it
 * cannot take more at present is none. */
static int send_all(struct uring *uring)
{
    int ret;

    do {
        fill(uring);
        ret = ash_ring_enter(&uring->ring, 0, UINT64_MAX);
    } while ((ret > 0 || ret == -EINTR) &&
             (ash_ring_unsent(&uring->ring) || waits_for_entries(uring)));
    return ret >= 0 || ret == -EAGAIN || ret == -EBUSY ? 0 : ret;
}

/* Looks for completions until there is one or the time is over. Returns how many. */
static int spin(struct uring *uring, uint64_t until_ns, bool *woken, int *error)
{
    do {
        for (int i = 0; i < 16; i++) {
            if (ash_ring_deferred_work(&uring->ring)) {
                *error = send_all(uring);
            }
            int count = collect(uring, woken);
            if (count || *woken || *error) {
                return count;
            }
            ash_spin_relax();
        }
        ash_spin_yield();
    } while (ash_os_now_ns() < until_ns);
    return 0;
}

/* Sleeps, submitting what is there. 0 or a negative errno. */
static int sleep_until(struct uring *uring, uint64_t start_ns, uint64_t deadline_ns)
{
    uint64_t timeout_ns = deadline_ns == UINT64_MAX ? UINT64_MAX : deadline_ns - start_ns;
    int ret;

    if (!ash_waker_prepare(&uring->waker)) {
        return send_all(uring);
    }
    ret = ash_ring_enter(&uring->ring, 1, timeout_ns);
    if (ret == -EAGAIN || ret == -EBUSY) {
        struct timespec nap = {.tv_nsec = (long)ASH_MIN(timeout_ns, RETRY_NS)};
        nanosleep(&nap, NULL);
        ret = 0;
    }
    ash_waker_awake(&uring->waker);
    return ret >= 0 || ret == -ETIME || ret == -EINTR ? 0 : ret;
}

/* There is nothing yet: spins if that pays, then sleeps. Returns how many requests completed, or a
 * negative errno. */
static int idle(struct uring *uring, uint64_t budget_ns, uint64_t deadline_ns)
{
    uint64_t start_ns = ash_os_now_ns(), now_ns = start_ns;
    uint32_t finished = uring->spin.finished;
    bool woken = false;
    int count = 0, ret = 0;

    if (budget_ns && start_ns < deadline_ns) {
        count = spin(uring, ASH_MIN(start_ns + budget_ns, deadline_ns), &woken, &ret);
        now_ns = ash_os_now_ns();
    }
    if (!count && !woken && ret == 0) {
        ret = now_ns < deadline_ns ? sleep_until(uring, now_ns, deadline_ns) : send_all(uring);
        count = collect(uring, &woken);
        now_ns = ash_os_now_ns();
    }
    if (uring->spin.finished != finished) {
        ash_spin_learn(&uring->spin, now_ns - start_ns);
    }
    return count ? count : ret;
}

static int uring_bind(struct ash_engine *engine)
{
    struct uring *uring = uring_of(engine);

    return uring->ring.enabled ? 0 : ash_ring_enable(&uring->ring);
}

static int uring_wait(struct ash_engine *engine, uint64_t deadline_ns)
{
    struct uring *uring = uring_of(engine);
    uint64_t budget_ns = 0;
    bool woken = false, straight = false;
    int ret = uring_bind(engine);
    bool shown; /* the ring had something: what else it holds back can wait until that is done */
    int count;

    if (ret < 0) {
        return ret;
    }
    shown = ash_ring_ready(&uring->ring) > 0;
    count = collect(uring, &woken);
    fill(uring);
    if (!count && !woken && deadline_ns) {
        budget_ns = ash_spin_budget(&uring->spin);
        /* Submits and sleeps in one call. */
        straight = !budget_ns && !waits_for_entries(uring);
    }
    if (!straight && (ash_ring_unsent(&uring->ring) ||
                      ((!count || !shown) && ash_ring_deferred_work(&uring->ring)))) {
        ret = send_all(uring);
        count += collect(uring, &woken);
    }
    if (!count && !woken && ret == 0 && deadline_ns) {
        count = idle(uring, budget_ns, deadline_ns);
    } else if (!count && ret == 0 && ash_waker_exposed(&uring->waker)) {
        ash_ring_drain(&uring->ring);
        if (ash_ring_deferred_work(&uring->ring)) {
            ret = send_all(uring);
        }
        count = collect(uring, &woken);
    }
    if (count > 0 && waits_for_entries(uring)) {
        ret = send_all(uring); /* into the room that completions made, before the host polls */
    }
    if (ash_ring_unsent(&uring->ring)) {
        engine->unsent = true; /* the kernel would not take it: the loop is to come again */
    }
    return count ? count : ret;
}

static void uring_wake(struct ash_engine *engine)
{
    ash_waker_wake(&uring_of(engine)->waker);
}

static uint64_t uring_now(struct ash_engine *engine)
{
    (void)engine;
    return ash_os_now_ns();
}

static int uring_fd(struct ash_engine *engine)
{
    struct uring *uring = uring_of(engine);
    int fd = ash_ring_host_fd(&uring->ring, uring->waker.fd);

    if (fd >= 0 && !ash_waker_exposed(&uring->waker)) {
        ash_waker_expose(&uring->waker);
        ash_waker_write(&uring->waker); /* what came before shall show */
    }
    return fd;
}

static int uring_memory_add(struct ash_engine *engine, void *base, uint64_t bytes)
{
    struct uring *uring = uring_of(engine);

    return ash_ring_memory_add(&uring->ring, &uring->memory, base, bytes);
}

static void uring_memory_remove(struct ash_engine *engine, void *base, uint64_t bytes)
{
    struct uring *uring = uring_of(engine);

    ash_ring_memory_remove(&uring->ring, &uring->memory, base, bytes);
}

static void uring_destroy(struct ash_engine *engine)
{
    struct uring *uring = uring_of(engine);

    ash_assert(engine->in_flight == 0);
    ash_assert(uring->poll_count == 0);
    ash_workers_free(uring->workers);
    ash_ring_destroy(&uring->ring);
    ash_waker_destroy(&uring->waker);
    ash_iov_pool_destroy(&uring->arrays);
    free(uring);
}

static const struct ash_engine_ops uring_ops = {
    .name = "uring",
    .submit = uring_submit,
    .wait = uring_wait,
    .wake = uring_wake,
    .now = uring_now,
    .cancel_poll = uring_cancel_poll,
    .fd = uring_fd,
    .bind = uring_bind,
    .memory_add = uring_memory_add,
    .memory_remove = uring_memory_remove,
    .destroy = uring_destroy,
};

static const char *refusal(int code)
{
    switch (code) {
    case -ENOSYS:
        return "this kernel has no io_uring, or one before Linux 5.11";
    case -EPERM:
        return "the system's policy does not allow io_uring (kernel.io_uring_disabled, seccomp)";
    case -ENOMEM:
        return "no memory for its rings (see also ulimit -l)";
    default:
        return NULL;
    }
}

int ash_engine_uring_new(const struct ash_engine_config *config, struct ash_engine **engine,
                         struct ash_error *error)
{
    struct uring *uring = calloc(1, sizeof(*uring));
    int ret;

    if (!uring) {
        return ash_error_set(error, -ENOMEM, "Engine uring: no memory");
    }
    uring->engine = (struct ash_engine){.ops = &uring_ops, .config = *config};
    uring->multishot = true;
    ash_list_init(&uring->pending);
    ash_list_init(&uring->polls);
    ash_list_init(&uring->cancels);
    ash_list_init(&uring->local);
    ash_spin_init(&uring->spin, config->busy_poll_ns);

    ret = ash_ring_init(&uring->ring, config->depth);
    if (ret < 0) {
        free(uring);
        return refusal(ret) ? ash_error_set(error, ret, "Engine uring: %s", refusal(ret))
                            : ash_error_errno(error, ret, "Engine uring: io_uring_setup");
    }
    ret = ash_waker_init(&uring->waker);
    if (ret < 0) {
        ash_ring_destroy(&uring->ring);
        free(uring);
        return ash_error_errno(error, ret, "Engine uring: eventfd");
    }
    uring->workers = ash_workers_new(&uring->engine, config->workers, &uring->spin);
    if (!uring->workers) {
        ash_waker_destroy(&uring->waker);
        ash_ring_destroy(&uring->ring);
        free(uring);
        return ash_error_set(error, -ENOMEM, "Engine uring: no memory");
    }
    *engine = &uring->engine;
    return 0;
}
