/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine: all I/O, time, randomness and threads reach the library through this interface.
 *
 * One engine belongs to one loop and is used on the loop's thread, but for ash_engine_wake().
 * Requests (struct ash_aio) usually live on the stack of the coroutine that waits for them.
 *
 * Invariants:
 *  1. submit() queues and never completes inline: the completion comes from wait().
 *  2. Each submitted request completes exactly once, by ash_aio_complete().
 *  3. An ash_aio, the memory and the file that it names stay valid until its completion.
 *  4. wait() makes at most one system call when nothing has to be slept for, and none when nothing
 *     is queued and completions are already there.
 *  5. A short read or write is the engine's business only in that it reports it: result is the number
 *     of bytes moved, as read(2) and write(2) give it. ash_co_read() and friends go on. */
#ifndef ASH_UTIL_ENGINE_ENGINE_H
#define ASH_UTIL_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <ashlar/error.h>
#include "util/compiler.h"
#include "util/iov.h"
#include "util/list.h"

struct ash_co;
struct ash_co_sched;
struct ash_engine;
struct ash_hooks;

/* An open file of an engine; each engine embeds it in its own struct. */
struct ash_file {
    struct ash_engine *engine;
    int fd;             /* of the host; -1 under sim */
    uint32_t flags;     /* ASH_FILE_* it was opened with */
};

#define ASH_FILE_WRITE (1u << 0)
#define ASH_FILE_DIRECT (1u << 1)     /* O_DIRECT */
#define ASH_FILE_CREATE (1u << 2)     /* mode 0644 */
#define ASH_FILE_TRUNCATE (1u << 3)
#define ASH_FILE_EXCLUSIVE (1u << 4)  /* with CREATE: -EEXIST */
#define ASH_FILE_NOCOW (1u << 5)      /* with CREATE: without copy-on-write, where the file system can */

enum ash_aio_op {
    ASH_AIO_OPEN,       /* path, file_flags, or adopt_fd >= 0 -> file. With CREATE, bytes is a hint how large
                           pieces of the host's file may be; 0: none. A descriptor that cannot be adopted
                           stays the caller's. A FIFO or socket is -EINVAL: opening one could block */
    ASH_AIO_CLOSE,      /* file; it is gone whatever the result */
    ASH_AIO_READ,       /* file, iov, offset, bytes -> bytes read; 0 at end of file */
    ASH_AIO_WRITE,      /* file, iov, offset, bytes -> bytes written; ASH_AIO_DSYNC */
    ASH_AIO_FLUSH,      /* file: as fdatasync */
    ASH_AIO_ALLOCATE,   /* file, offset, bytes, mode: as fallocate; on block devices too. What must read as
                           zeroes is never only discarded; PUNCH_HOLE with NO_HIDE_STALE is a discard that
                           promises nothing about the contents */
    ASH_AIO_TRUNCATE,   /* file, bytes: set the length */
    ASH_AIO_SEEK,       /* file, offset, mode SEEK_DATA or SEEK_HOLE -> offset; -ENXIO */
    ASH_AIO_STATUS,     /* file or path -> *status */
    ASH_AIO_LOCK,       /* file, ranges, range_count, mode F_RDLCK, F_WRLCK, F_UNLCK: open-file-description
                           locks, one after the other up to the first that fails; never waits: -EAGAIN when
                           another holds one. ASH_AIO_TEST: as F_OFD_GETLK -> 1 + the index of the first
                           that would conflict, else 0 */
    ASH_AIO_RENAME,     /* path -> path2 */
    ASH_AIO_UNLINK,     /* path */
    ASH_AIO_SYNC_DIR,   /* path of a directory: fsync it */
    ASH_AIO_READLINK,   /* path -> bytes into iov[0]; not NUL-terminated */
    ASH_AIO_COPY,       /* file -> file2, offset -> offset2, bytes: copy_file_range -> bytes; -EXDEV,
                           -EOPNOTSUPP */
    ASH_AIO_POLL,       /* poll_fd, mode POLLIN... -> revents. Idle ones cost nothing per turn */
    ASH_AIO_WORK,       /* work(work_opaque) on a worker thread -> its return value */
    ASH_AIO_OP_COUNT
};

#define ASH_AIO_DSYNC (1u << 0)
#define ASH_AIO_TEST (1u << 1)

struct ash_file_status {
    uint64_t bytes;           /* length; of a block device too */
    uint64_t allocated_bytes; /* st_blocks * 512 */
    uint64_t device;          /* identifies the file together with inode */
    uint64_t inode;
    uint64_t modified_ns;
    uint32_t block_bytes;     /* logical sector of a device, st_blksize of a file */
    uint32_t physical_block_bytes; /* of a device; else 0 */
    uint32_t direct_offset_alignment;  /* statx DIOALIGN where the kernel tells; else 0 */
    uint32_t direct_memory_alignment;
    uint32_t discard_granularity;      /* of a device; else 0 */
    bool regular;
    bool directory;
    bool block_device;
    bool read_only_device;
};

struct ash_byte_range {
    uint64_t offset;
    uint64_t bytes;
};

struct ash_aio {
    uint8_t op; /* enum ash_aio_op */
    uint32_t flags;
    int mode;
    struct ash_file *file; /* OPEN: result */
    struct ash_file *file2;
    struct ash_iov iov;
    uint64_t offset;
    uint64_t offset2;
    uint64_t bytes;
    const struct ash_byte_range *ranges;
    uint32_t range_count;
    const char *path;
    const char *path2;
    uint32_t file_flags;
    int adopt_fd;          /* OPEN: when >= 0, take over this descriptor instead of `path` */
    int poll_fd;
    int (*work)(void *opaque);
    void *work_opaque;
    struct ash_file_status *status;

    int64_t result;        /* >= 0, or a negative errno */

    /* How the completion is told: either the coroutine to wake, or a function called on the loop's
     * plain stack. Exactly one is set. */
    struct ash_co *waiter;
    void (*done)(struct ash_aio *aio);

    /* The engine's own while in flight. */
    struct ash_list link;
    union {
        void *pointer;
        uint64_t number;
        struct iovec inline_iov[4];
    } scratch;
};

struct ash_engine_config {
    uint32_t depth;
    uint32_t workers;
    uint64_t busy_poll_ns; /* UINT64_MAX: adaptive, within 50 us */
    const struct ash_hooks *hooks; /* may be NULL; outlives the engine */
};

struct ash_engine_ops {
    const char *name;

    /* Queues the request. It completes from wait(). */
    void (*submit)(struct ash_engine *engine, struct ash_aio *aio);

    /* Submits what is queued, takes completions. If there is none, sleeps until one comes, until
     * wake(), or until now() reaches deadline_ns (0: do not sleep, UINT64_MAX: no deadline); a signal
     * or a stale wake may end it earlier. Returns the number of completions, or a negative errno. */
    int (*wait)(struct ash_engine *engine, uint64_t deadline_ns);

    /* Ends a wait() that sleeps, or the next one. Any thread; async-signal-safe. */
    void (*wake)(struct ash_engine *engine);

    /* Monotonic time. */
    uint64_t (*now)(struct ash_engine *engine);
    /* Fills with what nobody can guess; of a simulated machine, with what differs from call to call.
     * Missing: the host's. */
    void (*random)(struct ash_engine *engine, void *buffer, size_t bytes);

    /* Cancels an ASH_AIO_POLL: it completes with -ECANCELED soon, unless it has completed. */
    void (*cancel_poll)(struct ash_engine *engine, struct ash_aio *aio);

    /* A descriptor that polls readable when wait(.., 0) would find completions or was woken; -1 if
     * the engine has none (sim). With io_uring a thread that sleeps in poll or epoll_wait may be
     * interrupted (EINTR) without a signal, when the kernel has it start an io_uring worker. */
    int (*fd)(struct ash_engine *engine);

    /* The calling thread becomes the one that uses the engine. May be NULL. */
    int (*bind)(struct ash_engine *engine);

    /* Requests will name this memory often. 0, or why no use can be made of it. Memory told of is taken
     * back as it was told; requests that use it may be in flight. NULL where it makes no difference. */
    int (*memory_add)(struct ash_engine *engine, void *base, uint64_t bytes);
    void (*memory_remove)(struct ash_engine *engine, void *base, uint64_t bytes);

    void (*destroy)(struct ash_engine *engine); /* nothing in flight (asserted) */
};

struct ash_engine {
    const struct ash_engine_ops *ops;
    uint32_t in_flight; /* submitted and not completed; polls not counted */
    bool unsent;        /* something was queued since the loop last called wait(): the loop clears it
                           before it calls wait() */
    struct ash_engine_config config;
};

/* Each makes an engine or says why it cannot be had: -ENOSYS where the kernel has or grants none. */
int ash_engine_uring_new(const struct ash_engine_config *, struct ash_engine **, struct ash_error *);
int ash_engine_aio_new(const struct ash_engine_config *, struct ash_engine **, struct ash_error *);
int ash_engine_threads_new(const struct ash_engine_config *, struct ash_engine **, struct ash_error *);

/* By name; NULL: the environment's ASHLAR_ENGINE, otherwise uring, aio, threads in this order. An
 * unknown or unavailable name is an error. */
int ash_engine_new(const char *name, const struct ash_engine_config *, struct ash_engine **,
                   struct ash_error *);

/* For engines: sets the result, takes it off in_flight, and wakes the waiter or calls done(), which
 * may submit and cancel. */
void ash_aio_complete(struct ash_engine *engine, struct ash_aio *aio, int64_t result);

/* Everyone queues through these: they count, and tell the loop whether a turn needs a system call. */
static inline void ash_engine_submit(struct ash_engine *engine, struct ash_aio *aio)
{
    engine->unsent = true;
    if (aio->op != ASH_AIO_POLL) {
        engine->in_flight++;
    }
    engine->ops->submit(engine, aio);
}

static inline void ash_engine_cancel_poll(struct ash_engine *engine, struct ash_aio *aio)
{
    engine->unsent = true;
    engine->ops->cancel_poll(engine, aio);
}

/* Random bytes: of the host, or the simulated machine's. Any thread; of a simulated machine, the
 * loop's. Cannot fail. */
void ash_engine_random(struct ash_engine *engine, void *buffer, size_t bytes);

#endif
