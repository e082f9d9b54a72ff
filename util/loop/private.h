/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of util/loop share, and nobody else but their tests includes. */
#ifndef ASH_UTIL_LOOP_PRIVATE_H
#define ASH_UTIL_LOOP_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>
#include "util/loop/loop.h"

/* Armed timers. Owner thread. */
struct ash_timers {
    struct ash_timer **heap; /* 1-based; a parent is never later than its children */
    uint32_t count;
    uint32_t capacity;
    uint64_t sequence;
    uint64_t steps; /* comparisons ever made, for the test that idle timers cost nothing */
};

/* Calls that other threads sent. */
struct ash_posts {
    pthread_mutex_t lock;
    struct ash_post *first; /* lock */
    struct ash_post **last; /* lock; where the next one is linked */
    bool closed;            /* lock; nothing is taken any more */
    atomic_bool pending;    /* written under lock, read anywhere: first is not NULL */
    atomic_bool stop;       /* written under lock, read anywhere: a loop's own thread shall end */
};

/* What the host's poll sees. Owner thread; all -1 when the loop has a thread of its own. */
struct ash_host_fd {
    int epoll;
    int timer;         /* timerfd, armed for timer_ns */
    int event;         /* eventfd, readable while `signalled` */
    uint64_t timer_ns; /* UINT64_MAX: disarmed */
    bool signalled;
    bool asked; /* the host polls; until then nothing is kept up to date */
};

struct ash_loop_private {
    struct ash_loop loop;
    _Atomic(pthread_t) owner; /* 0: nobody yet */
    bool bound;               /* the engine's bind succeeded; owner thread */
    bool in_turn;             /* owner thread */
    bool own_thread;          /* constant */
    bool engine_waited;       /* the engine was asked at the end of the last turn; owner thread */
    uint64_t turn_ns;         /* the clock as first asked in this turn; 0: not yet; owner thread */
    uint32_t turns_unasked;   /* turns since the engine was last asked; owner thread */
    struct ash_list hooks;    /* of struct ash_turn_hook; owner thread */
    struct ash_list memory;   /* of what memory.c knows; owner thread */
    uint32_t memory_last_id;  /* owner thread */
    struct ash_timers timers;
    struct ash_posts posts;
    struct ash_host_fd host_fd;
    struct ash_loop_thread *thread; /* of a loop with a thread of its own */
};

static inline struct ash_loop_private *ash_loop_private(const struct ash_loop *loop)
{
    return loop->private;
}

/* config.c: the values to use, with the defaults filled in; hooks are copied to *hooks. */
struct ash_loop_settings {
    const char *engine;
    uint32_t flags;
    uint64_t metadata_bytes_max;
    struct ash_engine_config engine_config; /* .hooks is left alone */
};
int ash_loop_settings_read(const struct ash_loop_config *config, struct ash_loop_settings *settings,
                           struct ash_hooks *hooks, struct ash_error *error);

/* timer.c */
uint64_t ash_timers_next(const struct ash_timers *timers); /* UINT64_MAX: none */
uint32_t ash_timers_run(struct ash_loop *loop);            /* fires what is due; how many */

/* memory.c */
void ash_memory_forget_all(struct ash_loop *loop);

/* post.c */
int ash_posts_init(struct ash_posts *posts);
bool ash_posts_pending(struct ash_posts *posts);
uint32_t ash_posts_run(struct ash_loop *loop);
void ash_posts_close(struct ash_loop *loop); /* from now on -ESHUTDOWN; ends the own thread */
void ash_posts_destroy(struct ash_posts *posts);

/* host_fd.c */
int ash_host_fd_open(struct ash_loop *loop, struct ash_error *error);
void ash_host_fd_update(struct ash_loop *loop);
void ash_host_fd_close(struct ash_host_fd *host_fd);

/* loop.c */
int ash_loop_become_owner(struct ash_loop *loop);
bool ash_loop_work_left(const struct ash_loop *loop);
void ash_loop_pause_after_error(struct ash_loop *loop, int result);
void ash_loop_teardown(struct ash_loop *loop); /* all but the memory of the loop; owner thread */

/* thread.c */
int ash_loop_thread_start(struct ash_loop *loop, struct ash_error *error);
void ash_loop_thread_join(struct ash_loop *loop);

#endif
