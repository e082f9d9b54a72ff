/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Queues of requests to a disk, in batches.
 *
 * Completions are collected with ash_queue_reap(), told by a callback, or both waited for on an
 * eventfd. Each accepted request completes exactly once, never inside the call that submitted it.
 *
 * Today a queue is used on the thread that owns the disk's loop; submitting, reaping and freeing
 * assert it. The calls are shaped so that a queue on another thread can be added. */
#ifndef ASHLAR_QUEUE_H
#define ASHLAR_QUEUE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <ashlar/disk.h>
#include <ashlar/error.h>

#ifdef __cplusplus
extern "C" {
#endif

enum ash_op {
    ASH_READ = 0,
    ASH_WRITE = 1,
    ASH_FLUSH = 2,
    ASH_DISCARD = 3, /* advice: the contents become undefined, or stay */
    ASH_ZERO = 4,    /* write zeroes */
    ASH_STATUS = 5,  /* what a range is: see ASH_STATUS_* */
    ASH_OP_COUNT = 6,
};

/* Request flags. */
#define ASH_REQ_FUA (1u << 0)         /* write, zero: stable on completion */
#define ASH_REQ_UNMAP (1u << 1)       /* zero: may give the space back to the host */
#define ASH_REQ_NO_FALLBACK (1u << 2) /* zero: -ENOTSUP rather than writing a buffer of zeroes */

/* Block status bits, as a result of ASH_STATUS. */
#define ASH_STATUS_DATA (1u << 0)      /* has contents of its own, to be read */
#define ASH_STATUS_ZERO (1u << 1)      /* reads as zeroes */
#define ASH_STATUS_ALLOCATED (1u << 2) /* decided by some layer of the chain */

struct ash_queue;

/* Elements of arrays have no size of their own: these two keep theirs, and grow by what is reserved, which
 * is 0; -EINVAL otherwise, as of a flag that does not exist. */
struct ash_req {
    uint8_t op;     /* enum ash_op */
    uint8_t reserved0;
    uint16_t reserved1;
    uint32_t flags; /* ASH_REQ_* */
    uint64_t offset;
    uint64_t bytes;         /* read, write: the sum of the vector; 0 is allowed and does nothing */
    const struct iovec *iov; /* read, write: copied by submit; the memory it names is the library's
                                until completion. The library never reads a guest's buffer twice
                                where a change in between would matter */
    uint32_t iov_count;     /* any number */
    uint32_t reserved2;
    uint64_t user_data;
};

struct ash_cqe {
    uint64_t user_data;
    int32_t result;        /* 0 or a negative errno; ASH_STATUS: ASH_STATUS_* bits */
    uint32_t reserved;
    uint64_t status_bytes; /* ASH_STATUS: how far from the offset the answer holds */
};

/* Called once per turn of the loop with what completed in it, on the owner thread's plain stack.
 * It may submit, reap, and free other queues, not this one. */
typedef void ash_queue_fn(void *opaque, const struct ash_cqe *cqe, uint32_t count);

/* A queue for at most `depth` requests in flight (1 to 65536). Owner thread. Errors: -EINVAL,
 * -ENOMEM. */
int ash_queue_new(struct ash_disk *disk, uint32_t depth, struct ash_queue **queue,
                  struct ash_error *error);

/* Takes up to `count` requests in order and returns how many: fewer than `count` when the queue is
 * full (reap first). A request that is wrong in itself (an op or flag that does not exist, a range
 * outside the disk, a write to a read-only disk) is taken, and completes with its error. */
int ash_queue_submit(struct ash_queue *queue, const struct ash_req *req, uint32_t count);

/* Moves up to `max` completions to `cqe` and returns how many. Never waits. */
int ash_queue_reap(struct ash_queue *queue, struct ash_cqe *cqe, uint32_t max);

/* From now on completions go to `fn` and not to ash_queue_reap(). NULL takes that back. */
void ash_queue_on_complete(struct ash_queue *queue, ash_queue_fn *fn, void *opaque);

/* An eventfd (created by the first call) whose counter is raised once per turn of the loop in which
 * requests completed, unless notifications are off, and when it is created if some wait to be reaped. The
 * reader resets it. -EMFILE. */
int ash_queue_eventfd(struct ash_queue *queue);

/* Switches notifications of the eventfd on or off while the caller polls. On by default. When they
 * are switched on and completions are waiting, the counter is raised at once: none is missed. */
void ash_queue_notify(struct ash_queue *queue, bool on);

/* Requests submitted and not yet reaped. */
uint32_t ash_queue_in_flight(const struct ash_queue *queue);

/* Frees the queue. Requests must have completed (asserted); completions not reaped are dropped. */
void ash_queue_free(struct ash_queue *queue);

#ifdef __cplusplus
}
#endif
#endif
