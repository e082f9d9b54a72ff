/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The one descriptor that a host polls: an epoll set of
 *  - the engine's descriptor: completions, and wakes from other threads;
 *  - a timerfd, armed for the next timer;
 *  - an eventfd, readable while work is left that no descriptor of the kernel knows of: ready
 *    coroutines, turn hooks, posts that are not taken, requests that are queued and not submitted.
 *
 * It owns the three descriptors that it opens. They are opened with the loop, as all set-up is, and
 * kept up to date only once the host has asked for the set.
 *
 * Invariants, whenever the owner is outside of a turn and `asked`:
 *  1. the eventfd is readable if and only if ash_loop_work_left(), but for posts of other threads
 *     that came since: those have woken the engine, after its last wait, so its descriptor is
 *     readable.
 *  2. the timerfd is armed for a time not later than the next timer. It is never read: setting it
 *     again is what takes back its readiness, so an expired one stays readable until its timer is
 *     gone. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include "util/assert.h"
#include "util/error.h"
#include "util/loop/private.h"

static int add(int set, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int ash_host_fd_open(struct ash_loop *loop, struct ash_error *error)
{
    struct ash_host_fd *host_fd = &ash_loop_private(loop)->host_fd;
    *host_fd = (struct ash_host_fd){.epoll = -1, .timer = -1, .event = -1, .timer_ns = UINT64_MAX};
    int result = 0;
    host_fd->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (host_fd->epoll < 0) {
        result = -errno;
        goto fail;
    }
    host_fd->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (host_fd->timer < 0) {
        result = -errno;
        goto fail;
    }
    host_fd->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (host_fd->event < 0) {
        result = -errno;
        goto fail;
    }
    result = add(host_fd->epoll, host_fd->timer);
    if (result == 0) {
        result = add(host_fd->epoll, host_fd->event);
    }
    if (result < 0) {
        goto fail;
    }
    return 0;

fail:
    ash_host_fd_close(host_fd);
    return ash_error_errno(error, result, "cannot make the descriptor of a loop");
}

void ash_host_fd_close(struct ash_host_fd *host_fd)
{
    const int members[] = {host_fd->epoll, host_fd->timer, host_fd->event};
    for (size_t i = 0; i < ASH_ARRAY_SIZE(members); i++) {
        if (members[i] >= 0) {
            close(members[i]);
        }
    }
    host_fd->epoll = host_fd->timer = host_fd->event = -1;
}

static void arm_timer(struct ash_host_fd *host_fd, uint64_t deadline_ns)
{
    struct itimerspec when = {0};
    if (deadline_ns != UINT64_MAX) {
        /* All zero would disarm it. */
        uint64_t at_ns = ASH_MAX(deadline_ns, UINT64_C(1));
        when.it_value.tv_sec =
            (time_t)ASH_MIN(at_ns / 1000000000, (uint64_t)INT64_MAX / 1000000000);
        when.it_value.tv_nsec = (long)(at_ns % 1000000000);
    }
    int result = timerfd_settime(host_fd->timer, TFD_TIMER_ABSTIME, &when, NULL);
    ash_assert(result == 0);
    host_fd->timer_ns = deadline_ns;
}

static void signal_work(struct ash_host_fd *host_fd, bool left)
{
    uint64_t value = 1;
    ssize_t moved = left ? write(host_fd->event, &value, sizeof(value))
                         : read(host_fd->event, &value, sizeof(value));
    /* The counter is 0 or 1, so neither can fail or be interrupted. */
    ash_assert(moved == sizeof(value));
    host_fd->signalled = left;
}

void ash_host_fd_update(struct ash_loop *loop)
{
    struct ash_loop_private *private = ash_loop_private(loop);
    struct ash_host_fd *host_fd = &private->host_fd;
    if (!host_fd->asked) {
        return;
    }
    uint64_t next_ns = ash_timers_next(&private->timers);
    if (next_ns != host_fd->timer_ns) {
        arm_timer(host_fd, next_ns);
    }
    bool left = ash_loop_work_left(loop);
    if (left != host_fd->signalled) {
        signal_work(host_fd, left);
    }
}

static int expose(struct ash_loop *loop)
{
    struct ash_host_fd *host_fd = &ash_loop_private(loop)->host_fd;
    if (host_fd->asked) {
        return host_fd->epoll;
    }
    /* Only now, for an engine whose descriptor is polled pays for each wake with a system call. */
    int engine_fd = loop->engine->ops->fd(loop->engine);
    if (engine_fd < 0 || host_fd->epoll < 0) {
        return -ENOTSUP;
    }
    int result = add(host_fd->epoll, engine_fd);
    if (result < 0) {
        return result;
    }
    host_fd->asked = true;
    ash_loop_kick(loop);
    return host_fd->epoll;
}

ASH_PUBLIC int ash_loop_fd(struct ash_loop *loop)
{
    int cancel_state;
    ash_loop_assert_owner(loop);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    int result = expose(loop);
    pthread_setcancelstate(cancel_state, NULL);
    return result;
}

void ash_loop_kick(struct ash_loop *loop)
{
    ash_loop_assert_owner(loop);
    if (!ash_loop_private(loop)->in_turn) {
        int cancel_state;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
        ash_host_fd_update(loop);
        pthread_setcancelstate(cancel_state, NULL);
    }
}
