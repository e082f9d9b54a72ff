/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A loop: one thread's event loop. Disks, their requests and everything under them belong to one
 * loop; other threads reach them by posting. Any number of loops run side by side and share
 * nothing.
 *
 * A loop runs either on the caller's thread (the caller polls ash_loop_fd() and calls
 * ash_loop_run_once()), or on a thread of its own (ASH_LOOP_OWN_THREAD). */
#ifndef ASHLAR_LOOP_H
#define ASHLAR_LOOP_H

#include <stddef.h>
#include <stdint.h>
#include <ashlar/error.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ash_loop;

/* The library creates the thread, binds the loop to it and runs it until ash_loop_free(). */
#define ASH_LOOP_OWN_THREAD (1u << 0)

enum ash_log_level {
    ASH_LOG_ERROR = 0,
    ASH_LOG_WARNING = 1,
    ASH_LOG_INFO = 2,
    ASH_LOG_DEBUG = 3,
};

/* The host's hooks; each may be NULL. All get `opaque` first. They are called on the loop's thread
 * unless they say otherwise, on its plain stack or on a coroutine's stack of 64 KiB, and must not
 * call back into the library. */
struct ash_hooks {
    uint32_t size; /* sizeof(struct ash_hooks) */
    uint32_t reserved;
    void *opaque;

    /* The library's only output: one line without a newline. May be called from a worker thread.
     * Default: nothing is printed. */
    void (*log)(void *opaque, enum ash_log_level level, const char *message);

    /* Called once before the process is aborted because an assertion of the library failed. It
     * may dump state; when it returns, abort() follows. From any thread. */
    void (*fatal)(void *opaque, const char *message);

    /* Memory for data buffers (not for small metadata): `bytes` aligned to `alignment`, a power of
     * two. NULL means out of memory and is returned as -ENOMEM. Set both or neither. */
    void *(*alloc)(void *opaque, size_t bytes, size_t alignment);
    void (*free)(void *opaque, void *memory, size_t bytes);

    /* Opens a host file in the library's place, as open(2) with these flags and mode, for hosts
     * that live in a jail. Returns a descriptor, which the library then owns, or a negative
     * errno. From any thread. */
    int (*open_file)(void *opaque, const char *path, int flags, uint32_t mode);

    /* Called first thing on each thread that the library starts, with its name. */
    void (*thread_started)(void *opaque, const char *name);
};

struct ash_loop_config {
    uint32_t size;  /* sizeof(struct ash_loop_config) */
    uint32_t flags; /* ASH_LOOP_* */
    /* "uring", "aio", "threads", or NULL: the value of ASHLAR_ENGINE if set, otherwise the first of
     * these that the kernel grants. A named engine that is not available is an error; it is not
     * replaced by another. */
    const char *engine;
    uint32_t depth;               /* I/O in flight; 0: 256. 1 to 4096 */
    uint32_t workers;             /* worker threads at most; 0: 16. 1 to 64 */
    uint64_t busy_poll_ns;        /* longest spin while I/O is in flight; UINT64_MAX: adaptive, up
                                     to 50 us; 0: never */
    uint64_t metadata_bytes_max;  /* memory for cached metadata tables of all disks on the loop;
                                     0: 32 MiB */
    const struct ash_hooks *hooks; /* copied; NULL: none */
};

/* A configuration of defaults. */
#define ASH_LOOP_CONFIG_INIT                                                                       \
    {sizeof(struct ash_loop_config), 0, NULL, 0, 0, UINT64_MAX, 0, NULL}

/* Makes a loop; `config` may be NULL for the defaults. Every system call of set-up happens here.
 * Without ASH_LOOP_OWN_THREAD the loop belongs to no thread until ash_loop_bind().
 * Any thread. Errors: -EINVAL (a field out of range, named in `error`), -ENOSYS (no engine, or not
 * the one asked for), -ENOMEM, -EMFILE. */
int ash_loop_new(const struct ash_loop_config *config, struct ash_loop **loop,
                 struct ash_error *error);

/* Makes the calling thread the owner, once, before the first call of ash_loop_run_once().
 * Errors: -EBUSY if the loop has an owner already; what the kernel returns when a ring cannot be
 * enabled. Not for loops with a thread of their own. */
int ash_loop_bind(struct ash_loop *loop);

/* A descriptor that polls readable (POLLIN, level-triggered) while ash_loop_run_once() has
 * something to do: completions, timers, posts. It can be put into another epoll set. It belongs to
 * the loop; do not read or close it. Owner thread. */
int ash_loop_fd(struct ash_loop *loop);

/* Runs one turn: takes what has completed, fires due timers, runs posts and at most `budget` ready
 * coroutines (0: no bound), submits what they queued. Sleeps up to `timeout_ns` (0: not at all,
 * -1: without bound) only if there was nothing to do. Callbacks of the caller run inside it, on this
 * stack. Returns the number of events handled, or a negative errno.
 * Owner thread; not from inside a callback (-EDEADLK). */
int ash_loop_run_once(struct ash_loop *loop, int64_t timeout_ns, uint32_t budget);

/* Has `fn(opaque)` called exactly once on the owner thread's plain stack, never inside this call,
 * in the order of posting from one thread. Any thread; not async-signal-safe. Errors: -ESHUTDOWN
 * once ash_loop_free() has begun, -ENOMEM. */
int ash_loop_post(struct ash_loop *loop, void (*fn)(void *opaque), void *opaque);

/* The name of the engine in use. Static storage, any thread. */
const char *ash_loop_engine(const struct ash_loop *loop);

/* Ends the loop. All its disks must be closed (asserted). Runs what was posted before. Owner
 * thread, or, for a loop with its own thread, any other thread; then it waits for that thread. */
void ash_loop_free(struct ash_loop *loop);

#ifdef __cplusplus
}
#endif
#endif
