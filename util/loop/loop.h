/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The loop's inside: what the library uses of it. The public part is <ashlar/loop.h>. */
#ifndef ASH_UTIL_LOOP_LOOP_H
#define ASH_UTIL_LOOP_LOOP_H

#include <stdbool.h>
#include <stdint.h>
#include <ashlar/loop.h>
#include "util/co/co.h"
#include "util/engine/engine.h"
#include "util/list.h"

/* A timer. Ten thousand armed ones cost nothing per turn: a binary heap. */
struct ash_timer {
    uint64_t deadline_ns;         /* on the engine's clock */
    void (*fire)(struct ash_timer *timer); /* on the loop's plain stack, once per arming */
    uint64_t sequence;            /* equal deadlines fire in the order of arming */
    uint32_t heap_index;          /* 0: not armed */
};

/* Work for the end of a turn, on the loop's plain stack: completions to the caller. */
struct ash_turn_hook {
    void (*run)(struct ash_turn_hook *hook);
    struct ash_list link;         /* empty while not scheduled */
};

struct ash_loop_private;

#define ASH_BUFFERS_KEPT_MAX 32

/* Large buffers that are kept for whoever wants one next. */
struct ash_buffers {
    uint32_t keepers;
    uint32_t count;
    struct {
        void *memory;
        size_t bytes;
    } kept[ASH_BUFFERS_KEPT_MAX];
};

/* The parts that the layers above use directly. */
struct ash_loop {
    struct ash_engine *engine;
    struct ash_co_sched sched;
    struct ash_hooks hooks;       /* copied, or zeroed */
    struct ash_buffers buffers;
    uint64_t metadata_bytes_max;
    void *block;                  /* the block layer's per-loop state; NULL until it sets it */
    void (*block_free)(struct ash_loop *loop); /* called by ash_loop_free */
    struct ash_loop_private *private;
};

/* As ash_loop_new() on an engine that the caller made; the loop owns the engine from now on, on
 * failure too. For tests and the simulator. */
int ash_loop_new_with_engine(struct ash_engine *engine, const struct ash_loop_config *config,
                             struct ash_loop **loop, struct ash_error *error);

bool ash_loop_is_owner(const struct ash_loop *loop);
bool ash_loop_has_owner(const struct ash_loop *loop);
void ash_loop_assert_owner(const struct ash_loop *loop);

/* The loop of the running coroutine. */
ASH_CO_FN struct ash_loop *ash_co_loop(void);

/* The engine's clock. */
uint64_t ash_loop_now(struct ash_loop *loop);

/* The same, read at most once a turn: for accounting, where a reading per request costs too much. */
uint64_t ash_loop_turn_ns(struct ash_loop *loop);

void ash_timer_init(struct ash_timer *timer, void (*fire)(struct ash_timer *timer));
void ash_timer_set(struct ash_loop *loop, struct ash_timer *timer, uint64_t deadline_ns);
void ash_timer_cancel(struct ash_loop *loop, struct ash_timer *timer);

ASH_CO_FN void ash_co_sleep_until(uint64_t deadline_ns);
ASH_CO_FN void ash_co_sleep(uint64_t duration_ns);

/* Runs hook->run once, at the end of this turn (or of the next, when called outside of one). A hook
 * that is scheduled already stays where it is. */
void ash_turn_hook_init(struct ash_turn_hook *hook, void (*run)(struct ash_turn_hook *hook));
void ash_loop_at_turn_end(struct ash_loop *loop, struct ash_turn_hook *hook);
void ash_turn_hook_cancel(struct ash_turn_hook *hook);

/* Has fn(opaque) run in a coroutine and waits for it. On the owner thread of a loop without a thread
 * of its own, outside of a turn: runs turns until it is done. From another thread: posts, and sleeps
 * until the owner has run it; that there is an owner is asserted. -EDEADLK from inside a turn.
 * Returns what fn returned, or, when fn was never run, -EAGAIN (too many coroutines), -ENOMEM or
 * -ESHUTDOWN.
 * Under the simulator it returns -EDEADLK too when nothing can happen any more; fn is then still
 * suspended, and `opaque` must stay valid while the loop lives. */
int ash_loop_run_sync(struct ash_loop *loop, int (*fn)(void *opaque), void *opaque);

/* Whether this thread is inside a turn of the loop. The owner may reach into the loop without a post
 * outside of a turn too, and then calls ash_loop_kick(). */
bool ash_loop_in_turn(const struct ash_loop *loop);

/* To be called by the owner after it made work outside of a turn: spawned or woke a coroutine, or
 * queued I/O. Makes ash_loop_fd() readable if the host polls it. Does nothing inside a turn, and
 * costs a system call at most once between two turns. Timers, turn hooks and posts do it on their
 * own. */
void ash_loop_kick(struct ash_loop *loop);

/* Data buffers: aligned (a power of two, at least 16), through the host's hooks. NULL: out of memory,
 * to be returned as -ENOMEM. Not zeroed. */
void *ash_buffer_alloc(struct ash_loop *loop, size_t bytes, size_t alignment);
void ash_buffer_free(struct ash_loop *loop, void *buffer, size_t bytes);

/* From keep until unkeep (they nest) large buffers that are freed are kept for the next who wants one
 * of that size: new memory costs a fault for each of its pages, which takes longer than what a job
 * does with them. Not where the host gives the memory. The owner thread. */
void ash_buffers_keep(struct ash_loop *loop);
void ash_buffers_unkeep(struct ash_loop *loop);

/* ash_loop_post() in memory of the caller's, which is his again when fn is called: so it fails only
 * with -ESHUTDOWN. Any thread. */
struct ash_post {
    struct ash_post *next;
    void (*fn)(void *opaque);
    void *opaque;
    bool owned; /* by the loop, which frees it */
};
int ash_loop_send(struct ash_loop *loop, struct ash_post *post);

/* One line to the host's log hook. Any thread. */
void ash_log(struct ash_loop *loop, enum ash_log_level level, const char *format, ...)
    ASH_PRINTF(3, 4);

#endif
