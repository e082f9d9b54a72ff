/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Polls over epoll. epoll knows a descriptor once; any number of requests may wait for it.
 *
 *  1. A descriptor is in the epoll set exactly while a request waits for it, with the union of
 *     what they wait for. So a closed and reused number finds no stale entry, and idle
 *     descriptors cost nothing in a turn.
 *  2. A request that waits has scratch.number WAITING and is on its descriptor's list; one that
 *     is ready is on `ready`. Events only move requests from one to the other: completions, which
 *     may submit and cancel, run afterwards.
 *  3. What epoll refuses because it is always ready (a regular file) is ready at once. */
#include "util/engine/pollset.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
#include "util/assert.h"

_Static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR &&
                   POLLHUP == EPOLLHUP && POLLPRI == EPOLLPRI && POLLRDHUP == EPOLLRDHUP,
               "poll and epoll name events alike");

#define EVENTS_MAX 64
#define ALWAYS (POLLERR | POLLHUP)

enum { WAITING = 1, READY = 2 };

struct watched {
    int fd;
    struct ash_list requests;
};

int ash_pollset_init(struct ash_pollset *pollset, struct ash_engine *engine)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    pollset->engine = engine;
    pollset->epoll_fd = fd;
    pollset->by_fd = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, g_free);
    ash_list_init(&pollset->ready);
    pollset->waiting = 0;
    return 0;
}

void ash_pollset_destroy(struct ash_pollset *pollset)
{
    ash_assert(g_hash_table_size(pollset->by_fd) == 0);
    ash_assert(ash_list_empty(&pollset->ready));
    g_hash_table_destroy(pollset->by_fd);
    close(pollset->epoll_fd);
}

int ash_pollset_watch(struct ash_pollset *pollset, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = -1};

    return epoll_ctl(pollset->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void ash_pollset_finish(struct ash_pollset *pollset, struct ash_aio *aio, int64_t result)
{
    aio->result = result;
    aio->scratch.number = READY;
    ash_list_push_back(&pollset->ready, &aio->link);
}

static uint32_t union_of_events(const struct watched *watched)
{
    uint32_t events = 0;

    ash_list_for_each (aio, &watched->requests, struct ash_aio, link) {
        events |= (uint32_t)aio->mode;
    }
    return events;
}

/* Tells epoll what the requests of a descriptor wait for now; forgets one that has none. */
static int update(struct ash_pollset *pollset, struct watched *watched, int op)
{
    struct epoll_event event = {.events = union_of_events(watched), .data.fd = watched->fd};
    int ret;

    if (ash_list_empty(&watched->requests)) {
        op = EPOLL_CTL_DEL;
    }
    ret = epoll_ctl(pollset->epoll_fd, op, watched->fd, &event) < 0 ? -errno : 0;
    if (op == EPOLL_CTL_DEL) {
        g_hash_table_remove(pollset->by_fd, GINT_TO_POINTER(watched->fd));
        return 0; /* one that was closed meanwhile has left by itself */
    }
    return ret;
}

bool ash_pollset_submit(struct ash_pollset *pollset, struct ash_aio *aio)
{
    struct watched *watched = g_hash_table_lookup(pollset->by_fd, GINT_TO_POINTER(aio->poll_fd));
    bool fresh = !watched;
    int ret;

    if (fresh) {
        watched = g_new(struct watched, 1);
        watched->fd = aio->poll_fd;
        ash_list_init(&watched->requests);
        g_hash_table_insert(pollset->by_fd, GINT_TO_POINTER(aio->poll_fd), watched);
    }
    aio->scratch.number = WAITING;
    ash_list_push_back(&watched->requests, &aio->link);
    pollset->waiting++;
    ret = update(pollset, watched, fresh ? EPOLL_CTL_ADD : EPOLL_CTL_MOD);
    if (ret == 0) {
        return false;
    }

    ash_list_remove(&aio->link);
    pollset->waiting--;
    if (ash_list_empty(&watched->requests)) {
        g_hash_table_remove(pollset->by_fd, GINT_TO_POINTER(aio->poll_fd));
    }
    ash_pollset_finish(pollset, aio, ret == -EPERM ? aio->mode & (POLLIN | POLLOUT) : ret);
    return true;
}

bool ash_pollset_cancel(struct ash_pollset *pollset, struct ash_aio *aio)
{
    struct watched *watched;

    if (aio->scratch.number != WAITING) {
        return false;
    }
    watched = g_hash_table_lookup(pollset->by_fd, GINT_TO_POINTER(aio->poll_fd));
    ash_assert(watched);
    ash_list_remove(&aio->link);
    pollset->waiting--;
    update(pollset, watched, EPOLL_CTL_MOD);
    ash_pollset_finish(pollset, aio, -ECANCELED);
    return true;
}

static void take_event(struct ash_pollset *pollset, int fd, uint32_t events)
{
    struct watched *watched = g_hash_table_lookup(pollset->by_fd, GINT_TO_POINTER(fd));
    bool changed = false;

    ash_assert(watched);
    ash_list_for_each_safe (aio, &watched->requests, struct ash_aio, link) {
        uint32_t found = events & ((uint32_t)aio->mode | ALWAYS);
        if (found) {
            ash_list_remove(&aio->link);
            pollset->waiting--;
            ash_pollset_finish(pollset, aio, found);
            changed = true;
        }
    }
    if (changed) {
        update(pollset, watched, EPOLL_CTL_MOD);
    }
}

static int sleep_in_epoll(int epoll_fd, struct epoll_event *events, uint64_t timeout_ns)
{
    struct timespec timeout = {
        .tv_sec = (time_t)(timeout_ns / 1000000000),
        .tv_nsec = (long)(timeout_ns % 1000000000),
    };
    struct timespec *bound = timeout_ns == UINT64_MAX ? NULL : &timeout;
    struct pollfd poll_fd = {.fd = epoll_fd, .events = POLLIN};
    int count;

    if (timeout_ns == 0) {
        return epoll_wait(epoll_fd, events, EVENTS_MAX, 0);
    }
    count = epoll_pwait2(epoll_fd, events, EVENTS_MAX, bound, NULL);
    if (count >= 0 || (errno != ENOSYS && errno != EPERM)) {
        return count;
    }
    /* Kernels before 5.11, and sandboxes that do not know the call. */
    count = ppoll(&poll_fd, 1, bound, NULL);
    return count > 0 ? epoll_wait(epoll_fd, events, EVENTS_MAX, 0) : count;
}

int ash_pollset_wait(struct ash_pollset *pollset, uint64_t timeout_ns)
{
    struct epoll_event events[EVENTS_MAX];
    int count = sleep_in_epoll(pollset->epoll_fd, events, timeout_ns);

    if (count < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd >= 0) {
            take_event(pollset, events[i].data.fd, events[i].events);
        }
    }
    return 0;
}

int ash_pollset_reap(struct ash_pollset *pollset)
{
    struct ash_list ready;
    int count = 0;

    if (ash_list_empty(&pollset->ready)) {
        return 0;
    }
    /* What the completions add waits for the next turn. */
    ash_list_init(&ready);
    ash_list_insert_after(&pollset->ready, &ready);
    ash_list_remove(&pollset->ready);
    while (!ash_list_empty(&ready)) {
        struct ash_aio *aio = ash_list_first(&ready, struct ash_aio, link);
        ash_list_remove(&aio->link);
        ash_aio_complete(pollset->engine, aio, aio->result);
        count++;
    }
    return count;
}
