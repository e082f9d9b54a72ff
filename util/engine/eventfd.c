/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An eventfd: its counter is a wake-up that cannot be lost. Not a cancellation point, although the calls
 * it makes are. */
#include "util/engine/eventfd.h"
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int ash_eventfd_new(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

void ash_eventfd_raise(int fd)
{
    uint64_t one = 1;
    ssize_t written;
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    do {
        written = write(fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    /* EAGAIN: the counter is at its maximum, so whoever polls it wakes anyway. */
    pthread_setcancelstate(cancel_state, NULL);
}

void ash_eventfd_close(int fd)
{
    int cancel_state;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
    close(fd);
    pthread_setcancelstate(cancel_state, NULL);
}
